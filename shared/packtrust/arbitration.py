"""29-bit arbitration IDs: base, encrypted flag, segmentation fields and node byte (docs/wire.md, section 1).

28..18 base   17 E (encrypted)   16 T (toggle)   15..12 chunk   11..8 last   7..0 node
"""

from packtrust._compat import const

ENCRYPTED = const(0x20000)
# What of an ID tells that it is a record, and of whose link: bit 17 and the node byte.
RECORD_OF = const(0x200FF)
TOGGLE = const(0x10000)

# Bits 16..8: what changes from frame to frame of one stream.
_SEGMENTATION = const(0x1FF00)

NODE_BROADCAST = const(0x00)
NODE_MODULE_MAX = const(0x1F)
NODE_PACK = const(0x40)
NODE_APP = const(0x7F)
NODE_UNREGISTERED = const(0xFF)

ID_MAX = const(0x1FFFFFFF)


def compose(base: int, node: int, encrypted: bool = False) -> int:
    """The arbitration ID of a message `base` (11 bits) of `node` (8 bits), not segmented."""
    return base << 18 | (ENCRYPTED if encrypted else 0) | node


def base_of(arbitration_id: int) -> int:
    """The 11-bit base, bits 28..18."""
    return arbitration_id >> 18


def node_of(arbitration_id: int) -> int:
    """The node byte, bits 7..0."""
    return arbitration_id & 0xFF


def is_encrypted(arbitration_id: int) -> bool:
    """Bit 17. It means encrypted only where the policy says that the base is sealable."""
    return arbitration_id & ENCRYPTED != 0


def stream_of(arbitration_id: int) -> int:
    """The ID without its segmentation fields: what a toggle and a reassembly buffer belong to."""
    return arbitration_id & ~_SEGMENTATION


def canonical(arbitration_id: int) -> int:
    """The ID a record is bound to by its AAD: bit 17 set, bits 16..8 zero."""
    return arbitration_id & ~_SEGMENTATION | ENCRYPTED


def clear_of(arbitration_id: int) -> int:
    """The ID of the same message in clear: bits 17..8 zero."""
    return arbitration_id & ~(_SEGMENTATION | ENCRYPTED)


def module_node(number: int) -> int:
    """Node byte of module `number` (1..31)."""
    if not 1 <= number <= NODE_MODULE_MAX:
        raise ValueError("module numbers are 1..31, not %d" % number)
    return number


def pack_node(number: int) -> int:
    """Node byte of pack `number` (0..15)."""
    if not 0 <= number <= 15:
        raise ValueError("pack numbers are 0..15, not %d" % number)
    return NODE_PACK + number
