"""The frames a node has sent but its CAN controller has not taken yet, for one port.

Controllers differ: a FIFO sends in the order given, mailboxes send the lowest ID first. With mailboxes a record whose
toggle is 0 would overtake its predecessor with toggle 1, and ISO-TP frames, all of one ID, would mix. So with a
driver that says `orders_by_id` a frame waits while an earlier one of its stream, with the same or a higher ID,
may be in the controller.

A frame given to the queue is copied: it may belong to a channel, which uses it again. The driver is handed one frame
over and over; it takes what it needs out of it before `send` returns.
"""

from array import array
from struct import pack_into

from packtrust._compat import const, lay_into
from packtrust.arbitration import ENCRYPTED, stream_of
from packtrust.frame import Frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import FrameLike

LIMIT = const(1024)
# On a board with little heap: two bursts to the VCU, or a command to 12 modules.
SMALL_LIMIT = const(128)
# A frame the controller has not taken for so long would tell old news: the bus was not there.
STALE_MS = const(1000)
# When nobody asked the controller for so long it was the node that stood still, perhaps in the middle of a record.
_STOOD_MS = const(700)

_CLASSIC = const(8)
_FD = const(64)
# Slots by which a queue grows.
_SLOTS = const(32)

_EXTENDED = const(0x80)
_IS_FD = const(0x100)
_REMOTE = const(0x200)
_SWITCHED = const(0x400)
_LENGTH = const(0x7F)


