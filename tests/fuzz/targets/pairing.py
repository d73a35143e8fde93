"""Messages of the pair exchange at either end."""

from fuzz.source import Source, counted
from packtrust.crypto import hmac_sha256, sha256
from packtrust.handshake import INITIATOR, RESPONDER
from packtrust.keys import Relationship
from packtrust.pairing import PairExchange, epoch_of, is_pairing, tag_of

COVERS = (
    "packtrust.pairing:PairExchange.feed",
    "packtrust.pairing:PairExchange._on_",
    "packtrust.pairing:PairExchange._agree",
    "packtrust.pairing:is_pairing",
    "packtrust.pairing:tag_of",
    "packtrust.pairing:epoch_of",
)
HEAP_MAX = 80000  # X25519 in integers: garbage included
SECONDS = 20  # X25519 makes it slow, and it has few branches


def _end(role):
    relationship = Relationship("pack", "module", "lct", sha256(b"pack"), sha256(b"module"))
    return PairExchange(role, bytes(range(32)), b"", relationship, 3, bytes(range(role, role + 32)))


def _run(role, messages):
    return bytes((role,)) + b"".join([counted(message) for message in messages])


def seeds():
    initiator, responder = _end(INITIATOR), _end(RESPONDER)
    offer = initiator.offer()
    answer = responder.feed(offer)
    confirm = initiator.feed(answer)
    agreed = responder.feed(confirm)
    other = PairExchange(RESPONDER, bytes(range(32)), b"", initiator.relationship, 3, bytes(range(50, 82)))
    other_answer = other.feed(offer)
    late = PairExchange(INITIATOR, bytes(range(32)), b"", initiator.relationship, 3, bytes(range(60, 92)))
    yield _run(RESPONDER, (offer, offer, confirm, late.offer()))
    yield _run(RESPONDER, (confirm, agreed, answer))
    yield _run(INITIATOR, (answer, answer, agreed, other_answer))
    yield _run(INITIATOR, (agreed, offer, confirm))
    for role in (INITIATOR, RESPONDER):
        for message in (offer, answer, confirm, agreed):
            for at in (0, 1, 14, len(message) - 1):
                spoilt = bytearray(message)
                spoilt[at] ^= 1
                yield _run(role, (message[:20], spoilt))
    # The all-zero point, authenticated: who holds the pair's keys can send that.
    zero = bytes(32)
    for role, kind, end in ((RESPONDER, b"offer", _end(RESPONDER)), (INITIATOR, b"answer", _end(INITIATOR))):
        if role == RESPONDER:
            yield _run(role, (offer[:13] + zero + hmac_sha256(end._key, kind, zero),))
        else:
            yield _run(role, (answer[:13] + zero + hmac_sha256(end._key, kind, end.public, zero),))


def take(data):
    source = Source(data)
    end = _end(INITIATOR if source.number() & 1 else RESPONDER)
    while source.left:
        message = source.part()
        if is_pairing(message):
            assert len(tag_of(message)) == 8 and epoch_of(message) >= 0
        answer = end.feed(message)
        assert answer is None or is_pairing(answer)
    assert end.root is not None or not end.agreed
    end.wipe()
