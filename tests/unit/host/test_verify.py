"""On-target verification against the firmware's test service: right answers green, each wrong one red by name."""

import json
import threading
import time

import can
import pytest
from cryptography.hazmat.primitives.ciphers import aead

from packtrust import testwire as wire
from packtrust.arbitration import compose
from packtrust.errors import InvalidTag
from packtrust.frame import Frame
from packtrust_host import verify_cases
from packtrust_host.app.errors import AppError, BusLost, NoAnswer
from packtrust_host.app.transport import CanIsoTp
from packtrust_host.verify import (
    INFO_S,
    BackendMissing,
    NodeRefused,
    verify_bus,
    verify_node,
    verify_nodes,
    verify_with,
)
from packtrust_host.verify_transport import BusAsk, discover, parse_node
from packtrust_node import testservice
from packtrust_node.env import Clock
from packtrust_node.testservice import MODULE_ROWS, PACK_ROWS

CASES = 2
SEED = 11


class Env(Clock):
    """What the service needs of a node's environment."""

    def __init__(self):
        super().__init__()
        self.out = []

    def send(self, port, frame):
        self.out.append(frame)


def service(keyed=False, rows=PACK_ROWS, node=0x40):
    return testservice.TestService(Env(), 0, rows, lambda: node, lambda: keyed)


def verdict(**options):
    node = service()
    return verify_with(lambda request, timeout_s: node.answer(request), "node", cases=CASES, seed=SEED, **options)


def flip(data):
    return data[:-1] + bytes((data[-1] ^ 0x10,)) if data else b"\x01"


def test_a_right_node_is_green():
    seen = []
    report = verdict(on_case=lambda case, cause: seen.append((case.operation, case.name, cause)))
    assert report.ok
    assert report.failures == []
    assert report.cases == len(seen) > 60
    assert {item.name for item in report.operations} == set(verify_cases.OPERATIONS)
    assert {item.variant for item in report.operations if item.name == "AES-GCM seal"} == set(report.info["backends"])
    assert {item.variant for item in report.operations if item.name == "HPKE open"} == {
        "base",
        "PSK",
        "Auth",
        "AuthPSK",
    }
    assert all(item.max_us >= item.median_us >= 0 for item in report.operations)
    # What must be refused is asked of every backend, not only what must be opened.
    assert sum("forged tag" in name for _, name, _ in seen) >= 2 * len(report.info["backends"])
    assert any("small order" in name for _, name, _ in seen)


def test_the_same_seed_asks_the_same_another_asks_anew():
    def asked(seed):
        # Base mode's messages are sealed by the library, with an ephemeral key of its own choice.
        cases = verify_cases.all_cases(["pure"], 2, seed)
        return [case.arguments for case in cases if (case.operation, case.variant) != ("HPKE open", "base")]

    assert asked(1) == asked(1)
    assert asked(1) != asked(2)


def test_cases_do_not_depend_on_the_backends_asked():
    both = [
        case.arguments for case in verify_cases.all_cases(["cryptolib", "pure"], 2, 1) if case.operation == "framing"
    ]
    one = [case.arguments for case in verify_cases.all_cases(["pure"], 2, 1) if case.operation == "framing"]
    assert both == one


@pytest.mark.parametrize(
    ("op", "operation"),
    [
        (wire.HKDF, "HKDF"),
        (wire.SEAL, "AES-GCM seal"),
        (wire.OPEN, "AES-GCM open"),
        (wire.X25519, "X25519"),
        (wire.HPKE_SEAL, "HPKE seal"),
        (wire.HPKE_OPEN, "HPKE open"),
        (wire.FRAMING, "framing"),
    ],
)
def test_one_flipped_bit_turns_that_operation_red(monkeypatch, op, operation):
    right = testservice._OPERATIONS[op]
    monkeypatch.setitem(testservice._OPERATIONS, op, lambda arguments: flip(right(arguments)))
    report = verdict()
    assert not report.ok
    assert report.red(operation)
    assert {failure.operation for failure in report.failures} == {operation}
    assert all(item.ok for item in report.operations if item.name != operation)


