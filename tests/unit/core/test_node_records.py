"""What a node stores, queues and counts: records of identity and relationship, mailbox, slots, latency."""

from nodebench import App, Bench
from packtrust.channel import MODULE_LINK
from packtrust.errors import CryptoError, StorageError
from packtrust.handshake import INITIATOR
from packtrust.isotp import IsoTpLink
from packtrust.keys import SIDE_A, SIDE_B, fingerprint
from packtrust.messages.compact import encode
from packtrust.package import KeyPackage
from packtrust_node import identity, relation
from packtrust_node.aggregate import pack_frames, pack_state
from packtrust_node.mailbox import Mailbox
from packtrust_node.neighbour import Bus
from packtrust_node.slots import (
    GOT_DETAIL,
    GOT_FAULT,
    GOT_HARDWARE,
    GOT_STATUS_1,
    GOT_STATUS_2,
    GOT_STATUS_3,
    UNKNOWN_CENTI_C,
    Latency,
    Slot,
    free_number,
)
from portable import raises


def counting(start=0):
    state = [start]

    def urandom(count):
        state[0] += 1
        return bytes([(state[0] * 7 + at) & 0xFF for at in range(count)])

    return urandom


def test_identity_record_comes_back():
    made = identity.make(counting())
    assert len(made.private) == 32 and len(made.claim_code) == 16
    assert not made.claimed and made.owner_fingerprint == bytes(32)
    got = identity.decode(made.encode())
    assert got.private == made.private and got.public == made.public and got.claim_code == made.claim_code
    assert got.fingerprint == fingerprint(made.public)
    owned = identity.decode(made.owned_by(b"\x05" * 32, 9, True).encode())
    assert owned.claimed and owned.claim_code == b"" and owned.counter == 9 and owned.clear_used
    assert owned.owner_fingerprint == fingerprint(b"\x05" * 32)
    free = identity.decode(owned.released(b"c" * 16, 10).encode())
    assert not free.claimed and free.counter == 10 and free.claim_code == b"c" * 16 and free.clear_used
    assert free.private == made.private


def test_identity_record_of_wrong_form_is_none():
    raw = identity.make(counting()).encode()
    for size in range(len(raw)):
        assert identity.decode(raw[:size]) is None
    assert identity.decode(raw + b"\x00") is None
    assert identity.decode(b"\x00" + raw[1:]) is None
    assert "newer firmware" in str(raises(StorageError, identity.decode, b"\x07" + raw[1:]))


def test_no_keys_from_an_entropy_source_that_repeats_itself():
    error = raises(CryptoError, identity.make, bytes)
    assert "random" in str(error)


def test_identity_shows_no_secret():
    made = identity.make(counting())
    assert repr(made) == "<Identity not claimed>"


def make_relation(**fields):
    values = {
        "counter": 4,
        "epoch": 7,
        "role": 1,
        "side": SIDE_A,
        "node": 3,
        "scope": 63,
        "max_records": 1000,
        "max_age_s": 60,
        "unique_id": 0xBA770001,
        "root": b"r" * 32,
        "peer_public": b"p" * 32,
        "lct_id": "lct-1",
        "component_a": "COMP-A",
        "component_b": "COMP-B",
        "lct_half": b"h" * 64,
    }
    values.update(fields)
    return relation.Relation(**values)


def test_relation_record_comes_back():
    for previous in (None, (6, bytearray(b"q" * 32))):
        got = relation.decode(make_relation(previous=previous).encode())
        assert (got.counter, got.epoch, got.role, got.side, got.node, got.scope) == (4, 7, 1, 0, 3, 63)
        assert (got.max_records, got.max_age_s, got.unique_id) == (1000, 60, 0xBA770001)
        assert got.root == b"r" * 32 and got.peer_public == b"p" * 32 and got.lct_half == b"h" * 64
        assert (got.lct_id, got.component_a, got.component_b) == ("lct-1", "COMP-A", "COMP-B")
        assert got.previous == previous
        assert relation.record_name(got.tag) == relation.record_name(make_relation().tag)
    name = relation.record_name(b"\x00\xff\x10\x01\x02\x03\x04\x05")
    assert name == "rel-00ff100102030405"


def test_relation_record_of_wrong_form_is_none():
    raw = make_relation().encode()
    for size in range(len(raw)):
        assert relation.decode(raw[:size]) is None
    assert relation.decode(raw + b"\x00") is None


def test_relation_shows_no_secret():
    assert repr(make_relation()) == "<Relation lct lct-1 node 0x03 epoch 7>"


