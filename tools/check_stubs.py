#!/usr/bin/env python3
"""Type-check core, firmware and boards against the published stubs of MicroPython (stm32, esp32) and CircuitPython.

The stubs stand for the standard library and must not be where mypy or an editor finds them otherwise: they are
installed from requirements-stubs.lock (hashes checked) into build/stubs/PORT, once.

What counts: in the core, the drivers and the board modules every error. The rest of the firmware is not annotated;
there it is what does not depend on annotations: modules, names and attributes of modules that the port does not have,
and calls with arguments that do not exist. An import that may fail, in a `try` with `except ImportError`, may fail.
"""

import argparse
import ast
import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
LOCK = CHECKOUT / "requirements-stubs.lock"
HOME = CHECKOUT / "build" / "stubs"

CONFIGURATION = """\
[mypy]
python_version = 3.11
check_untyped_defs = True
explicit_package_bases = True
namespace_packages = True
show_error_codes = True
follow_imports = normal
"""

# Not for boards: the host's backend, names for type checkers.
NEVER = ("shared/packtrust/crypto/host.py", "shared/packtrust/_typing.py")

# Kernels for MicroPython's emitters have types that only mpy-cross knows; the tests compile them.
KERNEL = re.compile(r"^\s*@(?:micropython\.)?(?:native|viper|asm_\w+)", re.MULTILINE)

# Errors that do not depend on annotations, for the firmware that has none.
UNTYPED_CODES = ("import-not-found", "import-untyped", "name-defined", "call-arg", "syntax")

# docs.circuitpython.org, "Python standard libraries": all else in CPython's library is not there. Its stubs lack these.
CIRCUITPYTHON_STANDARD = frozenset(
    {
        *("__future__", "array", "asyncio", "binascii", "builtins", "collections", "errno", "gc", "hashlib", "io"),
        *("json", "math", "micropython", "os", "platform", "random", "re", "struct", "sys", "time", "traceback"),
        *("warnings", "zlib"),
    }
)


@dataclass(frozen=True)
class Port:
    """A port, what of the project it never imports, and its boards: folder -> name of its CircuitPython pins."""

    packages: tuple[str, ...]
    skipped: tuple[str, ...]
    boards: dict[str, str] = field(default_factory=dict)
    circuitpython: bool = False


PORTS = {
    "stm32": Port(
        ("micropython-stm32-stubs", "micropython-stdlib-stubs"),
        # No cryptolib in this port unless it is built with TLS.
        ("*/can_canio.py", "*aesio*", "*cryptolib*"),
        {"pybv11": "", "nucleo-g474": "", "nucleo-wb55-mcp2518fd": ""},
    ),
    "esp32": Port(
        ("micropython-esp32-stubs", "micropython-stdlib-stubs"),
        ("*/can_canio.py", "*/can_machine.py", "*/can_pyb.py", "*aesio*", "*gcm_cryptolib*"),
        {"esp32-mcp2515": "", "esp32s3-mcp2518fd": ""},
    ),
    "circuitpython": Port(
        ("circuitpython-stubs",),
        ("*/can_machine.py", "*/can_pyb.py", "*cryptolib*"),
        {"feather-m4-can": "feather_m4_can", "esp32s3-circuitpython": "espressif_esp32s3_devkitc_1_n8r8"},
        circuitpython=True,
    ),
}

ERROR = re.compile(r"^(?P<path>[^:]+):(?P<line>\d+): error: (?P<text>.*?)(?:  \[(?P<code>[a-z-]+)\])?$")


class StubsError(Exception):
    """The check cannot be made; the text is one sentence with the next step."""


def requirement(lock: str, package: str) -> str:
    """What the lock file says about one package: its pin and its hashes."""
    match = re.search(r"^%s==.*(?:\n[ \t].*)*" % re.escape(package), lock, re.MULTILINE)
    if match is None:
        raise StubsError("%s does not pin %s: run `make lock`." % (LOCK.name, package))
    return match.group()


def install(port: Port, name: str) -> Path:
    """The port's stubs in build/stubs/PORT, fetched if they are not there or are not what is pinned."""
    wanted = "\n".join(requirement(LOCK.read_text(), package) for package in port.packages) + "\n"
    digest = hashlib.sha256(wanted.encode()).hexdigest()
    home = HOME / name
    stamp = home / ".pinned"
    if stamp.is_file() and stamp.read_text() == digest:
        return home
    HOME.mkdir(parents=True, exist_ok=True)
    print("Setting up the %s stubs in build/stubs (first time only)" % name, file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=HOME, prefix=".new-") as scratch:
        fresh = Path(scratch) / "stubs"
        pins = Path(scratch) / "requirements.txt"
        pins.write_text(wanted)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", "--only-binary", ":all:", "--target", str(fresh), "-r", str(pins)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
            raise StubsError(
                "The %s stubs cannot be fetched (%s): check the network and try again." % (name, reason[-1][7:].strip())
            )
        if port.circuitpython:
            # mypy takes packages called x-stubs only from site-packages.
            for folder in fresh.glob("*-stubs"):
                folder.rename(fresh / folder.name.removesuffix("-stubs"))
        (fresh / ".pinned").write_text(digest)
        shutil.rmtree(home, ignore_errors=True)
        fresh.rename(home)
    return home


