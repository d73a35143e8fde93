"""The host key store: what it keeps, how it fails, and that it never shows a secret."""

import json
import os
import stat
import threading

import pytest

from packtrust_host.app import keystore as keystores
from packtrust_host.app.errors import KeyStoreError
from packtrust_host.app.keystore import APP_PACK, KEYED, PACK_MODULE, Device, KeyStore, Pending, RelationshipRecord

MACHINE = b"machine one"
CODE = "00112233445566778899aabbccddeeff"


def open_store(path, **options):
    options.setdefault("machine", MACHINE)
    return KeyStore(path / "keys", **options)


def device(unique_id=7, public=bytes(range(32)), **options):
    return Device(unique_id, "MOD-%d" % unique_id, 2, "standard", public, 1, **options)


def relationship(lct_id="lct-1", **options):
    values = {
        "lct_id": lct_id,
        "kind": APP_PACK,
        "component_a": "COMP-a",
        "component_b": "COMP-b",
        "unique_id_a": 0,
        "unique_id_b": 7,
        "fingerprint_a": bytes(32),
        "fingerprint_b": bytes([1] * 32),
        "node": 0x40,
    }
    return RelationshipRecord(**(values | options))


def test_identity_is_made_once(tmp_path):
    first = open_store(tmp_path)
    again = open_store(tmp_path)
    other = open_store(tmp_path / "other")
    assert len(bytes.fromhex(first.host_id)) == 16
    assert again.host_id == first.host_id
    assert again.public_key == first.public_key
    assert again.fingerprint == first.fingerprint
    assert other.host_id != first.host_id
    assert other.public_key != first.public_key


def test_files_are_for_the_owner_alone(tmp_path):
    store = open_store(tmp_path)
    store.add_claim(CODE, unique_id=7)
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700
    names = [path.name for path in store.directory.iterdir()]
    assert {"key", "state"} <= set(names)
    for path in store.directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_refuses_files_others_can_read(tmp_path):
    store = open_store(tmp_path)
    (store.directory / "key").chmod(0o644)
    with pytest.raises(KeyStoreError, match="can be read by others"):
        open_store(tmp_path)
    (store.directory / "key").chmod(0o600)
    store.directory.chmod(0o755)
    with pytest.raises(KeyStoreError, match="chmod"):
        open_store(tmp_path)


def test_everything_comes_back(tmp_path):
    store = open_store(tmp_path)
    kept = relationship(
        half_a=bytearray(b"a" * 64),
        half_b=bytearray(b"b" * 64),
        lct_half=bytearray(b"l" * 64),
        root=bytearray(b"r" * 32),
        epoch=3,
        epoch_tried=4,
        state=KEYED,
        pending=Pending(4, {"00000007": bytearray(b"k" * 32)}, bytearray(b"n" * 32)),
    )
    with store.transaction() as state:
        state.component_id = "COMP-app"
        state.devices[7] = device(owned=True, component_id="COMP-b", counter=9)
        state.relationships["lct-1"] = kept
    store.add_claim(CODE, serial="MOD-8")
    store.intend("register app", "digest")
    store.complete("register app", {"component_id": "COMP-app"})
    store.save_halves_seen({"ab" * 32: "device a b"})
    store.audit("clear first transfer", device="MOD-7")
    again = open_store(tmp_path)
    assert again.component_id == "COMP-app"
    assert again.devices[7] == store.devices[7]
    assert again.relationships["lct-1"] == kept
    assert again.relationships["lct-1"].pending.receipt_keys == {"00000007": bytearray(b"k" * 32)}
    assert again.claim_code(8, "MOD-8") == bytearray.fromhex(CODE)
    assert again.journal["register app"].result == {"component_id": "COMP-app"}
    assert again.halves_seen == {"ab" * 32: "device a b"}
    assert again.audit_log[0]["device"] == "MOD-7"
    assert again.audit_log[0]["event"] == "clear first transfer"


def test_content_is_sealed(tmp_path):
    store = open_store(tmp_path)
    store.add_claim(CODE, unique_id=7)
    with store.transaction() as state:
        state.relationships["lct-1"] = relationship(half_a=bytearray(range(64)))
    raw = b"".join(path.read_bytes() for path in store.directory.iterdir())
    for secret in (bytes.fromhex(CODE), bytes(range(64)), bytes(store.private_key)):
        assert secret not in raw
        assert secret.hex().encode() not in raw
    assert b"lct-1" not in raw


