"""Key halves: what is accepted, what is refused, and that none is left anywhere it must not be."""

import base64
import hashlib
import hmac
import json
import logging
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from packtrust_host.bridge.client import BridgeClient
from packtrust_host.bridge.errors import BadKeyMaterial, quote_remote
from packtrust_host.bridge.halves import HalfRegistry, attest_key, parse_half, reference, wipe
from packtrust_host.bridge.models import LctCreated, Paired
from packtrust_host.bridge.server import EmbeddedBridge
from packtrust_host.bridge.service import HalfLength

GOOD = bytes(range(64))


# -- parsing


def test_128_digits_decode() -> None:
    assert parse_half(GOOD.hex()) == GOOD
    assert parse_half(GOOD.hex().upper()) == GOOD


def test_64_digits_are_their_lower_case_ascii() -> None:
    text = secrets.token_hex(32)
    assert parse_half(text.upper()) == text.encode()


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("generated_device_key_half", "a placeholder"),
        ("generated_" + "0" * 54, "a placeholder"),
        (None, "no key half"),
        (5, "no key half"),
        ("", "not 0 characters"),
        (GOOD.hex()[:-1], "not 127 characters"),
        (GOOD.hex() + "00", "not 130 characters"),
        ("g" * 64, "only hex digits"),
        ("x" + GOOD.hex()[1:], "only hex digits"),
        ("٣" * 64, "only hex digits"),
        ("0" * 128, "almost equal bytes"),
        ("0" * 64, "almost equal bytes"),
        ("ab" * 64, "almost equal bytes"),
        ("f" * 64, "almost equal bytes"),
    ],
)
def test_refused(text: object, cause: str) -> None:
    with pytest.raises(BadKeyMaterial) as caught:
        parse_half(text, "POST x")
    assert cause in str(caught.value)
    assert str(caught.value).startswith("POST x: ")
    assert caught.value.next_step.startswith("do not use these keys")
    assert caught.value.__context__ is None
    if isinstance(text, str) and len(text) > 30:
        assert text[:16] not in str(caught.value)


def test_wipe() -> None:
    half = parse_half(GOOD.hex())
    wipe(half)
    assert half == bytes(64)
    wipe(None)


def test_attest_key_is_one_hmac_block() -> None:
    """RFC 5869, 2.3: for 32 bytes T(1) = HMAC(PRK, info || 0x01)."""
    for half in (GOOD, b"0123456789abcdef" * 4):
        expected = hmac.digest(half, b"packtrust v1 attest\x01", "sha256")
        assert attest_key(half) == attest_key(bytearray(half)) == expected


def test_registry_takes_all_or_none() -> None:
    registry = HalfRegistry()
    one, two, three = (secrets.token_bytes(64) for _ in range(3))
    registry.admit("call", [(one, "a"), (two, "b")])
    with pytest.raises(BadKeyMaterial, match="gave out before"):
        registry.admit("call", [(three, "c"), (two, "d")])
    with pytest.raises(BadKeyMaterial, match="equal key halves"):
        registry.admit("call", [(three, "c"), (three, "d")])
    assert len(registry) == 2
    saved = json.loads(json.dumps(registry.to_json()))
    assert saved == {reference(one): "a", reference(two): "b"}
    again = HalfRegistry(saved)
    with pytest.raises(BadKeyMaterial, match="gave out before"):
        again.admit("call", [(one, "a")])
    again.admit("call", [(three, "c")])
    assert again.use_of(three) == "c"
    assert again.use_of(secrets.token_bytes(64)) is None


def test_quote_remote_removes_what_may_be_a_key() -> None:
    half = secrets.token_bytes(64)
    text = "bad\nhalf %s or %s end" % (half.hex(), base64.b64encode(half).decode())
    assert quote_remote(text) == "bad half [removed] or [removed] end"
    assert len(quote_remote("no key " * 100)) < 310
    name = "lct-COMP-alice-1753769423-COMP-alice-1753769424-1753769425"
    assert quote_remote(name) == name


