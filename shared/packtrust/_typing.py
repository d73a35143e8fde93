"""Names for type checkers. Import under `TYPE_CHECKING` only: boards have no `typing` module."""

from typing import Protocol, TypeAlias

# Anything with bytes in it that we read but do not keep.
Buffer: TypeAlias = bytes | bytearray | memoryview


class FrameLike(Protocol):
    """A CAN frame: `packtrust.Frame`, python-can's `Message`, or whatever has these attributes."""

    @property
    def arbitration_id(self) -> int:
        """11 or 29 bits."""

    @property
    def data(self) -> Buffer:
        """At most 8 bytes, 64 in CAN FD."""

    @property
    def is_extended_id(self) -> bool:
        """Whether the ID has 29 bits."""

    @property
    def is_fd(self) -> bool:
        """Whether it is a CAN FD frame."""


__all__ = ["Buffer", "FrameLike"]
