"""Attack: the bit that says "encrypted" is turned.

Setting    a keyed pack at work.
Means      a station on each bus: every sealed frame that passes comes again at once with bit 17 clear, every clear one with
           bit 17 set.
Success    would be ciphertext obeyed as a command or believed as a value, or a clear frame taken for a record.
"""

from attack_suite import Attack
from attacker import Attacker, leave, modules_of, nodes_of, total, unharmed
from packtrust.arbitration import ENCRYPTED
from packtrust.frame import Frame
from packtrust.messages.table import STATE_OFF
from weakening import Weakening

ATTACK = Attack(
    name="bit 17 turned",
    source="S11; S19",
    defence="what is due sealed is never taken in clear; bit 17 is in the AAD",
    without="a module that obeys its pack's messages in clear too",
    weakening=Weakening(
        (
            "packtrust_node.module",
            '                else:\n                    self.count("clear")\n            elif node == self.own_node and',
            (
                "                else:\n                    self._obey(Frame(compose(base, node), bytes(data)))\n"
                "            elif node == self.own_node and"
            ),
        )
    ),
)


class Turner(Attacker):
    """Sends what it hears with bit 17 turned."""

    def on_frame(self, port, frame):
        if frame.is_extended_id and len(self.heard) < 4000:
            self.heard.append(frame)
            self.send(Frame(frame.arbitration_id ^ ENCRYPTED, bytes(frame.data)))


def what_counts(bench):
    return [
        (node.state, node.max_state, node.limits, node.balancing, node.time_s, node.own_node, len(node.relations))
        for node in modules_of(bench)
    ]


def carry_out(bench):
    before = what_counts(bench)
    stations = [bench.pack.attach(Turner, bus, "turner " + bus) for bus in ("vcu", "module")]
    changed = []
    for _ in range(300):
        bench.pack.run_for(10)
        if what_counts(bench) != before:
            changed.append(bench.pack.now_ms)
    assert all(len(station.heard) > 200 for station in stations)
    for bus in ("vcu", "module"):
        leave(bench, "turner " + bus)
    return "ciphertext is obeyed" if changed else ""


def test_attack(keyed):
    clear = sum(total(node, "clear") for node in nodes_of(keyed))
    assert carry_out(keyed) == ""
    assert sum(total(node, "clear") for node in nodes_of(keyed)) > clear + 50
    assert all(slot.state == STATE_OFF for slot in keyed.pack.node("pack").keyed_slots())
    unharmed(keyed)


def test_control(weak):
    assert carry_out(weak)
