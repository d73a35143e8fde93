"""Instruction budgets of the virtual Cortex-M4: each row below its gate, and within 3 % of the last merge's figure."""

import tomllib
from pathlib import Path

import pytest

from bench import cortex_m4, page

NAMES = [row["name"] for row in tomllib.loads(cortex_m4.BUDGETS.read_text())["row"]]


def test_every_path_keeps_its_budget(measured: cortex_m4.Measured) -> None:
    rows = measured.judge(cortex_m4.recorded().instructions)
    assert [row.name for row in rows] == NAMES
    assert not [row.fault for row in rows if row.fault]


def test_the_c_reference_is_counted_in_the_same_run(measured: cortex_m4.Measured) -> None:
    for name in ("seal 8 B, mbedTLS in C", "seal 64 B, mbedTLS in C"):
        assert measured.instructions[name] > 1000


def test_a_key_takes_little_heap(measured: cortex_m4.Measured) -> None:
    """Schedule, tables and objects; the tables alone are smaller (tests/unit/core)."""
    assert measured.heap["heap a key, viper"] <= 2 * 1024 + 512
    assert measured.heap["heap a key, viper-large"] <= 12 * 1024


def test_the_tables_all_keys_share_are_small(measured: cortex_m4.Measured) -> None:
    shared = {row: size for row, size in measured.heap.items() if row.startswith("tables all keys share")}
    assert 0 < shared["tables all keys share, viper-aligned"] <= 1536
    assert 0 < shared["tables all keys share, thumb"] <= max(shared.values()) <= 7 * 1024


def row(measured: int, recorded: int | None, gate: int = 1000) -> cortex_m4.Row:
    return cortex_m4.Row("path", measured, gate, 500, recorded)


def test_a_row_over_its_gate_is_named() -> None:
    assert row(1000, None).fault is None
    assert row(1001, None).fault == "path: 1001 instructions, gate 1000"


def test_a_row_more_than_three_percent_above_the_recorded_figure_is_named() -> None:
    assert row(103, 100).fault is None
    assert row(104, 100).fault == "path: 104 instructions, more than 3 % above the 100 recorded"


def test_a_row_that_was_not_measured_is_an_error() -> None:
    with pytest.raises(cortex_m4.BoardError, match="was not measured"):
        cortex_m4.Measured({}, {}, {}, "viper").judge({})


def test_the_page_shows_every_row_that_is_recorded() -> None:
    text = page.page()
    for name in NAMES:
        assert "| %s |" % name in text
    assert "Not run on hardware" in text


def test_recorded_figures_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cortex_m4, "RECORDED", tmp_path / "recorded.json")
    assert cortex_m4.recorded().instructions == {}
    found = cortex_m4.Measured({"path": 7}, {"key": 8}, {"core.mpy": 9}, "viper")
    cortex_m4.record(found)
    assert cortex_m4.recorded() == found
