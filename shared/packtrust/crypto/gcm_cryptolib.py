"""AES-GCM by a port's own `cryptolib.aesgcm`, which takes and gives what `cryptography`'s AESGCM does.

No release of MicroPython has it yet: it is a proposal (github.com/micropython/micropython/pull/6389). It returns new
bytes, so unlike the kernels it takes heap for each record.
"""

from cryptolib import aesgcm

from packtrust.crypto.gcm import InPlace
from packtrust.errors import InvalidTag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer


class Gcm(InPlace):
    """AES-GCM under one key of 16 or 32 bytes."""

    def __init__(self, key: "Buffer") -> None:
        self._aead = aesgcm(bytes(key))

    def encrypt(self, nonce: "Buffer", data: "Buffer", aad: "Buffer") -> bytes:
        """Ciphertext and tag: len(data) + 16 bytes."""
        return bytes(self._aead.encrypt(bytes(nonce), bytes(data), bytes(aad)))

    def decrypt(self, nonce: "Buffer", data: "Buffer", aad: "Buffer") -> bytes:
        """The plaintext of ciphertext and tag. InvalidTag if not authentic."""
        try:
            return bytes(self._aead.decrypt(bytes(nonce), bytes(data), bytes(aad)))
        except (ValueError, OSError):
            raise InvalidTag("record refused: wrong key, nonce or associated data, or it was changed on the way")

    def wipe(self) -> None:
        """Drop the key: the library frees its copy with the object."""
        self._aead = None
