"""HMAC (RFC 2104) and HKDF (RFC 5869) with SHA-256, on the interpreter's own hash."""

import sys

from packtrust._compat import const, sha256
from packtrust.crypto.buffers import wipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from packtrust._typing import Buffer

DIGEST = const(32)
_BLOCK = const(64)
_INNER = const(0x36)
_OUTER = const(0x5C)
_INNER_PAD = bytes([_INNER]) * _BLOCK
_OUTER_PAD = bytes([_OUTER]) * _BLOCK
_ZEROS = bytes(_BLOCK)
_COUNTERS = bytes(range(256))


def _portable_pads(inner: bytearray, outer: bytearray, key: "Buffer", size: int) -> None:
    inner[:] = _INNER_PAD
    outer[:] = _OUTER_PAD
    for at in range(size):
        byte = key[at]
        inner[at] = byte ^ _INNER
        outer[at] = byte ^ _OUTER


_pads: "Callable[..., None]" = _portable_pads
if sys.implementation.name == "micropython":
    try:
        from packtrust.crypto.kdf_viper import pads as _viper_pads
    # A port without the emitter refuses the source (SyntaxError) or the compiled file (ValueError).
    except (ImportError, SyntaxError, ValueError):
        _viper_pads = _portable_pads
    _pads = _viper_pads


class Hmac:
    """HMAC-SHA-256 under one key of any length, for any number of messages."""

    def __init__(self, key: "Buffer") -> None:
        size = len(key)
        if size > _BLOCK:
            key = sha256(key).digest()
            size = DIGEST
        self._inner = bytearray(_BLOCK)
        self._outer = bytearray(_BLOCK)
        _pads(self._inner, self._outer, key, size)

    def digest(self, parts: "Sequence[Buffer]") -> bytes:
        """The 32-byte MAC of the parts, one after the other."""
        inner = sha256(self._inner)
        for part in parts:
            inner.update(part)
        outer = sha256(self._outer)
        outer.update(inner.digest())
        return outer.digest()

    def expand(self, info: "Sequence[Buffer]", length: int) -> bytearray:
        """HKDF-Expand (RFC 5869, 2.3) with the key as PRK: `length` bytes, 1 to 255 * 32, `info` in parts."""
        output = bytearray(length)
        previous = b""
        at = 0
        while at < length:
            inner = sha256(self._inner)
            inner.update(previous)
            for part in info:
                inner.update(part)
            counter = (at >> 5) + 1
            inner.update(_COUNTERS[counter : counter + 1])
            outer = sha256(self._outer)
            outer.update(inner.digest())
            previous = outer.digest()
            rest = length - at
            output[at : at + DIGEST] = previous if rest >= DIGEST else previous[:rest]
            at += DIGEST
        return output

    def wipe(self) -> None:
        """Overwrite the padded key."""
        self._inner[:] = _ZEROS
        self._outer[:] = _ZEROS


def hmac(key: "Buffer", parts: "Sequence[Buffer]") -> bytes:
    """HMAC-SHA-256 of the parts, one after the other."""
    mac = Hmac(key)
    result = mac.digest(parts)
    mac.wipe()
    return result


def expand(prk: "Buffer", info: "Sequence[Buffer]", length: int) -> bytes:
    """HKDF-Expand (RFC 5869, 2.3): `length` bytes, 1 to 255 * 32, `info` in parts."""
    mac = Hmac(prk)
    output = mac.expand(info, length)
    mac.wipe()
    result = bytes(output)
    wipe(output)
    return result
