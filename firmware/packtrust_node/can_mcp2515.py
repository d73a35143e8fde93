"""Microchip MCP2515, a CAN controller behind SPI; register and table names are those of its data sheet, DS20001801.

The chip holds two received frames, half a millisecond of a busy bus, so give it its INT pin: then every frame is taken
out as soon as the interpreter gets to run the handler, into `depth` slots in RAM. Without the pin it is asked once a
round of the node's loop, and loses frames in every burst.

Frames leave in the order given. The chip sends the highest TXP first and, among equals, the highest buffer (3.2); each
frame is given a lower rank than all before it, four priorities times three buffers, until the chip has been empty.

CAN FD frames on the bus are errors to this chip.
"""

from packtrust._compat import const
from packtrust_node.can_base import ACTIVE, BUS_OFF, OPENING, PASSIVE, WARNING, CanPort, joined
from packtrust_node.can_spi import Buffers

# Instructions (table 12-1)
_RESET = const(0xC0)
_READ = const(0x03)
_READ_RX = const(0x90)  # RXB0 from SIDH; RXB1: + 4. Clears RXnIF when chip select rises.
_WRITE = const(0x02)
_LOAD_TX = const(0x40)  # TXB0 from SIDH; TXBn: + 2 n
_READ_STATUS = const(0xA0)
_BIT_MODIFY = const(0x05)

# Registers (table 11-1)
_RXF0SIDH = const(0x00)
_CANCTRL = const(0x0F)
_CANSTAT = const(0x0E)
_RXF3SIDH = const(0x10)
_TEC = const(0x1C)
_RXM0SIDH = const(0x20)
_CNF3 = const(0x28)
_CNF1 = const(0x2A)
_EFLG = const(0x2D)
_TXB0CTRL = const(0x30)
_RXB0CTRL = const(0x60)
_RXB1CTRL = const(0x70)

_MODE = const(0xE0)  # CANSTAT.OPMOD
_MODE_CONFIGURATION = const(0x80)
_EXIDE = const(0x08)
_TXREQ = const(0x08)
_BUKT = const(0x04)
_RX_INTERRUPTS = const(0x03)

# EFLG (register 6-3)
_OVERFLOWS = const(0xC0)
_TXBO = const(0x20)
_PASSIVES = const(0x18)
_EWARN = const(0x01)

# Steps of opening
_STEP_RESET = const(0)
_STEP_CONFIGURE = const(1)
_STEP_START = const(2)
_STEP_RUN = const(3)

_ASK_MS = const(1)  # how soon to look for frames again
_LOOK_MS = const(20)  # how often to look at the errors
_START_MS = const(500)  # the chip needs 11 recessive bits before it takes part
_AGAIN_MS = const(1000)
_PRIORITY_MAX = const(3)


