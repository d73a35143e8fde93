#!/usr/bin/env python3
"""Carry out every attack of the suite, and its control against a weakened build, and print the table. `make attacks`.

    python tests/attacks/table.py [words for pytest, e.g. -k replay]

Exit code 1 if an attack succeeds, if a control does not, or if one of them was not carried out.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent
CHECKOUT = FOLDER.parents[1]
for place in ("shared", "host", "host/pytest_micropython_boards/src", "firmware", "tests"):
    sys.path.insert(0, str(CHECKOUT / place))

from attack_suite import PLACES, VIRTUAL, catalogue  # noqa: E402  # the path is set above

CONTROL = "test_control"
HEADS = ("attack", "source", "ran on", "ways", "against packtrust", "control: weakened build")


@dataclass
class Row:
    """What came out of one file."""

    failed: list[str] = field(default_factory=list)
    refused: int = 0
    controls: int = 0
    controls_failed: list[str] = field(default_factory=list)
    places: set[str] = field(default_factory=set)
    skipped: list[str] = field(default_factory=list)


class Results:
    """A pytest plugin: outcomes by file."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.began = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the outcome of a test, or of a set-up that failed."""
        if report.when != "call" and report.outcome == "passed":
            return
        file, _, name = report.nodeid.partition("::")
        said = dict(report.user_properties)
        # One file runs several attacks on processes and says whose each is.
        row = self.rows.setdefault(str(said.get("file", Path(file).name)), Row())
        control = name.startswith(CONTROL)
        if report.outcome == "skipped":
            row.skipped.append(name)
            return
        row.places.add(str(said.get("where", VIRTUAL)))
        if report.outcome != "passed":
            (row.controls_failed if control else row.failed).append(name)
        elif control:
            row.controls += 1
        else:
            row.refused += 1


def lines(rows: dict[str, Row]) -> tuple[list[tuple[str, ...]], bool]:
    """The table's lines, and whether all is as it must be."""
    found = []
    fine = True
    for item in catalogue():
        row = rows.get(item.file)
        if row is None:
            continue
        if row.failed:
            against = "SUCCEEDS: " + ", ".join(row.failed)
        elif row.refused:
            against = "fails"
        else:
            against = "NOT CARRIED OUT"
        if row.controls_failed:
            control = "DOES NOT SUCCEED: " + ", ".join(row.controls_failed)
        elif row.controls:
            control = "succeeds"
        else:
            control = "NOT CARRIED OUT"
        fine = fine and against == "fails" and control == "succeeds"
        places = ", ".join(place for place in PLACES if place in row.places)
        ways = str(row.refused + len(row.failed)) + (" (%d skipped)" % len(row.skipped) if row.skipped else "")
        found.append((item.attack.name, item.attack.source, places, ways, against, control))
    return found, fine


def show(heads: tuple[str, ...], table: list[tuple[str, ...]]) -> None:
    """Print a table in columns."""
    widths = [max(len(line[at]) for line in [heads, *table]) for at in range(len(heads))]
    for line in [heads, tuple("-" * width for width in widths), *table]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def main(arguments: list[str]) -> int:
    """Run, print, judge."""
    results = Results()
    workers = os.environ.get("WORKERS", "2")
    os.chdir(CHECKOUT)
    options = ["-q", "--no-header", "-p", "no:cacheprovider"]
    # What measures time runs alone.
    codes = [
        pytest.main([str(FOLDER), *options, "-m", which, *more, *arguments], plugins=[results])
        for which, more in (("realtime", []), ("not realtime", ["-n", workers, "--dist", "worksteal"]))
    ]
    ended = all(code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) for code in codes)
    table, fine = lines(results.rows)
    print()
    show(HEADS, table)
    others = sorted(
        name for name, row in results.rows.items() if row.failed and name not in {i.file for i in catalogue()}
    )
    for name in others:
        print("%s fails: %s" % (name, ", ".join(results.rows[name].failed)))
    failing = sum(line[4] == "fails" for line in table)
    shown = sum(line[5] == "succeeds" for line in table)
    print(
        "\n%d attacks: %d fail against packtrust; %d succeed against the build weakened for it; %.0f s"
        % (len(table), failing, shown, time.monotonic() - results.began)
    )
    return 0 if fine and table and ended else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
