"""Attack: a public key that makes every shared secret zero.

Setting    a device takes a package, and later runs the pair exchange with a captured peer.
Means      points of small order (RFC 7748, section 7) as the peer's binding key, in a package of the true owner.
Success    would be keys that rest on a secret of zeros.
"""

import pytest

from attack_suite import Attack
from attacker import PACK, rogue_app
from packtrust import package, provision
from weakening import Weakening

ATTACK = Attack(
    name="points of small order",
    source="own",
    defence="an all-zero X25519 result is refused",
    without="an exchange that takes every result",
    weakening=Weakening(
        ("packtrust.crypto", "    if compare_digest(shared, bytes(_X25519_LENGTH)):", "    if False:"),
    ),
)

POINTS = [
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    b"\xec" + b"\xff" * 30 + b"\x7f",
]


def carry_out(bench, point):
    bench.pack.run_for(2000)
    node = bench.pack.node("pack")
    owner = rogue_app(bench, "owner")
    identity = owner.identify(PACK)
    content = owner.make_package(identity, PACK, "lct-app", point)
    body, _, _ = package.seal(content, identity.public_key, owner.private, bytes(range(32)), bytes(node.claim_code()))
    message = owner.ask(PACK, provision.PACKAGE, body)
    return "a peer of small order is taken" if message.kind == provision.RECEIPT else ""


@pytest.mark.parametrize("number", range(len(POINTS)))
def test_attack(fresh, number):
    assert carry_out(fresh, POINTS[number]) == ""
    assert fresh.pack.node("pack").endpoint.staged == 0


def test_control(weak_fresh):
    assert carry_out(weak_fresh, POINTS[0])
