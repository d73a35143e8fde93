"""AES-GCM in viper for MicroPython: 4-bit tables (1 KB a key), 1 KB of shared tables, any core.

Made by tools/gcm_kernels.py, which explains it. One call seals or opens a record in its work buffer.
"""

# ruff: noqa
# mypy: ignore-errors
# fmt: off
import micropython

SIZE = 1912
SHARED = 1
REDUCTION = 0
MEMORY = 0
BITS = 4
STRIDE = 16
H2 = 888
H3 = 1400


@micropython.viper
def run(h: ptr32, e: ptr8, n: int, aad_length: int) -> bool:
    w = int(e)
    s = ptr32(h)
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
    i = aad_length
    while i < 16:
        ptr8(w)[i] = 0
        i += 1
    t0 = ptr32(s[11] | s[12] << 31 << 1)
    sb = ptr8(s[13] | s[14] << 31 << 1)
    c = m + 1
    if mode == 1:
        c = 1
    if mode == 2:
        c = n
    high = -1
    while True:
        if c >> 8 != high:
            k = ptr32(int(s) + 344)
            x = w + 16
            s[0] = (ptr8(x)[0] | ptr8(x)[1] << 8 | ptr8(x)[2] << 16 | ptr8(x)[3] << 24) ^ k[0]
            s[1] = (ptr8(x)[4] | ptr8(x)[5] << 8 | ptr8(x)[6] << 16 | ptr8(x)[7] << 24) ^ k[1]
            s[2] = (ptr8(x)[8] | ptr8(x)[9] << 8 | ptr8(x)[10] << 16 | ptr8(x)[11] << 24) ^ k[2]
            high = c >> 8
            s[3] = high << 16 ^ k[3]
            s[182] = s[0]
            s[183] = s[1]
            s[184] = s[2]
            s[185] = s[3]
        s[0] = s[182]
        s[1] = s[183]
        s[2] = s[184]
        s[3] = s[185] ^ (c & 255) << 24
        k = ptr32(int(s) + 360)
        i = s[9] + 1
        while True:
            e = ptr8(t0[ptr8(s)[15]])
            h = ptr32(ptr8(s)[10])
            e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
            h = ptr32(ptr8(s)[5])
            e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
            h = ptr32(ptr8(s)[0])
            e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
            s[4] = int(e) ^ k[0]
            e = ptr8(t0[ptr8(s)[3]])
            h = ptr32(ptr8(s)[14])
            e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
            h = ptr32(ptr8(s)[9])
            e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
            h = ptr32(ptr8(s)[4])
            e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
            s[5] = int(e) ^ k[1]
            e = ptr8(t0[ptr8(s)[7]])
            h = ptr32(ptr8(s)[2])
            e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
            h = ptr32(ptr8(s)[13])
            e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
            h = ptr32(ptr8(s)[8])
            e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
            s[6] = int(e) ^ k[2]
            e = ptr8(t0[ptr8(s)[11]])
            h = ptr32(ptr8(s)[6])
            e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
            h = ptr32(ptr8(s)[1])
            e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
            h = ptr32(ptr8(s)[12])
            e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
            s[7] = int(e) ^ k[3]
            i -= 1
            if i:
                e = ptr8(t0[ptr8(s)[31]])
                h = ptr32(ptr8(s)[26])
                e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
                h = ptr32(ptr8(s)[21])
                e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
                h = ptr32(ptr8(s)[16])
                e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
                s[0] = int(e) ^ k[4]
                e = ptr8(t0[ptr8(s)[19]])
                h = ptr32(ptr8(s)[30])
                e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
                h = ptr32(ptr8(s)[25])
                e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
                h = ptr32(ptr8(s)[20])
                e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
                s[1] = int(e) ^ k[5]
                e = ptr8(t0[ptr8(s)[23]])
                h = ptr32(ptr8(s)[18])
                e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
                h = ptr32(ptr8(s)[29])
                e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
                h = ptr32(ptr8(s)[24])
                e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
                s[2] = int(e) ^ k[6]
                e = ptr8(t0[ptr8(s)[27]])
                h = ptr32(ptr8(s)[22])
                e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
                h = ptr32(ptr8(s)[17])
                e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
                h = ptr32(ptr8(s)[28])
                e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])
                s[3] = int(e) ^ k[7]
                k = ptr32(int(k) + 32)
            else:
                break
        k = ptr32(int(k) + 16)
        ptr8(s)[0] = sb[ptr8(s)[16] << 2]
        ptr8(s)[1] = sb[ptr8(s)[21] << 2]
        ptr8(s)[2] = sb[ptr8(s)[26] << 2]
        ptr8(s)[3] = sb[ptr8(s)[31] << 2]
        ptr8(s)[4] = sb[ptr8(s)[20] << 2]
        ptr8(s)[5] = sb[ptr8(s)[25] << 2]
        ptr8(s)[6] = sb[ptr8(s)[30] << 2]
        ptr8(s)[7] = sb[ptr8(s)[19] << 2]
        ptr8(s)[8] = sb[ptr8(s)[24] << 2]
        ptr8(s)[9] = sb[ptr8(s)[29] << 2]
        ptr8(s)[10] = sb[ptr8(s)[18] << 2]
        ptr8(s)[11] = sb[ptr8(s)[23] << 2]
        ptr8(s)[12] = sb[ptr8(s)[28] << 2]
        ptr8(s)[13] = sb[ptr8(s)[17] << 2]
        ptr8(s)[14] = sb[ptr8(s)[22] << 2]
        ptr8(s)[15] = sb[ptr8(s)[27] << 2]
        if mode == 2:
            ptr32(w)[0] = s[0] ^ k[0]
            ptr32(w)[1] = s[1] ^ k[1]
            ptr32(w)[2] = s[2] ^ k[2]
            ptr32(w)[3] = s[3] ^ k[3]
            return True
        if c > 1:
            x = w + 28 + (c - 2 << 4)
            i = n - (c - 2 << 4)
            if i >= 16 and w & 3 == 0:
                ptr32(x)[0] = ptr32(x)[0] ^ s[0] ^ k[0]
                ptr32(x)[1] = ptr32(x)[1] ^ s[1] ^ k[1]
                ptr32(x)[2] = ptr32(x)[2] ^ s[2] ^ k[2]
                ptr32(x)[3] = ptr32(x)[3] ^ s[3] ^ k[3]
            else:
                if i > 16:
                    i = 16
                j = 0
                s[0] = s[0] ^ k[0]
                s[1] = s[1] ^ k[1]
                s[2] = s[2] ^ k[2]
                s[3] = s[3] ^ k[3]
                while j < i:
                    ptr8(x)[j] = ptr8(x)[j] ^ ptr8(s)[j]
                    j += 1
            c -= 1
            if c == mode:
                return True
        else:
            at = 0
            end = m
            first = 0
            words = 4
            add = ptr32(int(s) + 312)
            if m < 2 and w & 3 == 0:
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
                                g[0] = g[0] ^ v[0]
                                g[1] = g[1] ^ v[1]
                                g[2] = g[2] ^ v[2]
                                g[3] = g[3] ^ v[3]
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
                        g = ptr32(int(s) + 748)
                        g[0] = 0
                        g[1] = 0
                        g[2] = 0
                        g[3] = 0
                        g[4] = 0
                        g[5] = 0
                        g[6] = 0
                        g[7] = 0
                        g = ptr32(int(s) + 784)
                        g[0] = 0
                        g[1] = 0
                        g[2] = 0
                        g[3] = 0
                        g[4] = 0
                        g[5] = 0
                        g[6] = 0
                        g[7] = 0
                        g = ptr32(int(s) + 820)
                        g[0] = 0
                        g[1] = 0
                        g[2] = 0
                        g[3] = 0
                        g[4] = 0
                        g[5] = 0
                        g[6] = 0
                        g[7] = 0
                        g = ptr32(int(s) + 856)
                        g[0] = 0
                        g[1] = 0
                        g[2] = 0
                        g[3] = 0
                        g[4] = 0
                        g[5] = 0
                        g[6] = 0
                        g[7] = 0
                        g = ptr32(int(s) + 744)
                        h = ptr32(int(s) + 888)
                        i = words
                        while i:
                            if y[0]:
                                e = ptr8(ptr8(y)[3])
                                u = ptr32((int(e) & 240) + int(h))
                                v = ptr32((int(e) << 4 & 240) + int(h) + 256)
                                z = ptr32(int(g) + 4)
                                z[0] = z[0] ^ u[0] ^ v[0]
                                z[1] = z[1] ^ u[1] ^ v[1]
                                z[2] = z[2] ^ u[2] ^ v[2]
                                z[3] = z[3] ^ u[3] ^ v[3]
                                e = ptr8(ptr8(y)[2])
                                u = ptr32((int(e) & 240) + int(h))
                                v = ptr32((int(e) << 4 & 240) + int(h) + 256)
                                z = ptr32(int(g) + 40)
                                z[0] = z[0] ^ u[0] ^ v[0]
                                z[1] = z[1] ^ u[1] ^ v[1]
                                z[2] = z[2] ^ u[2] ^ v[2]
                                z[3] = z[3] ^ u[3] ^ v[3]
                                e = ptr8(ptr8(y)[1])
                                u = ptr32((int(e) & 240) + int(h))
                                v = ptr32((int(e) << 4 & 240) + int(h) + 256)
                                z = ptr32(int(g) + 76)
                                z[0] = z[0] ^ u[0] ^ v[0]
                                z[1] = z[1] ^ u[1] ^ v[1]
                                z[2] = z[2] ^ u[2] ^ v[2]
                                z[3] = z[3] ^ u[3] ^ v[3]
                                e = ptr8(ptr8(y)[0])
                                u = ptr32((int(e) & 240) + int(h))
                                v = ptr32((int(e) << 4 & 240) + int(h) + 256)
                                z = ptr32(int(g) + 112)
                                z[0] = z[0] ^ u[0] ^ v[0]
                                z[1] = z[1] ^ u[1] ^ v[1]
                                z[2] = z[2] ^ u[2] ^ v[2]
                                z[3] = z[3] ^ u[3] ^ v[3]
                            y = ptr32(int(y) + 4)
                            g = ptr32(int(g) + 4)
                            i -= 1
                        j = 0
                        u = ptr32(int(s) + 748)
                        z = ptr32(int(s) + 100)
                        while j < 8:
                            z[0] = u[0] ^ uint(u[9]) >> 8 ^ u[8] << 24
                            z[0] = z[0] ^ uint(u[18]) >> 16 ^ u[17] << 16
                            z[0] = z[0] ^ uint(u[27]) >> 24 ^ u[26] << 8
                            u = ptr32(int(u) + 4)
                            z = ptr32(int(z) + 4)
                            j += 1
                        z = ptr32(int(s) + 100)
                        j = 4
                        while j:
                            z[0] = z[0] ^ z[4] ^ uint(z[4]) >> 1 ^ uint(z[4]) >> 2 ^ uint(z[4]) >> 7
                            z[1] = z[1] ^ z[4] << 31 ^ z[4] << 30 ^ z[4] << 25
                            z = ptr32(int(z) + 4)
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
                    u = y
                    j = 16
                    if i < 16:
                        j = i
                    while j >= 4:
                        u[0] = u[0] ^ ptr8(x)[0] << 24 ^ ptr8(x)[1] << 16 ^ ptr8(x)[2] << 8 ^ ptr8(x)[3]
                        u = ptr32(int(u) + 4)
                        x += 4
                        j -= 4
                    e = ptr8(int(u) + 3)
                    while j > 0:
                        e[0] = e[0] ^ ptr8(x)[0]
                        e = ptr8(int(e) - 1)
                        x += 1
                        j -= 1
                    at += 1
                g = ptr32(int(s) + 748)
                g[0] = 0
                g[1] = 0
                g[2] = 0
                g[3] = 0
                g[4] = 0
                g[5] = 0
                g[6] = 0
                g[7] = 0
                g = ptr32(int(s) + 784)
                g[0] = 0
                g[1] = 0
                g[2] = 0
                g[3] = 0
                g[4] = 0
                g[5] = 0
                g[6] = 0
                g[7] = 0
                g = ptr32(int(s) + 820)
                g[0] = 0
                g[1] = 0
                g[2] = 0
                g[3] = 0
                g[4] = 0
                g[5] = 0
                g[6] = 0
                g[7] = 0
                g = ptr32(int(s) + 856)
                g[0] = 0
                g[1] = 0
                g[2] = 0
                g[3] = 0
                g[4] = 0
                g[5] = 0
                g[6] = 0
                g[7] = 0
                g = ptr32(int(s) + 744)
                h = ptr32(int(s) + 888)
                y = ptr32(int(s) + 68)
                j = 2
                if first == 0 and m == 1 and w & 3 == 0:
                    j = 1
                    words = n + 3 >> 2
                while j:
                    g = ptr32(int(s) + 744)
                    i = words
                    while i:
                        if y[0]:
                            e = ptr8(ptr8(y)[3])
                            u = ptr32((int(e) & 240) + int(h))
                            v = ptr32((int(e) << 4 & 240) + int(h) + 256)
                            z = ptr32(int(g) + 4)
                            z[0] = z[0] ^ u[0] ^ v[0]
                            z[1] = z[1] ^ u[1] ^ v[1]
                            z[2] = z[2] ^ u[2] ^ v[2]
                            z[3] = z[3] ^ u[3] ^ v[3]
                            e = ptr8(ptr8(y)[2])
                            u = ptr32((int(e) & 240) + int(h))
                            v = ptr32((int(e) << 4 & 240) + int(h) + 256)
                            z = ptr32(int(g) + 40)
                            z[0] = z[0] ^ u[0] ^ v[0]
                            z[1] = z[1] ^ u[1] ^ v[1]
                            z[2] = z[2] ^ u[2] ^ v[2]
                            z[3] = z[3] ^ u[3] ^ v[3]
                            e = ptr8(ptr8(y)[1])
                            u = ptr32((int(e) & 240) + int(h))
                            v = ptr32((int(e) << 4 & 240) + int(h) + 256)
                            z = ptr32(int(g) + 76)
                            z[0] = z[0] ^ u[0] ^ v[0]
                            z[1] = z[1] ^ u[1] ^ v[1]
                            z[2] = z[2] ^ u[2] ^ v[2]
                            z[3] = z[3] ^ u[3] ^ v[3]
                            e = ptr8(ptr8(y)[0])
                            u = ptr32((int(e) & 240) + int(h))
                            v = ptr32((int(e) << 4 & 240) + int(h) + 256)
                            z = ptr32(int(g) + 112)
                            z[0] = z[0] ^ u[0] ^ v[0]
                            z[1] = z[1] ^ u[1] ^ v[1]
                            z[2] = z[2] ^ u[2] ^ v[2]
                            z[3] = z[3] ^ u[3] ^ v[3]
                        y = ptr32(int(y) + 4)
                        g = ptr32(int(g) + 4)
                        i -= 1
                    h = ptr32(int(s) + 1400)
                    j -= 1
                j = 0
                u = ptr32(int(s) + 748)
                z = ptr32(int(s) + 100)
                while j < 8:
                    z[0] = u[0] ^ uint(u[9]) >> 8 ^ u[8] << 24
                    z[0] = z[0] ^ uint(u[18]) >> 16 ^ u[17] << 16
                    z[0] = z[0] ^ uint(u[27]) >> 24 ^ u[26] << 8
                    u = ptr32(int(u) + 4)
                    z = ptr32(int(z) + 4)
                    j += 1
                z = ptr32(int(s) + 100)
                j = 4
                while j:
                    z[0] = z[0] ^ z[4] ^ uint(z[4]) >> 1 ^ uint(z[4]) >> 2 ^ uint(z[4]) >> 7
                    z[1] = z[1] ^ z[4] << 31 ^ z[4] << 30 ^ z[4] << 25
                    z = ptr32(int(z) + 4)
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
            s[4] = s[0] ^ k[0]
            s[5] = s[1] ^ k[1]
            s[6] = s[2] ^ k[2]
            s[7] = s[3] ^ k[3]
            i = 0
            j = 0
            while i < 16:
                e = ptr8(ptr8(s)[16 + i] ^ ptr8(g)[i ^ 3] ^ ptr8(add)[16 + (i ^ 3)])
                if mode == 0:
                    ptr8(x)[i] = int(e)
                else:
                    j |= ptr8(x)[i] ^ int(e)
                i += 1
            if mode == 0:
                return True
            if j != 0:
                return False
            if m == 0:
                return True
            c = m + 1


class Call(bytearray):
    """A call: address of the state; 0 to seal, 1 to open, 2 to encrypt counter block n."""

    run = run
