"""The whole pack inside one process on a virtual clock: the firmware's own node classes on CPython, the same buses,
deterministic from a seed.

    pack = InProcessPack(modules=3, seed=7)
    app = pack.attach(lambda env: AppNode(env, config), "vcu")
    pack.start()
    pack.run_until(lambda: app.ready, 10_000)

Time passes only inside :meth:`run_for` and :meth:`run_until`, from event to event.
"""

from __future__ import annotations

import heapq
import random
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from packtrust.frame import Frame
from packtrust.policy import DEFAULT_PROFILE

from . import deploy
from .bus import BUS_OFF, CLASSIC, ERROR_PASSIVE, FD_ENABLED, Bus, Controller

if str(deploy.firmware_folder()) not in sys.path:
    # The firmware is no part of the installed host package: it is what lies on the nodes.
    sys.path.append(str(deploy.firmware_folder()))

from packtrust_node.can_slcan import MIXED_ACCEPT, MODULE_ACCEPT
from packtrust_node.cells import make_cells
from packtrust_node.env import Env, data_bitrate
from packtrust_node.store import MemorySlots, Store
from packtrust_node.testservice import (
    MODULE_ROWS,
    PACK_ROWS,
    TestService,
)
from packtrust_node.txqueue import TxQueue

MS = 1_000_000
DEPTH = 12  # frames a node keeps in its controller, as with SLCAN
BUS_OFF_WAIT_MS = 200
SOON_MS = 5  # as packtrust_node.loop

STATES = {ERROR_PASSIVE: "passive", BUS_OFF: "bus-off"}


class Node(Protocol):
    """What a firmware node and the host's app node have in common."""

    def start(self) -> None:
        """Begin."""

    def on_frame(self, port: int, frame: Any) -> None:
        """Take a frame of a port."""

    def on_tick(self) -> int:
        """Do what is due; milliseconds until the next call is wanted."""


MakeNode = Callable[[Any], Node]


class _Driver:
    """A CAN driver (`packtrust_node.can_slcan`) right on a controller of a simulated bus."""

    orders_by_id = False
    stream = None

    def __init__(self, controller: Controller, station: Station, port: int) -> None:
        self.controller = controller
        self.counters = {"sent": 0, "received": 0, "bus_off": 0}
        self._station = station
        self._off_ms: int | None = None
        controller.on_receive = self._received
        controller.on_transmitted = self._transmitted
        self._port = port

    @property
    def fd(self) -> bool:
        return self.controller.fd_support == FD_ENABLED

    @property
    def state(self) -> str:
        return STATES.get(self.controller.state, "active")

    def pending(self) -> int:
        return self.controller.pending

    def send(self, frame: Any) -> bool:
        if self.controller.pending >= DEPTH or self.controller.state == BUS_OFF:
            return False
        frame = frame.copy()  # the queue uses its own again
        # On the bit rate switch its driver decides, not the channel.
        frame.bitrate_switch = frame.is_fd
        if not self.controller.send(frame):
            return False
        self.counters["sent"] += 1
        return True

    def poll(self, now_ms: int) -> None:
        """Leave bus-off after a while, as the SLCAN driver does."""
        if self.controller.state != BUS_OFF:
            self._off_ms = None
        elif self._off_ms is None:
            self._off_ms = now_ms
            self.counters["bus_off"] += 1
        elif now_ms - self._off_ms >= BUS_OFF_WAIT_MS:
            self.recover()

    def recover(self) -> None:
        self.controller.abort()
        self.controller.recover()

    def _received(self, frame: Frame, time_ns: int) -> None:
        self.counters["received"] += 1
        self._station.inbox.append((self._port, frame))
        self._station.wake()

    def _transmitted(self, frame: Frame, time_ns: int) -> None:
        self._station.wake()