def timing(crystal: int, bitrate: int, sample_point: int = 75) -> "tuple[int, int, int]":
    """CNF1, CNF2, CNF3 (section 5) for a crystal in Hz, a bit rate in bit/s and a sample point in percent.

    A bit has 8..25 quanta of 2 (BRP + 1) / crystal. ValueError if no whole number of them makes that bit rate.
    """
    best = None
    for prescaler in range(64):
        cycles = 2 * (prescaler + 1) * bitrate
        quanta = crystal // cycles
        if crystal % cycles or not 8 <= quanta <= 25:
            continue
        phase2 = min(8, max(2, quanta - (quanta * sample_point + 50) // 100))
        rest = quanta - 1 - phase2  # PropSeg and PS1, at most 8 each
        if rest > 16:
            continue
        error = abs(100 * (1 + rest) - sample_point * quanta) * 64 // quanta
        if best is None or error < best[0]:
            best = (error, prescaler, rest, phase2)
    if best is None:
        raise ValueError(
            "an MCP2515 with a %d Hz crystal cannot do %d bit/s: take another bit rate or a faster crystal"
            % (crystal, bitrate)
        )
    _, prescaler, rest, phase2 = best
    phase1 = min(8, rest // 2)
    propagation = rest - phase1
    jump = min(4, phase2 - 1)  # PS2 must be longer than SJW
    return (jump - 1) << 6 | prescaler, 0x80 | (phase1 - 1) << 3 | (propagation - 1), phase2 - 1


def plan(pairs: "list[tuple[int, int]]") -> "tuple[list[tuple[int, int]], list[tuple[int, int]]]":
    """Filters for RXB0 (at most 2) and RXB1 (at most 4), one mask each, that let through all that `pairs` do."""
    while True:
        masks = []
        for pair in pairs:
            if pair[1] not in masks:
                masks.append(pair[1])
        if len(masks) == 1 and len(pairs) <= 6:
            return pairs[:2], pairs[2:] or pairs[:1]
        if len(masks) == 2:
            first = [pair for pair in pairs if pair[1] == masks[0]]
            second = [pair for pair in pairs if pair[1] == masks[1]]
            if len(first) > len(second):
                first, second = second, first
            if len(first) <= 2 and len(second) <= 4:
                return first, second
        pairs = joined(pairs)


class Mcp2515(CanPort):
    """One MCP2515.

    spi        `can_spi.MachineSpi` or `BusioSpi`; at most 10 MHz, mode 0.
    bitrate    bit/s.
    crystal    Hz, as printed on the module's crystal: 8 or 16 MHz mostly.
    interrupt  `machine.Pin` (input) at the chip's INT, or None.
    depth      received frames kept in RAM.

    The chip is set up by `poll`: until then, and again after it has lost its supply, `state` is "opening".
    """

    def __init__(self, spi, bitrate=500000, crystal=16000000, interrupt=None, depth=32, sample_point=75) -> None:
        CanPort.__init__(self)
        self._timing = timing(crystal, bitrate, sample_point)
        self._exchange = spi.exchange
        self._buffers = Buffers((1, 2, 3, 4, 5, 8, 10, 14))
        self._out = self._buffers.out
        self._into = self._buffers.into
        self._views = self._buffers.views
        # Received frames: instruction, SIDH, SIDL, EID8, EID0, DLC, 8 data bytes.
        self._slots = [bytearray(14) for _ in range(depth + 1)]
        self._eights = [memoryview(slot)[6:] for slot in self._slots]
        self._short = bytearray(8)
        self._shorts = [memoryview(self._short)[:size] for size in range(9)]
        # The handler's own, as it may come while the others are being filled.
        self._ask_rx = (bytearray((_READ_RX,)) + bytearray(13), bytearray((_READ_RX + 4,)) + bytearray(13))
        self._ask_status = bytearray((_READ_STATUS, 0))
        self._answer = bytearray(2)
        self._head = 0  # next slot to fill
        self._tail = 0  # next slot to give out; the frame given out last lies before it
        self._step = _STEP_RESET
        self._since_ms = 0
        self._retry_ms = None  # type: int | None
        self._looked_ms = 0
        self._priority = 0
        self._buffer = 0
        self._busy = False  # a transaction is under way: the handler must not begin another
        self._due = False  # the handler came meanwhile
        self._interrupt = interrupt
        if interrupt is not None:
            interrupt.irq(self._on_interrupt, interrupt.IRQ_FALLING)

    # -- registers -----------------------------------------------------------------------------------------------------

    def _transact(self, size: int) -> None:
        """The first `size` bytes of the buffers."""
        view = self._views[size]
        self._busy = True
        self._exchange(view[0], view[1])
        self._busy = False

    def _set(self, register: int, value: int) -> None:
        out = self._out
        out[0] = _WRITE
        out[1] = register
        out[2] = value
        self._transact(3)

    def _get(self, register: int, size: int) -> None:
        """Read 1..3 registers, to `self._into[2:]`."""
        self._out[0] = _READ
        self._out[1] = register
        self._transact(2 + size)

    def _status(self) -> int:
        """READ STATUS (figure 12-8): RX0IF, RX1IF, TXREQ0, TX0IF, TXREQ1, TX1IF, TXREQ2, TX2IF from bit 0."""
        self._out[0] = _READ_STATUS
        self._transact(2)
        return self._into[1]

    # -- opening, errors -----------------------------------------------------------------------------------------------

    def _fail(self, fault: str, now_ms: int) -> int:
        self.fault = fault
        self.state = OPENING
        self._step = _STEP_RESET
        self._retry_ms = now_ms + _AGAIN_MS
        return _AGAIN_MS

    def _open(self, now_ms: int) -> int:
        if self._step == _STEP_RESET:
            if self._retry_ms is not None and now_ms - self._retry_ms < 0:
                return self._retry_ms - now_ms
            self._retry_ms = None
            self._out[0] = _RESET
            self._transact(1)
            self._step = _STEP_CONFIGURE
            return _ASK_MS  # the oscillator has started after 128 cycles
        if self._step == _STEP_CONFIGURE:
            self._get(_CANSTAT, 1)
            if self._into[2] & _MODE != _MODE_CONFIGURATION or not self._configure():
                return self._fail("no MCP2515 answers: check SPI wiring, chip select and supply", now_ms)
            self._set(_CANCTRL, 0)  # normal mode, no clock output
            self._step = _STEP_START
            self._since_ms = now_ms
            return _ASK_MS
        self._get(_CANSTAT, 1)
        if self._into[2] & _MODE:
            if now_ms - self._since_ms > _START_MS:
                return self._fail("the bus is never idle: check transceiver, its wiring and CANH against CANL", now_ms)
            return _ASK_MS
        self._step = _STEP_RUN
        self._looked_ms = now_ms
        self.fault = ""
        self._enter(ACTIVE)
        self.counters["opened"] += 1
        return _ASK_MS

    def _configure(self) -> bool:
        out = self._out
        cnf1, cnf2, cnf3 = self._timing
        out[0] = _WRITE
        out[1] = _CNF3
        out[2] = cnf3
        out[3] = cnf2
        out[4] = cnf1
        out[5] = _RX_INTERRUPTS  # CANINTE
        out[6] = 0  # CANINTF
        out[7] = 0  # EFLG
        self._transact(8)
        self._get(_CNF3, 3)
        if (self._into[4], self._into[3], self._into[2]) != self._timing:
            return False
        self._write_filters()
        # RXM = 00: valid frames that a filter takes; a frame for RXB0 rolls over into RXB1 (figure 4-3).
        self._set(_RXB0CTRL, _BUKT)
        self._set(_RXB1CTRL, 0)
        return True

    def _put_id(self, at: int, ident: int, extended: bool) -> None:
        """SIDH, SIDL, EID8, EID0 of an ID (or mask) at `at` of the buffer."""
        out = self._out
        if extended:
            out[at] = ident >> 21
            out[at + 1] = ident >> 13 & 0xE0 | _EXIDE | ident >> 16 & 3
            out[at + 2] = ident >> 8 & 0xFF
            out[at + 3] = ident & 0xFF
        else:
            out[at] = ident >> 3
            out[at + 1] = ident << 5 & 0xE0
            out[at + 2] = 0
            out[at + 3] = 0

    def _write_filters(self) -> None:
        out = self._out
        if self._accept.pairs:
            first, second = plan(self._accept.pairs)
            masks = (first[0][1], second[0][1])
            codes = [first[0][0], first[-1][0]] + [second[min(at, len(second) - 1)][0] for at in range(4)]
            kinds = (True,) * 6
        else:
            # No mask; EXIDE of a filter still tells 11-bit from 29-bit frames: each buffer has a filter of both kinds.
            masks = (0, 0)
            codes = [0] * 6
            kinds = (False, True, False, True, True, True)
        out[0] = _WRITE
        out[1] = _RXM0SIDH
        self._put_id(2, masks[0], True)
        self._put_id(6, masks[1], True)
        self._transact(10)
        for at in (0, 3):
            out[0] = _WRITE
            out[1] = _RXF3SIDH if at else _RXF0SIDH
            for index in range(3):
                self._put_id(2 + 4 * index, codes[at + index], kinds[at + index])
            self._transact(14)

    def _apply_filters(self) -> None:
        # Filters can be written in configuration mode only (4.5), which drops what is under way: begin anew.
        if self._step != _STEP_RESET:
            self._restart()

    def _restart(self) -> None:
        self._step = _STEP_RESET
        self._retry_ms = None
        self.state = OPENING
        self._bus_off_ms = None

    def recover(self) -> None:
        """Reset and set up the chip: it begins error active, and what it held is dropped."""
        self._restart()

    def _look(self, now_ms: int) -> None:
        self._looked_ms = now_ms
        self._get(_EFLG, 2)
        flags = self._into[2]
        if self._into[3] & _MODE:  # CANSTAT lies at xEh of every row
            self._fail("the MCP2515 has lost its set-up: check its supply", now_ms)
            self._retry_ms = None
            return
        if flags & _OVERFLOWS:
            self.counters["lost"] += (flags >> 6 & 1) + (flags >> 7)
            out = self._out
            out[0] = _BIT_MODIFY
            out[1] = _EFLG
            out[2] = _OVERFLOWS
            out[3] = 0
            self._transact(4)
        self._get(_TEC, 2)
        self.counters["tec"] = self._into[2]
        self.counters["rec"] = self._into[3]
        if flags & _TXBO:
            if self.state != BUS_OFF:
                for buffer in range(3):
                    self._set(_TXB0CTRL + 16 * buffer, 0)
            self._enter(BUS_OFF)
        elif flags & _PASSIVES:
            self._enter(PASSIVE)
        else:
            self._enter(WARNING if flags & _EWARN else ACTIVE)

    def poll(self, now_ms: int) -> int:
        """Set the chip up, look at its errors now and then; milliseconds until frames should be asked for."""
        if self._step != _STEP_RUN:
            wait_ms = self._open(now_ms)
        else:
            wait_ms = _ASK_MS
            if now_ms - self._looked_ms >= _LOOK_MS:
                self._look(now_ms)
            if self.state == BUS_OFF:
                self._wait_in_bus_off(now_ms)
        self._catch_up()
        return wait_ms

    # -- sending -------------------------------------------------------------------------------------------------------

    def _waiting(self) -> int:
        """Transmit buffers in use, one bit each."""
        status = self._status()
        return status >> 2 & 1 | status >> 3 & 2 | status >> 4 & 4

    def pending(self) -> int:
        """Frames in the chip, not yet on the wire."""
        if self._step != _STEP_RUN:
            return 0
        waiting = self._waiting()
        self._catch_up()
        return (waiting & 1) + (waiting >> 1 & 1) + (waiting >> 2)

    def send(self, frame) -> bool:
        """Give a frame to the chip; False: no room now, or not on the bus."""
        if self._step != _STEP_RUN or self.state == BUS_OFF:
            return False
        data = frame.data
        size = frame.dlc if frame.is_remote_frame else len(data)
        if frame.is_fd or size > 8:
            self.counters["refused"] += 1
            return True  # it could wait for ever
        waiting = self._waiting()
        buffer = self._rank(waiting)
        if buffer >= 0:
            self._load(buffer, frame, data, size)
        self._catch_up()
        return buffer >= 0

    def _rank(self, waiting: int) -> int:
        """The buffer for the next frame, below all that wait; -1: none. `self._priority` is its TXP."""
        if waiting == 0:
            self._priority = _PRIORITY_MAX
            self._buffer = 3
        while True:
            while self._buffer:
                self._buffer -= 1
                if not waiting >> self._buffer & 1:
                    return self._buffer
            if waiting == 7 or self._priority == 0:
                return -1
            self._priority -= 1
            self._buffer = 3

    def _load(self, buffer: int, frame, data, size: int) -> None:
        out = self._out
        out[0] = _LOAD_TX + 2 * buffer
        self._put_id(1, frame.arbitration_id, frame.is_extended_id)
        if frame.is_remote_frame:
            out[5] = 0x40 | size
        else:
            out[5] = size
            for at in range(size):
                out[6 + at] = data[at]
        self._transact(14)
        self._set(_TXB0CTRL + 16 * buffer, _TXREQ | self._priority)
        self.counters["sent"] += 1

    # -- receiving -----------------------------------------------------------------------------------------------------

    def _on_interrupt(self, _pin) -> None:
        """Handler of the INT pin, run by the interpreter's scheduler between two bytecodes of the node."""
        if self._busy:
            self._due = True
        else:
            self._drain()

    def _catch_up(self) -> None:
        if self._due:
            self._due = False
            self._drain()

    def _drain(self) -> None:
        """Take all received frames out of the chip, the older one first, as long as there is a slot for them."""
        if self._step != _STEP_RUN:
            return
        self._busy = True
        slots = self._slots
        rxb1_is_older = False
        while True:
            head = self._head
            if head == (self._tail or len(slots)) - 1:
                break  # full: the slot before the tail is the frame the node has in hand
            self._exchange(self._ask_status, self._answer)
            full = self._answer[1] & 3
            if not full:
                break
            which = 1 if full & 2 and (rxb1_is_older or not full & 1) else 0
            self._exchange(self._ask_rx[which], slots[head])
            self._head = head + 1 if head + 1 < len(slots) else 0
            # What is in RXB1 just after RXB0 was emptied came before whatever comes into RXB0 from now on.
            rxb1_is_older = which == 0
        self._busy = False

    def recv(self):
        """The next frame received, or None."""
        while True:
            if self._tail == self._head:
                self._drain()
                self._catch_up()
                if self._tail == self._head:
                    return None
            tail = self._tail
            self._tail = tail + 1 if tail + 1 < len(self._slots) else 0
            frame = self._decode(tail)
            if frame is not None:
                return frame

    def _decode(self, index: int):
        slot = self._slots[index]
        low = slot[2]
        if low & _EXIDE:
            ident = slot[1] << 21 | (low & 0xE0) << 13 | (low & 3) << 16 | slot[3] << 8 | slot[4]
            frame = self._let_in(ident, True)
        else:
            frame = self._let_in(slot[1] << 3 | low >> 5, False)
        if frame is not None:
            self._fill_in(frame, slot, index)
        return frame

    def _fill_in(self, frame, slot, index: int) -> None:
        size = min(slot[5] & 0x0F, 8)
        if slot[5] & 0x40 if frame.is_extended_id else slot[2] & 0x10:  # RTR of RXBnDLC, SRR of RXBnSIDL
            self._complete(frame, b"", size)
            frame.is_remote_frame = True
        else:
            data = self._eights[index] if size == 8 else self._short_data(slot, size)
            self._complete(frame, data, size)

    def _short_data(self, slot, size: int):
        data = self._shorts[size]
        for at in range(size):
            data[at] = slot[6 + at]
        return data
