"""Power cut at every program, erase and sync of the flash under a node's store, on MicroPython's own littlefs.

Whatever is being done (power_cuts.SCENARIOS), the reboot finds the old state or the new one, and pack, module and app
find together again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from littlefs import Littlefs, LittlefsSlots, micropython
from packtrust_node.store import Store
from power_cuts import SCENARIOS, Sweep
from weakening import weakened


@pytest.fixture(scope="module")
def littlefs() -> Iterator[Littlefs]:
    path = micropython()
    if path is None:
        pytest.skip("no MicroPython found: run `make setup`, or name one in MICROPYTHON (1.25 or newer, unix port)")
    started = Littlefs(path)
    yield started
    started.close()


CASES = [
    pytest.param(scenario, victim, id="%s-%s" % (scenario.name, victim))
    for scenario in SCENARIOS
    for victim in scenario.victims
]


@pytest.mark.parametrize(("scenario", "victim"), CASES)
def test_power_cut_at_every_operation_of_the_flash(tmp_path, littlefs, scenario, victim, record_property):
    result = Sweep(scenario, victim, tmp_path, littlefs).run()
    assert result.reboots >= len(result.points)
    record_property("fault", "power cut, littlefs: %s" % scenario.name)
    record_property("injections", result.cuts)
    record_property("outcome", "old or new state; recovered (%d reboots)" % result.reboots)


# Order and care that the sweep must miss if they are gone: (scenario, module, as it is, as it must not be, its words).
WITHOUT = {
    "the pin goes before the keys": (
        "release by the owner",
        "packtrust_node.node",
        "        self.write_identity(self.identity.released(code, counter))\n",
        """        for name in self.env.store.names():
            if name > "rel":
                self.env.store.remove(name)
        self.write_identity(self.identity.released(code, counter))
""",
        "claimed, and without its keys",
    ),
    "what is begun to be erased is erased": (
        "reset of a damaged store",
        "packtrust_node.store",
        '        self._put(_ERASING, b"")\n',
        '        self._put("none", b"")\n',
        "neither the old state nor the new one",
    ),
    "the newest copy is not the one that is overwritten": (
        "claim and provisioning",
        "packtrust_node.store",
        "        self._put(name + _SLOTS[1 if best == 0 else 0], sealed)\n",
        "        self._slots.remove(name + _SLOTS[0])\n        self._put(name + _SLOTS[0], sealed)\n",
        "store-",
    ),
}


@pytest.mark.parametrize("what", WITHOUT)
def test_the_sweep_finds_what_is_not_power_cut_safe(tmp_path, littlefs, what):
    name, module, old, new, says = WITHOUT[what]
    scenario = next(item for item in SCENARIOS if item.name == name)
    with weakened(module, (old, new)), pytest.raises(AssertionError, match=says):
        Sweep(scenario, "module1", tmp_path, littlefs).run()


def test_records_written_again_and_again(littlefs, record_property):
    """Long enough that littlefs compacts and moves its own logs: each operation of each write is cut."""
    slots = LittlefsSlots(littlefs, {})
    store = Store(slots, random.Random(5).randbytes, 7)
    slots.points = []
    for number in range(40):
        store.write("boot", bytes((number,)) * 9)
        store.write("rel-0011223344556677", bytes((number,)) * (150 + number), number % 5 == 4)
    cuts = sum(point.cuts for point in slots.points)
    assert cuts > 600 and slots.erased > 40
    assert store.read("boot") == bytes((39,)) * 9
    record_property("fault", "power cut, littlefs: one record, again and again")
    record_property("injections", cuts)
    record_property("outcome", "old or new state")


def test_wear_of_littlefs(littlefs):
    """Blocks erased for a record, as docs/storage.md says; littlefs spreads them over the whole of its flash."""
    slots = LittlefsSlots(littlefs, {})
    store = Store(slots, random.Random(5).randbytes, 7)
    boots = 200
    for _ in range(boots):
        store.write("boot", bytes(9))
    assert 0 < slots.erased <= boots / 4
    before = slots.erased
    for _ in range(boots):
        store.write("rel-0011223344556677", bytes(250))
    assert boots < slots.erased - before <= 1.5 * boots
