"""Attack: old modules take ciphertext for commands.

Setting    a bus with new modules and one of the field's, whose filter and parser know nothing of bit 17 (S19).
Means      none but the honest pack's own sealed traffic, and the same records again by a station on the bus, also moved to
           where old modules listen, with bit 17 set as it was.
Success    would be an old module that changes its state, its highest state or its clock, or isolates itself, by ciphertext
           of the pack; or a new module that takes a moved record.
"""

import pytest

from attack_suite import Attack
from broadcasts import modules_of
from nodebench import MODULE_BUS, keyed_bench
from oldmodule import OldModule
from packtrust.arbitration import ENCRYPTED
from packtrust.frame import Frame
from packtrust.messages.table import STATE_OFF, STATE_ON
from weakening import Weakening

ATTACK = Attack(
    name="mixed bus",
    source="S19",
    defence='on a mixed bus ("mixed_bus" of node.json) all sealed IDs are out of old modules\' filter',
    without="sealed IDs where clear ones are, as the field has proposed",
    weakening=Weakening(("packtrust_node.links", '    if not config.get("mixed_bus"):', "    if True:")),
)
MIXED = {"mixed_bus": True}


def carry_out(again):
    bench, app = keyed_bench(2, pack_config=MIXED, module_config=MIXED)
    olds = [OldModule(number) for number in (1, 3)]  # one with a number of its own, one with a new module's
    recorded = []

    def spy(bus, sender, frame):
        if bus == MODULE_BUS:
            if sender == "pack" and frame.arbitration_id & ENCRYPTED:
                recorded.append(frame.copy())
            for old in olds:
                old.on_frame(frame)
        return True

    bench.spy = spy
    app.seal("COMMAND", contactor_state=STATE_ON, balance=1)
    bench.run(500)
    app.seal("LIMITS_COMMAND", module_id=0, max_charge_ma=5000, max_discharge_ma=5000)
    app.seal("TIME", time_s=1234567890)
    bench.run(1500)
    app.seal("COMMAND", isolation=1)
    bench.run(1000)
    new = [(node.state, node.time_s, node.limits[1]) for node in modules_of(bench)]
    assert new == [(STATE_OFF, 1234567890, 5000)] * 2  # the pack has said all that there is to say
    assert len(recorded) > 200
    if again:
        bench.spy = None
        opened = [node._pack.channel.stats["opened"] for node in modules_of(bench)]
        for frame in recorded:
            bench.inject(MODULE_BUS, frame)
            bench.inject(MODULE_BUS, Frame(frame.arbitration_id - (0x100 << 18), frame.data))
        assert [node._pack.channel.stats["opened"] for node in modules_of(bench)] == opened
        return ""
    obeyed = [what for old in olds for what in old.obeyed if what[2]]
    return "an old module obeys %d frames of ciphertext" % len(obeyed) if obeyed else ""


@pytest.mark.parametrize("again", [False, True], ids=["", "moved"])
def test_attack(again):
    assert carry_out(again) == ""


def test_control(weakness):
    assert carry_out(False)
