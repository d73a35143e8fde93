"""A new epoch of a pair without an app (docs/wire.md, section 9): its secret, its first message, a node's report.

The new root follows from the old one (so who has not got that is out), from a new salt, from the binding keys (so who
has got nothing but the old root is out too), and from an ephemeral exchange of its own (so who records the bus and
takes both devices apart later is out as well).
"""

from struct import pack, unpack_from

from packtrust._compat import const
from packtrust.crypto import hmac_sha256, wipe
from packtrust.keys import SALT_LENGTH, Relationship

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer

# Beside ANSWER, CONFIRM and AGREED of packtrust.pairing, in records.
PROPOSE = const(0x15)  # initiator: epoch, salt, its ephemeral key
BEHIND = const(0x16)  # responder: the newest epoch it has ever agreed on

# An initiator behind by more than this does not follow: nobody is, unless somebody wants to use our epochs up.
EPOCH_JUMP = const(1000)

_PROPOSE_LENGTH = const(69)
_BEHIND_LENGTH = const(5)


def next_secret(root: "Buffer", relationship: Relationship, epoch: int, salt: "Buffer") -> bytearray:
    """What stands for the pair secret in the epoch after `epoch`, whose root is `root`; 32 bytes, the caller wipes it.

    HKDF-Extract(salt, chain || salt), chain = HKDF-Expand(root, info("rotation"), 32) (RFC 5869).
    """
    chain = bytearray(relationship.expand(root, "rotation", epoch))
    secret = bytearray(hmac_sha256(salt, chain, salt))
    wipe(chain)
    return secret


def propose(epoch: int, salt: "Buffer", public: "Buffer") -> bytes:
    """PROPOSE of a new epoch: 69 bytes."""
    return bytes((PROPOSE,)) + pack(">I", epoch) + bytes(salt) + bytes(public)


def parse_propose(payload: "Buffer") -> "tuple[int, bytes, bytes] | None":
    """(epoch, salt, ephemeral public key) of a PROPOSE, None if it is none."""
    if len(payload) != _PROPOSE_LENGTH or payload[0] != PROPOSE:
        return None
    at = 5 + SALT_LENGTH
    return int(unpack_from(">I", payload, 1)[0]), bytes(payload[5:at]), bytes(payload[at:])


def behind(epoch: int) -> bytes:
    """BEHIND: 5 bytes."""
    return bytes((BEHIND,)) + pack(">I", epoch)


def parse_behind(payload: "Buffer") -> int:
    """The epoch in a BEHIND, -1 if it is none."""
    if len(payload) != _BEHIND_LENGTH or payload[0] != BEHIND:
        return -1
    return int(unpack_from(">I", payload, 1)[0])
