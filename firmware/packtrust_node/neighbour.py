"""One neighbour on one bus: the channel with it, and beside that the pair exchange that makes the channel's keys."""

from packtrust import cold
from packtrust._compat import const
from packtrust.arbitration import ENCRYPTED, clear_of, compose
from packtrust.channel import OPENED, Channel
from packtrust.errors import PacktrustError
from packtrust.handshake import INITIATOR, is_pairing
from packtrust.messages.bases import ROTATION_FROM_MODULE, ROTATION_TO_MODULE
from packtrust.segmentation import Reassembler, Segmenter
from packtrust_node.relation import FLAGS_AT, MAX_RECORDS_AT, SIDE_BIT, TERMS_LENGTH, Terms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer, FrameLike
    from packtrust.channel import Event, Link
    from packtrust.keys import Relationship
    from packtrust_node.env import Env

# More than ENCRYPTED: a chunk of a record of several, for neither ISO-TP nor handshakes have these bits.
_CHUNK_OF = const(0x2FF00)


class Bus:
    """What all neighbours on one port have in common; `role` is ours towards them (INITIATOR or RESPONDER)."""

    def __init__(self, env: "Env", port: int, role: int, link: "Link") -> None:
        self.env = env
        self.port = port
        self.role = role
        self.link = link
        self.own_fingerprint = b""
        self.boot_counter = 0
        self.whole = []  # type: list[Neighbour]  # whose channels are not put away, in the order they were fetched
        self.exchanges = {}  # type: dict[int, Reassembler]  # pair exchanges that are expected, by node byte
        self.segmenter = None  # type: Segmenter | None  # for them
        self.refused = {}  # type: dict[int, dict[str, int]]  # by channels that are put away, by node byte and reason

    def make_room(self) -> None:
        """One more channel is going to be whole: others are put away as long as there are too many."""
        whole = self.whole
        over = len(whole) + 1 - self.env.workspace.channels
        if over > 0:
            for other in list(whole):
                if other.put_away():
                    over -= 1
                    if not over:
                        break


