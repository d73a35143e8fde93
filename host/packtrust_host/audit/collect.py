"""Fetches what nodes have written into their audit logs, verifies it, and notes it in the pack's log (docs/audit.md).

Everything that speaks to a device is a script for `AppNode.spawn`.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from struct import pack
from typing import Any

from packtrust import audit, provision
from packtrust.crypto import wipe
from packtrust_host.app.errors import DeviceRefused, ProofFailed
from packtrust_host.app.keystore import Device
from packtrust_host.app.provisioner import Provisioner
from packtrust_host.app.tasks import Step
from packtrust_host.audit.log import AuditLogs, name_of
from packtrust_host.audit.verify import NODE_ENTRY, NODE_LOG, key_of

_ATTEMPTS = 3  # a log that grows while it is read


@dataclass
class Collected:
    """What one device had to say.

    entries   how many were new;  lost  how many were overwritten before anybody read them
    signs     names of the signs it has latched;  score  its interference now
    """

    device: Device
    entries: list[audit.Entry] = field(default_factory=list)
    lost: int = 0
    following: int = 0
    signs: list[str] = field(default_factory=list)
    score: int = 0


@dataclass
class _Known:
    """What the pack's log has of one device: the first key's id, the first number, where it goes on, chain there."""

    key_id: str
    start: int
    following: int
    chain: bytes


class Collector:
    """Collects from the devices of one pack into its log."""

    def __init__(self, provisioner: Provisioner, logs: AuditLogs) -> None:
        self._provisioner = provisioner
        self._store = provisioner.store
        self._logs = logs

    def collect(self, device: Device, log_name: str) -> Generator[Step, Any, Collected]:
        """Everything new of one device.

        Raises NoAnswer, DeviceRefused, and ProofFailed, which names the entry that is not true.
        """
        found = Collected(device)
        known = self._known(device, log_name)
        noted: list[dict[str, Any]] = []
        for _ in range(1000):
            part, first_key, key_id = yield from self._ask(device, 0 if known is None else known.following)
            if known is None or known.key_id != key_id or part.first > known.following:
                if known is not None and known.key_id == key_id:
                    found.lost += part.first - known.following
                elif part.first > part.start:
                    found.lost += part.first - part.start
                known = _Known(key_id, part.start, part.first, part.before)
                noted.append(
                    {
                        "what": NODE_LOG,
                        "device": "%08x" % device.unique_id,
                        "key_id": key_id,
                        "start": part.start,
                        "first": part.first,
                        "before": part.before.hex(),
                        "lost": found.lost,
                    }
                )
            self._take(device, part, first_key, known, found, noted)
            found.following = part.following
            found.signs = audit.sign_names(part.signs)
            found.score = part.score
            if known.following == part.following:
                break
        if known is not None and known.chain != part.chain:
            raise self._untrue(device, known.following - 1, "the chain ends otherwise")
        self._logs.append(log_name, noted)
        return found

    def _known(self, device: Device, log_name: str) -> _Known | None:
        name = "%08x" % device.unique_id
        known = None
        for entry in self._logs.entries(log_name):
            if entry.get("device") != name:
                continue
            if entry.get("what") == NODE_LOG:
                before = bytes.fromhex(entry["before"])
                known = _Known(entry["key_id"], int(entry["start"]), int(entry["first"]), before)
            elif entry.get("what") == NODE_ENTRY and known is not None:
                raw = bytes.fromhex(entry["entry"])
                known.chain = audit.link(known.chain, raw)
                known.following += 1
        return known

    def _ask(self, device: Device, first: int) -> Generator[Step, Any, tuple[audit.Part, bytearray, str]]:
        """A part of the log that proves its end, the first key of that log, and the key's id."""
        nonce = self._provisioner.node.env.urandom(audit.NONCE_LENGTH)
        key = self._provisioner.owner_key(device)
        question = provision.with_mac(key, provision.AUDIT, pack(">I", first) + nonce)
        body = yield from self._provisioner.node.requests.ask(provision.AUDIT, device.node, question, who=device.name)
        part = audit.parse_part(body)
        if part is None or part.following < part.start:
            raise ProofFailed("%s sent a malformed audit log" % device.name, "check its firmware's version")
        name = "%08x " % device.unique_id
        for known, first_key in self._store.node_log_keys.items():
            if not known.startswith(name):
                continue
            present = key_of(first_key, part.following - part.start)
            reported = audit.is_reported(body, present, nonce)
            wipe(present)
            if reported:
                return part, first_key, known.removeprefix(name)
        raise ProofFailed(
            "%s sent an audit log that it cannot vouch for" % device.name,
            "its end was cut off, or its key is not the one it was claimed with: see `packtrust validate`",
        )

    def _take(
        self,
        device: Device,
        part: audit.Part,
        first_key: bytearray,
        known: _Known,
        found: Collected,
        noted: list[dict[str, Any]],
    ) -> None:
        if part.first != known.following or part.before != known.chain:
            raise self._untrue(device, known.following, "it does not continue what was read before")
        if not part.entries and part.first != part.following:
            raise self._untrue(device, known.following, "it is left out")
        key = key_of(first_key, part.first - part.start)
        for raw, mac in part.entries:
            entry = audit.parse_entry(raw)
            if entry is None or entry.number != known.following:
                raise self._untrue(device, known.following, "it is malformed")
            known.chain = audit.link(known.chain, raw)
            if mac != audit.entry_mac(key, known.chain):
                raise self._untrue(device, known.following, "its MAC is not of the key it was written under")
            following = audit.next_key(key)
            wipe(key)
            key = following
            known.following += 1
            found.entries.append(entry)
            noted.append(
                {
                    "what": NODE_ENTRY,
                    "device": "%08x" % device.unique_id,
                    "kind": entry.kind,
                    "entry": raw.hex(),
                    "mac": mac.hex(),
                }
            )
        wipe(key)

    @staticmethod
    def _untrue(device: Device, number: int, why: str) -> ProofFailed:
        return ProofFailed(
            "entry %d of the audit log of %s is not true: %s" % (number, device.name, why),
            "keep the device as it is: somebody has changed its memory, or answers for it",
        )

    def clear_signs(self, device: Device, following: int) -> Generator[Step, Any, int]:
        """Clear a device's latched signs as of entry number `following`; the number of its next entry.

        Raises DeviceRefused if it has written more since: collect again, and look at it first.
        """
        key = self._provisioner.owner_key(device)
        question = provision.with_mac(key, provision.CLEAR_SIGNS, pack(">I", following))
        try:
            body = yield from self._provisioner.node.requests.ask(
                provision.CLEAR_SIGNS, device.node, question, who=device.name
            )
        except DeviceRefused as error:
            if error.reason == provision.REFUSED_UNKNOWN:
                raise DeviceRefused(
                    "%s has written more since its log was read" % device.name,
                    "collect again, and look at it before you clear its signs",
                    error.reason,
                ) from None
            raise
        content = provision.check_mac(key, provision.SIGNS_CLEARED, body)
        if content is None or len(content) != 4:
            raise ProofFailed("%s did not prove that its signs are cleared" % device.name, "collect again")
        return int.from_bytes(content, "big")

    def collect_all(self, pack_device: Device) -> Generator[Step, Any, list[Collected]]:
        """From a pack and its modules, in order."""
        log_name = name_of(pack_device.unique_id)
        found = []
        for device in self.devices(pack_device):
            found.append((yield from self.collect(device, log_name)))
        return found

    def devices(self, pack_device: Device) -> list[Device]:
        """The pack and the modules it shares keys with."""
        store = self._store
        modules = [store.devices[record.unique_id_b] for record in store.modules_of(pack_device.unique_id)]
        return [pack_device, *modules]
