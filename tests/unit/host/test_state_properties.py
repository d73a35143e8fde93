"""Properties of the codecs and state machines of the core, over any history hypothesis can think of."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from channels import POLL, SECRET, STATE_CHANGE, STATUS_1, Clock, Entropy
from packtrust import package, provision
from packtrust.channel import ESTABLISHED, OPENED, Channel
from packtrust.errors import StorageError
from packtrust.handshake import INITIATOR, RESPONDER
from packtrust.isotp import IsoTpLink
from packtrust.replay import CITATION_MAX_AGE_MS, STEP_MS, WINDOW, SentTimes, Window
from packtrust.segmentation import Reassembler, Segmenter
from packtrust_node import identity, relation
from packtrust_node.store import MemorySlots, Store

ID_32 = st.binary(min_size=32, max_size=32)
U32 = st.integers(min_value=0, max_value=0xFFFFFFFF)
NAME = st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=64)


# -- windows and times -------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(min_value=-70, max_value=200), max_size=200))
def test_a_window_takes_each_counter_once_and_none_that_is_older_than_it(steps):
    window = Window()
    taken: set[int] = set()
    for step in steps:
        counter = window.highest + step
        reason = window.refusal(counter)
        if counter <= 0 or counter <= window.highest - WINDOW:
            assert reason == "old"
        elif counter in taken:
            assert reason == "replay"
        else:
            assert reason == ""
            window.accept(counter)
            taken.add(counter)
        assert window.highest == max(taken, default=0)


@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 12)), min_size=1, max_size=60), st.booleans(), st.data())
def test_an_age_is_never_too_small_and_at_most_a_step_too_large(history, asleep, data):
    """`history`: milliseconds that pass, records that are then sent. `asleep`: kept in bytes in between."""
    now_ms = 100000
    kept = bytearray(21)
    times = SentTimes(now_ms, kept)
    sent_ms = [now_ms]
    for pause_ms, count in history:
        now_ms += pause_ms
        for _ in range(count):
            times.sent(len(sent_ms), now_ms)
            sent_ms.append(now_ms)
        if asleep:
            times.save()
            latest = times.latest
            times = SentTimes(0, kept)
            times.restore(latest)
    cited = data.draw(st.integers(0, len(sent_ms) + 3))
    found = times.age_ms(cited, now_ms)
    if cited >= len(sent_ms):
        assert found == -1
        return
    true = now_ms - sent_ms[cited]
    assert found == -1 or true <= found <= true + STEP_MS
    if true + STEP_MS <= CITATION_MAX_AGE_MS:
        assert times.is_fresh(cited, now_ms)
    if true > CITATION_MAX_AGE_MS:
        assert not times.is_fresh(cited, now_ms)


# -- transport ---------------------------------------------------------------------------------------------------------

PAYLOADS = st.lists(st.binary(min_size=1, max_size=128), min_size=1, max_size=6)


@given(st.lists(PAYLOADS, min_size=1, max_size=4), st.data())
def test_streams_that_interleave_come_out_whole_and_what_loses_a_frame_does_not_come_out(streams, data):
    segmenter = Segmenter()
    reassembler = Reassembler(len(streams))
    waiting = {}
    for number, payloads in enumerate(streams):
        full_id = 0x502 << 18 | 1 << 17 | number + 1
        waiting[number] = [frame for payload in payloads for frame in segmenter.split(full_id, payload)]
    found: dict[int, list[bytes]] = {number: [] for number in waiting}
    lost = set()
    while waiting:
        number = data.draw(st.sampled_from(sorted(waiting)))
        frame = waiting[number].pop(0)
        if not waiting[number]:
            del waiting[number]
        fate = data.draw(st.sampled_from(("arrives", "arrives", "arrives", "twice", "lost")))
        if fate == "lost":
            lost.add(number)
            continue
        for _ in range(2 if fate == "twice" else 1):
            payload = reassembler.feed(frame, 0)
            if payload is not None:
                found[number].append(bytes(payload))
    for number, payloads in enumerate(streams):
        if number not in lost:
            assert found[number] == payloads
        rest = iter(payloads)
        assert all(payload in rest for payload in found[number]), "in order, and never a mixture"


@given(
    st.lists(st.binary(min_size=1, max_size=700), max_size=3),
    st.lists(st.binary(min_size=1, max_size=700), max_size=3),
    st.booleans(),
    st.sets(st.integers(0, 60), max_size=3),
)
def test_isotp_in_both_directions_delivers_what_was_sent_or_nothing(ours, theirs, fd, lost):
    links = (IsoTpLink(1, 2, 4095, fd), IsoTpLink(2, 1, 4095, fd))
    for link, payloads in zip(links, (ours, theirs), strict=True):
        for payload in payloads:
            link.send(payload, 0)
    found: tuple[list[bytes], list[bytes]] = ([], [])
    number = 0
    now_ms = 0
    for _ in range(40):
        moved = False
        for at in (0, 1):
            for frame in links[at].outgoing():
                moved = True
                number += 1
                if number not in lost:
                    payload = links[1 - at].feed(frame, now_ms)
                    if payload is not None:
                        found[1 - at].append(payload)
        if not moved:
            now_ms += 1100
            for link in links:
                link.tick(now_ms)
    if not lost:
        assert found == (theirs, ours)
    for got, sent in zip(found, (theirs, ours), strict=True):
        rest = iter(sent)
        assert all(payload in rest for payload in got)
    assert not links[0].sending and not links[1].sending, "nothing is stuck"


# -- channels ----------------------------------------------------------------------------------------------------------


class Talk(RuleBasedStateMachine):
    """Two channels and a network that loses, doubles, delays and plays back frames of whole messages."""

    flying = Bundle("flying")

    @initialize(fd=st.booleans())
    def begin(self, fd):
        self.clock = Clock()
        self.ends = {}
        for role, local, peer in ((INITIATOR, "pack", "module"), (RESPONDER, "module", "pack")):
            self.ends[role] = Channel(SECRET, role, 5, self.clock, Entropy(role), local, peer, fd=fd)
        self.sent = {INITIATOR: {}, RESPONDER: {}}
        self.opened = {INITIATOR: [], RESPONDER: []}
        self.commands = []
        self.number = 0
        self.carry()

    def carry(self):
        """A handshake on a network that works."""
        initiator, responder = self.ends[INITIATOR], self.ends[RESPONDER]
        self.clock.now_ms += 2000
        initiator.connect()
        for _ in range(4):
            for frame in initiator.outgoing():
                self.take(RESPONDER, frame)
            for frame in responder.outgoing():
                self.take(INITIATOR, frame)
        assert initiator.established and responder.established

    def take(self, role, frame):
        event = self.ends[role].feed(frame)
        if event is None or event.kind == ESTABLISHED:
            return
        if event.kind == OPENED:
            number = bytes(event.data)
            assert number in self.sent[INITIATOR + RESPONDER - role], "only what the peer sealed"
            base, at_ms = self.sent[INITIATOR + RESPONDER - role][number]
            assert base == event.arbitration_id
            assert number not in self.opened[role], "exactly once"
            self.opened[role].append(number)
            if base == STATE_CHANGE:
                assert self.clock.now_ms - at_ms <= CITATION_MAX_AGE_MS + STEP_MS, "never late"
                assert not self.commands or number > self.commands[-1], "in order"
                self.commands.append(number)

    @rule(target=flying, role=st.sampled_from((INITIATOR, RESPONDER)), command=st.booleans(), poll=st.booleans())
    def seal(self, role, command, poll):
        self.number += 1
        data = self.number.to_bytes(4, "big")
        ident = STATUS_1 if role == RESPONDER else STATE_CHANGE if command else POLL if poll else STATUS_1
        self.sent[role][data] = (ident, self.clock.now_ms)
        frames = [frame.copy() for frame in self.ends[role].seal(ident, data)]
        return INITIATOR + RESPONDER - role, frames

    @rule(message=flying)
    def deliver(self, message):
        role, frames = message
        for frame in frames:
            self.take(role, frame)

    @rule(message=consumes(flying))
    def lose(self, message):
        """It never comes, or never again."""

    @rule(message=flying, without=st.integers(0, 15))
    def deliver_in_part(self, message, without):
        role, frames = message
        for at, frame in enumerate(frames):
            if at != without:
                self.take(role, frame)

    @rule(message=flying)
    def reflect(self, message):
        role, frames = message
        for frame in frames:
            self.take(INITIATOR + RESPONDER - role, frame)

    @rule(pause_ms=st.sampled_from((1, 20, 300, 4500)))
    def wait(self, pause_ms):
        self.clock.now_ms += pause_ms
        for end in self.ends.values():
            end.tick()

    @rule()
    def connect_anew(self):
        self.carry()

    @rule()
    def next_epoch(self):
        epoch = self.ends[INITIATOR].epoch + 1
        for end in self.ends.values():
            end.install(bytes([epoch & 0xFF]) * 32, epoch)
        self.carry()

    @invariant()
    def bounded(self):
        for end in getattr(self, "ends", {}).values():
            assert len(end._roots) <= 2
            assert len(end._shared.reassembler.partials) <= 8


TestTalk = Talk.TestCase
TestTalk.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# -- stored and sent forms ---------------------------------------------------------------------------------------------


@given(U32, U32, ID_32, ID_32, ID_32, st.lists(NAME, min_size=3, max_size=3), st.booleans(), st.data())
def test_packages_come_back_as_they_were(counter, epoch, salt, peer, seed, names, with_lct, data):
    halves = data.draw(st.lists(st.binary(min_size=64, max_size=64), min_size=2, max_size=2, unique=True))
    made = package.KeyPackage(
        counter, epoch, 1, 0, 5, halves[0], halves[1], salt, peer, *names, lct_half=seed * 2 if with_lct else b""
    )
    raw = made.encode()
    found = package.decode(raw)
    assert isinstance(found, package.KeyPackage)
    assert found.encode() == raw
    assert (found.counter, found.epoch, found.lct_id) == (counter, epoch, names[0])


@given(ID_32, ID_32, st.binary(min_size=16, max_size=16) | st.just(b""), ID_32 | st.just(b""), U32, st.booleans())
def test_identities_come_back_as_they_were(private, public, claim, owner, counter, used):
    made = identity.Identity(private, public, claim, owner, counter, used)
    found = identity.decode(made.encode())
    assert found is not None
    assert vars(found) == vars(made)


@given(st.tuples(U32, U32, U32, U32, U32), ID_32, ID_32, st.lists(NAME, min_size=3, max_size=3), st.booleans())
def test_relations_come_back_as_they_were(numbers, root, peer, names, two):
    counter, epoch, records, age, unique_id = numbers
    before = (1, bytearray(root)) if two else None
    made = relation.Relation(counter, epoch, 1, 0, 5, 3, records, age, unique_id, root, peer, *names, b"", before)
    found = relation.decode(made.encode())
    assert found is not None
    assert found.encode() == made.encode()


@given(
    ID_32, st.lists(st.tuples(st.integers(1, 31), U32, ID_32, st.binary(min_size=8, max_size=8), U32, U32), max_size=9)
)
def test_attestations_come_back_and_only_under_their_key_and_nonce(key, entries):
    nonce = bytes(range(16))
    body = b"".join(provision.attestation(key, nonce, len(entries), entries, key, b""))[provision.HEAD :]
    found = provision.parse_attestation(body, key, nonce)
    assert found is not None
    assert found.entries == entries
    assert provision.parse_attestation(body, bytes(32) if any(key) else b"\1" * 32, nonce) is None
    assert provision.parse_attestation(body, key, bytes(16)) is None


# -- the store ---------------------------------------------------------------------------------------------------------


class PowerCut(Exception):
    """The slots stop in the middle."""


class CutSlots(MemorySlots):
    """Slots that lose power at the n-th change; the change itself is torn."""

    left = -1

    def _spend(self):
        if self.left == 0:
            return True
        self.left -= 1
        return False

    def write(self, name, data):
        if self._spend():
            MemorySlots.write(self, name, bytes(data)[: len(data) // 2])
            raise PowerCut
        MemorySlots.write(self, name, data)

    def remove(self, name):
        if self._spend():
            raise PowerCut
        MemorySlots.remove(self, name)


@given(
    st.lists(
        st.tuples(st.sampled_from(("boot", "identity", "rel-1")), st.binary(min_size=1, max_size=40) | st.none()),
        max_size=12,
    ),
    st.integers(0, 30),
)
def test_a_store_whose_power_is_cut_has_the_old_record_or_the_new_one(changes, cut):
    slots = CutSlots()
    slots.left = cut
    before: dict[str, bytes | None] = {}
    after = dict(before)
    try:
        store = Store(slots, Entropy(3), 1)
        for name, data in changes:
            after = {**before, name: data}
            if data is None:
                store.remove(name)
            else:
                store.write(name, data)
            before = after
    except PowerCut:
        assert before.keys() <= after.keys()
    slots.left = -1
    store = Store(slots, Entropy(4), 1)
    for name in ("boot", "identity", "rel-1"):
        try:
            found = store.read(name)
        except StorageError as error:
            raise AssertionError("a power cut damaged %s: %s" % (name, error)) from error
        kept = None if found is None else bytes(found)
        assert kept in (before.get(name), after.get(name))
        store.write(name, b"still works")
        assert store.read(name) == b"still works"
