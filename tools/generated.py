#!/usr/bin/env python3
"""Write the files that are made from the code, or with --check say which are not up to date.

Each is what a module of ours prints. Run it with the environment's Python (`make generate`, `make
docs-check`).
"""

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
MADE_BY = {
    "docs/messages.md": ["packtrust_host.messages_doc"],
    "docs/packtrust.dbc": ["packtrust_host.dbc"],
}


def content(module: list[str]) -> bytes:
    """What `python -m module ...` prints."""
    done = subprocess.run([sys.executable, "-m", *module], cwd=CHECKOUT, stdout=subprocess.PIPE, check=True)
    return done.stdout


def main(arguments: list[str]) -> int:
    """Write, or with --check compare. 1 if something is out of date."""
    check = arguments == ["--check"]
    stale = []
    for name, module in MADE_BY.items():
        path = CHECKOUT / name
        fresh = content(module)
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