def test_replies_are_mute_about_halves() -> None:
    half = bytearray(GOOD)
    made = LctCreated("l", "a", "b", "s", "c", "p", 1, "me", "tx", half, half)
    paired = Paired("l", "t", "tx", half, half)
    for text in (repr(made), str(made), repr(paired), "%s" % paired):
        assert "\\x0a" not in text
        assert "bytearray" not in text
    made.wipe()
    assert half == bytes(64)
    half[:] = GOOD
    paired.wipe()
    assert half == bytes(64)


# -- what the embedded bridge issues


@pytest.fixture(params=["bytes64", "hex64"])
def kind(request: pytest.FixtureRequest) -> HalfLength:
    value: HalfLength = request.param
    return value


@pytest.fixture
def bridge(tmp_path: Path, kind: HalfLength) -> Iterator[EmbeddedBridge]:
    with EmbeddedBridge(tmp_path / "bridge.sqlite", half_length=kind) as running:
        yield running


@pytest.fixture
def client(bridge: EmbeddedBridge) -> Iterator[BridgeClient]:
    with BridgeClient(bridge.url, timeout=10) as made:
        yield made


def introduce(client: BridgeClient) -> tuple[LctCreated, Paired]:
    """Two components, their relationship, their pairing."""
    a, b = (client.register_component("alice", "x").component_id for _ in range(2))
    made = client.create_lct("alice", a, b)
    challenge = client.initiate_pairing("alice", a, b)
    paired = client.complete_pairing("alice", challenge, made.device_key_half)
    return made, paired


def test_halves_through_the_client(client: BridgeClient, kind: HalfLength) -> None:
    made, paired = introduce(client)
    more, more_paired = introduce(client)
    assert paired.lct_id == made.lct_id
    assert paired.split_key_a == made.device_key_half
    halves = [made.device_key_half, made.lct_key_half, paired.split_key_b]
    halves += [more.device_key_half, more.lct_key_half, more_paired.split_key_b]
    values = {bytes(half) for half in halves if half is not None}
    assert len(values) == 6
    assert {len(value) for value in values} == {64}
    hex_only = all(set(value) <= set(b"0123456789abcdef") for value in values)
    assert hex_only is (kind == "hex64")
    # Random: 6 x 64 bytes hold about all of the 256 byte values, or all 16 digits.
    assert len(set(b"".join(values))) > (15 if kind == "hex64" else 150)


