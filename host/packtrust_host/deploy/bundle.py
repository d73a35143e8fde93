"""What a board gets of firmware/ and shared/: its driver and no other, compiled for its core, nothing of the host's."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packtrust_host.image import compile_mpy, romfs_image
from packtrust_host.sim.deploy import deployed_files

from .errors import BoardError
from .profile import Profile

# Folders and files on a board that are ours alone: what lies there and is not in the bundle is removed.
OWN_FOLDERS = ("packtrust_node", "lib/packtrust")
OWN_FILES = ("main.py", "main.mpy", "packtrust_board.py", "packtrust_board.mpy")
# CircuitPython runs code.py, and main.py only where there is no code.py.
CIRCUITPYTHON_MAIN = "code.py"
# What only one kind of node imports.
ONLY_FOR = {"pack": ("packtrust_node.pack",), "module": ("packtrust_node.module", "packtrust_node.cells")}
OPTIMISE = 1  # without assertions, with line numbers: a traceback on a console says where

_EMITTERS = ("native", "viper", "asm_thumb", "asm_xtensa", "asm_xtensawin", "asm_rv32")
_MODULE = re.compile(r"packtrust_node\.[a-z0-9_]+")


@dataclass(frozen=True)
class Bundle:
    """Files of the board's file system by path, and the image of its ROM file system (empty if it has none)."""

    files: dict[str, bytes]
    rom: bytes = b""
    rom_files: dict[str, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self.rom) + sum(len(data) for data in self.files.values())


def emitters(source: str) -> set[str]:
    """MicroPython's code emitters a file uses: viper, asm_thumb, ..."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            for item in node.decorator_list:
                if isinstance(item, ast.Attribute) and item.attr in _EMITTERS:
                    found.add(item.attr)
    return found


def fits(source: str, profile: Profile) -> bool:
    """Whether a file can run on the board at all."""
    used = emitters(source)
    if not used:
        return True
    if profile.layout == "py" or not profile.arch:
        return False
    if "asm_thumb" in used and not profile.arch.startswith("armv7"):
        return False
    return not used & {"asm_xtensa", "asm_xtensawin"} or profile.arch.startswith("xtensa")


def _imported(source: str) -> set[str]:
    """Modules of the firmware a file names in an import, or in a string that is a module's name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "packtrust_node":
                found |= {"packtrust_node." + alias.name for alias in node.names}
            else:
                found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _MODULE.fullmatch(node.value):
            found.add(node.value)
    return {name for name in found if name.startswith("packtrust_node.")}


def _path(module: str) -> str:
    return module.replace(".", "/") + ".py"


def sources(profile: Profile, role: str | None = None) -> dict[str, str]:
    """Source text of everything the board gets, by path; with a role, without what only the other kind needs.

    BoardError if there is no such driver.
    """
    every: dict[str, Path] = deployed_files()
    texts = {name: path.read_text() for name, path in every.items()}
    roots = ["main.py"]
    if profile.board_module is not None:
        texts["packtrust_board.py"] = profile.board_module.read_text()
        roots.append("packtrust_board.py")
    for driver in profile.can:
        path = _path("packtrust_node.can_" + driver)
        if path not in texts:
            raise BoardError(
                "board %s wants the CAN driver %s, and there is no %s" % (profile.name, driver, path),
                "correct `can` in %s" % (profile.folder / "board.toml"),
            )
        roots.append(path)
    skipped = {_path(name) for kind, names in ONLY_FOR.items() if role not in (None, kind) for name in names}
    wanted: set[str] = set()
    todo = list(roots)
    while todo:
        path = todo.pop()
        if path in wanted or path in skipped or path not in texts:
            continue
        wanted.add(path)
        todo.extend(_path(name) for name in _imported(texts[path]))
    return {
        name: text
        for name, text in sorted(texts.items())
        if (name in wanted or name.startswith("lib/") or name.endswith("/__init__.py")) and fits(text, profile)
    }


def make_bundle(profile: Profile, role: str | None = None) -> Bundle:
    """Compile it all. ImageError names the file that does not compile."""
    texts = sources(profile, role)
    if profile.layout == "py":
        files = {CIRCUITPYTHON_MAIN if name == "main.py" else name: text.encode() for name, text in texts.items()}
        return Bundle(files)
    compiled = _compile({name: text for name, text in texts.items() if name != "main.py"}, profile.arch)
    # The interpreter looks for main.py, not for main.mpy.
    files = {"main.py": texts["main.py"].encode()}
    if profile.layout == "mpy":
        return Bundle(files | compiled)
    return Bundle(files, romfs_image(compiled), compiled)


_cache: dict[tuple[str, str, str], bytes] = {}


def _compile(texts: Mapping[str, str], arch: str) -> dict[str, bytes]:
    compiled = {}
    for name, text in texts.items():
        # Byte code is the same for all; only what has native code is bound to a core.
        native = arch if emitters(text) else ""
        key = (name, native, text)
        if key not in _cache:
            _cache[key] = compile_mpy(text, native, name, OPTIMISE)
        compiled[name.removesuffix(".py") + ".mpy"] = _cache[key]
    return compiled
