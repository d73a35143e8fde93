"""The audit log of a node: its entries, their chain, and the keys that vouch for them (docs/audit.md).

Entry number i is MACed under a key k_i that exists for this entry alone: k_(i+1) is made of it, and it is destroyed.
So who captures a node finds no key for what it wrote before (forward security: Bellare and Yee, "Forward integrity for
secure audit logs", 1997; Schneier and Kelsey, "Secure audit logs to support computer forensics", 1999). The owner keeps
k of the first entry and makes all the others of it.

Both ends use this one table; a node loads it when it has something to write.
"""

from struct import pack, unpack_from

from packtrust._compat import const
from packtrust.crypto import compare_digest, hkdf_expand, hmac_sha256, sha256
from packtrust.record import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer

# Kinds of entries by number, from 1.
_KINDS = (
    "claimed package committed epoch-end aborted released reset rotated group-key sign signs-cleared counts record "
    "clear-transfer"
)
# Signs of tampering: bit n - 1 of `signs` is the n-th.
_SIGNS = "own-id forged-tag handshake store factory-state twin"
# Reasons in `counts`, from 1, the gravest first; what is not here is 255, "other".
_REASONS = (
    "tag replay own-id twin factory store-auth store-lost store-rollback store-factory group-tag handshake-mac "
    "handshake-role old stale not-owner rollback clear keys pairing unknown-session number-taken scope state "
    "entropy storage keyed unknown short unsealable handshake-malformed handshake-epoch handshake-rate "
    "handshake-version handshake-unexpected no-route full unsupported length malformed target relay stage-timeout "
    "group-replay group-unknown group-short rotation rotation-timeout epoch-used-up internal"
)
OTHER = "other"

MAC_LENGTH = const(32)
KEY_ID_LENGTH = const(8)
NONCE_LENGTH = const(16)
ENTRY_MAX = const(96)
COUNTS_MAX = const(20)  # reasons in one entry

_HEAD = ">IIIB"  # number, boot counter, uptime in s, kind
_HEAD_LENGTH = const(13)
_KEY_EVENT = ">BII8s"  # node byte of the link, epoch, package counter, key id
_SIGN = ">BBI"  # number of the sign, score, how often it was seen
_COUNTS = ">III"  # s since the last such entry, records sealed, records opened
_COUNTS_LENGTH = const(12)
_COUNT = ">BH"
_COUNT_LENGTH = const(3)
_RECORD = ">BIII"  # 0 opened, 1 sealed; clear arbitration ID; counter, upper and lower half

_START = b"packtrust v1 audit"
_KEY_ID = b"packtrust v1 key id"


def first_key(receipt_key: "Buffer") -> bytearray:
    """The key of the first entry under an owner, of the receipt key of the package that claims the node."""
    return bytearray(hkdf_expand(receipt_key, _START, MAC_LENGTH))


def next_key(key: "Buffer") -> bytearray:
    """The key of the entry after the one `key` is for."""
    return bytearray(hmac_sha256(key, b"next"))


def key_id(key: "Buffer") -> bytes:
    """What stands for a key in an entry: 8 bytes that say nothing about it but whether it is the same."""
    return sha256(_KEY_ID + bytes(key))[:KEY_ID_LENGTH]


def link(chain: "Buffer", entry: "Buffer") -> bytes:
    """The chain after an entry; 32 zero bytes are before the first of a node's life."""
    return sha256(_START + bytes(chain) + bytes(entry))


def entry_mac(key: "Buffer", chain: "Buffer") -> bytes:
    """The MAC of the entry that made `chain`, under its own key."""
    return hmac_sha256(key, b"entry", chain)


def report_mac(key: "Buffer", nonce: "Buffer", part: "Buffer") -> bytes:
    """The MAC of a part of the log on its way to the owner, under the key of the next entry: so its end is the end."""
    return hmac_sha256(key, b"report", nonce, part)


def names(table: str) -> "list[str]":
    """The names in a table of this module, in order: made when asked for, they take 2 KB."""
    return table.split(" ")


def kinds() -> "list[str]":
    """Kinds of entries; the first has number 1."""
    return names(_KINDS)


def reasons() -> "list[str]":
    """Reasons in `counts`; the first has number 1."""
    return names(_REASONS)


