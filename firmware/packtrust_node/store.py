"""Durable records that survive a power cut at any byte: the old state or the new one, never anything else.

Each record has two slots, `name.a` and `name.b`. A write goes to the slot that does not hold the newest good copy, so
what is read back is either that copy or the complete new one. A slot of format 2 (docs/storage.md) is

    "pt" || format (u8) || ciphertext length (u16) || sequence (u32) || nonce (12) || AES-256-GCM ciphertext || tag (16)

with AAD = everything before the nonce || name. A torn slot is known by its length, anything else that is not ours by
its tag (NIST SP 800-38D; nonces are random, 8.2.2). Format 1 had only the sequence in front of the nonce: it is read,
and gives way when its record is next written. The key comes from a file of random bytes made once and the node's
unique ID; it keeps a copied flash chip from being read without that file, no more than that.
"""

from os import listdir, mkdir, remove, stat
from struct import pack, unpack_from

from packtrust._compat import const
from packtrust.crypto import AESGCM, hkdf, sha256, wipe
from packtrust.errors import InvalidTag, StorageError

FORMAT = const(2)
# What `Store.on_evidence` is told: no power cut and no fault of the firmware leaves such a store.
NOT_AUTHENTIC = "store-auth"  # a complete copy of a record that is not ours
LOST = "store-lost"  # both copies of a record are torn, or the key file is gone

_MAGIC = b"pt"
_HEAD = ">2sBHI"
_HEAD_LENGTH = const(9)
_HEAD_LENGTH_1 = const(4)
_NONCE = const(12)
_TAG = const(16)
# In a work buffer of `AESGCM.seal_in_place`; what is in front of the nonce holds the associated data of short names.
_AT_NONCE = const(16)
_AT_TEXT = const(28)
_LEAD = const(7)  # in front of what is read, so that the nonce of format 2 is at _AT_NONCE
_KEY_FILE = "store.key"
_ERASING = "store.erasing"
_KEY_LENGTH = const(32)
_CHECK_LENGTH = const(8)
_NAME = b"abcdefghijklmnopqrstuvwxyz0123456789-"
_TORN = const(-1)
_FORGED = const(-2)


