"""Attack: chunks of two records are put together to a third.

Setting    a keyed pack; two records of a module are lost at the pack, so that their counters are fresh.
Means      the first chunks of the one and the last chunks of the other, of the same stream, toggle and length.
Success    would be a record that is opened though nobody has sealed it.
"""

from attack_suite import Attack
from attacker import Tap, attacker, slot_of, unharmed
from packtrust.arbitration import ENCRYPTED
from weakening import Weakening

ATTACK = Attack(
    name="chunk mixing",
    source="S2; own",
    defence="the tag is over the whole record",
    without="records that are decrypted whatever their tag",
    weakening=Weakening(
        (
            "packtrust.crypto.host",
            "            return self._aead.decrypt(nonce, data, aad)",
            "            size = len(data) - 16\n            return self._aead.encrypt(nonce, bytes(data[:size]), aad)[:size]",
        )
    ),
)


def carry_out(bench):
    slot = slot_of(bench, "module1")
    bench.pack.add_fault("module", kind="loss", receiver="pack", sender="module1", extended=True)
    tap = Tap(bench, "module")
    bench.pack.run_for(3000)
    records = {}  # stream with toggle and last -> records, each its frames
    for _, who, frame in tap.stop():
        if who == "module1" and frame.arbitration_id & ENCRYPTED:
            key = frame.arbitration_id & ~0xF000
            if not frame.arbitration_id & 0xF000:
                records.setdefault(key, []).append([])
            records[key][-1].append(frame)
    bench.pack.module_bus.faults.clear()
    bench.pack.power_off("module1")
    opened = slot.channel.stats["opened"]
    tags = slot.channel.stats.get("tag", 0)
    station = attacker(bench, "module")
    mixed = 0
    for found in records.values():
        for first, second in zip(found[::2], found[1::2], strict=False):
            if len(first) == len(second) >= 4:
                station.send(*first[:3], *second[3:])
                bench.pack.run_for(5)
                mixed += 1
    assert mixed > 3
    count = slot.channel.stats["opened"] - opened
    assert count or slot.channel.stats["tag"] > tags
    return "%d mixed records are opened" % count if count else ""


def test_attack(keyed):
    assert carry_out(keyed) == ""
    keyed.pack.power_on("module1")
    unharmed(keyed)


def test_control(weak):
    assert carry_out(weak)
