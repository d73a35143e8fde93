"""AES-128 and AES-256 encryption (FIPS 197) in plain bytecode.

The usual 32-bit T-tables are slow on 32-bit MicroPython, where every integer above 2^30 is a heap
object. So the state, the round keys and the tables are 16-bit halves here: no integer in the block
loop leaves the small ones, and the loop allocates nothing. GCM needs the forward direction only
(NIST SP 800-38D, 6.5), so there is no decryption.

Not constant time: table look-ups depend on the data, and no Python code can promise otherwise.
"""

from array import array

from packtrust._compat import const
from packtrust.errors import KeyFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer

BLOCK = const(16)


def _tables() -> "tuple[bytes, array[int], array[int], array[int], array[int]]":
    """The S-box and four tables of column products, for S = S-box[x]: 2S|S, S|3S, 3S|2S, S|S.

    Te0 of the usual implementation is (2S|S, S|3S) in halves; Te1 .. Te3 are its byte rotations, so
    their halves are the same four tables in another order: 2 KB instead of 8.
    """
    sbox = bytearray(256)
    # Walk the multiplicative group: p runs through powers of 3, q through their inverses (FIPS 197,
    # 5.1.1).
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
    empty = bytes(512)
    t21, t13, t32, t11 = array("H", empty), array("H", empty), array("H", empty), array("H", empty)
    for x in range(256):
        one = sbox[x]
        two = one << 1 ^ (0x11B if one & 0x80 else 0)
        three = two ^ one
        t21[x] = two << 8 | one
        t13[x] = one << 8 | three
        t32[x] = three << 8 | two
        t11[x] = one << 8 | one
    return bytes(sbox), t21, t13, t32, t11


_SBOX, _T21, _T13, _T32, _T11 = _tables()


class BlockCipher:
    """AES under one key of 16 or 32 bytes; `encrypt` works in place on whole blocks."""

    def __init__(self, key: "Buffer") -> None:
        if len(key) != 16 and len(key) != 32:
            raise KeyFormatError("an AES key has 16 or 32 bytes, not %d" % len(key))
        self._round_keys = _expand(key)

    def encrypt(self, blocks: bytearray) -> None:
        """Encrypt each 16-byte block of `blocks` where it stands (ECB)."""
        round_keys = self._round_keys
        for at in range(0, len(blocks), BLOCK):
            _encrypt_block(round_keys, blocks, at)

    def wipe(self) -> None:
        """Overwrite the round keys."""
        round_keys = self._round_keys
        for at in range(len(round_keys)):
            round_keys[at] = 0


def _expand(key: "Buffer") -> "array[int]":
    """The key schedule (FIPS 197, 5.2) as big-endian halves.

    8 a round, one round more than the cipher runs.
    """
    sbox = _SBOX
    size = len(key) >> 1
    total = 8 * (len(key) // 4 + 7)
    w = array("H", bytes(2 * total))
    for i in range(size):
        w[i] = key[2 * i] << 8 | key[2 * i + 1]
    rcon = 1
    step = 0
    hi, lo = w[size - 2], w[size - 1]
    for i in range(size, total, 2):
        if step == 0:
            hi, lo = sbox[hi & 255] << 8 | sbox[lo >> 8], sbox[lo & 255] << 8 | sbox[hi >> 8]
            hi ^= rcon << 8
            rcon = rcon << 1 ^ (0x11B if rcon & 0x80 else 0)
        elif step == 8 and size == 16:
            hi, lo = sbox[hi >> 8] << 8 | sbox[hi & 255], sbox[lo >> 8] << 8 | sbox[lo & 255]
        hi ^= w[i - size]
        lo ^= w[i - size + 1]
        w[i] = hi
        w[i + 1] = lo
        step += 2
        if step == size:
            step = 0
    return w


def _encrypt_block(k: "array[int]", block: bytearray, at: int) -> None:
    """One block.

    Columns are halves (a b) (c d) (e f) (g h); p q r t are the bytes ShiftRows brings into one
    column.
    """
    a = (block[at] << 8 | block[at + 1]) ^ k[0]
    b = (block[at + 2] << 8 | block[at + 3]) ^ k[1]
    c = (block[at + 4] << 8 | block[at + 5]) ^ k[2]
    d = (block[at + 6] << 8 | block[at + 7]) ^ k[3]
    e = (block[at + 8] << 8 | block[at + 9]) ^ k[4]
    f = (block[at + 10] << 8 | block[at + 11]) ^ k[5]
    g = (block[at + 12] << 8 | block[at + 13]) ^ k[6]
    h = (block[at + 14] << 8 | block[at + 15]) ^ k[7]
    t21 = _T21
    t13 = _T13
    t32 = _T32
    t11 = _T11
    last = len(k) - 8
    for i in range(8, last, 8):
        p = a >> 8
        q = c & 255
        r = f >> 8
        t = h & 255
        u = t21[p] ^ t32[q] ^ t13[r] ^ t11[t] ^ k[i]
        v = t13[p] ^ t11[q] ^ t21[r] ^ t32[t] ^ k[i + 1]
        p = c >> 8
        q = e & 255
        r = h >> 8
        t = b & 255
        w = t21[p] ^ t32[q] ^ t13[r] ^ t11[t] ^ k[i + 2]
        x = t13[p] ^ t11[q] ^ t21[r] ^ t32[t] ^ k[i + 3]
        p = e >> 8
        q = g & 255
        r = b >> 8
        t = d & 255
        y = t21[p] ^ t32[q] ^ t13[r] ^ t11[t] ^ k[i + 4]
        z = t13[p] ^ t11[q] ^ t21[r] ^ t32[t] ^ k[i + 5]
        p = g >> 8
        q = a & 255
        r = d >> 8
        t = f & 255
        g = t21[p] ^ t32[q] ^ t13[r] ^ t11[t] ^ k[i + 6]
        h = t13[p] ^ t11[q] ^ t21[r] ^ t32[t] ^ k[i + 7]
        a = u
        b = v
        c = w
        d = x
        e = y
        f = z
    # The last round has no MixColumns: bytes go straight through the S-box.
    sbox = _SBOX
    u = k[last]
    v = k[last + 1]
    block[at] = sbox[a >> 8] ^ u >> 8
    block[at + 1] = sbox[c & 255] ^ u & 255
    block[at + 2] = sbox[f >> 8] ^ v >> 8
    block[at + 3] = sbox[h & 255] ^ v & 255
    u = k[last + 2]
    v = k[last + 3]
    block[at + 4] = sbox[c >> 8] ^ u >> 8
    block[at + 5] = sbox[e & 255] ^ u & 255
    block[at + 6] = sbox[h >> 8] ^ v >> 8
    block[at + 7] = sbox[b & 255] ^ v & 255
    u = k[last + 4]
    v = k[last + 5]
    block[at + 8] = sbox[e >> 8] ^ u >> 8
    block[at + 9] = sbox[g & 255] ^ u & 255
    block[at + 10] = sbox[b >> 8] ^ v >> 8
    block[at + 11] = sbox[d & 255] ^ v & 255
    u = k[last + 6]
    v = k[last + 7]
    block[at + 12] = sbox[g >> 8] ^ u >> 8
    block[at + 13] = sbox[a & 255] ^ u & 255
    block[at + 14] = sbox[d >> 8] ^ v >> 8
    block[at + 15] = sbox[f & 255] ^ v & 255
