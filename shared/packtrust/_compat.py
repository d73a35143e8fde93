"""What the interpreters disagree on."""

from struct import pack_into

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from hashlib import sha256
    from typing import TypeVar

    from packtrust._typing import Buffer

    _Value = TypeVar("_Value")

    def const(value: _Value) -> _Value:
        """The value itself."""
        return value

    def lay_into(form: str, into: bytearray | array[int], at: int, *values: int | Buffer) -> None:
        """`struct.pack_into` whose last value is any buffer."""

else:
    try:
        from hashlib import sha256
    except ImportError:
        # CircuitPython has `new` only.
        from hashlib import new

        def sha256(data=b""):
            """A hash object, fed with `data`."""
            return new("sha256", data)

    try:
        # MicroPython and CircuitPython fold `const(...)` while they compile.
        from micropython import const

        # Their `s` takes every buffer: one call in C that writes fields and moves bytes, and allocates nothing.
        lay_into = pack_into
    except ImportError:

        def const(value):
            """The value itself: CPython has no compile-time constants."""
            return value

        def lay_into(form, into, at, *values):
            """`struct.pack_into` whose last value is any buffer: CPython's `s` takes no memoryview."""
            pack_into(form, into, at, *values[:-1], bytes(values[-1]))


__all__ = ["const", "lay_into", "sha256"]
