"""Attack: the LCT half is public, and with it the pack's statement is forged.

Setting    a keyed pack whose LCT half lies where anybody may read it (the field keeps it in chain state).
Means      the LCT half, everything on the buses, the pack's place on the VCU bus.
Success    would be a CAN key that follows from the LCT half, or a statement about the modules that the owner believes.
"""

from attack_suite import Attack
from attacker import PACK, Liar, leave
from packtrust import provision, report
from packtrust.crypto import hkdf_extract
from packtrust.handshake import INITIATOR, Handshake
from packtrust.keys import SIDE_A
from packtrust.policy import DEFAULT_POLICY
from packtrust_host.app.errors import AppError
from weakening import Weakening

ATTACK = Attack(
    name="public LCT half",
    source="S6",
    defence="the LCT half keys nothing on CAN; a statement to the owner has a MAC under the key shared with him",
    without="an owner who looks at the statement and not at its MAC",
    weakening=Weakening(
        (
            "packtrust.provision",
            "    if not compare_digest(mac_owner, hmac_sha256(",
            "    if False and not compare_digest(mac_owner, hmac_sha256(",
        ),
        ("packtrust.report", "    content = check_mac(key, REPORT, body, nonce)", "    content = bytes(body[:-32])"),
    ),
)


def lct_of(bench):
    return bench.store.app_pack(bench.survey.pack.unique_id)


def carry_out(bench):
    """In the pack's place: a statement in which module 1 is another device."""
    half = bytes(lct_of(bench).lct_half)
    real = bench.pack.node("pack")
    entries = [(slot.number, slot.unique_id, b"\x66" * 32, bytes(8), 1, 10) for slot in real.keyed_slots()]
    own = bytes(real.identity.fingerprint)
    bench.pack.add_fault("vcu", kind="loss", receiver="pack", code=0x431 << 18, mask=0x7FF << 18)
    liar = bench.pack.attach(Liar, "vcu", "liar")

    def answer(message):
        if message.kind == provision.STATUS:
            body = report.encode(bytes(32), message.body[:16], own, real.boot_counter, real.identity.counter, 0, 0, [])
            return [(provision.REPORT, message.target, body)]
        said = b"".join(provision.attestation(own, message.body[:16], len(entries), entries, bytes(32), half))
        body = bytearray(said[provision.HEAD :])
        body[-64:-32] = bytes(32)  # the MAC under a key he has not
        return [(provision.ATTESTATION, message.target, bytes(body))] if message.kind == provision.ATTEST else []

    liar.answer = answer
    try:
        attested = bench.run(bench.provisioner().attest(bench.survey.pack))
    except AppError:
        return ""
    finally:
        leave(bench, "liar")
    return "the owner believes a forged statement" if attested.attestation.entries == entries else ""


def test_attack(keyed):
    assert carry_out(keyed) == ""
    keyed.pack.vcu.faults.clear()
    assert keyed.run(keyed.provisioner().attest(keyed.survey.pack)).problems == []


def test_control(weak):
    assert carry_out(weak)


def test_a_statement_with_another_mac_is_none(keyed):
    """What stands behind the report's own MAC: the statement's."""
    half = bytes(lct_of(keyed).lct_half)
    body = b"".join(provision.attestation(bytes(32), bytes(16), 0, [], b"\x01" * 32, half))[provision.HEAD :]
    assert provision.parse_attestation(body, b"\x01" * 32, bytes(16)) is not None
    assert provision.parse_attestation(body, b"\x02" * 32, bytes(16)) is None


def test_no_session_key_follows_from_it(keyed):
    half = bytes(lct_of(keyed).lct_half)
    pack = keyed.pack.node("pack")
    real = pack.app.channel
    hello = Handshake(
        INITIATOR, pack.app.relation.root, real.relationship, real.epoch, SIDE_A, DEFAULT_POLICY.digest, 1, bytes(16)
    ).hello()
    answer = real._new_handshake(real.epoch).feed(hello)
    for guess in (half, half[:32], half[32:], hkdf_extract(b"", half), hkdf_extract(half, b"")):
        him = Handshake(INITIATOR, guess, real.relationship, real.epoch, SIDE_A, DEFAULT_POLICY.digest, 1, bytes(16))
        assert him.feed(answer) is None
    with_root = Handshake(
        INITIATOR, pack.app.relation.root, real.relationship, real.epoch, SIDE_A, DEFAULT_POLICY.digest, 1, bytes(16)
    )
    assert with_root.feed(answer) is not None
    assert pack.own_node == PACK
