"""What on-target verification asks a node, and what the right answer is.

Inputs are published vectors and random ones from a seed; every expected answer comes from the `cryptography` library or
from the standard's own text. HPKE beyond base mode, which the library does not have, is our own on top of its
primitives (`packtrust.crypto.hpke` with backend "cryptography"), which other tests hold against RFC 9180.
"""

import functools
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from struct import pack
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from packtrust import testwire as wire
from packtrust.arbitration import ENCRYPTED, compose
from packtrust.crypto import hpke
from packtrust.messages import MESSAGES
from packtrust.policy import DEFAULT_POLICY
from packtrust.record import TAG_LENGTH, VERSION

MODES = {wire.MODE_BASE: "base", wire.MODE_PSK: "PSK", wire.MODE_AUTH: "Auth", wire.MODE_AUTH_PSK: "AuthPSK"}
HOST = "cryptography"

# The columns of the report, in order.
OPERATIONS = ("HKDF", "AES-GCM seal", "AES-GCM open", "X25519", "HPKE seal", "HPKE open", "framing")

_MAX_TEXT = 96


@dataclass(frozen=True)
class Case:
    """One request and its judge.

    operation  one of OPERATIONS; `variant` a backend or an HPKE mode, empty where there is but one.
    name       what the report calls it; holds no key bytes.
    check      (status, result) -> what is wrong, empty if nothing is.
    """

    operation: str
    variant: str
    name: str
    op: int
    arguments: tuple[bytes, ...]
    check: Callable[[int, bytes], str]


def _status(status: int) -> str:
    return wire.STATUSES.get(status, "status %d" % status)


def _equals(expected: bytes) -> Callable[[int, bytes], str]:
    def check(status: int, result: bytes) -> str:
        if status != wire.OK:
            return "refused: " + _status(status)
        if len(result) != len(expected):
            return "%d bytes, not %d" % (len(result), len(expected))
        return "" if result == expected else "differs from the right answer"

    return check


def _refuses(wanted: int) -> Callable[[int, bytes], str]:
    def check(status: int, result: bytes) -> str:
        if status == wire.OK:
            return "accepted what must be refused"
        if result:
            return "refused, and gave %d bytes of result" % len(result)
        return "" if status == wanted else "refused for the wrong reason: " + _status(status)

    return check


def _flipped(data: bytes, rng: random.Random, first: int = 0) -> bytes:
    """`data` with one bit changed, at or behind byte `first`."""
    changed = bytearray(data)
    bit = rng.randrange(8 * first, 8 * len(data))
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# -- HKDF --------------------------------------------------------------------------------------------------------------

# RFC 5869, A.1 to A.3: ikm, salt, info, length, output.
_HKDF: tuple[tuple[str, str, str, int, str], ...] = (
    (
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        42,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x50)).hex(),
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        82,
        (
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
            "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
        ),
    ),
    (
        "0b" * 22,
        "",
        "",
        42,
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
)


def _hkdf_case(name: str, ikm: bytes, salt: bytes, info: bytes, length: int, expected: bytes) -> Case:
    return Case("HKDF", "", name, wire.HKDF, (ikm, salt, info, pack(">H", length)), _equals(expected))


def hkdf_cases(count: int, rng: random.Random) -> Iterator[Case]:
    """HKDF-SHA256: RFC 5869, then random inputs against the library."""
    for number, (*texts, wanted, output) in enumerate(_HKDF, 1):
        ikm, salt, info = (bytes.fromhex(text) for text in texts)
        yield _hkdf_case("RFC 5869 A.%d" % number, ikm, salt, info, wanted, bytes.fromhex(output))
    for number in range(count):
        ikm = rng.randbytes(rng.randrange(1, 129))
        salt = rng.randbytes(rng.choice((0, 16, 32, 64, 100)))
        info = rng.randbytes(rng.randrange(_MAX_TEXT))
        length = rng.randrange(1, 257)
        expected = HKDF(hashes.SHA256(), length, salt, info).derive(ikm)
        yield _hkdf_case("random %d, %d bytes" % (number, length), ikm, salt, info, length, expected)


# -- AES-GCM -----------------------------------------------------------------------------------------------------------

