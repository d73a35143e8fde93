"""Claim, packages, pair exchange, commit, abort, release, proofs: pack and modules wired directly, owner and rogues."""

from nodebench import MODULE_BUS, PACK_NODE, VCU_BUS, App, Bench, Entropy, keyed_bench
from packtrust import package, provision
from packtrust.arbitration import compose
from packtrust.crypto import hmac_sha256
from packtrust.frame import Frame
from packtrust.handshake import INITIATOR, RESPONDER
from packtrust.keys import SIDE_A, fingerprint
from packtrust.messages.bases import HANDSHAKE_TO_MODULE, ISOTP_TO_MODULE, ISOTP_TO_PACK
from packtrust.provision import (
    REFUSED_ENTROPY,
    REFUSED_FULL,
    REFUSED_KEYS,
    REFUSED_NO_ROUTE,
    REFUSED_NOT_OWNER,
    REFUSED_ROLLBACK,
    REFUSED_STATE,
    REFUSED_UNKNOWN,
)
from packtrust.segmentation import cut
from packtrust_node import boot_record
from packtrust_node.post import BEHIND_MS
from packtrust_node.slots import BARE, MISSES
from packtrust_node.store import MemorySlots


def registered(modules=1, **options):
    bench = Bench(modules, **options)
    bench.until(lambda: len(bench.nodes["pack"].slots) == modules)
    bench.run(100)
    return bench, App(bench), bench.nodes["pack"]


def module_of(bench, number):
    """The module with this number."""
    return next(node for name, node in bench.nodes.items() if name != "pack" and node.own_node == number)


def claimed(modules=1, **options):
    """The pack is claimed and in session with the app; the modules are registered, no more."""
    bench, app, pack = registered(modules, **options)
    app.claim_pack(pack.claim_code())
    return bench, app, pack


# -- identity ----------------------------------------------------------------------------------------------------------


def test_identity_of_pack_and_module():
    bench, app, pack = registered()
    got = app.identify(PACK_NODE)
    assert got.role == provision.ROLE_PACK and got.flags == 0 and got.unique_id == 0x50000001
    assert got.serial == "PACK" and got.public_key == pack.identity.public and got.boot_counter == 1
    got = app.identify(1)
    assert got.role == provision.ROLE_MODULE and got.unique_id == 0xBA770001
    assert got.public_key == bench.nodes["module0"].identity.public
    app.claim_pack(pack.claim_code())
    got = app.identify(PACK_NODE)
    assert got.flags == provision.FLAG_CLAIMED | provision.FLAG_KEYED
    assert got.owner_fingerprint == app.fingerprint
    bench.sound()


def test_identity_survives_a_reboot_and_boots_are_counted():
    bench, app, pack = registered()
    before = app.identify(PACK_NODE)
    code = pack.claim_code()
    pack = bench.boot("pack")
    after = app.identify(PACK_NODE)
    assert after.public_key == before.public_key and pack.claim_code() == code
    assert after.boot_counter == before.boot_counter + 1


def test_boot_counter_does_not_wrap():
    bench, app, pack = registered()
    for stored, expected in ((0xFFFFFFFD, 0xFFFFFFFE), (0xFFFFFFFE, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF)):
        pack.env.store.write(boot_record.RECORD, boot_record.encode(stored, 0))
        pack = bench.boot("pack")
        assert pack.boot_counter == expected
        bench.run(1500)
        assert app.identify(PACK_NODE).boot_counter == expected
    assert boot_record.decode(pack.env.store.read(boot_record.RECORD))[1] == 0xFFFFFFFF
    # Sessions of boots with one counter are kept apart by their nonces.
    app.claim_pack(pack.claim_code())
    app.introduce(1, bench.nodes["module0"].claim_code())
    bench.until(lambda: pack.slots[1].established)
    keys = bytes(pack.slots[1].channel._session.state[:72])
    pack = bench.boot("pack")
    bench.until(lambda: pack.slots[1].established)
    assert pack.boot_counter == 0xFFFFFFFF
    assert bytes(pack.slots[1].channel._session.state[:72]) != keys
    bench.sound()


def test_message_for_nobody():
    _, app, pack = registered()
    assert app.refusal(9, provision.IDENTIFY) == REFUSED_NO_ROUTE
    assert app.refusal(PACK_NODE, 0x55) == REFUSED_UNKNOWN
    assert app.refusal(1, provision.LIST) == REFUSED_UNKNOWN
    assert pack.counters["no-route"] == 1 and pack.counters["unknown"] == 1


def test_a_frame_of_no_message_that_has_begun_makes_no_link():
    bench, _, pack = registered()
    for first in (0x21, 0x30):
        bench.inject(VCU_BUS, Frame(compose(ISOTP_TO_PACK, PACK_NODE), bytes((first,)) + bytes(7)))
        bench.run(10)
        assert not pack._post._links
    bench.inject(VCU_BUS, Frame(compose(ISOTP_TO_PACK, PACK_NODE), b"\x10\x20" + bytes(6)))
    bench.deliver()
    assert len(pack._post._links) == 1


