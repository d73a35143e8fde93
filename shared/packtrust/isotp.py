"""ISO-TP (ISO 15765-2:2016), one link between two 29-bit IDs, sans-I/O.

Classic CAN frames or CAN FD ones (TX_DL 64), payloads of up to 4095 bytes. As a receiver it asks for everything at
once (block size 0, STmin 0); as a sender it follows what the peer asks for.
"""

from packtrust._compat import const
from packtrust.frame import Frame
from packtrust.segmentation import FD_LENGTHS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer, FrameLike

PAYLOAD_MAX = const(4095)

# ISO 15765-2, table 16: N_Bs and N_Cr time-outs.
TIMEOUT_MS = const(1000)
# ISO 15765-2, N_WFTmax: how often in a row the receiver may ask for another N_Bs.
WAITS_MAX = const(8)
# A transfer that has just begun is not given up for another one within this time, as ISO 15765-2 would have it: who
# floods a bus with first frames would have us make room for each.
FIRST_MS = const(100)

_SINGLE = const(0)
_FIRST = const(1)
_CONSECUTIVE = const(2)
_FLOW = const(3)

_CONTINUE = const(0)
_WAIT = const(1)
_OVERFLOW = const(2)


class Pieces:
    """A payload in pieces, each of one byte at least: a small board's heap may have room for it, but not in one."""

    def __init__(self, pieces: "list[bytearray]") -> None:
        self.pieces = pieces
        self._size = sum([len(piece) for piece in pieces])

    def __len__(self) -> int:
        return self._size

    def part(self, start: int, stop: int) -> bytes:
        """What `payload[start:stop]` would be; 0 <= start <= stop."""
        found = b""
        for piece in self.pieces:
            if start < len(piece) and stop > 0:
                found += piece[max(0, start) : stop]
            start -= len(piece)
            stop -= len(piece)
        return found


_IN_ONE = (bytes, bytearray, memoryview)


def _part(payload: "Buffer | Pieces", start: int, stop: int) -> "Buffer":
    # Not by the class in pieces: a board may have loaded this module again since the payload was made.
    return payload[start:stop] if isinstance(payload, _IN_ONE) else payload.part(start, stop)


