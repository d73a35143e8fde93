"""The real-time server: what programs see of a virtual adapter, and nodes of their port."""

import asyncio
import fcntl
import io
import json
import os
import pty
import queue
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from itertools import pairwise

import can
import pytest

from packtrust.frame import Frame
from packtrust_host.sim import can_bits
from packtrust_host.sim.server import CandumpLog, ServerThread, VirtualBusServer, candump_text

LIMIT = 20  # seconds until a wait has failed


@pytest.fixture
def thread():
    with ServerThread(seed=1) as running:
        running.call(running.server.add_bus, "vcu")
        yield running


class Peer:
    """A plain node on the bus, in the server's process; frames received come through a queue."""

    def __init__(self, thread, bus="vcu", name="peer"):
        self.thread = thread
        self.queue = queue.Queue()
        self.controller = thread.call(lambda: thread.server.runtime(bus).bus.attach(name, tx_fifo=5000))
        self.controller.on_receive = lambda frame, when: self.queue.put((when, frame))

    def send(self, *frames):
        for frame in frames:
            assert self.thread.call(self.thread.server.send, self.controller, frame)

    def get(self):
        return self.queue.get(timeout=LIMIT)[1]


def adapter(thread, **options):
    return thread.call(thread.server.add_pty, "vcu", **options)


def channel_event(port, wanted=True):
    event = threading.Event()
    port.device.on_channel = lambda opened: event.set() if opened == wanted else None
    return event


def connect(thread, port):
    """python-can's own slcan interface, and the channel really open."""
    event = channel_event(port)
    bus = can.Bus(interface="slcan", channel=port.path, bitrate=500_000, sleep_after_open=0)
    assert event.wait(LIMIT)
    return bus


def read_until(fd, enough, limit=LIMIT):
    data = b""
    end = time.monotonic() + limit
    while not enough(data):
        left = end - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            raise AssertionError("waited in vain after %r" % data[-200:])
        data += os.read(fd, 65536)
    return data


def same(message, frame):
    return (
        message.arbitration_id == frame.arbitration_id
        and message.is_extended_id == frame.is_extended_id
        and message.is_remote_frame == frame.is_remote_frame
        and bytes(message.data) == bytes(frame.data)
        and message.dlc == frame.dlc
    )


FRAMES = [
    Frame(0x123, b"\x01\x02\x03", False),
    Frame(0x1ABCDEF0, bytes(range(8))),
    Frame(0x7FF, b"", False, is_remote_frame=True, dlc=5),
    Frame(0x1FFFFFFF, b"", True, is_remote_frame=True, dlc=0),
    Frame(0, b"", False),
]


def test_python_can_slcan_both_ways(thread):
    port = adapter(thread)
    peer = Peer(thread)
    with connect(thread, port) as bus:
        assert bus.get_version(LIMIT) == (10, 13)
        assert bus.get_serial_number(LIMIT) == "P001"
        for frame in FRAMES:
            bus.send(
                can.Message(
                    arbitration_id=frame.arbitration_id,
                    is_extended_id=frame.is_extended_id,
                    is_remote_frame=frame.is_remote_frame,
                    dlc=frame.dlc,
                    data=None if frame.is_remote_frame else frame.data,
                )
            )
            assert peer.get() == frame
        peer.send(*FRAMES)
        got = [receive(bus) for _ in FRAMES]
        assert all(same(message, frame) for message, frame in zip(got, FRAMES, strict=True))


