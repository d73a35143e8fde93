"""A channel that is put away goes on where it was, and a pack that puts most of them away does what any pack does."""

import gc
import sys

from channels import POLL, SECRET, STATE_CHANGE, STATUS_1, Clock, Entropy, give
from nodebench import keyed_bench
from packtrust import cold
from packtrust.channel import ESTABLISHED, OPENED, REFUSED, Channel
from packtrust.crypto import sha256
from packtrust.errors import ChannelError
from packtrust.handshake import INITIATOR, RESPONDER
from packtrust.keys import SIDE_A, SIDE_B, Relationship
from packtrust.messages.table import RESULT_OBEYED, STATE_ON
from packtrust.workspace import Workspace
from portable import kept, raises


class Ends:
    """A pack, whose keys are asked for, and a module; `cool` puts the pack's channel away and makes another of it."""

    def __init__(self, clock, node=5, workspace=None):
        self.clock = clock
        self.node = node
        self.workspace = workspace or Workspace()
        self.entropy = Entropy(node)
        self.epochs = {3: SECRET}
        self.module = Channel(self._keys, RESPONDER, node, clock, Entropy(99), side=SIDE_B, epoch=3)
        self.pack = self.make(3)
        self.shake()
        assert self.pack.established and self.module.established

    def _keys(self, epoch):
        names = [b"pack", b"module %d" % self.node]
        ends = Relationship("p", "m", "lct", sha256(names[0]), sha256(names[1]))
        return (bytearray(self.epochs[epoch]), ends) if epoch in self.epochs else None

    def make(self, epoch):
        return Channel(
            self._keys,
            INITIATOR,
            self.node,
            self.clock,
            self.entropy,
            side=SIDE_A,
            epoch=epoch,
            workspace=self.workspace,
        )

    def shake(self):
        self.pack.connect()
        for _ in range(3):
            give(self.module, kept(self.pack.outgoing()))
            give(self.pack, kept(self.module.outgoing()))

    def cool(self):
        state = cold.put_away(self.pack)
        assert state is not None
        old, self.pack = self.pack, self.make(cold.older_epoch(state))
        self.pack.refused = old.refused
        cold.fetch(self.pack, state)
        return old, state

    def id_of(self, message):
        return message & ~0xFF | self.node

    def up(self, data=b"12345678"):
        """Frames of a record of the module's."""
        return kept(self.module.seal(self.id_of(STATUS_1), data))

    def down(self, message=STATE_CHANGE, data=b"1234"):
        """Frames of a record of the pack's."""
        return kept(self.pack.seal(self.id_of(message), data))


def test_counters_windows_and_toggles_go_on():
    ends = Ends(Clock())
    seen = []
    old = []
    for turn in range(6):
        up = ends.up()
        event = give(ends.pack, up)
        assert (event.kind, bytes(event.data)) == (OPENED, b"12345678")
        old.append(up)
        for message in (STATE_CHANGE, POLL):
            down = ends.down(message)
            iv = bytes(down[0].data) + bytes(down[1].data)[:4]
            seen.append((message, down[0].arbitration_id & 0x10000, iv))
            assert give(ends.module, down).kind == OPENED
        before = (ends.pack.stats, ends.pack.opened_and_sealed, ends.pack.last_opened_ms, ends.pack.session_epoch)
        # Two that come when it is another one, out of order.
        early, late = ends.up(b"early"), ends.up(b"late")
        assert give(ends.pack, late).kind == OPENED
        if turn & 1:
            ends.cool()
            stats, records, last_ms, epoch = before
            assert ends.pack.stats == dict(stats, opened=stats["opened"] + 1)
            assert ends.pack.opened_and_sealed == (records[0] + 1, records[1])
            assert (ends.pack.last_opened_ms, ends.pack.session_epoch) == (last_ms, epoch)
        assert give(ends.pack, early).kind == OPENED
        for again in [early, late] + old:
            event = give(ends.pack, again)
            assert (event.kind, event.reason) == (REFUSED, "replay")
    # No IV twice, and the toggles of each message alternate.
    assert len({what[2] for what in seen}) == len(seen)
    for message in (STATE_CHANGE, POLL):
        toggles = [what[1] for what in seen if what[0] == message]
        assert all(toggles[at] != toggles[at + 1] for at in range(len(toggles) - 1))


def test_what_a_command_cites_is_as_old_as_before():
    ends = Ends(Clock())
    assert give(ends.module, ends.down()).kind == OPENED
    assert give(ends.pack, ends.up()).kind == OPENED
    fresh = ends.down()
    ends.cool()
    assert give(ends.module, fresh).kind == OPENED
    # The module's citations of the pack's records are judged by the times that were put away with them.
    session = ends.pack._session
    assert session.is_fresh(session.sealed, ends.clock.now_ms)
    ends.clock.now_ms += 4500
    ends.cool()
    assert not ends.pack._session.is_fresh(ends.pack._session.sealed, ends.clock.now_ms)


def test_the_channel_that_was_put_away_is_of_no_use():
    """Two that seal under one key would use an IV twice."""
    ends = Ends(Clock())
    give(ends.pack, ends.up())
    old, state = ends.cool()
    raises(ChannelError, old.seal, ends.id_of(STATE_CHANGE), b"1234")
    assert give(old, ends.up()).reason == "unknown-session"
    assert ends.pack._session.state is state  # the keys are where they were, once
    cold.close(state)
    assert bytes(state) == bytes(len(state))


