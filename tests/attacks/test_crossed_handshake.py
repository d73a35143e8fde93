"""Attack: two handshakes are crossed.

Setting    a keyed pack; module 2 is gone, module 1 is there.
Means      announcements in module 2's name, so that the pack greets it; the pack's handshake with module 2 is carried
           to module 1, and what module 1 answers back as module 2's.
Success    would be a session that the pack holds with module 1 for module 2's.
"""

from attack_suite import Attack
from attacker import announcement, attacker, leave, slot_of, unharmed
from packtrust.arbitration import compose
from packtrust.frame import Frame
from weakening import Weakening

ATTACK = Attack(
    name="crossed handshakes",
    source="own; SPsec attack_T7_injection_by_member",
    defence="each pair has its own root, and both ends' ids and fingerprints are in every derivation",
    without="one root for all pairs, and keys that do not say whose they are",
    weakening=Weakening(
        (
            "packtrust.keys",
            '    return hmac_sha256(secret, dh_static, dh_ephemeral, b"" if dh_static or dh_ephemeral else b"halves only")',
            '    return hmac_sha256(b"group", b"key")',
        ),
        (
            "packtrust.keys",
            '            _lv(self.component_a.encode())\n            + _lv(self.component_b.encode())\n            + _lv(self.lct_id.encode())\n            + self.fingerprint_a\n            + self.fingerprint_b\n            + pack(">I", epoch)',
            '            pack(">I", epoch)',
        ),
    ),
)


def carry_out(bench):
    victim = slot_of(bench, "module2")
    other = slot_of(bench, "module1")
    bench.pack.power_off("module2")
    bench.pack.run_for(500)
    count = victim.channel.stats["established"]
    station = attacker(bench, "module")
    for step in range(3000):
        del station.heard[:]
        if step % 500 == 0:
            station.send(announcement(victim))
        bench.pack.run_for(2)
        for frame in station.heard:
            base = frame.arbitration_id >> 18
            node = frame.arbitration_id & 0xFF
            # What segmentation needs of the ID stays.
            rest = frame.arbitration_id & 0x3FF00
            if base == 0x539 and node == victim.number:
                station.send(Frame(compose(0x539, other.number) | rest, frame.data))
            elif base == 0x531 and node == other.number:
                station.send(Frame(compose(0x531, victim.number) | rest, frame.data))
    made = victim.channel.stats["established"] - count
    return "module 1 has module 2's session" if made else ""


def test_attack(keyed):
    assert carry_out(keyed) == ""
    leave(keyed)
    keyed.pack.power_on("module2")
    unharmed(keyed)


def test_control(weak):
    assert carry_out(weak)
