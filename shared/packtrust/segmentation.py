"""Payloads of up to 128 bytes over 8-byte CAN frames, the index carried in the ID (docs/wire.md, section 2).

Sans-I/O: `Segmenter` turns a payload into frames, `Reassembler` turns frames into payloads.
Frames from the wire never raise; what is dropped is counted by cause.
"""

from packtrust._compat import const
from packtrust.arbitration import stream_of
from packtrust.frame import Frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer, FrameLike

CHUNK = const(8)
PAYLOAD_MAX = const(128)
SILENCE_MS = const(50)

# What one CAN FD data field can hold (ISO 11898-1, 8.4.2.4: DLC).
FD_LENGTHS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64)
FD_PAYLOAD_MAX = const(64)


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
        size = len(payload)
        if not 1 <= size <= PAYLOAD_MAX:
            raise ValueError("a segmented payload has 1..128 bytes, not %d: send it by ISO-TP" % size)
        last = (size - 1) // CHUNK
        head = arbitration_id | self._toggle(arbitration_id) | last << 8
        frames = []
        for chunk in range(last + 1):
            at = chunk * CHUNK
            frames.append(Frame(head | chunk << 12, bytes(payload[at : at + CHUNK])))
        return frames

    def single_fd(self, arbitration_id: int, payload: "Buffer") -> Frame:
        """One CAN FD frame with a payload of 1..64 bytes, its true length in bits 15..8 of the ID."""
        size = len(payload)
        if not 1 <= size <= FD_PAYLOAD_MAX:
            raise ValueError("a CAN FD payload has 1..64 bytes, not %d: send it by ISO-TP" % size)
        room = size
        for room in FD_LENGTHS:
            if room >= size:
                break
        data = bytearray(room)
        data[:size] = payload
        head = arbitration_id | self._toggle(arbitration_id) | size << 8
        return Frame(head, bytes(data), True, True)


class _Partial:
    """The one reassembly buffer of a stream."""

    def __init__(self) -> None:
        self.buffer = bytearray(PAYLOAD_MAX)
        self.length = 0
        self.expected = 0  # next chunk; 0: nothing under way
        self.head = -1  # ID of the newest chunk taken, to know an identical repeat
        self.tail = b""  # and its data
        self.time_ms = 0


class Reassembler:
    """Puts payloads together, one buffer a stream, at most `streams` buffers.

    `dropped` counts by cause: "restarted", "gap", "timeout", "malformed", "streams".
    """

    def __init__(self, streams: int = 8) -> None:
        self.dropped = {}  # type: dict[str, int]
        self._partials = {}  # type: dict[int, _Partial]
        self._cap = streams

    def _drop(self, cause: str, partial: "_Partial | None" = None) -> None:
        self.dropped[cause] = self.dropped.get(cause, 0) + 1
        if partial is not None:
            partial.expected = 0
            partial.head = -1

    def _partial(self, stream: int, now_ms: int) -> "_Partial | None":
        partial = self._partials.get(stream)
        if partial is None:
            if len(self._partials) >= self._cap:
                # Make room only by forgetting a stream that is silent: a flood of new IDs must not
                # push out a transfer that is under way.
                for other, old in self._partials.items():
                    if old.expected == 0 or now_ms - old.time_ms > SILENCE_MS:
                        del self._partials[other]
                        break
                else:
                    self._drop("streams")
                    return None
            partial = _Partial()
            self._partials[stream] = partial
        return partial

    def feed(self, frame: "FrameLike", now_ms: int) -> "memoryview | None":
        """Take one frame; the complete payload, valid until the next call, or None."""
        head = frame.arbitration_id
        data = frame.data
        size = len(data)
        if frame.is_fd:
            return self._feed_fd(head, data)
        chunk = head >> 12 & 15
        last = head >> 8 & 15
        if chunk > last or not 1 <= size <= CHUNK or (chunk < last and size != CHUNK):
            self._drop("malformed")
            return None
        partial = self._partial(stream_of(head), now_ms)
        if partial is None:
            return None
        if head == partial.head and partial.tail == data:
            return None  # CAN may deliver a frame twice (ISO 11898-1: error in the last bit of EOF)
        if partial.expected and now_ms - partial.time_ms > SILENCE_MS:
            self._drop("timeout", partial)
        if chunk == 0:
            if partial.expected:
                self._drop("restarted", partial)
        elif chunk != partial.expected or (head ^ partial.head) & 0x10F00:
            if partial.expected:
                self._drop("gap", partial)
            return None
        at = chunk * CHUNK
        partial.buffer[at : at + size] = data
        partial.length = at + size
        partial.head = head
        partial.tail = bytes(data)
        partial.time_ms = now_ms
        if chunk < last:
            partial.expected = chunk + 1
            return None
        partial.expected = 0
        return memoryview(partial.buffer)[: partial.length]

    def _feed_fd(self, head: int, data: "Buffer") -> "memoryview | None":
        size = head >> 8 & 0xFF
        if not 1 <= size <= len(data):
            self._drop("malformed")
            return None
        return memoryview(data)[:size]

    def expire(self, now_ms: int) -> None:
        """Drop what has been silent for more than 50 ms."""
        for partial in self._partials.values():
            if partial.expected and now_ms - partial.time_ms > SILENCE_MS:
                self._drop("timeout", partial)
