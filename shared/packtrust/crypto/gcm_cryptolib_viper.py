"""AES-GCM in viper for MicroPython: GHASH over cryptolib's AES, 4-bit tables, unaligned word access.

Made by tools/gcm_kernels.py, which explains it. One call seals or opens a record in its work buffer.
"""

# ruff: noqa
# mypy: ignore-errors
# fmt: off
import micropython

SIZE = 2016
SHARED = 4
REDUCTION = 8
MEMORY = 1
BITS = 4
STRIDE = 20
H2 = 736
H3 = 1376


@micropython.viper
def run(self, e: ptr8, n: int, aad_length: int) -> bool:
    views = self.views
    encrypt = self.encrypt
    w = int(e)
    s = ptr32(self)
    mode = s[2]
    s = ptr32(s[0] | s[1] << 31 << 1)
    i = n | aad_length | 16 - aad_length
    if s[9]:
        pass
    else:
        i = -1
    if i < 0:
        if mode == 0:
            x = w + 28
            i = 0
            while i < n:
                ptr8(x)[i] = 0
                i += 1
        return False
    m = n + 15 >> 4
    i = 16
    if aad_length < 13 or ptr32(w)[3] >> (aad_length - 12 << 3):
        i = aad_length
    while i < 16:
        ptr8(w)[i] = 0
        i += 1
    c = 1
    b = 0
    left = 1
    while True:
        if left == 0 or mode == 0 and c < m + 2 or mode == 1 and c != 2:
            pass
        else:
            at = 0
            end = m
            first = 0
            words = 4
            add = ptr32(int(s) + 312)
            if m < 2:
                x = ptr32(w)[0] ^ ptr32(w)[1] ^ ptr32(w)[2] ^ ptr32(w)[3] ^ n
                x = x ^ x >> 16
                add = ptr32(int(s) + 584 + ((x ^ x >> 8) & 3) * 36)
                x = (n << 5 | aad_length) + 1
                if x == add[8] and ptr32(w)[0] == add[0] and ptr32(w)[1] == add[1] and ptr32(w)[2] == add[2] and ptr32(w)[3] == add[3]:
                    at = 1
                else:
                    end = 0
                    first = 1
            if at == 0:
                x = n >> 8 << 5 | aad_length
                if x != s[10]:
                    s[10] = x
                    g = ptr32(int(s) + 136)
                    v = ptr32(int(s) + 312)
                    i = 0
                    while i < 4:
                        g[i] = 0
                        i += 1
                    u = ptr32(int(s) + 152)
                    x = aad_length
                    j = 2
                    while j:
                        j -= 1
                        v[0] = u[0]
                        v[1] = u[1]
                        v[2] = u[2]
                        v[3] = u[3]
                        while x:
                            if x & 1:
                                g[0] = g[0] ^ (v[0] << 24 ^ v[0] << 8 & 16711680 ^ v[0] >> 8 & 65280 ^ v[0] >> 24 & 255)
                                g[1] = g[1] ^ (v[1] << 24 ^ v[1] << 8 & 16711680 ^ v[1] >> 8 & 65280 ^ v[1] >> 24 & 255)
                                g[2] = g[2] ^ (v[2] << 24 ^ v[2] << 8 & 16711680 ^ v[2] >> 8 & 65280 ^ v[2] >> 24 & 255)
                                g[3] = g[3] ^ (v[3] << 24 ^ v[3] << 8 & 16711680 ^ v[3] >> 8 & 65280 ^ v[3] >> 24 & 255)
                            i = v[0] >> 31 & 1
                            v[0] = v[0] << 1 | v[1] >> 31 & 1
                            v[1] = v[1] << 1 | v[2] >> 31 & 1
                            v[2] = v[2] << 1 | v[3] >> 31 & 1
                            v[0] = v[0] ^ i << 31 ^ i << 30 ^ i << 25
                            v[3] = v[3] << 1 | i
                            x = x >> 1
                        u = ptr32(int(s) + 168)
                        x = n >> 8
                x = n & 255
                g = ptr32(int(s) + 136)
                v = ptr32(int(s) + 184)
                g[48] = g[0]
                g[49] = g[1]
                g[50] = g[2]
                g[51] = g[3]
                g = ptr32(int(s) + 328)
                while x:
                    if x & 1:
                        g[0] = g[0] ^ v[0]
                        g[1] = g[1] ^ v[1]
                        g[2] = g[2] ^ v[2]
                        g[3] = g[3] ^ v[3]
                    v = ptr32(int(v) + 16)
                    x = x >> 1
            while True:
                s[17] = 0
                s[18] = 0
                s[19] = 0
                s[20] = 0
                s[21] = 0
                s[22] = 0
                s[23] = 0
                s[24] = 0
                while at <= end:
                    y = ptr32(int(s) + 68 + ((m - at & 1) << 4))
                    if at > 1:
                        g = ptr32(int(s) + 100)
                        g[0] = 0
                        g[1] = 0
                        g[2] = 0
                        g[3] = 0
                        g[4] = 0
                        g[5] = 0
                        g[6] = 0
                        g[7] = 0
                        x = int(s) + 736
                        i = words
                        while i:
                            if y[0]:
                                e = ptr8(ptr8(y)[0])
                                a0 = ptr32((int(e) >> 4) * 20 + x)
                                b0 = ptr32((int(e) & 15) * 20 + x + 320)
                                e = ptr8(ptr8(y)[1])
                                a1 = ptr32((int(e) >> 4) * 20 + x - 1)
                                b1 = ptr32((int(e) & 15) * 20 + x + 319)
                                e = ptr8(ptr8(y)[2])
                                a2 = ptr32((int(e) >> 4) * 20 + x - 2)
                                b2 = ptr32((int(e) & 15) * 20 + x + 318)
                                e = ptr8(ptr8(y)[3])
                                a3 = ptr32((int(e) >> 4) * 20 + x - 3)
                                b3 = ptr32((int(e) & 15) * 20 + x + 317)
                                g[0] = g[0] ^ a0[0] ^ b0[0] ^ a1[0] ^ b1[0] ^ a2[0] ^ b2[0] ^ a3[0] ^ b3[0]
                                g[1] = g[1] ^ a0[1] ^ b0[1] ^ a1[1] ^ b1[1] ^ a2[1] ^ b2[1] ^ a3[1] ^ b3[1]
                                g[2] = g[2] ^ a0[2] ^ b0[2] ^ a1[2] ^ b1[2] ^ a2[2] ^ b2[2] ^ a3[2] ^ b3[2]
                                g[3] = g[3] ^ a0[3] ^ b0[3] ^ a1[3] ^ b1[3] ^ a2[3] ^ b2[3] ^ a3[3] ^ b3[3]
                                g[4] = g[4] ^ a1[4] ^ b1[4] ^ a2[4] ^ b2[4] ^ a3[4] ^ b3[4]
                            y = ptr32(int(y) + 4)
                            g = ptr32(int(g) + 4)
                            i -= 1
                        g = ptr32(int(s) + 100)
                        x = s[15] | s[16] << 31 << 1
                        j = words
                        while j:
                            y = ptr32(int(g) + 16)
                            if y[0]:
                                e = ptr8((ptr8(y)[3] << 3) + x)
                                g[0] = ptr32((ptr8(y)[0] << 3) + x + 3)[0] ^ ptr32((ptr8(y)[1] << 3) + x + 2)[0] ^ ptr32((ptr8(y)[2] << 3) + x + 1)[0] ^ ptr32(e)[0] ^ g[0]
                                g[1] = g[1] ^ ptr32(e)[1]
                            g = ptr32(int(g) + 4)
                            j -= 1
                        y = ptr32(int(s) + 68 + ((m - at & 1) << 4))
                        z = ptr32(int(s) + 100)
                        y[0] = z[0]
                        y[1] = z[1]
                        y[2] = z[2]
                        y[3] = z[3]
                        y = ptr32(int(s) + 68 + ((m - at & 1) << 4))
                    x = w
                    i = 16
                    if at:
                        x = w + 12 + (at << 4)
                        i = n + 16 - (at << 4)
                    if i >= 16:
                        y[0] = y[0] ^ ptr32(x)[0]
                        y[1] = y[1] ^ ptr32(x)[1]
                        y[2] = y[2] ^ ptr32(x)[2]
                        y[3] = y[3] ^ ptr32(x)[3]
                    else:
                        j = 0
                        if i >= 8:
                            y[0] = y[0] ^ ptr32(x)[0]
                            y[1] = y[1] ^ ptr32(x)[1]
                            j = 8
                        while j < i:
                            ptr8(y)[j] = ptr8(y)[j] ^ ptr8(x)[j]
                            j += 1
                    at += 1
                g = ptr32(int(s) + 100)
                g[0] = 0
                g[1] = 0
                g[2] = 0
                g[3] = 0
                g[4] = 0
                g[5] = 0
                g[6] = 0
                g[7] = 0
                x = int(s) + 736
                y = ptr32(int(s) + 68)
                j = 2
                if first == 0 and m == 1:
                    j = 1
                    words = n + 3 >> 2
                while j:
                    g = ptr32(int(s) + 100)
                    i = words
                    while i:
                        if y[0]:
                            e = ptr8(ptr8(y)[0])
                            a0 = ptr32((int(e) >> 4) * 20 + x)
                            b0 = ptr32((int(e) & 15) * 20 + x + 320)
                            e = ptr8(ptr8(y)[1])
                            a1 = ptr32((int(e) >> 4) * 20 + x - 1)
                            b1 = ptr32((int(e) & 15) * 20 + x + 319)
                            e = ptr8(ptr8(y)[2])
                            a2 = ptr32((int(e) >> 4) * 20 + x - 2)
                            b2 = ptr32((int(e) & 15) * 20 + x + 318)
                            e = ptr8(ptr8(y)[3])
                            a3 = ptr32((int(e) >> 4) * 20 + x - 3)
                            b3 = ptr32((int(e) & 15) * 20 + x + 317)
                            g[0] = g[0] ^ a0[0] ^ b0[0] ^ a1[0] ^ b1[0] ^ a2[0] ^ b2[0] ^ a3[0] ^ b3[0]
                            g[1] = g[1] ^ a0[1] ^ b0[1] ^ a1[1] ^ b1[1] ^ a2[1] ^ b2[1] ^ a3[1] ^ b3[1]
                            g[2] = g[2] ^ a0[2] ^ b0[2] ^ a1[2] ^ b1[2] ^ a2[2] ^ b2[2] ^ a3[2] ^ b3[2]
                            g[3] = g[3] ^ a0[3] ^ b0[3] ^ a1[3] ^ b1[3] ^ a2[3] ^ b2[3] ^ a3[3] ^ b3[3]
                            g[4] = g[4] ^ a1[4] ^ b1[4] ^ a2[4] ^ b2[4] ^ a3[4] ^ b3[4]
                        y = ptr32(int(y) + 4)
                        g = ptr32(int(g) + 4)
                        i -= 1
                    x = int(s) + 1376
                    j -= 1
                g = ptr32(int(s) + 100)
                x = s[15] | s[16] << 31 << 1
                j = words
                while j:
                    y = ptr32(int(g) + 16)
                    if y[0]:
                        e = ptr8((ptr8(y)[3] << 3) + x)
                        g[0] = ptr32((ptr8(y)[0] << 3) + x + 3)[0] ^ ptr32((ptr8(y)[1] << 3) + x + 2)[0] ^ ptr32((ptr8(y)[2] << 3) + x + 1)[0] ^ ptr32(e)[0] ^ g[0]
                        g[1] = g[1] ^ ptr32(e)[1]
                    g = ptr32(int(g) + 4)
                    j -= 1
                if first == 0:
                    break
                g = ptr32(int(s) + 100)
                v = ptr32(int(s) + 328)
                add[4] = g[0] ^ v[0]
                add[5] = g[1] ^ v[1]
                add[6] = g[2] ^ v[2]
                add[7] = g[3] ^ v[3]
                add[0] = ptr32(w)[0]
                add[1] = ptr32(w)[1]
                add[2] = ptr32(w)[2]
                add[3] = ptr32(w)[3]
                add[8] = (n << 5 | aad_length) + 1
                first = 0
                end = m
            x = w + 28 + n
            g = ptr32(int(s) + 100)
            if mode == 0:
                ptr32(x)[0] = g[0] ^ add[4] ^ s[0]
                ptr32(x)[1] = g[1] ^ add[5] ^ s[1]
                ptr32(x)[2] = g[2] ^ add[6] ^ s[2]
                ptr32(x)[3] = g[3] ^ add[7] ^ s[3]
                return True
            x = g[0] ^ add[4] ^ ptr32(x)[0] ^ s[0] | g[1] ^ add[5] ^ ptr32(x)[1] ^ s[1] | g[2] ^ add[6] ^ ptr32(x)[2] ^ s[2] | g[3] ^ add[7] ^ ptr32(x)[3] ^ s[3]
            if x != 0:
                return False
            left = 0
        if c == m + 2:
            return True
        if b == 0:
            b = m + 2 - c
            if b > 8:
                b = 8
                if c + mode == 2:
                    b = 1
            k = ptr32(s[11] | s[12] << 31 << 1)
            i = 0
            x = w + 16
            while i < b:
                k[0] = ptr32(x)[0]
                k[1] = ptr32(x)[1]
                k[2] = ptr32(x)[2]
                k[3] = c + i << 24 ^ (c + i << 8 & 16711680)
                k = ptr32(int(k) + 16)
                i += 1
            encrypt(views[b], views[b])
            k = ptr32(s[11] | s[12] << 31 << 1)
        if c == 1:
            s[0] = k[0]
            s[1] = k[1]
            s[2] = k[2]
            s[3] = k[3]
        else:
            x = w + 28 + (c - 2 << 4)
            i = n - (c - 2 << 4)
            if i >= 16:
                ptr32(x)[0] = ptr32(x)[0] ^ k[0]
                ptr32(x)[1] = ptr32(x)[1] ^ k[1]
                ptr32(x)[2] = ptr32(x)[2] ^ k[2]
                ptr32(x)[3] = ptr32(x)[3] ^ k[3]
            else:
                j = 0
                if i >= 8:
                    ptr32(x)[0] = ptr32(x)[0] ^ k[0]
                    ptr32(x)[1] = ptr32(x)[1] ^ k[1]
                    j = 8
                if j < i:
                    s[4] = k[0]
                    s[5] = k[1]
                    s[6] = k[2]
                    s[7] = k[3]
                    while j < i:
                        ptr8(x)[j] = ptr8(x)[j] ^ ptr8(s)[16 + j]
                        j += 1
        k = ptr32(int(k) + 16)
        c += 1
        b -= 1


class Call(bytearray):
    """A call: address of the state; 0 to seal, 1 to open, 2 to encrypt counter block n."""

    run = run
