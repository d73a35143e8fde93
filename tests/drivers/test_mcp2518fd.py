"""The MCP2518FD driver against a model of the chip (mcp2518fd_chip.py)."""

from drivers.mcp2518fd_chip import C1DBTCFG, C1NBTCFG, C1TDC, OSC, Chip
from packtrust.frame import Frame
from packtrust_node.can_mcp2518fd import Mcp2518fd, timing
from packtrust_node.can_slcan import MODULE_ACCEPT
from packtrust_node.can_spi import MachineSpi
from packtrust_node.txqueue import TxQueue
from portable import raises


def opened(chip, driver):
    now = 0
    while driver.state == "opening":
        now += driver.poll(now)
        assert now < 100, driver.fault
    return chip, driver


def make(data_bitrate=2000000, interrupt=False, accept=None, **options):
    """A chip and its driver, on the bus."""
    chip = Chip(options.get("clock", 40000000))
    driver = Mcp2518fd(
        MachineSpi(chip, chip),
        data_bitrate=data_bitrate,
        interrupt=chip.interrupt if interrupt else None,
        **options,
    )
    driver.filters(accept)
    assert driver.state == "opening" and not driver.send(Frame(1, b""))
    return opened(chip, driver)


def received(driver):
    """All frames there are, as (ID, extended, fd, data)."""
    found = []
    while True:
        frame = driver.recv()
        if frame is None:
            return found
        found.append((frame.arbitration_id, frame.is_extended_id, frame.is_fd, bytes(frame.data)))


def test_bit_timing_is_that_of_the_reference_manual():
    # DS20005678, bit timing example: 40 MHz, 500 kbit/s and 2 Mbit/s, 80 %: BRP 0, TSEG1 62, TSEG2 15, SJW 15 and
    # 14, 3, 3; TDCO 15. 80 quanta of 25 ns, 20 in the data phase.
    chip, _ = make()
    assert chip.get32(C1NBTCFG) == 0 << 24 | 62 << 16 | 15 << 8 | 15
    assert chip.get32(C1DBTCFG) == 0 << 24 | 14 << 16 | 3 << 8 | 3
    assert chip.get32(C1TDC) == 2 << 16 | 15 << 8
    # By hand: 1 + TSEG1 + TSEG2 quanta a bit. 250 kbit/s: 160 = 1 + 127 + 32; 1 Mbit/s: 40 = 1 + 31 + 8.
    assert timing(40000000, 250000, 80, 256, 128) == (1, 127, 32, 32)
    assert timing(40000000, 1000000, 80, 256, 128) == (1, 31, 8, 8)
    assert timing(20000000, 500000, 80, 256, 128) == (1, 31, 8, 8)
    # 4 and 5 Mbit/s at 40 MHz: 10 = 1 + 7 + 2, 8 = 1 + 5 + 2 (75 %, as close to 80 % as eight quanta come).
    assert timing(40000000, 4000000, 80, 32, 16) == (1, 7, 2, 2)
    assert timing(40000000, 5000000, 80, 32, 16) == (1, 5, 2, 2)
    # 125 kbit/s: 320 quanta fit (1 + 255 + 64).
    assert timing(40000000, 125000, 80, 256, 128) == (1, 255, 64, 64)
    raises(ValueError, timing, 40000000, 333333, 80, 256, 128)


def test_every_timing_is_exact_and_in_range():
    for clock in (20000000, 40000000):
        for bitrate in (50000, 125000, 250000, 500000, 1000000):
            for sample_point in (75, 80, 87):
                prescaler, segment1, segment2, jump = timing(clock, bitrate, sample_point, 256, 128)
                quanta = 1 + segment1 + segment2
                assert prescaler * quanta * bitrate == clock
                assert 2 <= segment1 <= 256 and 1 <= segment2 <= 128 and jump <= segment2
                assert abs(100 * (1 + segment1) - sample_point * quanta) <= 50 * 5


def test_four_megahertz_crystals_use_the_pll():
    chip, driver = make(clock=4000000)
    assert chip.memory[OSC] & 1 and driver.state == "active"
    assert chip.get32(C1NBTCFG) == 62 << 16 | 15 << 8 | 15


