"""Keys that have ended are in no memory of a node: neither in the interpreter's heap nor in its C heap, stack and
statics (firmware/packtrust_node/scrub.py).

The nodes' key tap tells every key they ever had in hands; a console command of the test tells which are in use. All of
the rest, whole or 8 bytes of it, in any form, is looked for in all writable memory of each process, and in the RAM of
the virtual Cortex-M4. With the overwriting left out the same search finds many.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import memoryscan
from packtrust_host.sim import qemu
from packtrust_host.sim.launcher import PackProcess
from rigs import ProcessRig

ROOT = Path(__file__).resolve().parents[2]
MODULES = 2
LIMIT_S = 60.0
UNIX_32 = ROOT / "build" / "micropython32" / "bin" / "micropython"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(480)]

BOARDS = {"cortex-m4": "module1", "cortex-m4-pack": "pack"}
SHOWN = "claim code of %s (hex)"
BOARDS_TRIED = 24
NO_SCRUB = "def free_heap():\n    pass\n"


class MemoryRig(ProcessRig):
    """A pack whose nodes tell what they have in use.

    kind   unix, unix32 (a build with 32-bit words), cortex-m4 (module 1 is a board, the others are on unix), or
           cortex-m4-pack (the pack is)
    weak   free memory is not overwritten
    """

    def __init__(self, folder: Path, kind: str, weak: bool) -> None:
        # A pack on a board has little room left beside the key tap and the test's commands.
        modules = 1 if kind == "cortex-m4-pack" else MODULES
        super().__init__(folder, modules)
        self.kind = kind
        self.weak = weak
        names = ["pack", *("module%d" % number for number in range(1, modules + 1))]
        overlays = {}
        for name in names:
            role = "pack" if name == "pack" else "module"
            overlays[name] = {"packtrust_node/console.py": str(memoryscan.console_overlay(folder, role))}
            if self.is_board(name):
                overlays[name]["packtrust_tap.py"] = str(memoryscan.tap_overlay(folder))
            if weak:
                scrub = folder / "scrub.py"
                scrub.write_text(NO_SCRUB)
                overlays[name]["packtrust_node/scrub.py"] = str(scrub)
        options: dict[str, Any] = {}
        if kind == "unix32":
            options["micropython"] = str(UNIX_32)
        elif kind in BOARDS:
            options["boards"] = {BOARDS[kind]: "cortex-m4"}
        self.names = names
        self.pack = PackProcess(modules=modules, seed=1, tap=True, overlays=overlays, **options)
        self.told: dict[bytes, str] = {}

    def is_board(self, name: str) -> bool:
        """Whether a node is a virtual Cortex-M4."""
        return BOARDS.get(self.kind) == name

    def commission(self, **options: Any) -> Any:
        survey = super().commission(**options)
        for record in self.store.relationships.values():
            self.told[bytes(record.half_a)] = "half A"
            self.told[bytes(record.half_b)] = "half B"
        for name, code in self.pack.claim_codes.items():
            self.told[bytes.fromhex(code)] = "claim code of %s" % name
        return survey

    def settle(self) -> None:
        """Until no node has anything left to overwrite, by its own word."""
        until = time.monotonic() + LIMIT_S
        for name in self.names:
            while (busy := self.pack.console(name, "stale")) != "stale no":
                assert time.monotonic() < until, "%s does not come to rest: %s" % (name, busy)
                time.sleep(0.1)  # another process

    def unload(self) -> None:
        """Until a board has unloaded what it loads for provisioning: beside the key tap there is no room for more."""
        until = time.monotonic() + LIMIT_S
        for name in self.names:
            while self.is_board(name) and self.pack.console(name, "loaded") != "loaded no":
                assert time.monotonic() < until, "%s does not unload" % name
                time.sleep(0.1)  # another process

    def _live(self) -> dict[str, list[str]]:
        return {name: self.pack.console(name, "live").split()[1:] for name in self.names}

    def _images(self) -> tuple[dict[str, memoryscan.Image], dict[str, list[str]]]:
        """Each node's memory, and the keys in use all the while: a session that ends meanwhile makes it begin again."""
        nodes = self.pack.control("describe")["nodes"]
        until = time.monotonic() + LIMIT_S
        while True:
            live = self._live()
            if not self.weak:
                self.settle()  # telling what is in use has opened the store
            images = {}
            for name in self.names:
                pid = nodes[name]["pid"]
                if self.is_board(name):
                    images[name] = memoryscan.board_image(pid, qemu.firmware())
                else:
                    images[name] = memoryscan.unix_image(pid)
            if live == self._live():
                return images, live
            assert time.monotonic() < until, "the keys in use change all the time"

    def left(self) -> dict[str, dict[str, str]]:
        """What a scan finds, and still finds after memory has been overwritten again.

        The collector takes every word on the stack for a pointer, so a dead object may outlive one overwriting
        (docs/keys.md). Each scan opens the stores, whose keys then end: that is the next one.
        """
        found = self.scan()
        for _ in range(2):
            if any(found.values()):
                again = self.scan()
                found = {name: {what: at for what, at in found[name].items() if what in again[name]} for name in found}
        return found

    def scan(self, spare: bool = True) -> dict[str, dict[str, str]]:
        """Keys found in each node's memory that are not in use, or (not `spare`) all: what -> where."""
        images, live = self._images()
        return self._found(images, live, spare)

    def left_at_once(self, name: str) -> dict[str, str]:
        """What is left in a board just now: nothing is asked of it before its memory has been read."""
        pid = self.pack.control("describe")["nodes"][name]["pid"]
        image = memoryscan.board_image(pid, qemu.firmware())
        return self._found({name: image}, self._live(), True)[name]

    def _found(
        self, images: dict[str, memoryscan.Image], live: dict[str, list[str]], spare: bool
    ) -> dict[str, dict[str, str]]:
        tapped: dict[bytes, list[str]] = {}
        for key, owners in self.pack.control("keys").items():
            for owner in owners:
                value = bytes.fromhex(key)
                if self.is_board(owner.split()[0]):
                    value = memoryscan.unmasked(value)
                tapped.setdefault(value, []).append(owner)
        found = {}
        for name in images:
            used = [memoryscan.unmasked(bytes.fromhex(item)) for item in live[name]]
            # The store's key is the first a node derives for a cipher.
            first = {"%s aes" % name, "%s okm" % name}
            used.append(next(key for key, owners in tapped.items() if first <= set(owners)))
            keys = dict(self.told)
            for key, owners in tapped.items():
                # The key of an HMAC alone may be a label or a salt; what is secret was derived, and told as that.
                if len(key) >= 16 and any(not owner.endswith(" mac") for owner in owners):
                    keys[key] = ", ".join(owners)
            assert len(keys) > 30 and len(used) > 2
            found[name] = memoryscan.search(keys, used if spare else [], images[name])
            if self.is_board(name):
                # What the console showed lies in its UART's buffer, in C, until more is shown (docs/keys.md).
                found[name] = {key: at for key, at in found[name].items() if SHOWN % name not in key}
        return found


