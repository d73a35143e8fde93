"""The way to the test services of nodes on a python-can bus: who is there, and requests to one or to several at once.

    with bus_at("slcan:/dev/ttyACM0?bitrate=500000") as bus:
        nodes = [item.node for item in discover(bus)]
        reply = BusAsk(bus, nodes[0])(wire.encode_request(wire.INFO, 1), 3.0)

The service is that of docs/wire.md, section 8; what is asked and what must come, `verify` knows.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import can

from packtrust import testwire as wire
from packtrust.arbitration import NODE_MODULE_MAX, NODE_PACK, NODE_UNREGISTERED, compose
from packtrust_host.app.errors import AppError, BusLost, NoAnswer
from packtrust_host.app.runner import to_message
from packtrust_host.app.transport import CoreIsoTp, Link
from packtrust_host.urls import open_bus

_log = logging.getLogger(__name__)

DISCOVER_S = 1.0

_RECEIVE_S = 0.05
_PROBE = 0xEF  # no operation: any node answers it in a single frame
_PACKS = 16

MakeLink = Callable[[int, int], Link]

# What a lost adapter raises. TypeError: pyserial on a port that was closed under it.
_LOST = (can.CanError, OSError, TypeError)


class FrameBus(Protocol):
    """What carries frames: a python-can bus, or a share of one (`SharedBus`)."""

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        """Send a frame."""

    def recv(self, timeout: float | None = None) -> can.Message | None:
        """The next frame, or None after `timeout` seconds."""


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def node_name(node: int) -> str:
    """A node byte in words."""
    if node == NODE_UNREGISTERED:
        return "unregistered module"
    return "pack %d" % (node - NODE_PACK) if node >= NODE_PACK else "module %d" % node


def parse_node(text: str) -> int:
    """The node byte of `pack`, `pack3`, `module2`, `2`, `0x41`, `unregistered`. Raises AppError."""
    word = text.strip().lower().replace(" ", "")
    if word == "unregistered":
        return int(NODE_UNREGISTERED)
    base, digits, limit = 0, word, 0xFF
    if word.startswith("pack"):
        base, digits, limit = int(NODE_PACK), word[4:] or "0", _PACKS - 1
    elif word.startswith("module"):
        digits, limit = word[6:], int(NODE_MODULE_MAX)
    try:
        number = int(digits, 0)
    except ValueError:
        number = -1
    node = base + number
    known = 1 <= node <= NODE_MODULE_MAX or NODE_PACK <= node < NODE_PACK + _PACKS or node == NODE_UNREGISTERED
    if not 0 <= number <= limit or not known:
        raise AppError(
            "%r names no node" % text, "write pack, pack3, module2, unregistered, or a node byte such as 2 or 0x41"
        )
    return node


def rows_of(node: int) -> tuple[int, int]:
    """Bases of request and reply for this node byte."""
    if NODE_PACK <= node < NODE_PACK + _PACKS:
        return int(wire.TO_PACK), int(wire.FROM_PACK)
    return int(wire.TO_MODULE), int(wire.FROM_MODULE)


@contextlib.contextmanager
def bus_at(url: str) -> Iterator[can.BusABC]:
    """The python-can bus of a URL, closed at the end, also when its adapter is gone. Raises BusUrlError."""
    bus = open_bus(url)
    try:
        yield bus
    finally:
        try:
            bus.shutdown()
        except (can.CanError, OSError) as error:
            # python-can tells the adapter good-bye; why it is gone, whoever used it has been told.
            _log.info("closing the lost adapter: %s", error)


def _gone(error: BaseException) -> BusLost:
    return BusLost("the CAN adapter is gone: %s" % error, "plug it in again and run it again")


def core_link(tx_id: int, rx_id: int) -> Link:
    """The core's ISO-TP on real time."""
    return CoreIsoTp(tx_id, rx_id, _monotonic_ms)