def receive(bus):
    """The next frame; python-can returns None for each answer line, too."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        message = bus.recv(timeout=end - time.monotonic())
        if message is not None:
            return message
    raise AssertionError("no frame came")


def test_python_can_fd(thread):
    thread.call(thread.server.add_bus, "fd", 500_000, 2_000_000)
    port = thread.call(thread.server.add_pty, "fd")
    peer = Peer(thread, "fd")
    event = channel_event(port)
    timing = can.BitTimingFd.from_sample_point(
        f_clock=80_000_000,
        nom_bitrate=500_000,
        nom_sample_point=80,
        data_bitrate=2_000_000,
        data_sample_point=80,
    )
    with can.Bus(interface="slcan", channel=port.path, timing=timing, sleep_after_open=0) as bus:
        assert event.wait(LIMIT)
        data = bytes(range(64))
        bus.send(can.Message(arbitration_id=5, data=data, is_fd=True, bitrate_switch=True, dlc=64))
        frame = peer.get()
        assert frame == Frame(5, data, True, True) and frame.bitrate_switch
        peer.send(frame)
        message = receive(bus)
        assert message.is_fd and message.bitrate_switch and bytes(message.data) == data


def test_burst_without_reader_does_not_deadlock(thread):
    """2000 frames sent before anything is read: none lost, nobody blocks."""
    port = adapter(thread)
    peer = Peer(thread)
    with connect(thread, port) as bus:
        for number in range(2000):
            bus.send(can.Message(arbitration_id=number, data=number.to_bytes(8, "big")))
        got = [peer.get() for _ in range(2000)]
        assert [frame.arbitration_id for frame in got] == list(range(2000))
        # and as many the other way, with a reader that comes late
        for number in range(2000):
            peer.send(Frame(number, b"back"))
        numbers = [receive(bus).arbitration_id for _ in range(2000)]
        assert numbers == list(range(2000))


def test_reader_that_never_comes_loses_the_oldest(thread):
    port = adapter(thread, rx_limit=100)
    peer = Peer(thread)
    other = Peer(thread, name="other")
    with connect(thread, port) as bus:
        total = 5000
        for start in range(0, total, 500):
            peer.send(*[Frame(number, bytes(8)) for number in range(start, start + 500)])
            for _ in range(500):
                other.get()  # the bus and everybody else go on
        lost = thread.call(lambda: port.device.overruns)
        assert lost > 0
        got = [receive(bus).arbitration_id for _ in range(total - lost)]
        assert got[-1] == total - 1 and got == sorted(set(got))


def test_nobody_has_it_open_then_no_stale_data(thread):
    """Output is dropped while the terminal is closed; who opens it next starts clean."""
    port = adapter(thread)
    peer = Peer(thread)
    other = Peer(thread, name="other")
    event = channel_event(port)
    first = os.open(port.path, os.O_RDWR | os.O_NOCTTY)
    os.write(first, b"S6\rO\r")
    assert event.wait(LIMIT)
    peer.send(Frame(1, b"early"))
    other.get()
    os.close(first)  # with the answers and a frame unread
    peer.send(*[Frame(2, b"late")] * 50)
    for _ in range(50):
        other.get()
    second = os.open(port.path, os.O_RDWR | os.O_NOCTTY)
    os.write(second, b"V\r")
    assert read_until(second, lambda data: b"V1013\r" in data) == b"V1013\r"
    # the channel stayed open, as on a real adapter
    peer.send(Frame(3, b"now"))
    assert read_until(second, lambda data: data.endswith(b"\r")) == b"T0000000336E6F77\r"
    os.close(second)


def test_no_acknowledge_refuses_instead_of_hanging(thread):
    """Alone on the bus the FIFO never empties: the host is held for a moment, then gets BEL."""
    port = adapter(thread, tx_fifo=4)
    event = channel_event(port)
    fd = os.open(port.path, os.O_RDWR | os.O_NOCTTY)
    os.write(fd, b"S6\rO\r")
    assert event.wait(LIMIT)
    os.write(fd, b"t0010\r" * 10)
    data = read_until(fd, lambda data: data.count(b"\a") >= 6)
    assert data.count(b"z\r") == 4
    counters = thread.call(thread.server.statistics)["buses"]["vcu"]["controllers"][port.name]
    assert counters["state"] == "error_passive" and counters["pending"] == 4
    os.close(fd)


def test_unplug_and_replug(thread, tmp_path):
    link = tmp_path / "ttyCAN0"
    port = adapter(thread, name="usb", link=link)
    peer = Peer(thread)
    other = Peer(thread, name="other")
    bus = connect(thread, port)
    assert os.path.islink(link)
    thread.call(thread.server.unplug, "usb")
    assert not os.path.lexists(link)
    with pytest.raises(can.CanOperationError):
        receive(bus)
    with pytest.raises(can.CanError):
        bus.send(can.Message(arbitration_id=1))
    with pytest.raises(can.CanError):
        bus.shutdown()
    bus.serialPortOrig.close()
    with pytest.raises(can.CanError):
        can.Bus(interface="slcan", channel=os.fspath(link), sleep_after_open=0)
    peer.send(Frame(1, b"others go on"[:8]))
    assert other.get().data == b"others g"
    thread.call(thread.server.replug, "usb")
    with connect(thread, port) as bus:
        peer.send(Frame(2, b"back"))
        assert receive(bus).arbitration_id == 2


def run_tool(*arguments, **options):
    environment = dict(os.environ, PYTHONUNBUFFERED="1", TERM="xterm", LINES="40", COLUMNS="120")
    return subprocess.Popen([sys.executable, "-m", *arguments], env=environment, **options)


def test_can_logger(thread):
    """``can_logger -i slcan`` unchanged."""
    port = adapter(thread)
    peer = Peer(thread)
    event = channel_event(port)
    with run_tool(
        "can.logger", "-i", "slcan", "-c", port.path, "-b", "500000",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as tool:  # fmt: skip
        assert event.wait(LIMIT)
        peer.send(*FRAMES[:2])
        text = read_until(tool.stdout.fileno(), lambda data: b"00 01 02 03 04 05 06 07" in data)
        tool.send_signal(signal.SIGINT)
        tool.wait(LIMIT)
    lines = [line for line in text.decode().splitlines() if " DL:" in line]
    assert len(lines) == 2
    assert "ID:      123    S" in lines[0] and "01 02 03" in lines[0]
    assert "ID: 1abcdef0    X" in lines[1]


def test_can_player(thread, tmp_path):
    """``can_player`` sends a candump log that another bus wrote."""
    port = adapter(thread)
    peer = Peer(thread)
    log = tmp_path / "play.log"
    log.write_text(
        "".join(
            "(%d.%06d) can0 %s\n" % (100, 1000 * number, candump_text(frame)) for number, frame in enumerate(FRAMES)
        )
    )
    with run_tool("can.player", "-i", "slcan", "-c", port.path, "-b", "500000", str(log)) as tool:
        got = [peer.get() for _ in FRAMES]
        assert tool.wait(LIMIT) == 0
    assert got == FRAMES


def test_can_viewer(thread):
    """``can_viewer`` under a terminal of its own shows the frame and quits on q."""
    port = adapter(thread)
    peer = Peer(thread)
    event = channel_event(port)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    with run_tool(
        "can.viewer", "-i", "slcan", "-c", port.path, "-b", "500000",
        stdin=slave, stdout=slave, stderr=slave, close_fds=True,
    ) as tool:  # fmt: skip
        os.close(slave)
        # It draws nothing until the channel is up; keep its terminal drained meanwhile.
        assert event.wait(LIMIT)
        peer.send(Frame(0x1ABCDEF0, b"\xca\xfe"))
        screen = read_until(master, lambda data: b"0x1ABCDEF0" in data and b"CA FE" in data)
        os.write(master, b"q")
        drain_until_exit(master, tool)
    os.close(master)
    assert tool.returncode == 0, screen[-300:]


def drain_until_exit(fd, tool):
    try:
        read_until(fd, lambda data: tool.poll() is not None)
    except OSError:  # EIO: the tool has closed its terminal
        tool.wait(LIMIT)


def node_pair(thread, **options):
    ours, theirs = socket.socketpair()
    port = thread.call(thread.server.add_fd, "vcu", ours.detach(), **options)
    theirs.settimeout(LIMIT)
    return port, theirs


def read_socket(sock, enough):
    data = b""
    while not enough(data):
        more = sock.recv(65536)
        assert more, "the server closed the port after %r" % data[-100:]
        data += more
    return data


def test_what_a_node_says_byte_by_byte_is_gathered(thread):
    port, node = node_pair(thread, name="slow", gather_s=0.05)
    peer = Peer(thread)
    looked = []
    accept = port.device.accept
    port.device.accept = lambda data=b"", hold=False: looked.append(data) or accept(data, hold=hold)
    said = b"S6\rO\rT0000000220102\r"
    for byte in said:
        node.sendall(bytes((byte,)))
    assert peer.get() == Frame(2, b"\x01\x02")
    assert b"".join(looked) == said and len(looked) < len(said) // 2
    closed = threading.Event()
    port.on_closed = closed.set
    node.sendall(b"T000000030\r")
    node.close()
    assert peer.get() == Frame(3, b"")
    assert closed.wait(LIMIT)


def test_node_port_confirms_transmission(thread):
    _, node = node_pair(thread, name="pack")
    peer = Peer(thread)
    node.sendall(b"S6\rO\rT0000000120\r")  # two bytes announced, half a one given
    assert read_socket(node, lambda data: b"\a" in data) == b"\r\r\a"
    node.sendall(b"T0000000220102\r")
    assert read_socket(node, lambda data: b"Z" in data) == b"Z\r"
    assert peer.get() == Frame(2, b"\x01\x02")
    witness = Peer(thread, name="witness")
    thread.call(thread.server.unplug, "pack")
    node.sendall(b"T000000030\r")
    peer.send(Frame(9, b"unheard"))
    # Acknowledged, or the peer would rightly send it again to the node that is back.
    assert witness.get() == Frame(9, b"unheard")
    thread.call(thread.server.replug, "pack")
    assert peer.get() == Frame(3, b"")
    peer.send(Frame(10, b""))
    assert read_socket(node, lambda data: b"T0000000A" in data) == b"Z\rT0000000A0\r"


def test_node_that_ends_leaves_the_bus(thread):
    port, node = node_pair(thread, name="pack")
    closed, opened = threading.Event(), channel_event(port)
    port.on_closed = closed.set
    node.sendall(b"O\r")
    assert opened.wait(LIMIT)
    node.close()
    assert closed.wait(LIMIT)
    assert not thread.call(lambda: port.controller.on_bus)
    thread.call(thread.server.remove, "pack")
    port, node = node_pair(thread, name="pack")  # the name is free for its successor
    peer = Peer(thread)
    opened = channel_event(port)
    node.sendall(b"O\r")
    assert opened.wait(LIMIT)
    peer.send(Frame(1, b"hi"))
    assert read_socket(node, lambda data: data.endswith(b"6869\r")) == b"\rT0000000126869\r"


@pytest.mark.realtime
def test_real_time_throughput_is_the_computed_one(thread):
    """A saturated adapter: frames per bus second within 1 % of what the bits say, and bus time
    passes like the clock's."""
    port = adapter(thread, tx_fifo=1000)
    bus = thread.call(lambda: thread.server.runtime("vcu").bus)
    done, times = threading.Event(), []
    rng = random.Random(4)
    frames = [Frame(rng.getrandbits(29), rng.randbytes(8)) for _ in range(3000)]

    def listen(frame, sender, start, end):
        times.append((start, end))
        if len(times) == len(frames):
            done.set()

    bus.listeners.append(listen)
    Peer(thread)
    text = b"S6\rO\r" + b"".join(b"T%08X8%s\r" % (frame.arbitration_id, frame.data.hex().encode()) for frame in frames)
    fd = os.open(port.path, os.O_RDWR | os.O_NOCTTY)
    began = time.monotonic()
    while text:
        text = text[os.write(fd, text) :]
    assert done.wait(LIMIT)
    elapsed = time.monotonic() - began
    os.close(fd)
    computed = sum(can_bits.encode(frame).nominal_bits for frame in frames) / 500_000
    measured = (times[-1][1] - times[0][0]) / 1e9
    assert measured == pytest.approx(computed, rel=0.01)
    assert elapsed >= computed * 0.99  # never faster than the wire


