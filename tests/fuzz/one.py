"""One target in a process of its own: fuzzed, or measured.

python one.py fuzz NAME FOLDER [libFuzzer's options]     coverage-guided (Atheris, libFuzzer) on FOLDER's inputs
python one.py cover NAME FOLDER                          branch coverage of the parser by FOLDER's inputs, as JSON
"""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ROOT / "build" / "fuzz" / "packages"
PATH = [ROOT / "tests", ROOT / "shared", ROOT / "firmware", ROOT / "host", PACKAGES]
OURS = ["packtrust", "packtrust_node", "packtrust_host"]


def _target(name: str) -> ModuleType:
    return importlib.import_module("fuzz.targets." + name)


def fuzz(name: str, folder: Path, options: list[str]) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    # The arithmetic has branches of its own, which no parser chooses: leaving it out makes runs several times as fast.
    with atheris.instrument_imports(include=OURS, exclude=["packtrust.crypto"]):
        target = _target(name)
    atheris.Setup([sys.argv[0], *options, str(folder)], target.take)
    atheris.Fuzz()


def is_covered_by(function: str, entries: list[str]) -> bool:
    """Whether an entry of COVERS (without its module) means this function: its name, class, or a beginning with _."""
    return any(
        function == entry or function.startswith(entry + ".") or (entry.endswith("_") and function.startswith(entry))
        for entry in entries
    )


def cover(name: str, folder: Path) -> dict[str, object]:
    """Branches of the parser, those taken, and the lines from which one was not."""
    import coverage

    measured: dict[str, list[str]] = {}
    report = ROOT / "build" / "fuzz" / name / "coverage.json"
    watch = coverage.Coverage(branch=True, data_file=None, config_file=False, include=["*/packtrust*/*"])
    watch.start()
    target = _target(name)
    for entry in target.COVERS:
        module, _, function = entry.partition(":")
        measured.setdefault(module, []).append(function)
    count = 0
    for path in sorted(folder.iterdir()):
        target.take(path.read_bytes())
        count += 1
    watch.stop()
    files = {str(sys.modules[module].__file__): module for module in measured}
    watch.json_report(morfs=list(files), outfile=str(report), ignore_errors=False)
    branches = taken = 0
    missing: list[str] = []
    for file, found in json.loads(report.read_text())["files"].items():
        module = next(files[known] for known in files if known.endswith(file))
        hit = [region for function, region in found["functions"].items() if is_covered_by(function, measured[module])]
        if not hit:
            raise SystemExit("%s names no function of %s in COVERS" % (name, module))
        for region in hit:
            branches += region["summary"]["num_branches"]
            taken += region["summary"]["covered_branches"]
            missing += ["%s:%d->%d" % (module, *edge) for edge in region["missing_branches"]]
    return {"inputs": count, "branches": branches, "taken": taken, "missing": missing}


def main() -> None:
    """See the module's docstring."""
    sys.path[:0] = [str(path) for path in PATH]
    action, name, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if action == "fuzz":
        fuzz(name, folder, sys.argv[4:])
    print(json.dumps(cover(name, folder)))


if __name__ == "__main__":
    main()
