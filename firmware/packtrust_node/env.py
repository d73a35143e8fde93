"""What a node gets from the board it runs on: time, entropy, storage, its CAN ports and a log."""

from packtrust.errors import PacktrustError
from packtrust.workspace import Workspace

try:
    from time import ticks_diff, ticks_ms, ticks_us

    HAVE_TICKS = True
except ImportError:
    # CPython: a monotonic clock that does not wrap.
    from time import monotonic_ns

    HAVE_TICKS = False


class NoEntropy(PacktrustError):
    """The board has no source of random bytes: the node makes no keys."""


DATA_BITRATE = 2000000

# Keys ready for use, and records on their way to us at once: nothing is made before it is needed.
READY_KEYS = 6
STREAMS = 40


def data_bitrate(config: dict, index: int) -> int:
    """CAN FD data bit rate of a board's CAN port in bit/s, for its `can_port(index, ..)`; 0: classic CAN.

    node.json: `"fd": true` for the module bus, `"vcu_fd": true` for the pack's VCU bus (its port 0), and
    `"data_bitrate"`. All controllers of a bus must have CAN FD: a classic one destroys FD frames.
    """
    wanted = "vcu_fd" if config["role"] == "pack" and index == 0 else "fd"
    return config.get("data_bitrate", DATA_BITRATE) if config.get(wanted, False) else 0


class Clock:
    """Monotonic milliseconds and microseconds since it was made.

    MicroPython's tick counters wrap; `now_ms` unwraps them if called once in half a period (6 days on
    32-bit boards), which the node's loop does many times a second.
    """

    def __init__(self) -> None:
        self._ms = 0
        self._last = ticks_ms() if HAVE_TICKS else monotonic_ns() // 1000000

    def now_ms(self) -> int:
        """Milliseconds since the clock was made."""
        if HAVE_TICKS:
            ticks = ticks_ms()
            self._ms += ticks_diff(ticks, self._last)
            self._last = ticks
            return self._ms
        return monotonic_ns() // 1000000 - self._last

    def now_us(self) -> int:
        """Microseconds, for short intervals; use `elapsed_us`, for it wraps."""
        return ticks_us() if HAVE_TICKS else monotonic_ns() // 1000

    def elapsed_us(self, start_us: int) -> int:
        """Microseconds since `start_us` was taken from `now_us`."""
        if HAVE_TICKS:
            return ticks_diff(ticks_us(), start_us)
        return monotonic_ns() // 1000 - start_us


class Env:
    """A node's view of its board.

    clock     `Clock`, or anything with its methods.
    entropy   `urandom(n) -> bytes`, or None: `urandom` then raises NoEntropy.
    store     `store.Store`: durable records.
    queues    one `txqueue.TxQueue` a CAN port, in the order of the node's port numbers.
    logger    takes a line of text without its end; None drops it. Never give it a secret.
    workspace `packtrust.workspace.Workspace` of all the node's channels; None: one for a gateway of 31 modules.
    """

    def __init__(self, clock, entropy, store, queues, logger=None, workspace=None) -> None:
        self._clock = clock
        self._entropy = entropy
        self._queues = queues
        self._logger = logger
        self.store = store
        self.workspace = Workspace(READY_KEYS, STREAMS) if workspace is None else workspace

    def now_ms(self) -> int:
        """Monotonic milliseconds."""
        return self._clock.now_ms()

    def now_us(self) -> int:
        """A microsecond counter for short intervals."""
        return self._clock.now_us()

    def elapsed_us(self, start_us: int) -> int:
        """Microseconds since `start_us`."""
        return self._clock.elapsed_us(start_us)

    def urandom(self, count: int) -> bytes:
        """`count` random bytes. NoEntropy if the board has no source."""
        if self._entropy is None:
            raise NoEntropy("this board has no entropy source: give its board module a urandom()")
        return self._entropy(count)

    def send(self, port: int, frame) -> None:
        """Queue a frame on a port; frames of a port leave in order. A full queue drops it, counted there."""
        self._queues[port].put(frame)

    def fd(self, port: int) -> bool:
        """Whether records on this port go in CAN FD frames: its controller was opened for them."""
        return getattr(self._queues[port].driver, "fd", False)

    def log(self, text: str) -> None:
        """A line for the console."""
        if self._logger is not None:
            self._logger(text)
