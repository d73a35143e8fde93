"""Runs portable test files on the interpreter it is started with; one JSON line a test.

    micropython runner.py FILE.py ...
    >>> import runner; runner.main(["/rom/FILE.py", ...])     # on a board, from its REPL

Each line has `file`, `name`, `ok`, `ms`, and for a failed test `error` with the traceback. The exit
code is 1 if a test failed, a file cannot be loaded, or one holds no test.
"""

import gc
import io
import json
import sys
import time

try:
    from time import ticks_diff, ticks_ms
except ImportError:

    def ticks_ms():
        return time.monotonic_ns() // 1000000

    def ticks_diff(end, start):
        return end - start


def trace(error):
    """The traceback as text."""
    if not hasattr(sys, "print_exception"):
        import traceback

        return "".join(traceback.format_exception(error))
    text = io.StringIO()
    sys.print_exception(error, text)
    return text.getvalue()


def report(path, name, start, error=None):
    """One result line."""
    line = {
        "file": path,
        "name": name,
        "ok": error is None,
        "ms": ticks_diff(ticks_ms(), start),
    }
    if error is not None:
        line["error"] = trace(error)
    print(json.dumps(line))
    return error is None


def run(path):
    """Run the tests of one file; whether all were good."""
    # From the leaves up: a chain of imports from source needs more stack than the 32-bit unix port has.
    for leaf in ("errors", "crypto", "crypto.registry", "policy"):
        __import__("packtrust." + leaf)
    folder, _, module_name = path[: -len(".py")].rpartition("/")
    sys.path.insert(0, folder or ".")
    start = ticks_ms()
    try:
        module = __import__(module_name)
    except Exception as error:
        return report(path, "import", start, error)
    names = sorted([name for name in dir(module) if name.startswith("test_")])
    good = True
    if not names:
        good = report(path, "import", start, ValueError("no function test_... in %s" % path))
    for name in names:
        gc.collect()
        start = ticks_ms()
        try:
            getattr(module, name)()
        except Exception as error:
            report(path, name, start, error)
            good = False
        else:
            report(path, name, start)
    return good


def main(paths):
    """Run all files; the exit code."""
    if not paths:
        print("usage: micropython runner.py FILE.py ...")
        return 2
    bad = 0
    for path in paths:
        if not run(path):
            bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
