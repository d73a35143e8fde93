"""The embedded bridge's routes, seen as raw HTTP: shapes of replies and refusals."""

import json
import logging
import socket
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_mock_engine, insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateTable

from packtrust_host.bridge import server as server_module
from packtrust_host.bridge.binding import BindingError, Field, bind
from packtrust_host.bridge.halves import pairing_auth
from packtrust_host.bridge.server import EmbeddedBridge, serve
from packtrust_host.bridge.service import MICRO, BridgeService, ServiceError
from packtrust_host.bridge.store import Base, Meta, Store, StoreError

API = "/api/v1"


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBridge]:
    with EmbeddedBridge(tmp_path_factory.mktemp("bridge") / "bridge.sqlite") as running:
        yield running


@pytest.fixture(scope="module")
def http(bridge: EmbeddedBridge) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=bridge.url, trust_env=False) as client:
        yield client


def ok(reply: httpx.Response) -> dict[str, Any]:
    """A successful reply's fields; checks what all successes share."""
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    names = [name for name, _ in json.loads(reply.content, object_pairs_hook=list)]
    assert names == sorted(names)
    fields: dict[str, Any] = reply.json()
    return fields


def failed(reply: httpx.Response, status: int = 500) -> str:
    """A refusal's text; checks the one error shape."""
    assert reply.status_code == status, reply.text
    assert list(reply.json()) == ["error"]
    return str(reply.json()["error"])


def register(http: httpx.Client, creator: str = "alice", data: str = "pack") -> str:
    body = {"creator": creator, "component_data": data}
    return str(ok(http.post(API + "/components/register", json=body))["component_id"])


def pair(http: httpx.Client) -> dict[str, str]:
    return {
        "creator": "alice",
        "component_a": register(http),
        "component_b": register(http),
    }


def lct(http: httpx.Client) -> dict[str, Any]:
    return ok(http.post(API + "/lct/create", json=pair(http)))


def required(*names: str) -> str:
    return "\n".join(
        "Key: '%s' Error:Field validation for '%s' failed on the 'required' tag" % (name, name) for name in names
    )


# -- transport rules


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,creatoRNaN0.e-\\u ', max_size=40).map(str.encode))
def test_any_body_binds_or_is_refused(body: bytes) -> None:
    fields = (Field("creator", "Creator", required=True), Field("a", "A", "number"))
    try:
        values = bind(body, fields)
    except BindingError as refusal:
        text = str(refusal)
    else:
        text = "bound"
        assert values["creator"]
        assert isinstance(values["a"], Decimal)
    assert text


def test_health_and_status(http: httpx.Client) -> None:
    health = ok(http.get("/health"))
    assert set(health) == {"service", "status", "timestamp"}
    assert (health["status"], health["service"]) == ("healthy", "api-bridge")
    status = ok(http.get("/blockchain/status"))
    assert status["blockchain_status"]["rest_api_connected"] is True
    assert status["blockchain_status"]["mode"] == "embedded"
    assert status["blockchain_status"]["errors"] == []