# McGrew and Viega, The Galois/Counter Mode of Operation, appendix B: key, IV, AAD, plaintext, ciphertext with tag.
_GCM = {
    1: ("00" * 16, "00" * 12, "", "", "58e2fccefa7e3061367f1d57a4e7455a"),
    2: ("00" * 16, "00" * 12, "", "00" * 16, "0388dace60b6a392f328c2b971b2fe78ab6e47d42cec13bdf53a67b21257bddf"),
    13: ("00" * 32, "00" * 12, "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
    14: ("00" * 32, "00" * 12, "", "00" * 16, "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"),
    16: (
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        (
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        ),
        (
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
            "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b"
        ),
    ),
}

Sealed = tuple[str, bytes, bytes, bytes, bytes, bytes]


def _sealed(count: int, rng: random.Random) -> Iterator[Sealed]:
    for number, texts in _GCM.items():
        key, nonce, aad, text, sealed = (bytes.fromhex(part) for part in texts)
        yield "GCM test case %d" % number, key, nonce, aad, text, sealed
    for number in range(count):
        key = rng.randbytes(rng.choice((16, 32, 32)))
        nonce, aad = rng.randbytes(12), rng.randbytes(rng.randrange(_MAX_TEXT))
        text = rng.randbytes(rng.choice((0, 8, 64, rng.randrange(200))))
        yield "random %d, %d bytes" % (number, len(text)), key, nonce, aad, text, AESGCM(key).encrypt(nonce, text, aad)


def seal_cases(backend: str, count: int, rng: random.Random) -> Iterator[Case]:
    """AES-GCM encryption by one backend of the node."""
    for name, key, nonce, aad, text, sealed in _sealed(count, rng):
        arguments = (backend.encode(), key, nonce, aad, text)
        yield Case("AES-GCM seal", backend, name, wire.SEAL, arguments, _equals(sealed))


def open_cases(backend: str, count: int, rng: random.Random) -> Iterator[Case]:
    """AES-GCM decryption by one backend: what is right is opened, what was changed is refused without a result."""
    for name, key, nonce, aad, text, sealed in _sealed(count, rng):
        body = len(sealed) - TAG_LENGTH
        wrong = [("forged tag", aad, _flipped(sealed, rng, body))]
        if body:
            wrong.append(("changed ciphertext", aad, _flipped(sealed[:body], rng) + sealed[body:]))
        wrong.append(("changed associated data", aad + b"\0", sealed))
        head = (backend.encode(), key, nonce)
        yield Case("AES-GCM open", backend, name, wire.OPEN, (*head, aad, sealed), _equals(text))
        what, aad, changed = rng.choice(wrong) if name.startswith("random") else wrong[0]
        yield Case(
            "AES-GCM open", backend, name + ", " + what, wire.OPEN, (*head, aad, changed), _refuses(wire.BAD_TAG)
        )


CAVP = "CAVP"  # what the names of its cases begin with
_CAVP_CASES = 8  # a file of CAVP's
_CAVP_LENGTH = 64  # of text and associated data together, at most


@functools.cache
def _cavp() -> dict[str, Any]:
    text = resources.files("packtrust_host").joinpath("vectors", "aes_gcm.json").read_text()
    files: dict[str, Any] = json.loads(text)["files"]
    return files


def _spread(items: list[list[Any]], count: int) -> list[list[Any]]:
    """`count` of the items, from the whole length of the list."""
    return [items[at * len(items) // count] for at in range(count)]


def cavp_cases(backend: str) -> Iterator[Case]:
    """Short ones of NIST's CAVP test vectors for GCM, always the same: half of those to open must be refused."""
    for file, content in _cavp().items():
        cases: list[list[Any]] = content["cases"]
        short = [fields for fields in cases if len(fields[2]) + len(fields[3]) <= 2 * _CAVP_LENGTH]
        opens = [fields for fields in short if fields[5] is not None]
        refuses = [fields for fields in short if fields[5] is None]
        if refuses:
            sample = _spread(opens, _CAVP_CASES // 2) + _spread(refuses, _CAVP_CASES // 2)
        else:
            sample = _spread(opens, _CAVP_CASES)
        for fields in sample:
            key, nonce, aad, ciphertext, tag = (bytes.fromhex(part) for part in fields[:5])
            name = "%s %s, no. %d" % (CAVP, file.removesuffix(".rsp"), cases.index(fields))
            head = (backend.encode(), key, nonce, aad)
            if "Encrypt" in file:
                check = _equals(ciphertext + tag)
                yield Case("AES-GCM seal", backend, name, wire.SEAL, (*head, bytes.fromhex(fields[5])), check)
                continue
            check = _refuses(wire.BAD_TAG) if fields[5] is None else _equals(bytes.fromhex(fields[5]))
            yield Case("AES-GCM open", backend, name, wire.OPEN, (*head, ciphertext + tag), check)


def probe_case(backend: str) -> Case:
    """One sealing, to see whether a node has this backend."""
    return next(seal_cases(backend, 0, random.Random(0)))


# -- X25519 ------------------------------------------------------------------------------------------------------------

# RFC 7748, 5.2 (two), 6.1 (both sides): scalar, u, result.
_X25519 = (
    (
        "5.2, first",
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ),
    (
        "5.2, second",
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ),
    (
        "6.1, Alice",
        "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    ),
    (
        "6.1, Bob",
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    ),
)

# Points of small order (RFC 7748, 6.1: an all-zero result must be refused).
_SMALL_ORDER = (bytes(32), b"\x01" + bytes(31))


def x25519_cases(count: int, rng: random.Random) -> Iterator[Case]:
    """X25519: RFC 7748, random pairs against the library, and points of small order, which must be refused."""
    for name, *texts in _X25519:
        scalar, point, result = (bytes.fromhex(text) for text in texts)
        yield Case("X25519", "", "RFC 7748 " + name, wire.X25519, (scalar, point), _equals(result))
    for number, point in enumerate(_SMALL_ORDER):
        name = "small order %d" % number
        yield Case("X25519", "", name, wire.X25519, (rng.randbytes(32), point), _refuses(wire.FAILED))
    for number in range(count):
        private, peer = rng.randbytes(32), _public(rng.randbytes(32))
        expected = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(peer))
        yield Case("X25519", "", "random %d" % number, wire.X25519, (private, peer), _equals(expected))


def _public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


# -- HPKE --------------------------------------------------------------------------------------------------------------

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True)
class _Hpke:
    """Inputs of one message; base mode has no associated data, for the library takes none."""

    mode: int
    recipient: bytes
    sender: bytes
    info: bytes
    aad: bytes
    text: bytes
    psk: bytes
    psk_id: bytes
    entropy: bytes

    @property
    def byte(self) -> bytes:
        return bytes((self.mode,))

    def seal(self) -> bytes:
        """By the host; in base mode by the library alone, with an ephemeral key of its own choice."""
        if self.mode == wire.MODE_BASE:
            public = X25519PrivateKey.from_private_bytes(self.recipient).public_key()
            return _SUITE.encrypt(self.text, public, self.info)
        return self.expected()

    def expected(self) -> bytes:
        """What sealing with this entropy gives: enc and ciphertext."""
        enc, sealed, context = hpke.seal(
            _public(self.recipient),
            self.info,
            self.aad,
            self.text,
            entropy=self.entropy,
            psk=self.psk,
            psk_id=self.psk_id,
            sk_s=self.sender or None,
            backend=HOST,
        )
        context.wipe()
        return enc + sealed


def _hpke(mode: int, rng: random.Random) -> _Hpke:
    psk = bool(mode & wire.MODE_PSK)
    return _Hpke(
        mode,
        rng.randbytes(32),
        rng.randbytes(32) if mode & wire.MODE_AUTH else b"",
        rng.randbytes(rng.randrange(1, 40)),
        b"" if mode == wire.MODE_BASE else rng.randbytes(rng.randrange(40)),
        rng.randbytes(rng.choice((0, 8, 64, rng.randrange(300)))),
        rng.randbytes(32) if psk else b"",
        rng.randbytes(rng.randrange(1, 33)) if psk else b"",
        rng.randbytes(32),
    )


def _library_opens(case: _Hpke) -> Callable[[int, bytes], str]:
    """The node's message is the expected one, and the library opens it."""
    same = _equals(case.expected())

    def check(status: int, result: bytes) -> str:
        wrong = same(status, result)
        if wrong or case.mode != wire.MODE_BASE:
            return wrong
        opened = _SUITE.decrypt(result, X25519PrivateKey.from_private_bytes(case.recipient), case.info)
        return "" if opened == case.text else "the library opens it to something else"

    return check


def hpke_seal_cases(mode: int, count: int, rng: random.Random) -> Iterator[Case]:
    """HPKE SetupS and Seal in one mode."""
    for number in range(count):
        case = _hpke(mode, rng)
        arguments = (
            case.byte,
            _public(case.recipient),
            case.info,
            case.aad,
            case.text,
            case.psk,
            case.psk_id,
            case.sender,
            case.entropy,
        )
        name = "random %d, %d bytes" % (number, len(case.text))
        yield Case("HPKE seal", MODES[mode], name, wire.HPKE_SEAL, arguments, _library_opens(case))


def hpke_open_cases(mode: int, count: int, rng: random.Random) -> Iterator[Case]:
    """HPKE SetupR and Open in one mode; what was changed, or comes from another sender, is refused."""
    for number in range(count):
        case = _hpke(mode, rng)
        sealed = case.seal()
        sender = _public(case.sender) if case.sender else b""
        name = "random %d, %d bytes" % (number, len(case.text))
        wrong = [("forged tag", _flipped(sealed, rng, len(sealed) - TAG_LENGTH), case.psk, sender)]
        if case.psk:
            wrong.append(("another PSK", sealed, _flipped(case.psk, rng), sender))
        if sender:
            wrong.append(("another sender", sealed, case.psk, _public(rng.randbytes(32))))
        tries = [(name, sealed, case.psk, sender, _equals(case.text))]
        what, changed, psk, from_whom = wrong[number % len(wrong)]
        tries.append((name + ", " + what, changed, psk, from_whom, _refuses(wire.BAD_TAG)))
        for title, message, psk, from_whom, check in tries:
            arguments = (case.byte, case.recipient, case.info, case.aad, message, psk, case.psk_id, from_whom)
            yield Case("HPKE open", MODES[mode], title, wire.HPKE_OPEN, arguments, check)


# -- framing -----------------------------------------------------------------------------------------------------------

# The bases of all messages that may be sealed.
_BASES = [row.base for row in MESSAGES if DEFAULT_POLICY.is_sealable(row.base)]
_CHUNK = 8


def frames_of(
    key: bytes, iv_base: bytes, direction: int, sender: bytes, counter: int, full_id: int, text: bytes
) -> bytes:
    """A record and its frames by docs/wire.md, sections 1 to 3, with T = 0, as the result of FRAMING.

    Built from the document and the library alone.
    """
    canonical_id = full_id & ~0x1FF00
    iv = iv_base + pack(">Q", counter)
    aad = bytes((VERSION,)) + pack(">IB", canonical_id, direction) + sender + pack(">H", len(text))
    record = iv + AESGCM(key).encrypt(iv, text, aad)
    chunks = [record[at : at + _CHUNK] for at in range(0, len(record), _CHUNK)]
    out = b""
    for number, chunk in enumerate(chunks):
        out += pack(">IB", canonical_id | number << 12 | len(chunks) - 1 << 8, len(chunk)) + chunk
    return out


def framing_cases(count: int, rng: random.Random) -> Iterator[Case]:
    """A record of docs/wire.md, section 3, and its segmentation, section 2: every length class, high counters too."""
    lengths = [0, 8, 12, 36, 99, 100]
    for number in range(len(lengths) + count):
        text = rng.randbytes(lengths[number] if number < len(lengths) else rng.randrange(101))
        key, iv_base, sender = rng.randbytes(32), rng.randbytes(4), rng.randbytes(4)
        direction = number & 1
        counter = rng.choice((1, 2, 1 << 32, rng.randrange(1 << 30), rng.randrange(1 << 64)))
        full_id = compose(rng.choice(_BASES), rng.randrange(1, 32)) | ENCRYPTED
        arguments = (
            key,
            iv_base,
            bytes((direction,)),
            sender,
            pack(">Q", counter),
            pack(">I", full_id),
            text,
        )
        expected = frames_of(key, iv_base, direction, sender, counter, full_id, text)
        name = "%s, %d bytes" % ("length" if number < len(lengths) else "random %d" % number, len(text))
        yield Case("framing", "", name, wire.FRAMING, arguments, _equals(expected))


# -- all ---------------------------------------------------------------------------------------------------------------


def all_cases(backends: Iterable[str], count: int, seed: int) -> Iterator[Case]:
    """Every case for a node with these AES backends; `count` random ones an operation, backend and mode.

    A name is taken from `backends` when its cases are due. Each kind draws from its own generator: a case does not
    depend on which others are asked.
    """

    def generator(kind: str) -> random.Random:
        return random.Random("%d/%s" % (seed, kind))

    yield from hkdf_cases(count, generator("hkdf"))
    for backend in backends:
        yield from seal_cases(backend, count, generator("seal " + backend))
        yield from open_cases(backend, count, generator("open " + backend))
        yield from cavp_cases(backend)
    yield from x25519_cases(count, generator("x25519"))
    for mode in MODES:
        yield from hpke_seal_cases(mode, count, generator("hpke seal %d" % mode))
        yield from hpke_open_cases(mode, count, generator("hpke open %d" % mode))
    yield from framing_cases(count, generator("framing"))
