"""Cuts a node's power at every operation of the flash under its store, in the middle of something, and looks after it.

A `Scenario` is that something. `Sweep` runs it up to where the writing begins, once, and goes on from there in a forked
process for each way it can go on: first with every operation of the store swept (littlefs.py), then with the power cut
in each of them, once so that the reboot finds the old state and once so that it finds the new one.

To add one: write a Scenario and put it into SCENARIOS.
"""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app_bench import AppBench
from attacker import sessions, unharmed
from littlefs import Littlefs, LittlefsSlots, Point, PowerCut
from packtrust_host.app.errors import AppError
from packtrust_node import identity as identities
from packtrust_node.relation import SALT_PREFIX
from rotation_bench import use

OFF_MS = 300
MS = 1_000_000


class _Again:
    """Switches a node on again when its time has come; in the simulation's queue it looks like a station."""

    def __init__(self, bench: AppBench, victim: str) -> None:
        self._bench = bench
        self._victim = victim

    def run(self) -> None:
        self._bench.pack.power_on(self._victim)


class Victim:
    """A node of a bench whose store lies on a littlefs that can be cut."""

    def __init__(self, bench: AppBench, name: str, littlefs: Littlefs) -> None:
        self.bench = bench
        self.name = name
        self.cuts = 0
        station = bench.pack.stations[name]
        self.slots = LittlefsSlots(littlefs, station.slots.files)
        self.before = dict(self.slots.files)
        station.slots = self.slots
        station.node.env.store._slots = self.slots
        self._run = station.run
        station.run = self._guarded

    @property
    def node(self) -> Any:
        return self.bench.pack.node(self.name)

    def _guarded(self) -> None:
        self.guard(self._run)

    def guard(self, action: Callable[[], object]) -> None:
        """Do something that may end in the dark; the node is switched on again soon."""
        try:
            action()
        except PowerCut:
            self.cuts += 1
            pack = self.bench.pack
            pack.power_off(self.name)
            pack._schedule(pack.now_ns + OFF_MS * MS, _Again(self.bench, self.name))


@dataclass(frozen=True)
class Scenario:
    """Something that writes to a node's store, and how all goes well in the end.

    prepare   brings a fresh bench (a pack, one module, an app) to where it begins
    act       does it; the app's part may fail with an AppError, which it takes
    finish    without help but what any user does: all is well, or an assertion fails
    """

    name: str
    prepare: Callable[[AppBench, str], None]
    act: Callable[[Victim], None]
    finish: Callable[[Victim], None]
    victims: tuple[str, ...] = ("pack", "module1")


def attempt(bench: AppBench, script: Any, timeout_ms: int = 300_000) -> AppError | None:
    """Run a script of the app; its error, which must say what to do next."""
    task = bench.node.spawn(script, "attempt")
    assert bench.pack.run_until(lambda: task.done, timeout_ms)
    error = task.error
    if error is not None:
        assert isinstance(error, AppError), error
        assert "Next: " in str(error)
    return error


def commissioned(bench: AppBench) -> None:
    """Claimed with what the consoles show, provisioned, in session, and at work."""
    for _ in range(3):
        assert bench.pack.run_until(lambda: all(bench.pack.node(name) for name in ("pack", "module1")), 2000)
        bench.pack.run_for(500)
        claim(bench)
        error = attempt(bench, bench.provisioner().commission(bench.register, expected_modules=1))
        if error is None:
            break
    assert error is None, error
    assert bench.pack.run_until(lambda: sessions(bench), 20_000)
    unharmed(bench)


def claim(bench: AppBench) -> None:
    """Copy the claim codes of nodes that have one to the app."""
    for name in ("pack", "module1"):
        node = bench.pack.node(name)
        if node.claim_code():
            bench.store.add_claim(node.claim_code(), unique_id=node.unique_id)


