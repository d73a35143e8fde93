"""packtrust: provable identity, keys that exist nowhere else, and encrypted CAN, on stock MicroPython.

`Channel` is what most users want: see packtrust.channel and docs/wire.md. Everything here is sans-I/O and runs unchanged on CPython,
MicroPython and CircuitPython. Names are loaded on first use, so a board pays only for what it imports.
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
    if home is None:
        raise AttributeError("packtrust has no %s" % name)
    module = __import__("packtrust." + home, None, None, (name,))
    return getattr(module, name)
