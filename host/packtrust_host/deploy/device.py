"""A board at the other end of its console: its file system through mpremote, its node through the console's lines."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import serial
from mpremote.transport import TransportError
from mpremote.transport_serial import SerialTransport

from .bundle import OWN_FILES, OWN_FOLDERS, OWN_PREFIX
from .errors import BoardError
from .profile import ARCHITECTURES

BAUD = 115200
ANSWER_S = 10.0
REOPEN_S = 15.0
GREET_S = 60.0
CHUNK = 1024

_PROBE = """
import sys, json, binascii, os
try:
    import machine
    _u = machine.unique_id()
except (ImportError, AttributeError):
    _u = b""
_i = sys.implementation
print(json.dumps([_i[0], list(_i[1])[:3], getattr(_i, "_machine", ""), getattr(_i, "_mpy", 0),
    binascii.hexlify(_u).decode(), os.getcwd()]))
"""

# One line a file: path, tab, SHA-256. What is not there gives no line.
_HASHES = """
import os, binascii
from hashlib import sha256
_b = bytearray(1024)
_m = memoryview(_b)
def _h(p):
    s = sha256()
    with open(p, "rb") as f:
        while True:
            n = f.readinto(_b)
            if not n:
                break
            s.update(_m[:n])
    print(p + "\\t" + binascii.hexlify(s.digest()).decode())
def _w(p):
    try:
        k = os.stat(p)[0]
    except OSError:
        return
    if k & 0x4000:
        for e in list(os.ilistdir(p)):
            _w(p + "/" + e[0])
    else:
        _h(p)
for _p in %s:
    _w(_p)
for _e in list(os.ilistdir()):
    if _e[0].startswith(%r) and _e[0].endswith(".mpy") and _e[0] not in %s:
        _h(_e[0])
"""

_READ = """
try:
    with open(%r) as _f:
        print(_f.read())
except OSError:
    pass
"""

_ROM_HASH = """
import binascii
from hashlib import sha256
try:
    from vfs import rom_ioctl
    _d = rom_ioctl(2, 0)
except ImportError:
    _d = -1
if isinstance(_d, int):
    print("none")
else:
    _d = memoryview(_d)
    print(len(_d), binascii.hexlify(sha256(_d[:%d]).digest()).decode() if len(_d) >= %d else "small")
"""

_REMOVE = """
import os
for _p in %r:
    os.remove(_p)
for _p in %r:
    try:
        os.rmdir(_p)
    except OSError:
        pass
"""

_MKDIR = """
import os
for _p in %r:
    try:
        os.stat(_p)
    except OSError:
        os.mkdir(_p)
"""


class Probe:
    """What an interpreter says of itself.

    name "micropython", version as a triple, machine its text, arch of its native code, unique_id bytes
    """

    def __init__(self, answer: str) -> None:
        name, version, machine, mpy, unique_id, folder = json.loads(answer)
        self.name: str = name
        self.version: tuple[int, ...] = tuple(version)
        self.machine: str = machine
        number = mpy >> 10 & 0x0F
        self.arch = ARCHITECTURES[number] if number < len(ARCHITECTURES) else "?%d" % number
        self.unique_id = bytes.fromhex(unique_id)
        self.folder: str = folder

    @property
    def text(self) -> str:
        """For people."""
        return "%s %s, %s" % (self.name, ".".join(str(part) for part in self.version), self.machine)


@contextlib.contextmanager
def _told(device: str) -> Iterator[None]:
    """mpremote's errors as ours; what it prints on them goes into the text."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            yield
    except TransportError as error:
        words = " ".join((str(error) + " " + said.getvalue()).split())[-300:]
        raise BoardError(
            "the board at %s: %s" % (device, words),
            "see that MicroPython runs on it (`packtrust flash` writes it) and nothing else has its port open",
        ) from error
    except (serial.SerialException, OSError) as error:
        raise BoardError(
            "the port %s failed: %s" % (device, error), "check the cable and that nothing else has the port open"
        ) from error


