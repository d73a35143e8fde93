"""Attack: a flood of forged frames.

Setting    a keyed pack at work.
Means      a station on a bus, as many frames as it carries: forged records in every stream, new streams, half
           transfers, handshakes, pair exchanges, provisioning messages.
Success    would be a record taken, a node that stops, or memory that grows with the flood.
"""

import random
import tracemalloc
from pathlib import Path

import pytest

import packtrust
import packtrust_node
from attack_suite import Attack
from attacker import (
    PACK,
    attacker,
    leave,
    modules_of,
    nodes_of,
    obeyed,
    opening,
    relations_of,
    sessions,
    total,
    unharmed,
)
from packtrust.arbitration import ENCRYPTED, TOGGLE, compose
from packtrust.frame import Frame
from packtrust.messages import MESSAGES
from packtrust.messages.table import STATE_ON
from packtrust.policy import DEFAULT_POLICY
from packtrust.segmentation import Segmenter
from packtrust_host.sim import can_bits
from weakening import Weakening

ATTACK = Attack(
    name="forged flood",
    source="own; SPsec inject_bus_flood",
    defence="nothing moves before the tag verified; one buffer a stream, a cap on streams",
    without="a window that moves before the tag is verified",
    weakening=Weakening(
        (
            "packtrust.channel",
            "        if not rx.open(work, size, AAD_LENGTH):",
            "        rx.accept(counter)\n        if not rx.open(work, size, AAD_LENGTH):",
        ),
    ),
)


SEALABLE = [row.base for row in MESSAGES if DEFAULT_POLICY.is_sealable(row.base)]


def channels_of(bench):
    pack = bench.pack.node("pack")
    found = [bench.node.channel, pack.app.channel]
    found += [slot.channel for slot in pack.keyed_slots()]
    return found + [node._pack.channel for node in modules_of(bench)]


def held(bench):
    """Reassembly buffers and waiting frames of all nodes: what a flood could make grow."""
    size = 0
    for channel in channels_of(bench):
        size += len(channel._shared.reassembler.partials)
        if channel._isotp is not None:
            size += len(channel._isotp._waiting) + len(channel._isotp._buffer or b"")
    for name in ("pack", "module1", "module2"):
        size += sum(len(queue) for queue in bench.pack.stations[name].queues)
    return size


def records(rng, nodes, iv_base=None):
    """Whole forged records, of every base and length, in their frames."""
    segmenter = Segmenter()
    while True:
        full_id = compose(rng.choice(SEALABLE), rng.choice(nodes)) | ENCRYPTED
        record = (iv_base or rng.randbytes(4)) + rng.randbytes(rng.choice((24, 32, 36, 60, 124)))
        yield from segmenter.split(full_id, record)


def loose_chunks(rng, nodes):
    """Chunks that belong to nothing, in as many streams as there are."""
    while True:
        head = compose(rng.randrange(0x400, 0x540), rng.choice(nodes)) | ENCRYPTED | rng.choice((0, TOGGLE))
        yield Frame(head | rng.randrange(0x10000) & 0xFF00, rng.randbytes(rng.randrange(9)))


def handshakes(rng, nodes, bases):
    """HELLO, REPLY, FINISH, OFFER, ANSWER, CONFIRM, AGREED with random content."""
    segmenter = Segmenter()
    kinds = {0x01: 26, 0x02: 56, 0x03: 36, 0x11: 76, 0x12: 76, 0x13: 44, 0x14: 44}
    while True:
        kind = rng.choice(list(kinds))
        body = bytes((kind, 1)) + rng.randbytes(kinds[kind] - 2)
        yield from segmenter.split(compose(rng.choice(bases), rng.choice(nodes)), body)


def transfers(rng, nodes, bases):
    """First frames of long transfers that never go on, single frames with provisioning messages, loose rest."""
    while True:
        head = compose(rng.choice(bases), rng.choice(nodes)) | rng.choice((0, ENCRYPTED))
        kind = rng.randrange(4)
        if kind == 0:
            size = rng.randrange(8, 4096)
            yield Frame(head, bytes((0x10 | size >> 8, size & 255)) + rng.randbytes(6))
        elif kind == 1:
            yield Frame(head, bytes((0x20 | rng.randrange(16),)) + rng.randbytes(7))
        elif kind == 2:
            body = bytes((1, rng.choice((*range(1, 18), 0x7F)), rng.choice(nodes), rng.randrange(256)))
            yield Frame(head, bytes((len(body) + 2,)) + body + rng.randbytes(2))
        else:
            yield Frame(head, rng.randbytes(8))


def flood(bench, bus, frames, count):
    """`count` frames, as fast as the attacker's controller takes them; frames really on the bus."""
    station = attacker(bench, bus, "flood-" + bus)
    driver = bench.pack.stations["flood-" + bus].drivers[0]
    before = driver.counters["sent"]
    sent = 0
    while sent < count:
        for _ in range(4):
            station.send(next(frames))
            sent += 1
        bench.pack.run_for(2)
    assert driver.counters["sent"] - before > 0.9 * count
    leave(bench, "flood-" + bus)
    return sent


