"""The model checker: properties hold, planted faults are found, and its stand-ins behave as the real ones."""

import random
from typing import Any

import pytest

from model import cheap, run
from model.explorer import Result
from model.planted import FAULTS, Fault
from model.rotations import Half
from model.sessions import COMMAND, NODE, SECRET, TELEMETRY, Sessions
from model.state import Copier
from packtrust.channel import Channel
from packtrust.handshake import INITIATOR, RESPONDER
from weakening import Weakening

SEARCHES = {item.name: item for item in run.SEARCHES}


@pytest.mark.parametrize("name", SEARCHES)
def test_properties_hold(name: str) -> None:
    result = run.search(SEARCHES[name], quick=True)
    assert not result.violation, "\n".join([result.violation, *result.trace])
    assert result.complete and result.depth == SEARCHES[name].quick
    # It went somewhere: a model in which nothing can happen has no violations either.
    assert result.states > 300 and result.live > 200 and result.levels[-1] > result.levels[0]


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_planted_fault_is_found(fault: Fault) -> None:
    result = run.find(fault)
    assert run.is_found(fault, result), (result.violation, result.states)
    assert len(result.trace) - 1 <= fault.depth


def test_without_the_fault_the_same_search_finds_nothing() -> None:
    for fault in FAULTS:
        if fault.depth <= 2 and fault.weakening is not None:
            harmless = Fault(fault.name, None, fault.model, fault.depth, fault.found_as)
            result = run.find(harmless)
            assert result.complete and not result.violation, (fault.name, result.violation)


# -- what the model rests on -----------------------------------------------------------------------------------------


