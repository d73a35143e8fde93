"""What the commands share: errors without tracebacks, consoles, and where a running virtual pack is."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import can
import click
import platformdirs
import typer
from rich.console import Console

from packtrust.errors import PacktrustError, PolicyError
from packtrust.policy import DEFAULT_PROFILE, Policy, profile
from packtrust_host.app.errors import AppError, KeyStoreLocked
from packtrust_host.app.keystore import KeyStore
from packtrust_host.app.unlock import HOWS, Unlock, parse_unlock
from packtrust_host.bridge.errors import BridgeError
from packtrust_host.hardening import no_core_dumps
from packtrust_host.image import ImageError
from packtrust_host.shrink import ShrinkError
from packtrust_host.sim.deploy import SetupError
from packtrust_host.sim.nodes import NodeError
from packtrust_host.sim.qemu import QemuError
from packtrust_host.sim.recording import RecordingError
from packtrust_host.urls import BusUrlError

OK = 0
FAILED = 1
USAGE = 2
LOCKED = 3  # the key store: no passphrase, or a wrong one
INTERRUPTED = 130

_PLAIN_WIDTH = 160

BOARD_HELP = (
    "kind of board of pack, module (one each, in turn, after commas), all, or a node: unix (else), cortex-m4, "
    "or cortex-m4/plain, without cryptolib; several times"
)

# What can go wrong without being a bug: it is told in a sentence, with the next step.
EXPECTED = (
    AppError,
    BridgeError,
    BusUrlError,
    ImageError,
    NodeError,
    PacktrustError,
    QemuError,
    RecordingError,
    SetupError,
    ShrinkError,
    can.CanError,
    OSError,
)


class Failed(AppError):
    """A command cannot do what it was asked."""


def console() -> Console:
    """Standard output; wide enough for the tables where it is no terminal."""
    if sys.stdout.isatty():
        return Console()
    return Console(width=_PLAIN_WIDTH)


def error_text(error: BaseException) -> str:
    """A sentence, whatever was raised."""
    if isinstance(error, OSError) and not isinstance(error, (AppError, can.CanError)) and error.strerror:
        return "%s%s" % (error.strerror, ": %s" % error.filename if error.filename else "")
    return str(error) or type(error).__name__


def say_error(text: str) -> None:
    """One error on standard error."""
    Console(stderr=True).print("error: " + text, markup=False, highlight=False, style="red", soft_wrap=True)


def print_json(document: Any) -> None:
    """The one document of --json."""
    typer.echo(json.dumps(document, indent=2))


@contextlib.contextmanager
def errors_told() -> Iterator[None]:
    """Expected errors become one line and exit code 1; SIGTERM ends a command as Ctrl-C does, in order."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    # Ctrl-C too: a shell that starts a command in the background has it ignored, and a kill -INT would go unheard.
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except KeyboardInterrupt:
        say_error("interrupted; everything that was started has been stopped")
        raise typer.Exit(INTERRUPTED) from None
    except click.ClickException:
        raise
    except KeyStoreLocked as error:
        say_error(error_text(error))
        raise typer.Exit(LOCKED) from error
    except EXPECTED as error:
        say_error(error_text(error))
        raise typer.Exit(FAILED) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def print_json_line(document: Any) -> None:
    """One JSON line, at once: for commands that go on after it."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


# -- the key store -----------------------------------------------------------------------------------------------------


# Of the VCU bus, for all commands: `packtrust --policy NAME ...`.
_policy = DEFAULT_PROFILE


def policy_name() -> str:
    """The policy this run was started with."""
    return _policy


def policy() -> Policy:
    """The same, as AppNode takes it."""
    return profile(_policy)


def choose_policy(name: str) -> str:
    """Take the option --policy. Raises BadParameter for a policy that is none."""
    global _policy
    try:
        profile(name)
    except PolicyError as error:
        raise typer.BadParameter(str(error), param_hint="--policy") from None
    _policy = name
    return name


StoreOption = Annotated[
    Path | None, typer.Option("--store", metavar="DIR", help="key store folder; default: this user's")
]


def checked_unlock(how: str) -> str:
    """Refuse a wrong --unlock before anything is done. What it says is not shown: it may be a passphrase."""
    try:
        parse_unlock(how)
    except ValueError:
        raise typer.BadParameter(
            "take one of %s; a passphrase itself is given at the terminal, in a file or by a descriptor" % HOWS
        ) from None
    return how


UnlockOption = Annotated[
    str,
    typer.Option(
        "--unlock",
        metavar="HOW",
        envvar="PACKTRUST_UNLOCK",
        callback=checked_unlock,
        help="how the key store opens: ask (for its passphrase), file:PATH, fd:NUMBER, keyring, none",
    ),
]


def open_store(directory: Path | None, unlock: Unlock | str) -> KeyStore:
    """The key store, in a process that leaves no core dump."""
    no_core_dumps()
    return KeyStore(directory, unlock=parse_unlock(unlock) if isinstance(unlock, str) else unlock)


# -- the running virtual pack ------------------------------------------------------------------------------------------


def state_path() -> Path:
    """Where a running `packtrust pack` says what it is: in the user's runtime folder."""
    return Path(platformdirs.user_runtime_dir("packtrust", appauthor=False)) / "pack.json"


class RunningPack:
    """The state file of a virtual pack, held by a lock for as long as it runs; a context manager."""

    def __init__(self) -> None:
        self._path = state_path()
        self._fd = -1

    def __enter__(self) -> RunningPack:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise Failed("a virtual pack runs already", "use that one, or stop it with Ctrl-C where it runs") from None
        return self

    def write(self, info: dict[str, Any]) -> None:
        """Tell what runs."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps(info).encode(), 0)

    def __exit__(self, *exc_info: object) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._fd)


def running_pack() -> dict[str, Any] | None:
    """What the running virtual pack says of itself; None if none runs."""
    try:
        fd = os.open(state_path(), os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 1 << 20, 0)
        try:
            info: dict[str, Any] = json.loads(text)
        except ValueError:
            return None  # it is just starting
        return info
    finally:
        os.close(fd)
    return None  # nobody holds it: left over by one that was killed


def find_can(url: str | None, bus: str = "vcu") -> str:
    """The bus to use: the one given, else the running virtual pack's."""
    if url is not None:
        return url
    info = running_pack()
    if info is None:
        raise Failed(
            "no CAN bus was given, and no virtual pack runs here",
            "give --can URL (e.g. --can slcan:/dev/ttyACM0), or start `packtrust pack` in another terminal",
        )
    Console(stderr=True).print(
        "using the virtual pack: %s" % info["can"][bus], style="dim", highlight=False, soft_wrap=True
    )
    found: str = info["can"][bus]
    return found


def find_bridge(url: str | None) -> str:
    """The bridge to use: the one given, else the embedded one on its usual port."""
    if url is not None:
        return url
    return os.environ.get("PACKTRUST_BRIDGE", "http://127.0.0.1:8080")
