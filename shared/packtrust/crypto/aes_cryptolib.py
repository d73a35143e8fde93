"""AES by the board's own `cryptolib` (MicroPython).

The library has ECB and CBC only, so GCM's counter blocks go through ECB, and GHASH is ours.
"""

from cryptolib import aes

from packtrust.errors import KeyFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from packtrust._typing import Buffer

_ECB = 1


class BlockCipher:
    """AES under one key of 16 or 32 bytes; `encrypt` works in place on whole blocks."""

    def __init__(self, key: "Buffer") -> None:
        if len(key) != 16 and len(key) != 32:
            raise KeyFormatError("an AES key has 16 or 32 bytes, not %d" % len(key))
        # (source, target), of whole blocks; GHASH kernels call it themselves.
        self.function: "Any" = aes(key, _ECB).encrypt

    def encrypt(self, blocks: bytearray) -> None:
        """Encrypt each 16-byte block of `blocks` where it stands (ECB)."""
        self.function(blocks, blocks)

    def wipe(self) -> None:
        """Drop the key schedule.

        It is out of Python's reach: the collector frees it, nobody overwrites it.
        """
        self.function = None
