"""Attack: secrets are read where they were never meant to be: logs, figures, reprs, error texts.

Setting    a pack is claimed, provisioned, used, rotated, and some of it fails on purpose.
Means      the consoles' logs and `stats` of every node, the app's log, progress, figures and exceptions, reprs of all
           objects that hold keys.
Success    would be twelve bytes of any secret, as hex, Base64 or the repr of bytes.
"""

import json

from attack_suite import Attack
from attacker import PACK, Secrets, commission, nodes_of, obeyed, rogue_app
from packtrust import provision
from packtrust.messages.table import STATE_OFF, STATE_ON
from weakening import Weakening

ATTACK = Attack(
    name="logs",
    source="S4",
    defence="no secret in a log, figure, repr or exception",
    without="a line in the device's log that helps with debugging",
    weakening=Weakening(
        (
            "packtrust_node.endpoint",
            '        node.env.log("package %d taken: %s" % (counter, draft.lct_id))',
            '        node.env.log("package %d taken: %s" % (counter, receipt_key.hex()))',
        ),
    ),
)


def carry_out(bench):
    said = []
    secrets = Secrets()
    secrets.of_nodes(bench)
    with secrets:
        commission(bench)
        rogue = rogue_app(bench)
        for kind in range(1, 0x20):
            rogue.post(PACK, kind, bytes(range(100)))
            bench.pack.run_for(50)
        bench.pack.power_off("rogue")
        for lct_id in list(bench.store.relationships):
            bench.run(bench.provisioner().install(lct_id))
        bench.pack.run_for(2000)
        obeyed(bench, STATE_ON)
        obeyed(bench, STATE_OFF)
        secrets.of_nodes(bench)
        try:
            bench.run(bench.provisioner().install("no such LCT"))
        except Exception as error:  # noqa: BLE001  # whatever it is, its text is looked at
            said.append(repr(error))
    for station in bench.pack.stations.values():
        said += station.log
        if station.service is not None:
            said.append(json.dumps(station.node.stats(), default=repr))
    said += [repr(item) for item in bench.progress]
    said.append(json.dumps(bench.node.stats(), default=repr))
    for thing in (bench.store, bench.node, *bench.store.relationships.values(), *bench.store.devices.values()):
        said.append(repr(thing))
    for node in nodes_of(bench):
        said += [repr(thing) for thing in (node, node.identity, node.endpoint, *node.relations.values())]
    for content in secrets.packages:
        said.append(repr(content))
    text = "\n".join(said)
    assert len(secrets.values) > 20 and len(text) > 4000
    found = secrets.in_text(text)
    return "in a log, figure or repr: %s" % ", ".join(sorted(found)) if found else ""


def test_attack(fresh):
    assert carry_out(fresh) == ""


def test_control(weak_fresh):
    assert "receipt key" in carry_out(weak_fresh)


def test_no_reason_for_a_refusal_quotes_the_bytes():
    assert all(isinstance(text, str) and "%" not in text for text in provision.REASONS.values())
