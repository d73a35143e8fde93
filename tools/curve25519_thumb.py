#!/usr/bin/env python3
"""Write X25519 in Thumb-2 for MicroPython: assemble curve25519_thumb.s and print the module curve25519_thumb.

As tools/gcm_thumb.py does for AES-GCM: the module holds machine words and the hash of their source, and is taken as it
is where there is no assembler and the source is the same.
"""

import hashlib
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from gcm_thumb import tool

CHECKOUT = Path(__file__).resolve().parents[1]
SOURCE = CHECKOUT / "tools/curve25519_thumb.s"
MODULE = CHECKOUT / "shared/packtrust/crypto/curve25519_thumb.py"

TEXT = '''"""X25519 for MicroPython on Cortex-M4, M7 and M33, which have UMAAL: one call a multiplication.

Made by tools/curve25519_thumb.py from tools/curve25519_thumb.s, which explains it. SHA-256 of that source:
{digest}
"""

# ruff: noqa
# mypy: ignore-errors
# fmt: off
import micropython

from packtrust.crypto.buffers import wipe


@micropython.asm_thumb
def _run(r0, r1):
{words}


def multiply(scalar, point):
    """x of the clamped `scalar` times the point of that x, both of 32 bytes, the top bit of `point` clear."""
    state = bytearray(288)
    state[:32] = point
    state[32] = 1
    state[96:128] = point
    state[128] = 1
    _run(state, scalar)
    result = state[32:64]
    wipe(state)
    return result
'''


def assemble(assembler: str, objcopy: str) -> bytes:
    """The machine code."""
    with tempfile.TemporaryDirectory(prefix="packtrust-thumb-") as scratch:
        made = str(Path(scratch) / "kernel")
        subprocess.run([assembler, "-o", made + ".o", str(SOURCE)], check=True)
        subprocess.run([objcopy, "-O", "binary", made + ".o", made + ".bin"], check=True)
        return Path(made + ".bin").read_bytes()


def module() -> str:
    """The text of the module."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()
    assembler, objcopy = tool("as"), tool("objcopy")
    if assembler is None or objcopy is None:
        text = MODULE.read_text() if MODULE.exists() else ""
        if re.search("^%s$" % digest, text, re.MULTILINE):
            return text
        raise SystemExit("tools/curve25519_thumb.s was changed: install binutils-arm-none-eabi and run make generate")
    code = assemble(assembler, objcopy)
    code += bytes(len(code) % 2)
    halves = struct.unpack("<%dH" % (len(code) // 2), code)
    lines = [
        "    data(2, %s)" % ", ".join(str(half) for half in halves[at : at + 16]) for at in range(0, len(halves), 16)
    ]
    return TEXT.format(digest=digest, words="\n".join(lines))


if __name__ == "__main__":
    sys.stdout.write(module())
