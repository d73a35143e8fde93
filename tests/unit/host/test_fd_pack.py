"""CAN FD from channel to bus log: a whole pack in one process, the same records in one frame each."""

import io

import pytest

from app_bench import AppBench
from packtrust import Channel
from packtrust.arbitration import ENCRYPTED, base_of, compose
from packtrust.channel import OPENED
from packtrust.frame import Frame
from packtrust.handshake import INITIATOR, RESPONDER
from packtrust.messages.table import STATE_ON
from packtrust.policy import DEFAULT_POLICY
from packtrust.record import OVERHEAD
from packtrust_host.app.command import OBEYED
from packtrust_host.app.node import AppNode
from packtrust_host.sim import can_bits
from packtrust_host.sim.bus import Bus
from packtrust_host.sim.inprocess import InProcessPack
from packtrust_host.sim.server import CandumpLog
from packtrust_node.can_slcan import SlcanCan
from packtrust_node.txqueue import TxQueue

FD_PLAINTEXT_MAX = 36
CITED_PLAINTEXT_MAX = 32


class FdBench(AppBench):
    """An AppBench whose app has CAN FD on the VCU bus, too."""

    def restart_app(self):
        node = super().restart_app()
        if self.pack.vcu.data_bitrate is not None:
            node._fd = True
        return node


def watch(bus):
    seen = []
    bus.listeners.append(lambda frame, sender, start, end: seen.append((frame, sender)))
    return seen


def commissioned(tmp_path, modules=2, **options):
    return FdBench(tmp_path, pack=InProcessPack(modules, 1, **options))


