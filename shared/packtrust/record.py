"""Sealed records: IV(12) || ciphertext || tag(16) under AES-256-GCM (docs/wire.md, section 3).

NIST SP 800-38D: 96-bit IV built deterministically (8.2.1), fixed field = 4-byte base of direction and
session, invocation field = 64-bit counter; tag 128 bits.
"""

from struct import pack_into, unpack_from

from packtrust._compat import const
from packtrust.crypto import AESGCM, InvalidTag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer

VERSION = const(1)
IV_LENGTH = const(12)
TAG_LENGTH = const(16)
OVERHEAD = const(28)
IV_BASE_LENGTH = const(4)
AAD_LENGTH = const(12)
# Room of the AAD before a record in a work buffer: a whole block.
AAD_ROOM = const(16)


def iv_base_of(record: "Buffer") -> bytes:
    """The 4 bytes that name the session a record belongs to."""
    return bytes(record[:IV_BASE_LENGTH])


def counter_of(record: "Buffer") -> int:
    """The 64-bit counter of a record of at least 12 bytes."""
    high, low = unpack_from(">II", record, IV_BASE_LENGTH)
    return int(high << 32 | low) if high else int(low)


class RecordCipher:
    """Seals or opens the records of one direction of one session.

    `key` 32 bytes, `iv_base` 4 bytes, `direction` 0 (initiator sends) or 1, `sender` the first 4 bytes of the
    sender's fingerprint.
    """

    def __init__(
        self, key: "Buffer", iv_base: "Buffer", direction: int, sender: "Buffer", backend: "str | None" = None
    ) -> None:
        self._aead = AESGCM(key, backend)
        self.iv_base = bytes(iv_base)
        self._iv = bytearray(IV_LENGTH)
        self._iv[:IV_BASE_LENGTH] = iv_base
        self._aad = bytearray(AAD_LENGTH)
        self._aad[0] = VERSION
        self._aad[5] = direction
        self._aad[6:10] = sender

    def _bind(self, canonical_id: int, plaintext_length: int) -> bytearray:
        pack_into(">I", self._aad, 1, canonical_id)
        pack_into(">H", self._aad, 10, plaintext_length)
        return self._aad

    def seal(self, canonical_id: int, counter: int, plaintext: "Buffer") -> bytes:
        """The record of `plaintext`. The caller never gives one counter twice."""
        iv = self._iv
        pack_into(">II", iv, IV_BASE_LENGTH, counter >> 32, counter & 0xFFFFFFFF)
        return bytes(iv) + self._aead.encrypt(bytes(iv), plaintext, self._bind(canonical_id, len(plaintext)))

    def open(self, canonical_id: int, record: "Buffer") -> "bytes | None":
        """The plaintext, or None if the tag does not verify or the record is too short."""
        if len(record) < OVERHEAD:
            return None
        aad = self._bind(canonical_id, len(record) - OVERHEAD)
        try:
            return self._aead.decrypt(bytes(record[:IV_LENGTH]), record[IV_LENGTH:], aad)
        except InvalidTag:
            return None

    def wipe(self) -> None:
        """Destroy the key schedule and tables."""
        self._aead.wipe()
