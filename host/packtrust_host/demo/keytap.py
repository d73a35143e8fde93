"""What the host's own key derivation had in hands, for the search of the logs.

Like the key tap of the virtual boards (boards/unix/boot.py): put below `packtrust.crypto` for as long as a demo runs.
Keys stay in memory; nothing here prints or writes one, except to a key log that the user asked for by name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from packtrust import crypto
from packtrust._typing import Buffer
from packtrust.crypto.host import HostBackend

# (direction, key, iv_base, sender) of a session direction, as `Channel` gives them to its key log.
OnSession = Callable[[int, bytes, bytes, bytes], None]

_RECORD_INFO = b"packtrust v1 record\x00"
_KEY_LENGTH = 32
_MATERIAL_LENGTH = 36
# The context ends with two fingerprints and the epoch, the info with the direction (docs/wire.md, section 4).
_FINGERPRINTS_AT = -(32 + 32 + 4 + 1)


class HostTap:
    """Collects every key that goes into or comes out of key derivation in this process; a context manager.

    `keys`: hex -> as what ("app okm", ...), as the boards' tap gives them. What a MAC gives is no key: it goes over the
    bus.
    """

    def __init__(self, name: str = "app", on_session: OnSession | None = None) -> None:
        self.keys: dict[str, set[str]] = {}
        self._name = name
        self._on_session = on_session
        self._lock = threading.Lock()
        self._originals: list[tuple[Any, str, Any]] = []

    def _note(self, kind: str, secret: Buffer) -> None:
        if len(secret):
            with self._lock:
                self.keys.setdefault(bytes(secret).hex(), set()).add("%s %s" % (self._name, kind))

    def _session(self, info: bytes, material: bytes) -> None:
        if self._on_session is None or not info.startswith(_RECORD_INFO) or len(material) != _MATERIAL_LENGTH:
            return
        # The initiator is component A in every relationship this host has keys for (app and pack).
        direction = info[-1]
        at = _FINGERPRINTS_AT + 32 * direction
        self._on_session(direction, material[:_KEY_LENGTH], material[_KEY_LENGTH:], info[at : at + 4])

    def __enter__(self) -> HostTap:
        note, session = self._note, self._session
        init = crypto.AESGCM.__init__
        hmac, expand, multiply = HostBackend.hmac, HostBackend.expand, HostBackend.multiply

        def tapped_init(aead: Any, key: Buffer, backend: str | None = None) -> None:
            note("aes", key)
            init(aead, key, backend)

        def tapped_hmac(backend: HostBackend, key: Buffer, parts: Sequence[Buffer]) -> bytes:
            note("mac", key)
            return hmac(backend, key, parts)

        def tapped_expand(backend: HostBackend, prk: Buffer, info: Sequence[Buffer], length: int) -> bytes:
            output = expand(backend, prk, info, length)
            note("prk", prk)
            note("okm", output)
            session(b"".join(bytes(part) for part in info), output)
            return output

        def tapped_multiply(backend: HostBackend, scalar: Buffer, point: Buffer) -> bytes:
            output = multiply(backend, scalar, point)
            note("private", scalar)
            if point[0] != 9 or any(point[1:]):  # times the base point it is a public key
                note("shared", output)
            return output

        for owner, name, replacement in (
            (crypto.AESGCM, "__init__", tapped_init),
            (HostBackend, "hmac", tapped_hmac),
            (HostBackend, "expand", tapped_expand),
            (HostBackend, "multiply", tapped_multiply),
        ):
            self._originals.append((owner, name, getattr(owner, name)))
            setattr(owner, name, replacement)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._originals:
            owner, name, original = self._originals.pop()
            setattr(owner, name, original)
