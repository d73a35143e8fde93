"""Attack: a true record under another ID, of the same pair or of another.

Setting    a keyed pack; a record of module 2 is lost at the pack, so that its counter is fresh.
Means      a station on the module bus: the record again, with another base, another node byte, another toggle or length.
Success    would be a record that is opened as another message than it was sealed for, or as another node's.
"""

import pytest

from attack_suite import Attack
from attacker import Tap, attacker, slot_of, unharmed
from packtrust.arbitration import ENCRYPTED
from packtrust.frame import Frame
from weakening import Weakening

ATTACK = Attack(
    name="transplant",
    source="S11",
    defence="the canonical ID, bit 17 in, is in the AAD; so are direction, sender and length",
    without="records whose AAD leaves out the ID",
    weakening=Weakening(
        (
            "packtrust.channel",
            "_WORK_CITING, work, 0, VERSION, head & _STREAM, tx",
            "_WORK_CITING, work, 0, VERSION, 0, tx",
        ),
        (
            "packtrust.channel",
            "lay_into(_WORK, work, 0, VERSION, head & _STREAM, tx",
            "lay_into(_WORK, work, 0, VERSION, 0, tx",
        ),
        (
            "packtrust.channel",
            "lay_into(form, work, 0, VERSION, full_id, rx.binding, size, 0, record)\n            if shared.rx",
            "lay_into(form, work, 0, VERSION, 0, rx.binding, size, 0, record)\n            if shared.rx",
        ),
        (
            "packtrust.channel",
            "lay_into(form, work, 0, VERSION, full_id, rx.binding, size, 0, record)\n            counter",
            "lay_into(form, work, 0, VERSION, 0, rx.binding, size, 0, record)\n            counter",
        ),
    ),
)

# What the pack obeys of a module: STATUS_1 .. TIME_REQUEST, HARDWARE, FAULT_CODES.
BASES = [0x501, 0x502, 0x503, 0x504, 0x505, 0x506, 0x507, 0x508, 0x50A, 0x521, 0x522, 0x523]


def fresh_records(bench):
    """Frames of records that module 2 has sealed and nobody has got; it has no power any more."""
    bench.pack.add_fault("module", kind="loss", receiver="pack", sender="module2", extended=True)
    tap = Tap(bench, "module")
    bench.pack.run_for(700)
    frames = [f for _, who, f in tap.stop() if who == "module2" and f.arbitration_id & ENCRYPTED]
    bench.pack.module_bus.faults.clear()
    bench.pack.power_off("module2")
    assert len(frames) > 30
    return frames


def carry_out(bench, way):
    victim = slot_of(bench, "module2")
    other = slot_of(bench, "module1")
    frames = fresh_records(bench)
    opened = victim.channel.stats["opened"]
    foreign = other.channel.stats.get("unknown-session", 0)
    station = attacker(bench, "module")
    for frame in frames:
        base = frame.arbitration_id >> 18
        if way == "another base":
            others = [item for item in BASES if item != base]
            moved = others[base % len(others)] << 18 | frame.arbitration_id & 0x3FFFF
        else:
            moved = frame.arbitration_id & ~0xFF | other.number
        station.send(Frame(moved, frame.data))
        bench.pack.run_for(1)
    bench.pack.run_for(50)
    count = victim.channel.stats["opened"] - opened
    if way == "another base":
        return "%d records are opened as another message" % count if count else ""
    refused = other.channel.stats.get("unknown-session", 0) - foreign
    assert refused > 3
    return ""


@pytest.mark.parametrize("way", ["another base", "another node"])
def test_attack(keyed, way):
    assert carry_out(keyed, way) == ""
    keyed.pack.power_on("module2")
    unharmed(keyed)


def test_control(weak):
    assert carry_out(weak, "another base")
