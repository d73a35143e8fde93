"""AES-GCM, HKDF and X25519, and in `packtrust.crypto.hpke` HPKE: one interface on boards and host.

Backends do the work, best first; all give the same bytes:

* `cryptography`: the host's library, for everything, and the only one that runs in constant time;
* `thumb`: MicroPython on Cortex-M3 and later, AES and GHASH in assembler;
* `cryptolib`: MicroPython's own AES under GHASH in viper, or in plain Python where there is no viper;
* `viper`: both in viper, 2 KB of tables a key; `viper-aligned`: the same for cores that load words only from their own
  addresses (ESP32, RP2040, RISC-V), with 1 KB of shared tables; `viper-large`: 11 KB a key, for those who name it;
* `cryptolib-gcm`: a MicroPython port's own `cryptolib.aesgcm`, where it has that;
* `aesio`: CircuitPython's AES, the rest in plain Python;
* `pure`: all in plain Python.

What is native code comes only with MicroPython, when it is first called for, and only in one form.

Wherever a call takes `backend` it takes one of these names, or None for the one `use` chose, at
first the best one here. A backend passes a known-answer test before it is given out; one that fails
is disabled, and `disabled` says why.
"""

from packtrust._compat import const
from packtrust._compat import sha256 as _sha256
from packtrust.crypto.backend import CHOSEN, LOADED
from packtrust.crypto.buffers import compare_digest, wipe
from packtrust.errors import BackendUnavailable, CryptoError, InvalidTag, KeyFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer
    from packtrust.crypto.backend import Aead, Backend

__all__ = [
    "AESGCM",
    "BackendUnavailable",
    "CryptoError",
    "InvalidTag",
    "KeyFormatError",
    "backends",
    "compare_digest",
    "disabled",
    "hkdf",
    "hkdf_expand",
    "hkdf_extract",
    "hmac_sha256",
    "others",
    "sha256",
    "use",
    "wipe",
    "x25519",
    "x25519_public",
]

_NONCE_LENGTH = const(12)
_TAG_LENGTH = const(16)
_X25519_LENGTH = const(32)
_LONGEST_EXPANSION = const(8160)  # 255 hashes (RFC 5869, 2.3)

_BASE_POINT = b"\x09" + bytes(31)


def select(backend: "str | None" = None) -> "Backend":
    """As registry.select, which is loaded if need be: an import for each key costs more than the rest of its set-up."""
    found = CHOSEN.get("") if backend is None else LOADED.get(backend)
    if found is not None:
        return found
    from packtrust.crypto import registry

    return registry.select(backend)


def use(name: "str | None") -> None:
    """As registry.use."""
    from packtrust.crypto import registry

    registry.use(name)


def backends() -> "list[str]":
    """As registry.names."""
    from packtrust.crypto import registry

    return registry.names()


def others() -> "list[str]":
    """As registry.others."""
    from packtrust.crypto import registry

    return registry.others()


def disabled() -> "dict[str, str]":
    """As registry.disabled."""
    from packtrust.crypto import registry

    return registry.disabled()


class AESGCM:
    """AES-GCM (NIST SP 800-38D) under one key of 16 or 32 bytes: 12-byte nonces, 16-byte tags.

    The same calls as the class of this name in `cryptography`. Never use a nonce twice under one
    key.
    """

    def __init__(self, key: "Buffer", backend: "str | None" = None) -> None:
        """KeyFormatError for another length, BackendUnavailable if the backend is not here."""
        if len(key) != 16 and len(key) != 32:
            raise KeyFormatError("an AES-GCM key has 16 or 32 bytes, not %d: derive one with hkdf()" % len(key))
        chosen = select(backend)
        self.backend = chosen.name
        self._bind(chosen.gcm(key))

    def _bind(self, aead: "Aead") -> None:
        self._aead = aead
        # The backend's own methods: one call less for every record.
        self.seal_in_place = aead.seal_in_place  # type: ignore[method-assign]
        self.open_in_place = aead.open_in_place  # type: ignore[method-assign]

    if TYPE_CHECKING:

        def seal_in_place(self, work: bytearray, n: int, aad_length: int) -> "bool | None":
            """Seal a record where it stands, without a byte of heap on the boards.

            `work` holds 16 bytes of associated data, of which the first `aad_length` count and the others become
            zero, then the record: IV 12, text n, tag 16. The n bytes at work[28] are encrypted, the tag is written
            behind them: work[16:44+n] is the record as it goes on the wire. CryptoError if the key was wiped.
            n is trusted: a board's kernel writes where it says, so give it a buffer of at least 44 + n bytes. A
            negative n, and an `aad_length` beyond 0 to 16, are a CryptoError, or where the kernel cannot raise one
            the text is overwritten with zeros and the result is False.
            """

        def open_in_place(self, work: bytearray, n: int, aad_length: int) -> bool:
            """Open the record at work[16:44+n]: its text then stands at work[28:28+n], True.

            False if it is not authentic: the record is unchanged then, and no plaintext exists.
            """

    def encrypt(self, nonce: "Buffer", data: "Buffer", aad: "Buffer | None" = None) -> bytes:
        """Ciphertext and tag, len(data) + 16 bytes. `aad` is authenticated, not encrypted."""
        if len(nonce) != _NONCE_LENGTH:
            raise KeyFormatError(_bad_nonce(nonce))
        return self._aead.encrypt(nonce, data, b"" if aad is None else aad)

    def decrypt(self, nonce: "Buffer", data: "Buffer", aad: "Buffer | None" = None) -> bytes:
        """The plaintext of what `encrypt` gave.

        InvalidTag if it is not authentic: no plaintext exists then.
        """
        if len(nonce) != _NONCE_LENGTH:
            raise KeyFormatError(_bad_nonce(nonce))
        if len(data) < _TAG_LENGTH:
            raise InvalidTag("record refused: %d bytes are too few to hold a 16-byte tag" % len(data))
        return self._aead.decrypt(nonce, data, b"" if aad is None else aad)

    def wipe(self) -> None:
        """Destroy the key schedule and tables; every later call raises CryptoError."""
        self._aead.wipe()
        self._bind(_Wiped())


