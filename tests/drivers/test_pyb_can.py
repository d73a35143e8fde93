"""The pyb.CAN driver against stand-ins for the module on bxCAN and on FDCAN (stm32_modules.py)."""

from drivers.stm32_modules import PybCan, PybCanFd, disable_irq, enable_irq, load
from packtrust.frame import Frame
from packtrust_node.can_slcan import MODULE_ACCEPT
from packtrust_node.txqueue import TxQueue
from portable import raises


def ready(module=PybCan, **options):
    """The module's object and the driver."""
    driver = load(
        "can_pyb", pyb={"CAN": module}, machine={"disable_irq": disable_irq, "enable_irq": enable_irq}
    ).PybCan(1, **options)
    return driver._can, driver


def idents(driver):
    found = []
    while True:
        frame = driver.recv()
        if frame is None:
            return found
        found.append(frame.arbitration_id)


def test_set_up():
    can, driver = ready(bitrate=250000)
    assert can.baudrate == 250000 and not can.auto_restart and driver.orders_by_id and not driver.fd
    can, driver = ready(PybCanFd)
    assert not driver.orders_by_id and not driver.fd and can.brs_baudrate is None
    assert can.auto_restart  # without it newer firmware does not repeat frames
    can, driver = ready(PybCanFd, data_bitrate=2000000)
    assert driver.fd and can.brs_baudrate == 2000000
    can, driver = ready(PybCanFd, data_bitrate=2000000, switch=False)
    assert driver.fd and can.brs_baudrate is None
    assert "no CAN FD" in str(raises(ValueError, ready, PybCan, data_bitrate=2000000))


def test_frames_of_both_kinds_are_sent_and_received():
    for module in (PybCan, PybCanFd):
        can, driver = ready(module)
        assert driver.send(Frame(0x1555AAAA, memoryview(b"12345678"))) and can.leave()[:4] == (
            0x1555AAAA,
            True,
            False,
            b"12345678",
        )
        assert driver.send(Frame(0x2A5, b"", is_extended_id=False)) and can.leave()[:4] == (0x2A5, False, False, b"")
        assert driver.send(Frame(0x12, b"", is_remote_frame=True, dlc=5)) and can.leave()[:4] == (0x12, True, True, 5)
        can.arrive(0x1FFFFFFF, b"abc")
        frame = driver.recv()
        assert (frame.arbitration_id, frame.is_extended_id, bytes(frame.data)) == (0x1FFFFFFF, True, b"abc")
        can.arrive(0x7FF, b"12345678", False)
        frame = driver.recv()
        assert (frame.arbitration_id, frame.is_extended_id, bytes(frame.data)) == (0x7FF, False, b"12345678")
        can.arrive(0x15, 4, True, True)
        frame = driver.recv()
        assert frame.is_remote_frame and frame.dlc == 4 and not frame.is_fd
        assert driver.recv() is None and driver.counters["sent"] == 3 and driver.counters["received"] == 3


def test_can_fd_frames():
    can, driver = ready(PybCanFd, data_bitrate=2000000)
    record = bytes(range(64))
    assert driver.send(Frame(0x14420005, record, is_fd=True))
    assert can.leave() == (0x14420005, True, False, record, True, True)
    can.arrive(0x14420005, record)
    frame = driver.recv()
    assert frame.is_fd and bytes(frame.data) == record
    can, driver = ready(PybCanFd, data_bitrate=500000, switch=False)
    assert driver.send(Frame(1, bytes(12), is_fd=True)) and can.leave()[4:] == (True, False)
    assert driver.send(Frame(1, bytes(9), is_fd=True)) and driver.counters["refused"] == 1
    for module in (PybCan, PybCanFd):
        can, driver = ready(module)
        assert driver.send(Frame(1, bytes(12), is_fd=True)) and driver.counters["refused"] == 1
        assert can.leave() is None


def test_full_controller_takes_no_more():
    for module in (PybCan, PybCanFd):
        can, driver = ready(module)
        assert [driver.send(Frame(at, b"")) for at in range(4)] == [True, True, True, False]
        can.leave()
        assert driver.send(Frame(3, b"")) and driver.counters["sent"] == 4


