"""Frames lost in one receiver, delivered twice, late, disturbed for all, or changed without the CRC's notice."""

import pytest

from app_bench import AppBench
from attacker import command, commission, modules_of, nodes_of, obeyed, sessions, total, unharmed
from packtrust.messages.table import STATE_OFF, STATE_ON
from packtrust_host.app.errors import AppError

BUSES = ("vcu", "module")

FAULTS = {
    "one in fifty lost": {"kind": "loss", "probability": 0.02},
    "one in twenty twice": {"kind": "repeat", "probability": 0.05},
    "one in twenty twice, the second one late": {"kind": "repeat", "probability": 0.05, "delay_ns": 3_000_000},
    "one in fifty changed": {"kind": "corrupt", "probability": 0.02},
    "one in ten disturbed": {"kind": "disturb", "probability": 0.1},
    "one in fifty 20 ms late": {"kind": "delay", "probability": 0.02, "delay_ns": 20_000_000},
}


def spoil(bench, fault):
    return [bench.pack.add_fault(bus, **fault) for bus in BUSES]


def heal(bench):
    for bus in BUSES:
        bench.pack.buses[bus].faults.clear()


def hits(bench, numbers):
    return [bench.pack.buses[bus].faults.get(number).hits for bus, number in zip(BUSES, numbers, strict=True)]


def plausible(bench):
    """Only true values: the app's model holds nothing a healthy pack would not say."""
    truth = {node.own_node: node for node in modules_of(bench)}
    for number, shown in bench.node.model.modules.items():
        cells = truth[number].cells
        assert shown.cell_count in (None, cells.count)
        assert shown.soc_permille is None or 0 < shown.soc_permille <= 1000
        assert shown.voltage_mv is None or 12 * 2800 < shown.voltage_mv < 12 * 4250
        assert shown.cell_min_mv is None or 2800 < shown.cell_min_mv <= shown.cell_max_mv < 4250
        assert shown.current_ma is None or -25_000 <= shown.current_ma <= 100
        assert shown.fault_code in (0, 1, 2, 4, 8, 16, 32, 64, 128)
    assert set(bench.node.model.modules) <= set(truth)


@pytest.mark.parametrize("name", FAULTS)
def test_traffic_over_a_bad_bus(keyed, name):
    """Records are lost, none is wrong; commands get through; nothing is left behind when the bus is good again."""
    numbers = spoil(keyed, FAULTS[name])
    for state in (STATE_ON, STATE_OFF, STATE_ON):
        given = keyed.node.set_state(state)
        while not given.done:
            keyed.pack.run_for(50)
            plausible(keyed)
        if FAULTS[name]["kind"] in ("disturb", "repeat"):
            assert given.state == "obeyed", given
        keyed.pack.run_for(2000)
        plausible(keyed)
    assert min(hits(keyed, numbers)) > 20
    heal(keyed)
    keyed.pack.run_for(3000)
    unharmed(keyed)


def test_what_was_changed_is_counted(keyed):
    """A bit flipped behind the CRC's back: refused by the tag or by the segmentation, and counted."""
    pack = keyed.pack.node("pack")
    keyed.pack.add_fault("module", kind="corrupt", receiver="pack", sender="module1", code=0x20000, mask=0x20000)
    number = keyed.pack.node("module1").own_node
    channel = pack.slots[number].channel
    opened = channel.stats["opened"]
    keyed.pack.run_for(2000)
    assert channel.stats["opened"] == opened
    assert channel.stats.get("tag", 0) + channel.stats.get("unknown-session", 0) > 10
    assert channel.stats.get("tag", 0) > 5
    assert total(pack, "tag") >= channel.stats["tag"]
    heal(keyed)
    unharmed(keyed)


def test_repeats_open_nothing_twice(keyed):
    """Every frame twice for everybody: each record is opened once, and nothing is even refused."""
    spoil(keyed, {"kind": "repeat"})
    keyed.pack.run_for(500)
    before = {name: dict(station.node.counters) for name, station in keyed.pack.stations.items() if name != "app"}
    records = keyed.node.model.records
    pack = keyed.pack.node("pack")
    sealed = pack.app.channel.stats["sealed"]
    keyed.pack.run_for(3000)
    assert keyed.node.model.records - records <= pack.app.channel.stats["sealed"] - sealed
    assert keyed.node.model.records - records > 20
    for name, counters in before.items():
        now = keyed.pack.stations[name].node.counters
        assert now.get("replay", 0) == counters.get("replay", 0)
        assert now.get("tag", 0) == counters.get("tag", 0)
    heal(keyed)
    unharmed(keyed)


@pytest.mark.parametrize("chunk", [0, 2, 4])
def test_one_chunk_missing_of_every_record(keyed, chunk):
    """The pack gets all chunks but one: nothing is opened, and the next whole record is."""
    pack = keyed.pack.node("pack")
    number = keyed.pack.node("module2").own_node
    keyed.pack.add_fault(
        "module",
        kind="loss",
        receiver="pack",
        sender="module2",
        code=0x20000 | chunk << 12,
        mask=0x2F000,
        extended=True,
    )
    keyed.pack.run_for(50)
    channel = pack.slots[number].channel
    opened = channel.stats["opened"]
    keyed.pack.run_for(1000)
    assert channel.stats["opened"] == opened
    heal(keyed)
    assert keyed.pack.run_until(lambda: channel.stats["opened"] > opened, 5000)
    unharmed(keyed)


# Provisioning takes some 1500 frames a bus, and its transfers have no retransmission of single frames.
PROVISIONING = [
    {"kind": "loss", "probability": 0.002},
    {"kind": "repeat", "probability": 0.05},
    {"kind": "corrupt", "probability": 0.001},
    {"kind": "disturb", "probability": 0.1},
]


@pytest.mark.parametrize("fault", PROVISIONING, ids=lambda fault: fault["kind"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_provisioning_over_a_bad_bus(tmp_path, fault, seed):
    """It may take several tries, each of which ends with a clear error; then everything is there."""
    bench = AppBench(tmp_path, modules=2, seed=seed)
    bench.claim("pack", "module1", "module2")
    spoil(bench, fault)
    tries = 0
    while True:
        tries += 1
        task = bench.node.spawn(bench.provisioner().commission(bench.register, expected_modules=2), "commission")
        assert bench.pack.run_until(lambda task=task: task.done, 300_000)
        if task.error is None:
            break
        assert isinstance(task.error, AppError), task.error
        assert "Next: " in str(task.error)
        assert fault["kind"] in ("loss", "corrupt"), task.error  # CAN itself takes care of the others
        assert tries < 8, task.error
    heal(bench)
    assert bench.pack.run_until(lambda: sessions(bench), 15_000)
    assert all(node.identity.owner_public == bench.store.public_key for node in nodes_of(bench))
    commission(bench, claim=False)
    unharmed(bench)


def test_bus_off_and_back(keyed):
    """Every frame of the pack destroyed: it goes bus-off, modules go Off, and all comes back by itself."""
    obeyed(keyed, STATE_ON)
    keyed.pack.add_fault("module", kind="disturb", sender="pack")
    assert keyed.pack.run_until(lambda: keyed.pack.stations["pack"].drivers[1].counters["bus_off"] > 0, 5000)
    assert keyed.pack.run_until(lambda: all(node.state == STATE_OFF for node in modules_of(keyed)), 20_000)
    heal(keyed)
    keyed.pack.run_for(3000)
    command(keyed, keyed.node.set_state(STATE_OFF))
    unharmed(keyed)
