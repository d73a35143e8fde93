"""The host's audit logs: one file for each pack, one for what belongs to none; append-only, each append signed.

In the folder `audit` of the key store, by name of the log (`host`, `pack-50000001`):

    NAME.log           an entry a line, JSON; the line without its end is the leaf of the Merkle tree
    NAME.checkpoints   a signed note (C2SP) for every time it grew, an empty line between two

The signing key is in the key store, and with it size and root of each log as they were last: so who writes these files
and no more can neither change nor shorten a log unseen.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from packtrust.crypto import wipe
from packtrust_host.app.errors import AppError
from packtrust_host.app.keystore import KeyStore
from packtrust_host.audit.merkle import Tree
from packtrust_host.audit.note import Checkpoint, NoteError, Verifier, open_checkpoint, split_notes
from packtrust_host.audit.verify import Verdict, lines_of, verify

HOST = "host"


class AuditError(AppError):
    """A log is not what was signed last, or cannot be written."""


def name_of(pack_unique_id: int | None) -> str:
    """Name of a pack's log; None: of what belongs to no pack."""
    return HOST if pack_unique_id is None else "pack-%08x" % pack_unique_id


class AuditLogs:
    """The logs of one host key store. Several processes may append to one log."""

    def __init__(self, store: KeyStore) -> None:
        self.store = store
        self.folder = store.directory / "audit"

    def names(self) -> list[str]:
        """The logs there are."""
        found = {path.stem for path in self.folder.glob("*.log")} | set(self.store.log_heads)
        return sorted(found)

    def log_path(self, name: str) -> Path:
        """The log's file."""
        return self.folder / (name + ".log")

    def checkpoint_path(self, name: str) -> Path:
        """The file with its checkpoints."""
        return self.folder / (name + ".checkpoints")

    def origin(self, name: str) -> str:
        """What its checkpoints are signed as."""
        return "packtrust/%s/%s" % (self.store.host_id, name)

    def verifier(self, name: str) -> Verifier:
        """The key that checks its checkpoints. AuditError before there is one."""
        private = self.store.signing_key(False)
        if not private:
            raise AuditError("this key store has signed no audit log yet", "do something worth noting first")
        public = Ed25519PrivateKey.from_private_bytes(bytes(private)).public_key()
        wipe(private)
        return Verifier(self.origin(name), public.public_bytes(Encoding.Raw, PublicFormat.Raw))

    def head(self, name: str) -> Checkpoint | None:
        """Size and root as the key store remembers them."""
        text = self.store.log_heads.get(name)
        if text is None:
            return None
        size, _, root = text.partition(" ")
        return Checkpoint(self.origin(name), int(size), bytes.fromhex(root))

    def read(self, name: str) -> tuple[bytes, str]:
        """The log and its checkpoints, as they are on disk; empty where there are none."""
        log, notes = b"", ""
        with contextlib.suppress(FileNotFoundError):
            log = self.log_path(name).read_bytes()
        with contextlib.suppress(FileNotFoundError):
            notes = self.checkpoint_path(name).read_text(encoding="utf-8", errors="replace")
        return log, notes

    def entries(self, name: str) -> list[dict[str, Any]]:
        """The entries that can be read; nothing is verified here."""
        found = []
        for line in lines_of(self.read(name)[0]):
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict):
                    found.append(entry)
        return found

    def verify(self, name: str, kept: Iterable[str] = ()) -> Verdict:
        """Check a log with all the key store knows."""
        log, notes = self.read(name)
        return verify(
            log, notes, self.verifier(name), kept=kept, head=self.head(name), node_keys=self.store.node_log_keys
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def append(self, name: str, entries: Iterable[Mapping[str, Any]], each: bool = True) -> None:
        """Append entries and sign the log. Entries hold no secrets; `n` and `at` are added here.

        each   a checkpoint for each entry: so a verifier can say which one was changed; else one for all of them

        Raises AuditError if the log on disk is not the one signed last: nothing is signed then.
        """
        added = list(entries)
        if not added:
            return
        try:
            with self._locked():
                self._append(name, added, each)
        except OSError as error:
            raise AuditError(
                "the audit log %s cannot be written: %s" % (name, error.strerror or error),
                "check the owner, mode and free space of %s" % self.folder,
            ) from error

    def _append(self, name: str, added: list[Mapping[str, Any]], each: bool = True) -> None:
        tree, added = self._signed_part(name, added)
        private = self.store.signing_key(True)
        out = b""
        notes = ""
        now = self.store.now()
        for left, entry in zip(range(len(added) - 1, -1, -1), added, strict=True):
            line = json.dumps({"n": tree.size, "at": now, **entry}, separators=(",", ":")).encode()
            tree.add(line)
            out += line + b"\n"
            if each or not left:
                checkpoint = Checkpoint(self.origin(name), tree.size, tree.root())
                notes += checkpoint.sign(bytes(private)) + "\n"
        wipe(private)
        _append_to(self.log_path(name), out)
        _append_to(self.checkpoint_path(name), notes.encode())
        self.store.set_log_head(name, "%d %s" % (tree.size, tree.root().hex()))

    def _signed_part(self, name: str, added: list[Mapping[str, Any]]) -> tuple[Tree, list[Mapping[str, Any]]]:
        """The tree of what was signed, and what to append to it.

        What a crash has left behind the last checkpoint is taken off the file: it was never signed. That is noted.
        """
        content, notes = self.read(name)
        head = self.head(name)
        lines = lines_of(content)
        signed = self._signed_sizes(name, notes, 0 if head is None else head.size)
        tree = Tree()
        size = 0
        found = head is None
        for line in lines:
            tree.add(line)
            if head is not None and tree.size == head.size:
                found = tree.root() == head.root
            if found and (signed.get(tree.size) == tree.root() or (head is not None and tree.size == head.size)):
                size = tree.size  # the key store may be behind by what a crash has kept from it
        if not found:
            raise AuditError(
                "the audit log %s is not the one that was signed last" % name,
                "see `packtrust audit verify`; `packtrust audit restart %s` begins another one" % name,
            )
        if tree.size > size:
            tree = Tree()
            for line in lines[:size]:
                tree.add(line)
        kept = sum(len(line) + 1 for line in lines[:size])
        if len(content) > kept:
            rest = content[kept:]
            with self.log_path(name).open("r+b") as file:
                file.truncate(kept)
            dropped = {
                "what": "unsigned-dropped",
                "lines": len(lines) - size,
                "sha256": hashlib.sha256(rest).hexdigest(),
            }
            added = [dropped, *added]
        return tree, added

    def _signed_sizes(self, name: str, notes: str, least: int) -> dict[int, bytes]:
        """Root by size of our checkpoints, those of `least` entries and more. A last one that a crash has torn is taken
        off the file.

        They are read from the end: what is older than the key store's head says no more than that does, and a signature
        for every entry there ever was would make each append dearer than the one before.
        """
        signed = {}
        good = 0
        if notes:
            verifier = self.verifier(name)
            ends = []
            at = 0
            for note in split_notes(notes):
                at = notes.index(note, at) + len(note)
                ends.append((at, note))
            for end, note in reversed(ends):
                with contextlib.suppress(NoteError):
                    checkpoint = open_checkpoint(note, verifier)
                    signed[checkpoint.size] = checkpoint.root
                    good = good or end + 1
                    if checkpoint.size <= least:
                        break
        if len(notes) > good:
            with self.checkpoint_path(name).open("r+b") as file:
                file.truncate(len(notes[:good].encode()))
        elif notes and not notes.endswith("\n\n"):
            _append_to(self.checkpoint_path(name), b"\n")
        return signed

    def restart(self, name: str, reason: str) -> Path:
        """Put a log that does not verify aside, where the result says, and begin another one that tells of it."""
        with self._locked():
            head = self.head(name)
            mark = hashlib.sha256(self.read(name)[0]).hexdigest()[:12]
            aside = self.folder / ("%s.log.%s" % (name, mark))
            for path in (self.log_path(name), self.checkpoint_path(name)):
                if path.exists():
                    os.replace(path, path.with_name("%s.%s" % (path.name, mark)))
            self.store.set_log_head(name, None)
            entry = {
                "what": "restarted",
                "reason": reason,
                "signed_entries": 0 if head is None else head.size,
                "signed_root": "" if head is None else head.root.hex(),
                "aside": aside.name,
            }
            self._append(name, [entry])
            return aside


def _append_to(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        at = 0
        while at < len(content):
            at += os.write(handle, content[at:])
        os.fsync(handle)
    finally:
        os.close(handle)