def test_no_chip_no_clock_and_a_busy_bus_are_told_and_tried_again():
    chip = Chip()
    chip.alive = False
    driver = Mcp2518fd(MachineSpi(chip, chip))
    now = 0

    def until(text):
        nonlocal now
        end = now + 5000
        while text not in driver.fault:
            now += driver.poll(now)
            assert now < end, driver.fault

    until("SPI wiring")
    chip.alive = True
    chip.crystal_runs = False
    chip.power_on()
    until("crystal")
    chip.crystal_runs = True
    chip.bus_idle = False
    until("never idle")
    chip.bus_idle = True
    end = now + 5000
    while driver.state != "active":
        now += driver.poll(now)
        assert now < end
    assert driver.fault == ""


def test_frames_of_all_kinds_are_sent():
    chip, driver = make()
    for frame, wanted in (
        (Frame(0x1555AAAA, b"12345678"), (0x1555AAAA, True, False, False, False, b"12345678")),
        (Frame(0x2A5, b"", is_extended_id=False), (0x2A5, False, False, False, False, b"")),
        (Frame(0x1FFFFFFF, memoryview(b"abc")), (0x1FFFFFFF, True, False, False, False, b"abc")),
        (
            Frame(0x123, b"", is_extended_id=False, is_remote_frame=True, dlc=5),
            (0x123, False, True, False, False, 5),
        ),
        (Frame(0x14420005, bytes(range(64)), is_fd=True), (0x14420005, True, False, True, True, bytes(range(64)))),
        (Frame(0x14420005, bytes(range(12)), is_fd=True), (0x14420005, True, False, True, True, bytes(range(12)))),
    ):
        assert driver.send(frame)
        assert chip.leave() == wanted
    assert driver.counters["sent"] == 6 and driver.pending() == 0


def test_frames_of_all_kinds_are_received():
    chip, driver = make()
    assert driver.recv() is None
    assert chip.arrive(0x1555AAAA, b"12345678") and chip.arrive(0x2A5, b"ab", False)
    assert chip.arrive(0x14420005, bytes(range(64)), fd=True) and chip.arrive(0x14420005, bytes(20), fd=True)
    assert received(driver) == [
        (0x1555AAAA, True, False, b"12345678"),
        (0x2A5, False, False, b"ab"),
        (0x14420005, True, True, bytes(range(64))),
        (0x14420005, True, True, bytes(20)),
    ]
    assert chip.arrive(0x1FFFFFFF, 3, True, True)
    frame = driver.recv()
    assert frame.is_remote_frame and frame.dlc == 3 and frame.data == b""


def test_a_frame_is_valid_until_the_next_recv():
    chip, driver = make()
    chip.arrive(1, b"11111111")
    first = driver.recv()
    chip.arrive(2, b"22222222")
    driver.poll(1000)
    assert driver.send(Frame(9, b"99999999")) and driver.pending() == 1
    assert first.arbitration_id == 1 and bytes(first.data) == b"11111111"


def test_order_full_queue_and_pending():
    chip, driver = make()
    taken = [driver.send(Frame(7, bytes((at,)))) for at in range(9)]
    assert taken == [True] * 8 + [False]
    for at in range(8):
        assert driver.pending() == 8 - at
        assert chip.leave()[5] == bytes((at,))
    assert driver.pending() == 0
    queue = TxQueue(driver)
    for at in range(100):
        queue.put(Frame(0x14400000 + (at % 7 << 8), bytes((at,))))
    gone = []
    now = 0
    while len(gone) < 100:
        queue.pump(now)
        gone.append(chip.leave()[5][0])
        now += 1
    assert gone == list(range(100))


def test_classic_controller_has_no_can_fd():
    chip, driver = make(data_bitrate=0)
    assert not driver.fd and chip.mode == 6
    assert driver.send(Frame(1, bytes(12), is_fd=True)) and driver.counters["refused"] == 1
    assert chip.leave() is None
    assert driver.send(Frame(1, b"12345678")) and chip.leave()[5] == b"12345678"
    assert [chip.arrive(at, b"") for at in range(33)] == [True] * 32 + [False]
    assert [ident for ident, _, _, _ in received(driver)] == list(range(32))