class _Queue(TxQueue):
    """A transmit queue that wakes its station: its node may be told to send from outside its loop."""

    def __init__(self, driver: _Driver, station: Station) -> None:
        super().__init__(driver)
        self._station = station

    def put(self, frame: Any) -> None:
        super().put(frame)
        self._station.wake()

    def put_record(self, frames: Any) -> None:
        super().put_record(frames)
        self._station.wake()


class _Clock:
    """The pack's virtual clock as a node sees it."""

    def __init__(self, pack: InProcessPack) -> None:
        self._pack = pack

    def now_ms(self) -> int:
        return self._pack.now_ns // MS

    def now_us(self) -> int:
        return self._pack.now_ns // 1000

    def elapsed_us(self, start_us: int) -> int:
        return self.now_us() - start_us


class Station:
    """A node, its controllers and what survives when its power goes (`slots`)."""

    def __init__(
        self,
        pack: InProcessPack,
        name: str,
        buses: Sequence[str],
        unique_id: int,
        make: Callable[[Station], Node],
        accept: Sequence[tuple[int, int]] | None = None,
        rows: tuple[int, int] | None = None,
        fd: Sequence[bool] | None = None,
    ) -> None:
        self.pack = pack
        self.name = name
        self.slots: Any = MemorySlots()
        self.log: list[str] = []
        self.boots = 0
        self.cpu_ns = pack.cpu_ns
        self.node: Node | None = None
        self.service: Any = None
        self.env: Any = None
        self.inbox: deque[tuple[int, Frame]] = deque()
        self.powered = False
        self._unique_id = unique_id
        self._make = make
        self._rows = rows
        self._due_ns = 0
        self._free_ns = 0  # when its processor has done with the last frame
        self.controllers = []
        self.drivers = []
        for port, bus in enumerate(buses):
            # Without word on it, as the bus is.
            support = None if fd is None else FD_ENABLED if fd[port] else CLASSIC
            controller = pack.buses[bus].attach(name, fd_support=support)
            if accept is not None:
                controller.filters = [(base << 18, mask << 18, True) for base, mask in accept]
            controller.online = False
            self.controllers.append(controller)
            self.drivers.append(_Driver(controller, self, port))
        self.queues = [_Queue(driver, self) for driver in self.drivers]

    def build_env(self) -> Any:
        """A fresh environment: seeded entropy that differs from boot to boot, the store as it is."""
        source = random.Random("%s/entropy/%s/%d" % (self.pack.seed, self.name, self.boots)).randbytes
        store = Store(self.slots, source, self._unique_id)
        return Env(_Clock(self.pack), source, store, self.queues, self.log.append)

    def power_on(self) -> None:
        """Boot. The node is a new object; only its slots are the old ones."""
        if self.powered:
            return
        self.boots += 1
        self.powered = True
        for queue in self.queues:
            queue.clear()
        for controller in self.controllers:
            controller.online = True
        self.env = self.build_env()
        self.node = self._make(self)
        if self._rows is not None:
            node: Any = self.node
            self.service = TestService(self.env, 0, self._rows, lambda: node.own_node, lambda: bool(node.relations))
        self._free_ns = self.pack.now_ns
        self.node.start()
        self._after(0)

    def power_off(self) -> None:
        """Cut the power: everything but the slots is gone."""
        self.powered = False
        self.node = None
        self.service = None
        self.inbox.clear()
        for controller in self.controllers:
            controller.online = False
            controller.abort()

    def wake(self) -> None:
        """Something came in or left: run as soon as the processor is free."""
        self.pack._schedule(max(self.pack.now_ns, self._free_ns), self)

    def _after(self, wait_ms: int) -> None:
        self._due_ns = self.pack.now_ns + max(0, wait_ms) * MS
        self.pack._schedule(self._due_ns, self)

    def run(self) -> None:
        """What a turn of the node's loop does: frames, the tick if it is due, then sending."""
        if not self.powered or self.node is None:
            return
        now = self.pack.now_ns
        if now < self._free_ns:
            self.pack._schedule(self._free_ns, self)
            return
        taken = False
        while self.inbox:
            port, frame = self.inbox.popleft()
            taken = True
            if self.service is None or not self.service.on_frame(port, frame):
                self.node.on_frame(port, frame)
            if self.cpu_ns:
                self._free_ns = now + self.cpu_ns
                break
        if taken:
            self._due_ns = min(self._due_ns, now + SOON_MS * MS)
            self.pack._schedule(self._due_ns, self)
        if self.inbox:
            self.pack._schedule(self._free_ns, self)
        if now >= self._due_ns:
            wait = self.node.on_tick()
            if self.service is not None:
                wait = min(wait, self.service.tick())
            self._after(max(1, wait))
        for driver, queue in zip(self.drivers, self.queues, strict=True):
            driver.poll(now // MS)
            queue.pump(now // MS)


class InProcessPack:
    """Two buses, a pack controller and modules on one virtual clock.

    modules      1..31.
    seed         of everything, keys included: equal seeds and equal calls give equal runs.
    bitrate      of both buses, bit/s.
    cells        as `deploy.node_configs`.
    classes      per node name, or "pack" / "module" for all of a kind: a class to use in place of the firmware's.
    configs      per node name: keys that replace those of its node.json.
    cpu_us       what a node's processor needs for a frame; 0: nothing.
    nodes        False leaves the buses empty, for tests that attach their own.
    fd           CAN FD on the module bus, where all controllers have it; `configs` may take it from one again.
    vcu_fd       CAN FD on the VCU bus.
    policy       of the VCU bus; mixed_bus: old modules are on the module bus (docs/policy.md).
    data_bitrate of the buses with CAN FD, bit/s.
    """

    def __init__(
        self,
        modules: int = 3,
        seed: int | str = 0,
        bitrate: int = 500_000,
        *,
        cells: Mapping[str, Any] | None = None,
        topology: str = "parallel",
        clear_first_transfer: bool = False,
        classes: Mapping[str, Any] | None = None,
        configs: Mapping[str, Mapping[str, Any]] | None = None,
        cpu_us: int = 0,
        nodes: bool = True,
        fd: bool = False,
        vcu_fd: bool = False,
        data_bitrate: int = 2_000_000,
        policy: str = DEFAULT_PROFILE,
        mixed_bus: bool = False,
    ) -> None:
        self.seed = seed
        self.now_ns = 0
        self.cpu_ns = cpu_us * 1000
        self.buses = {
            name: Bus(bitrate, data_bitrate if has_fd else None, seed="%s/%s" % (seed, name), name=name)
            for name, has_fd in (("vcu", vcu_fd), ("module", fd))
        }
        self.stations: dict[str, Station] = {}
        self.configs = deploy.node_configs(
            modules,
            seed,
            bitrate=bitrate,
            topology=topology,
            clear_first_transfer=clear_first_transfer,
            cells=cells,
            fd=fd,
            vcu_fd=vcu_fd,
            data_bitrate=data_bitrate,
            policy=policy,
            mixed_bus=mixed_bus,
        )
        for name, changes in (configs or {}).items():
            self.configs[name].update(changes)
        self._classes = dict(classes or {})
        self._due: list[tuple[int, int, Station]] = []
        self._order = 0
        self._started = False
        if nodes:
            for name, config in self.configs.items():
                self._add(name, config)

    @property
    def vcu(self) -> Bus:
        """The bus of app and pack."""
        return self.buses["vcu"]

    @property
    def module_bus(self) -> Bus:
        """The bus of pack and modules."""
        return self.buses["module"]

    def _add(self, name: str, config: deploy.NodeConfig) -> None:
        is_pack = config["role"] == "pack"

        def make(station: Station) -> Node:
            # Imported late, so that a test may replace what it likes before.
            given = self._classes.get(name) or self._classes.get(config["role"])
            node: Node
            if is_pack:
                from packtrust_node.pack import PackNode

                node = (given or PackNode)(station.env, config)
            else:
                from packtrust_node.module import ModuleNode

                cells = make_cells(config["cells"])
                node = (given or ModuleNode)(station.env, config, cells)
            return node

        buses = ("vcu", "module") if is_pack else ("module",)
        self.stations[name] = Station(
            self,
            name,
            buses,
            config["unique_id"],
            make,
            None if is_pack else MIXED_ACCEPT if config.get("mixed_bus") else MODULE_ACCEPT,
            PACK_ROWS if is_pack else MODULE_ROWS,
            [data_bitrate(config, port) > 0 for port in range(len(buses))],
        )

    def attach(self, make: MakeNode, bus: str = "vcu", name: str = "app", unique_id: int = 0) -> Any:
        """Put a node of your own on a bus: `make(env)` builds it, and again after a power cycle.

        It starts now; the node is returned.
        """
        station = Station(self, name, (bus,), unique_id, lambda station: make(station.env))
        self.stations[name] = station
        station.power_on()
        return station.node

    def node(self, name: str) -> Any:
        """The node object of that name, None while it has no power."""
        return self.stations[name].node

    def start(self) -> None:
        """Power everything up, in the order pack, module1, .."""
        for station in list(self.stations.values()):
            station.power_on()

    def power_off(self, name: str) -> None:
        """Cut a node's power; its store stays as it is."""
        self.stations[name].power_off()

    def power_on(self, name: str) -> Any:
        """Power a node up again; the new node object."""
        self.stations[name].power_on()
        return self.stations[name].node

    def power_cycle(self, name: str, off_ms: int = 10) -> Any:
        """Off, `off_ms` of bus time, on; the new node object."""
        self.power_off(name)
        self.run_for(off_ms)
        return self.power_on(name)

    def add_fault(self, bus: str, **fault: Any) -> int:
        """A fault on a bus (:class:`packtrust_host.sim.faults.Fault`); its number."""
        return self.buses[bus].faults.add(fault)

    # -- time ----------------------------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        """Virtual milliseconds since the beginning."""
        return self.now_ns // MS

    def _schedule(self, time_ns: int, station: Station) -> None:
        self._order += 1
        heapq.heappush(self._due, (time_ns, self._order, station))

    def _next_ns(self) -> int | None:
        times = [bus.next_event_ns() for bus in self.buses.values()]
        if self._due:
            times.append(self._due[0][0])
        known = [time for time in times if time is not None]
        return min(known) if known else None

    def _advance(self, time_ns: int) -> None:
        """Let happen what is due at `time_ns`, which no event precedes."""
        self.now_ns = max(self.now_ns, time_ns)
        for bus in self.buses.values():
            bus.run_until(self.now_ns)
        turn: list[Station] = []
        while self._due and self._due[0][0] <= self.now_ns:
            station = heapq.heappop(self._due)[2]
            if station not in turn:
                turn.append(station)
        for station in turn:
            station.run()

    def run_for(self, ms: int) -> None:
        """Let that much virtual time pass."""
        end = self.now_ns + ms * MS
        while (time := self._next_ns()) is not None and time <= end:
            self._advance(time)
        self._advance(end)

    def run_until(self, predicate: Callable[[], object], timeout_ms: int) -> bool:
        """Until `predicate()` holds, asked after every event; False if it does not within `timeout_ms`."""
        end = self.now_ns + timeout_ms * MS
        while not predicate():
            time = self._next_ns()
            if time is None or time > end:
                self._advance(end)
                return bool(predicate())
            self._advance(time)
        return True

    def statistics(self) -> dict[str, Any]:
        """Buses and nodes, JSON-able."""
        nodes = {}
        for name, station in self.stations.items():
            stats = getattr(station.node, "stats", None)
            nodes[name] = stats() if callable(stats) else {}
        return {
            "buses": {name: bus.statistics() for name, bus in self.buses.items()},
            "nodes": nodes,
        }
