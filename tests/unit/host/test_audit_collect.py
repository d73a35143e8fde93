"""The host collects what nodes wrote, verifies it and keeps it; captured nodes, and logs that were changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from app_bench import AppBench
from attacker import commission, nodes_of
from packtrust import audit
from packtrust.arbitration import compose
from packtrust.frame import Frame
from packtrust_host.app.errors import DeviceRefused, ProofFailed
from packtrust_host.audit.collect import Collected, Collector
from packtrust_host.audit.log import AuditError, AuditLogs
from packtrust_host.audit.watch import Watch
from packtrust_node import audit_log
from packtrust_node.store import MemorySlots

LOG = "pack-50000001"


@pytest.fixture
def bench(tmp_path: Path) -> AppBench:
    """Pack and two modules, claimed and keyed."""
    made = AppBench(tmp_path, modules=2)
    made.survey = commission(made)  # type: ignore[attr-defined]
    return made


def logs_of(bench: AppBench) -> AuditLogs:
    return AuditLogs(bench.store)


def log_name(bench: AppBench) -> str:
    return "pack-%08x" % bench.pack.node("pack").unique_id


def collect(bench: AppBench) -> list[Collected]:
    collector = Collector(bench.provisioner(), logs_of(bench))
    pack = bench.store.devices[bench.pack.node("pack").unique_id]
    found: list[Collected] = bench.run(collector.collect_all(pack))
    return found


def of(found: list[Collected], node: Any) -> Collected:
    return next(item for item in found if item.device.unique_id == node.unique_id)


def kinds(item: Collected) -> list[str]:
    return [entry.kind for entry in item.entries]


def test_everything_is_collected_once_and_verifies_offline(bench: AppBench) -> None:
    found = collect(bench)
    assert kinds(found[0]) == ["claimed", "package", "committed", "package", "committed", "package", "committed"]
    assert [kinds(item) for item in found[1:]] == [["claimed", "package", "committed"]] * 2
    assert [kinds(item) for item in collect(bench)] == [[], [], []]
    logs = logs_of(bench)
    verdict = logs.verify(log_name(bench))
    assert verdict.ok, verdict.findings
    assert sorted(verdict.nodes.values()) == [3, 3, 7]
    noted = [entry["what"] for entry in logs.entries(log_name(bench))]
    for what in ("registered", "package", "claimed", "installed", "proved", "committed", "active"):
        assert what in noted, noted
    # The host names packages by the same ids as the devices do.
    sent = {entry["key_id"] for entry in logs.entries(log_name(bench)) if entry["what"] == "package"}
    taken = {entry.values["key_id"] for item in found for entry in item.entries if entry.kind == "package"}
    assert sent == taken


def test_no_secret_is_in_the_log(bench: AppBench) -> None:
    collect(bench)
    text = b"".join(path.read_bytes() for path in logs_of(bench).folder.iterdir())
    secrets = [bench.store.private_key, bench.store.signing_key(False), *bench.store.node_log_keys.values()]
    for record in bench.store.relationships.values():
        secrets += [record.half_a, record.half_b, record.lct_half, record.root]
    for node in nodes_of(bench):
        secrets += [relation.root for relation in node.relations.values()]
    for secret in secrets:
        for at in range(0, len(secret) - 7, 8):
            part = bytes(secret[at : at + 8])
            assert part not in text and part.hex().encode() not in text


def test_a_receipt_that_is_lost_at_the_claim_loses_no_log(tmp_path: Path) -> None:
    """The device is claimed, the app has not heard: its next package is of mode Auth, and still the log verifies."""
    made = AppBench(tmp_path, modules=1)
    dropped = []
    module_bus = made.pack.buses["module"]
    real = made.pack.node("pack")._relay_back

    def lose(slot: Any, payload: bytes) -> None:
        if payload[1] == 0x04 and not dropped:
            dropped.append(payload)
            return
        real(slot, payload)

    made.pack.node("pack")._relay_back = lose
    commission(made)
    assert dropped and module_bus
    device = "%08x " % made.pack.node("module1").unique_id
    assert len([name for name in made.store.node_log_keys if name.startswith(device)]) == 1
    found = collect(made)
    assert kinds(found[1])[0] == "claimed"
    assert logs_of(made).verify(log_name(made)).ok


def flash_of(bench: AppBench, name: str) -> Any:
    return bench.pack.node(name).env.store


def test_a_captured_node_that_rewrites_its_past_is_found_out(bench: AppBench) -> None:
    """He holds all its flash: he leaves out the package that was taken, and signs with the key he finds."""
    node = bench.pack.node("module1")
    device = bench.store.devices[node.unique_id]
    log = audit_log._load(node)
    key = log.key
    block = bytearray(log.block[:32])
    chain = bytes(32)
    entries = parts(log)
    for number, raw in enumerate(entries):
        parsed = audit.parse_entry(raw)
        assert parsed is not None
        if parsed.kind == "package":
            raw = audit.encode_entry(number, 1, 1, "aborted", audit.key_event(1, 1, 1))
        chain = audit.link(chain, raw)
        block += bytes((len(raw),)) + raw + audit.entry_mac(key, chain)
    log.raw = log.raw[: -len(log.block)] + block
    log.chain = chain
    log.save(node)
    collector = Collector(bench.provisioner(), logs_of(bench))
    before = len(logs_of(bench).entries(log_name(bench)))
    with pytest.raises(ProofFailed, match="entry 0 of the audit log of"):
        bench.run(collector.collect(device, log_name(bench)))
    assert len(logs_of(bench).entries(log_name(bench))) == before


def parts(log: Any) -> list[bytes]:
    found = []
    at = 32
    while at < len(log.block):
        stop = at + 1 + log.block[at]
        found.append(bytes(log.block[at + 1 : stop]))
        at = stop + 32
    return found


def test_with_a_key_that_does_not_change_he_would_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: without the ratchet the same forgery is believed."""
    monkeypatch.setattr(audit, "next_key", lambda key: bytearray(key))
    made = AppBench(tmp_path, modules=1)
    commission(made)
    node = made.pack.node("module1")
    log = audit_log._load(node)
    block = bytearray(log.block[:32])
    chain = bytes(32)
    for raw in parts(log):
        parsed = audit.parse_entry(raw)
        assert parsed is not None
        if parsed.kind == "package":
            raw = audit.encode_entry(parsed.number, 1, 1, "aborted", audit.key_event(1, 1, 1))
        chain = audit.link(chain, raw)
        block += bytes((len(raw),)) + raw + audit.entry_mac(log.key, chain)
    log.raw, log.chain = log.raw[: -len(log.block)] + block, chain
    log.save(node)
    found = collect(made)
    assert kinds(found[1]) == ["claimed", "aborted", "committed"]


