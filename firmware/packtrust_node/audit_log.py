"""A node's audit log in its store (docs/audit.md): loaded when there is something to write or to read, and only then.

The record `audit` holds the number, chain and key of the next entry, the latched signs and the newest entries; when it
has eight of them they go to `audit-N`, the oldest of which they replace. Every write is one transaction of the store,
and what it replaces is deleted: the key of an entry that is written exists nowhere any more.

A node that nobody owns writes nothing: nobody could check it.
"""

from struct import pack, pack_into, unpack_from

from packtrust import audit, provision
from packtrust._compat import const
from packtrust.crypto import wipe
from packtrust.errors import PacktrustError, StorageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer
    from packtrust_node.node import Node

RECORD = "audit"
PER_BLOCK = const(8)
BLOCKS = const(7)  # beside the one that is being filled: 56 entries are kept at least

_VERSION = const(1)
_HEAD = ">BIIHHB8s"  # version, next number, first under this owner, number of the block, signs, entries in it, owner
_HEAD_LENGTH = const(22)
_KEY_AT = const(22)
_CHAIN_AT = const(54)
_BLOCK_AT = const(86)
_OWNER_LENGTH = const(8)
_PART_MAX = const(800)  # bytes of entries in one answer: a pack relays messages of 1024 bytes


