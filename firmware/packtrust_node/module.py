"""A battery module: found by announcement, keyed by its owner, and from then on obeying its pack's records alone."""

from packtrust import provision
from packtrust._compat import const
from packtrust.arbitration import (
    ENCRYPTED,
    NODE_BROADCAST,
    NODE_MODULE_MAX,
    NODE_UNREGISTERED,
    RECORD_OF,
    base_of,
    clear_of,
    compose,
)
from packtrust.crypto import wipe
from packtrust.frame import Frame
from packtrust.group import SECRET_LENGTH, GroupReceiver
from packtrust.handshake import RESPONDER
from packtrust.messages.bases import (
    ALL_DEREGISTER,
    ALL_ISOLATE,
    ANNOUNCE_REQUEST,
    ANNOUNCEMENT,
    BALANCE,
    CELL_COMM_STATUS1,
    DEREGISTER,
    DETAIL,
    DETAIL_REQUEST,
    FAULT_CODES,
    FRAME_TRANSFER_DATA,
    FRAME_TRANSFER_END,
    FRAME_TRANSFER_START,
    GROUP_KEY,
    GROUP_STATUS,
    HANDSHAKE_FROM_MODULE,
    HANDSHAKE_TO_MODULE,
    HARDWARE,
    HARDWARE_REQUEST,
    INTERFERENCE,
    ISOTP_FROM_MODULE,
    ISOTP_TO_MODULE,
    LIMITS,
    MAX_STATE,
    REGISTRATION,
    SET_TIME,
    STATE_CHANGE,
    STATUS_1,
    STATUS_2,
    STATUS_3,
    STATUS_REQUEST,
    TEST_FROM_MODULE,
    TIME_REQUEST,
)
from packtrust.messages.compact import decode, encode
from packtrust.messages.table import ALL_CELLS, STATE_OFF, STATE_ON
from packtrust.policy import DEFAULT_POLICY
from packtrust_node.links import module_link
from packtrust_node.neighbour import Bus, Neighbour
from packtrust_node.node import Node
from packtrust_node.post import Post, target_of
from packtrust_node.telemetry import Telemetry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from packtrust._typing import Buffer, FrameLike
    from packtrust.channel import Event
    from packtrust.isotp import Pieces
    from packtrust.package import KeyPackage
    from packtrust_node.cells import Cells
    from packtrust_node.env import Env

# Beside 0x500..0x50F.
_OURS = (
    FRAME_TRANSFER_START,
    FRAME_TRANSFER_DATA,
    FRAME_TRANSFER_END,
    ISOTP_FROM_MODULE,
    HANDSHAKE_FROM_MODULE,
    TEST_FROM_MODULE,
)

FIRMWARE_BUILD = const(8278)

ANNOUNCE_MS = const(1000)
ANNOUNCE_SPREAD_MS = const(50)
CELLS_MS = const(100)
CELLS_MAX = const(192)
DETAIL_MS = const(20)
PACK_LOSS_MS = const(11100)
# Two rounds of polls of the largest pack, and a bit.
LIMP_MS = const(6500)
_LIMP = const(16)  # of MAX_STATE's byte
_TICK_MS = const(50)
# What messages that prove nothing may take at once on a full bus: a pack polls more often than an app asks.
_ADVANCE_MS = const(100)

# Records refused, as the node counts them.
_REFUSED = (
    "tag",
    "replay",
    "old",
    "stale",
    "short",
    "unknown-session",
    "group-tag",
    "group-replay",
    "group-unknown",
    "group-short",
)


