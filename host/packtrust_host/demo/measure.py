"""Figures from the bus logs alone, in bus time: secrecy, polls, bursts, commands.

Nothing here asks a node: what counts is what was on the wire, opened with the session keys that existed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from packtrust.arbitration import ENCRYPTED, base_of, node_of
from packtrust.messages import by_base, by_name, by_standard_id, decode
from packtrust.policy import CLASS_NAMES, DEFAULT_POLICY, TRANSPORT
from packtrust_host.app.command import NO_CURRENT_MA, CurrentRule, expect_load
from packtrust_host.app.model import state_name

from .buslog import RECORD, BusLog, LogFrame
from .records import INITIATOR_SENDS, RESPONDER_SENDS, Opened, Records

POLL_MS = 100.0  # every poll answered within
COMMAND_MS = 300.0  # command to authentic new state, 99th percentile
BURST_MS = 500.0
BURST_TOLERANCE_MS = 50.0

# What a poll asks for (docs/messages.md): five records.
POLL = by_name("STATUS_REQUEST").base
ANSWERS = tuple(by_name(name).base for name in ("STATUS_1", "STATUS_2", "STATUS_3", "CELL_COMM_STATUS1", "FAULT_CODES"))
BURST = ("BMS_STATE", "PACK_POWER", "PACK_CELL_VOLTAGE", "PACK_CELL_TEMP", "PACK_LIMITS", "PACK_CELL_ID_VOLTAGE",
         "PACK_CELL_ID_TEMP", "PACK_ISOLATION")  # fmt: skip

_COMMAND = by_name("COMMAND").base
_LIMITS_COMMAND = by_name("LIMITS_COMMAND").base
_MODULE_STATE = by_name("MODULE_STATE").base
_MODULE_POWER = by_name("MODULE_POWER").base
_COURSE = {by_name(name).base: name for name in ("MODULE_STATE", "MODULE_POWER", "CELL_DETAIL")}
_SHOWN = 20


def percentile(values: Iterable[float], percent: float) -> float | None:
    """Nearest rank; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(1, math.ceil(len(ordered) * percent / 100)) - 1]


def figures(values: Collection[float]) -> dict[str, float | int | None]:
    """count, p50, p99, max; milliseconds, JSON-able."""

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 3)

    return {
        "count": len(values),
        "p50_ms": rounded(percentile(values, 50)),
        "p99_ms": rounded(percentile(values, 99)),
        "max_ms": rounded(max(values, default=None)),
    }


@dataclass(frozen=True)
class Window:
    """A stretch of time: Unix microseconds, the end not included."""

    start_us: int
    end_us: int

    def __contains__(self, time_us: int) -> bool:
        return self.start_us <= time_us < self.end_us

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end_us - self.start_us) / 1e6


# -- secrecy -----------------------------------------------------------------------------------------------------------


@dataclass
class Secrecy:
    """What was sealed on a bus and what should have been. `due` frames lie in the time when secrecy is due."""

    bus: str
    due: int = 0  # frames looked at
    sealed: int = 0  # of these: with bit 17
    records: int = 0  # made of them
    allowed: dict[str, int] = field(default_factory=dict)  # clear by policy, by class
    violations: list[str] = field(default_factory=list)

    def _violate(self, frame: LogFrame, what: str) -> None:
        self.violations.append("%s %s" % (describe(frame.identifier, frame.extended), what))

    @property
    def ok(self) -> bool:
        """Something was sealed, and nothing was not that should have been."""
        return self.sealed > 0 and self.records > 0 and not self.violations


def describe(identifier: int, extended: bool) -> str:
    """A frame's ID in words, as far as the table has them."""
    if not extended:
        found = by_standard_id(identifier)
        return "frame %03X%s" % (identifier, "" if found is None else " (%s)" % found[0].name)
    row = by_base(base_of(identifier))
    if row is None:
        return "frame %08X" % identifier
    return "frame %08X (%s, node 0x%02X)" % (identifier, row.name, node_of(identifier))


