# mypy: ignore-errors
"""Arithmetic modulo p = 2^255 - 19 for X25519 in MicroPython's viper, for 32-bit and 64-bit cores.

Never imported by CPython or CircuitPython: they have no viper. `curve25519` asks for it.

A number is 20 signed limbs of 13 bits, least significant first, so 2^260 = 608 (mod p) folds. Viper multiplies words
of 32 bits and keeps the low 32, therefore a column of 20 products must stay within a word. A product leaves its limbs
within 4100 of zero; sums and differences of two products need no carry, and a column of a product of those is at most
20 * 8200^2 < 1.35e9. Columns start at a bias of 3 * 2^29: so they are never negative as unsigned words, and logical
shifts give the same on cores of 32 bits and of 64, where `ptr32` does not extend the sign.

`run` is a machine with such numbers as registers, so that a whole step of the ladder costs one call. No branch and no
address depends on the numbers, and none of MicroPython's own integers, which stay on the heap, ever holds a part of one
that is longer than a limb.
"""

from array import array

import micropython

from packtrust._compat import const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer

    ptr8 = bytes
    ptr32 = array[int]
    uint = int

# Instructions of `run` are four bytes: operation, destination, two sources. Registers are numbered from 0.
# 0  product
# 1  square of the first source, which is given twice
# 2  121665 * first + second; the factor is (A - 2) / 4 of RFC 7748
# 3  first + second, and first - second in the register after
# 4  exchange two registers, from the destination on, with two from the first source on, if `mask` is -1; not if 0
# 255  end

# A step of the ladder. Registers: 0 x1, 1 x2, 2 z2, 3 x3, 4 z3. Names in the comments are RFC 7748's.
_STEP = (
    b"\x04\x01\x03\x00"
    b"\x03\x05\x01\x02"  # 5 A, 6 B
    b"\x03\x07\x03\x04"  # 7 C, 8 D
    b"\x00\x01\x08\x05"  # 1 DA
    b"\x00\x02\x07\x06"  # 2 CB
    b"\x03\x03\x01\x02"
    b"\x01\x03\x03\x03"  # 3 x3
    b"\x01\x04\x04\x04"
    b"\x00\x04\x04\x00"  # 4 z3
    b"\x01\x05\x05\x05"  # 5 AA
    b"\x01\x06\x06\x06"  # 6 BB
    b"\x00\x01\x05\x06"  # 1 x2
    b"\x03\x07\x05\x06"  # 8 E
    b"\x02\x07\x08\x05"
    b"\x00\x02\x08\x07"  # 2 z2
    b"\xff"
)
_SWAP = b"\x04\x01\x03\x00\xff"

# z2^(p - 2) by Fermat into register 7: 254 squarings, 11 products, in rows of destination, source, squarings, factor.
_INVERSE = (
    b"\x05\x02\x01\xff"  # 5: z^2
    b"\x06\x05\x02\x02"  # 6: z^9
    b"\x05\x06\x00\x05"  # 5: z^11
    b"\x07\x05\x01\x06"  # 7: z^(2^5 - 1)
    b"\x06\x07\x05\x07"  # 6: z^(2^10 - 1)
    b"\x07\x06\x0a\x06"  # 7: z^(2^20 - 1)
    b"\x08\x07\x14\x07"  # 8: z^(2^40 - 1)
    b"\x08\x08\x0a\x06"  # 8: z^(2^50 - 1)
    b"\x06\x08\x32\x08"  # 6: z^(2^100 - 1)
    b"\x07\x06\x64\x06"  # 7: z^(2^200 - 1)
    b"\x07\x07\x32\x08"  # 7: z^(2^250 - 1)
    b"\x07\x07\x05\x05"  # 7: z^(2^255 - 21)
)
_RESULT = b"\x00\x01\x01\x07\xff"

_WORDS = const(220)  # nine registers
_FIRST = const(40)
_LIMBS = const(20)


