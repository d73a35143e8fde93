"""`packtrust pack`: a virtual pack to plug into."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from packtrust_host.app.keystore import KeyStore
from packtrust_host.sim.deploy import parse_boards
from packtrust_host.sim.launcher import PackProcess

from . import common
from .common import StoreOption, UnlockOption
from .demo import BITRATES, MODULES_MAX


def _describe(pack: PackProcess, bitrate: int) -> dict[str, Any]:
    """What the state file and --json tell. No claim codes: they are on the nodes' consoles."""
    return {
        "pid": pack.info["pid"],
        "control": pack.info["control"],
        "can": {bus: "slcan:%s?bitrate=%d" % (paths[0], bitrate) for bus, paths in pack.info["adapters"].items()},
        "adapters": pack.info["adapters"],
        "logs": pack.info["logs"],
        "nodes": {
            name: {key: node[key] for key in ("role", "serial", "unique_id", "pid")}
            for name, node in pack.info["nodes"].items()
        },
    }


def _show(info: dict[str, Any], out: Console) -> None:
    for bus, url in info["can"].items():
        path = info["adapters"][bus][0]
        out.print("%-6s bus   adapter %s" % (bus, path), highlight=False, soft_wrap=True)
        out.print("             --can %s" % url, style="dim", highlight=False, soft_wrap=True)
    for name, node in info["nodes"].items():
        out.print("%-10s %s, unique id %08x" % (name, node["serial"], node["unique_id"]), highlight=False)
    first = info["adapters"]["vcu"][0]
    out.print("Try: can_logger -i slcan -c %s" % first, highlight=False, soft_wrap=True)
    out.print("     packtrust monitor, packtrust provision (with `packtrust bridge` running)", highlight=False)
    out.print("Ctrl-C ends it.")


def pack(
    modules: Annotated[int, typer.Option("--modules", "-n", min=1, max=MODULES_MAX, help="modules in the pack")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="of unique ids and cells")] = 1,
    bitrate: Annotated[int, typer.Option("--bitrate", help="of both buses, bit/s")] = 500_000,
    fd: Annotated[
        bool, typer.Option("--fd", help="CAN FD on the module bus: each record in one frame, data at 2 Mbit/s")
    ] = False,
    vcu_fd: Annotated[bool, typer.Option("--fd-vcu", help="CAN FD on the VCU bus, too")] = False,
    mixed_bus: Annotated[
        bool,
        typer.Option("--mixed-bus", help="as if old modules were there: sealed IDs are out of their reach"),
    ] = False,
    board: Annotated[list[str] | None, typer.Option("--board", metavar="WHO=BOARD", help=common.BOARD_HELP)] = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--directory", help="keep flash and bus logs here, so that keys survive; default: a temporary one"
        ),
    ] = None,
    claim: Annotated[
        bool,
        typer.Option("--claim/--no-claim", help="copy the claim codes from the virtual consoles into the key store"),
    ] = True,
    store: StoreOption = None,
    unlock: UnlockOption = "ask",
    as_json: Annotated[bool, typer.Option("--json", help="print what runs as JSON, and nothing else")] = False,
) -> None:
    """Run a virtual pack and print its USB-CAN adapters, until Ctrl-C.

    The adapters are ptys that speak LAWICEL SLCAN: python-can's slcan interface and its tools work on them as on a
    real one.
    """
    if bitrate not in BITRATES:
        raise typer.BadParameter("one of %s" % ", ".join(str(rate) for rate in BITRATES), param_hint="--bitrate")
    heap = "4M" if modules > 8 else None
    with common.errors_told():
        boards = parse_boards(board or [])
    with (
        common.errors_told(),
        _store(store, unlock, claim) as keys,
        common.RunningPack() as state,
        PackProcess(
            directory=directory,
            modules=modules,
            seed=seed,
            bitrate=bitrate,
            heap=heap,
            fd=fd,
            vcu_fd=vcu_fd,
            boards=boards,
            policy=common.policy_name(),
            mixed_bus=mixed_bus,
        ) as running,
    ):
        if keys is not None:
            for name, code in running.claim_codes.items():
                keys.add_claim(code, unique_id=running.info["nodes"][name]["unique_id"])
        info = _describe(running, bitrate)
        state.write(info)
        if as_json:
            common.print_json(info)
        else:
            _show(info, common.console())
        try:
            _wait(running)
        except KeyboardInterrupt:
            pass  # this is how it is ended
        if not as_json:
            typer.echo("stopped")


@contextlib.contextmanager
def _store(directory: Path | None, unlock: str, wanted: bool) -> Iterator[KeyStore | None]:
    """The key store, opened before anything runs: a passphrase is asked for at once or never."""
    keys = common.open_store(directory, unlock) if wanted else None
    try:
        yield keys
    finally:
        if keys is not None:
            keys.close()


def _wait(running: PackProcess) -> None:
    """Until Ctrl-C, or until the pack ends by itself (NodeError)."""
    never = threading.Event()
    while not never.wait(2.0):
        running.control("ports")
