"""How the host key store is opened: passphrases, the OS keyring, and what is said when it does not open."""

import fcntl
import multiprocessing
import os
import pty
import select
import subprocess
import sys
import termios
import types

import pytest
from typer.testing import CliRunner

from packtrust_host.app import unlock as unlocks
from packtrust_host.app import vault
from packtrust_host.app.errors import KeyStoreError, KeyStoreLocked
from packtrust_host.app.keystore import KeyStore
from packtrust_host.app.unlock import Ask, KeyFile, Keyring, Passphrase, parse_unlock
from packtrust_host.cli import app, common

MACHINE = b"machine one"
SECRET = "what nobody guesses"
CODE = "00112233445566778899aabbccddeeff"


def known(text=SECRET):
    return Passphrase(lambda new: bytearray(text.encode()), 4)


def open_store(folder, unlock=None):
    return KeyStore(folder / "keys", unlock=unlock, machine=MACHINE)


def written(path, content, mode=0o600):
    path.touch(mode)
    path.chmod(mode)
    path.write_bytes(content)
    return path


# -- passphrases -------------------------------------------------------------------------------------------------------


def test_a_passphrase_protects_everything(tmp_path):
    store = open_store(tmp_path, known())
    store.add_claim(CODE, unique_id=1)
    assert not (store.directory / "key").exists()
    again = open_store(tmp_path, known())
    assert again.host_id == store.host_id
    assert again.claim_code(1) == bytearray.fromhex(CODE)
    raw = b"".join(path.read_bytes() for path in store.directory.iterdir())
    for secret in (bytes.fromhex(CODE), bytes(store.private_key), SECRET.encode(), bytes(store._key)):
        assert secret not in raw
        assert secret.hex().encode() not in raw


@pytest.mark.parametrize("unlock", [known("what nobody guesses!"), known("wrong" * 4)])
def test_a_wrong_passphrase_is_told(tmp_path, unlock):
    open_store(tmp_path, known())
    before = (tmp_path / "keys" / "state").read_bytes()
    with pytest.raises(KeyStoreLocked, match="wrong passphrase") as caught:
        open_store(tmp_path, unlock)
    assert "Next: " in str(caught.value)
    assert "nobody guesses" not in str(caught.value)
    assert (tmp_path / "keys" / "state").read_bytes() == before


def test_without_its_passphrase_it_is_locked(tmp_path):
    open_store(tmp_path, known())
    with pytest.raises(KeyStoreLocked, match="locked by a passphrase"):
        open_store(tmp_path, KeyFile())
    with pytest.raises(KeyStoreLocked, match="locked by a passphrase"):
        open_store(tmp_path, Keyring())


def test_every_changed_byte_is_seen(tmp_path):
    """Of the head, so before a passphrase is even tried, and of the content."""
    path = open_store(tmp_path, known()).directory / "state"
    raw = path.read_bytes()
    head = len(raw) - len(vault.parse(raw).ciphertext)
    for at in (*range(head), head, len(raw) - 1):
        changed = bytearray(raw)
        changed[at] ^= 1
        path.write_bytes(changed)
        with pytest.raises(KeyStoreError, match=r"damaged|another machine|schema") as caught:
            open_store(tmp_path, known())
        assert not isinstance(caught.value, KeyStoreLocked), at
    for size in range(len(raw)):
        with pytest.raises(vault.Damaged):
            vault.unseal(vault.parse(raw[:size]), bytearray(32))


def test_what_a_head_asks_of_us_is_bounded(tmp_path):
    """A head with a true check but mad parameters costs no memory."""
    lock = open_store(tmp_path, known())._locks[0]
    for kdf, log2_n, r, p in ((2, 4, 8, 1), (1, 31, 8, 1), (1, 0, 8, 1), (1, 4, 0, 1), (1, 24, 8, 1), (1, 4, 8, 17)):
        body = bytes((kdf, log2_n, r, p)) + lock.body[4:]
        with pytest.raises(vault.Damaged):
            vault.open_passphrase_lock(vault.Lock(vault.PASSPHRASE, body), bytearray(b"x"))
    # Allowed ones are authentic: weaker ones do not open it.
    assert vault.open_passphrase_lock(lock, bytearray(SECRET.encode())) is not None
    weaker = vault.Lock(vault.PASSPHRASE, bytes((1, 3, 8, 1)) + lock.body[4:])
    assert vault.open_passphrase_lock(weaker, bytearray(SECRET.encode())) is None


