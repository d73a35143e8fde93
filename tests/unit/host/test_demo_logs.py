"""The demo's reading of bus logs: lines, transfers, records, secrecy, polls, bursts, commands."""

import random

import pytest

from packtrust.arbitration import ENCRYPTED, TOGGLE, compose
from packtrust.channel import CITATION_LENGTH
from packtrust.frame import Frame
from packtrust.group import GroupSender
from packtrust.isotp import IsoTpLink
from packtrust.messages import by_name, encode
from packtrust.record import RecordCipher
from packtrust.segmentation import Segmenter
from packtrust.workspace import Workspace
from packtrust_host.demo import measure
from packtrust_host.demo.buslog import (
    ISOTP,
    RECORD,
    LogError,
    LogFrame,
    assemble,
    parse,
    parse_line,
    read,
)
from packtrust_host.demo.records import KeyRing, open_all

MATERIAL = {0: bytes(range(100, 136)), 1: bytes(range(150, 186))}
APP = b"app's fingerprint..............."
PACK = b"pack's fingerprint.............."
PACK_NODE = 0x40
FRAME_US = 250


class Wire:
    """Makes a log: `seal` as the nodes would, `clear` as anybody might. Directions: 0 from the initiator."""

    def __init__(self):
        self.frames = []
        self.now_us = 1_000_000
        self.segmenters = {0: Segmenter(), 1: Segmenter()}
        self.ciphers = {
            direction: RecordCipher(material[:32], material[32:], direction, (APP, PACK)[direction][:4])
            for direction, material in MATERIAL.items()
        }
        self.counters = {0: 0, 1: 0}

    def at(self, ms):
        self.now_us = max(self.now_us, round(ms * 1000))
        return self

    def put(self, frame):
        self.now_us += FRAME_US
        self.frames.append(LogFrame(self.now_us, frame.arbitration_id, frame.is_extended_id, bytes(frame.data)))

    def clear(self, identifier, data, extended=True):
        self.put(Frame(identifier, data, extended))

    def seal(self, name, node, direction, cited=False, **values):
        identifier = compose(by_name(name).base, node) | ENCRYPTED
        plaintext = (b"\0\0\0\1" if cited else b"") + bytes(encode(name, values))
        self.counters[direction] += 1
        record = self.ciphers[direction].seal(identifier, self.counters[direction], plaintext)
        for frame in self.segmenters[direction].split(identifier, record):
            self.put(frame)

    def log(self, name="vcu"):
        return assemble(name, self.frames)

    def records(self, name="vcu"):
        return open_all(self.log(name), KeyRing(MATERIAL.values(), [APP, PACK]))


# -- lines -------------------------------------------------------------------------------------------------------------


def test_line_of_a_standard_and_an_extended_frame():
    assert parse_line("(1700000000.000123) vcu 410#0102") == LogFrame(1_700_000_000_000_123, 0x410, False, b"\x01\x02")
    assert parse_line("(1.500000) module 14480001#") == LogFrame(1_500_000, 0x14480001, True, b"")


def test_line_of_a_remote_frame_is_passed_over():
    assert parse_line("(1.500000) vcu 410#R8") is None


@pytest.mark.parametrize(
    "line",
    ["", "nonsense", "(1.5) vcu 410#00", "(1.500000) vcu 410#0", "(1.500000) vcu 41#00", "(1.500000) vcu 410#0G"],
)
def test_line_that_is_none_is_an_error(line):
    with pytest.raises(LogError):
        parse_line(line)


def test_log_tells_the_bad_line_and_leaves_out_the_unfinished_one():
    good = "(1.000000) vcu 410#00\n"
    assert len(list(parse([good, "\n", good, "(1.0000"]))) == 2
    with pytest.raises(LogError, match="line 2"):
        list(parse([good, "what\n"]))


def test_log_file_is_read(tmp_path):
    path = tmp_path / "vcu.log"
    path.write_text("(1.000000) vcu 410#00\n(1.000250) vcu 14480001#11\n")
    log = read(path, "vcu")
    assert [frame.identifier for frame in log.frames] == [0x410, 0x14480001]


# -- transfers ---------------------------------------------------------------------------------------------------------