def test_late_service_does_not_shift_bus_time():
    """The loop sleeps over many frames: their times are those of the wire all the same."""

    class Clock:
        now = 10**15

        def __call__(self):
            return self.now

    async def scenario():
        clock = Clock()
        async with VirtualBusServer(clock=clock) as server:
            bus = server.add_bus("vcu")
            a = bus.attach("a", tx_fifo=100)
            b = bus.attach("b")
            times = []
            b.on_receive = lambda frame, when: times.append(when)
            clock.now += 5_000_000
            for _ in range(10):
                server.send(a, Frame(0, b"", False))
            clock.now += 1_000_000_000
            server.runtime("vcu").service()
            return times

    times = asyncio.run(scenario())
    assert len(times) == 10
    assert {after - before for before, after in pairwise(times)} == {53 * 2000}
    # ten sends at one moment of the clock; each service nudges bus time by a nanosecond
    assert times[0] == 5_000_000 + 50 * 2000


def control(path, *lines):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(LIMIT)
        client.connect(os.fspath(path))
        stream = client.makefile("rwb")
        answers = []
        for line in lines:
            stream.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
            stream.flush()
            answers.append(json.loads(stream.readline()))
        stream.close()
        return answers


def test_control_socket(thread, tmp_path):
    path = tmp_path / "control"
    thread.start_control(path)
    port = adapter(thread, name="usb")
    peer = Peer(thread)
    answers = control(
        path,
        {"command": "fault_add", "bus": "vcu", "fault": {"kind": "disturb", "count": 2}},
        {"command": "fault_add", "bus": "vcu", "fault": {"kind": "disturb", "count": "x"}},
        {"command": "fault_add", "bus": "nowhere", "fault": {"kind": "loss"}},
        {"command": "explode"},
        b"not json\n",
        b"[1]\n",
        {"command": "unplug", "port": "usb"},
        {"command": "replug", "port": "usb"},
        {"command": "unplug", "port": "nothing"},
        {"command": "ports"},
    )
    assert answers[0] == {"ok": True, "result": {"id": 1}}
    assert [answer["ok"] for answer in answers[1:]] == [False] * 5 + [True, True, False, True]
    assert "count" in answers[1]["error"] and "vcu" in answers[2]["error"]
    assert "fault_add" in answers[3]["error"] and "usb" in answers[8]["error"]
    assert answers[6]["result"]["plugged"] is False and answers[7]["result"]["plugged"] is True
    with connect(thread, port) as bus:
        peer.send(Frame(1, b"despite it"[:8]))
        assert receive(bus).arbitration_id == 1
    removed, statistics, stop = control(
        path,
        {"command": "fault_remove", "bus": "vcu", "id": 1},
        {"command": "statistics"},
        {"command": "stop"},
    )
    assert removed["result"]["hits"] == 2
    counters = statistics["result"]["buses"]["vcu"]
    assert counters["error_frames"] == 2 and counters["frames"] == 1
    assert 0 < counters["load"] < 0.1
    assert stop["ok"] and thread.call(thread.server.stopped.is_set)


