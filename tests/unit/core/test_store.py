"""The node's store: a power cut at any byte of any write leaves the old state or the new one."""

from packtrust.errors import StorageError
from packtrust_node.store import NOT_AUTHENTIC, MemorySlots, Store
from portable import raises

HEAD = 9 + 12  # in front of a slot's ciphertext


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


def test_a_record_is_opened_in_the_memory_it_was_read_to():
    class Remembering(MemorySlots):
        given = None

        def read(self, name, lead=0):
            data = MemorySlots.read(self, name, lead)
            if data is not None:
                self.given = data
            return data

    slots = Remembering()
    store = store_on(slots)
    store.write("audit", bytes(range(200)))
    assert store.read("audit") is slots.given and slots.given == bytes(range(200))


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
    assert budget == 40 + HEAD + 3 + 16 + 1
    assert seen == [None, b"new"]


def test_power_cut_at_every_byte_of_the_next_writes():
    slots = MemorySlots()
    store = store_on(slots)
    for old, new in ((b"old", b"newer"), (b"newer", b"newest"), (b"newest", b"last")):
        store.write("key", old)
        budget, seen = cut_everywhere(slots, lambda store, new=new: store.write("key", new), (old, new))
        assert budget == HEAD + len(new) + 16 + 1
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


def test_erasing_once_begun_is_finished_by_the_next_boot():
    slots = MemorySlots()
    for name in ("boot", "identity", "rel-01"):
        store_on(slots).write(name, b"old")
    seen = []
    for budget in range(10):
        cut = copy_of(slots, budget)
        try:
            store_on(cut).erase()
        except PowerCut:
            pass
        cut.budget = None
        names = store_on(cut).names()
        assert names in (["boot", "identity", "rel-01"], [])
        assert sorted(cut.files) == (sorted(slots.files) if names else []), "all of it or none of it"
        if names not in seen:
            seen.append(names)
    assert seen == [[]]  # even opened and not written, the mark is there


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
    assert cuts == HEAD + 5 + 16 + 1


def test_a_flipped_bit_is_noticed():
    slots = MemorySlots()
    store = store_on(slots)
    store.write("key", b"old")
    store.write("key", b"new")
    newest = bytearray(slots.files["key.b"])
    for at in range(len(newest)):
        newest[at] ^= 1
        slots.files["key.b"] = bytes(newest)
        evidence = []
        again = store_on(slots)
        again.on_evidence = evidence.append
        if at == 2:
            # A version nobody knows hides no newer state behind the older copy.
            assert "newer firmware" in str(raises(StorageError, again.read, "key"))
        else:
            assert again.read("key") == b"old"
            # Magic and length are what a torn slot is known by; the rest is for the tag.
            assert evidence == ([] if at in (0, 1, 3, 4) else [NOT_AUTHENTIC]), at
        newest[at] ^= 1


def test_a_slot_cut_short_is_torn_and_no_evidence():
    slots = MemorySlots()
    store = store_on(slots)
    store.write("key", b"old")
    store.write("key", b"new")
    newest = slots.files["key.b"]
    for size in range(len(newest)):
        slots.files["key.b"] = newest[:size]
        evidence = []
        again = store_on(slots)
        again.on_evidence = evidence.append
        assert again.read("key") == b"old"
        assert evidence == []


def test_a_complete_copy_that_is_not_ours_is_evidence_and_not_an_empty_record():
    slots = MemorySlots()
    store_on(slots).write("key", b"old")
    slots.files["key.a"] = slots.files["key.a"][:-1] + b"?"
    evidence = []
    again = store_on(slots)
    again.on_evidence = evidence.append
    assert "reset" in str(raises(StorageError, again.read, "key"))
    assert evidence == [NOT_AUTHENTIC]
    assert again.names() == ["key"]