@micropython.viper
def run(t: ptr32, x: int, program: ptr8, mask: int):
    """Run `program` on the state `t`, 40 words of its own and then the registers; `x` is 0.

    The order of the arguments matters: the first two live in machine registers, which saves half of the time.
    """
    columns = int(t)
    at = int(program)
    # Literals above 0x3fffffff are errors on 32-bit cores.
    drop = 3 << 16
    bias = (drop << 13) + 4096 - drop
    while True:
        op = ptr8(at)
        at += 4
        kind = int(op[0])
        if kind == 255:
            break
        o = ptr32(columns + 160 + 80 * op[1])
        a = ptr32(columns + 160 + 80 * op[2])
        b = ptr32(columns + 160 + 80 * op[3])
        if kind == 4:
            t = o
            n = 8
            while n:
                x = (t[0] ^ a[0]) & mask
                t[0] = t[0] ^ x
                a[0] = a[0] ^ x
                x = (t[1] ^ a[1]) & mask
                t[1] = t[1] ^ x
                a[1] = a[1] ^ x
                x = (t[2] ^ a[2]) & mask
                t[2] = t[2] ^ x
                a[2] = a[2] ^ x
                x = (t[3] ^ a[3]) & mask
                t[3] = t[3] ^ x
                a[3] = a[3] ^ x
                x = (t[4] ^ a[4]) & mask
                t[4] = t[4] ^ x
                a[4] = a[4] ^ x
                t = ptr32(int(t) + 20)
                a = ptr32(int(a) + 20)
                n -= 1
            continue
        if kind == 3:
            t = a
            n = 4
            while n:
                o[0] = t[0] + b[0]
                o[20] = t[0] - b[0]
                o[1] = t[1] + b[1]
                o[21] = t[1] - b[1]
                o[2] = t[2] + b[2]
                o[22] = t[2] - b[2]
                o[3] = t[3] + b[3]
                o[23] = t[3] - b[3]
                o[4] = t[4] + b[4]
                o[24] = t[4] - b[4]
                o = ptr32(int(o) + 20)
                t = ptr32(int(t) + 20)
                b = ptr32(int(b) + 20)
                n -= 1
            continue
        t = ptr32(columns)
        if kind == 2:
            n = 4
            while n:
                t[0] = a[0] * 121665 + b[0] + bias
                t[1] = a[1] * 121665 + b[1] + bias
                t[2] = a[2] * 121665 + b[2] + bias
                t[3] = a[3] * 121665 + b[3] + bias
                t[4] = a[4] * 121665 + b[4] + bias
                t = ptr32(int(t) + 20)
                a = ptr32(int(a) + 20)
                b = ptr32(int(b) + 20)
                n -= 1
        else:
            x = bias
            n = 4
            while n:
                t[0] = x
                t[1] = x
                t[2] = x
                t[3] = x
                t[4] = x
                t[5] = x
                t[6] = x
                t[7] = x
                t[8] = x
                t[9] = x
                t = ptr32(int(t) + 40)
                n -= 1
            # Row by row, five columns at a time. A square leaves out the groups left of the diagonal, takes twice
            # those right of it, and the group on the diagonal as it is; for a product that is always the first one.
            row = columns
            diagonal = int(b)
            g1 = 1
            g2 = 1
            g3 = 1
            groups = 4
            while groups:
                n = 20 if kind == 0 else 5
                while n:
                    t = ptr32(row)
                    x = a[0] << kind
                    if g1:
                        t[5] = b[5] * x + t[5]
                        t[6] = b[6] * x + t[6]
                        t[7] = b[7] * x + t[7]
                        t[8] = b[8] * x + t[8]
                        t[9] = b[9] * x + t[9]
                    if g2:
                        t[10] = b[10] * x + t[10]
                        t[11] = b[11] * x + t[11]
                        t[12] = b[12] * x + t[12]
                        t[13] = b[13] * x + t[13]
                        t[14] = b[14] * x + t[14]
                    if g3:
                        t[15] = b[15] * x + t[15]
                        t[16] = b[16] * x + t[16]
                        t[17] = b[17] * x + t[17]
                        t[18] = b[18] * x + t[18]
                        t[19] = b[19] * x + t[19]
                    x = a[0]
                    t = ptr32(row + diagonal - int(b))
                    d = ptr32(diagonal)
                    t[0] = d[0] * x + t[0]
                    t[1] = d[1] * x + t[1]
                    t[2] = d[2] * x + t[2]
                    t[3] = d[3] * x + t[3]
                    t[4] = d[4] * x + t[4]
                    row += 4
                    a = ptr32(int(a) + 4)
                    n -= 1
                if kind == 0:
                    break
                diagonal += 20
                if g1:
                    g1 = 0
                elif g2:
                    g2 = 0
                else:
                    g3 = 0
                groups -= 1
            # Carry the upper columns into limbs, and fold those into the lower columns.
            t = ptr32(columns)
            n = 4
            x = drop
            while n:
                u = uint(t[20] + x)
                t[0] = (int(u & 8191) - 4096) * 608 + t[0]
                x = int(u >> 13)
                u = uint(t[21] + x)
                t[1] = (int(u & 8191) - 4096) * 608 + t[1]
                x = int(u >> 13)
                u = uint(t[22] + x)
                t[2] = (int(u & 8191) - 4096) * 608 + t[2]
                x = int(u >> 13)
                u = uint(t[23] + x)
                t[3] = (int(u & 8191) - 4096) * 608 + t[3]
                x = int(u >> 13)
                u = uint(t[24] + x)
                t[4] = (int(u & 8191) - 4096) * 608 + t[4]
                x = int(u >> 13)
                t = ptr32(int(t) + 20)
                n -= 1
            t = ptr32(columns)
            t[0] = (x - drop) * 369664 + t[0]  # 2^520 = 608^2
        t = ptr32(columns)
        b = o
        n = 4
        x = drop
        while n:
            u = uint(t[0] + x)
            b[0] = int(u & 8191) - 4096
            x = int(u >> 13)
            u = uint(t[1] + x)
            b[1] = int(u & 8191) - 4096
            x = int(u >> 13)
            u = uint(t[2] + x)
            b[2] = int(u & 8191) - 4096
            x = int(u >> 13)
            u = uint(t[3] + x)
            b[3] = int(u & 8191) - 4096
            x = int(u >> 13)
            u = uint(t[4] + x)
            b[4] = int(u & 8191) - 4096
            x = int(u >> 13)
            t = ptr32(int(t) + 20)
            b = ptr32(int(b) + 20)
            n -= 1
        # What left the last limb comes back at the first, and is carried to the third.
        u = uint((o[0] + 4096 & 8191) + (x - drop) * 608 + (drop << 13))
        o[0] = int(u & 8191) - 4096
        u = uint((o[1] + 4096 & 8191) + int(u >> 13))
        o[1] = int(u & 8191) - 4096
        o[2] = o[2] + int(u >> 13) - (drop >> 13)


