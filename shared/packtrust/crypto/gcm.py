"""AES-GCM (NIST SP 800-38D) over any block cipher: 96-bit nonces, 128-bit tags."""

from struct import pack_into

from packtrust._compat import const
from packtrust.crypto.buffers import compare_digest, wipe
from packtrust.errors import CryptoError, InvalidTag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from packtrust._typing import Buffer
    from packtrust.crypto.ghash import Ghash

    class BlockCipher(Protocol):
        """AES under one key."""

        def encrypt(self, blocks: bytearray) -> None:
            """Encrypt whole 16-byte blocks in place."""

        def wipe(self) -> None:
            """Destroy the key."""


BLOCK = const(16)
TAG_LENGTH = const(16)


# The places of a work buffer: associated data, padded to one block, then the record: IV, text, tag.
AT_IV = const(16)
AT_TEXT = const(28)
WORK_OVERHEAD = const(44)

_PIECE = const(64)


class InPlace:
    """Sealing and opening in a work buffer (`AESGCM.seal_in_place`), by way of `encrypt` and `decrypt`."""

    def seal_in_place(self, work: bytearray, n: int, aad_length: int) -> None:
        """Encrypt the n bytes at work[28] and write the tag behind them."""
        check_work(work, n, aad_length)
        end = AT_TEXT + n
        sealed = self.encrypt(work[AT_IV:AT_TEXT], work[AT_TEXT:end], work[:aad_length])  # type: ignore[attr-defined]
        work[AT_TEXT : end + TAG_LENGTH] = sealed

    def open_in_place(self, work: bytearray, n: int, aad_length: int) -> bool:
        """Decrypt the n bytes at work[28] if the tag behind them is right; else False, and nothing is changed."""
        check_work(work, n, aad_length)
        end = AT_TEXT + n
        iv = work[AT_IV:AT_TEXT]
        try:
            text = self.decrypt(iv, work[AT_TEXT : end + TAG_LENGTH], work[:aad_length])  # type: ignore[attr-defined]
        except InvalidTag:
            return False
        work[AT_TEXT:end] = text
        return True


def check_work(work: bytearray, n: int, aad_length: int) -> None:
    """CryptoError if a work buffer cannot hold what its caller says is in it. Clears the padding."""
    if n < 0 or not 0 <= aad_length <= BLOCK or len(work) < WORK_OVERHEAD + n:
        raise CryptoError(
            "a work buffer of %d bytes does not hold %d bytes of data and %d of associated data: "
            "give it 44 + n bytes, and at most 16 bytes of associated data" % (len(work), n, aad_length)
        )
    for at in range(aad_length, BLOCK):
        work[at] = 0


class Gcm(InPlace):
    """GCM under one key, given as the block cipher that holds it; `ghash` is a class like ghash.Ghash, which it is."""

    def __init__(self, cipher: "BlockCipher", ghash: "type[Ghash] | None" = None) -> None:
        # Imported here: a board with a kernel has no use for it.
        if ghash is None:
            from packtrust.crypto.ghash import Ghash

            ghash = Ghash
        self._cipher = cipher
        subkey = bytearray(BLOCK)
        cipher.encrypt(subkey)
        self._ghash = ghash(subkey)
        wipe(subkey)

    def encrypt(self, nonce: "Buffer", data: "Buffer", aad: "Buffer") -> bytes:
        """Ciphertext and tag: len(data) + 16 bytes. `nonce` has 12 bytes."""
        # The counter block that masks the tag and those of the text, in one call of the cipher.
        stream = self._key_stream(nonce, 1, 1 + (len(data) + BLOCK - 1) // BLOCK)
        ciphertext = _xor(data, stream, BLOCK)
        tag = _xor(self._ghash.digest(aad, ciphertext), stream, 0)
        wipe(stream)
        return ciphertext + tag

    def decrypt(self, nonce: "Buffer", data: "Buffer", aad: "Buffer") -> bytes:
        """The plaintext of ciphertext and tag.

        InvalidTag if not authentic: nothing is decrypted then.
        """
        size = len(data) - TAG_LENGTH
        view = memoryview(data)
        ciphertext = view[:size]
        stream = self._key_stream(nonce, 1, 1)
        tag = _xor(self._ghash.digest(aad, ciphertext), stream, 0)
        if not compare_digest(tag, bytes(view[size:])):
            raise InvalidTag("record refused: wrong key, nonce or associated data, or it was changed on the way")
        stream = self._key_stream(nonce, 2, (size + BLOCK - 1) // BLOCK)
        plaintext = _xor(ciphertext, stream, 0)
        wipe(stream)
        return plaintext

    def wipe(self) -> None:
        """Destroy round keys and tables."""
        self._cipher.wipe()
        self._ghash.wipe()

    def _key_stream(self, nonce: "Buffer", first: int, count: int) -> bytearray:
        """`count` encrypted counter blocks from counter `first` on."""
        stream = bytearray(BLOCK * count)
        nonce = bytes(nonce)
        for block in range(count):
            pack_into(">12sI", stream, BLOCK * block, nonce, first + block)
        self._cipher.encrypt(stream)
        return stream


def _xor(data: "Buffer", stream: bytearray, at: int) -> bytes:
    """`data` xor the key stream from byte `at` on, which becomes that: in pieces, for a small heap has none for long
    integers."""
    size = len(data)
    for start in range(0, size, _PIECE):
        end = min(start + _PIECE, size)
        here = at + start
        there = at + end
        piece = int.from_bytes(data[start:end], "big") ^ int.from_bytes(stream[here:there], "big")
        stream[here:there] = piece.to_bytes(end - start, "big")
    return bytes(memoryview(stream)[at : at + size])
