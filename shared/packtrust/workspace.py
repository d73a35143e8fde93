"""What the channels of one node share, so that a channel in use needs no heap and one not in use hardly any.

    workspace = Workspace(ready=6, streams=40)
    channel = Channel(secret, ..., workspace=workspace)

It holds the buffer in which a record is sealed and the frames that are views of it, the buffer in which one is opened
and the event that tells of it, the reassembly buffers, and the few session keys that are ready for use. So frames that
`Channel.seal` returned are valid until the next `seal`, and an event until the next `feed`, of any channel of the
workspace. A channel made without one has its own.
"""

from packtrust._compat import const, lay_into
from packtrust.frame import Frame
from packtrust.record import AAD_ROOM, IV_LENGTH, OVERHEAD
from packtrust.segmentation import CHUNK, FD_LENGTHS, NEXT_CHUNK, PAYLOAD_MAX, Reassembler, fd_room

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from packtrust._typing import Buffer
    from packtrust.channel import Link
    from packtrust.group import GroupKey
    from packtrust.handshake import KeyLog
    from packtrust.policy import Policy
    from packtrust.session import Opener, Sender

OPENED = "opened"
REFUSED = "refused"
ESTABLISHED = "established"

# Where the data begins in a work buffer, behind AAD and IV, and the length of a buffer for 128 bytes of record.
DATA_AT = const(28)
WORK_LENGTH = const(144)

CITATION_LENGTH = const(4)

# The field's messages have 8 bytes: for these everything is there from the start.
USUAL = const(8)


_number = int.from_bytes


class Event:
    """What `Channel.feed` found out.

    kind            OPENED, REFUSED or ESTABLISHED
    arbitration_id  the clear ID of the message (OPENED, REFUSED)
    data            plaintext (OPENED): a view that the next `feed` overwrites
    counter, epoch  of the record (OPENED)
    reason          why (REFUSED): "clear", "unknown-session", "tag", "replay", "old", "stale", "short",
                    "handshake-mac", "handshake-role", "handshake-version", "handshake-epoch", ...

    An event is valid until the next `feed`. `copy()` gives one to keep.
    """

    __slots__ = ("arbitration_id", "counter", "data", "epoch", "kind", "reason")

    def __init__(
        self,
        kind: str,
        arbitration_id: int = 0,
        data: "Buffer" = b"",
        counter: int = 0,
        epoch: int = 0,
        reason: str = "",
    ) -> None:
        self.kind = kind
        self.arbitration_id = arbitration_id
        self.data = data
        self.counter = counter
        self.epoch = epoch
        self.reason = reason

    def copy(self) -> "Event":
        """An event to keep, with its own data."""
        return Event(self.kind, self.arbitration_id, bytes(self.data), self.counter, self.epoch, self.reason)

    def __repr__(self) -> str:
        what = self.reason if self.kind == REFUSED else "%d bytes" % len(self.data)
        return "<Event %s 0x%08x %s>" % (self.kind, self.arbitration_id, what)


class Terms:
    """What the channels of a node mostly have in common, kept once: arguments of `Channel`."""

    def __init__(
        self,
        policy: "Policy",
        urandom: "Callable[[int], Buffer]",
        link: "Link",
        boot_counter: int,
        fd: bool,
        max_records: int,
        receive_max: int,
        key_log: "KeyLog | None",
    ) -> None:
        self.policy = policy
        self.urandom = urandom
        self.link = link
        self.boot_counter = boot_counter
        self.fd = fd
        self.max_records = max_records
        self.receive_max = receive_max
        self.key_log = key_log

    def same(self, other: "Terms") -> bool:
        """Whether one can stand for the other."""
        return (
            self.policy is other.policy
            and self.urandom == other.urandom
            and self.link is other.link
            and self.boot_counter == other.boot_counter
            and self.fd == other.fd
            and self.max_records == other.max_records
            and self.receive_max == other.receive_max
            and self.key_log == other.key_log
        )


