"""The host's audit log under attack: by who has its files, and not the signing key; and what is found, by entry."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from packtrust_host.app.keystore import KeyStore
from packtrust_host.audit.log import AuditError, AuditLogs
from packtrust_host.audit.note import Checkpoint, Verifier, open_checkpoint, split_notes
from packtrust_host.audit.verify import Verdict, verify

NAME = "pack-50000001"


@pytest.fixture
def logs(tmp_path: Path) -> AuditLogs:
    """Eight entries, each signed."""
    made = AuditLogs(KeyStore(tmp_path / "keys", machine=b"test", now=lambda: "then"))
    for number in range(8):
        made.append(NAME, [{"what": "active", "who": "lct-%d" % number, "detail": "epoch 1"}])
    return made


def kinds(verdict: Verdict) -> list[tuple[str, int]]:
    return [(item.kind, item.entry) for item in verdict.findings]


def lines(logs: AuditLogs) -> list[bytes]:
    return logs.log_path(NAME).read_bytes().split(b"\n")[:-1]


def write(logs: AuditLogs, content: list[bytes]) -> None:
    logs.log_path(NAME).write_bytes(b"".join(line + b"\n" for line in content))


def public(logs: AuditLogs, kept: list[str] | None = None) -> Verdict:
    """What somebody without the key store finds, with the files as they are."""
    log, notes = logs.read(NAME)
    return verify(log, notes, logs.verifier(NAME), kept=kept or [])


def test_an_honest_log_verifies_with_the_key_store_and_without(logs: AuditLogs) -> None:
    verdict = logs.verify(NAME)
    assert verdict.ok and (verdict.entries, verdict.checkpoints) == (8, 8)
    assert public(logs).ok
    assert [entry["n"] for entry in logs.entries(NAME)] == list(range(8))
    assert logs.names() == [NAME]


@pytest.mark.parametrize("entry", range(8))
def test_an_edited_entry_is_named(logs: AuditLogs, entry: int) -> None:
    content = lines(logs)
    content[entry] = content[entry].replace(b"epoch 1", b"epoch 2")
    write(logs, content)
    for verdict in (logs.verify(NAME), public(logs)):
        assert ("edited", entry) in kinds(verdict)
        assert "entry %d is not what was signed" % entry in verdict.findings[0].text


@pytest.mark.parametrize("left", range(8))
def test_a_log_that_was_cut_off(logs: AuditLogs, left: int) -> None:
    write(logs, lines(logs)[:left])
    for verdict in (logs.verify(NAME), public(logs)):
        assert ("truncated", left) in kinds(verdict)


@pytest.mark.parametrize("left", range(8))
def test_a_log_that_was_cut_off_with_its_checkpoints(logs: AuditLogs, left: int) -> None:
    """He has no signing key, so he cuts off both. The key store remembers; so does a checkpoint kept elsewhere."""
    kept = split_notes(logs.read(NAME)[1])[6]
    write(logs, lines(logs)[:left])
    notes = split_notes(logs.read(NAME)[1])[:left]
    logs.checkpoint_path(NAME).write_text("".join(note + "\n" for note in notes))
    assert kinds(logs.verify(NAME)) == [("truncated", left)]
    assert public(logs).ok  # nothing else tells: hence the two below
    assert (kinds(public(logs, [kept])) == [("truncated", left)]) == (left < 7)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (2, 5), (6, 7)])
def test_entries_that_changed_places(logs: AuditLogs, first: int, second: int) -> None:
    content = lines(logs)
    content[first], content[second] = content[second], content[first]
    write(logs, content)
    for verdict in (logs.verify(NAME), public(logs)):
        assert ("reordered", first) in kinds(verdict) and ("reordered", second) in kinds(verdict)
        assert "entry %d stands where entry %d belongs" % (second, first) in verdict.findings[0].text


def test_a_reorder_with_numbers_made_right_is_found_as_an_edit(logs: AuditLogs) -> None:
    content = lines(logs)
    content[2], content[5] = content[5].replace(b'"n":5', b'"n":2'), content[2].replace(b'"n":2', b'"n":5')
    write(logs, content)
    assert ("edited", 2) in kinds(logs.verify(NAME))


def test_entries_added_by_a_stranger(logs: AuditLogs) -> None:
    write(logs, [*lines(logs), b'{"n":8,"at":"then","what":"active"}'])
    assert kinds(public(logs)) == [("unsigned", 8)]


def test_checkpoints_of_another_key(logs: AuditLogs, tmp_path: Path) -> None:
    """He edits, and signs it all again with a key of his own, under our name."""
    other = AuditLogs(KeyStore(tmp_path / "other", machine=b"test", now=lambda: "then"))
    for number in range(8):
        other.append(NAME, [{"what": "active", "who": "lct-%d" % number, "detail": "epoch 9"}])
    verifier = logs.verifier(NAME)
    forged = Verifier(verifier.name, other.verifier(NAME).public)
    notes = ""
    for item in split_notes(other.read(NAME)[1]):
        size = int(item.split("\n")[1])
        root = verify_root(lines(other)[:size])
        notes += Checkpoint(verifier.name, size, root).sign(bytes(other.store.signing_key(False))) + "\n"
    assert verify(other.read(NAME)[0], notes, forged).ok  # a sound forgery, but for the key
    verdict = verify(other.read(NAME)[0], notes, verifier)
    assert {item.kind for item in verdict.findings} == {"forged", "unsigned"}


def verify_root(content: list[bytes]) -> bytes:
    from packtrust_host.audit.merkle import Tree

    tree = Tree()
    for line in content:
        tree.add(line)
    return tree.root()


def test_a_fork_is_found_by_a_checkpoint_of_the_other_branch(logs: AuditLogs, tmp_path: Path) -> None:
    """Whoever has key store and files goes back to a backup, and writes another story under the same key."""
    backup = {path: path.read_bytes() for path in logs.store.directory.rglob("*") if path.is_file()}
    for number in range(3):
        logs.append(NAME, [{"what": "released", "who": "branch one, %d" % number}])
    seen = split_notes(logs.read(NAME)[1])
    for path, content in backup.items():
        path.write_bytes(content)
    again = AuditLogs(KeyStore(logs.store.directory, machine=b"test", now=lambda: "then"))
    for number in range(5):
        again.append(NAME, [{"what": "released", "who": "branch two, %d" % number}])
    assert again.verify(NAME).ok  # the branch in itself is sound
    verdict = again.verify(NAME, seen)
    assert kinds(verdict) == [("forked", 8)] and "it differs at entry 8" in verdict.findings[0].text
    assert kinds(again.verify(NAME, [seen[-1]])) == [("forked", 0)]  # one checkpoint alone tells no more than that
    # Both branches' checkpoints in one file: the key has signed two logs.
    log, notes = again.read(NAME)
    both = verify(log, notes + "".join(note + "\n" for note in seen[8:]), again.verifier(NAME))
    assert both.findings[0].kind == "forked"


# -- appending ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-1],
        lambda content: [content[0].replace(b"epoch 1", b"epoch 7"), *content[1:]],
        lambda content: [],
    ],
)
def test_nothing_is_signed_on_top_of_a_changed_log(
    logs: AuditLogs, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    write(logs, change(lines(logs)))
    with pytest.raises(AuditError, match="not the one that was signed last"):
        logs.append(NAME, [{"what": "active"}])
    aside = logs.restart(NAME, "somebody was at it")
    assert logs.verify(NAME).ok
    first = logs.entries(NAME)[0]
    assert (first["what"], first["reason"], first["signed_entries"]) == ("restarted", "somebody was at it", 8)
    assert aside.exists() and aside.with_name(aside.name.replace(".log.", ".checkpoints.")).exists()
    assert logs.names() == [NAME]
    logs.append(NAME, [{"what": "active"}])
    assert logs.verify(NAME).ok


@pytest.mark.parametrize("rest", [b'{"n":8,"at":"th', b'{"n":8,"at":"then","what":"forged"}\n'])
def test_what_a_crash_leaves_behind_the_last_checkpoint_is_never_signed(logs: AuditLogs, rest: bytes) -> None:
    with logs.log_path(NAME).open("ab") as file:
        file.write(rest)
    logs.append(NAME, [{"what": "active"}])
    assert logs.verify(NAME).ok
    assert [entry["what"] for entry in logs.entries(NAME)[8:]] == ["unsigned-dropped", "active"]


def test_a_crash_between_log_checkpoint_and_key_store(logs: AuditLogs) -> None:
    """The key store's head is behind the files by one: what is signed in the files is taken up again."""
    head = dict(logs.store.log_heads)
    logs.append(NAME, [{"what": "ninth"}])
    with logs.store.transaction() as state:
        state.log_heads = head
    assert logs.verify(NAME).ok
    logs.append(NAME, [{"what": "tenth"}])
    assert logs.verify(NAME).ok, logs.verify(NAME).findings
    assert [entry["what"] for entry in logs.entries(NAME)[8:]] == ["ninth", "tenth"]


