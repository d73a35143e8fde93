"""Attack: to be unseen, to make a node destroy its keys, to ruin an honest peer's reputation, to wear out its flash.

Setting    a keyed pack at work.
Means      a station on each bus that sends what it likes: records with forged tags, the nodes' own IDs, handshakes, clear
           commands, announcements in a module's name, packages.
Success    would be a node that wipes a key or stops because of it, a lower trust score of a module that did nothing, no sign
           of it in the audit log, or a flash write for every frame.
"""

import random
from decimal import Decimal

import pytest

from attacker import attacker, clear_frame, leave, modules_of, nodes_of, obeyed, opening, to_pack, unharmed
from packtrust.arbitration import ENCRYPTED, compose
from packtrust.messages.table import STATE_ON
from packtrust.segmentation import Segmenter
from packtrust_host.demo.ledger import evidence_of, share
from packtrust_host.demo.view import refused_of


def keys_of(bench):
    """All that must not be wiped, by node."""
    return [
        (
            bytes(node.identity.private),
            bytes(node.identity.owner_public),
            sorted(bytes(item.root) for item in node.relations.values()),
        )
        for node in nodes_of(bench)
    ]


def writes_of(bench):
    """How often each kind of record was written, by node; but for what honest traffic writes by itself."""
    return [
        {kind: count for kind, count in node.env.store.written.items() if kind != "usage"} for node in nodes_of(bench)
    ]


def everything(bench, rounds=40):
    """Everything he can send that is counted, again and again."""
    rng = random.Random("signs")
    segmenter = Segmenter()
    on_modules, on_vcu = attacker(bench, "module", "forger1"), attacker(bench, "vcu", "forger2")
    module = bench.pack.node("module1")
    pack = bench.pack.node("pack")
    node = module.own_node
    live = {
        0x512: opening(module._pack.channel).iv_base,
        0x502: opening(pack.keyed_slots()[0].channel).iv_base,
    }
    vcu_iv = {0x400: opening(pack.app.channel).iv_base, 0x410: opening(bench.node.channel).iv_base}
    for _ in range(rounds):
        for station, bases, byte in ((on_modules, live, node), (on_vcu, vcu_iv, 0x40)):
            for base, iv_base in bases.items():
                record = iv_base + (rng.randrange(1 << 30) + (1 << 40)).to_bytes(8, "big") + rng.randbytes(24)
                station.send(*segmenter.split(compose(base, byte) | ENCRYPTED, record))
        on_modules.send(clear_frame("STATE_CHANGE", node, state=0), clear_frame("ALL_ISOLATE", 0))
        on_modules.send(clear_frame("DEREGISTER", node), clear_frame("REGISTRATION", 0xFF, module_id=9))
        on_modules.send(
            clear_frame("ANNOUNCEMENT", 0xFF, unique_id=module.unique_id, manufacturer=2, part=3),
            *segmenter.split(compose(0x531, node), bytes((2, 1)) + rng.randbytes(54)),
            *segmenter.split(compose(0x539, node), bytes((1, 1, 1)) + rng.randbytes(23)),
        )
        on_vcu.send(*to_pack(0x03, 0x40, bytes((2,)) + rng.randbytes(200)))
        bench.pack.run_for(100)
    bench.pack.run_for(2000)
    leave(bench, "forger1")
    leave(bench, "forger2")


def test_he_is_seen_and_nothing_is_wiped_or_worn_out(keyed):
    obeyed(keyed, STATE_ON)
    before = keys_of(keyed)
    written = writes_of(keyed)
    everything(keyed)
    assert keys_of(keyed) == before
    pack = keyed.pack.node("pack")
    assert pack.guard.signs and pack.guard.score > 30
    assert keyed.pack.run_until(lambda: 0 in keyed.node.model.interference, 12_000)
    told = keyed.node.model.interference[0]
    assert told["signs"] == pack.guard.signs
    for now, then in zip(writes_of(keyed), written, strict=True):
        # Every sign once: a write and a deletion each at most, whatever he sends.
        assert now.pop("audit") - then.pop("audit") <= 2 * 6, (now, then)
        assert now == then
    again = writes_of(keyed)
    everything(keyed, 10)
    assert writes_of(keyed) == again
    assert keys_of(keyed) == before
    unharmed(keyed)


def test_nothing_that_is_counted_wipes_a_key(keyed):
    """Whatever a node may count as refused, as often as may be."""
    from packtrust import audit

    before = keys_of(keyed)
    for node in nodes_of(keyed):
        for what in audit.reasons():
            for _ in range(50):
                node.count(what)
    keyed.pack.run_for(3000)
    assert keys_of(keyed) == before
    for node in nodes_of(keyed):
        assert node.guard.score > 90 and node.guard.signs == 0b111111
        node.counters["internal"] = 0
    unharmed(keyed)


def test_his_frames_do_not_touch_an_honest_peers_score(keyed):
    obeyed(keyed, STATE_ON)
    assert evidence_of(keyed.node) == (1, 1)
    everything(keyed)
    records = keyed.node.channel.stats
    refused = sum(refused_of(records).values())
    assert refused > 20  # he was heard
    assert evidence_of(keyed.node) == (1, 1)
    # Positive control: of all records the share that opened, which he can lower as he likes.
    assert share(records["opened"], refused) < Decimal(1)


@pytest.mark.parametrize("answer", [True, False])
def test_the_packs_own_word_does(keyed, answer):
    """Authentic evidence counts: a command that the pack refuses under its session."""
    command = keyed.node.module_command(9, STATE_ON) if answer else keyed.node.set_state(STATE_ON)
    assert keyed.pack.run_until(lambda: command.done, 10_000)
    assert (evidence_of(keyed.node)[1] < 1) == answer
    assert len(modules_of(keyed)) == 2
