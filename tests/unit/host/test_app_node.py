"""AppNode: finding packs, the live model, commands and when they count as obeyed."""

import random

import pytest

from app_bench import AppBench
from packtrust.arbitration import compose
from packtrust.frame import Frame
from packtrust.messages import by_name, encode
from packtrust.messages.table import STATE_OFF, STATE_ON, STATE_STANDBY
from packtrust_host.app.command import FAILED, OBEYED, Command, expect_isolation, expect_load, state_check
from packtrust_host.app.errors import AppError
from packtrust_host.app.model import Intervals, Model, Module, percentile, state_name
from packtrust_host.app.node import AppNode


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    bench = AppBench(tmp_path_factory.mktemp("node"), modules=3)
    bench.commission()
    bench.pack.run_for(1000)
    return bench


@pytest.fixture
def ready(shared):
    """One provisioned pack for all tests of this file; each leaves it Off and undisturbed."""
    yield shared
    command = shared.node.set_state(STATE_OFF)
    assert shared.pack.run_until(lambda: command.done, 5000)
    assert command.state == OBEYED, command


def settle(bench, command, timeout_ms=10_000):
    assert bench.pack.run_until(lambda: command.done, timeout_ms), command
    return command


def test_model_shows_what_the_modules_really_are(ready):
    ready.pack.run_for(8000)  # every cell is polled once
    now_ms = ready.pack.now_ms
    assert ready.node.model.online(now_ms) == [1, 2, 3]
    assert ready.node.model.modules_total == 3
    slots = {slot.number: slot for slot in ready.pack.node("pack").keyed_slots()}
    by_uid = {s.node.unique_id: s.node for n, s in ready.pack.stations.items() if n.startswith("module")}
    uid_of = {
        record.node: record.unique_id_b
        for record in ready.store.modules_of(ready.store.app_pack(node=0x40).unique_id_b)
    }
    for number, module in ready.node.model.modules.items():
        cells = by_uid[uid_of[number]].cells
        assert set(slots) == {1, 2, 3}
        assert module.cell_count == cells.count == len(module.cells)
        assert abs(module.voltage_mv - sum(cells.cell_mv(i) for i in range(cells.count))) <= 60
        assert module.cell_min_mv <= module.cell_avg_mv <= module.cell_max_mv
        for index, cell in module.cells.items():
            assert abs(cell.mv - cells.cell_mv(index)) <= 5
            assert abs(cell.centi_c - cells.cell_centi_c(index)) <= 100
        assert module.state == STATE_OFF
        assert module.current_ma == 0


def test_state_command_is_obeyed_by_status_and_current(ready):
    command = settle(ready, ready.node.set_state(STATE_ON))
    assert command.state == OBEYED
    assert set(command.latency_ms) == set(command.obeyed_ms) == {1, 2, 3}
    assert all(0 < latency <= 300 for latency in command.latency_ms.values())
    for module in ready.node.model.modules.values():
        assert module.state == STATE_ON
        assert module.current_ma < -1000
    figures = ready.node.stats()["command_latency_ms"]
    assert figures["count"] >= 3
    assert figures["p99"] <= 300


def test_module_without_current_does_not_count_as_obeying(ready, monkeypatch):
    """A module that says On while nothing flows fails the command, by name."""
    record = next(r for r in ready.store.relationships.values() if r.node == 2)
    node = next(
        s.node
        for s in ready.pack.stations.values()
        if s.node.__class__.__name__ == "ModuleNode" and s.node.unique_id == record.unique_id_b
    )
    monkeypatch.setattr(node.cells, "update", lambda *args: None)
    command = settle(ready, ready.node.set_state(STATE_ON))
    assert command.state == FAILED
    assert "module 2: it reports On but its current is 0.00 A" in command.reason
    assert "module 1" not in command.reason
    assert ready.node.counters["commands-failed"] >= 1


