"""Attack: a node is made to shake hands with itself.

Setting    a keyed pack; module 1 is gone.
Means      announcements in module 1's name, so that the pack greets it; everything the pack says on module 1's
           handshake row comes back to it as if a module had said it.
Success    would be a session that the pack holds with nobody but itself.
"""

from attack_suite import Attack
from attacker import announcement, attacker, leave, slot_of, total, unharmed
from packtrust.arbitration import compose
from packtrust.frame import Frame
from weakening import Weakening

ATTACK = Attack(
    name="reflected handshake",
    source="own",
    defence="each side takes only the other role's messages, and the role is in the MAC",
    without="an initiator that answers a HELLO too",
    weakening=Weakening(
        (
            "packtrust.handshake",
            '            self.reason = "handshake-role"  # a message of our own role: reflection\n            return None',
            "            return self._on_hello(payload)",
        ),
    ),
)


def carry_out(bench):
    slot = slot_of(bench, "module1")
    bench.pack.power_off("module1")
    count = slot.channel.stats["established"]
    station = attacker(bench, "module")
    for step in range(4000):
        del station.heard[:]
        if step % 500 == 0:
            station.send(announcement(slot))
        bench.pack.run_for(2)
        for frame in station.heard:
            if frame.arbitration_id >> 18 == 0x539 and frame.arbitration_id & 0xFF == slot.number:
                station.send(Frame(compose(0x531, 0) | frame.arbitration_id & 0x3FFFF, frame.data))
    made = slot.channel.stats["established"] - count
    return "the pack holds a session with itself" if made else ""


def test_attack(keyed):
    refused = total(keyed.pack.node("pack"), "handshake-role")
    assert carry_out(keyed) == ""
    assert total(keyed.pack.node("pack"), "handshake-role") > refused
    leave(keyed)
    keyed.pack.power_on("module1")
    unharmed(keyed)


def test_control(weak):
    assert carry_out(weak)
