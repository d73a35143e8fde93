"""Attack: a module that belongs to the pack and was taken over.

Setting    a keyed pack of two modules; module 1 does what the attacker wants, with its own keys.
Means      its binding key, its epoch root, its session: all it can seal, under any ID; records of the others, moved.
Success    would be to speak as module 2 or as the pack, or to read what is between them.
"""

import pytest

from attack_suite import Attack
from attacker import Tap, attacker, modules_of, obeyed, opening, sealing, skip, total, unharmed
from packtrust.arbitration import ENCRYPTED, TOGGLE, compose
from packtrust.frame import Frame
from packtrust.messages import by_name, encode
from packtrust.messages.table import STATE_OFF, STATE_ON
from packtrust.record import RecordCipher
from packtrust.segmentation import Reassembler, Segmenter
from weakening import Weakening

ATTACK = Attack(
    name="insider",
    source="SPsec attack_T7_injection_by_member",
    defence="keys of a pair and a direction; sender and receiver in every key and record",
    without="a group key: the same session keys in every pair, no sender in the AAD",
    weakening=Weakening(
        (
            "packtrust.handshake",
            "hkdf_expand(secret, info, _MATERIAL_LENGTH)",
            'hkdf_expand(bytes(32), b"group" + info[-1:], _MATERIAL_LENGTH)',
        ),
        (
            "packtrust.channel",
            '        return bytes((direction,)) + bytes(unpack_from("4s", self._counts, _SENDERS + 4 * direction)[0])',
            "        return bytes((direction, 0, 0, 0, 0))",
        ),
    ),
)


@pytest.fixture
def insider(keyed):
    """(bench, his module, the other one, his station on the module bus)."""
    one, two = modules_of(keyed)
    return keyed, one, two, attacker(keyed, "module")


def sealed(module, full_id, data, ahead=5):
    """A record under his own session keys, for whatever ID he likes."""
    channel = module._pack.channel
    skip(channel, ahead)
    record = sealing(channel).seal(full_id, channel._session.sealed, data)
    return Segmenter().split(full_id, record)


def test_his_records_under_another_ones_number(insider):
    bench, one, two, station = insider
    pack = bench.pack.node("pack")
    other = pack.slots[two.own_node].channel
    opened = other.stats["opened"]
    unknown = other.stats.get("unknown-session", 0)
    bench.pack.power_off("module2")
    for _ in range(20):
        data = bytes(encode("STATUS_1", state=STATE_ON, soc_permille=1000, soh_permille=1000))
        station.send(*sealed(one, compose(by_name("STATUS_1").base, two.own_node) | ENCRYPTED, data))
        bench.pack.run_for(20)
    assert other.stats["opened"] == opened
    assert other.stats["unknown-session"] - unknown >= 19
    assert pack.slots[two.own_node].state == STATE_OFF
    bench.pack.power_on("module2")
    unharmed(bench)


def test_his_records_as_commands_to_the_other(insider):
    bench, one, two, station = insider
    before = total(two, "unknown-session")
    for name, values in (("MAX_STATE", {"max_state": STATE_ON}), ("STATE_CHANGE", {"state": STATE_ON})):
        for _ in range(10):
            data = bytes(4) + bytes(encode(name, values))
            station.send(*sealed(one, compose(by_name(name).base, two.own_node) | ENCRYPTED, data))
            bench.pack.run_for(20)
            assert two.state == STATE_OFF
    assert total(two, "unknown-session") - before >= 18
    unharmed(bench)


def test_commands_to_himself_do_not_come_back_as_the_packs(insider):
    """Reflection: what he seals is of the other direction, even under his own pair's keys."""
    bench, one, _, station = insider
    for name, values in (("MAX_STATE", {"max_state": STATE_ON}), ("STATE_CHANGE", {"state": STATE_ON})):
        data = bytes(4) + bytes(encode(name, values))
        station.send(*sealed(one, compose(by_name(name).base, one.own_node) | ENCRYPTED, data))
        bench.pack.run_for(50)
    assert one.state == STATE_OFF
    unharmed(bench)


