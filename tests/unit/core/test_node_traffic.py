"""Registration, polls, commands, scope, loss of app, pack and module: a keyed pack, wired directly."""

from nodebench import MODULE_BUS, PACK_NODE, VCU_BUS, App, Bench, clear_frame, keyed_bench
from packtrust import package
from packtrust.channel import VCU_LINK, Channel
from packtrust.frame import Frame
from packtrust.handshake import INITIATOR
from packtrust.messages import decode
from packtrust.messages.table import (
    ASK_CELLS,
    ASK_COUNTERS,
    ASK_FAULT,
    RESULT_OBEYED,
    RESULT_REFUSED,
    RESULT_TIMEOUT,
    RESULT_UNREACHABLE,
    STATE_OFF,
    STATE_ON,
    STATE_PRECHARGE,
    STATE_STANDBY,
)
from packtrust_node.cells import EcmCells
from packtrust_node.commands import REASON_MODULE, REASON_SCOPE, REASON_SUPERSEDED, REASON_VALUE
from packtrust_node.module import ModuleNode
from packtrust_node.slots import LOST, MISSES
from portable import raises

ENCRYPTED = 0x20000
COMMAND = 0x00
MODULE_COMMAND = 0x04
LIMITS_COMMAND = 0x3A


def modules_of(bench):
    return [node for name, node in bench.nodes.items() if name != "pack"]


def outcome(app, since=0):
    """(command, module, result, reason) of the results since."""
    return sorted([result[:4] for result in app.results[since:]])


def switch_on(bench, app):
    app.seal("COMMAND", contactor_state=STATE_ON)
    bench.run(200)
    for module in modules_of(bench):
        assert module.state == STATE_ON
    del app.results[:]


# -- registration ------------------------------------------------------------------------------------------------------


def test_modules_are_registered_and_announce_no_more():
    bench = Bench(3)
    bench.keep = 2000
    pack = bench.nodes["pack"]
    bench.until(lambda: len(pack.slots) == 3)
    bench.run(100)
    assert sorted([module.own_node for module in modules_of(bench)]) == [1, 2, 3]
    unregistered = bench.frames(MODULE_BUS, 0x500, since_ms=1000)
    assert len([frame for _, frame in unregistered if frame.arbitration_id & 0xFF == 0xFF]) == 3
    at_ms, frame = unregistered[0]
    # Build 8278, manufacturer 2, part 3, unique id.
    assert bytes(frame.data)[:4] == b"\x56\x20\x02\x03" and at_ms <= 1000 + 50
    bench.run(900)
    assert bench.frames(MODULE_BUS, 0x500, since_ms=1200) == []


def test_module_asks_again_until_it_is_registered():
    bench = Bench(1)
    bench.off("pack")
    bench.run(3500)
    assert len(bench.frames(MODULE_BUS, 0x500)) == 4
    bench.boot("pack")
    bench.until(lambda: modules_of(bench)[0].own_node == 1)


def test_rebooted_module_keeps_its_number():
    bench = Bench(3)
    bench.until(lambda: len(bench.nodes["pack"].slots) == 3)
    bench.run(100)
    before = bench.nodes["module1"].own_node
    bench.boot("module1")
    bench.until(lambda: bench.nodes["module1"].own_node == before)
    assert len(bench.nodes["pack"].slots) == 3


def test_registration_for_another_module_is_not_taken():
    bench = Bench(1)
    bench.off("pack")
    module = modules_of(bench)[0]
    good = {"module_id": 9, "manufacturer": 2, "part": 3, "unique_id": module.unique_id}
    for wrong in ({"unique_id": 5}, {"manufacturer": 9}, {"part": 9}, {"module_id": 0}, {"module_id": 32}):
        values = dict(good)
        values.update(wrong)
        bench.inject(MODULE_BUS, clear_frame("REGISTRATION", 0xFF, **values))
        assert module.own_node == 0xFF
    bench.inject(MODULE_BUS, clear_frame("REGISTRATION", 0xFF, **good))
    assert module.own_node == 9
    bench.inject(MODULE_BUS, clear_frame("DEREGISTER", 9))
    assert module.own_node == 0xFF


def test_flood_of_announcements_takes_no_keyed_number_and_ends():
    bench, _ = keyed_bench(2)
    pack = bench.nodes["pack"]
    keyed = {slot.number: slot.unique_id for slot in pack.keyed_slots()}
    for unique_id in range(1, 60):
        frame = clear_frame("ANNOUNCEMENT", unique_id % 40, manufacturer=2, part=3, unique_id=unique_id)
        bench.inject(MODULE_BUS, frame)
    assert len(pack.slots) == 31 and pack.counters["full"] > 0 and pack.counters["number-taken"] > 0
    assert {slot.number: slot.unique_id for slot in pack.keyed_slots()} == keyed
    bench.run(500)
    assert all(slot.established for slot in pack.keyed_slots())
    # When the intruders are silent their numbers are free again, and then they are forgotten.
    bench.run(12000)
    assert len(pack.slots) == 31
    bench.inject(MODULE_BUS, clear_frame("ANNOUNCEMENT", 0xFF, manufacturer=2, part=3, unique_id=99))
    assert [slot.number for slot in pack.slots.values() if slot.unique_id == 99] == [3]
    bench.run(14000)
    assert sorted(pack.slots) == [1, 2, 3]
    bench.sound()


