"""Rotation without an app in the long run: usage over power cycles, losses, give-ups, the owner in between, old flash.

On CPython alone, for time; what pack and module do is in tests/unit/core/test_rotation.py on every interpreter.
"""

from nodebench import MODULE_BUS
from packtrust_node.usage import RECORD, SAVE_S, share
from rotation_bench import (
    ROTATION_BASES,
    CutSlots,
    Ledger,
    alone,
    ask_report,
    epochs,
    relation_of,
    settled,
    use,
)


def test_records_of_both_directions_and_all_sessions_count():
    bench, pack, module = alone()
    relation = relation_of(pack, 1)
    usage = pack.usage
    channel = pack.slots[1].channel
    bench.run(1000)
    assert abs(usage.records(relation) - sum(channel.opened_and_sealed)) < 120
    before = usage.records(relation)
    pack.slots[1].connect()
    bench.run(3000)
    assert channel.stats["established"] == 2
    assert usage.records(relation) > before + 60
    assert abs(usage.records(relation) - sum(channel.opened_and_sealed)) < 120
    assert usage.age_s(relation) >= 9
    assert abs(module.usage.records(relation_of(module, 1)) - usage.records(relation)) < 120


def test_a_power_cycle_counts_and_costs_no_write():
    bench, _pack, module = alone()
    bench.run(2000)
    relation = relation_of(module, 1)
    slots = bench.envs["module0"].slots
    stored = dict(slots.files)
    for boot in range(1, 4):
        bench.off("module0")
        module = bench.boot("module0")
        bench.until(lambda: settled(bench, 1), 15000)
        usage = module.usage
        bench.run(1500)
        got = usage.records(relation_of(module, 1))
        assert boot * share(relation.max_records) <= got < boot * share(relation.max_records) + 2000
        assert usage.age_s(relation_of(module, 1)) >= boot * SAVE_S
        changed = [name for name in slots.files if slots.files[name] != stored.get(name)]
        assert all(name.startswith("boot") for name in changed), changed
    bench.sound()


def test_usage_is_stored_by_the_hour_and_by_records():
    bench, _pack, module = alone()
    usage = module.usage
    relation = relation_of(module, 1)
    bench.run(1100)
    writes = []
    write = bench.envs["module0"].store.write
    bench.envs["module0"].store.write = lambda name, data: writes.append(name) or write(name, data)
    bench.run(3000)
    assert writes == []
    usage._unsaved = share(relation.max_records)
    bench.run(1100)
    assert writes == [RECORD]
    usage._save_s = 1
    bench.run(1100)
    assert writes == [RECORD, RECORD]
    bench.run(3000)
    assert len(writes) == 2


def test_damaged_usage_records_do_no_harm():
    bench, _pack, _module = alone()
    for raw in (b"", b"\x01", b"\x02" + bytes(30), b"\x01" + bytes(25)):
        bench.envs["module0"].store.write(RECORD, raw)
        bench.off("module0")
        bench.boot("module0")
        bench.until(lambda: settled(bench, 1), 15000)
    bench.sound()


def test_used_up_epoch_seals_nothing_but_its_rotation():
    bench, pack, module = alone()
    ledger = Ledger(pack, module)
    pack.endpoint._rotation_ms = bench.now_ms + 20000  # the pack tried a moment ago
    use(pack, 1, 8)
    bench.run(2000)
    neighbour = pack.slots[1]
    assert neighbour.used_up and pack.counters["epoch-used-up"] == 1
    sealed = len(ledger.sealed)
    assert not neighbour.seal(0x517, b"\x03")
    bench.run(3000)
    assert [item for item in ledger.sealed[sealed:] if item[0] == 0] == []
    bench.until(lambda: settled(bench, 2), 30000)
    assert not neighbour.used_up and neighbour.seal(0x517, b"\x03")
    bench.sound()


def test_by_age_too():
    bench, pack, _module = alone()
    relation = relation_of(pack, 1)
    usage = pack.usage
    usage._figures[usage._at(relation) + 1] = relation.max_age_s * 3 // 4
    bench.until(lambda: settled(bench, 2), 5000)
    assert usage.age_s(relation_of(pack, 1)) < 10


def test_below_the_limit_nothing_happens():
    bench, pack, _module = alone()
    relation = use(pack, 1, 6)
    usage = pack.usage
    usage._figures[usage._at(relation)] -= 2000
    bench.run(5000)
    assert epochs(bench) == (1, 1) and "rotations" not in pack.counters


def test_while_the_app_is_there_the_pack_leaves_it_to_the_app():
    bench, pack, _module = alone()
    bench.app = bench.owner
    bench.until(lambda: bench.owner.channel.established, 10000)
    bench.run(1000)
    use(pack, 1, 6)
    bench.run(5000)
    assert epochs(bench) == (1, 1)
    use(pack, 1, 7)  # and the app does not
    bench.until(lambda: settled(bench, 2), 5000)


def test_many_rotations_one_after_another():
    bench, pack, module = alone()
    ledger = Ledger(pack, module)
    for epoch in range(2, 7):
        use(pack, 1, 6)
        bench.until(lambda: settled(bench, epoch), 5000)  # noqa: B023 - called at once
    bench.run(1000)
    ledger.check()
    assert len(pack.relations) == 2 and len(module.relations) == 1
    salts = [name for name in bench.envs["pack"].store.names() if name.startswith("salt-")]
    assert len(salts) == 1
    bench.sound()


