"""A board that has nothing gets core and tests over its console, as any real one does."""

from __future__ import annotations

import sys
from pathlib import Path

from hilboard import ON_BOARD, prepare, results
from pytest_micropython_boards import Board, Description

START = "from packtrust_host.cli import main; main()"


def test_an_empty_board_is_filled_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", START, "board", "start", "unix", "--name", "{session}", "--flash", "{state}/flash"]
    with Board(Description("empty", start=[*command, "--json"], boot_timeout=20), tmp_path) as board:
        board.fresh()
        tests = ("test_arbitration",)
        assert prepare(board, tests) == ON_BOARD
        found = results(board, "test_arbitration", ["test_encrypted_is_bit_17"])
        assert found["test_encrypted_is_bit_17"]["ok"]
        names = board.eval("__import__('os').listdir('hil')")
        assert {"lib", "runner.mpy", "test_arbitration.mpy", "hil.txt"} <= set(names)
        # What is there is used as it is; a changed content replaces it.
        board.fresh()
        board.put(b"mark", "hil/mark")
        assert prepare(board, tests) == ON_BOARD
        old = board.get("hil/hil.txt")
        board.put(b"something else", "hil/hil.txt")
        board.fresh()
        assert prepare(board, tests) == ON_BOARD
        assert board.get("hil/hil.txt") == old
