"""The virtual board: MicroPython's unix port with file descriptors in place of hardware.

    micropython boot.py '{"flash": "DIR", "can": [FD, ...], "tap": FD or null}'

flash   directory with the node's files as deployed: main.py, packtrust_node/, lib/packtrust/, node.json.
can     one descriptor a CAN port, non-blocking, that speaks SLCAN (a socket pair of the virtual bus).
tap     None, or a descriptor for the key tap: every key this node has ever had in hands, one hex line each, so that a test can
        prove that none of them was on the bus. Nothing of it is in the firmware.

Console on standard input and output. The node ends when standard input does.
"""

import gc
import json
import os
import sys


class Board:
    """The module `packtrust_board` of this board."""

    def __init__(self, settings: dict) -> None:
        self._can = settings["can"]
        self.state_directory = "state"
        self.console_in = open(0, "rb")  # noqa: SIM115

    def config(self) -> dict:
        """node.json of the flash directory."""
        with open("node.json") as file:
            return json.load(file)

    def can_port(self, index: int, accept):
        """An SLCAN driver on the descriptor of that port."""
        from packtrust_node.can_slcan import SlcanCan, dual_filter

        filters = ()
        if accept is not None:
            filters = dual_filter(accept[0][0], accept[0][1], accept[1][0], accept[1][1])
        return SlcanCan(open(self._can[index], "r+b"), self.config().get("bitrate", 500000), filters)

    def urandom(self, count: int) -> bytes:
        """The operating system's random bytes."""
        return os.urandom(count)

    def console_write(self, text: str) -> None:
        """To standard output."""
        sys.stdout.write(text)

    def statistics(self) -> dict:
        """Heap in use and free, in bytes."""
        gc.collect()
        return {"heap_used": gc.mem_alloc(), "heap_free": gc.mem_free()}


class Tap:
    """Writes what goes into and comes out of key derivation to a descriptor: `kind hex`, one a line."""

    def __init__(self, fd: int) -> None:
        self._file = open(fd, "wb")  # noqa: SIM115

    def write(self, kind: str, secret) -> None:
        """One key."""
        if secret:
            self._file.write("%s %s\n" % (kind, "".join(["%02x" % byte for byte in bytes(secret)])))

    def _wrap(self, function, kinds, result):
        """A function that reports its first arguments as `kinds` says (None: not secret) and its result."""

        def tapped(*args, **kwargs):
            for kind, argument in zip(kinds, args):
                if kind:
                    self.write(kind, argument)
            value = function(*args, **kwargs)
            if result:
                self.write(result, value)
            return value

        return tapped

    def install(self) -> None:
        """Replace the functions in every module of packtrust.crypto, before anybody imports them from there."""
        from packtrust import crypto
        from packtrust.crypto import hpke

        original = crypto.AESGCM

        class TappedAESGCM(original):
            def __init__(inner, key, backend=None) -> None:  # noqa: N805
                self.write("aes", key)
                super().__init__(key, backend)

        wrapped = {
            "AESGCM": TappedAESGCM,
            "hkdf_extract": self._wrap(crypto.hkdf_extract, (None, "ikm"), "prk"),
            "hkdf_expand": self._wrap(crypto.hkdf_expand, ("prk",), "okm"),
            "hkdf": self._wrap(crypto.hkdf, ("ikm",), "okm"),
            "x25519": self._wrap(crypto.x25519, ("private",), "shared"),
            "x25519_public": self._wrap(crypto.x25519_public, ("private",), None),
        }
        before = {name: getattr(crypto, name) for name in wrapped}
        for module in (crypto, hpke):
            for name in wrapped:
                if getattr(module, name, None) is before[name]:
                    setattr(module, name, wrapped[name])


def boot(settings: dict) -> None:
    """Set up the board as the interpreter of a real one would find it, and run main.py."""
    os.chdir(settings["flash"])
    sys.path[:] = ["", "lib", ".frozen"]
    sys.modules["packtrust_board"] = Board(settings)
    if settings.get("tap") is not None:
        Tap(settings["tap"]).install()
    import main

    main.build().run()


if __name__ == "__main__":
    boot(json.loads(sys.argv[1]))
