"""Breadth-first search over states of real objects: every action from every state, each once, shortest trace first."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Protocol


class Violation(Exception):
    """A property does not hold; says which and how."""


class Model(Protocol):
    """What is explored."""

    name: str

    def roots(self) -> Iterator[tuple[str, Any]]:
        """Where the search begins: (how it was reached, state)."""

    def actions(self, state: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
        """What can happen: (name, call that gives the next state). The call raises Violation."""

    def key(self, state: Any) -> Hashable:
        """States with one key are one state."""

    def check(self, state: Any) -> None:
        """Raises Violation where the state leads nowhere good (liveness); called once a state."""


@dataclasses.dataclass
class Result:
    """What a search found out.

    states        different ones reached
    transitions   actions carried out
    depth         of the deepest level begun
    complete      whether every action of every state up to that depth was carried out
    trace         the shortest way to a violation, empty without one; `violation` says of what
    """

    model: str
    states: int
    transitions: int
    depth: int
    complete: bool
    seconds: float
    trace: list[str]
    violation: str
    live: int = 0
    levels: list[int] = dataclasses.field(default_factory=list)


def explore(model: Any, depth: int, states_max: int = 10_000_000, seconds_max: float = 1e9) -> Result:
    """Search to `depth` actions from the roots, or until a bound is met: then the result is not complete."""
    begin = time.monotonic()
    seen: dict[Hashable, tuple[Hashable | None, str]] = {}
    level: list[tuple[Hashable, Any]] = []
    transitions = 0
    levels = []
    at = 0
    early = ""

    def trace(key: Hashable | None, last: str = "") -> list[str]:
        steps = [last] if last else []
        while key is not None:
            key, step = seen[key]
            steps.append(step)
        return steps[::-1]

    def result(complete: bool, steps: list[str], violation: str) -> Result:
        spent = time.monotonic() - begin
        live = getattr(model, "live", 0)
        return Result(model.name, len(seen), transitions, at, complete, spent, steps, violation, live, levels)

    roots = model.roots()
    while True:
        try:
            how, state = next(roots)
        except StopIteration:
            break
        except Violation as violation:
            # Met over a faithful network already: the search goes on from what there is, for the way that leads to it.
            early = str(violation)
            break
        key = model.key(state)
        if key not in seen:
            seen[key] = (None, how)
            level.append((key, state))
            try:
                model.check(state)
            except Violation as violation:
                return result(False, [how], str(violation))
    while level and at < depth:
        at += 1
        levels.append(len(level))
        following: list[tuple[Hashable, Any]] = []
        for key, state in level:
            for name, act in model.actions(state):
                transitions += 1
                try:
                    made = act()
                    if made is None:
                        continue
                    made_key = model.key(made)
                    if made_key in seen:
                        continue
                    seen[made_key] = (key, name)
                    model.check(made)
                except Violation as violation:
                    return result(False, trace(key, name), str(violation))
                following.append((made_key, made))
            if len(seen) > states_max or time.monotonic() - begin > seconds_max:
                return result(False, [], "")
        level = following
    levels.append(len(level))
    if early:
        return result(False, ["on the way to where the search begins, over a faithful network"], early)
    return result(True, [], "")
