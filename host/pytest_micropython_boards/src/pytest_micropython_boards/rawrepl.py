"""MicroPython's raw REPL, with raw-paste mode's flow control where the board has it.

Protocol: MicroPython reference, "The MicroPython Interactive Interpreter Mode (aka REPL)", raw mode and raw-paste mode.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from .console import Console
from .errors import BoardError, BoardTimeout, ScriptError

BANNER = b"raw REPL; CTRL-B to exit\r\n>"
CTRL_A, CTRL_B, CTRL_C, CTRL_D, CTRL_E = b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"
INTERRUPT_EVERY_S = 1.0
PLAIN_CHUNK = 256
PLAIN_PAUSE_S = 0.01


class Execution:
    """Code that runs on the board. Made by :meth:`RawRepl.start`; ends with :meth:`finish`."""

    def __init__(self, repl: RawRepl, timeout: float) -> None:
        self._repl = repl
        self._timeout = timeout
        self._output = bytearray()
        self._given = 0
        self._printed = False  # its output is complete
        self.done = False

    def _limit(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout

    def lines(self, timeout: float | None = None) -> Iterator[str]:
        """The lines it prints, as they come; ends with its output. Then `finish()` for how it ended."""
        while not self._printed:
            byte = self._repl.read(1, self._limit(timeout))
            if byte == CTRL_D:
                self._printed = True
                break
            self._output += byte
            if byte == b"\n":
                line = bytes(self._output[self._given :])
                self._given = len(self._output)
                yield line.decode("utf-8", "replace").rstrip("\r\n")
        if self._given < len(self._output):
            line = bytes(self._output[self._given :])
            self._given = len(self._output)
            yield line.decode("utf-8", "replace").rstrip("\r\n")

    def wait_for(self, text: str, timeout: float | None = None) -> str:
        """The first line that holds `text`. BoardError with its output if it ends before."""
        for line in self.lines(timeout):
            if text in line:
                return line
        self.finish(timeout)
        raise BoardError("the code on the board ended without printing %r; it printed: %s" % (text, self.output))

    @property
    def output(self) -> str:
        """What it has printed as far as it was read."""
        return self._output.decode("utf-8", "replace").replace("\r\n", "\n")

    def poll(self) -> bool:
        """Whether it still runs, without waiting. Raises ScriptError if it ended by an exception."""
        __tracebackhide__ = True
        while not self._printed and self._repl.console.has_input():
            byte = self._repl.read(1, self._timeout)
            if byte == CTRL_D:
                self._printed = True
            else:
                self._output += byte
        if self._printed:
            self.finish()
        return not self.done

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._repl.console.write(CTRL_C)

    def finish(self, timeout: float | None = None) -> str:
        """Wait for its end; everything it printed. Raises ScriptError with the board's traceback, BoardTimeout after
        `timeout` seconds in which the board said nothing."""
        __tracebackhide__ = True
        if self.done:
            return self.output
        limit = self._limit(timeout)
        if not self._printed:
            self._output += self._repl.read_until(CTRL_D, limit)[:-1]
            self._printed = True
        trace = self._repl.read_until(CTRL_D, limit)[:-1].decode("utf-8", "replace").replace("\r\n", "\n")
        self._repl.read_until(b">", limit)
        self.done = True
        self._repl.running = None
        if trace:
            raise ScriptError(trace, self.output)
        return self.output


class RawRepl:
    """The raw REPL on a console."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.entered = False
        self.running: Execution | None = None
        self._paste = True  # until the board says that it has no raw-paste mode

    def read(self, count: int, timeout: float) -> bytes:
        """Bytes of the console; a board that falls silent is out of the raw REPL as far as we know."""
        try:
            return self.console.read_exactly(count, timeout)
        except BoardError:
            self.lose()
            raise

    def read_until(self, ending: bytes, timeout: float) -> bytes:
        """As `read`, up to and with `ending`."""
        try:
            return self.console.read_until(ending, timeout)
        except BoardError:
            self.lose()
            raise

    def lose(self) -> None:
        """Forget the state: the board was reset, or does not answer. `enter()` starts anew."""
        self.entered = False
        self.running = None

    def enter(self, timeout: float = 10.0) -> None:
        """Interrupt whatever runs and enter the raw REPL. BoardTimeout if there is none."""
        self.lose()
        end = time.monotonic() + timeout
        while True:
            self.console.write(b"\r" + CTRL_C + CTRL_C)
            self.console.read_quiet(0.05)
            self.console.write(b"\r" + CTRL_A)
            try:
                self.console.read_until(BANNER, INTERRUPT_EVERY_S)
            except BoardTimeout as error:
                if time.monotonic() >= end:
                    raise BoardTimeout(
                        "no raw REPL at %s within %.0f s: is MicroPython on the board, is it its console, and does its "
                        "program allow Ctrl-C? Last it said: %r"
                        % (self.console.port, timeout, self.console.recent()[-200:])
                    ) from error
                continue
            self.entered = True
            return

    def leave(self) -> None:
        """Back to the friendly REPL."""
        if self.entered:
            self.console.write(b"\r" + CTRL_B)
            self.console.read_until(b">>> ", 5)
            self.lose()

    def _ready(self) -> None:
        if self.running is not None or not self.entered:
            self.enter()

    def soft_reset(self, timeout: float = 10.0) -> None:
        """A new interpreter: boot.py runs, main.py does not, and the raw REPL is there again."""
        self._ready()
        self.console.write(CTRL_D)
        self.read_until(b"soft reboot", timeout)
        self.read_until(BANNER, timeout)

    def hard_reset(self) -> None:
        """machine.reset(). The board then runs its program; `enter()` stops it."""
        self._ready()
        self._send(b"import machine; machine.reset()")
        self.lose()

    # -- running code --------------------------------------------------------------------------------------------------

    def start(self, code: str | bytes, timeout: float = 10.0) -> Execution:
        """Start code; :meth:`Execution.finish` waits for its end.

        timeout  seconds without a byte from the board before it is given up.
        """
        if isinstance(code, str):
            code = code.encode()
        if CTRL_D in code:
            raise ValueError("the raw REPL takes Ctrl-D for the end: escape the byte 0x04 in the code")
        self._ready()
        self._send(code, timeout)
        self.running = Execution(self, timeout)
        return self.running

    def exec(self, code: str | bytes, timeout: float = 10.0) -> str:
        """Run code; what it printed. Raises ScriptError and BoardTimeout."""
        __tracebackhide__ = True
        return self.start(code, timeout).finish()

    def _send(self, code: bytes, timeout: float = 10.0) -> None:
        if self._paste:
            self.console.write(CTRL_E + b"A" + CTRL_A)
            answer = self.read(2, timeout)
            if answer == b"R\x01":
                self._send_paste(code, timeout)
                return
            self._paste = False
            if answer == b"ra":
                # Older than 1.14: it has printed the raw REPL's banner again, the A is in its line.
                self.read_until(BANNER[2:], timeout)
            elif answer != b"R\x00":
                self.lose()
                raise BoardError("%s answers %r to raw-paste mode: not MicroPython?" % (self.console.port, answer))
        self._send_plain(code, timeout)

    def _send_paste(self, code: bytes, timeout: float) -> None:
        size = int.from_bytes(self.read(2, timeout), "little")
        room = size
        at = 0
        while at < len(code):
            while room == 0 or self.console.has_input():
                flow = self.read(1, timeout)
                if flow == CTRL_A:
                    room += size
                elif flow == CTRL_D:
                    # It gives up (no memory for the rest, say) and tells why as the code's error.
                    self.console.write(CTRL_D)
                    return
                else:
                    self.lose()
                    raise BoardError("%s sends %r in raw-paste mode: was it reset?" % (self.console.port, flow))
            part = code[at : at + room]
            self.console.write(part)
            room -= len(part)
            at += len(part)
        self.console.write(CTRL_D)
        self.read_until(CTRL_D, timeout)

    def _send_plain(self, code: bytes, timeout: float) -> None:
        # No flow control: small pieces and pauses, for boards whose receive buffer is small.
        for at in range(0, len(code), PLAIN_CHUNK):
            self.console.write(code[at : at + PLAIN_CHUNK])
            time.sleep(PLAIN_PAUSE_S)
        self.console.write(CTRL_D)
        answer = self.read(2, timeout)
        if answer != b"OK":
            self.lose()
            raise BoardError("%s does not take the code, it answers %r" % (self.console.port, answer))
