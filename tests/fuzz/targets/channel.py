"""Frames at a channel that has keys and a session: records, ISO-TP, handshakes, clear frames; classic and CAN FD."""

from fuzz.source import Clock, Entropy, Source, lay
from packtrust.arbitration import canonical
from packtrust.channel import Channel
from packtrust.frame import Frame
from packtrust.handshake import INITIATOR, RESPONDER
from packtrust.segmentation import cut

COVERS = (
    "packtrust.channel:Channel.feed",
    "packtrust.channel:Channel._feed_any",
    "packtrust.channel:Channel._on_isotp",
    "packtrust.channel:Channel._on_message",
    "packtrust.channel:Channel._on_handshake",
    "packtrust.channel:Channel._open",
    "packtrust.channel:Channel._opener",
    "packtrust.channel:Channel._first_record",
)
HEAP_MAX = 200000  # two handshakes, garbage included

NODE = 5
TELEMETRY = 0x502 << 18 | NODE
COMMAND = 0x514 << 18 | NODE
_FD = 1
_INITIATOR = 2
_OLD_EPOCH = 4
_CONNECTING = 8  # it has said HELLO, where that is its part


def _pair(flags):
    """(the channel under test, its peer, the clock of both), in session."""
    clock = Clock()
    fd = flags & _FD != 0
    ends = []
    for role, local, peer in ((INITIATOR, "pack", "module"), (RESPONDER, "module", "pack")):
        ends.append(Channel(bytes(range(32)), role, NODE, clock, Entropy(role), local, peer, fd=fd, receive_max=300))
    pack, module = ends
    pack.connect()
    _exchange(pack, module)
    if flags & _OLD_EPOCH:
        for end in ends:
            end.install(bytes(range(1, 33)), 1)
        clock.now_ms += 1500
        pack.connect()
    if not flags & _INITIATOR:
        return module, pack, clock
    if flags & _CONNECTING:
        clock.now_ms += 1500
        pack.connect()
    return pack, module, clock


def _exchange(one, other):
    """All they have to say; what `other` sent."""
    sent = []
    while one.has_outgoing or other.has_outgoing:
        for frame in one.outgoing():
            other.feed(frame)
        for frame in other.outgoing():
            sent.append(frame)
            one.feed(frame)
    return sent


def _run(flags, steps):
    """Flags, and (pause in 10 ms, frame) each."""
    return bytes((flags,)) + b"".join([bytes((pause,)) + lay(frame) for pause, frame in steps])


def _kept(frames):
    return [(0, frame.copy()) for frame in frames]


def _after(pause, frames):
    """Frames one after the other, a pause before the first."""
    return [(0 if at else pause, frame.copy()) for at, frame in enumerate(frames)]


def _handshake(flags):
    """What a channel hears in a new handshake: all of it, and by message; and the peer, in session."""
    ours, peer, clock = _pair(flags)
    if ours.role == RESPONDER:
        clock.now_ms += 1500
        peer.connect()
    heard = []
    for frame in peer.outgoing():
        heard.append([frame])
        ours.feed(frame)
    heard = [[frames[0] for frames in heard]]
    for _ in range(3):
        for frame in ours.outgoing():
            peer.feed(frame)
        found = peer.outgoing()
        heard.append(found)
        for frame in found:
            ours.feed(frame)
    steps = []
    for frames in heard:
        steps += _after(150 if ours.role == RESPONDER and not steps else 0, frames)
    return steps, [frames for frames in heard if frames], peer


