"""A new epoch without an app: pack and module make it under traffic, through losses and power cuts; nobody else can."""

from nodebench import App, Bench
from packtrust import package, rotation
from packtrust.crypto import sha256, x25519, x25519_public
from packtrust.errors import CryptoError
from packtrust.handshake import INITIATOR, RESPONDER
from packtrust.keys import MIN_AGE_S, MIN_RECORDS, Relationship, epoch_root, fingerprint, terms
from packtrust.pairing import ANSWER, CONFIRM, PairExchange
from packtrust_node import rotation as node_rotation
from packtrust_node.usage import RECORD
from portable import raises
from rotation_bench import (
    Ledger,
    alone,
    ask_report,
    epochs,
    refusals,
    relation_of,
    settled,
    use,
)

PACK = bytes(range(1, 33))
MODULE = bytes(range(33, 65))
STATIC = x25519(PACK, x25519_public(MODULE))
RELATIONSHIP = Relationship(
    "COMP-a", "COMP-b", "lct-1", fingerprint(x25519_public(PACK)), fingerprint(x25519_public(MODULE))
)
ROOT = b"r" * 32
SALT = b"s" * 32


# -- derivation and messages -------------------------------------------------------------------------------------------


def ends(root_b=ROOT, static_b=STATIC, salt_b=SALT, entropy_b=b"\x22" * 32):
    """Both ends of the exchange of epoch 2, as far as their first messages."""
    a = PairExchange(
        INITIATOR, rotation.next_secret(ROOT, RELATIONSHIP, 1, SALT), STATIC, RELATIONSHIP, 2, b"\x11" * 32
    )
    secret = rotation.next_secret(root_b, RELATIONSHIP, 1, salt_b)
    b = PairExchange(RESPONDER, secret, static_b, RELATIONSHIP, 2, entropy_b)
    return a, b


def test_both_ends_reach_one_new_root():
    a, b = ends()
    epoch, salt, public = rotation.parse_propose(rotation.propose(2, SALT, a.public))
    assert (epoch, salt, public) == (2, SALT, a.public)
    confirm = a.feed(b.accept(public))
    agreed = b.feed(confirm)
    assert b.agreed and not a.agreed
    a.feed(agreed)
    assert a.agreed and a.root == b.root and bytes(a.root) != ROOT


def test_who_lacks_one_of_the_secrets_gets_nowhere():
    for options in ({"root_b": b"x" * 32}, {"static_b": bytes(31) + b"\x01"}, {"salt_b": b"x" * 32}):
        a, b = ends(**options)
        assert a.feed(b.accept(a.public)) is None  # the pack sees it at once
        assert a.root is None


def test_everything_on_the_bus_and_the_old_root_do_not_give_the_new_one():
    """Somebody recorded all, has got the old root, and takes both binding keys later: the ephemeral keys are gone."""
    a, b = ends()
    confirm = a.feed(b.accept(a.public))
    b.feed(confirm)
    secret = rotation.next_secret(ROOT, RELATIONSHIP, 1, SALT)  # the salt went sealed under the old root
    guesses = [epoch_root(secret, STATIC, part) for part in (b"", a.public, b.public, STATIC, bytes(32))]
    assert bytes(a.root) not in guesses
    # And it is the ephemeral exchange that keeps it out: with one of its keys there would be nothing left to find.
    assert epoch_root(secret, STATIC, x25519(b"\x11" * 32, b.public)) == bytes(a.root)
    for exchange in (a, b):
        assert not any(exchange._ephemeral) and not any(exchange._secret) and not any(exchange._dh_static)


def test_the_old_root_alone_does_not_stand_between_the_two():
    """Active, with the old root, and without a binding key: neither end's proof can be made."""
    a, module = ends()
    _, forger = ends(static_b=x25519(b"\x33" * 32, x25519_public(MODULE)))
    assert a.feed(forger.accept(a.public)) is None
    pretender = PairExchange(
        INITIATOR,
        rotation.next_secret(ROOT, RELATIONSHIP, 1, SALT),
        x25519(b"\x33" * 32, x25519_public(MODULE)),
        RELATIONSHIP,
        2,
        b"\x44" * 32,
    )
    answer = module.accept(pretender.public)
    assert pretender.feed(answer) is None
    # What it makes of the answer without looking at its proof is not believed either.
    pretender._agree(pretender.public, module.public)
    confirm = pretender._message(CONFIRM, pretender._mac(b"initiator"))
    assert module.feed(confirm) is None
    assert not module.agreed


