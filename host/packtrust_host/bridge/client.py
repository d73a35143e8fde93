"""A synchronous client for the API-Bridge, real or embedded.

It trusts no 200 blindly: replies are checked field by field, key halves by `halves`, and each
failure is one of `errors` with its next step. Writes go one at a time and are never repeated once
they may have been received; reads and refused connections are retried a few times. Key halves and
reply bodies never reach a message.
"""

import hmac
import json
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from ipaddress import ip_address
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from packtrust_host.bridge.errors import (
    BadKeyMaterial,
    BridgeError,
    BridgeFailed,
    BridgeRateLimited,
    BridgeRefused,
    BridgeUnknownOutcome,
    BridgeUnreachable,
    quote_remote,
)
from packtrust_host.bridge.halves import HalfRegistry, pairing_auth, parse_half, wipe
from packtrust_host.bridge.models import (
    BridgeStatus,
    Challenge,
    Component,
    EnergyBalance,
    EnergyOperation,
    EnergyTransfer,
    Health,
    Identity,
    Lct,
    LctCreated,
    LctStatus,
    Paired,
    PairingStatus,
    Registered,
    Tensor,
    Verification,
)

DEFAULT_TIMEOUT = 35.0  # the real bridge gives its chain 30 s
CONNECT_TIMEOUT = 5.0
ATTEMPTS = 4
BACKOFF = 0.2  # seconds before the second attempt, doubling
RATE_LIMIT_WAIT = 20.0  # the limit is per minute and comes without Retry-After

Number = Decimal | int | str

_CHECK = "read the state back before you repeat it, a repeat may do it twice"
_DIMENSIONS = ("talent", "training", "temperament", "valuation", "veracity", "validity")


