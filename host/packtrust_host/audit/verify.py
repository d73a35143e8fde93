"""Whether an audit log is what was signed: offline, and with the entry that is not.

What it needs is the log, its checkpoints and the verifier key. More finds more: an earlier checkpoint kept elsewhere
(the log was cut off or forked since), and the first keys of the nodes' logs (their entries are what the nodes wrote).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from packtrust import audit
from packtrust_host.audit.merkle import Tree
from packtrust_host.audit.note import Checkpoint, NoteError, Verifier, open_checkpoint, split_notes

EDITED = "edited"
TRUNCATED = "truncated"
FORKED = "forked"
REORDERED = "reordered"
UNSIGNED = "unsigned"
FORGED = "forged"  # a checkpoint or a node's entry that its key has not made

NODE_ENTRY = "node"
NODE_LOG = "node-log"  # from here on entries of a node follow: from which number, with which chain before


@dataclass(frozen=True)
class Finding:
    """What is wrong: `kind`, number of the first entry concerned (-1: none), and a sentence."""

    kind: str
    entry: int
    text: str


@dataclass
class Verdict:
    """Result of `verify`. `entries` and `checkpoints`: how many; `nodes`: verified entries by device."""

    entries: int = 0
    checkpoints: int = 0
    nodes: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.findings

    def find(self, kind: str, entry: int, text: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(kind, entry, text))


def lines_of(log: bytes) -> list[bytes]:
    """The entries of a log file as they are hashed: its lines, without their ends."""
    lines = log.split(b"\n")
    return lines[:-1] if lines and not lines[-1] else lines


def verify(
    log: bytes,
    checkpoints: str,
    verifier: Verifier,
    *,
    kept: Iterable[str] = (),
    head: Checkpoint | None = None,
    node_keys: Mapping[str, bytes | bytearray] | None = None,
) -> Verdict:
    """Check a log.

    checkpoints   the log's own, one after the other
    kept          checkpoints (signed notes) that were kept elsewhere
    head          the newest one as the key store remembers it
    node_keys     first key of a node's log by `device key_id`, as `claimed` entries name them; None: not checked
    """
    verdict = Verdict()
    lines = lines_of(log)
    verdict.entries = len(lines)
    entries = _check_numbers(lines, verdict)
    roots = _roots(lines)
    own = _opened(split_notes(checkpoints), verifier, verdict, "checkpoint %d")
    verdict.checkpoints = len(own)
    _check_own(own, roots, len(lines), verdict)
    others = _opened(kept, verifier, verdict, "the checkpoint given as number %d")
    if head is not None:
        others.append(head)
    _check_kept(sorted(others, key=lambda item: item.size), roots, len(lines), verdict)
    _check_nodes(entries, node_keys, verdict)
    return verdict


def _check_numbers(lines: list[bytes], verdict: Verdict) -> list[dict[str, Any] | None]:
    entries: list[dict[str, Any] | None] = []
    for index, line in enumerate(lines):
        try:
            entry = json.loads(line)
            number = entry["n"]
        except (ValueError, KeyError, TypeError):
            entries.append(None)
            verdict.find(EDITED, index, "entry %d is no entry at all" % index)
            continue
        entries.append(entry)
        if number != index:
            verdict.find(REORDERED, index, "entry %s stands where entry %d belongs" % (number, index))
    return entries


def _roots(lines: list[bytes]) -> list[bytes]:
    """Root at each size from 0 on."""
    tree = Tree()
    roots = [tree.root()]
    for line in lines:
        tree.add(line)
        roots.append(tree.root())
    return roots


def _opened(notes: Iterable[str], verifier: Verifier, verdict: Verdict, name: str) -> list[Checkpoint]:
    found = []
    for index, note in enumerate(notes):
        try:
            found.append(open_checkpoint(note, verifier))
        except NoteError as error:
            verdict.find(FORGED, -1, "%s: %s" % (name % index, error))
    return found


def _range(first: int, end: int) -> str:
    return "entry %d" % first if end - first <= 1 else "one of the entries %d to %d" % (first, end - 1)


def _check_own(own: list[Checkpoint], roots: list[bytes], count: int, verdict: Verdict) -> None:
    good = 0
    seen: dict[int, bytes] = {}
    for item in own:
        if seen.setdefault(item.size, item.root) != item.root:
            verdict.find(FORKED, good, "two checkpoints of %d entries differ: there were two logs" % item.size)
            return
    for item in own:
        if item.size > count:
            break
        if roots[item.size] != item.root:
            text = "%s is not what was signed" % _range(good, item.size)
            verdict.find(EDITED, good, text)
            return
        good = max(good, item.size)
    newest = max((item.size for item in own), default=0)
    if newest > count:
        verdict.find(
            TRUNCATED,
            count,
            "the log ends before entry %d, but %d entries were signed: those from %d on are missing"
            % (count, newest, count),
        )
    elif count > newest:
        verdict.find(UNSIGNED, newest, "no checkpoint covers the entries from %d on" % newest)


def _check_kept(kept: list[Checkpoint], roots: list[bytes], count: int, verdict: Verdict) -> None:
    good = 0
    for item in kept:
        if item.size > count:
            verdict.find(
                TRUNCATED,
                count,
                "a checkpoint that was kept covers %d entries, the log has %d: those from %d on are missing"
                % (item.size, count, count),
            )
            return
        if roots[item.size] != item.root:
            verdict.find(
                FORKED,
                good,
                "this is not the log that was signed at %d entries: it differs at %s"
                % (item.size, _range(good, item.size)),
            )
            return
        good = item.size


# -- what nodes wrote --------------------------------------------------------------------------------------------------


@dataclass
class _Node:
    """Where a node's log is while its entries are read: number and chain before the next one, and its key if known."""

    following: int
    chain: bytes
    key: bytearray | None


