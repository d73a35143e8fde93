#!/usr/bin/env python3
"""Build the firmware of the virtual board `cortex-m4` and MicroPython's unix port with 32 bits.

MicroPython and mbedTLS come as source from Debian (signatures checked). Cross compiler, emulator and 32-bit C library
are this machine's where they will do, else Debian's packages unpacked in build/ (nothing is installed, no root needed).
Done before with the same inputs, it only says so. Needs nothing but Python 3.11, a C compiler and make; progress goes
to standard error.

    build/cortex-m4/{cryptolib,plain,reference,suite}.elf    build/cortex-m4/bin/qemu-system-arm
    build/micropython32/bin/micropython
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

BOARD = Path(__file__).resolve().parent
CHECKOUT = BOARD.parents[1]
sys.path.insert(0, str(CHECKOUT / "tools"))

import debian_packages  # noqa: E402  (the tools folder is no package: it must be on the path first)

with (BOARD / "board.toml").open("rb") as _file:
    _SETTINGS = tomllib.load(_file)
RECIPE = _SETTINGS["build"]
VARIANTS: dict[str, str] = _SETTINGS["variants"]
SUITE_HEAP = 3 << 20
NEXT_STEP = "apt install %s" % " ".join([*RECIPE["toolchain"], *RECIPE["multilib"], *RECIPE["emulator"]])
WANTED_DIRECTORIES = ("drivers", "extmod", "lib", "mpy-cross", "ports/qemu", "ports/unix", "py", "shared", "tools")
CORTEX_M4 = ("-mthumb", "-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")
# Of packages: what running the programs does not need.
USELESS = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/libx32")


class BuildError(Exception):
    """The firmware cannot be had; the text is one sentence with the next step."""


def run(command: Sequence[str | Path], *, what: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a program; BuildError with its last words when it fails."""
    try:
        done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError("%s failed: %s: %s" % (what, command[0], error.strerror)) from error
    if done.returncode:
        said = [
            line
            for line in (done.stderr + done.stdout).splitlines()
            if re.search(r"\berror\b|undefined reference", line, re.I) and "Error 1" not in line
        ]
        said = said or (done.stderr or done.stdout).splitlines()[-1:] or ["exit code %d" % done.returncode]
        raise BuildError("%s failed: %s" % (what, said[0].strip()))
    return done.stdout


