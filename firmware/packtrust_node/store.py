"""Durable records that survive a power cut at any byte: the old state or the new one, never anything else.

Each record has two slots, `name.a` and `name.b`. A write goes to the slot that does not hold the newest good copy, so
what is read back is either that copy or the complete new one. A slot is

    version (u32) || nonce (12) || AES-256-GCM ciphertext || tag (16)        AAD = version (u32) || name

so a torn slot is known by its tag (NIST SP 800-38D; nonces are random, 8.2.2). The key comes from a file of
random bytes made once and the node's unique ID; it keeps a copied flash chip from being read without that file,
no more than that.
"""

from os import listdir, mkdir, remove, stat
from struct import pack, unpack

from packtrust._compat import const
from packtrust.crypto import AESGCM, hkdf, sha256, wipe
from packtrust.errors import InvalidTag, StorageError

_HEAD = const(16)
_TAG = const(16)
_KEY_FILE = "store.key"
_KEY_LENGTH = const(32)
_CHECK_LENGTH = const(8)
_NAME = "abcdefghijklmnopqrstuvwxyz0123456789-"


class MemorySlots:
    """Slots in RAM, for a node inside a simulation: they live as long as this object."""

    def __init__(self) -> None:
        self.files = {}

    def names(self) -> "list[str]":
        """Names of all slots."""
        return list(self.files)

    def read(self, name: str) -> "bytes | None":
        """Contents of a slot, None if there is no such slot."""
        return self.files.get(name)

    def write(self, name: str, data: bytes) -> None:
        """Replace a slot's contents."""
        self.files[name] = bytes(data)

    def remove(self, name: str) -> None:
        """Delete a slot; no effect if there is none."""
        self.files.pop(name, None)


class FileSlots:
    """Slots as files of a directory, made if need be (one level)."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        try:
            stat(directory)
        except OSError:
            mkdir(directory)

    def _path(self, name: str) -> str:
        return self._directory + "/" + name

    def names(self) -> "list[str]":
        """Names of all slots."""
        return listdir(self._directory)

    def read(self, name: str) -> "bytes | None":
        """Contents of a slot, None if there is no such slot."""
        try:
            with open(self._path(name), "rb") as file:
                return file.read()
        except OSError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Replace a slot's contents. OSError if the file system refuses."""
        with open(self._path(name), "wb") as file:
            file.write(data)

    def remove(self, name: str) -> None:
        """Delete a slot; no effect if there is none."""
        try:
            remove(self._path(name))
        except OSError:
            if self.read(name) is not None:
                raise


