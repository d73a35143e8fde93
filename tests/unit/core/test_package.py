"""Key packages: what is sealed comes back whole, for the right device, from the right owner, and nothing else does."""

from packtrust import package
from packtrust.crypto import sha256, x25519_public
from packtrust.errors import PacktrustError
from portable import raises

OWNER = bytes(range(1, 33))
DEVICE = bytes(range(33, 65))
ROGUE = bytes(range(65, 97))
CODE = bytes(range(200, 216))
DEVICE_PUBLIC = x25519_public(DEVICE)
DEVICE_FINGERPRINT = sha256(DEVICE_PUBLIC)


def content(**changes):
    fields = {
        "counter": 7,
        "epoch": 3,
        "role": 1,
        "side": 0,
        "node": 5,
        "half_a": bytes(range(64)),
        "half_b": bytes(range(64, 128)),
        "salt": bytes(range(32)),
        "peer_public": bytes(range(100, 132)),
        "lct_id": "lct-COMP-a-COMP-b-1753769423",
        "component_a": "COMP-a",
        "component_b": "COMP-b",
        "scope": package.SCOPE_ALL,
        "max_records": 1000,
        "max_age_s": 3600,
        "lct_half": bytes(range(64)),
    }
    fields.update(changes)
    return package.KeyPackage(**fields)


def seal(code=CODE, owner=OWNER, what=None):
    return package.seal(what or content(), DEVICE_PUBLIC, owner, b"\x07" * 32, code)


def test_every_field_comes_back():
    body, package_hash, receipt_key = seal()
    got, got_hash, got_key = package.open_sealed(body, DEVICE, DEVICE_FINGERPRINT, CODE)
    wanted = content()
    for name in (
        "counter epoch role side node half_a half_b salt peer_public lct_id component_a component_b scope max_records "
        "max_age_s lct_half"
    ).split():
        assert getattr(got, name) == getattr(wanted, name), name
    assert got_hash == package_hash and bytes(got_key) == bytes(receipt_key)
    assert package.sender_of(body) == x25519_public(OWNER)


def test_a_later_package_needs_no_code_and_an_early_one_does():
    body, _, _ = seal(code=b"")
    got, _, _ = package.open_sealed(body, DEVICE, DEVICE_FINGERPRINT)
    assert got.epoch == 3
    raises(PacktrustError, package.open_sealed, body, DEVICE, DEVICE_FINGERPRINT, CODE)
    body, _, _ = seal()
    raises(PacktrustError, package.open_sealed, body, DEVICE, DEVICE_FINGERPRINT)


def test_wrong_code_wrong_device_and_wrong_sender_open_nothing():
    body, _, _ = seal()
    raises(PacktrustError, package.open_sealed, body, DEVICE, DEVICE_FINGERPRINT, bytes(16))
    raises(PacktrustError, package.open_sealed, body, ROGUE, sha256(x25519_public(ROGUE)), CODE)
    forged = bytearray(body)
    forged[1:33] = x25519_public(ROGUE)
    raises(PacktrustError, package.open_sealed, forged, DEVICE, DEVICE_FINGERPRINT, CODE)


def test_every_changed_byte_is_noticed():
    body, _, _ = seal()
    for at in list(range(0, len(body), 23)) + [len(body) - 1]:
        bad = bytearray(body)
        bad[at] ^= 1
        raises(PacktrustError, package.open_sealed, bad, DEVICE, DEVICE_FINGERPRINT, CODE)
    raises(PacktrustError, package.open_sealed, body[:80], DEVICE, DEVICE_FINGERPRINT, CODE)


def test_halves_are_not_in_the_sealed_body():
    body, _, _ = seal()
    assert bytes(range(64))[:8] not in body


def test_a_release():
    body, _, _ = package.seal(package.Release(9), DEVICE_PUBLIC, OWNER, b"\x07" * 32)
    got, _, _ = package.open_sealed(body, DEVICE, DEVICE_FINGERPRINT)
    assert isinstance(got, package.Release) and got.counter == 9


def test_malformed_content_is_refused_whatever_is_cut_or_changed():
    plain = bytes(content().encode())
    for size in range(len(plain)):
        raises(PacktrustError, package.decode, plain[:size])
    raises(PacktrustError, package.decode, plain + b"\x00")
    for at, value in ((0, 9), (1, 9), (10, 3), (11, 2), (15, 2), (16, 2)):
        bad = bytearray(plain)
        bad[at] = value
        raises(PacktrustError, package.decode, bad)
    raises(PacktrustError, content(half_b=bytes(range(64))).encode)
    raises(PacktrustError, content(lct_id="").encode)
    raises(PacktrustError, content(lct_half=bytes(3)).encode)
    bad = bytearray(plain)
    bad[217 + 1] = 7  # a control character within the LCT id
    raises(PacktrustError, package.decode, bad)


def test_an_identifier_is_as_long_for_who_reads_as_for_who_writes():
    longest = bytes(content(lct_id="l" * 128).encode())
    assert package.decode(longest).lct_id == "l" * 128
    raises(PacktrustError, content(lct_id="l" * 129).encode)
    at = longest.index(b"\x80" + b"l" * 128)
    raises(PacktrustError, package.decode, longest[:at] + b"\x81l" + longest[at + 1 :])


def test_an_identifier_is_of_the_same_characters_for_who_writes():
    for text in ("lct\x07", "lct-\xe4", "lct\x7f"):
        raises(PacktrustError, content(component_a=text).encode)


def test_secrets_stay_out_of_repr_and_are_wiped():
    one = content()
    assert "lct-COMP" in repr(one) and "0001" not in repr(one)
    one.wipe()
    assert not any(one.half_a) and not any(one.half_b) and not any(one.lct_half)