class _Wiped:
    """Stands in for a cipher whose key is gone."""

    def encrypt(self, nonce: "Buffer", data: "Buffer", aad: "Buffer") -> bytes:
        raise CryptoError("this key was wiped: make a new AESGCM")

    decrypt = encrypt

    def seal_in_place(self, work: bytearray, n: int, aad_length: int) -> "bool | None":
        raise CryptoError("this key was wiped: make a new AESGCM")

    def open_in_place(self, work: bytearray, n: int, aad_length: int) -> bool:
        raise CryptoError("this key was wiped: make a new AESGCM")

    def wipe(self) -> None:
        """Wiping twice is no error."""


def _bad_nonce(nonce: "Buffer") -> str:
    return "an AES-GCM nonce has 12 bytes, not %d: give 4 bytes of base and 8 of counter" % len(nonce)


def sha256(data: "Buffer") -> bytes:
    """SHA-256 (FIPS 180-4), 32 bytes."""
    return _sha256(data).digest()


def hmac_sha256(key: "Buffer", *parts: "Buffer", backend: "str | None" = None) -> bytes:
    """HMAC-SHA-256 (RFC 2104) of the parts, one after the other, 32 bytes."""
    return select(backend).hmac(key, parts)


def hkdf_extract(salt: "Buffer", ikm: "Buffer", backend: "str | None" = None) -> bytes:
    """HKDF-Extract with SHA-256 (RFC 5869, 2.2).

    A 32-byte pseudorandom key. An empty salt means 32 zero bytes.
    """
    return select(backend).hmac(salt, (ikm,))


def hkdf_expand(prk: "Buffer", info: "Buffer", length: int, backend: "str | None" = None) -> bytes:
    """HKDF-Expand with SHA-256 (RFC 5869, 2.3).

    `length` bytes, 1 to 8160, CryptoError otherwise.
    """
    if not 0 < length <= _LONGEST_EXPANSION:
        raise CryptoError("HKDF gives 1 to 8160 bytes, not %d: derive several keys under different info" % length)
    return select(backend).expand(prk, (info,), length)


def hkdf(ikm: "Buffer", salt: "Buffer", info: "Buffer", length: int, backend: "str | None" = None) -> bytes:
    """Extract, then expand (RFC 5869, 2): `length` bytes, 1 to 8160."""
    prk = bytearray(hkdf_extract(salt, ikm, backend))
    output = hkdf_expand(prk, info, length, backend)
    wipe(prk)
    return output


def x25519(private: "Buffer", public: "Buffer", backend: "str | None" = None) -> bytes:
    """The 32-byte shared secret (RFC 7748, 6.1).

    CryptoError if it is all zero: the peer's key has small order.
    """
    if len(private) != _X25519_LENGTH:
        raise KeyFormatError("an X25519 private key is 32 random bytes, not %d" % len(private))
    if len(public) != _X25519_LENGTH:
        raise KeyFormatError("an X25519 public key has 32 bytes, not %d: ask the peer for its own" % len(public))
    shared = select(backend).multiply(private, public)
    if compare_digest(shared, bytes(_X25519_LENGTH)):
        raise CryptoError("the peer's X25519 public key gives an all-zero secret: refuse that peer, it is forged")
    return shared


def x25519_public(private: "Buffer", backend: "str | None" = None) -> bytes:
    """The 32-byte public key of a private one."""
    return x25519(private, _BASE_POINT, backend)
