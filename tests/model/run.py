#!/usr/bin/env python3
"""Explore all states of two real nodes and an adversary's network within bounds, find what is planted: `make model`.

    python tests/model/run.py [--quick] [--only WORDS]

Exit code 0 if no property is violated and every planted fault is found; 1 otherwise, with the shortest trace.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
for place in ("shared", "host", "host/pytest_micropython_boards/src", "firmware", "tests"):
    sys.path.insert(0, str(CHECKOUT / place))

from model import cheap  # noqa: E402  # the path is set above
from model.explorer import Result, explore  # noqa: E402
from model.planted import FAULTS, Fault  # noqa: E402
from model.rotations import APP_BUDGET, BUDGET, Rotations  # noqa: E402
from model.sessions import BUDGET as SESSION_BUDGET  # noqa: E402
from model.sessions import Sessions  # noqa: E402

WORDS = ("connects", "ticks", "telemetry", "commands", "reboots", "forgeries", "-", "aborts")


class Search:
    """A model with its bounds: depth, and that of a quick run."""

    def __init__(self, name: str, make: Callable[[], Any], budget: tuple[int, ...], depth: int, quick: int) -> None:
        self.name = name
        self.make = make
        self.budget = budget
        self.depth = depth
        self.quick = quick

    @property
    def bounds(self) -> str:
        return ", ".join("%d %s" % (count, word) for count, word in zip(self.budget, WORDS, strict=False) if count)


DEEP = (2, 1, 1, 1, 1, 0)
SEARCHES = (
    Search("sessions, wide", Sessions, SESSION_BUDGET, 5, 3),
    Search("sessions, deep", lambda: Sessions(DEEP), DEEP, 6, 4),
    Search("sessions, random numbers repeat", lambda: Sessions(DEEP, "rng"), DEEP, 5, 3),
    Search("rotation without an app", lambda: Rotations("alone"), BUDGET, 4, 2),
    Search("rotation by the app", lambda: Rotations("app"), APP_BUDGET, 3, 3),
)


def search(item: Search, quick: bool) -> Result:
    """Explore one model."""
    with cheap.primitives():
        return explore(item.make(), item.quick if quick else item.depth)


def find(fault: Fault) -> Result:
    """Explore the model of a fault with it planted."""
    with fault.weakening.applied() if fault.weakening is not None else contextlib.nullcontext(), cheap.primitives():
        return explore(fault.model(), fault.depth)


def is_found(fault: Fault, result: Result) -> bool:
    """Whether a search has found this fault, and as what it is."""
    return fault.found_as in result.violation


def print_trace(result: Result) -> None:
    print("    %s" % result.violation)
    for number, step in enumerate(result.trace):
        print("    %s %s" % ("from:" if not number else "  %2d. " % number, step))


def main(argv: list[str]) -> int:
    """Search, print, judge."""
    parser = argparse.ArgumentParser(prog="make model", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller depths: some seconds")
    parser.add_argument("--only", default="", metavar="WORDS", help="searches and faults whose name has these words")
    arguments = parser.parse_args(argv)
    began = time.monotonic()
    good = True
    print("Properties: no nonce twice under a key; no record opened twice; no command obeyed late or out of order;")
    print("sessions agree; what proves nothing changes nothing; from each state records flow again.\n")
    head = "%-34s %9s %11s %6s %9s %8s  %s"
    print(head % ("model", "states", "transitions", "depth", "liveness", "seconds", "bounds beside depth"))
    for item in SEARCHES:
        if arguments.only not in item.name:
            continue
        result = search(item, arguments.quick)
        print(
            "%-34s %9d %11d %6d %9d %8.1f  %s"
            % (item.name, result.states, result.transitions, result.depth, result.live, result.seconds, item.bounds),
            flush=True,
        )
        if result.violation:
            good = False
            print("  VIOLATED:")
            print_trace(result)
    print("\nplanted faults:")
    found = sought = 0
    for fault in FAULTS:
        if arguments.only not in fault.name:
            continue
        sought += 1
        result = find(fault)
        if is_found(fault, result):
            found += 1
            print("  found: %s (%d states, %.1f s)" % (fault.name, result.states, result.seconds), flush=True)
            print_trace(result)
        else:
            good = False
            print("  NOT FOUND: %s (%d states to depth %d)" % (fault.name, result.states, result.depth), flush=True)
            if result.violation:
                print("  but:")
                print_trace(result)
    print("\n%d of %d planted faults found; %.0f s" % (found, sought, time.monotonic() - began))
    print("all properties hold within these bounds" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
