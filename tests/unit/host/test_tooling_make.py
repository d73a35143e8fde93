"""The Makefile, the lock file and the project's metadata agree with each other."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]
MAKEFILE = (CHECKOUT / "Makefile").read_text()
LOCK = (CHECKOUT / "requirements.lock").read_text()
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return re.sub(r"[._-]+", "-", match.group()).lower()


def _asked() -> set[str]:
    lines = (CHECKOUT / "requirements.in").read_text().splitlines()
    return {_name(line) for line in lines if line.strip() and not line.startswith("#")}


def _make(*arguments: str) -> str:
    done = subprocess.run(["make", *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_help_lists_every_target() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):(?!=)", MAKEFILE, re.MULTILINE))
    assert {"setup", "demo", "test", "lint", "bench", "check", "clean", "lock"} <= targets
    listed = set(re.findall(r"^  make ([a-z-]+) +\S", _make("help"), re.MULTILINE))
    assert listed == targets
    phony = set(re.findall(r"^\.PHONY: ([a-z-]+)$", MAKEFILE, re.MULTILINE))
    assert phony == targets


def test_generated_files_are_up_to_date() -> None:
    """What `make generate` would write is what is there."""
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "tools/generated.py"), "--check"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_firmware_is_built_once() -> None:
    """Where it is built, `make firmware` finds that and builds nothing."""
    elf = CHECKOUT / "build/cortex-m4/cryptolib.elf"
    if not elf.exists():
        pytest.skip("the cortex-m4 firmware is not built: run `make firmware`")
    before = elf.stat().st_mtime_ns
    _make("firmware")
    assert elf.stat().st_mtime_ns == before


def test_make_alone_is_help() -> None:
    assert _make() == _make("help")


def test_every_pin_has_hashes() -> None:
    pins = list(PIN.finditer(LOCK))
    assert len(pins) > 40
    ends = [pin.start() for pin in pins[1:]] + [len(LOCK)]
    for pin, end in zip(pins, ends, strict=True):
        entry = LOCK[pin.start() : end]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), pin.group(1)
        assert len(PIN.findall(entry)) == 1


def test_lock_names_no_host_or_folder() -> None:
    assert "://" not in LOCK
    allowed = r"([A-Za-z0-9._-]+==[A-Za-z0-9.+!]+|    --hash=sha256:[0-9a-f]{64})( \\)?"
    for line in LOCK.splitlines():
        assert not line or line.startswith("#") or re.fullmatch(allowed, line), line


def test_lock_holds_what_is_asked_for() -> None:
    pinned = {_name(name) for name, _ in PIN.findall(LOCK)}
    assert _asked() <= pinned


def test_project_asks_for_the_same_packages() -> None:
    extra = {_name(line) for line in PROJECT["project"]["optional-dependencies"]["dev"]}
    run = {_name(line) for line in PROJECT["project"]["dependencies"]}
    assert run | extra | {"setuptools"} == _asked()


@pytest.mark.parametrize(("group", "name"), [("console_scripts", "packtrust"), ("can.interface", "packtrust")])
def test_entry_points_load(group: str, name: str) -> None:
    (found,) = [e for e in entry_points(group=group, name=name) if e.dist and e.dist.name == name]
    assert callable(found.load())


def test_no_file_of_the_tooling_names_a_registry() -> None:
    for path in (
        "Makefile",
        "pyproject.toml",
        "requirements.in",
        ".ci/run",
        "tools",
        "boards/unix",
    ):
        folder = CHECKOUT / path
        for file in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
            if file.suffix in {"", ".py", ".toml", ".in"} and file.is_file():
                assert not re.search(r"https?://(?!www\.apache\.org)", file.read_text()), file
