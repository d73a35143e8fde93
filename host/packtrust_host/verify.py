"""On-target verification: a node computes on its own interpreter, the host compares with `cryptography`.

    with bus_at("slcan:/dev/ttyACM0?bitrate=500000") as bus:
        report = verify_node(bus, 0x40, cases=10)     # node byte: 0x40 + pack, 1..31 a module, 0xFF an unregistered one
    print(report.ok, report.operations)

The node's side is its test service (docs/wire.md, section 8): it uses only the keys it is sent, and is closed once the
node has keys of its own. `verify_with` does the same over any transport that carries a request and brings the reply.
"""

import json
import secrets
import statistics
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import can

from packtrust import testwire as wire
from packtrust_host.app.errors import AppError, NoAnswer
from packtrust_host.verify_cases import CAVP, OPERATIONS, Case, all_cases, probe_case
from packtrust_host.verify_transport import BusAsk, FrameBus, MakeLink, SharedBus, core_link, discover, node_name

CASES = 10
INFO_S = 3.0
# X25519 in interpreted Python on a slow board takes seconds, and an AuthPSK seal needs four of them.
ANSWER_S = 60.0
TRIES = 2
# A node computes for most of the time; the frames of so many fill a tenth of a bus.
AT_ONCE = 8

# A request in, its reply out. Raises NoAnswer.
Ask = Callable[[bytes, float], bytes]


class NodeRefused(AppError):
    """The node has keys: its test service is closed."""


class BackendMissing(AppError):
    """The node does not have the crypto backend that was asked for."""


@dataclass
class Operation:
    """What came of one operation with one backend or mode. Times in microseconds, measured on the node."""

    name: str
    variant: str
    cases: int = 0
    cavp: int = 0  # of these, NIST CAVP's
    failed: int = 0
    times_us: list[int] = field(default_factory=list, repr=False)

    @property
    def ok(self) -> bool:
        """Whether there were cases and every one was right."""
        return self.cases > 0 and not self.failed

    @property
    def median_us(self) -> float | None:
        """Median time of an accepted request."""
        return statistics.median(self.times_us) if self.times_us else None

    @property
    def max_us(self) -> int | None:
        """Longest time of an accepted request."""
        return max(self.times_us, default=None)

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "operation": self.name,
            "variant": self.variant,
            "cases": self.cases,
            "cavp": self.cavp,
            "failed": self.failed,
            "ok": self.ok,
            "median_us": self.median_us,
            "max_us": self.max_us,
        }


@dataclass(frozen=True)
class Failure:
    """A wrong answer, by the name of its inputs: no key bytes."""

    operation: str
    variant: str
    case: str
    cause: str

    def __str__(self) -> str:
        what = self.operation + (" (%s)" % self.variant if self.variant else "")
        return "%s: %s: %s" % (what, self.case, self.cause)


@dataclass
class VerifyReport:
    """The verdict on one node. `info` is what it says of itself, `seed` repeats the run."""

    node: str
    seed: int
    info: dict[str, Any] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    repeated: int = 0  # requests sent again because their transfer broke

    @property
    def cases(self) -> int:
        """Cases asked."""
        return sum(item.cases for item in self.operations)

    @property
    def failed(self) -> int:
        """Cases answered wrongly or not at all."""
        return sum(item.failed for item in self.operations)

    @property
    def ok(self) -> bool:
        """Whether every kind of operation was asked, and every answer was right."""
        asked = {item.name for item in self.operations if item.cases}
        return not self.failures and not self.failed and asked >= set(OPERATIONS)

    def red(self, operation: str) -> list[Failure]:
        """The failures of one operation."""
        return [failure for failure in self.failures if failure.operation == operation]

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "node": self.node,
            "ok": self.ok,
            "seed": self.seed,
            "info": self.info,
            "cases": self.cases,
            "failed": self.failed,
            "repeated": self.repeated,
            "operations": [item.to_json() for item in self.operations],
            "failures": [vars(item) for item in self.failures],
        }


