"""Attack: nothing gets through any more.

Setting    a keyed pack with its modules On.
Means      the cable of a bus: every frame on it is destroyed, or every frame to one node is lost.
Success    would be contactors that stay closed longer than the time limits allow: a module 11.1 s after its pack's last
           record, the pack's modules 1.2 s after the app's. Denial as such is not prevented.
"""

import pytest

from attack_suite import Attack
from attacker import modules_of, obeyed, unharmed
from packtrust.messages.table import STATE_OFF, STATE_ON, STATE_STANDBY
from weakening import Weakening

ATTACK = Attack(
    name="jamming",
    source="own",
    defence="loss limits: module 11.1 s, app 0.6 s to Standby and 1.2 s to Off; no state comes back by itself",
    without="nodes that wait a thousand times as long",
    weakening=Weakening(
        ("packtrust_node.module", "PACK_LOSS_MS = const(11100)", "PACK_LOSS_MS = const(11100000)"),
        (
            "packtrust_node.commands",
            "STANDBY_MS = const(600)\nOFF_MS = const(1200)",
            "STANDBY_MS = OFF_MS = const(1200000)",
        ),
    ),
)

# The longest time between a node's last word and the start of the jam: heartbeat or keep-alive and a tick.
SLACK_MS = 150


def module_bus(bench):
    bench.pack.add_fault("module", kind="disturb")
    bench.pack.run_for(11_100 + SLACK_MS)
    return [node for node in modules_of(bench) if node.state != STATE_OFF]


def one_module(bench):
    bench.pack.add_fault("module", kind="loss", receiver="module1")
    bench.pack.run_for(11_100 + SLACK_MS)
    node = bench.pack.node("module1")
    return [node] if node.state != STATE_OFF else []


def vcu_bus(bench):
    bench.pack.add_fault("vcu", kind="loss", sender="app")
    bench.pack.run_for(600 + SLACK_MS)
    high = [node for node in modules_of(bench) if node.state > STATE_STANDBY]
    bench.pack.run_for(600 + SLACK_MS)
    return high + [node for node in modules_of(bench) if node.state != STATE_OFF]


WAYS = {"module bus": module_bus, "one module": one_module, "VCU bus": vcu_bus}


def carry_out(bench, way):
    obeyed(bench, STATE_ON)
    unsafe = WAYS[way](bench)
    return "contactors stay closed under jamming" if unsafe else ""


@pytest.mark.parametrize("way", WAYS)
def test_attack(keyed, way):
    assert carry_out(keyed, way) == ""
    for bus in keyed.pack.buses.values():
        bus.faults.clear()
    keyed.pack.run_for(1000)
    gone = [keyed.pack.node("module1")] if way == "one module" else modules_of(keyed)
    assert all(node.state == STATE_OFF for node in gone), "nothing comes back by itself"
    unharmed(keyed)


@pytest.mark.parametrize("way", WAYS)
def test_control(weak, way):
    assert carry_out(weak, way)
