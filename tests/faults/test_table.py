"""`make faults`: the table is made of what happened, and so is its verdict. The command: tests/pack/test_tables.py."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("faults_table", ROOT / "tests/faults/table.py")
assert spec is not None and spec.loader is not None
table = importlib.util.module_from_spec(spec)
sys.modules["faults_table"] = table
spec.loader.exec_module(table)


def report(name, outcome="passed", longrepr=None, said=()):
    """A test's end, as pytest tells it."""
    return SimpleNamespace(
        when="call", outcome=outcome, longrepr=longrepr, nodeid="a/b.py::" + name, user_properties=list(said)
    )


def judged(capsys, *reports):
    """Whether all is well, and what is printed: (True or False, cells of the first column -> the others)."""
    results = table.Results()
    for item in reports:
        results.pytest_runtest_logreport(item)
    fine = table.judged(results)
    text = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]
    return fine, {line[0]: line[1:] for line in lines if line}


GOOD = [
    report("test_x", said=[("fault", "a fault with words"), ("injections", 40), ("outcome", "lived through")]),
    report("test_a_fault_by_its_name[1]"),
    report("test_a_fault_by_its_name[2]"),
]


def test_the_table_says_what_came_of_each_fault(capsys):
    fine, found = judged(capsys, *GOOD)
    assert fine
    assert found["a fault with words"] == ["40", "lived through"]
    assert found["a fault by its name"] == ["2", "as it must be"]
    assert any(line.startswith("2 faults, 42 injections: 2 lived through") for line in found)


def test_what_fails_or_was_not_injected_is_said_and_counts(capsys):
    fine, found = judged(capsys, *GOOD, report("test_it_breaks[3]", "failed"))
    assert not fine and found["it breaks"] == ["0", "FAILS: it_breaks[3]"]
    fine, found = judged(capsys, *GOOD, report("test_gone", "skipped", ("f", 1, "Skipped: allowed: none here")))
    assert not fine and found["gone"] == ["0", "NOT INJECTED: Skipped: allowed: none here"]
    assert not judged(capsys)[0], "nothing ran"
