"""Host key stores of every schema in the project's history open with today's code, and are what docs/keys.md says."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import struct
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from packtrust_host.app import vault
from packtrust_host.app.errors import KeyStoreLocked
from packtrust_host.app.keystore import APP_PACK, KeyStore
from packtrust_host.app.unlock import KeyFile, Passphrase

FILE = pathlib.Path(__file__).with_name("keystore.json")
VECTORS = json.loads(FILE.read_text())
MACHINE = VECTORS["machine"].encode()


def passphrase(text=VECTORS["passphrase"]):
    return Passphrase(lambda new: bytearray(text.encode()), 4)


def laid_out(name, tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    for file, content in VECTORS["stores"][name]["files"].items():
        path = folder / file
        path.touch(0o600)
        path.write_bytes(bytes.fromhex(content))
    return folder


def check(store, name):
    vector = VECTORS["stores"][name]
    assert store.host_id == vector["host_id"]
    assert store.private_key.hex() == vector["private"]
    assert store.component_id == "COMP-app"
    assert store.devices[7].serial == "PACK-7" and store.devices[7].owned and store.devices[7].counter == 9
    record = store.relationships["lct-1"]
    assert (record.kind, record.epoch, record.epoch_tried, record.scope) == (APP_PACK, 3, 4, 63)
    assert [len(item) for item in (record.half_a, record.half_b, record.lct_half, record.root)] == [64, 64, 64, 32]
    assert record.pending.epoch == 4 and len(record.pending.receipt_keys["00000007"]) == 32
    assert len(store.claim_code(7)) == 16
    assert store.journal["register app"].result == {"component_id": "COMP-app"}
    assert store.halves_seen == {"ab" * 32: "device a b"}
    assert store.audit_log[0]["event"] == "clear first transfer"
    if name == VECTORS["newest"]:
        assert store.devices[7].boot_counter == 11
        assert (record.salt_hash, record.rotated, record.pending.salt_hash) == ("5a" * 32, 2, "a5" * 32)
        assert len(store.signing_key(False)) == 32 and store.log_heads == {"host": "1 " + "cd" * 32}
        assert [len(key) for key in store.node_log_keys.values()] == [32]


def test_there_is_a_vector_of_every_schema():
    schemas = {struct.unpack_from(">16sH", bytes.fromhex(v["files"]["state"]))[1] for v in VECTORS["stores"].values()}
    assert schemas == set(range(1, vault.SCHEMA + 1))
    assert VECTORS["schema"] == vault.SCHEMA


def test_the_newest_vector_has_something_in_every_field_of_today(tmp_path):
    """Whoever adds a field adds a store that has it, so the ones before are opened without."""
    folder = laid_out(VECTORS["newest"], tmp_path)
    state = KeyStore(folder, machine=MACHINE)._state
    record = state.relationships["lct-1"]
    for item in (state, state.devices[7], record, record.pending, state.journal["register app"]):
        for field in dataclasses.fields(item):
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                continue
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            assert getattr(item, field.name) != default, "generate_keystore.py: no %s in NEWEST" % field.name


@pytest.mark.parametrize("name", sorted(VECTORS["stores"]))
def test_it_opens(tmp_path, name):
    folder = laid_out(name, tmp_path)
    check(KeyStore(folder, unlock=passphrase() if "passphrase" in name else KeyFile(), machine=MACHINE), name)


@pytest.mark.parametrize("name", ["1", "2 key file", VECTORS["newest"]])
def test_an_older_store_gets_a_passphrase_in_place(tmp_path, name):
    """Opened with a passphrase asked for by name: sealed anew, its key file overwritten and gone."""
    folder = laid_out(name, tmp_path)
    old = {path.name: path.read_bytes() for path in folder.iterdir()}
    with (folder / "key").open("rb") as key, (folder / "state").open("rb") as state:
        store = KeyStore(folder, unlock=passphrase(), machine=MACHINE)
        assert not any(key.read()), "the old key's blocks were overwritten"
        assert not any(state.read()), "and so was the old file's content"
    check(store, name)
    assert store.protection == (vault.PASSPHRASE,)
    assert not (folder / "key").exists()
    assert vault.parse((folder / "state").read_bytes()).head.schema == vault.SCHEMA
    # What lay there before opens nothing of what lies there now.
    (folder / "key").touch(0o600)
    (folder / "key").write_bytes(old["key"])
    with pytest.raises(KeyStoreLocked):
        KeyStore(folder, unlock=KeyFile(), machine=MACHINE)
    check(KeyStore(folder, unlock=passphrase(), machine=MACHINE), name)


class PowerCut(BaseException):
    """The machine died here."""


@pytest.mark.parametrize("name", ["1", "2 key file", "2 passphrase"])
def test_a_power_cut_while_it_is_locked_anew_leaves_a_store_that_opens(tmp_path, monkeypatch, name):
    """At every system call that changes the disk: the old protection or the new one opens all of it."""
    steps = ("write", "fsync", "replace", "unlink")
    real = {step: getattr(os, step) for step in steps}
    cut_at = 0
    opened_by = set()
    while True:
        home = tmp_path / str(cut_at)
        home.mkdir()
        folder = laid_out(name, home)
        old = passphrase() if "passphrase" in name else KeyFile()
        store = KeyStore(folder, unlock=old, machine=MACHINE)
        calls = [0]

        def dying(step, *args, calls=calls, cut_at=cut_at, **options):
            calls[0] += 1
            if calls[0] > cut_at:
                if step == "write":
                    real["write"](args[0], args[1][: len(args[1]) // 2])
                raise PowerCut
            return real[step](*args, **options)

        for step in steps:
            monkeypatch.setattr(os, step, lambda *args, step=step, **options: dying(step, *args, **options))
        done = False
        with contextlib.suppress(PowerCut):
            store.protect(passphrase("the new passphrase"))
            done = True
        for step in steps:
            monkeypatch.setattr(os, step, real[step])
        opened = 0
        has_key_file = vault.parse((folder / "state").read_bytes()).head.lock(vault.KEY_FILE) is not None
        for how, unlock in (("new", passphrase("the new passphrase")), ("old", old)):
            if how == "new" and has_key_file:
                continue
            with contextlib.suppress(KeyStoreLocked):
                # Not explicit: it is only to be opened here, not locked anew.
                unlock.explicit = False
                check(KeyStore(folder, unlock=unlock, machine=MACHINE), name)
                opened += 1
                opened_by.add(how)
                break
        assert opened, "cut at step %d" % cut_at
        if not has_key_file:
            assert not (folder / "key").exists(), "a key file left by the cut is removed at the next start"
        if done:
            break
        cut_at += 1
    assert cut_at >= 6
    assert opened_by == {"old", "new"}


def test_the_format_by_hand(tmp_path):
    """Schema 2 with a passphrase, opened as docs/keys.md says, with a stock library and none of our code."""
    content = bytes.fromhex(VECTORS["stores"]["2 passphrase"]["files"]["state"])
    magic, schema, machine, count = struct.unpack_from(">16sH32sB", content)
    assert (magic, schema, count) == (b"packtrust keys\0\0", 2, 1)
    assert machine == hashlib.sha256(b"packtrust v1 machine\0" + MACHINE).digest()
    kind, length = struct.unpack_from(">BH", content, 51)
    body = content[54 : 54 + length]
    kdf, log2_n, r, p, salt, nonce, sealed = struct.unpack(">BBBB32s12s48s", body)
    assert (kind, kdf, log2_n, r, p) == (1, 1, 10, 8, 1)
    wrapping = Scrypt(salt, 32, 1 << log2_n, r, p).derive(VECTORS["passphrase"].encode())
    aad = b"packtrust v1 host key store lock\0" + bytes((kind,)) + body[:36]
    data_key = AESGCM(wrapping).decrypt(nonce, sealed, aad)
    at = 54 + length
    assert content[at : at + 8] == hashlib.sha256(content[:at]).digest()[:8]
    end = at + 8 + 12
    key = HKDF(hashes.SHA256(), 32, machine, b"packtrust v1 host key store").derive(data_key)
    text = AESGCM(key).decrypt(content[at + 8 : end], content[end:], content[:end])
    assert json.loads(text)["host_id"] == VECTORS["stores"]["2 passphrase"]["host_id"]


def test_a_vector_that_is_deleted_is_made_anew(tmp_path):
    script = FILE.with_name("generate_keystore.py")
    copy = tmp_path / "tests" / "vectors" / script.name
    copy.parent.mkdir(parents=True)
    for part in ("shared", "host"):
        (tmp_path / part).symlink_to(FILE.parents[2] / part)
    copy.write_bytes(script.read_bytes())
    kept = {name: store for name, store in VECTORS["stores"].items() if name == "1"}
    copy.with_name(FILE.name).write_text(json.dumps({"stores": kept}))
    subprocess.run([sys.executable, copy], timeout=60, check=True)
    made = json.loads(copy.with_name(FILE.name).read_text())
    assert set(made["stores"]) == set(VECTORS["stores"])
    # Today's content from the same entropy: byte for byte the newest one.
    assert made["stores"][VECTORS["newest"]] == VECTORS["stores"][VECTORS["newest"]]


def test_vectors_are_what_the_code_writes():
    script = FILE.with_name("generate_keystore.py")
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
