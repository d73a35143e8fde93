"""HPKE (RFC 9180) with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-GCM, in all four modes.

The mode follows from what is given: `psk` and `psk_id` make it PSK, the sender's key (`sk_s` to
send, `pk_s` to receive) makes it Auth, both make it AuthPSK, neither makes it base. Empty counts as
not given. Keys have 32 bytes. `entropy` is 32 fresh random bytes, the ikm of the ephemeral key
(7.1.3): never use them for a second message. A PSK must be random, not a password (9.5).

Every call raises KeyFormatError for keys of a wrong length, CryptoError for a key of small order or
a PSK without its id, and those that open raise InvalidTag for what is not authentic.
"""

from struct import pack

from packtrust._compat import const
from packtrust.crypto import AESGCM, select, wipe, x25519, x25519_public
from packtrust.errors import CryptoError, KeyFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer

AES_128_GCM = const(0x0001)
AES_256_GCM = const(0x0002)

_PSK = const(0x01)
_AUTH = const(0x02)

_NONCE_LENGTH = const(12)
_HASH_LENGTH = const(32)
_LONGEST_EXPORT = const(8160)
_LAST_SEQUENCE = (1 << 96) - 1

_VERSION = b"HPKE-v1"
_KEM = b"KEM\x00\x20"


class _Context:
    """What both ends share after set-up: an AEAD with its sequence, and a secret to export from."""

    def __init__(
        self,
        mode: int,
        shared_secret: bytearray,
        info: "Buffer",
        psk: "Buffer",
        psk_id: "Buffer",
        aead: int,
        backend: "str | None",
    ) -> None:
        """The key schedule (5.1). Wipes `shared_secret`."""
        if aead != AES_256_GCM and aead != AES_128_GCM:
            raise CryptoError("HPKE AEAD 0x%04x is not supported: use AES_256_GCM or AES_128_GCM" % aead)
        suite = b"HPKE\x00\x20\x00\x01" + pack(">H", aead)
        self._suite = suite
        self._backend = backend
        context = (
            bytes((mode,)),
            _extract(suite, b"", b"psk_id_hash", psk_id, backend),
            _extract(suite, b"", b"info_hash", info, backend),
        )
        secret = bytearray(_extract(suite, shared_secret, b"secret", psk, backend))
        wipe(shared_secret)
        key_length = 16 if aead == AES_128_GCM else 32
        key = bytearray(_expand(suite, secret, b"key", context, key_length, backend))
        self._aead = AESGCM(key, backend)
        wipe(key)
        self._base_nonce = bytearray(_expand(suite, secret, b"base_nonce", context, _NONCE_LENGTH, backend))
        self._exporter = bytearray(_expand(suite, secret, b"exp", context, _HASH_LENGTH, backend))
        wipe(secret)
        self._sequence = 0

    def export(self, exporter_context: "Buffer", length: int) -> bytes:
        """`length` secret bytes, 1 to 8160, that both ends derive and nobody else can (5.3)."""
        if not 0 < length <= _LONGEST_EXPORT:
            raise CryptoError("HPKE exports 1 to 8160 bytes, not %d: export several secrets" % length)
        if not self._exporter:
            raise CryptoError("this HPKE context was wiped: set up a new one")
        return _expand(self._suite, self._exporter, b"sec", (exporter_context,), length, self._backend)

    def wipe(self) -> None:
        """Destroy the keys; every later call raises CryptoError."""
        self._aead.wipe()
        wipe(self._base_nonce)
        wipe(self._exporter)
        self._exporter = bytearray()

    def _nonce(self) -> bytes:
        """The nonce of the next message (5.2)."""
        if self._sequence >= _LAST_SEQUENCE:
            raise CryptoError("this HPKE context has used up its nonces: set up a new one")
        return (int.from_bytes(self._base_nonce, "big") ^ self._sequence).to_bytes(_NONCE_LENGTH, "big")


class SenderContext(_Context):
    """Seals messages, in order, for one recipient."""

    def seal(self, aad: "Buffer", plaintext: "Buffer") -> bytes:
        """Ciphertext and tag of the next message."""
        ciphertext = self._aead.encrypt(self._nonce(), plaintext, aad)
        self._sequence += 1
        return ciphertext


class ReceiverContext(_Context):
    """Opens messages in the order they were sealed."""

    def open(self, aad: "Buffer", ciphertext: "Buffer") -> bytes:
        """The plaintext of the next message.

        InvalidTag leaves the place in the sequence as it was.
        """
        plaintext = self._aead.decrypt(self._nonce(), ciphertext, aad)
        self._sequence += 1
        return plaintext


def derive_key_pair(ikm: "Buffer", backend: "str | None" = None) -> "tuple[bytearray, bytes]":
    """The private and public key that `ikm`, at least 32 random bytes, stands for (7.1.3)."""
    if len(ikm) < _HASH_LENGTH:
        raise KeyFormatError("an HPKE key pair needs 32 random bytes, not %d: check the entropy source" % len(ikm))
    prk = bytearray(_extract(_KEM, b"", b"dkp_prk", ikm, backend))
    private = bytearray(_expand(_KEM, prk, b"sk", (), _HASH_LENGTH, backend))
    wipe(prk)
    return private, x25519_public(private, backend)


