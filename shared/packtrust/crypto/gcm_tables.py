"""State of a key for the AES-GCM kernels of MicroPython: key schedule, tables of products. In viper.

The layout is that of tools/gcm_kernels.py. Numbers of 128 bits are four words, the first the highest, its highest bit
the coefficient of x^0 (NIST SP 800-38D, 6.3): "value order". In "memory order" each word holds its bytes the other way
round, so that it is in memory what GCM has on the wire.
"""

# ruff: noqa: F821, I001
# mypy: ignore-errors
import micropython
from array import array
from struct import pack_into

from packtrust.crypto.buffers import wipe
from packtrust.crypto.gcm import BLOCK, Gcm, InPlace, TAG_LENGTH
from packtrust.errors import CryptoError, InvalidTag


_STREAM_BLOCKS = micropython.const(8)

_shared = {}
# In which a key is set up; zeros but then.
_work = bytearray(44)

# Memory of keys that were wiped: a board with little heap has no kilobyte and a half in one piece later.
_FREE_MAX = micropython.const(5)
_free = []
# What a wiped key's calls are about: a state without rounds, which a kernel refuses.
_DEAD = bytearray(64)


@micropython.viper
def _fill_t(t: ptr32, tables: int):
    """T0 (FIPS 197 rounds by look-up): bytes 2S, S, S, 3S of S = S-box[x]; of four tables, the others turned, and the
    S-box behind them."""
    p = 1
    q = 1
    while True:
        p = (p ^ p << 1 ^ (p >> 7) * 27) & 255
        q = q ^ q << 1
        q = q ^ q << 2
        q = (q ^ q << 4) & 255
        if q & 128:
            q = q ^ 9
        s = (q ^ q << 1 ^ q >> 7 ^ q << 2 ^ q >> 6 ^ q << 3 ^ q >> 5 ^ q << 4 ^ q >> 4 ^ 99) & 255
        ptr32((p << 2) + int(t))[0] = s  # t[p] may change p: a trap of the emitter (tools/gcm_kernels.py)
        if p == 1:
            break
    t[0] = 99
    x = 0
    while x < 256:
        s = t[x]
        d = (s << 1 ^ (s >> 7) * 27) & 255
        t[x] = d | s << 8 | s << 16 | (d ^ s) << 24
        if tables == 4:
            t[256 + x] = d ^ s | d << 8 | s << 16 | s << 24
            t[512 + x] = s | (d ^ s) << 8 | d << 16 | s << 24
            t[768 + x] = s | s << 8 | (d ^ s) << 16 | d << 24
            p = int(t) + 4096
            ptr8(p)[x] = s
        x += 1


@micropython.viper
def _fill_r(t: ptr8):
    """What byte b, x^128 too high, is modulo GCM's polynomial: two bytes amid zeros, 8 bytes an entry."""
    x = 0
    while x < 256:
        v = x << 8
        v = v ^ v >> 1 ^ v >> 2 ^ v >> 7
        t[(x << 3) + 3] = v >> 8
        t[(x << 3) + 4] = v
        x += 1


@micropython.viper
def _fill_r16(t: ptr16):
    """The same without the zeros, 2 bytes an entry."""
    x = 0
    while x < 256:
        v = x << 8
        v = v ^ v >> 1 ^ v >> 2 ^ v >> 7
        t[0] = v >> 8 | (v & 255) << 8
        t = ptr16(int(t) + 2)
        x += 1


