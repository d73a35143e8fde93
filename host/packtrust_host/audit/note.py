"""Signed checkpoints: C2SP signed-note and tlog-checkpoint, with Ed25519 (RFC 8032) signatures.

A checkpoint names the log (origin), how many entries it has, and the root hash of their Merkle tree.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_ED25519 = b"\x01"
_DASH = "\u2014 "  # em dash and a space: what a signature line begins with
_NOTE_MAX = 1 << 16


class NoteError(ValueError):
    """No signed note, or not one of the key it was checked with."""


def key_id(name: str, public: bytes) -> bytes:
    """The first 4 bytes of SHA-256(name || newline || 0x01 || public key)."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]


@dataclass(frozen=True)
class Verifier:
    """A public key and the name it signs under. `str()` gives the usual form, name+id+key."""

    name: str
    public: bytes

    def __str__(self) -> str:
        return "%s+%s+%s" % (
            self.name,
            key_id(self.name, self.public).hex(),
            base64.b64encode(_ED25519 + self.public).decode(),
        )

    @staticmethod
    def parse(text: str) -> "Verifier":
        """The Verifier in `name+id+key`. Raises NoteError."""
        parts = text.strip().split("+", 2)
        try:
            raw = base64.b64decode(parts[2], validate=True)
        except (IndexError, binascii.Error):
            raise NoteError("no verifier key: it is name+id+key") from None
        found = Verifier(parts[0], raw[1:])
        if raw[:1] != _ED25519 or len(raw) != 33 or key_id(found.name, found.public).hex() != parts[1]:
            raise NoteError("not an Ed25519 verifier key, or its id is not that of its name and key")
        return found


def sign(text: str, name: str, private: bytes) -> str:
    """The note: `text` (which ends in a newline) and a signature line. `private`: 32 bytes."""
    if not text.endswith("\n") or any(char < " " and char != "\n" for char in text):
        raise NoteError("a note's text ends in a newline and has no other control characters")
    if not name or "+" in name or any(char.isspace() for char in name):
        raise NoteError("a key's name has no space and no plus")
    key = Ed25519PrivateKey.from_private_bytes(private)
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signature = base64.b64encode(key_id(name, public) + key.sign(text.encode())).decode()
    return "%s\n%s%s %s\n" % (text, _DASH, name, signature)


def open_note(note: str, verifier: Verifier) -> str:
    """The text of a note that this key signed. Raises NoteError; signatures of other keys are ignored."""
    at = note.rfind("\n\n")
    if len(note) > _NOTE_MAX or at < 0 or not note.endswith("\n"):
        raise NoteError("no signed note")
    text = note[: at + 1]
    wanted = key_id(verifier.name, verifier.public)
    for line in note[at + 2 : -1].split("\n"):
        parts = line.removeprefix(_DASH).split(" ")
        if not line.startswith(_DASH) or len(parts) != 2:
            raise NoteError("a signature line is malformed")
        try:
            raw = base64.b64decode(parts[1], validate=True)
        except binascii.Error:
            raise NoteError("a signature line is malformed") from None
        if parts[0] != verifier.name or raw[:4] != wanted:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(verifier.public).verify(raw[4:], text.encode())
        except InvalidSignature:
            raise NoteError("its signature does not verify") from None
        return text
    raise NoteError("it is not signed by %s" % verifier.name)


@dataclass(frozen=True)
class Checkpoint:
    """A log at one size: its name, how many entries, the root of their tree (32 bytes)."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The note text."""
        return "%s\n%d\n%s\n" % (self.origin, self.size, base64.b64encode(self.root).decode())

    def sign(self, private: bytes) -> str:
        """The signed note; the key's name is the origin."""
        return sign(self.text(), self.origin, private)


def parse_checkpoint(text: str) -> Checkpoint:
    """The Checkpoint in a note text; extension lines are ignored. Raises NoteError."""
    lines = text.split("\n")
    malformed = NoteError("no checkpoint: origin, size and root hash, a line each")
    if len(lines) < 4 or not lines[0]:
        raise malformed
    if not lines[1].isascii() or not lines[1].isdigit() or str(int(lines[1])) != lines[1]:
        raise malformed
    try:
        root = base64.b64decode(lines[2], validate=True)
    except binascii.Error:
        raise malformed from None
    if len(root) != 32:
        raise malformed
    return Checkpoint(lines[0], int(lines[1]), root)


def open_checkpoint(note: str, verifier: Verifier) -> Checkpoint:
    """The Checkpoint that this key signed for its own log. Raises NoteError."""
    found = parse_checkpoint(open_note(note, verifier))
    if found.origin != verifier.name:
        raise NoteError("it is of the log %s, not of %s" % (found.origin, verifier.name))
    return found


def split_notes(content: str) -> list[str]:
    """The notes in a file that holds one after the other, an empty line between two."""
    notes = []
    start = 0
    while start < len(content):
        text_end = content.find("\n\n", start)
        end = content.find("\n\n", text_end + 2)
        if text_end < 0 or end < 0:
            notes.append(content[start:])
            break
        notes.append(content[start : end + 1])
        start = end + 2
    return [note for note in notes if note.strip()]