def test_pack_announces_itself():
    bench = Bench(1)
    bench.keep = 2000
    bench.run(3500)
    frames = bench.frames(VCU_BUS, 0x436)
    assert 3 <= len(frames) <= 4
    frame = frames[-1][1]
    assert frame.arbitration_id & 0xFF == PACK_NODE
    values = decode("PACK_ANNOUNCEMENT", frame.data)
    assert (values["version"], values["claimed"], values["keyed"], values["module_count"]) == (1, 0, 0, 1)
    assert values["unique_id"] == 0x50000001
    bench, _ = keyed_bench(1)
    bench.only = lambda bus, frame: frame.arbitration_id >> 18 == 0x436
    del bench.log[:]
    bench.run(5000)
    assert len(bench.frames(VCU_BUS, 0x436)) <= 1
    since_ms = bench.now_ms
    bench.inject(VCU_BUS, clear_frame("APP_ANNOUNCE_REQUEST", 0x7F, version=1))
    bench.run(100)
    frame = bench.frames(VCU_BUS, 0x436, since_ms=since_ms)[-1][1]
    values = decode("PACK_ANNOUNCEMENT", frame.data)
    assert (values["claimed"], values["keyed"]) == (1, 1)


# -- traffic -----------------------------------------------------------------------------------------------------------


def test_everything_but_announcements_is_sealed_once_keyed():
    bench, _ = keyed_bench(2)
    clear = set()
    sealed = set()

    def watch(bus, sender, frame):
        if frame.is_extended_id:
            (sealed if frame.arbitration_id & ENCRYPTED else clear).add((bus, frame.arbitration_id >> 18))

    bench.spy = watch
    bench.run(3000)
    assert clear <= {(MODULE_BUS, 0x500), (MODULE_BUS, 0x51D), (VCU_BUS, 0x436)}
    for base in (0x502, 0x503, 0x504, 0x505, 0x507, 0x50A, 0x512, 0x515, 0x517):
        assert (MODULE_BUS, base) in sealed
    for base in (0x410, 0x411, 0x412, 0x413, 0x414, 0x439, 0x43C, 0x43D):
        assert (VCU_BUS, base) in sealed
    bench.sound()


def test_polls_are_answered_and_the_burst_keeps_its_period():
    bench, app = keyed_bench(3)
    pack = bench.nodes["pack"]
    bench.only = lambda bus, frame: bus == VCU_BUS and not frame.is_extended_id
    del bench.log[:]
    since_ms = bench.now_ms
    answered = pack.latency.answered
    bench.run(6000)
    assert pack.latency.missed == 0 and pack.latency.answered - answered == 60
    times = [at_ms for at_ms, bus, _, frame in bench.log if bus == VCU_BUS and frame.arbitration_id == 0x410]
    assert len(times) == 12
    assert [times[at + 1] - times[at] for at in range(11)] == [500] * 11
    # All eight frames, and the request for the time, each with eight bytes.
    one = [
        frame.arbitration_id
        for at_ms, bus, _, frame in bench.log
        if bus == VCU_BUS and not frame.is_extended_id and at_ms == times[0]
    ]
    assert one == [0x410, 0x421, 0x422, 0x423, 0x425, 0x428, 0x429, 0x430, 0x440]
    # The same data to the app, sealed.
    standard = [f for at_ms, bus, _, f in bench.log if bus == VCU_BUS and f.arbitration_id == 0x422][-1]
    assert app.values["PACK_CELL_VOLTAGE"] == decode("PACK_CELL_VOLTAGE", standard.data)
    assert app.values["MODULE_STATE"]["modules_active"] == 3
    assert sorted([number for name, number in app.values_by if name == "CELL_DETAIL"]) == [1, 2, 3]
    assert bench.now_ms - since_ms == 6000
    bench.sound()


def test_late_ticks_do_not_add_up():
    bench, _ = keyed_bench(1)
    pack = bench.nodes["pack"]
    on_tick = pack.on_tick
    pack.on_tick = lambda: on_tick() + 7  # a slow loop
    bench.only = lambda bus, frame: frame.arbitration_id == 0x410
    bench.run(500)
    del bench.log[:]
    bench.run(10000)
    times = [at_ms for at_ms, _, _, _ in bench.log]
    assert len(times) == 20
    for at in range(20):
        assert abs(times[at] - times[0] - 500 * at) <= 20
    assert pack.bursts_late == 0


def test_pack_number_offsets_the_standard_ids():
    bench = Bench(0, {"pack": 1})
    bench.keep = 1000
    bench.run(1100)
    ids = set([frame.arbitration_id for _, bus, _, frame in bench.log if bus == VCU_BUS and not frame.is_extended_id])
    assert 0x510 in ids and 0x540 in ids and 0x410 not in ids
    assert bench.nodes["pack"].own_node == 0x41


def test_all_cells_reach_the_app():
    bench, app = keyed_bench(1)
    cells = set()
    take = app.take

    def watch(event):
        take(event)
        if event.arbitration_id >> 18 == 0x439:
            cells.add(app.values["CELL_DETAIL"]["cell_id"])

    app.take = watch
    bench.run(700)
    assert cells == set(range(6))
    cells.clear()
    app.seal("DIAGNOSTICS_REQUEST", module_id=1, what=ASK_CELLS)
    bench.run(100)
    assert cells == set(range(6))
    module = modules_of(bench)[0]
    assert app.values["CELL_DETAIL"]["cell_mv"] == module.cells.cell_mv(app.values["CELL_DETAIL"]["cell_id"])
    bench.sound()


