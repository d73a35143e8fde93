"""tests/weakening.py: defences are out inside the block, back after it, and a weakening that fits no more says so."""

import pytest

import packtrust.channel
import packtrust_node.commands
import packtrust_node.pack
from packtrust import replay
from packtrust.policy import DEFAULT_POLICY
from packtrust.replay import CITATION_MAX_AGE_MS, SentTimes, Window
from packtrust_host.app import node as app_node
from weakening import Weakening, WeakeningError, weakened

REPLAY = ("packtrust.replay", "        if counter > self.highest:\n            return", "        return")


def test_function_known_by_another_name_is_weakened_and_comes_back():
    window = Window()
    refusal = window.refusal  # as a node holds it
    window.accept(5)
    assert refusal(5) == "replay"
    with Weakening(REPLAY).applied():
        assert refusal(5) == ""
        assert Window().refusal(0) == ""
    assert refusal(5) == "replay"


def test_constant_is_exchanged_wherever_it_was_imported():
    times = SentTimes(0)
    times.sent(1, 0)
    assert not times.is_fresh(1, CITATION_MAX_AGE_MS + 1000)
    with weakened("packtrust_node.commands", replace=("OFF_MS = const(1200)", "OFF_MS = const(7)")):
        assert packtrust_node.commands.OFF_MS == 7
    assert packtrust_node.commands.OFF_MS == 1200
    before = packtrust_node.pack.MODULE_LINK
    with weakened("packtrust.record", replace=("VERSION = const(1)", "VERSION = const(2)")):
        assert packtrust.channel.VERSION == 2
    assert packtrust.channel.VERSION == 1
    assert packtrust_node.pack.MODULE_LINK is before


def test_property_method_and_host_module():
    assert not DEFAULT_POLICY.clear_allowed(0x514, True)
    established = "def established(self) -> bool:"
    with weakened(
        "packtrust.policy",
        [("        flags = self.flags_of(base)\n        if not ext", "        return True\n        if not ext")],
        ("packtrust_host.app.node", established, established + "\n        return 7\n"),
    ):
        assert DEFAULT_POLICY.clear_allowed(0x514, True)
        assert app_node.AppNode.established.fget(None) == 7
    assert not DEFAULT_POLICY.clear_allowed(0x514, True)


def test_text_that_is_not_there_once_fails_loudly():
    with pytest.raises(WeakeningError, match="0 times, not once"), weakened("packtrust.replay", ("no such text", "")):
        pass
    with (
        pytest.raises(WeakeningError, match="2 times"),
        weakened("packtrust.replay", ("return -1", "")),
    ):
        pass
    with pytest.raises(WeakeningError, match="no module"), weakened("packtrust.nothing", ("a", "b")):
        pass


def test_weakening_without_an_effect_fails_loudly():
    with pytest.raises(WeakeningError, match="is none"), weakened("packtrust.replay", ("# Steps kept:", "# Steps:")):
        pass


def test_everything_is_back_after_an_error():
    with pytest.raises(KeyError), Weakening(REPLAY).applied():
        raise KeyError
    window = replay.Window()
    window.accept(1)
    assert window.refusal(1) == "replay"


def test_files_for_a_nodes_flash(tmp_path):
    files = Weakening(REPLAY, ("packtrust_node.pack", "POLL_MS = const(100)", "POLL_MS = const(200)")).overlays(
        tmp_path
    )
    assert sorted(files) == ["lib/packtrust/replay.py", "packtrust_node/pack.py"]
    with open(files["packtrust_node/pack.py"]) as file:
        assert "POLL_MS = const(200)" in file.read()
    with pytest.raises(WeakeningError, match="lies on no node"):
        Weakening(("packtrust_host.urls", "import can\n", "import can \n")).overlays(tmp_path)
