"""The SLCAN device, command by command, on a virtual clock."""

import random
import re

import pytest

from packtrust.frame import Frame
from packtrust_host.sim.bus import BUS_OFF, Bus
from packtrust_host.sim.slcan import Acceptance, SlcanDevice, format_frame

OK, BEL = b"\r", b"\a"


class Rig:
    """A device and a plain controller on one bus."""

    def __init__(self, opened=True, data_bitrate=None, **options):
        self.bus = Bus(data_bitrate=data_bitrate)
        tx_fifo = options.pop("tx_fifo", 16)
        self.controller = self.bus.attach("adapter", tx_fifo=tx_fifo)
        self.device = SlcanDevice(self.controller, **options)
        self.peer = self.bus.attach("peer", tx_fifo=10_000)
        self.got = []
        self.peer.on_receive = lambda frame, time: self.got.append(frame)
        if opened:
            assert self.feed(b"S6\rO\r") == OK + OK

    def feed(self, data, **options):
        return self.device.feed(data, **options)

    def run(self, milliseconds=10):
        self.bus.run_until(self.bus.now_ns + milliseconds * 1_000_000)
        return self.device.take()


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"", OK),
        (b"V", b"V1013\r"),
        (b"v", b"v0103\r"),
        (b"N", b"NPT01\r"),
        (b"S0", OK),
        (b"S8", OK),
        (b"S9", OK),
        (b"SA", BEL),
        (b"S", BEL),
        (b"s031C", OK),
        (b"s03", BEL),
        (b"sXXXX", BEL),
        (b"M00000000", OK),
        (b"mFFFFFFFF", OK),
        (b"M0000", BEL),
        (b"m1234567G", BEL),
        (b"W0", OK),
        (b"W1", OK),
        (b"W2", BEL),
        (b"Z0", OK),
        (b"Z1", OK),
        (b"Z2", BEL),
        (b"X0", OK),
        (b"X1", OK),
        (b"U1", OK),
        (b"Q0", OK),
        (b"Y2", BEL),  # the bus is classic
        (b"C", BEL),  # not open
        (b"F", BEL),
        (b"P", BEL),
        (b"t1230", BEL),
        (b"O", OK),
        (b"L", OK),
        (b"l", OK),
        (b"O1", BEL),
        (b"?", BEL),
        (b"\xc3\xbc", BEL),
    ],
)
def test_answers_with_the_channel_closed(line, answer):
    assert Rig(opened=False).feed(line + b"\r") == answer


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"t1230", b"z\r"),
        (b"t12321122", b"z\r"),
        (b"t7FF81122334455667788", b"z\r"),
        (b"T000001230", b"Z\r"),
        (b"T1FFFFFFF1ab", b"Z\r"),
        (b"r1238", b"z\r"),
        (b"R000001233", b"Z\r"),
        (b"t8000", BEL),
        (b"T200000000", BEL),
        (b"t1239112233445566778899", BEL),
        (b"t12321", BEL),
        (b"t1232112233", BEL),
        (b"t12", BEL),
        (b"t123", BEL),
        (b"t+120", BEL),
        (b"t1_20", BEL),
        (b"t12321 2 ", BEL),
        (b"r1231AA", BEL),
        (b"d1230", BEL),  # the bus is classic
        (b"S6", BEL),
        (b"M00000000", BEL),
        (b"W1", BEL),
        (b"Z1", BEL),
        (b"O", BEL),
        (b"F", b"F00\r"),
        (b"C", OK),
    ],
)
def test_answers_with_the_channel_open(line, answer):
    assert Rig().feed(line + b"\r") == answer


def test_frames_out():
    rig = Rig()
    rig.feed(b"t12321122\rT1234567881122334455667788\rr1234\rR000001230\r")
    rig.run()
    assert rig.got == [
        Frame(0x123, b"\x11\x22", False),
        Frame(0x12345678, bytes.fromhex("1122334455667788")),
        Frame(0x123, b"", False, is_remote_frame=True, dlc=4),
        Frame(0x123, b"", True, is_remote_frame=True, dlc=0),
    ]


