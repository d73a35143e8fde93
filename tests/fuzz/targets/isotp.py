"""ISO-TP frames of any kind at a link that sends and receives, classic and CAN FD."""

from fuzz.source import Source, lay
from packtrust.frame import Frame
from packtrust.isotp import IsoTpLink

COVERS = ("packtrust.isotp:IsoTpLink",)
HEAP_MAX = 60000

_RECEIVE_MAX = 300
_FD = 1


def _run(frames, head=0, pause=0):
    return bytes((head,)) + b"".join([bytes((pause,)) + lay(frame) for frame in frames])


def _conversation(head, size):
    """What a peer sends that takes all we send, and sends `size` bytes itself."""
    ours = _link(head)
    peer = IsoTpLink(2, 1, 4095, head & _FD != 0)
    peer.send(bytes(size), 0)
    heard = []
    for _ in range(600):
        frames = peer.outgoing()
        heard += frames
        for frame in frames:
            ours.feed(frame, 0)
        answers = ours.outgoing()
        for frame in answers:
            peer.feed(frame, 0)
        if not frames and not answers:
            break
    return heard


def _link(head):
    """A link that has three messages to send; `head`: CAN FD or not, and frames in a burst (0: all)."""
    link = IsoTpLink(1, 2, _RECEIVE_MAX, head & _FD != 0, head >> 1 & 7)
    link.send(bytes(200), 0)
    link.send(bytes(5), 0)
    link.send(bytes(40), 0)
    return link


def seeds():
    for head in (0, _FD, 2 << 1, 3 << 1 | _FD):
        for size in (3, 20, 300, 310):
            yield _run(_conversation(head, size), head)
            yield _run(_conversation(head, size), head, 200)
    flow = [
        b"\x30\x02\x00",
        b"\x31\x00\x00",
        b"\x32\x00\x00",
        b"\x30\x00\x05",
        b"\x30\x00\xf3",
        b"\x3f\x00\x00",
        b"\x30",
    ]
    for data in flow:
        yield _run([Frame(2, data)] * 4, 0, 3)
    # With waits without end, and then two seconds of silence.
    yield _run([Frame(2, b"\x31\x00\x00")] * 20, 0, 99)
    yield _run([Frame(2, b"\x10\x14" + bytes(6)), Frame(2, b"\x01\x05")])
    yield _run([Frame(2, b"\x10\x14" + bytes(6)), Frame(2, b"\x10\x14" + bytes(6)), Frame(2, b"\x22" + bytes(7))])
    yield _run([Frame(2, b"\x10\x14" + bytes(6)), Frame(2, b"\x21" + bytes(2))])
    yield _run(
        [
            Frame(2, b"\x10\x05" + bytes(6)),
            Frame(2, b"\x10\x14"),
            Frame(2, b""),
            Frame(2, b"\x21\x00"),
            Frame(2, b"\x90"),
        ]
    )
    yield _run([Frame(2, b"\x00"), Frame(2, b"\x07\x00"), Frame(2, b"\x00\x09" + bytes(10), True, True)], 1)


def take(data):
    source = Source(data)
    link = _link(source.number())
    now_ms = 0
    while source.left:
        now_ms += source.number() * 10
        payload = link.feed(source.frame(), now_ms)
        assert payload is None or 1 <= len(payload) <= _RECEIVE_MAX
        link.tick(now_ms)
        while link.outgoing():
            now_ms += 1
