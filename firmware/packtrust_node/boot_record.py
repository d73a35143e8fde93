"""How often a node has booted, and the package counter it had then: what an identity put back by somebody falls below.

version 2   version (u8) || boot counter (u32) || package counter of the identity at that boot (u32)
version 1   boot counter (u32), and nothing else
"""

from struct import pack, unpack

from packtrust._compat import const
from packtrust.errors import StorageError
from packtrust_node.store import newer_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer

RECORD = "boot"

_VERSION = const(2)
_LAYOUT = ">BII"
_LENGTH = const(9)
_LENGTH_1 = const(4)


def encode(boot_counter: int, package_counter: int) -> bytes:
    """The record."""
    return pack(_LAYOUT, _VERSION, boot_counter, package_counter)


def decode(raw: "Buffer") -> "tuple[int, int, int]":
    """Version, boot counter, package counter (0 from version 1). StorageError for anything else."""
    if len(raw) == _LENGTH_1:
        return 1, unpack(">I", raw)[0], 0
    if len(raw) and raw[0] > _VERSION:
        raise newer_error("record " + RECORD, raw[0])
    if len(raw) != _LENGTH or raw[0] != _VERSION:
        raise StorageError("the boot record is malformed: reset the node and claim it again")
    return unpack(_LAYOUT, raw)