def agree(bench: AppBench) -> None:
    """Pack and module have an epoch in common, with the same root, if both have the relationship."""
    pack, module = bench.pack.node("pack"), bench.pack.node("module1")
    for tag, mine in module.relations.items():
        theirs = pack.relations.get(tag)
        if theirs is None:
            continue
        roots = []
        for relation in (mine, theirs):
            known = {relation.epoch: bytes(relation.root)}
            if relation.previous is not None:
                known[relation.previous[0]] = bytes(relation.previous[1])
            roots.append(known)
        common = set(roots[0]) & set(roots[1])
        assert common and all(roots[0][epoch] == roots[1][epoch] for epoch in common)


def back(victim: Victim) -> None:
    """The node is on again, and its store gave no evidence of anything but a power cut."""
    assert victim.bench.pack.run_until(lambda: victim.node is not None, 2000)
    victim.bench.pack.run_for(100)
    assert not [what for what in victim.node.counters if what.startswith("store-")], victim.node.counters
    assert victim.node.identity is not None


# -- scenarios ---------------------------------------------------------------------------------------------------------


def _first_boot(victim: Victim) -> None:
    victim.bench.pack.power_off(victim.name)
    victim.guard(lambda: victim.bench.pack.power_on(victim.name))
    victim.bench.pack.run_for(1000)


def _empty(bench: AppBench, name: str) -> None:
    bench.pack.stations[name].slots.files = {}


def _finish_first_boot(victim: Victim) -> None:
    back(victim)
    code = bytes(victim.node.claim_code())
    assert len(code) == 16
    victim.bench.pack.power_cycle(victim.name)
    assert victim.node.claim_code() == code
    commissioned(victim.bench)


def _prepare_claim(bench: AppBench, name: str) -> None:
    claim(bench)


def _provision(victim: Victim) -> None:
    bench = victim.bench
    attempt(bench, bench.provisioner().commission(bench.register, expected_modules=1))
    bench.pack.run_for(2000)


def _finish_provision(victim: Victim) -> None:
    back(victim)
    agree(victim.bench)
    commissioned(victim.bench)
    agree(victim.bench)
    assert victim.node.identity.owner_public == victim.bench.store.public_key
    assert not victim.node.claim_code()


def _prepare_keyed(bench: AppBench, name: str) -> None:
    commissioned(bench)


def _prepare_rotated(bench: AppBench, name: str) -> None:
    commissioned(bench)
    bench.pack.node(name).env.store.write(SALT_PREFIX + "0011223344556677", bytes(36))
    bench.pack.run_for(1500)


def _lct(bench: AppBench) -> str:
    number = bench.pack.node("module1").own_node
    return next(record.lct_id for record in bench.store.relationships.values() if record.node == number)


def _rotate(victim: Victim) -> None:
    bench = victim.bench
    attempt(bench, bench.provisioner().install(_lct(bench)))
    bench.pack.run_for(3000)


def _finish_rotate(victim: Victim) -> None:
    """Under the old epoch or the new one traffic comes back by itself; then the keys can be rotated again."""
    bench = victim.bench
    back(victim)
    agree(bench)
    assert bench.pack.run_until(lambda: sessions(bench), 40_000), "the pair is cut off until somebody rotates again"
    unharmed(bench)
    error = attempt(bench, bench.provisioner().install(_lct(bench)))
    assert error is None, error
    assert bench.pack.run_until(lambda: sessions(bench), 40_000)
    bench.pack.run_for(3000)
    agree(bench)
    assert all(relation.previous is None for relation in bench.pack.node("module1").relations.values())


def _prepare_alone(bench: AppBench, name: str) -> None:
    commissioned(bench)
    bench.pack.power_off("app")
    bench.pack.run_for(8000)


def _use_up(bench: AppBench) -> None:
    """The pair's epoch is due: the pack makes a new one with the module."""
    assert bench.pack.run_until(lambda: bench.pack.node("pack"), 2000)
    use(bench.pack.node("pack"), bench.pack.node("module1").own_node, 6)


