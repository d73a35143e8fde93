"""The client: typed replies from a good bridge, one precise error for each kind of bad one."""

import json
import logging
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from packtrust_host.bridge.client import (
    ATTEMPTS,
    BACKOFF,
    RATE_LIMIT_WAIT,
    BridgeClient,
)
from packtrust_host.bridge.errors import (
    BadKeyMaterial,
    BridgeError,
    BridgeFailed,
    BridgeRateLimited,
    BridgeRefused,
    BridgeUnknownOutcome,
    BridgeUnreachable,
)
from packtrust_host.bridge.faults import Fault, FaultKind, FaultSet
from packtrust_host.bridge.halves import HalfRegistry
from packtrust_host.bridge.models import Challenge, Registered
from packtrust_host.bridge.server import EmbeddedBridge

REGISTER = "POST /api/v1/components/register"
CREATE = "POST /api/v1/lct/create"
COMPLETE = "POST /api/v1/pairing/complete"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBridge]:
    with EmbeddedBridge(tmp_path_factory.mktemp("bridge") / "bridge.sqlite") as bridge:
        yield bridge


@pytest.fixture
def bridge(running: EmbeddedBridge) -> Iterator[EmbeddedBridge]:
    yield running
    running.faults.clear()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def client(bridge: EmbeddedBridge, waits: list[float]) -> Iterator[BridgeClient]:
    with BridgeClient(bridge.url, timeout=10, wait=waits.append) as made:
        yield made


def two(client: BridgeClient) -> tuple[str, str]:
    a, b = (client.register_component("alice", "x").component_id for _ in range(2))
    return a, b


def check_message(error: BridgeError, call: str, *parts: str) -> None:
    """Call, cause and next step in one line."""
    text = str(error)
    assert text.startswith(call + ": ")
    assert error.call == call
    assert error.cause in text
    assert "Next: " + error.next_step in text
    for part in parts:
        assert part in text
    assert "\n" not in text


# -- a good bridge


def test_every_call(client: BridgeClient) -> None:
    assert client.health().status == "healthy"
    status = client.status()
    assert (status.mode, status.rest_api_connected, status.errors) == ("embedded", True, ())
    made = client.register_component("alice", '{"serial": "A1"}', "pack")
    assert (made.status, made.creator, made.context) == ("registered", "alice", "pack")
    assert client.confirm_component(made).hardware_specs == '{"serial": "A1"}'
    other = client.register_component("alice", "module")
    a, b = made.component_id, other.component_id
    assert client.identity(a).verified is False
    lct = client.create_lct("alice", a, b, "link", "proxy")
    read = client.get_lct(lct.lct_id)
    assert (read.component_a, read.component_b, read.status) == (a, b, "pending")
    assert (read.creator, read.context, read.proxy_id) == ("alice", "link", "proxy")
    assert client.get_component(a).relationship_ids == (lct.lct_id,)
    challenge = client.initiate_pairing("alice", a, b, "link")
    assert client.pairing_status(challenge.challenge_id).status == "pending"
    paired = client.complete_pairing("alice", challenge, lct.device_key_half)
    assert paired.trust_summary == "trust_score:0.5,context:pairing_completed"
    assert client.get_lct(lct.lct_id).status == "active"
    dimensions: dict[str, Decimal | int | str] = {"talent": "0.9", "validity": Decimal("0.25")}
    tensor = client.create_tensor("alice", a, b, "0.7", dimensions=dimensions)
    assert (tensor.score, tensor.talent, tensor.training) == (
        Decimal("0.7"),
        Decimal("0.9"),
        Decimal("0.7"),
    )
    assert (tensor.validity, tensor.weight_profile) == (Decimal("0.25"), "act")
    changed = client.update_tensor("alice", tensor.tensor_id, Decimal("0.85"), dimensions={"talent": 1})
    assert changed == client.read_tensor(tensor.tensor_id)
    assert (changed.score, changed.talent, changed.version) == (Decimal("0.85"), Decimal(1), 2)
    plan = client.energy_operation("alice", a, b, "charge", Decimal("0.1"))
    assert (plan.amount, plan.status) == (Decimal("0.1"), "pending")
    moved = client.energy_transfer("alice", plan.operation_id, "0.1")
    assert (moved.amount, moved.status) == (Decimal("0.1"), "completed")
    balance = client.energy_balance(b)
    assert (balance.atp, balance.adp, balance.total) == (
        Decimal("0.1"),
        Decimal("999.9"),
        Decimal(1000),
    )
    assert balance.trust_weighted == Decimal(850)
    assert client.set_lct_status("alice", lct.lct_id, "pending").status == "pending"
    assert client.revoke_pairing("alice", lct.lct_id, "gone").status == "revoked"
    assert repr(client) == "BridgeClient(%r)" % client.base_url