@micropython.viper
def _begin(w: ptr32, q: ptr8, plan: ptr32, seal: ptr32, opening: ptr32):
    """Fill in rounds and addresses of the state w and its two calls; q is the key, whose schedule (FIPS 197, 5.2) is
    made: words in memory order. See `_plan`."""
    w[9] = plan[1]
    w[10] = 0 - 1
    w[11] = plan[2]
    w[12] = plan[3]
    w[13] = plan[4]
    w[14] = plan[5]
    w[15] = plan[6]
    w[16] = plan[7]
    i = int(w)
    seal[0] = i
    opening[0] = i
    i = i >> 31 >> 1
    seal[1] = i
    opening[1] = i
    seal[2] = 2
    opening[2] = 1
    size = plan[0]
    if size:
        t = ptr8((plan[2] | plan[3] << 31 << 1) + 1)  # the second byte of an entry is its S-box
        w = ptr32(int(w) + 344)
        step = size << 2
        left = 28 + size * 3
        i = int(w)
        while size:
            ptr32(i)[0] = q[0] | q[1] << 8 | q[2] << 16 | q[3] << 24
            q = ptr8(int(q) + 4)
            i += 4
            size -= 1
        q = ptr8(i - 4)
        rcon = 1
        while True:
            v = ptr32(q)[0]
            v = t[v >> 6 & 1020] | t[v >> 14 & 1020] << 8 | t[v >> 22 & 1020] << 16 | t[(v & 255) << 2] << 24
            ptr32(q)[1] = v ^ rcon ^ w[0]
            ptr32(q)[2] = ptr32(q)[1] ^ w[1]
            ptr32(q)[3] = ptr32(q)[2] ^ w[2]
            ptr32(q)[4] = ptr32(q)[3] ^ w[3]
            rcon = (rcon << 1 ^ (rcon >> 7) * 27) & 255
            left -= 4
            if left == 0:
                break
            if step == 32:
                v = ptr32(q)[4]
                v = t[(v & 255) << 2] | t[v >> 6 & 1020] << 8 | t[v >> 14 & 1020] << 16 | t[v >> 22 & 1020] << 24
                ptr32(q)[5] = v ^ w[4]
                ptr32(q)[6] = ptr32(q)[5] ^ w[5]
                ptr32(q)[7] = ptr32(q)[6] ^ w[6]
                ptr32(q)[8] = ptr32(q)[7] ^ w[7]
                left -= 4
            w = ptr32(int(w) + step)
            q = ptr8(int(q) + step)


