"""Attack: who stole an epoch's root makes the next epoch.

Setting    a keyed pair of pack and module; the root of its epoch and the keys of its session are in the attacker's hands.
Means      the pack's place in the cable: its frames are destroyed, and the attacker proposes an epoch to the module, under
           the pack's own session, with an ephemeral key of his own; binding keys he has not got.
Success    would be a module that takes up his epoch: one stolen root would then be the root of all roots.
"""

from attack_suite import Attack
from attacker import opening, sealing
from nodebench import MODULE_BUS, Entropy
from packtrust import rotation
from packtrust.arbitration import ENCRYPTED, compose
from packtrust.handshake import INITIATOR
from packtrust.pairing import CONFIRM, PairExchange
from packtrust.segmentation import Reassembler, Segmenter
from rotation_bench import alone, relation_of, settled, use
from weakening import Weakening

ATTACK = Attack(
    name="rotation with a stolen root",
    source="own",
    defence="the proofs of a new epoch rest on X25519 of the binding keys too, not on the old root alone",
    without="a new epoch that follows from the old root and the ephemeral keys alone",
    weakening=Weakening(
        (
            "packtrust_node.rotation",
            "            self._dh_static = bytearray(x25519(node.identity.private, whole.peer_public))",
            "            self._dh_static = bytearray(32)",
        )
    ),
)
PROPOSES, ANSWERS = compose(0x51C, 1) | ENCRYPTED, compose(0x50C, 1) | ENCRYPTED


class Thief:
    """Speaks to module 1 under the pack's session."""

    def __init__(self, bench, pack, module):
        channel = pack.slots[1].channel
        self._bench = bench
        self._module = module
        self._seals, self._opens = sealing(channel), opening(channel)
        self._counter = channel._session.sealed + 20
        self._reassembler = Reassembler()
        self.heard = []

    def say(self, message):
        # What the module has sealed last anybody can see: its counters are in clear.
        cited = self._module.neighbour(1).channel._session.sealed
        self._counter += 1
        record = self._seals.seal(PROPOSES, self._counter, cited.to_bytes(4, "big") + message)
        for frame in Segmenter().split(PROPOSES, record):
            self._bench.inject(MODULE_BUS, frame, "thief")

    def spy(self, bus, sender, frame):
        if bus == MODULE_BUS and sender == "pack":
            return False
        if bus == MODULE_BUS and frame.arbitration_id & ~0x1FF00 == ANSWERS:
            record = self._reassembler.feed(frame, self._bench.now_ms)
            if record is not None:
                self.heard.append(bytes(self._opens.open(ANSWERS, bytes(record))))
        return True


def carry_out():
    bench, pack, module = alone()
    kept = relation_of(module, 1)
    relationship = kept.relationship(module.identity.fingerprint)
    salt = b"s" * 32
    secret = rotation.next_secret(bytes(kept.root), relationship, 1, salt)
    his = PairExchange(INITIATOR, secret, bytes(32), relationship, 2, Entropy("thief")(32))
    thief = Thief(bench, pack, module)
    bench.spy = thief.spy
    thief.say(rotation.propose(2, salt, his.public))
    bench.until(lambda: thief.heard, 3000)
    confirm = his.feed(thief.heard[0])
    if confirm is None:
        # Its proof is not what he makes of it: he goes on as if it were.
        his._agree(his.public, thief.heard[0][13:45])
        confirm = his._message(CONFIRM, his._mac(b"initiator"))
    thief.say(confirm)
    bench.run(500)
    taken = relation_of(module, 1).epoch == 2
    assert not taken or bytes(relation_of(module, 1).root) == bytes(his.root)
    bench.spy = None
    return ("the module's root is the thief's" if taken else ""), bench, pack


def test_attack():
    done, bench, pack = carry_out()
    assert done == ""
    # Pack and module make their own epoch, and what he holds is worth nothing.
    use(pack, 1, 6)
    bench.until(lambda: settled(bench, 2), 60_000)
    bench.sound()


def test_control(weakness):
    assert carry_out()[0]
