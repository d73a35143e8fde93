"""An owner that reads a node's audit log, and checks it as docs/audit.md says; portable, for nodebench.App."""

from packtrust import audit, provision


class Untrue(Exception):
    """The log does not verify: what is wrong."""


def ask(app, target, identity, first, nonce=bytes(16)):
    """Body of AUDIT_PART from entry `first` on; asserts that the node answers."""
    key = owner_key(app, identity)
    content = bytes((first >> 24, first >> 16 & 255, first >> 8 & 255, first & 255)) + nonce
    message = app.ask(target, provision.AUDIT, provision.with_mac(key, provision.AUDIT, content))
    assert message.kind == provision.AUDIT_PART, (message.kind, message.body)
    return message.body


def owner_key(app, identity):
    from packtrust.keys import fingerprint

    return provision.owner_key(app.private, identity.public_key, fingerprint(identity.public_key), app.fingerprint)


def collect(app, target, key, first=0):
    """(entries, Part) of a whole log, verified with the key of its first entry. Raises Untrue."""
    identity = app.identify(target)
    entries = []
    number = first
    chain = None
    while True:
        body = ask(app, target, identity, number)
        part = audit.parse_part(body)
        if part is None:
            raise Untrue("malformed")
        if not audit.is_reported(body, key_of(key, part.following - part.start), bytes(16)):
            raise Untrue("report")
        if chain is None:
            chain = part.before
            number = part.first
        found, chain = verify(part, key, number, chain)
        entries += found
        number += len(found)
        if number == part.following:
            if chain != part.chain:
                raise Untrue("chain end")
            return entries, part


def key_of(first_key, steps):
    key = first_key
    for _ in range(steps):
        key = audit.next_key(key)
    return key


def verify(part, first_key, number, chain):
    """(entries, chain after them) of one part that must go on at `number` with `chain`."""
    if part.first != number or part.before != chain:
        raise Untrue("gap at %d" % number)
    if not part.entries and number != part.following:
        raise Untrue("no entries")
    key = key_of(first_key, number - part.start)
    found = []
    for raw, mac in part.entries:
        entry = audit.parse_entry(raw)
        if entry is None or entry.number != number:
            raise Untrue("entry %d" % number)
        chain = audit.link(chain, raw)
        if mac != audit.entry_mac(key, chain):
            raise Untrue("MAC of entry %d" % number)
        key = audit.next_key(key)
        number += 1
        found.append(entry)
    return found, chain
