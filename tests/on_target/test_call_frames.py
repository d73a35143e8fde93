"""What is called for each frame of a bus takes no heap for the call itself.

MicroPython keeps the state of a call on the C stack if that is 11 words or less, and else takes a piece of heap for it
(py/objfun.c, VM_MAX_STATE_ON_STACK). On a board whose heap is nearly full it looks through most of that for a piece,
which may take ten times as long as the call. State is arguments, variables, values on the stack, and three words a
`try`; an `except .. as` is two of these.
"""

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNIX_32 = ROOT / "build" / "micropython32" / "bin" / "micropython"
WORDS_ON_STACK = 11

# Module, class or "", functions. What is not compiled to bytecode has its state on the stack anyway.
EACH_FRAME = [
    ("packtrust_node.can_slcan", "SlcanCan", ("recv", "_usual")),
    ("packtrust_node.can_slcan", "", ("_bytes_of",)),
    ("packtrust_node.can_base", "Accept", ("takes",)),
    ("packtrust_node.can_base", "CanPort", ("_let_in", "_complete")),
    (
        "packtrust_node.can_pyb",
        "PybCan",
        ("send", "pending", "recv", "_shape", "_is_empty", "_on_first", "_on_second"),
    ),
    ("packtrust_node.can_machine", "MachineCan", ("recv", "_on_receive")),
    ("packtrust_node.can_mcp2515", "Mcp2515", ("recv", "_decode", "_fill_in", "_short_data")),
    ("packtrust_node.can_mcp2518fd", "Mcp2518fd", ("_decode", "_fill_in")),
    ("packtrust_node.start", "_OnCall", ("on_frame",)),
    ("packtrust_node.loop", "Loop", ("step", "_prepare", "_wait", "_burst")),
    ("packtrust_node.txqueue", "TxQueue", ("put", "put_record", "_append", "_has_room_for", "pump", "__len__")),
    (
        "packtrust_node.txqueue",
        "_Ring",
        ("append", "extend", "_put", "has_room", "frame", "_view_of", "_copy", "id_of", "move", "drop_first"),
    ),
    ("packtrust_node.env", "Clock", ("now_ms",)),
    ("packtrust_node.env", "Env", ("send_record",)),
    ("packtrust_node.post", "Post", ("takes", "admits", "spent", "_is_overdrawn")),
    ("packtrust_node.neighbour", "Neighbour", ("seal",)),
    ("packtrust.messages.compact", "", ("_raw", "_offset", "_insert")),
    ("packtrust_node.node", "Node", ("receive",)),
    ("packtrust_node.module", "ModuleNode", ("receive", "take_frame", "_take_own", "_on_event")),
    ("packtrust_node.pack", "PackNode", ("take_frame", "_on_vcu", "_on_module_bus", "_feed_app")),
    ("packtrust_node.neighbour", "Neighbour", ("feed", "pairing")),
    ("packtrust_node.node", "Node", ("count", "observe")),
    (
        "packtrust_node.module",
        "ModuleNode",
        (
            "_on_clear",
            "_is_meant",
            "_on_broadcast",
            "_on_handshake",
            "_take_handshake",
            "_on_transport",
            "sends",
        ),
    ),
    ("packtrust.channel", "Channel", ("_refuse", "_opener", "_feed_any", "_on_isotp")),
    ("packtrust.isotp", "IsoTpLink", ("feed", "_feed", "_first", "_drop")),
    ("packtrust.channel", "", ("_feed_chunk", "_feed_clear")),
    ("packtrust.segmentation", "Reassembler", ("feed", "take", "_partial", "_reused", "_expects", "_drop")),
    ("packtrust.segmentation", "Partial", ("holds", "put", "is_silent", "reset")),
    ("packtrust.policy", "Policy", ("_find", "flags_of", "_flags_of", "clear_allowed")),
]
# As a control: the call in which an exception is told by name, and a large one.
LARGE = [("packtrust_node.node", "Node", ("on_frame",)), ("packtrust_node.loop", "Loop", ("_receive",))]

# A function object is four words: type, module, children, bytecode; that begins with its signature (py/bc.h).
SCRIPT = """
import json, sys, uctypes
sys.path[:0] = %r
class Board: pass
for name in ("packtrust_board", "pyb", "machine"):
    sys.modules[name] = Board
for name in ("CAN", "disable_irq", "enable_irq"):
    setattr(Board, name, None)

def words(function):
    address = int.from_bytes(uctypes.bytes_at(id(function) + 12, 4), "little")
    code = uctypes.bytes_at(address, 8)
    z = code[0]
    states = z >> 3 & 15
    tries = z >> 2 & 1
    at = 1
    n = 0
    while z & 0x80:
        z = code[at]
        states |= (z & 0x30) << 2 * n
        tries |= (z & 2) << n
        at += 1
        n += 1
    return states + 1 + 3 * tries

out = {}
for module, owner, names in %r:
    __import__(module)
    place = sys.modules[module]
    if owner:
        place = getattr(place, owner)
    for name in names:
        out["%%s.%%s" %% (owner or module, name)] = words(getattr(place, name))
print(json.dumps(out))
"""


def states(functions):
    if not UNIX_32.exists():
        pytest.skip("no MicroPython with 32 bits: run `make firmware`")
    paths = [str(ROOT / "firmware"), str(ROOT / "shared")]
    done = subprocess.run(
        [UNIX_32, "-c", SCRIPT % (paths, functions)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_what_is_called_for_each_frame_has_its_state_on_the_stack():
    found = states(EACH_FRAME)
    assert not {name: words for name, words in found.items() if words > WORDS_ON_STACK}, found


def test_larger_ones_are_seen():
    assert all(words > WORDS_ON_STACK for words in states(LARGE).values())
