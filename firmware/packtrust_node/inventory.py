"""What a pack tells its owner of its modules: LIST and ATTEST (docs/wire.md, section 7). Loaded on demand."""

from packtrust import provision
from packtrust._compat import const
from packtrust.isotp import Pieces
from packtrust_node.endpoint import Refusal
from packtrust_node.slots import BARE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from packtrust_node.pack import PackNode
    from packtrust_node.slots import Slot

# Flags of MODULES, beside provision.FLAG_KEYED.
FLAG_LIVE = const(4)

_NEVER = const(0xFFFFFFFF)


def answer(pack: "PackNode", kind: int, body: bytes) -> "tuple[int, bytes | Pieces]":
    """(kind, body) of the answer to LIST or ATTEST, as Endpoint. Raises Refusal."""
    if kind == provision.LIST:
        entries = []
        for number in sorted(pack.slots):
            slot = pack.slots[number]
            flags = provision.FLAG_KEYED if slot.keyed and not slot.row[BARE] else 0
            if slot.established:
                flags |= FLAG_LIVE
            entries.append((number, slot.unique_id, flags))
        return provision.MODULES, provision.encode_entries(provision.MODULE_ENTRY, entries)
    if kind == provision.ATTEST and len(body) == provision.NONCE_LENGTH:
        return provision.ATTESTATION, _attest(pack, body)
    raise Refusal(provision.REFUSED_UNKNOWN)


def _attest(pack: "PackNode", nonce: bytes) -> Pieces:
    """What the pack knows of its modules, for the owner, and under the LCT half for who holds that."""
    app = pack.app.relation
    lct_half = b"" if app is None else app.lct_half
    slots = list(pack.keyed_slots())
    key = pack.endpoint.owner_key()
    entries = _entries(pack, slots)
    return Pieces(provision.attestation(pack.identity.fingerprint, nonce, len(slots), entries, key, lct_half))


def _entries(pack: "PackNode", slots: "list[Slot]") -> "Iterator[tuple[int | bytes, ...]]":
    now_ms = pack.env.now_ms()
    for slot in slots:
        age_ms = slot.age_ms(now_ms)
        seen_ms = _NEVER if age_ms < 0 else min(age_ms, _NEVER - 1)
        yield slot.number, slot.unique_id, slot.peer_fingerprint, slot.tag, slot.epoch, seen_ms
