"""The heartbeat under the group key: who gets the key, what a broadcast may do, when the key changes."""

from broadcasts import HEARTBEAT, beats, forged, hold, is_broadcast, modules_of, play, switch_on, to_module
from nodebench import MODULE_BUS, App, Bench, clear_frame, keyed_bench
from packtrust.group import GroupReceiver, GroupSender
from packtrust.messages.table import STATE_OFF, STATE_ON, STATE_STANDBY
from packtrust.segmentation import Reassembler
from packtrust.workspace import Workspace

PACK_LOSS_MS = 11100


# -- the key -----------------------------------------------------------------------------------------------------------


def test_every_module_is_given_the_key_and_says_so():
    bench, _ = keyed_bench(3)
    pack = bench.nodes["pack"]
    assert pack.broadcast.members == 3 and pack.broadcast.rekeyed == 1
    keys = [module._group.key_id for module in modules_of(bench)]
    assert keys == [pack.broadcast._group.key_id] * 3
    bench.run(3000)
    assert pack.broadcast.rekeyed == 1


def test_a_lost_key_is_given_again():
    bench, _ = keyed_bench(2)
    pack = bench.nodes["pack"]
    hold(bench, lambda frame: frame.arbitration_id >> 18 == 0x51B)
    number = bench.nodes["module1"].own_node
    bench.boot("module1")
    bench.until(lambda: pack.slots[number].established and pack.broadcast._has[number] == 1)
    assert modules_of(bench)[1]._group is None
    bench.spy = None
    bench.until(lambda: pack.broadcast.members == 2, 2500)
    assert modules_of(bench)[1]._group.key_id == pack.broadcast._group.key_id


def test_one_heartbeat_every_200_ms_however_many_modules():
    for count in (1, 4):
        bench, _ = keyed_bench(count)
        bench.only = lambda bus, frame: bus == MODULE_BUS and frame.arbitration_id >> 18 == 0x517
        bench.keep = 400
        since_ms = bench.now_ms + 1
        bench.run(4000)
        times = [at_ms for at_ms, _ in beats(bench, since_ms)]
        assert len(times) == 20
        for index in range(1, 20):
            assert 190 <= times[index] - times[index - 1] <= 210
        times = [at_ms for at_ms, _ in bench.frames(MODULE_BUS, 0x517, True, since_ms)]
        assert len(times) == 80  # and none to a module by itself


def test_nothing_is_broadcast_while_nobody_could_open_it():
    bench = Bench(2)
    App(bench)
    bench.run(3000)
    assert beats(bench) == []


def test_a_key_that_was_just_drawn_is_given_before_it_is_used():
    bench, _ = keyed_bench(2)
    pack = bench.nodes["pack"]
    bench.log.clear()
    bench.only = is_broadcast
    pack.broadcast._draw(bench.now_ms)
    pack.broadcast.send()
    bench.deliver()
    assert beats(bench) == []
    bench.until(lambda: pack.broadcast.members == 2, 1000)
    bench.run(1000)
    opened = [module._group.beat for module in modules_of(bench)]
    assert opened == [pack.broadcast._group.beat] * 2 and len(beats(bench)) >= 4


def test_the_key_changes_when_a_member_falls_silent():
    bench, _ = keyed_bench(3)
    pack = bench.nodes["pack"]
    captured = bench.nodes["module2"]
    old = captured._group.key_id
    bench.off("module2")
    bench.until(lambda: pack.broadcast._group.key_id != old, 6000)
    bench.until(lambda: pack.broadcast.members == 2, 1000)
    for module in modules_of(bench):
        assert module._group.key_id == pack.broadcast._group.key_id != old
    # With the key it left with it reads nothing that is said now ...
    bench.log.clear()
    bench.only = is_broadcast
    bench.run(1000)
    heard = beats(bench)
    assert len(heard) >= 4
    for _, frames in heard:
        for frame in frames:
            assert captured._group.feed(frame, bench.now_ms) is None
        assert captured._group.reason == "unknown"
    # ... and lowers nobody.
    before = [module.max_state for module in modules_of(bench)]
    play(bench, forged(captured, STATE_OFF))
    assert [module.max_state for module in modules_of(bench)] == before
    assert all(module.counters["group-unknown"] for module in modules_of(bench))


