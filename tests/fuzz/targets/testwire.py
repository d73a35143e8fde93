"""Requests and replies of the test service, and the service itself with arguments of any kind."""

from fuzz.source import Entropy, Source
from packtrust import testwire
from packtrust_node.testservice import PACK_ROWS, TestService

COVERS = (
    "packtrust.testwire:decode_request",
    "packtrust.testwire:decode_reply",
    "packtrust_node.testservice:TestService.answer",
)
HEAP_MAX = 250000  # its operations: HPKE in integers, and garbage included
SECONDS = 30


class _Env:
    """As much of a node's environment as the service asks for."""

    urandom = Entropy(1)

    def now_us(self):
        return 0

    def now_ms(self):
        return 0

    def elapsed_us(self, start):
        return start


def seeds():
    key, nonce = bytes(range(32)), bytes(12)
    request = testwire.encode_request
    yield request(testwire.INFO, 1)
    yield request(testwire.HKDF, 2, (key, b"salt", b"info", b"\x00\x20"))
    yield request(testwire.SEAL, 3, (b"pure", key, nonce, b"aad", b"plaintext"))
    yield request(testwire.SEAL, 3, (b"none", key, nonce, b"aad", b"plaintext"))
    yield request(testwire.OPEN, 4, (b"pure", key, nonce, b"aad", bytes(20)))
    yield request(testwire.X25519, 5, (key, bytes(32)))
    yield request(testwire.X25519, 5, (key, b"\x09" + bytes(31)))
    yield request(
        testwire.FRAMING, 6, (key, b"base", b"\x00", b"send", bytes(7) + b"\x01", b"\x14\x08\x00\x05", bytes(8))
    )
    yield request(testwire.HKDF, 2, (key, b"salt", b"info", b"\x1f\xe0"))
    yield request(testwire.SEAL, 3, (b"pure", key))
    yield bytes((testwire.HKDF,))
    yield bytes((testwire.HKDF, 1, 0, 9, 1))
    yield bytes((testwire.HKDF, 1, 0))
    yield b"\x77\x01"
    yield testwire.encode_reply(testwire.INFO, 1, testwire.OK, 5, b"result")


def take(data):
    try:
        reply = testwire.decode_reply(data)
        assert reply.result == bytes(data[7:])
    except ValueError:
        assert not 7 <= len(data) <= 4095
    arguments = testwire.decode_request(data)
    if arguments is not None and len(data) >= 2:
        assert testwire.encode_request(data[0], data[1], arguments) == bytes(data)
    source = Source(data)
    keyed = source.left > 3 and data[-1] == 0xFF
    service = TestService(_Env(), 0, PACK_ROWS, lambda: 0x40, lambda: keyed)
    if data:
        answer = testwire.decode_reply(service.answer(bytes(data)))
        assert answer.status in testwire.STATUSES