def test_another_machine_opens_nothing(tmp_path):
    open_store(tmp_path)
    with pytest.raises(KeyStoreError, match="another machine"):
        open_store(tmp_path, machine=b"machine two")
    # The hash in the head is no lock by itself: with it forged the seal does not open.
    path = tmp_path / "keys" / "state"
    raw = bytearray(path.read_bytes())
    other = open_store(tmp_path / "other", machine=b"machine two")
    raw[18:50] = (other.directory / "state").read_bytes()[18:50]
    path.write_bytes(raw)
    with pytest.raises(KeyStoreError, match="damaged or was changed"):
        open_store(tmp_path, machine=b"machine two")


@pytest.mark.parametrize("at", [0, 17, 20, 60, 100, -1])
def test_a_changed_byte_is_seen(tmp_path, at):
    store = open_store(tmp_path)
    path = store.directory / "state"
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    with pytest.raises(KeyStoreError):
        open_store(tmp_path)


def test_cut_or_lost_files_are_named(tmp_path):
    store = open_store(tmp_path)
    state = (store.directory / "state").read_bytes()
    (store.directory / "state").write_bytes(state[:30])
    with pytest.raises(KeyStoreError, match="damaged"):
        open_store(tmp_path)
    (store.directory / "state").unlink()
    with pytest.raises(KeyStoreError, match="has a key but no state"):
        open_store(tmp_path)
    (store.directory / "state").write_bytes(state)
    (store.directory / "state").chmod(0o600)
    (store.directory / "key").unlink()
    with pytest.raises(KeyStoreError, match=r"key file .* is missing"):
        open_store(tmp_path)


def test_newer_schema_is_not_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(keystores.vault, "SCHEMA", 2)
    newer = open_store(tmp_path)
    before = (newer.directory / "state").read_bytes()
    monkeypatch.setattr(keystores.vault, "SCHEMA", 1)
    with pytest.raises(KeyStoreError, match="schema 2"):
        open_store(tmp_path)
    assert (newer.directory / "state").read_bytes() == before