def test_bad_points_are_refused():
    _, b = ends()
    raises(CryptoError, b.accept, bytes(32))
    assert b.root is None


def test_malformed_messages():
    good = rotation.propose(2, SALT, b"p" * 32)
    for size in range(len(good)):
        assert rotation.parse_propose(good[:size]) is None
    assert rotation.parse_propose(good + b"\x00") is None
    assert rotation.parse_propose(b"\x11" + good[1:]) is None
    assert rotation.parse_behind(rotation.behind(7)) == 7
    for raw in (b"", b"\x16", b"\x16\x00\x00\x00", b"\x15\x00\x00\x00\x07", b"\x16\x00\x00\x00\x07\x00"):
        assert rotation.parse_behind(raw) == -1


# -- terms and usage ---------------------------------------------------------------------------------------------------


def test_a_package_never_weakens_the_terms():
    most, longest = package.DEFAULT_MAX_RECORDS, package.DEFAULT_MAX_AGE_S
    assert terms(most + 1, longest + 1) == (most, longest)
    assert terms(0xFFFFFFFF, 0xFFFFFFFF) == (most, longest)
    assert terms(0, 0) == (most, longest)
    assert terms(100000, 3600) == (100000, 3600)
    assert terms(1, 1) == (MIN_RECORDS, MIN_AGE_S)


def test_a_weaker_package_is_clamped_by_the_node():
    bench = Bench(1)
    app = App(bench)
    pack = bench.nodes["pack"]
    bench.until(lambda: len(pack.slots) == 1)
    bench.run(100)
    app.claim_pack(pack.claim_code())
    make = app.make_package
    app.make_package = lambda *given, **fields: make(*given, max_records=0x3FFFFFFF, max_age_s=0xFFFFFFFF, **fields)
    app.introduce(1, bench.nodes["module0"].claim_code())
    for node in (pack, bench.nodes["module0"]):
        relation = relation_of(node, 1)
        assert relation.max_records == package.DEFAULT_MAX_RECORDS
        assert relation.max_age_s == package.DEFAULT_MAX_AGE_S
    entry = next(entry for entry in ask_report(bench, app, 0x40).entries if entry.max_records)
    assert entry.max_records == package.DEFAULT_MAX_RECORDS  # and the owner is told
    bench.sound()


# -- the pack alone ----------------------------------------------------------------------------------------------------


def test_pack_rotates_alone_under_full_traffic_and_no_record_is_lost():
    bench, pack, module = alone(2)
    ledger = Ledger(pack, module)
    use(pack, 1, 6)
    old = bytes(relation_of(pack, 1).root)
    bench.until(lambda: settled(bench, 2), 5000)
    bench.run(2000)
    ledger.check()
    directions = set(item[0] for item in ledger.opened if item[1] == 2)
    assert directions == {0, 1}
    assert bytes(relation_of(pack, 1).root) != old
    assert refusals(pack.slots[1].channel) == {} == refusals(module.neighbour(1).channel)
    assert pack.counters["rotations"] == module.counters["rotations"] == 1
    assert epochs(bench, 2) == (1, 1)  # each pair by itself
    assert pack.usage.records(relation_of(pack, 1)) < 200
    bench.sound()


# -- what the bus does to it -------------------------------------------------------------------------------------------


def test_an_old_epoch_is_not_agreed_on_again():
    """The module says how far it is; the pack does not follow where nobody can be."""
    _bench, pack, module = alone()
    relation = relation_of(module, 1)
    for epoch in (0, 1):
        message = rotation.propose(epoch, SALT, b"p" * 32)
        assert node_rotation.take(module, None, module.neighbour(1), message, 1) is None
    assert relation_of(module, 1) is relation
    ours = node_rotation.begin(pack, relation_of(pack, 1))
    for newest in (0, 2 + rotation.EPOCH_JUMP, 0xFFFFFFFF):
        assert node_rotation.take(pack, ours, pack.slots[1], rotation.behind(newest), 1) is ours
    skipped = node_rotation.take(pack, ours, pack.slots[1], rotation.behind(5), 1)
    assert skipped is not ours and skipped.epoch == 6