def secrecy(log: BusLog, keyed_us: Mapping[int, int], end_us: int | None = None) -> Secrecy:
    """Judge a bus.

    keyed_us  node byte -> when both ends of its link had committed keys; a node not in it owes nothing. What goes to
              all nodes, or to a number nobody has, owes from the time the last of them had keys.
    end_us    when the log was looked at: what was under way then is not a fragment.
    """
    result = Secrecy(log.name)
    if not keyed_us:
        return result
    all_us = max(keyed_us.values())
    for frame in log.frames:
        due_us = all_us if not frame.extended else keyed_us.get(node_of(frame.identifier), all_us)
        if frame.time_us < due_us:
            continue
        result.due += 1
        base = base_of(frame.identifier) if frame.extended else frame.identifier
        if frame.extended and frame.identifier & ENCRYPTED:
            if DEFAULT_POLICY.is_sealable(base) or DEFAULT_POLICY.class_of(base) == TRANSPORT:
                result.sealed += 1
            else:
                result._violate(frame, "has bit 17 and cannot be sealed")
        elif frame.extended:
            if DEFAULT_POLICY.clear_allowed(base, True):
                name = CLASS_NAMES[DEFAULT_POLICY.class_of(base)]
                result.allowed[name] = result.allowed.get(name, 0) + 1
            else:
                result._violate(frame, "is in clear")
        else:
            found = by_standard_id(frame.identifier)
            if found is not None and DEFAULT_POLICY.clear_allowed(found[0].base, True, False):
                result.allowed["11-bit to the VCU"] = result.allowed.get("11-bit to the VCU", 0) + 1
            else:
                result._violate(frame, "is in clear")
    for transfer in log.transfers:
        if transfer.kind == RECORD and transfer.start_us >= keyed_us.get(node_of(transfer.identifier), all_us):
            result.records += 1
    for fragment in log.fragments:
        due = fragment.start_us >= keyed_us.get(node_of(fragment.identifier), all_us)
        under_way = end_us is not None and fragment.start_us > end_us - 200_000
        if fragment.identifier & ENCRYPTED and due and not under_way:
            result.violations.append("%s makes no record: %s" % (describe(fragment.identifier, True), fragment.problem))
    return result


# -- polls -------------------------------------------------------------------------------------------------------------


@dataclass
class Polls:
    """Polls of the modules: from the end of a poll's first frame to the end of the last frame of its last answer."""

    latencies_ms: dict[int, list[float]] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)
    expected: float = 0.0  # polls the window has room for

    @property
    def all_ms(self) -> list[float]:
        """Every answered poll."""
        return [value for values in self.latencies_ms.values() for value in values]

    def problems(self) -> list[str]:
        """Why polls do not hold; empty if they do."""
        found = list(self.late)
        count = len(self.all_ms)
        if count + len(self.late) < 0.8 * self.expected:
            found.append("only %d polls, there is room for %.0f" % (count, self.expected))
        found += ["module %d was never polled" % node for node, values in self.latencies_ms.items() if not values]
        return found


def polls(records: Records, nodes: Collection[int], window: Window, period_ms: float = 100.0) -> Polls:
    """The polls that began in `window`, of `nodes`."""
    result = Polls({node: [] for node in sorted(nodes)}, expected=window.seconds * 1000 / period_ms if nodes else 0)
    asked: dict[int, list[Opened]] = {node: [] for node in nodes}
    answers: dict[int, list[Opened]] = {node: [] for node in nodes}
    for item in records.opened:
        if item.node not in asked:
            continue
        if item.base == POLL and item.direction == INITIATOR_SENDS:
            asked[item.node].append(item)
        elif item.base in ANSWERS and item.direction == RESPONDER_SENDS:
            answers[item.node].append(item)
    for node in sorted(nodes):
        waiting = answers[node]
        first = 0
        for number, poll in enumerate(asked[node]):
            following = asked[node][number + 1].end_us if number + 1 < len(asked[node]) else math.inf
            while first < len(waiting) and waiting[first].start_us <= poll.end_us:
                first += 1
            if poll.start_us not in window:
                continue
            seen: dict[int, int] = {}
            for item in waiting[first:]:
                if item.start_us >= following or len(seen) == len(ANSWERS):
                    break
                seen.setdefault(item.base, item.end_us)
            at = (poll.start_us - window.start_us) / 1e6
            if len(seen) < len(ANSWERS):
                result.late.append("module %d did not answer the poll at %.3f s" % (node, at))
                continue
            latency = (max(seen.values()) - poll.start_us) / 1000
            result.latencies_ms[node].append(latency)
            if latency > POLL_MS:
                result.late.append("module %d answered the poll at %.3f s after %.1f ms" % (node, at, latency))
    return result


