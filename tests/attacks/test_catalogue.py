"""The suite itself: every attack named elsewhere has a file here, every file says what it does, the page is complete."""

import pytest

from attack_suite import FIELD, SPSEC, catalogue, files, load

ATTACKS = catalogue()

# What the project's issue asks for beyond SPsec's lemmas and S1..S19, by the names used here.
ASKED = [
    "freshness desync",
    "held back",
    "hello flood",
    "reflected handshake",
    "crossed handshakes",
    "transplant",
    "bit 17 turned",
    "chunk mixing",
    "package swap",
    "stale package",
    "rogue app",
    "rogue release",
    "nonce reuse by RNG fault",
    "copied serial without keys",
    "forged flood",
    "full flash copy",
    "framing",
    "rotation with a stolen root",
    "rotation held back",
    "old epoch",
    "weaker terms",
    "endless rotations",
    "clear command without a grant",
    "grant again",
    "limp mode forced",
    "mixed bus",
]


@pytest.mark.parametrize("source", [*SPSEC, *FIELD])
def test_every_source_has_an_attack(source):
    assert [item.file for item in ATTACKS if source in item.attack.sources]


@pytest.mark.parametrize("name", ASKED)
def test_every_attack_asked_for_is_here(name):
    assert [item.file for item in ATTACKS if item.attack.name == name]


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
