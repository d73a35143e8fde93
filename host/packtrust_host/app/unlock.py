"""How the host key store is opened: where its passphrase comes from, or what stands in for one.

    unlock = parse_unlock("file:/run/secrets/packtrust")
    store = KeyStore(directory, unlock=unlock)

An `Unlock` makes the lock of a new store and opens the lock of one there is (see `vault`). The command line's are
`ask`, `file:PATH`, `fd:NUMBER`, `keyring` and `none`. A passphrase is in no argument and no environment variable.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import stat
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from packtrust.crypto import wipe
from packtrust_host.app import vault
from packtrust_host.app.errors import KeyStoreError, KeyStoreLocked
from packtrust_host.app.vault import Head, Lock, Urandom

PASSPHRASE_MIN = 8
_PASSPHRASE_MAX = 1024
_TRIES = 3
_SERVICE = "packtrust"

HOWS = "ask, file:PATH, fd:NUMBER, keyring or none"
_NO_TERMINAL = (
    "give --unlock file:PATH or --unlock keyring (or $PACKTRUST_UNLOCK), or run it in a terminal; "
    "`--unlock none` makes a store whose key lies beside it"
)


class Unlock:
    """One way to make and open locks. `explicit`: it was asked for by name, so a store without this lock gets it."""

    kind = vault.KEY_FILE
    explicit = False

    def make(self, directory: Path, urandom: Urandom) -> tuple[Lock, bytearray]:
        """A lock for a new data key, and that key. Raises KeyStoreError."""
        raise NotImplementedError

    def open(self, directory: Path, head: Head) -> bytearray:
        """The data key. Raises KeyStoreLocked and KeyStoreError; vault.Damaged for a lock that is none."""
        raise NotImplementedError


def _locked(directory: Path, by: str, next_step: str) -> KeyStoreLocked:
    return KeyStoreLocked("the key store %s is locked by %s" % (directory, by), next_step)


class KeyFile(Unlock):
    """No passphrase: the data key is the file `key` beside the store. For demos and tests, and where the disk itself
    is encrypted."""

    def make(self, directory: Path, urandom: Urandom) -> tuple[Lock, bytearray]:
        """A new key. The store writes the file, under its file lock."""
        return Lock(vault.KEY_FILE), bytearray(urandom(vault.KEY_LENGTH))

    def open(self, directory: Path, head: Head) -> bytearray:
        """Read the file."""
        if head.lock(vault.KEY_FILE) is None:
            by = "the OS keyring" if head.lock(vault.KEYRING) is not None else "a passphrase"
            raise _locked(directory, by, "open it with --unlock ask, or --unlock file:PATH for a script")
        path = directory / "key"
        try:
            check_private(path)
            key = bytearray(path.read_bytes())
        except FileNotFoundError:
            raise KeyStoreError(
                "the key file %s is missing" % path,
                "restore it from a backup; without it the key store cannot be read",
            ) from None
        if len(key) != vault.KEY_LENGTH:
            raise KeyStoreError("the key file %s is damaged" % path, "restore it from a backup")
        return key


class Passphrase(Unlock):
    """A passphrase from `read(new)`, UTF-8, which gives it once, and as a buffer that may be wiped.

    `log2_n` is the cost of scrypt for locks that are made; tests make it small.
    """

    kind = vault.PASSPHRASE
    explicit = True

    def __init__(self, read: Callable[[bool], bytearray], log2_n: int = vault.LOG2_N) -> None:
        self._read = read
        self._log2_n = log2_n

    def make(self, directory: Path, urandom: Urandom) -> tuple[Lock, bytearray]:
        """Under the passphrase read."""
        passphrase = self._read(True)
        try:
            if len(passphrase) < PASSPHRASE_MIN:
                raise KeyStoreError(
                    "the passphrase has %d bytes" % len(passphrase), "take one of %d or more" % PASSPHRASE_MIN
                )
            key = bytearray(urandom(vault.KEY_LENGTH))
            return vault.passphrase_lock(passphrase, key, urandom, self._log2_n), key
        finally:
            wipe(passphrase)

    def open(self, directory: Path, head: Head) -> bytearray:
        """With the passphrase read."""
        lock = head.lock(vault.PASSPHRASE)
        if lock is None:
            return _without_passphrase(directory, head)
        passphrase = self._read(False)
        try:
            key = vault.open_passphrase_lock(lock, passphrase)
        finally:
            wipe(passphrase)
        if key is None:
            raise KeyStoreLocked(
                "wrong passphrase for the key store %s" % directory,
                "try again; a passphrase that is lost cannot be recovered, only a backup with another one helps",
            )
        return key


class Keyring(Unlock):
    """A random key in the OS keyring (library `keyring`: Secret Service, KWallet, macOS Keychain)."""

    kind = vault.KEYRING
    explicit = True

    def make(self, directory: Path, urandom: Urandom) -> tuple[Lock, bytearray]:
        """Under a new entry of the keyring."""
        keyring = _keyring_library()
        name = urandom(16)
        wrapping = bytearray(urandom(vault.KEY_LENGTH))
        try:
            with _keyring_errors():
                keyring.set_password(_SERVICE, name.hex(), wrapping.hex())
            key = bytearray(urandom(vault.KEY_LENGTH))
            return vault.keyring_lock(name, wrapping, key, urandom), key
        finally:
            wipe(wrapping)

    def open(self, directory: Path, head: Head) -> bytearray:
        """With the entry that the store names."""
        lock = head.lock(vault.KEYRING)
        if lock is None:
            return _without_keyring(directory, head)
        keyring = _keyring_library()
        name = vault.keyring_name(lock)
        with _keyring_errors():
            text = keyring.get_password(_SERVICE, name.hex())
        wrapping = bytearray()
        with contextlib.suppress(ValueError):
            wrapping = bytearray.fromhex(text or "")
        key = vault.open_keyring_lock(lock, wrapping) if len(wrapping) == vault.KEY_LENGTH else None
        wipe(wrapping)
        if key is None:
            raise _locked(
                directory,
                "the OS keyring, which has no key for it",
                "unlock the keyring of the user who made it (service packtrust, entry %s)" % name.hex(),
            )
        return key


class Ask(Unlock):
    """The default: what the store's lock needs. A passphrase is asked for at the terminal."""

    def __init__(self, log2_n: int = vault.LOG2_N) -> None:
        self._log2_n = log2_n

    def make(self, directory: Path, urandom: Urandom) -> tuple[Lock, bytearray]:
        """Ask for a new passphrase, twice. An empty one is none."""
        _check_terminal("the key store %s needs a passphrase" % directory)
        print("The key store %s is to be protected by a passphrase." % directory, file=sys.stderr)
        while True:
            first = _prompt("new passphrase (empty: none, its key lies beside it): ")
            if not first:
                print("It gets none: who can read %s has its keys." % directory, file=sys.stderr)
                return KeyFile().make(directory, urandom)
            again = _prompt("the same again: ")
            if first != again:
                print("They differ.", file=sys.stderr)
            elif len(first) < PASSPHRASE_MIN:
                print("Take %d characters or more." % PASSPHRASE_MIN, file=sys.stderr)
            else:
                wipe(again)
                return Passphrase(_given(first), self._log2_n).make(directory, urandom)

    def open(self, directory: Path, head: Head) -> bytearray:
        """Ask for the passphrase, if it is one that is needed."""
        if head.lock(vault.PASSPHRASE) is None:
            return _without_passphrase(directory, head)
        _check_terminal("the key store %s is locked by a passphrase" % directory)
        for left in reversed(range(_TRIES)):
            try:
                return Passphrase(lambda new: _prompt("passphrase of %s: " % directory)).open(directory, head)
            except KeyStoreLocked:
                if not left:
                    raise
                print("That is not it.", file=sys.stderr)
        raise AssertionError("unreachable")


