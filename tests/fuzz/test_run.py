"""The fuzzer's own promises: it measures what it says, keeps what raises, and fails below its bound."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import run

ROOT = Path(__file__).resolve().parents[2]

# Atheris comes from the network the first time, and is there for all that follow.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def fuzzed(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`make fuzz ARGS=...`."""
    command = [sys.executable, str(ROOT / "tests/fuzz/run.py"), "--jobs", "1", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=with_path(path), capture_output=True, text=True, timeout=280, check=False
    )


def with_path(path: Path | None) -> dict[str, str]:
    """The environment, with one more place for targets."""
    return {**os.environ, "PYTHONPATH": str(path)} if path else dict(os.environ)


def test_make_fuzz_is_what_runs_it() -> None:
    recipe = subprocess.run(["make", "-n", "fuzz"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert "python tests/fuzz/run.py" in recipe.stdout


def test_a_parser_is_fuzzed_and_measured() -> None:
    done = fuzzed("--only", "handshake", "--seconds", "2", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = json.loads(done.stdout.splitlines()[-1])
    assert result["executions"] > 50
    assert result["branches"] >= 20
    assert result["coverage"] >= run.COVERAGE_MIN
    assert result["problem"] == ""


def test_what_raises_is_kept_and_told(tmp_path: Path) -> None:
    """A target of its own whose parser takes no byte 0xA5 after 0x5A: found, kept, and run again by what is printed."""
    target = tmp_path / "fuzz" / "targets" / "planted.py"
    target.parent.mkdir(parents=True)
    target.write_text(
        '"""Planted by a test."""\n\n'
        'COVERS = ("packtrust.arbitration:base_of",)\nHEAP_MAX = 1000\n\n\n'
        'def seeds():\n    yield b"\\x5a\\xa4"\n\n\n'
        "def take(data):\n"
        "    if data[:2] == b'\\x5a\\xa5':\n        raise IndexError('planted')\n"
    )
    done = fuzzed("--only", "planted", "--seconds", "30", path=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "IndexError: planted" in done.stdout
    kept = Path(done.stdout.split("; input ")[1].split(";")[0])
    assert kept.read_bytes()[:2] == b"\x5a\xa5"
    again = fuzzed("--reproduce", "planted", str(kept), path=tmp_path)
    assert again.returncode == 1
    assert "IndexError: planted" in again.stderr


def test_coverage_below_the_bound_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "COVERAGE_MIN", 100.5)
    result = run.fuzz("identity", 0)
    assert "branch coverage below" in result.problem
