"""GHASH (NIST SP 800-38D, 6.4) in 16-bit halves, with 4-bit tables.

A polynomial is eight halves; its lowest power stands in the highest bit of the first. The tables hold the products of
the subkey H with all nibbles in the four places of a half: 1 KB a key. A block takes 32 look-ups in each of the eight
tables and one reduction a half, without an integer that leaves the small ones and without garbage. On MicroPython that
is twice as fast as the shorter form with 128-bit integers, which moreover leaves 4 KB a block to the collector and
tables that nobody can overwrite.
"""

from array import array
from struct import pack, unpack, unpack_from

from packtrust._compat import const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer

BLOCK = const(16)


class Ghash:
    """The hash under one subkey H (16 bytes). `digest` may be called any number of times."""

    def __init__(self, subkey: "Buffer") -> None:
        empty = bytes(128)
        self._tables = [array("H", empty) for _ in range(8)]
        _fill(self._tables, subkey)

    def digest(self, aad: "Buffer", text: "Buffer") -> bytes:
        """GHASH of associated data, ciphertext, each padded to blocks, and lengths: 16 bytes."""
        state = [0] * 8
        _absorb(self._tables, state, aad)
        _absorb(self._tables, state, text)
        _absorb(self._tables, state, pack(">IIII", 0, len(aad) << 3, 0, len(text) << 3))
        return pack(">8H", state[0], state[1], state[2], state[3], state[4], state[5], state[6], state[7])

    def wipe(self) -> None:
        """Overwrite the tables."""
        for table in self._tables:
            for at in range(len(table)):
                table[at] = 0


def _fill(tables: "list[array[int]]", subkey: "Buffer") -> None:
    """tables[j][16 * place + n] = half j of H times nibble n in a place, of which the highest bit is x^(4 * place)."""
    powers = list(unpack(">8H", subkey))
    for place in range(0, 64, 16):
        for nibble in (8, 4, 2, 1):
            at = place + nibble
            carry = 0
            for j in range(8):
                half = powers[j]
                tables[j][at] = half
                powers[j] = half >> 1 | carry
                carry = (half & 1) << 15
            if carry:
                powers[0] ^= 0xE100  # x^128 = 1 + x + x^2 + x^7
    # The other nibbles are sums of these four.
    for table in tables:
        for place in range(0, 64, 16):
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


def _absorb(tables: "list[array[int]]", state: "list[int]", data: "Buffer") -> None:
    """state = (state ^ block) * H for each block of `data`, the last one padded with zeros.

    Horner's rule over the halves, from the highest powers down: times x^16 is the next half, and what leaves the last
    one folds into the first two.
    """
    t0, t1, t2, t3, t4, t5, t6, t7 = tables
    size = len(data)
    for at in range(0, size, BLOCK):
        if size - at >= BLOCK:
            block = unpack_from(">8H", data, at)
        else:
            block = unpack(">8H", bytes(data[at:]) + bytes(BLOCK + at - size))
        z0 = z1 = z2 = z3 = z4 = z5 = z6 = z7 = 0
        for i in range(7, -1, -1):
            r = state[i] ^ block[i]
            n = r >> 12
            p = r >> 8 & 15 | 16
            q = r >> 4 & 15 | 32
            r = r & 15 | 48
            u = z7 << 7
            u ^= u >> 1 ^ u >> 2 ^ u >> 7
            z7 = t7[n] ^ t7[p] ^ t7[q] ^ t7[r] ^ z6
            z6 = t6[n] ^ t6[p] ^ t6[q] ^ t6[r] ^ z5
            z5 = t5[n] ^ t5[p] ^ t5[q] ^ t5[r] ^ z4
            z4 = t4[n] ^ t4[p] ^ t4[q] ^ t4[r] ^ z3
            z3 = t3[n] ^ t3[p] ^ t3[q] ^ t3[r] ^ z2
            z2 = t2[n] ^ t2[p] ^ t2[q] ^ t2[r] ^ z1
            z1 = t1[n] ^ t1[p] ^ t1[q] ^ t1[r] ^ z0 ^ (u & 127) << 9
            z0 = t0[n] ^ t0[p] ^ t0[q] ^ t0[r] ^ u >> 7
        state[0] = z0
        state[1] = z1
        state[2] = z2
        state[3] = z3
        state[4] = z4
        state[5] = z5
        state[6] = z6
        state[7] = z7
