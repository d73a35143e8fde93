"""Everyday CAN tools on a keyed, talking pack: can_logger, cantools, and the interface that opens sealed records."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import can
import pytest

from packtrust.arbitration import ENCRYPTED
from packtrust_host.interface import PacktrustBus
from packtrust_host.keylog import KeyLogWriter
from rigs import ProcessRig

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "shared"), str(ROOT / "host")])}
FRAMES = 400


class LoggedRig(ProcessRig):
    """A pack of one module whose app writes a key log."""

    def __init__(self, tmp_path: Path) -> None:
        super().__init__(tmp_path, 1)
        self.key_log = tmp_path / "keys.log"

    def _run_app(self) -> None:
        self.writer = KeyLogWriter(self.key_log)
        super()._run_app()

    @property
    def runner_options(self) -> dict[str, object]:
        return {"key_log": self.writer}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory):
    with LoggedRig(tmp_path_factory.mktemp("tools")) as made:
        made.commission()
        yield made


def record(rig: LoggedRig, interface: str, channel: str, path: Path, *options: str) -> None:
    """Let can_logger record until the file has FRAMES lines."""
    command = [sys.executable, "-m", "can.logger", "-i", interface, "-c", channel, "-f", str(path), *options]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as logger:
        enough = rig.wait(lambda: path.exists() and path.read_text().count("\n") > FRAMES, 30)
        logger.send_signal(2)
        said, _ = logger.communicate(timeout=20)
    assert enough, said


def decoded(path: Path) -> str:
    """What `cantools decode` makes of a candump log with our DBC."""
    result = subprocess.run(
        [str(BIN / "cantools"), "decode", "--single-line", str(ROOT / "docs/packtrust.dbc")],
        input=path.read_text(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return result.stdout


def test_can_logger_records_the_bus_and_cantools_shows_the_clear_frames(rig: LoggedRig, tmp_path: Path) -> None:
    path = tmp_path / "vcu.log"
    record(rig, "slcan", rig.pack.add_adapter("vcu"), path, "-b", "500000")
    messages = list(can.CanutilsLogReader(path))
    sealed = [message for message in messages if message.is_extended_id and message.arbitration_id & ENCRYPTED]
    assert len(sealed) > FRAMES / 2
    text = decoded(path)
    assert "BMS_STATE(" in text
    assert "Traceback" not in text


def test_who_holds_the_key_log_reads_along_with_can_logger_and_cantools(rig: LoggedRig, tmp_path: Path) -> None:
    path = tmp_path / "opened.log"
    channel = f"slcan:{rig.pack.add_adapter('vcu')}?key_log={rig.key_log}"
    record(rig, "packtrust", channel, path)
    messages = list(can.CanutilsLogReader(path))
    raw = [at for at, message in enumerate(messages) if message.is_extended_id and message.arbitration_id & ENCRYPTED]
    # Who plugs in between two frames of a record sees the rest of it as it is: one of the pack's, one of the app's.
    assert len(raw) <= 8, raw
    assert all(at < 40 for at in raw), raw
    text = decoded(path)
    assert "APP_MODULE_STATE(" in text
    assert "APP_BMS_STATE(" in text


def test_cantools_monitor_shows_opened_messages(rig: LoggedRig) -> None:
    """`cantools monitor` is a full-screen program: it runs on a pseudo-terminal."""
    channel = f"slcan:{rig.pack.add_adapter('vcu')}?key_log={rig.key_log}"
    command = [str(BIN / "cantools"), "monitor", "-i", "packtrust", "-c", channel, str(ROOT / "docs/packtrust.dbc")]
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 500, 200, 0, 0))
    with subprocess.Popen(
        command,
        env={**ENVIRONMENT, "TERM": "xterm", "LINES": "500", "COLUMNS": "200"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    ) as monitor:
        os.close(terminal)
        seen = bytearray()
        deadline = time.monotonic() + 40
        wanted = (b"APP_MODULE_STATE", b"BMS_STATE")
        while not all(name in seen for name in wanted) and time.monotonic() < deadline:
            if select.select([screen], [], [], 1)[0]:
                seen += os.read(screen, 65536)
        os.write(screen, b"q")
        while select.select([screen], [], [], 5)[0]:
            try:
                seen += os.read(screen, 65536)
            except OSError:  # the monitor has closed its end
                break
        monitor.wait(20)
    os.close(screen)
    assert all(name in seen for name in wanted), bytes(seen[-2000:])


def test_who_does_not_hold_it_sees_only_sealed_frames(rig: LoggedRig, tmp_path: Path) -> None:
    (tmp_path / "empty.log").touch()
    channel = "slcan:" + rig.pack.add_adapter("vcu")
    with PacktrustBus(channel, key_log=tmp_path / "empty.log") as bus:
        frames = [bus.recv(5) for _ in range(200)]
        assert bus.opener_stats.get("opened", 0) == 0
        assert bus.opener_stats["unknown-session"] > 5
    assert any(frame.arbitration_id & ENCRYPTED for frame in frames if frame is not None and frame.is_extended_id)