# -- commands ----------------------------------------------------------------------------------------------------------


def test_state_command_reaches_status_and_current():
    bench, app = keyed_bench(2)
    for module in modules_of(bench):
        assert module.state == STATE_OFF and module.cells.current_ma == 0
    counter = app.channel._session.sealed + 1
    app.seal("COMMAND", contactor_state=STATE_ON)
    bench.deliver()
    # No time has passed: the command went through the pack, the status came back.
    for module in modules_of(bench):
        assert module.state == STATE_ON and module.cells.current_ma == -20000
        values = app.values_by[("MODULE_STATE", module.own_node)]
        assert values["state"] == STATE_ON
        assert app.values_by[("MODULE_POWER", module.own_node)]["current_ma"] == -20000
    assert outcome(app) == [(COMMAND, 1, RESULT_OBEYED, 0), (COMMAND, 2, RESULT_OBEYED, 0)]
    assert app.results[0][4] == counter
    bench.run(1000)
    assert app.values["BMS_STATE"]["state"] == STATE_ON
    assert app.values["PACK_POWER"]["current_ma"] == -40000
    assert app.values["MODULE_STATE"]["status"] == 2
    app.seal("COMMAND", contactor_state=STATE_OFF)
    bench.deliver()
    for module in modules_of(bench):
        assert module.state == STATE_OFF and module.cells.current_ma == 0
    bench.sound()


def test_module_command_moves_one_module():
    bench, app = keyed_bench(2)
    app.seal("MODULE_COMMAND", module_id=2, contactor_state=STATE_PRECHARGE, hv_bus_mv=300000)
    bench.run(1000)
    assert sorted([(module.own_node, module.state) for module in modules_of(bench)]) == [(1, 0), (2, 2)]
    assert outcome(app) == [(MODULE_COMMAND, 2, RESULT_OBEYED, 0)]
    assert app.values["BMS_STATE"]["state"] == STATE_PRECHARGE
    app.seal("MODULE_COMMAND", module_id=9, contactor_state=STATE_ON)
    bench.run(50)
    assert outcome(app, 1) == [(MODULE_COMMAND, 9, RESULT_REFUSED, REASON_MODULE)]


def test_limits_reach_the_current():
    bench, app = keyed_bench(2)
    switch_on(bench, app)
    app.seal("LIMITS_COMMAND", module_id=0, max_charge_ma=5000, max_discharge_ma=12000)
    bench.run(500)
    for module in modules_of(bench):
        assert module.cells.current_ma == -12000 and module.limits == (5000, 12000)
        assert app.values_by[("MODULE_LIMITS", module.own_node)]["max_discharge_ma"] == 12000
    assert outcome(app) == [(LIMITS_COMMAND, 1, RESULT_OBEYED, 0), (LIMITS_COMMAND, 2, RESULT_OBEYED, 0)]
    # The pack's own limits follow, and the hardware's are never exceeded.
    bench.run(600)
    assert app.values["PACK_LIMITS"]["max_discharge_ma"] == 24000
    app.seal("LIMITS_COMMAND", module_id=1, max_charge_ma=600000, max_discharge_ma=600000)
    bench.run(200)
    for module in modules_of(bench):
        assert module.limits == ((10000, 42000) if module.own_node == 1 else (5000, 12000))
    app.seal("LIMITS_COMMAND", module_id=1, max_charge_ma=-5000, max_discharge_ma=-5000)
    bench.run(200)
    for module in modules_of(bench):
        if module.own_node == 1:
            assert module.limits == (0, 0) and module.cells.current_ma == 0
    bench.sound()


def test_balancing_is_commanded_and_shown():
    bench, app = keyed_bench(1, module_config={"cells": {"count": 6, "seed": 3, "load_ma": 0}})
    module = modules_of(bench)[0]
    app.seal("COMMAND", balance=1)
    bench.run(500)
    assert module.balancing and module.cells.balancing
    assert app.values_by[("MODULE_STATE", 1)]["balancing"] == 1
    assert app.values_by[("MODULE_FAULT", 1)]["fault_code"] == 0
    assert [result[2] for result in app.results] == [RESULT_OBEYED, RESULT_OBEYED]
    app.seal("COMMAND", balance=0)
    bench.run(500)
    assert not module.cells.balancing and app.values_by[("MODULE_STATE", 1)]["balancing"] == 0
    app.seal("COMMAND", balance=2)
    bench.run(50)
    assert app.results[-1][2:4] == (RESULT_REFUSED, REASON_VALUE)


def test_isolation_opens_everything():
    bench, app = keyed_bench(2)
    switch_on(bench, app)
    app.seal("COMMAND", contactor_state=STATE_ON, isolation=1)
    bench.run(100)
    for module in modules_of(bench):
        assert module.state == STATE_OFF and module.max_state == STATE_OFF
    bench.run(3000)
    for module in modules_of(bench):
        assert module.state == STATE_OFF


