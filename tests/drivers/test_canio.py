"""The canio driver and SPI by busio against stand-ins for CircuitPython's modules (circuitpython_modules.py)."""

from drivers.circuitpython_modules import CAN, MODULE, BusState, EspCAN
from drivers.mcp2515_chip import Chip
from drivers.stm32_modules import load
from packtrust.frame import Frame
from packtrust_node.can_mcp2515 import Mcp2515
from packtrust_node.can_slcan import MODULE_ACCEPT
from packtrust_node.can_spi import BusioSpi
from packtrust_node.txqueue import TxQueue
from portable import raises

clock_ns = [0]


def ready(kind=CAN, baudrate=500000, **options):
    """The module's object and the driver."""
    driver = load("can_canio", canio=MODULE, time={"monotonic_ns": lambda: clock_ns[0]})
    can = kind("tx", "rx", baudrate=baudrate)
    return can, driver.CanioCan(can, **options)


def idents(driver):
    found = []
    while True:
        frame = driver.recv()
        if frame is None:
            return found
        found.append(frame.arbitration_id)


def test_frames_of_both_kinds_are_sent_and_received():
    can, driver = ready()
    assert driver.state == "active" and not driver.fd and not driver.orders_by_id and driver.stream is None
    assert can.listeners[0].timeout == 0
    assert driver.send(Frame(0x1555AAAA, memoryview(b"12345678")))
    assert can.leave() == (0x1555AAAA, True, False, b"12345678")
    assert driver.send(Frame(0x2A5, b"", is_extended_id=False)) and can.leave() == (0x2A5, False, False, b"")
    assert driver.send(Frame(0x12, b"", is_remote_frame=True, dlc=5)) and can.leave() == (0x12, True, True, 5)
    can.arrive(0x1FFFFFFF, b"abc")
    can.arrive(0x7FF, b"12345678", False)
    can.arrive(0x15, 4, True, True)
    frame = driver.recv()
    assert (frame.arbitration_id, frame.is_extended_id, bytes(frame.data)) == (0x1FFFFFFF, True, b"abc")
    frame = driver.recv()
    assert (frame.arbitration_id, frame.is_extended_id, bytes(frame.data)) == (0x7FF, False, b"12345678")
    frame = driver.recv()
    assert frame.is_remote_frame and frame.dlc == 4 and frame.data == b""
    assert driver.recv() is None and driver.counters["received"] == 3 and driver.counters["sent"] == 3


def test_can_fd_and_long_frames_are_refused_not_kept():
    can, driver = ready()
    assert driver.send(Frame(1, bytes(12), is_fd=True)) and driver.send(Frame(1, bytes(9)))
    assert driver.counters["refused"] == 2 and can.leave() is None


def test_order_and_full_queue():
    can, driver = ready()
    assert [driver.send(Frame(at, b"")) for at in range(4)] == [True, True, True, False]
    can.queue = []
    queue = TxQueue(driver)
    for at in range(60):
        queue.put(Frame(0x14400005 | (at % 5) << 12, bytes((at,))))
    gone = []
    now = 0
    while len(gone) < 60:
        queue.pump(now)
        gone.append(can.leave()[3][0])
        now += 1
    assert gone == list(range(60))


def test_queue_that_drops_silently_is_not_overfilled():
    can, driver = ready(EspCAN, queue=5)
    queue = TxQueue(driver)
    for at in range(60):
        queue.put(Frame(0x14400005, bytes((at,))))
    gone = []
    while len(gone) < 60:
        queue.pump(clock_ns[0] // 1000000)
        assert can.vanished == 0 and driver.pending() <= 5
        # A frame of 160 bits takes 320 microseconds; the bus is ours.
        clock_ns[0] += 320000
        left = can.leave()
        if left is not None:
            gone.append(left[3][0])
    assert gone == list(range(60))


def test_filters_let_through_exactly_what_is_asked():
    many = tuple([(at, 0x7FF) for at in range(0x100, 0x110)])
    for kind in (CAN, EspCAN):
        for accept, nodes in ((MODULE_ACCEPT, ()), (MODULE_ACCEPT, (0, 5, 255)), (None, (0, 5)), (many, (1,))):
            can, driver = ready(kind)
            driver.filters(accept)
            driver.accept_nodes(nodes)
            received = 0
            for base in (0x0FF, 0x100, 0x10F, 0x110, 0x50F, 0x510, 0x51F, 0x520, 0x53F, 0x540):
                for node in (0, 1, 5, 31, 255):
                    ident = base << 18 | 0x2A500 | node
                    taken = (accept is None or any([base & mask == code for code, mask in accept])) and (
                        not nodes or node in nodes
                    )
                    can.arrive(ident, b"")
                    can.arrive(base, b"", False)
                    assert idents(driver) == ([ident] if taken else [])
                    received += taken
            assert driver.counters["received"] == received > 0
            driver.filters(None)
            driver.accept_nodes(None)
            assert can.arrive(0x123, b"", False) and idents(driver) == [0x123]


def test_error_states_bus_off_and_recovery():
    can, driver = ready()
    now = 0
    for status, state in (
        (BusState.ERROR_WARNING, "warning"),
        (BusState.ERROR_PASSIVE, "passive"),
        (BusState.ERROR_ACTIVE, "active"),
    ):
        can.state = status
        can.transmit_error_count = now
        now += 100
        driver.poll(now)
        assert driver.state == state and driver.counters["tec"] == now - 100
    can.state = BusState.BUS_OFF
    now += 100
    driver.poll(now)
    assert driver.state == "bus-off" and driver.counters["bus_off"] == 1 and not driver.send(Frame(2, b""))
    begin = now
    while driver.state == "bus-off":
        now += driver.poll(now)
        assert now < begin + 1000
    assert now >= begin + 200 and can.restarts == 1
    assert driver.send(Frame(2, b"new")) and can.leave()[3] == b"new"


class Busio:
    """`busio.SPI`: usable between try_lock and unlock only."""

    def __init__(self, chip):
        self.chip = chip
        self.locked = False
        self.configured = None

    def try_lock(self):
        taken = not self.locked
        self.locked = True
        return taken

    def configure(self, *, baudrate=100000, polarity=0, phase=0, bits=8):
        assert self.locked
        self.configured = baudrate, polarity, phase

    def write_readinto(self, out_buffer, in_buffer, *, out_start=0, out_end=None, in_start=0, in_end=None):
        assert self.locked
        self.chip.write_readinto(out_buffer, in_buffer)


class Output:
    """`digitalio.DigitalInOut` at chip select."""

    def __init__(self, chip):
        self.chip = chip

    def switch_to_output(self, value=False):
        self.value = value

    def __setattr__(self, name, value):
        if name == "value":
            self.chip(1 if value else 0)
        else:
            object.__setattr__(self, name, value)


def test_mcp2515_behind_busio():
    chip = Chip()
    bus = Busio(chip)
    driver = Mcp2515(BusioSpi(bus, Output(chip), 8000000))
    assert bus.configured == (8000000, 0, 0)
    now = 0
    while driver.state == "opening":
        now += driver.poll(now)
    chip.arrive(0x14400005, b"12345678")
    assert idents(driver) == [0x14400005]
    assert driver.send(Frame(1, b"abc")) and chip.leave()[3] == b"abc"
    assert "bus of its own" in str(raises(RuntimeError, BusioSpi, bus, Output(chip)))
