"""Channel: an encrypted, authenticated, replay-proof CAN link between two nodes.

    channel = Channel(secret, role=INITIATOR, node=5, local="pack", peer="module 5", urandom=os.urandom, clock=ticks_ms)
    channel.connect()
    for frame in channel.outgoing(): send(frame)          # after connect(), feed(), tick() and seal_long()
    for frame in channel.seal(arbitration_id, data): send(frame)
    event = channel.feed(received_frame)                  # None: nothing yet, or not ours

Sans-I/O: time (`clock`, monotonic milliseconds) and entropy (`urandom`) are handed in. Nothing the wire brings raises.
"""

from struct import pack

from packtrust._compat import const
from packtrust.arbitration import ENCRYPTED, base_of, canonical, clear_of, compose
from packtrust.crypto import sha256, wipe
from packtrust.errors import ChannelError
from packtrust.handshake import HELLO, INITIATOR, RESPONDER, Handshake, SessionKeys, epoch_of
from packtrust.isotp import IsoTpLink
from packtrust.keys import SIDE_A, SIDE_B, Relationship
from packtrust.pairing import is_pairing
from packtrust.policy import DEFAULT_POLICY
from packtrust.record import OVERHEAD, counter_of, iv_base_of
from packtrust.replay import SentTimes, Strict, Window
from packtrust.segmentation import FD_PAYLOAD_MAX, PAYLOAD_MAX, Reassembler, Segmenter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from packtrust._typing import Buffer, FrameLike
    from packtrust.frame import Frame
    from packtrust.handshake import KeyLog
    from packtrust.policy import Policy

OPENED = "opened"
REFUSED = "refused"
ESTABLISHED = "established"

CITATION_LENGTH = const(4)
HANDSHAKE_RETRY_MS = const(1100)
HELLO_INTERVAL_MS = const(1000)
MAX_RECORDS = const(0x3FFFFFFF)


class Link:
    """The arbitration ID bases of a link's own rows, seen from the initiator."""

    def __init__(self, handshake: "tuple[int, int]", isotp: "tuple[int, int]") -> None:
        self.handshake = handshake  # (initiator to responder, responder to initiator)
        self.isotp = isotp


MODULE_LINK = Link((0x539, 0x531), (0x538, 0x530))
VCU_LINK = Link((0x433, 0x434), (0x431, 0x432))


class Event:
    """What `Channel.feed` found out.

    kind            OPENED, REFUSED or ESTABLISHED
    arbitration_id  the clear ID of the message (OPENED, REFUSED)
    data            plaintext (OPENED)
    counter, epoch  of the record (OPENED)
    reason          why (REFUSED): "clear", "unknown-session", "tag", "replay", "old", "stale", "short",
                    "handshake-mac", "handshake-role", "handshake-version", "handshake-epoch", ...
    """

    __slots__ = ("arbitration_id", "counter", "data", "epoch", "kind", "reason")

    def __init__(
        self,
        kind: str,
        arbitration_id: int = 0,
        data: bytes = b"",
        counter: int = 0,
        epoch: int = 0,
        reason: str = "",
    ) -> None:
        self.kind = kind
        self.arbitration_id = arbitration_id
        self.data = data
        self.counter = counter
        self.epoch = epoch
        self.reason = reason

    def __repr__(self) -> str:
        what = self.reason if self.kind == REFUSED else "%d bytes" % len(self.data)
        return "<Event %s 0x%08x %s>" % (self.kind, self.arbitration_id, what)


class _Session:
    """A live session: its keys, the windows of what we receive and the times of what we sent."""

    def __init__(self, keys: SessionKeys, now_ms: int) -> None:
        self.keys = keys
        self.epoch = keys.epoch
        self.window = Window()
        self.strict = Strict()
        self.sent = SentTimes(now_ms)
        self.tx_counter = 0
        self.rx_latest = 0
        self.opened = 0


def _name(component: "str | bytes") -> str:
    return component if isinstance(component, str) else component.decode()


