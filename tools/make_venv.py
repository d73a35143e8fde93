#!/usr/bin/env python3
"""The project's virtual environment, renewed when the lock file, Python or the folder has changed.

Run it as often as you like; when nothing has changed it does nothing. Packages come from
requirements.lock, each checked against its hash, through pip as this machine has it configured.
Needs nothing but Python 3.11: where Debian's venv comes without pip, pip is taken from Debian's
package into the environment, the system untouched.
"""

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import debian_packages

CHECKOUT = Path(__file__).resolve().parents[1]
VENV = CHECKOUT / ".venv"
PYTHON = VENV / "bin" / "python"
STATE = VENV / "packtrust-state.json"
LOG = CHECKOUT / "build" / "setup.log"
LOCK_FILE = CHECKOUT / "requirements.lock"
PACKAGES = (".whl", ".tar.gz", ".zip")
PIP_SUITES = ("trixie", "forky")


class SetupError(Exception):
    """The environment cannot be made; the text says why and what to do."""


def wanted(lock: bytes, project: bytes) -> dict[str, str]:
    """What the environment depends on: it is right as long as this has not changed."""
    return {
        "python": "%s %s" % (sys.version, os.path.realpath(sys.executable)),
        "folder": str(CHECKOUT),
        "lock": hashlib.sha256(lock).hexdigest(),
        "project": hashlib.sha256(project).hexdigest(),
    }


def found() -> dict[str, str]:
    """The same of the environment that is there; empty if it was never finished."""
    if not STATE.is_file() or not PYTHON.exists():
        return {}
    state: dict[str, str] = json.loads(STATE.read_text())
    return state


def backend_only(lock: str) -> str:
    """The lock file's entry for setuptools, hashes included: for building from source."""
    entry: list[str] = []
    for line in lock.splitlines():
        if entry and not line.startswith("    "):
            break
        if entry or line.startswith("setuptools=="):
            entry.append(line)
    if not entry:
        raise SetupError("requirements.lock does not hold setuptools: run make lock")
    return "\n".join(entry) + "\n"


def _environment() -> dict[str, str]:
    env = dict(os.environ)
    # Settings that would send packages elsewhere, or alter what Python imports.
    for name in ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONPATH", "PYTHONHOME"):
        env.pop(name, None)
    env.update(PIP_USER="0", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", PYTHONUNBUFFERED="1")
    return env


def _run(what: str, command: list[str]) -> None:
    """Run a step; its whole output goes to the log, what tells of progress to the terminal."""
    LOG.parent.mkdir(exist_ok=True)
    tail: list[str] = []
    with (
        LOG.open("a") as log,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=CHECKOUT,
            env=_environment(),
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            tail = [*tail[-7:], line.rstrip()]
            name = next((word for word in line.split() if word.endswith(PACKAGES)), "")
            if name and line.split()[0] in ("Downloading", "Using"):
                debian_packages.say("    %s" % name.rsplit("/", 1)[-1])
            elif line.startswith("Installing collected packages"):
                debian_packages.say("    installing %d packages" % (line.count(",") + 1))
    if process.returncode:
        for line in tail:
            debian_packages.say("    | %s" % line)
        raise SetupError(
            "%s failed (all of it: build/setup.log): check the network and pip's settings, then run make again" % what
        )


def _pip(what: str, *arguments: str) -> None:
    _run(what, [str(PYTHON), "-m", "pip", "install", "--progress-bar", "off", *arguments])


def _pip_from_debian() -> None:
    """Put pip into the environment from Debian's package of its wheel."""
    version = "python3.%d-venv" % sys.version_info[1]
    try:
        cache = CHECKOUT / "build" / "downloads" / "python3-pip-whl"
        packages = debian_packages.download("python3-pip-whl", PIP_SUITES, cache)
        with tempfile.TemporaryDirectory(dir=CHECKOUT / "build") as scratch:
            debian_packages.unpack(packages, Path(scratch))
            wheels = sorted((Path(scratch) / "usr/share/python-wheels").glob("pip-*.whl"))
            if not wheels:
                raise debian_packages.PackageError("the package holds no wheel of pip")
            # A wheel is a zip file: pip runs from inside it and installs itself.
            _run(
                "installing pip",
                [
                    str(PYTHON),
                    f"{wheels[-1]}/pip",
                    "install",
                    "--no-index",
                    "--no-deps",
                    str(wheels[-1]),
                ],
            )
    except debian_packages.PackageError as error:
        raise SetupError(
            "this Python cannot make a virtual environment with pip in it: apt install %s (or "
            "python3-venv), then run make again; taking pip from Debian's package failed too (%s)" % (version, error)
        ) from error


def _create() -> None:
    if importlib.util.find_spec("venv") is None:
        raise SetupError("this Python has no venv module: apt install python3-venv, then run make again")
    debian_packages.say("Setting up Python packages in .venv (first time only)")
    if VENV.exists():
        shutil.rmtree(VENV)
    with_pip = importlib.util.find_spec("ensurepip") is not None
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text("")
    debian_packages.say("  making the environment (Python %d.%d.%d) ..." % sys.version_info[:3])
    options = [] if with_pip else ["--without-pip"]
    # Not sys.executable: that may be the very environment that was just removed.
    python = getattr(sys, "_base_executable", None) or sys.executable
    _run("making the environment", [python, "-m", "venv", *options, str(VENV)])
    if not with_pip:
        _pip_from_debian()


def _install_lock() -> None:
    debian_packages.say("  installing the packages of requirements.lock, hashes checked ...")
    backend = CHECKOUT / "build" / "backend.lock"
    backend.write_text(backend_only(LOCK_FILE.read_text()))
    # The backend goes first, so that nothing is built with packages the lock does not name.
    _pip("installing setuptools", "--require-hashes", "-r", str(backend))
    _pip(
        "installing the locked packages",
        "--require-hashes",
        "--no-build-isolation",
        "-r",
        str(LOCK_FILE),
    )


def update() -> None:
    """Bring the environment up to date. Raises SetupError."""
    want = wanted(LOCK_FILE.read_bytes(), (CHECKOUT / "pyproject.toml").read_bytes())
    have = found()
    if have == want:
        return
    if any(have.get(name) != want[name] for name in ("python", "folder", "lock")):
        _create()
        _install_lock()
    STATE.unlink(missing_ok=True)
    debian_packages.say("  installing packtrust itself, editable ...")
    _pip("installing packtrust", "--no-deps", "--no-build-isolation", "-e", ".")
    STATE.write_text(json.dumps(want, indent=1) + "\n")
    debian_packages.say("  Python packages are ready.")


def main() -> int:
    """0 when the environment is ready, 1 after a sentence that says what is wrong."""
    (CHECKOUT / "build").mkdir(exist_ok=True)
    with (CHECKOUT / "build" / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            update()
        except SetupError as error:
            debian_packages.say("error: %s." % error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