def test_module_that_ignores_the_command_fails_it(ready, monkeypatch):
    record = next(r for r in ready.store.relationships.values() if r.node == 3)
    name = next(
        n for n, s in ready.pack.stations.items() if n.startswith("module") and s.node.unique_id == record.unique_id_b
    )
    node = ready.pack.node(name)
    real = node.on_frame
    state_change = by_name("STATE_CHANGE").base

    def deaf(port, frame):
        if frame.arbitration_id >> 18 != state_change:
            real(port, frame)

    monkeypatch.setattr(node, "on_frame", deaf)
    command = settle(ready, ready.node.set_state(STATE_ON))
    assert command.state == FAILED
    assert "module 3" in command.reason


def test_limits_hold_the_current(ready):
    settle(ready, ready.node.set_state(STATE_ON))
    command = settle(ready, ready.node.set_limits(10_000, 5_000))
    assert command.state == OBEYED
    assert command.confirmed == {1, 2, 3}
    ready.pack.run_for(1000)
    for module in ready.node.model.modules.values():
        assert -5_040 <= module.current_ma < -4_000
    one = settle(ready, ready.node.set_limits(10_000, 40_000, module=2))
    assert one.state == OBEYED
    assert one.confirmed == {2}
    settle(ready, ready.node.set_limits(10_000, 42_000))


def test_balancing(ready):
    settle(ready, ready.node.set_state(STATE_STANDBY))
    assert settle(ready, ready.node.balance(True)).state == OBEYED
    assert all(module.state == STATE_STANDBY for module in ready.node.model.modules.values())
    assert all(module.balancing or module.balanced for module in ready.node.model.modules.values())
    assert settle(ready, ready.node.balance(False)).state == OBEYED
    assert not any(module.balancing for module in ready.node.model.modules.values())


def test_time_and_one_module(ready):
    assert settle(ready, ready.node.set_time(1_700_000_000)).state == OBEYED
    command = settle(ready, ready.node.module_command(2, STATE_STANDBY))
    assert command.state == OBEYED
    assert set(command.latency_ms) == {2}
    assert [module.state for _, module in sorted(ready.node.model.modules.items())] == [0, 1, 0]
    missing = settle(ready, ready.node.module_command(9, STATE_STANDBY))
    assert missing.state == FAILED
    assert "no such module" in missing.reason


def test_later_command_replaces_the_earlier_one(ready):
    first = ready.node.set_state(STATE_ON)
    second = ready.node.set_state(STATE_STANDBY)
    assert first.state == FAILED
    assert "replaced" in first.reason
    assert settle(ready, second).state == OBEYED


def test_keep_alive_keeps_the_pack_up_and_its_absence_lowers_it(ready):
    settle(ready, ready.node.set_state(STATE_ON))
    ready.pack.run_for(5000)
    assert all(module.state == STATE_ON for module in ready.node.model.modules.values())
    station = ready.pack.stations["app"]
    station.controllers[0].plugged = False  # the app's cable is out
    ready.pack.run_for(2500)
    assert all(s.node.state == STATE_OFF for n, s in ready.pack.stations.items() if n.startswith("module"))
    station.controllers[0].plugged = True
    assert ready.pack.run_until(lambda: ready.node.model.modules[1].state == STATE_OFF, 10_000)


def test_pack_that_restarts_is_connected_again(ready):
    sessions = ready.node.counters["sessions"]
    ready.pack.power_cycle("pack", 500)
    assert ready.pack.run_until(lambda: ready.node.counters["sessions"] > sessions, 15_000)
    back_ms = ready.pack.now_ms
    modules = ready.node.model.modules.values()
    assert ready.pack.run_until(lambda: all(module.state_ms > back_ms for module in modules), 15_000)
    assert settle(ready, ready.node.set_state(STATE_STANDBY)).state == OBEYED


