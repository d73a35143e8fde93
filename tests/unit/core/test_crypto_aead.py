"""AESGCM: the contract of every backend, whatever its inside."""

from packtrust.crypto import (
    AESGCM,
    BackendUnavailable,
    CryptoError,
    InvalidTag,
    KeyFormatError,
    backends,
    registry,
)
from portable import raises, unhexlify

KEY = bytes(range(32))
NONCE = bytes(range(12))

# FIPS 197, appendix C.1 and C.3, in GCM's clothes: E(K, J0) is the tag of nothing under H * 0.
_ZERO_128 = "58e2fccefa7e3061367f1d57a4e7455a"  # McGrew and Viega, test case 1
_ZERO_256 = "530f8afbc74536b9a963b4f1c4cb738b"  # test case 13


def test_backends_are_named_best_first():
    names = backends()
    assert names[-1] == "pure"
    assert names == [name for name in registry._ORDER if name in names]


def test_the_best_backend_is_the_default():
    assert AESGCM(KEY).backend == backends()[0]
    for backend in backends():
        assert AESGCM(KEY, backend=backend).backend == backend


def test_nothing_under_a_zero_key():
    for backend in backends():
        assert AESGCM(bytes(16), backend).encrypt(bytes(12), b"", None) == unhexlify(_ZERO_128)
        assert AESGCM(bytes(32), backend).encrypt(bytes(12), b"", b"") == unhexlify(_ZERO_256)


def test_backends_agree_on_every_length():
    best = AESGCM(KEY)
    for backend in backends():
        aead = AESGCM(KEY, backend)
        for size in range(0, 129, 1 if backend == "cryptography" else 3):
            data = bytes([(size * 7 + at) & 255 for at in range(size)])
            aad = bytes([(size * 3 + at) & 255 for at in range(size * 5 % 37)])
            sealed = aead.encrypt(NONCE, data, aad)
            assert len(sealed) == size + 16
            assert sealed == best.encrypt(NONCE, data, aad)
            assert aead.decrypt(NONCE, sealed, aad) == data


def test_both_key_sizes_and_no_other():
    for backend in backends():
        for size in (0, 15, 17, 24, 31, 33, 64):
            error = raises(KeyFormatError, AESGCM, bytes(size), backend)
            assert "16 or 32" in str(error)
            assert str(size) in str(error)


def test_nonces_have_12_bytes():
    for backend in backends():
        aead = AESGCM(KEY, backend)
        for size in (0, 8, 11, 13, 16):
            assert "12 bytes" in str(raises(KeyFormatError, aead.encrypt, bytes(size), b"x", b""))
            raises(KeyFormatError, aead.decrypt, bytes(size), bytes(17), b"")


def test_each_flipped_bit_is_refused():
    for backend in backends():
        aead = AESGCM(KEY, backend)
        sealed = aead.encrypt(NONCE, b"sixteen or so bytes", b"header")
        for at in range(len(sealed)):
            bad = bytearray(sealed)
            bad[at] ^= 1 << at % 8
            raises(InvalidTag, aead.decrypt, NONCE, bad, b"header")
        raises(InvalidTag, aead.decrypt, NONCE, sealed, b"heades")
        raises(InvalidTag, aead.decrypt, NONCE, sealed, None)
        raises(InvalidTag, aead.decrypt, bytes(12), sealed, b"header")
        raises(InvalidTag, AESGCM(bytes(32), backend).decrypt, NONCE, sealed, b"header")
        assert aead.decrypt(NONCE, sealed, b"header") == b"sixteen or so bytes"


def test_too_short_for_a_tag_is_refused():
    for backend in backends():
        aead = AESGCM(KEY, backend)
        for size in range(16):
            raises(InvalidTag, aead.decrypt, NONCE, bytes(size), b"")


