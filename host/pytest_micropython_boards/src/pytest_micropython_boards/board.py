"""A board under test: its console and raw REPL, its CAN buses, its files and its power."""

from __future__ import annotations

import ast
import contextlib
import inspect
import itertools
import json
import os
import signal
import subprocess
import tempfile
import textwrap
import threading
import time
from binascii import b2a_base64
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl

from .console import Console
from .description import Description, builtin_values, can_urls, fill
from .errors import BoardError, BoardTimeout
from .rawrepl import Execution, RawRepl

STOP_S = 5.0
POWER_COMMAND_S = 60.0
UHUBCTL_OFF_S = "2"
FILE_CHUNK = 510

_numbers = itertools.count(1)


class _Process:
    """What `start` has started: a virtual board."""

    def __init__(self, description: Description, command: list[str]) -> None:
        self._description = description
        self._command = command
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in kill()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> dict[str, Any]:
        """Run it; what its first line says. Raises BoardError."""
        name, limit = self._description.name, self._description.start_timeout
        try:
            # Its standard input stays open as long as we live, so that it can end when we do.
            self._process = subprocess.Popen(
                self._command,
                cwd=self._description.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError as error:
            raise BoardError("board %s: cannot start %s: %s" % (name, self._command[0], error)) from error
        stdout = self._process.stdout
        assert stdout is not None
        lines: list[bytes] = []
        reader = threading.Thread(target=lambda: lines.append(stdout.readline()), daemon=True)
        reader.start()
        reader.join(limit)
        if not lines or not lines[0].strip():
            how = "ended" if lines else "printed no line within %.0f s" % limit
            said = self.last_words()
            self.kill()
            raise BoardError("board %s: %s %s: %s" % (name, " ".join(self._command), how, said))
        # Whatever it prints later is not ours, and must not fill its pipe.
        threading.Thread(target=lambda: stdout.read(), daemon=True).start()
        try:
            info = json.loads(lines[0])
            if not isinstance(info, dict) or not isinstance(info.get("console"), str):
                raise ValueError("no console in it")
        except ValueError as error:
            self.kill()
            raise BoardError(
                "board %s: the first line of %s must be a JSON object with `console`, not %.200r (%s)"
                % (name, self._command[0], lines[0], error)
            ) from error
        return info

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def last_words(self) -> str:
        """The end of what it wrote to standard error."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - 2000))
        return self._errors.read().decode("utf-8", "replace").strip() or "it said nothing"

    def kill(self) -> None:
        """Pull the plug: SIGKILL for it and what it has started."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end; kill it if it does not."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None and number != signal.SIGKILL:
                with contextlib.suppress(OSError):
                    pipe.close()


class Board:
    """A board. The fixture `board` gives one whose raw REPL is ready.

    description  what the TOML file says of it
    state        folder in which a virtual board keeps its flash, the same at every power-up
    can          URLs that replace those of the description
    """

    def __init__(self, description: Description, state: Path, can: dict[str, str] | None = None) -> None:
        self.description = description
        self.name = description.name
        self.arch = description.arch
        self.console = Console(description.console, description.baudrate)
        self.repl = RawRepl(self.console)
        self.info: dict[str, Any] = {}
        self.power_cycles = 0
        self._given_can = dict(can or {})
        self._can = dict(description.can)
        session = "%s-%d-%d" % (description.name, os.getpid(), next(_numbers))
        self._values = builtin_values(description, state, session)
        self._process: _Process | None = None
        if description.start:
            self._process = _Process(description, fill(description.start, self._values))

    def __repr__(self) -> str:
        return "<Board %s at %s>" % (self.name, self.console.port or "no console yet")

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- life ----------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start a virtual board; open the console. Raises BoardError."""
        if self._process is not None:
            self.info = self._process.start()
            self.console.port = self.info["console"]
            if "can" in self.info:
                self._can = can_urls(self.info["can"], "board.%s: can of its first line" % self.name)
        self.console.open()

    def close(self) -> None:
        """Leave the raw REPL, close the console; a virtual board is ended."""
        if self._process is None and self.console.is_open and self.repl.entered:
            with contextlib.suppress(BoardError):  # gone already
                self.repl.leave()
        self.console.close()
        self.repl.lose()
        if self._process is not None:
            self._process.stop()

    def power_cycle(self) -> None:
        """Cut the power and give it again. Its program runs then; `exec` and the like interrupt it.

        Raises BoardError if there is no way to do that.
        """
        self.console.close()
        self.repl.lose()
        if self._process is not None:
            self._process.kill()
        elif "command" in self.description.power_cycle:
            self._run(fill(self.description.power_cycle["command"], self._values))
        elif "uhubctl" in self.description.power_cycle:
            hub = self.description.power_cycle["uhubctl"]
            self._run(["uhubctl", "-l", hub["location"], "-p", hub["port"], "-a", "cycle", "-d", UHUBCTL_OFF_S])
        else:
            raise BoardError(
                "board %s cannot be power-cycled: give it power_cycle in the boards file" % self.description.name
            )
        self.power_cycles += 1
        if self._process is not None:
            self.open()
        else:
            self.console.open(self.description.boot_timeout + self.console_return_s)

    console_return_s = 10.0  # what USB takes to show the port again

    def _run(self, command: list[str]) -> None:
        try:
            subprocess.run(
                command,
                cwd=self.description.folder,
                check=True,
                timeout=POWER_COMMAND_S,
                stdin=subprocess.DEVNULL,
                capture_output=True,
            )
        except subprocess.CalledProcessError as error:
            said = (error.stderr or error.stdout or b"").decode("utf-8", "replace").strip()
            raise BoardError("power cycle of %s: %s: %s" % (self.name, " ".join(command), said)) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BoardError("power cycle of %s: %s: %s" % (self.name, " ".join(command), error)) from error

    def reset(self) -> None:
        """machine.reset(): as power-up, without the power. Its program runs then."""
        self.repl.hard_reset()
        # A board with its own USB takes the port along.
        if self._process is None:
            self.console.close()
            self.console.open(self.description.boot_timeout + self.console_return_s)

    def fresh(self) -> None:
        """The raw REPL of a new interpreter (soft reset), whatever ran."""
        if not self.console.is_open:
            self.console.open()
        try:
            if not self.repl.entered or self.repl.running is not None:
                self.repl.enter(self.description.boot_timeout)
            if not self.description.keep_state:
                self.repl.soft_reset(self.description.boot_timeout)
        except BoardTimeout as error:
            if self._process is None:
                raise
            raise BoardTimeout("%s; it wrote to standard error: %s" % (error, self._process.last_words())) from error

    # -- code ----------------------------------------------------------------------------------------------------------

    def exec(self, code: str, timeout: float = 10.0) -> str:
        """Run code on the board; what it printed.

        timeout  seconds without a byte from the board.

        Raises ScriptError with the board's traceback, BoardTimeout.
        """
        __tracebackhide__ = True
        return self.repl.exec(textwrap.dedent(code), timeout)

    def start(self, code: str, timeout: float = 10.0) -> Execution:
        """Start code that goes on while the test does something else, and `finish()` it later."""
        return self.repl.start(textwrap.dedent(code), timeout)

    def eval(self, expression: str, timeout: float = 10.0) -> Any:
        """The value of an expression, one that has a literal: number, text, bytes, list, dict, None, .."""
        __tracebackhide__ = True
        text = self.exec("print(repr(%s))" % expression, timeout).rstrip("\n")
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError) as error:
            raise BoardError("%s gives %s on the board, which is no literal" % (expression, text)) from error

    def call(self, function: Callable[..., Any], *args: Any, timeout: float = 10.0) -> Any:
        """Run a plain function of the test file on the board; its value. Arguments and value are literals.

        Its source is sent, so it sees nothing of the test file: it imports what it needs itself.
        """
        __tracebackhide__ = True
        try:
            source = textwrap.dedent(inspect.getsource(function))
        except (OSError, TypeError) as error:
            raise BoardError("no source of %r to send to the board" % function) from error
        if not source.startswith("def "):
            raise BoardError("%r cannot be sent: use a plain function, without decorators" % function)
        given = ", ".join(repr(value) for value in args)
        text = self.exec("%s\nprint('\\n' + repr(%s(%s)))" % (source, function.__name__, given), timeout)
        return ast.literal_eval(text.rstrip("\n").rpartition("\n")[2])

    # -- files ---------------------------------------------------------------------------------------------------------

    def put(self, source: Path | bytes, path: str) -> None:
        """Write a file on the board, folders included. Raises BoardError if it is not there afterwards."""
        data = source if isinstance(source, bytes) else source.read_bytes()
        made = ["/".join(path.split("/")[:count]) for count in range(1, path.count("/") + 1)]
        self.exec(
            "import os\n"
            "from binascii import a2b_base64 as _bytes\n"
            "for _folder in %r:\n"
            "    if _folder:\n"
            "        try:\n"
            "            os.mkdir(_folder)\n"
            "        except OSError as _error:\n"
            "            if _error.errno != 17:\n"
            "                raise\n"
            "_file = open(%r, 'wb')" % (made, path)
        )
        for at in range(0, len(data), FILE_CHUNK):
            part = b2a_base64(data[at : at + FILE_CHUNK], newline=False)
            self.exec("_file.write(_bytes(%r))" % part)
        size = self.exec("_file.close()\nprint(os.stat(%r)[6])" % path)
        if int(size) != len(data):
            raise BoardError("%s has %s bytes on %s instead of %d" % (path, size.strip(), self.name, len(data)))

    def get(self, path: str) -> bytes:
        """Read a file of the board."""
        text = self.exec(
            "from binascii import hexlify as _hex\n"
            "with open(%r, 'rb') as _file:\n"
            "    while True:\n"
            "        _part = _file.read(%d)\n"
            "        if not _part:\n"
            "            break\n"
            "        print(_hex(_part).decode())" % (path, FILE_CHUNK)
        )
        return bytes.fromhex(text)

    # -- CAN -----------------------------------------------------------------------------------------------------------

    def can_url(self, bus: str | None = None) -> str:
        """The python-can URL of its bus; `bus` names one where it has several. Raises BoardError."""
        urls = self._can | self._given_can
        if "can" in self._given_can and len(self._given_can) == 1:
            return self._given_can["can"]
        if bus is None and len(urls) == 1:
            return next(iter(urls.values()))
        if bus is not None and bus in urls:
            return urls[bus]
        if not urls:
            raise BoardError("board %s has no CAN bus: give one with --can, or can in the boards file" % self.name)
        raise BoardError("board %s has the buses %s: name one" % (self.name, ", ".join(urls)))

    def open_can(self, bus: str | None = None, **options: Any) -> Any:
        """A python-can bus on the board's bus; close it with `shutdown()`, or use `with`."""
        try:
            import can
        except ImportError as error:
            raise BoardError("CAN needs python-can: pip install pytest-micropython-boards[can]") from error
        url = self.can_url(bus)
        interface, channel, settings = parse_can_url(url)
        try:
            return can.Bus(interface=interface, channel=channel, **(settings | options))
        except (can.CanError, OSError, ValueError, TypeError) as error:
            raise BoardError("cannot open CAN bus %s of %s: %s" % (url, self.name, error)) from error


def parse_can_url(url: str) -> tuple[str, str, dict[str, Any]]:
    """(interface, channel, options) of `interface:channel?option=value&..`. Raises BoardError."""
    interface, separator, rest = url.partition(":")
    channel, _, query = rest.partition("?")
    if not separator or not interface or not channel:
        raise BoardError(
            "%r names no CAN bus: write interface:channel, for example slcan:/dev/ttyACM1?bitrate=500000" % url
        )
    options: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    if interface == "slcan":
        # python-can waits two seconds for adapters that reset when opened; ask for it by sleep_after_open=2.
        options.setdefault("sleep_after_open", 0.0)
    return interface, channel, options


def wait_until(condition: Callable[[], bool], timeout: float, poll_s: float = 0.01) -> bool:
    """Ask until `condition()` holds; False after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(poll_s)
    return True
