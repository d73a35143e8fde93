"""The pack's picture of its modules: who they are, what they last said, and how they answer polls."""

from array import array

from packtrust._compat import const
from packtrust.arbitration import NODE_MODULE_MAX
from packtrust.messages.compact import field
from packtrust.messages.table import STATE_OFF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer
    from packtrust_node.neighbour import Neighbour

# A module that was not heard for this long counts as off.
TIMEOUT_MS = const(4000)
# An unkeyed module that is silent this long loses its number when another one needs it.
FORGET_MS = const(11100)
# And one that has not answered two requests to announce is no longer listed.
ABSENT_MS = const(25000)

# Answers of a poll, as bits.
GOT_STATUS_1 = const(1)
GOT_STATUS_2 = const(2)
GOT_STATUS_3 = const(4)
GOT_COMM = const(8)
GOT_FAULT = const(16)
GOT_DETAIL = const(32)
GOT_ALL = const(63)
GOT_HARDWARE = const(64)
# In `Slot.got`, beside them: the poll was sent twice.
REPEATED = const(128)

# Where `Slot.said` has the newest message of each kind: 8 bytes, in the order of the bits above.
STATUS_1_AT = const(0)
STATUS_2_AT = const(8)
STATUS_3_AT = const(16)
COMM_AT = const(24)
FAULT_AT = const(32)
DETAIL_AT = const(40)
HARDWARE_AT = const(48)
_SAID_LENGTH = const(56)

_CELLS_MAX = const(192)

# A cell nobody has asked for yet.
UNKNOWN_MV = const(0)
UNKNOWN_CENTI_C = const(-32768)
_CENTI_C_OFFSET = const(32768)


_NOTHING = bytearray()
_NOBODY = ()


class Pending:
    """A command of the app that a module has not shown to be obeyed yet.

    command      base of the app's message;  counter  of its record
    answer       base of the module's message that shows it: STATUS_1, HARDWARE or FAULT_CODES
    state        wanted (answer STATUS_1);  limits  (charge, discharge) in mA (answer HARDWARE)
    """

    def __init__(
        self,
        command: int,
        counter: int,
        answer: int,
        deadline_ms: int,
        state: int = 0,
        limits: "tuple[int, int]" = (0, 0),
    ) -> None:
        self.command = command
        self.counter = counter
        self.answer = answer
        self.deadline_ms = deadline_ms
        self.state = state
        self.limits = limits


class Slot:
    """One module by its number. A gateway has 31 of them: what a module says is kept as it came.

    said    data of its newest authentic messages (STATUS_1_AT, ..), each 8 bytes; `known`: GOT_* of those that came
    cells   of each cell so far: mV, and centi-degrees above -327.68
    """

    def __init__(self, number: int, unique_id: int, neighbour: "Neighbour") -> None:
        self.number = number
        self.unique_id = unique_id
        self.neighbour = neighbour
        self.seen_ms = 0  # when it announced, or said anything authentic
        self.bare = False  # it announces as unregistered though we hold keys with it: it was released
        self.said = _NOTHING
        self.known = 0
        self.cells = array("H")
        # what the pack wants of it
        self.wanted = STATE_OFF
        self.hv_bus_mv = 0
        self.resend_ms = 0
        self.resends = 0
        self.pending = _NOBODY  # type: tuple[Pending, ...]
        self.lost = False
        # polls
        self.poll_ms = None  # type: int | None  # when the unanswered poll was sent
        self.next_poll_ms = 0
        self.got = 0
        self.misses = 0  # polls in a row to which nothing came
        self.cell = 0
        self.connect_ms = -1000  # when the last handshake was started

    @property
    def keyed(self) -> bool:
        """Whether there are keys with it."""
        return self.neighbour.keyed

    @property
    def state(self) -> int:
        """The state it last showed."""
        return field("STATUS_1", "state", self.said, STATUS_1_AT) if self.known & GOT_STATUS_1 else STATE_OFF

    def figures(self) -> "dict[str, object]":
        """For the console; no secrets."""
        neighbour = self.neighbour
        shown = {"unique_id": self.unique_id, "keyed": self.keyed}  # type: dict[str, object]
        if neighbour.keyed:
            shown["session"] = neighbour.established
            shown["epoch"] = neighbour.session_epoch
            shown["state"] = self.state
            shown["wanted"] = self.wanted
            shown["records"] = neighbour.stats
            shown["unsent"] = neighbour.unsent
        return shown

    def age_ms(self, now_ms: int) -> int:
        """How long ago its last authentic record came, -1 for never."""
        last = self.neighbour.last_authentic_ms
        return -1 if last is None else now_ms - last

    def active(self, now_ms: int) -> bool:
        """Whether it was heard, authentically, within the time-out."""
        return 0 <= self.age_ms(now_ms) <= TIMEOUT_MS

    def take(self, got: int, data: "Buffer") -> None:
        """Keep a message; `got` is its bit, one of GOT_*."""
        if not self.known:
            self.said = bytearray(_SAID_LENGTH)
        said = self.said
        self.known |= got
        at = 0
        while got > 1:
            got >>= 1
            at += 8
        for index in range(8):
            said[at + index] = data[index] if index < len(data) else 0
        if at == DETAIL_AT:
            self._take_detail()

    def _take_detail(self) -> None:
        """Keep the values of one cell."""
        cell = field("DETAIL", "cell_id", self.said, DETAIL_AT)
        if cell >= _CELLS_MAX:
            return
        cells = self.cells
        while len(cells) <= 2 * cell:
            cells.append(UNKNOWN_MV)
            cells.append(UNKNOWN_CENTI_C + _CENTI_C_OFFSET)
        cells[2 * cell] = field("DETAIL", "cell_mv", self.said, DETAIL_AT)
        centi_c = field("DETAIL", "cell_centi_c", self.said, DETAIL_AT)
        cells[2 * cell + 1] = max(-32768, min(32767, centi_c)) + _CENTI_C_OFFSET

    @property
    def cell_count(self) -> int:
        """How many cells have told something."""
        return len(self.cells) // 2

    def cell_mv(self, cell: int) -> int:
        """Voltage of a cell, UNKNOWN_MV before it was told."""
        return self.cells[2 * cell]

    def cell_centi_c(self, cell: int) -> int:
        """Temperature of a cell, UNKNOWN_CENTI_C before it was told."""
        return self.cells[2 * cell + 1] - _CENTI_C_OFFSET

    def next_cell(self) -> int:
        """The cell the next poll asks for."""
        count = field("STATUS_1", "cell_count", self.said, STATUS_1_AT) if self.known & GOT_STATUS_1 else 0
        cell = self.cell
        self.cell = (cell + 1) % count if count else 0
        return cell if cell < count else 0

    def forget(self) -> None:
        """Its keys are gone: what it said under them is no more than history."""
        self.said = _NOTHING
        self.known = 0
        self.cells = array("H")
        self.wanted = STATE_OFF
        self.pending = _NOBODY
        self.poll_ms = None
        self.misses = 0


def free_number(slots: "dict[int, Slot]", now_ms: int) -> int:
    """The lowest number that is free, or taken by an unkeyed module that is gone; 0 if all are in use."""
    for number in range(1, NODE_MODULE_MAX + 1):
        slot = slots.get(number)
        if slot is None or (not slot.keyed and now_ms - slot.seen_ms > FORGET_MS):
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
