"""Curve25519 in each form this interpreter has, at the edges of its arithmetic and on random input.

Slow boards compute each result once a form: what all must give is kept as a hash, which the host checks against the
`cryptography` library.
"""

import sys
from hashlib import sha256

from packtrust.crypto import BackendUnavailable, backends, curve25519, disabled, registry
from portable import hexlify, raises, unhexlify

_P = (1 << 255) - 19
_BASE = b"\x09" + bytes(31)

# Points whose coordinate is 0, 1, next to p, not canonical, of small order (https://cr.yp.to/ecdh.html), or extreme in
# limbs of 13 and words of 32 bits.
_EDGES = (
    0,
    1,
    2,
    9,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    _P - 2,
    _P - 1,
    _P,
    _P + 1,
    _P + 9,
    (1 << 255) - 1,
    (1 << 254),
    (1 << 255) - (1 << 247),
    (1 << 255) - (1 << 128),
    (1 << 128) - 1,
    sum([0x1FFF << 26 * at for at in range(9)]),
    sum([0x1000 << 13 * at for at in range(19)]),
    sum([0xFFFFFFFF << 64 * at for at in range(4)]) & (1 << 255) - 1,
)
_SCALARS = (bytes(32), b"\xff" * 32, b"\xa5" * 32, b"\x08" + bytes(30) + b"\x40", b"\xf8" + b"\xff" * 30 + b"\x7f")


def _bytes(number):
    return number.to_bytes(32, "little")


def _random(count):
    """32-byte strings of a linear congruence: the same on every interpreter."""
    state = 20741
    for _ in range(count):
        out = bytearray(32)
        for at in range(32):
            state = (state * 1103515 + 12345) & 0xFFFFFFF
            out[at] = state >> 16 & 255
        yield bytes(out)


def test_native_forms_where_there_is_native_code():
    forms = curve25519.forms()
    assert forms[-1] == "integers"
    assert curve25519.disabled() == {}
    if sys.implementation.name == "micropython":
        try:
            exec("import micropython\n@micropython.viper\ndef f(): pass\n")
        except SyntaxError:  # a port without native code
            assert forms == ["integers"]
        else:
            assert "viper" in forms
        kind = getattr(sys.implementation, "_mpy", 0) >> 10 & 15
        assert ("thumb" in forms) == (6 <= kind <= 8)  # armv7em with and without floats
    else:
        assert forms == ["integers"]


def _every_form():
    """(name, multiply) of each form, and of the host's library where there is one."""
    for form in curve25519.forms():
        yield form, lambda scalar, point, form=form: curve25519.multiply(scalar, point, form)
    if "cryptography" in backends():
        yield "cryptography", registry.select("cryptography").multiply


def _hash(multiply, inputs):
    total = sha256()
    for scalar, point in inputs:
        total.update(multiply(scalar, point))
    return hexlify(total.digest()).decode()


def test_edges():
    inputs = [(scalar, _bytes(number)) for number in _EDGES for scalar in _SCALARS[1:3]]
    inputs += [(_SCALARS[2], _bytes(number | 1 << 255)) for number in _EDGES[3:8]]
    inputs += [(scalar, _BASE) for scalar in _SCALARS]
    for name, multiply in _every_form():
        assert _hash(multiply, inputs) == "86ec1dfc3ab240cfbfcc79202337615d71289c398cbfc5abc1883b0ae3e68599", name


def test_random():
    values = list(_random(17))
    inputs = [(values[at], values[at + 1]) for at in range(16)]
    for name, multiply in _every_form():
        assert _hash(multiply, inputs) == "26572271f223232e964fa9da3bedefc85657b60f6818a2f0ee3761eb6ea9412b", name


def test_small_order_gives_zero():
    for number in _EDGES[:2] + _EDGES[4:6] + (_P - 1, _P, _P + 1):
        for form in curve25519.forms():
            assert curve25519.multiply(_SCALARS[2], _bytes(number), form) == bytes(32), (form, number)


def test_iterated():
    """RFC 7748, 5.2: k, u = X25519(k, u), k, from the base point: once by the RFC, 10 times by `cryptography`."""
    for name, multiply in _every_form():
        k = u = _BASE
        k, u = multiply(k, u), k
        assert k == unhexlify("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"), name
        for _ in range(9):
            k, u = multiply(k, u), k
        assert hexlify(k).decode() == "7b96f292a115e83e78560105869c00b0f4fb2cd10e385b8c64bf047b0c0e1113", name


