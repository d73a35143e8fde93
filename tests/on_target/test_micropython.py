"""The portable tests, run by real MicroPythons: each file by each interpreter, one result a test.

All of tests/unit/core and tests/drivers is portable, and those files of tests/vectors that import `portable`. The
interpreters: the unix port with 64 bits (MICROPYTHON, or the one set-up made), with 32 bits (a board's integers at
native speed), and the virtual Cortex-M4.
"""

import fcntl
import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from packtrust_host.image import romfs_image
from packtrust_host.sim.qemu import QemuError, find_qemu, firmware
from qemu_board import BoardError, compiled, core_modules, started

ROOT = Path(__file__).resolve().parents[2]
RUNNER = ROOT / "tests/on_target/runner.py"
OLDEST = (1, 25)
NEXT_STEP = "no MicroPython found: run `make setup`, or name one in MICROPYTHON (1.25 or newer, unix port)"
# The longest file takes 40 s on the emulator when it has a processor for itself.
SECONDS = 280
WORDS_32 = ROOT / "build/micropython32/bin/micropython"
INTERPRETERS = ("unix64", "unix32", "cortex-m4")
# Minutes of a whole pack's life, in which models of chips are computed bit by bit: the emulator would take a quarter of
# an hour. The unix ports run these; drivers and nodes have tests of their own on the emulator.
NOT_EMULATED = {"test_nodes_over_drivers"}


def portable_files() -> list[Path]:
    """The test files that must run on MicroPython."""
    vectors = (
        path
        for path in (ROOT / "tests/vectors").glob("test_*.py")
        if re.search(r"^from portable import", path.read_text(), re.MULTILINE)
    )
    drivers = (ROOT / "tests/drivers").glob("test_*.py")
    return sorted([*(ROOT / "tests/unit/core").glob("test_*.py"), *drivers, *vectors])


def helpers(files: Iterable[Path]) -> set[str]:
    """What portable files import of tests/ and its folders, as paths below it, and what that imports in turn."""
    found: set[str] = set()
    waiting = list(files)
    while waiting:
        for name in re.findall(r"^(?:from|import) ([\w.]+)", waiting.pop().read_text(), re.MULTILINE):
            path = "%s.py" % name.replace(".", "/")
            if path not in found and (ROOT / "tests" / path).exists():
                found.add(path)
                waiting.append(ROOT / "tests" / path)
    return found


def test_names(path: Path) -> list[str]:
    """The names of a file's tests."""
    return re.findall(r"^def (test_\w+)\(\)", path.read_text(), re.MULTILINE)


test_names.__test__ = False  # type: ignore[attr-defined]


@functools.cache
def interpreter() -> str | None:
    """Path of the MicroPython to use."""
    named = os.environ.get("MICROPYTHON")
    if named:
        return shutil.which(named)
    made = ROOT / "build/micropython/bin/micropython"
    return str(made) if made.exists() else shutil.which("micropython")


@pytest.fixture(scope="session")
def micropython() -> str:
    """The 64-bit interpreter; skips without one, and fails in CI."""
    path = interpreter()
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(NEXT_STEP, pytrace=False)
        pytest.skip(NEXT_STEP)
    return path


def missing(name: str) -> str | None:
    """Why the interpreter `name` cannot run here; None if it can."""
    if name == "unix64":
        return None if interpreter() else NEXT_STEP
    if name == "unix32":
        return None if WORDS_32.exists() else "no 32-bit MicroPython: run `make firmware`"
    try:
        find_qemu()
        firmware("suite")
    except QemuError as error:
        return str(error)
    return None


