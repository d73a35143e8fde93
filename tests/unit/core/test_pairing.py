"""The pair exchange: both ends reach one root, nobody else does, and nothing unproved is believed."""

from packtrust.crypto import x25519, x25519_public
from packtrust.errors import CryptoError
from packtrust.handshake import INITIATOR, RESPONDER
from packtrust.keys import Relationship, fingerprint, pair_secret
from packtrust.pairing import PairExchange, epoch_of, is_pairing, tag_of
from portable import raises

PRIVATE_A = bytes(range(1, 33))
PRIVATE_B = bytes(range(33, 65))
SECRET = pair_secret(bytes(range(64)), bytes(range(64, 128)), bytes(32))
RELATIONSHIP = Relationship(
    "COMP-a", "COMP-b", "lct-1", fingerprint(x25519_public(PRIVATE_A)), fingerprint(x25519_public(PRIVATE_B))
)
STATIC = x25519(PRIVATE_A, x25519_public(PRIVATE_B))


def pair(secret_b=SECRET, static_b=STATIC, epoch_b=1):
    return (
        PairExchange(INITIATOR, SECRET, STATIC, RELATIONSHIP, 1, b"\x11" * 32),
        PairExchange(RESPONDER, secret_b, static_b, RELATIONSHIP, epoch_b, b"\x22" * 32),
    )


def test_both_reach_one_root_and_know_it():
    a, b = pair()
    answer = b.feed(a.offer())
    assert not b.agreed
    confirm = a.feed(answer)
    assert not a.agreed
    agreed = b.feed(confirm)
    assert b.agreed
    assert a.feed(agreed) is None
    assert a.agreed
    assert bytes(a.root) == bytes(b.root)
    for payload in (a.offer(), answer, confirm, agreed):
        assert is_pairing(payload) and len(payload) <= 128
        assert tag_of(payload) == RELATIONSHIP.tag and epoch_of(payload) == 1


def test_messages_lost_or_repeated_do_no_harm():
    a, b = pair()
    offer = a.offer()
    answer = b.feed(offer)
    assert b.feed(offer) == answer
    confirm = a.feed(answer)
    assert a.feed(answer) == confirm
    agreed = b.feed(confirm)
    assert b.feed(confirm) == agreed
    a.feed(agreed)
    assert a.agreed and b.agreed


def test_who_lacks_a_secret_gets_nowhere():
    wrong = pair_secret(bytes(range(64)), bytes(range(65, 129)), bytes(32))
    for options in ({"secret_b": wrong}, {"static_b": bytes(31) + b"\x01"}, {"epoch_b": 2}):
        a, b = pair(**options)
        assert b.feed(a.offer()) is None
        assert b.root is None and not b.agreed


def test_a_changed_message_is_ignored():
    a, b = pair()
    offer = a.offer()
    for at in range(len(offer)):
        bad = bytearray(offer)
        bad[at] ^= 1
        assert b.feed(bad) is None, at
    answer = b.feed(offer)
    for at in range(len(answer)):
        bad = bytearray(answer)
        bad[at] ^= 1
        assert a.feed(bad) is None, at
    assert a.root is None
    confirm = bytearray(a.feed(answer))
    confirm[-1] ^= 1
    assert b.feed(confirm) is None
    assert not b.agreed


def test_a_second_initiator_key_does_not_replace_the_first():
    a, b = pair()
    b.feed(a.offer())
    other = PairExchange(INITIATOR, SECRET, STATIC, RELATIONSHIP, 1, b"\x33" * 32)
    assert b.feed(other.offer()) is None


def test_a_fresh_exchange_has_a_fresh_root():
    a, b = pair()
    a.feed(b.feed(a.offer()))
    c = PairExchange(INITIATOR, SECRET, STATIC, RELATIONSHIP, 1, b"\x44" * 32)
    d = PairExchange(RESPONDER, SECRET, STATIC, RELATIONSHIP, 1, b"\x55" * 32)
    c.feed(d.feed(c.offer()))
    assert bytes(a.root) != bytes(c.root)


def test_ephemeral_keys_are_wiped_once_the_root_is_known():
    a, b = pair()
    a.feed(b.feed(a.offer()))
    assert not any(a._ephemeral) and not any(b._ephemeral)
    assert not any(a._secret) and not any(b._dh_static)


def test_no_entropy_no_exchange():
    raises(CryptoError, PairExchange, INITIATOR, SECRET, STATIC, RELATIONSHIP, 1, b"")


def test_junk_never_raises():
    a, b = pair()
    a.feed(b.feed(a.offer()))
    for size in range(0, 128, 3):
        for kind in range(0x10, 0x16):
            junk = bytes((kind,)) + RELATIONSHIP.tag + b"\x00\x00\x00\x01" + bytes(size)
            a.feed(junk)
            b.feed(junk)
            a.feed(junk[:size])
