"""What an adapter says to a node's SLCAN driver, in pieces of any size: frames, answers, states, rubbish."""

from fuzz.source import Source
from packtrust.frame import Frame
from packtrust_node.can_slcan import LOST, SlcanCan, encode

COVERS = (
    "packtrust_node.can_slcan:decode",
    "packtrust_node.can_slcan:SlcanCan.recv",
    "packtrust_node.can_slcan:SlcanCan._fill",
    "packtrust_node.can_slcan:SlcanCan._line",
    "packtrust_node.can_slcan:SlcanCan._answer",
    "packtrust_node.can_slcan:SlcanCan._on_state",
)
HEAP_MAX = 110000

_END = 0xFF  # a piece of this length: the stream ends
_ERROR = 0xFE  # ... breaks
_TIME = 0xFD  # ... nothing came, and a second went by


class _Stream:
    def __init__(self, source):
        self._source = source
        self.size = 0

    def write(self, data):
        return len(data)

    def readinto(self, buffer):
        if self.size == _ERROR:
            raise OSError(5)
        piece = self._source.take(min(self.size, len(buffer)))
        buffer[: len(piece)] = piece
        if self.size == _END:
            return 0
        self.size = 0
        return len(piece) or None


def _pieces(text, size=40):
    out = b""
    for at in range(0, len(text), size):
        part = text[at : at + size]
        out += bytes((len(part),)) + part
    return out


def seeds():
    opened = b"\r\r\r\r\r\r"
    frames = [
        Frame(0x14080005, bytes(8)),
        Frame(0x123, bytes(3), False),
        Frame(0x14080005, bytes(12), True, True),
        Frame(0x123, bytes(64), False, True, False, True),
        Frame(5, b"", True, False, True, False, 4),
    ]
    text = b"".join([encode(frame) for frame in frames])
    for fd in (b"\x00", b"\x01"):
        yield fd + _pieces(opened + text)
        later = (b"\x07", b"z\r", b"Z\r", b"sa000000\r", b"sb255000\r", b"\x07")
        yield fd + _pieces(opened) + b"".join([_pieces(piece) for piece in later])
        yield fd + _pieces(opened + text, 3)
        yield fd + _pieces(opened + b"z\rZ\rs" + b"w100020\rsb255255\rsx000000\rs\r\x07\x07z\r")
        yield fd + _pieces(b"\x07\x07\x07\x07\x07\x07\x07") + bytes((_TIME, _TIME))
        yield fd + _pieces(opened + b"\x07t1230\rT1408000580000000000000000\r" + b"x" * 130)
        yield fd + _pieces(b"y" * 400, 120)
        for line in (
            b"Tzzzzzzzz80000000000000000",
            b"T2000000080000000000000000",
            b"t9000",
            b"t12301234",
            b"t1239",
            b"b1231",
            b"t123812",
            b"t1",
        ):
            yield fd + _pieces(opened + line + b"\r" + line + b"1234\r")
        yield fd + _pieces(opened + b"V1013\r\x07")
        for end in (_END, _ERROR, _TIME):
            yield fd + _pieces(opened) + bytes((end,)) + _pieces(text)


def take(data):
    source = Source(data)
    stream = _Stream(source)
    driver = SlcanCan(stream, 500000, data_bitrate=2000000 if source.number() & 1 else 0)
    now_ms = 0
    driver.poll(now_ms)
    heard = 0
    while source.left and driver.state != LOST:
        stream.size = source.number()
        if stream.size == _TIME:
            stream.size = 0
            now_ms += 1000
        driver.send(Frame(0x14080005, bytes(8)))
        while True:
            frame = driver.recv()
            if frame is None:
                break
            heard += 1
            assert 0 <= frame.arbitration_id <= 0x1FFFFFFF
            assert len(frame.data) <= 64
        assert driver.pending() >= 0
        driver.poll(now_ms)
    assert driver.counters["received"] == heard
