"""AES by CircuitPython's `aesio`, a block a call: the module's ECB takes 16 bytes."""

import aesio

from packtrust.errors import KeyFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from packtrust._typing import Buffer

_BLOCK = 16


class BlockCipher:
    """AES under one key of 16 or 32 bytes; `encrypt` works in place on whole blocks."""

    def __init__(self, key: "Buffer") -> None:
        if len(key) != 16 and len(key) != 32:
            raise KeyFormatError("an AES key has 16 or 32 bytes, not %d" % len(key))
        self._aes: "Any" = aesio.AES(bytes(key), aesio.MODE_ECB)

    def encrypt(self, blocks: bytearray) -> None:
        """Encrypt each 16-byte block of `blocks` where it stands (ECB)."""
        view = memoryview(blocks)
        for at in range(0, len(blocks), _BLOCK):
            block = view[at : at + _BLOCK]
            self._aes.encrypt_into(block, block)

    def wipe(self) -> None:
        """Drop the key schedule.

        It is out of Python's reach: the collector frees it, nobody overwrites it.
        """
        self._aes = None
