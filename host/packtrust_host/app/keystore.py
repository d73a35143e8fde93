"""The host key store: one sealed file with everything the app must remember (docs/keys.md).

A directory of mode 0700 with files of mode 0600: `state` (the content as JSON, sealed as `vault` says), `lock`, `made`,
and `key` in a store without passphrase. The sealing key depends on the machine's id, so the files copied to another
machine open nothing there. A write goes to a new file that replaces the old one by rename after it is on disk: a power
cut leaves the old content or the new one.

Secrets are `bytearray` in memory and in no `repr`.
"""

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from packtrust.crypto import wipe, x25519_public
from packtrust.keys import fingerprint, lct_tag
from packtrust_host.app import vault
from packtrust_host.app.errors import KeyStoreError, KeyStoreLocked
from packtrust_host.app.unlock import (
    KeyFile,
    Unlock,
    check_private,
    overwrite,
    sync_directory,
    write_new,
)

CLAIM_CODE_LENGTH = 16

_MACHINE_LABEL = b"packtrust v1 machine\0"
_MACHINE_ID_FILES = ("/etc/machine-id", "/var/lib/dbus/machine-id")

APP_PACK = "app-pack"
PACK_MODULE = "pack-module"

# States of a relationship, in the order they are reached.
CREATED = "created"  # the LCT exists at the bridge, its halves are not complete
KEYED = "keyed"  # both halves are here, no device has them
ACTIVE = "active"  # both ends committed an epoch


def default_directory() -> Path:
    """Where the key store of this user is by default."""
    return Path(platformdirs.user_data_dir("packtrust", appauthor=False)) / "keys"


def machine_id() -> bytes:
    """The machine's identity.

    PACKTRUST_MACHINE_ID, the OS's machine id, or the host's name where there is none.
    """
    named = os.environ.get("PACKTRUST_MACHINE_ID")
    if named:
        return named.encode()
    for name in _MACHINE_ID_FILES:
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text:
            return text.encode()
    return os.uname().nodename.encode()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclass
class Device:
    """A device this app knows. `unique_id` u32, `public_key` 32 bytes, `node` its node byte on its
    link.

    `owned`: it has pinned us (proved by a receipt). `counter`: the last package counter given out
    for it. `boot_counter`: the newest one it reported under the owner key; it never goes back.
    """

    unique_id: int
    serial: str
    role: int
    profile: str
    public_key: bytes
    node: int
    component_id: str = ""
    owned: bool = False
    counter: int = 0
    boot_counter: int = 0

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the public key."""
        return bytes(fingerprint(self.public_key))

    @property
    def name(self) -> str:
        """How messages call it."""
        return "%s (unique id %08x)" % (self.serial, self.unique_id)


@dataclass
class Pending:
    """An epoch whose proofs are complete: what is needed to send its COMMITs, again if need be.
    Secret.

    `receipt_keys`: k_r by unique id, 8 hex digits. `root`: of the app's own relationship, else
    empty.
    """

    epoch: int
    receipt_keys: dict[str, bytearray] = field(repr=False)
    root: bytearray = field(default_factory=bytearray, repr=False)
    salt_hash: str = ""

    def wipe(self) -> None:
        """Destroy this copy's secrets."""
        for key in self.receipt_keys.values():
            wipe(key)
        wipe(self.root)


