"""Which portable test files tests/hil runs: few and quick ones that fit into a board's 96 KB, or all of them."""

from __future__ import annotations

import os

from content import portable_files

QUICK = ("test_arbitration", "test_replay", "test_segmentation", "test_isotp", "test_keys", "test_crypto_aead")

# HIL_FILES="all", or names separated by commas.
_asked = os.environ.get("HIL_FILES", "")
CHOSEN: tuple[str, ...] = QUICK if not _asked else tuple(portable_files() if _asked == "all" else _asked.split(","))
