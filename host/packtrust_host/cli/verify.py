"""`packtrust verify`: does a node's interpreter compute what it should?"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from packtrust_host.app.errors import NoAnswer
from packtrust_host.app.keystore import default_directory
from packtrust_host.audit.log import HOST, AuditLogs
from packtrust_host.sim.deploy import parse_boards
from packtrust_host.sim.launcher import PackProcess
from packtrust_host.verify import CASES, VerifyReport, verify_bus, verify_node
from packtrust_host.verify_transport import bus_at, discover, parse_node

from . import common
from .common import StoreOption, UnlockOption

_READY_S = 20.0
_FAILURES_SHOWN = 20


def _ms(micros: float | None) -> str:
    return "-" if micros is None else "%.2f" % (micros / 1000)


def report_table(report: VerifyReport) -> Table:
    """Operations, cases, verdicts and the node's own times."""
    info = report.info
    title = "%s: %s %s on %s, %s bit; seed %d" % (
        report.node,
        info.get("implementation"),
        info.get("version"),
        info.get("platform"),
        info.get("word_bits"),
        report.seed,
    )
    table = Table(title=title, title_justify="left")
    table.add_column("operation")
    table.add_column("backend, mode")
    for column in ("cases", "of CAVP", "wrong", "median ms", "max ms"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for item in report.operations:
        table.add_row(
            item.name,
            item.variant,
            str(item.cases),
            str(item.cavp) if item.cavp else "",
            str(item.failed),
            _ms(item.median_us),
            _ms(item.max_us),
            "[green]right[/]" if item.ok else "[red]WRONG[/]",
        )
    return table


def verify_virtual(
    node: int | None = None, boards: Mapping[str, str | Sequence[str]] | None = None, **options: Any
) -> Iterator[VerifyReport]:
    """Start a pack controller and a module that have no keys, as processes, and verify them (or the one asked for)."""
    with PackProcess(modules=1, boards=boards, logs=False) as pack:
        for bus_name in ("vcu", "module"):
            with bus_at("slcan:%s" % pack.adapter(bus_name)) as bus:
                # The module gets its number from the pack in its first second; until then it is 0xFF.
                found = discover(bus, _READY_S, 1)
                while found and found[0].node == 0xFF:
                    found = discover(bus, _READY_S, 1)
                for item in found:
                    if node in (None, item.node):
                        yield verify_node(bus, item.node, **options)


def run_verify(
    can_url: str | None = None,
    node: str | None = None,
    cases: int = CASES,
    seed: int | None = None,
    backend: str | None = None,
    console: Console | None = None,
    boards: Mapping[str, str | Sequence[str]] | None = None,
) -> list[VerifyReport]:
    """Verify the nodes of a bus, or virtual ones without `can_url`; shows each verdict on `console`, if given.

    boards  kinds of virtual boards, as PackProcess takes them

    Raises AppError, BusUrlError, SetupError, NodeError.
    """
    number = None if node is None else parse_node(node)
    options: dict[str, Any] = {"cases": cases, "seed": seed, "backend": backend}
    reports = []

    def show(report: VerifyReport) -> None:
        reports.append(report)
        if console is None:
            return
        console.print(report_table(report))
        for failure in report.failures[:_FAILURES_SHOWN]:
            console.print("  wrong: %s" % failure, markup=False)
        if len(report.failures) > _FAILURES_SHOWN:
            console.print("  and %d more (--json has them all)" % (len(report.failures) - _FAILURES_SHOWN))

    if can_url is not None:
        with bus_at(can_url) as bus:
            for report in verify_bus(bus, number, **options):
                show(report)
        return reports
    if console is not None:
        console.print(
            "No --can given: starting a virtual pack controller and module without keys, and verifying these. "
            "For a board: packtrust verify --can slcan:/dev/ttyACM0"
        )
    for report in verify_virtual(number, boards, **options):
        show(report)
    if not reports:
        raise NoAnswer("the virtual pack has no such node, or it does not answer", "it has pack0 and module1")
    return reports


def _audit(stack: contextlib.ExitStack, store: Path | None, unlock: str) -> AuditLogs | None:
    """Where the verdicts are noted: in the key store there is. None is made for that."""
    if not ((default_directory() if store is None else store) / "state").exists():
        return None
    keys = common.open_store(store, unlock)
    stack.callback(keys.close)
    return AuditLogs(keys)


def _entry(report: VerifyReport, bus: str) -> dict[str, Any]:
    """A verdict for the audit log."""
    return {
        "what": "verified",
        "ok": report.ok,
        "node": report.node,
        "bus": bus,
        "cases": report.cases,
        "failed": report.failed,
        "wrong": sorted({failure.operation for failure in report.failures}),
        "seed": report.seed,
        "implementation": str(report.info.get("implementation")),
        "version": str(report.info.get("version")),
    }


def verify(
    can: Annotated[
        str | None,
        typer.Option("--can", metavar="URL", help="python-can bus, e.g. slcan:/dev/ttyACM0; default: a virtual node"),
    ] = None,
    node: Annotated[
        str | None, typer.Option("--node", help="pack, pack1, module2, unregistered, or a node byte; default: all")
    ] = None,
    cases: Annotated[
        int, typer.Option("--cases", min=1, max=10_000, help="random cases an operation, backend and mode")
    ] = CASES,
    seed: Annotated[
        int | None, typer.Option("--seed", help="repeat a run's random inputs; default: fresh ones")
    ] = None,
    backend: Annotated[str | None, typer.Option("--backend", help="only this AES backend of the node")] = None,
    board: Annotated[list[str] | None, typer.Option("--board", metavar="WHO=BOARD", help=common.BOARD_HELP)] = None,
    store: StoreOption = None,
    unlock: UnlockOption = "ask",
    as_json: Annotated[bool, typer.Option("--json", help="print the verdicts as JSON")] = False,
) -> None:
    """Let a node without keys compute, and compare with the host's cryptography library.

    HKDF, AES-GCM by each backend (forged tags must be refused; a sample of NIST CAVP's vectors included), X25519, HPKE
    in its four modes and the framing of records. Exit code 1 if any answer is wrong, or the node refuses because it has
    keys. Where there is a key store, the verdicts are noted in its audit log, under "host".
    """
    out = common.console()
    with common.errors_told(), contextlib.ExitStack() as stack:
        logs = _audit(stack, store, unlock)
        reports = run_verify(can, node, cases, seed, backend, None if as_json else out, parse_boards(board or []))
        if logs is not None:
            logs.append(HOST, [_entry(report, can or "virtual") for report in reports])
    ok = all(report.ok for report in reports)
    if as_json:
        common.print_json({"ok": ok, "nodes": [report.to_json() for report in reports]})
    elif ok:
        out.print("[green]All %d answers are right.[/]" % sum(report.cases for report in reports))
    else:
        out.print("[red]%d answers are wrong:[/] do not use this firmware." % sum(r.failed for r in reports))
    raise typer.Exit(common.OK if ok else common.FAILED)
