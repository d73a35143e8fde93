"""CAN through a USB-CAN adapter (or the virtual bus) that speaks LAWICEL SLCAN over a byte stream.

This is the driver interface of a CAN port; drivers for machine.CAN, canio or an MCP2515 have the same:

    send(frame) -> bool     into the controller; False: no room or not open now, try again after `recv`
    recv() -> frame | None  next frame received, valid until the next call; never blocks, never raises
    pending() -> int        frames in the controller, not yet on the wire
    poll(now_ms) -> int     housekeeping; milliseconds until it wants the next call
    recover()               leave bus-off: what is in the controller is dropped
    state                   one of the names below
    counters                dict, by cause, for the console
    accept_nodes(nodes)     let in only 29-bit IDs with one of these node bytes, where the controller can
    stream                  what select.poll() can wait for, or None if it must be asked in turn
    orders_by_id            True if the controller sends the lowest ID first, not the oldest frame
    fd                      True if it was opened for CAN FD: frames with `is_fd` may be sent. They go out with the bit
                            rate switch where a data bit rate is set. A driver without the attribute has no CAN FD
"""

from binascii import hexlify, unhexlify

from packtrust._compat import const
from packtrust.frame import Frame
from packtrust.segmentation import FD_LENGTHS

OPENING = "opening"
ACTIVE = "active"
WARNING = "warning"
PASSIVE = "passive"
BUS_OFF = "bus-off"
LOST = "lost"  # the stream has ended: adapter unplugged

BITRATES = {
    10000: b"S0",
    20000: b"S1",
    50000: b"S2",
    100000: b"S3",
    125000: b"S4",
    250000: b"S5",
    500000: b"S6",
    750000: b"S7",  # some adapters read S7 as 750 kbit/s, the CAN232 manual says 800
    800000: b"S7",
    1000000: b"S8",
}
# The CAN FD extension, as the CANable 2.0 has it and python-can speaks it.
DATA_BITRATES = {2000000: b"Y2", 5000000: b"Y5"}
_STATES = {97: ACTIVE, 119: WARNING, 112: PASSIVE, 98: BUS_OFF}

_DEPTH = const(12)
_ANSWER_MS = const(1000)
_IDLE_MS = const(200)
_LINE_MAX = const(160)
# Read at once: four frames. More would need more heap in one piece than a board may have left.
_READ = const(128)


# What a module must hear, (base, mask): 0x510..0x51F and 0x520..0x53F.
MODULE_ACCEPT = ((0x510, 0x7F0), (0x520, 0x7E0))
# The same on a mixed bus, where 0x610..0x63F are sealed: bits 9 and 8 are not compared.
MIXED_ACCEPT = ((0x510, 0x4F0), (0x520, 0x4E0))


def dual_filter(accept: "tuple[tuple[int, int], tuple[int, int]]") -> "list[bytes]":
    """Commands for two filters, (base, mask) each, over the base (bits 28..18) of 29-bit IDs; mask bits 1 compare.

    SJA1000 dual filter mode, extended frames: each half compares ID bits 28..13; its own mask bits 1 are "don't care".
    """
    code = accept[0][0] << 21 | accept[1][0] << 5
    mask = 0xFFFFFFFF ^ (accept[0][1] << 21 | accept[1][1] << 5)
    return [b"W0", b"M%08X" % code, b"m%08X" % mask]


