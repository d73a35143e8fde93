"""A node's store over slots with any content: what a flash chip may hold after anything at all."""

from fuzz.source import Entropy, Source, counted
from packtrust.errors import StorageError
from packtrust.workspace import Workspace
from packtrust_node.store import MemorySlots, Store

COVERS = tuple(
    [
        "packtrust_node.store:Store." + name
        for name in ("read", "names", "write", "_open_key", "_any_record", "_load", "_newest", "rest", "leave")
    ]
)
HEAP_MAX = 90000

# Of a small board, whose store has its key among those that are ready: there is one, and it goes to the next store.
_SHARED = Workspace(1, 1, 1)
_SHARES = 2  # in the number before a file

_FILES = ("store.key", "boot.a", "boot.b", "identity.a", "identity.b", "rel-00.a", "other", "store.erasing")


def _laid(files):
    out = b""
    for name in _FILES:
        data = files.get(name)
        out += b"\x00" if data is None else b"\x01" + counted(data)
    return out


def _filled():
    slots = MemorySlots()
    store = Store(slots, Entropy(5), 1)
    for _ in range(2):
        store.write("boot", b"1234")
        store.write("identity", bytes(70))
    store.write("rel-00", bytes(90))
    return slots.files


def seeds():
    good = _filled()
    yield _laid({})
    yield _laid(good)
    yield bytes((1 | _SHARES,)) + _laid(good)[1:]
    for name in list(good):
        for change in (None, b"", good[name][:-1], bytes(8) + good[name][8:], bytes(40)):
            files = dict(good)
            if change is None:
                del files[name]
            else:
                files[name] = change
            yield _laid(files)
    yield _laid({"boot.a": bytes(40), "boot.b": bytes(40), "store.key": good["store.key"]})
    yield _laid({"store.key": bytes(3)})
    yield _laid({"store.key": good["store.key"]})
    # Of newer firmware: a key file, a record. Of a complete record that is not ours. Of an erasure that was cut off.
    yield _laid({"store.key": b"pt\x09", "boot.a": good["boot.a"]})
    for name in ("boot.a", "boot.b"):
        raw = good[name]
        yield _laid(merged(good, name, raw[:2] + b"\x09" + raw[3:]))
        yield _laid(merged(good, name, raw[:-1] + bytes((raw[-1] ^ 1,))))
    yield _laid(merged(good, "store.erasing", b""))


def merged(files, name, data):
    """The files with one changed."""
    found = dict(files)
    found[name] = data
    return found


def take(data):
    source = Source(data)
    slots = MemorySlots()
    store = Store(slots, Entropy(6), 1)
    for name in _FILES:
        number = source.number()
        if number & 1:
            slots.files[name] = source.part()
        if number & _SHARES:
            store.shares = _SHARED
    for name in ("boot", "identity", "rel-00"):
        try:
            found = store.read(name)
        except StorageError:
            continue
        assert found is None or name in store.names()
    try:
        names = store.names()
        store.write("boot", b"next")
    except StorageError:
        return
    assert store.read("boot") == bytearray(b"next")
    assert set(names) <= set(store.names())
    store.rest()
