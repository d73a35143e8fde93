# mypy: ignore-errors
"""GHASH (NIST SP 800-38D, 6.3 and 6.4) bit by bit in MicroPython's viper: 32 bytes a key, where `ghash` has 2.2 KB.

For what a kernel (packtrust.crypto.gcm_tables) does not take: associated data of more than a block, as records of the
store and packages have it. Never imported by CPython or CircuitPython.
"""

from struct import pack

import micropython

from packtrust.crypto.buffers import wipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    ptr8 = bytearray


class Ghash:
    """As ghash.Ghash: the hash under one subkey H (16 bytes)."""

    def __init__(self, subkey) -> None:
        self._work = bytearray(32)  # state || subkey
        self._work[16:] = subkey

    def digest(self, aad, text) -> bytes:
        """GHASH of associated data, ciphertext, each padded to blocks, and lengths: 16 bytes."""
        work = self._work
        work[:16] = bytes(16)
        _absorb(work, aad, len(aad))
        _absorb(work, text, len(text))
        _absorb(work, pack(">IIII", 0, len(aad) * 8, 0, len(text) * 8), 16)
        return bytes(memoryview(work)[:16])

    def wipe(self) -> None:
        """Overwrite the subkey."""
        wipe(self._work)


@micropython.viper
def _absorb(work: ptr8, data: ptr8, size: int):
    """Hash `size` bytes, padded with zeros to whole blocks, into work[:16] under the subkey work[16:32]."""
    at = 0
    while at < size:
        place = 0
        while place < 16:
            if at + place < size:
                work[place] = work[place] ^ data[at + place]
            place += 1
        # v = H * x^bit, z = the sum of those whose bit is set in the block; halves of 16 bits, the highest first.
        v0 = work[16] << 8 | work[17]
        v1 = work[18] << 8 | work[19]
        v2 = work[20] << 8 | work[21]
        v3 = work[22] << 8 | work[23]
        v4 = work[24] << 8 | work[25]
        v5 = work[26] << 8 | work[27]
        v6 = work[28] << 8 | work[29]
        v7 = work[30] << 8 | work[31]
        z0 = z1 = z2 = z3 = z4 = z5 = z6 = z7 = 0
        place = 0
        while place < 16:
            bits = work[place]
            mask = 0x80
            while mask:
                if bits & mask:
                    z0 ^= v0
                    z1 ^= v1
                    z2 ^= v2
                    z3 ^= v3
                    z4 ^= v4
                    z5 ^= v5
                    z6 ^= v6
                    z7 ^= v7
                carry = v7 & 1
                v7 = v7 >> 1 | (v6 & 1) << 15
                v6 = v6 >> 1 | (v5 & 1) << 15
                v5 = v5 >> 1 | (v4 & 1) << 15
                v4 = v4 >> 1 | (v3 & 1) << 15
                v3 = v3 >> 1 | (v2 & 1) << 15
                v2 = v2 >> 1 | (v1 & 1) << 15
                v1 = v1 >> 1 | (v0 & 1) << 15
                v0 = v0 >> 1
                if carry:
                    v0 ^= 0xE100
                mask >>= 1
            place += 1
        work[0] = z0 >> 8
        work[1] = z0
        work[2] = z1 >> 8
        work[3] = z1
        work[4] = z2 >> 8
        work[5] = z2
        work[6] = z3 >> 8
        work[7] = z3
        work[8] = z4 >> 8
        work[9] = z4
        work[10] = z5 >> 8
        work[11] = z5
        work[12] = z6 >> 8
        work[13] = z6
        work[14] = z7 >> 8
        work[15] = z7
        at += 16
