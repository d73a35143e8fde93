"""A relationship as a node keeps it: the root of its epoch, the one before it while that lives, and its terms."""

from struct import pack, unpack_from

from packtrust._compat import const
from packtrust.crypto import wipe
from packtrust.errors import StorageError
from packtrust.keys import SIDE_A, Relationship, fingerprint, lct_tag, terms
from packtrust_node.store import newer_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer
    from packtrust.package import KeyPackage
    from packtrust_node.neighbour import Bus
    from packtrust_node.node import Node

PREFIX = "rel-"
SALT_PREFIX = "salt-"

_VERSION = const(1)
_HEAD = ">BIIBBBHIII"
_HEAD_LENGTH = const(26)
_ROOT_LENGTH = const(32)


def record_name(tag: bytes) -> str:
    """Name of the store's record of the relationship with this `lct_tag`."""
    name = PREFIX
    for byte in tag:
        name += "%02x" % byte  # a digit taken out of a string is kept for ever: MicroPython interns it
    return name


class Relation:
    """One relationship; `root` and `lct_half` are secret.

    counter        of the package that brought this epoch: of two relations for one node byte the higher one holds
    node           node byte of the link
    unique_id      of the module at the time of the commit (pack's side), else 0
    previous       (epoch, root) of the epoch before, until a record under the new one has come; or None
    """

    def __init__(
        self,
        counter: int,
        epoch: int,
        role: int,
        side: int,
        node: int,
        scope: int,
        max_records: int,
        max_age_s: int,
        unique_id: int,
        root: "Buffer",
        peer_public: "Buffer",
        lct_id: str,
        component_a: str,
        component_b: str,
        lct_half: "Buffer" = b"",
        previous: "tuple[int, bytearray] | None" = None,
    ) -> None:
        self.counter = counter
        self.epoch = epoch
        self.role = role
        self.side = side
        self.node = node
        self.scope = scope
        self.max_records, self.max_age_s = terms(max_records, max_age_s)
        self.unique_id = unique_id
        self.root = bytearray(root)
        self.peer_public = bytes(peer_public)
        self.lct_id = lct_id
        self.component_a = component_a
        self.component_b = component_b
        self.lct_half = bytearray(lct_half)
        self.previous = previous
        self.tag = lct_tag(lct_id)
        self.peer_fingerprint = fingerprint(peer_public)

    def __repr__(self) -> str:
        return "<Relation lct %s node 0x%02x epoch %d>" % (self.lct_id, self.node, self.epoch)

    def same_ends(self, package: "KeyPackage") -> bool:
        """Whether a package for this LCT is about the very same two ends and link."""
        return (
            self.role == package.role
            and self.side == package.side
            and self.node == package.node
            and self.peer_public == package.peer_public
            and self.component_a == package.component_a
            and self.component_b == package.component_b
        )

    def relationship(self, own_fingerprint: bytes) -> Relationship:
        """What keys are derived for."""
        return make_relationship(
            self.component_a,
            self.component_b,
            self.lct_id,
            self.side,
            own_fingerprint,
            self.peer_fingerprint,
        )

    def keep_epoch_in_use(self, old: "Relation", epoch_in_use: int) -> None:
        """Take over from `old` the root to fall back to: of the epoch whose session runs, else of the oldest one."""
        kept = (old.epoch, old.root)
        if old.previous is not None and epoch_in_use != old.epoch:
            kept = old.previous
        self.previous = (kept[0], bytearray(kept[1]))

    def drop_previous(self) -> None:
        """The new epoch has proved itself."""
        if self.previous is not None:
            wipe(self.previous[1])
            self.previous = None

    def wipe(self) -> None:
        """Destroy what is secret."""
        self.drop_previous()
        wipe(self.root)
        wipe(self.lct_half)

    def terms(self) -> bytearray:
        """What `Terms` keep."""
        flags = KEYED | self.side << SIDE_BIT
        if self.previous is not None:
            flags |= TWO_EPOCHS
        return bytearray(pack(_TERMS, self.tag, self.epoch, self.max_records, self.max_age_s, self.scope, flags))

    def encode(self) -> bytearray:
        """The record. The caller wipes it."""
        out = bytearray(
            pack(
                _HEAD,
                _VERSION,
                self.counter,
                self.epoch,
                self.role,
                self.side,
                self.node,
                self.scope,
                self.max_records,
                self.max_age_s,
                self.unique_id,
            )
        )
        out.extend(self.root)
        out.extend(self.peer_public)
        for part in (
            self.lct_id.encode(),
            self.component_a.encode(),
            self.component_b.encode(),
            self.lct_half,
        ):
            out.append(len(part))
            out.extend(part)
        if self.previous is not None:
            out.extend(pack(">I", self.previous[0]))
            out.extend(self.previous[1])
        return out


# What stays in RAM of a relationship, at the beginning of `Terms.row`; no secret.
_TERMS = ">8sIIIHB"  # lct_tag, epoch, max_records, max_age_s, scope, flags
TERMS_LENGTH = const(23)
EPOCH_AT = const(8)
MAX_RECORDS_AT = const(12)
MAX_AGE_S_AT = const(16)
SCOPE_AT = const(20)  # u16
FLAGS_AT = const(22)
# In the flags.
KEYED = const(1)
SIDE_BIT = const(1)  # place of the bit that is our side, SIDE_A or SIDE_B
TWO_EPOCHS = const(4)  # the epoch before is still there


