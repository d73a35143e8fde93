"""The hot path: no heap, the two forms of it agree, and what is used again is used again as documented."""

import sys

from channels import POLL, SECRET, STATE_CHANGE, STATUS_1, Clock, Entropy, give
from packtrust.arbitration import ENCRYPTED, TOGGLE
from packtrust.channel import OPENED, REFUSED, Channel
from packtrust.errors import CryptoError
from packtrust.handshake import INITIATOR, RESPONDER
from packtrust.policy import DEFAULT_POLICY
from packtrust.record import RecordCipher
from packtrust.segmentation import Segmenter
from packtrust.workspace import Workspace
from portable import kept, raises, without_heap


class Plain(Channel):
    """The portable form, also where the board has its own."""

    seal = Channel._seal
    feed = Channel._feed


class Pair:
    """A pack and a module in session; each has a workspace, or they share one with others."""

    def __init__(self, clock, kind=Channel, node=5, workspaces=(None, None), **options):
        options["clock"] = clock
        options["policy"] = DEFAULT_POLICY
        self.pack = kind(
            SECRET,
            INITIATOR,
            node,
            urandom=Entropy(node),
            local="pack",
            peer="module %d" % node,
            workspace=workspaces[0],
            **options,
        )
        self.module = kind(
            SECRET,
            RESPONDER,
            node,
            urandom=Entropy(100 + node),
            local="module %d" % node,
            peer="pack",
            workspace=workspaces[1],
            **options,
        )
        self.pack.connect()
        for _ in range(3):
            for frame in self.pack.outgoing():
                self.module.feed(frame)
            for frame in self.module.outgoing():
                self.pack.feed(frame)
        assert self.pack.established and self.module.established

    def telemetry(self, data):
        """A record of the module, opened by the pack."""
        event = None
        for frame in self.module.seal(STATUS_1 & ~0xFF | self.module.node, data):
            event = self.pack.feed(frame)
        return event

    def command(self, data):
        """A record of the pack that cites, opened by the module."""
        event = None
        for frame in self.pack.seal(STATE_CHANGE & ~0xFF | self.pack.node, data):
            event = self.module.feed(frame)
        return event


DATA = bytes(range(100))


def test_a_channel_in_use_needs_no_heap():
    clock = Clock()
    for options in ({}, {"fd": True}):
        pair = Pair(clock, **options)
        for _ in range(2):
            assert pair.telemetry(b"").kind == OPENED
            assert pair.command(b"").kind == OPENED
        lengths = [DATA[:length] for length in range(9)]
        for data in lengths:
            event = without_heap(pair.telemetry, data)
            assert (event.kind, event.data) == (OPENED, data)
            event = without_heap(pair.command, data)
            assert (event.kind, event.data) == (OPENED, data)
        clock.now_ms += 260  # the next step of the sent times
        assert without_heap(pair.telemetry, DATA[:8]).kind == OPENED
        assert without_heap(pair.command, DATA[:8]).kind == OPENED


def test_longer_records_need_heap_once():
    clock = Clock()
    pair = Pair(clock)
    for length in range(9, 101, 13):
        data = DATA[:length]
        for send in (pair.telemetry, pair.command):
            assert send(data[:96]).data == data[:96]
            assert without_heap(send, data[:96]).data == data[:96]


def test_refused_records_need_no_heap_after_the_first():
    """Of each reason, in both forms, with one session and with one before it that lives on."""
    for kind in (Channel, Plain):
        clock = Clock()
        pair = Pair(clock, kind)
        for sessions in (1, 2):
            for _ in range(2):
                pair.telemetry(b"12345678")
            old = kept(pair.module.seal(STATUS_1, b"12345678"))
            for _ in range(70):
                newest = kept(pair.module.seal(STATUS_1, b"87654321"))
            assert give(pair.pack, newest).kind == OPENED
            head = b"".join([bytes(frame.data) for frame in newest])[:12]
            later = bytes([head[10] + 1, 0])
            forged = (
                ("tag", head[:10] + later + bytes(24)),
                ("unknown-session", b"none" + head[4:] + bytes(24)),
                ("unknown-session", b"none" + b"\xff" * 8 + bytes(24)),
                (
                    "tag",
                    head[:4] + b"\xff" * 8 + bytes(24),
                ),  # a counter that needs heap on a board: judged, not counted
                ("short", head),
            )
            segmenter = Segmenter()
            for _ in range(2):
                for reason, record in forged:
                    frames = kept(segmenter.split(STATUS_1 | ENCRYPTED, record))
                    if record[4] == 0xFF and reason == "tag":
                        assert give(pair.pack, frames).reason == reason
                        continue
                    refused_without_heap(pair.pack, frames, reason)
                refused_without_heap(pair.pack, newest, "replay")
                refused_without_heap(pair.pack, old, "old")
            if sessions == 1:
                pair.pack.connect()
                clock.now_ms += 2000
                for _ in range(3):
                    for frame in pair.pack.outgoing():
                        pair.module.feed(frame)
                    for frame in pair.module.outgoing():
                        pair.pack.feed(frame)


