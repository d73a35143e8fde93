"""What a flood of forged frames costs a module: the real firmware on the virtual Cortex-M4, counting instructions.

The module's program as it is deployed, with the driver of an STM32F405's controller, runs on a bus that an attacker
keeps full: 8-byte frames at 500 kbit/s, one after the other, all of which its filters must let in. In between its pack
polls it. Time is instructions (QEMU's -icount): CYCLES_PER_INSTRUCTION of a core of so many MHz, an assumption (see
cortex_m4). Not run on hardware.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from packtrust import provision
from packtrust.arbitration import ENCRYPTED, TOGGLE, compose
from packtrust.crypto import x25519_public
from packtrust.frame import Frame
from packtrust.handshake import HELLO, INITIATOR, RESPONDER
from packtrust.keys import SIDE_B
from packtrust.messages import bases
from packtrust.package import SCOPE_ALL
from packtrust.record import VERSION
from packtrust.segmentation import cut
from packtrust_host.image import romfs_image
from packtrust_host.sim import can_bits
from packtrust_host.sim.qemu import TICK_NS
from packtrust_host.sim.rom import rom_files
from packtrust_node import boot_record, identity
from packtrust_node.relation import Relation, record_name
from packtrust_node.store import MemorySlots, Store
from qemu_board import started

from .cortex_m4 import CYCLES_PER_INSTRUCTION

HERE = Path(__file__).resolve().parent
SHIFT = 3  # of -icount: 8 ns an instruction
BITRATE = 500_000
NODE = 5
MHZ = 168
SECONDS = 3.0
COMMAND_MS = 107  # a pack polls each 100 ms; so they meet what the node does each 50 and 100 ms at all its phases

CONFIG = {
    "role": "module",
    "unique_id": 0xBA770001,
    "serial": "MOD-1",
    "profile": "leaf",
    "cells": {"count": 6, "seed": 1, "load_ma": -20000},
}
ROOT = bytes(range(32))
OWNER = b"o" * 32
# Interrupts are flood_pyb's affair: it calls a handler only where one may run.
START = """
import sys
class machine:
    disable_irq = staticmethod(lambda: 1)
    enable_irq = staticmethod(lambda state: None)
sys.modules["machine"] = machine
from packtrust_node.start import build
try:
    build().run()
except SystemExit:
    pass
"""
TIMEOUT_S = 200


@dataclasses.dataclass(frozen=True)
class Flood:
    """Frames an attacker sends again and again.

    frames      (arbitration ID, data)
    in_session  whether the first of each five frames gets the IV of the running session, which can be read off the bus
    """

    name: str
    frames: list[tuple[int, bytes]]
    in_session: bool = False


def _records(count: int = 12, counter: int = 0x10000) -> list[tuple[int, bytes]]:
    """Records of 40 bytes under the IDs of commands that a pack seldom gives, counters ever higher."""
    rows = (bases.DETAIL_REQUEST, bases.LIMITS, bases.BALANCE)
    found = []
    for number in range(count):
        payload = bytes(8) + (counter + number).to_bytes(4, "big") + bytes(28)
        head = compose(rows[number % len(rows)], NODE) | ENCRYPTED | (number // len(rows) % 2) << 16
        found += [(frame.arbitration_id, bytes(frame.data)) for frame in cut(head, payload)]
    return found


def _hellos() -> list[tuple[int, bytes]]:
    """HELLOs that are as they should be, but for who sends them."""
    found = []
    for toggle in (0, TOGGLE):
        hello = struct.pack(">BBBI20s", HELLO, VERSION, INITIATOR, 1, b"")
        frames = cut(compose(bases.HANDSHAKE_TO_MODULE, NODE) | toggle, hello)
        found += [(frame.arbitration_id, bytes(frame.data)) for frame in frames]
    return found


def _packages() -> list[tuple[int, bytes]]:
    """A package that names the module's owner as its sender, in the frames of ISO-TP: to refuse it takes X25519."""
    message = provision.frame_message(provision.PACKAGE, NODE, 1, b"\x02" + x25519_public(OWNER) + bytes(100))
    frames = [bytes((0x10, len(message))) + message[:6]]
    for number, at in enumerate(range(6, len(message), 7), 1):
        frames.append(bytes((0x20 | number & 15,)) + message[at : at + 7])
    return [(compose(bases.ISOTP_TO_MODULE, NODE), frame) for frame in frames]