@pytest.mark.parametrize(
    ("method", "path", "names"),
    [
        ("POST", "/components/register", ("Creator", "ComponentData")),
        ("POST", "/components/x/verify", ("Verifier",)),
        ("POST", "/lct/create", ("Creator", "ComponentA", "ComponentB")),
        ("PUT", "/lct/x/status", ("Creator", "Status")),
        ("POST", "/pairing/initiate", ("Creator", "ComponentA", "ComponentB")),
        (
            "POST",
            "/pairing/complete",
            ("Creator", "ChallengeID", "ComponentAAuth", "ComponentBAuth"),
        ),
        ("DELETE", "/pairing/revoke", ("Creator", "LctID")),
        ("POST", "/trust/tensor", ("Creator", "ComponentA", "ComponentB")),
        ("PUT", "/trust/tensor/x/score", ("Creator", "Score")),
        (
            "POST",
            "/energy/operation",
            ("Creator", "ComponentA", "ComponentB", "OperationType", "Amount"),
        ),
        ("POST", "/energy/transfer", ("Creator", "OperationID", "Amount")),
    ],
)
def test_missing_fields(http: httpx.Client, method: str, path: str, names: tuple[str, ...]) -> None:
    def send(body: str) -> str:
        return failed(http.request(method, API + path, content=body), 400)

    assert send("{}") == required(*names)
    assert send("null") == required(*names)
    assert send("") == "EOF"
    if len(names) > 1:
        rest = [name for name in names if name != "Creator"]
        assert send('{"creator": "x"}') == required(*rest)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("", "EOF"),
        ("  \n", "EOF"),
        ('{"creator": "a"', "unexpected EOF"),
        ('{"creator": "a', "unexpected EOF"),
        ("{", "unexpected EOF"),
        ("hello", "invalid character 'h' looking for beginning of value"),
        ("{x: 1}", "invalid character 'x' looking for beginning of object key string"),
        ('{"creator" 1}', "invalid character '1' after object key"),
        ('{"creator": "a" "b"}', "invalid character '\"' after object key:value pair"),
        ('{"creator": NaN}', "invalid character 'N' looking for beginning of value"),
        (
            '{"creator": 5, "component_data": "x"}',
            "json: cannot unmarshal number into Go struct field .creator of type string",
        ),
        (
            '{"creator": "a", "component_data": {}}',
            "json: cannot unmarshal object into Go struct field .component_data of type string",
        ),
        (
            "[1]",
            (
                "json: cannot unmarshal array into Go value of type "
                r'struct { Creator string "json:\"creator\" binding:\"required\""; '
                r'ComponentData string "json:\"component_data\" binding:\"required\""; '
                r'Context string "json:\"context\"" }'
            ),
        ),
        ('{"creator": "", "component_data": "x"}', required("Creator")),
        ('{"creator": null, "component_data": "x"}', required("Creator")),
        ('{"creator": "a\\u0000", "component_data": "x"}', "creator must not contain NUL"),
        ("[" * 100_000, "exceeded max depth"),
        ('{"creator": "' + "a" * (1 << 20) + '"}', "http: request body too large"),
    ],
)
def test_bad_bodies(http: httpx.Client, body: str, text: str) -> None:
    assert failed(http.post(API + "/components/register", content=body), 400) == text


def test_lenient_as_go(http: httpx.Client) -> None:
    """Keys in any case, unknown fields, no content type, text behind the first value, \\ud800."""
    body = '{"CREATOR": "alice", "Component_Data": "x\\ud800", "more": 1} trailing'
    reply = ok(http.post(API + "/components/register", content=body))
    assert (reply["creator"], reply["component_data"]) == ("alice", "x\ufffd")


def test_numbers_as_go(http: httpx.Client) -> None:
    body = {**pair(http), "operation_type": "charge"}

    def send(amount: str) -> str:
        text = json.dumps(body)[:-1] + ', "amount": %s}' % amount
        return failed(http.post(API + "/energy/operation", content=text), 400)

    assert send("0") == send("0.0") == send("-0") == required("Amount")
    where = "into Go struct field .amount of type float64"
    assert send('"5"') == "json: cannot unmarshal string " + where
    assert send("true") == "json: cannot unmarshal bool " + where
    assert send("1e999") == send("9" * 5000) == "json: cannot unmarshal number " + where
    assert send("1e99999999999999999999") == "json: cannot unmarshal number " + where


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/health/detailed"),
        ("GET", "/api/v1/components/register/more/parts"),
        ("GET", "/api/v1/lct"),
        ("POST", "/health"),
        ("HEAD", "/health"),
        ("POST", "/api/v1/pairing/revoke"),
        ("POST", "/components/register"),
    ],
)
def test_unknown_route_and_wrong_method(http: httpx.Client, method: str, path: str) -> None:
    reply = http.request(method, path)
    assert reply.status_code == 404
    assert reply.headers["content-type"].startswith("text/plain")
    assert reply.text == ("" if method == "HEAD" else "404 page not found")


def test_slash_at_the_end(http: httpx.Client) -> None:
    reply = http.get("/health/")
    assert (reply.status_code, reply.headers["location"]) == (301, "/health")
    reply = http.post(API + "/lct/create/", json={})
    assert (reply.status_code, reply.headers["location"]) == (307, API + "/lct/create")
    assert http.get("/nothing/").status_code == 404


