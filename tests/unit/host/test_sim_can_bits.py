"""Bit stream and length of CAN frames, against the standard's own words and hand-made vectors."""

import random

import pytest

from packtrust.frame import Frame
from packtrust_host.sim import can_bits
from packtrust_host.sim.can_bits import FD_LENGTHS, encode


def bits_of(value: int, width: int) -> list[int]:
    return [value >> shift & 1 for shift in range(width - 1, -1, -1)]


def plain_crc(bits: list[int], width: int, polynomial: int, start: int = 0) -> int:
    """The shift register of ISO 11898-1, bit by bit."""
    crc = start
    for bit in bits:
        top = crc >> (width - 1) & 1
        crc = crc << 1 & ((1 << width) - 1)
        if bit ^ top:
            crc ^= polynomial
    return crc


def plain_stuff(bits: list[int]) -> list[int]:
    out: list[int] = []
    for bit in bits:
        out.append(bit)
        if len(out) >= 5 and len(set(out[-5:])) == 1:
            out.append(1 - bit)
    return out


def plain_classic(frame: Frame) -> list[int]:
    ident, remote = frame.arbitration_id, int(frame.is_remote_frame)
    if frame.is_extended_id:
        bits = [0, *bits_of(ident >> 18, 11), 1, 1, *bits_of(ident & 0x3FFFF, 18), remote, 0, 0]
    else:
        bits = [0, *bits_of(ident, 11), remote, 0, 0]
    bits += bits_of(frame.dlc, 4)
    if not remote:
        for byte in frame.data:
            bits += bits_of(byte, 8)
    return plain_stuff(bits + bits_of(plain_crc(bits, 15, 0x4599), 15))


def plain_fd(frame: Frame) -> tuple[list[int], int]:
    """Stuffed bits SOF..CRC of an FD frame, and how many of them up to and with BRS."""
    ident = frame.arbitration_id
    if frame.is_extended_id:
        head = [0, *bits_of(ident >> 18, 11), 1, 1, *bits_of(ident & 0x3FFFF, 18), 0, 1, 0]
    else:
        head = [0, *bits_of(ident, 11), 0, 0, 1, 0]
    head.append(int(frame.bitrate_switch))
    bits = [*head, 0, *bits_of(FD_LENGTHS.index(len(frame.data)), 4)]
    for byte in frame.data:
        bits += bits_of(byte, 8)
    # No stuff bit after the last bit: the fixed one stands there.
    stuffed = [*plain_stuff(bits[:-1]), bits[-1]]
    upto_brs = len([*plain_stuff(head[:-1]), head[-1]])
    count = len(stuffed) - len(bits)
    gray = (count % 8) ^ (count % 8) >> 1
    parity = bin(gray).count("1") % 2
    width, polynomial = (17, 0x1685B) if len(frame.data) <= 16 else (21, 0x102899)
    field = [*bits_of(gray, 3), parity]
    crc = plain_crc(stuffed + field, width, polynomial, 1 << (width - 1))
    field += bits_of(crc, width)
    for position, bit in enumerate(field):
        if position % 4 == 0:
            stuffed.append(1 - stuffed[-1])
        stuffed.append(bit)
    return stuffed, upto_brs


def text(bits: list[int]) -> str:
    return "".join(map(str, bits))


def test_crc_check_values():
    """The CRC catalogue's check values over "123456789"."""
    message = int.from_bytes(b"123456789", "big"), 72
    assert can_bits.crc15(*message) == 0x059E
    assert can_bits.crc17(*message, 0) == 0x04F03
    assert can_bits.crc21(*message, 0) == 0x0ED841


def test_all_zero_frame_by_hand():
    """34 dominant bits (the CRC of zeros is zero): a stuff bit after each five."""
    wire = encode(Frame(0, b"", False))
    assert wire.text() == "000001" * 6 + "0000"
    assert wire.nominal_bits == 34 + 6 + 13


def test_remote_frame_by_hand():
    """x^21 mod x^15 + x^14 + x^10 + x^8 + x^7 + x^4 + x^3 + 1 is 0x73C5."""
    wire = encode(Frame(0, b"", False, is_remote_frame=True))
    assert wire.text() == "000001" + "000001" + "00" + "1" + "000001" + "0" + "111001111000101"
    assert wire.nominal_bits == 37 + 13


