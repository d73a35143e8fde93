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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NO_SCRUB = "def free_heap():\n    pass\n"


class MemoryRig(ProcessRig):
    """A pack whose nodes tell what they have in use.

    kind   unix, unix32 (a build with 32-bit words) or cortex-m4
    weak   free memory is not overwritten
    """

    def __init__(self, folder: Path, kind: str, weak: bool) -> None:
        super().__init__(folder, MODULES)
        self.kind = kind
        self.weak = weak
        names = ["pack", *("module%d" % number for number in range(1, MODULES + 1))]
        overlays = {}
        for name in names:
            role = "pack" if name == "pack" else "module"
            overlays[name] = {"packtrust_node/console.py": str(memoryscan.console_overlay(folder, role))}
            if kind == "cortex-m4":
                overlays[name]["packtrust_tap.py"] = str(memoryscan.tap_overlay(folder))
            if weak:
                scrub = folder / "scrub.py"
                scrub.write_text(NO_SCRUB)
                overlays[name]["packtrust_node/scrub.py"] = str(scrub)
        options: dict[str, Any] = {}
        if kind == "unix32":
            options["micropython"] = str(UNIX_32)
        elif kind == "cortex-m4":
            options["boards"] = {"all": "cortex-m4"}
        self.names = names
        self.pack = PackProcess(modules=MODULES, seed=1, tap=True, overlays=overlays, **options)
        self.told: dict[bytes, str] = {}

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

    def scan(self) -> dict[str, dict[str, str]]:
        """Ended keys found in each node's memory: what -> where."""
        if not self.weak:
            self.settle()
        nodes = self.pack.control("describe")["nodes"]
        images = {}
        for name in self.names:
            pid = nodes[name]["pid"]
            if self.kind == "cortex-m4":
                images[name] = memoryscan.board_image(pid, qemu.firmware())
            else:
                images[name] = memoryscan.unix_image(pid)
        live = {name: self.pack.console(name, "live").split()[1:] for name in self.names}
        tapped = {bytes.fromhex(key): owners for key, owners in self.pack.control("keys").items()}
        if self.kind == "cortex-m4":
            tapped = {memoryscan.unmasked(key): owners for key, owners in tapped.items()}
        found = {}
        for name in self.names:
            used = [bytes.fromhex(item) for item in live[name]]
            # The store's key is the first cipher a node makes.
            used.append(next(key for key, owners in tapped.items() if "%s aes" % name in owners))
            keys = dict(self.told)
            for key, owners in tapped.items():
                if len(key) >= 16:
                    keys[key] = ", ".join(owners)
            assert len(keys) > 30 and len(used) > 2
            found[name] = memoryscan.search(keys, used, images[name])
        return found


KINDS = [
    "unix",
    "unix32",
    # Three emulators at once: measures nothing, but wants the machine for itself.
    pytest.param("cortex-m4", marks=pytest.mark.realtime),
]


def rotate(rig: MemoryRig) -> None:
    for lct_id in list(rig.store.relationships):
        rig.run(rig.provisioner().install(lct_id))
    assert rig.wait(lambda: rig.node.established and rig.node.channel.session_epoch == 2, 20)
    # The modules' epochs end with their next answers to a poll.
    until = time.monotonic() + LIMIT_S
    while any(item["epoch"] != 2 for item in sessions(rig)):
        assert time.monotonic() < until, "the modules do not come to epoch 2"
        time.sleep(0.1)


def sessions(rig: MemoryRig) -> list[dict[str, Any]]:
    figures: list[dict[str, Any]] = list(rig.pack.node_statistics()["pack"]["modules"].values())
    return figures


@pytest.mark.parametrize("kind", KINDS)
def test_ended_keys_are_in_no_memory(tmp_path: Path, kind: str) -> None:
    with MemoryRig(tmp_path, kind, weak=False) as rig:
        survey = rig.commission()
        assert rig.scan() == {name: {} for name in rig.names}, "after the claim"
        rotate(rig)
        assert rig.scan() == {name: {} for name in rig.names}, "after the end of an epoch"
        for device in [*survey.modules, survey.pack]:
            rig.run(rig.provisioner().release(device))
        assert rig.scan() == {name: {} for name in rig.names}, "after the release"


@pytest.mark.parametrize("kind", KINDS)
def test_without_overwriting_they_are_found(tmp_path: Path, kind: str) -> None:
    """The control: the same search, the overwriting left out."""
    with MemoryRig(tmp_path, kind, weak=True) as rig:
        rig.commission()
        found = rig.scan()
    assert all(found.values()), "in every node"
    assert sum(len(item) for item in found.values()) > 10
