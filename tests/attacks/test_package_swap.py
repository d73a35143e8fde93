"""Attack: a module gets the package of another.

Setting    two modules that nobody has claimed; their owner seals a package for module 1.
Means      the attacker delivers it to module 2, with the target byte changed, and holds the right one back.
Success    would be a module that takes the keys, or the place, of another.
"""

from attack_suite import Attack
from attacker import rogue_app
from packtrust import package, provision
from weakening import Weakening

ATTACK = Attack(
    name="package swap",
    source="own",
    defence="a package is sealed to one binding key, with the device's fingerprint and claim code, for one node byte",
    without="the same binding key and claim code in every device, and no look at the node byte",
    weakening=Weakening(
        (
            "packtrust_node.identity",
            "    private = bytearray(_random(urandom, 32))",
            '    private = bytearray(b"k" * 32)',
        ),
        (
            "packtrust_node.identity",
            "x25519_public(private), fresh_code(urandom))",
            "x25519_public(private), bytes(range(16)))",
        ),
        (
            "packtrust_node.module",
            "        if package.role != RESPONDER or package.node != self.own_node:",
            "        package.node = self.own_node\n        if package.role != RESPONDER:",
        ),
    ),
)


def carry_out(bench):
    bench.pack.run_for(3000)
    one, two = bench.pack.node("module1"), bench.pack.node("module2")
    owner = rogue_app(bench, "owner")
    identity = owner.identify(one.own_node)
    content = owner.make_package(identity, one.own_node, "lct-1", bytes(range(1, 33)))
    body, _, _ = package.seal(content, identity.public_key, owner.private, owner.entropy(32), bytes(one.claim_code()))
    message = owner.ask(two.own_node, provision.PACKAGE, body)
    taken = message.kind == provision.RECEIPT or two.endpoint.staged or two.identity.claimed
    return "module 2 takes the package of module 1" if taken else ""


def test_attack(fresh):
    assert carry_out(fresh) == ""
    # The right one takes it.
    assert fresh.pack.node("module2").claim_code()


def test_control(weak_fresh):
    assert carry_out(weak_fresh)