def test_frames_in():
    rig = Rig()
    for frame in (
        Frame(0x12, b"\xab", False),
        Frame(0x12345678, b"\x01\x02"),
        Frame(0x13, b"", False, is_remote_frame=True, dlc=8),
        Frame(0x14, b"", True, is_remote_frame=True, dlc=2),
    ):
        rig.peer.send(frame)
    assert rig.run() == b"t0121AB\rT1234567820102\rr0138\rR000000142\r"


def test_fd_frames_both_ways():
    rig = Rig(data_bitrate=2_000_000, opened=False)
    assert rig.feed(b"S6\rY2\rY5\rO\r") == OK + OK + BEL + OK
    data = bytes(range(12))
    text = data.hex().upper().encode()
    answers = rig.feed(b"d1239%s\rD000001239%s\rb1239%s\rB000001239%s\r" % ((text,) * 4))
    assert answers == b"z\rZ\rz\rZ\r"
    rig.run()
    assert [(f.is_extended_id, f.bitrate_switch) for f in rig.got] == [
        (False, False), (True, False), (False, True), (True, True),
    ]  # fmt: skip
    assert all(frame.data == data and frame.is_fd and frame.dlc == 12 for frame in rig.got)
    for frame in rig.got:
        rig.peer.send(frame)
    assert rig.run() == b"d1239%s\rD000001239%s\rb1239%s\rB000001239%s\r" % ((text,) * 4)
    assert rig.feed(b"b123F%s\r" % (b"00" * 63)) == BEL


def test_timestamps():
    rig = Rig(opened=False)
    rig.feed(b"Z1\rO\r")
    rig.bus.run_until(61_234_000_000)
    rig.peer.send(Frame(1, b"", False))
    assert rig.run() == b"t001004D2\r"  # 61234 ms mod 60000 = 1234


def test_listen_only_hears_but_does_not_speak():
    rig = Rig(opened=False)
    third = rig.bus.attach("third")
    rig.feed(b"L\r")
    rig.peer.send(Frame(1, b"", False))
    assert rig.run() == b"t0010\r"
    assert rig.feed(b"t0020\r") == BEL
    third.online = False
    rig.peer.send(Frame(1, b"", False))
    assert rig.run() == b"" and rig.peer.errors > 0  # a listener does not acknowledge


def test_loopback_stays_off_the_bus():
    rig = Rig(opened=False)
    assert rig.feed(b"l\rt00111\r") == OK + BEL
    assert rig.feed(b"t0011AB\r") == b"t0011AB\rz\r"
    rig.run()
    assert rig.got == []


def test_auto_poll_off():
    rig = Rig(opened=False)
    rig.feed(b"X0\rO\r")
    for number in range(3):
        rig.peer.send(Frame(number, b"", False))
    assert rig.run() == b""
    assert rig.feed(b"P\r") == b"t0000\r"
    assert rig.feed(b"A\r") == b"t0010\rt0020\rA\r"
    assert rig.feed(b"P\r") == OK
    assert rig.feed(b"t1230\r") == OK


def test_full_fifo_gives_bel_and_flag():
    rig = Rig(tx_fifo=2)
    assert rig.feed(b"t0010\r" * 3) == b"z\rz\r" + BEL
    assert rig.feed(b"F\r") == b"F02\r"
    rig.run()
    assert rig.feed(b"F\rt0010\r") == b"F00\rz\r"


def test_hold_waits_for_room():
    rig = Rig(tx_fifo=2)
    assert rig.feed(b"t0010\rt0020\rt0030\rV\r", hold=True) == b"z\rz\r" and rig.device.held
    rig.run()
    assert rig.feed(b"", hold=True) == b"z\rV1013\r" and not rig.device.held
    rig.run()
    assert len(rig.got) == 3
    # given up instead
    rig.peer.online = False
    rig.feed(b"t0010\rt0020\rt0030\r", hold=True)
    assert rig.device.held
    assert rig.feed(b"", hold=False) == BEL