def test_the_key_changes_when_a_member_is_released():
    bench, _ = keyed_bench(2)
    pack = bench.nodes["pack"]
    old = pack.broadcast._group.key_id
    bench.nodes["module1"].reset()
    bench.until(lambda: pack.broadcast._group.key_id != old, 6000)
    assert bench.nodes["module1"]._group is None
    bench.until(lambda: pack.broadcast.members == 1, 1000)
    assert bench.nodes["module0"]._group.key_id == pack.broadcast._group.key_id


def test_the_key_changes_when_the_keys_with_a_member_are_gone():
    bench, _ = keyed_bench(2)
    pack = bench.nodes["pack"]
    old = pack.broadcast._group.key_id
    pack.slots[2].unkey()
    bench.run(250)
    assert pack.broadcast._group.key_id != old
    bench.until(lambda: pack.broadcast.members == 1, 1000)


def test_a_module_that_was_silent_gets_the_present_key():
    bench, _ = keyed_bench(2)
    pack = bench.nodes["pack"]
    bench.off("module1")
    bench.until(lambda: pack.broadcast.rekeyed == 2, 6000)
    bench.boot("module1")
    bench.until(lambda: pack.broadcast.members == 2, 5000)
    assert bench.nodes["module1"]._group.key_id == pack.broadcast._group.key_id


def test_a_restarted_pack_draws_a_key_of_its_own():
    bench, _ = keyed_bench(2)
    old = bench.nodes["pack"].broadcast._group.key_id
    bench.boot("pack")
    pack = bench.nodes["pack"]
    bench.until(lambda: pack.broadcast.members == 2, 5000)
    assert pack.broadcast._group.key_id != old
    bench.sound()


def test_no_iv_is_used_twice():
    bench, _ = keyed_bench(2)
    bench.only = is_broadcast
    bench.keep = 4000
    pack = bench.nodes["pack"]
    for _ in range(3):
        bench.off("module1")
        bench.until(lambda: pack.broadcast.members == 1, 6000)
        bench.boot("module1")
        bench.until(lambda: pack.broadcast.members == 2, 5000)
    bench.run(400)
    ivs = set()
    bases = set()
    heard = beats(bench)
    reassembler = Reassembler()
    for at_ms, frames in heard:
        for frame in frames:
            record = reassembler.feed(frame, at_ms)
        ivs.add(bytes(record[:12]))
        bases.add(bytes(record[:4]))
    assert len(heard) > 60 and len(ivs) == len(heard)
    assert len(bases) == 4


def test_comings_and_goings_do_not_fill_the_bus_with_keys():
    bench, _ = keyed_bench(3)
    pack = bench.nodes["pack"]
    drawn = pack.broadcast.rekeyed
    for name in ("module0", "module1", "module2"):
        bench.nodes[name].reset()
        bench.run(100)
    bench.run(6000)
    assert 1 <= pack.broadcast.rekeyed - drawn <= 3
    assert pack.broadcast.members == 0


# -- what a broadcast may do -------------------------------------------------------------------------------------------


def test_a_broadcast_alone_lowers_all_modules():
    bench, app = keyed_bench(3)
    switch_on(bench, app)
    hold(bench, to_module)
    app.keep_alive = False
    bench.run(600 + 100)
    assert {module.state for module in modules_of(bench)} == {STATE_STANDBY}
    bench.run(600)
    assert {module.state for module in modules_of(bench)} == {STATE_OFF}


