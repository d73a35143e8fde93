"""The pack's picture of its modules: who they are, what they last said, and how they answer polls."""

from array import array
from struct import pack_into, unpack_from

from packtrust._compat import const
from packtrust.arbitration import NODE_MODULE_MAX
from packtrust.messages.compact import field
from packtrust.messages.table import STATE_OFF
from packtrust_node.neighbour import Neighbour

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer
    from packtrust_node.neighbour import Bus

# A module that was not heard for this long counts as off.
TIMEOUT_MS = const(4000)
# An unkeyed module that is silent this long loses its number when another one needs it.
FORGET_MS = const(11100)
# And one that has not answered two requests to announce is no longer listed.
ABSENT_MS = const(25000)
# A module that has not answered this many polls in a row is polled only so often.
MISSES_TO_BACK_OFF = const(3)
BACK_OFF_MS = const(1000)
# A command that the module has not shown to be obeyed is sent again after this many steps of 64 ms, about a second.
RESEND_STEPS = const(16)

# Answers of a poll, as bits.
GOT_STATUS_1 = const(1)
GOT_STATUS_2 = const(2)
GOT_STATUS_3 = const(4)
GOT_FAULT = const(8)
GOT_DETAIL = const(16)
GOT_HARDWARE = const(32)
GOT_COMM = const(64)
GOT_ALL = const(95)  # all but HARDWARE, which is asked for once
# In the byte GOT, beside them: the poll was sent twice.
REPEATED = const(128)

# A slot's row, behind the terms of the relationship (relation.TERMS_LENGTH):
# what the pack wants of the module
WANTED = const(23)  # state
RESENDS_LEFT = const(24)  # of the command for it that are left
_RESEND_AT = const(25)  # when the next one is due, in steps of 64 ms
HV_BUS_MV = const(26)  # u32, with the command
# polls
MISSES = const(30)  # in a row to which nothing came, 255 at most
GOT = const(31)  # GOT_*, and REPEATED: what has come to the last one
_CELL = const(32)  # the one the next poll asks for
# what is known of it
KNOWN = const(33)  # GOT_*: of which messages below there is one
LOST = const(34)  # 1: it fell silent and was counted as off
BARE = const(35)  # 1: it announces as unregistered though we hold keys with it: it was released
_CONNECT_MS = const(36)  # u32, when the last handshake was started
_UNIQUE_ID = const(40)  # u32
# data of its newest authentic messages, 8 bytes each, in the order of the bits above
STATUS_1_AT = const(44)
STATUS_2_AT = const(52)
STATUS_3_AT = const(60)
FAULT_AT = const(68)
DETAIL_AT = const(76)
HARDWARE_AT = const(84)
# of each cell so far: mV, and centi-degrees above -327.68, u16 each; all zero while it has told nothing
_CELLS_AT = const(92)

_CELLS_MAX = const(192)
_CELL_LENGTH = const(4)

# A cell nobody has asked for yet.
UNKNOWN_MV = const(0)
UNKNOWN_CENTI_C = const(-32768)
_CENTI_C_OFFSET = const(32768)

_STEP_BITS = const(6)
_U32 = const(0xFFFFFFFF)


class Pending:
    """A command of the app that a module has not shown to be obeyed yet.

    command      base of the app's message;  counter  of its record
    answer       base of the module's message that shows it: STATUS_1, HARDWARE or FAULT_CODES
    state        wanted (answer STATUS_1);  limits  (charge, discharge) in mA, and the voltage that
                 ends charging in mV (answer HARDWARE)
    """

    def __init__(
        self,
        command: int,
        counter: int,
        answer: int,
        deadline_ms: int,
        state: int = 0,
        limits: "tuple[int, int, int]" = (0, 0, 0),
    ) -> None:
        self.command = command
        self.counter = counter
        self.answer = answer
        self.deadline_ms = deadline_ms
        self.state = state
        self.limits = limits


