"""Looks for keys in the memory of running nodes: an interpreter's process, or the RAM of the virtual Cortex-M4.

    image = unix_image(pid)               every writable page of the process
    image = board_image(pid, elf)         the 4 MB of RAM of the board in this emulator
    found = search(ended_keys, image)

A node is stopped while it is read. A key is looked for in every form arithmetic gives it, see `forms`.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packtrust_host.demo.keysearch import WINDOW, Key, KeySearch

ROOT = Path(__file__).resolve().parents[1]
BOARD_RAM = 4 << 20
_LOADED_AT = 0x100  # of the board's RAM, after the vector table


@dataclass
class Image:
    """Memory by region. No repr of what is in it."""

    regions: dict[str, bytes] = field(repr=False)

    @property
    def size(self) -> int:
        return sum(len(data) for data in self.regions.values())


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """All threads of a process stand still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        until = time.monotonic() + 10
        while not _stands(pid):
            assert time.monotonic() < until, "process %d does not stop" % pid
            time.sleep(0.001)  # of another process; there is nothing to wait on but its state
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _stands(pid: int) -> bool:
    states = []
    for task in Path("/proc/%d/task" % pid).iterdir():
        states.append((task / "stat").read_text().rpartition(")")[2].split()[0])
    return all(state in "Tt" for state in states)


_MAP = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ (\S+) \d+ *(.*)")


def _maps(pid: int) -> Iterator[tuple[int, int, str]]:
    """Writable regions: from, to, name."""
    for line in Path("/proc/%d/maps" % pid).read_text().splitlines():
        match = _MAP.match(line)
        assert match is not None, line
        if "rw" in match[3]:
            yield int(match[1], 16), int(match[2], 16), match[5] or "anonymous"


def unix_image(pid: int) -> Image:
    """Everything a process can write to: heap of the interpreter, C heap, stack, static data."""
    regions = {}
    with stopped(pid), open("/proc/%d/mem" % pid, "rb", 0) as memory:
        for start, end, name in _maps(pid):
            if name in ("[vvar]", "[vsyscall]"):
                continue
            memory.seek(start)
            regions["%s %x" % (name, start)] = memory.read(end - start)
    return Image(regions)


def board_image(pid: int, elf: Path) -> Image:
    """The board's RAM: program, static data, heap, stack. Found in the emulator by the program it starts with."""
    content = elf.read_bytes()
    with stopped(pid), open("/proc/%d/mem" % pid, "rb", 0) as memory:
        for start, end, _ in _maps(pid):
            if end - start < BOARD_RAM:
                continue
            memory.seek(start + _LOADED_AT)
            head = memory.read(256)
            if any(head) and head in content:
                memory.seek(start)
                return Image({"RAM": memory.read(BOARD_RAM)})
    raise AssertionError("the board's RAM is not to be found in process %d" % pid)


def _swapped(value: bytes) -> bytes:
    """Words of 32 bits, as a hash of a little-endian machine has a block in hands."""
    value = value[: len(value) & -4]
    return b"".join(value[at : at + 4][::-1] for at in range(0, len(value), 4))


def forms(key: Key) -> Iterator[Key]:
    """A key as it is, backwards (digits of an integer), in swapped words, and as pads of an HMAC (RFC 2104)."""
    value = key.value
    yield key
    yield Key(value[::-1], key.name + ", reversed")
    yield Key(_swapped(value), key.name + ", words")
    if len(value) <= 64:
        for name, pad in (("inner", 0x36), ("outer", 0x5C)):
            padded = bytes(byte ^ pad for byte in value)
            yield Key(padded, "%s, %s pad" % (key.name, name))
            yield Key(_swapped(padded), "%s, %s pad, words" % (key.name, name))


def windows(values: Iterable[bytes]) -> set[bytes]:
    """Every 8 bytes of them in a row, in every form."""
    found = set()
    for value in values:
        for form in forms(Key(value, "")):
            found.update(form.value[at : at + WINDOW] for at in range(len(form.value) - WINDOW + 1))
    return found


# -- what a node has in use --------------------------------------------------------------------------------------------

