"""Attack: an old package is delivered again.

Setting    a keyed pack that has gone on to its second epoch.
Means      the owner's own packages of the first epoch, recorded, in their frames.
Success    would be a device that takes one: back to an epoch whose keys may be known by now.
"""

from attack_suite import Attack
from attacker import PACK, Secrets, commission, nodes_of, rogue_app, unharmed
from packtrust import provision
from weakening import Weakening

ATTACK = Attack(
    name="stale package",
    source="own; S7",
    defence="the package counter, in the sealed part, must rise; so must the epoch of a relationship",
    without="a device that looks at neither counter nor epoch",
    weakening=Weakening(
        ("packtrust_node.taking", "    if content.counter <= identity.counter:", "    if False:"),
        ("packtrust_node.taking", "        if content.epoch <= known.epoch:", "        if False:"),
    ),
)


def carry_out(bench):
    with Secrets() as secrets:
        commission(bench)
        for lct_id in list(bench.store.relationships):
            bench.run(bench.provisioner().install(lct_id))
            record = bench.store.relationships[lct_id]
            assert record.epoch == 2
        for lct_id in list(bench.store.relationships):
            bench.run(bench.provisioner().install(lct_id))
    bench.pack.run_for(35_000)  # beyond the time in which a repeat of the owner's own is answered
    rogue = rogue_app(bench)
    taken = []
    tried = 0
    for content, body in secrets.bodies:
        # Mode Auth only: what opened with a claim code was for an unclaimed device.
        if body[0] != 2 or content.epoch > 2:
            continue
        for target in (PACK, *(node.own_node for node in nodes_of(bench)[1:])):
            tried += 1
            message = rogue.ask(target, provision.PACKAGE, body)
            if message.kind == provision.RECEIPT:
                taken.append((target, content.epoch))
    assert tried > 10
    return "a package of epoch %d is taken again" % taken[0][1] if taken else ""


def test_attack(fresh):
    assert carry_out(fresh) == ""
    unharmed(fresh)


def test_control(weak_fresh):
    assert carry_out(weak_fresh)
