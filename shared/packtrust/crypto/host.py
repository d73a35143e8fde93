"""The host's work, done by the `cryptography` library (OpenSSL). CPython only."""

from cryptography.exceptions import InvalidTag as _InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM as _AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from packtrust.crypto.backend import Backend
from packtrust.crypto.gcm import InPlace
from packtrust.errors import InvalidTag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from packtrust._typing import Buffer

_SHA256 = SHA256()
_X25519_LENGTH = 32


class Gcm(InPlace):
    """AES-GCM under one key of 16 or 32 bytes."""

    def __init__(self, key: "Buffer") -> None:
        self._aead = _AESGCM(key)

    def encrypt(self, nonce: "Buffer", data: "Buffer", aad: "Buffer") -> bytes:
        """Ciphertext and tag: len(data) + 16 bytes."""
        return self._aead.encrypt(nonce, data, aad)

    def decrypt(self, nonce: "Buffer", data: "Buffer", aad: "Buffer") -> bytes:
        """The plaintext of ciphertext and tag. InvalidTag if not authentic."""
        try:
            return self._aead.decrypt(nonce, data, aad)
        except _InvalidTag:
            raise InvalidTag(
                "record refused: wrong key, nonce or associated data, or it was changed on the way"
            ) from None

    def wipe(self) -> None:
        """Drop the key: the library frees its copy with the object."""
        del self._aead


class HostBackend(Backend):
    """Everything by `cryptography`."""

    def __init__(self) -> None:
        super().__init__("cryptography", Gcm)

    def hmac(self, key: "Buffer", parts: "Sequence[Buffer]") -> bytes:
        """HMAC-SHA-256 of the parts, one after the other."""
        mac = HMAC(key, _SHA256)
        for part in parts:
            mac.update(part)
        return mac.finalize()

    def expand(self, prk: "Buffer", info: "Sequence[Buffer]", length: int) -> bytes:
        """HKDF-Expand with SHA-256 (RFC 5869, 2.3), `info` in parts."""
        return HKDFExpand(_SHA256, length, b"".join(info)).derive(prk)

    def multiply(self, scalar: "Buffer", point: "Buffer") -> bytes:
        """X25519 (RFC 7748, 5); all zero for a point of small order."""
        private = X25519PrivateKey.from_private_bytes(scalar)
        try:
            return private.exchange(X25519PublicKey.from_public_bytes(bytes(point)))
        except ValueError:
            # The library's word for an all-zero result; its caller names the error.
            return bytes(_X25519_LENGTH)
