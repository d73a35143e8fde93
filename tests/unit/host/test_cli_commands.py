"""The command line: help, usage errors, expected errors in one line, JSON and nothing else, no secret shown."""

import fcntl
import json
import os
import signal

import pytest
import typer
from typer.testing import CliRunner

from packtrust_host.app.errors import AppError
from packtrust_host.cli import app, common
from packtrust_host.cli import demo as demo_command
from packtrust_host.demo.criteria import Line
from packtrust_host.demo.run import Report

CODE = "00112233445566778899aabbccddeeff"
COMMANDS = (
    "demo",
    "pack",
    "bridge",
    "provision",
    "claim",
    "monitor",
    "validate",
    "rotate",
    "verify",
    "dbc",
    "messages",
)


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Runs a command with folders of its own; the result has exit_code, stdout, stderr."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(common, "state_path", lambda: tmp_path / "run" / "pack.json")
    monkeypatch.delenv("PACKTRUST_BRIDGE", raising=False)
    (tmp_path / "run").mkdir(mode=0o700)
    runner = CliRunner()

    def run(*arguments, **options):
        return runner.invoke(app, [str(item) for item in arguments], **options)

    return run


# -- help and usage ----------------------------------------------------------------------------------------------------


def test_help_lists_every_command(cli):
    result = cli("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert name in result.stdout


@pytest.mark.parametrize("command", [*COMMANDS, "claim add", "claim list"])
def test_every_command_has_help(cli, command):
    result = cli(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_version(cli):
    result = cli("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("packtrust ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["demo", "--modules", "32"],
        ["demo", "--modules", "0"],
        ["demo", "--topology", "star"],
        ["demo", "--bitrate", "123"],
        ["demo", "--speed", "3"],
        ["demo", "--cells", "/no/such/file.csv"],
        ["pack", "--bitrate", "1"],
        ["bridge", "--halves", "long"],
        ["dbc", "--modules", "40"],
        ["messages", "NO_SUCH"],
        ["rotate", "--show", "--all"],
        ["rotate", "--pack", "16"],
        ["claim", "add"],
    ],
    ids=" ".join,
)
def test_usage_errors_exit_with_2(cli, arguments):
    result = cli(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr + result.stdout


# -- expected errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "cause", "next_step"),
    [
        (["monitor"], "no keys for any pack", "packtrust provision"),
        (["validate", "--bridge", "http://127.0.0.1:9"], "cannot be connected to", "check that the bridge runs"),
        (["provision", "--bridge", "http://127.0.0.1:9"], "cannot be connected to", "check that the bridge runs"),
        (["verify", "--can", "slcan"], "names no CAN bus", "interface:channel"),
        (["verify", "--can", "slcan:/dev/no-such-adapter"], "cannot open", "plugged in"),
    ],
    ids=lambda item: " ".join(item) if isinstance(item, list) else "",
)
def test_expected_errors_tell_cause_and_next_step(cli, arguments, cause, next_step):
    result = cli(*arguments)
    assert result.exit_code == 1
    text = " ".join(result.stderr.split())
    assert cause in text and next_step in text
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_folder_of_somebody_else_is_not_used_by_demo(cli, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    result = cli("demo", "--output", tmp_path / "out", "--json")
    assert result.exit_code == 1
    assert "was not made by a demo" in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_recording_that_is_none_is_an_error(cli, tmp_path):
    (tmp_path / "cells.csv").write_text("a,b\n1,2\n")
    result = cli("demo", "--cells", tmp_path / "cells.csv", "--output", tmp_path / "out", "--json")
    assert result.exit_code == 1
    assert "Total Time" in result.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AppError("it is broken", "mend it"), "it is broken. Next: mend it."),
        (FileNotFoundError(2, "No such file", "/x"), "No such file: /x"),
        (OSError("nothing"), "nothing"),
    ],
)
def test_errors_become_one_line_and_exit_code_1(capsys, error, words):
    with pytest.raises(typer.Exit) as caught, common.errors_told():
        raise error
    assert caught.value.exit_code == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_command_in_order(capsys, number):
    before = signal.getsignal(number)
    cleaned = []

    def interrupted():
        with common.errors_told():
            try:
                os.kill(os.getpid(), number)
                signal.pause()
            finally:
                cleaned.append(True)

    with pytest.raises(typer.Exit) as caught:
        interrupted()
    assert caught.value.exit_code == 130
    assert cleaned == [True]
    assert signal.getsignal(number) is before
    assert "interrupted" in capsys.readouterr().err


def test_bugs_are_not_hidden():
    with pytest.raises(ZeroDivisionError), common.errors_told():
        raise ZeroDivisionError


# -- the running virtual pack ------------------------------------------------------------------------------------------


def test_running_pack_is_found_while_it_runs(cli, tmp_path):
    assert common.running_pack() is None
    with common.RunningPack() as state:
        assert common.running_pack() is None  # just starting
        state.write({"can": {"vcu": "slcan:/dev/pts/9"}})
        assert common.find_can(None) == "slcan:/dev/pts/9"
        assert common.find_can("slcan:/dev/ttyACM0") == "slcan:/dev/ttyACM0"
        with pytest.raises(common.Failed, match="runs already"), common.RunningPack():
            raise AssertionError("two at a time")
        assert (tmp_path / "run" / "pack.json").stat().st_mode & 0o077 == 0
    assert common.running_pack() is None
    with pytest.raises(common.Failed, match="start `packtrust pack`"):
        common.find_can(None)


