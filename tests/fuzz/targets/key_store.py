"""The sealed file of a host's key store: heads, locks, schemas. Host only."""

import hashlib

from packtrust_host.app import vault

COVERS = (
    "packtrust_host.app.vault:parse",
    "packtrust_host.app.vault:_parse_locks",
    "packtrust_host.app.vault:Head",
    "packtrust_host.app.vault:keyring_name",
    "packtrust_host.app.vault:open_keyring_lock",
    "packtrust_host.app.vault:open_passphrase_lock",
    "packtrust_host.app.vault:unseal",
    "packtrust_host.app.vault:_unwrap",
)
HEAP_MAX = 1000000
HOST_ONLY = True

_KEY = bytearray(range(32))
_MACHINE = bytes(32)
_WRAPPING = bytearray(range(32, 64))
_CHEAP = 2  # log2 N: a lock must not take a target's time


def _random(count):
    return bytes(range(count))


def seeds():
    locks = (
        vault.Lock(vault.KEY_FILE),
        vault.passphrase_lock(bytearray(b"passphrase"), _KEY, _random, _CHEAP),
        vault.keyring_lock(bytes(16), _WRAPPING, _KEY, _random),
    )
    for chosen in ((), locks[:1], locks[1:2], locks[2:], locks):
        raw = vault.seal(chosen, _MACHINE, _KEY, bytearray(b"{}"), _random)
        yield raw
        for size in (0, 10, 49, 50, 51, 52, 55, 60, len(raw) - 1):
            yield raw[:size]
        for at in (0, 16, 17, 50, 51, 53, 54, 55, len(raw) - 40, len(raw) - 1):
            yield raw[:at] + bytes((raw[at] ^ 1,)) + raw[at + 1 :]
    yield vault.MAGIC + b"\x00\x01" + _MACHINE + bytes(40)
    yield vault.MAGIC + b"\x00\x00" + _MACHINE + bytes(40)
    yield vault.MAGIC + b"\x00\x09" + _MACHINE + bytes(40)
    # Locks that were changed, and the head's check made anew: by who may write the file.
    for body in (b"", bytes(16), locks[1].body[:3] + b"\x00" + locks[1].body[4:], b"\x02" + locks[1].body[1:]):
        for kind in (vault.PASSPHRASE, vault.KEYRING):
            yield vault.seal((vault.Lock(kind, body),), _MACHINE, _KEY, bytearray(b"{}"), _random)
    for log2_n, size, parallel in ((31, 8, 1), (30, 255, 1), (0, 8, 1), (2, 0, 1), (2, 8, 99)):
        body = bytes((1, log2_n, size, parallel)) + locks[1].body[4:]
        yield vault.seal((vault.Lock(vault.PASSPHRASE, body),), _MACHINE, _KEY, bytearray(b"{}"), _random)
    keyring = locks[2].body
    yield vault.seal((vault.Lock(vault.KEYRING, keyring[:-1] + b"x"),), _MACHINE, _KEY, bytearray(b"{}"), _random)


def take(data):
    try:
        sealed = vault.parse(bytes(data))
    except (vault.Damaged, vault.UnknownSchema):
        return
    assert sealed.head.schema in (1, 2)
    if sealed.head.schema == 2:
        end = len(sealed.aad) - len(sealed.nonce)
        assert hashlib.sha256(sealed.aad[: end - 8]).digest()[:8] == sealed.aad[end - 8 : end]
    lock = sealed.head.lock(vault.PASSPHRASE)
    try:
        # What scrypt takes grows with these two; a target has 20 s, and a lock at its limit takes a gigabyte.
        if lock is not None and (len(lock.body) < 3 or lock.body[1] > 30 or lock.body[1] + lock.body[2] // 8 < 8):
            assert vault.open_passphrase_lock(lock, bytearray(b"wrong")) is None
        lock = sealed.head.lock(vault.KEYRING)
        if lock is not None:
            vault.keyring_name(lock)
            assert vault.open_keyring_lock(lock, _WRAPPING) in (None, _KEY)
        assert vault.unseal(sealed, _KEY) == b"{}"
    except vault.Damaged:
        return
