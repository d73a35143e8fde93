"""The program of a board that runs it in place: firmware, core and board module as one ROM file system.

The whole program is made smaller first (:mod:`packtrust_host.shrink`), then compiled for the board. Made once for each
state of the sources: build/rom/ keeps the images.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from packtrust_host import image, shrink

from .deploy import CHECKOUT, SetupError, deployed_files

CACHE = CHECKOUT / "build" / "rom"
# Code by architecture of a board that has an image: mpy-cross's name.
ARCHITECTURES = {"cortex-m4": "armv7emsp"}
MAIN = "main.py"
START = "packtrust_node.start"
# What is imported at the start, and what one kind of node alone needs.
ENTRIES = (
    START,
    "packtrust_board",
    "packtrust.crypto.kdf",
    "packtrust.crypto.gcm_tables",
    "packtrust.crypto.ghash_viper",
    "packtrust.crypto.curve25519",
)
ONLY = {"pack": ("packtrust_node.pack",), "module": ("packtrust_node.module", "packtrust_node.cells")}
TAP = "packtrust_tap.py"
# What main.py asks of the program: names that must stay as they are.
ROOTS = ("build", "run", "install")


def main_file(tap: bool = False) -> str:
    """main.py, which the board looks for in its file system; all else is in the ROM."""
    text = (CHECKOUT / "firmware" / MAIN).read_text()
    return "import packtrust_tap\npacktrust_tap.install()\n" + text if tap else text


def program(
    board: str,
    role: str,
    overlays: Mapping[str, str | os.PathLike[str]] | None = None,
    tap: bool = False,
) -> dict[str, str]:
    """Source of everything the node on this board can import, by path: no driver it does not have, nothing for hosts.

    role       "pack" or "module": the other one's code is left out
    overlays   path on the flash -> file that takes its place; what is no Python is left to `rom_files`
    tap        with the board's key tap (packtrust_tap.py), for tests: it is part of no product
    """
    folder = CHECKOUT / "boards" / board
    sources = {**deployed_files()}
    del sources[MAIN]
    sources["packtrust_board.py"] = folder / "packtrust_board.py"
    if tap:
        sources[TAP] = folder / TAP
    for path, file in (overlays or {}).items():
        if path.endswith(".py"):
            sources[path] = Path(file)
    try:
        texts = {path: Path(file).read_text() for path, file in sources.items()}
    except OSError as error:
        raise SetupError("%s cannot be read: %s" % (error.filename, error.strerror)) from error
    modules = {shrink.module_name(path): path for path in texts}
    left_out = {name for kind, names in ONLY.items() if kind != role for name in names}
    wanted = [*ENTRIES, *([shrink.module_name(TAP)] if tap else [])]
    found: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name not in modules or name in found or name in left_out:
            continue
        found.add(name)
        if "." in name:
            wanted.append(name.rsplit(".", 1)[0])
        wanted += _imports(texts[modules[name]], modules[name], name.rpartition(".")[0])
    return {path: text for path, text in texts.items() if shrink.module_name(path) in found}


def _imports(text: str, path: str, package: str) -> list[str]:
    names = []
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise SetupError("%s: %s" % (path, error)) from error
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(node.module + "." + alias.name for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.append(package + "." + node.value)  # modules chosen by name
    return names


def small(
    board: str, role: str, overlays: Mapping[str, str | os.PathLike[str]] | None = None, tap: bool = False
) -> dict[str, str]:
    """The program's sources as they are compiled, see packtrust_host.shrink: what the board's tracebacks are about."""
    texts = program(board, role, overlays, tap)
    entries = [*ENTRIES, *ONLY[role]]
    try:
        return shrink.shrink({path: texts[path] for path in sorted(texts)}, entries, START, ROOTS)
    except shrink.ShrinkError as error:
        raise SetupError("the program for %s cannot be made: %s" % (board, error)) from error


def rom_files(
    board: str, role: str, overlays: Mapping[str, str | os.PathLike[str]] | None = None, tap: bool = False
) -> dict[str, bytes]:
    """What goes into the board's ROMFS, by path. SetupError if it cannot be made."""
    if board not in ARCHITECTURES:
        raise SetupError("board %s does not run from a ROMFS: there are %s" % (board, ", ".join(ARCHITECTURES)))
    texts = small(board, role, overlays, tap)
    try:
        # The last name of a module is known to the interpreter anyway: no second one for the file.
        files = {
            path.removesuffix(".py") + ".mpy": image.compile_mpy(
                text, ARCHITECTURES[board], path.rsplit("/", 1)[-1].removesuffix(".py"), 2
            )
            for path, text in texts.items()
        }
    except image.ImageError as error:
        raise SetupError("the program for %s cannot be made: %s" % (board, error)) from error
    for path, file in (overlays or {}).items():
        if not path.endswith(".py"):
            files[path] = Path(file).read_bytes()
    return files


def rom_image(
    board: str, role: str, overlays: Mapping[str, str | os.PathLike[str]] | None = None, tap: bool = False
) -> bytes:
    """The board's ROMFS image; from build/rom/ if it was made before from the same sources."""
    return _rom_image(board, role, tuple(sorted((path, str(file)) for path, file in (overlays or {}).items())), tap)


@functools.lru_cache(maxsize=8)
def _rom_image(board: str, role: str, items: tuple[tuple[str, str], ...], tap: bool) -> bytes:
    overlays = dict(items)
    key = hashlib.sha256()
    parts: dict[str, bytes] = {path: text.encode() for path, text in program(board, role, overlays, tap).items()}
    parts |= {path: Path(file).read_bytes() for path, file in overlays.items() if not path.endswith(".py")}
    for tool in (shrink.__file__, image.__file__, __file__):
        parts["/" + Path(tool).name] = Path(tool).read_bytes()
    for path in sorted(parts):
        key.update(b"%d %s %d\n" % (len(path), path.encode(), len(parts[path])) + parts[path])
    cached = CACHE / ("%s-%s-%s.romfs" % (board, role, key.hexdigest()[:32]))
    if cached.exists():
        return cached.read_bytes()
    made = image.romfs_image(rom_files(board, role, overlays, tap))
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=CACHE, delete=False) as file:
        file.write(made)
    os.replace(file.name, cached)
    return made
