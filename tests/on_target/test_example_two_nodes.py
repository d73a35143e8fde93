"""examples/two_nodes: two interpreters, thirty lines a side, an encrypted link between them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from packtrust_host.sim.deploy import find_micropython

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "two_nodes"


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def start(interpreter: str, name: str, port: str) -> subprocess.Popen[str]:
    if interpreter == "micropython":
        command = [find_micropython(), "-X", "heapsize=512K"]
        environment = {**os.environ, "MICROPYPATH": f"{EXAMPLE}:{ROOT / 'shared'}:.frozen"}
    else:
        command = [sys.executable, "-u"]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'shared'}"}
    return subprocess.Popen(
        [*command, str(EXAMPLE / f"{name}.py"), port], env=environment, stdout=subprocess.PIPE, text=True, cwd=EXAMPLE
    )


@pytest.mark.realtime  # a command that comes late is refused, and ten readings are soon read
@pytest.mark.parametrize(
    ("sensor_on", "display_on"),
    [("micropython", "micropython"), ("micropython", "cpython"), ("cpython", "micropython")],
)
def test_two_nodes_talk(sensor_on: str, display_on: str) -> None:
    port = free_port()
    with start(sensor_on, "sensor", port) as sensor:
        assert sensor.stdout is not None
        assert sensor.stdout.readline().strip() == "sensor: listening"
        with start(display_on, "display", port) as display:
            shown, _ = display.communicate(timeout=60)
        heard, _ = sensor.communicate(timeout=60)
    assert display.returncode == 0
    assert "display: session established" in shown
    readings = [line for line in shown.splitlines() if "temperature" in line]
    assert len(readings) == 10
    assert readings[0] == "display: temperature 20 humidity 55"
    assert readings[-1] == "display: temperature 23 humidity 55"  # the sealed command was obeyed
    assert "sensor: offset is now 3" in heard


@pytest.mark.parametrize("name", ["sensor", "display"])
def test_each_side_has_at_most_thirty_lines(name: str) -> None:
    assert len((EXAMPLE / f"{name}.py").read_text().splitlines()) <= 30
