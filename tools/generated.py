#!/usr/bin/env python3
"""Write the files that are made from the code, or with --check say which are not up to date.

Each is what a program of ours prints. Run it with the environment's Python (`make generate`, `make
docs-check`).
"""

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
MADE_BY = {
    "docs/attacks.md": ["tests/attacks/page.py"],
    "docs/messages.md": ["-m", "packtrust_host.messages_doc"],
    "docs/packtrust.dbc": ["-m", "packtrust_host.dbc"],
    "docs/performance.md": ["tests/bench/page.py"],
    "shared/packtrust/crypto/curve25519_thumb.py": ["tools/curve25519_thumb.py"],
    "shared/packtrust/messages/rows.py": ["tools/message_rows.py"],
    "shared/packtrust/crypto/gcm_thumb.py": ["tools/gcm_thumb.py"],
    "shared/packtrust/crypto/gcm_viper.py": ["tools/gcm_kernels.py", "gcm_viper"],
    "shared/packtrust/crypto/gcm_viper_large.py": ["tools/gcm_kernels.py", "gcm_viper_large"],
    "shared/packtrust/crypto/gcm_viper_aligned.py": ["tools/gcm_kernels.py", "gcm_viper_aligned"],
    "shared/packtrust/crypto/gcm_cryptolib_viper.py": ["tools/gcm_kernels.py", "gcm_cryptolib_viper"],
    "shared/packtrust/crypto/gcm_cryptolib_aligned.py": ["tools/gcm_kernels.py", "gcm_cryptolib_aligned"],
}


def content(program: list[str]) -> bytes:
    """What `python program ...` prints."""
    done = subprocess.run([sys.executable, *program], cwd=CHECKOUT, stdout=subprocess.PIPE, check=True)
    return done.stdout


def main(arguments: list[str]) -> int:
    """Write, or with --check compare. 1 if something is out of date."""
    check = arguments == ["--check"]
    stale = []
    for name, program in MADE_BY.items():
        path = CHECKOUT / name
        fresh = content(program)
        if not path.is_file() or path.read_bytes() != fresh:
            stale.append(name)
            if not check:
                path.write_bytes(fresh)
    if check and stale:
        print("not up to date: %s. Run make generate and commit." % ", ".join(stale))
        return 1
    print("generated files: %s" % ("written: " + ", ".join(stale) if stale else "up to date"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