def test_an_old_copy_of_a_node_s_flash_is_found_out(bench: AppBench) -> None:
    """He puts back what the flash was before: number and chain fall behind what was collected."""
    node = bench.pack.node("module1")
    slots: MemorySlots = node.env.store._slots
    old = dict(slots.files)
    node.note("aborted", 1, 2, 3)
    collect(bench)
    slots.files = old
    with pytest.raises(ProofFailed, match=r"cannot vouch|is not true"):
        collect(bench)


def test_a_node_entry_changed_in_the_host_s_log_is_named(bench: AppBench) -> None:
    """By one who can sign: the Merkle tree holds, the node's MAC does not."""
    collect(bench)
    logs = logs_of(bench)
    name = log_name(bench)
    entries = logs.entries(name)
    at = next(index for index, entry in enumerate(entries) if entry["what"] == "node" and entry["kind"] == "committed")
    raw = bytearray.fromhex(entries[at]["entry"])
    raw[-1] ^= 1
    entries[at]["entry"] = raw.hex()
    bench.store.set_log_head(name, None)
    for path in (logs.log_path(name), logs.checkpoint_path(name)):
        path.unlink()
    logs.append(name, [{key: value for key, value in entry.items() if key not in ("n", "at")} for entry in entries])
    verdict = logs.verify(name)
    assert [(item.kind, item.entry) for item in verdict.findings] == [("forged", at)]


def test_signs_are_collected_and_cleared_by_the_owner_alone(bench: AppBench) -> None:
    node = bench.pack.node("module2")
    node.count("tag")
    bench.pack.run_for(1500)
    found = collect(bench)
    theirs = of(found, node)
    assert theirs.signs == ["forged-tag"] and theirs.score > 0
    assert [item.signs for item in found].count([]) == 2
    assert kinds(theirs)[-1] == "sign"
    collector = Collector(bench.provisioner(), logs_of(bench))
    with pytest.raises(DeviceRefused, match="has written more since"):
        bench.run(collector.clear_signs(theirs.device, theirs.following - 1))
    bench.run(collector.clear_signs(theirs.device, theirs.following))
    assert node.guard.signs == 0
    again = of(collect(bench), node)
    assert again.signs == [] and kinds(again) == ["signs-cleared"]
    # The app has heard of it by itself.
    assert bench.pack.run_until(lambda: node.own_node in bench.node.model.interference, 15_000)