def test_error_flags():
    rig = Rig()
    rig.peer.online = False  # nobody acknowledges
    rig.feed(b"t0010\r")
    rig.run(100)
    # error warning, error passive, bus error
    assert rig.feed(b"F\r") == b"FA4\r"


def test_node_port_confirms_on_the_wire():
    rig = Rig(confirm="transmitted", tx_fifo=2)
    assert rig.feed(b"T000000100\rt0110\rt0120\r") == BEL
    assert rig.run() == b"Z\rz\r"


def test_node_port_reports_its_state():
    rig = Rig(confirm="transmitted")
    rig.bus.faults.add({"kind": "disturb", "sender": "adapter"})
    rig.feed(b"t0010\r")
    assert rig.run(100) == b"sp000128\rsb000256\r"
    assert rig.controller.state == BUS_OFF
    rig.bus.faults.clear()
    # closing drops the frame, opening asks for recovery
    assert rig.feed(b"C\rO\r") == OK + OK
    assert rig.run(100) == b"sa000000\r"
    rig.feed(b"t0020\r")
    assert rig.run() == b"z\r" and [frame.arbitration_id for frame in rig.got] == [2]


def test_channel_callback():
    rig = Rig(opened=False)
    seen = []
    rig.device.on_channel = seen.append
    rig.feed(b"O\rC\rL\r")
    rig.device.power_cycle()
    assert seen == [True, False, True, False]


def test_wrong_rate_hears_nothing():
    rig = Rig(opened=False)
    third = rig.bus.attach("third")
    heard = []
    third.on_receive = lambda frame, time: heard.append(frame)
    rig.feed(b"S5\rO\r")
    rig.peer.send(Frame(1, b"", False))
    assert rig.run(100) == b"" and len(heard) == 1 and rig.bus.error_frames == 16
    # BTR0 = 0, BTR1 = 1C: 8 MHz / 16 quanta = 500 kbit/s
    rig.feed(b"C\rs001C\rO\r")
    assert rig.controller.right_rate


def test_slow_host_loses_the_oldest_frames_only():
    rig = Rig(rx_limit=10)
    rig.feed(b"V\r")
    for number in range(25):
        rig.peer.send(Frame(number, b"", False))
    rig.bus.run_until(100_000_000)
    text = rig.device.take()
    assert text == b"".join(b"t%03X0\r" % number for number in range(15, 25))
    assert rig.device.overruns == 15
    assert rig.feed(b"F\r") == b"F09\r"


def test_host_that_never_reads_does_not_eat_memory():
    rig = Rig(rx_limit=10)
    for _ in range(1000):
        rig.device.accept(b"V\r")
    assert len(rig.device.take()) == 20 * len(b"V1013\r")


def test_fragmented_and_joined_input():
    rig = Rig()
    assert rig.feed(b"t12") == b""
    assert rig.feed(b"31A") == b""
    assert rig.feed(b"A\rt1230\r\nV\r") == b"z\rz\rV1013\r"


def test_overlong_line_is_one_error():
    rig = Rig()
    assert rig.feed(b"T" * 5000) == b""
    assert rig.feed(b"T" * 5000 + b"\rV\r") == BEL + b"V1013\r"


def test_garbage_never_raises():
    rng = random.Random(7)
    rig = Rig()
    alphabet = b"\r\r\r\rtTrRdDbBOCLlSsZzXWMmFPAVvNQUYf0123456789abcdefABCDEF \n\x00\xff"
    for number in range(3000):
        size = rng.randrange(1, 40)
        data = rng.randbytes(size) if number % 3 else bytes(rng.choices(alphabet, k=size))
        answer = rig.feed(data)
        # every line is answered, with CR or BEL at its end
        assert len(re.findall(rb"[\r\a]", answer)) >= data.count(b"\r") - 1
        assert not answer or answer[-1:] in b"\r\a"
        if number % 50 == 0:
            rig.run()
    rig.feed(b"\rC\r")
    assert rig.feed(b"V\r") == b"V1013\r"


