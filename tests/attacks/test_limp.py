"""Attack: limp mode is forced upon a pack, or taken from it, or used against it.

Setting    a keyed pack of two modules, both On; or one of them is gone, and the pack is in limp mode.
Means      a station on the module bus: clear statuses, heartbeats and announcements, forged records of live sessions, all that
           was recorded in limp mode; an old VCU that holds a grant; the group key out of a member's RAM.
Success    would be limp mode without half of the modules silent, limp mode left while they are, or a state or a current above
           what limp mode allows. (A member that lies may bring the others into limp mode until their next poll: that lowers.)
"""

import pytest

from attack_suite import Attack
from broadcasts import forged, is_broadcast, modules_of, play, switch_on
from nodebench import MODULE_BUS, VCU_BUS, clear_frame, keyed_bench
from packtrust.arbitration import ENCRYPTED, compose
from packtrust.frame import Frame
from packtrust.messages import by_name, encode
from packtrust.messages.table import STATE_OFF, STATE_ON
from packtrust.policy import profile
from packtrust.segmentation import Segmenter
from weakening import Weakening

ATTACK = Attack(
    name="limp mode forced",
    source="own; S16",
    defence="only authentic records enter and leave limp mode: silence of half of the modules, and the pack's word to each",
    without="clear heartbeats, recorded broadcasts, any sign of life and a VCU's grant count in limp mode too",
    weakening=Weakening(
        (
            "packtrust_node.module",
            '                self.count("clear")\n            elif node == self.own_node and',
            (
                "                self._obey(Frame(compose(base, node), bytes(data)))\n"
                "            elif node == self.own_node and"
            ),
        ),
        ("packtrust.group", "        if counter <= self.beat:", "        if False:"),
        (
            "packtrust_node.module",
            "            if data[0] & _LIMP:\n                self._set_limp(True)\n",
            "            self._set_limp(data[0] & _LIMP != 0)\n",
        ),
        (
            "packtrust_node.node",
            "        if event.kind == REFUSED:\n",
            "        neighbour.heard_ms = self.env.now_ms()\n        if event.kind == REFUSED:\n",
        ),
        ("packtrust_node.limp", "            if slot.row[LOST]:", "            if not slot.active(now_ms):"),
        ("packtrust_node.legacy", "if state > self._granted or pack.limp.active:", "if state > self._granted:"),
    ),
)
LIMP_MA = 42000 // 4


def in_limp_mode(bench, app):
    """Module 2 is gone, its pack in limp mode; module 1 still On."""
    switch_on(bench, app)
    bench.off("module1")
    bench.run(5000)
    assert bench.nodes["pack"].limp.active and modules_of(bench)[0].limp


def forced_in(bench, app):
    switch_on(bench, app)
    pack = bench.nodes["pack"]
    for number in range(200):
        bench.inject(MODULE_BUS, clear_frame("MAX_STATE", 0, max_state=STATE_ON, limp=1))
        bench.inject(MODULE_BUS, clear_frame("STATUS_REQUEST", 1 + number % 2, max_state=STATE_ON, limp=1))
        bench.inject(MODULE_BUS, clear_frame("STATUS_1", 1 + number % 2, state=STATE_OFF))
        bench.run(5)
        if pack.limp.active or any(node.limp for node in modules_of(bench)):
            return "limp mode by clear frames"
    return ""


def forced_in_again(bench, app):
    """Broadcasts of limp mode, recorded, when it is over."""
    recorded = []
    bench.spy = lambda bus, sender, frame: recorded.append(frame.copy()) if is_broadcast(bus, frame) else None
    in_limp_mode(bench, app)
    bench.spy = None
    pack = bench.nodes["pack"]
    recorded = recorded[-16:]
    bench.boot("module1")
    bench.run(13_000)
    assert not pack.limp.active and not any(node.limp for node in modules_of(bench))
    for at in range(0, 16, 4):
        play(bench, recorded[at : at + 4])
        if any(node.limp for node in modules_of(bench)):
            return "limp mode by a recorded broadcast"
    return ""