class Store:
    """Named records over slots.

    slots       MemorySlots, FileSlots, or anything with their methods.
    urandom     random bytes, for the key file and nonces.
    unique_id   the node's u32.

    Names have lower-case letters, digits and `-`. Raises StorageError when the flash refuses a write, when both
    copies of a record are damaged, or when the key file is gone while records are left: the node must then be
    reset.
    """

    def __init__(self, slots, urandom, unique_id: int) -> None:
        self._slots = slots
        self._urandom = urandom
        self._unique_id = unique_id
        self._aead = None

    def _open_key(self, make: bool):
        """The AEAD of all records; None if there is no key yet and `make` is False."""
        if self._aead is not None:
            return self._aead
        raw = self._slots.read(_KEY_FILE)
        if raw is None or len(raw) != _KEY_LENGTH + _CHECK_LENGTH or _check(raw[:_KEY_LENGTH]) != raw[_KEY_LENGTH:]:
            for name in self._slots.names():
                if name != _KEY_FILE:
                    raise StorageError("the store's key file is damaged but records are left: reset the node")
            if not make:
                return None
            # No record yet, so a half-written file is what a power cut at first boot left.
            seed = bytearray(self._urandom(_KEY_LENGTH))
            raw = bytes(seed) + _check(seed)
            self._put(_KEY_FILE, raw)
            wipe(seed)
        key = bytearray(hkdf(raw[:_KEY_LENGTH], pack(">I", self._unique_id), b"packtrust v1 store", 32))
        self._aead = AESGCM(key)
        wipe(key)
        return self._aead

    def _put(self, name: str, data: bytes) -> None:
        try:
            self._slots.write(name, data)
        except OSError as error:
            raise StorageError("cannot write %s (error %s): free or replace the flash" % (name, error.args[0]))

    def _load(self, name: str, slot: str, aead) -> "tuple[int, bytes] | None":
        """Version and plaintext of a slot; version -1 if it is there but not authentic; None if it is not there."""
        raw = self._slots.read(slot)
        if raw is None:
            return None
        if len(raw) < _HEAD + _TAG:
            return -1, b""
        try:
            plain = aead.decrypt(raw[4:_HEAD], raw[_HEAD:], raw[:4] + name.encode())
        except InvalidTag:
            return -1, b""
        return unpack(">I", raw[:4])[0], plain

    def _newest(self, name: str) -> "tuple[int, int, bytes | None, bool]":
        """Index of the newest good slot (-1: none), its version, its plaintext, and whether both are damaged."""
        aead = self._open_key(False)
        if aead is None:
            return -1, 0, None, False
        best = -1
        version = 0
        plain = None
        damaged = 0
        for index in range(2):
            found = self._load(name, name + _SLOTS[index], aead)
            if found is None:
                continue
            if found[0] < 0:
                damaged += 1
            elif best < 0 or found[0] > version:
                best = index
                version = found[0]
                plain = found[1]
        return best, version, plain, damaged == 2

    def read(self, name: str) -> "bytearray | None":
        """The record, or None if there is none. StorageError if both of its copies are damaged."""
        _check_name(name)
        best, _, plain, lost = self._newest(name)
        if lost:
            # No power cut does this: the second slot is only ever written while the first one is good.
            raise StorageError("both copies of record %s are damaged: reset the node and claim it again" % name)
        return None if best < 0 else bytearray(plain)

    def write(self, name: str, data: "bytes | bytearray | memoryview") -> None:
        """Replace the record as one transaction: after a power cut it is the old one or the new one."""
        _check_name(name)
        aead = self._open_key(True)
        best, version, _, _ = self._newest(name)
        head = pack(">I", version + 1)
        nonce = bytes(self._urandom(12))
        sealed = head + nonce + aead.encrypt(nonce, data, head + name.encode())
        self._put(name + _SLOTS[1 if best == 0 else 0], sealed)

    def remove(self, name: str) -> None:
        """Delete the record; no effect if there is none."""
        _check_name(name)
        best = self._newest(name)[0]
        # The older copy first, or a power cut in between would bring it back to life.
        for index in (1, 0) if best <= 0 else (0, 1):
            try:
                self._slots.remove(name + _SLOTS[index])
            except OSError as error:
                raise StorageError("cannot delete %s (error %s): replace the flash" % (name, error.args[0]))

    def names(self) -> "list[str]":
        """Names of the records that can be read, sorted."""
        found = set()
        for slot in self._slots.names():
            if slot != _KEY_FILE and slot[-2:] in _SLOTS:
                found.add(slot[:-2])
        return [name for name in sorted(found) if self._newest(name)[0] >= 0]

    def erase(self) -> None:
        """Delete everything, the key file last; a factory reset, also of a damaged store."""
        for slot in sorted(self._slots.names()):
            if slot != _KEY_FILE:
                self._slots.remove(slot)
        self._slots.remove(_KEY_FILE)
        if self._aead is not None:
            self._aead.wipe()
            self._aead = None


_SLOTS = (".a", ".b")


def _check(key: "bytes | bytearray") -> bytes:
    return sha256(b"packtrust store key" + bytes(key))[:_CHECK_LENGTH]


def _check_name(name: str) -> None:
    for letter in name:
        if letter not in _NAME:
            raise ValueError("record names have lower-case letters, digits and '-': not %r" % name)
    if not name:
        raise ValueError("a record needs a name")
