"""The bus's physics on a virtual clock."""

import random

import can
import pytest

from packtrust.frame import Frame
from packtrust_host.sim import can_bits
from packtrust_host.sim.bus import BUS_OFF, ERROR_ACTIVE, ERROR_PASSIVE, Bus

BIT = 2000  # ns at 500 kbit/s


def std(ident, data=b""):
    return Frame(ident, data, False)


class Node:
    """A controller that remembers what happened to it."""

    def __init__(self, bus, name, **options):
        self.controller = bus.attach(name, **options)
        self.got, self.sent, self.states = [], [], []
        self.controller.on_receive = lambda frame, time: self.got.append((time, frame))
        self.controller.on_transmitted = lambda frame, time: self.sent.append((time, frame))
        self.controller.on_state = lambda state, time: self.states.append(state)

    @property
    def frames(self):
        return [frame for _, frame in self.got]


def nodes(bus, names, **options):
    return [Node(bus, name, **options) for name in names]


def drain(bus, limit=100_000):
    for _ in range(limit):
        time = bus.next_event_ns()
        if time is None:
            return
        bus.run_until(time)
    raise AssertionError("the bus never falls silent")


def test_one_frame_and_its_times():
    bus = Bus()
    a, b = nodes(bus, "ab")
    bus.run_until(1000)
    frame = std(0, b"")
    assert a.controller.send(frame)
    drain(bus)
    end = 1000 + (34 + 6 + 10) * BIT
    assert b.got == [(end, frame)]
    assert a.sent == [(end, frame)] and a.got == []
    assert bus.busy_ns == (34 + 6 + 13) * BIT


def test_frames_follow_back_to_back():
    """A frame begins when the one before has ended, intermission included."""
    bus = Bus()
    a, b = nodes(bus, "ab")
    a.controller.send(std(0))
    a.controller.send(std(0))
    drain(bus)
    assert b.got[1][0] - b.got[0][0] == 53 * BIT


def test_takes_python_can_messages():
    bus = Bus()
    a, b = nodes(bus, "ab")
    data = bytearray(b"\x01\x02")
    message = can.Message(arbitration_id=0x123, data=data, is_extended_id=False)
    a.controller.send(message)
    message.data[0] = 9  # the caller's buffer is his own again
    drain(bus)
    assert b.frames == [std(0x123, b"\x01\x02")]


def test_arbitration_by_id():
    bus = Bus()
    a, b, c, d, e = nodes(bus, "abcde")
    frames = [
        Frame(0x100 << 18, b"x"),
        std(0x101, b"y"),
        Frame(0x100, b"", False, is_remote_frame=True, dlc=1),
        std(0x100, b"w"),
    ]
    for node, frame in zip((a, b, c, d), frames, strict=True):
        node.controller.send(frame)
    drain(bus)
    assert e.frames == [frames[3], frames[2], frames[0], frames[1]]
    assert b.controller.arbitration_lost == 3
    assert d.controller.arbitration_lost == 0
    assert bus.error_frames == 0


def test_late_sender_waits_though_it_has_priority():
    bus = Bus()
    a, b, c = nodes(bus, "abc")
    a.controller.send(std(0x700, bytes(8)))
    bus.run_until(10 * BIT)
    b.controller.send(std(0x001))
    drain(bus)
    assert [frame.arbitration_id for frame in c.frames] == [0x700, 0x001]


def test_fifo_and_id_order():
    for order, expected in (("fifo", [5, 3, 4]), ("id", [3, 4, 5])):
        bus = Bus()
        a = Node(bus, "a", order=order)
        b = Node(bus, "b")
        for ident in (5, 3, 4):
            a.controller.send(std(ident))
        drain(bus)
        assert [frame.arbitration_id for frame in b.frames] == expected


def test_full_fifo_refuses():
    bus = Bus()
    a = Node(bus, "a", tx_fifo=2)
    Node(bus, "b")
    assert [a.controller.send(std(i)) for i in range(3)] == [True, True, False]
    assert a.controller.refused == 1 and a.controller.pending == 2
    drain(bus)
    assert a.controller.sent == 2 and a.controller.send(std(9))


def test_filters():
    bus = Bus()
    a, b = nodes(bus, "ab")
    b.controller.filters = [(0x100, 0x700, False), (0x05, 0xFF, True)]
    for frame in (std(0x123), std(0x223), Frame(0x1205), Frame(0x1206), std(0x205)):
        a.controller.send(frame)
    drain(bus)
    assert b.frames == [std(0x123), Frame(0x1205)]
    assert bus.frames == 5


