"""Which board is meant: by device, by USB serial number, by what it is. Never a guess between two."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serial.tools import list_ports

from . import virtual
from .errors import BoardError
from .profile import Profile, board_names, load_profile


@dataclass(frozen=True)
class SerialPort:
    """A serial port of this machine, as pyserial sees it. `vid` and `pid` are None for one that is not USB."""

    device: str
    vid: int | None = None
    pid: int | None = None
    serial_number: str | None = None
    description: str = ""

    @property
    def usb_text(self) -> str:
        """VID:PID."""
        return "-" if self.vid is None or self.pid is None else "%04x:%04x" % (self.vid, self.pid)

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "device": self.device,
            "usb": None if self.vid is None else self.usb_text,
            "serial_number": self.serial_number,
            "description": self.description,
            "boards": [profile.name for profile in kinds_of(self)],
        }


@dataclass(frozen=True)
class Target:
    """Where a board's console is. `state` is a virtual board's, None for a real one."""

    profile: Profile
    device: str
    serial_number: str | None = None
    state: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """How messages call it."""
        if self.state is not None:
            return "%s (virtual, %s)" % (self.state["name"], self.device)
        return self.device + (" (USB serial %s)" % self.serial_number if self.serial_number else "")


def serial_ports() -> list[SerialPort]:
    """USB serial ports; those without a USB identity (on-board UARTs) are not boards anybody plugged in."""
    return [
        SerialPort(port.device, port.vid, port.pid, port.serial_number, port.description or "")
        for port in sorted(list_ports.comports(), key=lambda port: port.device)
        if port.vid is not None
    ]


def kinds_of(port: SerialPort) -> list[Profile]:
    """Kinds of boards with that USB identity; several share a USB bridge chip."""
    return [
        profile for profile in (load_profile(name) for name in board_names()) if (port.vid, port.pid) in profile.usb
    ]


def _listed(items: Iterable[str]) -> str:
    return "; ".join(items)


def find_target(
    profile: Profile,
    device: str | None = None,
    serial_number: str | None = None,
    *,
    name: str | None = None,
) -> Target:
    """The one board that is meant.

    device         a path, taken as it is
    serial_number  USB serial number, the whole or an unambiguous end or beginning of it
    name           a running virtual board's

    Without any of them, the only one of that kind. BoardError lists what there is, and how to choose.
    """
    if device is not None:
        if not os.path.exists(device) and "://" not in device:
            raise BoardError("there is no %s" % device, "see `packtrust board list` for what is plugged in")
        real = os.path.realpath(device)
        for state in virtual.running():
            if os.path.realpath(state["console"]) == real:
                return Target(profile, device, state=state)
        number = next((port.serial_number for port in serial_ports() if port.device in (device, real)), None)
        return Target(profile, device, number)
    if profile.virtual or name is not None:
        return _find_virtual(profile, name)
    found = serial_ports()
    if serial_number is not None:
        chosen = [port for port in found if port.serial_number == serial_number]
        chosen = chosen or [
            port
            for port in found
            if port.serial_number
            and (port.serial_number.startswith(serial_number) or port.serial_number.endswith(serial_number))
        ]
        what = "USB serial number %s" % serial_number
    else:
        chosen = [port for port in found if (port.vid, port.pid) in profile.usb]
        what = "the USB identity of %s" % profile.name
    if len(chosen) == 1:
        return Target(profile, chosen[0].device, chosen[0].serial_number)
    if not chosen:
        here = _listed("%s (%s, serial %s)" % (p.device, p.usb_text, p.serial_number or "none") for p in found)
        raise BoardError(
            "no board with %s is plugged in (there: %s)" % (what, here or "no USB serial port at all"),
            "plug it in, or name its port with --port DEVICE",
        )
    raise BoardError(
        "%d boards have %s: %s"
        % (
            len(chosen),
            what,
            _listed("%s (serial %s)" % (port.device, port.serial_number or "none") for port in chosen),
        ),
        "choose one with --serial USBSERIAL or --port DEVICE",
    )


# -- drives ------------------------------------------------------------------------------------------------------------


def mounted() -> list[Path]:
    """Folders file systems are mounted at that a user may have plugged in."""
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return sorted(Path("/Volumes").glob("*"))  # macOS
    # Blanks in names are written as octal escapes there.
    points = [line.split(" ")[1].encode().decode("unicode_escape") for line in lines if line.startswith("/dev/")]
    return [Path(point) for point in points]


def drives(marker: str) -> list[Path]:
    """Mounted drives with that file in their root."""
    found = []
    for point in mounted():
        try:
            if (point / marker).is_file():
                found.append(point)
        except OSError:  # unplugged a moment ago, or not ours to look into
            continue
    return found


def find_drive(profile: Profile, marker: str) -> Path:
    """The one drive with that file that is the board's. BoardError lists those there are."""
    every = drives(marker)
    fitting = [
        drive for drive in every if not profile.flash.board_ids or _board_id(drive / marker) in profile.flash.board_ids
    ]
    if len(fitting) == 1:
        return fitting[0]
    listed = _listed("%s (Board-ID %s)" % (drive, _board_id(drive / marker)) for drive in every)
    if not fitting:
        raise BoardError(
            "no drive of a %s is mounted (with %s: %s)" % (profile.name, marker, listed or "none"),
            profile.flash.hint or "plug it in and mount it, or name its folder with --drive DIR",
        )
    raise BoardError(
        "%d drives could be the %s: %s" % (len(fitting), profile.name, listed), "choose one with --drive DIR"
    )


def _board_id(path: Path) -> str:
    """ "Board-ID: X" of INFO_UF2.TXT, "Board ID:X" of boot_out.txt."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower().replace("-", " ") == "board id":
            return value.strip()
    return ""


def board_id(drive: Path, marker: str) -> str:
    """What a drive's marker file calls its board; empty if it does not."""
    return _board_id(drive / marker)


def _find_virtual(profile: Profile, name: str | None) -> Target:
    states = [state for state in virtual.running() if state["board"] == profile.name]
    if name is not None:
        states = [state for state in states if state["name"] == name]
    if len(states) == 1:
        return Target(profile, states[0]["console"], state=states[0])
    if not states:
        called = " called %s" % name if name else ""
        raise BoardError(
            "no virtual %s%s runs here" % (profile.name, called),
            "start it in another terminal with `packtrust board start %s`" % profile.name,
        )
    raise BoardError(
        "%d virtual boards are %s: %s"
        % (len(states), profile.name, _listed("%s at %s" % (state["name"], state["console"]) for state in states)),
        "choose one with --name NAME or --port DEVICE",
    )