def test_every_record_of_the_module_bus_is_one_fd_frame(tmp_path):
    bench = commissioned(tmp_path, fd=True)
    vcu, modules = watch(bench.pack.vcu), watch(bench.pack.module_bus)
    log = io.StringIO()
    CandumpLog(bench.pack.module_bus, log, "module")
    bench.commission()
    bench.pack.run_for(3000)
    records = [(frame, sender) for frame, sender in modules if frame.arbitration_id & ENCRYPTED]
    assert {sender for _, sender in records} == {"pack", "module1", "module2"}
    assert len(records) > 100
    for frame, _ in records:
        assert frame.is_fd and frame.bitrate_switch
        if DEFAULT_POLICY.is_sealable(base_of(frame.arbitration_id)):
            length = frame.arbitration_id >> 8 & 0xFF
            assert OVERHEAD < length <= len(frame.data) and not any(frame.data[length:])
    # What is no record stays classic: announcements, handshakes, provisioning, and the whole VCU bus.
    assert all(not frame.is_fd for frame, _ in modules if not frame.arbitration_id & ENCRYPTED)
    assert vcu and not any(frame.is_fd for frame, _ in vcu)
    assert bench.pack.module_bus.error_frames == 0
    now = bench.pack.now_ms
    assert len(bench.node.model.online(now)) == 2
    # FD frames in the log: ##, flags (1: bit rate switch), data of an FD length.
    lines = [line.split() for line in log.getvalue().splitlines()]
    marked = [text.split("##1") for _, _, text in lines if "##" in text]
    assert len(marked) == len([1 for frame, _ in modules if frame.is_fd])
    assert {len(data) // 2 for _, data in marked} <= set(can_bits.FD_LENGTHS)


def test_records_both_ways_and_commands_on_an_fd_vcu_bus(tmp_path):
    bench = commissioned(tmp_path, fd=True, vcu_fd=True)
    vcu = watch(bench.pack.vcu)
    bench.commission()
    assert bench.pack.run_until(lambda: len(bench.node.model.online(bench.pack.now_ms)) == 2, 10_000)
    command = bench.node.set_state(STATE_ON)
    assert bench.pack.run_until(lambda: command.done, 10_000)
    assert command.state == OBEYED, command.reason
    bench.pack.run_for(1000)
    records = [(frame, sender) for frame, sender in vcu if frame.arbitration_id & ENCRYPTED]
    assert {sender for _, sender in records} == {"app", "pack"}
    assert all(frame.is_fd for frame, _ in records)


def test_the_vcu_bus_alone(tmp_path):
    bench = commissioned(tmp_path, modules=1, vcu_fd=True)
    module = watch(bench.pack.module_bus)
    bench.commission()
    bench.pack.run_for(1000)
    assert any(frame.arbitration_id & ENCRYPTED for frame, _ in module)
    assert not any(frame.is_fd for frame, _ in module)


def test_a_module_with_a_classic_controller_spoils_an_fd_bus(tmp_path):
    """It destroys records of the others until it is error passive, again and again, and hears none.

    So `fd` must be off everywhere if one controller is classic.
    """
    bench = commissioned(tmp_path, fd=True, configs={"module2": {"fd": False}})
    reasons = []
    bench.pack.module_bus.error_listeners.append(lambda reason, senders, time: reasons.append((reason, senders)))
    bench.commission()
    bench.pack.run_for(5000)
    assert len(reasons) > 32
    assert {reason for reason, _ in reasons} == {"classic controller"}
    assert not any("module2" in senders for _, senders in reasons)
    channel = bench.pack.node("module2")._pack.channel
    assert channel is None or channel.stats[OPENED] == 0
    assert bench.pack.node("module1")._pack.channel.stats[OPENED] > 0


def test_a_node_power_cycled_on_fd_comes_back(tmp_path):
    bench = commissioned(tmp_path, fd=True)
    bench.commission()
    assert bench.pack.run_until(lambda: len(bench.node.model.online(bench.pack.now_ms)) == 2, 5000)
    bench.pack.power_cycle("module1", off_ms=3000)
    records = bench.pack.node("pack").slots[1].channel.stats[OPENED]
    assert bench.pack.run_until(lambda: bench.pack.node("pack").slots[1].channel.stats[OPENED] > records, 20_000)


class Link:
    """Two channels over an FD bus."""

    def __init__(self, fd=(True, True)):
        self.bus = Bus(500_000, 2_000_000)
        self.events = []
        self.frames = []
        ends = []
        for number, name in enumerate(("pack", "module")):
            channel = Channel(
                bytes(32), (INITIATOR, RESPONDER)[number], 5, lambda: self.bus.now_ns // 1_000_000,
                lambda count: bytes(range(count)), local=name, peer=("module", "pack")[number], fd=fd[number],
            )  # fmt: skip
            controller = self.bus.attach(name, tx_fifo=200)
            controller.on_receive = lambda frame, time, channel=channel: self.feed(channel, frame)
            ends.append((channel, controller))
        self.ends = dict(ends)
        self.initiator, self.responder = (channel for channel, _ in ends)
        self.bus.listeners.append(lambda frame, sender, start, end: self.frames.append((frame, end - start)))
        self.initiator.connect()
        self.flush(self.initiator)
        self.run()
        assert self.initiator.established and self.responder.established
        self.frames.clear()
        self.events.clear()

    def feed(self, channel, frame):
        event = channel.feed(frame)
        if event is not None:
            self.events.append((event.kind, bytes(event.data)))
        self.flush(channel)

    def flush(self, channel):
        for frame in channel.outgoing():
            self.send(channel, frame)

    def send(self, channel, frame):
        """As a driver does: its frames are the channel's until the next, and the rate switch is the driver's."""
        data = bytes(frame.data)
        sent = Frame(frame.arbitration_id, data, True, frame.is_fd, bitrate_switch=frame.is_fd)
        assert self.ends[channel].send(sent)

    def run(self):
        while (time := self.bus.next_event_ns()) is not None:
            self.bus.run_until(time)

    def seal(self, channel, base, data):
        """The frames `data` took, and the bus time of all in ns."""
        self.frames.clear()
        self.events.clear()
        for frame in channel.seal(compose(base, 5), data):
            self.send(channel, frame)
        self.flush(channel)
        self.run()
        assert self.events == [(OPENED, bytes(data))]
        return [frame for frame, _ in self.frames], sum(time + 3 * 2000 for _, time in self.frames)


TELEMETRY = next(base for base in range(0x500, 0x540) if DEFAULT_POLICY.is_sealable(base)
                 and not DEFAULT_POLICY.needs_citation(base))  # fmt: skip
CITED = next(base for base in range(0x500, 0x540) if DEFAULT_POLICY.is_sealable(base)
             and DEFAULT_POLICY.needs_citation(base))  # fmt: skip


def test_the_longest_plaintext_of_one_frame():
    link = Link()
    # A citation needs something to cite.
    link.seal(link.responder, TELEMETRY, bytes(8))
    for sender, base, limit in (
        (link.responder, TELEMETRY, FD_PLAINTEXT_MAX),
        (link.initiator, CITED, CITED_PLAINTEXT_MAX),
    ):
        for length in (1, 8, limit - 1, limit):
            frames, _ = link.seal(sender, base, bytes(range(length)))
            assert len(frames) == 1 and frames[0].is_fd
            record = length + OVERHEAD + 36 - limit
            assert frames[0].arbitration_id >> 8 & 0xFF == record <= len(frames[0].data)
        frames, _ = link.seal(sender, base, bytes(range(limit + 1)))
        assert len(frames) > 1 and all(frame.is_fd for frame in frames)
        assert len({frame.arbitration_id for frame in frames}) == 2  # ISO-TP and its flow control


@pytest.mark.parametrize("length", [37, 100, 300, 900])
def test_longer_records_go_by_isotp_over_fd(length):
    link = Link()
    frames, _ = link.seal(link.responder, TELEMETRY, bytes(number & 0xFF for number in range(length)))
    # ISO 15765-2:2016: 62 bytes in the first frame, 63 in each consecutive one, one flow control.
    payload = 4 + length + OVERHEAD
    assert len(frames) == 2 + -(-(payload - 62) // 63)
    assert all(frame.is_fd and len(frame.data) in can_bits.FD_LENGTHS for frame in frames)


def test_each_end_takes_what_the_other_sends():
    """`fd` is about sending: with classic controllers on the way from one end, the other one may still use FD."""
    link = Link(fd=(False, True))
    frames, _ = link.seal(link.responder, TELEMETRY, bytes(8))
    assert len(frames) == 1
    frames, _ = link.seal(link.initiator, CITED, bytes(8))
    assert len(frames) == 5 and not any(frame.is_fd for frame in frames)


def test_bus_time_of_a_record():
    """The figures of docs/virtual-pack.md: an 8-byte record at 500 kbit/s, CAN FD's data phase at 2 Mbit/s."""
    times = {}
    for fd in (False, True):
        link = Link(fd=(fd, fd))
        taken = [link.seal(link.responder, TELEMETRY, bytes([number] * 8))[1] for number in range(200)]
        times[fd] = sum(taken) / len(taken) / 1000
    print("record of 8 bytes: classic %.0f us, CAN FD %.0f us" % (times[False], times[True]))
    assert 1250 < times[False] < 1350
    assert 310 < times[True] < 340


class Wire:
    """A byte stream that takes everything and gives what it is given."""

    def __init__(self, answers):
        self.answers = answers
        self.written = b""

    def readinto(self, buffer):
        if not self.answers:
            return None
        count = len(self.answers)
        buffer[:count] = self.answers
        self.answers = b""
        return count

    def write(self, data):
        self.written += bytes(data)
        return len(data)


def test_the_slcan_driver_sends_a_record_with_the_rate_switch():
    wire = Wire(b"\r\r\a\r\r\r")
    driver = SlcanCan(wire, data_bitrate=2_000_000)
    driver.poll(0)
    assert driver.recv() is None and driver.state == "active" and driver.fd
    assert wire.written == b"\r\rC\rS6\rY2\rO\r"
    wire.written = b""
    queue = TxQueue(driver)
    queue.put(Frame(0x14820005, bytes(48), True, True))
    queue.pump(0)
    assert wire.written == b"B14820005E" + b"00" * 48 + b"\r"


def test_app_node_without_fd_stays_classic(tmp_path):
    bench = commissioned(tmp_path, modules=1)
    assert isinstance(bench.node, AppNode)
    vcu = watch(bench.pack.vcu)
    bench.commission()
    assert not any(frame.is_fd for frame, _ in vcu)
