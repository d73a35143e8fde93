"""Key halves as a bridge prints them: parse, refuse what is no key, remember what was seen.

Rules of docs/wire.md section 4: 128 hex digits decode to 64 bytes; 64 hex digits (today's bridge)
are used as their 64 lower-case ASCII bytes. Placeholders, repeats and equal halves are refused.
"""

import hashlib
import threading
from collections.abc import Iterable, Mapping

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from packtrust.errors import KeyFormatError
from packtrust.keys import decode_half
from packtrust_host.bridge.errors import BadKeyMaterial

ATTEST_INFO = b"packtrust v1 attest"
_NEXT = "do not use these keys; ask the bridge's operator why it supplies no key material"


def wipe(buffer: bytearray | None) -> None:
    """Overwrite a secret in place. None is allowed: a half that was never there."""
    if buffer is not None:
        buffer[:] = bytes(len(buffer))


def parse_half(text: object, call: str = "key half") -> bytearray:
    """The 64 bytes of one half. Raises BadKeyMaterial, whose message never shows the text."""
    if not isinstance(text, str):
        raise BadKeyMaterial(call, "the bridge supplied no key half", _NEXT)
    if text.startswith("generated_"):
        raise BadKeyMaterial(call, "the bridge supplied a placeholder instead of a key half", _NEXT)
    cause = ""
    try:
        return decode_half(text)
    except KeyFormatError as error:
        cause = str(error)
    # Raised outside the handler: an exception's context keeps frames, and those keep the text.
    raise BadKeyMaterial(call, cause, _NEXT)


def reference(half: bytes | bytearray) -> str:
    """SHA-256 (hex) of a half's 64 bytes: tells halves apart without keeping them."""
    return hashlib.sha256(half).hexdigest()


def pairing_auth(challenge_id: str, component: str) -> str:
    """`component_a_auth` or `_b_auth`: hex SHA-256 of challenge id and component id. No secret."""
    return hashlib.sha256((challenge_id + component).encode()).hexdigest()


def attest_key(lct_half: bytes | bytearray) -> bytes:
    """Key of MACs over statements: HKDF-Expand (RFC 5869, 2.3), PRK = LCT half (64 bytes)."""
    return HKDFExpand(hashes.SHA256(), 32, ATTEST_INFO).derive(bytes(lct_half))


class HalfRegistry:
    """Remembers, as SHA-256, each half that was seen and what for, so that repeats are refused.

    `to_json` and the constructor's `seen` carry it over a restart; it holds no key material.
    Thread-safe.
    """

    def __init__(self, seen: Mapping[str, str] | None = None) -> None:
        self._seen = dict(seen or {})
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._seen)

    def to_json(self) -> dict[str, str]:
        """Hex digest of each half seen -> its use."""
        with self._lock:
            return dict(self._seen)

    def use_of(self, half: bytes | bytearray) -> str | None:
        """What a half was seen for, None if it is new."""
        with self._lock:
            return self._seen.get(reference(half))

    def rename(self, half: bytes | bytearray, use: str) -> None:
        """Note that a half known before has come to its next use."""
        with self._lock:
            self._seen[reference(half)] = use

    def admit(self, call: str, halves: Iterable[tuple[bytes | bytearray, str]]) -> None:
        """Take all of `halves` (half, use), every one new, or none and raise BadKeyMaterial."""
        fresh: dict[str, str] = {}
        with self._lock:
            for half, use in halves:
                digest = reference(half)
                if digest in fresh:
                    raise BadKeyMaterial(call, "the bridge supplied equal key halves", _NEXT)
                if digest in self._seen:
                    raise BadKeyMaterial(call, "the bridge supplied a key half that it gave out before", _NEXT)
                fresh[digest] = use
            self._seen.update(fresh)
