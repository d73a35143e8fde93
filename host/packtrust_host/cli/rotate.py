"""`packtrust rotate`: how far the epochs are used, and new keys for what is due, with the traffic running."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

import typer
from rich.table import Table

from packtrust_host.app.provisioner import Progress, Provisioner
from packtrust_host.app.rotator import Rotator, Usage
from packtrust_host.app.runner import Runner
from packtrust_host.urls import open_bus

from . import common
from .common import StoreOption, UnlockOption
from .provision import CanOption, JsonOption

_DAY_S = 86400


def rotate(
    can: CanOption = None,
    store: StoreOption = None,
    unlock: UnlockOption = "ask",
    pack: Annotated[int | None, typer.Option("--pack", min=0, max=15, help="pack number, if there are several")] = None,
    everything: Annotated[bool, typer.Option("--all", help="rotate every relationship now, due or not")] = False,
    lct: Annotated[
        list[str] | None, typer.Option("--lct", metavar="ID", help="rotate this one now, due or not; several times")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="only show how far each epoch is used")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="seconds for everything")] = 600.0,
    as_json: JsonOption = False,
) -> None:
    """Give new keys to every relationship whose epoch is 75 % used, by records or by age.

    The devices count and report; traffic goes on meanwhile. What pack and modules rotated themselves is learned first.
    Run it again after a failure: the old keys stay in force until the new ones are proved at both ends.
    """
    if show and (everything or lct):
        raise typer.BadParameter("--show rotates nothing: leave out --all and --lct")
    out = None if as_json else common.console()

    def tell(progress: Progress) -> None:
        if out is not None:
            out.print("%-11s %s  %s" % (progress.step, progress.who, progress.detail), markup=False, highlight=False)

    with common.errors_told(), contextlib.ExitStack() as stack:
        keys = common.open_store(store, unlock)
        stack.callback(keys.close)
        if not keys.relationships:
            raise common.Failed("this key store has no relationship", "run `packtrust provision` first")
        for lct_id in lct or ():
            if lct_id not in keys.relationships:
                raise common.Failed(
                    "there is no LCT %s in this key store" % lct_id, "`packtrust rotate --show` lists them"
                )
        url = common.find_can(can)
        runner = stack.enter_context(Runner(lambda: open_bus(url), keys, policy=common.policy()))
        provisioner = Provisioner(runner.node, on_progress=tell)
        rotator = Rotator(provisioner)
        runner.run(provisioner.find_pack(pack), 30.0, "finding the pack")
        usages = runner.run(rotator.survey(), 30.0, "the report")
        wanted: list[str] = []
        if lct:
            wanted = list(dict.fromkeys(lct))
        elif everything:
            wanted = list(usages)
        elif not show:
            wanted = rotator.due()
        count = runner.run(rotator.rotate(wanted), timeout, "the rotation")
        if count:
            usages = runner.run(rotator.survey(), 30.0, "the report")
        _say(usages, wanted[:count], out)


def _say(usages: dict[str, Usage], rotated: list[str], out: Any) -> None:
    if out is None:
        documents = {usage.lct_id: _document(usage) for usage in usages.values()}
        common.print_json({"ok": True, "rotated": rotated, "lcts": documents})
        return
    table = Table()
    for name in ("LCT", "kind", "epoch", "records", "of", "days", "of", "used", "made by"):
        table.add_column(name, justify="left" if name in ("LCT", "kind", "made by") else "right")
    for usage in usages.values():
        table.add_row(
            usage.lct_id,
            usage.kind,
            str(usage.epoch),
            str(usage.records),
            str(usage.max_records),
            "%.1f" % (usage.age_s / _DAY_S),
            "%.1f" % (usage.max_age_s / _DAY_S),
            "%.0f %%" % usage.percent,
            "pack and module" if usage.made_here else "app",
            style="red" if usage.used_up else "yellow" if usage.due else None,
        )
    out.print(table)
    out.print("%d rotated." % len(rotated))


def _document(usage: Usage) -> dict[str, Any]:
    return {
        "kind": usage.kind,
        "node": usage.node,
        "epoch": usage.epoch,
        "records": usage.records,
        "max_records": usage.max_records,
        "age_s": usage.age_s,
        "max_age_s": usage.max_age_s,
        "due": usage.due,
        "used_up": usage.used_up,
        "made_by": "devices" if usage.made_here else "app",
    }
