"""Attack: tags are guessed.

Setting    a keyed pack; a module that is Off.
Means      forged commands under the module's live session, each with another first byte of
           the tag: all 256, twice.
Success    would be one forged record that is opened.
"""

from attack_suite import Attack
from attacker import attacker, opening, unharmed
from packtrust.arbitration import ENCRYPTED, compose
from packtrust.segmentation import Segmenter
from weakening import Weakening

ATTACK = Attack(
    name="guessed tags",
    source="S17",
    defence="the whole tag of 128 bits counts, compared in one piece",
    without="a check sum of eight bits in place of the tag",
    weakening=Weakening(
        (
            "packtrust.crypto.host",
            "            return self._aead.decrypt(nonce, data, aad)",
            "            size = len(data) - 16\n"
            "            text = self._aead.encrypt(nonce, bytes(data[:size]), aad)[:size]\n"
            "            if self._aead.encrypt(nonce, text, aad)[size] != data[size]:\n"
            "                raise _InvalidTag\n"
            "            return text",
        )
    ),
)


def carry_out(bench):
    module = bench.pack.node("module1")
    channel = module._pack.channel
    iv_base = opening(channel).iv_base
    station = attacker(bench, "module")
    segmenter = Segmenter()
    full_id = compose(0x517, module.own_node) | ENCRYPTED
    first = channel._session.highest + 1000
    for guess in range(512):
        tag = bytes((guess & 0xFF,)) * 16
        station.send(*segmenter.split(full_id, iv_base + first.to_bytes(8, "big") + bytes(8) + tag))
        bench.pack.run_for(2)
        if channel._session.highest >= first:
            return "a forged record is opened after %d guesses" % (guess + 1)
    return ""


def test_attack(keyed):
    assert carry_out(keyed) == ""
    unharmed(keyed)


def test_control(weak):
    assert carry_out(weak)