def test_relation_knows_its_ends():
    ours = make_relation()
    fields = (4, 8, 1, SIDE_A, 3, b"a" * 64, b"b" * 64, b"s" * 32, b"p" * 32, "lct-1", "COMP-A", "COMP-B")
    assert ours.same_ends(KeyPackage(*fields))
    assert not ours.same_ends(KeyPackage(*(fields[:4] + (4,) + fields[5:])))
    assert not ours.same_ends(KeyPackage(*(fields[:8] + (b"x" * 32,) + fields[9:])))
    made = ours.relationship(b"o" * 32)
    assert made.fingerprint_a == b"o" * 32 and made.fingerprint_b == fingerprint(b"p" * 32)
    made = make_relation(side=SIDE_B).relationship(b"o" * 32)
    assert made.fingerprint_b == b"o" * 32


def test_relation_keeps_the_epoch_in_use():
    # Epoch 8 was committed but its session never came: 7 is what the peer may still speak.
    unused = make_relation(epoch=8, root=b"8" * 32, previous=(7, bytearray(b"7" * 32)))
    newest = make_relation(epoch=9, root=b"9" * 32)
    newest.keep_epoch_in_use(unused, 7)
    assert newest.previous == (7, bytearray(b"7" * 32))
    newest.keep_epoch_in_use(unused, -1)
    assert newest.previous == (7, bytearray(b"7" * 32))
    newest.keep_epoch_in_use(unused, 8)
    assert newest.previous == (8, bytearray(b"8" * 32))


def test_wiped_relation_has_no_root():
    ours = make_relation(previous=(6, bytearray(b"q" * 32)))
    ours.wipe()
    assert not any(ours.root) and not any(ours.lct_half) and ours.previous is None


def test_mailbox_queue_is_bounded():
    sent = []
    box = Mailbox(1, 2, sent.append, lambda: 128)
    for number in range(20):
        box.send(bytes((number,)) * 30, 0)
    assert box.overflowed == 20 - 1 - 8
    assert len(sent) == 1  # the first frame of the first message waits for its flow control
    peer = IsoTpLink(2, 1)
    got = []
    for _ in range(100):
        for frame in sent:
            payload = peer.feed(frame, 0)
            if payload is not None:
                got.append(payload[0])
        del sent[:]
        for frame in peer.outgoing():
            box.feed(frame, 0)
    assert got == [0, 12, 13, 14, 15, 16, 17, 18, 19]


def test_a_long_message_is_made_a_few_frames_at_a_time():
    sent = []
    box = Mailbox(1, 2, lambda frame: sent.append(frame.copy()), lambda: 128)
    peer = IsoTpLink(2, 1)
    message = bytes(range(256)) * 4
    box.send(message, 0)
    peer.feed(sent.pop(), 0)
    got = None
    for frame in peer.outgoing():
        box.feed(frame, 0)
    now_ms = 0
    while got is None:
        # A board's queue of 128 frames has records to take as well.
        assert 0 < len(sent) <= 56
        assert not box.is_idle or len(sent) < 8
        for frame in sent:
            got = peer.feed(frame, now_ms) or got
        del sent[:]
        now_ms += 50
        box.tick(now_ms)
    assert got == message
    assert now_ms <= 200
    assert box.is_idle and not sent


def test_a_full_queue_holds_a_message_back_and_drops_none_of_it():
    sent = []
    room = [0]
    box = Mailbox(1, 2, lambda frame: sent.append(frame.copy()), lambda: room[0] - len(sent))
    peer = IsoTpLink(2, 1)
    message = bytes(range(200))
    box.send(message, 0)
    assert not sent
    got = None
    now_ms = 0
    while got is None:
        assert now_ms < 2000
        # A broadcast of many records has just filled the queue, and it is emptied.
        room[0] = 12 if room[0] == 0 else 0
        now_ms += 50
        box.tick(now_ms)
        assert len(sent) <= 12
        for frame in sent:
            got = peer.feed(frame, now_ms) or got
        del sent[:]
        for frame in peer.outgoing():
            box.feed(frame, now_ms)
    assert got == message


def test_mailbox_gives_up_and_goes_on():
    sent = []
    box = Mailbox(1, 2, sent.append, lambda: 128)
    box.send(b"a" * 30, 0)
    box.send(b"b", 0)
    assert len(sent) == 1
    box.tick(1500)
    assert box.dropped == {"timeout": 1}
    assert bytes(sent[1].data) == b"\x01b"


def slot_of(number, keyed=True):
    """A module by its number; one with keys was heard at 100 ms."""
    slot = Slot(Bus(None, 1, INITIATOR, MODULE_LINK), number, number, 0)
    if keyed:
        slot.row[relation.TERMS_LENGTH - 1] = 1  # the flags: keyed
        slot.heard_ms = 100
    return slot


