"""What portable tests need in place of pytest: they run on CPython, MicroPython and CircuitPython.

A portable test file holds plain `def test_...():` functions with bare asserts, and imports nothing
but the core, what every interpreter has, and this module. tests/on_target runs it on MicroPython.
"""

import json
from binascii import hexlify, unhexlify

try:
    from gc import collect

    from micropython import heap_lock, heap_unlock
except ImportError:  # CPython allocates as it likes

    def collect():
        """Nothing to make room for: it would take a second among all the objects of a test run."""

    def heap_lock():
        """Nothing to lock."""

    def heap_unlock():
        """Nothing to unlock."""


__all__ = ["hexlify", "kept", "raises", "unhexlify", "vectors", "without_heap"]

_HERE = __file__.rsplit("/", 1)[0] if "/" in __file__ else "."
_loaded = {}


def raises(error, function, *args, **kwargs):
    """The exception of type `error` that the call raises; AssertionError if it raises none."""
    try:
        function(*args, **kwargs)
    except error as exception:
        return exception
    raise AssertionError("%s did not raise %s" % (function, error.__name__))


def kept(frames):
    """Frames of `Channel.seal` as a test may keep them: the channel's own are overwritten by its next ones."""
    return [frame.copy() for frame in frames]


def vectors(name):
    """The parsed tests/vectors/<name>.json, loaded once."""
    if name not in _loaded:
        with open("%s/vectors/%s.json" % (_HERE, name)) as file:
            _loaded[name] = json.load(file)
    return _loaded[name]


def without_heap(function, argument):
    """The result of a call that may not allocate; CPython allocates as it likes."""
    collect()
    heap_lock()
    try:
        return function(argument)
    finally:
        heap_unlock()