class ModuleNode(Node):
    """See the module's docstring. `cells`: packtrust_node.cells.Cells; port 0 is the module bus.

    config, beside what Node takes: manufacturer (2), part (3), max_charge_ma (10000) and max_discharge_ma (42000), both
    positive: what the hardware bears; limp_charge_ma and limp_discharge_ma, a quarter of these: what it gives in limp
    mode; hardware_version (1); mixed_bus; Telemetry's fault limits.
    """

    device_role = provision.ROLE_MODULE

    def __init__(self, env: "Env", config: "dict[str, object]", cells: "Cells") -> None:
        Node.__init__(self, env, config)
        self.own_node = NODE_UNREGISTERED
        if not 1 <= cells.count <= CELLS_MAX:
            raise ValueError("a module has 1..%d cells, not %d: check node.json" % (CELLS_MAX, cells.count))
        self.cells = cells
        self.state = STATE_OFF
        self.max_state = STATE_OFF
        self.balancing = False
        self.time_s = 0  # at _time_ms, 0: not known
        self._time_ms = 0
        self._manufacturer = config.get("manufacturer", 2)
        self._part = config.get("part", 3)
        self._registration = encode(
            "REGISTRATION", manufacturer=self._manufacturer, part=self._part, unique_id=self.unique_id
        )
        self._hardware = (config.get("max_charge_ma", 10000), config.get("max_discharge_ma", 42000))
        self.limp = False
        self._limp_limits = (
            config.get("limp_charge_ma", self._hardware[0] // 4),
            config.get("limp_discharge_ma", self._hardware[1] // 4),
        )
        self._given = self._hardware  # by the app
        self.limits = self._hardware  # in force
        self._link = module_link(config)
        self._heartbeat = compose(MAX_STATE + self._link.shift, NODE_BROADCAST)
        self._end_of_charge_mv = cells.count * 4200 * 95 // 100
        self.telemetry = Telemetry(cells, config, 0)
        self._pack = None  # type: Neighbour | None
        self._post = Post(env, _ADVANCE_MS)
        self._handshakes = Post(env, _ADVANCE_MS)  # their share of the time
        self._group = None  # type: GroupReceiver | None
        self._reported = (0, 0)  # what GROUP_STATUS last said of refusals
        self._announce_ms = 0
        self._asked = 0  # to announce, though registered; 2: first said in the session
        self._announced_ms = -ANNOUNCE_MS
        self._cells_ms = 0
        self._details = []  # type: list[int]
        self._detail_ms = 0

    # -- start and number ----------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Take the number the keys are for, if there are any; announce."""
        now_ms = self.env.now_ms()
        self.telemetry = Telemetry(self.cells, self.config, now_ms)
        self._measure()
        self._cells_ms = now_ms
        self._announce_soon()
        for relation in list(self.relations.values()):
            self._take_number(relation.node)
            self.install(relation)

    def _announce_soon(self) -> None:
        self.stirred = True
        # Modules that were switched on together do not all speak at once.
        spread = (self.unique_id & 0xFF) * ANNOUNCE_SPREAD_MS // 255
        self._announce_ms = self.env.now_ms() + spread

    def _take_number(self, number: int) -> None:
        if number == self.own_node:
            return
        if self._pack is not None:
            self._pack.close()  # its relationship is of the number it had
        self._drop_group()
        self.own_node = number
        if number == NODE_UNREGISTERED:
            self._pack = None
            return
        self._pack = Neighbour(Bus(self.env, 0, RESPONDER, self._link), number)

    def _send(self, frame: Frame) -> None:
        self.env.send(0, frame)

    # -- what Node asks for --------------------------------------------------------------------------------------------

    def neighbour(self, node: int) -> "Neighbour | None":
        """The pack, if `node` is our number."""
        return self._pack if node == self.own_node else None

    def refusal_of(self, package: "KeyPackage") -> int:
        """A module answers its pack, by the number it has now."""
        if package.role != RESPONDER or package.node != self.own_node:
            return provision.REFUSED_KEYS
        return 0

    def reply(self, payload: "Buffer | Pieces") -> None:
        """To the app, through the pack."""
        own = self.own_node
        if self._pack is not None:
            self._post.send(0, compose(ISOTP_FROM_MODULE, own), compose(ISOTP_TO_MODULE, own), payload)

    def tell(self, interference: "Buffer") -> bool:
        """To the pack, which passes it on."""
        return self._pack is not None and self._pack.seal(INTERFERENCE, interference)

    def sends(self, base: int) -> bool:
        """What a module says to its pack. Of these our filter lets in the handshake's and the transfers' only."""
        return base & 0x7F0 == ANNOUNCEMENT or base in _OURS

    def links(self) -> "list[Neighbour]":
        """The pack, if there is a number to reach it by."""
        return [] if self._pack is None else [self._pack]

    def unkeyed(self) -> None:
        """Keys and owner are gone: Off, and to be registered anew."""
        if self._pack is not None:
            self._pack.unkey()
        self._drop_group()
        self.max_state = STATE_OFF
        self._enter(STATE_OFF)
        self._announce_soon()

    @property
    def _is_keyed(self) -> bool:
        return self._pack is not None and self._pack.keyed

    @property
    def _is_live(self) -> bool:
        return self._pack is not None and self._pack.established

    def stale(self, neighbour: "Neighbour") -> None:
        """The pack gets something to cite."""
        self._send_status_1()

    def hears(self) -> "tuple[int, ...] | None":
        """Only the pack's frames for this module, for all, and for those without a number."""
        return (NODE_BROADCAST, self.own_node, NODE_UNREGISTERED)

    def figures(self) -> "Iterator[tuple[str, object]]":
        """As Node.figures."""
        for figure in Node.figures(self):
            yield figure
        yield "node", self.own_node
        yield "state", self.state
        yield "max_state", self.max_state
        yield "limp", self.limp
        yield "current_ma", self.cells.current_ma
        yield "session", self._is_live
        pack = self._pack
        if pack is not None and pack.keyed:
            yield "epoch", pack.session_epoch
            yield "records", pack.stats
            yield "dropped", self.env.workspace.reassembler.dropped
            yield "unsent", pack.unsent

    # -- frames --------------------------------------------------------------------------------------------------------

    def receive(self, port: int, frame: "FrameLike") -> None:
        """As Node.receive. The chunks of records first, by a short way: a flood may bring 3 600 of them a second."""
        pack = self._pack
        if (
            pack is not None
            and frame.arbitration_id & RECORD_OF == ENCRYPTED | self.own_node
            and frame.is_extended_id
            and not frame.is_remote_frame
        ):
            event = pack.feed(frame)
            if event is not None:
                self._on_event(pack, event)
        elif not frame.is_remote_frame and (frame.arbitration_id & ENCRYPTED or not frame.is_fd):
            self.take_frame(port, frame)

    def _on_event(self, pack: Neighbour, event: "Event") -> None:
        if self.observe(pack, event):
            self._obey(event)
        elif event.kind == "established":
            self._on_session()

    def take_frame(self, port: int, frame: "FrameLike") -> None:
        """Take a frame of the module bus that is no record of ours."""
        if not frame.is_extended_id:
            return
        node = frame.arbitration_id & 0xFF
        if node == self.own_node and self._pack is not None:
            self._take_own(self._pack, frame)
        elif node == 0 or node == NODE_UNREGISTERED:  # noqa: PLR1714 - no tuple for each frame
            if not frame.arbitration_id & ENCRYPTED:
                self._on_clear(base_of(frame.arbitration_id), node, frame.data)
            elif self._group is not None and clear_of(frame.arbitration_id) == self._heartbeat:
                self._on_broadcast(self._group, frame)

    def _take_own(self, pack: Neighbour, frame: "FrameLike") -> None:
        """Take a frame with our number that is no record."""
        arbitration_id = frame.arbitration_id
        base = base_of(arbitration_id)
        if base == HANDSHAKE_TO_MODULE:
            self._on_handshake(pack, frame)
        elif base == ISOTP_TO_MODULE and arbitration_id == base << 18 | self.own_node:
            self._on_transport(frame)
        elif not arbitration_id & ENCRYPTED:
            self._on_clear(base, self.own_node, frame.data)

    def _on_handshake(self, pack: Neighbour, frame: "FrameLike") -> None:
        """Take a frame of a handshake. Beside a session it can wait: the peer asks again."""
        share = self._handshakes
        if not pack.established:
            self._take_handshake(pack, frame)
        elif share.admits(frame.arbitration_id):
            began_ms = self.env.now_ms()
            self._take_handshake(pack, frame)
            share.spent(began_ms)

    def _take_handshake(self, pack: Neighbour, frame: "FrameLike") -> None:
        pairing = pack.pairing(frame)
        if pairing is not None:
            self.stirred = True
            self.endpoint.on_pairing(pack, pairing)
        event = pack.feed(frame)
        if event is not None:
            self._on_event(pack, event)

    def _on_transport(self, frame: "FrameLike") -> None:
        post = self._post
        if post.takes(frame.arbitration_id, frame.data):
            self.stirred = True
            payload = post.feed(0, compose(ISOTP_FROM_MODULE, self.own_node), frame.arbitration_id, frame)
            if payload is not None:
                self._on_message(payload)

    def _on_message(self, payload: bytes) -> None:
        target = target_of(payload)
        if target < 0:
            self.count("malformed")
        elif target == self.own_node:
            self.take_message(payload)
        else:
            self.count("target")

    def fell_behind(self, now_ms: int) -> None:
        """As Node.fell_behind, and for handshakes too."""
        Node.fell_behind(self, now_ms)
        self._handshakes.behind_ms = self._post.behind_ms

    def _on_clear(self, base: int, node: int, data: "Buffer") -> None:
        """A frame anybody could have sent, as many as the bus has room for: nothing here takes heap for what is refused
        (tests/on_target/test_call_frames.py)."""
        if base == ANNOUNCE_REQUEST:
            # Also in a session: the pack that asks may have lost its memory. A flood gets one answer a second.
            if not self._asked and self.env.now_ms() - self._announced_ms >= ANNOUNCE_MS:
                self._asked = 1
                self._announce_soon()
        elif base == REGISTRATION:
            if self._is_meant(data):
                if self._is_keyed:
                    self.count("clear")
                elif 1 <= data[0] <= NODE_MODULE_MAX:
                    self._take_number(data[0])
        elif node == NODE_UNREGISTERED:
            return
        elif self._pack is not None and self._pack.keyed:
            if DEFAULT_POLICY.needs_citation(base):  # which is nothing that we send
                if DEFAULT_POLICY.clear_without_session(base) and not self._is_live:
                    self._isolate()
                else:
                    self.count("clear")
            elif node == self.own_node and self.sends(base):
                self.count("own-id")
        elif base in (DEREGISTER, ALL_DEREGISTER):
            self._take_number(NODE_UNREGISTERED)
            self._announce_soon()

    def _is_meant(self, data: "Buffer") -> bool:
        """Whether a REGISTRATION is for us. Its first byte is the number, the second the controller's."""
        meant = self._registration
        if len(data) != len(meant):
            return False
        at = 2
        while at < len(meant):
            if data[at] != meant[at]:
                return False
            at += 1
        return True

    # -- records -------------------------------------------------------------------------------------------------------

    def _on_session(self) -> None:
        if not self.time_s:
            self._seal(TIME_REQUEST, bytes(8))

    def _seal(self, base: int, data: "Buffer") -> None:
        if self._pack is not None:
            self._pack.seal(base, data)

    def _obey(self, event: "Event") -> None:
        """What the pack's record asks for."""
        base = base_of(event.arbitration_id)
        data = event.data
        if base == STATUS_REQUEST:
            self._on_status_request(decode("STATUS_REQUEST", data))
        elif base == MAX_STATE:
            self._on_max_state(decode("MAX_STATE", data))
        elif base == DETAIL_REQUEST:
            self._on_detail_request(decode("DETAIL_REQUEST", data))
        elif base == STATE_CHANGE:
            self._on_state_change(decode("STATE_CHANGE", data))
        elif base == LIMITS:
            self._on_limits(decode("LIMITS", data))
        elif base == BALANCE:
            self._on_balance(decode("BALANCE", data))
        elif base == HARDWARE_REQUEST:
            self._send_hardware()
        elif base == GROUP_KEY:
            self._on_group_key(data)
        elif base == SET_TIME:
            self._on_set_time(decode("SET_TIME", data))
        elif base in (DEREGISTER, ALL_DEREGISTER, ALL_ISOLATE):
            self._isolate()
        else:
            self.count("unsupported")

    def _on_status_request(self, values: "dict[str, int] | None") -> None:
        if values is None:
            self.count("length")
            return
        telemetry = self.telemetry
        self._advance()
        self._measure()
        self._set_limp(values["limp"] != 0)
        self._lower(values["max_state"])
        self._seal(STATUS_1, telemetry.status_1(self.state))
        self._seal(STATUS_2, telemetry.status_2())
        self._seal(STATUS_3, telemetry.status_3())
        self._seal(CELL_COMM_STATUS1, telemetry.cell_comm())
        self._seal(FAULT_CODES, telemetry.fault_codes())
        if self._group is not None:
            self._group.skip_to(values.get("beat", 0))
            if self._refusals() != self._reported:
                self._send_group_status(self._group)

    def _on_max_state(self, values: "dict[str, int] | None") -> None:
        if values is None:
            self.count("length")
            return
        self._set_limp(values["limp"] != 0)
        self._lower(values["max_state"])

    # -- broadcasts ----------------------------------------------------------------------------------------------------

    def _on_group_key(self, data: "Buffer") -> None:
        pack = self._pack
        values = decode("GROUP_KEY", data)
        if values is None or pack is None or pack.relation is None:
            self.count("length")
            return
        self._drop_group()
        secret = memoryview(data)[4 : 4 + SECRET_LENGTH]
        group = GroupReceiver(self.env.workspace, secret, pack.relation.peer_fingerprint, values["beat"])
        wipe(secret)
        self.keys_ended()
        self._group = group
        self._send_group_status(group)

    def _drop_group(self) -> None:
        if self._group is not None:
            self._group.wipe()
            self._group = None
            self.keys_ended()

    def _on_broadcast(self, group: GroupReceiver, frame: "FrameLike") -> None:
        """The heartbeat: any member could have sealed it, so it only lowers, and keeps nobody alive."""
        data = group.feed(frame, self.env.now_ms())
        if data is None:
            if group.reason:
                self.count("group-" + group.reason)
        elif len(data) == 1:
            state = data[0] & 15
            if data[0] & _LIMP:
                self._set_limp(True)
            if state < self.max_state:
                self._lower(state)

    def _refusals(self) -> "tuple[int, int]":
        """Refused since the node started: clear frames that should have been sealed, and records."""
        records = 0
        for what, count in self.counters.items():
            if what in _REFUSED:
                records += count
        return self.counters.get("clear", 0), records

    def _send_group_status(self, group: GroupReceiver) -> None:
        self._reported = self._refusals()
        data = encode(
            "GROUP_STATUS",
            key_id=group.key_id,
            clear_refused=self._reported[0],
            records_refused=self._reported[1],
            limp=1 if self.limp else 0,
        )
        self._seal(GROUP_STATUS, data)

    def _lower(self, max_state: int) -> None:
        """Take the pack's highest state; it lowers at once and never raises."""
        self.max_state = min(max_state, STATE_ON)
        if self.state > self.max_state:
            self._enter(self.max_state)
            self._send_status_1()

    def _on_detail_request(self, values: "dict[str, int] | None") -> None:
        if values is None:
            self.count("length")
        elif values["cell_id"] == ALL_CELLS:
            self._details = list(range(self.cells.count))
            self._detail_ms = self.env.now_ms()
        elif values["cell_id"] < self.cells.count:
            self._send_detail(values["cell_id"])
        else:
            self.count("no-cell")

    def _on_state_change(self, values: "dict[str, int] | None") -> None:
        if values is None or "state" not in values or values["state"] > STATE_ON:
            self.count("length")
            return
        self._enter(min(values["state"], self.max_state))
        self._send_status_1()

    def _on_limits(self, values: "dict[str, int] | None") -> None:
        if values is None:
            self.count("length")
            return
        # Never above what the hardware bears; a negative limit means none at all.
        self._given = (
            max(0, min(self._hardware[0], values["max_charge_ma"])),
            max(0, min(self._hardware[1], values["max_discharge_ma"])),
        )
        if values["end_of_charge_mv"]:
            highest = self.cells.count * 4200 * 95 // 100
            self._end_of_charge_mv = min(highest, values["end_of_charge_mv"])
        self._apply_limits()

    def _set_limp(self, on: bool) -> None:
        """Enter or leave limp mode: little current, whatever the app allows."""
        if on == self.limp:
            return
        self.limp = on
        self.env.log("limp mode" if on else "limp mode has ended")
        self._apply_limits()

    def _apply_limits(self) -> None:
        self._advance()
        given = self._given
        limp = self._limp_limits
        self.limits = (min(given[0], limp[0]), min(given[1], limp[1])) if self.limp else given
        self._settle()
        self._send_hardware()
        self._send_status_1()

    def _on_balance(self, values: "dict[str, int] | None") -> None:
        if values is None:
            self.count("length")
            return
        self.balancing = values["on"] != 0
        if values["threshold_mv"]:
            self.telemetry.balanced_mv = values["threshold_mv"]
        self._advance()
        self._settle()
        self._seal(FAULT_CODES, self.telemetry.fault_codes())

    def _on_set_time(self, values: "dict[str, int] | None") -> None:
        if values is None:
            self.count("length")
        elif values["valid"]:
            self.time_s = values["time_s"]
            self._time_ms = self.env.now_ms()

    def _send_hardware(self) -> None:
        data = encode(
            "HARDWARE",
            max_charge_ma=self.limits[0],
            max_discharge_ma=self.limits[1],
            end_of_charge_mv=self._end_of_charge_mv,
            hardware_version=int(self.config.get("hardware_version", 1)),
        )
        self._seal(HARDWARE, data)

    def _send_status_1(self) -> None:
        self._measure()
        self._seal(STATUS_1, self.telemetry.status_1(self.state))

    # -- state and cells -----------------------------------------------------------------------------------------------

    def _isolate(self) -> None:
        self.max_state = STATE_OFF
        self._enter(STATE_OFF)
        self._send_status_1()

    def _enter(self, state: int) -> None:
        if state == self.state:
            return
        self._advance()
        self.env.log("state %d to %d" % (self.state, state))
        self.state = state
        self._settle()

    def _advance(self) -> None:
        """Let the cells' time catch up with ours."""
        now_ms = self.env.now_ms()
        self._update_cells(now_ms - self._cells_ms)
        self._cells_ms = now_ms

    def _settle(self) -> None:
        """Let the cells take on a new state, limit or balancing at once: no time passes."""
        self._update_cells(0)

    def _update_cells(self, dt_ms: int) -> None:
        try:
            self.cells.update(dt_ms, self.state, self.limits, self.balancing)
            self.telemetry.failed = False
        except Exception as error:  # an integrator's driver may raise anything
            self._cells_failed(error)

    def _measure(self) -> None:
        try:
            self.telemetry.measure(self.limits, self.env.now_ms())
        except Exception as error:  # as above; the last good values stay
            self._cells_failed(error)

    def _send_detail(self, cell: int) -> None:
        try:
            data = self.telemetry.detail(cell)
        except Exception as error:  # as above; the pack counts the answer as missed
            self._cells_failed(error)
            return
        self._seal(DETAIL, data)

    def _cells_failed(self, error: Exception) -> None:
        """The cell source does not work: a hardware fault the pack is told of."""
        if not self.telemetry.failed:
            self.count("cells")
            self.env.log("cells: %s" % type(error).__name__)
        self.telemetry.fail(self.env.now_ms())

    # -- time ----------------------------------------------------------------------------------------------------------

    def tick(self) -> int:
        """Do what is due; the ms until the next call is wanted."""
        now_ms = self.env.now_ms()
        pack = self._pack
        if pack is not None:
            pack.tick()
        self._post.tick(now_ms)
        self.tick_seldom(now_ms)
        if now_ms - self._cells_ms >= CELLS_MS:
            self._advance()
        lost = self._check_loss(now_ms)
        if now_ms - self._announce_ms >= 0:
            self._announce_ms = now_ms + ANNOUNCE_MS
            if self._seeks_pack() or self._asked > 1 or (self._asked and not self._is_live):
                self._asked = 0
                self._announced_ms = now_ms
                self._announce()
            elif self._asked or lost:
                # In the session: a pack that has it too needs no handshake, and can cite us. One that asks hears that
                # first, and a turn later the announcement, which a controller may send before what is older.
                if self._asked:
                    self._asked = 2
                    self._announce_ms = now_ms + _TICK_MS
                self._send_status_1()
        if self._details and now_ms - self._detail_ms >= 0:
            self._detail_ms = now_ms + DETAIL_MS
            self._send_detail(self._details.pop(0))
        wait = min(_TICK_MS, self._cells_ms + CELLS_MS - now_ms, self._announce_ms - now_ms)
        return max(1, min(wait, DETAIL_MS) if self._details else wait)

    def _seeks_pack(self) -> bool:
        """Whether there is no pack yet, or keys with it and no session that can be used."""
        pack = self._pack
        return pack is None or (pack.keyed and (pack.spent or not pack.established))

    def _check_loss(self, now_ms: int) -> bool:
        """Off when nothing authentic has come for too long: an attacker's frames keep no module alive."""
        pack = self._pack
        if pack is None or pack.heard_ms is None:
            return False
        silent_ms = now_ms - pack.heard_ms
        if silent_ms > LIMP_MS:
            self._set_limp(True)  # until the next poll
        if silent_ms <= PACK_LOSS_MS:
            return False
        if self.state != STATE_OFF:
            self.count("pack-lost")
            self.env.log("no record of the pack for %d ms: Off" % PACK_LOSS_MS)
            self.max_state = STATE_OFF
            self._enter(STATE_OFF)
        return True

    def _announce(self) -> None:
        data = encode(
            "ANNOUNCEMENT",
            firmware_build=FIRMWARE_BUILD,
            manufacturer=self._manufacturer,
            part=self._part,
            unique_id=self.unique_id,
        )
        self._send(Frame(compose(ANNOUNCEMENT, self.own_node), bytes(data)))
