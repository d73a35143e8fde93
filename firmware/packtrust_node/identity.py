"""Who a node is: its binding key, its claim code, its owner and the last package counter.

One record of the store, so that claiming (pin the owner, burn the code, take the counter) is one transaction.
"""

from struct import pack, unpack_from

from packtrust._compat import const
from packtrust.crypto import wipe, x25519_public
from packtrust.errors import CryptoError
from packtrust.keys import fingerprint
from packtrust.package import CLAIM_CODE_LENGTH, PUBLIC_KEY_LENGTH
from packtrust_node.store import newer_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from packtrust._typing import Buffer

RECORD = "identity"

_VERSION = const(1)
_CLEAR_USED = const(1)
_HEAD = ">BBI"
_HEAD_LENGTH = const(6)
_KEYS_LENGTH = const(64)


class Identity:
    """The content of the record.

    private       32 bytes, never leaves the node
    public        32 bytes
    claim_code    16 bytes, empty once burnt
    owner_public  32 bytes, empty while nobody owns the node
    counter       of the last package taken (u32); never goes down, not even by a release
    clear_used    whether a clear first transfer was ever taken: it is taken once in a node's life
    """

    def __init__(
        self,
        private: "Buffer",
        public: "Buffer",
        claim_code: "Buffer",
        owner_public: "Buffer" = b"",
        counter: int = 0,
        clear_used: bool = False,
    ) -> None:
        self.private = bytearray(private)
        self.public = bytes(public)
        self.claim_code = bytearray(claim_code)
        self.owner_public = bytes(owner_public)
        self.counter = counter
        self.clear_used = clear_used
        self.fingerprint = fingerprint(public)

    def __repr__(self) -> str:
        return "<Identity %s>" % ("claimed" if self.claimed else "not claimed")

    @property
    def claimed(self) -> bool:
        """Whether an owner is pinned."""
        return bool(self.owner_public)

    @property
    def owner_fingerprint(self) -> bytes:
        """Fingerprint of the owner; zeros without one."""
        return fingerprint(self.owner_public)

    def owned_by(self, owner_public: bytes, counter: int, clear_used: bool = False) -> "Identity":
        """The identity after a package of `owner_public`: pinned, code burnt, counter taken."""
        used = self.clear_used or clear_used
        return Identity(self.private, self.public, b"", owner_public, counter, used)

    def released(self, claim_code: "Buffer", counter: int) -> "Identity":
        """The identity after a release or reset: nobody's, with a new claim code."""
        return Identity(self.private, self.public, claim_code, b"", counter, self.clear_used)

    def encode(self) -> bytearray:
        """The record. The caller wipes it."""
        flags = _CLEAR_USED if self.clear_used else 0
        out = bytearray(pack(_HEAD, _VERSION, flags, self.counter))
        out.extend(self.private)
        out.extend(self.public)
        for part in (self.claim_code, self.owner_public):
            out.append(len(part))
            out.extend(part)
        return out


def decode(raw: "Buffer") -> "Identity | None":
    """The Identity in a record, None if it is malformed. StorageError if newer firmware wrote it."""
    if len(raw) and raw[0] > _VERSION:
        raise newer_error("a record of kind identity", raw[0])
    if len(raw) < _HEAD_LENGTH + _KEYS_LENGTH + 2 or raw[0] != _VERSION:
        return None
    _, flags, counter = unpack_from(_HEAD, raw, 0)
    at = _HEAD_LENGTH + _KEYS_LENGTH
    code_length = raw[at]
    owner_at = at + 1 + code_length
    if code_length not in (0, CLAIM_CODE_LENGTH) or owner_at >= len(raw):
        return None
    owner_length = raw[owner_at]
    if owner_length not in (0, PUBLIC_KEY_LENGTH) or len(raw) != owner_at + 1 + owner_length:
        return None
    return Identity(
        raw[_HEAD_LENGTH : _HEAD_LENGTH + 32],
        raw[_HEAD_LENGTH + 32 : at],
        raw[at + 1 : owner_at],
        raw[owner_at + 1 :],
        counter,
        flags & _CLEAR_USED != 0,
    )


def fresh_code(urandom: "Callable[[int], Buffer]") -> bytes:
    """A new claim code. Raises CryptoError if the entropy source is none."""
    return _random(urandom, CLAIM_CODE_LENGTH)


def make(urandom: "Callable[[int], Buffer]") -> Identity:
    """A new identity. Raises CryptoError if the entropy source is none."""
    private = bytearray(_random(urandom, 32))
    identity = Identity(private, x25519_public(private), fresh_code(urandom))
    wipe(private)
    return identity


def _random(urandom: "Callable[[int], Buffer]", count: int) -> bytes:
    drawn = bytes(urandom(count))
    # Not a test of quality: it finds a generator that is not connected, which gives the same words again.
    if len(drawn) != count or drawn == bytes(urandom(count)):
        raise CryptoError(
            "the entropy source repeats itself: no keys are made; check the board's random number generator"
        )
    return drawn
