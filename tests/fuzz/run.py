#!/usr/bin/env python3
"""Fuzzes every parser that takes bytes from the wire, the bridge or storage, guided by coverage (Atheris, libFuzzer).

Each target (tests/fuzz/targets) starts from seeds made by the real senders and the corpus that earlier runs found, runs
for --seconds, and is then measured: branch coverage of the parser it names, by all inputs it has. Exit code 1 if an
input made a target raise, run for 20 s or take 1 GB, or if coverage is below 95 %; 2 if it cannot run.
"""

import argparse
import hashlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
BUILD = ROOT / "build" / "fuzz"
PACKAGES = BUILD / "packages"
LOCK = ROOT / "requirements-fuzz.lock"
ONE = ROOT / "tests" / "fuzz" / "one.py"

COVERAGE_MIN = 95.0
KEEP_MAX = 30  # inputs a target keeps in the repository


@dataclass
class Result:
    """What came of one target; `problem` is empty if all is well."""

    target: str
    executions: int = 0
    seconds: float = 0.0
    inputs: int = 0
    branches: int = 0
    taken: int = 0
    missing: list[str] = field(default_factory=list)
    problem: str = ""

    @property
    def coverage(self) -> float:
        """Percent."""
        return 100.0 * self.taken / self.branches if self.branches else 100.0


def names() -> list[str]:
    """All targets: of this folder, and of any other fuzz/targets on the path."""
    import fuzz.targets

    return sorted(module.name for module in pkgutil.iter_modules(fuzz.targets.__path__))


def prepare() -> None:
    """Install Atheris and coverage from the lock, hashes checked, into build/fuzz; nothing if that is done."""
    stamp = PACKAGES / ".lock"
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print("installing the fuzzer (first time, or its lock has changed) ...", flush=True)
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes"]
    command += ["--upgrade", "--target", str(PACKAGES), "-r", str(LOCK)]
    done = subprocess.run(command, check=False, text=True, capture_output=True)
    if done.returncode:
        print(done.stderr.strip(), file=sys.stderr)
        print("error: Atheris cannot be installed (it has wheels for Linux on x86-64): see above", file=sys.stderr)
        raise SystemExit(2)
    stamp.write_text(wanted)


def _path_of(folder: Path, data: bytes) -> Path:
    return folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()


def fill(name: str) -> Path:
    """The target's folder of inputs, with its seeds and its corpus in it."""
    folder = BUILD / name / "inputs"
    folder.mkdir(parents=True, exist_ok=True)
    for data in stored(name):
        _path_of(folder, data).write_bytes(data)
    return folder


def stored(name: str) -> list[bytes]:
    """Seeds and corpus."""
    import replay

    return list(replay.inputs(str(ROOT / "tests"), name, replay.load(name)))


def fuzz(name: str, seconds: int) -> Result:
    """Fuzz and measure one target."""
    result = Result(target=name)
    folder = fill(name)
    start = time.monotonic()
    if seconds:
        options = ["-max_total_time=%d" % seconds, "-timeout=20", "-rss_limit_mb=1024", "-max_len=4096"]
        options += ["-print_final_stats=1", "-artifact_prefix=%s/" % (BUILD / name)]
        done = subprocess.run(
            [sys.executable, str(ONE), "fuzz", name, str(folder), *options],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
        )
        (BUILD / name / "log").write_text(done.stdout + done.stderr)
        units = re.search(r"number_of_executed_units: *(\d+)", done.stderr)
        result.executions = int(units[1]) if units else 0
        if done.returncode:
            artifact = re.search(r"Test unit written to (\S+)", done.stderr)
            cause = re.findall(
                r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b.*$", done.stdout + done.stderr, re.MULTILINE
            )
            result.problem = "%s; input %s; python tests/fuzz/run.py --reproduce %s FILE" % (
                cause[-1][:120] if cause else "see %s" % (BUILD / name / "log"),
                artifact[1] if artifact else "unknown",
                name,
            )
    result.seconds = time.monotonic() - start
    done = subprocess.run(
        [sys.executable, str(ONE), "cover", name, str(folder)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        result.problem = result.problem or "an input raises: %s" % done.stderr.strip().splitlines()[-1][:200]
        return result
    found = json.loads(done.stdout.splitlines()[-1])
    result.inputs, result.branches, result.taken = found["inputs"], found["branches"], found["taken"]
    result.missing = found["missing"]
    if not result.problem and result.coverage < COVERAGE_MIN:
        result.problem = "branch coverage below %g %%: not taken %s" % (COVERAGE_MIN, " ".join(result.missing[:8]))
    return result


def keep(name: str) -> int:
    """Put the shortest inputs that libFuzzer found worth keeping into the corpus; how many beyond the seeds."""
    import replay

    seeds = {bytes(data) for data in replay.load(name).seeds()}
    found = sorted(
        {path.read_bytes() for path in (BUILD / name / "inputs").iterdir()}, key=lambda data: (len(data), data)
    )
    new = [data for data in found if data not in seeds][:KEEP_MAX]
    (CORPUS / (name + ".hex")).write_text("".join(data.hex() + "\n" for data in new))
    return len(new)


def table(results: list[Result]) -> str:
    """Text for a person."""
    lines = [
        "%-14s %11s %8s %7s %9s %9s  %s" % ("parser", "executions", "a second", "inputs", "branches", "coverage", "")
    ]
    for result in results:
        rate = result.executions / result.seconds if result.seconds and result.executions else 0
        lines.append(
            "%-14s %11d %8d %7d %4d/%-4d %7.1f %%  %s"
            % (
                result.target,
                result.executions,
                rate,
                result.inputs,
                result.taken,
                result.branches,
                result.coverage,
                result.problem or "ok",
            )
        )
    return "\n".join(lines)


def main() -> int:
    """See the module's docstring."""
    sys.path[:0] = [str(ROOT / part) for part in ("tests/fuzz", "tests", "shared", "firmware", "host")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="time for each parser (60); 0: measure only")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="parsers at once (one a processor)")
    parser.add_argument("--only", action="append", metavar="NAME", choices=names(), help="this parser; may be repeated")
    parser.add_argument("--keep", action="store_true", help="add what was found to tests/fuzz/corpus")
    parser.add_argument("--json", action="store_true", help="results as JSON")
    parser.add_argument("--reproduce", nargs=2, metavar=("NAME", "FILE"), help="run one input and show what it raises")
    given = parser.parse_args()
    if given.reproduce:
        import replay

        replay.load(given.reproduce[0]).take(Path(given.reproduce[1]).read_bytes())
        print("it raises nothing")
        return 0
    prepare()
    wanted = given.only or names()
    results: list[Result] = []
    with ThreadPoolExecutor(given.jobs) as pool:
        for result in pool.map(lambda name: fuzz(name, given.seconds), wanted):
            results.append(result)
            print(
                "%s: %d executions, %.1f %%" % (result.target, result.executions, result.coverage),
                file=sys.stderr,
                flush=True,
            )
    if given.keep:
        for name in wanted:
            print("%s: %d inputs kept beyond the seeds" % (name, keep(name)), file=sys.stderr)
    print(
        json.dumps([{**asdict(result), "coverage": round(result.coverage, 2)} for result in results])
        if given.json
        else table(results)
    )
    return int(any(result.problem for result in results))


if __name__ == "__main__":
    sys.exit(main())