def test_a_form_can_be_forced():
    try:
        for form in curve25519.forms():
            curve25519.use(form)
            assert curve25519.multiply(_SCALARS[2], _BASE) == curve25519.multiply(_SCALARS[2], _BASE, "integers")
    finally:
        curve25519.use(None)
    error = raises(BackendUnavailable, curve25519.use, "magic")
    assert "'magic'" in str(error)
    assert "integers" in str(error)
    raises(BackendUnavailable, curve25519.multiply, _SCALARS[2], _BASE, "magic")


def test_a_form_that_fails_its_known_answer_is_disabled_and_says_so():
    """A wrong answer and an exception: both cost the form its place, and nothing else."""

    def wrong(scalar, point):
        return bytearray(32)

    def broken(scalar, point):
        raise ValueError("no")

    real = curve25519._import
    loaded = dict(curve25519._loaded)
    refused = dict(curve25519._refused)
    try:
        for bad, reason in ((wrong, "known-answer"), (broken, "ValueError")):
            curve25519._loaded.clear()
            curve25519._refused.clear()
            curve25519.use(None)
            curve25519._import = lambda name, bad=bad: real(name) if name == "integers" else bad
            assert curve25519.forms() == ["integers"]
            assert reason in curve25519.disabled()["viper"]
            assert reason in disabled()["X25519 thumb"]
            assert curve25519.multiply(_SCALARS[2], _BASE) == real("integers")(_clamped(_SCALARS[2]), _BASE)
            error = raises(BackendUnavailable, curve25519.multiply, _SCALARS[2], _BASE, "viper")
            assert "disabled" in str(error)
    finally:
        curve25519._import = real
        curve25519._loaded.clear()
        curve25519._refused.clear()
        curve25519._loaded.update(loaded)
        curve25519._refused.update(refused)
        curve25519.use(None)


def _clamped(scalar):
    out = bytearray(scalar)
    out[0] &= 248
    out[31] = out[31] & 127 | 64
    return out


def test_thumb_takes_numbers_up_to_the_last_of_256_bits():
    """Between steps numbers are below 2^256, not 2^255: carries that no point of 255 bits brings about at once."""
    if "thumb" not in curve25519.forms():
        return
    from packtrust.crypto import curve25519_thumb

    scalar = _clamped(_SCALARS[2])
    for number in ((1 << 256) - 1, (1 << 256) - 38, (1 << 256) - 39, (1 << 255), (1 << 256) - (1 << 224)):
        state = bytearray(288)
        state[:32] = state[96:128] = _bytes(number)
        state[32] = state[128] = 1
        curve25519_thumb._run(state, scalar)
        assert state[32:64] == curve25519.multiply(scalar, _bytes(number % _P), "viper"), number


def test_viper_arithmetic_at_its_bounds():
    """Limbs as large as a product may leave them, all of one sign or of both, through each instruction."""
    if "viper" not in curve25519.forms():
        return
    from array import array

    from packtrust.crypto import curve25519_viper

    # 4, 5 = 0 +- 1; 6, 7 = 2 +- 3; 8 = 4 * 7; 9 = 4 * 4; 10 = 4^2; 11 = 7^2; 12, 13 = 8 +- 9; 4 = 121665 * 13 + 11
    program = (
        b"\x03\x04\x00\x01\x03\x06\x02\x03\x00\x08\x04\x07\x00\x09\x04\x04\x01\x0a\x04\x04\x01\x0b\x07\x07"
        b"\x03\x0c\x08\x09\x02\x04\x0d\x0b\xff"
    )
    signs = (
        lambda at: 1,
        lambda at: -1,
        lambda at: 1 if at < 20 else -1,
        lambda at: 1 if at < 40 else -1,
        lambda at: 1 if at & 1 else -1,
        lambda at: 1 if at * at % 7 < 3 else -1,
    )
    for sign in signs:
        state = array("i", bytes(4 * (40 + 14 * 20)))
        for at in range(80):
            state[40 + at] = 4100 * sign(at)
        a, b, c, d = [_value(state, register) for register in range(4)]
        curve25519_viper.run(state, 0, program, 0)
        product, square = (a + b) * (c - d), (a + b) * (a + b)
        other = (c - d) * (c - d)
        for register, value in (
            (8, product),
            (9, square),
            (10, square),
            (11, other),
            (13, product - square),
            (4, (product - square) * 121665 + other),
        ):
            assert (_value(state, register) - value) % _P == 0, register
            if register != 13:
                assert max([abs(state[40 + 20 * register + at]) for at in range(20)]) <= 4100, register


def _value(state, register):
    return sum([state[40 + 20 * register + at] << 13 * at for at in range(20)])
