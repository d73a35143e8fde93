"""The MCP2515 driver against a model of the chip (mcp2515_chip.py)."""

from drivers.mcp2515_chip import CNF1, CNF2, CNF3, Chip
from packtrust.frame import Frame
from packtrust_node.can_base import Accept
from packtrust_node.can_mcp2515 import Mcp2515, plan, timing
from packtrust_node.can_slcan import MODULE_ACCEPT
from packtrust_node.can_spi import MachineSpi
from packtrust_node.txqueue import TxQueue
from portable import raises


def make(interrupt=False, accept=None, **options):
    """A chip and its driver, on the bus."""
    chip = Chip()
    driver = Mcp2515(MachineSpi(chip, chip), interrupt=chip.interrupt if interrupt else None, **options)
    driver.filters(accept)
    assert driver.state == "opening" and not driver.send(Frame(1, b""))
    now = 0
    while driver.state == "opening":
        now += driver.poll(now)
        assert now < 100, driver.fault
    return chip, driver


def received(driver):
    """All frames there are, as (ID, extended, data)."""
    found = []
    while True:
        frame = driver.recv()
        if frame is None:
            return found
        found.append((frame.arbitration_id, frame.is_extended_id, bytes(frame.data)))


def test_bit_timing_is_that_of_the_data_sheet():
    # DS20001801 section 5: TQ = 2 (BRP + 1) / Fosc; a bit is 1 + PropSeg + PS1 + PS2 quanta. By hand, 75 %:
    # 16 MHz, 500 kbit/s: BRP 0, TQ 125 ns, 16 TQ: 1 + 6 + 5 + 4, SJW 3.
    assert timing(16000000, 500000) == (0x80, 0x80 | 4 << 3 | 5, 3)
    # 250 and 125 kbit/s: the same quanta, BRP 1 and 3.
    assert timing(16000000, 250000) == (0x81, 0xA5, 3)
    assert timing(16000000, 125000) == (0x83, 0xA5, 3)
    # 1 Mbit/s: 8 TQ of 125 ns: 1 + 3 + 2 + 2, SJW 1 (PS2 > SJW).
    assert timing(16000000, 1000000) == (0x00, 0x80 | 1 << 3 | 2, 1)
    # 8 MHz: TQ 250 ns.
    assert timing(8000000, 500000) == (0x00, 0x8A, 1)
    assert timing(8000000, 250000) == (0x80, 0xA5, 3)
    assert timing(8000000, 125000) == (0x81, 0xA5, 3)
    # 4 quanta would be left of a bit; section 5 wants 8.
    assert "faster crystal" in str(raises(ValueError, timing, 8000000, 1000000))
    raises(ValueError, timing, 16000000, 333333)


