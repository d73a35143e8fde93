"""`packtrust dbc` and `packtrust messages`: the message table for tools and for reading."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from packtrust.messages import MESSAGES
from packtrust.policy import CLASS_NAMES, DEFAULT_POLICY
from packtrust_host.dbc import render

from . import common
from .demo import MODULES_MAX


def dbc(
    modules: Annotated[
        int, typer.Option("--modules", "-n", min=1, max=MODULES_MAX, help="modules numbered 1..N")
    ] = MODULES_MAX,
    packs: Annotated[int, typer.Option("--packs", min=1, max=4, help="packs numbered 0..N-1")] = 1,
) -> None:
    """Print the DBC file, for cantools, SavvyCAN and every tool that reads one."""
    typer.echo(render(range(1, modules + 1), range(packs)), nl=False)


def messages(
    name: Annotated[str | None, typer.Argument(help="only this one: its name or base, e.g. STATUS_1 or 0x502")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the table as JSON, and nothing else")] = False,
) -> None:
    """Print the message table: bases, names, classes and whether they are sealed."""
    rows = [
        {
            "base": "0x%03X" % row.base,
            "name": row.name,
            "direction": row.direction,
            "class": CLASS_NAMES[row.message_class],
            "sealed": DEFAULT_POLICY.is_sealable(row.base),
            "cited": DEFAULT_POLICY.needs_citation(row.base),
            "length": row.dlc,
        }
        for row in sorted(MESSAGES, key=lambda row: row.base)
    ]
    if name is not None:
        rows = [row for row in rows if name.upper() in (row["name"], str(row["base"]).upper())]
        if not rows:
            raise typer.BadParameter("no message %r: `packtrust messages` lists them" % name)
    if as_json:
        common.print_json(rows)
        return
    table = Table()
    for column in ("base", "name", "direction", "class", "sealed", "cites"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            str(row["base"]),
            str(row["name"]),
            str(row["direction"]),
            str(row["class"]),
            "yes" if row["sealed"] else "no",
            "yes" if row["cited"] else "",
        )
    common.console().print(table)