@pytest.mark.parametrize(
    ("extended", "length", "bits"),
    [(False, 0, 47), (False, 8, 111), (True, 0, 67), (True, 8, 131)],
)
def test_length_without_stuff_bits(extended, length, bits):
    """The well-known lengths with intermission, after taking the stuff bits away."""
    frame = Frame(0x155 << 18 | 0x15555 if extended else 0x155, b"\x55" * length, extended)
    wire = encode(frame)
    raw = 39 + 15 + 8 * length if extended else 19 + 15 + 8 * length
    assert wire.nominal_bits - (wire.length - raw) == bits


def test_classic_frames_against_plain_rules():
    rng = random.Random(11898)
    for number in range(3000):
        extended = bool(number & 1)
        remote = number % 7 == 0
        # Long runs are what stuffing is about, so bytes are drawn from a few patterns, too.
        data = bytes(rng.choice((0, 0xFF, 0x0F, 0xF8, rng.randrange(256))) for _ in range(number % 9))
        ident = rng.getrandbits(29 if extended else 11)
        if number % 5 == 0:
            ident &= rng.getrandbits(29)
        frame = Frame(
            ident,
            b"" if remote else data,
            extended,
            is_remote_frame=remote,
            dlc=len(data),
        )
        wire = encode(frame)
        assert wire.text() == text(plain_classic(frame)), frame
        assert wire.nominal_bits == wire.length + 1 + 2 + 7 + 3
        assert wire.data_bits == 0


def test_stuff_bit_after_the_last_crc_bit():
    """Some frame ends in five equal CRC bits; its stuff bit belongs to the frame."""
    for ident in range(0x800):
        frame = Frame(ident, b"", False)
        plain = plain_classic(frame)
        if len(set(plain[-6:-1])) == 1:
            assert encode(frame).text() == text(plain)
            return
    raise AssertionError("no such frame among 2048")


def test_fd_frames_against_plain_rules():
    rng = random.Random(2015)
    for number in range(1500):
        extended, switch = bool(number & 1), bool(number & 2)
        length = FD_LENGTHS[number % 16]
        data = bytes(rng.choice((0, 0xFF, 0x1F, rng.randrange(256))) for _ in range(length))
        frame = Frame(rng.getrandbits(29 if extended else 11), data, extended, True, False, switch)
        wire = encode(frame)
        plain, head = plain_fd(frame)
        assert wire.text() == text(plain), frame
        total = len(plain) + 1 + 2 + 7 + 3
        assert wire.nominal_bits + wire.data_bits == total
        if switch:
            # ESI up to the last CRC bit, and the CRC delimiter's bit time
            assert wire.data_bits == len(plain) - head + 1
        else:
            assert wire.data_bits == 0


def test_fd_fixed_stuff_bits():
    """CRC field: 4 + 17 bits with 6 fixed stuff bits, 4 + 21 with 7."""
    for length, field in ((8, 4 + 17 + 6), (64, 4 + 21 + 7)):
        frame = Frame(0x155, b"\x55" * length, False, True)
        # 0x55 data needs no stuff bits; ID 0x155 and the control bits of these two need none, too
        body = 17 + 5 + 8 * length
        dynamic = encode(frame).length - body - field
        plain, _ = plain_fd(frame)
        assert dynamic == len(plain) - body - field
        assert 0 <= dynamic <= 2


def test_duration_of_fd_frame():
    wire = encode(Frame(0x123, bytes(64), False, True, False, True))
    slow = can_bits.duration_ns(wire, 500_000)
    fast = can_bits.duration_ns(wire, 500_000, 2_000_000)
    assert fast == wire.nominal_bits * 2000 + wire.data_bits * 500
    assert slow == (wire.nominal_bits + wire.data_bits) * 2000


def test_priority_order():
    """Standard beats extended with the same 11 bits, data beats remote, lower beats higher."""
    order = [
        (0x0FF, False, True),
        (0x100, False, False),
        (0x100, False, True),
        (0x100 << 18, True, False),
        (0x100 << 18, True, True),
        (0x100 << 18 | 1, True, False),
        (0x101, False, False),
    ]
    keys = [can_bits.priority(*item) for item in order]
    assert keys == sorted(keys) and len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "frame",
    [
        Frame(0x800, b"", False),
        Frame(1 << 29, b""),
        Frame(-1, b""),
        Frame(1, bytes(9)),
        Frame(1, bytes(9), is_fd=True),
        Frame(1, b"", is_fd=True, is_remote_frame=True),
        Frame(1, b"", is_remote_frame=True, dlc=9),
    ],
)
def test_impossible_frames_are_refused(frame):
    with pytest.raises(ValueError):
        encode(frame)


