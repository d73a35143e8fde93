"""One ISO-TP link for provisioning messages, with a bounded queue: a peer that never answers costs no memory.

Loaded on demand: packtrust_node.post has those in use.
"""

from packtrust._compat import const
from packtrust.isotp import IsoTpLink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from packtrust._typing import Buffer, FrameLike
    from packtrust.frame import Frame
    from packtrust.isotp import Pieces

RECEIVE_MAX = const(1024)
_WAITING_MAX = const(8)
# Frames at once: each takes a hundred bytes of heap, and a board's queue (txqueue.SMALL_LIMIT) holds records too.
BURST = const(8)
_FLUSH_MAX = const(56)


class Mailbox:
    """Sends and receives whole messages on one pair of IDs.

    send_frame   takes each frame to transmit, in order
    room         how many frames the port's queue takes now: a message of which one was dropped there would be lost
    """

    def __init__(
        self,
        tx_id: int,
        rx_id: int,
        send_frame: "Callable[[Frame], None]",
        room: "Callable[[], int]",
        receive_max: int = RECEIVE_MAX,
    ) -> None:
        self.rx_id = rx_id
        self.overflowed = 0
        self._link = IsoTpLink(tx_id, rx_id, receive_max, False, BURST)
        self._send_frame = send_frame
        self._room = room
        self._waiting = []  # type: list[Buffer]

    @property
    def dropped(self) -> "dict[str, int]":
        """Transfers given up, by cause."""
        return self._link.dropped

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way in either direction: it may be dropped."""
        return not self._waiting and self._link.is_idle

    def send(self, payload: "Buffer | Pieces", now_ms: int) -> None:
        """Queue a message, which is kept as IsoTpLink.send keeps it; the oldest of eight waiting ones is given up for
        it.
        """
        if len(self._waiting) >= _WAITING_MAX:
            self._waiting.pop(0)
            self.overflowed += 1
        self._waiting.append(payload)
        self._flush(now_ms)

    def feed(self, frame: "FrameLike", now_ms: int) -> "bytes | None":
        """Take a frame that came with `rx_id`; a complete message or None."""
        payload = self._link.feed(frame, now_ms)
        self._flush(now_ms)
        return payload

    def tick(self, now_ms: int) -> None:
        """Call every 10..100 ms."""
        self._link.tick(now_ms)
        self._flush(now_ms)

    def _flush(self, now_ms: int) -> None:
        link = self._link
        room = min(_FLUSH_MAX, self._room())
        while room > BURST:  # the rest waits for the next tick
            if self._waiting and not link.sending:
                link.send(self._waiting.pop(0), now_ms)
            frames = link.outgoing()
            if not frames:
                return
            for frame in frames:
                self._send_frame(frame)
            room -= len(frames)