def test_equal_frames_merge():
    """Two nodes that send the very same frame never notice."""
    bus = Bus()
    a, b, c = nodes(bus, "abc")
    a.controller.send(std(7, b"same"))
    b.controller.send(std(7, b"same"))
    drain(bus)
    assert c.frames == [std(7, b"same")]
    assert len(a.sent) == len(b.sent) == 1 and bus.error_frames == 0


def test_equal_ids_with_different_data_collide():
    """Sixteen error frames until both are error passive; then the one that sends recessive first
    can only fall silent, and both frames go through."""
    bus = Bus()
    a, b, c = nodes(bus, "abc")
    reasons = []
    bus.error_listeners.append(lambda reason, names, time: reasons.append((reason, names)))
    a.controller.send(std(1, b"\x01"))
    b.controller.send(std(1, b"\x02"))
    drain(bus)
    assert reasons == [("collision", ("a", "b"))] * 16
    assert c.frames == [std(1, b"\x01"), std(1, b"\x02")]
    # 16 * 8 = 128; b has one more bit error; each success takes one off again.
    assert a.controller.tec == 127 and a.states == [ERROR_PASSIVE, ERROR_ACTIVE]
    assert b.controller.tec == 135 and b.states == [ERROR_PASSIVE]
    assert c.controller.rec == 16 - 2
    assert a.controller.retransmissions == 16


def test_collision_time():
    """The error frame begins at the first differing bit, not at the end of the frame."""
    bus = Bus()
    a, b, _ = nodes(bus, "abc")
    times = []
    bus.error_listeners.append(lambda reason, names, time: times.append(time))
    a.controller.send(std(0x555, b"\x55"))
    b.controller.send(std(0x555, b"\x75"))
    bus.run_until(200 * BIT)
    # SOF, 11 ID bits, then RTR, IDE, r0 and three DLC bits: a dominant run of six, so one stuff
    # bit; the last DLC bit, and 0 1 0 | 0 1 1: bit 22 is the first to differ.
    wire = can_bits.encode(std(0x555, b"\x55")).text()
    other = can_bits.encode(std(0x555, b"\x75")).text()
    first = next(i for i, (x, y) in enumerate(zip(wire, other, strict=False)) if x != y)
    assert first == 22
    # dominant bit 22 follows recessive 21: run of one, so 6 + 5 bits of flags, then the delimiter
    assert times[0] == (first + 1 + 11 + 8) * BIT


def test_missing_acknowledge_counts_until_passive():
    bus = Bus()
    (a,) = nodes(bus, "a")
    a.controller.send(std(1))
    bus.run_until(100_000_000)
    assert a.controller.tec == 128 and a.controller.state == ERROR_PASSIVE
    assert a.controller.errors > 100 and a.states == [ERROR_PASSIVE]
    b = Node(bus, "b")
    drain(bus)
    assert b.frames == [std(1)] and a.controller.tec == 127 and a.states[-1] == ERROR_ACTIVE


def test_missing_acknowledge_time():
    bus = Bus()
    (a,) = nodes(bus, "a")
    times = []
    bus.error_listeners.append(lambda reason, names, time: times.append((reason, time)))
    a.controller.send(std(0))
    bus.run_until(1_000_000)
    # 40 stuffed bits, CRC delimiter, ACK slot, then flag and delimiter; next try 3 bits later
    one = (40 + 2 + 6 + 8) * BIT
    assert times[:2] == [("no acknowledge", one), ("no acknowledge", one + 3 * BIT + one)]


def test_listen_only_does_not_acknowledge():
    bus = Bus()
    a = Node(bus, "a")
    b = Node(bus, "b", listen_only=True)
    a.controller.send(std(1))
    bus.run_until(10_000_000)
    assert a.sent == [] and b.got == [] and b.controller.rec == 0
    assert b.controller.send(std(2)) is False


