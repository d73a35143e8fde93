"""A board for tests of the plugin: MicroPython's raw REPL on a pseudo terminal, with CPython behind it.

    python fake_board.py FLASH [--mode paste|plain|old] [--can URL] [--mute]

prints one JSON line and serves until its standard input ends. `import main` of FLASH is what it runs at power-up;
FLASH/boots counts them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pty
import sys
import threading
import traceback
import tty
import types
from pathlib import Path

BANNER = b"raw REPL; CTRL-B to exit\r\n>"
WINDOW = 64


class Reset(BaseException):
    """machine.reset()."""


class Output(io.TextIOBase):
    """What code prints, to the terminal."""

    def __init__(self, board: FakeBoard) -> None:
        self._board = board

    def write(self, text: str) -> int:
        self._board.say(text.replace("\n", "\r\n").encode())
        return len(text)


class FakeBoard:
    """One board, its terminal and its flash."""

    def __init__(self, flash: Path, mode: str) -> None:
        self.flash = flash
        self.mode = mode
        self.master, slave = pty.openpty()
        tty.setraw(slave)
        self.terminal = os.ttyname(slave)
        self._slave = slave  # kept open, so that the board hears no hang-up between two openers
        self.namespace: dict[str, object] = {}

    def say(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.master, data) :]

    def get(self) -> bytes:
        return os.read(self.master, 1)

    def boot(self) -> None:
        self.namespace = {"__name__": "__main__"}
        machine = types.ModuleType("machine")

        def reset() -> None:
            raise Reset

        machine.reset = reset  # type: ignore[attr-defined]
        sys.modules["machine"] = machine

    def power_up(self) -> None:
        count = self.flash / "boots"
        count.write_text(str(int(count.read_text()) + 1 if count.exists() else 1))
        self.boot()
        program = self.flash / "main.py"
        if program.exists():
            self.run(program.read_bytes())
        self.say(b"MicroPython v1.99 on fake; fake board\r\n>>> ")

    def run(self, code: bytes) -> str:
        try:
            with contextlib.redirect_stdout(Output(self)):
                exec(compile(code, "<stdin>", "exec"), self.namespace)
        except Reset:
            raise
        except BaseException:  # noqa: BLE001 - goes to the terminal, as on a board
            return traceback.format_exc()
        return ""

    def serve(self) -> None:
        while True:
            try:
                self.power_up()
                while True:
                    if self.get() == b"\x01":
                        self.say(b"\r\n" + BANNER)
                        self.raw()
            except Reset:
                self.say(b"\r\n")

    def raw(self) -> None:
        line = b""
        while True:
            byte = self.get()
            if byte == b"\x02":
                self.say(b"\r\nMicroPython\r\n>>> ")
                return
            if byte == b"\x01":
                line = b""
                self.say(BANNER)
            elif byte in (b"\x03", b"\r"):
                line = b""
            elif byte == b"\x05" and not line:
                self.get()
                self.get()
                if self.mode == "paste":
                    self.say(b"R\x01")
                    self.execute(self.paste(), b"")
                elif self.mode == "plain":
                    self.say(b"R\x00")
                else:
                    self.say(BANNER)
            elif byte == b"\x04":
                if line:
                    self.execute(line, b"OK")
                    line = b""
                else:
                    self.say(b"OK\r\nMPY: soft reboot\r\n" + BANNER)
                    self.boot()
            else:
                line += byte

    def paste(self) -> bytes:
        self.say(WINDOW.to_bytes(2, "little"))
        self.say(b"\x01")
        code = b""
        left = 2 * WINDOW
        while (byte := self.get()) != b"\x04":
            code += byte
            left -= 1
            if left <= WINDOW:
                self.say(b"\x01")
                left += WINDOW
        self.say(b"\x04")
        return code

    def execute(self, code: bytes, head: bytes) -> None:
        self.say(head)
        trace = self.run(code)
        self.say(b"\x04" + trace.replace("\n", "\r\n").encode() + b"\x04>")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("flash", type=Path)
    parser.add_argument("--mode", default="paste", choices=("paste", "plain", "old"))
    parser.add_argument("--can", default=None)
    parser.add_argument("--mute", action="store_true", help="a terminal nobody is behind")
    options = parser.parse_args()
    options.flash.mkdir(parents=True, exist_ok=True)
    board = FakeBoard(options.flash, options.mode)
    os.chdir(options.flash)
    out = sys.stdout
    out.write(json.dumps({"console": board.terminal} | ({"can": options.can} if options.can else {})) + "\n")
    out.flush()
    if not options.mute:
        threading.Thread(target=board.serve, daemon=True).start()
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
