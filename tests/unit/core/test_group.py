"""Broadcasts under a group key: the format, the order, and that they need no heap in use."""

from packtrust.arbitration import ENCRYPTED, compose
from packtrust.crypto import AESGCM, hkdf_expand
from packtrust.errors import ChannelError, KeyFormatError
from packtrust.frame import Frame
from packtrust.group import BEATS_MAX, GroupReceiver, GroupSender
from packtrust.workspace import Workspace
from portable import raises, without_heap

SECRET = bytes(range(32))
PACK = bytes(range(100, 132))
HEARTBEAT = compose(0x517, 0)


def ends(beat=0, receiver_beat=0, streams=8, ready=4):
    return (
        GroupSender(Workspace(ready, streams), SECRET, PACK, beat),
        GroupReceiver(Workspace(ready, streams), SECRET, PACK, receiver_beat),
    )


def copies(frames):
    return [frame.copy() for frame in frames]


def feed(receiver, frames, now_ms=0):
    """The data, as bytes, of the one broadcast in these frames."""
    found = None
    for frame in frames:
        data = receiver.feed(frame, now_ms)
        if data is not None:
            assert found is None
            found = bytes(data)
    return found


def test_a_record_is_as_documented():
    sender, _ = ends(beat=6)
    frames = copies(sender.seal(HEARTBEAT, b"\x03"))
    material = hkdf_expand(SECRET, b"packtrust v1 group\x00" + PACK, 36)
    iv = material[32:] + bytes(7) + b"\x07"
    aad = b"\x01" + b"\x14\x5e\x00\x00" + b"\x02" + PACK[:4] + b"\x00\x01"
    record = iv + AESGCM(material[:32]).encrypt(iv, b"\x03", aad)
    assert b"".join([bytes(frame.data) for frame in frames]) == record
    for index, frame in enumerate(frames):
        assert frame.arbitration_id == HEARTBEAT | ENCRYPTED | index << 12 | 3 << 8
        assert frame.is_extended_id and not frame.is_fd
    assert [len(frame.data) for frame in frames] == [8, 8, 8, 5]
    assert sender.key_id == int.from_bytes(material[32:], "little")


def test_each_is_opened_once_and_in_order():
    sender, receiver = ends()
    assert sender.key_id == receiver.key_id
    first = copies(sender.seal(HEARTBEAT, b"\x01"))
    second = copies(sender.seal(HEARTBEAT, b"\x02"))
    assert first[0].arbitration_id ^ second[0].arbitration_id == 0x10000  # the toggle
    assert feed(receiver, second) == b"\x02"
    assert feed(receiver, second[3:]) is None and receiver.reason == ""  # a repeated chunk, as CAN may deliver
    assert feed(receiver, first) is None and receiver.reason == "replay"
    assert feed(receiver, second) is None and receiver.reason == "replay"
    third = copies(sender.seal(HEARTBEAT, b""))
    assert feed(receiver, third) == b"" and receiver.beat == 3


def test_what_is_old_by_an_authentic_word_is_not_opened():
    sender, receiver = ends()
    held_back = copies(sender.seal(HEARTBEAT, b"\x00"))
    receiver.skip_to(sender.beat)
    receiver.skip_to(0)
    assert feed(receiver, held_back) is None and receiver.reason == "replay"
    _, late = ends(receiver_beat=1)
    assert feed(late, held_back) is None and late.reason == "replay"
    assert feed(receiver, sender.seal(HEARTBEAT, b"\x01")) == b"\x01"


def test_another_key_pack_or_id_is_not_opened():
    sender, receiver = ends()
    frames = copies(sender.seal(HEARTBEAT, b"\x01"))
    for other in (
        GroupReceiver(Workspace(), bytes(32), PACK),
        GroupReceiver(Workspace(), SECRET, bytes(32)),
    ):
        assert feed(other, frames) is None and other.reason == "unknown"
    for moved in (compose(0x517, 5), compose(0x514, 0)):
        others = [Frame(frame.arbitration_id ^ HEARTBEAT ^ moved, frame.data) for frame in frames]
        assert feed(receiver, others) is None and receiver.reason == "tag"
    changed = [frame.copy() for frame in frames]
    changed[3].data = bytes(changed[3].data[:4]) + bytes((changed[3].data[4] ^ 1,))
    assert feed(receiver, changed) is None and receiver.reason == "tag"
    assert receiver.beat == 0
    again = [Frame(frame.arbitration_id ^ 0x10000, frame.data) for frame in frames]
    assert feed(receiver, again) == b"\x01"


def test_a_counter_beyond_32_bits_and_short_records_are_refused():
    sender, receiver = ends()
    frames = copies(sender.seal(HEARTBEAT, b"\x01"))
    data = bytearray(b"".join([bytes(frame.data) for frame in frames]))
    data[7] = 1
    forged = [Frame(HEARTBEAT | ENCRYPTED | at << 12 | 3 << 8, bytes(data[8 * at : 8 * at + 8])) for at in range(4)]
    assert feed(receiver, forged) is None and receiver.reason == "unknown"
    assert feed(receiver, [Frame(HEARTBEAT | ENCRYPTED | 0x10000, bytes(8))]) is None and receiver.reason == "short"
    assert receiver.beat == 0


def test_can_fd_takes_one_frame():
    sender, receiver = ends()
    for state in (1, 2):
        frames = sender.seal(HEARTBEAT, bytes((state,)), True)
        assert len(frames) == 1 and frames[0].is_fd and len(frames[0].data) == 32
        assert frames[0].arbitration_id >> 8 & 0xFF == 29
        assert feed(receiver, frames) == bytes((state,))


def test_a_key_that_is_used_up_or_gone():
    sender, receiver = ends(beat=BEATS_MAX - 1, receiver_beat=BEATS_MAX - 2)
    assert feed(receiver, sender.seal(HEARTBEAT, b"\x01")) == b"\x01"
    raises(ChannelError, sender.seal, HEARTBEAT, b"\x01")
    assert sender.beat == BEATS_MAX
    sender.wipe()
    assert not any(sender._material)
    raises(KeyFormatError, GroupSender, Workspace(), bytes(31), PACK)


def test_the_place_among_the_ready_keys_can_be_lost():
    workspace = Workspace(1, 8)
    sender = GroupSender(workspace, SECRET, PACK)
    other = GroupSender(workspace, bytes(32), PACK)
    receiver = GroupReceiver(Workspace(1, 8), SECRET, PACK)
    for state in range(3):
        frames = copies(sender.seal(HEARTBEAT, bytes((state,))))
        other.seal(HEARTBEAT, b"")
        assert feed(receiver, frames) == bytes((state,))
    assert sender._aead is None and other._aead is not None
    sender.wipe()
    other.wipe()
    assert workspace._ready == []


def test_a_broadcast_needs_no_heap():
    sender, receiver = ends()
    data = b"\x03"

    def beat(state):
        found = None
        for frame in sender.seal(HEARTBEAT, state):
            found = receiver.feed(frame, 0)
        return found

    for _ in range(3):
        assert bytes(beat(data)) == data
    for _ in range(3):
        assert bytes(without_heap(beat, data)) == data
    # The control: the measure sees an allocation where there is one.
    import sys

    if sys.implementation.name == "micropython":
        raises(MemoryError, without_heap, lambda size: bytearray(size), 100)
