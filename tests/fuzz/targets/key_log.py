"""A key log, and frames read along with it. Host only."""

import os
import tempfile
from pathlib import Path

import can

from fuzz.source import Source, lay
from packtrust.frame import Frame
from packtrust.record import RecordCipher
from packtrust.segmentation import Segmenter
from packtrust_host.interface import Opener
from packtrust_host.keylog import KeyLogReader

COVERS = (
    "packtrust_host.keylog:KeyLogReader",
    "packtrust_host.interface:Opener",
)
HEAP_MAX = 300000
HOST_ONLY = True

_FILE = Path(tempfile.gettempdir()) / ("packtrust-fuzz-%d.keys" % os.getpid())
_SEALED = 0x502 << 18 | 1 << 17 | 5
_COMMAND = 0x514 << 18 | 1 << 17 | 5


def _line(key="00" * 32, base="01020304", sender="05060708", tag="packtrust-1"):
    return ("%s 0 %s %s %s\n" % (tag, base, key, sender)).encode()


def _frames(full_id, size, counter=1):
    cipher = RecordCipher(bytes(32), b"\x01\x02\x03\x04", 0, b"\x05\x06\x07\x08")
    return Segmenter().split(full_id, cipher.seal(full_id, counter, bytes(size)))


def seeds():
    good = _line()

    def run(text, frames):
        return len(text).to_bytes(2, "big") + text + b"".join([lay(frame) for frame in frames])

    for size in (8, 12, 90):
        yield run(good, _frames(_SEALED, size))
    yield run(good, _frames(_COMMAND, 8))
    yield run(good[:-1], _frames(_SEALED, 8))
    yield run(b"", _frames(_SEALED, 8))
    yield run(good, _frames(_SEALED, 8)[:2] + _frames(_SEALED, 8))
    spoilt = _frames(_SEALED, 8)
    spoilt[-1] = Frame(spoilt[-1].arbitration_id, bytes(4))
    yield run(good, spoilt)
    yield run(good, spoilt[:1] + spoilt[-1:])
    yield run(
        good, [Frame(_SEALED, bytes(8)), Frame(0x123, bytes(8), False), Frame(_SEALED | 48 << 8, bytes(48), True, True)]
    )
    yield run(good, [Frame(_SEALED | 8 << 8, bytes(8), True, True), Frame(_SEALED | 9 << 8, bytes(8), True, True)])
    for text in (
        _line(key="00" * 16),
        _line(key=""),
        _line(base="00"),
        _line(tag="x"),
        b"\xff\xfe\n",
        b"x\n",
        good.replace(b" 0 ", b" 7 "),
    ):
        yield run(text, _frames(_SEALED, 8))
        yield run(text, _frames(_SEALED, 8))


def take(data):
    source = Source(data)
    _FILE.write_bytes(source.part())
    opener = Opener(KeyLogReader(_FILE))
    shown = taken = 0
    while source.left:
        frame = source.frame()
        taken += 1
        message = can.Message(
            arbitration_id=frame.arbitration_id, data=frame.data, is_extended_id=frame.is_extended_id, is_fd=frame.is_fd
        )
        shown += len(opener.feed(message))
    assert shown <= taken
    _FILE.unlink(missing_ok=True)
