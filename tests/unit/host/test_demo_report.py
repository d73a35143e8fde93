"""The demo's eight lines from made-up evidence: each fault turns its own line red and no other."""

import itertools
from copy import deepcopy
from decimal import Decimal

import pytest
from rich.console import Console

from packtrust.messages.table import STATE_OFF, STATE_ON
from packtrust_host.app.model import Cell, Module
from packtrust_host.app.validate import Finding
from packtrust_host.cli.demo import show_report
from packtrust_host.demo.buslog import RECORD, Transfer
from packtrust_host.demo.criteria import evaluate
from packtrust_host.demo.evidence import Evidence, Pair, Registered, Search
from packtrust_host.demo.keysearch import Controls, SearchResult
from packtrust_host.demo.keysearch import Finding as Found
from packtrust_host.demo.ledger import EnergyMeter, share
from packtrust_host.demo.measure import Bursts, Commands, Polls, Secrecy
from packtrust_host.demo.records import Opened, Records
from packtrust_host.demo.run import DemoRun, Options, OutputError, Report
from packtrust_host.demo.traffic import plan, slot_s
from packtrust_host.demo.view import LiveView, ModuleRow, PlainView, SilentView, Snapshot, live_table, make_view, row_of
from packtrust_host.verify import Operation, VerifyReport


def verified(name):
    report = VerifyReport(name, 1)
    for operation in ("HKDF", "AES-GCM seal", "AES-GCM open", "X25519", "HPKE seal", "HPKE open", "framing"):
        report.operations.append(Operation(operation, "", 4))
    return report


def healthy():
    """Evidence of a run with two modules in which everything was right."""
    opened = Opened("vcu", 0x411, 0x40, 1, 1, 0, 1, bytes(8))
    pairs = [Pair("app and pack", 0x40, ("app", "pack"), (64, 64), ["p"], 1, True, 5, 3)]
    pairs += [
        Pair("pack and module %d" % n, n, ("pack", "module%d" % n), (64, 64), ["m", "p"], 2, True, 5, 3) for n in (1, 2)
    ]
    return Evidence(
        modules=2,
        host_id="ab" * 16,
        app=Registered("the app", "COMP-1"),
        devices=[Registered(name, "COMP-" + name) for name in ("the pack controller", "module 1", "module 2")],
        pairs=pairs,
        verified={name: verified(name) for name in ("pack 0", "module 1", "module 2")},
        verify_expected=3,
        validated=3,
        attestation=[],
        app_sessions=1,
        stats={name: {"sealed": 10, "opened": 9} for name in ("the app", "the pack controller", "module1", "module2")},
        secrecy=[Secrecy(bus, 100, 90, 18, {"announce": 10}) for bus in ("vcu", "module")],
        records=[Records("vcu", [opened]), Records("module", [opened])],
        sessions={0x40: (5, 5), 1: (5, 5), 2: (5, 5)},
        polls=Polls({1: [10.0] * 50, 2: [20.0] * 50}, expected=100),
        bursts=Bursts([500.0] * 20),
        commands=Commands(10, {1: [20.0] * 10, 2: [30.0] * 10}),
        limits=(2, []),
        search=Search(SearchResult(9, 99, 999, 9, 9), [Controls((), 0, 200)], {"okm": 9}),
    )


def test_all_lines_hold_on_healthy_evidence():
    lines = evaluate(healthy())
    assert [line.number for line in lines] == list(range(1, 9))
    assert [line.problems for line in lines] == [[]] * 8
    assert all(line.evidence for line in lines)


def test_no_evidence_at_all_is_red_throughout():
    assert [line.ok for line in evaluate(Evidence(3))] == [False] * 8


def break_app(seen):
    seen.app.problem = "shown otherwise"


def break_app_found(seen):
    seen.findings.append(Finding("lct", "app", "is registered with another fingerprint"))


def break_module(seen):
    seen.devices[2].problem = "shown otherwise"


def break_module_missing(seen):
    seen.devices[2].component_id = ""


def break_module_found(seen):
    seen.findings.append(Finding("lct", "MOD-1", "was swapped"))


