"""The module `packtrust_board` for the measurement of a flood (flood.py): a module that is keyed already, on the bus
of flood_pyb.py, where this file is its pack.

It makes a session with the node, seals the commands of all that follows, and lets the flood begin. When it is over it
asks the console for its figures and prints a line of JSON. /rom/scene.json has what there is to know.
"""

import gc
import io
import json
import sys

from canboard import ticks
from pyb import CAN, COMMAND, COMPLETE, LOST, OWN_LOST, PENDING, SLOT

from packtrust.arbitration import ENCRYPTED, compose
from packtrust.channel import Channel
from packtrust.frame import Frame
from packtrust.handshake import INITIATOR
from packtrust.keys import SIDE_A, Relationship
from packtrust.messages.bases import STATUS_1, STATUS_REQUEST
from packtrust.messages.compact import encode
from packtrust.messages.table import STATE_ON
from packtrust_node.can_pyb import PybCan
from packtrust_node.env import Clock
from packtrust_node.links import module_link
from packtrust_node.store import MemorySlots

with open("/rom/scene.json") as file:
    scene = json.load(file)

gc.collect()
gc.threshold(4000)

_MASK = 0x3FFFFFFF
_POLLIN = 1
# What answers a poll: other records, and refusals of what is forged, may come first.
_ANSWER = compose(STATUS_1 + module_link(scene["config"]).shift, scene["node"], True)
_RECORD_OF_BASE = 0x1FFC0000 | ENCRYPTED | 0xFF


class _Console(io.IOBase):
    """Asks for `stats` once `due`, and takes the answer."""

    def __init__(self):
        self.due = b""
        self.text = None

    def ioctl(self, request, _argument):
        """Whether there is something to read, for poll."""
        return _POLLIN if request == 3 and self.due else 0

    def readinto(self, buffer):
        """A byte."""
        if not self.due:
            return None
        buffer[0] = self.due[0]
        self.due = self.due[1:]
        return 1


console_in = _Console()


def console_write(text):
    """The answer is kept, all else is printed."""
    if text.startswith("log "):
        print(json.dumps({"log": text[4:].strip()}))
    elif console_in.text is not None:
        console_in.text += text


def config():
    """node.json."""
    return scene["config"]


def slots():
    """The store of a module that has an owner and a pack."""
    found = MemorySlots()
    for name, content in scene["slots"].items():
        found.write(name, bytes.fromhex(content))
    return found


def urandom(count):
    """Different bytes each time; nothing here is secret."""
    scene["drawn"] += 1
    return bytes([(scene["drawn"] * 7 + at) & 255 for at in range(count)])


def can_port(_index, accept):
    """The one port."""
    driver = PybCan(1)
    driver.filters(accept)
    _Onlooker(driver)
    return driver


def statistics():
    """Heap, after a collection."""
    gc.collect()
    return {"heap_free": gc.mem_free()}


class _Onlooker:
    """Who looks on when the node asks its driver. That is none of a class of ours: each call would cost a look more."""

    def __init__(self, driver):
        self._poll = driver.poll
        driver.poll = self.poll
        self._bus = CAN.one
        self._bus.on_send = self._on_send
        self._pack = None
        self._heard = []
        self._quiet = 0
        self._flooded = False
        self._slots = scene["slots_in_all"]
        self._delays = []
        self._answered = []
        self._heap = 0

    def poll(self, now_ms):
        """As PybCan.poll: the node comes by before it waits."""
        bus = self._bus
        bus.catch_up()
        if not self._flooded:
            self._be_pack()
        elif bus.marks[SLOT] >= self._slots:
            self._end_flood()
        return self._poll(now_ms)

    def _on_send(self, ident, data):
        marks = self._bus.marks
        if not self._flooded:
            self._heard.append(Frame(ident, bytes(data)))
        elif marks[PENDING] and ident & _RECORD_OF_BASE == _ANSWER:
            marks[PENDING] = 0
            self._delays.append((ticks() - marks[COMPLETE]) & _MASK)
            self._answered.append(marks[COMMAND])

    def _be_pack(self):
        """Before the flood: the pack's end of the session."""
        pack = self._pack
        if pack is None:
            link = module_link(scene["config"])
            relationship = Relationship(*[_decoded(part) for part in scene["relationship"]])
            pack = self._pack = Channel(
                bytes.fromhex(scene["root"]),
                INITIATOR,
                scene["node"],
                Clock().now_ms,
                urandom,
                relationship=relationship,
                side=SIDE_A,
                epoch=1,
                policy=link.policy,
                link=link,
            )
            pack.connect()
        if self._bus.marks[0]:
            return
        heard = self._heard
        self._heard = []
        for frame in heard:
            pack.feed(frame)
        frames = [(frame.arbitration_id, bytes(frame.data)) for frame in pack.outgoing()]
        if frames:
            self._bus.schedule(frames, scene["slot_ticks"])
        self._quiet = 0 if heard or frames else self._quiet + 1
        if pack.established and self._quiet > 200:
            self._begin_flood(pack)

    def _begin_flood(self, pack):
        frames = [(ident, bytes.fromhex(data)) for ident, data in scene["forged"]]
        # What an attacker reads off the bus: who sent in this session, in clear.
        data = encode("STATUS_REQUEST", max_state=STATE_ON, limp=0, beat=0)
        chunks = 0
        for _ in range(scene["commands"]):
            sealed = pack.seal(compose(STATUS_REQUEST, scene["node"]), data)
            chunks = len(sealed)
            for frame in sealed:
                frames.append((frame.arbitration_id, bytes(frame.data)))
        if scene["in_session"]:
            prefix = frames[-chunks][1]
            forged = len(scene["forged"])
            for at in range(0, forged, 5):
                frames[at] = (frames[at][0], prefix)
        pack.close()
        self._pack = pack = None
        gc.collect()
        self._heap = gc.mem_free()
        self._flooded = True
        print(json.dumps({"log": "the flood begins"}))
        self._bus.schedule(frames, scene["slot_ticks"], len(scene["forged"]), scene["every"], chunks)

    def _end_flood(self):
        marks = self._bus.marks
        if marks[0]:
            gc.collect()
            print(
                json.dumps(
                    {
                        "slots": marks[SLOT],
                        "lost": marks[LOST],
                        "own_lost": marks[OWN_LOST],
                        "delays": self._delays,
                        "answered": self._answered,
                        "heap_before": self._heap,
                        "heap_after": gc.mem_free(),
                    }
                )
            )
            marks[0] = 0
            console_in.text = ""
            console_in.due = b"stats\n"
        elif console_in.text.endswith("\n"):
            print(console_in.text.replace("stats ", "", 1))
            sys.exit()


def _decoded(part):
    return bytes.fromhex(part[4:]) if part.startswith("hex:") else part
