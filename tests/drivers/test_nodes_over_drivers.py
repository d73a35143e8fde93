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
from packtrust_node.slots import MISSES
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


# -- a session outlives bus-off and sleep ----------------------------------------------------------------------------


def cut_off(station, on):
    """The controller counts itself into bus-off, and would again at once as long as `on`."""
    if hasattr(station.chip, "errors"):
        station.chip.errors(256 if on else 0, 0)
    else:
        station.chip.status = station.chip.STATE_BUS_OFF if on else station.chip.STATE_ACTIVE


def sessions_of(bench):
    return {name: node.counters.get("sessions", 0) for name, node in bench.nodes.items()}


def handshakes(bench, since_ms):
    return len(bench.frames(nodebench.MODULE_BUS, 0x531, since_ms=since_ms)) + len(
        bench.frames(nodebench.MODULE_BUS, 0x539, since_ms=since_ms)
    )


def check_bus_off(port, victim, seconds):
    """Cut off as long as that; then everything is as before, in the sessions of before."""
    bench, app = keyed(port, 2)
    bench.only = lambda bus, frame: frame.arbitration_id >> 18 in (0x531, 0x539)
    app.seal("COMMAND", contactor_state=STATE_ON)
    bench.run(300)
    before = sessions_of(bench)
    begin_ms = bench.now_ms
    station = bench.stations[victim][-1]  # at the module bus
    opened = station.driver.counters["opened"]
    while bench.now_ms < begin_ms + 1000 * seconds:
        cut_off(station, True)
        bench.run(50)
        assert station.driver.state != "active" or station.driver.counters["bus_off"]
    assert station.driver.counters["bus_off"] > 0
    cut_off(station, False)
    pack = bench.nodes["pack"]
    bench.run(2500)
    assert station.driver.state == "active"
    assert station.driver.counters["opened"] > opened or not hasattr(station.chip, "errors")
    assert all(slot.row[MISSES] == 0 and slot.active(bench.now_ms) for slot in pack.keyed_slots())
    app.seal("COMMAND", contactor_state=STATE_ON)
    bench.run(300)
    assert [node.state for name, node in bench.nodes.items() if name != "pack"] == [STATE_ON] * 2
    assert sessions_of(bench) == before and handshakes(bench, begin_ms) == 0
    bench.sound()


def test_a_pack_in_bus_off_goes_on_in_its_sessions():
    """After two seconds its request to announce comes late, and so do the answers; after twelve its modules miss it."""
    check_bus_off(mcp2515, "pack", 2)
    check_bus_off(machine_can, "pack", 11.7)


def test_a_module_in_bus_off_goes_on_in_its_session():
    """After seven seconds all the pack can cite is stale; after thirteen the module has missed its pack, too."""
    check_bus_off(mcp2515, "module1", 7)
    check_bus_off(machine_can, "module1", 13)


def test_sleep_of_hours_with_ram_kept_needs_no_handshake():
    """The clock jumps: of both, of the pack alone, of a module alone."""
    bench, app = keyed(mcp2515, 2)
    bench.only = lambda bus, frame: frame.arbitration_id >> 18 in (0x531, 0x539)
    before = sessions_of(bench)
    begin_ms = bench.now_ms
    pack = bench.nodes["pack"]
    for sleeper in ("all", "pack", "module0"):
        app.seal("COMMAND", contactor_state=STATE_ON)
        bench.run(300)
        if sleeper == "all":
            bench.now_ms += 5 * 3600000
        else:
            sleeping = bench.nodes.pop(sleeper)
            bench.run(12000)
            bench.nodes[sleeper] = sleeping
            bench.due[sleeper] = bench.now_ms
            for station in bench.stations[sleeper]:
                while station.driver.recv() is not None:
                    pass
        bench.run(3000)
        assert all(slot.row[MISSES] == 0 and slot.active(bench.now_ms) for slot in pack.keyed_slots()), sleeper
        app.seal("COMMAND", contactor_state=STATE_ON)
        bench.run(300)
        assert [node.state for name, node in bench.nodes.items() if name != "pack"] == [STATE_ON] * 2, sleeper
    assert sessions_of(bench) == before and handshakes(bench, begin_ms) == 0
    bench.sound()
