"""What all drivers share: what a port lets in, and filters joined until they fit a controller."""

from packtrust.frame import Frame
from packtrust_node.can_base import Accept, fitted, joined
from packtrust_node.can_mcp2515 import Mcp2515
from packtrust_node.can_mcp2518fd import Mcp2518fd
from packtrust_node.can_slcan import MODULE_ACCEPT
from portable import raises

try:
    from micropython import heap_lock, heap_unlock
except ImportError:

    def heap_lock():
        """Nothing to lock: CPython allocates as it likes."""

    heap_unlock = heap_lock


def taken(pairs, ident):
    return any([ident & mask == code for code, mask in pairs])


def test_accept():
    accept = Accept()
    assert accept.takes(0x7FF, False) and accept.takes(0x1FFFFFFF, True)
    assert accept.set_bases(MODULE_ACCEPT) and not accept.set_bases(MODULE_ACCEPT)
    assert accept.takes(0x51F << 18 | 0x3FFFF, True) and not accept.takes(0x540 << 18, True)
    assert not accept.takes(0x51F, False)
    assert accept.set_nodes((0, 5, 255)) and not accept.set_nodes([0, 5, 255])
    assert accept.takes(0x520 << 18 | 0x2A505, True) and not accept.takes(0x520 << 18 | 0x2A506, True)
    assert len(accept.pairs) == 6
    assert accept.set_bases(None) and accept.takes(5, True) and not accept.takes(6, True)
    assert accept.set_nodes(None) and accept.takes(6, True) and accept.pairs == []


def test_joined_filters_let_through_all_they_did_and_get_fewer():
    accept = Accept()
    accept.set_bases(MODULE_ACCEPT + ((0x100, 0x7FF), (0x2AA, 0x7FF)))
    accept.set_nodes((0, 5, 255))
    samples = [base << 18 | bits << 8 | node for base in range(0x800) for bits in (0, 0x2A5) for node in (0, 1, 5, 255)]
    wanted = [ident for ident in samples if taken(accept.pairs, ident)]
    pairs = accept.pairs
    while len(pairs) > 1:
        fewer = joined(pairs)
        assert len(fewer) < len(pairs)
        pairs = fewer
        for ident in wanted:
            assert taken(pairs, ident)
    assert len(fitted(accept.pairs, 4)) <= 4 and fitted(accept.pairs, 32) == accept.pairs and fitted([], 4) == []
    raises(ValueError, joined, pairs)


class QuietChip:
    """Answers every question of the MCP2515 or MCP2518FD with the same bytes, and allocates nothing."""

    def __init__(self, answer):
        self.answer = answer
        self.exchanges = 0

    def exchange(self, out, into):
        self.exchanges += 1
        answer = self.answer
        for at in range(len(into)):
            into[at] = answer[at]


def test_a_frame_in_and_out_of_the_mcp2515_allocates_nothing():
    # READ STATUS: RX0IF, no TXREQ; READ RX BUFFER: 29-bit ID, 8 data bytes. Both answers in one.
    chip = QuietChip(bytes((0, 1, 0x08, 0, 5, 8)) + b"12345678")
    driver = Mcp2515(chip, depth=4)
    driver._step = 3
    driver.state = "active"
    frame = Frame(0x14400005, b"12345678")
    short = Frame(0x123, b"abc", is_extended_id=False)
    for run in range(2):
        if run:
            heap_lock()
        try:
            first = driver.recv()
            second = driver.recv()
            sent = driver.send(frame) and driver.send(short)
            driver.poll(1)
        finally:
            if run:
                heap_unlock()
        assert sent and first is second and bytes(second.data) == b"12345678"


def test_a_frame_in_and_out_of_the_mcp2518fd_allocates_nothing():
    # C1FIFOSTA: room, or a frame there; user address 0; as message object: 29-bit ID, FDF, BRS, DLC 15.
    chip = QuietChip(bytes((0, 0, 0x01, 0, 0, 0, 0x90 | 0x40 | 15, 0, 0, 0)) + bytes(range(64)))
    driver = Mcp2518fd(chip, data_bitrate=2000000)
    driver._step = 4
    driver.state = "active"
    frame = Frame(0x14400005, bytes(range(64)), is_fd=True)
    # The address of the next object is read from the same bytes: low enough.
    for run in range(2):
        if run:
            heap_lock()
        try:
            received = driver.recv()
            sent = driver.send(frame)
            driver.poll(1)
        finally:
            if run:
                heap_unlock()
        assert sent and received.is_fd and len(received.data) == 64 and received.data[63] == 63
