"""RFC 7748, 5.2 and 6.1, on every backend of the interpreter at hand."""

from packtrust.crypto import backends, x25519, x25519_public
from portable import unhexlify, vectors

_BASE = unhexlify("09" + "00" * 31)


def test_single():
    cases = vectors("x25519")["cases"]
    assert len(cases) == 3
    for backend in backends():
        for case in cases:
            result = x25519(unhexlify(case["scalar"]), unhexlify(case["u"]), backend)
            assert result == unhexlify(case["result"])


def test_iterated():
    for backend in backends():
        scalar = point = _BASE
        for count in range(1000):
            scalar, point = x25519(scalar, point, backend), scalar
            if count == 0:
                assert scalar == unhexlify(vectors("x25519")["iterated"]["1"])
        assert scalar == unhexlify(vectors("x25519")["iterated"]["1000"])


def test_diffie_hellman():
    case = {}
    for name, value in vectors("x25519")["diffie_hellman"].items():
        case[name] = unhexlify(value)
    for backend in backends():
        assert x25519_public(case["alice_private"], backend) == case["alice_public"]
        assert x25519_public(case["bob_private"], backend) == case["bob_public"]
        assert x25519(case["alice_private"], case["bob_public"], backend) == case["shared"]
        assert x25519(case["bob_private"], case["alice_public"], backend) == case["shared"]
