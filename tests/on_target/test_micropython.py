"""The portable tests, run by a real MicroPython: one process a file, one result a test.

All of tests/unit/core is portable, and those files of tests/vectors that import `portable`. The
interpreter is the one named by MICROPYTHON, else the one set-up made, else the one on the PATH.
"""

import fcntl
import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNNER = ROOT / "tests/on_target/runner.py"
OLDEST = (1, 25)
NEXT_STEP = "no MicroPython found: run `make setup`, or name one in MICROPYTHON (1.25 or newer, unix port)"
SECONDS = 110


def portable_files() -> list[Path]:
    """The test files that must run on MicroPython."""
    vectors = (
        path
        for path in (ROOT / "tests/vectors").glob("test_*.py")
        if re.search(r"^from portable import", path.read_text(), re.MULTILINE)
    )
    return sorted([*(ROOT / "tests/unit/core").glob("test_*.py"), *vectors])


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
    """The interpreter; skips without one, and fails in CI."""
    path = interpreter()
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(NEXT_STEP, pytrace=False)
        pytest.skip(NEXT_STEP)
    return path


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


def run_file(micropython: str, path: Path) -> dict[str, dict[str, object]]:
    """Result lines of one file by test name. A crash of the interpreter is the result `import`."""
    done = run(micropython, str(RUNNER), str(path))
    found = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            result = json.loads(line)
            found[result["name"]] = result
    if "import" not in found and done.returncode not in (0, 1):
        error = f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
        found["import"] = {"ok": False, "error": error}
    return found


@pytest.fixture(scope="session")
def results(
    micropython: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], dict[str, dict[str, object]]]:
    """Results of a file, which runs once, however many workers have tests of it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    @functools.cache
    def results_of(path: Path) -> dict[str, dict[str, object]]:
        kept = shared / f"{path.stem}.json"
        with kept.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                kept.write_text(json.dumps(run_file(micropython, path)))
        return json.loads(kept.read_text())

    return results_of


def cases() -> list[object]:
    """One parameter set a test."""
    return [
        pytest.param(path, name, id=f"{path.stem}-{name}") for path in portable_files() for name in test_names(path)
    ]


def test_interpreter_is_new_enough(micropython: str) -> None:
    done = run(micropython, "-c", "import sys; print(sys.implementation[:2])")
    name, version = re.fullmatch(r"\('(\w+)', \((\d+, \d+), .*\)\)\n", done.stdout).groups()  # type: ignore[union-attr]
    assert name == "micropython"
    assert tuple(map(int, version.split(", "))) >= OLDEST


@pytest.mark.parametrize(("path", "name"), cases())
def test_on_micropython(results: Callable[[Path], dict[str, dict[str, object]]], path: Path, name: str) -> None:
    found = results(path)
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
