"""NIST CAVP AES-GCM, 128- and 256-bit keys, on every backend of the interpreter at hand."""

from packtrust.crypto import AESGCM, InvalidTag, backends
from portable import raises, unhexlify, vectors


def _check(name):
    """Run one file's cases; the number of cases that opened and that were refused."""
    opened = refused = 0
    cases = vectors("aes_gcm")["files"][name]["cases"]
    for backend in backends():
        for fields in cases:
            key, nonce, aad, ciphertext, tag = [unhexlify(field) for field in fields[:5]]
            aead = AESGCM(key, backend)
            if fields[5] is None:
                raises(InvalidTag, aead.decrypt, nonce, ciphertext + tag, aad)
                refused += 1
            else:
                plaintext = unhexlify(fields[5])
                assert aead.encrypt(nonce, plaintext, aad) == ciphertext + tag, (backend, fields)
                assert aead.decrypt(nonce, ciphertext + tag, aad) == plaintext, (backend, fields)
                opened += 1
    return opened, refused


def test_encrypt_128():
    assert _check("gcmEncryptExtIV128.rsp") == (75 * len(backends()), 0)


def test_encrypt_256():
    assert _check("gcmEncryptExtIV256.rsp") == (75 * len(backends()), 0)


def test_decrypt_128():
    opened, refused = _check("gcmDecrypt128.rsp")
    assert opened >= 25
    assert refused >= 50


def test_decrypt_256():
    opened, refused = _check("gcmDecrypt256.rsp")
    assert opened >= 25
    assert refused >= 50


def test_every_length_of_text_and_data_is_covered():
    for part in vectors("aes_gcm")["files"].values():
        texts = set([len(fields[3]) // 2 for fields in part["cases"]])
        data = set([len(fields[2]) // 2 for fields in part["cases"]])
        assert texts == set([0, 13, 16, 32, 51])
        assert data == set([0, 16, 20, 48, 90])
