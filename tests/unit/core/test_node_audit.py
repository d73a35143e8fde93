"""The audit log of a node: what gets into it, who gets it, what a captured node can make of it, signs and counts."""

import auditor
from nodebench import PACK_NODE, App, Bench, clear_frame
from packtrust import audit, package, provision
from packtrust.errors import StorageError
from packtrust_node import audit_log
from portable import raises
from rotation_bench import settled, use

MODULE = 1


class Owner(App):
    """An App that keeps the first key of each log."""

    def __init__(self, bench, name="app", **options):
        App.__init__(self, bench, name, **options)
        self.log_keys = {}

    def give(self, target, content, identity, code=b"", check=True):
        wanted = App.give(self, target, content, identity, code, check)
        if code and not isinstance(wanted, int):
            self.log_keys[target] = audit.first_key(wanted.receipt_key)
        return wanted

    def log(self, target, first=0):
        return auditor.collect(self, target, self.log_keys[target], first)


def owned(modules=1, **options):
    """(bench, owner): pack and modules claimed, keyed and in session."""
    bench = Bench(modules, **options)
    owner = Owner(bench)
    pack = bench.nodes["pack"]
    bench.until(lambda: len(pack.slots) == modules)
    owner.claim_pack(pack.claim_code())
    for name, node in list(bench.nodes.items()):
        if name != "pack":
            owner.introduce(node.own_node, node.claim_code())
    bench.until(lambda: all(slot.established for slot in pack.keyed_slots()))
    bench.run(1000)
    return bench, owner


def kinds(entries):
    return [entry.kind for entry in entries]


def test_key_events_of_a_claim_are_there_and_verify():
    bench, owner = owned()
    entries, part = owner.log(PACK_NODE)
    assert kinds(entries) == ["claimed", "package", "committed", "package", "committed"]
    assert [entry.number for entry in entries] == [0, 1, 2, 3, 4] and part.following == 5
    assert entries[0].values["key_id"] == named(owner.log_keys[PACK_NODE])
    pack = bench.nodes["pack"]
    by_node = dict([(relation.node, relation) for relation in pack.relations.values()])
    assert entries[2].values["key_id"] == named(by_node[PACK_NODE].root)
    assert entries[4].values == {"node": 1, "epoch": 1, "counter": 3, "key_id": named(by_node[1].root)}
    assert kinds(owner.log(MODULE)[0]) == ["claimed", "package", "committed"]
    bench.sound()


def named(key):
    return "".join(["%02x" % byte for byte in audit.key_id(key)])


def test_no_key_is_in_the_log():
    bench, owner = owned()
    pack = bench.nodes["pack"]
    secret = [relation.root for relation in pack.relations.values()] + [pack.identity.private]
    for entry in owner.log(PACK_NODE)[0]:
        for key in secret:
            for at in range(0, 32, 8):
                assert bytes(key[at : at + 8]) not in entry.raw


def test_a_new_epoch_and_the_end_of_the_old_one():
    bench, owner = owned()
    owner.introduce(MODULE)
    bench.until(lambda: bench.nodes["module0"]._pack.channel.session_epoch == 2)
    bench.run(1500)
    assert kinds(owner.log(MODULE, 3)[0]) == ["package", "committed", "epoch-end"]
    assert owner.log(MODULE, 3)[0][2].values["epoch"] == 1


def test_an_epoch_made_without_an_app_is_named_by_both_ends():
    bench, owner = owned()
    pack, module = bench.nodes["pack"], bench.nodes["module0"]
    before, _ = owner.log(MODULE)
    old = [named(relation.root) for relation in module.relations.values()]
    bench.app = None  # gone: the pack rotates by itself
    use(pack, MODULE, 6)
    bench.until(lambda: settled(bench, 2), 10000)
    bench.app = owner
    roots = []
    for target, node in ((PACK_NODE, pack), (MODULE, module)):
        log = owner.log(target)[0]
        found = [entry for entry in log if entry.kind == "rotated"]
        assert len(found) == 1, kinds(log)
        relation = next(item for item in node.relations.values() if item.node == MODULE)
        expected = {"node": MODULE, "epoch": 2, "counter": relation.counter, "key_id": named(relation.root)}
        assert found[0].values == expected
        roots.append(expected["key_id"])
    assert roots[0] == roots[1] and roots[0] not in old
    assert len(owner.log(MODULE)[0]) > len(before)