def test_other_host_names_are_refused(http: httpx.Client) -> None:
    assert "answers only to" in failed(http.get("/health", headers={"Host": "evil.test"}), 403)
    assert http.get("/health", headers={"Host": "localhost:1"}).status_code == 200


# -- components


def test_register_and_read_back(http: httpx.Client) -> None:
    data = '{"manufacturer_id": "acme", "serial": "A1"}'
    body = {"creator": "host_1", "component_data": data, "context": "app"}
    made = ok(http.post(API + "/components/register", json=body))
    name = made["component_id"]
    assert name.startswith("COMP-host_1-") and name.split("-")[-1].isdigit()
    assert made["component_identity"] == name
    assert made["lct_id"] == "lct_" + name
    assert made["status"] == "registered"
    assert (made["creator"], made["component_data"], made["context"]) == ("host_1", data, "app")
    assert len(made["txhash"]) == 64
    assert made["txhash"] == made["txhash"].upper()
    read = ok(http.get(API + "/components/" + name))
    assert read["hardware_specs"] == data
    assert read["manufacturer_id"] == "acme"
    assert (read["component_type"], read["status"]) == ("module", "active")
    assert read["registered_at"].endswith("Z")
    assert read["encrypted_device_key_half"] == ""
    assert read["relationship_ids"] == []
    identity = ok(http.get(API + "/components/%s/identity" % name))
    assert identity["verified"] is False
    assert identity["verification"]["status"] == "unverified"


def test_registers_in_one_second_do_not_collide(http: httpx.Client) -> None:
    names = [register(http, "same") for _ in range(5)]
    assert len(set(names)) == 5
    assert all(int(name.removeprefix("COMP-same-")) > 1_700_000_000 for name in names)


@pytest.mark.parametrize("creator", ["a" * 35, "-a", "a b", "ä", "a/b"])
def test_creator_must_fit_the_component_id(http: httpx.Client, creator: str) -> None:
    body = {"creator": creator, "component_data": "x"}
    text = failed(http.post(API + "/components/register", json=body))
    assert text.startswith("Failed to register component: creator must be")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/components/none", "Failed to get component: component none is not registered"),
        (
            "/components/none/identity",
            "Failed to get component identity: component none is not registered",
        ),
        ("/lct/none", "Failed to get LCT: LCT none not found"),
        ("/pairing/status/none", "Failed to get pairing status: pairing challenge not found"),
        ("/trust/tensor/none", "Failed to get trust tensor: tensor not found"),
        (
            "/energy/balance/none",
            "Failed to get energy balance: component none is not registered",
        ),
    ],
)
def test_not_found_is_500(http: httpx.Client, path: str, text: str) -> None:
    assert failed(http.get(API + path)) == text


# -- relationships


def test_lct_create_and_read(http: httpx.Client) -> None:
    body = {**pair(http), "context": "app-pack", "proxy_id": "p"}
    made = ok(http.post(API + "/lct/create", json=body))
    assert made["lct_id"].startswith("lct-%s-%s-" % (body["component_a"], body["component_b"]))
    assert made["status"] == "active"
    assert (made["context"], made["proxy_id"]) == ("app-pack", "p")
    assert isinstance(made["created_at"], int)
    read = ok(http.get(API + "/lct/" + made["lct_id"]))
    assert read == {
        "lct_id": made["lct_id"],
        "component_a_id": body["component_a"],
        "component_b_id": body["component_b"],
        "pairing_status": "pending",
        "created_at": made["created_at"],
        "updated_at": made["created_at"],
        "last_contact_at": made["created_at"],
        "trust_anchor": "alice",
        "operational_context": "app-pack",
        "proxy_component_id": "p",
        "authorization_rules": "{}",
    }
    component = ok(http.get(API + "/components/" + body["component_b"]))
    assert component["relationship_ids"] == [made["lct_id"]]
    again = ok(http.post(API + "/lct/create", json=body))
    assert again["lct_id"] != made["lct_id"]


def test_lct_without_context_omits_it(http: httpx.Client) -> None:
    read = ok(http.get(API + "/lct/" + lct(http)["lct_id"]))
    assert "operational_context" not in read
    assert "proxy_component_id" not in read


