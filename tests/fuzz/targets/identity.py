"""The identity record of a node's store."""

from packtrust.crypto import x25519_public
from packtrust.errors import StorageError
from packtrust_node import identity

COVERS = ("packtrust_node.identity:decode",)
HEAP_MAX = 6000


def seeds():
    private = bytes(range(32))
    public = x25519_public(private)
    for claim, owner in ((bytes(16), b""), (b"", public), (b"", b""), (bytes(16), public)):
        raw = bytes(identity.Identity(private, public, claim, owner, 7).encode())
        yield raw
        yield raw[:-1]
        yield raw + b"\x00"
        yield b"\x09" + raw[1:]
        for at in (70, 71, 87, 88):
            spoilt = bytearray(raw)
            if at < len(raw):
                spoilt[at] ^= 5
            yield bytes(spoilt)
    yield bytes(71)


def take(data):
    try:
        found = identity.decode(data)
    except StorageError:
        assert data[0] > 1  # newer firmware's
        return
    if found is not None:
        again = identity.decode(found.encode())
        assert again is not None
        assert again.encode() == found.encode()