def test_moved_boundaries_are_refused():
    """Bytes that change place between data and associated data, and padding, are not the same message."""
    for backend in backends():
        aead = AESGCM(KEY, backend)
        sealed = aead.encrypt(NONCE, b"abc", b"def")
        raises(InvalidTag, aead.decrypt, NONCE, sealed, b"def\x00")
        raises(InvalidTag, aead.decrypt, NONCE, sealed[:3] + b"\x00" + sealed[3:], b"def")


def test_any_buffer_will_do():
    for backend in backends():
        expected = AESGCM(KEY, backend).encrypt(NONCE, b"some data", b"aad")
        for kind in (bytearray, memoryview):
            aead = AESGCM(kind(KEY), backend)
            sealed = aead.encrypt(kind(NONCE), kind(b"some data"), kind(b"aad"))
            assert sealed == expected
            assert type(sealed) is bytes
            opened = aead.decrypt(kind(NONCE), kind(sealed), kind(b"aad"))
            assert opened == b"some data"
            assert type(opened) is bytes


def test_a_cipher_keeps_no_state():
    for backend in backends():
        aead = AESGCM(KEY, backend)
        first = aead.encrypt(NONCE, b"one", b"")
        aead.encrypt(bytes(12), bytes(100), b"other")
        raises(InvalidTag, aead.decrypt, NONCE, bytes(40), b"")
        assert aead.encrypt(NONCE, b"one", b"") == first


def test_the_key_is_copied():
    for backend in backends():
        key = bytearray(KEY)
        aead = AESGCM(key, backend)
        before = aead.encrypt(NONCE, b"data", b"")
        for at in range(32):
            key[at] = 0
        assert aead.encrypt(NONCE, b"data", b"") == before


def test_wiped_is_unusable():
    for backend in backends():
        aead = AESGCM(KEY, backend)
        sealed = aead.encrypt(NONCE, b"data", b"")
        aead.wipe()
        aead.wipe()
        assert "new AESGCM" in str(raises(CryptoError, aead.encrypt, NONCE, b"data", b""))
        error = raises(CryptoError, aead.decrypt, NONCE, sealed, b"")
        assert not isinstance(error, InvalidTag)


def test_wiping_overwrites_the_round_keys():
    from packtrust.crypto.aes_pure import BlockCipher

    cipher = BlockCipher(KEY)
    rounds = cipher.rounds + [cipher.first, cipher.last]
    assert len(rounds) == 15
    for keys in rounds:
        assert any(keys)
    cipher.wipe()
    for keys in rounds:
        assert not any(keys)


def test_no_secret_in_repr():
    for backend in backends():
        aead = AESGCM(b"\xa5" * 32, backend)
        for text in (repr(aead), str(aead), repr(aead._aead)):
            text = text.split(" at ")[0]  # an address is any number
            assert "a5a5" not in text.lower()
            assert "\\xa5" not in text
            assert "165" not in text


def test_unknown_backend():
    error = raises(BackendUnavailable, AESGCM, KEY, "openssl3")
    assert "openssl3" in str(error)
    for name in backends():
        assert name in str(error)


def test_pure_aes_is_fips_197():
    """FIPS 197, appendix C.1 and C.3; several blocks in one call are each encrypted by themselves."""
    from packtrust.crypto.aes_pure import BlockCipher

    plain = unhexlify("00112233445566778899aabbccddeeff")
    for size, expected in (
        (16, "69c4e0d86a7b0430d8cdb78070b4c55a"),
        (32, "8ea2b7ca516745bfeafc49904b496089"),
    ):
        cipher = BlockCipher(bytes(range(size)))
        blocks = bytearray(plain + plain)
        cipher.encrypt(blocks)
        assert blocks == unhexlify(expected) * 2
    raises(KeyFormatError, BlockCipher, bytes(24))


