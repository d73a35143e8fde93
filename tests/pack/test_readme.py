"""The README, followed: its commands in its order, as a newcomer types them, on real processes.

One session: a virtual pack and a bridge run; then verify, provision, monitor, validate, and the everyday CAN tools on
the pack's adapters. `tests/unit/host/test_docs.py` holds the README against the names of the tests here.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import can
import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60.0
PACKTRUST = [sys.executable, "-c", "from packtrust_host.cli import main; main()"]

pytestmark = [pytest.mark.slow]


class Running:
    """A command that keeps running; its lines so far."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def until(self, pattern: str) -> re.Match[str]:
        """The next line that matches."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            found = re.search(pattern, line)
            if found:
                return found
        raise AssertionError("it ended without %r:\n%s" % (pattern, "".join(self.lines)))

    def interrupt(self) -> tuple[int, str]:
        """Ctrl-C: its exit code and what it still said."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        said, _ = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, "".join(self.lines) + (said or "")


class Newcomer:
    """A terminal of a user of his own: nothing of this user's is touched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        run = folder / "run"
        run.mkdir(mode=0o700)
        passphrase = folder / "passphrase"
        passphrase.touch(0o600)
        passphrase.write_text("what the newcomer types\n")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("XDG_")},
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(run),
            "PACKTRUST_UNLOCK": "file:%s" % passphrase,
            "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("shared", "host", "firmware")),
            "COLUMNS": "160",
        }

    def packtrust(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command that ends by itself."""
        return self.run([*PACKTRUST, *arguments])

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


