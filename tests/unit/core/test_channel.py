"""Channel: handshake, sealing, freshness, epochs, and everything it refuses."""

from channels import POLL, SECRET, STATE_CHANGE, STATUS_1, Clock, Entropy, give
from packtrust.channel import ESTABLISHED, MODULE_LINK, OPENED, REFUSED, VCU_LINK, Channel
from packtrust.errors import ChannelError, PolicyError
from packtrust.frame import Frame
from packtrust.handshake import INITIATOR, RESPONDER
from packtrust.policy import DEFAULT_POLICY, Policy
from portable import kept, raises


class Bench:
    """Two channels and the wire between them."""

    def __init__(self, **options):
        self.clock = Clock()
        shared = {"clock": self.clock, "policy": DEFAULT_POLICY}
        shared.update(options)
        self.pack = Channel(SECRET, INITIATOR, 5, urandom=Entropy(1), local="pack", peer="module", **shared)
        self.module = Channel(SECRET, RESPONDER, 5, urandom=Entropy(2), local="module", peer="pack", **shared)
        self.log = []

    def carry(self):
        """Move frames both ways until it is quiet; the events, as (who, event)."""
        events = []
        while True:
            moved = False
            for name, sender, receiver in (("module", self.pack, self.module), ("pack", self.module, self.pack)):
                for frame in sender.outgoing():
                    moved = True
                    self.log.append(frame)
                    event = receiver.feed(frame)
                    if event is not None:
                        events.append((name, event.copy()))
            if not moved:
                return events

    def connect(self):
        self.pack.connect()
        events = self.carry()
        assert [(name, event.kind) for name, event in events] == [("pack", ESTABLISHED), ("module", ESTABLISHED)]
        assert self.pack.established and self.module.established
        return self


def test_handshake_then_records_both_ways():
    bench = Bench().connect()
    for size in (0, 1, 8, 64, 100):
        data = bytes(range(size))
        event = give(bench.module, bench.pack.seal(0x511 << 18 | 5, data[:96]))
        assert (event.kind, event.data) == (OPENED, data[:96])
        event = give(bench.pack, bench.module.seal(STATUS_1, data))
        assert (event.kind, event.arbitration_id, event.data, event.epoch) == (OPENED, STATUS_1, data, 0)


def test_every_sealed_frame_has_bit_17_and_plaintext_stays_off_the_wire():
    bench = Bench().connect()
    frames = kept(bench.module.seal(STATUS_1, b"secret-secret-secret"))
    assert all(frame.arbitration_id & 1 << 17 for frame in frames)
    assert all(frame.arbitration_id >> 18 == 0x502 for frame in frames)
    assert b"secret" not in b"".join(bytes(frame.data) for frame in frames)


def test_the_8_byte_message_costs_five_frames():
    bench = Bench().connect()
    assert len(bench.module.seal(STATUS_1, bytes(8))) == 5
    assert len(bench.pack.seal(STATE_CHANGE, bytes(4))) == 5


def test_long_records_go_by_isotp_and_keep_their_id():
    bench = Bench().connect()
    data = bytes(i & 0xFF for i in range(700))
    first = kept(bench.module.seal(STATUS_1, data))
    assert len(first) == 1
    assert all(frame.arbitration_id & 1 << 17 for frame in first)
    give(bench.pack, first)
    events = bench.carry()
    assert [(name, event.kind, event.arbitration_id, event.data) for name, event in events] == [
        ("pack", OPENED, STATUS_1, data)
    ]


def test_can_fd_puts_a_record_into_one_frame():
    bench = Bench(fd=True).connect()
    frames = kept(bench.module.seal(STATUS_1, bytes(36)))
    assert len(frames) == 1 and frames[0].is_fd
    assert give(bench.pack, frames).data == bytes(36)
    give(bench.pack, bench.module.seal(STATUS_1, bytes(37)))
    assert [event.data for _, event in bench.carry()] == [bytes(37)]