def test_no_half_in_database_or_log(
    bridge: EmbeddedBridge,
    client: BridgeClient,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Raw, hex, base64 and every 8-byte window, in the database, its WAL and the log at DEBUG."""
    with caplog.at_level(logging.DEBUG):
        made, paired = introduce(client)
    assert made.device_key_half is not None
    assert made.lct_key_half is not None
    halves = [bytes(made.device_key_half), bytes(made.lct_key_half), bytes(paired.split_key_b)]
    files = sorted(tmp_path.glob("bridge.sqlite*"))
    assert any(path.name.endswith("-wal") for path in files)
    content = {path.name: path.read_bytes() for path in files}
    assert made.lct_id.encode() in b"".join(content.values())
    assert attest_key(made.lct_key_half) in b"".join(content.values())
    assert reference(made.lct_key_half).encode() in b"".join(content.values())
    content["log"] = caplog.text.encode()
    assert len(content["log"]) > 100
    bridge.stop()
    content |= {"closed " + path.name: path.read_bytes() for path in tmp_path.glob("bridge*")}
    for half in halves:
        forms = [half[at : at + 8] for at in range(57)]
        forms += [half.hex().encode(), half.hex().upper().encode()]
        forms += [base64.b64encode(half)[:-4], half.hex()[:32].encode()]
        for name, data in content.items():
            for form in forms:
                assert form not in data, "half found in " + name


def test_bridge_memory_forgets_half_a(bridge: EmbeddedBridge, client: BridgeClient) -> None:
    a, b = (client.register_component("alice", "x").component_id for _ in range(2))
    made = client.create_lct("alice", a, b)
    held = bridge.service._held[made.lct_id].text
    assert any(held)
    client.complete_pairing("alice", client.initiate_pairing("alice", a, b))
    assert not any(held)
    assert bridge.service.halves_held == 0


def test_only_references_in_the_table(client: BridgeClient, tmp_path: Path) -> None:
    made, paired = introduce(client)
    with sqlite3.connect(tmp_path / "bridge.sqlite") as database:
        rows = dict(database.execute("select part, sha256 from half_references").fetchall())
    database.close()
    assert made.lct_key_half is not None
    assert rows == {
        "device_a": hashlib.sha256(paired.split_key_a).hexdigest(),
        "device_b": hashlib.sha256(paired.split_key_b).hexdigest(),
        "lct": hashlib.sha256(made.lct_key_half).hexdigest(),
    }


# -- statements


def test_statements(client: BridgeClient) -> None:
    made, _ = introduce(client)
    assert made.lct_key_half is not None
    key = attest_key(made.lct_key_half)
    statement = b"\x01 modules and their fingerprints"
    mac = hmac.digest(key, statement, "sha256")
    pack = made.component_b

    def post(component: str, text: bytes, tag: bytes, lct_id: str) -> tuple[bool, str]:
        result = client.verify_statement(component, "host", text, tag, lct_id)
        assert result.checked
        assert result.proven is result.verified
        return result.verified, result.reason

    assert not client.identity(pack).verified
    bad = bytes([mac[0] ^ 1]) + mac[1:]
    assert post(pack, statement, bad, made.lct_id) == (False, "the MAC does not match")
    assert post(pack, statement + b" ", mac, made.lct_id)[0] is False
    assert post(pack, statement, mac[:16], made.lct_id)[0] is False
    assert post(pack, statement, b"", made.lct_id)[0] is False
    assert "not party" in post(pack, statement, mac, "lct-none")[1]
    other = client.register_component("alice", "x").component_id
    assert "not party" in post(other, statement, mac, made.lct_id)[1]
    assert not client.identity(pack).verified
    assert post(pack, statement, mac, made.lct_id) == (True, "")
    identity = client.identity(pack)
    assert (identity.verified, identity.status) == (True, "verified")
    assert identity.evidence == hashlib.sha256(statement).hexdigest()
    assert post(made.component_a, statement, mac, made.lct_id)[0] is True
    client.revoke_pairing("alice", made.lct_id)
    assert "has ended" in post(pack, statement, mac, made.lct_id)[1]


def test_termination_erases_the_attest_key(client: BridgeClient, tmp_path: Path) -> None:
    made, _ = introduce(client)
    client.set_lct_status("alice", made.lct_id, "terminated")
    with sqlite3.connect(tmp_path / "bridge.sqlite") as database:
        assert database.execute("select attest_key from lcts").fetchall() == [(None,)]
    database.close()


@pytest.mark.parametrize(
    "context",
    [
        "",
        "text",
        "[]",
        "{}",
        "[" * 50_000,
        '{"statement": "!", "mac": "00", "lct_id": "x"}',
        '{"statement": "AA==", "mac": "zz", "lct_id": "x"}',
        '{"statement": 5, "mac": 5, "lct_id": 5}',
        '{"statement": "AA==", "mac": "00", "lct_id": {}}',
    ],
)
def test_verify_needs_a_statement(bridge: EmbeddedBridge, client: BridgeClient, context: str) -> None:
    """Where today's bridge says verified=true to anything, this one says why not."""
    name = client.register_component("alice", "x").component_id
    url = "%s/api/v1/components/%s/verify" % (bridge.url, name)
    body = {"verifier": "v", "context": context}
    reply = httpx.post(url, json=body, trust_env=False)
    assert reply.status_code == 200
    fields = reply.json()
    assert fields["verified"] is False
    assert fields["component_data"] == ""
    assert fields["reason"]