def test_ghash_against_its_definition():
    """Against the bitwise product of NIST SP 800-38D, algorithm 1, and of long runs of ones."""
    from packtrust.crypto.ghash import Ghash

    def product(x, y):
        z = 0
        for bit in range(127, -1, -1):
            if x >> bit & 1:
                z ^= y
            y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
        return z

    for subkey in (b"\xff" * 16, b"\x80" + bytes(15), bytes(15) + b"\x01", bytes(range(3, 19))):
        h = int.from_bytes(subkey, "big")
        for block in (b"\xff" * 16, bytes(16), bytes(range(16)), b"\x01" + bytes(15)):
            expected = product(product(int.from_bytes(block, "big"), h) ^ 128, h).to_bytes(16, "big")
            assert Ghash(subkey).digest(b"", block) == expected
            expected = product(product(int.from_bytes(block, "big"), h) ^ 128 << 64, h).to_bytes(16, "big")
            assert Ghash(subkey).digest(block, b"") == expected


def _work(aad, nonce, data, spare=0):
    return bytearray(aad + bytes(16 - len(aad)) + nonce + data + bytes(16 + spare))


def test_in_place_is_encrypt_and_decrypt():
    """Every length of text of the records, every length of associated data: the same bytes, and back."""
    best = AESGCM(KEY)
    for backend in backends():
        aead = AESGCM(KEY, backend)
        for size in range(0, 131, 1 if backend == "cryptography" else 3):
            aad = bytes([(size * 3 + at) & 255 for at in range(size * 5 % 17)])
            data = bytes([(size * 7 + at) & 255 for at in range(size)])
            work = _work(aad, NONCE, data, 3)
            aead.seal_in_place(work, size, len(aad))
            sealed = best.encrypt(NONCE, data, aad)
            assert work == aad + bytes(16 - len(aad)) + NONCE + sealed + bytes(3), (backend, size)
            assert aead.open_in_place(work, size, len(aad)) is True
            assert work[28 : 28 + size] == data, (backend, size)


def test_in_place_refuses_each_flipped_bit_and_leaves_the_record():
    for backend in backends():
        aead = AESGCM(KEY, backend)
        for size in (0, 8, 19, 33):
            work = _work(b"header of 13 b", NONCE, bytes(range(size)))
            aead.seal_in_place(work, size, 14)
            for at in list(range(14)) + list(range(16, 44 + size)):
                work[at] ^= 1 << at % 8
                forged = bytes(work)
                assert aead.open_in_place(work, size, 14) is False
                assert work == forged
                work[at] ^= 1 << at % 8
            assert aead.open_in_place(work, size, 14) is True


def test_in_place_refuses_what_no_buffer_holds():
    """An error, or from the kernels, which cannot raise one, False; but never a plaintext left in a record to send."""
    for backend in backends():
        aead = AESGCM(KEY, backend)
        for call in (aead.seal_in_place, aead.open_in_place):
            for n, aad_length in ((8, 17), (-1, 0), (8, -1)):
                work = _work(b"", NONCE, b"in clear")
                try:
                    assert call(work, n, aad_length) is False
                    assert n < 0 or call == aead.open_in_place or work[28:36] == bytes(8)
                except CryptoError as error:
                    assert "at most 16" in str(error)


def test_in_place_ignores_the_padding():
    for backend in backends():
        aead = AESGCM(KEY, backend)
        clean = _work(b"aad", NONCE, b"some data")
        aead.seal_in_place(clean, 9, 3)
        work = _work(b"aad and thirteen", NONCE, b"some data")
        aead.seal_in_place(work, 9, 3)
        assert work[16:] == clean[16:]


def test_in_place_after_wiping():
    """The methods raise; one that was taken before is a kernel's, which cannot: it destroys the text instead."""
    for backend in backends():
        aead = AESGCM(KEY, backend)
        seal, unseal = aead.seal_in_place, aead.open_in_place
        aead.wipe()
        for call in (aead.seal_in_place, aead.open_in_place):
            assert "new AESGCM" in str(raises(CryptoError, call, bytearray(52), 8, 0))
        if not hasattr(registry.select(backend), "kernel"):
            continue
        work = _work(b"", NONCE, b"in clear")
        assert seal(work, 8, 0) is False
        assert work[28:36] == bytes(8)
        assert unseal(work, 8, 0) is False