FLOODS = {
    "records to the pack": ("module", lambda rng: records(rng, (1, 2))),
    "records to the app": ("vcu", lambda rng: records(rng, (PACK,))),
    "chunks on the module bus": ("module", lambda rng: loose_chunks(rng, (0, 1, 2, 3, 0x1F, 0xFF))),
    "chunks on the VCU bus": ("vcu", lambda rng: loose_chunks(rng, (0, PACK, 0x41, 0x7F))),
    "handshakes with modules": ("module", lambda rng: handshakes(rng, (1, 2), (0x531, 0x539))),
    "handshakes with the app": ("vcu", lambda rng: handshakes(rng, (PACK,), (0x433, 0x434))),
    "transfers to modules": ("module", lambda rng: transfers(rng, (1, 2), (0x530, 0x538, 0x532, 0x53A))),
    "transfers to the pack": ("vcu", lambda rng: transfers(rng, (PACK,), (0x431, 0x432, 0x437, 0x438))),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_flood(keyed, kind):
    bus, make = FLOODS[kind]
    rng = random.Random(kind)
    before = [(bytes(node.identity.owner_public), relations_of(node)) for node in nodes_of(keyed)]
    opened_by_modules = {}
    for node in modules_of(keyed):
        opened_by_modules[node.unique_id] = node.state
    flood(keyed, bus, make(rng), 3000)
    middle = held(keyed)
    flood(keyed, bus, make(rng), 3000)
    keyed.pack.run_for(1500)
    # A second flood of the same size leaves no more behind than the first.
    assert held(keyed) <= max(middle, 200)
    assert [(bytes(node.identity.owner_public), relations_of(node)) for node in nodes_of(keyed)] == before
    assert {node.unique_id: node.state for node in modules_of(keyed)} == opened_by_modules
    for node in nodes_of(keyed):
        assert node.endpoint.staged == 0
    unharmed(keyed)


def test_forged_tags_are_counted_and_nothing_else_happens(keyed):
    """With the right session in the IV: only the tag stands between him and the module."""
    module = keyed.pack.node("module1")
    channel = module._pack.channel
    iv_base = opening(channel).iv_base  # it is in every record on the bus
    before = channel.stats.get("tag", 0)
    window = channel._session.highest
    rng = random.Random(4)

    def forged():
        segmenter = Segmenter()
        while True:
            counter = (window + rng.randrange(1000, 1 << 40)).to_bytes(8, "big")
            full_id = compose(rng.choice((0x512, 0x514, 0x517, 0x519, 0x51A)), module.own_node) | ENCRYPTED
            yield from segmenter.split(full_id, iv_base + counter + rng.randbytes(24))

    flood(keyed, "module", forged(), 2500)
    assert channel.stats["tag"] - before > 200
    # A forged counter far ahead moves no window: else the pack's own records would all be too old.
    assert channel._session.highest < window + 1000
    unharmed(keyed)


def test_the_pack_works_while_the_flood_runs(keyed):
    """A third of the bus belongs to the attacker: commands are still obeyed."""
    station = attacker(keyed, "module")
    frames = records(random.Random(5), (9, 10, 0x1F))

    def burst():
        for _ in range(4):
            station.send(next(frames))

    for _ in range(20):
        burst()
        keyed.pack.run_for(4)
    command = keyed.node.set_state(STATE_ON)
    while not command.done:
        burst()
        keyed.pack.run_for(4)
    assert command.state == "obeyed", command
    assert sessions(keyed)
    leave(keyed)
    unharmed(keyed)


def test_memory_does_not_grow(keyed):
    """What the whole process holds after 9000 forged frames more is the same within noise."""
    obeyed(keyed, STATE_ON)
    rng = random.Random(6)

    def all_sorts():
        sources = [make(rng) for bus, make in FLOODS.values() if bus == "module"]
        while True:
            yield next(rng.choice(sources))

    frames = all_sorts()
    # As much as is measured: the queues keep the memory of their longest wait, and that is bounded, not growth.
    flood(keyed, "module", frames, 3000)
    keyed.pack.run_for(2000)
    for station in keyed.pack.stations.values():
        station.log.clear()
    prepared = [next(frames) for _ in range(9_000)]  # the attacker's own memory is not what is measured
    frames = iter(prepared)
    tracemalloc.start(1)
    try:
        first = tracemalloc.take_snapshot()
        for _ in range(3):
            flood(keyed, "module", frames, 3000)
            for station in keyed.pack.stations.values():
                station.log.clear()
        keyed.pack.run_for(2000)
        can_bits._encode.cache_clear()  # the simulator's, bounded: it keeps frames of all nodes
        second = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    # By their whole path: a checkout may be called packtrust, too.
    only = [
        tracemalloc.Filter(True, str(Path(package.__file__).parent / "*")) for package in (packtrust, packtrust_node)
    ]
    grown = sum(item.size_diff for item in second.filter_traces(only).compare_to(first.filter_traces(only), "filename"))
    top = second.filter_traces(only).compare_to(first.filter_traces(only), "lineno")[:8]
    # What was made anew meanwhile counts as grown, for what it replaced was not traced; 8 bytes a frame would be 72 kB.
    assert grown < 60_000, top
    assert total(keyed.pack.node("pack"), "internal") == 0


def carry_out(bench):
    """One forged record with a counter far ahead: does the module still hear its pack?"""
    module = bench.pack.node("module1")
    channel = module._pack.channel
    counter = (channel._session.highest + 100_000).to_bytes(8, "big")
    full_id = compose(0x517, module.own_node) | ENCRYPTED
    station = attacker(bench, "module")
    station.send(*Segmenter().split(full_id, opening(channel).iv_base + counter + bytes(24)))
    bench.pack.run_for(300)
    before = channel.stats["opened"]
    bench.pack.run_for(1000)
    return "" if channel.stats["opened"] > before else "a forged counter shuts out the pack's own records"


def test_attack(keyed):
    assert carry_out(keyed) == ""
    unharmed(keyed)


def test_control(weak):
    assert carry_out(weak)