@micropython.viper
def _finish(v: ptr32, q: ptr32, plan: ptr32, seal: ptr32):
    """From H in the work buffer q, as on the wire: the products of the state v, see tools/gcm_kernels.py. Clears q.

    H times x^60, x^116 and x^117 to x^124, the latter in memory order if asked for; and the tables of H^2 and H^3:
    t[b] = b * v for all numbers b of some bits, of which the highest is x^0, and of 4 bits the same for v * x^4 behind
    it. What is done often goes through the first two arguments, which live in registers.
    """
    seal[2] = 0
    shape = plan[8]  # bits of an index << 8 | words from entry to entry << 1 | memory order
    keep = int(v) + 152
    h3 = int(v) + plan[10]
    work = int(q)
    # Scratch where the table of H^2 will be: H, then (from word 20) a product, 8 words, and 16 multiples of H^2.
    v = ptr32(int(v) + plan[9])
    t = int(v)
    j = 4
    while j:
        ptr8(v)[0] = ptr8(q)[3]
        ptr8(v)[1] = ptr8(q)[2]
        ptr8(v)[2] = ptr8(q)[1]
        ptr8(v)[3] = ptr8(q)[0]
        v = ptr32(int(v) + 4)
        q = ptr32(int(q) + 4)
        j -= 1
    v = ptr32(t)
    # Squaring puts a zero behind each coefficient.
    q = ptr32(t + 96)
    j = 30
    fives = 357913941 | 1 << j
    i = 0
    while i < 8:
        c = v[i >> 1]
        if i & 1:
            c = c & 65535
        else:
            c = c >> 16 & 65535
        c = (c | c << 8) & 16711935
        c = (c | c << 4) & 252645135
        c = (c | c << 2) & 858993459
        q[0] = ((c | c << 1) & fives) << 1
        q = ptr32(int(q) + 4)
        i += 1
    # x^128 = 1 + x + x^2 + x^7, twice: the first time leaves a few bits above.
    q = ptr32(t + 96)
    c = q[4]
    i = 4
    while i:
        q[0] = q[0] ^ q[4] ^ uint(q[4]) >> 1 ^ uint(q[4]) >> 2 ^ uint(q[4]) >> 7
        q[1] = q[1] ^ q[4] << 31 ^ q[4] << 30 ^ q[4] << 25
        q = ptr32(int(q) + 4)
        i -= 1
    v[28] = v[28] ^ c
    v[24] = v[24] ^ v[28] ^ uint(v[28]) >> 1 ^ uint(v[28]) >> 2 ^ uint(v[28]) >> 7
    # Multiples of H^2: by x^0 .. x^3, then sums.
    q = ptr32(t + 256)
    p = ptr32(work)
    q[0] = v[24]
    q[1] = v[25]
    q[2] = v[26]
    q[3] = v[27]
    p[0] = q[0]
    p[1] = q[1]
    p[2] = q[2]
    p[3] = q[3]
    i = 64
    while i > 8:
        p = ptr32(int(q) - i)
        c = q[3] & 1
        p[3] = uint(q[3]) >> 1 | q[2] << 31
        p[2] = uint(q[2]) >> 1 | q[1] << 31
        p[1] = uint(q[1]) >> 1 | q[0] << 31
        p[0] = uint(q[0]) >> 1 ^ c * 225 << 24
        q = p
        i = i >> 1
    i = 32
    while i < 256:
        p = ptr32(t + 128 + i)
        q = ptr32(t + 144)
        j = i - 16
        while j:
            r = ptr32(int(q) + i)
            r[0] = q[0] ^ p[0]
            r[1] = q[1] ^ p[1]
            r[2] = q[2] ^ p[2]
            r[3] = q[3] ^ p[3]
            q = ptr32(int(q) + 16)
            j -= 16
        i = i << 1
    # H^3 by Horner's rule in x^4, from the highest coefficients of H down.
    v[20] = 0
    v[21] = 0
    v[22] = 0
    v[23] = 0
    i = 4
    while i:
        i -= 1
        m = v[i]
        j = 8
        while j:
            c = v[23] & 15
            q = ptr32(int(v) + 128 + ((m & 15) << 4))
            v[23] = uint(v[23]) >> 4 ^ v[22] << 28 ^ q[3]
            v[22] = uint(v[22]) >> 4 ^ v[21] << 28 ^ q[2]
            v[21] = uint(v[21]) >> 4 ^ v[20] << 28 ^ q[1]
            v[20] = uint(v[20]) >> 4 ^ (c << 3 ^ c << 2 ^ c << 1) << 25 ^ c << 21 ^ q[0]
            m = m >> 4
            j -= 1
    q = ptr32(work)
    q[4] = v[20]
    q[5] = v[21]
    q[6] = v[22]
    q[7] = v[23]
    # H times x^60 in steps of 28, 28 and 4, times x^116 after 28 and 28 more, then one by one.
    v[24] = v[0]
    v[25] = v[1]
    v[26] = v[2]
    v[27] = v[3]
    q = ptr32(keep)
    i = 5
    while i:
        i -= 1
        m = 28
        if i == 2:
            m = 4
        j = 32 - m
        v[28] = v[27] << j
        v[27] = uint(v[27]) >> m | v[26] << j
        v[26] = uint(v[26]) >> m | v[25] << j
        v[25] = uint(v[25]) >> m | v[24] << j
        v[24] = uint(v[24]) >> m ^ v[28] ^ uint(v[28]) >> 1 ^ uint(v[28]) >> 2 ^ uint(v[28]) >> 7
        if m > 25:
            v[25] = v[25] ^ v[28] << 31 ^ v[28] << 30 ^ v[28] << 25
        if i == 2 or i == 0:
            q[0] = v[24]
            q[1] = v[25]
            q[2] = v[26]
            q[3] = v[27]
            q = ptr32(int(q) + 16)
    i = 112
    while i >= 0:
        q = ptr32(keep + 32 + i)
        c = v[27] & 1
        q[3] = uint(v[27]) >> 1 | v[26] << 31
        q[2] = uint(v[26]) >> 1 | v[25] << 31
        q[1] = uint(v[25]) >> 1 | v[24] << 31
        q[0] = uint(v[24]) >> 1 ^ c * 225 << 24
        v[24] = q[0]
        v[25] = q[1]
        v[26] = q[2]
        v[27] = q[3]
        j = (shape & 1) << 2
        while j:
            c = ptr8(q)[0]
            ptr8(q)[0] = ptr8(q)[3]
            ptr8(q)[3] = c
            c = ptr8(q)[1]
            ptr8(q)[1] = ptr8(q)[2]
            ptr8(q)[2] = c
            q = ptr32(int(q) + 4)
            j -= 1
        i -= 16
    q = v
    i = 12
    while i:
        q[0] = 0
        q[1] = 0
        q[2] = 0
        q[3] = 0
        q[4] = 0
        q[5] = 0
        q[6] = 0
        q[7] = 0
        q = ptr32(int(q) + 32)
        i -= 1
    bits = shape >> 8
    stride = shape << 1 & 252
    m = work
    tables = 2
    while tables:
        half = 8
        while half:
            half -= bits
            v = ptr32(m)
            b = stride << bits - 1
            while b >= stride:
                q = ptr32(t + b)
                q[0] = v[0]
                q[1] = v[1]
                q[2] = v[2]
                q[3] = v[3]
                if shape & 1:
                    j = 4
                    while j:
                        c = ptr8(q)[0]
                        ptr8(q)[0] = ptr8(q)[3]
                        ptr8(q)[3] = c
                        c = ptr8(q)[1]
                        ptr8(q)[1] = ptr8(q)[2]
                        ptr8(q)[2] = c
                        q = ptr32(int(q) + 4)
                        j -= 1
                c = v[3] & 1
                v[3] = uint(v[3]) >> 1 | v[2] << 31
                v[2] = uint(v[2]) >> 1 | v[1] << 31
                v[1] = uint(v[1]) >> 1 | v[0] << 31
                v[0] = uint(v[0]) >> 1 ^ c * 225 << 24
                b = b >> 1
            # The others are sums: of the highest bit and what is below it.
            b = stride << 1
            while b < stride << bits:
                v = ptr32(t + b)
                q = ptr32(t + stride)
                j = b - stride
                while j:
                    r = ptr32(int(q) + b)
                    r[0] = q[0] ^ v[0]
                    r[1] = q[1] ^ v[1]
                    r[2] = q[2] ^ v[2]
                    r[3] = q[3] ^ v[3]
                    q = ptr32(int(q) + stride)
                    j -= stride
                b = b << 1
            t += stride << bits
        m = work + 16
        t = h3
        tables -= 1
    v = ptr32(work)
    v[0] = 0
    v[1] = 0
    v[2] = 0
    v[3] = 0
    v[4] = 0
    v[5] = 0
    v[6] = 0
    v[7] = 0