class BusAsk:
    """Carries requests to one node's test service over a python-can bus, by ISO-TP.

    make_link  (tx_id, rx_id) -> Link; the core's ISO-TP by default, `transport.CanIsoTp` for the can-isotp library.
    """

    def __init__(self, bus: FrameBus, node: int, make_link: MakeLink = core_link) -> None:
        self._bus = bus
        self._node = node
        self._make_link = make_link

    def __call__(self, request: bytes, timeout_s: float) -> bytes:
        """The reply to a request. Raises NoAnswer, or BusLost if the adapter went away."""
        to_node, from_node = rows_of(self._node)
        link = self._make_link(compose(to_node, self._node), compose(from_node, self._node))
        end = time.monotonic() + timeout_s
        try:
            link.send(request)
            while time.monotonic() < end:
                for frame in link.outgoing():
                    self._bus.send(to_message(frame), timeout=1.0)
                payloads = link.tick()
                message = self._bus.recv(_RECEIVE_S)
                if message is not None and message.is_extended_id and message.arbitration_id == link.rx_id:
                    payloads += link.feed(message)
                for payload in payloads:
                    # An answer to a request given up earlier is not ours.
                    if payload[:2] == request[:2]:
                        return payload
                if link.dropped:
                    break
        except _LOST as error:
            raise _gone(error) from error
        broken = ", ".join("%s %d" % item for item in link.dropped.items())
        raise NoAnswer(
            "%s did not answer a test request%s"
            % (node_name(self._node), ": transfer broken (%s)" % broken if broken else " within %d s" % timeout_s),
            "check that it is powered, on this bus, and runs firmware with the test service",
        )


@dataclass(frozen=True)
class Found:
    """A node that answers on this bus; `keyed`: its test service is closed."""

    node: int
    keyed: bool


def discover(bus: can.BusABC, wait_s: float = DISCOVER_S, enough: int | None = None) -> list[Found]:
    """The nodes with a test service on this bus: all packs and modules are asked at once.

    Ends after `wait_s`, or as soon as `enough` answered.
    """
    nodes = [NODE_PACK + number for number in range(_PACKS)] + list(range(1, NODE_MODULE_MAX + 1)) + [NODE_UNREGISTERED]
    request = wire.encode_request(_PROBE, 0)
    waiting = {}
    try:
        for node in nodes:
            to_node, from_node = rows_of(node)
            link = core_link(compose(to_node, node), compose(from_node, node))
            link.send(request)
            waiting[link.rx_id] = (node, link)
            for frame in link.outgoing():
                bus.send(to_message(frame), timeout=1.0)
        found: list[Found] = []
        end = time.monotonic() + wait_s
        while time.monotonic() < end and (enough is None or len(found) < enough):
            message = bus.recv(max(0.0, end - time.monotonic()))
            if message is None or not message.is_extended_id or message.arbitration_id not in waiting:
                continue
            node, link = waiting[message.arbitration_id]
            for payload in link.feed(message):
                if payload[:2] == request[:2] and len(payload) >= 3:
                    found.append(Found(int(node), payload[2] == wire.REFUSED_KEYED))
    except _LOST as error:
        raise _gone(error) from error
    return sorted(found, key=lambda item: item.node)


class SharedBus:
    """A bus for several askers at once: one thread receives, and each share gets the frames of one ID.

        with SharedBus(bus) as shared:
            reply = BusAsk(shared.share(0x40), 0x40)(request, 3.0)

    Nobody else may receive from the bus meanwhile. When it is closed, or the adapter is lost, who still waits is told.
    """

    def __init__(self, bus: FrameBus) -> None:
        self._bus = bus
        self._shares: dict[int, queue.SimpleQueue[can.Message | BaseException]] = {}
        self._sending = threading.Lock()
        self._closing = threading.Event()
        self._lost: BaseException | None = None
        self._receiver = threading.Thread(target=self._receive, name="packtrust-shared-bus", daemon=True)

    def __enter__(self) -> "SharedBus":
        self._receiver.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        self._receiver.join()

    def share(self, node: int) -> FrameBus:
        """The bus as this node's asker needs it: of what comes, the answers of the node's test service."""
        _, from_node = rows_of(node)
        frames: queue.SimpleQueue[can.Message | BaseException] = queue.SimpleQueue()
        self._shares[compose(from_node, node)] = frames
        if self._lost is not None:
            frames.put(self._lost)
        return _Share(self.send, frames)

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        """Send a frame; one asker at a time."""
        with self._sending:
            self._bus.send(msg, timeout)

    def _receive(self) -> None:
        try:
            while not self._closing.is_set():
                message = self._bus.recv(_RECEIVE_S)
                if message is not None and message.is_extended_id and message.arbitration_id in self._shares:
                    self._shares[message.arbitration_id].put(message)
            self._lost = can.CanOperationError("it is used no more")
        except _LOST as error:
            self._lost = error
        for frames in tuple(self._shares.values()):
            frames.put(self._lost)


class _Share:
    def __init__(
        self,
        send: Callable[[can.Message, float | None], None],
        frames: "queue.SimpleQueue[can.Message | BaseException]",
    ) -> None:
        self._send = send
        self._frames = frames

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        self._send(msg, timeout)

    def recv(self, timeout: float | None = None) -> can.Message | None:
        try:
            item = self._frames.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(item, BaseException):
            self._frames.put(item)  # for whoever asks again
            raise item
        return item
