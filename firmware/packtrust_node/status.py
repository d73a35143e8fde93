"""REPORT: counters and epochs of a node, for its owner (docs/wire.md, section 9); loaded when asked for."""

from packtrust import provision, report
from packtrust_node.endpoint import Refusal
from packtrust_node.relation import MAX_AGE_S_AT, MAX_RECORDS_AT
from packtrust_node.salts import salt_hash
from packtrust_node.usage import DUE, USED_UP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer
    from packtrust_node.node import Node

_NO_HASH = bytes(32)


def answer(node: "Node", key: "Buffer", body: bytes) -> bytes:
    """Body of REPORT for the body of a STATUS. Raises endpoint.Refusal."""
    asked = report.parse_request(body)
    if asked is None:
        raise Refusal(provision.REFUSED_UNKNOWN)
    nonce, first, tag = asked
    relations = list(node.relations.values())
    count = report.ENTRIES
    if tag:
        count = 1
        first = 0
        while first < len(relations) and relations[first].tag != tag:
            first += 1
    usage = node.usage
    entries = []
    for relation in relations[first : first + count]:
        made = salt_hash(node.env.store, relation.tag, relation.epoch)
        flags = report.MADE_HERE if made else 0
        if relation.previous is not None:
            flags |= report.TWO_EPOCHS
        if usage.used(relation, DUE):
            flags |= report.DUE
        if usage.used(relation, USED_UP):
            flags |= report.USED_UP
        entries.append(
            (
                relation.tag,
                relation.epoch,
                flags,
                usage.records(relation),
                relation.term(MAX_RECORDS_AT),
                usage.age_s(relation),
                relation.term(MAX_AGE_S_AT),
                made or _NO_HASH,
            )
        )
    identity = node.identity
    return report.encode(
        key, nonce, identity.fingerprint, node.boot_counter, identity.counter, len(relations), first, entries
    )
