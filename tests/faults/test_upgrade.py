"""A pack and a module whose flash was written by firmware of any format there ever was: they start, and talk.

Their stores are images of their time (tests/vectors/store.json); the rest is in tests/unit/core/test_store_upgrade.py.
"""

import json
from pathlib import Path

import pytest

from attacker import nodes_of
from packtrust_host.sim.inprocess import InProcessPack

FORMATS = json.loads((Path(__file__).parents[1] / "vectors/store.json").read_text())["formats"]
IMAGES = [
    pytest.param(image, id="format %s-%s" % (item["format"], image["name"]))
    for item in FORMATS
    for image in item["images"]
]


@pytest.mark.parametrize("image", IMAGES)
def test_nodes_of_any_format_start_and_talk(image):
    pack = InProcessPack(1, 41)
    for name, node in image["nodes"].items():
        pack.stations[name].slots.files = {slot: bytes.fromhex(raw) for slot, raw in node["slots"].items()}
    pack.start()
    for name, wanted in image["nodes"].items():
        node = pack.node(name)
        assert bytes(node.identity.private).hex() == wanted["private"]
        assert bytes(node.claim_code()).hex() == wanted["claim_code"]
        assert node.identity.counter == wanted["counter"]
        assert node.boot_counter == wanted["boot_counter"] + 1
        assert len(node.relations) == len(wanted["relations"])
        assert not [what for what in node.counters if what.startswith(("store-", "storage", "identity"))]
    keyed = bool(image["nodes"]["module1"]["relations"])
    if keyed:
        slot = lambda: [slot for slot in pack.node("pack").keyed_slots() if slot.established]  # noqa: E731
        assert pack.run_until(lambda: bool(slot()), 20_000)
        pack.run_for(3000)
        assert slot()[0].channel.session_epoch == image["nodes"]["module1"]["relations"][0]["epoch"]
        # The new epoch has proved itself: the old one is gone from RAM and from flash.
        for node in (pack.node("pack"), pack.node("module1")):
            assert all(relation.previous is None for relation in node.relations.values() if relation.node < 0x40)
    else:
        pack.run_for(3000)
    # And once more, from what the present firmware has written.
    for name in image["nodes"]:
        before = pack.node(name).boot_counter
        node = pack.power_cycle(name)
        assert node.boot_counter == before + 1
        assert bytes(node.identity.private).hex() == image["nodes"][name]["private"]
    if keyed:
        assert pack.run_until(lambda: bool(slot()), 20_000)


def test_the_finished_epoch_is_gone_from_flash(keyed):
    """Both copies: whoever opens the store later finds the root in use and none before it."""
    from packtrust_node import relation as relations

    number = keyed.pack.node("module1").own_node
    record = next(item for item in keyed.store.relationships.values() if item.node == number)
    old = {bytes(found.root) for found in keyed.pack.node("module1").relations.values()}
    keyed.run(keyed.provisioner().install(record.lct_id))
    keyed.pack.run_for(3000)
    for node in nodes_of(keyed)[:2]:
        store = node.env.store
        aead = store._open_key(False)
        for name in store.names():
            if not name.startswith(relations.PREFIX):
                continue
            for slot in (name + ".a", name + ".b"):
                found = store._load(name, slot, aead)
                if found is not None:
                    kept = relations.decode(found[1])
                    assert bytes(kept.root) not in old, (node, slot)
                    assert kept.previous is None or bytes(kept.previous[1]) not in old