def test_messages_of_a_rotation_are_taken_from_nobody_else():
    bench, pack, module = alone()
    # From the app, by the rows of the module bus; and by a module that has begun nothing.
    pack.slots[1].seal(0x50C, bytes((ANSWER,)) + bytes(76))
    module.neighbour(1).seal(0x51C, rotation.propose(2, SALT, b"p" * 32))
    module.neighbour(1).seal(0x50C, bytes((ANSWER,)) + bytes(76))
    bench.run(3000)
    assert module.counters["rotation"] == 1 and pack.counters["rotation"] == 2
    assert epochs(bench) == (1, 1) and settled(bench, 1)
    bench.sound()


# -- power -------------------------------------------------------------------------------------------------------------


# -- report ------------------------------------------------------------------------------------------------------------


def test_report_to_the_owner():
    bench, pack, _module = alone(2)
    app = bench.owner
    salts = []
    begin = node_rotation.begin

    def watched(node, relation):
        made = begin(node, relation)
        salts.append(made._salt)
        return made

    node_rotation.begin = watched
    try:
        use(pack, 1, 6)
        bench.until(lambda: settled(bench, 2), 5000)
    finally:
        node_rotation.begin = begin
    got = ask_report(bench, app, 0x40)
    assert got.fingerprint == pack.identity.fingerprint
    assert (got.counter, got.boot_counter, got.total, got.first) == (pack.identity.counter, 1, 3, 0)
    by_tag = {entry.tag: entry for entry in got.entries}
    mine = by_tag[relation_of(pack, 1).tag]
    assert mine.epoch == 2 and mine.flags == 1 and mine.salt_hash == sha256(salts[0])
    other = by_tag[relation_of(pack, 2).tag]
    assert other.epoch == 1 and other.flags == 0 and other.salt_hash == bytes(32)
    assert 0 < other.records < 5000 and other.max_records == package.DEFAULT_MAX_RECORDS
    theirs = ask_report(bench, app, 1).entries[0]
    assert (theirs.epoch, theirs.flags, theirs.salt_hash) == (2, 1, mine.salt_hash)
    assert [entry.tag for entry in ask_report(bench, app, 0x40, 2).entries] == [got.entries[2].tag]
    assert ask_report(bench, app, 0x40, 3).entries == []
    single = ask_report(bench, app, 0x40, tag=other.tag)
    assert [entry.tag for entry in single.entries] == [other.tag]
    assert (single.total, single.first) == (3, [entry.tag for entry in got.entries].index(other.tag))
    nobody = ask_report(bench, app, 0x40, tag=bytes(8))
    assert nobody.entries == [] and (nobody.counter, nobody.total) == (got.counter, 3)
    use(pack, 2, 8)
    assert [entry.flags for entry in ask_report(bench, app, 0x40).entries if entry.tag == other.tag] == [4 | 8]
    bench.sound()


def test_released_nodes_keep_no_salt_and_no_usage():
    bench, pack, module = alone()
    use(pack, 1, 6)
    bench.until(lambda: settled(bench, 2), 5000)
    bench.run(1500)
    store = bench.envs["module0"].store
    assert RECORD in store.names() and any(name.startswith("salt-") for name in store.names())
    module.reset()
    assert [name for name in store.names() if not name.startswith("audit")] == ["boot", "identity"]


def test_nothing_secret_stays_behind():
    bench, pack, _module = alone()
    made = []
    init = node_rotation.Rotation.__init__

    def watched(self, *arguments):
        init(self, *arguments)
        made.append(self)

    node_rotation.Rotation.__init__ = watched
    try:
        use(pack, 1, 6)
        bench.until(lambda: settled(bench, 2), 5000)
        bench.run(11000)
    finally:
        node_rotation.Rotation.__init__ = init
    assert len(made) == 2
    for one in made:
        assert not any(one._dh_static)
        exchange = one._exchange
        assert exchange is None or not (
            any(exchange._secret) or any(exchange._dh_static) or any(exchange._ephemeral) or any(exchange.root)
        )
