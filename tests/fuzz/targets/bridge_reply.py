"""What a bridge, or something else at its address, answers: any status, any body, to every call. Host only."""

import httpx

from fuzz.source import Source
from packtrust_host.bridge.client import BridgeClient
from packtrust_host.bridge.errors import BridgeError
from packtrust_host.bridge.halves import HalfRegistry

COVERS = (
    "packtrust_host.bridge.client:_Reply",
    "packtrust_host.bridge.client:BridgeClient._document",
    "packtrust_host.bridge.client:BridgeClient._judge",
    "packtrust_host.bridge.client:BridgeClient._lct_halves",
    "packtrust_host.bridge.client:BridgeClient._tensor",
    "packtrust_host.bridge.halves:parse_half",
)
HEAP_MAX = 300000
HOST_ONLY = True

_STATUSES = (200, 200, 200, 200, 204, 301, 400, 401, 403, 404, 409, 429, 500, 503)

_CALLS = (
    lambda client: client.health(),
    lambda client: client.status(),
    lambda client: client.register_component("creator", "data"),
    lambda client: client.get_component("COMP-1"),
    lambda client: client.identity("COMP-1"),
    lambda client: client.create_lct("creator", "COMP-1", "COMP-2", "context"),
    lambda client: client.get_lct("lct-1"),
    lambda client: client.set_lct_status("creator", "lct-1", "active"),
    lambda client: client.revoke_pairing("creator", "lct-1"),
    lambda client: client.pairing_status("ch-1"),
    lambda client: client.read_tensor("tensor-1"),
    lambda client: client.energy_balance("COMP-1"),
    lambda client: client.energy_transfer("creator", "op-1", 1),
)

_HALF = b"0123456789abcdef" * 8
_GOOD = (
    b'{"status":"healthy","service":"bridge","timestamp":5}',
    b'{"blockchain_status":{"mode":"real","connected":true,"rest_api_connected":true,"errors":["none"]}}',
    b'{"component_id":"COMP-1","lct_id":"lct-1","status":"registered","txhash":"00"}',
    b'{"component_id":"COMP-1","component_type":"x","relationship_ids":["a","b"]}',
    b'{"component_id":"COMP-1","verified":true,"verification":{"status":"x"}}',
    b'{"lct_id":"lct-1","device_key_half":"%s","lct_key_half":"%s","created_at":4}' % (_HALF, _HALF[::-1]),
    b'{"lct_id":"lct-1","component_a_id":"COMP-1","component_b_id":"COMP-2","created_at":1}',
    b'{"lct_id":"lct-1","status":"active"}',
    b'{"lct_id":"lct-1","status":"revoked"}',
    b'{"challenge_id":"ch-1","status":"pending","created_at":4}',
    b'{"tensor_id":"tensor-1","score":"0.5","talent":0.25,"version":2}',
    b'{"component_id":"COMP-1","atp_balance":"1","adp_balance":2,"total_energy":3.5,"trust_weighted_balance":"4"}',
    b'{"operation_id":"op-1","amount":1,"status":"ok","timestamp":1}',
)


def seeds():
    for index, body in enumerate(_GOOD):
        yield bytes((index, 0)) + body
        for status in range(len(_STATUSES)):
            yield bytes((index, status)) + body[:status]
    for status in range(len(_STATUSES)):
        yield bytes((0, status)) + b'{"error":"no such thing"}'
        yield bytes((3, status)) + b'{"error":5}'
        yield bytes((3, status)) + b"<html>"
    create = 5
    for half in (b"generated_device_key_half", _HALF[:64], _HALF[:63], b"g" * 128, b"0" * 128, b""):
        yield bytes((create, 0)) + _GOOD[create].replace(_HALF[::-1], half)
        yield bytes((create, 0)) + _GOOD[create].replace(_HALF, half)
    yield bytes((create, 0)) + _GOOD[create].replace(b'"%s"' % _HALF, b"5")
    yield bytes((create, 0)) + b'{"lct_id":"lct-1"}'
    for text in (b'"1e999999"', b'"NaN"', b'"Infinity"', b"true", b'"x"', b"[]", b"1e-999999", b"12345678901234567890"):
        yield bytes((10, 0)) + _GOOD[10].replace(b'"0.5"', text)
    yield bytes((3, 0)) + b'{"component_id":"","relationship_ids":5}'
    yield bytes((3, 0)) + b'{"component_id":"COMP-1","relationship_ids":[5]}'
    yield bytes((3, 0)) + b'{"component_id":5}'
    yield bytes((1, 0)) + b'{"blockchain_status":5}'
    yield bytes((1, 0)) + b'{"blockchain_status":{"connected":5}}'
    yield bytes((0, 0)) + b'{"status":"x","timestamp":"5"}'
    yield bytes((0, 0)) + b"[" * 3000
    yield bytes((0, 0)) + b"[]"


_answer = [200, b""]
_client = BridgeClient("http://127.0.0.1:1", wait=lambda _: None)
_client.close()
_client._http = httpx.Client(
    base_url="http://127.0.0.1:1",
    transport=httpx.MockTransport(lambda _: httpx.Response(_answer[0], content=_answer[1])),
    verify=False,
)


def take(data):
    source = Source(data)
    call = _CALLS[source.number() % len(_CALLS)]
    _answer[0] = _STATUSES[source.number() % len(_STATUSES)]
    _answer[1] = source.rest()
    _client.registry = HalfRegistry()
    try:
        call(_client)
    except BridgeError as error:
        assert str(error)