def test_every_timing_keeps_the_rules_of_section_5():
    for crystal in (8000000, 16000000, 20000000):
        for bitrate in (50000, 100000, 125000, 250000, 500000):
            for sample_point in (75, 80, 87):
                cnf1, cnf2, cnf3 = timing(crystal, bitrate, sample_point)
                jump = (cnf1 >> 6) + 1
                propagation = (cnf2 & 7) + 1
                phase1 = (cnf2 >> 3 & 7) + 1
                phase2 = cnf3 + 1
                assert cnf2 & 0xC0 == 0x80  # BTLMODE: PS2 is what CNF3 says; one sample
                quanta = 1 + propagation + phase1 + phase2
                assert quanta * 2 * ((cnf1 & 0x3F) + 1) * bitrate == crystal
                assert 8 <= quanta <= 25
                assert phase2 >= 2 and phase2 > jump and propagation + phase1 >= phase2
                assert abs(100 * (quanta - phase2) // quanta - sample_point) <= 13, (crystal, bitrate, sample_point)


def test_set_up_writes_the_timing_and_goes_to_normal_mode():
    chip, driver = make()
    assert (chip.registers[CNF1], chip.registers[CNF2], chip.registers[CNF3]) == (0x80, 0xA5, 0x03)
    assert chip.mode == 0 and chip.registers[0x60] == 0x04 and chip.registers[0x70] == 0
    assert chip.registers[0x2B] == 0x03
    assert driver.state == "active" and driver.fault == "" and driver.counters["opened"] == 1


def test_no_chip_and_a_bus_that_is_never_idle_are_told_and_tried_again():
    chip = Chip()
    chip.alive = False
    driver = Mcp2515(MachineSpi(chip, chip))
    now = 0
    while not driver.fault:
        now += driver.poll(now)
        assert now < 2000
    assert "SPI wiring" in driver.fault and driver.state == "opening"
    chip.alive = True
    chip.bus_idle = False
    while "never idle" not in driver.fault:
        now += driver.poll(now)
        assert now < 5000
    chip.bus_idle = True
    while driver.state == "opening":
        now += driver.poll(now)
        assert now < 8000
    assert driver.fault == ""


def test_frames_of_both_kinds_are_sent():
    chip, driver = make()
    assert driver.send(Frame(0x1555AAAA, b"12345678"))
    assert chip.leave() == (0x1555AAAA, True, False, b"12345678")
    assert driver.send(Frame(0x2A5, b"", is_extended_id=False))
    assert chip.leave() == (0x2A5, False, False, b"")
    assert driver.send(Frame(0x1FFFFFFF, memoryview(b"abc")))
    assert chip.leave() == (0x1FFFFFFF, True, False, b"abc")
    assert driver.send(Frame(0x123, b"", is_extended_id=False, is_remote_frame=True, dlc=5))
    assert chip.leave() == (0x123, False, True, 5)
    assert driver.pending() == 0 and driver.counters["sent"] == 4


def test_order_given_is_order_sent_whatever_leaves_in_between():
    chip, driver = make()
    sent = []
    gone = []
    # Every pattern of sending and leaving, 11 steps long: bit 1 gives a frame, bit 0 lets one leave.
    for pattern in range(1 << 11):
        for step in range(11):
            if pattern >> step & 1:
                frame = Frame(0x100, bytes((len(sent) & 0xFF, len(sent) >> 8 & 0xFF)))
                if driver.send(frame):
                    sent.append(frame.data)
            else:
                left = chip.leave()
                if left is not None:
                    gone.append(left[3])
        while len(gone) < len(sent):
            gone.append(chip.leave()[3])
        assert gone == sent
        del gone[:], sent[:]


def test_full_chip_takes_no_more_and_takes_again():
    chip, driver = make()
    assert [driver.send(Frame(7, b"%d" % at)) for at in range(4)] == [True, True, True, False]
    assert driver.pending() == 3
    assert chip.leave()[3] == b"0"
    assert driver.pending() == 2
    assert driver.send(Frame(7, b"3"))
    assert [chip.leave()[3] for _ in range(3)] == [b"1", b"2", b"3"]


def test_queue_in_front_keeps_the_order_of_a_wave():
    chip, driver = make()
    queue = TxQueue(driver)
    for at in range(100):
        queue.put(Frame(0x14400000 + (at % 7 << 8), bytes((at,))))
    gone = []
    now = 0
    while len(gone) < 100:
        queue.pump(now)
        gone.append(chip.leave()[3][0])
        now += 1
    assert gone == list(range(100))


def test_can_fd_and_long_frames_are_refused_not_kept():
    chip, driver = make()
    assert not driver.fd
    assert driver.send(Frame(1, bytes(12), is_fd=True)) and driver.send(Frame(1, bytes(9)))
    assert chip.leave() is None and driver.counters["refused"] == 2


def test_frames_of_both_kinds_are_received():
    chip, driver = make()
    assert driver.recv() is None
    assert chip.arrive(0x1555AAAA, b"12345678") and chip.arrive(0x2A5, b"ab", False)
    assert received(driver) == [(0x1555AAAA, True, b"12345678"), (0x2A5, False, b"ab")]
    assert chip.arrive(0x1FFFFFFF, 3, True, True)
    frame = driver.recv()
    assert frame.is_remote_frame and frame.dlc == 3 and frame.data == b"" and frame.arbitration_id == 0x1FFFFFFF
    assert chip.arrive(0x7FF, 2, False, True)
    frame = driver.recv()
    assert frame.is_remote_frame and frame.dlc == 2 and not frame.is_extended_id


def test_a_frame_is_valid_until_the_next_recv():
    chip, driver = make(depth=1)
    chip.arrive(1, b"11111111")
    first = driver.recv()
    chip.arrive(2, b"22222222")
    chip.arrive(3, b"33333333")
    driver.poll(1000)
    assert driver.send(Frame(9, b"99999999"))
    assert first.arbitration_id == 1 and bytes(first.data) == b"11111111"
    assert driver.recv().arbitration_id == 2 and driver.recv().arbitration_id == 3


def test_roll_over_keeps_the_order():
    # A frame that arrives while RXB0 is being read lies in RXB1, and is older than what RXB0 gets next.
    for gap in range(1, 12):
        chip, driver = make()
        numbers = [0]
        countdown = [gap]

        def tick(chip, countdown=countdown, gap=gap, numbers=numbers):
            countdown[0] -= 1
            if countdown[0] == 0 and numbers[0] < 40:
                countdown[0] = gap
                chip.arrive(numbers[0], bytes((numbers[0],)))
                numbers[0] += 1

        chip.on_transaction = tick
        seen = []
        for _ in range(800):
            frame = driver.recv()
            if frame is not None:
                seen.append(frame.arbitration_id)
        assert numbers[0] == 40
        if gap >= 2:
            # At least two transactions between two frames: none is lost.
            assert seen == list(range(40)), (gap, seen)
        assert chip.lost == 40 - len(seen)


def test_interrupt_takes_bursts_that_polling_would_lose():
    chip, driver = make(interrupt=True, depth=32)
    for at in range(30):
        assert chip.arrive(at, bytes((at,)) * 8)
    assert [ident for ident, _, _ in received(driver)] == list(range(30))
    chip, driver = make(depth=32)
    assert [chip.arrive(at, b"") for at in range(3)] == [True, True, False]
    driver.poll(1000)
    assert driver.counters["lost"] == 1 and chip.registers[0x2D] & 0xC0 == 0
    driver.poll(2000)
    assert driver.counters["lost"] == 1


def test_interrupt_in_the_middle_of_a_transaction_waits():
    chip, driver = make(interrupt=True)
    done = []

    def once(chip):
        # Chip select has just risen, but the driver is still in its transaction.
        if len(done) < 5:
            done.append(chip.arrive(len(done), b"x"))

    chip.on_transaction = once
    assert driver.send(Frame(0x100, b"12345678"))
    chip.on_transaction = None
    driver.poll(3)
    # Two find room in the chip while the frame is loaded, and are taken out as soon as that is done.
    assert done[:2] == [True, True]
    assert [ident for ident, _, _ in received(driver)] == [at for at in range(len(done)) if done[at]]
    assert chip.leave()[3] == b"12345678"


def test_slots_full_leaves_frames_in_the_chip():
    chip, driver = make(interrupt=True, depth=4)
    taken = [chip.arrive(at, b"") for at in range(8)]
    assert taken == [True] * 6 + [False] * 2  # four slots, two buffers
    assert [ident for ident, _, _ in received(driver)] == list(range(6))
    driver.poll(1000)
    assert driver.counters["lost"] == 1  # at least


def test_filters_let_through_exactly_what_is_asked():
    for accept, nodes in (
        (MODULE_ACCEPT, ()),
        (MODULE_ACCEPT, (0, 5, 255)),
        (None, (0, 5, 255)),
        (((0x510, 0x7FF),), (64,)),
        (((0x100, 0x7FF), (0x200, 0x700), (0x3F0, 0x7F0)), (1, 2, 3)),
    ):
        chip, driver = make(accept=accept)
        driver.accept_nodes(nodes)
        now = 0
        while driver.state == "opening":
            now += driver.poll(now)
        wanted = []
        for base in (0x0FF, 0x100, 0x2AA, 0x3F5, 0x50F, 0x510, 0x51F, 0x520, 0x53F, 0x540):
            for node in (0, 1, 5, 31, 64, 255):
                ident = base << 18 | 0x2A500 | node
                if (accept is None or any([base & mask == code for code, mask in accept])) and (
                    not nodes or node in nodes
                ):
                    wanted.append(ident)
                chip.arrive(ident, b"")
                chip.arrive(base, b"", False)
                frame = driver.recv()
                if frame is not None:
                    assert frame.arbitration_id == ident and wanted[-1:] == [ident]
                else:
                    assert wanted[-1:] != [ident], hex(ident)
        assert driver.counters["received"] == len(wanted) > 0
        assert chip.lost == 0


def test_without_filters_everything_comes_in():
    chip, driver = make()
    for ident, extended in ((0, True), (0x1FFFFFFF, True), (0, False), (0x7FF, False), (0x14400005, True)):
        assert chip.arrive(ident, b"", extended)
        assert received(driver) == [(ident, extended, b"")]
    assert driver.counters["filtered"] == 0


def test_plan_fits_the_two_masks():
    accept = Accept()
    accept.set_bases(MODULE_ACCEPT)
    accept.set_nodes((0, 5, 255))
    first, second = plan(accept.pairs)
    assert 1 <= len(first) <= 2 and 1 <= len(second) <= 4
    assert len({mask for _, mask in first}) == 1 and len({mask for _, mask in second}) == 1
    # The hardware keeps most of the traffic out: other bases, and most other nodes.
    filters = first + second

    def taken(base, node):
        return any([(base << 18 | node) & mask == code for code, mask in filters])

    assert not taken(0x550, 5) and not taken(0x4F0, 0)
    for base in (0x510, 0x520, 0x53F):
        assert taken(base, 0) and taken(base, 5) and taken(base, 255)
    assert [node for node in range(256) if taken(0x530, node)] == [0, 1, 4, 5, 255]


def test_error_states_and_counters():
    chip, driver = make()
    now = 1000
    for tec, rec, state in (
        (0, 0, "active"),
        (96, 0, "warning"),
        (0, 127, "warning"),
        (128, 0, "passive"),
        (0, 200, "passive"),
        (5, 5, "active"),
    ):
        chip.errors(tec, rec)
        now += 100
        driver.poll(now)
        assert driver.state == state
        assert driver.counters["tec"] == tec and driver.counters["rec"] == rec


def test_bus_off_and_recovery():
    chip, driver = make()
    assert driver.send(Frame(1, b"old"))
    chip.errors(256, 0)
    driver.poll(1000)
    assert driver.state == "bus-off" and driver.counters["bus_off"] == 1
    assert not driver.send(Frame(2, b"")) and chip.waiting() == 0
    now = 1000
    while driver.state == "bus-off":
        now += driver.poll(now)
        assert now < 2000
    assert now >= 1200
    while driver.state == "opening":
        now += driver.poll(now)
    assert driver.state == "active" and chip.mode == 0
    assert driver.send(Frame(2, b"new"))
    assert chip.leave()[3] == b"new" and chip.leave() is None
    assert driver.counters["opened"] == 2 and driver.counters["bus_off"] == 1


def test_bus_off_that_the_chip_leaves_by_itself():
    chip, driver = make()
    chip.errors(256, 0)
    driver.poll(1000)
    assert driver.state == "bus-off"
    chip.errors(0, 0)  # 128 times 11 recessive bits (6.7)
    driver.poll(1100)
    assert driver.state == "active" and driver.send(Frame(1, b""))
    driver.poll(3000)
    assert driver.counters["opened"] == 1


def test_chip_that_lost_its_supply_is_set_up_again():
    chip, driver = make(accept=MODULE_ACCEPT)
    chip.power_on()
    now = 1000
    driver.poll(now)
    assert driver.state == "opening" and "supply" in driver.fault
    while driver.state == "opening":
        now += driver.poll(now)
        assert now < 3000
    assert chip.mode == 0 and (chip.registers[CNF1], chip.registers[CNF2]) == (0x80, 0xA5)
    assert not chip.arrive(0x100 << 18, b"") and chip.arrive(0x510 << 18, b"")
