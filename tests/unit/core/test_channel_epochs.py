"""Channel.install: of two epochs the one in use survives a third, for the peer may know no other."""

from packtrust.channel import ESTABLISHED, Channel
from packtrust.handshake import INITIATOR, RESPONDER

ROOTS = [bytes([epoch] * 32) for epoch in range(4)]


def channel(role, epoch, names):
    drawn = [0]

    def urandom(count):
        drawn[0] += 1
        return bytes([drawn[0] + role] * count)

    return Channel(
        ROOTS[epoch],
        role,
        5,
        clock=lambda: 100000 + 2000 * drawn[0],
        urandom=urandom,
        local=names[0],
        peer=names[1],
        epoch=epoch,
    )


def meet(pack, module):
    """Whether a handshake under the pack's newest epoch succeeds."""
    pack.connect()
    established = False
    for _ in range(3):
        for sender, receiver in ((pack, module), (module, pack)):
            for frame in sender.outgoing():
                event = receiver.feed(frame)
                if event is not None and event.kind == ESTABLISHED:
                    established = True
    return established


def test_without_a_session_the_oldest_epoch_stays():
    module = channel(RESPONDER, 1, ("m", "p"))
    module.install(ROOTS[2], 2)
    module.install(ROOTS[3], 3)
    assert meet(channel(INITIATOR, 1, ("p", "m")), module)
    assert meet(channel(INITIATOR, 3, ("p", "m")), module)
    assert not meet(channel(INITIATOR, 2, ("p", "m")), module)


def test_with_a_session_its_epoch_stays():
    module = channel(RESPONDER, 1, ("m", "p"))
    module.install(ROOTS[2], 2)
    assert meet(channel(INITIATOR, 2, ("p", "m")), module)
    assert module.session_epoch == 2
    module.install(ROOTS[3], 3)
    assert not meet(channel(INITIATOR, 1, ("p", "m")), module)
    assert meet(channel(INITIATOR, 2, ("p", "m")), module)
    assert meet(channel(INITIATOR, 3, ("p", "m")), module)