def test_kernels_wipe_schedule_and_tables():
    for backend in backends():
        if hasattr(registry.select(backend), "kernel"):
            aead = AESGCM(KEY, backend)
            state = aead._aead._state
            assert sum(state) > 10000
            aead.wipe()
            assert not any(state)


def test_kernels_take_no_heap():
    """Not a byte, for any length of a record in frames or segments, sealed, opened or refused."""
    try:
        from micropython import heap_lock, heap_unlock
    except ImportError:
        return  # CPython has no heap to lock, and no kernels
    for backend in backends():
        if not hasattr(registry.select(backend), "kernel"):
            continue
        aead = AESGCM(KEY, backend)
        work = bytearray(44 + 333)
        bad = 0
        heap_lock()
        try:
            for n in (0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 100, 127, 128, 129, 333):
                aead.seal_in_place(work, n, 13)
                work[30] ^= 1
                if aead.open_in_place(work, n, 13):
                    bad += 1
                work[30] ^= 1
                if not aead.open_in_place(work, n, 13):
                    bad += 1
        finally:
            heap_unlock()
        assert bad == 0, backend


def test_in_place_at_any_address():
    """Work buffers that begin at odd addresses, by way of a view."""
    data = bytes(range(40))
    for backend in backends():
        if backend in ("cryptography", "cryptolib-gcm"):
            continue
        aead = AESGCM(KEY, backend)
        for size in (0, 5, 8, 16, 37):
            clean = _work(b"header", NONCE, data[:size])
            aead.seal_in_place(clean, size, 6)
            for offset in (1, 2, 3):
                work = memoryview(bytearray(offset) + _work(b"header", NONCE, data[:size]))[offset:]
                aead.seal_in_place(work, size, 6)
                assert bytes(work) == clean, (backend, size, offset)
                assert aead.open_in_place(work, size, 6) is True
                assert bytes(work[28 : 28 + size]) == data[:size]


def test_kernels_remember_no_wrong_associated_data():
    """Products of associated data are kept for a few of them: many, in turns, with lengths that change."""
    for backend in backends():
        aead = AESGCM(KEY, backend)
        for turn in range(3):
            for at in range(24):
                aad = bytes([1, at & 3, at * 77 & 255, 9, at, 0, 3, 4, 5, 6, 0, 8, turn])[: 13 - at % 2]
                data = bytes([at]) * (at * 5 % 17)
                work = _work(aad, NONCE, data)
                aead.seal_in_place(work, len(data), len(aad))
                assert work[28:] == AESGCM(KEY, "pure").encrypt(NONCE, data, aad), (backend, at)


def test_long_records_in_place():
    """Beyond what one ISO-TP transfer holds: counters and lengths of more than a byte."""
    best = AESGCM(KEY)
    for backend in backends():
        if backend in ("pure", "aesio", "cryptolib-pure") and backend != backends()[0]:
            continue
        aead = AESGCM(KEY, backend)
        for size in (254 * 16, 4067, 4095, 4096, 4100, 9000):
            data = bytes([size * 3 + at & 255 for at in range(size)])
            work = _work(b"aad", NONCE, data)
            aead.seal_in_place(work, size, 3)
            assert work[28:] == best.encrypt(NONCE, data, b"aad"), (backend, size)
            assert aead.open_in_place(work, size, 3) is True
            assert work[28 : 28 + size] == data


def test_associated_data_of_any_length():
    for backend in backends():
        aead = AESGCM(KEY, backend)
        for size in (15, 16, 17, 32, 40, 100):
            aad = bytes(range(size))
            sealed = aead.encrypt(NONCE, b"some data", aad)
            assert sealed == AESGCM(KEY, "pure").encrypt(NONCE, b"some data", aad), (backend, size)
            assert aead.decrypt(NONCE, sealed, aad) == b"some data"
