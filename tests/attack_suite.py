"""What every file in tests/attacks says about its attack, for people and for the table of `make attacks`.

    \"\"\"Attack: a recorded command is sent again.

    Setting    ...
    Means      ...
    Success    would be ...
    \"\"\"
    ATTACK = Attack(
        name="replay", source="SPsec attack_T3_replay; S16", defence="...", without="...", weakening=Weakening(...)
    )

    def carry_out(bench):                       # what the attack has achieved, in words; "" for nothing
    def test_attack(keyed):                     # against the product
        assert carry_out(keyed) == ""
    def test_control(weak):                     # against the product without that defence
        assert carry_out(weak)

A test whose name begins with `test_control` shows that the means suffice, all others that the attack fails.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from weakening import Weakening

FOLDER = Path(__file__).resolve().parent / "attacks"
PARTS = ("Setting", "Means", "Success")

# What a test records about where it ran, if not on the virtual clock: record_property("where", PROCESSES).
VIRTUAL = "virtual clock"
PROCESSES = "processes"
CORTEX_M4 = "cortex-m4"
PLACES = (VIRTUAL, PROCESSES, CORTEX_M4)


@dataclass(frozen=True)
class Attack:
    """One attack.

    source     who names it, "; " between several: "SPsec <lemma>", "S<n>" of the field's firmware, "SecOC", or "own"
    defence    what stands in its way
    without    the weakened build of the control, in words: "a window that takes every counter"
    weakening  the same as a change of the sources
    """

    name: str
    source: str
    defence: str
    without: str
    weakening: Weakening

    @property
    def sources(self) -> list[str]:
        """The sources one by one."""
        return [item.strip() for item in self.source.split(";")]


@dataclass(frozen=True)
class Described:
    """An attack with what its file's docstring says."""

    file: str
    attack: Attack
    title: str
    setting: str
    means: str
    success: str


def describe(module: ModuleType, file: str) -> Described:
    """The attack of a file. ValueError if its docstring lacks a part."""
    text = module.__doc__ or ""
    title = text.split("\n", 1)[0].removeprefix("Attack: ").rstrip(".")
    parts: dict[str, str] = {}
    for part in PARTS:
        found = re.search(r"^%s +(.*?)(?=^\S|\Z)" % part, text, re.MULTILINE | re.DOTALL)
        if found is None or not text.startswith("Attack: "):
            raise ValueError("%s: the docstring has no %s" % (file, part))
        parts[part] = " ".join(found.group(1).split())
    return Described(file, module.ATTACK, title, parts["Setting"], parts["Means"], parts["Success"])


def files() -> list[Path]:
    """The files with attacks, by name."""
    return [path for path in sorted(FOLDER.glob("test_*.py")) if "\nATTACK = Attack(" in path.read_text()]


def load(path: Path) -> Any:
    """A file of the suite as a module."""
    name = "attacks_" + path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def catalogue() -> list[Described]:
    """All attacks of the suite."""
    return [describe(load(path), path.name) for path in files()]


# -- who names attacks ------------------------------------------------------------------------------------------------

# The attacks that SPsec's own formal models list as succeeding against it, and its two notes.
SPSEC = {
    "SPsec attack_T3_replay": "no state per nonce: a frame replays inside the window",
    "SPsec attack_T7_injection_by_member": "group key: any member forges any other",
    "SPsec attack_heartbeat_liveness_spoof": "a replayed heartbeat hides a dead node",
    "SPsec attack_TOFU_integrator_key": "zero-key onboarding can be hijacked",
    "SPsec attack_integrator_key_eavesdropped": "zero-key onboarding can be read",
    "SPsec attack_seed_key_after_zero_key_onboarding": "the whole hierarchy falls with the first key",
    "SPsec attack_T8_sync_impersonation": "a holder of the seed plays clock master",
    'SPsec "not covered: response delay"': "a delayed answer shifts the timer and the window",
}

# Weaknesses of the field's firmware, applications and proposals.
FIELD = {
    "S1": "key halves in clear on the bus",
    "S2": "rotation of bits by chunk number for secrecy",
    "S3": "both halves in one unauthenticated reply; the split gives no split knowledge",
    "S4": "halves printed in windows and logs",
    "S5": "the bridge returns constant placeholder keys",
    "S6": "the LCT key half in chain state",
    "S7": "key transfer and its answers unauthenticated; anybody overwrites keys",
    "S8": "any register read, and written, by anybody",
    "S9": "time unauthenticated, and no use for freshness",
    "S10": "counter nonces without persistence; one key for both directions",
    "S11": "no associated data: ciphertext under another ID; bit 17 unauthenticated",
    "S12": "fall-back to clear",
    "S13": "broadcast and unregistered commands without keys",
    "S14": "less protection for who is trusted more",
    "S15": "registration by a 32-bit unique id alone",
    "S16": "any frame resets the loss timer",
    "S17": "XOR, sums and 4-byte codes as integrity",
    "S18": '"forward secrecy" from static keys and a public salt',
    "S19": "bit 17 is not fail-safe: old nodes would obey ciphertext",
}

# Attacks on what both of them do not have, or do otherwise: what it is, and the names of who carries it out.
OTHERS = {
    "SecOC: freshness driven apart": ("freshness desync",),
    "a command held back and delivered late": ("held back",),
    "a flood of handshakes": ("hello flood",),
    "a flood of forged frames": ("forged flood",),
    "a reflected handshake": ("reflected handshake",),
    "crossed handshakes": ("crossed handshakes",),
    "a record of another pair, or node": ("transplant to another node", "insider"),
    "a record under another ID": ("transplant",),
    "bit 17 turned": ("bit 17 turned", "bit 17 out of the AAD"),
    "chunks of two records mixed": ("chunk mixing",),
    "packages of two modules swapped": ("package swap",),
    "an old package": ("stale package",),
    "a rogue app and a fresh device": ("rogue app",),
    "a release by a stranger": ("rogue release",),
    "nonces repeated by a broken random generator": ("nonce reuse by RNG fault",),
    "a serial number copied, without its keys": ("copied serial without keys",),
    "a whole flash copied": ("full flash copy",),
    "an honest module framed": ("framing",),
    "a man in the middle of the pair exchange": ("man in the middle of a pair",),
    "a rotation forged": ("forged rotation", "rotation with a stolen root", "endless rotations"),
    "a rotation's messages held back or played back": ("rotation held back",),
    "back to an old epoch": ("old epoch", "stale package"),
    "limits weakened by an old or foreign package": ("weaker terms",),
    "rotations without end": ("endless rotations",),
    "the host's log edited, cut off, reordered, forked": ("audit log changed",),
    "a captured node rewrites its past": ("rewritten past",),
    "audit events forged on the bus": ("forged audit events",),
    "a clear command: no grant, run out, above it, in clear": ("clear command without a grant",),
    "a grant played back, or delivered late": ("grant again",),
    "a pack forced into limp mode, or out of it, or used in it": ("limp mode forced",),
    "a broadcast of a member, of a former one, of before": (
        "member of the group",
        "former member of the group",
        "broadcast replayed or held back",
    ),
    "old modules on one bus with new ones": ("mixed bus",),
    "an app beyond its scope": ("scope",),
    "public keys of small order": ("points of small order",),
    "jamming": ("jamming",),
}
