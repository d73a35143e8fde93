"""What a forged record costs a Cortex-M4, in instructions: not much more than an honest one, so the bus bounds a flood.

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

CODE = """
from board_budgets import *
from board_budgets import _results
from packtrust.crypto import use
from packtrust.arbitration import ENCRYPTED
from packtrust.segmentation import Segmenter
use("thumb")
pack, module = channels()
for frame in module.seal(STATUS, DATA):
    pack.feed(frame)
honest = [frame.copy() for frame in module.seal(STATUS, DATA)]
iv_base = bytes(honest[0].data[:4])
segmenter = Segmenter()

def forged(head):
    return [frame.copy() for frame in segmenter.split(STATUS | ENCRYPTED, head + bytes(24))]

def fed(frames, reason):
    def call():
        for frame in frames:
            event = pack.feed(frame)
        if event is None or event.reason != reason:
            raise ValueError(event and event.reason)
    return call

def both(head, reason):
    # Two, for the toggle bit alternates.
    first, second = fed(forged(head), reason), fed(forged(head), reason)
    def call():
        first()
        second()
    return call

report("tag", both(iv_base + b"\\0\\0\\0\\0\\0\\0\\1\\0", "tag"))
report("unknown-session", both(b"none" + b"\\0\\0\\0\\0\\0\\0\\1\\0", "unknown-session"))
report("replay", both(iv_base + bytes(7) + b"\\1", "replay"))
say()
"""


@pytest.fixture(scope="module")
def measured() -> dict[str, int]:
    """Instructions to refuse one record of five frames, by reason."""
    script = cortex_m4.HERE / "board_budgets.py"
    try:
        image = romfs_image({**core_modules(opt=3), "board_budgets.mpy": compiled(script, script.name, 3)})
        with started("suite", image, icount=True) as board:
            lines = board.run(CODE, cortex_m4.SECONDS, lambda line: None)
    except QemuError as error:
        pytest.skip(str(error))
    return {item["row"]: round(instructions(item["ticks"])) // 2 for item in map(json.loads, lines)}


@pytest.mark.xdist_group("budgets")
def test_a_full_bus_of_forged_records_leaves_most_of_the_core(
    measured: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    honest = cortex_m4.recorded().instructions["Channel.feed of five frames, thumb"]
    dearest = max(measured.values())
    load = dearest * RECORDS_A_SECOND * cortex_m4.CYCLES_PER_INSTRUCTION / CLOCK_HZ
    with capsys.disabled():
        print("\nrefused, instructions a record: %s; honest %d; a full bus: %.0f %%" % (measured, honest, 100 * load))
    assert sorted(measured) == ["replay", "tag", "unknown-session"]
    assert dearest < 1.75 * honest
    assert load < 0.35