class IsoTpLink:
    """One ISO-TP link: `tx_id` and `rx_id` are whole arbitration IDs (29 bits).

    `send()` and `feed()` put frames into `outgoing()`, to be sent in order. `receive_max` bounds the memory a peer can
    make us allocate; `burst`, if not 0, how many consecutive frames there are at once: `outgoing` is called again then,
    until it gives none. `dropped` counts what was given up, by cause.
    """

    def __init__(
        self, tx_id: int, rx_id: int, receive_max: int = PAYLOAD_MAX, fd: bool = False, burst: int = 0
    ) -> None:
        self.tx_id = tx_id
        self.rx_id = rx_id
        self.dropped = {}  # type: dict[str, int]
        self._receive_max = receive_max
        self._fd = fd
        self._burst = burst
        self._tx_dl = 64 if fd else 8
        self._frames = []  # type: list[Frame]
        self._waiting = []  # type: list[Buffer | Pieces]
        # transmit
        self._payload = b""  # type: Buffer | Pieces
        self._at = 0
        self._sequence = 0
        self._block_left = -1  # frames until the next flow control; -1: no limit
        self._stmin_ms = 0
        self._may_send = False
        self._waits = 0  # FC.WAIT in a row
        self._tx_time_ms = 0
        # receive
        self._buffer = None  # type: bytearray | None
        self._filled = 0
        self._expected = 0
        self._rx_time_ms = 0
        self._first_ms = 0

    @property
    def sending(self) -> bool:
        """Whether a payload is still under way."""
        return bool(self._payload) or bool(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way in either direction."""
        return self._buffer is None and not self.sending and not self._frames

    @property
    def has_outgoing(self) -> bool:
        """Whether `outgoing` has frames."""
        return bool(self._frames)

    def _drop(self, cause: str) -> None:
        self.dropped[cause] = self.dropped.get(cause, 0) + 1

    def _emit(self, data: "Buffer") -> None:
        if self._fd:
            room = len(data)
            for room in FD_LENGTHS:
                if room >= len(data):
                    break
            padded = bytearray(b"\xcc" * room)
            padded[: len(data)] = data
            self._frames.append(Frame(self.tx_id, bytes(padded), True, True))
        else:
            self._frames.append(Frame(self.tx_id, bytes(data)))

    def outgoing(self) -> "list[Frame]":
        """Frames to send now, in order; the list is then empty."""
        if self._burst and not self._frames and not self._stmin_ms:
            self._continue(self._tx_time_ms)
        frames = self._frames
        self._frames = []
        return frames

    def send(self, payload: "Buffer | Pieces", now_ms: int) -> None:
        """Queue a payload of 1..4095 bytes, which is the link's until it is sent: a small board has no room for a copy.
        Raises ValueError for another length.
        """
        if not 1 <= len(payload) <= PAYLOAD_MAX:
            raise ValueError("ISO-TP carries 1..4095 bytes, not %d" % len(payload))
        self._waiting.append(payload)
        self._start(now_ms)

    def _start(self, now_ms: int) -> None:
        while not self._payload and self._waiting:
            payload = self._waiting.pop(0)
            size = len(payload)
            if size <= 7:
                self._emit(bytes((size,)) + _part(payload, 0, size))
            elif self._fd and size <= 62:
                self._emit(bytes((0, size)) + _part(payload, 0, size))
            else:
                self._payload = payload
                self._at = self._tx_dl - 2
                self._sequence = 1
                self._may_send = False
                self._waits = 0
                self._tx_time_ms = now_ms
                self._emit(bytes((_FIRST << 4 | size >> 8, size & 0xFF)) + _part(payload, 0, self._at))

    def _continue(self, now_ms: int) -> None:
        room = self._tx_dl - 1
        while self._payload and self._may_send:
            if self._stmin_ms and now_ms - self._tx_time_ms < self._stmin_ms:
                return
            if self._burst and len(self._frames) >= self._burst:
                return
            part = _part(self._payload, self._at, self._at + room)
            self._emit(bytes((_CONSECUTIVE << 4 | self._sequence,)) + part)
            self._sequence = (self._sequence + 1) & 15
            self._at += len(part)
            self._tx_time_ms = now_ms
            if self._at >= len(self._payload):
                self._payload = b""
                self._start(now_ms)
                return
            if self._block_left > 0:
                self._block_left -= 1
                if self._block_left == 0:
                    self._may_send = False

    def feed(self, frame: "FrameLike", now_ms: int) -> "bytes | None":
        """Take a frame that came with `rx_id`; a complete payload or None. Never raises on what the wire brings."""
        data = frame.data
        if not data:
            return None
        if (
            self._buffer is not None
            and data[0] >> 4 == _FIRST
            and now_ms - self._first_ms < FIRST_MS
            and (len(data) < 8 or (data[0] & 15) << 8 | data[1] <= self._receive_max)
        ):
            self._drop("hasty")
            return None
        return self._feed(data, now_ms)

    def _feed(self, data: "Buffer", now_ms: int) -> "bytes | None":
        kind = data[0] >> 4
        if kind == _FLOW:
            self._flow(data, now_ms)
            return None
        if kind == _SINGLE:
            size = data[0] & 15
            start = 1
            if size == 0 and len(data) > 8:
                size = data[1]
                start = 2
            if not 1 <= size <= len(data) - start:
                self._drop("malformed")
                return None
            if self._buffer is not None:
                self._drop("restarted")
                self._buffer = None
            return bytes(data[start : start + size])
        if kind == _FIRST:
            self._first(data, now_ms)
            return None
        if kind == _CONSECUTIVE:
            return self._consecutive(data, now_ms)
        self._drop("malformed")
        return None

    def _first(self, data: "Buffer", now_ms: int) -> None:
        if len(data) < 8:
            self._drop("malformed")
            return
        size = (data[0] & 15) << 8 | data[1]
        if size > self._receive_max:
            self._drop("oversize")
            self._emit(bytes((_FLOW << 4 | _OVERFLOW, 0, 0)))
            return
        if size < 8:
            self._drop("malformed")
            return
        if self._buffer is not None:
            self._drop("restarted")
        self._buffer = bytearray(size)
        self._filled = min(size, len(data) - 2)
        self._buffer[: self._filled] = data[2 : 2 + self._filled]
        self._expected = 1
        self._rx_time_ms = self._first_ms = now_ms
        self._emit(bytes((_FLOW << 4 | _CONTINUE, 0, 0)))

    def _consecutive(self, data: "Buffer", now_ms: int) -> "bytes | None":
        buffer = self._buffer
        if buffer is None:
            return None
        sequence = data[0] & 15
        if sequence == (self._expected - 1) & 15 and self._filled > 0 and self._expected != 1:
            # CAN may deliver a frame twice; a real transfer never repeats a number within 15 frames.
            return None
        if sequence != self._expected & 15:
            self._drop("gap")
            self._buffer = None
            return None
        take = min(len(buffer) - self._filled, len(data) - 1)
        buffer[self._filled : self._filled + take] = data[1 : 1 + take]
        self._filled += take
        self._expected += 1
        self._rx_time_ms = now_ms
        if self._filled < len(buffer):
            return None
        self._buffer = None
        return bytes(buffer)

    def _flow(self, data: "Buffer", now_ms: int) -> None:
        if not self._payload or self._may_send or len(data) < 3:
            return  # unexpected: ignored (ISO 15765-2, unexpected arrival of N_PDU)
        status = data[0] & 15
        if status == _CONTINUE:
            self._block_left = data[1] or -1
            stmin = data[2]
            # ISO 15765-2, table 20: 0..127 ms, 0xF1..0xF9 are 100..900 us, the rest is reserved: 127 ms.
            self._stmin_ms = stmin if stmin <= 127 else (1 if 0xF1 <= stmin <= 0xF9 else 127)
            self._may_send = True
            self._waits = 0
            self._tx_time_ms = now_ms - self._stmin_ms
            self._continue(now_ms)
        elif status == _WAIT and self._waits < WAITS_MAX:
            self._waits += 1
            self._tx_time_ms = now_ms
        else:
            self._drop("peer-waits" if status == _WAIT else "peer-overflow" if status == _OVERFLOW else "malformed")
            self._payload = b""
            self._start(now_ms)

    def tick(self, now_ms: int) -> None:
        """Send what STmin held back, give up what timed out (N_Bs, N_Cr: 1000 ms)."""
        if self._payload:
            if self._may_send:
                self._continue(now_ms)
            elif now_ms - self._tx_time_ms > TIMEOUT_MS:
                self._drop("timeout")
                self._payload = b""
                self._start(now_ms)
        if self._buffer is not None and now_ms - self._rx_time_ms > TIMEOUT_MS:
            self._drop("timeout")
            self._buffer = None
