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
