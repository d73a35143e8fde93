"""`packtrust board start`, `deploy` and mpremote on the virtual boards' consoles: commands as a user types them.

Both boards run the interpreter a real one has, and what reaches them goes through their consoles alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import can
import pytest
import serial

from packtrust_host.app.keystore import KeyStore
from packtrust_host.deploy import bundle, find, process
from packtrust_host.deploy.device import Device, NodeConsole
from packtrust_host.deploy.profile import load_profile
from packtrust_host.sim import qemu

ROOT = Path(__file__).resolve().parents[2]
PACKTRUST = [sys.executable, "-c", "from packtrust_host.cli import main; main()"]
LIMIT_S = 240.0
BOARDS = ("unix", "cortex-m4")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


class Bench:
    """A user's folders, and the virtual boards he has started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "XDG_DATA_HOME": str(folder / "data"),
            "PACKTRUST_MACHINE_ID": "test",
            "PYTHONPATH": os.pathsep.join(item for item in sys.path if item),
        }
        (folder / "run").mkdir(mode=0o700)
        self.boards: dict[str, subprocess.Popen[str]] = {}

    def start(self, board: str, *options: str, name: str | None = None) -> dict[str, Any]:
        """`packtrust board start`; what its JSON line says."""
        if board == "cortex-m4":
            try:
                qemu.firmware(), qemu.find_qemu()
            except qemu.QemuError as error:
                pytest.skip(str(error))
        words = ["board", "start", board, "--json", *options, *(["--name", name] if name else [])]
        process_ = subprocess.Popen(
            [*PACKTRUST, *words], env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.boards[name or board] = process_
        assert process_.stdout is not None
        line = process_.stdout.readline()
        assert line, "it did not start"
        info: dict[str, Any] = json.loads(line)
        return info

    def end(self, name: str) -> int:
        """Close its standard input; its exit code."""
        running = self.boards.pop(name)
        assert running.stdin is not None and running.stdout is not None
        running.stdin.close()
        code = running.wait(30)
        running.stdout.close()
        return code

    def run(self, *command: str, limit_s: float = LIMIT_S) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )

    def packtrust(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(*PACKTRUST, *words)

    def deploy(self, *words: str) -> dict[str, Any]:
        """`packtrust deploy --json`, which succeeds."""
        done = self.packtrust("deploy", *words, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def mpremote(self, console: str, *words: str) -> str:
        """mpremote on a console; its output."""
        done = self.run(sys.executable, "-m", "mpremote", "connect", os.path.realpath(console), *words, limit_s=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def keys(self) -> KeyStore:
        os.environ["PACKTRUST_MACHINE_ID"] = "test"
        return KeyStore(self.folder / "data" / "packtrust" / "keys")

    def close(self) -> None:
        for name in list(self.boards):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.end(name)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("d"))
    yield made
    made.close()


@pytest.fixture(scope="module", params=BOARDS)
def board(request: pytest.FixtureRequest, bench: Bench) -> Iterator[tuple[str, dict[str, Any]]]:
    """A board started, with what its JSON line says."""
    info = bench.start(request.param)
    yield request.param, info
    if request.param in bench.boards:
        bench.end(request.param)


@pytest.fixture(scope="module")
def first(board: tuple[str, dict[str, Any]], bench: Bench) -> dict[str, Any]:
    """What the first deploy onto it said."""
    kind, info = board
    return bench.deploy(kind, "--can", info["can"]["module"])


def answer(console: str, line: str) -> str:
    """A running node's answer to a console command."""
    with NodeConsole(lambda: os.path.realpath(console)) as node:
        node.wait_started()
        return node.ask(line)


# -- deploy ------------------------------------------------------------------------------------------------------------


def test_first_deploy_fills_the_board_and_stores_its_claim_code(board, first, bench) -> None:
    kind, info = board
    assert first["board"] == kind
    assert "node.json" in first["copied"]
    assert "main.py" in first["copied"]
    assert first["rom_written"] is (kind == "cortex-m4")
    assert first["announced"] is True
    assert first["claim"] == "stored"
    code = answer(info["console"], "claim")
    assert re.fullmatch("[0-9a-f]{32}", code)
    stored = bench.keys().claim_code(first["node"]["unique_id"])
    assert stored is not None
    assert stored.hex() == code
    assert code not in json.dumps(first)


def test_nothing_of_the_other_boards_and_of_the_host_is_on_it(board, first, bench) -> None:
    kind, info = board
    names = bench.mpremote(info["console"], "fs", "tree", ":/")
    for wrong in ("can_mcp2515", "can_pyb", "_typing", "host.mpy", "pack.mpy", "test"):
        assert wrong not in names.replace("testservice", "").replace("testwire", "")
    assert bench.deploy(kind)["claim"] == "stored"  # mpremote had stopped the node


def test_second_deploy_copies_nothing_and_says_so(board, first, bench) -> None:
    kind, _ = board
    done = bench.packtrust("deploy", kind)
    assert done.returncode == 0, done.stderr
    assert "nothing is copied" in done.stdout
    again = bench.deploy(kind)
    assert (again["copied"], again["removed"], again["rom_written"], again["bytes_copied"]) == ([], [], False, 0)
    assert again["node"] == first["node"]


def test_dry_run_changes_nothing(board, first, bench, tmp_path) -> None:
    kind, info = board
    options = tmp_path / "options.json"
    options.write_text('{"pack": 3}')
    told = bench.deploy(kind, "--dry-run", "--config", str(options))
    assert told["copied"] == ["node.json"]
    assert json.loads(answer(info["console"], "id"))["pack"] == 0


def test_what_is_changed_is_copied_and_nothing_else(board, first, bench, tmp_path) -> None:
    kind, info = board
    options = tmp_path / "options.json"
    options.write_text('{"profile": "another"}')
    told = bench.deploy(kind, "--config", str(options))
    assert told["copied"] == ["node.json"]
    assert not told["rom_written"]
    assert json.loads(answer(info["console"], "id"))["profile"] == "another"
    # What is there is kept without being said again.
    assert bench.deploy(kind)["copied"] == []


def test_a_changed_source_is_the_one_file_that_is_copied(bench, tmp_path, monkeypatch, request) -> None:
    info = bench.start("unix", "--flash", str(tmp_path / "flash"), name="changed")
    request.addfinalizer(lambda: bench.end("changed"))
    target = find.Target(load_profile("unix"), info["console"], state=info)
    process.deploy(target)
    real = bundle.deployed_files()
    changed = tmp_path / "mailbox.py"
    changed.write_text(real["packtrust_node/mailbox.py"].read_text() + "\n\nCHANGED = 12345\n")
    monkeypatch.setattr(bundle, "deployed_files", lambda: {**real, "packtrust_node/mailbox.py": changed})
    told = process.deploy(target)
    assert told.copied == ["packtrust_node/mailbox.mpy"]
    assert told.removed == []


def test_what_is_damaged_on_the_board_is_found_and_replaced(board, first, bench) -> None:
    kind, info = board
    spoil = "f=open('main.py','a')\nf.write('#')\nf.close()\n"
    spoil += "import os\nf=open('%s/stale.py','w')\nf.close()\n"
    folder = "lib/packtrust"
    if kind == "cortex-m4":
        # One byte of the ROM file system as well.
        spoil += "import vfs\nvfs.rom_ioctl(4,0,4096,bytes((memoryview(vfs.rom_ioctl(2,0))[4096]^1,)))\n"
        spoil = "import os\nos.mkdir('lib')\nos.mkdir('lib/packtrust')\n" + spoil
    else:
        spoil += "f=open('packtrust_node/loop.mpy','ab')\nf.write(b'x')\nf.close()\n"
    bench.mpremote(info["console"], "exec", spoil % folder)
    told = bench.deploy(kind)
    assert "main.py" in told["copied"]
    assert told["removed"] == ["lib/packtrust/stale.py"]
    if kind == "cortex-m4":
        assert told["rom_written"]
        assert told["copied"] == ["main.py"]
    else:
        assert sorted(told["copied"]) == ["main.py", "packtrust_node/loop.mpy"]
    assert told["node"]["unique_id"] == first["node"]["unique_id"]


def announced(url: str, unique_id: int) -> None:
    process.wait_announced(url, {"role": "module", "unique_id": unique_id, "serial": "it"})


def test_it_comes_back_after_a_power_cycle(board, first, bench) -> None:
    kind, info = board
    code = answer(info["console"], "claim")
    done = bench.packtrust("board", "power-cycle", kind)
    assert done.returncode == 0, done.stderr
    announced(info["can"]["module"], first["node"]["unique_id"])
    assert answer(info["console"], "claim") == code
    assert json.loads(answer(info["console"], "stats"))["boot_counter"] > 1


def test_it_comes_back_after_being_killed_and_started_again(board, first, bench) -> None:
    kind, info = board
    code = answer(info["console"], "claim")
    pid = json.loads(bench.packtrust("board", "list", "--json").stdout)["virtual"][0]["board_pid"]
    os.kill(pid, signal.SIGKILL)
    assert bench.boards[kind].wait(30) == 1  # it says that its board has ended
    bench.end(kind)
    assert not os.path.islink(info["console"])
    again = bench.start(kind)
    assert again["flash"] == info["flash"]
    announced(again["can"]["module"], first["node"]["unique_id"])
    assert answer(again["console"], "claim") == code


# -- the console, as mpremote sees it ----------------------------------------------------------------------------------


def test_deploying_to_what_is_not_there_is_told(bench) -> None:
    done = bench.packtrust("deploy", "unix", "--name", "nobody")
    assert done.returncode == 1
    assert "packtrust board start unix" in done.stderr
    done = bench.packtrust("deploy", "unix", "--port", "/dev/no-such-port")
    assert "packtrust board list" in done.stderr


@pytest.fixture
def console(bench, tmp_path) -> Iterator[str]:
    info = bench.start("unix", "--flash", str(tmp_path / "flash"), "--can", "0", name="repl")
    yield info["console"]
    bench.end("repl")


def test_board_list_shows_it(bench, console) -> None:
    done = bench.packtrust("board", "list")
    assert re.search(r"^repl +virtual +unix, module +%s$" % re.escape(console), done.stdout, re.MULTILINE), done.stdout


def test_two_of_a_kind_are_not_guessed_between(bench, console, tmp_path, request) -> None:
    bench.start("unix", "--flash", str(tmp_path / "other"), name="other")
    request.addfinalizer(lambda: bench.end("other"))
    done = bench.packtrust("deploy", "unix")
    assert done.returncode == 1
    for text in ("repl at", "other at", "--name", "--port"):
        assert text in done.stderr
    taken = bench.packtrust("board", "start", "unix", "--name", "other")
    assert taken.returncode == 1
    assert "runs already" in taken.stderr


def test_mpremote_files(bench, console, tmp_path) -> None:
    text = os.urandom(3000).hex()
    (tmp_path / "module.py").write_text("TEXT = %r\n" % text)
    bench.mpremote(console, "fs", "mkdir", ":sub", "+", "fs", "cp", str(tmp_path / "module.py"), ":sub/module.py")
    assert "module.py" in bench.mpremote(console, "fs", "ls", ":sub")
    assert bench.mpremote(console, "exec", "from sub.module import TEXT; print(TEXT)").strip() == text
    assert bench.mpremote(console, "fs", "cat", ":sub/module.py") == (tmp_path / "module.py").read_text()
    bench.mpremote(console, "fs", "rm", "-r", ":sub")
    assert "sub" not in bench.mpremote(console, "fs", "ls")


def test_mpremote_mount_and_run(bench, console, tmp_path) -> None:
    folder = tmp_path / "host"
    folder.mkdir()
    (folder / "there.py").write_text("DATA = %r\n" % bytes(range(256)))
    (tmp_path / "script.py").write_text("print('ran')\n")
    assert bench.mpremote(console, "run", str(tmp_path / "script.py")) == "ran\n"
    shown = bench.mpremote(console, "mount", str(folder), "exec", "import there; print(sum(there.DATA))")
    assert "32640" in shown


def test_mpremote_keeps_state_only_with_resume(bench, console) -> None:
    bench.mpremote(console, "resume", "exec", "kept = 5")
    assert bench.mpremote(console, "resume", "exec", "print(kept)").strip() == "5"
    done = bench.run(
        sys.executable, "-m", "mpremote", "connect", os.path.realpath(console), "exec", "print(kept)", limit_s=60
    )
    assert "NameError" in done.stdout + done.stderr


class Terminal:
    """Somebody at the keyboard."""

    def __init__(self, console: str) -> None:
        self.port = serial.Serial(os.path.realpath(console), 115200, timeout=0.2)
        self.seen = b""

    def until(self, text: bytes, limit_s: float = 20) -> bytes:
        end = time.monotonic() + limit_s
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            self.seen += self.port.read(self.port.in_waiting or 1)
        before, _, self.seen = self.seen.partition(text)
        return before

    def type(self, text: bytes) -> None:
        self.port.write(text)


def test_the_prompt_as_people_use_it(console) -> None:
    user = Terminal(console)
    user.type(b"\r\x03chr(82) + chr(69)\r")
    user.until(b"'RE'\r\n>>> ")
    user.type(b"6*7\r")
    assert b"42" in user.until(b">>> ")
    user.type(b"for i in range(2):\r    print('line', i)\r\r")
    assert b"line 0\r\nline 1\r\n" in user.until(b"line 1\r\n") + b"line 1\r\n"
    user.until(b">>> ")
    user.type(b"1/0\r")
    user.until(b"ZeroDivisionError")
    user.until(b">>> ")
    # Ctrl-E: what is pasted is not taken line by line.
    user.type(b"\x05x = 3\rif x:\r    y = x + 1\r\x04")
    user.until(b">>> ")
    user.type(b"y\r")
    assert b"4" in user.until(b">>> ")
    user.port.close()


def test_ctrl_c_stops_a_program_and_ctrl_d_starts_main_again(bench, console, tmp_path) -> None:
    main = tmp_path / "main.py"
    main.write_text("import time\nprint('main', __name__)\nwhile True:\n    pass\n")
    bench.mpremote(console, "fs", "cp", str(main), ":main.py")
    user = Terminal(console)
    user.type(b"\r\x02\x04")
    user.until(b"MPY: soft reboot\r\n")
    user.until(b"main __main__\r\n")
    user.type(b"\x03\x03")  # older tools send it twice
    user.until(b"KeyboardInterrupt")
    user.until(b">>> ")
    user.type(b"import machine; machine.reset()\r")
    user.until(b"main __main__\r\n")
    user.port.close()
    assert bench.mpremote(console, "exec", "print('stopped it')") == "stopped it\n"


def test_raw_mode_without_raw_paste(console) -> None:
    with Device(console) as device:
        device._transport.use_raw_paste = False
        assert device.run("print(%r)" % ("x" * 5000)).strip() == "x" * 5000
        device._transport.use_raw_paste = True
        assert device.run("print(%r)" % ("y" * 5000)).strip() == "y" * 5000


# -- both together -----------------------------------------------------------------------------------------------------


def test_deployed_provisioned_and_power_cycled_they_handshake_and_talk(bench, tmp_path, request) -> None:
    pack = bench.start("unix", "--role", "pack", "--flash", str(tmp_path / "pack"), name="pack")
    request.addfinalizer(lambda: bench.end("pack"))
    module = bench.start("cortex-m4", "--join", "pack", "--flash", str(tmp_path / "module.img"), name="module")
    request.addfinalizer(lambda: bench.end("module"))
    vcu = pack["can"]["vcu"]
    assert module["can"] == {"module": pack["can"]["module"]}
    assert bench.deploy("unix", "--name", "pack", "--can", vcu)["node"]["role"] == "pack"
    bench.deploy("cortex-m4", "--name", "module", "--can", module["can"]["module"])
    bridge = subprocess.Popen(
        [*PACKTRUST, "bridge", "--port", "0", "--json"], env=bench.environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert bridge.stdout is not None
        lines = ""
        while "}" not in lines:
            line = bridge.stdout.readline()
            assert line
            lines += line
        bench.environment["PACKTRUST_BRIDGE"] = json.loads(lines)["url"]
        done = bench.packtrust("provision", "--can", vcu, "--modules", "1")
        assert done.returncode == 0, done.stdout + done.stderr
        for name in ("pack", "module"):
            assert bench.packtrust("board", "power-cycle", name).returncode == 0
        process.wait_announced(vcu, {"role": "pack", "unique_id": unique_of(pack["console"]), "serial": "pack"})
        done = bench.packtrust("validate", "--can", vcu)
        assert done.returncode == 0, done.stdout + done.stderr
        done = bench.packtrust("monitor", "--can", vcu, "--duration", "8", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        seen = json.loads(done.stdout)
        assert len(seen["modules"]) == 1, seen
        # A session of the two boards under the keys they had before the power went.
        for info in (pack, module):
            stats = json.loads(answer(info["console"], "stats"))
            assert stats["claimed"]
            assert stats["counters"]["sessions"] >= 1
            assert stats["boot_counter"] > 1
    finally:
        bridge.terminate()
        bridge.communicate(timeout=30)


def unique_of(console: str) -> int:
    number: int = json.loads(answer(console, "id"))["unique_id"]
    return number


def test_a_third_party_can_read_the_bus_of_a_board(bench, tmp_path, request) -> None:
    """The printed adapter is one for python-can: a frame of another adapter's arrives."""
    info = bench.start("unix", "--flash", str(tmp_path / "flash"), "--role", "pack", "--can", "2", name="bus")
    request.addfinalizer(lambda: bench.end("bus"))
    assert set(info["can"]) == {"vcu", "module"}
    with can.Bus(interface="slcan", channel=info["adapters"]["vcu"], bitrate=500000, sleep_after_open=0) as bus:
        assert bus.get_version(2)[0] is not None
