"""Salts of the epochs that the devices made themselves: their hashes, for the owner; loaded when needed."""

from struct import unpack_from

from packtrust._compat import const
from packtrust_node.relation import PREFIX, SALT_PREFIX, record_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust_node.store import Store

_SALT_ENTRY = const(36)  # epoch, SHA-256 of the salt


def salt_name(tag: bytes) -> str:
    """Name of the store's record of a relationship's salts."""
    return SALT_PREFIX + record_name(tag)[len(PREFIX) :]


def salt_hash(store: "Store", tag: bytes, epoch: int) -> bytes:
    """SHA-256 of the salt of an epoch that the devices made themselves, b"" if a package brought it."""
    raw = store.read(salt_name(tag))
    if raw is not None:
        for at in range(0, len(raw) - _SALT_ENTRY + 1, _SALT_ENTRY):
            if unpack_from(">I", raw, at)[0] == epoch:
                return bytes(raw[at + 4 : at + _SALT_ENTRY])
    return b""
