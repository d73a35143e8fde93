"""Payloads of up to 128 bytes over 8-byte CAN frames, the index carried in the ID (docs/wire.md, section 2).

Sans-I/O: `Segmenter` turns a payload into frames, `Reassembler` turns frames into payloads.
Frames from the wire never raise; what is dropped is counted by cause.

`Channel` does by itself what is hot here, on the same `Partial`s: the chunks of a record that come as they should.
"""

from array import array

from packtrust._compat import const, lay_into
from packtrust.arbitration import stream_of
from packtrust.frame import Frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer, FrameLike

CHUNK = const(8)
PAYLOAD_MAX = const(128)
SILENCE_MS = const(50)
NEXT_CHUNK = const(0x1000)
# Where an ID has the number of the chunk.
_CHUNK = const(0xF000)

# Most payloads are records of 8 bytes: their buffers need no more.
_SMALL = const(40)

# What one CAN FD data field can hold (ISO 11898-1, 8.4.2.4: DLC).
FD_LENGTHS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64)
FD_PAYLOAD_MAX = const(64)


def cut(arbitration_id: int, payload: "Buffer") -> "list[Frame]":
    """Frames of a payload of 1..128 bytes; `arbitration_id` has its toggle, and bits 15..8 zero.

    Raises ValueError for another length.
    """
    size = len(payload)
    if not 1 <= size <= PAYLOAD_MAX:
        raise ValueError("a segmented payload has 1..128 bytes, not %d: send it by ISO-TP" % size)
    last = (size - 1) // CHUNK
    head = arbitration_id | last << 8
    frames = []
    for chunk in range(last + 1):
        at = chunk * CHUNK
        frames.append(Frame(head | chunk << 12, bytes(payload[at : at + CHUNK])))
    return frames


class Segmenter:
    """Cuts payloads into frames; remembers the toggle of each stream it has used."""

    def __init__(self) -> None:
        self._toggles = {}  # type: dict[int, int]

    def _toggle(self, stream: int) -> int:
        toggle = self._toggles.get(stream, 1) ^ 1
        self._toggles[stream] = toggle
        return toggle << 16

    def split(self, arbitration_id: int, payload: "Buffer") -> "list[Frame]":
        """Frames of a payload of 1..128 bytes; `arbitration_id` has its bits 16..8 zero.

        Raises ValueError for another length.
        """
        return cut(arbitration_id | self._toggle(arbitration_id), payload)

    def single_fd(self, arbitration_id: int, payload: "Buffer") -> Frame:
        """One CAN FD frame with a payload of 1..64 bytes, its true length in bits 15..8 of the ID."""
        size = len(payload)
        if not 1 <= size <= FD_PAYLOAD_MAX:
            raise ValueError("a CAN FD payload has 1..64 bytes, not %d: send it by ISO-TP" % size)
        data = bytearray(fd_room(size))
        data[:size] = payload
        head = arbitration_id | self._toggle(arbitration_id) | size << 8
        return Frame(head, bytes(data), True, True)


def fd_room(size: int) -> int:
    """The length of the CAN FD data field that `size` bytes (0..64) take."""
    for room in FD_LENGTHS:
        if room >= size:
            return room
    return FD_PAYLOAD_MAX


# In `Partial.marks`.
AWAITED = const(0)
NEWEST = const(1)
TAKEN_MS = const(2)

# Times are kept in 30 bits: they need no heap, and a silence is no longer.
TIME_MASK = const(0x3FFFFFFF)


class Partial:
    """The one reassembly buffer of a stream.

    buffer   the chunks taken; room for `room` bytes, grown once if a payload is longer.
    length   of the completed payload, in bytes.
    cites    whether records of this stream need a citation: for its owner.
    marks    [AWAITED]   ID that the next chunk must have, 0 when nothing is under way
             [NEWEST]    ID of the last chunk of the payload that was completed, 0 after a drop: to know an identical
                         repeat
             [TAKEN_MS]  when the newest chunk was taken, & TIME_MASK
    """

    def __init__(self) -> None:
        self.buffer = bytearray(_SMALL)
        self.room = _SMALL
        self.length = 0
        self.cites = False
        self.marks = array("i", (0, 0, 0))

    def reset(self) -> None:
        """Nothing is under way, nothing was taken."""
        self.marks[AWAITED] = 0
        self.marks[NEWEST] = 0

    def is_silent(self, now_ms: int) -> bool:
        """Whether the newest chunk came more than 50 ms ago."""
        return (now_ms - self.marks[TAKEN_MS]) & TIME_MASK > SILENCE_MS

    def holds(self, head: int, data: "Buffer") -> bool:
        """Whether `data` stands in the buffer where the chunk `head` belongs."""
        at = head >> 9 & 0x78
        for byte in data:
            if self.buffer[at] != byte:
                return False
            at += 1
        return True

    def put(self, head: int, data: "Buffer", now_ms: int) -> bool:
        """Take the chunk `head`; whether it is the last one."""
        at = head >> 9 & 0x78
        end = head >> 5 & 0x78  # where the last chunk stands
        if end >= self.room:
            self.buffer = bytearray(PAYLOAD_MAX)
            self.room = PAYLOAD_MAX
        lay_into("8s", self.buffer, at, data)
        self.marks[TAKEN_MS] = now_ms & TIME_MASK
        if at < end:
            self.marks[AWAITED] = head + NEXT_CHUNK
            return False
        self.marks[AWAITED] = 0
        self.marks[NEWEST] = head
        self.length = at + len(data)
        return True