class _Asker:
    """Numbers requests, reads replies, repeats once what the transport lost."""

    def __init__(self, ask: Ask, report: VerifyReport) -> None:
        self._ask = ask
        self._report = report
        self._ident = 0

    def __call__(self, op: int, arguments: Iterable[bytes], timeout_s: float) -> wire.Reply:
        for attempt in range(TRIES):
            self._ident = self._ident % 255 + 1
            try:
                payload = self._ask(wire.encode_request(op, self._ident, tuple(arguments)), timeout_s)
            except NoAnswer:
                if attempt + 1 == TRIES:
                    raise
                self._report.repeated += 1
                continue
            reply = wire.decode_reply(payload)
            if (reply.op, reply.ident) != (op, self._ident):
                raise ValueError("an answer to another request")
            return reply
        raise AssertionError("unreachable")


def _info(asker: _Asker, name: str) -> dict[str, Any]:
    """What the node says of itself. Raises NodeRefused, NoAnswer, AppError."""
    cause = ""
    try:
        reply = asker(wire.INFO, (), INFO_S)
        if reply.status == wire.REFUSED_KEYED:
            raise NodeRefused(
                "%s refuses: %s" % (name, wire.STATUSES[wire.REFUSED_KEYED]),
                "verify a node before it gets keys, or reset it at its console (it must be claimed again then)",
            )
        info = json.loads(reply.result) if reply.status == wire.OK else None
        if isinstance(info, dict) and all(isinstance(item, str) for item in info.get("backends", [None])):
            return info
        cause = wire.STATUSES.get(reply.status, "status %d" % reply.status) if reply.status else "no JSON object"
    except ValueError as error:
        cause = str(error)
    raise AppError("%s does not say what it is: %s" % (name, cause), "check its firmware's version")


def verify_with(
    ask: Ask,
    name: str,
    *,
    cases: int = CASES,
    seed: int | None = None,
    backend: str | None = None,
    in_use: bool = False,
    timeout_s: float = ANSWER_S,
    on_case: Callable[[Case, str], None] | None = None,
) -> VerifyReport:
    """Verify the node that `ask` reaches.

    cases    random ones an operation, AES backend and HPKE mode, besides the published vectors
    seed     of the random inputs; None: fresh
    backend  only this AES backend of the node; None: all it has
    in_use   only the one it takes by itself: a short check, and one that leaves the heap of a small node as it is
    on_case  called after each case with what was wrong (empty: nothing)

    Raises NodeRefused if the node has keys, BackendMissing, NoAnswer if it says nothing at all, BusLost. Wrong answers,
    and silence later on, are failures in the report.
    """
    report = VerifyReport(name, secrets.randbits(32) if seed is None else seed)
    asker = _Asker(ask, report)
    report.info = _info(asker, name)
    present: list[str] = list(report.info["backends"])
    # What a node with little heap loads only when it is asked for by name: docs/wire.md, section 8.
    others: list[str] = list(report.info.get("others", []))
    only = present[0] if in_use and present else backend  # they come best first

    def missing_backend() -> BackendMissing:
        known = [item for item in present + others if item != only]
        return BackendMissing("%s has no backend %r" % (name, only), "take one of %s" % ", ".join(known))

    if only is not None and only not in present + others:
        raise missing_backend()
    # A backend that fails its own known-answer test is not offered: that is a wrong answer too.
    broken: dict[str, str] = dict(report.info.get("disabled", {}))
    by_kind: dict[tuple[str, str], Operation] = {}

    def judge(case: Case, cause: str, elapsed_us: int | None) -> None:
        key = (case.operation, case.variant)
        if key not in by_kind:
            by_kind[key] = Operation(*key)
            report.operations.append(by_kind[key])
        operation = by_kind[key]
        operation.cases += 1
        operation.cavp += case.name.startswith(CAVP)
        if elapsed_us is not None:
            operation.times_us.append(elapsed_us)
        if cause:
            operation.failed += 1
            report.failures.append(Failure(*key, case.name, cause))
        if on_case is not None:
            on_case(case, cause)

    def judge_broken(missing: str, cause: str) -> None:
        judge(Case("AES-GCM seal", missing, "known-answer test", 0, (), lambda status, result: ""), cause, None)

    def available() -> Iterator[str]:
        """The backends to ask, one after the other; whether a node has one of `others` shows when it is its turn."""
        wanted = present + others if only is None else [only]
        for item in wanted:
            if item in present:
                yield item
                continue
            probe = probe_case(item)
            try:
                status = asker(probe.op, probe.arguments, timeout_s).status
                info = _info(asker, name) if status == wire.UNAVAILABLE else {}
            except NoAnswer as error:
                judge_broken(item, error.cause)
                raise
            if status != wire.UNAVAILABLE:
                report.info["backends"] = [*report.info["backends"], item]
                yield item
                continue
            reason = info.get("disabled", {}).get(item)
            if reason:
                report.info["disabled"] = {**report.info.get("disabled", {}), item: reason}
                judge_broken(item, "the node disabled this backend: it " + reason)
            elif item in info.get("others", []):
                judge_broken(item, "the node has no room in its heap to load this backend")
            elif only is not None:
                raise missing_backend()

    for missing, reason in broken.items():
        if in_use or only in (None, missing):
            judge_broken(missing, "the node disabled this backend: it " + reason)
    questions = all_cases(available(), cases, report.seed)
    while True:
        try:
            case = next(questions, None)
        except NoAnswer:
            return report  # told where it happened
        if case is None:
            return report
        elapsed_us = None
        try:
            reply = asker(case.op, case.arguments, timeout_s)
            cause = case.check(reply.status, reply.result)
            if reply.status == wire.OK:
                elapsed_us = reply.elapsed_us
            if reply.status == wire.REFUSED_KEYED:
                raise NodeRefused("%s got keys meanwhile" % name, "verify a node before it gets keys")
        except NoAnswer as error:
            judge(case, error.cause, None)
            return report  # each further case would only wait as long
        except ValueError as error:
            cause = str(error)
        judge(case, cause, elapsed_us)


