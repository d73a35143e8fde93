"""Two real `Channel`s in one epoch, and a network that is the adversary's: handshake, session, window, sent times."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

from model import cheap
from model.environment import Entropy, World
from model.explorer import Violation
from model.state import Copier, Shared
from packtrust.arbitration import ENCRYPTED, base_of, stream_of
from packtrust.channel import ESTABLISHED, MODULE_LINK, OPENED, REFUSED, Channel, Link
from packtrust.handshake import HELLO, INITIATOR, REPLY, RESPONDER
from packtrust.keys import Relationship
from packtrust.messages.bases import ROTATION_FROM_MODULE, ROTATION_TO_MODULE
from packtrust.policy import DEFAULT_POLICY, Policy
from packtrust.replay import CITATION_MAX_AGE_MS
from packtrust.segmentation import cut
from packtrust.workspace import Terms, Workspace

A, B = 0, 1  # initiator, responder
NAMES = ("initiator", "responder")
NODE = 5
TELEMETRY = 0x502 << 18 | NODE
COMMAND = 0x514 << 18 | NODE
TO_B = MODULE_LINK.handshake[0] << 18 | NODE
TO_A = MODULE_LINK.handshake[1] << 18 | NODE
HANDSHAKE = (TO_B, TO_A)
SECRET = bytes(range(32))

RETRY_MS = 1100
HOLD_MS = 4300  # longer than a citation may be old
RETRY_MAX_MS = 36000  # the longest pause of a round, and some more

# What decides nothing: statistics. `_counts` stays, for the round of a handshake is in it.
SKIP = frozenset(("refused", "_refused", "_shared", "_partial_of"))
SHARED = (Workspace, Terms, Policy, Link, Relationship)

Message = tuple[int, bytes]  # canonical ID and payload


class State:
    """One state. `nodes` and `net` are never changed in place; the rest says what has happened (ghosts)."""

    __slots__ = (
        "accepted", "budget", "boots", "commands", "derived", "drawn", "frozen", "net", "newest", "nodes", "now_ms",
        "used",
    )  # fmt: skip

    def __init__(self) -> None:
        self.nodes: tuple[Any, Any] = (None, None)
        self.frozen: tuple[Any, Any] = (None, None)
        self.drawn = (0, 0)
        self.boots = (1, 1)
        self.now_ms = 100000
        self.net: frozenset[Message] = frozenset()  # everything the adversary has
        self.budget: tuple[int, ...] = ()
        self.used: frozenset[tuple[bytes, bytes]] = frozenset()  # (key, IV) of every record sealed
        self.accepted: frozenset[tuple[int, bytes]] = frozenset()  # (side, record) of every record opened
        self.commands: tuple[tuple[bytes, int], ...] = ()  # record and time of every command, as sealed
        self.newest = -1  # number of the newest command obeyed
        self.derived: tuple[frozenset[bytes], frozenset[bytes]] = (frozenset(), frozenset())  # session keys a side made

    def with_(self, **changes: Any) -> State:
        made = State()
        for name in self.__slots__:
            setattr(made, name, changes[name] if name in changes else getattr(self, name))
        return made


# In `State.budget`: how often what the adversary cannot choose freely may still happen.
CONNECT, TICK, TELL, ORDER, REBOOT, FORGE = range(6)
BUDGET = (2, 2, 2, 2, 1, 1)


class Sessions(Shared):
    """See `explorer.Model`.

    budget   of connects, ticks, telemetry records, commands, reboots, forged messages
    faulty   "rng": the random numbers of a node begin anew when it boots
    """

    name = "sessions"

    def __init__(self, budget: tuple[int, ...] = BUDGET, faulty: str = "") -> None:
        self.world = World()
        self.entropy = (Entropy("a"), Entropy("b"))
        self.spaces = (Workspace(2, 8), Workspace(2, 8))
        self.copier = Copier(SHARED, SKIP)
        for space in self.spaces:
            self.copier.keep(space.reassembler.partials)
        self.live = 0
        self._budget = budget
        self._faulty = faulty
        self._alive: set[Hashable] = set()
        self._derived: list[bytes] = []
        self._outcomes: dict[Hashable, tuple[Any, ...]] = {}

    # -- nodes -------------------------------------------------------------------------------------------------------

    def _boot(self, side: int, boots: int) -> Channel:
        names = ("a", "b")
        return Channel(
            SECRET,
            (INITIATOR, RESPONDER)[side],
            NODE,
            clock=self.world.clock,
            urandom=self.entropy[side],
            local=names[side],
            peer=names[1 - side],
            policy=DEFAULT_POLICY,
            boot_counter=boots,
            key_log=self._log_keys,
            workspace=self.spaces[side],
        )

    def _log_keys(self, direction: int, key: bytes, iv_base: bytes, sender: bytes) -> None:
        if direction == 0:
            self._derived.append(key + iv_base)

    def fresh(self) -> State:
        """Both have booted; nothing was said."""
        state = State()
        state.budget = self._budget
        state.nodes = (self._boot(A, 1), self._boot(B, 1))
        state.frozen = tuple(hash(self.copier.freeze(node)) for node in state.nodes)  # type: ignore[assignment]
        return state

    def step(
        self, state: State, side: int, what: Hashable, act: Callable[[Channel], list[Any] | None], **changes: Any
    ) -> tuple[State, list[Any]]:
        """`act` on a copy of one side's node; what it says is the adversary's. The state, and what `act` returned.

        What comes of it depends on the node, its entropy, the clock and `what` alone, so it is done once.
        """
        now_ms = changes.get("now_ms", state.now_ms)
        name = (side, state.frozen[side], state.boots[side], state.drawn[side], now_ms, what)
        outcome = self._outcomes.get(name)
        if outcome is None:
            self.world.now_ms = now_ms
            self.entropy[side].drawn = state.drawn[side]
            self._derived.clear()
            cheap.sealed.clear()
            self.spaces[side].reassembler.partials.clear()
            node = self.copier.copy(state.nodes[side])
            returned = act(node) or []
            said = _messages(node.outgoing())
            put_away(self.channel(node))
            seals = [(key, iv) for key, iv, _ in cheap.sealed]
            frozen = hash(self.copier.freeze(node))
            if frozen == state.frozen[side]:
                node = state.nodes[side]
            outcome = (node, frozen, self.entropy[side].drawn, said, seals, frozenset(self._derived), returned)
            self._outcomes[name] = outcome
        node, frozen, drawn, said, seals, made, returned = outcome
        for seal in seals:
            if seal in changes.setdefault("used", state.used):
                raise Violation("nonce repeated: the %s seals two records under one key with one IV" % NAMES[side])
            changes["used"] = changes["used"] | {seal}
        if said:
            changes["net"] = changes.get("net", state.net) | said
        if made:
            changes["derived"] = _put(state.derived, side, state.derived[side] | made)
        changes["nodes"] = _put(state.nodes, side, node)
        changes["frozen"] = _put(state.frozen, side, frozen)
        changes["drawn"] = _put(state.drawn, side, drawn)
        return state.with_(**changes), returned

    # -- actions -----------------------------------------------------------------------------------------------------

    def roots(self) -> Iterator[tuple[str, State]]:
        state = self.fresh()
        yield "both boot", state
        state = self._converse(state)
        yield "both boot, shake hands, and records go both ways", state
        yield "both are in session; the responder reboots", self._reboot(state, B)
        yield "both are in session; the initiator reboots", self._reboot(state, A)
        yield "both are in session; five seconds pass", self._tick(state, HOLD_MS + 700)

    def _converse(self, state: State) -> State:
        """From `state` to a session in which a record went each way, over a network that does what it should."""
        new: list[Message] = []
        for name in ("connect", "to B", "to A", "to B", "tell", "to A", "order", "to B"):
            budget = state.budget
            before = state.net
            if name == "connect":
                before = frozenset()
                if not self.channel(state.nodes[A]).connecting:
                    state = self._connect(state)
            elif name == "tell":
                state = self._seal(state, B, TELEMETRY)
            elif name == "order":
                state = self._seal(state, A, COMMAND)
            else:
                for message in new:
                    state = self._deliver(state, message, B if name == "to B" else A)
            new = sorted(state.net - before)
            state = state.with_(budget=budget)
        return state

    def actions(self, state: State) -> Iterator[tuple[str, Callable[[], State | None]]]:
        budget = state.budget
        if budget[CONNECT]:
            yield "the initiator connects", lambda: self._connect(state, _spend(budget, CONNECT))
        if budget[TICK]:
            for ms in (RETRY_MS, HOLD_MS):
                yield "%d ms pass" % ms, lambda ms=ms: self._tick(state, ms, _spend(budget, TICK))  # type: ignore[misc]
        if budget[TELL] and self.channel(state.nodes[B]).established:
            yield "the responder sends telemetry", lambda: self._seal(state, B, TELEMETRY, _spend(budget, TELL))
        if budget[ORDER] and self.channel(state.nodes[A]).established:
            yield "the initiator sends a command", lambda: self._seal(state, A, COMMAND, _spend(budget, ORDER))
        if budget[REBOOT]:
            for side in (A, B):
                yield (
                    "the %s reboots" % NAMES[side],
                    lambda side=side: self._reboot(state, side, _spend(budget, REBOOT)),  # type: ignore[misc]
                )
        for message in sorted(state.net):
            for side in (B, A):
                yield (
                    "%s arrives at the %s" % (describe(message, state), NAMES[side]),
                    lambda message=message, side=side: self._deliver(state, message, side),  # type: ignore[misc]
                )
        if budget[FORGE]:
            for name, message, side in self._forged(state):
                yield (
                    "%s arrives at the %s" % (name, NAMES[side]),
                    lambda message=message, side=side: self._forge(state, message, side),  # type: ignore[misc]
                )

    def _connect(self, state: State, budget: tuple[int, ...] | None = None) -> State:
        return self.step(state, A, "connect", lambda node: self.channel(node).connect(), budget=budget or state.budget)[
            0
        ]

    def _tick(self, state: State, ms: int, budget: tuple[int, ...] | None = None) -> State:
        budget = budget or state.budget
        state, _ = self.step(state, A, "tick", lambda node: node.tick(), now_ms=state.now_ms + ms, budget=budget)
        return self.step(state, B, "tick", lambda node: node.tick())[0]

    def _seal(self, state: State, side: int, arbitration_id: int, budget: tuple[int, ...] | None = None) -> State:
        number = len(state.commands)

        def seal(node: Channel) -> list[Any]:
            return [_messages([frame.copy() for frame in self.channel(node).seal(arbitration_id, bytes((number,)))])]

        made, returned = self.step(state, side, (arbitration_id, number), seal, budget=budget or state.budget)
        sent = returned[0]
        made.net = made.net | sent
        if arbitration_id == COMMAND:
            made.commands = (*made.commands, *((record, state.now_ms) for _, record in sent))
        return made

    def _reboot(self, state: State, side: int, budget: tuple[int, ...] | None = None) -> State:
        boots = _put(state.boots, side, state.boots[side] + 1)
        self.world.now_ms = state.now_ms
        self.entropy[side].drawn = state.drawn[side]
        node = self._boot(side, boots[side])
        drawn = state.drawn if self._faulty != "rng" else _put(state.drawn, side, 0)
        made = state.with_(boots=boots, nodes=_put(state.nodes, side, node), budget=budget or state.budget, drawn=drawn)
        made.frozen = _put(state.frozen, side, hash(self.copier.freeze(node)))
        return made

    def _forged(self, state: State) -> Iterator[tuple[str, Message, int]]:
        """What anybody can make: a HELLO of his own, proofs out of nothing, records with a counter he likes better."""
        epoch = bytes(4)
        yield "a forged HELLO", (TO_B, bytes((HELLO, 1, INITIATOR)) + epoch + bytes(20)), B
        yield "a forged REPLY", (TO_A, bytes((REPLY,)) + epoch + bytes(52)), A
        yield "a forged FINISH", (TO_B, bytes((3,)) + epoch + bytes(32)), B
        for arbitration_id, payload in sorted(state.net):
            if arbitration_id in HANDSHAKE:
                continue
            side = A if arbitration_id == TELEMETRY | ENCRYPTED else B
            ahead = payload[:4] + (1 << 40).to_bytes(8, "big") + payload[12:]
            yield "a record with the counter changed to 2^40", (arbitration_id, ahead), side
            yield "a record with its last bit flipped", (arbitration_id, payload[:-1] + bytes((payload[-1] ^ 1,))), side

    def _forge(self, state: State, message: Message, side: int) -> State | None:
        before = self._sessions(state.nodes[side])
        made = self._deliver(state, message, side, _spend(state.budget, FORGE))
        if self._sessions(made.nodes[side]) != before:
            raise Violation("a forged message changed the live session of the %s" % NAMES[side])
        return made

    def _sessions(self, node: Channel) -> Any:
        """What nobody without the keys may touch: the session that is used, and the one before it."""
        channel = self.channel(node)
        return self.copier.freeze((channel._session, channel._previous))

    def channel(self, node: Any) -> Channel:
        """The channel of a side's node: here it is that."""
        found: Channel = node
        return found

    def _deliver(self, state: State, message: Message, side: int, budget: tuple[int, ...] | None = None) -> State:
        arbitration_id, payload = message
        if arbitration_id in HANDSHAKE:
            arbitration_id = HANDSHAKE[1 - side]  # the adversary gives it the row of whom it goes to: reflection

        def feed(node: Any) -> list[Any]:
            return self.feed(node, cut(arbitration_id, payload))

        made, events = self.step(state, side, (arbitration_id, payload), feed, budget=budget or state.budget)
        if made.nodes[side] is state.nodes[side] and not any(event.kind == OPENED for event in events):
            return made  # refused, and nothing has changed but what it was counted under
        for event in events:
            if event.kind == OPENED:
                self._on_opened(made, side, payload)
            elif event.kind == ESTABLISHED:
                self._on_established(made, side)
            elif event.reason not in ("stale", "short") and self._sessions(made.nodes[side]) != self._sessions(
                state.nodes[side]
            ):
                raise Violation("a refused message (%s) changed the %s's live session" % (event.reason, NAMES[side]))
        if not events and self._sessions(made.nodes[side]) != self._sessions(state.nodes[side]):
            raise Violation("a message that proves nothing changed the %s's live session" % NAMES[side])
        # A record may be what establishes: its event is OPENED then.
        session = self.channel(made.nodes[side])._session
        before = self.channel(state.nodes[side])._session
        if session is not None and (before is None or bytes(session.state[:72]) != bytes(before.state[:72])):
            self._on_established(made, side)
        return made

    def feed(self, node: Any, frames: list[Any]) -> list[Any]:
        """Give a node frames; copies of what its channel found out."""
        events = [node.feed(frame) for frame in frames]
        return [event.copy() for event in events if event is not None]

    def _on_opened(self, state: State, side: int, payload: bytes) -> None:
        if (side, payload) in state.accepted:
            raise Violation("accepted twice: the %s opens a record it has opened before" % NAMES[side])
        state.accepted = state.accepted | {(side, payload)}
        for number, (record, sealed_ms) in enumerate(state.commands):
            if record == payload and side == B:
                if state.now_ms - sealed_ms > CITATION_MAX_AGE_MS:
                    raise Violation("a command %d ms old is obeyed" % (state.now_ms - sealed_ms))
                if number <= state.newest:
                    raise Violation("an older command is obeyed after a newer one")
                state.newest = number

    def _on_established(self, state: State, side: int) -> None:
        """Agreement: who takes a session into use shares it with the other end, which made the same keys for it."""
        session = self.channel(state.nodes[side])._session
        material = bytes(b"" if session is None else session.state)
        name = material[:32] + material[64:68] if side == A else material[32:64] + material[68:72]
        if name not in state.derived[1 - side]:
            raise Violation("the %s is in session with nobody: the other end has no such keys" % NAMES[side])

    # -- states ------------------------------------------------------------------------------------------------------

    def key(self, state: State) -> Hashable:
        return hash(
            (
                state.frozen,
                state.boots,
                state.drawn,
                state.now_ms,
                state.net,
                state.budget,
                state.accepted,
                state.newest,
            )
        )

    def check(self, state: State) -> None:
        """Liveness: with a network that does what it should, and owners that do what the page says, records flow again.

        It depends on the two nodes and the clock alone: each such pair is looked at once.
        """
        key = hash((state.frozen, state.boots, state.now_ms))
        if key in self._alive:
            return
        self._alive.add(key)
        self.live += 1
        if not self.recovers(state):
            raise Violation("stuck: no record is opened within two minutes over a faithful network")

    def recovers(self, state: State) -> bool:
        """Run on: every message arrives, each side says something each second. The initiator's owner connects again
        when no session was made or nothing was opened for five seconds and no round goes on (docs/wire.md, 6)."""
        nodes = [self.copier.copy(node) for node in state.nodes]
        now_ms = state.now_ms
        for side in (A, B):
            self.entropy[side].drawn = state.drawn[side] + 1000
            self.spaces[side].reassembler.partials.clear()
            del self.spaces[side]._ready[:]
        heard = [0, 0]
        heard_ms = now_ms
        self.world.now_ms = now_ms
        for _ in range(120):
            for side in (A, B):
                nodes[side].tick()
            if not nodes[A].connecting and (not nodes[A].established or now_ms - heard_ms > 5000):
                nodes[A].connect()
                heard_ms = now_ms
            for _ in range(3):
                for side in (A, B):
                    for frame in nodes[side].outgoing():
                        nodes[1 - side].feed(frame)
            for side, arbitration_id in ((B, TELEMETRY), (A, COMMAND)):
                if nodes[side].established:
                    for frame in nodes[side].seal(arbitration_id, b"!"):
                        event = nodes[1 - side].feed(frame)
                        if event is not None and event.kind == OPENED:
                            heard[1 - side] += 1
                            if side == B:
                                heard_ms = now_ms
            if heard[A] and heard[B]:
                return True
            now_ms += 1000
            self.world.now_ms = now_ms
        return False


