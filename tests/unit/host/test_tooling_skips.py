"""The hooks in tests/conftest.py: unexplained skips fail in CI, folders give markers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]

SKIPPING = """
import pytest

def test_passes():
    pass

@pytest.mark.skip(reason="no time today")
def test_marked():
    pass

def test_inside():
    pytest.skip("feeling lazy")

def test_allowed():
    pytest.skip("allowed: needs a real adapter")

@pytest.mark.xfail(reason="known", strict=True)
def test_expected_failure():
    assert False
"""


def _pytest(folder: Path, ci: str, *arguments: str) -> str:
    shutil.copy(TESTS / "conftest.py", folder / "conftest.py")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env["CI"] = ci
    # The conftest file asks for the project's own plugin.
    env["PYTHONPATH"] = str(TESTS.parent / "host" / "pytest_micropython_boards" / "src")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", *arguments, str(folder)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout


def test_unexplained_skips_fail_in_ci(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(SKIPPING)
    output = _pytest(tmp_path, "1")
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed, 1 error" in output
    assert 'skipped in CI: "no time today"' in output
    assert 'skipped in CI: "feeling lazy"' in output


def test_elsewhere_they_only_show(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(SKIPPING)
    output = _pytest(tmp_path, "")
    assert "1 passed, 3 skipped, 1 xfailed" in output
    assert "no time today" in output


@pytest.mark.parametrize(("reason", "result"), [("not today", "1 error"), ("allowed: other system", "1 skipped")])
def test_files_that_skip_themselves(tmp_path: Path, reason: str, result: str) -> None:
    (tmp_path / "test_x.py").write_text("import pytest\npytest.skip(%r, allow_module_level=True)\n" % reason)
    assert result in _pytest(tmp_path, "true")


def test_folders_give_markers(tmp_path: Path) -> None:
    for folder in ("unit", "pack"):
        (tmp_path / folder / "deep").mkdir(parents=True)
        (tmp_path / folder / "deep" / ("test_%s.py" % folder)).write_text("def test_it(): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = unit\n    pack\n")
    output = _pytest(tmp_path, "1", "-m", "pack")
    assert "1 passed, 1 deselected" in output
    assert "test_pack.py::test_it" in output
