"""Two real nodes with endpoint, store and channel, a new epoch between them, and a network that is the adversary's.

The node's job is left out (cells, polls, broadcasts): `Half` is packtrust_node.node.Node with one neighbour. In
"alone" the pack makes the epoch with its module; in "app" the owner's packages bring it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from model import cheap
from model.explorer import Violation
from model.sessions import (
    COMMAND,
    NAMES,
    NODE,
    TELEMETRY,
    TICK,
    A,
    B,
    Sessions,
    State,
    _messages,
    _put,
    _spend,
    put_away,
)
from model.state import Copier, Shared
from packtrust import package, provision
from packtrust.channel import MODULE_LINK, OPENED, Channel, Link
from packtrust.crypto import sha256
from packtrust.handshake import INITIATOR, RESPONDER
from packtrust.keys import SIDE_A, SIDE_B, Relationship, lct_tag
from packtrust.policy import Policy
from packtrust.segmentation import cut
from packtrust.workspace import Terms, Workspace
from packtrust_node import identity as identities
from packtrust_node import rotation
from packtrust_node.neighbour import Bus, Neighbour
from packtrust_node.node import Node
from packtrust_node.relation import Relation
from packtrust_node.store import MemorySlots, Store

LCT = "lct-1"
TAG = lct_tag(LCT)
ROOT = bytes(range(32))

SKIP = frozenset(("refused", "_refused", "_shared", "_partial_of", "counters", "written", "workspace", "sent"))
SHARED = (Workspace, Terms, Policy, Link, Relationship)
PACK_NODE = 0x40

ROTATE, ABORT = 6, 7
BUDGET = (1, 1, 1, 1, 1, 0, 0, 0)
APP_BUDGET = (0, 1, 0, 0, 1, 0, 0, 1)
WAIT_MS = 12000  # longer than a rotation waits
# In the place of an arbitration ID: messages of the app to a side, and what a side answers.
FROM_APP = (1, 2)
TO_APP = (3, 4)
STEPS = {provision.PACKAGE: "PACKAGE", provision.PAIR: "PAIR", provision.COMMIT: "COMMIT", provision.ABORT: "ABORT"}


class Endless(Shared):
    """In the place of usage.Usage: no epoch is ever used up, the model says when one is replaced."""

    def begin(self, relation: Any) -> None:
        """Nothing is counted."""

    def used(self, relation: Any, eighths: int) -> bool:
        return False

    def tick(self, now_ms: int) -> bool:
        return False


class Quiet(Shared):
    """In the place of guard.Guard: the audit log is no part of this model."""

    score = 0
    signs = 0
    entries = 0

    def start(self) -> None:
        """Nothing to load."""

    def tick(self, now_ms: int) -> None:
        """Nothing to do."""


class Env:
    """packtrust_node.env.Env of a state: what it sends is kept until the step is over."""

    def __init__(self, model: Any, side: int, slots: MemorySlots) -> None:
        entropy = model.entropy[side]
        self.key_log = model._log_keys
        self.now_ms = model.world.clock
        self.urandom = entropy
        self.workspace = model.spaces[side]
        self.slots = slots
        self.store = Store(slots, entropy, 1)
        self.sent: list[Any] = []

    def send(self, port: int, frame: Any) -> None:
        self.sent.append(frame.copy())

    def send_record(self, port: int, frames: Any) -> None:
        for frame in frames:
            self.send(port, frame)

    def room(self, port: int) -> int:
        return 128

    def fd(self, port: int) -> bool:
        return False

    def mix(self, boot_counter: int) -> None:
        """The model's entropy does not repeat."""

    def log(self, text: str) -> None:
        """Nobody reads it."""


