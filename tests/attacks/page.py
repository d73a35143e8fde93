#!/usr/bin/env python3
"""Print docs/attacks.md from what the files of the suite say about themselves (tools/generated.py)."""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
for place in ("shared", "host", "host/pytest_micropython_boards/src", "firmware", "tests"):
    sys.path.insert(0, str(CHECKOUT / place))

from attack_suite import FIELD, OTHERS, SPSEC, Described, catalogue  # noqa: E402  # the path is set above

HEAD = """\
# Attacks

<!-- Made by tests/attacks/page.py: run `make generate`. -->

Every attack here is carried out by a program, against packtrust, and once more against a build without the defence in
question. It must fail the first time and succeed the second: a test that cannot fail proves nothing. The weakened build
is the product's own source with a few places replaced in the test ([tests/weakening.py](../tests/weakening.py)); the
product has no switch for it.

    make attacks        # all of them, as a table; exit code 1 if one succeeds or a control does not
    make defences       # takes each defence out in turn, and shows what turns red

Success of an attack is a forged, replayed or late effect, disclosure, or an unsafe state. Denial by jamming is not
prevented: it must end in the defined safe state, contactors open.

*Source* says who names the attack: SPsec's own lemmas (attacks that its formal models find against it), S1 to S19 the
[weaknesses of the field's firmware](#the-fields-weaknesses), SecOC the desync of AUTOSAR's freshness values, "own" none
of them.

"""


def table(attacks: list[Described]) -> list[str]:
    """All attacks, a line each."""
    out = ["| attack | source | defence | control: it succeeds against |", "|---|---|---|---|"]
    for item in attacks:
        attack = item.attack
        out.append(
            "| [%s](#%s) | %s | %s | %s |"
            % (attack.name, anchor(attack.name), attack.source, attack.defence, attack.without)
        )
    return out


def anchor(name: str) -> str:
    """The anchor of a heading."""
    return "".join(letter for letter in name.lower().replace(" ", "-") if letter.isalnum() or letter in "-_")


def link(item: Described) -> str:
    """An attack and its file."""
    return "[%s](#%s) ([file](../tests/attacks/%s))" % (item.attack.name, anchor(item.attack.name), item.file)


def by_source(attacks: list[Described], sources: dict[str, str]) -> list[str]:
    """Which attacks answer which source."""
    out = ["| | weakness | carried out in |", "|---|---|---|"]
    for source, text in sources.items():
        names = [link(item) for item in attacks if source in item.attack.sources]
        out.append("| %s | %s | %s |" % (source.removeprefix("SPsec "), text, ", ".join(names)))
    return out


def by_name(attacks: list[Described], others: dict[str, tuple[str, ...]]) -> list[str]:
    """Which attacks answer which description."""
    out = ["| attack | carried out in |", "|---|---|"]
    for what, names in others.items():
        out.append("| %s | %s |" % (what, ", ".join(link(item) for item in attacks if item.attack.name in names)))
    return out


def main() -> int:
    """Print the page."""
    attacks = catalogue()
    out = [HEAD + "\n".join(table(attacks)), "", "## SPsec's lemmas", "", *by_source(attacks, SPSEC), ""]
    out += ["## The field's weaknesses", "", *by_source(attacks, FIELD), ""]
    out += ["## Others", "", *by_name(attacks, OTHERS), "", "## How each is carried out", ""]
    for item in attacks:
        out += [
            "### %s" % item.attack.name,
            "",
            "%s. [tests/attacks/%s](../tests/attacks/%s)" % (item.title, item.file, item.file),
            "",
            "* Setting: %s" % item.setting,
            "* Means: %s" % item.means,
            "* Success %s" % item.success,
            "",
        ]
    print("\n".join(out).rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
