"""The pytest plugin for MicroPython boards, on boards that CPython plays (tests/fake_board.py)."""

import json
import os
import pty
import sys
import tty
from pathlib import Path

import pytest

from pytest_micropython_boards import Board, BoardError, BoardTimeout, Description, ScriptError, load
from pytest_micropython_boards.board import parse_can_url
from pytest_micropython_boards.console import Console
from pytest_micropython_boards.description import from_option

TESTS = Path(__file__).resolve().parents[2]
FAKE = TESTS / "fake_board.py"
PLUGIN = TESTS.parent / "host/pytest_micropython_boards/src"


def fake(folder, *options, **settings):
    description = Description("fake", start=[sys.executable, str(FAKE), "{state}/flash", *options], **settings)
    return Board(description, folder)


@pytest.fixture(params=["paste", "plain", "old"])
def any_board(request, tmp_path):
    """A board with raw-paste mode, one without, and one that has never heard of it."""
    with fake(tmp_path, "--mode", request.param) as board:
        board.fresh()
        yield board


@pytest.fixture
def one(tmp_path):
    with fake(tmp_path) as board:
        board.fresh()
        yield board


def test_code_and_values(any_board):
    assert any_board.exec("for n in range(3):\n    print(n)") == "0\n1\n2\n"
    assert any_board.eval("{'a': [1, b'x', None]}") == {"a": [1, b"x", None]}
    long = "x" * 5000
    assert any_board.exec("print(len('%s'))" % long) == "5000\n"


def test_an_error_on_the_board(any_board):
    with pytest.raises(ScriptError) as caught:
        any_board.exec("print('before')\n[][1]")
    assert caught.value.exception == "IndexError" and caught.value.output == "before\n"
    assert "line 2" in str(caught.value)
    assert any_board.eval("1 + 1") == 2


def add(a, b):
    import os

    print(os.sep)
    return [a + b, "sum"]


def test_a_function_runs_on_the_board(one):
    assert one.call(add, 2, 3) == [5, "sum"]
    with pytest.raises(BoardError, match="plain function"):
        one.call(lambda: 1)


def test_files(any_board):
    data = bytes(range(256)) * 3 + b"\x04"
    any_board.put(data, "made/here/data.bin")
    assert any_board.get("made/here/data.bin") == data
    any_board.put(data, "made/here/data.bin")
    with pytest.raises(ScriptError, match="nothing"):
        any_board.get("nothing")


def test_a_fresh_interpreter_forgets_and_the_flash_does_not(one):
    one.exec("x = 1")
    one.put(b"kept", "kept")
    one.fresh()
    with pytest.raises(ScriptError, match="NameError"):
        one.exec("x")
    one.power_cycle()
    one.fresh()
    assert one.get("kept") == b"kept" and one.get("boots") == b"2"
    one.reset()
    one.fresh()
    assert one.get("boots") == b"3"
    assert one.power_cycles == 1


def test_state_may_be_kept(tmp_path):
    with fake(tmp_path, keep_state=True) as board:
        board.fresh()
        board.exec("x = 1")
        board.fresh()
        assert board.eval("x") == 1


def test_code_that_goes_on(one):
    running = one.start(
        "import time\nfor n in range(3):\n    print('n', n)\n    time.sleep(0.01)\nprint('end', end='')"
    )
    assert running.wait_for("n 1") == "n 1"
    assert list(running.lines()) == ["n 2", "end"]
    assert running.finish() == "n 0\nn 1\nn 2\nend"
    short = one.start("print('only this')")
    with pytest.raises(BoardError, match="without printing 'that'"):
        short.wait_for("that")


def test_silence_is_an_error_and_the_board_comes_back(one):
    with pytest.raises(BoardTimeout, match="nothing new"):
        one.exec("import time\ntime.sleep(0.6)", timeout=0.2)
    one.fresh()
    assert one.eval("2") == 2


def test_no_board_behind_the_port(tmp_path):
    with (
        fake(tmp_path, "--mute", boot_timeout=0.5) as board,
        pytest.raises(BoardTimeout, match=r"no raw REPL.*said nothing"),
    ):
        board.fresh()


def test_what_cannot_be_started(tmp_path):
    for command, text in (
        (["/no/such/program"], "cannot start"),
        ([sys.executable, "-c", "import sys; sys.exit('no firmware: build it')"], "no firmware: build it"),
        ([sys.executable, "-c", "print('[]', flush=True); input()"], "JSON object with `console`"),
        ([sys.executable, "-c", "input()"], "no line within"),
    ):
        board = Board(Description("x", start=command, start_timeout=1.0), tmp_path)
        with pytest.raises(BoardError, match=text):
            board.open()
        board.close()


