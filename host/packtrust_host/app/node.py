"""AppNode: the app's end of the VCU bus, sans-I/O.

    node = AppNode(env, KeyStore(directory))
    node.start()
    node.on_frame(0, frame)       # every frame of the VCU bus
    wait_ms = node.on_tick()      # at least that often

It finds packs, keeps the encrypted channel with one of them alive, fills the live model from what
arrives authentically, gives commands and says whether they were obeyed. Provisioning and validation
run on it as scripts (`spawn`). It never raises on what the wire brings.
"""

from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from packtrust.arbitration import NODE_APP, NODE_PACK, base_of, clear_of, compose, node_of
from packtrust.channel import ESTABLISHED, OPENED, REFUSED, VCU_LINK, Channel
from packtrust.errors import ChannelError
from packtrust.frame import Frame
from packtrust.handshake import INITIATOR, TWIN
from packtrust.keys import SIDE_A, Relationship
from packtrust.messages import MESSAGES, by_base, by_name, by_standard_id, decode, encode
from packtrust.messages.table import ALL_MODULES, PACK_TO_VCU, VCU_TO_PACK
from packtrust.pairing import is_pairing
from packtrust.policy import COMMAND, CONFIG, DEFAULT_POLICY, HEARTBEAT, Policy
from packtrust.provision import Message
from packtrust.record import OVERHEAD, VERSION, counter_of
from packtrust.segmentation import Reassembler, Segmenter
from packtrust_host.app.command import (
    REPEAT_MS,
    TIMEOUT_MS,
    Check,
    Command,
    CurrentRule,
    balance_check,
    expect_load,
    limits_check,
    state_check,
)
from packtrust_host.app.errors import AppError
from packtrust_host.app.keystore import ACTIVE, KeyStore, RelationshipRecord
from packtrust_host.app.model import Intervals, Model, Module, percentile, state_name
from packtrust_host.app.tasks import Executor, InlineExecutor, Step, Task
from packtrust_host.app.transport import CoreIsoTp, FrameLike, Link, Requests
from packtrust_host.keylog import KeyLog

VCU_PORT = 0

KEEP_ALIVE_MS = 250  # the field's app timer
ANNOUNCE_REQUEST_MS = 1000
SILENT_MS = 2000  # without an authentic record for so long we shake hands again
TICK_MS = 50
BUSY_TICK_MS = 10

_HANDSHAKE_FROM_PACK = VCU_LINK.handshake[1]
_PACK_ANNOUNCEMENT = by_name("PACK_ANNOUNCEMENT").base
_KEPT_LATENCIES = 20_000
_OURS = frozenset(row.base for row in MESSAGES if row.direction == VCU_TO_PACK)

T = TypeVar("T")


class HostEnv(Protocol):
    """What a node on the host is given."""

    def now_ms(self) -> int:
        """Monotonic milliseconds."""

    def urandom(self, n: int) -> bytes:
        """`n` random bytes."""

    def send(self, port: int, frame: Frame) -> None:
        """Queue a frame, in order."""

    def log(self, text: str) -> None:
        """One line for the operator."""


@dataclass
class PackSeen:
    """A pack by its announcement: a claim, not a proof."""

    number: int
    unique_id: int
    claimed: bool
    keyed: bool
    module_count: int
    version: int
    seen_ms: int

    @property
    def node(self) -> int:
        """Its node byte."""
        return int(NODE_PACK) + self.number


@dataclass
class _Repeated:
    """A script that is run again and again."""

    make_script: Callable[[], Generator[Step, Any, Any]]
    every_ms: int
    name: str
    due_ms: int
    task: Task[Any] | None = None


class Watcher(Protocol):
    """Who notes what this node does, see packtrust_host.audit.watch."""

    def tick(self, now_ms: int) -> None:
        """Let time pass."""

    def record(self, sealed: bool, base: int, counter: int) -> None:
        """A record was sealed or opened."""

    def note(self, what: str, **details: Any) -> None:
        """Something is about to be done that is noted, or not done. Raises AppError if it cannot be."""

    def close(self) -> None:
        """The node ends."""