def test_a_replayed_record_is_refused():
    bench = Bench().connect()
    frames = kept(bench.module.seal(STATUS_1, b"12345678"))
    assert give(bench.pack, frames).kind == OPENED
    again = kept(bench.module.seal(STATUS_1, b"next one"))
    give(bench.pack, again)
    event = give(bench.pack, frames)
    assert (event.kind, event.reason) == (REFUSED, "replay")
    assert bench.pack.stats["replay"] == 1


def test_each_flipped_bit_is_refused_and_moves_nothing():
    bench = Bench().connect()
    frames = kept(bench.module.seal(STATUS_1, b"12345678"))
    for index in range(5):
        for bit in range(0, 8 * len(frames[index].data), 13):
            bad = list(frames)
            data = bytearray(bad[index].data)
            data[bit // 8] ^= 1 << bit % 8
            bad[index] = Frame(bad[index].arbitration_id, bytes(data))
            event = give(bench.pack, bad)
            assert event.kind == REFUSED, (index, bit)
            assert event.reason in ("tag", "unknown-session", "old"), event.reason
    assert give(bench.pack, frames).kind == OPENED


def test_a_record_moved_to_another_id_or_node_is_refused():
    bench = Bench().connect()
    frames = kept(bench.module.seal(STATUS_1, b"12345678"))
    moved = [Frame(frame.arbitration_id + (1 << 18), frame.data) for frame in frames]
    assert give(bench.pack, moved).reason == "tag"
    other = Bench()
    other.pack = Channel(SECRET, INITIATOR, 6, urandom=Entropy(1), local="pack", peer="module", clock=other.clock)
    assert give(other.pack, frames) is None


def test_a_record_reflected_to_its_sender_is_refused():
    bench = Bench().connect()
    frames = kept(bench.module.seal(STATUS_1, b"12345678"))
    assert give(bench.module, frames).reason == "unknown-session"


def test_a_truncated_record_is_refused():
    bench = Bench().connect()
    frames = kept(bench.module.seal(STATUS_1, b"12345678"))
    cut = [Frame(frame.arbitration_id & ~0xF00 | 2 << 8, frame.data) for frame in frames[:3]]
    assert give(bench.pack, cut).reason == "short"


def test_a_command_held_back_for_more_than_4_seconds_does_nothing():
    bench = Bench().connect()
    give(bench.pack, bench.module.seal(STATUS_1, bytes(8)))
    held = kept(bench.pack.seal(STATE_CHANGE, b"\x00\x03\x00\x00"))
    bench.clock.now_ms += 4200
    event = give(bench.module, held)
    assert (event.kind, event.reason) == (REFUSED, "stale")
    give(bench.pack, bench.module.seal(STATUS_1, bytes(8)))
    event = give(bench.module, bench.pack.seal(STATE_CHANGE, b"\x00\x03\x00\x00"))
    assert (event.kind, event.data) == (OPENED, b"\x00\x03\x00\x00")


def test_a_command_of_a_sender_that_hears_nothing_goes_stale():
    bench = Bench().connect()
    assert give(bench.module, bench.pack.seal(STATE_CHANGE, bytes(4))).kind == OPENED
    bench.clock.now_ms += 4101
    for _ in range(2):
        bench.module.seal(STATUS_1, bytes(8))  # sent, but lost
    assert give(bench.module, bench.pack.seal(STATE_CHANGE, bytes(4))).reason == "stale"


def test_commands_have_no_window():
    bench = Bench().connect()
    first = kept(bench.pack.seal(STATE_CHANGE, b"\x00\x01\x00\x00"))
    second = kept(bench.pack.seal(POLL, b"\x03"))
    assert give(bench.module, second).kind == OPENED
    assert give(bench.module, first).reason == "replay"


def test_telemetry_may_arrive_out_of_order_but_once():
    bench = Bench().connect()
    records = [kept(bench.module.seal(STATUS_1 + (n << 18), bytes((n,)))) for n in range(3)]
    for index in (2, 0, 1):
        assert give(bench.pack, records[index]).data == bytes((index,))
    assert give(bench.pack, records[0]).reason == "replay"


def test_clear_frames_are_refused_once_there_is_a_session():
    bench = Bench()
    clear = Frame(STATE_CHANGE, b"\x00\x03\x00\x00")
    assert bench.module.feed(clear) is None
    bench.connect()
    event = bench.module.feed(clear)
    assert (event.kind, event.reason, event.arbitration_id) == (REFUSED, "clear", STATE_CHANGE)
    assert bench.module.feed(Frame(0x500 << 18 | 5, bytes(8))) is None  # an announcement stays open


def test_the_sender_may_not_seal_what_cannot_be_sealed_or_before_it_is_connected():
    bench = Bench()
    assert "connect" in str(raises(ChannelError, bench.pack.seal, STATE_CHANGE, bytes(4)))
    bench.connect()
    raises(PolicyError, bench.pack.seal, 0x3F1 << 18 | 5, bytes(8))
    assert "responder" in str(raises(ChannelError, bench.module.connect))


def test_different_secrets_never_meet():
    bench = Bench()
    bench.module = Channel(bytes(32), RESPONDER, 5, urandom=Entropy(2), local="module", peer="pack", clock=bench.clock)
    bench.pack.connect()
    events = bench.carry()
    assert [(name, event.reason) for name, event in events] == [("pack", "handshake-mac")]
    assert not bench.pack.established and not bench.module.established


def test_different_names_links_or_policies_never_meet():
    bench = Bench()
    for options in (
        {"local": "module", "peer": "other"},
        {"local": "module", "peer": "pack", "policy": Policy.open_bus()},
    ):
        bench.module = Channel(SECRET, RESPONDER, 5, urandom=Entropy(2), clock=bench.clock, **options)
        bench.clock.now_ms += 2000
        bench.pack.connect()
        assert [event.reason for _, event in bench.carry()] == ["handshake-mac"]
    bench.module = Channel(
        SECRET, RESPONDER, 5, urandom=Entropy(2), clock=bench.clock, local="module", peer="pack", link=VCU_LINK
    )
    bench.pack.connect()
    assert bench.carry() == []


def test_a_forged_or_replayed_handshake_leaves_the_live_session_alone():
    bench = Bench().connect()
    hello = [frame for frame in bench.log if frame.arbitration_id >> 18 == MODULE_LINK.handshake[0]][:4]
    bench.clock.now_ms += 2000
    give(bench.module, hello)  # a replayed HELLO is answered ...
    assert len(bench.module.outgoing()) > 0
    event = give(bench.pack, bench.module.seal(STATUS_1, b"12345678"))
    assert event.kind == OPENED  # ... and changes nothing
    assert give(bench.module, bench.pack.seal(POLL, b"\x03")).kind == OPENED


def test_one_hello_a_second_is_answered():
    bench = Bench()
    bench.pack.connect()
    hello = bench.pack.outgoing()
    give(bench.module, hello)
    assert bench.module.outgoing()
    bench.clock.now_ms += 999
    event = give(bench.module, hello)
    assert event.reason == "handshake-rate"
    assert not bench.module.outgoing()
    bench.clock.now_ms += 1
    give(bench.module, hello)
    assert bench.module.outgoing()


def test_a_node_refuses_its_own_role():
    bench = Bench()
    bench.pack.connect()
    hello = bench.pack.outgoing()
    reflected = [
        Frame(frame.arbitration_id + ((MODULE_LINK.handshake[1] - MODULE_LINK.handshake[0]) << 18), frame.data)
        for frame in hello
    ]
    assert give(bench.pack, reflected).reason == "handshake-role"


def test_an_unanswered_hello_is_repeated_and_a_lost_finish_does_no_harm():
    bench = Bench()
    bench.pack.connect()
    bench.pack.outgoing()  # lost
    bench.pack.tick()
    assert bench.pack.outgoing() == []
    bench.clock.now_ms += 1100
    bench.pack.tick()
    give(bench.module, bench.pack.outgoing())
    give(bench.pack, bench.module.outgoing())
    assert bench.pack.established
    bench.pack.outgoing()  # FINISH is lost
    assert not bench.module.established
    event = give(bench.module, bench.pack.seal(POLL, b"\x03"))
    assert event.kind == OPENED
    assert bench.module.established


def test_both_ends_survive_a_reboot_of_either():
    bench = Bench().connect()
    old = kept(bench.module.seal(STATUS_1, b"12345678"))
    bench.module = Channel(
        SECRET, RESPONDER, 5, urandom=Entropy(77), local="module", peer="pack", clock=bench.clock, boot_counter=2
    )
    bench.clock.now_ms += 2000
    assert give(bench.module, bench.pack.seal(POLL, b"\x03")).reason == "unknown-session"
    bench.connect()
    # the new session takes over with its first record; what was sealed in the old one is then of no use
    assert give(bench.pack, bench.module.seal(STATUS_1, b"new")).data == b"new"
    assert give(bench.pack, old).reason == "unknown-session"
    bench.pack = Channel(
        SECRET, INITIATOR, 5, urandom=Entropy(99), local="pack", peer="module", clock=bench.clock, boot_counter=9
    )
    bench.clock.now_ms += 2000
    bench.connect()
    assert give(bench.module, bench.pack.seal(POLL, b"\x03")).kind == OPENED


def test_rotation_loses_no_record():
    bench = Bench().connect()
    in_flight = kept(bench.module.seal(STATUS_1, b"old one"))
    bench.pack.install(bytes(range(32, 64)), 1)
    bench.module.install(bytes(range(32, 64)), 1)
    bench.clock.now_ms += 1000
    bench.connect()
    assert give(bench.pack, in_flight).epoch == 0
    event = give(bench.pack, bench.module.seal(STATUS_1, b"new one"))
    assert (event.data, event.epoch) == (b"new one", 1)
    assert "above" in str(raises(ChannelError, bench.pack.install, bytes(32), 1))


def test_the_first_record_under_a_new_epoch_ends_the_one_before():
    bench = Bench().connect()
    for end in (bench.pack, bench.module):
        end.install(bytes(range(32, 64)), 1)
    bench.clock.now_ms += 1000
    bench.connect()
    give(bench.pack, bench.module.seal(STATUS_1, b"new"))
    give(bench.module, bench.pack.seal(POLL, b"\x03"))
    thief = Bench().pack  # with the old root
    thief.connect()
    assert give(bench.module, thief.outgoing()).reason == "handshake-epoch"
    assert list(bench.pack._roots) == list(bench.module._roots) == [1]


def test_an_epoch_only_one_end_has_leaves_the_old_one_running():
    bench = Bench().connect()
    bench.pack.install(bytes(range(32, 64)), 1)
    bench.clock.now_ms += 1000
    bench.pack.connect()
    assert [event.reason for _, event in bench.carry()] == ["handshake-epoch"]
    assert give(bench.module, bench.pack.seal(POLL, b"\x03")).epoch == 0


def test_the_record_limit_stops_the_sender():
    bench = Bench(max_records=3).connect()
    for _ in range(3):
        bench.module.seal(STATUS_1, b"")
    assert "rotate" in str(raises(ChannelError, bench.module.seal, STATUS_1, b""))


def test_secrets_stay_out_of_repr_and_a_closed_channel_is_dead():
    bench = Bench().connect()
    assert "000102" not in repr(bench.pack) and "established" in repr(bench.pack)
    bench.pack.close()
    raises(ChannelError, bench.pack.seal, POLL, b"")


def test_arguments_are_checked_and_named():
    clock = Clock()
    assert "role" in str(raises(ChannelError, Channel, SECRET, 3, 5, clock, Entropy(1), "a", "b"))
    assert "name both ends" in str(raises(ChannelError, Channel, SECRET, INITIATOR, 5, clock, Entropy(1)))
    assert "16" in str(raises(ChannelError, Channel, b"short", INITIATOR, 5, clock, Entropy(1), "a", "b"))


def test_junk_never_raises():
    bench = Bench().connect()
    entropy = Entropy(5)
    for _ in range(3000):
        raw = entropy(14)
        arbitration_id = int.from_bytes(raw[:4], "big") & 0x1FFFFF00 | 5
        frame = Frame(arbitration_id, raw[4 : 4 + raw[12] % 9], raw[13] & 1 == 1)
        bench.module.feed(frame)
        bench.pack.feed(frame)
    assert give(bench.pack, bench.module.seal(STATUS_1, b"still here")).data == b"still here"
