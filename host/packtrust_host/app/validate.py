"""Validation: every LCT of the key store against the bridge and against the live devices.

For each LCT: the bridge names the same two components; each component was registered with the
fingerprint the key store holds; each device proves that fingerprint now (PROVE); and the peer each
device uses for this LCT is the LCT's other end. Whatever differs is named.
"""

import json
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from packtrust_host.app.errors import AppError
from packtrust_host.app.keystore import ACTIVE, Device, RelationshipRecord
from packtrust_host.app.provisioner import Proven, Provisioner
from packtrust_host.app.tasks import Step, Work
from packtrust_host.bridge.client import BridgeClient
from packtrust_host.bridge.errors import BridgeError


@dataclass(frozen=True)
class Finding:
    """Something that differs: in which LCT, which device (or "app", "bridge"), and what."""

    lct_id: str
    who: str
    problem: str


@dataclass
class Report:
    """What was validated. `checked` LCT ids in order; `findings` empty if all is as registered."""

    checked: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Something was checked, and nothing differs."""
        return bool(self.checked) and not self.findings

    @property
    def differing(self) -> list[str]:
        """Who differs, each once, in order."""
        return list(dict.fromkeys(finding.who for finding in self.findings))


class Validator:
    """Validates over a provisioner's node. `client` None.

    Without a bridge, devices and key store only.
    """

    def __init__(self, provisioner: Provisioner, client: BridgeClient | None) -> None:
        self._provisioner = provisioner
        self._store = provisioner.store
        self._client = client
        self._proofs: dict[int, Proven | str] = {}
        self._report = Report()

    def _find(self, record: RelationshipRecord, who: str, problem: str) -> None:
        self._report.findings.append(Finding(record.lct_id, who, problem))

    def run(self) -> Generator[Step, Any, Report]:
        """The script: a Report."""
        self._proofs = {}
        self._report = Report()
        yield from self._hear()
        for record in list(self._store.relationships.values()):
            self._report.checked.append(record.lct_id)
            if record.state != ACTIVE:
                self._find(record, "key store", "was never installed (%s)" % record.state)
            if self._client is not None:
                yield Work(lambda checked=record: self._check_bridge(checked))  # type: ignore[misc]
            yield from self._check_live(record)
        return self._report

    def _hear(self) -> Generator[Step, Any, None]:
        """What the devices did without us, and whether one has gone back in time."""
        for device in list(self._store.devices.values()):
            if not device.owned:
                continue
            try:
                reported = yield from self._provisioner.report(device)
            except AppError:
                continue  # its proof will say why
            if not reported.went_back:
                continue
            for record in self._store.relationships.values():
                if device.unique_id in (record.unique_id_a, record.unique_id_b):
                    self._find(record, device.name, "has gone back in time: its flash is an older copy")

    # -- the bridge's side ---------------------------------------------------------------------

    def _name(self, unique_id: int) -> str:
        device = self._store.devices.get(unique_id)
        return device.name if device is not None else "app"

    def _check_bridge(self, record: RelationshipRecord) -> None:
        assert self._client is not None
        try:
            stored = self._client.get_lct(record.lct_id)
        except BridgeError as error:
            self._find(record, "bridge", "does not show the LCT: " + error.cause)
            return
        if (stored.component_a, stored.component_b) != (record.component_a, record.component_b):
            self._find(
                record,
                "bridge",
                "names components %s and %s, the key store %s and %s"
                % (stored.component_a, stored.component_b, record.component_a, record.component_b),
            )
        if stored.status == "terminated":
            self._find(record, "bridge", "has ended the LCT")
        self._check_registered(record, record.component_a, record.unique_id_a, record.fingerprint_a)
        self._check_registered(record, record.component_b, record.unique_id_b, record.fingerprint_b)

    def _check_registered(
        self, record: RelationshipRecord, component_id: str, unique_id: int, fingerprint: bytes
    ) -> None:
        assert self._client is not None
        who = self._name(unique_id)
        try:
            data = json.loads(self._client.get_component(component_id).hardware_specs)
            registered = data["fingerprint"]
        except BridgeError as error:
            self._find(record, who, "component %s cannot be read: %s" % (component_id, error.cause))
            return
        except (ValueError, KeyError, TypeError):
            self._find(record, who, "component %s has no fingerprint registered" % component_id)
            return
        if registered != fingerprint.hex():
            self._find(
                record,
                who,
                "component %s is registered with fingerprint %.16s, the key store has %.16s"
                % (component_id, registered, fingerprint.hex()),
            )

    # -- the devices' side ---------------------------------------------------------------------

    def _check_live(self, record: RelationshipRecord) -> Generator[Step, Any, None]:
        if record.unique_id_a == 0 and record.fingerprint_a != self._store.fingerprint:
            self._find(record, "app", "its binding key is not the one of the LCT")
        ends = (
            (record.unique_id_a, record.fingerprint_a, record.fingerprint_b),
            (record.unique_id_b, record.fingerprint_b, record.fingerprint_a),
        )
        for unique_id, own, peer in ends:
            if unique_id == 0:
                continue
            device = self._store.devices.get(unique_id)
            if device is None:
                self._find(record, "device %08x" % unique_id, "is not in the key store")
                continue
            proof = yield from self._prove(device)
            if isinstance(proof, str):
                self._find(record, device.name, proof)
                continue
            if proof.fingerprint != own:
                self._find(
                    record,
                    device.name,
                    "proves fingerprint %.16s, its LCT has %.16s" % (proof.fingerprint.hex(), own.hex()),
                )
            self._check_relationship(record, device, proof, peer)

    def _check_relationship(self, record: RelationshipRecord, device: Device, proof: Proven, peer: bytes) -> None:
        used = proof.relationships.get(record.tag)
        if used is None:
            self._find(record, device.name, "holds no keys for this LCT")
            return
        epoch, fingerprint = used
        if fingerprint != peer:
            self._find(
                record,
                device.name,
                "is paired with fingerprint %.16s, the LCT's other end has %.16s" % (fingerprint.hex(), peer.hex()),
            )
        if epoch != record.epoch:
            self._find(record, device.name, "is in epoch %d, not %d" % (epoch, record.epoch))

    def _prove(self, device: Device) -> Generator[Step, Any, Proven | str]:
        """What the device proves, or why it does not; asked once a device."""
        if device.unique_id not in self._proofs:
            self._proofs[device.unique_id] = yield from self._ask(device)
        return self._proofs[device.unique_id]

    def _ask(self, device: Device) -> Generator[Step, Any, Proven | str]:
        try:
            identity = yield from self._provisioner.identify(device.node)
            if identity.unique_id != device.unique_id or identity.public_key != device.public_key:
                return "was swapped: %s (unique id %08x) answers in its place with another key" % (
                    identity.serial,
                    identity.unique_id,
                )
            return (yield from self._provisioner.prove(device))
        except AppError as error:
            return error.cause
