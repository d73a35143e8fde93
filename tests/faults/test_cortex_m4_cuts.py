"""Power cut at every commit point of a node's life on the virtual Cortex-M4: littlefs, flash in a file, kill -9.

The life, from first boot over claim, provisioning and both kinds of rotation to release and reset, is recorded from a
node of the in-process pack; the board carries out what it wrote, one operation of the store at a time. In each, the
machine is killed once half way through a flash operation in the middle of it and once right after the last one. With
PACKTRUST_FULL_SWEEP=1 it is killed at each flash operation, before, half way through and after it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mpremote.transport_serial import SerialTransport

import power_cuts
from app_bench import AppBench
from packtrust_host.image import romfs_image
from packtrust_host.sim.qemu import LITTLEFS_SIZE, QemuError, QemuMachine, find_qemu, firmware, new_flash
from packtrust_node.store import MemorySlots
from qemu_board import Board, compiled, core_modules

ROOT = Path(__file__).resolve().parents[2]
FULL = bool(os.environ.get("PACKTRUST_FULL_SWEEP"))
SECONDS = 60
Operation = tuple[str, str, str]


class Recorded(MemorySlots):
    """Slots that keep what is done to them: (write or remove, slot, data in hex)."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def write(self, name: str, data: bytes) -> None:
        self.operations.append(("write", name, bytes(data).hex()))
        super().write(name, data)

    def remove(self, name: str) -> None:
        if name in self.files:
            self.operations.append(("remove", name, ""))
        super().remove(name)


class _Node:
    """A node as the acts of power_cuts want it, without any cut."""

    def __init__(self, bench: AppBench, name: str) -> None:
        self.bench = bench
        self.name = name

    @property
    def node(self) -> Any:
        return self.bench.pack.node(self.name)

    def guard(self, action: Any) -> None:
        action()


def life(folder: Path, name: str) -> dict[str, Any]:
    """What a node writes from its first boot to a reset, and its configuration."""
    bench = AppBench(folder, modules=1)
    bench.pack.power_off(name)
    slots = bench.pack.stations[name].slots = Recorded()
    bench.pack.power_on(name)
    node: Any = _Node(bench, name)
    power_cuts.commissioned(bench)
    bench.pack.run_for(1500)
    power_cuts._rotate(node)
    bench.pack.power_off("app")
    bench.pack.run_for(8000)
    power_cuts._rotate_alone(node)
    bench.pack.stations["app"].power_on()
    bench.node = bench.pack.stations["app"].node
    bench.restart_app()
    bench.pack.run_for(3000)
    power_cuts._release(node)
    bench.provisioner().forget(node.node.unique_id)
    bench.generation = "-again"
    power_cuts.commissioned(bench)
    power_cuts._reset(node)
    return {"config": bench.pack.configs[name], "operations": slots.operations}


class _Cut(Exception):
    """The board waits for its power to go."""


class Bench:
    """Starts boards on one flash image, one after the other."""

    def __init__(self, folder: Path, image: bytes) -> None:
        self._flash = folder / "flash.img"
        self.kills = 0
        new_flash(self._flash, romfs=image)

    @property
    def littlefs(self) -> bytes:
        """The part of the flash with the file system."""
        with self._flash.open("rb") as file:
            return file.read(LITTLEFS_SIZE)

    @littlefs.setter
    def littlefs(self, data: bytes) -> None:
        # A board that runs has the file mapped: it sees it too.
        with self._flash.open("r+b") as file:
            file.write(data)

    @contextlib.contextmanager
    def boot(self) -> Iterator[Callable[[str], dict[str, Any] | None]]:
        """A fresh boot: (call of the target) -> what it answers, None if the machine was killed at the cut."""
        master, slave = os.openpty()
        machine = QemuMachine(firmware("suite"), self._flash, console=master)
        with subprocess.Popen(machine.command(), pass_fds=machine.pass_fds) as process:
            try:
                transport = SerialTransport(os.ttyname(slave))
                transport.enter_raw_repl(soft_reset=False)
                board = Board(transport)

                def say(line: str) -> None:
                    if line == "CUT":
                        process.kill()
                        self.kills += 1
                        raise _Cut

                def call(code: str) -> dict[str, Any] | None:
                    try:
                        lines = board.run("import cortex_m4_cuts as c; c.%s" % code, SECONDS, say)
                    except _Cut:
                        return None
                    found = [line for line in lines if line.startswith("{")]
                    return json.loads(found[-1]) if found else {}

                yield call
            finally:
                process.kill()
                os.close(master)
                os.close(slave)


def rom(recorded: dict[str, Any], overlays: dict[str, str] | None = None) -> bytes:
    """Core, firmware, the target's modules, and the life. `overlays`: files of the firmware in place of its own."""
    files = core_modules()
    for path in (ROOT / "firmware").rglob("*.py"):
        name = path.relative_to(ROOT / "firmware").as_posix()
        files["lib/" + name.removesuffix("py") + "mpy"] = compiled(Path((overlays or {}).get(name, path)), name)
    for name in ("cortex_m4_cuts", "nodebench"):
        files[name + ".mpy"] = compiled(ROOT / "tests" / (name + ".py"), name + ".py")
    files["life.json"] = json.dumps(recorded).encode()
    return romfs_image(files)