def test_a_node_that_accepts_forged_tags_is_red(monkeypatch):
    def careless(arguments):
        key, nonce, _, sealed = arguments[1:]
        # CTR mode: encrypting the ciphertext decrypts it, whatever the tag.
        return aead.AESGCM(key).encrypt(nonce, sealed[:-16], b"")[: len(sealed) - 16]

    monkeypatch.setitem(testservice._OPERATIONS, wire.OPEN, careless)
    red = verdict().red("AES-GCM open")
    assert red
    assert {failure.cause for failure in red} == {"accepted what must be refused"}


def test_a_node_that_refuses_everything_is_red(monkeypatch):
    def fearful(arguments):
        raise InvalidTag("no")

    monkeypatch.setitem(testservice._OPERATIONS, wire.OPEN, fearful)
    red = verdict().red("AES-GCM open")
    assert red
    assert all(failure.cause.startswith("refused: ") for failure in red)


def test_a_small_order_point_must_be_refused(monkeypatch):
    right = testservice._OPERATIONS[wire.X25519]

    def careless(arguments):
        return bytes(32) if arguments[1] in verify_cases._SMALL_ORDER else right(arguments)

    monkeypatch.setitem(testservice._OPERATIONS, wire.X25519, careless)
    assert [failure.case for failure in verdict().failures] == ["small order 0", "small order 1"]


def test_a_disabled_backend_is_red(monkeypatch):
    monkeypatch.setattr(testservice, "backends", lambda: ["cryptography"])
    monkeypatch.setattr(testservice, "disabled", lambda: {"pure": "failed its known-answer test and is disabled"})
    report = verdict()
    assert [(failure.variant, failure.case) for failure in report.failures] == [("pure", "known-answer test")]
    assert verdict(backend="cryptography").ok


def test_failures_hold_no_key_bytes(monkeypatch):
    asked = []
    for op, right in list(testservice._OPERATIONS.items()):
        if op == wire.INFO:
            continue

        def wrong(arguments, right=right):
            asked.extend(arguments)
            return flip(right(arguments))

        monkeypatch.setitem(testservice._OPERATIONS, op, wrong)
    report = verdict()
    shown = json.dumps(report.to_json()) + repr(report) + "\n".join(str(failure) for failure in report.failures)
    assert report.failed > 50
    for argument in asked:
        if len(argument) >= 16:  # shorter ones are a backend's name, nonces, a mode
            assert argument.hex() not in shown
            assert repr(argument)[2:-1] not in shown


def test_keyed_node_refuses():
    node = service(keyed=True)
    with pytest.raises(NodeRefused, match=r"the node has keys.*reset it at its console"):
        verify_with(lambda request, timeout_s: node.answer(request), "node")


def test_keys_that_come_meanwhile_end_it():
    node, calls = service(), []

    def ask(request, timeout_s):
        calls.append(request)
        node._is_keyed = lambda: len(calls) > 5
        return node.answer(request)

    with pytest.raises(NodeRefused, match="got keys meanwhile"):
        verify_with(ask, "node")
    assert len(calls) == 6


def test_backend_by_name():
    report = verdict(backend="pure")
    assert report.ok
    assert {item.variant for item in report.operations if item.name.startswith("AES")} == {"pure"}
    with pytest.raises(BackendMissing, match="take one of cryptography, pure"):
        verdict(backend="quantum")


def test_what_is_in_use_alone():
    report = verdict(in_use=True)
    assert report.ok
    used = {item.variant for item in report.operations if item.name.startswith("AES")}
    assert used == {report.info["backends"][0]} < set(report.info["backends"])
    assert {item.name for item in report.operations} == set(verify_cases.OPERATIONS)


def test_what_is_in_use_when_another_is_disabled(monkeypatch):
    monkeypatch.setattr(testservice, "disabled", lambda: {"pure": "fails its known-answer test"})
    assert not verdict(in_use=True).ok


@pytest.mark.parametrize(
    "payload", [b"", b"\x00", bytes(7), wire.encode_reply(0, 1, 0, 0, b"[1]"), wire.encode_reply(0, 1, 0, 0, b"\xff{")]
)
def test_nonsense_for_info(payload):
    with pytest.raises(AppError, match="does not say what it is"):
        verify_with(lambda request, timeout_s: payload, "node")


