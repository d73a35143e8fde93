"""`packtrust board`: virtual boards, and which boards there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from packtrust_host.deploy import find, virtual
from packtrust_host.deploy.errors import BoardError
from packtrust_host.deploy.profile import load_profile

from . import common

JsonOption = Annotated[bool, typer.Option("--json", help="print the result as JSON, and nothing else")]
BITRATES = (125_000, 250_000, 500_000, 1_000_000)


def _show(info: dict[str, Any]) -> None:
    out = common.console()

    def line(text: str, style: str | None = None) -> None:
        out.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    line("%s (%s, %s)" % (info["name"], info["board"], info["role"]))
    line("console  %s" % info["console"])
    for bus, url in info["can"].items():
        line("%-8s adapter %s" % (bus, info["adapters"][bus]))
        line("         --can %s" % url, "dim")
    line("flash    %s" % info["flash"])
    line("Ctrl-C ends it.")


def start(
    board: Annotated[str, typer.Argument(help="unix or cortex-m4")],
    flash: Annotated[
        Path | None,
        typer.Option("--flash", metavar="PATH", help="its flash: a folder (unix) or an image file (cortex-m4), kept"),
    ] = None,
    role: Annotated[str, typer.Option("--role", help="module or pack: decides its buses")] = "module",
    can: Annotated[int | None, typer.Option("--can", min=0, max=virtual.PORTS_MAX, help="number of CAN ports")] = None,
    name: Annotated[str | None, typer.Option("--name", help="what it is called; default: the board's name")] = None,
    join: Annotated[
        str | None, typer.Option("--join", metavar="NAME", help="put it on the buses of that running virtual board")
    ] = None,
    bitrate: Annotated[int, typer.Option("--bitrate", help="of its buses, bit/s")] = 500_000,
    data_bitrate: Annotated[
        int | None, typer.Option("--data-bitrate", help="of its buses, bit/s: they carry CAN FD then")
    ] = None,
    heap: Annotated[str | None, typer.Option("--heap", help="unix: MicroPython's heap, e.g. 256K")] = None,
    variant: Annotated[str, typer.Option("--variant", help="cortex-m4: of its firmware")] = "cryptolib",
    as_json: JsonOption = False,
) -> None:
    """Start a virtual board with its console and a USB-CAN adapter on each bus, until Ctrl-C.

    The console is a pseudo terminal that behaves as a board's serial port: mpremote works on it.
    """
    if bitrate not in BITRATES:
        raise typer.BadParameter("one of %s" % ", ".join(str(rate) for rate in BITRATES), param_hint="--bitrate")
    with common.errors_told():
        profile = load_profile(board)
        if not profile.virtual:
            raise BoardError("%s is a real board" % board, "plug it in; virtual are unix and cortex-m4")
        called = name or board
        if not called.replace("-", "").replace("_", "").isalnum():
            raise typer.BadParameter("letters, digits, - and _", param_hint="--name")
        place = flash or virtual.default_flash(called) / ("flash" if board == "unix" else "flash.img")

        def make() -> virtual.VirtualBoard:
            return virtual.VirtualBoard(
                profile,
                called,
                place,
                role=role,
                can=can,
                join=join,
                bitrate=bitrate,
                variant=variant,
                heap=heap,
                data_bitrate=data_bitrate,
            )

        virtual.run(make, _print_line if as_json else _show)
        if not as_json:
            typer.echo("stopped")


def _print_line(info: dict[str, Any]) -> None:
    common.print_json_line(info)


def list_boards(as_json: JsonOption = False) -> None:
    """Boards at serial ports, with their USB serial numbers, and virtual boards that run here."""
    with common.errors_told():
        ports = find.serial_ports()
        states = virtual.running()
        if as_json:
            common.print_json({"serial": [port.describe() for port in ports], "virtual": states})
            return
        out = common.console()
        for port in ports:
            kinds = ", ".join(profile.name for profile in find.kinds_of(port)) or "-"
            out.print(
                "%-24s %-9s serial %-20s %s  (%s)"
                % (port.device, port.usb_text, port.serial_number or "-", kinds, port.description),
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        for state in states:
            out.print(
                "%-24s virtual   %s, %s  %s" % (state["name"], state["board"], state["role"], state["console"]),
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        if not ports and not states:
            typer.echo("no board here: plug one in, or start a virtual one with `packtrust board start unix`")


def power_cycle(
    name: Annotated[str, typer.Argument(help="of a running virtual board")],
    as_json: JsonOption = False,
) -> None:
    """Pull a virtual board's power and give it again; its flash is kept."""
    with common.errors_told():
        info = virtual.control(name, "power_cycle")
        if as_json:
            common.print_json(info)
        else:
            typer.echo("%s has been off and is on again" % name)
