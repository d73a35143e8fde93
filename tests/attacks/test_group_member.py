"""Attack: a module that holds the group key plays the pack.

Setting    a keyed pack of two modules with a group key; module 1 does what the attacker wants.
Means      the group key out of module 1's RAM: any broadcast, under any counter; also while the pack has no power.
Success    would be module 2 raised by a broadcast, or kept On by broadcasts when its pack is gone.
"""

import pytest

from attack_suite import Attack
from attacker import attacker, group_cipher, heartbeat, leave, modules_of, obeyed, unharmed
from packtrust.messages.table import STATE_OFF, STATE_ON
from weakening import Weakening

ATTACK = Attack(
    name="member of the group",
    source="SPsec attack_T7_injection_by_member; S13",
    defence="a broadcast only lowers and keeps nobody alive: liveness and raising take a record of the pair",
    without="broadcasts that count like records of the pair",
    weakening=Weakening(
        (
            "packtrust_node.module",
            "            if state < self.max_state:\n                self._lower(state)\n",
            "            self._pack.heard_ms = self.env.now_ms()\n            self._lower(state)\n",
        )
    ),
)


def raised(bench):
    one, two = modules_of(bench)
    cipher, beat = group_cipher(one)
    station = attacker(bench, "module")
    for step in range(100):
        station.send(*heartbeat(cipher, beat + 1000 + step, STATE_ON))
        bench.pack.run_for(20)
        if two.max_state != STATE_OFF or two.state != STATE_OFF:
            return "module 2 is raised by module 1"
    return ""


def kept_on(bench):
    obeyed(bench, STATE_ON)
    one, two = modules_of(bench)
    cipher, beat = group_cipher(one)
    bench.pack.power_off("pack")
    station = attacker(bench, "module")
    for step in range(115):
        station.send(*heartbeat(cipher, beat + 1000 + step, STATE_ON))
        bench.pack.run_for(100)
    return "module 2 is On 11.5 s after its pack's last word" if two.state != STATE_OFF else ""


WAYS = {"raise": raised, "keep alive": kept_on}


@pytest.mark.parametrize("way", WAYS)
def test_attack(keyed, way):
    assert keyed.pack.run_until(lambda: all(node._group for node in modules_of(keyed)), 5000)
    assert WAYS[way](keyed) == ""
    keyed.pack.power_on("pack")
    leave(keyed)
    unharmed(keyed)


@pytest.mark.parametrize("way", WAYS)
def test_control(weak, way):
    assert weak.pack.run_until(lambda: all(node._group for node in modules_of(weak)), 5000)
    assert WAYS[way](weak)