def test_time_is_passed_on_and_no_longer_asked_for():
    bench, app = keyed_bench(1)
    bench.only = lambda bus, frame: frame.arbitration_id == 0x440
    app.seal("TIME", time_s=1760000000)
    bench.run(3000)
    module = modules_of(bench)[0]
    assert module.time_s == 1760000000
    assert bench.nodes["pack"].time_s() == 1760000003
    since_ms = bench.now_ms
    bench.run(1000)
    assert [f for at_ms, _, _, f in bench.log if at_ms > since_ms and f.arbitration_id == 0x440] == []
    module = bench.boot("module0")
    bench.until(lambda: module.time_s >= 1760000003)


def test_diagnostics_and_lists():
    bench, app = keyed_bench(2)
    del app.values["PACK_DIAGNOSTICS"]
    app.seal("DIAGNOSTICS_REQUEST", module_id=0, what=ASK_COUNTERS)
    app.seal("REQUEST_MODULE_LIST")
    bench.run(20)
    assert app.values["PACK_DIAGNOSTICS"]["sessions"] == 3
    assert app.values["MODULE_LIST"]["modules"] == 0b110
    app.values_by.clear()
    app.seal("DIAGNOSTICS_REQUEST", module_id=2, what=ASK_FAULT)
    bench.deliver()
    assert ("MODULE_FAULT", 2) in app.values_by and ("MODULE_FAULT", 1) not in app.values_by
    for module, what, reason in ((9, ASK_FAULT, REASON_MODULE), (1, 77, REASON_VALUE)):
        app.seal("DIAGNOSTICS_REQUEST", module_id=module, what=what)
        bench.deliver()
        assert app.results[-1][1:4] == (module, RESULT_REFUSED, reason)
    app.seal("READ_EEPROM", register=3)
    bench.deliver()
    assert app.values["EEPROM_DATA"] == {"register": 3, "value": 0}
    app.seal("READ_EEPROM", register=1)
    app.seal("WRITE_EEPROM", register=3, value=1)
    bench.deliver()
    assert [result[2:4] for result in app.results[-2:]] == [(RESULT_REFUSED, REASON_VALUE)] * 2
    bench.sound()


def test_scope_is_enforced_by_the_pack():
    bench, app = keyed_bench(1, scope=package.SCOPE_LIMITS)
    pack = bench.nodes["pack"]
    module = modules_of(bench)[0]
    app.seal("COMMAND", contactor_state=STATE_ON)
    app.seal("MODULE_COMMAND", module_id=1, contactor_state=STATE_ON)
    app.seal("COMMAND", balance=1)
    app.seal("COMMAND", isolation=1)
    app.seal("TIME", time_s=5)
    app.seal("READ_EEPROM", register=3)
    app.seal("DIAGNOSTICS_REQUEST", module_id=0, what=ASK_COUNTERS)
    bench.run(200)
    assert [result[2:4] for result in app.results] == [(RESULT_REFUSED, REASON_SCOPE)] * 7
    assert pack.counters["scope"] == 7
    assert module.state == STATE_OFF and not module.balancing and module.time_s == 0
    app.seal("LIMITS_COMMAND", module_id=1, max_charge_ma=0, max_discharge_ma=1000)
    bench.run(200)
    assert app.results[-1][:4] == (LIMITS_COMMAND, 1, RESULT_OBEYED, 0)
    bench.sound()


def test_state_change_goes_no_higher_than_the_highest_state():
    bench, _ = keyed_bench(1)
    module = modules_of(bench)[0]
    neighbour = bench.nodes["pack"].slots[1]
    neighbour.seal(0x514, b"\x00\x03\x00\x00")
    bench.deliver()
    assert module.state == STATE_OFF
    neighbour.seal(0x517, b"\x01")
    neighbour.seal(0x514, b"\x00\x03")  # two bytes, as the field's emulator sends
    bench.deliver()
    assert module.state == STATE_STANDBY
    neighbour.seal(0x517, b"\x00")
    bench.deliver()
    assert module.state == STATE_OFF


def test_module_that_ignores_a_command_is_reported():
    bench, app = keyed_bench(1)
    module = modules_of(bench)[0]
    module._enter = lambda state: None
    app.seal("COMMAND", contactor_state=STATE_ON)
    bench.run(2500)
    assert app.results == []
    bench.run(700)
    assert outcome(app) == [(COMMAND, 1, RESULT_TIMEOUT, 0)]


def test_module_that_does_not_answer_is_unreachable():
    bench, app = keyed_bench(2)
    bench.boot("pack")
    bench.off("module1")
    pack = bench.nodes["pack"]
    app.channel.connect()
    bench.until(lambda: pack.app.established and len([s for s in pack.keyed_slots() if s.established]) == 1)
    app.seal("COMMAND", contactor_state=STATE_STANDBY)
    bench.run(100)
    assert sorted([result[2] for result in app.results]) == [RESULT_OBEYED, RESULT_UNREACHABLE]


def test_new_command_supersedes_the_old_one():
    bench, app = keyed_bench(1)
    module = modules_of(bench)[0]
    enter = module._enter
    module._enter = lambda state: None
    app.seal("COMMAND", contactor_state=STATE_ON)
    bench.run(100)
    module._enter = enter
    app.seal("COMMAND", contactor_state=STATE_STANDBY)
    bench.run(100)
    assert [result[2:4] for result in app.results] == [(RESULT_REFUSED, REASON_SUPERSEDED), (RESULT_OBEYED, 0)]
    bench.run(4000)
    assert module.state == STATE_STANDBY and len(app.results) == 2


