"""Messages between app and device: framing, types, proofs (docs/wire.md, section 7). Both ends use this one table."""

from struct import pack, pack_into, unpack_from

from packtrust._compat import const
from packtrust.crypto import compare_digest, hkdf_expand, hkdf_extract, hmac_sha256, x25519
from packtrust.record import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from packtrust._typing import Buffer

IDENTIFY = const(0x01)
IDENTITY = const(0x02)
PACKAGE = const(0x03)
RECEIPT = const(0x04)
PAIRED = const(0x05)
COMMIT = const(0x06)
COMMITTED = const(0x07)
ABORT = const(0x08)
ABORTED = const(0x09)
PROVE = const(0x0A)
PROOF = const(0x0B)
LIST = const(0x0C)
MODULES = const(0x0D)
ATTEST = const(0x0E)
ATTESTATION = const(0x0F)
CLEAR = const(0x10)
PAIR = const(0x11)
STATUS = const(0x12)
REPORT = const(0x13)
AUDIT = const(0x20)
AUDIT_PART = const(0x21)
CLEAR_SIGNS = const(0x22)
SIGNS_CLEARED = const(0x23)
REFUSED = const(0x7F)

ROLE_PACK = const(1)
ROLE_MODULE = const(2)

FLAG_CLAIMED = const(1)
FLAG_KEYED = const(2)

MAC_LENGTH = const(32)
NONCE_LENGTH = const(16)

# Reasons of REFUSED.
REFUSED_UNKNOWN = const(1)  # unknown type, malformed body
REFUSED_NOT_OWNER = const(2)  # the package does not open: wrong claim code, or another app owns the device
REFUSED_ROLLBACK = const(3)  # counter or epoch not above the last one
REFUSED_KEYS = const(4)  # halves, peer or relationship not acceptable
REFUSED_STATE = const(5)  # nothing staged, exchange not finished
REFUSED_NO_ROUTE = const(6)  # the pack knows no such module
REFUSED_FULL = const(7)  # no room for another relationship
REFUSED_ENTROPY = const(8)  # the node has no entropy source
REFUSED_KEYED = const(9)  # the service is closed on a keyed node
REFUSED_STORAGE = const(10)  # the node cannot use its stored identity

REASONS = {
    REFUSED_UNKNOWN: "malformed or unknown message",
    REFUSED_NOT_OWNER: "package does not open: wrong claim code, or another app owns the device",
    REFUSED_ROLLBACK: "counter or epoch is not above the last one taken",
    REFUSED_KEYS: "key halves, peer or relationship not acceptable",
    REFUSED_STATE: "nothing staged or pair exchange not finished",
    REFUSED_NO_ROUTE: "the pack knows no such module",
    REFUSED_FULL: "no room for another relationship",
    REFUSED_ENTROPY: "no entropy source",
    REFUSED_KEYED: "refused on a keyed node",
    REFUSED_STORAGE: "the stored identity cannot be used",
}

HEAD = const(4)


def frame_message(kind: int, target: int, sequence: int, body: "Buffer" = b"") -> bytes:
    """A message as an ISO-TP payload."""
    return bytes((VERSION, kind, target, sequence)) + bytes(body)


def address(message: bytearray, kind: int, target: int, sequence: int) -> bytearray:
    """The same message, its first HEAD bytes written: of the long ones there is one copy in a small board's heap."""
    pack_into("BBBB", message, 0, VERSION, kind, target, sequence)
    return message


class Message:
    """A parsed message: `kind`, `target` (node byte of the device), `sequence`, `body`."""

    __slots__ = ("body", "kind", "sequence", "target")

    def __init__(self, kind: int, target: int, sequence: int, body: bytes) -> None:
        self.kind = kind
        self.target = target
        self.sequence = sequence
        self.body = body


def parse(payload: "Buffer") -> "Message | None":
    """The message in an ISO-TP payload, None if it is none of this version."""
    if len(payload) < HEAD or payload[0] != VERSION:
        return None
    return Message(payload[1], payload[2], payload[3], bytes(payload[HEAD:]))


# -- MACed bodies ------------------------------------------------------------------------------------------------------


def with_mac(key: "Buffer", kind: int, body: bytes, nonce: bytes = b"") -> bytes:
    """`body || MAC(key, kind || nonce || body)`."""
    return body + hmac_sha256(key, bytes((kind,)), nonce, body)


