"""Attack: a device's whole flash is copied to another board.

Setting    a keyed pack at work, modules On; then a second board with the very same flash is switched on beside the first.
Means      everything the device has: binding key, roots, counters, its firmware.
Success    would be a pack, or an app, that goes on with two devices of one identity: not prevented, but to be found within
           a poll cycle of a full pack (3.1 s; in a pack's first 10 s, when it asks all modules every second, within those)
           and isolated: no session, no command, contactors open.
"""

import pytest

from attack_suite import Attack
from attacker import command, leave, modules_of, obeyed, sessions, slot_of, total, unharmed
from packtrust.messages.table import STATE_OFF, STATE_ON
from packtrust_node.store import MemorySlots
from weakening import Weakening

ATTACK = Attack(
    name="full flash copy",
    source="own",
    defence="who announces itself unasked is challenged; two different proofs to one HELLO isolate the device",
    without="an initiator that looks at the first REPLY only",
    weakening=Weakening(("packtrust.handshake", "            self.reason = TWIN\n", "")),
)
FOUND_MS = 3100
YOUNG_MS = 10_000


def copy_of(bench, name):
    """A second board with the flash of `name`, on."""
    bench.pack._add("copy", bench.pack.configs[name])
    station = bench.pack.stations["copy"]
    station.slots = MemorySlots()
    station.slots.files = dict(bench.pack.stations[name].slots.files)
    station.power_on()
    return station


def module(bench, found_ms=FOUND_MS):
    slot = slot_of(bench, "module1")
    copy_of(bench, "module1")
    found = bench.pack.run_until(lambda: not slot.established, found_ms)
    bench.pack.run_for(1000)
    if not found or slot.established:
        return "the pack goes on with two modules of one identity"
    given = command(bench, bench.node.set_state(STATE_ON))
    bench.pack.run_for(11_100)
    on = [bench.pack.node(name).state for name in ("module1", "copy") if bench.pack.node(name).state != STATE_OFF]
    return "one of two modules with one identity is On" if on or given.state == "obeyed" else ""


def both_at_once(bench):
    """Both are there when the pack boots: it never has a session with either for longer than a handshake."""
    copy_of(bench, "module1")
    bench.pack.power_cycle("pack")
    bench.pack.run_for(8000)
    pack = bench.pack.node("pack")
    if slot_of(bench, "module1").established or not total(pack, "twin"):
        return "the pack boots into a session with one of two modules"
    return ""


def pack(bench):
    copy_of(bench, "pack")
    bench.pack.run_for(1000)
    bench.node.channel.connect()
    bench.node._send_all(bench.node.channel.outgoing())
    bench.pack.run_for(3000)
    if bench.node.established:
        return "the app goes on with two packs of one identity"
    bench.pack.run_for(12_000)
    on = [node for node in modules_of(bench) if node.state != STATE_OFF]
    return "modules of a pack that is there twice are On" if on else ""


WAYS = {"a module": module, "a module, both at once": both_at_once, "the pack": pack}


@pytest.mark.parametrize("way", WAYS)
def test_attack(keyed, way):
    obeyed(keyed, STATE_ON)
    keyed.pack.run_for(YOUNG_MS)
    assert WAYS[way](keyed) == ""


@pytest.mark.parametrize("way", WAYS)
def test_control(weak, way):
    obeyed(weak, STATE_ON)
    weak.pack.run_for(YOUNG_MS)
    assert WAYS[way](weak)


def test_a_young_pack(keyed):
    assert keyed.pack.now_ms < YOUNG_MS
    assert module(keyed, YOUNG_MS + FOUND_MS) == ""


def test_new_keys_without_the_copy_end_the_isolation(keyed):
    obeyed(keyed, STATE_ON)
    keyed.pack.run_for(YOUNG_MS)
    assert module(keyed) == ""
    leave(keyed, "copy")
    assert not slot_of(keyed, "module1").established
    for lct_id, record in list(keyed.store.relationships.items()):
        if record.unique_id_b == keyed.pack.configs["module1"]["unique_id"]:
            keyed.run(keyed.provisioner().install(lct_id))
    assert keyed.pack.run_until(lambda: sessions(keyed), 10_000)
    unharmed(keyed)
