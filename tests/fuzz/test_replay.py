"""What fuzzing found stays found: every target's seeds and corpus again, here and on MicroPython with 64 and 32 bits.

An input must not make its target raise, and must not make it take more than HEAP_MAX bytes of heap. MicroPython counts
that, garbage included, so the bound is one for the memory in use as well; for the host's own parsers tracemalloc does.
`make fuzz` looks for new inputs.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import replay

ROOT = Path(__file__).resolve().parents[2]
TARGETS = sorted(path.stem for path in (ROOT / "tests/fuzz/targets").glob("*.py"))
PORTABLE = [name for name in TARGETS if not getattr(replay.load(name), "HOST_ONLY", False)]
WORDS_32 = ROOT / "build/micropython32/bin/micropython"
SECONDS = 110


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_raises(name):
    result = replay.replay(str(ROOT / "tests"), name)
    assert "error" not in result, result
    assert result["inputs"] >= 10
    assert result["heap"] <= replay.load(name).HEAP_MAX, result


def interpreter(bits: int) -> str:
    path = Path(os.environ.get("MICROPYTHON", "")) if bits == 64 else WORDS_32
    if not path.is_file():
        pytest.skip("no MicroPython with %d bits: run `make firmware`" % bits)
    return str(path)


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("name", PORTABLE)
def test_on_micropython_no_input_raises_or_takes_more_heap_than_is_stated(name, bits):
    done = subprocess.run(
        [interpreter(bits), "-X", "heapsize=48M", "tests/fuzz/replay.py", "tests", name],
        cwd=ROOT,
        env={"MICROPYPATH": "shared:firmware:tests:.frozen"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert lines, done.stderr[-2000:]
    result = json.loads(lines[-1])
    assert "error" not in result, result
    assert 0 <= result["heap"] <= replay.load(name).HEAP_MAX, result


def test_every_target_says_what_it_covers():
    for name in TARGETS:
        target = replay.load(name)
        assert target.__doc__ and target.COVERS and target.HEAP_MAX > 0
        for entry in target.COVERS:
            assert re.fullmatch(r"packtrust\w*(\.\w+)*:\w+(\.\w+)*", entry), entry


def test_an_input_that_raises_is_told_with_its_bytes(monkeypatch):
    target = replay.load("identity")

    def take(data):
        raise IndexError("index out of range")

    monkeypatch.setattr(target, "take", take)
    result = replay.replay(str(ROOT / "tests"), "identity")
    assert result["error"] == "IndexError: index out of range"
    assert bytes.fromhex(result["input"]) == next(iter(target.seeds()))


def test_relationship_records_with_names_that_are_no_text_are_no_relationships():
    """Found by fuzzing: such a record ended the start of a node with an error."""
    from packtrust_node import relation

    for data in replay.load("relation").seeds():
        if b"\xff\xfe" in data:
            assert relation.decode(data) is None
            break
    else:
        raise AssertionError("no seed has such names")
