"""One CAN frame, as every node, bus and tool passes it about.

The attribute names are those of python-can's ``Message``, so whatever takes a :class:`Frame` takes
a ``can.Message`` too, and the other way round.  Runs on CPython, MicroPython and CircuitPython.
"""


class Frame:
    """A classic CAN or CAN FD data frame, or a classic remote frame (ISO 11898-1, clause 10).

    arbitration_id   11 bits (standard) or 29 bits (extended), an int.
    data             0..8 bytes classic, 0..64 bytes FD; ``bytes``, or any bytes-like object.  A
                     remote frame has none.
    is_extended_id   29-bit identifier.
    is_fd            CAN FD frame.
    is_remote_frame  classic remote frame: no data, ``dlc`` tells the length asked for.
    bitrate_switch   FD only: the data phase goes at the data bit rate.
    dlc              data length in bytes (python-can's meaning, not the 4-bit code).

    Nothing is checked here: a frame may come from a wire, and its reader decides what is valid.
    """

    __slots__ = (
        "arbitration_id",
        "data",
        "is_extended_id",
        "is_fd",
        "is_remote_frame",
        "bitrate_switch",
        "dlc",
    )

    def __init__(
        self,
        arbitration_id: int,
        data: "bytes | bytearray | memoryview" = b"",
        is_extended_id: bool = True,
        is_fd: bool = False,
        is_remote_frame: bool = False,
        bitrate_switch: bool = False,
        dlc: "int | None" = None,
    ) -> None:
        self.arbitration_id = arbitration_id
        self.data = data
        self.is_extended_id = is_extended_id
        self.is_fd = is_fd
        self.is_remote_frame = is_remote_frame
        self.bitrate_switch = bitrate_switch
        self.dlc = len(data) if dlc is None else dlc

    def copy(self) -> "Frame":
        """A frame of its own, with its own data: for frames that belong to whoever handed them out."""
        return Frame(
            self.arbitration_id,
            bytes(self.data),
            self.is_extended_id,
            self.is_fd,
            self.is_remote_frame,
            self.bitrate_switch,
            self.dlc,
        )

    def __eq__(self, other: object) -> bool:
        """Equal on the wire.  A ``can.Message`` compares by the same attributes."""
        try:
            return (
                self.arbitration_id == other.arbitration_id  # type: ignore[attr-defined]
                and bytes(self.data) == bytes(other.data)  # type: ignore[attr-defined]
                and self.is_extended_id == other.is_extended_id  # type: ignore[attr-defined]
                and self.is_fd == other.is_fd  # type: ignore[attr-defined]
                and self.is_remote_frame == other.is_remote_frame  # type: ignore[attr-defined]
                and self.dlc == other.dlc  # type: ignore[attr-defined]
            )
        except AttributeError:
            return False

    def __hash__(self) -> int:
        return hash((self.arbitration_id, bytes(self.data), self.is_extended_id))

    def __repr__(self) -> str:
        """``Frame(123 [2] 0A0B)``, the ID in 3 or 8 hex digits, R for remote and FD marked."""
        if self.is_extended_id:
            ident = "%08X" % self.arbitration_id
        else:
            ident = "%03X" % self.arbitration_id
        kind = " FD" if self.is_fd else ""
        if self.is_remote_frame:
            return "Frame(%s%s [%d] R)" % (ident, kind, self.dlc)
        body = "".join(["%02X" % byte for byte in bytes(self.data)])
        return "Frame(%s%s [%d] %s)" % (ident, kind, len(self.data), body)