def test_list_of_modules():
    bench, app, pack = registered(2)
    entries = provision.parse_entries(provision.MODULE_ENTRY, app.ask(PACK_NODE, provision.LIST).body)
    assert sorted([(number, flags) for number, _, flags in entries]) == [(1, 0), (2, 0)]
    assert sorted([unique_id for _, unique_id, _ in entries]) == [0xBA770001, 0xBA770002]
    app.claim_pack(pack.claim_code())
    app.introduce(1, module_of(bench, 1).claim_code())
    bench.run(100)
    entries = provision.parse_entries(provision.MODULE_ENTRY, app.ask(PACK_NODE, provision.LIST).body)
    assert sorted([(number, flags) for number, _, flags in entries]) == [(1, provision.FLAG_KEYED | 4), (2, 0)]


# -- claim -------------------------------------------------------------------------------------------------------------


def test_first_package_pins_the_owner_and_burns_the_code():
    bench, app, pack = registered()
    code = pack.claim_code()
    assert len(code) == 16
    app.claim_pack(code)
    assert pack.claim_code() == b"" and pack.identity.owner_public == app.public
    # Nothing of it is lost by a reboot.
    pack = bench.boot("pack")
    assert pack.claim_code() == b"" and pack.identity.owner_public == app.public
    assert pack.identity.counter == app.counter
    bench.sound()


def test_rogue_without_the_code_claims_nothing():
    bench, _, pack = registered()
    code = pack.claim_code()
    rogue = App(bench, "rogue")
    identity = rogue.identify(PACK_NODE)
    for wrong in (bytes(16), b"x" * 16, b""):
        content = rogue.make_package(identity, PACK_NODE, "lct-app", rogue.public)
        assert rogue.give(PACK_NODE, content, identity, wrong, check=False) == REFUSED_NOT_OWNER
    assert pack.counters["not-owner"] == 3
    assert pack.claim_code() == code and not pack.identity.claimed and not pack.relations
    assert pack.identity.counter == 0
    bench.sound()


def test_code_of_one_device_does_not_claim_another():
    _bench, app, pack = registered()
    identity = app.identify(1)
    content = app.make_package(identity, 1, "lct-1", app.public)
    assert app.give(1, content, identity, pack.claim_code(), check=False) == REFUSED_NOT_OWNER


def test_package_for_another_device_does_not_open():
    _bench, app, pack = registered()
    identity = app.identify(1)
    content = app.make_package(identity, PACK_NODE, "lct-app", app.public)
    # Sealed to the module's public key, sent to the pack.
    assert app.give(PACK_NODE, content, identity, pack.claim_code(), check=False) == REFUSED_NOT_OWNER


def test_used_code_is_worth_nothing():
    bench, app, pack = registered()
    code = pack.claim_code()
    app.claim_pack(code)
    rogue = App(bench, "rogue")
    identity = rogue.identify(PACK_NODE)
    rogue.counter = 100
    content = rogue.make_package(identity, PACK_NODE, "lct-app", rogue.public)
    assert rogue.give(PACK_NODE, content, identity, code, check=False) == REFUSED_NOT_OWNER
    assert pack.identity.owner_public == app.public


def test_other_app_is_not_the_owner():
    bench, app, pack = claimed()
    rogue = App(bench, "rogue", attach=True)
    identity = rogue.identify(PACK_NODE)
    rogue.counter = 100
    rogue.epochs["lct-app"] = 100
    content = rogue.make_package(identity, PACK_NODE, "lct-app", rogue.public)
    assert rogue.give(PACK_NODE, content, identity, check=False) == REFUSED_NOT_OWNER
    # Nor with the owner's public key written in, which is all it can know of it.
    body, _, _ = package.seal(content, identity.public_key, rogue.private, rogue.entropy(32))
    forged = body[:1] + app.public + body[33:]
    assert rogue.refusal(PACK_NODE, provision.PACKAGE, forged) == REFUSED_NOT_OWNER
    assert pack.counters["not-owner"] == 2
    bench.sound()


def test_unacceptable_first_package_does_not_claim():
    bench, app, pack = registered()
    identity = app.identify(PACK_NODE)
    code = pack.claim_code()
    for fields in ({"node": 0x41}, {"role": INITIATOR}, {"node": 9, "role": INITIATOR}, {"node": 9}):
        content = app.make_package(identity, PACK_NODE, "lct-app", app.public, **fields)
        assert app.give(PACK_NODE, content, identity, code, check=False) in (REFUSED_KEYS, REFUSED_NO_ROUTE)
    # A peer that is the device itself, and a peer key no honest peer has (X25519 gives zero).
    for peer in (identity.public_key, b"\x01" + bytes(31)):
        content = app.make_package(identity, PACK_NODE, "lct-app", peer)
        assert app.give(PACK_NODE, content, identity, code, check=False) == REFUSED_KEYS
    assert pack.claim_code() == code and pack.endpoint.staged == 0
    app.claim_pack(code)
    bench.sound()


def test_lost_receipt_is_given_again_and_nothing_is_taken_twice():
    _bench, app, pack = registered()
    identity = app.identify(PACK_NODE)
    content = app.make_package(identity, PACK_NODE, "lct-app", app.public)
    body, _package_hash, receipt_key = package.seal(
        content, identity.public_key, app.private, app.entropy(32), pack.claim_code()
    )
    receipts = [app.ask(PACK_NODE, provision.PACKAGE, body) for _ in range(2)]
    assert receipts[0].kind == provision.RECEIPT and receipts[0].body == receipts[1].body
    assert provision.check_mac(receipt_key, provision.RECEIPT, receipts[1].body) is not None
    assert pack.endpoint.staged == 1


