"""`packtrust keystore`: what protects this host's keys, and another passphrase for them."""

from __future__ import annotations

from typing import Annotated

import typer

from packtrust_host.app import vault
from packtrust_host.app.unlock import parse_unlock

from . import common
from .common import StoreOption, UnlockOption

_NAMES = {vault.KEY_FILE: "none", vault.PASSPHRASE: "passphrase", vault.KEYRING: "keyring"}
_TEXTS = {
    vault.KEY_FILE: "no passphrase: its key lies beside it",
    vault.PASSPHRASE: "a passphrase",
    vault.KEYRING: "the OS keyring",
}

JsonOption = Annotated[bool, typer.Option("--json", help="print the result as JSON, and nothing else")]


def info(store: StoreOption = None, unlock: UnlockOption = "ask", as_json: JsonOption = False) -> None:
    """Show where the key store is, what protects it, and how much it holds. No keys."""
    with common.errors_told():
        keys = common.open_store(store, unlock)
        shown: dict[str, object] = {
            "directory": str(keys.directory),
            "protection": [_NAMES[kind] for kind in keys.protection],
            "host_id": keys.host_id,
            "devices": len(keys.devices),
            "relationships": len(keys.relationships),
            "claim_codes": len(keys.claimable),
        }
        texts = " or ".join(_TEXTS[kind] for kind in keys.protection)
        keys.close()
    if as_json:
        common.print_json(shown)
        return
    typer.echo("key store %s" % shown["directory"])
    typer.echo("protected by %s" % texts)
    typer.echo(
        "Host ID %s, %s devices, %s relationships, %s claim codes"
        % (shown["host_id"], shown["devices"], shown["relationships"], shown["claim_codes"])
    )


def passphrase(
    store: StoreOption = None,
    unlock: UnlockOption = "ask",
    new: Annotated[
        str,
        typer.Option(
            "--new",
            metavar="HOW",
            callback=common.checked_unlock,
            help="what protects it then: ask (for a new passphrase), file:PATH, fd:NUMBER, keyring, none",
        ),
    ] = "ask",
    as_json: JsonOption = False,
) -> None:
    """Give the key store another passphrase, or another protection. The keys in it stay as they are.

    It is sealed anew under a new key, and the old file is overwritten. Copies made before open with the old passphrase.
    """
    with common.errors_told():
        keys = common.open_store(store, unlock)
        keys.protect(parse_unlock(new))
        kinds = keys.protection
        keys.close()
    if as_json:
        common.print_json({"directory": str(keys.directory), "protection": [_NAMES[kind] for kind in kinds]})
    else:
        typer.echo("the key store %s is now protected by %s" % (keys.directory, _TEXTS[kinds[0]]))