def states(operations: list[Operation]) -> Iterator[dict[str, str]]:
    """The slots before the first operation and after each, with a hash for their contents."""
    slots: dict[str, str] = {}
    yield dict(slots)
    for operation, name, data in operations:
        if operation == "write":
            slots[name] = hashlib.sha256(bytes.fromhex(data)).digest()[:8].hex()
        else:
            slots.pop(name)
        yield dict(slots)


EMPTY = hashlib.sha256(b"").digest()[:8].hex()


def verdict(found: dict[str, str], old: dict[str, str], new: dict[str, str], name: str) -> str:
    """Old or new; a file that is made may be there and be empty."""
    if found == new:
        return "new"
    if found == old or (name not in old and found == dict(old, **{name: EMPTY})):
        return "old"
    raise AssertionError("neither old nor new: %s, not %s or %s" % (found, old, new))


def sweep(folder: Path, recorded: dict[str, Any], overlays: dict[str, str] | None = None) -> tuple[Bench, Any, Any]:
    """Cut every operation of a life: the bench, outcomes, and whether nodes were claimed. AssertionError for what is
    neither old nor new, or no node starts from."""
    operations = recorded["operations"]
    before = list(states(operations))
    bench = Bench(folder, rom(recorded, overlays))
    flashes, counts = [], []
    with bench.boot() as call:
        call("fresh()")
        for number in range(len(operations)):
            flashes.append(bench.littlefs)
            done = call("session(%d, -1, '')" % number)
            assert done is not None
            counts.append(done["operations"])
    cuts = [(number, *how) for number in range(len(operations)) for how in plan(counts[number])]
    outcomes = {"old": 0, "new": 0}
    claimed = set()
    last = None
    for cut in [*cuts, None]:
        with bench.boot() as call:
            report = call("report()")
            assert report is not None
            if last is not None:
                found = verdict(report["slots"], before[last], before[last + 1], operations[last][1])
                outcomes[found] += 1
                # Whatever was cut, a node starts from it, and takes it for what it is.
                node = report["node"]
                assert node["identity"] and not node["evidence"], (operations[last][:2], node)
                claimed.add(node["claimed"])
            if cut is not None:
                bench.littlefs = flashes[cut[0]]
                assert call("session(%d, %d, %r)" % cut) is None, "the cut was not reached"
                last = cut[0]
    assert bench.kills == len(cuts)
    return bench, outcomes, claimed


def needs_the_board() -> None:
    try:
        firmware("suite")
        find_qemu()
    except QemuError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.timeout(0 if FULL else 600)
@pytest.mark.parametrize("name", ["pack", "module1"])
def test_power_cut_at_every_commit_point_of_a_life(tmp_path, name, record_property):
    needs_the_board()
    bench, outcomes, claimed = sweep(tmp_path, life(tmp_path, name))
    assert outcomes["old"] and outcomes["new"] and claimed == {True, False}
    which = "every flash operation" if FULL else "every commit point"
    record_property("fault", "power cut, cortex-m4: %s of a node's life" % which)
    record_property("injections", bench.kills)
    record_property("outcome", "old %(old)d, new %(new)d; a node starts from each" % outcomes)


def plan(operations: int) -> list[tuple[int, str]]:
    """Where to cut an operation that takes so many flash operations."""
    if FULL:
        return [(cut, torn) for cut in range(operations) for torn in ("before", "half", "after")]
    return [(operations // 2, "half"), (operations - 1, "after")]


# Builds that commit in the wrong order: what FileSlots.write does in place of one write.
THERE = """        with open(self._path(name), "wb") as file:
            file.write(data)
"""
WRONG = {
    "the old slot goes before the new one is there": "        self.remove(name)\n" + THERE,
    "a slot is there before all of it is": """        for part in (data[: len(data) // 2], data):
            with open(self._path(name), "wb") as file:
                file.write(part)
""",
}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", WRONG)
def test_the_sweep_finds_a_board_that_commits_in_the_wrong_order(tmp_path: Path, what: str) -> None:
    """The control: the same sweep, of the first of a module's life, over a build with an overlay."""
    needs_the_board()
    name = "packtrust_node/store.py"
    text = (ROOT / "firmware" / name).read_text()
    assert text.count(THERE) == 1
    overlay = tmp_path / "overlay.py"
    overlay.write_text(text.replace(THERE, WRONG[what]))
    recorded = life(tmp_path, "module1")
    recorded["operations"] = recorded["operations"][:12]
    with pytest.raises(AssertionError, match="neither old nor new"):
        sweep(tmp_path, recorded, {name: str(overlay)})
