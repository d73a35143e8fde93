"""`packtrust grant`: let an old VCU raise a pack, in clear and for a while (policy legacy-vcu)."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from packtrust.policy import LEGACY_VCU_PROFILE
from packtrust_host.app.command import OBEYED
from packtrust_host.app.model import STATE_NAMES
from packtrust_host.app.runner import Runner
from packtrust_host.audit.log import AuditLogs
from packtrust_host.audit.watch import Watch
from packtrust_host.urls import open_bus

from . import common
from .common import StoreOption, UnlockOption
from .provision import CanOption, JsonOption

_FIRST_S = 15.0
_ANSWER_S = 10.0
GRANT_MAX_S = 3600


def grant(
    seconds: Annotated[int, typer.Option("--for", min=0, max=GRANT_MAX_S, help="seconds; 0 ends a grant")] = 600,
    state: Annotated[str, typer.Option("--state", help="how far: Standby, Precharge or On")] = "On",
    can: CanOption = None,
    store: StoreOption = None,
    unlock: UnlockOption = "ask",
    as_json: JsonOption = False,
) -> None:
    """Let the pack's old VCU raise it in clear, no higher than --state and for so long.

    Anybody on the VCU bus could be that VCU meanwhile. It is noted in the audit log, or not done. The pack's node.json
    has "policy": "legacy-vcu", and so has this command: `packtrust --policy legacy-vcu grant`.
    """
    highest = {name.lower(): number for number, name in STATE_NAMES.items()}.get(state.lower())
    if highest is None:
        raise typer.BadParameter("Standby, Precharge or On", param_hint="--state")
    with common.errors_told(), contextlib.ExitStack() as stack:
        if common.policy_name() != LEGACY_VCU_PROFILE:
            raise common.Failed(
                "a pack with the default policy hears no old VCU",
                "say `packtrust --policy legacy-vcu grant`, for a pack whose node.json has that policy",
            )
        keys = common.open_store(store, unlock)
        stack.callback(keys.close)
        url = common.find_can(can)
        runner = stack.enter_context(Runner(lambda: open_bus(url), keys, policy=common.policy()))
        node = runner.node
        if not runner.wait(lambda: node.established, _FIRST_S):
            raise common.Failed(
                "the pack does not answer with the keys this host has",
                "check the bus, and whether its node.json has this policy",
            )
        watch = Watch(node, AuditLogs(keys))
        runner.call(lambda: setattr(node, "watch", watch))
        command = runner.call(lambda: node.grant(highest, seconds))
        runner.wait(lambda: command.done, _ANSWER_S)
        granted = command.state == OBEYED
        runner.call(lambda: watch.note("grant-answer", granted=granted, detail=command.reason))
        if as_json:
            common.print_json({"ok": granted, "state": state, "seconds": seconds, "reason": command.reason})
        elif granted:
            typer.echo("The old VCU may raise the pack to %s for %d s." % (state, seconds))
        else:
            raise common.Failed("the pack refused: %s" % command.reason, "its node.json names the policy")
    raise typer.Exit(common.OK if granted else common.FAILED)
