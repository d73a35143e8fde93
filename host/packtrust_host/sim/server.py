"""The virtual buses in real time: paced by the monotonic clock, reached through SLCAN ports.

Bus time starts at zero when a bus is added and runs with the clock.  When the server comes late it
catches up without shifting anything: a frame starts when the one before it has ended or when it was
handed in, whichever is later, so what is measured in bus time does not depend on the machine.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import select
import selectors
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO, TypeVar

from packtrust.frame import Frame

from .bus import Bus, Controller, FdSupport
from .lanes import Lane
from .ports import Confirm, FdPort, Port, PtyPort
from .slcan import SlcanDevice

T = TypeVar("T")

ADAPTER_FIFO = 64
NODE_FIFO = 16
IN_VAIN_NS = 20_000_000  # how often a bus is looked at on which one controller repeats its frame


class CandumpLog:
    """Writes each good frame of a bus as ``candump -L`` does, at the end of its frame.

    target      path, or an open text file (left open by :meth:`close`).
    channel     the interface name in the log.
    epoch_ns    Unix time at bus time zero, in ns; 0 gives bus time itself.
    """

    def __init__(self, bus: Bus, target: str | os.PathLike[str] | TextIO, channel: str, epoch_ns: int = 0) -> None:
        self._bus = bus
        self._own = isinstance(target, (str, os.PathLike))
        # Line buffered: whoever follows the log sees each frame at once.
        self._file: TextIO = (
            open(target, "w", encoding="ascii", buffering=1)  # noqa: SIM115
            if isinstance(target, (str, os.PathLike))
            else target
        )
        self._channel = channel
        self._epoch_ns = epoch_ns
        bus.listeners.append(self._frame)

    def _frame(self, frame: Frame, sender: str, start_ns: int, end_ns: int) -> None:
        micros = (self._epoch_ns + end_ns) // 1000
        self._file.write(
            "(%d.%06d) %s %s\n" % (micros // 1_000_000, micros % 1_000_000, self._channel, candump_text(frame))
        )

    def close(self) -> None:
        """Stop and close the file."""
        if self._frame in self._bus.listeners:
            self._bus.listeners.remove(self._frame)
            if self._own:
                self._file.close()
            else:
                self._file.flush()


def candump_text(frame: Frame) -> str:
    """``ID#DATA``: 3 or 8 ID digits; ``#R`` and length for remote, ``##`` and flags for FD."""
    ident = ("%08X" if frame.is_extended_id else "%03X") % frame.arbitration_id
    if frame.is_remote_frame:
        return "%s#R%d" % (ident, frame.dlc)
    data = bytes(frame.data).hex().upper()
    if frame.is_fd:
        return f"{ident}##{int(frame.bitrate_switch):X}{data}"
    return f"{ident}#{data}"