def test_fd_frame_by_hand():
    """ID 0x123, no data, counted on paper.

    SOF 0, ID 00100100011, RRS IDE 00, FDF 1, res BRS ESI 000, DLC 0000: the run of seven zeros at the end takes one
    stuff bit after its fifth. The fixed one after the two zeros left is 1, the stuff count 1 is Gray 001 with parity 1,
    and behind the next fixed bit comes CRC-17 in groups of four: 4 + 17 bits with six fixed stuff bits.
    """
    wire = encode(Frame(0x123, b"", False, True))
    assert wire.text().startswith("0" + "00100100011" + "00" + "1" + "00000" + "1" + "00" + "1" + "0011" + "0")
    assert wire.length == 22 + 1 + 21 + 6
    assert (wire.nominal_bits, wire.data_bits) == (50 + 1 + 2 + 7 + 3, 0)


def test_fd_frame_with_rate_switch_by_hand():
    """ID 0x155 << 18 | 0x15555, eight bytes 0x55: of the body only the run from FDF to DLC can need stuff bits.

    Head: 1 + 11 + 2 + 18 (ID ..0101) + RRS 0, FDF 1, res 0, BRS 1 = 36 bits; SRR and IDE after ID bit 1 make a run of
    three. Then ESI 0 and DLC 1000, where 000 meets the data's 0: a run of four, no stuff bit. 5 + 64 bits of body, 27
    of the CRC field and the delimiter's one go at the data rate.
    """
    wire = encode(Frame(0x155 << 18 | 0x15555, b"\x55" * 8, True, True, False, True))
    assert wire.data_bits == 5 + 64 + 27 + 1
    assert wire.nominal_bits == 36 + 13 - 1
    assert can_bits.duration_ns(wire, 500_000, 2_000_000) == 48 * 2000 + 97 * 500


def adversarial(rng, length):
    """Data that stuffs as badly as can be, from a random place on."""
    start = rng.randrange(length + 1)
    # Runs of four, each completed to five by the stuff bit before it, at any bit offset.
    pattern = int.from_bytes(b"\x0f" * 66, "big") >> rng.randrange(8)
    body = pattern.to_bytes(66, "big")[1:]
    return bytes(rng.choice((0, 0xFF)) for _ in range(start)) + body[: length - start]


def test_worst_case_of_classic_frames():
    """55 + 10 s and 80 + 10 s bits bound every frame; within a few bits some frame comes there.

    Davis, Burns, Bril, Lukkien, "Controller Area Network (CAN) schedulability analysis: Refuted, revisited and
    revised", Real-Time Systems 35 (2007), equations 2 and 3.
    """
    rng = random.Random(2007)
    for extended, fixed in ((False, 55), (True, 80)):
        for length in range(9):
            worst = 0
            for number in range(400):
                ident = (0, 0x7F0, 0x0F0, 0x780)[number % 4] if number % 5 else rng.getrandbits(11)
                if extended:
                    ident = ident << 18 | rng.choice((0, 0x3FFFF, 0x1E1E1, 0x21E1E))
                worst = max(worst, encode(Frame(ident, adversarial(rng, length), extended)).nominal_bits)
            bound = fixed + 10 * length
            assert bound - 12 <= worst <= bound, (extended, length, worst)


def test_worst_case_of_fd_frames():
    """The same reasoning for CAN FD.

    One dynamic stuff bit for the first five bits and for each four more, up to the end of the data, and fixed ones in
    the CRC field (ISO 11898-1:2015, 10.5).
    """
    rng = random.Random(2015)
    for extended, head in ((False, 17), (True, 36)):
        for length in FD_LENGTHS:
            field = 4 + 17 + 6 if length <= 16 else 4 + 21 + 7
            body = head + 5 + 8 * length
            bound = body + (body - 1) // 4 + field + 13
            worst = 0
            for number in range(200):
                ident = (0, 0x7F0, 0x0F0, 0x780)[number % 4]
                if extended:
                    ident = ident << 18 | rng.choice((0, 0x3FFFF, 0x1E1E1, 0x21E1E))
                wire = encode(Frame(ident, adversarial(rng, length), extended, True, False, True))
                worst = max(worst, wire.nominal_bits + wire.data_bits)
            # Control bits cannot stuff at will.
            assert bound - 12 <= worst <= bound, (extended, length, worst, bound)
