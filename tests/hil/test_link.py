"""A sealed link between the board and this computer over its CAN bus, and what is left of it after a power cut."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from hilboard import prepare
from packtrust import Channel
from packtrust.arbitration import base_of, compose
from packtrust.channel import ESTABLISHED, OPENED
from packtrust.handshake import INITIATOR
from packtrust.policy import DEFAULT_POLICY
from packtrust_host.app.runner import to_message
from pytest_micropython_boards import Board, Execution, ScriptError

NODE = 5
LIMIT_S = 60.0
SECRET = bytes(range(32))
TELEMETRY = next(
    base for base in range(0x500, 0x540) if DEFAULT_POLICY.is_sealable(base) and not DEFAULT_POLICY.needs_citation(base)
)

CONFIG = {"role": "module", "unique_id": 0x0051A001, "serial": "HIL", "profile": "hil", "bitrate": 500_000}

# The other end: a channel on the board's own CAN port. It says what it has opened, and answers it backwards.
RESPONDER_CODE = """
import gc
from time import ticks_diff, ticks_ms
import packtrust_board
from packtrust.arbitration import compose
from packtrust.channel import OPENED, Channel
from packtrust.handshake import RESPONDER
from packtrust_node.txqueue import TxQueue
port = packtrust_board.can_port(0, None)
queue = TxQueue(port)
fd = getattr(port, "fd", False)
channel = Channel(%(secret)r, RESPONDER, %(node)d, ticks_ms, packtrust_board.urandom, "board", "rig", fd=fd)
gc.collect()
begin = heard = ticks_ms()
opened = 0
while opened < %(records)d or ticks_diff(ticks_ms(), heard) < 300:
    if ticks_diff(ticks_ms(), begin) > %(limit_ms)d:
        break
    port.poll(ticks_ms())
    frame = port.recv()
    while frame is not None:
        heard = ticks_ms()
        event = channel.feed(frame)
        if event is not None:
            print(event.kind)
            if event.kind == OPENED:
                opened += 1
                data = bytes(reversed(bytes(event.data)))
                for answer in channel.seal(compose(%(base)d, %(node)d), data):
                    queue.put(answer)
        frame = port.recv()
    channel.tick()
    for frame in channel.outgoing():
        queue.put(frame)
    queue.pump(ticks_ms())
print("opened", opened)
"""


class Rig:
    """This computer's end of the link, on a python-can bus."""

    def __init__(self, bus: Any, fd: bool = False) -> None:
        self.bus = bus
        self.fd_frames = 0
        self.channel = Channel(
            SECRET, INITIATOR, NODE, lambda: time.monotonic_ns() // 1_000_000, os.urandom, "rig", "board", fd=fd
        )
        self.opened: list[bytes] = []
        self.peer: Execution | None = None

    def _flush(self) -> None:
        for frame in self.channel.outgoing():
            self.bus.send(to_message(frame))

    def _turn(self) -> str | None:
        self._flush()
        message = self.bus.recv(0.02)
        self.channel.tick()
        if message is None or message.is_error_frame:
            return None
        self.fd_frames += message.is_fd
        event = self.channel.feed(message)
        self._flush()
        if event is None:
            return None
        if event.kind == OPENED:
            assert base_of(event.arbitration_id) == TELEMETRY
            self.opened.append(bytes(event.data))
        return str(event.kind)

    def until(self, kind: str) -> None:
        """Talk until something of this kind happens."""
        end = time.monotonic() + LIMIT_S
        while self._turn() != kind:
            if self.peer is not None:
                self.peer.poll()  # raises what went wrong there
            seen = None if self.peer is None else self.peer.output
            assert time.monotonic() < end, "no event %r within %d s; here: %r, on the board: %s" % (
                kind, LIMIT_S, self.channel.stats, seen,
            )  # fmt: skip

    def exchange(self, data: bytes) -> bytes:
        """Seal, send, and open the answer."""
        for frame in self.channel.seal(compose(TELEMETRY, NODE), data):
            self.bus.send(to_message(frame))
        self.until(OPENED)
        return self.opened[-1]


