"""A session from the first HELLO to its last counter: rounds and their pauses, what costs work, clocks, edges."""

from channels import POLL, SECRET, STATE_CHANGE, STATUS_1, Clock, Entropy, give
from packtrust.channel import (
    ESTABLISHED,
    HANDSHAKE_RETRY_MS,
    HANDSHAKE_TRIES,
    MODULE_LINK,
    OPENED,
    REFUSED,
    Channel,
)
from packtrust.errors import ChannelError, PacktrustError
from packtrust.frame import Frame
from packtrust.handshake import FINISH, FORGED_MAX, HELLO, INITIATOR, REPLY, RESPONDER, Handshake
from packtrust.keys import SIDE_A, Relationship
from packtrust.record import RecordCipher
from packtrust.replay import CITATION_MAX_AGE_MS, SentTimes
from packtrust.segmentation import TIME_MASK, Segmenter
from portable import kept, raises

try:
    from micropython import heap_lock, heap_unlock
except ImportError:  # CPython allocates as it likes

    def heap_lock():
        """Nothing to lock."""

    def heap_unlock():
        """Nothing to unlock."""


TO_MODULE = MODULE_LINK.handshake[0] << 18 | 5
TO_PACK = MODULE_LINK.handshake[1] << 18 | 5
DAY_MS = 86400000


class Plain(Channel):
    """The portable form, also where the board has its own."""

    seal = Channel._seal
    feed = Channel._feed


class Drawn(Entropy):
    """Entropy that counts, and that can end."""

    def __init__(self, seed):
        Entropy.__init__(self, seed)
        self.drawn = 0
        self.dry = False

    def __call__(self, count):
        if self.dry:
            raise PacktrustError("no entropy")
        self.drawn += 1
        return Entropy.__call__(self, count)


class Pair:
    """A pack and a module; nothing is carried by itself."""

    def __init__(self, kind=Channel, start_ms=100000, **options):
        self.clock = Clock()
        self.clock.now_ms = start_ms
        self.entropy = (Drawn(3), Drawn(4))
        options["clock"] = self.clock
        self.pack = kind(SECRET, INITIATOR, 5, urandom=self.entropy[0], local="pack", peer="module", **options)
        self.module = kind(SECRET, RESPONDER, 5, urandom=self.entropy[1], local="module", peer="pack", **options)

    def carry(self):
        events = []
        for _ in range(4):
            for sender, receiver in ((self.pack, self.module), (self.module, self.pack)):
                event = give(receiver, sender.outgoing())
                if event is not None:
                    events.append(event)
        return events

    def connect(self):
        self.pack.connect()
        assert [event.kind for event in self.carry()] == [ESTABLISHED, ESTABLISHED]
        return self

    def exchange(self):
        """A record each way, and a command: what works in a live session."""
        assert give(self.pack, self.module.seal(STATUS_1, b"12345678")).kind == OPENED
        assert give(self.module, self.pack.seal(POLL, b"\x03")).kind == OPENED
        return self


