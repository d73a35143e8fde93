"""REPORT: what a device tells its owner of its counters and epochs (docs/wire.md, section 9). Both ends use this."""

from struct import pack, unpack_from

from packtrust._compat import const
from packtrust.provision import NONCE_LENGTH, REPORT, check_mac, with_mac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer

# Flags of an entry.
MADE_HERE = const(1)  # the pair made this epoch without an app
TWO_EPOCHS = const(2)  # the epoch before is alive
DUE = const(4)  # to be replaced
USED_UP = const(8)  # nothing is sealed under it any more

ENTRIES = const(8)  # at most, in one REPORT

_TAG_LENGTH = const(8)

_HEAD = ">32sIIBBB"  # fingerprint, boot counter, package counter, count of all relationships, first, count of entries
_HEAD_LENGTH = const(43)
_ENTRY = ">8sIBIIII32s"  # lct_tag, epoch, flags, records, max_records, age_s, max_age_s, SHA-256 of the salt
_ENTRY_LENGTH = const(61)


def encode(
    key: "Buffer",
    nonce: bytes,
    fingerprint: bytes,
    boot_counter: int,
    counter: int,
    total: int,
    first: int,
    entries: "list[tuple[bytes, int, int, int, int, int, int, bytes]]",
) -> bytes:
    """Body of REPORT, under the owner key. An entry has the fields of `Entry`, in that order."""
    body = bytearray(pack(_HEAD, fingerprint, boot_counter, counter, total, first, len(entries)))
    for entry in entries:
        body.extend(pack(_ENTRY, *entry))
    return with_mac(key, REPORT, bytes(body), nonce)


class Entry:
    """One relationship in a report.

    flags (MADE_HERE, ..); records and age_s of the epoch so far and at most; salt_hash 32 bytes, zeros for an epoch of
    a package, whose salt the owner knows.
    """

    def __init__(
        self,
        tag: bytes,
        epoch: int,
        flags: int,
        records: int,
        max_records: int,
        age_s: int,
        max_age_s: int,
        salt_hash: bytes,
    ) -> None:
        self.tag = tag
        self.epoch = epoch
        self.flags = flags
        self.records = records
        self.max_records = max_records
        self.age_s = age_s
        self.max_age_s = max_age_s
        self.salt_hash = salt_hash


class Report:
    """One REPORT: counters of the device, how many relationships it has in all, those from `first` on that were asked
    for.
    """

    def __init__(
        self, fingerprint: bytes, boot_counter: int, counter: int, total: int, first: int, entries: "list[Entry]"
    ) -> None:
        self.fingerprint = fingerprint
        self.boot_counter = boot_counter
        self.counter = counter
        self.total = total
        self.first = first
        self.entries = entries


def request(nonce: bytes, first: int, tag: bytes = b"") -> bytes:
    """Body of STATUS: for the relationships from `first` on, or for the one with this `lct_tag` (8)."""
    return nonce + (tag or bytes((first,)))


def parse_request(body: "Buffer") -> "tuple[bytes, int, bytes] | None":
    """(nonce, first, tag) of a STATUS, tag empty if it asks for all from `first` on; None if it is malformed."""
    wanted = bytes(body[NONCE_LENGTH:])
    if len(wanted) == 1:
        return bytes(body[:NONCE_LENGTH]), wanted[0], b""
    if len(wanted) == _TAG_LENGTH:
        return bytes(body[:NONCE_LENGTH]), 0, wanted
    return None


def parse(key: "Buffer", nonce: bytes, body: "Buffer") -> "Report | None":
    """The Report in a body, None unless it is well formed, for this nonce, and MACed by the owner key."""
    content = check_mac(key, REPORT, body, nonce)
    if content is None or len(content) < _HEAD_LENGTH:
        return None
    fingerprint, boot_counter, counter, total, first, count = unpack_from(_HEAD, content, 0)
    if len(content) != _HEAD_LENGTH + count * _ENTRY_LENGTH:
        return None
    entries = [Entry(*unpack_from(_ENTRY, content, _HEAD_LENGTH + at * _ENTRY_LENGTH)) for at in range(count)]
    return Report(fingerprint, boot_counter, counter, total, first, entries)
