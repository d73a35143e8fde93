"""Bodies of provisioning messages: identities, lists, MACed statements."""

from fuzz.source import Source, counted
from packtrust import provision
from packtrust.crypto import hmac_sha256

COVERS = tuple(
    [
        "packtrust.provision:" + name
        for name in ("parse", "check_mac", "parse_epoch_body", "parse_identity", "parse_entries", "parse_attestation")
    ]
)
HEAP_MAX = 30000

_KEY = bytes(range(32))
_NONCE = bytes(range(16))
_LAYOUTS = (provision.PROOF_ENTRY, provision.MODULE_ENTRY, provision.ATTEST_ENTRY)


def seeds():
    identity = provision.Identity(1, 3, 0xBA770001, bytes(32), bytes(range(32)), 4, 5, "SERIAL", "leaf").encode()
    for size in (0, 40, len(identity) - 1, len(identity)):
        yield identity[:size]
    yield identity + b"\x00"
    yield identity.replace(b"SERIAL", b"SER\x1fAL")
    for kind in (provision.RECEIPT, provision.PROOF):
        yield provision.with_mac(_KEY, kind, provision.epoch_body(bytes(8), 9, bytes(32)), _NONCE)
    entries = [(1, 0xBA770001, bytes(32), bytes(8), 1, 20), (2, 0xBA770002, bytes(32), bytes(8), 2, 21)]
    yield provision.encode_entries(provision.MODULE_ENTRY, [(1, 2, 3), (4, 5, 6)])
    body = b"".join(provision.attestation(bytes(range(32)), _NONCE, 2, entries, _KEY, _KEY))[provision.HEAD :]
    yield bytes(body)
    yield b"".join(provision.attestation(bytes(range(32)), _NONCE, 2, entries, bytes(32), _KEY))[provision.HEAD :]
    raw = bytes(body[2 : -2 * provision.MAC_LENGTH])
    # Well MACed, and wrong inside: by an owner's own program that errs.
    for wrong in (b"\x09" + raw[1:], raw[:33] + bytes(16) + raw[49:], raw[:49] + b"\x05" + raw[50:]):
        macs = hmac_sha256(_KEY, bytes((provision.ATTESTATION,)), _NONCE, wrong) + bytes(provision.MAC_LENGTH)
        yield len(wrong).to_bytes(2, "big") + wrong + macs
    yield provision.frame_message(provision.LIST, 0x40, 1, counted(b"body"))


def take(data):
    message = provision.parse(data)
    if message is not None:
        assert message.body == bytes(data[4:])
    content = provision.check_mac(_KEY, provision.PROOF, data, _NONCE)
    assert content is None or len(content) + 32 == len(data)
    provision.parse_epoch_body(data)
    identity = provision.parse_identity(data)
    if identity is not None:
        assert identity.encode() == bytes(data)
    at = Source(data).number() & 3
    for layout in _LAYOUTS:
        for start in (0, at):
            entries = provision.parse_entries(layout, data, start)
            if entries is not None and not start:
                assert provision.encode_entries(layout, entries) == bytes(data)
    found = provision.parse_attestation(data, _KEY, _NONCE)
    assert found is None or found.nonce == _NONCE
