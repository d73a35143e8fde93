"""Attack: a module that has left goes on to use the group key.

Setting    a keyed pack with its modules On; module 1 is taken away, or falls silent, and its key is in the attacker's hands.
Means      the group key as module 1 held it; broadcasts with counters far ahead.
Success    would be a module that obeys them two heartbeats after the pack has noticed.
"""

from attack_suite import Attack
from attacker import attacker, group_cipher, heartbeat, leave, obeyed, slot_of, unharmed
from packtrust.messages.table import STATE_OFF, STATE_ON
from weakening import Weakening

ATTACK = Attack(
    name="former member of the group",
    source="S13; own",
    defence="the group key changes when a member leaves, is released or falls silent for 4 s",
    without="a pack that keeps its group key",
    weakening=Weakening(
        (
            "packtrust_node.broadcast",
            "                if slot is None or not self._is_member(slot, now_ms):",
            "                if False:",
        ),
    ),
)


def carry_out(bench):
    one, two = bench.pack.node("module1"), bench.pack.node("module2")
    assert bench.pack.run_until(lambda: one._group is not None and two._group is not None, 5000)
    cipher, beat = group_cipher(one)
    obeyed(bench, STATE_ON)
    bench.pack.power_off("module1")
    assert bench.pack.run_until(lambda: not slot_of(bench, "module1").active(bench.pack.now_ms), 5000)
    bench.pack.run_for(1000)
    assert two.state == STATE_ON
    station = attacker(bench, "module")
    for step in range(20):
        station.send(*heartbeat(cipher, beat + 1_000_000 + step, STATE_OFF))
        bench.pack.run_for(50)
    return "module 2 obeys a module that has left" if two.state != STATE_ON else ""


def test_attack(keyed):
    assert carry_out(keyed) == ""
    leave(keyed)
    keyed.pack.power_on("module1")
    unharmed(keyed)


def test_control(weak):
    assert carry_out(weak)
