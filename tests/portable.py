"""What portable tests need in place of pytest: they run on CPython, MicroPython and CircuitPython.

A portable test file holds plain `def test_...():` functions with bare asserts, and imports nothing
but the core, what every interpreter has, and this module. tests/on_target runs it on MicroPython.
"""

import json
from binascii import hexlify, unhexlify

__all__ = ["hexlify", "kept", "raises", "unhexlify", "vectors"]

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
