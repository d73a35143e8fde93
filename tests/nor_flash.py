"""NOR flash as a MicroPython block device, for any interpreter: it can lose power at any operation, and counts wear.

Programming clears bits only, a word once between two erasures (zeros always); what breaks that rule raises.
"""

TORN = ("before", "half", "after")
_EIO = -5


class PowerCut(Exception):
    """The lights went out."""


class NorFlash:
    """`blocks` erase blocks of `size` bytes, programmed in words of `word` bytes.

    cut    after so many more operations (program, erase, sync) the power goes, at the next one; None: never
    torn   how far that one comes: "before", "half" (of its bytes; of an erasure: the block's second half), "after"
    dead   the power is gone: that operation raised PowerCut, all others give an error; `copy` is what a reboot finds
    """

    def __init__(self, blocks=8, size=512, word=8, data=None):
        self.blocks = blocks
        self.size = size
        self.word = word
        self.data = bytearray(data) if data is not None else bytearray(b"\xff" * (blocks * size))
        self.cut = None
        self.torn = "before"
        self.dead = False
        self.operations = 0
        self.erasures = [0] * blocks

    def copy(self, cut=None, torn="before"):
        """A device with the same contents."""
        other = NorFlash(self.blocks, self.size, self.word, self.data)
        other.cut = cut
        other.torn = torn
        return other

    def _turn(self):
        """Whether the power goes at this operation."""
        if self.cut is None:
            self.operations += 1
            return False
        if self.cut == 0:
            self.dead = True
            if self.torn == "before":
                raise PowerCut()
            return True
        self.cut -= 1
        self.operations += 1
        return False

    def readblocks(self, block, buffer, offset=0):
        if self.dead:
            return _EIO
        at = block * self.size + offset
        buffer[:] = self.data[at : at + len(buffer)]
        return 0

    def writeblocks(self, block, buffer, offset=0):
        if self.dead:
            return _EIO
        cut = self._turn()
        at = block * self.size + offset
        assert offset + len(buffer) <= self.size and at % self.word == 0
        zeros = not any(buffer)
        data = self.data
        for index in range(len(buffer)):
            if not zeros and data[at + index] != 0xFF and (index % self.word == 0):
                raise AssertionError("a word is programmed twice")
        count = len(buffer) // 2 if cut and self.torn == "half" else len(buffer)
        for index in range(count):
            data[at + index] &= buffer[index]
        if cut:
            raise PowerCut()
        return 0

    def ioctl(self, operation, argument):
        if operation == 4:
            return self.blocks
        if operation == 5:
            return self.size
        if self.dead:
            return _EIO
        if operation == 3:
            if self._turn():
                raise PowerCut()
            return 0
        if operation == 6:
            cut = self._turn()
            half = self.size // 2 if cut and self.torn == "half" else 0
            at = argument * self.size
            self.data[at + half : at + self.size] = b"\xff" * (self.size - half)
            self.erasures[argument] += 1
            if cut:
                raise PowerCut()
            return 0
        return None
