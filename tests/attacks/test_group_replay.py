"""Attack: a broadcast of before is sent again, or held back.

Setting    a keyed pack whose heartbeat said Off; then its modules are commanded On.
Means      every broadcast of before, recorded or held back in the cable.
Success    would be a module that goes Off because of one: the word of a pack that meanwhile said something else.
"""

import pytest

from attack_suite import Attack
from attacker import Tap, attacker, leave, modules_of, obeyed, unharmed
from packtrust.arbitration import ENCRYPTED
from packtrust.messages.table import STATE_ON
from weakening import Weakening

ATTACK = Attack(
    name="broadcast replayed or held back",
    source="S13; SPsec attack_T3_replay",
    defence="broadcasts in strict order; every poll says which ones are old by now",
    without="a member that takes broadcasts in any order",
    weakening=Weakening(
        ("packtrust.group", "        if counter <= self.beat:", "        if False:"),
    ),
)


def carry_out(bench, way):
    bench.pack.run_for(1000)
    tap = Tap(bench, "module")
    if way == "held back":
        bench.pack.add_fault(
            "module", kind="loss", receiver="module1", sender="pack", code=0x517 << 18, mask=0x7FF << 18 | 0xFF
        )
    bench.pack.run_for(1000)
    old = [
        f
        for _, who, f in tap.stop()
        if who == "pack" and f.arbitration_id & (0x7FF << 18 | ENCRYPTED | 0xFF) == 0x517 << 18 | ENCRYPTED
    ]
    assert len(old) >= 15
    bench.pack.module_bus.faults.clear()
    obeyed(bench, STATE_ON)
    bench.pack.run_for(300)
    station = attacker(bench, "module")
    for frame in old * 2:
        station.send(frame)
        bench.pack.run_for(5)
        if any(node.state != STATE_ON for node in modules_of(bench)):
            return "a module goes Off by an old broadcast"
    return ""


@pytest.mark.parametrize("way", ["replayed", "held back"])
def test_attack(keyed, way):
    assert keyed.pack.run_until(lambda: all(node._group for node in modules_of(keyed)), 5000)
    assert carry_out(keyed, way) == ""
    leave(keyed)
    unharmed(keyed)


def test_control(weak):
    assert weak.pack.run_until(lambda: all(node._group for node in modules_of(weak)), 5000)
    assert carry_out(weak, "replayed")
