"""Attack: forged receipts and confirmations make an owner believe that keys are in place.

Setting    a keyed pair is to get a new epoch; the attacker sits between the app and the pack and answers for both devices.
Means      the pack's place on the VCU bus; public keys, fingerprints, counters and LCT tags, which IDENTIFY, PROVE and
           packages show; RECEIPT, PAIRED, COMMITTED in the right form.
Success    would be an epoch that the app holds for current though neither device has it.
"""

from attack_suite import Attack
from attacker import PACK, Liar, leave, unharmed
from packtrust import provision, report
from packtrust.crypto import sha256
from packtrust_host.app.errors import AppError
from weakening import Weakening

ATTACK = Attack(
    name="forged answers",
    source="S7",
    defence="receipts, confirmations and commits have MACs under a key exported from the very package",
    without="an app that takes every answer of the right form",
    weakening=Weakening(
        (
            "packtrust.provision",
            "    if not compare_digest(bytes(body[-MAC_LENGTH:]), ",
            "    if False and not compare_digest(bytes(body[-MAC_LENGTH:]), ",
        )
    ),
)


def carry_out(bench):
    record = next(item for item in bench.store.relationships.values() if item.node == 1)
    nodes = {PACK: bench.pack.node("pack")}
    for name in ("module1", "module2"):
        nodes[bench.pack.node(name).own_node] = bench.pack.node(name)
    # IDENTIFY is answered to anybody: what the real devices say is known. Their side of the cable is cut.
    identities = {target: node.endpoint._identity() for target, node in nodes.items()}
    counters = {target: node.identity.counter for target, node in nodes.items()}
    peers = {PACK: bytes(nodes[record.node].identity.fingerprint), record.node: bytes(nodes[PACK].identity.fingerprint)}
    bench.pack.add_fault("vcu", kind="loss", receiver="pack", code=0x431 << 18, mask=0x7FF << 18)
    liar = bench.pack.attach(Liar, "vcu", "liar")
    before = record.epoch

    def answer(message):
        about = provision.epoch_body(record.tag, before + 1)
        if message.kind == provision.IDENTIFY:
            return [(provision.IDENTITY, message.target, identities[message.target])]
        if message.kind == provision.STATUS:
            node = nodes[message.target]
            own = (bytes(node.identity.fingerprint), node.boot_counter, node.identity.counter)
            return [(provision.REPORT, message.target, report.encode(bytes(32), message.body[:16], *own, 0, 0, []))]
        if message.kind == provision.PACKAGE:
            counter = counters[message.target] = counters[message.target] + 1
            body = provision.receipt_body(record.tag, before + 1, counter, sha256(message.body[33:]))
            return [(provision.RECEIPT, message.target, body + bytes(32))]
        if message.kind == provision.PAIR:
            return [(provision.PAIRED, target, about + peer + bytes(32)) for target, peer in peers.items()]
        if message.kind == provision.COMMIT:
            return [(provision.COMMITTED, message.target, about + bytes(32))]
        return []

    liar.answer = answer
    # What the app's counters are is written in the device records he saw: IDENTITY has them.
    for target, node in nodes.items():
        counters[target] = max(node.identity.counter, bench.store.devices[node.unique_id].counter)
    try:
        bench.run(bench.provisioner().install(record.lct_id))
    except AppError:
        return ""
    finally:
        leave(bench, "liar")
    now = bench.store.relationships[record.lct_id].epoch
    return "the app believes in epoch %d, which no device has" % now if now > before else ""


def test_attack(keyed):
    assert carry_out(keyed) == ""
    keyed.pack.vcu.faults.clear()
    for lct_id in list(keyed.store.relationships):
        keyed.run(keyed.provisioner().install(lct_id))
    unharmed(keyed)


def test_control(weak):
    assert carry_out(weak)