@dataclass
class RelationshipRecord:
    """One LCT: its ends, its key material and how far it is installed.

    `unique_id_a`/`unique_id_b` are 0 for the app itself. Halves are 64 bytes each and empty until
    known. `epoch` is the one both ends committed (0: none), `root` its root in the app's own
    relationship (empty in a pack-module one), `epoch_tried` the highest one ever given out or
    reported, `salt_hash` the SHA-256 (hex) of the epoch's salt, `rotated` how many epochs the
    devices made by themselves, `pending` a commit under way.
    """

    lct_id: str
    kind: str
    component_a: str
    component_b: str
    unique_id_a: int
    unique_id_b: int
    fingerprint_a: bytes
    fingerprint_b: bytes
    node: int
    scope: int = 0
    epoch: int = 0
    epoch_tried: int = 0
    state: str = CREATED
    half_source: str = ""
    salt_hash: str = ""
    rotated: int = 0
    half_a: bytearray = field(default_factory=bytearray, repr=False)
    half_b: bytearray = field(default_factory=bytearray, repr=False)
    lct_half: bytearray = field(default_factory=bytearray, repr=False)
    root: bytearray = field(default_factory=bytearray, repr=False)
    pending: Pending | None = field(default=None, repr=False)

    @property
    def tag(self) -> bytes:
        """`lct_tag` of the wire format."""
        return lct_tag(self.lct_id)

    def wipe(self) -> None:
        """Destroy this copy's secrets."""
        for secret in (self.half_a, self.half_b, self.lct_half, self.root):
            wipe(secret)
        if self.pending is not None:
            self.pending.wipe()


@dataclass
class JournalEntry:
    """A write to the bridge: noted before it is sent, completed when its answer is here.

    `state` is "intended", "done" or "failed" (refused, nothing changed); an entry that stays
    "intended" has an unknown outcome. `result` holds ids only, never key material.
    """

    state: str
    digest: str
    at: str
    result: dict[str, str] = field(default_factory=dict)


@dataclass
class State:
    """The whole content. Change it only inside `KeyStore.transaction()`."""

    host_id: str
    private: bytearray = field(repr=False)
    created: str
    component_id: str = ""
    claims: dict[str, bytearray] = field(default_factory=dict, repr=False)
    devices: dict[int, Device] = field(default_factory=dict)
    relationships: dict[str, RelationshipRecord] = field(default_factory=dict)
    journal: dict[str, JournalEntry] = field(default_factory=dict)
    halves: dict[str, str] = field(default_factory=dict)
    audit: list[dict[str, str]] = field(default_factory=list)
    signing: bytearray = field(default_factory=bytearray, repr=False)
    log_heads: dict[str, str] = field(default_factory=dict)
    node_log_keys: dict[str, bytearray] = field(default_factory=dict, repr=False)


_BYTES = frozenset(("public_key", "fingerprint_a", "fingerprint_b"))
_SECRET = frozenset(("private", "signing", "half_a", "half_b", "lct_half", "root"))


def _plain(value: object) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


