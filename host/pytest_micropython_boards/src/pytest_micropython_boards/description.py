"""Boards as a TOML file describes them.

default = ["virtual"]                # used when no --board is given

[board.virtual]
start = ["{python}", "start_board.py", "--flash", "{state}/flash"]   # prints one JSON line, runs until it is ended
arch = "unix"

[board.feather]
console = "/dev/ttyACM0"
can = "slcan:/dev/ttyACM1?bitrate=500000"
power_cycle = { uhubctl = { location = "1-1", port = 2 } }
arch = "armv7emsp"
"""

from __future__ import annotations

import shlex
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import BoardError

BAUDRATE = 115_200
START_TIMEOUT_S = 60.0
SERIAL = "serial:"
_KEYS = frozenset(
    ("arch", "baudrate", "boot_timeout", "can", "console", "keep_state", "power_cycle", "start", "start_timeout")
)


@dataclass
class Description:
    """One board. Exactly one of `console` and `start` is set.

    name           what --board calls it
    console        its serial port
    start          command that runs a virtual board: prints one line of JSON with `console` and, if it has CAN, `can`
    can            python-can URL of its bus, or one for each of its buses by name
    power_cycle    {"command": [...]} or {"uhubctl": {"location": .., "port": ..}}; what `start` has started is killed
                   and started again
    arch           e.g. "unix", "armv7emsp", "xtensawin": for tests that are for some boards only
    boot_timeout   seconds from power-up to its console's answer
    keep_state     no soft reset before each test
    folder         of the TOML file: where commands run
    """

    name: str
    console: str = ""
    baudrate: int = BAUDRATE
    start: list[str] = field(default_factory=list)
    start_timeout: float = START_TIMEOUT_S
    can: dict[str, str] = field(default_factory=dict)
    power_cycle: dict[str, Any] = field(default_factory=dict)
    arch: str = ""
    boot_timeout: float = 10.0
    keep_state: bool = False
    folder: Path = field(default_factory=Path.cwd)

    @property
    def can_be_power_cycled(self) -> bool:
        """Whether its power can be cut."""
        return bool(self.start or self.power_cycle)


def _command(value: object, what: str) -> list[str]:
    if isinstance(value, str):
        return shlex.split(value)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return list(value)
    raise BoardError("%s is a command: a text or a list of texts, not %r" % (what, value))


def can_urls(value: object, what: str) -> dict[str, str]:
    """CAN URLs by bus name; one text stands for the only bus, named "can"."""
    if isinstance(value, str):
        return {"can": value}
    if isinstance(value, Mapping) and all(isinstance(item, str) for item in value.values()):
        return dict(value)
    raise BoardError("%s is a python-can URL or a table of them, not %r" % (what, value))


def _power_cycle(value: object, what: str) -> dict[str, Any]:
    if isinstance(value, dict) and set(value) == {"command"}:
        return {"command": _command(value["command"], what + ".command")}
    if isinstance(value, dict) and set(value) == {"uhubctl"}:
        hub = value["uhubctl"]
        if isinstance(hub, dict) and set(hub) == {"location", "port"}:
            return {"uhubctl": {key: str(item) for key, item in hub.items()}}
    raise BoardError(
        '%s is { command = [...] } or { uhubctl = { location = "1-1", port = 2 } }, not %r' % (what, value)
    )


def describe(name: str, table: Mapping[str, Any], folder: Path) -> Description:
    """A board from its TOML table. Raises BoardError."""
    what = "board.%s" % name
    unknown = sorted(set(table) - _KEYS)
    if unknown:
        raise BoardError("%s has %s: known are %s" % (what, ", ".join(unknown), ", ".join(sorted(_KEYS))))
    if ("console" in table) == ("start" in table):
        raise BoardError("%s needs either console (a serial port) or start (a command)" % what)
    known = Description(name, folder=folder)
    for key in ("console", "baudrate", "arch", "boot_timeout", "start_timeout", "keep_state"):
        if key in table:
            wanted: Any = type(getattr(known, key))
            value = table[key]
            if wanted is float and isinstance(value, int):
                value = float(value)
            if type(value) is not wanted:
                raise BoardError("%s.%s is a %s, not %r" % (what, key, wanted.__name__, value))
            setattr(known, key, value)
    if "start" in table:
        known.start = _command(table["start"], what + ".start")
    if "can" in table:
        known.can = can_urls(table["can"], what + ".can")
    if "power_cycle" in table:
        known.power_cycle = _power_cycle(table["power_cycle"], what + ".power_cycle")
    return known


def load(path: Path) -> tuple[dict[str, Description], list[str]]:
    """The boards of a file by name, and the names to use by default. Raises BoardError."""
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise BoardError("%s cannot be read: %s" % (path, error)) from error
    tables = document.get("board", {})
    try:
        boards = {name: describe(name, table, path.resolve().parent) for name, table in tables.items()}
        default = document.get("default", [])
        if isinstance(default, str):
            default = [default]
        for name in default:
            if name not in boards:
                raise BoardError("default names %r, which is none of %s" % (name, ", ".join(boards) or "no boards"))
    except BoardError as error:
        raise BoardError("%s: %s" % (path, error)) from error
    return boards, list(default)


def from_option(text: str, boards: Mapping[str, Description]) -> Description:
    """The board --board asks for: a name of the file, or serial:PORT, serial:PORT@BAUDRATE. Raises BoardError."""
    if text.startswith(SERIAL):
        port, _, baudrate = text[len(SERIAL) :].partition("@")
        if not port or (baudrate and not baudrate.isdigit()):
            raise BoardError("%r names no serial port: write serial:/dev/ttyACM0 or serial:COM3@115200" % text)
        return Description(text, console=port, baudrate=int(baudrate or BAUDRATE))
    if text not in boards:
        raise BoardError(
            "there is no board %r: known are %s, and any serial port as serial:PORT"
            % (text, ", ".join(boards) or "none")
        )
    return boards[text]


def fill(command: list[str], values: Mapping[str, str]) -> list[str]:
    """A command with its {python}, {root}, {state}, {name} and {session} put in."""
    filled = []
    for item in command:
        for key, value in values.items():
            item = item.replace("{%s}" % key, value)
        filled.append(item)
    return filled


def builtin_values(description: Description, state: Path, session: str) -> dict[str, str]:
    """What commands may refer to."""
    return {
        "python": sys.executable,
        "root": str(description.folder),
        "state": str(state),
        "name": description.name,
        "session": session,
    }