def test_without_entropy_no_keys_are_made():
    bench, app, _ = registered()

    def broken(count):
        return bytes(count)

    pack = bench.boot("pack", MemorySlots(), broken)
    assert pack.identity is None and pack.claim_code() == b""
    assert app.refusal(PACK_NODE, provision.IDENTIFY) == REFUSED_ENTROPY
    assert [line for line in bench.envs["pack"].lines if "entropy" in line]
    bench.sound()


# -- rollback ----------------------------------------------------------------------------------------------------------


def test_counter_must_rise():
    _bench, app, pack = claimed()
    identity = app.identify(PACK_NODE)
    for counter in (app.counter, 1, 0):
        content = app.make_package(identity, PACK_NODE, "lct-app", app.public, counter=counter, epoch=50)
        assert app.give(PACK_NODE, content, identity, check=False) == REFUSED_ROLLBACK
    assert pack.counters["rollback"] == 3


def test_counter_ends_and_does_not_wrap():
    """A node that has taken package 2^32 - 1 takes no other: neither one that wrapped, nor that one again."""
    bench, app, pack = claimed()
    identity = app.identify(PACK_NODE)
    for counter, refused in ((0xFFFFFFFE, 0), (0xFFFFFFFF, 0), (0xFFFFFFFF, 1), (0, 1), (1, 1)):
        content = app.make_package(identity, PACK_NODE, "lct-app", app.public, counter=counter, epoch=50)
        given = app.give(PACK_NODE, content, identity, check=False)
        assert (given == REFUSED_ROLLBACK) == bool(refused), counter
    assert pack.identity.counter == 0xFFFFFFFF
    pack = bench.boot("pack")
    assert app.identify(PACK_NODE).counter == 0xFFFFFFFF
    content = app.make_package(identity, PACK_NODE, "lct-app", app.public, counter=2, epoch=50)
    assert app.give(PACK_NODE, content, identity, check=False) == REFUSED_ROLLBACK


def test_epoch_ends_and_does_not_wrap():
    _bench, app, pack = claimed()
    app.epochs["lct-app"] = 0xFFFFFFFE
    app.claim_pack(b"")
    assert pack.app.relation.epoch == 0xFFFFFFFF
    identity = app.identify(PACK_NODE)
    for epoch in (0xFFFFFFFF, 0, 1):
        content = app.make_package(identity, PACK_NODE, "lct-app", app.public, epoch=epoch)
        assert app.give(PACK_NODE, content, identity, check=False) == REFUSED_ROLLBACK


def test_recorded_package_is_refused_after_the_reboot():
    bench, app, pack = registered()
    identity = app.identify(PACK_NODE)
    code = pack.claim_code()
    content = app.make_package(identity, PACK_NODE, "lct-app", app.public)
    body, _, _ = package.seal(content, identity.public_key, app.private, app.entropy(32), code)
    assert app.ask(PACK_NODE, provision.PACKAGE, body).kind == provision.RECEIPT
    bench.boot("pack")
    assert app.refusal(PACK_NODE, provision.PACKAGE, body) == REFUSED_NOT_OWNER


def test_epoch_must_rise_and_ends_must_stay():
    _bench, app, pack = claimed()
    identity = app.identify(PACK_NODE)
    content = app.make_package(identity, PACK_NODE, "lct-app", app.public, epoch=1)
    assert app.give(PACK_NODE, content, identity, check=False) == REFUSED_ROLLBACK
    content = app.make_package(identity, PACK_NODE, "lct-app", app.public, epoch=2, component_b="COMP-OTHER")
    assert app.give(PACK_NODE, content, identity, check=False) == REFUSED_KEYS
    content = app.make_package(identity, PACK_NODE, "lct-app", Entropy("x")(32), epoch=2)
    assert app.give(PACK_NODE, content, identity, check=False) == REFUSED_KEYS
    assert pack.endpoint.staged == 0 and app.channel.session_epoch == 1


# -- staging, commit, abort --------------------------------------------------------------------------------------------


def test_commit_before_the_exchange_has_agreed():
    _bench, app, pack = registered()
    identity = app.identify(PACK_NODE)
    content = app.make_package(identity, PACK_NODE, "lct-app", app.public)
    wanted = app.give(PACK_NODE, content, identity, pack.claim_code())
    assert app.order(wanted, provision.COMMIT) == REFUSED_STATE
    assert not pack.relations


def test_commit_is_answered_again_and_only_to_the_owner():
    bench, app, pack = registered()
    wanted = app.claim_pack(pack.claim_code(), commit=False)
    body = provision.epoch_body(wanted.tag, wanted.epoch)
    forged = provision.with_mac(bytes(32), provision.COMMIT, body)
    assert app.refusal(PACK_NODE, provision.COMMIT, forged) == REFUSED_NOT_OWNER
    assert not pack.relations
    for _ in range(3):
        assert app.order(wanted, provision.COMMIT) == 0
    assert len(pack.relations) == 1
    assert app.refusal(PACK_NODE, provision.COMMIT, forged) == REFUSED_NOT_OWNER
    assert app.refusal(PACK_NODE, provision.COMMIT, b"short") == REFUSED_UNKNOWN
    bench.run(31000)  # the receipt key is gone by then
    assert app.order(wanted, provision.COMMIT) == REFUSED_STATE


