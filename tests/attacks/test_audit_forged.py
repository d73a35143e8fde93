"""Attack: audit events on the bus that nobody has written.

Setting    a keyed pack; the pack has latched a sign of tampering and logged it.
Means      a station on the VCU bus, as an app without keys and in the pack's place: AUDIT and CLEAR_SIGNS with a MAC of his
           own making, the owner's own CLEAR_SIGNS again, AUDIT_PART with entries of his own, interference reported in clear.
Success    would be a log read or a sign cleared by a stranger, or an entry or a score that the owner believes.
"""

from struct import pack as packed

import pytest

from attack_suite import Attack
from attacker import PACK, Liar, attacker, clear_frame, leave, rogue_app, unharmed
from packtrust import audit, provision
from packtrust_host.app.errors import AppError
from packtrust_host.audit.collect import Collector
from packtrust_host.audit.log import AuditLogs
from packtrust_node import audit_log
from weakening import Weakening

ATTACK = Attack(
    name="forged audit events",
    source="own",
    defence="questions have MACs under the owner key and name the next entry; answers and entries have MACs of the log's own keys",
    without="a node that answers anybody, and an owner who looks at no MAC",
    weakening=Weakening(
        (
            "packtrust_node.audit_log",
            "    content = provision.check_mac(key, kind, body)\n",
            "    content = bytes(body[:-32])\n",
        ),
        (
            "packtrust_node.audit_log",
            '            if kind == provision.CLEAR_SIGNS and content == pack(">I", log.following):',
            "            if kind == provision.CLEAR_SIGNS:",
        ),
        ("packtrust_host.audit.collect", "            if reported:", "            if True:"),
        (
            "packtrust_host.audit.collect",
            "            if mac != audit.entry_mac(key, known.chain):",
            "            if False:",
        ),
    ),
)


def latched(bench):
    """The pack, with a sign latched and logged; the number of its next entry."""
    node = bench.pack.node("pack")
    for _ in range(3):
        node.count("tag")
    assert bench.pack.run_until(lambda: node.guard.signs and audit_log.latched(node)[0], 5000)
    return node, audit_log.latched(node)[1]


def device_of(bench):
    return bench.store.devices[bench.pack.node("pack").unique_id]


def collector_of(bench):
    return Collector(bench.provisioner(), AuditLogs(bench.store))


def read_by_a_stranger(bench):
    latched(bench)
    rogue = rogue_app(bench)
    content = packed(">I", 0) + bytes(16)
    answer = rogue.ask(PACK, provision.AUDIT, provision.with_mac(bytes(32), provision.AUDIT, content))
    return "a stranger reads the log" if answer.kind == provision.AUDIT_PART else ""


def cleared_by_a_stranger(bench):
    node, following = latched(bench)
    rogue = rogue_app(bench)
    for number in (following, following - 1, following + 1):
        body = provision.with_mac(bytes(32), provision.CLEAR_SIGNS, packed(">I", number))
        rogue.ask(PACK, provision.CLEAR_SIGNS, body)
    return "" if node.guard.signs else "a stranger clears a sign"


def cleared_again(bench):
    """The owner has cleared a sign once; his very message, when there is another."""
    node, following = latched(bench)
    key = bench.provisioner().owner_key(device_of(bench))
    body = provision.with_mac(key, provision.CLEAR_SIGNS, packed(">I", following))
    bench.run(collector_of(bench).clear_signs(device_of(bench), following))
    assert not node.guard.signs
    latched(bench)
    rogue_app(bench).ask(PACK, provision.CLEAR_SIGNS, body)
    return "" if node.guard.signs else "a sign is cleared by the owner's word about another one"


def told_by_a_liar(bench):
    """The pack's word is cut off, and somebody answers for it."""
    node, _ = latched(bench)
    raw = audit.encode_entry(0, 1, 1, "released", audit.key_event(0, 0, 9))
    chain = audit.link(bytes(32), raw)
    part = audit.Part(0, 1, 0, 0, 0, bytes(32), chain, [(raw, bytes(32))])
    bench.pack.add_fault("vcu", kind="loss", receiver="pack", code=0x431 << 18, mask=0x7FF << 18)
    liar = bench.pack.attach(Liar, "vcu", "liar")
    liar.answer = lambda message: (
        [(provision.AUDIT_PART, PACK, part.encode(bytes(32), message.body[4:20]))]
        if message.kind == provision.AUDIT
        else []
    )
    name = "pack-%08x" % node.unique_id
    try:
        found = bench.run(collector_of(bench).collect(device_of(bench), name))
    except AppError:
        return ""
    finally:
        leave(bench, "liar")
        bench.pack.vcu.faults.clear()
    return "the owner believes that the pack was %s" % found.entries[0].kind


WAYS = {
    "read by a stranger": read_by_a_stranger,
    "cleared by a stranger": cleared_by_a_stranger,
    "cleared again": cleared_again,
    "told by a liar": told_by_a_liar,
}


@pytest.mark.parametrize("way", WAYS)
def test_attack(keyed, way):
    assert WAYS[way](keyed) == ""
    assert audit_log.latched(keyed.pack.node("pack"))[0]
    keyed.run(collector_of(keyed).collect_all(device_of(keyed)))
    assert AuditLogs(keyed.store).verify("pack-%08x" % keyed.pack.node("pack").unique_id).ok


def test_interference_in_clear_is_not_believed(keyed):
    """On either bus, for the pack and for a module; what the app is told is what the pack says sealed."""
    latched(keyed)
    assert keyed.pack.run_until(lambda: 0 in keyed.node.model.interference, 12_000)
    module = keyed.pack.node("module1").own_node
    stations = {bus: attacker(keyed, bus, "forger " + bus) for bus in ("vcu", "module")}
    for _ in range(20):
        for number in (0, module):
            stations["vcu"].send(clear_frame("BUS_INTERFERENCE", PACK, module_id=number, signs=63, entries=54321))
        stations["module"].send(clear_frame("INTERFERENCE", module, score=100, signs=63))
        keyed.pack.run_for(50)
        for number, told in keyed.node.model.interference.items():
            assert told["entries"] != 54321 and told["signs"] != 63, (number, told)
    for bus in stations:
        leave(keyed, "forger " + bus)
    unharmed(keyed)


@pytest.mark.parametrize("way", WAYS)
def test_control(weak, way):
    assert WAYS[way](weak)
