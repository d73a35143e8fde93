"""RFC 9180, X25519 with AES-128-GCM and AES-256-GCM, all modes, on every backend at hand."""

from packtrust.crypto import backends, hpke
from portable import unhexlify, vectors


def _check(mode):
    cases = [case for case in vectors("hpke")["cases"] if case["mode"] == mode]
    assert sorted([case["aead_id"] for case in cases]) == [1, 2]
    for backend in backends():
        for case in cases:
            _one(case, backend)


def _one(case, backend):
    value = {}
    for name, field in case.items():
        if isinstance(field, str):
            value[name] = unhexlify(field)
    info, psk, psk_id = value["info"], value.get("psk", b""), value.get("psk_id", b"")
    for role in "ERS":
        if "ikm" + role in value:
            private, public = hpke.derive_key_pair(value["ikm" + role], backend)
            assert private == value["sk%sm" % role]
            assert public == (value["enc"] if role == "E" else value["pk%sm" % role])
    enc, sender = hpke.setup_sender(
        value["pkRm"],
        info,
        entropy=value["ikmE"],
        psk=psk,
        psk_id=psk_id,
        sk_s=value.get("skSm"),
        aead=case["aead_id"],
        backend=backend,
    )
    assert enc == value["enc"]
    receiver = hpke.setup_receiver(
        enc,
        value["skRm"],
        info,
        psk=psk,
        psk_id=psk_id,
        pk_s=value.get("pkSm"),
        aead=case["aead_id"],
        backend=backend,
    )
    # The 257 messages the RFC counts through; six of them are printed there.
    published = case["encryptions"]
    plaintext = unhexlify(published["0"]["pt"])
    checked = 0
    for sequence in range(257):
        aad = b"Count-%d" % sequence
        ciphertext = sender.seal(aad, plaintext)
        expected = published.get(str(sequence))
        if expected:
            assert unhexlify(expected["aad"]) == aad
            assert ciphertext == unhexlify(expected["ct"])
            checked += 1
        assert receiver.open(aad, ciphertext) == plaintext
    assert checked == len(published) == 6
    assert len(case["exports"]) == 3
    for export in case["exports"]:
        context = unhexlify(export["exporter_context"])
        expected = unhexlify(export["exported_value"])
        assert sender.export(context, export["L"]) == expected
        assert receiver.export(context, export["L"]) == expected


def test_base():
    _check(0)


def test_psk():
    _check(1)


def test_auth():
    _check(2)


def test_auth_psk():
    _check(3)
