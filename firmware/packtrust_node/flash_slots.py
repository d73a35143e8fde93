"""Slots in raw flash, for a board without a file system: a log in banks of erase blocks, power-cut safe.

The area is cut into banks of one or more erase blocks; one bank is current. A write appends an entry to it. When it is
full, what is still in force is copied to the next bank, the new entry after it, and the bank's header last: with the
header the new bank is current, without it the old one still is. Then the old one is erased, so that what was deleted
is gone from the chip. Banks are used in turn: all blocks wear alike.

    bank    "ptfl" || format (u8) || word (u8) || banks (u8) || 0 || generation (u32) || check (8), filled up to a word
    entry   "e" || kind (u8: 1 record, 0 removed) || name length (u8) || 0 || data length (u16) || 0 0 || check (8)
            || name || data, filled up to a word
    check   first 8 bytes of SHA-256 of what stands before it, and of name and data

The current bank is the one with the highest generation whose header is good. Every word of flash is programmed once
between two erasures (STM32 flash with ECC), always upwards. An entry a power cut has torn is known by its check, or by
flash after the last entry that is not erased: the bank then takes no more entries, and the next write moves on.

Nothing is kept in RAM but where the log ends; a name is looked for from the front.
"""

from struct import pack_into, unpack_from

from packtrust._compat import const, sha256
from packtrust.errors import StorageError
from packtrust_node.store import newer_error

_ERASE = const(6)
_BLOCK_SIZE = const(5)
_BLOCK_COUNT = const(4)
_SYNC = const(3)
_FORMAT = const(1)
_MAGIC = b"ptfl"
_BANK = ">4sBBBBI"
_ENTRY = ">sBBBHH"
_ENTRY_LENGTH = const(16)
_BANK_LENGTH = const(20)
_CHECK = const(8)
_CHUNK = const(64)
_BLANK = b"\xff" * 64
_NO_ROOM = const(28)  # ENOSPC
_WORN = const(5)  # EIO


