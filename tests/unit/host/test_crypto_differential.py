"""The pure path against `cryptography`, on inputs hypothesis makes up."""

import hashlib
import hmac

import pytest
from cryptography.exceptions import InvalidTag as OracleInvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import aead as oracle
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from hypothesis import example, given, settings
from hypothesis import strategies as st

from packtrust import crypto
from packtrust.crypto import AESGCM, CryptoError, InvalidTag, hpke

BACKENDS = pytest.mark.parametrize("backend", ["cryptography", "pure"])

keys = st.binary(min_size=16, max_size=16) | st.binary(min_size=32, max_size=32)
nonces = st.binary(min_size=12, max_size=12)
scalars = st.binary(min_size=32, max_size=32)
texts = st.binary(max_size=150)


@BACKENDS
@settings(deadline=None)
@given(key=keys, nonce=nonces, data=texts, aad=st.none() | texts)
def test_aes_gcm(backend: str, key: bytes, nonce: bytes, data: bytes, aad: bytes | None) -> None:
    sealed = oracle.AESGCM(key).encrypt(nonce, data, aad)
    aead = AESGCM(key, backend)
    assert aead.encrypt(nonce, data, aad) == sealed
    assert aead.decrypt(nonce, sealed, aad) == data


@BACKENDS
@settings(deadline=None)
@given(key=keys, nonce=nonces, sealed=st.binary(max_size=80), aad=texts)
def test_what_the_oracle_refuses_is_refused(backend: str, key: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> None:
    with pytest.raises(OracleInvalidTag):
        oracle.AESGCM(key).decrypt(nonce, sealed, aad)
    with pytest.raises(InvalidTag):
        AESGCM(key, backend).decrypt(nonce, sealed, aad)


@BACKENDS
@settings(deadline=None)
@given(
    key=keys,
    nonce=nonces,
    data=texts,
    aad=texts,
    place=st.integers(min_value=0),
    bit=st.integers(0, 7),
)
def test_any_changed_bit_is_refused(
    backend: str, key: bytes, nonce: bytes, data: bytes, aad: bytes, place: int, bit: int
) -> None:
    changed = bytearray(oracle.AESGCM(key).encrypt(nonce, data, aad))
    changed[place % len(changed)] ^= 1 << bit
    with pytest.raises(InvalidTag):
        AESGCM(key, backend).decrypt(nonce, changed, aad)


@BACKENDS
@settings(deadline=None)
@given(key=st.binary(max_size=200), parts=st.lists(st.binary(max_size=100), max_size=4))
def test_hmac(backend: str, key: bytes, parts: list[bytes]) -> None:
    expected = hmac.new(key, b"".join(parts), hashlib.sha256).digest()
    assert crypto.hmac_sha256(key, *parts, backend=backend) == expected


@BACKENDS
@settings(deadline=None)
@given(
    ikm=st.binary(min_size=1, max_size=200),
    salt=st.binary(max_size=100),
    info=st.binary(max_size=100),
    length=st.integers(1, 300),
)
def test_hkdf(backend: str, ikm: bytes, salt: bytes, info: bytes, length: int) -> None:
    expected = HKDF(hashes.SHA256(), length, salt, info).derive(ikm)
    assert crypto.hkdf(ikm, salt, info, length, backend) == expected
    prk = crypto.hkdf_extract(salt, ikm, backend)
    assert HKDFExpand(hashes.SHA256(), length, info).derive(prk) == expected
    assert crypto.hkdf_expand(prk, info, length, backend) == expected


@BACKENDS
@settings(deadline=None, max_examples=60)
@given(private=scalars, point=scalars)
@example(private=bytes(32), point=b"\xff" * 32)
@example(private=b"\xff" * 32, point=b"\xec" + b"\xff" * 30 + b"\x7f")  # p - 1
@example(private=b"\xff" * 32, point=b"\xef" + b"\xff" * 30 + b"\x7f")  # p + 2
def test_x25519(backend: str, private: bytes, point: bytes) -> None:
    key = X25519PrivateKey.from_private_bytes(private)
    assert crypto.x25519_public(private, backend) == key.public_key().public_bytes_raw()
    try:
        expected = key.exchange(X25519PublicKey.from_public_bytes(point))
    except ValueError:
        with pytest.raises(CryptoError, match="all-zero"):
            crypto.x25519(private, point, backend)
    else:
        assert crypto.x25519(private, point, backend) == expected


@BACKENDS
@settings(deadline=None, max_examples=25)
@given(ikm=scalars, entropy=scalars, info=texts, data=texts)
def test_hpke_base_opens_on_the_other_side(backend: str, ikm: bytes, entropy: bytes, info: bytes, data: bytes) -> None:
    """`cryptography` has base mode without associated data; the rest has the RFC's vectors."""
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    private, public = hpke.derive_key_pair(ikm, backend)
    key = X25519PrivateKey.from_private_bytes(bytes(private))
    enc, sealed, context = hpke.seal(public, info, b"", data, entropy=entropy, backend=backend)
    context.wipe()
    assert suite.decrypt(enc + sealed, key, info) == data
    message = suite.encrypt(data, key.public_key(), info)
    opened, receiver = hpke.open(message[:32], private, info, b"", message[32:], backend=backend)
    receiver.wipe()
    assert opened == data