class Half(Node):
    """A node with one neighbour, on one bus. The pack's half has besides the place of the app, which is away."""

    def __init__(self, env: Env, side: int) -> None:
        Node.__init__(self, env, {"unique_id": side + 1})
        self.device_role = (provision.ROLE_PACK, provision.ROLE_MODULE)[side]
        self.own_node = (PACK_NODE, NODE)[side]
        self.peer = Neighbour(Bus(env, 0, (INITIATOR, RESPONDER)[side], MODULE_LINK), NODE)
        self.app = Neighbour(Bus(env, 1, RESPONDER, MODULE_LINK), PACK_NODE)
        self.replies: list[bytes] = []
        self.endpoint.usage = Endless()
        self.guard = Quiet()

    def on_start(self) -> None:
        for relation in list(self.relations.values()):
            self.install(relation)

    def note(self, *event: Any, **more: Any) -> None:
        """The audit log is no part of this model."""

    def neighbour(self, node: int) -> Neighbour | None:
        return self.peer if node == NODE else self.app

    def refusal_of(self, content: Any) -> int:
        return 0

    def reply(self, payload: Any) -> None:
        self.replies.append(bytes(payload))

    def keyed(self, neighbour: Neighbour) -> None:
        assert neighbour.channel is not None
        neighbour.channel._terms.key_log = self.env.key_log
        if neighbour.role == INITIATOR:
            neighbour.connect()

    def take_frame(self, port: int, frame: Any) -> None:
        pairing = self.peer.pairing(frame)
        if pairing is not None:
            self.endpoint.on_pairing(self.peer, pairing)
        event = self.peer.feed(frame)
        if event is not None:
            self.events.append(event.copy())
            self.observe(self.peer, event)

    def tick(self) -> int:
        self.peer.tick()
        self.work()
        return 50

    def work(self) -> None:
        """All that is to be computed now: a rotation takes its steps one a tick."""
        for _ in range(4):
            self.endpoint.tick(self.env.now_ms())

    events: list[Any] = []

    def outgoing(self) -> list[Any]:
        self.peer.flush()
        said, self.env.sent = self.env.sent, []
        return said