class FlashSlots:
    """Slots of a `store.Store` on a MicroPython block device with the extended interface.

    device   readblocks(block, buffer, offset), writeblocks(block, buffer, offset), which programs erased flash, and
             ioctl(3 sync, 4 block count, 5 block size, 6 erase); see MicroPython's `vfs.AbstractBlockDev`
    first    number of the area's first block;  blocks  how many there are, None: all that follow
    banks    2 or more; a bank must hold all records twice and some more (docs/storage.md)
    word     bytes the flash programs at once, a power of two up to 32; each is programmed once

    Raises StorageError for an area that newer firmware has written, ValueError for one that is too small. `write`
    raises OSError when there is no room, or flash does not keep what it was given.
    """

    def __init__(self, device, first: int = 0, blocks: "int | None" = None, banks: int = 2, word: int = 8) -> None:
        self._device = device
        self._size = device.ioctl(_BLOCK_SIZE, 0)
        if blocks is None:
            blocks = device.ioctl(_BLOCK_COUNT, 0) - first
        self._first = first
        self._banks = banks
        self._blocks = blocks // banks
        self._word = word
        self._length = self._blocks * self._size
        if banks < 2 or self._length < 256:
            raise ValueError("a store in flash needs two banks of a block or more each: give it more blocks")
        self._head = bytearray(_ENTRY_LENGTH)
        self._chunk = bytearray(_CHUNK)
        self._bank = -1  # the current one; -1: none
        self._generation = 0
        self._end = 0
        self._full = True  # no entry may be appended
        self.erased = 0  # blocks, since this was made
        self._mount()

    # -- flash ---------------------------------------------------------------------------------------------------------

    def _up(self, size: int) -> int:
        """`size` filled up to a word."""
        return (size + self._word - 1) & -self._word

    def _read(self, bank: int, at: int, buffer) -> None:
        self._by_blocks(self._device.readblocks, bank, at, buffer)

    def _program(self, bank: int, at: int, data) -> None:
        self._by_blocks(self._device.writeblocks, bank, at, data)

    def _by_blocks(self, transfer, bank: int, at: int, data) -> None:
        view = memoryview(data)
        done = 0
        while done < len(view):
            block, offset = divmod(at + done, self._size)
            count = min(len(view) - done, self._size - offset)
            transfer(self._first + bank * self._blocks + block, view[done : done + count], offset)
            done += count

    def _sync(self) -> None:
        self._device.ioctl(_SYNC, 0)

    def _erase(self, bank: int) -> None:
        """Erase a bank, unless it is."""
        if self._is_erased(bank, 0):
            return
        for block in range(self._blocks):
            self._device.ioctl(_ERASE, self._first + bank * self._blocks + block)
            self.erased += 1
        self._sync()

    def _is_erased(self, bank: int, at: int) -> bool:
        while at < self._length:
            size = min(_CHUNK, self._length - at)
            view = memoryview(self._chunk)[:size]
            self._read(bank, at, view)
            if view != (_BLANK if size == _CHUNK else _BLANK[:size]):
                return False
            at += size
        return True

    # -- banks and entries ---------------------------------------------------------------------------------------------

    def _generation_of(self, bank: int) -> int:
        """The generation of a bank, 0 if it has no good header."""
        head = bytearray(_BANK_LENGTH)
        self._read(bank, 0, head)
        if head[:4] != _MAGIC or sha256(head[:12]).digest()[:_CHECK] != head[12:]:
            return 0
        if head[4] > _FORMAT:
            raise newer_error("the store in flash", head[4])
        if head[5] != self._word or head[6] != self._banks:
            raise StorageError("the store in flash has banks or words of another size: give the board its old settings")
        return unpack_from(">I", head, 8)[0]

    def _mount(self) -> None:
        self._bank = -1
        self._generation = 0
        for bank in range(self._banks):
            generation = self._generation_of(bank)
            if generation > self._generation:
                self._bank = bank
                self._generation = generation
        self._full = True
        self._end = 0
        if self._bank < 0:
            return
        self._erase_others()  # a power cut came in between
        at = self._up(_BANK_LENGTH)
        while True:
            size = self._good_entry(self._bank, at)
            if not size:
                break
            at += size
        self._end = at
        self._full = not self._is_erased(self._bank, at)

    def _erase_others(self) -> None:
        for bank in range(self._banks):
            if bank != self._bank:
                self._erase(bank)

    def _good_entry(self, bank: int, at: int) -> int:
        """Bytes of the entry there, with filling; 0 if there is none, or a torn one."""
        head = self._head
        if at + _ENTRY_LENGTH > self._length:
            return 0
        self._read(bank, at, head)
        if head[0] != 0x65:
            return 0
        size = _ENTRY_LENGTH + head[2] + unpack_from(">H", head, 4)[0]
        if at + size > self._length:
            return 0
        digest = sha256(head[:_CHECK])
        done = _ENTRY_LENGTH
        while done < size:
            view = memoryview(self._chunk)[: min(_CHUNK, size - done)]
            self._read(bank, at + done, view)
            digest.update(view)
            done += len(view)
        return self._up(size) if digest.digest()[:_CHECK] == head[_CHECK:] else 0

    def _entry(self, at: int) -> "tuple[int, int, int, int]":
        """Kind, name length, data length and whole size of a good entry of the current bank."""
        head = self._head
        self._read(self._bank, at, head)
        length = unpack_from(">H", head, 4)[0]
        return head[1], head[2], length, self._up(_ENTRY_LENGTH + head[2] + length)

    def _name(self, at: int, length: int) -> bytes:
        name = bytearray(length)
        self._read(self._bank, at + _ENTRY_LENGTH, name)
        return bytes(name)

    def _find(self, wanted: bytes, at: int) -> int:
        """Where the last entry of that name is, from `at` on; -1 if there is none."""
        found = -1
        while at < self._end:
            _, name_length, _, size = self._entry(at)
            if name_length == len(wanted) and self._name(at, name_length) == wanted:
                found = at
            at += size
        return found

    def _in_force(self, at: int, kind: int, name_length: int, size: int) -> bool:
        return bool(kind) and self._find(self._name(at, name_length), at + size) < 0

    def _new_entry(self, kind: int, name: bytes, data) -> bytearray:
        entry = bytearray(b"\xff" * self._up(_ENTRY_LENGTH + len(name) + len(data)))
        pack_into(_ENTRY, entry, 0, b"e", kind, len(name), 0, len(data), 0)
        entry[_ENTRY_LENGTH : _ENTRY_LENGTH + len(name)] = name
        entry[_ENTRY_LENGTH + len(name) : _ENTRY_LENGTH + len(name) + len(data)] = data
        digest = sha256(entry[:_CHECK])
        digest.update(name)
        digest.update(data)
        entry[_CHECK:_ENTRY_LENGTH] = digest.digest()[:_CHECK]
        return entry

    def _append(self, entry: bytearray) -> bool:
        if self._full or self._end + len(entry) > self._length:
            return False
        self._full = True  # until it is known to be good
        self._program(self._bank, self._end, entry)
        self._sync()
        if self._good_entry(self._bank, self._end) != len(entry):
            return False
        self._end += len(entry)
        self._full = False
        return True

    def _move(self, replaced: bytes, entry: "bytes | bytearray") -> None:
        """Go on in the next bank with what is in force, but for `replaced`, and `entry`. OSError if that fails."""
        bank = (self._bank + 1) % self._banks
        self._erase_others()
        to = self._up(_BANK_LENGTH)
        at = to
        while self._bank >= 0 and at < self._end:
            kind, name_length, _, size = self._entry(at)
            if self._name(at, name_length) != replaced and self._in_force(at, kind, name_length, size):
                if to + size > self._length:
                    raise OSError(_NO_ROOM)
                self._copy(at, bank, to, size)
                to += size
            at += size
        if to + len(entry) > self._length:
            raise OSError(_NO_ROOM)
        self._program(bank, to, entry)
        self._sync()
        if entry and self._good_entry(bank, to) != len(entry):
            raise OSError(_WORN)
        head = bytearray(b"\xff" * self._up(_BANK_LENGTH))
        pack_into(_BANK, head, 0, _MAGIC, _FORMAT, self._word, self._banks, 0, self._generation + 1)
        head[12:_BANK_LENGTH] = sha256(head[:12]).digest()[:_CHECK]
        self._program(bank, 0, head)
        self._sync()
        if self._generation_of(bank) != self._generation + 1:
            raise OSError(_WORN)
        self._mount()

    def _copy(self, at: int, bank: int, to: int, size: int) -> None:
        done = 0
        while done < size:
            view = memoryview(self._chunk)[: min(_CHUNK, size - done)]
            self._read(self._bank, at + done, view)
            self._program(bank, to + done, view)
            done += len(view)
        if self._good_entry(bank, to) != size:
            raise OSError(_WORN)

    # -- slots ---------------------------------------------------------------------------------------------------------

    def names(self) -> "list[str]":
        """Names of all slots."""
        found = []
        at = self._up(_BANK_LENGTH)
        while at < self._end:
            kind, name_length, _, size = self._entry(at)
            if self._in_force(at, kind, name_length, size):
                found.append(self._name(at, name_length).decode())
            at += size
        return found

    def read(self, name: str, lead: int = 0) -> "bytearray | None":
        """Contents of a slot behind `lead` zero bytes, None if there is no such slot."""
        at = self._find(name.encode(), self._up(_BANK_LENGTH))
        if at < 0:
            return None
        kind, name_length, length, _ = self._entry(at)
        if not kind:
            return None
        data = bytearray(lead + length)
        self._read(self._bank, at + _ENTRY_LENGTH + name_length, memoryview(data)[lead:])
        return data

    def write(self, name: str, data: bytes) -> None:
        """Replace a slot's contents. OSError if there is no room, or flash does not keep it."""
        raw = name.encode()
        entry = self._new_entry(1, raw, data)
        if not self._append(entry):
            self._move(raw, entry)

    def remove(self, name: str) -> None:
        """Delete a slot; no effect if there is none. What it held is in flash until its bank is full, see `shred`."""
        raw = name.encode()
        at = self._find(raw, self._up(_BANK_LENGTH))
        if at >= 0 and self._entry(at)[0] and not self._append(self._new_entry(0, raw, b"")):
            self._move(raw, b"")

    def shred(self, name: str) -> None:
        """Delete a slot, and every trace of it and of what was deleted or replaced before."""
        if self._bank >= 0:
            self._move(name.encode(), b"")

    def erase(self) -> None:
        """Erase the whole area; after a power cut all is there, or nothing can be read and the next write goes on."""
        if self._bank >= 0:
            # Without its header the bank is none; flash with ECC takes zeros in a word that is programmed already.
            self._program(self._bank, 0, bytes(self._up(_BANK_LENGTH)))
            self._sync()
        for bank in range(self._banks):
            self._erase(bank)
        self._mount()
