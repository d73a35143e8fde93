"""A heap that is full when an epoch is committed: it is stored by then, and the other end counts on it."""

import pytest

from attacker import nodes_of
from packtrust.channel import Channel
from packtrust.handshake import INITIATOR, RESPONDER
from packtrust_host.app.errors import ProvisioningFailed
from packtrust_host.app.keystore import ACTIVE
from packtrust_node.neighbour import Neighbour
from packtrust_node.node import Node
from packtrust_node.relation import Relation
from packtrust_node.usage import Usage
from rotation_bench import alone, relation_of, settled, use

# What a commit does once it is stored, and what tells the two ends apart there.
STEPS = {
    "note": (Node, "note", lambda node: node.unique_id),
    "key": (Neighbour, "key", lambda neighbour: neighbour.role),
    "install": (Channel, "install", lambda channel: channel.role),
    "usage": (Usage, "begin", lambda usage: usage._node.unique_id),
}
EVENTS = ("committed", "rotated")


class Full:
    """A step for which there is no heap so many times at each end; of `note`, for the entries about commits alone."""

    def __init__(self, monkeypatch, step, after, times=1):
        owner, name, end_of = STEPS[step]
        right = getattr(owner, name)
        self.failed = {}

        def fail(target):
            end = end_of(target)
            if self.failed.get(end, 0) < times:
                self.failed[end] = self.failed.get(end, 0) + 1
                raise MemoryError

        def method(target, *given, **more):
            meant = step != "note" or given[0] in EVENTS
            if meant and not after:
                fail(target)
            got = right(target, *given, **more)
            if meant and after:
                fail(target)
            return got

        monkeypatch.setattr(owner, name, method)


def pair(bench):
    """The app's relationship of pack and module 1."""
    return bench.store.modules_of(bench.survey.pack.unique_id)[0]


def ends(bench):
    """The nodes of that pair."""
    module = next(node for node in nodes_of(bench) if node.own_node == pair(bench).node)
    return bench.pack.node("pack"), module


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_no_heap_when_an_epoch_is_committed(keyed, monkeypatch, step, after):
    """At both ends, before and after a step: the app asks again, and both use what they have stored."""
    full = Full(monkeypatch, step, after)
    pack, module = ends(keyed)
    keyed.run(keyed.provisioner().install(pair(keyed).lct_id))
    assert list(full.failed.values()) == [1, 1]
    assert pair(keyed).state == ACTIVE and pair(keyed).epoch == 2
    for node in (pack, module):
        assert node.counters["internal-MemoryError"] == 1
        assert max(relation.epoch for relation in node.relations.values()) == 2
    assert keyed.pack.run_until(lambda: pack.slots[pair(keyed).node].session_epoch == 2, 5000)


def test_no_heap_for_some_seconds(keyed, monkeypatch):
    """Meanwhile the old epoch goes on. It is tried again once a second, though the app is gone by then."""
    full = Full(monkeypatch, "key", False, times=4)
    keyed.node.spawn(keyed.provisioner().install(pair(keyed).lct_id), "test")
    pack, module = ends(keyed)
    number = pair(keyed).node
    assert keyed.pack.run_until(lambda: full.failed.get(RESPONDER) == 1, 20_000)  # the module commits first
    keyed.pack.power_off("app")
    keyed.pack.run_for(2500)
    assert full.failed == {RESPONDER: 3}
    assert pack.slots[number].established and pack.slots[number].session_epoch == 1
    keyed.pack.run_for(2000)
    assert full.failed == {RESPONDER: 4}
    assert relation_of(module, number).epoch == 2 and module._committed is None
    assert pack.slots[number].established


@pytest.mark.parametrize("step", ["note", "key"])
def test_no_heap_when_pack_and_module_rotate_alone(monkeypatch, step):
    bench, pack, _module = alone()
    full = Full(monkeypatch, step, False)
    use(pack, 1, 6)
    bench.until(lambda: settled(bench, 2), 30_000)
    assert list(full.failed.values()) == [1, 1]
    assert relation_of(pack, 1).epoch == 2, "at the first go"


def test_no_heap_for_what_is_to_be_remembered(keyed, monkeypatch):
    """Found out before it is stored: the node would not know that there is something to take up."""
    _pack, module = ends(keyed)
    another = next(iter(module.relations.values())).full()
    another.epoch += 5
    stored = dict(module.env.store._slots.files)

    def full(_relation):
        raise MemoryError

    monkeypatch.setattr(Relation, "terms", full)
    with pytest.raises(MemoryError):
        module.commit(another, "rotated")
    assert module.env.store._slots.files == stored
    assert not any(another.root)


def test_no_heap_for_one_epoch_and_another_is_committed(keyed, monkeypatch):
    """The second one is neither stored nor kept: there is one place for what waits."""
    full = Full(monkeypatch, "key", False, times=100)
    keyed.node.spawn(keyed.provisioner().install(pair(keyed).lct_id), "test")
    _pack, module = ends(keyed)
    assert keyed.pack.run_until(lambda: full.failed.get(RESPONDER) == 1, 20_000)
    stored = dict(module.env.store._slots.files)
    another = next(iter(module.relations.values())).full()
    another.epoch += 5
    with pytest.raises(MemoryError):
        module.commit(another, "rotated")
    assert not any(another.root)
    assert module.env.store._slots.files == stored


def test_what_was_committed_is_gone_when_there_is_heap_again(keyed, monkeypatch):
    """By a fault of the flash: the node counts it once, and does not try for ever."""
    full = Full(monkeypatch, "key", False, times=100)
    keyed.node.spawn(keyed.provisioner().install(pair(keyed).lct_id), "test")
    _pack, module = ends(keyed)
    assert keyed.pack.run_until(lambda: full.failed.get(RESPONDER) == 1, 20_000)
    keyed.pack.power_off("app")
    slots = module.env.store._slots
    for name in slots.names():
        if name.startswith("rel"):
            slots.write(name, slots.read(name)[:-1] + b"?")
    keyed.pack.run_for(5000)
    assert full.failed[RESPONDER] == 1 and module._committed is None
    assert module.counters["storage"] == 1


def test_no_heap_for_longer_than_the_app_waits(keyed, monkeypatch):
    """It is not told that the epoch is in use, and goes on where it was once it is run again."""
    full = Full(monkeypatch, "key", False, times=100)
    with pytest.raises(ProvisioningFailed, match="did not answer COMMIT"):
        keyed.run(keyed.provisioner().install(pair(keyed).lct_id))
    assert full.failed[RESPONDER] > 5 and INITIATOR not in full.failed
    assert pair(keyed).epoch == 1 and pair(keyed).pending.epoch == 2
    monkeypatch.undo()
    keyed.run(keyed.provisioner().install(pair(keyed).lct_id))
    assert pair(keyed).epoch == 2 and pair(keyed).pending is None
    assert [relation_of(node, pair(keyed).node).epoch for node in ends(keyed)] == [2, 2]
