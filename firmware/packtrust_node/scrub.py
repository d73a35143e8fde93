"""Overwrites what the garbage collector has left in the heap: a freed object keeps its bytes until its place is taken.

Keys are held in bytearrays that are wiped, but arithmetic leaves copies that nobody can reach any more: digits of big
integers, digests, results cut from longer ones, cipher objects. All free memory is taken, which overwrites it, and
given back. Where the collector cannot be asked for free memory (CPython) nothing is done.
"""

import gc

from packtrust._compat import const

# Below that single blocks are faster: looking for room for more takes longer than filling it.
_LEAST = const(2048)
# Calls deep, which is more of the stack than a collection uses.
_DEPTH = const(12)


def _cover(depth: int) -> None:
    """Lay other values over what calls before have left on the stack: the collector takes each such word for a pointer,
    and so would keep what it once pointed to."""
    if depth:
        _cover(depth - 1)


def free_heap() -> None:
    """Collect, then overwrite all free memory of the heap. Neither raises nor keeps anything.

    It takes as long as a few collections (docs/keys.md).
    """
    free = getattr(gc, "mem_free", None)
    if free is None:
        return
    _cover(_DEPTH)
    gc.collect()
    automatic = gc.isenabled()
    gc.disable()  # so that nothing taken is given back, though nobody holds it; and no refusal collects first
    try:
        size = free()
        while size >= _LEAST:
            try:
                bytearray(size)
            except MemoryError:
                size >>= 2  # each refusal has looked through the whole heap: fewer are better than a close fit
        while True:
            _ = (size, None)  # one block of the heap, the smallest piece there is
    except MemoryError:
        pass
    finally:
        if automatic:
            gc.enable()
    gc.collect()
