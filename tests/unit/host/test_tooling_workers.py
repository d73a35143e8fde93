"""How tests are dealt out to workers (tests/conftest.py)."""

import runpy
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def rules():
    return runpy.run_path(str(TESTS / "conftest.py"))


def test_every_file_that_is_named_is_there(rules):
    for start in rules["_LONG"]:
        assert list(TESTS.glob(start.partition("::")[0] + "*")), start
    for name in rules["_SINGLY"]:
        assert (TESTS / name).is_file(), name
    for name in rules["_TOGETHER"]:
        assert (TESTS / name).is_file(), name


def test_a_worker_takes_a_file_or_what_one_interpreter_has_to_do(rules):
    unit_of = rules["unit_of"]
    target = "tests/on_target/test_micropython.py::test_on_micropython[%s-test_%s]"
    one, two = target % ("cortex-m4", "hpke-test_base"), target % ("cortex-m4", "hpke-test_auth")
    assert unit_of(one) == unit_of(two) != unit_of(target % ("unix32", "hpke-test_base"))
    assert unit_of(one) != unit_of(target % ("cortex-m4", "isotp-test_base"))
    assert unit_of("tests/bench/test_bench.py::test_a") == unit_of("tests/bench/test_budgets.py::test_b")
    assert unit_of("tests/bench/test_bench.py::test_a") != unit_of("tests/bench/test_flood.py::test_b")
    assert unit_of("tests/pack/test_readme.py::test_a[x]") == unit_of("tests/pack/test_readme.py::test_b")
    assert unit_of("tests/fuzz/test_replay.py::test_a[x]") != unit_of("tests/fuzz/test_replay.py::test_a[y]")


def test_no_test_gets_a_marker_that_its_file_does_not_name(rules):
    """Runs for these markers do not read other files."""
    for marker in rules["_WRITTEN"]:
        named = {path.name for path in TESTS.rglob("*.py") if "mark." + marker in path.read_text()}
        assert named and all(name.startswith("test_") for name in named), named


def test_a_run_for_a_marker_leaves_out_files_that_do_not_name_it(pytester):
    pytester.makeconftest((TESTS / "conftest.py").read_text())
    alone = "import pytest\n@pytest.mark.alone\ndef test_it(): pass\n"
    pytester.makepyfile(test_first=alone, test_other="raise RuntimeError('is read')\n")
    pytester.runpytest("-m", "alone and not realtime").assert_outcomes(passed=1)
    pytester.runpytest("-m", "not alone").stdout.fnmatch_lines(["*RuntimeError: is read"])


def test_what_takes_long_comes_first(rules):
    turn = rules["_turn"]
    last = turn("tests/unit/core/test_isotp.py::test_junk_never_raises")
    assert turn("tests/on_target/test_micropython.py::test_on_micropython[cortex-m4-test_a-test_b]") == 0
    assert turn("tests/pack/test_memory_host.py::test_a") < turn("tests/pack/test_readme.py::test_a") < last