def test_lct_needs_two_registered_components(http: httpx.Client) -> None:
    body = pair(http)
    text = failed(http.post(API + "/lct/create", json={**body, "component_b": "ghost"}))
    assert text == "Failed to create LCT: component ghost is not registered"
    same = {**body, "component_b": body["component_a"]}
    assert "the same component" in failed(http.post(API + "/lct/create", json=same))


def test_lct_status(http: httpx.Client) -> None:
    name = lct(http)["lct_id"]
    path = API + "/lct/%s/status" % name

    def put(creator: str, status: str) -> httpx.Response:
        return http.put(path, json={"creator": creator, "status": status})

    reply = ok(put("alice", "active"))
    assert reply == {"lct_id": name, "status": "active", "updated_at": reply["updated_at"]}
    assert ok(http.get(API + "/lct/" + name))["pairing_status"] == "active"
    assert "must be one of pending, active, terminated" in failed(put("alice", "odd"))
    assert "only its creator" in failed(put("mallory", "terminated"))
    ok(put("alice", "terminated"))
    assert "is terminated: create a new one" in failed(put("alice", "active"))


def test_revoke_is_effective(http: httpx.Client, bridge: EmbeddedBridge) -> None:
    name = lct(http)["lct_id"]
    held = bridge.service.halves_held
    body = {"creator": "alice", "lct_id": name, "reason": "lost"}
    reply = ok(http.request("DELETE", API + "/pairing/revoke", json=body))
    assert reply == {"lct_id": name, "status": "revoked", "reason": "lost"}
    assert ok(http.get(API + "/lct/" + name))["pairing_status"] == "terminated"
    assert bridge.service.halves_held == held - 1


# -- pairing


