"""`packtrust audit` on a key store with a log, without a bus: what it prints, its JSON, its exit codes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app_bench import MACHINE, AppBench
from attacker import commission
from packtrust_host.audit.collect import Collector
from packtrust_host.audit.log import AuditLogs
from packtrust_host.audit.note import split_notes
from packtrust_host.cli import app


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key store of a pack that was provisioned and whose logs were collected."""
    folder = tmp_path_factory.mktemp("audit")
    bench = AppBench(folder, modules=1)
    commission(bench)
    collector = Collector(bench.provisioner(), AuditLogs(bench.store))
    bench.run(collector.collect_all(bench.store.devices[bench.pack.node("pack").unique_id]))
    bench.node.close()
    return folder / "keys"


@pytest.fixture
def store(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it."""
    monkeypatch.setenv("PACKTRUST_MACHINE_ID", MACHINE.decode())
    copy = tmp_path / "keys"
    copy.mkdir(mode=0o700)
    for path in made.rglob("*"):
        target = copy / path.relative_to(made)
        if path.is_dir():
            target.mkdir(mode=0o700)
        else:
            target.write_bytes(path.read_bytes())
            target.chmod(path.stat().st_mode)
    return copy


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["audit", *map(str, arguments)])


def log_of(store: Path) -> Path:
    return next((store / "audit").glob("pack-*.log"))


def test_show(store: Path) -> None:
    shown = run("show", "--store", store)
    assert shown.exit_code == 0
    for word in ("registered", "claimed", "committed", "node", "package"):
        assert word in shown.output
    document = json.loads(run("show", log_of(store).stem, "--store", store, "--json", "--last", 3).output)
    entries = document[log_of(store).stem]
    assert len(entries) == 3 and entries[-1]["what"] == "node" and entries[-1]["kind"] == "committed"


def test_verify_an_honest_log(store: Path) -> None:
    done = run("verify", "--store", store)
    assert done.exit_code == 0 and "Everything is as it was signed" in done.output
    document = json.loads(run("verify", "--store", store, "--json").output)
    verdict = document["logs"][log_of(store).stem]
    assert document["ok"] and verdict["entries"] > 10 and sum(verdict["nodes"].values()) == 8


def test_verify_names_the_entry_that_was_edited(store: Path) -> None:
    path = log_of(store)
    lines = path.read_bytes().split(b"\n")
    lines[5] = lines[5].replace(b"epoch", b"epocH")
    path.write_bytes(b"\n".join(lines))
    done = run("verify", path.stem, "--store", store)
    assert done.exit_code == 1 and "entry 5 is not what was signed" in done.output
    document = json.loads(run("verify", "--store", store, "--json").output)
    assert document["logs"][path.stem]["findings"][0]["entry"] == 5


def test_export_and_verify_elsewhere_without_the_key_store(store: Path, tmp_path: Path) -> None:
    name = log_of(store).stem
    done = run("export", tmp_path / "bundle", name, "--store", store)
    assert done.exit_code == 0
    key = done.output.split("verifier key: ")[1].strip()
    bundle = tmp_path / "bundle"
    again = run("verify", "--bundle", bundle, "--key", key)
    assert again.exit_code == 0, again.output
    # Cut off with its checkpoints: the one that was kept tells.
    lines = (bundle / "log").read_bytes().split(b"\n")[:-1]
    kept = tmp_path / "kept"
    kept.write_bytes((bundle / "checkpoint").read_bytes())
    (bundle / "log").write_bytes(b"\n".join(lines[:4]) + b"\n")
    notes = split_notes((bundle / "checkpoints").read_text())
    (bundle / "checkpoints").write_text("".join(note + "\n" for note in notes[:4]))
    assert run("verify", "--bundle", bundle, "--key", key).exit_code == 0
    cut = run("verify", "--bundle", bundle, "--key", key, "--checkpoint", kept, "--json")
    finding = json.loads(cut.output)["logs"][key.split("+")[0]]["findings"][0]
    assert cut.exit_code == 1 and (finding["kind"], finding["entry"]) == ("truncated", 4)
    other = run("verify", "--bundle", bundle, "--key", key.replace("+", "+0", 1))
    assert other.exit_code == 1 and "verifier key" in other.output


def test_export_refuses_a_log_that_does_not_verify(store: Path, tmp_path: Path) -> None:
    path = log_of(store)
    path.write_bytes(path.read_bytes().replace(b"claimed", b"clAimed", 1))
    done = run("export", tmp_path / "bundle", path.stem, "--store", store)
    assert done.exit_code == 1 and "does not verify" in done.output and not (tmp_path / "bundle").exists()


def test_restart(store: Path) -> None:
    path = log_of(store)
    path.write_bytes(b"")
    assert run("verify", "--store", store).exit_code == 1
    done = run("restart", path.stem, "--reason", "it was emptied", "--store", store)
    assert done.exit_code == 0 and "kept as" in done.output
    assert run("verify", "--store", store).exit_code == 0
    assert "it was emptied" in run("show", path.stem, "--store", store).output


def test_mistakes_are_told(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "choose one of" in run("show", "nonsense", "--store", store).output
    empty = run("verify", "--store", tmp_path / "new")
    assert empty.exit_code == 1 and "packtrust provision" in empty.output
    monkeypatch.setattr("packtrust_host.cli.common.running_pack", lambda: None)
    assert "no CAN bus was given" in run("collect", "--store", store).output
