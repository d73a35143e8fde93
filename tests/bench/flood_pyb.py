"""The module `pyb` for the measurement of a flood (flood.py): a bxCAN whose frames come by a schedule.

The schedule is a bus that is always full: in each slot ends a frame, an attacker's or, when its time is there, one of
the pack's commands. A frame goes into a FIFO of three and the interrupt handler is called, or it is lost. In silicon
the handler runs the moment a frame is there; here it runs when the node next comes by, once for each frame since.

What the node pays for: its handler, all that this calls of ours (`recv`, `any`), which in silicon is C, and 100 ticks
for the way from the interrupt into the handler, an assumption: 500 instructions. What it does not pay for is the
schedule, which in silicon nobody keeps: while `let_come` is at that the bus stands still. The node's clock does not, so
its delays are rather too long, and what it does each so many milliseconds comes rather too often.

The handler is called as ports/stm32/can.c of MicroPython does: for the first frame in the FIFO (0), when it is full (1)
and for the first one lost (2), each again only after `recv` has made room.
"""

# ruff: noqa: F821, I001, RET503, SIM110
# mypy: ignore-errors
import micropython
from array import array

from canboard import ticks

_NONE = None
_len = len
_id = id

# Places in CAN.marks.
SLOT_TICKS = micropython.const(0)  # of canboard.ticks, from one frame to the next; 0: nothing comes
NEXT = micropython.const(1)  # when the next slot ends
SLOT = micropython.const(2)  # its number
FORGED = micropython.const(3)  # how many forged frames there are, the first ones of `ids`
EVERY = micropython.const(4)  # a command begins each so many slots, its frames are in every other one
CHUNKS = micropython.const(5)  # frames of a command
COMMAND = micropython.const(6)  # number of the next one
COMMANDS = micropython.const(7)  # how many there are; without forged frames: frames in all
HELD = micropython.const(8)  # frames in the FIFO
FIRST = micropython.const(9)  # place of the first one in it
FIFO = micropython.const(10)  # numbers of frames, four places
LOST = micropython.const(14)
OWN_LOST = micropython.const(15)  # of these, frames of commands
COMPLETE = micropython.const(16)  # when the last frame of the newest command was on the bus
PENDING = micropython.const(17)  # whether it has no answer yet
REASON = micropython.const(18)  # that the handler is called for next
LOST_THEN = micropython.const(19)  # frames lost when it was called last
MARKS = micropython.const(20)


@micropython.viper
def let_come(self):
    """Let come what has come since the last call."""
    marks = ptr32(self.marks)
    if marks[0] == 0:
        return _NONE
    handler = self.handler
    now = int(ticks())
    while (now - marks[1] & 0x3FFFFFFF) < 0x20000000:
        began = now
        slot = marks[2]
        then = marks[1]
        marks[2] = slot + 1
        marks[1] = then + marks[0] & 0x3FFFFFFF
        own = 0
        number = slot
        if marks[3] != 0:
            number = slot % marks[3]
        elif number + 1 == marks[7]:
            marks[0] = 0
        at = slot % marks[4]
        if at < marks[5] << 1 and at & 1 == 0 and marks[6] < marks[7]:
            own = 1
            at = at >> 1
            number = marks[3] + marks[6] * marks[5] + at
            if at + 1 == marks[5]:
                marks[6] = marks[6] + 1
                marks[16] = then
                marks[17] = 1
        at = marks[8]
        if at >= 3:
            marks[14] = marks[14] + 1
            marks[15] = marks[15] + own
        else:
            marks[10 + (marks[9] + at & 3)] = number
            at += 1
            marks[8] = at
        reason = marks[18]
        if reason == 0 or (reason == 1 and at == 3) or (reason == 2 and marks[19] != marks[14]):
            marks[18] = reason + 1
            marks[19] = marks[14]
            marks[1] = marks[1] - 100 + (int(ticks()) - began & 0x3FFFFFFF) & 0x3FFFFFFF
            handler(self, reason)
            began = int(ticks())
        if marks[0] == 0:
            return _NONE
        now = int(ticks())
        marks[1] = marks[1] + (now - began & 0x3FFFFFFF) & 0x3FFFFFFF


