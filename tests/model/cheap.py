"""Cheap stand-ins for AES-GCM, HMAC, HKDF and X25519, so that an explorer can take millions of steps.

What they keep is what the protocol's logic depends on, and no more: each is a deterministic function of all its inputs
that gives another result for other inputs (they are SHA-256 over them), a tag or MAC opens for its own key, IV, AAD and
text alone, and X25519 commutes. They hide nothing: the model's adversary never computes, it has what was sent. That the
rest of the code does the same with them as with the real ones is tested (test_model.py, both in step).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any

import packtrust.crypto as real

KEY_LENGTH = 32
_PRIME = 2**255 - 19

# (key, IV, what was sealed) of every seal since the last `sealed.clear()`.
sealed: list[tuple[bytes, bytes, bytes]] = []


def _hash(*parts: Any) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def hmac_sha256(key: Any, *parts: Any) -> bytes:
    return _hash(b"mac|", key, b"|", *parts)


def hkdf_extract(salt: Any, ikm: Any) -> bytes:
    return _hash(b"extract|", salt, b"|", ikm)


def hkdf_expand(prk: Any, info: Any, length: int) -> bytes:
    if not isinstance(info, bytes | bytearray):
        info = b"".join(info)
    return hashlib.shake_128(b"".join((b"expand|", prk, b"|", info))).digest(length)


def hkdf(ikm: Any, salt: Any, info: Any, length: int) -> bytes:
    return hkdf_expand(hkdf_extract(salt, ikm), info, length)


def x25519_public(private: Any, backend: str | None = None) -> bytes:
    return x25519(private, (9).to_bytes(32, "little"))


def x25519(private: Any, public: Any, backend: str | None = None) -> bytes:
    """Multiplication instead of scalar multiplication: it commutes, and breaks nothing that does not compute."""
    product = int.from_bytes(private, "little") * int.from_bytes(public, "little") % _PRIME
    if not product:
        raise real.CryptoError("an all-zero result")
    return product.to_bytes(32, "little")


class AESGCM:
    """Text in clear, a hash for a tag."""

    backend = "cheap"

    def __init__(self, key: Any, backend: str | None = None) -> None:
        self._key = bytes(key)

    def _tag(self, iv: bytes, aad: bytes, text: bytes) -> bytes:
        return hashlib.sha256(self._key + iv + aad + text).digest()[:16]

    def seal_in_place(self, work: bytearray, n: int, aad_length: int) -> bool:
        iv, text = bytes(work[16:28]), bytes(work[28 : 28 + n])
        sealed.append((self._key, iv, bytes(work[:aad_length]) + text))
        work[28 + n : 44 + n] = self._tag(iv, bytes(work[:aad_length]), text)
        return True

    def open_in_place(self, work: bytearray, n: int, aad_length: int) -> bool:
        tag = self._tag(bytes(work[16:28]), bytes(work[:aad_length]), bytes(work[28 : 28 + n]))
        return tag == work[28 + n : 44 + n]

    def encrypt(self, nonce: Any, data: Any, aad: Any = None) -> bytes:
        sealed.append((self._key, bytes(nonce), bytes(aad or b"") + bytes(data)))
        return bytes(data) + self._tag(bytes(nonce), bytes(aad or b""), bytes(data))

    def decrypt(self, nonce: Any, data: Any, aad: Any = None) -> bytes:
        text, tag = bytes(data[:-16]), bytes(data[-16:])
        if self._tag(bytes(nonce), bytes(aad or b""), text) != tag:
            raise real.InvalidTag("not authentic")
        return text

    def wipe(self) -> None:
        """The key of a model is no secret."""


# What is loaded only when needed must not be loaded while the stand-ins are there: it would take the real ones.
_ON_DEMAND = (
    "packtrust.crypto.hpke",
    "packtrust_node.node",
    "packtrust_node.opening",
    "packtrust_node.rotation",
    "packtrust_node.status",
    "packtrust_node.taking",
)


def _core() -> list[str]:
    """What uses primitives, of all that is loaded."""
    return [
        name
        for name in sys.modules
        if name.startswith(("packtrust.", "packtrust_node."))
        and (name == "packtrust.crypto.hpke" or not name.startswith("packtrust.crypto"))
    ]


_NAMES = ("hmac_sha256", "hkdf_extract", "hkdf_expand", "hkdf", "x25519", "x25519_public", "AESGCM")


@contextlib.contextmanager
def primitives() -> Iterator[None]:
    """Core and firmware use the stand-ins, in all modules that have taken a primitive by its name."""
    for name in _ON_DEMAND:
        importlib.import_module(name)
    undo = []
    before = _core()
    own = sys.modules[__name__].__dict__
    originals = {name: getattr(real, name) for name in _NAMES}
    for module_name in before:
        module = sys.modules[module_name]
        for name in _NAMES:
            if module.__dict__.get(name) is originals[name]:
                undo.append((module, name, originals[name]))
                setattr(module, name, own[name])
    sealed.clear()
    try:
        yield
    finally:
        for module, name, value in undo:
            setattr(module, name, value)
    late = sorted(set(_core()) - set(before))
    if late:
        raise AssertionError("%s took the real primitives: name them in _ON_DEMAND" % ", ".join(late))