def test_suspend_transmission_lets_others_first():
    """An error-passive sender waits 8 bits more, so a lower priority gets its turn."""
    bus = Bus()
    a, b, c = nodes(bus, "abc")
    a.controller.tec = 140
    a.controller.state = ERROR_PASSIVE
    for _ in range(2):
        a.controller.send(std(1))
    b.controller.send(std(2))
    drain(bus)
    assert [frame.arbitration_id for frame in c.frames] == [1, 2, 1]
    # alone, the gap between two of its frames is 3 + 8 bits
    bus2 = Bus()
    a, b = nodes(bus2, "ab")
    a.controller.tec, a.controller.state = 140, ERROR_PASSIVE
    a.controller.send(std(0))
    a.controller.send(std(0))
    drain(bus2)
    assert b.got[1][0] - b.got[0][0] == (53 + 8) * BIT


def test_disturbed_frame_is_destroyed_for_all_and_repeated():
    bus = Bus(seed=1)
    a, b, c = nodes(bus, "abc")
    bus.faults.add({"kind": "disturb", "count": 1, "at_bit": 20})
    a.controller.send(std(0x2AA, b"\xaa\xaa"))
    drain(bus)
    assert b.frames == c.frames == [std(0x2AA, b"\xaa\xaa")]
    assert bus.error_frames == 1 and bus.retransmissions == 1
    assert a.controller.tec == 8 - 1
    assert b.controller.errors == c.controller.errors == 1 and b.controller.rec == 0
    wire = can_bits.encode(std(0x2AA, b"\xaa\xaa"))
    run = 1
    while wire.text()[20 - run] == "0":
        run += 1
    lost = (21 + 12 - run + 8 + 3) * BIT
    assert b.got[0][0] == lost + (wire.nominal_bits - 3) * BIT


def test_bus_off_and_recovery_only_when_asked():
    bus = Bus()
    a, b = nodes(bus, "ab")
    fault = bus.faults.add({"kind": "disturb", "sender": "a"})
    a.controller.send(std(0x10, b"keep"))
    drain(bus)
    assert a.states == [ERROR_PASSIVE, BUS_OFF]
    assert a.controller.tec == 256 and a.controller.errors == 32
    # while passive it is heard no less: the burst is the wire's; receivers counted one each
    assert b.controller.rec == 32
    bus.faults.remove(fault)
    bus.run_until(bus.now_ns + 1_000_000_000)
    assert a.controller.state == BUS_OFF and b.got == []
    start = bus.now_ns
    a.controller.recover()
    assert bus.next_event_ns() == start + 128 * 11 * BIT
    drain(bus)
    assert a.states[-1] == ERROR_ACTIVE and a.controller.tec == 0
    assert b.frames == [std(0x10, b"keep")]


def test_recovery_counts_traffic_as_recessive_runs():
    """With back-to-back frames each one gives a single run of 11 recessive bits."""
    bus = Bus()
    a, b, c = nodes(bus, "abc", tx_fifo=300)
    a.controller._count(tec=256)
    assert a.controller.state == BUS_OFF
    for _ in range(200):
        b.controller.send(std(0))
    a.controller.recover()
    while a.controller.state == BUS_OFF:
        bus.run_until(bus.next_event_ns())
    assert c.controller.received == 128


def test_bus_off_abort_drops_the_queue():
    bus = Bus()
    a, b = nodes(bus, "ab")
    a.controller.send(std(1))
    a.controller.send(std(2))
    a.controller._count(tec=256)
    assert a.controller.abort() == [std(1), std(2)]
    a.controller.recover()
    drain(bus)
    assert b.got == [] and a.controller.aborted == 2


def test_receive_error_counter_falls_back_below_128():
    bus = Bus()
    a, b = nodes(bus, "ab")
    b.controller._count(rec=140)
    assert b.controller.state == ERROR_PASSIVE
    a.controller.send(std(1))
    drain(bus)
    assert 119 <= b.controller.rec <= 127 and b.controller.state == ERROR_ACTIVE
    a.controller.send(std(1))
    drain(bus)
    assert b.controller.rec == 118


def test_sender_unplugged_in_mid_frame():
    bus = Bus()
    a, b = nodes(bus, "ab")
    a.controller.send(std(1, b"abcd"))
    bus.run_until(30 * BIT)
    a.controller.plugged = False
    bus.run_until(1_000_000)
    assert b.got == [] and b.controller.rec == 1 and a.controller.pending == 1
    a.controller.plugged = True
    drain(bus)
    assert b.frames == [std(1, b"abcd")]