@pytest.mark.parametrize("kind", ["other base", "other number"])
def test_a_true_record_moved_to_another_id(insider, kind):
    """A record of module 2 that the pack has not got yet (he is faster, or it was lost there), under another ID."""
    bench, one, two, station = insider
    pack = bench.pack.node("pack")
    channel = pack.slots[two.own_node].channel
    bench.pack.add_fault("module", kind="loss", receiver="pack", sender="module2", extended=True, count=400)
    tap = Tap(bench, "module")
    bench.pack.run_for(1500)
    recorded = [f for _, who, f in tap.stop() if who == "module2" and f.arbitration_id & ENCRYPTED]
    assert len(recorded) > 50
    bench.pack.module_bus.faults.clear()
    opened, refused = channel.stats["opened"], channel.stats.get("tag", 0)
    mine = pack.slots[one.own_node].channel
    unknown = mine.stats.get("unknown-session", 0)
    bench.pack.power_off("module2")
    for frame in recorded:
        head = frame.arbitration_id & (0x1FF00 | ENCRYPTED)
        if kind == "other base":
            base = (frame.arbitration_id >> 18) ^ 1
            moved = base << 18 | head | two.own_node
        else:
            moved = frame.arbitration_id & ~0xFF | one.own_node
        station.send(Frame(moved, frame.data))
        bench.pack.run_for(1)
    bench.pack.run_for(50)
    assert channel.stats["opened"] == opened
    assert channel.stats.get("tag", 0) - refused > 3 or mine.stats.get("unknown-session", 0) - unknown > 3
    bench.pack.power_on("module2")
    unharmed(bench)


def test_he_cannot_read_the_others_traffic(insider):
    """All keys he has, tried on every record between the pack and module 2."""
    bench, one, _, _ = insider
    tap = Tap(bench, "module")
    obeyed(bench, STATE_ON)
    bench.pack.run_for(2000)
    obeyed(bench, STATE_OFF)
    channel = one._pack.channel
    relation = next(iter(one.relations.values()))
    sides = [opening(channel), sealing(channel)]
    for direction in (0, 1):
        for sender in (bytes(relation.peer_fingerprint[:4]), bytes(one.identity.fingerprint[:4])):
            sides.append(RecordCipher(bytes(relation.root), bytes(4), direction, sender))
    reassembler = Reassembler(32)
    tried = opened = own = 0
    for when, _, frame in tap.stop():
        if not frame.is_extended_id or not frame.arbitration_id & ENCRYPTED:
            continue
        record = reassembler.feed(frame, when)
        if record is None or len(record) < 28:
            continue
        full_id = frame.arbitration_id & ~(TOGGLE | 0xFF00)
        if frame.arbitration_id & 0xFF == one.own_node:
            own += any(cipher.open(full_id, bytes(record)) is not None for cipher in sides)
            continue
        tried += 1
        opened += any(cipher.open(full_id, bytes(record)) is not None for cipher in sides)
    assert tried > 50
    assert opened == 0
    assert own > 50  # the control: these very keys open what is his


def carry_out(bench):
    """Module 1 says, as module 2, that it is On."""
    one, two = modules_of(bench)
    station = attacker(bench, "module")
    slot = bench.pack.node("pack").slots[two.own_node]
    bench.pack.power_off("module2")
    data = bytes(encode("STATUS_1", state=STATE_ON, soc_permille=1000, soh_permille=1000))
    for _ in range(20):
        station.send(*sealed(one, compose(by_name("STATUS_1").base, slot.number) | ENCRYPTED, data))
        bench.pack.run_for(20)
    return "the pack believes module 1 under the number of module 2" if slot.state == STATE_ON else ""


def test_attack(keyed):
    assert carry_out(keyed) == ""


def test_control(weak):
    assert carry_out(weak)