def test_numbers_are_given_lowest_first_and_keyed_ones_are_kept():
    slots = {}
    assert free_number(slots, 0) == 1
    for number in range(1, 32):
        slots[number] = slot_of(number, number == 1)
    assert free_number(slots, 0) == 0
    assert free_number(slots, 11101) == 2  # number 1 is keyed: never given away
    slots[2].heard_ms = 11101
    assert free_number(slots, 11101) == 3


def test_slot_asks_for_cell_after_cell():
    slot = slot_of(1)
    assert slot.next_cell() == 0 and slot.next_cell() == 0
    slot.take(GOT_STATUS_1, encode("STATUS_1", cell_count=3, state=2))
    assert [slot.next_cell() for _ in range(4)] == [0, 1, 2, 0]
    assert slot.state == 2
    assert slot.active(4100) and not slot.active(4101)


def test_slot_ignores_a_cell_number_no_module_has():
    slot = slot_of(1)
    slot.take(GOT_DETAIL, encode("DETAIL", cell_id=255, cell_mv=1, cell_centi_c=1))
    assert slot.cell_count == 0
    slot.take(GOT_DETAIL, encode("DETAIL", cell_id=2, cell_mv=3700, cell_centi_c=-500))
    assert [slot.cell_mv(cell) for cell in range(slot.cell_count)] == [0, 0, 3700]
    assert slot.cell_centi_c(0) == UNKNOWN_CENTI_C and slot.cell_centi_c(2) == -500


def test_a_slot_has_places_for_all_cells_with_the_first_one():
    slot = slot_of(1)
    slot.take(GOT_STATUS_1, encode("STATUS_1", cell_count=12, state=2))
    slot.take(GOT_DETAIL, encode("DETAIL", cell_id=1, cell_mv=3700, cell_centi_c=-500))
    row = slot.row
    assert slot.cell_count == 12 and [slot.cell_mv(cell) for cell in (0, 1, 2, 11)] == [0, 3700, 0, 0]
    size = len(row)
    slot.take(GOT_DETAIL, encode("DETAIL", cell_id=11, cell_mv=3600, cell_centi_c=-500))
    assert slot.row is row and len(row) == size and slot.cell_mv(11) == 3600


def test_latency_percentiles():
    latency = Latency()
    assert latency.stats() == {"answered": 0, "missed": 0, "p50_ms": 0, "p99_ms": 0, "max_ms": 0}
    for ms in range(300):
        latency.add(ms)
    # The newest 256: 44..299.
    assert latency.answered == 300 and latency.highest == 299
    assert latency.percentile(0) == 44 and latency.percentile(100) == 299
    assert latency.percentile(50) == 171


