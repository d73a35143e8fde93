#!/usr/bin/env python3
"""Write the AES-GCM kernels in viper, one module a form: python tools/gcm_kernels.py FORM > file.

Unrolled code with its tables is long and dull; here is what it is made from. tools/generated.py runs this.

What MicroPython's viper emitter makes of a line decides how a line is written:

* The first two arguments live in registers, all other variables on the stack. So the first argument becomes the
  pointer to the state, the second the accumulator, and casts, which cost nothing, give them their types.
* A constant index below 32 is part of the load instruction. So the two AES states lie at the head of the state.
* A word held in a variable has 64 bits on a PC and 32 on a board. So words are shifted when they come from memory and
  go back to memory, where all have 32.
* Literals above 0x3fffffff do not compile for 32 bits; conditional branches over more than 4 KB are encoded wrongly
  (for Thumb, up to MicroPython 1.26).
* An index of a ptr16 or ptr32 that is a variable in a register is shifted in place (for Thumb and RISC-V, MicroPython
  1.26 and 1.27). So a register that was an index is written before it is read again; else the index is an expression.

tests/on_target/test_viper_traps.py holds this and the other kernels to the last two.

GHASH: with m blocks of text, the hash of associated data X0, text X1 .. Xm and lengths L is the sum of
Xi * H^(m + 2 - i), plus L * H. Blocks at an even distance from the last one are gathered by Horner's rule in H^2 and
the others too, apart; in the end E * H^2 + O * H^3 are one sum with one reduction. L * H is a sum of stored
products, one a bit of the length. So tables of H^2 and H^3 are enough.
"""

import sys

# State of a key, in bytes from its start. Words of a table of products are big-endian numbers in the aligned forms
# ("value order") and bytes as GCM has them ("memory order") in the others.
A = 0  # AES state
B = 16  # AES state
C = 32  # column 3 of round 1
ROUNDS_AT = 36  # double rounds of the main loop: 6 or 4; 0: wiped
KEY_AT = 40  # (n >> 8) << 5 | aad_length that the product at LA is for; -1 at first
T_AT = 44  # address of T0, which the others follow; all addresses: the lower word, then the upper one
STREAM_AT = 44  # address of the key stream (cryptolib)
SB_AT = 52  # address of the S-box
RT_AT = 60  # address of the reduction table
Y0 = 68  # even blocks
Y1 = 84  # odd blocks
Z = 100  # product, 8 words, and one more that the reduction of its last byte touches with nothing
LA = 136  # (associated data's length, n >> 8) * H
LB = 152  # H * x^60, value order
LC = 168  # H * x^116, value order
LN = 184  # H * x^(124 - i), i = 0 .. 7
V = 312  # scratch, 4 words
G = 328  # what is added to the hash of the text: products of lengths, of associated data too if in the cache
W = 344  # round keys, 60 words
CACHE = 584  # 4 entries of 9 words: associated data; what G was for them; (n << 5 | aad_length) + 1
LATER = 728
START = LATER  # aligned forms: counter block ^ first round key
LANES = LATER + 16  # aligned forms: 4 times 9 words, of which the first stays zero

FORMS = {
    # name: (aligned, bits an index, own AES, title)
    "gcm_viper": (False, 4, True, "4-bit tables (1.3 KB a key), unaligned word access"),
    "gcm_viper_large": (False, 8, True, "8-bit tables (10 KB a key), unaligned word access"),
    "gcm_viper_aligned": (True, 4, True, "4-bit tables (1 KB a key), 1 KB of shared tables, any core"),
    "gcm_cryptolib_viper": (False, 4, False, "GHASH over cryptolib's AES, 4-bit tables, unaligned word access"),
    "gcm_cryptolib_aligned": (True, 4, False, "GHASH over cryptolib's AES, 4-bit tables, any core"),
}


