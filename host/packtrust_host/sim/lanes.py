"""Lanes: what the virtual Cortex-M4 and its host say to each other over a CAN port, through memory both have.

The emulator's UART takes a byte at a time, each of which costs both ends several system calls and the board its time:
a frame has 27 of them. With lanes they go through two rings in the flash image, which is a file, and one byte in the
UART says that there is something. Layout, little endian as the host must be, from qemu.LANES_OFFSET on:

    MAGIC and how many of the ports have lanes, the first ones (u32), 60 bytes unused
    for each of the CAN ports:  the board's input, then its output, each
        head (u32, the writer's) || tail (u32, the reader's), both without bound || SIZE bytes

The first word is the emulator's to set, whether it was started with lanes or not. The other end is in
boards/cortex-m4/firmware/usermod/canboard.
"""

from __future__ import annotations

import mmap
from pathlib import Path

MAGIC = 0x4C414E00
SIZE = 8192
BELL = b"\x07"
_HEAD_LENGTH = 64
_RING_LENGTH = 8 + SIZE
_MASK = 0xFFFFFFFF


class _Ring:
    """One direction. Whoever writes or reads data moves his counter afterwards; the bell comes last, a system call.

    A counter is read and written as one word, never byte by byte: the board does not wait.
    """

    def __init__(self, memory: memoryview, at: int) -> None:
        self._counters = memory[at : at + 8].cast("I")
        self._data = memory[at + 8 : at + _RING_LENGTH]
        self._counters[0] = self._counters[1] = 0
        self._data[:] = bytes(SIZE)

    def write(self, data: bytes) -> int:
        """How many of these bytes there was room for."""
        head = self._counters[0]
        count = min(len(data), max(0, SIZE - (head - self._counters[1] & _MASK)))
        at = head % SIZE
        first = min(count, SIZE - at)
        self._data[at : at + first] = data[:first]
        self._data[: count - first] = data[first:count]
        self._counters[0] = head + count & _MASK
        return count

    def read(self) -> bytes:
        """What there is; it is there no more."""
        head, tail = self._counters
        # What a board that has gone wrong wrote there is no reason to read more than the ring.
        count = min(head - tail & _MASK, SIZE)
        at = tail % SIZE
        first = min(count, SIZE - at)
        data = bytes(self._data[at : at + first]) + bytes(self._data[: count - first])
        # A key tap's keys shall not stay in a file.
        self._data[at : at + first] = bytes(first)
        self._data[: count - first] = bytes(count - first)
        self._counters[1] = head
        return data

    def close(self) -> None:
        """Leave the memory."""
        self._counters.release()
        self._data.release()


class Lane:
    """The host's end of one CAN port, 0 being the first, in a flash image whose machine is not running yet."""

    def __init__(self, image: Path, offset: int, port: int) -> None:
        at = offset + _HEAD_LENGTH + 2 * port * _RING_LENGTH
        with image.open("r+b") as file:
            self._file = mmap.mmap(file.fileno(), at + 2 * _RING_LENGTH)
        self._memory = memoryview(self._file)
        self._to_board = _Ring(self._memory, at)
        self._from_board = _Ring(self._memory, at + _RING_LENGTH)

    def write(self, data: bytes) -> int:
        """Give the board bytes; how many it had room for."""
        return self._to_board.write(data)

    def read(self) -> bytes:
        """What the board has given."""
        return self._from_board.read()

    def close(self) -> None:
        """Leave the image."""
        self._to_board.close()
        self._from_board.close()
        self._memory.release()
        self._file.close()