def proof(
    fingerprint: bytes, nonce: bytes, count: int, entries: "Iterable[tuple[int | bytes, ...]]", key: "Buffer"
) -> "list[bytearray]":
    """PROOF: `count` PROOF_ENTRYs of the node with this fingerprint, MACed. In pieces, as `attestation`."""
    first = bytearray(HEAD + len(fingerprint) + 1)
    first[HEAD:-1] = fingerprint
    pieces = _with_entries(first, PROOF_ENTRY, count, entries)
    mac = hmac_sha256(key, bytes((PROOF,)), nonce, memoryview(first)[HEAD:], *pieces[1:])
    pieces.append(bytearray(mac))
    return pieces


def check_mac(key: "Buffer", kind: int, body: "Buffer", nonce: bytes = b"") -> "bytes | None":
    """The body without its MAC, None if the MAC does not verify."""
    if len(body) < MAC_LENGTH:
        return None
    content = bytes(body[:-MAC_LENGTH])
    if not compare_digest(bytes(body[-MAC_LENGTH:]), hmac_sha256(key, bytes((kind,)), nonce, content)):
        return None
    return content


def receipt_body(tag: bytes, epoch: int, counter: int, package_hash: bytes) -> bytes:
    """Content of RECEIPT."""
    return tag + pack(">II", epoch, counter) + package_hash


def epoch_body(tag: bytes, epoch: int, peer_fingerprint: bytes = b"") -> bytes:
    """Content of PAIRED (with the peer's fingerprint), COMMIT, COMMITTED, ABORT, ABORTED, PAIR."""
    return tag + pack(">I", epoch) + peer_fingerprint


def parse_epoch_body(body: "Buffer") -> "tuple[bytes, int] | None":
    """(lct_tag, epoch) at the start of a content."""
    if len(body) < 12:
        return None
    return bytes(body[:8]), int(unpack_from(">I", body, 8)[0])


def owner_key(private: "Buffer", peer_public: "Buffer", device_fingerprint: bytes, owner_fingerprint: bytes) -> bytes:
    """The key of PROOF and MAC_owner, from either end's private key. Raises CryptoError for a bad public key."""
    secret = x25519(private, peer_public)
    return hkdf_expand(hkdf_extract(b"packtrust v1 owner", secret), device_fingerprint + owner_fingerprint, 32)


def attest_key(lct_half: "Buffer") -> bytes:
    """The key of MAC_lct."""
    return hkdf_expand(lct_half, b"packtrust v1 attest", 32)


# -- IDENTITY ----------------------------------------------------------------------------------------------------------

_IDENTITY = ">BBI32s32sII"
_IDENTITY_LENGTH = const(78)


class Identity:
    """What a device says of itself: not a proof, see PROVE."""

    def __init__(
        self,
        role: int,
        flags: int,
        unique_id: int,
        public_key: bytes,
        owner_fingerprint: bytes,
        counter: int,
        boot_counter: int,
        serial: str,
        profile: str,
    ) -> None:
        self.role = role
        self.flags = flags
        self.unique_id = unique_id
        self.public_key = public_key
        self.owner_fingerprint = owner_fingerprint
        self.counter = counter
        self.boot_counter = boot_counter
        self.serial = serial
        self.profile = profile

    def encode(self) -> bytes:
        """Body of IDENTITY."""
        out = pack(
            _IDENTITY,
            self.role,
            self.flags,
            self.unique_id,
            self.public_key,
            self.owner_fingerprint,
            self.counter,
            self.boot_counter,
        )
        for text in (self.serial, self.profile):
            raw = text.encode()
            out += bytes((len(raw),)) + raw
        return out


def parse_identity(body: "Buffer") -> "Identity | None":
    """The Identity in a body, None if it is malformed."""
    if len(body) < _IDENTITY_LENGTH + 2:
        return None
    texts = []
    at = _IDENTITY_LENGTH
    for _ in range(2):
        if at >= len(body) or at + 1 + body[at] > len(body):
            return None
        raw = bytes(body[at + 1 : at + 1 + body[at]])
        for character in raw:
            if not 0x20 <= character < 0x7F:
                return None
        texts.append(raw.decode())
        at += 1 + len(raw)
    if at != len(body):
        return None
    role, flags, unique_id, public_key, owner, counter, boot = unpack_from(_IDENTITY, body, 0)
    return Identity(role, flags, unique_id, public_key, owner, counter, boot, texts[0], texts[1])


# -- lists of fixed entries --------------------------------------------------------------------------------------------

