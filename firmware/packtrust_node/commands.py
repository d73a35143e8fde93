"""What an app may make a pack do: scope, passing on to the modules, results, and what happens when it falls silent.

Only records of the app's session come here. A command is answered by COMMAND_RESULT: refused at once, or obeyed when
the module's own authentic message shows it.

What goes to many modules goes to a few at a time, as far as the queue has room: meanwhile the loop hears what the first
have to answer, and no record is lost in a queue that is full. What is said is what holds when it is said.
"""

from struct import pack_into, unpack_from

from packtrust._compat import const
from packtrust.arbitration import base_of
from packtrust.messages.bases import (
    ALL_ISOLATE,
    BALANCE,
    CELL_DETAIL,
    COMMAND,
    COMMAND_RESULT,
    DIAGNOSTICS_REQUEST,
    EEPROM_DATA,
    FAULT_CODES,
    HARDWARE,
    KEEP_ALIVE,
    LEGACY_GRANT,
    LIMITS,
    LIMITS_COMMAND,
    MAX_STATE,
    MODULE_COMMAND,
    MODULE_FAULT,
    MODULE_LIST,
    READ_EEPROM,
    REQUEST_MODULE_LIST,
    SET_TIME,
    STATE_CHANGE,
    STATUS_1,
    TIME,
    WRITE_EEPROM,
)
from packtrust.messages.compact import decode, encode
from packtrust.messages.table import (
    ASK_CELLS,
    ASK_COUNTERS,
    ASK_FAULT,
    RESULT_OBEYED,
    RESULT_REFUSED,
    RESULT_TIMEOUT,
    RESULT_UNREACHABLE,
    STATE_OFF,
    STATE_STANDBY,
)
from packtrust.package import (
    SCOPE_BALANCE,
    SCOPE_CONFIG,
    SCOPE_DIAGNOSTICS,
    SCOPE_LIMITS,
    SCOPE_STATE,
    SCOPE_TIME,
)
from packtrust_node.aggregate import is_obeyed, kept_cell, module_fault
from packtrust_node.node import PORT_MODULE_BUS
from packtrust_node.relation import SCOPE_AT
from packtrust_node.slots import GOT_FAULT, GOT_STATUS_1, HV_BUS_MV, KNOWN, RESENDS_LEFT, UNKNOWN_MV, WANTED, Pending

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust.channel import Event
    from packtrust_node.pack import PackNode
    from packtrust_node.slots import Slot

# `reason` of COMMAND_RESULT.
REASON_NONE = const(0)
REASON_SCOPE = const(1)  # the app's package does not allow it
REASON_MODULE = const(2)  # no such module
REASON_VALUE = const(3)  # a value this pack does not know
REASON_SUPERSEDED = const(4)  # another command came before the module had obeyed

STANDBY_MS = const(600)
OFF_MS = const(1200)
RESENDS = const(2)
DEADLINE_MS = const(3000)
_CELL_MS = const(5)
# Modules that are sent something at a time, and each needs room for three records.
_TURN = const(4)
_ROOM = const(15)
_PENDING_MAX = const(8)


_REGISTER_PACK_NUMBER = const(3)
_ROUNDING_MA = const(20)