def test_lengths_that_can_fd_does_not_have_are_refused():
    chip, driver = make()
    assert driver.fd
    for frame in (Frame(1, bytes(9), is_fd=True), Frame(1, bytes(65), is_fd=True), Frame(1, bytes(12))):
        assert driver.send(frame)
    assert driver.counters["refused"] == 3 and chip.leave() is None


def test_lost_frames_are_counted():
    chip, driver = make()
    assert [chip.arrive(at, b"") for at in range(22)] == [True] * 20 + [False] * 2
    assert [ident for ident, _, _, _ in received(driver)] == list(range(20))
    assert driver.counters["lost"] == 1 and chip.lost == 2  # at least
    assert chip.arrive(5, b"") and len(received(driver)) == 1
    assert driver.counters["lost"] == 1


def test_interrupt_pin_spares_the_question():
    chip, driver = make(interrupt=True)
    asked = []
    plain = chip.write_readinto
    chip.write_readinto = plain
    spi = driver._exchange

    def counting(out, into):
        asked.append(1)
        spi(out, into)

    driver._exchange = counting
    assert driver.recv() is None and not asked
    chip.arrive(0x1234, b"x")
    assert driver.recv().arbitration_id == 0x1234
    assert driver.recv() is None and len(asked) == 3


def test_filters_let_through_exactly_what_is_asked():
    many = tuple([(at, 0x7FF) for at in range(0x100, 0x128)])
    for accept, nodes in (
        (MODULE_ACCEPT, ()),
        (MODULE_ACCEPT, (0, 5, 255)),
        (None, (0, 5, 255)),
        (many, (1,)),  # more than there are filters
    ):
        chip, driver = make(accept=accept)
        driver.accept_nodes(nodes)
        assert driver.state == "active"  # without leaving the bus
        wanted = 0
        for base in (0x0FF, 0x100, 0x127, 0x128, 0x50F, 0x510, 0x51F, 0x520, 0x53F, 0x540):
            for node in (0, 1, 5, 31, 64, 255):
                ident = base << 18 | 0x2A500 | node
                taken = (accept is None or any([base & mask == code for code, mask in accept])) and (
                    not nodes or node in nodes
                )
                chip.arrive(ident, b"")
                chip.arrive(base, b"", False)
                assert [found[0] for found in received(driver)] == ([ident] if taken else []), hex(ident)
                wanted += taken
        assert driver.counters["received"] == wanted > 0
        if accept is MODULE_ACCEPT:
            assert driver.counters["filtered"] == 0  # the chip did it all


def test_without_filters_everything_comes_in():
    chip, driver = make()
    for ident, extended in ((0, True), (0x1FFFFFFF, True), (0, False), (0x7FF, False), (0x14400005, True)):
        assert chip.arrive(ident, b"", extended)
        assert received(driver) == [(ident, extended, False, b"")]


def test_error_states_bus_off_and_recovery():
    chip, driver = make()
    now = 1000
    for tec, rec, state in ((96, 0, "warning"), (128, 0, "passive"), (0, 200, "passive"), (5, 5, "active")):
        chip.errors(tec, rec)
        now += 100
        driver.poll(now)
        assert driver.state == state and driver.counters["tec"] == tec and driver.counters["rec"] == rec
    assert driver.send(Frame(1, b"old"))
    chip.errors(256, 0)
    now += 100
    driver.poll(now)
    assert driver.state == "bus-off" and driver.counters["bus_off"] == 1 and not driver.send(Frame(1, b""))
    begin = now
    while driver.state == "bus-off":
        now += driver.poll(now)
        assert now < begin + 1000
    assert now >= begin + 200
    while driver.state == "opening":
        now += driver.poll(now)
    assert driver.state == "active" and driver.pending() == 0
    assert driver.send(Frame(2, b"new")) and chip.leave()[5] == b"new" and chip.leave() is None


def test_chip_that_lost_its_supply_is_set_up_again():
    chip, driver = make(accept=MODULE_ACCEPT)
    chip.power_on()
    now = 1000
    driver.poll(now)
    assert driver.state == "opening" and "supply" in driver.fault
    while driver.state == "opening":
        now += driver.poll(now)
        assert now < 3000
    assert chip.mode == 0 and chip.get32(C1NBTCFG) == 62 << 16 | 15 << 8 | 15
    assert not chip.arrive(0x100 << 18, b"") and chip.arrive(0x510 << 18, b"")
