"""HMAC (RFC 2104) and HKDF (RFC 5869) with SHA-256, on the interpreter's own hash."""

from hashlib import sha256

from packtrust._compat import const
from packtrust.crypto.buffers import wipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from packtrust._typing import Buffer

DIGEST = const(32)
_BLOCK = const(64)
_INNER = const(0x36)
_OUTER = const(0x5C)
_INNER_PAD = bytes([_INNER]) * _BLOCK
_OUTER_PAD = bytes([_OUTER]) * _BLOCK


class Hmac:
    """HMAC-SHA-256 under one key of any length, for any number of messages."""

    def __init__(self, key: "Buffer") -> None:
        if len(key) > _BLOCK:
            key = sha256(key).digest()
        inner = bytearray(_INNER_PAD)
        outer = bytearray(_OUTER_PAD)
        for at in range(len(key)):
            byte = key[at]
            inner[at] = byte ^ _INNER
            outer[at] = byte ^ _OUTER
        self._inner = inner
        self._outer = outer

    def digest(self, parts: "Sequence[Buffer]") -> bytes:
        """The 32-byte MAC of the parts, one after the other."""
        inner = sha256(self._inner)
        for part in parts:
            inner.update(part)
        outer = sha256(self._outer)
        outer.update(inner.digest())
        return outer.digest()

    def wipe(self) -> None:
        """Overwrite the padded key."""
        wipe(self._inner)
        wipe(self._outer)


def hmac(key: "Buffer", parts: "Sequence[Buffer]") -> bytes:
    """HMAC-SHA-256 of the parts, one after the other."""
    mac = Hmac(key)
    result = mac.digest(parts)
    mac.wipe()
    return result


def expand(prk: "Buffer", info: "Sequence[Buffer]", length: int) -> bytes:
    """HKDF-Expand (RFC 5869, 2.3): `length` bytes, 1 to 255 * 32, `info` in parts."""
    mac = Hmac(prk)
    output = bytearray(length)
    block = b""
    parts = [block]  # type: list[Buffer]
    parts.extend(info)
    parts.append(block)
    for at in range(0, length, DIGEST):
        parts[0] = block
        parts[-1] = bytes((at // DIGEST + 1,))
        block = mac.digest(parts)
        output[at : at + DIGEST] = block[: length - at]
    mac.wipe()
    result = bytes(output)
    wipe(output)
    return result