def test_refusals_before_sending(client: BridgeClient) -> None:
    calls: list[Callable[[], object]] = [
        lambda: client.energy_operation("a", "a", "b", "charge", 0),
        lambda: client.energy_operation("a", "a", "b", "charge", "x"),
        lambda: client.energy_operation("a", "a", "b", "charge", "0.12345678901234567890"),
        lambda: client.energy_operation("a", "a", "b", "charge", "Infinity"),
        lambda: client.update_tensor("a", "t", 0),
        lambda: client.update_tensor("a", "t", 1, dimensions={"odd": 1}),
        lambda: client.get_component(""),
        lambda: client.get_lct(".."),
    ]
    for call in calls:
        with pytest.raises(BridgeRefused):
            call()


def test_ids_are_escaped(client: BridgeClient) -> None:
    for name in ("a/b", "a b?x=1", "../lct", "ä#"):
        with pytest.raises(BridgeError) as caught:
            client.get_component(name)
        assert caught.value.status in (404, 500)


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://127.0.0.1", "http://", "http://me:pw@127.0.0.1"])
def test_bad_urls(url: str) -> None:
    with pytest.raises(BridgeRefused, match="URL is not"):
        BridgeClient(url)


def test_clear_http_to_another_machine_only_by_name() -> None:
    with pytest.raises(BridgeRefused, match="shows every key half to the network"):
        BridgeClient("http://192.0.2.1:8080")
    BridgeClient("http://192.0.2.1:8080", allow_clear_http=True).close()
    BridgeClient("https://bridge.test").close()
    BridgeClient("http://localhost:8080").close()
    BridgeClient("http://[::1]:8080").close()


# -- faults


def test_latency_beyond_the_timeout(bridge: EmbeddedBridge, waits: list[float]) -> None:
    bridge.faults.add(Fault(FaultKind.LATENCY, seconds=30))
    with BridgeClient(bridge.url, timeout=0.2, wait=waits.append) as client:
        with pytest.raises(BridgeUnknownOutcome) as caught:
            client.register_component("alice", "x")
        check_message(caught.value, REGISTER, "no reply came in time", "read the state back")
        assert waits == []
        with pytest.raises(BridgeUnreachable, match="no reply came in time"):
            client.health()
    assert len(waits) == ATTEMPTS - 1


def test_latency_within_the_timeout(bridge: EmbeddedBridge, client: BridgeClient) -> None:
    fault = bridge.faults.add({"kind": "latency", "seconds": 0.05, "route": "/health"})
    assert client.health().status == "healthy"
    assert fault.hits == 1


def test_drop_before(bridge: EmbeddedBridge, client: BridgeClient) -> None:
    fault = bridge.faults.add(Fault(FaultKind.DROP, REGISTER, count=1))
    before, _, _ = bridge.service.audit_energy()
    with pytest.raises(BridgeUnknownOutcome, match="connection broke before the reply"):
        client.register_component("alice", "x")
    assert bridge.service.audit_energy()[0] == before
    assert fault.hits == 1
    client.register_component("alice", "x")


