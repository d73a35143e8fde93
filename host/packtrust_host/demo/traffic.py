"""What the app does while the pack runs: time, precharge, On, limits, balancing, and Off and On again and again.

Commands come at fixed times, far enough apart that each must show before the next, and often enough that the last
percent of their latencies means something.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from packtrust.messages.table import STATE_OFF, STATE_ON, STATE_PRECHARGE
from packtrust_host.app.command import Command
from packtrust_host.app.node import AppNode

FULL_LIMITS_MA = (10_000, 42_000)

_SLOT_S = 0.5
_SLOT_PER_MODULE_S = 0.036


@dataclass(frozen=True)
class Action:
    """Something to do `at_s` seconds into the traffic. `issue` runs in the node's thread."""

    at_s: float
    name: str
    issue: Callable[[AppNode], Command]


@dataclass(frozen=True)
class Plan:
    """The actions in order, how long it all takes, and for how long the modules are On."""

    actions: list[Action]
    duration_s: float
    on_s: float


def slot_s(modules: int) -> float:
    """Time between two commands."""
    return max(_SLOT_S, _SLOT_PER_MODULE_S * modules)


def plan(
    duration_s: float,
    modules: int,
    unix_s: Callable[[], int],
    limits_ma: tuple[int, int] = FULL_LIMITS_MA,
    recording: bool = False,
) -> Plan:
    """The plan for `duration_s` seconds (more, if the fixed part needs more).

    limits_ma  what the modules bear: (charge, discharge); the plan halves the second for a while
    recording  stay On for as long as possible: Off for one slot in eight, not in two
    """
    slot = slot_s(modules)
    actions: list[Action] = []
    at = 0.0
    on_s = 0.0

    def add(name: str, issue: Callable[[AppNode], Command], slots: float) -> None:
        nonlocal at
        actions.append(Action(at, name, issue))
        at += slots * slot

    def state(value: int) -> Callable[[AppNode], Command]:
        return lambda node: node.set_state(value)

    charge, discharge = limits_ma
    add("time", lambda node: node.set_time(unix_s()), 0.4)
    add("state Precharge", state(STATE_PRECHARGE), 1)
    began = at
    add("state On", state(STATE_ON), 1)
    add("limits halved", lambda node: node.set_limits(charge, discharge // 2), 2)
    add("limits full", lambda node: node.set_limits(charge, discharge), 1.2)
    add("balance on", lambda node: node.balance(True), 1.2)
    add("balance off", lambda node: node.balance(False), 1.2)
    on_slots = 7 if recording else 1
    while at + (1 + on_slots) * slot <= duration_s:
        on_s += at - began
        add("state Off", state(STATE_OFF), 1)
        began = at
        add("state On", state(STATE_ON), on_slots)
    length = max(at, duration_s)
    return Plan(actions, length, on_s + length - began)