# -- bursts ------------------------------------------------------------------------------------------------------------


@dataclass
class Bursts:
    """The VCU's frames: time between two of an ID, in ms."""

    intervals_ms: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def bursts(log: BusLog, window: Window, pack: int = 0) -> Bursts:
    """The clear 11-bit frames old VCUs wait for: each of the eight, every 500 +- 50 ms, through the whole window."""
    result = Bursts()
    for name in BURST:
        identifier = by_name(name).base + (pack << 8)
        times = [f.time_us for f in log.frames if not f.extended and f.identifier == identifier and f.time_us in window]
        edges = [window.start_us, *times, window.end_us]
        gaps = [(after - before) / 1000 for before, after in itertools.pairwise(edges)]
        if gaps and max(gaps[0], gaps[-1]) > BURST_MS + BURST_TOLERANCE_MS:
            result.problems.append("%s (0x%03X) is missing at an end of the window" % (name, identifier))
        for at, gap in zip(times, gaps[1:-1], strict=False):
            result.intervals_ms.append(gap)
            if abs(gap - BURST_MS) > BURST_TOLERANCE_MS:
                result.problems.append(
                    "%s (0x%03X) came %.1f ms after the one at %.3f s"
                    % (name, identifier, gap, (at - window.start_us) / 1e6)
                )
    return result


# -- commands ----------------------------------------------------------------------------------------------------------


@dataclass
class Commands:
    """State commands of the app. Latency: from the end of the command's first frame to the end of the last frame of the
    first authentic record on the app's bus that shows the module in the new state."""

    count: int = 0
    latencies_ms: dict[int, list[float]] = field(default_factory=dict)
    disobeyed: list[str] = field(default_factory=list)

    @property
    def all_ms(self) -> list[float]:
        """Every latency."""
        return [value for values in self.latencies_ms.values() for value in values]

    def problems(self) -> list[str]:
        """Why commands do not hold; empty if they do."""
        found = list(self.disobeyed)
        if not self.count or not self.all_ms:
            found.append("no command was given, or none was obeyed")
        worst = percentile(self.all_ms, 99)
        if worst is not None and worst > COMMAND_MS:
            found.append("command to authentic new state takes %.1f ms (99th percentile)" % worst)
        return found


@dataclass(frozen=True)
class _StateCommand:
    state: int
    start_us: int
    end_us: int
    balance: int


def _state_commands(vcu: Records, app_pack_node: int) -> list[_StateCommand]:
    """Commands that change the state: a repeat of the one before is none."""
    found: list[_StateCommand] = []
    state = None
    for item in vcu.opened:
        if item.base != _COMMAND or item.node != app_pack_node or item.direction != INITIATOR_SENDS:
            continue
        values = decode("COMMAND", item.data)
        if values is None or values["contactor_state"] == state:
            continue
        state = values["contactor_state"]
        found.append(_StateCommand(state, item.start_us, item.end_us, values["balance"]))
    return found


def commands(
    vcu: Records,
    nodes: Collection[int],
    window: Window,
    pack_node: int = 0x40,
    rule: CurrentRule = expect_load,
) -> Commands:
    """What became of the state commands given in `window`, for the modules `nodes`: state and current have to show each
    one before the next is given."""
    result = Commands(latencies_ms={node: [] for node in sorted(nodes)})
    given = _state_commands(vcu, pack_node)
    shown: dict[int, list[tuple[int, int, dict[str, int]]]] = {node: [] for node in nodes}
    for item in vcu.opened:
        if item.base in (_MODULE_STATE, _MODULE_POWER) and item.node == pack_node:
            values = decode("MODULE_STATE" if item.base == _MODULE_STATE else "MODULE_POWER", item.data)
            if values is not None and values["module_id"] in shown:
                shown[values["module_id"]].append((item.start_us, item.end_us, values))
    for number, command in enumerate(given):
        if command.start_us not in window:
            continue
        result.count += 1
        following = given[number + 1].start_us if number + 1 < len(given) else math.inf
        for node in sorted(nodes):
            state_us = None
            state = current = None
            obeyed = False
            for start_us, end_us, values in shown[node]:
                if start_us <= command.end_us or end_us >= following:
                    continue
                if "state" in values:
                    state = values["state"]
                    if state == command.state and state_us is None:
                        state_us = end_us
                        result.latencies_ms[node].append((end_us - command.start_us) / 1000)
                elif state_us is not None:
                    current = values["current_ma"]
                    obeyed = obeyed or rule(command.state, current)
            if not obeyed:
                result.disobeyed.append(_why(node, command, window, state, current))
    return result