def _fields(document: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(document)
    for name, value in document.items():
        if name in _SECRET:
            values[name] = bytearray.fromhex(value)
        elif name in _BYTES:
            values[name] = bytes.fromhex(value)
    return values


def _relationship(document: Mapping[str, Any]) -> RelationshipRecord:
    values = _fields(document)
    pending = values.pop("pending")
    record = RelationshipRecord(**values)
    if pending is not None:
        keys = {name: bytearray.fromhex(key) for name, key in pending["receipt_keys"].items()}
        root = bytearray.fromhex(pending["root"])
        record.pending = Pending(pending["epoch"], keys, root, pending.get("salt_hash", ""))
    return record


def _decode(document: Mapping[str, Any]) -> State:
    values = _fields(document)
    values["claims"] = {name: bytearray.fromhex(code) for name, code in values["claims"].items()}
    log_keys = values.get("node_log_keys", {})
    values["node_log_keys"] = {name: bytearray.fromhex(key) for name, key in log_keys.items()}
    values["devices"] = {int(uid): Device(**_fields(item)) for uid, item in values["devices"].items()}
    values["relationships"] = {name: _relationship(item) for name, item in values["relationships"].items()}
    values["journal"] = {name: JournalEntry(**item) for name, item in values["journal"].items()}
    return State(**values)


def _claim_name(unique_id: int | None, serial: str | None) -> str:
    if unique_id is not None:
        return "id %08x" % unique_id
    if serial:
        return "serial " + serial
    raise KeyStoreError("a claim code belongs to a unique id or a serial", "give one of them")


class KeyStore:
    """The host key store in `directory`. Made at first use: Host ID and binding key come to be
    then.

    `unlock` opens it, and makes the lock of a new one; a store that has no lock of its kind yet is locked anew, if it
    was asked for by name. `machine` overrides the machine's identity, `urandom` the entropy source, `now` the clock
    (ISO 8601 text). Raises KeyStoreError, KeyStoreLocked among them. Several processes may use one store: a change
    reads, changes and writes under a lock.
    """

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        unlock: Unlock | None = None,
        machine: bytes | None = None,
        urandom: Callable[[int], bytes] = secrets.token_bytes,
        now: Callable[[], str] = _now,
    ) -> None:
        self.directory = Path(directory) if directory is not None else default_directory()
        self._unlock = KeyFile() if unlock is None else unlock
        self._urandom = urandom
        self._now = now
        identity = machine_id() if machine is None else machine
        self._machine_hash = hashlib.sha256(_MACHINE_LABEL + identity).digest()
        self._state_path = self.directory / "state"
        self._key_path = self.directory / "key"
        self._key = bytearray()
        self._locks: tuple[vault.Lock, ...] = ()
        self._depth = 0
        self._mutex = threading.RLock()
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            check_private(self.directory)
            self._open()
        except OSError as error:
            raise self._io_error("opened", error) from error

    def __repr__(self) -> str:
        return "<KeyStore %s host %s, %d devices, %d relationships>" % (
            self.directory,
            self._state.host_id,
            len(self._state.devices),
            len(self._state.relationships),
        )

    # -- files ---------------------------------------------------------------------------------

    def _io_error(self, what: str, error: OSError) -> KeyStoreError:
        return KeyStoreError(
            "the key store %s cannot be %s: %s" % (self.directory, what, error.strerror or error),
            "check the directory's owner, mode and free space",
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _open(self) -> None:
        """Make the store or open it. Nobody waits for a passphrase under the file lock."""
        if not self._state_path.exists():
            self._check_not_lost()
            lock, key = self._unlock.make(self.directory, self._urandom)
            with self._locked():
                if not self._state_path.exists():
                    self._use((lock,), key)
                    self._make()
        while True:
            with self._locked():
                sealed = self._sealed()
            if sealed.head.locks != self._locks:
                self._use(sealed.head.locks, self._data_key(sealed.head))
            with self._locked():
                sealed = self._sealed()
                if sealed.head.locks != self._locks:
                    continue  # another process has changed the passphrase meanwhile
                self._state = self._content(sealed)
                self._tidy(sealed.head)
            break
        if self._is_to_be_locked(sealed.head):
            self.protect(self._unlock)

    def _check_not_lost(self) -> None:
        # A power cut at the first start leaves a key and no state; a state that was lost later would leave the same,
        # and a new identity must not come about unnoticed.
        if (self.directory / "made").exists() and not self._state_path.exists():
            raise KeyStoreError(
                "the key store %s has %s no state"
                % (self.directory, "a key but" if self._key_path.exists() else "lost"),
                "restore `state` from a backup, or remove the directory to start anew",
            )

    def _make(self) -> None:
        self._check_not_lost()
        if self._locks[0].kind == vault.KEY_FILE:
            write_new(self._key_path, self._key)
        state = State(
            host_id=self._urandom(16).hex(),
            private=bytearray(self._urandom(32)),
            created=self._now(),
        )
        self._write(state)
        write_new(self.directory / "made", b"")

    def _use(self, locks: tuple[vault.Lock, ...], key: bytearray) -> None:
        wipe(self._key)
        self._locks, self._key = locks, key

    def _damaged(self) -> KeyStoreError:
        return KeyStoreError(
            "the key store %s is damaged or was changed" % self._state_path,
            "restore the directory from a backup",
        )

    def _data_key(self, head: vault.Head) -> bytearray:
        try:
            return self._unlock.open(self.directory, head)
        except vault.Damaged:
            raise self._damaged() from None

    def _is_to_be_locked(self, head: vault.Head) -> bool:
        """Whether this store, made without a passphrase, is to get one now.

        Schema 1 knew none, so whoever opens it is asked; a store of today without one was made so on purpose.
        """
        if head.lock(vault.KEY_FILE) is None:
            return False
        return self._unlock.explicit or (head.schema < 2 and not isinstance(self._unlock, KeyFile))

    def _tidy(self, head: vault.Head) -> None:
        """Remove a key file that a power cut left behind when the store was locked."""
        if head.lock(vault.KEY_FILE) is None:
            self._destroy_key_file()

    def _destroy_key_file(self) -> None:
        try:
            handle = os.open(self._key_path, os.O_WRONLY)
        except FileNotFoundError:
            return
        try:
            overwrite(handle)
        finally:
            os.close(handle)
        self._key_path.unlink()
        sync_directory(self.directory)

    @property
    def protection(self) -> tuple[int, ...]:
        """Kinds of the locks it has (vault.KEY_FILE, PASSPHRASE, KEYRING)."""
        return tuple(lock.kind for lock in self._locks)

    def protect(self, unlock: Unlock) -> None:
        """Lock the store anew, under a new data key; what opened it before opens it no more.

        The new file replaces the old one by rename, then the old one, and a key file, are overwritten.
        """
        try:
            lock, key = unlock.make(self.directory, self._urandom)
            with self._mutex, self._locked():
                state = self._read()
                if lock.kind == vault.KEY_FILE:
                    if vault.KEY_FILE in self.protection:
                        key = bytearray(self._key)  # one file cannot follow the other's rename in one step
                    else:
                        write_new(self._key_path, key)
                old = os.open(self._state_path, os.O_WRONLY)
                try:
                    self._write(state, (lock,), key)
                    overwrite(old)
                finally:
                    os.close(old)
                self._use((lock,), key)
                self._unlock = unlock
                self._state = state
                if lock.kind != vault.KEY_FILE:
                    self._destroy_key_file()
        except OSError as error:
            raise self._io_error("written", error) from error

    def _sealed(self) -> vault.Sealed:
        check_private(self._state_path)
        try:
            sealed = vault.parse(self._state_path.read_bytes())
        except vault.Damaged:
            raise self._damaged() from None
        except vault.UnknownSchema as error:
            raise KeyStoreError(
                "the key store has schema %d, this version knows %d" % (error.args[0], vault.SCHEMA),
                "use the newer version of packtrust that wrote it",
            ) from None
        if sealed.head.machine_hash != self._machine_hash:
            raise KeyStoreError(
                "the key store %s was made on another machine" % self.directory,
                "use it there, or register this host anew with a key store of its own",
            )
        return sealed

    def _content(self, sealed: vault.Sealed) -> State:
        try:
            plaintext = vault.unseal(sealed, self._key)
        except vault.Damaged:
            raise self._damaged() from None
        try:
            return _decode(json.loads(plaintext))
        except (ValueError, TypeError, KeyError):
            # It is authentic, so somebody wrote it who knew what it means.
            raise KeyStoreError(
                "the content of the key store %s is not what this version knows" % self.directory,
                "use the newer version of packtrust that wrote it",
            ) from None

    def _read(self) -> State:
        sealed = self._sealed()
        if sealed.head.locks != self._locks:
            if not self._unlock.explicit and sealed.head.lock(vault.PASSPHRASE) is not None:
                raise KeyStoreLocked(
                    "the passphrase of the key store %s was changed meanwhile" % self.directory,
                    "start this command again",
                )
            self._use(sealed.head.locks, self._data_key(sealed.head))
        return self._content(sealed)

    def _write(self, state: State, locks: tuple[vault.Lock, ...] = (), key: bytearray | None = None) -> None:
        """Seal and write the content: under the lock and key in use, or under these."""
        locks, key = locks or self._locks, self._key if key is None else key
        plaintext = bytearray(json.dumps(_plain(state), separators=(",", ":")).encode())
        try:
            write_new(self._state_path, vault.seal(locks, self._machine_hash, key, plaintext, self._urandom))
        finally:
            wipe(plaintext)

    def close(self) -> None:
        """Wipe what this object holds of the keys; it is then of no use."""
        with self._mutex:
            wipe(self._key)
            state = self._state
            wipe(state.private)
            wipe(state.signing)
            for code in (*state.claims.values(), *state.node_log_keys.values()):
                wipe(code)
            for record in state.relationships.values():
                record.wipe()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[State]:
        """Change the content.

        All of it is on disk when the block ends, nothing if the block raises.
        """
        with self._mutex:
            if self._depth:
                yield self._state
            else:
                with self._outermost() as state:
                    yield state

    @contextlib.contextmanager
    def _outermost(self) -> Iterator[State]:
        try:
            with self._locked():
                state = self._read()
                before, self._state = self._state, state
                self._depth += 1
                try:
                    yield state
                    self._write(state)
                except BaseException:
                    self._state = before
                    raise
                finally:
                    self._depth -= 1
        except OSError as error:
            raise self._io_error("written", error) from error

    def reload(self) -> None:
        """Read what other processes wrote."""
        try:
            with self._mutex, self._locked():
                self._state = self._read()
        except OSError as error:
            raise self._io_error("read", error) from error

    # -- who we are ----------------------------------------------------------------------------

    @property
    def host_id(self) -> str:
        """The immutable Host ID: 128 random bits, made once, as 32 hex digits."""
        return self._state.host_id

    @property
    def private_key(self) -> bytearray:
        """A copy of the app's X25519 binding key, 32 bytes: wipe it after use."""
        return bytearray(self._state.private)

    @property
    def public_key(self) -> bytes:
        """The app's public binding key."""
        return bytes(x25519_public(self._state.private))

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the public key."""
        return bytes(fingerprint(self.public_key))

    @property
    def component_id(self) -> str:
        """The app's component id at the bridge, "" before registration."""
        return self._state.component_id

    # -- claim codes ---------------------------------------------------------------------------

    def add_claim(
        self,
        code: str | bytes | bytearray,
        *,
        unique_id: int | None = None,
        serial: str | None = None,
    ) -> None:
        """Remember the claim code a device shows on its console: 32 hex digits, or 16 bytes."""
        name = _claim_name(unique_id, serial)
        raw = bytearray()
        if isinstance(code, str):
            with contextlib.suppress(ValueError):
                raw = bytearray.fromhex(code.strip())
        else:
            raw = bytearray(code)
        if len(raw) != CLAIM_CODE_LENGTH:
            raise KeyStoreError(
                "a claim code is 32 hex digits",
                "copy it from the device's console (command `claim`)",
            )
        with self.transaction() as state:
            state.claims[name] = raw

    def claim_code(self, unique_id: int, serial: str = "") -> bytearray | None:
        """A copy of the claim code for a device, by unique id or else by serial; None if unknown."""
        for name in (_claim_name(unique_id, None), "serial " + serial):
            if name in self._state.claims:
                return bytearray(self._state.claims[name])
        return None

    @property
    def claimable(self) -> list[str]:
        """The devices there is a claim code for, as "id 8 hex digits" or "serial TEXT"; not the codes."""
        return sorted(self._state.claims)

    def burn_claim(self, unique_id: int, serial: str = "") -> None:
        """Forget a code that was used: the device has burned it too."""
        with self.transaction() as state:
            for name in (_claim_name(unique_id, None), "serial " + serial):
                code = state.claims.pop(name, None)
                if code is not None:
                    wipe(code)

    # -- devices -------------------------------------------------------------------------------

    @property
    def devices(self) -> dict[int, Device]:
        """Known devices by unique id. Read only: change them in a transaction."""
        return self._state.devices

    def device_of(self, component_id: str) -> Device | None:
        """The device registered under a component id."""
        for device in self._state.devices.values():
            if device.component_id == component_id:
                return device
        return None

    def next_counter(self, unique_id: int, at_least: int = 1) -> int:
        """A package counter for a device, above every one given out; on disk before it is returned."""
        with self.transaction() as state:
            device = state.devices[unique_id]
            device.counter = max(device.counter + 1, at_least)
            if device.counter > 0xFFFFFFFE:
                raise KeyStoreError("the package counter of %s is used up" % device.name, "replace the device")
            return device.counter

    # -- relationships -------------------------------------------------------------------------

    @property
    def relationships(self) -> dict[str, RelationshipRecord]:
        """Known relationships by LCT id. Read only: change them in a transaction."""
        return self._state.relationships

    def app_pack(self, pack_unique_id: int | None = None, node: int | None = None) -> RelationshipRecord | None:
        """The app's relationship with a pack, by its unique id or node byte."""
        for record in self._state.relationships.values():
            if record.kind == APP_PACK and (record.unique_id_b == pack_unique_id or record.node == node):
                return record
        return None

    def modules_of(self, pack_unique_id: int) -> list[RelationshipRecord]:
        """The pack-module relationships of a pack, by node byte."""
        found = [
            record
            for record in self._state.relationships.values()
            if record.kind == PACK_MODULE and record.unique_id_a == pack_unique_id
        ]
        return sorted(found, key=lambda record: record.node)

    # -- journal, halves, audit ----------------------------------------------------------------

    @property
    def journal(self) -> dict[str, JournalEntry]:
        """Writes to the bridge by their key. Read only."""
        return self._state.journal

    def intend(self, key: str, digest: str) -> None:
        """Note a write before it is sent."""
        with self.transaction() as state:
            state.journal[key] = JournalEntry("intended", digest, self._now())

    def complete(self, key: str, result: Mapping[str, str]) -> None:
        """Note the answer of a write: ids only."""
        with self.transaction() as state:
            entry = state.journal[key]
            entry.state = "done"
            entry.result = dict(result)

    def fail(self, key: str) -> None:
        """Note that a write was refused and changed nothing."""
        with self.transaction() as state:
            state.journal[key].state = "failed"

    @property
    def halves_seen(self) -> dict[str, str]:
        """SHA-256 (hex) of each half ever taken, and its use."""
        return dict(self._state.halves)

    def save_halves_seen(self, seen: Mapping[str, str]) -> None:
        """Add to the registry of halves."""
        with self.transaction() as state:
            state.halves.update(seen)

    @property
    def audit_log(self) -> list[dict[str, str]]:
        """What was done that weakens something, oldest first."""
        return list(self._state.audit)

    # -- audit logs (packtrust_host.audit) -----------------------------------------------------

    def now(self) -> str:
        """The time, ISO 8601."""
        return self._now()

    def signing_key(self, make: bool) -> bytearray:
        """A copy of the Ed25519 key that signs audit logs, 32 bytes: wipe it after use. Empty
        before there is one, unless it is to be made.
        """
        if make and not self._state.signing:
            with self.transaction() as state:
                if not state.signing:
                    state.signing = bytearray(self._urandom(32))
        return bytearray(self._state.signing)

    @property
    def log_heads(self) -> dict[str, str]:
        """Size and root (hex) of each audit log as it was signed last. Read only."""
        return self._state.log_heads

    def set_log_head(self, name: str, head: str | None) -> None:
        """Remember how a log was signed; None: it is no more."""
        with self.transaction() as state:
            if head is None:
                state.log_heads.pop(name, None)
            else:
                state.log_heads[name] = head

    @property
    def node_log_keys(self) -> dict[str, bytearray]:
        """First keys of nodes' audit logs by `unique id (8 hex digits) key id`. Secret, read only."""
        return self._state.node_log_keys

    def add_node_log_key(self, name: str, key: bytes | bytearray) -> None:
        """Remember the first key of a node's log: before its package is sent, for its receipt may be lost."""
        with self.transaction() as state:
            state.node_log_keys[name] = bytearray(key)

    def audit(self, event: str, **details: str) -> None:
        """Write an audit entry. Details hold no secrets."""
        with self.transaction() as state:
            state.audit.append({"at": self._now(), "event": event, **details})
