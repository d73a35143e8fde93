"""Attack: messages of a rotation are held back, played back, and the power is cut in between.

Setting    a keyed pair of pack and module that makes a new epoch by itself.
Means      the cable between the two, and the module's power switch: PROPOSE, ANSWER, CONFIRM or AGREED, and all after it, do
           not arrive; they come 12 s later, when the rotation is over, and everything of a rotation comes again after it.
Success    would be two ends without an epoch in common, with different roots, or back at an epoch of before.
"""

import pytest

from attack_suite import Attack
from nodebench import MODULE_BUS
from rotation_bench import ROTATION_BASES, alone, epochs, relation_of, settled, use
from weakening import Weakening

ATTACK = Attack(
    name="rotation held back",
    source="own",
    defence="the module commits first and keeps both epochs until a record comes under the new one; records come once",
    without="a module whose old epoch ends with its commit",
    weakening=Weakening(
        (
            "packtrust_node.rotation",
            "        relation.keep_epoch_in_use(old, self.neighbour.session_epoch)\n",
            "",
        )
    ),
)
TO_MODULE, TO_PACK = ROTATION_BASES[1], ROTATION_BASES[0]
# Which way a message goes, and which of that way it is.
MESSAGES = {"PROPOSE": (TO_MODULE, 0), "ANSWER": (TO_PACK, 0), "CONFIRM": (TO_MODULE, 1), "AGREED": (TO_PACK, 1)}


class Cable:
    """Takes down all of a rotation; from message `first` of a base on holds it back."""

    def __init__(self, base, first):
        self.all = []
        self.held = []
        self._base = base
        self._left = first

    def spy(self, bus, sender, frame):
        head = frame.arbitration_id
        if bus != MODULE_BUS or head >> 18 not in ROTATION_BASES:
            return True
        self.all.append(frame.copy())
        if head >> 18 != self._base:
            return True
        if self._left == 0:
            self.held.append(frame.copy())
            return False
        if head >> 12 & 15 == head >> 8 & 15:
            self._left -= 1
        return True


def play(bench, frames):
    for frame in frames:
        bench.inject(MODULE_BUS, frame)
        bench.run(1)


def one_epoch(bench):
    """Whether the pair finds together again by itself, without an app, within two tries of the pack."""
    for _ in range(800):
        if settled(bench, 2):
            return True
        bench.run(100)
    return False


def carry_out(message, power_cut):
    bench, pack, module = alone()
    cable = Cable(*MESSAGES[message])
    bench.spy = cable.spy
    use(pack, 1, 6)
    bench.until(lambda: cable.held, 5000)
    if message == "AGREED":
        bench.until(lambda: relation_of(module, 1).epoch == 2, 1000)
    if power_cut:
        bench.boot("module0")
    bench.run(12_000)
    bench.spy = None
    play(bench, cable.held)
    if not one_epoch(bench):
        return "pack and module have no epoch in common: %d and %d" % epochs(bench)
    before = epochs(bench)
    play(bench, cable.all)
    bench.run(3000)
    if epochs(bench) != before or not settled(bench, before[0]):
        return "a played back rotation moves the pair from epoch %d to %d, %d" % (before[0], *epochs(bench))
    bench.sound()
    return ""


@pytest.mark.parametrize("power_cut", [False, True], ids=["", "power-cut"])
@pytest.mark.parametrize("message", MESSAGES)
def test_attack(message, power_cut):
    assert carry_out(message, power_cut) == ""


def test_control(weakness):
    assert carry_out("AGREED", True)
