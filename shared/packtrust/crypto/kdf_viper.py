# mypy: ignore-errors
"""The key pads of HMAC in MicroPython's viper. Never imported by CPython or CircuitPython; `kdf` asks for it."""

import micropython

TYPE_CHECKING = False
if TYPE_CHECKING:
    ptr8 = bytearray


@micropython.viper
def pads(inner: ptr8, outer: ptr8, key: ptr8, size: int):
    """The pads of a key of `size` bytes, at most 64; both have 64 bytes."""
    at = 0
    while at < size:
        byte = key[at]
        inner[at] = byte ^ 0x36
        outer[at] = byte ^ 0x5C
        at += 1
    while at < 64:
        inner[at] = 0x36
        outer[at] = 0x5C
        at += 1
