"""The virtual pack: two real-time buses and one MicroPython process a node, in a process of its own.

    python -m packtrust_host.sim.launcher --config pack.json

prints one JSON line when everything runs (where the adapters and the control socket are, the claim
codes) and then serves the control socket until told to stop, or until its standard input ends.  So the
program under test never disturbs bus timing.  :class:`PackProcess` starts it and talks to it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from packtrust.policy import DEFAULT_PROFILE

from .deploy import SetupError, board_kinds, find_micropython, node_configs
from .nodes import ANSWER_S, BUSES, NodeError, NodeProcess, QemuNode, UnixNode
from .recording import Recording
from .server import VirtualBusServer, new_event_loop

STOP_S = 2.0


class VirtualPack:
    """Buses, nodes and adapters; belongs to a running event loop.

    modules          1..31.
    seed             of unique IDs, cells and bus faults. Keys come from the system, never from it.
    directory        where flashes, logs and adapter links lie; made if need be.
    bitrate          of both buses, bit/s.
    cells            node.json's "cells" for all modules, and for one: ``{"module2": {...}}``.
    recording        CSV of a cycler to replay (:mod:`.recording`); the modules are then those it has.
    speed            time compression of the recording.
    overlays         per node (or "*" for all): path on its flash -> file to put there instead.
    tap              collect every key the nodes had in hands (boards/unix/boot.py).
    adapters         USB-CAN adapters per bus, e.g. ``{"vcu": 1, "module": 1}``.
    micropython      interpreter; None finds one.
    heap             MicroPython heap of a node, e.g. "256K"; None: the port's default.
    fd               CAN FD on the module bus; vcu_fd: on the VCU bus; data_bitrate: of both, bit/s.
    policy           of the VCU bus; mixed_bus: old modules are on the module bus (docs/policy.md).
    logs             write candump logs vcu.log and module.log into `directory`.
    boards           kinds of boards (:func:`.deploy.board_kinds`), e.g. ``{"pack": "cortex-m4", "module": ["unix",
                     "cortex-m4"]}`` or ``{"all": "cortex-m4/plain"}``; what is not named is "unix".
    """

    def __init__(
        self,
        modules: int = 3,
        seed: int | str = 0,
        directory: str | os.PathLike[str] = "build/pack",
        bitrate: int = 500_000,
        *,
        clear_first_transfer: bool = False,
        cells: Mapping[str, Any] | None = None,
        recording: str | os.PathLike[str] | None = None,
        speed: int = 1,
        topology: str = "parallel",
        overlays: Mapping[str, Mapping[str, str]] | None = None,
        tap: bool = False,
        adapters: Mapping[str, int] | None = None,
        micropython: str | None = None,
        heap: str | None = None,
        logs: bool = True,
        boards: Mapping[str, str | Sequence[str]] | None = None,
        fd: bool = False,
        vcu_fd: bool = False,
        data_bitrate: int = 2_000_000,
        policy: str = DEFAULT_PROFILE,
        mixed_bus: bool = False,
    ) -> None:
        self.directory = Path(directory).resolve()
        self.bitrate = bitrate
        self.keys: dict[str, set[str]] = {}
        self.nodes: dict[str, NodeProcess] = {}
        self.server = VirtualBusServer(seed=seed)
        self._logs = logs
        self._data_bitrates = {"vcu": data_bitrate if vcu_fd else None, "module": data_bitrate if fd else None}
        self._adapters = dict(adapters if adapters is not None else {"vcu": 1, "module": 1})
        for bus in self._adapters:
            if bus not in BUSES:
                raise SetupError("no bus %r: there are %s" % (bus, " and ".join(BUSES)))
        extra: dict[str, dict[str, str]] = {}
        settings: dict[str, Any] = dict(cells or {})
        ratings: dict[str, int] = {}
        if recording is not None:
            source = Recording(recording)
            modules = source.modules
            settings |= {"source": "replay", "file": "cells.csv", "speed": speed}
            # The modules are rated for what was recorded, and a little more than the firmware's default.
            charge, discharge = source.peaks_ma()
            ratings = {
                "max_charge_ma": max(10_000, charge * 11 // 10),
                "max_discharge_ma": max(42_000, discharge * 11 // 10),
            }
            for number, path in enumerate(source.split(self.directory / "recording"), 1):
                extra["module%d" % number] = {"cells.csv": str(path)}
        configs = node_configs(
            modules,
            seed,
            bitrate=bitrate,
            topology=topology,
            clear_first_transfer=clear_first_transfer,
            cells=settings,
            fd=fd,
            vcu_fd=vcu_fd,
            data_bitrate=data_bitrate,
            policy=policy,
            mixed_bus=mixed_bus,
        )
        overlays = overlays or {}
        for name in overlays:
            if name != "*" and name not in configs:
                raise SetupError("no node %r: there are %s" % (name, ", ".join(configs)))
        kinds = board_kinds(list(configs), boards or {})
        interpreter = ""
        if "unix" in kinds.values():
            interpreter = micropython or find_micropython()
        on_key = self._key if tap else None
        for name, config in configs.items():
            if config["role"] == "module":
                config.update(ratings)
            flash = self.directory / "flash" / name
            files = extra.get(name, {}) | dict(overlays.get("*", {})) | dict(overlays.get(name, {}))
            kind, _, variant = kinds[name].partition("/")
            if kind == "unix":
                self.nodes[name] = UnixNode(self.server, name, config, flash, on_key, interpreter, heap, files)
            else:
                if "cells.csv" in files:
                    config["cells"]["file"] = "/rom/cells.csv"
                image = flash.with_suffix(".img")
                self.nodes[name] = QemuNode(self.server, name, config, image, on_key, variant or "cryptolib", files)

    def _key(self, node: str, line: str) -> None:
        kind, _, key = line.partition(" ")
        self.keys.setdefault(key, set()).add("%s %s" % (node, kind))

    async def start(self) -> None:
        """Buses, adapters, then all nodes at once. NodeError if one does not come up."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for bus in BUSES:
            log = self.directory / (bus + ".log") if self._logs else None
            self.server.add_bus(bus, self.bitrate, self._data_bitrates[bus], log=log)
        for bus, count in self._adapters.items():
            for _ in range(count):
                self.add_adapter(bus)
        results = await asyncio.gather(*(node.start() for node in self.nodes.values()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                await self.stop()
                raise result

    def add_adapter(self, bus: str, name: str | None = None) -> str:
        """Plug in a virtual USB-CAN adapter; what to give to `slcan`."""
        if name is None:
            number = 0
            while "can-%s%d" % (bus, number) in self.server.ports:
                number += 1
            name = "can-%s%d" % (bus, number)
        return self.server.add_pty(bus, name=name, link=self.directory / name).path

    def node(self, name: object) -> NodeProcess:
        """A node by name. KeyError tells which there are."""
        if not isinstance(name, str) or name not in self.nodes:
            raise KeyError("no node %r: there are %s" % (name, ", ".join(self.nodes)))
        return self.nodes[name]

    def describe(self) -> dict[str, Any]:
        """Nodes, adapters, logs and claim codes, JSON-able."""
        adapters: dict[str, list[str]] = {bus: [] for bus in BUSES}
        for port in self.server.ports.values():
            path = getattr(port, "path", None)
            if path is not None:
                adapters[port.runtime.bus.name].append(path)
        return {
            "directory": str(self.directory),
            "adapters": adapters,
            "nodes": {name: node.describe() for name, node in self.nodes.items()},
            "claim_codes": {name: node.claim_code for name, node in self.nodes.items() if node.claim_code},
            "logs": {bus: str(self.directory / (bus + ".log")) for bus in BUSES} if self._logs else {},
        }

    async def stop(self) -> None:
        """End nodes and buses; the directory stays."""
        await asyncio.gather(*(node.kill() for node in self.nodes.values()))
        await self.server.close()

    # -- control -------------------------------------------------------------------------------

    async def control(self, request: dict[str, Any]) -> Any:
        """Carry out a command: those of :meth:`VirtualBusServer.control`, and

        ``describe``; ``node_kill``, ``node_start``, ``node_restart`` with ``node``; ``console`` with
        ``node`` and ``line``; ``node_statistics`` (of ``node``, or of all that run); ``node_log`` with
        ``node``; ``claim_codes``; ``adapter_add`` with ``bus``; ``keys`` (with the tap): every key as
        hex with who had it and as what.
        """
        command = request.get("command")
        if command == "describe":
            return self.describe()
        if command == "claim_codes":
            return await self._claim_codes()
        if command == "adapter_add":
            return {"path": self.add_adapter(str(request.get("bus")), request.get("name"))}
        if command == "keys":
            return {key: sorted(owners) for key, owners in self.keys.items()}
        if command == "node_statistics":
            if request.get("node") is not None:
                return await self.node(request["node"]).statistics()
            running = {name: node for name, node in self.nodes.items() if node.running}
            answers = await asyncio.gather(*(node.statistics() for node in running.values()))
            return dict(zip(running, answers, strict=True))
        if command in ("node_kill", "node_start", "node_restart", "console", "node_log"):
            node = self.node(request.get("node"))
            if command == "console":
                return await node.command(str(request.get("line", "")))
            if command == "node_log":
                return list(node.log)
            if command != "node_start":
                await node.kill()
            if command != "node_kill":
                await node.start()
            return node.describe() | {"claim_code": node.claim_code}
        return self.server.control(request)

    async def _claim_codes(self) -> dict[str, str]:
        codes = {}
        for name, node in self.nodes.items():
            if node.running:
                code = (await node.command("claim")).split()[1]
                node.claim_code = None if code == "none" else code
                if node.claim_code is not None:
                    codes[name] = node.claim_code
        return codes

    async def serve_control(self, path: str | os.PathLike[str]) -> asyncio.Server:
        """Serve :meth:`control` as JSON lines on a Unix socket only its owner may open."""
        server = await asyncio.start_unix_server(self._serve, path, limit=1 << 20)
        os.chmod(path, 0o600)
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._control_line(line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            return  # gone, or a line beyond the limit: that client's own loss
        finally:
            writer.close()

    async def _control_line(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError("a command is a JSON object with a 'command' field")
            return {"ok": True, "result": await self.control(request)}
        except (ValueError, KeyError, TypeError, RuntimeError, OSError, NodeError) as error:
            text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
            return {"ok": False, "error": str(text)}


# -- the process -----------------------------------------------------------------------------------


async def _serve_until_told(config: dict[str, Any]) -> None:
    control_path = config.pop("control")
    remove = config.pop("remove_directory", False)
    loop = asyncio.get_running_loop()
    pack = VirtualPack(**config)
    stopped = pack.server.stopped
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    # Whoever started us holds the other end of standard input: when he is gone, so are we.
    os.set_blocking(0, False)
    loop.add_reader(0, _input_readable, stopped)
    control: asyncio.Server | None = None
    try:
        starting = asyncio.create_task(pack.start())
        ending = asyncio.create_task(stopped.wait())
        await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
            return
        await starting
        control = await pack.serve_control(control_path)
        ready = {"ready": True, "control": control_path, "pid": os.getpid(), **pack.describe()}
        print(json.dumps(ready), flush=True)
        await ending
    finally:
        loop.remove_reader(0)
        if control is not None:
            control.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(control_path)
        await pack.stop()
        if remove:
            shutil.rmtree(pack.directory, ignore_errors=True)


def _input_readable(stopped: asyncio.Event) -> None:
    try:
        if os.read(0, 4096):
            return
    except BlockingIOError:
        return
    except OSError:  # a terminal that hung up
        stopped.set()
        return
    stopped.set()


def main(argv: list[str] | None = None) -> int:
    """Run the virtual pack until told to stop; 1 and a JSON line with the error if it cannot start."""
    parser = argparse.ArgumentParser(prog="packtrust_host.sim.launcher", description=__doc__)
    parser.add_argument("--config", required=True, help="JSON: the arguments of VirtualPack")
    arguments = parser.parse_args(argv)
    config = json.loads(Path(arguments.config).read_text())
    config.setdefault("control", str(Path(config["directory"]) / "control"))
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_serve_until_told(config))
    except (NodeError, SetupError, ValueError, OSError, TypeError) as error:
        print(json.dumps({"ready": False, "error": str(error)}), flush=True)
        return 1
    return 0


class PackProcess:
    """A virtual pack in a process of its own, from the host's side; a context manager.

    Takes the arguments of :class:`VirtualPack`. Without `directory` it makes a temporary one, removed at the
    end. After :meth:`start`, `info` is the ready line.
    """

    def __init__(self, *, directory: str | os.PathLike[str] | None = None, **config: Any) -> None:
        self.info: dict[str, Any] = {}
        self._config = config
        self._directory = None if directory is None else Path(directory).resolve()
        self._own = directory is None
        self._runtime: Path | None = None
        self._process: subprocess.Popen[str] | None = None
        self._socket: socket.socket | None = None
        self._answers: Any = None
        self._lock = threading.Lock()

    def start(self) -> PackProcess:
        """Start it; returns when every node runs. NodeError with the cause if it does not."""
        # Sockets and the configuration, in a folder with a short name: socket paths have 107 bytes.
        self._runtime = Path(tempfile.mkdtemp(prefix="packtrust-"))
        directory = self._directory or self._runtime / "pack"
        config = {
            **{
                key: os.fspath(value) if isinstance(value, os.PathLike) else value
                for key, value in self._config.items()
            },
            "directory": str(directory),
            "control": str(self._runtime / "control"),
            "remove_directory": self._own,
        }
        path = self._runtime / "pack.json"
        path.write_text(json.dumps(config))
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(item for item in sys.path if item)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "packtrust_host.sim.launcher", "--config", str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
                start_new_session=True,  # Ctrl-C is for us; we stop it in order
            )
            assert self._process.stdout is not None
            line = self._process.stdout.readline()
            self.info = json.loads(line) if line else {}
            if not self.info.get("ready"):
                raise NodeError(
                    "the virtual pack did not start: %s"
                    % self.info.get("error", "its process ended; see the messages above")
                )
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(self.info["control"])
            self._answers = self._socket.makefile("rb")
        except BaseException:
            self.stop()
            raise
        return self

    def control(self, command: str, **arguments: Any) -> Any:
        """Carry out a command of :meth:`VirtualPack.control`. NodeError with its reason if it fails."""
        with self._lock:
            if self._socket is None:
                raise NodeError("the virtual pack is not running: start() it")
            try:
                self._socket.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
                line = self._answers.readline()
            except OSError as error:
                raise NodeError("the virtual pack has ended: %s" % error) from error
        if not line:
            raise NodeError("the virtual pack has ended")
        answer = json.loads(line)
        if not answer["ok"]:
            raise NodeError(answer["error"])
        return answer["result"]

    # -- what is wanted most -------------------------------------------------------------------

    @property
    def claim_codes(self) -> dict[str, str]:
        """Claim code of each unclaimed node, as at the start."""
        codes: dict[str, str] = self.info["claim_codes"]
        return codes

    def adapter(self, bus: str, number: int = 0) -> str:
        """Path of an adapter on "vcu" or "module"."""
        path: str = self.info["adapters"][bus][number]
        return path

    def add_adapter(self, bus: str) -> str:
        """Plug in another adapter; its path."""
        path: str = self.control("adapter_add", bus=bus)["path"]
        return path

    def statistics(self) -> dict[str, Any]:
        """Buses and ports."""
        result: dict[str, Any] = self.control("statistics")
        return result

    def node_statistics(self) -> dict[str, dict[str, Any]]:
        """Counters of every running node, by name."""
        result: dict[str, dict[str, Any]] = self.control("node_statistics")
        return result

    def console(self, node: str, line: str) -> str:
        """One console command of a node, its line of answer."""
        result: str = self.control("console", node=node, line=line)
        return result

    def kill(self, node: str) -> None:
        """Pull a node's power; its flash stays."""
        self.control("node_kill", node=node)

    def restart(self, node: str) -> None:
        """Power-cycle a node, or start one that was killed."""
        self.control("node_restart", node=node)

    def keys(self) -> dict[str, list[str]]:
        """With `tap`: every key any node had in hands, as hex, with who had it and as what."""
        result: dict[str, list[str]] = self.control("keys")
        return result

    def stop(self) -> None:
        """End it and wait until it, its nodes and its temporary files are gone."""
        with self._lock:
            if self._socket is not None:
                self._answers.close()
                self._socket.close()
                self._socket = None
        process = self._process
        if process is not None:
            self._process = None
            assert process.stdin is not None and process.stdout is not None
            process.stdin.close()
            try:
                process.wait(STOP_S + ANSWER_S)
            except subprocess.TimeoutExpired:
                # Its nodes notice that their consoles are gone, and end too.
                process.kill()
                process.wait()
            process.stdout.close()
        if self._runtime is not None:
            shutil.rmtree(self._runtime, ignore_errors=True)
            self._runtime = None

    def __enter__(self) -> PackProcess:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


if __name__ == "__main__":
    sys.exit(main())
