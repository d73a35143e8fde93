"""Attack: a module's place is taken by its unique id.

Setting    a keyed pack at work, modules On.
Means      announcements in clear: strangers under the keyed modules' numbers, the keyed modules' unique ids under others;
           registrations in clear that give a keyed module another number.
Success    would be a keyed module that loses its number, its slot or its session.
"""

from attack_suite import Attack
from attacker import attacker, clear_frame, modules_of, obeyed, sessions, unharmed
from packtrust.messages.table import STATE_ON
from weakening import Weakening

ATTACK = Attack(
    name="number taken",
    source="S15",
    defence="a keyed module keeps its number whatever is said in clear",
    without="a module that takes a number from anybody who knows its unique id",
    weakening=Weakening(
        (
            "packtrust_node.module",
            '                if self._is_keyed:\n                    self.count("clear")\n                elif 1 <=',
            "                if 1 <=",
        )
    ),
)


def carry_out(bench):
    obeyed(bench, STATE_ON)
    pack = bench.pack.node("pack")
    before = {slot.number: slot.unique_id for slot in pack.keyed_slots()}
    station = attacker(bench, "module")
    for number in (*range(1, 32), 0xFF):
        for unique_id in (0xDEAD0000 + number, *before.values()):
            values = {"manufacturer": 2, "part": 3, "unique_id": unique_id}
            station.send(clear_frame("ANNOUNCEMENT", number, firmware_build=1, **values))
            station.send(clear_frame("REGISTRATION", 0xFF, module_id=32 - number % 32, controller_id=0, **values))
        bench.pack.run_for(50)
    after = {node.own_node: node.unique_id for node in modules_of(bench)}
    if after != before:
        return "a keyed module has lost its number"
    return "" if sessions(bench) else "a keyed module has lost its session"


def test_attack(keyed):
    assert carry_out(keyed) == ""
    assert all(node.state == STATE_ON for node in modules_of(keyed))
    unharmed(keyed)


def test_control(weak):
    assert carry_out(weak)
