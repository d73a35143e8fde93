"""A whole pack over the drivers: the pack controller on two MCP2518FD, its modules on MCP2515 or machine.CAN.

Frames are the drivers' own, used again by the next `recv`; queues stand in front of the controllers; filters follow
what a node hears; chips lose what they have no room for. The nodes' wires are those of `nodebench`.
"""

import nodebench
from drivers.mcp2515_chip import Chip as Mcp2515Chip
from drivers.mcp2518fd_chip import Chip as Mcp2518fdChip
from drivers.stm32_modules import MachineCan as Module
from drivers.stm32_modules import disable_irq, enable_irq, load
from nodebench import Bench
from packtrust.frame import Frame
from packtrust.messages.table import STATE_ON
from packtrust_node.can_mcp2515 import Mcp2515
from packtrust_node.can_mcp2518fd import Mcp2518fd
from packtrust_node.can_slcan import MODULE_ACCEPT
from packtrust_node.can_spi import MachineSpi
from packtrust_node.txqueue import TxQueue


class Station:
    """A port of a node: controller, driver, queue."""

    def __init__(self, chip, driver):
        self.chip = chip
        self.driver = driver
        self.queue = TxQueue(driver)
        self.hears = None


def mcp2518fd():
    chip = Mcp2518fdChip()
    return Station(chip, Mcp2518fd(MachineSpi(chip, chip), interrupt=chip.interrupt))


def mcp2515():
    chip = Mcp2515Chip()
    return Station(chip, Mcp2515(MachineSpi(chip, chip), interrupt=chip.interrupt))


def machine_can():
    made = []

    class Can(Module):
        def __init__(self, *arguments, **keywords):
            Module.__init__(self, *arguments, **keywords)
            made.append(self)

    module = load("can_machine", machine={"CAN": Can, "disable_irq": disable_irq, "enable_irq": enable_irq})
    driver = module.MachineCan(1)
    return Station(made[0], driver)


class WiredBench(Bench):
    """The bench with controllers between its nodes; the app is at the VCU bus without one."""

    module_port = staticmethod(mcp2515)

    def __init__(self, *arguments, **options):
        self.stations = {}
        self.carried = 0
        Bench.__init__(self, *arguments, **options)

    def boot(self, name, slots=None, entropy=None):
        if name == "pack":
            ports = [mcp2518fd(), mcp2518fd()]
        else:
            ports = [type(self).module_port()]
            ports[0].driver.filters(MODULE_ACCEPT)
        self.stations[name] = ports
        return Bench.boot(self, name, slots, entropy)

    def on_bus(self, bus):
        return [(name, self.stations[name][buses.index(bus)]) for name, buses in self._buses() if bus in buses]

    def _buses(self):
        return [(name, self.envs[name].buses) for name in self.nodes]

    def deliver(self):
        """Controllers first; then their frames, each controller one in turn, until nothing moves."""
        for name in self.nodes:
            for station in self.stations[name]:
                station.driver.poll(self.now_ms)
                hears = self.nodes[name].hears()
                if hears != station.hears and station.driver.state == "active":
                    station.hears = hears
                    station.driver.accept_nodes(hears)
        moved = True
        while moved:
            moved = self._give()
            for bus in (nodebench.VCU_BUS, nodebench.MODULE_BUS):
                moved = self._carry(bus) or moved

    def _give(self):
        """What nodes want to send, into their queues; what the app sends, to the pack."""
        waiting = self.queue
        self.queue = []
        for bus, sender, frame in waiting:
            if sender in self.stations:
                self.stations[sender][self.envs[sender].buses.index(bus)].queue.put(frame)
            else:
                self._reach(bus, sender, frame.arbitration_id, frame.is_extended_id, bytes(frame.data))
        for name in self.nodes:
            for station in self.stations[name]:
                station.queue.pump(self.now_ms)
        return bool(waiting)

    def _carry(self, bus):
        """One frame of each controller that has one; whether there was any."""
        moved = False
        for name, station in self.on_bus(bus):
            left = None
            if station.driver.state == "active" and station.driver.pending():
                left = station.chip.leave()
            if left is not None:
                self._reach(bus, name, left[0], left[1], left[-1])
                moved = True
        return moved

    def _reach(self, bus, sender, ident, extended, data):
        self.carried += 1
        for name, station in self.on_bus(bus):
            if name != sender:
                station.chip.arrive(ident, data, extended)
                self._receive(name)
        frame = Frame(ident, data, extended)
        if self.only is None or self.only(bus, frame):
            self.log.append((self.now_ms, bus, sender, frame))
        if len(self.log) > self.keep:
            del self.log[: self.keep // 2]
        if self.app is not None and bus == nodebench.VCU_BUS and sender != self.app.name:
            self.app.on_frame(frame)

    def _receive(self, name):
        ports = self.stations[name]
        for port in range(len(ports)):
            while True:
                frame = ports[port].driver.recv()
                if frame is None:
                    break
                self.nodes[name].on_frame(port, frame)


def keyed(port, modules):
    """A keyed pack whose modules have this kind of port."""
    WiredBench.module_port = staticmethod(port)
    nodebench.Bench = WiredBench
    try:
        return nodebench.keyed_bench(modules)
    finally:
        nodebench.Bench = Bench


def check(port):
    bench, app = keyed(port, 2)
    app.seal("COMMAND", contactor_state=STATE_ON)
    bench.run(300)
    modules = [node for name, node in bench.nodes.items() if name != "pack"]
    assert [module.state for module in modules] == [STATE_ON] * 2
    bench.run(2000)
    bench.sound()
    assert bench.carried > 500
    for name in bench.nodes:
        for station in bench.stations[name]:
            counters = station.driver.counters
            assert station.driver.state == "active" and counters["sent"] and counters["received"], (name, counters)
            assert counters["lost"] == counters["refused"] == counters["bus_off"] == 0, (name, counters)
            assert station.queue.overflow == station.queue.stale == 0
    # The filters keep a module's port quiet: it does not see the other's frames.
    for name in bench.nodes:
        if name != "pack":
            assert bench.stations[name][0].driver.counters["filtered"] == 0


def test_modules_on_mcp2515():
    check(mcp2515)


def test_modules_on_machine_can():
    check(machine_can)


def test_modules_on_mcp2518fd():
    check(mcp2518fd)
