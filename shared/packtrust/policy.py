"""Which messages are sealed, which cite, and which may ever be taken in clear: data, not code.

Every base of the message table has a class; a class has flags. The digest over all rows goes into
the session handshake (docs/wire.md, section 6), so two nodes with different rules never hold a
session.

    policy.is_sealable(base)            bit 17 of its 29-bit ID means encrypted
    policy.needs_citation(base)         strictly increasing counter, cites the peer's newest one
    policy.clear_allowed(base, keyed)   may be taken in clear by a node that has (not) the keys
    policy.clear_without_session(base)  may be taken in clear by a keyed node without a live session

`DEFAULT_POLICY` is the battery's, made from the message table. Nodes with IDs of their own take
`Policy.open_bus()`.
"""

from struct import pack_into

from packtrust._compat import const
from packtrust.crypto import sha256
from packtrust.errors import PolicyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Row = tuple[int, int, int]  # base, class, flags

# Classes. The numbers are part of the digest.
ANNOUNCE = const(1)  # always clear: a node that knows nobody must be found
TELEMETRY = const(2)  # sealed once keyed; sliding window
COMMAND = const(3)  # sealed, cited
CONFIG = const(4)  # sealed, cited
# Sealed, cited once keyed; clear before, for there is no node number and no key yet
REGISTRATION = const(5)
# Heartbeats and polls: they keep a node alive, so they are sealed and cited like commands
HEARTBEAT = const(6)
# 11-bit frames to old VCUs, clear by policy; their 29-bit twins are telemetry
LEGACY_VCU = const(7)
HANDSHAKE = const(8)  # proves itself by MACs
# ISO-TP; bit 17 tells the two links apart, a record in it is bound to the ID it carries
TRANSPORT = const(9)
TEST = const(10)  # test service: in clear, and only while the node has no keys
UNSEALABLE = const(11)  # uses bit 17 otherwise, or must never be taken

CLASS_NAMES = (
    "",
    "announce",
    "telemetry",
    "command",
    "config",
    "registration",
    "heartbeat",
    "legacy-vcu",
    "handshake",
    "transport",
    "test",
    "unsealable",
)

# Flags. The numbers are part of the digest.
SEALABLE = const(1)
CITED = const(2)
CLEAR_UNKEYED = const(4)
CLEAR_KEYED = const(8)
CLEAR_WITHOUT_SESSION = const(16)
CLEAR_STANDARD = const(32)
# An old VCU's 11-bit frame: it keeps alive and lowers; it raises only under the app's grant
CLEAR_LOWERS = const(64)

# Flags of each class, by its number.
CLASS_FLAGS = (
    0,
    CLEAR_UNKEYED | CLEAR_KEYED,
    SEALABLE | CLEAR_UNKEYED,
    SEALABLE | CITED | CLEAR_UNKEYED,
    SEALABLE | CITED | CLEAR_UNKEYED,
    SEALABLE | CITED | CLEAR_UNKEYED,
    SEALABLE | CITED | CLEAR_UNKEYED,
    SEALABLE | CLEAR_UNKEYED | CLEAR_STANDARD,
    CLEAR_UNKEYED | CLEAR_KEYED,
    CLEAR_UNKEYED | CLEAR_KEYED,
    CLEAR_UNKEYED,
    0,
)

BASE_MAX = const(0x7FF)

# Row that stands for every base without a row of its own. No CAN base can be it.
ANY_BASE = const(0xFFFF)

_DIGEST_LABEL = b"packtrust policy v1"
_ROW_LENGTH = const(4)
# Bases whose flags are kept. Who sends others first gains that the rest is searched for.
_KNOWN_MAX = const(24)

# Rows a link needs whatever else the bus carries: the defaults of `Channel`.
_LINK_ROWS = (
    (0x431, TRANSPORT),
    (0x432, TRANSPORT),
    (0x433, HANDSHAKE),
    (0x434, HANDSHAKE),
    (0x530, TRANSPORT),
    (0x531, HANDSHAKE),
    (0x538, TRANSPORT),
    (0x539, HANDSHAKE),
)