def setup_sender(
    pk_r: "Buffer",
    info: "Buffer",
    *,
    entropy: "Buffer",
    psk: "Buffer" = b"",
    psk_id: "Buffer" = b"",
    sk_s: "Buffer | None" = None,
    aead: int = AES_256_GCM,
    backend: "str | None" = None,
) -> "tuple[bytes, SenderContext]":
    """`enc`, the 32 bytes the recipient needs, and the context that seals (5.1, SetupS)."""
    mode = _mode(psk, psk_id, sk_s)
    ephemeral, enc = derive_key_pair(entropy, backend)
    pairs = [(ephemeral, pk_r)]  # type: list[tuple[Buffer, Buffer]]
    parties = enc + pk_r
    if sk_s:
        pairs.append((sk_s, pk_r))
        parties += x25519_public(sk_s, backend)
    shared_secret = _shared_secret(pairs, parties, backend)
    wipe(ephemeral)
    return enc, SenderContext(mode, shared_secret, info, psk, psk_id, aead, backend)


def setup_receiver(
    enc: "Buffer",
    sk_r: "Buffer",
    info: "Buffer",
    *,
    psk: "Buffer" = b"",
    psk_id: "Buffer" = b"",
    pk_s: "Buffer | None" = None,
    pk_r: "Buffer | None" = None,
    aead: int = AES_256_GCM,
    backend: "str | None" = None,
) -> ReceiverContext:
    """The context that opens what came with `enc` (5.1, SetupR).

    Who knows the public key of `sk_r` gives it as `pk_r`: that saves a third of the time.
    """
    mode = _mode(psk, psk_id, pk_s)
    pairs = [(sk_r, enc)]  # type: list[tuple[Buffer, Buffer]]
    parties = bytes(enc) + bytes(pk_r or x25519_public(sk_r, backend))
    if pk_s:
        pairs.append((sk_r, pk_s))
        parties += pk_s
    shared_secret = _shared_secret(pairs, parties, backend)
    return ReceiverContext(mode, shared_secret, info, psk, psk_id, aead, backend)


def seal(
    pk_r: "Buffer",
    info: "Buffer",
    aad: "Buffer",
    plaintext: "Buffer",
    *,
    entropy: "Buffer",
    psk: "Buffer" = b"",
    psk_id: "Buffer" = b"",
    sk_s: "Buffer | None" = None,
    aead: int = AES_256_GCM,
    backend: "str | None" = None,
) -> "tuple[bytes, bytes, SenderContext]":
    """One message for `pk_r`.

    `enc`, ciphertext with tag, and the context, to export from; wipe it after use.
    """
    enc, context = setup_sender(
        pk_r, info, entropy=entropy, psk=psk, psk_id=psk_id, sk_s=sk_s, aead=aead, backend=backend
    )
    return enc, context.seal(aad, plaintext), context


def open(  # noqa: A001  (the RFC's name; always called as hpke.open)
    enc: "Buffer",
    sk_r: "Buffer",
    info: "Buffer",
    aad: "Buffer",
    ciphertext: "Buffer",
    *,
    psk: "Buffer" = b"",
    psk_id: "Buffer" = b"",
    pk_s: "Buffer | None" = None,
    pk_r: "Buffer | None" = None,
    aead: int = AES_256_GCM,
    backend: "str | None" = None,
) -> "tuple[bytes, ReceiverContext]":
    """The plaintext of one message, and the context, to export from; wipe it after use.

    InvalidTag if not authentic.
    """
    context = setup_receiver(enc, sk_r, info, psk=psk, psk_id=psk_id, pk_s=pk_s, pk_r=pk_r, aead=aead, backend=backend)
    try:
        return context.open(aad, ciphertext), context
    except CryptoError:
        context.wipe()
        raise


def _mode(psk: "Buffer", psk_id: "Buffer", sender_key: "Buffer | None") -> int:
    """The mode byte (table 1), after VerifyPSKInputs (5.1)."""
    if bool(psk) != bool(psk_id):
        raise CryptoError("an HPKE PSK and its id go together: give both, or neither for a mode without PSK")
    return (_PSK if psk else 0) | (_AUTH if sender_key else 0)


def _shared_secret(pairs: "list[tuple[Buffer, Buffer]]", parties: bytes, backend: "str | None") -> bytearray:
    """What both Encap and Decap end in (4.1): pairs of our private key and the public key it meets, who takes part."""
    dh = bytearray(_HASH_LENGTH * len(pairs))
    at = 0
    for private, public in pairs:
        dh[at : at + _HASH_LENGTH] = x25519(private, public, backend)
        at += _HASH_LENGTH
    prk = bytearray(_extract(_KEM, b"", b"eae_prk", dh, backend))
    wipe(dh)
    secret = bytearray(_expand(_KEM, prk, b"shared_secret", (parties,), _HASH_LENGTH, backend))
    wipe(prk)
    return secret


def _extract(suite: bytes, salt: "Buffer", label: bytes, ikm: "Buffer", backend: "str | None") -> bytes:
    """LabeledExtract (4)."""
    return select(backend).hmac(salt, (_VERSION, suite, label, ikm))


def _expand(
    suite: bytes,
    prk: "Buffer",
    label: bytes,
    info: "tuple[Buffer, ...]",
    length: int,
    backend: "str | None",
) -> bytes:
    """LabeledExpand (4), `info` in parts."""
    return select(backend).expand(prk, (pack(">H", length), _VERSION, suite, label) + info, length)