def test_abort_in_mid_frame_lets_it_finish_once():
    bus = Bus()
    a, b = nodes(bus, "ab")
    bus.faults.add({"kind": "disturb", "count": 1})
    a.controller.send(std(1, b"gone"))
    bus.run_until(5 * BIT)
    assert a.controller.abort() == []
    drain(bus)
    assert b.got == [] and a.controller.pending == 0 and a.controller.aborted == 1


def test_late_joiner_misses_the_running_frame():
    bus = Bus()
    a, b = nodes(bus, "ab")
    a.controller.send(std(1, bytes(8)))
    bus.run_until(30 * BIT)
    c = Node(bus, "c")
    c.controller.online = False
    c.controller.online = True
    drain(bus)
    assert len(b.got) == 1 and c.got == []


def test_wrong_bit_rate_disturbs_until_passive():
    bus = Bus()
    a, b, c = nodes(bus, "abc")
    c.controller.bitrate = 250_000
    a.controller.send(std(1))
    drain(bus)
    # c flags an error 16 times (REC + 8 each), is error passive then and harmless
    assert c.controller.state == ERROR_PASSIVE and c.got == []
    assert b.frames == [std(1)] and bus.error_frames == 16
    c.controller.send(std(2))
    drain(bus)
    assert c.controller.state == BUS_OFF and len(b.got) == 1


def test_losses_are_random_but_repeatable():
    def run(seed):
        bus = Bus(seed=seed)
        a, b, c = nodes(bus, "abc", tx_fifo=400)
        bus.faults.add({"kind": "loss", "receiver": "b", "probability": 0.3})
        bus.faults.add({"kind": "disturb", "probability": 0.1})
        bus.faults.add({"kind": "corrupt", "receiver": "c", "probability": 0.2, "flips": 2})
        for number in range(300):
            a.controller.send(Frame(number, number.to_bytes(8, "big")))
        drain(bus)
        return b.got, c.got, bus.error_frames

    first, again, other = run(5), run(5), run(6)
    assert first == again and first != other
    got_b, got_c, errors = first
    assert 60 < 300 - len(got_b) < 120 and len(got_c) == 300 and 15 < errors < 60
    wrong = [frame for _, frame in got_c if frame.data != frame.arbitration_id.to_bytes(8, "big")]
    assert 30 < len(wrong) < 100
    for frame in wrong:
        changed = int.from_bytes(frame.data, "big") ^ frame.arbitration_id
        assert changed.bit_count() == 2


def test_one_fault_does_not_change_anothers_luck():
    def lost(extra):
        bus = Bus(seed=9)
        a, b = nodes(bus, "ab", tx_fifo=100)
        bus.faults.add({"kind": "loss", "receiver": "b", "probability": 0.5})
        if extra:
            bus.faults.add({"kind": "corrupt", "receiver": "b", "probability": 0.5})
        for number in range(100):
            a.controller.send(Frame(number, b"\x00"))
        drain(bus)
        return [frame.arbitration_id for frame in b.frames]

    assert lost(False) == lost(True)


def test_receiver_faults_hit_one_receiver_only():
    bus = Bus()
    a, b, c = nodes(bus, "abc")
    faults = bus.faults
    faults.add({"kind": "loss", "receiver": "b", "code": 1, "mask": 0x7FF})
    faults.add({"kind": "repeat", "receiver": "b", "code": 2, "mask": 0x7FF})
    faults.add({"kind": "delay", "receiver": "b", "code": 3, "mask": 0x7FF, "delay_ns": 5_000_000})
    faults.add({"kind": "corrupt", "receiver": "b", "code": 4, "mask": 0x7FF, "bits": [0, 15]})
    sent = [std(1, b"a"), std(2, b"b"), std(3, b"c"), std(4, b"\x00\x00")]
    for frame in sent:
        a.controller.send(frame)
    drain(bus)
    assert c.frames == sent and bus.error_frames == 0 and len(a.sent) == 4
    assert b.frames == [sent[1], sent[1], std(4, b"\x80\x01"), sent[2]]
    assert b.got[-1][0] - c.got[2][0] == 5_000_000
    assert [fault["hits"] for fault in faults.describe()] == [1, 1, 1, 1]