class Rotations(Sessions):
    """See `explorer.Model`. `kind` is "alone" or "app"; `hasty`: the app commits the initiator first."""

    def __init__(self, kind: str = "alone", budget: tuple[int, ...] = BUDGET, hasty: bool = False) -> None:
        Sessions.__init__(self, budget)
        self.name = "rotation, %s" % kind
        self._kind = kind
        self._hasty = hasty
        self.copier = Copier(SHARED, SKIP)
        for space in self.spaces:
            self.copier.keep(space.reassembler.partials)
        self._private = (bytearray(sha256(b"a")), bytearray(sha256(b"b")))
        self._owner = bytearray(sha256(b"owner"))
        self._sealed: dict[tuple[int, int], tuple[bytes, bytes, bytearray]] = {}

    # -- nodes -------------------------------------------------------------------------------------------------------

    def channel(self, node: Half) -> Channel:
        found = node.peer.channel
        assert found is not None
        return found

    def _half(self, side: int, slots: MemorySlots) -> Half:
        self.spaces[side].reassembler.partials.clear()
        node = Half(Env(self, side, slots), side)
        node.start()
        self._sound(node, side)
        return node

    def _sound(self, node: Half, side: int) -> None:
        if node.counters["internal"]:
            raise Violation("the %s met an error of its own: %s" % (NAMES[side], sorted(node.counters)))

    def fresh(self) -> State:
        """Both are owned, have the keys of epoch 1, and have just booted."""
        state = State()
        state.budget = self._budget
        publics = [bytes(cheap.x25519_public(private)) for private in self._private]
        nodes = []
        drawn = []
        for side in (A, B):
            self.world.now_ms = state.now_ms
            self.entropy[side].drawn = 0
            slots = MemorySlots()
            made = Half(Env(self, side, slots), side)
            owner = bytes(cheap.x25519_public(self._owner))
            identity = identities.Identity(bytearray(self._private[side]), publics[side], b"", owner, 1)
            made.write_identity(identity)
            made._write_relation(self._relation(side, publics[1 - side]))
            nodes.append(self._half(side, slots))
            drawn.append(self.entropy[side].drawn)
        said = frozenset(message for node in nodes for message in self.said(node))
        for node in nodes:
            put_away(self.channel(node))
        state.net = said
        state.drawn = (drawn[0], drawn[1])
        state.nodes = (nodes[0], nodes[1])
        state.frozen = tuple(hash(self.copier.freeze(node)) for node in nodes)  # type: ignore[assignment]
        return state

    def said(self, node: Half) -> frozenset[Any]:
        return _messages(node.outgoing())

    def _relation(self, side: int, peer: bytes) -> Relation:
        role = (INITIATOR, RESPONDER)[side]
        mine = (SIDE_A, SIDE_B)[side]
        return Relation(1, 1, role, mine, NODE, 0, 1 << 20, 1 << 20, 0, ROOT, peer, LCT, "A", "B")

    def feed(self, node: Half, frames: list[Any]) -> list[Any]:
        events: list[Any] = []
        node.events = events
        for frame in frames:
            node.on_frame(0, frame)
        node.work()
        del node.events
        return events

    def step(self, state: State, side: int, what: Any, act: Callable[[Any], Any], **changes: Any) -> Any:
        made, returned = Sessions.step(self, state, side, what, act, **changes)
        node = made.nodes[side]
        if node is not state.nodes[side]:
            self._sound(node, side)
            self._agree(made)
            if node.replies:
                made.net = made.net | {(TO_APP[side], reply) for reply in node.replies}
                node = self.copier.copy(node)
                node.replies = []
                made.nodes = _put(made.nodes, side, node)
                made.frozen = _put(made.frozen, side, hash(self.copier.freeze(node)))
        return made, returned

    def _agree(self, state: State) -> None:
        """Roots of one epoch are one root, and the initiator has none that the responder has not."""
        first, second = [node.relations.get(NODE) for node in state.nodes]
        known = []
        for relation in (first, second):
            roots = {} if relation is None else {relation.epoch: bytes(relation.root)}
            if relation is not None and relation.previous is not None:
                roots[relation.previous[0]] = bytes(relation.previous[1])
            known.append(roots)
        for epoch in known[A]:
            if epoch in known[B] and known[A][epoch] != known[B][epoch]:
                raise Violation("the two ends have different roots for epoch %d" % epoch)

    # -- actions -----------------------------------------------------------------------------------------------------

    def roots(self) -> Iterator[tuple[str, State]]:
        state = self._converse(self.fresh())
        if self._kind == "alone":
            new, state = self._new(state, self._begin)
            yield "both are in session; the pack begins a rotation", state
            for name in ("PROPOSE", "ANSWER", "CONFIRM", "AGREED"):
                side = B if name in ("PROPOSE", "CONFIRM") else A
                new, state = self._carry(state, new, side)
                yield "the same; %s arrives" % name, state
        else:
            yield "both are in session", state
            for side in (B, A):
                state = self._deliver(state, self._package(side), side)
            yield "both are in session, and have taken their packages", state
            new, state = self._carry(state, [self._order(A, provision.PAIR)], A)
            for name in ("OFFER", "ANSWER", "CONFIRM", "AGREED"):
                new, state = self._carry(state, new, B if name in ("OFFER", "CONFIRM") else A)
            yield "the same, and both have agreed", state
            if not self._hasty:
                state = self._deliver(state, self._order(B, provision.COMMIT), B)
                yield "the same; the responder has taken its COMMIT", state

    def _new(self, state: State, act: Callable[[State], State]) -> tuple[list[Any], State]:
        made = act(state)
        return sorted(made.net - state.net), made

    def _carry(self, state: State, messages: list[Any], side: int) -> tuple[list[Any], State]:
        """Messages arrive at a side, as they should; what it says to them on the bus."""
        before = state.net
        for message in messages:
            state = self._deliver(state, message, side)
        return sorted(item for item in state.net - before if item[0] > TO_APP[1]), state

    def _begin(self, state: State) -> State:
        def act(node: Half) -> None:
            node.endpoint._rotation = rotation.begin(node, node.relations[NODE])
            node.work()

        made: State = self.step(state, A, "begin", act)[0]
        return made

    def actions(self, state: State) -> Iterator[tuple[str, Callable[[], State | None]]]:
        budget = state.budget
        for name, act in Sessions.actions(self, state.with_(net=frozenset(m for m in state.net if m[0] > TO_APP[1]))):
            yield name, lambda act=act: self._with_app(state, act)  # type: ignore[misc]
        if budget[TICK]:
            yield "%d ms pass" % WAIT_MS, lambda: self._tick(state, WAIT_MS, _spend(budget, TICK))
        if self._kind == "app":
            for side in (B, A):
                for message in self._orders(state, side):
                    spent = _spend(budget, ABORT) if message[1][1] == provision.ABORT else budget
                    yield (
                        "%s of the app arrives at the %s" % (STEPS[message[1][1]], NAMES[side]),
                        lambda message=message, side=side, spent=spent: self._deliver(state, message, side, spent),  # type: ignore[misc]
                    )

    def _with_app(self, state: State, act: Callable[[], State | None]) -> State | None:
        made = act()
        if made is not None:
            made.net = made.net | state.net
        return made

    def _deliver(self, state: State, message: Any, side: int, budget: tuple[int, ...] | None = None) -> State:
        if message[0] > TO_APP[1]:
            return Sessions._deliver(self, state, message, side, budget)
        payload = message[1]

        def take(node: Half) -> None:
            parsed = provision.parse(payload)
            assert parsed is not None
            node.endpoint.handle(parsed)
            node.settle()
            node.work()

        made, _ = self.step(state, side, payload, take, budget=budget or state.budget)
        made.net = made.net | {message}
        return made  # type: ignore[no-any-return]

    # -- the app -----------------------------------------------------------------------------------------------------

    def _sealed_package(self, side: int) -> tuple[bytes, bytes, bytearray]:
        """Body, hash and receipt key of the one package of epoch 2 that the app has made for a side."""
        name = (side, 2)
        if name not in self._sealed:
            publics = [bytes(cheap.x25519_public(private)) for private in self._private]
            content = package.KeyPackage(
                2, 2, (INITIATOR, RESPONDER)[side], (SIDE_A, SIDE_B)[side], NODE, bytes(range(64)),
                bytes(range(64, 128)), bytes(range(32)), publics[1 - side], LCT, "A", "B",
                max_records=1 << 20, max_age_s=1 << 20,
            )  # fmt: skip
            self._sealed[name] = package.seal(content, publics[side], self._owner, sha256(b"%d" % side), b"")
            cheap.sealed.clear()
        return self._sealed[name]

    def _package(self, side: int) -> Any:
        return FROM_APP[side], bytes(provision.frame_message(provision.PACKAGE, NODE, 1, self._sealed_package(side)[0]))

    def _order(self, side: int, kind: int) -> Any:
        body = provision.epoch_body(TAG, 2)
        if kind != provision.PAIR:
            body = provision.with_mac(self._sealed_package(side)[2], kind, body)
        return FROM_APP[side], bytes(provision.frame_message(kind, NODE, 1, body))

    def _has_heard(self, state: State, side: int, kind: int) -> bool:
        """Whether a device has ever said so (authentically): the app may have heard it, then or later."""
        key = self._sealed_package(side)[2]
        for place, payload in state.net:
            if place == TO_APP[side] and payload[1] == kind and provision.check_mac(key, kind, payload[4:]) is not None:
                return True
        return False

    def _orders(self, state: State, side: int) -> Iterator[Any]:
        """What the app says to a side, by its rules (docs/wire.md, section 7); said once, it can come again."""
        yield self._package(side)
        both = [self._has_heard(state, one, provision.RECEIPT) for one in (A, B)]
        if side == A and all(both):
            yield self._order(A, provision.PAIR)
        paired = all(self._has_heard(state, one, provision.PAIRED) for one in (A, B))
        committed = self._has_heard(state, B, provision.COMMITTED)
        if paired and (side == B or committed or self._hasty):
            yield self._order(side, provision.COMMIT)
        begun = any(payload[1] == provision.COMMIT for place, payload in state.net if place in FROM_APP)
        if state.budget[ABORT] and both[side] and not begun:
            yield self._order(side, provision.ABORT)

    # -- states ------------------------------------------------------------------------------------------------------

    def _reboot(self, state: State, side: int, budget: tuple[int, ...] | None = None) -> State:

        self.world.now_ms = state.now_ms
        self.entropy[side].drawn = state.drawn[side]
        cheap.sealed.clear()
        node = self._half(side, self.copier.copy(state.nodes[side].env.slots))
        said = self.said(node)
        put_away(self.channel(node))
        return state.with_(
            nodes=_put(state.nodes, side, node),
            frozen=_put(state.frozen, side, hash(self.copier.freeze(node))),
            drawn=_put(state.drawn, side, self.entropy[side].drawn),
            boots=_put(state.boots, side, state.boots[side] + 1),
            net=state.net | said,
            budget=budget or state.budget,
        )

    def recovers(self, state: State) -> bool:
        """As Sessions.recovers, with the nodes' own rules: new keys and a boot make the pack connect; so does its owner
        when nothing was opened for five seconds and no round goes on."""
        nodes = [self.copier.copy(node) for node in state.nodes]
        now_ms = heard_ms = state.now_ms
        self.world.now_ms = now_ms
        for side in (A, B):
            self.entropy[side].drawn = state.drawn[side] + 1000
            self.spaces[side].reassembler.partials.clear()
            del self.spaces[side]._ready[:]
        heard = [False, False]
        for _ in range(120):
            for side in (A, B):
                nodes[side].tick()
            first = nodes[A].peer
            if not first.channel.connecting and (not first.established or now_ms - heard_ms > 5000):
                first.connect()
                heard_ms = now_ms
            for _ in range(8):
                for side in (A, B):
                    events = self.feed(nodes[1 - side], nodes[side].outgoing())
                    for event in events:
                        if event.kind == OPENED and event.arbitration_id in (TELEMETRY, COMMAND):
                            heard[1 - side] = True
                            if side == B:
                                heard_ms = now_ms
                if heard[A] and heard[B]:
                    return True
            nodes[B].peer.seal(TELEMETRY >> 18, b"!")
            nodes[A].peer.seal(COMMAND >> 18, b"!")
            now_ms += 1000
            self.world.now_ms = now_ms
        return False


__all__ = ["Rotations", "cut"]
