"""docs/wire.md is enough for a port: claim, package, pair exchange, handshake and records, rebuilt from the document.

Only `cryptography` and the standard library are used here; nothing of packtrust is imported.
"""

import hashlib
import hmac
import json
import pathlib
import struct

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

VECTORS = json.loads(pathlib.Path(__file__).with_name("wire.json").read_text())
INPUTS = {
    name: bytes.fromhex(value)
    if isinstance(value, str) and name not in ("lct_id", "component_a", "component_b")
    else value
    for name, value in VECTORS["inputs"].items()
}
VERSION = 1


def sha256(data):
    return hashlib.sha256(data).digest()


def mac(key, *parts):
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def extract(salt, ikm):
    return mac(salt or bytes(32), ikm)


def expand(prk, info, length):
    return HKDFExpand(hashes.SHA256(), length, info).derive(prk)


def public(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def dh(private, peer):
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(peer))


def lv(value):
    return bytes([len(value)]) + value


# -- RFC 9180, modes Auth and AuthPSK, from the RFC alone ----------------------------------------------------

KEM_SUITE = b"KEM" + struct.pack(">H", 0x0020)
HPKE_SUITE = b"HPKE" + struct.pack(">HHH", 0x0020, 0x0001, 0x0002)


def labeled_extract(suite, salt, label, ikm):
    return extract(salt, b"HPKE-v1" + suite + label + ikm)


def labeled_expand(suite, prk, label, info, length):
    return expand(prk, struct.pack(">H", length) + b"HPKE-v1" + suite + label + info, length)


def hpke_auth_seal(mode, receiver, sender, ephemeral, info, aad, plaintext, psk=b"", psk_id=b""):
    prk = labeled_extract(KEM_SUITE, b"", b"dkp_prk", ephemeral)
    ephemeral = labeled_expand(KEM_SUITE, prk, b"sk", b"", 32)
    enc = public(ephemeral)
    shared = dh(ephemeral, receiver) + dh(sender, receiver)
    prk = labeled_extract(KEM_SUITE, b"", b"eae_prk", shared)
    secret = labeled_expand(KEM_SUITE, prk, b"shared_secret", enc + receiver + public(sender), 32)
    context = (
        bytes([mode])
        + labeled_extract(HPKE_SUITE, b"", b"psk_id_hash", psk_id)
        + labeled_extract(HPKE_SUITE, b"", b"info_hash", info)
    )
    prk = labeled_extract(HPKE_SUITE, secret, b"secret", psk)
    key = labeled_expand(HPKE_SUITE, prk, b"key", context, 32)
    nonce = labeled_expand(HPKE_SUITE, prk, b"base_nonce", context, 12)
    exporter = labeled_expand(HPKE_SUITE, prk, b"exp", context, 32)
    receipt_key = labeled_expand(HPKE_SUITE, exporter, b"sec", b"packtrust v1 receipt", 32)
    return enc, AESGCM(key).encrypt(nonce, plaintext, aad), receipt_key


# -- sections 4 and 7 ----------------------------------------------------------------------------------------


def package_plaintext():
    i = INPUTS
    return (
        struct.pack(">BBI", VERSION, 1, i["counter"])
        + struct.pack(">IBBBHBBII", i["epoch"], i["role"], i["side"], i["node"], i["scope"], 1, 1, i["max_records"],
                      i["max_age_s"])
        + i["half_a"] + i["half_b"] + i["salt"] + public(i["peer_private"])
        + lv(i["lct_id"].encode()) + lv(i["component_a"].encode()) + lv(i["component_b"].encode())
        + lv(i["lct_half"])
    )  # fmt: skip


@pytest.mark.parametrize("mode", [3, 2], ids=["claim", "auth"])
def test_package_and_receipt(mode):
    vectors = VECTORS["claim" if mode == 3 else "auth"]
    device_public = public(INPUTS["device_private"])
    device_fingerprint = sha256(device_public)
    claim = {"psk": INPUTS["claim_code"], "psk_id": device_fingerprint} if mode == 3 else {}
    enc, ciphertext, receipt_key = hpke_auth_seal(
        mode,
        device_public,
        INPUTS["owner_private"],
        INPUTS["hpke_ephemeral_ikm"],
        b"packtrust v1 package",
        bytes([VERSION, mode]) + device_fingerprint,
        package_plaintext(),
        **claim,
    )
    body = bytes([mode]) + public(INPUTS["owner_private"]) + enc + ciphertext
    assert body.hex() == vectors["body"]
    assert receipt_key.hex() == vectors["receipt_key"]
    if mode == 3:
        assert package_plaintext().hex() == vectors["package"]
        assert sha256(enc + ciphertext).hex() == vectors["package_hash"]
        content = sha256(INPUTS["lct_id"].encode())[:8] + struct.pack(">II", INPUTS["epoch"], INPUTS["counter"])
        content += sha256(enc + ciphertext)
        assert (content + mac(receipt_key, b"\x04", content)).hex() == vectors["receipt"]


