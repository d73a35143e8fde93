"""HPKE: what each mode refuses. That the modes are right is shown by tests/vectors/test_hpke.py."""

from packtrust.crypto import CryptoError, InvalidTag, KeyFormatError, backends, hpke, x25519_public
from portable import raises

ENTROPY = bytes(range(32))
INFO = b"test"
PSK = b"0123456789abcdef"
PSK_ID = b"device"

RECIPIENT, RECIPIENT_PUBLIC = hpke.derive_key_pair(b"recipient" * 4)
SENDER, SENDER_PUBLIC = hpke.derive_key_pair(b"the sender" * 4)
ROGUE, ROGUE_PUBLIC = hpke.derive_key_pair(b"the rogue!" * 4)


def _seal(backend=None, **keys):
    enc, ciphertext, context = hpke.seal(
        RECIPIENT_PUBLIC, INFO, b"aad", b"secret", entropy=ENTROPY, backend=backend, **keys
    )
    context.wipe()
    return enc, ciphertext


def _open(sealed, sk_r=RECIPIENT, info=INFO, aad=b"aad", **keys):
    plaintext, context = hpke.open(sealed[0], sk_r, info, aad, sealed[1], **keys)
    context.wipe()
    return plaintext


def test_every_backend_opens_what_another_sealed():
    for sealer in backends():
        for opener in backends():
            sealed = _seal(sealer, psk=PSK, psk_id=PSK_ID, sk_s=SENDER)
            keys = {"psk": PSK, "psk_id": PSK_ID, "pk_s": SENDER_PUBLIC}
            assert _open(sealed, backend=opener, **keys) == b"secret"


def test_auth_psk_refuses_all_but_the_right_pair():
    sealed = _seal(psk=PSK, psk_id=PSK_ID, sk_s=SENDER)
    right = {"psk": PSK, "psk_id": PSK_ID, "pk_s": SENDER_PUBLIC}
    assert _open(sealed, **right) == b"secret"
    for name, wrong in (("psk", b"fedcba9876543210"), ("psk_id", b"other"), ("pk_s", ROGUE_PUBLIC)):
        keys = dict(right)
        keys[name] = wrong
        raises(InvalidTag, _open, sealed, **keys)
    raises(InvalidTag, _open, sealed, sk_r=ROGUE, **right)
    raises(InvalidTag, _open, sealed, info=b"other", **right)
    raises(InvalidTag, _open, sealed, aad=b"other", **right)


def test_a_rogue_sender_is_refused():
    """One who has the device's public key and even the code, but not the owner's private key."""
    sealed = _seal(psk=PSK, psk_id=PSK_ID, sk_s=ROGUE)
    raises(InvalidTag, _open, sealed, psk=PSK, psk_id=PSK_ID, pk_s=SENDER_PUBLIC)


def test_modes_do_not_mix():
    sealings = (
        {},
        {"psk": PSK, "psk_id": PSK_ID},
        {"sk_s": SENDER},
        {"psk": PSK, "psk_id": PSK_ID, "sk_s": SENDER},
    )
    openings = (
        {},
        {"psk": PSK, "psk_id": PSK_ID},
        {"pk_s": SENDER_PUBLIC},
        {"psk": PSK, "psk_id": PSK_ID, "pk_s": SENDER_PUBLIC},
    )
    for sent in range(4):
        sealed = _seal(**sealings[sent])
        for taken in range(4):
            if sent == taken:
                assert _open(sealed, **openings[taken]) == b"secret"
            else:
                raises(InvalidTag, _open, sealed, **openings[taken])


def test_empty_counts_as_not_given():
    sealed = _seal(psk=b"", psk_id=b"", sk_s=b"")
    assert sealed == _seal()
    assert _open(sealed, psk=b"", psk_id=b"", pk_s=b"") == b"secret"


def test_psk_and_id_go_together():
    raises(CryptoError, _seal, psk=PSK)
    raises(CryptoError, _seal, psk_id=PSK_ID)
    raises(CryptoError, _open, _seal(), psk=PSK)
    raises(CryptoError, _open, _seal(), psk_id=PSK_ID)


def test_the_two_aeads_do_not_mix():
    sealed = _seal(aead=hpke.AES_128_GCM)
    assert _open(sealed, aead=hpke.AES_128_GCM) == b"secret"
    raises(InvalidTag, _open, sealed)
    raises(CryptoError, _seal, aead=3)


def test_messages_open_in_order_only():
    enc, sender = hpke.setup_sender(RECIPIENT_PUBLIC, INFO, entropy=ENTROPY)
    receiver = hpke.setup_receiver(enc, RECIPIENT, INFO)
    first, second = sender.seal(b"", b"one"), sender.seal(b"", b"two")
    raises(InvalidTag, receiver.open, b"", second)
    assert receiver.open(b"", first) == b"one"
    raises(InvalidTag, receiver.open, b"", first)
    assert receiver.open(b"", second) == b"two"


