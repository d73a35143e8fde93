"""No key of the host is in what its commands leave behind: files but the sealed store, output, arguments, environment,
errors; and no core dump.

The commands of the README run on a pack of real processes, under a passphrase; then every file they made, all they
said, and /proc of each while it ran, is searched for the keys that were really in use: the store's content, what the
nodes had in hands, the passphrase. The same search finds each key where it is put on purpose.
"""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from packtrust_host.app.keystore import KeyStore
from packtrust_host.app.unlock import parse_unlock
from packtrust_host.demo.keysearch import Key, KeySearch
from packtrust_host.hardening import no_core_dumps
from packtrust_host.sim.launcher import PackProcess

ROOT = Path(__file__).resolve().parents[2]
MAIN = "from packtrust_host.cli import main; main()"
PASSPHRASE = "kept-from-everybody 4711"
LIMIT_S = 100.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


class Left:
    """What commands left: text and bytes by where it was."""

    def __init__(self) -> None:
        self.where: dict[str, bytes] = {}

    def take(self, name: str, data: bytes) -> None:
        self.where[name] = self.where.get(name, b"") + data + b"\n"

    def search(self, keys: list[Key]) -> dict[str, set[str]]:
        looking = KeySearch(keys)
        found = {}
        for name, data in self.where.items():
            hits = {"%s (%s)" % hit for hit in looking.in_bytes(data)}
            if b"\\x" in data:  # as Python shows bytes
                shown = _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), data)
                hits |= {"%s (repr)" % hit[0] for hit in looking.in_bytes(shown)}
            if hits:
                found[name] = hits
        return found


class Watch(threading.Thread):
    """Reads arguments and environment of a process and all its descendants, again and again while it runs."""

    def __init__(self, pid: int, left: Left) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._left = left
        self.ended = threading.Event()
        self.seen: set[tuple[int, str, bytes]] = set()

    def run(self) -> None:
        while not self.ended.wait(0.02):
            self.look()

    def look(self) -> None:
        for pid in self._family():
            for name in ("cmdline", "environ"):
                try:
                    data = Path("/proc/%d/%s" % (pid, name)).read_bytes()
                except OSError:  # it has ended, or is not dumpable and we are not root
                    continue
                self.seen.add((pid, name, data))

    def _family(self) -> list[int]:
        family = [self._pid]
        for pid in family:
            try:
                for children in Path("/proc/%d/task" % pid).glob("*/children"):
                    family += [int(child) for child in children.read_text().split()]
            except OSError:
                continue
        return family

    def end(self) -> None:
        self.ended.set()
        self.join()
        for pid, name, data in self.seen:
            self._left.take("%s of a process" % name, b"%d " % pid + data)


