"""What runs inside a virtual board: an interpreter's process, or an emulated microcontroller."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from packtrust_host.sim.deploy import CHECKOUT, find_micropython

from .errors import BoardError

REPL = CHECKOUT / "boards" / "unix" / "repl.py"
CTRL_C = 0x03
CTRL_D = 0x04
INTERRUPT_EVERY_S = 0.1  # the port takes a second SIGINT before it has dealt with the first for an order to end
PIPE_BACKLOG = 1 << 16
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """In the child, before exec: no board outlives whoever started it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Machine:
    """A board's insides.

    on_output(data)   console output
    on_hold(bool)     stop, or go on, handing in input
    on_end(text)      it ended by itself
    can_sockets()     new sockets for its CAN ports, ready to be inherited
    """

    def __init__(
        self,
        on_output: Callable[[bytes], None],
        on_hold: Callable[[bool], None],
        on_end: Callable[[str], None],
        can_sockets: Callable[[], list[socket.socket]],
    ) -> None:
        self.on_output = on_output
        self.on_hold = on_hold
        self.on_end = on_end
        self.can_sockets = can_sockets
        self.process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def pid(self) -> int | None:
        """Of the process, while it runs."""
        process = self.process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Power on."""
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        """Console input."""
        raise NotImplementedError

    async def kill(self) -> None:
        """Power off, at once."""
        process = self.process
        if process is None:
            return
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                process.kill()
        await process.wait()
        self.process = None

    async def close(self) -> None:
        """Power off for good."""
        await self.kill()

    async def _spawn(self, command: list[str], inherited: list[int], **streams: Any) -> None:
        try:
            self.process = await asyncio.create_subprocess_exec(
                *command,
                pass_fds=inherited,
                preexec_fn=_die_with_parent,
                start_new_session=True,  # Ctrl-C in the terminal is for whoever started us
                **streams,
            )
        except OSError as error:
            raise BoardError("%s cannot be started: %s" % (command[0], error), "set it up with `make setup`") from error
        self._watch = asyncio.create_task(self._watch_end(self.process))

    async def _watch_end(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        self.on_end("its process was killed" if code < 0 else "its process ended with exit code %d" % code)


class UnixMachine(Machine):
    """MicroPython's unix port behind boards/unix/repl.py. Resets are new processes on the same pipes."""

    def __init__(self, flash: Path, unique_id: bytes, heap: str | None, **callbacks: Any) -> None:
        super().__init__(**callbacks)
        self._flash = flash
        self._unique_id = unique_id
        self._heap = heap
        self._in_read, self._in_write = os.pipe()
        self._out_read, self._out_write = os.pipe()
        self._status_read, self._status_write = os.pipe()
        for fd in (self._in_write, self._out_read, self._status_read):
            os.set_blocking(fd, False)
        self._loop.add_reader(self._out_read, self._output)
        self._loop.add_reader(self._status_read, self._status)
        self._input = bytearray()
        self._state = ""  # unknown: input waits
        self._interruptible = True
        self._interrupted_s = -INTERRUPT_EVERY_S
        self._last = 0
        self._writing = False
        self._restart: asyncio.Task[None] | None = None

    async def start(self, how: str = "power") -> None:
        """Power on; `how` as in repl.py."""
        self._flash.mkdir(parents=True, exist_ok=True)
        self._state = ""
        self._interruptible = True
        sockets = self.can_sockets()
        settings = {
            "flash": str(self._flash),
            "can": [item.fileno() for item in sockets],
            "status": self._status_write,
            "start": how,
            "unique_id": self._unique_id.hex(),
        }
        heap = ["-X", "heapsize=" + self._heap] if self._heap else []
        try:
            await self._spawn(
                [find_micropython(), *heap, str(REPL), json.dumps(settings)],
                [item.fileno() for item in sockets] + [self._status_write],
                stdin=self._in_read,
                stdout=self._out_write,
                stderr=self._out_write,
                cwd=self._flash,
            )
        finally:
            for item in sockets:
                item.close()

    async def kill(self) -> None:
        """Power off: what was typed or printed last is lost."""
        if self._restart is not None and self._restart is not asyncio.current_task():
            self._restart.cancel()
            self._restart = None
        await super().kill()

    async def close(self) -> None:
        """Power off for good."""
        await self.kill()
        for fd in (self._out_read, self._status_read):
            self._loop.remove_reader(fd)
        if self._writing:
            self._loop.remove_writer(self._in_write)
        for fd in (
            self._in_read,
            self._in_write,
            self._out_read,
            self._out_write,
            self._status_read,
            self._status_write,
        ):
            os.close(fd)

    def power_lost(self) -> None:
        """Drop what was typed and not read: a board that had no power has not heard it."""
        self._input.clear()
        os.set_blocking(self._in_read, False)
        try:
            while os.read(self._in_read, 4096):
                continue
        except BlockingIOError:
            pass  # empty now
        finally:
            os.set_blocking(self._in_read, True)

    # -- output ----------------------------------------------------------------------------------------------------

    def _output(self) -> None:
        self._status()  # told before what was printed after it
        try:
            data = os.read(self._out_read, 65536)
        except BlockingIOError:
            return
        if self._state in ("F", "I"):
            data = self._cooked(data)
        if data:
            self._last = data[-1]
            self.on_output(data)

    def _cooked(self, data: bytes) -> bytes:
        """Line ends as a board's: with a carriage return."""
        out = bytearray()
        last = self._last
        for byte in data:
            if byte == 10 and last != 13:
                out.append(13)
            out.append(byte)
            last = byte
        return bytes(out)

    def _status(self) -> None:
        try:
            states = os.read(self._status_read, 4096)
        except BlockingIOError:
            return
        for state in states.decode("ascii"):
            if state in "kK":
                self._interruptible = state == "K"
            elif state in "XST":
                self._state = ""
                how = {"X": "power", "S": "soft", "T": "raw"}[state]
                self._restart = asyncio.create_task(self._reset(how))
            else:
                self._state = state
                if state in "IW":
                    self._interruptible = True
        self._send()

    async def _reset(self, how: str) -> None:
        await super().kill()
        self._output()
        await self.start(how)
        self._restart = None

    # -- input -----------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Console input; Ctrl-C interrupts a program that runs."""
        self._input += data
        self._send()

    def _send(self) -> None:
        while self._input and self._state:
            running = self._state in "FR"
            if running and self._interruptible:
                if self._input[0] == CTRL_C:
                    del self._input[0]
                    self._interrupt()
                    continue
                end = self._input.find(CTRL_C)
                part = bytes(self._input if end < 0 else self._input[:end])
            elif running:
                part = bytes(self._input)
            else:
                # Ctrl-D may start a program: what comes after it waits until that is known.
                end = self._input.find(CTRL_D)
                part = bytes(self._input if end < 0 else self._input[: end + 1])
            try:
                count = os.write(self._in_write, part)
            except BlockingIOError:
                self._watch_room(True)
                break
            if not running and part[count - 1] == CTRL_D:
                self._state = ""
            del self._input[:count]
        else:
            self._watch_room(False)
        self.on_hold(len(self._input) > PIPE_BACKLOG)

    def _watch_room(self, on: bool) -> None:
        if on != self._writing:
            if on:
                self._loop.add_writer(self._in_write, self._send)
            else:
                self._loop.remove_writer(self._in_write)
            self._writing = on

    def _interrupt(self) -> None:
        now = self._loop.time()
        process = self.process
        if process is None or process.returncode is not None or now - self._interrupted_s < INTERRUPT_EVERY_S:
            return
        self._interrupted_s = now
        process.send_signal(signal.SIGINT)