def test_id_filters():
    rig = Rig()
    assert rig.feed(b"f8000000580000FF\r") == BEL
    assert rig.feed(b"f80000005000000FF\rf00000123000007FF\r") == OK + OK
    for frame in (Frame(0x1105), Frame(0x1106), Frame(0x123, b"", False), Frame(0x105, b"", False)):
        rig.peer.send(frame)
    assert sorted(rig.run().split()) == [b"T000011050", b"t1230"]
    assert rig.feed(b"f\r") == OK
    rig.peer.send(Frame(0x1106))
    assert rig.run() == b"T000011060\r"


def acceptance(code, mask, single):
    rule = Acceptance()
    rule.code, rule.mask, rule.single = code, mask, single
    return lambda ident, data=b"", extended=False, remote=False: rule.accepts(
        Frame(ident, data, extended, is_remote_frame=remote, dlc=len(data))
    )


def test_single_filter_standard():
    """ACR0 = ID.10..3, ACR1 = ID.2..0 and RTR, ACR2 and ACR3 the first two data bytes."""
    passes = acceptance(0x123 << 21, 0x000FFFFF, True)
    assert passes(0x123) and not passes(0x122) and not passes(0x123, remote=True)
    passes = acceptance(0x123 << 21 | 0xAB12, 0x001F0000, True)
    assert passes(0x123, b"\xab\x12\x99") and not passes(0x123, b"\xab\x13")
    assert passes(0x123, b"\xab") and passes(0x123, b"") and not passes(0x123, b"\xac")


def test_single_filter_extended():
    passes = acceptance(0x1234567A << 3, 0x00000007, True)
    assert passes(0x1234567A, extended=True) and not passes(0x1234567B, extended=True)
    passes = acceptance(0x1234567A << 3, 0x00000003, True)
    assert not passes(0x1234567A, extended=True, remote=True)


def test_dual_filter_standard():
    """Two IDs; filter 1 looks at the first data byte, too, split over ACR1 and ACR3."""
    code = (0x123 << 5 | 0xA) << 16 | 0x456 << 5 | 0xB
    passes = acceptance(code, 0, False)
    assert passes(0x123, b"\xab") and not passes(0x123, b"\xac") and passes(0x456, b"\x00")
    assert not passes(0x124, b"\xab") and not passes(0x457)
    assert passes(0x123) and not passes(0x456, remote=True)


def test_dual_filter_extended_compares_id_28_to_13():
    code = (0x1234567A >> 13) << 16 | 0x0ABCDEF0 >> 13
    passes = acceptance(code, 0, False)
    assert passes(0x1234567A, extended=True) and passes(0x0ABCDEF0, extended=True)
    assert passes(0x1234567A ^ 0x1FFF, extended=True)
    assert not passes(0x1234567A ^ 0x2000, extended=True)


def test_acceptance_by_command():
    rig = Rig(opened=False)
    rig.feed(b"W1\rM24600000\rm001FFFFF\rO\r")
    rig.peer.send(Frame(0x123, b"", False))
    rig.peer.send(Frame(0x124, b"", False))
    assert rig.run() == b"t1230\r"


def test_format_is_not_confused_by_equal_frames():
    first = Frame(1, b"\x01", False)
    assert format_frame(first) == b"t001101"
    assert format_frame(Frame(1, b"\x02", False)) == b"t001102"
    assert format_frame(first) == b"t001101"


def test_fd_commands_without_fd():
    """A classic adapter refuses the data rate and FD frames; so does any on a classic bus."""
    bus = Bus(data_bitrate=2_000_000)
    device = SlcanDevice(bus.attach("old", fd_support="classic"))
    assert (
        device.feed(b"S6\rY2\rO\rd0018%s\rb0018%s\rt0010\r" % ((b"00" * 8,) * 2)) == OK + BEL + OK + BEL + BEL + b"z\r"
    )
    device = SlcanDevice(Bus().attach("any"))
    assert device.feed(b"S6\rY2\rY5\rO\rd0010\r") == OK + BEL + BEL + OK + BEL
