"""`packtrust flash`: MicroPython itself onto a board, by the way its chip has for that."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import find, firmware_file
from .errors import BoardError
from .profile import Profile

BAUD = 460800
WRITE_LIMIT_S = 900
ASK_LIMIT_S = 60
UF2_MARKER = "INFO_UF2.TXT"

Tell = Callable[[str, str], None]


@dataclass
class Flashed:
    """What was done, JSON-able by `describe`."""

    board: str
    method: str
    file: str
    size: int
    detail: str
    where: str
    unique_id: str = ""
    written: bool = False
    seconds: float = 0.0

    def describe(self) -> dict[str, Any]:
        """For --json."""
        return dict(vars(self))


@dataclass(frozen=True)
class Options:
    """What chooses the board, and how to talk to it.

    port, serial, drive  where it is
    unique_id            what the chip must say it is, hex; None: whatever it says
    no_reset             its boot loader runs already: somebody held the button
    erase                everything on it first, its files too
    """

    port: str | None = None
    serial: str | None = None
    drive: Path | None = None
    unique_id: str | None = None
    no_reset: bool = False
    erase: bool = False
    baud: int = BAUD
    dry_run: bool = False


def plain(number: str) -> str:
    """A unique ID as hex digits only, whatever separates them."""
    return re.sub(r"[^0-9a-f]", "", number.lower())


def flash(profile: Profile, path: Path, options: Options, tell: Tell = lambda step, detail: None) -> Flashed:
    """Check the file, find the board, write. BoardError says what went wrong and what to do."""
    began = time.monotonic()
    method = profile.flash
    if not method.method:
        raise BoardError(
            "%s has no firmware to write%s" % (profile.name, " (it is virtual)" if profile.virtual else ""),
            "use `packtrust deploy`, or give its board.toml a [flash] method",
        )
    data = path.read_bytes()
    known = firmware_file.check(data, method)
    tell("checked", "%s: %s, %d bytes" % (path.name, known.detail, known.size))
    result = Flashed(profile.name, method.method, str(path), known.size, known.detail, "")
    writers = {"esptool": _by_esptool, "dfu": _by_dfu, "uf2": _by_uf2}
    writers[method.method](profile, path, options, tell, result)
    result.seconds = round(time.monotonic() - began, 3)
    return result


def _run(command: Sequence[str], limit_s: float, what: str, next_step: str) -> str:
    try:
        done = subprocess.run(
            list(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BoardError("%s took longer than %d s" % (what, limit_s), next_step) from error
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        raise BoardError("%s failed: %s" % (what, " ".join(lines[-3:])[-400:] or "it said nothing"), next_step)
    return done.stdout


# -- Espressif ---------------------------------------------------------------------------------------------------------


def esptool_command(profile: Profile, port: str, options: Options, *words: str) -> list[str]:
    """esptool's command line."""
    reset = ["no-reset", "no-reset"] if options.no_reset else ["default-reset", "hard-reset"]
    return [
        *(sys.executable, "-m", "esptool", "--chip", profile.flash.chip, "--port", port),
        *("--baud", str(options.baud), "--before", reset[0], "--after", reset[1], *words),
    ]


def _by_esptool(profile: Profile, path: Path, options: Options, tell: Tell, result: Flashed) -> None:
    target = find.find_target(profile, options.port, options.serial)
    result.where = target.text
    hint = profile.flash.hint or "hold BOOT while pressing EN, then run it again with --no-reset"
    said = _run(
        esptool_command(profile, target.device, options, "read-mac"),
        ASK_LIMIT_S,
        "asking the chip at %s" % target.text,
        hint,
    )
    found = re.search(r"MAC:\s*([0-9a-fA-F:]{17})", said)
    if found is None:
        raise BoardError("the chip at %s does not say its MAC address" % target.text, hint)
    result.unique_id = plain(found.group(1))
    tell("board", "%s, %s with MAC %s" % (target.text, profile.flash.chip, found.group(1)))
    if options.unique_id is not None and plain(options.unique_id) != result.unique_id:
        raise BoardError(
            "the board at %s is %s, not %s" % (target.text, result.unique_id, plain(options.unique_id)),
            "choose the right one with --serial or --port",
        )
    if options.dry_run:
        tell("would write", "%s at 0x%x" % (path.name, profile.flash.offset))
        return
    words = ["write-flash", *(["--erase-all"] if options.erase else []), "0x%x" % profile.flash.offset, str(path)]
    tell("writing", "%d bytes at 0x%x" % (result.size, profile.flash.offset))
    said = _run(esptool_command(profile, target.device, options, *words), WRITE_LIMIT_S, "writing with esptool", hint)
    if "Hash of data verified" not in said:
        raise BoardError("esptool wrote, and did not verify: %s" % said.splitlines()[-1:], "run it again")
    result.written = True
    tell("verified", "the chip's MD5 of what was written is right")


