"""What a pack tells its owner of its modules: LIST and ATTEST (docs/wire.md, section 7). Loaded on demand."""

from packtrust import provision
from packtrust._compat import const
from packtrust_node.endpoint import Refusal
from packtrust_node.slots import BARE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust_node.pack import PackNode

# Flags of MODULES, beside provision.FLAG_KEYED.
FLAG_LIVE = const(4)

_NEVER = const(0xFFFFFFFF)


def answer(pack: "PackNode", kind: int, body: bytes) -> "tuple[int, bytes]":
    """(kind, body) of the answer to LIST or ATTEST. Raises Refusal."""
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


def _attest(pack: "PackNode", nonce: bytes) -> bytes:
    """What the pack knows of its modules, for the owner, and under the LCT half for who holds that."""
    key = pack.endpoint.owner_key()
    now_ms = pack.env.now_ms()
    entries = []
    for slot in pack.keyed_slots():
        age_ms = slot.age_ms(now_ms)
        entries.append(
            (
                slot.number,
                slot.unique_id,
                slot.peer_fingerprint,
                slot.tag,
                slot.epoch,
                _NEVER if age_ms < 0 else min(age_ms, _NEVER - 1),
            )
        )
    raw = provision.statement(pack.identity.fingerprint, nonce, entries)
    app = pack.app.relation
    return provision.attestation_body(raw, key, b"" if app is None else app.lct_half, nonce)