class MemorySlots:
    """Slots in RAM, for a node inside a simulation: they live as long as this object."""

    def __init__(self) -> None:
        self.files = {}

    def names(self) -> "list[str]":
        """Names of all slots."""
        return list(self.files)

    def read(self, name: str, lead: int = 0) -> "bytes | bytearray | None":
        """Contents of a slot, behind `lead` zero bytes in a bytearray if any are asked for; None if there is no such
        slot.
        """
        data = self.files.get(name)
        return bytearray(lead) + data if lead and data is not None else data

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

    def read(self, name: str, lead: int = 0) -> "bytearray | None":
        """Contents of a slot behind `lead` zero bytes, None if there is no such slot."""
        try:
            # Of the size it has: reading on and on takes up to twice the room.
            data = bytearray(lead + stat(self._path(name))[6])
            with open(self._path(name), "rb") as file:
                end = lead + file.readinto(memoryview(data)[lead:])
                return data if end == len(data) else data[:end]
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

    slots       MemorySlots, FileSlots, flash_slots.FlashSlots, or anything with their methods.
    urandom     random bytes, for the key file and nonces.
    unique_id   the node's u32.

    on_evidence   called with NOT_AUTHENTIC or LOST when a read meets what a power cut does not explain; None drops it
    shares        packtrust.workspace.Workspace: the store's key is one of those it keeps ready, for each takes a small
                  board a kilobyte and a half; None: it is one more
    written       how often each kind of record (its name up to a `-`) was written or removed since this boot

    Names have lower-case letters, digits and `-`. Raises StorageError when the flash refuses a write, when no copy of
    a record is good though one was written in full, when newer firmware wrote it, or when the key file is gone while
    records are left. Nothing is ever deleted because it cannot be read: that takes `remove` or `erase`.
    """

    def __init__(self, slots, urandom, unique_id: int) -> None:
        self._slots = slots
        self._urandom = urandom
        self._unique_id = unique_id
        self._aead = None
        self.on_evidence = None
        self.shares = None
        self._left = False  # the key has made room for another one since `rest`
        self.written = {}

    def _evidence(self, what: str) -> None:
        if self.on_evidence is not None:
            self.on_evidence(what)

    def _open_key(self, make: bool):
        """The AEAD of all records; None if there is no key yet and `make` is False."""
        if self._aead is not None:
            return self._aead
        if self._slots.read(_ERASING) is not None:
            self.erase()  # a power cut came in between
        raw = self._slots.read(_KEY_FILE)
        if raw is None or len(raw) != _KEY_LENGTH + _CHECK_LENGTH or _check(raw[:_KEY_LENGTH]) != raw[_KEY_LENGTH:]:
            if self._any_record():
                if raw is not None and raw[:2] == _MAGIC and len(raw) > 2 and raw[2] > FORMAT:
                    raise newer_error("the store", raw[2])
                self._evidence(LOST)
                raise StorageError("the store's key file is damaged but records are left: reset the node")
            if not make:
                return None
            # No record yet, so a half-written file is what a power cut at first boot left.
            seed = bytearray(self._urandom(_KEY_LENGTH))
            raw = bytes(seed) + _check(seed)
            self._put(_KEY_FILE, raw)
            wipe(seed)
        key = bytearray(hkdf(raw[:_KEY_LENGTH], pack(">I", self._unique_id), b"packtrust v1 store", 32))
        if self.shares is not None:
            self.shares.make_room()
        self._aead = AESGCM(key)
        wipe(key)
        if self.shares is not None:
            self.shares.admit(self)
        return self._aead

    recent = False  # for `shares`: of all keys that are ready this one goes first

    def leave(self) -> None:
        """Another key takes the place of this one."""
        self._aead.wipe()
        self._aead = None
        self._left = True

    def rest(self) -> bool:
        """Nothing is read or written just now: the key's schedule and tables give their memory back. True if there were
        any: what the key was derived from may still lie in the heap.
        """
        if self._aead is not None:
            if self.shares is not None:
                self.shares.dismiss(self)
            self.leave()
        left = self._left
        self._left = False
        return left

    def _any_record(self) -> bool:
        for name in self._slots.names():
            if name not in (_KEY_FILE, _ERASING):
                return True
        return False

    def _put(self, name: str, data: bytes) -> None:
        try:
            self._slots.write(name, data)
        except OSError as error:
            raise StorageError("cannot write %s (error %s): free or replace the flash" % (name, error.args[0]))

    def _take(self, slot: str, shred: bool = False) -> None:
        try:
            if shred and hasattr(self._slots, "shred"):
                self._slots.shred(slot)
            else:
                self._slots.remove(slot)
        except OSError as error:
            raise StorageError("cannot delete %s (error %s): replace the flash" % (slot, error.args[0]))

    def _count(self, name: str) -> None:
        kind = name.split("-")[0]
        self.written[kind] = self.written.get(kind, 0) + 1

    def _load(self, name: str, slot: str, aead) -> "tuple[int, bytes] | None":
        """Sequence and plaintext of a slot; sequence _TORN or _FORGED if it is no good; None if it is not there."""
        # Read to where it is opened: a record may be a kilobyte, and a board has no room for many of them.
        raw = self._slots.read(slot, _LEAD)
        if raw is None:
            return None
        size = len(raw) - _LEAD
        head = _HEAD_LENGTH_1
        bad = _TORN
        if raw[_LEAD : _LEAD + 2] == _MAGIC:
            head = _HEAD_LENGTH
            if size >= 3 and raw[_LEAD + 2] > FORMAT:
                raise newer_error("record %s" % name, raw[_LEAD + 2])
            if size < head or size - head - _NONCE - _TAG != unpack_from(">H", raw, _LEAD + 3)[0]:
                return _TORN, b""
            bad = _FORGED
        if size < head + _NONCE + _TAG:
            return _TORN, b""
        at = _LEAD + head
        aad = raw[_LEAD:at] + name.encode()
        sequence = unpack_from(">I", raw, at - 4)[0]
        try:
            if len(aad) > _AT_NONCE:
                plain = aead.decrypt(raw[at : at + _NONCE], memoryview(raw)[at + _NONCE :], aad)
            else:
                if at != _AT_NONCE:  # of format 1
                    raw[_LEAD:at] = bytes(_AT_NONCE - _LEAD)
                plain = _opened(aead, raw, aad)
        except InvalidTag:
            return bad, b""
        return sequence, plain

    def _newest(self, name: str, wanted: bool = False) -> "tuple[int, int, bytes | None, int]":
        """Index of the newest good slot (-1: none), its sequence, its plaintext (None unless wanted), and what is
        wrong: 0, LOST as _TORN, _FORGED if a complete copy is not ours."""
        aead = self._open_key(False)
        if aead is None:
            return -1, 0, None, 0
        best = -1
        sequence = 0
        plain = None
        torn = 0
        wrong = 0
        for index in range(2):
            found = self._load(name, name + _SLOTS[index], aead)
            if found is None:
                continue
            if found[0] == _FORGED:
                wrong = _FORGED
            elif found[0] == _TORN:
                torn += 1
            elif best < 0 or found[0] > sequence:
                best = index
                sequence = found[0]
                if wanted:
                    plain = found[1]
            found = None
        if torn == 2:
            # No power cut does this: the second slot is only ever written while the first one is good.
            wrong = _TORN
        return best, sequence, plain, wrong

    def read(self, name: str) -> "bytearray | None":
        """The record, or None if there is none. StorageError if it was there and no copy of it is good."""
        _check_name(name)
        best, _, plain, wrong = self._newest(name, True)
        if wrong:
            self._evidence(NOT_AUTHENTIC if wrong == _FORGED else LOST)
            if best < 0:
                raise StorageError("no copy of record %s is good: reset the node and claim it again" % name)
        if best < 0 or isinstance(plain, bytearray):
            return plain
        return bytearray(plain)

    def write(self, name: str, data: "bytes | bytearray | memoryview", purge: bool = False) -> None:
        """Replace the record as one transaction: after a power cut it is the old one or the new one.

        purge   then delete the copy of the old one too, for what it says is to be forgotten.
        """
        _check_name(name)
        aead = self._open_key(True)
        best, sequence, _, _ = self._newest(name)
        head = pack(_HEAD, _MAGIC, FORMAT, len(data), sequence + 1)
        nonce = bytes(self._urandom(_NONCE))
        # Of a short name, as the audit log's, whose record is the longest: without a copy.
        aad = head + name.encode()
        if len(aad) > _AT_NONCE:
            sealed = b"".join((head, nonce, aead.encrypt(nonce, data, aad)))
        else:
            sealed = _sealed(aead, nonce, data, aad)
        self._count(name)
        self._put(name + _SLOTS[1 if best == 0 else 0], sealed)
        sealed = b""  # `purge` reads it back
        if purge:
            self.purge(name)

    def purge(self, name: str) -> None:
        """Delete the older copy of a record, if it has one; no effect unless the newer one is good."""
        best = self._newest(name)[0]
        older = name + _SLOTS[1 if best == 0 else 0]
        if best >= 0 and self._slots.read(older) is not None:
            self._count(name)
            self._take(older, True)

    def remove(self, name: str) -> None:
        """Delete the record; no effect if there is none."""
        _check_name(name)
        try:
            best = self._newest(name)[0]
        except StorageError:
            best = -1  # of newer firmware: whoever deletes it means it
        # The older copy first, or a power cut in between would bring it back to life.
        self._count(name)
        for index in (1, 0) if best <= 0 else (0, 1):
            self._take(name + _SLOTS[index])

    def names(self) -> "list[str]":
        """Names of the records, sorted, be they good or not."""
        self._open_key(False)
        found = set()
        for slot in self._slots.names():
            if slot != _KEY_FILE and slot[-2:] in _SLOTS:
                found.add(slot[:-2])
        return sorted(found)

    def erase(self) -> None:
        """Delete everything, as one transaction; a factory reset, also of a damaged store."""
        self.rest()
        erase = getattr(self._slots, "erase", None)
        if erase is not None:
            erase()
            return
        # From here on it is finished at the next boot, whatever happens.
        self._put(_ERASING, b"")
        for slot in self._slots.names():
            if slot != _ERASING:
                self._take(slot)
        self._take(_ERASING)


_SLOTS = (".a", ".b")


def _opened(aead, work: bytearray, aad: "bytes | bytearray") -> bytearray:
    """The plaintext in a slot's contents, which begin so that the nonce is at _AT_NONCE, opened where they are.
    InvalidTag if they are not authentic."""
    work[: len(aad)] = aad
    size = len(work) - _AT_TEXT - _TAG
    if not aead.open_in_place(work, size, len(aad)):
        raise InvalidTag("this copy of the record is not ours")
    work[:size] = memoryview(work)[_AT_TEXT : _AT_TEXT + size]
    work[size:] = bytes(len(work) - size)
    work[size:] = b""
    return work


def _sealed(aead, nonce: bytes, data: "bytes | bytearray | memoryview", aad: bytes) -> memoryview:
    """A slot's contents, sealed in their only copy; the head is the beginning of `aad`."""
    work = bytearray(_AT_TEXT + len(data) + _TAG)
    work[: len(aad)] = aad
    work[_AT_NONCE:_AT_TEXT] = nonce
    work[_AT_TEXT : _AT_TEXT + len(data)] = data
    aead.seal_in_place(work, len(data), len(aad))
    work[_AT_NONCE - _HEAD_LENGTH : _AT_NONCE] = aad[:_HEAD_LENGTH]
    return memoryview(work)[_AT_NONCE - _HEAD_LENGTH :]


def newer_error(what: str, version: int) -> StorageError:
    """The error for what newer firmware has written: it is kept, not understood."""
    return StorageError(
        "%s is of version %d, written by newer firmware: install that again, or reset the node and claim it"
        % (what, version)
    )


def _check(key: "bytes | bytearray") -> bytes:
    return sha256(b"packtrust store key" + bytes(key))[:_CHECK_LENGTH]


def _check_name(name: str) -> None:
    # Not letter by letter of the text: MicroPython interns each, and keeps it for ever.
    for letter in name.encode():
        if letter not in _NAME:
            raise ValueError("record names have lower-case letters, digits and '-': not %r" % name)
    if not name:
        raise ValueError("a record needs a name")
