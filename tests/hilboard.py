"""Core, firmware and portable tests on a board under test (tests/hil): how they get there and run."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from packtrust_host.image import ARCHITECTURES, compile_mpy
from packtrust_host.sim.deploy import HOST_ONLY
from pytest_micropython_boards import Board

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = "hil.txt"
ON_BOARD = "hil"
QUIET_S = 60.0  # a long computation says nothing

# Few and quick files that fit into a board's 96 KB.
QUICK = ("test_arbitration", "test_replay", "test_segmentation", "test_isotp", "test_keys", "test_crypto_aead")
_IMPORT = re.compile(r"^\s*(?:from|import) (\w+)", re.MULTILINE)
ASM_THUMB = re.compile(r"^@micropython\.asm_thumb", re.MULTILINE)


def portable_files() -> dict[str, Path]:
    """The portable test files by module name, as tests/on_target has them."""
    found = sorted((ROOT / "tests/unit/core").glob("test_*.py"))
    found += [
        path
        for path in sorted((ROOT / "tests/vectors").glob("test_*.py"))
        if re.search(r"^from portable import", path.read_text(), re.MULTILINE)
    ]
    return {path.stem: path for path in found}


def names_of(path: Path) -> list[str]:
    """The names of a file's tests."""
    return re.findall(r"^def (test_\w+)\(\)", path.read_text(), re.MULTILINE)


def sources(tests: tuple[str, ...]) -> dict[str, Path]:
    """Python files by their path on the board: core and firmware below lib/, the rest beside the runner."""
    files = {}
    core, firmware = ROOT / "shared/packtrust", ROOT / "firmware/packtrust_node"
    for folder in (core, firmware):
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder).as_posix()
            if folder != core or name not in HOST_ONLY:
                files["lib/%s/%s" % (folder.name, name)] = path
    known = portable_files()
    left = [ROOT / "tests/on_target/runner.py", *(known[name] for name in tests)]
    while left:
        path = left.pop()
        files[path.name] = path
        helpers = (ROOT / "tests" / (name + ".py") for name in _IMPORT.findall(path.read_text()))
        left += [helper for helper in helpers if helper.is_file() and helper.name not in files]
    return files


@cache
def content(arch: str, tests: tuple[str, ...]) -> Mapping[str, bytes]:
    """Everything by its path on the board, and a manifest that tells one content from another.

    arch   of native code, as mpy-cross names it
    tests  test modules, e.g. ("test_replay",)
    """
    files = {}
    for name, path in sources(tests).items():
        text = path.read_text()
        if ASM_THUMB.search(text) and not arch.startswith("armv7"):
            continue  # a kernel for other processors; the core does without
        files[name.removesuffix("py") + "mpy"] = compile_mpy(text, arch, name.removeprefix("lib/"))
    if any("vectors" in known.parts for known in map(portable_files().get, tests) if known is not None):
        for path in sorted((ROOT / "tests/vectors").glob("*.json")):
            files["vectors/" + path.name] = path.read_bytes()
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + hashlib.sha256(files[name]).digest())
    files[MANIFEST] = digest.hexdigest().encode()
    return files


# HIL_FILES="all", or names separated by commas.
_asked = os.environ.get("HIL_FILES", "")
CHOSEN: tuple[str, ...] = QUICK if not _asked else tuple(portable_files() if _asked == "all" else _asked.split(","))

_FIND = """
import sys
_found = ''
for _place in ('.', '/', '/rom', '/flash', %r):
    try:
        with open(_place.rstrip('/') + '/%s') as _file:
            if _file.read() == %r:
                _found = _place
    except OSError:
        pass
print(repr(_found))
"""


def architecture(board: Board) -> str:
    """Of native code, as mpy-cross names it; the board itself tells."""
    return ARCHITECTURES[board.eval("__import__('sys').implementation._mpy >> 10 & 15")]


def prepare(board: Board, tests: tuple[str, ...] = CHOSEN) -> str:
    """Give the board what the tests need, unless it has it already; the folder it is in.

    The virtual boards of boards.toml start with it. Any other one gets .mpy files into the folder hil/ of its file
    system, some 250 KB, the first time and when something has changed.
    """
    files = content(architecture(board), tests)
    manifest = files[MANIFEST].decode()
    place = str(ast.literal_eval(board.exec(_FIND % (ON_BOARD, MANIFEST, manifest))))
    if not place:
        for name, data in files.items():
            if name != MANIFEST:
                board.put(data, "%s/%s" % (ON_BOARD, name))
        board.put(files[MANIFEST], "%s/%s" % (ON_BOARD, MANIFEST))
        place = ON_BOARD
    # A deployed board has the core in its ROM as well: this one first.
    board.exec("import sys\nsys.path[:0] = [%r, %r]" % (place, place.rstrip("/") + "/lib"))
    return place


def results(board: Board, module: str, names: list[str]) -> dict[str, dict[str, object]]:
    """Run tests of a module on the board; the runner's result lines by test name.

    The interpreter is new before each file; `runner` is the one of tests/on_target.
    """
    code = (
        "import gc, runner\n"
        "try:\n"
        "    _module = __import__(%r)\n"
        "except Exception as _error:\n"
        "    runner.report(%r, 'import', runner.ticks_ms(), _error)\n"
        "    _module = None\n"
        "for _name in %r if _module else ():\n"
        "    gc.collect()\n"
        "    _start = runner.ticks_ms()\n"
        "    _raised = None\n"
        "    try:\n"
        "        getattr(_module, _name)()\n"
        "    except Exception as _error:\n"
        "        _raised = _error\n"
        "    runner.report(%r, _name, _start, _raised)\n"
    ) % (module, module, names, module)
    found = {}
    running = board.start(code, timeout=float(os.environ.get("HIL_QUIET_S", QUIET_S)))
    for line in running.lines():
        if line.startswith("{"):
            result = json.loads(line)
            found[result["name"]] = result
    running.finish()
    return found