def test_abort_leaves_the_old_epoch_running():
    bench, app, pack = claimed()
    wanted = app.claim_pack(b"", commit=False)
    body = provision.with_mac(bytes(32), provision.ABORT, provision.epoch_body(wanted.tag, wanted.epoch))
    assert app.refusal(PACK_NODE, provision.ABORT, body) == REFUSED_NOT_OWNER
    assert pack.endpoint.staged == 1
    for _ in range(2):
        assert app.order(wanted, provision.ABORT) == 0
    assert pack.endpoint.staged == 0
    assert app.order(wanted, provision.COMMIT) == REFUSED_STATE
    opened = pack.app.channel.stats["opened"]
    bench.run(1000)
    assert app.channel.session_epoch == 1 and pack.app.channel.stats["opened"] > opened
    bench.sound()


def test_time_out_leaves_the_old_epoch_running():
    bench, app, pack = claimed()
    wanted = app.claim_pack(b"", commit=False)
    bench.run(29000)
    assert pack.endpoint.staged == 1
    bench.run(1500)
    assert pack.endpoint.staged == 0 and pack.counters["stage-timeout"] == 1
    assert app.order(wanted, provision.COMMIT) == REFUSED_STATE
    assert pack.app.channel.session_epoch == 1 and pack.app.channel.epoch == 1


def test_at_most_two_packages_are_staged():
    bench, app, pack = claimed(3)
    identity = app.identify(PACK_NODE)
    for number in (1, 2):
        content = app.make_package(identity, number, "lct-%d" % number, app.public, role=INITIATOR, side=SIDE_A)
        app.give(PACK_NODE, content, identity)
    content = app.make_package(identity, 3, "lct-3", app.public, role=INITIATOR, side=SIDE_A)
    assert app.give(PACK_NODE, content, identity, check=False) == REFUSED_FULL
    # Beginning anew for one of them needs no room.
    content = app.make_package(identity, 2, "lct-2", app.public, role=INITIATOR, side=SIDE_A)
    app.give(PACK_NODE, content, identity)
    assert pack.endpoint.staged == 2
    bench.run(31000)
    content = app.make_package(identity, 3, "lct-3", app.public, role=INITIATOR, side=SIDE_A)
    app.give(PACK_NODE, content, identity)


def test_package_for_a_module_nobody_knows():
    _bench, app, _pack = claimed()
    identity = app.identify(PACK_NODE)
    content = app.make_package(identity, 7, "lct-7", app.public, role=INITIATOR, side=SIDE_A)
    assert app.give(PACK_NODE, content, identity, check=False) == REFUSED_NO_ROUTE


def test_pack_and_module_agree_though_frames_are_lost():
    bench, app, pack = claimed()
    lost = [0]

    def sometimes_not(bus, sender, frame):
        if bus == 1 and frame.arbitration_id >> 18 in (0x531, 0x539):
            lost[0] += 1
            return lost[0] % 41 != 15
        return True

    bench.spy = sometimes_not
    app.introduce(1, bench.nodes["module0"].claim_code())
    bench.until(lambda: pack.slots[1].established)
    assert lost[0] > 41
    bench.sound()


def test_wrong_pair_does_not_agree():
    """A module that was given other halves than the pack agrees on nothing."""
    bench, app, pack = claimed()
    module = bench.nodes["module0"]
    pack_identity = app.identify(PACK_NODE)
    identity = app.identify(1)
    content = app.make_package(identity, 1, "lct-1", pack_identity.public_key, half_a=Entropy("wrong")(64))
    app.give(1, content, identity, module.claim_code())
    content = app.make_package(pack_identity, 1, "lct-1", identity.public_key, role=INITIATOR, side=SIDE_A)
    wanted = app.give(PACK_NODE, content, pack_identity)
    app.post(PACK_NODE, provision.PAIR, provision.epoch_body(wanted.tag, 1))
    bench.run(5000)
    assert [message for message in app.messages if message.kind == provision.PAIRED] == []
    assert module.counters["pairing"] > 3  # every repeated OFFER
    assert app.order(wanted, provision.COMMIT) == REFUSED_STATE
    bench.run(30000)
    assert pack.endpoint.staged == 0 and module.endpoint.staged == 0
    # The owner's next try, with the right halves, works.
    app.introduce(1)
    bench.until(lambda: pack.slots[1].established)
    bench.sound()


def test_device_with_another_binding_key_does_not_agree():
    """The pack was told another fingerprint than the module has: the static part fails."""
    bench, app, _pack = claimed()
    module = bench.nodes["module0"]
    pack_identity = app.identify(PACK_NODE)
    identity = app.identify(1)
    content = app.make_package(identity, 1, "lct-1", pack_identity.public_key)
    app.give(1, content, identity, module.claim_code())
    rogue = App(bench, "rogue device", attach=False)
    content = app.make_package(pack_identity, 1, "lct-1", rogue.public, role=INITIATOR, side=SIDE_A)
    wanted = app.give(PACK_NODE, content, pack_identity)
    app.post(PACK_NODE, provision.PAIR, provision.epoch_body(wanted.tag, 1))
    bench.run(3000)
    assert [message for message in app.messages if message.kind == provision.PAIRED] == []