def initiate(http: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    names = ("creator", "component_a", "component_b")
    return ok(http.post(API + "/pairing/initiate", json={name: body[name] for name in names}))


def complete(http: httpx.Client, challenge: dict[str, Any], **changes: str) -> httpx.Response:
    name = challenge["challenge_id"]
    body = {
        "creator": "alice",
        "challenge_id": name,
        "component_a_auth": pairing_auth(name, challenge["component_a"]),
        "component_b_auth": pairing_auth(name, challenge["component_b"]),
        **changes,
    }
    return http.post(API + "/pairing/complete", json=body)


def test_pairing_auth_is_the_documented_hash() -> None:
    # printf CHALLENGE-A-B-1A | sha256sum
    expected = "e2ce6a69cf9a5dfb976b375daf5dbe6bdb99ba946a4c26b434b5fc9cc5268e5f"
    assert pairing_auth("CHALLENGE-A-B-1", "A") == expected


def test_pairing(http: httpx.Client) -> None:
    made = lct(http)
    challenge = initiate(http, made)
    assert challenge["challenge_id"].startswith("CHALLENGE-" + made["component_a"])
    assert (challenge["status"], challenge["force_immediate"]) == ("pending", False)
    path = API + "/pairing/status/" + challenge["challenge_id"]
    assert ok(http.get(path))["status"] == "pending"
    done = ok(complete(http, challenge))
    assert set(done) == {
        "lct_id",
        "session_keys",
        "split_key_a",
        "split_key_b",
        "trust_summary",
        "txhash",
    }
    assert done["lct_id"] == made["lct_id"]
    assert done["session_keys"] == "session_keys_generated"
    assert done["split_key_a"] == made["device_key_half"]
    assert len({done["split_key_b"], made["device_key_half"], made["lct_key_half"]}) == 3
    assert ok(http.get(path))["status"] == "completed"
    assert ok(http.get(API + "/lct/" + made["lct_id"]))["pairing_status"] == "active"
    assert "halves are given out once" in failed(complete(http, challenge))
    again = initiate(http, made)
    assert "is paired already" in failed(complete(http, again))


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("auth", ["0" * 64, "x", "ä"])
def test_pairing_enforces_the_auth_hashes(http: httpx.Client, side: str, auth: str) -> None:
    challenge = initiate(http, lct(http))
    text = failed(complete(http, challenge, **{"component_%s_auth" % side: auth}))
    assert text.startswith("Failed to complete pairing: component_%s_auth is not" % side)
    ok(complete(http, challenge))


def test_pairing_of_unknown_challenge(http: httpx.Client) -> None:
    challenge = {"challenge_id": "none", "component_a": "a", "component_b": "b"}
    assert "pairing challenge not found" in failed(complete(http, challenge))


def test_pairing_without_lct_makes_one(http: httpx.Client) -> None:
    challenge = initiate(http, pair(http))
    done = ok(complete(http, challenge))
    assert done["lct_id"] == "lct_" + challenge["challenge_id"]
    assert done["split_key_a"] != done["split_key_b"]
    assert ok(http.get(API + "/lct/" + done["lct_id"]))["pairing_status"] == "active"


# -- trust

T3V3 = ("talent", "training", "temperament", "valuation", "veracity", "validity")


def test_tensor_with_scalar_only(http: httpx.Client) -> None:
    body = {**pair(http), "initial_score": 0.7}
    made = ok(http.post(API + "/trust/tensor", json=body))
    assert made["tensor_id"] == "tensor_%s_%s" % (body["component_a"], body["component_b"])
    assert (made["score"], made["status"], made["version"]) == (0.7, "active", 1)
    assert [made[name] for name in T3V3] == ["0.7"] * 3 + ["0.5"] * 3
    assert Decimal(made["t3_composite"]) == Decimal("0.7")
    path = API + "/trust/tensor/" + made["tensor_id"]
    put = ok(http.put(path + "/score", json={"creator": "alice", "score": 0.85}))
    assert (put["score"], put["version"]) == (0.85, 2)
    assert isinstance(put["updated_at"], int)
    assert ok(http.get(path))["score"] == 0.85
    text = failed(http.post(API + "/trust/tensor", json=body))
    assert "exists already" in text


def test_tensor_by_dimension_and_profile(http: httpx.Client) -> None:
    values = {
        "talent": "0.9",
        "training": 0.5,
        "temperament": "0.1",
        "valuation": "1",
        "veracity": "0.4",
        "validity": "0.2",
    }
    body = {**pair(http), **values}
    made = ok(http.post(API + "/trust/tensor", json=body))
    # act: 0.3/0.4/0.3 and 0.4/0.3/0.3, by hand
    assert Decimal(made["t3_composite"]) == Decimal("0.5")
    assert Decimal(made["v3_composite"]) == Decimal("0.58")
    assert made["score"] == 0.5
    path = API + "/trust/tensor/%s" % made["tensor_id"]
    change = {"creator": "alice", "score": 0.6, "weight_profile": "web4", "talent": "0.8"}
    ok(http.put(path + "/score", json=change))
    read = ok(http.get(path))
    # web4: 0.4/0.3/0.3 and 0.3/0.35/0.35: 0.32+0.15+0.03 and 0.3+0.14+0.07
    assert Decimal(read["t3_composite"]) == Decimal("0.50")
    assert Decimal(read["v3_composite"]) == Decimal("0.51")
    assert (read["talent"], read["training"], read["score"]) == ("0.8", "0.5", 0.6)
    assert read["weight_profile"] == "web4"


@pytest.mark.parametrize("value", ['"1.1"', "-0.1", '"x"', "[]", "true", '"NaN"', "1e999"])
def test_tensor_refuses_bad_dimensions(http: httpx.Client, value: str) -> None:
    text = json.dumps(pair(http))[:-1] + ', "talent": %s}' % value
    said = failed(http.post(API + "/trust/tensor", content=text), 400)
    assert said == "talent must be a decimal between 0 and 1"


def test_tensor_refuses_bad_scores(http: httpx.Client) -> None:
    body = pair(http)
    made = ok(http.post(API + "/trust/tensor", json=body))
    path = API + "/trust/tensor/%s/score" % made["tensor_id"]
    for score in (1.01, -0.5):
        assert "between 0 and 1" in failed(http.put(path, json={"creator": "a", "score": score}))
    zero = http.put(path, json={"creator": "alice", "score": 0})
    assert failed(zero, 400) == required("Score")
    profile = {"creator": "a", "score": 0.5, "weight_profile": "odd"}
    assert "weight_profile must be one of act, web4" in failed(http.put(path, json=profile))
    none = API + "/trust/tensor/none/score"
    assert "tensor not found" in failed(http.put(none, json={"creator": "a", "score": 1}))


# -- energy


def balance(http: httpx.Client, component: str) -> tuple[str, str]:
    reply = ok(http.get(API + "/energy/balance/" + component))
    return reply["atp_balance"], reply["adp_balance"]


def move(http: httpx.Client, body: dict[str, str], kind: str, amount: float) -> httpx.Response:
    plan = {**body, "operation_type": kind, "amount": amount}
    made = ok(http.post(API + "/energy/operation", json=plan))
    assert made["operation_id"].startswith("op_")
    assert (made["type"], made["amount"], made["status"]) == (kind, amount, "pending")
    done = {"creator": "alice", "operation_id": made["operation_id"], "amount": amount}
    return http.post(API + "/energy/transfer", json=done)


def test_energy(http: httpx.Client) -> None:
    body = pair(http)
    a, b = body["component_a"], body["component_b"]
    opening = ok(http.get(API + "/energy/balance/" + a))
    assert {**opening, "last_updated": 0} == {
        "component_id": a,
        "atp_balance": "0.000",
        "adp_balance": "1000.000",
        "total_energy": "1000.000",
        "trust_weighted_balance": "500.000",
        "last_updated": 0,
    }
    assert ok(move(http, body, "charge", 0.3))["status"] == "completed"
    assert balance(http, b) == ("0.300", "999.700")
    swapped = {**body, "component_a": b, "component_b": a}
    assert ok(move(http, swapped, "transfer", 0.1))["amount"] == 0.1
    assert (balance(http, a), balance(http, b)) == (("0.100", "1000.000"), ("0.200", "999.700"))
    ok(move(http, swapped, "balance", 0.000001))
    assert balance(http, a) == ("0.100001", "999.999999")
    assert balance(http, b) == ("0.199999", "999.700001")
    ok(move(http, body, "discharge", 0.1))
    assert balance(http, a) == ("0.000001", "1000.099999")
    text = failed(move(http, body, "discharge", 0.5))
    assert "has 0.000001 ATP, 0.500 are needed" in text
    assert balance(http, a) == ("0.000001", "1000.099999")


def test_energy_in_parts(http: httpx.Client) -> None:
    plan = {**pair(http), "operation_type": "charge", "amount": 1.5}
    name = ok(http.post(API + "/energy/operation", json=plan))["operation_id"]

    def transfer(amount: float) -> httpx.Response:
        body = {"creator": "alice", "operation_id": name, "amount": amount}
        return http.post(API + "/energy/transfer", json=body)

    assert ok(transfer(1))["status"] == "executing"
    assert "only 0.500 of the operation are left" in failed(transfer(0.6))
    assert ok(transfer(0.5))["status"] == "completed"
    assert "only 0.000 of the operation are left" in failed(transfer(0.5))


def test_energy_refusals(http: httpx.Client) -> None:
    body = {**pair(http), "operation_type": "charge", "amount": 1}

    def refused(**changes: Any) -> str:
        return failed(http.post(API + "/energy/operation", json={**body, **changes}))

    assert "operation_type must be one of charge, discharge" in refused(operation_type="odd")
    assert "above 0" in refused(amount=-1)
    assert "at most" in refused(amount=1e10)
    assert "more than 6 decimals" in refused(amount=0.0000001)
    assert "ghost is not registered" in refused(component_b="ghost")
    same = refused(component_b=body["component_a"], operation_type="transfer")
    assert "needs two different components" in same
    unknown = {"creator": "a", "operation_id": "op_0", "amount": 1}
    assert "not found" in failed(http.post(API + "/energy/transfer", json=unknown))


def test_trust_weighted_balance_uses_the_scores(http: httpx.Client) -> None:
    body = pair(http)
    ok(http.post(API + "/trust/tensor", json={**body, "initial_score": 0.7}))
    other = {**pair(http), "component_b": body["component_b"], "initial_score": 0.9}
    ok(http.post(API + "/trust/tensor", json=other))
    reply = ok(http.get(API + "/energy/balance/" + body["component_b"]))
    assert reply["trust_weighted_balance"] == "800.000"


steps = st.lists(
    st.tuples(
        st.sampled_from(["charge", "discharge", "transfer", "balance"]),
        st.integers(0, 2),
        st.integers(0, 2),
        st.integers(1, 2000 * MICRO),
    ),
    max_size=12,
)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps)
def test_energy_is_conserved(tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[str, int, int, int]]) -> None:
    """Whatever is asked, nothing is made or lost, and no account goes below zero."""
    store = Store(tmp_path_factory.mktemp("energy") / "bridge.sqlite")
    service = BridgeService(store, "bytes64", lambda: 1_700_000_000.0)
    names = [service.register("a", "x", "")["component_id"] for _ in range(3)]
    refusals: list[str] = []
    for kind, a, b, micro in moves:
        amount = Decimal(micro) / MICRO
        try:
            made = service.energy_operation("a", names[a], names[b], kind, amount, "")
            service.energy_transfer(made["operation_id"], amount)
        except ServiceError as refusal:
            refusals.append(str(refusal))
        assert service.audit_energy() == (3000 * MICRO,) * 3
        for name in names:
            reply = service.energy_balance(name)
            assert Decimal(reply["atp_balance"]) >= 0
            assert Decimal(reply["adp_balance"]) >= 0
    assert all("are needed" in text or "two different" in text for text in refusals)
    store.close()


