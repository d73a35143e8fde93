"""Lanes: the memory over which the virtual Cortex-M4 and its host pass the bytes of CAN ports, without the board."""

import mmap
from pathlib import Path

import pytest

from packtrust_host.sim import qemu
from packtrust_host.sim.lanes import SIZE, Lane
from packtrust_host.sim.qemu import LANES_OFFSET, QemuError, QemuMachine

RING = 8 + SIZE


class BoardEnd:
    """What the board sees of a port's lane."""

    def __init__(self, image: Path, port: int) -> None:
        with image.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._at = LANES_OFFSET + 64 + 2 * port * RING

    def counters(self, ring: int) -> list[int]:
        at = self._at + ring * RING
        return [int.from_bytes(self._memory[at + place : at + place + 4], "little") for place in (0, 4)]

    def set(self, ring: int, place: int, value: int) -> None:
        at = self._at + ring * RING + 4 * place
        self._memory[at : at + 4] = value.to_bytes(4, "little")

    def data(self, ring: int) -> bytes:
        at = self._at + ring * RING + 8
        return self._memory[at : at + SIZE]

    def fetch(self) -> bytes:
        """Take all of the input."""
        head, tail = self.counters(0)
        found = bytes(self.data(0)[place % SIZE] for place in range(tail, head))
        self.set(0, 1, head)
        return found

    def give(self, data: bytes) -> None:
        """Append to the output."""
        head = self.counters(1)[0]
        for place, byte in enumerate(data, head):
            self._memory[self._at + RING + 8 + place % SIZE] = byte
        self.set(1, 0, head + len(data) & 0xFFFFFFFF)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "flash.img"
    qemu.new_flash(path)
    return path


def test_bytes_come_in_order_round_the_end_of_the_memory(image: Path) -> None:
    lane, board = Lane(image, LANES_OFFSET, 1), BoardEnd(image, 1)
    sent = received = b""
    for number in range(40):
        piece = bytes((number,)) * 700
        assert lane.write(piece) == 700
        assert board.fetch() == piece
        board.give(piece[::-1])
        sent += piece
        received += lane.read()
    assert received == sent and board.counters(0) == board.counters(1) == [28000, 28000]
    assert lane.read() == b""
    lane.close()


def test_a_full_lane_takes_what_it_has_room_for(image: Path) -> None:
    lane, board = Lane(image, LANES_OFFSET, 0), BoardEnd(image, 0)
    assert lane.write(b"a" * 5000) == 5000 and lane.write(b"b" * 5000) == SIZE - 5000 and lane.write(b"c") == 0
    assert board.fetch() == b"a" * 5000 + b"b" * (SIZE - 5000)
    assert lane.write(b"c") == 1 and board.fetch() == b"c"


def test_counters_run_on_beyond_32_bits(image: Path) -> None:
    lane, board = Lane(image, LANES_OFFSET, 0), BoardEnd(image, 0)
    for place in (0, 1):
        board.set(0, place, 0xFFFFFFFE)
        board.set(1, place, 0xFFFFFFFE)
    assert lane.write(b"four") == 4 and board.counters(0) == [2, 0xFFFFFFFE]
    board.give(b"back")
    assert lane.read() == b"back" and board.counters(1) == [2, 2]
    assert lane.write(b"x" * SIZE) == SIZE - 4


def test_what_a_board_gone_wrong_says_is_bounded(image: Path) -> None:
    lane, board = Lane(image, LANES_OFFSET, 0), BoardEnd(image, 0)
    board.set(1, 0, 0x7FFFFFFF)
    assert len(lane.read()) == SIZE and lane.read() == b""
    board.set(0, 1, 0x10000)  # has taken what was never given
    assert lane.write(b"x") == 0 and board.counters(0)[0] == 0


def test_nothing_that_was_read_stays_in_the_file(image: Path) -> None:
    lane, board = Lane(image, LANES_OFFSET, 2), BoardEnd(image, 2)
    board.give(b"aes 00112233")
    assert lane.read() == b"aes 00112233" and not any(board.data(1))
    board.give(b"left behind")
    lane.close()
    again = Lane(image, LANES_OFFSET, 2)  # another start
    assert again.read() == b"" and not any(board.data(1)) and board.counters(1) == [0, 0]


def test_lanes_need_an_image_that_is_written(image: Path) -> None:
    with pytest.raises(QemuError, match="lanes are in the flash image"):
        QemuMachine(image, image, persistent=False, lanes=1)