def verify_node(
    bus: FrameBus,
    node: int,
    *,
    cases: int = CASES,
    seed: int | None = None,
    backend: str | None = None,
    in_use: bool = False,
    make_link: MakeLink = core_link,
    on_case: Callable[[Case, str], None] | None = None,
) -> VerifyReport:
    """Verify the node with this node byte on a python-can bus. As `verify_with`."""
    ask = BusAsk(bus, node, make_link)
    return verify_with(ask, node_name(node), cases=cases, seed=seed, backend=backend, in_use=in_use, on_case=on_case)


def verify_nodes(
    bus: can.BusABC, nodes: Iterable[int], *, at_once: int = AT_ONCE, **options: Any
) -> Iterator[VerifyReport]:
    """Verify several nodes of a bus, some at once; the verdicts come in the order of `nodes`.

    options  as `verify_node` takes them; `on_case` is called in the thread of its node

    Raises as `verify_node`; what is still asked then is given up.
    """
    # In this order: closing the shared bus ends the askers that the pool would wait for.
    with ThreadPoolExecutor(at_once, "packtrust-verify") as pool, SharedBus(bus) as shared:
        waiting = [pool.submit(verify_node, shared.share(node), node, **options) for node in nodes]
        for verdict in waiting:
            yield verdict.result()


def verify_bus(bus: can.BusABC, node: int | None = None, **options: Any) -> list[VerifyReport]:
    """Verify one node of a bus, or every one that answers. Raises as `verify_node`, NoAnswer if there is none."""
    if node is not None:
        return [verify_node(bus, node, **options)]
    found = discover(bus)
    if not found:
        raise NoAnswer(
            "no node answers on this bus",
            "check bit rate, wiring, termination and power; a module answers on the module bus, a pack on the VCU bus",
        )
    open_ones = [item.node for item in found if not item.keyed]
    if not open_ones:
        raise NodeRefused(
            "%s: %s" % (", ".join(node_name(item.node) for item in found), wire.STATUSES[wire.REFUSED_KEYED]),
            "verify a node before it gets keys, or reset it at its console (it must be claimed again then)",
        )
    return list(verify_nodes(bus, open_ones, **options))
