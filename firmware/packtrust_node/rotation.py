"""A new epoch of a pack-module pair without an app (docs/wire.md, section 9): either end of it, loaded when needed.

The commit is as with a package: the module's first, and it goes on with both epochs until a record has come under the
new one; so a power cut on either side, at any step, leaves a pair that meets again.
"""

from struct import pack

from packtrust import rotation
from packtrust._compat import const
from packtrust.crypto import sha256, wipe, x25519
from packtrust.errors import PacktrustError
from packtrust.handshake import INITIATOR
from packtrust.keys import SALT_LENGTH
from packtrust.messages.bases import ROTATION_FROM_MODULE, ROTATION_TO_MODULE
from packtrust.pairing import PairExchange
from packtrust_node.relation import Relation
from packtrust_node.salts import salt_hash, salt_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust_node.neighbour import Neighbour
    from packtrust_node.node import Node
    from packtrust_node.relation import Terms

TIMEOUT_MS = const(10000)
REPEAT_MS = const(1000)


class Rotation:
    """One end's part in one rotation. `tick` takes its steps one at a time, for each X25519 takes a board a while.

    neighbour   the other end
    base_epoch  the epoch whose session carries the messages, and whose root the new one follows from
    epoch       the new one
    salt, peer  of PROPOSE, at the module; the pack draws its salt
    """

    def __init__(
        self,
        node: "Node",
        neighbour: "Neighbour",
        base_epoch: int,
        epoch: int,
        salt: bytes,
        peer: bytes = b"",
    ) -> None:
        self.neighbour = neighbour
        self.epoch = epoch
        self.committed = False
        self._node = node
        self._base_epoch = base_epoch
        self._salt = salt
        self._peer = peer
        self._dh_static = bytearray()
        self._exchange = None  # type: PairExchange | None
        self._message = b""  # sent last
        self._since_ms = self._due_ms = node.env.now_ms()

    @property
    def _initiates(self) -> bool:
        return self.neighbour.role == INITIATOR

    def is_about(self, epoch: int, salt: bytes, peer: bytes) -> bool:
        """Whether a PROPOSE is the one that this is the answer to."""
        return (self.epoch, self._salt, self._peer) == (epoch, salt, peer)

    def wipe(self) -> None:
        """Destroy what is secret."""
        wipe(self._dh_static)
        if self._exchange is not None:
            self._exchange.wipe()
        self._node.keys_ended()

    def _send(self, message: bytes, now_ms: int) -> None:
        self._message = message
        self._due_ms = now_ms + REPEAT_MS
        self.neighbour.seal(ROTATION_TO_MODULE if self._initiates else ROTATION_FROM_MODULE, message)

    def repeat(self) -> None:
        """Say again what was said last, if anything was."""
        if self._message:
            self._send(self._message, self._node.env.now_ms())

    def tick(self, now_ms: int) -> bool:
        """Take the next step. False when it is over. Raises PacktrustError where that is a failure."""
        if now_ms - self._since_ms >= TIMEOUT_MS:
            if not self.committed:
                self._node.count("rotation-timeout")
            return False
        if self.committed:
            return not self._initiates  # the module's end may have to say AGREED again
        if self._exchange is None:
            self._prepare(now_ms)
        elif not self._initiates:
            if not self._message:
                self._send(self._exchange.accept(self._peer) or b"", now_ms)
        elif now_ms - self._due_ms >= 0:
            self._send(self._message, now_ms)
        return True

    def _prepare(self, now_ms: int) -> None:
        """One X25519 a call: the binding keys' first, then our ephemeral one."""
        node = self._node
        kept = self.neighbour.relation
        if kept is None:
            raise PacktrustError("the pair has no keys any more")
        if not self._dh_static:
            whole = kept.full()
            try:
                if not any(whole.peer_public):
                    raise PacktrustError("its peer has no binding key: only an app can rotate the pair")
                self._dh_static = bytearray(x25519(node.identity.private, whole.peer_public))
            finally:
                whole.wipe()
            return
        keys = kept.keys_of(node.identity.fingerprint, self._base_epoch)
        if keys is None:
            raise PacktrustError("the pair has other keys by now")
        root, relationship = keys
        secret = rotation.next_secret(root, relationship, self._base_epoch, self._salt)
        wipe(root)
        entropy = bytearray(node.env.urandom(32))
        role = self.neighbour.role
        self._exchange = PairExchange(role, secret, self._dh_static, relationship, self.epoch, entropy)
        for made in (secret, entropy, self._dh_static):
            wipe(made)
        if self._initiates:
            self._send(rotation.propose(self.epoch, self._salt, self._exchange.public), now_ms)

    def take(self, message: bytes) -> None:
        """Take ANSWER, CONFIRM or AGREED. Raises StorageError if the new epoch cannot be stored: the old one stays."""
        exchange = self._exchange
        if exchange is None:
            return
        answer = exchange.feed(message)
        now_ms = self._node.env.now_ms()
        if exchange.agreed and not self.committed:
            self._commit(exchange)
        if answer is not None:
            self._send(answer, now_ms)
        elif not exchange.agreed:
            self._node.count("rotation")

    def _commit(self, exchange: PairExchange) -> None:
        node = self._node
        kept = self.neighbour.relation
        if kept is None or exchange.root is None or kept.epoch >= self.epoch:
            raise PacktrustError("the pair has other keys by now")
        store = node.env.store
        old = kept.full()
        relation = Relation(
            old.counter,
            self.epoch,
            old.role,
            old.side,
            old.node,
            old.scope,
            old.max_records,
            old.max_age_s,
            old.unique_id,
            exchange.root,
            old.peer_public,
            old.lct_id,
            old.component_a,
            old.component_b,
            old.lct_half,
        )
        relation.keep_epoch_in_use(old, self.neighbour.session_epoch)
        try:
            # The hash first: alone it means nothing.
            before = salt_hash(store, old.tag, old.epoch)
            salts = pack(">I", self.epoch) + sha256(self._salt)
            if before:
                salts += pack(">I", old.epoch) + before
            store.write(salt_name(old.tag), salts)
            node.commit(relation, "rotated")
        finally:
            relation.wipe()
            old.wipe()
        self.committed = True
        if self._initiates:
            self._exchange = None
            exchange.wipe()
        node.count("rotations")
        node.env.log("epoch %d of %s is made, without an app" % (relation.epoch, relation.lct_id))
        node.settle()


