"""Attack: recorded heartbeats and statuses hide that a node is dead.

Setting    a keyed pack at work, modules On; then a module loses its power, or the pack does.
Means      a station on the module bus; everything that was ever said there, again and again, with its own timing.
Success    would be a dead module that the pack counts as alive, or modules that stay On without their pack.
"""

import pytest

from attack_suite import Attack
from attacker import Tap, attacker, modules_of, obeyed, slot_of
from packtrust.messages.table import STATE_ON
from weakening import Weakening

ATTACK = Attack(
    name="heartbeat spoof",
    source="SPsec attack_heartbeat_liveness_spoof; S16",
    defence="statuses and heartbeats are counted records like any other; only those keep a node alive",
    without="a window that takes every counter, heartbeats in any order and of any age",
    weakening=Weakening(
        ("packtrust.replay", "        if counter > self.highest:\n            return", "        return"),
        ("packtrust.channel", "        if cites and counter <= rx.strict:", "        if False:"),
        (
            "packtrust.replay",
            "        return 0 <= self.age_ms(cited, now_ms) <= CITATION_MAX_AGE_MS",
            "        return True",
        ),
    ),
)


def again(bench, frames, seconds):
    """The recording in a loop, as fast as it was."""
    station = attacker(bench, "module", "echo")
    end_ms = bench.pack.now_ms + seconds * 1000
    while bench.pack.now_ms < end_ms:
        before_ms = frames[0][0]
        for when_ms, _, frame in frames:
            bench.pack.run_for(max(0, when_ms - before_ms))
            before_ms = when_ms
            station.send(frame)
        bench.pack.run_for(5)


def dead_module(bench):
    tap = Tap(bench, "module")
    bench.pack.run_for(2000)
    recorded = [item for item in tap.stop() if item[1] == "module1"]
    assert len(recorded) > 100
    bench.pack.power_off("module1")
    again(bench, recorded, 6)
    alive = slot_of(bench, "module1").active(bench.pack.now_ms)
    return "a module without power counts as alive" if alive else ""


def dead_pack(bench):
    obeyed(bench, STATE_ON)
    tap = Tap(bench, "module")
    bench.pack.run_for(2000)
    recorded = [item for item in tap.stop() if item[1] == "pack"]
    assert len(recorded) > 100
    bench.pack.power_off("pack")
    again(bench, recorded, 12)
    on = [node for node in modules_of(bench) if node.state == STATE_ON]
    return "%d modules are On 12 s after their pack died" % len(on) if on else ""


WAYS = {"a dead module": dead_module, "a dead pack": dead_pack}


@pytest.mark.parametrize("way", WAYS)
def test_attack(keyed, way):
    assert WAYS[way](keyed) == ""


@pytest.mark.parametrize("way", WAYS)
def test_control(weak, way):
    assert WAYS[way](weak)
