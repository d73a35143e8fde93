"""The node's store: a power cut at any byte of any write leaves the old state or the new one."""

from packtrust.errors import StorageError
from packtrust_node.store import MemorySlots, Store
from portable import raises


class PowerCut(Exception):
    """The lights went out."""


class CutSlots(MemorySlots):
    """Slots whose power goes after so many bytes written (a removal counts as one)."""

    def __init__(self, budget=None):
        MemorySlots.__init__(self)
        self.budget = budget

    def write(self, name, data):
        if self.budget is not None:
            if len(data) >= self.budget:
                # Opening the file for writing has emptied it; then came what still came.
                self.files[name] = bytes(data[: self.budget])
                raise PowerCut()
            self.budget -= len(data)
        MemorySlots.write(self, name, data)

    def remove(self, name):
        if self.budget is not None:
            if self.budget <= 0:
                raise PowerCut()
            self.budget -= 1
        MemorySlots.remove(self, name)


class FullSlots(MemorySlots):
    """A flash without room."""

    def write(self, name, data):
        raise OSError(28)


class Entropy:
    """Different bytes at each call, the same in each run."""

    def __init__(self, start=0):
        self.at = start

    def __call__(self, count):
        self.at += 1
        return bytes([(self.at * 31 + i * 7) & 0xFF for i in range(count)])


def store_on(slots, start=0, unique_id=5):
    return Store(slots, Entropy(start), unique_id)


def copy_of(slots, budget=None):
    copy = CutSlots(budget)
    copy.files = dict(slots.files)
    return copy


def test_what_is_written_is_read_back_also_after_a_reboot():
    slots = MemorySlots()
    store = store_on(slots)
    assert store.read("identity") is None
    store.write("identity", b"one")
    store.write("rel-0a", bytearray(b"two"))
    assert store.read("identity") == b"one"
    store.write("identity", b"three")
    again = store_on(slots, 100)
    assert again.read("identity") == b"three"
    assert isinstance(again.read("identity"), bytearray)
    assert again.names() == ["identity", "rel-0a"]
    again.remove("identity")
    assert store_on(slots).read("identity") is None
    assert store_on(slots).names() == ["rel-0a"]


def cut_everywhere(before, act, allowed):
    """Run `act` on copies of `before`, cut after each number of bytes, and look what a reboot finds."""
    budget = 0
    seen = []
    while True:
        slots = copy_of(before, budget)
        complete = True
        try:
            act(store_on(slots, 50))
        except PowerCut:
            complete = False
        slots.budget = None
        found = store_on(slots, 70).read("key")
        found = None if found is None else bytes(found)
        assert found in allowed, (budget, found)
        if found not in seen:
            seen.append(found)
        # And the node goes on: the next write works and is read back.
        store_on(slots, 90).write("key", b"later")
        assert store_on(slots).read("key") == b"later"
        if complete:
            assert found == allowed[1]
            return budget, seen
        budget += 1


def test_power_cut_at_every_byte_of_the_first_write():
    # The key file, 40 bytes, is written too.
    budget, seen = cut_everywhere(MemorySlots(), lambda store: store.write("key", b"new"), (None, b"new"))
    assert budget == 40 + 16 + 3 + 16 + 1
    assert seen == [None, b"new"]


def test_power_cut_at_every_byte_of_the_next_writes():
    slots = MemorySlots()
    store = store_on(slots)
    for old, new in ((b"old", b"newer"), (b"newer", b"newest"), (b"newest", b"last")):
        store.write("key", old)
        budget, seen = cut_everywhere(slots, lambda store, new=new: store.write("key", new), (old, new))
        assert budget == 16 + len(new) + 16 + 1
        assert seen == [old, new]


def test_power_cut_while_removing():
    for writes in (1, 2, 3):
        slots = MemorySlots()
        store = store_on(slots)
        for number in range(writes):
            store.write("key", b"old%d" % number)
        old = b"old%d" % (writes - 1)
        _, seen = cut_everywhere(slots, lambda store: store.remove("key"), (old, None))
        assert seen == [old, None]


def test_power_cut_while_erasing_leaves_a_store_that_works():
    slots = MemorySlots()
    store_on(slots).write("key", b"old")
    cut_everywhere(slots, lambda store: store.erase(), (b"old", None))


def test_power_cut_after_a_power_cut():
    slots = MemorySlots()
    store_on(slots).write("key", b"old")
    cuts = 0
    while True:
        torn = copy_of(slots, cuts)
        try:
            store_on(torn, 10).write("key", b"torn!")
        except PowerCut:
            torn.budget = None
            before = bytes(store_on(torn).read("key"))
            assert before in (b"old", b"torn!")
            cut_everywhere(torn, lambda store: store.write("key", b"new"), (before, b"new"))
            cuts += 1
            continue
        break
    assert cuts == 16 + 5 + 16 + 1


def test_a_flipped_bit_is_noticed():
    slots = MemorySlots()
    store = store_on(slots)
    store.write("key", b"old")
    store.write("key", b"new")
    newest = bytearray(slots.files["key.b"])
    for at in range(len(newest)):
        newest[at] ^= 1
        slots.files["key.b"] = bytes(newest)
        assert store_on(slots).read("key") == b"old"
        newest[at] ^= 1


def test_both_copies_damaged_is_an_error_and_not_a_new_node():
    slots = MemorySlots()
    store = store_on(slots)
    store.write("key", b"old")
    store.write("key", b"new")
    slots.files["key.a"] = b"x" * 40
    slots.files["key.b"] = b""
    error = raises(StorageError, store_on(slots).read, "key")
    assert "reset" in str(error)
    assert "new" not in str(error)


def test_lost_key_file_is_an_error_while_records_are_left():
    slots = MemorySlots()
    store_on(slots).write("key", b"old")
    slots.remove("store.key")
    raises(StorageError, store_on(slots).read, "key")
    raises(StorageError, store_on(slots).write, "key", b"new")
    store_on(slots).erase()
    assert store_on(slots).read("key") is None


def test_a_slot_of_another_node_or_name_does_not_open():
    slots = MemorySlots()
    store_on(slots).write("key", b"old")
    assert store_on(slots, 0, 6).read("key") is None
    slots.files["other.a"] = slots.files["key.a"]
    assert store_on(slots).read("other") is None
    assert store_on(slots).names() == ["key"]


def test_nothing_readable_lies_on_the_flash():
    slots = MemorySlots()
    store_on(slots).write("key", b"a secret of sixteen")
    for data in slots.files.values():
        assert b"secret" not in data


def test_a_full_flash_is_a_named_error():
    error = raises(StorageError, store_on(FullSlots()).write, "key", b"x")
    assert "28" in str(error)


def test_names_are_checked():
    raises(ValueError, store_on(MemorySlots()).write, "../x", b"")
    raises(ValueError, store_on(MemorySlots()).read, "")
