"""The frames a node has sent but its CAN controller has not taken yet, for one port.

Controllers differ: a FIFO sends in the order given, mailboxes send the lowest ID first. With mailboxes a record whose
toggle is 0 would overtake its predecessor with toggle 1, and ISO-TP frames, all of one ID, would mix. So with a
driver that says `orders_by_id` a frame waits while an earlier one of its stream, with the same or a higher ID,
may be in the controller.
"""

from packtrust._compat import const
from packtrust.arbitration import stream_of

LIMIT = const(1024)
# A frame the controller has not taken for so long would tell old news: the bus was not there.
STALE_MS = const(1000)


class TxQueue:
    """First in, first out, at most `limit` frames; 11-bit frames before all 29-bit ones.

    They are the broadcast old VCUs wait for, ten short frames each half second: they win on the bus too, and must not
    wait behind a wave of records. No stream has frames of both kinds.

    driver     see `can_slcan`: `send(frame) -> bool`, `pending() -> int`, `orders_by_id`.

    overflow   frames dropped because the queue was full.
    stale      frames dropped because the controller took none for a second (unplugged, no acknowledge).
    """

    def __init__(self, driver, limit: int = LIMIT) -> None:
        self.driver = driver
        self.overflow = 0
        self.stale = 0
        self._waits_ms = None  # since when the controller takes nothing
        self._limit = limit
        self._frames = []
        self._at = 0  # frames before this one have left; they are cut off in bulk
        self._streams = {}  # highest ID that may be in the controller, by stream

    def __len__(self) -> int:
        return len(self._frames) - self._at

    def put(self, frame) -> None:
        """Queue a frame."""
        if len(self._frames) - self._at >= self._limit:
            self.overflow += 1
            return
        if frame.is_extended_id:
            self._frames.append(frame)
            return
        at = self._at
        while at < len(self._frames) and not self._frames[at].is_extended_id:
            at += 1
        self._frames.insert(at, frame)

    def clear(self) -> None:
        """Drop everything queued."""
        self._frames = []
        self._at = 0
        self._streams = {}

    def pump(self, now_ms: int) -> None:
        """Give the driver what it takes now."""
        before = len(self)
        self._pump()
        after = len(self)
        if after == 0:
            self._waits_ms = None
        elif after != before or self._waits_ms is None:
            self._waits_ms = now_ms
        elif now_ms - self._waits_ms > STALE_MS:
            self.stale += after
            self._waits_ms = None
            self.clear()

    def _pump(self) -> None:
        driver = self.driver
        frames = self._frames
        at = self._at
        end = len(frames)
        if at == end:
            return
        if driver.orders_by_id:
            self._pump_by_id()
            return
        while at < end and driver.send(frames[at]):
            at += 1
        if at == end:
            self._frames = []
            at = 0
        elif at >= 64:
            self._frames = frames[at:]
            at = 0
        self._at = at

    def _pump_by_id(self) -> None:
        if self.driver.pending() == 0:
            self._streams = {}
        streams = self._streams
        held = {}
        left = []
        full = False
        for frame in self._frames[self._at :]:
            stream = stream_of(frame.arbitration_id)
            if not full and stream not in held and streams.get(stream, -1) < frame.arbitration_id:
                if self.driver.send(frame):
                    streams[stream] = frame.arbitration_id
                    continue
                full = True
            held[stream] = True
            left.append(frame)
        self._frames = left
        self._at = 0
