"""What pack and module have in common: identity, relationships, provisioning, counters, and that nothing raises out."""

from packtrust import provision
from packtrust._compat import const
from packtrust.arbitration import ENCRYPTED, base_of
from packtrust.channel import ESTABLISHED, OPENED
from packtrust.crypto import wipe
from packtrust.errors import PacktrustError, StorageError
from packtrust.messages.bases import ROTATION_FROM_MODULE, ROTATION_TO_MODULE
from packtrust.workspace import REFUSED
from packtrust_node import boot_record, ondemand
from packtrust_node import identity as identities
from packtrust_node import relation as relations
from packtrust_node.env import NoEntropy
from packtrust_node.guard import Guard
from packtrust_node.post import Post
from packtrust_node.usage import RECORD as USAGE
from packtrust_node.usage import Usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from packtrust._typing import Buffer, FrameLike
    from packtrust.channel import Event
    from packtrust.isotp import Pieces
    from packtrust.package import KeyPackage
    from packtrust_node.endpoint import Endpoint
    from packtrust_node.env import Env
    from packtrust_node.neighbour import Neighbour
    from packtrust_node.opening import Opened
    from packtrust_node.staging import Staged  # noqa: F401 - in a type comment

# Evidence, beside the store's own: see Node.evidence.
ROLLED_BACK = "store-rollback"  # the identity is older than what else is stored
FACTORY = "store-factory"  # no identity, though the node has had one

# Modules whose classes what is staged is of.
_OF_STAGED = ("staging", "pairing")

_RETRY_MS = const(10)
_FINISHED_MS = const(30000)
_SETTLE_MS = const(1000)

PORT_MODULE_BUS = const(1)  # of a pack; a module has port 0 only