class Terms:
    """The terms of a relationship, packed: of 32 of them, a pack's RAM holds 23 bytes each. All else, and what has a
    name in Relation and none here, is read from the store when it is asked for, by `full()` several things at once;
    StorageError if the store fails.

    row    begins with the terms, as laid out above; all zero without keys
    _bus   whose `env` has the store: the Bus of the neighbour that has taken the terms, the node before that

    Whoever wants to compare them later keeps tag and epoch: a neighbour's terms change with its next epoch.
    """

    def __init__(self, bus: "Bus | Node", node: int, row: bytearray) -> None:
        self.node = node
        self.row = row
        self._bus = bus

    def __repr__(self) -> str:
        return "<Terms node 0x%02x epoch %d>" % (self.node, self.epoch)

    @property
    def keyed(self) -> bool:
        """Whether there are keys."""
        return self.row[FLAGS_AT] != 0

    @property
    def tag(self) -> bytes:
        """The `lct_tag`."""
        return bytes(self.row[:EPOCH_AT])

    @property
    def epoch(self) -> int:
        """The newest one."""
        return self.term(EPOCH_AT)

    @property
    def two_epochs(self) -> bool:
        """Whether the epoch before is still there."""
        return self.row[FLAGS_AT] & TWO_EPOCHS != 0

    def term(self, at: int) -> int:
        """The u32 at EPOCH_AT, MAX_RECORDS_AT or MAX_AGE_S_AT."""
        return int(unpack_from(">I", self.row, at)[0])

    def full(self) -> Relation:
        """The whole relationship, the caller's own: wipe it after use."""
        raw = self._bus.env.store.read(record_name(self.tag))
        if raw is None:
            raise StorageError("the record of a relationship is gone: claim and provision the node again")
        found = decode(raw)
        wipe(raw)
        if found is None:
            raise StorageError("the record of a relationship is malformed: claim and provision the node again")
        return found

    def keys_of(self, own_fingerprint: bytes, epoch: int) -> "tuple[bytearray, Relationship] | None":
        """(root, relationship) of one of its epochs, for a channel, which wipes the root; None if it has none such."""
        try:
            found = self.full()
        except StorageError:
            return None  # the store has told its owner
        root = None
        if found.epoch == epoch:
            root = bytearray(found.root)
        elif found.previous is not None and found.previous[0] == epoch:
            root = bytearray(found.previous[1])
        found.wipe()
        return None if root is None else (root, found.relationship(own_fingerprint))

    if TYPE_CHECKING:
        peer_public: bytes
        peer_fingerprint: bytes
        previous: "tuple[int, bytearray] | None"
        root: bytearray
        lct_half: bytearray
        lct_id: str
        unique_id: int
        max_records: int
        max_age_s: int
        scope: int
        side: int
        component_a: str
        component_b: str

        def same_ends(self, package: "KeyPackage") -> bool:
            """As Relation.same_ends."""

    else:

        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return getattr(self.full(), name)


def make_relationship(
    component_a: str,
    component_b: str,
    lct_id: str,
    side: int,
    own_fingerprint: bytes,
    peer_fingerprint: bytes,
) -> Relationship:
    """The keys.Relationship of the two ends; `side` is ours."""
    if side == SIDE_A:
        return Relationship(component_a, component_b, lct_id, own_fingerprint, peer_fingerprint)
    return Relationship(component_a, component_b, lct_id, peer_fingerprint, own_fingerprint)


def decode(raw: "Buffer") -> "Relation | None":
    """The Relation in a record, None if it is malformed. StorageError if newer firmware wrote it."""
    if len(raw) and raw[0] > _VERSION:
        raise newer_error("a record of kind relation", raw[0])
    if len(raw) < _HEAD_LENGTH + 2 * _ROOT_LENGTH or raw[0] != _VERSION:
        return None
    head = unpack_from(_HEAD, raw, 0)
    at = _HEAD_LENGTH + 2 * _ROOT_LENGTH
    parts = []
    for _ in range(4):
        if at >= len(raw) or at + 1 + raw[at] > len(raw):
            return None
        parts.append(bytes(raw[at + 1 : at + 1 + raw[at]]))
        at += 1 + raw[at]
    previous = None
    if len(raw) == at + 4 + _ROOT_LENGTH:
        previous = (int(unpack_from(">I", raw, at)[0]), bytearray(raw[at + 4 :]))
    elif len(raw) != at:
        return None
    try:
        names = [part.decode() for part in parts[:3]]
    except UnicodeError:
        return None
    return Relation(
        head[1],
        head[2],
        head[3],
        head[4],
        head[5],
        head[6],
        head[7],
        head[8],
        head[9],
        raw[_HEAD_LENGTH : _HEAD_LENGTH + _ROOT_LENGTH],
        raw[_HEAD_LENGTH + _ROOT_LENGTH : _HEAD_LENGTH + 2 * _ROOT_LENGTH],
        names[0],
        names[1],
        names[2],
        parts[3],
        previous,
    )