class Slot(Neighbour):
    """One module by its number. A gateway has 31 of them, so nearly all of it is one row of bytes, as laid out above;
    what a module says is kept as it came.

    heard_ms   as Neighbour; while there are no keys with it: when it announced
    poll_ms    when the poll that is not answered yet was sent, or None
    """

    def __init__(self, bus: "Bus", number: int, unique_id: int, now_ms: int) -> None:
        Neighbour.__init__(self, bus, number, _CELLS_AT)
        self.heard_ms = now_ms
        self.poll_ms = None  # type: int | None
        pack_into("<I", self.row, _UNIQUE_ID, unique_id)
        self.connect_at(now_ms - 1000)
        self.row[WANTED] = STATE_OFF

    @property
    def number(self) -> int:
        """Its node byte."""
        return self.node

    @property
    def unique_id(self) -> int:
        """Of the module that announced itself."""
        return int(unpack_from("<I", self.row, _UNIQUE_ID)[0])

    @property
    def state(self) -> int:
        """The state it last showed."""
        row = self.row
        return field("STATUS_1", "state", row, STATUS_1_AT) if row[KNOWN] & GOT_STATUS_1 else STATE_OFF

    def figures(self) -> "dict[str, object]":
        """For the console; no secrets."""
        shown = {"unique_id": self.unique_id, "keyed": self.keyed}  # type: dict[str, object]
        if self.keyed:
            shown["session"] = self.established
            shown["epoch"] = self.session_epoch
            shown["state"] = self.state
            shown["wanted"] = self.row[WANTED]
            shown["records"] = self.stats
            shown["unsent"] = self.unsent
        return shown

    # -- times ---------------------------------------------------------------------------------------------------------

    def age_ms(self, now_ms: int) -> int:
        """How long ago its last authentic record came, -1 for never."""
        return -1 if self.heard_ms is None or not self.keyed else now_ms - self.heard_ms

    def active(self, now_ms: int) -> bool:
        """Whether it was heard, authentically, within the time-out."""
        return 0 <= self.age_ms(now_ms) <= TIMEOUT_MS

    def connecting_for_ms(self, now_ms: int) -> int:
        """How long ago the last handshake was started."""
        return now_ms - unpack_from("<I", self.row, _CONNECT_MS)[0] & _U32

    def connect_at(self, now_ms: int) -> None:
        """A handshake is started."""
        pack_into("<I", self.row, _CONNECT_MS, now_ms & _U32)

    # -- what the pack wants of it -------------------------------------------------------------------------------------

    def resend_later(self, now_ms: int) -> None:
        """The command has been sent."""
        self.row[_RESEND_AT] = (now_ms >> _STEP_BITS) + RESEND_STEPS & 0xFF

    def resend_due(self, now_ms: int) -> bool:
        """Whether the command is to be sent again; to be asked every few seconds."""
        return (now_ms >> _STEP_BITS) - self.row[_RESEND_AT] & 0xFF < 128

    # -- what it says --------------------------------------------------------------------------------------------------

    def take(self, got: int, data: "Buffer") -> None:
        """Keep a message; `got` is its bit, one of GOT_*."""
        row = self.row
        row[KNOWN] |= got
        if got == GOT_COMM:
            return  # only that it came
        at = STATUS_1_AT
        while got > 1:
            got >>= 1
            at += 8
        for index in range(8):
            row[at + index] = data[index] if index < len(data) else 0
        if at == DETAIL_AT:
            self._take_detail()

    def _take_detail(self) -> None:
        """Keep the values of one cell."""
        row = self.row
        cell = field("DETAIL", "cell_id", row, DETAIL_AT)
        if cell >= _CELLS_MAX:
            return
        at = _CELLS_AT + _CELL_LENGTH * cell
        if len(row) <= at:
            # For all cells it says it has: each time a row grows it may have to move.
            cells = max(cell + 1, field("STATUS_1", "cell_count", row, STATUS_1_AT))
            row.extend(bytes(_CELLS_AT + _CELL_LENGTH * min(cells, _CELLS_MAX) - len(row)))
        centi_c = max(-32768, min(32767, field("DETAIL", "cell_centi_c", row, DETAIL_AT)))
        pack_into("<HH", row, at, field("DETAIL", "cell_mv", row, DETAIL_AT), centi_c + _CENTI_C_OFFSET)

    @property
    def cell_count(self) -> int:
        """How many there are places for: those that have told nothing are unknown."""
        return (len(self.row) - _CELLS_AT) // _CELL_LENGTH

    def cell_mv(self, cell: int) -> int:
        """Voltage of a cell, UNKNOWN_MV before it was told."""
        return int(unpack_from("<H", self.row, _CELLS_AT + _CELL_LENGTH * cell)[0])

    def cell_centi_c(self, cell: int) -> int:
        """Temperature of a cell, UNKNOWN_CENTI_C before it was told."""
        return unpack_from("<H", self.row, _CELLS_AT + _CELL_LENGTH * cell + 2)[0] - _CENTI_C_OFFSET

    def next_cell(self) -> int:
        """The cell the next poll asks for."""
        row = self.row
        count = field("STATUS_1", "cell_count", row, STATUS_1_AT) if row[KNOWN] & GOT_STATUS_1 else 0
        cell = row[_CELL]
        row[_CELL] = (cell + 1) % count if count else 0
        return cell if cell < count else 0

    def forget(self, now_ms: int) -> None:
        """Its keys are gone: what it said under them is no more than history."""
        self.unkey()
        self.heard_ms = now_ms
        self.poll_ms = None
        row = bytearray(_CELLS_AT)
        row[_CONNECT_MS:STATUS_1_AT] = self.row[_CONNECT_MS:STATUS_1_AT]
        row[LOST : BARE + 1] = self.row[LOST : BARE + 1]
        self.row = row


def free_number(slots: "dict[int, Slot]", now_ms: int) -> int:
    """The lowest number that is free, or taken by an unkeyed module that is gone; 0 if all are in use."""
    for number in range(1, NODE_MODULE_MAX + 1):
        slot = slots.get(number)
        if slot is None or (not slot.keyed and now_ms - (slot.heard_ms or 0) > FORGET_MS):
            return number
    return 0


class Latency:
    """Poll times in ms: the newest 256 for the percentiles, the highest of all."""

    def __init__(self) -> None:
        self.answered = 0
        self.missed = 0
        self.highest = 0
        self._times = array("H")

    def add(self, ms: int) -> None:
        """A poll was answered completely after `ms`."""
        self.highest = max(self.highest, ms)
        if len(self._times) < 256:
            self._times.append(min(ms, 65535))
        else:
            self._times[self.answered & 255] = min(ms, 65535)
        self.answered += 1

    def percentile(self, percent: int) -> int:
        """The time within which `percent` % of the newest polls were answered, ms; 0 without any."""
        times = sorted(self._times)
        return times[(len(times) - 1) * percent // 100] if times else 0

    def stats(self) -> "dict[str, int]":
        """Figures for the console."""
        return {
            "answered": self.answered,
            "missed": self.missed,
            "p50_ms": self.percentile(50),
            "p99_ms": self.percentile(99),
            "max_ms": self.highest,
        }
