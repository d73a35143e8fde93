"""GHASH (NIST SP 800-38D, 6.4) in limbs of 28 bits, with 4-bit tables.

A polynomial is five limbs, the first of 16 bits and four of 28; its lowest power stands in the highest bit of the
first. The tables hold the products of the subkey with all nibbles in the seven places of a limb: 2.2 KB a key. A block
takes 35 look-ups in each of the five tables and one reduction a limb. No integer leaves MicroPython's small ones,
nothing is allocated, and the tables can be overwritten; 128-bit integers would leave 4 KB of garbage a block.

Horner's rule multiplies by x^28 for each limb, so the first limb counts as one of 28 bits too, and the whole comes out
times x^12: the tables hold H * x^-12.
"""

from packtrust._compat import const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer

BLOCK = const(16)
_LIMBS = const(5)
_PLACES = const(112)  # seven of 16 nibbles
_LENGTHS = const(9)


class Ghash:
    """The hash under one subkey H (16 bytes). May be used any number of times.

    state   the hash as limbs after `update`; then limbs 1 to 4 of the block of lengths, and whether it is still to come
    """

    def __init__(self, subkey: "Buffer") -> None:
        self.state = [0] * (_LENGTHS + 1)
        self._tables = [[0] * _PLACES for _ in range(_LIMBS)]
        self._block = bytearray(BLOCK)
        _fill(self._tables, self.state, subkey)

    def digest(self, aad: "Buffer", text: "Buffer") -> bytes:
        """GHASH of associated data, ciphertext, each padded to blocks, and lengths: 16 bytes."""
        self.update(aad, len(aad), len(aad), text, 0, len(text))
        out = bytearray(BLOCK)
        self.xor(out, 0, out)
        return bytes(out)

    def update(self, aad: "Buffer", aad_length: int, padded: int, text: "Buffer", at: int, size: int) -> None:
        """Hash the first `aad_length` bytes of `aad` and the `size` bytes of `text` from `at` on into `state`.

        `aad` is known to have zeros up to `padded`. Allocates nothing.
        """
        state = self.state
        state[0] = state[1] = state[2] = state[3] = state[4] = 0
        t0, t1, t2, t3, t4 = self._tables
        if padded == BLOCK:
            _multiply(t0, t1, t2, t3, t4, state, aad, 0, padded)
        else:
            self._absorb(aad, 0, padded)
        end = at + (size & -BLOCK)
        if size & 15:
            if size > 15:
                _multiply(t0, t1, t2, t3, t4, state, text, at, end)
            at = end
            end = self._pad(text, at, at + (size & 15))
            text = self._block
            at = 0
        # The block of lengths: 64 bits each, counted in bits.
        aad_length <<= 3
        size <<= 3
        state[5] = aad_length >> 20
        state[6] = (aad_length & 0xFFFFF) << 8
        state[7] = size >> 28
        state[8] = size & 0xFFFFFFF
        state[_LENGTHS] = 1
        _multiply(t0, t1, t2, t3, t4, state, text, at, end)

    def xor(self, out: bytearray, at: int, mask: bytearray) -> None:
        """`state` as 16 bytes, each xor its byte of `mask`, to `out` from `at` on."""
        s, t, u, v, w, _, _, _, _, _ = self.state
        out[at] = mask[0] ^ s >> 8
        out[at + 1] = mask[1] ^ s & 255
        out[at + 2] = mask[2] ^ t >> 20
        out[at + 3] = mask[3] ^ t >> 12 & 255
        out[at + 4] = mask[4] ^ t >> 4 & 255
        out[at + 5] = mask[5] ^ ((t & 15) << 4 | u >> 24)
        out[at + 6] = mask[6] ^ u >> 16 & 255
        out[at + 7] = mask[7] ^ u >> 8 & 255
        out[at + 8] = mask[8] ^ u & 255
        out[at + 9] = mask[9] ^ v >> 20
        out[at + 10] = mask[10] ^ v >> 12 & 255
        out[at + 11] = mask[11] ^ v >> 4 & 255
        out[at + 12] = mask[12] ^ ((v & 15) << 4 | w >> 24)
        out[at + 13] = mask[13] ^ w >> 16 & 255
        out[at + 14] = mask[14] ^ w >> 8 & 255
        out[at + 15] = mask[15] ^ w & 255

    def wipe(self) -> None:
        """Overwrite the tables."""
        for table in self._tables:
            for at in range(_PLACES):
                table[at] = 0
        for at in range(len(self.state)):
            self.state[at] = 0

    def _absorb(self, data: "Buffer", at: int, end: int) -> None:
        """The bytes from `at` to `end`, padded with zeros to whole blocks."""
        whole = at + (end - at & -BLOCK)
        t0, t1, t2, t3, t4 = self._tables
        if whole > at:
            _multiply(t0, t1, t2, t3, t4, self.state, data, at, whole)
        if whole < end:
            self._pad(data, whole, end)
            _multiply(t0, t1, t2, t3, t4, self.state, self._block, 0, BLOCK)

    def _pad(self, data: "Buffer", at: int, end: int) -> int:
        """The bytes from `at` to `end`, less than 16, and zeros in `_block`; its length."""
        block = self._block
        place = 0
        while at < end:
            block[place] = data[at]
            place += 1
            at += 1
        while place < BLOCK:
            block[place] = 0
            place += 1
        return place


