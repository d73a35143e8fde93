"""The embedded bridge: the routes of the API-Bridge on loopback, over a database of its own.

Same paths, required fields and error shape as the Go bridge; other than that one, its replies are
true: halves are random, trust and energy are stored, statements are verified. For tests and for
machines without a chain. It has no authentication, so it listens on 127.0.0.1 alone and takes no
request that names another host.

    with EmbeddedBridge("bridge.sqlite") as bridge:
        client = BridgeClient(bridge.url)
"""

import asyncio
import json
import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from packtrust_host.bridge.binding import BindingError, Field, bind
from packtrust_host.bridge.faults import HALF_FIELDS, Fault, FaultKind, FaultSet
from packtrust_host.bridge.models import DEFAULT_PORT
from packtrust_host.bridge.service import (
    HOLD_SECONDS,
    T3,
    V3,
    BridgeService,
    HalfLength,
    Reply,
    ServiceError,
)
from packtrust_host.bridge.store import Store

HOST = "127.0.0.1"
_MAX_BODY = 1 << 20
_START_SECONDS = 10.0
_STOP_SECONDS = 10.0

_log = logging.getLogger(__name__)

Values = dict[str, Any]
Operation = Callable[[BridgeService, Mapping[str, str], Values], Reply]


def _json(content: Reply, status: int = 200) -> Response:
    """Flat JSON with its keys in alphabetical order, as Go prints a map."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return Response(text, status, media_type="application/json; charset=utf-8")


def _error(status: int, text: str) -> Response:
    return _json({"error": text}, status)


@dataclass(frozen=True)
class _Api:
    """One route: its fields (None: no body is read), what it does, and how its 500 begins."""

    method: str
    path: str
    fields: tuple[Field, ...] | None
    failure: str
    operation: Operation


_CREATOR = Field("creator", "Creator", required=True)
_A = Field("component_a", "ComponentA", required=True)
_B = Field("component_b", "ComponentB", required=True)
_CONTEXT = Field("context", "Context")
_PROXY = Field("proxy_id", "ProxyID")
_PROFILE = Field("weight_profile")
_DIMENSIONS = tuple(Field(name, kind="decimal") for name in T3 + V3)


def _dimensions(values: Values) -> dict[str, Decimal | None]:
    return {name: values[name] for name in T3 + V3}


_ROUTES = (
    _Api("GET", "/health", None, "", lambda s, p, v: s.health()),
    _Api("GET", "/blockchain/status", None, "", lambda s, p, v: s.status()),
    _Api(
        "POST",
        "/api/v1/components/register",
        (_CREATOR, Field("component_data", "ComponentData", required=True), _CONTEXT),
        "Failed to register component",
        lambda s, p, v: s.register(v["creator"], v["component_data"], v["context"]),
    ),
    _Api(
        "GET",
        "/api/v1/components/{id}",
        None,
        "Failed to get component",
        lambda s, p, v: s.component(p["id"]),
    ),
    _Api(
        "GET",
        "/api/v1/components/{id}/identity",
        None,
        "Failed to get component identity",
        lambda s, p, v: s.identity(p["id"]),
    ),
    _Api(
        "POST",
        "/api/v1/components/{id}/verify",
        (Field("verifier", "Verifier", required=True), _CONTEXT),
        "Failed to verify component",
        lambda s, p, v: s.verify(p["id"], v["verifier"], v["context"]),
    ),
    _Api(
        "POST",
        "/api/v1/lct/create",
        (_CREATOR, _A, _B, _CONTEXT, _PROXY),
        "Failed to create LCT",
        lambda s, p, v: s.create_lct(v["creator"], v["component_a"], v["component_b"], v["context"], v["proxy_id"]),
    ),
    _Api("GET", "/api/v1/lct/{id}", None, "Failed to get LCT", lambda s, p, v: s.lct(p["id"])),
    _Api(
        "PUT",
        "/api/v1/lct/{id}/status",
        (_CREATOR, Field("status", "Status", required=True), _CONTEXT),
        "Failed to update LCT status",
        lambda s, p, v: s.set_lct_status(p["id"], v["creator"], v["status"]),
    ),
    _Api(
        "POST",
        "/api/v1/pairing/initiate",
        (
            _CREATOR,
            _A,
            _B,
            Field("operational_context", "OperationalContext"),
            _PROXY,
            Field("force_immediate", "ForceImmediate", "bool"),
        ),
        "Failed to initiate pairing",
        lambda s, p, v: s.initiate_pairing(
            v["creator"],
            v["component_a"],
            v["component_b"],
            v["operational_context"],
            v["proxy_id"],
            v["force_immediate"],
        ),
    ),
    _Api(
        "POST",
        "/api/v1/pairing/complete",
        (
            _CREATOR,
            Field("challenge_id", "ChallengeID", required=True),
            Field("component_a_auth", "ComponentAAuth", required=True),
            Field("component_b_auth", "ComponentBAuth", required=True),
            Field("session_context", "SessionContext"),
        ),
        "Failed to complete pairing",
        lambda s, p, v: s.complete_pairing(v["challenge_id"], v["component_a_auth"], v["component_b_auth"]),
    ),
    _Api(
        "DELETE",
        "/api/v1/pairing/revoke",
        (
            _CREATOR,
            Field("lct_id", "LctID", required=True),
            Field("reason", "Reason"),
            Field("notify_offline", "NotifyOffline", "bool"),
        ),
        "Failed to revoke pairing",
        lambda s, p, v: s.revoke(v["creator"], v["lct_id"], v["reason"]),
    ),
    _Api(
        "GET",
        "/api/v1/pairing/status/{id}",
        None,
        "Failed to get pairing status",
        lambda s, p, v: s.pairing_status(p["id"]),
    ),
    _Api(
        "POST",
        "/api/v1/trust/tensor",
        (
            _CREATOR,
            _A,
            _B,
            _CONTEXT,
            Field("initial_score", "InitialScore", "number"),
            _PROFILE,
            *_DIMENSIONS,
        ),
        "Failed to create trust tensor",
        lambda s, p, v: s.create_tensor(
            v["creator"],
            v["component_a"],
            v["component_b"],
            v["context"],
            v["initial_score"],
            v["weight_profile"],
            _dimensions(v),
        ),
    ),
    _Api(
        "GET",
        "/api/v1/trust/tensor/{id}",
        None,
        "Failed to get trust tensor",
        lambda s, p, v: s.tensor(p["id"]),
    ),
    _Api(
        "PUT",
        "/api/v1/trust/tensor/{id}/score",
        (
            _CREATOR,
            Field("score", "Score", "number", required=True),
            _CONTEXT,
            _PROFILE,
            *_DIMENSIONS,
        ),
        "Failed to update trust score",
        lambda s, p, v: s.update_tensor(p["id"], v["score"], v["weight_profile"], _dimensions(v)),
    ),
    _Api(
        "POST",
        "/api/v1/energy/operation",
        (
            _CREATOR,
            _A,
            _B,
            Field("operation_type", "OperationType", required=True),
            Field("amount", "Amount", "number", required=True),
            _CONTEXT,
        ),
        "Failed to create energy operation",
        lambda s, p, v: s.energy_operation(
            v["creator"],
            v["component_a"],
            v["component_b"],
            v["operation_type"],
            v["amount"],
            v["context"],
        ),
    ),
    _Api(
        "POST",
        "/api/v1/energy/transfer",
        (
            _CREATOR,
            Field("operation_id", "OperationID", required=True),
            Field("amount", "Amount", "number", required=True),
            _CONTEXT,
        ),
        "Failed to execute energy transfer",
        lambda s, p, v: s.energy_transfer(v["operation_id"], v["amount"]),
    ),
    _Api(
        "GET",
        "/api/v1/energy/balance/{id}",
        None,
        "Failed to get energy balance",
        lambda s, p, v: s.energy_balance(p["id"]),
    ),
)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise BindingError("http: request body too large")
    return bytes(body)


def _endpoint(api: _Api, service: BridgeService) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        values: Values = {}
        try:
            if api.fields is not None:
                values = bind(await _body(request), api.fields)
            reply = await run_in_threadpool(api.operation, service, request.path_params, values)
        except BindingError as error:
            return _error(400, str(error))
        except ServiceError as error:
            return _error(500, "%s: %s" % (api.failure, error))
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 - a request never takes the server down
            # Never the error's own text: it might hold what the request or a key held.
            places = "".join(traceback.format_tb(error.__traceback__))
            _log.error("%s %s: %s\n%s", api.method, api.path, type(error).__name__, places)
            return _error(500, "%s: internal error, see the bridge's log" % api.failure)
        if any(name in reply for name in HALF_FIELDS):
            # Half A is wiped on time even if no request follows.
            asyncio.get_running_loop().call_later(HOLD_SECONDS + 1, service.forget_expired)
        return _json(reply)

    return endpoint


async def _not_found(request: Request, error: Exception) -> Response:
    """Unknown route or wrong method: the Go router's plain 404, or its redirect off a slash."""
    path = request.url.path
    if len(path) > 1 and path.endswith("/"):
        scope = {**request.scope, "path": path[:-1]}
        for route in request.app.routes:
            if route.matches(scope)[0] is Match.FULL:
                status = 301 if request.method == "GET" else 307
                return RedirectResponse(path[:-1], status)
    return PlainTextResponse("404 page not found", 404)


