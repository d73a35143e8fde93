"""What tests of channels share: a clock and entropy that repeat, IDs, and a way to feed. Portable."""

STATUS_1 = 0x502 << 18 | 5
STATE_CHANGE = 0x514 << 18 | 5
POLL = 0x512 << 18 | 5
SECRET = bytes(range(32))


class Clock:
    def __init__(self):
        self.now_ms = 100000

    def __call__(self):
        return self.now_ms


class Entropy:
    """Deterministic, different for each end."""

    def __init__(self, seed):
        self.state = seed

    def __call__(self, count):
        out = bytearray(count)
        for at in range(count):
            self.state = (self.state * 1103515245 + 12345) & 0x3FFFFFFF
            out[at] = self.state >> 16 & 0xFF
        return bytes(out)


def give(channel, frames):
    """Feed frames; the last event, to keep."""
    last = None
    for frame in frames:
        event = channel.feed(frame)
        last = event.copy() if event is not None else last
    return last