def signs_of_tampering() -> "list[str]":
    """The signs; the first has number 1, and bit 0 in `signs`."""
    return names(_SIGNS)


# -- entries -----------------------------------------------------------------------------------------------------------


def encode_entry(number: int, boot_counter: int, uptime_s: int, kind: str, body: "Buffer") -> bytes:
    """An entry; `kind` is one of `kinds()`."""
    return pack(_HEAD, number, boot_counter, uptime_s, kinds().index(kind) + 1) + bytes(body)


def key_event(node: int, epoch: int, counter: int, key: "Buffer" = b"") -> bytes:
    """Body of what happens to keys. `counter` is the package's; `key` is named by its id."""
    return pack(_KEY_EVENT, node, epoch, counter, key_id(key) if key else bytes(KEY_ID_LENGTH))


def sign_body(sign: int, score: int, count: int) -> bytes:
    """Body of a `sign`: its number, the score then, how often it was seen."""
    return pack(_SIGN, sign, score, count)


def signs_body(signs: int) -> bytes:
    """Body of `signs-cleared`: which there were."""
    return pack(">H", signs)


def counts_body(seconds: int, sealed: int, opened: int, refused: "list[tuple[str, int]]") -> bytes:
    """Body of `counts`: what an interval brought, `refused` as (reason, how often)."""
    known = reasons()
    by_number = {}  # type: dict[int, int]
    for reason, count in refused:
        number = known.index(reason) + 1 if reason in known else 255
        by_number[number] = by_number.get(number, 0) + count
    out = bytearray(pack(_COUNTS, seconds, sealed & 0xFFFFFFFF, opened & 0xFFFFFFFF))
    # The gravest first: whatever a flood adds, a single forged tag is not pushed out of sight.
    for number in sorted(by_number)[:COUNTS_MAX]:
        out.extend(pack(_COUNT, number, min(by_number[number], 0xFFFF)))
    return bytes(out)


def record_body(sealed: bool, arbitration_id: int, counter: int) -> bytes:
    """Body of `record`: one record by itself, where that is asked for."""
    return pack(_RECORD, 1 if sealed else 0, arbitration_id, counter >> 32, counter & 0xFFFFFFFF)


class Entry:
    """A parsed entry: `number`, `boot_counter`, `uptime_s`, `kind` (text), `values` by name, `raw`."""

    def __init__(
        self, raw: bytes, number: int, boot_counter: int, uptime_s: int, kind: str, values: "dict[str, object]"
    ) -> None:
        self.raw = raw
        self.number = number
        self.boot_counter = boot_counter
        self.uptime_s = uptime_s
        self.kind = kind
        self.values = values


def parse_entry(raw: "Buffer") -> "Entry | None":
    """The Entry in these bytes, None if they are none. One of a kind that is not known has `values` {"body": hex}."""
    if not _HEAD_LENGTH <= len(raw) <= ENTRY_MAX:
        return None
    number, boot_counter, uptime_s, kind = unpack_from(_HEAD, raw, 0)
    body = bytes(raw[_HEAD_LENGTH:])
    known = kinds()
    name = known[kind - 1] if 1 <= kind <= len(known) else "kind-%d" % kind
    values = _values(name, body)
    return None if values is None else Entry(bytes(raw), number, boot_counter, uptime_s, name, values)


