"""Virtual boards on this machine: `packtrust board start` runs one, everything else finds it here.

Each has a folder of its name in the user's runtime folder:

    console     the terminal of its console, a symbolic link that stays the same through resets and power cycles
    can-BUS     a USB-CAN adapter (SLCAN) on each of its buses
    attach-BUS  socket at which another virtual board joins the bus
    control     JSON lines, as `packtrust_host.sim.launcher` has them
    state.json  what it is; locked for as long as it runs
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import re
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs

from packtrust_host.app.keystore import machine_id
from packtrust_host.sim import qemu
from packtrust_host.sim.server import VirtualBusServer, new_event_loop

from .console import ConsolePty
from .errors import BoardError
from .machines import Machine, SocketMachine, UnixMachine
from .profile import Profile

ROLES = ("module", "pack")
PORTS_MAX = qemu.CAN_PORTS
LOG_BYTES = 1 << 16


def runtime_folder() -> Path:
    """Where the running virtual boards are."""
    return Path(platformdirs.user_runtime_dir("packtrust", appauthor=False)) / "boards"


def default_flash(name: str) -> Path:
    """Where a virtual board keeps its flash unless told otherwise."""
    return Path(platformdirs.user_data_dir("packtrust", appauthor=False)) / "boards" / name


def unique_id(name: str) -> bytes:
    """The number of a virtual board: its own on every machine, the same at every start."""
    return hashlib.sha256(b"packtrust v1 virtual board\0" + machine_id() + b"\0" + name.encode()).digest()[:12]


def bus_names(role: str, count: int | None) -> tuple[str, ...]:
    """The buses at a board's CAN ports, in the order of the ports."""
    first = ("vcu", "module") if role == "pack" else ("module",)
    if count is None:
        return first
    return (first + tuple("can%d" % number for number in range(len(first), PORTS_MAX)))[:count]


# -- finding those that run --------------------------------------------------------------------------------------------


