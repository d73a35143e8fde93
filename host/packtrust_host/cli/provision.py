"""`packtrust provision`, `claim` and `validate`: from an unclaimed pack to keys, and whether it is still that pack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from packtrust_host.app.provisioner import Progress, Provisioner
from packtrust_host.app.registration import Registrar, make_client
from packtrust_host.app.runner import Runner
from packtrust_host.app.validate import Validator
from packtrust_host.bridge.client import BridgeClient
from packtrust_host.urls import open_bus

from . import common
from .common import StoreOption, UnlockOption

CanOption = Annotated[
    str | None,
    typer.Option(
        "--can", metavar="URL", help="python-can bus, e.g. slcan:/dev/ttyACM0; default: a running `packtrust pack`"
    ),
]
BridgeOption = Annotated[
    str | None,
    typer.Option("--bridge", metavar="URL", help="API-Bridge; default: $PACKTRUST_BRIDGE, or http://127.0.0.1:8080"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print the result as JSON, and nothing else")]


@contextmanager
def session(
    can_url: str | None, bridge_url: str | None, store: Path | None, unlock: str
) -> Iterator[tuple[Runner, BridgeClient]]:
    """A runner on the bus and a client at the bridge."""
    with ExitStack() as stack:
        keys = common.open_store(store, unlock)
        stack.callback(keys.close)
        client = stack.enter_context(make_client(common.find_bridge(bridge_url), keys))
        client.health()
        url = common.find_can(can_url)
        runner = stack.enter_context(Runner(lambda: open_bus(url), keys, policy=common.policy()))
        yield runner, client


def provision(
    can: CanOption = None,
    bridge: BridgeOption = None,
    store: StoreOption = None,
    unlock: UnlockOption = "ask",
    pack: Annotated[int | None, typer.Option("--pack", min=0, max=15, help="pack number, if there are several")] = None,
    modules: Annotated[
        int | None, typer.Option("--modules", "-n", min=1, max=31, help="wait until so many are there")
    ] = None,
    clear_first_transfer: Annotated[
        bool,
        typer.Option(
            "--clear-first-transfer", help="send first packages unencrypted; only devices configured so take them"
        ),
    ] = False,
    repeat_unknown: Annotated[
        bool, typer.Option("--repeat-unknown", help="send bridge writes again that were never answered")
    ] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="seconds for everything")] = 600.0,
    as_json: JsonOption = False,
) -> None:
    """Find a pack and its modules, register them at the bridge, claim them and install keys.

    Claim codes come from the key store (`packtrust claim add`). Run it again after a failure: it goes on where it was.
    """
    out = None if as_json else common.console()

    def tell(progress: Progress) -> None:
        if out is not None:
            out.print("%-11s %s  %s" % (progress.step, progress.who, progress.detail), markup=False, highlight=False)

    with common.errors_told(), session(can, bridge, store, unlock) as (runner, client):
        registrar = Registrar(client, runner.node.store, repeat_unknown=repeat_unknown)
        provisioner = Provisioner(runner.node, clear_first_transfer=clear_first_transfer, on_progress=tell)
        script = provisioner.commission(registrar.register_all, pack, modules)
        survey = runner.run(script, timeout, "provisioning")
        attested = runner.run(provisioner.attest(survey.pack), 30.0, "the attestation")
        proven = registrar.forward_attestation(survey.pack, attested).proven
        result = {
            "ok": not attested.problems,
            "host_id": runner.node.store.host_id,
            "pack": _device(survey.pack),
            "modules": [_device(module) for module in survey.modules],
            "lcts": {
                record.lct_id: {"kind": record.kind, "node": record.node, "epoch": record.epoch, "state": record.state}
                for record in runner.node.store.relationships.values()
            },
            "attestation": {"problems": attested.problems, "checked_by_bridge": proven},
        }
    if out is None:
        common.print_json(result)
    else:
        out.print("[green]%d devices have keys.[/] See `packtrust monitor`." % (1 + len(survey.modules)))
        for problem in attested.problems:
            out.print("attestation: " + problem, style="red")
    raise typer.Exit(common.OK if result["ok"] else common.FAILED)


def _device(device: Any) -> dict[str, Any]:
    return {
        "serial": device.serial,
        "unique_id": "%08x" % device.unique_id,
        "node": device.node,
        "fingerprint": device.fingerprint.hex(),
        "component_id": device.component_id,
    }


def validate(
    can: CanOption = None,
    bridge: BridgeOption = None,
    store: StoreOption = None,
    unlock: UnlockOption = "ask",
    as_json: JsonOption = False,
) -> None:
    """Walk every LCT: is each device at the bridge and on the bus still the one it was made for?

    Each live device proves its fingerprint anew. Exit code 1 names any that differs.
    """
    with common.errors_told(), session(can, bridge, store, unlock) as (runner, client):
        if not runner.node.store.relationships:
            raise common.Failed("this key store has no relationship", "run `packtrust provision` first")
        provisioner = Provisioner(runner.node)
        runner.run(provisioner.find_pack(), 30.0, "finding the pack")
        script = Validator(provisioner, client).run()
        report = runner.run(script, 300.0, "the validation")
        bad = ["%s %s (%s)" % (item.who, item.problem, item.lct_id) for item in report.findings]
        provisioner.note("validated", ok=report.ok, findings=bad)
    findings = [{"lct_id": item.lct_id, "who": item.who, "problem": item.problem} for item in report.findings]
    if as_json:
        common.print_json({"ok": report.ok, "checked": report.checked, "findings": findings})
    else:
        out = common.console()
        for item in report.findings:
            out.print("%s %s (%s)" % (item.who, item.problem, item.lct_id), style="red", markup=False, highlight=False)
        if report.ok:
            out.print("[green]All %d LCTs are as registered.[/]" % len(report.checked))
        else:
            out.print("[red]Differing: %s.[/]" % ", ".join(report.differing))
    raise typer.Exit(common.OK if report.ok else common.FAILED)


# -- claim codes -------------------------------------------------------------------------------------------------------


def claim_add(
    device: Annotated[str, typer.Argument(help="unique id (8 hex digits) or serial, as on the device's label")],
    code_file: Annotated[
        Path | None,
        typer.Option("--code-file", metavar="FILE", help="file with its 32 hex digits; default: asked for, unseen"),
    ] = None,
    store: StoreOption = None,
    unlock: UnlockOption = "ask",
    as_json: JsonOption = False,
) -> None:
    """Remember the claim code that a device shows on its console (command `claim`)."""
    with common.errors_told():
        text = code_file.read_text() if code_file is not None else typer.prompt("claim code", hide_input=True)
        keys = common.open_store(store, unlock)
        unique_id = int(device, 16) if len(device) == 8 and all(d in "0123456789abcdefABCDEF" for d in device) else None
        if unique_id is not None:
            keys.add_claim(text, unique_id=unique_id)
        else:
            keys.add_claim(text, serial=device)
        keys.close()
    if as_json:
        common.print_json({"device": device, "stored": True})
    else:
        typer.echo("stored a claim code for %s" % device)


def claim_list(store: StoreOption = None, unlock: UnlockOption = "ask", as_json: JsonOption = False) -> None:
    """Show which devices have a claim code here. The codes are not shown."""
    with common.errors_told():
        devices = common.open_store(store, unlock).claimable
    if as_json:
        common.print_json({"devices": devices})
        return
    table = Table()
    table.add_column("claim code for")
    for device in devices:
        table.add_row(device)
    Console().print(table if devices else "No claim codes: add one with `packtrust claim add DEVICE`.")