class Device:
    """The board's interpreter in raw REPL mode, after a soft reset; what ran there is stopped. A context manager."""

    def __init__(self, device: str) -> None:
        # mpremote treats pseudo terminals as such by their names, not by a link's.
        self.device = os.path.realpath(device) if "://" not in device else device
        self._transport: Any = None

    def __enter__(self) -> Device:
        self.open()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def open(self) -> None:
        """Connect and stop what runs. BoardError if there is no REPL."""
        with _told(self.device):
            transport = SerialTransport(self.device, BAUD, timeout=ANSWER_S)
            try:
                transport.enter_raw_repl(soft_reset=True)
            except BaseException:
                transport.close()
                raise
            self._transport = transport

    def close(self) -> None:
        """Let go of the port; the board stays as it is."""
        if self._transport is not None:
            with _told(self.device):
                self._transport.close()
            self._transport = None

    def run(self, script: str) -> str:
        """Run a script there, its output. BoardError with the exception it ended in."""
        with _told(self.device):
            output: bytes = self._transport.exec(script)
        return output.decode("utf-8", "replace").replace("\r\n", "\n")

    def probe(self) -> Probe:
        """What it is."""
        try:
            return Probe(self.run(_PROBE).strip().splitlines()[-1])
        except (ValueError, IndexError) as error:
            raise BoardError(
                "the board at %s does not say what it is (%s)" % (self.device, error), "write MicroPython anew"
            ) from error

    def hashes(self, *more: str) -> dict[str, str]:
        """SHA-256, as hex, of every file of ours, and of `more`, computed there in one go."""
        inside = tuple(folder + "/" for folder in OWN_FOLDERS)
        asked = sorted({*OWN_FOLDERS, *OWN_FILES, *(name for name in more if not name.startswith(inside))})
        text = self.run(_HASHES % (asked, OWN_PREFIX, asked))
        return dict(line.split("\t") for line in text.splitlines() if "\t" in line)

    def read_text(self, path: str) -> str:
        """A small file's content; empty if it is not there."""
        return self.run(_READ % path)

    def write(self, path: str, data: bytes) -> None:
        """Write a file; its folder exists."""
        with _told(self.device):
            self._transport.fs_writefile(path, data, chunk_size=CHUNK)

    def make_folders(self, paths: list[str]) -> None:
        """Make folders, parents first."""
        if paths:
            self.run(_MKDIR % (paths,))

    def remove(self, files: list[str], folders: list[str]) -> None:
        """Remove files, and those folders that are empty then, deepest first."""
        self.run(_REMOVE % (files, folders))

    def rom_hash(self, length: int) -> str:
        """SHA-256 of the first `length` bytes of the ROM file system's partition. BoardError if there is none."""
        words = self.run(_ROM_HASH % (length, length)).split()
        if words == ["none"]:
            raise BoardError(
                "the board at %s has no ROM file system partition" % self.device,
                'use MicroPython 1.25 or later built with one, or set layout = "mpy" in its board.toml',
            )
        if words[1] == "small":
            raise BoardError(
                "the ROM file system's partition has %s bytes, the image needs %d" % (words[0], length),
                "deploy one role only (--role), or use a board with more flash",
            )
        return words[1]

    def write_rom(self, image: bytes) -> None:
        """Write the ROM file system, with mpremote's own command."""
        self.close()
        with tempfile.TemporaryDirectory(prefix="packtrust-rom-") as scratch:
            path = Path(scratch) / "image.romfs"
            path.write_bytes(image)
            command = [sys.executable, "-m", "mpremote", "connect", self.device, "resume", "romfs", "deploy", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            raise BoardError(
                "mpremote could not write the ROM file system: %s"
                % " ".join((done.stdout + done.stderr).split())[-300:],
                "run the command again",
            )
        self.open()

    def reset(self) -> None:
        """As power-up; the port is closed, for it may go away."""
        if self._transport is None:
            self.open()
        with _told(self.device):
            self._transport.exec_raw_no_follow("import machine\nmachine.reset()")
            # The board has the order when it has said OK; what follows is for whoever opens the port next.
            self._transport.serial.flush()
            with contextlib.suppress(serial.SerialException, OSError):  # gone already: it resets
                self._transport.close()
        self._transport = None


class NodeConsole:
    """The console of a running node: lines out, one line of answer each. A context manager.

    find()   the device, which may have another name after a reset
    """

    def __init__(self, find: Callable[[], str | None], *, wait_s: float = REOPEN_S) -> None:
        self._find = find
        self._wait_s = wait_s
        self._serial: Any = None
        self._rest = b""
        self.lines: list[str] = []

    def __enter__(self) -> NodeConsole:
        end = time.monotonic() + self._wait_s
        while True:
            device = self._find()
            error = "it is not there"
            if device is not None:
                try:
                    self._serial = serial.serial_for_url(device, BAUD, timeout=0.1, exclusive=True)
                    return self
                except (serial.SerialException, OSError) as caught:
                    error = str(caught)
            if time.monotonic() > end:
                raise BoardError(
                    "the board's port did not come back after the reset: %s" % error,
                    "unplug it and plug it in, then run the command again",
                )
            time.sleep(0.1)

    def __exit__(self, *exc_info: object) -> None:
        if self._serial is not None:
            self._serial.close()

    def _read(self) -> list[str]:
        """Complete lines that came within the port's timeout."""
        try:
            data = self._serial.read(self._serial.in_waiting or 1)
        except (serial.SerialException, OSError) as error:
            raise BoardError("the board's port went away: %s" % error, "check the cable and run it again") from error
        *complete, self._rest = (self._rest + data).split(b"\n")
        lines = [line.decode("utf-8", "replace").strip("\r") for line in complete]
        # A claim code is no log's business.
        self.lines += [line for line in lines if line and not line.startswith("claim ")]
        return lines

    def _send(self, line: str) -> None:
        self._serial.write(line.encode() + b"\n")

    def _last_words(self) -> str:
        return " | ".join(self.lines[-8:]) or "it said nothing"

    def wait_started(self, limit_s: float = GREET_S) -> dict[str, Any]:
        """Until a node answers `id`: what it says. BoardError with its last words if none does."""
        end = time.monotonic() + limit_s
        ask = time.monotonic() + 1.0  # the greeting comes by itself, unless it was over before we listened
        while time.monotonic() < end:
            for line in self._read():
                if line.startswith("packtrust "):
                    ask = time.monotonic()
                if line.startswith("id {"):
                    answer: dict[str, Any] = json.loads(line[3:])
                    return answer
            if self._rest.endswith(b">>> "):
                break  # it is back at the prompt: the program has ended
            if time.monotonic() >= ask:
                self._send("id")
                ask = time.monotonic() + 2.0
        raise BoardError("the node did not start: %s" % self._last_words(), "correct that, then run the command again")

    def ask(self, command: str, limit_s: float = ANSWER_S) -> str:
        """One command, its answer without the command's name."""
        self._send(command)
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            for line in self._read():
                word, _, answer = line.partition(" ")
                if word == command:
                    return answer
        raise BoardError(
            "the node does not answer %r: %s" % (command, self._last_words()), "reset the board and run it again"
        )


def sha256(data: bytes) -> str:
    """As the board says it."""
    return hashlib.sha256(data).hexdigest()
