"""What pack and module have in common: identity, relationships, provisioning, counters, and that nothing raises out."""

from struct import pack, unpack_from

from packtrust import provision
from packtrust._compat import const
from packtrust.arbitration import ENCRYPTED
from packtrust.channel import ESTABLISHED, OPENED, REFUSED
from packtrust.crypto import wipe
from packtrust.errors import PacktrustError, StorageError
from packtrust_node import identity as identities
from packtrust_node import relation as relations
from packtrust_node.endpoint import Endpoint, Refusal
from packtrust_node.env import NoEntropy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from packtrust._typing import Buffer, FrameLike
    from packtrust.channel import Event
    from packtrust.package import KeyPackage
    from packtrust_node.env import Env
    from packtrust_node.neighbour import Neighbour

_BOOT_RECORD = "boot"
_RETRY_MS = const(10)

PORT_MODULE_BUS = const(1)  # of a pack; a module has port 0 only


class Node:
    """A node without its job: PackNode and ModuleNode add that.

    env      packtrust_node.env.Env
    config   the board's node.json: unique_id (u32), serial, profile, and what the job needs

    counters   what was refused, by reason; no secrets
    """

    device_role = 0

    def __init__(self, env: "Env", config: "dict[str, object]") -> None:
        self.env = env
        self.config = config
        self.unique_id = config["unique_id"]
        self.serial = str(config.get("serial", ""))[:64]
        self.profile = str(config.get("profile", ""))[:64]
        self.counters = {"internal": 0}  # type: dict[str, int]
        self.identity = None  # type: identities.Identity | None
        self.boot_counter = 0
        self.relations = {}  # type: dict[bytes, relations.Relation]
        self.endpoint = Endpoint(self)

    # -- the node interface --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Read what is stored, make what is missing, and begin."""
        self._count_boot()
        self._load_identity()
        self._load_relations()
        self.on_start()

    def on_frame(self, port: int, frame: "FrameLike") -> None:
        """Take a frame of a port. Never raises."""
        if getattr(frame, "is_remote_frame", False):
            return
        if frame.is_fd and not frame.arbitration_id & ENCRYPTED:
            return  # only records go in CAN FD frames
        try:
            self.take_frame(port, frame)
        except Exception as error:  # a bug of ours, and the loop must go on
            self._internal(error)

    def on_tick(self) -> int:
        """Do what is due; the ms until the next call is wanted. Never raises."""
        try:
            return self.tick()
        except Exception as error:  # a bug of ours, and the loop must go on
            self._internal(error)
            return _RETRY_MS

    def claim_code(self) -> bytes:
        """The claim code, 16 bytes, b"" once it is burnt: for the console, and for it alone."""
        return b"" if self.identity is None else bytes(self.identity.claim_code)

    def reset(self) -> None:
        """The console's reset: nobody's node again, with a new claim code; key and package counter stay."""
        try:
            if self.identity is None:
                self.env.store.erase()
                self._load_identity()
            else:
                self.forget(self.identity.counter)
        except (PacktrustError, OSError) as error:
            self.count("storage")
            self.env.log("reset failed: %s" % error)
            return
        self.env.log("reset: no owner, no keys, new claim code")

    def hears(self) -> "tuple[int, ...] | None":
        """Node bytes this node listens to, for the controller's filters; None: all."""
        return None

    def figures(self) -> "Iterator[tuple[str, object]]":
        """Name and value of each figure for the console; no secrets. A list of (key, function) stands for a dict."""
        yield "claimed", self.identity is not None and self.identity.claimed
        yield "boot_counter", self.boot_counter
        yield "package_counter", 0 if self.identity is None else self.identity.counter
        yield "relations", len(self.relations)
        yield "staged", self.endpoint.staged
        yield "counters", self.counters

    def stats(self) -> "dict[str, object]":
        """All figures at once; for hosts, which have the room."""
        found = {}
        for key, value in self.figures():
            if isinstance(value, list):
                value = {name: make() for name, make in value}
            found[key] = dict(value) if isinstance(value, dict) else value
        return found

    # -- what a job adds -----------------------------------------------------------------------------------------------

    own_node = 0

    def on_start(self) -> None:
        """Begin the job."""

    def take_frame(self, port: int, frame: "FrameLike") -> None:
        """Take a classic data frame."""
        raise NotImplementedError

    def tick(self) -> int:
        """Do what is due; the ms until the next call is wanted."""
        raise NotImplementedError

    def neighbour(self, node: int) -> "Neighbour | None":
        """The neighbour a package for the link `node` is about."""
        raise NotImplementedError

    def unique_id_of(self, node: int) -> int:
        """Unique id of the module behind a link, 0 if the link has none."""
        return 0

    def refusal_of(self, package: "KeyPackage") -> int:
        """Why this node cannot have such a relationship (provision.REFUSED_*), 0 if it can."""
        raise NotImplementedError

    def reply(self, payload: "Buffer") -> None:
        """Send a provisioning message towards the app."""
        raise NotImplementedError

    def extra(self, kind: int, body: bytes) -> "tuple[int, bytes]":
        """(kind, body) of the answer to a message only one kind of node knows. Raises Refusal."""
        raise Refusal(provision.REFUSED_UNKNOWN)

    def keyed(self, neighbour: "Neighbour") -> None:
        """New keys with a neighbour are in force."""

    def let_go(self) -> None:
        """The keys are about to be wiped: say what must still be said under them."""

    def unkeyed(self) -> None:
        """All relationships are gone."""

    # -- counters ------------------------------------------------------------------------------------------------------

    def count(self, what: str) -> None:
        """Count something refused or failed."""
        self.counters[what] = self.counters.get(what, 0) + 1

    def _internal(self, error: Exception) -> None:
        if isinstance(error, NoEntropy):
            if not self.counters.get("entropy"):
                self.env.log("no session: %s" % error)
            self.count("entropy")
            return
        name = type(error).__name__
        self.count("internal")
        self.count("internal-" + name)
        # The class name and no more: a message might quote what it is about.
        self.env.log("internal error %s: please report it" % name)

    def observe(self, neighbour: "Neighbour", event: "Event") -> bool:
        """Book-keeping every event of a channel needs. True for an opened record, which the caller then obeys."""
        if event.kind == REFUSED:
            self.count(event.reason)
            return False
        relation = neighbour.relation
        if event.kind == ESTABLISHED:
            neighbour.connecting = False
            self.count("sessions")
            self.env.log("session with node 0x%02x, epoch %d" % (neighbour.node, event.epoch))
            return False
        if event.kind != OPENED:
            return False
        neighbour.last_authentic_ms = self.env.now_ms()
        if relation is not None and relation.previous is not None and event.epoch == relation.epoch:
            relation.drop_previous()
            try:
                self._write_relation(relation)
            except StorageError as error:
                self.count("storage")
                self.env.log("storage: %s" % error)
        return True

    # -- stored state --------------------------------------------------------------------------------------------------

    def _count_boot(self) -> None:
        store = self.env.store
        try:
            raw = store.read(_BOOT_RECORD)
            if raw is not None and len(raw) == 4:
                self.boot_counter = (unpack_from(">I", raw, 0)[0] + 1) & 0xFFFFFFFF
            else:
                self.boot_counter = 1
            self.env.mix(self.boot_counter)
            store.write(_BOOT_RECORD, pack(">I", self.boot_counter))
        except PacktrustError as error:
            # Fresh nonces keep sessions apart even so.
            self.count("storage")
            self.env.log("boot counter: %s" % error)

    def _load_identity(self) -> None:
        store = self.env.store
        try:
            raw = store.read(identities.RECORD)
            if raw is not None:
                self.identity = identities.decode(raw)
                wipe(raw)
                if self.identity is None:
                    raise StorageError("the identity record is of no known version: reset the node")
            else:
                made = identities.make(self.env.urandom)
                self.write_identity(made)
        except PacktrustError as error:
            self.count("identity")
            self.env.log("no identity: %s" % error)

    def write_identity(self, identity: identities.Identity) -> None:
        """Store an identity, then use it. Raises StorageError, and the old one stays."""
        record = identity.encode()
        try:
            self.env.store.write(identities.RECORD, record)
        finally:
            wipe(record)
        old = self.identity
        self.identity = identity
        if old is not None and old is not identity:
            wipe(old.private)
            wipe(old.claim_code)

    def _write_relation(self, relation: relations.Relation) -> None:
        record = relation.encode()
        try:
            self.env.store.write(relations.record_name(relation.tag), record)
        finally:
            wipe(record)

    def _load_relations(self) -> None:
        store = self.env.store
        owned = self.identity is not None and self.identity.claimed
        newest = {}  # type: dict[int, relations.Relation]
        try:
            for name in store.names():
                if not name.startswith(relations.PREFIX):
                    continue
                if not owned:
                    store.remove(name)  # a release was cut off by a power loss
                    continue
                raw = store.read(name)
                found = None if raw is None else relations.decode(raw)
                if raw is not None:
                    wipe(raw)
                if found is None:
                    self.count("storage")
                    continue
                other = newest.get(found.node)
                if other is not None:
                    # The record of a relationship that was replaced, left by a power loss.
                    loser = other if found.counter > other.counter else found
                    store.remove(relations.record_name(loser.tag))
                    loser.wipe()
                    if loser is found:
                        continue
                newest[found.node] = found
        except PacktrustError as error:
            self.count("storage")
            self.env.log("relationships: %s" % error)
        for found in newest.values():
            self.relations[found.tag] = found

    def install(self, relation: relations.Relation) -> None:
        """Use a relationship that is stored already; one with the same link, or its older epoch, gives way."""
        for tag, other in list(self.relations.items()):
            if other.node == relation.node and tag != relation.tag:
                del self.relations[tag]
                try:
                    self.env.store.remove(relations.record_name(tag))
                except StorageError as error:
                    self.count("storage")
                    self.env.log("storage: %s" % error)
        self.relations[relation.tag] = relation
        neighbour = self.neighbour(relation.node)
        if neighbour is not None and self.identity is not None:
            neighbour.key(relation, self.identity.fingerprint, self.boot_counter)
            self.keyed(neighbour)

    def forget(self, counter: int) -> None:
        """Be nobody's: the pin goes first, then the relationships. Raises StorageError or CryptoError (no entropy)."""
        if self.identity is None:
            return
        code = identities.fresh_code(self.env.urandom)
        self.let_go()
        self.write_identity(self.identity.released(code, counter))
        self.endpoint.clear()
        store = self.env.store
        for name in store.names():
            if name.startswith(relations.PREFIX):
                store.remove(name)
        self.relations = {}
        self.count("released")
        self.env.log("released: no owner, no keys, new claim code")
        self.unkeyed()
