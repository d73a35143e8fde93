"""GHASH (NIST SP 800-38D, 6.4) with 4-bit tables of Python integers.

Of the forms tried on MicroPython this one wins: 2 x 16 integers a key (1.5 KB on a board, 29
additions and shifts to make), and three integer operations a byte, all in C. Splitting the field
element into small integers runs five times as many bytecodes; an 8-bit table takes 12 KB a key and
longer to make than a short record to hash.
"""

from packtrust._compat import const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer

BLOCK = const(16)

# The low 127 bits of a product: the coefficients of x^128 and above, see `_absorb`.
_HIGH_POWERS = (1 << 127) - 1


class Ghash:
    """The hash under one subkey H (16 bytes). `digest` may be called any number of times."""

    def __init__(self, subkey: "Buffer") -> None:
        h = int.from_bytes(subkey, "big")
        # low[n] is the carry-less product of H and the 4-bit polynomial n, high[n] the same four
        # powers up.
        low = [0, h, h << 1, 0, h << 2, 0, 0, 0, h << 3, 0, 0, 0, 0, 0, 0, 0]
        for top in (2, 4, 8):
            for n in range(1, top):
                low[top + n] = low[top] ^ low[n]
        self._low = low
        self._high = [value << 4 for value in low]

    def digest(self, aad: "Buffer", text: "Buffer") -> int:
        """GHASH of associated data, ciphertext, each padded to blocks, and lengths: 128 bits."""
        high = self._high
        low = self._low
        y = _absorb(high, low, 0, aad) if aad else 0
        y = _absorb(high, low, y, text)
        lengths = (len(aad) << 67 | len(text) << 3).to_bytes(BLOCK, "big")
        return _absorb(high, low, y, lengths)

    def wipe(self) -> None:
        """Drop the tables.

        Integers cannot be overwritten: what they held stays until the collector reuses it.
        """
        self._low = self._high = [0] * 16


def _absorb(high: "list[int]", low: "list[int]", y: int, data: "Buffer") -> int:
    """y = (y ^ block) * H for each block of `data`, the last one padded with zeros.

    GCM's polynomials have their lowest power in the highest bit. The product of two such numbers
    has 255 bits, the coefficient of x^k in bit 254 - k, so its low 127 bits are the powers from 128
    on. x^128 = 1 + x + x^2 + x^7, and times x is a shift to the right.
    """
    size = len(data)
    for at in range(0, size, BLOCK):
        block = int.from_bytes(data[at : at + BLOCK], "big")
        if size - at < BLOCK:
            block <<= (BLOCK + at - size) << 3
        product = 0
        for byte in (y ^ block).to_bytes(BLOCK, "big"):
            product = product << 8 ^ high[byte >> 4] ^ low[byte & 15]
        # The powers from 128 on, one bit up to stand under x^0 and seven more to keep what the
        # shifts push out ...
        fold = (product & _HIGH_POWERS) << 8
        fold ^= fold >> 1 ^ fold >> 2 ^ fold >> 7
        # ... which is seven bits, and folds once more into the lowest powers.
        rest = fold & 0x7F
        y = product >> 127 ^ fold >> 7 ^ (rest << 7 ^ rest << 6 ^ rest << 5 ^ rest) << 114
    return y
