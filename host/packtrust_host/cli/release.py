"""`packtrust release`: give devices away, so that somebody else can claim them."""

from __future__ import annotations

from typing import Annotated

import typer

from packtrust_host.app.keystore import Device
from packtrust_host.app.provisioner import Provisioner, Survey
from packtrust_host.app.registration import CREATOR

from . import common, provision
from .common import StoreOption, UnlockOption


def _chosen(found: Survey, names: list[str], everything: bool) -> list[Device]:
    """The devices meant, modules before the pack: what is said to them goes through it."""
    there = [*found.modules, found.pack]
    if everything == bool(names):
        raise common.Failed("no device is named", "name devices by serial or unique id, or give --all")
    if everything:
        return [device for device in there if device.owned]
    by_name = {device.serial: device for device in there}
    by_name.update({"%08x" % device.unique_id: device for device in there})
    missing = [name for name in names if name not in by_name and name.lower() not in by_name]
    if missing:
        raise common.Failed(
            "no such device here: %s" % ", ".join(missing), "there are %s" % ", ".join(sorted(d.serial for d in there))
        )
    wanted = {(by_name.get(name) or by_name[name.lower()]).unique_id for name in names}
    chosen = [device for device in there if device.unique_id in wanted]
    strangers = [device.name for device in chosen if not device.owned]
    if strangers:
        raise common.Failed(
            "%s is not owned by this app" % ", ".join(strangers), "its owner releases it, or it is reset at its console"
        )
    return chosen


def release(
    devices: Annotated[
        list[str] | None, typer.Argument(metavar="[DEVICE]...", help="serials or unique ids (8 hex digits)")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="all devices of this pack, the pack itself last")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    can: provision.CanOption = None,
    bridge: provision.BridgeOption = None,
    store: StoreOption = None,
    unlock: UnlockOption = "ask",
    pack: Annotated[int | None, typer.Option("--pack", min=0, max=15, help="pack number, if there are several")] = None,
    as_json: provision.JsonOption = False,
) -> None:
    """Release devices: they wipe their keys and their owner, and make a new claim code.

    The code is shown on each device's console. Their LCTs are ended at the bridge.
    """
    with common.errors_told(), provision.session(can, bridge, store, unlock) as (runner, client):
        provisioner = Provisioner(runner.node)
        found = runner.run(provisioner.survey(pack), 60.0, "finding the pack")
        chosen = _chosen(found, devices or [], everything)
        names = [device.name for device in chosen]
        if chosen and not yes and not as_json:
            typer.confirm("Release %s? Their keys are wiped." % ", ".join(names), abort=True)
        ended = []
        for device in chosen:
            lcts = [
                record.lct_id
                for record in runner.node.store.relationships.values()
                if device.unique_id in (record.unique_id_a, record.unique_id_b)
            ]
            runner.run(provisioner.release(device), 30.0, "the release")
            if not as_json:
                typer.echo("released %s" % device.name)
            for lct_id in lcts:
                client.revoke_pairing(CREATOR, lct_id, "released by its owner")
            ended += lcts
    if as_json:
        common.print_json({"ok": True, "released": names, "lcts_ended": ended})
    else:
        typer.echo("%d LCTs ended at the bridge. Each device shows its new claim code on its console." % len(ended))
