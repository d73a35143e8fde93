"""SHA-256, HMAC, HKDF, comparison and wiping."""

from packtrust.crypto import (
    CryptoError,
    backends,
    compare_digest,
    hkdf,
    hkdf_expand,
    hkdf_extract,
    hmac_sha256,
    sha256,
    wipe,
)
from packtrust.crypto.buffers import compare_bytewise
from portable import raises, unhexlify


def test_sha256():
    """FIPS 180-4's example "abc"."""
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(b"abc") == unhexlify(digest)
    assert sha256(memoryview(b"abc")) == unhexlify(digest)


def test_hmac_rfc_4231():
    """RFC 4231, cases 1, 2, 3, 6 (key longer than a block) and 7."""
    cases = (
        (
            b"\x0b" * 20,
            b"Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            b"\xaa" * 20,
            b"\xdd" * 50,
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
        ),
        (
            b"\xaa" * 131,
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            b"\xaa" * 131,
            (
                b"This is a test using a larger than block-size key and a larger than block-size "
                b"data. The key needs to be hashed before being used by the HMAC algorithm."
            ),
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
        ),
    )
    for backend in backends():
        for key, data, expected in cases:
            assert hmac_sha256(key, data, backend=backend) == unhexlify(expected)


def test_hmac_parts_are_joined():
    for backend in backends():
        whole = hmac_sha256(b"key", b"abcdef", backend=backend)
        parts = (b"ab", bytearray(b"cd"), memoryview(b"ef"))
        assert hmac_sha256(b"key", parts[0], parts[1], parts[2], backend=backend) == whole
        assert hmac_sha256(bytearray(b"key"), b"", b"abcdef", b"", backend=backend) == whole
        assert hmac_sha256(b"key", backend=backend) == hmac_sha256(b"key", b"", backend=backend)


def test_keys_around_the_block_size():
    for size in (0, 1, 63, 64, 65, 200):
        key = bytes([at & 255 for at in range(size)])
        results = set([hmac_sha256(key, b"x", backend=backend) for backend in backends()])
        assert len(results) == 1


def test_an_empty_salt_is_32_zeros():
    for backend in backends():
        assert hkdf_extract(b"", b"ikm", backend) == hkdf_extract(bytes(32), b"ikm", backend)


def test_lengths_of_output():
    for backend in backends():
        longest = hkdf_expand(bytes(32), b"info", 8160, backend)
        assert len(longest) == 8160
        for length in (1, 31, 32, 33, 64, 100):
            assert hkdf_expand(bytes(32), b"info", length, backend) == longest[:length]
        for length in (-1, 0, 8161):
            raises(CryptoError, hkdf_expand, bytes(32), b"info", length, backend)
            raises(CryptoError, hkdf, b"ikm", b"salt", b"info", length, backend)


def test_backends_agree():
    results = set([hkdf(b"ikm", b"salt", b"info", 77, backend) for backend in backends()])
    results.add(hkdf(b"ikm", b"salt", b"info", 77))
    assert len(results) == 1


def test_inputs_are_left_alone():
    for backend in backends():
        ikm, salt, info = bytearray(b"ikm"), bytearray(b"salt"), bytearray(b"info")
        hkdf(ikm, salt, info, 32, backend)
        assert (ikm, salt, info) == (b"ikm", b"salt", b"info")


def test_compare_digest():
    for compare in (compare_digest, compare_bytewise):
        assert compare(b"", b"")
        assert compare(b"abcd", bytearray(b"abcd"))
        assert compare(memoryview(b"abcd"), b"abcd")
        assert not compare(b"abcd", b"abce")
        assert not compare(b"bbcd", b"abcd")
        assert not compare(b"abcd", b"abc")
        assert not compare(b"", b"a")


def test_wipe():
    secret = bytearray(range(40))
    view = memoryview(secret)
    wipe(view[8:16])
    assert secret == bytes(range(8)) + bytes(8) + bytes(range(16, 40))
    wipe(secret)
    assert secret == bytes(40)
    wipe(bytearray())


def test_hmac_state_is_wiped():
    from packtrust.crypto.kdf import Hmac

    mac = Hmac(b"a secret key")
    pads = (mac._inner, mac._outer)
    mac.wipe()
    assert pads == (bytes(64), bytes(64))


def test_wrong_native_pads_are_disabled_and_say_so():
    from packtrust.crypto import disabled, kdf

    def wrong(inner, outer, key, size):
        kdf._portable_pads(inner, outer, key, size)
        outer[63] ^= 1

    assert kdf.disabled == ""
    pads, reason = kdf._chosen(wrong)
    assert pads is kdf._portable_pads
    assert "known-answer" in reason
    assert kdf._chosen(kdf._pads) == (kdf._pads, "")
    kdf.disabled = reason
    try:
        assert disabled()["HMAC viper"] == reason
    finally:
        kdf.disabled = ""
    assert "HMAC viper" not in disabled()
