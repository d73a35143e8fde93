"""What is known about a kind of board: boards/NAME/board.toml."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packtrust_host.sim.deploy import CHECKOUT

from .errors import BoardError

LAYOUTS = ("romfs", "mpy", "py")
METHODS = ("esptool", "dfu", "uf2")

# `sys.implementation._mpy >> 10` of an interpreter (MicroPython, py/persistentcode.h).
ARCHITECTURES = (
    "",
    "x86",
    "x64",
    "armv6",
    "armv6m",
    "armv7m",
    "armv7em",
    "armv7emsp",
    "armv7emdp",
    "xtensa",
    "xtensawin",
    "rv32imc",
    "rv64imc",
)


@dataclass(frozen=True)
class FlashMethod:
    """How MicroPython itself gets onto the board.

    method    "esptool", "dfu" or "uf2"; empty: the board has no firmware to write (a virtual one)
    chip      esptool's name of it: "esp32", "esp32s3", ...
    offset    in the flash, of an ESP image; address of a raw image for DFU
    families  UF2 family ids that fit
    board_ids what INFO_UF2.TXT or boot_out.txt call the board, if that is known
    usb       (vendor, product) of the boot loader, if it has one of its own
    hint      how to get into the boot loader
    """

    method: str = ""
    chip: str = ""
    offset: int = 0
    families: tuple[int, ...] = ()
    board_ids: tuple[str, ...] = ()
    usb: tuple[int, int] | None = None
    hint: str = ""


@dataclass(frozen=True)
class Profile:
    """A kind of board.

    arch      mpy-cross's name of its native code; empty: byte code only
    layout    "romfs": one image that is read in place; "mpy": compiled files; "py": sources
    can       stem of the CAN driver it uses (firmware/packtrust_node/can_*.py), several possible
    usb       (vendor, product) pairs its console has, empty: not known
    machines  beginnings of `sys.implementation._machine` that are this board, empty: any
    """

    name: str
    title: str
    folder: Path
    virtual: bool
    arch: str
    layout: str
    can: tuple[str, ...]
    files: tuple[str, ...]
    usb: tuple[tuple[int, int], ...] = ()
    machines: tuple[str, ...] = ()
    flash: FlashMethod = field(default_factory=FlashMethod)

    @property
    def board_module(self) -> Path | None:
        """Its packtrust_board.py; None if whatever boots the board makes that module."""
        path = self.folder / "packtrust_board.py"
        return path if path.is_file() else None


def boards_folder() -> Path:
    """Where the kinds of boards are described."""
    return CHECKOUT / "boards"


def board_names() -> list[str]:
    """Every kind of board there is."""
    return sorted(path.parent.name for path in boards_folder().glob("*/board.toml"))


def _strings(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(str(item) for item in value)


def _numbers(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    items = value if isinstance(value, list) else [value]
    return tuple(int(item, 0) if isinstance(item, str) else int(item) for item in items)


def _usb(table: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    vendors, products = _numbers(table.get("vid")), _numbers(table.get("pid"))
    if len(vendors) == 1:
        vendors = vendors * len(products)
    if len(vendors) != len(products):
        raise ValueError("[usb] needs one vid for all pids, or one each")
    return tuple(zip(vendors, products, strict=True))


def read_profile(path: Path) -> Profile:
    """A board.toml. BoardError says what is wrong with it."""
    try:
        document = tomllib.loads(path.read_text())
        board = document["board"]
        flash = document.get("flash", {})
        usb = _usb(document.get("usb", {}))
        loader = _usb({"vid": flash.get("vid"), "pid": flash.get("pid")})
        method = FlashMethod(
            method=flash.get("method", ""),
            chip=flash.get("chip", ""),
            offset=(_numbers(flash.get("offset")) or (0,))[0],
            families=_numbers(flash.get("family")),
            board_ids=_strings(flash.get("board_id")),
            usb=loader[0] if loader else None,
            hint=flash.get("hint", ""),
        )
        profile = Profile(
            name=board["name"],
            title=board["title"],
            folder=path.parent,
            virtual=bool(board.get("virtual", False)),
            arch=board.get("arch", ""),
            layout=board.get("layout", "romfs" if "rom" in board else "mpy"),
            can=_strings(board.get("can")),
            files=_strings(board.get("files")),
            usb=usb,
            machines=_strings(board.get("machine")),
            flash=method,
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError, OSError) as error:
        raise BoardError("%s cannot be read: %r" % (path, error), "correct it; boards/README.md has the keys") from None
    for what, value, known in (
        ("layout", profile.layout, LAYOUTS),
        ("arch", profile.arch, ARCHITECTURES),
        ("[flash] method", method.method, ("", *METHODS)),
    ):
        if value not in known:
            raise BoardError(
                "%s: %s is %r" % (path, what, value), "use one of %s" % ", ".join(name for name in known if name)
            )
    return profile


def load_profile(name: str) -> Profile:
    """The kind of board of that name. BoardError lists those there are."""
    names = board_names()
    if name not in names:
        raise BoardError("there is no board %r" % name, "use one of: %s" % (", ".join(names) or "(none: no checkout)"))
    return read_profile(boards_folder() / name / "board.toml")


def host_arch() -> str:
    """Native code the unix port loads here, by its word size."""
    return "x64" if sys.maxsize > 1 << 32 else "x86"