def _given(passphrase: bytearray) -> Callable[[bool], bytearray]:
    return lambda new: passphrase


def _without_passphrase(directory: Path, head: Head) -> bytearray:
    """Open a store that has no passphrase."""
    if head.lock(vault.KEYRING) is not None:
        return Keyring().open(directory, head)
    return KeyFile().open(directory, head)


def _without_keyring(directory: Path, head: Head) -> bytearray:
    if head.lock(vault.PASSPHRASE) is not None:
        raise _locked(directory, "a passphrase", "open it with --unlock ask, or --unlock file:PATH for a script")
    return KeyFile().open(directory, head)


# -- the command line's ways -------------------------------------------------------------------------------------------


def parse_unlock(how: str) -> Unlock:
    """The way a text names: one of HOWS. Raises ValueError."""
    kind, _, rest = how.partition(":")
    if how == "ask":
        return Ask()
    if how == "none":
        return KeyFile()
    if how == "keyring":
        return Keyring()
    if kind == "file" and rest:
        return Passphrase(lambda new: passphrase_of_file(Path(rest)))
    if kind == "fd" and rest.isdigit():
        return Passphrase(_Once(lambda: _first_line(int(rest), "descriptor %s" % rest)))
    raise ValueError("%r: take one of %s" % (how if kind in ("file", "fd") else kind, HOWS))


