"""Attack: an app that was not given the claim code.

Setting    devices on their buses, claimed by nobody or by their owner.
Means      full access to the VCU bus, an app with a binding key of its own, the devices' public keys and serials
           (IDENTIFY tells them to anybody), guesses of the claim code, everything recorded of the owner's work.
Success    would be a device that pins the rogue as owner, takes keys from it, or loses the owner's.
"""

import pytest

from attack_suite import Attack
from attacker import PACK, Tap, commission, modules_of, nodes_of, relations_of, rogue_app, total, unharmed
from packtrust import package, provision
from packtrust.crypto import hpke
from weakening import Weakening

ATTACK = Attack(
    name="rogue app",
    source="SPsec attack_TOFU_integrator_key; S15",
    defence="the first package opens with the claim code alone (HPKE AuthPSK), later ones from the owner alone",
    without="a claim code of zeros in every device",
    weakening=Weakening(
        (
            "packtrust.package",
            "        sealed[32:],\n        psk=claim_code,",
            '        sealed[32:],\n        psk=bytes(16) if claim_code else b"",',
        ),
    ),
)


GUESSES = [bytes(16), b"\xff" * 16, bytes(range(16)), b"0123456789abcdef"]


def targets(bench):
    return [(PACK, bench.pack.node("pack"))] + [(node.own_node, node) for node in modules_of(bench)]


def try_everything(rogue, target, node, guesses):
    """All modes of package, and the clear one; the refusals' reasons."""
    identity = rogue.identify(target)
    reasons = []

    def content():
        return rogue.make_package(identity, target, "lct-app" if target == PACK else "lct-1", rogue.public)

    for code in [*guesses, b""]:
        body, _, _ = package.seal(content(), identity.public_key, rogue.private, rogue.entropy(32), code)
        reasons.append(rogue.refusal(target, provision.PACKAGE, body))
        for mode in (0, 1, 2, 3, 4, 255):
            reasons.append(rogue.refusal(target, provision.PACKAGE, bytes((mode,)) + body[1:]))
    # The device's own key as sender: nobody can seal for it, but the message may claim so.
    named = bytes((package.MODE_AUTH,)) + identity.public_key + body[33:]
    reasons.append(rogue.refusal(target, provision.PACKAGE, named))
    # HPKE base mode seals to a public key alone.
    enc, sealed, _ = hpke.seal(identity.public_key, b"packtrust v1 package", b"", content().encode(), entropy=bytes(32))
    reasons.append(rogue.refusal(target, provision.PACKAGE, bytes((0,)) + rogue.public + enc + sealed))
    reasons.append(rogue.refusal(target, provision.CLEAR, rogue.public + bytes(content().encode())))
    return reasons


@pytest.fixture
def rogue(fresh):
    app = rogue_app(fresh)
    assert fresh.pack.run_until(lambda: all(node.own_node != 0xFF for node in modules_of(fresh)), 5000)
    return app


def test_without_the_code_nothing_is_claimed(fresh, rogue):
    for target, node in targets(fresh):
        code = bytes(node.claim_code())
        reasons = try_everything(rogue, target, node, GUESSES)
        assert len(reasons) > 30
        assert 0 not in reasons
        assert not node.identity.claimed
        assert bytes(node.claim_code()) == code
        assert node.relations == {}
        assert node.identity.counter == 0
        assert node.endpoint.staged == 0
    # The owner comes after all that, and has his devices.
    commission(fresh)
    unharmed(fresh)


def test_with_the_code_the_same_app_claims(fresh, rogue):
    """The control: what was refused above is refused for want of the code alone."""
    for target, node in targets(fresh)[:1]:
        rogue.claim_pack(bytes(node.claim_code()))
        assert node.identity.owner_public == rogue.public
        assert target == PACK


