"""Slots in raw flash: a power cut at any program, erase or sync operation, whole or torn, leaves the old or the new."""

from nodebench import Bench, Entropy
from nor_flash import TORN, NorFlash, PowerCut
from packtrust._compat import sha256
from packtrust.errors import StorageError
from packtrust_node.flash_slots import FlashSlots
from packtrust_node.store import Store
from portable import raises


def contents(flash, word=8, banks=2):
    slots = FlashSlots(flash, banks=banks, word=word)
    names = slots.names()
    assert len(set(names)) == len(names)
    return {name: slots.read(name) for name in names}


def test_what_is_written_is_read_back_by_the_next_boot():
    for word in (1, 8, 32):
        flash = NorFlash(word=word)
        slots = FlashSlots(flash, word=word)
        assert slots.names() == [] and slots.read("a") is None
        slots.write("a", b"one")
        slots.write("bb.b", b"")
        slots.write("c", bytes(300))
        slots.write("a", b"two")
        slots.remove("c")
        slots.remove("none")
        wanted = {"a": b"two", "bb.b": b""}
        assert contents(flash, word) == wanted == {name: slots.read(name) for name in slots.names()}


def test_any_number_of_writes_and_all_blocks_wear_alike():
    for banks in (2, 4):
        flash = NorFlash(8, 512)
        slots = FlashSlots(flash, banks=banks)
        kept = {}
        for number in range(400):
            name = "rel-%d" % (number % 5)
            data = bytes((number & 0xFF,)) * (20 + number % 30)
            slots.write(name, data)
            kept[name] = data
            if number % 7 == 0:
                slots.remove(name)
                del kept[name]
            if number % 50 == 0:
                assert contents(flash, 8, banks) == kept
        assert contents(flash, 8, banks) == kept
        least, most = min(flash.erasures), max(flash.erasures)
        assert most - least <= 1 and most > 5
        assert slots.erased == sum(flash.erasures)


def test_wear_is_bounded_as_documented():
    """Erasures of a block <= 1 + entries appended * entry size / (what a bank has beside the live records) / banks."""
    flash = NorFlash(8, 1024)
    slots = FlashSlots(flash)
    data = bytes(100)
    names = ["r%d" % number for number in range(8)]
    entry = (16 + 2 + 100 + 7) & -8
    writes = 1000
    for number in range(writes):
        slots.write(names[number % 8], data)
    room = 4096 - 24 - 8 * entry
    assert max(flash.erasures) <= 1 + writes * entry / room / 2
    assert max(flash.erasures) > 0.7 * writes * entry / room / 2


def sweep(flash, act, allowed, banks=2):
    """`act(slots)` on copies of `flash`, cut at each operation in each way; what a reboot finds, and goes on from."""
    points = 0
    seen = []
    for torn in TORN:
        cut = 0
        while True:
            device = flash.copy(cut, torn)
            complete = True
            try:
                act(FlashSlots(device, banks=banks))
            except PowerCut:
                complete = False
            device = device.copy()
            found = contents(device, 8, banks)
            assert found in allowed, (torn, cut, sorted(found))
            if found not in seen:
                seen.append(found)
            # And it goes on, whatever was left half done.
            slots = FlashSlots(device, banks=banks)
            slots.write("later", b"x" * 60)
            slots.write("later", b"y" * 60)
            assert contents(device, 8, banks) == dict(found, later=b"y" * 60)
            if complete:
                assert found == allowed[-1]
                break
            points += 1
            cut += 1
    return points, seen


def filled(banks=2):
    """A flash just before its bank is full, and what it holds."""
    flash = NorFlash(4, 512)
    slots = FlashSlots(flash, banks=banks)
    for number in range(3):
        slots.write("r%d" % number, bytes((number,)) * 50)
    while slots._end + 88 <= slots._length:
        slots.write("r1", bytes((slots._end & 0xFF,)) * 50)
    return flash, contents(flash, 8, banks)


def test_power_cut_at_every_operation():
    empty = NorFlash(4, 512)
    points, seen = sweep(empty, lambda slots: slots.write("a", b"new"), ({}, {"a": b"new"}))
    assert points >= 9 and len(seen) == 2
    flash = NorFlash(4, 512)
    FlashSlots(flash).write("a", b"old")
    for act, after in (
        (lambda slots: slots.write("a", b"new"), {"a": b"new"}),
        (lambda slots: slots.write("b", b"new"), {"a": b"old", "b": b"new"}),
        (lambda slots: slots.remove("a"), {}),
        (lambda slots: slots.shred("a"), {}),
        (lambda slots: slots.erase(), {}),
    ):
        points, seen = sweep(flash, act, ({"a": b"old"}, after))
        assert points >= 5 and len(seen) == 2, (points, seen)