class _Once:
    """A descriptor can be read once, but a store may have to be opened again."""

    def __init__(self, read: Callable[[], bytearray]) -> None:
        self._read = read
        self._kept = bytearray()

    def __call__(self, new: bool) -> bytearray:
        if not self._kept:
            self._kept = self._read()
        return bytearray(self._kept)


def passphrase_of_file(path: Path) -> bytearray:
    """The first line of a file that nobody else may read. Raises KeyStoreError."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise KeyStoreError(
            "the passphrase file %s cannot be read: %s" % (path, error.strerror), "check its path and owner"
        ) from None
    try:
        status = os.fstat(handle)
        if status.st_mode & 0o077 and not _is_pipe(status.st_mode):
            raise KeyStoreError(
                "the passphrase file %s can be read by others (mode %03o)" % (path, status.st_mode & 0o777),
                "chmod 600 it, and change the passphrase if others had access",
            )
        return _first_line(handle, str(path))
    finally:
        os.close(handle)


def _is_pipe(mode: int) -> bool:
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _first_line(handle: int, name: str) -> bytearray:
    text = bytearray()
    piece = bytearray(256)
    try:
        while b"\n" not in text and len(text) <= _PASSPHRASE_MAX:
            count = os.readv(handle, [piece])
            if not count:
                break
            text += piece[:count]
    except OSError as error:
        raise KeyStoreError("no passphrase from %s: %s" % (name, error.strerror), "check --unlock") from None
    finally:
        wipe(piece)
    end = text.find(b"\n")
    line = text[: end if end >= 0 else len(text)].removesuffix(b"\r")
    wipe(text)
    if not line or len(line) > _PASSPHRASE_MAX:
        raise KeyStoreError(
            "no passphrase from %s" % name, "its first line is the passphrase, 1 to %d bytes" % _PASSPHRASE_MAX
        )
    return line


def _check_terminal(cause: str) -> None:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        raise KeyStoreLocked(cause + ", and there is no terminal to ask at", _NO_TERMINAL) from None


def _prompt(text: str) -> bytearray:
    """What was typed, unseen. The same text gives the same bytes whatever keyboard it came from (NFC)."""
    return bytearray(unicodedata.normalize("NFC", getpass.getpass(text)).encode())


def _keyring_library() -> ModuleType:
    try:
        import keyring
    except ImportError:
        raise KeyStoreError(
            "the OS keyring needs the library `keyring`, which is not installed",
            "pip install 'packtrust[keyring]', or use a passphrase: --unlock ask",
        ) from None
    module: ModuleType = keyring
    return module


@contextlib.contextmanager
def _keyring_errors() -> Iterator[None]:
    from keyring.errors import KeyringError

    try:
        yield
    except KeyringError as error:
        raise KeyStoreLocked(
            "the OS keyring cannot be used: %s" % type(error).__name__,
            "start and unlock it, or use a passphrase: --unlock ask",
        ) from None


# -- files -------------------------------------------------------------------------------------------------------------


def check_private(path: Path) -> None:
    """Raise KeyStoreError if others may read a file or directory, or own it."""
    status = path.stat()
    if status.st_mode & 0o077:
        raise KeyStoreError(
            "%s can be read by others (mode %03o)" % (path, status.st_mode & 0o777),
            "chmod go-rwx it, and treat its keys as seen if others had access",
        )
    if status.st_uid != os.geteuid():
        raise KeyStoreError("%s belongs to user %d" % (path, status.st_uid), "use a key store of your own")


def write_new(path: Path, content: bytes | bytearray) -> None:
    """Create or replace a file of mode 0600 by rename, its content and its name on disk before we return."""
    temporary = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        write_all(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(temporary, path)
    sync_directory(path.parent)


def write_all(handle: int, content: bytes | bytearray) -> None:
    """Write it whole."""
    at = 0
    view = memoryview(content)
    while at < len(content):
        at += os.write(handle, view[at:])


def sync_directory(directory: Path) -> None:
    """Names on disk."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def overwrite(handle: int) -> None:
    """Zeros over an open file's content. Flash, and file systems that copy on write, may keep the old blocks."""
    size = os.fstat(handle).st_size
    os.lseek(handle, 0, os.SEEK_SET)
    write_all(handle, bytes(size))
    os.fsync(handle)
