"""The nodes of a virtual pack: what each kind of board is as a process, behind one console and one set of CAN ports."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import json
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import qemu
from .bus import CLASSIC, FD_ENABLED
from .deploy import CHECKOUT, NodeConfig, SetupError, make_flash
from .lanes import Lane
from .rom import main_file, rom_image
from .server import VirtualBusServer

BUSES = ("vcu", "module")
START_S = 30.0  # a node of 32 on a slow machine
ANSWER_S = 10.0
_STATISTICS_TRIES = 3
LOG_LINES = 500
BOOT = CHECKOUT / "boards" / "unix" / "boot.py"
_PR_SET_PDEATHSIG = 1
_CTRL_A, _CTRL_B, _CTRL_C, _CTRL_D = b"\x01", b"\x02", b"\x03", b"\x04"
_REPL_S = 20.0


class NodeError(Exception):
    """A node did not start or does not answer; the text has its last words."""


def _die_with_parent() -> None:
    """In the child, before exec: an emulator does not notice that its consoles are gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class NodeProcess:
    """One node: its flash, its process, its controllers on the buses and its console. One class a kind of board."""

    board = ""
    gather_s = 0.0  # as of ports.FdPort

    def __init__(
        self,
        server: VirtualBusServer,
        name: str,
        config: NodeConfig,
        flash: Path,
        on_key: Callable[[str, str], None] | None,
    ) -> None:
        self.name = name
        self.config = config
        self.flash = flash
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self.claim_code: str | None = None
        self.boots = 0
        self.start_s = 0.0
        self._server = server
        self._on_key = on_key
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._tap_rest = b""
        self._answer: asyncio.Future[str] | None = None
        self._asked = ""
        self._greeted = asyncio.Event()
        self._console = asyncio.Lock()

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def _ports(self) -> tuple[str, ...]:
        return BUSES if self.config["role"] == "pack" else ("module",)

    # -- what a kind of board adds ---------------------------------------------------------------------------------

    async def _power_on(self, can: list[socket.socket]) -> asyncio.StreamReader:
        """Start the process with these sockets as CAN ports; set `_process` and `_writer`, give the console."""
        raise NotImplementedError

    def _lane(self, port: int) -> Lane | None:
        """What the bytes of a CAN port, 0 being the first, go over if not over its socket."""
        return None

    def _power_lost(self) -> None:
        """Close what belonged to the process."""

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Power up; returns when the node has greeted. NodeError if it does not."""
        if self.running:
            raise NodeError("%s runs already" % self.name)
        began = time.monotonic()
        ends: list[socket.socket] = []
        for bus in self._ports:
            ours, theirs = socket.socketpair()
            theirs.setblocking(False)
            ends.append(theirs)
            port = self._port_name(bus)
            if port in self._server.ports:
                self._server.remove(port)
            # A controller that was not opened for CAN FD is a classic one, also on a bus that has it.
            support = FD_ENABLED if self.config.get("vcu_fd" if bus == "vcu" else "fd") else CLASSIC
            self._server.add_fd(
                bus,
                ours.detach(),
                name=port,
                fd_support=support,
                gather_s=self.gather_s,
                lane=self._lane(len(ends) - 1),
            )
        self._greeted.clear()
        self.boots += 1
        try:
            reader = await self._power_on(ends)
        finally:
            for end in ends:
                end.close()
        assert self._process is not None
        self._reading = asyncio.create_task(self._read_console(self._process, reader))
        greeted = asyncio.create_task(self._greeted.wait())
        await asyncio.wait({greeted, self._reading}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        greeted.cancel()
        if not self._greeted.is_set():
            await self.kill()
            raise NodeError("%s did not start: %s" % (self.name, self._last_words()))
        self.start_s = time.monotonic() - began
        code = (await self.command("claim")).split()[1]
        self.claim_code = None if code == "none" else code

    def _port_name(self, bus: str) -> str:
        return self.name if self.config["role"] != "pack" else "%s.%s" % (self.name, bus)

    def _last_words(self) -> str:
        return " | ".join(list(self.log)[-12:]) or "it said nothing"

    def _tapped(self, data: bytes) -> None:
        """What came out of the key tap."""
        *lines, self._tap_rest = (self._tap_rest + data).split(b"\n")
        if self._on_key is not None:
            for line in lines:
                self._on_key(self.name, line.decode("ascii"))

    async def _read_console(self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):  # an emulator that was killed resets its sockets
            while raw := await reader.readline():
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                word = line.split(" ", 1)[0]
                if word == "packtrust":
                    self._greeted.set()
                elif word in (self._asked, "error") and self._answer is not None and not self._answer.done():
                    self._answer.set_result(line)
                    continue
                elif word == "claim":
                    continue  # shown at power-up; asked for again, and no log's business
                self.log.append(line)
        await process.wait()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(NodeError("%s has ended: %s" % (self.name, self._last_words())))

    async def command(self, line: str) -> str:
        """One console command, its one line of answer. NodeError if the node is down or silent."""
        async with self._console:
            if not self.running or self._writer is None:
                raise NodeError("%s is not running: start it first" % self.name)
            if "\n" in line or "\r" in line:
                raise NodeError("a console command is one line")
            self._answer = asyncio.get_running_loop().create_future()
            # Not any answer will do: the claim line of the greeting may still be on its way.
            self._asked = line.split(" ", 1)[0]
            try:
                self._writer.write(line.encode() + b"\n")
                await self._writer.drain()
                return await asyncio.wait_for(self._answer, ANSWER_S)
            except TimeoutError as error:
                raise NodeError("%s does not answer %r within %d s" % (self.name, line, ANSWER_S)) from error
            except ConnectionError as error:
                raise NodeError("%s has ended: %s" % (self.name, self._last_words())) from error
            finally:
                self._answer = None

    async def statistics(self) -> dict[str, Any]:
        """The node's counters. A board that is short of RAM may break off, and is asked again; NodeError in the end."""
        answer = ""
        for _ in range(_STATISTICS_TRIES):
            answer = await self.command("stats")
            with contextlib.suppress(ValueError):
                result: dict[str, Any] = json.loads(answer.split(" ", 1)[1])
                return result
        raise NodeError("%s breaks off its answer to 'stats': %s | %s" % (self.name, answer, self._last_words()))

    async def kill(self) -> None:
        """Pull its power: SIGKILL. The flash stays as it is."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # ended by itself meanwhile
                process.kill()
        await process.wait()
        if self._reading is not None:
            await self._reading
        self._power_lost()
        for bus in self._ports:
            if self._port_name(bus) in self._server.ports:
                self._server.remove(self._port_name(bus))

    def describe(self) -> dict[str, Any]:
        """What the ready line and `nodes` tell about it."""
        return {
            "role": self.config["role"],
            "board": self.board,
            "serial": self.config["serial"],
            "unique_id": self.config["unique_id"],
            "running": self.running,
            "pid": self.pid,
            "boots": self.boots,
            "start_s": round(self.start_s, 3),
            "flash": str(self.flash),
        }


class UnixNode(NodeProcess):
    """MicroPython's unix port with boards/unix/boot.py; its flash is a folder with the files as they are.

    micropython  interpreter;  heap  MicroPython's, e.g. "256K", or None;  files  path on the flash -> file put there
    """

    board = "unix"

    def __init__(
        self,
        server: VirtualBusServer,
        name: str,
        config: NodeConfig,
        flash: Path,
        on_key: Callable[[str, str], None] | None,
        micropython: str,
        heap: str | None,
        files: dict[str, str],
    ) -> None:
        super().__init__(server, name, config, flash, on_key)
        self._micropython = micropython
        self._heap = heap
        self._tap_fd = -1
        make_flash(flash, config, files)

    async def _power_on(self, can: list[socket.socket]) -> asyncio.StreamReader:
        settings: dict[str, Any] = {"flash": str(self.flash), "can": [end.fileno() for end in can]}
        inherited = [end.fileno() for end in can]
        tap_write = -1
        if self._on_key is not None:
            self._tap_fd, tap_write = os.pipe()
            os.set_blocking(self._tap_fd, False)
            inherited.append(tap_write)
            settings["tap"] = tap_write
            asyncio.get_running_loop().add_reader(self._tap_fd, self._tap_readable)
        options = ["-X", "heapsize=" + self._heap] if self._heap else []
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                self._micropython,
                *options,
                str(BOOT),
                json.dumps(settings),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=inherited,
                cwd=self.flash,
                limit=1 << 20,
            )
        except OSError as error:
            raise NodeError("cannot start %s: %s" % (self._micropython, error)) from error
        finally:
            if tap_write >= 0:
                os.close(tap_write)
        assert process.stdin is not None and process.stdout is not None
        self._writer = process.stdin
        return process.stdout

    def _tap_readable(self) -> None:
        try:
            data = os.read(self._tap_fd, 65536)
        except BlockingIOError:
            return
        if data:
            self._tapped(data)
        else:
            self._close_tap()

    def _close_tap(self) -> None:
        if self._tap_fd >= 0:
            asyncio.get_running_loop().remove_reader(self._tap_fd)
            os.close(self._tap_fd)
            self._tap_fd = -1
            self._tap_rest = b""

    def _power_lost(self) -> None:
        if self._tap_fd >= 0:
            self._tap_readable()
            self._close_tap()


class QemuNode(NodeProcess):
    """The virtual board cortex-m4; its flash is an image file: the program in the ROMFS, the rest in littlefs.

    variant  of the firmware;  files  path -> file that is added to the program or replaces a part of it
    entropy  False: the board has no source of random bytes
    """

    board = "cortex-m4"
    gather_s = 0.001  # its UARTs send byte by byte

    def __init__(
        self,
        server: VirtualBusServer,
        name: str,
        config: NodeConfig,
        flash: Path,
        on_key: Callable[[str, str], None] | None,
        variant: str,
        files: dict[str, str],
        entropy: bool = True,
    ) -> None:
        super().__init__(server, name, config, flash, on_key)
        self._tap: socket.socket | None = None
        self._tap_lane: Lane | None = None
        self._entropy = entropy
        try:
            self._firmware = qemu.firmware(variant)
            qemu.find_qemu()
        except qemu.QemuError as error:
            raise SetupError(str(error)) from error
        self._image = rom_image("cortex-m4", config["role"], files, on_key is not None)
        flash.parent.mkdir(parents=True, exist_ok=True)
        self._written = flash.with_suffix(".json")
        if not flash.exists():
            self._written.unlink(missing_ok=True)
            qemu.new_flash(flash, int(config["unique_id"]).to_bytes(4, "big"))
        qemu.write_romfs(flash, self._image)

    def _lane(self, port: int) -> Lane | None:
        return Lane(self.flash, qemu.LANES_OFFSET, port)

    async def _power_on(self, can: list[socket.socket]) -> asyncio.StreamReader:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        held = [theirs]
        ends: list[int | str | None] = [end.fileno() for end in can]
        if self._on_key is not None:
            # The key tap's: the UART after the CAN ports'.
            self._tap, tapped = socket.socketpair()
            self._tap.setblocking(False)
            self._tap_lane = self._lane(qemu.CAN_PORTS - 1)
            held.append(tapped)
            ends += [None] * (qemu.CAN_PORTS - 1 - len(ends)) + [tapped.fileno()]
        machine = qemu.QemuMachine(
            self._firmware, self.flash, theirs.fileno(), ends, entropy=self._entropy, lanes=len(ends)
        )
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *machine.command(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=machine.pass_fds,
                preexec_fn=_die_with_parent,
            )
        except (OSError, qemu.QemuError) as error:
            ours.close()
            raise NodeError("cannot start %s: %s" % (self.name, error)) from error
        finally:
            for end in held:
                end.close()
        if self._tap is not None:
            loop.add_reader(self._tap, self._tap_readable)
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=1 << 20)
        assert process.stderr is not None
        self._errors = asyncio.create_task(self._read_errors(process.stderr))
        await self._fill(reader)
        return reader

    async def _read_errors(self, stream: asyncio.StreamReader) -> None:
        while raw := await stream.readline():
            self.log.append(raw.decode("utf-8", "replace").rstrip())

    # -- what lies in littlefs -------------------------------------------------------------------------------------

    async def _fill(self, reader: asyncio.StreamReader) -> None:
        """Write node.json and main.py if they are not there yet, by the board's own REPL."""
        files = {"main.py": main_file(self._on_key is not None), "node.json": json.dumps(self.config)}
        mark = hashlib.sha256(json.dumps(files).encode()).hexdigest()
        if self._written.exists() and self._written.read_text() == mark:
            return
        try:
            async with asyncio.timeout(_REPL_S):
                await self._repl(reader, files)
        except TimeoutError as error:
            await self.kill()
            raise NodeError("%s has no REPL: %s" % (self.name, self._last_words())) from error
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            await self.kill()
            raise NodeError("%s ended at its start: %s" % (self.name, self._last_words())) from error
        self._written.write_text(mark)

    async def _repl(self, reader: asyncio.StreamReader, files: dict[str, str]) -> None:
        writer = self._writer
        assert writer is not None
        writer.write(b"\r" + _CTRL_C + _CTRL_C + _CTRL_A)
        await reader.readuntil(b"raw REPL; CTRL-B to exit\r\n>")
        for name, text in files.items():
            code = "f=open('/flash/%s','w')\nf.write(%r)\nf.close()\n" % (name, text)
            writer.write(code.encode() + _CTRL_D)
            answer = (await reader.readuntil(_CTRL_D + b">")).split(_CTRL_D)
            if not answer[0].startswith(b"OK") or answer[1]:
                raise NodeError("%s cannot be set up: %s" % (self.name, answer[1].decode("utf-8", "replace").strip()))
        writer.write(_CTRL_B)
        await reader.readuntil(b">>> ")
        writer.write(_CTRL_D)
        await writer.drain()

    # -- tap -------------------------------------------------------------------------------------------------------

    def _tap_readable(self) -> None:
        if self._tap is None:
            return
        try:
            data = self._tap.recv(65536)
        except (BlockingIOError, ConnectionError):
            return
        if not data:
            self._close_tap()
        elif self._tap_lane is not None:
            self._tapped(self._tap_lane.read())

    def _close_tap(self) -> None:
        if self._tap is not None:
            asyncio.get_running_loop().remove_reader(self._tap)
            self._tap.close()
            self._tap = None
            self._tap_rest = b""
        if self._tap_lane is not None:
            self._tap_lane.close()
            self._tap_lane = None

    def _power_lost(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._tap_readable()
        self._close_tap()
