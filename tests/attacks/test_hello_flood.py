"""Attack: a flood of handshakes.

Setting    a keyed pack at work, modules On.
Means      HELLOs with random nonces to a module and to the pack, fifty a second, under the epoch there is and under others.
Success    would be a session that ends, a state that changes, or a node that computes for every HELLO.
"""

import random

from attack_suite import Attack
from attacker import PACK, attacker, modules_of, obeyed, sessions, total, unharmed
from packtrust.arbitration import compose
from packtrust.messages.table import STATE_ON
from packtrust.segmentation import Segmenter
from weakening import Weakening

ATTACK = Attack(
    name="hello flood",
    source="own; SPsec inject_bus_flood",
    defence="one HELLO answered a second and peer; a live session is touched only after the peer's MAC",
    without="a node that answers every HELLO",
    weakening=Weakening(
        (
            "packtrust.channel",
            "            if self._hello_answered_ms is not None and now_ms - self._hello_answered_ms < HELLO_INTERVAL_MS:",
            "            if False:",
        )
    ),
)
SECONDS = 4


def replies(station, base):
    """First chunks of REPLYs that a station has heard."""
    return sum(
        f.arbitration_id >> 18 == base and not f.arbitration_id & 0xF000 and f.data[0] == 2 for f in station.heard
    )


def carry_out(bench):
    rng = random.Random(1)
    module = bench.pack.node("module1")
    station = attacker(bench, "module")
    vcu = attacker(bench, "vcu", "attacker2")
    segmenter = Segmenter()
    for step in range(50 * SECONDS):
        epoch = 1 if step % 4 else rng.randrange(1 << 32)
        hello = bytes((1, 1, 1)) + epoch.to_bytes(4, "big") + rng.randbytes(4) + rng.randbytes(16)
        station.send(*segmenter.split(compose(0x539, module.own_node), hello))
        vcu.send(*segmenter.split(compose(0x433, PACK), hello))
        bench.pack.run_for(20)
    most = max(replies(station, 0x531), replies(vcu, 0x434))
    if most > 2 * (SECONDS + 1):
        return "a node answers %d HELLOs in %d s" % (most, SECONDS)
    return "" if sessions(bench) else "a session has ended"


def test_attack(keyed):
    obeyed(keyed, STATE_ON)
    opened = keyed.pack.node("module1")._pack.channel.stats["opened"]
    assert carry_out(keyed) == ""
    assert all(node.state == STATE_ON for node in modules_of(keyed))
    assert keyed.pack.node("module1")._pack.channel.stats["opened"] > opened + 5 * SECONDS
    assert total(keyed.pack.node("module1"), "handshake-rate") > 50
    unharmed(keyed)


def test_control(weak):
    assert carry_out(weak)
