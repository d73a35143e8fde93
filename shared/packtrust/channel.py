"""Channel: an encrypted, authenticated, replay-proof CAN link between two nodes.

    channel = Channel(secret, role=INITIATOR, node=5, local="pack", peer="module 5", urandom=os.urandom, clock=ticks_ms)
    channel.connect()
    for frame in channel.outgoing(): send(frame)          # after connect(), feed(), tick() and seal_long()
    for frame in channel.seal(arbitration_id, data): send(frame)
    event = channel.feed(received_frame)                  # None: nothing yet, or not ours

Sans-I/O: time (`clock`, monotonic milliseconds) and entropy (`urandom`) are handed in. Nothing the wire brings raises.

A channel in use allocates nothing, so what it hands out is used again: the frames of `seal` are valid until the next
`seal`, the event of `feed` (and the data in it) until the next `feed`, of this channel and of all that share its
`Workspace`. Send frames or queue copies; what is kept for longer is a `frame.copy()`, an `event.copy()`. A node's first
record under an ID, and the first of a length above 8 bytes, makes its entry in a table.
"""

import sys
from array import array
from struct import pack, pack_into, unpack_from

from packtrust._compat import const, lay_into
from packtrust.arbitration import ENCRYPTED, TOGGLE, base_of, canonical, clear_of, compose
from packtrust.crypto import sha256, wipe
from packtrust.errors import ChannelError
from packtrust.handshake import FINISH, HELLO, INITIATOR, RESPONDER, Handshake, epoch_of, hello_refusal, is_pairing
from packtrust.keys import SIDE_A, SIDE_B, Relationship
from packtrust.policy import CITED, DEFAULT_POLICY, SEALABLE
from packtrust.record import AAD_LENGTH, AAD_ROOM, IV_BASE_LENGTH, OVERHEAD, VERSION
from packtrust.segmentation import (
    AWAITED,
    CHUNK,
    FD_PAYLOAD_MAX,
    NEWEST,
    NEXT_CHUNK,
    PAYLOAD_MAX,
    SILENCE_MS,
    TAKEN_MS,
    TIME_MASK,
    cut,
)
from packtrust.session import SMALL, Opener, Sender, Session, begin
from packtrust.workspace import (
    CITATION_LENGTH,
    DATA_AT,
    ESTABLISHED,
    OPENED,
    REFUSED,
    Event,
    Terms,
    Workspace,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from packtrust._typing import Buffer, FrameLike
    from packtrust.frame import Frame
    from packtrust.handshake import KeyLog
    from packtrust.isotp import IsoTpLink
    from packtrust.policy import Policy
    from packtrust.segmentation import Partial

    Keys = Callable[[int], "tuple[bytearray, Relationship] | None"]

__all__ = ["CITATION_LENGTH", "ESTABLISHED", "OPENED", "REFUSED", "Channel", "Event", "Link", "Workspace"]

# A HELLO without a REPLY is repeated this long after it; the pause then doubles, and the round ends with the pause
# behind its last HELLO (docs/wire.md, section 6).
HANDSHAKE_RETRY_MS = const(1100)
HANDSHAKE_TRIES = const(6)
HELLO_INTERVAL_MS = const(1000)
MAX_RECORDS = const(0x3FFFFFFF)
_COUNTERS = const(0xFFFFFFFF)
# Statistics start again at zero here, for they must neither need heap nor end anything.
_STATISTICS = const(0x3FFFFFFF)
# Half of what fits under TIME_MASK, some six days: a record opened earlier than that counts as opened then.
_LONG_AGO_MS = const(0x1FFFFFFF)

# The stream of an ID, as small as an integer has to be to need no heap.
_STREAM = const(0x1FFE00FF)
# And its clear ID.
_CLEAR = const(0x1FFC00FF)
# The fields of segmentation, which the frames of ISO-TP have not.
_FIELDS = const(0x1FF00)
# In the heads of `Channel._heads`: bit 8, of the segmentation fields, says that records of this ID cite.
_CITES = const(0x100)

# A work buffer up to its data (see packtrust.crypto.AESGCM.seal_in_place): AAD, padded, and IV. Then the citation, and
# the data, up to what fits into 16 chunks.
_WORK = ">BI5sHI8sI100s"
_WORK_CITING = ">BI5sHI8sII96s"
# AAD, and then a record as it came.
_RECEIVED = ">BI5sHI128s"
# What of a record's data fits into 128 bytes with the rest.
_SHORT = const(100)

_number = int.from_bytes


# In `Channel._counts`: of records, when one was opened last (& TIME_MASK, -1: never), of sessions; and how many bytes
# of data need no ISO-TP. Then what channel_viper takes by itself: counters, and bytes of data, in classic frames.
_OPENED = const(0)
_SEALED = const(1)
_OPENED_MS = const(2)
_SESSIONS = const(3)
_SHORT_DATA = const(4)
_TOGGLE = const(7)  # of the next handshake message
_TRIES = const(8)  # HELLOs said in this round, then FINISHs; 0: nothing is to be repeated
# IDs of what comes to us: of handshakes, and of long records.
_RX_HANDSHAKE = const(11)
_RX_ISOTP = const(12)
# Behind these, as bytes: what the AAD says of who sends in direction 0 and 1, 4 bytes each.
_SENDERS = const(36)


class Link:
    """The arbitration ID bases of a link's own rows, seen from the initiator; and for who makes channels of it the
    policy that holds there, and by how much its sealed bases are above the message table's (see profiles)."""

    def __init__(
        self,
        handshake: "tuple[int, int]",
        isotp: "tuple[int, int]",
        shift: int = 0,
        policy: "Policy" = DEFAULT_POLICY,
    ) -> None:
        self.handshake = handshake  # (initiator to responder, responder to initiator)
        self.isotp = isotp
        self.shift = shift
        self.policy = policy


MODULE_LINK = Link((0x539, 0x531), (0x538, 0x530))
VCU_LINK = Link((0x433, 0x434), (0x431, 0x432))


def _root(secret: "Buffer | Keys") -> "bytearray | None":
    return None if callable(secret) else bytearray(secret)


def _name(component: "str | bytes") -> str:
    return component if isinstance(component, str) else component.decode()


class Channel:
    """One end of an encrypted link. See the module's docstring for the use.

    secret        PRK of the epoch, at least 16 bytes: `keys.pair_secret(...)`, an epoch root, or 32 random bytes both
                  nodes hold. Or a function of an epoch that gives its root and `keys.Relationship`, None if it cannot:
                  it is asked for each handshake, and the root it gave is wiped after that, so that a node with many
                  channels keeps roots in its storage alone
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
    workspace     what the channels of one node share; one of its own if not given
    """

    def __init__(
        self,
        secret: "Buffer | Keys",
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
        workspace: "Workspace | None" = None,
    ) -> None:
        if role not in (INITIATOR, RESPONDER):
            raise ChannelError("role is INITIATOR or RESPONDER, not %r" % (role,))
        if not 0 <= epoch <= _COUNTERS:
            raise ChannelError("an epoch is a number of 32 bits, not %d" % epoch)
        keys = None  # type: Keys | None
        if callable(secret):
            keys = secret
        elif len(secret) < 16:
            raise ChannelError("the channel's secret has %d bytes: give at least 16, best 32" % len(secret))
        if relationship is None and keys is None:
            first, second = (local, peer) if role == INITIATOR else (peer, local)
            if not first or not second or first == second:
                raise ChannelError("name both ends with local= and peer=, two different texts")
            side = SIDE_A if role == INITIATOR else SIDE_B
            first, second = _name(first), _name(second)
            relationship = Relationship(first, second, "", sha256(first.encode()), sha256(second.encode()))
        self.role = role
        self.node = node
        self.epoch = epoch
        self._shared = Workspace() if workspace is None else workspace
        self._partial_of = self._shared.partial_of
        self._side = side
        self._clock = clock
        max_records = min(max_records, _COUNTERS)
        self._terms = self._shared.terms(
            Terms(policy, urandom, link, boot_counter, fd, max_records, receive_max, key_log)
        )
        self._relationship = relationship or keys
        self._roots = {epoch: _root(secret)}  # type: dict[int, bytearray | None]  # None: asked for
        short = (FD_PAYLOAD_MAX if fd else PAYLOAD_MAX) - OVERHEAD
        usual = 0 if fd else short + 1
        from_peer = 1 if role == INITIATOR else 0
        handshake = compose(link.handshake[from_peer], node)
        isotp = compose(link.isotp[from_peer], node, True)
        self._counts = array("i", (0, 0, -1, 0, short, min(max_records, SMALL), usual, 0, 0, 0, 0, handshake, isotp))
        self.refused = None  # type: dict[str, int] | None  # by reason
        self._heads = {}  # type: dict[int, int]  # by clear ID, of its next record: canonical ID, toggle and _CITES
        self._out = None  # type: list[Frame] | None
        self._isotp = None  # type: IsoTpLink | None
        self._handshake = None  # type: Handshake | None
        self._handshake_ms = 0
        self._hello_answered_ms = None  # type: int | None
        self._connecting = False
        self._session = None  # type: Session | None
        self._pending = None  # type: Session | None  # a responder's, until the initiator has proved itself
        self._previous = None  # type: Session | None

    # -- state ---------------------------------------------------------------------------------------------------------

    @property
    def relationship(self) -> Relationship:
        """Who shares the secret."""
        return self._keys(self.epoch)[1]

    def _keys(self, epoch: int) -> "tuple[bytearray, Relationship]":
        """Root, the caller's own, and relationship of an epoch. ChannelError if whoever has them has not."""
        relationship = self._relationship
        root = self._roots[epoch]
        if isinstance(relationship, Relationship) and root is not None:
            return bytearray(root), relationship
        found = None if relationship is None or isinstance(relationship, Relationship) else relationship(epoch)
        if found is None:
            raise ChannelError("the root of epoch %d is not to be had: install it anew" % epoch)
        return found

    @property
    def established(self) -> bool:
        """Whether `seal` works: there is a session whose peer has proved itself."""
        return self._session is not None

    @property
    def connecting(self) -> bool:
        """Whether a round of HELLOs goes on: until the peer has proved itself, `give_up` or the last one's pause."""
        return self._connecting

    @property
    def session_epoch(self) -> int:
        """Epoch of the session that seals, -1 without one."""
        return -1 if self._session is None else self._session.epoch

    @property
    def stats(self) -> "dict[str, int]":
        """How many records were opened and sealed, sessions established and messages refused, the last by reason."""
        stats = {OPENED: self._counts[_OPENED], "sealed": self._counts[_SEALED]}
        if self._counts[_SESSIONS]:
            stats[ESTABLISHED] = self._counts[_SESSIONS]
        if self.refused is not None:
            stats.update(self.refused)
        return stats

    @property
    def opened_and_sealed(self) -> "tuple[int, int]":
        """How many records were opened and sealed."""
        return self._counts[_OPENED], self._counts[_SEALED]

    @property
    def last_opened_ms(self) -> "int | None":
        """When a record was opened last, by `clock`, or six days ago if that is longer; None if there was none yet."""
        then = self._counts[_OPENED_MS]
        if then < 0:
            return None
        now_ms = self._clock()
        return now_ms - ((now_ms - then) & TIME_MASK)

    @property
    def dropped(self) -> "dict[str, int]":
        """Segmented payloads dropped, by cause, of all channels that share the workspace."""
        return self._shared.reassembler.dropped

    @property
    def dropped_transfers(self) -> "dict[str, int]":
        """Sealed ISO-TP transfers given up, by cause."""
        return {} if self._isotp is None else self._isotp.dropped

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is under way, and keys are asked for: it may be put away (packtrust.cold)."""
        return (
            self._handshake is None
            and not self._connecting
            and self._pending is None
            and self._previous is None
            and (self._isotp is None or self._isotp.is_idle)
            and self._out is None
            and not isinstance(self._relationship, Relationship)
        )

    @property
    def has_outgoing(self) -> bool:
        """Whether `outgoing` has frames."""
        return self._out is not None or (self._isotp is not None and self._isotp.has_outgoing)

    def __repr__(self) -> str:
        return "<Channel node 0x%02x epoch %d %s>" % (
            self.node,
            self.epoch,
            "established" if self.established else "not connected",
        )

    def _refuse(self, arbitration_id: int, reason: str) -> Event:
        """A flood of forged records ends here: it must not cost more than opening them would."""
        refused = self.refused
        if refused is None:
            refused = self.refused = {}
        refused[reason] = refused[reason] + 1 if reason in refused else 1
        event = self._shared.event
        event.arbitration_id = arbitration_id & _CLEAR
        event.reason = reason
        return event

    # -- keys and handshake --------------------------------------------------------------------------------------------

    def install(self, secret: "Buffer | Keys", epoch: int) -> None:
        """Give the root of a new epoch (higher than the present one), in the form in which the first was given.

        The running session lives on until the first record under the new epoch; the initiator starts it with
        `connect()`.
        """
        if epoch <= self.epoch:
            raise ChannelError("epoch %d is not above the present epoch %d" % (epoch, self.epoch))
        if epoch > _COUNTERS:
            raise ChannelError("epochs are used up: this relationship needs a new LCT")
        # Of two epochs the one in use stays: the newer one may never have been taken up by the peer.
        kept = min(self._roots) if self._session is None else self._session.epoch
        if kept not in self._roots:
            kept = self.epoch
        for old in list(self._roots):
            if old != kept:
                self._forget(old)
        if callable(secret):
            self._relationship = secret
        self._roots[epoch] = _root(secret)
        self.epoch = epoch

    def _forget(self, epoch: int) -> None:
        """Destroy a root."""
        root = self._roots.pop(epoch)
        if root is not None:
            wipe(root)

    def connect(self) -> None:
        """Start a round of HELLOs under the newest epoch (initiator only); `outgoing()` then has its first frames.

        Needed when there is no session, and when the peer shows that it has lost it. A session there is lives on until
        the peer has proved itself. A HELLO on its way is left alone: its answer may be, too.
        """
        if self.role != INITIATOR:
            raise ChannelError("only the initiator connects: a responder waits for the HELLO")
        if self._connecting and self._handshake is not None and self._handshake.epoch == self.epoch:
            if self._clock() - self._handshake_ms < HANDSHAKE_RETRY_MS:
                self._counts[_TRIES] = 1
                return
        self._connecting = True
        self._counts[_TRIES] = 0
        self._hello()

    def give_up(self) -> None:
        """End a round of HELLOs, as its last pause does: a REPLY that still comes is refused."""
        self._counts[_TRIES] = 0
        if self._connecting:
            self._connecting = False
            if self._handshake is not None:
                self._handshake.wipe()
                self._handshake = None

    def _new_handshake(self, epoch: int) -> "Handshake | None":
        """None if the root is not to be had now."""
        nonce = self._terms.urandom(16)  # first: where there is no entropy, all stays as it is
        if self._handshake is not None:
            self._handshake.wipe(False)
            self._handshake = None
        try:
            root, relationship = self._keys(epoch)
        except ChannelError:
            return None
        self._handshake = Handshake(
            self.role,
            root,
            relationship,
            epoch,
            self._side,
            self._terms.policy.digest,
            self._terms.boot_counter,
            nonce,
            self._terms.key_log,
        )
        wipe(root)
        return self._handshake

    def _hello(self) -> None:
        self._handshake_ms = self._clock()
        self._counts[_TRIES] += 1
        handshake = self._new_handshake(self.epoch)
        if handshake is not None:
            self._send_handshake(handshake.hello())

    def _send_handshake(self, payload: bytes) -> None:
        arbitration_id = compose(self._terms.link.handshake[0 if self.role == INITIATOR else 1], self.node)
        frames = cut(arbitration_id | self._counts[_TOGGLE], payload)
        if self._out is None:
            self._out = frames
        else:
            self._out.extend(frames)
        self._counts[_TOGGLE] ^= TOGGLE

    def send_pairing(self, payload: bytes) -> None:
        """Send a message of a pair exchange on this link's handshake row, in order with the handshake's own."""
        self._send_handshake(payload)

    def _on_handshake(self, payload: "Buffer") -> "Event | None":
        if is_pairing(payload):
            return None  # the pair exchange is its owner's business
        epoch = epoch_of(payload)
        if epoch < 0:
            return self._refuse(self._counts[_RX_HANDSHAKE], "handshake-malformed")
        if epoch not in self._roots:
            return self._refuse(self._counts[_RX_HANDSHAKE], "handshake-epoch")
        if self.role == RESPONDER and payload[0] == HELLO:
            now_ms = self._clock()
            if self._hello_answered_ms is not None and now_ms - self._hello_answered_ms < HELLO_INTERVAL_MS:
                return self._refuse(self._counts[_RX_HANDSHAKE], "handshake-rate")
            reason = hello_refusal(payload)
            if reason:
                return self._refuse(self._counts[_RX_HANDSHAKE], reason)
            # From here on it costs work: once a second, whatever becomes of it.
            self._hello_answered_ms = now_ms
            made = self._new_handshake(epoch)
            if made is None:
                return self._refuse(self._counts[_RX_HANDSHAKE], "handshake-root")
            handshake = made
            answer = handshake.feed(payload)
            if answer is None:
                return self._refuse(self._counts[_RX_HANDSHAKE], handshake.reason)
            self._drop_pending()
            if handshake.keys is not None:
                self._pending = self._begin(handshake, now_ms)
            self._send_handshake(answer)
            return None
        handshake_or_none = self._handshake
        if handshake_or_none is None:
            if self._session is not None and payload[0] == FINISH:
                return None  # said again, and a record has told us long since
            return self._refuse(self._counts[_RX_HANDSHAKE], "handshake-unexpected")
        handshake = handshake_or_none
        answer = handshake.feed(payload)
        if handshake.reason:
            return self._refuse(self._counts[_RX_HANDSHAKE], handshake.reason)
        if answer is not None:
            self._send_handshake(answer)
        if not handshake.proved or handshake.keys is None:
            return None
        if self.role == INITIATOR:
            if not self._connecting:
                return None  # the REPLY once more
            self._connecting = False
            self._handshake_ms = self._clock()
            self._counts[_TRIES] = 1  # FINISH, until a record tells that it has arrived
            return self._establish(self._begin(handshake, self._clock()))
        if self._pending is None:
            return None
        session = self._pending
        self._pending = None
        return self._establish(session)

    def _begin(self, handshake: Handshake, now_ms: int) -> Session:
        keys = handshake.keys
        if keys is None:
            raise ChannelError("a handshake without session keys was taken for a proved one: please report this")
        session = begin(keys, now_ms)
        pack_into("8s", self._counts, _SENDERS, keys.senders)
        keys.wipe()
        return session

    def _establish(self, session: Session) -> Event:
        # Of two sessions stays the one that the peer has used: it may not have taken up the other.
        if self._session is None or self._session.highest or self._previous is None:
            self._end(self._previous)
            self._previous = self._session
        else:
            self._end(self._session)
        self._session = session
        self._counts[_SESSIONS] += 1
        return Event(ESTABLISHED, epoch=session.epoch)

    def _end(self, session: "Session | None") -> None:
        """Destroy the keys of a session."""
        if session is not None:
            self._shared.dismiss(session.tx)
            self._shared.dismiss(session.rx)
            session.wipe()

    def _drop_pending(self) -> None:
        self._end(self._pending)
        self._pending = None

    def _first_record(self, session: Session) -> None:
        """The peer uses the session: its handshake, the session before it and the epochs before its own are over."""
        if session is self._pending:
            # FINISH was lost, but this record proves the same.
            self._pending = None
            self._establish(session)
        if session is self._session:
            self._end(self._previous)
            self._previous = None
            if self._handshake is not None and not self._connecting and self._pending is None:
                self._handshake.wipe()  # kept till now to say FINISH again
                self._handshake = None
                self._counts[_TRIES] = 0
        for old in list(self._roots):
            if old < session.epoch:
                self._forget(old)

    def _still_before(self, now_ms: int) -> None:
        """The peer goes on in the session before ours though FINISH was said: a HELLO of anybody ended its part."""
        if self.role == INITIATOR and not self._connecting and now_ms - self._handshake_ms >= HANDSHAKE_RETRY_MS:
            self.connect()

    def _binding(self, direction: int) -> bytes:
        """What the AAD says of who sends: direction and sender."""
        return bytes((direction,)) + bytes(unpack_from("4s", self._counts, _SENDERS + 4 * direction)[0])

    def _sender(self, session: Session) -> Sender:
        self._shared.make_room()
        tx = session.tx = Sender(session, self._binding(0 if self.role == INITIATOR else 1))
        self._shared.admit(tx)
        return tx

    def _opener(self, record: "Buffer") -> "Opener | None":
        """The direction that a record is of, by its IV base, of a live session. Needs no heap to find none."""
        session = self._session
        if session is None or not session.receives(record):
            session = self._pending
            if session is None or not session.receives(record):
                session = self._previous
                if session is None or not session.receives(record):
                    return None
        rx = session.rx
        if rx is None:
            self._shared.make_room()
            rx = session.rx = Opener(session, self._binding(1 if self.role == INITIATOR else 0))
            self._shared.admit(rx)
        return rx

    # -- sending -------------------------------------------------------------------------------------------------------

    def seal(self, arbitration_id: int, data: "Buffer") -> "list[Frame]":
        """The frames of `data` sealed as the message `arbitration_id` (its clear ID, bits 17..8 zero).

        They belong to the channel: send them, or queue copies, before the next `seal`.

        Up to 100 bytes (96 for classes that cite; 36 and 32 in a CAN FD frame) give all frames at once. Longer data
        goes by ISO-TP: the frame returned is the first one, the rest appear in `outgoing()` as the peer asks for them.
        Raises ChannelError (not connected, too many records) and PolicyError (this ID cannot be sealed).
        """
        session = self._session
        if session is None:
            raise ChannelError("no session: connect() and feed() frames until `established`")
        head = self._heads.get(arbitration_id)
        if head is None:
            head = self._head(arbitration_id)
        tx = session.tx
        if tx is None:
            tx = self._sender(session)
        counter = tx.latest + 1
        if counter > self._terms.max_records:
            raise ChannelError("this session has sealed its %d records: rotate to a new epoch" % tx.latest)
        now_ms = self._clock()
        if now_ms >= tx.ends_ms:
            tx.turn(now_ms)
        tx.latest = counter
        tx.recent = True
        self._counts[_SEALED] = self._counts[_SEALED] + 1 & _STATISTICS
        size = len(data)
        if head & _CITES:
            size += CITATION_LENGTH
        if size > self._counts[_SHORT_DATA]:
            return self._seal_long(tx, head, data, now_ms)
        shared = self._shared
        work = shared.tx
        if head & _CITES:
            rx = session.rx
            cited = session.highest if rx is None else rx.highest
            if cited > SMALL:  # else the mask alone would need heap
                cited &= 0xFFFFFFFF
            lay_into(
                _WORK_CITING, work, 0, VERSION, head & _STREAM, tx.binding, size, 0, tx.prefix, counter, cited, data
            )
        else:
            lay_into(_WORK, work, 0, VERSION, head & _STREAM, tx.binding, size, 0, tx.prefix, counter, data)
        tx.seal(work, size, AAD_LENGTH)
        self._heads[arbitration_id] = head ^ TOGGLE
        return shared.cut(head & ~_CITES, size + OVERHEAD, self._terms.fd)

    _seal = seal

    def _head(self, arbitration_id: int) -> int:
        """The entry in `_heads` of an ID that is sealed for the first time. Raises PolicyError."""
        base = base_of(arbitration_id)
        self._terms.policy.check_sealable(base)
        return canonical(arbitration_id) | (_CITES if self._terms.policy.needs_citation(base) else 0)

    def _seal_long(self, tx: Sender, head: int, data: "Buffer", now_ms: int) -> "list[Frame]":
        """A record that does not fit, by ISO-TP."""
        full_id = canonical(head)
        data = bytes(data)
        if head & _CITES and tx.session is not None:
            data = pack(">I", tx.session.highest & 0xFFFFFFFF) + data
        iv = tx.prefix + pack(">I", tx.latest)
        aad = pack(">BI", VERSION, full_id) + tx.binding + pack(">H", len(data))
        link = self._transfers()
        link.send(pack(">I", full_id) + iv + tx.aead.encrypt(iv, data, aad), now_ms)
        return link.outgoing()

    def _transfers(self) -> "IsoTpLink":
        """The ISO-TP link of long records, made when first needed."""
        if self._isotp is None:
            from packtrust.isotp import IsoTpLink  # a board mostly does without

            terms = self._terms
            ours = compose(terms.link.isotp[0 if self.role == INITIATOR else 1], self.node, True)
            self._isotp = IsoTpLink(ours, self._counts[_RX_ISOTP], terms.receive_max, terms.fd)
        return self._isotp

    def outgoing(self) -> "list[Frame]":
        """Frames to send now, in order (handshake, flow control, rest of a long record); the list is then empty."""
        frames = self._out or []
        self._out = None
        if self._isotp is not None:
            frames.extend(self._isotp.outgoing())
        return frames

    # -- receiving -----------------------------------------------------------------------------------------------------

    def feed(self, frame: "FrameLike") -> "Event | None":
        """Take any frame of the bus. An Event, or None: not ours, or nothing complete yet. Never raises on bytes.

        The event belongs to the channel: deal with it, or copy it, before the next `feed`.
        """
        head = frame.arbitration_id
        if head & 0xFF != self.node:
            return None
        # Here is what is hot: the chunks of records, each as it should be. `Reassembler.take` knows all the rest.
        partial = self._partial_of(head & _STREAM)
        if partial is None:
            return self._feed_any(frame, head)
        data = frame.data
        size = len(data)
        now_ms = self._clock()
        at = head >> 9 & 0x78
        end = head >> 5 & 0x78
        marks = partial.marks
        awaited = marks[AWAITED]
        if head == awaited:
            if (now_ms - marks[TAKEN_MS]) & TIME_MASK > SILENCE_MS:
                return self._feed_any(frame, head)
        elif at or awaited or end >= partial.room or not end:
            if at and not awaited and at <= end and (size == CHUNK or (at == end and 0 < size < CHUNK)):
                return None  # the rest of a record whose beginning was lost, or once more what is complete
            return self._feed_any(frame, head)
        if at != end:
            if size != CHUNK:
                return self._feed_any(frame, head)
            lay_into("8s", partial.buffer, at, data)
            marks[TAKEN_MS] = now_ms & TIME_MASK
            marks[AWAITED] = head + NEXT_CHUNK
            return None
        if not 0 < size <= CHUNK:
            return self._feed_any(frame, head)
        lay_into("8s", partial.buffer, at, data)
        marks[AWAITED] = 0
        marks[NEWEST] = head
        if not head & ENCRYPTED:
            return self._on_message(partial.buffer, at + size)
        return self._open(head & _STREAM, partial.buffer, at + size, partial.cites, now_ms)

    _feed = feed

    def _on_message(self, buffer: "Buffer", length: int) -> "Event | None":
        return self._on_handshake(memoryview(buffer)[:length])

    def _feed_any(self, frame: "FrameLike", head: int) -> "Event | None":
        """What `feed` does with a frame that has our node byte. In pieces, as `Reassembler.take` and for its reason."""
        if not frame.is_extended_id:
            return None
        if not head & ENCRYPTED:
            return _feed_clear(self, frame, head)
        if not head & _FIELDS and head == self._counts[_RX_ISOTP]:
            return self._on_isotp(frame)
        flags = self._terms.policy.flags_of(base_of(head))
        if not flags & SEALABLE:
            return None
        if frame.is_fd:
            return _feed_fd(self, frame, head, flags & CITED != 0)
        return _feed_chunk(self, frame, head, flags & CITED != 0)

    def _on_isotp(self, frame: "FrameLike") -> "Event | None":
        now_ms = self._clock()
        payload = (self._isotp or self._transfers()).feed(frame, now_ms)
        return None if payload is None else self._on_long(payload, now_ms)

    def _on_long(self, payload: bytes, now_ms: int) -> "Event | None":
        """Take a long record that is complete."""
        if len(payload) < 4 + OVERHEAD:
            return self._refuse(self._counts[_RX_ISOTP], "short")
        full_id = int.from_bytes(payload[:4], "big")
        flags = self._terms.policy.flags_of(base_of(full_id))
        if full_id != canonical(full_id) or not flags & SEALABLE:
            return self._refuse(self._counts[_RX_ISOTP], "unsealable")
        return self._open(full_id, memoryview(payload)[4:], len(payload) - 4, flags & CITED != 0, now_ms)

    def _open(self, full_id: int, record: "Buffer", size: int, cites: bool, now_ms: int) -> Event:
        """Judge the record in the first `size` bytes of a buffer, and open it."""
        shared = self._shared
        size -= OVERHEAD
        if size < 0:
            return self._refuse(full_id, "short")
        work = shared.rx
        form = _RECEIVED
        session = self._session
        rx = None if session is None else session.rx
        if size > _SHORT:
            rx = None
            work = bytearray(AAD_ROOM + OVERHEAD + size)
            form = ">BI5sHI%ds" % (OVERHEAD + size)
        counter = 0
        if rx is not None:
            lay_into(form, work, 0, VERSION, full_id, rx.binding, size, 0, record)
            if shared.rx_prefix == rx.prefix:
                counter = _number(shared.rx_counter, "big")
            else:
                rx = None
        if rx is None:
            # Another session, a direction that is not ready for use, a counter beyond 32 bits, a long record.
            rx = self._opener(record)
            if rx is None:
                return self._refuse(full_id, "unknown-session")
            lay_into(form, work, 0, VERSION, full_id, rx.binding, size, 0, record)
            counter = _number(work[AAD_ROOM + IV_BASE_LENGTH : DATA_AT], "big")
        highest = rx.highest
        if counter <= highest or not counter:
            reason = rx.refusal(counter)
            if reason:
                return self._refuse(full_id, reason)
        if cites and counter <= rx.strict:
            return self._refuse(full_id, "replay")
        if not rx.open(work, size, AAD_LENGTH):
            return self._refuse(full_id, "tag")
        rx.accept(counter)
        rx.recent = True
        if not highest:
            self._first_record(rx.session)
        if self._handshake is not None and rx.session is self._previous:
            self._still_before(now_ms)
        self._counts[_OPENED_MS] = now_ms & TIME_MASK
        start = DATA_AT
        if cites:
            rx.strict = counter
            if size < CITATION_LENGTH:
                return self._refuse(full_id, "short")
            start = DATA_AT + CITATION_LENGTH
            size -= CITATION_LENGTH
            cited = _number(shared.rx_cited if work is shared.rx else work[DATA_AT:start], "big")
            if not rx.session.is_fresh(cited, now_ms):
                return self._refuse(full_id, "stale")
        counts = self._counts
        counts[_OPENED] = counts[_OPENED] + 1 & _STATISTICS
        event = shared.opened
        event.arbitration_id = full_id ^ ENCRYPTED
        event.counter = counter
        event.epoch = rx.epoch
        if work is not shared.rx:
            event.data = bytes(work[start : start + size])
        else:
            event.data = shared.view(start, size)
        return event

    # -- time ----------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Call every 10..100 ms: repeats HELLO or FINISH a few times, ends what timed out."""
        now_ms = self._clock()
        self._shared.expire(now_ms)
        if self._isotp is not None:
            self._isotp.tick(now_ms)
        counts = self._counts
        then = counts[_OPENED_MS]
        if then >= 0 and (now_ms - then) & TIME_MASK > _LONG_AGO_MS:
            counts[_OPENED_MS] = (now_ms - _LONG_AGO_MS) & TIME_MASK
        tries = counts[_TRIES]
        if tries and now_ms - self._handshake_ms >= HANDSHAKE_RETRY_MS << tries - 1:
            if tries == HANDSHAKE_TRIES:
                self.give_up()
            elif self._connecting:
                self._hello()
            elif self._handshake is not None:
                counts[_TRIES] = tries + 1
                self._handshake_ms = now_ms
                self._send_handshake(self._handshake.finish())

    def disconnect(self) -> None:
        """End every session and handshake there is; `connect` starts anew."""
        for session in (self._session, self._pending, self._previous):
            self._end(session)
        self._session = self._pending = self._previous = None
        if self._handshake is not None:
            self._handshake.wipe()
            self._handshake = None
        self._connecting = False
        self._counts[_TRIES] = 0

    def close(self) -> None:
        """Destroy every key; the channel is then of no use."""
        self.disconnect()
        for epoch in list(self._roots):
            self._forget(epoch)


# Not of the class: with these its table would be in another order, and each look into it cost more.


def _feed_fd(channel: "Channel", frame: "FrameLike", head: int, cites: bool) -> "Event | None":
    """What `Channel.feed` does with a record in a CAN FD frame."""
    size = channel._shared.reassembler.fd_length(frame)
    return channel._open(head & _STREAM, frame.data, size, cites, channel._clock()) if size else None


def _feed_chunk(channel: "Channel", frame: "FrameLike", head: int, cites: bool) -> "Event | None":
    """What `Channel.feed` does with a chunk of a record, whatever it is like."""
    partial = channel._shared.reassembler.take(head, frame.data, channel._clock())
    if partial is not None:
        partial.cites = cites
        return _open_completed(channel, partial, head)
    partial = channel._partial_of(head & _STREAM)
    if partial is not None:
        partial.cites = cites
    return None


def _open_completed(channel: "Channel", partial: "Partial", head: int) -> Event:
    return channel._open(head & _STREAM, partial.buffer, partial.length, partial.cites, channel._clock())


def _feed_clear(channel: "Channel", frame: "FrameLike", head: int) -> "Event | None":
    """What `Channel.feed` does with a frame in clear: of a handshake, or one that should have been sealed."""
    if clear_of(head) == channel._counts[_RX_HANDSHAKE]:
        payload = channel._shared.reassembler.feed(frame, channel._clock())
        return None if payload is None else channel._on_handshake(payload)
    if channel._session is not None and not channel._terms.policy.clear_allowed(base_of(head), True):
        return channel._refuse(head, "clear")
    return None


# The board's own way for records that are as they should be; the methods above know them all.
if sys.implementation.name == "micropython":
    try:
        from packtrust.channel_viper import feed, seal

        Channel.seal = seal  # type: ignore[method-assign]
        Channel.feed = feed  # type: ignore[method-assign]
    # A port without the emitter refuses the source (SyntaxError) or the compiled file (ValueError).
    except (ImportError, SyntaxError, ValueError):
        pass  # the methods above do all of it
