"""`packtrust deploy`: firmware and core onto a board."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from packtrust_host.deploy import find, process
from packtrust_host.deploy.errors import BoardError
from packtrust_host.deploy.profile import load_profile

from . import common
from .board import JsonOption
from .common import StoreOption, UnlockOption


def _read_options(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        options = json.loads(path.read_text())
    except ValueError as error:
        raise BoardError("%s is no JSON: %s" % (path, error), "write an object with keys of node.json in it") from None
    if not isinstance(options, dict):
        raise BoardError("%s is no JSON object" % path, "write an object with keys of node.json in it")
    return options


def deploy(
    board: Annotated[str, typer.Argument(help="the kind of board: a folder of boards/")],
    port: Annotated[str | None, typer.Option("--port", metavar="DEVICE", help="serial port of its console")] = None,
    serial: Annotated[
        str | None, typer.Option("--serial", metavar="USBSERIAL", help="USB serial number of the board")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="of a running virtual board")] = None,
    drive: Annotated[
        Path | None, typer.Option("--drive", metavar="DIR", help="CircuitPython: where its drive is mounted")
    ] = None,
    role: Annotated[str | None, typer.Option("--role", help="module or pack; default: what it is, else module")] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="JSON with keys for its node.json, e.g. how it is wired"),
    ] = None,
    can: Annotated[
        str | None, typer.Option("--can", metavar="URL", help="wait until it announces itself on that bus")
    ] = None,
    store: StoreOption = None,
    unlock: UnlockOption = "ask",
    claim: Annotated[
        bool, typer.Option("--claim/--no-claim", help="copy its claim code from the console into the key store")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="tell what would be copied, change nothing")] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring firmware and core of this checkout onto a board: what is there already is not copied again.

    Hashes are computed on the board, before and after. Then the board restarts, and its claim code goes into the key
    store. Run it again after a failure.
    """
    if role not in (None, "module", "pack"):
        raise typer.BadParameter("module or pack", param_hint="--role")
    out = None if as_json else common.console()

    def tell(step: str, detail: str) -> None:
        if out is not None:
            out.print("%-13s %s" % (step, detail), markup=False, highlight=False, soft_wrap=True)

    with common.errors_told():
        profile = load_profile(board)
        options = _read_options(config)
        if profile.layout == "py":
            place = drive or find.find_drive(profile, "boot_out.txt")
            result = process.deploy_to_drive(profile, place, role=role, config=options, dry_run=dry_run, tell=tell)
        else:
            target = find.find_target(profile, port, serial, name=name)
            result = process.deploy(
                target,
                role=role,
                config=options,
                can_url=can,
                store=common.open_store(store, unlock) if claim and not dry_run else None,
                dry_run=dry_run,
                tell=tell,
            )
        if as_json:
            common.print_json(result.describe())
        elif out is not None:
            tell("done", "in %.1f s" % result.seconds)