# -- life of the server


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    bridge = EmbeddedBridge(tmp_path / "bridge.sqlite").start()
    url = bridge.url
    with httpx.Client(base_url=url, trust_env=False) as http:
        body = pair(http)
        made = ok(http.post(API + "/lct/create", json=body))
        done = ok(complete(http, initiate(http, made)))
        tensor = ok(http.post(API + "/trust/tensor", json={**body, "initial_score": 0.7}))
        ok(move(http, body, "charge", 2.5))
        paths = [
            "/components/" + body["component_a"],
            "/lct/" + done["lct_id"],
            "/trust/tensor/" + tensor["tensor_id"],
            "/energy/balance/" + body["component_b"],
        ]
        before = [ok(http.get(API + path)) for path in paths]
    bridge.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + "/health", trust_env=False)
    bridge.start()
    assert bridge.url == url
    with httpx.Client(base_url=url, trust_env=False) as http:
        assert [ok(http.get(API + path)) for path in paths] == before
    bridge.stop()
    bridge.stop()


def test_halves_do_not_survive_a_restart(tmp_path: Path) -> None:
    bridge = EmbeddedBridge(tmp_path / "bridge.sqlite").start()
    with httpx.Client(base_url=bridge.url, trust_env=False) as http:
        made = lct(http)
        challenge = initiate(http, made)
    service = bridge.service
    assert service.halves_held == 1
    bridge.stop()
    assert service.halves_held == 0
    bridge.start()
    with httpx.Client(base_url=bridge.url, trust_env=False) as http:
        text = failed(complete(http, challenge))
        assert text.startswith("Failed to complete pairing: the device half of LCT lct-")
        assert "create a new LCT and pair it" in text
        fresh = ok(http.post(API + "/lct/create", json={**challenge, "creator": "alice"}))
        done = ok(complete(http, challenge))
        assert done["lct_id"] == fresh["lct_id"]
    bridge.stop()


