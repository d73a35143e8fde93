"""Attack: anything at all keeps a module alive whose pack is gone.

Setting    a keyed pack with its modules On; then the pack loses its power.
Means      a station on the module bus; clear frames of every kind to the modules, forged records under the live
           session, HELLOs.
Success    would be a module that is still On 11.3 s after its pack's last word.
"""

from attack_suite import Attack
from attacker import attacker, clear_frame, modules_of, obeyed, opening, unharmed
from packtrust.arbitration import ENCRYPTED, compose
from packtrust.frame import Frame
from packtrust.messages.table import STATE_OFF, STATE_ON
from packtrust.segmentation import Segmenter
from weakening import Weakening

ATTACK = Attack(
    name="kept alive",
    source="S16",
    defence="only an authentic record of the pack resets the loss timer",
    without="a module that takes any record for a sign of life",
    weakening=Weakening(
        (
            "packtrust_node.node",
            "        if event.kind == REFUSED:\n",
            "        neighbour.heard_ms = self.env.now_ms()\n        if event.kind == REFUSED:\n",
        ),
    ),
)


def carry_out(bench):
    obeyed(bench, STATE_ON)
    modules = modules_of(bench)
    bases = [opening(node._pack.channel).iv_base for node in modules]
    bench.pack.power_off("pack")
    station = attacker(bench, "module")
    segmenter = Segmenter()
    for step in range(113):
        for node, iv_base in zip(modules, bases, strict=True):
            counter = (1_000_000 + step).to_bytes(8, "big")
            full_id = compose(0x517, node.own_node) | ENCRYPTED
            station.send(*segmenter.split(full_id, iv_base + counter + bytes(24)))
            station.send(clear_frame("MAX_STATE", node.own_node, max_state=STATE_ON))
            station.send(Frame(compose(0x512, node.own_node), b"\x03"))
            if step % 11 == 0:
                hello = bytes((1, 1, 1)) + node._pack.channel.epoch.to_bytes(4, "big") + bytes(4) + bytes(16)
                station.send(*segmenter.split(compose(0x539, node.own_node), hello))
        bench.pack.run_for(100)
    on = [node for node in modules if node.state != STATE_OFF]
    return "%d modules are On 11.3 s after their pack's last word" % len(on) if on else ""


def test_attack(keyed):
    assert carry_out(keyed) == ""
    keyed.pack.power_on("pack")
    unharmed(keyed)


def test_control(weak):
    assert carry_out(weak)