def context(epoch=None):
    return (
        lv(INPUTS["component_a"].encode())
        + lv(INPUTS["component_b"].encode())
        + lv(INPUTS["lct_id"].encode())
        + sha256(public(INPUTS["device_private"]))
        + sha256(public(INPUTS["peer_private"]))
        + struct.pack(">I", INPUTS["epoch"] if epoch is None else epoch)
    )


def info(label, direction, epoch=None):
    return b"packtrust v1 " + label + b"\x00" + context(epoch) + bytes([direction])


def pairing():
    secret = extract(INPUTS["salt"], INPUTS["half_a"] + INPUTS["half_b"] + INPUTS["salt"])
    static = dh(INPUTS["device_private"], public(INPUTS["peer_private"]))
    ephemeral = dh(INPUTS["ephemeral_initiator"], public(INPUTS["ephemeral_responder"]))
    return secret, extract(secret, static), extract(secret, static + ephemeral)


def test_pair_exchange():
    secret, static_root, root = pairing()
    vectors = VECTORS["pairing"]
    assert (secret.hex(), static_root.hex(), root.hex()) == (
        vectors["pair_secret"],
        vectors["static_root"],
        vectors["root"],
    )
    head = sha256(INPUTS["lct_id"].encode())[:8] + struct.pack(">I", INPUTS["epoch"])
    initiator, responder = public(INPUTS["ephemeral_initiator"]), public(INPUTS["ephemeral_responder"])
    k_x = expand(static_root, info(b"pair exchange", 0xFF), 32)
    k_c = expand(root, info(b"pair confirm", 0xFF), 32)
    assert (b"\x11" + head + initiator + mac(k_x, b"offer", initiator)).hex() == vectors["offer"]
    assert (b"\x12" + head + responder + mac(k_x, b"answer", initiator, responder)).hex() == vectors["answer"]
    assert (b"\x13" + head + mac(k_c, b"initiator", initiator, responder)).hex() == vectors["confirm"]
    assert (b"\x14" + head + mac(k_c, b"responder", initiator, responder)).hex() == vectors["agreed"]


# -- section 9 -------------------------------------------------------------------------------------------------


def test_rotation_without_an_app():
    vectors = VECTORS["rotation"]
    salt = bytes.fromhex(vectors["salt"])
    private = {name: bytes.fromhex(vectors["ephemeral_" + name]) for name in ("initiator", "responder")}
    initiator, responder = public(private["initiator"]), public(private["responder"])
    static = dh(INPUTS["device_private"], public(INPUTS["peer_private"]))
    chain = expand(pairing()[2], info(b"rotation", 0xFF, 1), 32)
    secret = extract(salt, chain + salt)
    static_root = extract(secret, static)
    root = extract(secret, static + dh(private["initiator"], responder))
    assert (secret.hex(), root.hex()) == (vectors["secret"], vectors["root"])
    epoch = struct.pack(">I", 2)
    head = sha256(INPUTS["lct_id"].encode())[:8] + epoch
    k_x = expand(static_root, info(b"pair exchange", 0xFF, 2), 32)
    k_c = expand(root, info(b"pair confirm", 0xFF, 2), 32)
    assert (b"\x15" + epoch + salt + initiator).hex() == vectors["propose"]
    assert (b"\x16" + epoch).hex() == vectors["behind"]
    assert (b"\x12" + head + responder + mac(k_x, b"answer", initiator, responder)).hex() == vectors["answer"]
    assert (b"\x13" + head + mac(k_c, b"initiator", initiator, responder)).hex() == vectors["confirm"]
    assert (b"\x14" + head + mac(k_c, b"responder", initiator, responder)).hex() == vectors["agreed"]


def test_report():
    vectors = VECTORS["report"]
    device, owner = public(INPUTS["device_private"]), public(INPUTS["owner_private"])
    k_o = expand(
        extract(b"packtrust v1 owner", dh(INPUTS["device_private"], owner)), sha256(device) + sha256(owner), 32
    )
    nonce = INPUTS["attest_nonce"]
    body = sha256(device) + struct.pack(">II", vectors["boot_counter"], vectors["package_counter"])
    body += bytes([vectors["relationships"], 0, 1]) + sha256(INPUTS["lct_id"].encode())[:8] + struct.pack(">IB", 2, 1)
    body += struct.pack(">IIII", vectors["records"], INPUTS["max_records"], vectors["age_s"], INPUTS["max_age_s"])
    body += sha256(bytes.fromhex(VECTORS["rotation"]["salt"]))
    assert (body + mac(k_o, b"\x13", nonce, body)).hex() == vectors["body"]