def test_the_default_cost_is_what_is_written(tmp_path):
    open_store(tmp_path, Passphrase(lambda new: bytearray(SECRET.encode())))
    lock = vault.parse((tmp_path / "keys" / "state").read_bytes()).head.lock(vault.PASSPHRASE)
    assert tuple(lock.body[:4]) == (vault.SCRYPT, 17, 8, 1)


def test_a_short_passphrase_is_refused(tmp_path):
    with pytest.raises(KeyStoreError, match="8 or more"):
        open_store(tmp_path, known("seven77"))
    assert not (tmp_path / "keys" / "state").exists()


def test_another_passphrase(tmp_path):
    store = open_store(tmp_path, known())
    store.add_claim(CODE, unique_id=1)
    old = (store.directory / "state").read_bytes()
    data_key = bytes(store._key)
    store.protect(known("another passphrase"))
    store.add_claim(CODE, unique_id=2)
    with pytest.raises(KeyStoreLocked):
        open_store(tmp_path, known())
    again = open_store(tmp_path, known("another passphrase"))
    assert again.claim_code(1) and again.claim_code(2)
    assert bytes(again._key) != data_key, "who knew the old key reads nothing that is written from now on"
    assert old != (store.directory / "state").read_bytes()


def test_from_passphrase_to_none_and_back(tmp_path):
    store = open_store(tmp_path, known())
    host_id = store.host_id
    store.protect(KeyFile())
    assert open_store(tmp_path).host_id == host_id
    with (store.directory / "key").open("rb") as key:
        open_store(tmp_path, known("yet another one"))
        assert not any(key.read())
    assert not (store.directory / "key").exists()
    assert open_store(tmp_path, known("yet another one")).host_id == host_id


def test_another_process_changes_the_passphrase_meanwhile(tmp_path):
    one = open_store(tmp_path, known())
    two = open_store(tmp_path, known())
    two.protect(known("another passphrase"))
    with pytest.raises(KeyStoreLocked, match="wrong passphrase"):
        one.add_claim(CODE, unique_id=1)
    asking = open_store(tmp_path, known("another passphrase"))
    asking._unlock = Ask()
    two.protect(known("a third passphrase"))
    with pytest.raises(KeyStoreLocked, match="changed meanwhile"):
        asking.reload()


def _count(folder, times):
    store = open_store(folder, known())
    for _ in range(times):
        with store.transaction() as state:
            state.component_id = str(int(state.component_id or "0") + 1)


