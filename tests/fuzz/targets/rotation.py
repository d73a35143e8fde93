"""What nodes say of a rotation without an app, a node's report to its owner, and its boot record."""

from fuzz.source import Source
from packtrust import report, rotation
from packtrust.errors import StorageError
from packtrust.provision import REPORT, with_mac
from packtrust_node import boot_record

COVERS = (
    "packtrust.rotation:parse_propose",
    "packtrust.rotation:parse_behind",
    "packtrust.report:parse_request",
    "packtrust.report:parse",
    "packtrust_node.boot_record:decode",
)
HEAP_MAX = 20000

_KEY = bytes(range(32))
_NONCE = bytes(range(16))


def seeds():
    for raw in (
        rotation.propose(7, bytes(32), bytes(range(32))),
        rotation.behind(9),
        report.request(_NONCE, 3),
        report.request(_NONCE, 0, bytes(range(8))),
        boot_record.encode(5, 6),
        bytes(4),
    ):
        yield raw
        yield raw[:-1]
        yield b"\x77" + raw[1:]
        yield b"\x00" + raw[1:]
    entry = (bytes(8), 1, 3, 1000, 2000, 30, 40, bytes(32))
    for count in range(3):
        raw = report.encode(_KEY, _NONCE, bytes(32), 1, 2, count, 0, [entry] * count)
        yield raw
        yield raw[:-1]
        yield raw[:40]
    # Well MACed, and wrong inside: by an owner's own program that errs.
    for content in (b"", bytes(43)[:-1] + b"\x02", raw[:-33], raw[:-32] + b"x"):
        yield with_mac(_KEY, REPORT, content, _NONCE)


def take(data):
    raw = bytes(data)
    found = rotation.parse_propose(raw)
    assert found is None or rotation.propose(*found) == raw
    epoch = rotation.parse_behind(raw)
    assert epoch < 0 or rotation.behind(epoch) == raw
    asked = report.parse_request(raw)
    assert asked is None or report.request(*asked) == raw
    told = report.parse(_KEY, _NONCE, raw)
    assert told is None or len(told.entries) * 61 + 43 + 32 == len(raw)
    try:
        version, boot_counter, package_counter = boot_record.decode(raw)
        assert version in (1, 2)
        assert version == 1 or boot_record.encode(boot_counter, package_counter) == raw
    except StorageError:
        assert Source(data).left != 4