def test_power_cut_at_every_operation_of_a_move_to_the_next_bank():
    for banks in (2, 4):
        flash, before = filled(banks)
        after = dict(before, r2=b"new" * 20)
        points, seen = sweep(flash, lambda slots: slots.write("r2", b"new" * 20), (before, after), banks)
        assert points > 20 and len(seen) == 2
        without = {name: data for name, data in before.items() if name != "r1"}
        flash, before = filled(banks)
        _, seen = sweep(flash, lambda slots: slots.shred("r1"), (before, without), banks)
        assert len(seen) == 2
        _, seen = sweep(flash, lambda slots: slots.erase(), (before, {}), banks)
        assert len(seen) == 2


def test_power_cut_after_a_power_cut():
    flash, before = filled()
    after = dict(before, r2=b"new" * 20)
    for torn in TORN:
        for cut in range(0, 30, 3):
            device = flash.copy(cut, torn)
            try:
                FlashSlots(device).write("r2", b"new" * 20)
            except PowerCut:
                pass
            device = device.copy()
            found = contents(device.copy())
            sweep(device, lambda slots: slots.write("r0", b"zero"), (found, dict(found, r0=b"zero")))
            assert found in (before, after)


def test_what_is_shredded_or_erased_is_gone_from_the_chip():
    flash = NorFlash(4, 512)
    slots = FlashSlots(flash)
    slots.write("a", b"secret of the first epoch")
    slots.write("b", b"still in use")
    slots.write("a", b"a secret of the second")
    assert b"first epoch" in flash.data
    slots.shred("a")
    assert b"secret" not in flash.data and contents(flash) == {"b": b"still in use"}
    slots.erase()
    assert bytes(flash.data) == b"\xff" * len(flash.data)


def test_a_full_area_is_a_named_error_and_nothing_is_lost():
    flash = NorFlash(2, 512)
    slots = FlashSlots(flash)
    slots.write("a", bytes(200))
    error = raises(OSError, slots.write, "b", bytes(400))
    assert error.args[0] == 28
    assert slots.read("a") == bytes(200) and contents(flash) == {"a": bytes(200)}
    slots.remove("a")
    store = Store(slots, Entropy("x"), 1)
    assert "28" in str(raises(StorageError, store.write, "b", bytes(600)))


class WornFlash(NorFlash):
    """Bits of one block no longer clear."""

    worn = -1

    def writeblocks(self, block, buffer, offset=0):
        if block == self.worn:
            buffer = bytes([byte | 1 for byte in buffer])
        NorFlash.writeblocks(self, block, buffer, offset)


def test_flash_that_does_not_keep_what_it_is_given_is_noticed():
    flash = WornFlash(4, 512)
    slots = FlashSlots(flash)
    slots.write("a", bytes(100))
    flash.worn = 0
    slots.write("a", bytes(50))  # goes to the other bank
    assert slots.read("a") == bytes(50) == contents(flash)["a"]
    # Block 0, where the next move would begin, keeps nothing any more.
    error = raises(OSError, lambda: [slots.write("b", b"2" * 50) for _ in range(100)])
    assert error.args[0] == 5
    assert contents(flash)["a"] == bytes(50)


def test_newer_formats_and_other_settings_are_refused_and_kept():
    flash = NorFlash(4, 512)
    FlashSlots(flash).write("a", b"old")
    before = bytes(flash.data)
    raises(StorageError, FlashSlots, flash, 0, None, 2, 16)
    assert "settings" in str(raises(StorageError, FlashSlots, flash, 0, None, 4, 8))
    assert bytes(flash.data) == before
    head = flash.data[:20]
    head[4] = 2
    head[12:] = sha256(head[:12]).digest()[:8]
    flash.data[:20] = head
    before = bytes(flash.data)
    assert "newer firmware" in str(raises(StorageError, FlashSlots, flash))
    assert bytes(flash.data) == before
    raises(ValueError, FlashSlots, NorFlash(1, 512))


def test_a_node_lives_on_raw_flash():
    flash = NorFlash(16, 1024)
    bench = Bench(0)
    node = bench.boot("pack", FlashSlots(flash, 8, 8))
    code = node.claim_code()
    assert len(code) == 16
    for number in range(60):
        node = bench.boot("pack", FlashSlots(flash, 8, 8))
        assert node.claim_code() == code and node.boot_counter == number + 2
    assert max(flash.erasures[:8]) == 0, "blocks before its area are not its own"
    node.reset()
    assert node.claim_code() != code
    bench.envs["pack"].store.erase()
    assert bytes(flash.data) == b"\xff" * len(flash.data)
