"""The test service: right answers, and none that raises, for whatever a host sends."""

import json
from binascii import unhexlify

from packtrust import testwire as wire
from packtrust.arbitration import compose
from packtrust.crypto import backends, x25519_public
from packtrust.frame import Frame
from packtrust.isotp import IsoTpLink
from packtrust.record import RecordCipher
from packtrust.segmentation import Reassembler
from packtrust_node import testservice
from packtrust_node.testservice import MODULE_ROWS, PACK_ROWS
from portable import vectors


class Env:
    """Keeps what is sent; each look at the clock takes 3 microseconds."""

    def __init__(self):
        self.sent = []
        self.us = 0

    def now_ms(self):
        return 0

    def now_us(self):
        self.us += 3
        return self.us

    def elapsed_us(self, start_us):
        return self.now_us() - start_us

    def send(self, port, frame):
        self.sent.append((port, frame))


class State:
    """What the service asks its node for."""

    node = 0xFF
    keyed = False


def service(state=None, rows=MODULE_ROWS):
    state = state or State()
    env = Env()
    return env, testservice.TestService(env, 0, rows, lambda: state.node, lambda: state.keyed)


def ask(op, arguments=(), state=None):
    answer = service(state)[1].answer(wire.encode_request(op, 9, arguments))
    reply = wire.decode_reply(answer)
    assert reply.op == op
    assert reply.ident == 9
    return reply


def done(op, *arguments):
    reply = ask(op, arguments)
    assert reply.status == wire.OK, wire.STATUSES[reply.status]
    assert reply.elapsed_us == 3
    return reply.result


def test_hkdf_is_rfc_5869_case_1():
    okm = done(
        wire.HKDF,
        b"\x0b" * 22,
        unhexlify("000102030405060708090a0b0c"),
        unhexlify("f0f1f2f3f4f5f6f7f8f9"),
        b"\x00\x2a",
    )
    assert okm == unhexlify("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")


def test_x25519_is_rfc_7748_6_1():
    case = vectors("x25519")["diffie_hellman"]
    shared = unhexlify(case["shared"])
    assert done(wire.X25519, unhexlify(case["alice_private"]), unhexlify(case["bob_public"])) == shared
    assert done(wire.X25519, unhexlify(case["bob_private"]), unhexlify(case["alice_public"])) == shared


def test_seal_and_open_on_every_backend():
    # GCM specification, test case 13: 256-bit zero key, no plaintext.
    for name in [""] + list(backends()):
        backend = name.encode()
        tag = done(wire.SEAL, backend, bytes(32), bytes(12), b"", b"")
        assert tag == unhexlify("530f8afbc74536b9a963b4f1c4cb738b")
        sealed = done(wire.SEAL, backend, b"k" * 32, b"n" * 12, b"aad", b"data")
        assert done(wire.OPEN, backend, b"k" * 32, b"n" * 12, b"aad", sealed) == b"data"
        assert ask(wire.OPEN, (backend, b"k" * 32, b"n" * 12, b"AAD", sealed)).status == wire.BAD_TAG


def test_hpke_all_modes():
    recipient = b"\x21" * 32
    sender = b"\x22" * 32
    for mode in range(4):
        psk = b"p" * 32 if mode & 1 else b""
        psk_id = b"id" if mode & 1 else b""
        sealed = done(
            wire.HPKE_SEAL,
            bytes((mode,)),
            x25519_public(recipient),
            b"info",
            b"aad",
            b"text",
            psk,
            psk_id,
            sender if mode & 2 else b"",
            b"e" * 32,
        )
        assert len(sealed) == 32 + 4 + 16
        opening = [bytes((mode,)), recipient, b"info", b"aad", sealed, psk, psk_id]
        opening.append(x25519_public(sender) if mode & 2 else b"")
        assert done(wire.HPKE_OPEN, *opening) == b"text"
        opening[0] = bytes((mode ^ 1,))
        assert ask(wire.HPKE_OPEN, opening).status == wire.MALFORMED
        opening[0] = bytes((mode,))
        opening[3] = b"other"
        assert ask(wire.HPKE_OPEN, opening).status == wire.BAD_TAG


