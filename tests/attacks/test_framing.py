"""Attack: an honest module is made to look like two, or like an enemy.

Setting    a keyed pack at work, modules On.
Means      announcements in its name, forged second answers to every HELLO the pack says to it, its own recorded answers
           and records again, forged tags and own IDs in its name.
Success    would be an honest module that is isolated, keyless, out of its session or Off.
"""

from attack_suite import Attack
from attacker import Attacker, leave, modules_of, obeyed, opening, sessions, slot_of, unharmed
from packtrust.arbitration import ENCRYPTED, compose
from packtrust.frame import Frame
from packtrust.messages import by_name, encode
from packtrust.messages.table import STATE_ON
from packtrust.segmentation import Segmenter
from weakening import Weakening

ATTACK = Attack(
    name="framing",
    source="own",
    defence="only evidence under the module's own keys touches its session; a second answer counts if its MAC is right",
    without="a pack that takes any second answer for a proof of two",
    weakening=Weakening(
        (
            "packtrust.handshake",
            '        if not self._is_proof(payload[25:57], b"reply"):\n            if self.proved:',
            '        if not self.proved and not self._is_proof(payload[25:57], b"reply"):\n            if self.proved:',
        )
    ),
)


class Framer(Attacker):
    """Behind every REPLY of the victim it sends one of its own, and every REPLY there was."""

    number = 0

    def __init__(self, env):
        super().__init__(env)
        self.segmenter = Segmenter()
        self.replies = []

    def on_frame(self, port, frame):
        if (
            not frame.is_extended_id
            or frame.arbitration_id >> 18 != 0x531
            or frame.arbitration_id & 0xFF != self.number
        ):
            return
        self.replies.append(Frame(frame.arbitration_id, bytes(frame.data)))
        if frame.arbitration_id >> 12 & 15 == frame.arbitration_id >> 8 & 15:
            reply = bytes((2, 0, 0, 0, 1)) + bytes(4) + bytes(range(16)) + bytes(32)
            self.send(*self.segmenter.split(compose(0x531, self.number), reply))
            self.send(*self.replies[:-8])
            del self.replies[:-8]


def carry_out(bench):
    slot = slot_of(bench, "module1")
    module = bench.pack.node("module1")
    framer = bench.pack.attach(Framer, "module", "framer")
    framer.number = slot.number
    announcement = encode("ANNOUNCEMENT", firmware_build=1, manufacturer=2, part=3, unique_id=slot.unique_id)
    lie = opening(slot.channel).iv_base
    established = slot.channel.stats["established"]
    segmenter = Segmenter()
    for step in range(120):
        framer.send(Frame(compose(by_name("ANNOUNCEMENT").base, slot.number), bytes(announcement)))
        record = lie + (1000 + step).to_bytes(8, "big") + bytes(24)
        framer.send(*segmenter.split(compose(0x501, slot.number) | ENCRYPTED, record))
        bench.pack.run_for(100)
        if not slot.established:
            return "an honest module is out of its session"
    made = slot.channel.stats["established"] - established
    assert made >= 2, "he was challenged, and answered"
    if made > 5:
        return "%d handshakes in 12 s for a stranger's words" % made
    if module.state != STATE_ON or not module.relations:
        return "an honest module is Off or has lost its keys"
    return "" if sessions(bench) else "an honest module is out of its session"


def test_attack(keyed):
    obeyed(keyed, STATE_ON)
    assert carry_out(keyed) == ""
    assert all(node.state == STATE_ON for node in modules_of(keyed))
    leave(keyed, "framer")
    unharmed(keyed)


def test_control(weak):
    obeyed(weak, STATE_ON)
    assert carry_out(weak)
