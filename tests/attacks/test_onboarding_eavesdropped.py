"""Attack: who listens from the first frame on learns the keys.

Setting    a new pack is claimed, provisioned, used and rotated.
Means      every frame of both buses from power-up on; the field's transfer in clear and its rotation of bits are
           undone.
Success    would be six bytes in a row of any secret: halves, LCT half, claim codes, binding keys, roots, session keys.
"""

from attack_suite import Attack
from attacker import Secrets, Tap, commission, obeyed
from packtrust.messages.table import STATE_OFF, STATE_ON
from weakening import Weakening

ATTACK = Attack(
    name="onboarding eavesdropped",
    source="SPsec attack_integrator_key_eavesdropped; S1; S2",
    defence="halves travel in packages sealed to the device's own key (HPKE)",
    without="packages in clear, with a tag's worth of zeros behind them",
    weakening=Weakening(
        (
            "packtrust.package",
            "    wipe(plaintext)\n    receipt_key",
            "    ciphertext = bytes(plaintext) + bytes(16)\n    receipt_key",
        ),
        (
            "packtrust.package",
            "    plaintext, context = hpke.open(\n",
            "    receipt_key = bytearray(32)\n    return decode(bytes(sealed[32:-16])), sha256(sealed), receipt_key\n"
            "    plaintext, context = hpke.open(\n",
        ),
        (
            "packtrust.package",
            "    body = bytes((mode,)) + x25519_public",
            "    receipt_key = bytearray(32)\n    body = bytes((mode,)) + x25519_public",
        ),
    ),
)


def carry_out(bench):
    secrets = Secrets()
    secrets.of_nodes(bench)  # claim codes, before they are burnt
    taps = [Tap(bench, "vcu"), Tap(bench, "module")]
    with secrets:
        commission(bench)
        secrets.of_nodes(bench)
        for lct_id in list(bench.store.relationships):
            bench.run(bench.provisioner().install(lct_id))
        bench.pack.run_for(2000)
        secrets.of_nodes(bench)
        obeyed(bench, STATE_ON)
        obeyed(bench, STATE_OFF)
    frames = [frame for tap in taps for _, _, frame in tap.stop()]
    assert len(secrets.values) > 20 and len(frames) > 2000
    found = secrets.in_frames(frames)
    return "in clear on a bus: %s" % ", ".join(sorted(found)) if found else ""


def test_attack(fresh):
    assert carry_out(fresh) == ""


def test_control(weak_fresh):
    assert "half A" in carry_out(weak_fresh)