def test_an_aborted_package():
    _, owner = owned()
    pack, _ = owner.introduce(MODULE, commit=False)
    assert owner.order(pack, provision.ABORT) == 0
    assert kinds(owner.log(PACK_NODE)[0])[-1] == "aborted"


def test_the_log_survives_a_reboot_and_goes_on():
    bench, owner = owned()
    before, _ = owner.log(MODULE)
    bench.boot("module0")
    bench.run(2000)
    owner.introduce(MODULE)
    bench.run(1500)
    after, _ = owner.log(MODULE)
    assert [entry.raw for entry in after[: len(before)]] == [entry.raw for entry in before]
    assert after[-1].boot_counter == before[0].boot_counter + 1


def test_only_the_owner_is_answered():
    bench, owner = owned()
    stranger = App(bench, "stranger", attach=False)
    identity = owner.identify(PACK_NODE)
    content = bytes(4) + bytes(16)
    for app in (stranger,):
        body = provision.with_mac(auditor.owner_key(app, identity), provision.AUDIT, content)
        assert owner.refusal(PACK_NODE, provision.AUDIT, body) == provision.REFUSED_NOT_OWNER
    for body in (b"", content, bytes(31), bytes(200)):
        assert owner.refusal(PACK_NODE, provision.AUDIT, body) == provision.REFUSED_NOT_OWNER
        assert owner.refusal(PACK_NODE, provision.CLEAR_SIGNS, body) == provision.REFUSED_NOT_OWNER
    key = auditor.owner_key(owner, identity)
    short = provision.with_mac(key, provision.AUDIT, bytes(7))
    assert owner.refusal(PACK_NODE, provision.AUDIT, short) == provision.REFUSED_UNKNOWN
    bench.sound()


def test_a_node_that_nobody_owns_has_no_log():
    bench = Bench(1)
    owner = Owner(bench)
    bench.run(1500)
    assert owner.refusal(PACK_NODE, provision.AUDIT, bytes(52)) == provision.REFUSED_STATE
    assert "audit.a" not in bench._slots["pack"].files
    bench.sound()


def test_after_a_release_the_key_is_gone_and_the_next_owner_begins_anew():
    bench, owner = owned(0)
    identity = owner.identify(PACK_NODE)
    owner.counter += 1
    body, _, _ = package.seal(package.Release(owner.counter), identity.public_key, owner.private, owner.entropy(32))
    assert owner.ask(PACK_NODE, provision.PACKAGE, body).kind == provision.RECEIPT
    pack = bench.nodes["pack"]
    log = audit_log._load(pack)
    assert not any(log.key) and log.following == 4
    other = Owner(bench, "other")
    other.claim_pack(pack.claim_code())
    entries, part = other.log(PACK_NODE)
    assert kinds(entries)[0] == "claimed" and part.start == 4
    # The chain goes on from the last owner's, so that nobody's log can be exchanged behind a transfer.
    assert part.before == log.chain
    asked = provision.with_mac(auditor.owner_key(owner, identity), provision.AUDIT, bytes(20))
    assert other.refusal(PACK_NODE, provision.AUDIT, asked) == provision.REFUSED_NOT_OWNER


def test_a_reset_at_the_console_is_the_last_entry_under_the_old_key():
    bench, _ = owned(0)
    before = audit_log._load(bench.nodes["pack"])
    key, chain = bytes(before.key), before.chain
    bench.nodes["pack"].reset()
    after = audit_log._load(bench.nodes["pack"])
    raw, mac = last(after)
    assert audit.parse_entry(raw).kind == "reset" and not any(after.key)
    assert mac == audit.entry_mac(key, audit.link(chain, raw))


def last(log):
    """The newest entry of a Log and its MAC."""
    at = 32
    found = None
    while at < len(log.block):
        stop = at + 1 + log.block[at]
        found = bytes(log.block[at + 1 : stop]), bytes(log.block[stop : stop + 32])
        at = stop + 32
    return found


def test_a_log_that_is_read_or_written_leaves_no_key_beside_its_own():
    bench, _ = owned()
    node = bench.nodes["module0"]
    log = audit_log._load(node)
    key = bytes(log.key)
    assert any(key) and key not in bytes(log.raw)
    log.append(node, "package", audit.key_event(1, 1, 1, b""))
    following = bytes(log.key)
    assert following != key
    log.save(node)
    for secret in (key, following):
        assert secret not in bytes(log.raw)
    assert bytes(audit_log._load(node).key) == following