def test_records_are_put_together_over_interleaved_streams():
    one, two = compose(0x502, 1) | ENCRYPTED, compose(0x502, 2) | ENCRYPTED
    segmenter = Segmenter()
    first, second = segmenter.split(one, bytes(36)), segmenter.split(two, bytes(range(36)))
    wire = Wire()
    for pair in zip(first, second, strict=True):
        for frame in pair:
            wire.put(frame)
    log = wire.log()
    assert [(item.identifier, item.payload) for item in log.transfers] == [(one, bytes(36)), (two, bytes(range(36)))]
    assert log.transfers[0].end_us - log.transfers[0].start_us == 8 * FRAME_US
    assert log.fragments == []


def test_missing_chunk_makes_a_fragment_not_a_record():
    wire = Wire()
    for number, frame in enumerate(Segmenter().split(compose(0x502, 1) | ENCRYPTED, bytes(36))):
        if number != 2:
            wire.put(frame)
    log = wire.log()
    assert log.transfers == []
    assert [item.problem for item in log.fragments] == [
        "chunk 3 of another payload came",
        "chunk 3 came alone",
        "chunk 4 came alone",
    ]


def test_frame_sent_twice_is_taken_once():
    wire = Wire()
    for frame in Segmenter().split(compose(0x502, 1) | ENCRYPTED, bytes(range(36))):
        wire.put(frame)
        wire.put(frame)
    log = wire.log()
    assert log.transfers[0].payload == bytes(range(36))
    assert len(log.transfers) == 1


def test_toggle_that_changes_within_a_payload_ends_it():
    wire = Wire()
    for number, frame in enumerate(Segmenter().split(compose(0x502, 1) | ENCRYPTED, bytes(20))):
        frame.arbitration_id ^= TOGGLE if number == 1 else 0
        wire.put(frame)
    assert wire.log().transfers == []


def test_isotp_transfers_both_ways_are_put_together():
    wire = Wire()
    there, back = (
        IsoTpLink(compose(0x431, 0x40), compose(0x432, 0x40)),
        IsoTpLink(compose(0x432, 0x40), compose(0x431, 0x40)),
    )
    there.send(bytes(range(200)), 0)
    back.send(b"short", 0)
    for _ in range(4):
        for link, peer in ((there, back), (back, there)):
            for frame in link.outgoing():
                wire.put(frame)
                peer.feed(frame, 0)
    log = wire.log()
    assert sorted(item.payload for item in log.transfers) == sorted([bytes(range(200)), b"short"])
    assert {item.kind for item in log.transfers} == {ISOTP}
    assert log.fragments == []


def test_isotp_that_breaks_off_is_kept_for_the_search():
    wire = Wire()
    link = IsoTpLink(1 << 18, 2)
    link.send(bytes(range(50)), 0)
    first = link.outgoing()[0]
    wire.put(Frame(compose(0x431, 0x40), bytes(first.data)))
    log = wire.log()
    assert log.transfers[0].payload == bytes(range(6))
    assert log.fragments[0].problem == "the log ended before it"


@pytest.mark.parametrize("whole", [True, False])
def test_a_sealed_transfer_is_a_record_unless_it_breaks_off(whole):
    wire = Wire()
    there = IsoTpLink(compose(0x431, PACK_NODE) | ENCRYPTED, compose(0x432, PACK_NODE) | ENCRYPTED)
    back = IsoTpLink(compose(0x432, PACK_NODE) | ENCRYPTED, compose(0x431, PACK_NODE) | ENCRYPTED)
    canonical_id = compose(0x416, PACK_NODE) | ENCRYPTED
    there.send(canonical_id.to_bytes(4, "big") + wire.ciphers[0].seal(canonical_id, 1, bytes(60)), 0)
    frames = there.outgoing()
    while frames:
        for frame in frames:
            wire.put(frame)
            back.feed(frame, 0)
        for frame in back.outgoing() if whole else []:
            there.feed(frame, 0)
        frames = there.outgoing()
    records = wire.records()
    assert wire.log().transfers[0].whole == whole
    assert (len(records.opened), records.bad) == (int(whole), [])


# -- records -----------------------------------------------------------------------------------------------------------


def test_records_open_with_the_right_direction():
    wire = Wire()
    wire.seal("MODULE_POWER", PACK_NODE, 1, module_id=2, voltage_mv=48000, current_ma=-20000)
    wire.seal("KEEP_ALIVE", PACK_NODE, 0, cited=True, module_id=0)
    records = wire.records()
    assert [(item.base, item.direction, item.counter) for item in records.opened] == [(0x412, 1, 1), (0x405, 0, 1)]
    assert records.opened[1].data == bytes(encode("KEEP_ALIVE", module_id=0))
    assert records.both_ways(PACK_NODE) == (1, 1)
    assert records.both_ways(1) == (0, 0)
    assert records.bad == []