KINDS = ["unix", "unix32", *BOARDS]
# An emulated pack comes to rest only if it is given its processor.
TIMED_KINDS = ["unix", "unix32", *(pytest.param(board, marks=pytest.mark.realtime) for board in BOARDS)]


def rotate(rig: MemoryRig) -> None:
    for lct_id in list(rig.store.relationships):
        rig.run(rig.provisioner().install(lct_id))
        rig.unload()
    assert rig.wait(lambda: rig.node.established and rig.node.channel.session_epoch == 2, 20)
    # The modules' epochs end with their next answers to a poll.
    until = time.monotonic() + LIMIT_S
    while any(item["epoch"] != 2 for item in sessions(rig)):
        assert time.monotonic() < until, "the modules do not come to epoch 2"
        time.sleep(0.1)


def sessions(rig: MemoryRig) -> list[dict[str, Any]]:
    figures: list[dict[str, Any]] = list(rig.pack.node_statistics()["pack"]["modules"].values())
    return figures


def life(folder: Path, kind: str) -> set[tuple[str, str, str]]:
    """What is left in the life of a pack: (when, node, key), the key by who has derived it and how it is written."""
    folder.mkdir()
    left = set()
    with MemoryRig(folder, kind, weak=False) as rig:

        def look(when: str) -> None:
            for name, found in rig.left().items():
                left.update((when, name, what.partition(": ")[2]) for what in found)

        survey = rig.commission()
        look("after the claim")
        rotate(rig)
        look("after the end of an epoch")
        for device in [*survey.modules, survey.pack]:
            rig.run(rig.provisioner().release(device))
        look("after the release")
    return left


@pytest.mark.parametrize("kind", TIMED_KINDS)
def test_ended_keys_are_in_no_memory(tmp_path: Path, kind: str) -> None:
    """A word on the stack that happens to be the address of one keeps it, now and then, in one pack: what is not wiped
    is found in the next pack, too.
    """
    left = life(tmp_path / "first", kind)
    assert len(left) <= 2, left
    if left:
        left &= life(tmp_path / "second", kind)
    assert not left


@pytest.mark.parametrize("kind", KINDS)
def test_without_overwriting_they_are_found(tmp_path: Path, kind: str) -> None:
    """The control: the same search, the overwriting left out.

    On a board in service nothing may be left even so: its small heap is used again within a second. It is looked at
    right after its keys were released, and if it was quicker then, another one is.
    """
    if kind not in BOARDS:
        with MemoryRig(tmp_path, kind, weak=True) as rig:
            rig.commission()
            found = rig.scan()
            assert all(found.values()), "in every process"
            assert sum(len(item) for item in found.values()) > 10
        return
    assert any(released(tmp_path / str(number), kind) for number in range(BOARDS_TRIED)), (
        "ended keys, in the RAM of a board that does not overwrite them"
    )


def released(folder: Path, kind: str) -> dict[str, str]:
    """Ended keys in a board that overwrites nothing, right after they were released."""
    folder.mkdir()
    name = BOARDS[kind]
    with MemoryRig(folder, kind, weak=True) as rig:
        survey = rig.commission()
        assert len(rig.scan(spare=False)[name]) >= 4, "what is in use is seen"
        left: dict[str, str] = {}
        for device in [*survey.modules, survey.pack]:
            rig.run(rig.provisioner().release(device))
            left.update(rig.left_at_once(name))
            for _ in range(3):  # telling what is in use opens the store each time, whose key has ended then
                left.update(rig.scan()[name])
    return left
