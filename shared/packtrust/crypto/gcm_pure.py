"""AES-GCM in plain bytecode, in place and without an allocation: what a board does that has no faster way."""

from packtrust.crypto.aes_pure import BlockCipher, encrypt_block
from packtrust.crypto.gcm import AT_IV, AT_TEXT, BLOCK, TAG_LENGTH, Gcm, check_work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer


class PureGcm(Gcm):
    """GCM under one key of 16 or 32 bytes: `Gcm` for the generic calls, buffers made beforehand for those in place."""

    def __init__(self, key: "Buffer") -> None:
        cipher = BlockCipher(key)
        super().__init__(cipher)
        self._aes = cipher
        self._stream = bytearray(BLOCK)

    def seal_in_place(self, work: bytearray, n: int, aad_length: int) -> None:
        """Encrypt the n bytes at work[28] and write the tag behind them."""
        check_work(work, n, aad_length)
        self._crypt(work, n)
        ghash = self._ghash
        ghash.update(work, aad_length, BLOCK if aad_length else 0, work, AT_TEXT, n)
        encrypt_block(self._aes, work, AT_IV, 1, self._stream)
        ghash.xor(work, AT_TEXT + n, self._stream)

    def open_in_place(self, work: bytearray, n: int, aad_length: int) -> bool:
        """Decrypt the n bytes at work[28] if the tag behind them is right; else False, and nothing is changed."""
        check_work(work, n, aad_length)
        ghash = self._ghash
        stream = self._stream
        ghash.update(work, aad_length, BLOCK if aad_length else 0, work, AT_TEXT, n)
        encrypt_block(self._aes, work, AT_IV, 1, stream)
        ghash.xor(stream, 0, stream)
        end = AT_TEXT + n
        difference = 0
        at = 0
        while at < TAG_LENGTH:
            difference |= stream[at] ^ work[end + at]
            at += 1
        if difference:
            return False
        self._crypt(work, n)
        return True

    def wipe(self) -> None:
        """Destroy round keys and tables."""
        super().wipe()
        for at in range(BLOCK):
            self._stream[at] = 0

    def _crypt(self, work: bytearray, n: int) -> None:
        """The text xor the key stream, from counter 2 on."""
        stream = self._stream
        counter = 2
        at = AT_TEXT
        end = at + n
        while at < end:
            encrypt_block(self._aes, work, AT_IV, counter, stream)
            counter += 1
            size = BLOCK if at + BLOCK < end else end - at
            place = 0
            while place < size:
                work[at] ^= stream[place]
                place += 1
                at += 1
