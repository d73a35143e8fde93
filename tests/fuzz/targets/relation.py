"""The relationship records of a node's store."""

from packtrust.errors import StorageError
from packtrust_node import relation

COVERS = ("packtrust_node.relation:decode",)
HEAP_MAX = 12000


def _made(lct_half=b"", previous=None):
    return relation.Relation(
        3,
        2,
        1,
        0,
        5,
        1,
        1000,
        2000,
        0xBA770001,
        bytes(range(32)),
        bytes(range(32, 64)),
        "lct-1",
        "comp-a",
        "comp-b",
        lct_half,
        previous,
    )


def seeds():
    for made in (_made(), _made(bytes(64)), _made(b"", (1, bytearray(32))), _made(bytes(64), (1, bytearray(32)))):
        raw = bytes(made.encode())
        yield raw
        for size in (0, 30, 89, 90, 95, 96, 100, 110, len(raw) - 1):
            yield raw[:size]
        yield raw + b"\x00"
        yield b"\x09" + raw[1:]
        # Names that are no text: the record is authentic, but of a firmware that was wrong.
        yield raw.replace(b"comp-a", b"\xff\xfe\xfd\xfc\xfb\xfa")
        yield raw.replace(b"lct-1", b"\xc3(\xc3(\xc3")


def take(data):
    try:
        found = relation.decode(data)
    except StorageError:
        assert data[0] > 1  # newer firmware's
        return
    if found is not None:
        again = relation.decode(found.encode())
        assert again is not None
        assert again.encode() == found.encode()
        found.wipe()