def test_what_was_overwritten_is_told(bench: AppBench) -> None:
    collect(bench)
    node = bench.pack.node("module1")
    for number in range(150):
        node.note("package", 1, number, number)
    found = of(collect(bench), node)
    assert found.lost + len(found.entries) == 150 and found.lost > 80
    assert logs_of(bench).verify(log_name(bench)).ok
    node.note("aborted", 1, 2, 3)
    assert kinds(of(collect(bench), node)) == ["aborted"]
    assert logs_of(bench).verify(log_name(bench)).ok


def test_a_released_and_claimed_device_begins_a_new_log(bench: AppBench) -> None:
    collect(bench)
    device = bench.store.devices[bench.pack.node("module1").unique_id]
    bench.run(bench.provisioner().release(device))
    bench.pack.power_cycle("module1")
    bench.pack.run_for(9000)
    # The other end sees a module that had an owner say that it has none: a sign, until somebody looks at it.
    assert bench.pack.node("pack").guard.signs
    bench.claim("module1")
    bench.run(bench.provisioner().commission(bench.register, expected_modules=2))
    found = collect(bench)
    new = next(item for item in found if item.device.unique_id == device.unique_id)
    assert kinds(new)[0] == "claimed" and new.lost == 0
    assert logs_of(bench).verify(log_name(bench)).ok
    assert "factory-state" in found[0].signs


# -- the app's own watch -----------------------------------------------------------------------------------------------


def test_the_app_notes_counts_signs_and_records(bench: AppBench) -> None:
    logs = logs_of(bench)
    bench.node.watch = Watch(bench.node, logs, interval_ms=5000, records=True)
    bench.pack.node("pack").count("tag")
    # Another station says what only the app says.
    bench.node.on_frame(0, Frame(compose(0x405, 0x40), bytes(8)))
    bench.pack.run_for(12_000)
    entries = logs.entries(log_name(bench))
    counts = [entry for entry in entries if entry["what"] == "counts"]
    assert len(counts) == 2 and counts[0]["sealed"] > 10 and counts[0]["opened"] > 50
    assert counts[0]["refused"] == {"own-id": 1}
    signs = [entry for entry in entries if entry["what"] == "signs"]
    assert {"what": "signs", "app": True, "signs": ["own-id"]}.items() <= signs[0].items()
    assert signs[1]["module"] == 0 and signs[1]["signs"] == ["forged-tag"]
    records = [entry for entry in entries if entry["what"] == "record"]
    assert len(records) > 100 and {entry["sealed"] for entry in records} == {True, False}
    bench.node.close()
    assert logs.verify(log_name(bench)).ok


def test_a_grant_to_an_old_vcu_is_noted_before_it_is_asked_for(bench: AppBench) -> None:
    from packtrust.messages.table import STATE_ON
    from packtrust_host.cli.audit import _text

    logs = logs_of(bench)
    bench.node.watch = Watch(bench.node, logs)
    sealed: list[str] = []
    transmit = bench.node._transmit

    def watched(command: Any, counters: list[int]) -> None:
        sealed.append(command.name)
        transmit(command, counters)

    bench.node._transmit = watched  # type: ignore[method-assign]
    command = bench.node.grant(STATE_ON, 600)
    entry = logs.entries(log_name(bench))[-1]
    assert (entry["what"], entry["state"], entry["seconds"]) == ("grant", "On", 600)
    assert "grant" in _text(entry) and "600" in _text(entry)
    assert bench.pack.run_until(lambda: command.done, 5000) and len(sealed) == 1
    bench.node.watch.note("grant-answer", granted=False, detail=command.reason)
    assert logs.verify(log_name(bench)).ok
    # A log that is not the one signed last takes no entry: nothing is granted then.
    path = logs.log_path(log_name(bench))
    path.write_bytes(path.read_bytes().replace(b'"seconds":600', b'"seconds":100'))
    with pytest.raises(AuditError):
        bench.node.grant(STATE_ON, 600)
    assert len(sealed) == 1


def test_the_log_is_json_a_person_can_read(bench: AppBench) -> None:
    from packtrust_host.cli.audit import _text, shown

    collect(bench)
    for entry in logs_of(bench).entries(log_name(bench)):
        assert json.loads(json.dumps(shown(entry)))
        assert "%d  " % entry["n"] in _text(entry)