def test_a_silent_vcu_is_noticed_in_its_time():
    """0.6 s to Standby, 1.2 s to Off (the field's MCU timeouts), from the last keep-alive on, within a tick."""
    bench, app = keyed_bench(2)
    switch_on(bench, app)
    heard = []
    bench.spy = lambda bus, sender, frame: heard.append(bench.now_ms) if sender == "app" else None
    bench.run(1000)
    app.keep_alive = False
    start_ms = heard[-1]
    times = {}
    while bench.now_ms < start_ms + 1500:
        bench.run(5)
        for module in modules_of(bench):
            times.setdefault((module.own_node, module.state), bench.now_ms - start_ms)
    for number in (1, 2):
        assert 600 <= times[(number, STATE_STANDBY)] <= 600 + 55
        assert 1200 <= times[(number, STATE_OFF)] <= 1200 + 55


def test_a_broadcast_never_raises():
    bench, app = keyed_bench(2)
    one, two = modules_of(bench)
    for state in (STATE_STANDBY, STATE_ON):
        play(bench, forged(one, state), "module0")
        assert two.max_state == STATE_OFF and two.state == STATE_OFF
    switch_on(bench, app)
    # A module that was lowered for itself stays so, while the broadcast allows the others more.
    app.seal("MODULE_COMMAND", module_id=two.own_node, contactor_state=STATE_STANDBY)
    bench.run(1000)
    assert (one.state, two.state, two.max_state) == (STATE_ON, STATE_STANDBY, STATE_STANDBY)


def test_a_broadcast_keeps_no_module_alive():
    """The pack's loss is counted from the last authentic record of the pair: 11.1 s, broadcasts or not."""
    bench, app = keyed_bench(2)
    switch_on(bench, app)
    one, two = modules_of(bench)
    start_ms = bench.now_ms
    hold(bench, lambda frame: frame.arbitration_id & 0xFF == two.own_node)
    opened = two._group.beat
    bench.run(PACK_LOSS_MS - 300)
    assert two.state == STATE_ON
    bench.run(500)
    assert two.state == STATE_OFF and two.counters["pack-lost"] == 1 and one.state == STATE_ON
    assert bench.now_ms - start_ms < PACK_LOSS_MS + 300
    # Broadcasts came all the time, until the pack counted the module as lost and drew another key.
    assert two._group.beat >= opened + 15


def test_what_a_member_forges_only_lowers():
    bench, app = keyed_bench(2)
    switch_on(bench, app)
    one, two = modules_of(bench)
    alive_ms = two._pack.heard_ms
    play(bench, forged(one, STATE_STANDBY), "module0")
    assert two.state == STATE_STANDBY
    assert two._pack.heard_ms == alive_ms
    bench.run(2500)
    # Its poll gives it its highest state again, and the app's command, repeated, its state.
    assert two.max_state == STATE_ON
    switch_on(bench, app)


def test_a_recorded_broadcast_does_nothing_later():
    bench, app = keyed_bench(2)
    bench.run(300)
    recorded = [frames for _, frames in beats(bench)][-1]
    switch_on(bench, app)
    bench.run(300)
    refused = [module.counters.get("group-replay", 0) for module in modules_of(bench)]
    play(bench, recorded)
    for module, before in zip(modules_of(bench), refused):
        assert module.state == STATE_ON
        assert module.counters["group-replay"] == before + 1


def test_a_recorded_broadcast_does_nothing_to_a_module_that_came_later():
    bench, app = keyed_bench(2)
    bench.run(300)
    recorded = [frames for _, frames in beats(bench)]
    pack = bench.nodes["pack"]
    late = bench.boot("module1")
    bench.until(lambda: late._group is not None, 3000)
    bench.run(300)
    assert pack.broadcast.rekeyed == 1  # the very key they were sealed under
    hold(bench, lambda frame: is_broadcast(MODULE_BUS, frame))
    switch_on(bench, app)
    bench.spy = None
    for frames in recorded:
        play(bench, frames)
    assert bench.nodes["module1"].state == STATE_ON
    assert bench.nodes["module1"].counters["group-replay"] >= len(recorded)