def runs(command: Sequence[str | Path], wanted: str = "", **options: object) -> bool:
    """Whether a program runs and says `wanted`."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,  # type: ignore[call-overload]
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and wanted in done.stdout


# ---------------------------------------------------------------- what is up to date


def inputs_key() -> str:
    """Hash of all that the outputs depend on in this checkout."""
    digest = hashlib.sha256()
    inputs = [*BOARD.glob("firmware/**/*"), *BOARD.glob("unix32/**/*"), BOARD / "board.toml", Path(__file__).resolve()]
    for path in [*sorted(inputs), CHECKOUT / "tools/debian_packages.py"]:
        if not path.is_file() or "__pycache__" in path.parts:
            continue
        digest.update(("%s\0%d\0" % (path.relative_to(CHECKOUT), path.stat().st_size)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def outputs(build: Path) -> list[Path]:
    """What is made."""
    home = build / "cortex-m4"
    return [
        *(home / name for name in VARIANTS.values()),
        home / "bin" / "qemu-system-arm",
        build / "micropython32" / "bin" / "micropython",
    ]


def up_to_date(build: Path, key: str) -> bool:
    """Whether everything is there, made from these inputs."""
    stamp = build / "cortex-m4" / "stamp.json"
    if not stamp.is_file() or not all(path.is_file() for path in outputs(build)):
        return False
    try:
        return bool(json.loads(stamp.read_text())["inputs"] == key)
    except (ValueError, KeyError, TypeError):
        return False


# ---------------------------------------------------------------- tools


class Tools:
    """Compilers and emulator: this machine's, or private ones below build/cortex-m4/tools."""

    def __init__(self, build: Path) -> None:
        self.downloads = build / "downloads"
        self.home = build / "cortex-m4" / "tools"
        self.bin = self.home / "bin"
        self.env = {
            **os.environ,
            "LC_ALL": "C",
            "PATH": "%s:%s" % (self.bin, os.environ.get("PATH", os.defpath)),
            # The build looks for MicroPython's version in git: not in ours.
            "GIT_CEILING_DIRECTORIES": str(build),
        }
        for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CFLAGS", "CPPFLAGS", "LDFLAGS", "CC", "CROSS_COMPILE"):
            self.env.pop(name, None)

    def _private(self, name: str, packages: Sequence[str]) -> Path:
        """Unpack what the machine lacks of some packages; the folder they are in."""
        root = self.home / name
        cache = self.downloads / ("%s-%s-%s" % (name, debian_packages.own_suite(), debian_packages.architecture()))
        if root.is_dir():
            return root
        present = debian_packages.installed_packages()
        files = debian_packages.download_missing(packages, cache)
        missing = [file for file in files if file.name.split("_")[0] not in present]
        with tempfile.TemporaryDirectory(dir=self.home, prefix="." + name) as scratch:
            fresh = Path(scratch) / "root"
            debian_packages.unpack(missing, fresh)
            for folder in USELESS:
                shutil.rmtree(fresh / folder, ignore_errors=True)
            shutil.rmtree(fresh / "usr/lib/arm-none-eabi/newlib", ignore_errors=True)
            fresh.rename(root)
        return root

    def _forget(self, name: str) -> None:
        shutil.rmtree(self.home / name, ignore_errors=True)
        for cache in self.downloads.glob(name + "-*"):
            shutil.rmtree(cache, ignore_errors=True)

    def _script(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".new")
        fresh.write_text("#!/bin/sh\n" + text)
        fresh.chmod(0o755)
        fresh.rename(path)

    def host(self) -> None:
        """A compiler for this machine, and make."""
        if not runs(["make", "--version"], env=self.env) or not self._compiles(["gcc"], "int main(void){return 0;}"):
            raise BuildError("there is no C compiler or no make on this machine: apt install gcc make libc6-dev")

    def _compiles(self, compiler: Sequence[str | Path], text: str, *more: str) -> bool:
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch) / "try.c"
            source.write_text(text)
            return runs([*compiler, str(source), "-o", str(source.with_suffix(".out")), *more], env=self.env)

    def cross(self) -> None:
        """arm-none-eabi-gcc with its C headers."""
        text = "#include <math.h>\n#include <string.h>\nint f(int x){return x;}\n"
        good = lambda: self._compiles(["arm-none-eabi-gcc", *CORTEX_M4, "-c"], text)  # noqa: E731
        if good():
            return
        for _ in range(2):
            root = self._private("toolchain", RECIPE["toolchain"])
            for program in sorted((root / "usr/bin").glob("arm-none-eabi-*")):
                more = " -isystem %s" % shlex.quote(str(root / "usr/include/newlib"))
                more = more if program.name in ("arm-none-eabi-gcc", "arm-none-eabi-cpp") else ""
                self._script(self.bin / program.name, 'exec %s%s "$@"\n' % (shlex.quote(str(program)), more))
            if good():
                return
            self._forget("toolchain")
        raise BuildError("the ARM cross compiler of Debian's packages does not run here: %s" % NEXT_STEP)

    def gcc32(self) -> list[str]:
        """A C compiler for 32-bit programs of this machine, that need no 32-bit libraries to run."""
        text = '#include <stdio.h>\n#include <math.h>\nint main(void){printf("%p", stdout);return 0;}\n'
        if self._compiles(["gcc", "-m32", "-static"], text, "-lm"):
            return ["gcc", "-m32"]
        version = run(["gcc", "-dumpversion"], what="asking gcc for its version", env=self.env).strip().split(".")[0]
        triplet = run(["gcc", "-dumpmachine"], what="asking gcc for its target", env=self.env).strip()
        for _ in range(2):
            root = self._private("multilib", [*RECIPE["multilib"]])
            folders = [root / "usr/lib/gcc" / triplet / version / "32", root / "usr/lib32"]
            command = ["gcc", "-m32"]
            for folder in folders:
                command += ["-B%s/" % folder, "-L%s" % folder]
            # Headers: those for 32 bit of the package, all others of the machine.
            for folder in (root / "usr/include", root / "usr/include" / triplet, Path("/usr/include") / triplet):
                command += ["-idirafter", str(folder)]
            if self._compiles([*command, "-static"], text, "-lm"):
                return command
            self._forget("multilib")
        raise BuildError("gcc cannot make 32-bit programs here: apt install gcc-multilib")

    def qemu(self, target: Path) -> None:
        """A start script for the emulator at `target`."""
        found = shutil.which("qemu-system-arm")
        if found and runs([found, "-machine", "help"], "mps2-an386"):
            self._script(target, 'exec %s "$@"\n' % shlex.quote(found))
            return
        text = (
            "# Debian's QEMU with the libraries this machine lacks; it finds its files from its own place.\n"
            'root=$(dirname -- "$(readlink -f -- "$0")")/../tools/qemu\n'
            "%sexport LD_LIBRARY_PATH\n"
            'exec "$root/usr/bin/qemu-system-arm" -L "$root/usr/share/qemu" "$@"\n'
        )
        for _ in range(2):
            root = self._private("qemu", RECIPE["emulator"])
            folders = sorted({path.parent.relative_to(root) for path in root.glob("**/lib*.so.*")})
            # Modules of their own are found by QEMU itself.
            folders = [folder for folder in folders if "qemu" not in folder.parts]
            paths = 'LD_LIBRARY_PATH="%s"\n' % ":".join("$root/%s" % folder for folder in folders)
            self._script(target, text % paths)
            if runs([target, "-machine", "help"], "mps2-an386"):
                return
            self._forget("qemu")
        raise BuildError("the QEMU of Debian's packages does not run here: apt install qemu-system-arm")


