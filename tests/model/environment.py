"""What a node of a model gets from outside: the clock and the entropy of the state it is in."""

from __future__ import annotations

import hashlib

from model.state import Shared


class World(Shared):
    """The clock of the state that is being stepped."""

    def __init__(self) -> None:
        self.now_ms = 0

    def clock(self) -> int:
        return self.now_ms


class Entropy(Shared):
    """Random bytes of one node: a function of its name and of how many blocks it has drawn, which is in the state.

    So they never repeat, as a true source's never do, and a step gives the same bytes whenever it is taken.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.drawn = 0

    def __call__(self, count: int) -> bytes:
        self.drawn += 1
        return hashlib.shake_128(b"%s %d" % (self._name.encode(), self.drawn)).digest(count)
