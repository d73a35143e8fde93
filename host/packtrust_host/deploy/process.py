"""`packtrust deploy`: from the checkout onto one board, copying only what is different there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import can

from packtrust.arbitration import NODE_APP, NODE_PACK, base_of, compose
from packtrust.messages.bases import (
    ANNOUNCE_REQUEST,
    ANNOUNCEMENT,
    APP_ANNOUNCE_REQUEST,
    PACK_ANNOUNCEMENT,
)
from packtrust.messages.codec import decode, encode
from packtrust_host.app.keystore import KeyStore
from packtrust_host.urls import open_bus

from . import find
from .bundle import CIRCUITPYTHON_MAIN, OWN_FILES, OWN_FOLDERS, OWN_PREFIX, Bundle, extra_files, make_bundle
from .device import Device, NodeConsole, Probe, sha256
from .errors import BoardError
from .find import Target
from .profile import Profile

CONFIG = "node.json"
ANNOUNCE_S = 15.0
ASK_EVERY_S = 1.0

Tell = Callable[[str, str], None]


@dataclass
class Plan:
    """What is different on the board. Paths there; `copy` with what is to be in them."""

    copy: dict[str, bytes] = field(default_factory=dict)
    remove: list[str] = field(default_factory=list)
    same: int = 0
    rom: bool = False

    @property
    def empty(self) -> bool:
        """Whether the board has it all."""
        return not self.copy and not self.remove and not self.rom


@dataclass
class Result:
    """What was done, JSON-able by `describe`; no claim code in it."""

    board: str
    target: str
    interpreter: str = ""
    copied: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unchanged: int = 0
    rom_written: bool = False
    rom_bytes: int = 0
    bytes_copied: int = 0
    dry_run: bool = False
    node: dict[str, Any] = field(default_factory=dict)
    claim: str = "unknown"
    announced: bool | None = None
    seconds: float = 0.0

    def describe(self) -> dict[str, Any]:
        """For --json."""
        return dict(vars(self))


def make_plan(bundle: Bundle, there: dict[str, str], rom_there: str = "") -> Plan:
    """What to do so that a board whose files hash to `there` has the bundle."""
    plan = Plan()
    for path, data in bundle.files.items():
        if there.get(path) == sha256(data):
            plan.same += 1
        else:
            plan.copy[path] = data
    plan.remove = sorted(path for path in there if path not in bundle.files)
    plan.rom = bool(bundle.rom) and rom_there != sha256(bundle.rom)
    return plan


def folders_of(paths: list[str]) -> list[str]:
    """Every folder these files are in, parents first."""
    found: set[str] = set()
    for path in paths:
        parts = path.split("/")[:-1]
        found |= {"/".join(parts[: count + 1]) for count in range(len(parts))}
    return sorted(found)


def node_number(unique_id: bytes) -> int:
    """The node's 32-bit unique ID from the chip's longer one (MicroPython's `machine.unique_id()`)."""
    digest = hashlib.sha256(b"packtrust v1 unique id\0" + unique_id).digest()
    return (int.from_bytes(digest[:4], "big") & 0x7FFFFFFF) | 0x00100000


def node_config(
    old: dict[str, Any] | None, unique_id: bytes, role: str | None, options: dict[str, Any]
) -> dict[str, Any]:
    """node.json: the one that is there with what was asked for changed, else a new one.

    BoardError if the chip has no number to make one from.
    """
    config = dict(old or {})
    if not config:
        if not unique_id and "unique_id" not in options:
            raise BoardError(
                "this board's interpreter has no machine.unique_id()",
                'give its number in a file for --config: {"unique_id": 12345678}',
            )
        kind = role or options.get("role") or "module"
        number = options.get("unique_id") or node_number(unique_id)
        config = {
            "role": kind,
            "unique_id": number,
            "serial": "MODBATT-%s-%08X" % ("PACK" if kind == "pack" else "MOD", number),
            "profile": "gateway" if kind == "pack" else "operational",
            "pack": 0,
            "bitrate": 500_000,
        }
        if kind == "pack":
            config["topology"] = "parallel"
    config.update(options)
    if role is not None and role != config.get("role"):
        if old:
            raise BoardError(
                "this board is a %s already (node.json), not a %s" % (config.get("role"), role),
                "leave --role away, or remove its node.json and state with `mpremote rm` first: it gets a new identity",
            )
        config["role"] = role
    return config


def check_interpreter(profile: Profile, probe: Probe, target: Target) -> None:
    """BoardError if what answers cannot be the board that was named."""
    if probe.name != "micropython":
        raise BoardError(
            "%s runs %s" % (target.text, probe.name), "deploy the board that says so in its board.toml, to its drive"
        )
    if profile.machines and not probe.machine.startswith(profile.machines):
        raise BoardError(
            "%s is a %r, and %s would be one of: %s"
            % (target.text, probe.machine, profile.name, ", ".join(profile.machines)),
            "name the board that it is",
        )
    if profile.arch and probe.arch and probe.arch != profile.arch and not _compatible(probe.arch, profile.arch):
        raise BoardError(
            "%s loads native code for %s, and %s has %s" % (target.text, probe.arch, profile.name, profile.arch),
            "name the board that it is, or correct `arch` in its board.toml",
        )


def _compatible(there: str, wanted: str) -> bool:
    """Cores of one family load what was made for a smaller one of it."""
    order = ("armv6m", "armv7m", "armv7em", "armv7emsp", "armv7emdp")
    return there in order and wanted in order and order.index(wanted) <= order.index(there)


def deploy(
    target: Target,
    *,
    role: str | None = None,
    config: dict[str, Any] | None = None,
    can_url: str | None = None,
    store: KeyStore | None = None,
    dry_run: bool = False,
    tell: Tell = lambda step, detail: None,
) -> Result:
    """Fill a MicroPython board.

    role, config  of its node.json; None: what it has, or a module
    can_url       where to wait for its announcement
    store         gets its claim code; None: it is not read
    tell          gets each step and a detail

    Every step can be done again: after a failure, run it again. BoardError says what went wrong.
    """
    began = time.monotonic()
    profile = target.profile
    result = Result(profile.name, target.text, dry_run=dry_run)
    with Device(target.device) as device:
        try:
            _fill(device, target, result, role, config or {}, tell)
        except BaseException:
            # What ran there was stopped: whatever went wrong, it is not left so.
            with contextlib.suppress(BoardError):
                device.reset()
            raise
        device.reset()
    if dry_run:
        result.seconds = round(time.monotonic() - began, 3)
        return result
    tell("reset", "waiting for the node")
    with NodeConsole(_finder(target)) as console:
        node = console.wait_started()
        result.node = node
        tell("started", "%s %s, unique id %08x" % (node.get("role"), node.get("serial"), node["unique_id"]))
        if store is not None:
            code = console.ask("claim")
            if code == "none":
                result.claim = "claimed"
                tell("claim", "it has an owner already")
            else:
                store.add_claim(code, unique_id=node["unique_id"])
                result.claim = "stored"
                tell("claim", "its code is in the key store")
    if can_url is not None:
        wait_announced(can_url, node)
        result.announced = True
        tell("announced", "on %s" % can_url)
    result.seconds = round(time.monotonic() - began, 3)
    return result


def _fill(device: Device, target: Target, result: Result, role: str | None, config: dict[str, Any], tell: Tell) -> None:
    """Bring what differs onto a board that is in raw mode; with `result.dry_run` only tell."""
    profile = target.profile
    probe = device.probe()
    result.interpreter = probe.text
    tell("board", "%s: %s" % (target.text, probe.text))
    check_interpreter(profile, probe, target)
    old = _read_config(device)
    wanted = node_config(old, probe.unique_id or _known_number(target), role or _role(target, old), config)
    bundle = make_bundle(profile, wanted["role"])
    tell("compiled", "%d files, %d bytes for %s" % (_count(bundle), bundle.size, profile.arch or "any core"))
    there = device.hashes(*bundle.files)
    rom = device.rom_hash(len(bundle.rom)) if bundle.rom else ""
    plan = make_plan(bundle, there, rom)
    if wanted != old:
        plan.copy[CONFIG] = json.dumps(wanted).encode()
    result.copied = list(plan.copy)
    result.removed = plan.remove
    result.unchanged = plan.same
    result.rom_written = plan.rom
    result.rom_bytes = len(bundle.rom)
    result.bytes_copied = sum(len(data) for data in plan.copy.values()) + (len(bundle.rom) if plan.rom else 0)
    if plan.empty:
        tell("unchanged", "%d files are there already, nothing is copied" % _count(bundle))
    elif result.dry_run:
        _tell_plan(plan, bundle, tell)
    else:
        _carry_out(device, plan, bundle, tell)


def _count(bundle: Bundle) -> int:
    return len(bundle.files) + len(bundle.rom_files)


def _role(target: Target, old: dict[str, Any] | None) -> str | None:
    """A virtual board was started as something; that counts for its first node.json."""
    if old or target.state is None:
        return None
    role: str = target.state["role"]
    return role


def _known_number(target: Target) -> bytes:
    return b"" if target.state is None else bytes.fromhex(target.state["unique_id"])


def _finder(target: Target) -> Callable[[], str | None]:
    """The device of the board after its reset: by its serial number, where it has one."""

    def look() -> str | None:
        if target.serial_number:
            for port in find.serial_ports():
                if port.serial_number == target.serial_number:
                    return port.device
            return None
        return target.device

    return look


def _read_config(device: Device) -> dict[str, Any] | None:
    text = device.read_text(CONFIG)
    try:
        config = json.loads(text)
    except ValueError:
        return None  # not there, or a power cut while it was written: it is made anew
    return config if isinstance(config, dict) else None


def _tell_plan(plan: Plan, bundle: Bundle, tell: Tell) -> None:
    if plan.rom:
        tell("would write", "ROM file system, %d bytes" % len(bundle.rom))
    for path, data in plan.copy.items():
        tell("would copy", "%s, %d bytes" % (path, len(data)))
    for path in plan.remove:
        tell("would remove", path)


def _carry_out(device: Device, plan: Plan, bundle: Bundle, tell: Tell) -> None:
    # What is stale goes first: a board has little room, and an old .py would be taken before a new .mpy.
    if plan.remove:
        kept = set(folders_of(list(bundle.files)))
        folders = [folder for folder in folders_of(plan.remove) if folder not in kept]
        device.remove(plan.remove, folders[::-1])
        for path in plan.remove:
            tell("removed", path)
    if plan.rom:
        tell("writing", "ROM file system, %d bytes" % len(bundle.rom))
        device.write_rom(bundle.rom)
    device.make_folders(folders_of(list(plan.copy)))
    for number, (path, data) in enumerate(plan.copy.items(), 1):
        device.write(path, data)
        tell("copied", "%d/%d %s" % (number, len(plan.copy), path))
    # What counts is what the board reads back.
    after = device.hashes(*bundle.files, *plan.copy)
    wrong = [path for path, data in {**bundle.files, **plan.copy}.items() if after.get(path) != sha256(data)]
    if bundle.rom and plan.rom and device.rom_hash(len(bundle.rom)) != sha256(bundle.rom):
        wrong.append("the ROM file system")
    if wrong:
        raise BoardError(
            "what was written does not read back right: %s" % ", ".join(wrong),
            "run it again; if it stays so, the board's flash is full or worn",
        )
    tell("verified", "%d files by their hashes on the board" % len(bundle.files))


def wait_announced(url: str, node: dict[str, Any], limit_s: float = ANNOUNCE_S) -> None:
    """Until the node announces itself on a bus. BoardError if it does not."""
    is_pack = node.get("role") == "pack"
    name, base = ("PACK_ANNOUNCEMENT", PACK_ANNOUNCEMENT) if is_pack else ("ANNOUNCEMENT", ANNOUNCEMENT)
    if is_pack:
        request = compose(APP_ANNOUNCE_REQUEST, NODE_APP), encode("APP_ANNOUNCE_REQUEST", version=1)
    else:
        request = compose(ANNOUNCE_REQUEST, 0xFF), encode("ANNOUNCE_REQUEST", controller_id=NODE_PACK)
    end = time.monotonic() + limit_s
    ask = time.monotonic()
    with open_bus(url) as bus:
        while (now := time.monotonic()) < end:
            if now >= ask:
                ask = now + ASK_EVERY_S
                bus.send(can.Message(arbitration_id=request[0], is_extended_id=True, data=bytes(request[1])))
            message = bus.recv(max(0.0, min(ask, end) - now))
            if message is None or not message.is_extended_id or base_of(message.arbitration_id) != base:
                continue
            values = decode(name, bytes(message.data))
            if values is not None and values.get("unique_id") == node["unique_id"]:
                return
    raise BoardError(
        "%s did not announce itself on %s within %d s" % (node.get("serial"), url, limit_s),
        "check the CAN wiring, its termination and that both sides have the same bit rate",
    )


# -- CircuitPython: a drive --------------------------------------------------------------------------------------------


def deploy_to_drive(
    profile: Profile,
    drive: Path,
    *,
    role: str | None = None,
    config: dict[str, Any] | None = None,
    dry_run: bool = False,
    tell: Tell = lambda step, detail: None,
) -> Result:
    """Fill a CircuitPython board through its drive (CIRCUITPY); it restarts by itself when the drive changes.

    BoardError if the drive's boot_out.txt is another board's.
    """
    began = time.monotonic()
    identity = read_boot_out(drive)
    wanted_ids = profile.flash.board_ids
    if wanted_ids and identity.get("Board ID") not in wanted_ids:
        raise BoardError(
            "the drive %s is of a %r, and %s would be %s"
            % (drive, identity.get("Board ID"), profile.name, " or ".join(wanted_ids)),
            "name the board that it is, or give the right --drive",
        )
    result = Result(profile.name, str(drive), interpreter=identity["interpreter"], dry_run=dry_run)
    there = _drive_hashes(drive, profile)
    old = json.loads((drive / CONFIG).read_text()) if (drive / CONFIG).is_file() else None
    wanted = node_config(old, bytes.fromhex(identity.get("UID", "")), role, config or {})
    bundle = make_bundle(profile, wanted["role"])
    plan = make_plan(bundle, there)
    if wanted != old:
        plan.copy[CONFIG] = json.dumps(wanted).encode()
    result.copied, result.removed, result.unchanged = list(plan.copy), plan.remove, plan.same
    result.bytes_copied = sum(len(data) for data in plan.copy.values())
    result.node = wanted
    if plan.empty:
        tell("unchanged", "%d files are there already, nothing is copied" % plan.same)
    elif dry_run:
        _tell_plan(plan, bundle, tell)
    else:
        for path in plan.remove:
            (drive / path).unlink()
            tell("removed", path)
        for number, (path, data) in enumerate(plan.copy.items(), 1):
            (drive / path).parent.mkdir(parents=True, exist_ok=True)
            (drive / path).write_bytes(data)
            tell("copied", "%d/%d %s" % (number, len(plan.copy), path))
        after = _drive_hashes(drive, profile)
        wrong = [path for path, data in bundle.files.items() if after.get(path) != sha256(data)]
        if wrong:
            raise BoardError(
                "what was written does not read back right: %s" % ", ".join(wrong), "eject the drive and run it again"
            )
    result.seconds = round(time.monotonic() - began, 3)
    return result


def read_boot_out(drive: Path) -> dict[str, str]:
    """boot_out.txt of a CircuitPython drive: its lines by name. BoardError if it is no such drive.

    Source: CircuitPython's supervisor writes "Adafruit CircuitPython VERSION on DATE; BOARD with CHIP", "Board ID:ID",
    "UID:HEX".
    """
    try:
        lines = (drive / "boot_out.txt").read_text().splitlines()
    except OSError as error:
        raise BoardError(
            "%s is no CircuitPython drive: no boot_out.txt" % drive, "give the folder where CIRCUITPY is mounted"
        ) from error
    found = {name: value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    found["interpreter"] = lines[0] if lines else ""
    return found


def _drive_hashes(drive: Path, profile: Profile) -> dict[str, str]:
    paths = [drive / name for name in (*OWN_FILES, CIRCUITPYTHON_MAIN, *extra_files(profile))]
    paths += sorted(drive.glob(OWN_PREFIX + "*.mpy"))
    for folder in OWN_FOLDERS:
        paths += sorted((drive / folder).rglob("*"))
    return {
        path.relative_to(drive).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if path.is_file()
    }