class _Ring:
    """Frames in the order they came, in memory that grows with the longest queue so far and is then used again.

    A slot takes 14 bytes, 70 once a CAN FD frame has come. Nothing else is allocated: data is read in halves of words,
    which are small integers everywhere.

    slots    how many frames there is room for
    """

    def __init__(self) -> None:
        self.count = 0
        self._first = 0
        self.slots = 0
        self._words = _CLASSIC // 2  # of a slot's data
        self._form = "8s"
        self._ids = array("I", b"")
        self._marks = array("H", b"")  # length and the kind of frame
        self._data = array("H", b"")
        # What the driver is handed.
        self._buffer = bytearray(_FD)
        self._views = {}  # type: dict[int, memoryview]  # by length
        self._frame = Frame(0)
        self._mark = 0  # of what the frame is now
        self._shape(0)

    # No properties, here and below: see can_base.CanPort.

    def is_classic(self) -> bool:
        """Whether no CAN FD frame has come, for which a slot is five times as large."""
        return self._words == _CLASSIC // 2

    def grow(self, slots: int) -> None:
        """Make room for `slots` frames."""
        self._grow(slots, self._words)

    def has_room(self, frames: int, limit: int) -> bool:
        """Whether so many more frames fit, if need be in more memory, for `limit` in all; False if there is no heap."""
        return self.count + frames <= self.slots or self._make_room(frames, limit)

    def _make_room(self, frames: int, limit: int) -> bool:
        try:
            self._grow(min(limit, self.count + max(frames, _SLOTS)), self._words)
        except MemoryError:
            return False
        return True

    def _grow(self, slots: int, words: int) -> None:
        """Move everything into `slots` slots of `words` half words of data."""
        ids = array("I", bytes(4 * slots))
        marks = array("H", bytes(2 * slots))
        data = array("H", bytes(2 * words * slots))
        for index in range(self.count):
            at = (self._first + index) % self.slots
            ids[index] = self._ids[at]
            marks[index] = self._marks[at]
            for word in range(self._words):
                data[index * words + word] = self._data[at * self._words + word]
        self._ids, self._marks, self._data = ids, marks, data
        self.slots, self._words, self._form = slots, words, "%ds" % (2 * words)
        self._first = 0

    def append(self, frame: "FrameLike") -> None:
        """Copy a frame to the end. MemoryError if there is no heap for one more."""
        data = frame.data
        length = len(data)
        if length > 2 * self._words:
            self._grow(max(self.slots, _SLOTS), _FD // 2)
        if self.count == self.slots:
            self._grow(self.slots + _SLOTS, self._words)
        mark = length | (_EXTENDED if frame.is_extended_id else 0)
        if frame.is_fd:
            mark |= _IS_FD | (_SWITCHED if frame.bitrate_switch else 0)
        elif frame.is_remote_frame:
            mark = mark & _EXTENDED | _REMOTE | frame.dlc
        self._put(frame, mark)

    def extend(self, frames: "list[FrameLike]") -> bool:
        """Copy the frames of a record to the end, for which there is room; False, and nothing done, if they are none of
        classic CAN. What they have in common is not looked at for each.
        """
        if frames[0].is_fd or not frames[0].is_extended_id:
            return False
        at = 0
        while at < len(frames):  # with `for` the call would take heap
            self._put(frames[at], len(frames[at].data) | _EXTENDED)
            at += 1
        return True

    def _put(self, frame: "FrameLike", mark: int) -> None:
        at = (self._first + self.count) % self.slots
        self._ids[at] = frame.arbitration_id
        self._marks[at] = mark
        lay_into(self._form, self._data, 2 * at * self._words, frame.data)
        self.count += 1

    def id_of(self, index: int) -> int:
        """Arbitration ID of the frame that is `index` behind the first."""
        return self._ids[(self._first + index) % self.slots]

    def frame(self, index: int) -> Frame:
        """The frame that is `index` behind the first; valid until the next call."""
        at = (self._first + index) % self.slots
        mark = self._marks[at]
        frame = self._frame
        if mark != self._mark:
            self._shape(mark)
        frame.arbitration_id = self._ids[at]
        frame.data = b"" if mark & _REMOTE else self._view_of(at * self._words, mark & _LENGTH)
        return frame

    def _shape(self, mark: int) -> None:
        """Make the frame one of this kind: most are of the kind of the one before."""
        self._mark = mark
        frame = self._frame
        frame.is_extended_id = mark & _EXTENDED != 0
        frame.is_fd = mark & _IS_FD != 0
        frame.is_remote_frame = mark & _REMOTE != 0
        frame.bitrate_switch = mark & _SWITCHED != 0
        frame.dlc = mark & _LENGTH

    def _view_of(self, at: int, length: int) -> "memoryview":
        """The bytes of a slot whose half words begin at `at`, in the buffer."""
        into = 0
        while into < length:
            self._copy(at, into)
            at += 4
            into += 8
        view = self._views.get(length)
        if view is None:
            view = self._views[length] = memoryview(self._buffer)[:length]
        return view

    def _copy(self, at: int, into: int) -> None:
        pack_into("HH", self._buffer, into, self._data[at], self._data[at + 1])
        pack_into("HH", self._buffer, into + 4, self._data[at + 2], self._data[at + 3])

    def move(self, source: int, target: int) -> None:
        """The frame `source` behind the first takes the place of the one `target` behind it."""
        if source != target:
            source = (self._first + source) % self.slots
            target = (self._first + target) % self.slots
            self._ids[target] = self._ids[source]
            self._marks[target] = self._marks[source]
            words = self._words
            for word in range(words):
                self._data[target * words + word] = self._data[source * words + word]

    def drop_first(self) -> None:
        """The first frame has left."""
        self._first = (self._first + 1) % self.slots
        self.count -= 1


class TxQueue:
    """First in, first out, at most `limit` frames of either kind; 11-bit frames before all 29-bit ones.

    They are the broadcast old VCUs wait for, ten short frames each half second: they win on the bus too, and must
    neither wait behind a wave of records nor find no room for it. No stream has frames of both kinds.

    driver     see `can_slcan`: `send(frame) -> bool`, `pending() -> int`, `orders_by_id`. The frame is the queue's.

    overflow   frames dropped because the queue, or the heap, was full.
    stale      frames dropped because the controller took none for a second (unplugged, no acknowledge).
    """

    def __init__(self, driver, limit: int = LIMIT) -> None:
        self.driver = driver
        self.overflow = 0
        self.stale = 0
        self._waits_ms = None  # since when the controller takes nothing
        self._pumped_ms = 0
        self._refused = -1  # stream whose record had no room: its other frames go with the first
        self._limit = limit
        self._standard = _Ring()
        self._extended = _Ring()
        self._streams = {}  # highest ID that may be in the controller, by stream
        if getattr(driver, "fd", False):
            # While the heap is whole: later there may be no kilobyte in one piece. Few will do: a record is one frame.
            self._extended._grow(_SLOTS // 2, _FD // 2)

    def __len__(self) -> int:
        return self._standard.count + self._extended.count

    def reserve(self, standard: int, extended: int) -> None:
        """Make room for so many classic 11-bit and 29-bit frames while the heap is whole. MemoryError if it is not."""
        for ring, slots in ((self._standard, standard), (self._extended, extended)):
            if ring.slots < slots and ring.is_classic():
                ring.grow(slots)

    def room(self) -> int:
        """How many 29-bit frames it takes now."""
        return self._limit - self._extended.count

    def put(self, frame) -> None:
        """Queue a copy of a frame. A record for which there is no room is left out whole: half of one helps nobody."""
        if frame.is_extended_id and frame.arbitration_id & ENCRYPTED and not frame.is_fd:
            if not self._has_room_for(frame.arbitration_id):
                self.overflow += 1
                return
        elif (self._extended if frame.is_extended_id else self._standard).count >= self._limit:
            self.overflow += 1
            return
        self._append(frame)

    def put_record(self, frames) -> None:
        """Queue copies of the frames of a record, or of none of them."""
        if not frames:
            return
        ring = self._extended
        if ring.count + len(frames) > self._limit or not ring.has_room(len(frames), self._limit):
            self.overflow += len(frames)
        elif not ring.extend(frames):
            for frame in frames:
                self.put(frame)

    def _append(self, frame) -> None:
        try:
            (self._extended if frame.is_extended_id else self._standard).append(frame)
        except MemoryError:
            self.overflow += 1

    def _has_room_for(self, head: int) -> bool:
        """Whether a chunk of a record may come in: all of them, or none."""
        if head & 0xF000:  # not the first one
            return self._refused != stream_of(head)
        frames = (head >> 8 & 15) + 1
        ring = self._extended
        if ring.count + frames > self._limit or not ring.has_room(frames, self._limit):
            self._refused = stream_of(head)
            return False
        self._refused = -1
        return True

    def clear(self) -> None:
        """Drop everything queued."""
        self._standard.count = 0
        self._extended.count = 0
        self._streams = {}

    def pump(self, now_ms: int) -> None:
        """Give the driver what it takes now."""
        before = len(self)
        if before:
            if self.driver.orders_by_id:
                self._pump_by_id()
            elif self._pump(self._standard):
                self._pump(self._extended)
        after = len(self)
        if after == 0:
            self._waits_ms = None
        elif after != before or self._waits_ms is None or now_ms - self._pumped_ms > _STOOD_MS:
            self._waits_ms = now_ms
        elif now_ms - self._waits_ms > STALE_MS:
            self.stale += after
            self._waits_ms = None
            self.clear()
        self._pumped_ms = now_ms

    def _pump(self, ring: _Ring) -> bool:
        """Give the frames of a ring; whether the driver took all."""
        driver = self.driver
        while ring.count:
            if not driver.send(ring.frame(0)):
                return False
            ring.drop_first()
        return True

    def _pump_by_id(self) -> None:
        if self.driver.pending() == 0:
            self._streams = {}
        held = {}  # type: dict[int, bool]
        if self._offer(self._standard, held):
            self._offer(self._extended, held)

    def _offer(self, ring: _Ring, held: "dict[int, bool]") -> bool:
        """Give the frames of a ring that nothing holds back; whether the driver has room for more."""
        streams = self._streams
        room = True
        left = 0
        for index in range(ring.count):
            arbitration_id = ring.id_of(index)
            stream = stream_of(arbitration_id)
            if room and stream not in held and streams.get(stream, -1) < arbitration_id:
                if self.driver.send(ring.frame(index)):
                    streams[stream] = arbitration_id
                    continue
                room = False
            held[stream] = True
            ring.move(index, left)
            left += 1
        ring.count = left
        return room
