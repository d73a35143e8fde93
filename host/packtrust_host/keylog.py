"""Key log: session keys written to a file by a host that owns them, so that its own tools can read along.

Like SSLKEYLOGFILE for TLS: made only when asked for by name (`--key-log FILE`), readable by its owner alone, a line a
direction:

    packtrust-1 <direction> <iv_base> <key> <sender>        all but the first two in hex
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from packtrust.errors import KeyFormatError
from packtrust.record import RecordCipher

KeyLog = Callable[[int, bytes, bytes, bytes], None]

_TAG = "packtrust-1"


class KeyLogWriter:
    """Appends session keys to a file of mode 0600: a Channel's `key_log`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.fchmod(self._fd, 0o600)

    def __call__(self, direction: int, key: bytes, iv_base: bytes, sender: bytes) -> None:
        os.write(self._fd, f"{_TAG} {direction} {iv_base.hex()} {key.hex()} {sender.hex()}\n".encode())

    def close(self) -> None:
        """Close the file; what is written stays."""
        os.close(self._fd)


class KeyLogReader:
    """The ciphers of a key log by IV base. Reads what was appended whenever an unknown base comes up."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._ciphers: dict[bytes, RecordCipher] = {}
        self.malformed = 0

    def __repr__(self) -> str:
        return f"<KeyLogReader {self._path} {len(self._ciphers)} keys>"

    def cipher(self, iv_base: bytes) -> RecordCipher | None:
        """The cipher of the session direction `iv_base`, None if the log has no key for it (yet)."""
        cipher = self._ciphers.get(iv_base)
        if cipher is None and self._path.exists() and self._path.stat().st_size > self._offset:
            self._read()
            cipher = self._ciphers.get(iv_base)
        return cipher

    def _read(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        end = text.rfind(b"\n") + 1  # a line still being written waits for its end
        self._offset += end
        for line in text[:end].decode("ascii", "replace").splitlines():
            words = line.split()
            try:
                tag, direction = words[0], int(words[1])
                iv_base, key, sender = (bytes.fromhex(word) for word in words[2:5])
                if tag != _TAG or len(iv_base) != 4 or len(sender) != 4:
                    raise ValueError
                self._ciphers[iv_base] = RecordCipher(key, iv_base, direction, sender)
            except (ValueError, IndexError, KeyFormatError):
                self.malformed += 1
