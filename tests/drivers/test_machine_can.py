"""The machine.CAN driver against a stand-in for the module (stm32_modules.py)."""

from drivers.stm32_modules import MachineCan as Module
from drivers.stm32_modules import disable_irq, enable_irq, load
from packtrust.frame import Frame
from packtrust_node.can_slcan import MODULE_ACCEPT
from packtrust_node.txqueue import TxQueue


def make(number=1, **options):
    """The module's object and the driver."""
    made = []

    class Can(Module):
        def __init__(self, *arguments, **keywords):
            Module.__init__(self, *arguments, **keywords)
            made.append(self)

    driver = load("can_machine", machine={"CAN": Can, "disable_irq": disable_irq, "enable_irq": enable_irq})
    return driver.MachineCan(number, **options), made


def ready(**options):
    driver, made = make(**options)
    return made[0], driver


def idents(driver):
    found = []
    while True:
        frame = driver.recv()
        if frame is None:
            return found
        found.append(frame.arbitration_id)


def test_set_up():
    can, driver = ready(bitrate=250000)
    assert can.bitrate == 250000 and can.sample_point == 75 and can.filters is None
    assert driver.state == "active" and driver.orders_by_id and not driver.fd and driver.stream is None
    assert driver.poll(0) <= 5


def test_a_node_does_not_wait_while_frames_are_there():
    can, driver = ready()
    assert driver.poll(1000) == 1
    can.arrive(1, b"")
    assert driver.poll(1001) == 0
    driver.recv()
    assert driver.poll(1002) == 1


def test_frames_of_both_kinds_are_sent_and_received():
    can, driver = ready()
    assert driver.send(Frame(0x1555AAAA, memoryview(b"12345678")))
    assert driver.send(Frame(0x2A5, b"", is_extended_id=False))
    assert driver.pending() == 2
    assert can.leave() == (0x2A5, False, False, b"") and can.leave() == (0x1555AAAA, True, False, b"12345678")
    assert driver.send(Frame(0x123, b"", is_remote_frame=True, dlc=5)) and can.leave() == (0x123, True, True, 5)
    can.arrive(0x1FFFFFFF, b"abc")
    can.arrive(0x7FF, b"12345678", False)
    can.arrive(0x15, 4, True, True)
    frame = driver.recv()
    assert (frame.arbitration_id, frame.is_extended_id, bytes(frame.data)) == (0x1FFFFFFF, True, b"abc")
    frame = driver.recv()
    assert (frame.arbitration_id, frame.is_extended_id, bytes(frame.data)) == (0x7FF, False, b"12345678")
    frame = driver.recv()
    assert frame.is_remote_frame and frame.dlc == 4 and frame.data == b"" and not frame.is_fd
    assert driver.recv() is None
    assert driver.counters["sent"] == 3 and driver.counters["received"] == 3


def test_can_fd_and_long_frames_are_refused_not_kept():
    can, driver = ready()
    assert driver.send(Frame(1, bytes(12), is_fd=True)) and driver.send(Frame(1, bytes(9)))
    assert driver.counters["refused"] == 2 and can.leave() is None


def test_full_controller_and_same_id():
    can, driver = ready()
    assert driver.send(Frame(7, b"1")) and not driver.send(Frame(7, b"2"))
    assert driver.send(Frame(8, b"")) and driver.send(Frame(9, b"")) and not driver.send(Frame(10, b""))
    assert can.leave()[3] == b"1" and driver.send(Frame(7, b"2"))


def test_queue_in_front_keeps_the_order_of_each_stream():
    can, driver = ready()
    queue = TxQueue(driver)
    sent = {}
    for at in range(120):
        stream = at % 3
        # The toggle would let the second record of a stream overtake the first.
        ident = 0x14400000 + (stream << 18) | (0x10000 if at // 15 % 2 else 0) | (at // 3 % 5) << 12 | 5
        sent.setdefault(stream, []).append((ident, bytes((at,))))
        queue.put(Frame(ident, bytes((at,))))
    gone = {}
    now = 0
    while len(queue) or can.sending:
        queue.pump(now)
        left = can.leave()
        gone.setdefault(left[0] - 0x14400000 >> 18, []).append((left[0], left[3]))
        now += 1
    assert gone == sent


def test_frames_are_taken_out_by_the_interrupt():
    can, driver = ready(depth=16)
    assert all([can.arrive(at, bytes((at,))) for at in range(16)])
    # The slots are full: three stay in the controller, the rest is lost and counted.
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


def test_filters_let_through_exactly_what_is_asked():
    many = tuple([(at, 0x7FF) for at in range(0x100, 0x120)])
    for accept, nodes in ((MODULE_ACCEPT, ()), (MODULE_ACCEPT, (0, 5, 255)), (None, (0, 5)), (many, (1,))):
        can, driver = ready()
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
    can, driver = ready()
    driver.filters(many)
    assert len(can.filters) <= can.FILTERS_MAX
    driver.filters(None)
    assert can.filters is None


def test_error_states_bus_off_and_recovery():
    can, driver = ready()
    now = 0
    for status, state in ((2, "warning"), (3, "passive"), (1, "active")):
        can.status = status
        can.tec = 10 * status
        now += 100
        driver.poll(now)
        assert driver.state == state and driver.counters["tec"] == 10 * status
    assert driver.send(Frame(1, b"old"))
    can.status = can.STATE_BUS_OFF
    assert not driver.send(Frame(2, b""))  # the module raises OSError before we have looked
    now += 1
    driver.poll(now)
    assert driver.state == "bus-off" and driver.counters["bus_off"] == 1 and not driver.send(Frame(2, b""))
    begin = now
    while driver.state == "bus-off":
        now += driver.poll(now)
        assert now < begin + 1000
    assert now >= begin + 200 and can.restarts == 1
    assert driver.state == "active" and driver.pending() == 0 and driver.send(Frame(2, b""))


def test_lost_frames_are_counted_over_a_restart():
    can, driver = ready(depth=1)
    for at in range(8):
        can.arrive(at, b"")
    driver.poll(0)
    assert driver.counters["lost"] == 4
    driver.recover()
    driver.poll(100)
    assert driver.counters["lost"] == 4
    idents(driver)
    for at in range(5):
        can.arrive(at, b"")
    driver.poll(200)
    assert driver.counters["lost"] == 5