class Reassembler:
    """Puts payloads together, one buffer a stream, at most `streams` buffers, each made when it is first needed.

    `usual`: of that many no more are made as long as one has nothing under way, and those beyond go when they are
    silent; 0: all stay.

    `dropped` counts by cause: "restarted", "gap", "timeout", "malformed", "streams".
    """

    def __init__(self, streams: int = 8, usual: int = 0) -> None:
        self.dropped = {}  # type: dict[str, int]
        self.partials = {}  # type: dict[int, Partial]
        self._cap = streams
        self._usual = usual or streams

    def _drop(self, cause: str, partial: "Partial | None" = None) -> None:
        self.dropped[cause] = self.dropped.get(cause, 0) + 1
        if partial is not None:
            partial.reset()

    # In small pieces: with more state a call takes heap, and a bus full of what is not as it should be, or a node that
    # loses frames on a full bus, comes by here with each frame (tests/on_target/test_call_frames.py).

    def _partial(self, stream: int, now_ms: int) -> "Partial | None":
        partial = self.partials.get(stream)
        if partial is None:
            partial = self._reused(now_ms)
            if partial is None:
                if len(self.partials) >= self._cap:
                    self._drop("streams")
                    return None
                partial = Partial()
            self.partials[stream] = partial
        return partial

    def _reused(self, now_ms: int) -> "Partial | None":
        """A buffer of a stream that is forgotten for another one, if there are enough.

        Only of one that is silent: a flood of new IDs must not push out a transfer that is under way.
        """
        if len(self.partials) >= self._usual:
            for stream in self.partials:
                partial = self.partials[stream]
                if not partial.marks[AWAITED] or partial.is_silent(now_ms):
                    del self.partials[stream]
                    partial.reset()
                    return partial
        return None

    def take(self, head: int, data: "Buffer", now_ms: int) -> "Partial | None":
        """Take one chunk of a classic frame; the stream's buffer if it completes a payload."""
        if (
            head >> 12 & 15 > head >> 8 & 15
            or not 1 <= len(data) <= CHUNK
            or (len(data) < CHUNK and head >> 12 & 15 != head >> 8 & 15)
        ):
            self._drop("malformed")
            return None
        partial = self._partial(stream_of(head), now_ms)
        if partial is None or not self._expects(partial, head, data, now_ms):
            return None
        return partial if partial.put(head, data, now_ms) else None

    def _expects(self, partial: Partial, head: int, data: "Buffer", now_ms: int) -> bool:
        """Whether this is the chunk to come, or the first one of a payload."""
        awaited = partial.marks[AWAITED]
        if head == (awaited - NEXT_CHUNK if awaited else partial.marks[NEWEST]) and partial.holds(head, data):
            return False  # CAN may deliver a frame twice (ISO 11898-1: error in the last bit of EOF)
        if awaited and partial.is_silent(now_ms):
            self._drop("timeout", partial)
            awaited = 0
        if not head & _CHUNK:
            if awaited:
                self._drop("restarted", partial)
            return True
        if head == awaited:
            return True
        if awaited:
            self._drop("gap", partial)
        return False

    def feed(self, frame: "FrameLike", now_ms: int) -> "memoryview | None":
        """Take one frame; the complete payload, valid until the next call, or None."""
        if frame.is_fd:
            size = self.fd_length(frame)
            return memoryview(frame.data)[:size] if size else None
        partial = self.take(frame.arbitration_id, frame.data, now_ms)
        return None if partial is None else memoryview(partial.buffer)[: partial.length]

    def fd_length(self, frame: "FrameLike") -> int:
        """The true length of the payload in a CAN FD frame, 0 if it is malformed."""
        size = frame.arbitration_id >> 8 & 0xFF
        if 1 <= size <= len(frame.data):
            return size
        self._drop("malformed")
        return 0

    def expire(self, now_ms: int) -> None:
        """Drop what has been silent for more than 50 ms."""
        partials = self.partials
        over = len(partials) - self._usual
        for partial in partials.values():
            if partial.marks[AWAITED] and partial.is_silent(now_ms):
                self._drop("timeout", partial)
        if over > 0:
            for stream, partial in list(partials.items()):
                if over and not partial.marks[AWAITED] and partial.is_silent(now_ms):
                    del partials[stream]
                    over -= 1
