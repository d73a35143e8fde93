"""Handshake messages at either end, in any state it can be in."""

from fuzz.source import Source, counted
from packtrust.crypto import sha256
from packtrust.handshake import INITIATOR, RESPONDER, Handshake, epoch_of
from packtrust.keys import SIDE_A, SIDE_B, Relationship

COVERS = ("packtrust.handshake:Handshake.feed", "packtrust.handshake:Handshake._on_", "packtrust.handshake:epoch_of")
HEAP_MAX = 80000

_EPOCH = 7


def _end(role, more=0):
    relationship = Relationship("pack", "module", "lct", sha256(b"pack"), sha256(b"module"))
    side = SIDE_A if role == INITIATOR else SIDE_B
    return Handshake(
        role, bytes(range(32)), relationship, _EPOCH, side, bytes(32), 1, bytes(range(role + more, role + more + 16))
    )


def _run(role, messages):
    return bytes((role,)) + b"".join([counted(message) for message in messages])


def seeds():
    initiator, responder = _end(INITIATOR), _end(RESPONDER)
    hello = initiator.hello()
    reply = responder.feed(hello)
    finish = initiator.feed(reply)
    # A second node with the same keys answers too.
    twins = _end(RESPONDER, 9).feed(hello)
    yield _run(INITIATOR, (reply, twins, reply))
    forged_reply = reply[:-1] + bytes((reply[-1] ^ 1,))
    forged_finish = finish[:-1] + bytes((finish[-1] ^ 1,))
    yield _run(INITIATOR, [reply] + [forged_reply] * 12)
    yield _run(RESPONDER, [hello] + [forged_finish] * 12)
    for role in (INITIATOR, RESPONDER):
        yield _run(role, (hello, finish, finish))
        yield _run(role, (reply, reply, hello))
        yield _run(role, (finish,))
        yield _run(role | 4, (hello, reply, finish))
        for message in (hello, reply, finish):
            for at in (0, 1, 2, 4, len(message) - 1):
                spoilt = bytearray(message)
                spoilt[at] ^= 2
                yield _run(role, (spoilt, message))


def take(data):
    source = Source(data)
    head = source.number()
    role = INITIATOR if head & 1 else RESPONDER
    end = _end(role)
    if role == INITIATOR:
        end.hello()
    if head & 4:
        end.wipe()
    while source.left:
        message = source.part()
        assert -1 <= epoch_of(message) <= 0xFFFFFFFF
        answer = end.feed(message)
        assert answer is None or not end.reason
    # Nobody who has only bytes proves anything; the seeds' own messages do.
    assert end.keys is not None or not end.proved
    end.wipe()