class BusRuntime:
    """One bus tied to the clock."""

    def __init__(self, bus: Bus, clock: Callable[[], int], loop: asyncio.AbstractEventLoop) -> None:
        self.bus = bus
        self.loop = loop
        self.dirty: set[Port] = set()
        self.ports: list[Port] = []
        self.log: CandumpLog | None = None
        self.latest_ns = 0
        self._clock = clock
        self._anchor_ns = clock()
        self._timer: asyncio.TimerHandle | None = None
        self._due_ns = 0

    def time_ns(self) -> int:
        """Bus time now."""
        return self._clock() - self._anchor_ns

    def advance(self) -> None:
        """Bring the bus up to now, before anything is handed in."""
        self.bus.run_until(max(self.time_ns(), self.bus.now_ns))

    def service(self) -> None:
        """Let everything due happen, hand out what came of it, and set the timer."""
        # A frame handed in just now starts at that very time; one nanosecond later it has begun,
        # and its end is known.
        self.bus.run_until(max(self.time_ns(), self.bus.now_ns + 1))
        while self.dirty:
            port = self.dirty.pop()
            port.flush()
        self._schedule()

    def _schedule(self) -> None:
        due = self.bus.next_event_ns()
        if due is None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        if self.bus.is_in_vain:
            due = max(due, self.time_ns() + IN_VAIN_NS)  # many at once, or when somebody hands something in
        if self._timer is not None:
            if self._due_ns == due:
                return
            self._timer.cancel()
        self._due_ns = due
        delay = (due - self.time_ns()) / 1e9
        self._timer = self.loop.call_later(max(0.0, delay), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.latest_ns = max(self.latest_ns, self.time_ns() - self._due_ns)
        self.service()

    def stop(self) -> None:
        """Take all ports off and close the log."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for port in list(self.ports):
            port.close()
        self.ports.clear()
        if self.log is not None:
            self.log.close()


class VirtualBusServer:
    """Buses, ports and control of one event loop.  All methods belong to that loop's thread.

    seed   for the faults of all buses (each bus mixes in its name).
    """

    def __init__(self, *, seed: int | str = 0, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._loop = asyncio.get_running_loop()
        self._seed = seed
        self._clock = clock
        self.buses: dict[str, BusRuntime] = {}
        self.ports: dict[str, Port] = {}
        self.stopped = asyncio.Event()
        self._control: asyncio.Server | None = None
        self._control_path: str | None = None

    # -- building ------------------------------------------------------------------------------

    def add_bus(
        self,
        name: str,
        bitrate: int = 500_000,
        data_bitrate: int | None = None,
        log: str | os.PathLike[str] | TextIO | None = None,
    ) -> Bus:
        """Make a bus; ``log`` writes a candump log of it, with Unix times."""
        if name in self.buses:
            raise ValueError(f"there is a bus {name} already")
        bus = Bus(bitrate, data_bitrate, seed=f"{self._seed}/{name}", name=name)
        runtime = BusRuntime(bus, self._clock, self._loop)
        if log is not None:
            runtime.log = CandumpLog(bus, log, name, time.time_ns())
        self.buses[name] = runtime
        return bus

    def runtime(self, bus: Bus | str) -> BusRuntime:
        """The runtime of a bus, by name or object."""
        name = bus if isinstance(bus, str) else bus.name
        if name not in self.buses:
            raise KeyError("no bus {}: there are {}".format(name, ", ".join(self.buses) or "none"))
        return self.buses[name]

    def add_pty(
        self,
        bus: Bus | str,
        *,
        name: str | None = None,
        link: str | os.PathLike[str] | None = None,
        tx_fifo: int = ADAPTER_FIFO,
        rx_limit: int = 4096,
        fd_support: FdSupport | None = None,
    ) -> PtyPort:
        """A virtual USB-CAN adapter; its ``path`` is what ``slcan`` opens.

        fd_support  as of :meth:`packtrust_host.sim.bus.Bus.attach`: CAN FD where the bus has it.
        """
        runtime = self.runtime(bus)
        name = name or "adapter%d" % (len(self.ports) + 1)
        self._free(name)
        device = SlcanDevice(
            runtime.bus.attach(name, tx_fifo=tx_fifo, fd_support=fd_support),
            serial="P%03d" % (len(self.ports) + 1),
            rx_limit=rx_limit,
        )
        port = PtyPort(runtime, name, device, None if link is None else os.fspath(link))
        return self._register(runtime, port)

    def add_fd(
        self,
        bus: Bus | str,
        fd: int,
        confirm: Confirm = "transmitted",
        *,
        name: str | None = None,
        write_fd: int | None = None,
        tx_fifo: int = NODE_FIFO,
        rx_limit: int = 1024,
        fd_support: FdSupport | None = None,
        gather_s: float = 0.0,
        lane: Lane | None = None,
    ) -> FdPort:
        """A node's controller on a socket, or a pair of pipe ends; the descriptors become ours.

        fd_support  as of :meth:`packtrust_host.sim.bus.Bus.attach`: CAN FD where the bus has it.
        gather_s, lane  as of :class:`.ports.FdPort`.
        """
        runtime = self.runtime(bus)
        name = name or "node%d" % (len(self.ports) + 1)
        self._free(name)
        controller = runtime.bus.attach(name, tx_fifo=tx_fifo, fd_support=fd_support)
        device = SlcanDevice(controller, confirm=confirm, rx_limit=rx_limit)
        return self._register(runtime, FdPort(runtime, name, device, fd, write_fd, gather_s, lane))

    def _free(self, name: str) -> None:
        if name in self.ports:
            raise ValueError(f"there is a port {name} already: remove it first")

    def _register(self, runtime: BusRuntime, port: AnyPort) -> AnyPort:
        runtime.advance()
        runtime.ports.append(port)
        self.ports[port.name] = port
        port.start()
        return port

    def port(self, port: Port | str) -> Port:
        """A port by name (or itself)."""
        if isinstance(port, Port):
            return port
        if port not in self.ports:
            raise KeyError("no port {}: there are {}".format(port, ", ".join(self.ports) or "none"))
        return self.ports[port]

    def remove(self, port: Port | str) -> None:
        """Close a port for good; its name is free again."""
        port = self.port(port)
        port.runtime.advance()
        port.close()
        port.runtime.dirty.discard(port)
        port.runtime.ports.remove(port)
        del self.ports[port.name]
        port.runtime.service()

    def unplug(self, port: Port | str) -> None:
        """Pull an adapter out, or cut a node's bus wire."""
        self.port(port).unplug()

    def replug(self, port: Port | str) -> None:
        """The reverse of :meth:`unplug`."""
        self.port(port).replug()

    def send(self, controller: Controller, frame: Any) -> bool:
        """Send from a controller of this process, now; False if its FIFO is full."""
        runtime = self.runtime(controller.bus)
        runtime.advance()
        taken = controller.send(frame)
        runtime.service()
        return taken

    # -- statistics and control ----------------------------------------------------------------

    def statistics(self) -> dict[str, Any]:
        """Every bus and port as a JSON-able dict; load is the share of the last second, 0..1."""
        buses = {}
        for name, runtime in self.buses.items():
            runtime.advance()
            runtime.service()
            buses[name] = {**runtime.bus.statistics(), "latest_ns": runtime.latest_ns}
        return {
            "buses": buses,
            "ports": {name: port.statistics() for name, port in self.ports.items()},
        }

    async def start_control(self, path: str | os.PathLike[str]) -> None:
        """Serve JSON lines on a Unix socket; see :meth:`control` for the commands."""
        path = os.fspath(path)
        self._control = await asyncio.start_unix_server(self._serve_control, path)
        os.chmod(path, 0o600)
        self._control_path = path

    async def _serve_control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                answer = self.control_line(line)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            # Gone, or a line beyond the reader's limit: that client's own loss.
            return
        finally:
            writer.close()

    def control_line(self, line: bytes) -> dict[str, Any]:
        """One command line in, its answer out: ``{"ok": true, "result": ...}`` or an error."""
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError("a command is a JSON object with a 'command' field")
            return {"ok": True, "result": self.control(request)}
        except (ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
            text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
            return {"ok": False, "error": str(text)}

    def control(self, request: dict[str, Any]) -> Any:
        """Carry out one command:

        ``statistics``; ``ports``; ``unplug``/``replug``/``recover`` with ``port``;
        ``fault_list``/``fault_clear`` with ``bus``; ``fault_add`` with ``bus`` and ``fault`` (see
        :class:`packtrust_host.sim.faults.Fault`), result ``{"id": n}``; ``fault_remove`` with
        ``bus`` and ``id``, result the fault with its hits; ``stop``.
        """
        command = request.get("command")
        if command == "statistics":
            return self.statistics()
        if command == "ports":
            return {name: port.statistics() for name, port in self.ports.items()}
        if command == "stop":
            self.stopped.set()
            return None
        if command in ("unplug", "replug", "recover"):
            port = self.port(_need(request, "port", str))
            if command == "recover":
                port.runtime.advance()
                port.controller.recover()
                port.runtime.service()
            else:
                getattr(self, command)(port)
            return port.statistics()
        if command in ("fault_add", "fault_remove", "fault_list", "fault_clear"):
            runtime = self.runtime(_need(request, "bus", str))
            runtime.advance()
            faults = runtime.bus.faults
            if command == "fault_add":
                return {"id": faults.add(_need(request, "fault", dict))}
            if command == "fault_remove":
                return faults.remove(_need(request, "id", int)).to_dict()
            if command == "fault_clear":
                faults.clear()
            return faults.describe()
        raise ValueError(
            f"no command {command!r}: known are statistics, ports, unplug, replug, recover, "
            "fault_add, fault_remove, fault_list, fault_clear, stop"
        )

    async def close(self) -> None:
        """Close everything."""
        if self._control is not None:
            self._control.close()
            self._remove_control()
        for runtime in self.buses.values():
            runtime.stop()
        self.ports.clear()
        self.stopped.set()

    def _remove_control(self) -> None:
        if self._control_path and os.path.exists(self._control_path):
            os.unlink(self._control_path)
        self._control_path = None

    async def __aenter__(self) -> VirtualBusServer:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


AnyPort = TypeVar("AnyPort", bound=Port)


def _need(request: dict[str, Any], field: str, kind: type[T]) -> T:
    value = request.get(field)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError("{} needs a field {!r} ({})".format(request["command"], field, kind.__name__))
    return value


# -- the loop it runs in ---------------------------------------------------------------------------


def new_event_loop() -> asyncio.AbstractEventLoop:
    """An event loop whose timers are good to microseconds, if the system has epoll.

    epoll itself waits whole milliseconds, which is several CAN frames.
    """
    if sys.platform != "linux":
        return asyncio.new_event_loop()

    class FineSelector(selectors.EpollSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and 0 < timeout < 0.01:
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)

    return asyncio.SelectorEventLoop(FineSelector())


class ServerThread:
    """A :class:`VirtualBusServer` in a thread of its own, for programs without an event loop.

    ::

        with ServerThread(seed=1) as thread:
            thread.call(thread.server.add_bus, "vcu")
            adapter = thread.call(thread.server.add_pty, "vcu")
    """

    def __init__(self, *, seed: int | str = 0) -> None:
        self._seed = seed
        self._ready: concurrent.futures.Future[VirtualBusServer] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name="virtual-bus", daemon=True)
        self._loop = new_event_loop()
        self.server: VirtualBusServer

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
        except BaseException as error:  # reported to whoever waits for the start
            if not self._ready.done():
                self._ready.set_exception(error)
            raise
        finally:
            self._loop.close()

    async def _main(self) -> None:
        self._end = asyncio.Event()
        async with VirtualBusServer(seed=self._seed) as server:
            self._ready.set_result(server)
            await self._end.wait()

    def start(self) -> ServerThread:
        """Start the thread; returns when the server is up."""
        self._thread.start()
        self.server = self._ready.result()
        return self

    def stop(self) -> None:
        """Close the server and end the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a function in the server's thread and return what it returns (or raise it)."""
        result: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            try:
                result.set_result(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - handed to the caller
                result.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return result.result()

    def start_control(self, path: str | os.PathLike[str]) -> None:
        """Serve the control socket at ``path``."""
        asyncio.run_coroutine_threadsafe(self.server.start_control(path), self._loop).result()

    def __enter__(self) -> ServerThread:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