def address(pointer, at):
    """The address at a byte of what a ptr32 points to. The upper word is 0 where a shift by 32 would be wrong."""
    return "%s[%d] | %s[%d] << 31 << 1" % (pointer, at // 4, pointer, at // 4 + 1)


def indent(lines, by=1):
    """The lines, `by` levels further in."""
    return ["    " * by + line for line in lines]


class Kernel:
    """Writes one form."""

    def __init__(self, aligned, bits, own_aes):
        self.aligned = aligned
        self.bits = bits
        self.own_aes = own_aes
        self.base = "int(h)" if own_aes else "x"
        self.small = aligned  # one T-table and rotations
        self.stride = 16 if aligned else 20
        self.half = 16 * self.stride  # from a high nibble's table to the low one's
        size = self.half * 2 if bits == 4 else 256 * self.stride
        # Unaligned look-ups read up to 3 bytes before an entry: zeros.
        self.h2 = (LANES + 144) if aligned else LATER + 8
        self.h3 = self.h2 + size
        self.size = self.h3 + size

    # ---- AES

    def column(self, source, target, j, key, parts=(0, 1, 2, 3)):
        """Column j of the next round: s[target + j] = look-ups of the four bytes ShiftRows brings together ^ key."""
        at = [source + 4 * ((j + r) % 4) + r for r in range(4)]
        if self.small:
            return [*self.rotated(at), "s[%d] = int(e) ^ %s" % (target // 4 + j, key)]
        return [
            *self.look(0, at[0], "e = ptr8(@)"),
            *self.look(1, at[1], "e = ptr8(@ ^ int(e))"),
            *self.look(2, at[2], "e = ptr8(@ ^ int(e))"),
            *self.look(3, at[3], "s[%d] = @ ^ int(e) ^ %s" % (target // 4 + j, key)),
        ]

    @staticmethod
    def look(table, at, use):
        """A look-up of the byte at `at`: the index through a register."""
        return ["h = ptr32(ptr8(s)[%d])" % at, use.replace("@", "t%d[int(h)]" % table)]

    @staticmethod
    def rotated(at):
        """E = the sum of T0's entries, each turned by its row: Horner's rule with turns by one byte."""
        lines = ["e = ptr8(t0[ptr8(s)[%d]])" % at[3]]
        for r in (2, 1, 0):
            lines += ["h = ptr32(ptr8(s)[%d])" % at[r], "e = ptr8(int(e) << 8 ^ int(e) >> 24 & 255 ^ t0[int(h)])"]
        return lines

    def start(self):
        """What all counter blocks with the same upper bytes have in common of rounds 1 and 2."""
        lines = ["k = ptr32(int(s) + %d)" % W]
        if self.aligned:
            lines += ["x = w + 16"]
            lines += [
                "s[%d] = (ptr8(x)[%d] | ptr8(x)[%d] << 8 | ptr8(x)[%d] << 16 | ptr8(x)[%d] << 24) ^ k[%d]"
                % (j, 4 * j, 4 * j + 1, 4 * j + 2, 4 * j + 3, j)
                for j in range(3)
            ]
        else:
            lines += ["x = w + 16"] + ["s[%d] = ptr32(x)[%d] ^ k[%d]" % (j, j, j) for j in range(3)]
        lines += ["high = c >> 8", "s[3] = high << 16 ^ k[3]"]
        if self.small:
            return lines
        for j in (1, 2, 3):
            lines += self.column(A, B, j, "k[%d]" % (4 + j))
        lines += self.look(0, 0, "e = ptr8(@)") + self.look(1, 5, "e = ptr8(@ ^ int(e))")
        lines += [*self.look(2, 10, "q = @ ^ int(e) ^ k[4]"), "last = int(ptr8(s)[15])"]
        for j in range(4):
            rows = [r for r in range(4) if (j + r) % 4]
            uses = ["e = ptr8(@)", "e = ptr8(@ ^ int(e))", "p%d = @ ^ int(e) ^ k[%d]" % (j, 8 + j)]
            for r, use in zip(rows, uses, strict=True):
                lines += self.look(r, B + 4 * ((j + r) % 4) + r, use)
        return lines

    def block(self):
        """Encrypt the counter block c: all but the last key, into A."""
        lines = []
        if self.small:
            # The whole first round, from the saved start in V.
            lines += ["s[%d] = s[%d]" % (j, START // 4 + j) for j in range(3)]
            lines += ["s[3] = s[%d] ^ (c & 255) << 24" % (START // 4 + 3)]
            lines += ["k = ptr32(int(s) + %d)" % (W + 16), "i = s[%d] + 1" % (ROUNDS_AT // 4)]
        else:
            lines += ["h = ptr32(c & 255 ^ last)", "s[%d] = t3[int(h)] ^ q" % (C // 4)]
            for j in range(4):
                lines += self.look(-j % 4, C + -j % 4, "s[%d] = @ ^ p%d" % (j, j))
            lines += ["k = ptr32(int(s) + %d)" % (W + 48), "i = s[%d]" % (ROUNDS_AT // 4)]
        loop = []
        for j in range(4):
            loop += self.column(A, B, j, "k[%d]" % j)
        again = []
        for j in range(4):
            again += self.column(B, A, j, "k[%d]" % (4 + j))
        loop += ["i -= 1", "if i:", *indent(again), "    k = ptr32(int(k) + 32)", "else:", "    break"]
        lines += ["while True:", *indent(loop), "k = ptr32(int(k) + 16)"]
        for at in range(16):
            source = B + 4 * ((at // 4 + at % 4) % 4) + at % 4
            if self.small:
                lines.append("ptr8(s)[%d] = sb[ptr8(s)[%d] << 2]" % (at, source))
            else:
                lines += ["h = ptr32(ptr8(s)[%d])" % source, "ptr8(s)[%d] = sb[int(h)]" % at]
        return lines

    # ---- text ^= key stream

    def text(self):
        """The block of text that counter c is for: ^= the key stream, which is h ^ k, or k (cryptolib)."""
        terms = ["s[%d] ^ k[%d]" % (j, j) if self.own_aes else "k[%d]" % j for j in range(4)]
        # Where the words of a partial block go to be taken by bytes.
        at = A if self.own_aes else B
        lines = ["x = w + 28 + (c - 2 << 4)", "i = n - (c - 2 << 4)"]
        words = ["ptr32(x)[%d] = ptr32(x)[%d] ^ %s" % (j, j, terms[j]) for j in range(4)]
        mixed = ["s[%d] = %s" % (at // 4 + j, terms[j]) for j in range(4)]
        tail = [
            "while j < i:",
            "    ptr8(x)[j] = ptr8(x)[j] ^ ptr8(s)[%sj]" % ("%d + " % at if at else ""),
            "    j += 1",
        ]
        if self.aligned:
            return [
                *lines,
                "if i >= 16 and w & 3 == 0:",
                *indent(words),
                "else:",
                "    if i > 16:",
                "        i = 16",
                "    j = 0",
                *indent(mixed + tail),
            ]
        half = [
            "j = 0",
            "if i >= 8:",
            *indent(words[:2]),
            "    j = 8",
            "if j < i:",
            *indent(mixed + tail),
        ]
        return [*lines, "if i >= 16:", *indent(words), "else:", *indent(half)]

    # ---- GHASH

    def products(self):
        """Z ^= the 4 words at y times the table at self.base (an address)."""
        base = self.base
        nibbles = self.bits == 4
        lines = ["i = words", "while i:"]
        loop = []
        if self.aligned:
            for r in range(4):
                # Byte r of a big-endian number lies at 3 - r.
                at = 3 - r
                loop += [
                    "e = ptr8(ptr8(y)[%d])" % at,
                    "u = ptr32((int(e) & 240) + %s)" % base,
                    "v = ptr32((int(e) << 4 & 240) + %s + 256)" % base,
                    "z = ptr32(int(g) + %d)" % (36 * r + 4),
                ]
                loop += ["z[%d] = z[%d] ^ u[%d] ^ v[%d]" % (k, k, k, k) for k in range(4)]
        else:
            pointers = []
            for r in range(4):
                if nibbles:
                    loop += [
                        "e = ptr8(ptr8(y)[%d])" % r,
                        "a%d = ptr32((int(e) >> 4) * 20 + %s%s)" % (r, base, " - %d" % r if r else ""),
                        "b%d = ptr32((int(e) & 15) * 20 + %s + %d)" % (r, base, self.half - r),
                    ]
                    pointers += [("a%d" % r, r), ("b%d" % r, r)]
                else:
                    loop += ["a%d = ptr32(ptr8(y)[%d] * 20 + %s%s)" % (r, r, base, " - %d" % r if r else "")]
                    pointers += [("a%d" % r, r)]
            for k in range(5):
                terms = ["%s[%d]" % (name, k) for name, r in pointers if k < 4 or r]
                loop.append("g[%d] = g[%d] ^ %s" % (k, k, " ^ ".join(terms)))
        body = ["if y[0]:", *indent(loop), "y = ptr32(int(y) + 4)", "g = ptr32(int(g) + 4)", "i -= 1"]
        return lines + indent(body)

    def set_base(self, at):
        """The table for `products`."""
        return ("h = ptr32(int(s) + %d)" if self.own_aes else "x = int(s) + %d") % at

    def clear(self):
        """Z = 0."""
        if self.aligned:
            lines = []
            for r in range(4):
                lines += ["g = ptr32(int(s) + %d)" % (LANES + 36 * r + 4), *["g[%d] = 0" % k for k in range(8)]]
            return [*lines, "g = ptr32(int(s) + %d)" % LANES]
        return ["g = ptr32(int(s) + %d)" % Z] + ["g[%d] = 0" % k for k in range(8)]

    def reduce(self):
        """The first 4 words of Z: Z modulo GCM's polynomial."""
        if self.aligned:
            # Lane r is 8 * r bits further on. Then x^128 = 1 + x + x^2 + x^7, a word at a time.
            return [
                "j = 0",
                "u = ptr32(int(s) + %d)" % (LANES + 4),
                "z = ptr32(int(s) + %d)" % Z,
                "while j < 8:",
                "    z[0] = u[0] ^ uint(u[9]) >> 8 ^ u[8] << 24",
                "    z[0] = z[0] ^ uint(u[18]) >> 16 ^ u[17] << 16",
                "    z[0] = z[0] ^ uint(u[27]) >> 24 ^ u[26] << 8",
                "    u = ptr32(int(u) + 4)",
                "    z = ptr32(int(z) + 4)",
                "    j += 1",
                "z = ptr32(int(s) + %d)" % Z,
                "j = 4",
                "while j:",
                "    z[0] = z[0] ^ z[4] ^ uint(z[4]) >> 1 ^ uint(z[4]) >> 2 ^ uint(z[4]) >> 7",
                "    z[1] = z[1] ^ z[4] << 31 ^ z[4] << 30 ^ z[4] << 25",
                "    z = ptr32(int(z) + 4)",
                "    j -= 1",
            ]
        rows = " ^ ".join(["ptr32((ptr8(y)[%d] << 3) + x + %d)[0]" % (r, 3 - r) for r in range(3)])
        return [
            "g = ptr32(int(s) + %d)" % Z,
            "x = " + address("s", RT_AT),
            "j = words",
            "while j:",
            "    y = ptr32(int(g) + 16)",
            "    if y[0]:",
            "        e = ptr8((ptr8(y)[3] << 3) + x)",
            "        g[0] = %s ^ ptr32(e)[0] ^ g[0]" % rows,
            "        g[1] = g[1] ^ ptr32(e)[1]",
            "    g = ptr32(int(g) + 4)",
            "    j -= 1",
        ]

    def absorb(self):
        """Y ^= the i bytes at x, at most 16; y points to Y."""
        if not self.aligned:
            return [
                "if i >= 16:",
                *indent(["y[%d] = y[%d] ^ ptr32(x)[%d]" % (j, j, j) for j in range(4)]),
                "else:",
                "    j = 0",
                "    if i >= 8:",
                *indent(["y[%d] = y[%d] ^ ptr32(x)[%d]" % (j, j, j) for j in range(2)], 2),
                "        j = 8",
                "    while j < i:",
                "        ptr8(y)[j] = ptr8(y)[j] ^ ptr8(x)[j]",
                "        j += 1",
            ]
        word = "ptr8(x)[0] << 24 ^ ptr8(x)[1] << 16 ^ ptr8(x)[2] << 8 ^ ptr8(x)[3]"
        return [
            "u = y",
            "j = 16",
            "if i < 16:",
            "    j = i",
            "while j >= 4:",
            "    u[0] = u[0] ^ " + word,
            "    u = ptr32(int(u) + 4)",
            "    x += 4",
            "    j -= 4",
            "e = ptr8(int(u) + 3)",
            "while j > 0:",
            "    e[0] = e[0] ^ ptr8(x)[0]",
            "    e = ptr8(int(e) - 1)",
            "    x += 1",
            "    j -= 1",
        ]

    def lengths(self):
        """G = L * H: LN's entries for the last bits of n, and LA for all others, unless that is from last time."""
        order = "g[%d] = g[%d] ^ v[%d]"
        if not self.aligned:
            order = "g[%d] = g[%d] ^ (v[%d] << 24 ^ v[%d] << 8 & 16711680 ^ v[%d] >> 8 & 65280 ^ v[%d] >> 24 & 255)"
        adds = [order % ((j,) * order.count("%d")) for j in range(4)]
        walk = [
            "s[%d] = x" % (KEY_AT // 4),
            "g = ptr32(int(s) + %d)" % LA,
            "v = ptr32(int(s) + %d)" % V,
            "i = 0",
            "while i < 4:",
            "    g[i] = 0",
            "    i += 1",
            "u = ptr32(int(s) + %d)" % LB,
            "x = aad_length",
            "j = 2",
            "while j:",
            "    j -= 1",
            *indent(["v[%d] = u[%d]" % (k, k) for k in range(4)]),
            "    while x:",
            "        if x & 1:",
            *indent(adds, 3),
            # v / x: x^-1 = 1 + x + x^6 + x^127
            "        i = v[0] >> 31 & 1",
            *indent(["v[%d] = v[%d] << 1 | v[%d] >> 31 & 1" % (k, k, k + 1) for k in range(3)], 2),
            "        v[0] = v[0] ^ i << 31 ^ i << 30 ^ i << 25",
            "        v[3] = v[3] << 1 | i",
            "        x = x >> 1",
            "    u = ptr32(int(s) + %d)" % LC,
            "    x = n >> 8",
        ]
        return [
            "x = n >> 8 << 5 | aad_length",
            "if x != s[%d]:" % (KEY_AT // 4),
            *indent(walk),
            "x = n & 255",
            "g = ptr32(int(s) + %d)" % LA,
            "v = ptr32(int(s) + %d)" % LN,
            *["g[%d] = g[%d]" % ((G - LA) // 4 + j, j) for j in range(4)],
            "g = ptr32(int(s) + %d)" % G,
            "while x:",
            "    if x & 1:",
            *indent(["g[%d] = g[%d] ^ v[%d]" % (j, j, j) for j in range(4)], 2),
            "    v = ptr32(int(v) + 16)",
            "    x = x >> 1",
        ]

    def remembered(self):
        """For records of one block: add = the cache's entry, at = 1 if it is right, else first = 1."""
        hit = " and ".join(["ptr32(w)[%d] == add[%d]" % (j, j) for j in range(4)])
        return [
            "at = 0",
            "end = m",
            "first = 0",
            "words = 4",
            "add = ptr32(int(s) + %d)" % (G - 16),
            "if m < 2%s:" % (" and w & 3 == 0" if self.aligned else ""),
            "    x = ptr32(w)[0] ^ ptr32(w)[1] ^ ptr32(w)[2] ^ ptr32(w)[3] ^ n",
            "    x = x ^ x >> 16",
            "    add = ptr32(int(s) + %d + ((x ^ x >> 8) & 3) * 36)" % CACHE,
            "    x = (n << 5 | aad_length) + 1",
            "    if x == add[8] and %s:" % hit,
            "        at = 1",
            "    else:",
            "        end = 0",
            "        first = 1",
        ]

    def tag(self):
        """The whole tag: Z ^ add[4..7] ^ mask, which is s ^ k, or s (cryptolib); written or compared."""
        lines = ["x = w + 28 + n", "g = ptr32(int(s) + %d)" % Z]
        terms = ["s[%d] ^ k[%d]" % (j, j) if self.own_aes else "s[%d]" % j for j in range(4)]
        if not self.aligned:
            return [
                *lines,
                "if mode == 0:",
                *indent(["ptr32(x)[%d] = g[%d] ^ add[%d] ^ %s" % (j, j, 4 + j, terms[j]) for j in range(4)]),
                "    return True",
                "x = %s"
                % " | ".join("g[%d] ^ add[%d] ^ ptr32(x)[%d] ^ %s" % (j, 4 + j, j, terms[j]) for j in range(4)),
                "if x != 0:",
                "    return False",
            ]
        return [
            *lines,
            *["s[%d] = %s" % (B // 4 + j, terms[j]) for j in range(4)],
            "i = 0",
            "j = 0",
            "while i < 16:",
            "    e = ptr8(ptr8(s)[%d + i] ^ ptr8(g)[i ^ 3] ^ ptr8(add)[16 + (i ^ 3)])" % B,
            "    if mode == 0:",
            "        ptr8(x)[i] = int(e)",
            "    else:",
            "        j |= ptr8(x)[i] ^ int(e)",
            "    i += 1",
            "if mode == 0:",
            "    return True",
            "if j != 0:",
            "    return False",
        ]

    def ghash(self):
        """The tag over associated data and ciphertext."""
        point = ["g = ptr32(int(s) + %d)" % (LANES if self.aligned else Z)]
        step = [
            *self.clear(),
            self.set_base(self.h2),
            *self.products(),
            *self.reduce(),
            "y = ptr32(int(s) + %d + ((m - at & 1) << 4))" % Y0,
            "z = ptr32(int(s) + %d)" % Z,
            *["y[%d] = z[%d]" % (j, j) for j in range(4)],
        ]
        chain = [
            "y = ptr32(int(s) + %d + ((m - at & 1) << 4))" % Y0,
            "if at > 1:",
            *indent(step),
            "    y = ptr32(int(s) + %d + ((m - at & 1) << 4))" % Y0,
            "x = w",
            "i = 16",
            "if at:",
            "    x = w + 12 + (at << 4)",
            "    i = n + 16 - (at << 4)",
            *self.absorb(),
            "at += 1",
        ]
        remember = [
            "g = ptr32(int(s) + %d)" % Z,
            "v = ptr32(int(s) + %d)" % G,
            *["add[%d] = g[%d] ^ v[%d]" % (4 + j, j, j) for j in range(4)],
            *["add[%d] = ptr32(w)[%d]" % (j, j) for j in range(4)],
            "add[8] = (n << 5 | aad_length) + 1",
            "first = 0",
            "end = m",
        ]
        return [
            *self.remembered(),
            "if at == 0:",
            *indent(self.lengths()),
            "while True:",
            *indent(
                [
                    *["s[%d] = 0" % (Y0 // 4 + j) for j in range(8)],
                    "while at <= end:",
                    *indent(chain),
                    *self.clear(),
                    self.set_base(self.h2),
                    "y = ptr32(int(s) + %d)" % Y0,
                    "j = 2",
                    "if first == 0 and m == 1%s:" % (" and w & 3 == 0" if self.aligned else ""),
                    # The text is all there is, and often short.
                    "    j = 1",
                    "    words = n + 3 >> 2",
                    "while j:",
                    *indent([*point, *self.products(), self.set_base(self.h3), "j -= 1"]),
                    *self.reduce(),
                    "if first == 0:",
                    "    break",
                    *remember,
                ]
            ),
        ]

    # ---- the whole

    def check(self):
        """The head of the function."""
        lines = [
            "w = int(e)",
            "s = ptr32(%s)" % ("h" if self.own_aes else "self"),
            "mode = s[2]",
            "s = ptr32(%s)" % address("s", 0),
            "i = n | aad_length | 16 - aad_length",
            "if s[%d]:" % (ROUNDS_AT // 4),
            "    pass",
            "else:",
            "    i = -1",
            "if i < 0:",
            # No global name may appear here: looking one up makes every call change and guard the globals.
            "    if mode == 0:",
            "        x = w + 28",
            "        i = 0",
            "        while i < n:",
            "            ptr8(x)[i] = 0",
            "            i += 1",
            "    return False",
            "m = n + 15 >> 4",
            *self.padding(),
            "while i < 16:",
            "    ptr8(w)[i] = 0",
            "    i += 1",
        ]
        if self.own_aes:
            lines += ["t0 = ptr32(%s)" % address("s", T_AT), "sb = ptr8(%s)" % address("s", SB_AT)]
            if not self.small:
                lines += ["t%d = ptr32(int(t0) + %d)" % (r, 1024 * r) for r in (1, 2, 3)]
        return lines

    def padding(self):
        """The first byte behind the associated data that is to be cleared."""
        if self.aligned:
            return ["i = aad_length"]
        # Most often it is clear, and most often the last three bytes.
        return [
            "i = 16",
            "if aad_length < 13 or ptr32(w)[3] >> (aad_length - 12 << 3):",
            "    i = aad_length",
        ]

    def function(self):
        """The kernel."""
        if not self.own_aes:
            return self.function_cryptolib()
        start = self.start()
        if self.small:
            start += ["s[%d] = s[%d]" % (START // 4 + j, j) for j in range(4)]
        lines = [
            "def run(h: ptr32, e: ptr8, n: int, aad_length: int) -> bool:",
            *indent(self.check()),
            *indent(["c = m + 1", "if mode == 1:", "    c = 1", "if mode == 2:", "    c = n"]),
            *indent(["high = -1", "while True:"]),
            *indent(["if c >> 8 != high:", *indent(start), *self.block(), "if mode == 2:"], 2),
            *indent(["ptr32(w)[%d] = s[%d] ^ k[%d]" % (j, j, j) for j in range(4)], 3),
            *indent(["    return True", "if c > 1:", *indent(self.text())], 2),
            *indent(["    c -= 1", "    if c == mode:", "        return True", "else:"], 2),
            *indent(self.ghash() + self.tag(), 3),
            *indent(["if m == 0:", "    return True", "c = m + 1"], 3),
        ]
        return ["@micropython.viper", *lines]

    def function_cryptolib(self):
        """The kernel over cryptolib's AES, which encrypts up to 8 counter blocks in a call."""
        fill = [
            "b = m + 2 - c",
            "if b > 8:",
            "    b = 8",
            "    if c + mode == 2:",
            "        b = 1",
            "k = ptr32(%s)" % address("s", STREAM_AT),
            "i = 0",
            "x = w + 16",
            "while i < b:",
            *indent(self.iv()),
            "    k[3] = c + i << 24 ^ (c + i << 8 & 16711680)",
            "    k = ptr32(int(k) + 16)",
            "    i += 1",
            "encrypt(views[b], views[b])",
            "k = ptr32(%s)" % address("s", STREAM_AT),
        ]
        lines = [
            "def run(self, e: ptr8, n: int, aad_length: int) -> bool:",
            "    views = self.views",
            "    encrypt = self.encrypt",
            *indent(self.check()),
            "    c = 1",
            "    b = 0",
            "    left = 1",
            "    while True:",
            # Not the other way round: a conditional branch must not go over all of this.
            "        if left == 0 or mode == 0 and c < m + 2 or mode == 1 and c != 2:",
            "            pass",
            "        else:",
            *indent(self.ghash() + self.tag() + ["left = 0"], 3),
            "        if c == m + 2:",
            "            return True",
            "        if b == 0:",
            *indent(fill, 3),
            "        if c == 1:",
            *indent(["s[%d] = k[%d]" % (j, j) for j in range(4)], 3),
            "        else:",
            *indent(self.text(), 3),
            "        k = ptr32(int(k) + 16)",
            "        c += 1",
            "        b -= 1",
        ]
        return ["@micropython.viper", *lines]

    def iv(self):
        """k[0..2] = the IV at x."""
        if not self.aligned:
            return ["k[%d] = ptr32(x)[%d]" % (j, j) for j in range(3)]
        return ["j = 0", "while j < 12:", "    ptr8(k)[j] = ptr8(x)[j]", "    j += 1"]


def module(name):
    """The text of a module."""
    aligned, bits, own_aes, title = FORMS[name]
    kernel = Kernel(aligned, bits, own_aes)
    layout = {
        "SIZE": kernel.size,  # bytes of a key's state
        "SHARED": 1 if kernel.small else 4,  # T-tables
        "REDUCTION": 0 if aligned else 8,  # bytes an entry of the reduction table
        "MEMORY": 0 if aligned else 1,  # order of the products' bytes
        "BITS": bits,
        "STRIDE": kernel.stride,
        "H2": kernel.h2,
        "H3": kernel.h3,
    }
    lines = [
        '"""AES-GCM in viper for MicroPython: %s.' % title,
        "",
        "Made by tools/gcm_kernels.py, which explains it. One call seals or opens a record in its work buffer.",
        '"""',
        "",
        "# ruff: noqa",
        "# mypy: ignore-errors",
        "# fmt: off",
        "import micropython",
        "",
        *["%s = %s" % item for item in layout.items()],
        "",
        "",
        *kernel.function(),
        "",
        "",
        "class Call(bytearray):",
        '    """A call: address of the state; 0 to seal, 1 to open, 2 to encrypt counter block n."""',
        "",
        "    run = run",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(module(sys.argv[1]))
