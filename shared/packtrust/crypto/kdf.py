"""HMAC (RFC 2104) and HKDF (RFC 5869) with SHA-256, on the interpreter's own hash."""

import sys

from packtrust._compat import const, sha256
from packtrust.crypto.buffers import wipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from packtrust._typing import Buffer

    Pads = Callable[..., None]  # two pads to fill, key, its length

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


def _chosen(native: "Pads") -> "tuple[Pads, str]":
    """The native form if it gives the known answer, else ours; and why not."""
    expected = bytearray(_BLOCK), bytearray(_BLOCK)
    made = bytearray(_BLOCK), bytearray(_BLOCK)
    for size in (0, 33, _BLOCK):
        _portable_pads(expected[0], expected[1], _COUNTERS[128:], size)
        native(made[0], made[1], _COUNTERS[128:], size)
        if made != expected:
            return _portable_pads, "failed its known-answer test and is disabled"
    return native, ""


_pads = _portable_pads  # type: Pads
disabled = ""  # why the native form is not used, if it is here
if sys.implementation.name == "micropython":
    try:
        from packtrust.crypto.kdf_viper import pads as _native
    except (ImportError, SyntaxError, ValueError):
        # A port without the emitter refuses the source (SyntaxError) or the compiled file (ValueError).
        disabled = ""
    else:
        _pads, disabled = _chosen(_native)


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
