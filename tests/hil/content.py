"""What a board needs to run the portable tests: core, firmware and tests as .mpy, the vectors, and the runner."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from packtrust_host.image import compile_mpy

ROOT = Path(__file__).resolve().parents[2]
# Of the core, what no board gets: types for checkers and the host's crypto library.
HOST_ONLY = ("_typing.py", "crypto/host.py")
MANIFEST = "hil.txt"
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
    for path in (ROOT / "tests/on_target/runner.py", ROOT / "tests/portable.py", ROOT / "tests/nodebench.py"):
        files[path.name] = path
    known = portable_files()
    files |= {known[name].name: known[name] for name in tests}
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
