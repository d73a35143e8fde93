"""Attack: the host's audit log is edited, cut off, reordered or forked.

Setting    a log of a pack with eight entries, each signed; who reads it has its verifier key, and one checkpoint that was kept
           elsewhere.
Means      the log and its checkpoints, as files; not the signing key. For the fork: a backup of the whole key store, put back,
           so that another story is signed under the same key.
Success    would be a log that says something else than what was signed, and verifies.
"""

from pathlib import Path

import pytest

from attack_suite import Attack
from packtrust_host.app.keystore import KeyStore
from packtrust_host.audit.log import AuditLogs
from packtrust_host.audit.note import split_notes
from packtrust_host.audit.verify import verify
from weakening import Weakening

ATTACK = Attack(
    name="audit log changed",
    source="own",
    defence="each entry is under a signed checkpoint over all before it; the reader compares with one that was kept elsewhere",
    without="a reader that looks at the entries alone",
    weakening=Weakening(
        ("packtrust_host.audit.verify", "    _check_own(own, roots, len(lines), verdict)\n", ""),
        (
            "packtrust_host.audit.verify",
            "    _check_kept(sorted(others, key=lambda item: item.size), roots, len(lines), verdict)\n",
            "",
        ),
        ("packtrust_host.audit.verify", "        if number != index:", "        if False:"),
    ),
)
NAME = "pack-50000001"


def entry(number: int) -> dict[str, object]:
    return {"what": "released", "who": "lct-%d" % number, "detail": "epoch %d" % number}


def content(logs: AuditLogs) -> list[bytes]:
    return logs.log_path(NAME).read_bytes().split(b"\n")[:-1]


def put(logs: AuditLogs, lines: list[bytes]) -> None:
    logs.log_path(NAME).write_bytes(b"".join(line + b"\n" for line in lines))


def edited(logs: AuditLogs) -> None:
    lines = content(logs)
    lines[3] = lines[3].replace(b"released", b"rotated")
    put(logs, lines)


def reordered(logs: AuditLogs) -> None:
    lines = content(logs)
    lines[2], lines[5] = lines[5], lines[2]
    put(logs, lines)


def reordered_and_numbered(logs: AuditLogs) -> None:
    lines = content(logs)
    lines[2], lines[5] = lines[5].replace(b'"n":5', b'"n":2'), lines[2].replace(b'"n":2', b'"n":5')
    put(logs, lines)


def left_out(logs: AuditLogs) -> None:
    lines = content(logs)
    del lines[4]
    put(
        logs, [line.replace(b'"n":%d' % (at + 1), b'"n":%d' % at) if at >= 4 else line for at, line in enumerate(lines)]
    )


def cut_off(logs: AuditLogs) -> None:
    put(logs, content(logs)[:5])


def cut_off_with_its_checkpoints(logs: AuditLogs) -> None:
    put(logs, content(logs)[:5])
    notes = split_notes(logs.read(NAME)[1])[:5]
    logs.checkpoint_path(NAME).write_text("".join(note + "\n" for note in notes))


def added(logs: AuditLogs) -> None:
    put(logs, [*content(logs), content(logs)[-1].replace(b'"n":7', b'"n":8')])


WAYS = [edited, reordered, reordered_and_numbered, left_out, cut_off, cut_off_with_its_checkpoints, added, None]


def carry_out(folder: Path, way: object) -> str:
    logs = AuditLogs(KeyStore(folder / "keys", machine=b"test", now=lambda: "then"))
    for number in range(5):
        logs.append(NAME, [entry(number)])
    backup = {path: path.read_bytes() for path in logs.store.directory.rglob("*") if path.is_file()}
    for number in range(5, 8):
        logs.append(NAME, [entry(number)])
    kept = split_notes(logs.read(NAME)[1])[-1]
    verifier = logs.verifier(NAME)
    before = content(logs)
    assert verify(*logs.read(NAME), verifier, kept=[kept]).ok
    if callable(way):
        way(logs)
    else:
        # Fork: the key store of after entry 5, and three other entries.
        for path, raw in backup.items():
            path.write_bytes(raw)
        again = AuditLogs(KeyStore(folder / "keys", machine=b"test", now=lambda: "then"))
        for number in range(5, 9):
            again.append(NAME, [entry(number + 100)])
    assert content(logs) != before
    return "a log that was never signed verifies" if verify(*logs.read(NAME), verifier, kept=[kept]).ok else ""


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__ if way else "forked")
def test_attack(tmp_path, way):
    assert carry_out(tmp_path, way) == ""


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__ if way else "forked")
def test_control(weakness, tmp_path, way):
    assert carry_out(tmp_path, way)