def refused_without_heap(channel, frames, reason):
    """Fed once, when a counter of refusals is made, then again with the heap locked."""
    other = [frame.copy() for frame in frames]
    for frame in other:
        frame.arbitration_id ^= TOGGLE  # else the same frames are what CAN itself repeats

    def again(frames):
        for frame in frames:
            event = channel.feed(frame)
        return event

    for event in (again(other), without_heap(again, frames), without_heap(again, other)):
        assert (event.kind, event.reason) == (REFUSED, reason), event
        assert (bytes(event.data), event.counter, event.epoch) == (b"", 0, 0)
        assert event.arbitration_id == frames[0].arbitration_id & 0x1FFC00FF


def test_frames_and_events_are_used_again_and_copies_stay():
    clock = Clock()
    pair = Pair(clock)
    frames = pair.module.seal(STATUS_1, b"12345678")
    mine = kept(frames)
    assert mine == list(frames)
    assert pair.module.seal(STATUS_1, b"87654321") is frames
    assert mine != list(frames) and all(len(frame.data) == frame.dlc for frame in frames)
    event = pair.telemetry(b"first")
    copy = event.copy()
    assert pair.telemetry(b"other") is event
    assert (event.data, copy.data, copy.kind) == (b"other", b"first", OPENED)
    assert copy.counter == event.counter - 1


def test_sessions_without_ready_keys_lose_nothing():
    clock = Clock()
    shared = (Workspace(ready=1, streams=8), Workspace(ready=1, streams=8))
    pairs = [Pair(clock, node=node, workspaces=shared) for node in (1, 2, 3)]
    recorded = []
    for turn in range(5):
        for pair in pairs:
            data = bytes((turn, pair.pack.node))
            recorded.append((pair, kept(pair.module.seal(STATUS_1 & ~0xFF | pair.pack.node, data))))
            event = give(pair.pack, recorded[-1][1])
            assert (event.kind, event.data) == (OPENED, data)
            event = pair.command(data)
            assert (event.kind, event.data) == (OPENED, data)
        clock.now_ms += 1000
        ready = [channel for pair in pairs for channel in (pair.pack, pair.module)]
        ready = [session for session in [channel._session for channel in ready] if session.tx or session.rx]
        assert len(ready) == 2, "one direction at each end"
    for pair, frames in recorded:
        event = give(pair.pack, frames)
        assert (event.kind, event.reason) == (REFUSED, "replay")
    for pair in pairs:
        assert pair.pack.stats["opened"] == 5 and pair.module.stats["opened"] == 5


def test_a_command_is_stale_also_for_a_session_that_was_put_away():
    clock = Clock()
    shared = (Workspace(ready=1), Workspace(ready=1))
    one, two = [Pair(clock, node=node, workspaces=shared) for node in (1, 2)]
    one.telemetry(b"cited")
    held = kept(one.pack.seal(STATE_CHANGE & ~0xFF | 1, b"\x00\x03\x00\x00"))
    two.telemetry(b"so the first one leaves")
    clock.now_ms += 4001
    assert give(one.module, held).reason == "stale"
    one.telemetry(b"fresh")
    assert one.command(b"\x00\x03\x00\x00").kind == OPENED


def test_keys_that_leave_are_wiped():
    clock = Clock()
    workspace = Workspace(ready=1)
    pair = Pair(clock, workspaces=(workspace, None))
    pair.telemetry(b"x")
    rx = pair.pack._session.rx
    pair.command(b"y")
    assert pair.pack._session.rx is None
    raises(CryptoError, rx.aead.encrypt, bytes(12), b"", b"")
    session = pair.pack._session
    pair.pack.close()
    assert not any(session.state)
    assert workspace._ready == []


