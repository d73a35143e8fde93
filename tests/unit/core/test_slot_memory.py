"""What each further module costs a pack's RAM: keys, session, cells and all. Only 32 bits can tell, a board's."""

import gc
import sys

from channels import SECRET, STATUS_1, Clock, Entropy, give
from packtrust.channel import MODULE_LINK, Channel
from packtrust.handshake import INITIATOR, RESPONDER
from packtrust.keys import SIDE_A, SIDE_B, fingerprint
from packtrust.messages.compact import encode
from packtrust.workspace import Workspace
from packtrust_node.neighbour import Bus
from packtrust_node.relation import Relation, Terms
from packtrust_node.slots import (
    GOT_COMM,
    GOT_DETAIL,
    GOT_FAULT,
    GOT_HARDWARE,
    GOT_STATUS_1,
    GOT_STATUS_2,
    GOT_STATUS_3,
    Slot,
)
from portable import kept

CELLS = 12
MOST = 448
OWN = fingerprint(b"p" * 32)
SAID = (
    (GOT_STATUS_1, "STATUS_1"),
    (GOT_STATUS_2, "STATUS_2"),
    (GOT_STATUS_3, "STATUS_3"),
    (GOT_COMM, "CELL_COMM_STATUS1"),
    (GOT_FAULT, "FAULT_CODES"),
    (GOT_HARDWARE, "HARDWARE"),
)


def relation_of(number):
    return Relation(
        number,
        3,
        INITIATOR,
        SIDE_A,
        number,
        0,
        0,
        0,
        0xBA770000 + number,
        SECRET,
        bytes((number,)) * 32,
        "lct-%d" % number,
        "COMP-P",
        "COMP-%d" % number,
        bytes(64),
    )


class Store:
    """A flash, which is no RAM: what it holds is made when it is read."""

    def read(self, name):
        for number in range(1, 32):
            relation = relation_of(number)
            if name == "rel-" + "".join(["%02x" % byte for byte in relation.tag]):
                return relation.encode()
        return None


class Env:
    def __init__(self):
        self.now_ms = Clock()
        self.urandom = Entropy(7)
        self.store = Store()
        self.workspace = Workspace(ready=1, streams=2, channels=1)
        self.sent = []

    def fd(self, port):
        return False

    def send(self, port, frame):
        self.sent.append(frame.copy())

    def send_record(self, port, frames):
        for frame in frames:
            self.send(port, frame)


class Modules:
    """What a pack holds of its modules, in the containers it has for them."""

    def __init__(self, env, count):
        self.bus = Bus(env, 1, INITIATOR, MODULE_LINK)
        self.slots = {}
        self.relations = {}
        for number in range(1, count + 1):
            self.add(env, number)
        self.order = [self.slots[number] for number in sorted(self.slots)]
        for slot in self.order:
            slot.put_away()

    def add(self, env, number):
        slot = self.slots[number] = Slot(self.bus, number, 0xBA770000 + number, env.now_ms())
        slot.key(Terms(self.bus, number, relation_of(number).terms()), OWN, 1)
        self.relations[number] = slot
        relationship = slot.full().relationship(OWN)
        module = Channel(
            lambda epoch: (bytearray(SECRET), relationship),
            RESPONDER,
            number,
            env.now_ms,
            Entropy(99),
            side=SIDE_B,
            epoch=3,
        )
        slot.connect()
        for _ in range(3):
            frames, env.sent = env.sent, []
            give(module, frames)
            for frame in kept(module.outgoing()):
                slot.feed(frame)
        for frame in kept(module.seal(STATUS_1 & ~0xFF | number, b"12345678")):
            slot.feed(frame)
        assert slot.established and slot.records == (1, 0)
        assert slot.seal(0x517, b"\x03")
        for got, name in SAID:
            slot.take(got, encode(name))
        for cell in range(CELLS):
            slot.take(GOT_DETAIL, encode("DETAIL", cell_id=cell, cell_mv=3700 + cell, cell_centi_c=2500))
        slot.poll_ms = env.now_ms()
        env.sent = []


def _taken():
    gc.collect()
    gc.collect()
    return gc.mem_alloc()


def test_a_module_more_takes_little_of_a_packs_ram():
    env = Env()
    modules = Modules(env, 2)  # what all have in common is there now
    for slot in modules.order:
        assert slot.established and slot.session_epoch == 3 and slot.records == (1, 1)
        assert slot.cell_count == CELLS and slot.cell_mv(CELLS - 1) == 3700 + CELLS - 1
    assert not modules.bus.whole
    if sys.maxsize != 0x7FFFFFFF or not hasattr(gc, "mem_alloc"):
        return
    figures = []
    for count in (8, 24):
        most = []
        for _ in range(3):
            modules = None
            before = _taken()
            modules = Modules(env, count)
            most.append(_taken() - before)
        figures.append(min(most))  # without what a stack happened to point at
    each = (figures[1] - figures[0]) // 16
    assert 300 < each <= MOST, (each, figures)
