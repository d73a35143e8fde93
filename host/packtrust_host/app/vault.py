"""The file format of the host key store: a sealed content and the locks that give its key (docs/keys.md).

    magic (16) | schema (u16) | machine (32) | count (u8) | locks | check (8) | nonce (12) | ciphertext | tag (16)

    lock = kind (u8) | length (u16) | body

The content is sealed with AES-256-GCM (NIST SP 800-38D) under HKDF-SHA256 (RFC 5869) of a random data key, salted with
the hash of the machine's id; everything before the ciphertext is its AAD. Each lock gives the data key to who can open
it, and any one of them will do. `check` is the start of SHA-256 over what is before it: it tells a damaged head from a
wrong passphrase, and is no protection.

Schema 1 had no locks and no check: the data key was always the file `key` beside it. It is still read.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from packtrust.crypto import wipe

SCHEMA = 2
MAGIC = b"packtrust keys\0\0"
KEY_LENGTH = 32

# Kinds of locks.
KEY_FILE = 0  # the data key is the file `key` in the same directory; body empty
PASSPHRASE = 1  # kdf (u8), log2 N (u8), r (u8), p (u8), salt (32), nonce (12), data key sealed (48)
KEYRING = 2  # name of the entry (16), nonce (12), data key sealed (48)

SCRYPT = 1
# RFC 7914; N = 2^17, r = 8 are 128 MiB and some tenths of a second.
LOG2_N = 17
BLOCK_SIZE = 8
PARALLEL = 1
# What a file may ask of us: it is not authentic before it is open.
_MEMORY_MAX = 1 << 30
_PARALLEL_MAX = 16

_HEAD = struct.Struct(">16sH32s")
_LOCK = struct.Struct(">BH")
_PASSPHRASE_BODY = struct.Struct(">BBBB32s12s48s")
_KEYRING_BODY = struct.Struct(">16s12s48s")
_CHECK = 8
_NONCE = 12
_TAG = 16
_INFO = b"packtrust v1 host key store"
_LOCK_AAD = b"packtrust v1 host key store lock\0"

Urandom = Callable[[int], bytes]


class Damaged(Exception):
    """These bytes are no key store, or not as they were written."""


class UnknownSchema(Exception):
    """Written by a newer version: `args[0]` is its schema."""


@dataclass(frozen=True)
class Lock:
    """One way to the data key. `body` holds nothing secret."""

    kind: int
    body: bytes = b""


@dataclass(frozen=True)
class Head:
    """What a store says before it is opened."""

    schema: int
    machine_hash: bytes
    locks: tuple[Lock, ...]

    def lock(self, kind: int) -> Lock | None:
        """The first lock of a kind."""
        for lock in self.locks:
            if lock.kind == kind:
                return lock
        return None


@dataclass(frozen=True)
class Sealed:
    """A store as it lies on disk."""

    head: Head
    aad: bytes
    nonce: bytes
    ciphertext: bytes


def parse(content: bytes) -> Sealed:
    """Take a file apart. Raises Damaged and UnknownSchema."""
    if len(content) < _HEAD.size:
        raise Damaged
    magic, schema, machine_hash = _HEAD.unpack_from(content)
    if magic != MAGIC:
        raise Damaged
    if schema > SCHEMA:
        raise UnknownSchema(schema)
    if schema == 1:
        locks: tuple[Lock, ...] = (Lock(KEY_FILE),)
        at = _HEAD.size
    elif schema == 2:
        locks, at = _parse_locks(content, _HEAD.size)
        if hashlib.sha256(content[:at]).digest()[:_CHECK] != content[at : at + _CHECK]:
            raise Damaged
        at += _CHECK
    else:
        raise Damaged
    end = at + _NONCE
    if len(content) < end + _TAG:
        raise Damaged
    return Sealed(Head(schema, machine_hash, locks), content[:end], content[at:end], content[end:])


def _parse_locks(content: bytes, at: int) -> tuple[tuple[Lock, ...], int]:
    if at >= len(content):
        raise Damaged
    locks = []
    count = content[at]
    at += 1
    for _ in range(count):
        if at + _LOCK.size > len(content):
            raise Damaged
        kind, length = _LOCK.unpack_from(content, at)
        at += _LOCK.size
        if at + length > len(content):
            raise Damaged
        locks.append(Lock(kind, content[at : at + length]))
        at += length
    return tuple(locks), at


def _cipher(key: bytearray, machine_hash: bytes) -> AESGCM:
    return AESGCM(HKDF(hashes.SHA256(), KEY_LENGTH, machine_hash, _INFO).derive(key))


def seal(locks: Sequence[Lock], machine_hash: bytes, key: bytearray, content: bytearray, urandom: Urandom) -> bytes:
    """The file for a content under a data key that the locks give."""
    head = bytearray(_HEAD.pack(MAGIC, SCHEMA, machine_hash))
    head.append(len(locks))
    for lock in locks:
        head += _LOCK.pack(lock.kind, len(lock.body)) + lock.body
    head += hashlib.sha256(head).digest()[:_CHECK]
    nonce = urandom(_NONCE)
    aad = bytes(head) + nonce
    return aad + _cipher(key, machine_hash).encrypt(nonce, content, aad)


def unseal(sealed: Sealed, key: bytearray) -> bytes:
    """The content. Raises Damaged."""
    try:
        return _cipher(key, sealed.head.machine_hash).decrypt(sealed.nonce, sealed.ciphertext, sealed.aad)
    except InvalidTag:
        raise Damaged from None


# -- locks -------------------------------------------------------------------------------------------------------------


def _stretch(passphrase: bytearray, salt: bytes, log2_n: int, block_size: int, parallel: int) -> bytearray:
    return bytearray(Scrypt(salt, KEY_LENGTH, 1 << log2_n, block_size, parallel).derive(passphrase))


def passphrase_lock(passphrase: bytearray, key: bytearray, urandom: Urandom, log2_n: int = LOG2_N) -> Lock:
    """A lock that this passphrase opens."""
    salt = urandom(32)
    nonce = urandom(_NONCE)
    head = struct.pack(">BBBB32s", SCRYPT, log2_n, BLOCK_SIZE, PARALLEL, salt)
    wrapping = _stretch(passphrase, salt, log2_n, BLOCK_SIZE, PARALLEL)
    try:
        sealed = AESGCM(wrapping).encrypt(nonce, key, _LOCK_AAD + bytes((PASSPHRASE,)) + head)
    finally:
        wipe(wrapping)
    return Lock(PASSPHRASE, head + nonce + sealed)


def open_passphrase_lock(lock: Lock, passphrase: bytearray) -> bytearray | None:
    """The data key; None for a wrong passphrase. Raises Damaged."""
    try:
        kdf, log2_n, block_size, parallel, salt, nonce, sealed = _PASSPHRASE_BODY.unpack(lock.body)
    except struct.error:
        raise Damaged from None
    if kdf != SCRYPT or not 1 <= log2_n <= 30 or not 1 <= parallel <= _PARALLEL_MAX:
        raise Damaged
    if not block_size >= 1 or 128 * block_size << log2_n > _MEMORY_MAX:
        raise Damaged
    wrapping = _stretch(passphrase, salt, log2_n, block_size, parallel)
    try:
        return _unwrap(wrapping, nonce, sealed, _LOCK_AAD + bytes((PASSPHRASE,)) + lock.body[:36])
    finally:
        wipe(wrapping)


def keyring_lock(name: bytes, wrapping: bytearray, key: bytearray, urandom: Urandom) -> Lock:
    """A lock that the keyring's entry `name` (16 bytes) with the key `wrapping` opens."""
    nonce = urandom(_NONCE)
    sealed = AESGCM(wrapping).encrypt(nonce, key, _LOCK_AAD + bytes((KEYRING,)) + name)
    return Lock(KEYRING, name + nonce + sealed)


def keyring_name(lock: Lock) -> bytes:
    """Name of the keyring's entry. Raises Damaged."""
    if len(lock.body) != _KEYRING_BODY.size:
        raise Damaged
    return lock.body[:16]


def open_keyring_lock(lock: Lock, wrapping: bytearray) -> bytearray | None:
    """The data key; None if the entry holds another key. Raises Damaged."""
    name, nonce, sealed = _KEYRING_BODY.unpack(lock.body)
    return _unwrap(wrapping, nonce, sealed, _LOCK_AAD + bytes((KEYRING,)) + name)


def _unwrap(wrapping: bytearray, nonce: bytes, sealed: bytes, aad: bytes) -> bytearray | None:
    try:
        return bytearray(AESGCM(wrapping).decrypt(nonce, sealed, aad))
    except InvalidTag:
        return None
