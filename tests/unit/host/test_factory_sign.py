"""A module whose keys are gone is a sign of tampering, whenever it happens."""

from pathlib import Path

import pytest

from app_bench import AppBench
from attacker import commission, unharmed
from packtrust.arbitration import NODE_UNREGISTERED, compose
from packtrust.frame import Frame
from packtrust.messages.bases import ANNOUNCEMENT
from packtrust.messages.compact import encode

SILENT_MS = 20_000  # more than the time after which a module counts as lost


def made(tmp_path: Path) -> AppBench:
    bench = AppBench(tmp_path, modules=2)
    bench.survey = commission(bench)  # type: ignore[attr-defined]
    return bench


def erase(bench: AppBench, away_ms: int) -> None:
    """Somebody takes module 1 out, resets it, and puts it in again."""
    bench.pack.node("module1").reset()
    bench.pack.power_off("module1")
    bench.pack.run_for(away_ms)
    bench.pack.power_on("module1")


def told(bench: AppBench) -> bool:
    return bench.pack.run_until(lambda: bench.pack.node("pack").counters.get("factory"), 40_000)


@pytest.mark.parametrize("away_ms", [10, SILENT_MS, 60_000])
def test_a_module_reset_while_it_was_out(tmp_path: Path, away_ms: int) -> None:
    bench = made(tmp_path)
    bench.pack.run_for(2000)
    erase(bench, away_ms)
    assert told(bench)


def test_a_module_reset_before_its_first_answer(tmp_path: Path) -> None:
    bench = made(tmp_path)
    slot = bench.pack.node("pack").slots[bench.pack.node("module1").own_node]
    assert slot.established and slot.heard_ms is None
    erase(bench, 10)
    assert told(bench)


def test_a_module_reset_while_the_pack_was_off(tmp_path: Path) -> None:
    bench = made(tmp_path)
    bench.pack.run_for(2000)
    bench.pack.power_off("pack")
    erase(bench, 10)
    bench.pack.power_on("pack")
    assert told(bench)


def test_words_of_a_stranger_are_no_reset(tmp_path: Path) -> None:
    """A module that answers has its keys, whatever is said in its name; before its first answer too."""
    bench = made(tmp_path)
    pack = bench.pack.node("pack")
    slot = pack.slots[bench.pack.node("module1").own_node]
    assert slot.established and slot.heard_ms is None
    body = encode("ANNOUNCEMENT", firmware_build=1, manufacturer=2, part=3, unique_id=slot.unique_id)
    pack.on_frame(1, Frame(compose(ANNOUNCEMENT, NODE_UNREGISTERED), bytes(body)))
    pack._check_lost(slot, bench.pack.now_ms)  # before it has been asked
    assert slot.number in pack._disowned
    assert bench.pack.run_until(lambda: pack.counters.get("twin"), 10_000)
    unharmed(bench)
    assert "factory" not in pack.counters