def filled(number, state, current_ma, voltage_mv, soc, soh, cells_mv, cells_centi_c):
    slot = slot_of(number)
    count = len(cells_mv)
    data = encode(
        "STATUS_1",
        state=state,
        status=2,
        soc_permille=soc,
        soh_permille=soh,
        cell_count=count,
        current_ma=current_ma,
        voltage_mv=voltage_mv,
    )
    slot.take(GOT_STATUS_1, data)
    data = encode("STATUS_2", cell_min_mv=min(cells_mv), cell_max_mv=max(cells_mv), cell_avg_mv=sum(cells_mv) // count)
    slot.take(GOT_STATUS_2, data)
    data = encode(
        "STATUS_3",
        cell_min_centi_c=min(cells_centi_c),
        cell_max_centi_c=max(cells_centi_c),
        cell_avg_centi_c=sum(cells_centi_c) // count,
    )
    slot.take(GOT_STATUS_3, data)
    slot.take(GOT_FAULT, encode("FAULT_CODES", fault_code=0x80, first_cell=255))
    slot.take(GOT_HARDWARE, encode("HARDWARE", max_charge_ma=10000, max_discharge_ma=40000, end_of_charge_mv=300000))
    for cell in range(count):
        data = encode("DETAIL", cell_id=cell, cell_mv=cells_mv[cell], cell_centi_c=cells_centi_c[cell])
        slot.take(GOT_DETAIL, data)
    return slot


def two_slots():
    return [
        filled(1, 3, -20000, 345000, 800, 990, [3700, 3720], [2500, 2600]),
        filled(4, 3, -10000, 344010, 790, 980, [3690, 3710], [2450, 2400]),
    ]


def by_base(frames):
    return {base: bytes(data) for base, data in frames}


def test_pack_frames_in_parallel_are_the_hand_computed_bytes():
    got = by_base(pack_frames(two_slots(), 2, 0, "parallel"))
    # state 3, SOH 980/4 = 245 in bits 2-9, status 2 (normal), balanced; two modules, two active.
    assert got[0x410] == bytes((0x03 | 245 << 2 & 0xFF, 245 >> 6 | 2 << 2 | 1 << 4, 2, 2, 0, 0, 0, 0))
    # 344.5 V / 0.05 V = 6890; -30 A: (-30 + 1600) / 0.05 = 31400.
    assert got[0x421] == b"\x00\x00\x00\x00" + bytes((6890 & 0xFF, 6890 >> 8, 31400 & 0xFF, 31400 >> 8))
    # SOC of the weakest 79 % / 0.0015625 % = 50560; 3720, 3690, (3710 + 3700) / 2 = 3705 mV.
    assert got[0x422] == bytes((50560 & 0xFF, 50560 >> 8, 0x88, 0x0E, 0x6A, 0x0E, 0x79, 0x0E))
    # 26, 24 and 24.87 degC: (T + 273) / 0.03125, truncated: 9568, 9504, 9531.
    assert got[0x423] == bytes((9568 & 0xFF, 9568 >> 8, 9504 & 0xFF, 9504 >> 8, 9531 & 0xFF, 9531 >> 8, 0, 0))
    # 80 A and 20 A: (I + 1600) / 0.05 = 33600 and 32400; 300 V / 0.05 V = 6000.
    assert got[0x425] == bytes((33600 & 0xFF, 33600 >> 8, 32400 & 0xFF, 32400 >> 8, 6000 & 0xFF, 6000 >> 8, 0, 0))
    assert got[0x428] == bytes((1, 1, 4, 0, 0, 0, 0, 0))
    assert got[0x429] == bytes((1, 1, 4, 1, 0, 0, 0, 0))
    assert got[0x430] == bytes(8)


def test_pack_frames_in_series_add_voltages():
    got = by_base(pack_frames(two_slots(), 3, 1, "series"))
    # 689 V / 0.05 V = 13780; mean current -15 A: 31700.
    assert got[0x421][4:] == bytes((13780 & 0xFF, 13780 >> 8, 31700 & 0xFF, 31700 >> 8))
    assert got[0x425][:4] == bytes((32800 & 0xFF, 32800 >> 8, 32200 & 0xFF, 32200 >> 8))
    assert got[0x410][1] & 0x40 and got[0x410][2:4] == b"\x03\x02"


def test_pack_frames_without_modules_are_those_of_a_pack_that_is_off():
    got = by_base(pack_frames([], 0, 0, "parallel"))
    assert got[0x410] == bytes(8)
    assert got[0x421] == b"\x00\x00\x00\x00\x00\x00" + bytes((32000 & 0xFF, 32000 >> 8))
    assert got[0x428] == b"\x00\xff\x00\xff\x00\x00\x00\x00"


def test_state_of_the_pack_is_what_its_terminals_have():
    slots = two_slots()
    slots[1].take(GOT_STATUS_1, encode("STATUS_1", state=0))
    assert pack_state(slots, "parallel") == 3 and pack_state(slots, "series") == 0
    assert pack_state([], "parallel") == 0


def test_a_reset_at_the_console_leaves_nothing_of_the_relationships():
    """Though nothing that serves the owner is loaded then: found by cutting the power in the middle of one."""
    bench = Bench()
    node = bench.nodes["module0"]
    store = bench.envs["module0"].store
    store.write("rel-0011223344556677", bytes(90))
    store.write("salt-0011223344556677", bytes(72))
    store.write("usage", bytes(8))
    assert node._endpoint is None
    node.reset()
    left = [name for name in store.names() if name.split("-")[0] in ("rel", "salt", "usage")]
    assert left == []


def test_an_endpoint_that_goes_leaves_no_key_of_the_owner():
    bench = Bench()
    app = App(bench)
    node = bench.nodes["pack"]
    app.claim_pack(node.identity.claim_code)
    key = node.endpoint.owner_key()
    assert any(key)
    bench.until(lambda: node.endpoint.is_idle, 90000)
    node._asked_ms = bench.now_ms - 10000
    node.ended_ms = None
    node.tick_seldom(bench.now_ms)
    assert node._endpoint is None and not any(key)
    assert node.ended_ms is not None, "copies in the heap are to be overwritten"


def test_a_store_that_rests_has_what_its_key_came_from_overwritten():
    bench = Bench()
    node = bench.nodes["module0"]
    bench.run(200)
    assert not node.env.store.rest()
    node.ended_ms = None
    bench.run(200)
    assert node.ended_ms is None
    node.env.store.read("identity")
    bench.run(200)
    assert node.ended_ms is not None and not node.env.store.rest()


def test_what_a_host_asks_a_nodes_test_service_is_no_frame_of_the_packs_own():
    """It counted as a sign of tampering, twelve thousand times in a demo."""
    pack = Bench().nodes["pack"]
    assert not pack.sends(0x437) and not pack.sends(0x53A)
    assert pack.sends(0x438) and pack.sends(0x539)