def fill(node, count):
    for number in range(count):
        node.note("package", 1, number, number)


# -- a captured node ---------------------------------------------------------------------------------------------------


def rewritten(node, change, ratchet=None):
    """What who holds all of a node's flash can do: exchange an entry, and vouch for everything with the key he has."""
    log = audit_log._load(node)
    entries = []
    at = 32
    while at < len(log.block):
        stop = at + 1 + log.block[at]
        entries.append(bytes(log.block[at + 1 : stop]))
        at = stop + 32
    chain = bytes(log.block[:32])
    block = bytearray(chain)
    for index, raw in enumerate(entries):
        if index == change:
            parsed = audit.parse_entry(raw)
            raw = audit.encode_entry(
                parsed.number, parsed.boot_counter, parsed.uptime_s, "package", audit.key_event(9, 9, 9)
            )
        chain = audit.link(chain, raw)
        block.append(len(raw))
        block.extend(raw)
        block.extend(audit.entry_mac(log.key, chain))
    log.raw = log.raw[:86] + block
    log.chain = chain
    log.save(node)


def test_who_captures_a_node_cannot_rewrite_what_it_wrote():
    for change in range(4):
        bench, owner = owned(0)
        pack = bench.nodes["pack"]
        fill(pack, 1)
        owner.log(PACK_NODE)
        rewritten(pack, change)
        assert "MAC of entry 0" in str(raises(auditor.Untrue, owner.log, PACK_NODE))


def test_the_key_of_the_newest_entry_is_in_no_slot():
    """Of all flash: neither that key nor any before it, in clear or under the store's key."""
    bench, owner = owned(0)
    pack = bench.nodes["pack"]
    fill(pack, 3)
    store = pack.env.store
    keys = [auditor.key_of(owner.log_keys[PACK_NODE], steps) for steps in range(7)]
    assert bytes(audit_log._load(pack).key) == bytes(keys[6])
    found = []
    for name in store.names():
        for slot in (".a", ".b"):
            loaded = store._load(name, name + slot, store._open_key(False))
            if loaded is not None and loaded[0] >= 0:
                found.append(bytes(loaded[1]))
    content = b"".join(found) + b"".join([bytes(data) for data in bench._slots["pack"].files.values()])
    assert bytes(keys[6]) in content  # it looks in the right place
    for key in keys[:6]:
        assert bytes(key) not in content


# -- signs, score, counts ----------------------------------------------------------------------------------------------


def signs_in(entries):
    return [entry.values["sign"] for entry in entries if entry.kind == "sign"]


def test_a_sign_is_written_once_and_stays_until_the_owner_clears_it():
    bench, owner = owned(0)
    pack = bench.nodes["pack"]
    written = pack.guard.entries
    for _ in range(50):
        pack.count("tag")
        bench.run(1000)
    assert signs_in(owner.log(PACK_NODE)[0]) == ["forged-tag"]
    assert pack.guard.entries == written + 1
    pack = bench.boot("pack")
    assert pack.guard.signs == 2
    bench.run(3000)
    identity = owner.identify(PACK_NODE)
    key = auditor.owner_key(owner, identity)
    stale = provision.with_mac(key, provision.CLEAR_SIGNS, number(written))
    assert owner.refusal(PACK_NODE, provision.CLEAR_SIGNS, stale) == provision.REFUSED_UNKNOWN
    assert pack.guard.signs == 2
    body = provision.with_mac(key, provision.CLEAR_SIGNS, number(written + 1))
    message = owner.ask(PACK_NODE, provision.CLEAR_SIGNS, body)
    assert provision.check_mac(key, provision.SIGNS_CLEARED, message.body) == number(written + 2)
    assert pack.guard.signs == 0 and bench.boot("pack").guard.signs == 0
    # Played back it clears nothing: the log has gone on.
    bench.nodes["pack"].count("tag")
    bench.run(1500)
    assert bench.nodes["pack"].guard.signs == 2
    assert owner.refusal(PACK_NODE, provision.CLEAR_SIGNS, body) == provision.REFUSED_UNKNOWN
    cleared = [entry for entry in owner.log(PACK_NODE)[0] if entry.kind == "signs-cleared"]
    assert [entry.values["signs"] for entry in cleared] == [["forged-tag"]]


def number(value):
    return bytes((value >> 24, value >> 16 & 255, value >> 8 & 255, value & 255))