def test_nonsense_later_is_a_failure():
    node = service()

    def ask(request, timeout_s):
        reply = node.answer(request)
        return reply if request[0] != wire.FRAMING else reply[:3]

    report = verify_with(ask, "node", cases=1, seed=SEED)
    assert {failure.operation for failure in report.failures} == {"framing"}
    assert "7 to 4095 bytes" in report.failures[0].cause


def test_silence_later_ends_with_a_failure():
    node = service()

    def ask(request, timeout_s):
        if request[0] == wire.X25519:
            raise NoAnswer("it fell silent", "look after it")
        return node.answer(request)

    report = verify_with(ask, "node", cases=1, seed=SEED)
    assert not report.ok
    assert [(failure.operation, failure.cause) for failure in report.failures] == [("X25519", "it fell silent")]
    assert report.repeated == 1
    assert not any(item.name == "framing" for item in report.operations)


def test_vectors_are_the_published_ones():
    """The small tables shipped with the host are right: the library agrees with each."""
    for key, nonce, aad, text, sealed in (tuple(map(bytes.fromhex, row)) for row in verify_cases._GCM.values()):
        assert aead.AESGCM(key).encrypt(nonce, text, aad) == sealed
    vectors = [case for case in verify_cases.all_cases(["pure"], 0, 0) if case.operation in ("HKDF", "X25519")]
    node = service()
    for case in vectors:
        reply = wire.decode_reply(node.answer(wire.encode_request(case.op, 1, case.arguments)))
        assert case.check(reply.status, reply.result) == "", case.name
    assert len(vectors) == 3 + 4 + 2


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("pack", 0x40),
        ("pack3", 0x43),
        ("module2", 2),
        ("2", 2),
        ("0x41", 0x41),
        ("unregistered", 0xFF),
        (" Pack 1", 0x41),
    ],
)
def test_node_names(text, node):
    assert parse_node(text) == node


@pytest.mark.parametrize("text", ["", "0", "module0", "module32", "pack16", "32", "0x7f", "-1", "both", "packs"])
def test_no_node_names(text):
    with pytest.raises(AppError, match="names no node"):
        parse_node(text)


# -- over a python-can bus


class BusNode(threading.Thread):
    """A node's test service on a python-can bus, until `stop`. It answers when `together`, a barrier, lets it go on."""

    def __init__(self, channel, rows=PACK_ROWS, node=0x40, keyed=False, lose=(), together=None):
        super().__init__(daemon=True)
        self.service = service(keyed, rows, node)
        self.bus = can.Bus(interface="virtual", channel=channel)
        self._stopping = threading.Event()
        self._lose = list(lose)
        self._taken = 0
        self._node = node
        self._together = together

    def run(self):
        env = self.service._env
        while not self._stopping.is_set():
            message = self.bus.recv(0.02)
            if message is not None:
                self._taken += 1
                if self._taken in self._lose:
                    continue
                if self._together is not None and message.arbitration_id & 0xFF == self._node:
                    self._together.wait()
                    self._together = None
                self.service.on_frame(0, Frame(message.arbitration_id, bytes(message.data)))
            self.service.tick()
            for frame in env.out:
                self.bus.send(can.Message(arbitration_id=frame.arbitration_id, data=frame.data))
            env.out.clear()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self._stopping.set()
        self.join(10)
        self.bus.shutdown()


@pytest.fixture
def channel(request):
    return "verify " + request.node.name


@pytest.mark.parametrize("link", ["core", "can-isotp"])
def test_over_a_bus(channel, link):
    options = {} if link == "core" else {"make_link": CanIsoTp}
    with can.Bus(interface="virtual", channel=channel) as bus, BusNode(channel):
        report = verify_node(bus, 0x40, cases=1, seed=SEED, **options)
    assert report.ok
    assert report.node == "pack 0"
    assert report.repeated == 0


def test_discovery_and_all_of_a_bus(channel):
    with (
        can.Bus(interface="virtual", channel=channel) as bus,
        BusNode(channel),
        BusNode(channel, MODULE_ROWS, 3, keyed=True),
        BusNode(channel, MODULE_ROWS, 0xFF),
    ):
        found = discover(bus, 5, 3)
        assert [(item.node, item.keyed) for item in found] == [(3, True), (0x40, False), (0xFF, False)]
        reports = verify_bus(bus, cases=0, seed=SEED, backend="pure")
        assert [report.node for report in reports] == ["pack 0", "unregistered module"]
        with pytest.raises(NodeRefused, match="module 3 refuses"):
            verify_bus(bus, 3)


