"""Writes tests/vectors/wire.json: golden vectors of docs/wire.md, made by packtrust's own core from fixed inputs.

    python tests/vectors/generate_wire.py [--check]

`test_wire_document.py` rebuilds every output from the document with a stock library and none of our code.
"""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "shared")]

from packtrust import package, provision, report, rotation  # noqa: E402
from packtrust.channel import Channel  # noqa: E402
from packtrust.crypto import sha256, x25519, x25519_public  # noqa: E402
from packtrust.group import GroupSender  # noqa: E402
from packtrust.handshake import INITIATOR, RESPONDER  # noqa: E402
from packtrust.keys import Relationship, fingerprint, pair_secret, static_root  # noqa: E402
from packtrust.pairing import PairExchange  # noqa: E402
from packtrust.policy import DEFAULT_POLICY  # noqa: E402
from packtrust.workspace import Workspace  # noqa: E402

TARGET = pathlib.Path(__file__).with_name("wire.json")


def fixed(first: int, count: int) -> bytes:
    return bytes((first + index) & 0xFF for index in range(count))


def frames_of(frames) -> list:
    return [["%08X" % frame.arbitration_id, bytes(frame.data).hex()] for frame in frames]


def rotate(root: bytes, dh_static: bytes, relationship: Relationship) -> dict:
    """Epoch 2 out of the root of epoch 1, and the report about it."""
    salt, eph_i, eph_r = fixed(0x31, 32), fixed(0x41, 32), fixed(0x71, 32)
    secret = bytes(rotation.next_secret(root, relationship, 1, salt))
    ends = [
        PairExchange(role, secret, dh_static, relationship, 2, entropy)
        for role, entropy in ((INITIATOR, eph_i), (RESPONDER, eph_r))
    ]
    propose = rotation.propose(2, salt, ends[0].public)
    answer = ends[1].accept(ends[0].public)
    confirm = ends[0].feed(answer)
    agreed = ends[1].feed(confirm)
    ends[0].feed(agreed)
    assert ends[0].agreed and ends[0].root == ends[1].root
    return {
        "salt": salt.hex(), "ephemeral_initiator": eph_i.hex(), "ephemeral_responder": eph_r.hex(), "epoch": 2,
        "secret": secret.hex(), "propose": propose.hex(), "answer": answer.hex(), "confirm": confirm.hex(),
        "agreed": agreed.hex(), "behind": rotation.behind(2).hex(), "root": bytes(ends[0].root).hex(),
    }  # fmt: skip


