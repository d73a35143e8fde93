"""Runs on MicroPython: slots on a real littlefs, on flash in RAM that loses its power at any operation.

    micropython littlefs_target.py DESCRIPTOR < requests        answers go to that descriptor

A request is a line of JSON, `{"do": .., "sizes": [..]}`, and bytes: the flash image and the data of the operation. An
answer is a line of JSON with the sizes of the bytes that follow it. `littlefs.py` is the other end.

    format   make a file system with the given slots        -> image
    apply    carry out an operation on the slots            -> image
    cut      the same, the power going at operation `cut`   -> image
    read     mount, and read all slots                      -> slots
    sweep    the same, cut at every operation in every way  -> what a reboot finds, how often, and a cut for each
"""

import gc
import json
import sys

import vfs

sys.path[:0] = ["shared", "firmware", "tests"]

from nor_flash import TORN, NorFlash, PowerCut  # noqa: E402
from packtrust_node.store import FileSlots  # noqa: E402

BLOCKS = 64
SIZE = 1024
WORD = 32  # littlefs programs no less, by MicroPython's default
FOLDER = "/lfs/state"


def mounted(flash, make=False):
    """The file system on `flash`, mounted anew, and its slots."""
    vfs.umount("/lfs") if "/lfs" in MOUNTS else None
    MOUNTS.clear()
    if make:
        vfs.VfsLfs2.mkfs(flash)
    vfs.mount(vfs.VfsLfs2(flash), "/lfs")
    MOUNTS.append("/lfs")
    return FileSlots(FOLDER)


MOUNTS = []


def act(slots, operation, name, data):
    if operation == "write":
        slots.write(name, data)
    elif operation == "remove":
        slots.remove(name)
    else:
        raise ValueError(operation)


def found(flash):
    slots = mounted(flash)
    return {name: slots.read(name) for name in slots.names()}


def cut_off(image, operation, name, data, cut, torn):
    """The flash after the power went at operation `cut`, and whether the slots' operation had ended before."""
    flash = NorFlash(BLOCKS, SIZE, WORD, image)
    slots = mounted(flash)
    flash.cut = cut
    flash.torn = torn
    try:
        act(slots, operation, name, data)
    except (PowerCut, OSError):
        if not flash.dead:
            raise
    return flash.copy(), not flash.dead


def sweep(image, operation, name, data):
    outcomes = []
    points = 0
    for torn in TORN:
        cut = 0
        while True:
            flash, complete = cut_off(image, operation, name, data, cut, torn)
            if complete:
                break
            points += 1
            slots = found(flash)
            for outcome in outcomes:
                if outcome["slots"] == slots:
                    outcome["count"] += 1
                    outcome["cuts"].append([cut, torn])
                    break
            else:
                outcomes.append({"slots": slots, "count": 1, "cuts": [[cut, torn]]})
            cut += 1
        gc.collect()
    return points, outcomes


def answer(request, parts):
    do = request["do"]
    if do == "format":
        flash = NorFlash(BLOCKS, SIZE, WORD)
        slots = mounted(flash, True)
        for index, data in enumerate(parts):
            slots.write(request["names"][index], data)
        return {}, [flash.data]
    image = parts[0]
    if do == "read":
        slots = found(NorFlash(BLOCKS, SIZE, WORD, image))
        names = sorted(slots)
        return {"names": names}, [slots[name] for name in names]
    arguments = (request["operation"], request["name"], parts[1])
    if do == "apply":
        flash = NorFlash(BLOCKS, SIZE, WORD, image)
        act(mounted(flash), *arguments)
        return {"erased": sum(flash.erasures), "operations": flash.operations}, [flash.data]
    if do == "cut":
        return {}, [cut_off(image, arguments[0], arguments[1], arguments[2], request["cut"], request["torn"])[0].data]
    points, outcomes = sweep(image, *arguments)
    reply = []
    for outcome in outcomes:
        names = sorted(outcome["slots"])
        lengths = [len(outcome["slots"][name]) for name in names]
        reply.append({"names": names, "lengths": lengths, "count": outcome["count"], "cuts": outcome["cuts"]})
    blobs = [b"".join([outcome["slots"][name] for name in sorted(outcome["slots"])]) for outcome in outcomes]
    return {"points": points, "outcomes": reply}, blobs


def serve():
    stream = sys.stdin.buffer
    # Not the standard output: there MicroPython says that a file of a dead file system cannot be closed.
    out = open("/dev/fd/" + sys.argv[1], "wb")  # noqa: SIM115
    while True:
        line = stream.readline()
        if not line:
            return
        request = json.loads(line)
        parts = [stream.read(size) if size else b"" for size in request["sizes"]]
        reply, blobs = answer(request, parts)
        reply["sizes"] = [len(blob) for blob in blobs]
        out.write(json.dumps(reply).encode() + b"\n")
        for blob in blobs:
            out.write(blob)


try:
    serve()
except Exception as error:  # noqa: BLE001 - whatever it is, the other end must see it
    sys.print_exception(error, sys.stderr)
    sys.exit(1)