def _rotate_alone(victim: Victim) -> None:
    _use_up(victim.bench)
    victim.bench.pack.run_for(8000)


def _pair_settled(bench: AppBench) -> bool:
    pack, module = bench.pack.node("pack"), bench.pack.node("module1")
    mine = [found for found in module.relations.values() if found.node == module.own_node]
    theirs = [found for found in pack.relations.values() if found.node == module.own_node]
    if not mine or not theirs:
        return False
    one, other = mine[0], theirs[0]
    return one.epoch == other.epoch and one.root == other.root and one.previous is None and other.previous is None


def _finish_alone(victim: Victim) -> None:
    bench = victim.bench
    back(victim)
    agree(bench)
    slots = lambda: [slot for slot in bench.pack.node("pack").keyed_slots() if slot.established]  # noqa: E731
    assert bench.pack.run_until(lambda: bool(slots()), 40_000), "the pair is cut off"
    before = max(found.epoch for found in bench.pack.node("module1").relations.values())
    _use_up(bench)
    assert bench.pack.run_until(
        lambda: (
            _pair_settled(bench)
            and max(found.epoch for found in bench.pack.node("module1").relations.values()) > before
        ),
        90_000,
    ), "no new epoch"
    bench.pack.stations["app"].power_on()
    bench.node = bench.pack.stations["app"].node
    bench.restart_app()
    assert bench.pack.run_until(lambda: sessions(bench), 40_000)
    unharmed(bench)


def _device(bench: AppBench, name: str) -> Any:
    unique_id = bench.pack.node(name).unique_id
    survey = bench.run(bench.provisioner().survey(expected_modules=1))
    return next(device for device in [survey.pack, *survey.modules] if device.unique_id == unique_id)


def _release(victim: Victim) -> None:
    bench = victim.bench
    attempt(bench, bench.provisioner().release(_device(bench, victim.name)))
    bench.pack.run_for(1000)


def _finish_release(victim: Victim) -> None:
    bench = victim.bench
    back(victim)
    node = victim.node
    counter = node.identity.counter
    if node.identity.claimed:
        assert node.relations, "claimed, and without its keys: neither the old state nor the new one"
        error = attempt(bench, bench.provisioner().release(_device(bench, victim.name)))
        assert error is None, error
        node = victim.node
    _nobodys(victim, counter)


def _nobodys(victim: Victim, counter: int) -> None:
    node, bench = victim.node, victim.bench
    assert not node.identity.claimed and not node.relations and len(node.claim_code()) == 16
    assert node.identity.counter >= counter
    left = {name.split("-")[0].split(".")[0] for name in victim.slots.names()}
    assert left <= {"boot", "identity", "store", "audit"}, left
    # Whoever has it now claims it with its new code; our app forgets that it was its.
    bench.provisioner().forget(node.unique_id)
    bench.generation = "-again"
    commissioned(bench)


def _reset(victim: Victim) -> None:
    victim.guard(victim.node.reset)
    victim.bench.pack.run_for(1000)


def _finish_reset(victim: Victim) -> None:
    back(victim)
    counter = victim.node.identity.counter
    if victim.node.identity.claimed:
        assert victim.node.relations
        victim.node.reset()
    _nobodys(victim, counter)


def _damage(bench: AppBench, name: str) -> None:
    """Keyed, and then nothing of its identity is left: out of service until somebody resets it."""
    commissioned(bench)
    station = bench.pack.stations[name]
    bench.pack.power_off(name)
    for slot in list(station.slots.files):
        if slot.startswith(identities.RECORD):
            station.slots.files[slot] = b"?"
    bench.pack.power_on(name)
    bench.pack.run_for(500)
    assert bench.pack.node(name).identity is None


