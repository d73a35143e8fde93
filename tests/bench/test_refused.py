"""What a forged record costs a Cortex-M4, in instructions: no more than an honest one, so the bus bounds a flood.

A bus of 500 kbit/s carries at most 3 900 frames of 8 bytes with 29-bit IDs a second, 780 records of five.
"""

import pytest

from bench import cortex_m4

RECORDS_A_SECOND = 780
CLOCK_HZ = 168_000_000
REASONS = ("tag", "unknown-session", "replay")


def test_a_full_bus_of_forged_records_leaves_most_of_the_core(
    measured: cortex_m4.Measured, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = measured.instructions["Channel.feed of five frames, thumb"]
    refused = {reason: measured.instructions["refused: %s, five frames, thumb" % reason] for reason in REASONS}
    dearest = max(refused.values())
    load = dearest * RECORDS_A_SECOND * cortex_m4.CYCLES_PER_INSTRUCTION / CLOCK_HZ
    with capsys.disabled():
        print("\ninstructions a record: %s; a full bus of the dearest forged ones: %.0f %%" % (refused, 100 * load))
    assert refused["unknown-session"] < honest
    assert refused["replay"] < honest
    assert dearest < 1.05 * honest
    assert load < 0.25
