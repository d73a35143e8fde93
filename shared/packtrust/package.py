"""Key packages: what an app hands to a device, and how it is sealed (docs/wire.md, section 7)."""

from struct import pack, unpack_from

from packtrust._compat import const
from packtrust.crypto import hkdf_expand, hkdf_extract, sha256, wipe, x25519_public
from packtrust.errors import PackageError
from packtrust.keys import DEFAULT_MAX_AGE_S, DEFAULT_MAX_RECORDS, HALF_LENGTH, SALT_LENGTH, check_halves
from packtrust.record import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust._typing import Buffer

MODE_AUTH = const(2)
MODE_AUTH_PSK = const(3)
MODE_CLEAR = const(0xC0)

KIND_KEYS = const(1)
KIND_RELEASE = const(2)

CLAIM_CODE_LENGTH = const(16)
PUBLIC_KEY_LENGTH = const(32)
_SEALED_MIN = const(81)  # mode, sender public key, enc, tag

ALGORITHM_AES256_GCM = const(1)
IV_DERIVED = const(1)

# What an app may command (`scope`), enforced by the pack.
SCOPE_STATE = const(1)
SCOPE_LIMITS = const(2)
SCOPE_BALANCE = const(4)
SCOPE_TIME = const(8)
SCOPE_CONFIG = const(16)
SCOPE_DIAGNOSTICS = const(32)
SCOPE_ALL = const(63)

_INFO = b"packtrust v1 package"
_RECEIPT = b"packtrust v1 receipt"
_CLEAR = b"packtrust v1 clear"

_HEAD = ">BBI"
_FIXED = ">IBBBHBBII"
_FIXED_AT = const(6)
_TEXT_MAX = const(128)
_TEXT_AT = const(217)  # 25 + 64 + 64 + 32 + 32


class KeyPackage:
    """The content of a package of kind `keys`; secrets in bytearrays, `wipe()` when done.

    counter (u32), epoch (u32), role (1 initiator, 2 responder), side (0: the recipient is component A, 1: B), node
    (node byte of the link), scope (SCOPE_* bits), max_records, max_age_s, half_a and half_b (64 bytes), salt (32),
    peer_public (32, zeros for a peer without a binding key), lct_id, component_a, component_b, lct_half (0 or 64).
    """

    def __init__(
        self,
        counter: int,
        epoch: int,
        role: int,
        side: int,
        node: int,
        half_a: "Buffer",
        half_b: "Buffer",
        salt: "Buffer",
        peer_public: "Buffer",
        lct_id: str,
        component_a: str,
        component_b: str,
        scope: int = 0,
        max_records: int = DEFAULT_MAX_RECORDS,
        max_age_s: int = DEFAULT_MAX_AGE_S,
        lct_half: "Buffer" = b"",
    ) -> None:
        self.counter = counter
        self.epoch = epoch
        self.role = role
        self.side = side
        self.node = node
        self.scope = scope
        self.max_records = max_records
        self.max_age_s = max_age_s
        self.half_a = bytearray(half_a)
        self.half_b = bytearray(half_b)
        self.salt = bytes(salt)
        self.peer_public = bytes(peer_public)
        self.lct_id = lct_id
        self.component_a = component_a
        self.component_b = component_b
        self.lct_half = bytearray(lct_half)

    def __repr__(self) -> str:
        return "<KeyPackage lct %s epoch %d counter %d>" % (self.lct_id, self.epoch, self.counter)

    def wipe(self) -> None:
        """Destroy the halves."""
        wipe(self.half_a)
        wipe(self.half_b)
        wipe(self.lct_half)

    def encode(self) -> bytearray:
        """The plaintext of the package. Raises PackageError if a field does not fit."""
        check_halves(self.half_a, self.half_b)
        if len(self.salt) != SALT_LENGTH or len(self.peer_public) != PUBLIC_KEY_LENGTH:
            raise PackageError("salt and peer public key have 32 bytes each")
        if len(self.lct_half) not in (0, HALF_LENGTH):
            raise PackageError("an LCT half has 64 bytes, not %d" % len(self.lct_half))
        out = bytearray(pack(_HEAD, VERSION, KIND_KEYS, self.counter))
        out.extend(
            pack(
                _FIXED,
                self.epoch,
                self.role,
                self.side,
                self.node,
                self.scope,
                ALGORITHM_AES256_GCM,
                IV_DERIVED,
                self.max_records,
                self.max_age_s,
            )
        )
        for part in (self.half_a, self.half_b, self.salt, self.peer_public):
            out.extend(part)
        for text in (self.lct_id, self.component_a, self.component_b):
            raw = text.encode()
            _text(raw)
            out.append(len(raw))
            out.extend(raw)
        out.append(len(self.lct_half))
        out.extend(self.lct_half)
        return out


class Release:
    """The content of a package of kind `release`: the device forgets its owner and its relationships."""

    def __init__(self, counter: int) -> None:
        self.counter = counter

    def encode(self) -> bytearray:
        """The plaintext of the package."""
        return bytearray(pack(_HEAD, VERSION, KIND_RELEASE, self.counter))


def _take(data: "Buffer", at: int) -> "tuple[bytes, int]":
    if at >= len(data) or at + 1 + data[at] > len(data):
        raise PackageError("the package ends within a field")
    return bytes(data[at + 1 : at + 1 + data[at]]), at + 1 + data[at]


def _text(raw: bytes) -> str:
    """An identifier, which is the same to who writes a package and to who reads it."""
    for character in raw:
        if not 0x20 <= character < 0x7F:
            raise PackageError("an identifier in the package is not printable ASCII")
    if not 1 <= len(raw) <= _TEXT_MAX:
        raise PackageError("an identifier in a package has 1..128 bytes, not %d" % len(raw))
    return raw.decode()