def test_clear_commands_on_the_bus_are_seen_and_not_obeyed(ready):
    before = ready.node.counters.get("clear-commands", 0)
    intruder = ready.pack.attach(lambda env: Silent(env), name="intruder%d" % before)
    clear = bytes(encode("COMMAND", contactor_state=STATE_ON))
    for identifier, extended in ((0x400, False), (compose(0x400, 0x40), True)):
        intruder.env.send(0, Frame(identifier, clear, extended))
    ready.pack.stations["intruder%d" % before].run()
    ready.pack.run_for(500)
    assert ready.node.counters["clear-commands"] >= before + 1
    assert all(module.state == STATE_OFF for module in ready.node.model.modules.values())


class Silent:
    def __init__(self, env):
        self.env = env

    def start(self):
        pass

    def on_frame(self, port, frame):
        pass

    def on_tick(self):
        return 1000


def test_clear_telemetry_is_never_believed(ready):
    model = ready.node.model
    before = model.records
    lie = bytes(encode("MODULE_STATE", module_id=1, state=STATE_ON))
    for identifier, extended in ((0x411, False), (compose(0x411, 0x40), True)):
        ready.node.on_frame(0, Frame(identifier, lie, extended))
    assert model.records == before
    assert model.modules[1].state == STATE_OFF
    assert ready.node.channel.stats["clear"] >= 1
    assert ready.node.counters["refused"] >= 1


def test_nothing_on_the_wire_raises(ready):
    source = random.Random(3)
    bases = [0x400 + i for i in range(0x42)] + [0x510, 0x7FF, 0x000]
    for _ in range(4000):
        identifier = compose(source.choice(bases), source.choice((0x40, 0x41, 0x7F, 0, 255)), source.random() < 0.5)
        identifier |= source.randrange(512) << 8
        extended = source.random() < 0.8
        if not extended:
            identifier &= 0x7FF
        ready.node.on_frame(0, Frame(identifier, source.randbytes(source.randrange(9)), extended))
    ready.node.on_frame(1, Frame(0, b""))
    ready.node.on_tick()
    ready.pack.run_for(3000)
    assert settle(ready, ready.node.set_state(STATE_STANDBY)).state == OBEYED


def test_stats_are_plain(ready):
    import json

    stats = json.loads(json.dumps(ready.node.stats()))
    assert stats["established"] is True
    assert stats["records"]["opened"] > 100
    assert abs(stats["vcu_burst"]["p50_ms"] - 500) <= 50


def test_commands_before_keys_fail_with_the_next_step(tmp_path):
    bench = AppBench(tmp_path, modules=1)
    with pytest.raises(AppError, match="no pack is attached"):
        AppNode(bench.pack.stations["app"].env, bench.store).set_state(STATE_ON)
    assert bench.pack.run_until(lambda: bench.node.pack_number == 0, 5000)
    command = bench.node.set_state(STATE_ON)
    assert command.state == FAILED
    assert "no module is known" in command.reason
    command = bench.node.set_time(1)
    assert command.state == FAILED
    assert "provision it first" in command.reason


def test_packs_are_found_by_announcement(tmp_path):
    bench = AppBench(tmp_path, modules=1)
    assert bench.pack.run_until(lambda: bench.node.packs, 5000)
    seen = bench.node.packs[0]
    assert (seen.number, seen.claimed, seen.keyed, seen.node) == (0, False, False, 0x40)
    assert seen.unique_id == bench.pack.node("pack").unique_id
    bench.node.on_frame(0, Frame(compose(0x436, 0x43), bytes(encode("PACK_ANNOUNCEMENT", unique_id=5))))
    assert sorted(bench.node.packs) == [0, 3]
    assert bench.node.pack_number == 0  # the first one stays attached
    bench.node.on_frame(0, Frame(compose(0x436, 0x05), bytes(8)))
    bench.node.on_frame(0, Frame(compose(0x436, 0x41), bytes(3)))
    assert bench.node.counters["announcement-malformed"] == 2
    with pytest.raises(AppError, match="packs 0, 3 announced themselves"):
        bench.run(bench.provisioner().find_pack())


# -- the rules by themselves


