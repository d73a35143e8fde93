"""Runs on the virtual Cortex-M4: what a node writes in its life, on the board's littlefs, cut off at an operation.

`report` says what the last power cut has left, and what a node makes of it. `session` carries out an operation of the
life in /rom/life.json; at a flash operation in it it says so and waits until the host takes the power away.
"""

import json
import os
from binascii import hexlify, unhexlify

import canboard
import vfs

import nodebench
from packtrust.crypto import sha256
from packtrust_node.cells import EcmCells
from packtrust_node.module import ModuleNode
from packtrust_node.pack import PackNode
from packtrust_node.store import FileSlots, MemorySlots, Store

FOLDER = "/flash/state"


class CutFlash:
    """The board's flash, all of whose operations are counted, and where time stops at one of them."""

    def __init__(self):
        self._flash = canboard.Flash()
        self.cut = -1
        self.torn = "before"
        self.operations = 0

    def _turn(self):
        self.operations += 1
        return self.operations - 1 == self.cut

    def _stop(self):
        print("CUT")
        while True:
            pass

    def readblocks(self, block, buffer, offset=0):
        self._flash.readblocks(block, buffer, offset)
        return 0

    def writeblocks(self, block, buffer, offset=0):
        now = self._turn()
        if now and self.torn == "before":
            self._stop()
        data = memoryview(buffer)[: len(buffer) // 2] if now and self.torn == "half" else buffer
        self._flash.writeblocks(block, data, offset)
        if now:
            self._stop()
        return 0

    def ioctl(self, operation, argument):
        if operation not in (3, 6):
            return self._flash.ioctl(operation, argument)
        now = self._turn()
        if now and self.torn == "before":
            self._stop()
        if now and self.torn == "half" and operation == 6:
            size = self._flash.ioctl(5, 0)
            self._flash.writeblocks(argument, b"\xff" * (size // 2), size // 2)
        else:
            self._flash.ioctl(operation, argument)
        if now:
            self._stop()
        return 0


class Wires:
    """What a node's environment asks of a bench."""

    now_ms = 1000
    queue = []


def booted(life, files):
    """What a node finds that starts with these slots (a copy of them)."""
    slots = MemorySlots()
    slots.files = dict(files)
    config = life["config"]
    env = nodebench.Env(Wires(), "node", (0, 1) if config["role"] == "pack" else (1,), slots, nodebench.Entropy("x"))
    env.store = Store(slots, env.urandom, config["unique_id"])
    node = PackNode(env, config) if config["role"] == "pack" else ModuleNode(env, config, EcmCells(config["cells"]))
    node.start()
    return {
        "identity": node.identity is not None,
        "claimed": node.identity is not None and node.identity.claimed,
        "boot_counter": node.boot_counter,
        "epochs": sorted([relation.epoch for relation in node.relations.values()]),
        "evidence": [what for what in node.counters if what.startswith("store-")],
    }


def contents(slots):
    return {name: slots.read(name) for name in slots.names()}


LIFE = []


def life():
    if not LIFE:
        with open("/rom/life.json") as file:
            LIFE.append(json.load(file))
    return LIFE[0]


def report():
    """What a reboot finds, and what a node makes of it. The file system is left alone afterwards."""
    files = contents(FileSlots(FOLDER))
    found = {name: hexlify(sha256(raw)[:8]).decode() for name, raw in files.items()}
    print(json.dumps({"slots": found, "node": booted(life(), files)}))
    leave()


def leave():
    os.chdir("/")
    vfs.umount("/flash")


def session(number, cut, torn):
    """Carry out an operation up to a flash operation in it."""
    flash = CutFlash()
    vfs.mount(vfs.VfsLfs2(flash), "/flash")
    slots = FileSlots(FOLDER)
    flash.operations = 0
    flash.cut = cut
    flash.torn = torn
    play(slots, number)
    flash.cut = -1
    print(json.dumps({"operations": flash.operations}))
    leave()


def play(slots, number):
    operation, name, raw = life()["operations"][number]
    if operation == "write":
        slots.write(name, unhexlify(raw))
    else:
        slots.remove(name)


def fresh():
    """A new file system."""
    leave()
    vfs.VfsLfs2.mkfs(canboard.Flash())