def floods() -> list[Flood]:
    """What there is to flood a module with, a kind for each way a frame goes through it."""
    to_module = range(0x510, 0x520)
    firsts = [frame for base in to_module for frame in cut(compose(base, NODE) | ENCRYPTED, bytes(range(128)))[:1]]
    return [
        Flood("records of the session, wrong tag", _records(), True),
        Flood("records of no session", _records()),
        Flood("first chunks, never the rest", [(frame.arbitration_id, bytes(frame.data)) for frame in firsts]),
        Flood("commands in clear", [(compose(base, NODE), bytes(8)) for base in to_module]),
        Flood("broadcasts in clear", [(compose(base, 0), bytes(8)) for base in to_module]),
        Flood("sealed broadcasts", [(compose(bases.MAX_STATE, 0) | ENCRYPTED, bytes(8))]),
        Flood("to modules without a number", [(compose(base, 0xFF), bytes(8)) for base in to_module]),
        Flood("handshakes", [(compose(bases.HANDSHAKE_TO_MODULE, NODE), bytes((1,) * 8))]),
        Flood("HELLOs of the epoch", _hellos()),
        Flood("the module's own IDs", [(compose(bases.HANDSHAKE_FROM_MODULE, NODE), bytes(8))]),
        Flood("provisioning", [(compose(bases.ISOTP_TO_MODULE, NODE), b"\x07\x01\x10" + bytes((NODE,)) + bytes(4))]),
        Flood("bogus packages of the owner's", _packages()),
        Flood("sealed transfers", [(compose(bases.ISOTP_TO_MODULE, NODE) | ENCRYPTED, b"\x12\x00" + bytes(6))]),
        Flood("frames of tests", [(compose(bases.TEST_TO_MODULE, NODE), bytes(8))]),
    ]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a flood did.

    frames      that were on the bus, the pack's included
    lost        of these, for which the node had no room;  own_lost  of these, the pack's
    commands    that the pack gave;  delays_ms  of those that were answered, from the last frame to the answer
    gap_ms      the longest that the pack waited for an answer to any, from when it gave the first one unanswered
    heap_grown  bytes of heap less than before
    figures     of the node's console, when it is over
    """

    frames: int
    lost: int
    own_lost: int
    commands: int
    delays_ms: list[float]
    gap_ms: float
    heap_grown: int
    figures: dict[str, Any]


def slot_s(flood: Flood, bitrate: int = BITRATE) -> float:
    """Seconds from one frame of a flood to the next on a full bus, by the bits they have there."""
    bits = [can_bits.encode(Frame(ident, data)).nominal_bits for ident, data in flood.frames]
    return sum(bits) / len(bits) / bitrate


def scene(flood: Flood, mhz: float, seconds: float) -> dict[str, Any]:
    """What flood_board.py needs to know; `mhz` of the core."""
    drawn = iter(range(1 << 30))

    def urandom(count: int) -> bytes:
        return hashlib.shake_256(b"flood %d" % next(drawn)).digest(count)

    owner, pack = x25519_public(OWNER), x25519_public(b"p" * 32)
    ours = identity.make(urandom).owned_by(owner, 1)
    relation = Relation(1, 1, RESPONDER, SIDE_B, NODE, SCOPE_ALL, 0, 0, 0, ROOT, pack, "lct-flood", "COMP-P", "COMP-M")
    relationship = relation.relationship(ours.fingerprint)
    slots = MemorySlots()
    store = Store(slots, urandom, CONFIG["unique_id"])
    store.write(identity.RECORD, ours.encode())
    store.write(boot_record.RECORD, boot_record.encode(1, 1))
    store.write(record_name(relation.tag), relation.encode())
    slot = slot_s(flood)
    ticks_a_second = mhz * 1e6 / CYCLES_PER_INSTRUCTION * (1 << SHIFT) / TICK_NS
    return {
        "config": CONFIG,
        "slots": {name: content.hex() for name, content in slots.files.items()},
        "drawn": 0,
        "node": NODE,
        "root": ROOT.hex(),
        "relationship": [
            relationship.component_a,
            relationship.component_b,
            relationship.lct_id,
            "hex:" + relationship.fingerprint_a.hex(),
            "hex:" + relationship.fingerprint_b.hex(),
        ],
        "forged": [(ident, data.hex()) for ident, data in flood.frames],
        "in_session": flood.in_session,
        "slot_ticks": round(slot * ticks_a_second),
        "every": round(COMMAND_MS / 1000 / slot),
        "commands": int(seconds * 1000 / COMMAND_MS),
        "slots_in_all": round(seconds / slot),
    }


@functools.lru_cache(maxsize=4)
def _program(overlays: tuple[tuple[str, Path], ...]) -> dict[str, bytes]:
    board = {"packtrust_board.py": HERE / "flood_board.py", "pyb.py": HERE / "flood_pyb.py"}
    return rom_files("cortex-m4", "module", board | dict(overlays))


def run(
    flood: Flood,
    mhz: float = MHZ,
    seconds: float = SECONDS,
    overlays: Mapping[str, Path] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Flood a module for so long; `overlays` replace files of its program. QemuError, BoardError."""
    asked = scene(flood, mhz, seconds)
    files = _program(tuple(sorted((overlays or {}).items())))
    image = romfs_image({**files, "scene.json": json.dumps(asked).encode()})
    with started("cryptolib", image, icount=True, shift=SHIFT) as board:
        said = [json.loads(line) for line in board.run(START, TIMEOUT_S, say) if line.startswith("{")]
    found = next(line for line in said if "slots" in line)
    figures = next(line for line in said if "counters" in line)
    tick_ms = 1000 * slot_s(flood) / asked["slot_ticks"]
    return Outcome(
        frames=found["slots"],
        lost=found["lost"],
        own_lost=found["own_lost"],
        commands=asked["commands"],
        delays_ms=[delay * tick_ms for delay in found["delays"]],
        gap_ms=_gap_ms(found["answered"], [delay * tick_ms for delay in found["delays"]], asked["commands"]),
        heap_grown=found["heap_before"] - found["heap_after"],
        figures=figures,
    )


def _gap_ms(answered: list[int], delays_ms: list[float], commands: int) -> float:
    """See Outcome; `answered` are the numbers, from 1, of those that were, with their delays."""
    longest = 0.0
    before = 0
    for number, delay_ms in zip([*answered, commands + 1], [*delays_ms, 0.0], strict=True):
        longest = max(longest, (number - before - 1) * COMMAND_MS + delay_ms)
        before = number
    return longest


HEADINGS = ("kind of frames", "a second", "lost", "polls answered", "after at most", "none for at most", "heap less")


def cells(flood: Flood, outcome: Outcome) -> list[str]:
    """A row of the table."""
    return [
        flood.name,
        "%.0f" % (1 / slot_s(flood)),
        "%.0f %%" % (100 * outcome.lost / outcome.frames),
        "%d of %d" % (len(outcome.delays_ms), outcome.commands),
        "%.0f ms" % max(outcome.delays_ms, default=0),
        "%.0f ms" % outcome.gap_ms,
        "%d" % max(0, outcome.heap_grown),
    ]
