"""Requests and answers of docs/wire.md, section 7, over ISO-TP on the VCU bus; sans-I/O.

`CoreIsoTp` is the core's own ISO-TP and runs on any clock. `CanIsoTp` is the can-isotp library,
whose timers run on real time. Both are links for `Requests`, which numbers, repeats and matches.
"""

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

import isotp

from packtrust import provision
from packtrust.frame import Frame
from packtrust.isotp import IsoTpLink
from packtrust.provision import Message
from packtrust_host.app.errors import DeviceRefused, NoAnswer
from packtrust_host.app.tasks import Step, Until

ANSWER_TIMEOUT_MS = 3000
RETRIES = 2

# The answer to each request. PAIR is answered by PAIRED of both ends, unsolicited.
ANSWER_OF = {
    provision.IDENTIFY: provision.IDENTITY,
    provision.PACKAGE: provision.RECEIPT,
    provision.CLEAR: provision.RECEIPT,
    provision.COMMIT: provision.COMMITTED,
    provision.ABORT: provision.ABORTED,
    provision.PROVE: provision.PROOF,
    provision.LIST: provision.MODULES,
    provision.ATTEST: provision.ATTESTATION,
    provision.PAIR: provision.PAIRED,
    provision.STATUS: provision.REPORT,
    provision.AUDIT: provision.AUDIT_PART,
    provision.CLEAR_SIGNS: provision.SIGNS_CLEARED,
}

# What may be sent again unchanged. A PACKAGE may not: its counter is spent when the device took it.
REPEATABLE = frozenset(
    (
        provision.IDENTIFY,
        provision.COMMIT,
        provision.ABORT,
        provision.PROVE,
        provision.LIST,
        provision.ATTEST,
        provision.STATUS,
        provision.AUDIT,
    )
)

TYPE_NAMES = {
    provision.IDENTIFY: "IDENTIFY",
    provision.PACKAGE: "PACKAGE",
    provision.COMMIT: "COMMIT",
    provision.ABORT: "ABORT",
    provision.PROVE: "PROVE",
    provision.LIST: "LIST",
    provision.ATTEST: "ATTEST",
    provision.CLEAR: "CLEAR",
    provision.PAIR: "PAIR",
    provision.STATUS: "STATUS",
    provision.AUDIT: "AUDIT",
    provision.CLEAR_SIGNS: "CLEAR_SIGNS",
}


class FrameLike(Protocol):
    """What a link takes: a core Frame or a python-can Message."""

    @property
    def arbitration_id(self) -> int:
        """11 or 29 bits."""

    @property
    def data(self) -> bytes | bytearray | memoryview:
        """0..64 bytes."""

    @property
    def is_extended_id(self) -> bool:
        """29-bit ID."""

    @property
    def is_fd(self) -> bool:
        """CAN FD frame."""


class Link(Protocol):
    """One ISO-TP link between two 29-bit IDs."""

    tx_id: int
    rx_id: int

    def send(self, payload: bytes) -> None:
        """Queue a payload of 1..4095 bytes."""

    def feed(self, frame: FrameLike) -> list[bytes]:
        """Take a frame that came with `rx_id`: the payloads it completed."""

    def tick(self) -> list[bytes]:
        """Let time pass: the payloads completed meanwhile."""

    def outgoing(self) -> list[Frame]:
        """Frames to send now, in order; the list is then empty."""

    @property
    def dropped(self) -> dict[str, int]:
        """Transfers given up, by cause."""


class CoreIsoTp:
    """The core's ISO-TP as a Link."""

    def __init__(self, tx_id: int, rx_id: int, clock: Callable[[], int]) -> None:
        self.tx_id = tx_id
        self.rx_id = rx_id
        self._clock = clock
        self._link = IsoTpLink(tx_id, rx_id)

    @property
    def dropped(self) -> dict[str, int]:
        """Transfers given up, by cause."""
        return self._link.dropped

    def send(self, payload: bytes) -> None:
        """Queue a payload."""
        self._link.send(payload, self._clock())

    def feed(self, frame: FrameLike) -> list[bytes]:
        """Take a frame."""
        payload = self._link.feed(frame, self._clock())
        return [] if payload is None else [payload]

    def tick(self) -> list[bytes]:
        """Let time pass."""
        self._link.tick(self._clock())
        return []

    def outgoing(self) -> list[Frame]:
        """Frames to send now."""
        return self._link.outgoing()


class CanIsoTp:
    """can-isotp as a Link (ISO 15765-2 normal addressing, 29-bit IDs). Its timers run on real time."""

    def __init__(self, tx_id: int, rx_id: int) -> None:
        self.tx_id = tx_id
        self.rx_id = rx_id
        self.dropped: dict[str, int] = {}
        self._received: deque[isotp.CanMessage] = deque()
        self._out: list[Frame] = []
        address = isotp.Address(isotp.AddressingMode.Normal_29bits, txid=tx_id, rxid=rx_id)
        self._logic = isotp.TransportLayerLogic(
            rxfn=self._receive,
            txfn=self._transmit,
            address=address,
            error_handler=self._on_error,
            params={"stmin": 0, "blocksize": 0, "max_frame_size": 4095, "tx_padding": None},
        )

    def _receive(self, timeout: float) -> isotp.CanMessage | None:
        return self._received.popleft() if self._received else None

    def _transmit(self, message: isotp.CanMessage) -> None:
        self._out.append(Frame(message.arbitration_id, bytes(message.data)))

    def _on_error(self, error: Exception) -> None:
        cause = type(error).__name__
        self.dropped[cause] = self.dropped.get(cause, 0) + 1

    def _process(self) -> list[bytes]:
        self._logic.process()
        payloads = []
        while self._logic.available():
            payload = self._logic.recv()
            if payload is not None:
                payloads.append(bytes(payload))
        return payloads

    def send(self, payload: bytes) -> None:
        """Queue a payload."""
        self._logic.send(payload)
        self._process()

    def feed(self, frame: FrameLike) -> list[bytes]:
        """Take a frame."""
        self._received.append(isotp.CanMessage(frame.arbitration_id, len(frame.data), bytes(frame.data), True))
        return self._process()

    def tick(self) -> list[bytes]:
        """Let time pass."""
        return self._process()

    def outgoing(self) -> list[Frame]:
        """Frames to send now."""
        frames = self._out
        self._out = []
        return frames