def _check_nodes(
    entries: list[dict[str, Any] | None], keys: Mapping[str, bytes | bytearray] | None, verdict: Verdict
) -> None:
    nodes: dict[str, _Node] = {}
    for index, entry in enumerate(entries):
        if entry is None or entry.get("what") not in (NODE_ENTRY, NODE_LOG):
            continue
        try:
            device = str(entry["device"])
            if entry["what"] == NODE_LOG:
                nodes[device] = _begin(index, device, entry, nodes.get(device), keys, verdict)
                continue
            raw = bytes.fromhex(entry["entry"])
            mac = bytes.fromhex(entry["mac"])
        except (KeyError, TypeError, ValueError):
            verdict.find(EDITED, index, "entry %d is not as a node's is noted" % index)
            continue
        node = nodes.get(device)
        if node is None:
            verdict.find(
                TRUNCATED, index, "entry %d is of node %s, whose log does not begin before it" % (index, device)
            )
            continue
        _check_entry(index, device, node, raw, mac, keys is not None, verdict)


def _begin(
    index: int,
    device: str,
    entry: dict[str, Any],
    before: _Node | None,
    keys: Mapping[str, bytes | bytearray] | None,
    verdict: Verdict,
) -> _Node:
    first, start = int(entry["first"]), int(entry["start"])
    if before is not None and first < before.following:
        verdict.find(
            REORDERED,
            index,
            "entry %d goes back to number %d of node %s, whose next is %d" % (index, first, device, before.following),
        )
    key = None
    if keys is not None:
        known = keys.get("%s %s" % (device, entry["key_id"]))
        if known is None:
            verdict.find(FORGED, index, "entries of node %s cannot be checked: its first key is not known" % device)
        else:
            key = key_of(known, first - start)
    return _Node(first, bytes.fromhex(entry["before"]), key)


def key_of(first_key: "bytes | bytearray", steps: int) -> bytearray:
    """The key of a node's entry, `steps` after the first. Nothing else makes it."""
    key = bytearray(first_key)
    for _ in range(steps):
        key = audit.next_key(key)
    return key


def _check_entry(
    index: int, device: str, node: _Node, raw: bytes, mac: bytes, check_mac: bool, verdict: Verdict
) -> None:
    parsed = audit.parse_entry(raw)
    if parsed is None:
        verdict.find(EDITED, index, "entry %d holds no entry of a node" % index)
        return
    if parsed.number != node.following:
        kind = REORDERED if parsed.number < node.following else TRUNCATED
        text = "entry %d is number %d of node %s, where number %d belongs"
        verdict.find(kind, index, text % (index, parsed.number, device, node.following))
        node.key = None  # one finding for what follows from one
        node.following = parsed.number + 1
        return
    node.chain = audit.link(node.chain, raw)
    node.following += 1
    if node.key is None:
        return
    if mac != audit.entry_mac(node.key, node.chain):
        text = "entry %d was not written so by node %s (its number %d)"
        verdict.find(FORGED, index, text % (index, device, parsed.number))
        node.key = None
        return
    verdict.nodes[device] = verdict.nodes.get(device, 0) + 1
    node.key = audit.next_key(node.key)