class SlcanCan:
    """One SLCAN adapter.

    stream    non-blocking: `readinto(buffer)` gives a count or None, `write(data)` a count or None.
    bitrate   bit/s, one of BITRATES.
    filters   further set-up commands, as `dual_filter` makes them.
    depth     frames kept in the adapter at most; the rest stays in the node's own queue, where it can be put in order.
    data_bitrate  bit/s of CAN FD's data phase, one of DATA_BITRATES; 0: classic CAN.

    The adapter confirms each frame by `z` or `Z`. The virtual one does so when the frame has left on the wire;
    most real ones when they have taken it, then `pending` is a lower bound.
    """

    orders_by_id = False

    def __init__(self, stream, bitrate: int = 500000, filters=(), depth: int = _DEPTH, data_bitrate: int = 0) -> None:
        if bitrate not in BITRATES:
            raise ValueError("SLCAN has no bit rate %d: take one of %s" % (bitrate, sorted(BITRATES)))
        if data_bitrate and data_bitrate not in DATA_BITRATES:
            raise ValueError("SLCAN has no data bit rate %d: take one of %s" % (data_bitrate, sorted(DATA_BITRATES)))
        self.stream = stream
        self.state = OPENING
        self.counters = {"sent": 0, "received": 0, "refused": 0, "malformed": 0, "bus_off": 0, "opened": 0}
        self.fault = ""  # why the adapter could not be opened
        self.fd = data_bitrate > 0
        self._setup = [BITRATES[bitrate]] + list(filters) + [b"O"]
        if self.fd:
            self._setup.insert(1, DATA_BITRATES[data_bitrate])
        self._depth = depth
        self._pending = 0
        self._read = memoryview(bytearray(_READ))
        self._tail = b""
        self._lines = []
        self._at = 0
        self._out = b""
        self._answers = 0  # answers to set-up commands still due
        self._ignored = 0  # of those, the first ones, which may well be refusals
        self._asked_ms = None
        self._bus_off_ms = None
        self._failed = False
        self._nodes = ()
        self._nodes_asked = True
        self._frame = Frame(0, bytes(8))  # what `recv` gives of most frames, again and again

    # -- opening -------------------------------------------------------------------------------------------------------

    def _open(self, now_ms: int) -> None:
        # Empty lines end whatever the adapter had half read; "C" fails if it was closed.
        commands = [b"", b"", b"C"]
        self._ignored = len(commands)
        commands.extend(self._setup)
        self._answers = len(commands)
        self._asked_ms = now_ms
        self._pending = 0
        self._failed = False
        self._nodes_asked = not self._nodes
        self._out = b""
        self._write(b"\r".join(commands) + b"\r")

    def _answer(self, good: bool) -> None:
        if self._answers == 0:
            if not good:
                # A frame it would not take; it does not say which.
                self.counters["refused"] += 1
                if self._pending:
                    self._pending -= 1
            return
        self._answers -= 1
        if self._ignored:
            self._ignored -= 1
        elif not good:
            self._failed = True
        if self._answers == 0 and self.state == OPENING:
            if self._failed:
                self.fault = "the adapter refused its set-up: check bit rate and filters"
                if self.fd:
                    self.fault += ", and that adapter and bus have CAN FD at this data bit rate"
                return  # asked again by poll()
            self.fault = ""
            self.state = ACTIVE
            self._asked_ms = None
            self.counters["opened"] += 1

    def poll(self, now_ms: int) -> int:
        """Open the adapter, and again if it does not answer; come back from bus-off a little later."""
        if self._out:
            self._write(b"")
        if not self._nodes_asked and not self._out and not self._answers and self.state not in (OPENING, BUS_OFF, LOST):
            self._ask_nodes()
        if self.state == OPENING:
            if self._asked_ms is None or now_ms - self._asked_ms >= _ANSWER_MS:
                if self._asked_ms is not None and not self._failed:
                    self.fault = "the adapter does not answer: check the cable and that it speaks SLCAN"
                self._open(now_ms)
        elif self.state == BUS_OFF:
            if self._bus_off_ms is None:
                self._bus_off_ms = now_ms
            elif now_ms - self._bus_off_ms >= _IDLE_MS:
                self.recover()
                self._open(now_ms)
        return 5 if self._out else _IDLE_MS

    def accept_nodes(self, nodes) -> None:
        """Let in only frames with one of these node bytes. An adapter that cannot refuses, and lets in what it did."""
        self._nodes = tuple(nodes)
        self._nodes_asked = False

    def _ask_nodes(self) -> None:
        # The virtual adapter's extension: "f" forgets the filters, "f" ID mask (bit 31 of the ID: 29-bit) adds one.
        commands = [b"f"]
        for node in self._nodes:
            commands.append(b"f%08X%08X" % (0x80000000 | node, 0xFF))
        self._nodes_asked = True
        self._answers = self._ignored = len(commands)
        self._write(b"\r".join(commands) + b"\r")

    def recover(self) -> None:
        """Close and open anew: the only way out of bus-off that SLCAN has. Frames in the adapter are lost."""
        if self.state != LOST:
            self.state = OPENING
            self._asked_ms = None
            self._bus_off_ms = None

    # -- sending -------------------------------------------------------------------------------------------------------

    def pending(self) -> int:
        """Frames given and not confirmed."""
        return self._pending

    def send(self, frame) -> bool:
        """Give a frame to the adapter; False if there is no room, or it is not open."""
        if self._pending >= self._depth or self._answers or self._out or self.state in (OPENING, BUS_OFF, LOST):
            return False
        # Should there be no heap for the line, the frame was not given.
        self._write(encode(frame, self.fd))
        self._pending += 1
        self.counters["sent"] += 1
        return True

    def _write(self, data: bytes) -> None:
        if self._out:
            data = self._out + data
        if not data:
            return
        try:
            count = self.stream.write(data)
        except OSError:
            self.state = LOST
            count = len(data)
        self._out = b"" if count == len(data) else data[count or 0 :]

    # -- receiving -----------------------------------------------------------------------------------------------------

    def recv(self):
        """The next frame, or None when nothing is there now. It is valid until the next call."""
        while True:
            lines = self._lines
            at = self._at
            if at < len(lines):
                self._at = at + 1
                frame = self._usual(lines[at])
                if frame is not None:
                    return frame
            elif not self._fill():
                return None

    def _usual(self, line):
        """Deal with one line, most likely what nearly all traffic is: a classic 29-bit frame of 8 bytes.

        Short: with more state a call takes heap (tests/on_target/test_call_frames.py).
        """
        if line is None or len(line) != 26 or line[:1] != b"T" or line[9] != 0x38:
            return self._line(line)
        raw = _bytes_of(line[1:9])
        data = _bytes_of(line[10:])
        if not raw or not data or raw[0] > 0x1F:
            return self._line(line)
        frame = self._frame
        frame.arbitration_id = int.from_bytes(raw, "big")
        frame.data = data
        self.counters["received"] += 1
        return frame

    def _fill(self) -> bool:
        if self.state == LOST:
            return False
        try:
            count = self.stream.readinto(self._read)
        except OSError:
            count = 0
        if count is None:
            return False
        if count == 0:
            self.state = LOST
            self._pending = 0
            return False
        lines = (self._tail + bytes(self._read[:count])).split(b"\r")
        tail = lines.pop()
        # A refusal is one byte without an end of line.
        while tail[:1] == b"\x07":
            tail = tail[1:]
            lines.append(None)
        if len(tail) > _LINE_MAX:
            self.counters["malformed"] += 1
            tail = b""
        self._tail = tail
        self._lines = lines
        self._at = 0
        return True

    def _line(self, line: bytes):
        """Deal with one line (None: a refusal alone); the frame if it was one."""
        if line is None:
            self._answer(False)
            return None
        while line[:1] == b"\x07":
            self._answer(False)
            line = line[1:]
        if not line:
            self._answer(True)
            return None
        head = line[0]
        if (head == 0x5A or head == 0x7A) and len(line) == 1:
            # While a set-up is being answered, these belong to frames given before it.
            if self._pending and not (self._answers and self.state == OPENING):
                self._pending -= 1
            return None
        if head == 0x73:
            self._on_state(line)
            return None
        frame = decode(line)
        if frame is None:
            self.counters["malformed"] += 1
        else:
            self.counters["received"] += 1
        return frame

    def _on_state(self, line: bytes) -> None:
        """`s` + a, w, p or b + receive and transmit error counter, 3 digits each, as Linux's slcan has it."""
        state = _STATES.get(line[1]) if len(line) == 8 else None
        if state is None:
            self.counters["malformed"] += 1
        elif self.state not in (OPENING, LOST):
            if state == BUS_OFF:
                self.counters["bus_off"] += 1
            self.state = state