def test_challenge_and_halves_expire(tmp_path: Path) -> None:
    now = [1_700_000_000.0]
    with (
        EmbeddedBridge(tmp_path / "b.sqlite", clock=lambda: now[0]) as bridge,
        httpx.Client(base_url=bridge.url, trust_env=False) as http,
    ):
        made = lct(http)
        challenge = initiate(http, made)
        now[0] += 300.5
        assert "the challenge has expired" in failed(complete(http, challenge))
        assert bridge.service.halves_held == 0
        path = API + "/pairing/status/" + challenge["challenge_id"]
        assert ok(http.get(path))["status"] == "expired"
        assert "no longer held" in failed(complete(http, initiate(http, made)))


def test_two_servers_on_one_port_and_bad_arguments(bridge: EmbeddedBridge, tmp_path: Path) -> None:
    port = int(bridge.url.rsplit(":", 1)[1])
    with pytest.raises(OSError, match="choose another port"):
        EmbeddedBridge(tmp_path / "b.sqlite", port=port).start()
    with pytest.raises(ValueError, match="half_length"):
        EmbeddedBridge(tmp_path / "b.sqlite", half_length="bytes32")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="runs already"):
        bridge.start()
    with pytest.raises(RuntimeError, match="start it first"):
        _ = EmbeddedBridge(tmp_path / "b.sqlite").url


