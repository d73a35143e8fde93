"""`packtrust monitor`: a live table of a pack, from its authentic records."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from packtrust_host.app.model import state_name
from packtrust_host.app.node import AppNode
from packtrust_host.app.provisioner import Provisioner
from packtrust_host.app.rotator import Rotator
from packtrust_host.app.runner import Runner
from packtrust_host.audit.log import AuditLogs
from packtrust_host.audit.watch import Watch
from packtrust_host.demo.view import refused_of, row_of
from packtrust_host.keylog import KeyLogWriter
from packtrust_host.urls import open_bus

from . import common
from .common import StoreOption, UnlockOption
from .provision import CanOption, JsonOption

_REFRESH_S = 0.5
_FIRST_S = 15.0


def _table(node: AppNode, seconds: float) -> Table:
    stats = node.stats()
    records: dict[str, int] = stats["records"]
    refused = ", ".join("%s %d" % item for item in sorted(refused_of(records).items())) or "0"
    state = "session, epoch %s" % stats["epoch"] if stats["established"] else "no session"
    table = Table(
        title="pack %s: %s, %s   records sealed %d, opened %d, refused %s   %.0f s"
        % (
            node.pack_number,
            state_name(node.model.pack_state),
            state,
            records.get("sealed", 0),
            records.get("opened", 0),
            refused,
            seconds,
        ),
        title_justify="left",
    )
    for name in ("module", "state", "SOC", "current", "voltage", "degC", "cells mV"):
        table.add_column(name)
    for _, module in sorted(node.model.modules.items()):
        row = row_of(module, len(module.cells) <= 6)
        table.add_row(str(row.number), row.state, row.soc, row.current, row.voltage, row.temperature, row.cells)
    return table


def _document(node: AppNode) -> dict[str, Any]:
    modules = {}
    for number, module in sorted(node.model.modules.items()):
        modules[str(number)] = {
            "state": state_name(module.state),
            "soc_permille": module.soc_permille,
            "current_ma": module.current_ma,
            "voltage_mv": module.voltage_mv,
            "fault_code": module.fault_code,
            "cells_mv": [module.cells[index].mv for index in sorted(module.cells)],
            "online": module.online(node.env.now_ms()),
        }
    return {
        "ok": node.established,
        "pack": dict(node.model.pack),
        "diagnostics": dict(node.model.diagnostics),
        "interference": {str(number): dict(told) for number, told in sorted(node.model.interference.items())},
        "stats": node.stats(),
        "modules": modules,
    }


def monitor(
    can: CanOption = None,
    store: StoreOption = None,
    unlock: UnlockOption = "ask",
    duration: Annotated[
        float | None, typer.Option("--duration", min=0.5, help="seconds; default: until Ctrl-C")
    ] = None,
    key_log: Annotated[
        Path | None,
        typer.Option("--key-log", metavar="FILE", help="write session keys, for `can_logger -i packtrust`"),
    ] = None,
    audit_records: Annotated[
        bool, typer.Option("--audit-records", help="note every record in the audit log, not only how many")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show a pack that this host has keys for. It gives no commands, but the pack sees it as its app, and it rotates
    keys that are due.

    With --json it watches for the duration (default 3 s) and prints what it saw then.
    """
    with common.errors_told(), contextlib.ExitStack() as stack:
        keys = common.open_store(store, unlock)
        stack.callback(keys.close)
        writer = None
        if key_log is not None:
            writer = KeyLogWriter(key_log)
            stack.callback(writer.close)
        if not any(record.root for record in keys.relationships.values()):
            raise common.Failed("this key store has no keys for any pack", "run `packtrust provision` first")
        url = common.find_can(can)
        with Runner(lambda: open_bus(url), keys, key_log=writer, policy=common.policy()) as runner:
            node = runner.node
            # A running app is the one that rotates.
            runner.call(Rotator(Provisioner(node)).keep)
            runner.call(lambda: setattr(node, "watch", Watch(node, AuditLogs(keys), records=audit_records)))
            if not runner.wait(lambda: node.established and bool(node.model.modules), _FIRST_S):
                raise common.Failed(
                    "the pack does not answer with the keys this host has", "check the bus, or run `packtrust validate`"
                )
            if as_json:
                runner.wait(lambda: False, duration if duration is not None else 3.0)
                document = runner.call(lambda: _document(node))
                common.print_json(document)
                raise typer.Exit(common.OK if document["ok"] else common.FAILED)
            _watch(runner, duration)


def _watch(runner: Runner, duration: float | None) -> None:
    out = common.console()
    start = time.monotonic()

    def render() -> Table:
        return runner.call(lambda: _table(runner.node, time.monotonic() - start))

    if not out.is_terminal:
        runner.wait(lambda: False, duration if duration is not None else 3.0)
        out.print(render())
        return
    with Live(render(), console=out, auto_refresh=False) as live:
        try:
            while duration is None or time.monotonic() - start < duration:
                runner.wait(lambda: False, _REFRESH_S)
                live.update(render(), refresh=True)
        except KeyboardInterrupt:
            pass  # this is how it is ended
