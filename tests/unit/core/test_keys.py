"""Key halves and the chain of derivation."""

import hashlib

from packtrust import keys
from packtrust.errors import KeyFormatError
from portable import raises

HALF_A = bytes(range(64))
HALF_B = bytes(range(64, 128))
SALT = bytes(range(128, 160))


def relationship():
    return keys.Relationship("COMP-a", "COMP-b", "lct-1", b"\x0a" * 32, b"\x0b" * 32)


def test_128_hex_digits_decode_to_64_bytes():
    text = "".join("%02X" % byte for byte in HALF_A)
    assert bytes(keys.decode_half(text)) == HALF_A
    assert bytes(keys.decode_half(text.lower())) == HALF_A


def test_64_hex_digits_are_used_as_their_lower_case_text():
    text = "".join("%02X" % byte for byte in range(32))
    assert bytes(keys.decode_half(text)) == text.lower().encode()


def test_what_is_no_half_is_refused_without_showing_it():
    for text in ("generated_device_key_half", "", "0" * 128, "ab" * 64, "z" * 128, "12" * 31 + "zz", "0" * 64):
        error = str(raises(KeyFormatError, keys.decode_half, text))
        assert not text or text not in error, error


def test_equal_halves_and_wrong_lengths_are_refused():
    assert "equal" in str(raises(KeyFormatError, keys.pair_secret, HALF_A, HALF_A, SALT))
    raises(KeyFormatError, keys.pair_secret, HALF_A[:32], HALF_B, SALT)
    raises(KeyFormatError, keys.pair_secret, HALF_A, HALF_B, SALT[:16])


def test_pair_secret_is_the_rule_of_the_roadmap():
    # HMAC-SHA256 (RFC 2104) written out, since boards have no hmac module
    padded = SALT + bytes(32)
    inner = hashlib.sha256(bytes([byte ^ 0x36 for byte in padded]) + HALF_A + HALF_B + SALT).digest()
    expected = hashlib.sha256(bytes([byte ^ 0x5C for byte in padded]) + inner).digest()
    assert keys.pair_secret(HALF_A, HALF_B, SALT) == expected


def test_the_order_of_the_halves_matters():
    assert keys.pair_secret(HALF_A, HALF_B, SALT) != keys.pair_secret(HALF_B, HALF_A, SALT)


def test_every_field_of_the_context_changes_every_key():
    base = relationship()
    prk = bytes(32)
    seen = {base.expand(prk, "record", 1, 0)}
    others = [
        keys.Relationship("COMP-x", "COMP-b", "lct-1", b"\x0a" * 32, b"\x0b" * 32),
        keys.Relationship("COMP-a", "COMP-x", "lct-1", b"\x0a" * 32, b"\x0b" * 32),
        keys.Relationship("COMP-b", "COMP-a", "lct-1", b"\x0a" * 32, b"\x0b" * 32),
        keys.Relationship("COMP-a", "COMP-b", "lct-2", b"\x0a" * 32, b"\x0b" * 32),
        keys.Relationship("COMP-a", "COMP-b", "lct-1", b"\x0c" * 32, b"\x0b" * 32),
        keys.Relationship("COMP-a", "COMP-b", "lct-1", b"\x0a" * 32, b"\x0c" * 32),
        # the length prefixes keep the boundary between two names
        keys.Relationship("COMP-", "aCOMP-b", "lct-1", b"\x0a" * 32, b"\x0b" * 32),
    ]
    for other in others:
        seen.add(other.expand(prk, "record", 1, 0))
    seen.add(base.expand(prk, "record", 2, 0))
    seen.add(base.expand(prk, "record", 1, 1))
    seen.add(base.expand(prk, "session", 1, 0))
    assert len(seen) == len(others) + 4


def test_a_fingerprint_is_the_hash_of_the_key_and_none_is_zero():
    assert keys.fingerprint(b"\x05" * 32) == hashlib.sha256(b"\x05" * 32).digest()
    assert keys.fingerprint(bytes(32)) == bytes(32)


def test_lct_tag():
    assert keys.lct_tag("lct-1") == hashlib.sha256(b"lct-1").digest()[:8]