class SocketMachine(Machine):
    """A machine whose console is a socket: QEMU's.

    command(console, can)   its command line, given the descriptors it inherits
    """

    def __init__(self, command: Callable[[int, list[int]], list[str]], **callbacks: Any) -> None:
        super().__init__(**callbacks)
        self._command = command
        self._socket: socket.socket | None = None
        self._input = bytearray()
        self._writing = False
        self._said = b""

    async def start(self) -> None:
        """Power on."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._socket = ours
        sockets = self.can_sockets()
        can = [item.fileno() for item in sockets]
        try:
            await self._spawn(
                self._command(theirs.fileno(), can),
                [theirs.fileno(), *can],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=None,
            )
        finally:
            theirs.close()
            for item in sockets:
                item.close()
        self._loop.add_reader(ours, self._output)

    async def kill(self) -> None:
        """Power off."""
        await super().kill()
        if self._socket is not None:
            self._watch_room(False)
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def power_lost(self) -> None:
        """What was typed is lost."""
        self._input.clear()

    def _output(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.on_output(data)
        else:
            self._loop.remove_reader(self._socket)

    def feed(self, data: bytes) -> None:
        """Console input."""
        self._input += data
        self._send()

    def _send(self) -> None:
        while self._input and self._socket is not None:
            try:
                count = self._socket.send(self._input)
            except BlockingIOError:
                self._watch_room(True)
                break
            except OSError:
                self._input.clear()  # it is ending, which is told elsewhere
                break
            del self._input[:count]
        else:
            self._watch_room(False)
        self.on_hold(len(self._input) > PIPE_BACKLOG)

    def _watch_room(self, on: bool) -> None:
        if on != self._writing and self._socket is not None:
            if on:
                self._loop.add_writer(self._socket, self._send)
            else:
                self._loop.remove_writer(self._socket)
            self._writing = on
