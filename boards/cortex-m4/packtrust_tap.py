"""The key tap of the virtual Cortex-M4, for tests alone: it is in no product's image (see sim/rom.py).

Every key this node has ever had in hands goes to UART 3, `kind hex` a line, so that a test can prove that none of them
was on the bus.
"""

from binascii import hexlify

from canboard import Uart

from packtrust import crypto
from packtrust.crypto import curve25519, kdf

_out = Uart(3)


def write(kind: str, secret) -> None:
    """One key. It waits for room: a key that is not told would not be looked for."""
    if not secret:
        return
    line = b"%s %s\n" % (kind.encode(), hexlify(secret))
    while line:
        count = _out.write(line)
        line = line[count or 0 :]


def install() -> None:
    """Put itself between the core's key derivation and its users, before anybody imports it."""
    init = crypto.AESGCM.__init__
    mac = kdf.hmac
    expand = kdf.expand
    multiply = curve25519.multiply

    def tapped_init(aead, key, backend=None) -> None:
        write("aes", key)
        init(aead, key, backend)

    def tapped_mac(key, parts):
        write("mac", key)
        return mac(key, parts)

    def tapped_expand(prk, info, length):
        output = expand(prk, info, length)
        write("prk", prk)
        write("okm", output)
        return output

    def tapped_multiply(scalar, point):
        output = multiply(scalar, point)
        write("private", scalar)
        if point[0] != 9 or any(point[1:]):  # times the base point it is a public key
            write("shared", output)
        return output

    crypto.AESGCM.__init__ = tapped_init
    kdf.hmac = tapped_mac
    kdf.expand = tapped_expand
    curve25519.multiply = tapped_multiply