class Host:
    """Commands under one key store, home and passphrase file; what they leave goes to `left`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.left = Left()
        (folder / "run").mkdir(mode=0o700)
        self.passphrase = folder / "passphrase"
        self.passphrase.touch(0o600)
        self.passphrase.write_text(PASSPHRASE + "\n")
        self.store = folder / "data" / "packtrust" / "keys"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("XDG_")},
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "XDG_DATA_HOME": str(folder / "data"),
            "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("shared", "host", "firmware")),
            "PACKTRUST_UNLOCK": "file:%s" % self.passphrase,
            # Whoever looks for a bug sets these: nothing more than without them.
            "PYTHONFAULTHANDLER": "1",
            "PYTHONASYNCIODEBUG": "1",
            "PYTHONDEVMODE": "1",
        }

    def start(self, *arguments: str) -> tuple[subprocess.Popen[bytes], Watch]:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", MAIN, *arguments],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        watch = Watch(process.pid, self.left)
        watch.start()
        return process, watch

    def run(self, *arguments: str, code: int = 0) -> str:
        process, watch = self.start(*arguments)
        said, _ = process.communicate(timeout=LIMIT_S)
        watch.end()
        self.left.take("output of %s" % " ".join(arguments[:2]), said)
        assert process.returncode == code, said.decode()
        return said.decode()

    def keys(self) -> list[Key]:
        """Every secret of the store, by name."""
        store = KeyStore(self.store, unlock=parse_unlock("file:%s" % self.passphrase))
        found = [Key(bytes(store.private_key), "binding key"), Key(bytes(store._key), "data key")]
        for name, code in store._state.claims.items():
            found.append(Key(bytes(code), "claim code " + name))
        for record in store.relationships.values():
            for name in ("half_a", "half_b", "lct_half", "root"):
                if getattr(record, name):
                    found.append(Key(bytes(getattr(record, name)), "%s of %s" % (name, record.kind)))
            if record.pending is not None:
                for secret in record.pending.receipt_keys.values():
                    found.append(Key(bytes(secret), "receipt key"))
        return found

    def files(self) -> None:
        """Take every file but the sealed store, the passphrase file, and the nodes' own flash."""
        spared = {self.store / "state", self.passphrase}
        for path in self.folder.rglob("*"):
            if path in spared or "flash" in path.parts or not path.is_file():
                continue
            self.left.take("file %s" % path.name, path.read_bytes())


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> tuple[Host, list[Key]]:
    """Everything of the README done once, and the keys of it."""
    made = Host(tmp_path_factory.mktemp("host"))
    bridge, bridge_watch = made.start("bridge", "--port", "0", "--database", str(made.folder / "bridge.db"))
    assert bridge.stdout is not None
    while b"bridge at" not in (line := bridge.stdout.readline()):
        assert line, "the bridge did not start"
    made.left.take("output of bridge", line)
    made.environment["PACKTRUST_BRIDGE"] = line.decode().split("bridge at ")[1].split(",")[0]
    with PackProcess(directory=made.folder / "pack", modules=2, seed=1, tap=True) as pack:
        can = "slcan:%s?bitrate=500000" % pack.adapter("vcu")
        codes = []
        for name, code in pack.claim_codes.items():
            file = made.folder / "code"
            file.write_text(code)
            made.run("claim", "add", "%08x" % pack.info["nodes"][name]["unique_id"], "--code-file", str(file))
            file.unlink()
            codes.append(Key(bytes.fromhex(code), "claim code of %s" % name))
        before = made.keys()
        made.run("claim", "list", "--json")
        made.run("provision", "--can", can, "--modules", "2")
        made.run("provision", "--can", can, "--modules", "2", "--json")
        made.run("monitor", "--can", can, "--duration", "2")
        made.run("monitor", "--can", can, "--duration", "1", "--json")
        made.run("validate", "--can", can, "--json")
        made.run("keystore", "info", "--json")
        # What fails says no more.
        made.run("provision", "--can", can, "--bridge", "http://127.0.0.1:9", code=1)
        made.run("claim", "add", "13c857f1", "--code-file", str(made.passphrase), code=1)
        made.run("monitor", "--can", "slcan:/dev/none", code=1)
        tapped = [
            Key(bytes.fromhex(key), ", ".join(owners))
            for key, owners in pack.control("keys").items()
            if len(key) >= 16 and any(" aes" in owner or " okm" in owner or " private" in owner for owner in owners)
        ]
        logs = [path.read_bytes() for path in (made.folder / "pack").glob("*.log")]
    bridge.send_signal(signal.SIGINT)
    bridge_watch.end()
    said, _ = bridge.communicate(timeout=LIMIT_S)
    made.left.take("output of bridge", said)
    for data in logs:
        made.left.take("bus logs", data)
    keys = [*before, *codes, *made.keys(), *tapped, Key(PASSPHRASE.encode(), "passphrase")]
    made.files()
    return made, keys


def test_no_key_is_left_anywhere(host: tuple[Host, list[Key]]) -> None:
    made, keys = host
    kinds = {key.name.split()[0] for key in keys}
    assert {"binding", "data", "claim", "half_a", "half_b", "root", "passphrase"} <= kinds, kinds
    names = set(made.left.where)
    assert {"cmdline of a process", "environ of a process", "bus logs", "output of provision --can"} <= names, names
    # The bridge hands out halves: its own database has them, and is no file of the app's.
    made.left.where = {name: data for name, data in made.left.where.items() if "bridge.db" not in name}
    assert made.left.search(keys) == {}


@pytest.mark.parametrize(
    "where", ["cmdline of a process", "environ of a process", "output of monitor --can", "bus logs"]
)
@pytest.mark.parametrize("form", ["raw", "hex", "base64"])
def test_keys_put_there_on_purpose_are_found(host: tuple[Host, list[Key]], where: str, form: str) -> None:
    made, keys = host
    for key in keys:
        text = {
            "raw": key.value,
            "hex": key.value.hex().encode(),
            "base64": base64.b64encode(key.value),
            "repr": repr(key.value).encode(),
        }[form]
        left = Left()
        left.take(where, made.left.where[where][:500] + b" " + text)
        assert where in left.search([key]), key.name