LinkMaker = Callable[[int, int], Link]


class AppNode:
    """The app's node. See the module's docstring.

    env          HostEnv
    store        the host key store
    pack         pack number to speak to; None: the only pack that is known or announces itself
    make_link    makes the ISO-TP link of section 7 from (tx_id, rx_id); the core's by default
    executor     runs what blocks in scripts; in place by default
    current_rule (state, mA) -> whether a module's current fits its state, for `set_state`
    policy       the message policy, the same as the pack's
    key_log      takes the session keys, for an owner who wants to read along (packtrust_host.keylog)
    fd           send records in CAN FD frames: where adapter and pack have it
    """

    def __init__(
        self,
        env: HostEnv,
        store: KeyStore,
        pack: int | None = None,
        *,
        make_link: LinkMaker | None = None,
        executor: Executor | None = None,
        current_rule: CurrentRule = expect_load,
        policy: Policy = DEFAULT_POLICY,
        key_log: KeyLog | None = None,
        fd: bool = False,
    ) -> None:
        self.env = env
        self.store = store
        self.model = Model()
        self.packs: dict[int, PackSeen] = {}
        self.channel: Channel | None = None
        self.counters: dict[str, int] = {}
        self.commands: deque[Command] = deque(maxlen=1000)
        self.latencies_ms: deque[int] = deque(maxlen=_KEPT_LATENCIES)
        self.clear_burst = Intervals()
        self.on_message: Callable[[Message], None] | None = None
        self.on_pairing: Callable[[bytes], None] | None = None
        self.on_record: Callable[[str, Mapping[str, int | None], int], None] | None = None
        self.watch: Watcher | None = None
        self.pack_number: int | None = None
        self._requests: Requests | None = None
        self._make_link = make_link or (lambda tx, rx: CoreIsoTp(tx, rx, env.now_ms))
        self._executor: Executor = executor or InlineExecutor()
        self._current_rule = current_rule
        self._policy = policy
        self._key_log = key_log
        self._fd = fd
        self._wanted_pack = pack
        self._reassembler = Reassembler()
        self._segmenter = Segmenter()
        self._lct_id = ""
        self._tasks: list[Task[Any]] = []
        self._repeated: list[_Repeated] = []
        self._running = False
        self._open: list[tuple[Command, list[int]]] = []  # with the counters that carried it
        self._commanded_state: int | None = None
        self._commanded_balance = False
        self._keep_alive_due_ms = 0
        self._announce_due_ms = 0
        self._connect_ms: int | None = None
        self.isolated = False  # another station holds the pack's keys too: no session until it is keyed anew
        self._established_ms = 0

    def __repr__(self) -> str:
        return "<AppNode pack %s, %r>" % (self.pack_number, self.channel)

    def _count(self, what: str, by: int = 1) -> None:
        self.counters[what] = self.counters.get(what, 0) + by

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Ask packs to announce themselves; connect to the one the key store has keys for."""
        now_ms = self.env.now_ms()
        self._keep_alive_due_ms = now_ms
        self._announce_due_ms = now_ms
        if self._wanted_pack is not None:
            self.attach(self._wanted_pack)
        else:
            keyed = [record for record in self.store.relationships.values() if self._usable(record)]
            if len(keyed) == 1:
                self.attach(keyed[0].node - NODE_PACK)
        self.on_tick()

    def close(self) -> None:
        """End what runs and destroy the keys in memory."""
        if self.watch is not None:
            self.watch.close()
            self.watch = None
        for task in self._tasks:
            task.cancel("the app stops")
        self._tasks = []
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    @staticmethod
    def _usable(record: RelationshipRecord) -> bool:
        return bool(record.root) and record.state == ACTIVE

    @property
    def node(self) -> int:
        """Node byte of the pack spoken to. Raises AppError while there is none."""
        if self.pack_number is None:
            raise AppError("no pack is attached", "wait for its announcement, or name its number")
        return int(NODE_PACK) + self.pack_number

    @property
    def requests(self) -> Requests:
        """Requests to the attached pack and its modules."""
        if self._requests is None:
            raise AppError("no pack is attached", "wait for its announcement, or name its number")
        return self._requests

    def attach(self, number: int) -> None:
        """Speak to pack `number` (0..15) from now on, and connect if the key store has keys for it."""
        if number == self.pack_number:
            return
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        self.pack_number = number
        self.model = Model()
        tx_id = compose(VCU_LINK.isotp[0], self.node)
        rx_id = compose(VCU_LINK.isotp[1], self.node)
        self._requests = Requests(self._make_link(tx_id, rx_id), self._on_unsolicited)
        record = self.store.app_pack(node=self.node)
        if record is not None and self._usable(record):
            self.use(record)

    def use(self, record: RelationshipRecord) -> None:
        """Run the channel under a relationship's root.

        A new channel, or a new epoch of the present one.
        """
        channel = self.channel
        self.isolated = False
        if channel is not None and self._lct_id == record.lct_id:
            if record.epoch > channel.epoch:
                channel.install(record.root, record.epoch)
                self._connect()
            return
        if channel is not None:
            channel.close()
        self._lct_id = record.lct_id
        self.channel = Channel(
            record.root,
            INITIATOR,
            record.node,
            self.env.now_ms,
            self.env.urandom,
            relationship=relationship_of(record),
            side=SIDE_A,
            epoch=record.epoch,
            policy=self._policy,
            link=VCU_LINK,
            key_log=self._key_log,
            fd=self._fd,
        )
        self._connect()

    def _connect(self) -> None:
        assert self.channel is not None
        if self.isolated:
            return
        self._connect_ms = self.env.now_ms()
        self.channel.connect()
        self._send_all(self.channel.outgoing())

    @property
    def established(self) -> bool:
        """Whether the pack has proved itself and commands can be sealed."""
        return self.channel is not None and self.channel.established

    # -- scripts -------------------------------------------------------------------------------

    def spawn(self, script: Generator[Step, Any, T], name: str = "") -> Task[T]:
        """Run a script on this node; it goes on with each frame and tick."""
        task = Task(script, self._executor, name)
        self._tasks.append(task)
        self._run_tasks()
        return task

    def repeat(self, make_script: Callable[[], Generator[Step, Any, Any]], every_ms: int, name: str = "") -> None:
        """Run a script again and again while a pack is attached, `every_ms` after its last start and
        never twice at once; first as soon as possible.
        """
        self._repeated.append(_Repeated(make_script, every_ms, name, self.env.now_ms()))

    def _start_repeated(self, now_ms: int) -> None:
        for item in self._repeated:
            if now_ms >= item.due_ms and self._requests is not None and (item.task is None or item.task.done):
                item.due_ms = now_ms + item.every_ms
                item.task = self.spawn(item.make_script(), item.name)

    def _run_tasks(self) -> None:
        if self._running:
            return  # a script's own sending came back to us: its task goes on when it yields
        self._running = True
        try:
            now_ms = self.env.now_ms()
            for task in list(self._tasks):
                task.run(now_ms)
            self._tasks = [task for task in self._tasks if not task.done]
        finally:
            self._running = False
        self._flush()

    # -- sending -------------------------------------------------------------------------------

    def _send_all(self, frames: list[Frame]) -> None:
        for frame in frames:
            self.env.send(VCU_PORT, frame)

    def _flush(self) -> None:
        if self._requests is not None:
            self._send_all(self._requests.link.outgoing())
        if self.channel is not None:
            self._send_all(self.channel.outgoing())

    def send_pairing(self, payload: bytes) -> None:
        """Send a message of a pair exchange on the handshake row."""
        if self.channel is not None:
            self.channel.send_pairing(payload)
            self._flush()
        else:
            self._send_all(self._segmenter.split(compose(VCU_LINK.handshake[0], self.node), payload))

    def send_sealed(self, name: str, **values: int) -> int:
        """Seal a message to the pack; the counter of its record.

        Raises ChannelError without a session.
        """
        return self._seal(by_name(name).base, bytes(encode(name, values)))

    def _seal(self, base: int, data: bytes) -> int:
        if self.channel is None:
            raise ChannelError("no keys with this pack: provision it first")
        # Copies: what the channel gave is its own, and these may wait in a queue.
        frames = [frame.copy() for frame in self.channel.seal(compose(base, self.node), data)]
        self._send_all(frames)
        record = b"".join([bytes(frame.data) for frame in frames])
        counter = int(counter_of(record)) if len(record) >= OVERHEAD else 0
        if self.watch is not None:
            self.watch.record(True, base, counter)
        return counter

    def ask_for_announcements(self) -> None:
        """Ask every pack to announce itself."""
        data = bytes(encode("APP_ANNOUNCE_REQUEST", version=VERSION))
        base = by_name("APP_ANNOUNCE_REQUEST").base
        self.env.send(VCU_PORT, Frame(compose(base, NODE_APP), data))

    # -- receiving -----------------------------------------------------------------------------

    def on_frame(self, port: int, frame: FrameLike) -> None:
        """Take a frame of the VCU bus (core Frame or python-can Message).

        Never raises on its bytes.
        """
        if port != VCU_PORT:
            return
        if not frame.is_extended_id:
            self._on_standard(frame)
            return
        identifier = frame.arbitration_id
        if identifier == compose(_PACK_ANNOUNCEMENT, node_of(identifier)):
            self._on_announcement(frame)
        if self.pack_number is None or node_of(identifier) != self.node:
            return
        requests = self._requests
        if requests is not None and identifier == requests.link.rx_id:
            for payload in requests.link.feed(frame):
                requests.on_payload(payload)
        elif base_of(identifier) in _OURS:
            self._count("own-id")  # another station says what only we say
        elif clear_of(identifier) == compose(_HANDSHAKE_FROM_PACK, self.node):
            self._on_pairing_frame(frame)
            self._feed(frame)
        else:
            self._feed(frame)
        self._run_tasks()

    def _on_standard(self, frame: FrameLike) -> None:
        """The field's 11-bit frames: seen, counted, timed, never believed."""
        found = by_standard_id(frame.arbitration_id)
        if found is None:
            return
        row, _ = found
        if row.direction == VCU_TO_PACK:
            if row.message_class in (COMMAND, CONFIG, HEARTBEAT):
                self._count("clear-commands")
        elif row.name == "BMS_STATE":
            self.clear_burst.arrived(self.env.now_ms())

    def _on_announcement(self, frame: FrameLike) -> None:
        values = decode("PACK_ANNOUNCEMENT", frame.data)
        number = node_of(frame.arbitration_id) - NODE_PACK
        if values is None or not 0 <= number <= 15:
            self._count("announcement-malformed")
            return
        fields = {key: value or 0 for key, value in values.items()}
        self.packs[number] = PackSeen(
            number,
            fields["unique_id"],
            bool(fields["claimed"]),
            bool(fields["keyed"]),
            fields["module_count"],
            fields["version"],
            self.env.now_ms(),
        )
        if self.pack_number is None and self._wanted_pack is None and len(self.packs) == 1:
            self.attach(number)
        elif number == self.pack_number:
            self._on_own_pack()

    def _on_own_pack(self) -> None:
        """Our pack is there: a round of HELLOs that pauses, or has ended without it, begins again."""
        channel = self.channel
        if channel is not None and (not channel.established or self._connect_ms is not None):
            self._connect()

    def _on_pairing_frame(self, frame: FrameLike) -> None:
        payload = self._reassembler.feed(frame, self.env.now_ms())
        if payload is not None and is_pairing(payload) and self.on_pairing is not None:
            self.on_pairing(bytes(payload))

    def _on_unsolicited(self, message: Message) -> None:
        if self.on_message is not None:
            self.on_message(message)
        else:
            self._count("unexpected")

    def _feed(self, frame: FrameLike) -> None:
        channel = self.channel
        if channel is None:
            return
        event = channel.feed(frame)
        if event is None:
            return
        if event.kind == OPENED:
            if self.watch is not None:
                self.watch.record(False, base_of(event.arbitration_id), event.counter)
            self._on_opened(base_of(event.arbitration_id), bytes(event.data))
        elif event.kind == REFUSED:
            self._count("refused")
            if event.reason == TWIN:
                self._isolate(channel)
        elif event.kind == ESTABLISHED:
            self._count("sessions")
            self._connect_ms = None
            self._established_ms = self.env.now_ms()
            self._keep_alive_due_ms = self.env.now_ms()
            self.env.log("session with pack %s, epoch %d" % (self.pack_number, event.epoch))

    def _isolate(self, channel: Channel) -> None:
        """Two stations have proved that they hold the pack's keys: nobody is commanded until it is keyed anew."""
        self.isolated = True
        self._connect_ms = None
        self._count("twin")
        self.env.log("another station has the keys of pack %s too: isolated until it is keyed anew" % self.pack_number)
        channel.disconnect()

    def _on_opened(self, base: int, data: bytes) -> None:
        row = by_base(base, PACK_TO_VCU)
        values = None if row is None else decode(row, data)
        if row is None or values is None:
            self._count("undecodable")
            return
        now_ms = self.env.now_ms()
        number = self.model.apply(row.name, values, now_ms)
        if row.name == "COMMAND_RESULT":
            self._on_result({key: value or 0 for key, value in values.items()})
        elif number is not None and row.name in ("MODULE_STATE", "MODULE_POWER", "MODULE_LIMITS"):
            self._on_status(self.model.modules[number], now_ms)
        if self.on_record is not None:
            self.on_record(row.name, values, now_ms)

    # -- commands ------------------------------------------------------------------------------

    def _on_status(self, module: Module, now_ms: int) -> None:
        for command, _ in self._open:
            known = module.number in command.latency_ms
            command.on_status(module, now_ms)
            if command.measures_state and not known and module.number in command.latency_ms:
                self.latencies_ms.append(command.latency_ms[module.number])
        self._settle()

    def _on_result(self, values: dict[str, int]) -> None:
        for command, counters in self._open:
            if command.base & 0xFF == values["command"] and values["counter"] in counters:
                newest = values["counter"] == counters[-1]
                command.on_result(values["module_id"], values["result"], values["reason"], newest)
        self._settle()

    def _settle(self) -> None:
        for command, _ in self._open:
            if command.done:
                self._count("commands-" + command.state)
                if command.reason:
                    self.env.log("%s failed: %s" % (command.name, command.reason))
        self._open = [item for item in self._open if not item[0].done]

    def modules_expected(self) -> list[int]:
        """Numbers of the modules that must obey.

        Those keyed with this pack, or else those that are there.
        """
        record = self.store.app_pack(node=self.node)
        if record is not None:
            keyed = [item.node for item in self.store.modules_of(record.unique_id_b) if item.state == ACTIVE]
            if keyed:
                return keyed
        return self.model.online(self.env.now_ms())

    def _issue(
        self,
        name: str,
        row_name: str,
        values: dict[str, int],
        modules: list[int],
        check: Check | None,
        quick: Callable[[Module], bool] | None = None,
        timeout_ms: int = TIMEOUT_MS,
        needs_result: bool = False,
    ) -> Command:
        row = by_name(row_name)
        now_ms = self.env.now_ms()
        data = bytes(encode(row, values))
        command = Command(name, row.base, data, modules, now_ms, check, quick, timeout_ms, needs_result)
        self.commands.append(command)
        for other, _ in self._open:
            if other.base == row.base and other.modules & command.modules:
                other.fail("a later command replaced it: " + name)
        self._open.append((command, []))
        if not command.done:
            self._transmit(command, self._open[-1][1])
        self._settle()
        return command

    def _transmit(self, command: Command, counters: list[int]) -> None:
        try:
            counters.append(self._seal(command.base, command.data) & 0xFFFFFFFF)
        except ChannelError as error:
            command.fail(str(error))

    def set_state(self, state: int, *, hv_bus_mv: int = 0, timeout_ms: int = TIMEOUT_MS) -> Command:
        """Put every module into `state` (STATE_OFF .. STATE_ON of the message table)."""
        self._commanded_state = state
        values = {
            "contactor_state": state,
            "balance": int(self._commanded_balance),
            "hv_bus_mv": hv_bus_mv,
        }
        return self._issue(
            "state " + state_name(state),
            "COMMAND",
            values,
            self.modules_expected(),
            state_check(state, self._current_rule),
            lambda module: module.state == state,
            timeout_ms,
        )

    def balance(self, on: bool, *, timeout_ms: int = 2 * TIMEOUT_MS) -> Command:
        """Let every module balance its cells, or not; the commanded state stays."""
        self._commanded_balance = on
        state = self._commanded_state
        if state is None:
            state = self.model.pack_state or 0
        return self._issue(
            "balance " + ("on" if on else "off"),
            "COMMAND",
            {"contactor_state": state, "balance": int(on)},
            self.modules_expected(),
            balance_check(on),
            None,
            timeout_ms,
        )

    def set_limits(
        self,
        max_charge_ma: int,
        max_discharge_ma: int,
        *,
        module: int = ALL_MODULES,
        end_of_charge_mv: int = 0,
        timeout_ms: int = TIMEOUT_MS,
    ) -> Command:
        """Limit one module's current, or every module's: two positive figures in mA."""
        modules = self.modules_expected() if module == ALL_MODULES else [module]
        values = {
            "module_id": module,
            "max_charge_ma": max_charge_ma,
            "max_discharge_ma": max_discharge_ma,
            "end_of_charge_mv": end_of_charge_mv,
        }
        return self._issue(
            "limits +%.2f/-%.2f A" % (max_charge_ma / 1000, max_discharge_ma / 1000),
            "LIMITS_COMMAND",
            values,
            modules,
            limits_check(max_charge_ma, max_discharge_ma),
            None,
            timeout_ms,
            needs_result=True,
        )

    def module_command(
        self,
        module: int,
        state: int,
        *,
        balance: bool = False,
        hv_bus_mv: int = 0,
        timeout_ms: int = TIMEOUT_MS,
    ) -> Command:
        """Direct control of one module."""
        values = {
            "module_id": module,
            "contactor_state": state,
            "balance": int(balance),
            "hv_bus_mv": hv_bus_mv,
        }
        return self._issue(
            "module %d state %s" % (module, state_name(state)),
            "MODULE_COMMAND",
            values,
            [module],
            state_check(state, self._current_rule),
            lambda item: item.state == state,
            timeout_ms,
        )

    def set_time(self, unix_s: int, *, timeout_ms: int = TIMEOUT_MS) -> Command:
        """Set the pack's clock; settled by the pack's answer, for no status shows it."""
        return self._issue("time", "TIME", {"time_s": unix_s}, [], None, None, timeout_ms)

    def grant(self, max_state: int, seconds: int, *, timeout_ms: int = TIMEOUT_MS) -> Command:
        """Let an old VCU raise the pack up to `max_state`, in clear, for so long (policy legacy-vcu); 0 s: no more.

        Settled by the pack's answer. AppError if `watch` cannot note it: nothing is granted then.
        """
        if self.watch is not None:
            self.watch.note("grant", state=state_name(max_state), seconds=seconds)
        values = {"max_state": max_state, "grant_s": seconds}
        name = "grant of %s for %d s" % (state_name(max_state), seconds)
        return self._issue(name, "LEGACY_GRANT", values, [], None, None, timeout_ms)

    def ask_diagnostics(self, module: int = 0, what: int = 0) -> None:
        """Ask for PACK_DIAGNOSTICS, MODULE_FAULT or CELL_DETAIL (`what`.

        ASK_* of the message table).
        """
        self.send_sealed("DIAGNOSTICS_REQUEST", module_id=module, what=what)

    # -- time ----------------------------------------------------------------------------------

    def on_tick(self) -> int:
        """Let time pass; milliseconds until the next tick is wanted."""
        now_ms = self.env.now_ms()
        if self._requests is not None:
            for payload in self._requests.link.tick():
                self._requests.on_payload(payload)
        self._reassembler.expire(now_ms)
        if now_ms >= self._announce_due_ms and (not self.established or self._connect_ms is not None):
            self._announce_due_ms = now_ms + ANNOUNCE_REQUEST_MS
            self.ask_for_announcements()
        self._tick_channel(now_ms)
        for command, counters in self._open:
            command.on_tick(now_ms)
            if not command.done and now_ms - command.repeated_ms >= REPEAT_MS and self.established:
                command.repeated_ms = now_ms
                self._transmit(command, counters)
        self._settle()
        self._start_repeated(now_ms)
        self._run_tasks()
        if self.watch is not None:
            self.watch.tick(now_ms)
        if self._tasks or self._open:
            return BUSY_TICK_MS
        return max(1, min(TICK_MS, self._keep_alive_due_ms - now_ms if self.established else TICK_MS))

    def _tick_channel(self, now_ms: int) -> None:
        channel = self.channel
        if channel is None:
            return
        channel.tick()
        silent_ms = now_ms - max(channel.last_opened_ms or 0, self._established_ms)
        if channel.established and self._connect_ms is None and silent_ms > SILENT_MS:
            # The pack is away, or has forgotten the session in a restart: it proves itself anew.
            self._count("reconnects")
            self._connect()
        elif self._connect_ms is not None and silent_ms < now_ms - self._connect_ms and self._is_newest(channel):
            # It is back in the session there is: cut off for a while, it has lost nothing.
            self._connect_ms = None
            channel.give_up()
        if channel.established and now_ms >= self._keep_alive_due_ms:
            self._keep_alive_due_ms = max(self._keep_alive_due_ms + KEEP_ALIVE_MS, now_ms)
            try:
                self.send_sealed("KEEP_ALIVE", module_id=0)
            except ChannelError:
                self._count("exhausted")  # max_records: the provisioner rotates
        self._send_all(channel.outgoing())

    @staticmethod
    def _is_newest(channel: Channel) -> bool:
        """Whether there is a session under the newest epoch."""
        return channel.established and channel.session_epoch == channel.epoch

    # -- figures -------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """A JSON-able summary: records by verdict, commands, latency and intervals. No secrets."""
        channel = self.channel
        return {
            "pack": self.pack_number,
            "established": self.established,
            "epoch": None if channel is None else channel.session_epoch,
            "records": {} if channel is None else dict(channel.stats),
            "dropped": {} if channel is None else dict(channel.dropped),
            "requests": {} if self._requests is None else dict(self._requests.counters),
            "counters": dict(self.counters),
            "clear_commands": self.counters.get("clear-commands", 0),
            "command_latency_ms": {
                "count": len(self.latencies_ms),
                "p50": percentile(self.latencies_ms, 50),
                "p99": percentile(self.latencies_ms, 99),
                "max": max(self.latencies_ms, default=None),
            },
            "vcu_burst": self.clear_burst.summary(),
            "sealed_burst": self.model.burst.summary(),
            "modules": {
                str(number): module.intervals.summary() for number, module in sorted(self.model.modules.items())
            },
        }


def relationship_of(record: RelationshipRecord) -> Relationship:
    """What every key of a relationship is bound to."""
    return Relationship(
        record.component_a,
        record.component_b,
        record.lct_id,
        record.fingerprint_a,
        record.fingerprint_b,
    )
