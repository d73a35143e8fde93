"""Payloads over 8-byte frames: strict order, one buffer a stream, repeats ignored, gaps dropped."""

from packtrust.frame import Frame
from packtrust.segmentation import Reassembler, Segmenter, cut
from portable import raises

STREAM = 0x502 << 18 | 1 << 17 | 5


def feed_all(reassembler, frames, now_ms=0):
    result = None
    for frame in frames:
        payload = reassembler.feed(frame, now_ms)
        if payload is not None:
            result = bytes(payload)
    return result


def test_every_length_comes_back_whole():
    segmenter = Segmenter()
    reassembler = Reassembler()
    for size in range(1, 129):
        payload = bytes((i * 7 + size) & 0xFF for i in range(size))
        frames = segmenter.split(STREAM, payload)
        assert len(frames) == (size + 7) // 8
        assert feed_all(reassembler, frames) == payload
    assert reassembler.dropped == {}


def test_index_and_last_are_in_the_id_and_the_toggle_alternates_per_stream():
    segmenter = Segmenter()
    first = segmenter.split(STREAM, bytes(36))
    assert [frame.arbitration_id - STREAM for frame in first] == [0x400, 0x1400, 0x2400, 0x3400, 0x4400]
    second = segmenter.split(STREAM, bytes(36))
    assert [frame.arbitration_id - STREAM for frame in second] == [0x10400, 0x11400, 0x12400, 0x13400, 0x14400]
    other = segmenter.split(STREAM + 1, bytes(8))
    assert other[0].arbitration_id == STREAM + 1
    assert [len(frame.data) for frame in first] == [8, 8, 8, 8, 4]


def test_lengths_out_of_range_name_the_way_out():
    assert "ISO-TP" in str(raises(ValueError, Segmenter().split, STREAM, bytes(129)))
    raises(ValueError, Segmenter().split, STREAM, b"")


def test_a_repeated_chunk_is_ignored_wherever_it_comes():
    payload = bytes(range(36))
    for repeated in range(5):
        reassembler = Reassembler()
        frames = Segmenter().split(STREAM, payload)
        frames.insert(repeated, frames[repeated])
        count = 0
        for frame in frames:
            if reassembler.feed(frame, 0) is not None:
                count += 1
        assert count == 1, repeated
        assert reassembler.dropped == {}, repeated


def test_a_missing_chunk_drops_the_payload_and_the_next_one_is_whole():
    segmenter = Segmenter()
    for missing in range(5):
        reassembler = Reassembler()
        frames = segmenter.split(STREAM, bytes(range(36)))
        del frames[missing]
        assert feed_all(reassembler, frames) is None
        assert feed_all(reassembler, segmenter.split(STREAM, bytes(range(36)))) == bytes(range(36))
        assert sum(reassembler.dropped.values()) == (1 if missing else 0), (missing, reassembler.dropped)


def test_chunks_out_of_order_are_dropped():
    reassembler = Reassembler()
    frames = Segmenter().split(STREAM, bytes(range(36)))
    frames[2], frames[3] = frames[3], frames[2]
    assert feed_all(reassembler, frames) is None
    assert reassembler.dropped == {"gap": 1}


def test_chunks_of_two_payloads_do_not_mix():
    segmenter = Segmenter()
    reassembler = Reassembler()
    old = segmenter.split(STREAM, b"a" * 36)
    new = segmenter.split(STREAM, b"b" * 36)
    assert feed_all(reassembler, old[:2] + new[2:]) is None
    assert reassembler.dropped == {"gap": 1}


def test_a_changed_last_index_drops_the_payload():
    reassembler = Reassembler()
    frames = Segmenter().split(STREAM, bytes(36))
    frames[1] = Frame(frames[1].arbitration_id + 0x100, frames[1].data)
    assert feed_all(reassembler, frames) is None
    assert reassembler.dropped == {"gap": 1}


def test_silence_of_more_than_50_ms_drops_the_payload():
    frames = Segmenter().split(STREAM, bytes(16))
    reassembler = Reassembler()
    reassembler.feed(frames[0], 1000)
    assert reassembler.feed(frames[1], 1051) is None
    assert reassembler.dropped == {"timeout": 1}
    reassembler = Reassembler()
    reassembler.feed(frames[0], 1000)
    assert reassembler.feed(frames[1], 1050) is not None
    reassembler.feed(frames[0], 2000)
    reassembler.expire(2051)
    assert reassembler.dropped == {"timeout": 1}


def test_malformed_chunks_are_counted():
    reassembler = Reassembler()
    assert reassembler.feed(Frame(STREAM | 3 << 12 | 2 << 8, bytes(8)), 0) is None  # chunk beyond last
    assert reassembler.feed(Frame(STREAM | 1 << 8, bytes(7)), 0) is None  # short, not the last
    assert reassembler.feed(Frame(STREAM, b""), 0) is None
    assert reassembler.dropped == {"malformed": 3}


def test_memory_is_bounded_and_a_transfer_under_way_is_not_pushed_out():
    reassembler = Reassembler(streams=2)
    frames = Segmenter().split(STREAM, bytes(range(16)))
    reassembler.feed(frames[0], 0)
    for node in range(10, 40):
        reassembler.feed(Frame(0x502 << 18 | 1 << 17 | node | 1 << 8, bytes(8)), 10)
    assert bytes(reassembler.feed(frames[1], 20)) == bytes(range(16))
    assert reassembler.dropped == {"streams": 29}


def test_one_can_fd_frame_carries_the_true_length_in_the_id():
    segmenter = Segmenter()
    reassembler = Reassembler()
    for size in (28, 36, 37, 48, 49, 64):
        payload = bytes(range(size))
        frame = segmenter.single_fd(STREAM, payload)
        assert frame.is_fd
        assert len(frame.data) in (32, 48, 64)
        assert frame.arbitration_id >> 8 & 0xFF == size
        assert bytes(reassembler.feed(frame, 0)) == payload
    raises(ValueError, segmenter.single_fd, STREAM, bytes(65))
    assert reassembler.feed(Frame(STREAM | 60 << 8, bytes(48), True, True), 0) is None
    assert reassembler.dropped == {"malformed": 1}


def test_buffers_beyond_the_usual_ones_are_there_while_they_are_needed():
    """31 modules answer one command at once, their chunks mixed; before and after it a few buffers do."""
    reassembler = Reassembler(40, 4)
    payload = bytes(range(40))
    sent = {}
    for node in range(1, 32):
        sent[node] = cut(0x502 << 18 | 0x20000 | node, payload)
    for node in range(1, 32):  # one after another
        done = [reassembler.feed(frame, 1000 + node) for frame in sent[node]]
        assert bytes(done[-1]) == payload
        assert len(reassembler.partials) <= 4
    done = 0
    for chunk in range(5):
        for node in range(1, 32):
            sent[node][chunk].arbitration_id ^= 0x10000
            whole = reassembler.feed(sent[node][chunk], 1100)
            if whole is not None:
                assert bytes(whole) == payload
                done += 1
    assert done == 31 and reassembler.dropped == {}
    assert len(reassembler.partials) > 20
    reassembler.expire(1151)
    assert len(reassembler.partials) == 4
    # What is under way is not among those that go.
    for node in range(1, 32):
        assert reassembler.feed(sent[node][0], 1200) is None
    reassembler.expire(1210)
    assert len(reassembler.partials) == 31 and reassembler.dropped == {}
    reassembler.expire(1300)
    assert len(reassembler.partials) == 4 and reassembler.dropped == {"timeout": 31}
