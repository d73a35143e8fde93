"""Attack: a device is taken from its owner by a release.

Setting    a keyed pack at work.
Means      release packages sealed by a stranger's key, in every mode, with a high counter; the clear reset of the field.
Success    would be a device without its owner or its keys.
"""

from attack_suite import Attack
from attacker import PACK, nodes_of, rogue_app, total, unharmed
from packtrust import package, provision
from weakening import Weakening

ATTACK = Attack(
    name="rogue release",
    source="own; S15",
    defence="a release is a package of the pinned owner (HPKE Auth)",
    without="a device that opens packages of anybody who proves his own key",
    weakening=Weakening(
        (
            "packtrust_node.opening",
            "    if identity.claimed and sender != identity.owner_public:",
            "    if False:",
        ),
    ),
)


def carry_out(bench):
    rogue = rogue_app(bench)
    for target, node in [(PACK, nodes_of(bench)[0]), *((node.own_node, node) for node in nodes_of(bench)[1:])]:
        identity = rogue.identify(target)
        for code in (b"", bytes(16)):
            content = package.Release(identity.counter + 100)
            body, _, _ = package.seal(content, identity.public_key, rogue.private, rogue.entropy(32), code)
            rogue.ask(target, provision.PACKAGE, body)
        if not node.identity.claimed or not node.relations:
            return "a device was released by a stranger"
    return ""


def test_attack(keyed):
    assert carry_out(keyed) == ""
    assert sum(total(node, "not-owner") for node in nodes_of(keyed)) >= 6
    unharmed(keyed)


def test_control(weak):
    assert carry_out(weak)