def test_what_was_said_before_the_console_was_opened_is_not_lost():
    """A virtual board's program may be quicker than its test."""
    ours, theirs = pty.openpty()
    try:
        tty.setraw(theirs)
        os.write(ours, b"18 heat\r\n")
        with Console(os.ttyname(theirs)) as console:
            console.open()
            assert console.read_until("heat", timeout=5) == b"18 heat"
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_port_that_is_not_there(tmp_path):
    board = Board(Description("x", console=str(tmp_path / "tty")), tmp_path)
    with pytest.raises(BoardError, match="plugged in"):
        board.console.open(timeout=0.2)
    with pytest.raises(BoardError, match="is closed"):
        board.console.write("x")
    with pytest.raises(BoardError, match="cannot be power-cycled"):
        board.power_cycle()


def test_power_cycle_by_command(tmp_path):
    with fake(tmp_path) as first:
        # A "serial" board: its console is a port, its power is somebody else's command.
        command = [sys.executable, "-c", "open('cycled', 'a').write('{name} ')"]
        description = Description(
            "wired", console=first.console.port, power_cycle={"command": command}, folder=tmp_path
        )
        first.console.close()
        with Board(description, tmp_path) as board:
            board.fresh()
            board.power_cycle()
            board.fresh()
            assert board.eval("3") == 3
            assert (tmp_path / "cycled").read_text() == "wired "
            description.power_cycle = {"command": [sys.executable, "-c", "import sys; sys.exit('no hub')"]}
            with pytest.raises(BoardError, match="no hub"):
                board.power_cycle()
            description.power_cycle = {"uhubctl": {"location": "1-1", "port": "2"}}
            tool = tmp_path / "bin" / "uhubctl"
            tool.parent.mkdir()
            tool.write_text('#!/bin/sh\necho "$@" >%s/hub\n' % tmp_path)
            tool.chmod(0o755)
            before = os.environ["PATH"]
            os.environ["PATH"] = "%s:%s" % (tool.parent, before)
            try:
                board.power_cycle()
            finally:
                os.environ["PATH"] = before
            assert (tmp_path / "hub").read_text() == "-l 1-1 -p 2 -a cycle -d 2\n"


def test_boards_file(tmp_path):
    path = tmp_path / "boards.toml"
    path.write_text(
        'default = "a"\n[board.a]\nstart = "run it --now"\narch = "unix"\n'
        '[board.b]\nconsole = "/dev/ttyACM0"\nbaudrate = 9600\nboot_timeout = 3\ncan = "slcan:/dev/ttyACM1"\n'
        'power_cycle = { uhubctl = { location = "1-1", port = 2 } }\n'
        '[board.c]\nconsole = "COM3"\n[board.c.can]\nvcu = "socketcan:can0"\nmodule = "socketcan:can1"\n'
    )
    boards, default = load(path)
    assert default == ["a"] and list(boards) == ["a", "b", "c"]
    assert boards["a"].start == ["run", "it", "--now"] and boards["a"].can_be_power_cycled
    b = boards["b"]
    assert (b.console, b.baudrate, b.boot_timeout, b.can) == ("/dev/ttyACM0", 9600, 3.0, {"can": "slcan:/dev/ttyACM1"})
    assert b.power_cycle == {"uhubctl": {"location": "1-1", "port": "2"}}
    assert not boards["c"].can_be_power_cycled
    board = Board(boards["c"], tmp_path)
    assert board.can_url("vcu") == "socketcan:can0"
    with pytest.raises(BoardError, match="vcu, module"):
        board.can_url()
    assert Board(boards["c"], tmp_path, {"can": "virtual:x"}).can_url() == "virtual:x"
    with pytest.raises(BoardError, match="--can"):
        Board(boards["a"], tmp_path).can_url()
    serial = from_option("serial:/dev/ttyUSB0@57600", boards)
    assert (serial.console, serial.baudrate) == ("/dev/ttyUSB0", 57600)
    for text in ("nobody", "serial:", "serial:x@fast"):
        with pytest.raises(BoardError):
            from_option(text, boards)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[board.a]\n", "either console"),
        ('[board.a]\nconsole = "x"\nstart = "y"\n', "either console"),
        ('[board.a]\nconsole = 3\n', "is a str"),
        ('[board.a]\nconsole = "x"\ncolour = "red"\n', "known are"),
        ('[board.a]\nconsole = "x"\ncan = 3\n', "python-can URL"),
        ('[board.a]\nconsole = "x"\npower_cycle = "pull"\n', "uhubctl"),
        ("[board.a]\nstart = []\n", "is a command"),
        ('default = ["b"]\n[board.a]\nconsole = "x"\n', "none of a"),
        ("[board", "cannot be read"),
    ],
)  # fmt: skip
def test_boards_file_with_mistakes(tmp_path, text, message):
    path = tmp_path / "boards.toml"
    path.write_text(text)
    with pytest.raises(BoardError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_can_urls():
    assert parse_can_url("slcan:/dev/ttyACM1?bitrate=500000&listen_only=true") == (
        "slcan", "/dev/ttyACM1", {"bitrate": 500000, "listen_only": True, "sleep_after_open": 0.0},
    )  # fmt: skip
    assert parse_can_url("socketcan:can0") == ("socketcan", "can0", {})
    with pytest.raises(BoardError, match="interface:channel"):
        parse_can_url("can0")


# -- a project that uses it ----------------------------------------------------------------------


@pytest.fixture
def project(pytester, monkeypatch):
    """An empty project that has the plugin, and two boards."""
    monkeypatch.setenv("PYTHONPATH", str(PLUGIN))
    monkeypatch.delenv("CI", raising=False)
    command = json.dumps([sys.executable, str(FAKE), "{state}/flash", "--can", "virtual:plugin-test"])
    pytester.makefile(
        ".toml",
        boards='default = ["left"]\n[board.left]\nstart = %s\narch = "l"\n[board.right]\nstart = %s\narch = "r"\n'
        % (command, command),
    )

    def run(*arguments):
        return pytester.runpytest_subprocess(
            "-p", "pytest_micropython_boards.plugin", "-p", "no:cacheprovider", *arguments
        )

    pytester.run_project = run
    return pytester


@pytest.mark.realtime
def test_fixtures(project):
    project.makepyfile(
        """
        import can

        def test_values(board):
            assert board.eval("6 * 7") == 42
            board.exec("left_behind = 1")

        def test_fresh(board):
            assert "left_behind" not in board.eval("list(globals())")

        def test_power(board, power_cycle):
            board.put(b"flash", "kept")
            power_cycle()
            assert board.get("kept") == b"flash" and board.get("boots") == b"2"

        def test_program(board, power_cycle, console):
            board.put(b"print('hello from main')", "main.py")
            power_cycle()
            console.read_until("hello from main")

        def test_can(board, can_bus):
            with can.Bus(interface="virtual", channel="plugin-test") as other:
                other.send(can.Message(arbitration_id=5, data=b"x"))
                assert can_bus.recv(1).data == b"x"
        """
    )
    result = project.run_project("-v")
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["boards: left", "*test_values?left? PASSED*"])
    project.run_project("--board", "left", "--board", "right").assert_outcomes(passed=10)


