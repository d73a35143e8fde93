"""The virtual board: MicroPython's unix port with file descriptors in place of hardware.

    micropython boot.py '{"flash": "DIR", "can": [FD, ...], "tap": FD or null}'

flash   directory with the node's files as deployed: main.py, packtrust_node/, lib/packtrust/, node.json.
can     one descriptor a CAN port, non-blocking, that speaks SLCAN (a socket pair of the virtual bus).
tap     None, or a descriptor for the key tap: every key this node has ever had in hands, one hex line each, so
        that a test can prove that none of them was on the bus. Nothing of it is in the firmware.

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
        from packtrust_node.env import data_bitrate

        config = self.config()
        filters = () if accept is None else dual_filter(accept)
        stream = open(self._can[index], "r+b")  # noqa: SIM115
        bitrate = config.get("bitrate", 500000)
        return SlcanCan(stream, bitrate, filters, data_bitrate=data_bitrate(config, index))

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

    def install(self) -> None:
        """Put itself between the core's key derivation and its users, before anybody imports it."""
        from packtrust import crypto
        from packtrust.crypto import curve25519, hpke, kdf

        write = self.write
        init = crypto.AESGCM.__init__
        expand = kdf.expand
        multiply = curve25519.multiply
        extract = crypto.hkdf_extract
        labeled_extract = hpke._extract

        def tapped_init(aead, key, backend=None) -> None:
            write("aes", key)
            init(aead, key, backend)

        def tapped_expand(prk, info, length):
            output = expand(prk, info, length)
            write("prk", prk)
            write("okm", output)
            return output

        def tapped_multiply(scalar, point):
            output = multiply(scalar, point)
            write("private", scalar)
            if point[0] != 9 or any(point[1:]):  # times the base point it is a public key
                write("shared", output)
            return output

        def tapped_extract(salt, ikm, backend=None):
            output = extract(salt, ikm, backend)
            write("ikm", ikm)
            write("prk", output)
            return output

        def tapped_labeled_extract(suite, salt, label, ikm, backend):
            output = labeled_extract(suite, salt, label, ikm, backend)
            # The other two labels hash what is public.
            if label not in (b"psk_id_hash", b"info_hash"):
                write("ikm", ikm)
                write("prk", output)
            return output

        crypto.AESGCM.__init__ = tapped_init
        kdf.expand = tapped_expand
        curve25519.multiply = tapped_multiply
        crypto.hkdf_extract = tapped_extract
        hpke._extract = tapped_labeled_extract


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