def break_half(seen):
    seen.pairs[1].halves = (64, 0)


def break_receipt(seen):
    seen.pairs[1].receipts = ["m"]


def break_attestation(seen):
    seen.attestation.append("module 1: fingerprint differs")


def break_hkdf(seen):
    seen.verified["module 1"].operations[0].failed = 1


def break_pair(seen):
    seen.pairs[2].confirmed = False


def break_shared(seen):
    seen.pairs[2].shared_keys = 0


def break_gcm(seen):
    seen.verified["module 1"].operations[2].failed = 1


def break_tag(seen):
    seen.stats["the app"]["tag"] = 1


def break_forged(seen):
    seen.records[0].forged.append(Transfer(RECORD, 0x14080001, 1, 2, bytes(40)))


def break_clear(seen):
    seen.secrecy[1].violations.append("frame 14080001 (STATUS_1, node 0x01) is in clear")


def break_session(seen):
    seen.sessions[2] = (0, 0)


def break_one_way(seen):
    seen.sessions[1] = (5, 0)


def break_poll(seen):
    seen.polls.late.append("module 1 did not answer the poll at 1.000 s")


def break_slow(seen):
    seen.commands.latencies_ms[1] = [301.0] * 10


def break_obedience(seen):
    seen.commands.disobeyed.append("module 2 does not obey On")


def break_burst(seen):
    seen.bursts.problems.append("BMS_STATE came 700.0 ms after")


def break_limits(seen):
    seen.limits = (2, ["module 1 has -20.00 A"])


def break_secret(seen):
    seen.search.result.found_keys.add("pack okm")
    seen.search.result.findings.append(Found("pack okm", "raw", "vcu", "frame 410", 1))


def break_search(seen):
    seen.search.controls.append(Controls(("hex transfer",), 0, 200))


def break_search_nothing(seen):
    seen.search.result = SearchResult()


FAULTS = [
    (break_app, 1),
    (break_app_found, 1),
    (break_module, 2),
    (break_module_missing, 2),
    (break_module_found, 2),
    (break_half, 2),
    (break_receipt, 2),
    (break_attestation, 2),
    (break_hkdf, 3),
    (break_pair, 3),
    (break_shared, 3),
    (break_gcm, 4),
    (break_tag, 4),
    (break_forged, 4),
    (break_clear, 5),
    (break_session, 6),
    (break_one_way, 6),
    (break_poll, 7),
    (break_slow, 7),
    (break_obedience, 7),
    (break_burst, 7),
    (break_limits, 7),
    (break_secret, 8),
    (break_search, 8),
    (break_search_nothing, 8),
]