def _read_state(path: Path) -> dict[str, Any] | None:
    """The state of a board that runs; None if it does not, or is just starting."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        try:
            state: dict[str, Any] = json.loads(os.pread(fd, 1 << 20, 0))
        except ValueError:
            return None
        return state
    finally:
        os.close(fd)
    return None  # nobody holds it: left over by one that was killed


def running() -> list[dict[str, Any]]:
    """What every running virtual board says of itself."""
    states = (_read_state(path) for path in sorted(runtime_folder().glob("*/state.json")))
    return [state for state in states if state is not None]


def find_running(name: str) -> dict[str, Any]:
    """A running virtual board by its name. BoardError lists those that run."""
    states = {state["name"]: state for state in running()}
    if name not in states:
        raise BoardError(
            "no virtual board %r runs here (running: %s)" % (name, ", ".join(states) or "none"),
            "start it with `packtrust board start`",
        )
    return states[name]


def control(name: str, command: str, **arguments: Any) -> Any:
    """Carry out a command of a running virtual board; see :meth:`VirtualBoard.control`."""
    state = find_running(name)
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(60)
        try:
            link.connect(state["control"])
            link.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            with link.makefile("rb") as answers:
                line = answers.readline()
        except OSError as error:
            raise BoardError("%s does not answer: %s" % (name, error), "end it and start it again") from error
    answer = json.loads(line) if line else {"ok": False, "error": "it has ended"}
    if not answer["ok"]:
        raise BoardError("%s: %s" % (name, answer["error"]), "see what it printed where it was started")
    return answer["result"]


# -- one that runs -----------------------------------------------------------------------------------------------------


class VirtualBoard:
    """A board with its console, its buses and their adapters; belongs to a running event loop.

    name      of its folder; two cannot have the same
    flash     cortex-m4: an image file; unix: a folder. Made if need be.
    role      what it is to be: decides the names of its buses; written into node.json by `packtrust deploy`
    can       number of CAN ports, None: as many as the role needs
    join      name of a running virtual board whose buses it is put on
    variant   cortex-m4: of its firmware
    heap      unix: MicroPython heap, e.g. "256K"
    data_bitrate  of its buses, bit/s: they carry CAN FD then
    """

    def __init__(
        self,
        profile: Profile,
        name: str,
        flash: Path,
        *,
        role: str = "module",
        can: int | None = None,
        join: str | None = None,
        bitrate: int = 500_000,
        variant: str = "cryptolib",
        heap: str | None = None,
        data_bitrate: int | None = None,
    ) -> None:
        if role not in ROLES:
            raise BoardError("there is no role %r" % role, "use one of %s" % ", ".join(ROLES))
        if can is not None and not 0 <= can <= PORTS_MAX:
            raise BoardError("a virtual board has 0 to %d CAN ports, not %d" % (PORTS_MAX, can), "give another --can")
        self.profile = profile
        self.name = name
        self.flash = flash.resolve()
        self.role = role
        self.buses = bus_names(role, can)
        self.folder = runtime_folder() / name
        self.log: deque[bytes] = deque()
        self.power_cycles = 0
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._logged = 0
        self._join = join
        self._bitrate = bitrate
        self._data_bitrate = data_bitrate
        self._variant = variant
        self._heap = heap
        self._lock = -1
        self._server: VirtualBusServer | None = None
        self._console: ConsolePty | None = None
        self._machine: Machine | None = None
        self._control: asyncio.Server | None = None
        self._listeners: list[socket.socket] = []
        self._attached = 0
        self._joined: dict[str, Any] = {}

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Buses, console, power. BoardError if it cannot be."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = os.open(self.folder / "state.json", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = -1
            raise BoardError(
                "a virtual board %r runs already" % self.name, "use that one, or start another with --name"
            ) from None
        for name in ("console", "control", *(path.name for path in self.folder.glob("*-*"))):
            (self.folder / name).unlink(missing_ok=True)  # left over by one that was killed
        if self._join is not None:
            self._joined = find_running(self._join)
            missing = [bus for bus in self.buses if bus not in self._joined["attach"]]
            if missing:
                raise BoardError(
                    "%s has no bus %s" % (self._join, " and no bus ".join(missing)),
                    "it has %s: choose the --role that fits" % (", ".join(self._joined["attach"]) or "none"),
                )
        else:
            self._server = VirtualBusServer(seed=self.name)
            for bus in self.buses:
                self._server.add_bus(bus, self._bitrate, self._data_bitrate)
                self._server.add_pty(bus, name="can-" + bus, link=self.folder / ("can-" + bus))
                self._listen(bus)
        self._console = ConsolePty(self.folder / "console", self._typed)
        self._machine = self._make_machine()
        await self._machine.start()
        self._control = await asyncio.start_unix_server(self._serve, self.folder / "control", limit=1 << 20)
        os.chmod(self.folder / "control", 0o600)
        self._publish()

    async def stop(self) -> None:
        """End it; its flash stays."""
        if self._control is not None:
            self._control.close()
        if self._machine is not None:
            await self._machine.close()
        if self._console is not None:
            self._console.close()
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        for bus in self.buses if self._listeners else ():
            (self.folder / ("attach-" + bus)).unlink(missing_ok=True)
        if self._server is not None:
            await self._server.close()
        if self._lock >= 0:
            (self.folder / "control").unlink(missing_ok=True)
            (self.folder / "state.json").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1
            with contextlib.suppress(OSError):  # somebody keeps something in it: his
                self.folder.rmdir()

    async def power_cycle(self) -> None:
        """Pull the power (SIGKILL) and give it again; the flash is kept."""
        assert self._machine is not None
        await self._machine.kill()
        if isinstance(self._machine, (UnixMachine, SocketMachine)):
            self._machine.power_lost()
        self.power_cycles += 1
        await self._machine.start()
        self._publish()

    def _make_machine(self) -> Machine:
        assert self._console is not None
        number = unique_id(self.name)
        callbacks: dict[str, Callable[..., Any]] = {
            "on_output": self._printed,
            "on_hold": self._console.pause,
            "on_end": self._ended,
            "can_sockets": self._can_sockets,
        }
        if self.profile.name == "unix":
            return UnixMachine(self.flash, number, self._heap, **callbacks)
        if self.profile.name != "cortex-m4":
            raise BoardError("%s is no virtual board" % self.profile.name, "start one of unix, cortex-m4")
        firmware = qemu.firmware(self._variant)
        if not self.flash.exists():
            self.flash.parent.mkdir(parents=True, exist_ok=True)
            qemu.new_flash(self.flash, number)

        def command(console: int, can: list[int]) -> list[str]:
            return qemu.QemuMachine(firmware, self.flash, console, can).command()

        return SocketMachine(command, **callbacks)

    # -- console -------------------------------------------------------------------------------

    def _typed(self, data: bytes) -> None:
        if self._machine is not None:
            self._machine.feed(data)

    def _printed(self, data: bytes) -> None:
        self.log.append(data)
        self._logged += len(data)
        while self._logged > LOG_BYTES:
            self._logged -= len(self.log.popleft())
        if self._console is not None:
            self._console.write(data)

    def _ended(self, how: str) -> None:
        if not self.ended.done():
            self.ended.set_result(how)

    # -- buses ---------------------------------------------------------------------------------

    def _can_sockets(self) -> list[socket.socket]:
        sockets = []
        for bus in self.buses:
            if self._server is None:
                link = socket.socket(socket.AF_UNIX)
                link.connect(self._joined["attach"][bus])
                link.setblocking(False)
                sockets.append(link)
                continue
            ours, theirs = socket.socketpair()
            theirs.setblocking(False)
            self._attach(bus, ours, "%s.%s" % (self.name, bus))
            sockets.append(theirs)
        return sockets

    def _attach(self, bus: str, link: socket.socket, name: str) -> None:
        server = self._server
        assert server is not None
        if name in server.ports:
            server.remove(name)
        port = server.add_fd(bus, link.detach(), name=name)
        loop = asyncio.get_running_loop()

        def closed() -> None:
            loop.call_soon(lambda: server.remove(name) if server.ports.get(name) is port else None)

        port.on_closed = closed

    def _listen(self, bus: str) -> None:
        listener = socket.socket(socket.AF_UNIX)
        path = self.folder / ("attach-" + bus)
        listener.bind(str(path))
        os.chmod(path, 0o600)
        listener.listen()
        listener.setblocking(False)
        self._listeners.append(listener)

        def joins() -> None:
            try:
                link, _ = listener.accept()
            except BlockingIOError:
                return
            self._attached += 1
            self._attach(bus, link, "guest%d.%s" % (self._attached, bus))

        asyncio.get_running_loop().add_reader(listener, joins)

    # -- what it is ----------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """What `packtrust board list` and --json tell."""
        if self._server is None:
            adapters = {bus: self._joined["adapters"][bus] for bus in self.buses}
            attach = {bus: self._joined["attach"][bus] for bus in self.buses}
        else:
            adapters = {bus: str(self.folder / ("can-" + bus)) for bus in self.buses}
            attach = {bus: str(self.folder / ("attach-" + bus)) for bus in self.buses}
        return {
            "name": self.name,
            "board": self.profile.name,
            "role": self.role,
            "pid": os.getpid(),
            "board_pid": None if self._machine is None else self._machine.pid,
            "power_cycles": self.power_cycles,
            "unique_id": unique_id(self.name).hex(),
            "console": str(self.folder / "console"),
            "can": {bus: "slcan:%s?bitrate=%d" % (path, self._bitrate) for bus, path in adapters.items()},
            "adapters": adapters,
            "attach": attach,
            "control": str(self.folder / "control"),
            "flash": str(self.flash),
            "joined": self._join,
        }

    def _publish(self) -> None:
        text = json.dumps(self.describe()).encode()
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, text, 0)

    async def control(self, request: dict[str, Any]) -> Any:
        """Carry out a command:

        ``describe``; ``power_cycle``; ``log`` (the last of what the console said); ``stop``; and those of
        :meth:`packtrust_host.sim.server.VirtualBusServer.control` for its buses.
        """
        command = request.get("command")
        if command == "describe":
            return self.describe()
        if command == "power_cycle":
            await self.power_cycle()
            return self.describe()
        if command == "log":
            text = b"".join(self.log).decode("utf-8", "replace")
            return re.sub(r"(?m)^claim [0-9a-f]+", "claim (not logged)", text)
        if command == "stop":
            self._ended("")
            return None
        if self._server is None:
            raise ValueError("the buses belong to %s: ask that board" % self._join)
        return self._server.control(request)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            return  # gone, or a line beyond the limit: that client's own loss
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError("a command is a JSON object with a 'command' field")
            return {"ok": True, "result": await self.control(request)}
        except (ValueError, KeyError, TypeError, RuntimeError, OSError, BoardError) as error:
            text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
            return {"ok": False, "error": str(text)}


async def _run(make: Callable[[], VirtualBoard], ready: Callable[[dict[str, Any]], None]) -> None:
    loop = asyncio.get_running_loop()
    board = make()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, board._ended, "")
    watched = _watch_input(lambda: board._ended(""))
    try:
        await board.start()
        ready(board.describe())
        how = await board.ended
    finally:
        if watched:
            loop.remove_reader(0)
        await board.stop()
    if how:
        raise BoardError("%s has ended: %s" % (board.name, how), "start it again; its flash is kept")


def _watch_input(ended: Callable[[], None]) -> bool:
    """End when standard input does, if it is something that can."""
    loop = asyncio.get_running_loop()

    def readable() -> None:
        try:
            data = os.read(0, 4096)
        except OSError:  # a terminal that hung up, or one that belongs to somebody else in the foreground
            data = b""
        if not data:
            loop.remove_reader(0)
            ended()

    try:
        if os.fstat(0).st_rdev == os.stat(os.devnull).st_rdev and not sys.stdin.isatty():
            return False  # started without one
        loop.add_reader(0, readable)
    except (OSError, ValueError):  # closed, or a regular file
        return False
    return True


def run(make: Callable[[], VirtualBoard], ready: Callable[[dict[str, Any]], None]) -> None:
    """Run a virtual board until Ctrl-C or the end of standard input. BoardError if it ends by itself."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_run(make, ready))
