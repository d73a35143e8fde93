"""The command `packtrust`: one file a command group, each small enough to read."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from packtrust.policy import DEFAULT_PROFILE

from . import (
    audit,
    board,
    bridge,
    common,
    demo,
    deploy,
    flash,
    grant,
    keystore,
    monitor,
    pack,
    provision,
    release,
    rotate,
    tables,
    verify,
)

app = typer.Typer(
    name="packtrust",
    help="Encrypted, authenticated CAN between battery nodes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
claims = typer.Typer(help="The claim codes in this host's key store.", no_args_is_help=True)
claims.command("add")(provision.claim_add)
claims.command("list")(provision.claim_list)

keystores = typer.Typer(help="What protects this host's keys.", no_args_is_help=True)
keystores.command("info")(keystore.info)
keystores.command("passphrase")(keystore.passphrase)

boards = typer.Typer(help="Virtual boards, and which boards there are.", no_args_is_help=True)
boards.command("start")(board.start)
boards.command("list")(board.list_boards)
boards.command("power-cycle")(board.power_cycle)

audits = typer.Typer(help="The log of what was done with keys and what was refused.", no_args_is_help=True)
audits.command("show")(audit.show)
audits.command("verify")(audit.verify_command)
audits.command("export")(audit.export)
audits.command("collect")(audit.collect)
audits.command("restart")(audit.restart)

app.command("demo")(demo.demo)
app.command("pack")(pack.pack)
app.command("deploy")(deploy.deploy)
app.command("flash")(flash.flash)
app.command("bridge")(bridge.bridge)
app.command("provision")(provision.provision)
app.add_typer(claims, name="claim")
app.add_typer(boards, name="board")
app.add_typer(keystores, name="keystore")
app.add_typer(audits, name="audit")
app.command("monitor")(monitor.monitor)
app.command("grant")(grant.grant)
app.command("validate")(provision.validate)
app.command("release")(release.release)
app.command("rotate")(rotate.rotate)
app.command("verify")(verify.verify)
app.command("dbc")(tables.dbc)
app.command("messages")(tables.messages)


def _version(wanted: bool) -> None:
    if wanted:
        try:
            number = metadata.version("packtrust")
        except metadata.PackageNotFoundError:
            number = "(run from its sources, not installed)"
        typer.echo("packtrust %s" % number)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and exit")
    ] = False,
    policy: Annotated[
        str,
        typer.Option(
            "--policy",
            metavar="NAME",
            envvar="PACKTRUST_POLICY",
            callback=common.choose_policy,
            help="of the VCU bus, as in the pack's node.json: default, or legacy-vcu",
        ),
    ] = DEFAULT_PROFILE,
) -> None:
    """Encrypted, authenticated CAN between battery nodes."""


def main() -> None:
    """The command's entry point."""
    app()
