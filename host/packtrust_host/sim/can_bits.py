"""A CAN frame as the bits that really go over the wire (ISO 11898-1:2015, clause 10.4).

A frame is one Python integer, most significant bit first on the wire, next to its length in bits;
dominant is 0, recessive is 1.  CRC and bit stuffing go a byte at a time through tables, so a frame
costs a few microseconds under CPython.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from packtrust.frame import Frame

# After the CRC sequence nothing is stuffed: CRC delimiter, ACK slot, ACK delimiter, 7 bits of end
# of frame.  Then the 3-bit intermission, which belongs to the time a frame takes from the bus.
TAIL_BITS = 1 + 1 + 1 + 7
INTERMISSION_BITS = 3
ERROR_FLAG_BITS = 6
ERROR_DELIMITER_BITS = 8
SUSPEND_BITS = 8

FD_LENGTHS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64)
"""Data length in bytes of each 4-bit DLC of CAN FD (ISO 11898-1:2015, table 5)."""


def _crc_table(width: int, polynomial: int) -> list[int]:
    mask = (1 << width) - 1
    table = []
    for byte in range(256):
        crc = byte << (width - 8)
        for _ in range(8):
            crc = (crc << 1) ^ (polynomial if crc >> (width - 1) & 1 else 0)
            crc &= mask
        table.append(crc)
    return table


_CRC15 = _crc_table(15, 0x4599)
_CRC17 = _crc_table(17, 0x1685B)
_CRC21 = _crc_table(21, 0x102899)


def crc15(bits: int, length: int) -> int:
    """CRC-15 of classic CAN over ``length`` bits, start value 0 (ISO 11898-1, 10.4.2.6)."""
    crc = 0
    # The register starts at zero, so zeros in front of the first bit change nothing.
    for byte in bits.to_bytes((length + 7) // 8, "big"):
        crc = (crc << 8 & 0x7FFF) ^ _CRC15[crc >> 7 ^ byte]
    return crc


def _crc_fd(bits: int, length: int, width: int, start: int) -> int:
    polynomial = 0x1685B if width == 17 else 0x102899
    table = _CRC17 if width == 17 else _CRC21
    mask = (1 << width) - 1
    crc = start
    head = length % 8
    for shift in range(length - 1, length - 1 - head, -1):
        feedback = (crc >> (width - 1)) ^ (bits >> shift & 1)
        crc = (crc << 1 & mask) ^ (polynomial if feedback else 0)
    whole = length - head
    for byte in (bits & ((1 << whole) - 1)).to_bytes(whole // 8, "big"):
        crc = (crc << 8 & mask) ^ table[(crc >> (width - 8)) ^ byte]
    return crc


def crc17(bits: int, length: int, start: int = 1 << 16) -> int:
    """CRC-17 of CAN FD up to 16 data bytes.  ISO CAN FD starts with the top bit set."""
    return _crc_fd(bits, length, 17, start)


def crc21(bits: int, length: int, start: int = 1 << 20) -> int:
    """CRC-21 of CAN FD above 16 data bytes.  ISO CAN FD starts with the top bit set."""
    return _crc_fd(bits, length, 21, start)


# Stuffing states: 0 before the first bit; 2 * run + last for a run of 1..4 equal bits; 10 + last
# right after a stuff bit, which counts as a run of 1 but must be known apart for CAN FD.
_START = 0
_JUST_STUFFED = 10


def _stuff_step(state: int, bit: int) -> tuple[int, int, int]:
    """One bit in: bits out, how many, next state."""
    if state == _START:
        return bit, 1, 2 + bit
    last = state & 1
    run = 1 if state >= _JUST_STUFFED else state >> 1
    if bit != last:
        return bit, 1, 2 + bit
    if run < 4:
        return bit, 1, 2 * (run + 1) + bit
    return bit << 1 | (bit ^ 1), 2, _JUST_STUFFED + (bit ^ 1)


def _stuff_chunk(state: int, value: int, length: int) -> tuple[int, int, int]:
    out = count = 0
    for shift in range(length - 1, -1, -1):
        more, added, state = _stuff_step(state, value >> shift & 1)
        out = out << added | more
        count += added
    return out, count, state


_STUFF_HEAD = [[_stuff_chunk(_START, v, n) for v in range(1 << n)] for n in range(8)]
_STUFF_BYTE = [
    [_stuff_chunk(state, byte, 8) for byte in range(256)] if state not in (0, 1) else [] for state in range(12)
]
_STUFF_BYTE[_START] = [_stuff_chunk(_START, byte, 8) for byte in range(256)]


def _stuff(bits: int, length: int) -> tuple[int, int, int]:
    head = length % 8
    whole = length - head
    out, count, state = _STUFF_HEAD[head][bits >> whole]
    for byte in (bits & ((1 << whole) - 1)).to_bytes(whole // 8, "big"):
        more, added, state = _STUFF_BYTE[state][byte]
        out = out << added | more
        count += added
    return out, count, state


def stuff(bits: int, length: int) -> tuple[int, int]:
    """Insert a complementary bit after every five equal ones: stuffed bits and their length.

    A stuff bit also follows the very last bit if that completes a run of five.
    """
    out, count, _ = _stuff(bits, length)
    return out, count


class WireFrame(NamedTuple):
    """What a frame is on the wire.

    priority      32-bit arbitration field, aligned between standard and extended frames; the lower
                  one wins arbitration.
    bits, length  the stuffed bits from SOF to the end of the CRC sequence.
    nominal_bits  bit times at the nominal rate, SOF to the end of the intermission.
    data_bits     bit times at the data rate (CAN FD with bit rate switch, else 0).
    """

    priority: int
    bits: int
    length: int
    nominal_bits: int
    data_bits: int

    def text(self) -> str:
        """SOF..CRC as wire bits, '0' dominant."""
        return format(self.bits, "0%db" % self.length)


def priority(arbitration_id: int, extended: bool, remote: bool = False) -> int:
    """Arbitration field as a number: 11 ID bits, RTR or SRR, IDE, 18 ID bits, RTR.

    So a standard frame beats an extended one with the same first 11 bits, and data beats remote.
    """
    if not extended:
        return arbitration_id << 21 | remote << 20
    return arbitration_id >> 18 << 21 | 3 << 19 | (arbitration_id & 0x3FFFF) << 1 | remote


def _classic(arbitration_id: int, extended: bool, remote: bool, dlc: int, data: bytes) -> WireFrame:
    if extended:
        # SOF, base ID, SRR = 1, IDE = 1, ID extension, RTR, r1 = r0 = 0, DLC
        bits = arbitration_id >> 18 << 2 | 3
        bits = bits << 18 | arbitration_id & 0x3FFFF
        bits = bits << 7 | remote << 6 | dlc
        length = 1 + 11 + 2 + 18 + 7
    else:
        # SOF, ID, RTR, IDE = 0, r0 = 0, DLC
        bits = arbitration_id << 7 | remote << 6 | dlc
        length = 1 + 11 + 7
    if data:
        bits = bits << 8 * len(data) | int.from_bytes(data, "big")
        length += 8 * len(data)
    bits = bits << 15 | crc15(bits, length)
    out, count, _ = _stuff(bits, length + 15)
    total = count + TAIL_BITS + INTERMISSION_BITS
    return WireFrame(priority(arbitration_id, extended, remote), out, count, total, 0)


def _fd(arbitration_id: int, extended: bool, switch: bool, data: bytes) -> WireFrame:
    code = FD_LENGTHS.index(len(data))
    if extended:
        # SOF, base ID, SRR = 1, IDE = 1, ID extension, RRS = 0, FDF = 1, res = 0, BRS
        bits = arbitration_id >> 18 << 2 | 3
        bits = bits << 18 | arbitration_id & 0x3FFFF
        length = 1 + 11 + 2 + 18 + 4
        bits = bits << 4 | 0b0100 | switch
    else:
        # SOF, ID, RRS = 0, IDE = 0, FDF = 1, res = 0, BRS
        bits = arbitration_id << 5 | 0b00100 | switch
        length = 1 + 11 + 5
    _, head, state = _stuff(bits, length)
    # The stuff bit that a run ending in BRS asks for comes after BRS, in the data phase.
    head -= state >= _JUST_STUFFED
    bits = bits << 5 | code  # ESI = 0 (error active), DLC
    bits = bits << 8 * len(data) | int.from_bytes(data, "big")
    raw = length + 5 + 8 * len(data)
    out, count, state = _stuff(bits, raw)
    if state >= _JUST_STUFFED:
        # The fixed stuff bit at the head of the CRC field takes that place: never two in a row.
        out >>= 1
        count -= 1
    stuffed = (count - raw) % 8
    gray = stuffed ^ stuffed >> 1
    field = gray << 1 | (gray.bit_count() & 1)
    width = 17 if len(data) <= 16 else 21
    crc = _crc_fd(out << 4 | field, count + 4, width, 1 << (width - 1))
    field = field << width | crc
    left = 4 + width
    while left > 0:
        # A fixed stuff bit first, and after every fourth bit of the CRC field.
        take = min(4, left)
        left -= take
        out = out << 1 | (~out & 1)
        out = out << take | field >> left & ((1 << take) - 1)
        count += 1 + take
    # One bit time of the CRC delimiter passes at the data rate: the rate switches at the sample
    # points of BRS and of the CRC delimiter, which adds up to one bit each.
    tail = TAIL_BITS + INTERMISSION_BITS
    arbitration = priority(arbitration_id, extended)
    if switch:
        return WireFrame(arbitration, out, count, head + tail - 1, count - head + 1)
    return WireFrame(arbitration, out, count, count + tail, 0)


@lru_cache(maxsize=4096)
def _encode(
    arbitration_id: int, extended: bool, remote: bool, fd: bool, switch: bool, dlc: int, data: bytes
) -> WireFrame:
    limit = 1 << 29 if extended else 1 << 11
    if not 0 <= arbitration_id < limit:
        raise ValueError("identifier 0x%X does not fit in %d bits" % (arbitration_id, 29 if extended else 11))
    if fd:
        if remote:
            raise ValueError("CAN FD has no remote frames")
        if len(data) not in FD_LENGTHS:
            raise ValueError("%d bytes is no CAN FD length: pad to the next one" % len(data))
        return _fd(arbitration_id, extended, switch, data)
    if remote:
        if not 0 <= dlc <= 8:
            raise ValueError("a remote frame asks for 0..8 bytes, not %d" % dlc)
        return _classic(arbitration_id, extended, True, dlc, b"")
    if len(data) > 8:
        raise ValueError("a classic CAN frame holds 8 bytes, not %d" % len(data))
    return _classic(arbitration_id, extended, False, len(data), data)


def encode(frame: Frame) -> WireFrame:
    """The wire bits and bit times of a frame; ValueError if no such frame can exist."""
    return _encode(
        frame.arbitration_id,
        bool(frame.is_extended_id),
        bool(frame.is_remote_frame),
        bool(frame.is_fd),
        bool(frame.bitrate_switch),
        frame.dlc,
        bytes(frame.data),
    )


def duration_ns(wire: WireFrame, bitrate: int, data_bitrate: int | None = None) -> int:
    """Time from SOF to the end of the intermission, in nanoseconds."""
    time = wire.nominal_bits * 1_000_000_000 // bitrate
    if wire.data_bits:
        time += wire.data_bits * 1_000_000_000 // (data_bitrate or bitrate)
    return time
