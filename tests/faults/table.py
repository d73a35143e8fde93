#!/usr/bin/env python3
"""Inject every fault of tests/faults and print what came of it. `make faults`.

    python tests/faults/table.py [words for pytest, e.g. -k littlefs]

A test says what it injected by `record_property`: "fault", "injections", "outcome"; of one that does not, its name is
the fault and each of its cases an injection. With PACKTRUST_FULL_SWEEP=1 the sweep on cortex-m4 is the full one. Exit
code 1 if a fault is not lived through, or was not injected.
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
HEADS = ("fault", "injected", "outcome")
HELD = "as it must be"


@dataclass
class Row:
    """What came of one fault."""

    injections: int = 0
    outcomes: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        """Whether it was injected and lived through."""
        return not self.failed and self.injections > 0

    @property
    def outcome(self) -> str:
        """In one line."""
        if self.failed:
            return "FAILS: " + ", ".join(self.failed)
        if not self.injections:
            return "NOT INJECTED: " + "; ".join(sorted(set(self.skipped)))
        words = "; ".join(dict.fromkeys(self.outcomes)) or HELD
        return words + (" (%d skipped)" % len(self.skipped) if self.skipped else "")


class Results:
    """A pytest plugin: outcomes by fault."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.began = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the outcome of a test, or of a set-up that failed."""
        if report.when != "call" and report.outcome == "passed":
            return
        said = dict(report.user_properties)
        name = report.nodeid.partition("::")[2]
        title = name.partition("[")[0].removeprefix("test_").replace("_", " ")
        row = self.rows.setdefault(str(said.get("fault", title)), Row())
        if report.outcome == "skipped":
            row.skipped.append(str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else name)
        elif report.outcome != "passed":
            row.failed.append(name.removeprefix("test_"))
        else:
            row.injections += int(str(said.get("injections", 1)))
            if "outcome" in said:
                row.outcomes.append(str(said["outcome"]))


def show(table: list[tuple[str, ...]]) -> None:
    """Print it in columns."""
    widths = [max(len(line[at]) for line in [HEADS, *table]) for at in range(len(HEADS))]
    for line in [HEADS, tuple("-" * width for width in widths), *table]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def judged(results: Results) -> bool:
    """Print the table; whether every fault was injected and lived through."""
    rows = sorted(results.rows.items())
    show([(fault, str(row.injections), row.outcome) for fault, row in rows])
    fine = [row for _, row in rows if row.fine]
    print(
        "\n%d faults, %d injections: %d lived through; %.0f s"
        % (len(rows), sum(row.injections for _, row in rows), len(fine), time.monotonic() - results.began)
    )
    return bool(rows) and len(fine) == len(rows)


def main(arguments: list[str]) -> int:
    """Run, print, judge."""
    results = Results()
    os.chdir(CHECKOUT)
    options = ["-q", "--no-header", "-p", "no:cacheprovider", "-n", os.environ.get("WORKERS", "2")]
    code = pytest.main([str(FOLDER), *options, "--dist", "worksteal", *arguments], plugins=[results])
    print()
    return 0 if judged(results) and code == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
