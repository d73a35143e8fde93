"""Free memory of the heap is overwritten, no more and no less. Whole nodes: tests/pack/test_memory_nodes.py."""

import gc

from packtrust_node.scrub import free_heap

try:
    from uctypes import addressof, bytearray_at
except ImportError:  # CPython, whose memory is not to be asked for
    addressof = None

PATTERN = 0xA7
# An address as it is would keep the block: the collector takes every word for a pointer.
MASK = 0x5A5A5A5A
SIZES = (1, 15, 16, 17, 31, 33, 64, 100, 250, 1000, 3000)


def garbage():
    """Where (address, size) the freed bytes of many sizes lie."""
    # Places between what stays, so that the free memory is in pieces of every size.
    kept = []
    places = []
    for _ in range(4):
        for size in SIZES:
            block = bytearray(size)
            for at in range(size):
                block[at] = PATTERN
            places.append((addressof(block) ^ MASK, size))
            kept.append(bytearray(16))
    block = None
    return kept, places


def left(places):
    """How many bytes of the pattern are in these places."""
    count = 0
    for at, size in places:
        found = bytearray_at(at ^ MASK, size)
        for index in range(size):
            count += found[index] == PATTERN
    return count


def test_what_was_freed_is_overwritten():
    if addressof is None:
        assert free_heap() is None
        return
    kept, places = garbage()
    before = left(places)
    gc.collect()
    collected = left(places)
    free_heap()
    assert before == 4 * sum(SIZES)
    assert collected > before // 2, "a collection alone leaves what was there"
    # The collector takes words on the stack for pointers: one block may still seem to be in use.
    assert left(places) <= max(SIZES)
    assert all([block == bytearray(16) for block in kept])


def test_it_keeps_nothing_and_changes_nothing():
    if addressof is None:
        return
    free_heap()
    gc.collect()
    before = gc.mem_free()
    for _ in range(3):
        free_heap()
    gc.collect()
    assert abs(gc.mem_free() - before) < 256
    assert gc.isenabled()
    gc.disable()
    try:
        free_heap()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_full_heap_is_no_error():
    if addressof is None:
        return
    chain = None
    try:
        while True:
            chain = (chain, bytearray(64))
    except MemoryError:
        pass
    free_heap()
    assert chain is not None
    chain = None
    gc.collect()