def test_state_of_a_pack_that_was_killed_is_not_believed(cli, tmp_path):
    (tmp_path / "run" / "pack.json").write_text('{"can": {"vcu": "slcan:/dev/pts/9"}}')
    assert common.running_pack() is None
    with (tmp_path / "run" / "pack.json").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert common.running_pack() == {"can": {"vcu": "slcan:/dev/pts/9"}}


def test_bridge_address_comes_from_option_environment_or_default(cli, monkeypatch):
    assert common.find_bridge(None) == "http://127.0.0.1:8080"
    monkeypatch.setenv("PACKTRUST_BRIDGE", "http://10.0.0.1")
    assert common.find_bridge(None) == "http://10.0.0.1"
    assert common.find_bridge("http://10.0.0.2") == "http://10.0.0.2"


# -- claim codes -------------------------------------------------------------------------------------------------------


def code_file(folder, code):
    path = folder / "code"
    path.write_text(code + "\n")
    return path


def test_claim_codes_are_kept_and_never_shown(cli, tmp_path):
    store = tmp_path / "keys"
    by_id = cli("claim", "add", "13c857f1", "--code-file", code_file(tmp_path, CODE), "--store", store)
    by_serial = cli("claim", "add", "MODBATT-MOD-1", "--store", store, input=CODE + "\n")
    listed = cli("claim", "list", "--store", store)
    as_json = cli("claim", "list", "--store", store, "--json")
    assert [item.exit_code for item in (by_id, by_serial, listed, as_json)] == [0, 0, 0, 0]
    assert json.loads(as_json.stdout) == {"devices": ["id 13c857f1", "serial MODBATT-MOD-1"]}
    assert "13c857f1" in listed.stdout
    for result in (by_id, by_serial, listed, as_json):
        for at in range(0, 24, 8):
            assert CODE[at : at + 8] not in result.stdout + result.stderr


def test_claim_code_that_is_none_is_refused_without_repeating_it(cli, tmp_path):
    result = cli(
        "claim", "add", "13c857f1", "--code-file", code_file(tmp_path, CODE[:-2]), "--store", tmp_path / "keys"
    )
    assert result.exit_code == 1
    assert "32 hex digits" in result.stderr
    assert CODE[:8] not in result.stderr + result.stdout


def test_no_claim_codes(cli, tmp_path):
    result = cli("claim", "list", "--store", tmp_path / "keys")
    assert result.exit_code == 0
    assert "No claim codes" in result.stdout


# -- tables ------------------------------------------------------------------------------------------------------------


def test_messages_as_table_and_json(cli):
    assert "STATUS_1" in cli("messages").stdout
    rows = json.loads(cli("messages", "--json").stdout)
    assert [row for row in rows if row["name"] == "STATE_CHANGE"] == [
        {"base": "0x514", "name": "STATE_CHANGE", "direction": "P>M", "class": "command", "sealed": True, "cited": True,
         "length": 4}
    ]  # fmt: skip
    assert rows == sorted(rows, key=lambda row: row["base"])
    assert len(json.loads(cli("messages", "0x502", "--json").stdout)) == 1


def test_dbc_loads(cli):
    import cantools

    database = cantools.database.load_string(cli("dbc", "--modules", "2").stdout, "dbc")
    names = {message.name for message in database.messages}
    assert "MOD02_STATUS_1" in names and "MOD03_STATUS_1" not in names


# -- demo's report -----------------------------------------------------------------------------------------------------


class FakeRun:
    """In place of a DemoRun: a report at once."""

    ok = True

    def __init__(self, options, view, on_event=None):
        self.options = options
        self.view = view

    def run(self):
        self.view.close()
        facts = {"seconds": 1.0, "logs": {"vcu": "vcu.log", "module": "module.log"}}
        return Report([Line(1, "It works", "measured", [] if self.ok else ["it does not"])], [], facts)


@pytest.mark.parametrize("ok", [True, False])
def test_demo_exit_code_is_the_verdict(cli, monkeypatch, ok):
    monkeypatch.setattr(FakeRun, "ok", ok)
    monkeypatch.setattr(demo_command, "DemoRun", FakeRun)
    shown = cli("demo")
    assert shown.exit_code == (0 if ok else 1)
    assert ("All 1 criteria hold" if ok else "1 of 1 criteria do not hold") in shown.stdout
    printed = cli("demo", "--json")
    assert printed.exit_code == shown.exit_code
    assert json.loads(printed.stdout)["ok"] is ok


def test_demo_passes_its_options_on(cli, monkeypatch, tmp_path):
    seen = []

    class Recorder(FakeRun):
        def __init__(self, options, view, on_event=None):
            super().__init__(options, view, on_event)
            seen.append(options)

    monkeypatch.setattr(demo_command, "DemoRun", Recorder)
    arguments = ["--modules", "5", "--duration", "7", "--seed", "9", "--topology", "series", "--bitrate", "250000"]
    result = cli("demo", *arguments,
                 "--clear-first-transfer", "--key-log", tmp_path / "k", "--output", tmp_path / "o")  # fmt: skip
    assert result.exit_code == 0
    options = seen[0]
    assert (options.modules, options.duration_s, options.seed, options.topology) == (5, 7.0, 9, "series")
    assert (options.bitrate, options.clear_first_transfer, options.key_log) == (250_000, True, tmp_path / "k")
    assert options.output == tmp_path / "o"
