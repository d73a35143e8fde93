"""Attack: a command is held back and delivered later.

Setting    a keyed pack; the attacker sits in the cable between two nodes and may delay what one of them receives.
Means      delay of chosen frames, or of all, as long as wanted; nothing is changed and nothing forged.
Success    would be a command obeyed more than four seconds after it was given: contactors that close when the operator
           has long thought better of it.
"""

import pytest

from attack_suite import Attack
from attacker import command, modules_of, obeyed, total, unharmed
from packtrust.messages.table import STATE_OFF, STATE_ON
from packtrust_node.slots import WANTED
from weakening import Weakening

ATTACK = Attack(
    name="held back",
    source='own; SPsec "not covered: response delay"',
    defence="a command cites the newest record of its receiver, who refuses what cites one older than 4 s",
    without="citations of any age",
    weakening=Weakening(
        (
            "packtrust.replay",
            "        return 0 <= self.age_ms(cited, now_ms) <= CITATION_MAX_AGE_MS",
            "        return True",
        ),
    ),
)


SECOND_NS = 1_000_000_000
BASE_MASK = 0x7FF << 18


def hold_back(bench, bus, sender, receiver, seconds, base=None):
    return bench.pack.add_fault(
        bus,
        kind="delay",
        sender=sender,
        receiver=receiver,
        delay_ns=int(seconds * SECOND_NS),
        code=0 if base is None else base << 18,
        mask=0 if base is None else BASE_MASK,
        extended=True,
    )


def watch(bench, seconds, right):
    """Let time pass; the times at which `right()` does not hold."""
    wrong = []
    for _ in range(int(seconds * 100)):
        bench.pack.run_for(10)
        if not right():
            wrong.append(bench.pack.now_ms)
    return wrong


def all_off(bench):
    return all(node.state == STATE_OFF and node.cells.current_ma == 0 for node in modules_of(bench))


@pytest.mark.parametrize("seconds", [4.2, 5, 9])
def test_a_state_command_to_a_module_late(keyed, seconds):
    """Only the command itself, so that the session stays alive: its counter is behind those of the polls."""
    faults = [hold_back(keyed, "module", "pack", name, seconds, 0x514) for name in ("module1", "module2")]
    given = keyed.node.set_state(STATE_ON)
    assert watch(keyed, 4, lambda: all_off(keyed)) == []
    # He takes his hands off; what he holds still comes.
    given = keyed.node.set_state(STATE_OFF)
    for fault in faults:
        assert keyed.pack.module_bus.faults.get(fault).hits > 0
    assert watch(keyed, seconds + 4, lambda: all_off(keyed)) == []
    assert all(total(node, "replay", "old", "stale") > 0 for node in modules_of(keyed))
    keyed.pack.module_bus.faults.clear()
    command(keyed, given, 30_000)
    unharmed(keyed)


def test_everything_to_a_module_late(keyed):
    """A slow cable: all records come in order, 4.5 s old. The citation tells."""
    module = keyed.pack.node("module1")
    hold_back(keyed, "module", "pack", "module1", 4.5)
    keyed.node.set_state(STATE_ON)
    assert watch(keyed, 9, lambda: module.state == STATE_OFF) == []
    assert total(module, "stale") > 0
    keyed.pack.module_bus.faults.clear()
    keyed.pack.run_for(6000)
    command(keyed, keyed.node.set_state(STATE_OFF), 30_000)
    unharmed(keyed)


@pytest.mark.parametrize("base", [0x400, None])
def test_a_command_to_the_pack_late(keyed, base):
    """From the app to the pack: the command alone, or the app's whole traffic."""
    pack = keyed.pack.node("pack")
    hold_back(keyed, "vcu", "app", "pack", 4.5, base)
    given = keyed.node.set_state(STATE_ON)
    assert watch(keyed, 4, lambda: all_off(keyed)) == []
    keyed.pack.run_until(lambda: given.done, 30_000)
    assert given.state != "obeyed"
    assert watch(keyed, 8, lambda: all_off(keyed)) == []
    assert all(slot.row[WANTED] == STATE_OFF for slot in pack.keyed_slots())
    assert total(pack, "replay", "old", "stale") > 0
    keyed.pack.vcu.faults.clear()
    keyed.pack.run_for(6000)
    unharmed(keyed)


def test_control_half_a_second_late_is_obeyed(keyed):
    for name in ("module1", "module2"):
        hold_back(keyed, "module", "pack", name, 0.5)
    given = command(keyed, keyed.node.set_state(STATE_ON), 20_000)
    assert given.state == "obeyed"
    keyed.pack.module_bus.faults.clear()
    keyed.pack.run_for(2000)
    obeyed(keyed, STATE_OFF)
    unharmed(keyed)


def carry_out(bench):
    """All to a module comes 4.5 s late, a command to switch On among it."""
    module = bench.pack.node("module1")
    hold_back(bench, "module", "pack", "module1", 4.5)
    bench.node.set_state(STATE_ON)
    late = watch(bench, 7, lambda: module.state == STATE_OFF)
    return "a command is obeyed 4.5 s late" if late else ""


def test_attack(keyed):
    assert carry_out(keyed) == ""


def test_control(weak):
    assert carry_out(weak)