class _Gate:
    """Outermost layer: refuses other hosts' names, then applies faults."""

    def __init__(
        self,
        app: ASGIApp,
        faults: FaultSet,
        reset: Callable[[Scope], None],
        stopping: asyncio.Event,
    ) -> None:
        self._app = app
        self._faults = faults
        self._reset = reset
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if request.url.hostname not in (HOST, "localhost"):
            # A web page that points a name of its own at 127.0.0.1 gets no halves.
            text = "the embedded bridge answers only to %s and localhost" % HOST
            await _error(403, text)(scope, receive, send)
            return
        hit = self._faults.take(scope["method"], scope["path"])
        for fault in hit:
            if fault.kind is FaultKind.LATENCY:
                await self._pause(fault.seconds)
        others = [fault for fault in hit if fault.kind is not FaultKind.LATENCY]
        if not others:
            await self._app(scope, receive, send)
            return
        reply = Response()
        if all(fault.carries_out for fault in others):
            reply = await self._carry_out(scope, receive)
        for fault in others:
            if fault.kind in (FaultKind.DROP, FaultKind.DROP_AFTER_COMMIT):
                self._reset(scope)
                while (await receive())["type"] != "http.disconnect":
                    continue
                return
            reply = self._spoilt(fault, reply)
        await reply(scope, receive, send)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    async def _carry_out(self, scope: Scope, receive: Receive) -> Response:
        """Run the request and keep its reply instead of sending it."""
        status = 0
        body = bytearray()
        kind = ""

        async def keep(message: Message) -> None:
            nonlocal status, kind
            if message["type"] == "http.response.start":
                status = message["status"]
                kind = dict(message["headers"]).get(b"content-type", b"").decode()
            else:
                body.extend(message.get("body", b""))

        await self._app(scope, receive, keep)
        return Response(bytes(body), status, media_type=kind or None)

    def _spoilt(self, fault: Fault, reply: Response) -> Response:
        """The reply a fault makes of the true one."""
        match fault.kind:
            case FaultKind.EMPTY_500:
                return Response(status_code=500)
            case FaultKind.JSON_500:
                return _error(500, "injected fault")
            case FaultKind.RATE_LIMIT:
                return _error(429, "Rate limit exceeded")
            case FaultKind.REFUSE:
                return _error(400, "injected refusal")
            case FaultKind.NOT_FOUND:
                return PlainTextResponse("404 page not found", 404)
            case FaultKind.NOT_JSON:
                return Response("<html>proxy page</html>", 200, media_type="text/html")
        if reply.status_code != 200:
            return reply  # refused before any half was made
        content = json.loads(bytes(reply.body))
        self._faults.spoil_halves(fault.kind, content)
        return _json(content)


