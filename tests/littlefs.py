"""A node's slots on a real littlefs that can lose its power at any operation of the flash below it.

The node itself runs in this process, on the virtual clock; what it writes is done by MicroPython's littlefs
(littlefs_target.py), one operation of `FileSlots` at a time. `Littlefs.sweep` cuts the power at every program, erase
and sync operation of one such operation: before it, half way through it, and after it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
Slots = dict[str, bytes]


class PowerCut(BaseException):
    """The node's power is gone: nothing in it may catch this."""


def micropython() -> str | None:
    """The unix port with littlefs: MICROPYTHON, or the one that set-up made."""
    made = ROOT / "build/micropython/bin/micropython"
    return shutil.which(os.environ.get("MICROPYTHON") or str(made))


@dataclass
class Swept:
    """What a reboot found after the cuts in one operation: (slots, how often, the cuts that led there)."""

    points: int
    outcomes: list[tuple[Slots, int, list[tuple[int, str]]]]


class Littlefs:
    """The MicroPython process. Flash images come in and go out; it keeps none."""

    def __init__(self, interpreter: str) -> None:
        ours, theirs = os.pipe()
        self._answers = open(ours, "rb")  # noqa: SIM115
        self._process = subprocess.Popen(
            [interpreter, "-X", "heapsize=24M", "tests/littlefs_target.py", str(theirs)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs,),
        )
        os.close(theirs)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._answers.close()
        self._process.wait(10)

    def _ask(self, request: dict[str, Any], parts: Iterable[bytes]) -> tuple[dict[str, Any], list[bytes]]:
        sent, received = self._process.stdin, self._answers
        assert sent is not None
        blobs = [bytes(part) for part in parts]
        sent.write(json.dumps(dict(request, sizes=[len(blob) for blob in blobs])).encode() + b"\n" + b"".join(blobs))
        sent.flush()
        line = received.readline()
        assert line, "littlefs_target.py ended: its traceback is above"
        reply = json.loads(line)
        return reply, [received.read(size) for size in reply["sizes"]]

    def format(self, slots: Slots) -> bytes:
        """A new file system with these slots."""
        return self._ask({"do": "format", "names": list(slots)}, slots.values())[1][0]

    def read(self, image: bytes) -> Slots:
        """What a boot finds."""
        reply, blobs = self._ask({"do": "read"}, [image])
        return dict(zip(reply["names"], blobs, strict=True))

    def apply(self, image: bytes, operation: str, name: str, data: bytes) -> tuple[bytes, int]:
        """The image after an operation, and how many blocks it erased."""
        reply, blobs = self._ask({"do": "apply", "operation": operation, "name": name}, [image, data])
        return blobs[0], reply["erased"]

    def cut(self, image: bytes, operation: str, name: str, data: bytes, cut: int, torn: str) -> bytes:
        """The image after the power went in an operation."""
        request = {"do": "cut", "operation": operation, "name": name, "cut": cut, "torn": torn}
        return self._ask(request, [image, data])[1][0]

    def sweep(self, image: bytes, operation: str, name: str, data: bytes) -> Swept:
        """Every cut there is in an operation."""
        reply, blobs = self._ask({"do": "sweep", "operation": operation, "name": name}, [image, data])
        outcomes = []
        for outcome, blob in zip(reply["outcomes"], blobs, strict=True):
            slots: Slots = {}
            at = 0
            for slot, length in zip(outcome["names"], outcome["lengths"], strict=True):
                slots[slot] = blob[at : at + length]
                at += length
            outcomes.append((slots, outcome["count"], [tuple(cut) for cut in outcome["cuts"]]))
        return Swept(reply["points"], outcomes)


@dataclass
class Point:
    """One operation of the slots and what cutting it leads to: the old slots, or the new ones."""

    operation: str
    name: str
    cuts: int
    old: tuple[int, str] | None
    new: tuple[int, str] | None


class LittlefsSlots:
    """`store.FileSlots` on a littlefs image.

    points   if a list: every operation is swept, checked (old or new, nothing else) and noted there
    cut_at   (number of an operation from now on, cut, torn): the power goes there, PowerCut is raised
    """

    def __init__(self, littlefs: Littlefs, files: Slots) -> None:
        self._littlefs = littlefs
        self.image = littlefs.format(files)
        self.files = littlefs.read(self.image)
        assert self.files == files
        self.erased = 0  # blocks
        self.points: list[Point] | None = None
        self.cut_at: tuple[int, int, str] | None = None

    def names(self) -> list[str]:
        return list(self.files)

    def read(self, name: str, lead: int = 0) -> bytes | bytearray | None:
        data = self.files.get(name)
        return bytearray(lead) + data if lead and data is not None else data

    def write(self, name: str, data: bytes) -> None:
        self._operate("write", name, bytes(data))

    def remove(self, name: str) -> None:
        if name in self.files:
            self._operate("remove", name, b"")

    def _operate(self, operation: str, name: str, data: bytes) -> None:
        if self.cut_at is not None:
            number, cut, torn = self.cut_at
            if number == 0:
                self.cut_at = None
                self.image = self._littlefs.cut(self.image, operation, name, data, cut, torn)
                self.files = self._littlefs.read(self.image)
                raise PowerCut
            self.cut_at = (number - 1, cut, torn)
        after = dict(self.files)
        if operation == "write":
            after[name] = data
        else:
            del after[name]
        if self.points is not None:
            self.points.append(self._swept(operation, name, data, after))
        self.image, erased = self._littlefs.apply(self.image, operation, name, data)
        self.erased += erased
        self.files = self._littlefs.read(self.image)
        assert self.files == after

    def _swept(self, operation: str, name: str, data: bytes, after: Slots) -> Point:
        swept = self._littlefs.sweep(self.image, operation, name, data)
        old = new = None
        for slots, _, cuts in swept.outcomes:
            if slots == after:
                new = cuts[0]
            elif self._is_old(slots, operation, name):
                old = cuts[-1]
            else:
                raise AssertionError("%s %s, cut at %s: neither old nor new" % (operation, name, cuts[0]))
        return Point(operation, name, swept.points, old, new)

    def _is_old(self, slots: Slots, operation: str, name: str) -> bool:
        """A file being written may be there already, empty: its slot is torn, and its record's other copy good."""
        if slots == self.files:
            return True
        return operation == "write" and slots == dict(self.files, **{name: b""})
