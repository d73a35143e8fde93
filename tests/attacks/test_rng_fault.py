"""Attack: the random generator repeats itself after every boot.

Setting    a keyed pack; one device after the other, or all at once, is power-cycled and draws the same random bytes as
           the boot before.
Means      the power switch; every record on the buses.
Success    would be one pair of key and IV for two different plaintexts, in a session or in a store.
"""

import pytest

from attack_suite import Attack
from attacker import Tap, nodes_of, sessions, unharmed
from packtrust.arbitration import ENCRYPTED
from packtrust.segmentation import Reassembler
from weakening import Weakening

ATTACK = Attack(
    name="nonce reuse by RNG fault",
    source="S10; own",
    defence="session keys depend on both boot counters, kept in the store, beside both nonces; one key a direction",
    without="session keys from the nonces alone",
    weakening=Weakening(
        ("packtrust.handshake", '            + pack(">II", boot_initiator, boot_responder)\n', ""),
    ),
)


def reboot_alike(bench, names):
    """Off and on: the entropy source gives the very bytes it gave at the boot before."""
    for name in names:
        bench.pack.power_off(name)
    bench.pack.run_for(20)
    for name in names:
        bench.pack.stations[name].boots -= 1
        bench.pack.power_on(name)


def keys_in_use(bench):
    """IV base -> key, of the sessions that seal now."""
    found = {}
    pack = bench.pack.node("pack")
    for neighbour in [pack.app, *(slot for slot in pack.slots.values())]:
        if neighbour.established:
            state = neighbour.channel._session.state
            found[bytes(state[64:68])] = bytes(state[:32])
            found[bytes(state[68:72])] = bytes(state[32:64])
    return found


def carry_out(bench, names):
    taps = [Tap(bench, "vcu"), Tap(bench, "module")]
    keys = {}
    for count in range(3):
        reboot_alike(bench, names)
        assert bench.pack.run_until(lambda: sessions(bench), 20_000)
        keys.update(keys_in_use(bench))
        # What is said differs from boot to boot, or a repeated IV would show nothing.
        bench.node.set_limits(1000 * (count + 1), 2000 * (count + 1))
        bench.pack.run_for(1500)
    seen = {}
    reused = set()
    records = 0
    for tap in taps:
        reassembler = Reassembler(64)
        for when_ms, _, frame in tap.stop():
            if not frame.is_extended_id or not frame.arbitration_id & ENCRYPTED:
                continue
            record = reassembler.feed(frame, when_ms)
            if record is None or len(record) < 28:
                continue
            records += 1
            record = bytes(record)
            key = keys.get(record[:4], record[:4])
            if seen.setdefault((key, record[:12]), record[12:]) != record[12:]:
                reused.add(record[:12])
    assert records > 200
    return "%d IVs were used twice under one key" % len(reused) if reused else ""


WAYS = {"a module": ["module1"], "the pack": ["pack"], "all": ["pack", "module1", "module2"]}


@pytest.mark.parametrize("way", WAYS)
def test_attack(keyed, way):
    assert carry_out(keyed, WAYS[way]) == ""
    unharmed(keyed)


def test_control(weak):
    assert carry_out(weak, WAYS["all"])


def test_both_directions_of_a_session_have_their_own_key(keyed):
    keys = keys_in_use(keyed)
    assert len(keys) == 6
    assert len(set(keys.values())) == 6


def test_a_source_that_is_stuck_makes_no_keys(fresh):
    """Not repeated from boot to boot but from word to word: a node then makes no session and no identity."""
    station = fresh.pack.stations["module1"]
    build = station.build_env

    def stuck():
        env = build()
        env._entropy = lambda count: b"\x55" * count
        return env

    station.build_env = stuck
    fresh.pack.power_off("module1")
    station.slots.files.clear()
    fresh.pack.power_on("module1")
    node = fresh.pack.node("module1")
    assert node.identity is None
    assert node.counters["identity"] == 1
    assert len(nodes_of(fresh)) == 3
