"""What a fuzz target cuts its input with, and what it builds its seeds from. Portable."""

from packtrust.frame import Frame


class Source:
    """An input, taken from the front. Past its end everything is 0 or empty: no input is too short."""

    def __init__(self, data):
        self._data = data
        self._at = 0

    @property
    def left(self):
        """Bytes that are still there."""
        return len(self._data) - self._at

    def number(self, size=1):
        """The next `size` bytes as a number."""
        return int.from_bytes(self.take(size), "big")

    def take(self, size):
        """The next `size` bytes, fewer at the end."""
        found = bytes(self._data[self._at : self._at + size])
        self._at += len(found)
        return found

    def part(self):
        """The bytes that the next two bytes count."""
        return self.take(self.number(2))

    def rest(self):
        """All that is left."""
        return self.take(self.left)

    def frame(self):
        """The next frame: flags and length (1 byte), ID (4), data (0..8, in CAN FD 0..64)."""
        head = self.number()
        extended = head & 0x80 == 0
        ident = self.number(4) & (0x1FFFFFFF if extended else 0x7FF)
        fd = head & 0x40 != 0
        size = head & 0x3F
        return Frame(ident, self.take(size + 1 if fd else size % 9), extended, fd)


def lay(frame):
    """A frame as `Source.frame` reads it."""
    size = len(frame.data)
    head = size - 1 | 0x40 if frame.is_fd else size
    if not frame.is_extended_id:
        head |= 0x80
    return bytes((head,)) + frame.arbitration_id.to_bytes(4, "big") + bytes(frame.data)


def counted(part):
    """Bytes as `Source.part` reads them."""
    return len(part).to_bytes(2, "big") + bytes(part)


class Entropy:
    """Bytes that repeat with every input, and never within one."""

    def __init__(self, seed):
        self._state = seed

    def __call__(self, count):
        out = bytearray(count)
        for at in range(count):
            self._state = (self._state * 75 + 74) % 65537
            out[at] = self._state >> 8 & 0xFF
        return bytes(out)


class Clock:
    """Milliseconds, moved by the input."""

    def __init__(self):
        self.now_ms = 100000

    def __call__(self):
        return self.now_ms