def test_fault_conditions():
    bus = Bus()
    a, b, c = nodes(bus, "abc", tx_fifo=50)
    window = bus.faults.add({"kind": "loss", "after_ns": 10_000_000, "until_ns": 20_000_000})
    for _ in range(3):
        a.controller.send(std(1))
        drain(bus)
        bus.run_until(bus.now_ns + 9_000_000)
    assert b.controller.received == 2
    bus.faults.remove(window)
    ident = bus.faults.add({"kind": "loss", "receiver": "c", "sender": "a", "skip": 1, "count": 2})
    before = c.controller.received
    for _ in range(6):
        a.controller.send(std(1))
    b.controller.send(std(2))
    drain(bus)
    assert c.controller.received - before == 5
    assert bus.faults.get(ident).spent
    only = bus.faults.add({"kind": "loss", "receiver": "c", "extended": True})
    a.controller.send(std(5))
    a.controller.send(Frame(5))
    drain(bus)
    assert bus.faults.remove(only).hits == 1


def test_fault_predicate():
    from packtrust_host.sim.faults import Fault

    bus = Bus()
    a, b = nodes(bus, "ab")
    bus.faults.add(Fault("loss", predicate=lambda frame, sender, receiver: frame.data[:1] == b"x"))
    a.controller.send(std(1, b"xy"))
    a.controller.send(std(1, b"yx"))
    drain(bus)
    assert b.frames == [std(1, b"yx")]


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ({}, "needs a kind"),
        ({"kind": "flood"}, "flood"),
        ({"kind": "loss", "colour": 1}, "colour"),
        ({"kind": "loss", "probability": 2}, "probability"),
        ({"kind": "loss", "count": "3"}, "count"),
        ({"kind": "loss", "count": True}, "count"),
        ({"kind": "delay"}, "delay_ns"),
        ({"kind": "disturb", "receiver": "b"}, "receiver"),
        ({"kind": "corrupt", "bits": ["a"]}, "bits"),
    ],
)
def test_bad_fault_descriptions(description, words):
    with pytest.raises(ValueError, match=words):
        Bus().faults.add(description)


def test_throughput_and_load_match_the_bits():
    """Full load for a second: bus time per frame is exactly its bits."""
    bus = Bus(500_000)
    rng = random.Random(3)
    a, b = nodes(bus, "ab", tx_fifo=4000)
    frames = [Frame(rng.getrandbits(29), rng.randbytes(8)) for _ in range(3500)]
    computed = sum(can_bits.encode(frame).nominal_bits for frame in frames) * BIT
    for frame in frames:
        a.controller.send(frame)
    bus.run_until(500_000_000)
    assert bus.load == pytest.approx(1, abs=0.001)
    drain(bus)
    took = b.got[-1][0] + 3 * BIT
    assert took == computed == bus.busy_ns
    bus.run_until(took + 500_000_000)
    assert bus.load == pytest.approx(0.5, abs=0.001)
    bus.run_until(took + 2_000_000_000)
    assert bus.load == 0


def test_fd_frames_take_the_data_rate():
    bus = Bus(500_000, 2_000_000)
    a, b = nodes(bus, "ab")
    frame = Frame(0x123, bytes(range(64)), True, True, False, True)
    a.controller.send(frame)
    drain(bus)
    wire = can_bits.encode(frame)
    assert b.got == [((wire.nominal_bits - 3) * 2000 + wire.data_bits * 500, frame)]
    with pytest.raises(ValueError, match="classic"):
        Bus().attach("x").send(frame)


def fd_frame(ident=0x123, data=bytes(8), switch=True):
    return Frame(ident, data, True, True, False, switch)


def test_controllers_without_fd_refuse_to_send_it():
    bus = Bus(500_000, 2_000_000)
    for support in ("classic", "tolerant"):
        with pytest.raises(ValueError, match="no CAN FD"):
            bus.attach(support, fd_support=support).send(fd_frame())
    with pytest.raises(ValueError, match="fd_support"):
        bus.attach("x", fd_support="maybe")
    assert bus.attach("a").fd_support == "enabled"
    assert Bus().attach("a").fd_support == "classic"


def test_a_tolerant_controller_lets_fd_frames_pass():
    bus = Bus(500_000, 2_000_000)
    a, b = nodes(bus, "ab")
    old = Node(bus, "old", fd_support="tolerant")
    a.controller.send(fd_frame())
    a.controller.send(std(5, b"x"))
    drain(bus)
    assert b.frames == [fd_frame(), std(5, b"x")] and old.frames == [std(5, b"x")]
    assert bus.error_frames == 0 and old.controller.rec == old.controller.errors == 0