class Log:
    """The record `audit`, read and decoded: use it, `save` it, `wipe` it.

    key is that of the next entry, 32 zero bytes while there is none; raw: the record, whose bytes are the caller's to
    give away. In it everything before _BLOCK_AT is only what it was when it was read; behind it the chain before the
    first entry, and then the entries and their MACs: there is no room for another copy of these.
    """

    def __init__(self, raw: "bytearray | None") -> None:
        self.following = self.start = self.number = self.signs = self.count = 0
        self.owner = bytes(_OWNER_LENGTH)
        self.key = bytearray(32)
        self.chain = bytes(32)
        self.raw = bytearray(_BLOCK_AT + 32)
        if raw is not None:
            if len(raw) < _BLOCK_AT + 32 or raw[0] != _VERSION:
                wipe(raw)
                raise StorageError("the audit record is of no known version: reset the node")
            head = unpack_from(_HEAD, raw, 0)
            self.following, self.start, self.number, self.signs, self.count, self.owner = head[1:]
            self.key = raw[_KEY_AT:_CHAIN_AT]
            self.chain = bytes(raw[_CHAIN_AT:_BLOCK_AT])
            self.raw = raw
            self._forget()

    def _forget(self) -> None:
        """No key in `raw`."""
        self.raw[_KEY_AT:_CHAIN_AT] = bytes(_CHAIN_AT - _KEY_AT)

    @property
    def block(self) -> memoryview:
        """The chain before the first entry, the entries and their MACs."""
        return memoryview(self.raw)[_BLOCK_AT:]

    def wipe(self) -> None:
        """Destroy the key."""
        wipe(self.key)

    def save(self, node: "Node") -> None:
        """Store it, and delete what it replaces. Raises StorageError."""
        raw = self.raw
        head = (_VERSION, self.following, self.start, self.number, self.signs, self.count, bytes(self.owner))
        pack_into(_HEAD, raw, 0, *head)
        raw[_KEY_AT:_CHAIN_AT] = self.key
        raw[_CHAIN_AT:_BLOCK_AT] = self.chain
        try:
            # The older copy has the key of the newest entry.
            node.env.store.write(RECORD, raw, True)
        finally:
            self._forget()
        node.guard.entries = self.following

    def append(self, node: "Node", kind: str, body: "Buffer") -> None:
        """Add an entry; the key of the next one takes the place of its own."""
        if self.count >= PER_BLOCK:
            # The same entries are in the record `audit` until this Log is saved: a power cut in between loses none.
            name = "%s-%d" % (RECORD, self.number)
            node.env.store.remove(name)
            node.env.store.write(name, self.block)
            self.number = (self.number + 1) % BLOCKS
            self.count = 0
            self.raw = bytearray(_BLOCK_AT) + self.chain
        entry = audit.encode_entry(self.following, node.boot_counter, node.env.now_ms() // 1000, kind, body)
        self.chain = audit.link(self.chain, entry)
        # At once: each time it grows it may have to move.
        self.raw.extend(bytes((len(entry),)) + entry + audit.entry_mac(self.key, self.chain))
        self.count += 1
        self.following += 1
        following = audit.next_key(self.key)
        wipe(self.key)
        self.key = following
        node.keys_ended()


def _load(node: "Node") -> Log:
    return Log(node.env.store.read(RECORD))


def _owned(node: "Node") -> "Log | None":
    """The log of the present owner. None without one; StorageError if it cannot be read."""
    identity = node.identity
    if identity is None or not identity.claimed:
        return None
    log = _load(node)
    if any(log.key) and log.owner == identity.owner_fingerprint[:_OWNER_LENGTH]:
        return log
    log.wipe()
    return None


def claim(node: "Node", receipt_key: "Buffer", owner_fingerprint: bytes, counter: int, in_clear: bool) -> None:
    """Begin the log of a new owner, before it is pinned: cut off in between, it is nobody's. Raises StorageError."""
    log = _load(node)
    log.wipe()
    log.key = audit.first_key(receipt_key)
    log.owner = bytes(owner_fingerprint[:_OWNER_LENGTH])
    log.start = log.following
    log.signs = 0
    # The first entry names its own key: an owner whose first receipts were lost knows by it which package it was.
    body = audit.key_event(0, 0, counter, log.key)
    log.append(node, "clear-transfer" if in_clear else "claimed", body)
    log.save(node)
    log.wipe()
    node.guard.clear()


def note(node: "Node", kind: str, link: int, epoch: int, counter: int, key: "Buffer") -> None:
    """Write a key event, at once. Raises StorageError."""
    write(node, [(kind, audit.key_event(link, epoch, counter, key))])


def write(node: "Node", entries: "list[tuple[str, bytes]]", signs: int = -1) -> bool:
    """Append entries as one transaction, and set the latched signs if given. False where nobody owns the node.

    Raises StorageError.
    """
    log = _owned(node)
    if log is None:
        return False
    try:
        for kind, body in entries:
            log.append(node, kind, body)
        if signs >= 0:
            log.signs = signs
        log.save(node)
    finally:
        log.wipe()
    return True


def end(node: "Node", kind: str, counter: int) -> None:
    """The last entry under an owner; the key is destroyed. Raises StorageError."""
    log = _owned(node)
    if log is not None:
        log.append(node, kind, audit.key_event(0, 0, counter))
        log.wipe()
        log.save(node)


def latched(node: "Node") -> "tuple[int, int]":
    """The signs that are latched since the owner cleared them, and the next entry's number. Raises StorageError."""
    log = _owned(node)
    if log is None:
        return 0, 0
    log.wipe()
    return log.signs, log.following


# -- the owner's questions ---------------------------------------------------------------------------------------------


def answer(node: "Node", kind: int, body: bytes) -> "tuple[int, bytes]":
    """(kind, body) of the answer to AUDIT or CLEAR_SIGNS; kind REFUSED with a reason where there is none."""
    key = node.endpoint.owner_key()
    content = provision.check_mac(key, kind, body)
    if content is None:
        return provision.REFUSED, bytes((provision.REFUSED_NOT_OWNER,))
    try:
        log = _owned(node)
        if log is None:
            return provision.REFUSED, bytes((provision.REFUSED_STATE,))
        try:
            if kind == provision.AUDIT and len(content) == 4 + audit.NONCE_LENGTH:
                part = _part(node, log, unpack_from(">I", content, 0)[0])
                if part.first + len(part.entries) == log.following:
                    node.guard.collected()
                return provision.AUDIT_PART, part.encode(log.key, content[4:])
            if kind == provision.CLEAR_SIGNS and content == pack(">I", log.following):
                return provision.SIGNS_CLEARED, provision.with_mac(key, provision.SIGNS_CLEARED, _clear(node, log))
        finally:
            log.wipe()
    except PacktrustError as error:
        node.count("storage")
        node.env.log("audit log: %s" % error)
        return provision.REFUSED, bytes((provision.REFUSED_STORAGE,))
    return provision.REFUSED, bytes((provision.REFUSED_UNKNOWN,))


def _clear(node: "Node", log: Log) -> bytes:
    """Signs are cleared for the entry number the owner has seen last: what came since is not overlooked."""
    log.append(node, "signs-cleared", audit.signs_body(log.signs))
    log.signs = 0
    log.save(node)
    node.guard.clear()
    return pack(">I", log.following)


def _part(node: "Node", log: Log, first: int) -> audit.Part:
    """The block that holds entry `first`, from there on; the oldest one kept if it is gone."""
    store = node.env.store
    first = max(first, log.start)
    block = log.block
    at = log.following - log.count
    number = log.number
    back = 1
    while first < at and back <= BLOCKS:
        raw = store.read("%s-%d" % (RECORD, (number - back) % BLOCKS))
        if raw is None or len(raw) <= 33 or _number_at(raw) != at - PER_BLOCK:
            break  # no older one, or what a power cut has left of it
        block = raw
        at -= PER_BLOCK
        back += 1
    chain = bytes(block[:32])
    entries = []  # type: list[tuple[bytes, bytes]]
    size = 0
    position = 32
    while position < len(block) and size < _PART_MAX:
        stop = position + 1 + block[position]
        entry = bytes(block[position + 1 : stop])
        mac = bytes(block[stop : stop + audit.MAC_LENGTH])
        position = stop + audit.MAC_LENGTH
        if at < first:
            chain = audit.link(chain, entry)
            at += 1
        else:
            entries.append((entry, mac))
            size += 1 + len(entry) + len(mac)
    return audit.Part(log.start, log.following, at, log.signs, node.guard.score, chain, log.chain, entries)


def _number_at(block: "Buffer") -> int:
    return unpack_from(">I", block, 33)[0]
