"""ISO-TP: frames as ISO 15765-2 has them, flow control obeyed, errors counted, memory bounded."""

from packtrust.frame import Frame
from packtrust.isotp import FIRST_MS, TIMEOUT_MS, WAITS_MAX, IsoTpLink, Pieces
from portable import raises


def pair(receive_max=4095, fd=False):
    return IsoTpLink(0x100, 0x200, 4095, fd), IsoTpLink(0x200, 0x100, receive_max, fd)


def run(sender, receiver, now_ms=0):
    """Carry frames both ways until nothing moves; the payloads the receiver got, and all frames."""
    got, seen = [], []
    while True:
        moved = False
        for frame in sender.outgoing():
            moved = True
            seen.append(frame)
            payload = receiver.feed(frame, now_ms)
            if payload is not None:
                got.append(payload)
        for frame in receiver.outgoing():
            moved = True
            seen.append(frame)
            sender.feed(frame, now_ms)
        if not moved:
            return got, seen


def test_frames_are_those_of_the_standard():
    sender, receiver = pair()
    sender.send(b"abc", 0)
    got, seen = run(sender, receiver)
    assert got == [b"abc"]
    assert bytes(seen[0].data) == b"\x03abc"
    sender.send(bytes(range(20)), 0)
    got, seen = run(sender, receiver)
    assert got == [bytes(range(20))]
    assert [bytes(frame.data) for frame in seen] == [
        b"\x10\x14\x00\x01\x02\x03\x04\x05",
        b"\x30\x00\x00",
        b"\x21\x06\x07\x08\x09\x0a\x0b\x0c",
        b"\x22\x0d\x0e\x0f\x10\x11\x12\x13",
    ]


def test_every_length_up_to_the_limit():
    sender, receiver = pair()
    for size in (1, 7, 8, 13, 14, 100, 111, 112, 113, 500, 4095):
        payload = bytes(i & 0xFF for i in range(size))
        sender.send(payload, 0)
        assert run(sender, receiver)[0] == [payload]
    raises(ValueError, sender.send, bytes(4096), 0)
    raises(ValueError, sender.send, b"", 0)
    assert sender.dropped == {} and receiver.dropped == {}


def test_a_payload_in_pieces_is_sent_as_if_it_were_one():
    for sizes in ((1,), (7,), (8, 1), (3, 3, 3), (6, 7, 7, 7, 1), (56, 212, 212, 53, 64), (200,)):
        for fd in (False, True):
            pieces = [bytearray([at * 16 + i & 0xFF for i in range(size)]) for at, size in enumerate(sizes)]
            whole = b"".join(pieces)
            payload = Pieces(pieces)
            assert len(payload) == len(whole)
            for start in range(0, len(whole), 5):
                for stop in range(start, len(whole) + 3, 7):
                    assert payload.part(start, stop) == whole[start:stop], (sizes, start, stop)
            frames = []
            for one in (payload, whole):
                sender, receiver = pair(fd=fd)
                sender.send(one, 0)
                got, seen = run(sender, receiver)
                assert got == [whole]
                frames.append([bytes(frame.data) for frame in seen])
            assert frames[0] == frames[1]


def test_can_fd_frames():
    sender, receiver = pair(fd=True)
    for size in (7, 8, 62, 63, 400):
        payload = bytes(i & 0xFF for i in range(size))
        sender.send(payload, 0)
        got, seen = run(sender, receiver)
        assert got == [payload], size
        assert all(len(frame.data) <= 64 for frame in seen)


def test_payloads_queue_in_order():
    sender, receiver = pair()
    for text in (b"one" * 10, b"two", b"three" * 20):
        sender.send(text, 0)
    assert run(sender, receiver)[0] == [b"one" * 10, b"two", b"three" * 20]
    assert not sender.sending


def test_block_size_and_stmin_of_the_peer_are_obeyed():
    sender, _ = pair()
    sender.send(bytes(60), 0)
    sender.outgoing()
    sender.feed(Frame(0x200, b"\x30\x02\x0a"), 0)  # two frames, 10 ms apart
    assert len(sender.outgoing()) == 1
    sender.tick(9)
    assert len(sender.outgoing()) == 0
    sender.tick(10)
    assert len(sender.outgoing()) == 1
    sender.tick(30)
    assert len(sender.outgoing()) == 0  # the block is used up
    sender.feed(Frame(0x200, b"\x30\x00\x00"), 31)
    assert len(sender.outgoing()) == 6


def test_no_flow_control_gives_up_after_a_second():
    sender, _ = pair()
    sender.send(bytes(60), 0)
    sender.tick(1000)
    assert sender.sending
    sender.tick(1001)
    assert not sender.sending
    assert sender.dropped == {"timeout": 1}


def test_a_receiver_that_says_wait_for_ever_is_given_up():
    wait = Frame(0x200, b"\x31\x00\x00")
    go_on = Frame(0x200, b"\x30\x01\x00")
    sender, _ = pair()
    sender.send(bytes(20), 0)
    sender.send(b"next", 0)
    assert len(sender.outgoing()) == 1
    now_ms = 0
    for _ in range(WAITS_MAX):
        now_ms += TIMEOUT_MS
        sender.feed(wait, now_ms)
        sender.tick(now_ms)
        assert sender.sending and not sender.dropped
    # One that goes on after so many is obeyed, and may ask for as many again.
    sender.feed(go_on, now_ms)
    assert [bytes(frame.data[:1]) for frame in sender.outgoing()] == [b"\x21"]
    for _ in range(WAITS_MAX):
        sender.feed(wait, now_ms)
    assert sender.sending and not sender.dropped
    sender.feed(wait, now_ms)
    assert sender.dropped == {"peer-waits": 1}
    # It is that payload alone that is lost.
    assert [bytes(frame.data) for frame in sender.outgoing()] == [b"\x04next"]
    assert not sender.sending


