"""`packtrust bridge`: the embedded API-Bridge in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import platformdirs
import typer

from packtrust_host.bridge.models import DEFAULT_PORT

from . import common

if TYPE_CHECKING:
    from packtrust_host.bridge.service import HalfLength


def _database() -> Path:
    return Path(platformdirs.user_data_dir("packtrust", appauthor=False)) / "bridge.sqlite"


def bridge(
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="on 127.0.0.1; 0 takes a free one")
    ] = DEFAULT_PORT,
    database: Annotated[
        Path | None, typer.Option("--database", metavar="FILE", help="SQLite file; default: in this user's data folder")
    ] = None,
    halves: Annotated[
        str, typer.Option("--halves", help="bytes64 (128 hex digits) or hex64 (64, as today's bridge issues)")
    ] = "bytes64",
    as_json: Annotated[bool, typer.Option("--json", help="print where it listens as JSON, and nothing else")] = False,
) -> None:
    """Run an API-Bridge on this machine, with the real one's routes, until Ctrl-C."""
    if halves not in ("bytes64", "hex64"):
        raise typer.BadParameter("it is bytes64 or hex64", param_hint="--halves")
    from packtrust_host.bridge.server import serve  # SQLAlchemy and the web server: no other command waits for these

    path = database or _database()

    def ready(url: str) -> None:
        if as_json:
            common.print_json({"url": url, "database": str(path)})
        else:
            typer.echo("bridge at %s, database %s; Ctrl-C ends it" % (url, path))

    with common.errors_told():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            serve(path, port, cast("HalfLength", halves), on_ready=ready)
        except KeyboardInterrupt:
            pass  # this is how it is ended
