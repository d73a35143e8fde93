"""One neighbour on one bus: the channel with it, and beside that the pair exchange that makes the channel's keys."""

from packtrust import cold
from packtrust.arbitration import clear_of, compose
from packtrust.channel import OPENED, Channel
from packtrust.errors import PacktrustError
from packtrust.handshake import INITIATOR, is_pairing
from packtrust.messages.bases import ROTATION_FROM_MODULE, ROTATION_TO_MODULE
from packtrust.segmentation import Reassembler, Segmenter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer, FrameLike
    from packtrust.channel import Event, Keys, Link
    from packtrust_node.env import Env
    from packtrust_node.relation import Kept


def _keys_of(relation: "Kept", own_fingerprint: bytes) -> "Keys":
    """What a channel asks for the root of an epoch: it is read from the store for each handshake."""
    return lambda epoch: relation.keys_of(own_fingerprint, epoch)


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


class Neighbour:
    """Who is reached on a bus with node byte `node`.

    relation   None while there are no keys with it
    channel    made of what was put away, if it was; so nobody keeps it from one event to the next
    """

    def __init__(self, bus: Bus, node: int) -> None:
        self.node = node
        self.relation = None  # type: Kept | None
        self.last_authentic_ms = None  # type: int | None
        self.spent = False  # the session has sealed all it may: it takes a new one
        self.unsent = 0  # records that could not be sealed
        self.used_up = False  # the epoch: only a rotation goes on under it
        self._bus = bus
        self._channel = None  # type: Channel | None
        self._state = None  # type: bytearray | None  # of the channel that was put away
        self._refused = None  # type: dict[str, int] | None  # by it

    @property
    def role(self) -> int:
        """Ours: INITIATOR or RESPONDER."""
        return self._bus.role

    @property
    def keyed(self) -> bool:
        """Whether there are keys with it."""
        return self.relation is not None

    @property
    def established(self) -> bool:
        """Whether there is a session with it."""
        channel = self._channel
        if channel is not None:
            return channel.established
        return self._state is not None and cold.in_session(self._state)

    @property
    def connecting(self) -> bool:
        """Whether a round of handshakes goes on."""
        return self._channel is not None and self._channel.connecting

    @property
    def session_epoch(self) -> int:
        """Epoch of the session, -1 without one."""
        channel = self._channel
        if channel is not None:
            return channel.session_epoch
        return -1 if self._state is None else cold.session_epoch(self._state)

    @property
    def records(self) -> "tuple[int, int]":
        """How many records its channel has opened and sealed."""
        channel = self._channel
        if channel is not None:
            return channel.opened_and_sealed
        return (0, 0) if self._state is None else cold.opened_and_sealed(self._state)

    @property
    def stats(self) -> "dict[str, int]":
        """As Channel.stats."""
        channel = self._channel
        if channel is not None:
            return channel.stats
        opened, sealed = self.records
        stats = {OPENED: opened, "sealed": sealed}
        if self._refused is not None:
            stats.update(self._refused)
        return stats

    # -- the channel ---------------------------------------------------------------------------------------------------

    @property
    def channel(self) -> "Channel | None":
        """See the class."""
        if self._channel is None and self._state is not None:
            self._fetch()
        return self._channel

    def _make(self, epoch: int) -> Channel:
        bus = self._bus
        env = bus.env
        relation = self.relation
        assert relation is not None
        return Channel(
            _keys_of(relation, bus.own_fingerprint),
            bus.role,
            self.node,
            clock=env.now_ms,
            urandom=env.urandom,
            side=relation.side,
            epoch=epoch,
            policy=bus.link.policy,
            link=bus.link,
            boot_counter=bus.boot_counter,
            fd=env.fd(bus.port),
            max_records=relation.max_records,
            workspace=env.workspace,
        )

    def _fetch(self) -> None:
        state = self._state
        assert state is not None
        self._bus.make_room()
        channel = self._make(cold.older_epoch(state))
        channel.refused = self._refused
        cold.fetch(channel, state)
        self._bus.whole.append(self)
        # From here on nothing needs heap: it is the one or the other.
        self._channel = channel
        self._state = self._refused = None

    def put_away(self) -> bool:
        """Keep no more of its channel than is needed; False if something is under way there."""
        channel = self._channel
        if channel is None:
            return False
        state = cold.put_away(channel)
        if state is None:
            return False
        self._refused = channel.refused
        self._state = state
        self._channel = None
        self._bus.whole.remove(self)
        return True

    # -- keys ----------------------------------------------------------------------------------------------------------

    def key(self, relation: "Kept", own_fingerprint: bytes, boot_counter: int) -> None:
        """Take the keys of a relation: a new epoch of the one there is, or another one in its place."""
        channel = self.channel
        self._bus.own_fingerprint = own_fingerprint
        self._bus.boot_counter = boot_counter
        if channel is not None and self.relation is not None and self.relation.tag == relation.tag:
            self.relation = relation
            channel.install(_keys_of(relation, own_fingerprint), relation.epoch)
            return
        self.unkey()
        self.relation = relation
        previous = relation.previous if relation.two_epochs else None
        self._bus.make_room()
        channel = self._make(relation.epoch if previous is None else previous[0])
        self._bus.whole.append(self)
        self._channel = channel
        if previous is not None:
            channel.install(_keys_of(relation, own_fingerprint), relation.epoch)

    def unkey(self) -> None:
        """Destroy the keys there are."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            self._bus.whole.remove(self)
        if self._state is not None:
            cold.close(self._state)
            self._state = self._refused = None
        self.relation = None
        self.last_authentic_ms = None
        self.spent = False

    def connect(self) -> None:
        """Start a round of handshakes; a HELLO on its way is left alone."""
        channel = self.channel
        if channel is not None:
            channel.connect()
            self.flush()

    def give_up(self) -> None:
        """End a round of handshakes."""
        if self._channel is not None:
            self._channel.give_up()

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
        channel = self.channel
        if channel is None:
            return None
        event = channel.feed(frame)
        if channel.has_outgoing:
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
        bus = self._bus
        if self.used_up and base not in (ROTATION_TO_MODULE, ROTATION_FROM_MODULE):
            self.unsent += 1
            return False
        try:
            frames = channel.seal(compose(base + bus.link.shift, self.node), data)
        except PacktrustError:
            self.unsent += 1
            self.spent = True
            return False
        for frame in frames:
            bus.env.send(bus.port, frame)
        return True

    def tick(self) -> None:
        """Call every 10..100 ms."""
        if self._channel is not None:
            self._channel.tick()
            self.flush()

    def flush(self) -> None:
        """Send what the channel has to say by itself."""
        channel = self._channel
        if channel is not None and channel.has_outgoing:
            bus = self._bus
            for frame in channel.outgoing():
                bus.env.send(bus.port, frame)