def test_lost_state_change_is_sent_again():
    bench, app = keyed_bench(1)
    bench.spy = lambda bus, sender, frame: frame.arbitration_id >> 18 != 0x514
    app.seal("COMMAND", contactor_state=STATE_ON)
    bench.run(500)
    assert modules_of(bench)[0].state == STATE_OFF
    bench.spy = None
    bench.run(700)
    assert modules_of(bench)[0].state == STATE_ON
    assert outcome(app) == [(COMMAND, 1, RESULT_OBEYED, 0)]


def test_commands_wait_for_room_and_say_what_holds_then():
    bench, app = keyed_bench(2)
    modules = modules_of(bench)
    bench.only = lambda bus, frame: bus == MODULE_BUS
    since_ms = bench.now_ms
    bench.room = 14  # not three records
    app.seal("MODULE_COMMAND", module_id=1, contactor_state=STATE_ON)
    app.seal("LIMITS_COMMAND", module_id=0, max_charge_ma=5000, max_discharge_ma=12000)
    bench.run(300)
    app.seal("MODULE_COMMAND", module_id=1, contactor_state=STATE_PRECHARGE)
    bench.run(300)
    assert bench.frames(MODULE_BUS, 0x514, True, since_ms) == [] and modules[0].state == STATE_OFF
    assert outcome(app) == [(MODULE_COMMAND, 1, RESULT_REFUSED, REASON_SUPERSEDED)]
    bench.room = 15
    bench.run(100)
    assert [module.state for module in modules] == [STATE_PRECHARGE, STATE_OFF]
    assert [module.limits for module in modules] == [(5000, 12000)] * 2
    assert outcome(app, 1) == [
        (MODULE_COMMAND, 1, RESULT_OBEYED, 0),
        (LIMITS_COMMAND, 1, RESULT_OBEYED, 0),
        (LIMITS_COMMAND, 2, RESULT_OBEYED, 0),
    ]
    # One record with five chunks, and none for the state that held no more.
    assert len(bench.frames(MODULE_BUS, 0x514, True, since_ms)) == 5
    bench.sound()


def test_what_waits_for_room_is_bounded_however_often_the_app_asks():
    bench, app = keyed_bench(1)
    bench.room = 0
    for turn in range(30):
        app.seal("LIMITS_COMMAND", module_id=0, max_charge_ma=5000, max_discharge_ma=1000 * turn)
        app.seal("COMMAND", contactor_state=STATE_OFF, isolation=1)
        app.seal("TIME", time_s=1760000000 + turn)
        bench.deliver()
    waiting = bench.nodes["pack"].commands._outbox
    # Eight commands at most wait to be obeyed, beside one record of each other kind.
    assert len(waiting) <= 10, len(waiting)
    bench.room = 128
    bench.run(100)
    assert waiting == [] and modules_of(bench)[0].limits[1] == 29000
    bench.sound()


def test_a_lower_state_for_all_goes_to_all_at_once_and_needs_no_room_for_each():
    bench, app = keyed_bench(2)
    switch_on(bench, app)
    bench.room = 14
    app.seal("COMMAND", contactor_state=STATE_STANDBY)
    bench.deliver()
    for module in modules_of(bench):
        assert module.state == STATE_STANDBY  # by one record under the group's key
    bench.room = 128
    bench.run(100)
    assert outcome(app) == [(COMMAND, 1, RESULT_OBEYED, 0), (COMMAND, 2, RESULT_OBEYED, 0)]
    bench.sound()


# -- who falls silent --------------------------------------------------------------------------------------------------


def test_silent_app_lowers_the_pack_in_two_steps():
    bench, app = keyed_bench(2)
    switch_on(bench, app)
    bench.run(1000)
    app.keep_alive = False
    start_ms = app._alive_ms
    bench.run(start_ms + 580 - bench.now_ms)
    assert [module.state for module in modules_of(bench)] == [STATE_ON, STATE_ON]
    bench.run(100)
    assert [module.state for module in modules_of(bench)] == [STATE_STANDBY, STATE_STANDBY]
    bench.run(start_ms + 1300 - bench.now_ms)
    assert [module.state for module in modules_of(bench)] == [STATE_OFF, STATE_OFF]
    assert bench.nodes["pack"].counters["app-lost"] == 2
    # It comes back by command alone.
    app.keep_alive = True
    bench.run(3000)
    assert [module.state for module in modules_of(bench)] == [STATE_OFF, STATE_OFF]
    switch_on(bench, app)
    bench.sound()


def test_silent_app_matters_only_above_standby():
    bench, app = keyed_bench(1)
    app.seal("COMMAND", contactor_state=STATE_STANDBY)
    bench.run(100)
    app.keep_alive = False
    bench.run(5000)
    assert modules_of(bench)[0].state == STATE_STANDBY
    assert "app-lost" not in bench.nodes["pack"].counters


def test_module_without_its_pack_goes_off():
    bench, app = keyed_bench(1)
    switch_on(bench, app)
    bench.off("pack")
    module = modules_of(bench)[0]
    bench.run(11000)
    assert module.state == STATE_ON
    bench.run(300)
    assert module.state == STATE_OFF and module.counters["pack-lost"] == 1