def test_counters_that_need_heap_are_judged_alike():
    """A peer that counts on beyond 30 and beyond 32 bits: each record is taken once, and what is far below is old."""
    for kind in (Plain, Channel):
        pair = Pair(Clock(), kind)
        pair.telemetry(b"first")
        state = pair.module._session.state
        binding = pair.module._binding(1)
        cipher = RecordCipher(state[:32], bytes(state[64:68]), 1, binding[1:])
        segmenter = Segmenter()
        full_id = STATUS_1 | 1 << 17
        for counter, reason in (
            ((1 << 30) - 1, ""),
            (1 << 30, ""),
            ((1 << 30) - 1, "replay"),
            ((1 << 30) + 1, ""),
            ((1 << 31) + 5, ""),
            ((1 << 32) + 5, ""),
            (6, "old"),
            ((1 << 32) + 4, ""),
            ((1 << 32) + 5, "replay"),
            ((1 << 33) + 6, ""),
            ((1 << 32) + 7, "old"),
            ((1 << 33) + 7, ""),
        ):
            event = give(pair.pack, segmenter.split(full_id, cipher.seal(full_id, counter, b"12345678")))
            assert event.reason == reason, (counter, event.reason)
            if not reason:
                assert (event.counter, event.data) == (counter, b"12345678")
        session = pair.pack._session
        session.leave()
        pair.pack._shared._ready.clear()
        assert session.highest == (1 << 33) + 7
        event = give(pair.pack, segmenter.split(full_id, cipher.seal(full_id, (1 << 33) + 7, b"12345678")))
        assert event.reason == "replay"


class World:
    """A pair of one form, and what is said of what happens to it."""

    def __init__(self, kind):
        self.clock = Clock()
        self.pair = Pair(self.clock, kind)
        self.told = []

    def deliver(self, channel, frames):
        for frame in frames:
            event = channel.feed(frame)
            if event is not None:
                self.told.append((event.kind, event.arbitration_id, bytes(event.data), event.counter, event.reason))


def test_both_forms_agree_whatever_comes():
    """The same traffic, with loss, repeats, delays, changed bytes and old records, through each form."""
    worlds = [World(Plain), World(Channel)]
    chance = Entropy(77)
    old = []
    for _ in range(400):
        dice = chance(12)
        sent = []
        for world in worlds:
            pair = world.pair
            sender, receiver = (pair.pack, pair.module) if dice[0] & 1 else (pair.module, pair.pack)
            arbitration_id = (STATE_CHANGE, POLL, STATUS_1)[dice[1] % 3]
            frames = kept(sender.seal(arbitration_id, DATA[: dice[2] % (97 if dice[2] > 200 else 9)]))
            sent.append([(frame.arbitration_id, bytes(frame.data), frame.dlc) for frame in frames])
            if dice[3] < 40:
                del frames[dice[4] % len(frames)]
            elif dice[3] < 80:
                frames.insert(dice[4] % len(frames), frames[dice[5] % len(frames)])
            elif dice[3] < 110:
                at = dice[4] % len(frames)
                frames[at].data = bytes([byte ^ dice[6] for byte in frames[at].data])
            elif dice[3] < 130:
                frames[dice[4] % len(frames)].data = b"123456789"[: dice[6] % 10]
            elif dice[3] < 150 and old:
                frames = old[dice[4] % len(old)]
            elif dice[3] < 160:
                frames[dice[4] % len(frames)].arbitration_id ^= 1 << dice[6] % 29
            elif dice[3] < 170:
                frames[dice[4] % len(frames)].is_fd = True
            half = len(frames) // 2
            world.deliver(receiver, frames[:half])
            world.clock.now_ms += dice[7] % 60
            world.deliver(receiver, frames[half:])
            world.clock.now_ms += 16 * dice[8] if dice[9] < 20 else dice[8] & 7
        old.append(frames)
        del old[:-8]
        assert sent[0] == sent[1]
        assert worlds[0].told == worlds[1].told
    for name in ("pack", "module"):
        plain, own = [getattr(world.pair, name) for world in worlds]
        assert plain.stats == own.stats
        assert plain.dropped == own.dropped
        assert plain.last_opened_ms == own.last_opened_ms
    kinds = {what[4] for what in worlds[0].told}
    assert {"", "tag", "stale", "replay"} <= kinds, kinds
    assert len([what for what in worlds[0].told if what[0] == OPENED]) > 100


def test_the_board_uses_its_own_form_where_it_has_one():
    viper = sys.implementation.name == "micropython" and getattr(sys.implementation, "_mpy", 0) >> 10 & 15
    assert (Channel.feed is not Channel._feed) == bool(viper)
    assert (Channel.seal is not Channel._seal) == bool(viper)
