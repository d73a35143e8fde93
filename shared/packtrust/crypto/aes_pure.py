"""AES-128 and AES-256 encryption (FIPS 197) in plain bytecode.

The usual 32-bit T-tables are slow on 32-bit MicroPython, where every integer above 2^30 is a heap
object. So the state, the round keys and the tables are 16-bit halves here: no integer in the block
loop leaves the small ones, and the loop allocates nothing. GCM needs the forward direction only
(NIST SP 800-38D, 6.5), so there is no decryption.

The tables are tuples and the round keys lists: MicroPython takes an element out of those in 100
instructions, out of an array in 123; and unpacks a list of eight in less than one look-up.

Not constant time: table look-ups depend on the data, and no Python code can promise otherwise.
"""

from packtrust._compat import const
from packtrust.errors import KeyFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer

BLOCK = const(16)


def _sbox() -> bytes:
    """The S-box (FIPS 197, 5.1.1)."""
    sbox = bytearray(256)
    # Walk the multiplicative group: p runs through powers of 3, q through their inverses.
    p = q = 1
    while True:
        p = p ^ (p << 1) & 0xFF ^ (0x1B if p & 0x80 else 0)
        q ^= q << 1
        q ^= q << 2
        q ^= q << 4
        q &= 0xFF
        if q & 0x80:
            q ^= 0x09
        x = q | q << 8
        sbox[p] = (x ^ x >> 7 ^ x >> 6 ^ x >> 5 ^ x >> 4) & 0xFF ^ 0x63
        if p == 1:
            break
    sbox[0] = 0x63
    return bytes(sbox)


def _products(high: int, low: int) -> "tuple[int, ...]":
    """Halves high * S | low * S of columns, for S = S-box[x] and factors of 1 to 3."""

    def times(factor: int, one: int) -> int:
        two = one << 1 ^ (0x11B if one & 0x80 else 0)
        return (one, two, two ^ one)[factor - 1]

    return tuple([times(high, one) << 8 | times(low, one) for one in _SBOX])


# Te0 of the usual implementation is (2S|S, S|3S) in halves; Te1 .. Te3 are its byte rotations, so their halves are the
# same four tables in another order: 4 KB on a 32-bit core instead of 8 times that in heap integers.
_SBOX = _sbox()
_T21 = _products(2, 1)
_T13 = _products(1, 3)
_T32 = _products(3, 2)
_T11 = _products(1, 1)


class BlockCipher:
    """AES under one key of 16 or 32 bytes; `encrypt` works in place on whole blocks."""

    def __init__(self, key: "Buffer") -> None:
        if len(key) != 16 and len(key) != 32:
            raise KeyFormatError("an AES key has 16 or 32 bytes, not %d" % len(key))
        rounds = _expand(key)
        self.last = rounds.pop()
        self.first = rounds.pop(0)
        self.rounds = rounds

    def encrypt(self, blocks: bytearray) -> None:
        """Encrypt each 16-byte block of `blocks` where it stands (ECB)."""
        for at in range(0, len(blocks), BLOCK):
            encrypt_block(self, blocks, at, -1, blocks)

    def wipe(self) -> None:
        """Overwrite the round keys."""
        for keys in self.rounds + [self.first, self.last]:
            for at in range(8):
                keys[at] = 0