def test_an_argument_and_a_variable_are_seen(tmp_path: Path) -> None:
    """The control of the watch: a child of a child with a key in its arguments, one with a key in its environment."""
    key = os.urandom(32)
    left = Left()
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()', %r], env={'KEY': %r})"
    process = subprocess.Popen([sys.executable, "-c", code % (key.hex(), key.hex())], stdin=subprocess.PIPE)
    watch = Watch(process.pid, left)
    until = time.monotonic() + 30
    while not any(name == "environ" and key.hex().encode() in data for _, name, data in watch.seen):
        assert time.monotonic() < until
        watch.look()
    process.communicate(b"\n", timeout=30)
    watch.start()
    watch.end()
    assert set(left.search([Key(key, "key")])) == {"cmdline of a process", "environ of a process"}


# -- exceptions --------------------------------------------------------------------------------------------------------


def test_a_traceback_with_all_its_values_has_no_key(tmp_path: Path) -> None:
    """A crash inside a transaction, told by a tool that prints every local variable of every frame by its repr."""
    from rich.console import Console
    from rich.traceback import Traceback

    store = KeyStore(tmp_path / "keys", machine=b"one")
    code = os.urandom(16)
    store.add_claim(code, unique_id=7)

    def crash() -> None:
        with store.transaction() as state:
            assert state.claims
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError) as caught:
        crash()
    out = Console(record=True, width=10_000, file=open(os.devnull, "w"))  # noqa: SIM115
    trace = Traceback.from_exception(RuntimeError, caught.value, caught.value.__traceback__, show_locals=True)
    trace.locals_max_length = trace.locals_max_string = None  # type: ignore[attr-defined]
    out.print(trace)
    text = out.export_text().encode()
    assert b"state" in text
    keys = [Key(bytes(store.private_key), "binding key"), Key(bytes(store._key), "data key")]
    left = Left()
    left.take("traceback", text)
    assert left.search(keys) == {}
    # The control: a key as a local variable of its own.
    left.take("traceback", repr(store.private_key).encode())
    assert left.search(keys)


def test_a_virtual_packs_claim_codes_are_in_the_store_alone(tmp_path: Path) -> None:
    """`packtrust pack` copies them from the consoles; it tells what runs in a file and on its output."""
    made = Host(tmp_path)
    process, watch = made.start("pack", "--modules", "1", "--json", "--directory", str(tmp_path / "pack"))
    assert process.stdout is not None
    said = b""
    while not _is_json(said[said.find(b"{") :]):  # after what debug modes may say
        line = process.stdout.readline()
        assert line, said
        said += line
    made.left.take("state file", (tmp_path / "run" / "packtrust" / "pack.json").read_bytes())
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=LIMIT_S)
    watch.end()
    made.left.take("output of pack", said + rest)
    made.files()
    keys = made.keys()
    assert sum(key.name.startswith("claim code") for key in keys) == 2
    assert made.left.search([*keys, Key(PASSPHRASE.encode(), "passphrase")]) == {}


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


# -- core dumps --------------------------------------------------------------------------------------------------------

CRASHING = """
import os, resource, signal, sys
resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
%s
os.kill(os.getpid(), signal.SIGSEGV)
"""


def crashed(folder: Path, code: str) -> tuple[int, bool]:
    """The signal that a process ended by, and whether the kernel says that it made a core dump."""
    process = subprocess.Popen(
        [sys.executable, "-c", CRASHING % code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    with process.stderr as stream:
        said = stream.read().decode()
    _, status = os.waitpid(process.pid, 0)
    process.returncode = status
    assert os.WIFSIGNALED(status), "it ended by itself: %s" % said
    return os.WTERMSIG(status), os.WCOREDUMP(status)


def test_a_crash_leaves_no_core_dump(tmp_path: Path) -> None:
    """A real crash; the control crashes without the precaution, and is dumped where the kernel does so."""
    hardened = "from packtrust_host.cli.common import open_store; open_store(__import__('pathlib').Path('k'), 'none')"
    assert crashed(tmp_path, hardened) == (signal.SIGSEGV, False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k"]
    dumped = crashed(tmp_path, "")
    assert dumped[0] == signal.SIGSEGV
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != 0 and not pattern.startswith("|"):
        assert dumped[1], "the control: here a crash is dumped (core_pattern %r)" % pattern


def test_each_command_that_opens_the_store_is_not_dumpable() -> None:
    """What the kernel says of a process after `no_core_dumps`: nothing of it is anybody's but root's."""
    code = (
        "import ctypes, json, resource; from packtrust_host.hardening import no_core_dumps; no_core_dumps(); "
        "print(json.dumps([ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=60, check=True)
    assert json.loads(done.stdout) == [0, [0, 0]]
    assert callable(no_core_dumps)
