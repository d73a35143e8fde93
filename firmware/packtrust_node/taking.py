"""Takes a package, up to its pair exchange: everything about PACKAGE and CLEAR but what is written.

Loaded on demand, and gone again, with the code for packages, before anything is written: there is no room for both and
for the audit log.
"""

from packtrust import package as packages
from packtrust import provision
from packtrust.crypto import sha256, wipe
from packtrust.errors import KeyFormatError, PackageError, PacktrustError
from packtrust.keys import fingerprint, lct_tag
from packtrust_node.endpoint import Refusal
from packtrust_node.staging import Staged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust_node.endpoint import Endpoint
    from packtrust_node.node import Node
    from packtrust_node.opening import Opened


def take(
    endpoint: "Endpoint", node: "Node", opened: "Opened | int | None", body: bytes
) -> "tuple[Staged | None, bytes, int, bytearray]":
    """(what is staged now or None for a release, public key of the owner, package counter, receipt key).

    opened   what opening.open_package has made of a PACKAGE; None: `body` is that of CLEAR

    Raises Refusal.
    """
    identity = node.identity
    if opened is None:
        opened = _clear(node, body)
    if isinstance(opened, int):
        raise Refusal(opened)
    content, package_hash, receipt_key, owner = opened
    if content.counter <= identity.counter:
        raise Refusal(provision.REFUSED_ROLLBACK)
    if isinstance(content, packages.Release):
        if not identity.claimed:
            raise Refusal(provision.REFUSED_STATE)
        return None, owner, content.counter, receipt_key
    try:
        staged = _stage(endpoint, node, content, package_hash, receipt_key)
    except Refusal:
        wipe(receipt_key)
        raise
    finally:
        content.wipe()
    return staged, owner, content.counter, receipt_key


def _clear(node: "Node", body: bytes) -> "Opened":
    """The roadmap's clear first transfer: by option, by name, once, on a node that nobody owns."""
    identity = node.identity
    if not node.config.get("clear_first_transfer") or identity.claimed or identity.clear_used:
        raise Refusal(provision.REFUSED_STATE)
    owner = body[: packages.PUBLIC_KEY_LENGTH]
    plaintext = body[packages.PUBLIC_KEY_LENGTH :]
    try:
        content = packages.decode(plaintext)
    except KeyFormatError:
        raise Refusal(provision.REFUSED_KEYS)
    except PackageError:
        raise Refusal(provision.REFUSED_UNKNOWN)
    receipt_key = packages.clear_receipt_key(plaintext, fingerprint(owner), identity.fingerprint)
    return content, sha256(plaintext), receipt_key, owner


def _stage(
    endpoint: "Endpoint", node: "Node", content: packages.KeyPackage, package_hash: bytes, receipt_key: bytearray
) -> Staged:
    reason = node.refusal_of(content)
    if reason:
        raise Refusal(reason)
    neighbour = node.neighbour(content.node)
    if neighbour is None:
        raise Refusal(provision.REFUSED_NO_ROUTE)
    if content.peer_public == node.identity.public:
        raise Refusal(provision.REFUSED_KEYS)
    known = endpoint.known(lct_tag(content.lct_id))
    if known is not None:
        if content.epoch <= known.epoch:
            raise Refusal(provision.REFUSED_ROLLBACK)
        if not known.same_ends(content):
            raise Refusal(provision.REFUSED_KEYS)
    try:
        entropy = bytearray(node.env.urandom(32))
    except PacktrustError:
        raise Refusal(provision.REFUSED_ENTROPY)
    try:
        staged = Staged(content, package_hash, receipt_key, node.identity, neighbour, entropy, node.env.now_ms())
    except PacktrustError:
        raise Refusal(provision.REFUSED_KEYS)
    finally:
        wipe(entropy)
    endpoint.add(staged)
    return staged