def test_framing_gives_the_frames_of_the_record():
    ident = compose(0x502, 5)
    arguments = (b"k" * 32, b"base", b"\x01", b"send", b"\x00" * 7 + b"\x07", unhexlify("%08x" % ident), b"12345678")
    result = done(wire.FRAMING, *arguments)
    reassembler = Reassembler()
    record = None
    at = 0
    count = 0
    while at < len(result):
        head = int.from_bytes(result[at : at + 4], "big")
        size = result[at + 4]
        payload = reassembler.feed(Frame(head, result[at + 5 : at + 5 + size]), 0)
        record = payload or record
        at += 5 + size
        count += 1
    assert count == 5  # 12 + 8 + 16 bytes
    cipher = RecordCipher(b"k" * 32, b"base", 1, b"send")
    assert cipher.open(ident | 0x20000, bytes(record)) == b"12345678"
    assert bytes(record[4:12]) == b"\x00" * 7 + b"\x07"


def test_info_tells_what_runs_here():
    info = json.loads(done(wire.INFO).decode())
    assert info["backends"] == list(backends())
    assert info["request_max"] == wire.REQUEST_MAX
    assert info["implementation"] in ("cpython", "micropython", "circuitpython")


def test_a_keyed_node_refuses_everything():
    state = State()
    state.keyed = True
    for op in wire.ARGUMENTS:
        reply = ask(op, (), state)
        assert reply.status == wire.REFUSED_KEYED
        assert reply.result == b""


def test_nothing_that_comes_in_raises():
    _, tested = service()
    for op in range(12):
        names = wire.ARGUMENTS.get(op, ())
        for size in (0, 1, 3, 12, 31, 32, 33, 100):
            for count in range(len(names) + 2):
                payload = wire.encode_request(op, 0, [b"\xff" * size] * count)
                for cut in (len(payload), len(payload) - 1, 3, 2, 1):
                    if cut < 1 or cut > len(payload):
                        continue
                    reply = wire.decode_reply(tested.answer(payload[:cut]))
                    assert reply.status in wire.STATUSES
                    assert reply.status == wire.OK or reply.result == b""
    assert ask(99).status == wire.UNKNOWN
    assert ask(wire.HKDF, (b"", b"", b"", b"\x1f\xe0")).status == wire.TOO_LONG
    assert ask(wire.SEAL, (b"abacus", bytes(32), bytes(12), b"", b"")).status == wire.UNAVAILABLE
    assert ask(wire.SEAL, (b"", bytes(31), bytes(12), b"", b"")).status == wire.FAILED
    assert ask(wire.X25519, (bytes(32), bytes(32))).status == wire.FAILED


def converse(env, tested, request, node, rows, port=0):
    """Send a request by ISO-TP and give the reply's payload, or None if nothing came."""
    link = IsoTpLink(compose(rows[0], node), compose(rows[1], node))
    link.send(request, 0)
    while True:
        frames = link.outgoing()
        for frame in frames:
            assert tested.on_frame(port, frame)
        sent = env.sent
        env.sent = []
        for sent_port, frame in sent:
            assert sent_port == 0
            assert frame.arbitration_id == compose(rows[1], node)
            payload = link.feed(frame, 0)
            if payload is not None:
                return payload
        if not frames and not sent:
            return None


def test_over_isotp_and_only_for_its_own_node():
    for rows, node in ((MODULE_ROWS, 0xFF), (PACK_ROWS, 0x40)):
        state = State()
        state.node = node
        env, tested = service(state, rows)
        request = wire.encode_request(wire.SEAL, 1, (b"", b"k" * 32, b"n" * 12, b"", b"d" * 1000))
        reply = wire.decode_reply(converse(env, tested, request, node, rows))
        assert reply.status == wire.OK
        assert len(reply.result) == 1016
        assert converse(env, tested, request, 3, rows) is None
        state.node = 3
        assert converse(env, tested, request, 3, rows) is not None
        assert tested.requests == 2
        # Other ports, other rows, standard frames are the node's.
        assert not tested.on_frame(1, Frame(compose(rows[0], 3), b"\x01\x00"))
        assert not tested.on_frame(0, Frame(compose(0x510, 3), b"\x01\x00"))
        assert not tested.on_frame(0, Frame(rows[0], b"\x01\x00", False))


def test_an_oversize_request_is_refused_by_flow_control():
    env, tested = service()
    link = IsoTpLink(compose(MODULE_ROWS[0], 0xFF), compose(MODULE_ROWS[1], 0xFF))
    link.send(bytes(wire.REQUEST_MAX + 1), 0)
    tested.on_frame(0, link.outgoing()[0])
    assert env.sent[0][1].data[0] == 0x32  # overflow
    assert tested.requests == 0
