"""X25519: what peers may send, and what is refused."""

from packtrust.crypto import CryptoError, KeyFormatError, backends, x25519, x25519_public
from portable import raises, unhexlify

ALICE = bytes(range(1, 33))
BOB = bytes(range(101, 133))

_P = (1 << 255) - 19

# All points of order 1, 2, 4 or 8, and their other encodings below 2^255 (https://cr.yp.to/ecdh.html).
_SMALL_ORDER = (
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    _P - 1,
    _P,
    _P + 1,
)


def _bytes(number):
    return number.to_bytes(32, "little")


def test_both_sides_agree():
    for backend in backends():
        shared = x25519(ALICE, x25519_public(BOB, backend), backend)
        assert shared == x25519(BOB, x25519_public(ALICE, backend), backend)
        assert shared == x25519(ALICE, x25519_public(BOB))


def test_small_order_is_refused():
    for backend in backends():
        for point in _SMALL_ORDER:
            error = raises(CryptoError, x25519, ALICE, _bytes(point), backend)
            assert "all-zero" in str(error)
            # The top bit of a coordinate does not count (RFC 7748, 5).
            raises(CryptoError, x25519, ALICE, _bytes(point | 1 << 255), backend)


def test_the_top_bit_of_a_point_is_ignored():
    for backend in backends():
        point = bytearray(x25519_public(BOB, backend))
        shared = x25519(ALICE, point, backend)
        point[31] |= 0x80
        assert x25519(ALICE, point, backend) == shared


def test_coordinates_above_p_are_reduced():
    for backend in backends():
        for excess in range(2, 19):
            above = x25519(ALICE, _bytes(_P + excess), backend)
            assert above == x25519(ALICE, _bytes(excess), backend)


def test_scalars_are_clamped():
    for backend in backends():
        scalar = bytearray(ALICE)
        public = x25519_public(scalar, backend)
        scalar[0] ^= 7
        scalar[31] ^= 0x80
        assert x25519_public(scalar, backend) == public
        scalar[31] ^= 0x40
        assert x25519_public(scalar, backend) == public
        scalar[0] ^= 8
        assert x25519_public(scalar, backend) != public


def test_extreme_scalars():
    expected = (
        (bytes(32), "2fe57da347cd62431528daac5fbb290730fff684afc4cfc2ed90995f58cb3b74"),
        (b"\xff" * 32, "847c0d2c375234f365e660955187a3735a0f7613d1609d3a6a4d8c53aeaa5a22"),
    )
    for backend in backends():
        for scalar, public in expected:
            assert x25519_public(scalar, backend) == unhexlify(public)


def test_arguments_are_left_alone():
    for backend in backends():
        private, public = bytearray(b"\xff" * 32), bytearray(b"\xff" * 31 + b"\x7e")
        x25519(private, public, backend)
        assert private == b"\xff" * 32
        assert public == b"\xff" * 31 + b"\x7e"


def test_lengths():
    for backend in backends():
        for size in (0, 31, 33):
            assert "private" in str(raises(KeyFormatError, x25519, bytes(size), BOB, backend))
            assert "public" in str(raises(KeyFormatError, x25519, ALICE, bytes(size), backend))
            raises(KeyFormatError, x25519_public, bytes(size), backend)


def test_any_buffer_will_do():
    for backend in backends():
        expected = x25519(ALICE, x25519_public(BOB, backend), backend)
        for kind in (bytearray, memoryview):
            point = kind(x25519_public(kind(BOB), backend))
            assert x25519(kind(ALICE), point, backend) == expected