def _fill(tables: "list[list[int]]", powers: "list[int]", subkey: "Buffer") -> None:
    """tables[j][16 * place + n] = limb j of H * x^-12 times nibble n in a place; its highest bit is x^(4 * place).

    `powers` is scratch space.
    """
    for j, at in ((0, 0), (1, 4), (2, 11), (3, 18), (4, 25)):
        # Limb j starts at nibble `at`.
        for nibble in range(at, at + (7 if j else 4)):
            byte = subkey[nibble >> 1]
            powers[j] = powers[j] << 4 | (byte & 15 if nibble & 1 else byte >> 4)
    for _ in range(12):
        # Divide by x. The highest bit is x^0, which a product by x has only from x^128 = 1 + x + x^2 + x^7.
        carry = powers[0] >> 15
        if carry:
            powers[0] ^= 0xE100
        for j in (4, 3, 2, 1):
            limb = powers[j] << 1 | carry
            carry = limb >> 28
            powers[j] = limb & 0xFFFFFFF
        powers[0] = (powers[0] << 1 | carry) & 0xFFFF
    for place in range(0, _PLACES, 16):
        for nibble in (8, 4, 2, 1):
            at = place + nibble
            carry = 0
            for j in range(_LIMBS):
                limb = powers[j]
                tables[j][at] = limb
                powers[j] = limb >> 1 | carry
                carry = (limb & 1) << 27
            if carry:
                powers[0] ^= 0xE100
    for j in range(_LIMBS):
        powers[j] = 0
    # The other nibbles are sums of these four.
    for table in tables:
        for place in range(0, _PLACES, 16):
            one = table[place + 1]
            two = table[place + 2]
            four = table[place + 4]
            eight = table[place + 8]
            three = one ^ two
            twelve = four ^ eight
            table[place + 3] = three
            table[place + 5] = one ^ four
            table[place + 6] = two ^ four
            table[place + 7] = three ^ four
            table[place + 9] = one ^ eight
            table[place + 10] = two ^ eight
            table[place + 11] = three ^ eight
            table[place + 12] = twelve
            table[place + 13] = one ^ twelve
            table[place + 14] = two ^ twelve
            table[place + 15] = three ^ twelve


def _multiply(
    t0: "list[int]",
    t1: "list[int]",
    t2: "list[int]",
    t3: "list[int]",
    t4: "list[int]",
    state: "list[int]",
    data: "Buffer",
    at: int,
    end: int,
) -> None:
    """state = (state ^ block) * H for each block of `data` from `at` to `end`, and for that of lengths if it is due.

    From the highest powers down: times x^28 is the next limb, and what leaves the last one folds into the first two.
    """
    # The first sixteen names of a function are a little faster to MicroPython than the others.
    a = b = c = d = e = f = g = 0
    while True:
        if at < end:
            a = data[at + 5]
            state[0] ^= data[at] << 8 | data[at + 1]
            state[1] ^= data[at + 2] << 20 | data[at + 3] << 12 | data[at + 4] << 4 | a >> 4
            state[2] ^= (a & 15) << 24 | data[at + 6] << 16 | data[at + 7] << 8 | data[at + 8]
            a = data[at + 12]
            state[3] ^= data[at + 9] << 20 | data[at + 10] << 12 | data[at + 11] << 4 | a >> 4
            state[4] ^= (a & 15) << 24 | data[at + 13] << 16 | data[at + 14] << 8 | data[at + 15]
            at += BLOCK
        else:
            state[_LENGTHS] = 0
            state[1] ^= state[5]
            state[2] ^= state[6]
            state[3] ^= state[7]
            state[4] ^= state[8]
        z0 = z1 = z2 = z3 = z4 = 0
        i = _LIMBS
        while i:
            i -= 1
            g = state[i]
            a = g >> 24
            b = g >> 20 & 15 | 16
            c = g >> 16 & 15 | 32
            d = g >> 12 & 15 | 48
            e = g >> 8 & 15 | 64
            f = g >> 4 & 15 | 80
            g = g & 15 | 96
            low = z4 & 127
            high = z4 ^ z4 >> 1 ^ z4 >> 2 ^ z4 >> 7
            z4 = t4[a] ^ t4[b] ^ t4[c] ^ t4[d] ^ t4[e] ^ t4[f] ^ t4[g] ^ z3
            z3 = t3[a] ^ t3[b] ^ t3[c] ^ t3[d] ^ t3[e] ^ t3[f] ^ t3[g] ^ z2
            z2 = t2[a] ^ t2[b] ^ t2[c] ^ t2[d] ^ t2[e] ^ t2[f] ^ t2[g] ^ z1
            z1 = t1[a] ^ t1[b] ^ t1[c] ^ t1[d] ^ t1[e] ^ t1[f] ^ t1[g] ^ z0
            z0 = t0[a] ^ t0[b] ^ t0[c] ^ t0[d] ^ t0[e] ^ t0[f] ^ t0[g]
            z1 ^= (high & 0xFFF) << 16 ^ ((low ^ low << 5 ^ low << 6) & 127) << 9
            z0 ^= high >> 12
        state[0] = z0
        state[1] = z1
        state[2] = z2
        state[3] = z3
        state[4] = z4
        if at >= end and not state[_LENGTHS]:
            return