class _Reply:
    """A JSON object from the bridge, read with type checks."""

    def __init__(self, call: str, fields: dict[str, Any]) -> None:
        self.call = call
        self._fields = fields

    def _bad(self, name: str, want: str) -> BridgeFailed:
        return BridgeFailed(
            self.call,
            "the reply's field %s is missing or not %s" % (name, want),
            "check that the URL is a bridge of a version this program knows; " + _CHECK,
            200,
        )

    def has(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def raw(self, name: str) -> object:
        return self._fields.get(name)

    def text(self, name: str, default: str | None = None) -> str:
        value = self._fields.get(name, default)
        if not isinstance(value, str):
            raise self._bad(name, "a text")
        return value

    def identifier(self, name: str) -> str:
        value = self.text(name)
        if not 0 < len(value) <= 255 or not value.isprintable():
            raise self._bad(name, "an identifier")
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        value = self._fields.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._bad(name, "a whole number")
        return value

    def flag(self, name: str, default: bool | None = None) -> bool:
        value = self._fields.get(name, default)
        if not isinstance(value, bool):
            raise self._bad(name, "true or false")
        return value

    def number(self, name: str) -> Decimal:
        """A JSON number or a decimal string."""
        value = self._fields.get(name)
        if isinstance(value, (int, str, Decimal)) and not isinstance(value, bool):
            try:
                number = Decimal(value)
            except InvalidOperation:
                number = Decimal("NaN")
            if number.is_finite():
                return number
        raise self._bad(name, "a number")

    def number_or_none(self, name: str) -> Decimal | None:
        return self.number(name) if self.has(name) else None

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._fields.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._bad(name, "a list of texts")
        return tuple(value)

    def part(self, name: str) -> "_Reply":
        value = self._fields.get(name)
        if not isinstance(value, dict):
            raise self._bad(name, "an object")
        return _Reply(self.call, value)


def _segment(call: str, identifier: str) -> str:
    """An id as one segment of a path."""
    if identifier in ("", ".", ".."):
        raise BridgeRefused(call, "an id is empty or a path", "pass the id the bridge gave")
    return quote(identifier, safe="")


def _json_number(call: str, name: str, value: Number, zero: bool = False) -> float:
    """A decimal as JSON number, exactly, and not 0 where the bridge takes 0 for a missing field."""
    problem = ""
    number = 0.0
    try:
        exact = Decimal(value)
        number = float(exact)
        if not exact.is_finite() or Decimal(repr(number)) != exact:
            problem = "has more digits than a JSON number carries"
        elif not exact and not zero:
            problem = "is 0, which the bridge takes for a missing field"
    except (InvalidOperation, OverflowError, ValueError):
        problem = "is not a number"
    if problem:
        raise BridgeRefused(call, "%s %s" % (name, problem), "pass another value; nothing was sent")
    return number


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"


class BridgeClient:
    """Calls to one bridge. A context manager; usable from several threads.

    `timeout` is the longest wait for a reply in seconds, `wait` sleeps that many seconds between
    attempts, `write_interval` keeps writes that far apart (a real chain needs about a block between
    them; `clock` is its monotonic time). Plain HTTP to another machine shows every key half to the
    network, so it needs `allow_clear_http`. `registry` remembers the halves seen; pass one made
    from its saved JSON to keep that over restarts. `api_key` goes out as X-API-Key.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        wait: Callable[[float], object] = time.sleep,
        write_interval: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        registry: HalfRegistry | None = None,
        api_key: str | None = None,
        allow_clear_http: bool = False,
    ) -> None:
        parts = urlsplit(base_url)
        host = parts.hostname or ""
        if parts.scheme not in ("http", "https") or not host or parts.username is not None:
            raise BridgeRefused("connect", "the bridge's URL is not http(s)://host[:port]", "correct the URL")
        if parts.scheme == "http" and not allow_clear_http and not _is_loopback(host):
            raise BridgeRefused(
                "connect",
                "plain HTTP to another machine shows every key half to the network",
                "use https, a tunnel to 127.0.0.1, or allow clear HTTP by name",
            )
        self.base_url = base_url.rstrip("/")
        self.registry = HalfRegistry() if registry is None else registry
        self._wait = wait
        self._write_interval = write_interval
        self._clock = clock
        self._last_write: float | None = None
        self._write_lock = threading.Lock()
        self._http = httpx.Client(
            base_url=self.base_url,
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
            # A connection kept open may be closed by the bridge just as a write goes out, and then
            # nobody knows the outcome: a fresh one for each call costs little.
            limits=httpx.Limits(max_keepalive_connections=0),
            headers={} if api_key is None else {"X-API-Key": api_key},
            follow_redirects=False,
            trust_env=False,
        )

    def __repr__(self) -> str:
        return "BridgeClient(%r)" % self.base_url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # -- transport

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> _Reply:
        if method == "GET":
            return self._attempt_all(method, path, body)
        with self._write_lock:
            if self._last_write is not None:
                due = self._last_write + self._write_interval - self._clock()
                if due > 0:
                    self._wait(due)
            try:
                return self._attempt_all(method, path, body)
            finally:
                self._last_write = self._clock()

    def _attempt_all(self, method: str, path: str, body: Mapping[str, Any] | None) -> _Reply:
        attempt = 0
        while True:
            outcome, pause = self._attempt(method, path, body, BACKOFF * 2**attempt)
            if isinstance(outcome, _Reply):
                return outcome
            attempt += 1
            if pause is None or attempt == ATTEMPTS:
                raise outcome
            self._wait(pause)

    def _attempt(
        self, method: str, path: str, body: Mapping[str, Any] | None, backoff: float
    ) -> tuple[_Reply | BridgeError, float | None]:
        """One try: the reply, or an error and the pause after which another try is allowed."""
        call = "%s %s" % (method, path)
        reading = method == "GET"
        try:
            response = self._http.request(method, path, json=body)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            slow = isinstance(error, httpx.ConnectTimeout)
            what = "does not accept the connection in time" if slow else "cannot be connected to"
            return (
                BridgeUnreachable(
                    call,
                    "%s %s" % (self.base_url, what),
                    "check that the bridge runs at this address; nothing was sent",
                ),
                backoff if reading or not slow else None,
            )
        except httpx.RequestError as error:
            timed_out = isinstance(error, httpx.TimeoutException)
            what = "no reply came in time" if timed_out else "the connection broke before the reply"
            if reading:
                return (
                    BridgeUnreachable(call, what, "check the bridge and the network, then repeat"),
                    backoff,
                )
            return (
                BridgeUnknownOutcome(call, what + ", so the request may or may not have been carried out", _CHECK),
                None,
            )
        outcome = self._judge(call, reading, response)
        if isinstance(outcome, _Reply) or not reading:
            return outcome, None
        if isinstance(outcome, BridgeRateLimited):
            return outcome, RATE_LIMIT_WAIT
        # With a JSON error the bridge has told its last word; without one a proxy or panic spoke.
        spoke = "error" in self._document(response)
        return outcome, backoff if response.status_code >= 500 and not spoke else None

    @staticmethod
    def _document(response: httpx.Response) -> dict[str, Any]:
        """The JSON object of a reply, empty if it is none."""
        try:
            document = json.loads(response.content, parse_float=Decimal)
        except (ValueError, RecursionError):
            # Not chained anywhere: a JSONDecodeError carries the whole body, halves included.
            return {}
        return document if isinstance(document, dict) else {}

    def _judge(self, call: str, reading: bool, response: httpx.Response) -> _Reply | BridgeError:
        status = response.status_code
        document = self._document(response)
        again = "repeat it later" if reading else _CHECK
        if status == 200:
            if document:
                return _Reply(call, document)
            what = "an empty body" if not response.content else "a body that is no JSON object"
            return BridgeFailed(
                call,
                "the bridge answered 200 with %s (%d bytes)" % (what, len(response.content)),
                "check that the URL is the bridge's and not a proxy's; " + again,
                status,
            )
        said = document.get("error")
        text = quote_remote(said) if isinstance(said, str) else ""
        if status == 429:
            return BridgeRateLimited(call, "the bridge limits the rate (429)", "wait a minute, then repeat it", status)
        if status == 404:
            return BridgeRefused(
                call,
                "the bridge has no such route (404)",
                "check the base URL and the bridge's version",
                status,
            )
        if status in (401, 403):
            return BridgeRefused(
                call,
                "the bridge denies access (%d): %s" % (status, text or "no reason given"),
                "check the API key and its permissions",
                status,
            )
        if 400 <= status < 500:
            return BridgeRefused(
                call,
                "the bridge refused the request (%d): %s" % (status, text or "no reason given"),
                "correct the request; nothing was changed",
                status,
            )
        if status < 500:
            return BridgeFailed(
                call,
                "the bridge answered %d, which is no reply of a bridge" % status,
                "check the base URL: it must be the bridge's own, without a path",
                status,
            )
        if text:
            return BridgeFailed(
                call,
                "the bridge failed (%d): %s" % (status, text),
                "see its text; " + again,
                status,
            )
        what = "an empty body" if not response.content else "a body that is no JSON error"
        return BridgeFailed(
            call,
            "the bridge failed (%d) with %s" % (status, what),
            "look into the bridge's log; " + again,
            status,
        )

    # -- the bridge itself

    def health(self) -> Health:
        """Whether a bridge answers at all; says nothing about the chain behind it."""
        reply = self._call("GET", "/health")
        return Health(reply.text("status"), reply.text("service", ""), reply.integer("timestamp", 0))

    def status(self) -> BridgeStatus:
        """Whether the bridge reaches its chain, and what kind of bridge it is."""
        reply = self._call("GET", "/blockchain/status").part("blockchain_status")
        return BridgeStatus(
            mode=reply.text("mode", ""),
            connected=reply.flag("connected", False),
            rest_api_connected=reply.flag("rest_api_connected", False),
            errors=reply.texts("errors"),
        )

    # -- components

    def register_component(self, creator: str, component_data: str, context: str = "") -> Registered:
        """Register; the bridge chooses the id. A repeat makes a second component."""
        body = {"creator": creator, "component_data": component_data, "context": context}
        reply = self._call("POST", "/api/v1/components/register", body)
        return Registered(
            component_id=reply.identifier("component_id"),
            lct_id=reply.text("lct_id", ""),
            status=reply.text("status", ""),
            creator=reply.text("creator", creator),
            component_data=reply.text("component_data", component_data),
            context=reply.text("context", context),
            txhash=reply.text("txhash", ""),
        )

    def get_component(self, component_id: str) -> Component:
        """A component as the bridge stores it. Unknown ones are BridgeFailed, like any failure."""
        call = "GET /api/v1/components/{id}"
        path = "/api/v1/components/" + _segment(call, component_id)
        reply = self._call("GET", path)
        return Component(
            component_id=reply.identifier("component_id"),
            component_type=reply.text("component_type", ""),
            hardware_specs=reply.text("hardware_specs", ""),
            manufacturer_id=reply.text("manufacturer_id", ""),
            status=reply.text("status", ""),
            registered_at=reply.text("registered_at", ""),
            relationship_ids=reply.texts("relationship_ids"),
        )

    def confirm_component(self, registered: Registered, attempts: int = 10) -> Component:
        """Read a new component back until it is stored as sent: a 200 alone proves nothing."""
        for attempt in range(attempts):
            try:
                component = self.get_component(registered.component_id)
            except BridgeFailed:
                component = None  # not there yet, or the chain is down: told apart by status()
            if component is not None and component.hardware_specs == registered.component_data:
                return component
            if attempt < attempts - 1:
                self._wait(min(BACKOFF * 2**attempt, 3.0))
        raise BridgeUnknownOutcome(
            "GET /api/v1/components/" + registered.component_id,
            "the bridge confirmed a registration but does not show it as sent",
            "check the chain with status(); keep the id and confirm again later",
        )

    def identity(self, component_id: str) -> Identity:
        """What the bridge verified about a component."""
        call = "GET /api/v1/components/{id}/identity"
        path = "/api/v1/components/%s/identity" % _segment(call, component_id)
        reply = self._call("GET", path)
        detail = reply.part("verification") if reply.has("verification") else _Reply(path, {})
        return Identity(
            component_id=reply.identifier("component_id"),
            verified=reply.flag("verified"),
            status=detail.text("status", ""),
            verified_at=detail.text("verified_at", ""),
            method=detail.text("verification_method", ""),
            evidence=detail.text("verification_evidence", ""),
        )

    def verify_statement(
        self, component_id: str, verifier: str, statement: bytes, mac: bytes, lct_id: str
    ) -> Verification:
        """Post a statement MACed under the LCT half's key; see `Verification.proven`."""
        call = "POST /api/v1/components/{id}/verify"
        path = "/api/v1/components/%s/verify" % _segment(call, component_id)
        claim = {"statement": b64encode(statement).decode(), "mac": mac.hex(), "lct_id": lct_id}
        reply = self._call("POST", path, {"verifier": verifier, "context": json.dumps(claim, sort_keys=True)})
        return Verification(
            component_id=reply.identifier("component_id"),
            verifier=reply.text("verifier", verifier),
            verified=reply.flag("verified"),
            checked=bool(reply.text("verification_method", "")),
            reason=quote_remote(reply.text("reason", "")),
            timestamp=reply.integer("timestamp", 0),
        )

    # -- relationships

    def create_lct(
        self,
        creator: str,
        component_a: str,
        component_b: str,
        context: str = "",
        proxy_id: str = "",
        *,
        allow_placeholders: bool = False,
    ) -> LctCreated:
        """Create a relationship and take its halves, which are given out this once.

        Raises BadKeyMaterial if they are no keys. With `allow_placeholders` a bridge that sends
        placeholders (as today's does) gives None instead: take the halves from a pairing then.
        """
        body = {
            "creator": creator,
            "component_a": component_a,
            "component_b": component_b,
            "context": context,
            "proxy_id": proxy_id,
        }
        reply = self._call("POST", "/api/v1/lct/create", body)
        lct_id = reply.identifier("lct_id")
        device, lct = self._lct_halves(reply, lct_id, component_a, component_b, allow_placeholders)
        try:
            return LctCreated(
                lct_id=lct_id,
                component_a=reply.text("component_a", component_a),
                component_b=reply.text("component_b", component_b),
                status=reply.text("status", ""),
                context=reply.text("context", context),
                proxy_id=reply.text("proxy_id", proxy_id),
                created_at=reply.integer("created_at", 0),
                creator=reply.text("creator", creator),
                txhash=reply.text("txhash", ""),
                device_key_half=device,
                lct_key_half=lct,
            )
        except BridgeError:
            wipe(device)
            wipe(lct)
            raise

    def _lct_halves(
        self, reply: _Reply, lct_id: str, a: str, b: str, allow_placeholders: bool
    ) -> tuple[bytearray | None, bytearray | None]:
        texts = reply.raw("device_key_half"), reply.raw("lct_key_half")
        if allow_placeholders and all(isinstance(text, str) and text.startswith("generated_") for text in texts):
            return None, None
        call = "%s (%s)" % (reply.call, lct_id)
        device = parse_half(texts[0], call + ", device_key_half")
        lct = bytearray()
        try:
            lct = parse_half(texts[1], call + ", lct_key_half")
            self.registry.admit(call, [(device, _device_use(a, b)), (lct, "lct " + lct_id)])
        except BadKeyMaterial:
            wipe(device)
            wipe(lct)
            raise
        return device, lct

    def get_lct(self, lct_id: str) -> Lct:
        """A relationship as the bridge stores it; never with halves."""
        path = "/api/v1/lct/" + _segment("GET /api/v1/lct/{id}", lct_id)
        reply = self._call("GET", path)
        return Lct(
            lct_id=reply.identifier("lct_id"),
            component_a=reply.text("component_a_id"),
            component_b=reply.text("component_b_id"),
            status=reply.text("pairing_status", ""),
            creator=reply.text("trust_anchor", ""),
            context=reply.text("operational_context", ""),
            proxy_id=reply.text("proxy_component_id", ""),
            created_at=reply.integer("created_at", 0),
            updated_at=reply.integer("updated_at", 0),
        )

    def set_lct_status(self, creator: str, lct_id: str, status: str, context: str = "") -> LctStatus:
        """Change a relationship's status; "terminated" is final."""
        path = "/api/v1/lct/%s/status" % _segment("PUT /api/v1/lct/{id}/status", lct_id)
        body = {"creator": creator, "status": status, "context": context}
        reply = self._call("PUT", path, body)
        return LctStatus(reply.identifier("lct_id"), reply.text("status"))

    def revoke_pairing(self, creator: str, lct_id: str, reason: str = "") -> LctStatus:
        """End a relationship."""
        body = {"creator": creator, "lct_id": lct_id, "reason": reason, "notify_offline": False}
        reply = self._call("DELETE", "/api/v1/pairing/revoke", body)
        return LctStatus(reply.identifier("lct_id"), reply.text("status"))

    # -- pairing

    def initiate_pairing(
        self, creator: str, component_a: str, component_b: str, operational_context: str = ""
    ) -> Challenge:
        """Start a pairing; complete it within 5 minutes."""
        body = {
            "creator": creator,
            "component_a": component_a,
            "component_b": component_b,
            "operational_context": operational_context,
        }
        reply = self._call("POST", "/api/v1/pairing/initiate", body)
        return Challenge(
            challenge_id=reply.identifier("challenge_id"),
            component_a=reply.text("component_a", component_a),
            component_b=reply.text("component_b", component_b),
            status=reply.text("status", ""),
            created_at=reply.integer("created_at", 0),
            creator=reply.text("creator", creator),
            txhash=reply.text("txhash", ""),
        )

    def complete_pairing(
        self,
        creator: str,
        challenge: Challenge,
        device_key_half: bytes | bytearray | None = None,
        session_context: str = "",
    ) -> Paired:
        """Complete a pairing and take both device halves, given out this once.

        Pass `device_key_half` of the relationship's create_lct: `split_key_a` must then be that
        half. Raises BadKeyMaterial for halves that are no keys, equal, or seen before.
        """
        name = challenge.challenge_id
        body = {
            "creator": creator,
            "challenge_id": name,
            "component_a_auth": pairing_auth(name, challenge.component_a),
            "component_b_auth": pairing_auth(name, challenge.component_b),
            "session_context": session_context,
        }
        reply = self._call("POST", "/api/v1/pairing/complete", body)
        call = "%s (%s)" % (reply.call, name)
        lct_id = reply.identifier("lct_id")
        summary, txhash = reply.text("trust_summary", ""), reply.text("txhash", "")
        half_a = parse_half(reply.raw("split_key_a"), call + ", split_key_a")
        half_b = bytearray()
        try:
            half_b = parse_half(reply.raw("split_key_b"), call + ", split_key_b")
            self._admit_pair(call, challenge, half_a, half_b, device_key_half)
        except BadKeyMaterial:
            wipe(half_a)
            wipe(half_b)
            raise
        return Paired(lct_id, summary, txhash, half_a, half_b)

    def _admit_pair(
        self,
        call: str,
        challenge: Challenge,
        half_a: bytearray,
        half_b: bytearray,
        expected: bytes | bytearray | None,
    ) -> None:
        if expected is not None and not hmac.compare_digest(half_a, expected):
            raise BadKeyMaterial(
                call,
                "split_key_a is not the device half that lct/create gave for this relationship",
                "create a new LCT and pair it at once; if it recurs, ask the bridge's operator",
            )
        pair = (challenge.component_a, challenge.component_b)
        use_b = "device b " + challenge.challenge_id
        used_a = "device a " + challenge.challenge_id
        known = self.registry.use_of(half_a)
        if known == _device_use(*pair):
            # The half that lct/create gave: it comes again here, once.
            self.registry.admit(call, [(half_b, use_b)])
            self.registry.rename(half_a, used_a)
        else:
            self.registry.admit(call, [(half_a, used_a), (half_b, use_b)])

    def pairing_status(self, challenge_id: str) -> PairingStatus:
        """How far a pairing is."""
        call = "GET /api/v1/pairing/status/{id}"
        reply = self._call("GET", "/api/v1/pairing/status/" + _segment(call, challenge_id))
        return PairingStatus(reply.identifier("challenge_id"), reply.text("status"), reply.integer("created_at", 0))

    # -- trust

    def create_tensor(
        self,
        creator: str,
        component_a: str,
        component_b: str,
        initial_score: Number,
        context: str = "",
        dimensions: Mapping[str, Number] | None = None,
        weight_profile: str = "",
    ) -> Tensor:
        """Create the trust tensor of a pair.

        `dimensions`: any of talent, training, temperament (T3), valuation, veracity, validity (V3),
        0..1. `weight_profile` "act" or "web4" chooses the weights of the composites.
        """
        call = "POST /api/v1/trust/tensor"
        body: dict[str, Any] = {
            "creator": creator,
            "component_a": component_a,
            "component_b": component_b,
            "context": context,
            "initial_score": _json_number(call, "initial_score", initial_score, zero=True),
        }
        body |= self._extras(call, dimensions, weight_profile)
        return self._tensor(self._call("POST", "/api/v1/trust/tensor", body))

    def read_tensor(self, tensor_id: str) -> Tensor:
        """The trust tensor `tensor_<A>_<B>`."""
        call = "GET /api/v1/trust/tensor/{id}"
        return self._tensor(self._call("GET", "/api/v1/trust/tensor/" + _segment(call, tensor_id)))

    def update_tensor(
        self,
        creator: str,
        tensor_id: str,
        score: Number,
        context: str = "",
        dimensions: Mapping[str, Number] | None = None,
        weight_profile: str = "",
    ) -> Tensor:
        """Set the scalar score (above 0: the bridge takes 0 for missing) and any dimensions."""
        call = "PUT /api/v1/trust/tensor/{id}/score"
        body: dict[str, Any] = {
            "creator": creator,
            "score": _json_number(call, "score", score),
            "context": context,
        }
        body |= self._extras(call, dimensions, weight_profile)
        path = "/api/v1/trust/tensor/%s/score" % _segment(call, tensor_id)
        return self._tensor(self._call("PUT", path, body))

    @staticmethod
    def _extras(call: str, dimensions: Mapping[str, Number] | None, weight_profile: str) -> dict[str, str]:
        extras = {"weight_profile": weight_profile} if weight_profile else {}
        for name, value in (dimensions or {}).items():
            if name not in _DIMENSIONS:
                raise BridgeRefused(call, "no tensor dimension %r" % name, "use one of " + ", ".join(_DIMENSIONS))
            extras[name] = str(value)
        return extras

    @staticmethod
    def _tensor(reply: _Reply) -> Tensor:
        return Tensor(
            tensor_id=reply.identifier("tensor_id"),
            score=reply.number("score"),
            status=reply.text("status", ""),
            talent=reply.number_or_none("talent"),
            training=reply.number_or_none("training"),
            temperament=reply.number_or_none("temperament"),
            valuation=reply.number_or_none("valuation"),
            veracity=reply.number_or_none("veracity"),
            validity=reply.number_or_none("validity"),
            t3_composite=reply.number_or_none("t3_composite"),
            v3_composite=reply.number_or_none("v3_composite"),
            weight_profile=reply.text("weight_profile", ""),
            version=reply.integer("version", 0),
        )

    # -- energy

    def energy_operation(
        self,
        creator: str,
        component_a: str,
        component_b: str,
        operation_type: str,
        amount: Number,
        context: str = "",
    ) -> EnergyOperation:
        """Plan a charge, discharge, transfer or balance of `amount` ATP, to 6 decimals."""
        call = "POST /api/v1/energy/operation"
        body = {
            "creator": creator,
            "component_a": component_a,
            "component_b": component_b,
            "operation_type": operation_type,
            "amount": _json_number(call, "amount", amount),
            "context": context,
        }
        reply = self._call("POST", "/api/v1/energy/operation", body)
        return EnergyOperation(
            operation_id=reply.identifier("operation_id"),
            type=reply.text("type", operation_type),
            amount=reply.number("amount"),
            status=reply.text("status", ""),
            txhash=reply.text("txhash", ""),
        )

    def energy_transfer(self, creator: str, operation_id: str, amount: Number, context: str = "") -> EnergyTransfer:
        """Carry out a planned operation, wholly or in part."""
        call = "POST /api/v1/energy/transfer"
        body = {
            "creator": creator,
            "operation_id": operation_id,
            "amount": _json_number(call, "amount", amount),
            "context": context,
        }
        reply = self._call("POST", "/api/v1/energy/transfer", body)
        return EnergyTransfer(
            operation_id=reply.identifier("operation_id"),
            amount=reply.number("amount"),
            status=reply.text("status", ""),
            timestamp=reply.integer("timestamp", 0),
        )

    def energy_balance(self, component_id: str) -> EnergyBalance:
        """What a component has."""
        call = "GET /api/v1/energy/balance/{id}"
        reply = self._call("GET", "/api/v1/energy/balance/" + _segment(call, component_id))
        return EnergyBalance(
            component_id=reply.identifier("component_id"),
            atp=reply.number("atp_balance"),
            adp=reply.number("adp_balance"),
            total=reply.number("total_energy"),
            trust_weighted=reply.number("trust_weighted_balance"),
            last_updated=reply.integer("last_updated", 0),
        )


def _device_use(component_a: str, component_b: str) -> str:
    return "device %s %s" % (component_a, component_b)