def test_only_keyed_nodes(channel):
    with (
        can.Bus(interface="virtual", channel=channel) as bus,
        BusNode(channel, keyed=True),
        pytest.raises(NodeRefused, match="pack 0: the node has keys"),
    ):
        verify_bus(bus)


def test_nobody_there(channel):
    with can.Bus(interface="virtual", channel=channel) as bus:
        with pytest.raises(NoAnswer, match="no node answers on this bus"):
            verify_bus(bus)
        with pytest.raises(NoAnswer, match=r"pack 2 did not answer.*within 0 s.*Next: check that it is powered"):
            BusAsk(bus, 0x42)(b"\x00\x01", 0.2)


def threads_left():
    return [item.name for item in threading.enumerate() if item.name.startswith("packtrust-")]


def test_several_are_asked_at_once(channel):
    """Each node answers its first request when all three have been asked."""
    together = threading.Barrier(3, timeout=10)
    with (
        can.Bus(interface="virtual", channel=channel) as bus,
        BusNode(channel, together=together),
        BusNode(channel, MODULE_ROWS, 3, together=together),
        BusNode(channel, MODULE_ROWS, 7, together=together),
    ):
        reports = list(verify_nodes(bus, [7, 0x40, 3], cases=1, seed=SEED))
    assert [report.node for report in reports] == ["module 7", "pack 0", "module 3"]
    assert all(report.ok and report.repeated == 0 for report in reports)
    assert not together.broken
    assert threads_left() == []


def test_no_more_at_once_than_asked(channel):
    """One at a time: the second node is asked when the verdict on the first is there."""
    asked = []

    def on_case(case, cause):
        asked.append(threading.current_thread().name)

    with (
        can.Bus(interface="virtual", channel=channel) as bus,
        BusNode(channel),
        BusNode(channel, MODULE_ROWS, 3),
    ):
        reports = list(verify_nodes(bus, [0x40, 3], at_once=1, cases=0, seed=SEED, on_case=on_case))
    assert len(set(asked)) == 1
    assert len(asked) == sum(report.cases for report in reports)


def test_what_is_given_up_waits_for_nobody(channel):
    """No node 5 is there, and its answer would be waited for; the verdict on the pack is enough."""
    with can.Bus(interface="virtual", channel=channel) as bus, BusNode(channel):
        verdicts = verify_nodes(bus, [0x40, 5], cases=1, seed=SEED)
        assert next(verdicts).ok
        assert threads_left()
        began = time.monotonic()
        verdicts.close()
        assert time.monotonic() - began < INFO_S, "not even as long as its first answer is waited for"
        assert threads_left() == []


def test_an_adapter_lost_while_several_are_asked(channel):
    lost = threading.Event()

    class Unplugged(can.interfaces.virtual.VirtualBus):
        def _recv_internal(self, timeout):
            if lost.is_set():
                raise can.CanOperationError("no such device")
            return super()._recv_internal(timeout)

    with Unplugged(channel) as bus, BusNode(channel), BusNode(channel, MODULE_ROWS, 3):
        verdicts = verify_nodes(bus, [0x40, 3], cases=1, seed=SEED, on_case=lambda case, cause: lost.set())
        with pytest.raises(BusLost, match=r"no such device.*Next: plug it in again"):
            list(verdicts)
    assert threads_left() == []


def test_a_lost_frame_costs_a_repeat(channel):
    with can.Bus(interface="virtual", channel=channel) as bus, BusNode(channel, lose=[12]):
        report = verify_with(BusAsk(bus, 0x40), "pack 0", cases=1, seed=SEED, timeout_s=1.0)
    assert report.ok
    assert report.repeated >= 1


def test_answer_to_another_request_is_not_ours(channel):
    with can.Bus(interface="virtual", channel=channel) as bus, can.Bus(interface="virtual", channel=channel) as other:
        stale = wire.encode_reply(wire.INFO, 99, wire.REFUSED_KEYED, 0)
        other.send(can.Message(arbitration_id=compose(wire.FROM_PACK, 0x40), data=bytes((len(stale),)) + stale))
        with pytest.raises(NoAnswer):
            BusAsk(bus, 0x40)(wire.encode_request(wire.INFO, 1), 0.2)


