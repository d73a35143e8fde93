"""Frames at a member of a group: broadcasts of its pack, of another key, old, spoilt, classic and CAN FD."""

from fuzz.source import Source, lay
from packtrust.arbitration import compose
from packtrust.frame import Frame
from packtrust.group import GroupReceiver, GroupSender
from packtrust.workspace import Workspace

COVERS = ("packtrust.group:GroupReceiver",)
HEAP_MAX = 60000

_SECRET = bytes(range(32))
_PACK = bytes(range(100, 132))
_ID = compose(0x517, 0)


def _run(frames, head=1):
    return b"".join([bytes((head,)) + lay(frame) for frame in frames])


def seeds():
    sender = GroupSender(Workspace(2, 2), _SECRET, _PACK)
    other = GroupSender(Workspace(2, 2), _PACK, _PACK)
    first, second = ([frame.copy() for frame in sender.seal(_ID, b"\x03")] for _ in range(2))
    foreign = [frame.copy() for frame in other.seal(_ID, b"\x03")]
    in_fd = [frame.copy() for frame in sender.seal(_ID, b"\x02", True)]
    spoilt = first[:-1] + [Frame(first[-1].arbitration_id, bytes(len(first[-1].data)))]
    for frames in (
        first,
        first + second,
        second + first,
        first + first,
        foreign,
        spoilt,
        spoilt + first,
        in_fd,
        in_fd + first,
    ):
        yield _run(frames)
        yield _run(frames, 0x81)
    yield _run([Frame(_ID | 1 << 17, bytes(8))])
    yield _run([Frame(_ID | 1 << 17 | 0x1000, bytes(8)), Frame(_ID | 1 << 17 | 0x900, bytes(8), True, True)])
    yield _run([Frame(_ID | 1 << 17 | 0xF00 | at << 12, bytes(8)) for at in range(16)])


def take(data):
    source = Source(data)
    workspace = Workspace(2, 2)
    receiver = GroupReceiver(workspace, _SECRET, _PACK)
    others = [GroupSender(workspace, _PACK, _SECRET), GroupSender(workspace, _PACK, _SECRET)]
    now_ms = 1000
    beat = 0
    while source.left:
        head = source.number()
        now_ms += head & 0x7F
        found = receiver.feed(source.frame(), now_ms)
        if found is not None:
            assert receiver.beat > beat and not receiver.reason
        assert receiver.beat >= beat
        beat = receiver.beat
        if head & 0x80:
            receiver.skip_to(head & 3)
            # Other keys of the node need the places of the ready ones: the receiver's has to leave, as a rule.
            for other in others:
                other.seal(_ID, b"")
            beat = receiver.beat
