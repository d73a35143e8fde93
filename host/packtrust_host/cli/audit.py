"""`packtrust audit`: what was done with keys, what was refused, and whether the log of it is what was signed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from packtrust import audit as words
from packtrust_host.app.keystore import KeyStore
from packtrust_host.app.provisioner import Provisioner
from packtrust_host.app.runner import Runner
from packtrust_host.audit.collect import Collected, Collector
from packtrust_host.audit.log import AuditLogs, name_of
from packtrust_host.audit.note import NoteError, Verifier, split_notes
from packtrust_host.audit.verify import Verdict, verify
from packtrust_host.urls import open_bus

from . import common
from .common import StoreOption, UnlockOption
from .provision import CanOption, JsonOption

LogArgument = Annotated[
    str | None, typer.Argument(metavar="[LOG]", help="name of the log, e.g. pack-50000001; default: all")
]
_COLLECT_S = 120.0


def _names(logs: AuditLogs, name: str | None) -> list[str]:
    there = logs.names()
    if not there:
        raise common.Failed("this key store has no audit log", "run `packtrust provision` first")
    if name is None:
        return there
    if name not in there:
        raise common.Failed("there is no audit log %s" % name, "choose one of " + ", ".join(there))
    return [name]


def shown(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry for people: of a node's, what its bytes say."""
    if entry.get("what") != "node":
        return entry
    parsed = words.parse_entry(bytes.fromhex(entry["entry"]))
    if parsed is None:
        return entry
    return {
        "n": entry["n"],
        "at": entry["at"],
        "what": "node",
        "device": entry["device"],
        "number": parsed.number,
        "boot": parsed.boot_counter,
        "uptime_s": parsed.uptime_s,
        "kind": parsed.kind,
        **parsed.values,
    }


def _text(entry: dict[str, Any]) -> str:
    rest = {key: value for key, value in shown(entry).items() if key not in ("n", "at", "what")}
    details = "  ".join(
        "%s %s" % (key, json.dumps(value) if isinstance(value, (dict, list)) else value)
        for key, value in rest.items()
        if value not in ("", None)
    )
    return "%5d  %s  %-10s  %s" % (entry["n"], entry["at"], entry["what"], details)


def show(
    log: LogArgument = None,
    store: StoreOption = None,
    unlock: UnlockOption = "ask",
    last: Annotated[int | None, typer.Option("--last", min=1, help="only so many of the newest entries")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the log: what this host did, and what it collected from the nodes. It is not verified here."""
    with common.errors_told():
        keys = common.open_store(store, unlock)
        logs = AuditLogs(keys)
        found = {name: logs.entries(name) for name in _names(logs, log)}
        keys.close()
    if last is not None:
        found = {name: entries[-last:] for name, entries in found.items()}
    if as_json:
        common.print_json({name: [shown(entry) for entry in entries] for name, entries in found.items()})
        return
    for name, entries in found.items():
        typer.echo("%s: %d entries" % (name, len(entries)))
        for entry in entries:
            typer.echo(_text(entry))


def _kept(paths: list[Path] | None) -> list[str]:
    return [note for path in paths or [] for note in split_notes(path.read_text(encoding="utf-8"))]


def verify_command(
    log: LogArgument = None,
    store: StoreOption = None,
    unlock: UnlockOption = "ask",
    bundle: Annotated[
        Path | None, typer.Option("--bundle", metavar="DIR", help="a folder made by `audit export`; needs no key store")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="verifier key you trust (name+id+key); with --bundle")
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", metavar="FILE", help="a checkpoint kept elsewhere; several times"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check that a log is what was signed, entry by entry. Works without bus, bridge and network.

    Exit code 1 names the entry where it was cut off, edited, forked or reordered.
    """
    with common.errors_told():
        kept = _kept(checkpoint)
        if bundle is not None:
            verdicts = _verify_bundle(bundle, key, kept)
        else:
            keys = common.open_store(store, unlock)
            logs = AuditLogs(keys)
            names = _names(logs, log)
            if kept and len(names) > 1:
                raise common.Failed("a checkpoint belongs to one log", "name the log")
            verdicts = {name: logs.verify(name, kept) for name in names}
            keys.close()
    ok = all(verdict.ok for verdict in verdicts.values())
    if as_json:
        common.print_json({"ok": ok, "logs": {name: _document(verdict) for name, verdict in verdicts.items()}})
    else:
        out = common.console()
        for name, verdict in verdicts.items():
            nodes = "".join(", %d of node %s" % (count, node) for node, count in sorted(verdict.nodes.items()))
            out.print(
                "%s: %d entries%s, %d checkpoints" % (name, verdict.entries, nodes, verdict.checkpoints),
                highlight=False,
            )
            for item in verdict.findings:
                out.print("  %s: %s" % (item.kind, item.text), style="red", markup=False, highlight=False)
        out.print("[green]Everything is as it was signed.[/]" if ok else "[red]The log is not what was signed.[/]")
    raise typer.Exit(common.OK if ok else common.FAILED)


def _verify_bundle(bundle: Path, key: str | None, kept: list[str]) -> dict[str, Verdict]:
    """Of a folder: its log, its checkpoints, and a verifier key, which should come from elsewhere."""
    try:
        verifier = Verifier.parse(key if key is not None else (bundle / "verifier").read_text(encoding="utf-8"))
    except NoteError as error:
        raise common.Failed(str(error), "give the line that `packtrust audit export` printed") from None
    log = (bundle / "log").read_bytes()
    notes = (bundle / "checkpoints").read_text(encoding="utf-8", errors="replace")
    return {verifier.name: verify(log, notes, verifier, kept=kept)}


def _document(verdict: Verdict) -> dict[str, Any]:
    return {
        "ok": verdict.ok,
        "entries": verdict.entries,
        "checkpoints": verdict.checkpoints,
        "nodes": verdict.nodes,
        "findings": [{"kind": item.kind, "entry": item.entry, "text": item.text} for item in verdict.findings],
    }


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="made here; must not exist")],
    log: LogArgument = None,
    store: StoreOption = None,
    unlock: UnlockOption = "ask",
    as_json: JsonOption = False,
) -> None:
    """Copy a log for somebody else to verify: no secret is in it.

    Keep the newest checkpoint and the verifier key apart from it too.
    """
    with common.errors_told():
        keys = common.open_store(store, unlock)
        logs = AuditLogs(keys)
        names = _names(logs, log)
        if len(names) > 1:
            raise common.Failed("there are several logs", "name one of " + ", ".join(names))
        verdict = logs.verify(names[0])
        if not verdict.ok:
            raise common.Failed("the log does not verify", "see `packtrust audit verify %s`" % names[0])
        content, notes = logs.read(names[0])
        verifier = logs.verifier(names[0])
        keys.close()
        folder.mkdir(parents=True)
        (folder / "log").write_bytes(content)
        (folder / "checkpoints").write_text(notes, encoding="utf-8")
        (folder / "verifier").write_text("%s\n" % verifier, encoding="utf-8")
        (folder / "checkpoint").write_text(split_notes(notes)[-1], encoding="utf-8")
    if as_json:
        common.print_json(
            {"log": names[0], "entries": verdict.entries, "folder": str(folder), "verifier": str(verifier)}
        )
        return
    typer.echo("%d entries of %s in %s" % (verdict.entries, names[0], folder))
    typer.echo("verifier key: %s" % verifier)