class Workspace:
    """Buffers and ready keys of one node.

    ready     directions of sessions whose keys are kept ready for use, with key schedule and tables: at least 1. A
              record of another one costs a key set-up, and the direction that was not used for longest its place.
    streams   reassembly buffers: as many messages may be on their way at once. A gateway's peers send all at once.
    channels  that a gateway keeps whole; others it puts away (packtrust.cold)
    usual     reassembly buffers that stay when nothing is under way; 0: all
    """

    def __init__(self, ready: int = 4, streams: int = 8, channels: int = 32, usual: int = 0) -> None:
        self.channels = channels
        self.reassembler = Reassembler(streams, usual)
        self.partial_of = self.reassembler.partials.get  # made once: a look-up a chunk less
        self._expired_ms = -1
        self.event = Event(REFUSED)
        self.opened = Event(OPENED)
        self.tx = bytearray(WORK_LENGTH)
        self.rx = bytearray(WORK_LENGTH)
        rx = memoryview(self.rx)
        self.rx_prefix = rx[AAD_ROOM : AAD_ROOM + 8]
        self.rx_counter = rx[AAD_ROOM + 8 : AAD_ROOM + IV_LENGTH]
        self.rx_cited = rx[DATA_AT : DATA_AT + CITATION_LENGTH]
        # Plaintexts by length, without a citation before them and behind one; the usual ones, and all others so far.
        self.plain = [rx[DATA_AT : DATA_AT + size] for size in range(USUAL + 1)]
        behind = DATA_AT + CITATION_LENGTH
        self.cited = [rx[behind : behind + size] for size in range(USUAL + 1)]
        self._longer = {}  # type: dict[int, memoryview]
        # Frames of a record by the index of its last chunk. Chunks are views of `tx`, but the last: it is as long as
        # need be in a buffer of its own.
        self.frames = [None] * (PAYLOAD_MAX // CHUNK)  # type: list[list[Frame] | None]
        self.chunks = []  # type: list[memoryview]
        self.tail = bytearray(CHUNK)
        self.tails = [memoryview(self.tail)[:size] for size in range(CHUNK + 1)]
        self._full = []  # type: list[Frame]
        self._last = Frame(0)
        self.fd_frames = None  # type: list[Frame] | None
        self._fd_views = {}  # type: dict[int, memoryview]
        self._ready = []  # type: list[Sender | Opener | GroupKey]
        self._ready_max = ready
        self._terms = None  # type: Terms | None
        self.frames_of((OVERHEAD + CITATION_LENGTH + USUAL - 1) // CHUNK)
        self.frames_of((OVERHEAD - 1) // CHUNK)

    def cited_counter(self) -> int:
        """The citation before an opened plaintext."""
        return _number(self.rx_cited, "big")

    def view(self, start: int, size: int) -> memoryview:
        """The opened plaintext, `size` bytes from `start` on in the buffer."""
        if size <= USUAL:
            return self.plain[size] if start == DATA_AT else self.cited[size]
        name = start << 8 | size
        view = self._longer.get(name)
        if view is None:
            view = self._longer[name] = memoryview(self.rx)[start : start + size]
        return view

    def frames_of(self, last: int) -> "list[Frame]":
        """The frames of a record whose last chunk is `last`."""
        work = memoryview(self.tx)
        while len(self.chunks) <= last:
            at = AAD_ROOM + CHUNK * len(self.chunks)
            self.chunks.append(work[at : at + CHUNK])
        while len(self._full) < last:
            self._full.append(Frame(0, self.chunks[len(self._full)]))
        frames = self._full[:last]
        frames.append(self._last)
        self.frames[last] = frames
        return frames

    def fd_frame(self, room: int) -> "list[Frame]":
        """The one CAN FD frame of a record, with a data field of `room` bytes."""
        if self.fd_frames is None:
            work = memoryview(self.tx)
            for size in FD_LENGTHS[FD_LENGTHS.index(CHUNK) + 1 :]:
                self._fd_views[size] = work[AAD_ROOM : AAD_ROOM + size]
            self.fd_frames = [Frame(0, b"", True, True)]
        frame = self.fd_frames[0]
        frame.data = self._fd_views[room]
        frame.dlc = room
        return self.fd_frames

    def cut(self, head: int, size: int, fd: bool) -> "list[Frame]":
        """The frames of the record of `size` bytes in `tx`. `head`: their ID but for index and length."""
        if fd:
            frames = self.fd_frame(fd_room(size))
            frames[0].arbitration_id = head | size << 8
            return frames
        last = size - 1 >> 3
        frames = self.frames[last] or self.frames_of(last)
        head |= last << 8
        for frame in frames:
            frame.arbitration_id = head
            head += NEXT_CHUNK
        lay_into("8s", self.tail, 0, self.chunks[last])
        size -= last << 3
        frame.data = self.tails[size]
        frame.dlc = size
        return frames

    def terms(self, terms: Terms) -> Terms:
        """These terms, or the same ones that the channel before had."""
        if self._terms is None or not self._terms.same(terms):
            self._terms = terms
        return self._terms

    def expire(self, now_ms: int) -> None:
        """Drop what is overdue; once a millisecond, however many channels ask."""
        if now_ms != self._expired_ms:
            self._expired_ms = now_ms
            self.reassembler.expire(now_ms)

    def make_room(self) -> None:
        """Before another direction is made ready: one that was not used since it was looked at last leaves for it, and
        its memory is the other one's."""
        ready = self._ready
        while len(ready) >= self._ready_max:
            oldest = ready.pop(0)
            if oldest.recent:
                oldest.recent = False
                ready.append(oldest)
            else:
                oldest.leave()

    def admit(self, direction: "Sender | Opener | GroupKey") -> None:
        """Keep a direction, for which `make_room` has made room, ready for use."""
        self._ready.append(direction)

    def dismiss(self, direction: "Sender | Opener | GroupKey | None") -> None:
        """A direction has left by itself."""
        if direction in self._ready:
            self._ready.remove(direction)
