"""AES-GCM in viper for MicroPython: 4-bit tables (1.3 KB a key), unaligned word access.

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
    i = 16
    if aad_length < 13 or ptr32(w)[3] >> (aad_length - 12 << 3):
        i = aad_length
    while i < 16:
        ptr8(w)[i] = 0
        i += 1
    t0 = ptr32(s[11] | s[12] << 31 << 1)
    sb = ptr8(s[13] | s[14] << 31 << 1)
    t1 = ptr32(int(t0) + 1024)
    t2 = ptr32(int(t0) + 2048)
    t3 = ptr32(int(t0) + 3072)
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
            s[0] = ptr32(x)[0] ^ k[0]
            s[1] = ptr32(x)[1] ^ k[1]
            s[2] = ptr32(x)[2] ^ k[2]
            high = c >> 8
            s[3] = high << 16 ^ k[3]
            h = ptr32(ptr8(s)[4])
            e = ptr8(t0[int(h)])
            h = ptr32(ptr8(s)[9])
            e = ptr8(t1[int(h)] ^ int(e))
            h = ptr32(ptr8(s)[14])
            e = ptr8(t2[int(h)] ^ int(e))
            h = ptr32(ptr8(s)[3])
            s[5] = t3[int(h)] ^ int(e) ^ k[5]
            h = ptr32(ptr8(s)[8])
            e = ptr8(t0[int(h)])
            h = ptr32(ptr8(s)[13])
            e = ptr8(t1[int(h)] ^ int(e))
            h = ptr32(ptr8(s)[2])
            e = ptr8(t2[int(h)] ^ int(e))
            h = ptr32(ptr8(s)[7])
            s[6] = t3[int(h)] ^ int(e) ^ k[6]
            h = ptr32(ptr8(s)[12])
            e = ptr8(t0[int(h)])
            h = ptr32(ptr8(s)[1])
            e = ptr8(t1[int(h)] ^ int(e))
            h = ptr32(ptr8(s)[6])
            e = ptr8(t2[int(h)] ^ int(e))
            h = ptr32(ptr8(s)[11])
            s[7] = t3[int(h)] ^ int(e) ^ k[7]
            h = ptr32(ptr8(s)[0])
            e = ptr8(t0[int(h)])
            h = ptr32(ptr8(s)[5])
            e = ptr8(t1[int(h)] ^ int(e))
            h = ptr32(ptr8(s)[10])
            q = t2[int(h)] ^ int(e) ^ k[4]
            last = int(ptr8(s)[15])
            h = ptr32(ptr8(s)[21])
            e = ptr8(t1[int(h)])
            h = ptr32(ptr8(s)[26])
            e = ptr8(t2[int(h)] ^ int(e))
            h = ptr32(ptr8(s)[31])
            p0 = t3[int(h)] ^ int(e) ^ k[8]
            h = ptr32(ptr8(s)[20])
            e = ptr8(t0[int(h)])
            h = ptr32(ptr8(s)[25])
            e = ptr8(t1[int(h)] ^ int(e))
            h = ptr32(ptr8(s)[30])
            p1 = t2[int(h)] ^ int(e) ^ k[9]
            h = ptr32(ptr8(s)[24])
            e = ptr8(t0[int(h)])
            h = ptr32(ptr8(s)[29])
            e = ptr8(t1[int(h)] ^ int(e))
            h = ptr32(ptr8(s)[23])
            p2 = t3[int(h)] ^ int(e) ^ k[10]
            h = ptr32(ptr8(s)[28])
            e = ptr8(t0[int(h)])
            h = ptr32(ptr8(s)[22])
            e = ptr8(t2[int(h)] ^ int(e))
            h = ptr32(ptr8(s)[27])
            p3 = t3[int(h)] ^ int(e) ^ k[11]
        h = ptr32(c & 255 ^ last)
        s[8] = t3[int(h)] ^ q
        h = ptr32(ptr8(s)[32])
        s[0] = t0[int(h)] ^ p0
        h = ptr32(ptr8(s)[35])
        s[1] = t3[int(h)] ^ p1
        h = ptr32(ptr8(s)[34])
        s[2] = t2[int(h)] ^ p2
        h = ptr32(ptr8(s)[33])
        s[3] = t1[int(h)] ^ p3
        k = ptr32(int(s) + 392)
        i = s[9]
        while True:
            h = ptr32(ptr8(s)[0])
            e = ptr8(t0[int(h)])
            h = ptr32(ptr8(s)[5])
            e = ptr8(t1[int(h)] ^ int(e))
            h = ptr32(ptr8(s)[10])
            e = ptr8(t2[int(h)] ^ int(e))
            h = ptr32(ptr8(s)[15])
            s[4] = t3[int(h)] ^ int(e) ^ k[0]
            h = ptr32(ptr8(s)[4])
            e = ptr8(t0[int(h)])
            h = ptr32(ptr8(s)[9])
            e = ptr8(t1[int(h)] ^ int(e))
            h = ptr32(ptr8(s)[14])
            e = ptr8(t2[int(h)] ^ int(e))
            h = ptr32(ptr8(s)[3])
            s[5] = t3[int(h)] ^ int(e) ^ k[1]
            h = ptr32(ptr8(s)[8])
            e = ptr8(t0[int(h)])
            h = ptr32(ptr8(s)[13])
            e = ptr8(t1[int(h)] ^ int(e))
            h = ptr32(ptr8(s)[2])
            e = ptr8(t2[int(h)] ^ int(e))
            h = ptr32(ptr8(s)[7])
            s[6] = t3[int(h)] ^ int(e) ^ k[2]
            h = ptr32(ptr8(s)[12])
            e = ptr8(t0[int(h)])
            h = ptr32(ptr8(s)[1])
            e = ptr8(t1[int(h)] ^ int(e))
            h = ptr32(ptr8(s)[6])
            e = ptr8(t2[int(h)] ^ int(e))
            h = ptr32(ptr8(s)[11])
            s[7] = t3[int(h)] ^ int(e) ^ k[3]
            i -= 1
            if i:
                h = ptr32(ptr8(s)[16])
                e = ptr8(t0[int(h)])
                h = ptr32(ptr8(s)[21])
                e = ptr8(t1[int(h)] ^ int(e))
                h = ptr32(ptr8(s)[26])
                e = ptr8(t2[int(h)] ^ int(e))
                h = ptr32(ptr8(s)[31])
                s[0] = t3[int(h)] ^ int(e) ^ k[4]
                h = ptr32(ptr8(s)[20])
                e = ptr8(t0[int(h)])
                h = ptr32(ptr8(s)[25])
                e = ptr8(t1[int(h)] ^ int(e))
                h = ptr32(ptr8(s)[30])
                e = ptr8(t2[int(h)] ^ int(e))
                h = ptr32(ptr8(s)[19])
                s[1] = t3[int(h)] ^ int(e) ^ k[5]
                h = ptr32(ptr8(s)[24])
                e = ptr8(t0[int(h)])
                h = ptr32(ptr8(s)[29])
                e = ptr8(t1[int(h)] ^ int(e))
                h = ptr32(ptr8(s)[18])
                e = ptr8(t2[int(h)] ^ int(e))
                h = ptr32(ptr8(s)[23])
                s[2] = t3[int(h)] ^ int(e) ^ k[6]
                h = ptr32(ptr8(s)[28])
                e = ptr8(t0[int(h)])
                h = ptr32(ptr8(s)[17])
                e = ptr8(t1[int(h)] ^ int(e))
                h = ptr32(ptr8(s)[22])
                e = ptr8(t2[int(h)] ^ int(e))
                h = ptr32(ptr8(s)[27])
                s[3] = t3[int(h)] ^ int(e) ^ k[7]
                k = ptr32(int(k) + 32)
            else:
                break
        k = ptr32(int(k) + 16)
        h = ptr32(ptr8(s)[16])
        ptr8(s)[0] = sb[int(h)]
        h = ptr32(ptr8(s)[21])
        ptr8(s)[1] = sb[int(h)]
        h = ptr32(ptr8(s)[26])
        ptr8(s)[2] = sb[int(h)]
        h = ptr32(ptr8(s)[31])
        ptr8(s)[3] = sb[int(h)]
        h = ptr32(ptr8(s)[20])
        ptr8(s)[4] = sb[int(h)]
        h = ptr32(ptr8(s)[25])
        ptr8(s)[5] = sb[int(h)]
        h = ptr32(ptr8(s)[30])
        ptr8(s)[6] = sb[int(h)]
        h = ptr32(ptr8(s)[19])
        ptr8(s)[7] = sb[int(h)]
        h = ptr32(ptr8(s)[24])
        ptr8(s)[8] = sb[int(h)]
        h = ptr32(ptr8(s)[29])
        ptr8(s)[9] = sb[int(h)]
        h = ptr32(ptr8(s)[18])
        ptr8(s)[10] = sb[int(h)]
        h = ptr32(ptr8(s)[23])
        ptr8(s)[11] = sb[int(h)]
        h = ptr32(ptr8(s)[28])
        ptr8(s)[12] = sb[int(h)]
        h = ptr32(ptr8(s)[17])
        ptr8(s)[13] = sb[int(h)]
        h = ptr32(ptr8(s)[22])
        ptr8(s)[14] = sb[int(h)]
        h = ptr32(ptr8(s)[27])
        ptr8(s)[15] = sb[int(h)]
        if mode == 2:
            ptr32(w)[0] = s[0] ^ k[0]
            ptr32(w)[1] = s[1] ^ k[1]
            ptr32(w)[2] = s[2] ^ k[2]
            ptr32(w)[3] = s[3] ^ k[3]
            return True
        if c > 1:
            x = w + 28 + (c - 2 << 4)
            i = n - (c - 2 << 4)
            if i >= 16:
                ptr32(x)[0] = ptr32(x)[0] ^ s[0] ^ k[0]
                ptr32(x)[1] = ptr32(x)[1] ^ s[1] ^ k[1]
                ptr32(x)[2] = ptr32(x)[2] ^ s[2] ^ k[2]
                ptr32(x)[3] = ptr32(x)[3] ^ s[3] ^ k[3]
            else:
                j = 0
                if i >= 8:
                    ptr32(x)[0] = ptr32(x)[0] ^ s[0] ^ k[0]
                    ptr32(x)[1] = ptr32(x)[1] ^ s[1] ^ k[1]
                    j = 8
                if j < i:
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
                        h = ptr32(int(s) + 736)
                        i = words
                        while i:
                            if y[0]:
                                e = ptr8(ptr8(y)[0])
                                a0 = ptr32((int(e) >> 4) * 20 + int(h))
                                b0 = ptr32((int(e) & 15) * 20 + int(h) + 320)
                                e = ptr8(ptr8(y)[1])
                                a1 = ptr32((int(e) >> 4) * 20 + int(h) - 1)
                                b1 = ptr32((int(e) & 15) * 20 + int(h) + 319)
                                e = ptr8(ptr8(y)[2])
                                a2 = ptr32((int(e) >> 4) * 20 + int(h) - 2)
                                b2 = ptr32((int(e) & 15) * 20 + int(h) + 318)
                                e = ptr8(ptr8(y)[3])
                                a3 = ptr32((int(e) >> 4) * 20 + int(h) - 3)
                                b3 = ptr32((int(e) & 15) * 20 + int(h) + 317)
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
                h = ptr32(int(s) + 736)
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
                            a0 = ptr32((int(e) >> 4) * 20 + int(h))
                            b0 = ptr32((int(e) & 15) * 20 + int(h) + 320)
                            e = ptr8(ptr8(y)[1])
                            a1 = ptr32((int(e) >> 4) * 20 + int(h) - 1)
                            b1 = ptr32((int(e) & 15) * 20 + int(h) + 319)
                            e = ptr8(ptr8(y)[2])
                            a2 = ptr32((int(e) >> 4) * 20 + int(h) - 2)
                            b2 = ptr32((int(e) & 15) * 20 + int(h) + 318)
                            e = ptr8(ptr8(y)[3])
                            a3 = ptr32((int(e) >> 4) * 20 + int(h) - 3)
                            b3 = ptr32((int(e) & 15) * 20 + int(h) + 317)
                            g[0] = g[0] ^ a0[0] ^ b0[0] ^ a1[0] ^ b1[0] ^ a2[0] ^ b2[0] ^ a3[0] ^ b3[0]
                            g[1] = g[1] ^ a0[1] ^ b0[1] ^ a1[1] ^ b1[1] ^ a2[1] ^ b2[1] ^ a3[1] ^ b3[1]
                            g[2] = g[2] ^ a0[2] ^ b0[2] ^ a1[2] ^ b1[2] ^ a2[2] ^ b2[2] ^ a3[2] ^ b3[2]
                            g[3] = g[3] ^ a0[3] ^ b0[3] ^ a1[3] ^ b1[3] ^ a2[3] ^ b2[3] ^ a3[3] ^ b3[3]
                            g[4] = g[4] ^ a1[4] ^ b1[4] ^ a2[4] ^ b2[4] ^ a3[4] ^ b3[4]
                        y = ptr32(int(y) + 4)
                        g = ptr32(int(g) + 4)
                        i -= 1
                    h = ptr32(int(s) + 1376)
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
                ptr32(x)[0] = g[0] ^ add[4] ^ s[0] ^ k[0]
                ptr32(x)[1] = g[1] ^ add[5] ^ s[1] ^ k[1]
                ptr32(x)[2] = g[2] ^ add[6] ^ s[2] ^ k[2]
                ptr32(x)[3] = g[3] ^ add[7] ^ s[3] ^ k[3]
                return True
            x = g[0] ^ add[4] ^ ptr32(x)[0] ^ s[0] ^ k[0] | g[1] ^ add[5] ^ ptr32(x)[1] ^ s[1] ^ k[1] | g[2] ^ add[6] ^ ptr32(x)[2] ^ s[2] ^ k[2] | g[3] ^ add[7] ^ ptr32(x)[3] ^ s[3] ^ k[3]
            if x != 0:
                return False
            if m == 0:
                return True
            c = m + 1


class Call(bytearray):
    """A call: address of the state; 0 to seal, 1 to open, 2 to encrypt counter block n."""

    run = run
