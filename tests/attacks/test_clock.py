"""Attack: somebody plays the clock.

Setting    a keyed pack whose clock its owner has set.
Means      TIME and SET_TIME in clear on both buses, every recorded time sent again; a second app that may set the time
           and nothing else.
Success    would be a clock that anybody sets, or freshness that depends on one: a command obeyed late after the clock was
           turned back.
"""

import pytest

from attack_suite import Attack
from attacker import PACK, Tap, attacker, clear_frame, command, modules_of, unharmed
from packtrust.frame import Frame
from packtrust.messages.table import STATE_OFF, STATE_ON
from weakening import Weakening

NOW_S = 1_800_000_000

ATTACK = Attack(
    name="clock",
    source="SPsec attack_T8_sync_impersonation; S9",
    defence="the time is set by sealed, cited records alone; freshness is counters and the receiver's own clock",
    without="a module that takes the time in clear",
    weakening=Weakening(
        (
            "packtrust_node.module",
            "        elif base == REGISTRATION:\n            if self._is_meant",
            '        elif base == SET_TIME:\n            self._on_set_time(decode("SET_TIME", data))\n'
            "        elif base == REGISTRATION:\n            if self._is_meant",
        )
    ),
)


def times(bench):
    return [bench.pack.node("pack")._time_s, *(node.time_s for node in modules_of(bench))]


def carry_out(bench):
    tap = Tap(bench, "module")
    vcu = Tap(bench, "vcu")
    command(bench, bench.node.set_time(NOW_S))
    bench.pack.run_for(500)
    recorded = [frame for _, who, frame in tap.stop() if who == "pack" and frame.arbitration_id >> 18 == 0x516]
    recorded_vcu = [frame for _, who, frame in vcu.stop() if who == "app" and frame.arbitration_id >> 18 == 0x401]
    assert recorded and recorded_vcu
    command(bench, bench.node.set_time(NOW_S + 86400))
    bench.pack.run_for(500)
    before = times(bench)
    assert set(before) == {NOW_S + 86400}
    stations = {bus: attacker(bench, bus, "clock " + bus) for bus in ("vcu", "module")}
    stations["vcu"].send(clear_frame("TIME", PACK, time_s=77), Frame(0x401, bytes(8), False), *recorded_vcu)
    for node in (*modules_of(bench), None):
        number = 0 if node is None else node.own_node
        stations["module"].send(clear_frame("SET_TIME", number, time_s=77, valid=1))
    stations["module"].send(*recorded)
    bench.pack.run_for(500)
    return "a clock was set by a stranger" if times(bench) != before else ""


def test_attack(keyed):
    assert carry_out(keyed) == ""
    unharmed(keyed)


def test_control(weak):
    assert carry_out(weak)


@pytest.mark.parametrize("time_s", [1, NOW_S, 0xFFFFFFFF])
def test_whoever_may_set_the_time_makes_no_late_command_fresh(keyed, time_s):
    """The app holds the clock master's role; a command held back for 5 s is stale whatever the time says."""
    command(keyed, keyed.node.set_time(NOW_S))
    keyed.pack.add_fault(
        "module", kind="delay", sender="pack", delay_ns=5_000_000_000, code=0x514 << 18, mask=0x7FF << 18, extended=True
    )
    keyed.node.set_state(STATE_ON)
    keyed.pack.run_for(1000)
    keyed.node.set_time(time_s)
    keyed.pack.run_for(2000)
    keyed.node.set_state(STATE_OFF)
    for _ in range(800):
        keyed.pack.run_for(10)
        assert all(node.state == STATE_OFF for node in modules_of(keyed))