def _values(kind: str, body: bytes) -> "dict[str, object] | None":
    if kind == "sign":
        if len(body) != 6:
            return None
        sign, score, count = unpack_from(_SIGN, body, 0)
        return {"sign": sign_name(sign), "score": score, "count": count}
    if kind == "signs-cleared":
        return {"signs": sign_names(body[0] << 8 | body[1])} if len(body) == 2 else None
    if kind == "counts":
        if len(body) < _COUNTS_LENGTH or (len(body) - _COUNTS_LENGTH) % _COUNT_LENGTH:
            return None
        seconds, sealed, opened = unpack_from(_COUNTS, body, 0)
        known = reasons()
        refused = {}  # type: dict[str, int]
        for at in range(_COUNTS_LENGTH, len(body), _COUNT_LENGTH):
            reason, count = unpack_from(_COUNT, body, at)
            name = known[reason - 1] if 1 <= reason <= len(known) else OTHER
            refused[name] = refused.get(name, 0) + count
        return {"seconds": seconds, "sealed": sealed, "opened": opened, "refused": refused}
    if kind == "record":
        if len(body) != 13:
            return None
        sealed, arbitration_id, high, low = unpack_from(_RECORD, body, 0)
        return {"sealed": sealed == 1, "arbitration_id": arbitration_id, "counter": high << 32 | low}
    if kind.startswith("kind-"):
        return {"body": "".join(["%02x" % byte for byte in body])}
    if len(body) != 17:
        return None
    node, epoch, counter, key = unpack_from(_KEY_EVENT, body, 0)
    shown = "".join(["%02x" % byte for byte in key]) if any(key) else ""
    return {"node": node, "epoch": epoch, "counter": counter, "key_id": shown}


def sign_name(number: int) -> str:
    """Name of a sign, by its number from 1."""
    known = signs_of_tampering()
    return known[number - 1] if 1 <= number <= len(known) else "sign-%d" % number


def sign_names(signs: int) -> "list[str]":
    """Names of the signs whose bits are set."""
    return [sign_name(number) for number in range(1, 17) if signs >> (number - 1) & 1]


# -- a part of the log on its way (AUDIT_PART) -------------------------------------------------------------------------

_PART = (
    ">BIIIHBB"  # version, number of the owner's first entry, of the next one, of the first here; signs, score, count
)
_PART_LENGTH = const(17)


class Part:
    """Consecutive entries of a node, and where its log ends.

    start      number of the first entry under this owner, whose key is `first_key`'s
    following  number the next entry will have
    first      number of the first entry here;  signs, score  the node's at present
    before     the chain before the first entry here (32 bytes);  chain  the chain at the end of the whole log
    entries    [(entry, MAC)] as bytes
    """

    def __init__(
        self,
        start: int,
        following: int,
        first: int,
        signs: int,
        score: int,
        before: bytes,
        chain: bytes,
        entries: "list[tuple[bytes, bytes]]",
    ) -> None:
        self.start = start
        self.following = following
        self.first = first
        self.signs = signs
        self.score = score
        self.before = before
        self.chain = chain
        self.entries = entries

    def encode(self, key: "Buffer", nonce: bytes) -> bytes:
        """Body of AUDIT_PART; `key` is that of the next entry."""
        out = bytearray(
            pack(
                _PART,
                VERSION,
                self.start,
                self.following,
                self.first,
                self.signs,
                self.score,
                len(self.entries),
            )
        )
        out.extend(self.before)
        out.extend(self.chain)
        for entry, mac in self.entries:
            out.append(len(entry))
            out.extend(entry)
            out.extend(mac)
        out.extend(report_mac(key, nonce, out))
        return bytes(out)


def parse_part(body: "Buffer") -> "Part | None":
    """The Part in the body of AUDIT_PART, None if it is malformed. Its MACs are not checked here."""
    if len(body) < _PART_LENGTH + 3 * MAC_LENGTH or body[0] != VERSION:
        return None
    _, start, following, first, signs, score, count = unpack_from(_PART, body, 0)
    at = _PART_LENGTH + 64
    end = len(body) - MAC_LENGTH
    entries = []
    for _ in range(count):
        if at >= end or at + 1 + body[at] + MAC_LENGTH > end:
            return None
        stop = at + 1 + body[at]
        entries.append((bytes(body[at + 1 : stop]), bytes(body[stop : stop + MAC_LENGTH])))
        at = stop + MAC_LENGTH
    if at != end:
        return None
    before = bytes(body[_PART_LENGTH : _PART_LENGTH + 32])
    chain = bytes(body[_PART_LENGTH + 32 : _PART_LENGTH + 64])
    return Part(start, following, first, signs, score, before, chain, entries)


def is_reported(body: "Buffer", key: "Buffer", nonce: bytes) -> bool:
    """Whether an AUDIT_PART was made for this nonce by who holds the key of its next entry."""
    content = bytes(body[:-MAC_LENGTH])
    return compare_digest(bytes(body[-MAC_LENGTH:]), report_mac(key, nonce, content))