def test_pair_is_for_the_initiator_with_something_staged():
    _bench, app, pack = registered()
    assert app.refusal(PACK_NODE, provision.PAIR, provision.epoch_body(b"12345678", 1)) == REFUSED_STATE
    assert app.refusal(PACK_NODE, provision.PAIR, b"") == REFUSED_UNKNOWN
    wanted = app.claim_pack(pack.claim_code(), commit=False)
    # The pack is the responder of this one.
    body = provision.epoch_body(wanted.tag, wanted.epoch)
    assert app.refusal(PACK_NODE, provision.PAIR, body) == REFUSED_STATE


def test_paired_is_repeated_until_the_commit():
    bench, app, pack = registered()
    wanted = app.claim_pack(pack.claim_code(), commit=False)
    bench.run(2500)
    assert len([message for message in app.messages if message.kind == provision.PAIRED]) == 2
    app.order(wanted, provision.COMMIT)
    del app.messages[:]
    bench.run(2500)
    assert app.messages == []


# -- reboot in between -------------------------------------------------------------------------------------------------


def test_reboot_between_receipt_and_commit():
    bench, app, pack = registered()
    wanted = app.claim_pack(pack.claim_code(), commit=False)
    pack = bench.boot("pack")
    assert pack.identity.owner_public == app.public and not pack.relations and pack.endpoint.staged == 0
    assert app.order(wanted, provision.COMMIT) == REFUSED_STATE
    # The claim holds: the owner goes on without the code.
    app.claim_pack(b"")
    bench.sound()


def test_module_reboots_half_way_and_the_second_try_works():
    bench, app, pack = claimed()
    module = bench.nodes["module0"]
    app.introduce(1, module.claim_code(), commit=False)
    module = bench.boot("module0")
    assert not module.relations and module.identity.claimed
    bench.until(lambda: module.own_node == 1)
    app.introduce(1)
    bench.until(lambda: pack.slots[1].established)
    bench.sound()


def test_rotation_of_pack_and_module():
    bench, app = keyed_bench(1)
    pack = bench.nodes["pack"]
    module = bench.nodes["module0"]
    for epoch in (2, 3):
        app.introduce(1)
        bench.run(1500)  # one HELLO a second is answered
        assert pack.slots[1].channel.session_epoch == epoch
        assert [relation.epoch for relation in module.relations.values()] == [epoch]
        assert [relation.previous for relation in module.relations.values()] == [None]
        assert pack.slots[1].relation.previous is None
    assert pack.latency.missed == 0
    bench.sound()


def test_rotation_of_app_and_pack_with_another_scope():
    bench, app = keyed_bench(1)
    pack = bench.nodes["pack"]
    app.claim_pack(b"", scope=package.SCOPE_TIME)
    bench.run(500)
    assert pack.app.channel.session_epoch == 2 and pack.app.relation.scope == package.SCOPE_TIME
    assert len(pack.relations) == 2
    bench.sound()


def test_pack_that_dies_between_two_commits_is_still_understood():
    """The module has committed epoch 2, the pack has not: after the pack's reboot both go on with epoch 1."""
    bench, app = keyed_bench(1)
    module = bench.nodes["module0"]
    _, to_module = app.introduce(1, commit=False)
    assert app.order(to_module, provision.COMMIT) == 0
    pack = bench.boot("pack")
    bench.until(lambda: pack.slots[1].established)
    assert pack.slots[1].channel.session_epoch == 1
    # So does the module after its own reboot: it kept both.
    module = bench.boot("module0")
    bench.until(lambda: pack.slots[1].row[MISSES] == 0 and module.stats()["session"])
    assert module.relations and [relation.previous[0] for relation in module.relations.values()] == [1]
    # And the owner's third try brings them together.
    app.epochs["lct-1"] = 2
    app.claim_pack(b"")
    app.introduce(1)
    bench.until(lambda: pack.slots[1].channel.session_epoch == 3)
    bench.run(500)
    assert [relation.previous for relation in module.relations.values()] == [None]
    bench.sound()


def test_rotation_after_a_half_rotation_keeps_the_epoch_in_use():
    """Module: 1 in use, 2 committed and never used, 3 committed. The pack, still at 1, reboots and is understood."""
    bench, app = keyed_bench(1)
    for _ in range(2):
        _, to_module = app.introduce(1, commit=False)
        assert app.order(to_module, provision.COMMIT) == 0
        bench.run(31000)  # the pack's half times out
    pack = bench.boot("pack")
    bench.until(lambda: pack.slots[1].established)
    assert pack.slots[1].channel.session_epoch == 1
    bench.sound()


# -- another relationship on the same link -----------------------------------------------------------------------------


def test_new_lct_for_a_number_replaces_the_old_one():
    bench, app = keyed_bench(1)
    pack = bench.nodes["pack"]
    module = bench.nodes["module0"]
    old = next(iter(module.relations.values())).tag
    make = app.make_package

    def renamed(identity, target, lct_id, peer_public, **fields):
        return make(identity, target, "lct-new", peer_public, **fields)

    app.make_package = renamed
    app.epochs["lct-1"] = 0
    app.introduce(1)
    bench.run(500)
    for node in (pack, module):
        assert old not in [relation.tag for relation in node.relations.values()]
    assert len(module.relations) == 1 and len(pack.relations) == 2
    assert pack.slots[1].established
    assert len([name for name in bench.envs["module0"].store.names() if name.startswith("rel-")]) == 1
    module = bench.boot("module0")
    assert len(module.relations) == 1 and next(iter(module.relations.values())).tag != old
    bench.sound()