def test_candump_log(thread, tmp_path):
    """python-can reads the log back; its times are those of the wire to the microsecond."""
    path = tmp_path / "bus.log"
    bus = thread.call(thread.server.add_bus, "logged", log=path)
    peer = Peer(thread, "logged")
    other = Peer(thread, "logged", name="other")
    ends = []
    bus.listeners.append(lambda frame, sender, start, end: ends.append(end))
    peer.send(*FRAMES)
    for _ in FRAMES:
        other.get()
    thread.call(thread.server.runtime("logged").log.close)
    messages = list(can.LogReader(path))
    assert all(same(message, frame) for message, frame in zip(messages, FRAMES, strict=True))
    assert {message.channel for message in messages} == {"logged"}
    for (first, second), (begin, end) in zip(pairwise(messages), pairwise(ends), strict=True):
        assert second.timestamp - first.timestamp == pytest.approx((end - begin) / 1e9, abs=2e-6)
    assert messages[0].timestamp == pytest.approx(time.time(), abs=60)


def test_candump_log_on_a_virtual_clock():
    from packtrust_host.sim.bus import Bus

    bus = Bus()
    a = bus.attach("a")
    bus.attach("b")
    file = io.StringIO()
    log = CandumpLog(bus, file, "vcan0")
    a.send(Frame(0, b"", False))
    bus.run_until(1_000_000)
    log.close()
    a.send(Frame(0, b"", False))
    bus.run_until(2_000_000)
    assert file.getvalue() == "(0.000100) vcan0 000#\n"
    fd = Frame(0x1F, b"\x01", True, True, False, True)
    assert candump_text(fd) == "0000001F##101"
    assert candump_text(Frame(1, b"", False, is_remote_frame=True, dlc=3)) == "001#R3"