class Policy:
    """The class and flags of every base.

    `rows`: (base, class, flags) in any order, or a function that gives them (called at first use,
    so that a node which never asks does not pay for the table). Raises PolicyError for a base out
    of range or given twice.
    """

    def __init__(self, rows: "Iterable[Row] | Callable[[], Iterable[Row]]") -> None:
        self._source = rows  # type: Iterable[Row] | Callable[[], Iterable[Row]] | None
        # Sorted rows, base u16 BE, class u8, flags u8: 4 bytes a row, and what the digest is over.
        self._packed = b""
        self._digest = b""
        # Flags of bases that were asked for: a bus brings the same ones again and again, and a search takes ten times
        # as long as a look.
        self._flags = {}  # type: dict[int, int]

    def _rows(self) -> bytes:
        source = self._source
        if source is not None:
            # One int a row, not a tuple: this runs once, but on the smallest heap.
            rows = []
            for base, kind, flags in source() if callable(source) else source:
                if not 0 <= base <= BASE_MAX and base != ANY_BASE:
                    raise PolicyError("base 0x%X is not 11 bits: give bits 28..18 of the ID" % base)
                rows.append(base << 16 | kind << 8 | flags)
            rows.sort()
            packed = bytearray(_ROW_LENGTH * len(rows))
            at = 0
            previous = -1
            for row in rows:
                base = row >> 16
                if base == previous:
                    raise PolicyError("base 0x%03X has two classes in this policy: give it one" % base)
                previous = base
                pack_into(">I", packed, at, row)
                at += _ROW_LENGTH
            self._packed = bytes(packed)
            self._source = None
        return self._packed

    def _find(self, base: int) -> int:
        """Offset of the row of `base`, else of the row for any base, else -1."""
        packed = self._packed if self._source is None else self._rows()  # a call that takes heap: once only
        low = 0
        high = len(packed)
        while low < high:
            at = low + high >> 1 & -_ROW_LENGTH
            found = packed[at] << 8 | packed[at + 1]
            if found == base:
                return at
            if found < base:
                low = at + _ROW_LENGTH
            else:
                high = at
        at = len(packed) - _ROW_LENGTH
        return at if at >= 0 and packed[at] == 0xFF else -1

    def flags_of(self, base: int) -> int:
        """The flags of `base`: SEALABLE, CITED, CLEAR_...; 0 if the policy does not know it."""
        flags = self._flags.get(base)
        return self._flags_of(base) if flags is None else flags

    def _flags_of(self, base: int) -> int:
        at = self._find(base)
        flags = 0 if at < 0 else self._packed[at + 3]
        if len(self._flags) < _KNOWN_MAX:
            self._flags[base] = flags
        return flags

    def class_of(self, base: int) -> int:
        """The class of `base`; UNSEALABLE if the policy does not know it."""
        at = self._find(base)
        return UNSEALABLE if at < 0 else self._packed[at + 2]

    def is_sealable(self, base: int) -> bool:
        """Whether bit 17 of a 29-bit ID with this base means a record bound to this ID."""
        return self.flags_of(base) & SEALABLE != 0

    def check_sealable(self, base: int) -> None:
        """Raise PolicyError unless `is_sealable(base)`."""
        if not self.is_sealable(base):
            raise PolicyError(
                "messages with base 0x%03X cannot be sealed (class %s): use a sealable base"
                % (base, CLASS_NAMES[self.class_of(base)])
            )

    def needs_citation(self, base: int) -> bool:
        """Whether records of this base go in strict order only and cite the peer's newest."""
        return self.flags_of(base) & CITED != 0

    def clear_allowed(self, base: int, keyed: bool, extended: bool = True) -> bool:
        """Whether a clear frame may be taken by a node with (`keyed`) or without the keys.

        `extended` False: the field's 11-bit frame of this base; only what old VCUs listen to is
        then allowed.
        """
        flags = self.flags_of(base)
        if not extended:
            return flags & CLEAR_STANDARD != 0
        return flags & (CLEAR_KEYED if keyed else CLEAR_UNKEYED) != 0

    def clear_lowers(self, base: int) -> bool:
        """Whether the 11-bit frame of an old VCU is heard: it keeps alive and lowers (legacy-vcu)."""
        return self.flags_of(base) & CLEAR_LOWERS != 0

    def clear_without_session(self, base: int) -> bool:
        """Whether a keyed node obeys the clear frame while it has no live session (isolate)."""
        return self.flags_of(base) & CLEAR_WITHOUT_SESSION != 0

    @property
    def digest(self) -> bytes:
        """SHA-256 of the label and the rows by base: base u16 BE, class u8, flags u8."""
        if not self._digest:
            self._digest = bytes(sha256(_DIGEST_LABEL + self._rows()))
        return self._digest

    @staticmethod
    def open_bus(command_bases: "Iterable[int]" = (), clear_bases: "Iterable[int]" = ()) -> "Policy":
        """Policy for nodes with IDs of their own: every base not given is sealable telemetry.

        command_bases   sealed and cited, never in clear
        clear_bases     never sealed, always taken in clear
        The handshake and ISO-TP bases of `Channel`'s links stay reserved; PolicyError if one is
        given.
        """
        rows = [(base, kind, CLASS_FLAGS[kind]) for base, kind in _LINK_ROWS]
        reserved = [base for base, _ in _LINK_ROWS]
        for bases, kind, flags in (
            (command_bases, COMMAND, SEALABLE | CITED),
            (clear_bases, ANNOUNCE, CLEAR_UNKEYED | CLEAR_KEYED),
        ):
            for base in bases:
                if base in reserved:
                    raise PolicyError("base 0x%03X carries handshake or ISO-TP: use another one" % base)
                if not 0 <= base <= BASE_MAX:
                    raise PolicyError("base 0x%X is not 11 bits: give bits 28..18 of the ID" % base)
                rows.append((base, kind, flags))
        rows.append((ANY_BASE, TELEMETRY, SEALABLE | CLEAR_UNKEYED))
        return Policy(rows)


def _table_rows() -> "Iterable[Row]":
    from packtrust.messages.compact import policy_rows

    return policy_rows()


DEFAULT_POLICY = Policy(_table_rows)

DEFAULT_PROFILE = "default"
LEGACY_VCU_PROFILE = "legacy-vcu"


def profile(name: str, mixed_bus: bool = False) -> Policy:
    """The policy named `name`, the same object every time. Raises PolicyError if there is none.

    default      sealed is obeyed, and nothing else
    legacy-vcu   for a pack that an old VCU keeps alive, and lowers, in clear (docs/policy.md)
    mixed_bus    old modules are on the module bus: sealed IDs are moved out of their reach
    """
    if name not in (DEFAULT_PROFILE, LEGACY_VCU_PROFILE):
        raise PolicyError("no policy is named %s: use %s or %s" % (name, DEFAULT_PROFILE, LEGACY_VCU_PROFILE))
    if name == DEFAULT_PROFILE and not mixed_bus:
        return DEFAULT_POLICY
    from packtrust.profiles import make

    return make(name == LEGACY_VCU_PROFILE, mixed_bus)
