"""Attack: a man in the middle of the pair exchange of two devices.

Setting    an owner introduces a module to its pack: packages, pair exchange, proofs, commit; app and both devices are honest.
Means      the cable between pack and module, and the bridge's database: both key halves, LCT half and salt. Not one message of
           the exchange arrives but the attacker's own: he is the module for the pack, and the pack for the module.
Success    would be a root of the pair, at either end, that he has too.
"""

import contextlib

from attack_suite import Attack
from nodebench import MODULE_BUS, App, Bench, Entropy
from packtrust.arbitration import ENCRYPTED
from packtrust.crypto import sha256
from packtrust.handshake import INITIATOR, RESPONDER
from packtrust.keys import Relationship, fingerprint, pair_secret
from packtrust.pairing import PairExchange, is_pairing
from packtrust.segmentation import Reassembler, Segmenter
from rotation_bench import relation_of
from weakening import Weakening

ATTACK = Attack(
    name="man in the middle of a pair",
    source="own; S3",
    defence="both ends' proofs rest on X25519 of their binding keys, which are in the owner's sealed packages",
    without="a pair exchange with the halves and ephemeral keys alone",
    weakening=Weakening(
        (
            "packtrust_node.staging",
            "            dh_static = bytearray(x25519(identity.private, package.peer_public))",
            "            dh_static = bytearray()",
        )
    ),
)
TO_MODULE, TO_PACK = 0x539 << 18 | 1, 0x531 << 18 | 1


class Middle:
    """On the module bus, with what the bridge knows."""

    def __init__(self, bench, app, pack, module):
        half_a, half_b = app.halves("lct-1")
        secret = pair_secret(half_a, half_b, sha256(b"salt 1" + b"lct-1"))
        relationship = Relationship(
            "COMP-A-lct-1",
            "COMP-B-lct-1",
            "lct-1",
            fingerprint(pack.identity.public),
            fingerprint(module.identity.public),
        )
        ends = (RESPONDER, INITIATOR)
        self.as_module, self.as_pack = (
            PairExchange(role, secret, b"", relationship, 1, Entropy("middle %d" % role)(32)) for role in ends
        )
        self._bench = bench
        self._offered = False
        self._reassemblers = {TO_MODULE: Reassembler(), TO_PACK: Reassembler()}
        self._segmenter = Segmenter()

    def spy(self, bus, sender, frame):
        stream = frame.arbitration_id & ~0x1FF00
        reassembler = self._reassemblers.get(stream)
        if bus != MODULE_BUS or sender == "middle" or reassembler is None or frame.arbitration_id & ENCRYPTED:
            return True
        payload = reassembler.feed(frame, self._bench.now_ms)
        if payload is not None:
            self._take(stream, bytes(payload))
        return False

    def _take(self, stream, payload):
        if not is_pairing(payload):
            return
        if stream == TO_MODULE:
            self._say(TO_PACK, self.as_module.feed(payload) or self._believed(payload))
            if not self._offered:
                self._offered = True
                self._say(TO_MODULE, self.as_pack.offer())
        else:
            self._say(TO_MODULE, self.as_pack.feed(payload))

    def _believed(self, payload):
        """An answer to an offer whose proof is not what he makes of it: perhaps it is believed all the same."""
        self.as_module._agree(payload[13:45], self.as_module.public)
        return self.as_module._message(0x12, self.as_module.public + self.as_module._mac(b"answer"))

    def _say(self, stream, payload):
        if payload is not None:
            for frame in self._segmenter.split(stream, payload):
                self._bench.queue.append((MODULE_BUS, "middle", frame))

    def roots(self):
        return [bytes(end.root) for end in (self.as_module, self.as_pack) if end.root is not None]


def owner():
    """(bench, app): the app has claimed the pack, and the module is to come."""
    bench = Bench(1)
    app = App(bench)
    pack = bench.nodes["pack"]
    bench.until(lambda: len(pack.slots) == 1)
    app.claim_pack(pack.claim_code())
    return bench, app


def carry_out(bench, app):
    pack, module = bench.nodes["pack"], bench.nodes["module0"]
    middle = Middle(bench, app, pack, module)
    bench.spy = middle.spy
    with contextlib.suppress(AssertionError):  # no PAIRED within 5 s
        app.introduce(1, module.claim_code())
    bench.spy = None
    assert middle.roots()
    for node in (pack, module):
        for relation in node.relations.values():
            if relation.node == 1 and bytes(relation.root) in middle.roots():
                return "the man in the middle has the pair's root"
    return ""


def test_attack():
    bench, app = owner()
    assert carry_out(bench, app) == ""
    pack, module = bench.nodes["pack"], bench.nodes["module0"]
    assert not module.relations and len(pack.relations) == 1  # that of the app
    bench.run(61_000)
    app.introduce(1)
    bench.until(lambda: pack.slots[1].established, 10_000)
    assert relation_of(pack, 1).root == relation_of(module, 1).root
    bench.sound()


def test_control():
    bench, app = owner()
    with ATTACK.weakening.applied():
        assert carry_out(bench, app)