# -- STM32 -------------------------------------------------------------------------------------------------------------

_DFU_LINE = re.compile(
    r'Found DFU: \[(?P<vid>[0-9a-f]{4}):(?P<pid>[0-9a-f]{4})\].*?alt=(?P<alt>\d+), name="(?P<name>[^"]*)", '
    r'serial="(?P<serial>[^"]*)"'
)


@dataclass(frozen=True)
class DfuDevice:
    """A device in its DFU boot loader."""

    usb: tuple[int, int]
    serial: str


def parse_dfu_list(text: str) -> list[DfuDevice]:
    """The devices in the output of `dfu-util -l`, each once however many memories it has."""
    found: dict[DfuDevice, None] = {}
    for line in text.splitlines():
        match = _DFU_LINE.search(line)
        if match:
            found[DfuDevice((int(match["vid"], 16), int(match["pid"], 16)), match["serial"])] = None
    return list(found)


def _by_dfu(profile: Profile, path: Path, options: Options, tell: Tell, result: Flashed) -> None:
    program = shutil.which("dfu-util")
    if program is None:
        raise BoardError("there is no dfu-util on this machine", "install it: apt install dfu-util")
    said = _run([program, "-l"], ASK_LIMIT_S, "dfu-util -l", "run it by hand to see why")
    devices = [item for item in parse_dfu_list(said) if profile.flash.usb in (None, item.usb)]
    wanted = options.serial or options.unique_id
    if wanted is not None:
        devices = [item for item in devices if plain(item.serial) == plain(wanted)]
    listed = ", ".join("%04x:%04x serial %s" % (*item.usb, item.serial) for item in devices)
    if not devices:
        raise BoardError(
            "no %s is in its DFU boot loader%s" % (profile.title, " with serial %s" % wanted if wanted else ""),
            profile.flash.hint
            or "connect BOOT0 to 3.3 V and reset it, or run `mpremote connect PORT bootloader`, then run this again",
        )
    if len(devices) > 1:
        raise BoardError(
            "%d boards are in their DFU boot loader: %s" % (len(devices), listed), "choose one with --serial SERIAL"
        )
    device = devices[0]
    result.where = listed
    result.unique_id = plain(device.serial)
    tell("board", listed)
    if options.dry_run:
        tell("would write", path.name)
        return
    # The addresses are in the DfuSe file; `leave` starts the new firmware.
    command = [program, "-d", "%04x:%04x" % device.usb, "-S", device.serial, "-a", "0", "-s", ":leave", "-D", str(path)]
    tell("writing", "%d bytes" % result.size)
    said = _run(command, WRITE_LIMIT_S, "writing with dfu-util", "reset the board into its boot loader, run it again")
    if "successfully" not in said:
        raise BoardError("dfu-util does not say that it succeeded", "run it again")
    result.written = True
    tell("written", "dfu-util has written and started it")


# -- UF2 ---------------------------------------------------------------------------------------------------------------


def _by_uf2(profile: Profile, path: Path, options: Options, tell: Tell, result: Flashed) -> None:
    drive = options.drive or find.find_drive(profile, UF2_MARKER)
    called = find.board_id(drive, UF2_MARKER)
    if not called:
        raise BoardError(
            "%s is no UF2 boot loader: it has no %s with a Board-ID" % (drive, UF2_MARKER),
            profile.flash.hint or "press reset twice and mount the drive that appears",
        )
    if profile.flash.board_ids and called not in profile.flash.board_ids:
        raise BoardError(
            "the drive %s is of a %s, and %s would be %s"
            % (drive, called, profile.name, " or ".join(profile.flash.board_ids)),
            "name the board that it is, or give the right --drive",
        )
    result.where = "%s (Board-ID %s)" % (drive, called)
    tell("board", result.where)
    if options.unique_id is not None or options.serial is not None:
        raise BoardError(
            "a UF2 drive does not tell the number of its chip",
            "leave only that board plugged in, or name its drive with --drive, and do without --serial and --unique-id",
        )
    if options.dry_run:
        tell("would copy", path.name)
        return
    target = drive / path.name
    tell("copying", "%d bytes" % result.size)
    with target.open("wb") as file:
        file.write(path.read_bytes())
        file.flush()
        os.fsync(file.fileno())
    result.written = True
    tell("written", "the board restarts by itself when it has it all")
