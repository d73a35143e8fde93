"""Wire format of a node's test service (docs/wire.md, section 8). Both ends use this one table.

request = op (u8) || id (u8) || { length (u16) || argument }*
reply   = op (u8) || id (u8) || status (u8) || elapsed in microseconds (u32) || result
"""

from struct import pack, unpack_from

from packtrust._compat import const
from packtrust.isotp import PAYLOAD_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from packtrust._typing import Buffer
    from packtrust.frame import Frame

# Bases of the ISO-TP rows, all in clear.
TO_MODULE = const(0x53A)
FROM_MODULE = const(0x532)
TO_PACK = const(0x437)
FROM_PACK = const(0x438)

# Longest request a node takes, in bytes.
REQUEST_MAX = const(2048)
_REPLY_HEAD = const(7)
RESULT_MAX = const(4088)  # PAYLOAD_MAX less the head of a reply

INFO = const(0)
HKDF = const(1)
SEAL = const(2)
OPEN = const(3)
X25519 = const(4)
HPKE_SEAL = const(5)
HPKE_OPEN = const(6)
FRAMING = const(7)

# Arguments of each operation, in order.
ARGUMENTS = {
    INFO: (),
    HKDF: ("ikm", "salt", "info", "length (u16)"),
    SEAL: ("backend", "key", "nonce", "aad", "plaintext"),
    OPEN: ("backend", "key", "nonce", "aad", "ciphertext"),
    X25519: ("private", "public"),
    HPKE_SEAL: (
        "mode (u8)",
        "recipient public",
        "info",
        "aad",
        "plaintext",
        "psk",
        "psk_id",
        "sender private",
        "entropy",
    ),
    HPKE_OPEN: (
        "mode (u8)",
        "recipient private",
        "info",
        "aad",
        "enc || ciphertext",
        "psk",
        "psk_id",
        "sender public",
    ),
    FRAMING: (
        "key",
        "iv_base",
        "direction (u8)",
        "sender",
        "counter (u64)",
        "arbitration id (u32)",
        "plaintext",
    ),
}

# HPKE modes (RFC 9180, table 1).
MODE_BASE = const(0)
MODE_PSK = const(1)
MODE_AUTH = const(2)
MODE_AUTH_PSK = const(3)

OK = const(0)
REFUSED_KEYED = const(1)
UNKNOWN = const(2)
MALFORMED = const(3)
BAD_TAG = const(4)
FAILED = const(5)
TOO_LONG = const(6)
UNAVAILABLE = const(7)

STATUSES = {
    OK: "done",
    REFUSED_KEYED: "the node has keys: its test service is closed until it is reset",
    UNKNOWN: "the node does not know this operation",
    MALFORMED: "the node could not make sense of the arguments",
    BAD_TAG: "the ciphertext is not authentic",
    FAILED: "the operation is not defined for these inputs",
    TOO_LONG: "the result does not fit in one reply",
    UNAVAILABLE: "the node has no such crypto backend",
}


def encode_request(op: int, ident: int, arguments: "Sequence[Buffer]" = ()) -> bytes:
    """A request as an ISO-TP payload. ValueError if a node would not take one that long."""
    out = bytearray((op, ident))
    for argument in arguments:
        out += pack(">H", len(argument))
        out += argument
    if len(out) > REQUEST_MAX:
        raise ValueError("a test request has at most %d bytes, not %d" % (REQUEST_MAX, len(out)))
    return bytes(out)


def decode_request(payload: "Buffer") -> "list[bytes] | None":
    """The arguments of a request; None if the lengths in it do not add up."""
    arguments = []
    at = 2
    while at < len(payload):
        if at + 2 > len(payload):
            return None
        size = unpack_from(">H", payload, at)[0]
        at += 2
        if at + size > len(payload):
            return None
        arguments.append(bytes(payload[at : at + size]))
        at += size
    return arguments if at == len(payload) else None


def encode_reply(op: int, ident: int, status: int, elapsed_us: int, result: "Buffer" = b"") -> bytes:
    """A reply as an ISO-TP payload; `result` has at most RESULT_MAX bytes."""
    return pack(">BBBI", op, ident, status, min(elapsed_us, 0xFFFFFFFF)) + bytes(result)


class Reply:
    """What a node answered: `op`, `ident`, `status`, `elapsed_us`, `result`."""

    __slots__ = ("elapsed_us", "ident", "op", "result", "status")

    def __init__(self, op: int, ident: int, status: int, elapsed_us: int, result: bytes) -> None:
        self.op = op
        self.ident = ident
        self.status = status
        self.elapsed_us = elapsed_us
        self.result = result


def decode_reply(payload: "Buffer") -> Reply:
    """Parse a reply. ValueError if it is too short."""
    if not _REPLY_HEAD <= len(payload) <= PAYLOAD_MAX:
        raise ValueError("a test reply has 7 to 4095 bytes, not %d" % len(payload))
    op, ident, status, elapsed_us = unpack_from(">BBBI", payload, 0)
    return Reply(op, ident, status, elapsed_us, bytes(payload[_REPLY_HEAD:]))


def encode_frames(frames: "Sequence[Frame]") -> bytes:
    """Frames as the result of FRAMING: { arbitration ID (u32) || length (u8) || data }*."""
    out = bytearray()
    for frame in frames:
        out += pack(">IB", frame.arbitration_id, len(frame.data))
        out += frame.data
    return bytes(out)
