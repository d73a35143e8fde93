"""Messages between app and device: one table, both ways, and no byte of the wire raises."""

from packtrust import provision
from packtrust.crypto import sha256, x25519_public

KEY = bytes(range(32))
DEVICE = bytes(range(1, 33))
OWNER = bytes(range(33, 65))


def identity():
    return provision.Identity(
        provision.ROLE_MODULE, 3, 0xBA77BABE, b"\x01" * 32, b"\x02" * 32, 5, 6, "MODBATT-MOD-RC001-001", "leaf"
    )


def test_framing():
    message = provision.parse(provision.frame_message(provision.PROVE, 5, 9, b"abc"))
    assert (message.kind, message.target, message.sequence, message.body) == (provision.PROVE, 5, 9, b"abc")
    assert provision.parse(b"\x02\x01\x05\x00") is None
    assert provision.parse(b"\x01\x01") is None


def test_identity_comes_back_and_a_cut_one_does_not():
    raw = identity().encode()
    got = provision.parse_identity(raw)
    assert got.unique_id == 0xBA77BABE and got.serial == "MODBATT-MOD-RC001-001" and got.profile == "leaf"
    assert got.public_key == b"\x01" * 32 and got.owner_fingerprint == b"\x02" * 32
    assert (got.role, got.flags, got.counter, got.boot_counter) == (2, 3, 5, 6)
    for size in range(len(raw)):
        assert provision.parse_identity(raw[:size]) is None
    assert provision.parse_identity(raw + b"\x00") is None
    assert provision.parse_identity(raw[:-1] + b"\x00") is None


def test_macs_bind_kind_nonce_and_body():
    body = provision.with_mac(KEY, provision.COMMIT, provision.epoch_body(b"12345678", 4))
    assert provision.parse_epoch_body(provision.check_mac(KEY, provision.COMMIT, body)) == (b"12345678", 4)
    assert provision.check_mac(KEY, provision.ABORT, body) is None
    assert provision.check_mac(bytes(32), provision.COMMIT, body) is None
    assert provision.check_mac(KEY, provision.COMMIT, body, b"nonce") is None
    for at in range(len(body)):
        bad = bytearray(body)
        bad[at] ^= 1
        assert provision.check_mac(KEY, provision.COMMIT, bad) is None
    assert provision.check_mac(KEY, provision.COMMIT, body[:20]) is None


def test_owner_and_device_have_one_owner_key():
    fd, fo = sha256(x25519_public(DEVICE)), sha256(x25519_public(OWNER))
    one = provision.owner_key(DEVICE, x25519_public(OWNER), fd, fo)
    assert one == provision.owner_key(OWNER, x25519_public(DEVICE), fd, fo)
    assert one != provision.owner_key(DEVICE, x25519_public(OWNER), fo, fd)


def test_lists():
    entries = [(1, 0xBA77BABE, 3), (31, 7, 0)]
    raw = provision.encode_entries(provision.MODULE_ENTRY, entries)
    assert provision.parse_entries(provision.MODULE_ENTRY, raw) == entries
    assert provision.parse_entries(provision.MODULE_ENTRY, raw[:-1]) is None
    assert provision.parse_entries(provision.MODULE_ENTRY, b"") is None


def test_an_attestation_is_taken_only_for_its_nonce_and_key():
    nonce = b"n" * 16
    entries = [(1, 7, b"f" * 32, b"t" * 8, 2, 55)]
    message = bytearray(b"".join(provision.attestation(b"p" * 32, nonce, 1, entries, KEY, b"\x05" * 64)))
    body = bytes(message[provision.HEAD :])
    got = provision.parse_attestation(body, KEY, nonce)
    assert got.entries == entries and got.fingerprint == b"p" * 32
    assert got.statement == b"\x01" + b"p" * 32 + nonce + provision.encode_entries(provision.ATTEST_ENTRY, entries)
    without_half = b"".join(provision.attestation(b"p" * 32, nonce, 1, entries, KEY, b""))[provision.HEAD :]
    assert without_half == body[:-32] + bytes(32)
    assert provision.parse_attestation(body, KEY, b"m" * 16) is None
    assert provision.parse_attestation(body, bytes(32), nonce) is None
    for at in range(0, len(body) - 32):
        bad = bytearray(body)
        bad[at] ^= 1
        assert provision.parse_attestation(bad, KEY, nonce) is None, at
    for size in range(len(body)):
        assert provision.parse_attestation(body[:size], KEY, nonce) is None


def test_an_attestation_needs_no_more_than_little_memory_in_one_piece():
    entries = [(number, number, b"f" * 32, b"t" * 8, 2, 55) for number in range(1, 32)]
    nonce = b"n" * 16
    pieces = provision.attestation(b"p" * 32, nonce, len(entries), iter(entries), KEY, b"")
    assert max([len(piece) for piece in pieces]) < 256
    assert provision.address(pieces[0], provision.ATTESTATION, 0x40, 9) is pieces[0]
    message = provision.parse(b"".join(pieces))
    assert (message.kind, message.target, message.sequence) == (provision.ATTESTATION, 0x40, 9)
    assert provision.parse_attestation(message.body, KEY, nonce).entries == entries


def test_every_reason_has_words():
    for name in dir(provision):
        if name.startswith("REFUSED_"):
            assert provision.REASONS[getattr(provision, name)]


def test_a_proof_is_addressed_in_its_only_copy():
    entries = [(b"t" * 8, 2, b"f" * 32), (b"u" * 8, 3, b"g" * 32)]
    pieces = provision.proof(b"p" * 32, b"n" * 16, 2, entries, KEY)
    assert provision.address(pieces[0], provision.PROOF, 0x40, 9) is pieces[0]
    parsed = provision.parse(b"".join(pieces))
    assert (parsed.kind, parsed.target, parsed.sequence) == (provision.PROOF, 0x40, 9)
    content = provision.check_mac(KEY, provision.PROOF, parsed.body, b"n" * 16)
    assert content == b"p" * 32 + provision.encode_entries(provision.PROOF_ENTRY, entries)
    assert provision.parse_entries(provision.PROOF_ENTRY, content, 32) == entries