class Neighbour(Terms):
    """Who is reached on a bus with node byte `node`, and the terms of the relationship with it, if there is one.

    heard_ms   when something authentic of it came; None: nothing yet
    channel    made of what was put away, if it was; so nobody keeps it from one event to the next

    What seldom differs is in the object only where it does: of the other 30 it takes no RAM.
    """

    spent = False  # the session has sealed all it may: it takes a new one
    unsent = 0  # records that could not be sealed
    used_up = False  # the epoch: only a rotation goes on under it

    def __init__(self, bus: Bus, node: int, length: int = TERMS_LENGTH) -> None:
        Terms.__init__(self, bus, node, bytearray(length))
        self.heard_ms = None  # type: int | None
        self._held = None  # type: Channel | bytearray | None  # the channel, or its state while it is put away

    @property
    def role(self) -> int:
        """Ours: INITIATOR or RESPONDER."""
        return self._bus.role

    @property
    def relation(self) -> "Terms | None":
        """The terms of the relationship with it."""
        return self if self.keyed else None

    @property
    def _channel(self) -> "Channel | None":
        """The channel, if it is whole."""
        held = self._held
        return None if isinstance(held, bytearray) else held

    @property
    def established(self) -> bool:
        """Whether there is a session with it."""
        held = self._held
        if held is None:
            return False
        return cold.in_session(held) if isinstance(held, bytearray) else held.established

    @property
    def connecting(self) -> bool:
        """Whether a round of handshakes goes on."""
        channel = self._channel
        return channel is not None and channel.connecting

    @property
    def session_epoch(self) -> int:
        """Epoch of the session, -1 without one."""
        held = self._held
        if held is None:
            return -1
        return cold.session_epoch(held) if isinstance(held, bytearray) else held.session_epoch

    @property
    def records(self) -> "tuple[int, int]":
        """How many records its channel has opened and sealed."""
        held = self._held
        if held is None:
            return (0, 0)
        return cold.opened_and_sealed(held) if isinstance(held, bytearray) else held.opened_and_sealed

    @property
    def stats(self) -> "dict[str, int]":
        """As Channel.stats."""
        channel = self._channel
        if channel is not None:
            return channel.stats
        opened, sealed = self.records
        stats = {OPENED: opened, "sealed": sealed}
        stats.update(self._bus.refused.get(self.node, {}))
        return stats

    # -- the channel ---------------------------------------------------------------------------------------------------

    @property
    def channel(self) -> "Channel | None":
        """See the class."""
        held = self._held
        return self._fetch(held) if isinstance(held, bytearray) else held

    def _root_of(self, epoch: int) -> "tuple[bytearray, Relationship] | None":
        """What a channel asks for the root of an epoch: it is read from the store for each handshake."""
        return self.keys_of(self._bus.own_fingerprint, epoch)

    def _make(self, epoch: int) -> Channel:
        bus = self._bus
        env = bus.env
        return Channel(
            self._root_of,
            bus.role,
            self.node,
            clock=env.now_ms,
            urandom=env.urandom,
            side=self.row[FLAGS_AT] >> SIDE_BIT & 1,
            epoch=epoch,
            policy=bus.link.policy,
            link=bus.link,
            boot_counter=bus.boot_counter,
            fd=env.fd(bus.port),
            max_records=self.term(MAX_RECORDS_AT),
            workspace=env.workspace,
        )

    def _fetch(self, state: bytearray) -> Channel:
        bus = self._bus
        bus.make_room()
        channel = self._make(cold.older_epoch(state))
        channel.refused = bus.refused.get(self.node)
        cold.fetch(channel, state)
        bus.whole.append(self)
        # From here on nothing needs heap: it is the one or the other.
        self._held = channel
        if channel.refused is not None:
            del bus.refused[self.node]
        return channel

    def put_away(self) -> bool:
        """Keep no more of its channel than is needed; False if something is under way there."""
        channel = self._channel
        if channel is None:
            return False
        if channel.refused is not None:
            self._bus.refused[self.node] = channel.refused
        state = cold.put_away(channel)
        if state is None:
            return False
        self._held = state
        self._bus.whole.remove(self)
        return True

    # -- keys ----------------------------------------------------------------------------------------------------------

    def key(self, relation: Terms, own_fingerprint: bytes, boot_counter: int) -> None:
        """Take the keys of a relation: a new epoch of the one there is, or another one in its place."""
        bus = self._bus
        bus.own_fingerprint = own_fingerprint
        bus.boot_counter = boot_counter
        terms = relation.row[:TERMS_LENGTH]
        channel = self.channel
        if channel is not None and self.tag == relation.tag:
            self.row[:TERMS_LENGTH] = terms
            if channel.epoch < relation.epoch:  # else this is done a second time
                channel.install(self._root_of, relation.epoch)
            return
        self.unkey()
        self.row[:TERMS_LENGTH] = terms
        previous = self.previous if self.two_epochs else None
        bus.make_room()
        channel = self._make(self.epoch if previous is None else previous[0])
        bus.whole.append(self)
        self._held = channel
        if previous is not None:
            channel.install(self._root_of, self.epoch)

    def close(self) -> None:
        """Destroy the keys in use; the terms stay as they are."""
        held = self._held
        self._held = None
        if isinstance(held, bytearray):
            cold.close(held)
        elif held is not None:
            held.close()
            self._bus.whole.remove(self)
        self._bus.refused.pop(self.node, None)

    def unkey(self) -> None:
        """Destroy the keys there are."""
        self.close()
        self.row[:TERMS_LENGTH] = bytes(TERMS_LENGTH)
        self.heard_ms = None
        if self.spent:
            self.spent = False

    def connect(self) -> None:
        """Start a round of handshakes; a HELLO on its way is left alone."""
        channel = self.channel
        if channel is not None:
            channel.connect()
            self.flush()

    def give_up(self) -> None:
        """End a round of handshakes."""
        channel = self._channel
        if channel is not None:
            channel.give_up()

    # -- pair exchange -------------------------------------------------------------------------------------------------

    def listen(self, on: bool) -> None:
        """Whether messages of a pair exchange are expected."""
        exchanges = self._bus.exchanges
        if on:
            if self.node not in exchanges:
                exchanges[self.node] = Reassembler(1)
        elif self.node in exchanges:
            del exchanges[self.node]
            if not exchanges:
                self._bus.segmenter = None

    def pairing(self, frame: "FrameLike") -> "bytes | None":
        """The message of a pair exchange that this frame completes, if any."""
        bus = self._bus
        exchanges = bus.exchanges
        if not exchanges or self.node not in exchanges or clear_of(frame.arbitration_id) != self._handshake_id(1):
            return None
        payload = exchanges[self.node].feed(frame, bus.env.now_ms())
        if payload is None or not is_pairing(payload):
            return None
        return bytes(payload)

    def send_pairing(self, payload: "Buffer") -> None:
        """Send a message of a pair exchange."""
        channel = self.channel
        if channel is not None:
            channel.send_pairing(payload)
            self.flush()
            return
        bus = self._bus
        if bus.segmenter is None:
            bus.segmenter = Segmenter()
        for frame in bus.segmenter.split(self._handshake_id(0), payload):
            bus.env.send(bus.port, frame)

    def _handshake_id(self, from_peer: int) -> int:
        """The handshake row's ID of what we send (0), or of what it sends (1)."""
        bus = self._bus
        return compose(bus.link.handshake[from_peer if bus.role == INITIATOR else 1 - from_peer], self.node)

    # -- records -------------------------------------------------------------------------------------------------------

    def feed(self, frame: "FrameLike") -> "Event | None":
        """Give the channel a frame; what it found out, valid until any neighbour is fed again."""
        channel = self._held
        if channel is None:
            return None
        if isinstance(channel, bytearray):
            channel = self._fetch(channel)
        event = channel.feed(frame)
        # Of a record only the last chunk may leave something to say: the others are not asked about it.
        if (event is not None or frame.arbitration_id & _CHUNK_OF <= ENCRYPTED) and channel.has_outgoing:
            self.flush()
        if event is not None and event.kind == OPENED:
            shift = self._bus.link.shift
            if shift:
                event.arbitration_id -= shift << 18
        return event

    def seal(self, base: int, data: "Buffer") -> bool:
        """Send a record, `base` as in the message table. False: no session, or it or its epoch is used up."""
        channel = self.channel
        if channel is None or not channel.established:
            return False
        if self.used_up and base != ROTATION_TO_MODULE and base != ROTATION_FROM_MODULE:  # noqa: PLR1714 - no tuple
            self.unsent += 1
            return False
        return self._send(channel, base + self._bus.link.shift, data)

    def _send(self, channel: Channel, base: int, data: "Buffer") -> bool:
        bus = self._bus
        try:
            bus.env.send_record(bus.port, channel.seal(compose(base, self.node), data))
        except PacktrustError:
            self.unsent += 1
            self.spent = True
            return False
        return True

    def tick(self) -> None:
        """Call every 10..100 ms."""
        channel = self._channel
        if channel is not None:
            channel.tick()
            self.flush()

    def flush(self) -> None:
        """Send what the channel has to say by itself."""
        channel = self._channel
        if channel is not None and channel.has_outgoing:
            bus = self._bus
            for frame in channel.outgoing():
                bus.env.send(bus.port, frame)
