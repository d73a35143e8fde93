"""A node, or the app, dies half way through provisioning: after any frame, on either side.

What must hold afterwards, before anybody repairs anything: no relationship is current on one end with keys the other
end never had, and nothing half written is read. Then the same call, run again, finishes the work.
"""

import pytest

from app_bench import AppBench
from attacker import commission, nodes_of, obeyed, relations_of, sessions, unharmed
from packtrust.messages.table import STATE_OFF, STATE_ON
from packtrust_host.app.errors import AppError
from packtrust_host.app.keystore import ACTIVE

# Provisioning of two modules takes about so many frames of each sender; cuts are spread over them.
CUTS = [3, 40, 90, 150, 200, 260, 330, 420]


class Cutter:
    """Cuts a node's power when it has sent, or been sent, so many frames."""

    def __init__(self, bench, bus, victim, after):
        self.cut_ms = None
        self._left = after
        self._bench = bench
        self._bus = bench.pack.buses[bus]
        self._victim = victim
        self._bus.listeners.append(self._count)

    def _count(self, frame, sender, start_ns, end_ns):
        if not frame.is_extended_id or frame.arbitration_id & 0x20000:
            return
        base = frame.arbitration_id >> 18
        if base not in (0x431, 0x432, 0x433, 0x434, 0x530, 0x531, 0x538, 0x539):
            return
        self._left -= 1
        if self._left == 0:
            self.cut_ms = self._bench.pack.now_ms
            self._bench.pack.power_off(self._victim)

    def stop(self):
        self._bus.listeners.remove(self._count)


def agree(bench):
    """Every relationship both ends have, they have with the same root in a common epoch."""
    pack = bench.pack.node("pack")
    for node in nodes_of(bench):
        if node is pack:
            continue
        for tag, relation in node.relations.items():
            other = pack.relations.get(tag)
            if other is None:
                continue  # this end was committed first: the other one is told again
            mine = {relation.epoch: bytes(relation.root)}
            theirs = {other.epoch: bytes(other.root)}
            for known, source in ((mine, relation), (theirs, other)):
                if source.previous is not None:
                    known[source.previous[0]] = bytes(source.previous[1])
            common = set(mine) & set(theirs)
            assert common, "no epoch in common"
            assert all(mine[epoch] == theirs[epoch] for epoch in common)


def provision_and_cut(bench, bus, victim, after):
    cutter = Cutter(bench, bus, victim, after)
    task = bench.node.spawn(bench.provisioner().commission(bench.register, expected_modules=2), "commission")
    assert bench.pack.run_until(lambda: task.done or (victim == "app" and cutter.cut_ms is not None), 300_000)
    cutter.stop()
    if task.done and task.error is not None:
        assert isinstance(task.error, AppError), task.error
        assert "Next: " in str(task.error)
    return cutter, task


@pytest.mark.parametrize("victim", ["pack", "module1", "module2"])
@pytest.mark.parametrize("after", CUTS)
def test_a_device_dies(tmp_path, victim, after):
    bench = AppBench(tmp_path, modules=2)
    bench.claim("pack", "module1", "module2")
    bus = "vcu" if victim == "pack" else "module"
    cutter, task = provision_and_cut(bench, bus, victim, after)
    if cutter.cut_ms is None:
        assert task.error is None  # all was done before: nothing to cut
        return
    bench.pack.power_on(victim)
    bench.pack.run_for(500)
    agree(bench)
    commission(bench, claim=False)
    agree(bench)
    assert all(record.state == ACTIVE for record in bench.store.relationships.values())
    unharmed(bench)


@pytest.mark.parametrize("after", CUTS)
def test_the_app_dies(tmp_path, after):
    bench = AppBench(tmp_path, modules=2)
    bench.claim("pack", "module1", "module2")
    cutter, task = provision_and_cut(bench, "vcu", "app", after)
    if cutter.cut_ms is None:
        assert task.error is None
        return
    bench.pack.run_for(2000)
    agree(bench)
    bench.pack.stations["app"].power_on()
    bench.node = bench.pack.stations["app"].node
    bench.restart_app()
    commission(bench, claim=False)
    agree(bench)
    unharmed(bench)


@pytest.mark.parametrize("victim", ["pack", "module1"])
@pytest.mark.parametrize("after", [5, 45, 80, 110, 140])
def test_a_device_dies_while_keys_rotate(tmp_path, victim, after):
    """The old epoch is there: traffic comes back under it, or the new one, without anybody's help."""
    bench = AppBench(tmp_path, modules=2)
    commission(bench)
    obeyed(bench, STATE_ON)
    obeyed(bench, STATE_OFF)
    number = bench.pack.node("module1").own_node
    record = next(item for item in bench.store.relationships.values() if item.node == number)
    cutter = Cutter(bench, "vcu" if victim == "pack" else "module", victim, after)
    task = bench.node.spawn(bench.provisioner().install(record.lct_id), "rotate")
    assert bench.pack.run_until(lambda: task.done, 300_000)
    cutter.stop()
    if cutter.cut_ms is None:
        assert task.error is None
        return
    bench.pack.power_on(victim)
    assert bench.pack.run_until(lambda: sessions(bench), 40_000), "the pair is cut off until somebody rotates again"
    agree(bench)
    unharmed(bench)
    bench.run(bench.provisioner().install(record.lct_id))
    agree(bench)
    unharmed(bench)


def test_power_fails_again_and_again(keyed):
    """Twenty cuts of everything, at odd times: keys, owner and numbers are still there."""
    before = {node.unique_id: relations_of(node) for node in nodes_of(keyed)}
    for turn in range(20):
        name = ("pack", "module1", "module2")[turn % 3]
        keyed.pack.power_cycle(name, 1 + 7 * turn)
        keyed.pack.run_for(13 * turn)
    assert {node.unique_id: relations_of(node) for node in nodes_of(keyed)} == before
    unharmed(keyed)