def test_unplugged_adapter(channel):
    class Gone(can.BusABC):
        def __init__(self):
            super().__init__(channel="gone")

        def send(self, msg, timeout=None):
            raise can.CanOperationError("no such device")

    bus = Gone()
    with pytest.raises(BusLost, match=r"no such device.*Next: plug it in again"):
        BusAsk(bus, 0x40)(b"\x00\x01", 1)
    with pytest.raises(BusLost):
        discover(bus, 1)
    bus.shutdown()


# -- a node with little heap: one backend named, others on request -----------------------------------------------------


class Small:
    """The service as on a board with little heap; `fate` says what becomes of each of the others."""

    def __init__(self, **fate):
        self._node = service()
        self._fate = fate
        self._asked = set()
        self.loads = []

    def __call__(self, request, timeout_s):
        arguments = wire.decode_request(request)
        name = arguments[0].decode() if request[0] in (wire.SEAL, wire.OPEN) else ""
        if request[0] == wire.INFO:
            info = json.loads(wire.decode_reply(self._node.answer(request)).result)
            gone = [other for other in self._asked if self._fate[other] in ("absent", "wrong")]
            info["backends"] = ["pure"]
            info["others"] = [other for other in self._fate if other not in gone]
            info["disabled"] = {other: "failed its test" for other in gone if self._fate[other] == "wrong"}
            return wire.encode_reply(wire.INFO, request[1], wire.OK, 1, json.dumps(info).encode())
        if name in self._fate:
            self._asked.add(name)
            if self._fate[name] != "right":
                return wire.encode_reply(request[0], request[1], wire.UNAVAILABLE, 1)
            if self.loads[-1:] != [name]:
                self.loads.append(name)
            request = wire.encode_request(request[0], request[1], [b"pure", *arguments[1:]])
        return self._node.answer(request)


def test_others_are_asked_one_after_the_other():
    node = Small(first="right", nowhere="absent", second="right")
    report = verify_with(node, "node", cases=1, seed=SEED)
    assert report.ok, report.failures
    assert node.loads == ["first", "second"]
    sealed = [item for item in report.operations if item.name == "AES-GCM seal"]
    assert [item.variant for item in sealed] == ["pure", "first", "second"] == report.info["backends"]
    assert {item.cavp for item in sealed} == {16}
    report = verify_with(node, "node", cases=1, seed=SEED, backend="second")
    assert report.ok
    assert {item.variant for item in report.operations if item.name.startswith("AES")} == {"second"}


@pytest.mark.parametrize(("fate", "cause"), [("wrong", "it failed its test"), ("large", "no room in its heap")])
def test_another_that_is_wrong_or_does_not_fit_is_red(fate, cause):
    report = verify_with(Small(first=fate, second="right"), "node", cases=1, seed=SEED)
    assert [failure.variant for failure in report.failures] == ["first"]
    assert cause in report.failures[0].cause
    assert {item.variant for item in report.operations if item.ok and item.name == "AES-GCM open"} == {"pure", "second"}


def test_an_absent_one_cannot_be_asked_for_by_name():
    with pytest.raises(BackendMissing, match="has no backend 'nowhere'"):
        verify_with(Small(nowhere="absent"), "node", cases=1, seed=SEED, backend="nowhere")


def test_silence_at_a_backends_turn_is_red():
    right = Small(first="right")

    def ask(request, timeout_s):
        if b"first" in request:
            raise NoAnswer("silent", "wait")
        return right(request, timeout_s)

    report = verify_with(ask, "node", cases=1, seed=SEED)
    assert [(failure.variant, failure.cause) for failure in report.failures] == [("first", "silent")]


def test_the_cavp_sample_opens_and_refuses():
    cases = list(verify_cases.cavp_cases("pure"))
    assert len(cases) == len({case.name for case in cases}) == 32
    assert sum(case.check(wire.BAD_TAG, b"") == "" for case in cases) == 8
    assert {len(case.arguments[1]) for case in cases} == {16, 32}
    assert any(case.arguments[3] and len(case.arguments[4]) > 16 for case in cases)
