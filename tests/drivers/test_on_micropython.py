"""The drivers' tests once more, on MicroPython: what they run on."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNNER = ROOT / "tests/on_target/runner.py"
FILES = sorted(path for path in Path(__file__).parent.glob("test_*.py") if path.name != Path(__file__).name)
NEXT_STEP = "no MicroPython found: run `make setup`, or name one in MICROPYTHON (1.25 or newer, unix port)"


def interpreter() -> str | None:
    """Path of the MicroPython to use: the one named, else the one set-up made, else the one on the PATH."""
    made = ROOT / "build/micropython/bin/micropython"
    return shutil.which(os.environ.get("MICROPYTHON") or (str(made) if made.exists() else "micropython"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_drivers_on_micropython(path: Path) -> None:
    micropython = interpreter()
    if micropython is None:
        if os.environ.get("CI"):
            pytest.fail(NEXT_STEP, pytrace=False)
        pytest.skip(NEXT_STEP)
    folders = [ROOT / "shared", ROOT / "tests", ROOT / "firmware", ".frozen"]
    done = subprocess.run(
        [micropython, "-X", "heapsize=8M", str(RUNNER), str(path)],
        env={**os.environ, "MICROPYPATH": ":".join(map(str, folders))},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    failed = ["%s\n%s" % (result["name"], result.get("error", "")) for result in results if not result["ok"]]
    assert not failed and done.returncode == 0, "\n".join(failed) + done.stderr
    assert len(results) == path.read_text().count("\ndef test_")