def test_forged_and_unknown_records_are_told_apart():
    wire = Wire()
    wire.seal("MODULE_POWER", PACK_NODE, 1, module_id=2, voltage_mv=48000, current_ma=0)
    forged = wire.frames[-1]
    wire.frames[-1] = LogFrame(forged.time_us, forged.identifier, True, bytes(4))
    for frame in Segmenter().split(compose(0x413, PACK_NODE) | ENCRYPTED, random.Random(1).randbytes(36)):
        wire.put(frame)
    for frame in Segmenter().split(compose(0x414, PACK_NODE) | ENCRYPTED, bytes(20)):
        wire.put(frame)
    records = wire.records()
    assert (len(records.forged), len(records.unknown), len(records.short)) == (1, 1, 1)
    assert records.opened == []


def test_key_ring_shows_no_keys():
    ring = KeyRing(MATERIAL.values(), [APP])
    assert "2 session" in repr(ring)
    assert MATERIAL[0].hex() not in repr(ring)


# -- secrecy -----------------------------------------------------------------------------------------------------------


def sealed_traffic():
    wire = Wire()
    for ms in range(1000, 3000, 100):
        wire.at(ms).seal("MODULE_POWER", PACK_NODE, 1, module_id=1, voltage_mv=48000, current_ma=0)
        wire.clear(0x410, bytes(8), extended=False)
    return wire


def test_sealed_traffic_with_what_policy_leaves_clear_is_in_order():
    wire = sealed_traffic()
    wire.clear(compose(by_name("PACK_ANNOUNCEMENT").base, PACK_NODE), bytes(8))
    result = measure.secrecy(wire.log(), {PACK_NODE: 0})
    assert result.ok
    assert result.violations == []
    assert (result.sealed, result.records) == (100, 20)
    assert result.allowed == {"11-bit to the VCU": 20, "announce": 1}


@pytest.mark.parametrize(
    ("identifier", "extended", "what"),
    [
        (compose(by_name("MODULE_POWER").base, PACK_NODE), True, "MODULE_POWER, node 0x40) is in clear"),
        (compose(by_name("COMMAND").base, PACK_NODE), True, "COMMAND, node 0x40) is in clear"),
        (0x400, False, "frame 400 (COMMAND) is in clear"),
        (0x7DF, False, "frame 7DF is in clear"),
        (compose(0x7F0, 3), True, "is in clear"),
        (compose(by_name("PACK_ANNOUNCEMENT").base, PACK_NODE) | ENCRYPTED, True, "cannot be sealed"),
    ],
)
def test_one_frame_that_should_not_be_is_seen(identifier, extended, what):
    wire = sealed_traffic()
    wire.clear(identifier, bytes(8), extended)
    result = measure.secrecy(wire.log(), {PACK_NODE: 0})
    assert not result.ok
    assert [what in text for text in result.violations] == [True]


def test_what_came_before_the_keys_is_not_judged():
    wire = Wire()
    wire.clear(compose(by_name("MODULE_POWER").base, PACK_NODE), bytes(8))
    keyed_us = wire.now_us + 1
    wire.seal("MODULE_POWER", PACK_NODE, 1, module_id=1, voltage_mv=48000, current_ma=0)
    assert measure.secrecy(wire.log(), {PACK_NODE: keyed_us}).ok
    assert not measure.secrecy(wire.log(), {PACK_NODE: 0}).ok


def test_node_without_keys_owes_nothing_until_all_have_them():
    wire = Wire()
    wire.clear(compose(by_name("STATUS_1").base, 3), bytes(8))
    wire.at(2000).seal("STATUS_1", 1, 1, state=0, status=0, soc_permille=1, soh_permille=1, cell_count=1, current_ma=0,
                       voltage_mv=0)  # fmt: skip
    assert measure.secrecy(wire.log("module"), {1: 1_500_000}).ok


def test_record_cut_short_is_seen_unless_the_log_ended_there():
    wire = sealed_traffic()
    wire.at(5000).seal("MODULE_POWER", PACK_NODE, 1, module_id=1, voltage_mv=48000, current_ma=0)
    del wire.frames[-1]
    log = wire.log()
    assert measure.secrecy(log, {PACK_NODE: 0}, log.frames[-1].time_us).ok
    result = measure.secrecy(log, {PACK_NODE: 0}, log.frames[-1].time_us + 1_000_000)
    assert ["makes no record" in text for text in result.violations] == [True]