# -- proofs ------------------------------------------------------------------------------------------------------------


def test_proof_of_identity_and_relationships():
    bench, app = keyed_bench(1)
    module = bench.nodes["module0"]
    identity = app.identify(1)
    key = provision.owner_key(app.private, identity.public_key, fingerprint(identity.public_key), app.fingerprint)
    nonce = app.entropy(16)
    message = app.ask(1, provision.PROVE, nonce)
    assert message.kind == provision.PROOF
    content = provision.check_mac(key, provision.PROOF, message.body, nonce)
    assert content[:32] == fingerprint(identity.public_key)
    entries = provision.parse_entries(provision.PROOF_ENTRY, content, 32)
    relation = next(iter(module.relations.values()))
    assert entries == [(relation.tag, 1, bench.nodes["pack"].identity.fingerprint)]
    assert provision.check_mac(key, provision.PROOF, message.body, bytes(16)) is None
    assert app.refusal(1, provision.PROVE, b"short") == REFUSED_UNKNOWN


def test_unclaimed_device_proves_nothing():
    _bench, app, _pack = registered()
    assert app.refusal(PACK_NODE, provision.PROVE, bytes(16)) == REFUSED_STATE
    assert app.refusal(PACK_NODE, provision.ATTEST, bytes(16)) == REFUSED_STATE
    assert app.refusal(1, provision.ATTEST, bytes(16)) == REFUSED_UNKNOWN


class Slow:
    """A clock on which everything takes time: `step_ms` between one look and the next."""

    def __init__(self, env, step_ms):
        self.ms = env.now_ms()
        self.step_ms = step_ms
        env.now_ms = self

    def __call__(self):
        self.ms += self.step_ms
        return self.ms


def flood(module, clock, frame, taken, share):
    """Give a module a frame that proves nothing, again and again. As long as it keeps up with its bus all are taken,
    whatever they cost; when it falls behind, for an eighth of its time.
    """
    for _ in range(100):
        module.receive(0, frame)
    assert len(taken) == 100 and share.crowded == 0
    began_ms = clock.ms
    for _ in range(1000):
        module.fell_behind(clock.ms)
        module.receive(0, frame)
    spent_ms = clock.ms - began_ms - clock.step_ms * share.crowded
    assert share.crowded > 500 and len(taken) < 500
    assert spent_ms < (clock.ms - began_ms) / 4


def test_a_flood_of_provisioning_messages_gets_an_eighth_of_a_node_that_falls_behind():
    bench, _ = keyed_bench(1)
    module = module_of(bench, 1)
    post = module._post
    question = Frame(compose(ISOTP_TO_MODULE, 1), b"\x04\x01" + bytes((provision.IDENTIFY, 1, 9)))
    clock = Slow(module.env, 10)
    answers = []
    module.reply = answers.append
    flood(module, clock, question, answers, post)
    # And again once it has kept up for a while.
    clock.ms += BEHIND_MS
    count = len(answers)
    module.receive(0, question)
    assert len(answers) == count + 1


def test_a_flood_of_handshakes_beside_a_session_gets_an_eighth_of_a_module_that_falls_behind():
    bench, _ = keyed_bench(1)
    module = module_of(bench, 1)
    share = module._handshakes
    forged = Frame(compose(HANDSHAKE_TO_MODULE, 1), bytes((1,)) * 8)
    clock = Slow(module.env, 10)
    looked = []
    module._take_handshake = lambda pack, frame: looked.append(frame.arbitration_id)
    flood(module, clock, forged, looked, share)
    # A message of which the first frame was let in is whole, and no frame more.
    share._debt_ms = 0
    hello = cut(compose(HANDSHAKE_TO_MODULE, 1), bytes(27))
    looked.clear()
    for frame in hello + [hello[-1], forged]:
        module.fell_behind(clock.ms)
        module.receive(0, frame)
    assert looked == [frame.arbitration_id for frame in hello]
    # Provisioning messages have a share of their own.
    assert module._post.crowded == 0 and module._post.takes(compose(ISOTP_TO_MODULE, 1), b"\x04")
    # Without a session there is nothing that could suffer.
    module._pack.channel.disconnect()
    looked.clear()
    for _ in range(10):
        module.fell_behind(clock.ms)
        module.receive(0, forged)
    assert len(looked) == 10


def test_a_module_without_keys_has_no_records_to_make_room_for():
    bench = Bench(1)
    bench.until(lambda: len(bench.nodes["pack"].slots) == 1)
    module = module_of(bench, 1)
    module.fell_behind(module.env.now_ms())
    assert module._post.behind_ms is None and module._handshakes.behind_ms is None