class Node:
    """A node without its job: PackNode and ModuleNode add that.

    env      packtrust_node.env.Env
    config   the board's node.json: unique_id (u32), serial, profile, and what the job needs

    finished   (lct_tag, epoch, receipt key, kind of message, ms since the node's start) of each package committed or
               aborted a moment ago: a COMMIT or ABORT whose answer was lost is answered again. Here, and of no class of
               its own, so that the endpoint's code need not stay for it
    counters   what was refused, by reason; no secrets
    stirred    a frame has changed something: the tick may be wanted sooner than it said
    ended_ms   since when there may be copies of ended keys in the heap (see scrub), None: there are none
    """

    device_role = 0
    without_identity = provision.REFUSED_ENTROPY  # why there is none, if there is none

    def __init__(self, env: "Env", config: "dict[str, object]") -> None:
        self.env = env
        self.config = config
        self.unique_id = config["unique_id"]
        self.serial = str(config.get("serial", ""))[:64]
        self.profile = str(config.get("profile", ""))[:64]
        self.counters = {"internal": 0}  # type: dict[str, int]
        self.identity = None  # type: identities.Identity | None
        self.boot_counter = 0
        self.relations = {}  # type: dict[int, relations.Terms]  # by node byte; the neighbour, where there is one
        self._endpoint = None  # type: Endpoint | None  # while it is needed
        self._asked_ms = 0  # when it was asked for last
        self._without = ()  # type: tuple[str, ...]  # modules there were before it
        self._staged = None  # type: list[Staged] | None  # of the endpoint that gave way to the opening of a package
        self.finished = []  # type: list[tuple[bytes, int, bytearray, int, int]]
        self.notes = []  # type: list[tuple[str, int, int, int, bytes]]  # what the message at hand has done, for `note`
        self.answer = None  # type: Buffer | Pieces | None  # to it, once that is written
        self._committed = None  # type: tuple[str, relations.Terms] | None  # (kind, what is stored and not in use yet)
        self._settle_ms = 0  # when what could not be settled is tried again
        self.opened = None  # type: Opened | int | None  # the package at hand, from here to the endpoint
        self.usage = Usage(self)
        self.guard = Guard(self)
        self._post = Post(env)
        self.stirred = False
        self.took_long = False  # a message: the loop looks after what has waited meanwhile
        self.ended_ms = None  # type: int | None

    # -- the node interface --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Read what is stored, make what is missing, and begin."""
        self.env.store.on_evidence = self.evidence
        last_boot = self._read_boot()
        self._load_identity(last_boot)
        self._load_relations()
        if last_boot is not None:
            self._write_boot(last_boot[2])
        self.guard.start()
        self.on_start()

    def on_frame(self, port: int, frame: "FrameLike") -> None:
        """Take a frame of a port. Never raises."""
        try:
            self.receive(port, frame)
        except Exception as error:  # a bug of ours, and the loop must go on
            self.failed(error)

    def receive(self, port: int, frame: "FrameLike") -> None:
        """The same, for who tells `failed` what it raises: with an `except` this would take heap for each call."""
        # Only records go in CAN FD frames.
        if not frame.is_remote_frame and (frame.arbitration_id & ENCRYPTED or not frame.is_fd):
            self.take_frame(port, frame)

    def fell_behind(self, now_ms: int) -> None:
        """A bus has brought frames for some time without a pause."""
        if self.relations:
            self._post.behind_ms = now_ms

    def on_tick(self) -> int:
        """Do what is due; the ms until the next call is wanted. Never raises."""
        try:
            self.guard.tick(self.env.now_ms())
            return self.tick()
        except Exception as error:  # a bug of ours, and the loop must go on
            self.failed(error)
            return _RETRY_MS

    def claim_code(self) -> bytes:
        """The claim code, 16 bytes, b"" once it is burnt: for the console, and for it alone."""
        return b"" if self.identity is None else bytes(self.identity.claim_code)

    def reset(self) -> None:
        """The console's reset: nobody's node again, with a new claim code; key and package counter stay."""
        try:
            if self.identity is None:
                self.env.store.erase()
                self.boot_counter = 1
                self._load_identity((0, 0, 0))
                self._write_boot(0)
            else:
                self.forget(self.identity.counter, "reset")
                if not self.boot_counter:
                    self.env.store.remove(boot_record.RECORD)  # of no use as it is
        except (PacktrustError, OSError) as error:
            self.count("storage")
            self.env.log("reset failed: %s" % error)
            return
        self.env.log("reset: no owner, no keys, new claim code")

    def hears(self) -> "tuple[int, ...] | None":
        """Node bytes this node listens to, for the controller's filters; None: all."""
        return None

    def spare_ms(self, now_ms: int) -> int:
        """How long the node may do something else before others miss what it says."""
        return 1000

    def figures(self) -> "Iterator[tuple[str, object]]":
        """Name and value of each figure for the console; no secrets. A list of (key, function) stands for a dict."""
        yield "claimed", self.identity is not None and self.identity.claimed
        yield "boot_counter", self.boot_counter
        yield "package_counter", 0 if self.identity is None else self.identity.counter
        yield "relations", len(self.relations)
        yield "staged", 0 if self._endpoint is None else self._endpoint.staged
        yield "stored", self.env.store.written
        yield "interference", self.guard.score
        yield "signs", self.guard.signs
        yield "audit_entries", self.guard.entries
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

    def reply(self, payload: "Buffer | Pieces") -> None:
        """Send a provisioning message towards the app."""
        raise NotImplementedError

    def sends(self, base: int) -> bool:
        """Whether frames of this base, with our node byte, come from us alone."""
        return False

    def tell(self, interference: "Buffer") -> bool:
        """Send the body of INTERFERENCE to whom it concerns; False where there is no session."""
        return False

    def links(self) -> "list[Neighbour]":
        """All neighbours."""
        return []

    def group_key(self) -> "tuple[int, Buffer]":
        """How many group keys were drawn since boot, and the present one; secret."""
        return 0, b""

    def extra(self, kind: int, body: bytes) -> "tuple[int, bytes | Pieces]":
        """(kind, body) of the answer to a message only one kind of node knows. Raises Refusal."""
        from packtrust_node.endpoint import Refusal

        raise Refusal(provision.REFUSED_UNKNOWN)

    def keyed(self, neighbour: "Neighbour") -> None:
        """New keys with a neighbour are in force."""

    def stale(self, neighbour: "Neighbour") -> None:
        """A neighbour's record is authentic but cites nothing new: to go on it must hear something of us."""

    def let_go(self) -> None:
        """The keys are about to be wiped: say what must still be said under them."""

    def unkeyed(self) -> None:
        """All relationships are gone."""

    def keys_ended(self) -> None:
        """Keys have ended: have the loop overwrite what is left of them in the heap."""
        if self.ended_ms is None:
            self.ended_ms = self.env.now_ms()

    # -- provisioning --------------------------------------------------------------------------------------------------

    @property
    def endpoint(self) -> "Endpoint":
        """The device's side of provisioning, in RAM while it has something to do (see ondemand)."""
        self._asked_ms = self.env.now_ms()
        ondemand.use(self._asked_ms)
        if self._endpoint is None:
            self._without = ondemand.mark()
            from packtrust_node.endpoint import Endpoint

            ondemand.hold()
            self._endpoint = Endpoint(self, self._staged or [])
            self._staged = None
        return self._endpoint

    def take_message(self, payload: bytes) -> None:
        """Take a provisioning message addressed to this node, as `post.target_of` knows it."""
        began_ms = self.env.now_ms()
        self.opened = None
        if (
            payload[1] == provision.PACKAGE
            and ondemand.unloads()
            and self.identity is not None
            and self._put_away(True)
        ):
            ondemand.use(self.env.now_ms())
            # No variable of this call: it shall not outlive the endpoint's use of it.
            self.opened = self.open_package(memoryview(payload)[provision.HEAD :])
        is_proved = False
        try:
            is_proved = self.endpoint.take(payload)
            self.settle()
        finally:
            self.opened = None
            if not is_proved:
                self._post.spent(began_ms)
            self.took_long = True

    def settle(self) -> None:
        """What a message has done is noted and put to use, and then it is answered.

        A small heap has no room for that beside the endpoint's code. Where there is none all the same, it is done again
        later, and no answer goes out: whoever asks again is answered then.
        """
        answer = self.answer
        self.answer = None
        notes = self.notes
        if notes or self._committed is not None:
            self._settle_ms = self.env.now_ms() + _SETTLE_MS
            if ondemand.unloads():
                self._put_away(True)
            while notes:
                self.note(*notes[0])
                notes.pop(0)
            if self._committed is not None:
                self._take_up(self._committed[0], self._committed[1])
                self._committed = None
        if answer is not None:
            self.reply(answer)

    def open_package(self, body: "Buffer") -> "Opened | int":
        """As opening.open_package."""
        from packtrust import package  # noqa: F401 - what comes out is of its classes, which stay

        self.env.store.rest()
        if ondemand.unloads():
            self.env.workspace.make_room()  # the package's key takes the place of another one
        before = ondemand.mark()
        try:
            from packtrust_node.opening import open_package

            return open_package(self.identity, body)
        finally:
            ondemand.back_to(before)

    def _put_away(self, for_a_while: bool = False) -> bool:
        """No endpoint, nor its code; False if it has something to do.

        for_a_while   the caller asks for an endpoint again: what is staged waits for it, and so does the code of that
        """
        endpoint = self._endpoint
        if endpoint is not None:
            if not endpoint.is_idle:
                if not for_a_while:
                    return False
                self._staged = endpoint.give()
                if self._staged is None:
                    return False
            endpoint.rest()
            self._endpoint = None
            ondemand.let_go()
            self.keys_ended()
            ondemand.back_to(self._without, _OF_STAGED if self._staged else ())
        return True

    def tick_seldom(self, now_ms: int) -> None:
        """Call every 10..100 ms: what is there on demand does what is due, or goes."""
        counted = self.usage.tick(now_ms)
        if self._staged or (counted and self.usage.is_due(now_ms)):
            endpoint = self.endpoint
        else:
            endpoint = self._endpoint
        if endpoint is not None:
            endpoint.tick(now_ms, counted)
            if now_ms - self._asked_ms >= ondemand.IDLE_MS:
                self._put_away()
        if (self.notes or self._committed is not None) and now_ms - self._settle_ms >= 0:
            self.settle()
        finished = self.finished
        while finished and now_ms - finished[0][4] >= _FINISHED_MS:
            wipe(finished.pop(0)[2])
        if self.env.store.rest():
            self.keys_ended()
        ondemand.tick(now_ms)

    # -- counters ------------------------------------------------------------------------------------------------------

    def count(self, what: str) -> None:
        """Count something refused or failed."""
        self.counters[what] = self.counters.get(what, 0) + 1

    def note(self, kind: str, link: int = 0, epoch: int = 0, counter: int = 0, key: "Buffer" = b"") -> None:
        """Write a key event into the audit log (packtrust.audit); `key` is named there by its id alone."""
        before = ondemand.mark()
        try:
            from packtrust_node import audit_log

            audit_log.note(self, kind, link, epoch, counter, key)
        except PacktrustError as error:
            self.guard.failed(error)
        finally:
            ondemand.back_to(before)

    def failed(self, error: Exception) -> None:
        """Count and log an exception out of this node's own code."""
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
            self.count("own-id" if self.sends(base_of(event.arbitration_id)) else event.reason)
            if event.reason == "stale":
                self.stale(neighbour)
            return False
        self.stirred = True
        if event.kind == ESTABLISHED:
            if neighbour.spent:
                neighbour.spent = False
            self.keys_ended()
            self.count("sessions")
            self.env.log("session with node 0x%02x, epoch %d" % (neighbour.node, event.epoch))
            return False
        if event.kind != OPENED:
            return False
        neighbour.heard_ms = self.env.now_ms()
        relation = neighbour.relation
        if relation is not None and relation.two_epochs and event.epoch == relation.epoch:
            self._drop_previous(relation)
        base = event.arbitration_id >> 18
        if base == ROTATION_FROM_MODULE or base == ROTATION_TO_MODULE:  # noqa: PLR1714 - no tuple for each record
            self.endpoint.on_rotation(neighbour, base, event)
            return False
        return True

    def _drop_previous(self, kept: "relations.Terms") -> None:
        """The new epoch has proved itself: the one before it is deleted."""
        kept.row[relations.FLAGS_AT] &= ~relations.TWO_EPOCHS
        try:
            relation = kept.full()
            if relation.previous is not None:
                self.note("epoch-end", relation.node, relation.previous[0])
            relation.drop_previous()
            self.keys_ended()
            try:
                self._write_relation(relation, True)
            finally:
                relation.wipe()
        except StorageError as error:
            self._storage_error("storage", error)

    # -- stored state --------------------------------------------------------------------------------------------------

    def evidence(self, what: str) -> None:
        """The store holds what no power cut and no fault of ours leaves: somebody was at the flash, or it is worn.

        what   store.NOT_AUTHENTIC, store.LOST, ROLLED_BACK or FACTORY; counted under that name
        """
        self.count(what)
        self.env.log("storage evidence: %s" % what)

    def _read_boot(self) -> "tuple[int, int, int] | None":
        """Version, counter and package counter of the last boot, zeros at the first; None if that cannot be read."""
        try:
            raw = self.env.store.read(boot_record.RECORD)
            last = (0, 0, 0) if raw is None else boot_record.decode(raw)
        except PacktrustError as error:
            # Fresh nonces keep sessions apart even so.
            self.count("storage")
            self.env.log("boot counter: %s" % error)
            return None
        # It stays at its end: fresh nonces, and a true source's entropy, keep sessions apart even then.
        self.boot_counter = min(last[1] + 1, 0xFFFFFFFF)
        self.env.mix(self.boot_counter)
        return last

    def _write_boot(self, package_counter: int) -> None:
        # Out of service the node keeps what it knew, or the next boot would take what this one refused.
        counter = package_counter if self.identity is None else self.identity.counter
        try:
            self.env.store.write(boot_record.RECORD, boot_record.encode(self.boot_counter, counter))
        except PacktrustError as error:
            self.count("storage")
            self.env.log("boot counter: %s" % error)

    def _load_identity(self, last_boot: "tuple[int, int, int] | None") -> None:
        store = self.env.store
        try:
            raw = store.read(identities.RECORD)
            if raw is not None:
                found = identities.decode(raw)
                wipe(raw)
                if found is None:
                    raise StorageError("the identity record is malformed: reset the node")
                if last_boot is not None and found.counter < last_boot[2]:
                    wipe(found.private)
                    self.evidence(ROLLED_BACK)
                    raise StorageError("the identity record is older than the node: reset the node and claim it again")
                self.identity = found
            else:
                # The identity is stored before the first boot is counted (version 1 of the boot record: after it).
                known = last_boot is None or last_boot[0] > 1
                if known or [name for name in store.names() if name.startswith(relations.PREFIX)]:
                    self.evidence(FACTORY)
                    raise StorageError("the identity record is gone but others are left: reset the node")
                self.write_identity(identities.make(self.env.urandom))
        except PacktrustError as error:
            self._no_identity(error)

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
        self.keys_ended()

    def _write_relation(self, relation: relations.Relation, purge: bool = False) -> None:
        record = relation.encode()
        try:
            self.env.store.write(relations.record_name(relation.tag), record, purge)
        finally:
            wipe(record)

    def _no_identity(self, error: PacktrustError) -> None:
        if isinstance(error, StorageError):
            self.without_identity = provision.REFUSED_STORAGE
        self.count("identity")
        self.env.log("no identity: %s" % error)

    def _load_relations(self) -> None:
        if self.identity is None:
            return  # what belongs to it stays as it is
        newest = {}  # type: dict[int, tuple[int, relations.Terms]]  # with the counters of their packages
        try:
            for name in self.env.store.names():
                if name.startswith(relations.PREFIX):
                    self._load_relation(name, newest)
                elif not self.identity.claimed and (name.startswith(relations.SALT_PREFIX) or name == USAGE):
                    self.env.store.remove(name)  # a release was cut off by a power loss
        except PacktrustError as error:
            self._storage_error("relationships", error)
        for counter, _ in newest.values():
            if counter > self.identity.counter:
                # The package's counter is stored before anything it brings.
                self.evidence(ROLLED_BACK)
                wipe(self.identity.private)
                self.identity = None
                self._no_identity(StorageError("it is older than its relationships: reset the node and claim it again"))
                return
        for node, found in newest.items():
            self.relations[node] = found[1]

    def _load_relation(self, name: str, newest: "dict[int, tuple[int, relations.Terms]]") -> None:
        store = self.env.store
        try:
            raw = store.read(name)
            if raw is None:
                return
            found = relations.decode(raw)
            wipe(raw)
            if found is None:
                raise StorageError("record %s is malformed: claim and provision the node again" % name)
            if found.previous is None:
                store.purge(name)  # a power cut came before its older copy, of a finished epoch, was deleted
            kept = relations.Terms(self, found.node, found.terms())
            found.wipe()
            if not self.identity.claimed and found.counter <= self.identity.counter:
                store.remove(name)  # a release was cut off by a power loss
                return
            other = newest.get(found.node)
            if other is not None:
                # The record of a relationship that was replaced, left by a power loss.
                loser = other[1] if found.counter > other[0] else kept
                store.remove(relations.record_name(loser.tag))
                if loser is kept:
                    return
            newest[kept.node] = (found.counter, kept)
        except PacktrustError as error:
            self._storage_error("relationships", error)

    def _storage_error(self, what: str, error: Exception) -> None:
        self.count("storage")
        self.env.log("%s: %s" % (what, error))

    def install(self, relation: "relations.Relation | relations.Terms") -> None:
        """Use a relationship that is stored already; one with the same link, or its older epoch, gives way.

        A whole one is wiped here: what is needed of it later is read from the store.
        """
        if isinstance(relation, relations.Relation):
            whole = relation
            relation = relations.Terms(self, whole.node, whole.terms())
            whole.wipe()
            ondemand.tidy()  # the channel stays
        node = relation.node
        other = self.relations.get(node)
        if other is not None and other.tag != relation.tag:
            try:
                self.env.store.remove(relations.record_name(other.tag))
            except StorageError as error:
                self._storage_error("storage", error)
        self.relations[node] = relation
        neighbour = self.neighbour(node)
        if neighbour is not None and self.identity is not None:
            neighbour.key(relation, self.identity.fingerprint, self.boot_counter)
            self.relations[node] = neighbour
            self.keyed(neighbour)

    def commit(self, relation: "relations.Relation", kind: str) -> None:
        """Store a relationship's epoch, and wipe it; `settle` then notes it as `kind` and uses it. The other end counts
        on that once it is told.

        Raises StorageError, or MemoryError while the one before waits for heap: then all is as it was.
        """
        try:
            if self._committed is not None:
                raise MemoryError
            # All the heap this takes before it is stored.
            committed = (kind, relations.Terms(self, relation.node, relation.terms()))
            self._write_relation(relation)
            self._committed = committed
        finally:
            relation.wipe()

    def _take_up(self, kind: str, kept: "relations.Terms") -> None:
        try:
            relation = kept.full()
        except StorageError as error:
            self._storage_error("relationships", error)
            return  # it is gone: nothing to wait for
        try:
            self.note(kind, relation.node, relation.epoch, relation.counter, relation.root)
            self.install(relation)
            self.usage.begin(relation)
        finally:
            relation.wipe()
            self.keys_ended()
        self.env.log("epoch %d of %s is current" % (relation.epoch, relation.lct_id))

    def forget(self, counter: int, kind: str = "released") -> None:
        """Be nobody's, released by the owner or `reset`: the pin goes first, then the relationships.

        Raises StorageError or CryptoError (no entropy).
        """
        if self.identity is None:
            return
        code = identities.fresh_code(self.env.urandom)
        self.let_go()
        before = ondemand.mark()
        try:
            from packtrust_node import audit_log

            audit_log.end(self, kind, counter)
        except StorageError as error:
            self.guard.failed(error)
        finally:
            ondemand.back_to(before)
        self.guard.clear()
        self.write_identity(self.identity.released(code, counter))
        if self._endpoint is not None or self._staged:
            self.endpoint.clear()
        while self.finished:
            wipe(self.finished.pop()[2])
        self.notes.clear()
        self._committed = None
        store = self.env.store
        for name in store.names():
            if name.startswith(relations.PREFIX) or name.startswith(relations.SALT_PREFIX):
                store.remove(name)
        self.usage.forget()
        self.relations = {}
        self.count("released")
        self.env.log("released: no owner, no keys, new claim code")
        self.unkeyed()
