"""One neighbour on one bus: the channel with it, and beside that the pair exchange that makes the channel's keys."""

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


class Neighbour:
    """Who is reached on `port` with node byte `node`; `role` is ours (INITIATOR or RESPONDER).

    `relation` and `channel` are None while there are no keys with it.
    """

    def __init__(self, env: "Env", port: int, node: int, role: int, link: "Link") -> None:
        self.port = port
        self.node = node
        self.role = role
        self.relation = None  # type: Kept | None
        self.channel = None  # type: Channel | None
        self.last_authentic_ms = None  # type: int | None
        self.spent = False  # the session has sealed all it may: it takes a new one
        self.unsent = 0  # records that could not be sealed
        self.used_up = False  # the epoch: only a rotation goes on under it
        self._env = env
        self._link = link
        ours = 0 if role == INITIATOR else 1
        self._tx_handshake = compose(link.handshake[ours], node)
        self._rx_handshake = compose(link.handshake[1 - ours], node)
        self._segmenter = None  # type: Segmenter | None
        self._reassembler = None  # type: Reassembler | None

    @property
    def keyed(self) -> bool:
        """Whether there are keys with it."""
        return self.channel is not None

    @property
    def established(self) -> bool:
        """Whether there is a session with it."""
        return self.channel is not None and self.channel.established

    # -- keys ----------------------------------------------------------------------------------------------------------

    def key(self, relation: "Kept", own_fingerprint: bytes, boot_counter: int) -> None:
        """Take the keys of a relation: a new epoch of the one there is, or another one in its place."""
        channel = self.channel
        if channel is not None and self.relation is not None and self.relation.tag == relation.tag:
            self.relation = relation
            channel.install(_keys_of(relation, own_fingerprint), relation.epoch)
            return
        self.unkey()
        self.relation = relation
        previous = relation.previous if relation.two_epochs else None
        keys = _keys_of(relation, own_fingerprint)
        self.channel = Channel(
            keys,
            self.role,
            self.node,
            clock=self._env.now_ms,
            urandom=self._env.urandom,
            side=relation.side,
            epoch=relation.epoch if previous is None else previous[0],
            policy=self._link.policy,
            link=self._link,
            boot_counter=boot_counter,
            fd=self._env.fd(self.port),
            max_records=relation.max_records,
            workspace=self._env.workspace,
        )
        if previous is not None:
            self.channel.install(keys, relation.epoch)

    def unkey(self) -> None:
        """Destroy the keys there are."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        self.relation = None
        self.last_authentic_ms = None
        self.spent = False

    def connect(self) -> None:
        """Start a round of handshakes; a HELLO on its way is left alone."""
        if self.channel is not None:
            self.channel.connect()
            self.flush()

    # -- pair exchange -------------------------------------------------------------------------------------------------

    def listen(self, on: bool) -> None:
        """Whether messages of a pair exchange are expected."""
        if not on:
            self._reassembler = None
        elif self._reassembler is None:
            self._reassembler = Reassembler(1)

    def pairing(self, frame: "FrameLike") -> "bytes | None":
        """The message of a pair exchange that this frame completes, if any."""
        if self._reassembler is None or clear_of(frame.arbitration_id) != self._rx_handshake:
            return None
        payload = self._reassembler.feed(frame, self._env.now_ms())
        if payload is None or not is_pairing(payload):
            return None
        return bytes(payload)

    def send_pairing(self, payload: "Buffer") -> None:
        """Send a message of a pair exchange."""
        if self.channel is not None:
            self.channel.send_pairing(payload)
            self.flush()
            return
        if self._segmenter is None:
            self._segmenter = Segmenter()
        for frame in self._segmenter.split(self._tx_handshake, payload):
            self._env.send(self.port, frame)

    # -- records -------------------------------------------------------------------------------------------------------

    def feed(self, frame: "FrameLike") -> "Event | None":
        """Give the channel a frame; what it found out, valid until any neighbour is fed again."""
        channel = self.channel
        if channel is None:
            return None
        event = channel.feed(frame)
        if channel.has_outgoing:
            self.flush()
        if event is not None and event.kind == OPENED and self._link.shift:
            event.arbitration_id -= self._link.shift << 18
        return event

    def seal(self, base: int, data: "Buffer") -> bool:
        """Send a record, `base` as in the message table. False: no session, or it or its epoch is used up."""
        channel = self.channel
        if channel is None or not channel.established:
            return False
        if self.used_up and base not in (ROTATION_TO_MODULE, ROTATION_FROM_MODULE):
            self.unsent += 1
            return False
        try:
            frames = channel.seal(compose(base + self._link.shift, self.node), data)
        except PacktrustError:
            self.unsent += 1
            self.spent = True
            return False
        for frame in frames:
            self._env.send(self.port, frame)
        return True

    def tick(self) -> None:
        """Call every 10..100 ms."""
        if self.channel is not None:
            self.channel.tick()
            self.flush()

    def flush(self) -> None:
        """Send what the channel has to say by itself."""
        channel = self.channel
        if channel is not None and channel.has_outgoing:
            for frame in channel.outgoing():
                self._env.send(self.port, frame)