def test_what_is_under_way_stays():
    ends = Ends(Clock())
    # The module has not used the session: FINISH may have to be said again.
    assert cold.put_away(ends.pack) is None
    assert give(ends.pack, ends.up()).kind == OPENED
    ends.pack.connect()
    assert cold.put_away(ends.pack) is None  # frames to send, and a HELLO unanswered
    ends.pack.outgoing()
    assert cold.put_away(ends.pack) is None
    ends.pack.give_up()
    assert cold.put_away(ends.pack) is not None
    # Who holds a secret of his own is no gateway with a storage for it.
    own = Channel(SECRET, INITIATOR, 5, ends.clock, Entropy(1), "pack", "module")
    assert cold.put_away(own) is None


def test_epochs_and_handshakes_go_on():
    ends = Ends(Clock())
    give(ends.pack, ends.up())
    ends.epochs[4] = bytes(32)
    ends.module.install(ends._keys, 4)
    ends.pack.install(ends._keys, 4)
    _, state = ends.cool()
    assert cold.in_session(state) and cold.session_epoch(state) == 3 and ends.pack.epoch == 4
    assert give(ends.module, ends.down()).kind == OPENED  # under the epoch there is
    ends.clock.now_ms += 2000
    ends.shake()
    assert ends.pack.session_epoch == 4
    assert give(ends.pack, ends.up()).epoch == 4
    _, state = ends.cool()
    assert cold.older_epoch(state) == 4  # the one before is over
    assert give(ends.module, ends.down()).kind == OPENED
    assert ends.pack.stats[ESTABLISHED] == 2
    # Without a session too.
    ends.pack.disconnect()
    _, state = ends.cool()
    assert not cold.in_session(state) and cold.session_epoch(state) == -1 and not ends.pack.established
    ends.clock.now_ms += 2000
    ends.shake()
    assert ends.pack.established and give(ends.module, ends.down()).kind == OPENED


def _free():
    gc.collect()
    return gc.mem_free()


def test_a_cold_channel_takes_at_most_200_bytes():
    """All of it: keys, IV bases, counters, windows, sent times, toggles, epochs."""
    workspace = Workspace(ready=1, streams=2)
    states = []
    for node in range(1, 13):
        ends = Ends(Clock(), node, workspace)
        for _ in range(2):
            assert give(ends.pack, ends.up()).kind == OPENED
            assert give(ends.module, ends.down()).kind == OPENED
        states.append(cold.put_away(ends.pack))
    ends = None
    assert all(len(state) == 170 for state in states)
    if sys.maxsize != 0x7FFFFFFF or not hasattr(gc, "mem_free"):
        return  # bytes of RAM are a board's: only its 32 bits can tell
    taken = []
    while states:
        before = _free()
        states.pop()
        taken.append(_free() - before)
    taken.sort()
    # The median: what a stack still points at is freed late.
    assert 170 < taken[len(taken) // 2] <= 200, taken


def test_a_pack_that_keeps_one_channel_whole_serves_all():
    bench, app = keyed_bench(3, channels=1)
    pack = bench.nodes["pack"]
    bus = pack.module_bus
    bench.run(2000)
    assert len(bus.whole) == 1
    put_away = [slot for slot in pack.keyed_slots() if isinstance(slot._held, bytearray)]
    assert len(put_away) == 2 and all(neighbour.established for neighbour in put_away)
    missed = pack.latency.missed
    records = [slot.records for slot in pack.keyed_slots()]
    app.seal("COMMAND", contactor_state=STATE_ON)
    bench.run(3000)
    for module in bench.nodes.values():
        assert module is pack or module.state == STATE_ON
    assert [result[2] for result in app.results if result[0] == 0] == [RESULT_OBEYED] * 3
    assert pack.latency.missed == missed and len(bus.whole) == 1
    for slot, before in zip(pack.keyed_slots(), records):
        assert slot.records[0] > before[0] and slot.records[1] > before[1]
        assert slot.stats["opened"] == slot.records[0]
        assert slot.session_epoch == 1
    pack.reset()
    assert not bus.whole and not any(slot.keyed or slot._held for slot in pack.slots.values())
    bench.sound()


def test_modules_that_are_not_there_leave_room_for_those_that_are():
    """A round of HELLOs to a silent module takes a minute; there are never more of them than whole channels."""
    bench, _ = keyed_bench(5, channels=2)
    there = bench.nodes["module4"].own_node
    for name in ("module0", "module1", "module2", "module3"):
        bench.off(name)
    pack = bench.boot("pack")
    most = [0]

    def last_is_there():
        most[0] = max(most[0], len([slot for slot in pack.slots.values() if slot.connecting]))
        return pack.slots[there].established

    bench.until(last_is_there, 8000)
    assert 1 <= most[0] <= 2
    for _ in range(100):
        bench.run(50)
        assert len(pack.module_bus.whole) <= 3
    for number in range(4):
        bench.boot("module%d" % number)
    bench.until(lambda: all(slot.established for slot in pack.slots.values()), 20000)
    bench.sound()


def test_refusals_are_counted_for_each_though_it_was_put_away():
    bench, _ = keyed_bench(2, channels=1)
    pack = bench.nodes["pack"]
    for _ in range(3):
        for slot in pack.keyed_slots():
            module = next(node for node in bench.nodes.values() if node.own_node == slot.number)
            channel = module._pack.channel
            frames = kept(channel.seal(STATUS_1 & ~0xFF | slot.number, b"1"))
            frames[-1].data = bytes([frames[-1].data[0] ^ 1]) + bytes(frames[-1].data[1:])
            for frame in frames:
                bench.inject(1, frame)
    for slot in pack.keyed_slots():
        assert slot.stats["tag"] == 3
        assert slot.figures()["records"]["tag"] == 3