def test_format_1_is_read_and_gives_way():
    """Its slots have nothing but the sequence in front of the nonce."""
    slots = MemorySlots()
    store = store_on(slots)
    store.write("key", b"first")
    aead = store._open_key(False)
    head, nonce = b"\x00\x00\x00\x07", bytes(range(12))
    slots.files["key.a"] = head + nonce + aead.encrypt(nonce, b"of format 1", head + b"key")
    again = store_on(slots)
    assert again.read("key") == b"of format 1"
    again.write("key", b"of format 2")
    assert slots.files["key.b"][:9] == b"pt\x02\x00\x0b\x00\x00\x00\x08"
    assert store_on(slots).read("key") == b"of format 2"
    again.write("key", b"again")
    assert slots.files["key.a"][:3] == b"pt\x02"
    # Torn or not ours cannot be told apart in format 1: no evidence.
    evidence = []
    slots.files["key.b"] = head + nonce + bytes(30)
    again.on_evidence = evidence.append
    assert again.read("key") == b"again"
    assert evidence == []


def test_newer_formats_are_kept_and_refused():
    slots = MemorySlots()
    store = store_on(slots)
    store.write("key", b"old")
    slots.files["key.b"] = b"pt\x03whatever"
    before = dict(slots.files)
    for act in (lambda: store.read("key"), lambda: store.write("key", b"new"), lambda: store_on(slots).read("key")):
        assert "install that" in str(raises(StorageError, act))
        assert slots.files == before
    store.remove("key")  # whoever deletes it means it
    assert store_on(slots).read("key") is None
    slots.files["store.key"] = b"pt\x03" + bytes(60)
    slots.files["key.a"] = b"pt\x03whatever"
    before = dict(slots.files)
    for act in (lambda: store_on(slots).read("key"), lambda: store_on(slots).write("key", b"new")):
        assert "newer firmware" in str(raises(StorageError, act))
        assert slots.files == before
    store_on(slots).erase()
    assert slots.files == {}


def test_purge_leaves_one_copy():
    for writes in (1, 2, 3):
        slots = MemorySlots()
        store = store_on(slots)
        for number in range(writes):
            store.write("key", b"old%d" % number)
        _, seen = cut_everywhere(
            slots, lambda store: store.write("key", b"new", True), (b"old%d" % (writes - 1), b"new")
        )
        assert len(seen) == 2
        store.write("key", b"new", True)
        assert len([name for name in slots.files if name.startswith("key.")]) == 1
        assert store_on(slots).read("key") == b"new"


class Shared:
    """As a Workspace of one ready key."""

    def __init__(self):
        self.ready = []
        self.rooms = 0

    def make_room(self):
        self.rooms += 1
        for other in self.ready:
            assert not other.recent
            other.leave()
        self.ready = []

    def admit(self, key):
        assert not self.ready
        self.ready.append(key)

    def dismiss(self, key):
        self.ready.remove(key)


def test_the_key_shares_the_room_of_others():
    store = Store(MemorySlots(), Entropy(1), 1)
    store.shares = shared = Shared()
    store.write("a", b"one")
    assert shared.ready == [store] and shared.rooms == 1
    shared.make_room()  # another key takes its place
    assert shared.ready == []
    assert store.read("a") == b"one" and shared.ready == [store] and shared.rooms == 3
    assert store.rest() and shared.ready == [] and not store.rest()
    store.write("a", b"two")
    shared.make_room()
    assert store.rest(), "what it was derived from is to be overwritten though it left by itself"
    assert not store.rest() and shared.ready == []


def test_writes_are_counted_by_kind():
    store = store_on(MemorySlots())
    for name in ("boot", "rel-01", "rel-02", "rel-01"):
        store.write(name, b"x")
    store.read("boot")
    store.names()
    store.remove("rel-01")
    store.purge("rel-02")  # nothing to do: nothing written
    assert store.written == {"boot": 1, "rel": 4}


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
    raises(StorageError, store_on(slots, 0, 6).read, "key")
    slots.files["other.a"] = slots.files["key.a"]
    raises(StorageError, store_on(slots).read, "other")
    assert store_on(slots).read("key") == b"old"


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
