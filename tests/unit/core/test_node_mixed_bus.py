"""Old modules beside new ones: they obey what is clear and never ciphertext, for that is out of their reach."""

from channels import Clock, Entropy
from nodebench import MODULE_BUS, clear_frame, keyed_bench
from oldmodule import ISOLATE, OldModule
from packtrust.channel import OPENED, Channel
from packtrust.frame import Frame
from packtrust.handshake import INITIATOR, RESPONDER
from packtrust.messages.table import STATE_OFF, STATE_ON
from packtrust_node.links import module_link

ENCRYPTED = 0x20000
MIXED = {"mixed_bus": True}


def bench_with(mixed):
    """(bench, app, old module, sealed bases of the module bus seen): modules 1 and 2 are new, 3 is old."""
    options = {"pack_config": MIXED, "module_config": MIXED} if mixed else {}
    bench, app = keyed_bench(2, **options)
    old = OldModule(3)
    bases = set()

    def spy(bus, sender, frame):
        if bus == MODULE_BUS:
            old.on_frame(frame)
            if frame.arbitration_id & ENCRYPTED:
                bases.add(frame.arbitration_id >> 18)

    bench.spy = spy
    return bench, app, old, bases


def traffic(bench, app):
    """Everything the pack says to its modules: states, limits, balancing, time, isolation, polls, heartbeats."""
    app.seal("COMMAND", contactor_state=STATE_ON, balance=1)
    bench.run(500)
    for name in ("module0", "module1"):
        assert bench.nodes[name].state == STATE_ON
    app.seal("LIMITS_COMMAND", module_id=0, max_charge_ma=5000, max_discharge_ma=5000)
    app.seal("TIME", time_s=1234567890)
    bench.run(1500)
    app.seal("COMMAND", isolation=1)
    bench.run(500)
    for name in ("module0", "module1"):
        module = bench.nodes[name]
        assert module.state == STATE_OFF and module.time_s == 1234567890 and module.limits[1] == 5000
    assert app.values_by[("MODULE_STATE", 1)]["state"] == STATE_OFF
    bench.sound()


def test_old_modules_never_obey_ciphertext():
    bench, app, old, bases = bench_with(True)
    traffic(bench, app)
    assert [what for what in old.obeyed if what[2]] == []
    assert {0x602, 0x612, 0x614, 0x616, 0x617, 0x619, 0x61A, 0x61F} <= bases
    assert all(base >> 8 == 6 for base in bases)
    assert bench.nodes["pack"].broadcast.members == 2  # the broadcast has moved too


def test_without_the_shift_they_do():
    """The control: the same traffic, and an old module takes tags and IVs for states, times and orders."""
    bench, app, old, bases = bench_with(False)
    traffic(bench, app)
    ciphertext = {what[0] for what in old.obeyed if what[2]}
    assert 0x517 in ciphertext
    assert all(base >> 8 == 5 for base in bases)
    # With the module mask of its filter at zero (as it is after its first frame) it hears the others' commands too.
    other = OldModule(bench.nodes["module0"].own_node)
    bench.spy = lambda bus, sender, frame: other.on_frame(frame) if bus == MODULE_BUS else None
    traffic(bench, app)
    assert {0x516, 0x517, 0x51F} <= {what[0] for what in other.obeyed if what[2]}


def test_old_modules_obey_what_is_clear():
    bench, _, old, _ = bench_with(True)
    for frame in (
        clear_frame("MAX_STATE", 0, max_state=3),
        Frame(0x514 << 18 | 3, b"\x00\x03"),
        Frame(0x512 << 18 | 3, b"\x00"),
    ):
        bench.inject(MODULE_BUS, frame)
    assert old.state == STATE_ON
    bench.run(2000)
    assert old.state == STATE_ON and old.max_state == 3
    bench.inject(MODULE_BUS, clear_frame("ALL_ISOLATE", 0))
    assert old.state == STATE_OFF and old.obeyed[-1] == (0x51F, ISOLATE, 0)
    assert [bench.nodes[name].counters.get("clear", 0) for name in ("module0", "module1")] == [2, 2]


def test_both_ends_must_be_told():
    """The shift is in the policy's digest: a module that was not told of the mixed bus gets no session."""
    bench, _ = keyed_bench(1, pack_config=MIXED, module_config=MIXED)
    bench._configs["module0"] = dict(bench._configs["module0"], mixed_bus=False)
    bench.boot("module0")
    bench.run(5000)
    slot = bench.nodes["pack"].slots[1]
    assert not bench.nodes["module0"]._is_live
    assert slot.channel.stats["handshake-mac"] >= 1
    bench._configs["module0"]["mixed_bus"] = True
    bench.boot("module0")
    bench.until(lambda: bench.nodes["module0"]._is_live, 5000)


def test_sealed_frames_at_the_old_place_are_not_taken():
    bench, app, _, _ = bench_with(True)
    recorded = []
    bench.spy = lambda bus, sender, frame: recorded.append(frame.copy()) if bus == MODULE_BUS else None
    app.seal("COMMAND", contactor_state=STATE_ON)
    bench.run(300)
    bench.spy = None
    app.seal("COMMAND", contactor_state=STATE_OFF)
    bench.run(300)
    opened = [bench.nodes[name]._pack.channel.stats["opened"] for name in ("module0", "module1")]
    for frame in recorded:
        if frame.arbitration_id & ENCRYPTED:
            bench.inject(MODULE_BUS, Frame(frame.arbitration_id - (0x100 << 18), frame.data))
    assert [bench.nodes[name]._pack.channel.stats["opened"] for name in ("module0", "module1")] == opened
    bench.sound()


def test_long_records_move_too():
    link = module_link(MIXED)
    clock = Clock()
    ends = [
        Channel(bytes(range(32)), role, 5, clock, Entropy(role), names[0], names[1], link=link, policy=link.policy)
        for role, names in ((INITIATOR, ("p", "m")), (RESPONDER, ("m", "p")))
    ]
    ends[0].connect()
    seen = []
    event = None
    data = bytes(range(200))

    def carry():
        got = None
        for _ in range(80):
            for at in (0, 1):
                for frame in ends[at].outgoing():
                    seen.append(frame.arbitration_id)
                    event = ends[1 - at].feed(frame.copy())
                    if event is not None and event.kind == OPENED:
                        got = event.copy()
            clock.now_ms += 1
            ends[0].tick()
            ends[1].tick()
        return got

    carry()
    assert ends[0].established and ends[1].established
    del seen[:]
    for frame in ends[1].seal((0x502 + link.shift) << 18 | 5, data):
        seen.append(frame.arbitration_id)
        ends[0].feed(frame.copy())
    event = carry()
    assert event.data == data
    assert len(seen) > 20 and all(head >> 26 == 6 and head & ENCRYPTED for head in seen)
