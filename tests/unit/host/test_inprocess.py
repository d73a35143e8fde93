"""The pack in one process: virtual time, determinism, power cycles, nodes of one's own."""

from itertools import pairwise
from typing import Any

from packtrust.arbitration import compose
from packtrust.frame import Frame
from packtrust_host.sim.inprocess import InProcessPack


class Echo:
    """A node that answers each frame under another ID, and counts its ticks."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.got: list[tuple[int, Frame]] = []
        self.ticks: list[int] = []
        self.boots = 0

    def start(self) -> None:
        raw = self.env.store.read("boots")
        self.boots = (raw[0] if raw else 0) + 1
        self.env.store.write("boots", bytes((self.boots,)))

    def on_frame(self, port: int, frame: Frame) -> None:
        self.got.append((self.env.now_ms(), frame))
        if frame.arbitration_id < 0x1000:
            self.env.send(port, Frame(frame.arbitration_id + 0x1000, bytes(frame.data)))

    def on_tick(self) -> int:
        self.ticks.append(self.env.now_ms())
        return 100


def empty(**arguments: Any) -> InProcessPack:
    return InProcessPack(1, seed=5, nodes=False, **arguments)


def test_time_passes_only_when_told() -> None:
    pack = empty()
    node = pack.attach(Echo, "vcu", "a")
    pack.run_for(1000)
    assert pack.now_ms == 1000
    assert node.ticks == list(range(0, 1001, 100))


def test_frames_take_their_time_on_the_bus() -> None:
    pack = empty()
    one = pack.attach(Echo, "vcu", "one")
    two = pack.attach(Echo, "vcu", "two")
    one.env.send(0, Frame(0x100, bytes(8)))
    pack.run_for(10)
    assert [frame.arbitration_id for _, frame in two.got] == [0x100]
    assert [frame.arbitration_id for _, frame in one.got] == [0x1100]
    assert pack.vcu.frames == 2
    # A zero-filled 8-byte extended frame has 131 bits and at most 29 stuff bits, at 2 us each.
    assert 2 * 262_000 <= pack.vcu.busy_ns <= 2 * 320_000
    assert pack.module_bus.frames == 0


def test_a_slow_processor_takes_frames_one_by_one() -> None:
    fast, slow = empty(), empty(cpu_us=20_000)
    for pack in (fast, slow):
        sender = pack.attach(Echo, "vcu", "sender")
        pack.stations["sender"].cpu_ns = 0
        node = pack.attach(Echo, "vcu", "node")
        for number in range(5):
            sender.env.send(0, Frame(0x2000 + number, b""))
        pack.run_for(200)
        times = [time for time, _ in node.got]
        assert len(times) == 5
        gaps = [after - before for before, after in pairwise(times)]
        assert gaps == [20] * 4 if pack is slow else max(gaps) <= 1


def test_power_cycle_keeps_the_store_and_nothing_else() -> None:
    pack = empty()
    node = pack.attach(Echo, "vcu", "a")
    pack.run_for(50)
    again = pack.power_cycle("a", 30)
    assert again is not node
    assert again.boots == 2
    assert pack.now_ms == 80
    pack.power_off("a")
    assert pack.node("a") is None
    pack.attach(Echo, "vcu", "b").env.send(0, Frame(0x100, b""))
    pack.run_for(10)
    assert not again.got


def test_run_until() -> None:
    pack = empty()
    node = pack.attach(Echo, "vcu", "a")
    assert pack.run_until(lambda: len(node.ticks) == 4, 1000)
    assert pack.now_ms == 300
    assert not pack.run_until(lambda: False, 500)
    assert pack.now_ms == 800


def bus_log(pack: InProcessPack) -> list[tuple[str, int, str]]:
    log: list[tuple[str, int, str]] = []
    for name, bus in pack.buses.items():
        bus.listeners.append(lambda frame, sender, start, end, name=name: log.append((name, start, repr(frame))))
    return log


def test_same_seed_same_run() -> None:
    runs = []
    for seed in (1, 1, 2):
        pack = InProcessPack(3, seed=seed)
        pack.add_fault("module", kind="disturb", probability=0.05)
        log = bus_log(pack)
        pack.start()
        pack.run_for(3000)
        runs.append(log)
    assert len(runs[0]) >= 10
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_the_firmware_is_what_runs() -> None:
    pack = InProcessPack(2, seed=1)
    log = bus_log(pack)
    pack.start()
    pack.run_for(1500)
    announced = "%08X" % compose(0x500, 0xFF)
    assert sum(announced in text for name, _, text in log if name == "module") >= 2
    assert len(pack.node("module1").claim_code()) == 16
    assert pack.statistics()["nodes"]["module1"]["counters"]["internal"] == 0
    code = pack.node("module1").claim_code()
    assert pack.power_cycle("module1").claim_code() == code


def test_a_test_may_replace_a_node() -> None:
    class Mute(Echo):
        own_node = 0xFF
        relations: dict[bytes, object] = {}

        def __init__(self, env: Any, config: Any, cells: Any) -> None:
            super().__init__(env)
            self.config = config
            self.cells = cells

    pack = InProcessPack(2, seed=1, classes={"module2": Mute}, configs={"module2": {"serial": "X"}})
    pack.start()
    assert isinstance(pack.node("module2"), Mute)
    assert pack.node("module2").config["serial"] == "X"
    assert not isinstance(pack.node("module1"), Mute)


def test_bus_off_node_comes_back() -> None:
    pack = empty()
    one = pack.attach(Echo, "vcu", "one")
    two = pack.attach(Echo, "vcu", "two")
    fault = pack.add_fault("vcu", kind="disturb", sender="one", count=40)
    one.env.send(0, Frame(0x2000, b"lost"))
    pack.run_for(1000)
    assert pack.stations["one"].controllers[0].bus_offs == 1
    pack.vcu.faults.remove(fault)
    one.env.send(0, Frame(0x2001, b"after"))
    pack.run_for(10)
    assert [bytes(frame.data) for _, frame in two.got] == [b"after"]