def test_a_package_of_the_owner_goes_first():
    bench, pack, _module = alone()
    app = bench.owner
    bench.app = app
    app.introduce(1, commit=False)  # staged at both ends, epoch 2
    bench.app = None
    bench.run(6000)
    use(pack, 1, 6)
    bench.run(5000)
    assert epochs(bench) == (1, 1) and pack.endpoint._rotation is None
    bench.run(25000)  # the owner does not commit
    bench.until(lambda: settled(bench, 2), 10000)
    # The owner's next package has to be above what they made, and is taken.
    bench.app = app
    app.epochs["lct-1"] = 2
    app.introduce(1)
    bench.until(lambda: settled(bench, 3), 10000)
    bench.sound()


def test_a_package_that_comes_in_between_ends_the_rotation():
    bench, pack, module = alone()
    bench.spy = lambda bus, sender, frame: frame.arbitration_id >> 18 != 0x50C  # the module is not heard
    use(pack, 1, 6)
    bench.run(1500)
    assert pack.endpoint._rotation is not None and module.endpoint._rotation is not None
    bench.spy = None
    app = bench.owner
    bench.app = app
    app.introduce(1)
    bench.until(lambda: settled(bench, 2), 10000)
    assert "rotations" not in pack.counters and "rotations" not in module.counters
    bench.sound()


def test_each_message_lost_once():
    """Of the rotation and of the handshake after it; nothing else is lost, and nothing of the traffic."""
    for base, nth in ((0x51C, 1), (0x50C, 1), (0x51C, 2), (0x50C, 2), (0x539, 1), (0x531, 1), (0x539, 2)):
        bench, pack, module = alone()
        ledger = Ledger(pack, module)
        seen = [0, 0]

        def lose(bus, sender, frame):
            if bus == MODULE_BUS and frame.arbitration_id >> 18 == base:  # noqa: B023
                if frame.arbitration_id & 0xF000 == 0:
                    seen[0] += 1  # noqa: B023
                if seen[0] == nth:  # noqa: B023
                    seen[1] = 1  # noqa: B023
                    return False
            return True

        bench.spy = lose
        use(pack, 1, 6)
        bench.until(lambda: settled(bench, 2), 15000)  # noqa: B023
        bench.run(1500)
        assert seen[1], "%x %d" % (base, nth)
        ledger.check(lost=1 if base in ROTATION_BASES else 0)
        bench.sound()


def test_one_frame_in_fifty_lost():
    bench, pack, module = alone()
    ledger = Ledger(pack, module)
    count = [0]

    def lose(bus, sender, frame):
        count[0] += 1
        return bus != MODULE_BUS or count[0] % 50 != 0

    bench.spy = lose
    for epoch in (2, 3, 4):
        use(pack, 1, 6)
        bench.until(lambda: settled(bench, epoch), 60000)  # noqa: B023
    bench.spy = None
    bench.run(2000)
    # A record with a lost frame is lost; all others come, and no record twice.
    ledger.check(lost=count[0] // 50)
    bench.sound()


def test_recorded_rotations_change_nothing():
    bench, pack, module = alone()
    recorded = []
    bench.spy = lambda bus, sender, frame: recorded.append(frame.copy()) or True
    use(pack, 1, 6)
    bench.until(lambda: settled(bench, 2), 5000)
    bench.spy = None
    for frame in recorded:
        if frame.arbitration_id >> 18 in (*ROTATION_BASES, 0x539, 0x531):
            bench.inject(MODULE_BUS, frame)
    bench.run(3000)
    assert epochs(bench) == (2, 2) and settled(bench, 2)
    assert pack.counters["rotations"] == module.counters["rotations"] == 1
    bench.sound()


def test_the_pack_repeats_itself_and_gives_up():
    bench, pack, module = alone()
    sent = []

    def spy(bus, sender, frame):
        base = frame.arbitration_id >> 18
        if base == 0x51C and frame.arbitration_id & 0xF000 == 0:
            sent.append(bench.now_ms)
        return base != 0x50C

    bench.spy = spy
    use(pack, 1, 6)
    bench.run(13000)
    assert 8 <= len(sent) <= 11
    assert pack.counters["rotation-timeout"] == 1 and module.counters["rotation-timeout"] == 1
    assert pack.endpoint._rotation is None and module.endpoint._rotation is None
    bench.run(15000)
    assert len(sent) <= 11  # it waits
    bench.spy = None
    bench.until(lambda: settled(bench, 2), 20000)
    bench.sound()


def test_module_with_an_old_copy_of_its_flash_is_refused():
    bench, pack, module = alone()
    old = dict(bench.envs["module0"].slots.files)
    for epoch in (2, 3):
        use(pack, 1, 6)
        bench.until(lambda: settled(bench, epoch), 5000)  # noqa: B023
    bench.off("module0")
    slots = CutSlots(old)
    module = bench.boot("module0", slots)
    bench.run(15000)
    assert not module._is_live and module.state == 0
    assert not pack.slots[1].active(bench.now_ms)
    assert module.neighbour(1).channel.stats["handshake-epoch"] > 0
    # The owner sees what it is: its counters went back.
    got = ask_report(bench, bench.owner, 1)
    assert got.entries[0].epoch == 1 and got.boot_counter < 3
    # And heals it: a package above what either end has.
    bench.owner.epochs["lct-1"] = 3
    bench.owner.introduce(1)
    bench.until(lambda: settled(bench, 4), 20000)
    bench.sound()
