"""Attack: back to an epoch whose root is known by now.

Setting    a keyed pair of pack and module that has gone on to its second epoch; the root of the first is in the attacker's
           hands: from an old copy of a flash, or of the host's key store.
Means      the pack's place on the module bus: handshakes under epoch 1, with its true root, and records after it.
Success    would be a session of the first epoch, or a module that is switched On under it.
"""

from attack_suite import Attack
from nodebench import MODULE_BUS, Entropy
from packtrust.channel import MODULE_LINK, Channel
from packtrust.handshake import INITIATOR
from packtrust.keys import SIDE_A
from packtrust.messages import by_name, encode
from packtrust.messages.table import STATE_OFF, STATE_ON
from packtrust.policy import DEFAULT_POLICY
from rotation_bench import alone, epochs, relation_of, settled, use
from weakening import Weakening

ATTACK = Attack(
    name="old epoch",
    source="own",
    defence="the root of the epoch before is destroyed with the first record under the new one",
    without="ends that keep the root of the epoch before",
    weakening=Weakening(
        ("packtrust.channel", "            if old < session.epoch:\n", "            if False:\n"),
        (
            "packtrust_node.node",
            "        if relation is not None and relation.two_epochs and event.epoch == relation.epoch:",
            "        if False:",
        ),
    ),
)


def carry_out():
    bench, pack, module = alone()
    kept = relation_of(module, 1)
    root, relationship = bytes(kept.root), kept.relationship(module.identity.fingerprint)
    use(pack, 1, 6)
    bench.until(lambda: epochs(bench) == (2, 2) and module.neighbour(1).channel.session_epoch == 2, 10_000)
    bench.run(1500)
    bench.off("pack")
    thief = Channel(
        root,
        INITIATOR,
        1,
        clock=lambda: bench.now_ms,
        urandom=Entropy("thief"),
        relationship=relationship,
        side=SIDE_A,
        epoch=1,
        policy=DEFAULT_POLICY,
        link=MODULE_LINK,
    )

    def send(frames):
        for frame in frames:
            bench.inject(MODULE_BUS, frame.copy(), "thief")

    def spy(bus, sender, frame):
        if bus == MODULE_BUS and sender == "module0":
            thief.feed(frame)
        return True

    bench.spy = spy
    for _ in range(40):
        if not thief.connecting:
            thief.connect()
        thief.tick()
        send(thief.outgoing())
        bench.run(50)
        if thief.established:
            for name, values in (("MAX_STATE", {"max_state": STATE_ON}), ("STATE_CHANGE", {"state": STATE_ON})):
                row = by_name(name)
                send(thief.seal(row.base << 18 | 1, bytes(encode(row, values))))
                bench.run(20)
            break
    bench.spy = None
    if module.state != STATE_OFF:
        return "a module is On by a session of the epoch before", bench
    return ("a session of the epoch before" if thief.established else ""), bench


def test_attack():
    done, bench = carry_out()
    assert done == ""
    refused = bench.nodes["module0"].neighbour(1).channel.stats
    assert refused["handshake-epoch"] >= 2
    bench.boot("pack")
    bench.until(lambda: settled(bench, 2), 15_000)
    bench.sound()


def test_control(weakness):
    assert "On" in carry_out()[0]