def test_nothing_sealed_is_not_in_order():
    wire = Wire()
    wire.clear(0x410, bytes(8), extended=False)
    assert not measure.secrecy(wire.log(), {PACK_NODE: 0}).ok


# -- polls -------------------------------------------------------------------------------------------------------------

STATUS = {
    "STATUS_1": {"state": 3, "status": 2, "soc_permille": 500, "soh_permille": 990, "cell_count": 12, "current_ma": 0,
                 "voltage_mv": 48000},
    "STATUS_2": {"cell_min_mv": 3900, "cell_max_mv": 3950, "cell_avg_mv": 3920, "cell_total_mv": 48000},
    "STATUS_3": {"cell_min_centi_c": 2500, "cell_max_centi_c": 2500, "cell_avg_centi_c": 2500},
    "CELL_COMM_STATUS1": {"fewest_messages": 3, "most_messages": 3, "first_i2c_cell": 255},
    "FAULT_CODES": {"fault_code": 0, "first_cell": 255, "fault_count": 0, "changed_ms": 0},
}  # fmt: skip
WINDOW = measure.Window(1_000_000, 4_000_000)


def poll(wire, node, ms, delay_ms=5.0, leave_out=""):
    wire.at(ms).seal("STATUS_REQUEST", node, 0, cited=True, max_state=3)
    wire.at(ms + delay_ms)
    for name, values in STATUS.items():
        if name != leave_out:
            wire.seal(name, node, 1, **values)


def test_polls_are_measured_from_first_frame_to_last_answer():
    wire = Wire()
    for number in range(30):
        poll(wire, number % 2 + 1, 1000 + 100 * number + 1)
    result = measure.polls(wire.records("module"), {1, 2}, WINDOW)
    assert result.problems() == []
    assert len(result.all_ms) == 30
    # 5 frames of the poll and then from 5 ms on 25 frames: 5 + 25 * 0.25, less the poll's first frame.
    assert result.all_ms[0] == pytest.approx(5 + 25 * 0.25 - 0.25)


def test_late_and_missing_answers_are_named():
    wire = Wire()
    for number in range(30):
        poll(wire, 1, 1000 + 100 * number + 1, leave_out="STATUS_3" if number == 7 else "")
    late = measure.polls(wire.records("module"), {1}, WINDOW)
    assert late.problems() == ["module 1 did not answer the poll at 0.701 s"]
    wire = Wire()
    for number in range(15):
        poll(wire, 1, 1000 + 200 * number + 1, delay_ms=110 if number == 3 else 5)
    slow = measure.polls(wire.records("module"), {1}, WINDOW, period_ms=200)
    assert len(slow.problems()) == 1
    assert "module 1 answered the poll at 0.601 s after 116.0 ms" in slow.problems()[0]


def test_too_few_polls_and_a_module_never_polled_are_named():
    wire = Wire()
    for number in range(10):
        poll(wire, 1, 1000 + 300 * number + 1)
    problems = measure.polls(wire.records("module"), {1, 2}, WINDOW).problems()
    assert problems == ["only 10 polls, there is room for 30", "module 2 was never polled"]


# -- bursts ------------------------------------------------------------------------------------------------------------


def burst_log(times_ms, leave_out=()):
    wire = Wire()
    for number, ms in enumerate(times_ms):
        wire.at(ms)
        for name in measure.BURST:
            if (number, name) not in leave_out:
                wire.clear(by_name(name).base, bytes(8), extended=False)
    return wire.log()


def test_bursts_on_time():
    result = measure.bursts(burst_log(range(1100, 4000, 500)), WINDOW)
    assert result.problems == []
    assert len(result.intervals_ms) == 8 * 5
    assert set(result.intervals_ms) == {500.0}


def test_burst_that_is_late_or_missing_is_named():
    late = measure.bursts(burst_log([1100, 1600, 2160, 2600, 3100, 3600]), WINDOW)
    assert "BMS_STATE (0x410) came 560.0 ms after the one at 0.600 s" in late.problems[0]
    assert len(late.problems) == 8 * 2  # one too long, the next too short
    missing = measure.bursts(burst_log(range(1100, 4000, 500), {(2, "PACK_POWER")}), WINDOW)
    assert missing.problems == ["PACK_POWER (0x421) came 1000.0 ms after the one at 0.601 s"]


