"""Switches that make the embedded bridge misbehave, for tests and for the demo's fault runs.

A fault has a kind, a route pattern and a count, and can be written as JSON:
`{"kind": "drop_after_commit", "route": "POST /api/v1/lct/create", "count": 1}`.
"""

import fnmatch
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class FaultKind(StrEnum):
    """What happens to a request that a fault matches."""

    LATENCY = "latency"  # `seconds` pass before the request is carried out
    DROP = "drop"  # the connection is reset, nothing is done
    DROP_AFTER_COMMIT = "drop_after_commit"  # carried out, then the connection is reset
    EMPTY_500 = "empty_500"  # 500 without a body, as today's bridge does when it panics
    JSON_500 = "json_500"  # 500 with an error text
    RATE_LIMIT = "rate_limit"  # 429
    REFUSE = "refuse"  # 400
    NOT_FOUND = "not_found"  # 404 as plain text
    NOT_JSON = "not_json"  # carried out, but the reply is 200 with HTML
    PLACEHOLDER_HALVES = "placeholder_halves"  # carried out, halves replaced by `generated_...`
    REPEATED_HALVES = "repeated_halves"  # carried out, halves the same in each reply
    EQUAL_HALVES = "equal_halves"  # carried out, both halves the same


HALF_FIELDS = ("device_key_half", "lct_key_half", "split_key_a", "split_key_b")
_HALF_KINDS = {
    FaultKind.PLACEHOLDER_HALVES,
    FaultKind.REPEATED_HALVES,
    FaultKind.EQUAL_HALVES,
}


@dataclass
class Fault:
    """One switch.

    `route` is a shell pattern over "METHOD /path" (over the path alone if it has no space). The
    first `skip` matches pass unharmed, then `count` are hit (None: all). `commit` makes a 500 come
    after the request was carried out instead of before.
    """

    kind: FaultKind
    route: str = "*"
    count: int | None = None
    skip: int = 0
    seconds: float = 0.0
    commit: bool = False
    hits: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.kind = FaultKind(self.kind)
        if self.kind is FaultKind.LATENCY and self.seconds <= 0:
            raise ValueError("a latency fault needs `seconds` above 0")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Fault":
        """The fault a JSON object describes. Raises ValueError for unknown kinds and keys."""
        known = {"kind", "route", "count", "skip", "seconds", "commit"}
        if "kind" not in value or set(value) - known:
            raise ValueError(
                "a fault has `kind` and optionally %s, not %s" % (sorted(known - {"kind"}), sorted(set(value) - known))
            )
        return cls(**dict(value))

    @property
    def carries_out(self) -> bool:
        """Whether the request itself is done before the reply is spoilt."""
        done_first = {FaultKind.DROP_AFTER_COMMIT, FaultKind.NOT_JSON, *_HALF_KINDS}
        return self.commit or self.kind in done_first

    def matches(self, method: str, path: str) -> bool:
        """Whether the route pattern covers this request."""
        subject = method + " " + path if " " in self.route else path
        return fnmatch.fnmatchcase(subject, self.route)


class FaultSet:
    """The faults of one bridge. Thread-safe: tests switch them while requests run."""

    def __init__(self, faults: Iterable[Fault | Mapping[str, Any]] = ()) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        # What repeated_halves repeats: random per bridge, so never a half anyone issued.
        self._repeated = {name: secrets.token_hex(64) for name in HALF_FIELDS}
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault | Mapping[str, Any]) -> Fault:
        """Switch a fault on; its `hits` counts from now."""
        made = fault if isinstance(fault, Fault) else Fault.from_json(fault)
        with self._lock:
            self._faults.append(made)
        return made

    def remove(self, fault: Fault) -> None:
        """Switch one off. Raises ValueError if it is not on."""
        with self._lock:
            self._faults.remove(fault)

    def clear(self) -> None:
        """Switch all off."""
        with self._lock:
            self._faults.clear()

    def take(self, method: str, path: str) -> list[Fault]:
        """The faults that hit this request, each counted."""
        hit = []
        with self._lock:
            for fault in self._faults:
                if not fault.matches(method, path):
                    continue
                if fault.skip:
                    fault.skip -= 1
                elif fault.count is None or fault.hits < fault.count:
                    fault.hits += 1
                    hit.append(fault)
        return hit

    def spoil_halves(self, kind: FaultKind, reply: dict[str, Any]) -> None:
        """Replace the key halves in a reply, in place."""
        present = [name for name in HALF_FIELDS if name in reply]
        for name in present:
            if kind is FaultKind.PLACEHOLDER_HALVES:
                reply[name] = "generated_" + name
            elif kind is FaultKind.REPEATED_HALVES:
                reply[name] = self._repeated[name]
            elif kind is FaultKind.EQUAL_HALVES:
                reply[name] = reply[present[0]]
