"""What a forged record costs a Cortex-M4, in instructions: no more than an honest one, so the bus bounds a flood.

A bus of 500 kbit/s carries at most 3 900 frames of 8 bytes with 29-bit IDs a second, 780 records of five.
"""

import json

import pytest

from bench import cortex_m4
from packtrust_host.image import romfs_image
from packtrust_host.sim.qemu import QemuError, instructions
from qemu_board import compiled, core_modules, started

RECORDS_A_SECOND = 780
CLOCK_HZ = 168_000_000
REASONS = ("tag", "unknown-session", "replay")


@pytest.fixture(scope="module")
def measured() -> dict[str, int]:
    """Instructions to open one record of five frames ("honest"), and to refuse one, by reason."""
    script = cortex_m4.HERE / "board_budgets.py"
    try:
        image = romfs_image({**core_modules(opt=3), "board_budgets.mpy": compiled(script, script.name, 3)})
        with started("suite", image, icount=True) as board:
            lines = board.run("from board_budgets import *\nchannel('thumb')\nsay()", cortex_m4.SECONDS)
    except QemuError as error:
        pytest.skip(str(error))
    rows = {item["row"]: round(instructions(item["ticks"])) for item in map(json.loads, lines)}
    found = {reason: rows["refused: %s, five frames, thumb" % reason] for reason in REASONS}
    return {"honest": rows["Channel.feed of five frames, thumb"], **found}


def test_a_full_bus_of_forged_records_leaves_most_of_the_core(
    measured: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    honest = measured["honest"]
    dearest = max(measured[reason] for reason in REASONS)
    load = dearest * RECORDS_A_SECOND * cortex_m4.CYCLES_PER_INSTRUCTION / CLOCK_HZ
    with capsys.disabled():
        print("\ninstructions a record: %s; a full bus of the dearest forged ones: %.0f %%" % (measured, 100 * load))
    assert measured["unknown-session"] < honest
    assert measured["replay"] < honest
    assert dearest < 1.05 * honest
    assert load < 0.25
