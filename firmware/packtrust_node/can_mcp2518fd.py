"""Microchip MCP2518FD (and MCP2517FD), a CAN FD controller behind SPI: one transmit FIFO, one receive FIFO, filters.

Register names and addresses are those of the data sheet, DS20006027 (chapter 3), and of the family reference manual,
DS20005678. Not used: transmit queue and event FIFO, time stamps, SPI with CRC, GPIO, sleep. The
errata sheet DS80000789 asks for an SPI clock of at most 0.85 * crystal / 2 (17 MHz at 40 MHz).

Frames leave in the order given.
"""

from packtrust._compat import const
from packtrust.segmentation import FD_LENGTHS
from packtrust_node.can_base import ACTIVE, BUS_OFF, OPENING, PASSIVE, WARNING, CanPort, fitted
from packtrust_node.can_spi import Buffers

# SPI instructions (chapter 4): four bits, then a 12-bit address
_RESET = const(0x00)
_READ = const(0x30)
_WRITE = const(0x20)

# Registers; FIFO 1 transmits, FIFO 2 receives
_C1CON = const(0x000)
_C1NBTCFG = const(0x004)
_C1DBTCFG = const(0x008)
_C1TDC = const(0x00C)
_C1INT = const(0x01C)
_C1TREC = const(0x034)
_C1FIFOCON1 = const(0x05C)
_C1FIFOSTA1 = const(0x060)
_C1FIFOCON2 = const(0x068)
_C1FIFOSTA2 = const(0x06C)
_C1FLTCON = const(0x1D0)
_C1FLTOBJ = const(0x1F0)
_RAM = const(0x400)
_OSC = const(0xE00)

# C1CON.REQOP, byte 3; C1CON.OPMOD, bits 7..5 of byte 2
_MODE_FD = const(0)
_MODE_CONFIGURATION = const(4)
_MODE_CLASSIC = const(6)

# Second byte of C1FIFOCON
_UINC = const(0x01)
_TXREQ = const(0x02)

# First byte of C1FIFOSTA
_NOT_FULL_OR_EMPTY = const(0x01)  # TFNRFNIF: a transmit FIFO has room, a receive FIFO has a frame
_EMPTY = const(0x04)  # TFERFFIF of a transmit FIFO
_RXOVIF = const(0x08)

# Third byte of C1TREC
_TXBO = const(0x20)
_PASSIVES = const(0x18)
_EWARN = const(0x01)

# Second header word of a message object, first byte
_IDE = const(0x10)
_RTR = const(0x20)
_BRS = const(0x40)
_FDF = const(0x80)

_FILTERS = const(32)
# Objects of 8 + 64 bytes, or 8 + 8, in 2048 bytes of message RAM; a FIFO has 32 objects at most.
_TX_DEPTH = const(8)
_RX_DEPTH_FD = const(20)
_RX_DEPTH = const(32)

_STEP_RESET = const(0)
_STEP_CLOCK = const(1)
_STEP_CONFIGURE = const(2)
_STEP_START = const(3)
_STEP_RUN = const(4)

_ASK_MS = const(1)
_LOOK_MS = const(20)
_START_MS = const(500)
_AGAIN_MS = const(1000)

_OSC_READY = const(0x04)  # second byte of OSC
_PLL_READY = const(0x01)


