"""packtrust: provable identity, keys that exist nowhere else, and encrypted CAN, on stock MicroPython.

`Channel` is what most users want: see packtrust.channel and docs/wire.md. Everything here is sans-I/O and runs
unchanged on CPython, MicroPython and CircuitPython. Names are loaded on first use, so a board pays only for what it
imports.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust.channel import ESTABLISHED, OPENED, REFUSED, Channel, Event
    from packtrust.frame import Frame
    from packtrust.handshake import INITIATOR, RESPONDER
    from packtrust.keys import pair_secret

__all__ = [
    "ESTABLISHED",
    "INITIATOR",
    "OPENED",
    "REFUSED",
    "RESPONDER",
    "Channel",
    "Event",
    "Frame",
    "pair_secret",
]

_HOMES = {
    "Channel": "channel",
    "Event": "channel",
    "OPENED": "channel",
    "REFUSED": "channel",
    "ESTABLISHED": "channel",
    "Frame": "frame",
    "INITIATOR": "handshake",
    "RESPONDER": "handshake",
    "pair_secret": "keys",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is not None:
        return getattr(__import__("packtrust." + home, None, None, (name,)), name)
    if not name.startswith("_"):
        # MicroPython asks here for the submodule of `from packtrust import submodule` too.
        try:
            return __import__("packtrust." + name, None, None, (name,))
        except ImportError:
            pass  # said in the words of an attribute below
    raise AttributeError("packtrust has no %s" % name)