@pytest.mark.parametrize("switch", [False, True])
def test_a_classic_controller_destroys_fd_frames(switch):
    """Until both the sender and it are error passive; the FD frame then passes, and it never has it."""
    bus = Bus(500_000, 2_000_000)
    a, b = nodes(bus, "ab")
    old = Node(bus, "old", fd_support="classic")
    reasons = []
    bus.error_listeners.append(lambda reason, senders, time: reasons.append((reason, time)))
    a.controller.send(fd_frame(switch=switch))
    bus.run_until(120 * BIT)
    # Ten bits after BRS (36 bits and at most 8 stuff bits), a flag of 6 to 12 bits, the delimiter's 8.
    assert len(reasons) == 1
    assert (36 + 10 + 6 + 8) * BIT <= reasons[0][1] <= (36 + 8 + 10 + 1 + 12 + 8) * BIT
    assert (a.controller.tec, old.controller.rec, b.controller.rec) == (8, 8, 1)
    drain(bus)
    assert {reason for reason, _ in reasons} == {"classic controller"}
    assert len(reasons) == 16 and old.states == [ERROR_PASSIVE] and b.states == []
    assert a.states == [ERROR_PASSIVE, ERROR_ACTIVE]  # TEC 128, and 127 after the frame that passed
    assert b.frames == [fd_frame(switch=switch)] and old.frames == []
    # Classic frames were never a problem.
    a.controller.send(std(1, b"y"))
    drain(bus)
    assert old.frames == b.frames[1:] == [std(1, b"y")]


def test_nobody_with_fd_acknowledges():
    bus = Bus(500_000, 2_000_000)
    (a,) = nodes(bus, "a")
    for name in ("b", "c"):
        Node(bus, name, fd_support="tolerant")
    reasons = []
    bus.error_listeners.append(lambda reason, senders, time: reasons.append(reason))
    a.controller.send(fd_frame())
    bus.run_until(200 * BIT)
    assert set(reasons) == {"no acknowledge"}


def test_a_classic_listener_that_may_not_answer_disturbs_nothing():
    bus = Bus(500_000, 2_000_000)
    a, b = nodes(bus, "ab")
    old = Node(bus, "old", fd_support="classic", listen_only=True)
    off = Node(bus, "off", fd_support="classic")
    off.controller.online = False
    a.controller.send(fd_frame())
    drain(bus)
    assert b.frames == [fd_frame()] and old.frames == [] and bus.error_frames == 0


def test_arbitration_does_not_know_fd():
    """Frames of both formats contend by ID as ever; of one ID the classic one has the dominant bit (FDF)."""
    bus = Bus(500_000, 2_000_000)
    a, b, c = nodes(bus, "abc")
    a.controller.send(Frame(0x20, b"a"))
    b.controller.send(fd_frame(0x10))
    c.controller.send(fd_frame(0x30))
    drain(bus)
    order = [frame.arbitration_id for frame in [*a.frames[:1], *b.frames[:1], *a.frames[1:]]]
    assert order == [0x10, 0x20, 0x30]
    assert can_bits.encode(fd_frame(0x10)).priority == can_bits.encode(Frame(0x10)).priority


def test_callbacks_may_send():
    """Ping-pong from inside the callbacks, without a driver in between."""
    bus = Bus()
    a, b = nodes(bus, "ab")
    count = []

    def answer(frame, time):
        count.append(time)
        if len(count) < 10:
            b.controller.send(std(2))

    b.controller.on_receive = answer
    a.controller.on_receive = lambda frame, time: a.controller.send(std(1))
    a.controller.send(std(1))
    drain(bus)
    assert len(count) == 10 and bus.frames == 10 + 9


def test_detach_and_names():
    bus = Bus()
    a, b = nodes(bus, "ab")
    with pytest.raises(ValueError, match="already"):
        bus.attach("a")
    b.controller.send(std(1))
    bus.detach(b.controller)
    drain(bus)
    assert a.got == [] and bus.statistics()["controllers"].keys() == {"a"}
    bus.attach("b")


def test_error_listener_may_change_the_bus():
    bus = Bus()
    a, b, c = nodes(bus, "abc")
    bus.faults.add({"kind": "disturb", "count": 1})
    bus.error_listeners.append(lambda reason, names, time: bus.detach(c.controller))
    a.controller.send(std(1))
    drain(bus)
    assert b.frames == [std(1)] and c.got == []
