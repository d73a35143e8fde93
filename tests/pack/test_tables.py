"""The commands that print tables: what `make` runs for each, and a small part of it, as a user sees it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def recipe(target: str) -> str:
    """What `make TARGET` would run."""
    command = ["make", "-n", target]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout


def printed(script: str, *words: str) -> str:
    """What the script prints; it must end well."""
    done = subprocess.run(
        [sys.executable, script, *words], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("target", ["attacks", "faults", "defences"])
def test_make_runs_its_table(target: str) -> None:
    assert "python tests/%s.py" % {"defences": "attacks/defences"}.get(target, target + "/table") in recipe(target)


def test_attacks_are_printed_with_their_controls() -> None:
    shown = printed("tests/attacks/table.py", "-k", "lct_half")
    assert "public LCT half" in shown
    assert "1 attacks: 1 fail against packtrust; 1 succeed against the build weakened for it" in shown


def test_faults_are_printed_with_what_came_of_them() -> None:
    shown = printed("tests/faults/table.py", "-k", "test_the_finished_epoch")
    assert "the finished epoch is gone from flash  1         as it must be" in shown
    assert "1 faults, 1 injections: 1 lived through" in shown


def test_a_defence_taken_out_turns_something_red() -> None:
    shown = printed("tests/attacks/defences.py", "burnt")
    assert "the claim code is burnt" in shown
    assert "test_" in shown