def test_frames_without_keys_keep_no_module_alive():
    bench, app = keyed_bench(1)
    switch_on(bench, app)
    recorded = []
    bench.spy = lambda bus, sender, frame: recorded.append(frame) if bus == MODULE_BUS and sender == "pack" else None
    bench.run(300)
    bench.spy = None
    bench.off("pack")
    module = modules_of(bench)[0]
    for _ in range(120):
        for frame in recorded[:20]:
            bench.inject(MODULE_BUS, frame)
        bench.inject(MODULE_BUS, clear_frame("STATUS_REQUEST", module.own_node, max_state=3))
        bench.inject(MODULE_BUS, clear_frame("MAX_STATE", 0, max_state=3))
        bench.run(100)
    assert module.state == STATE_OFF and module.counters["pack-lost"] == 1
    assert module.counters["replay"] + module.counters.get("old", 0) > 100 and module.counters["clear"] > 200
    bench.sound()


def test_silent_module_is_counted_off_and_comes_back():
    bench, app = keyed_bench(2)
    pack = bench.nodes["pack"]
    bench.off("module1")
    bench.run(4700)
    assert pack.modules_lost == 1 and app.values["BMS_STATE"]["modules_active"] == 1
    assert app.values["BMS_STATE"]["module_fault"] == 1 and app.values["BMS_STATE"]["modules_total"] == 2
    assert pack.latency.missed > 0
    bench.boot("module1")
    bench.until(lambda: not [slot for slot in pack.keyed_slots() if slot.row[LOST] or slot.row[MISSES]])
    bench.run(1000)
    assert app.values["BMS_STATE"]["modules_active"] == 2 and app.values["BMS_STATE"]["module_fault"] == 0
    bench.sound()


def test_rebooted_pack_and_module_find_each_other():
    bench, app = keyed_bench(2)
    switch_on(bench, app)
    pack = bench.boot("pack")
    bench.until(lambda: len([slot for slot in pack.keyed_slots() if slot.established]) == 2, 3000)
    assert pack.boot_counter == 2
    # A pack that has forgotten what was commanded commands Off.
    bench.run(300)
    assert [module.state for module in modules_of(bench)] == [STATE_OFF, STATE_OFF]
    app.channel.connect()
    bench.until(lambda: pack.app.established)
    module = bench.boot("module0")
    bench.until(lambda: module.stats()["session"], 3000)
    switch_on(bench, app)
    bench.sound()


def test_rebooted_app_starts_a_session_and_the_pack_goes_on():
    bench, app = keyed_bench(1)
    pack = bench.nodes["pack"]
    sessions = pack.counters["sessions"]
    bench.run(1100)
    app.channel.connect()
    bench.run(100)
    assert pack.counters["sessions"] == sessions + 1
    app.seal("COMMAND", contactor_state=STATE_STANDBY)
    bench.run(100)
    assert modules_of(bench)[0].state == STATE_STANDBY


def test_one_way_loss_ends_in_the_session_of_before():
    bench, _ = keyed_bench(1)
    pack = bench.nodes["pack"]
    sessions = pack.counters["sessions"]
    # Nothing of the module arrives for five seconds: the pack's citations are too old then.
    bench.spy = lambda bus, sender, frame: not sender.startswith("module")
    bench.run(5000)
    assert modules_of(bench)[0].counters["stale"] > 0
    bench.spy = None
    bench.run(2500)
    assert pack.slots[1].row[MISSES] == 0 and pack.slots[1].active(bench.now_ms)
    assert pack.counters["sessions"] == sessions
    bench.sound()


def test_used_up_epoch_is_followed_by_a_new_one():
    """The package allows 60 records an epoch: pack and module stop there, and meet again under a new one."""
    bench = Bench(1)
    app = App(bench)
    pack = bench.nodes["pack"]
    bench.until(lambda: len(pack.slots) == 1)
    bench.run(100)
    app.claim_pack(pack.claim_code())
    make = app.make_package
    app.make_package = lambda *given, **fields: make(*given, max_records=60, **fields)
    app.introduce(1, modules_of(bench)[0].claim_code())
    channel = None
    most = 0
    for _ in range(200):
        bench.run(50)
        channel = pack.slots[1].channel
        most = max(most, channel._session.sealed)
    assert most <= 60 and channel.stats["established"] > 3 and channel.session_epoch > 3
    assert pack.stats()["modules"]["1"]["unsent"] > 0 or modules_of(bench)[0].stats()["unsent"] > 0
    assert pack.slots[1].active(bench.now_ms)
    bench.sound()


# -- clear commands ----------------------------------------------------------------------------------------------------


def test_keyed_module_obeys_nothing_in_clear():
    bench, app = keyed_bench(1)
    switch_on(bench, app)
    module = modules_of(bench)[0]
    number = module.own_node
    names = (
        ("STATE_CHANGE", number),
        ("STATUS_REQUEST", number),
        ("DETAIL_REQUEST", number),
        ("HARDWARE_REQUEST", number),
        ("LIMITS", number),
        ("BALANCE", number),
        ("DEREGISTER", number),
        ("MAX_STATE", 0),
        ("SET_TIME", 0),
        ("ALL_DEREGISTER", 0),
        ("ALL_ISOLATE", 0),
    )
    for name, node in names:
        bench.inject(MODULE_BUS, clear_frame(name, node))
    values = {"module_id": 9, "manufacturer": 2, "part": 3, "unique_id": module.unique_id}
    bench.inject(MODULE_BUS, clear_frame("REGISTRATION", 0xFF, **values))
    assert module.counters["clear"] == len(names) + 1
    assert module.state == STATE_ON and module.own_node == number and module.limits[1] == 42000
    bench.sound()


