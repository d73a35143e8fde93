"""Attack: COMMIT and ABORT come from a stranger.

Setting    the owner has sealed a package, the pair exchange is done, and the device waits for its owner's word.
Means      a station on the VCU bus; COMMIT and ABORT in the right form for the LCT and epoch, which PAIR shows to anybody.
Success    would be keys that become current before their owner has all proofs, or that are thrown away.
"""

import pytest

from attack_suite import Attack
from attacker import PACK, rogue_app
from packtrust import provision
from weakening import Weakening

ATTACK = Attack(
    name="forged orders",
    source="S7",
    defence="COMMIT and ABORT have MACs under a key exported from the very package",
    without="a device that obeys any COMMIT and ABORT",
    weakening=Weakening(
        (
            "packtrust_node.endpoint",
            "        if provision.check_mac(staged.receipt_key, provision.COMMIT, body) is None:",
            "        if False:",
        ),
        (
            "packtrust_node.endpoint",
            "        if provision.check_mac(staged.receipt_key, provision.ABORT, body) is None:",
            "        if False:",
        ),
    ),
)


def carry_out(bench, kind):
    bench.pack.run_for(2000)
    node = bench.pack.node("pack")
    owner = rogue_app(bench, "owner")
    wanted = owner.claim_pack(bytes(node.claim_code()), commit=False)
    stranger = rogue_app(bench, "stranger")
    body = provision.with_mac(bytes(32), kind, provision.epoch_body(wanted.tag, wanted.epoch))
    stranger.ask(PACK, kind, body)
    if node.relations:
        return "keys are current by a stranger's COMMIT"
    return "" if node.endpoint.staged else "keys are thrown away by a stranger's ABORT"


@pytest.mark.parametrize("kind", [provision.COMMIT, provision.ABORT])
def test_attack(fresh, kind):
    assert carry_out(fresh, kind) == ""


@pytest.mark.parametrize("kind", [provision.COMMIT, provision.ABORT])
def test_control(weak_fresh, kind):
    assert carry_out(weak_fresh, kind)