def put_away(node: Channel) -> None:
    """Every session is its bytes alone, as in a gateway that has no ready keys for it: one form of each state."""
    for session in (node._session, node._pending, node._previous):
        if session is not None:
            session.leave()
    del node._shared._ready[:]


def _put(pair: tuple[Any, Any], side: int, value: Any) -> tuple[Any, Any]:
    return (value, pair[1]) if side == A else (pair[0], value)


def _spend(budget: tuple[int, ...], what: int) -> tuple[int, ...]:
    return (*budget[:what], budget[what] - 1, *budget[what + 1 :])


def _messages(frames: list[Any]) -> frozenset[Message]:
    """Frames as whole messages: the chunks of one are carried together (reassembly is proved elsewhere)."""
    found = []
    for frame in frames:
        if not frame.arbitration_id >> 12 & 15:
            found.append((stream_of(frame.arbitration_id), bytearray()))
        found[-1][1].extend(frame.data)
    return frozenset((name, bytes(payload)) for name, payload in found)


_HANDSHAKE_NAMES = {1: "HELLO", 2: "REPLY", 3: "FINISH", 0x11: "OFFER", 0x12: "ANSWER", 0x13: "CONFIRM", 0x14: "AGREED"}


_RECORD_NAMES = {
    TELEMETRY >> 18: "telemetry",
    COMMAND >> 18: "command",
    ROTATION_TO_MODULE: "rotation message",
    ROTATION_FROM_MODULE: "rotation message",
}


def describe(message: Message, state: State) -> str:
    """A message as a trace names it."""
    arbitration_id, payload = message
    if arbitration_id in HANDSHAKE:
        same = sorted(item for item in state.net if item[0] == arbitration_id and item[1][0] == payload[0])
        return "%s %d" % (_HANDSHAKE_NAMES[payload[0]], same.index(message) + 1)
    counter = int.from_bytes(payload[4:12], "big")
    kind = _RECORD_NAMES.get(base_of(arbitration_id), "record")
    return "%s %d of session %s" % (kind, counter, payload[:2].hex())


__all__ = ["REFUSED", "Sessions", "State"]