def test_a_flow_control_nobody_waits_for_holds_nothing_up():
    sender, _ = pair()
    sender.send(bytes(20), 0)
    sender.outgoing()
    sender.feed(Frame(0x200, b"\x30\x00\x0a"), 0)  # STmin 10 ms
    assert len(sender.outgoing()) == 1
    for now_ms in range(1, 10):
        sender.feed(Frame(0x200, b"\x31\x00\x00"), now_ms)
        sender.tick(now_ms)
    sender.tick(10)
    assert len(sender.outgoing()) == 1 and not sender.sending


def test_a_gap_or_silence_drops_the_reception():
    sender, receiver = pair()
    sender.send(bytes(60), 0)
    receiver.feed(sender.outgoing()[0], 0)
    sender.feed(receiver.outgoing()[0], 0)
    frames = sender.outgoing()
    receiver.feed(frames[0], 0)
    assert receiver.feed(frames[2], 0) is None
    assert receiver.dropped == {"gap": 1}
    receiver.feed(Frame(0x100, b"\x10\x14\x00\x01\x02\x03\x04\x05"), 0)
    receiver.tick(1001)
    assert receiver.dropped == {"gap": 1, "timeout": 1}


def test_a_transfer_that_has_just_begun_is_not_given_up_for_another_one():
    sender, receiver = pair()
    sender.send(bytes(range(20)), 0)
    first = sender.outgoing()[0]
    assert receiver.feed(first, 1000) is None
    flow_control = receiver.outgoing()[0]
    for at_ms in (1000, 1000 + FIRST_MS - 1):
        assert receiver.feed(Frame(0x100, b"\x12\x00" + bytes(6)), at_ms) is None
    assert receiver.feed(Frame(0x100, b"\x1f\xff" + bytes(6)), 1000) is None
    assert receiver.outgoing() == [] and receiver.dropped == {"hasty": 3}
    sender.feed(flow_control, 1000)
    assert run(sender, receiver, 1000)[0] == [bytes(range(20))]
    # One that has stood still for longer is.
    receiver.feed(first, 2000)
    receiver.feed(Frame(0x100, b"\x10\x08" + bytes(6)), 2000 + FIRST_MS)
    assert receiver.dropped == {"hasty": 3, "restarted": 1}
    assert receiver.feed(Frame(0x100, b"\x21ab"), 2000 + FIRST_MS) == bytes(6) + b"ab"


def test_a_frame_delivered_twice_does_no_harm():
    sender, receiver = pair()
    sender.send(bytes(range(60)), 0)
    receiver.feed(sender.outgoing()[0], 0)
    sender.feed(receiver.outgoing()[0], 0)
    got = None
    for frame in sender.outgoing():
        for _ in range(2):
            payload = receiver.feed(frame, 0)
            got = payload if payload is not None else got
    assert got == bytes(range(60))


def test_oversize_is_refused_with_overflow_and_no_buffer():
    sender, receiver = pair(receive_max=100)
    sender.send(bytes(101), 0)
    got, seen = run(sender, receiver)
    assert got == []
    assert bytes(seen[1].data) == b"\x32\x00\x00"
    assert receiver.dropped == {"oversize": 1}
    assert sender.dropped == {"peer-overflow": 1}


def test_oversize_is_refused_with_overflow_also_while_another_transfer_has_just_begun():
    _, receiver = pair(receive_max=100)
    receiver.feed(Frame(0x100, b"\x10\x09" + bytes(6)), 1000)
    receiver.outgoing()
    assert receiver.feed(Frame(0x100, b"\x10\x65" + bytes(6)), 1000) is None
    assert bytes(receiver.outgoing()[0].data) == b"\x32\x00\x00"
    assert receiver.feed(Frame(0x100, b"\x21abc"), 1001) == bytes(6) + b"abc", "the transfer under way goes on"
    assert receiver.dropped == {"oversize": 1}


def test_junk_never_raises():
    _, receiver = pair()
    for first in range(256):
        for size in range(9):
            data = bytes((first,)) + bytes(size)
            receiver.feed(Frame(0x100, data[:8]), 0)
    receiver.feed(Frame(0x100, b""), 0)


def test_a_burst_bounds_the_frames_there_are_at_once():
    for stmin in (0, 5):
        sender = IsoTpLink(1, 2, burst=4)
        sender.send(bytes(range(100)), 0)
        assert len(sender.outgoing()) == 1
        assert sender.outgoing() == []  # not before the flow control
        sender.feed(Frame(2, bytes((0x30, 10, stmin))), 1)
        counts = []
        now_ms = 1
        while sum(counts) < 10:
            count = len(sender.outgoing())
            assert count <= 4
            counts.append(count)
            now_ms += 5
            if stmin:
                sender.tick(now_ms)
        assert counts == ([4, 4, 2] if not stmin else [1] * 10)
        assert sender.outgoing() == []  # the block is over
        sender.feed(Frame(2, bytes((0x30, 0, 0))), now_ms)
        assert [len(sender.outgoing()) for _ in range(2)] == [4, 0]
        assert sender.is_idle
