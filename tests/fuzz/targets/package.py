"""The plaintext of key packages, and bodies of PACKAGE messages as they come: what opens, and what does not."""

from packtrust import package
from packtrust.crypto import sha256, x25519_public
from packtrust.errors import PacktrustError

COVERS = tuple(["packtrust.package:" + name for name in ("decode", "_take", "_text", "sender_of", "open_sealed")])
HEAP_MAX = 120000  # HPKE in integers: garbage included

_OWNER = bytes(range(32))
_DEVICE = bytes(range(32, 64))
_CLAIM = bytes(range(16))
_SEALED_HEAD = b"\x5e"  # what follows is the body of a PACKAGE message


def _content(**more):
    return package.KeyPackage(
        3,
        1,
        1,
        0,
        5,
        bytes(range(64)),
        bytes(range(64, 128)),
        bytes(32),
        bytes(range(32)),
        "lct-1",
        "comp-a",
        "comp-b",
        **more,
    )


def seeds():
    plain = bytes(_content().encode())
    with_lct = bytes(_content(lct_half=bytes(range(64))).encode())
    yield plain
    yield with_lct
    yield bytes(package.Release(9).encode())
    for size in (0, 5, 6, 20, len(plain) - 1, len(plain) - 10, len(plain) - 20, 226):
        yield plain[:size]
    yield plain + b"\x00"
    for at in range(25):
        spoilt = bytearray(plain)
        spoilt[at] ^= 0x11
        yield bytes(spoilt)
    yield plain.replace(b"lct-1", b"lct\x07x")
    yield plain.replace(b"\x05lct-1", b"\x00")
    yield plain.replace(b"\x05lct-1", b"\x81" + b"l" * 129)
    yield plain.replace(plain[25 + 64 : 25 + 128], plain[25 : 25 + 64])
    for claim in (b"", _CLAIM):
        body, _, _ = package.seal(_content(), x25519_public(_DEVICE), _OWNER, bytes(range(9, 41)), claim)
        yield _SEALED_HEAD + body
        yield _SEALED_HEAD + body[:-1]
        yield _SEALED_HEAD + body[:40]


_public = []


def take(data):
    if data[:1] != _SEALED_HEAD:
        try:
            content = package.decode(data)
        except PacktrustError:
            return
        assert bytes(content.encode()) == bytes(data)
        return
    if not _public:
        _public.append(x25519_public(_DEVICE))
    body = bytes(data[1:])
    assert len(package.sender_of(body)) in (0, 32)
    for claim in (b"", _CLAIM):
        try:
            content, digest, receipt_key = package.open_sealed(body, _DEVICE, sha256(_public[0]), claim, _public[0])
        except PacktrustError:
            continue
        assert len(digest) == 32 and len(receipt_key) == 32
        assert content.counter == 3
