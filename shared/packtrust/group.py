"""Broadcasts under a group key (docs/wire.md, section 10): one sender, many receivers, strictly in order.

    sender = GroupSender(workspace, secret, fingerprint)            # of the pack
    for frame in sender.seal(arbitration_id, data): send(frame)
    receiver = GroupReceiver(workspace, secret, fingerprint, beat)  # on each module
    data = receiver.feed(frame, now_ms)                             # None: nothing complete, or refused

Every receiver could have sealed what another one opens, so a broadcast proves only that some member of the group sent
it. What may be done on its word is its user's business: here it lowers, and nothing else.

Frames are valid until the next `seal`, data until the next `feed`, of all that shares the workspace. In use neither
end allocates; a key leaves the ready ones of the workspace, and is set up anew, as those of sessions do.
"""

from packtrust._compat import const, lay_into
from packtrust.arbitration import TOGGLE, canonical
from packtrust.crypto import AESGCM, hkdf_expand, wipe
from packtrust.errors import ChannelError, KeyFormatError
from packtrust.record import AAD_LENGTH, IV_BASE_LENGTH, OVERHEAD, VERSION
from packtrust.workspace import DATA_AT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer, FrameLike
    from packtrust.frame import Frame
    from packtrust.workspace import Workspace

SECRET_LENGTH = const(32)
KEY_ID_LENGTH = const(4)

# A sender draws a new key long before: 2^29 heartbeats are three years.
BEATS_MAX = const(0x1FFFFFFF)

_KEY_LENGTH = const(32)
_LABEL = b"packtrust v1 group\x00"
GROUP_DIRECTION = const(2)  # in the AAD: neither of a session's

# As of a channel: AAD, padded, and IV; then data, or a record as it came.
_WORK = ">BI5sHI8sI100s"
_RECEIVED = ">BI5sHI128s"
_LONGEST = const(100)

_number = int.from_bytes


def group_material(secret: "Buffer", fingerprint: "Buffer") -> bytes:
    """AES key (32) and IV base (4) of a group; `fingerprint` of the sender, 32 bytes."""
    return hkdf_expand(secret, _LABEL + bytes(fingerprint), _KEY_LENGTH + IV_BASE_LENGTH)


class GroupKey:
    """One group key: what it is derived to, and the newest counter.

    workspace    of the node
    secret       32 random bytes, the caller's to wipe;  fingerprint  the sender's
    beat         counter of the newest broadcast sealed, or opened
    recent       whether it was used since the workspace looked last
    """

    def __init__(self, workspace: "Workspace", secret: "Buffer", fingerprint: "Buffer", beat: int = 0) -> None:
        if len(secret) != SECRET_LENGTH:
            raise KeyFormatError("a group's secret has 32 bytes, not %d" % len(secret))
        self.beat = beat
        self.recent = True
        self._shared = workspace
        self._material = bytearray(group_material(secret, fingerprint))
        self._binding = bytes((GROUP_DIRECTION,)) + bytes(fingerprint[:4])
        self._prefix = bytes(self._material[_KEY_LENGTH:]) + bytes(4)
        self._aead = None  # type: AESGCM | None

    @property
    def key_id(self) -> int:
        """The IV base as the number that GROUP_STATUS names the key by."""
        return _number(self._prefix[:KEY_ID_LENGTH], "little")

    def _ready(self) -> AESGCM:
        self._shared.make_room()
        self._aead = AESGCM(memoryview(self._material)[:_KEY_LENGTH])
        self._shared.admit(self)
        return self._aead

    def leave(self) -> None:
        """The workspace needs the place: wipe the tables; the next use makes them anew."""
        if self._aead is not None:
            self._aead.wipe()
            self._aead = None

    def wipe(self) -> None:
        """Destroy the key. No use after that."""
        self._shared.dismiss(self)
        self.leave()
        wipe(self._material)


class GroupSender(GroupKey):
    """The one that seals; nobody else is given this class. See the module's docstring."""

    _toggle = 0

    def seal(self, arbitration_id: int, data: "Buffer", fd: bool = False) -> "list[Frame]":
        """The frames of at most 100 bytes (36 in CAN FD) under an ID. Raises ChannelError when the key is used up."""
        counter = self.beat + 1
        if counter > BEATS_MAX:
            raise ChannelError("this group key has sealed its %d broadcasts: draw a new one" % self.beat)
        aead = self._aead or self._ready()
        self.beat = counter
        self.recent = True
        shared = self._shared
        work = shared.tx
        size = len(data)
        head = canonical(arbitration_id)
        lay_into(_WORK, work, 0, VERSION, head, self._binding, size, 0, self._prefix, counter, data)
        aead.seal_in_place(work, size, AAD_LENGTH)
        head |= self._toggle
        self._toggle ^= TOGGLE
        return shared.cut(head, size + OVERHEAD, fd)


class GroupReceiver(GroupKey):
    """A member's end: opens each broadcast once, in the order they were sealed.

    reason   why the last `feed` that gave None refused a record: "unknown" key, "replay", "tag", "short"; else ""
    """

    reason = ""

    def feed(self, frame: "FrameLike", now_ms: int) -> "Buffer | None":
        """The data of the broadcast that this frame completes. Never raises on bytes."""
        self.reason = ""
        reassembler = self._shared.reassembler
        head = frame.arbitration_id
        if frame.is_fd:
            size = reassembler.fd_length(frame)
            return self._open(canonical(head), frame.data, size) if size else None
        partial = reassembler.take(head, frame.data, now_ms)
        if partial is None:
            return None
        return self._open(canonical(head), partial.buffer, partial.length)

    def _open(self, full_id: int, record: "Buffer", size: int) -> "Buffer | None":
        size -= OVERHEAD
        if not 0 <= size <= _LONGEST:
            self.reason = "short"
            return None
        shared = self._shared
        lay_into(_RECEIVED, shared.rx, 0, VERSION, full_id, self._binding, size, 0, record)
        if shared.rx_prefix != self._prefix:
            self.reason = "unknown"
            return None
        counter = _number(shared.rx_counter, "big")
        if counter <= self.beat:
            self.reason = "replay"
            return None
        aead = self._aead or self._ready()
        self.recent = True
        if not aead.open_in_place(shared.rx, size, AAD_LENGTH):
            self.reason = "tag"
            return None
        self.beat = counter
        return shared.view(DATA_AT, size)

    def skip_to(self, beat: int) -> None:
        """An authentic record of the sender says that broadcasts up to `beat` are old: one held back does nothing."""
        if beat > self.beat:
            self.beat = beat
