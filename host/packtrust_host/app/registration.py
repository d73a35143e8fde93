"""Registration at the bridge: components, relationships with their key halves, trust and energy
accounts.

Each write is noted in the key store's journal before it is sent. One that was never answered has an
unknown outcome and is not repeated unless asked for by name: a bridge has no way to look up what an
earlier POST made, and a repeat makes a second one. Halves go into the key store in the same
transaction as the note that they came, for a bridge gives them once.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from decimal import Decimal

from packtrust import package
from packtrust.crypto import wipe
from packtrust.provision import ROLE_PACK
from packtrust_host.app.errors import RegistrationFailed, UnknownOutcome
from packtrust_host.app.keystore import (
    APP_PACK,
    CREATED,
    KEYED,
    PACK_MODULE,
    Device,
    KeyStore,
    RelationshipRecord,
)
from packtrust_host.app.provisioner import Attested, Survey
from packtrust_host.bridge.client import BridgeClient
from packtrust_host.bridge.errors import (
    BadKeyMaterial,
    BridgeError,
    BridgeFailed,
    BridgeRefused,
    BridgeUnreachable,
)
from packtrust_host.bridge.halves import HalfRegistry
from packtrust_host.bridge.models import LctCreated, Verification

CREATOR = "packtrust"
MANUFACTURER = "packtrust"

MANAGEMENT = "management"
GATEWAY = "gateway"
OPERATIONAL = "operational"

SCOPE_NAMES = {
    package.SCOPE_STATE: "state",
    package.SCOPE_LIMITS: "limits",
    package.SCOPE_BALANCE: "balance",
    package.SCOPE_TIME: "time",
    package.SCOPE_CONFIG: "config",
    package.SCOPE_DIAGNOSTICS: "diagnostics",
}

# What a new relationship is trusted with: the field's own starting value, for each dimension.
INITIAL_TRUST = Decimal("0.7")
T3_V3 = ("talent", "training", "temperament", "valuation", "veracity", "validity")
INITIAL_DIMENSIONS = dict.fromkeys(T3_V3, INITIAL_TRUST)
INITIAL_ATP = Decimal(1)


def scope_names(scope: int) -> list[str]:
    """The names of SCOPE_* bits."""
    return [name for bit, name in SCOPE_NAMES.items() if scope & bit]


def make_client(url: str, store: KeyStore, **options: object) -> BridgeClient:
    """A BridgeClient that knows the halves this key store has ever seen."""
    return BridgeClient(url, registry=HalfRegistry(store.halves_seen), **options)  # type: ignore[arg-type]


def _json(document: Mapping[str, object]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def app_data(store: KeyStore, scope: int) -> str:
    """`component_data` of the app: management context, Host ID, fingerprint, what it may command."""
    return _json(
        {
            "kind": "app",
            "context": MANAGEMENT,
            "host_id": store.host_id,
            "fingerprint": store.fingerprint.hex(),
            "scope": scope_names(scope),
            "manufacturer_id": MANUFACTURER,
        }
    )


def device_data(device: Device) -> str:
    """`component_data` of a device: context, serial, unique id, fingerprint, performance profile."""
    is_pack = device.role == ROLE_PACK
    return _json(
        {
            "kind": "pack-controller" if is_pack else "battery-module",
            "context": GATEWAY if is_pack else OPERATIONAL,
            "serial": device.serial,
            "unique_id": "%08x" % device.unique_id,
            "fingerprint": device.fingerprint.hex(),
            "profile": device.profile,
            "manufacturer_id": MANUFACTURER,
        }
    )


class Registrar:
    """Registers what a survey found. Blocking: run it as `Work`, or in a thread.

    creator            the bridge's account name, [A-Za-z0-9_-]{1,34}
    scope              what the app registers as its authority, and packages carry
    repeat_unknown     send writes again whose outcome is unknown (audited): it may make a second
    one accept_placeholders  take both halves from the pairing where lct/create gives placeholders,
    as today's
                       bridge does; such a relationship has no LCT half
    """

    def __init__(
        self,
        client: BridgeClient,
        store: KeyStore,
        *,
        creator: str = CREATOR,
        scope: int = package.SCOPE_ALL,
        repeat_unknown: bool = False,
        accept_placeholders: bool = False,
        on_progress: Callable[[str, str], None] | None = None,
    ) -> None:
        self.client = client
        self.store = store
        self.creator = creator
        self.scope = scope
        self.repeat_unknown = repeat_unknown
        self.accept_placeholders = accept_placeholders
        self._on_progress = on_progress

    def _progress(self, step: str, detail: str) -> None:
        if self._on_progress is not None:
            self._on_progress(step, detail)

    # -- journal -------------------------------------------------------------------------------

    def _done(self, key: str, digest: str) -> dict[str, str] | None:
        """The result of a write that was carried out; None if it must be sent.

        Raises UnknownOutcome.
        """
        entry = self.store.journal.get(key)
        if entry is None or entry.state == "failed" or entry.digest != digest:
            return None
        if entry.state == "done":
            return entry.result
        if not self.repeat_unknown:
            raise UnknownOutcome(
                "`%s` was sent to the bridge at %s and never answered" % (key, entry.at),
                "look at the bridge whether it was carried out; to send it again, which may make a second "
                "one, ask for it by name (--repeat-unknown)",
            )
        self.store.audit("write with unknown outcome repeated", key=key)
        return None

    def _once(self, key: str, digest: str, call: Callable[[], dict[str, str]]) -> dict[str, str]:
        """Carry out a write once in this key store's life; its ids."""
        known = self._done(key, digest)
        if known is not None:
            return known
        self.store.intend(key, digest)
        try:
            result = call()
        except (BridgeRefused, BridgeUnreachable, BadKeyMaterial):
            self.store.fail(key)  # nothing was changed, or what was made is of no use
            raise
        finally:
            self.store.save_halves_seen(self.client.registry.to_json())
        self.store.complete(key, result)
        self._progress("bridge", key)
        return result

    # -- components ----------------------------------------------------------------------------

    def register_app(self) -> str:
        """Register the app; its component id."""
        data = app_data(self.store, self.scope)
        component_id = self._register("register app %s" % self.store.host_id, data, MANAGEMENT)
        with self.store.transaction() as state:
            state.component_id = component_id
        return component_id

    def register_device(self, device: Device) -> str:
        """Register a pack or module; its component id."""
        data = device_data(device)
        context = GATEWAY if device.role == ROLE_PACK else OPERATIONAL
        key = "register device %08x %s" % (device.unique_id, device.fingerprint.hex()[:16])
        component_id = self._register(key, data, context)
        with self.store.transaction() as state:
            state.devices[device.unique_id].component_id = component_id
        return component_id

    def _register(self, key: str, data: str, context: str) -> str:
        def call() -> dict[str, str]:
            registered = self.client.register_component(self.creator, data, context)
            return {"component_id": registered.component_id}

        component_id = self._once(key, _digest(data, context), call)["component_id"]
        self._check_component(component_id, data)
        return component_id

    def _check_component(self, component_id: str, data: str) -> None:
        """A 200 proves nothing: read it back."""
        stored = self.client.get_component(component_id)
        if stored.component_id != component_id or stored.hardware_specs != data:
            raise RegistrationFailed(
                "the bridge shows component %s otherwise than it was registered" % component_id,
                "do not use it: ask the bridge's operator who changed it",
            )

    # -- relationships -------------------------------------------------------------------------

    def create_relationship(self, kind: str, a: Device | None, b: Device) -> RelationshipRecord:
        """LCT and halves of app (`a` None) and pack, or pack and module.

        In the key store when it returns.
        """
        store = self.store
        component_a = store.component_id if a is None else store.devices[a.unique_id].component_id
        component_b = store.devices[b.unique_id].component_id
        record = self._known(component_a, component_b)
        if record is None:
            record = self._create(kind, component_a, component_b, a, b)
        if record.state == CREATED:
            record = self._pair(record)
        self._check_lct(record)
        self._trust(record)
        return record

    def _known(self, component_a: str, component_b: str) -> RelationshipRecord | None:
        for record in self.store.relationships.values():
            if (record.component_a, record.component_b) == (component_a, component_b):
                return record
        return None

    def _create(self, kind: str, component_a: str, component_b: str, a: Device | None, b: Device) -> RelationshipRecord:
        store = self.store
        context = "app_pack_communication" if kind == APP_PACK else "pack_module_communication"
        made: list[RelationshipRecord] = []

        def call() -> dict[str, str]:
            created = self.client.create_lct(
                self.creator,
                component_a,
                component_b,
                context,
                allow_placeholders=self.accept_placeholders,
            )
            try:
                if (created.component_a, created.component_b) != (component_a, component_b):
                    raise RegistrationFailed(
                        "the bridge made LCT %s for other components" % created.lct_id,
                        "do not use it: ask the bridge's operator",
                    )
                made.append(self._record(kind, created, a, b))
            finally:
                created.wipe()
            # The halves come once: they are on disk before anything else can fail.
            with store.transaction() as state:
                state.relationships[created.lct_id] = made[0]
            return {"lct_id": created.lct_id}

        key = "lct %s %s" % (component_a, component_b)
        lct_id = self._once(key, _digest(context), call)["lct_id"]
        found = store.relationships.get(lct_id)
        if found is None:
            # Known from the journal but abandoned or released since: it takes a new one.
            store.fail(key)
            lct_id = self._once(key, _digest(context), call)["lct_id"]
            found = store.relationships[lct_id]
        return found

    def _record(self, kind: str, created: LctCreated, a: Device | None, b: Device) -> RelationshipRecord:
        half_a, lct_half = created.device_key_half, created.lct_key_half
        return RelationshipRecord(
            lct_id=created.lct_id,
            kind=kind,
            component_a=created.component_a,
            component_b=created.component_b,
            unique_id_a=0 if a is None else a.unique_id,
            unique_id_b=b.unique_id,
            fingerprint_a=self.store.fingerprint if a is None else a.fingerprint,
            fingerprint_b=b.fingerprint,
            node=b.node,
            scope=self.scope if kind == APP_PACK else 0,
            half_source="pairing" if half_a is None else "lct/create and pairing",
            half_a=bytearray(half_a or b""),
            lct_half=bytearray(lct_half or b""),
        )

    def _pair(self, record: RelationshipRecord) -> RelationshipRecord:
        """Get half B. Where that fails the LCT is abandoned: its halves cannot be fetched again."""
        lct_id = record.lct_id
        key = "pairing " + lct_id
        self.store.intend(key, _digest(lct_id))
        half_a = bytearray()
        half_b = bytearray()
        try:
            challenge = self.client.initiate_pairing(
                self.creator, record.component_a, record.component_b, "key exchange"
            )
            paired = self.client.complete_pairing(self.creator, challenge, bytes(record.half_a) or None)
            half_a[:], half_b[:] = paired.split_key_a, paired.split_key_b
            paired.wipe()
        except (BridgeRefused, BridgeUnreachable):
            self.store.fail(key)  # nothing was changed: the LCT is as good as before
            raise
        except BridgeError as error:
            self._abandon(record, error)
            raise
        finally:
            self.store.save_halves_seen(self.client.registry.to_json())
        with self.store.transaction() as state:
            changed = state.relationships[lct_id]
            changed.half_a = half_a
            changed.half_b = half_b
            changed.state = KEYED
            self.store.complete(key, {"challenge_id": challenge.challenge_id})
        self._progress("bridge", key)
        return self.store.relationships[lct_id]

    def _abandon(self, record: RelationshipRecord, error: BridgeError) -> None:
        """Forget an LCT whose pairing failed or has an unknown outcome.

        The next run makes a new one.
        """
        with self.store.transaction() as state:
            gone = state.relationships.pop(record.lct_id)
            wipe(gone.half_a)
            wipe(gone.lct_half)
            self.store.fail("lct %s %s" % (record.component_a, record.component_b))
            self.store.fail("pairing " + record.lct_id)
            self.store.audit("LCT abandoned", lct_id=record.lct_id, cause=error.cause)

    def _check_lct(self, record: RelationshipRecord) -> None:
        stored = self.client.get_lct(record.lct_id)
        if (stored.lct_id, stored.component_a, stored.component_b) != (
            record.lct_id,
            record.component_a,
            record.component_b,
        ):
            raise RegistrationFailed(
                "the bridge shows LCT %s with other components" % record.lct_id,
                "do not use it: ask the bridge's operator who changed it",
            )
        if stored.status == "terminated":
            raise RegistrationFailed(
                "LCT %s was ended at the bridge" % record.lct_id,
                "release the device and register the relationship anew",
            )

    # -- trust and energy ----------------------------------------------------------------------

    def _trust(self, record: RelationshipRecord) -> None:
        """The T3/V3 tensor of a relationship.

        Reading tells whether an unanswered write was carried out.
        """
        a, b = record.component_a, record.component_b
        tensor_id = "tensor_%s_%s" % (a, b)
        key = "tensor %s %s" % (a, b)
        entry = self.store.journal.get(key)
        if entry is not None and entry.state == "intended":
            try:
                self.client.read_tensor(tensor_id)
            except BridgeFailed:
                self.store.fail(key)  # it is not there
            else:
                self.store.complete(key, {"tensor_id": tensor_id})

        def call() -> dict[str, str]:
            tensor = self.client.create_tensor(
                self.creator, a, b, INITIAL_TRUST, "energy_operation", INITIAL_DIMENSIONS
            )
            return {"tensor_id": tensor.tensor_id}

        self._once(key, _digest(str(INITIAL_TRUST)), call)

    def open_account(self, component_id: str, source_id: str | None = None) -> None:
        """Make sure a component has its ATP/ADP account.

        With `source_id`, charge INITIAL_ATP through it.
        """
        balance = self.client.energy_balance(component_id)
        if source_id is None:
            return
        key = "energy " + component_id
        entry = self.store.journal.get(key)
        if entry is not None and entry.state == "intended" and balance.atp > 0:
            self.store.complete(key, {})  # the account shows that it was carried out

        def call() -> dict[str, str]:
            operation = self.client.energy_operation(
                self.creator, source_id, component_id, "charge", INITIAL_ATP, "initial charge"
            )
            self.client.energy_transfer(self.creator, operation.operation_id, INITIAL_ATP, "initial charge")
            return {"operation_id": operation.operation_id}

        self._once(key, _digest(str(INITIAL_ATP)), call)

    # -- everything ----------------------------------------------------------------------------

    def register_all(self, survey: Survey) -> None:
        """Register app, pack and modules, create every relationship, open every account.

        Safe to call again: what was done is only checked. Raises BridgeError, RegistrationFailed,
        UnknownOutcome.
        """
        app_id = self.register_app()
        pack_id = self.register_device(survey.pack)
        module_ids = [self.register_device(module) for module in survey.modules]
        self.create_relationship(APP_PACK, None, survey.pack)
        for module in survey.modules:
            self.create_relationship(PACK_MODULE, survey.pack, module)
        self.open_account(app_id)
        self.open_account(pack_id)
        for module_id in module_ids:
            self.open_account(module_id, pack_id)

    def forward_attestation(self, pack: Device, attested: Attested) -> Verification:
        """Give a pack's attestation to the bridge.

        `proven` of the answer says whether it checked the MAC.
        """
        return self.client.verify_statement(
            self.store.devices[pack.unique_id].component_id,
            self.store.component_id,
            attested.statement,
            attested.attestation.mac_lct,
            attested.lct_id,
        )