def test_drop_after_commit(bridge: EmbeddedBridge, client: BridgeClient, waits: list[float]) -> None:
    a, b = two(client)
    fault = bridge.faults.add(Fault(FaultKind.DROP_AFTER_COMMIT, CREATE, count=1))
    with pytest.raises(BridgeUnknownOutcome) as caught:
        client.create_lct("alice", a, b)
    check_message(caught.value, CREATE, "may or may not have been carried out")
    # It was carried out, once: never repeated by itself.
    assert fault.hits == 1
    assert waits == []
    assert len(client.get_component(a).relationship_ids) == 1


def test_reads_are_repeated_after_a_drop(bridge: EmbeddedBridge, client: BridgeClient, waits: list[float]) -> None:
    bridge.faults.add(Fault(FaultKind.DROP, "GET /health", count=2))
    assert client.health().status == "healthy"
    assert waits == [BACKOFF, 2 * BACKOFF]
    bridge.faults.add(Fault(FaultKind.DROP, "GET /health"))
    with pytest.raises(BridgeUnreachable, match="connection broke"):
        client.health()
    assert len(waits) == 2 + ATTEMPTS - 1


def test_500_with_empty_body(bridge: EmbeddedBridge, client: BridgeClient, waits: list[float]) -> None:
    bridge.faults.add(Fault(FaultKind.EMPTY_500, count=2))
    with pytest.raises(BridgeFailed) as caught:
        client.register_component("alice", "x")
    assert type(caught.value) is BridgeFailed
    assert caught.value.status == 500
    check_message(caught.value, REGISTER, "(500) with an empty body", "the bridge's log")
    assert client.health().status == "healthy"  # a read goes on
    assert waits == [BACKOFF]


def test_500_with_json(bridge: EmbeddedBridge, client: BridgeClient, waits: list[float]) -> None:
    fault = bridge.faults.add(Fault(FaultKind.JSON_500, count=2))
    with pytest.raises(BridgeFailed) as caught:
        client.register_component("alice", "x")
    check_message(caught.value, REGISTER, "the bridge failed (500): injected fault")
    with pytest.raises(BridgeFailed, match="injected fault"):
        client.health()  # the bridge has spoken: no use in asking again
    assert fault.hits == 2
    assert waits == []


def test_500_after_commit(bridge: EmbeddedBridge, client: BridgeClient) -> None:
    a, b = two(client)
    bridge.faults.add(Fault(FaultKind.EMPTY_500, CREATE, count=1, commit=True))
    with pytest.raises(BridgeFailed, match="read the state back before you repeat it"):
        client.create_lct("alice", a, b)
    assert len(client.get_component(a).relationship_ids) == 1


def test_429(bridge: EmbeddedBridge, client: BridgeClient, waits: list[float]) -> None:
    bridge.faults.add(Fault(FaultKind.RATE_LIMIT, count=2))
    with pytest.raises(BridgeRateLimited) as caught:
        client.register_component("alice", "x")
    check_message(caught.value, REGISTER, "429", "wait a minute")
    assert waits == []
    client.health()
    assert waits == [RATE_LIMIT_WAIT]


def test_refused(bridge: EmbeddedBridge, client: BridgeClient, waits: list[float]) -> None:
    bridge.faults.add(Fault(FaultKind.REFUSE, count=1))
    with pytest.raises(BridgeRefused) as caught:
        client.health()
    assert caught.value.status == 400
    check_message(caught.value, "GET /health", "injected refusal", "correct the request")
    with pytest.raises(BridgeRefused, match="'Creator' failed on the 'required' tag"):
        client.register_component("", "x")
    assert waits == []


def test_404(bridge: EmbeddedBridge, client: BridgeClient) -> None:
    bridge.faults.add(Fault(FaultKind.NOT_FOUND, "/health"))
    with pytest.raises(BridgeRefused, match="no such route"):
        client.health()


