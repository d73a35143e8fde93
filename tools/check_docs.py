#!/usr/bin/env python3
"""Check that every relative link in the project's Markdown leads somewhere, anchors included."""

import re
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)


def anchors(markdown: str) -> set[str]:
    """The anchors GitHub gives a page's headings, plus those written out as <a id="...">."""
    found = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", markdown))
    seen: dict[str, int] = {}
    for title in HEADING.findall(FENCE.sub("", markdown)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        found.add(slug if count == 0 else "%s-%d" % (slug, count))
    return found


def broken(page: Path, root: Path) -> list[str]:
    """The relative links of `page` that lead nowhere, each with the reason."""
    text = page.read_text()
    bad = []
    for target in LINK.findall(FENCE.sub("", text)):
        if re.match(r"[a-z][a-z+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        goal = (page.parent / name).resolve() if name else page
        where = "%s: %s" % (page.relative_to(root), target)
        if not goal.is_relative_to(root):
            bad.append("%s leads out of the project" % where)
        elif not goal.exists():
            bad.append("%s does not exist" % where)
        elif anchor and goal.suffix == ".md" and anchor not in anchors(goal.read_text()):
            bad.append("%s: no such heading" % where)
    return bad


def pages(root: Path) -> list[Path]:
    """The Markdown files git knows or would take; those of a plain folder where there is no git."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        found = [root / name for name in done.stdout.split("\0") if name]
    else:
        skipped = {".venv", "build"}
        found = [p for p in root.rglob("*.md") if not skipped & set(p.relative_to(root).parts)]
    return sorted(path for path in found if path.exists())


def main() -> int:
    """Print what is broken; 0 if nothing is."""
    checked = pages(CHECKOUT)
    bad = [line for page in checked for line in broken(page, CHECKOUT)]
    for line in bad:
        print(line)
    print("%d pages checked, %d broken links" % (len(checked), len(bad)))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
