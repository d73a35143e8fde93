"""Stores of every format there ever was are read by today's code; what newer firmware wrote is kept and refused.

The images in tests/vectors/store.json were written by the firmware of their time (tests/vectors/generate_store.py). A
format or record version that no image has fails here: whoever makes a new one adds its images.
"""

from struct import pack

from nodebench import MODULE_BUS, PACK_NODE, Bench, Entropy
from packtrust import provision
from packtrust.errors import StorageError
from packtrust_node import boot_record, identity, relation, usage
from packtrust_node.store import FORMAT, MemorySlots, Store
from portable import raises, unhexlify, vectors


class Disk(MemorySlots):
    """A node's slots as an image has them."""

    def __init__(self, node):
        MemorySlots.__init__(self)
        for name, data in node["slots"].items():
            self.files[name] = unhexlify(data)


def nodes_of_all_images():
    for item in vectors("store")["formats"]:
        for image in item["images"]:
            for name, node in image["nodes"].items():
                yield item["format"], image["name"], name, node


def records(store):
    return {name: bytes(store.read(name)) for name in store.names()}


# Kinds of records by the beginning of their names. Blocks of the audit log and hashes of salts have no version.
VERSIONED = ("boot", "identity", "rel", "usage", "audit")
WITHOUT_VERSION = ("salt",)


def versions(store):
    """(kind, version) of every record in a store."""
    found = set()
    for name, raw in records(store).items():
        kind = name.split("-")[0]
        assert kind in VERSIONED + WITHOUT_VERSION, "a new kind of record: %s" % name
        if kind == boot_record.RECORD:
            found.add((kind, boot_record.decode(raw)[0]))
        elif kind in VERSIONED and not name.startswith("audit-"):
            found.add((kind, raw[0]))
    return found


def test_there_are_images_of_every_version_that_is_written():
    found = set()
    formats = set()
    for _, _, _, node in nodes_of_all_images():
        slots = Disk(node)
        formats.update([raw[2] if raw[:2] == b"pt" else 1 for name, raw in slots.files.items() if name != "store.key"])
        found |= versions(Store(slots, None, node["unique_id"]))
    assert formats == set(range(1, FORMAT + 1))
    bench, _ = keyed()
    written = set()
    for env in bench.envs.values():
        written |= versions(env.store)
    assert {kind for kind, _ in written} == set(VERSIONED)
    for kind, newest in written:
        for version in range(1, newest + 1):
            assert (kind, version) in found, "tests/vectors/store.json has no %s of version %d" % (kind, version)


def test_every_image_holds_what_it_was_written_with():
    count = 0
    for form, image, name, node in nodes_of_all_images():
        count += 1
        where = (form, image, name)
        found = records(Store(Disk(node), None, node["unique_id"]))
        assert boot_record.decode(found.pop("boot"))[1] == node["boot_counter"], where
        stored = identity.decode(found.pop("identity"))
        assert stored.private == unhexlify(node["private"]), where
        assert stored.claim_code == unhexlify(node["claim_code"]), where
        assert stored.owner_public == unhexlify(node["owner_public"]), where
        assert stored.counter == node["counter"], where
        kept = [relation.decode(raw) for record, raw in found.items() if record.startswith(relation.PREFIX)]
        relations = sorted(kept, key=lambda item: item.lct_id)
        assert len(relations) == len(node["relations"]), where
        for got, wanted in zip(relations, node["relations"]):
            assert (got.lct_id, got.epoch, got.node, got.counter) == (
                wanted["lct_id"],
                wanted["epoch"],
                wanted["node"],
                wanted["counter"],
            ), where
            assert got.root == unhexlify(wanted["root"]), where
            previous = wanted["previous"]
            if previous is None:
                assert got.previous is None, where
            else:
                assert got.previous == (previous["epoch"], unhexlify(previous["root"])), where
    assert count >= 6


def test_what_is_written_again_is_of_todays_format_and_the_rest_stays():
    for _, _, _, node in nodes_of_all_images():
        slots = Disk(node)
        store = Store(slots, Entropy("new"), node["unique_id"])
        before = records(store)
        for name, raw in before.items():
            store.write(name, raw, True)
            assert records(Store(slots, None, node["unique_id"])) == before
        assert all(raw[:3] == b"pt" + bytes((FORMAT,)) for name, raw in slots.files.items() if name != "store.key")


