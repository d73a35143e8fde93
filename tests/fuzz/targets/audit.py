"""Entries of a node's audit log and the parts it is sent in."""

from fuzz.source import Source
from packtrust import audit

COVERS = tuple(
    [
        "packtrust.audit:" + name
        for name in ("parse_entry", "_values", "sign_name", "sign_names", "parse_part", "is_reported")
    ]
)
HEAP_MAX = 40000

_KEY = bytes(range(32))
_NONCE = bytes(range(16))


def _entries():
    yield audit.encode_entry(1, 2, 3, "claimed", audit.key_event(0x40, 1, 4, _KEY))
    yield audit.encode_entry(2, 2, 4, "committed", audit.key_event(1, 1, 4))
    yield audit.encode_entry(3, 2, 5, "sign", audit.sign_body(1, 40, 2))
    yield audit.encode_entry(3, 2, 5, "sign", audit.sign_body(99, 40, 2))
    yield audit.encode_entry(4, 2, 6, "signs-cleared", audit.signs_body(0x8003))
    yield audit.encode_entry(5, 2, 7, "counts", audit.counts_body(60, 5, 6, [("tag", 3), ("none such", 70000)]))
    yield audit.encode_entry(6, 2, 8, "record", audit.record_body(True, 0x14080005, 1 << 33))
    yield audit.encode_entry(6, 2, 8, "record", audit.record_body(False, 0x14080005, 1))


def seeds():
    parts = []
    for entry in _entries():
        yield entry
        yield entry[:-1]
        yield entry + b"\x00"
        yield entry[:12] + b"\xf0" + entry[13:]
        parts.append((entry, audit.entry_mac(_KEY, audit.link(bytes(32), entry))))
    yield bytes(12)
    yield bytes(120)
    for count in (0, 1, len(parts)):
        raw = audit.Part(1, 9, 2, 3, 40, bytes(32), bytes(range(32)), parts[:count]).encode(_KEY, _NONCE)
        yield raw
        yield raw[:-1]
        yield raw[:-33] + raw[-32:]
        yield raw[:16] + bytes((count + 1,)) + raw[17:]
        yield b"\x07" + raw[1:]


def take(data):
    raw = bytes(data)
    entry = audit.parse_entry(raw)
    if entry is not None:
        assert entry.raw == raw
        if not entry.kind.startswith("kind-"):
            assert entry.kind in audit.kinds()
    part = audit.parse_part(raw)
    if part is not None:
        assert len(part.before) == len(part.chain) == 32
        for inner, mac in part.entries:
            assert len(mac) == 32
            audit.parse_entry(inner)
        again = part.encode(_KEY, _NONCE)
        assert again[:-32] == raw[:-32]
        assert audit.is_reported(raw, _KEY, _NONCE) == (again == raw)
    audit.is_reported(raw, _KEY, _NONCE)
    assert len(audit.sign_names(Source(data).number(2))) <= 16