def test_exports_depend_on_context_and_length():
    _, sender = hpke.setup_sender(RECIPIENT_PUBLIC, INFO, entropy=ENTROPY)
    secret = sender.export(b"a", 32)
    assert secret == sender.export(b"a", 32)
    assert secret != sender.export(b"b", 32)
    assert sender.export(b"a", 16) != secret[:16]
    raises(CryptoError, sender.export, b"a", 0)
    raises(CryptoError, sender.export, b"a", 8161)


def test_wiped_contexts_are_unusable():
    enc, sender = hpke.setup_sender(RECIPIENT_PUBLIC, INFO, entropy=ENTROPY)
    receiver = hpke.setup_receiver(enc, RECIPIENT, INFO)
    sealed = sender.seal(b"", b"data")
    exporter = receiver._exporter
    for context in (sender, receiver):
        context.wipe()
        context.wipe()
        raises(CryptoError, context.export, b"", 32)
    raises(CryptoError, sender.seal, b"", b"data")
    raises(CryptoError, receiver.open, b"", sealed)
    assert exporter == bytes(32)


def test_nonces_run_out():
    """RFC 9180, 5.2: a context refuses rather than wrap its sequence."""
    _, sender = hpke.setup_sender(RECIPIENT_PUBLIC, INFO, entropy=ENTROPY)
    sender._sequence = (1 << 96) - 2
    sender.seal(b"", b"last")
    raises(CryptoError, sender.seal, b"", b"one too many")


def test_the_recipients_public_key_need_not_be_computed_again():
    """With `pk_r`, opening costs one exchange for the message and one for its sender; a wrong one opens nothing."""
    sealed = _seal(psk=PSK, psk_id=PSK_ID, sk_s=SENDER)
    right = {"psk": PSK, "psk_id": PSK_ID, "pk_s": SENDER_PUBLIC}
    exchanges = []
    real = hpke.x25519, hpke.x25519_public
    hpke.x25519 = lambda *arguments: exchanges.append(0) or real[0](*arguments)
    hpke.x25519_public = lambda *arguments: exchanges.append(0) or real[1](*arguments)
    try:
        assert _open(sealed, **right) == b"secret"
        assert len(exchanges) == 3
        assert _open(sealed, pk_r=RECIPIENT_PUBLIC, **right) == b"secret"
        assert len(exchanges) == 5
    finally:
        hpke.x25519, hpke.x25519_public = real
    raises(InvalidTag, _open, sealed, pk_r=ROGUE_PUBLIC, **right)


def test_bad_keys():
    raises(KeyFormatError, hpke.setup_sender, RECIPIENT_PUBLIC, INFO, entropy=bytes(31))
    raises(KeyFormatError, hpke.setup_sender, RECIPIENT_PUBLIC[:31], INFO, entropy=ENTROPY)
    raises(KeyFormatError, hpke.setup_receiver, bytes(33), RECIPIENT, INFO)
    error = raises(CryptoError, hpke.setup_sender, bytes(32), INFO, entropy=ENTROPY)
    assert "all-zero" in str(error)
    raises(CryptoError, hpke.setup_receiver, bytes(32), RECIPIENT, INFO)
    raises(CryptoError, _open, _seal(), pk_s=bytes(32))


def test_arguments_are_left_alone():
    secrets = [bytearray(ENTROPY), bytearray(SENDER), bytearray(PSK)]
    hpke.setup_sender(RECIPIENT_PUBLIC, INFO, entropy=secrets[0], sk_s=secrets[1], psk=secrets[2], psk_id=PSK_ID)
    assert secrets == [ENTROPY, SENDER, PSK]


def test_any_buffer_will_do():
    sealed = _seal(sk_s=SENDER)
    for kind in (bytearray, memoryview):
        enc, sender = hpke.setup_sender(kind(RECIPIENT_PUBLIC), kind(INFO), entropy=kind(ENTROPY), sk_s=kind(SENDER))
        assert (enc, sender.seal(kind(b"aad"), kind(b"secret"))) == sealed
        receiver = hpke.setup_receiver(kind(enc), kind(RECIPIENT), kind(INFO), pk_s=kind(SENDER_PUBLIC))
        assert receiver.open(kind(b"aad"), kind(sealed[1])) == b"secret"


def test_derived_keys_belong_together():
    assert x25519_public(SENDER) == SENDER_PUBLIC
    assert len(SENDER) == 32


def test_no_secret_in_repr():
    _, sender = hpke.setup_sender(RECIPIENT_PUBLIC, INFO, entropy=ENTROPY)
    text = repr(sender)
    assert "Sender" in text
    assert len(text) < 80
