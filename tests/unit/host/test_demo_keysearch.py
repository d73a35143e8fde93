"""The demo's key search: what it must find, what it must not, and that its own controls notice a search gone blind."""

import base64
import random

import pytest

from packtrust_host.demo import keysearch
from packtrust_host.demo.buslog import LogFrame, assemble
from packtrust_host.demo.keysearch import WAYS, Finding, Key, KeySearch, control, hide, keys_of, search


def noise(seed=1, frames=2000):
    """A bus full of random records."""
    rng = random.Random(seed)
    return [LogFrame(1000 + at, rng.choice((0x410, 0x14480001)), at % 2 == 0, rng.randbytes(8)) for at in range(frames)]


def key(seed=7, length=32):
    return random.Random(seed).randbytes(length)


# -- positive ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_key_hidden_in_any_way_is_found(way):
    log = assemble("vcu", noise() + hide(key(), way, 10_000))
    result = search([Key(key(), "module1 okm"), Key(key(8), "module2 okm")], [log])
    assert result.found_keys == {"module1 okm"}
    assert not result.clean
    assert {item.bus for item in result.findings} == {"vcu"}


@pytest.mark.parametrize("length", [12, 16, 36, 64, 128])
@pytest.mark.parametrize("way", [way for way in WAYS if way != "one window"])
def test_keys_of_every_length_are_found(way, length):
    log = assemble("vcu", noise(frames=50) + hide(key(length=length), way, 10_000))
    assert search([Key(key(length=length), "k")], [log]).found_keys == {"k"}


@pytest.mark.parametrize("at", range(25))
def test_each_window_of_a_key_gives_it_away(at):
    log = assemble("vcu", [LogFrame(1, 0x410, False, key()[at : at + 8])])
    assert search([Key(key(), "k")], [log]).found_keys == {"k"}


@pytest.mark.parametrize("size", [127, 128, 129, 130, 131, 4096])
def test_in_long_data_each_window_is_found_wherever_it_lies(size):
    looking = KeySearch([Key(key(), "k")])
    filler = random.Random(size).randbytes(size)
    assert looking.in_bytes(filler) == set()
    for part in range(25):
        for at in (*range(9), *range(size - 16, size - 7)):
            data = filler[:at] + key()[part : part + 8] + filler[at + 8 :]
            assert len(data) == size
            assert looking.in_bytes(data) == {("k", "raw")}, (part, at)
            assert looking.in_bytes(data[: at + 4] + bytes((data[at + 4] ^ 1,)) + data[at + 5 :]) == set()


def test_what_is_like_a_key_everywhere_hides_none():
    """Memory full of half of a window."""
    half = key()[:4]
    looking = KeySearch([Key(key(), "k")])
    assert looking.in_bytes(half * 1000) == set()
    assert looking.in_bytes(half * 999 + key()[:8] + half) == {("k", "raw")}
    assert looking.in_bytes(b"\0" + half * 500 + key()[2:10] + half * 500) == {("k", "raw")}


@pytest.mark.parametrize("before", range(4))
def test_base64_is_found_at_every_place_in_its_groups(before):
    text = base64.b64encode(bytes(before) + key()[:11] + bytes(5))
    assert ("k", "base64") in KeySearch([Key(key(), "k")]).in_bytes(text)


def test_hex_is_found_in_both_cases_and_at_odd_places():
    for text in (key().hex(), key().hex().upper(), "a" + key()[3:11].hex() + "b"):
        assert KeySearch([Key(key(), "k")]).in_bytes(b"\x01" + text.encode()) == {("k", "hex")}


def test_key_spread_over_the_frames_of_one_id_among_others_is_found():
    frames = []
    for at in range(0, 32, 4):
        frames.append(LogFrame(at, 0x1ABC0001, True, key()[at : at + 4]))
        frames.append(LogFrame(at, 0x410, False, bytes(8)))
    result = search([Key(key(), "k")], [assemble("vcu", frames)])
    assert result.findings == [Finding("k", "raw", "vcu", "all data of ID 1ABC0001", 0)]