def run(micropython: str, *arguments: str, heap: str = "32M") -> subprocess.CompletedProcess[str]:
    """Run MicroPython with the core, the firmware and the test helpers on its path.

    The heap holds vector files and whole packs with their logs, not only what a board runs.
    """
    folders = [ROOT / "shared", ROOT / "tests", ROOT / "firmware", ".frozen"]
    return subprocess.run(
        [micropython, "-X", f"heapsize={heap}", *arguments],
        env={**os.environ, "MICROPYPATH": ":".join(map(str, folders))},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def parsed(lines: list[str]) -> dict[str, dict[str, object]]:
    """Results by test name."""
    found = {}
    for line in lines:
        if line.startswith("{"):
            result = json.loads(line)
            found[result["name"]] = result
    return found


def run_file(micropython: str, path: Path) -> dict[str, dict[str, object]]:
    """Result lines of one file by test name. A crash of the interpreter is the result `import`."""
    done = run(micropython, str(RUNNER), str(path))
    found = parsed(done.stdout.splitlines())
    if "import" not in found and done.returncode not in (0, 1):
        error = f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
        found["import"] = {"ok": False, "error": error}
    return found


def suite_image() -> bytes:
    """A ROM with the core, the firmware, the portable tests and their vectors."""
    files = core_modules()
    firmware_folder = ROOT / "firmware"
    for path in firmware_folder.rglob("*.py"):
        name = path.relative_to(firmware_folder).as_posix()
        files["lib/" + name.removesuffix("py") + "mpy"] = compiled(path, name)
    for path in (*portable_files(), RUNNER):
        files[path.stem + ".mpy"] = compiled(path, path.name)
    for name in helpers(portable_files()):
        files[name.removesuffix("py") + "mpy"] = compiled(ROOT / "tests" / name, name)
    for path in (ROOT / "tests/vectors").glob("*.json"):
        files["vectors/" + path.name] = path.read_bytes()
    return romfs_image(files)


def run_on_board(image: bytes, path: Path) -> dict[str, dict[str, object]]:
    """The same on a freshly started virtual Cortex-M4."""
    code = "import runner; runner.main(['/rom/%s'])" % path.name
    said: list[str] = []
    try:
        with started("suite", image) as board:
            board.run(code, SECONDS, said.append)
    except BoardError as error:
        return {**parsed(said), "import": {"ok": False, "error": str(error)}}
    return parsed(said)


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], dict[str, dict[str, object]]]:
    """Results of a file on an interpreter, where it runs once, however many workers have tests of it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def once(name: str, make: Callable[[], bytes]) -> bytes:
        kept = shared / name
        with (shared / (name + ".lock")).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                kept.write_bytes(make())
        return kept.read_bytes()

    @functools.cache
    def results_of(where: str, path: Path) -> dict[str, dict[str, object]]:
        def run_it() -> bytes:
            if where == "cortex-m4":
                found = run_on_board(once("suite.romfs", suite_image), path)
            else:
                found = run_file(str(WORDS_32) if where == "unix32" else str(interpreter()), path)
            return json.dumps(found).encode()

        return json.loads(once(f"{where}-{path.stem}.json", run_it))

    return results_of


def cases() -> list[object]:
    """One parameter set a test and interpreter; a file's tests together, for they run together."""
    return [
        pytest.param(where, path, name, id=f"{where}-{path.stem}-{name}")
        for where in INTERPRETERS
        for path in portable_files()
        if where != "cortex-m4" or path.stem not in NOT_EMULATED
        for name in test_names(path)
    ]


def test_interpreter_is_new_enough(micropython: str) -> None:
    done = run(micropython, "-c", "import sys; print(sys.implementation[:2])")
    name, version = re.fullmatch(r"\('(\w+)', \((\d+, \d+), .*\)\)\n", done.stdout).groups()  # type: ignore[union-attr]
    assert name == "micropython"
    assert tuple(map(int, version.split(", "))) >= OLDEST


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("where", "path", "name"), cases())
def test_on_micropython(
    results: Callable[[str, Path], dict[str, dict[str, object]]], where: str, path: Path, name: str
) -> None:
    reason = missing(where)
    if reason:
        pytest.skip(reason)
    found = results(where, path)
    if "import" in found:
        pytest.fail(f"{path.name} does not run: {found['import']['error']}", pytrace=False)
    if name not in found:
        pytest.fail(f"{path.name} ended before {name}: {found}", pytrace=False)
    if not found[name]["ok"]:
        pytest.fail(str(found[name]["error"]), pytrace=False)


def test_every_portable_file_has_tests() -> None:
    files = portable_files()
    assert len(files) > 10
    for path in files:
        assert test_names(path), f"{path} has no test: one is `def test_...():`, without arguments"


def test_a_failing_test_is_reported(micropython: str, tmp_path: Path) -> None:
    """The runner itself: good, failing, erroring, unloadable and empty files."""
    tests = {
        "test_mixed.py": "def test_bad():\n    assert 1 == 2\n"
        "def test_error():\n    {}['missing']\ndef test_good():\n    assert True\n",
        "test_unloadable.py": "import no_such_module\n",
        "test_empty.py": "x = 1\n",
    }
    for name, source in tests.items():
        (tmp_path / name).write_text(source)
    found = run_file(micropython, tmp_path / "test_mixed.py")
    assert {name: result["ok"] for name, result in found.items()} == {
        "test_bad": False,
        "test_error": False,
        "test_good": True,
    }
    assert "AssertionError" in str(found["test_bad"]["error"])
    assert "line 2" in str(found["test_bad"]["error"])
    assert "KeyError" in str(found["test_error"]["error"])
    assert "no_such_module" in str(run_file(micropython, tmp_path / "test_unloadable.py")["import"]["error"])
    assert "no function test_" in str(run_file(micropython, tmp_path / "test_empty.py")["import"]["error"])


def test_the_core_never_touches_the_hosts_library(micropython: str, tmp_path: Path) -> None:
    """A module called `cryptography` on the path is none of a board's business."""
    trap = tmp_path / "cryptography"
    trap.mkdir()
    (trap / "__init__.py").write_text("print('touched')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from packtrust.crypto import backends, hpke\n"
        "print(backends()[-1], [name for name in sys.modules if 'host' in name or 'graphy' in name])"
    )
    done = run(micropython, "-c", code)
    assert done.stdout.endswith("pure []\n"), done.stdout + done.stderr
