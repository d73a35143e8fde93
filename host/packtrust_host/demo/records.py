"""The sealed records of a bus log, opened with the session keys that existed.

Passive and independent of the nodes: tag, direction and sender are tried from the outside. A record that nobody's key
opens is reported as such.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from packtrust.arbitration import ENCRYPTED, base_of, clear_of, node_of
from packtrust.channel import CITATION_LENGTH
from packtrust.group import GROUP_DIRECTION, group_material
from packtrust.messages.bases import GROUP_KEY
from packtrust.policy import DEFAULT_POLICY
from packtrust.record import IV_BASE_LENGTH, OVERHEAD, RecordCipher, counter_of, iv_base_of

from .buslog import ISOTP, RECORD, BusLog, Transfer

MATERIAL_LENGTH = 32 + IV_BASE_LENGTH
INITIATOR_SENDS = 0
RESPONDER_SENDS = 1


@dataclass(frozen=True, slots=True)
class Opened:
    """An authentic record. `direction` 0: from the initiator (app, or pack to a module), 1: to it, 2: a broadcast."""

    bus: str
    base: int
    node: int
    direction: int
    counter: int
    start_us: int
    end_us: int
    data: bytes


@dataclass
class Records:
    """The records of one bus."""

    bus: str
    opened: list[Opened] = field(default_factory=list)
    unknown: list[Transfer] = field(default_factory=list)  # no key of any session
    forged: list[Transfer] = field(default_factory=list)  # a session's IV, and no key opens it
    short: list[Transfer] = field(default_factory=list)  # no room for IV and tag

    @property
    def bad(self) -> list[Transfer]:
        """Everything that is no authentic record."""
        return [*self.unknown, *self.forged, *self.short]

    def both_ways(self, node: int) -> tuple[int, int]:
        """Authentic records of a link from initiator to responder, and back."""
        counts = [0, 0]
        for item in self.opened:
            if item.node == node:
                counts[item.direction] += 1
        return counts[0], counts[1]


class KeyRing:
    """Session keys by IV base. `materials`: 36 bytes each (key and IV base); `senders`: fingerprints of everybody."""

    def __init__(self, materials: Iterable[bytes], senders: Iterable[bytes]) -> None:
        self._materials = {material[-IV_BASE_LENGTH:]: material for material in materials}
        self._fingerprints = {bytes(sender[:4]): bytes(sender) for sender in senders}
        self._ciphers: dict[bytes, tuple[RecordCipher, int, bytes]] = {}

    def __repr__(self) -> str:
        return "<KeyRing of %d session directions>" % len(self._materials)

    def knows(self, iv_base: bytes) -> bool:
        """Whether there was a session with this IV base."""
        return iv_base in self._materials

    def open(self, canonical_id: int, record: bytes) -> tuple[bytes, int] | None:
        """(plaintext with citation, direction), or None."""
        iv_base = iv_base_of(record)
        known = self._ciphers.get(iv_base)
        if known is not None:
            plaintext = known[0].open(canonical_id, record)
            return None if plaintext is None else (plaintext, known[1])
        material = self._materials.get(iv_base)
        if material is None:
            return None
        for direction in (INITIATOR_SENDS, RESPONDER_SENDS):
            for sender in self._fingerprints:
                cipher = RecordCipher(material[:-IV_BASE_LENGTH], iv_base, direction, sender)
                plaintext = cipher.open(canonical_id, record)
                if plaintext is not None:
                    self._ciphers[iv_base] = (cipher, direction, sender)
                    return plaintext, direction
        return None

    def learn_group(self, iv_base: bytes, secret: bytes) -> None:
        """A GROUP_KEY in a record with this IV base: the key of the broadcasts of whoever sealed it."""
        sender = self._ciphers[iv_base][2]
        material = group_material(secret, self._fingerprints[sender])
        base = material[-IV_BASE_LENGTH:]
        self._materials[base] = material
        cipher = RecordCipher(material[:-IV_BASE_LENGTH], base, GROUP_DIRECTION, sender)
        self._ciphers[base] = (cipher, GROUP_DIRECTION, sender)

    def used(self) -> Iterable[tuple[int, bytes, bytes, bytes]]:
        """(direction, key, iv_base, sender) of each direction that opened something: lines of a key log."""
        for iv_base, (_, direction, sender) in self._ciphers.items():
            yield direction, self._materials[iv_base][:-IV_BASE_LENGTH], iv_base, sender


def _record_of(transfer: Transfer) -> tuple[int, bytes] | None:
    """(full ID, record) of a sealed transfer; None for what is none, or broke off before its end."""
    if transfer.kind == RECORD:
        return transfer.identifier, transfer.payload
    if transfer.kind == ISOTP and transfer.identifier & ENCRYPTED and transfer.whole:
        return int.from_bytes(transfer.payload[:4], "big"), transfer.payload[4:]
    return None


def _plain(full_id: int, plaintext: bytes) -> bytes:
    """The message, without its citation; a broadcast has none."""
    cited = node_of(full_id) and DEFAULT_POLICY.needs_citation(base_of(full_id))
    return plaintext[CITATION_LENGTH:] if cited else plaintext


def _learn_groups(log: BusLog, ring: KeyRing) -> None:
    """Read the group keys first: a broadcast has a higher priority than the record that brings its key."""
    for transfer in log.transfers:
        sealed = _record_of(transfer)
        if sealed is None or base_of(sealed[0]) != GROUP_KEY or len(sealed[1]) < OVERHEAD:
            continue
        full_id, record = sealed
        found = ring.open(full_id, record)
        if found is not None:
            ring.learn_group(iv_base_of(record), _plain(full_id, found[0])[4:])


def open_all(log: BusLog, ring: KeyRing) -> Records:
    """Open every record of a bus."""
    _learn_groups(log, ring)
    records = Records(log.name)
    for transfer in log.transfers:
        sealed = _record_of(transfer)
        if sealed is None:
            continue
        full_id, record = sealed
        if len(record) < OVERHEAD:
            records.short.append(transfer)
            continue
        found = ring.open(full_id, record)
        if found is None:
            (records.forged if ring.knows(iv_base_of(record)) else records.unknown).append(transfer)
            continue
        plaintext, direction = found
        records.opened.append(
            Opened(
                log.name,
                base_of(full_id),
                node_of(clear_of(full_id)),
                direction,
                int(counter_of(record)),
                transfer.start_us,
                transfer.end_us,
                _plain(full_id, plaintext),
            )
        )
    return records