def _finish_erase(victim: Victim) -> None:
    bench = victim.bench
    assert bench.pack.run_until(lambda: victim.node is not None, 2000)
    bench.pack.run_for(100)
    if victim.node.identity is None:
        old, now = (
            {name: data for name, data in files.items() if not name.startswith("boot")}
            for files in (victim.before, victim.slots.files)
        )
        assert old == now, "neither the old state nor the new one"
        victim.node.reset()
    bench.provisioner().forget(victim.node.unique_id)
    # It is another device now: a new binding key under the old number. The app has to be told.
    with bench.store.transaction() as state:
        state.devices.pop(victim.node.unique_id, None)
    assert victim.node.identity is not None and len(victim.node.claim_code()) == 16
    assert not [name for name in victim.slots.names() if name.startswith("rel-")]
    code, boots = victim.node.claim_code(), victim.node.boot_counter
    bench.pack.power_cycle(victim.name)
    assert victim.node.claim_code() == code and victim.node.boot_counter == boots + 1


SCENARIOS = [
    Scenario("first boot", _empty, _first_boot, _finish_first_boot),
    Scenario("claim and provisioning", _prepare_claim, _provision, _finish_provision),
    Scenario("rotation by the app", _prepare_keyed, _rotate, _finish_rotate),
    Scenario("rotation without an app", _prepare_alone, _rotate_alone, _finish_alone),
    Scenario("release by the owner", _prepare_rotated, _release, _finish_release),
    Scenario("reset at the console", _prepare_rotated, _reset, _finish_reset),
    Scenario("reset of a damaged store", _damage, _reset, _finish_erase),
]


# -- the sweep ---------------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """What a sweep did: the store's operations, the cuts in them, and the reboots that were lived through."""

    points: list[Point]
    reboots: int

    @property
    def cuts(self) -> int:
        return sum(point.cuts for point in self.points)


class Sweep:
    """A scenario with one node's power cut wherever that can be."""

    def __init__(self, scenario: Scenario, victim: str, folder: Path, littlefs: Littlefs) -> None:
        self._scenario = scenario
        self._folder = folder
        self._bench = AppBench(folder, modules=1)
        scenario.prepare(self._bench, victim)
        self._victim = Victim(self._bench, victim, littlefs)

    def run(self) -> Result:
        points = self._forked(self._record)
        assert points, "nothing was written: nothing to cut"
        reboots = 0
        for number, point in enumerate(points):
            for cut in (point.old, point.new):
                if cut is not None:
                    self._forked(lambda number=number, cut=cut: self._cut(number, *cut))
                    reboots += 1
        return Result(points, reboots)

    def _record(self) -> list[Point]:
        victim = self._victim
        victim.slots.points = []
        self._scenario.act(victim)
        points, victim.slots.points = victim.slots.points, None
        self._scenario.finish(victim)
        assert not victim.cuts
        return points

    def _cut(self, number: int, cut: int, torn: str) -> None:
        self._victim.slots.cut_at = (number, cut, torn)
        self._scenario.act(self._victim)
        assert self._victim.cuts == 1, "the cut was not reached: the run is not the recorded one"
        self._scenario.finish(self._victim)

    def _forked(self, action: Callable[[], Any]) -> Any:
        """What `action` gives in a process of its own, which leaves this one as it is."""
        keys, kept = self._folder / "keys", self._folder / "kept"
        shutil.copytree(keys, kept)
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                try:
                    answer = (True, action())
                except BaseException:  # noqa: BLE001 - the parent raises it
                    answer = (False, traceback.format_exc())
                with os.fdopen(theirs, "wb") as pipe:
                    pickle.dump(answer, pipe)
                status = 0
            finally:
                sys.stdout.flush()
                os._exit(status)
        os.close(theirs)
        with os.fdopen(ours, "rb") as pipe:
            raw = pipe.read()
        os.waitpid(child, 0)
        shutil.rmtree(keys)
        kept.rename(keys)
        good, value = pickle.loads(raw)
        assert good, value
        return value
