"""A rotation without an app on a CAN FD bus, where its messages are longer than one frame's record and go by ISO-TP."""

from app_bench import AppBench
from rotation_bench import relation_of, use


def test_pack_rotates_alone_on_can_fd(tmp_path):
    bench = AppBench(tmp_path, modules=1, fd=True)
    bench.commission()
    bench.pack.power_off("app")
    bench.pack.run_for(6000)
    pack, module = bench.pack.node("pack"), bench.pack.node("module1")
    use(pack, 1, 6)
    assert bench.pack.run_until(lambda: relation_of(pack, 1).epoch == 2 == relation_of(module, 1).epoch, 20_000)
    assert bench.pack.run_until(lambda: not relation_of(pack, 1).two_epochs, 5000)
    assert pack.counters["rotations"] == module.counters["rotations"] == 1
    bench.pack.run_for(1000)
    assert pack.slots[1].active(bench.pack.now_ms)