def module(state, current_ma, number=1, at_ms=10):
    return Module(number, state=state, current_ma=current_ma, state_ms=at_ms, current_ms=at_ms)


@pytest.mark.parametrize(
    ("rule", "state", "current_ma", "fits"),
    [
        (expect_load, STATE_ON, -20_000, True),
        (expect_load, STATE_ON, 20_000, True),
        (expect_load, STATE_ON, 40, False),
        (expect_load, STATE_OFF, 40, True),
        (expect_load, STATE_OFF, -60, False),
        (expect_load, STATE_STANDBY, 0, True),
        (expect_isolation, STATE_ON, 0, True),
        (expect_isolation, STATE_OFF, 0, True),
        (expect_isolation, STATE_OFF, 100, False),
    ],
)
def test_current_rules(rule, state, current_ma, fits):
    assert rule(state, current_ma) is fits


def make_command(**options):
    return Command(
        "state On",
        0x400,
        b"",
        [1],
        100,
        state_check(STATE_ON, expect_load),
        lambda m: m.state == STATE_ON,
        1000,
        **options,
    )


def test_status_from_before_the_command_does_not_count():
    command = make_command()
    command.on_status(module(STATE_ON, -20_000, at_ms=99), 120)
    assert not command.done
    command.on_status(module(STATE_ON, -20_000, at_ms=110), 120)
    assert command.state == OBEYED
    assert command.latency_ms == {1: 20}


def test_state_and_current_must_both_be_new():
    for state_ms, current_ms in ((99, 110), (110, 99)):
        command = make_command()
        status = module(STATE_ON, -20_000)
        status.state_ms, status.current_ms = state_ms, current_ms
        command.on_status(status, 120)
        assert not command.done


def test_silence_and_wrong_states_are_told_apart():
    silent = make_command()
    silent.on_tick(1099)
    assert not silent.done
    silent.on_tick(1100)
    assert silent.reason == "after 1000 ms module 1: it sent no authentic status"
    stubborn = make_command()
    stubborn.on_status(module(STATE_STANDBY, 0, at_ms=200), 200)
    stubborn.on_status(module(STATE_ON, -9000, number=2, at_ms=200), 200)
    stubborn.on_tick(1100)
    assert stubborn.reason == "after 1000 ms module 1: it still reports Standby"


def test_results_of_a_repeated_command_do_not_end_it():
    command = make_command()
    command.on_result(1, 1, 4, False)
    assert not command.done
    command.on_result(1, 1, 1, True)
    assert command.state == FAILED
    assert command.reason == "the pack refused it for module 1: the app's scope does not allow it"


def test_result_is_needed_where_no_status_shows_it():
    command = make_command(needs_result=True)
    command.on_status(module(STATE_ON, -20_000, at_ms=110), 120)
    assert not command.done
    command.on_result(1, 0, 0, True)
    command.on_status(module(STATE_ON, -20_000, at_ms=130), 130)
    assert command.state == OBEYED


def test_percentiles_and_intervals():
    assert percentile([], 99) is None
    assert percentile([5], 99) == 5
    assert percentile(range(1, 101), 50) == 50
    assert percentile(range(1, 101), 99) == 99
    assert percentile(range(1, 201), 99) == 198
    intervals = Intervals()
    for at_ms in (0, 500, 1010):
        intervals.arrived(at_ms)
    assert intervals.summary() == {"count": 3, "min_ms": 500, "max_ms": 510, "p50_ms": 500, "p99_ms": 510}


def test_model_ignores_module_numbers_that_cannot_be():
    model = Model()
    assert model.apply("MODULE_STATE", {"module_id": 0, "state": 3}, 1) is None
    assert model.apply("MODULE_STATE", {"module_id": 200, "state": 3}, 1) is None
    assert model.modules == {}


def test_state_names():
    assert [state_name(state) for state in (0, 1, 2, 3, None, 9)] == [
        "Off",
        "Standby",
        "Precharge",
        "On",
        "unknown",
        "9",
    ]