def left(bench, app):
    """Forged signs of life of the module that is gone, and a member's broadcast that says it is over."""
    iv_base = bytes(bench.nodes["pack"].slots[2].channel._session.state[68:72])
    in_limp_mode(bench, app)
    pack, one = bench.nodes["pack"], modules_of(bench)[0]
    segmenter = Segmenter()
    for number in range(120):
        record = iv_base + (1 << 40 | number).to_bytes(8, "big") + bytes(24)
        for frame in segmenter.split(compose(0x502, 2) | ENCRYPTED, record):
            bench.inject(MODULE_BUS, frame)
        bench.inject(MODULE_BUS, clear_frame("STATUS_1", 2, state=STATE_ON))
        bench.inject(MODULE_BUS, clear_frame("ANNOUNCEMENT", 2, manufacturer=2, part=3, unique_id=0xBA770002))
        bench.run(100)
        if not pack.limp.active:
            return "limp mode is left by forged signs of life"
    return "" if one.limp else "the module has left limp mode"


def more_current(bench, app):
    """A member says that limp mode is over; the pack's own heartbeats and polls to its victim are lost."""
    switch_on(bench, app)
    one, two = modules_of(bench)
    bench.spy = lambda bus, sender, frame: (
        not (bus == MODULE_BUS and sender == "pack" and frame.arbitration_id & ENCRYPTED)
    )
    play(bench, forged(one, 16 | STATE_ON, 3), "module0")
    assert two.limp and abs(two.cells.current_ma) == LIMP_MA
    for ahead in range(6, 40):
        play(bench, forged(one, STATE_ON, ahead), "module0")
        bench.inject(MODULE_BUS, clear_frame("LIMITS", two.own_node, max_charge_ma=9000, max_discharge_ma=42000))
        bench.run(20)
        if abs(two.cells.current_ma) > LIMP_MA:
            return "%d mA in limp mode" % two.cells.current_ma
    return ""


def raised(bench, app):
    """An old VCU has its grant, and raises in limp mode."""
    app.seal("LEGACY_GRANT", max_state=STATE_ON, grant_s=600)
    in_limp_mode(bench, app)
    app.seal("COMMAND", contactor_state=STATE_OFF)
    bench.run(300)
    row = by_name("COMMAND")
    for _ in range(6):
        bench.inject(VCU_BUS, Frame(row.base, bytes(encode(row, {"contactor_state": STATE_ON})), False))
        bench.run(200)
    return "a module is raised in limp mode by a clear command" if modules_of(bench)[0].state != STATE_OFF else ""


WAYS = {
    "forced in": forced_in,
    "forced in again": forced_in_again,
    "left": left,
    "more current": more_current,
    "raised": raised,
}


def bench_of(way):
    if way == "raised":
        return keyed_bench(2, policy=profile("legacy-vcu"), pack_config={"policy": "legacy-vcu"})
    return keyed_bench(2)


@pytest.mark.parametrize("way", WAYS)
def test_attack(way):
    bench, app = bench_of(way)
    assert WAYS[way](bench, app) == ""
    bench.sound()


@pytest.mark.parametrize("way", WAYS)
def test_control(weakness, way):
    assert WAYS[way](*bench_of(way))


def test_nobody_keeps_a_pack_in_it():
    """When the missing module is back, the same flood does not make limp mode last."""
    bench, app = keyed_bench(2)
    in_limp_mode(bench, app)
    recorded = [frame.copy() for _, bus, _, frame in bench.log if bus == MODULE_BUS][-60:]
    bench.boot("module1")
    for number in range(1300):
        bench.inject(MODULE_BUS, recorded[number % len(recorded)])
        bench.inject(MODULE_BUS, clear_frame("STATUS_1", 2, state=STATE_OFF))
        bench.run(10)
    bench.run(1000)
    assert not bench.nodes["pack"].limp.active and not any(node.limp for node in modules_of(bench))
