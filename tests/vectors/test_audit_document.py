"""docs/audit.md rebuilt with hashlib, hmac and struct alone, and held against the golden vectors."""

import hashlib
import hmac
import json
import re
import struct
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VECTORS = json.loads((ROOT / "tests/vectors/audit.json").read_text())
PAGE = (ROOT / "docs/audit.md").read_text()

LABEL = b"packtrust v1 audit"


def mac(key: bytes, *parts: bytes) -> bytes:
    return hmac.digest(key, b"".join(parts), "sha256")


def expand(prk: bytes, info: bytes) -> bytes:
    return mac(prk, info, b"\x01")


def kinds() -> dict[int, str]:
    """Kinds by number, as the page's table has them."""
    return {
        int(number): name for number, name in re.findall(r"^\| (\d+) \| ([a-z-]+) \|", PAGE.split("## Signs")[0], re.M)
    }


def test_kinds_and_signs_of_the_page_are_those_of_the_code() -> None:
    from packtrust import audit

    names = audit.kinds()
    assert kinds() == {number + 1: name for number, name in enumerate(names)}
    signs = re.findall(r"^\| (\d+) \| ([a-z-]+) \|", PAGE.split("## Signs")[1], re.M)
    assert [name for _, name in signs] == audit.signs_of_tampering()
    assert [int(bit) for bit, _ in signs] == list(range(len(signs)))


def test_chain_keys_and_macs() -> None:
    key = expand(bytes.fromhex(VECTORS["receipt_key"]), LABEL)
    assert key.hex() == VECTORS["first_key"]
    chain = bytes(32)
    for case in VECTORS["entries"]:
        assert hashlib.sha256(b"packtrust v1 key id" + key).hexdigest()[:16] == case["key_id"]
        chain = hashlib.sha256(LABEL + chain + bytes.fromhex(case["entry"])).digest()
        assert chain.hex() == case["chain"]
        assert mac(key, b"entry", chain).hex() == case["mac"]
        key = mac(key, b"next")
    assert key.hex() == VECTORS["next_key"]


def test_entries() -> None:
    for case in VECTORS["entries"]:
        raw = bytes.fromhex(case["entry"])
        number, boot, uptime, kind = struct.unpack_from(">IIIB", raw)
        parsed = case["parsed"]
        assert (number, boot, uptime) == (parsed["number"], parsed["boot_counter"], parsed["uptime_s"])
        assert kinds()[kind] == parsed["kind"]
        body, values = raw[13:], parsed["values"]
        if "key_id" in values:
            node, epoch, counter, key = struct.unpack(">BII8s", body)
            shown = key.hex() if any(key) else ""
            assert (node, epoch, counter, shown) == tuple(
                values[name] for name in ("node", "epoch", "counter", "key_id")
            )
        elif parsed["kind"] == "counts":
            assert struct.unpack_from(">III", body) == (values["seconds"], values["sealed"], values["opened"])
            assert [struct.unpack_from(">BH", body, at)[1] for at in range(12, len(body), 3)] == list(
                values["refused"].values()
            )
        elif parsed["kind"] == "record":
            sealed, identifier, counter = struct.unpack(">BIQ", body)
            assert (sealed == 1, identifier, counter) == tuple(
                values[name] for name in ("sealed", "arbitration_id", "counter")
            )


def test_part() -> None:
    body = bytes.fromhex(VECTORS["part"])
    content, nonce = body[:-32], bytes.fromhex(VECTORS["nonce"])
    assert body[-32:] == mac(bytes.fromhex(VECTORS["next_key"]), b"report", nonce, content)
    version, start, following, first, signs, score, count = struct.unpack_from(">BIIIHBB", content)
    assert (version, start, following, first, signs, score) == (1, 0, len(VECTORS["entries"]), 0, 3, 40)
    assert content[17:49] == bytes(32) and content[49:81].hex() == VECTORS["entries"][-1]["chain"]
    at = 81
    for case in VECTORS["entries"][:count]:
        size = content[at]
        assert content[at + 1 : at + 1 + size].hex() == case["entry"]
        assert content[at + 1 + size : at + 33 + size].hex() == case["mac"]
        at += 33 + size
    assert at == len(content)
