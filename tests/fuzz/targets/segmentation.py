"""Frames into payloads: any order, any length, any index, many streams, silences between."""

from fuzz.source import Source, lay
from packtrust.frame import Frame
from packtrust.segmentation import PAYLOAD_MAX, Reassembler, Segmenter

COVERS = (
    "packtrust.segmentation:Reassembler",
    "packtrust.segmentation:Partial.reset",
    "packtrust.segmentation:Partial.is_silent",
    "packtrust.segmentation:Partial.holds",
)
HEAP_MAX = 12000

STREAMS = 3
USUAL = 2  # reassembly buffers that stay
_ID = 0x502 << 18 | 1 << 17 | 5


def _pauses(frames, pause=0):
    return b"".join([bytes((pause,)) + lay(frame) for frame in frames])


def seeds():
    segmenter = Segmenter()
    first = segmenter.split(_ID, bytes(range(36)))
    long = segmenter.split(_ID, bytes(range(128)))
    yield _pauses(first)
    yield _pauses(first + first)
    yield _pauses(long)
    yield _pauses(first[:3] + [first[2]] + first[3:])
    yield _pauses(first[:2] + first[3:])
    yield _pauses(first[:2] + long)
    yield _pauses(first[:2], 0) + _pauses(first[2:], 80)
    for pause in (0, 80):
        opened = [Frame(_ID + at << 0 | 0x400, bytes(8)) for at in range(STREAMS + 2)]
        yield _pauses(opened, pause) + _pauses([Frame(_ID, bytes(8))], pause)
    # More messages at once than there are usual buffers, then silence; one of them is not whole.
    each = [[Frame(frame.arbitration_id + at, bytes(frame.data)) for frame in first] for at in range(STREAMS)]
    last = [Frame(_ID + STREAMS, bytes(8))]
    yield _pauses(each[0] + each[1] + each[2]) + _pauses(last, 80)
    yield _pauses(each[0] + each[1] + each[2][:2]) + _pauses(last, 40) + _pauses(last * 2, 80)
    yield _pauses([segmenter.single_fd(_ID, bytes(range(36))), Frame(_ID | 0x900, bytes(8), True, True)])
    yield _pauses([Frame(_ID | 0x1000, bytes(8)), Frame(_ID | 0x100, bytes(7)), Frame(_ID, b"")])


def take(data):
    source = Source(data)
    reassembler = Reassembler(STREAMS, USUAL)
    now_ms = 1000
    while source.left:
        now_ms += source.number()
        frame = source.frame()
        payload = reassembler.feed(frame, now_ms)
        assert payload is None or 1 <= len(payload) <= PAYLOAD_MAX
        assert len(reassembler.partials) <= STREAMS
        if now_ms & 7 == 0:
            reassembler.expire(now_ms)
