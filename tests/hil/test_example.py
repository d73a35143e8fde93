"""The example of another project that uses the plugin, as that project runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/hil_project"
PLUGIN = ROOT / "host/pytest_micropython_boards/src"
SECONDS = 110


def test_the_example_passes_on_its_virtual_board() -> None:
    names = {"CI", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST"}
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (PLUGIN, ROOT / "shared", ROOT / "host")))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "pytest_micropython_boards.plugin", "-p", "no:cacheprovider", "-q"],
        cwd=EXAMPLE,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
