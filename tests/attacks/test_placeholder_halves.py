"""Attack: the bridge hands out keys that everybody knows.

Setting    a new pack is registered and provisioned.
Means      the bridge's answers: constant placeholders, both halves the same, halves of one byte repeated.
Success    would be a pack that works with such keys, or an owner's app that hands them on.
"""

import pytest

from attack_suite import Attack
from attacker import nodes_of, sessions
from packtrust.errors import KeyFormatError, PacktrustError
from packtrust.keys import decode_half
from weakening import Weakening

ATTACK = Attack(
    name="placeholder halves",
    source="S5",
    defence="halves are checked by the app and by each device: length, hex, placeholders, equal halves",
    without="halves of any content",
    weakening=Weakening(
        ("packtrust.keys", "    if bytes(half_a) == bytes(half_b):", "    if False:"),
        ("packtrust.keys", "    if len(set(half)) < 4:", "    if False:"),
    ),
)


def carry_out(bench, half):
    def register(survey):
        bench.register(survey)
        with bench.store.transaction() as state:
            for record in state.relationships.values():
                record.half_a = bytearray(half)
                record.half_b = bytearray(half)

    bench.claim()
    try:
        bench.run(bench.provisioner().commission(register, expected_modules=2))
    except PacktrustError:
        return ""
    bench.pack.run_for(5000)
    return "the pack works with a key everybody knows" if sessions(bench) else ""


def test_attack(fresh):
    assert carry_out(fresh, bytes(range(64))) == ""
    assert not any(node.relations for node in nodes_of(fresh))


def test_control(weak_fresh):
    assert carry_out(weak_fresh, bytes(range(64)))


@pytest.mark.parametrize(
    "text", ["generated_device_key_half_of_lct_1", "00" * 64, "ab" * 64, "ab" * 32, "", "zz" * 64, "12" * 63]
)
def test_texts_that_are_no_keys(text):
    with pytest.raises(KeyFormatError):
        decode_half(text)


def test_control_repeated_bytes_pass_a_weakened_check():
    with ATTACK.weakening.applied():
        assert decode_half("ab" * 64) == b"\xab" * 64