def test_key_that_is_part_of_another_gives_both_away():
    half = key(length=64)
    log = assemble("vcu", hide(half, "raw transfer", 1))
    found = search([Key(half + key(9), "halves and salt"), Key(half, "half_a")], [log]).found_keys
    assert found == {"halves and salt", "half_a"}


def test_finding_tells_no_key_bytes():
    log = assemble("vcu", hide(key(), "raw frames", 1))
    result = search([Key(key(), "k")], [log])
    text = repr(result) + repr(Key(key(), "k"))
    for at in range(29):
        part = key()[at : at + 4]
        assert part.hex() not in text.lower()
        assert repr(part)[2:-1] not in text


# -- negative ----------------------------------------------------------------------------------------------------------


def test_keys_that_were_not_there_are_not_found():
    log = assemble("vcu", noise())
    result = search([Key(key(seed), "k%d" % seed) for seed in range(100, 400)], [log])
    assert result.clean
    assert (result.keys, result.frames) == (300, 2000)
    assert result.windows == 300 * 25


def test_seven_bytes_of_a_key_are_no_finding():
    log = assemble("vcu", [LogFrame(1, 0x410, False, key()[5:12] + bytes([key()[12] ^ 1]))])
    assert search([Key(key(), "k")], [log]).clean


def test_zeros_and_counters_are_no_key():
    log = assemble("vcu", [LogFrame(1, 0x410, False, bytes(8)), LogFrame(2, 0x410, False, b"\0\0\0\0\0\0\1\2")])
    assert search([Key(bytes(32) + key(), "k")], [log]).clean


def test_nothing_looked_for_or_nowhere_is_not_clean():
    assert not search([], [assemble("vcu", noise())]).clean
    assert not search([Key(key(), "k")], []).clean


def test_short_key_is_refused_not_passed_over():
    with pytest.raises(ValueError, match="cannot be searched"):
        KeySearch([Key(b"1234567", "k")])


# -- controls ----------------------------------------------------------------------------------------------------------


def test_controls_pass_on_a_healthy_search():
    controls = control(assemble("vcu", noise()), rng=random.Random(3))
    assert controls.ok
    assert controls.decoys == 200


@pytest.mark.parametrize("form", ["_raw", "_hex", "_base64"])
def test_controls_notice_a_search_blind_in_one_form(monkeypatch, form):
    init = KeySearch.__init__

    def blind(self, keys):
        init(self, keys)
        setattr(self, form, {})

    monkeypatch.setattr(KeySearch, "__init__", blind)
    controls = control(assemble("vcu", noise(frames=20)), rng=random.Random(3))
    assert not controls.ok
    assert any({"_raw": "raw", "_hex": "hex", "_base64": "base64"}[form] in way for way in controls.missed)


def test_controls_notice_a_search_that_skips_transfers(monkeypatch):
    monkeypatch.setattr(keysearch, "_by_stream", lambda frames: {})
    controls = control(assemble("vcu", noise(frames=20)), rng=random.Random(3))
    assert controls.missed == ("raw, numbered frames",)


def test_controls_notice_a_search_that_sees_everything(monkeypatch):
    monkeypatch.setattr(KeySearch, "in_bytes", lambda self, data: {(name, "raw") for [name] in self._raw.values()})
    assert control(assemble("vcu", noise(frames=20)), decoys=5, rng=random.Random(3)).false == 5


def test_way_that_does_not_exist_is_an_error():
    with pytest.raises(ValueError, match="no way"):
        hide(key(), "whispered", 0)


# -- what is looked for ------------------------------------------------------------------------------------------------


def test_keys_of_a_tap_leave_out_what_is_to_be_ignored():
    tapped = {
        key(1).hex(): ["pack prk"],
        key(2).hex(): ["app okm", "pack okm"],
        key(3).hex(): ["module1 aes"],
        "0102": ["x y"],
    }
    keys = keys_of(tapped, [key(3).hex()])
    assert [(item.value, item.name) for item in keys] == [(key(1), "pack prk"), (key(2), "app okm, pack okm")]