@pytest.mark.parametrize(("fault", "number"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_one_fault_turns_exactly_its_line_red(fault, number):
    seen = deepcopy(healthy())
    fault(seen)
    assert [line.number for line in evaluate(seen) if not line.ok] == [number]


def report_of(seen, problems=()):
    facts = {"seconds": 12.3, "logs": {"vcu": "vcu.log"}, "live": {"modules": {}}}
    return Report(evaluate(seen), list(problems), facts)


def test_report_is_json_and_ok_only_if_every_line_is():
    document = report_of(healthy()).to_json()
    assert document["ok"] and len(document["criteria"]) == 8
    seen = healthy()
    break_clear(seen)
    assert not report_of(seen).ok
    assert not report_of(healthy(), ["the adapter went away"]).ok
    assert not Report([], [], {}).ok


def test_report_is_shown_with_its_verdict(tmp_path):
    seen = healthy()
    break_tag(seen)
    for report, words in (
        (report_of(healthy()), "All 8 criteria hold"),
        (report_of(seen), "1 of 8 criteria do not hold"),
    ):
        out = Console(record=True, width=160, file=(tmp_path / "out").open("w"))
        show_report(report, Options(), out)
        assert words in out.export_text()


# -- traffic plan ------------------------------------------------------------------------------------------------------


def test_plan_gives_a_few_dozen_commands_in_twenty_seconds():
    made = plan(20.0, 3, lambda: 0)
    assert sum(action.name.startswith("state") for action in made.actions) >= 30
    assert made.duration_s == 20.0
    assert [action.at_s for action in made.actions] == sorted(action.at_s for action in made.actions)
    assert made.actions[-1].at_s + slot_s(3) <= made.duration_s


def test_plan_of_a_large_pack_leaves_time_between_commands():
    made = plan(3.0, 31, lambda: 0)
    states = [action.at_s for action in made.actions if action.name.startswith("state")]
    assert min(after - before for before, after in itertools.pairwise(states)) >= 1.0
    assert made.duration_s > 3.0


def test_plan_of_a_recording_stays_on():
    made = plan(60.0, 3, lambda: 0, recording=True)
    assert made.on_s > 0.8 * 60
    assert plan(60.0, 3, lambda: 0).on_s < 0.6 * 60


# -- ledger ------------------------------------------------------------------------------------------------------------


def test_energy_meter_integrates_what_a_module_gives():
    meter = EnergyMeter()
    for ms in range(0, 3601, 100):
        meter.on_record("MODULE_POWER", {"module_id": 1, "voltage_mv": 50_000, "current_ma": -20_000}, ms)
        meter.on_record("MODULE_STATE", {"module_id": 1, "state": 3}, ms)
    assert meter.given_wh == {1: pytest.approx(1.0)}  # 1 kW for 3.6 s


def test_share_of_nothing_is_nothing():
    assert share(0, 0) == 0
    assert share(2, 1) == Decimal("0.66")
    assert share(5, 0) == 1


# -- views -------------------------------------------------------------------------------------------------------------


def snapshot():
    module = Module(1, state=STATE_ON, soc_permille=512, current_ma=-20_000, voltage_mv=47_123, cell_max_centi_c=2531)
    module.cells = {n: Cell(3900 + n, 2500, 500, 990, 1) for n in range(3)}
    row = row_of(module, True)
    row.refused = {"replay": 2}
    return Snapshot(9.0, {"vcu": 0.25}, {"vcu": 10}, [row, ModuleRow(2)], {"sealed": 4, "tag": 1}, 1, {}, 3, 12.0, 30.0)


def test_live_table_shows_what_is_asked_for(tmp_path):
    out = Console(record=True, width=160, file=(tmp_path / "out").open("w"))
    out.print(live_table(snapshot()))
    text = out.export_text()
    for words in ("module 1", "On", "51.2 %", "-20.0 A", "47.12 V", "3900 3901 3902", "replay 2", "tag 1", "vcu 25 %",
                  "p50 12 ms", "p99 30 ms"):  # fmt: skip
        assert words in text, words


def test_unknown_values_of_a_module_are_dashes():
    row = row_of(Module(3), False)
    assert (row.soc, row.current, row.cells) == ("-", "-", "-")
    assert row_of(Module(3, state=STATE_OFF), False).state == "Off"


def test_view_fits_the_console(tmp_path):
    assert isinstance(make_view(None), SilentView)
    plain = make_view(Console(file=(tmp_path / "out").open("w")))
    assert isinstance(plain, PlainView)
    live = make_view(Console(file=(tmp_path / "tty").open("w"), force_terminal=True))
    assert isinstance(live, LiveView)
    live.close()


@pytest.mark.parametrize("terminal", [False, True])
def test_views_tell_what_happens(tmp_path, terminal):
    path = tmp_path / "out"
    with path.open("w") as file:
        view = make_view(Console(file=file, force_terminal=terminal, width=160))
        view.phase("First")
        view.step("done [this]")
        view.warn("broken")
        view.show(snapshot())
        view.phase("Second")
        view.close()
    text = path.read_text()
    for words in ("First", "done [this]", "broken", "Second"):
        assert words in text


# -- output folder -----------------------------------------------------------------------------------------------------


def test_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "mine").write_text("x")
    with pytest.raises(OutputError, match="not empty"):
        DemoRun(Options(output=tmp_path)).run()
    assert (tmp_path / "keys" / "mine").read_text() == "x"


def test_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is no folder"):
        DemoRun(Options(output=tmp_path / "file")).run()