def own_files(port: Port) -> list[Path]:
    """Core and firmware as far as the port has them."""
    found = [*(CHECKOUT / "shared/packtrust").rglob("*.py"), *(CHECKOUT / "firmware/packtrust_node").glob("*.py")]
    kept = []
    for path in sorted(found):
        name = str(path.relative_to(CHECKOUT))
        if any(fnmatch.fnmatch(name, pattern) for pattern in (*NEVER, *port.skipped)):
            continue
        if not KERNEL.search(path.read_text()):
            kept.append(path)
    return kept


def may_fail(path: Path) -> set[int]:
    """Lines of imports that a `try` with `except ImportError` takes care of, or that only type checkers see."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        handled: list[ast.stmt] = []
        if isinstance(node, ast.Try):
            names = {ast.unparse(handler.type) for handler in node.handlers if handler.type is not None}
            if any("ImportError" in name for name in names):
                handled = [*node.body, *node.orelse, *(statement for h in node.handlers for statement in h.body)]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            handled = node.body
        for statement in handled:
            lines.update(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    return lines


def absent_modules(paths: list[Path], home: Path) -> Iterator[str]:
    """Imports of modules CircuitPython does not have: its stubs stand beside CPython's library, which has them."""
    for path in paths:
        allowed = may_fail(path)
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                own = top in ("packtrust", "packtrust_node", "packtrust_board")
                if own or top in CIRCUITPYTHON_STANDARD or (home / top).is_dir():
                    continue
                if node.lineno not in allowed:
                    yield "%s:%d: CircuitPython has no module %s" % (path.relative_to(CHECKOUT), node.lineno, name)


def counts(path: str, line: int, text: str, code: str, allowed: set[int]) -> bool:
    """Whether an error of mypy is one for us (see above)."""
    if line in allowed:
        return False
    name = Path(path).name
    if path.startswith(("shared/", "boards/")) or (name.startswith("can_") and name != "can_slcan.py"):
        return True
    return code in UNTYPED_CODES or (code == "attr-defined" and text.startswith("Module "))


def check(name: str, port: Port, board: str, cache: Path) -> list[str]:
    """Errors of core, firmware and one board against the port's stubs."""
    home = install(port, name)
    paths = own_files(port)
    module = CHECKOUT / "boards" / board / "packtrust_board.py"
    search = [home, CHECKOUT / "shared", CHECKOUT / "firmware", module.parent]
    if port.boards[board]:
        pins = HOME / ("%s-%s" % (name, board)) / "board"
        pins.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(home / "board_definitions" / port.boards[board] / "__init__.pyi", pins / "__init__.pyi")
        search.insert(0, pins.parent)
    found = list(absent_modules([*paths, module], home)) if port.circuitpython else []
    configuration = HOME / "mypy.ini"
    configuration.write_text(CONFIGURATION)
    command = [sys.executable, "-m", "mypy", "--config-file", str(configuration), "--no-error-summary"]
    command += ["--cache-dir", str(cache / board)]
    if not port.circuitpython:
        command += ["--custom-typeshed-dir", str(home)]
    done = subprocess.run(
        [*command, *map(str, [*paths, module])],
        cwd=CHECKOUT,
        env={**os.environ, "MYPYPATH": ":".join(map(str, search))},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise StubsError("mypy failed on %s: %s" % (name, (done.stderr or done.stdout).strip()[-500:]))
    checked = {str(path.relative_to(CHECKOUT)) for path in [*paths, module]}
    imports: dict[str, set[int]] = {}
    for output in done.stdout.splitlines():
        match = ERROR.match(output)
        path = "" if match is None else match["path"]
        if match is None or path not in checked:
            continue  # a note, an error in the stubs themselves, or in what this port does not import
        if path not in imports:
            imports[path] = may_fail(CHECKOUT / path)
        if counts(path, int(match["line"]), match["text"], match["code"] or "syntax", imports[path]):
            found.append(output)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print what is wrong; 0 if nothing is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("ports", nargs="*", help="all, if none is named: " + ", ".join(PORTS))
    names = parser.parse_args(arguments).ports or list(PORTS)
    if unknown := [name for name in names if name not in PORTS]:
        parser.error("no such port: %s. There are %s" % (", ".join(unknown), ", ".join(PORTS)))
    wrong = 0
    try:
        for name in names:
            for board in PORTS[name].boards:
                errors = check(name, PORTS[name], board, HOME / ".cache" / name)
                for line in errors:
                    print(line)
                print("%s stubs, board %s: %s" % (name, board, "%d errors" % len(errors) if errors else "good"))
                wrong += len(errors)
    except StubsError as error:
        print("error: %s" % error, file=sys.stderr)
        return 2
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
