"""What can go wrong between us and a bridge.

Every message has three parts: the call, the cause, the next step. Text that came from the other
side goes through `quote_remote` first, so that no key half a bridge echoes can reach a log.
"""

import re

# A run of hex of 16 bytes or more, or of base64 of 33 or more, might be key material.
_SECRET_LIKE = re.compile(r"[0-9A-Fa-f]{32,}|[A-Za-z0-9+/]{44,}={0,2}")
_REMOTE_LIMIT = 300


def quote_remote(text: str) -> str:
    """`text` of the other side as one line of at most 300 characters without long hex."""
    one_line = " ".join(_SECRET_LIKE.sub("[removed]", text).split())
    if len(one_line) > _REMOTE_LIMIT:
        return one_line[:_REMOTE_LIMIT] + "..."
    return one_line


class BridgeError(Exception):
    """Any failure of a call to a bridge.

    `call` is method and path, `cause` what was seen, `next_step` what the reader can do, `status`
    the HTTP status where there was one.
    """

    def __init__(self, call: str, cause: str, next_step: str, status: int | None = None) -> None:
        super().__init__("%s: %s. Next: %s." % (call, cause, next_step))
        self.call = call
        self.cause = cause
        self.next_step = next_step
        self.status = status


class BridgeUnreachable(BridgeError):
    """No bridge answered, and nothing was changed: the request was never taken, or only reads."""


class BridgeRefused(BridgeError):
    """The bridge (or this client, before sending) refused the request: 4xx. Nothing was changed."""


class BridgeRateLimited(BridgeRefused):
    """429: too many requests in the last minute. Nothing was changed."""


class BridgeFailed(BridgeError):
    """The bridge answered, but with a failure (5xx) or with something that is no valid reply."""


class BridgeUnknownOutcome(BridgeError):
    """A write was sent and no reply came: it may or may not have been carried out."""


class BadKeyMaterial(BridgeError):
    """What the bridge supplied as key halves must not be used as keys."""
