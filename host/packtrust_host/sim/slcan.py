"""The LAWICEL SLCAN protocol (CAN232 / CANUSB manuals), device side, sans I/O.

Bytes from the host go in, bytes for the host come out.  Commands end with CR; the answer is CR for
done, BEL for refused, or a text and CR:

=================  =================================================================================
``S0``..``S9``     bit rate 10k 20k 50k 100k 125k 250k 500k 750k 1M 83.3k; channel closed
``sxxyy``          SJA1000 BTR0, BTR1 at 8 MHz; channel closed
``Y2`` ``Y5``      CAN FD data bit rate, 2 or 5 Mbit/s (the CANable 2.0's and python-can's); closed
``O`` ``L`` ``l``  open; open listen-only; open in loopback
``C``              close: what is queued is dropped
``t`` ``T``        send: 11 / 29 bit ID, DLC digit, data; answer ``z`` / ``Z`` CR
``r`` ``R``        send a remote frame
``d D b B``        send CAN FD, 11 / 29 bit, without / with bit rate switch; DLC is the 4-bit code
``F``              status flags, cleared by reading
``M`` ``m``        SJA1000 acceptance code / mask (mask bit 1: don't care); channel closed
``W0`` ``W1``      dual / single acceptance filter; channel closed
``Z0`` ``Z1``      16-bit millisecond time stamps (0..59999) off / on; channel closed
``X0`` ``X1``      auto poll off / on;  ``P`` ``A``: fetch one / all frames with auto poll off
``V`` ``v`` ``N``  hardware and software version; software version; serial number
``f``, ``fiiiiiiiimmmmmmmm``   extension: no ID filters / one more, SocketCAN style: ID (bit 31:
                   extended) and mask (1: compare).  A frame must also pass one of them
``U`` ``Q``        UART speed, auto start-up: accepted, without effect on a virtual device
=================  =================================================================================

Nothing that comes in raises; garbage is answered with BEL.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

from packtrust.frame import Frame

from .bus import BUS_OFF, ERROR_PASSIVE, FD_ENABLED, Controller
from .can_bits import FD_LENGTHS

OK = b"\r"
ERROR = b"\a"

BITRATES = {
    "0": 10_000,
    "1": 20_000,
    "2": 50_000,
    "3": 100_000,
    "4": 125_000,
    "5": 250_000,
    "6": 500_000,
    "7": 750_000,
    "8": 1_000_000,
    "9": 83_300,
}
DATA_BITRATES = {"2": 2_000_000, "5": 5_000_000}

# Status flags (LAWICEL manual, command F)
RX_FULL, TX_FULL, ERROR_WARNING, OVERRUN = 0x01, 0x02, 0x04, 0x08
PASSIVE, LOST_ARBITRATION, BUS_ERROR = 0x20, 0x40, 0x80
WARNING_LIMIT = 96

MAX_LINE = 1 + 8 + 1 + 2 * 64
_HEX = frozenset("0123456789abcdefABCDEF")


def _hex(text: str) -> int:
    """Hex digits only: int() alone would take '+1', '1_0' and ' 1'."""
    if not text or not _HEX.issuperset(text):
        raise ValueError("not hex")
    return int(text, 16)


class Acceptance:
    """SJA1000 acceptance filter (data sheet 6.4.15): code and mask, 4 bytes each.

    single  W1: one filter over the whole standard ID, RTR and two data bytes, or the whole 29-bit
            ID and RTR.  W0 (dual): two filters; of a 29-bit ID they compare bits 28..13 only.
    """

    def __init__(self) -> None:
        self.code = 0
        self.mask = 0xFFFFFFFF
        self.single = False

    def accepts(self, frame: Frame) -> bool:
        """Whether the frame passes."""
        if self.mask == 0xFFFFFFFF:
            return True
        ident, rtr = frame.arbitration_id, int(frame.is_remote_frame)
        data = b"" if rtr else bytes(frame.data)
        if frame.is_extended_id:
            if self.single:
                return self._match(ident << 3 | rtr << 2, 0xFFFFFFFC)
            return self._match(ident >> 13 << 16, 0xFFFF0000) or self._match(ident >> 13, 0xFFFF)
        head = ident << 5 | rtr << 4  # ID in bits 15..5, RTR in bit 4
        # Data bytes that a frame does not have are not compared.
        if self.single:
            relevant = 0xFFF00000
            value = head << 16
            if len(data) >= 1:
                value |= data[0] << 8
                relevant |= 0xFF00
            if len(data) >= 2:
                value |= data[1]
                relevant |= 0xFF
            return self._match(value, relevant)
        first, relevant = head << 16, 0xFFF00000
        if data:
            # Filter 1 compares the first data byte: its halves lie in bits 19..16 and 3..0.
            first |= (data[0] >> 4) << 16 | data[0] & 0xF
            relevant |= 0x000F000F
        return self._match(first, relevant) or self._match(head, 0xFFF0)

    def _match(self, value: int, relevant: int) -> bool:
        return (value ^ self.code) & relevant & ~self.mask == 0


class SlcanDevice:
    """An SLCAN adapter on a controller.

    controller  its callbacks belong to the device from now on; it is offline until ``O`` or ``L``.
    confirm     "accepted": ``z``/``Z`` CR as soon as the frame is in the transmit FIFO, as adapters
                do.  "transmitted": only once it has left on the wire, so that a node knows how many
                are pending; state changes are then reported as Linux's slcan driver has it:
                ``s`` + a/p/b (active, passive, bus-off) + receive and transmit error counter, 3
                digits each.  Refused frames get BEL at once either way.
    rx_limit    frames waiting for the host; more drop the oldest, counted in ``overruns``.  A host
                that sends but never reads loses answers too, beyond twice that many messages.
    on_output   called whenever output has come into an empty queue outside :meth:`feed`.
    on_channel  called with True when the host opens the channel, False when it is closed.
    """

    def __init__(
        self,
        controller: Controller,
        *,
        confirm: Literal["accepted", "transmitted"] = "accepted",
        serial: str = "PT01",
        rx_limit: int = 4096,
        on_output: Callable[[], None] | None = None,
    ) -> None:
        if confirm not in ("accepted", "transmitted"):
            raise ValueError(f"confirm is 'accepted' or 'transmitted', not {confirm!r}")
        self.controller = controller
        self.confirm = confirm
        self.serial = serial
        self.rx_limit = rx_limit
        self.on_output = on_output
        self.on_channel: Callable[[bool], None] | None = None
        self.acceptance = Acceptance()
        self.timestamps = False
        self.auto_poll = True
        self.overruns = 0
        self.refused = 0
        self.is_open = False
        self.held = False
        self._loopback = False
        self._flags = 0
        self._errors_seen = 0
        self._lost_seen = 0
        self._line = bytearray()
        self._skip = False
        self._input = b""
        self._out: deque[tuple[bytes, bool]] = deque()
        self._frames_out = 0
        self._polled: deque[bytes] = deque()
        controller.online = False
        controller.on_receive = self._received
        controller.on_transmitted = self._transmitted
        controller.on_state = self._state

    # -- bytes ---------------------------------------------------------------------------------

    def feed(self, data: bytes = b"", *, hold: bool = False) -> bytes:
        """Take bytes from the host; everything there is for it, answers and frames in order.

        hold  a frame that finds the transmit FIFO full waits inside, with all that came after it,
              instead of being refused, and so does a close while frames are queued; ``held`` is
              True then.  Feed again (nothing, if need be) when a frame has left.
        """
        self.accept(data, hold=hold)
        return self.take()

    def accept(self, data: bytes = b"", *, hold: bool = False) -> None:
        """As :meth:`feed`, but leaves the output for :meth:`take`."""
        data = self._input + data if self._input else bytes(data)
        self._input = b""
        self.held = False
        start = 0
        while True:
            end = data.find(b"\r", start)
            if end < 0:
                self._keep(data[start:])
                return
            if hold and self._would_wait(data, start):
                self.held = True
                self._input = data[start:]
                return
            self._keep(data[start:end])
            start = end + 1
            line, skip = bytes(self._line), self._skip
            self._line.clear()
            self._skip = False
            self._answer(ERROR if skip else self._command(line.lstrip(b"\n")))

    def _would_wait(self, data: bytes, start: int) -> bool:
        if not self.is_open or self.controller.state == BUS_OFF:
            return False
        head = bytes(self._line[:1]) or data[start : start + 1]
        if head == b"C":
            return self.controller.pending > 0
        return head in b"tTrRdDbB" and self.controller.free <= 0

    def _keep(self, data: bytes) -> None:
        self._line += data
        if len(self._line) > MAX_LINE + 1:
            self._skip = True
            del self._line[1:]

    def take(self, limit: int | None = None) -> bytes:
        """Take output, whole messages, at most about ``limit`` bytes (None: all)."""
        parts = []
        size = 0
        while self._out and (limit is None or size < limit):
            text, is_frame = self._out.popleft()
            self._frames_out -= is_frame
            parts.append(text)
            size += len(text)
        return b"".join(parts)

    @property
    def has_output(self) -> bool:
        """Something for the host is waiting."""
        return bool(self._out)

    def drop_output(self) -> int:
        """Throw away all output (nobody listens); how many messages that were."""
        count = len(self._out)
        self._out.clear()
        self._frames_out = 0
        return count

    def _answer(self, text: bytes) -> None:
        if text:
            self._out.append((text, False))
            self._limit()

    def _emit(self, text: bytes, is_frame: bool) -> None:
        idle = not self._out
        self._out.append((text, is_frame))
        self._frames_out += is_frame
        self._limit()
        if idle and self.on_output is not None:
            self.on_output()

    def _limit(self) -> None:
        position = 0
        if self._frames_out > self.rx_limit:
            while not self._out[position][1]:
                position += 1
        elif len(self._out) <= 2 * self.rx_limit:
            return
        self._frames_out -= self._out[position][1]
        del self._out[position]
        self.overruns += 1
        self._flags |= OVERRUN | RX_FULL

    # -- commands ------------------------------------------------------------------------------

    def _command(self, line: bytes) -> bytes:
        if not line:
            return OK
        try:
            text = line.decode("ascii")
            handler = _COMMANDS.get(text[0])
            return handler(self, text) if handler is not None else ERROR
        except ValueError:  # not ASCII, not hex, no such frame
            return ERROR

    def _set_rate(self, text: str) -> bytes:
        if self.is_open or len(text) != 2 or text[1] not in BITRATES:
            return ERROR
        self.controller.bitrate = BITRATES[text[1]]
        return OK

    def _set_timing(self, text: str) -> bytes:
        if self.is_open or len(text) != 5:
            return ERROR
        value = _hex(text[1:])
        prescaler = (value >> 8 & 0x3F) + 1
        quanta = 3 + (value & 0xF) + (value >> 4 & 7)
        self.controller.bitrate = 8_000_000 // (prescaler * quanta)
        return OK

    def _set_data_rate(self, text: str) -> bytes:
        if self.is_open or text[1:] not in DATA_BITRATES:
            return ERROR
        # The data phase of the virtual wire has one rate; asking for another cannot work.
        wire = self.controller.bus.data_bitrate
        return OK if self.controller.fd_support == FD_ENABLED and wire == DATA_BITRATES[text[1:]] else ERROR

    def _open(self, text: str) -> bytes:
        if self.is_open or len(text) != 1:
            return ERROR
        controller = self.controller
        self.is_open = True
        self._loopback = text == "l"
        controller.listen_only = text == "L"
        controller.online = not self._loopback
        self._flags = 0
        self._errors_seen = controller.errors
        self._lost_seen = controller.arbitration_lost
        # A bus-off controller that is opened anew waits for its 128 runs of 11 recessive bits.
        controller.recover()
        if self.on_channel is not None:
            self.on_channel(True)
        return OK

    def _close(self, text: str) -> bytes:
        if not self.is_open or len(text) != 1:
            return ERROR
        self.close()
        return OK

    def close(self) -> None:
        """Close the channel and drop what is queued, as ``C`` does; power-off calls it as well."""
        was_open = self.is_open
        self.is_open = False
        self._loopback = False
        self._polled.clear()
        self.controller.online = False
        self.controller.abort()
        if was_open and self.on_channel is not None:
            self.on_channel(False)

    def power_cycle(self) -> None:
        """Everything as after plugging in: closed, settings at their defaults, buffers empty."""
        self.close()
        self.acceptance = Acceptance()
        self.timestamps = False
        self.auto_poll = True
        self._flags = 0
        self._line.clear()
        self._skip = False
        self._input = b""
        self.held = False
        self.drop_output()
        self.controller.bitrate = self.controller.bus.bitrate
        self.controller.filters = None

    def _send(self, text: str) -> bytes:
        kind = text[0]
        extended = kind in "TRDB"
        digits = 8 if extended else 3
        ident = _hex(text[1 : 1 + digits])
        code = _hex(text[1 + digits : 2 + digits])
        body = text[2 + digits :]
        remote = kind in "rR"
        is_fd = kind in "dDbB"
        if len(text) < 2 + digits or (code > 8 and not is_fd):
            return ERROR
        length = FD_LENGTHS[code]
        if len(body) != (0 if remote else 2 * length) or not _HEX.issuperset(body):
            return ERROR
        frame = Frame(ident, bytes.fromhex(body), extended, is_fd, remote, kind in "bB", dlc=length)
        if not self.is_open:
            return ERROR
        if self._loopback:
            self._received(frame, self.controller.bus.now_ns)
        elif not self.controller.send(frame):
            self.refused += 1
            if self.controller.free <= 0:
                self._flags |= TX_FULL
            return ERROR
        elif self.confirm == "transmitted":
            return b""
        return self._confirmation(frame)

    def _confirmation(self, frame: Frame) -> bytes:
        if not self.auto_poll:
            return OK
        return b"Z\r" if frame.is_extended_id else b"z\r"

    def _status(self, text: str) -> bytes:
        if not self.is_open or len(text) != 1:
            return ERROR
        controller = self.controller
        flags = self._flags
        if controller.free <= 0:
            flags |= TX_FULL
        if max(controller.tec, controller.rec) >= WARNING_LIMIT:
            flags |= ERROR_WARNING
        if controller.state in (ERROR_PASSIVE, BUS_OFF):
            flags |= PASSIVE
        if controller.state == BUS_OFF or controller.errors != self._errors_seen:
            flags |= BUS_ERROR
        if controller.arbitration_lost != self._lost_seen:
            flags |= LOST_ARBITRATION
        self._errors_seen = controller.errors
        self._lost_seen = controller.arbitration_lost
        self._flags = 0
        return b"F%02X\r" % flags

    def _set_code(self, text: str) -> bytes:
        if self.is_open or len(text) != 9:
            return ERROR
        self.acceptance.code = _hex(text[1:])
        return OK

    def _set_mask(self, text: str) -> bytes:
        if self.is_open or len(text) != 9:
            return ERROR
        self.acceptance.mask = _hex(text[1:])
        return OK

    def _set_filter(self, text: str) -> bytes:
        if self.is_open or text not in ("W0", "W1"):
            return ERROR
        self.acceptance.single = text == "W1"
        return OK

    def _add_filter(self, text: str) -> bytes:
        if len(text) == 1:
            self.controller.filters = None
            return OK
        if len(text) != 17:
            return ERROR
        ident, mask = _hex(text[1:9]), _hex(text[9:])
        extended = bool(ident >> 31)
        whole = 0x1FFFFFFF if extended else 0x7FF
        rule = (ident & whole, mask & whole, extended)
        self.controller.filters = [*list(self.controller.filters or ()), rule]
        return OK

    def _set_timestamps(self, text: str) -> bytes:
        if self.is_open or text not in ("Z0", "Z1"):
            return ERROR
        self.timestamps = text == "Z1"
        return OK

    def _set_auto_poll(self, text: str) -> bytes:
        if self.is_open or text not in ("X0", "X1"):
            return ERROR
        self.auto_poll = text == "X1"
        return OK

    def _poll(self, text: str) -> bytes:
        if not self.is_open or self.auto_poll or len(text) != 1:
            return ERROR
        return self._polled.popleft() if self._polled else OK

    def _poll_all(self, text: str) -> bytes:
        if not self.is_open or self.auto_poll or len(text) != 1:
            return ERROR
        frames = b"".join(self._polled)
        self._polled.clear()
        return frames + b"A\r"

    def _version(self, text: str) -> bytes:
        return b"V1013\r" if len(text) == 1 else ERROR

    def _software(self, text: str) -> bytes:
        return b"v0103\r" if len(text) == 1 else ERROR

    def _serial(self, text: str) -> bytes:
        return b"N%s\r" % self.serial.encode("ascii") if len(text) == 1 else ERROR

    def _no_effect(self, text: str) -> bytes:
        return OK if len(text) == 2 and text[1].isdigit() and not self.is_open else ERROR

    # -- from the controller -------------------------------------------------------------------

    def _received(self, frame: Frame, time_ns: int) -> None:
        if not self.acceptance.accepts(frame):
            return
        text = format_frame(frame)
        if self.timestamps:
            text += b"%04X" % (time_ns // 1_000_000 % 60_000)
        text += OK
        if self.auto_poll:
            self._emit(text, True)
        elif len(self._polled) < self.rx_limit:
            self._polled.append(text)
        else:
            self.overruns += 1
            self._flags |= OVERRUN | RX_FULL

    def _transmitted(self, frame: Frame, time_ns: int) -> None:
        if self.confirm == "transmitted":
            self._emit(self._confirmation(frame), False)
        elif self.held and self.on_output is not None:
            self.on_output()

    def _state(self, state: str, time_ns: int) -> None:
        if self.confirm == "transmitted":
            letter = "b" if state == BUS_OFF else "p" if state == ERROR_PASSIVE else "a"
            counters = (min(self.controller.rec, 999), min(self.controller.tec, 999))
            self._emit(b"s%s%03d%03d\r" % ((letter.encode(), *counters)), False)


_last: tuple[Frame | None, bytes] = (None, b"")


def format_frame(frame: Frame) -> bytes:
    """A frame as SLCAN text, without CR.  FD frames carry the DLC code, classic ones the length."""
    global _last
    # Every port of a bus gets the same object, one after the other.
    if _last[0] is frame:
        return _last[1]
    data = b"" if frame.is_remote_frame else bytes(frame.data)
    if frame.is_fd:
        kind = "b" if frame.bitrate_switch else "d"
        dlc = FD_LENGTHS.index(len(data))
    else:
        kind = "r" if frame.is_remote_frame else "t"
        dlc = frame.dlc if frame.is_remote_frame else len(data)
    if frame.is_extended_id:
        text = f"{kind.upper()}{frame.arbitration_id:08X}{dlc:X}{data.hex().upper()}"
    else:
        text = f"{kind}{frame.arbitration_id:03X}{dlc:X}{data.hex().upper()}"
    _last = (frame, text.encode("ascii"))
    return _last[1]


_COMMANDS: dict[str, Callable[[SlcanDevice, str], bytes]] = {
    "S": SlcanDevice._set_rate,
    "s": SlcanDevice._set_timing,
    "Y": SlcanDevice._set_data_rate,
    "O": SlcanDevice._open,
    "L": SlcanDevice._open,
    "l": SlcanDevice._open,
    "C": SlcanDevice._close,
    "F": SlcanDevice._status,
    "M": SlcanDevice._set_code,
    "m": SlcanDevice._set_mask,
    "W": SlcanDevice._set_filter,
    "f": SlcanDevice._add_filter,
    "Z": SlcanDevice._set_timestamps,
    "X": SlcanDevice._set_auto_poll,
    "P": SlcanDevice._poll,
    "A": SlcanDevice._poll_all,
    "V": SlcanDevice._version,
    "v": SlcanDevice._software,
    "N": SlcanDevice._serial,
    "U": SlcanDevice._no_effect,
    "Q": SlcanDevice._no_effect,
    **dict.fromkeys("tTrRdDbB", SlcanDevice._send),
}
