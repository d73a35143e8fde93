"""The eight success criteria of the roadmap, each with the evidence that decides it. Pure: evidence in, lines out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .evidence import Evidence, Pair, Registered
from .keysearch import WAYS
from .measure import BURST_MS, BURST_TOLERANCE_MS, COMMAND_MS, POLL_MS, figures

_SHOWN = 12
# `stats` counters of a channel that mean: a record, and its tag did not verify.
TAG = "tag"


@dataclass
class Line:
    """A criterion: what was measured, and if it does not hold, why."""

    number: int
    criterion: str
    evidence: str
    problems: list[str] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether it holds."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "number": self.number,
            "criterion": self.criterion,
            "ok": self.ok,
            "evidence": self.evidence,
            "problems": self.problems,
            "measured": self.measured,
        }


def _few(problems: list[str]) -> list[str]:
    if len(problems) <= _SHOWN:
        return problems
    return [*problems[:_SHOWN], "and %d more" % (len(problems) - _SHOWN)]


def _registered(item: Registered) -> list[str]:
    if not item.component_id:
        return ["%s was not registered" % item.name]
    return ["%s: %s" % (item.name, item.problem)] if item.problem else []


def _app(seen: Evidence) -> Line:
    app = seen.app or Registered("the app")
    problems = _registered(app)
    problems += ["%s %s" % (item.who, item.problem) for item in seen.findings if item.who == "app"]
    text = "component %s, Host ID %s, context management; GET shows what was sent" % (app.component_id, seen.host_id)
    return Line(1, "App registers as blockchain component with Host ID", text if not problems else "", problems)


def _devices(seen: Evidence) -> Line:
    wanted = seen.modules + 1
    problems = [problem for item in seen.devices for problem in _registered(item)]
    if len(seen.devices) != wanted:
        problems.append("%d of %d devices were registered" % (len(seen.devices), wanted))
    receipts = 0
    for pair in seen.pairs:
        receipts += len(pair.receipts)
        if pair.halves != (64, 64):
            problems.append("%s has halves of %d and %d bytes, not 64" % (pair.name, *pair.halves))
        elif len(pair.receipts) < pair.expected_receipts:
            problems.append("%s: %d of %d receipts" % (pair.name, len(pair.receipts), pair.expected_receipts))
    if len(seen.pairs) != wanted:
        problems.append("%d of %d relationships have halves" % (len(seen.pairs), wanted))
    problems += ["%s %s" % (item.who, item.problem) for item in seen.findings if item.who != "app"]
    if not seen.validated:
        problems.append("no relationship was validated at the end")
    if seen.attestation is None:
        problems.append("the pack attested nothing")
    else:
        problems += seen.attestation
    evidence = (
        "%d components read back as sent (1 pack controller, %d modules), %d authentic receipts for "
        "%d x 64-byte halves, %d relationships validated live, the modules attested by the pack to the bridge"
        % (len(seen.devices), seen.modules, receipts, 2 * len(seen.pairs), seen.validated)
    )
    return Line(
        2, "Pack controller and battery modules register and receive device key halves", evidence, _few(problems)
    )


def _on_target(seen: Evidence, operations: Callable[[str], bool]) -> tuple[int, list[str]]:
    """(right answers, problems) of the on-target check, for these operations."""
    problems = []
    right = 0
    if not seen.verified or len(seen.verified) != seen.verify_expected:
        problems.append("%d of %d nodes computed for us" % (len(seen.verified), seen.verify_expected))
    for name, report in seen.verified.items():
        cases = wrong = 0
        for item in report.operations:
            if operations(item.name):
                cases += item.cases
                wrong += item.failed
        right += cases - wrong
        if wrong or not cases:
            problems.append("%s: %d of %d answers differ from cryptography's" % (name, wrong, cases))
    return right, problems


def _derivation(seen: Evidence) -> Line:
    right, problems = _on_target(seen, lambda name: name == "HKDF")
    confirmed = 0
    for pair in seen.pairs:
        if pair.confirmed and pair.shared_keys:
            confirmed += 1
        else:
            problems.append(_unpaired(pair))
    if confirmed != seen.modules + 1 and not problems:
        problems.append("%d of %d pairs" % (confirmed, seen.modules + 1))
    evidence = "%d HKDF answers of %d nodes equal cryptography's; %d of %d pairs derived the same keys at both ends" % (
        right,
        len(seen.verified),
        confirmed,
        seen.modules + 1,
    )
    measured = {"hkdf_cases": right, "pairs": confirmed}
    return Line(
        3, "HKDF key derivation produces consistent encryption keys from key halves", evidence, _few(problems), measured
    )


def _unpaired(pair: Pair) -> str:
    if pair.confirmed:
        return "%s: no derived key was seen at both ends" % pair.name
    return "%s: the pair exchange was not confirmed%s" % (pair.name, ": " + pair.problem if pair.problem else "")


def _gcm(seen: Evidence) -> Line:
    right, problems = _on_target(seen, lambda name: name.startswith("AES-GCM") or name == "framing")
    sealed, opened, tags = seen.counted("sealed"), seen.counted("opened"), seen.counted(TAG)
    for name, verdicts in seen.stats.items():
        if verdicts.get(TAG):
            problems.append("%s refused %d records with a wrong tag" % (name, verdicts[TAG]))
    if not sealed or not opened:
        problems.append("%d records were sealed, %d opened" % (sealed, opened))
    in_log = sum(len(records.opened) for records in seen.records)
    bad = [(records.bus, transfer) for records in seen.records for transfer in records.bad]
    if bad:
        named = ", ".join("%08X at %.6f on %s" % (item.identifier, item.start_us / 1e6, bus) for bus, item in bad[:3])
        problems.append("%d records in the logs are not authentic under any session key: %s" % (len(bad), named))
    if not in_log:
        problems.append("no record in the logs")
    evidence = (
        "%d answers of %d nodes right; %d records sealed, %d opened, %d tag failures; all %d records in the logs open"
        % (
            right,
            len(seen.verified),
            sealed,
            opened,
            tags,
            in_log,
        )
    )
    measured = {"cases": right, "sealed": sealed, "opened": opened, "tag_failures": tags, "records_in_logs": in_log}
    return Line(4, "AES-256-GCM works on CAN messages", evidence, _few(problems), measured)


def _bit_17(seen: Evidence) -> Line:
    problems = []
    for item in seen.secrecy:
        problems += ["%s bus: %s" % (item.bus, what) for what in item.violations]
        if not item.sealed:
            problems.append("%s bus: nothing was sealed" % item.bus)
    if len(seen.secrecy) != 2:
        problems.append("%d of 2 buses were looked at" % len(seen.secrecy))
    due = sum(item.due for item in seen.secrecy)
    sealed = sum(item.sealed for item in seen.secrecy)
    records = sum(item.records for item in seen.secrecy)
    allowed: dict[str, int] = {}
    for item in seen.secrecy:
        for name, count in item.allowed.items():
            allowed[name] = allowed.get(name, 0) + count
    evidence = (
        "of %d frames after keying %d have bit 17 and make %d records, %d are clear by policy (%s), none else"
        % (
            due,
            sealed,
            records,
            sum(allowed.values()),
            ", ".join("%d %s" % (count, name) for name, count in sorted(allowed.items())) or "none",
        )
    )
    measured = {"frames": due, "sealed": sealed, "records": records, "clear_by_policy": allowed}
    return Line(5, "Bit 17 signalling functions correctly", evidence, _few(problems), measured)


def _sessions(seen: Evidence) -> Line:
    problems = []
    live = 0
    records = 0
    names = {pair.node: pair.name for pair in seen.pairs}
    for node, name in sorted(names.items()):
        there, back = seen.sessions.get(node, (0, 0))
        if there and back:
            live += 1
            records += there + back
        else:
            problems.append("%s: %d authentic records one way, %d the other" % (name, there, back))
    wanted = seen.modules + 1
    if live != wanted and not problems:
        problems.append("%d of %d pairs have a session" % (live, wanted))
    if not seen.app_sessions and live == wanted:
        problems.append("the app has no session at the end")
    evidence = "%d of %d sessions with authentic records both ways (%d in the logs)" % (live, wanted, records)
    return Line(6, "All device pairs establish encrypted channels", evidence, _few(problems), {"sessions": live})


def _real_time(seen: Evidence) -> Line:
    problems = []
    measured: dict[str, Any] = {}
    parts = []
    if seen.polls is None:
        problems.append("no polls were measured")
    else:
        problems += seen.polls.problems()
        measured["poll"] = found = figures(seen.polls.all_ms)
        parts.append(
            "%s polls, p99 %s, max %s of %.0f ms"
            % (found["count"], _ms(found["p99_ms"]), _ms(found["max_ms"]), POLL_MS)
        )
    if seen.commands is None:
        problems.append("no commands were measured")
    else:
        problems += seen.commands.problems()
        measured["command"] = found = figures(seen.commands.all_ms)
        measured["commands"] = seen.commands.count
        parts.append(
            "%d state commands, each obeyed by state and current, p99 %s, max %s of %.0f ms"
            % (seen.commands.count, _ms(found["p99_ms"]), _ms(found["max_ms"]), COMMAND_MS)
        )
    count, broken = seen.limits
    problems += broken
    if count:
        parts.append("%d limits kept" % count)
    measured["limits"] = count
    if seen.bursts is None or not seen.bursts.intervals_ms:
        problems.append("no burst was measured")
    else:
        problems += seen.bursts.problems
        intervals = seen.bursts.intervals_ms
        measured["burst"] = {
            "count": len(intervals),
            "min_ms": round(min(intervals), 3),
            "max_ms": round(max(intervals), 3),
        }
        parts.append(
            "VCU burst every %.1f..%.1f ms of %.0f +- %.0f"
            % (min(intervals), max(intervals), BURST_MS, BURST_TOLERANCE_MS)
        )
    return Line(7, "Real-time with encryption overhead", "; ".join(parts), _few(problems), measured)


def _ms(value: float | int | None) -> str:
    return "-" if value is None else "%.1f" % value


def _secrets(seen: Evidence) -> Line:
    search = seen.search
    title = "Security validation passes with no key material exposure"
    if search is None:
        return Line(8, title, "", ["the logs were not searched"])
    result = search.result
    problems = []
    for control in search.controls:
        problems += ["the search misses a key hidden as %s: it proves nothing" % way for way in control.missed]
        if control.false:
            problems.append("the search sees %d keys that never existed" % control.false)
    if not search.controls:
        problems.append("the search was not tested")
    if not result.keys or not result.frames:
        problems.append("%d keys were looked for in %d frames" % (result.keys, result.frames))
    if result.findings:
        problems.append("%d of %d keys are in the logs" % (len(result.found_keys), result.keys))
        first = {item.key: item for item in reversed(result.findings)}
        found = ["%s (%s, %s bus, %s)" % (item.key, item.form, item.bus, item.where) for item in first.values()]
        problems += _few(sorted(found))
    evidence = (
        "%d keys (%d windows of 8 bytes, each raw, hex and base64) in %d frames, %d transfers and %d streams: %s; "
        "%d keys hidden on purpose all found, %d decoys not"
        % (
            result.keys,
            result.windows,
            result.frames,
            result.transfers,
            result.streams,
            "none found" if not result.findings else "%d FOUND" % len(result.found_keys),
            sum(len(WAYS) - len(control.missed) for control in search.controls),
            sum(control.decoys for control in search.controls),
        )
    )
    measured = {
        "keys": result.keys,
        "windows": result.windows,
        "frames": result.frames,
        "transfers": result.transfers,
        "keys_found": len(result.found_keys),
        "kinds": search.by_kind,
    }
    return Line(8, title, evidence, problems, measured)


def evaluate(seen: Evidence) -> list[Line]:
    """The eight lines, in order."""
    return [
        _app(seen),
        _devices(seen),
        _derivation(seen),
        _gcm(seen),
        _bit_17(seen),
        _sessions(seen),
        _real_time(seen),
        _secrets(seen),
    ]
