"""A live session: 128 bytes while nobody uses it, and beside them the keys that are made ready for use.

    state = tx key (32) | rx key (32) | tx iv_base (4) | rx iv_base (4) | epoch (4) | tx counter (4)
            | rx highest (8) | rx strict (8) | window (8) | sent times (21) | unused (3)

`Sender` and `Opener` are the two directions ready for use, with key schedule and tables: a node that has many sessions
keeps a few of them (`workspace.Workspace`). `leave` writes back what they alone knew and wipes the tables.
"""

from struct import pack_into

from packtrust._compat import const
from packtrust.crypto import AESGCM, wipe
from packtrust.record import AAD_ROOM, IV_BASE_LENGTH, VERSION
from packtrust.replay import SentTimes, Window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust.handshake import SessionKeys

KEY_LENGTH = const(32)

_TX_KEY = const(0)
_RX_KEY = const(32)
_TX_IV_BASE = const(64)
_RX_IV_BASE = const(68)
_EPOCH = const(72)
_TX_COUNTER = const(76)
_HIGHEST = const(80)
_STRICT = const(88)
_WINDOW = const(96)
_SENT = const(104)
# Behind all that: what `cold` keeps of a channel nobody uses.
CHANNEL_AT = const(125)
STATE_LENGTH = const(170)

_HIGH_HALF = b"\x00\x00\x00\x00"


# The largest integer that needs no heap on a 32-bit board.
SMALL = const(0x3FFFFFFF)


def _template(binding: bytes, prefix: bytes) -> bytes:
    """What is the same in the work buffer of every record: AAD without ID and length, padded, and the prefix."""
    return bytes((VERSION, 0, 0, 0, 0)) + binding + bytes(AAD_ROOM - 10) + prefix


def begin(keys: "SessionKeys", now_ms: int) -> "Session":
    """The session of keys just agreed on."""
    state = bytearray(STATE_LENGTH)
    state[:_EPOCH] = keys.material
    session = Session(state)
    session.put(_EPOCH, 4, keys.epoch)
    SentTimes(now_ms, state, _SENT).save()
    return session


class Session:
    """What a session is when nobody uses it. `tx` and `rx` are its directions ready for use, or None."""

    def __init__(self, state: bytearray) -> None:
        self.state = state
        self.tx = None  # type: Sender | None
        self.rx = None  # type: Opener | None

    def get(self, at: int, size: int) -> int:
        """A number of the state."""
        return int.from_bytes(self.state[at : at + size], "big")

    def put(self, at: int, size: int, value: int) -> None:
        """Write a number of the state, of 4 or 8 bytes. Needs no heap: a counter that is not kept is used again."""
        pack_into(">I" if size == 4 else ">Q", self.state, at, value)

    @property
    def epoch(self) -> int:
        """The epoch whose root the keys are from."""
        return self.get(_EPOCH, 4)

    @property
    def sealed(self) -> int:
        """Newest counter of ours, 0 before the first record."""
        return self.get(_TX_COUNTER, 4) if self.tx is None else self.tx.latest

    @property
    def highest(self) -> int:
        """Newest counter opened from the peer, 0 before the first record."""
        return self.get(_HIGHEST, 8) if self.rx is None else self.rx.highest

    def receives(self, record: "bytes | bytearray | memoryview") -> bool:
        """Whether a record, at least its IV base, is of this session, from the peer. Needs no heap."""
        state = self.state
        at = 0
        while at < IV_BASE_LENGTH:
            if state[_RX_IV_BASE + at] != record[at]:
                return False
            at += 1
        return True

    def is_fresh(self, cited: int, now_ms: int) -> bool:
        """Whether a record that cites our record `cited` may still be obeyed."""
        tx = self.tx
        if tx is not None:
            return tx.is_fresh(cited, now_ms)
        times = SentTimes(0, self.state, _SENT)
        times.restore(self.sealed)
        return times.is_fresh(cited, now_ms)

    def leave(self) -> None:
        """No direction is ready for use any more."""
        if self.tx is not None:
            self.tx.leave()
        if self.rx is not None:
            self.rx.leave()

    def wipe(self) -> None:
        """Destroy the keys."""
        self.leave()
        wipe(self.state)


class Sender(SentTimes):
    """Our direction of a session, ready for use.

    prefix   the constant half of the IV: iv_base and the high half of the counter, 8 bytes
    binding  the constant half of the AAD: direction and sender, 5 bytes
    template both in their places of a work buffer, 24 bytes
    recent   whether it was used since the workspace looked last
    """

    def __init__(self, session: Session, binding: bytes) -> None:
        state = session.state
        SentTimes.__init__(self, 0, state, _SENT)
        self.restore(session.sealed)
        self.aead = AESGCM(memoryview(state)[_TX_KEY : _TX_KEY + KEY_LENGTH])
        self.seal = self.aead.seal_in_place
        self.prefix = bytes(state[_TX_IV_BASE : _TX_IV_BASE + IV_BASE_LENGTH]) + _HIGH_HALF
        self.binding = binding
        self.template = _template(binding, self.prefix)
        self.recent = True
        self.session = session

    def leave(self) -> None:
        """Write back the counter and the times, wipe the tables."""
        session = self.session
        session.put(_TX_COUNTER, 4, self.latest)
        self.save()
        session.tx = None
        self.aead.wipe()


class Opener(Window):
    """The peer's direction of a session, ready for use: the window of what it sent. See `Sender`.

    small    whether the highest counter needs no heap
    """

    def __init__(self, session: Session, binding: bytes) -> None:
        state = session.state
        Window.__init__(self, state, _WINDOW, session.highest)
        self.strict = session.get(_STRICT, 8)
        self.epoch = session.epoch
        self.aead = AESGCM(memoryview(state)[_RX_KEY : _RX_KEY + KEY_LENGTH])
        self.open = self.aead.open_in_place
        self.prefix = bytes(state[_RX_IV_BASE : _RX_IV_BASE + IV_BASE_LENGTH]) + _HIGH_HALF
        self.binding = binding
        self.template = _template(binding, self.prefix)
        self.small = self.highest <= SMALL
        self.recent = True
        self.session = session

    def accept(self, counter: int) -> None:
        """Mark a fresh counter as taken. Call only after its tag verified."""
        Window.accept(self, counter)
        self.small = self.highest <= SMALL

    def leave(self) -> None:
        """Write back the counters, wipe the tables."""
        session = self.session
        session.put(_HIGHEST, 8, self.highest)
        session.put(_STRICT, 8, self.strict)
        session.rx = None
        self.aead.wipe()
