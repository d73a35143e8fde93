"""Wiping and comparing secrets."""

from packtrust._compat import const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hmac import compare_digest

    from packtrust._typing import Buffer


_STEP = const(64)
_ZEROS = bytes(_STEP)


def wipe(secret: "bytearray | memoryview") -> None:
    """Overwrite a mutable buffer with zeros, in place.

    Copies made before are not reached: slices of `bytes`, integers, what a garbage collector has
    not yet swept. Keep secrets in one bytearray and hand out views.
    """
    size = len(secret)
    whole = size & -_STEP
    # In steps: a full heap must not keep a secret from being wiped.
    for at in range(0, whole, _STEP):
        secret[at : at + _STEP] = _ZEROS
    if whole < size:
        secret[whole:] = _ZEROS[whole - size :]


def compare_bytewise(a: "Buffer", b: "Buffer") -> bool:
    """Whether two byte strings are equal, in a time that depends on their lengths only."""
    if len(a) != len(b):
        return False
    difference = 0
    for at in range(len(a)):
        difference |= a[at] ^ b[at]
    return difference == 0


if not TYPE_CHECKING:
    try:
        from hmac import compare_digest
    except ImportError:  # boards
        compare_digest = compare_bytewise

__all__ = ["compare_bytewise", "compare_digest", "wipe"]
