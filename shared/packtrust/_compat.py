"""What the interpreters disagree on."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    _Value = TypeVar("_Value")

    def const(value: _Value) -> _Value:
        """The value itself."""
        return value

else:
    try:
        # MicroPython and CircuitPython fold `const(...)` while they compile.
        from micropython import const
    except ImportError:

        def const(value):
            """The value itself: CPython has no compile-time constants."""
            return value


__all__ = ["const"]