def test_names_are_checked(thread):
    adapter(thread, name="usb")
    with pytest.raises(ValueError, match="usb"):
        adapter(thread, name="usb")
    with pytest.raises(ValueError, match="vcu"):
        thread.call(thread.server.add_bus, "vcu")
    with pytest.raises(KeyError, match="vcu"):
        thread.call(thread.server.add_pty, "nowhere")


def test_closing_ends_everything(tmp_path):
    link = tmp_path / "tty"
    with ServerThread() as thread:
        thread.call(thread.server.add_bus, "vcu")
        adapter(thread, link=link)
        _, node = node_pair(thread)
        thread.start_control(tmp_path / "control")
    assert not os.path.lexists(link) and not os.path.exists(tmp_path / "control")
    assert node.recv(1) == b""


def test_a_frame_that_nobody_acknowledges_is_repeated_at_wire_speed_and_costs_little(thread, monkeypatch):
    """Thousands of repeats a second are computed some dozens at a time; who comes gets the frame with the next one."""
    runtime = thread.call(lambda: thread.server.runtime("vcu"))
    looked = []
    service = runtime.service

    def counting():
        looked.append(time.monotonic())
        service()

    monkeypatch.setattr(runtime, "service", counting)
    alone = thread.call(lambda: runtime.bus.attach("alone"))
    enough = threading.Event()

    def on_error(cause, senders, when):
        if runtime.bus.error_frames >= 1000:
            enough.set()

    runtime.bus.error_listeners.append(on_error)
    assert thread.call(thread.server.send, alone, Frame(1, b"hi"))
    assert enough.wait(LIMIT)
    assert len(looked) < 100
    assert thread.call(runtime.time_ns) >= thread.call(lambda: runtime.bus.busy_ns)
    port = adapter(thread)
    bus = connect(thread, port)
    message = bus.recv(LIMIT)
    bus.shutdown()
    assert (message.arbitration_id, bytes(message.data)) == (1, b"hi")
