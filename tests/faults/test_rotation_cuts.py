"""Power cut at each message and store write of a rotation without an app, at either end: they meet again, in one epoch.

On slots in memory that can be cut before, in or after a write; the real file system is cut in the sweeps beside this.
"""

from rotation_bench import (
    ROTATION_BASES,
    CutSlots,
    PowerCut,
    alone,
    relation_of,
    settled,
    talking,
    use,
)

# Of the rotation, and of the handshake after it.
ANY_BASE = (*ROTATION_BASES, 0x539, 0x531)


def test_power_cut_at_each_message():
    """At either end, when the n-th message of rotation or handshake is on the bus: afterwards they meet."""
    for name in ("pack", "module0"):
        for nth in range(1, 8):
            bench, pack, _module = alone()
            seen = [0]

            def cut(bus, sender, frame):
                if frame.arbitration_id >> 18 in ANY_BASE and frame.arbitration_id & 0xF000 == 0:
                    seen[0] += 1  # noqa: B023
                    if seen[0] == nth:  # noqa: B023
                        raise PowerCut(name)  # noqa: B023
                return True

            bench.spy = cut
            use(pack, 1, 6)
            happened = False
            try:
                bench.run(6000)
            except PowerCut:
                happened = True
            assert happened, "%s %d" % (name, nth)
            bench.spy = None
            bench.off(name)
            bench.queue = []
            bench.boot(name)
            bench.until(lambda: talking(bench), 20000)  # noqa: B023
            use(bench.nodes["pack"], 1, 6)
            bench.until(lambda: settled(bench, 2), 60000)  # noqa: B023
            bench.sound()


def cut_at_write(name, nth, how):
    """Cut a node at its n-th store write within a rotation; whether it came to that."""
    bench, pack, _module = alone()
    # The node runs on slots that can be cut; nothing of it is different.
    slots = CutSlots(bench.envs[name].slots.files)
    bench.envs[name].store._slots = slots
    slots.writes = 0
    slots.cut_at = nth
    slots.how = how
    use(pack, 1, 6)
    happened = False
    try:
        bench.run(6000)
    except PowerCut:
        happened = True
    slots.cut_at = 0
    bench.off(name)
    bench.queue = []
    bench.boot(name, slots)
    bench.until(lambda: talking(bench), 20000)
    use(bench.nodes["pack"], 1, 6)
    bench.until(lambda: settled(bench, 2), 60000)
    bench.sound()
    return happened


def test_power_cut_at_each_store_write():
    for name in ("pack", "module0"):
        for how in ("before", "torn", "after"):
            nth = 1
            while cut_at_write(name, nth, how):
                nth += 1
            assert nth >= 4, (name, how, nth)  # salt, relation, and the epoch before dropped


def test_flash_that_refuses_leaves_the_old_epoch():
    for name in ("pack", "module0"):
        bench, pack, _module = alone()
        store = bench.envs[name].store
        write = store._slots.write

        def full(slot, data):
            raise OSError(28)

        store._slots.write = full
        use(pack, 1, 6)
        bench.run(5000)
        assert bench.nodes[name].counters["rotation-failed"] >= 1
        assert relation_of(bench.nodes[name], 1).epoch == 1
        store._slots.write = write
        bench.until(lambda: settled(bench, 2), 60000)  # noqa: B023
        bench.sound()
