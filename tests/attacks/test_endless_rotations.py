"""Attack: new epochs without end, or none at all for the others.

Setting    keyed pairs of a pack and two modules, no app there; the epoch of one is nearly used up to where it is replaced.
Means      a station on the module bus: forged and played back records, handshakes, announcements, as many as it likes. Then
           module 1, taken over, with its own keys: to every proposal it answers that it has a later epoch by now, or nothing.
Success    would be a rotation that frames of a stranger bring about: flash worn out, keys made for nothing. Or module 2's
           epoch not replaced in time, because the pack has its hands full with module 1.
"""

import pytest

from attack_suite import Attack
from nodebench import MODULE_BUS
from packtrust import rotation
from packtrust.arbitration import ENCRYPTED, base_of, compose
from packtrust.channel import OPENED
from packtrust.frame import Frame
from packtrust.messages.bases import ROTATION_FROM_MODULE, ROTATION_TO_MODULE
from packtrust.segmentation import Segmenter
from rotation_bench import alone, epochs, relation_of, settled, use
from weakening import Weakening

ATTACK = Attack(
    name="endless rotations",
    source="own",
    defence="only records that were opened or sealed use an epoch up; a rotation ends after 10 s, and the next pair has its turn",
    without="refused records count too; the first pair that is due is always the next, for as long as it likes",
    weakening=Weakening(
        (
            "packtrust_node.usage",
            "            count = opened + sealed\n",
            "            count = sum(neighbour.stats.values())\n",
        ),
        ("packtrust_node.endpoint", "            self._turn = relation.node\n", ""),
        ("packtrust_node.rotation", "    following._since_ms = ours._since_ms\n", ""),
    ),
)
MARGIN = 1500  # records left until an epoch is due


def strangers(bench, pack):
    """Frames of every kind, until honest traffic alone would have used a third of what is left."""
    relation = use(pack, 1, 6)
    usage = pack.usage
    usage._figures[usage._at(relation)] -= MARGIN
    recorded = [frame.copy() for _, bus, _, frame in bench.log if bus == MODULE_BUS]
    node = pack.slots[1]
    iv_base = bytes(node.channel._session.state[68:72])
    segmenter = Segmenter()
    for number in range(1200):
        record = iv_base + (1 << 40 | number).to_bytes(8, "big") + bytes(24)
        for base in (0x502, ROTATION_FROM_MODULE):
            for frame in segmenter.split(compose(base, 1) | ENCRYPTED, record):
                bench.inject(MODULE_BUS, frame)
        bench.inject(MODULE_BUS, recorded[number % len(recorded)])
        bench.inject(MODULE_BUS, Frame(compose(0x500, 1), bytes(8)))
        bench.run(5)
    assert sum(count for reason, count in node.channel.stats.items() if reason in ("tag", "replay")) > 1000
    rotations = pack.counters.get("rotations", 0)
    return "frames of a stranger bring a rotation about" if rotations or epochs(bench) != (1, 1) else ""


def captured(answer):
    """Module 1 answers proposals as `answer(epoch)` says."""

    def carry_out(bench, pack):
        one = next(node for node in bench.nodes.values() if node.own_node == 1)

        observe = one.observe

        def his(neighbour, event):
            if event.kind != OPENED or base_of(event.arbitration_id) != ROTATION_TO_MODULE:
                return observe(neighbour, event)
            proposed = rotation.parse_propose(bytes(event.data))
            message = None if proposed is None else answer(proposed[0])
            if message is not None:
                neighbour.seal(ROTATION_FROM_MODULE, message)
            return False

        one.observe = his
        use(pack, 1, 7)
        use(pack, 2, 7)
        for _ in range(900):
            bench.run(100)
            if settled(bench, 2, 2):
                return ""
        assert relation_of(pack, 1).epoch == 1
        return "module 2 gets no new epoch in 90 s, for module 1 keeps the pack busy"

    return carry_out


WAYS = {
    "strangers": strangers,
    "a later epoch each time": captured(lambda epoch: rotation.behind(epoch)),
    "no answer": captured(lambda epoch: None),
}


@pytest.mark.parametrize("way", WAYS)
def test_attack(way):
    bench, pack, _ = alone(2)
    assert WAYS[way](bench, pack) == ""
    bench.sound()


@pytest.mark.parametrize("way", WAYS)
def test_control(weakness, way):
    bench, pack, _ = alone(2)
    assert WAYS[way](bench, pack)
