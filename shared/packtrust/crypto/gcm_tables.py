"""State of a key for the AES-GCM kernels of MicroPython: key schedule, tables of products. In viper.

The layout is that of tools/gcm_kernels.py. Numbers of 128 bits are four words, the first the highest, its highest bit
the coefficient of x^0 (NIST SP 800-38D, 6.3): "value order". In "memory order" each word holds its bytes the other way
round, so that it is in memory what GCM has on the wire.
"""

# ruff: noqa: F821, I001
# mypy: ignore-errors
import micropython
from struct import pack_into

from packtrust.crypto.buffers import wipe
from packtrust.crypto.gcm import BLOCK, Gcm, InPlace, TAG_LENGTH
from packtrust.errors import CryptoError, InvalidTag


_STREAM_BLOCKS = micropython.const(8)

_shared = {}

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
def _expand(w: ptr32, key: ptr8, size: int, t: ptr8):
    """The key schedule (FIPS 197, 5.2) of the state w, words in memory order; t is T0."""
    w = ptr32(int(w) + 344)
    i = 0
    while i < size:
        w[i] = key[0] | key[1] << 8 | key[2] << 16 | key[3] << 24
        key = ptr8(int(key) + 4)
        i += 1
    t = ptr8(int(t) + 1)
    last = size * 4 + 28
    rcon = 1
    step = 0
    while i < last:
        v = w[i - 1]
        if step == 0:
            v = (t[v >> 6 & 1020] | t[v >> 14 & 1020] << 8 | t[v >> 22 & 1020] << 16 | t[(v & 255) << 2] << 24) ^ rcon
            rcon = (rcon << 1 ^ (rcon >> 7) * 27) & 255
        elif step == 4 and size == 8:
            v = t[(v & 255) << 2] | t[v >> 6 & 1020] << 8 | t[v >> 14 & 1020] << 16 | t[v >> 22 & 1020] << 24
        w[i] = w[i - size] ^ v
        i += 1
        step += 1
        if step == size:
            step = 0