def test_clear_isolate_counts_only_without_a_session():
    bench, app = keyed_bench(1)
    switch_on(bench, app)
    module = modules_of(bench)[0]
    bench.inject(MODULE_BUS, clear_frame("ALL_ISOLATE", 0))
    assert module.state == STATE_ON and module.counters["clear"] == 1
    bench.off("pack")
    module = bench.boot("module0")
    module.state = STATE_STANDBY  # as a module of the field that wakes up in Standby
    bench.inject(MODULE_BUS, clear_frame("ALL_ISOLATE", 0))
    assert module.state == STATE_OFF


def test_keyed_pack_obeys_nothing_in_clear():
    bench, app = keyed_bench(1)
    switch_on(bench, app)
    pack = bench.nodes["pack"]
    for base in (0x400, 0x401, 0x402, 0x403, 0x404, 0x405, 0x406):
        bench.inject(VCU_BUS, Frame(base, bytes(8), False))
        bench.inject(VCU_BUS, Frame(base << 18 | PACK_NODE, bytes(8)))
    bench.inject(VCU_BUS, Frame(0x500, bytes(8), False))  # another pack's
    assert pack.counters["clear"] == 14
    bench.inject(MODULE_BUS, clear_frame("STATUS_1", 1, state=0, cell_count=1))
    assert pack.counters["clear"] == 15
    bench.run(300)
    assert modules_of(bench)[0].state == STATE_ON and pack.slots[1].state == STATE_ON
    assert pack.time_s() == 0
    bench.sound()


def test_unclaimed_pack_obeys_nobody():
    bench = Bench(1)
    bench.run(500)
    pack = bench.nodes["pack"]
    bench.inject(VCU_BUS, Frame(0x400, b"\x03" + bytes(7), False))
    bench.inject(VCU_BUS, Frame(0x400 << 18 | PACK_NODE, b"\x03" + bytes(7)))
    assert pack.counters["clear"] == 2
    bench.run(500)
    assert modules_of(bench)[0].state == STATE_OFF


# -- attacks on records ------------------------------------------------------------------------------------------------


def test_recorded_command_does_nothing_later():
    bench, app = keyed_bench(1)
    module = modules_of(bench)[0]
    held = []

    def hold(bus, sender, frame):
        if bus == MODULE_BUS and frame.arbitration_id >> 18 in (0x514, 0x517):
            held.append(frame)
            return False
        return True

    bench.spy = hold
    app.seal("COMMAND", contactor_state=STATE_ON)
    bench.deliver()
    command = [frame for frame in held if frame.arbitration_id >> 18 == 0x514]
    bench.run(100)
    app.seal("COMMAND", contactor_state=STATE_OFF)
    bench.run(6000)
    bench.spy = None
    for frame in command:
        bench.inject(MODULE_BUS, frame)
    # More than 64 records have come since.
    assert module.state == STATE_OFF and module.counters["old"] == 1
    bench.sound()


def test_command_held_back_while_all_else_is_silent_is_stale():
    bench, app = keyed_bench(1)
    module = modules_of(bench)[0]
    held = []
    bench.spy = lambda bus, sender, frame: bus != MODULE_BUS or sender != "pack" or (held.append(frame), False)[1]
    app.seal("COMMAND", contactor_state=STATE_ON)
    bench.deliver()
    bench.spy = lambda bus, sender, frame: bus != MODULE_BUS or sender != "pack"
    bench.run(4500)
    bench.spy = None
    for frame in held:
        bench.inject(MODULE_BUS, frame)
    assert module.state == STATE_OFF and module.counters["stale"] == 2
    bench.sound()


def test_records_of_one_module_say_nothing_about_another():
    bench, _ = keyed_bench(2)
    pack = bench.nodes["pack"]
    moved = []

    def copy(bus, sender, frame):
        if bus == MODULE_BUS and frame.arbitration_id & ENCRYPTED and sender.startswith("module"):
            moved.append(Frame(frame.arbitration_id ^ 3, frame.data))  # 1 and 2 change places
        return True

    bench.spy = copy
    bench.run(200)
    bench.spy = None
    for frame in moved:
        bench.inject(MODULE_BUS, frame)
    assert pack.counters["unknown-session"] > 5
    assert all(slot.row[MISSES] == 0 for slot in pack.keyed_slots())
    bench.sound()


def test_module_cannot_speak_for_the_pack_to_the_app():
    """A record a module seals for a base of the VCU bus is opened, and ignored."""
    bench, app = keyed_bench(1)
    pack = bench.nodes["pack"]
    module = modules_of(bench)[0]
    module._pack.seal(0x400, b"\x03" + bytes(7))
    module._pack.seal(0x43B, bytes(8))
    bench.run(100)
    assert pack.counters["unsupported"] == 2
    assert module.state == STATE_OFF and app.results == []


