"""Attack: a captured node rewrites its past.

Setting    a keyed pack; module 1 has logged its claim, its package, its commit and a sign of tampering, and was not read yet.
Means      everything in the module's flash, and the module itself: its present audit key, all entries and their MACs.
Success    would be a log without what he wants forgotten, changed or shortened, that its owner collects and believes.
"""

import pytest

from attack_suite import Attack
from packtrust import audit
from packtrust_host.app.errors import ProofFailed
from packtrust_host.audit.collect import Collector
from packtrust_host.audit.log import AuditLogs
from packtrust_node import audit_log
from weakening import Weakening

ATTACK = Attack(
    name="rewritten past",
    source="own",
    defence="an entry's key is ratcheted and destroyed with it, and the owner asks for a proof of the log's end",
    without="one key for all entries",
    weakening=Weakening(
        ("packtrust.audit", '    return bytearray(hmac_sha256(key, b"next"))', "    return bytearray(key)"),
    ),
)


def entries_of(log):
    """The entries of the block that is being filled."""
    found = []
    at = 32
    while at < len(log.block):
        stop = at + 1 + log.block[at]
        found.append(bytes(log.block[at + 1 : stop]))
        at = stop + audit.MAC_LENGTH
    return found


def rewrite(node, entries):
    """Entries in place of those there are, under the key that is there."""
    log = audit_log._load(node)
    del log.raw[len(log.raw) - len(log.block) + 32 :]
    log.chain = bytes(32)
    log.count = log.following = len(entries)
    for raw in entries:
        log.chain = audit.link(log.chain, raw)
        log.raw.extend(bytes((len(raw),)) + raw + audit.entry_mac(log.key, log.chain))
    log.save(node)


def changed(node):
    entries = entries_of(audit_log._load(node))
    parsed = audit.parse_entry(entries[3])
    assert parsed.kind == "sign"
    event = audit.key_event(1, 1, 1)
    rewrite(node, [*entries[:3], audit.encode_entry(3, 1, 1, "aborted", event), *entries[4:]])


def shortened(node):
    rewrite(node, entries_of(audit_log._load(node))[:3])


def left_out(node):
    entries = entries_of(audit_log._load(node))
    last = audit.parse_entry(entries[4])
    moved = audit.encode_entry(3, last.boot_counter, last.uptime_s, last.kind, entries[4][13:])
    rewrite(node, [*entries[:3], moved])


WAYS = {"changed": changed, "left out": left_out, "shortened": shortened}


def carry_out(bench, way):
    node = bench.pack.node("module1")
    device = bench.store.devices[node.unique_id]
    audit_log.write(node, [("sign", audit.sign_body(2, 40, 7))])
    node.note("aborted", 1, 2, 3)
    assert len(entries_of(audit_log._load(node))) == 5
    WAYS[way](node)
    collector = Collector(bench.provisioner(), AuditLogs(bench.store))
    try:
        found = bench.run(collector.collect(device, "pack-%08x" % bench.pack.node("pack").unique_id))
    except ProofFailed:
        return ""
    told = [entry.kind for entry in found.entries]
    return "the owner believes a past of %s" % ", ".join(told) if "sign" not in told else ""


@pytest.mark.parametrize("way", WAYS)
def test_attack(keyed, way):
    assert carry_out(keyed, way) == ""


@pytest.mark.parametrize("way", WAYS)
def test_control(weak, way):
    assert carry_out(weak, way)
