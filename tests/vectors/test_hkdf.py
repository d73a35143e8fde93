"""RFC 5869, appendix A.1 to A.3, on every backend of the interpreter at hand."""

from packtrust.crypto import backends, hkdf, hkdf_expand, hkdf_extract
from portable import unhexlify, vectors


def test_rfc_5869():
    cases = vectors("hkdf")["cases"]
    assert len(cases) == 3
    for backend in backends():
        for case in cases:
            ikm, salt, info = [unhexlify(case[name]) for name in ("ikm", "salt", "info")]
            prk = hkdf_extract(salt, ikm, backend)
            assert prk == unhexlify(case["prk"])
            assert hkdf_expand(prk, info, case["length"], backend) == unhexlify(case["okm"])
            assert hkdf(ikm, salt, info, case["length"], backend) == unhexlify(case["okm"])
