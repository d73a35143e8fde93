"""Hundreds of rotations without an app under full traffic: no record lost, no RAM and no flash used up."""

import gc
import tracemalloc

import pytest

from rotation_bench import CutSlots, Ledger, alone, relation_of, settled, use

ROTATIONS = 200
WARM = 40
GROWTH_MAX = 16 * 1024  # bytes of Python objects over 160 rotations of two nodes; what is kept of each would be more
WRITES_MAX = 8  # of each node for each rotation: salt, root, root without the one before (both copies), usage, audit


def counting(bench, name):
    """The node's slots, which count their writes from now on."""
    slots = CutSlots(bench.envs[name].slots.files)
    bench.envs[name].store._slots = slots
    return slots


@pytest.mark.timeout(600)
def test_hundreds_of_rotations_cost_nothing():
    bench, pack, module = alone()
    bench.keep = 10
    ledger = Ledger(pack, module)
    slots = {"pack": counting(bench, "pack"), "module0": counting(bench, "module0")}
    files, size, memory = {}, {}, 0
    records = 0
    roots = bytearray(32 * ROTATIONS)
    tracemalloc.start()
    for done in range(ROTATIONS):
        use(pack, 1, 6)
        bench.until(lambda: settled(bench, done + 2), 20_000)  # noqa: B023 - called at once
        ledger.check()
        assert {item[0] for item in ledger.opened} == {0, 1}
        records += len(ledger.opened)
        ledger.sealed.clear()
        ledger.opened.clear()
        roots[32 * done : 32 * done + 32] = relation_of(pack, 1).root
        for name, node in bench.nodes.items():
            assert bench.envs[name].lines.clear() is None
            assert node.counters["internal"] == 0, node.counters
        if done == WARM:
            files = {name: sorted(found.files) for name, found in slots.items()}
            size = {name: sum(map(len, found.files.values())) for name, found in slots.items()}
            for found in slots.values():
                found.writes = 0
            gc.collect()
            memory = tracemalloc.get_traced_memory()[0]
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - memory
    tracemalloc.stop()
    count = ROTATIONS - WARM - 1
    # Each epoch has a root of its own.
    assert len({bytes(roots[at : at + 32]) for at in range(0, len(roots), 32)}) == ROTATIONS
    assert pack.counters["rotations"] == module.counters["rotations"] == ROTATIONS
    assert relation_of(pack, 1).epoch == ROTATIONS + 1
    assert records > 20 * ROTATIONS
    assert grown < GROWTH_MAX, grown
    for name, found in slots.items():
        assert sorted(found.files) == files[name]
        assert sum(map(len, found.files.values())) <= size[name] + 64
        assert found.writes <= WRITES_MAX * count, (name, found.writes / count)
    for channel in (pack.slots[1].channel, module.neighbour(1).channel):
        assert channel._previous is None and channel._pending is None
    print("%d rotations, %d records, %d bytes" % (ROTATIONS, records, grown), {n: s.writes for n, s in slots.items()})
