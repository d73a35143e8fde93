"""Signs, score and the ring of a node's audit log over longer times than a board has for its tests."""

import auditor
from nodebench import PACK_NODE, keyed_bench
from packtrust import audit
from packtrust_node import audit_log
from unit.core.test_node_audit import fill, owned


def test_an_unread_log_is_written_ever_more_rarely():
    bench, owner = owned(0, pack_config={"audit_interval_s": 100})
    pack = bench.nodes["pack"]
    start = pack.guard.entries
    for _ in range(150):  # 1500 s: 100 + 200 + 400 + 800
        bench.now_ms += 9500
        bench.run(500)
    assert 3 <= pack.guard.entries - start <= 4
    owner.log(PACK_NODE)
    assert pack.guard._interval_ms == 100000


def test_a_flood_writes_a_bounded_number_of_entries():
    """Whatever is counted, as often as may be: each sign once, the rest in one entry an interval."""
    bench, _ = owned(0)
    pack = bench.nodes["pack"]
    start = pack.guard.entries
    for _ in range(60):
        for what in audit.reasons():
            for _ in range(20):
                pack.count(what)
        bench.run(1000)
    assert pack.guard.entries - start <= len(audit.signs_of_tampering())


def test_keyed_nodes_in_peace_show_no_sign():
    bench, _ = keyed_bench(2)
    bench.run(15000)
    for node in bench.nodes.values():
        assert node.guard.signs == 0 and node.guard.score == 0, (node.counters, node.guard.signs)


def test_who_captures_a_node_cannot_cut_off_the_end():
    bench, owner = owned(0)
    pack = bench.nodes["pack"]
    fill(pack, 3)
    log = audit_log._load(pack)
    entries, part = owner.log(PACK_NODE)
    # He leaves out the last two, and answers with the only key he has.
    shorter = audit.Part(
        part.start, part.following - 2, 0, 0, 0, bytes(32), chain_of(entries[:-2]), macs(part, entries[:-2], log)
    )
    body = shorter.encode(log.key, bytes(16))
    key = auditor.key_of(owner.log_keys[PACK_NODE], shorter.following)
    assert not audit.is_reported(body, key, bytes(16))
    # Honest ones, so that the check above is not vacuous.
    assert audit.is_reported(part.encode(log.key, bytes(16)), log.key, bytes(16))


def chain_of(entries):
    chain = bytes(32)
    for entry in entries:
        chain = audit.link(chain, entry.raw)
    return chain


def macs(part, entries, log):
    return [(entry.raw, mac) for entry, (_, mac) in zip(entries, part.entries, strict=False)]


def test_the_ring_keeps_the_newest_and_says_what_is_lost():
    bench, owner = owned(0)
    pack = bench.nodes["pack"]
    fill(pack, 100)
    entries, part = owner.log(PACK_NODE)
    assert part.following == 103
    assert entries[0].number > 0 and entries[-1].number == 102
    assert 56 <= len(entries) <= 64
    # From anywhere in the middle of a block too.
    for first in (60, 61, 64, 99, 102, 103):
        assert [entry.number for entry in owner.log(PACK_NODE, first)[0]] == list(range(first, 103))
    assert len([name for name in bench._slots["pack"].files if name.startswith("audit")]) <= audit_log.BLOCKS + 2
