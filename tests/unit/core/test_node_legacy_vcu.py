"""Policy legacy-vcu: an old VCU in clear keeps alive and lowers, and raises under the app's grant alone."""

from nodebench import VCU_BUS, App, Bench, keyed_bench
from packtrust import package
from packtrust.errors import PolicyError
from packtrust.frame import Frame
from packtrust.messages import by_name, encode
from packtrust.messages.table import (
    RESULT_OBEYED,
    RESULT_REFUSED,
    STATE_OFF,
    STATE_ON,
    STATE_PRECHARGE,
    STATE_STANDBY,
)
from packtrust.policy import profile
from packtrust_node.commands import REASON_SCOPE, REASON_VALUE
from portable import raises

LEGACY = {"policy": "legacy-vcu"}
GRANT = 0x0B


def bench_of(modules=2, config=LEGACY, scope=package.SCOPE_ALL):
    bench, app = keyed_bench(modules, scope, profile(config["policy"]), pack_config=config)
    del app.results[:]
    return bench, app


def vcu(bench, name, pack_number=0, **values):
    """An 11-bit frame, as an old VCU (or anybody) sends it."""
    row = by_name(name)
    bench.inject(VCU_BUS, Frame(row.base + 0x100 * pack_number, bytes(encode(row, values)), False), "vcu")


def drive(bench, ms, state=None):
    """An old VCU at work for so long: a command, or a keep-alive, every 250 ms."""
    for _ in range(0, ms, 250):
        if state is None:
            vcu(bench, "KEEP_ALIVE")
        else:
            vcu(bench, "COMMAND", contactor_state=state)
        bench.run(250)


def states(bench):
    return [node.state for name, node in sorted(bench.nodes.items()) if name != "pack"]


def granted(bench, app, state=STATE_ON, seconds=60):
    app.seal("LEGACY_GRANT", max_state=state, grant_s=seconds)
    bench.run(50)
    result = app.results.pop()
    assert result[:2] == (GRANT, 0)
    return result[2:4]


def test_without_the_policy_an_old_vcu_is_not_heard():
    bench, app = bench_of(config={"policy": "default"})
    assert granted(bench, app) == (RESULT_REFUSED, REASON_VALUE)
    drive(bench, 1000, STATE_ON)
    assert states(bench) == [STATE_OFF, STATE_OFF]
    app.seal("COMMAND", contactor_state=STATE_ON)
    bench.run(300)
    drive(bench, 1000, STATE_OFF)
    assert states(bench) == [STATE_ON, STATE_ON]
    assert bench.nodes["pack"].counters["clear"] == 8
    assert bench.nodes["pack"].legacy is None


def test_a_policy_that_is_none():
    assert "legacy-vcu" in str(raises(PolicyError, Bench, 1, {"policy": "old"}))


def test_both_ends_must_have_the_policy():
    bench = Bench(1, pack_config=LEGACY)
    app = App(bench)  # with the default policy
    pack = bench.nodes["pack"]
    bench.until(lambda: len(pack.slots) == 1)
    raises(AssertionError, app.claim_pack, pack.claim_code())
    assert not pack.app.established and "handshake-mac" in app.refused


def test_raising_takes_a_grant():
    bench, app = bench_of()
    drive(bench, 1000, STATE_ON)
    assert states(bench) == [STATE_OFF, STATE_OFF]
    pack = bench.nodes["pack"]
    assert pack.counters["legacy-refused"] == 4 and "legacy-command" not in pack.counters
    assert granted(bench, app) == (RESULT_OBEYED, 0)
    drive(bench, 500, STATE_ON)
    assert states(bench) == [STATE_ON, STATE_ON]
    assert pack.counters["legacy-command"] == 1
    bench.sound()


def test_no_higher_than_granted():
    bench, app = bench_of()
    assert granted(bench, app, STATE_PRECHARGE) == (RESULT_OBEYED, 0)
    drive(bench, 500, STATE_ON)
    assert states(bench) == [STATE_OFF, STATE_OFF]
    drive(bench, 500, STATE_PRECHARGE)
    assert states(bench) == [STATE_PRECHARGE, STATE_PRECHARGE]


def test_a_grant_ends():
    bench, app = bench_of()
    assert granted(bench, app, STATE_ON, 4) == (RESULT_OBEYED, 0)
    drive(bench, 4000, STATE_ON)
    drive(bench, 500, STATE_STANDBY)
    drive(bench, 2000, STATE_ON)
    assert states(bench) == [STATE_STANDBY, STATE_STANDBY]
    assert any("grant has ended" in line for line in bench.envs["pack"].lines)
    # What is up stays up while its VCU is there: the grant is for raising.
    assert granted(bench, app, STATE_ON, 1) == (RESULT_OBEYED, 0)
    drive(bench, 3000, STATE_ON)
    assert states(bench) == [STATE_ON, STATE_ON]


def test_a_grant_is_taken_back():
    bench, app = bench_of()
    assert granted(bench, app) == (RESULT_OBEYED, 0)
    assert granted(bench, app, STATE_ON, 0) == (RESULT_OBEYED, 0)
    drive(bench, 500, STATE_ON)
    assert states(bench) == [STATE_OFF, STATE_OFF]


def test_a_grant_has_its_bounds():
    bench, app = bench_of()
    assert granted(bench, app, STATE_ON, 3601) == (RESULT_REFUSED, REASON_VALUE)
    assert granted(bench, app, 4, 60) == (RESULT_REFUSED, REASON_VALUE)
    drive(bench, 250, STATE_ON)
    assert states(bench) == [STATE_OFF, STATE_OFF]
    assert granted(bench, app, STATE_ON, 3600) == (RESULT_OBEYED, 0)