def seeds():
    for flags in range(16):
        ours, peer, clock = _pair(flags)
        sealed = _kept(peer.seal(TELEMETRY, b"8 octets"))
        again = _kept(peer.seal(TELEMETRY, b"8 octets"))
        if ours.role == RESPONDER:
            command = _kept(peer.seal(COMMAND, b"\x03\x00"))
            yield _run(flags, sealed + command + sealed)
            yield _run(flags, command + command)
            # One that cites what we sent long ago: it was held back.
            yield _run(flags, [(255, command[0][1])] + [(4, frame) for _, frame in command[1:]])
            yield _run(flags, [(255, Frame(1))] * 3 + command)
        steps, heard, late = _handshake(flags)
        yield _run(flags, steps)
        yield _run(flags, steps + steps)
        yield _run(flags, steps + _after(0, heard[-1] if heard else ()) + _kept(late.seal(TELEMETRY, b"new")) + steps)
        yield _run(flags, steps + _kept(late.seal(TELEMETRY, b"new keys")) + sealed)
        # FINISH is lost, a record proves the same; or one is spoilt on the way.
        for without in range(3):
            some = [frames for at, frames in enumerate(heard) if at != without]
            steps = []
            for frames in some:
                steps += _after(150 if ours.role == RESPONDER and not steps else 0, frames)
            yield _run(flags, steps + _kept(late.seal(TELEMETRY, b"new keys")))
        for frames in heard:
            wrong = [frame.copy() for frame in frames]
            wrong[-1].data = bytes(len(wrong[-1].data))
            yield _run(flags, _after(150 if ours.role == RESPONDER else 0, wrong) + _after(0, frames))
        yield _run(flags, sealed + again)
        yield _run(flags, again + sealed + again)
        third = _kept(peer.seal(TELEMETRY, b"8 octets"))
        if not flags & _FD:
            last = third[-1][1].arbitration_id
            for chunks in (
                third[:1] + [(0, Frame(frame.arbitration_id, frame.data[:3])) for _, frame in third[1:]],
                third[:2] + third[3:] + third,
                third[:4] + [(0, Frame(last, b""))],
                third[:2] + [(20, third[2][1])] + third[3:],
            ):
                yield _run(flags, sealed + chunks)
        if ours.role == RESPONDER:
            commands = [_kept(peer.seal(COMMAND, b"\x03\x00")) for _ in range(2)]
            yield _run(flags, commands[1] + commands[0])
            # A peer that errs: a command without a citation.
            peer._heads[COMMAND] = canonical(COMMAND)
            yield _run(flags, _kept(peer.seal(COMMAND, b"x")))
            yield _run(flags, _after(150, cut(0x539 << 18 | NODE, bytes((1, 9, 1)) + bytes(24))))
        spoilt = [(pause, frame.copy()) for pause, frame in again]
        spoilt[-1][1].data = bytes(len(spoilt[-1][1].data))
        yield _run(flags, sealed + spoilt)
        yield _run(flags, sealed[:2] + [(9, Frame(1))] + sealed[2:])
        yield _run(flags, sealed[:1] + [(0, Frame(frame.arbitration_id, frame.data[:7])) for _, frame in sealed[1:]])
        long = _kept(peer.seal(TELEMETRY, bytes(120)))
        ours.feed(long[0][1])
        for _ in range(4):
            for frame in ours.outgoing():
                peer.feed(frame)
            found = peer.outgoing()
            long += _kept(found)
            for frame in found:
                ours.feed(frame)
        yield _run(flags, long)
        yield _run(flags, sealed + long)
        yield _run(flags, long[:2] + long[3:])
        hello, other, _ = _pair((flags ^ _INITIATOR) & ~_CONNECTING)
        if hello.role == INITIATOR:
            hello.connect()
            frames = hello.outgoing()
            yield _run(flags, _after(200, frames) * 2)
            yield _run(flags, _after(200, frames) + _after(9, frames))
        for size in (1, 27, 57, 37, 13, 45):
            rx = 0x539 if ours.role == RESPONDER else 0x531
            frames = []
            for kind in (1, 2, 3, 0x11):
                payload = bytes((kind, 1, 1)) + bytes(size)
                frames += _after(150, cut(rx << 18 | NODE, payload[:size]))
            yield _run(flags, frames)
        yield _run(
            flags,
            [
                (0, Frame(base << 18 | extra | NODE, bytes(8)))
                for base in (0x502, 0x514, 0x500, 0x51F)
                for extra in (0, 1 << 17)
            ],
        )
        yield _run(flags, [(0, Frame(0x502 << 18 | 1 << 17 | 0x2400 | NODE, bytes(48), True, True))])
        yield _run(
            flags,
            [
                (0, Frame(0x502 << 18 | 1 << 17 | NODE, bytes(8))),
                (0, Frame(0x505, b"", False)),
                (0, Frame(0x500 << 18 | 9)),
            ],
        )
        yield _run(flags, [(0, Frame(0x503 << 18 | 1 << 17 | 0x1000 | NODE, bytes(8)))])
        yield _run(flags, [(0, Frame(0x503 << 18 | 1 << 17 | NODE, bytes(8), True, True))])
        isotp = 0x538 if ours.role == RESPONDER else 0x530
        for payload in (b"\x06" + bytes(6), b"\x00\x3e" + bytes(62), b"\x00\x3e\x14\x0a\x00\x05" + bytes(58)):
            yield _run(flags, [(0, Frame(isotp << 18 | 1 << 17 | NODE, payload, True, len(payload) > 8))])


def take(data):
    source = Source(data)
    channel, peer, clock = _pair(source.number() & 15)
    opened = 0
    while source.left:
        clock.now_ms += source.number() * 10
        event = channel.feed(source.frame())
        if event is not None:
            assert event.kind in ("opened", "refused", "established")
            opened += event.kind == "opened"
        channel.tick()
        channel.outgoing()
    assert channel.stats["opened"] == opened
    assert peer.role != channel.role