class Channel:
    """One end of an encrypted link. See the module's docstring for the use.

    secret        PRK of the epoch, at least 16 bytes: `keys.pair_secret(...)`, an epoch root, or 32 random bytes both
                  nodes hold
    role          INITIATOR (starts the handshake: the gateway side) or RESPONDER
    node          node byte of the link (the module's number, 0x40 + pack number)
    local, peer   names of the two ends, any text, the same on both sides (swapped); unless `relationship` is given
    relationship  keys.Relationship with component ids, LCT and fingerprints; `side` is then ours, SIDE_A or SIDE_B
    epoch         of `secret`
    policy        message classes; both ends must use the same one (its digest is in the handshake)
    link          bases of the link's handshake and ISO-TP rows
    boot_counter  counts the node's boots (u32); 0 where there is no storage
    fd            use CAN FD frames for what fits one
    max_records   stop sealing after this many records of a session
    receive_max   longest record taken by ISO-TP, in bytes: the memory a peer can make us allocate
    key_log       called with (direction, key, iv_base, sender) of each session: for an owner who wants to read along
    """

    def __init__(
        self,
        secret: "Buffer",
        role: int,
        node: int,
        clock: "Callable[[], int]",
        urandom: "Callable[[int], Buffer]",
        local: "str | bytes" = "",
        peer: "str | bytes" = "",
        relationship: "Relationship | None" = None,
        side: int = SIDE_A,
        epoch: int = 0,
        policy: "Policy" = DEFAULT_POLICY,
        link: Link = MODULE_LINK,
        boot_counter: int = 0,
        fd: bool = False,
        max_records: int = MAX_RECORDS,
        receive_max: int = 1024,
        key_log: "KeyLog | None" = None,
    ) -> None:
        if role not in (INITIATOR, RESPONDER):
            raise ChannelError("role is INITIATOR or RESPONDER, not %r" % (role,))
        if len(secret) < 16:
            raise ChannelError("the channel's secret has %d bytes: give at least 16, best 32" % len(secret))
        if relationship is None:
            first, second = (local, peer) if role == INITIATOR else (peer, local)
            if not first or not second or first == second:
                raise ChannelError("name both ends with local= and peer=, two different texts")
            side = SIDE_A if role == INITIATOR else SIDE_B
            first, second = _name(first), _name(second)
            relationship = Relationship(first, second, "", sha256(first.encode()), sha256(second.encode()))
        self.role = role
        self.node = node
        self.policy = policy
        self.relationship = relationship
        self.stats = {OPENED: 0, "sealed": 0}  # type: dict[str, int]
        self._side = side
        self._clock = clock
        self._urandom = urandom
        self._boot_counter = boot_counter
        self._fd = fd
        self._max_records = max_records
        self._key_log = key_log
        self._roots = {epoch: bytearray(secret)}  # type: dict[int, bytearray]
        self.epoch = epoch
        ours, theirs = (0, 1) if role == INITIATOR else (1, 0)
        self._tx_handshake = compose(link.handshake[ours], node)
        self._rx_handshake = compose(link.handshake[theirs], node)
        self._rx_isotp = compose(link.isotp[theirs], node, True)
        self._segmenter = Segmenter()
        self._reassembler = Reassembler()
        self._isotp = IsoTpLink(compose(link.isotp[ours], node, True), self._rx_isotp, receive_max, fd)
        self._out = []  # type: list[Frame]
        self._handshake = None  # type: Handshake | None
        self._handshake_ms = 0
        self._hello_answered_ms = None  # type: int | None
        self._connecting = False
        self._session = None  # type: _Session | None
        self._pending = None  # type: _Session | None  # a responder's, until the initiator has proved itself
        self._previous = None  # type: _Session | None
        self.last_opened_ms = None  # type: int | None

    # -- state ---------------------------------------------------------------------------------------------------------

    @property
    def established(self) -> bool:
        """Whether `seal` works: there is a session whose peer has proved itself."""
        return self._session is not None

    @property
    def session_epoch(self) -> int:
        """Epoch of the session that seals, -1 without one."""
        return -1 if self._session is None else self._session.epoch

    @property
    def dropped(self) -> "dict[str, int]":
        """Segmented payloads dropped, by cause."""
        return self._reassembler.dropped

    def __repr__(self) -> str:
        return "<Channel node 0x%02x epoch %d %s>" % (
            self.node,
            self.epoch,
            "established" if self.established else "not connected",
        )

    def _count(self, what: str) -> None:
        self.stats[what] = self.stats.get(what, 0) + 1

    def _refuse(self, arbitration_id: int, reason: str) -> Event:
        self._count(reason)
        return Event(REFUSED, clear_of(arbitration_id), reason=reason)

    # -- keys and handshake --------------------------------------------------------------------------------------------

    def install(self, secret: "Buffer", epoch: int) -> None:
        """Give the root of a new epoch (higher than the present one). The running session lives on until the first
        record under the new epoch; the initiator starts it with `connect()`."""
        if epoch <= self.epoch:
            raise ChannelError("epoch %d is not above the present epoch %d" % (epoch, self.epoch))
        # Of two epochs the one in use stays: the newer one may never have been taken up by the peer.
        kept = min(self._roots) if self._session is None else self._session.epoch
        if kept not in self._roots:
            kept = self.epoch
        for old in list(self._roots):
            if old != kept:
                wipe(self._roots.pop(old))
        self._roots[epoch] = bytearray(secret)
        self.epoch = epoch

    def connect(self) -> None:
        """Start a handshake under the newest epoch (initiator only); `outgoing()` then has its first frames."""
        if self.role != INITIATOR:
            raise ChannelError("only the initiator connects: a responder waits for the HELLO")
        self._connecting = True
        self._hello()

    def _new_handshake(self, epoch: int) -> Handshake:
        if self._handshake is not None:
            self._handshake.wipe(False)
        self._handshake = Handshake(
            self.role,
            self._roots[epoch],
            self.relationship,
            epoch,
            self._side,
            self.policy.digest,
            self._boot_counter,
            self._urandom(16),
            self._key_log,
        )
        return self._handshake

    def _hello(self) -> None:
        self._handshake_ms = self._clock()
        self._send_handshake(self._new_handshake(self.epoch).hello())

    def _send_handshake(self, payload: bytes) -> None:
        self._out.extend(self._segmenter.split(self._tx_handshake, payload))

    def send_pairing(self, payload: bytes) -> None:
        """Send a message of a pair exchange on this link's handshake row, in order with the handshake's own."""
        self._send_handshake(payload)

    def _on_handshake(self, payload: "Buffer") -> "Event | None":
        if is_pairing(payload):
            return None  # the pair exchange is its owner's business
        epoch = epoch_of(payload)
        if epoch < 0:
            return self._refuse(self._rx_handshake, "handshake-malformed")
        if epoch not in self._roots:
            return self._refuse(self._rx_handshake, "handshake-epoch")
        if self.role == RESPONDER and payload[0] == HELLO:
            now_ms = self._clock()
            if self._hello_answered_ms is not None and now_ms - self._hello_answered_ms < HELLO_INTERVAL_MS:
                return self._refuse(self._rx_handshake, "handshake-rate")
            handshake = self._new_handshake(epoch)
            answer = handshake.feed(payload)
            if answer is None:
                return self._refuse(self._rx_handshake, handshake.reason)
            self._hello_answered_ms = now_ms
            self._drop_pending()
            if handshake.keys is not None:
                self._pending = _Session(handshake.keys, now_ms)
            self._send_handshake(answer)
            return None
        handshake_or_none = self._handshake
        if handshake_or_none is None:
            return self._refuse(self._rx_handshake, "handshake-unexpected")
        handshake = handshake_or_none
        answer = handshake.feed(payload)
        if handshake.reason:
            return self._refuse(self._rx_handshake, handshake.reason)
        if answer is not None:
            self._send_handshake(answer)
        if not handshake.proved or handshake.keys is None:
            return None
        if self.role == INITIATOR:
            if not self._connecting:
                return None  # a repeated REPLY: FINISH is sent again, the session is live already
            self._connecting = False
            return self._establish(_Session(handshake.keys, self._clock()))
        if self._pending is None:
            return None
        session = self._pending
        self._pending = None
        return self._establish(session)

    def _establish(self, session: _Session) -> Event:
        if self._previous is not None:
            self._previous.keys.wipe()
        self._previous = self._session
        self._session = session
        self._count(ESTABLISHED)
        return Event(ESTABLISHED, epoch=session.epoch)

    def _drop_pending(self) -> None:
        if self._pending is not None:
            self._pending.keys.wipe()
            self._pending = None

    def _first_record(self, session: _Session) -> None:
        """The peer uses the new session: the one before it, and the epochs before its epoch, are over."""
        if self._previous is not None and session is self._session:
            self._previous.keys.wipe()
            self._previous = None
        for old in list(self._roots):
            if old < session.epoch:
                wipe(self._roots.pop(old))

    # -- sending -------------------------------------------------------------------------------------------------------

    def seal(self, arbitration_id: int, data: "Buffer") -> "list[Frame]":
        """The frames of `data` sealed as the message `arbitration_id` (its clear ID, bits 17..8 zero).

        Up to 100 bytes (96 for classes that cite; 36 and 32 in a CAN FD frame) give all frames at once. Longer data
        goes by ISO-TP: the frame returned is the first one, the rest appear in `outgoing()` as the peer asks for them.
        Raises ChannelError (not connected, too many records) and PolicyError (this ID cannot be sealed).
        """
        session = self._session
        if session is None:
            raise ChannelError("no session: connect() and feed() frames until `established`")
        self.policy.check_sealable(base_of(arbitration_id))
        if session.tx_counter >= self._max_records:
            raise ChannelError("this session has sealed its %d records: rotate to a new epoch" % self._max_records)
        if self.policy.needs_citation(base_of(arbitration_id)):
            data = pack(">I", session.rx_latest & 0xFFFFFFFF) + bytes(data)
        full_id = canonical(arbitration_id)
        session.tx_counter += 1
        counter = session.tx_counter
        record = session.keys.tx.seal(full_id, counter, data)
        now_ms = self._clock()
        session.sent.sent(counter, now_ms)
        self.stats["sealed"] += 1
        if self._fd and len(record) <= FD_PAYLOAD_MAX:
            return [self._segmenter.single_fd(full_id, record)]
        if not self._fd and len(record) <= PAYLOAD_MAX:
            return self._segmenter.split(full_id, record)
        self._isotp.send(pack(">I", full_id) + record, now_ms)
        return self._isotp.outgoing()

    def outgoing(self) -> "list[Frame]":
        """Frames to send now, in order (handshake, flow control, rest of a long record); the list is then empty."""
        frames = self._out
        self._out = []
        frames.extend(self._isotp.outgoing())
        return frames

    # -- receiving -----------------------------------------------------------------------------------------------------

    def feed(self, frame: "FrameLike") -> "Event | None":
        """Take any frame of the bus. An Event, or None: not ours, or nothing complete yet. Never raises on bytes."""
        arbitration_id = frame.arbitration_id
        if not frame.is_extended_id or arbitration_id & 0xFF != self.node:
            return None
        if clear_of(arbitration_id) == self._rx_handshake:
            payload = self._reassembler.feed(frame, self._clock())
            return None if payload is None else self._on_handshake(payload)
        if arbitration_id & ENCRYPTED:
            if arbitration_id == self._rx_isotp:
                return self._on_isotp(frame)
            if self.policy.is_sealable(base_of(arbitration_id)):
                payload = self._reassembler.feed(frame, self._clock())
                return None if payload is None else self._open(canonical(arbitration_id), payload)
            return None
        if self._session is not None and not self.policy.clear_allowed(base_of(arbitration_id), True):
            return self._refuse(arbitration_id, "clear")
        return None

    def _on_isotp(self, frame: "FrameLike") -> "Event | None":
        payload = self._isotp.feed(frame, self._clock())
        if payload is None:
            return None
        if len(payload) < 4 + OVERHEAD:
            return self._refuse(self._rx_isotp, "short")
        full_id = int.from_bytes(payload[:4], "big")
        if full_id != canonical(full_id) or not self.policy.is_sealable(base_of(full_id)):
            return self._refuse(self._rx_isotp, "unsealable")
        return self._open(full_id, payload[4:])

    def _open(self, full_id: int, record: "Buffer") -> Event:
        if len(record) < OVERHEAD:
            return self._refuse(full_id, "short")
        iv_base = iv_base_of(record)
        session = None
        for candidate in (self._session, self._pending, self._previous):
            if candidate is not None and candidate.keys.rx.iv_base == iv_base:
                session = candidate
                break
        if session is None:
            return self._refuse(full_id, "unknown-session")
        counter = counter_of(record)
        cited_class = self.policy.needs_citation(base_of(full_id))
        reason = session.window.refusal(counter)
        if not reason and cited_class:
            reason = session.strict.refusal(counter)
        if reason:
            return self._refuse(full_id, reason)
        plaintext = session.keys.rx.open(full_id, record)
        if plaintext is None:
            return self._refuse(full_id, "tag")
        session.window.accept(counter)
        if counter > session.rx_latest:
            session.rx_latest = counter
        if session is self._pending:
            # FINISH was lost, but this record proves the same.
            self._pending = None
            self._establish(session)
        if session.opened == 0:
            self._first_record(session)
        session.opened += 1
        now_ms = self._clock()
        self.last_opened_ms = now_ms
        if cited_class:
            session.strict.accept(counter)
            if len(plaintext) < CITATION_LENGTH:
                return self._refuse(full_id, "short")
            if not session.sent.is_fresh(int.from_bytes(plaintext[:CITATION_LENGTH], "big"), now_ms):
                return self._refuse(full_id, "stale")
            plaintext = plaintext[CITATION_LENGTH:]
        self.stats[OPENED] += 1
        return Event(OPENED, clear_of(full_id), plaintext, counter, session.epoch)

    # -- time ----------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Call every 10..100 ms: repeats an unanswered HELLO, ends what timed out."""
        now_ms = self._clock()
        self._reassembler.expire(now_ms)
        self._isotp.tick(now_ms)
        if self._connecting and now_ms - self._handshake_ms >= HANDSHAKE_RETRY_MS:
            self._hello()

    def close(self) -> None:
        """Destroy every key; the channel is then of no use."""
        for session in (self._session, self._pending, self._previous):
            if session is not None:
                session.keys.wipe()
        self._session = self._pending = self._previous = None
        for root in self._roots.values():
            wipe(root)
        self._roots = {}
        self._connecting = False