@micropython.viper
def _derive(v: ptr32, at: int, work: ptr32, memory: int):
    """From H in work[0..3], as on the wire: H^2 to work[0..3], H^3 to work[4..7], in value order.

    And the state v's products for lengths: H times x^60, x^116, and from x^124 down to x^117, the latter in memory
    order if asked for. The 32 words at byte `at` of the state are scratch, cleared at the end.
    """
    keep = int(v) + 152
    v = ptr32(int(v) + at)
    i = 0
    while i < 16:
        p = ptr8(int(work) + i)
        v[i >> 2] = p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]
        i += 4
    z = ptr32(int(v) + 96)
    # Squaring puts a zero behind each coefficient.
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
        z[i] = ((c | c << 1) & fives) << 1
        i += 1
    # x^128 = 1 + x + x^2 + x^7, twice: the first time leaves a few bits above.
    c = z[4]
    i = 4
    while i:
        z[0] = z[0] ^ z[4] ^ uint(z[4]) >> 1 ^ uint(z[4]) >> 2 ^ uint(z[4]) >> 7
        z[1] = z[1] ^ z[4] << 31 ^ z[4] << 30 ^ z[4] << 25
        z = ptr32(int(z) + 4)
        i -= 1
    z = ptr32(int(v) + 96)
    z[4] = z[4] ^ c
    z[0] = z[0] ^ z[4] ^ uint(z[4]) >> 1 ^ uint(z[4]) >> 2 ^ uint(z[4]) >> 7
    a = ptr32(int(v) + 80)
    while i < 4:
        v[4 + i] = z[i]
        a[i] = 0
        z[i] = v[i]
        i += 1
    # H^2 times x, x^2, x^3.
    q = ptr32(int(v) + 16)
    while i > 1:
        i -= 1
        c = q[3] & 1
        q[7] = uint(q[3]) >> 1 | q[2] << 31
        q[6] = uint(q[2]) >> 1 | q[1] << 31
        q[5] = uint(q[1]) >> 1 | q[0] << 31
        q[4] = uint(q[0]) >> 1 ^ c * 225 << 24
        q = ptr32(int(q) + 16)
    # H^3 by Horner's rule in x^4, from the highest coefficients of H down.
    i = 4
    while i:
        i -= 1
        m = v[i]
        j = 8
        while j:
            c = a[3] & 15
            a[3] = uint(a[3]) >> 4 | a[2] << 28
            a[2] = uint(a[2]) >> 4 | a[1] << 28
            a[1] = uint(a[1]) >> 4 | a[0] << 28
            a[0] = uint(a[0]) >> 4 ^ c << 28 ^ c << 27 ^ c << 26 ^ c << 21
            q = ptr32(int(v) + 64)
            k = 4
            while k:
                if m & 1:
                    a[0] = a[0] ^ q[0]
                    a[1] = a[1] ^ q[1]
                    a[2] = a[2] ^ q[2]
                    a[3] = a[3] ^ q[3]
                q = ptr32(int(q) - 16)
                m = m >> 1
                k -= 1
            j -= 1
    # H times x^60 is 7 bytes and 4 bits on, times x^116 7 bytes more.
    while i < 26:
        if i < 7 or (i > 10 and i < 18):
            c = z[3] & 255
            z[3] = uint(z[3]) >> 8 | z[2] << 24
            z[2] = uint(z[2]) >> 8 | z[1] << 24
            z[1] = uint(z[1]) >> 8 | z[0] << 24
            z[0] = uint(z[0]) >> 8 ^ c << 24 ^ c << 23 ^ c << 22 ^ c << 17
        else:
            c = z[3] & 1
            z[3] = uint(z[3]) >> 1 | z[2] << 31
            z[2] = uint(z[2]) >> 1 | z[1] << 31
            z[1] = uint(z[1]) >> 1 | z[0] << 31
            z[0] = uint(z[0]) >> 1 ^ c * 225 << 24
        k = 0
        if i == 10:
            k = keep
        elif i == 17:
            k = keep + 16
        elif i > 17:
            k = keep + 32 + (25 - i << 4)
        if k:
            j = 0
            while j < 4:
                c = z[j]
                if memory != 0 and i > 17:
                    c = c << 24 ^ c << 8 & 16711680 ^ c >> 8 & 65280 ^ c >> 24 & 255
                ptr32(k)[j] = c
                j += 1
        i += 1
    i = 0
    while i < 4:
        work[i] = v[4 + i]
        work[4 + i] = a[i]
        i += 1
    i = 32
    while i:
        i -= 1
        v[i] = 0


@micropython.viper
def _link(state: ptr32, seal: ptr32, opening: ptr32, t: ptr32, r: ptr32, shape: int):
    """Fill in rounds and addresses, each the lower word and the upper one, which 32-bit boards have not.

    shape: bytes from t to the S-box << 8 | double rounds of the kernel's loop.
    """
    state[9] = shape & 255
    state[10] = 0 - 1
    state[11] = int(t)
    state[12] = int(t) >> 31 >> 1
    box = int(t) + (shape >> 8)
    state[13] = box
    state[14] = box >> 31 >> 1
    state[15] = int(r)
    state[16] = int(r) >> 31 >> 1
    seal[0] = int(state)
    seal[1] = int(state) >> 31 >> 1
    opening[0] = int(state)
    opening[1] = int(state) >> 31 >> 1
    opening[2] = 1


@micropython.viper
def _unlink(dead: ptr32, call: ptr32):
    """A call is about another state."""
    call[0] = int(dead)
    call[1] = int(dead) >> 31 >> 1


def _room(size):
    """Zeroed memory for the state of a key."""
    for index in range(len(_free)):
        if len(_free[index]) == size:
            return _free.pop(index)
    return bytearray(size)


@micropython.viper
def _clear(p: ptr8, size: int):
    """Overwrite `size` bytes with zeros: shorter than `wipe` for the little that set-up leaves."""
    while size:
        size -= 1
        p[size] = 0


