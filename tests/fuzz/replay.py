"""Gives targets their seeds and their corpus, on the interpreter it is started with; one JSON line a target.

    micropython replay.py TESTS NAME ...        # TESTS: the folder tests/ of a checkout

Each line has `target`, `inputs`, `heap` (most bytes one input took: on MicroPython garbage included, on CPython, for
the host's own targets, what was in use at once; -1 elsewhere) and `error` for an input that made it raise, with
`input` in hex. Portable.
"""

import gc
import json
import sys
from binascii import hexlify, unhexlify

_WARM = 20  # inputs


def inputs(folder, name, target):
    """Seeds, then the inputs that fuzzing found, one line of hex each."""
    for data in target.seeds():
        yield bytes(data)
    try:
        file = open("%s/fuzz/corpus/%s.hex" % (folder, name))
    except OSError:
        return
    for line in file:
        yield unhexlify(line.strip())
    file.close()


def load(name):
    """The target's module."""
    return getattr(__import__("fuzz.targets." + name).targets, name)


def warm(target):
    """Let it import and make what is made once: that is no input's doing."""
    for at, data in enumerate(target.seeds()):
        if at == _WARM:
            break
        try:
            target.take(bytes(data))
        except Exception:
            break  # told below, with its bytes


def replay(folder, name):
    """The result of one target."""
    target = load(name)
    counted = hasattr(gc, "mem_alloc")
    traced = None
    if getattr(target, "HOST_ONLY", False):
        import tracemalloc as traced

        traced.start()
    result = {"target": name, "inputs": 0, "heap": -1}
    if counted or traced:
        warm(target)
    for data in inputs(folder, name, target):
        result["inputs"] += 1
        before = 0
        if counted:
            gc.collect()
            gc.disable()
            before = gc.mem_alloc()
        elif traced:
            traced.reset_peak()
            before = traced.get_traced_memory()[0]
        try:
            target.take(data)
        except Exception as error:
            result["error"] = "%s: %s" % (type(error).__name__, error)
            result["input"] = hexlify(data).decode()
            break
        finally:
            if counted:
                result["heap"] = max(result["heap"], gc.mem_alloc() - before)
                gc.enable()
            elif traced:
                result["heap"] = max(result["heap"], traced.get_traced_memory()[1] - before)
    if traced:
        traced.stop()
    return result


def main(folder, names):
    """All of them; the exit code."""
    sys.path.insert(0, folder)
    # From the leaves up: a chain of imports from source needs more stack than the 32-bit unix port has.
    for leaf in ("errors", "crypto", "crypto.registry", "policy", "channel"):
        __import__("packtrust." + leaf)
    bad = 0
    for name in names:
        result = replay(folder, name)
        print(json.dumps(result))
        bad |= "error" in result
    return bad


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
