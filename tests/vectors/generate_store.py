"""Adds stores as today's firmware writes them to tests/vectors/store.json; what is in there already never changes.

    python tests/vectors/generate_store.py FORMAT

Run it from the last commit that writes a format, before that format changes: the images are what nodes in the field
have. FORMAT names it, e.g. "1"; the images of a name that is there already are kept and nothing is written.

Three images of a pack controller and its module, all from an in-process pack with seed 41:

    unclaimed   after the first boot
    keyed       claimed, provisioned, in session
    rotated     a second epoch is stored on both, no record under it has come: the first one is still kept
"""

import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("shared", "host", "firmware", "tests")]

from app_bench import AppBench  # noqa: E402

TARGET = pathlib.Path(__file__).with_name("store.json")
NODES = ("pack", "module1")


def image(bench: AppBench, name: str) -> dict:
    """The slots of both nodes as a power cut would leave them now, and what they hold."""
    nodes = {}
    for node_name in NODES:
        station = bench.pack.stations[node_name]
        node, identity = station.node, station.node.identity
        relations = [
            {
                "lct_id": relation.lct_id,
                "epoch": relation.epoch,
                "node": relation.node,
                "counter": relation.counter,
                "root": bytes(relation.root).hex(),
                "previous": None
                if relation.previous is None
                else {"epoch": relation.previous[0], "root": bytes(relation.previous[1]).hex()},
            }
            for relation in node.relations.values()
        ]
        nodes[node_name] = {
            "unique_id": node.unique_id,
            "slots": {slot: bytes(data).hex() for slot, data in sorted(station.slots.files.items())},
            "boot_counter": node.boot_counter,
            "private": bytes(identity.private).hex(),
            "claim_code": bytes(identity.claim_code).hex(),
            "owner_public": bytes(identity.owner_public).hex(),
            "counter": identity.counter,
            "relations": sorted(relations, key=lambda item: item["lct_id"]),
        }
    return {"name": name, "nodes": nodes}


def build() -> list:
    with tempfile.TemporaryDirectory() as folder:
        bench = AppBench(pathlib.Path(folder), modules=1, seed=41)
        images = [image(bench, "unclaimed")]
        bench.commission()
        bench.pack.run_for(3000)
        images.append(image(bench, "keyed"))
        # Stop when both ends of the pair have stored the new epoch and none has seen a record under it.
        number = bench.pack.node("module1").own_node
        record = next(item for item in bench.store.relationships.values() if item.node == number)
        task = bench.node.spawn(bench.provisioner().install(record.lct_id), "rotate")

        def both() -> bool:
            ends = [
                relation
                for name in NODES
                for relation in bench.pack.node(name).relations.values()
                if relation.lct_id == record.lct_id
            ]
            return len(ends) == 2 and all(item.epoch == 2 and item.previous is not None for item in ends)

        assert bench.pack.run_until(lambda: both() or task.done, 60_000) and both()
        images.append(image(bench, "rotated"))
        for made in images:
            made["owner_private"] = bytes(bench.store.private_key).hex()
    return images


def main(arguments: list) -> int:
    if len(arguments) != 1:
        print(__doc__)
        return 2
    known = json.loads(TARGET.read_text()) if TARGET.exists() else {"source": "", "formats": []}
    if any(item["format"] == arguments[0] for item in known["formats"]):
        print("images of format %s are there already and stay as they are" % arguments[0])
        return 0
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "firmware", "shared"], cwd=ROOT).returncode
    made_by = "the commit that added these images" if changed else commit.stdout.strip()
    known["source"] = "tests/vectors/generate_store.py, run with the firmware that wrote each format (made_by: commit)"
    known["formats"].append({"format": arguments[0], "made_by": made_by, "images": build()})
    TARGET.write_text(json.dumps(known, indent=1) + "\n")
    print("%s: format %s added" % (TARGET.name, arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