# -- sections 1, 2, 3, 6 -------------------------------------------------------------------------------------


def segment(arbitration_id, payload, toggle=0):
    chunks = [payload[at : at + 8] for at in range(0, len(payload), 8)]
    last = len(chunks) - 1
    return [
        ["%08X" % (arbitration_id | toggle << 16 | index << 12 | last << 8), chunk.hex()]
        for index, chunk in enumerate(chunks)
    ]


def transcript():
    return sha256(
        b"packtrust v1 handshake"
        + bytes([VERSION, 1])
        + INPUTS["policy_digest"]
        + context()
        + struct.pack(">II", INPUTS["boot_initiator"], INPUTS["boot_responder"])
        + INPUTS["nonce_initiator"]
        + INPUTS["nonce_responder"]
    )


def test_handshake():
    root = pairing()[2]
    k_h = expand(root, info(b"handshake", 0xFF), 32)
    epoch = struct.pack(">I", INPUTS["epoch"])
    to_module = 0x539 << 18 | INPUTS["node"]
    from_module = 0x531 << 18 | INPUTS["node"]
    hello = b"\x01" + bytes([VERSION, 1]) + epoch
    hello += struct.pack(">I", INPUTS["boot_initiator"]) + INPUTS["nonce_initiator"]
    reply = b"\x02" + epoch + struct.pack(">I", INPUTS["boot_responder"]) + INPUTS["nonce_responder"]
    reply += mac(k_h, b"reply", transcript())
    finish = b"\x03" + epoch + mac(k_h, b"finish", transcript())
    assert VECTORS["handshake"]["flights"] == [
        segment(to_module, hello),
        segment(from_module, reply),
        segment(to_module, finish, toggle=1),
    ]


@pytest.mark.parametrize("record", VECTORS["records"], ids=lambda record: record["id"])
def test_record(record):
    session = expand(pairing()[2], info(b"session", 0xFF) + transcript(), 32)
    material = expand(session, info(b"record", record["direction"]), 36)
    sender = public(INPUTS["peer_private" if record["direction"] else "device_private"])
    plaintext = bytes.fromhex(record["data"])
    if record["cited"] is not None:
        plaintext = struct.pack(">I", record["cited"]) + plaintext
    canonical = int(record["id"], 16) | 1 << 17
    iv = material[32:] + struct.pack(">Q", record["counter"])
    aad = struct.pack(">BIB", VERSION, canonical, record["direction"]) + sha256(sender)[:4]
    aad += struct.pack(">H", len(plaintext))
    sealed = iv + AESGCM(material[:32]).encrypt(iv, plaintext, aad)
    assert segment(canonical, sealed) == record["frames"]


def test_broadcast():
    group = VECTORS["group"]
    fingerprint = sha256(public(INPUTS["device_private"]))
    material = expand(bytes.fromhex(group["secret"]), b"packtrust v1 group\x00" + fingerprint, 36)
    assert material[32:].hex() == group["key_id"]
    canonical = int(group["id"], 16) | 1 << 17
    assert canonical & 0xFF == 0 and len(group["broadcasts"]) == 2
    for index, frames in enumerate(group["broadcasts"]):
        plaintext = bytes.fromhex(group["data"][index])
        iv = material[32:] + struct.pack(">Q", group["beat"] + 1 + index)
        aad = struct.pack(">BIB", VERSION, canonical, 2) + fingerprint[:4] + struct.pack(">H", len(plaintext))
        sealed = iv + AESGCM(material[:32]).encrypt(iv, plaintext, aad)
        assert segment(canonical, sealed, toggle=index) == frames


def test_owner_proofs():
    device, owner = public(INPUTS["device_private"]), public(INPUTS["owner_private"])
    shared = dh(INPUTS["device_private"], owner)
    k_o = expand(extract(b"packtrust v1 owner", shared), sha256(device) + sha256(owner), 32)
    vectors = VECTORS["proofs"]
    assert k_o.hex() == vectors["owner_key"]
    tag = sha256(INPUTS["lct_id"].encode())[:8]
    statement = bytes([VERSION]) + sha256(device) + INPUTS["attest_nonce"] + b"\x01"
    statement += struct.pack(">BI", INPUTS["node"], vectors["attest_unique_id"])
    statement += sha256(public(INPUTS["peer_private"])) + tag + struct.pack(">II", INPUTS["epoch"], 40)
    mac_owner = mac(k_o, b"\x0f", INPUTS["attest_nonce"], statement)
    mac_lct = mac(expand(INPUTS["lct_half"], b"packtrust v1 attest", 32), statement)
    body = struct.pack(">H", len(statement)) + statement + mac_owner + mac_lct
    assert body.hex() == vectors["attestation"]