def test_choosing(project):
    project.makepyfile(
        """
        import pytest

        @pytest.mark.only_boards(arch="r")
        def test_right(board):
            assert board.arch == "r"

        @pytest.mark.only_boards("left")
        def test_left(board):
            assert board.name == "left"

        def test_without():
            pass
        """
    )
    project.run_project().assert_outcomes(passed=2, deselected=1)
    project.run_project("--board", "right").assert_outcomes(passed=2, deselected=1)
    project.run_project("--board", "right", "--board", "left").assert_outcomes(passed=3)
    result = project.run_project("--board", "middle")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*no board 'middle'*left, right*serial:PORT*"])
    result = project.run_project("--board", "left", "--board", "right", "--can", "virtual:x")
    result.stderr.fnmatch_lines(["*--can is for one board*"])


def test_no_board_chosen(project):
    (project.path / "boards.toml").unlink()
    project.makepyfile("def test_it(board):\n    pass\n")
    result = project.run_project()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no board is chosen*--board NAME*"])


def test_a_plain_serial_port(project, tmp_path):
    project.makepyfile(
        """
        def test_it(board, power_cycle):
            raise AssertionError("must be skipped")

        def test_that(board):
            assert board.eval("1") == 1
        """
    )
    with fake(tmp_path) as board:
        board.console.close()
        result = project.run_project("-rs", "--board", "serial:" + board.console.port)
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*cannot be power-cycled*"])


def test_a_failure_shows_the_console(project):
    project.makepyfile(
        """
        def test_it(board):
            board.exec("print('what the board said')")
            board.exec("raise RuntimeError('boom')")
        """
    )
    result = project.run_project()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*RuntimeError: boom*", "*console of board left*", "*what the board said*"])


def test_a_board_that_does_not_start_is_tried_once(project):
    (project.path / "boards.toml").write_text(
        'default = ["x"]\n[board.x]\nstart = ["%s", "-c", "open(\'tries\', \'a\').write(\'1\')"]\n' % sys.executable
    )
    project.makepyfile("def test_a(board):\n    pass\ndef test_b(board):\n    pass\n")
    result = project.run_project()
    result.assert_outcomes(errors=2)
    assert (project.path / "tries").read_text() == "1"