class Bytes:
    """Reproducible bytes."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def __call__(self, count: int) -> bytes:
        return self._random.randbytes(count)


def walk(seed: int, steps: int = 250) -> list[Any]:
    """What two channels do in a random conversation: which messages are sent, what each end says of what arrives."""
    dice = random.Random(seed)
    clock = [100000]
    entropy = (Bytes("a%d" % seed), Bytes("b%d" % seed))

    def boot(side: int, boots: int) -> Channel:
        role = (INITIATOR, RESPONDER)[side]
        local, peer = (("a", "b"), ("b", "a"))[side]
        return Channel(SECRET, role, NODE, lambda: clock[0], entropy[side], local, peer, boot_counter=boots)

    ends = [boot(0, 1), boot(1, 1)]
    sent: list[list[Any]] = []
    told: list[Any] = []

    def take(frames: list[Any]) -> None:
        message: list[Any] = []
        for frame in frames:
            if not frame.arbitration_id & 0xF000 and message:
                sent.append(message)
                message = []
            message.append(frame.copy())
        if message:
            sent.append(message)

    for step in range(steps):
        side = dice.randrange(2)
        choice = dice.random()
        if choice < 0.08:
            ends[0].connect()
        elif choice < 0.16:
            clock[0] += dice.choice((50, 1100, 4300))
            for end in ends:
                end.tick()
        elif choice < 0.3 and ends[side].established:
            take(ends[side].seal((COMMAND, TELEMETRY)[side], b"%d" % (step % 10)))
        elif choice < 0.32:
            ends[side] = boot(side, step)
        elif sent:
            message = dice.choice(sent[-6:]) if dice.random() < 0.8 else dice.choice(sent)
            flip = dice.random() < 0.05
            for frame in message:
                frame = frame.copy()
                if flip and frame.arbitration_id >> 12 & 15 == frame.arbitration_id >> 8 & 15:
                    frame.data = bytes([frame.data[0] ^ 4]) + bytes(frame.data[1:])
                event = ends[side].feed(frame)
                if event is not None:
                    told.append((step, side, event.kind, event.reason, event.counter, event.epoch, bytes(event.data)))
        for end in ends:
            take(end.outgoing())
        told.append((len(sent), [end.established for end in ends], [end.connecting for end in ends]))
    told.append([end.stats for end in ends])
    return told


def test_the_cheap_primitives_lead_where_the_real_ones_lead() -> None:
    kinds = set()
    for seed in range(12):
        real = walk(seed)
        with cheap.primitives():
            stand_in = walk(seed)
        assert stand_in == real, seed
        kinds |= {item[2:4] for item in real if isinstance(item, tuple) and len(item) == 7}
    reasons = {reason for _, reason in kinds}
    assert {"", "stale", "replay", "unknown-session", "handshake-mac", "handshake-rate", "tag"} <= reasons, reasons
    assert {"opened", "established", "refused"} == {kind for kind, _ in kinds}


def test_the_cheap_primitives_are_gone_afterwards() -> None:
    from packtrust import handshake, session
    from packtrust.crypto import AESGCM, hmac_sha256

    with cheap.primitives():
        assert session.AESGCM is cheap.AESGCM and handshake.hmac_sha256 is cheap.hmac_sha256
    assert session.AESGCM is AESGCM and handshake.hmac_sha256 is hmac_sha256


def test_a_copy_shares_nothing_that_changes() -> None:
    copier = Copier((), frozenset(("ignored",)))

    class Thing:
        def __init__(self) -> None:
            self.key = bytearray(b"key")
            self.again = self.key
            self.items = {1: [bytearray(b"x")], 2: (3, bytearray(b"y"))}
            self.method = self.name
            self.ignored = 0

        def name(self) -> "Thing":
            return self

    thing = Thing()
    made = copier.copy(thing)
    assert copier.freeze(made) == copier.freeze(thing)
    assert made.again is made.key and made.key is not thing.key and made.method() is made
    made.ignored = 5
    assert copier.freeze(made) == copier.freeze(thing)
    for change in (
        lambda: made.key.append(1),
        lambda: made.items[1][0].append(1),
        lambda: made.items[2][1].append(1),
    ):
        before = copier.freeze(thing)
        change()
        assert copier.freeze(thing) == before != copier.freeze(made)


def test_a_step_changes_no_state_but_its_own() -> None:
    """Every state of a small search is, at its end, still what it was when it was reached."""
    with cheap.primitives():
        model = Sessions()
        states = [state for _, state in model.roots()]
        for state in list(states):
            states += [made for made in (act() for _, act in model.actions(state)) if made is not None]
        for state in states:
            assert tuple(hash(model.copier.freeze(node)) for node in state.nodes) == state.frozen


def test_the_nodes_of_the_model_are_nodes() -> None:
    """`Half` replaces the job, the audit log and the count of use; sessions, store and endpoint are the node's."""
    from packtrust_node.node import Node

    own = {name for name in vars(Half) if not name.startswith("__")}
    assert not own & {"observe", "install", "forget", "on_frame", "start", "_load_relations", "_write_relation"}
    assert issubclass(Half, Node)


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_has_searched(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--quick", "--only", "window moves"]) == 0
    said = capsys.readouterr().out
    assert "found: the window moves before the tag" in said and "1 of 1 planted faults found" in said
    assert run.main(["--quick", "--only", "sessions, wide"]) == 0
    said = capsys.readouterr().out
    assert "2 connects, 2 ticks" in said and "all properties hold within these bounds" in said


def test_the_command_fails_where_a_fault_is_not_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "FAULTS", (Fault("none at all", None, Sessions, 1, "nonce"),))
    assert run.main(["--only", "none at all"]) == 1
    assert "NOT FOUND: none at all" in capsys.readouterr().out


def test_the_command_fails_with_the_trace_where_a_property_does_not_hold(capsys: pytest.CaptureFixture[str]) -> None:
    with Weakening(
        ("packtrust.channel", "            if not rx.session.is_fresh(cited, now_ms):", "            if False:")
    ).applied():
        assert run.main(["--quick", "--only", "sessions, wide"]) == 1
    said = capsys.readouterr().out
    assert "VIOLATED" in said and "4300 ms pass" in said and said.rstrip().endswith("FAILED")


def test_a_trace_is_as_short_as_can_be() -> None:
    fault = next(fault for fault in FAULTS if fault.found_as == "older command")
    result: Result = run.find(fault)
    assert len(result.trace) == 5  # where it begins, two commands sealed, two delivered
