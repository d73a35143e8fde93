"""Freshness: the sliding window of telemetry, the strict order of commands, and how old a citation is.

Counters are per direction and session. Nothing here moves before the caller has verified a tag. What must outlive the
objects is kept in a buffer their owner gives: a session that nobody uses is those bytes and no more.
"""

from packtrust._compat import const

WINDOW = const(64)
WINDOW_BYTES = const(8)

# A command is refused when the record it cites was sent longer ago than this (docs/wire.md, section 3).
CITATION_MAX_AGE_MS = const(4000)

# The step in which the times of sent records are kept: what an age may be too large by.
STEP_MS = const(250)
# Steps kept: the present one and those that cover CITATION_MAX_AGE_MS.
_STEPS = const(17)
SENT_BYTES = const(21)

_FULL = const(255)


class Window:
    """Takes each counter exactly once, up to 63 below the highest (compare RFC 4303, 3.4.3).

    `seen` holds a bit a counter, WINDOW_BYTES bytes from `at` on; `highest` is the caller's to keep beside them.
    """

    def __init__(self, seen: "bytearray | None" = None, at: int = 0, highest: int = 0) -> None:
        self.highest = highest
        self._seen = bytearray(WINDOW_BYTES) if seen is None else seen
        self._seen_at = at

    def refusal(self, counter: int) -> str:
        """Why `counter` would be refused: "replay", "old", or "" if it is fresh."""
        if counter > self.highest:
            return ""
        if counter <= self.highest - WINDOW or counter <= 0:
            return "old"
        return "replay" if self._seen[self._seen_at + (counter >> 3 & 7)] >> (counter & 7) & 1 else ""

    def accept(self, counter: int) -> None:
        """Mark a fresh counter as taken. Call only after its tag verified."""
        seen = self._seen
        at = self._seen_at
        skipped = self.highest + 1
        if counter >= skipped:
            if counter - skipped >= WINDOW:
                skipped = counter - WINDOW
            while skipped < counter:
                seen[at + (skipped >> 3 & 7)] &= ~(1 << (skipped & 7))
                skipped += 1
            self.highest = counter
        seen[at + (counter >> 3 & 7)] |= 1 << (counter & 7)


class Strict:
    """Takes only counters above every one it took: no window."""

    def __init__(self) -> None:
        self.highest = 0

    def refusal(self, counter: int) -> str:
        """ "replay" if `counter` is not above every counter taken, else ""."""
        return "" if counter > self.highest else "replay"

    def accept(self, counter: int) -> None:
        """Mark `counter` as taken. Call only after its tag verified."""
        self.highest = counter


class SentTimes:
    """When the records of one direction were sent, in steps of 250 ms, for the last 4 s.

    An age is never reported too small; it may be up to 250 ms too large.

    `kept` holds SENT_BYTES bytes from `at` on: how many records were sent in each step, and the number of the newest
    step. A step counts 255 records at most. What is beyond is taken for older than it is, and so is all before it.

    latest   newest counter sent
    before   newest one before the present step, which ends at `ends_ms`; it is fresh until `stale_ms`
    """

    def __init__(self, now_ms: int, kept: "bytearray | None" = None, at: int = 0) -> None:
        self.latest = 0  # counter 0: the handshake itself
        self.ends_ms = 0  # when the present step does
        self.stale_ms = 0  # the last moment at which what was sent in it is fresh
        self.before = -1  # newest counter of the steps before
        self._step = 0
        self._kept = bytearray(SENT_BYTES) if kept is None else kept
        self._kept_at = at
        self._begin(now_ms // STEP_MS)

    def _begin(self, step: int) -> None:
        self._step = step
        self.ends_ms = (step + 1) * STEP_MS
        self.stale_ms = step * STEP_MS + CITATION_MAX_AGE_MS

    def save(self) -> None:
        """Write what `restore` needs, besides `latest`, to the buffer."""
        kept = self._kept
        at = self._kept_at
        step = self._step
        kept[at + step % _STEPS] = min(_FULL, self.latest - self.before)
        at += _STEPS
        for place in range(at + 3, at - 1, -1):
            kept[place] = step & 0xFF
            step >>= 8

    def restore(self, latest: int) -> None:
        """Go on from what the buffer holds; `latest` is the newest counter sent."""
        at = self._kept_at + _STEPS
        self._begin(int.from_bytes(self._kept[at : at + 4], "big"))
        self.latest = latest
        self.before = latest - self._kept[self._kept_at + self._step % _STEPS]

    def turn(self, now_ms: int) -> None:
        """Begin the step of `now_ms`, which is past `ends_ms`; before its first record is noted in `latest`."""
        kept = self._kept
        at = self._kept_at
        step = self._step
        kept[at + step % _STEPS] = min(_FULL, self.latest - self.before)
        self.before = self.latest
        self._begin(now_ms // STEP_MS)
        skipped = max(step + 1, self._step - _STEPS + 1)
        while skipped < self._step:
            kept[at + skipped % _STEPS] = 0
            skipped += 1

    def sent(self, counter: int, now_ms: int) -> None:
        """Note that the record `counter` was handed to the controller at `now_ms`."""
        if now_ms >= self.ends_ms:
            self.turn(now_ms)
        self.latest = counter

    def age_ms(self, cited: int, now_ms: int) -> int:
        """Age of the record with the low 32 counter bits `cited`; -1 if it was not sent or is forgotten."""
        behind = self.latest - cited
        if behind < 0:
            return -1
        count = min(_FULL, self.latest - self.before)
        step = self._step
        oldest = step - _STEPS
        while behind >= count:
            behind -= count
            step -= 1
            if step <= oldest:
                return -1
            count = self._kept[self._kept_at + step % _STEPS]
        return now_ms - step * STEP_MS

    def is_fresh(self, cited: int, now_ms: int) -> bool:
        """Whether a command that cites `cited` may still be obeyed."""
        return 0 <= self.age_ms(cited, now_ms) <= CITATION_MAX_AGE_MS
