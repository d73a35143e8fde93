"""Attack: messages of a rotation that neither end has sent.

Setting    a keyed pair of pack and module that makes a new epoch by itself.
Means      a station on the module bus: PROPOSE, ANSWER, CONFIRM, AGREED and BEHIND, of this epoch and of later ones, in clear
           and as records of the live session under tags of his own making, before the rotation, while it goes on, and after.
Success    would be a rotation that does not come about, two ends that do not agree, or an epoch other than the next: whoever
           moves the number on uses the epochs up.
"""

from attack_suite import Attack
from nodebench import MODULE_BUS
from packtrust import rotation
from packtrust.arbitration import ENCRYPTED, compose
from packtrust.messages.bases import ROTATION_FROM_MODULE, ROTATION_TO_MODULE
from packtrust.pairing import AGREED, ANSWER, CONFIRM
from packtrust.segmentation import Segmenter
from rotation_bench import alone, epochs, relation_of, settled, use
from weakening import Weakening

ATTACK = Attack(
    name="forged rotation",
    source="own",
    defence="messages of a rotation count out of records of the pair's session alone",
    without="a pack that takes them in clear too",
    weakening=Weakening(
        (
            "packtrust_node.pack",
            "            if base == MODULE_LINK.handshake[1]:\n",
            "            if base == 0x50C and not arbitration_id & ENCRYPTED:\n"
            "                clear = slot.channel._shared.event\n"
            "                clear.data = bytes(frame.data)\n"
            "                clear.epoch = slot.channel.session_epoch\n"
            "                self.endpoint.on_rotation(slot, base, clear)\n"
            "            if base == MODULE_LINK.handshake[1]:\n",
        )
    ),
)


def messages(tag, number):
    """(base, message) of each kind; the pair's tag and epoch are no secrets."""
    for epoch in (2, 3, 2 + number % 900):
        head = tag + epoch.to_bytes(4, "big")
        filling = bytes((number & 0xFF,)) * 32
        yield ROTATION_FROM_MODULE, rotation.behind(epoch)
        yield ROTATION_TO_MODULE, rotation.propose(epoch, filling, filling)
        yield ROTATION_FROM_MODULE, bytes((ANSWER,)) + head + filling + filling
        yield ROTATION_TO_MODULE, bytes((CONFIRM,)) + head + filling
        yield ROTATION_FROM_MODULE, bytes((AGREED,)) + head + filling


def carry_out():
    bench, pack, module = alone()
    tag = bytes(relation_of(pack, 1).tag)
    segmenter = Segmenter()
    number = 0

    def flood():
        nonlocal number
        number += 1
        ivs = {}
        for base, channel in (
            (ROTATION_FROM_MODULE, pack.slots[1].channel),
            (ROTATION_TO_MODULE, module.neighbour(1).channel),
        ):
            ivs[base] = b"" if channel._session is None else bytes(channel._session.state[68:72])
        for base, message in messages(tag, number):
            for frame in segmenter.split(compose(base, 1), message):
                bench.inject(MODULE_BUS, frame)
            if ivs[base]:
                record = ivs[base] + (1 << 40 | number).to_bytes(8, "big") + message[:60] + bytes(16)
                for frame in segmenter.split(compose(base, 1) | ENCRYPTED, record):
                    bench.inject(MODULE_BUS, frame)
        bench.run(20)

    for _ in range(5):
        flood()
    use(pack, 1, 6)
    for _ in range(150):
        flood()
    bench.run(1500)
    if epochs(bench) == (2, 2) and settled(bench, 2):
        bench.sound()
        return ""
    return "epochs are %d and %d after a forged rotation" % epochs(bench)


def test_attack():
    assert carry_out() == ""


def test_control(weakness):
    assert carry_out()