def test_processes_do_not_undo_each_other(tmp_path):
    """Four processes, the first of which makes the store."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_count, args=(tmp_path, 10)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert open_store(tmp_path, known()).component_id == "40"


def test_processes_that_start_at_once_make_one_store(tmp_path):
    """Without a passphrase too: the key file is of whoever made the store."""
    for attempt in range(20):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        made = []

        class Racing(KeyFile):
            def make(self, directory, urandom, folder=folder, made=made):
                result = super().make(directory, urandom)
                if not made:
                    made.append(1)
                    made.append(KeyStore(folder / "keys", machine=MACHINE).host_id)
                return result

        assert open_store(folder, Racing()).host_id == made[1]
        assert open_store(folder).host_id == made[1]


def test_close_wipes(tmp_path):
    store = open_store(tmp_path, known())
    store.add_claim(CODE, unique_id=1)
    held = [store._key, store._state.private, store._state.claims["id 00000001"]]
    assert all(any(item) for item in held)
    store.close()
    assert not any(any(item) for item in held)


def test_the_passphrase_is_wiped(tmp_path):
    given = bytearray(SECRET.encode())
    open_store(tmp_path, Passphrase(lambda new: given, 4))
    assert not any(given)


# -- where it comes from -----------------------------------------------------------------------------------------------


def test_ways_by_name():
    assert isinstance(parse_unlock("ask"), Ask)
    assert isinstance(parse_unlock("none"), KeyFile)
    assert isinstance(parse_unlock("keyring"), Keyring)
    for wrong in ("", "file:", "fd:", "fd:x", "pass:hunter2hunter2", "hunter2hunter2"):
        with pytest.raises(ValueError) as caught:
            parse_unlock(wrong)
        assert "file:PATH" in str(caught.value)


def test_a_passphrase_file(tmp_path, monkeypatch):
    path = written(tmp_path / "passphrase", SECRET.encode() + b"\r\nmore\n")
    monkeypatch.setattr(vault, "LOG2_N", 4)
    open_store(tmp_path, parse_unlock("file:%s" % path))
    open_store(tmp_path, known())
    path.chmod(0o640)
    with pytest.raises(KeyStoreError, match="can be read by others"):
        open_store(tmp_path, parse_unlock("file:%s" % path))
    with pytest.raises(KeyStoreError, match="cannot be read"):
        open_store(tmp_path, parse_unlock("file:%s" % (tmp_path / "none")))
    for content in (b"", b"\n", b"x" * 2000):
        path = written(tmp_path / "other", content)
        with pytest.raises(KeyStoreError, match="no passphrase from"):
            open_store(tmp_path, parse_unlock("file:%s" % path))


def test_a_descriptor(tmp_path):
    open_store(tmp_path, known())
    reading, writing = os.pipe()
    os.write(writing, SECRET.encode() + b"\n")
    os.close(writing)
    unlock = parse_unlock("fd:%d" % reading)
    store = open_store(tmp_path, unlock)
    open_store(tmp_path, known()).add_claim(CODE, unique_id=1)
    store.reload()
    assert store.claim_code(1)
    os.close(reading)
    with pytest.raises(KeyStoreError, match="no passphrase from descriptor"):
        open_store(tmp_path, parse_unlock("fd:%d" % reading))


# -- the keyring -------------------------------------------------------------------------------------------------------


@pytest.fixture
def keyring(monkeypatch):
    """A stand-in for the library `keyring`, with the functions and errors that are used of it."""
    entries = {}
    errors = types.ModuleType("keyring.errors")
    errors.KeyringError = type("KeyringError", (Exception,), {})
    library = types.ModuleType("keyring")
    library.errors = errors
    library.entries = entries
    library.broken = False

    def set_password(service, name, text):
        if library.broken:
            raise errors.KeyringError("no backend")
        entries[service, name] = text

    def get_password(service, name):
        if library.broken:
            raise errors.KeyringError("no backend")
        return entries.get((service, name))

    library.set_password = set_password
    library.get_password = get_password
    monkeypatch.setitem(sys.modules, "keyring", library)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)
    return library


def test_the_keyring_holds_a_key(tmp_path, keyring):
    store = open_store(tmp_path, Keyring())
    assert store.protection == (vault.KEYRING,)
    assert open_store(tmp_path, Keyring()).host_id == store.host_id
    # Nobody has to know how it was protected.
    assert open_store(tmp_path, Ask()).host_id == store.host_id
    with pytest.raises(KeyStoreLocked, match="locked by the OS keyring"):
        open_store(tmp_path, KeyFile())
    (entry,) = keyring.entries
    assert entry[0] == "packtrust"
    assert bytes(store._key).hex() != keyring.entries[entry]


@pytest.mark.parametrize("left", [None, "no hex", "00" * 32, "00"])
def test_a_keyring_without_the_key_is_told(tmp_path, keyring, left):
    open_store(tmp_path, Keyring())
    (entry,) = keyring.entries
    if left is None:
        del keyring.entries[entry]
    else:
        keyring.entries[entry] = left
    with pytest.raises(KeyStoreLocked, match="has no key for it"):
        open_store(tmp_path, Keyring())


def test_a_keyring_that_does_not_work_is_told(tmp_path, keyring, monkeypatch):
    keyring.broken = True
    with pytest.raises(KeyStoreLocked, match="cannot be used"):
        open_store(tmp_path, Keyring())
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(KeyStoreError, match="not installed"):
        open_store(tmp_path, Keyring())


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.fixture
def cli(monkeypatch):
    monkeypatch.setenv("PACKTRUST_MACHINE_ID", "machine one")
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(item) for item in arguments])


def test_keystore_info_and_passphrase(tmp_path, cli):
    one = written(tmp_path / "one", SECRET.encode())
    two = written(tmp_path / "two", b"another passphrase")
    store = ("--store", tmp_path / "keys")
    made = cli("keystore", "info", *store, "--unlock", "none")
    assert made.exit_code == 0 and "its key lies beside it" in made.stdout
    locked = cli("keystore", "passphrase", *store, "--unlock", "none", "--new", "file:%s" % one)
    assert locked.exit_code == 0 and "now protected by a passphrase" in locked.stdout
    changed = cli("keystore", "passphrase", *store, "--unlock", "file:%s" % one, "--new", "file:%s" % two, "--json")
    assert changed.exit_code == 0 and '"passphrase"' in changed.stdout
    old = cli("keystore", "info", *store, "--unlock", "file:%s" % one)
    assert old.exit_code == common.LOCKED and "wrong passphrase" in old.stderr and "Next:" in old.stderr
    new = cli("keystore", "info", *store, "--unlock", "file:%s" % two, "--json")
    assert new.exit_code == 0
    for result in (made, locked, changed, old, new):
        assert "guesses" not in result.stdout + result.stderr


def test_a_passphrase_given_as_an_option_is_refused_and_not_repeated(tmp_path, cli):
    result = cli("keystore", "info", "--store", tmp_path / "keys", "--unlock", "pass:hunter2hunter2")
    assert result.exit_code == 2
    assert "hunter2" not in result.stdout + result.stderr
    assert not (tmp_path / "keys").exists()


def without_terminal(*arguments, **environment):
    variables = {name: value for name, value in os.environ.items() if name != "PACKTRUST_UNLOCK"}
    variables |= {"PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.run(
        [sys.executable, "-c", "from packtrust_host.cli import main; main()", *map(str, arguments)],
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        check=False,
    )


def test_without_a_terminal_nothing_is_made_unprotected_by_itself(tmp_path):
    done = without_terminal("keystore", "info", "--store", tmp_path / "keys")
    assert done.returncode == common.LOCKED
    assert "no terminal to ask at" in done.stderr and "--unlock file:PATH" in done.stderr
    assert not (tmp_path / "keys" / "state").exists()


class Terminal:
    """A command at a pseudo-terminal, and somebody who types."""

    def __init__(self, *arguments):
        self.screen, terminal = pty.openpty()
        variables = {name: value for name, value in os.environ.items() if name != "PACKTRUST_UNLOCK"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from packtrust_host.cli import main; main()", *map(str, arguments)],
            env=variables | {"PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "300"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(terminal)
        self.seen = ""

    def type(self, prompt, text):
        at = len(self.seen)
        while prompt not in self.seen[at:]:
            self._read()
        os.write(self.screen, text.encode() + b"\n")

    def _read(self):
        assert select.select([self.screen], [], [], 60)[0], self.seen
        try:
            self.seen += os.read(self.screen, 65536).decode()
        except OSError:
            raise AssertionError("it ended: " + self.seen) from None

    def end(self):
        while True:
            try:
                self._read()
            except AssertionError:
                break
        os.close(self.screen)
        return self.process.wait(60)


def test_at_a_terminal_it_asks(tmp_path):
    arguments = ("keystore", "info", "--store", tmp_path / "keys")
    first = Terminal(*arguments)
    first.type("new passphrase", "short")
    first.type("the same again", "short")
    first.type("new passphrase", SECRET)
    first.type("the same again", SECRET + "x")
    first.type("new passphrase", SECRET)
    first.type("the same again", SECRET)
    assert first.end() == 0, first.seen
    assert "protected by a passphrase" in first.seen
    second = Terminal(*arguments)
    second.type("passphrase of", "not that one")
    second.type("passphrase of", SECRET)
    assert second.end() == 0, second.seen
    third = Terminal(*arguments)
    for _ in range(3):
        third.type("passphrase of", "not that one")
    assert third.end() == common.LOCKED, third.seen
    for terminal in (first, second, third):
        assert SECRET not in terminal.seen, "what is typed is not shown"


def test_an_empty_passphrase_is_none_and_it_says_so(tmp_path):
    terminal = Terminal("keystore", "info", "--store", tmp_path / "keys")
    terminal.type("new passphrase", "")
    assert terminal.end() == 0, terminal.seen
    assert "has its keys" in terminal.seen
    again = Terminal("keystore", "info", "--store", tmp_path / "keys")
    assert again.end() == 0, "made so on purpose: it is not asked about again"


def test_the_same_text_is_the_same_passphrase(monkeypatch):
    """An accented letter typed as one character or as two (NFC)."""
    typed = iter(["stra\u00dfe caf\u00e9", "stra\u00dfe cafe\u0301"])
    monkeypatch.setattr(unlocks.getpass, "getpass", lambda prompt: next(typed))
    assert unlocks._prompt("") == unlocks._prompt("")