# ---------------------------------------------------------------- sources


def unpack_sources(downloads: Path, target: Path) -> tuple[Path, Path]:
    """MicroPython's and mbedTLS's folders, fresh below `target`: as their authors published them."""
    files = debian_packages.download_source(RECIPE["sources"], RECIPE["suites"], downloads / "firmware-sources")
    found = []
    for name, wanted in (("micropython", WANTED_DIRECTORIES), ("mbedtls", ("include", "library"))):
        archives = [file for file in files if file.name.startswith(name + "_") and ".orig.tar." in file.name]
        if len(archives) != 1:
            raise BuildError("Debian's source of %s has not the one archive expected: update the checkout" % name)
        with tarfile.open(archives[0]) as archive:
            chosen = []
            for member in archive:
                parts = member.name.split("/", 1)
                if len(parts) == 2 and (parts[1].startswith(tuple(w + "/" for w in wanted)) or "/" not in parts[1]):
                    chosen.append(member)
            tops = {member.name.split("/", 1)[0] for member in chosen}
            archive.extractall(target, members=chosen, filter="data")
        if len(tops) != 1:
            raise BuildError("Debian's source of %s has not the one folder expected: update the checkout" % name)
        found.append(target / tops.pop())
    micropython, mbedtls = found
    # Debian leaves the library of modules out; the build only looks whether it has been fetched.
    readme = micropython / "lib" / "micropython-lib" / "README.md"
    readme.parent.mkdir(parents=True, exist_ok=True)
    readme.touch()
    return micropython, mbedtls


# ---------------------------------------------------------------- building