def test_bursts_that_end_early_are_named():
    result = measure.bursts(burst_log(range(1100, 3000, 500)), WINDOW)
    assert len(result.problems) == 8
    assert "missing at an end" in result.problems[0]


# -- commands ----------------------------------------------------------------------------------------------------------


def command(wire, ms, state, **values):
    wire.at(ms).seal("COMMAND", PACK_NODE, 0, cited=True, contactor_state=state, **values)


def show(wire, ms, module, state, current_ma):
    wire.at(ms).seal("MODULE_STATE", PACK_NODE, 1, module_id=module, state=state)
    wire.seal("MODULE_POWER", PACK_NODE, 1, module_id=module, voltage_mv=48000, current_ma=current_ma)


def on_and_off(delay_ms=20.0, current_ma=-20000):
    wire = Wire()
    for number in range(5):
        at = 1100 + 500 * number
        state = 3 if number % 2 == 0 else 0
        command(wire, at, state)
        for module in (1, 2):
            show(wire, at + delay_ms, module, state, current_ma if state == 3 else 0)
    return wire


def test_commands_are_measured_to_the_record_that_shows_the_state():
    result = measure.commands(on_and_off().records(), {1, 2}, WINDOW)
    assert result.count == 5
    assert result.problems() == []
    assert result.latencies_ms[1][0] == pytest.approx(20 + 5 * 0.25 - 0.25)
    assert result.latencies_ms[2][0] == pytest.approx(20 + 15 * 0.25 - 0.25)


def test_slow_commands_are_named():
    problems = measure.commands(on_and_off(delay_ms=310).records(), {1, 2}, WINDOW).problems()
    assert len(problems) == 1
    assert problems[0].startswith("command to authentic new state takes 31")


def test_module_that_shows_the_state_but_no_current_disobeys():
    problems = measure.commands(on_and_off(current_ma=0).records(), {1, 2}, WINDOW).problems()
    assert "module 1 does not obey On at 0.100 s: it reports On, but a current of 0.00 A" in problems
    assert len(problems) == 2 * 3  # On, three times, each module


def test_module_that_does_not_change_disobeys_and_a_repeat_is_no_command():
    wire = Wire()
    command(wire, 1100, 3)
    show(wire, 1120, 1, 3, -20000)
    show(wire, 1130, 2, 0, 0)
    command(wire, 2100, 3)
    result = measure.commands(wire.records(), {1, 2}, WINDOW)
    assert result.count == 1
    assert result.problems() == ["module 2 does not obey On at 0.100 s: it reports Off"]


def test_answer_that_comes_after_the_next_command_is_too_late():
    wire = Wire()
    command(wire, 1100, 3)
    command(wire, 1600, 0)
    show(wire, 1700, 1, 3, -20000)
    show(wire, 1800, 1, 0, 0)
    problems = measure.commands(wire.records(), {1}, WINDOW).problems()
    assert problems == ["module 1 does not obey On at 0.100 s: it reports unknown"]


def test_no_commands_are_a_problem():
    assert measure.commands(Wire().records(), {1}, WINDOW).problems() == ["no command was given, or none was obeyed"]


def test_limits_are_kept_or_broken():
    for current, broken in ((-10000, 0), (-20000, 1)):
        wire = Wire()
        wire.at(1100).seal(
            "LIMITS_COMMAND", PACK_NODE, 0, cited=True, module_id=0, max_charge_ma=5000, max_discharge_ma=10000
        )
        show(wire, 1200, 1, 3, -20000)  # still on its way down
        show(wire, 2000, 1, 3, current)
        count, problems = measure.limits(wire.records(), {1}, WINDOW)
        assert count == 1
        assert len(problems) == broken


def test_course_follows_cells_through_the_window():
    wire = Wire()
    for number in range(6):
        wire.at(1000 + 500 * number)
        wire.seal("CELL_DETAIL", PACK_NODE, 1, module_id=1, cell_id=0, cell_mv=4000 - 100 * number, cell_centi_c=2500,
                  soc_permille=500, soh_permille=990)  # fmt: skip
    samples = measure.course(wire.records(), {1}, WINDOW, steps=3)
    assert [(item.at_s, item.cells_mv) for item in samples] == [(0.0, []), (1.0, [3900]), (2.0, [3700])]