def _why(node: int, command: _StateCommand, window: Window, state: int | None, current: int | None) -> str:
    at = (command.start_us - window.start_us) / 1e6
    if state != command.state:
        what = "reports %s" % state_name(state)
    elif current is None:
        what = "reports no current"
    else:
        what = "reports %s, but a current of %.2f A" % (state_name(state), current / 1000)
    return "module %d does not obey %s at %.3f s: it %s" % (node, state_name(command.state), at, what)


def limits(vcu: Records, nodes: Collection[int], window: Window, pack_node: int = 0x40) -> tuple[int, list[str]]:
    """Limit commands given in `window`, and the modules whose current breaks the newest limits half a second later."""
    problems = []
    count = 0
    charge: int | None = None
    discharge = 0
    since_us = 0
    for item in vcu.opened:
        if item.node != pack_node:
            continue
        if item.base == _LIMITS_COMMAND and item.direction == INITIATOR_SENDS and item.start_us in window:
            values = decode("LIMITS_COMMAND", item.data)
            if values is not None and values["module_id"] == 0:
                if (values["max_charge_ma"], values["max_discharge_ma"]) != (charge, discharge):
                    count += 1
                    since_us = item.end_us
                charge, discharge = values["max_charge_ma"], values["max_discharge_ma"]
        elif item.base == _MODULE_POWER and charge is not None and item.start_us - since_us > 500_000:
            values = decode("MODULE_POWER", item.data)
            if values is None or values["module_id"] not in nodes or item.start_us not in window:
                continue
            current = values["current_ma"]
            if current > charge + NO_CURRENT_MA or current < -discharge - NO_CURRENT_MA:
                problems.append(
                    "module %d has %.2f A, its limits are +%.2f/-%.2f A"
                    % (values["module_id"], current / 1000, charge / 1000, discharge / 1000)
                )
    return count, problems[:_SHOWN]


# -- the course of a discharge ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A module at one time, from the newest authentic records until then. `at_s` into the window."""

    at_s: float
    node: int
    soc_permille: int | None
    current_ma: int | None
    cells_mv: list[int]


def course(
    vcu: Records, nodes: Collection[int], window: Window, steps: int = 10, pack_node: int = 0x40
) -> list[Sample]:
    """Every module, cell by cell, at `steps` + 1 times spread over the window."""
    samples: list[Sample] = []
    cells: dict[int, dict[int, int]] = {node: {} for node in nodes}
    state: dict[int, dict[str, int]] = {node: {} for node in nodes}
    length_us = window.end_us - window.start_us
    due = 0

    def take() -> None:
        at_s = due * length_us / steps / 1e6
        for node in sorted(nodes):
            mv = [cells[node][cell] for cell in sorted(cells[node])]
            samples.append(
                Sample(round(at_s, 1), node, state[node].get("soc_permille"), state[node].get("current_ma"), mv)
            )

    for item in vcu.opened:
        while due <= steps and item.end_us >= window.start_us + due * length_us // steps:
            take()
            due += 1
        if item.node != pack_node or item.base not in _COURSE:
            continue
        values = decode(_COURSE[item.base], item.data)
        if values is None or values["module_id"] not in cells:
            continue
        node = values["module_id"]
        if "cell_mv" in values:
            cells[node][values["cell_id"]] = values["cell_mv"]
        else:
            state[node].update(values)
    return samples
