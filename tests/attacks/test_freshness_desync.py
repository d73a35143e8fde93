"""Attack: sender and receiver are driven apart in their counters.

Setting    a keyed pack at work; the app's session with it lives on.
Means      the cable from the app to the pack: 150 of its records are destroyed, then the attacker leaves.
Success    would be an app that is never heard again, though its session lives: freshness lost for good, as with SecOC when
           counters differ by more than what is sent of them.
"""

from attack_suite import Attack
from attacker import command, unharmed
from packtrust.messages.table import STATE_ON
from weakening import Weakening

ATTACK = Attack(
    name="freshness desync",
    source="SecOC",
    defence="every record carries its whole 64-bit counter; the window takes any step forward",
    without="a receiver that takes steps of up to 32 only",
    weakening=Weakening(
        ("packtrust.channel", "        if counter <= highest or not counter:", "        if True:"),
        (
            "packtrust.replay",
            '        if counter > self.highest:\n            return ""',
            '        if counter > self.highest:\n            return "" if counter <= self.highest + 32 else "old"',
        ),
    ),
)


def carry_out(bench):
    bench.pack.run_for(1000)
    established = bench.node.channel.stats["established"]
    fault = bench.pack.add_fault("vcu", kind="loss", sender="app", receiver="pack")
    for _ in range(150):
        bench.node.send_sealed("KEEP_ALIVE", module_id=0)
        bench.pack.run_for(5)
    assert bench.pack.vcu.faults.get(fault).hits > 150
    bench.pack.vcu.faults.clear()
    given = command(bench, bench.node.set_state(STATE_ON), 20_000)
    assert bench.node.channel.stats["established"] == established
    return "" if given.state == "obeyed" else "the app is not heard any more: %s" % given.state


def test_attack(keyed):
    assert carry_out(keyed) == ""
    unharmed(keyed)


def test_control(weak):
    assert carry_out(weak)