class PowerCut(Exception):
    """The machine died here."""


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_power_cut_leaves_old_or_new(tmp_path, monkeypatch, step):
    store = open_store(tmp_path)
    store.add_claim(CODE, unique_id=1)
    host_id = store.host_id
    real = getattr(os, step)
    cut_at = 0
    outcomes = set()
    while True:
        calls = [0]

        def dying(*args, calls=calls, cut_at=cut_at):
            calls[0] += 1
            if calls[0] > cut_at:
                if step == "write":
                    real(args[0], args[1][: len(args[1]) // 2])
                raise PowerCut
            return real(*args)

        monkeypatch.setattr(os, step, dying)
        try:
            store.add_claim(bytes([cut_at + 1] * 16), unique_id=2)
            done = True
        except PowerCut:
            done = False
        monkeypatch.setattr(os, step, real)
        again = open_store(tmp_path)
        assert again.host_id == host_id
        assert again.claim_code(1) == bytearray.fromhex(CODE)
        outcomes.add(again.claim_code(2) is not None)
        if done:
            break
        cut_at += 1
    assert cut_at >= 1
    assert True in outcomes
    assert (store.claim_code(2) is not None) == (open_store(tmp_path).claim_code(2) is not None)


def test_power_cut_at_first_start_is_made_good(tmp_path, monkeypatch):
    real = os.replace
    calls = [0]

    def dying(*args):
        calls[0] += 1
        if calls[0] == 2:  # the key is there, the state is not
            raise PowerCut
        return real(*args)

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(PowerCut):
        open_store(tmp_path)
    monkeypatch.setattr(os, "replace", real)
    store = open_store(tmp_path)
    assert open_store(tmp_path).host_id == store.host_id


def test_failed_transaction_changes_nothing(tmp_path):
    store = open_store(tmp_path)

    def change_and_fail():
        with store.transaction() as state:
            state.component_id = "COMP-wrong"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        change_and_fail()
    assert store.component_id == ""
    assert open_store(tmp_path).component_id == ""


def test_two_processes_do_not_undo_each_other(tmp_path):
    one = open_store(tmp_path)
    two = open_store(tmp_path)
    one.add_claim(CODE, unique_id=1)
    two.add_claim(CODE, unique_id=2)
    one.reload()
    assert one.claim_code(1) is not None
    assert one.claim_code(2) is not None


def test_threads_do_not_undo_each_other(tmp_path):
    store = open_store(tmp_path)
    with store.transaction() as state:
        state.devices[7] = device()

    def take():
        for _ in range(20):
            store.next_counter(7)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert open_store(tmp_path).devices[7].counter == 80


def test_counters_only_rise(tmp_path):
    store = open_store(tmp_path)
    with store.transaction() as state:
        state.devices[7] = device(counter=4)
    assert store.next_counter(7) == 5
    assert store.next_counter(7, 100) == 100
    assert store.next_counter(7, 50) == 101
    assert open_store(tmp_path).next_counter(7) == 102
    with pytest.raises(KeyStoreError, match="used up"):
        store.next_counter(7, 0xFFFFFFFF)


def test_claim_codes(tmp_path):
    store = open_store(tmp_path)
    store.add_claim(" %s\n" % CODE.upper(), unique_id=1)
    store.add_claim(bytes(16), serial="MOD-2")
    assert store.claim_code(1) == bytearray.fromhex(CODE)
    assert store.claim_code(2, "MOD-2") == bytearray(16)
    assert store.claim_code(3, "MOD-3") is None
    store.burn_claim(2, "MOD-2")
    assert open_store(tmp_path).claim_code(2, "MOD-2") is None
    for bad in ("", "00", CODE + "00", "zz" * 16, b"short"):
        with pytest.raises(KeyStoreError, match="32 hex digits"):
            store.add_claim(bad, unique_id=4)
    with pytest.raises(KeyStoreError, match="unique id or a serial"):
        store.add_claim(CODE)


def test_no_secret_is_ever_shown(tmp_path):
    store = open_store(tmp_path)
    store.add_claim(CODE, unique_id=7)
    record = relationship(
        half_a=bytearray(b"A" * 64),
        root=bytearray(b"R" * 32),
        pending=Pending(1, {"x": bytearray(b"K" * 32)}, bytearray(b"N" * 32)),
    )
    with store.transaction() as state:
        state.relationships["lct-1"] = record
        shown = repr(state) + repr(store) + repr(record) + repr(record.pending) + repr(store.relationships)
    for secret in (bytes.fromhex(CODE), bytes(store.private_key), b"A" * 64, b"R" * 32, b"K" * 32, b"N" * 32):
        assert repr(bytes(secret))[2:-1] not in shown
        assert secret.hex() not in shown.lower()
    with pytest.raises(KeyStoreError) as caught:
        store.add_claim(CODE[:-1], unique_id=1)
    assert CODE[:-1] not in str(caught.value)


def test_wiping_a_record_wipes_what_it_holds():
    record = relationship(
        half_a=bytearray(b"A" * 64),
        root=bytearray(b"R" * 32),
        pending=Pending(1, {"x": bytearray(b"K" * 32)}, bytearray(b"N" * 32)),
    )
    record.wipe()
    assert not any(record.half_a)
    assert not any(record.root)
    assert not any(record.pending.receipt_keys["x"])
    assert not any(record.pending.root)


def test_queries(tmp_path):
    store = open_store(tmp_path)
    with store.transaction() as state:
        state.devices[7] = device(component_id="COMP-b")
        state.relationships["lct-1"] = relationship()
        for node in (2, 1):
            name = "lct-m%d" % node
            state.relationships[name] = relationship(
                name, kind=PACK_MODULE, unique_id_a=7, unique_id_b=10 + node, node=node
            )
    assert store.app_pack(7).lct_id == "lct-1"
    assert store.app_pack(node=0x40).lct_id == "lct-1"
    assert store.app_pack(8) is None
    assert [record.node for record in store.modules_of(7)] == [1, 2]
    assert store.device_of("COMP-b").unique_id == 7
    assert store.device_of("COMP-z") is None


def test_machine_id_falls_back(monkeypatch, tmp_path):
    monkeypatch.delenv("PACKTRUST_MACHINE_ID", raising=False)
    empty = tmp_path / "machine-id"
    empty.write_text("")
    full = tmp_path / "dbus-id"
    full.write_text("0123456789abcdef\n")
    monkeypatch.setattr(keystores, "_MACHINE_ID_FILES", (str(tmp_path / "none"), str(empty), str(full)))
    assert keystores.machine_id() == b"0123456789abcdef"
    monkeypatch.setattr(keystores, "_MACHINE_ID_FILES", ())
    assert keystores.machine_id() == os.uname().nodename.encode()
    monkeypatch.setenv("PACKTRUST_MACHINE_ID", "named")
    assert keystores.machine_id() == b"named"


def test_default_directory_is_the_users():
    assert keystores.default_directory().is_absolute()
    assert "packtrust" in keystores.default_directory().parts


def test_plain_state_is_json(tmp_path):
    store = open_store(tmp_path)
    with store.transaction() as state:
        state.devices[7] = device()
        text = json.dumps(keystores._plain(state))
    assert keystores._decode(json.loads(text)).devices[7] == device()
