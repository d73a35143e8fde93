"""What a demo run has seen: the raw material of its report. What stays empty is no evidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from packtrust_host.app.validate import Finding
from packtrust_host.verify import VerifyReport

from .keysearch import Controls, SearchResult
from .measure import Bursts, Commands, Polls, Secrecy
from .records import Records


@dataclass
class Registered:
    """A component at the bridge. `problem`: how what GET shows differs from what was sent; "" if it does not."""

    name: str
    component_id: str = ""
    problem: str = ""


@dataclass
class Pair:
    """A relationship. `node`: node byte of its link; `name`: its device end ("module 2"), or "app".

    ends         who its ends are to the key taps: "app", "pack", "module1" (the processes' names)
    halves       bytes of half A and half B in the key store
    receipts     names of the devices that acknowledged a package with both halves by an authentic receipt
    confirmed    both ends proved the same new root, and committed it
    shared_keys  derived keys (not session keys) that both ends had in hands
    """

    name: str
    node: int
    ends: tuple[str, str]
    halves: tuple[int, int] = (0, 0)
    receipts: list[str] = field(default_factory=list)
    expected_receipts: int = 1
    confirmed: bool = False
    committed_us: int | None = None
    shared_keys: int = 0
    problem: str = ""


@dataclass
class Search:
    """The key search and its controls."""

    result: SearchResult
    controls: list[Controls]
    by_kind: dict[str, int] = field(default_factory=dict)


@dataclass
class Evidence:
    """Everything the eight lines are judged by."""

    modules: int
    clear_first_transfer: bool = False
    host_id: str = ""
    app: Registered | None = None
    devices: list[Registered] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    verified: dict[str, VerifyReport] = field(default_factory=dict)
    verify_expected: int = 0
    findings: list[Finding] = field(default_factory=list)
    validated: int = 0
    attestation: list[str] | None = None  # problems with it; None: there was none
    app_sessions: int = 0
    stats: dict[str, dict[str, Any]] = field(default_factory=dict)  # per node: records by verdict
    secrecy: list[Secrecy] = field(default_factory=list)
    records: list[Records] = field(default_factory=list)
    sessions: dict[int, tuple[int, int]] = field(default_factory=dict)  # node byte -> records each way in the log
    polls: Polls | None = None
    bursts: Bursts | None = None
    commands: Commands | None = None
    limits: tuple[int, list[str]] = (0, [])
    search: Search | None = None
    problems: list[str] = field(default_factory=list)  # what stopped the run or a part of it

    def counted(self, what: str) -> int:
        """A counter of the records' verdicts, over all nodes."""
        return sum(int(verdicts.get(what, 0)) for verdicts in self.stats.values())