class Session(Newcomer):
    """A newcomer, a bridge and a pack of three modules that keep running."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bridge = Running([*PACKTRUST, "bridge", "--port", "0"], self.environment)
        self.environment["PACKTRUST_BRIDGE"] = self.bridge.until(r"bridge at (http://\S+),").group(1)
        self.pack = Running([*PACKTRUST, "pack", "--modules", "3"], self.environment)
        self.vcu = self.pack.until(r"vcu +bus +adapter (\S+)").group(1)
        self.module = self.pack.until(r"module +bus +adapter (\S+)").group(1)
        self.pack.until(r"Ctrl-C ends it")

    def start(self, *command: str) -> Running:
        return Running([sys.executable, *command], {**self.environment, "PYTHONUNBUFFERED": "1"})

    def close(self) -> None:
        for running in (self.pack, self.bridge):
            running.interrupt()


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    return Newcomer(tmp_path)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    made = Session(tmp_path_factory.mktemp("newcomer"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def verified(session: Session) -> subprocess.CompletedProcess[str]:
    """`packtrust verify`, while the nodes have no keys."""
    return session.packtrust("verify", "--can", "slcan:%s?bitrate=500000" % session.vcu, "--cases", "1")


@pytest.fixture(scope="module")
def provisioned(session: Session, verified: object) -> subprocess.CompletedProcess[str]:
    """`packtrust provision`."""
    return session.packtrust("provision")


@pytest.fixture
def keyed(session: Session, provisioned: subprocess.CompletedProcess[str]) -> Session:
    assert provisioned.returncode == 0, provisioned.stdout + provisioned.stderr
    return session


def test_pack_shows_its_adapters(session: Session) -> None:
    assert os.path.exists(session.vcu)
    assert os.path.exists(session.module)
    said = "".join(session.pack.lines)
    assert "MODBATT-PACK-RC001-001" in said
    assert "MODBATT-MOD-RC001-003" in said


def test_verify(verified: subprocess.CompletedProcess[str]) -> None:
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "pack 0: micropython" in verified.stdout
    assert "answers are right" in verified.stdout


def test_provision(provisioned: subprocess.CompletedProcess[str]) -> None:
    assert provisioned.returncode == 0, provisioned.stdout + provisioned.stderr
    assert "4 devices have keys" in provisioned.stdout


def test_verify_is_refused_once_there_are_keys(keyed: Session) -> None:
    refused = keyed.packtrust("verify", "--can", "slcan:%s" % keyed.vcu)
    assert refused.returncode == 1
    assert "the node has keys" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_monitor(keyed: Session, tmp_path: Path) -> None:
    shown = keyed.packtrust("monitor", "--key-log", str(tmp_path / "keys.log"))
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "session, epoch 1" in shown.stdout
    log = (tmp_path / "keys.log").read_text().splitlines()
    assert len(log) == 2  # both directions of its session
    assert all(line.startswith("packtrust-1 ") for line in log)
    assert log[0].split()[3] not in shown.stdout
    assert len(re.findall(r"^\W+[123] ", shown.stdout, re.MULTILINE)) == 3, shown.stdout


def test_validate(keyed: Session) -> None:
    done = keyed.packtrust("validate")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 4 LCTs are as registered" in done.stdout


def test_rotate(keyed: Session) -> None:
    shown = keyed.packtrust("rotate", "--show")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stdout.count("pack-module") == 3 and "0 rotated" in shown.stdout
    nothing = keyed.packtrust("rotate")
    assert nothing.returncode == 0 and "0 rotated" in nothing.stdout, nothing.stdout + nothing.stderr
    done = keyed.packtrust("rotate", "--all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 rotated" in done.stdout and done.stdout.count("committed") == 7
    lct = next(iter(json.loads(keyed.packtrust("rotate", "--show", "--json").stdout)["lcts"]))
    one = keyed.packtrust("rotate", "--lct", lct)
    assert one.returncode == 0 and "1 rotated" in one.stdout, one.stdout + one.stderr
    again = keyed.packtrust("validate")
    assert again.returncode == 0, again.stdout + again.stderr


def test_can_logger(keyed: Session) -> None:
    running = keyed.start("-m", "can.logger", "-i", "slcan", "-c", keyed.vcu, "-b", "500000")
    for _ in range(10):
        # The pack's clear burst for old VCUs, and its announcement.
        running.until(r"ID:\s+(410|421|422|423|425|428|429|430) ")
    code, said = running.interrupt()
    assert "Traceback" not in said, said
    assert code in (0, -signal.SIGINT, 130)


def test_can_player(keyed: Session, tmp_path: Path) -> None:
    """A recording is played onto the module bus: frames of nobody, which a second adapter would see too."""
    log = tmp_path / "recording.log"
    with can.CanutilsLogWriter(str(log)) as writer:
        for number in range(20):
            for head, extended in ((0x700, False), (0x1FF00000, True)):
                writer.on_message_received(
                    can.Message(
                        timestamp=number / 1000, arbitration_id=head + number, data=b"hello", is_extended_id=extended
                    )
                )
    done = keyed.run([sys.executable, "-m", "can.player", "-i", "slcan", "-c", keyed.module, "-b", "500000", str(log)])
    assert done.returncode == 0, done.stdout + done.stderr
    bus_log = json.loads((keyed.folder / "run" / "packtrust" / "pack.json").read_text())["logs"]["module"]
    end = time.monotonic() + LIMIT_S
    while "1FF00013#" not in Path(bus_log).read_text():
        assert time.monotonic() < end, "the last frame of the recording never came"
        time.sleep(0.05)  # a file of another process
    text = Path(bus_log).read_text()
    assert all("%03X#68656C6C6F" % (0x700 + number) in text for number in range(20))


def test_can_viewer(keyed: Session) -> None:
    """A full-screen program: it runs on a pseudo-terminal."""
    command = [sys.executable, "-m", "can.viewer", "-i", "slcan", "-c", keyed.vcu, "-b", "500000"]
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 100, 160, 0, 0))
    # LINES and COLUMNS count before the terminal's own size: an outer test runner may have set them.
    environment = {**keyed.environment, "TERM": "xterm", "LINES": "100", "COLUMNS": "160"}
    with subprocess.Popen(command, env=environment, stdin=terminal, stdout=terminal, stderr=terminal) as viewer:
        os.close(terminal)
        seen = bytearray()
        end = time.monotonic() + LIMIT_S
        asked = False
        while time.monotonic() < end:
            if b"0x410" in seen and b"0x421" in seen and not asked:
                os.write(screen, b"q")
                asked = True
            if select.select([screen], [], [], 1)[0]:
                try:
                    seen += os.read(screen, 65536)
                except OSError:  # the viewer has closed its end
                    break
        code = viewer.wait(LIMIT_S)
        os.close(screen)
    assert b"0x410" in seen, bytes(seen[-1000:])
    assert code == 0, bytes(seen[-1000:])


def test_dbc(session: Session, tmp_path: Path) -> None:
    done = session.packtrust("dbc")
    assert done.returncode == 0, done.stderr
    import cantools

    database = cantools.database.load_string(done.stdout, "dbc")
    assert database.get_message_by_name("BMS_STATE").frame_id == 0x410


def recipe(target: str) -> str:
    """What `make TARGET` would run."""
    command = ["make", "-n", target]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.realtime
def test_make_demo(newcomer: Newcomer, tmp_path: Path) -> None:
    """What `make demo` runs, small: with a key log, and exit code 0 only if every criterion holds."""
    assert re.search(r"bin/packtrust demo\s*$", recipe("demo"))
    key_log = tmp_path / "keys.log"
    command = ["demo", "--modules", "1", "--duration", "5", "--output", str(tmp_path / "demo")]
    done = newcomer.packtrust(*command, "--key-log", str(key_log), "--json")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert json.loads(done.stdout)["ok"]
    assert (tmp_path / "demo" / "report.json").is_file()
    assert key_log.stat().st_mode & 0o077 == 0
    assert len(key_log.read_text().splitlines()) >= 2


RECORDING_HEAD = "Total Time,Step,Current,Cell Voltage A1,Cell Voltage A2,Temperature A1\n"


@pytest.mark.realtime
def test_demo_with_a_recording(newcomer: Newcomer, tmp_path: Path) -> None:
    """A made-up discharge of one module, ten minutes in a few seconds: the report has what the cells went through."""
    recording = tmp_path / "cells.csv"
    rows = ["%d,1,-20.0,%.3f,%.3f,25" % (s, 4.1 - s / 1000, 4.0 - s / 1000) for s in range(0, 601, 2)]
    recording.write_text("a cycler's header\n" + RECORDING_HEAD + "\n".join(rows) + "\n")
    done = newcomer.packtrust(
        "demo", "--cells", str(recording), "--duration", "10", "--output", str(tmp_path / "demo"), "--json"
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"]
    assert list(report["live"]["modules"]) == ["1"]
    cells = report["live"]["modules"]["1"]["cells_mv"]
    assert len(cells) == 2
    assert all(3390 < mv < 4100 for mv in cells), cells
    assert cells[0] < 4000, "it was emptied"


def test_faults_through_the_control_socket(newcomer: Newcomer) -> None:
    """docs/virtual-pack.md: a fault is a line of JSON to the socket that `packtrust pack --json` names."""
    running = Running([*PACKTRUST, "pack", "--modules", "2", "--json"], newcomer.environment)
    running.until(r"^}")
    info = json.loads("".join(running.lines))
    page = (ROOT / "docs" / "virtual-pack.md").read_text()
    line = re.search(r'^ +(\{"command": "fault_add".*\})$', page, re.MULTILINE)
    assert line is not None
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(LIMIT_S)
        control.connect(info["control"])
        answers = control.makefile("rb")

        def ask(request: str) -> dict[str, object]:
            control.sendall(request.encode() + b"\n")
            return json.loads(answers.readline())

        added = ask(line.group(1))
        assert added["ok"], added
        assert ask('{"command": "statistics"}')["ok"]
        for command in ("fault_list", "fault_clear"):
            assert ask(json.dumps({"command": command, "bus": "module"}))["ok"], command
        assert ask('{"command": "node_kill", "node": "module1"}')["ok"]
        assert ask('{"command": "node_restart", "node": "module1"}')["ok"]
        for command in ("unplug", "replug"):
            assert ask(json.dumps({"command": command, "port": "can-vcu0"}))["ok"], command
        assert ask('{"command": "console", "node": "pack", "line": "id"}')["ok"]
        assert not ask('{"command": "dance"}')["ok"]
    code, said = running.interrupt()
    assert code in (0, 130), said


def test_make_test() -> None:
    """`make test` is what runs this: it starts pytest over all of tests/."""
    script = re.search(r"sh (tools/\S+\.sh)\s*$", recipe("test"))
    assert script is not None
    assert "-m pytest" in (ROOT / script.group(1)).read_text()


def console(session: Session, node: str, line: str) -> str:
    """The answer of a virtual node's console, as somebody who stands before the device reads it."""
    info = json.loads((session.folder / "run" / "packtrust" / "pack.json").read_text())
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(LIMIT_S)
        control.connect(info["control"])
        control.sendall(json.dumps({"command": "console", "node": node, "line": line}).encode() + b"\n")
        answer = json.loads(control.makefile("rb").readline())
    assert answer["ok"], answer
    return str(answer)


