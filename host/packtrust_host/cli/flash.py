"""`packtrust flash`: MicroPython onto a board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from packtrust_host.deploy import flash as flashing
from packtrust_host.deploy.profile import load_profile

from . import common
from .board import JsonOption


def flash(
    board: Annotated[str, typer.Argument(help="the kind of board: a folder of boards/")],
    firmware: Annotated[Path, typer.Argument(help="its firmware file", exists=True, dir_okay=False)],
    port: Annotated[str | None, typer.Option("--port", metavar="DEVICE", help="serial port (esptool)")] = None,
    serial: Annotated[
        str | None, typer.Option("--serial", metavar="USBSERIAL", help="USB serial number of the board")
    ] = None,
    drive: Annotated[Path | None, typer.Option("--drive", metavar="DIR", help="where its UF2 drive is mounted")] = None,
    unique_id: Annotated[
        str | None,
        typer.Option("--unique-id", metavar="HEX", help="refuse any other chip (ESP32: its MAC address)"),
    ] = None,
    no_reset: Annotated[
        bool, typer.Option("--no-reset", help="esptool: its boot loader runs already (BOOT held at reset)")
    ] = False,
    erase: Annotated[bool, typer.Option("--erase", help="esptool: erase everything first, its files too")] = False,
    baud: Annotated[int, typer.Option("--baud", min=9600, help="esptool: speed of writing")] = flashing.BAUD,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check file and board, write nothing")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write MicroPython itself: by esptool, DFU or UF2 copy, whichever the board has.

    The file is checked first, and the board must be the only one that fits: between two, say which.
    """
    out = None if as_json else common.console()

    def tell(step: str, detail: str) -> None:
        if out is not None:
            out.print("%-13s %s" % (step, detail), markup=False, highlight=False, soft_wrap=True)

    with common.errors_told():
        options = flashing.Options(
            port=port,
            serial=serial,
            drive=drive,
            unique_id=unique_id,
            no_reset=no_reset,
            erase=erase,
            baud=baud,
            dry_run=dry_run,
        )
        result = flashing.flash(load_profile(board), firmware, options, tell)
        if as_json:
            common.print_json(result.describe())
        else:
            tell("done", "in %.1f s" % result.seconds)
