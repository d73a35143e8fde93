"""Writes tests/vectors/audit.json: golden vectors of docs/audit.md, made by packtrust's own core from fixed inputs.

    python tests/vectors/generate_audit.py [--check]

`test_audit_document.py` makes every output again from the document with hashlib and hmac, and none of our code.
"""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "shared")]

from packtrust import audit  # noqa: E402

TARGET = pathlib.Path(__file__).with_name("audit.json")


def build() -> dict[str, object]:
    """The vectors."""
    receipt_key = bytes(range(32))
    key = audit.first_key(receipt_key)
    root = bytes(range(64, 96))
    bodies = [
        ("claimed", audit.key_event(0, 0, 1, key)),
        ("package", audit.key_event(5, 1, 1, bytes(range(32, 64)))),
        ("committed", audit.key_event(5, 1, 1, root)),
        ("sign", audit.sign_body(2, 10, 1)),
        ("counts", audit.counts_body(21600, 65536, 70000, [("clear", 3), ("tag", 1), ("not-known-here", 9)])),
        ("record", audit.record_body(True, 0x502 << 18 | 5, (7 << 32) + 9)),
        ("signs-cleared", audit.signs_body(2)),
        ("epoch-end", audit.key_event(5, 1, 0)),
        ("released", audit.key_event(0, 0, 9)),
    ]
    made: dict[str, object] = {
        "source": "packtrust's own core (tests/vectors/generate_audit.py); test_audit_document.py rebuilds them from "
        "docs/audit.md with the standard library alone",
        "receipt_key": receipt_key.hex(),
        "first_key": bytes(key).hex(),
    }
    entries = []
    pairs = []
    chain = bytes(32)
    for number, (kind, body) in enumerate(bodies):
        raw = audit.encode_entry(number, 3, 100 * number, kind, body)
        chain = audit.link(chain, raw)
        mac = audit.entry_mac(key, chain)
        parsed = audit.parse_entry(raw)
        assert parsed is not None
        shown = {name: getattr(parsed, name) for name in ("number", "boot_counter", "uptime_s", "kind", "values")}
        entries.append(
            {
                "key_id": audit.key_id(key).hex(),
                "entry": raw.hex(),
                "chain": chain.hex(),
                "mac": mac.hex(),
                "parsed": shown,
            }
        )
        pairs.append((raw, mac))
        key = audit.next_key(key)
    nonce = bytes(range(16))
    part = audit.Part(0, len(bodies), 0, 3, 40, bytes(32), chain, pairs)
    return {
        **made,
        "entries": entries,
        "next_key": bytes(key).hex(),
        "nonce": nonce.hex(),
        "part": part.encode(key, nonce).hex(),
    }


if __name__ == "__main__":
    text = json.dumps(build(), indent=1) + "\n"
    if "--check" in sys.argv:
        if TARGET.read_text() != text:
            sys.exit("tests/vectors/audit.json is out of date: run python tests/vectors/generate_audit.py")
    else:
        TARGET.write_text(text)