def run(pair, ms):
    """The times, from now, at which the pack says something by itself; all of that is lost."""
    said = []
    start_ms = pair.clock.now_ms
    for _ in range(ms // 50):
        pair.clock.now_ms += 50
        pair.pack.tick()
        if pair.pack.outgoing():
            said.append(pair.clock.now_ms - start_ms)
    return said


# -- rounds ----------------------------------------------------------------------------------------------------------


def test_a_round_of_hellos_ends_and_its_pauses_double():
    pair = Pair()
    pair.pack.connect()
    pair.pack.outgoing()
    assert run(pair, 200000) == [1100, 3300, 7700, 16500, 34100]
    assert HANDSHAKE_TRIES == 6 and HANDSHAKE_RETRY_MS == 1100
    assert not pair.pack.connecting and not pair.pack.established
    # Another round when somebody asks for it, from the beginning.
    pair.pack.connect()
    assert pair.pack.connecting and pair.pack.outgoing()
    assert run(pair, 4000) == [1100, 3300]


def test_a_reply_after_the_round_is_refused():
    pair = Pair()
    pair.pack.connect()
    give(pair.module, pair.pack.outgoing())
    reply = pair.module.outgoing()
    run(pair, 1000)
    pair.pack.give_up()
    assert not pair.pack.connecting
    event = give(pair.pack, reply)
    assert (event.kind, event.reason) == (REFUSED, "handshake-unexpected")
    assert not pair.pack.established


def test_connecting_again_leaves_a_hello_on_its_way_alone():
    pair = Pair()
    pair.pack.connect()
    give(pair.module, pair.pack.outgoing())
    pair.clock.now_ms += HANDSHAKE_RETRY_MS - 1
    pair.pack.connect()
    assert not pair.pack.outgoing()
    assert give(pair.pack, pair.module.outgoing()).kind == ESTABLISHED


def test_connecting_again_starts_the_pauses_anew():
    pair = Pair()
    pair.pack.connect()
    pair.pack.outgoing()
    run(pair, 8000)
    pair.clock.now_ms += HANDSHAKE_RETRY_MS
    pair.pack.connect()
    assert pair.pack.outgoing()
    assert run(pair, 4000) == [1100, 3300]


def test_a_new_epoch_does_not_wait_for_a_hello_of_the_old_one():
    pair = Pair()
    pair.pack.connect()
    pair.pack.outgoing()
    pair.pack.install(bytes(range(32, 64)), 1)
    pair.module.install(bytes(range(32, 64)), 1)
    pair.pack.connect()
    assert [event.epoch for event in pair.carry()] == [1, 1]


def test_a_lost_finish_is_said_again_until_a_record_comes():
    pair = Pair()
    pair.pack.connect()
    give(pair.module, pair.pack.outgoing())
    assert give(pair.pack, pair.module.outgoing()).kind == ESTABLISHED
    pair.pack.outgoing()  # lost, and the pack has nothing else to say
    pair.clock.now_ms += HANDSHAKE_RETRY_MS
    pair.pack.tick()
    assert give(pair.module, pair.pack.outgoing()).kind == ESTABLISHED
    give(pair.pack, pair.module.seal(STATUS_1, b"12345678"))
    assert run(pair, 100000) == []


def test_finish_is_not_said_for_ever_and_to_a_module_in_session_it_is_nothing():
    pair = Pair().connect()
    assert give(pair.module, pair.pack.seal(POLL, b"\x03")).kind == OPENED
    before = pair.module.stats
    said = []
    for _ in range(4000):
        pair.clock.now_ms += 50
        pair.pack.tick()
        frames = pair.pack.outgoing()
        if frames:
            said.append(pair.clock.now_ms)
            assert give(pair.module, frames) is None
    assert len(said) == HANDSHAKE_TRIES - 1
    assert pair.module.stats == before
    assert give(pair.pack, pair.module.seal(STATUS_1, b"12345678")).kind == OPENED


# -- what a stranger's messages cost ---------------------------------------------------------------------------------


def message(arbitration_id, payload):
    return Segmenter().split(arbitration_id, payload)


def hello(version=1, role=1, epoch=0):
    return bytes((HELLO, version, role)) + epoch.to_bytes(4, "big") + bytes(20)


def test_a_hello_that_is_refused_costs_no_work_and_spoils_nothing():
    pair = Pair()
    pair.pack.connect()
    give(pair.module, pair.pack.outgoing())
    give(pair.pack, pair.module.outgoing())
    finish = pair.pack.outgoing()
    drawn = pair.entropy[1].drawn
    pair.clock.now_ms += 1000
    for payload, reason in (
        (hello(version=2), "handshake-version"),
        (hello(role=2), "handshake-role"),
        (hello(role=0), "handshake-role"),
        (hello(epoch=7), "handshake-epoch"),
        (hello()[:-1], "handshake-malformed"),
    ):
        for _ in range(3):
            assert give(pair.module, message(TO_MODULE, payload)).reason == reason
    assert pair.entropy[1].drawn == drawn
    assert give(pair.module, finish).kind == ESTABLISHED  # the handshake they came into goes on


def test_a_flood_of_hellos_costs_one_handshake_a_second():
    pair = Pair().connect().exchange()
    drawn = pair.entropy[1].drawn
    for _ in range(100):
        pair.clock.now_ms += 50
        give(pair.module, message(TO_MODULE, hello()))
        pair.exchange()
    assert pair.entropy[1].drawn - drawn == 5
    assert pair.module.stats["handshake-rate"] == 95


def counted(calls):
    """hmac_sha256 of the handshake, counted."""
    from packtrust import handshake

    real = handshake.hmac_sha256

    def count(*parts):
        calls.append(1)
        return real(*parts)

    return handshake, real, count


def test_a_flood_of_forged_proofs_costs_a_few_macs_a_handshake():
    for role in (INITIATOR, RESPONDER):
        pair = Pair()
        pair.pack.connect()
        give(pair.module, pair.pack.outgoing())
        if role == INITIATOR:
            victim, forged = pair.pack, message(TO_PACK, bytes((REPLY,)) + bytes(56))
        else:
            victim, forged = pair.module, message(TO_MODULE, bytes((FINISH,)) + bytes(36))
        calls = []
        module, real, count = counted(calls)
        module.hmac_sha256 = count
        try:
            reasons = [give(victim, forged).reason for _ in range(FORGED_MAX + 20)]
        finally:
            module.hmac_sha256 = real
        assert reasons == ["handshake-mac"] * FORGED_MAX + ["handshake-rate"] * 20
        assert len(calls) == FORGED_MAX
        # The next handshake is a new chance.
        run(pair, HANDSHAKE_RETRY_MS - 50)
        pair.clock.now_ms += 50
        pair.pack.tick()
        assert ESTABLISHED in [event.kind for event in pair.carry()]
        pair.exchange()


def test_a_few_forged_proofs_keep_nobody_out():
    pair = Pair()
    pair.pack.connect()
    give(pair.module, pair.pack.outgoing())
    for _ in range(FORGED_MAX - 1):
        give(pair.pack, message(TO_PACK, bytes((REPLY,)) + bytes(56)))
        give(pair.module, message(TO_MODULE, bytes((FINISH,)) + bytes(36)))
    assert [event.kind for event in pair.carry()] == [ESTABLISHED, ESTABLISHED]


def test_a_reply_once_more_makes_nobody_speak():
    pair = Pair()
    pair.pack.connect()
    give(pair.module, pair.pack.outgoing())
    reply = pair.module.outgoing()
    give(pair.pack, reply)
    assert pair.pack.outgoing()
    assert give(pair.pack, reply) is None
    assert give(pair.pack, message(TO_PACK, bytes((REPLY,)) + bytes(56))).reason == "handshake-mac"
    assert not pair.pack.outgoing()
    assert [event.kind for event in pair.carry()] == []
    assert pair.pack.established


def test_a_second_proof_to_one_hello_is_two_who_hold_the_keys():
    pair = Pair()
    other = Pair().module  # the same secret, names and node byte, another nonce
    other._terms.urandom = Drawn(9)
    pair.pack.connect()
    said = pair.pack.outgoing()
    give(pair.module, said)
    give(other, said)
    assert give(pair.pack, pair.module.outgoing()).kind == ESTABLISHED
    finish = pair.pack.outgoing()
    assert give(pair.pack, other.outgoing()).reason == "handshake-twin"
    assert give(pair.module, finish).kind == ESTABLISHED  # what to do about it is the node's business
    pair.pack.disconnect()
    assert not pair.pack.established
    pair.clock.now_ms += 2000
    pair.pack.connect()
    assert [event.kind for event in pair.carry()] == [ESTABLISHED, ESTABLISHED]
    pair.exchange()


def test_without_entropy_the_handshake_that_runs_stays_and_nobody_forges_it():
    """A wiped handshake has no key: if it were still asked, its MACs would be made with an empty one."""
    pair = Pair().connect().exchange()
    pair.clock.now_ms += 2000
    pair.pack.connect()
    give(pair.module, pair.pack.outgoing())
    reply = pair.module.outgoing()
    pair.entropy[0].dry = pair.entropy[1].dry = True
    pair.clock.now_ms += HANDSHAKE_RETRY_MS
    raises(PacktrustError, pair.pack.tick)
    for frame in message(TO_MODULE, hello())[:-1]:
        pair.module.feed(frame)
    raises(PacktrustError, pair.module.feed, message(TO_MODULE, hello())[-1])
    assert give(pair.pack, reply).kind == ESTABLISHED
    assert give(pair.module, pair.pack.outgoing()).kind == ESTABLISHED
    pair.exchange()


def test_a_wiped_handshake_takes_nothing():
    relationship = Relationship("a", "b", "lct", bytes(32), b"\x01" * 32)
    for role, payload in ((INITIATOR, bytes((REPLY,)) + bytes(56)), (RESPONDER, bytes((FINISH,)) + bytes(36))):
        handshake = Handshake(role, SECRET, relationship, 0, SIDE_A, bytes(32), 1, bytes(16))
        handshake.wipe()
        assert handshake.feed(payload) is None
        assert handshake.reason == "handshake-unexpected" and not handshake.proved


def test_a_wiped_handshake_leaves_no_key():
    initiator, responder = (
        Handshake(
            role, SECRET, Relationship("pack", "module", "lct", bytes(32), bytes(32)), 1, side, bytes(32), 1, bytes(16)
        )
        for role, side in ((INITIATOR, SIDE_A), (RESPONDER, SIDE_A ^ 1))
    )
    initiator.feed(responder.feed(initiator.hello()))
    for handshake in (initiator, responder):
        keys = [handshake._root, handshake._mac_key, handshake.keys.material]
        assert all([any(key) for key in keys])
        handshake.wipe()
        assert not any([any(key) for key in keys])


def test_a_node_refuses_its_own_role_also_when_nothing_is_under_way():
    pair = Pair()
    pair.pack.connect()
    frames = pair.pack.outgoing()
    reflected = [Frame(frame.arbitration_id ^ TO_MODULE ^ TO_PACK, frame.data) for frame in frames]
    assert give(pair.pack, reflected).reason == "handshake-role"
    pair.pack.give_up()
    assert give(pair.pack, reflected).reason == "handshake-unexpected"
    # A responder's own REPLY comes back to it, and a HELLO of its own role.
    give(pair.module, frames)
    reply = [Frame(frame.arbitration_id ^ TO_MODULE ^ TO_PACK, frame.data) for frame in pair.module.outgoing()]
    assert give(pair.module, reply).reason == "handshake-role"
    pair.clock.now_ms += 1000
    assert give(pair.module, message(TO_MODULE, hello(role=2))).reason == "handshake-role"
    assert not pair.pack.established and not pair.module.established


# -- sleep and clocks ------------------------------------------------------------------------------------------------


def test_a_session_outlives_any_sleep_without_a_handshake():
    """RAM was kept: the IV carries the whole counter, and one record of the module makes the pack's citations fresh."""
    for kind in (Plain, Channel):
        pair = Pair(kind).connect().exchange()
        for sleep_ms in (5000, 3600000, 12 * DAY_MS, 13 * DAY_MS, 26 * DAY_MS, 51 * DAY_MS):
            pair.clock.now_ms += sleep_ms
            pair.pack.tick()
            pair.module.tick()
            assert give(pair.module, pair.pack.seal(POLL, b"\x03")).reason == "stale"
            pair.exchange()
        assert pair.pack.stats[ESTABLISHED] == pair.module.stats[ESTABLISHED] == 1
        assert not pair.pack.has_outgoing


def test_no_sleep_makes_a_held_command_fresh():
    """Lengths at which a clock of 30, 31 or 32 bits would be back where it was, and some milliseconds beside them."""
    for kind in (Plain, Channel):
        for start_ms in (100000, TIME_MASK - 2000, (1 << 31) - 2000, (1 << 32) - 2000):
            for bits in (28, 30, 31, 32, 33):
                for beside_ms in (-CITATION_MAX_AGE_MS, -1, 0, 1, CITATION_MAX_AGE_MS // 2):
                    pair = Pair(kind, start_ms).connect().exchange()
                    held = kept(pair.pack.seal(STATE_CHANGE, b"\x00\x03\x00\x00"))
                    pair.clock.now_ms += (1 << bits) + beside_ms
                    event = give(pair.module, held)
                    assert (event.kind, event.reason) == (REFUSED, "stale"), (kind, start_ms, bits, beside_ms)


def test_held_commands_are_stale_to_the_millisecond_of_the_step():
    for kind in (Plain, Channel):
        for late_ms, reason in ((CITATION_MAX_AGE_MS - 250, ""), (CITATION_MAX_AGE_MS + 1, "stale")):
            pair = Pair(kind).connect().exchange()
            held = kept(pair.pack.seal(STATE_CHANGE, bytes(4)))
            pair.clock.now_ms += late_ms
            assert give(pair.module, held).reason == reason


def test_a_clock_that_goes_back_makes_nothing_fresh():
    pair = Pair().connect()
    pair.clock.now_ms += 10000
    pair.exchange()
    held = kept(pair.pack.seal(STATE_CHANGE, bytes(4)))
    pair.clock.now_ms -= 5000
    event = give(pair.module, held)
    assert event.reason in ("", "stale")  # a clock of ours is monotonic (packtrust_node.env.Clock)
    times = SentTimes(10000)
    times.sent(1, 10000)
    assert not times.is_fresh(1, 5000)


def test_sent_times_survive_a_jump_in_either_form_of_keeping_them():
    for jump_ms in (4001, 4250, 10000, DAY_MS, 1 << 30, 1 << 31, 1 << 32, (1 << 32) * 20):
        kept_bytes = bytearray(21)
        times = SentTimes(0, kept_bytes)
        for counter in range(1, 30):
            times.sent(counter, counter * 100)
        then_ms = 2900
        times.save()
        again = SentTimes(0, kept_bytes)
        again.restore(29)
        for one in (times, again):
            assert one.is_fresh(29, then_ms)
            for cited in range(30):
                assert not one.is_fresh(cited, then_ms + jump_ms), (jump_ms, cited)
            one.sent(30, then_ms + jump_ms)
            assert one.is_fresh(30, then_ms + jump_ms)
            for cited in range(30):
                assert not one.is_fresh(cited, then_ms + jump_ms), (jump_ms, cited)


def test_when_a_record_was_opened_last_does_not_come_round():
    pair = Pair().connect().exchange()
    then_ms = pair.clock.now_ms
    assert pair.pack.last_opened_ms == then_ms
    for _ in range(20):
        pair.clock.now_ms += DAY_MS
        pair.pack.tick()
        silent_ms = pair.clock.now_ms - pair.pack.last_opened_ms
        assert min(6 * DAY_MS, pair.clock.now_ms - then_ms) <= silent_ms <= 7 * DAY_MS


# -- counters at their edges -----------------------------------------------------------------------------------------


def put_away(channel):
    """Leave the ready keys, as for the records of another session."""
    channel._session.leave()
    channel._shared._ready[:] = []


def put_counter(channel, counter):
    """As if so many records had been sealed."""
    put_away(channel)
    channel._session.put(76, 4, counter)


def test_the_counter_of_records_sent_ends_and_does_not_wrap():
    for kind in (Plain, Channel):
        for limit, edge in ((0xFFFFFFFF, 0xFFFFFFFF), (1 << 40, 0xFFFFFFFF), (0x40000000, 0x40000000), (7, 7)):
            pair = Pair(kind, max_records=limit).connect().exchange()
            put_counter(pair.module, edge - 2)
            for counter in (edge - 1, edge):
                event = give(pair.pack, pair.module.seal(STATUS_1, b"12345678"))
                assert (event.kind, event.counter) == (OPENED, counter)
            for _ in range(3):
                error = raises(ChannelError, pair.module.seal, STATUS_1, b"12345678")
                assert "rotate" in str(error)
            assert pair.module._session.sealed == edge
            # Put away and taken up again it is still used up.
            put_away(pair.module)
            raises(ChannelError, pair.module.seal, STATUS_1, b"")
            # The other direction goes on, and cites the last one.
            assert give(pair.module, pair.pack.seal(POLL, b"\x03")).kind == OPENED


def test_the_counter_of_records_taken_ends_with_64_bits():
    for kind in (Plain, Channel):
        pair = Pair(kind).connect().exchange()
        state = pair.module._session.state
        cipher = RecordCipher(state[:32], bytes(state[64:68]), 1, pair.module._binding(1)[1:])
        segmenter = Segmenter()
        full_id = STATUS_1 | 1 << 17
        top = (1 << 64) - 1
        for counter, reason in ((top - 1, ""), (top, ""), (top, "replay"), (1, "old"), (top - 1, "replay"), (2, "old")):
            for _ in range(2):
                event = give(pair.pack, segmenter.split(full_id, cipher.seal(full_id, counter, b"12345678")))
                assert event.reason == (reason if _ == 0 else reason or "replay"), (counter, event.reason)
            put_away(pair.pack)
        # After the last one nothing is above it: only a new session helps, and that there is.
        pair.clock.now_ms += 2000
        pair.connect().exchange()


def test_strict_order_holds_beyond_32_bits():
    for kind in (Plain, Channel):
        pair = Pair(kind).connect().exchange()
        state = pair.pack._session.state
        cipher = RecordCipher(state[:32], bytes(state[64:68]), 0, pair.pack._binding(0)[1:])
        segmenter = Segmenter()
        full_id = STATE_CHANGE | 1 << 17
        for counter, reason in (
            ((1 << 32) + 7, ""),
            ((1 << 32) + 6, "replay"),
            ((1 << 32) + 7, "replay"),
            (8, "old"),
            ((1 << 33) + 1, ""),
            ((1 << 33) - 5, "replay"),
            ((1 << 63) + 3, ""),
        ):
            cited = pair.module._session.sealed.to_bytes(4, "big")
            event = give(pair.module, segmenter.split(full_id, cipher.seal(full_id, counter, cited + bytes(4))))
            assert event.reason == reason, (counter, event.reason)


def test_epochs_end_with_32_bits():
    pair = Pair(epoch=0xFFFFFFFE).connect()
    for channel in (pair.pack, pair.module):
        channel.install(bytes(range(32, 64)), 0xFFFFFFFF)
    pair.clock.now_ms += 2000
    pair.connect().exchange()
    for channel in (pair.pack, pair.module):
        assert "used up" in str(raises(ChannelError, channel.install, bytes(32), 0x100000000))
        raises(ChannelError, channel.install, bytes(32), 0)
        assert channel.session_epoch == 0xFFFFFFFF
    for epoch in (0x100000000, -1):
        raises(ChannelError, Pair, Channel, 1000, epoch=epoch)


def test_statistics_come_round_and_nothing_ends_with_them():
    for kind in (Plain, Channel):
        pair = Pair(kind).connect().exchange()
        for channel in (pair.pack, pair.module):
            channel._counts[0] = channel._counts[1] = 0x3FFFFFFF
        pair.exchange()
        assert pair.pack.stats[OPENED] == pair.module.stats["sealed"] == 0
        pair.exchange()
        assert pair.pack.stats[OPENED] == 1


def test_a_window_put_away_is_the_window_taken_up():
    """What was taken stays taken when a session leaves its ready keys, as every gateway's does."""
    for kind in (Plain, Channel):
        pair = Pair(kind).connect()
        records = [kept(pair.module.seal(STATUS_1, bytes((at,)))) for at in range(70)]
        for at in (0, 69, 33, 34, 6, 68):
            assert give(pair.pack, records[at]).kind == OPENED
            put_away(pair.pack)
        for at in (69, 33, 34, 6, 68):
            assert give(pair.pack, records[at]).reason == "replay"
            put_away(pair.pack)
        assert give(pair.pack, records[0]).reason == "old"


# -- found by the model checker (tests/model) -----------------------------------------------------------------------


def test_a_hello_of_anybody_between_reply_and_the_first_record_leaves_no_half_session():
    """The pack is in the new session, the module is led back to the old one by a recorded HELLO, and goes on in it."""
    pair = Pair()
    pair.pack.connect()
    hellos = pair.pack.outgoing()
    give(pair.module, hellos)
    give(pair.pack, pair.module.outgoing())
    give(pair.module, pair.pack.outgoing())
    pair.exchange()
    pair.clock.now_ms += 5000
    pair.pack.connect()
    give(pair.module, pair.pack.outgoing())
    give(pair.pack, pair.module.outgoing())
    pair.pack.outgoing()  # FINISH is lost
    pair.clock.now_ms += 1100
    give(pair.module, hellos)
    pair.module.outgoing()
    pair.pack.tick()
    assert give(pair.module, pair.pack.outgoing()).reason == "handshake-mac"
    pair.clock.now_ms += 1100
    # The module's next record is in the session of before: the pack sees from it that it must begin again.
    assert give(pair.pack, pair.module.seal(STATUS_1, b"12345678")).kind == OPENED
    assert [event.kind for event in pair.carry()] == [ESTABLISHED, ESTABLISHED]
    pair.exchange()


def test_a_session_nobody_has_used_gives_way_before_one_in_use():
    pair = Pair().connect().exchange()
    pair.clock.now_ms += 5000
    for _ in range(2):
        pair.pack.connect()
        give(pair.module, pair.pack.outgoing())
        give(pair.pack, pair.module.outgoing())
        pair.pack.outgoing()  # FINISH is lost
        pair.clock.now_ms += 1100
        assert give(pair.pack, pair.module.seal(STATUS_1, b"12345678")).kind == OPENED
        pair.pack.give_up()
        pair.pack.outgoing()


def test_counters_are_written_back_without_heap():
    """Or with a full heap a sender would go on with a counter it has used, and a receiver take a record twice."""
    pair = Pair().connect().exchange().exchange()

    class Tables:
        def wipe(self):
            """These are wiped when all is written."""

    sender = pair.pack._session.tx
    opener = pair.module._session.rx
    sender.aead = opener.aead = Tables()
    before = pair.pack._session.sealed, pair.module._session.highest, opener.strict
    heap_lock()
    try:
        sender.leave()
        opener.leave()
    finally:
        heap_unlock()
    assert pair.pack._session.tx is None and pair.module._session.rx is None
    assert pair.pack._session.sealed == before[0] > 1 and pair.module._session.highest == before[1] > 1
    pair.exchange()
    assert pair.module._session.rx is not opener and pair.module._session.rx.strict >= before[2]