def _expand(key: "Buffer") -> "list[list[int]]":
    """The key schedule (FIPS 197, 5.2): a list a round, of eight big-endian halves, one more than the cipher runs."""
    sbox = _SBOX
    size = len(key) >> 1
    total = 8 * (len(key) // 4 + 7)
    w = [0] * total
    for i in range(size):
        w[i] = key[2 * i] << 8 | key[2 * i + 1]
    rcon = 1
    step = 0
    hi, lo = w[size - 2], w[size - 1]
    for i in range(size, total, 2):
        if step == 0:  # RotWord: a byte to the left
            hi, lo = (hi & 255) << 8 | lo >> 8, (lo & 255) << 8 | hi >> 8
        if step == 0 or (step == 8 and size == 16):
            hi = sbox[hi >> 8] << 8 | sbox[hi & 255]
            lo = sbox[lo >> 8] << 8 | sbox[lo & 255]
        if step == 0:
            hi ^= rcon << 8
            rcon = rcon << 1 ^ (0x11B if rcon & 0x80 else 0)
        hi ^= w[i - size]
        lo ^= w[i - size + 1]
        w[i] = hi
        w[i + 1] = lo
        step += 2
        if step == size:
            step = 0
    rounds = [w[i : i + 8] for i in range(0, total, 8)]
    for i in range(total):
        w[i] = 0
    return rounds


def encrypt_block(cipher: BlockCipher, block: "Buffer", at: int, counter: int, out: bytearray) -> None:
    """Encrypt the block at `at`, in place if `out` is `block`, else into the 16 bytes of `out`.

    A 32-bit counter that is not negative stands for the last four bytes, for another `out` only.

    Columns are halves (a b) (c d) (e f) (g h); p q r t are the bytes ShiftRows brings into one
    column.
    """
    # The first sixteen names of a function are a little faster to MicroPython than the others.
    t21 = _T21
    t13 = _T13
    t32 = _T32
    t11 = _T11
    p = q = r = t = 0
    k0, k1, k2, k3, k4, k5, k6, k7 = cipher.first
    a = (block[at] << 8 | block[at + 1]) ^ k0
    b = (block[at + 2] << 8 | block[at + 3]) ^ k1
    c = (block[at + 4] << 8 | block[at + 5]) ^ k2
    d = (block[at + 6] << 8 | block[at + 7]) ^ k3
    e = (block[at + 8] << 8 | block[at + 9]) ^ k4
    f = (block[at + 10] << 8 | block[at + 11]) ^ k5
    if counter < 0:
        g = (block[at + 12] << 8 | block[at + 13]) ^ k6
        h = (block[at + 14] << 8 | block[at + 15]) ^ k7
    else:
        g = counter >> 16 ^ k6
        h = counter & 0xFFFF ^ k7
        at = 0
    for k0, k1, k2, k3, k4, k5, k6, k7 in cipher.rounds:
        p = a >> 8
        q = c & 255
        r = f >> 8
        t = h & 255
        u = t21[p] ^ t32[q] ^ t13[r] ^ t11[t] ^ k0
        v = t13[p] ^ t11[q] ^ t21[r] ^ t32[t] ^ k1
        p = c >> 8
        q = e & 255
        r = h >> 8
        t = b & 255
        w = t21[p] ^ t32[q] ^ t13[r] ^ t11[t] ^ k2
        x = t13[p] ^ t11[q] ^ t21[r] ^ t32[t] ^ k3
        p = e >> 8
        q = g & 255
        r = b >> 8
        t = d & 255
        y = t21[p] ^ t32[q] ^ t13[r] ^ t11[t] ^ k4
        z = t13[p] ^ t11[q] ^ t21[r] ^ t32[t] ^ k5
        p = g >> 8
        q = a & 255
        r = d >> 8
        t = f & 255
        g = t21[p] ^ t32[q] ^ t13[r] ^ t11[t] ^ k6
        h = t13[p] ^ t11[q] ^ t21[r] ^ t32[t] ^ k7
        a = u
        b = v
        c = w
        d = x
        e = y
        f = z
    # The last round has no MixColumns: bytes go straight through the S-box.
    sbox = _SBOX
    k0, k1, k2, k3, k4, k5, k6, k7 = cipher.last
    out[at] = sbox[a >> 8] ^ k0 >> 8
    out[at + 1] = sbox[c & 255] ^ k0 & 255
    out[at + 2] = sbox[f >> 8] ^ k1 >> 8
    out[at + 3] = sbox[h & 255] ^ k1 & 255
    out[at + 4] = sbox[c >> 8] ^ k2 >> 8
    out[at + 5] = sbox[e & 255] ^ k2 & 255
    out[at + 6] = sbox[h >> 8] ^ k3 >> 8
    out[at + 7] = sbox[b & 255] ^ k3 & 255
    out[at + 8] = sbox[e >> 8] ^ k4 >> 8
    out[at + 9] = sbox[g & 255] ^ k4 & 255
    out[at + 10] = sbox[b >> 8] ^ k5 >> 8
    out[at + 11] = sbox[d & 255] ^ k5 & 255
    out[at + 12] = sbox[g >> 8] ^ k6 >> 8
    out[at + 13] = sbox[a & 255] ^ k6 & 255
    out[at + 14] = sbox[d >> 8] ^ k7 >> 8
    out[at + 15] = sbox[f & 255] ^ k7 & 255
