"""The node's test service: computes on the node's own interpreter what a host sends, with the keys the host sends.

The host compares with its own library (docs/wire.md, section 8). The service never touches the node's keys, and
is closed as soon as the node has any.
"""

import sys
from json import dumps
from struct import unpack

from packtrust import testwire as wire
from packtrust.arbitration import canonical, compose
from packtrust.crypto import AESGCM, hkdf, hpke, x25519
from packtrust.crypto.registry import disabled, others
from packtrust.crypto.registry import names as backends
from packtrust.errors import BackendUnavailable, InvalidTag, PacktrustError
from packtrust.isotp import IsoTpLink
from packtrust.record import IV_BASE_LENGTH, RecordCipher
from packtrust.segmentation import PAYLOAD_MAX as SEGMENTED_MAX
from packtrust.segmentation import Segmenter

_IDLE_MS = 500
_BUSY_MS = 10
# Frames made at once: an answer may have hundreds, and a board has no heap for so many.
_BURST = 8


class TestService:
    """One test service on one CAN port.

    env        the node's `env.Env`.
    port       port number it is reached by.
    rows       bases (request, reply): `MODULE_ROWS` or `PACK_ROWS`.
    node_byte  `node_byte() -> int`: the node's byte now (a module's changes when it is registered).
    is_keyed   `is_keyed() -> bool`: closes the service.
    """

    def __init__(self, env, port: int, rows: "tuple[int, int]", node_byte, is_keyed) -> None:
        self.requests = 0
        self.refused = 0
        self._env = env
        self._port = port
        self._rows = rows
        self._node_byte = node_byte
        self._is_keyed = is_keyed
        self._link = None
        self._node = -1

    def on_frame(self, port: int, frame) -> bool:
        """Take a frame; whether it was for this service. Never raises on what the wire brings."""
        if port != self._port or not frame.is_extended_id:
            return False
        if frame.arbitration_id >> 18 != self._rows[0]:
            return False
        node = self._node_byte()
        if frame.arbitration_id != compose(self._rows[0], node):
            return True  # another node's, or with segmentation bits it cannot have
        if node != self._node or self._link is None:
            self._node = node
            self._link = IsoTpLink(
                compose(self._rows[1], node), compose(self._rows[0], node), wire.REQUEST_MAX, False, _BURST
            )
        payload = self._link.feed(frame, self._env.now_ms())
        if payload is not None:
            self._link.send(self.answer(payload), self._env.now_ms())
        self._flush()
        return True

    def tick(self) -> int:
        """Time-outs of the transport; milliseconds until the next call."""
        link = self._link
        if link is None:
            return _IDLE_MS
        link.tick(self._env.now_ms())
        self._flush()
        return _BUSY_MS if link.sending else _IDLE_MS

    def _flush(self) -> None:
        frames = self._link.outgoing()
        while frames:
            for frame in frames:
                self._env.send(self._port, frame)
            frames = self._link.outgoing()

    def answer(self, payload: bytes) -> bytes:
        """The reply to a request."""
        op = payload[0]
        ident = payload[1] if len(payload) > 1 else 0
        self.requests += 1
        if self._is_keyed():
            self.refused += 1
            return wire.encode_reply(op, ident, wire.REFUSED_KEYED, 0)
        names = wire.ARGUMENTS.get(op)
        if names is None:
            return wire.encode_reply(op, ident, wire.UNKNOWN, 0)
        arguments = wire.decode_request(payload)
        if len(payload) < 2 or arguments is None or len(arguments) != len(names):
            return wire.encode_reply(op, ident, wire.MALFORMED, 0)
        status = wire.OK
        result = b""
        start = self._env.now_us()
        try:
            result = _OPERATIONS[op](arguments)
        except InvalidTag:
            status = wire.BAD_TAG
        except BackendUnavailable:
            status = wire.UNAVAILABLE
        except PacktrustError:
            status = wire.FAILED
        except Exception:
            # Lengths, types and values a host has no business sending: its mistake, not this node's end.
            status = wire.MALFORMED
        elapsed = self._env.elapsed_us(start)
        if len(result) > wire.RESULT_MAX:
            status = wire.TOO_LONG
            result = b""
        return wire.encode_reply(op, ident, status, elapsed, result)


MODULE_ROWS = (wire.TO_MODULE, wire.FROM_MODULE)
PACK_ROWS = (wire.TO_PACK, wire.FROM_PACK)


def _info(arguments) -> bytes:
    implementation = sys.implementation
    return dumps(
        {
            "implementation": implementation.name,
            "version": ".".join([str(part) for part in implementation.version[:3]]),
            "platform": sys.platform,
            "word_bits": 64 if sys.maxsize > 0x7FFFFFFF else 32,
            "backends": list(backends()),
            "others": others(),
            "disabled": disabled(),
            "request_max": wire.REQUEST_MAX,
        }
    ).encode()


def _hkdf(arguments) -> bytes:
    ikm, salt, info, length = arguments
    return hkdf(ikm, salt, info, unpack(">H", length)[0])


def _aead(arguments):
    return AESGCM(arguments[1], arguments[0].decode() or None)


def _seal(arguments) -> bytes:
    return _aead(arguments).encrypt(arguments[2], arguments[4], arguments[3])


def _open(arguments) -> bytes:
    return _aead(arguments).decrypt(arguments[2], arguments[4], arguments[3])


def _x25519(arguments) -> bytes:
    return x25519(arguments[0], arguments[1])


def _check_mode(mode: bytes, psk: bytes, sender: bytes) -> None:
    """The mode must be the one the other arguments make (RFC 9180, 5.1)."""
    if mode[0] != (wire.MODE_PSK if psk else 0) | (wire.MODE_AUTH if sender else 0):
        raise ValueError("mode and arguments differ")


def _hpke_seal(arguments) -> bytes:
    mode, recipient, info, aad, plaintext, psk, psk_id, sender, entropy = arguments
    _check_mode(mode, psk, sender)
    enc, ciphertext, context = hpke.seal(
        recipient, info, aad, plaintext, entropy=entropy, psk=psk, psk_id=psk_id, sk_s=sender or None
    )
    context.wipe()
    return enc + ciphertext


def _hpke_open(arguments) -> bytes:
    mode, recipient, info, aad, sealed, psk, psk_id, sender = arguments
    _check_mode(mode, psk, sender)
    plaintext, context = hpke.open(
        sealed[:32], recipient, info, aad, sealed[32:], psk=psk, psk_id=psk_id, pk_s=sender or None
    )
    context.wipe()
    return bytes(plaintext)


def _framing(arguments) -> bytes:
    key, iv_base, direction, sender, counter, ident, plaintext = arguments
    if len(iv_base) != IV_BASE_LENGTH or len(sender) != 4 or len(plaintext) > SEGMENTED_MAX - 28:
        raise ValueError("length")
    high, low = unpack(">II", counter)
    full_id = canonical(unpack(">I", ident)[0])
    cipher = RecordCipher(key, iv_base, direction[0], sender)
    record = cipher.seal(full_id, high << 32 | low, plaintext)
    cipher.wipe()
    return wire.encode_frames(Segmenter().split(full_id, record))


_OPERATIONS = {
    wire.INFO: _info,
    wire.HKDF: _hkdf,
    wire.SEAL: _seal,
    wire.OPEN: _open,
    wire.X25519: _x25519,
    wire.HPKE_SEAL: _hpke_seal,
    wire.HPKE_OPEN: _hpke_open,
    wire.FRAMING: _framing,
}