def test_soft_signs_take_more_than_one():
    bench, _ = owned(0)
    pack = bench.nodes["pack"]
    pack.count("handshake-mac")
    bench.run(1500)
    assert pack.guard.signs == 0 and pack.guard.score > 0
    for _ in range(6):
        pack.count("handshake-mac")
    bench.run(1500)
    assert pack.guard.signs == 4


def test_the_score_rises_leaks_and_is_told_to_the_app():
    bench, owner = owned(1)
    pack = bench.nodes["pack"]
    for _ in range(1000):
        pack.count("tag")
    bench.run(1500)
    assert 98 <= pack.guard.score <= 100
    bench.until(lambda: "BUS_INTERFERENCE" in owner.values)
    assert owner.values_by[("BUS_INTERFERENCE", 0)]["score"] >= 90
    assert owner.values_by[("BUS_INTERFERENCE", 0)]["signs"] == 2
    bench.run(12000)
    assert 80 <= pack.guard.score <= 90
    pack.guard.score = 3
    bench.run(5000)
    assert pack.guard.score == 0
    bench.until(lambda: owner.values_by[("BUS_INTERFERENCE", 0)]["score"] == 0, 11000)
    assert owner.values_by[("BUS_INTERFERENCE", 0)]["signs"] == 2
    module = bench.nodes["module0"]
    module.count("tag")
    bench.run(2000)
    told = owner.values_by[("BUS_INTERFERENCE", 1)]
    assert told["signs"] == 2 and 8 <= told["score"] <= 10 and told["entries"] == module.guard.entries
    bench.sound()


def test_counts_of_an_interval():
    bench, owner = owned(0, pack_config={"audit_interval_s": 60})
    pack = bench.nodes["pack"]
    bench.now_ms += 58000
    bench.run(2000)
    for _ in range(3):
        bench.inject(0, clear_frame("DIAGNOSTICS_REQUEST", PACK_NODE, module_id=0, what=0))
    bench.now_ms += 119000
    bench.run(2000)
    counts = [entry for entry in owner.log(PACK_NODE)[0] if entry.kind == "counts"]
    assert len(counts) == 2
    assert [entry.values["refused"].get("clear", 0) for entry in counts] == [0, 3]
    assert 60 <= counts[0].values["seconds"] <= 61 and 120 <= counts[1].values["seconds"] <= 121
    opened = sum([entry.values["opened"] for entry in counts])
    assert 0 < opened <= sum([link.channel.stats["opened"] for link in pack.links()])
    assert opened == pack.guard._booked[" opened"]
    assert sum([entry.values["sealed"] for entry in counts]) == pack.guard._booked[" sealed"] > 0


def test_signs_of_a_node_that_nobody_owns_are_not_the_next_owners():
    bench = Bench(0)
    pack = bench.nodes["pack"]
    pack.count("tag")
    bench.run(1500)
    assert pack.guard.signs == 2
    owner = Owner(bench)
    owner.claim_pack(pack.claim_code())
    bench.run(1500)
    assert pack.guard.signs == 0
    assert signs_in(owner.log(PACK_NODE)[0]) == []


def test_a_log_that_cannot_be_written_stops_no_node():
    bench, owner = owned(0)
    pack = bench.nodes["pack"]

    def refuse(name, data, purge=False):
        if name.startswith("audit"):
            raise StorageError("full")
        return write(name, data)

    write = pack.env.store.write
    pack.env.store.write = refuse
    pack.count("tag")
    bench.run(3000)
    assert pack.guard.signs == 2 and pack.counters["audit"] == 1
    assert owner.channel.established
    bench.sound()


def test_every_refusal_has_a_number():
    """What a node can count as refused is in the log's table, but for what only tells of its own work."""
    bench, _ = owned(1)
    known = audit.reasons()
    for node in bench.nodes.values():
        for what in node.counters:
            assert what in known or what in ("sessions", "group-key", "rotations", "released"), what


def test_group_keys_are_named_once_an_interval():
    bench, owner = owned(1, pack_config={"audit_interval_s": 60})
    pack = bench.nodes["pack"]
    bench.now_ms += 58000
    bench.run(3000)
    found = [entry for entry in owner.log(PACK_NODE)[0] if entry.kind == "group-key"]
    assert [entry.values["counter"] for entry in found] == [pack.broadcast.rekeyed]
    assert found[0].values["key_id"]