def test_only_who_may_command_states_may_grant():
    bench, app = bench_of(scope=package.SCOPE_ALL & ~package.SCOPE_STATE)
    assert granted(bench, app) == (RESULT_REFUSED, REASON_SCOPE)
    drive(bench, 250, STATE_ON)
    assert states(bench) == [STATE_OFF, STATE_OFF]


def test_a_grant_in_clear_is_none():
    bench, _ = bench_of()
    row = by_name("LEGACY_GRANT")
    data = bytes(encode(row, {"max_state": STATE_ON, "grant_s": 60}))
    bench.inject(VCU_BUS, Frame(row.base << 18 | 0x40, data))
    bench.inject(VCU_BUS, Frame(row.base, data, False))
    drive(bench, 500, STATE_ON)
    assert states(bench) == [STATE_OFF, STATE_OFF]
    assert bench.nodes["pack"].counters["clear"] >= 1


def test_a_grant_ends_with_the_packs_power_and_its_owner():
    bench, app = bench_of()
    assert granted(bench, app) == (RESULT_OBEYED, 0)
    pack = bench.boot("pack")
    bench.until(lambda: all(slot.established for slot in pack.keyed_slots()), 5000)
    drive(bench, 500, STATE_ON)
    assert states(bench) == [STATE_OFF, STATE_OFF]
    assert pack.legacy.grant(STATE_ON, 60)
    pack.reset()
    assert pack.legacy.left_s() == 0


def test_an_old_vcu_lowers_what_anybody_raised():
    bench, app = bench_of()
    app.seal("COMMAND", contactor_state=STATE_ON)
    bench.run(300)
    assert states(bench) == [STATE_ON, STATE_ON]
    vcu(bench, "COMMAND", contactor_state=STATE_STANDBY)
    bench.run(50)
    assert states(bench) == [STATE_STANDBY, STATE_STANDBY]
    app.seal("COMMAND", contactor_state=STATE_ON)
    bench.run(300)
    vcu(bench, "COMMAND", contactor_state=STATE_ON, isolation=1)
    bench.run(50)
    assert states(bench) == [STATE_OFF, STATE_OFF]


def test_whoever_raised_must_stay():
    """The VCU keeps alive what it raised; what the app raised takes the app, whatever is sent in clear."""
    bench, app = bench_of()
    assert granted(bench, app) == (RESULT_OBEYED, 0)
    drive(bench, 500, STATE_ON)
    app.keep_alive = False
    drive(bench, 3000)
    assert states(bench) == [STATE_ON, STATE_ON]
    app.keep_alive = True
    bench.run(700 - 250)
    assert states(bench) == [STATE_STANDBY, STATE_STANDBY]
    bench.run(600)
    assert states(bench) == [STATE_OFF, STATE_OFF]
    app.seal("COMMAND", contactor_state=STATE_ON)
    bench.run(300)
    assert states(bench) == [STATE_ON, STATE_ON]
    app.keep_alive = False
    drive(bench, 1750)
    assert states(bench) == [STATE_OFF, STATE_OFF]


def test_everything_else_in_clear_is_refused_as_ever():
    bench, app = bench_of()
    assert granted(bench, app) == (RESULT_OBEYED, 0)
    pack = bench.nodes["pack"]
    for name, values in (
        ("TIME", {"time_s": 99}),
        ("READ_EEPROM", {"register": 3}),
        ("WRITE_EEPROM", {"register": 3, "value": 1}),
        ("MODULE_COMMAND", {"module_id": 1, "contactor_state": STATE_ON}),
        ("REQUEST_MODULE_LIST", {}),
    ):
        before = pack.counters.get("clear", 0)
        vcu(bench, name, **values)
        assert pack.counters["clear"] == before + 1, name
    # Another pack's number, another form, another length.
    vcu(bench, "COMMAND", 1, contactor_state=STATE_ON)
    row = by_name("COMMAND")
    bench.inject(VCU_BUS, Frame(row.base << 18 | 0x40, bytes(encode(row, {"contactor_state": STATE_ON}))))
    bench.inject(VCU_BUS, Frame(row.base, b"\x03", False))
    bench.run(300)
    assert states(bench) == [STATE_OFF, STATE_OFF]
    assert pack.time_s() == 0 and pack.counters["length"] == 1
    bench.sound()


def test_modules_take_nothing_in_clear_under_it():
    """The policy is for the VCU bus: the modules' policy and their sessions are as ever."""
    bench, _ = bench_of()
    assert all(slot.established for slot in bench.nodes["pack"].keyed_slots())
    assert bench.nodes["pack"].module_bus.link.policy is profile("default")


def test_it_is_audited_and_reported():
    bench, app = bench_of()
    lines = bench.envs["pack"].lines
    assert any(line.startswith("audit: policy legacy-vcu") for line in lines)
    drive(bench, 1000, STATE_ON)
    assert len([line for line in lines if "is refused" in line]) == 1  # one line, not one a frame
    assert granted(bench, app, STATE_ON, 30) == (RESULT_OBEYED, 0)
    assert any("may raise to state 3 for 30 s" in line for line in lines)
    drive(bench, 1000, STATE_ON)
    drive(bench, 1000, STATE_OFF)
    bench.run(1200)
    shown = app.values["PACK_DIAGNOSTICS"]
    assert shown["legacy_commands"] == 2 and 20 <= shown["grant_left_s"] <= 30
    assert any("raised to state 3 by a clear command" in line for line in lines)
    assert any("lowered to state 0 by a clear command" in line for line in lines)
