"""docs/performance.md from the recorded figures: `python tests/bench/page.py` prints it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a program it has its own folder there only
from bench import cortex_m4

INTRODUCTION = """# Performance

Made by `make generate` from the figures that `make bench ARGS=--record` stored; `make bench` counts them again and
fails, naming the row, where one is above its gate or more than 3 % above what is recorded here.

## Instructions on a Cortex-M4

Stock MicroPython on the virtual board [cortex-m4](../boards/cortex-m4/README.md), core compiled to `.mpy`, 96 KB of
heap (the rows of a channel, both ends of which run there, on the build with a larger one). Counts are exact (QEMU's
`-icount`, net of an empty call); they are no times. The two columns marked ~ are estimates: instructions x {cpi}
cycles, an assumption, for QEMU models neither flash wait states nor the pipeline; an ESP32 has another instruction
set, and rows of kernels it cannot run have none. **Not run on hardware.** What a look-up of a name costs depends on
how the interpreter has numbered its names, so the rows of a channel are medians over {numberings} numberings.

A seal is one AES-256-GCM record in place, 13 bytes of associated data; "of mbedTLS in C" is its count divided by that
of mbedTLS 3.6, compiled with `-Os` and called from Python in the same run.
"""
SIZES = """Size of each module's `.mpy` (native code for the Cortex-M4, no line numbers). A board with a ROMFS runs
bytecode in place; without one it lies on the heap.
"""


def table(headings: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, figures to the right."""
    lines = [" | ".join(headings), " | ".join(["---"] + ["---:"] * (len(headings) - 1))]
    lines += [" | ".join(row) for row in rows]
    return "\n".join("| %s |" % line for line in lines) + "\n"


def page() -> str:
    """The whole page."""
    found = cortex_m4.recorded()
    budgeted = found.judge(found.instructions)
    named = {row.name for row in budgeted}
    others = [[name, cortex_m4.spaced(count)] for name, count in found.instructions.items() if name not in named]
    return "\n".join(
        (
            INTRODUCTION.format(cpi=cortex_m4.CYCLES_PER_INSTRUCTION, numberings=len(cortex_m4.NAMES_BEFORE)),
            table(cortex_m4.HEADINGS, [cortex_m4.cells(found, row) for row in budgeted]),
            "The board takes the backend `%s` by itself. Counted, without a gate:\n" % found.default,
            table(["path", "instructions"], others),
            "## Memory\n\nHeap, bytes, on the same board.\n",
            table(["what", "bytes"], [[what, str(count)] for what, count in found.heap.items()]),
            SIZES,
            table(["module", "bytes"], [[name, str(size)] for name, size in found.modules.items()]),
            "Together %d bytes." % sum(found.modules.values()),
        )
    )


if __name__ == "__main__":
    print(page())
