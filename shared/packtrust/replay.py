"""Freshness: the sliding window of telemetry, the strict order of commands, and how old a citation is.

Counters are per direction and session. Nothing here moves before the caller has verified a tag.
"""

from array import array

from packtrust._compat import const

WINDOW = const(64)

# A command is refused when the record it cites was sent longer ago than this (docs/wire.md, section 3).
CITATION_MAX_AGE_MS = const(4000)

_SAMPLE_MS = const(100)
_SAMPLES = const(44)  # covers CITATION_MAX_AGE_MS with one sample each _SAMPLE_MS, and some


class Window:
    """Takes each counter exactly once, up to 63 below the highest (compare RFC 4303, 3.4.3)."""

    def __init__(self) -> None:
        self.highest = 0
        self._seen = bytearray(WINDOW)

    def refusal(self, counter: int) -> str:
        """Why `counter` would be refused: "replay", "old", or "" if it is fresh."""
        if counter > self.highest:
            return ""
        if counter <= self.highest - WINDOW or counter <= 0:
            return "old"
        return "replay" if self._seen[counter % WINDOW] else ""

    def accept(self, counter: int) -> None:
        """Mark a fresh counter as taken. Call only after its tag verified."""
        seen = self._seen
        highest = self.highest
        if counter > highest:
            skipped = highest + 1
            if counter - highest >= WINDOW:
                skipped = counter - WINDOW + 1
            while skipped < counter:
                seen[skipped % WINDOW] = 0
                skipped += 1
            self.highest = counter
        seen[counter % WINDOW] = 1


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
    """When the records of one direction were sent, in 100 ms steps, for the last 4 s.

    An age is never reported too small; it may be up to 100 ms too large.
    """

    def __init__(self, now_ms: int) -> None:
        self._counters = array("I", bytearray(4 * _SAMPLES))
        self._times_ms = array("I", bytearray(4 * _SAMPLES))
        self._next = 1
        self._filled = 1
        self._latest = 0  # counter 0: the handshake itself
        self._times_ms[0] = now_ms & 0xFFFFFFFF

    def sent(self, counter: int, now_ms: int) -> None:
        """Note that the record `counter` was handed to the controller at `now_ms`."""
        self._latest = counter
        previous = (self._next or _SAMPLES) - 1
        if (now_ms - self._times_ms[previous]) & 0xFFFFFFFF < _SAMPLE_MS:
            return
        self._counters[self._next] = counter & 0xFFFFFFFF
        self._times_ms[self._next] = now_ms & 0xFFFFFFFF
        self._next = (self._next + 1) % _SAMPLES
        if self._filled < _SAMPLES:
            self._filled += 1

    def age_ms(self, cited: int, now_ms: int) -> int:
        """Age of the record with the low 32 counter bits `cited`; -1 if it was not sent or is forgotten."""
        if cited > self._latest:
            return -1
        index = self._next
        for _ in range(self._filled):
            index = (index or _SAMPLES) - 1
            if self._counters[index] <= cited:
                return (now_ms - self._times_ms[index]) & 0xFFFFFFFF
        return -1

    def is_fresh(self, cited: int, now_ms: int) -> bool:
        """Whether a command that cites `cited` may still be obeyed."""
        return 0 <= self.age_ms(cited, now_ms) <= CITATION_MAX_AGE_MS
