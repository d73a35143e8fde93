"""The host's key tap: sees what goes through key derivation, and leaves no trace when it is off."""

from packtrust import crypto
from packtrust.crypto.host import HostBackend
from packtrust.handshake import INITIATOR, SessionKeys
from packtrust.keys import Relationship, pair_secret
from packtrust_host.demo.keytap import HostTap

RELATIONSHIP = Relationship("COMP-app", "COMP-pack", "lct", b"a" * 32, b"b" * 32)


def test_tap_sees_keys_in_and_out():
    private, secret = bytes(range(32)), bytes(range(32, 64))
    with HostTap("app") as tap:
        shared = crypto.x25519(private, crypto.x25519_public(secret))
        okm = crypto.hkdf_expand(shared, b"info", 32)
        crypto.AESGCM(okm)
        crypto.hmac_sha256(secret, b"public")
    seen = tap.keys
    assert {"app private"} == seen[private.hex()]
    assert {"app shared", "app prk"} == seen[shared.hex()]
    assert {"app okm", "app aes"} == seen[okm.hex()]
    assert "app mac" in seen[secret.hex()]


def test_public_keys_and_macs_are_no_keys():
    with HostTap("app") as tap:
        public = crypto.x25519_public(bytes(range(32)))
        mac = crypto.hmac_sha256(bytes(range(32)), b"text")
    assert public.hex() not in tap.keys
    assert mac.hex() not in tap.keys


def test_pair_secret_is_seen_where_it_is_used():
    half_a, half_b, salt = bytes(range(64)), bytes(range(64, 128)), bytes(range(32))
    with HostTap("app") as tap:
        secret = pair_secret(half_a, half_b, salt)
        crypto.hkdf_extract(secret, b"x")
    assert "app mac" in tap.keys[bytes(secret).hex()]


def test_sessions_are_told_with_direction_and_sender():
    told = []
    with HostTap("app", lambda *line: told.append(line)):
        keys = SessionKeys(bytes(32), RELATIONSHIP.context(1), 1, INITIATOR, (b"a" * 32, b"b" * 32))
    assert [(direction, sender) for direction, _, _, sender in told] == [(0, b"aaaa"), (1, b"bbbb")]
    assert [iv for _, _, iv, _ in told] == [bytes(keys.material[64:68]), bytes(keys.material[68:])]
    assert all(len(key) == 32 for _, key, _, _ in told)


def test_tap_leaves_everything_as_it_was():
    before = (crypto.AESGCM.__init__, HostBackend.hmac, HostBackend.expand, HostBackend.multiply)
    with HostTap("app") as tap:
        assert crypto.AESGCM.__init__ is not before[0]
    assert (crypto.AESGCM.__init__, HostBackend.hmac, HostBackend.expand, HostBackend.multiply) == before
    crypto.AESGCM(bytes(range(32)))
    assert tap.keys == {}
