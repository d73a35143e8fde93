"""`packtrust demo`: the main job and its report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from packtrust_host.demo.run import DemoRun, Options, Report
from packtrust_host.demo.view import make_view
from packtrust_host.hardening import no_core_dumps
from packtrust_host.sim.deploy import parse_boards

from . import common

MODULES_MAX = 31


def report_table(report: Report) -> Table:
    """One line a criterion."""
    table = Table(title="The roadmap's success criteria", title_justify="left", show_lines=True)
    table.add_column("")
    table.add_column("criterion", ratio=2)
    table.add_column("measured", ratio=5)
    for line in report.lines:
        mark = Text("ok", style="bold green") if line.ok else Text("RED", style="bold red")
        text = Text(line.evidence if line.ok else "")
        for problem in line.problems:
            text.append(("\n" if text else "") + problem, style="red")
        table.add_row(mark, "%d. %s" % (line.number, line.criterion), text)
    return table


def cells_table(report: Report) -> Table | None:
    """Every cell as the app last saw it, through encrypted CAN."""
    modules = report.facts.get("live", {}).get("modules", {})
    if not modules:
        return None
    table = Table(title="Cells as last reported", title_justify="left")
    for name in ("module", "SOC", "voltage", "cells mV", "highest degC"):
        table.add_column(name)
    for number, values in modules.items():
        soc, voltage, heat = values["soc_permille"], values["voltage_mv"], values["cell_max_centi_c"]
        table.add_row(
            number,
            "-" if soc is None else "%.1f %%" % (soc / 10),
            "-" if voltage is None else "%.3f V" % (voltage / 1000),
            " ".join(str(value) for value in values["cells_mv"]) or "-",
            "-" if heat is None else "%.2f" % (heat / 100),
        )
    return table


def course_table(report: Report) -> Table:
    """How the pack was emptied: every cell at a few times."""
    samples = report.facts.get("course", [])
    nodes = sorted({item["node"] for item in samples})
    recording = report.facts.get("recording", {})
    table = Table(
        title="The course of %s (%.0f s, %d times as fast), SOC and cells in mV, from the sealed records"
        % (recording.get("file", "it"), recording.get("seconds", 0.0), recording.get("speed", 1)),
        title_justify="left",
    )
    table.add_column("after")
    for node in nodes:
        table.add_column("module %d" % node)
    for at_s in sorted({item["at_s"] for item in samples}):
        row = ["%.1f s" % at_s]
        for node in nodes:
            item = next(item for item in samples if item["at_s"] == at_s and item["node"] == node)
            soc = "   - %" if item["soc_permille"] is None else "%5.1f %%" % (item["soc_permille"] / 10)
            row.append("%s  %s" % (soc, " ".join(str(value) for value in item["cells_mv"])))
        table.add_row(*row)
    return table


def show_report(report: Report, options: Options, out: Console) -> None:
    """The report on a terminal."""
    cells = cells_table(report)
    if cells is not None and options.cells is not None:
        out.print(course_table(report))
        out.print(cells)
    out.print(report_table(report))
    for problem in report.problems:
        out.print(Text("stopped: " + problem, style="red"), soft_wrap=True)
    for name, heap in report.facts.get("heap", {}).items():
        out.print(
            "heap of %s (%s): %.1f of %.1f KB free at rest, %.1f KB in one piece; at the least %.1f KB"
            % (
                name,
                heap["board"],
                *(heap[key] / 1024 for key in ("free", "bytes", "largest_piece", "least_free")),
            ),
            highlight=False,
            soft_wrap=True,
        )
    red = [line for line in report.lines if not line.ok]
    if report.ok:
        out.print("[green]All %d criteria hold.[/] %.1f s." % (len(report.lines), report.facts["seconds"]))
    elif red:
        out.print("[red]%d of %d criteria do not hold.[/]" % (len(red), len(report.lines)))
    else:
        out.print("[red]The criteria hold, but the run was not complete.[/]")
    out.print(
        "report %s   logs %s" % (options.output / "report.json", "  ".join(report.facts["logs"].values())),
        style="dim",
        highlight=False,
        soft_wrap=True,
    )


def execute(options: Options, as_json: bool = False, on_event: Callable[[str, DemoRun], None] | None = None) -> int:
    """Run a demo and show its report; the exit code. Raises what stops it before there is a report."""
    out = None if as_json else common.console()
    report = DemoRun(options, make_view(out), on_event).run()
    if out is None:
        common.print_json(report.to_json())
    else:
        show_report(report, options, out)
    return common.OK if report.ok else common.FAILED


def demo(
    modules: Annotated[int, typer.Option("--modules", "-n", min=1, max=MODULES_MAX, help="modules in the pack")] = 3,
    duration: Annotated[
        float, typer.Option("--duration", min=3.0, max=86_400.0, help="seconds of sealed traffic")
    ] = 20.0,
    seed: Annotated[
        int, typer.Option("--seed", help="of unique ids, cells and test inputs; keys are always fresh")
    ] = 1,
    cells: Annotated[
        Path | None,
        typer.Option(
            "--cells",
            metavar="FILE.csv",
            exists=True,
            dir_okay=False,
            help="replay a cycler's recording: columns Total Time (s), Current (A), Cell Voltage A1.. (V), "
            "Temperature A1.. (degC); two voltages a module",
        ),
    ] = None,
    speed: Annotated[
        int | None,
        typer.Option("--speed", min=1, max=1000, help="of the recording; default: empties it within the duration"),
    ] = None,
    topology: Annotated[str, typer.Option("--topology", help="parallel or series")] = "parallel",
    bitrate: Annotated[int, typer.Option("--bitrate", help="of both buses, bit/s")] = 500_000,
    fd: Annotated[
        bool, typer.Option("--fd", help="CAN FD on the module bus: each record in one frame, data at 2 Mbit/s")
    ] = False,
    vcu_fd: Annotated[bool, typer.Option("--fd-vcu", help="CAN FD on the VCU bus, too")] = False,
    board: Annotated[list[str] | None, typer.Option("--board", metavar="WHO=BOARD", help=common.BOARD_HELP)] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder for report and logs")] = Path("build/demo"),
    clear_first_transfer: Annotated[
        bool,
        typer.Option(
            "--clear-first-transfer",
            help="send first packages unencrypted, as the roadmap's initial transfer: criterion 8 then fails",
        ),
    ] = False,
    key_log: Annotated[
        Path | None,
        typer.Option(
            "--key-log", metavar="FILE", help="write session keys, for `can_logger -i packtrust` and the like"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON, and nothing else")] = False,
) -> None:
    """Run a virtual pack from registration to sealed traffic, and prove that it worked.

    Each module and the pack controller is a MicroPython process with the firmware as deployed. Exit code 1 if any of
    the eight success criteria does not hold.
    """
    if topology not in ("parallel", "series"):
        raise typer.BadParameter("it is parallel or series", param_hint="--topology")
    if bitrate not in BITRATES:
        raise typer.BadParameter("one of %s" % ", ".join(str(rate) for rate in BITRATES), param_hint="--bitrate")
    if speed is not None and cells is None:
        raise typer.BadParameter("it goes with --cells", param_hint="--speed")
    options = Options(
        modules=modules,
        duration_s=duration,
        seed=seed,
        output=output,
        cells=cells,
        speed=speed,
        topology=topology,
        bitrate=bitrate,
        clear_first_transfer=clear_first_transfer,
        key_log=key_log,
        fd=fd,
        vcu_fd=vcu_fd,
    )
    with common.errors_told():
        no_core_dumps()
        options.boards = parse_boards(board or [])
        code = execute(options, as_json)
    raise typer.Exit(code)


BITRATES = (125_000, 250_000, 500_000, 1_000_000)
