#!/usr/bin/env python3
"""Find or fetch a MicroPython for the virtual board and print its path.

In this order: the one $MICROPYTHON names, one on the PATH, the private one in build/micropython. If
none will do, the private one is made from Debian's package (signature checked, the system
untouched). board.toml says what "will do" means. Needs nothing but Python 3.11; progress goes to
standard error, the path to standard output.
"""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tools"))

import debian_packages  # noqa: E402  (the tools folder is no package: it must be on the path first)

with (Path(__file__).resolve().parent / "board.toml").open("rb") as _file:
    INTERPRETER = tomllib.load(_file)["interpreter"]
MINIMUM: tuple[int, ...] = tuple(INTERPRETER["minimum"])
NEXT_STEP = "install MicroPython %d.%d or newer and run again with MICROPYTHON=/path/to/micropython" % (
    MINIMUM[0],
    MINIMUM[1],
)
PROBE = (
    "import sys\n"
    "print(sys.implementation[0], '.'.join([str(n) for n in sys.implementation[1][:3]]))\n"
    "for name in %r:\n"
    "    try:\n"
    "        __import__(name)\n"
    "    except ImportError:\n"
    "        print('missing', name)\n"
)
WRAPPER = """\
#!/bin/sh
# Debian's MicroPython with the C library it was built for. It finds its files from its own place:
# the folder may be moved.
root=$(dirname -- "$(readlink -f -- "$0")")/../root
libraries=$root/{libraries}
exec "$root/{loader}" --argv0 "$0" --library-path "$libraries" "$root/usr/bin/micropython" "$@"
"""


class UnfitError(Exception):
    """No interpreter that will do; the text is one sentence with the next step."""


def parse_version(text: str) -> tuple[int, ...]:
    """`1.25.0`, `1.26.0-preview` or `v1.25` as numbers; () if there are none."""
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in match.groups() if part is not None) if match else ()


def defect(path: str) -> str | None:
    """Why the interpreter at `path` will not do, found by running it; None if it will."""
    try:
        done = subprocess.run(
            [path, "-c", PROBE % (tuple(INTERPRETER["modules"]),)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "it does not run (%s)" % (getattr(error, "strerror", None) or "no answer")
    lines = done.stdout.splitlines()
    if done.returncode or not lines or not lines[0].startswith("micropython "):
        return "it does not answer as MicroPython"
    version = parse_version(lines[0])
    if version[:2] < MINIMUM:
        return "it is version %s" % ".".join(map(str, version))
    missing = [line.split()[1] for line in lines[1:] if line.startswith("missing ")]
    if missing:
        return "it lacks the module%s %s" % ("s" * (len(missing) > 1), ", ".join(missing))
    return None


def find(environment: Mapping[str, str], checkout: Path = CHECKOUT) -> str | None:
    """The first interpreter that will do, without fetching anything.

    One that was named and will not do is an error (UnfitError): silently taking another would
    surprise.
    """
    named = environment.get(INTERPRETER["environment"])
    if named:
        path = shutil.which(named, path=environment.get("PATH"))
        reason = defect(path) if path else "there is no such program"
        if path is None or reason:
            raise UnfitError(
                "$%s names %s, but %s: %s, or unset it." % (INTERPRETER["environment"], named, reason, NEXT_STEP)
            )
        return str(Path(path).absolute())
    path = shutil.which(INTERPRETER["command"], path=environment.get("PATH"))
    if path:
        reason = defect(path)
        if reason is None:
            return str(Path(path).absolute())
        debian_packages.say("  MicroPython on the PATH (%s) is passed over: %s." % (path, reason))
    private = checkout / str(INTERPRETER["private"])
    if private.exists() and defect(str(private)) is None:
        return str(private)
    return None


def wrapper_for(root: Path) -> str:
    """The text of the start script for packages unpacked at `root`."""
    loaders = sorted(p for p in (root / "usr" / "lib").glob("*/ld-linux*.so.*"))
    loaders += sorted(p for p in (root / "lib").glob("*/ld-linux*.so.*"))
    if not loaders:
        raise UnfitError("Debian's packages hold no C library for this machine: %s." % NEXT_STEP)
    loader = loaders[0].relative_to(root)
    return WRAPPER.format(loader=loader, libraries=loader.parent)


def build(checkout: Path = CHECKOUT) -> str:
    """Make the private interpreter from Debian's package; whole or not at all. Returns its path."""
    debian = INTERPRETER["debian"]
    private = checkout / INTERPRETER["private"]
    home = private.parents[1]
    cache = checkout / "build" / "downloads" / ("micropython-%s" % _architecture())
    debian_packages.say("Setting up MicroPython in build/micropython (first time only)")
    try:
        packages = debian_packages.download(debian["package"], debian["suites"], cache)
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=".micropython-") as scratch:
            fresh = Path(scratch) / "new"
            debian_packages.unpack(packages, fresh / "root")
            shutil.rmtree(fresh / "root" / "usr" / "share", ignore_errors=True)
            start = fresh / private.relative_to(home)
            start.parent.mkdir()
            start.write_text(wrapper_for(fresh / "root"))
            start.chmod(0o755)
            reason = defect(str(start))
            if reason:
                raise UnfitError("Debian's MicroPython was fetched, but %s: %s." % (reason, NEXT_STEP))
            if home.exists():
                home.rename(Path(scratch) / "old")
            fresh.rename(home)
    except debian_packages.PackageError as error:
        raise UnfitError(
            "MicroPython cannot be taken from Debian (%s): check the network, or %s." % (error, NEXT_STEP)
        ) from error
    return str(private)


def _architecture() -> str:
    try:
        return debian_packages.architecture()
    except debian_packages.PackageError as error:
        raise UnfitError("No MicroPython here, and %s: %s." % (error, NEXT_STEP)) from error


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".micropython.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Print the interpreter's path and note it in build/micropython.path.

    1 and a sentence that says what to do if there is none.
    """
    try:
        with _one_at_a_time(CHECKOUT / "build"):
            path = find(os.environ)
            if path is None:
                path = build()
        (CHECKOUT / "build" / "micropython.path").write_text(path + "\n")
    except UnfitError as error:
        debian_packages.say("error: %s" % error)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
