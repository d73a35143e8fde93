"""The portable tests on the chosen boards, a file at a time, through the console.

tests/on_target runs all of them on interpreters of this computer; here a board runs them that keeps its own memory and
time. HIL_FILES=all takes every file, HIL_FILES=test_x,test_y these.
"""

from __future__ import annotations

import pytest

from hilboard import CHOSEN, names_of, portable_files, prepare, results
from pytest_micropython_boards import Board

SMALL_HEAP = 256 * 1024
# They hold more than a board's 96 KB: both ends of a link, or long payloads with their frames.
LARGE = {
    ("test_isotp", "test_every_length_up_to_the_limit"),
    ("test_crypto_aead", "test_long_records_in_place"),
    # With little heap the core holds the backend in use and one other, and names only the first.
    ("test_crypto_aead", "test_backends_are_named_best_first"),
}


@pytest.mark.parametrize("module", CHOSEN)
def test_core(prepared: Board, module: str) -> None:
    names = names_of(portable_files()[module])
    if prepared.eval("__import__('gc').mem_free()") < SMALL_HEAP:
        names = [name for name in names if (module, name) not in LARGE]
    found = results(prepared, module, names)
    assert "import" not in found, found["import"]["error"]
    for name in [name for name, result in found.items() if "MemoryError" in str(result.get("error"))]:
        # A heap of 96 KB is in pieces after some tests: what did not find a place gets an interpreter of its own.
        prepared.fresh()
        prepare(prepared)
        found |= results(prepared, module, [name])
    bad = {name: result["error"] for name, result in found.items() if not result["ok"]}
    text = "\n".join("%s:\n%s" % item for item in bad.items())
    if "MemoryError" in text:
        text += "\nIf a test by its nature takes more memory than a board has, name it in LARGE."
    assert not bad, text
    assert list(found) == names


def test_a_failing_test_is_seen(prepared: Board) -> None:
    """The way results take: good, failing, erroring, and a module that is not there."""
    prepared.exec(
        "import sys\n"
        "class Fake: pass\n"
        "fake = Fake()\n"
        "def bad():\n    assert 1 == 2\n"
        "def error():\n    {}['missing']\n"
        "fake.test_bad, fake.test_error, fake.test_good = bad, error, lambda: None\n"
        "sys.modules['fake'] = fake\n"
    )
    found = results(prepared, "fake", ["test_bad", "test_error", "test_good"])
    assert [result["ok"] for result in found.values()] == [False, False, True]
    assert "AssertionError" in str(found["test_bad"]["error"]) and "KeyError" in str(found["test_error"]["error"])
    assert "no_such" in str(results(prepared, "no_such", ["x"])["import"]["error"])