def test_queue_in_front_keeps_the_order():
    for module in (PybCan, PybCanFd):
        can, driver = ready(module)
        queue = TxQueue(driver)
        for at in range(60):
            queue.put(Frame(0x14400005 | (0x10000 if at // 5 % 2 else 0) | (at % 5) << 12, bytes((at,))))
        gone = []
        now = 0
        while len(gone) < 60:
            queue.pump(now)
            gone.append(can.leave()[3][0])
            now += 1
        assert gone == list(range(60))


def test_frames_are_taken_out_by_the_interrupt():
    for module in (PybCan, PybCanFd):
        can, driver = ready(module, depth=16)
        assert all([can.arrive(at, bytes((at,))) for at in range(16)])
        assert [can.arrive(at, b"") for at in range(16, 21)] == [True] * 3 + [False] * 2
        assert idents(driver) == list(range(19))
        driver.poll(1000)
        assert driver.counters["lost"] == 2
        assert can.arrive(77, b"") and idents(driver) == [77]


def test_a_frame_is_valid_until_the_next_recv():
    can, driver = ready(depth=2)
    can.arrive(1, b"11111111")
    first = driver.recv()
    for at in range(2, 6):
        can.arrive(at, bytes((at,)) * 8)
    assert first.arbitration_id == 1 and bytes(first.data) == b"11111111"
    assert idents(driver) == [2, 3, 4, 5]


def test_a_frame_is_of_its_kind_whatever_the_one_before_was():
    for module in (PybCan, PybCanFd):
        can, driver = ready(module)
        kinds = [(0x15, b"abc", True, False), (0x16, 4, True, True), (0x17, b"abcd", False, False)]
        if module is PybCanFd:
            kinds.append((0x18, bytes(12), True, False))
        for first in kinds:
            for second in kinds:
                for ident, data, extended, remote in (first, second):
                    can.arrive(ident, data, extended, remote)
                    frame = driver.recv()
                    assert (frame.arbitration_id, frame.is_extended_id) == (ident, extended)
                    assert frame.is_remote_frame == remote and bytes(frame.data) == (b"" if remote else data)
                    assert frame.dlc == (data if remote else len(data))
                    assert frame.is_fd == frame.bitrate_switch == (not remote and len(data) > 8)


def test_a_node_does_not_wait_while_frames_are_there():
    can, driver = ready()
    assert driver.poll(1000) == 1
    can.arrive(1, b"")
    can.arrive(2, b"")
    assert driver.poll(1001) == 0
    driver.recv()
    assert driver.poll(1002) == 0
    driver.recv()
    assert driver.poll(1003) == 1


def test_filters_let_through_exactly_what_is_asked():
    many = tuple([(at, 0x7FF) for at in range(0x100, 0x120)])
    for module in (PybCan, PybCanFd):
        for accept, nodes in ((MODULE_ACCEPT, ()), (MODULE_ACCEPT, (0, 5, 255)), (None, (0, 5)), (many, (1,))):
            can, driver = ready(module)
            driver.filters(accept)
            driver.accept_nodes(nodes)
            received = 0
            for base in (0x0FF, 0x100, 0x11F, 0x120, 0x50F, 0x510, 0x51F, 0x520, 0x53F, 0x540):
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
            if accept is MODULE_ACCEPT:
                assert driver.counters["filtered"] == 0
            driver.filters(None)
            driver.accept_nodes(None)
            assert can.arrive(0x123, b"", False) and can.arrive(0x123, b"")
            assert idents(driver) == [0x123, 0x123]


def test_error_states_bus_off_and_recovery():
    for module in (PybCan, PybCanFd):
        can, driver = ready(module)
        driver.filters(MODULE_ACCEPT)
        now = 0
        for status, state in ((2, "warning"), (3, "passive"), (1, "active")):
            can.status = status
            can.rec = 10 * status
            now += 100
            driver.poll(now)
            assert driver.state == state and driver.counters["rec"] == 10 * status
        assert driver.send(Frame(1, b"old"))
        can.status = can.BUS_OFF
        now += 100
        driver.poll(now)
        assert driver.state == "bus-off" and driver.counters["bus_off"] == 1 and not driver.send(Frame(2, b""))
        begin = now
        while driver.state == "bus-off":
            now += driver.poll(now)
            assert now < begin + 1000
        assert now >= begin + 200 and can.inits == 2
        assert driver.send(Frame(2, b"new")) and can.leave()[3] == b"new" and can.leave() is None
        # Filters and interrupts are there again.
        assert not can.arrive(0x100 << 18, b"")
        assert all([can.arrive(0x510 << 18 | at, b"") for at in range(10)]) and len(idents(driver)) == 10