class Commands:
    """The app's commands to one pack."""

    def __init__(self, pack: "PackNode") -> None:
        self._pack = pack
        self._app_ms = 0  # when the app's last command or keep-alive came
        self._guarded = False  # a state above Standby was commanded: who did so must stay
        self._by_vcu = False  # that was an old VCU, in clear (legacy-vcu)
        self._vcu_ms = 0
        self._balancing = {}  # type: dict[int, int]
        self._pending = {}  # type: dict[int, tuple[Pending, ...]]  # by module, where there are any
        self._outbox = []  # type: list[tuple[Slot, Pending | int]]  # to be sent: a command of the app, or a base
        self._cells = []  # type: list[tuple[int, int]]
        self._cells_ms = 0

    # -- from the app --------------------------------------------------------------------------------------------------

    def obey(self, event: "Event") -> None:
        """Take a record of the app."""
        self._app_ms = self._pack.env.now_ms()
        base = base_of(event.arbitration_id)
        values = decode_or_none(base, event.data)
        if base == KEEP_ALIVE:
            return
        if values is None:
            self._pack.count("unsupported")
            return
        if base in (COMMAND, MODULE_COMMAND):
            self._on_state(base, event.counter, values)
        elif base == LIMITS_COMMAND:
            self._on_limits(event.counter, values)
        elif base == TIME:
            if self._allowed(base, event.counter, SCOPE_TIME):
                self._pack.set_time(values["time_s"])
                self._result(base, 0, RESULT_OBEYED, REASON_NONE, event.counter)
        elif base == REQUEST_MODULE_LIST:
            self._send_list()
        elif base == LEGACY_GRANT:
            if self._allowed(base, event.counter, SCOPE_STATE):
                self._on_grant(event.counter, values)
        elif base == DIAGNOSTICS_REQUEST:
            if self._allowed(base, event.counter, SCOPE_DIAGNOSTICS):
                self._on_diagnostics(event.counter, values)
        elif self._allowed(base, event.counter, SCOPE_CONFIG):
            self._on_eeprom(base, event.counter, values)

    def _allowed(self, base: int, counter: int, scope: int, module: int = 0) -> bool:
        """Whether the app's package gives it all of `scope`; else refuse."""
        relation = self._pack.app.relation
        if relation is not None and unpack_from(">H", relation.row, SCOPE_AT)[0] & scope == scope:
            return True
        self._pack.count("scope")
        self._result(base, module, RESULT_REFUSED, REASON_SCOPE, counter)
        return False

    def _result(self, base: int, module: int, result: int, reason: int, counter: int) -> None:
        data = encode(
            "COMMAND_RESULT",
            command=base & 0xFF,
            module_id=module,
            result=result,
            reason=reason,
            counter=counter & 0xFFFFFFFF,
        )
        self._pack.app.seal(COMMAND_RESULT, data)

    def _targets(self, module: int) -> "list[Slot]":
        """The keyed modules a command is for; 0: all."""
        slots = self._pack.keyed_slots()
        return slots if module == 0 else [slot for slot in slots if slot.number == module]

    # -- state, isolation and balancing --------------------------------------------------------------------------------

    def _on_state(self, base: int, counter: int, values: "dict[str, int]") -> None:
        module = values.get("module_id", 0)
        state = values["contactor_state"]
        balance = values["balance"]
        isolation = values["isolation"]
        targets = self._targets(module)
        if not targets:
            self._result(base, module, RESULT_REFUSED, REASON_MODULE, counter)
            return
        if balance > 1 or isolation > 1:
            self._result(base, module, RESULT_REFUSED, REASON_VALUE, counter)
            return
        # An app needs a scope for what it changes: the message always carries both state and balancing.
        scope = SCOPE_STATE if isolation else 0
        for slot in targets:
            if slot.row[WANTED] != state:
                scope |= SCOPE_STATE
            if self._balancing.get(slot.number, 0) != balance:
                scope |= SCOPE_BALANCE
        if not self._allowed(base, counter, scope, module):
            return
        if isolation:
            state = STATE_OFF
        if module == 0 or state > STATE_STANDBY:
            self._guarded = state > STATE_STANDBY
            self._by_vcu = False
            if self._guarded:
                self._pack.limp.renew(self._app_ms)
        self._pack.hold_polls(len(targets))
        lowers = False
        for slot in targets:
            lowers = lowers or slot.row[WANTED] > state
            if self._balancing.get(slot.number, 0) != balance:
                self._balancing[slot.number] = balance
                self._pass_on(slot, Pending(base, counter, FAULT_CODES, self._deadline()))
            self._want(slot, state, values["hv_bus_mv"])
            if isolation and (slot, ALL_ISOLATE) not in self._outbox:
                self._outbox.append((slot, ALL_ISOLATE))
            self._pass_on(slot, Pending(base, counter, STATUS_1, self._deadline(), state))
        if lowers and module == 0:
            self._pack.broadcast.send()  # one record for all, before one for each
        self._send_next()

    def _deadline(self) -> int:
        return self._pack.env.now_ms() + DEADLINE_MS

    def _want(self, slot: "Slot", state: int, hv_bus_mv: int) -> None:
        if slot.row[WANTED] != state:
            self._supersede(slot, STATUS_1)
        slot.row[WANTED] = state
        slot.row[RESENDS_LEFT] = RESENDS
        pack_into("<I", slot.row, HV_BUS_MV, hv_bus_mv)
        slot.resend_later(self._pack.env.now_ms())

    def _send_state(self, slot: "Slot") -> None:
        if slot.row[WANTED] > slot.state:
            # The module goes no higher than the highest state it was last given.
            slot.seal(MAX_STATE, self._pack.broadcast.max_state(slot))
        data = encode("STATE_CHANGE", state=slot.row[WANTED], hv_bus_mv=unpack_from("<I", slot.row, HV_BUS_MV)[0])
        slot.seal(STATE_CHANGE, data)

    def _pass_on(self, slot: "Slot", pending: Pending) -> None:
        """Have a command sent, and wait until it is obeyed."""
        if pending.answer != STATUS_1:  # of states, only another one
            self._supersede(slot, pending.answer)
        if not slot.established:
            self._result(pending.command, slot.number, RESULT_UNREACHABLE, REASON_NONE, pending.counter)
            return
        others = self._pending_of(slot)
        if len(others) >= _PENDING_MAX:
            self._end(slot, others[0], RESULT_REFUSED, REASON_SUPERSEDED)
        self._pending[slot.number] = self._pending_of(slot) + (pending,)
        self._outbox.append((slot, pending))

    def _send_next(self) -> None:
        """Send what waits, as far as there is room."""
        turn = _TURN
        while turn and self._outbox and self._pack.env.room(PORT_MODULE_BUS) >= _ROOM:
            turn -= 1
            self._pack.burst_if_due()
            slot, what = self._outbox.pop(0)
            if isinstance(what, Pending):
                if not self._send(slot, what):
                    self._end(slot, what, RESULT_UNREACHABLE)
            elif what == SET_TIME:
                self.send_time(slot)
            elif what == STATE_CHANGE:
                self._send_state(slot)
            elif what == ALL_ISOLATE:
                slot.seal(ALL_ISOLATE, encode("ALL_ISOLATE"))
            else:
                slot.seal(MAX_STATE, self._pack.broadcast.max_state(slot))

    def _send(self, slot: "Slot", pending: Pending) -> bool:
        if pending.answer == STATUS_1:
            slot.resend_later(self._pack.env.now_ms())
            self._send_state(slot)
            return True  # if it could not be sent it will be again
        if pending.answer == FAULT_CODES:
            return slot.seal(BALANCE, encode("BALANCE", on=self._balancing.get(slot.number, 0)))
        limits = pending.limits
        data = encode("LIMITS", max_charge_ma=limits[0], max_discharge_ma=limits[1], end_of_charge_mv=limits[2])
        return slot.seal(LIMITS, data)

    def _pending_of(self, slot: "Slot") -> "tuple[Pending, ...]":
        return self._pending.get(slot.number, ())

    def _end(self, slot: "Slot", pending: Pending, result: int, reason: int = REASON_NONE) -> None:
        others = tuple([other for other in self._pending_of(slot) if other is not pending])
        if others:
            self._pending[slot.number] = others
        else:
            self._pending.pop(slot.number, None)
        if (slot, pending) in self._outbox:
            self._outbox.remove((slot, pending))
        self._result(pending.command, slot.number, result, reason, pending.counter)

    def _supersede(self, slot: "Slot", answer: int) -> None:
        for pending in self._pending_of(slot):
            if pending.answer == answer:
                self._end(slot, pending, RESULT_REFUSED, REASON_SUPERSEDED)

    def shown(self, slot: "Slot", base: int) -> None:
        """An authentic message `base` of the module has been taken into `slot`."""
        for pending in self._pending_of(slot):
            if pending.answer == base and _is_obeyed(slot, pending):
                self._end(slot, pending, RESULT_OBEYED)

    # -- limits, time, diagnostics, registers --------------------------------------------------------------------------

    def _on_limits(self, counter: int, values: "dict[str, int]") -> None:
        module = values["module_id"]
        targets = self._targets(module)
        if not targets:
            self._result(LIMITS_COMMAND, module, RESULT_REFUSED, REASON_MODULE, counter)
            return
        if not self._allowed(LIMITS_COMMAND, counter, SCOPE_LIMITS, module):
            return
        limits = (values["max_charge_ma"], values["max_discharge_ma"], values["end_of_charge_mv"])
        self._pack.hold_polls(len(targets))
        for slot in targets:
            self._pass_on(slot, Pending(LIMITS_COMMAND, counter, HARDWARE, self._deadline(), limits=limits))
        self._send_next()

    def give_time(self) -> None:
        """Give all modules the time."""
        for slot in self._pack.keyed_slots():
            if (slot, SET_TIME) not in self._outbox:
                self._outbox.append((slot, SET_TIME))
        self._send_next()

    def send_time(self, slot: "Slot") -> None:
        """Give a module the time, if it is known."""
        time_s = self._pack.time_s()
        if time_s:
            slot.seal(SET_TIME, encode("SET_TIME", time_s=time_s, valid=1))

    def _send_list(self) -> None:
        mask = 0
        for slot in self._pack.keyed_slots():
            mask |= 1 << slot.number
        self._pack.app.seal(MODULE_LIST, encode("MODULE_LIST", modules=mask))

    def _on_diagnostics(self, counter: int, values: "dict[str, int]") -> None:
        what = values["what"]
        module = values["module_id"]
        if what == ASK_COUNTERS:
            self._pack.send_diagnostics()
            return
        targets = self._targets(module)
        if not targets or what not in (ASK_FAULT, ASK_CELLS):
            reason = REASON_VALUE if targets else REASON_MODULE
            self._result(DIAGNOSTICS_REQUEST, module, RESULT_REFUSED, reason, counter)
            return
        for slot in targets:
            if what == ASK_FAULT and slot.row[KNOWN] & GOT_FAULT:
                self._pack.app.seal(MODULE_FAULT, module_fault(slot))
            elif what == ASK_CELLS:
                # Out of what the polls have brought, a few at a time: a hundred cells are 500 frames.
                self._cells = [item for item in self._cells if item[0] != slot.number]
                for cell in range(slot.cell_count):
                    self._cells.append((slot.number, cell))

    def _on_eeprom(self, base: int, counter: int, values: "dict[str, int]") -> None:
        """The field's registers: the pack's number can be read, nothing can be written."""
        if base == READ_EEPROM and values["register"] == _REGISTER_PACK_NUMBER:
            number = self._pack.own_node & 15
            data = encode("EEPROM_DATA", register=_REGISTER_PACK_NUMBER, value=number)
            self._pack.app.seal(EEPROM_DATA, data)
            return
        self._result(base, 0, RESULT_REFUSED, REASON_VALUE, counter)

    def _on_grant(self, counter: int, values: "dict[str, int]") -> None:
        legacy = self._pack.legacy
        if legacy is not None and legacy.grant(values["max_state"], values["grant_s"]):
            self._result(LEGACY_GRANT, 0, RESULT_OBEYED, REASON_NONE, counter)
        else:
            self._result(LEGACY_GRANT, 0, RESULT_REFUSED, REASON_VALUE, counter)

    # -- an old VCU, in clear (legacy-vcu) -----------------------------------------------------------------------------

    def vcu_heard(self) -> None:
        """It keeps alive what it raised itself, and nothing that the app has."""
        self._vcu_ms = self._pack.env.now_ms()

    def raise_for_vcu(self, state: int, hv_bus_mv: int) -> None:
        """Raise every module that is below `state`: the app has granted it."""
        self._guarded = state > STATE_STANDBY
        self._by_vcu = True
        for slot in self._pack.keyed_slots():
            if slot.row[WANTED] < state:
                self._want(slot, state, hv_bus_mv)
                self._outbox.append((slot, STATE_CHANGE))
        self._send_next()

    # -- time ----------------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """The app's keys are gone."""
        self._guarded = False
        self._balancing = {}
        self._pending = {}
        self._outbox = []
        self._cells = []

    def tick(self, now_ms: int) -> int:
        """Do what is due; the ms until the next call is wanted."""
        if self._guarded:
            silent_ms = now_ms - (self._vcu_ms if self._by_vcu else self._app_ms)
            if silent_ms > OFF_MS:
                self._guarded = False
                self._lose(STATE_OFF)
            elif silent_ms > STANDBY_MS:
                self._lose(STATE_STANDBY)
        if self._outbox:
            self._send_next()
        for slot in self._pack.keyed_slots():
            for pending in self._pending_of(slot):
                if now_ms - pending.deadline_ms >= 0:
                    self._end(slot, pending, RESULT_TIMEOUT)
            row = slot.row
            if not row[RESENDS_LEFT]:
                continue
            if row[WANTED] == slot.state:
                row[RESENDS_LEFT] = 0
            elif slot.resend_due(now_ms):
                row[RESENDS_LEFT] -= 1
                slot.resend_later(now_ms)
                self._outbox.append((slot, STATE_CHANGE))
        if self._outbox:
            return 1
        if not self._cells:
            return 50
        if now_ms - self._cells_ms >= _CELL_MS:
            self._cells_ms = now_ms
            self._send_cell()
        return _CELL_MS

    def _lose(self, state: int) -> None:
        """The app is silent: no module above `state`. It does not come back by itself when the app does."""
        if self.lower(state):
            self._pack.count("app-lost")
            self._pack.env.log("nothing from the app: modules to state %d at most" % state)

    def lower(self, state: int) -> bool:
        """No module above `state`, from now on; whether one was."""
        lowered = [slot for slot in self._pack.keyed_slots() if slot.row[WANTED] > state]
        if lowered:
            for slot in lowered:
                slot.row[WANTED] = state
            # One record for all, and then to each under its own keys, for whoever does not hold the group's.
            self._pack.broadcast.send()
            outbox = [(slot, MAX_STATE) for slot in lowered]  # type: list[tuple[Slot, Pending | int]]
            outbox.extend(self._outbox)  # these can wait
            self._outbox = outbox
            for slot in lowered:
                slot.row[RESENDS_LEFT] = 0
                self._supersede(slot, STATUS_1)
            self._send_next()
        return len(lowered) > 0

    def _send_cell(self) -> None:
        number, cell = self._cells.pop(0)
        for slot in self._targets(number):
            if slot.row[KNOWN] & GOT_STATUS_1 and cell < slot.cell_count and slot.cell_mv(cell) != UNKNOWN_MV:
                self._pack.app.seal(CELL_DETAIL, kept_cell(slot, cell))


_NAMES = {
    COMMAND: "COMMAND",
    TIME: "TIME",
    READ_EEPROM: "READ_EEPROM",
    WRITE_EEPROM: "WRITE_EEPROM",
    MODULE_COMMAND: "MODULE_COMMAND",
    REQUEST_MODULE_LIST: "REQUEST_MODULE_LIST",
    LEGACY_GRANT: "LEGACY_GRANT",
    LIMITS_COMMAND: "LIMITS_COMMAND",
    DIAGNOSTICS_REQUEST: "DIAGNOSTICS_REQUEST",
}


def decode_or_none(base: int, data: bytes) -> "dict[str, int] | None":
    """The values of one of the app's messages; None if it is none of them, or has a wrong length."""
    name = _NAMES.get(base)
    return None if name is None else decode(name, data)


def _is_obeyed(slot: "Slot", pending: Pending) -> bool:
    if pending.answer == STATUS_1:
        return slot.state == pending.state
    if pending.answer == HARDWARE:
        return is_obeyed(slot, max(0, pending.limits[0]) + _ROUNDING_MA, max(0, pending.limits[1]) + _ROUNDING_MA)
    return True
