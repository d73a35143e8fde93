"""`make bench`: speed on CPython and MicroPython, instructions on the virtual Cortex-M4, as tables and a JSON file.

    python tests/bench/run.py [--quick] [--output FILE] [--modules N] [--record]
    python tests/bench/run.py --flood MHZ

Nothing here fails because a machine is slow: times are shown, only instruction counts have gates (budgets.toml).
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a program it has its own folder there only
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "firmware"))
from bench import bench_bus, cortex_m4, flood
from packtrust_host.sim.deploy import SetupError, find_micropython
from packtrust_host.sim.qemu import QemuError
from qemu_board import BoardError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SCRIPTS = ("bench_crypto.py", "bench_channel.py")
HEAP = "8M"


def run_script(interpreter: str, script: str, quick: bool) -> dict[str, Any]:
    """The JSON a bench script prints."""
    if interpreter == "cpython":
        path = os.pathsep.join(str(ROOT / folder) for folder in ("shared", "tests/bench"))
        command = [sys.executable]
        environment = {**os.environ, "PYTHONPATH": path}
    else:
        command = [find_micropython(), "-X", "heapsize=" + HEAP]
        environment = {**os.environ, "MICROPYPATH": f"{ROOT / 'shared'}:{HERE}:.frozen"}
    if quick:
        # The scripts have no options: a board has no command line.
        program = "import bench_crypto\nbench_crypto.ROUNDS = 3\nbench_crypto.ROUND_US = 2000\n"
        program += "import json, %s as script\nprint(json.dumps(script.run()))\n" % script.removesuffix(".py")
        command += ["-c", program]
    else:
        command.append(str(HERE / script))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeError("%s failed on %s:\n%s%s" % (script, interpreter, done.stdout, done.stderr))
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def microseconds(value: float | None) -> str:
    return "-" if value is None else "%.1f" % value if value < 100 else "%d" % value


def speed_table(figures: dict[str, dict[str, Any]]) -> Table:
    """One line an operation, one column an interpreter and backend: median microseconds."""
    columns: list[tuple[str, str]] = []
    cells: dict[str, dict[tuple[str, str], float]] = {}
    for interpreter, result in figures.items():
        for item in result["results"]:
            key = (interpreter, item["backend"])
            if key not in columns:
                columns.append(key)
            cells.setdefault(item["name"], {})[key] = item["us"]
    table = Table(title="median time of a call, microseconds", title_justify="left")
    table.add_column("operation")
    for interpreter, backend in columns:
        table.add_column("%s\n%s" % (interpreter, backend), justify="right")
    for name, row in cells.items():
        table.add_row(name, *(microseconds(row.get(column)) for column in columns))
    return table


def bus_table(results: list[dict[str, Any]]) -> Table:
    table = Table(
        title="virtual bus, frames of 8 bytes: in virtual time, and from adapter to adapter in real time",
        title_justify="left",
    )
    for column in ("bus", "frames/s", "frames per bus second", "times real time"):
        table.add_column(column, justify="left" if column == "bus" else "right")
    for item in results:
        table.add_row(
            item["name"],
            "%d" % item["frames_per_second"],
            "%s" % item.get("frames_per_bus_second", "-"),
            "%s" % item.get("times_real_time", "-"),
        )
    return table


def start_table(result: dict[str, Any]) -> Table:
    title = "from the start to sealed records, %d modules" % result["modules"]
    table = Table(title=title, title_justify="left")
    table.add_column("reached")
    table.add_column("after s", justify="right")
    for step, seconds in result["seconds"].items():
        table.add_row(step, "%.2f" % seconds)
    return table


def budget_table(measured: cortex_m4.Measured, rows: list[cortex_m4.Row]) -> Table:
    title = "instructions on the virtual Cortex-M4, exact; ~: estimated times, not run on hardware"
    table = Table(title=title, title_justify="left")
    for heading in cortex_m4.HEADINGS:
        table.add_column(heading, justify="left" if heading == "path" else "right")
    for row in rows:
        table.add_row(*cortex_m4.cells(measured, row), style="red" if row.fault else None)
    return table


def memory_table(measured: cortex_m4.Measured) -> Table:
    table = Table(title="virtual Cortex-M4: heap, and size of each .mpy of the core, bytes", title_justify="left")
    table.add_column("what")
    table.add_column("bytes", justify="right")
    for name, size in (*measured.heap.items(), *measured.modules.items()):
        table.add_row(name, str(size))
    return table


def show_flood(console: Console, mhz: float) -> int:
    """Each kind of flood on the virtual Cortex-M4, as a table."""
    table = Table(title="A module of %.0f MHz on a bus full of forged frames. Not run on hardware." % mhz)
    for heading in flood.HEADINGS:
        table.add_column(heading)
    try:
        for kind in flood.floods():
            table.add_row(*flood.cells(kind, flood.run(kind, mhz)))
    except (QemuError, BoardError) as error:
        console.print("error: %s" % error, style="bold red")
        return 1
    console.print(table)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Measure, show, store; 1 if something could not be measured, or a path is over its gate."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it works")
    parser.add_argument("--modules", type=int, default=3, help="modules of the start measured")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench" / "bench.json")
    parser.add_argument("--record", action="store_true", help="hold the next merge to today's instruction counts")
    parser.add_argument("--flood", type=float, metavar="MHZ", help="flood a module whose core has so many MHz, no more")
    arguments = parser.parse_args(argv)
    quick: bool = arguments.quick
    console = Console()
    if arguments.flood:
        return show_flood(console, arguments.flood)
    document: dict[str, Any] = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "quick": quick,
        "interpreters": {},
        "bus": [],
    }
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("", total=None)
            for interpreter in ("cpython", "micropython"):
                results = []
                kept: dict[str, Any] = {}
                for script in SCRIPTS:
                    progress.update(task, description="%s on %s" % (script, interpreter))
                    measured = run_script(interpreter, script, quick)
                    results += measured.pop("results")
                    kept |= measured
                document["interpreters"][interpreter] = kept | {"results": results}
            for bitrate in (500_000, 1_000_000):
                progress.update(task, description="bus at %d kbit/s" % (bitrate // 1000))
                document["bus"].append(bench_bus.virtual_time(bitrate, 0.5 if quick else 5.0))
                document["bus"].append(bench_bus.real_time(bitrate, 500 if quick else 5000))
            progress.update(task, description="start of a virtual pack")
            document["start"] = bench_bus.first_record(arguments.modules)
            progress.update(task, description="counting instructions on the virtual Cortex-M4")
            measured = cortex_m4.measure()
            rows = measured.judge(cortex_m4.recorded().instructions)
            document["cortex_m4"] = dataclasses.asdict(measured)
    except (RuntimeError, SetupError, OSError, QemuError, BoardError) as error:
        console.print("error: %s" % error, markup=False, style="red")
        return 1
    for table in (
        speed_table(document["interpreters"]),
        bus_table(document["bus"]),
        start_table(document["start"]),
        memory_table(measured),
        budget_table(measured, rows),
    ):
        console.print(table)
    output: Path = arguments.output
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document, indent=2) + "\n")
    console.print("stored in %s" % os.path.relpath(output), markup=False)
    if arguments.record:
        cortex_m4.record(measured)
        console.print("recorded: the next merge is held to these counts; run make generate for docs/performance.md")
        rows = measured.judge(measured.instructions)
    faults = [row.fault for row in rows if row.fault]
    for fault in faults:
        console.print("over budget: %s" % fault, markup=False, style="red")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