@micropython.viper
def _aim(plan: ptr32, t: ptr32, r: ptr32, box: int):
    """The addresses in a plan, each the lower word and the upper one, which 32-bit boards have not."""
    plan[2] = int(t)
    plan[3] = int(t) >> 31 >> 1
    plan[4] = int(t) + box
    plan[5] = int(t) + box >> 31 >> 1
    plan[6] = int(r)
    plan[7] = int(r) >> 31 >> 1


@micropython.viper
def _unlink(dead: ptr32, call: ptr32):
    """A call is about another state."""
    call[0] = int(dead)
    call[1] = int(dead) >> 31 >> 1


@micropython.viper
def _zero(p: ptr32, size: int):
    """Overwrite so many bytes, a multiple of 4, with zeros: a twentieth of what `wipe` takes."""
    while size > 31:
        p[0] = 0
        p[1] = 0
        p[2] = 0
        p[3] = 0
        p[4] = 0
        p[5] = 0
        p[6] = 0
        p[7] = 0
        p = ptr32(int(p) + 32)
        size -= 32
    while size:
        p[0] = 0
        p = ptr32(int(p) + 4)
        size -= 4


def _room(size):
    """Zeroed memory for the state of a key, of one that was wiped if there is such."""
    if len(_free[-1]) == size:
        return _free.pop()
    for index in range(len(_free)):
        if len(_free[index]) == size:
            return _free.pop(index)
    return bytearray(size)


def _fill_t0(table):
    _fill_t(table, 1)


def _fill_t4(table):
    _fill_t(table, 4)


def _table(name, size, fill):
    """A table that all keys share, made when first called for."""
    table = _shared.get(name)
    if table is None:
        table = bytearray(size)
        fill(table)
        _shared[name] = table
    return table


def shared_bytes():
    """Bytes of tables made so far that all keys share, by name."""
    return {name: len(table) for name, table in _shared.items() if isinstance(table, bytearray)}


def _plan(kernel, words, is_cipher):
    """What all keys of one length have in common under a kernel, 11 words: words of the key (0: the kernel has no AES),
    rounds, addresses of T0, the S-box and the table for reductions, shape and places of the tables of products."""
    reduction = kernel.REDUCTION
    r = _work
    if reduction == 8:
        r = _table("R", 2048 + 8, _fill_r)
    elif reduction == 2:
        r = _table("R16", 512, _fill_r16)
    box = 1
    rounds = (words >> 1) + 2  # of the kernel's loop, which does two
    if is_cipher:
        t = _table("stream", BLOCK * _STREAM_BLOCKS, len)
        words = 0
        rounds = 1
        view = memoryview(t)
        _shared["views"] = [view[: BLOCK * count] for count in range(_STREAM_BLOCKS + 1)]
    elif kernel.SHARED == 1:
        t = _table("T0", 1024, _fill_t0)
    else:
        t = _table("T", 4096 + 256, _fill_t4)
        box = 4096
    shape = kernel.BITS << 8 | kernel.STRIDE >> 1 | kernel.MEMORY
    plan = array("I", (words, rounds, 0, 0, 0, 0, 0, 0, shape, kernel.H2, kernel.H3))
    _aim(plan, t, r, box)
    return plan


