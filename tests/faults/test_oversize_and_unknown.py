"""Transfers that are too long, of nonsense, or from and to nodes that nobody knows."""

import random

import pytest

from attacker import PACK, attacker, leave, nodes_of, rogue_app, sessions, to_pack, total, transfer, unharmed
from packtrust import provision
from packtrust import testwire as wire
from packtrust.arbitration import ENCRYPTED, compose
from packtrust.frame import Frame
from packtrust.isotp import IsoTpLink
from packtrust_host.app.errors import DeviceRefused, NoAnswer

ROWS = {
    "to the pack": ("vcu", 0x431, 0x432, PACK),
    "to a module": ("module", 0x538, 0x530, 1),
    "to the pack from a module": ("module", 0x530, 0x538, 1),
    "test of the pack": ("vcu", wire.TO_PACK, wire.FROM_PACK, PACK),
    "test of a module": ("module", wire.TO_MODULE, wire.FROM_MODULE, 1),
}


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("where", ROWS)
def test_first_frames_of_long_transfers(keyed, where, sealed):
    """Up to 4095 bytes are announced, and never come, or are refused with an overflow."""
    bus, tx, rx, node = ROWS[where]
    station = attacker(keyed, bus)
    for size in (8, 100, 1024, 2049, 4000, 4095):
        head = compose(tx, node, sealed)
        station.send(Frame(head, bytes((0x10 | size >> 8, size & 255)) + bytes(6)))
        keyed.pack.run_for(50)
    overflows = [f for f in station.heard if f.arbitration_id == compose(rx, node, sealed) and f.data[:1] == b"\x32"]
    if where.startswith("test") and not sealed:
        assert len(overflows) == 3, "more than a request may have is refused at once"
    keyed.pack.run_for(1500)
    unharmed(keyed)


@pytest.mark.parametrize("where", ["to the pack", "to a module"])
def test_long_transfers_of_nonsense(keyed, where):
    """Complete transfers of every length class: refused, counted, and the next message is answered."""
    bus, tx, rx, node = ROWS[where]
    station = attacker(keyed, bus)
    rng = random.Random(where)
    before = sum(total(item, "malformed", "unknown", "target", "no-route", "not-owner") for item in nodes_of(keyed))
    for size in (1, 3, 4, 7, 8, 100, 1000, 4095):
        for head in (b"", bytes((1, provision.PACKAGE, node, 7)), bytes((1, provision.COMMIT, node, 7)), b"\x02\x01"):
            payload = (head + rng.randbytes(size))[: max(size, 1)]
            for frame in transfer(tx, rx, node, payload):
                station.send(frame)
                keyed.pack.run_for(1)
            keyed.pack.run_for(30)
    after = sum(total(item, "malformed", "unknown", "target", "no-route", "not-owner") for item in nodes_of(keyed))
    assert after - before > 20
    leave(keyed)
    unharmed(keyed)


def test_a_sealed_transfer_longer_than_allowed(keyed):
    """The channel takes records of so many bytes by ISO-TP and no more: overflow, no memory."""
    pack = keyed.pack.node("pack")
    channel = pack.app.channel
    station = attacker(keyed, "vcu")
    limit = channel._terms.receive_max
    station.send(Frame(compose(0x431, PACK, True), bytes((0x10 | (limit + 1) >> 8, (limit + 1) & 255)) + bytes(6)))
    keyed.pack.run_for(20)
    assert channel.dropped_transfers == {"oversize": 1}
    assert any(f.data[:1] == b"\x32" for f in station.heard if f.arbitration_id == compose(0x432, PACK, True))
    unharmed(keyed)


def test_every_message_type_with_every_length(keyed):
    """A whole app of a stranger asks everything with nonsense: each is answered REFUSED, or not meant for anybody."""
    rogue = rogue_app(keyed)
    rng = random.Random(8)
    owners = [bytes(node.identity.owner_public) for node in nodes_of(keyed)]
    for kind in (*range(1, 0x12), 0x40, 0x7F, 0xFF):
        for size in (0, 1, 11, 12, 13, 16, 44, 76, 97, 200):
            message = rogue.ask(PACK, kind, rng.randbytes(size))
            if message.kind != provision.REFUSED:
                # What anybody may ask: who are you, whom do you know, prove it (nobody else can check that).
                assert kind in (provision.IDENTIFY, provision.LIST, provision.PROVE, provision.ATTEST), kind
    assert [bytes(node.identity.owner_public) for node in nodes_of(keyed)] == owners
    leave(keyed, "rogue")
    unharmed(keyed)


# -- nodes that nobody knows


def test_messages_for_an_unknown_module(keyed):
    with pytest.raises(DeviceRefused, match=r"no route|not known|no such|no module|unknown"):
        keyed.run(keyed.provisioner().identify(17))
    count = total(keyed.pack.node("pack"), "no-route")
    assert count >= 1
    unharmed(keyed)


def test_a_pack_that_is_not_there(keyed):
    rogue = rogue_app(keyed)
    station = rogue.bench._station
    station.send(*to_pack(provision.IDENTIFY, 0x45, b""))
    link = IsoTpLink(compose(0x431, 0x45), compose(0x432, 0x45))
    link.send(provision.frame_message(provision.IDENTIFY, 0x45, 1, b""), 0)
    station.send(*link.outgoing())
    keyed.pack.run_for(1000)
    assert not [f for f in station.heard if f.arbitration_id == compose(0x432, 0x45)]
    leave(keyed, "rogue")
    unharmed(keyed)


def test_a_module_that_left_is_said_to_be_silent(keyed):
    number = keyed.pack.node("module2").own_node
    keyed.pack.power_off("module2")
    with pytest.raises(NoAnswer, match=r"did not answer IDENTIFY.*Next: check that it is powered"):
        keyed.run(keyed.provisioner().identify(number))
    keyed.pack.power_on("module2")
    unharmed(keyed)


def test_traffic_of_unknown_modules_and_packs(keyed):
    """Records, handshakes and clear messages under every node byte that is nobody's."""
    rng = random.Random(9)
    for bus, strangers, bases in (
        ("module", [3, 17, 31, 32, 0x40, 0x7F, 0x80, 0xFE], (0x500, 0x502, 0x50A, 0x530, 0x531, 0x532)),
        ("vcu", [0, 1, 0x3F, 0x41, 0x4F, 0x50, 0x7F, 0xFF], (0x400, 0x405, 0x431, 0x433, 0x435, 0x437, 0x43A)),
    ):
        station = attacker(keyed, bus)
        for _ in range(20):
            for node in strangers:
                for base in bases:
                    flags = rng.choice((0, 0, ENCRYPTED, ENCRYPTED | rng.randrange(0x10000) & 0xFF00))
                    station.send(Frame(compose(base, node) | flags, rng.randbytes(rng.randrange(9))))
                keyed.pack.run_for(3)
        leave(keyed)
    pack = keyed.pack.node("pack")
    assert len(pack.slots) <= 31
    assert sessions(keyed)
    assert [slot.number for slot in pack.keyed_slots()] == sorted(node.own_node for node in nodes_of(keyed)[1:])
    unharmed(keyed)
