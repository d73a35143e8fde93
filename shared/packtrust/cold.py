"""A channel that nobody uses, as the bytes of its session: what a gateway keeps of most of its channels.

    state = put_away(channel)           # the channel is of no use from here on; None: it is busy, and stays
    channel = Channel(keys, ..)         # the same arguments, a function for the keys
    fetch(channel, state)               # goes on where the other one was

The keys are not copied: the channel's session and these bytes are the same memory. Behind what a session keeps there
(packtrust.session) stand, from CHANNEL_AT on, big endian:

    older epoch (u32, the one of two that was there first, else the only one) || epoch (u32) || records opened (u32)
    || records sealed (u32) || when the last one was opened (i32, as Channel keeps it) || sessions so far (u16)
    || senders of both directions (8 bytes) || flags (u8) || lowest base ever sealed (u16)
    || of it and the 31 above, the lowest at bit 0: which were sealed, their toggles, which cite (u32 each)

What was refused, by reason, is kept beside them by who wants it (`Channel.refused`).
"""

from struct import pack_into, unpack_from

from packtrust._compat import const
from packtrust.arbitration import TOGGLE, canonical, compose
from packtrust.crypto import wipe
from packtrust.session import CHANNEL_AT, STATE_LENGTH, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust.channel import Channel

_LAYOUT = ">IIIIiH8sBHIII"
_OPENED_AT = const(133)
_SEALED_AT = const(137)
_FLAGS_AT = const(155)
_SESSION_EPOCH_AT = const(72)
# In the flags.
_IN_SESSION = const(1)
_TWO_EPOCHS = const(2)
_TOGGLED = const(4)  # the next handshake message has its toggle set

_BASES = const(32)
_U16_MAX = const(0xFFFF)
# In `Channel._counts` and `Channel._heads`.
_TOGGLE = const(7)
_SENDERS = const(36)
_CITES = const(0x100)


def put_away(channel: "Channel") -> "bytearray | None":
    """The bytes of a channel whose keys are asked for; None while it has something under way. See the module."""
    if not channel.is_quiet:
        return None
    session = channel._session
    flags = 0
    if session is None:
        state = bytearray(STATE_LENGTH)
    else:
        channel._shared.dismiss(session.tx)
        channel._shared.dismiss(session.rx)
        session.leave()
        state = session.state
        flags = _IN_SESSION
    counts = channel._counts
    if len(channel._roots) > 1:
        flags |= _TWO_EPOCHS
    if counts[_TOGGLE]:
        flags |= _TOGGLED
    heads = channel._heads
    lowest = min(heads) >> 18 if heads else 0
    known = toggles = cites = 0
    for arbitration_id, head in heads.items():
        place = (arbitration_id >> 18) - lowest
        if place < _BASES:  # one far above begins with toggle 0 again, which its receiver bears
            known |= 1 << place
            if head & TOGGLE:
                toggles |= 1 << place
            if head & _CITES:
                cites |= 1 << place
    pack_into(
        _LAYOUT,
        state,
        CHANNEL_AT,
        min(channel._roots),
        channel.epoch,
        counts[0],
        counts[1],
        counts[2],
        min(counts[3], _U16_MAX),
        unpack_from("8s", counts, _SENDERS)[0],
        flags,
        lowest,
        known,
        toggles,
        cites,
    )
    channel._session = None  # last: where there was no heap for something, the channel goes on
    return state


def older_epoch(state: bytearray) -> int:
    """The epoch to make the channel with."""
    return int(unpack_from(">I", state, CHANNEL_AT)[0])


def fetch(channel: "Channel", state: bytearray) -> None:
    """Let a channel just made, with keys of `older_epoch`, go on where another one was put away."""
    kept = unpack_from(_LAYOUT, state, CHANNEL_AT)
    counts = channel._counts
    counts[0], counts[1], counts[2], counts[3] = kept[2:6]
    pack_into("8s", counts, _SENDERS, kept[6])
    flags = kept[7]
    if flags & _TWO_EPOCHS:
        channel._roots[kept[1]] = None
    channel.epoch = kept[1]
    counts[_TOGGLE] = TOGGLE if flags & _TOGGLED else 0
    known = kept[9]
    place = 0
    while known:
        if known & 1:
            arbitration_id = compose(kept[8] + place, channel.node)
            head = canonical(arbitration_id)
            if kept[10] >> place & 1:
                head |= TOGGLE
            if kept[11] >> place & 1:
                head |= _CITES
            channel._heads[arbitration_id] = head
        known >>= 1
        place += 1
    if flags & _IN_SESSION:
        channel._session = Session(state)


def in_session(state: bytearray) -> bool:
    """Whether there is a session: `Channel.established`."""
    return state[_FLAGS_AT] & _IN_SESSION != 0


def session_epoch(state: bytearray) -> int:
    """As `Channel.session_epoch`."""
    return int(unpack_from(">I", state, _SESSION_EPOCH_AT)[0]) if in_session(state) else -1


def opened_and_sealed(state: bytearray) -> "tuple[int, int]":
    """How many records were opened and sealed."""
    return unpack_from(">II", state, _OPENED_AT)


def close(state: bytearray) -> None:
    """Destroy the keys."""
    wipe(state)