@pytest.mark.timeout(400)
def test_release_to_another_owner(keyed: Session, tmp_path: Path) -> None:
    """docs/workshop.md: released by one owner, claimed by the next, who has nothing but the codes on the consoles."""
    stranger = keyed.packtrust("release", "MODBATT-MOD-RC001-009", "--yes")
    assert stranger.returncode == 1
    assert "no such device here" in stranger.stderr
    assert "Traceback" not in stranger.stderr
    unnamed = keyed.packtrust("release", "--yes")
    assert unnamed.returncode == 1
    assert "--all" in unnamed.stderr

    new = ["--store", str(tmp_path / "new-owner")]
    refused = keyed.packtrust("provision", *new)
    assert refused.returncode == 1
    assert "is owned by another app" in refused.stderr

    one = keyed.packtrust("release", "MODBATT-MOD-RC001-003", "--yes", "--json")
    assert one.returncode == 0, one.stdout + one.stderr
    assert len(json.loads(one.stdout)["lcts_ended"]) == 1
    rest = keyed.packtrust("release", "--all", "--yes")
    assert rest.returncode == 0, rest.stdout + rest.stderr
    assert "3 LCTs ended at the bridge" in rest.stdout
    assert keyed.packtrust("validate").returncode == 1  # nothing left to validate

    serials = {"pack": "MODBATT-PACK-RC001-001"}
    serials.update({"module%d" % number: "MODBATT-MOD-RC001-00%d" % number for number in (1, 2, 3)})
    for node, serial in serials.items():
        found = re.search(r"claim ([0-9a-f]{32})", console(keyed, node, "claim"))
        assert found, "a released device shows a new code"
        code = tmp_path / serial
        code.write_text(found[1])
        added = keyed.packtrust("claim", "add", serial, "--code-file", str(code), *new)
        assert added.returncode == 0, added.stderr
    taken = keyed.packtrust("provision", *new)
    assert taken.returncode == 0, taken.stdout + taken.stderr
    assert "4 devices have keys" in taken.stdout
    assert keyed.packtrust("provision").returncode == 1, "the old owner has no way back"


def test_ctrl_c_ends_pack_and_bridge(session: Session, keyed: Session) -> None:
    """Last of this file: both end in order, and leave nothing behind."""
    code, said = session.pack.interrupt()
    assert code in (0, 130), said
    assert "Traceback" not in said
    assert not os.path.exists(session.vcu)
    assert not (session.folder / "run" / "packtrust" / "pack.json").exists()
    code, said = session.bridge.interrupt()
    assert code in (0, 130), said
    assert "Traceback" not in said
