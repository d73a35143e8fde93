"""Any frames at whole nodes, a pack and a module without keys: nothing raises, no node meets an error of its own."""

from fuzz.source import Source, lay
from nodebench import MODULE_BUS, VCU_BUS, Bench
from packtrust import provision
from packtrust.frame import Frame
from packtrust.isotp import IsoTpLink

COVERS = (
    "packtrust_node.pack:PackNode.take_frame",
    "packtrust_node.pack:PackNode._on_standard",
    "packtrust_node.pack:PackNode._on_message",
    "packtrust_node.pack:PackNode._relay_back",
    "packtrust_node.mailbox:Mailbox",
)
HEAP_MAX = 400000  # two nodes and the bench
SECONDS = 60

_PACK = 0x40


def _run(*steps):
    """(bus, frame) each."""
    return b"\x00" + b"".join([bytes((bus,)) + lay(frame) for bus, frame in steps])


def _transfer(bus, tx_id, rx_id, payload):
    """A message by ISO-TP, with the flow control that lets all of it go."""
    link = IsoTpLink(tx_id, rx_id)
    link.send(payload, 0)
    frames = link.outgoing()
    link.feed(Frame(rx_id, b"\x30\x00\x00"), 0)
    return [(bus, frame) for frame in frames + link.outgoing()]


def seeds():
    to_pack, from_pack = 0x431 << 18 | _PACK, 0x432 << 18 | _PACK
    to_module, from_module = 0x538 << 18 | 1, 0x530 << 18 | 1
    announce = (MODULE_BUS, Frame(0x500 << 18 | 0xFF, b"\x56\x20\x02\x03\x99\x00\x77\xba"))
    yield _run(announce, announce)
    for kind in range(1, 32):
        for target in (_PACK, 1, 9):
            body = bytes(range(40 if kind & 1 else 16))
            yield _run(
                announce, *_transfer(VCU_BUS, to_pack, from_pack, provision.frame_message(kind, target, kind, body))
            )
    yield _run(*_transfer(VCU_BUS, to_pack, from_pack, b"\x07\x01"))
    for payload in (
        provision.frame_message(provision.IDENTITY, 1, 1, bytes(90)),
        b"\x09\x09",
        provision.frame_message(2, 9, 1),
    ):
        yield _run(announce, *_transfer(MODULE_BUS, from_module, to_module, payload))
        yield _run(announce, *_transfer(MODULE_BUS, to_module, from_module, payload))
    for base in (0x400, 0x401, 0x402, 0x404, 0x405, 0x406, 0x410, 0x430, 0x431, 0x433, 0x435, 0x437, 0x43E):
        yield _run(
            (VCU_BUS, Frame(base, bytes(8), False)),
            (VCU_BUS, Frame(base << 18 | _PACK, bytes(8))),
            (VCU_BUS, Frame(base << 18 | 1 << 17 | _PACK, bytes(8))),
        )
    for base in (0x500, 0x502, 0x510, 0x512, 0x514, 0x517, 0x51D, 0x51E, 0x51F, 0x530, 0x531, 0x538, 0x539, 0x53A):
        for node in (0, 1, 0xFF):
            yield _run(
                announce,
                (MODULE_BUS, Frame(base << 18 | node, bytes(8))),
                (MODULE_BUS, Frame(base << 18 | 1 << 17 | node, bytes(8))),
                (MODULE_BUS, Frame(base, bytes(8), False)),
            )
    # More questions than answers are taken.
    asked = _transfer(VCU_BUS, to_pack, from_pack, provision.frame_message(provision.IDENTIFY, _PACK, 1))
    yield _run(*(asked * 12))
    yield b"\x20" + _run(*(asked * 12))[1:]
    for head in (b"\x10", b"\x11"):
        for base in (0x400, 0x401, 0x402, 0x404, 0x405, 0x406, 0x410):
            yield head + _run((VCU_BUS, Frame(base + (head[0] & 15) * 256, bytes(8), False)))[1:]
    yield b"\x09" + _run((VCU_BUS, Frame(0x400, bytes(8), False)), (VCU_BUS, Frame(0x410, bytes(8), False)))[1:]
    yield _run(
        (VCU_BUS, Frame(to_pack, bytes(20), True, True)), (VCU_BUS, Frame(to_pack | 1 << 17, bytes(20), True, True))
    )


def take(data):
    source = Source(data)
    head = source.number()
    bench = Bench(1, {"pack": head & 15, "policy": "legacy-vcu" if head & 16 else "default"})
    if head & 32:
        bench.room = 4  # the queues stay nearly full
    bench.run(60)
    while source.left:
        head = source.number()
        bench.inject(head & 1, source.frame())
        if head & 0xE0:
            bench.run(head >> 4)
    bench.run(30)
    bench.sound()
    for node in bench.nodes.values():
        assert not node.identity.claimed
        assert len(node.counters) < 40