def test_a_pack_that_asks_again_gets_a_session_out_of_a_module_that_falls_behind():
    bench, _ = keyed_bench(1)
    module = module_of(bench, 1)
    before = module.counters["sessions"]
    module._handshakes._paid_ms = module.env.now_ms()
    module._handshakes._debt_ms = 250
    bench.nodes["pack"].keyed_slots()[0].connect()
    for _ in range(800):
        module.fell_behind(module.env.now_ms())
        bench.run(10)
    assert module._handshakes.crowded and module.counters["sessions"] == before + 1


def test_what_proves_to_be_the_owners_has_no_part_in_that_share():
    bench, app, pack = registered()
    node = pack
    taken, counted = set(), set()
    take_message, spent = node.take_message, node._post.spent
    at_hand = []

    def take(payload):
        at_hand.append(payload[1])
        taken.add(payload[1])
        take_message(payload)
        at_hand.pop()

    def count(began_ms):
        counted.update(at_hand)
        spent(began_ms)

    node.take_message, node._post.spent = take, count
    app.claim_pack(pack.claim_code())
    app.introduce(1, module_of(bench, 1).claim_code())
    app.identify(PACK_NODE)
    assert taken >= {provision.IDENTIFY, provision.PACKAGE, provision.COMMIT}
    assert provision.IDENTIFY in counted and not counted & {provision.PACKAGE, provision.COMMIT}
    # Of one that is refused it is not known whose it is.
    assert app.refusal(PACK_NODE, provision.COMMIT, bytes(76))
    assert provision.COMMIT in counted


def test_after_one_that_took_long_the_next_message_is_taken_when_it_is_asked_again():
    """An attestation of 31 modules may take a second, on a bus that leaves the pack no pause: its owner asks on."""
    bench, _ = keyed_bench(1)
    module = module_of(bench, 1)
    post = module._post
    clock = Slow(module.env, 0)
    answers = []
    module.reply = answers.append
    question = Frame(compose(ISOTP_TO_MODULE, 1), b"\x04\x01" + bytes((provision.IDENTIFY, 1, 9)))
    post.takes(0, question.data)
    for _ in range(3):
        began_ms = clock.ms
        clock.ms += 1000
        post.spent(began_ms)
        module.fell_behind(clock.ms)
        module.receive(0, question)
        assert not post.takes(0, question.data)
    assert answers == [] and post.crowded == 6
    clock.ms += 2000
    module.fell_behind(clock.ms)
    module.receive(0, question)
    assert len(answers) == 1


def test_pack_attests_its_modules():
    bench, app = keyed_bench(2)
    pack = bench.nodes["pack"]
    identity = app.identify(PACK_NODE)
    key = provision.owner_key(app.private, identity.public_key, fingerprint(identity.public_key), app.fingerprint)
    nonce = app.entropy(16)
    got = provision.parse_attestation(app.ask(PACK_NODE, provision.ATTEST, nonce).body, key, nonce)
    assert got.fingerprint == pack.identity.fingerprint
    assert [entry[0] for entry in got.entries] == [1, 2]
    for number, unique_id, peer, tag, epoch, seen_ms in got.entries:
        module = module_of(bench, number)
        assert unique_id == module.unique_id and peer == module.identity.fingerprint
        assert tag == module.relations[number].tag and epoch == 1 and seen_ms < 500
    # The LCT half's MAC, for who holds that half.
    lct_half = Entropy("lct half")(64)
    assert hmac_sha256(provision.attest_key(lct_half), got.statement) == got.mac_lct


# -- release and reset -------------------------------------------------------------------------------------------------


def test_release_makes_the_device_nobodys():
    bench, app = keyed_bench(1)
    module = bench.nodes["module0"]
    pack = bench.nodes["pack"]
    identity = app.identify(1)
    app.counter += 1
    body, package_hash, receipt_key = package.seal(
        package.Release(app.counter), identity.public_key, app.private, app.entropy(32)
    )
    message = app.ask(1, provision.PACKAGE, body)
    assert message.kind == provision.RECEIPT
    content = provision.check_mac(receipt_key, provision.RECEIPT, message.body)
    assert content == provision.receipt_body(bytes(8), 0, app.counter, package_hash)
    assert not module.identity.claimed and len(module.claim_code()) == 16 and not module.relations
    assert module.identity.counter == app.counter
    assert module.state == 0
    assert [name for name in bench.envs["module0"].store.names() if name.startswith("rel-")] == []
    # It can be claimed again, by whoever reads its console, and with a higher counter only.
    bench.run(3000)
    other = App(bench, "new owner")
    identity = other.identify(1)
    assert identity.counter == app.counter and identity.flags == 0
    content = other.make_package(identity, 1, "lct-9", other.public, counter=app.counter)
    assert other.give(1, content, identity, module.claim_code(), check=False) == REFUSED_ROLLBACK
    content = other.make_package(identity, 1, "lct-9", other.public, counter=app.counter + 1)
    other.give(1, content, identity, module.claim_code())
    assert not pack.slots[1].row[BARE] or pack.slots[1].keyed
    bench.sound()


