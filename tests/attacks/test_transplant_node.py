"""Attack: a record of one module under another one's number.

Setting    a keyed pack of two modules; what module 2 said for a while is lost at the pack, module 1 has no power meanwhile.
Means      a station on the module bus: module 2's records again, bit for bit, with module 1's node byte.
Success    would be a record of module 2 that the pack opens as module 1's.
"""

from app_bench import AppBench
from attack_suite import Attack
from attacker import Tap, attacker, commission, slot_of, unharmed
from packtrust.arbitration import ENCRYPTED
from packtrust.frame import Frame
from weakening import Weakening

KEYS = (
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
)
AAD = (
    (
        "packtrust.channel",
        "_WORK_CITING, work, 0, VERSION, head & _STREAM, tx",
        "_WORK_CITING, work, 0, VERSION, head & _STREAM & ~0xFF, tx",
    ),
    (
        "packtrust.channel",
        "lay_into(_WORK, work, 0, VERSION, head & _STREAM, tx",
        "lay_into(_WORK, work, 0, VERSION, head & _STREAM & ~0xFF, tx",
    ),
    (
        "packtrust.channel",
        "lay_into(form, work, 0, VERSION, full_id, rx.binding, size, 0, record)\n            if shared.rx",
        "lay_into(form, work, 0, VERSION, full_id & ~0xFF, rx.binding, size, 0, record)\n            if shared.rx",
    ),
    (
        "packtrust.channel",
        "lay_into(form, work, 0, VERSION, full_id, rx.binding, size, 0, record)\n            counter",
        "lay_into(form, work, 0, VERSION, full_id & ~0xFF, rx.binding, size, 0, record)\n            counter",
    ),
)
ATTACK = Attack(
    name="transplant to another node",
    source="S11",
    defence="each pair has its own keys, and the node byte and the sender are in the AAD besides",
    without="one key for all pairs, and an AAD without node byte and sender",
    weakening=Weakening(*KEYS, *AAD),
)


def carry_out(bench):
    """(records opened, reasons of refusals) of module 2's records as module 1's."""
    one = slot_of(bench, "module1")
    bench.pack.power_off("module1")
    bench.pack.add_fault("module", kind="loss", receiver="pack", sender="module2", extended=True)
    tap = Tap(bench, "module")
    bench.pack.run_for(700)
    frames = [frame for _, who, frame in tap.stop() if who == "module2" and frame.arbitration_id & ENCRYPTED]
    bench.pack.module_bus.faults.clear()
    bench.pack.power_off("module2")
    assert len(frames) > 30
    before = dict(one.channel.stats)
    station = attacker(bench, "module")
    for frame in frames:
        station.send(Frame(frame.arbitration_id & ~0xFF | one.number, frame.data))
        bench.pack.run_for(1)
    bench.pack.run_for(50)
    after = one.channel.stats
    return {reason: count - before.get(reason, 0) for reason, count in after.items() if count != before.get(reason, 0)}


def test_attack(keyed):
    came = carry_out(keyed)
    assert "opened" not in came and came["unknown-session"] > 3
    for name in ("module1", "module2"):
        keyed.pack.power_on(name)
    unharmed(keyed)


def test_the_aad_alone_holds(tmp_path):
    with Weakening(*KEYS).applied():
        bench = AppBench(tmp_path, modules=2)
        commission(bench)
        came = carry_out(bench)
    assert "opened" not in came and came["tag"] > 3


def test_control(weak):
    assert carry_out(weak).get("opened", 0) > 3