def test_a_crash_at_any_byte_of_log_and_checkpoint(logs: AuditLogs) -> None:
    before = logs.read(NAME)
    head = dict(logs.store.log_heads)
    logs.append(NAME, [{"what": "ninth"}])
    after = logs.read(NAME)
    for index in range(2):
        start = len(before[index].encode() if index else before[0])
        whole = after[index].encode() if index else after[0]
        for end in range(start, len(whole), 5):
            # The log is written first, then the checkpoint.
            logs.log_path(NAME).write_bytes(after[0] if index else whole[:end])
            logs.checkpoint_path(NAME).write_bytes(whole[:end] if index else before[1].encode())
            with logs.store.transaction() as state:
                state.log_heads = dict(head)
            logs.append(NAME, [{"what": "after"}])
            assert logs.verify(NAME).ok, (index, end, logs.verify(NAME).findings)
            assert logs.entries(NAME)[-1]["what"] == "after"


def test_an_append_costs_one_signature_to_check_however_long_the_log(
    logs: AuditLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def counting(note: str, verifier: Verifier) -> Checkpoint:
        opened.append(note)
        return open_checkpoint(note, verifier)

    monkeypatch.setattr("packtrust_host.audit.log.open_checkpoint", counting)
    logs.append(NAME, [{"what": "ninth"}])
    assert len(opened) == 1
    assert logs.verify(NAME).ok


def test_no_secret_of_the_key_store_is_in_the_files(logs: AuditLogs) -> None:
    content = b"".join(path.read_bytes() for path in logs.folder.iterdir())
    key = bytes(logs.store.signing_key(False))
    assert key and key not in content and key.hex().encode() not in content
    assert key.hex() not in repr(logs.store) + repr(logs.store._state)


def test_entries_in_one_append_may_share_a_checkpoint(logs: AuditLogs) -> None:
    logs.append(NAME, [{"what": "record", "counter": number} for number in range(50)], each=False)
    verdict = logs.verify(NAME)
    assert verdict.ok and (verdict.entries, verdict.checkpoints) == (58, 9)
    content = lines(logs)
    content[20] = content[20].replace(b"12", b"13")
    write(logs, content)
    assert kinds(logs.verify(NAME))[0] == ("edited", 8)
    assert "one of the entries 8 to 57" in logs.verify(NAME).findings[0].text


def test_lines_that_are_no_entries(logs: AuditLogs) -> None:
    content = lines(logs)
    for rubbish in (b"", b"[]", b"null", b"\xff\xfe", b'{"n":"3"}', json.dumps({"x": 1}).encode()):
        write(logs, [*content[:3], rubbish, *content[4:]])
        assert any(entry == 3 for _, entry in kinds(logs.verify(NAME)))
        logs.entries(NAME)