def _bytes_of(digits: bytes):
    """The bytes that hexadecimal digits stand for, None if they are none."""
    try:
        return unhexlify(digits)
    except ValueError:
        return None


def encode(frame, switch: bool = False) -> bytes:
    """A frame as an SLCAN command, CR included; `switch`: CAN FD frames with the bit rate switch in any case."""
    data = frame.data
    extended = frame.is_extended_id
    if frame.is_fd:
        letter = "b" if switch or frame.bitrate_switch else "d"
        size = FD_LENGTHS.index(len(data))
    elif frame.is_remote_frame:
        letter = "r"
        size = frame.dlc
        data = b""
    else:
        letter = "t"
        size = len(data)
    if extended:
        return b"%s%08X%X%s\r" % (letter.upper().encode(), frame.arbitration_id, size, hexlify(data))
    return b"%s%03X%X%s\r" % (letter.encode(), frame.arbitration_id, size, hexlify(data))


def decode(line: bytes):
    """The frame of an SLCAN line without its CR, time stamp or not; None if it is none."""
    head = line[0]
    extended = head < 0x60
    kind = head | 0x20
    digits = 8 if extended else 3
    if kind not in (0x74, 0x72, 0x64, 0x62) or len(line) < digits + 2:
        return None
    try:
        ident = int.from_bytes(unhexlify(line[1:9] if extended else b"0" + line[1:4]), "big")
        code = unhexlify(b"0" + line[digits + 1 : digits + 2])[0]
        if kind == 0x72:
            size = code
            data = b""
        else:
            size = FD_LENGTHS[code]
            data = unhexlify(line[digits + 2 : digits + 2 + 2 * size])
    except ValueError:
        return None
    fd = kind in (0x64, 0x62)
    rest = len(line) - digits - 2 - 2 * len(data)
    if (code > 8 and not fd) or (kind != 0x72 and len(data) != size) or rest not in (0, 4):
        return None
    if ident > (0x1FFFFFFF if extended else 0x7FF):
        return None
    return Frame(ident, data, extended, fd, kind == 0x72, kind == 0x62, size)