def collect(
    can: CanOption = None,
    store: StoreOption = None,
    unlock: UnlockOption = "ask",
    pack: Annotated[int | None, typer.Option("--pack", min=0, max=15, help="pack number, if there are several")] = None,
    clear_signs: Annotated[
        bool, typer.Option("--clear-signs", help="then clear the signs of tampering that are latched")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch what the nodes have written into their logs, verify it, and note it here.

    Exit code 1 if a node's log is not true, or if signs of tampering are latched and not cleared.
    """
    with common.errors_told():
        keys = common.open_store(store, unlock)
        url = common.find_can(can)
        with Runner(lambda: open_bus(url), keys) as runner:
            found = _collect(runner, keys, pack, clear_signs)
        keys.close()
    signs = sorted({sign for item in found for sign in item.signs})
    ok = not signs or clear_signs
    if as_json:
        devices = [
            {
                "device": "%08x" % item.device.unique_id,
                "serial": item.device.serial,
                "new": len(item.entries),
                "lost": item.lost,
                "signs": item.signs,
                "score": item.score,
                "entries": [{"number": entry.number, "kind": entry.kind, **entry.values} for entry in item.entries],
            }
            for item in found
        ]
        common.print_json({"ok": ok, "signs_cleared": clear_signs, "devices": devices})
    else:
        for item in found:
            lost = ", %d were overwritten before" % item.lost if item.lost else ""
            typer.echo(
                "%s: %d new entries%s, interference %d of 100" % (item.device.name, len(item.entries), lost, item.score)
            )
            for sign in item.signs:
                typer.echo("  sign of tampering: %s%s" % (sign, " (cleared)" if clear_signs else ""))
    raise typer.Exit(common.OK if ok else common.FAILED)


def _collect(runner: Runner, keys: KeyStore, pack: int | None, clear_signs: bool) -> list[Collected]:
    provisioner = Provisioner(runner.node)
    runner.run(provisioner.find_pack(pack), 30.0, "finding the pack")
    record = keys.app_pack(node=runner.node.node)
    if record is None:
        raise common.Failed("this key store has no keys for that pack", "run `packtrust provision` first")
    logs = AuditLogs(keys)
    name = name_of(record.unique_id_b)
    collector = Collector(provisioner, logs)
    found: list[Collected] = runner.run(
        collector.collect_all(keys.devices[record.unique_id_b]), _COLLECT_S, "collecting the audit logs"
    )
    if clear_signs:
        for item in found:
            if item.signs:
                runner.run(collector.clear_signs(item.device, item.following), 30.0, "clearing the signs")
                device = "%08x" % item.device.unique_id
                logs.append(name, [{"what": "signs-cleared", "device": device, "signs": item.signs}])
    return found


def restart(
    log: Annotated[str, typer.Argument(metavar="LOG", help="name of the log")],
    reason: Annotated[str, typer.Option("--reason", help="why, for the log")],
    store: StoreOption = None,
    unlock: UnlockOption = "ask",
    as_json: JsonOption = False,
) -> None:
    """Put a log that does not verify aside, and begin another one that says so. Nothing is deleted."""
    with common.errors_told():
        keys = common.open_store(store, unlock)
        logs = AuditLogs(keys)
        name = _names(logs, log)[0]
        aside = logs.restart(name, reason)
        keys.close()
    if as_json:
        common.print_json({"log": name, "aside": str(aside)})
    else:
        typer.echo("the old log is kept as %s" % aside)