def test_not_json(bridge: EmbeddedBridge, client: BridgeClient) -> None:
    bridge.faults.add(Fault(FaultKind.NOT_JSON, REGISTER))
    with pytest.raises(BridgeFailed) as caught:
        client.register_component("alice", "x")
    check_message(caught.value, REGISTER, "200 with a body that is no JSON object", "proxy")
    assert "html" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (FaultKind.PLACEHOLDER_HALVES, "a placeholder instead of a key half"),
        (FaultKind.EQUAL_HALVES, "equal key halves"),
    ],
)
def test_bad_halves(bridge: EmbeddedBridge, client: BridgeClient, kind: FaultKind, cause: str) -> None:
    a, b = two(client)
    fault = bridge.faults.add(Fault(kind, CREATE, count=1))
    with pytest.raises(BadKeyMaterial, match=cause) as caught:
        client.create_lct("alice", a, b)
    # The relationship exists at the bridge: its id is in the message, so that it can be ended.
    (lct_id,) = client.get_component(a).relationship_ids
    assert lct_id in str(caught.value)
    assert "do not use these keys" in str(caught.value)
    assert fault.hits == 1
    assert len(client.registry) == 0
    bridge.faults.add(Fault(kind, COMPLETE, count=1))
    made = client.create_lct("alice", b, a)
    challenge = client.initiate_pairing("alice", b, a)
    with pytest.raises(BadKeyMaterial):
        client.complete_pairing("alice", challenge, made.device_key_half)
    assert len(client.registry) == 2


def test_repeated_halves(bridge: EmbeddedBridge, client: BridgeClient) -> None:
    a, b = two(client)
    bridge.faults.add(Fault(FaultKind.REPEATED_HALVES))
    client.create_lct("alice", a, b)
    with pytest.raises(BadKeyMaterial, match="gave out before"):
        client.create_lct("alice", a, b)
    saved = json.loads(json.dumps(client.registry.to_json()))
    with (
        BridgeClient(bridge.url, registry=HalfRegistry(saved)) as later,
        pytest.raises(BadKeyMaterial, match="gave out before"),
    ):
        later.create_lct("alice", a, b)
    with BridgeClient(bridge.url) as forgetful:
        forgetful.create_lct("alice", a, b)


def test_half_a_must_be_the_one_of_the_lct(bridge: EmbeddedBridge, client: BridgeClient) -> None:
    a, b = two(client)
    client.create_lct("alice", a, b)
    challenge = client.initiate_pairing("alice", a, b)
    with pytest.raises(BadKeyMaterial, match="is not the device half"):
        client.complete_pairing("alice", challenge, secrets.token_bytes(64))


def test_half_a_comes_again_only_once(bridge: EmbeddedBridge, client: BridgeClient) -> None:
    """Repeated halves from pairing/complete: the second time they are refused."""
    a, b = two(client)
    bridge.faults.add(Fault(FaultKind.REPEATED_HALVES, COMPLETE))
    for expected in (None, "gave out before"):
        made = client.create_lct("alice", a, b)
        challenge = client.initiate_pairing("alice", a, b)
        if expected is None:
            client.complete_pairing("alice", challenge)
        else:
            with pytest.raises(BadKeyMaterial, match=expected):
                client.complete_pairing("alice", challenge)
    assert made.device_key_half is not None


def test_placeholders_can_be_allowed(bridge: EmbeddedBridge, client: BridgeClient) -> None:
    """Today's bridge: placeholders from lct/create, halves from pairing/complete."""
    a, b = two(client)
    bridge.faults.add(Fault(FaultKind.PLACEHOLDER_HALVES, CREATE))
    made = client.create_lct("alice", a, b, allow_placeholders=True)
    assert made.device_key_half is None
    assert made.lct_key_half is None
    made.wipe()
    challenge = client.initiate_pairing("alice", a, b)
    paired = client.complete_pairing("alice", challenge)
    assert paired.split_key_a != paired.split_key_b


def test_bridge_down(tmp_path: Path, waits: list[float]) -> None:
    bridge = EmbeddedBridge(tmp_path / "b.sqlite").start()
    bridge.stop()
    with BridgeClient(bridge.url, wait=waits.append) as client:
        with pytest.raises(BridgeUnreachable) as caught:
            client.register_component("alice", "x")
        check_message(caught.value, REGISTER, bridge.url, "nothing was sent")
    assert waits == [BACKOFF * 2**attempt for attempt in range(ATTEMPTS - 1)]