def create_app(service: BridgeService) -> Starlette:
    """The routes as an ASGI application, without faults and without the host check."""
    routes = []
    for api in _ROUTES:
        route = Route(api.path, _endpoint(api, service), methods=[api.method])
        route.methods = {api.method}  # without the HEAD that Starlette adds: the Go router has none
        routes.append(route)
    app = Starlette(routes=routes, exception_handlers={404: _not_found, 405: _not_found})
    app.router.redirect_slashes = False
    return app


class _Server(uvicorn.Server):
    """Tells when it listens, by an event instead of a flag to poll."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self.stopping = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, then `on_ready`."""
        await super().startup(sockets=sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but a request that a latency fault holds does not hold it up."""
        self.stopping.set()
        await super().shutdown(sockets=sockets)

    def reset(self, scope: Scope) -> None:
        """Reset the connection of a request, as a crashed process or a cut cable would."""
        client = tuple(scope["client"])
        for protocol in list(self.server_state.connections):
            if getattr(protocol, "client", None) == client:
                protocol.transport.abort()


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise OSError(
            error.errno,
            "cannot listen on %s:%d (%s): choose another port" % (HOST, port, error.strerror),
        ) from None
    return listener


def _assemble(service: BridgeService, faults: FaultSet, on_ready: Callable[[], None]) -> _Server:
    inner = create_app(service)
    config = uvicorn.Config(
        inner,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    server = _Server(config, on_ready)
    config.app = _Gate(inner, faults, server.reset, server.stopping)
    return server


class EmbeddedBridge:
    """The bridge in a thread of this process. Start, stop and start again; also a context manager.

    `path` is a SQLite file (made if missing) or a SQLAlchemy URL; `port` 0 takes a free one, which
    stays the same over restarts. `half_length` is what it issues: "bytes64" (128 hex digits) or
    "hex64" (64 hex digits, as today's bridge). `faults` are on from the start; more go through
    `bridge.faults.add`. `clock` gives unix seconds.
    """

    def __init__(
        self,
        path: str | Path,
        port: int = 0,
        half_length: HalfLength = "bytes64",
        faults: Iterable[Fault | Mapping[str, Any]] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        if half_length not in ("bytes64", "hex64"):
            raise ValueError("half_length is 'bytes64' or 'hex64', not %r" % (half_length,))
        self.faults = FaultSet(faults)
        self._path = path
        self._port = port
        self._half_length: HalfLength = half_length
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._server: _Server | None = None
        self._service: BridgeService | None = None

    @property
    def url(self) -> str:
        """Base URL, once it was started."""
        if not self._port:
            raise RuntimeError("the bridge has no port yet: start it first")
        return "http://%s:%d" % (HOST, self._port)

    @property
    def service(self) -> BridgeService:
        """The rules behind the routes, while it runs: for audits in tests."""
        if self._service is None:
            raise RuntimeError("the bridge is not running: start it first")
        return self._service

    def start(self) -> Self:
        """Listen; returns when requests are answered."""
        if self._thread is not None:
            raise RuntimeError("the bridge runs already")
        listener = _listen(self._port)
        try:
            store = Store(self._path)
        except BaseException:
            listener.close()
            raise
        self._port = listener.getsockname()[1]
        self._service = service = BridgeService(store, self._half_length, self._clock)
        ready = threading.Event()
        self._server = server = _assemble(service, self.faults, ready.set)

        def run() -> None:
            try:
                server.run(sockets=[listener])
            finally:
                listener.close()
                service.forget_all()
                store.close()

        self._thread = threading.Thread(target=run, name="embedded-bridge", daemon=True)
        self._thread.start()
        if not ready.wait(_START_SECONDS):
            self.stop()
            raise RuntimeError("the embedded bridge did not start within %d s" % _START_SECONDS)
        return self

    def stop(self) -> None:
        """Stop answering, forget every half that is held, close the database."""
        if self._thread is None or self._server is None:
            return
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        if self._thread.is_alive():
            raise RuntimeError("the embedded bridge did not stop within %d s" % _STOP_SECONDS)
        self._thread = self._server = self._service = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def serve(
    path: str | Path,
    port: int = DEFAULT_PORT,
    half_length: HalfLength = "bytes64",
    faults: Iterable[Fault | Mapping[str, Any]] = (),
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Run the bridge in this thread until SIGINT or SIGTERM; `on_ready` gets its URL."""
    with _listen(port) as listener:
        url = "http://%s:%d" % (HOST, listener.getsockname()[1])
        store = Store(path)
        service = BridgeService(store, half_length, time.time)
        try:
            _assemble(service, FaultSet(faults), lambda: on_ready(url)).run(sockets=[listener])
        finally:
            service.forget_all()
            store.close()