def build_all(build: Path, scratch: Path, tools: Tools, gcc32: Sequence[str]) -> None:
    """Make every output."""
    home = build / "cortex-m4"
    jobs = "-j%d" % len(os.sched_getaffinity(0))
    micropython, mbedtls = unpack_sources(build / "downloads", scratch / "source")
    epoch = int((micropython / "py" / "mpconfig.h").stat().st_mtime)
    env = {**tools.env, "SOURCE_DATE_EPOCH": str(epoch)}

    def make(what: str, folder: str, *settings: str) -> None:
        debian_packages.say("  building %s ..." % what)
        run(["make", jobs, "-C", micropython / folder, *settings], what="building %s" % what, env=env)

    make("mpy-cross", "mpy-cross")
    # Paths without the scratch folder's random name: equal inputs give equal firmware.
    board = scratch / "board"
    shutil.copytree(BOARD / "firmware", board)
    for module in ("canboard", "reference"):
        (board / "usermod" / module / "mbedtls").symlink_to(mbedtls)
    for variant, name in VARIANTS.items():
        settings = [
            "BOARD=cortex-m4",
            "BOARD_DIR=%s" % board,
            "USER_C_MODULES=%s" % (board / "usermod"),
            "BUILD=%s" % (scratch / variant),
            "VARIANT=%s" % variant,
        ]
        if variant != "plain":
            settings.append("MBEDTLS=%s" % mbedtls)
        if variant == "suite":
            settings.append("MICROPY_HEAP_SIZE=%d" % SUITE_HEAP)
            # The same but for two files.
            shutil.copytree(scratch / "cryptolib", scratch / variant)
            (scratch / variant / "canboard" / "canboard.o").unlink()
            (scratch / variant / "canboard" / "main.o").unlink()
            (scratch / variant / "main.o").unlink()
            (scratch / variant / "firmware.elf").unlink()
        make("MicroPython for cortex-m4, %s" % variant, "ports/qemu", *settings)
        _install(scratch / variant / "firmware.elf", home / name)
    unix = scratch / "unix32"
    shutil.copytree(BOARD / "unix32", unix)
    (unix / "usermod" / "mbed" / "mbedtls").symlink_to(mbedtls)
    flags = [
        "-DMICROPY_SSL_MBEDTLS=1",
        "-DMICROPY_PY_CRYPTOLIB=1",
        "-I%s" % (mbedtls / "include"),
        "-DMBEDTLS_CONFIG_FILE='\"%s\"'" % (unix / "mbedtls_config_unix32.h"),
    ]
    make(
        "MicroPython for unix, 32 bit",
        "ports/unix",
        "VARIANT=standard",
        "BUILD=%s" % (scratch / "unix"),
        "CC=%s" % shlex.join(gcc32),
        "MICROPY_FORCE_32BIT=0",  # the compiler is one already
        "FROZEN_MANIFEST=%s" % (unix / "manifest.py"),
        *("MICROPY_PY_SSL=0", "MICROPY_PY_FFI=0", "MICROPY_PY_BTREE=0", "MICROPY_PY_JNI=0"),
        "USER_C_MODULES=%s" % (unix / "usermod"),
        "CFLAGS_EXTRA=%s" % " ".join(flags),
        "LDFLAGS_EXTRA=-static",
    )
    _install(scratch / "unix" / "micropython", build / "micropython32" / "bin" / "micropython")


def _install(made: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(target.name + ".new")
    shutil.copy2(made, fresh)
    fresh.rename(target)


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".cortex-m4.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(checkout: Path = CHECKOUT) -> int:
    """Make what is missing or out of date; 1 and a sentence that says what to do if that cannot be."""
    build = checkout / "build"
    try:
        with _one_at_a_time(build):
            key = inputs_key()
            if up_to_date(build, key):
                return 0
            began = time.monotonic()
            debian_packages.say("Building the cortex-m4 firmware in build/cortex-m4 (first time, or it has changed)")
            tools = Tools(build)
            tools.bin.mkdir(parents=True, exist_ok=True)
            stamp = build / "cortex-m4" / "stamp.json"
            stamp.unlink(missing_ok=True)
            tools.host()
            tools.cross()
            gcc32 = tools.gcc32()
            tools.qemu(build / "cortex-m4" / "bin" / "qemu-system-arm")
            # One name for the folder of every build: it is in messages of the firmware.
            scratch = build / "cortex-m4" / "work"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            build_all(build, scratch, tools, gcc32)
            shutil.rmtree(scratch)
            stamp.write_text(json.dumps({"inputs": key}) + "\n")
            debian_packages.say("  done in %.0f s" % (time.monotonic() - began))
    except (BuildError, debian_packages.PackageError) as error:
        debian_packages.say("error: no cortex-m4 firmware: %s; then run `make firmware` again." % error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