def under_kernel(kernel, cipher=None):
    """A maker of `KernelGcm`s: it gets a key. `cipher`: makes the block cipher of a kernel that has none."""
    plans = [None, None]
    if cipher is None:
        return lambda key: KernelGcm(kernel, plans, key)
    return lambda key: KernelGcm(kernel, plans, key, cipher(key))


class KernelGcm(InPlace):
    """AES-GCM under one key by a kernel, a module made by tools/gcm_kernels.py or gcm_thumb."""

    _cipher = None

    def __init__(self, kernel, plans, key, cipher=None):
        """Key 16 or 32 bytes; plans: the kernel's, for either length; cipher: the block cipher of one that has none."""
        words = len(key) >> 2
        plan = plans[words >> 3]
        if plan is None:
            plan = plans[words >> 3] = _plan(kernel, words, cipher is not None)
        call = kernel.Call
        size = kernel.SIZE
        self._state = state = _room(size) if _free else bytearray(size)
        self._seal = seal = call(12)
        self._open = opening = call(12)
        _begin(state, key, plan, seal, opening)
        if cipher is None:
            seal.run(_work, 0, 0)
        else:
            self._cipher = cipher
            seal.views = opening.views = _shared["views"]
            seal.encrypt = opening.encrypt = encrypt = cipher.function
            encrypt(bytes(BLOCK), memoryview(_work)[:BLOCK])
        _finish(state, _work, plan, seal)
        # The kernel itself is what a caller calls.
        self.seal_in_place = seal.run
        self.open_in_place = opening.run

    def encrypt(self, nonce, data, aad):
        """Ciphertext and tag: len(data) + 16 bytes."""
        n = len(data)
        if len(aad) > BLOCK:
            return self._slow().encrypt(nonce, data, aad)
        work = bytearray(44 + n)
        work[: len(aad)] = aad
        work[16:28] = nonce
        work[28 : 28 + n] = data
        self.seal_in_place(work, n, len(aad))
        return bytes(memoryview(work)[28:])

    def decrypt(self, nonce, data, aad):
        """The plaintext of ciphertext and tag. InvalidTag if not authentic."""
        n = len(data) - TAG_LENGTH
        if len(aad) > BLOCK:
            return self._slow().decrypt(nonce, data, aad)
        work = bytearray(44 + n)
        work[: len(aad)] = aad
        work[16:28] = nonce
        work[28:] = data
        if not self.open_in_place(work, n, len(aad)):
            raise InvalidTag("record refused: wrong key, nonce or associated data, or it was changed on the way")
        text = bytes(memoryview(work)[28 : 28 + n])
        wipe(work)
        return text

    def _slow(self):
        """For associated data of more than a block: GHASH without tables over this key's block cipher."""
        from packtrust.crypto.ghash_viper import Ghash

        return Gcm(self._cipher or _CounterBlocks(self._seal), Ghash)

    def wipe(self):
        """Overwrite schedule and tables."""
        state = self._state
        if state:
            _zero(state, len(state))
            # The calls end here: the memory is the next key's.
            _unlink(_DEAD, self._seal)
            _unlink(_DEAD, self._open)
            self._state = None
            if len(_free) < _FREE_MAX:
                _free.append(state)
        if self._cipher is not None:
            self._cipher.wipe()
            self._seal.encrypt = self._open.encrypt = None


class _CounterBlocks:
    """The AES in a kernel: it encrypts blocks that end in a counter below 65536."""

    def __init__(self, call):
        self._call = type(call)(call)
        pack_into("<I", self._call, 8, 2)
        self._work = bytearray(44)

    def encrypt(self, blocks):
        """Encrypt whole 16-byte blocks in place."""
        work = self._work
        for at in range(0, len(blocks), BLOCK):
            if blocks[at + 12] | blocks[at + 13]:
                raise CryptoError("data of more than 1 MB: cut it into several records")
            work[16:28] = blocks[at : at + 12]
            self._call.run(work, blocks[at + 14] << 8 | blocks[at + 15], 0)
            blocks[at : at + 16] = work[:16]

    def wipe(self):
        """Its owner wipes the key."""
        wipe(self._work)
