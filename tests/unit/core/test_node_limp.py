"""Limp mode: entered and left by authentic silence alone, little current in it, and a defined end."""

from broadcasts import beats, forged, hold, is_broadcast, modules_of, play, switch_on
from nodebench import MODULE_BUS, VCU_BUS, clear_frame, keyed_bench
from packtrust.frame import Frame
from packtrust.messages.table import STATE_OFF, STATE_ON, STATE_STANDBY
from packtrust_node.limp import LEAVE_MS, STANDBY_MS
from packtrust_node.slots import LOST

LIMP_MA = -42000 // 4


def current(module):
    return module.cells.current_ma


def lose(bench, app, names, ms=4500):
    """Switch on, then modules off, and wait until they count as silent."""
    switch_on(bench, app)
    for name in names:
        bench.off(name)
    bench.run(ms)


def test_half_of_the_modules_silent_is_limp_mode():
    bench, app = keyed_bench(4)
    pack = bench.nodes["pack"]
    lose(bench, app, ["module3"])
    assert pack.modules_lost == 1 and not pack.limp.active
    assert {current(module) for module in modules_of(bench)} == {-20000}
    bench.off("module2")
    bench.run(4500)
    assert pack.modules_lost == 2 and pack.limp.active and pack.counters["limp"] == 1
    for module in modules_of(bench):
        assert module.limp and module.state == STATE_ON
        assert current(module) == LIMP_MA
    bench.run(1500)
    assert app.values["PACK_DIAGNOSTICS"]["limp"] == 1
    assert app.values_by[("MODULE_LIMITS", modules_of(bench)[0].own_node)]["max_discharge_ma"] == -LIMP_MA
    bench.sound()


def test_limp_mode_ends_at_standby():
    bench, app = keyed_bench(2)
    pack = bench.nodes["pack"]
    lose(bench, app, ["module1"])
    assert pack.limp.active
    bench.run(STANDBY_MS - 1000)
    assert modules_of(bench)[0].state == STATE_ON
    bench.run(1500)
    assert modules_of(bench)[0].state == STATE_STANDBY and pack.limp.active
    # The app knows, commands again, and has the same time once more.
    app.seal("COMMAND", contactor_state=STATE_ON)
    bench.run(STANDBY_MS - 1000)
    assert modules_of(bench)[0].state == STATE_ON and current(modules_of(bench)[0]) == LIMP_MA
    bench.run(1500)
    assert modules_of(bench)[0].state == STATE_STANDBY


def test_limp_mode_is_left_when_more_than_half_are_back():
    bench, app = keyed_bench(2)
    pack = bench.nodes["pack"]
    app.seal("LIMITS_COMMAND", module_id=0, max_charge_ma=9000, max_discharge_ma=15000)
    bench.run(300)
    lose(bench, app, ["module1"])
    assert pack.limp.active and current(modules_of(bench)[0]) == LIMP_MA
    bench.boot("module1")
    bench.until(lambda: not pack._order[0].row[LOST] and not pack._order[1].row[LOST], 5000)
    bench.run(LEAVE_MS - 500)
    assert pack.limp.active
    bench.run(1000)
    assert not pack.limp.active
    first = bench.nodes["module0"]
    bench.until(lambda: not first.limp, 1000)
    # As the app set it, and in the state it had.
    assert first.limits == (9000, 15000) and first.state == STATE_ON and current(first) == -15000


def test_coming_and_going_does_not_leave_it():
    bench, app = keyed_bench(2)
    pack = bench.nodes["pack"]
    lose(bench, app, ["module1"])
    since = pack.limp.entered
    for _ in range(2):
        bench.boot("module1")
        bench.run(4000)
        bench.off("module1")
        bench.run(4500)
        assert pack.limp.active and pack.limp.entered == since


def test_frames_that_prove_nothing_neither_enter_nor_leave_it():
    bench, app = keyed_bench(2)
    pack = bench.nodes["pack"]
    switch_on(bench, app)
    genuine = [frames for _, frames in beats(bench)][-1]
    for at in range(300):
        bench.inject(MODULE_BUS, clear_frame("STATUS_1", 1 + at % 2, state=0))
        bench.inject(MODULE_BUS, Frame(0x502 << 18 | 0x20300 | 1 + at % 2, bytes((at & 0xFF,) * 8)))
        bench.inject(MODULE_BUS, clear_frame("MAX_STATE", 0, max_state=0, limp=1))
        play(bench, [frame.copy() for frame in genuine])
        bench.inject(VCU_BUS, clear_frame("LIMITS_COMMAND", 0x40))
        bench.run(5)
    assert not pack.limp.active
    assert [(module.state, module.limp) for module in modules_of(bench)] == [(STATE_ON, False)] * 2
    bench.off("module1")
    bench.run(4500)
    assert pack.limp.active
    for _ in range(100):
        bench.inject(MODULE_BUS, clear_frame("STATUS_1", 2, state=3))
        bench.inject(MODULE_BUS, clear_frame("ANNOUNCEMENT", 2, manufacturer=2, part=3, unique_id=0xBA770002))
        bench.run(100)
    assert pack.limp.active


def test_a_broadcast_enters_it_and_only_the_pair_leaves_it():
    bench, app = keyed_bench(2)
    switch_on(bench, app)
    one, two = modules_of(bench)
    hold(bench, lambda frame: frame.arbitration_id & 0xFF == two.own_node)
    play(bench, forged(one, 16 | STATE_ON, 3), "module0")
    assert two.limp and two.state == STATE_ON and current(two) == LIMP_MA
    play(bench, forged(one, STATE_ON, 6), "module0")
    assert two.limp
    bench.spy = None
    bench.run(500)
    assert not two.limp and current(two) == -20000  # the pack's next poll


def test_a_module_that_hears_no_poll_is_in_limp_mode_and_then_off():
    """Jamming ends in Off: 6.5 s of authentic silence, little current; 11.1 s, none."""
    bench, app = keyed_bench(1)
    switch_on(bench, app)
    module = bench.nodes["module0"]
    hold(bench, lambda frame: not is_broadcast(MODULE_BUS, frame))
    bench.run(6300)
    assert not module.limp and current(module) == -20000
    bench.run(500)
    assert module.limp and module.state == STATE_ON and current(module) == LIMP_MA
    bench.run(4000)
    assert not current(module) == 0
    bench.run(600)
    assert module.state == STATE_OFF and current(module) == 0
    bench.spy = None
    bench.until(lambda: not module.limp, 15000)  # the pack has counted it as lost, and is in limp mode itself
    switch_on(bench, app)


def test_limits_of_its_own_and_of_the_app_hold_in_limp_mode():
    bench, app = keyed_bench(2, module_config={"limp_discharge_ma": 3000, "limp_charge_ma": 0})
    lose(bench, app, ["module1"])
    module = bench.nodes["module0"]
    assert module.limits == (0, 3000) and current(module) == -3000
    app.seal("LIMITS_COMMAND", module_id=module.own_node, max_charge_ma=5000, max_discharge_ma=2000)
    bench.run(300)
    assert module.limits == (0, 2000)


def test_a_silent_app_counts_before_limp_mode_does():
    bench, app = keyed_bench(2)
    lose(bench, app, ["module1"])
    app.keep_alive = False
    bench.run(1300)
    assert bench.nodes["module0"].state == STATE_OFF