def test_bridge_comes_back_between_attempts(tmp_path: Path) -> None:
    """A refused connection is tried again, writes too: nothing had been sent."""
    bridge = EmbeddedBridge(tmp_path / "b.sqlite").start()
    bridge.stop()
    with BridgeClient(bridge.url, wait=lambda seconds: bridge.start()) as client:
        assert client.register_component("alice", "x").status == "registered"
    bridge.stop()


def test_confirm_component_gives_up(client: BridgeClient, waits: list[float]) -> None:
    made = client.register_component("alice", "x")
    lied = Registered(made.component_id, "", "registered", "alice", "something else", "", "")
    ghost = Registered("COMP-ghost-1", "", "registered", "alice", "x", "", "")
    for wrong in (lied, ghost):
        waits.clear()
        with pytest.raises(BridgeUnknownOutcome, match="does not show it as sent"):
            client.confirm_component(wrong, attempts=3)
        assert len(waits) == 2


# -- writes one at a time


def test_writes_are_serialised_and_spaced(bridge: EmbeddedBridge) -> None:
    now = [100.0]
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    with BridgeClient(bridge.url, wait=wait, clock=lambda: now[0], write_interval=6) as client:
        client.register_component("alice", "x")
        client.health()
        now[0] += 2
        client.register_component("alice", "x")
        now[0] += 7
        client.register_component("alice", "x")
    assert waits == [4]


# -- hostile replies


class Scripted(HTTPServer):
    """Answers every request with one scripted reply."""

    status = 200
    body = b"{}"
    headers: tuple[tuple[str, str], ...] = ()
    requests = 0