def test_percentile_is_the_nearest_rank():
    values = [float(value) for value in range(1, 101)]
    assert measure.percentile(values, 50) == 50
    assert measure.percentile(values, 99) == 99
    assert measure.percentile([7.0], 99) == 7
    assert measure.percentile([], 99) is None
    assert measure.figures([]) == {"count": 0, "p50_ms": None, "p99_ms": None, "max_ms": None}


@pytest.mark.parametrize("fd", [False, True])
def test_a_broadcast_on_the_bus_before_the_record_that_brings_its_key_is_opened(fd):
    wire = Wire()
    secret = bytes(range(32))
    sender = GroupSender(Workspace(), secret, APP)
    for frame in sender.seal(compose(0x517, 0), b"\x02"):
        wire.put(frame)
    assert len(wire.records().bad) == 1
    canonical_id = compose(by_name("GROUP_KEY").base, 3) | ENCRYPTED
    plaintext = bytes(CITATION_LENGTH) + bytes(4) + secret  # cited, then beat 0
    record = wire.ciphers[0].seal(canonical_id, 1, plaintext)
    if fd:  # a record of more than 64 bytes goes by ISO-TP there
        there, back = [IsoTpLink(compose(0x538, 3) | ENCRYPTED, compose(0x539, 3) | ENCRYPTED) for _ in range(2)]
        there.send(canonical_id.to_bytes(4, "big") + record, 0)
        for frame in there.outgoing():
            back.feed(frame, 0)
            wire.put(frame)
        there.feed(back.outgoing()[0], 0)
        for frame in there.outgoing():
            wire.put(frame)
    else:
        for frame in wire.segmenters[0].split(canonical_id, record):
            wire.put(frame)
    records = wire.records()
    assert [item.base for item in records.opened] == [0x517, 0x51B] and records.bad == []
    assert records.opened[0].data == b"\x02"


def test_records_of_kind_are_found():
    wire = Wire()
    wire.seal("MODULE_POWER", PACK_NODE, 1, module_id=1, voltage_mv=48000, current_ma=0)
    found = wire.log().of_base(by_name("MODULE_POWER").base)
    assert [item.kind for item in found] == [RECORD]


# -- CAN FD ------------------------------------------------------------------------------------------------------------


def fd_line(identifier, data, ms):
    return "(1.%06d) module %08X##1%s" % (ms * 1000, identifier, data.hex().upper())


def test_a_record_in_one_fd_frame():
    frame = Segmenter().single_fd(compose(0x508, 5) | ENCRYPTED, bytes(range(36)))
    line = fd_line(frame.arbitration_id, bytes(frame.data), 7)
    seen = parse_line(line)
    assert seen == LogFrame(1_007_000, frame.arbitration_id, True, bytes(range(36)) + bytes(12), True)
    # The same frame twice, as CAN may deliver it, is one record.
    log = assemble("module", [seen, parse_line(fd_line(frame.arbitration_id, bytes(frame.data), 8))])
    assert [(item.kind, item.payload, item.start_us, item.end_us) for item in log.transfers] == [
        (RECORD, bytes(range(36)), 1_007_000, 1_007_000)
    ]
    assert log.fragments == []


def test_fd_frames_of_a_wrong_length_are_fragments():
    base = compose(0x508, 5) | ENCRYPTED
    lines = [
        fd_line(base | 49 << 8, bytes(48), 1),  # longer than its data
        fd_line(base | 36 << 8, bytes(47) + b"x", 2),  # padding that is none
        fd_line(base, bytes(48), 3),
    ]
    log = assemble("module", [parse_line(line) for line in lines])
    assert log.transfers == [] and len(log.fragments) == 3


@pytest.mark.parametrize("length", [5, 40, 62, 63, 300])
def test_isotp_over_fd(length):
    sender, receiver = IsoTpLink(0x14E20005, 0x14C20005, fd=True), IsoTpLink(0x14C20005, 0x14E20005, fd=True)
    payload = bytes(number & 0xFF for number in range(length))
    frames = []
    sender.send(payload, 0)
    while out := [(frame, sender) for frame in sender.outgoing()] + [
        (frame, receiver) for frame in receiver.outgoing()
    ]:
        for frame, source in out:
            frames.append(LogFrame(len(frames) * 1000, frame.arbitration_id, True, bytes(frame.data), True))
            (receiver if source is sender else sender).feed(frame, 0)
    log = assemble("module", frames)
    assert [(item.kind, item.payload) for item in log.transfers] == [(ISOTP, payload)]