def timing(clock: int, bitrate: int, sample_point: int, tseg1_max: int, tseg2_max: int) -> "tuple[int, int, int, int]":
    """BRP, TSEG1, TSEG2, SJW in quanta (registers hold one less each) for a clock in Hz and a bit rate in bit/s.

    As many quanta as possible, as the data sheet advises. ValueError if no whole number of them makes that bit rate.
    """
    best = None
    for prescaler in range(1, 257):
        quanta = clock // (prescaler * bitrate)
        if quanta < 4:
            break
        if clock % (prescaler * bitrate) or quanta > 1 + tseg1_max + tseg2_max:
            continue
        segment2 = min(tseg2_max, max(1, quanta - (quanta * sample_point + 50) // 100))
        segment1 = quanta - 1 - segment2
        if segment1 > tseg1_max or segment1 < 2:
            continue
        error = abs(100 * (1 + segment1) - sample_point * quanta) * 256 // quanta
        if best is None or error < best[0]:
            best = (error, prescaler, segment1, segment2)
    if best is None:
        raise ValueError("no bit timing makes %d bit/s from a clock of %d Hz: take another bit rate" % (bitrate, clock))
    _, prescaler, segment1, segment2 = best
    return prescaler, segment1, segment2, segment2


class Mcp2518fd(CanPort):
    """One MCP2518FD.

    spi           `can_spi.MachineSpi` or `BusioSpi`; mode 0.
    bitrate       bit/s, nominal.
    data_bitrate  bit/s of the data phase; 0: a classic controller, which does not take part in CAN FD traffic.
    clock         Hz of crystal or oscillator: 40 or 20 MHz, or 4 MHz, which the PLL multiplies by ten.
    interrupt     `machine.Pin` (input) at INT1 or INT, or None: asked first, it spares an SPI transaction a round.

    The chip is set up by `poll`: until then, and again after it has lost its supply, `state` is "opening".
    """

    def __init__(
        self,
        spi,
        bitrate=500000,
        data_bitrate=0,
        clock=40000000,
        interrupt=None,
        sample_point=80,
        data_sample_point=80,
    ) -> None:
        CanPort.__init__(self)
        self.fd = data_bitrate > 0
        self._pll = clock == 4000000
        clock = clock * 10 if self._pll else clock
        # As far as C1NBTCFG and C1DBTCFG go.
        self._nominal = timing(clock, bitrate, sample_point, 256, 128)
        self._data = timing(clock, data_bitrate, data_sample_point, 32, 16) if self.fd else None
        self._payload = 64 if self.fd else 8
        self._rx_depth = _RX_DEPTH_FD if self.fd else _RX_DEPTH
        self._exchange = spi.exchange
        sizes = [2, 3, 6, 10]
        for size in FD_LENGTHS:
            if size <= self._payload:
                sizes.append(10 + (size + 3) // 4 * 4)
        self._buffers = Buffers(sizes)
        self._out = self._buffers.out
        self._into = self._buffers.into
        self._views = self._buffers.views
        # A received object, behind two bytes of instruction; `send` and `poll` leave it alone.
        self._object = bytearray(10 + self._payload)
        body = memoryview(self._object)[10:]
        self._bodies = {}
        for size in FD_LENGTHS:
            if size <= self._payload:
                self._bodies[size] = body[:size]
        self._ask = bytearray(10 + self._payload)
        self._interrupt = interrupt
        self._step = _STEP_RESET
        self._since_ms = 0
        self._retry_ms = None  # type: int | None
        self._looked_ms = 0
        self._next = 0  # object of the transmit FIFO that the next frame gets

    # -- registers -----------------------------------------------------------------------------------------------------

    def _transact(self, instruction: int, address: int, size: int) -> None:
        """`size` bytes from `address`: written from `self._out[2:]` or read into `self._into[2:]`."""
        view = self._views[2 + size]
        self._out[0] = instruction | address >> 8
        self._out[1] = address & 0xFF
        self._exchange(view[0], view[1])

    def _set(self, register: int, b0: int, b1: int, b2: int, b3: int) -> None:
        out = self._out
        out[2] = b0
        out[3] = b1
        out[4] = b2
        out[5] = b3
        self._transact(_WRITE, register, 4)

    def _set_byte(self, address: int, value: int) -> None:
        self._out[2] = value
        self._transact(_WRITE, address, 1)

    def _mode(self) -> int:
        self._transact(_READ, _C1CON + 2, 1)
        return self._into[2] >> 5

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
            # RESET works in configuration mode only (chapter 4), so that is asked for first.
            self._set_byte(_C1CON + 3, _MODE_CONFIGURATION)
            self._step = _STEP_CLOCK
            self._since_ms = now_ms
            return _ASK_MS
        if self._step == _STEP_CLOCK:
            if self._mode() != _MODE_CONFIGURATION:
                return self._waits("no MCP2518FD answers: check SPI wiring, chip select and supply", now_ms)
            self._reset()
            if self._pll:
                self._set_byte(_OSC, 1)  # PLLEN
            self._step = _STEP_CONFIGURE
            self._since_ms = now_ms
            return _ASK_MS
        if self._step == _STEP_CONFIGURE:
            self._transact(_READ, _OSC + 1, 1)
            ready = self._into[2]
            if not ready & _OSC_READY or (self._pll and not ready & _PLL_READY):
                return self._waits("the MCP2518FD's clock does not start: check its crystal and `clock`", now_ms)
            if not self._configure():
                return self._fail("no MCP2518FD answers: check SPI wiring, chip select and supply", now_ms)
            self._set_byte(_C1CON + 3, _MODE_FD if self.fd else _MODE_CLASSIC)
            self._step = _STEP_START
            self._since_ms = now_ms
            return _ASK_MS
        if self._mode() != (_MODE_FD if self.fd else _MODE_CLASSIC):
            return self._waits("the bus is never idle: check transceiver, its wiring and CANH against CANL", now_ms)
        self._step = _STEP_RUN
        self._looked_ms = now_ms
        self.fault = ""
        self._enter(ACTIVE)
        self.counters["opened"] += 1
        return _ASK_MS

    def _waits(self, fault: str, now_ms: int) -> int:
        """Look again soon; give up after a while."""
        if now_ms - self._since_ms > _START_MS:
            return self._fail(fault, now_ms)
        return _ASK_MS

    def _reset(self) -> None:
        self._transact(_RESET, 0, 0)

    def _configure(self) -> bool:
        nominal = self._nominal
        # TXBWS, ABAT 0, REQOP configuration; no transmit queue, no event FIFO; ISOCRCEN, PXEDIS
        self._set(_C1CON, 0x60, 0x07, 0x00, _MODE_CONFIGURATION)
        self._set(_C1NBTCFG, nominal[3] - 1, nominal[2] - 1, nominal[1] - 1, nominal[0] - 1)
        self._transact(_READ, _C1NBTCFG, 4)
        if self._into[2] != nominal[3] - 1 or self._into[4] != nominal[1] - 1:
            return False
        if self._data is not None:
            prescaler, segment1, segment2, jump = self._data
            self._set(_C1DBTCFG, jump - 1, segment2 - 1, segment1 - 1, prescaler - 1)
            # The second sample point measures the transceiver's delay and adds TDCO: BRP * TSEG1.
            self._set(_C1TDC, 0, min(63, prescaler * segment1), 0x02, 0)
        size = (7 << 5) if self.fd else 0  # PLSIZE 64 or 8 bytes
        # TXEN; TXAT = 3: unlimited attempts
        self._set(_C1FIFOCON1, 0x80, 0x04, 0x60, size | (_TX_DEPTH - 1))
        # TFNRFNIE, and with RXIE the pin INT1 (and INT) is low while a frame is there.
        self._set(_C1FIFOCON2, 0x01, 0x04, 0x00, size | (self._rx_depth - 1))
        self._set(_C1INT, 0, 0, 0x02, 0)
        self._next = 0
        self._write_filters()
        return True

    def _set_id(self, register: int, ident: int, top: int) -> None:
        """A filter or mask word: SID in bits 10..0, EID in bits 28..11, `top` above."""
        word = ident >> 18 | (ident & 0x3FFFF) << 11
        self._set(register, word & 0xFF, word >> 8 & 0xFF, word >> 16 & 0xFF, word >> 24 | top)

    def _write_filters(self) -> None:
        # A filter may be changed while it is off, in any mode.
        for register in range(_C1FLTCON, _C1FLTCON + _FILTERS, 4):
            self._set(register, 0, 0, 0, 0)
        pairs = fitted(self._accept.pairs, _FILTERS)
        for filter_number in range(max(1, len(pairs))):
            register = _C1FLTOBJ + 8 * filter_number
            if pairs:
                code, mask = pairs[filter_number]
                self._set_id(register, code, 0x40)  # EXIDE
                self._set_id(register + 4, mask, 0x40)  # MIDE: only 29-bit frames
            else:
                self._set_id(register, 0, 0)
                self._set_id(register + 4, 0, 0)
            self._set_byte(_C1FLTCON + filter_number, 0x80 | 2)  # FLTEN, into FIFO 2

    def _apply_filters(self) -> None:
        if self._step > _STEP_CONFIGURE:
            self._write_filters()

    def recover(self) -> None:
        """Reset and set up the chip: it begins error active, and what it held is dropped."""
        self._step = _STEP_RESET
        self._retry_ms = None
        self._bus_off_ms = None
        self.state = OPENING

    def _look(self, now_ms: int) -> None:
        self._looked_ms = now_ms
        if self._mode() != (_MODE_FD if self.fd else _MODE_CLASSIC):
            # Reset, or restricted to listening by a fault of its message RAM.
            self._fail("the MCP2518FD has left the bus: check its supply", now_ms)
            self._retry_ms = None
            return
        self._transact(_READ, _C1TREC, 4)
        self.counters["rec"] = self._into[2]
        self.counters["tec"] = self._into[3]
        flags = self._into[4]
        if flags & _TXBO:
            self._enter(BUS_OFF)
        elif flags & _PASSIVES:
            self._enter(PASSIVE)
        else:
            self._enter(WARNING if flags & _EWARN else ACTIVE)

    def poll(self, now_ms: int) -> int:
        """Set the chip up, look at its errors now and then; milliseconds until frames should be asked for."""
        if self._step != _STEP_RUN:
            return self._open(now_ms)
        if now_ms - self._looked_ms >= _LOOK_MS:
            self._look(now_ms)
        if self.state == BUS_OFF:
            self._wait_in_bus_off(now_ms)
        return _ASK_MS

    # -- sending -------------------------------------------------------------------------------------------------------

    def pending(self) -> int:
        """Frames in the chip, not yet on the wire."""
        if self._step != _STEP_RUN:
            return 0
        self._transact(_READ, _C1FIFOSTA1, 8)
        if self._into[2] & _EMPTY:
            return 0
        # FIFOCI is the object that leaves next; if that is the one we would fill next, all are in use.
        return (self._next - (self._into[3] & 0x1F)) % _TX_DEPTH or _TX_DEPTH

    def send(self, frame) -> bool:
        """Give a frame to the chip; False: no room now, or not on the bus."""
        if self._step != _STEP_RUN or self.state == BUS_OFF:
            return False
        data = frame.data
        size = frame.dlc if frame.is_remote_frame else len(data)
        if (frame.is_fd and not self.fd) or size not in FD_LENGTHS or (size > 8 and not frame.is_fd):
            self.counters["refused"] += 1
            return True  # it could wait for ever
        # C1FIFOSTA1 and, behind it, C1FIFOUA1: where in RAM the next object lies.
        self._transact(_READ, _C1FIFOSTA1, 8)
        if not self._into[2] & _NOT_FULL_OR_EMPTY:
            return False
        address = _RAM + (self._into[6] | self._into[7] << 8)
        self._fill(frame, data, size)
        self._transact(_WRITE, address, 8 + (0 if frame.is_remote_frame else (size + 3) // 4 * 4))
        self._set_byte(_C1FIFOCON1 + 1, _UINC | _TXREQ)
        self._next = (self._next + 1) % _TX_DEPTH
        self.counters["sent"] += 1
        return True

    def _fill(self, frame, data, size: int) -> None:
        """A transmit message object to `self._out[2:]`."""
        out = self._out
        ident = frame.arbitration_id
        flags = FD_LENGTHS.index(size)
        if frame.is_extended_id:
            ident = ident >> 18 | (ident & 0x3FFFF) << 11
            flags |= _IDE
        if frame.is_fd:
            flags |= _FDF | _BRS
        out[2] = ident & 0xFF
        out[3] = ident >> 8 & 0xFF
        out[4] = ident >> 16 & 0xFF
        out[5] = ident >> 24
        out[7] = out[8] = out[9] = 0
        if frame.is_remote_frame:
            out[6] = flags | _RTR
            return
        out[6] = flags
        for at in range(size):
            out[10 + at] = data[at]

    # -- receiving -----------------------------------------------------------------------------------------------------

    def recv(self):
        """The next frame received, or None."""
        if self._step != _STEP_RUN:
            return None
        while self._interrupt is None or not self._interrupt():
            self._transact(_READ, _C1FIFOSTA2, 8)
            status = self._into[2]
            if status & _RXOVIF:
                self.counters["lost"] += 1
                self._set_byte(_C1FIFOSTA2, 0)
            if not status & _NOT_FULL_OR_EMPTY:
                break
            address = _RAM + (self._into[6] | self._into[7] << 8)
            ask = self._ask
            ask[0] = _READ | address >> 8
            ask[1] = address & 0xFF
            self._exchange(ask, self._object)
            self._set_byte(_C1FIFOCON2 + 1, _UINC)
            frame = self._decode()
            if frame is not None:
                return frame
        return None

    def _decode(self):
        slot = self._object
        word = slot[2] | slot[3] << 8 | slot[4] << 16 | (slot[5] & 0x1F) << 24
        if slot[6] & _IDE:
            frame = self._let_in((word & 0x7FF) << 18 | word >> 11, True)
        else:
            frame = self._let_in(word & 0x7FF, False)
        if frame is not None:
            self._fill_in(frame, slot[6])
        return frame

    def _fill_in(self, frame, flags: int) -> None:
        size = FD_LENGTHS[flags & 0x0F]
        if flags & _FDF:
            self._complete(frame, self._bodies[size], size, False, True)
        else:
            size = min(size, 8)  # a classic frame's code 9..15 stands for 8 bytes
            self._complete(frame, self._bodies[size], size, flags & _RTR != 0)
