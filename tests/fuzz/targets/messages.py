"""Data bytes of every message of the table, by the host's codec and by the boards' compact one."""

from fuzz.source import Source
from packtrust.messages import codec, compact
from packtrust.messages.table import MESSAGES

COVERS = (
    "packtrust.messages.codec:decode",
    "packtrust.messages.codec:_extract",
    "packtrust.messages.codec:from_raw",
    "packtrust.messages.compact:decode",
)
HEAP_MAX = 14000


_rows = []


def _every():
    if not _rows:
        _rows.extend(MESSAGES)
    return _rows


def seeds():
    for index, row in enumerate(_every()):
        for length in row.dlcs or (0, 8):
            yield bytes((index,)) + bytes(range(length))
            yield bytes((index,)) + b"\xff" * length
        yield bytes((index,)) + bytes(7)


def take(data):
    source = Source(data)
    every = _every()
    row = every[source.number() % len(every)]
    raw = source.take(64)
    values = codec.decode(row, raw)
    assert compact.decode(row.name, raw) == values
    if values is not None and row.dlcs:
        assert codec.decode(row, codec.encode(row, values, len(raw))) == values