def test_schema_compiles_for_postgresql() -> None:
    """No table needs a type that only SQLite has; serial keys and exact decimals come out right."""
    dialect = create_mock_engine("postgresql://", lambda *_: None).dialect
    texts = {table.name: str(CreateTable(table).compile(dialect=dialect)) for table in Base.metadata.sorted_tables}
    assert "entry BIGSERIAL NOT NULL" in texts["energy_entries"]
    assert "attest_key BYTEA" in texts["lcts"]
    assert "atp BIGINT NOT NULL" in texts["accounts"]
    assert "talent VARCHAR(40) NOT NULL" in texts["tensors"]


def test_database_errors_do_not_show_values(tmp_path: Path) -> None:
    store = Store(tmp_path / "b.sqlite")
    secret = "f00d" * 8

    def twice(session: Session) -> None:
        session.execute(insert(Meta), [{"key": "x", "value": secret}] * 2)

    with pytest.raises(IntegrityError) as caught:
        store.transact(twice)
    store.close()
    assert secret not in str(caught.value)


def test_foreign_schema_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "b.sqlite")
    store.transact(lambda session: setattr(session.get_one(Meta, "schema"), "value", "99"))
    store.close()
    with pytest.raises(StoreError, match="schema 99"):
        EmbeddedBridge(tmp_path / "b.sqlite").start()


def test_database_file_is_private(tmp_path: Path) -> None:
    with EmbeddedBridge(tmp_path / "b.sqlite"):
        assert (tmp_path / "b.sqlite").stat().st_mode & 0o077 == 0


def test_internal_errors_tell_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "f00d" * 8

    def explode(*_: object) -> None:
        raise KeyError(secret)

    monkeypatch.setattr(BridgeService, "register", explode)
    with EmbeddedBridge(tmp_path / "b.sqlite") as bridge, caplog.at_level(logging.DEBUG):
        body = {"creator": "a", "component_data": "x"}
        reply = httpx.post(bridge.url + API + "/components/register", json=body, trust_env=False)
    assert failed(reply) == "Failed to register component: internal error, see the bridge's log"
    assert "KeyError" in caplog.text
    assert secret not in caplog.text


def test_serve_runs_until_told_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a thread here, where uvicorn leaves signals alone; stopped through its own flag."""
    servers = []
    assemble = server_module._assemble

    def remember(*args: Any) -> Any:
        servers.append(assemble(*args))
        return servers[-1]

    monkeypatch.setattr(server_module, "_assemble", remember)
    ready = threading.Event()
    urls: list[str] = []

    def on_ready(url: str) -> None:
        urls.append(url)
        ready.set()

    thread = threading.Thread(target=serve, args=(tmp_path / "b.sqlite", 0, "hex64"), kwargs={"on_ready": on_ready})
    thread.start()
    assert ready.wait(10)
    with httpx.Client(base_url=urls[0], trust_env=False) as http:
        assert len(lct(http)["lct_key_half"]) == 64
    servers[0].should_exit = True
    thread.join(10)
    assert not thread.is_alive()


def test_concurrent_writes(bridge: EmbeddedBridge) -> None:
    """Threads that register at once all get an id of their own."""
    names: list[str] = []
    start = threading.Barrier(4)

    def work() -> None:
        with httpx.Client(base_url=bridge.url, trust_env=False) as client:
            start.wait(10)
            names.extend(register(client, "crowd") for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(names) == len(set(names)) == 20
    issued, held, journal = bridge.service.audit_energy()
    assert issued == held == journal


def test_garbage_on_the_socket_does_not_stop_it(bridge: EmbeddedBridge, http: httpx.Client) -> None:
    with socket.create_connection(("127.0.0.1", int(bridge.url.rsplit(":", 1)[1])), 5) as raw:
        raw.sendall(b"\x00\xff not http at all\r\n\r\n")
        assert b"400" in raw.recv(1000)
    ok(http.get("/health"))
