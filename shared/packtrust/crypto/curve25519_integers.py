"""X25519 on Python integers, for interpreters with nothing better.

Not constant time: the ladder does the same steps for every key, but Python's integers do not take
the same time for every value, and nothing can overwrite them.
"""

from packtrust._compat import const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer

KEY_LENGTH = const(32)

_P = (1 << 255) - 19
_LOW = (1 << 255) - 1


def multiply(scalar: "Buffer", point: "Buffer") -> bytearray:
    """x of the clamped `scalar` times the point of that x, both of 32 bytes, the top bit of `point` clear."""
    x2, z2 = _ladder(scalar, int.from_bytes(point, "little"))
    return bytearray((x2 * _inverse(z2) % _P).to_bytes(KEY_LENGTH, "little"))


def _ladder(scalar: "Buffer", x1: int) -> "tuple[int, int]":
    """Montgomery's ladder over the 255 bits of a clamped scalar.

    2^255 = 19 (mod p), so `(v & low) + 19 * (v >> 255)` shortens v, at half the price of a
    division. A product comes out of it up to 36 bits longer than p, and a second time, for what
    goes into the next step, no longer than p. Differences may be negative, for which the mask and
    the arithmetic shift are right as well.
    """
    low = _LOW
    x2 = 1
    z2 = 0
    x3 = x1
    z3 = 1
    swapped = 0
    for at in range(254, -1, -1):
        bit = scalar[at >> 3] >> (at & 7) & 1
        if bit != swapped:
            x2, x3 = x3, x2
            z2, z3 = z3, z2
            swapped = bit
        a = x2 + z2
        b = x2 - z2
        d = (x3 - z3) * a
        d = (d & low) + 19 * (d >> 255)
        c = (x3 + z3) * b
        c = (c & low) + 19 * (c >> 255)
        x3 = d + c
        x3 = x3 * x3
        x3 = (x3 & low) + 19 * (x3 >> 255)
        x3 = (x3 & low) + 19 * (x3 >> 255)
        z3 = d - c
        z3 = z3 * z3
        z3 = (z3 & low) + 19 * (z3 >> 255)
        z3 = z3 * x1
        z3 = (z3 & low) + 19 * (z3 >> 255)
        z3 = (z3 & low) + 19 * (z3 >> 255)
        a = a * a
        a = (a & low) + 19 * (a >> 255)
        b = b * b
        b = (b & low) + 19 * (b >> 255)
        x2 = a * b
        x2 = (x2 & low) + 19 * (x2 >> 255)
        x2 = (x2 & low) + 19 * (x2 >> 255)
        b = a - b
        z2 = b * (a + 121665 * b)
        z2 = (z2 & low) + 19 * (z2 >> 255)
        z2 = (z2 & low) + 19 * (z2 >> 255)
    if swapped:
        return x3, z3
    return x2, z2


def _square(value: int, times: int) -> int:
    low = _LOW
    for _ in range(times):
        value = value * value
        value = (value & low) + 19 * (value >> 255)
        value = (value & low) + 19 * (value >> 255)
    return value


def _inverse(z: int) -> int:
    """z^(p - 2), by Fermat.

    254 squarings and 11 products, since boards may lack pow() with three arguments.
    """
    z %= _P
    z2 = _square(z, 1)
    z9 = _square(z2, 2) * z % _P
    z11 = z9 * z2 % _P
    e5 = _square(z11, 1) * z9 % _P
    e10 = _square(e5, 5) * e5 % _P
    e20 = _square(e10, 10) * e10 % _P
    e40 = _square(e20, 20) * e20 % _P
    e50 = _square(e40, 10) * e10 % _P
    e100 = _square(e50, 50) * e50 % _P
    e200 = _square(e100, 100) * e100 % _P
    e250 = _square(e200, 50) * e50 % _P
    return _square(e250, 5) * z11 % _P
