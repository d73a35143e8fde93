"""Lanes: what the virtual Cortex-M4 and its host say to each other over a CAN port, through memory both have.

The emulator's UART takes a byte at a time, each of which costs both ends several system calls and the board its time:
a frame has 27 of them. With lanes they go through two rings in the flash image, which is a file, and one byte in the
UART says that there is something. Layout, little endian, from qemu.LANES_OFFSET on:

    MAGIC and how many of the ports have lanes, the first ones (u32), 60 bytes unused
    for each of the CAN ports:  the board's input, then its output, each
        head (u32, the writer's) || tail (u32, the reader's), both without bound || SIZE bytes

The first word is the emulator's to set, whether it was started with lanes or not. The other end is in
boards/cortex-m4/firmware/usermod/canboard.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

MAGIC = 0x4C414E00
SIZE = 8192
BELL = b"\x07"
_HEAD_LENGTH = 64
_RING_LENGTH = 8 + SIZE
_U32 = struct.Struct("<I")
_MASK = 0xFFFFFFFF


class _Ring:
    """One direction. Whoever writes or reads data moves his counter afterwards; the bell comes last, a system call."""

    def __init__(self, memory: mmap.mmap, at: int) -> None:
        self._memory = memory
        self._at = at

    def _counters(self) -> tuple[int, int]:
        return _U32.unpack_from(self._memory, self._at)[0], _U32.unpack_from(self._memory, self._at + 4)[0]

    def clear(self) -> None:
        """Empty, and both counters zero."""
        self._memory[self._at : self._at + 8] = bytes(8)

    def write(self, data: bytes) -> int:
        """How many of these bytes there was room for."""
        head, tail = self._counters()
        count = min(len(data), SIZE - (head - tail & _MASK))
        first = min(count, SIZE - head % SIZE)
        start = self._at + 8
        self._memory[start + head % SIZE : start + head % SIZE + first] = data[:first]
        self._memory[start : start + count - first] = data[first:count]
        _U32.pack_into(self._memory, self._at, head + count & _MASK)
        return count

    def read(self) -> bytes:
        """What there is."""
        head, tail = self._counters()
        # What a board that has gone wrong wrote there is no reason to read beyond the ring.
        count = min(head - tail & _MASK, SIZE)
        first = min(count, SIZE - tail % SIZE)
        start = self._at + 8
        data = (
            self._memory[start + tail % SIZE : start + tail % SIZE + first]
            + self._memory[start : start + count - first]
        )
        _U32.pack_into(self._memory, self._at + 4, head)
        return data


class Lane:
    """The host's end of one CAN port, 0 being the first, in a flash image whose machine is not running yet."""

    def __init__(self, image: Path, offset: int, port: int) -> None:
        at = _HEAD_LENGTH + 2 * port * _RING_LENGTH
        with image.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), offset + at + 2 * _RING_LENGTH)
        self._to_board = _Ring(self._memory, offset + at)
        self._from_board = _Ring(self._memory, offset + at + _RING_LENGTH)
        self._to_board.clear()
        self._from_board.clear()

    def write(self, data: bytes) -> int:
        """Give the board bytes; how many it had room for."""
        return self._to_board.write(data)

    def read(self) -> bytes:
        """What the board has given."""
        return self._from_board.read()

    def close(self) -> None:
        """Leave the image."""
        self._memory.close()
