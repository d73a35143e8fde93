"""The API-Bridge: a client for it, and an embedded one for loopback.

`client.BridgeClient` speaks to any bridge with today's routes; `server.EmbeddedBridge` is one, over
a database of its own, that does what those routes promise. Shapes of replies are in `models`, the
errors of the client in `errors`, key halves in `halves`, and the switches that make the embedded
bridge fail on request in `faults`. The embedded one is not imported here: most runs need only the
client.
"""

from packtrust_host.bridge.client import BridgeClient
from packtrust_host.bridge.errors import (
    BadKeyMaterial,
    BridgeError,
    BridgeFailed,
    BridgeRateLimited,
    BridgeRefused,
    BridgeUnknownOutcome,
    BridgeUnreachable,
)
from packtrust_host.bridge.halves import HalfRegistry, attest_key, parse_half

__all__ = [
    "BadKeyMaterial",
    "BridgeClient",
    "BridgeError",
    "BridgeFailed",
    "BridgeRateLimited",
    "BridgeRefused",
    "BridgeUnknownOutcome",
    "BridgeUnreachable",
    "HalfRegistry",
    "attest_key",
    "parse_half",
]