@micropython.viper
def held(self, fifo) -> int:
    """As CAN.any."""
    return 0 if int(fifo) else ptr32(self.marks)[8]


@micropython.viper
def hand_over(self, fifo, items):
    """As CAN.recv into a list."""
    marks = ptr32(self.marks)
    number = marks[10 + marks[9]]
    marks[9] = marks[9] + 1 & 3
    marks[8] = marks[8] - 1
    if marks[18] > 1:
        marks[18] = 1
    if marks[8] == 0:
        marks[18] = 0
    items[0] = self.ids[number]
    items[1] = True
    items[2] = False
    size = int(ptr8(self.sizes)[number])
    view = items[4]
    if int(_len(view)) != size:
        view = self.views.get(int(_id(items)) | size)
        if view is _NONE:
            view = self.resized(items, size)
        items[4] = view
    into = ptr8(view)
    source = ptr8(self.data)
    at = 0
    number = number << 3
    while at < size:
        into[at] = source[number + at]
        at += 1


class CAN:
    """As pyb.CAN of an STM32F405, as far as can_pyb uses it.

    handler   what rxcallback was given for the first FIFO: everything comes into that
    on_send   called with each frame that is sent
    """

    NORMAL = 0
    ERROR_ACTIVE, ERROR_WARNING, ERROR_PASSIVE, BUS_OFF = 1, 2, 3, 4
    MASK16, MASK32 = 0, 1
    one = None

    def __init__(self, number, mode, **_arguments):
        CAN.one = self
        self.marks = array("i", bytes(4 * MARKS))
        self.ids = []
        self.data = bytearray(8)
        self.sizes = bytearray(1)
        self.handler = None
        self.on_send = None
        self._filters = []
        self.views = {}  # by who has them, whose address is a multiple of 16, and length

    catch_up = let_come
    any = held
    recv = hand_over

    def resized(self, items, size):
        """A view of `size` of the bytes that the one in a list was made of, kept for the next time."""
        views = self.views
        known = id(items)
        if known not in views:
            views[known] = items[4]
        view = views[known | size] = views[known][:size]
        return view

    def schedule(self, frames, slot_ticks, forged=0, every=1, chunks=0):
        """From now on these frames come, (ID, data) each: the first `forged` again and again, the rest as commands of
        `chunks` frames, one begun every so many slots. Without any forged ones all come in turn, once.
        """
        marks = self.marks
        self.ids = [ident for ident, _ in frames]
        self.data = b"".join([bytes(data) + bytes(8 - len(data)) for _, data in frames])
        self.sizes = bytes([len(data) for _, data in frames])
        for ident, _ in frames:
            if not self._lets_in(ident):
                raise ValueError("the filters keep out %08x" % ident)
        for at in range(MARKS):
            marks[at] = 0
        marks[FORGED] = forged
        marks[EVERY] = every
        marks[CHUNKS] = chunks
        marks[COMMANDS] = (len(frames) - forged) // chunks if chunks else len(frames)
        marks[NEXT] = (ticks() + slot_ticks) & 0x3FFFFFFF
        marks[SLOT_TICKS] = slot_ticks

    def init(self, mode, **_arguments):
        """As CAN.init."""

    def deinit(self):
        """As CAN.deinit."""

    def clearfilter(self, bank):
        """As CAN.clearfilter."""
        self._filters = [item for item in self._filters if item[0] != bank]

    def setfilter(self, bank, mode, fifo, params, extframe=False):
        """As CAN.setfilter."""
        self._filters.append((bank, params, extframe))

    def _lets_in(self, ident):
        for _, params, extended in self._filters:
            if extended and ident & params[1] == params[0] & params[1]:
                return True
        return False

    def rxcallback(self, fifo, handler):
        """As CAN.rxcallback."""
        if fifo == 0:
            self.handler = handler

    def state(self):
        """As CAN.state."""
        return CAN.ERROR_ACTIVE

    def info(self, items):
        """As CAN.info: nothing waits to be sent."""
        return items

    def send(self, data, ident, timeout=0, rtr=False, extframe=False):
        """As CAN.send."""
        self.on_send(ident, data)
