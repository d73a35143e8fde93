"""What a node gets from the board it runs on: time, entropy, storage, its CAN ports and a log."""

from struct import pack

from packtrust._compat import sha256
from packtrust.crypto import AESGCM
from packtrust.errors import PacktrustError
from packtrust.workspace import Workspace

try:
    from time import ticks_add, ticks_diff, ticks_ms, ticks_us

    HAVE_TICKS = True
    TICKS_PERIOD = ticks_add(0, -1) + 1
except ImportError:
    # CPython: a monotonic clock that does not wrap.
    from time import monotonic_ns

    HAVE_TICKS = False
    TICKS_PERIOD = 0


class NoEntropy(PacktrustError):
    """The board has no source of random bytes: the node makes no keys."""


class Entropy:
    """Random bytes of a board, mixed: each block is SHA-256 of a state that no two boots share and of fresh bytes.

    So they are as good as the board's source, do not repeat where a source repeats itself after a reset, and what was
    given out before does not follow from what is in RAM now.

    source   `urandom(n) -> bytes`, or None. It may raise OSError when it brings nothing.

    Raises NoEntropy where there is no source, or one that gives the same bytes twice: the node then makes no keys.
    """

    def __init__(self, source) -> None:
        self._source = source
        self._state = bytes(32)
        self._last = b""
        self._blocks = 0

    def mix(self, data: bytes) -> None:
        """Stir in what is different from boot to boot: the boot counter, a unique ID."""
        self._state = sha256(b"packtrust v1 entropy" + self._state + data).digest()

    def _fresh(self) -> bytes:
        if self._source is None:
            raise NoEntropy("this board has no entropy source: give its board module a urandom()")
        try:
            fresh = bytes(self._source(32))
        except OSError:
            raise NoEntropy("the board's entropy source brings nothing: connect it; no keys are made without it")
        if len(fresh) != 32 or fresh == self._last:
            raise NoEntropy("the board's entropy source repeats itself: no keys are made; check its random generator")
        self._last = fresh
        return fresh

    def __call__(self, count: int) -> bytes:
        """`count` random bytes."""
        out = b""
        while len(out) < count:
            self._blocks = (self._blocks + 1) & 0x3FFFFFFF
            fresh = self._fresh()
            out += sha256(b"packtrust v1 random" + self._state + pack(">I", self._blocks) + fresh).digest()
            self.mix(fresh)
        return out[:count]


DATA_BITRATE = 2000000

# Keys ready for use (each some 2 KB), and records on their way to us at once: nothing is made before it is needed.
READY_KEYS = 6
READY_KEYS_SMALL = 2  # on a heap below SMALL_HEAP
# There, of a gateway: it goes through so many keys in turn that a second one would seldom be there when it is needed.
READY_KEYS_SMALL_GATEWAY = 1
SMALL_HEAP = 200000
STREAMS = 40
STREAMS_USUAL = 3  # on a heap below SMALL_HEAP
# Channels kept whole, of a gateway with more of them: one that is put away costs some milliseconds to fetch.
CHANNELS = 32
CHANNELS_SMALL = 3  # on a heap below SMALL_HEAP


def has_small_heap() -> bool:
    """Whether this is a board with a heap below SMALL_HEAP."""
    import gc

    used = getattr(gc, "mem_alloc", None)
    free = getattr(gc, "mem_free", None)
    return used is not None and free is not None and used() + free() < SMALL_HEAP  # else CPython


def _ready_keys(gateway: bool) -> int:
    """How many keys a small heap has room for."""
    return READY_KEYS_SMALL_GATEWAY if gateway else READY_KEYS_SMALL


def reserve_keys(gateway: bool) -> None:
    """Take the memory for a small heap's ready keys while it is whole."""
    made = [AESGCM(bytes(32)) for _ in range(_ready_keys(gateway))]
    for key in made:
        key.wipe()


def small_workspace(gateway: bool) -> Workspace:
    """The workspace of a node with a small heap; `gateway`: a pack."""
    return Workspace(_ready_keys(gateway), STREAMS, CHANNELS_SMALL, STREAMS_USUAL)


def data_bitrate(config: dict, index: int) -> int:
    """CAN FD data bit rate of a board's CAN port in bit/s, for its `can_port(index, ..)`; 0: classic CAN.

    node.json: `"fd": true` for the module bus, `"vcu_fd": true` for the pack's VCU bus (its port 0), and
    `"data_bitrate"`. All controllers of a bus must have CAN FD: a classic one destroys FD frames.
    """
    wanted = "vcu_fd" if config["role"] == "pack" and index == 0 else "fd"
    return config.get("data_bitrate", DATA_BITRATE) if config.get(wanted, False) else 0


class Clock:
    """Monotonic milliseconds and microseconds since it was made.

    MicroPython's tick counters wrap; `now_ms` unwraps them if called once in a period (12 days on 32-bit boards),
    which the node's loop does many times a second. It never goes back.

    A board whose tick counter stands still while it sleeps says `slept`: what was held back meanwhile would seem fresh.
    """

    def __init__(self) -> None:
        self._ms = 0
        self._last = ticks_ms() if HAVE_TICKS else monotonic_ns() // 1000000

    def now_ms(self) -> int:
        """Milliseconds since the clock was made."""
        if HAVE_TICKS:
            ticks = ticks_ms()
            if ticks == self._last:
                return self._ms
            passed = ticks_diff(ticks, self._last)
            if passed < 0:
                # More than half a period: `ticks_diff` is signed. Where the period is an age, it was a clock set back.
                passed = passed + TICKS_PERIOD if TICKS_PERIOD <= 1 << 32 else 0
            self._ms += passed
            self._last = ticks
            return self._ms
        return monotonic_ns() // 1000000 - self._last

    def slept(self, ms: int) -> None:
        """So much time has passed that the counter knows nothing of; rather too much than too little."""
        if HAVE_TICKS:
            self._ms += ms
        else:
            self._last -= ms

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
        # A channel asks for the time with every frame: one call, not two.
        self.now_ms = clock.now_ms  # type: ignore[method-assign]
        self._entropy = entropy
        self._queues = queues
        self._logger = logger
        self.store = store
        self._workspace = workspace

    @property
    def workspace(self) -> Workspace:
        """What the node's channels share, made for the first of them."""
        if self._workspace is None:
            self._workspace = Workspace(READY_KEYS, STREAMS, CHANNELS)
        return self._workspace

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

    def mix(self, boot_counter: int) -> None:
        """Give the entropy source the boot counter, if it is one that mixes."""
        if isinstance(self._entropy, Entropy):
            self._entropy.mix(pack(">I", boot_counter))

    def send(self, port: int, frame) -> None:
        """Queue a frame on a port; frames of a port leave in order. A full queue drops it, counted there."""
        self._queues[port].put(frame)

    def send_record(self, port: int, frames) -> None:
        """Queue the frames of a record, all or none."""
        self._queues[port].put_record(frames)

    def room(self, port: int) -> int:
        """How many frames a port's queue takes now."""
        return self._queues[port].room()

    def fd(self, port: int) -> bool:
        """Whether records on this port go in CAN FD frames: its controller was opened for them."""
        return getattr(self._queues[port].driver, "fd", False)

    def log(self, text: str) -> None:
        """A line for the console."""
        if self._logger is not None:
            self._logger(text)