# -- a node and what it finds ------------------------------------------------------------------------------------------


def booted(change=None, modules=1):
    """A pack that was claimed and keyed, after `change(bench, node, app)` with its power off: (bench, node, app)."""
    bench, app = keyed()
    node = bench.nodes["pack"]
    bench.boot("pack")  # so that the boot record has seen the claim
    if change is not None:
        change(bench.envs["pack"].store, node)
    return bench, bench.boot("pack"), app


def keyed():
    from nodebench import keyed_bench

    bench, app = keyed_bench(1)
    return bench, app


def slots_of(bench):
    return bench.envs["pack"].slots


def test_a_normal_boot_finds_nothing():
    bench, node, _ = booted()
    assert node.identity.claimed and node.relations and node.boot_counter == 3
    assert not [name for name in node.counters if name.startswith("store-")]
    assert bench.envs["pack"].store.written == {"boot": 1}


def refused_until_reset(bench, node, app, evidence):
    """Out of service, nothing wiped; the owner is told; the console's reset helps."""
    before = dict(slots_of(bench).files)
    for _ in range(2):
        assert node.identity is None and not node.relations
        assert [line for line in bench.envs["pack"].lines if "no identity" in line and "reset the node" in line]
        if evidence:
            assert node.counters[evidence] >= 1
        else:
            assert not [name for name in node.counters if name.startswith("store-")]
        kept = {name: raw for name, raw in slots_of(bench).files.items() if not name.startswith("boot")}
        assert kept == {name: raw for name, raw in before.items() if not name.startswith("boot")}
        assert app.refusal(PACK_NODE, provision.IDENTIFY) == provision.REFUSED_STORAGE
        node = bench.boot("pack")
    node.reset()
    assert node.identity is not None and not node.identity.claimed and len(node.claim_code()) == 16
    node = bench.boot("pack")
    assert node.identity is not None and node.boot_counter == 2
    assert not [name for name in node.counters if name.startswith("store-")]


def test_an_identity_of_newer_firmware_is_kept_and_refused():
    def change(store, node):
        raw = store.read("identity")
        raw[0] = 99
        store.write("identity", raw)

    refused_until_reset(*booted(change), None)


def test_a_slot_of_a_newer_format_is_kept_and_refused():
    def change(store, node):
        store._slots.write("identity.b", b"pt\x63" + bytes(80))

    refused_until_reset(*booted(change), None)


def test_an_identity_put_back_is_refused():
    """Flash as it was before the claim, but for the rest: the claim code is not good again."""
    for also in (True, False):  # with the relationships left, and without

        def change(store, node, also=also):
            stored = identity.decode(store.read("identity"))
            store.write("identity", stored.released(bytes(range(16)), 0).encode())
            if not also:
                for name in store.names():
                    if name.startswith(relation.PREFIX):
                        store.remove(name)

        refused_until_reset(*booted(change), "store-rollback")


def test_an_identity_older_than_its_relationships_is_refused():
    """The boot record put back too: the relationships still know better."""

    def change(store, node):
        stored = identity.decode(store.read("identity"))
        store.write("identity", stored.released(bytes(range(16)), 0).encode())
        store.write("boot", boot_record.encode(1, 0))

    refused_until_reset(*booted(change), "store-rollback")


def test_an_identity_taken_away_is_not_made_anew():
    for also in ((), ("boot",)):  # the boot record as well: there are relationships yet

        def change(store, node, also=also):
            for name in ("identity",) + also:
                store.remove(name)

        refused_until_reset(*booted(change), "store-factory")


def test_a_forged_identity_is_refused():
    def change(store, node):
        for name, raw in store._slots.files.items():
            if name.startswith("identity"):
                store._slots.files[name] = raw[:-1] + bytes((raw[-1] ^ 1,))

    refused_until_reset(*booted(change), "store-auth")


def test_a_lost_key_file_is_refused():
    def change(store, node):
        store._slots.remove("store.key")

    bench, node, app = booted(change)
    assert node.counters["store-lost"] >= 1 and node.boot_counter == 0
    refused_until_reset(bench, node, app, "store-lost")


def test_a_boot_record_that_cannot_be_read_is_kept_and_a_reset_begins_it_anew():
    def change(store, node):
        store.write("boot", b"\x63" + bytes(20))

    bench, node, _ = booted(change)
    assert node.boot_counter == 0 and node.identity.claimed and node.relations
    assert [line for line in bench.envs["pack"].lines if "boot counter" in line and "newer firmware" in line]
    assert bench.envs["pack"].store.read("boot") == b"\x63" + bytes(20)
    node.reset()
    assert bench.boot("pack").boot_counter == 1