def build() -> dict:
    owner, device, peer = fixed(0x10, 32), fixed(0x50, 32), fixed(0x90, 32)
    code, entropy = fixed(0xC0, 16), fixed(0xE0, 32)
    half_a, half_b, salt, lct_half = fixed(0, 64), fixed(64, 64), fixed(128, 32), fixed(7, 64)
    device_fp, owner_fp = fingerprint(x25519_public(device)), fingerprint(x25519_public(owner))
    content = package.KeyPackage(
        1, 1, INITIATOR, 0, 5, half_a, half_b, salt, x25519_public(peer), "lct-COMP-pack-COMP-module-1753769423",
        "COMP-pack-1753769421", "COMP-module-1753769422", package.SCOPE_ALL, 1 << 20, 86400, lct_half,
    )  # fmt: skip
    plaintext = bytes(content.encode())
    body, package_hash, receipt_key = package.seal(content, x25519_public(device), owner, entropy, code)
    auth_body, _, auth_key = package.seal(content, x25519_public(device), owner, entropy)
    tag = Relationship("a", "b", content.lct_id, bytes(32), bytes(32)).tag
    receipt = provision.with_mac(
        receipt_key, provision.RECEIPT, provision.receipt_body(tag, content.epoch, content.counter, package_hash)
    )
    relationship = Relationship(
        content.component_a, content.component_b, content.lct_id, device_fp, fingerprint(x25519_public(peer))
    )
    secret = pair_secret(half_a, half_b, salt)
    dh_static = x25519(device, x25519_public(peer))
    eph_i, eph_r = fixed(0x21, 32), fixed(0x61, 32)
    exchange = (
        PairExchange(INITIATOR, secret, dh_static, relationship, 1, eph_i),
        PairExchange(RESPONDER, secret, dh_static, relationship, 1, eph_r),
    )
    offer = exchange[0].offer()
    answer = exchange[1].feed(offer)
    confirm = exchange[0].feed(answer)
    agreed = exchange[1].feed(confirm)
    root = bytes(exchange[0].root)
    nonces = {INITIATOR: fixed(0xA1, 16), RESPONDER: fixed(0xB2, 16)}
    ends = [
        Channel(root, role, 5, clock=lambda: 1000, urandom=lambda _, role=role: nonces[role],
                relationship=relationship, side=role - 1, epoch=1, boot_counter=3 + role)
        for role in (INITIATOR, RESPONDER)
    ]  # fmt: skip
    ends[0].connect()
    flights = []
    while True:
        moved = [(who, end.outgoing()) for who, end in enumerate(ends)]
        if not any(frames for _, frames in moved):
            break
        for who, frames in moved:
            if frames:
                flights.append(frames_of(frames))
                for frame in frames:
                    ends[1 - who].feed(frame)
    telemetry = ends[1].seal(0x502 << 18 | 5, bytes.fromhex("1392b4605a80f40b"))
    for frame in telemetry:
        ends[0].feed(frame)
    command = ends[0].seal(0x514 << 18 | 5, bytes.fromhex("0003d007"))
    group_secret = fixed(0x31, 32)
    group = GroupSender(Workspace(), group_secret, device_fp, 65535)
    broadcasts = [frames_of(group.seal(0x517 << 18, bytes((state,)))) for state in (3, 0x11)]
    nonce = fixed(0x77, 16)
    owner_key = provision.owner_key(owner, x25519_public(device), device_fp, owner_fp)
    rotated = rotate(root, dh_static, relationship)
    entry = (tag, 2, report.MADE_HERE, 4711, 1 << 20, 90, 86400, sha256(bytes.fromhex(rotated["salt"])))
    reported = report.encode(owner_key, nonce, device_fp, 4, 1, 3, 0, [entry])
    attested = [(5, 0xBA77BABE, fingerprint(x25519_public(peer)), tag, 1, 40)]
    attestation = b"".join(provision.attestation(device_fp, nonce, 1, attested, owner_key, lct_half))[provision.HEAD :]
    return {
        "source": "made by tests/vectors/generate_wire.py from fixed inputs; rebuilt from docs/wire.md with the "
        "`cryptography` library alone by tests/vectors/test_wire_document.py",
        "inputs": {
            "owner_private": owner.hex(),
            "device_private": device.hex(),
            "peer_private": peer.hex(),
            "claim_code": code.hex(),
            "hpke_ephemeral_ikm": entropy.hex(),
            "half_a": half_a.hex(),
            "half_b": half_b.hex(),
            "salt": salt.hex(),
            "lct_half": lct_half.hex(),
            "lct_id": content.lct_id,
            "component_a": content.component_a,
            "component_b": content.component_b,
            "epoch": 1,
            "counter": 1,
            "role": 1,
            "side": 0,
            "node": 5,
            "scope": content.scope,
            "max_records": content.max_records,
            "max_age_s": content.max_age_s,
            "ephemeral_initiator": eph_i.hex(),
            "ephemeral_responder": eph_r.hex(),
            "nonce_initiator": nonces[INITIATOR].hex(),
            "nonce_responder": nonces[RESPONDER].hex(),
            "boot_initiator": 4,
            "boot_responder": 5,
            "policy_digest": DEFAULT_POLICY.digest.hex(),
            "attest_nonce": nonce.hex(),
        },
        "claim": {"package": plaintext.hex(), "body": body.hex(), "package_hash": package_hash.hex(),
                  "receipt_key": bytes(receipt_key).hex(), "receipt": receipt.hex()},
        "auth": {"body": auth_body.hex(), "receipt_key": bytes(auth_key).hex()},
        "pairing": {"pair_secret": secret.hex(), "static_root": static_root(secret, dh_static).hex(),
                    "offer": offer.hex(), "answer": answer.hex(), "confirm": confirm.hex(), "agreed": agreed.hex(),
                    "root": root.hex()},
        "handshake": {"flights": flights},
        "records": [
            {"id": "%08X" % (0x502 << 18 | 5), "direction": 1, "counter": 1, "cited": None,
             "data": "1392b4605a80f40b", "frames": frames_of(telemetry)},
            {"id": "%08X" % (0x514 << 18 | 5), "direction": 0, "counter": 1, "cited": 1,
             "data": "0003d007", "frames": frames_of(command)},
        ],
        "group": {"secret": group_secret.hex(), "beat": 65535, "id": "%08X" % (0x517 << 18),
                  "key_id": group.key_id.to_bytes(4, "little").hex(), "data": ["03", "11"], "broadcasts": broadcasts},
        "proofs": {"owner_key": owner_key.hex(),
                   "attestation": attestation.hex(),
                   "attest_unique_id": 0xBA77BABE, "attest_seen_ms": 40},
        "rotation": rotated,
        "report": {"boot_counter": 4, "package_counter": 1, "relationships": 3, "records": 4711, "age_s": 90,
                   "body": reported.hex()},
    }  # fmt: skip


if __name__ == "__main__":
    text = json.dumps(build(), indent=1) + "\n"
    if "--check" in sys.argv:
        if TARGET.read_text() != text:
            sys.exit("tests/vectors/wire.json is out of date: run python tests/vectors/generate_wire.py")
    else:
        TARGET.write_text(text)
