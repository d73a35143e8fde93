"""Attack: a grant for an old VCU is given again, or late.

Setting    a keyed pack with the policy legacy-vcu; its app has granted, once, and for two seconds.
Means      the app's cable: the sealed grant is recorded and sent again when it has run out, in the same session and after the
           pack has booted; or it is held back for six seconds and then delivered. Then COMMAND in clear.
Success    would be a grant in force that the app has not given just now, and modules raised by it.
"""

import pytest

from attack_suite import Attack
from nodebench import VCU_BUS, keyed_bench
from packtrust.arbitration import ENCRYPTED
from packtrust.frame import Frame
from packtrust.messages import by_name, encode
from packtrust.messages.table import STATE_OFF, STATE_ON
from packtrust.policy import profile
from weakening import Weakening

ATTACK = Attack(
    name="grant again",
    source="own",
    defence="a grant is a record of the app's session: taken once, in order, and within 4 s of what it cites",
    without="a pack that takes records again, in any order and of any age",
    weakening=Weakening(
        ("packtrust.replay", "        if counter > self.highest:\n            return", "        return"),
        ("packtrust.channel", "        if cites and counter <= rx.strict:", "        if False:"),
        ("packtrust.channel", "            if not rx.session.is_fresh(cited, now_ms):", "            if False:"),
    ),
)
BASE = by_name("LEGACY_GRANT").base


class Scene:
    """A pack, its app, and who sits between the two."""

    def __init__(self, held):
        config = {"policy": "legacy-vcu"}
        self.bench, self.app = keyed_bench(2, policy=profile("legacy-vcu"), pack_config=config)
        self.frames = []
        self._held = held
        self.bench.spy = self._spy
        self.app.seal("LEGACY_GRANT", max_state=STATE_ON, grant_s=2)
        self.bench.run(100)
        assert len(self.frames) > 3
        assert bool(self.pack.legacy.left_s()) != held

    def _spy(self, bus, sender, frame):
        if (
            bus == VCU_BUS
            and sender == "app"
            and frame.arbitration_id >> 18 == BASE
            and frame.arbitration_id & ENCRYPTED
        ):
            self.frames.append(frame.copy())
            return not self._held
        return True

    @property
    def pack(self):
        return self.bench.nodes["pack"]

    def play(self):
        """The grant once more; whether modules can be raised by it in clear."""
        for frame in self.frames:
            self.bench.inject(VCU_BUS, frame)
        row = by_name("COMMAND")
        for _ in range(4):
            self.bench.inject(VCU_BUS, Frame(row.base, bytes(encode(row, {"contactor_state": STATE_ON})), False))
            self.bench.run(200)
        return any(node.state != STATE_OFF for name, node in self.bench.nodes.items() if name != "pack")


def carry_out(way):
    scene = Scene(way == "late")
    scene.bench.run(6000)
    assert not scene.pack.legacy.left_s()
    if way == "after a boot":
        scene.bench.boot("pack")
        scene.bench.run(8000)
    return "modules are On by a grant of six seconds ago" if scene.play() else ""


@pytest.mark.parametrize("way", ["again", "after a boot", "late"])
def test_attack(way):
    assert carry_out(way) == ""


@pytest.mark.parametrize("way", ["again", "late"])
def test_control(weakness, way):
    assert carry_out(way)