class Handler(BaseHTTPRequestHandler):
    server: Scripted

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests += 1
        self.send_response(self.server.status)
        for name, value in self.server.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - names of the base class

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the base class
        logging.getLogger(__name__).debug(format, *args)


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with Scripted(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def to(server: Scripted, waits: list[float]) -> BridgeClient:
    return BridgeClient("http://127.0.0.1:%d" % server.server_port, wait=waits.append)


class Waiting(Handler):
    """Holds every write until the test lets it go."""

    entered = threading.Event()
    release = threading.Event()
    bodies: list[bytes] = []

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.entered.set()
        assert self.release.wait(10)
        self._reply(b'{"component_id": "c"}')

    def do_GET(self) -> None:
        self._reply(b'{"status": "healthy"}')

    def _reply(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_one_write_at_a_time() -> None:
    """While a write waits for its reply, another thread's write is not sent, but a read is."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Waiting) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.02,))
        serving.start()
        with BridgeClient("http://127.0.0.1:%d" % server.server_port, timeout=20) as client:

            def write(data: str) -> None:
                client.register_component("alice", data)

            first = threading.Thread(target=write, args=("first",))
            first.start()
            assert Waiting.entered.wait(10)
            second = threading.Thread(target=write, args=("second",))
            second.start()
            assert client.health().status == "healthy"
            assert [json.loads(body)["component_data"] for body in Waiting.bodies] == ["first"]
            Waiting.release.set()
            first.join(10)
            second.join(10)
        server.shutdown()
        serving.join(10)
    sent = [json.loads(body)["component_data"] for body in Waiting.bodies]
    assert sent == ["first", "second"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"component_id": 5}',
        b'{"component_id": ""}',
        b'{"component_id": "a\\nb"}',
        b'{"component_id": "%s"}' % (b"x" * 300),
        b'{"status": "registered"}',
        b'{"component_id": "x", "txhash": []}',
    ],
)
def test_odd_200(scripted: Scripted, waits: list[float], body: bytes) -> None:
    scripted.body = body
    with to(scripted, waits) as client, pytest.raises(BridgeFailed) as caught:
        client.register_component("alice", "x")
    check_message(caught.value, REGISTER)
    assert scripted.requests == 1


@pytest.mark.parametrize("value", ["NaN", "Infinity", '"x"', "null", "true", "[]"])
def test_odd_numbers(scripted: Scripted, waits: list[float], value: str) -> None:
    scripted.body = b'{"tensor_id": "t", "score": %s}' % value.encode()
    with to(scripted, waits) as client, pytest.raises(BridgeFailed, match="score"):
        client.read_tensor("t")


def test_todays_scalar_tensor_is_understood(scripted: Scripted, waits: list[float]) -> None:
    scripted.body = b'{"tensor_id": "t", "score": 0.85, "status": "any word"}'
    with to(scripted, waits) as client:
        tensor = client.read_tensor("t")
    assert (tensor.score, tensor.status, tensor.talent) == (Decimal("0.85"), "any word", None)


def test_todays_constant_verification_proves_nothing(scripted: Scripted, waits: list[float]) -> None:
    fields = {"component_id": "c", "verified": True, "verifier": "v", "timestamp": 1}
    scripted.body = json.dumps(fields).encode()
    with to(scripted, waits) as client:
        result = client.verify_statement("c", "v", b"statement", bytes(32), "lct")
    assert result.verified
    assert not result.checked
    assert not result.proven


@pytest.mark.parametrize("status", [301, 307])
def test_redirects_are_not_followed(scripted: Scripted, waits: list[float], status: int) -> None:
    scripted.status = status
    scripted.headers = (("Location", "/elsewhere"),)
    with to(scripted, waits) as client, pytest.raises(BridgeFailed, match="the bridge's own"):
        client.register_component("alice", "x")
    assert scripted.requests == 1


@pytest.mark.parametrize("status", [401, 403])
def test_denied(scripted: Scripted, waits: list[float], status: int) -> None:
    scripted.status = status
    scripted.body = b'{"error": "Invalid API key"}'
    with to(scripted, waits) as client, pytest.raises(BridgeRefused, match="Invalid API key"):
        client.health()
    assert waits == []


@pytest.mark.parametrize(
    "body",
    [
        '{"error": "cannot use HALF"}',
        '{"lct_id": "l", "device_key_half": "HALF", "lct_key_half": "HALF"}',
        '{"lct_id": "l", "device_key_half": "HALF"}',
        '{"lct_id": 5, "device_key_half": "HALF", "lct_key_half": "HALF"}',
        '{"lct_id": "l", "device_key_half": "HALFx", "lct_key_half": "HALF"}',
        '{"lct_id": "l", "device_key_half": "HALF"',
        "HALF",
    ],
)
@pytest.mark.parametrize("status", [200, 400, 500])
def test_no_half_in_error_or_log(
    scripted: Scripted,
    waits: list[float],
    body: str,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever a bridge does with halves, the error, its causes and the log do not show them."""
    half = secrets.token_hex(64)
    scripted.status = status
    scripted.body = body.replace("HALF", half).encode()
    with (
        caplog.at_level(logging.DEBUG),
        to(scripted, waits) as client,
        pytest.raises(BridgeError) as caught,
    ):
        client.create_lct("alice", "a", "b")
    seen = [caplog.text]
    error: BaseException | None = caught.value
    while error is not None:
        seen += [str(error), repr(error), repr(error.args), repr(vars(error))]
        error = error.__cause__ or error.__context__
    assert half[:16] not in "".join(seen)


def test_bridge_that_accepts_and_says_nothing(waits: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = "http://127.0.0.1:%d" % listener.getsockname()[1]
        with BridgeClient(url, timeout=0.2, wait=waits.append) as client:
            with pytest.raises(BridgeUnknownOutcome, match="no reply came in time"):
                client.initiate_pairing("alice", "a", "b")
            with pytest.raises(BridgeUnreachable, match="no reply came in time"):
                client.pairing_status("c")


def test_pairing_reply_with_one_bad_half(scripted: Scripted, waits: list[float]) -> None:
    good, bad = secrets.token_hex(64), "generated_x"
    challenge = Challenge("c", "a", "b", "pending", 0, "alice", "")
    with to(scripted, waits) as client:
        for a, b in ((good, bad), (bad, good)):
            fields = {"lct_id": "l", "split_key_a": a, "split_key_b": b}
            scripted.body = json.dumps(fields).encode()
            with pytest.raises(BadKeyMaterial, match="placeholder"):
                client.complete_pairing("alice", challenge)
        assert len(client.registry) == 0


def test_half_a_of_an_lct_is_taken_for_one_pairing(scripted: Scripted, waits: list[float]) -> None:
    """The repeat of half A that the rules allow is the one in the pairing of its LCT, no other."""
    half_a, lct, half_b, half_c = (secrets.token_hex(64) for _ in range(4))
    challenge = Challenge("c", "a", "b", "pending", 0, "alice", "")
    with to(scripted, waits) as client:
        created = {"lct_id": "l", "device_key_half": half_a, "lct_key_half": lct}
        scripted.body = json.dumps(created).encode()
        client.create_lct("alice", "a", "b")
        swapped = Challenge("d", "b", "a", "pending", 0, "alice", "")
        paired = {"lct_id": "l", "split_key_a": half_a, "split_key_b": half_b}
        scripted.body = json.dumps(paired).encode()
        with pytest.raises(BadKeyMaterial, match="gave out before"):
            client.complete_pairing("alice", swapped)
        client.complete_pairing("alice", challenge)
        scripted.body = json.dumps({**paired, "split_key_b": half_c}).encode()
        with pytest.raises(BadKeyMaterial, match="gave out before"):
            client.complete_pairing("alice", challenge)


# -- the switches themselves


def test_fault_json() -> None:
    fault = Fault.from_json({"kind": "empty_500", "route": "POST /a/*", "count": 2, "skip": 1})
    assert fault == Fault(FaultKind.EMPTY_500, "POST /a/*", 2, 1)
    with pytest.raises(ValueError, match="odd"):
        Fault.from_json({"kind": "empty_500", "odd": 1})
    with pytest.raises(ValueError, match="kind"):
        Fault.from_json({})
    with pytest.raises(ValueError, match="no_such"):
        Fault.from_json({"kind": "no_such"})
    with pytest.raises(ValueError, match="seconds"):
        Fault.from_json({"kind": "latency"})


def test_fault_matching_skip_and_count() -> None:
    faults = FaultSet([{"kind": "drop", "route": "POST /a/*", "count": 2, "skip": 1}])
    assert faults.take("GET", "/a/b") == []
    hits = [len(faults.take("POST", "/a/b")) for _ in range(5)]
    assert hits == [0, 1, 1, 0, 0]
    both = FaultSet()
    fault = both.add(Fault(FaultKind.DROP, "/a"))
    assert both.take("PUT", "/a") == [fault]
    both.remove(fault)
    assert both.take("PUT", "/a") == []


def test_faults_of_the_constructor(tmp_path: Path) -> None:
    faults = [{"kind": "json_500", "route": "/health", "count": 1}]
    with (
        EmbeddedBridge(tmp_path / "b.sqlite", faults=faults) as bridge,
        BridgeClient(bridge.url) as client,
    ):
        with pytest.raises(BridgeFailed, match="injected fault"):
            client.health()
        assert client.health().status == "healthy"


def test_stop_does_not_wait_for_a_latency_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bridge = EmbeddedBridge(tmp_path / "b.sqlite").start()
    fault = bridge.faults.add(Fault(FaultKind.LATENCY, seconds=600))
    with BridgeClient(bridge.url, timeout=0.2, wait=lambda seconds: None) as client:
        with pytest.raises(BridgeUnknownOutcome):
            client.register_component("alice", "x")
        assert fault.hits == 1
    bridge.stop()
    assert "graceful shutdown exceeded" not in caplog.text
    with pytest.raises(RuntimeError, match="not running"):
        _ = bridge.service