@dataclass
class Posted:
    """A request that was sent; `answer` is None until it is answered."""

    kind: int
    answer: Message | None = None


class Requests:
    """Numbers requests, matches answers, repeats what may be repeated.

    `ask` is a script (see `tasks`): its value is the body of the answer. Answers nobody asked for
    (PAIRED) go to `on_unsolicited`. `counters` counts by name what was dropped.
    """

    def __init__(self, link: Link, on_unsolicited: Callable[[Message], None]) -> None:
        self.link = link
        self.counters: dict[str, int] = {}
        self._on_unsolicited = on_unsolicited
        self._sequence = 0
        self._open: dict[tuple[int, int], Posted] = {}

    def _count(self, what: str) -> None:
        self.counters[what] = self.counters.get(what, 0) + 1

    def on_payload(self, payload: bytes) -> None:
        """Take a complete ISO-TP payload. Never raises on what the wire brings."""
        message = provision.parse(payload)
        if message is None:
            self._count("malformed")
            return
        waiting = self._open.get((message.target, message.sequence))
        if message.sequence == 0:
            self._on_unsolicited(message)
        elif waiting is None:
            self._count("unexpected")
        elif message.kind == provision.REFUSED:
            if len(message.body) == 2 and message.body[0] == waiting.kind:
                waiting.answer = message
            else:
                self._count("malformed")
        elif message.kind == ANSWER_OF[waiting.kind]:
            waiting.answer = message
        else:
            self._count("unexpected")

    def _register(self, kind: int, target: int) -> tuple[int, Posted]:
        self._sequence = self._sequence % 255 + 1
        waiting = Posted(kind)
        self._open[(target, self._sequence)] = waiting
        return self._sequence, waiting

    def post(self, kind: int, target: int, body: bytes = b"") -> Posted:
        """Send a request once and look at its `answer` later, with `settle`."""
        sequence, waiting = self._register(kind, target)
        self.link.send(provision.frame_message(kind, target, sequence, body))
        return waiting

    def settle(self, posted: Posted) -> None:
        """Forget a request that was posted: an answer that comes now is unexpected."""
        for key, waiting in list(self._open.items()):
            if waiting is posted:
                del self._open[key]

    def ask(
        self,
        kind: int,
        target: int,
        body: bytes = b"",
        *,
        who: str = "",
        timeout_ms: int = ANSWER_TIMEOUT_MS,
        retries: int = RETRIES,
    ) -> Generator[Step, object, bytes]:
        """Send a request and wait for its answer's body.

        `timeout_ms` is per try. Raises NoAnswer after the last one and DeviceRefused for a REFUSED.
        """
        name = TYPE_NAMES[kind]
        who = who or "the device with node byte 0x%02x" % target
        tries = 1 + (retries if kind in REPEATABLE else 0)
        sequence, waiting = self._register(kind, target)
        try:
            for _ in range(tries):
                self.link.send(provision.frame_message(kind, target, sequence, body))
                yield Until(lambda: waiting.answer is not None, timeout_ms)
                if waiting.answer is not None:
                    break
                self._count("timeout")
        finally:
            del self._open[(target, sequence)]
        answer = waiting.answer
        if answer is None:
            raise NoAnswer(
                "%s did not answer %s within %d ms, %d time%s"
                % (who, name, timeout_ms, tries, "" if tries == 1 else "s"),
                "check that it is powered and on the bus, then try again",
            )
        if answer.kind == provision.REFUSED:
            raise refused(who, name, answer.body[1])
        return answer.body


_NEXT_OF_REASON = {
    provision.REFUSED_NOT_OWNER: "check the claim code on the device's console; if another app "
    "owns it, let that app release it or reset it at its console",
    provision.REFUSED_ROLLBACK: "identify the device again and use a higher counter and epoch",
    provision.REFUSED_KEYS: "create the relationship's LCT anew and check the bridge's key halves",
    provision.REFUSED_STATE: "start this relationship's provisioning again",
    provision.REFUSED_NO_ROUTE: "wait until the pack has seen the module's announcement",
    provision.REFUSED_FULL: "release a relationship the device no longer needs",
    provision.REFUSED_ENTROPY: "use firmware with an entropy source on this board",
    provision.REFUSED_KEYED: "reset the node at its console before using this service",
    provision.REFUSED_STORAGE: "its console's log says what is wrong: install the firmware that wrote its store, "
    "or reset it at its console and claim it again",
}


def refused(who: str, name: str, reason: int) -> DeviceRefused:
    """The error for a REFUSED."""
    text = provision.REASONS.get(reason, "reason %d" % reason)
    return DeviceRefused(
        "%s refused %s: %s" % (who, name, text),
        _NEXT_OF_REASON.get(reason, "check that app and device speak the same version"),
        reason,
    )