def test_released_module_gets_its_number_again():
    bench, app = keyed_bench(2)
    pack = bench.nodes["pack"]
    module = module_of(bench, 2)
    module.reset()
    name = next(name for name, node in bench.nodes.items() if node is module)
    module = bench.boot(name)
    bench.until(lambda: module.own_node == 2)
    entries = provision.parse_entries(provision.MODULE_ENTRY, app.ask(PACK_NODE, provision.LIST).body)
    # The pack still has its half of the keys, but says that the module has none.
    assert entries[1][2] & provision.FLAG_KEYED == 0 and entries[0][2] & provision.FLAG_KEYED
    app.epochs["lct-2"] = 1
    app.introduce(2, module.claim_code())
    bench.run(1500)
    entries = provision.parse_entries(provision.MODULE_ENTRY, app.ask(PACK_NODE, provision.LIST).body)
    assert entries[1][2] == provision.FLAG_KEYED | 4
    assert pack.slots[2].channel.session_epoch == 2
    bench.sound()


def test_module_cannot_answer_for_another():
    bench, app = keyed_bench(2)
    pack = bench.nodes["pack"]
    forged = provision.frame_message(provision.IDENTITY, 2, 1)
    bench.inject(MODULE_BUS, Frame(0x530 << 18 | 1, bytes((len(forged),)) + forged))
    bench.inject(MODULE_BUS, Frame(0x530 << 18 | 1, b"\x02\x09\x09"))
    bench.run(100)
    assert app.messages == [] and pack.counters["relay"] == 2


def test_release_needs_the_owner():
    bench, _app = keyed_bench(1)
    rogue = App(bench, "rogue")
    identity = rogue.identify(1)
    body, _, _ = package.seal(package.Release(99), identity.public_key, rogue.private, rogue.entropy(32))
    assert rogue.refusal(1, provision.PACKAGE, body) == REFUSED_NOT_OWNER
    assert bench.nodes["module0"].relations


def test_reset_at_the_console():
    bench, app = keyed_bench(1)
    pack = bench.nodes["pack"]
    before = pack.identity
    public, counter = before.public, before.counter
    pack.reset()
    assert not pack.identity.claimed and len(pack.claim_code()) == 16
    assert pack.identity.public == public and pack.identity.counter == counter
    assert not pack.relations and not pack.app.keyed and pack.keyed_slots() == []
    bench.run(2000)
    pack = bench.boot("pack")
    assert not pack.relations and pack.identity.counter == counter
    bench.run(2000)
    app.channel = None
    app.epochs = {}
    app.claim_pack(pack.claim_code())
    # The module still belongs to the owner: with the next package both are one again.
    app.epochs["lct-1"] = 1
    app.introduce(1)
    bench.until(lambda: pack.slots[1].established)
    bench.sound()


def test_release_cut_off_by_a_power_loss_is_finished_at_boot():
    bench, _app = keyed_bench(1)
    module = bench.nodes["module0"]
    store = bench.envs["module0"].store
    store.write("identity", module.identity.released(b"n" * 16, 50).encode())  # and then the power fails
    module = bench.boot("module0")
    assert not module.relations and module.claim_code() == b"n" * 16
    assert [name for name in store.names() if name.startswith("rel-")] == []


# -- clear first transfer ----------------------------------------------------------------------------------------------


def clear_body(app, identity, **fields):
    content = app.make_package(identity, PACK_NODE, "lct-app", app.public, **fields)
    return content, app.public + bytes(content.encode())


def test_clear_first_transfer_is_off_by_default():
    _bench, app, pack = registered()
    identity = app.identify(PACK_NODE)
    _, body = clear_body(app, identity)
    assert app.refusal(PACK_NODE, provision.CLEAR, body) == REFUSED_STATE
    assert not pack.identity.claimed


def test_clear_first_transfer_once_and_audited():
    bench, app, pack = registered(pack_config={"clear_first_transfer": True})
    identity = app.identify(PACK_NODE)
    assert app.refusal(PACK_NODE, provision.CLEAR, app.public + b"junk") == REFUSED_UNKNOWN
    _content, body = clear_body(app, identity)
    key = package.clear_receipt_key(body[32:], app.fingerprint, pack.identity.fingerprint)
    for _ in range(2):  # a lost receipt is given again
        message = app.ask(PACK_NODE, provision.CLEAR, body)
        assert message.kind == provision.RECEIPT
        assert provision.check_mac(key, provision.RECEIPT, message.body) is not None
    assert pack.identity.owner_public == app.public and pack.claim_code() == b""
    assert pack.counters["clear-transfer"] == 1
    assert [line for line in bench.envs["pack"].lines if line.startswith("audit")]
    # Once: not on a claimed device, and not after a release either.
    _, body = clear_body(app, identity, epoch=2)
    assert app.refusal(PACK_NODE, provision.CLEAR, body) == REFUSED_STATE
    pack.reset()
    _, body = clear_body(app, identity, epoch=2)
    assert app.refusal(PACK_NODE, provision.CLEAR, body) == REFUSED_STATE
    bench.sound()


# -- roles -------------------------------------------------------------------------------------------------------------


def test_module_takes_no_role_but_its_own():
    bench, app, pack = claimed()
    module = bench.nodes["module0"]
    identity = app.identify(1)
    for fields in ({"role": INITIATOR}, {"node": 2}, {"node": PACK_NODE}):
        content = app.make_package(identity, 1, "lct-1", pack.identity.public, **fields)
        assert app.give(1, content, identity, module.claim_code(), check=False) == REFUSED_KEYS
    content = app.make_package(identity, 1, "lct-1", pack.identity.public, role=RESPONDER)
    app.give(1, content, identity, module.claim_code())