def test_the_burnt_code_is_of_no_use(keyed):
    """He finds the label with the claim code, after the owner used it."""
    fresh_codes = {node.unique_id: bytes(node.claim_code()) for node in nodes_of(keyed)}
    assert set(fresh_codes.values()) == {b""}
    rogue = rogue_app(keyed)
    for target, node in targets(keyed):
        before = relations_of(node)
        reasons = try_everything(rogue, target, node, GUESSES)
        assert 0 not in reasons
        assert node.identity.owner_public == keyed.store.public_key
        assert relations_of(node) == before
    unharmed(keyed)


def test_the_real_code_after_the_claim(fresh):
    codes = {node.unique_id: bytes(node.claim_code()) for node in nodes_of(fresh)}
    commission(fresh)
    rogue = rogue_app(fresh)
    for target, node in targets(fresh):
        assert 0 not in try_everything(rogue, target, node, [codes[node.unique_id]])
        assert node.identity.owner_public == fresh.store.public_key
    unharmed(fresh)


def test_the_owners_packages_played_again(fresh):
    """Every provisioning transfer of the owner, recorded and sent once more, to the same devices."""
    tap = Tap(fresh, "vcu")
    commission(fresh)
    recorded = [frame for _, sender, frame in tap.stop() if sender == "app"]
    transfers = [frame for frame in recorded if frame.is_extended_id and frame.arbitration_id == 0x431 << 18 | PACK]
    assert len(transfers) > 200
    fresh.pack.run_for(60_000)  # what was answered twice within 30 s would be the owner's own repeat
    before = {node.unique_id: (node.identity.counter, relations_of(node)) for node in nodes_of(fresh)}
    refused = sum(total(node, "rollback", "not-owner", "state", "keys") for node in nodes_of(fresh))
    rogue = rogue_app(fresh)
    for frame in transfers:
        rogue.send(frame)
        fresh.pack.run_for(1)
    fresh.pack.run_for(2000)
    assert before == {node.unique_id: (node.identity.counter, relations_of(node)) for node in nodes_of(fresh)}
    assert sum(total(node, "rollback", "not-owner", "state", "keys") for node in nodes_of(fresh)) > refused
    assert all(node.endpoint.staged == 0 for node in nodes_of(fresh))
    unharmed(fresh)


def test_forged_orders_while_the_owner_works(fresh):
    """COMMIT, ABORT, PAIR and RELEASE of a stranger, thrown in at every step."""
    fresh.claim()
    rogue = rogue_app(fresh)
    forged = 0
    provisioner = fresh.provisioner()

    def interfere(progress):
        nonlocal forged
        for record in fresh.store.relationships.values():
            body = provision.epoch_body(record.tag, 1)
            for kind in (provision.COMMIT, provision.ABORT):
                for target in (PACK, 1, 2):
                    rogue.post(target, kind, provision.with_mac(bytes(32), kind, body))
                    forged += 1

    provisioner._on_progress = interfere
    # His transfers share the app's ID: they may break the owner's. A retry after he is gone succeeds.
    task = fresh.node.spawn(provisioner.commission(fresh.register, expected_modules=2))
    fresh.pack.run_until(lambda: task.done, 120_000)
    for node in nodes_of(fresh):
        assert node.identity.owner_public in (b"", fresh.store.public_key)
    assert forged > 0
    fresh.pack.power_off("rogue")
    commission(fresh, claim=False)
    unharmed(fresh)


def carry_out(bench):
    """A stranger claims the pack, with a code of zeros."""
    bench.pack.run_for(3000)
    rogue = rogue_app(bench)
    identity = rogue.identify(PACK)
    content = rogue.make_package(identity, PACK, "lct-app", rogue.public)
    rogue.ask(
        PACK, provision.PACKAGE, package.seal(content, identity.public_key, rogue.private, bytes(32), bytes(16))[0]
    )
    owner = bench.pack.node("pack").identity.owner_public
    return "the pack is the stranger's" if owner == rogue.public else ""


def test_attack(fresh):
    assert carry_out(fresh) == ""
    commission(fresh)
    unharmed(fresh)


def test_control(weak_fresh):
    assert carry_out(weak_fresh)