def test_wrong_lengths_inside_records_change_nothing():
    bench, app = keyed_bench(1)
    pack = bench.nodes["pack"]
    module = modules_of(bench)[0]
    neighbour = pack.slots[1]
    for base in (0x512, 0x514, 0x515, 0x516, 0x517, 0x519, 0x51A):
        neighbour.seal(base, b"\x01" * 7)
    neighbour.seal(0x514, b"\x00\x09\x00\x00")  # a state that does not exist
    neighbour.seal(0x515, b"\x00\xc8\x00")  # a cell that does not exist
    neighbour.seal(0x520, bytes(8))
    bench.deliver()
    assert module.counters["length"] == 8 and module.counters["no-cell"] == 1
    assert module.counters["unsupported"] == 1
    module._pack.seal(0x502, b"\x01" * 7)
    bench.deliver()
    assert pack.counters["unsupported"] == 1
    for frame in app.channel.seal(0x400 << 18 | PACK_NODE, b"\x03"):
        app.send(frame)
    bench.deliver()
    assert pack.counters["unsupported"] == 2
    assert module.state == STATE_OFF
    bench.sound()


def test_cells_that_raise_are_a_hardware_fault():
    bench, app = keyed_bench(1)
    module = modules_of(bench)[0]
    update = module.cells.update

    def broken(dt_ms, state, limits, balancing):
        raise ValueError("driver")

    module.cells.update = broken
    bench.run(500)
    assert module.counters["cells"] == 1
    assert app.values_by[("MODULE_FAULT", 1)]["fault_code"] & 2
    assert app.values_by[("MODULE_STATE", 1)]["fault_code"] & 2
    bench.run(500)
    assert app.values["BMS_STATE"]["module_fault"] == 1
    module.cells.update = update
    bench.run(1000)
    assert app.values_by[("MODULE_FAULT", 1)]["fault_code"] == 0
    assert app.values_by[("MODULE_FAULT", 1)]["fault_count"] == 1
    bench.sound()


def test_cell_that_cannot_be_read_is_a_hardware_fault():
    bench, app = keyed_bench(1)
    module = modules_of(bench)[0]
    before = app.values_by[("MODULE_CELL_VOLTAGE", 1)]
    cell_mv = module.cells.cell_mv
    module.cells.cell_mv = lambda index: cell_mv(index) // (index - 3)
    bench.run(1000)
    assert module.counters["cells"] > 0
    assert app.values_by[("MODULE_STATE", 1)]["fault_code"] & 2
    assert app.values_by[("MODULE_CELL_VOLTAGE", 1)] == before
    bench.sound()


def test_module_without_cells_is_not_made():
    bench = Bench(0)
    env = bench.envs["pack"]
    cells = EcmCells({"count": 1})
    cells.count = 0
    assert "node.json" in str(raises(ValueError, ModuleNode, env, {"unique_id": 1}, cells))


def test_unkeyed_module_stays_listed_while_it_answers():
    bench = Bench(2)
    pack = bench.nodes["pack"]
    bench.run(40000)
    assert len(pack.slots) == 2
    bench.off("module1")
    bench.run(40000)
    assert [slot.unique_id for slot in pack.slots.values()] == [0xBA770001]
    bench.sound()


def test_reset_pack_switches_its_modules_off():
    bench, app = keyed_bench(2)
    switch_on(bench, app)
    bench.nodes["pack"].reset()
    bench.deliver()
    assert [module.state for module in modules_of(bench)] == [STATE_OFF, STATE_OFF]


def test_second_app_without_keys_is_heard_by_nobody():
    bench, app = keyed_bench(1)
    rogue = App(bench, "rogue", attach=False)
    rogue.channel = Channel(
        bytes(range(32)),
        INITIATOR,
        PACK_NODE,
        clock=lambda: bench.now_ms,
        urandom=rogue.entropy,
        relationship=app.channel.relationship,
        epoch=1,
        link=VCU_LINK,
    )
    bench.run(1100)
    rogue.channel.connect()
    for frame in rogue.channel.outgoing():
        bench.inject(VCU_BUS, frame, "rogue")
    bench.run(200)
    # The pack answered the HELLO, as it must; the session that runs is untouched.
    assert app.channel.established
    app.seal("COMMAND", contactor_state=STATE_STANDBY)
    bench.run(100)
    assert modules_of(bench)[0].state == STATE_STANDBY
    bench.sound()


def test_a_wave_of_commands_on_a_slow_board_does_not_delay_the_broadcast():
    bench, app = keyed_bench(8)
    pack = bench.nodes["pack"]
    sent_ms = []
    env = bench.envs["pack"]
    send = env.send

    def slow_send(port, frame):
        # 50 ms a record of five frames: a wave to eight modules takes 400 ms
        if port == 1 and frame.arbitration_id >> 18 == 0x514:
            bench.now_ms += 10
        if port == 0 and not frame.is_extended_id and frame.arbitration_id == 0x410:
            sent_ms.append(bench.now_ms)
        send(port, frame)

    env.send = slow_send
    for state in (STATE_ON, STATE_OFF, STATE_ON):
        app.seal("COMMAND", contactor_state=state)
        bench.run(700)
    gaps = [sent_ms[at + 1] - sent_ms[at] for at in range(len(sent_ms) - 1)]
    assert len(gaps) >= 3
    assert max(gaps) <= 560 and min(gaps) >= 440, gaps
    assert pack.bursts_late == 0
