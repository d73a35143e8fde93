"""Attack: an epoch that never ends: a package weakens the limits of its use.

Setting    a keyed pair of pack and module; its owner has lately shortened its epochs.
Means      packages that ask for 2^32 - 1 records and 136 years: of the owner's own app, with other ideas than ours or taken
           over; an old one of the owner's, recorded, from before the limits were shortened; a stranger's.
Success    would be a limit in force above the built-in one, or a package taken that is not new or not the owner's.
"""

import pytest

from attack_suite import Attack
from nodebench import PACK_NODE, App, keyed_bench
from packtrust import package, provision
from packtrust.keys import fingerprint
from rotation_bench import relation_of
from weakening import Weakening

ATTACK = Attack(
    name="weaker terms",
    source="own",
    defence="a device clamps limits to its built-in ones; package counter and epoch must rise; its owner is pinned",
    without="a device that takes any limits, of any package",
    weakening=Weakening(
        (
            "packtrust.keys",
            "        min(DEFAULT_MAX_RECORDS, max(MIN_RECORDS, max_records or DEFAULT_MAX_RECORDS)),\n"
            "        min(DEFAULT_MAX_AGE_S, max(MIN_AGE_S, max_age_s or DEFAULT_MAX_AGE_S)),\n",
            "        max_records or DEFAULT_MAX_RECORDS,\n        max_age_s or DEFAULT_MAX_AGE_S,\n",
        ),
        ("packtrust_node.taking", "    if content.counter <= identity.counter:", "    if False:"),
        ("packtrust_node.taking", "        if content.epoch <= known.epoch:", "        if False:"),
        (
            "packtrust_node.opening",
            "    if identity.claimed and sender != identity.owner_public:",
            "    if False:",
        ),
    ),
)
MOST = {"max_records": 0xFFFFFFFF, "max_age_s": 0xFFFFFFFF}


def asking_for(app, **fields):
    """From now on its packages ask for these limits; their sealed bodies are recorded in the list returned."""
    make, seal = app.make_package, package.seal
    bodies = []

    def make_package(*given, **more):
        content = make(*given, **dict(more, **fields))
        body, _, _ = seal(content, given[0].public_key, app.private, app.entropy(32))
        bodies.append((given[1], body))
        return content

    app.make_package = make_package
    return bodies, lambda: setattr(app, "make_package", make)


def the_owner_s_own(bench, app):
    asking_for(app, **MOST)
    app.introduce(1)
    for node in (bench.nodes["pack"], module(bench)):
        kept = relation_of(node, 1)
        assert kept.epoch == 2
        if kept.max_records > package.DEFAULT_MAX_RECORDS or kept.max_age_s > package.DEFAULT_MAX_AGE_S:
            return "an epoch of %d records and %d s" % (kept.max_records, kept.max_age_s)
    return ""


def an_old_one(bench, app):
    old, back = asking_for(app)
    app.introduce(1)
    back()
    _, back = asking_for(app, max_records=4096, max_age_s=3600)
    app.introduce(1)
    back()
    bench.run(35_000)
    assert len(old) == 2 and relation_of(module(bench), 1).max_records == 4096
    stranger = App(bench, "stranger")
    taken = [target for target, body in old if is_taken(stranger, target, body)]
    assert relation_of(module(bench), 1).max_records == 4096
    return "a package of longer epochs is taken again" if taken else ""


def a_stranger_s(bench, app):
    stranger = App(bench, "stranger")
    owners = stranger.identify(PACK_NODE)
    identity = stranger.identify(1)
    stranger.counter = identity.counter + 10
    stranger.epochs["lct-1"] = 9
    content = stranger.make_package(identity, 1, "lct-1", owners.public_key, **MOST)
    body, _, _ = package.seal(content, identity.public_key, stranger.private, stranger.entropy(32))
    assert fingerprint(stranger.public) != module(bench).identity.owner_fingerprint
    return "a stranger's package is taken" if is_taken(stranger, 1, body) else ""


def is_taken(app, target, body):
    return app.ask(target, provision.PACKAGE, body).kind == provision.RECEIPT


def module(bench):
    return next(node for node in bench.nodes.values() if node.own_node == 1)


WAYS = {"the owner's own": the_owner_s_own, "an old one": an_old_one, "a stranger's": a_stranger_s}


@pytest.mark.parametrize("way", WAYS)
def test_attack(way):
    bench, app = keyed_bench(1)
    assert WAYS[way](bench, app) == ""
    bench.sound()


@pytest.mark.parametrize("way", WAYS)
def test_control(weakness, way):
    assert WAYS[way](*keyed_bench(1))
