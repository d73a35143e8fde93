"""The suite itself: every attack named elsewhere has a file here, every file says what it does, the page is complete."""

import pytest

from attack_suite import FIELD, FOLDER, OTHERS, SPSEC, catalogue, files, load

ATTACKS = catalogue()


@pytest.mark.parametrize("source", [*SPSEC, *FIELD])
def test_every_source_has_an_attack(source):
    assert [item.file for item in ATTACKS if source in item.attack.sources]


@pytest.mark.parametrize("what", OTHERS)
def test_every_other_attack_is_carried_out(what):
    for name in OTHERS[what]:
        assert [item.file for item in ATTACKS if item.attack.name == name], name


def test_no_attack_is_without_a_place_in_the_lists():
    listed = {name for names in OTHERS.values() for name in names}
    for item in ATTACKS:
        known = [source for source in item.attack.sources if source in SPSEC or source in FIELD]
        assert known or item.attack.name in listed, item.file
        for source in item.attack.sources:
            assert source in SPSEC or source in FIELD or source in ("own", "SecOC", "SPsec inject_bus_flood"), source


def test_the_page_names_a_file_for_each():
    page = (files()[0].parents[2] / "docs/attacks.md").read_text()
    for table in (SPSEC, FIELD, OTHERS):
        for what in table:
            row = next(line for line in page.splitlines() if line.startswith("| %s |" % what.removeprefix("SPsec ")))
            assert "](../tests/attacks/test_" in row, row


def test_names_are_different():
    assert len({item.attack.name for item in ATTACKS}) == len(ATTACKS) == len(files())


@pytest.mark.parametrize("item", ATTACKS, ids=lambda item: item.file)
def test_file_has_attack_control_and_words(item):
    module = load(next(path for path in files() if path.name == item.file))
    names = [name for name in vars(module) if name.startswith("test_")]
    assert any(name.startswith("test_control") for name in names)
    assert any(not name.startswith("test_control") for name in names)
    for text in (item.title, item.setting, item.means, item.success, item.attack.defence, item.attack.without):
        assert len(text) > 10
    assert item.success.startswith("would be ")
    item.attack.weakening.sources()  # each place is there exactly once


@pytest.mark.parametrize("defence", load(FOLDER / "defences.py").MORE, ids=lambda defence: defence.name)
def test_defence_that_is_taken_out_is_there(defence):
    """`make defences` runs on demand: that it still fits the source is seen at once."""
    defence.weakening.sources()
    for test in defence.tests:
        assert (FOLDER.parents[1] / test).exists(), test
