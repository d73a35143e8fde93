"""One run of `make bench` for all tests of what it measures: a minute of one processor."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import cortex_m4
from packtrust_host.sim.qemu import QemuError, find_qemu, firmware

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 280


@pytest.fixture(scope="session")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a quick run stores; skips where the board is not built, and fails in CI."""
    try:
        find_qemu()
        firmware("reference")
    except QemuError as error:
        pytest.skip(str(error))
    output = tmp_path_factory.mktemp("bench") / "deep" / "bench.json"
    command = [sys.executable, str(ROOT / "tests/bench/run.py"), "--quick", "--modules", "1", "--output", str(output)]
    path = os.pathsep.join(str(ROOT / folder) for folder in ("shared", "host", "firmware"))
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert output.exists(), done.stdout + done.stderr
    assert "median time of a call" in done.stdout
    assert "stored in" in done.stdout
    found: dict[str, Any] = json.loads(output.read_text())
    # Its exit code says whether a path is over its budget: that has a test of its own (test_budgets.py).
    assert (done.returncode == 0) == ("over budget" not in done.stdout)
    return found


@pytest.fixture(scope="session")
def measured(document: dict[str, Any]) -> cortex_m4.Measured:
    """Its counts on the virtual Cortex-M4."""
    return cortex_m4.Measured(**document["cortex_m4"])
