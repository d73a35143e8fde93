"""Attack: everything that was ever on the buses, sent again.

Setting    a keyed pack; a session was recorded in which modules were commanded On; now they are Off.
Means      a station on each bus; every recorded frame, in order and with its own timing, as often as wanted.
Success    would be one record opened because of it, a module whose state, limits or current changes, a value in the
           app's model that is not the modules' own, or a session that goes back.
"""

import pytest

from attack_suite import Attack
from attacker import Tap, attacker, modules_of, nodes_of, obeyed, sessions, unharmed
from packtrust.messages.table import STATE_OFF, STATE_ON
from weakening import Weakening

ATTACK = Attack(
    name="replay",
    source="SPsec attack_T3_replay; S10",
    defence="a window of 64 counters that takes each once; strict order for what cites; keys of one session",
    without="a window that takes every counter, commands in any order",
    weakening=Weakening(
        ("packtrust.replay", "        if counter > self.highest:\n            return", "        return"),
        ("packtrust.channel", "        if cites and counter <= rx.strict:", "        if False:"),
    ),
)


def record_a_session(bench):
    """(frames of the VCU bus, of the module bus) with commands and telemetry in them."""
    taps = [Tap(bench, bus) for bus in ("vcu", "module")]
    obeyed(bench, STATE_ON)
    bench.pack.run_for(1500)
    obeyed(bench, STATE_OFF)
    bench.pack.run_for(500)
    return [tap.stop() for tap in taps]


def opened(bench):
    """Records opened by each end of each link."""
    pack = bench.pack.node("pack")
    channels = [bench.node.channel, pack.app.channel]
    for slot in pack.keyed_slots():
        channels.append(slot.channel)
    channels += [node._pack.channel for node in modules_of(bench)]
    return channels, [channel.stats["opened"] for channel in channels]


def refused(bench):
    """Refusals by reason, of all ends together."""
    totals = {}
    for channel in opened(bench)[0]:
        for reason, count in channel.stats.items():
            if reason not in ("opened", "sealed", "established"):
                totals[reason] = totals.get(reason, 0) + count
    return totals


def play(bench, recordings, pace_ms=1):
    """Every recorded frame again; a look at the modules after each."""
    stations = [attacker(bench, bus, "replay-" + bus) for bus in ("vcu", "module")]
    taps = [Tap(bench, bus) for bus in ("vcu", "module")]
    wrong = []
    for station, frames in zip(stations, recordings, strict=True):
        for _, sender, frame in frames:
            station.send(frame)
            bench.pack.run_for(pace_ms)
            wrong += [(sender, frame) for node in modules_of(bench) if node.state != STATE_OFF or node.cells.current_ma]
    bench.pack.run_for(100)
    for tap, frames, name in zip(taps, recordings, ("replay-vcu", "replay-module"), strict=True):
        sent = sum(sender == name for _, sender, _ in tap.stop())
        # A frame equal to one a node sends at that very moment is one frame.
        assert sent >= 0.98 * len(frames), "all of it was on the bus"
    for name in ("replay-vcu", "replay-module"):
        bench.pack.power_off(name)
    return wrong


@pytest.fixture
def recorded(keyed):
    return keyed, record_a_session(keyed)


def test_the_recording_had_effect_when_it_was_live(recorded):
    """The control: the frames played below contain the commands that switched the modules On."""
    _, (vcu, module) = recorded
    bases = {frame.arbitration_id >> 18 for _, sender, frame in module if sender == "pack" and frame.is_extended_id}
    assert {0x512, 0x514, 0x517} <= bases
    assert any(sender == "app" and frame.arbitration_id >> 18 == 0x400 for _, sender, frame in vcu)
    assert len(vcu) + len(module) > 500


def test_into_the_same_session(recorded):
    bench, recordings = recorded
    before = dict(bench.node.model.modules)
    assert play(bench, recordings) == []
    assert sum(refused(bench).get(reason, 0) for reason in ("replay", "old")) > 100
    assert set(bench.node.model.modules) == set(before)
    unharmed(bench)


def test_into_a_new_session_of_the_same_epoch(recorded):
    """Everything restarts: boot counters rise, nonces are new, and nothing of the old session opens."""
    bench, recordings = recorded
    for name in ("module1", "module2", "pack"):
        bench.pack.power_cycle(name)
    bench.restart_app()
    assert bench.pack.run_until(lambda: sessions(bench), 20_000)
    bench.pack.run_for(1000)
    assert play(bench, recordings) == []
    assert refused(bench).get("unknown-session", 0) > 100
    unharmed(bench)


def test_into_a_new_epoch(recorded):
    bench, recordings = recorded
    for record in list(bench.store.relationships):
        bench.run(bench.provisioner().install(record))
    assert bench.pack.run_until(lambda: sessions(bench), 20_000)
    bench.pack.run_for(1000)
    assert play(bench, recordings) == []
    unharmed(bench)
    assert {record.epoch for record in bench.store.relationships.values()} == {2}
    for node in nodes_of(bench):
        assert {relation.epoch for relation in node.relations.values()} == {2}


def test_no_record_is_opened_twice(recorded):
    """With the real nodes silent, every record on the bus is a replay: none may be opened."""
    bench, (vcu, module) = recorded
    pack = bench.pack.node("pack")
    bench.pack.power_off("module1")
    bench.pack.power_off("app")
    channels = {slot.number: slot.channel for slot in pack.keyed_slots()}
    gone = next(
        number for number, slot in pack.slots.items() if slot.unique_id == bench.pack.configs["module1"]["unique_id"]
    )
    bench.pack.run_for(100)
    count = channels[gone].stats["opened"]
    commands = pack.app.channel.stats["opened"]
    station = attacker(bench, "module", "replay")
    for _, sender, frame in module:
        if sender == "module1":
            station.send(frame)
            bench.pack.run_for(1)
    other = attacker(bench, "vcu", "replay2")
    for _, sender, frame in vcu:
        if sender == "app":
            other.send(frame)
            bench.pack.run_for(1)
    assert channels[gone].stats["opened"] == count
    assert pack.app.channel.stats["opened"] == commands
    assert channels[gone].stats.get("replay", 0) + channels[gone].stats.get("old", 0) > 50
    bench.pack.power_off("replay")
    bench.pack.power_off("replay2")
    bench.pack.power_on("module1")
    bench.node = bench.pack.power_on("app")
    unharmed(bench)


def carry_out(bench):
    """With the real nodes silent, every record on the bus is a replay: how many are opened?"""
    _, module = record_a_session(bench)
    pack = bench.pack.node("pack")
    bench.pack.power_off("module1")
    unique_id = bench.pack.configs["module1"]["unique_id"]
    gone = next(slot for slot in pack.slots.values() if slot.unique_id == unique_id)
    bench.pack.run_for(100)
    opened_before = gone.channel.stats["opened"]
    station = attacker(bench, "module", "replay")
    for _, sender, frame in module:
        if sender == "module1":
            station.send(frame)
            bench.pack.run_for(1)
    count = gone.channel.stats["opened"] - opened_before
    return "%d records of a module without power are opened" % count if count else ""


def test_attack(keyed):
    assert carry_out(keyed) == ""


def test_control(weak):
    assert carry_out(weak)