PROOF_ENTRY = ">8sI32s"  # lct_tag, epoch, peer fingerprint
MODULE_ENTRY = ">BIB"  # node, unique id, flags
ATTEST_ENTRY = ">BI32s8sII"  # node, unique id, fingerprint, lct_tag, epoch, seen ms ago
_PIECE = const(4)  # entries in one piece: a small board's heap may have room for all, but not in one place
_STATEMENT_LENGTH = const(49)  # of a statement before its entries: version, fingerprint, nonce

_SIZES = {PROOF_ENTRY: 44, MODULE_ENTRY: 6, ATTEST_ENTRY: 53}


def encode_entries(layout: str, entries: "list[tuple[int | bytes, ...]]") -> bytes:
    """`count (u8)` and the entries."""
    return b"".join(_with_entries(bytearray(1), layout, len(entries), entries))


def _with_entries(
    first: bytearray, layout: str, count: int, entries: "Iterable[tuple[int | bytes, ...]]"
) -> "list[bytearray]":
    """`first`, whose last byte becomes `count`, and the entries behind it, _PIECE of them to a piece."""
    size = _SIZES[layout]
    first[-1] = count
    pieces = [first]
    at = _PIECE
    for entry in entries:
        if at >= _PIECE:
            at = 0
            pieces.append(bytearray(min(_PIECE, count) * size))
        pack_into(layout, pieces[-1], at * size, *entry)
        at += 1
        count -= 1
    return pieces


def parse_entries(layout: str, body: "Buffer", at: int = 0) -> "list[tuple[int | bytes, ...]] | None":
    """The entries from `body[at:]`, None if the length is wrong."""
    size = _SIZES[layout]
    if at >= len(body) or len(body) != at + 1 + body[at] * size:
        return None
    return [unpack_from(layout, body, at + 1 + index * size) for index in range(body[at])]


class Attestation:
    """A parsed ATTESTATION: the statement as bytes, what it says, and its two MACs."""

    def __init__(
        self,
        raw: bytes,
        fingerprint: bytes,
        nonce: bytes,
        entries: "list[tuple[int | bytes, ...]]",
        mac_owner: bytes,
        mac_lct: bytes,
    ) -> None:
        self.statement = raw
        self.fingerprint = fingerprint
        self.nonce = nonce
        self.entries = entries
        self.mac_owner = mac_owner
        self.mac_lct = mac_lct


def attestation(
    fingerprint: bytes,
    nonce: bytes,
    count: int,
    entries: "Iterable[tuple[int | bytes, ...]]",
    key: "Buffer",
    lct_half: "Buffer",
) -> "list[bytearray]":
    """ATTESTATION: what a pack says of its modules, in `count` ATTEST_ENTRYs, and its two MACs. In pieces, of which the
    first one is for `address`.
    """
    begin = HEAD + 2
    first = bytearray(begin + _STATEMENT_LENGTH + 1)
    size = _STATEMENT_LENGTH + 1 + count * _SIZES[ATTEST_ENTRY]
    pack_into(">HB32s16s", first, HEAD, size, VERSION, fingerprint, nonce)
    pieces = _with_entries(first, ATTEST_ENTRY, count, entries)
    macs = bytearray(2 * MAC_LENGTH)
    statement = [memoryview(first)[begin:]]  # type: list[Buffer]
    statement.extend(pieces[1:])
    macs[:MAC_LENGTH] = hmac_sha256(key, bytes((ATTESTATION,)), nonce, *statement)
    if lct_half:
        macs[MAC_LENGTH:] = hmac_sha256(attest_key(lct_half), *statement)
    pieces.append(macs)
    return pieces


def parse_attestation(body: "Buffer", key: "Buffer", nonce: bytes) -> "Attestation | None":
    """The Attestation, None unless it is well formed, for this nonce, and MACed by the owner key."""
    if len(body) < 2:
        return None
    size = body[0] << 8 | body[1]
    if len(body) != 2 + size + 2 * MAC_LENGTH or size <= _STATEMENT_LENGTH:
        return None
    raw = bytes(body[2 : 2 + size])
    mac_owner = bytes(body[2 + size : 2 + size + MAC_LENGTH])
    if not compare_digest(mac_owner, hmac_sha256(key, bytes((ATTESTATION,)), nonce, raw)):
        return None
    entries = parse_entries(ATTEST_ENTRY, raw, _STATEMENT_LENGTH)
    if raw[0] != VERSION or raw[33:49] != nonce or entries is None:
        return None
    return Attestation(raw, raw[1:33], raw[33:49], entries, mac_owner, bytes(body[2 + size + MAC_LENGTH :]))