def configure(board: Board, **changes: Any) -> None:
    """Give the board a node.json, unless it has one: its module packtrust_board wants to know the bit rate.

    changes   of that file, whether there was one or not
    """
    for place in ("node.json", "/flash/node.json"):
        try:
            board.exec("import packtrust_board\npacktrust_board.config()")
        except ScriptError as error:
            if error.exception != "OSError":
                raise
            board.put(json.dumps(CONFIG).encode(), place)
    found = board.eval("packtrust_board.config()")
    if changes and found != found | changes:
        there = "/flash/node.json" if board.eval("'flash' in __import__('os').listdir('/')") else "node.json"
        board.put(json.dumps(found | changes).encode(), there)
        assert board.eval("packtrust_board.config()") == found | changes


def start_responder(board: Board, records: int, **changes: Any) -> Execution:
    prepare(board)
    configure(board, **changes)
    values = {"secret": SECRET, "node": NODE, "base": TELEMETRY, "records": records, "limit_ms": int(LIMIT_S * 1000)}
    return board.start(RESPONDER_CODE % values, timeout=LIMIT_S + 10)


# A record whose chunks come 50 ms apart is given up, and nobody here says it again.
@pytest.mark.realtime
def test_sealed_records_both_ways_and_a_power_cycle(
    board: Board, power_cycle: Callable[[], Board], can_bus: Any
) -> None:
    rig = Rig(can_bus)
    running = rig.peer = start_responder(board, 3)
    rig.channel.connect()
    rig.until(ESTABLISHED)
    for number in range(3):
        data = bytes(range(number, number + 8))
        assert rig.exchange(data) == data[::-1]
    assert running.finish().endswith("opened 3\n")

    board.put(b"kept", "kept.txt")
    # A virtual board that is killed takes its adapter along: another bus below.
    power_cycle()
    board.fresh()
    assert board.get("kept.txt") == b"kept"
    with board.open_can() as bus:
        rig.bus = bus
        running = rig.peer = start_responder(board, 2)
        # What the old session seals opens nowhere now; a new handshake makes a new one.
        rig.channel.connect()
        rig.until(ESTABLISHED)
        assert rig.channel.stats[ESTABLISHED] == 2
        for number in range(2):
            data = bytes([number]) * 64
            assert rig.exchange(data) == data[::-1]
        assert running.finish().endswith("opened 2\n")


@pytest.mark.only_boards("unix", "cortex-m4")
def test_records_in_can_fd_frames(board: Board, can_bus: Any) -> None:
    """Both ends with CAN FD: each record is one frame, longer ones are ISO-TP over FD."""
    rig = Rig(can_bus, fd=True)
    running = rig.peer = start_responder(board, 3, fd=True)
    rig.channel.connect()
    rig.until(ESTABLISHED)
    for length, frames in ((8, 1), (36, 1)):
        rig.fd_frames = 0
        data = bytes(range(length))
        assert rig.exchange(data) == data[::-1]
        assert rig.fd_frames == frames
    data = bytes(range(200))
    assert rig.exchange(data) == data[::-1]
    assert rig.fd_frames > 3
    assert running.finish().endswith("opened 3\n")
    configure(board, fd=False)


def test_entropy_differs_from_boot_to_boot(board: Board) -> None:
    drawn = set()
    for _ in range(3):
        board.fresh()
        prepare(board)
        drawn.add(board.eval("bytes(__import__('packtrust_board').urandom(16))"))
    assert len(drawn) == 3 and bytes(16) not in drawn


@pytest.mark.only_boards("cortex-m4", "unix")
def test_virtual_boards_start_with_what_they_need(board: Board) -> None:
    """Nothing is copied over their console: it is in their flash."""
    assert prepare(board) != "hil"