def multiply(scalar: "Buffer", point: "Buffer") -> bytearray:
    """x of the clamped `scalar` times the point of that x, both of 32 bytes, the top bit of `point` clear."""
    state = array("i", bytes(4 * _WORDS))
    padded = bytearray(35)
    padded[:32] = point
    for at in range(_LIMBS):
        bit = 13 * at
        place = bit >> 3
        limb = (padded[place] | padded[place + 1] << 8 | padded[place + 2] << 16) >> (bit & 7) & 8191
        state[_FIRST + at] = limb
        state[_FIRST + 3 * _LIMBS + at] = limb
    state[_FIRST + _LIMBS] = 1
    state[_FIRST + 4 * _LIMBS] = 1
    swapped = 0
    for at in range(254, -1, -1):
        bit = scalar[at >> 3] >> (at & 7) & 1
        run(state, 0, _STEP, -(bit ^ swapped))
        swapped = bit
    run(state, 0, _SWAP, -swapped)
    for at in range(0, len(_INVERSE), 4):
        run(state, 0, _power(_INVERSE[at], _INVERSE[at + 1], _INVERSE[at + 2], _INVERSE[at + 3]), 0)
    run(state, 0, _RESULT, 0)
    result = _pack(state)
    for at in range(_WORDS):
        state[at] = 0
    return result


def _power(destination: int, source: int, squarings: int, factor: int) -> bytes:
    """The program for a row of `_INVERSE`."""
    program = b""
    if squarings:
        program = bytes((1, destination, source, source)) + bytes((1, destination, destination, destination)) * (
            squarings - 1
        )
        source = destination
    if factor != 255:
        program += bytes((0, destination, source, factor))
    return program + b"\xff"


def _pack(state: "array[int]") -> bytearray:
    """Register 1 reduced modulo p, as 32 bytes."""
    first = _FIRST + _LIMBS
    last = first + _LIMBS - 1
    # Limbs without sign, below 2^260; a borrow out of the last one comes back at most twice.
    for _ in range(3):
        carry = _carry(state, first, first, 0)
        state[first] += 608 * carry
    top = state[last] >> 8
    state[last] &= 255
    state[first] += 19 * top
    _carry(state, first, first, 0)
    # Now below 2^255 + 608: p or more exactly if 19 more reach 2^255.
    _carry(state, first, first + _LIMBS, 19)
    mask = -(state[last + _LIMBS] >> 8)
    result = bytearray(32)
    bits = 0
    size = 0
    place = 0
    for at in range(first, first + _LIMBS):
        limb = state[at]
        bits |= (limb ^ (limb ^ state[at + _LIMBS]) & mask) << size
        size += 13
        while size >= 8 and place < 32:
            result[place] = bits & 255
            bits >>= 8
            size -= 8
            place += 1
    result[31] &= 127
    return result


def _carry(state: "array[int]", source: int, to: int, carry: int) -> int:
    """The number at `source` plus `carry` with limbs of 13 bits at `to`; what leaves the last limb."""
    for at in range(_LIMBS):
        carry += state[source + at]
        state[to + at] = carry & 8191
        carry >>= 13
    return carry
