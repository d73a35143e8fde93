"""Starts a virtual board whose flash holds what tests/hil runs; `start` of boards.toml.

    python start_board.py unix|cortex-m4 STATE SESSION

The first time STATE is filled: a folder for unix, an image with a ROM for the cortex-m4. Later starts find it as the
board left it. Then it becomes `packtrust board start --json`.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PATHS = [str(CHECKOUT / name) for name in ("tests", "shared", "host", "host/pytest_micropython_boards/src")]
sys.path[:0] = PATHS

from hilboard import CHOSEN, ROOT, content  # noqa: E402
from packtrust_host.sim import qemu  # noqa: E402


def make_unix(folder: Path) -> None:
    """A file system with everything in it."""
    for name, data in content("x64", CHOSEN).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def make_cortex_m4(path: Path, name: str) -> None:
    """A flash image with everything in its ROM: code runs in place, as on a board it was deployed to."""
    files = dict(content("armv7emsp", CHOSEN))
    board = ROOT / "boards/cortex-m4/packtrust_board.py"
    files["packtrust_board.py"] = board.read_bytes()
    qemu.new_flash(path, name.encode()[:12], files)


def main(board: str, state: str, session: str) -> None:
    """Fill the flash if it is new, and run the board."""
    flash = Path(state) / ("flash" if board == "unix" else "flash.img")
    if not flash.exists():
        fresh = flash.with_name(flash.name + ".new")
        if fresh.is_dir():
            shutil.rmtree(fresh)
        make_unix(fresh) if board == "unix" else make_cortex_m4(fresh, session)
        fresh.rename(flash)
    code = "from packtrust_host.cli import main; main()"
    arguments = ["board", "start", board, "--name", session, "--flash", str(flash), "--json"]
    arguments += ["--data-bitrate", "2000000"]
    os.environ["PYTHONPATH"] = os.pathsep.join(PATHS)
    os.execv(sys.executable, [sys.executable, "-c", code, *arguments])


if __name__ == "__main__":
    main(*sys.argv[1:])
