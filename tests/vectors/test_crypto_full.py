"""Every published case, straight from `cryptography_vectors`, and that our excerpts are excerpts.

CPython only: the portable tests beside this one run the excerpts on boards as well.
"""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from packtrust.crypto import AESGCM, InvalidTag, backends, hpke


def _generator() -> ModuleType:
    path = Path(__file__).with_name("generate_crypto.py")
    spec = importlib.util.spec_from_file_location("generate_crypto", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = _generator()


@pytest.mark.parametrize("backend", backends())
@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize("kind", ["EncryptExtIV", "Decrypt"])
def test_all_of_cavp(kind: str, bits: int, backend: str) -> None:
    opened = refused = 0
    for case in generate.cavp(f"gcm{kind}{bits}.rsp"):
        key, nonce, aad, ciphertext, tag = (bytes.fromhex(case[name]) for name in ("Key", "IV", "AAD", "CT", "Tag"))
        aead = AESGCM(key, backend)
        if "FAIL" in case:
            with pytest.raises(InvalidTag):
                aead.decrypt(nonce, ciphertext + tag, aad)
            refused += 1
            continue
        plaintext = bytes.fromhex(case["PT"])
        assert aead.encrypt(nonce, plaintext, aad) == ciphertext + tag
        assert aead.decrypt(nonce, ciphertext + tag, aad) == plaintext
        opened += 1
    # 5 text lengths, 5 lengths of associated data, 15 cases each.
    assert opened + refused == 375
    assert (refused > 100) == (kind == "Decrypt")


@pytest.mark.parametrize("backend", backends())
def test_all_of_rfc_9180_for_our_suites(backend: str) -> None:
    count = 0
    for case in json.loads((generate.SOURCES / "HPKE/test-vectors.json").read_text()):
        if (case["kem_id"], case["kdf_id"]) != (0x20, 1) or case["aead_id"] not in (1, 2):
            continue
        count += 1
        value = {name: bytes.fromhex(field) for name, field in case.items() if isinstance(field, str)}
        shared = {
            "psk": value.get("psk", b""),
            "psk_id": value.get("psk_id", b""),
            "aead": case["aead_id"],
            "backend": backend,
        }
        enc, sender = hpke.setup_sender(
            value["pkRm"], value["info"], entropy=value["ikmE"], sk_s=value.get("skSm"), **shared
        )
        assert enc == value["enc"]
        receiver = hpke.setup_receiver(enc, value["skRm"], value["info"], pk_s=value.get("pkSm"), **shared)
        assert sender._base_nonce == receiver._base_nonce == value["base_nonce"]
        assert sender._exporter == receiver._exporter == value["exporter_secret"]
        for message in case["encryptions"]:
            aad, plaintext, ciphertext = (bytes.fromhex(message[f]) for f in ("aad", "pt", "ct"))
            assert sender.seal(aad, plaintext) == ciphertext
            assert receiver.open(aad, ciphertext) == plaintext
        for export in case["exports"]:
            context = bytes.fromhex(export["exporter_context"])
            assert sender.export(context, export["L"]).hex() == export["exported_value"]
            assert receiver.export(context, export["L"]).hex() == export["exported_value"]
    assert count == 8


@pytest.mark.parametrize("name", generate.MADE)
def test_the_excerpts_are_what_the_generator_writes(name: str) -> None:
    made = generate.text(generate.MADE[name]())
    assert (generate.TARGET / f"{name}.json").read_text() == made
    assert json.loads(made)["source"]
