"""The form of AES-GCM without native code: in place it must give what it gives otherwise, and touch no heap."""

from packtrust.crypto.gcm_pure import PureGcm
from packtrust.crypto.ghash import Ghash

try:
    from micropython import heap_lock, heap_unlock
except ImportError:  # CPython has no such heap; what is right there is tested all the same

    def heap_lock():
        pass

    heap_unlock = heap_lock

KEY = bytes(range(32))
IV = bytes(range(100, 112))


def _work(n, aad_length):
    work = bytearray(44 + n)
    for at in range(aad_length):
        work[at] = 0xA0 ^ at
    work[16:28] = IV
    for at in range(n):
        work[28 + at] = (at * 7 + 1) & 255
    return work


def test_in_place_is_the_same_without_heap():
    for key in (KEY, KEY[:16]):
        aead = PureGcm(key)
        for n in (0, 1, 8, 15, 16, 17, 32, 47):
            for aad_length in (0, 1, 13, 16):
                work = _work(n, aad_length)
                plain = bytes(work[28 : 28 + n])
                expected = aead.encrypt(IV, plain, bytes(work[:aad_length]))
                opened = None
                heap_lock()
                try:
                    aead.seal_in_place(work, n, aad_length)
                finally:
                    heap_unlock()
                assert bytes(work[28:]) == expected, (n, aad_length)
                heap_lock()
                try:
                    opened = aead.open_in_place(work, n, aad_length)
                finally:
                    heap_unlock()
                assert opened is True
                assert bytes(work[28 : 28 + n]) == plain


def test_a_refused_record_is_left_as_it_was_without_heap():
    aead = PureGcm(KEY)
    work = _work(8, 13)
    aead.seal_in_place(work, 8, 13)
    for at in (0, 12, 16, 27, 28, 35, 36, 51):
        work[at] ^= 4
        before = bytes(work)
        opened = None
        heap_lock()
        try:
            opened = aead.open_in_place(work, 8, 13)
        finally:
            heap_unlock()
        assert opened is False, at
        assert bytes(work) == before
        work[at] ^= 4
    assert aead.open_in_place(work, 8, 13) is True


def test_no_integer_leaves_the_small_ones():
    """Limbs of ones throughout: any intermediate above 30 bits would need the heap on a 32-bit core."""
    for subkey in (b"\xff" * 16, b"\x80" + bytes(15), bytes(15) + b"\x01"):
        ghash = Ghash(subkey)
        text = b"\xff" * 32
        mask = bytearray(b"\xff" * 16)
        out = bytearray(16)
        heap_lock()
        try:
            ghash.update(text, 16, 16, text, 0, 31)
            ghash.xor(out, 0, mask)
        finally:
            heap_unlock()
        assert bytes(byte ^ 255 for byte in out) == ghash.digest(text[:16], text[:31])


def test_wiped():
    aead = PureGcm(KEY)
    work = _work(8, 13)
    aead.seal_in_place(work, 8, 13)
    aead.wipe()
    assert not any(aead._stream)
    assert not any([any(table) for table in aead._ghash._tables])
    assert not any(aead._ghash.state)
