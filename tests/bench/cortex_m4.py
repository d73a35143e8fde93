"""Instruction counts on the virtual Cortex-M4: measured, judged against budgets.toml, shown beside mbedTLS in C.

A figure is an exact count of instructions (QEMU's -icount), not a time. The times in the table are estimates from
CYCLES_PER_INSTRUCTION, which QEMU does not model. Not run on hardware.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

from packtrust_host.image import romfs_image
from packtrust_host.sim.qemu import instructions
from qemu_board import BoardError, compiled, core_modules, started

HERE = Path(__file__).resolve().parent
BUDGETS = HERE / "budgets.toml"
RECORDED = HERE / "recorded.json"
NODE = HERE.parents[1] / "firmware" / "packtrust_node"

TOLERANCE = 1.03  # above the recorded figure
# An assumption: pipeline and flash wait states of a 168 MHz STM32F405 or a 240 MHz ESP32 are not modelled.
CYCLES_PER_INSTRUCTION = 1.5
CLOCKS_MHZ = {"STM32F405": 168, "ESP32": 240}
# What an ESP32 cannot run: Thumb, and kernels that load words from any address.
NOT_ON_ESP32 = ("thumb", "viper", "viper-large", "cryptolib")
SECONDS = 600
_NAMES = "for n in range(%d):\n    hasattr(0, 'name' + str(n))\n"

# What a look-up of a name costs depends on the number that the interpreter has given to it, for its cache of places has
# 64 of them. A name more anywhere shifts them all, and the figures of paths through many attributes by up to 8 %, up or
# down. So these are counted with so many names before them, and the median is the figure.
NAMES_BEFORE = tuple(range(0, 64, 5))
NUMBERED = ("channel",)

# Each on a freshly started board: firmware variant and call. A channel needs a larger heap: both its ends are there.
PARTS = (
    ("reference", "reference()"),
    *(
        ("reference", "aead('%s')" % name)
        for name in ("viper", "viper-large", "viper-aligned", "cryptolib", "thumb", "pure")
    ),
    ("reference", "default()"),
    *(("suite", "channel('%s')" % name) for name in ("thumb", "viper")),
    *(("suite", "handshake('%s')" % name) for name in ("thumb", "viper")),
    ("reference", "session_keys()"),
    *(("reference", "curve('%s')" % name) for name in ("thumb", "viper", "integers")),
    *(("reference", "epoch_exchange('%s')" % name) for name in ("thumb", "viper")),
    ("reference", "scrub()"),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A budgeted path with what it took."""

    name: str
    measured: int
    gate: int | None
    target: int | None
    recorded: int | None

    @property
    def fault(self) -> str | None:
        """Why this row fails, or None."""
        if self.gate is not None and self.measured > self.gate:
            return "%s: %d instructions, gate %d" % (self.name, self.measured, self.gate)
        if self.recorded is not None and self.measured > self.recorded * TOLERANCE:
            return "%s: %d instructions, more than 3 %% above the %d recorded" % (
                self.name,
                self.measured,
                self.recorded,
            )
        return None


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one run found out.

    instructions  by row, net of an empty call; of paths through many names the median (NAMES_BEFORE)
    heap          bytes of heap, by what takes them
    modules       size of each module's .mpy, bytes
    default       the backend the board chose by itself
    """

    instructions: dict[str, int]
    heap: dict[str, int]
    modules: dict[str, int]
    default: str

    def judge(self, recorded: Mapping[str, int]) -> list[Row]:
        """A Row for each budget, `recorded` being the figures of the last merge. BoardError if one is missing."""
        rows = []
        for budget in tomllib.loads(BUDGETS.read_text())["row"]:
            name = budget["name"]
            for wanted in (name, budget.get("of", name)):
                if wanted not in self.instructions:
                    raise BoardError("%s was not measured: has the firmware its backend?" % wanted)
            unit = self.instructions[budget["of"]] if "of" in budget else 1
            gate, target = (int(budget[key] * unit) if key in budget else None for key in ("gate", "target"))
            rows.append(Row(name, self.instructions[name], gate, target, recorded.get(name)))
        return rows


def measure(say: Callable[[str], None] = lambda line: None) -> Measured:
    """Run board_budgets.py on the firmware with the C reference. BoardError, QemuError."""
    modules = core_modules(opt=3)
    script = HERE / "board_budgets.py"
    files = {**modules, "board_budgets.mpy": compiled(script, script.name, 3)}
    for name in ("__init__.py", "scrub.py"):
        files["lib/packtrust_node/" + name.replace(".py", ".mpy")] = compiled(NODE / name, "packtrust_node/" + name, 3)
    image = romfs_image(files)
    counted: dict[str, list[float]] = {}
    heap: dict[str, int] = {}
    backend = ""
    for variant, part in PARTS:
        for before in NAMES_BEFORE if part.startswith(NUMBERED) else (0,):
            with started(variant, image, icount=True) as board:
                lines = board.run(_NAMES % before + "from board_budgets import *\n%s\nsay()" % part, SECONDS, say)
            for item in map(json.loads, lines):
                if "ticks" in item:
                    counted.setdefault(item["row"], []).append(instructions(item["ticks"]))
                elif "bytes" in item:
                    heap[item["row"]] = item["bytes"]
                else:
                    backend = item["name"]
    return Measured(
        {row: round(statistics.median(found)) for row, found in counted.items()},
        heap,
        {name.removeprefix("lib/packtrust/"): len(image) for name, image in modules.items()},
        backend,
    )


def recorded() -> Measured:
    """The figures of the last merge; empty before there are any."""
    if not RECORDED.exists():
        return Measured({}, {}, {}, "")
    return Measured(**json.loads(RECORDED.read_text()))


def record(measured: Measured) -> None:
    """Make what was measured the figures that the next merge is held to."""
    RECORDED.write_text(json.dumps(dataclasses.asdict(measured), indent=1) + "\n")


def estimate_us(count: int, clock_mhz: int) -> float:
    """Estimated microseconds of so many instructions."""
    return count * CYCLES_PER_INSTRUCTION / clock_mhz


def reference_of(name: str) -> str | None:
    """The row of mbedTLS in C that does the same work as the row `name`, if there is one."""
    operation, _, backend = name.partition(", ")
    if operation.startswith("open"):
        operation = "seal" + operation[4:]  # GCM opens with the work of sealing
    return operation + ", mbedTLS in C" if backend else None


def cells(measured: Measured, row: Row) -> list[str]:
    """A row as the table shows it: name, instructions, gate, target, ratio to C, estimated times."""
    base = measured.instructions.get(reference_of(row.name) or "")
    reached = " reached" if row.target is not None and row.measured <= row.target else ""
    times = [_time(estimate_us(row.measured, clock)) for clock in CLOCKS_MHZ.values()]
    kernel = row.name.rpartition(", ")[2]
    if kernel in NOT_ON_ESP32 and not row.name.startswith(("X25519, viper", "HPKE AuthPSK open of one package, viper")):
        times[-1] = "-"
    return [
        row.name,
        spaced(row.measured),
        "-" if row.gate is None else spaced(row.gate),
        "-" if row.target is None else spaced(row.target) + reached,
        "%.2f" % (row.measured / base) if base else "-",
        *times,
    ]


def spaced(number: int) -> str:
    """A number with its thousands apart."""
    return "{:,}".format(number).replace(",", " ")


HEADINGS = [
    "path",
    "instructions",
    "gate",
    "target",
    "of mbedTLS in C",
    *("~ %s, %d MHz" % (core, clock) for core, clock in CLOCKS_MHZ.items()),
]


def _time(microseconds: float) -> str:
    if microseconds < 1000:
        return "%.0f us" % microseconds
    return "%.1f ms" % (microseconds / 1000)