def test_a_recorded_broadcast_does_nothing_before_the_first_poll_either():
    """The key comes with the counter it is at."""
    bench, _ = keyed_bench(2)
    bench.only = is_broadcast
    bench.run(1000)
    recorded = [frames for _, frames in beats(bench)]
    late = bench.boot("module1")
    hold(bench, lambda frame: is_broadcast(MODULE_BUS, frame) or frame.arbitration_id >> 18 == 0x512)
    bench.until(lambda: late._group is not None, 3000)
    bench.spy = None  # no time passes from here on: no poll comes
    beat = late._group.beat
    for frames in recorded:
        play(bench, frames)
    assert late._group.beat == beat >= len(recorded) > 3
    assert late.counters["group-replay"] == len(recorded)


def test_a_broadcast_held_back_does_nothing_after_the_next_poll():
    bench, app = keyed_bench(1)
    module = bench.nodes["module0"]
    held = []

    def spy(bus, sender, frame):
        if is_broadcast(bus, frame):
            held.append(frame.copy())
            return False

    bench.spy = spy
    bench.run(450)
    switch_on(bench, app)  # and polls, which all get through
    bench.spy = None
    play(bench, held[:4])
    assert module.state == STATE_ON
    assert module.counters["group-replay"] == 1


def test_another_packs_broadcast_is_not_taken():
    bench, app = keyed_bench(2)
    switch_on(bench, app)
    other, _ = keyed_bench(2, pack_config={"unique_id": 0x50000002})
    other.only = is_broadcast
    other.run(400)
    frames = [frames for _, frames in beats(other)][-1]
    play(bench, frames)
    for module in modules_of(bench):
        assert module.state == STATE_ON
    # Nor if it had the same secret: the key is bound to the pack's fingerprint.
    secret = bytes(range(32))
    sealed = GroupSender(Workspace(), secret, bytes(32)).seal(HEARTBEAT, b"\x00")
    receiver = GroupReceiver(Workspace(), secret, bench.nodes["pack"].identity.fingerprint)
    assert [receiver.feed(frame, 0) for frame in sealed] == [None] * 4 and receiver.reason == "unknown"


def test_forged_and_clear_broadcasts_do_nothing():
    bench, app = keyed_bench(2)
    switch_on(bench, app)
    bench.only = is_broadcast
    bench.run(300)
    genuine = [frames for _, frames in beats(bench)][-1]
    for place in range(29):
        frames = [frame.copy() for frame in genuine]
        for frame in frames:
            frame.arbitration_id ^= 0x10000 if place % 2 else 0
        data = bytearray(frames[place // 8].data)
        data[place % 8] ^= 1
        if place == 11:
            data[place % 8] |= 0xF0  # a counter yet to come
        frames[place // 8].data = bytes(data)
        play(bench, frames)
    for state in range(3):
        bench.inject(MODULE_BUS, clear_frame("MAX_STATE", 0, max_state=state))
    for module in modules_of(bench):
        assert module.state == STATE_ON and module.max_state == STATE_ON
        assert module.counters["group-tag"] >= 1 and module.counters["clear"] >= 3
    bench.sound()


def test_a_new_session_is_given_the_key_again():
    bench, _ = keyed_bench(1)
    pack = bench.nodes["pack"]
    before = bench.nodes["module0"]._group
    pack.slots[1].connect()
    bench.until(lambda: bench.nodes["module0"]._group is not before, 1000)
    bench.run(100)
    assert pack.broadcast.members == 1 and pack.broadcast.rekeyed == 1
    assert bench.nodes["module0"]._group.key_id == before.key_id


def test_who_may_have_kept_the_key_through_a_new_session_is_still_a_holder():
    bench, _ = keyed_bench(2)
    pack = bench.nodes["pack"]
    old = pack.broadcast._group.key_id
    hold(bench, lambda frame: frame.arbitration_id >> 18 == 0x51B)
    pack.slots[bench.nodes["module1"].own_node].connect()
    bench.run(300)
    bench.off("module1")
    bench.spy = None
    bench.until(lambda: pack.broadcast._group.key_id != old, 6000)
