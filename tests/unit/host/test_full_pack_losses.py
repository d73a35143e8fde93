"""A pack with 31 modules, each polled every 3.1 s, on a bus that loses something: one lost poll or answer makes no
module stale, silent or limp, and after a longer loss each is back with its next turn.

A poll cites the module's newest record, which may be 4 s old: after a whole turn in which nothing came it is too old.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nodebench import MODULE_BUS, keyed_bench
from packtrust.messages.bases import STATUS_REQUEST
from packtrust.messages.table import STATE_ON
from packtrust_node.slots import GOT, GOT_ALL, LOST, MISSES

MODULES = 31
TURN_MS = 3100
VICTIM = 9
FROM_PACK = range(0x510, 0x520)
FROM_MODULE = range(0x500, 0x510)


class Rig:
    """A bench of 31 modules; `lose` says of which frames none arrives."""

    def __init__(self) -> None:
        bench, app = keyed_bench(MODULES)
        self.bench: Any = bench
        self.pack: Any = bench.nodes["pack"]
        self.lose: Callable[[str, Any], bool] | None = None
        self.polls: dict[int, list[int]] = {}  # times
        bench.spy = self._spy
        bench.keep = 20
        bench.run(11_000)  # the pack is no longer young
        app.seal("COMMAND", contactor_state=STATE_ON)
        bench.run(2 * TURN_MS)
        assert [slot.state for slot in self.pack.keyed_slots()] == [STATE_ON] * MODULES
        self.before = self.figures()
        self.polls.clear()

    def _spy(self, bus: int, sender: str, frame: Any) -> bool:
        if bus != MODULE_BUS:
            return True
        if sender == "pack" and base_of(frame) == STATUS_REQUEST and not frame.arbitration_id & 0xF000:
            self.polls.setdefault(frame.arbitration_id & 0xFF, []).append(self.bench.now_ms)
        return self.lose is None or not self.lose(sender, frame)

    def name(self, number: int) -> str:
        """Of the module with this number."""
        return next(name for name, node in self.bench.nodes.items() if node.own_node == number)

    def turn_of(self, number: int) -> None:
        """Up to the moment before its poll."""
        slot = self.pack.slots[number]
        self.bench.until(lambda: self.pack._polled == number - 1 and slot.poll_ms is None, 2 * TURN_MS)

    def answered(self, number: int) -> bool:
        slot = self.pack.slots[number]
        return slot.poll_ms is None and slot.row[GOT] & GOT_ALL == GOT_ALL

    def figures(self) -> dict[str, int]:
        """What must not grow: refusals, and handshakes."""
        found = {"lost": self.pack.modules_lost}
        for node in self.bench.nodes.values():
            for what in ("stale", "sessions", "pack-lost"):
                found[what] = found.get(what, 0) + node.counters.get(what, 0)
        return found


def base_of(frame: Any) -> int:
    return frame.arbitration_id >> 18 if frame.is_extended_id else -1


@pytest.mark.parametrize("lost", ["poll", "answer"])
def test_one_loss_is_made_good_before_anything_is_stale(lost: str) -> None:
    rig = Rig()
    bases, sender = (FROM_PACK, "pack") if lost == "poll" else (FROM_MODULE, rig.name(VICTIM))
    slot = rig.pack.slots[VICTIM]
    rig.turn_of(VICTIM)
    rig.lose = lambda who, frame: who == sender and base_of(frame) in bases and frame.arbitration_id & 0xFF == VICTIM
    rig.bench.until(lambda: slot.poll_ms is not None, 500)
    first_ms = rig.bench.now_ms
    rig.bench.run(100)
    assert not rig.answered(VICTIM)
    rig.lose = None
    rig.bench.until(lambda: rig.answered(VICTIM), 500)
    assert rig.bench.now_ms - first_ms < 600
    # The others had their turns meanwhile, and all go on as if nothing had been.
    rig.bench.run(3 * TURN_MS)
    assert rig.figures() == rig.before
    again = {number: len(times) for number, times in rig.polls.items() if len(times) > 4}
    assert set(again) <= {VICTIM} and all(count == 5 for count in again.values()), again
    assert not any(node.limp for name, node in rig.bench.nodes.items() if name != "pack")
    rig.bench.sound()


def test_after_two_losses_a_module_is_back_half_a_second_after_its_turn() -> None:
    rig = Rig()
    slot = rig.pack.slots[VICTIM]
    rig.turn_of(VICTIM)
    rig.lose = lambda who, frame: frame.arbitration_id & 0xFF == VICTIM
    rig.bench.run(1000)  # its poll, and that again
    assert len(rig.polls[VICTIM]) == 2 and not rig.answered(VICTIM)
    rig.lose = None
    rig.bench.until(lambda: len(rig.polls[VICTIM]) == 3, TURN_MS)
    at_ms = rig.bench.now_ms
    rig.bench.until(lambda: rig.answered(VICTIM), 500)
    assert rig.bench.now_ms - at_ms < 600 and slot.row[MISSES] == 0
    after = rig.figures()
    # Its newest record was too old to cite once, which a module answers with one that is not. No handshake.
    assert after["stale"] > rig.before["stale"] and after["sessions"] == rig.before["sessions"]


def test_a_bus_that_was_away_is_made_good_within_one_round() -> None:
    rig = Rig()
    rig.lose = lambda who, frame: True
    rig.bench.run(6000)
    rig.lose = None
    begin_ms = rig.bench.now_ms
    latest = {number: len(times) for number, times in rig.polls.items()}
    slots = rig.pack.keyed_slots()
    rig.bench.until(lambda: all(slot.row[MISSES] == 0 for slot in slots), 2 * TURN_MS)
    rig.bench.run(600)
    assert rig.bench.now_ms - begin_ms < TURN_MS + 1000
    assert all(slot.poll_ms is None or rig.bench.now_ms - slot.poll_ms < 500 for slot in slots)
    # At most the two polls of that round each.
    assert all(len(times) - latest[number] <= 3 for number, times in rig.polls.items())
    assert rig.figures()["sessions"] == rig.before["sessions"]
    rig.bench.sound()


def test_a_module_that_is_gone_is_polled_once_a_round() -> None:
    rig = Rig()
    rig.turn_of(VICTIM)
    rig.bench.off(rig.name(VICTIM))
    rig.bench.run(6 * TURN_MS)
    assert len(rig.polls[VICTIM]) <= 6 + 1  # the first one twice
    assert rig.pack.slots[VICTIM].row[LOST] and rig.pack.modules_lost == 1
    assert all(len(times) <= 7 for times in rig.polls.values())
