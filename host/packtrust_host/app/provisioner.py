"""The owner's side of docs/wire.md, section 7: who is there, packages, proofs, commit.

Every method that speaks to a device is a script for `AppNode.spawn`. Nothing becomes current before
all proofs are here: a receipt from each device, the pair exchange, and PAIRED from both with the
fingerprint we expect. Whatever fails before the commit is aborted on both devices, which go on
under their old epoch; what fails within it is finished by running `install` again.
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from struct import pack as pack_bytes
from typing import Any

from packtrust import audit, package, provision
from packtrust import report as reports
from packtrust.crypto import hmac_sha256, sha256, wipe, x25519
from packtrust.errors import PacktrustError
from packtrust.handshake import INITIATOR, RESPONDER
from packtrust.keys import FINGERPRINT_LENGTH, SIDE_A, SIDE_B, pair_secret
from packtrust.package import KeyPackage, Release
from packtrust.pairing import PairExchange
from packtrust.provision import (
    ABORT,
    ABORTED,
    ATTEST,
    CLEAR,
    COMMIT,
    COMMITTED,
    IDENTIFY,
    LIST,
    MODULE_ENTRY,
    NONCE_LENGTH,
    PACKAGE,
    PAIR,
    PAIRED,
    PROOF,
    PROOF_ENTRY,
    PROVE,
    RECEIPT,
    REFUSED,
    REFUSED_ROLLBACK,
    REFUSED_STATE,
    ROLE_MODULE,
    ROLE_PACK,
    STATUS,
    Attestation,
    Identity,
    Message,
)
from packtrust_host.app.errors import (
    AppError,
    DeviceRefused,
    NoAnswer,
    ProofFailed,
    ProvisioningFailed,
)
from packtrust_host.app.keystore import (
    ACTIVE,
    APP_PACK,
    CREATED,
    PACK_MODULE,
    Device,
    KeyStore,
    Pending,
    RelationshipRecord,
    State,
)
from packtrust_host.app.node import AppNode, PackSeen, relationship_of
from packtrust_host.app.tasks import Step, Until, Wait, Work
from packtrust_host.app.transport import refused
from packtrust_host.audit.log import AuditLogs, name_of

FIND_MS = 12_000  # packs announce themselves every 10 s at the latest
MODULES_MS = 15_000
PAIR_MS = 20_000  # a staged package lives 30 s on the device
OFFER_REPEAT_MS = 1500
PAIR_REPEAT_MS = 6000
PACKAGE_TIMEOUT_MS = 8000  # X25519 takes its time on a small board
DELIVERIES = 3
BUSY_MS = 120_000

# No device takes a million packages in its life: a counter above that is a forged IDENTITY, which
# would use our counters up.
COUNTER_JUMP = 1_000_000

# Steps that change nothing.
_NOT_NOTED = ("found", "identified", "kept", "reported")

Script = Generator[Step, Any, Any]


@dataclass(frozen=True)
class Progress:
    """What happened: `step` is one word, `who` the device or relationship."""

    step: str
    who: str
    detail: str
    at_ms: int


@dataclass(frozen=True)
class ModuleListed:
    """A module as its pack lists it; no proof."""

    node: int
    unique_id: int
    flags: int


@dataclass(frozen=True)
class Proven:
    """What a device proved of itself.

    Its fingerprint and, by lct_tag, epoch and peer fingerprint in use.
    """

    fingerprint: bytes
    relationships: dict[bytes, tuple[int, bytes]]


@dataclass(frozen=True)
class Reported:
    """What a device reported under the owner key: its counters and, by lct_tag, its epochs and how
    far they are used. `went_back`: its boot counter is lower than one it has reported before, so
    its flash is an older copy.
    """

    boot_counter: int
    counter: int
    entries: dict[bytes, reports.Entry]
    went_back: bool = False


@dataclass
class Survey:
    """The devices found: a pack and its modules."""

    pack: Device
    modules: list[Device] = field(default_factory=list)


@dataclass
class Attested:
    """A pack's statement about its modules, checked.

    `problems` says where it disagrees with the key store.
    """

    attestation: Attestation
    lct_id: str
    problems: list[str]

    @property
    def statement(self) -> bytes:
        """The bytes to forward to the bridge, with `attestation.mac_lct`."""
        return self.attestation.statement


@dataclass
class _End:
    """One device of an installation, and what has been heard of it."""

    device: Device
    role: int
    side: int
    peer_public: bytes
    receipt_key: bytearray = field(default_factory=bytearray, repr=False)
    paired: bool = False
    wrong_peer: bytes = b""


class Provisioner:
    """Provisions the devices of one pack over an AppNode.

    `clear_first_transfer` sends the first package to an unclaimed device unsealed, as the roadmap's
    initial transfer; audited in the key store. `scope` (SCOPE_* bits): what the app may command,
    enforced by the pack. `counters` counts by name what was repeated, forged or left unanswered.
    """

    def __init__(
        self,
        node: AppNode,
        *,
        clear_first_transfer: bool = False,
        scope: int = package.SCOPE_ALL,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.node = node
        self.store: KeyStore = node.store
        self.clear_first_transfer = clear_first_transfer
        self.scope = scope
        self.counters: dict[str, int] = {}
        self.logs = AuditLogs(self.store)
        self._on_progress = on_progress
        self._ends: list[_End] = []
        self._about = b""  # tag and epoch of the installation under way

    def _progress(self, step: str, who: str, detail: str = "") -> None:
        if self._on_progress is not None:
            self._on_progress(Progress(step, who, detail, self.node.env.now_ms()))
        if step not in _NOT_NOTED:
            self.note(step, who=who, detail=detail)

    def note(self, what: str, **details: Any) -> None:
        """Write an entry into the audit log of the pack spoken to. Details hold no secrets. Raises AuditError."""
        pack_id = None
        if self.node.pack_number is not None:
            for device in self.store.devices.values():
                if device.role == ROLE_PACK and device.node == self.node.node:
                    pack_id = device.unique_id
        self.logs.append(name_of(pack_id), [{"what": what, **details}])

    def _count(self, what: str) -> None:
        self.counters[what] = self.counters.get(what, 0) + 1

    # -- who is there --------------------------------------------------------------------------

    def find_pack(self, number: int | None = None, timeout_ms: int = FIND_MS) -> Generator[Step, Any, PackSeen]:
        """Wait for a pack's announcement and attach to it. Raises NoAnswer.

        AppError if there are several.
        """
        node = self.node

        def found() -> bool:
            return bool(node.packs) if number is None else number in node.packs

        deadline_ms = node.env.now_ms() + timeout_ms
        while not found() and node.env.now_ms() < deadline_ms:
            node.ask_for_announcements()
            yield Until(found, 1000)
        if not found():
            which = "no pack" if number is None else "pack %d did not" % number
            raise NoAnswer(
                "%s announced itself within %d s" % (which, timeout_ms // 1000),
                "check bit rate, wiring, termination and the pack's power",
            )
        if number is None:
            if len(node.packs) > 1:
                names = ", ".join(str(seen) for seen in sorted(node.packs))
                raise AppError("packs %s announced themselves" % names, "choose one by its number")
            number = next(iter(node.packs))
        node.attach(number)
        seen = node.packs[number]
        self._progress("found", "pack %d" % number, "%d modules" % seen.module_count)
        return seen

    def identify(self, target: int) -> Generator[Step, Any, Identity]:
        """Ask a device who it is; not a proof.

        Raises NoAnswer, DeviceRefused, ProofFailed (malformed).
        """
        body = yield from self.node.requests.ask(IDENTIFY, target)
        identity = provision.parse_identity(body)
        if identity is None:
            raise ProofFailed(
                "the device with node byte 0x%02x sent a malformed IDENTITY" % target,
                "check its firmware's version",
            )
        return identity

    def introduce(self, target: int, role: int) -> Generator[Step, Any, Device]:
        """Identify a device and remember it.

        Raises ProofFailed if a device we own answers with another key, or in another role; AppError
        if another app owns it.
        """
        identity = yield from self.identify(target)
        device = self._take_identity(target, role, identity)
        self._progress("identified", device.name, device.fingerprint.hex()[:16])
        return device

    def _take_identity(self, target: int, role: int, identity: Identity) -> Device:
        if identity.role != role:
            raise ProofFailed(
                "the device with node byte 0x%02x has role %d, not %d" % (target, identity.role, role),
                "check its board file",
            )
        self._check_owner(identity)
        if identity.public_key == bytes(len(identity.public_key)) or (identity.public_key == self.store.public_key):
            raise ProofFailed(
                "%s has no binding key of its own" % identity.serial,
                "check its firmware and entropy source",
            )
        with self.store.transaction() as state:
            known = state.devices.get(identity.unique_id)
            if known is not None and known.public_key != identity.public_key:
                if known.owned:
                    raise ProofFailed(
                        "%s answers with another binding key than the one it proved before" % known.name,
                        "it was swapped, reset or is an impostor: see `packtrust validate`; if it was "
                        "replaced on purpose, forget the old device first",
                    )
                known = None  # never proved to be what it said
            if known is None:
                known = Device(
                    identity.unique_id,
                    identity.serial,
                    role,
                    identity.profile,
                    identity.public_key,
                    target,
                )
                state.devices[identity.unique_id] = known
            known.node = target
            known.serial = identity.serial
            known.profile = identity.profile
        return self.store.devices[identity.unique_id]

    def _check_owner(self, identity: Identity) -> None:
        if any(identity.owner_fingerprint) and identity.owner_fingerprint != self.store.fingerprint:
            raise AppError(
                "%s is owned by another app (fingerprint %s)"
                % (identity.serial, identity.owner_fingerprint.hex()[:16]),
                "let that app release it, or reset it at its console",
            )

    def list_modules(
        self, expected: int | None = None, timeout_ms: int = MODULES_MS
    ) -> Generator[Step, Any, list[ModuleListed]]:
        """The pack's modules by node byte; waits until `expected` of them are there.

        Without `expected` it waits until the list is not empty and the same twice, a second apart.
        """
        deadline_ms = self.node.env.now_ms() + timeout_ms
        before: list[ModuleListed] = []
        while True:
            body = yield from self.node.requests.ask(LIST, self.node.node, who="the pack")
            entries = provision.parse_entries(MODULE_ENTRY, body)
            if entries is None:
                raise ProofFailed("the pack sent a malformed module list", "check its firmware's version")
            listed = sorted(
                (ModuleListed(int(node), int(uid), int(flags)) for node, uid, flags in entries),
                key=lambda item: item.node,
            )
            if expected is None:
                enough = bool(listed) and listed == before
            else:
                enough = len(listed) >= expected
            if enough:
                return listed
            if self.node.env.now_ms() >= deadline_ms:
                raise NoAnswer(
                    "the pack lists %d modules after %d s%s"
                    % (
                        len(listed),
                        timeout_ms // 1000,
                        "" if expected is None else ", not %d" % expected,
                    ),
                    "check the module bus, its termination and the modules' power",
                )
            before = listed
            yield Wait(1000 if expected is None else 200)

    def survey(self, number: int | None = None, expected_modules: int | None = None) -> Generator[Step, Any, Survey]:
        """Find the pack, its modules, and who they are."""
        yield from self.find_pack(number)
        found = Survey((yield from self.introduce(self.node.node, ROLE_PACK)))
        for listed in (yield from self.list_modules(expected_modules)):
            device = yield from self.introduce(listed.node, ROLE_MODULE)
            if device.unique_id != listed.unique_id:
                raise ProofFailed(
                    "the module with node byte %d has unique id %08x, the pack lists %08x"
                    % (listed.node, device.unique_id, listed.unique_id),
                    "check for two modules with one number",
                )
            found.modules.append(device)
        return found

    def commission(
        self,
        bridge_work: Callable[[Survey], object],
        number: int | None = None,
        expected_modules: int | None = None,
    ) -> Generator[Step, Any, Survey]:
        """Everything: survey, `bridge_work` (registration, which puts relationships into the key
        store), then keys for each relationship that has none. Run it again after a failure: it goes
        on where it was.
        """
        found = yield from self.survey(number, expected_modules)
        yield Work(lambda: bridge_work(found))
        self.note(
            "registered",
            components=[device.component_id for device in (found.pack, *found.modules)],
            lcts=sorted(self.store.relationships),
        )
        record = self.store.app_pack(found.pack.unique_id)
        if record is None:
            raise AppError("the app has no LCT with %s" % found.pack.name, "register it at the bridge first")
        yield from self.ensure(record.lct_id)
        # Once for all modules: a host from an old backup learns what the pack has with them.
        yield from self.report(self.store.devices[found.pack.unique_id])
        there = {module.unique_id for module in found.modules}
        for item in self.store.modules_of(found.pack.unique_id):
            if item.unique_id_b in there:
                yield from self.ensure(item.lct_id)
        return found

    # -- installing ----------------------------------------------------------------------------

    def ensure(self, lct_id: str) -> Script:
        """Install a relationship unless both devices have it already, which they are asked to
        prove.
        """
        record = self.store.relationships[lct_id]
        if record.state == ACTIVE and record.pending is None and (yield from self._is_installed(record)):
            self._progress("kept", lct_id, "epoch %d" % record.epoch)
            return
        yield from self.install(lct_id)

    def _is_installed(self, record: RelationshipRecord) -> Generator[Step, Any, bool]:
        ends = self._make_ends(record)
        try:
            # What the devices did while we were away is theirs to tell.
            yield from self.report(ends[-1].device, record.tag)
        except (DeviceRefused, ProofFailed):
            return False
        record = self.store.relationships[record.lct_id]
        for end in ends:
            try:
                proven = yield from self.prove(end.device)
            except (DeviceRefused, ProofFailed):
                return False
            epoch, peer = proven.relationships.get(record.tag, (0, b""))
            if epoch != record.epoch or peer != bytes(sha256(end.peer_public)):
                return False
        return True

    def _make_ends(self, record: RelationshipRecord) -> list[_End]:
        """The devices of a relationship, the responder first: it can do with both epochs meanwhile."""
        devices = self.store.devices
        responder = devices[record.unique_id_b]
        if record.kind == APP_PACK:
            return [_End(responder, RESPONDER, SIDE_B, self.store.public_key)]
        initiator = devices[record.unique_id_a]
        return [
            _End(responder, RESPONDER, SIDE_B, initiator.public_key),
            _End(initiator, INITIATOR, SIDE_A, responder.public_key),
        ]

    def install(self, lct_id: str) -> Script:
        """Give a relationship a new epoch: the first one, or a rotation. Raises ProvisioningFailed.

        A commit left under way earlier is finished instead, if the devices still hold it.
        """
        record = self.store.relationships[lct_id]
        if record.state == CREATED:
            raise ProvisioningFailed(
                "LCT %s has no complete key halves" % lct_id,
                "finish its registration at the bridge",
                "halves",
            )
        # One at a time: the devices' own messages have one taker.
        yield Until(lambda: self.node.on_message is None, BUSY_MS)
        if record.pending is not None and (yield from self._resume(record)):
            return
        try:
            yield from self._learn(record)
        except PacktrustError as error:
            raise self._failed(record, "package", error) from error
        with self.store.transaction() as state:
            changed = state.relationships[lct_id]
            changed.epoch_tried = max(changed.epoch, changed.epoch_tried) + 1
        record = self.store.relationships[lct_id]
        epoch = record.epoch_tried
        ends = self._make_ends(record)
        salt = self.node.env.urandom(32)
        step = "package"
        pending = Pending(epoch, {}, salt_hash=bytes(sha256(salt)).hex())
        self._ends = ends
        self._about = provision.epoch_body(record.tag, epoch)
        self.node.on_message = self._on_message
        try:
            for end in ends:
                yield from self._deliver(record, epoch, salt, end)
            step = "pair"
            if record.kind == APP_PACK:
                pending.root = yield from self._pair_own(record, epoch, salt, ends[0])
            else:
                yield from self._pair_devices(ends)
            step = "paired"
            yield from self._await_paired(ends)
        except PacktrustError as error:
            pending.wipe()
            yield from self._abort(ends)
            self._wipe_ends(ends)
            raise self._failed(record, step, error) from error
        finally:
            self.node.on_message = None
            self._ends = []
        pending.receipt_keys = {"%08x" % end.device.unique_id: end.receipt_key for end in ends}
        with self.store.transaction() as state:
            state.relationships[lct_id].pending = pending
        self._progress("proved", lct_id, "epoch %d" % epoch)
        yield from self._finish(self.store.relationships[lct_id])

    def _failed(self, record: RelationshipRecord, step: str, error: PacktrustError) -> ProvisioningFailed:
        if isinstance(error, AppError):
            cause, next_step = error.cause, error.next_step
        else:
            cause, next_step = str(error), "see the cause"
        self._progress("failed", record.lct_id, "%s: %s" % (step, cause))
        going_on = "epoch %d goes on" % record.epoch if record.epoch else "no keys were installed"
        return ProvisioningFailed(
            "LCT %s: %s; %s" % (record.lct_id, cause, going_on),
            next_step + ", then run it again",
            step,
        )

    @staticmethod
    def _wipe_ends(ends: Iterable[_End]) -> None:
        for end in ends:
            wipe(end.receipt_key)

    def _package(self, record: RelationshipRecord, epoch: int, salt: bytes, end: _End, counter: int) -> KeyPackage:
        to_pack = end.device.role == ROLE_PACK
        return KeyPackage(
            counter,
            epoch,
            end.role,
            end.side,
            record.node,
            record.half_a,
            record.half_b,
            salt,
            end.peer_public,
            record.lct_id,
            record.component_a,
            record.component_b,
            scope=self.scope if record.kind == APP_PACK else 0,
            lct_half=record.lct_half if to_pack else b"",
        )

    def _deliver(self, record: RelationshipRecord, epoch: int, salt: bytes, end: _End) -> Script:
        """Send the package until its receipt is here.

        A lost receipt costs a counter, never a claim.
        """
        device = end.device
        attempt = 0
        while True:
            attempt += 1
            identity = yield from self.identify(device.node)
            self._check_same(device, identity)
            claimed = any(identity.owner_fingerprint)
            counter = yield from self._counter(device, identity, record.tag)
            content = self._package(record, epoch, salt, end, counter)
            kind, body, package_hash, end.receipt_key = self._seal(content, device, claimed)
            content.wipe()
            if not claimed:
                self._keep_log_key(device, end.receipt_key)
            self.note(
                "package",
                device="%08x" % device.unique_id,
                lct_id=record.lct_id,
                epoch=epoch,
                counter=counter,
                key_id=audit.key_id(package_hash).hex(),
            )
            try:
                answer = yield from self.node.requests.ask(
                    kind, device.node, body, who=device.name, timeout_ms=PACKAGE_TIMEOUT_MS
                )
            except NoAnswer:
                wipe(end.receipt_key)
                end.receipt_key = bytearray()
                if attempt >= DELIVERIES:
                    raise
                self._count("package-repeated")
                continue
            except DeviceRefused as error:
                wipe(end.receipt_key)
                end.receipt_key = bytearray()
                if error.reason == REFUSED_ROLLBACK and attempt < DELIVERIES:
                    self._count("package-repeated")
                    continue
                raise
            break
        expected = provision.receipt_body(record.tag, epoch, counter, package_hash)
        if provision.check_mac(end.receipt_key, RECEIPT, answer) != expected:
            raise ProofFailed(
                "%s sent a receipt that does not prove this package" % device.name,
                "it does not hold the key it shows: check for an impostor on the bus",
            )
        with self.store.transaction() as state:
            state.devices[device.unique_id].owned = True
        if not claimed:
            self.store.burn_claim(device.unique_id, device.serial)
            if kind == CLEAR:
                self._audit_clear(record, device)
            self._progress("claimed", device.name, "clear" if kind == CLEAR else "sealed")
        self._progress("installed", device.name, "%s epoch %d" % (record.lct_id, epoch))

    def _keep_log_key(self, device: Device, receipt_key: bytearray) -> None:
        """If this package claims the device, the device's audit log begins with this key; its receipt may be lost."""
        key = audit.first_key(receipt_key)
        self.store.add_node_log_key("%08x %s" % (device.unique_id, audit.key_id(key).hex()), key)
        wipe(key)

    def _audit_clear(self, record: RelationshipRecord, device: Device) -> None:
        self.note("option", name="clear-first-transfer", device="%08x" % device.unique_id, lct_id=record.lct_id)
        self.store.audit(
            "clear first transfer",
            device=device.name,
            lct_id=record.lct_id,
            fingerprint=device.fingerprint.hex(),
        )

    def _check_same(self, device: Device, identity: Identity) -> None:
        self._check_owner(identity)
        if identity.public_key != device.public_key or identity.unique_id != device.unique_id:
            self.note("signs", device="%08x" % device.unique_id, signs=["swapped"])
            raise ProofFailed(
                "the device with node byte 0x%02x is not %s any more" % (device.node, device.name),
                "identify the devices again; if it stays so, see `packtrust validate`",
            )
        if device.owned and not any(identity.owner_fingerprint):
            # Not proved: anybody can say so. Somebody should look at it.
            self.note("signs", device="%08x" % device.unique_id, signs=["factory-state"])

    def _counter(self, device: Device, identity: Identity, tag: bytes = b"") -> Generator[Step, Any, int]:
        """A package counter above all the device has taken.

        What IDENTITY says anybody can forge: from a device of ours only its report counts. So a
        host whose key store comes from an old backup goes on above it.
        """
        if any(identity.owner_fingerprint):
            reported = yield from self.report(device, tag)
            return self.store.next_counter(device.unique_id, reported.counter + 1)
        if identity.counter > device.counter + COUNTER_JUMP:
            raise ProofFailed(
                "%s says it has taken %d packages" % (device.name, identity.counter),
                "check for forged IDENTITY messages on the bus",
            )
        return self.store.next_counter(device.unique_id, identity.counter + 1)

    def _seal(
        self, content: KeyPackage | Release, device: Device, claimed: bool
    ) -> tuple[int, bytes, bytes, bytearray]:
        """(message type, body, package hash, receipt key) of a package for a device."""
        if not claimed and self.clear_first_transfer:
            plaintext = content.encode()
            own = self.store.fingerprint
            key = package.clear_receipt_key(plaintext, own, device.fingerprint)
            body = self.store.public_key + bytes(plaintext)
            digest = bytes(sha256(plaintext))
            wipe(plaintext)
            return CLEAR, body, digest, key
        code = bytearray()
        if not claimed:
            code = self.store.claim_code(device.unique_id, device.serial) or bytearray()
            if not code:
                raise AppError(
                    "no claim code is known for %s" % device.name,
                    "read it at the device's console (command `claim`) and store it with `packtrust claim`",
                )
        private = self.store.private_key
        try:
            body, digest, key = package.seal(
                content, device.public_key, private, self.node.env.urandom(32), bytes(code)
            )
        finally:
            wipe(private)
            wipe(code)
        return PACKAGE, body, digest, key

    # -- pair exchange -------------------------------------------------------------------------

    def _pair_own(
        self, record: RelationshipRecord, epoch: int, salt: bytes, end: _End
    ) -> Generator[Step, Any, bytearray]:
        """Run the pair exchange of app and pack; the root."""
        private = self.store.private_key
        dh_static = bytearray(x25519(private, end.device.public_key))
        wipe(private)
        secret = bytearray(pair_secret(record.half_a, record.half_b, salt))
        exchange = PairExchange(INITIATOR, secret, dh_static, relationship_of(record), epoch, self.node.env.urandom(32))
        wipe(secret)
        wipe(dh_static)

        def on_pairing(payload: bytes) -> None:
            answer = exchange.feed(payload)
            if answer is not None:
                self.node.send_pairing(answer)

        self.node.on_pairing = on_pairing
        deadline_ms = self.node.env.now_ms() + PAIR_MS
        try:
            while not exchange.agreed and self.node.env.now_ms() < deadline_ms:
                self.node.send_pairing(exchange.offer())
                yield Until(lambda: exchange.agreed, OFFER_REPEAT_MS)
            if not exchange.agreed or exchange.root is None:
                raise NoAnswer(
                    "%s did not agree on new keys within %d s" % (end.device.name, PAIR_MS // 1000),
                    "check the bus for disturbance and that no other app answers",
                )
            root, exchange.root = exchange.root, None
            return root
        finally:
            self.node.on_pairing = None
            exchange.wipe()

    def _pair_devices(self, ends: list[_End]) -> Script:
        """Let the initiator run the exchange with the responder; done when it reports PAIRED."""
        initiator = ends[-1]
        deadline_ms = self.node.env.now_ms() + PAIR_MS
        while not initiator.paired and self.node.env.now_ms() < deadline_ms:
            answer = yield from self._ask_to_pair(initiator)
            if answer is not None:
                self._on_message(answer)
            self._check_peers(ends)

    def _ask_to_pair(self, initiator: _End) -> Generator[Step, Any, Message | None]:
        """Send PAIR once. The answer is PAIRED, sent by itself later; only a refusal comes at once."""
        requests = self.node.requests
        posted = requests.post(PAIR, initiator.device.node, self._about)
        try:
            yield Until(lambda: posted.answer is not None or initiator.paired, PAIR_REPEAT_MS)
        finally:
            requests.settle(posted)
        answer = posted.answer
        if answer is not None and answer.kind == REFUSED and not initiator.paired:
            raise refused(initiator.device.name, "PAIR", answer.body[1])
        return None if answer is None or answer.kind == REFUSED else answer

    def _on_message(self, message: Message) -> None:
        """PAIRED of a device, unsolicited. What does not verify is counted and changes nothing."""
        if message.kind != PAIRED:
            self._count("unexpected")
            return
        for end in self._ends:
            if end.device.node != message.target or not end.receipt_key:
                continue
            content = provision.check_mac(end.receipt_key, PAIRED, message.body)
            if content is None or content[:12] != self._about or len(content) != 12 + FINGERPRINT_LENGTH:
                self._count("paired-not-authentic")
            elif content[12:] == bytes(sha256(end.peer_public)):
                end.paired = True
            else:
                end.wrong_peer = content[12:]
            return
        self._count("unexpected")

    @staticmethod
    def _check_peers(ends: list[_End]) -> None:
        for end in ends:
            if end.wrong_peer:
                raise ProofFailed(
                    "%s is paired with fingerprint %s, not with the peer it was given"
                    % (end.device.name, end.wrong_peer.hex()[:16]),
                    "check both devices with `packtrust validate`",
                )

    def _await_paired(self, ends: list[_End]) -> Script:
        yield Until(lambda: all(end.paired or end.wrong_peer for end in ends), PAIR_MS)
        self._check_peers(ends)
        missing = [end.device.name for end in ends if not end.paired]
        if missing:
            raise NoAnswer(
                "%s sent no authentic pair confirmation" % " and ".join(missing),
                "check that both devices are powered and reach each other",
            )

    # -- commit and abort ----------------------------------------------------------------------

    def _abort(self, ends: list[_End]) -> Script:
        """Tell who has staged the epoch to drop it. Who does not answer drops it by itself in 30 s."""
        for end in ends:
            if not any(end.receipt_key):
                continue
            body = provision.with_mac(end.receipt_key, ABORT, self._about)
            try:
                answer = yield from self.node.requests.ask(
                    ABORT, end.device.node, body, who=end.device.name, timeout_ms=1000, retries=1
                )
            except AppError:
                self._count("abort-unanswered")
                continue
            if provision.check_mac(end.receipt_key, ABORTED, answer) != self._about:
                self._count("abort-not-authentic")

    def _finish(self, record: RelationshipRecord) -> Script:
        """Send the COMMITs of `record.pending`, the responder's first.

        Then the epoch is the current one.
        """
        pending = record.pending
        assert pending is not None
        for end in self._make_ends(record):
            key = pending.receipt_keys["%08x" % end.device.unique_id]
            try:
                yield from self._commit(record, pending.epoch, end, key)
            except DeviceRefused as error:
                yield from self._give_up(record, pending)
                raise self._failed(record, "commit", error) from error
            except AppError as error:
                # It may or may not have committed: the proofs stay, and running it again finishes
                # it.
                raise self._failed(record, "commit", error) from error
            self._progress("committed", end.device.name, "%s epoch %d" % (record.lct_id, pending.epoch))
        with self.store.transaction() as state:
            changed = state.relationships[record.lct_id]
            wipe(changed.root)
            changed.root = bytearray(pending.root)
            changed.epoch = pending.epoch
            changed.salt_hash = pending.salt_hash
            changed.state = ACTIVE
            changed.pending = None
        pending.wipe()
        if record.kind == APP_PACK:
            self.node.use(self.store.relationships[record.lct_id])
        self._progress("active", record.lct_id, "epoch %d" % self.store.relationships[record.lct_id].epoch)

    def _commit(self, record: RelationshipRecord, epoch: int, end: _End, key: bytearray) -> Script:
        """Send one COMMIT. A device that refuses it may have committed before.

        Then it proves that epoch.
        """
        about = provision.epoch_body(record.tag, epoch)
        body = provision.with_mac(key, COMMIT, about)
        device = end.device
        try:
            answer = yield from self.node.requests.ask(COMMIT, device.node, body, who=device.name)
        except DeviceRefused as error:
            if error.reason == REFUSED_STATE:
                proven = yield from self.prove(device)
                if proven.relationships.get(record.tag) == (epoch, bytes(sha256(end.peer_public))):
                    return
            raise
        if provision.check_mac(key, COMMITTED, answer) != about:
            raise ProofFailed(
                "%s sent a COMMITTED that is not authentic" % device.name,
                "check for an impostor on the bus",
            )

    def _give_up(self, record: RelationshipRecord, pending: Pending) -> Script:
        """A device no longer holds the staged epoch: drop it everywhere it is not committed yet."""
        ends = self._make_ends(record)
        for end in ends:
            end.receipt_key = pending.receipt_keys["%08x" % end.device.unique_id]
        self._about = provision.epoch_body(record.tag, pending.epoch)
        yield from self._abort(ends)
        with self.store.transaction() as state:
            state.relationships[record.lct_id].pending = None
        pending.wipe()

    def _resume(self, record: RelationshipRecord) -> Generator[Step, Any, bool]:
        """Finish a commit that was left under way: True if both devices still held it."""
        self._progress("resumed", record.lct_id)
        try:
            yield from self._finish(record)
        except ProvisioningFailed as error:
            cause = error.__cause__
            if isinstance(cause, DeviceRefused) and cause.reason == REFUSED_STATE:
                return False  # a reboot or 30 s dropped it: start over with the next epoch
            raise
        return True

    # -- proofs and release --------------------------------------------------------------------

    def owner_key(self, device: Device) -> bytes:
        """The key shared with a device that we own (docs/wire.md, section 7)."""
        private = self.store.private_key
        try:
            return bytes(provision.owner_key(private, device.public_key, device.fingerprint, self.store.fingerprint))
        finally:
            wipe(private)

    def prove(self, device: Device) -> Generator[Step, Any, Proven]:
        """Let a device prove that it holds its binding key, and say whom it is paired with.

        Raises NoAnswer, DeviceRefused, ProofFailed.
        """
        nonce = self.node.env.urandom(NONCE_LENGTH)
        body = yield from self.node.requests.ask(PROVE, device.node, nonce, who=device.name)
        content = provision.check_mac(self.owner_key(device), PROOF, body, nonce)
        failed = ProofFailed(
            "%s did not prove the binding key it was registered with" % device.name,
            "see `packtrust validate`: it was swapped, reset or is an impostor",
        )
        if content is None or content[:FINGERPRINT_LENGTH] != device.fingerprint:
            raise failed
        entries = provision.parse_entries(PROOF_ENTRY, content, FINGERPRINT_LENGTH)
        if entries is None:
            raise failed
        relationships = {}
        for tag, epoch, peer in entries:
            relationships[bytes(tag)] = (int(epoch), bytes(peer))
        return Proven(device.fingerprint, relationships)

    def report(self, device: Device, tag: bytes = b"") -> Generator[Step, Any, Reported]:
        """Ask a device of ours for its counters and epochs, authenticated by the owner key, and
        take over what it did without us.

        tag   of the one relationship that matters, empty for all: with 31 of them a pack has to
              look up 31 records, and says them in four messages.

        Raises NoAnswer, DeviceRefused, ProofFailed.
        """
        key = self.owner_key(device)
        entries: dict[bytes, reports.Entry] = {}
        first = 0
        while True:
            nonce = self.node.env.urandom(NONCE_LENGTH)
            asked = reports.request(nonce, first, tag)
            body = yield from self.node.requests.ask(STATUS, device.node, asked, who=device.name)
            got = reports.parse(key, nonce, body)
            if got is None or got.fingerprint != device.fingerprint or (got.first != first and not tag):
                raise ProofFailed(
                    "%s sent a report that is not authentic" % device.name,
                    "see `packtrust validate`: it was swapped, reset or is an impostor",
                )
            entries.update((entry.tag, entry) for entry in got.entries)
            first += len(got.entries)
            if tag or not got.entries or first >= got.total:
                break
        known = self.store.devices[device.unique_id]
        went_back = got.boot_counter < known.boot_counter
        if went_back:
            self.store.audit(
                "flash copy",
                device=device.name,
                boot_counter=str(got.boot_counter),
                known=str(known.boot_counter),
            )
        reported = Reported(got.boot_counter, got.counter, entries, went_back)
        if self._is_news(known, reported):
            with self.store.transaction() as state:
                self._adopt(state, state.devices[device.unique_id], reported)
        return reported

    def _is_news(self, device: Device, reported: Reported) -> bool:
        if not device.owned or reported.boot_counter > device.boot_counter or reported.counter > device.counter:
            return True
        for record in self.store.relationships.values():
            entry = reported.entries.get(record.tag)
            if entry is None:
                continue
            if entry.epoch > record.epoch_tried or (self._made_without_us(record, entry) and device.role == ROLE_PACK):
                return True
        return False

    @staticmethod
    def _made_without_us(record: RelationshipRecord, entry: reports.Entry) -> bool:
        if record.kind != PACK_MODULE or entry.epoch <= record.epoch:
            return False
        # A commit of ours that is under way is finished first.
        return record.pending is None or record.pending.epoch < entry.epoch

    def _adopt(self, state: State, device: Device, reported: Reported) -> None:
        """Take over what a device reported: counters never below its own, and epochs that pack and
        module made without us. The pack commits last, so what it has both have.
        """
        device.owned = True  # who reports under the owner key has pinned us
        device.boot_counter = max(device.boot_counter, reported.boot_counter)
        device.counter = max(device.counter, reported.counter)
        for record in state.relationships.values():
            entry = reported.entries.get(record.tag)
            if entry is None:
                continue
            record.epoch_tried = max(record.epoch_tried, entry.epoch)
            if device.role != ROLE_PACK or not self._made_without_us(record, entry):
                continue
            made_here = bool(entry.flags & reports.MADE_HERE)
            details = {"lct_id": record.lct_id, "epoch": str(entry.epoch), "before": str(record.epoch)}
            if made_here:
                record.rotated += 1
                details["salt_hash"] = entry.salt_hash.hex()
            record.epoch = entry.epoch
            record.state = ACTIVE
            record.salt_hash = entry.salt_hash.hex() if made_here else ""
            if record.pending is not None:
                record.pending.wipe()
                record.pending = None
            event = "rotated without an app" if made_here else "epoch learned from the pack"
            self.store.audit(event, device=device.name, **details)
            self._progress("reported", record.lct_id, "epoch %d" % entry.epoch)

    def _learn(self, record: RelationshipRecord) -> Script:
        """Which epochs and counters the devices of a relationship have, where they are ours."""
        for end in self._make_ends(record):
            identity = yield from self.identify(end.device.node)
            self._check_same(end.device, identity)
            if any(identity.owner_fingerprint):
                yield from self.report(end.device, record.tag)

    def attest(self, pack: Device) -> Generator[Step, Any, Attested]:
        """Get the pack's attestation of its modules; checked against both keys and the key store."""
        record = self.store.app_pack(pack.unique_id)
        if record is None:
            raise AppError("the app has no LCT with %s" % pack.name, "register and provision it first")
        yield from self.report(pack)
        nonce = self.node.env.urandom(NONCE_LENGTH)
        body = yield from self.node.requests.ask(ATTEST, pack.node, nonce, who=pack.name)
        attestation = provision.parse_attestation(body, self.owner_key(pack), nonce)
        if attestation is None or attestation.fingerprint != pack.fingerprint:
            raise ProofFailed(
                "%s sent an attestation that is not authentic" % pack.name,
                "see `packtrust validate`",
            )
        problems = []
        if attestation.mac_lct != self._mac_lct(record, attestation.statement):
            problems.append("its MAC under the LCT half does not verify")
        expected = {item.node: item for item in self.store.modules_of(pack.unique_id)}
        attested = {int(entry[0]): entry for entry in attestation.entries}
        for node in sorted(set(expected) | set(attested)):
            problems += self._compare(node, expected.get(node), attested.get(node))
        self._progress("attested", pack.name, "%d modules" % len(attested))
        return Attested(attestation, record.lct_id, problems)

    @staticmethod
    def _mac_lct(record: RelationshipRecord, statement: bytes) -> bytes:
        if not record.lct_half:
            return bytes(provision.MAC_LENGTH)
        return bytes(hmac_sha256(provision.attest_key(record.lct_half), statement))

    @staticmethod
    def _compare(node: int, record: RelationshipRecord | None, entry: "tuple[int | bytes, ...] | None") -> list[str]:
        where = "module %d" % node
        if record is None:
            return ["%s is attested but has no LCT" % where]
        if entry is None:
            return ["%s has an LCT but is not attested" % where]
        _, unique_id, fingerprint, tag, epoch, _ = entry
        problems = []
        if unique_id != record.unique_id_b:
            problems.append("%s: unique id differs" % where)
        if fingerprint != record.fingerprint_b:
            problems.append("%s: fingerprint differs from its LCT" % where)
        if tag != record.tag or epoch != record.epoch:
            problems.append("%s: runs another LCT or epoch" % where)
        return problems

    def release(self, device: Device) -> Script:
        """Let a device forget us, all its relationships and its pin; forget it here too."""
        identity = yield from self.identify(device.node)
        self._check_same(device, identity)
        counter = yield from self._counter(device, identity)
        _, body, package_hash, key = self._seal(Release(counter), device, True)
        try:
            answer = yield from self.node.requests.ask(
                PACKAGE, device.node, body, who=device.name, timeout_ms=PACKAGE_TIMEOUT_MS
            )
            content = provision.check_mac(key, RECEIPT, answer)
        finally:
            wipe(key)
        if content is None or content[12:] != pack_bytes(">I", counter) + package_hash:
            raise ProofFailed(
                "%s sent a receipt that does not prove its release" % device.name,
                "identify it again",
            )
        self.forget(device.unique_id)
        self._progress("released", device.name)

    def forget(self, unique_id: int) -> None:
        """Forget a device's relationships here, and that we own it; its counter stays."""
        with self.store.transaction() as state:
            for lct_id, record in list(state.relationships.items()):
                if unique_id in (record.unique_id_a, record.unique_id_b):
                    record.wipe()
                    del state.relationships[lct_id]
            if unique_id in state.devices:
                state.devices[unique_id].owned = False
