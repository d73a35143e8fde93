#!/usr/bin/env python3
"""Take out each defence in turn, as an overlay, and show what turns red. `make defences`.

    python tests/attacks/defences.py [--all] [words of a defence's name ...]

A defence is what an attack of the suite names (the weakened build of its control), or one of `MORE` with the tests that
watch over it. Without --all a defence's run ends at the first red line. Exit code 1 if a defence can be taken out
unseen, or if it does not fit the source any more.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent
CHECKOUT = FOLDER.parents[1]
for place in ("shared", "host", "host/pytest_micropython_boards/src", "firmware", "tests"):
    sys.path.insert(0, str(CHECKOUT / place))

from attack_suite import catalogue  # noqa: E402  # the path is set above
from weakening import Weakening, WeakeningError  # noqa: E402

TIMEOUT_S = 240


@dataclass(frozen=True)
class Defence:
    """What is taken out, and which tests must notice."""

    name: str
    removed_by: str
    weakening: Weakening
    tests: tuple[str, ...]


def _more(name: str, removed_by: str, patches: list[tuple[str, str, str]], *tests: str) -> Defence:
    return Defence(name, removed_by, Weakening(*patches), tests)


# Beside what the attacks name: (name, removed by, places, tests).
MORE = [
    _more(
        "messages that prove nothing have a share of a node's time",
        "a flood of them takes all of it",
        [("packtrust_node.post", "if self._is_overdrawn():", "if False:")],
        "tests/unit/core/test_node_provisioning.py",
    ),
    _more(
        "handshakes beside a session have a share of a module's time",
        "a flood of them keeps the session's records out",
        [("packtrust_node.post", "if is_rest or self._is_overdrawn():", "if False:")],
        "tests/unit/core/test_node_provisioning.py",
    ),
    _more(
        "long messages in a row tell that the bus leaves no pause",
        "a second of them comes before the share of their time acts",
        [("packtrust_node.loop", "count + _LONG if self.node.took_long else count", "count")],
        "tests/unit/core/test_loop.py",
    ),
    _more(
        "a transfer that has just begun is not given up",
        "each first frame of a flood has its buffer",
        [("packtrust.isotp", "and now_ms - self._first_ms < FIRST_MS\n", "and False\n")],
        "tests/unit/core/test_isotp.py",
    ),
    _more(
        "the claim code is burnt",
        "a claimed device keeps its code",
        [
            (
                "packtrust_node.identity",
                'return Identity(self.private, self.public, b"", owner_public,',
                "return Identity(self.private, self.public, self.claim_code, owner_public,",
            )
        ],
        "tests/attacks/test_rogue_app.py",
    ),
    _more(
        "clear first transfer only by option, once",
        "a device that always takes it",
        [
            (
                "packtrust_node.taking",
                '    if not node.config.get("clear_first_transfer") or identity.claimed or identity.clear_used:',
                "    if False:",
            )
        ],
        "tests/attacks/test_rogue_app.py",
        "tests/attacks/test_downgrade.py",
    ),
    _more(
        "policy digest in the handshake",
        "a transcript without it",
        [("packtrust.handshake", "            + self._policy_digest\n", "")],
        "tests/unit/core/test_channel.py",
    ),
    _more(
        "one reassembly buffer a stream, a cap on streams",
        "as many buffers as streams",
        [
            (
                "packtrust.segmentation",
                "                if len(self.partials) >= self._cap:",
                "                if False:",
            )
        ],
        "tests/unit/core/test_segmentation.py",
    ),
    _more(
        "chunks in order only",
        "any chunk is taken where it comes",
        [("packtrust.segmentation", "        if head == awaited:\n", "        if True:\n")],
        "tests/unit/core/test_segmentation.py",
    ),
    _more(
        "the test service is closed on keyed nodes",
        "it always computes",
        [("packtrust_node.testservice", "        if self._is_keyed():", "        if False:")],
        "tests/attacks/test_downgrade.py",
    ),
    _more(
        "limits never above the hardware's",
        "a module that takes any limit",
        [
            (
                "packtrust_node.module",
                'max(0, min(self._hardware[1], values["max_discharge_ma"])),',
                'max(0, values["max_discharge_ma"]),',
            )
        ],
        "tests/unit/core/test_node_telemetry.py",
        "tests/unit/core/test_node_traffic.py",
    ),
    _more(
        "the bus only lowers by itself",
        "a module rises to the heartbeat's highest state",
        [("packtrust_node.module", "if self.state > self.max_state:", "if self.state != self.max_state:")],
        "tests/attacks/test_jamming.py",
        "tests/unit/core/test_node_traffic.py",
    ),
    _more(
        "store: the tag of a record",
        "records are taken as they are",
        [
            (
                "packtrust.crypto.host",
                "            return self._aead.decrypt(nonce, data, aad)",
                "            return self._aead.encrypt(nonce, bytes(data[:-16]), aad)[:-16]",
            )
        ],
        "tests/unit/core/test_store.py",
    ),
    _more(
        "a stuck entropy source makes no keys",
        "random bytes are not looked at",
        [("packtrust_node.identity", "    if len(drawn) != count or drawn == bytes(urandom(count)):", "    if False:")],
        "tests/attacks/test_rng_fault.py",
    ),
    _more(
        "a device's proven key is remembered",
        "an app that takes another key for a known device",
        [
            (
                "packtrust_host.app.provisioner",
                "            if known is not None and known.public_key != identity.public_key:",
                "            if False:",
            )
        ],
        "tests/attacks/test_rogue_device.py",
    ),
    _more(
        "the epoch in a record's keys",
        "keys that do not name the epoch",
        [("packtrust.keys", '            + pack(">I", epoch)', "")],
        "tests/unit/core",
        "tests/vectors",
    ),
    _more(
        "the group key changes when a member leaves",
        "a key for ever",
        [
            (
                "packtrust_node.broadcast",
                "        return slot.established and not slot.row[BARE] and slot.active(now_ms)",
                "        return slot is not None",
            )
        ],
        "tests/unit/core/test_node_broadcast.py",
    ),
    _more(
        "a broadcast is opened once, in order",
        "any counter",
        [
            (
                "packtrust.group",
                "        if counter <= self.beat:",
                "        if False:",
            )
        ],
        "tests/unit/core/test_group.py",
        "tests/unit/core/test_node_broadcast.py",
    ),
    _more(
        "a group key comes with the counter it is at",
        "counters from zero for who comes later",
        [
            (
                "packtrust_node.broadcast",
                'pack_into("<I", self._secret, 0, group.beat)',
                'pack_into("<I", self._secret, 0, 0)',
            )
        ],
        "tests/unit/core/test_node_broadcast.py",
    ),
    _more(
        "a poll says which broadcasts are old",
        "broadcasts held back for any time",
        [
            (
                "packtrust_node.module",
                'self._group.skip_to(values.get("beat", 0))',
                "self._group.skip_to(0)",
            )
        ],
        "tests/unit/core/test_node_broadcast.py",
    ),
    _more(
        "the group key is bound to its pack",
        "a key of the secret alone",
        [
            (
                "packtrust.group",
                "_LABEL + bytes(fingerprint)",
                "_LABEL",
            )
        ],
        "tests/unit/core/test_group.py",
        "tests/unit/core/test_node_broadcast.py",
    ),
    _more(
        "a broadcast ends no limp mode",
        "limp mode as the newest broadcast says",
        [
            (
                "packtrust_node.module",
                "            if data[0] & _LIMP:\n                self._set_limp(True)\n",
                "            self._set_limp(data[0] & _LIMP != 0)\n",
            )
        ],
        "tests/unit/core/test_node_limp.py",
    ),
    _more(
        "on a mixed bus sealed IDs are out of old modules' reach",
        "sealed IDs where they ever were",
        [
            (
                "packtrust_node.links",
                '    if not config.get("mixed_bus"):',
                "    if True:",
            )
        ],
        "tests/unit/core/test_node_mixed_bus.py",
    ),
    _more(
        "an old VCU raises under a grant alone",
        "raising by any clear command (legacy-vcu)",
        [
            (
                "packtrust_node.legacy",
                "if state > self._granted or pack.limp.active:",
                "if pack.limp.active:",
            )
        ],
        "tests/unit/core/test_node_legacy_vcu.py",
    ),
    _more(
        "a grant ends",
        "a grant for ever (legacy-vcu)",
        [
            (
                "packtrust_node.legacy",
                "return max(0, (self._until_ms - self._pack.env.now_ms() + 999) // 1000)",
                "return 1",
            )
        ],
        "tests/unit/core/test_node_legacy_vcu.py",
    ),
    _more(
        "whoever raised must stay",
        "any sign of life keeps any state (legacy-vcu)",
        [
            (
                "packtrust_node.commands",
                "(self._vcu_ms if self._by_vcu else self._app_ms)",
                "max(self._vcu_ms, self._app_ms)",
            )
        ],
        "tests/unit/core/test_node_legacy_vcu.py",
    ),
    _more(
        "limp mode of a pack",
        "half of the modules silent, and full current",
        [
            (
                "packtrust_node.limp",
                "if lost and 2 * lost >= len(slots):",
                "if False:",
            )
        ],
        "tests/unit/core/test_node_limp.py",
    ),
    _more(
        "limp mode ends at Standby",
        "limp mode for ever",
        [
            (
                "packtrust_node.limp",
                "if self.active and now_ms - self._since_ms >= STANDBY_MS:",
                "if False:",
            )
        ],
        "tests/unit/core/test_node_limp.py",
    ),
    _more(
        "limp mode of a module",
        "full current until the pack's loss",
        [
            (
                "packtrust_node.module",
                "if silent_ms > LIMP_MS:",
                "if False:",
            )
        ],
        "tests/unit/core/test_node_limp.py",
    ),
    _more(
        "a silent VCU lowers the pack",
        "states kept without anybody",
        [
            (
                "packtrust_node.commands",
                "elif silent_ms > STANDBY_MS:",
                "elif False:",
            )
        ],
        "tests/unit/core/test_node_broadcast.py",
        "tests/unit/core/test_node_traffic.py",
    ),
    _more(
        "refusals are reported to the app",
        "counted, and told to nobody",
        [
            (
                "packtrust_node.pack",
                'clear_refused=counters.get("clear", 0) + self.broadcast.refused_clear,',
                "clear_refused=0,",
            )
        ],
        "tests/unit/core/test_node_refusals.py",
    ),
    # -- rotation
    _more(
        "a new epoch is proved before it is committed",
        "a module that commits to any CONFIRM",
        [
            (
                "packtrust.pairing",
                'if self.root is None or not compare_digest(body, self._mac(b"initiator")):',
                "if self.root is None:",
            )
        ],
        "tests/unit/core/test_rotation.py",
        "tests/unit/core/test_pairing.py",
    ),
    _more(
        "the root before is destroyed in RAM",
        "a channel that keeps old roots",
        [("packtrust.channel", "            if old < session.epoch:\n", "            if False:\n")],
        "tests/unit/core/test_channel.py",
    ),
    _more(
        "the root before is destroyed in the store",
        "a record that keeps the epoch before",
        [
            (
                "packtrust_node.node",
                "        if relation is not None and relation.two_epochs and event.epoch == relation.epoch:",
                "        if False:",
            )
        ],
        "tests/faults/test_rotation_faults.py",
    ),
    _more(
        "a pack does not follow a module to any epoch",
        "a jump of any size",
        [
            (
                "packtrust_node.rotation",
                "not 0 <= newest - relation.epoch <= rotation.EPOCH_JUMP",
                "newest < relation.epoch",
            )
        ],
        "tests/unit/core/test_rotation.py",
    ),
    _more(
        "an old epoch is not agreed on again",
        "a module that follows to an epoch it has had",
        [("packtrust_node.rotation", "    if proposed[0] <= relation.epoch:", "    if False:")],
        "tests/unit/core/test_rotation.py",
    ),
    _more(
        "limits are clamped",
        "limits as a package says",
        [
            (
                "packtrust.keys",
                "        min(DEFAULT_MAX_RECORDS, max(MIN_RECORDS, max_records or DEFAULT_MAX_RECORDS)),\n",
                "        max_records or DEFAULT_MAX_RECORDS,\n",
            )
        ],
        "tests/attacks/test_weaker_terms.py",
    ),
    _more(
        "package counters rise",
        "packages of any counter",
        [("packtrust_node.taking", "    if content.counter <= identity.counter:", "    if False:")],
        "tests/unit/core/test_node_provisioning.py",
    ),
    _more(
        "pairs take turns at rotating",
        "the first pair that is due is always the next",
        [("packtrust_node.endpoint", "            self._turn = relation.node\n", "")],
        "tests/attacks/test_endless_rotations.py",
    ),
    _more(
        "a rotation ends, however often its module is ahead",
        "10 s more for each BEHIND",
        [("packtrust_node.rotation", "    following._since_ms = ours._since_ms\n", "")],
        "tests/attacks/test_endless_rotations.py",
    ),
    _more(
        "refused records use no epoch up",
        "an epoch that strangers use up",
        [
            (
                "packtrust_node.usage",
                "            count = opened + sealed\n",
                "            count = sum(neighbour.stats.values())\n",
            )
        ],
        "tests/attacks/test_endless_rotations.py",
    ),
    _more(
        "an epoch that is used up seals nothing",
        "records beyond the limit",
        [("packtrust_node.usage", "                neighbour.used_up = True\n", "")],
        "tests/faults/test_rotation_faults.py",
        "tests/unit/core/test_rotation.py",
    ),
    _more(
        "boots count as use of an epoch",
        "what was not stored before a power cut is forgotten",
        [
            (
                "packtrust_node.usage",
                "            records = boots * share(relation.term(MAX_RECORDS_AT))",
                "            records = 0",
            )
        ],
        "tests/faults/test_rotation_faults.py",
        "tests/faults/test_rotation_cuts.py",
    ),
    # -- audit log
    _more(
        "the key of a written audit entry is destroyed",
        "the record before stays where it was",
        [
            (
                "packtrust_node.audit_log",
                "            node.env.store.write(RECORD, raw, True)",
                "            node.env.store.write(RECORD, raw)",
            )
        ],
        "tests/unit/core/test_node_audit.py",
    ),
    _more(
        "the owner asks for the end of a node's log",
        "an owner who believes in any end",
        [("packtrust_host.audit.collect", "            if reported:", "            if True:")],
        "tests/attacks/test_audit_past.py",
        "tests/unit/host/test_audit_collect.py",
    ),
    _more(
        "each entry of a node has its MAC",
        "an owner who takes entries as they come",
        [
            (
                "packtrust_host.audit.collect",
                "            if mac != audit.entry_mac(key, known.chain):",
                "            if False:",
            )
        ],
        "tests/unit/host/test_audit_collect.py",
    ),
    _more(
        "signs are cleared by who has seen them",
        "a node that clears signs the owner does not know yet",
        [
            (
                "packtrust_node.audit_log",
                '            if kind == provision.CLEAR_SIGNS and content == pack(">I", log.following):',
                "            if kind == provision.CLEAR_SIGNS:",
            )
        ],
        "tests/attacks/test_audit_forged.py",
    ),
    _more(
        "the log and its signs are the owner's",
        "a node that answers anybody",
        [
            (
                "packtrust_node.audit_log",
                "    content = provision.check_mac(key, kind, body)\n",
                "    content = bytes(body[:-32])\n",
            )
        ],
        "tests/attacks/test_audit_forged.py",
    ),
    _more(
        "checkpoints of the log",
        "a reader that does not compare with them",
        [("packtrust_host.audit.verify", "    _check_own(own, roots, len(lines), verdict)\n", "")],
        "tests/attacks/test_audit_log_changed.py",
        "tests/unit/host/test_audit_log.py",
    ),
    _more(
        "checkpoints kept elsewhere",
        "a reader that believes in the log's own ones",
        [
            (
                "packtrust_host.audit.verify",
                "    _check_kept(sorted(others, key=lambda item: item.size), roots, len(lines), verdict)\n",
                "",
            )
        ],
        "tests/attacks/test_audit_log_changed.py",
    ),
    _more(
        "the key store remembers the log's head",
        "a host that has forgotten how long its log was",
        [("packtrust_host.audit.verify", "        others.append(head)", "        pass")],
        "tests/unit/host/test_audit_log.py",
    ),
    _more(
        "nothing is appended to another log than was signed last",
        "a host that signs whatever it finds",
        [("packtrust_host.audit.log", "        if not found:\n", "        if False:\n")],
        "tests/unit/host/test_audit_log.py",
    ),
    # -- policy and grant
    _more(
        "a grant takes the scope of states",
        "any app may grant",
        [
            (
                "packtrust_node.commands",
                "            if self._allowed(base, event.counter, SCOPE_STATE):\n                self._on_grant",
                "            if True:\n                self._on_grant",
            )
        ],
        "tests/attacks/test_clear_grant.py",
        "tests/unit/core/test_node_legacy_vcu.py",
    ),
    _more(
        "a grant ends with its owner",
        "a grant of an app that is no owner any more",
        [
            (
                "packtrust_node.legacy",
                '        """The app that granted is no owner any more."""\n        self._granted = STATE_OFF',
                '        """The app that granted is no owner any more."""',
            )
        ],
        "tests/unit/core/test_node_legacy_vcu.py",
    ),
    _more(
        "a grant is for an hour at most",
        "a grant of any length",
        [("packtrust_node.legacy", "if max_state > STATE_ON or seconds > GRANT_MAX_S:", "if max_state > STATE_ON:")],
        "tests/unit/core/test_node_legacy_vcu.py",
    ),
    _more(
        "no clear command raises in limp mode",
        "a grant counts in limp mode too",
        [("packtrust_node.legacy", "if state > self._granted or pack.limp.active:", "if state > self._granted:")],
        "tests/attacks/test_limp.py",
        "tests/attacks/test_clear_grant.py",
    ),
    # -- limp mode
    _more(
        "frames in clear do not bring limp mode about",
        "a module that obeys clear heartbeats",
        [
            (
                "packtrust_node.module",
                '                self.count("clear")\n            elif node == self.own_node and',
                (
                    "                self._obey(Frame(compose(base, node), bytes(data)))\n"
                    "            elif node == self.own_node and"
                ),
            )
        ],
        "tests/attacks/test_limp.py",
    ),
    _more(
        "a broadcast of limp mode counts once",
        "recorded ones count again",
        [("packtrust.group", "        if counter <= self.beat:", "        if False:")],
        "tests/attacks/test_limp.py",
    ),
    _more(
        "limp mode is left by authentic records",
        "any sign of life counts",
        [
            (
                "packtrust_node.node",
                "        if event.kind == REFUSED:\n",
                "        neighbour.heard_ms = self.env.now_ms()\n        if event.kind == REFUSED:\n",
            ),
            ("packtrust_node.limp", "            if slot.row[LOST]:", "            if not slot.active(now_ms):"),
        ],
        "tests/attacks/test_limp.py",
    ),
    # -- group key
    _more(
        "the tag of a broadcast",
        "a broadcast under any tag",
        [
            (
                "packtrust.group",
                "        if not aead.open_in_place(shared.rx, size, AAD_LENGTH):\n",
                "        if not aead.open_in_place(shared.rx, size, AAD_LENGTH) and False:\n",
            )
        ],
        "tests/unit/core/test_group.py",
    ),
    _more(
        "a broadcast of another key is none",
        "a member that does not look whose it is",
        [("packtrust.group", "        if shared.rx_prefix != self._prefix:", "        if False:")],
        "tests/unit/core/test_group.py",
    ),
    _more(
        "a broadcast only lowers",
        "a member that takes the newest state",
        [("packtrust_node.module", "            if state < self.max_state:\n", "            if True:\n")],
        "tests/attacks/test_group_member.py",
    ),
]


def defences() -> list[Defence]:
    """Those of the attacks, each once, and MORE."""
    found: dict[tuple[tuple[str, str, str], ...], Defence] = {}
    for item in catalogue():
        attack = item.attack
        test = "tests/attacks/" + item.file
        same = found.get(attack.weakening.patches)
        if same is not None:
            found[attack.weakening.patches] = Defence(same.name, same.removed_by, same.weakening, (*same.tests, test))
        else:
            found[attack.weakening.patches] = Defence(attack.defence, attack.without, attack.weakening, (test,))
    return [*found.values(), *MORE]


class Watch:
    """A pytest plugin: the defence is out while tests run; lines that turn red."""

    def __init__(self, weakening: Weakening) -> None:
        self.red: list[str] = []
        self.ran = 0
        self._weakening = weakening
        self._stack = contextlib.ExitStack()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Everything is imported, nothing has run."""
        self._stack.enter_context(self._weakening.applied())

    def pytest_sessionfinish(self) -> None:
        """Back to the product."""
        self._stack.close()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test that fails, not one whose set-up does."""
        if report.when == "call":
            self.ran += 1
            if report.failed:
                self.red.append(report.nodeid.rsplit("/", 1)[-1])


def take_out(number: int, everything: bool) -> tuple[int, list[str], int, str]:
    """(number, red lines, tests that ran, problem) of one defence; in a process of its own."""
    defence = defences()[number]
    try:
        defence.weakening.sources()
    except WeakeningError as error:
        return number, [], 0, str(error)
    watch = Watch(defence.weakening)
    missing = [name for name in defence.tests if not (CHECKOUT / name).exists()]
    if missing:
        return number, [], 0, "there is no %s: adapt this list" % ", ".join(missing)
    tests = defence.tests
    options = [
        "-q",
        "--no-header",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        "-k",
        "not control and not catalogue",
    ]
    options += [] if everything else ["--maxfail=1"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        pytest.main([*tests, *options, "--timeout=%d" % TIMEOUT_S], plugins=[watch])
    problem = "" if watch.ran else "no test ran: " + said.getvalue()[-400:]
    return number, watch.red, watch.ran, problem


def main(arguments: list[str]) -> int:
    """Take out what is asked for, print the table, judge."""
    everything = "--all" in arguments
    words = [word.lower() for word in arguments if not word.startswith("-")]
    os.chdir(CHECKOUT)
    listed = defences()
    wanted = [
        number
        for number, item in enumerate(listed)
        if not words or any(word in (item.name + " " + item.removed_by).lower() for word in words)
    ]
    began = time.monotonic()
    results: dict[int, tuple[list[str], int, str]] = {}
    context = multiprocessing.get_context("fork")
    with context.Pool(int(os.environ.get("WORKERS", "2")), maxtasksperchild=1) as pool:
        jobs = [pool.apply_async(take_out, (number, everything)) for number in wanted]
        for done, job in enumerate(jobs, 1):
            number, red, ran, problem = job.get()
            results[number] = (red, ran, problem)
            print("[%d/%d] %s" % (done, len(jobs), listed[number].name), file=sys.stderr, flush=True)
    unseen = 0
    for number in wanted:
        item = listed[number]
        red, ran, problem = results[number]
        print("\n%s\n    removed: %s" % (item.name, item.removed_by))
        if problem:
            print("    PROBLEM: %s" % problem)
        elif not red:
            print("    UNSEEN: %d tests ran, none turned red" % ran)
        for line in red:
            print("    red: %s" % line)
        unseen += not red
    print(
        "\n%d defences taken out in turn: %d seen, %d unseen; %.0f s"
        % (len(wanted), len(wanted) - unseen, unseen, time.monotonic() - began)
    )
    return 1 if unseen or not wanted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
