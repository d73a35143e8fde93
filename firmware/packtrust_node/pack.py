"""A pack controller: the gateway between app and modules, with keys towards either side."""

from packtrust import provision
from packtrust._compat import const
from packtrust.arbitration import (
    ENCRYPTED,
    NODE_APP,
    NODE_MODULE_MAX,
    NODE_UNREGISTERED,
    RECORD_OF,
    base_of,
    compose,
    pack_node,
)
from packtrust.channel import ESTABLISHED, MODULE_LINK, VCU_LINK
from packtrust.frame import Frame
from packtrust.handshake import INITIATOR, RESPONDER, TWIN
from packtrust.messages.bases import (
    ALL_ISOLATE,
    ANNOUNCE_REQUEST,
    ANNOUNCEMENT,
    APP_ANNOUNCE_REQUEST,
    BMS_STATE,
    BUS_INTERFERENCE,
    CELL_COMM_STATUS1,
    CELL_DETAIL,
    COMMAND,
    COMMAND_RESULT,
    DETAIL,
    DETAIL_REQUEST,
    EEPROM_DATA,
    FAULT_CODES,
    FRAME_TRANSFER_REQUEST,
    GROUP_STATUS,
    HANDSHAKE_FROM_PACK,
    HANDSHAKE_TO_MODULE,
    HARDWARE,
    HARDWARE_REQUEST,
    INTERFERENCE,
    ISOTP_FROM_MODULE,
    ISOTP_FROM_PACK,
    ISOTP_TO_MODULE,
    ISOTP_TO_PACK,
    MAX_STATE,
    MODULE_FAULT,
    MODULE_LIMITS,
    MODULE_POWER,
    MODULE_STATE,
    PACK_ANNOUNCEMENT,
    PACK_DIAGNOSTICS,
    PACK_ISOLATION,
    REGISTRATION,
    REQUEST_MODULE_LIST,
    STATUS_1,
    STATUS_2,
    STATUS_3,
    STATUS_REQUEST,
    TEST_FROM_PACK,
    TIME_REQUEST,
    VCU_TIME_REQUEST,
)
from packtrust.messages.compact import decode, encode, fits
from packtrust.messages.table import STANDARD_PACKS, STATE_OFF
from packtrust.policy import DEFAULT_POLICY
from packtrust.record import VERSION
from packtrust.replay import CITATION_MAX_AGE_MS, STEP_MS
from packtrust_node import aggregate, ondemand
from packtrust_node.broadcast import Broadcast
from packtrust_node.commands import Commands
from packtrust_node.limp import Limp
from packtrust_node.links import module_link, vcu_link
from packtrust_node.neighbour import Bus, Neighbour
from packtrust_node.node import Node
from packtrust_node.post import target_of
from packtrust_node.slots import (
    ABSENT_MS,
    BACK_OFF_MS,
    BARE,
    GOT,
    GOT_ALL,
    GOT_COMM,
    GOT_DETAIL,
    GOT_FAULT,
    GOT_HARDWARE,
    GOT_STATUS_1,
    GOT_STATUS_2,
    GOT_STATUS_3,
    KNOWN,
    LOST,
    MISSES,
    MISSES_TO_BACK_OFF,
    REPEATED,
    WANTED,
    Latency,
    Slot,
    free_number,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from packtrust._typing import Buffer, FrameLike
    from packtrust.channel import Event
    from packtrust.isotp import Pieces
    from packtrust.package import KeyPackage
    from packtrust_node.env import Env

VCU_BUS = const(0)
MODULE_BUS = const(1)

POLL_MS = const(100)
BURST_MS = const(500)
# Commands to this many modules are a wave that polls wait for: two records and an answer each, 5 frames a record.
_WAVE = const(4)
_WAVE_MS = const(4)
RECONNECT_MS = const(1100)
# A poll without an answer by then is given up for lost.
_ANSWER_MS = const(400)
_HOUSE_MS = const(50)
_FAST_MS = const(1000)
_SLOW_MS = const(10000)
_FAST_UNTIL_MS = const(10000)
_DIAGNOSTICS_BURSTS = const(2)

# Beside 0x510..0x51F and 0x410..0x430.
_OURS = (
    ISOTP_FROM_PACK,
    HANDSHAKE_FROM_PACK,
    PACK_ANNOUNCEMENT,
    TEST_FROM_PACK,
    CELL_DETAIL,
    COMMAND_RESULT,
    MODULE_FAULT,
    PACK_DIAGNOSTICS,
    BUS_INTERFERENCE,
    VCU_TIME_REQUEST,
    EEPROM_DATA,
    FRAME_TRANSFER_REQUEST,
    ISOTP_TO_MODULE,
    HANDSHAKE_TO_MODULE,
)
# Of a module with a session: answers to one request to announce, and sessions until the next request.
_ANNOUNCEMENTS = const(3)
# A poll cycle of 31 modules: how often one may be challenged.
CHALLENGE_MS = const(3000)
_SESSIONS = const(2)


_MODULE_MESSAGES = {
    HARDWARE: "HARDWARE",
    STATUS_1: "STATUS_1",
    STATUS_2: "STATUS_2",
    STATUS_3: "STATUS_3",
    DETAIL: "DETAIL",
    TIME_REQUEST: "TIME_REQUEST",
    CELL_COMM_STATUS1: "CELL_COMM_STATUS1",
    FAULT_CODES: "FAULT_CODES",
    GROUP_STATUS: "GROUP_STATUS",
}
_BITS = {
    STATUS_1: GOT_STATUS_1,
    STATUS_2: GOT_STATUS_2,
    STATUS_3: GOT_STATUS_3,
    CELL_COMM_STATUS1: GOT_COMM,
    FAULT_CODES: GOT_FAULT,
    DETAIL: GOT_DETAIL,
    HARDWARE: GOT_HARDWARE,
}


class PackNode(Node):
    """See the module's docstring. Port 0 is the VCU bus, port 1 the module bus.

    config, beside what Node takes: pack (0..15), topology ("parallel", "series"), policy ("default", "legacy-vcu"),
    mixed_bus (false).
    """

    device_role = provision.ROLE_PACK

    def __init__(self, env: "Env", config: "dict[str, object]") -> None:
        Node.__init__(self, env, config)
        self.number = config.get("pack", 0)
        self.own_node = pack_node(self.number)
        self.topology = config.get("topology", aggregate.PARALLEL)
        link = vcu_link(config)
        self.vcu_policy = link.policy
        self.app = Neighbour(Bus(env, VCU_BUS, RESPONDER, link), self.own_node)
        self.module_bus = Bus(env, MODULE_BUS, INITIATOR, module_link(config))
        self.slots = {}  # type: dict[int, Slot]
        self.latency = Latency()
        self.commands = Commands(self)
        self.broadcast = Broadcast(self)
        self.limp = Limp(self)
        self.legacy = None  # type: LegacyVcu | None
        if self.vcu_policy.clear_lowers(COMMAND):
            from packtrust_node.legacy import LegacyVcu

            self.legacy = LegacyVcu(self)
        self.modules_lost = 0
        self.bursts_late = 0
        self._heard = {}  # type: dict[int, int]  # by module: announcements and, negative, sessions; see _twin
        self._disowned = []  # type: list[int]  # modules with keys that were announced as ones without
        self._order = []  # type: list[Slot]  # keyed slots by number
        self._time_s = 0
        self._time_ms = 0
        self._polled = 0  # number of the module polled last
        self._boot_ms = 0
        self._poll_ms = 0
        self._burst_ms = 0
        self._bursts = 0
        self._house_ms = 0
        self._announce_ms = 0
        self._request_ms = 0
        self._isolated = 0  # a bit a module number, see _isolate
        self._waiting = 0  # a bit a module number, see _begin_round

    # -- start ---------------------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Use the relationships there are, and begin to poll, announce and broadcast."""
        now_ms = self.env.now_ms()
        self._boot_ms = self._poll_ms = self._house_ms = now_ms
        self.broadcast.start(now_ms)
        self._announce_ms = self._request_ms = now_ms
        self._burst_ms = now_ms + BURST_MS
        for relation in list(self.relations.values()):
            if relation.node != self.own_node:
                self._add_slot(relation.node, relation.unique_id)
            self.install(relation)

    def _send_vcu(self, frame: Frame) -> None:
        self.env.send(VCU_BUS, frame)

    def _send_module(self, frame: Frame) -> None:
        self.env.send(MODULE_BUS, frame)

    def _add_slot(self, number: int, unique_id: int) -> Slot:
        slot = self.slots[number] = Slot(self.module_bus, number, unique_id, self.env.now_ms())
        return slot

    # -- what Node asks for --------------------------------------------------------------------------------------------

    def neighbour(self, node: int) -> "Neighbour | None":
        """The app, or a module that is registered."""
        if node == self.own_node:
            return self.app
        return self.slots.get(node)

    def unique_id_of(self, node: int) -> int:
        """Unique id of a registered module, else 0."""
        slot = self.slots.get(node)
        return 0 if slot is None else slot.unique_id

    def refusal_of(self, package: "KeyPackage") -> int:
        """A pack answers its app and starts with its modules."""
        if package.node == self.own_node:
            return 0 if package.role == RESPONDER else provision.REFUSED_KEYS
        if not 1 <= package.node <= NODE_MODULE_MAX or package.role != INITIATOR:
            return provision.REFUSED_KEYS
        return 0 if package.node in self.slots else provision.REFUSED_NO_ROUTE

    def reply(self, payload: "Buffer | Pieces") -> None:
        """To the app."""
        own = self.own_node
        self._post.send(VCU_BUS, compose(ISOTP_FROM_PACK, own), compose(ISOTP_TO_PACK, own), payload)

    def tell(self, interference: "Buffer") -> bool:
        """To the app."""
        return self.app.seal(BUS_INTERFERENCE, interference)

    def sends(self, base: int) -> bool:
        """What a pack says to its modules, and to app and VCU."""
        return base & 0x7F0 == REGISTRATION or BMS_STATE <= base <= PACK_ISOLATION or base in _OURS

    def links(self) -> "list[Neighbour]":
        """The app and the modules."""
        return [self.app] + list(self.slots.values())

    def group_key(self) -> "tuple[int, Buffer]":
        """As Node.group_key."""
        return self.broadcast.rekeyed, self.broadcast.secret

    def extra(self, kind: int, body: bytes) -> "tuple[int, bytes | Pieces]":
        """LIST and ATTEST."""
        before = ondemand.mark()
        try:
            from packtrust_node.inventory import answer

            return answer(self, kind, body)
        finally:
            ondemand.back_to(before)

    def keyed(self, neighbour: "Neighbour") -> None:
        """New keys: with a module, start a session under them."""
        self._order = [self.slots[number] for number in sorted(self.slots) if self.slots[number].keyed]
        if neighbour is not self.app:
            slot = self.slots[neighbour.node]
            slot.row[BARE] = 0
            self._isolated &= ~(1 << slot.number - 1)
            self._begin_round(slot, self.env.now_ms())

    def let_go(self) -> None:
        """Nobody will command the modules: Off, at once, and not when they miss us."""
        for slot in self._order:
            slot.row[WANTED] = STATE_OFF
        self.broadcast.send()  # to all of them, however many a queue has room for
        for slot in self._order:
            slot.seal(MAX_STATE, self.broadcast.max_state(slot))

    def unkeyed(self) -> None:
        """Nobody's pack: the modules keep their numbers, and nothing else."""
        now_ms = self.env.now_ms()
        self.app.unkey()
        self.commands.forget()
        if self.legacy is not None:
            self.legacy.revoke()
        self.broadcast.forget()
        self._disowned = []
        self._waiting = 0
        for slot in self.slots.values():
            slot.forget(now_ms)
        self._order = []
        self._announce_ms = now_ms

    def keyed_slots(self) -> "list[Slot]":
        """Modules we have keys with, by number."""
        return self._order

    def spare_ms(self, now_ms: int) -> int:
        """As Node.spare_ms: an old VCU watches the period of the broadcast."""
        return self._burst_ms - now_ms

    def figures(self) -> "Iterator[tuple[str, object]]":
        """As Node.figures."""
        for figure in Node.figures(self):
            yield figure
        yield "node", self.own_node
        yield "polls", self.latency.stats()
        yield "bursts", self._bursts
        yield "bursts_late", self.bursts_late
        yield "modules_lost", self.modules_lost
        yield "limp", self.limp.active
        app = self.app
        if app.keyed:
            yield (
                "app",
                {
                    "session": app.established,
                    "epoch": app.session_epoch,
                    "records": app.stats,
                    "dropped": self.env.workspace.reassembler.dropped,
                    "unsent": app.unsent,
                },
            )
        if self.slots:
            yield "modules", [(str(number), self.slots[number].figures) for number in sorted(self.slots)]
        else:
            yield "modules", {}

    # -- time of day ---------------------------------------------------------------------------------------------------

    def set_time(self, time_s: int) -> None:
        """Take the app's time and give it to the modules."""
        self._time_s = time_s
        self._time_ms = self.env.now_ms()
        self.commands.give_time()

    def time_s(self) -> int:
        """Unix time, 0 if it is not known."""
        if not self._time_s:
            return 0
        return self._time_s + (self.env.now_ms() - self._time_ms) // 1000

    # -- frames --------------------------------------------------------------------------------------------------------

    def take_frame(self, port: int, frame: "FrameLike") -> None:
        """Take a frame of either bus."""
        if not self.stirred:  # to set an attribute of a class with properties is dear (can_base.CanPort)
            self.stirred = True
        if port == VCU_BUS:
            if frame.is_extended_id:
                self._on_vcu(frame)
            else:
                self._on_standard(frame)
        elif frame.is_extended_id:
            self._on_module_bus(frame)

    def _on_standard(self, frame: "FrameLike") -> None:
        """An old VCU's command: only records command this pack, but for what the policy legacy-vcu lets it do."""
        if self.number >= STANDARD_PACKS:
            return
        base = frame.arbitration_id - (self.number << 8)
        if COMMAND <= base <= REQUEST_MODULE_LIST:
            if self.legacy is not None and self.vcu_policy.clear_lowers(base):
                self.legacy.take(base, frame.data)
            else:
                self.count("clear")
        elif self.sends(base):
            self.count("own-id")

    def _on_vcu(self, frame: "FrameLike") -> None:
        if frame.arbitration_id & RECORD_OF == ENCRYPTED | self.own_node:
            self._feed_app(frame)
        elif not frame.arbitration_id & ENCRYPTED:
            self._on_clear(frame)

    def _feed_app(self, frame: "FrameLike") -> None:
        event = self.app.feed(frame)
        if event is not None and self.observe(self.app, event):
            self.commands.obey(event)

    def _on_clear(self, frame: "FrameLike") -> None:
        """A frame of the VCU bus without bit 17."""
        arbitration_id = frame.arbitration_id
        node = arbitration_id & 0xFF
        base = base_of(arbitration_id)
        if node == self.own_node:
            if arbitration_id == compose(ISOTP_TO_PACK, node):
                if self._post.takes(arbitration_id, frame.data):
                    payload = self._post.feed(VCU_BUS, compose(ISOTP_FROM_PACK, node), arbitration_id, frame)
                    if payload is not None:
                        self._on_message(payload)
                return
            pairing = self.app.pairing(frame)
            if pairing is not None:
                self.endpoint.on_pairing(self.app, pairing)
            if base == VCU_LINK.handshake[0]:
                self._feed_app(frame)
                return
        if base == APP_ANNOUNCE_REQUEST and node in (0, NODE_APP, self.own_node):
            self._announce_ms = self.env.now_ms()
        elif node == self.own_node:
            if self.sends(base):
                self.count("own-id")
            elif DEFAULT_POLICY.needs_citation(base):
                self.count("clear")

    def _on_module_bus(self, frame: "FrameLike") -> None:
        # Records first: with more state than this a call takes heap (tests/on_target/test_call_frames.py).
        if frame.arbitration_id & ENCRYPTED:
            slot = self.slots.get(frame.arbitration_id & 0xFF)
            if slot is not None:
                event = slot.feed(frame)
                if event is not None:
                    self._on_event(slot, event)
                return
        self._on_other(frame)

    def _on_event(self, slot: Slot, event: "Event") -> None:
        if self.observe(slot, event):
            self._on_record(slot, event)
        elif event.kind == ESTABLISHED:
            self._on_session(slot)
        elif event.reason == TWIN:
            self._isolate(slot)

    def _on_other(self, frame: "FrameLike") -> None:
        """A frame of the module bus that is no module's record."""
        arbitration_id = frame.arbitration_id
        node = arbitration_id & 0xFF
        base = base_of(arbitration_id)
        slot = self.slots.get(node)
        if slot is not None:
            if base == ISOTP_FROM_MODULE:
                if arbitration_id == compose(ISOTP_FROM_MODULE, node) and self._post.takes(arbitration_id, frame.data):
                    payload = self._post.feed(MODULE_BUS, compose(ISOTP_TO_MODULE, node), arbitration_id, frame)
                    if payload is not None:
                        self._relay_back(slot, payload)
                return
            pairing = slot.pairing(frame)
            if pairing is not None:
                self.endpoint.on_pairing(slot, pairing)
            if base == MODULE_LINK.handshake[1]:
                event = slot.feed(frame)
                if event is not None:
                    self._on_event(slot, event)
                return
        if arbitration_id & ENCRYPTED:
            if not node and self.sends(base - self.module_bus.link.shift):
                self.count("own-id")  # a broadcast
            return
        if base == ANNOUNCEMENT:
            values = decode("ANNOUNCEMENT", frame.data)
            if values is not None:
                self._on_announcement(node, values)
        elif self.sends(base):
            self.count("own-id")
        elif slot is not None and slot.keyed and not DEFAULT_POLICY.clear_allowed(base, True):
            self.count("clear")

    # -- provisioning messages -----------------------------------------------------------------------------------------

    def _on_message(self, payload: bytes) -> None:
        target = target_of(payload)
        if target < 0:
            self.count("malformed")
        elif target == self.own_node:
            self.take_message(payload)
        else:
            slot = self.slots.get(target)
            if slot is None:
                self.endpoint.no_route(payload)
                return
            self._post.send(MODULE_BUS, compose(ISOTP_TO_MODULE, target), compose(ISOTP_FROM_MODULE, target), payload)

    def _relay_back(self, slot: Slot, payload: bytes) -> None:
        """A module's answer goes to the app unread; only whose it is gets checked."""
        if target_of(payload) != slot.number:
            self.count("relay")
            return
        if not slot.keyed:
            slot.heard_ms = self.env.now_ms()
        self.reply(payload)

    # -- registration --------------------------------------------------------------------------------------------------

    def _on_announcement(self, node: int, values: "dict[str, int]") -> None:
        now_ms = self.env.now_ms()
        unique_id = values["unique_id"]
        slot = None
        for other in self.slots.values():
            if other.unique_id == unique_id:
                slot = other
        if slot is None:
            wanted = self.slots.get(node)
            if wanted is not None and wanted.keyed:
                # Its number belongs to a module we have keys with; this one gets another, or claims to be that one.
                self.count("number-taken")
            slot = self._register(node if wanted is None else 0, unique_id)
            if slot is None:
                self.count("full")
                self.env.log("module %d cannot be registered: all numbers are in use" % unique_id)
                return
        if not slot.keyed:
            slot.heard_ms = now_ms
        elif node == slot.number:
            slot.row[BARE] = 0
            if slot.established and not slot.row[MISSES]:
                self._twin(node, _ANNOUNCEMENTS)
                self._challenge(slot, now_ms)
            # A module in session with us has said something in it before it announces.
            if not slot.established or slot.row[MISSES]:
                self._connect(slot)
            return
        if node == slot.number:
            return  # registered, and only asked whether it is there
        slot.row[BARE] = slot.keyed
        if slot.keyed and slot.number not in self._disowned:
            # It had an owner, and says it has none: it, or somebody in its name while it answers our polls.
            if slot.established and not slot.row[LOST]:
                self._disowned.append(slot.number)
            else:
                self.count("factory")
        data = encode(
            "REGISTRATION",
            module_id=slot.number,
            controller_id=self.number,
            manufacturer=values["manufacturer"],
            part=values["part"],
            unique_id=unique_id,
        )
        self._send_module(Frame(compose(REGISTRATION, NODE_UNREGISTERED), bytes(data)))

    def _twin(self, what: int, most: int) -> None:
        """Count what one module does at most `most` times between two requests to announce: more is two stations."""
        times = self._heard.get(what, 0) + 1
        self._heard[what] = times
        if times > most:
            self.count("twin")

    def _challenge(self, slot: Slot, now_ms: int) -> None:
        """A module that answers us has announced itself unasked: the first time after a request is the answer to that,
        however late a disturbed bus has brought it. Anybody can say that; who has its keys answers a HELLO, and a
        second one that does so is found. Not at every word, for a handshake costs both ends work."""
        if self._heard[slot.number] > 1 and slot.connecting_for_ms(now_ms) >= CHALLENGE_MS:
            self._connect(slot)

    def _isolate(self, slot: Slot) -> None:
        """Two stations have proved that they hold this module's keys: Off, and no session until it is keyed anew."""
        self._isolated |= 1 << slot.number - 1
        self.count("twin")
        self.env.log("module %d: another station has its keys too; isolated until it is keyed anew" % slot.number)
        slot.row[WANTED] = STATE_OFF
        slot.seal(MAX_STATE, self.broadcast.max_state(slot))
        slot.seal(ALL_ISOLATE, encode("ALL_ISOLATE"))
        channel = slot.channel
        if channel is not None:
            channel.disconnect()

    def _register(self, wanted: int, unique_id: int) -> "Slot | None":
        number = wanted
        if not 1 <= number <= NODE_MODULE_MAX:
            number = free_number(self.slots, self.env.now_ms())
        return self._add_slot(number, unique_id) if number else None

    # -- sessions with modules -----------------------------------------------------------------------------------------

    def _connect(self, slot: Slot) -> None:
        """Start a round of handshakes, at most one a second; the session there is lives on until one succeeds.

        Silence alone is no reason: after bus-off or sleep the session goes on.
        """
        now_ms = self.env.now_ms()
        if self._isolated >> slot.number - 1 & 1:
            return
        if slot.connecting_for_ms(now_ms) >= RECONNECT_MS:
            self._begin_round(slot, now_ms)

    def _begin_round(self, slot: Slot, now_ms: int) -> None:
        """Say HELLO; later, if so many others are under way that no more channels have room."""
        bit = 1 << slot.number - 1
        self._waiting |= bit
        oldest = None
        oldest_ms = -1
        under_way = 0
        for neighbour in self.module_bus.whole:
            if neighbour.connecting and neighbour is not slot:
                under_way += 1
                other = self.slots.get(neighbour.node)
                if other is not None and other.connecting_for_ms(now_ms) > oldest_ms:
                    oldest = other
                    oldest_ms = other.connecting_for_ms(now_ms)
        if under_way >= self.env.workspace.channels:
            if oldest is None or oldest_ms < RECONNECT_MS:
                return
            oldest.give_up()  # it says nothing: when it is there it announces itself
        self._waiting &= ~bit
        slot.connect_at(now_ms)
        slot.connect()

    def _connect_next(self, now_ms: int) -> None:
        """Say HELLO to modules that had to wait."""
        for slot in self._order:
            if self._waiting >> slot.number - 1 & 1:
                self._begin_round(slot, now_ms)

    def _on_session(self, slot: Slot) -> None:
        self._twin(-slot.number, _SESSIONS)
        slot.row[MISSES] = 0
        slot.poll_ms = None
        self.broadcast.join(slot.number)
        slot.seal(HARDWARE_REQUEST, encode("HARDWARE_REQUEST"))
        self.commands.send_time(slot)

    def _on_record(self, slot: Slot, event: "Event") -> None:
        """Keep what a module says."""
        base = base_of(event.arbitration_id)
        message = _MODULE_MESSAGES.get(base)
        if message is None or not fits(message, event.data):
            if base == INTERFERENCE and len(event.data) == 8:
                self.app.seal(BUS_INTERFERENCE, bytes((slot.number,)) + bytes(event.data[1:]))
            else:
                self.count("unsupported")
            return
        row = slot.row
        row[MISSES] = 0
        if row[LOST]:
            row[LOST] = 0
            self.env.log("module %d is back" % slot.number)
        got = _BITS.get(base, 0)
        state = slot.state
        if got:
            slot.take(got, event.data)
        if got == GOT_STATUS_1:
            # Unasked, or with another state: the app hears of it at once, not at the end of the poll.
            if state != slot.state or slot.poll_ms is None:
                self._send_state(slot)
        elif got == GOT_FAULT:
            if slot.poll_ms is None and slot.row[KNOWN] & GOT_STATUS_1:
                self._send_state(slot)
        elif got == GOT_HARDWARE:
            self.app.seal(MODULE_LIMITS, aggregate.module_limits(slot))
        elif base == TIME_REQUEST:
            self.commands.send_time(slot)
        elif base == GROUP_STATUS:
            self.broadcast.reported(slot.number, decode("GROUP_STATUS", event.data))
        self.commands.shown(slot, base)
        if got & GOT_ALL and slot.poll_ms is not None:
            slot.row[GOT] |= got
            if slot.row[GOT] & GOT_ALL == GOT_ALL:
                self._poll_answered(slot)

    def _send_state(self, slot: Slot) -> None:
        total, active = self._totals()
        self.app.seal(MODULE_STATE, aggregate.module_state(slot, total, active))
        self.app.seal(MODULE_POWER, aggregate.module_power(slot))

    def _totals(self) -> "tuple[int, int]":
        now_ms = self.env.now_ms()
        active = 0
        for slot in self._order:
            if slot.active(now_ms):
                active += 1
        return len(self.slots), active

    # -- polls ---------------------------------------------------------------------------------------------------------

    def _poll_answered(self, slot: Slot) -> None:
        self.latency.add(self.env.now_ms() - (slot.poll_ms or 0))
        slot.poll_ms = None
        slot.row[MISSES] = 0
        if self._disowned and slot.number in self._disowned:
            self._disowned.remove(slot.number)
            slot.row[BARE] = 0
            self.count("twin")  # it is there and has its keys
        if self.app.established:
            total, active = self._totals()
            for base, data in aggregate.module_details(slot, total, active):
                self.app.seal(base, data)

    def _poll_next(self, now_ms: int) -> None:
        """Poll one module, round robin; one that does not answer less often."""
        count = len(self._order)
        start = 0
        while start < count and self._order[start].number <= self._polled:
            start += 1
        for step in range(count):
            slot = self._order[(start + step) % count]
            if slot.poll_ms is not None and slot.row[MISSES] >= MISSES_TO_BACK_OFF:
                if now_ms - slot.poll_ms < BACK_OFF_MS:
                    continue
            if slot.established:
                self._polled = slot.number
                self._poll(slot, now_ms)
                return

    def _poll(self, slot: Slot, now_ms: int) -> None:
        if slot.poll_ms is not None:
            self.latency.missed += 1
            if not slot.row[GOT] & GOT_ALL:
                slot.row[MISSES] = min(255, slot.row[MISSES] + 1)
        slot.poll_ms = now_ms
        slot.row[GOT] = 0
        self._ask(slot)

    def _repeat(self, slot: Slot, now_ms: int) -> None:
        """Poll again, once a turn and out of it, where the next turn would come too late: nothing of the module can be
        cited by then. Or at once where nothing could be cited before: it has said something now."""
        got = slot.row[GOT]
        if got:
            wanted = got == GOT_STATUS_1
        else:
            age_ms = slot.age_ms(now_ms)
            wanted = 0 <= age_ms < CITATION_MAX_AGE_MS <= age_ms + POLL_MS * len(self._order) + STEP_MS
        if wanted:
            slot.row[GOT] = got | REPEATED
            self._ask(slot)

    def _ask(self, slot: Slot) -> None:
        slot.seal(STATUS_REQUEST, self.broadcast.request(slot))
        slot.seal(DETAIL_REQUEST, encode("DETAIL_REQUEST", cell_id=slot.next_cell()))
        if slot.spent:
            self._connect(slot)

    # -- time ----------------------------------------------------------------------------------------------------------

    def tick(self) -> int:
        """Do what is due; the ms until the next call is wanted."""
        now_ms = self.env.now_ms()
        self.burst_if_due()
        if now_ms - self._poll_ms >= 0:
            self._poll_ms += POLL_MS
            if now_ms - self._poll_ms >= 0:
                self._poll_ms = now_ms + POLL_MS
            self._poll_next(now_ms)
        wait = min(self.commands.tick(now_ms), self.broadcast.tick(now_ms))
        if now_ms - self._house_ms >= 0:
            self._house_ms = now_ms + _HOUSE_MS
            self._keep_house(now_ms)
        now_ms = self.env.now_ms()
        return max(1, min(wait, self._burst_ms - now_ms, self._poll_ms - now_ms, self._house_ms - now_ms))

    def hold_polls(self, modules: int) -> None:
        """A wave of commands goes out: the next poll waits for it, not behind it in the queue."""
        if modules >= _WAVE:
            self._poll_ms = max(self._poll_ms, self.env.now_ms() + _WAVE_MS * modules)

    def _keep_house(self, now_ms: int) -> None:
        self.app.tick()
        self._post.tick(now_ms)
        self.tick_seldom(now_ms)
        self.limp.tick(now_ms)
        if self.legacy is not None:
            self.legacy.tick()
        if self._waiting:
            self._connect_next(now_ms)
        for slot in list(self.slots.values()):
            if slot.keyed:
                slot.tick()
                if slot.poll_ms is not None and now_ms - slot.poll_ms >= _ANSWER_MS:
                    self._repeat(slot, now_ms)
                self._check_lost(slot, now_ms)
            elif now_ms - (slot.heard_ms or 0) > ABSENT_MS:
                del self.slots[slot.number]
        if now_ms - self._announce_ms >= 0:
            self._announce_ms = now_ms + (_SLOW_MS if self.app.keyed else _FAST_MS)
            self._announce()
        if now_ms - self._request_ms >= 0:
            young = now_ms - self._boot_ms < _FAST_UNTIL_MS
            self._request_ms = now_ms + (_FAST_MS if young else _SLOW_MS)
            self._heard = {}
            data = encode("ANNOUNCE_REQUEST", controller_id=self.number)
            self._send_module(Frame(compose(ANNOUNCE_REQUEST, NODE_UNREGISTERED), bytes(data)))

    def _check_lost(self, slot: Slot, now_ms: int) -> None:
        row = slot.row
        if row[LOST] or slot.active(now_ms):
            return
        was_there = row[KNOWN] & GOT_STATUS_1
        if was_there:
            row[LOST] = 1
            self.modules_lost += 1
            self.count("module-lost")
            self.env.log("module %d is silent: counted as off" % slot.number)
        # One that has not said anything yet is asked some times first.
        if (was_there or row[MISSES] >= MISSES_TO_BACK_OFF) and slot.number in self._disowned:
            self._disowned.remove(slot.number)
            self.count("factory")

    def _announce(self) -> None:
        identity = self.identity
        data = encode(
            "PACK_ANNOUNCEMENT",
            version=VERSION,
            claimed=1 if identity is not None and identity.claimed else 0,
            keyed=1 if self.app.keyed else 0,
            module_count=len(self.slots),
            pack_number=self.number,
            unique_id=self.unique_id,
        )
        self._send_vcu(Frame(compose(PACK_ANNOUNCEMENT, self.own_node), bytes(data)))

    # -- broadcast -----------------------------------------------------------------------------------------------------

    def burst_if_due(self) -> None:
        """Broadcast if it is time: first of all in a tick, and between the modules of anything that takes long, for an
        old VCU watches the period."""
        now_ms = self.env.now_ms()
        if now_ms - self._burst_ms >= 0:
            self._burst(now_ms)

    def _burst(self, now_ms: int) -> None:
        """What an old VCU expects every 500 ms, in clear, and the same to the app, sealed."""
        self._burst_ms += BURST_MS
        if now_ms - self._burst_ms >= 0:
            # A whole period was missed: go on from here, without a storm to catch up.
            self.bursts_late += 1
            self._burst_ms = now_ms + BURST_MS
        self._bursts += 1
        active = [slot for slot in self._order if slot.active(now_ms)]
        lost = len(self._order) - len(active)
        frames = aggregate.pack_frames(active, len(self.slots), lost, self.topology)
        if self.number < STANDARD_PACKS:
            offset = self.number << 8
            for base, data in frames:
                self._send_vcu(Frame(base + offset, bytes(data), False))
            if not self._time_s:
                self._send_vcu(Frame(VCU_TIME_REQUEST + offset, bytes(8), False))
        if self.app.established:
            for base, data in frames:
                self.app.seal(base, data)
            if self._bursts % _DIAGNOSTICS_BURSTS == 0:
                self.send_diagnostics()

    def send_diagnostics(self) -> None:
        """PACK_DIAGNOSTICS: counters over all links since boot."""
        opened = refused = sessions = 0
        for link in self.links():
            if not link.keyed:
                continue
            if link.established:
                sessions += 1
            for what, count in link.stats.items():
                if what == "opened":
                    opened += count
                elif what not in ("sealed", "established"):
                    refused += count
        counters = self.counters
        others = self.broadcast.refused_records
        for what, count in counters.items():
            if what == "short" or what.startswith("handshake"):
                others += count
        data = encode(
            "PACK_DIAGNOSTICS",
            records_opened=opened,
            records_refused=refused,
            sessions=sessions,
            handshakes=counters.get("sessions", 0),
            modules_lost=self.modules_lost,
            clear_refused=counters.get("clear", 0) + self.broadcast.refused_clear,
            replays=counters.get("replay", 0) + counters.get("old", 0),
            stale=counters.get("stale", 0),
            tags=counters.get("tag", 0),
            unknown_sessions=counters.get("unknown-session", 0),
            others_refused=others,
            limp=1 if self.limp.active else 0,
            legacy_commands=0 if self.legacy is None else self.legacy.commands,
            grant_left_s=0 if self.legacy is None else self.legacy.left_s(),
        )
        self.app.seal(PACK_DIAGNOSTICS, data)
