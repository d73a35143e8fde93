#!/usr/bin/env python3
"""Write the Thumb-2 kernel of AES-GCM for MicroPython: assemble gcm_thumb.s and print the module gcm_thumb.

The assembler of MicroPython knows too few instructions, so the module holds the words that GNU `as` makes of the
source, and the source's hash. Where there is no assembler, the module is taken as it is if that hash is the right one:
tools/generated.py can check everywhere, and only a changed source needs arm-none-eabi-as.
"""

import hashlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
SOURCE = CHECKOUT / "tools/gcm_thumb.s"
MODULE = CHECKOUT / "shared/packtrust/crypto/gcm_thumb.py"
# Of the source's states: where the tables lie, and what else gcm_tables must know.
LAYOUT = {"SIZE": 1616, "SHARED": 1, "REDUCTION": 2, "MEMORY": 1, "BITS": 4, "STRIDE": 16, "H2": 592, "H3": 1104}

TEXT = '''"""AES-GCM for MicroPython on Cortex-M3 and later: one call seals or opens a record in its work buffer.

Made by tools/gcm_thumb.py from tools/gcm_thumb.s, which explains it. SHA-256 of that source:
{digest}
"""

# ruff: noqa
# mypy: ignore-errors
# fmt: off
import micropython

{layout}


@micropython.asm_thumb
def run(r0, r1, r2, r3) -> bool:
{words}


class Call(bytearray):
    """A call: address of the state; 0 to seal, 1 to open, 2 to encrypt counter block n."""

    run = run
'''


def tool(name: str) -> str | None:
    """Path of a program of the cross compiler: on the PATH, or the one the virtual board is built with."""
    found = shutil.which("arm-none-eabi-" + name)
    if found:
        return found
    private = sorted((CHECKOUT / "build/cortex-m4").glob("**/bin/arm-none-eabi-" + name))
    return str(private[0]) if private else None


def assemble(assembler: str, objcopy: str) -> bytes:
    """The machine code."""
    with tempfile.TemporaryDirectory(prefix="packtrust-thumb-") as scratch:
        made = Path(scratch) / "kernel.o"
        subprocess.run([assembler, "-o", str(made), str(SOURCE)], check=True)
        subprocess.run([objcopy, "-O", "binary", str(made), str(made) + ".bin"], check=True)
        return Path(str(made) + ".bin").read_bytes()


def module() -> str:
    """The text of the module."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()
    assembler, objcopy = tool("as"), tool("objcopy")
    if assembler is None or objcopy is None:
        text = MODULE.read_text() if MODULE.exists() else ""
        if re.search("^%s$" % digest, text, re.MULTILINE):
            return text
        raise SystemExit("tools/gcm_thumb.s was changed: install binutils-arm-none-eabi and run make generate")
    code = assemble(assembler, objcopy)
    code += bytes(len(code) % 2)
    halves = struct.unpack("<%dH" % (len(code) // 2), code)
    lines = [
        "    data(2, %s)" % ", ".join(str(half) for half in halves[at : at + 16]) for at in range(0, len(halves), 16)
    ]
    layout = "\n".join("%s = %d" % item for item in LAYOUT.items())
    return TEXT.format(digest=digest, layout=layout, words="\n".join(lines))


if __name__ == "__main__":
    sys.stdout.write(module())