# For the tests, in a console.py that takes the place of the firmware's: a command that tells the keys in use, under a
# mask, for a console has a buffer; and one that tells whether what ended keys left still waits to be overwritten.
_COMMANDS = """
        elif text == "live":
            _live(self._node, self._write)
        elif text == "stale":
            self._say("stale " + _busy(self._node))
        elif text == "loaded":
            self._say("loaded no" if self._node._endpoint is None else "loaded yes")
        elif text == "help":
"""
_LIVE = """
from binascii import hexlify


def _busy(node):
    if node.ended_ms is not None:
        return "heap"
    if node.env.store._aead is not None:
        return "store"
    if node._endpoint is not None and node._endpoint.staged:
        return "staged"
    for neighbour in %s:
        if neighbour.channel is not None and neighbour.channel._handshake is not None:
            return "handshake"
    return "no"


def _live(node, write):
    secrets = [node.identity.private, node.identity.claim_code]
    endpoint = node._endpoint  # as it is: a board with little memory has no room to load it for this
    if endpoint is not None:
        secrets.append(endpoint._owner_key)
    for finished in node.finished:
        secrets.append(finished[2])
    for relation in node.relations.values():
        secrets.append(relation.root)
        secrets.append(relation.lct_half)
        if relation.previous is not None:
            secrets.append(relation.previous[1])
    for neighbour in %s:
        channel = neighbour.channel
        if channel is not None:
            for root in channel._roots.values():
                secrets.append(root)
            for session in (channel._session, channel._pending, channel._previous):
                if session is not None:
                    secrets.append(session.state[:32])
                    secrets.append(session.state[32:64])
    group, secret = %s
    if group is not None:
        secrets.append(secret)
        secrets.append(group._material)
    # One by one: a board with little memory has no room for all.
    write("live")
    for secret in secrets:
        if secret:
            write(" " + hexlify(bytes([byte ^ 0xA5 for byte in secret])).decode())
    write("\\n")
"""
_NEIGHBOURS = {
    "pack": "[node.app] + [slot for slot in node.slots.values()]",
    "module": "[] if node._pack is None else [node._pack]",
}
_GROUP = {
    "pack": "(node.broadcast._group, node.broadcast.secret)",
    "module": "(node._group, b'')",
}


def console_overlay(folder: Path, role: str) -> Path:
    """A console.py with the commands `live` and `stale`, for a node of this role."""
    text = (ROOT / "firmware" / "packtrust_node" / "console.py").read_text()
    place = '        elif text == "help":\n'
    assert text.count(place) == 1
    path = folder / ("console_%s.py" % role)
    path.write_text(
        text.replace(place, _COMMANDS.lstrip("\n")) + _LIVE % (_NEIGHBOURS[role], _NEIGHBOURS[role], _GROUP[role])
    )
    return path


# The board's key tap goes through a UART, whose buffer holds what was told: it is told under a mask, as `live` is.
TAP_MASK = 0xA5


def tap_overlay(folder: Path) -> Path:
    """A packtrust_tap.py that masks what it tells."""
    text = (ROOT / "boards" / "cortex-m4" / "packtrust_tap.py").read_text()
    place = "hexlify(secret)"
    assert text.count(place) == 1
    path = folder / "packtrust_tap.py"
    path.write_text(text.replace(place, "hexlify(bytes([byte ^ %d for byte in secret]))" % TAP_MASK))
    return path


def unmasked(value: bytes) -> bytes:
    """What the masked tap was given."""
    return bytes(byte ^ TAP_MASK for byte in value)


def search(keys: Mapping[bytes, str], used: Iterable[bytes], image: Image) -> dict[str, str]:
    """Keys of which there are 8 bytes in the image that are of no key in use: name -> where."""
    allowed = windows(used)
    looked_for = []
    for number, (value, name) in enumerate(keys.items()):
        for form in forms(Key(value, name)):
            for at in range(len(form.value) - WINDOW + 1):
                window = form.value[at : at + WINDOW]
                if window not in allowed:
                    looked_for.append(Key(window, "key %d: %s" % (number, form.name)))
    looking = KeySearch(looked_for)
    found = {}
    for where, data in image.regions.items():
        for name, form in looking.in_bytes(data):
            found["%s (%s)" % (name, form)] = where
    return found
