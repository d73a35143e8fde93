"""The provisioning messages of a node: which ISO-TP links are in use, in RAM while they are (see ondemand)."""

from packtrust._compat import const
from packtrust.record import VERSION
from packtrust.segmentation import NEXT_CHUNK
from packtrust_node import ondemand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer, FrameLike
    from packtrust.isotp import Pieces
    from packtrust_node.env import Env
    from packtrust_node.mailbox import Mailbox

# So many links may be in use at once: each may take a kilobyte.
LINKS_MAX = const(4)

# A keyed node whose bus left it no pause so long ago spends no more on such messages, those aside that prove to be the
# owner's, than each eighth millisecond, after these in advance: who floods it with them does not keep the records from
# it. A peer asks again. Beside a session a module gives handshakes such a share, too, in a `Post` of their own.
BEHIND_MS = const(200)
_SHARE_BITS = const(3)
ADVANCE_MS = const(500)
# No message, however dear, keeps others away for more than eight times this: a peer asks again after three seconds.
_DEBT_MAX_MS = const(250)

# The first byte of an ISO-TP frame that neither begins a message nor is all of it.
NEXT = const(0x20)

_HEAD = const(4)
# Where an ID has the number of the frame in its message.
_CHUNK = const(0xF000)


def target_of(payload: "Buffer") -> int:
    """Node byte of the device a provisioning message is about, -1 if it is none (docs/wire.md, section 7)."""
    return payload[2] if len(payload) >= _HEAD and payload[0] == VERSION else -1


class Post:
    """Links by the IDs they receive: made when a message is sent or a frame comes, dropped when nothing is under way.

    behind_ms  when a bus had left the node no pause, the last time; None for never
    full      how often a link was not to be had;  crowded   how often a frame had to be left out for records
    dropped   transfers given up, by cause;  overflowed   messages that waited in vain
    """

    def __init__(self, env: "Env", advance_ms: int = ADVANCE_MS) -> None:
        self.behind_ms = None  # type: int | None
        self.full = 0
        self.crowded = 0
        self.overflowed = 0
        self.dropped = {}  # type: dict[str, int]
        self._env = env
        self._links = {}  # type: dict[int, Mailbox]
        self._advance_ms = advance_ms
        self._debt_ms = -advance_ms
        self._paid_ms = 0  # until when
        self._next = 0  # ID of the frame that goes on with the handshake's message admitted last

    def _link(self, port: int, tx_id: int, rx_id: int) -> "Mailbox | None":
        link = self._links.get(rx_id)
        if link is None:
            if len(self._links) >= LINKS_MAX:
                self.full += 1
                return None
            env = self._env
            ondemand.use(env.now_ms())
            ondemand.tidy()
            from packtrust_node.mailbox import Mailbox

            ondemand.hold()
            link = self._links[rx_id] = Mailbox(
                tx_id, rx_id, lambda frame: env.send(port, frame), lambda: env.room(port)
            )
        return link

    def send(self, port: int, tx_id: int, rx_id: int, payload: "Buffer | Pieces") -> None:
        """Send a message."""
        link = self._link(port, tx_id, rx_id)
        if link is not None:
            link.send(payload, self._env.now_ms())

    def takes(self, rx_id: int, data: "Buffer") -> bool:
        """Whether a frame that came with `rx_id` is for `feed`. For those that are not it takes no heap
        (tests/on_target/test_call_frames.py).
        """
        if not data:
            return False
        if data[0] >= NEXT:
            return rx_id in self._links  # or it is of nothing that has begun
        if self._is_overdrawn():
            self.crowded += 1
            return False
        return True

    def feed(self, port: int, tx_id: int, rx_id: int, frame: "FrameLike") -> "bytes | None":
        """Take such a frame; a complete message or None."""
        began_ms = self._env.now_ms()
        link = self._link(port, tx_id, rx_id)
        payload = None if link is None else link.feed(frame, began_ms)
        self.spent(began_ms)
        return payload

    def admits(self, arbitration_id: int) -> bool:
        """Whether a frame of a handshake is to be looked at; a message is admitted whole. Takes no heap, as `takes`."""
        if arbitration_id != self._next:
            # For the rest of a message that was not admitted there is no look at the clock.
            is_rest = arbitration_id & _CHUNK and self._debt_ms > 0 and self.behind_ms is not None
            if is_rest or self._is_overdrawn():
                self.crowded += 1
                return False
        more = arbitration_id >> 12 & 15 < arbitration_id >> 8 & 15
        self._next = arbitration_id + NEXT_CHUNK if more else 0
        return True

    def _is_overdrawn(self) -> bool:
        now_ms = self._env.now_ms()
        paid_ms = now_ms - self._paid_ms >> _SHARE_BITS
        if paid_ms:
            self._paid_ms = now_ms
            self._debt_ms = max(self._debt_ms - paid_ms, -self._advance_ms)
        behind_ms = self.behind_ms
        return self._debt_ms > 0 and behind_ms is not None and now_ms - behind_ms < BEHIND_MS

    def spent(self, began_ms: int) -> None:
        """What took the time since then was a message, and proves nothing."""
        self._debt_ms = min(self._debt_ms + self._env.now_ms() - began_ms, _DEBT_MAX_MS)

    def tick(self, now_ms: int) -> None:
        """Call every 10..100 ms."""
        if not self._links:
            return
        for rx_id, link in list(self._links.items()):
            link.tick(now_ms)
            if link.is_idle:
                self.overflowed += link.overflowed
                for cause, count in link.dropped.items():
                    self.dropped[cause] = self.dropped.get(cause, 0) + count
                del self._links[rx_id]
                ondemand.let_go()