def begin(node: "Node", relation: "Terms | Relation") -> "Rotation | None":
    """The pack's part in a rotation of a pair with a module, started. Raises PacktrustError without entropy."""
    neighbour = node.neighbour(relation.node)
    if neighbour is None:
        return None
    return Rotation(node, neighbour, relation.epoch, relation.epoch + 1, node.env.urandom(SALT_LENGTH))


def take(
    node: "Node", ours: "Rotation | None", neighbour: "Neighbour", message: bytes, epoch: int
) -> "Rotation | None":
    """Take a message under the session of `epoch`; the rotation that is under way then. Raises PacktrustError."""
    mine = ours is not None and ours.neighbour is neighbour
    if neighbour.role == INITIATOR:
        newest = rotation.parse_behind(message)
        if newest >= 0 and mine:
            return _skip(node, ours, newest)
    else:
        proposed = rotation.parse_propose(message)
        if proposed is not None:
            return _answer(node, ours if mine else None, neighbour, proposed, epoch)
    if mine:
        ours.take(message)
    else:
        node.count("rotation")
    return ours


def _skip(node: "Node", ours: Rotation, newest: int) -> Rotation:
    """The module has agreed on `newest` before, and the pack's power went before it had: that epoch is skipped."""
    relation = ours.neighbour.relation
    if relation is None or ours.committed or not 0 <= newest - relation.epoch <= rotation.EPOCH_JUMP:
        node.count("rotation")
        return ours
    if newest < ours.epoch:
        return ours  # an answer to what was said before
    ours.wipe()
    following = Rotation(node, ours.neighbour, relation.epoch, newest + 1, node.env.urandom(SALT_LENGTH))
    # No time is gained by it: a module that is always ahead ends in the timeout as a silent one does.
    following._since_ms = ours._since_ms
    return following


def _answer(
    node: "Node", ours: "Rotation | None", neighbour: "Neighbour", proposed: "tuple[int, bytes, bytes]", epoch: int
) -> "Rotation | None":
    """The module's part: a new one, unless it is the one under way that is proposed again."""
    relation = neighbour.relation
    if relation is None or node.endpoint.is_staged(neighbour):
        node.count("rotation")
        return ours
    if ours is not None and ours.is_about(proposed[0], proposed[1], proposed[2]):
        ours.repeat()
        return ours
    if proposed[0] <= relation.epoch:
        neighbour.seal(ROTATION_FROM_MODULE, rotation.behind(relation.epoch))
        return ours
    if ours is not None:
        ours.wipe()
    return Rotation(node, neighbour, epoch, proposed[0], proposed[1], proposed[2])