def decode(data: "Buffer") -> "KeyPackage | Release":
    """The content of a package. Raises PackageError for anything malformed, and KeyFormatError for equal halves."""
    if len(data) < _FIXED_AT:
        raise PackageError("the package is too short")
    version, kind, counter = unpack_from(_HEAD, data, 0)
    if version != VERSION:
        raise PackageError("package version %d: this node knows version %d" % (version, VERSION))
    if kind == KIND_RELEASE and len(data) == _FIXED_AT:
        return Release(counter)
    if kind != KIND_KEYS:
        raise PackageError("unknown kind of package: %d" % kind)
    if len(data) < _TEXT_AT:
        raise PackageError("the package is too short")
    epoch, role, side, node, scope, algorithm, iv_source, max_records, max_age_s = unpack_from(_FIXED, data, _FIXED_AT)
    at = _FIXED_AT + 19
    if algorithm != ALGORITHM_AES256_GCM or iv_source != IV_DERIVED:
        raise PackageError("algorithm %d with IV source %d: this node knows only 1 and 1" % (algorithm, iv_source))
    if role not in (1, 2) or side not in (0, 1):
        raise PackageError("role %d and side %d: roles are 1 and 2, sides 0 and 1" % (role, side))
    half_a = data[at : at + 64]
    half_b = data[at + 64 : at + 128]
    salt = data[at + 128 : at + 160]
    peer_public = data[at + 160 : at + 192]
    at += 192
    lct_id, at = _take(data, at)
    component_a, at = _take(data, at)
    component_b, at = _take(data, at)
    lct_half, at = _take(data, at)
    if at != len(data) or len(lct_half) not in (0, HALF_LENGTH):
        raise PackageError("the package has a wrong length")
    check_halves(half_a, half_b)
    return KeyPackage(
        counter,
        epoch,
        role,
        side,
        node,
        half_a,
        half_b,
        salt,
        peer_public,
        _text(lct_id),
        _text(component_a),
        _text(component_b),
        scope,
        max_records,
        max_age_s,
        lct_half,
    )


def _aad(mode: int, device_fingerprint: "Buffer") -> bytes:
    return bytes((VERSION, mode)) + bytes(device_fingerprint)


def seal(
    content: "KeyPackage | Release",
    device_public: "Buffer",
    owner_private: "Buffer",
    entropy: "Buffer",
    claim_code: "Buffer" = b"",
) -> "tuple[bytes, bytes, bytearray]":
    """Seal a package for a device: (body of the PACKAGE message, package hash, receipt key).

    With a claim code (16 bytes) the mode is AuthPSK, without it Auth. `entropy`: 32 fresh random bytes.
    """
    mode = MODE_AUTH_PSK if claim_code else MODE_AUTH
    device_fingerprint = sha256(device_public)
    plaintext = content.encode()
    psk_id = device_fingerprint if claim_code else b""
    from packtrust.crypto import hpke

    enc, ciphertext, context = hpke.seal(
        device_public,
        _INFO,
        _aad(mode, device_fingerprint),
        plaintext,
        entropy=entropy,
        psk=claim_code,
        psk_id=psk_id,
        sk_s=owner_private,
    )
    wipe(plaintext)
    receipt_key = bytearray(context.export(_RECEIPT, 32))
    context.wipe()
    body = bytes((mode,)) + x25519_public(owner_private) + enc + ciphertext
    return body, sha256(enc + ciphertext), receipt_key


def sender_of(body: "Buffer") -> bytes:
    """The sender's public key a PACKAGE message names (b"" if it is too short)."""
    return bytes(body[1 : 1 + PUBLIC_KEY_LENGTH]) if len(body) >= _SEALED_MIN else b""


def open_sealed(
    body: "Buffer",
    device_private: "Buffer",
    device_fingerprint: "Buffer",
    claim_code: "Buffer" = b"",
    device_public: "Buffer" = b"",
) -> "tuple[KeyPackage | Release, bytes, bytearray]":
    """Open the body of a PACKAGE message: (content, package hash, receipt key).

    Who knows the public key of `device_private` gives it: that saves a third of the time.

    It proves that `sender_of(body)` sealed it; whether that is the owner is the caller's question.
    Raises CryptoError or PackageError; nothing of a package that does not open is used.
    """
    if len(body) < _SEALED_MIN:
        raise PackageError("the PACKAGE message is too short")
    mode = body[0]
    if mode != (MODE_AUTH_PSK if claim_code else MODE_AUTH):
        raise PackageError("package mode %d is not the one this device expects now" % mode)
    sealed = memoryview(body)[33:]  # no copy: a small heap has little in one piece
    enc = bytes(sealed[:32])
    from packtrust.crypto import hpke  # a board has it only while it opens one

    plaintext, context = hpke.open(
        enc,
        device_private,
        _INFO,
        _aad(mode, device_fingerprint),
        sealed[32:],
        psk=claim_code,
        psk_id=device_fingerprint if claim_code else b"",
        pk_s=bytes(body[1:33]),
        pk_r=device_public,
    )
    receipt_key = bytearray(context.export(_RECEIPT, 32))
    context.wipe()
    return decode(plaintext), sha256(sealed), receipt_key


def clear_receipt_key(plaintext: "Buffer", owner_fingerprint: "Buffer", device_fingerprint: "Buffer") -> bytearray:
    """Receipt key of a clear first transfer: it proves integrity to nobody who listened, and says so by its name."""
    return bytearray(
        hkdf_expand(hkdf_extract(_CLEAR, plaintext), bytes(owner_fingerprint) + bytes(device_fingerprint), 32)
    )