def test_a_relationship_of_newer_firmware_is_kept():
    def change(store, node):
        for name in store.names():
            if name.startswith(relation.PREFIX):
                raw = store.read(name)
                raw[0] = 99
                store.write(name, raw)

    bench, node, _ = booted(change)
    assert node.identity.claimed and not node.relations
    assert [line for line in bench.envs["pack"].lines if "relationships" in line and "newer firmware" in line]
    store = bench.envs["pack"].store
    kept = [name for name in store.names() if name.startswith(relation.PREFIX)]
    assert kept and all(store.read(name)[0] == 99 for name in kept)


def test_a_usage_record_of_newer_firmware_is_kept_and_its_epochs_count_as_used_up():
    planted = b"\x63" + bytes(40)

    def change(store, node):
        store.write("usage", planted)

    bench, node, _ = booted(change)
    store = bench.envs["pack"].store
    bench.run(100)
    assert [line for line in bench.envs["pack"].lines if "record usage" in line and "newer firmware" in line]
    assert node.counters["storage"] == 1
    for held in node.relations.values():
        assert node.usage.used(held, usage.USED_UP)
    # No store of any kind goes over it: once an hour, a new epoch, its share of records.
    module = node.slots[1]
    bench.until(lambda: module.relation.epoch > 1 and not module.used_up and module.established, 20000)
    node.usage._save_s = 0
    bench.run(2000)
    assert store.read("usage") == planted and store.written.get("usage") is None
    assert node.counters["epoch-used-up"] == 2
    # The pack has changed the epoch with its module by itself, and goes on with it; what the record says counts again
    # after a boot.
    assert node.keyed_slots()[0].active(bench.now_ms)
    node = bench.boot("pack")
    bench.run(2000)
    assert bench.envs["pack"].store.read("usage") == planted and node.counters["epoch-used-up"] == 2
    # Until the node is released or reset.
    node.forget(node.identity.counter + 1)
    assert bench.envs["pack"].store.read("usage") is None


def test_malformed_boot_records():
    for size in range(12):
        if size not in (4, 9):
            raises(StorageError, boot_record.decode, b"\x02" * size)
    raises(StorageError, boot_record.decode, bytes(9))
    assert boot_record.decode(pack(">I", 77)) == (1, 77, 0)
    assert boot_record.decode(boot_record.encode(0xFFFFFFFF, 5)) == (2, 0xFFFFFFFF, 5)


# -- how often it writes -----------------------------------------------------------------------------------------------


def test_normal_traffic_writes_nothing():
    bench, _ = keyed()
    before = {name: dict(env.store.written) for name, env in bench.envs.items()}
    bench.run(20000)
    assert {name: env.store.written for name, env in bench.envs.items()} == before
    assert bench.nodes["pack"].keyed_slots()


def test_what_strangers_send_writes_nothing_but_a_sign_of_it_once():
    from packtrust.frame import Frame

    bench, app = keyed()
    before = {name: dict(env.store.written) for name, env in bench.envs.items()}

    def send():
        for kind in range(1, 0x24):
            for size in (0, 12, 44, 100):
                app.ask(PACK_NODE, kind, bytes(range(size)))
        for base in range(0x500, 0x540):
            bench.inject(MODULE_BUS, Frame(base << 18 | 1, bytes(8)))
        bench.run(3000)

    send()
    once = {name: dict(env.store.written) for name, env in bench.envs.items()}
    for name, node in bench.nodes.items():
        assert node.guard.signs
        # Signs found in one second are one write, and one deletion of what it replaces.
        assert 0 < once[name].pop("audit") - before[name].pop("audit") <= 4, name
        assert once[name] == before[name]
    once = {name: dict(env.store.written) for name, env in bench.envs.items()}
    send()
    assert {name: env.store.written for name, env in bench.envs.items()} == once


def test_an_unclaimed_boot_writes_each_record_once():
    bench = Bench(0)
    assert bench.envs["pack"].store.written == {"identity": 1, "boot": 1}
    for _ in range(5):
        bench.boot("pack")
        assert bench.envs["pack"].store.written == {"boot": 1}
