"""From key halves to keys (docs/wire.md, section 4): one Extract a secret, one Expand a purpose (RFC 5869)."""

from struct import pack

from packtrust._compat import const
from packtrust.crypto import hkdf_expand, hmac_sha256, sha256
from packtrust.errors import KeyFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer

HALF_LENGTH = const(64)
SALT_LENGTH = const(32)
FINGERPRINT_LENGTH = const(32)

# Directions of `Relationship.info`.
INITIATOR_TO_RESPONDER = const(0)
RESPONDER_TO_INITIATOR = const(1)
BOTH = const(0xFF)

SIDE_A = const(0)
SIDE_B = const(1)

_HEX = "0123456789abcdef"


# What one epoch may be used for: records of both directions and all its sessions together, and time with power. They
# are the defaults and the most a node takes: a package may lower them, never raise them (docs/wire.md, section 9).
DEFAULT_MAX_RECORDS = const(0x1000000)  # 2^24
DEFAULT_MAX_AGE_S = const(2592000)  # 30 days
# Less is a mistake: an epoch must last longer than its handshake takes.
MIN_RECORDS = const(32)
MIN_AGE_S = const(30)


def terms(max_records: int, max_age_s: int) -> "tuple[int, int]":
    """The limits in force where a package asks for these: its own, but never weaker than the defaults; 0 is no wish."""
    return (
        min(DEFAULT_MAX_RECORDS, max(MIN_RECORDS, max_records or DEFAULT_MAX_RECORDS)),
        min(DEFAULT_MAX_AGE_S, max(MIN_AGE_S, max_age_s or DEFAULT_MAX_AGE_S)),
    )


def decode_half(text: str) -> bytearray:
    """The 64 bytes of a key half as the bridge prints it.

    128 hex digits are decoded; 64 hex digits (what today's bridge makes of 32 random bytes) are used as their 64
    lower-case ASCII bytes. Raises KeyFormatError for anything else; the message never shows the text.
    """
    lower = text.lower()
    if len(lower) not in (64, 128):
        raise KeyFormatError(
            "a key half is 128 hex digits (or 64 from an old bridge), not %d characters: "
            "check that the bridge supplies real key material" % len(lower)
        )
    for character in lower:
        if character not in _HEX:
            raise KeyFormatError(
                "a key half has only hex digits: the bridge supplied a placeholder or text, ask its operator"
            )
    half = bytearray(HALF_LENGTH)
    if len(lower) == 64:
        half[:] = lower.encode()
    else:
        for at in range(HALF_LENGTH):
            half[at] = _HEX.index(lower[2 * at]) << 4 | _HEX.index(lower[2 * at + 1])
    if len(set(half)) < 4:
        raise KeyFormatError("a key half of almost equal bytes is a placeholder, not a key: ask the bridge's operator")
    return half


def check_halves(half_a: "Buffer", half_b: "Buffer") -> None:
    """Raise KeyFormatError unless both have 64 bytes and differ."""
    if len(half_a) != HALF_LENGTH or len(half_b) != HALF_LENGTH:
        raise KeyFormatError("key halves have 64 bytes each, not %d and %d" % (len(half_a), len(half_b)))
    if bytes(half_a) == bytes(half_b):
        raise KeyFormatError("both key halves are equal: the bridge's random source has failed, do not use them")


def pair_secret(half_a: "Buffer", half_b: "Buffer", salt: "Buffer") -> bytes:
    """The roadmap's rule by itself: HKDF-Extract(salt, half_a || half_b || salt), 32 bytes.

    Halves of 64 bytes, salt of 32. Raises KeyFormatError.
    """
    check_halves(half_a, half_b)
    if len(salt) != SALT_LENGTH:
        raise KeyFormatError("the salt has 32 bytes, not %d" % len(salt))
    return hmac_sha256(salt, half_a, half_b, salt)


def fingerprint(public_key: "Buffer") -> bytes:
    """SHA-256 of a binding public key; zeros for a peer that has none."""
    if not any(public_key):
        return bytes(FINGERPRINT_LENGTH)
    return sha256(public_key)


def lct_tag(lct_id: str) -> bytes:
    """The 8 bytes that stand for an LCT on the wire."""
    return sha256(lct_id.encode())[:8]


def static_root(secret: "Buffer", dh_static: "Buffer") -> bytes:
    """PRK that authenticates the pair exchange. `dh_static` empty: a peer without a binding key."""
    return epoch_root(secret, dh_static, b"")


def epoch_root(secret: "Buffer", dh_static: "Buffer", dh_ephemeral: "Buffer") -> bytes:
    """PRK of everything in one epoch of a relationship."""
    # Extract is an HMAC under the salt; taking its parts one by one makes no copy of them.
    return hmac_sha256(secret, dh_static, dh_ephemeral, b"" if dh_static or dh_ephemeral else b"halves only")


def _lv(value: bytes) -> bytes:
    if len(value) > 255:
        raise KeyFormatError("an identifier has at most 255 bytes, not %d" % len(value))
    return bytes((len(value),)) + value


class Relationship:
    """Who shares a secret: the two component ids and fingerprints of one LCT."""

    def __init__(
        self, component_a: str, component_b: str, lct_id: str, fingerprint_a: "Buffer", fingerprint_b: "Buffer"
    ) -> None:
        self.component_a = component_a
        self.component_b = component_b
        self.lct_id = lct_id
        self.fingerprint_a = bytes(fingerprint_a)
        self.fingerprint_b = bytes(fingerprint_b)
        if len(self.fingerprint_a) != FINGERPRINT_LENGTH or len(self.fingerprint_b) != FINGERPRINT_LENGTH:
            raise KeyFormatError("fingerprints have 32 bytes")

    @property
    def tag(self) -> bytes:
        """`lct_tag` of the relationship."""
        return lct_tag(self.lct_id)

    def fingerprint_of(self, side: int) -> bytes:
        """Fingerprint of side A (0) or B (1)."""
        return self.fingerprint_b if side else self.fingerprint_a

    def context(self, epoch: int) -> bytes:
        """What every key of this relationship and epoch is bound to."""
        return (
            _lv(self.component_a.encode())
            + _lv(self.component_b.encode())
            + _lv(self.lct_id.encode())
            + self.fingerprint_a
            + self.fingerprint_b
            + pack(">I", epoch)
        )

    def info(self, label: str, epoch: int, direction: int = BOTH) -> bytes:
        """The `info` of an Expand: purpose, both ends, epoch and direction."""
        return b"packtrust v1 " + label.encode() + b"\x00" + self.context(epoch) + bytes((direction,))

    def expand(self, prk: "Buffer", label: str, epoch: int, direction: int = BOTH, length: int = 32) -> bytes:
        """One key of `length` bytes for one purpose."""
        return hkdf_expand(prk, self.info(label, epoch, direction), length)