@micropython.viper
def _fill(v: ptr32, state: ptr32, at: int, shape: int):
    """Table t at a byte of the state: t[b] = b * v for all numbers b of some bits, of which the highest is x^0.

    Of 4 bits: the same for v * x^4 behind it. v is lost.
    shape: words to skip in v << 16 | bits << 8 | words from entry to entry << 1 | memory order.
    """
    v = ptr32(int(v) + (shape >> 16 << 2))
    t = int(state) + at
    bits = shape >> 8 & 15
    stride = shape << 1 & 252
    half = 8
    while half:
        half -= bits
        b = 1 << bits - 1
        while b:
            p = ptr32(t + b * stride)
            j = 0
            while j < 4:
                c = v[j]
                if shape & 1:
                    c = c << 24 ^ c << 8 & 16711680 ^ c >> 8 & 65280 ^ c >> 24 & 255
                p[j] = c
                j += 1
            c = v[3] & 1
            v[3] = uint(v[3]) >> 1 | v[2] << 31
            v[2] = uint(v[2]) >> 1 | v[1] << 31
            v[1] = uint(v[1]) >> 1 | v[0] << 31
            v[0] = uint(v[0]) >> 1 ^ c * 225 << 24
            b = b >> 1
        # The others are sums: of the highest bit and what is below it.
        b = 2
        while b < 1 << bits:
            q = ptr32(t + b * stride)
            p = ptr32(t + stride)
            r = ptr32(int(q) + stride)
            j = b - 1
            while j:
                r[0] = q[0] ^ p[0]
                r[1] = q[1] ^ p[1]
                r[2] = q[2] ^ p[2]
                r[3] = q[3] ^ p[3]
                p = ptr32(int(p) + stride)
                r = ptr32(int(r) + stride)
                j -= 1
            b = b << 1
        t += stride << bits


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


def under_kernel(kernel, cipher=None):
    """A maker of `KernelGcm`s: it gets a key. `cipher`: makes the block cipher of a kernel that has none."""
    if cipher is None:
        return lambda key: KernelGcm(kernel, key)
    return lambda key: KernelGcm(kernel, key, cipher(key))


class KernelGcm(InPlace):
    """AES-GCM under one key by a kernel, a module made by tools/gcm_kernels.py or gcm_thumb."""

    def __init__(self, kernel, key, cipher=None):
        """Key 16 or 32 bytes; cipher: the block cipher of a kernel that has none."""
        self._state = state = _room(kernel.SIZE)
        self._cipher = cipher
        call = kernel.Call
        self._seal = seal = call(12)
        self._open = opening = call(12)
        work = bytearray(44)
        reduction = kernel.REDUCTION
        if reduction == 8:
            r = _table("R", 2048 + 8, _fill_r)
        elif reduction == 2:
            r = _table("R16", 512, _fill_r16)
        else:
            r = state
        if cipher is None:
            if kernel.SHARED == 1:
                t = _table("T0", 1024, _fill_t0)
                box = 1
            else:
                t = _table("T", 4096 + 256, _fill_t4)
                box = 4096
            words = len(key) >> 2
            _link(state, seal, opening, t, r, box << 8 | (words >> 1) + 2)
            _expand(state, key, words, t)
            seal[8] = 2
            seal.run(work, 0, 0)
            seal[8] = 0
        else:
            cipher.function(bytes(BLOCK), memoryview(work)[:BLOCK])
            stream = _table("stream", BLOCK * _STREAM_BLOCKS, len)
            _link(state, seal, opening, stream, r, 1)
        # The tables of H^2 and H^3 and the products for the lengths.
        h2 = kernel.H2
        _derive(state, h2, work, kernel.MEMORY)
        shape = kernel.BITS << 8 | kernel.STRIDE >> 1 | kernel.MEMORY
        _fill(work, state, h2, shape)
        _fill(work, state, kernel.H3, shape | 4 << 16)
        _clear(work, 44)
        if cipher is not None:
            views = _shared.get("views")
            if views is None:
                view = memoryview(stream)
                views = _shared["views"] = [view[: BLOCK * count] for count in range(_STREAM_BLOCKS + 1)]
            seal.views = opening.views = views
            seal.encrypt = opening.encrypt = cipher.function
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
            wipe(state)
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
