"""A module on the virtual Cortex-M4 under a bus full of forged frames (flood.py)."""

from pathlib import Path

import pytest

from bench import flood
from packtrust_host.sim.qemu import QemuError

ROOT = Path(__file__).resolve().parents[2]
KINDS = {kind.name: kind for kind in flood.floods()}
# Of 18; how many it is, `make bench ARGS="--flood 168"` shows. Some are lost whatever the core takes: what begins
# another record on the stream of a poll, between its frames, breaks it.
ANSWERED_LEAST = 10
# The longest without an answer to any: a pack asks again each 100 ms.
GAP_MAX_MS = 600
SECONDS = 2.0
# What is loaded on demand is there while it is asked for.
HEAP_MAX = 8192
LATE_MS = 4000  # an older command is refused


def flooded(name, **options):
    """The outcome of one kind; skips where the board is not built, and fails in CI."""
    try:
        return flood.run(KINDS[name], **options)
    except QemuError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", KINDS)
def test_a_module_bears_a_full_bus_of_forged_frames(name):
    outcome = flooded(name, seconds=SECONDS)
    figures = outcome.figures
    assert outcome.frames > 3000
    assert figures["session"] and not figures["limp"] and not figures["counters"]["internal"]
    assert not figures["board"]["crashes"]
    assert outcome.heap_grown < HEAP_MAX
    assert all(delay < LATE_MS / 10 for delay in outcome.delays_ms)
    assert len(outcome.delays_ms) >= ANSWERED_LEAST
    assert outcome.gap_ms < GAP_MAX_MS


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("records of the session, wrong tag", "tag"),
        ("records of no session", "unknown-session"),
        ("commands in clear", "clear"),
        ("the module's own IDs", "own-id"),
    ],
)
def test_what_is_forged_is_counted_and_has_no_effect(name, reason):
    counters = flooded(name, seconds=SECONDS).figures["counters"]
    assert counters[reason] > 50 and counters["sessions"] == 1


def test_a_faster_core_answers_every_poll_at_once():
    """At 480 MHz, of an STM32H7: the control that losses are the core's and not the measurement's."""
    outcome = flooded("records of no session", mhz=480, seconds=SECONDS)
    assert len(outcome.delays_ms) == outcome.commands and max(outcome.delays_ms) < 100
    assert outcome.own_lost == 0


@pytest.mark.parametrize(
    ("name", "path", "limit", "without"),
    [
        # The share of provisioning messages; that their node is late though few frames have come; that of handshakes.
        ("provisioning", "post.py", "if self._is_overdrawn():", "if False:"),
        ("provisioning", "loop.py", "count + _LONG if self.node.took_long else count", "count"),
        ("HELLOs of the epoch", "module.py", "elif share.admits(frame.arbitration_id):", "else:"),
    ],
)
def test_frames_beyond_their_share_are_what_starves_a_module(tmp_path, name, path, limit, without):
    """The control: without a limit a module does not answer so many, or not so soon."""
    source = (ROOT / "firmware/packtrust_node" / path).read_text()
    assert source.count(limit) == 1
    overlay = tmp_path / path
    overlay.write_text(source.replace(limit, without))
    outcome = flooded(name, seconds=SECONDS, overlays={"packtrust_node/" + path: overlay})
    answered = len(flooded(name, seconds=SECONDS).delays_ms)
    assert len(outcome.delays_ms) < answered - 1 or outcome.gap_ms > GAP_MAX_MS
