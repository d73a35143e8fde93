"""pytest fixtures for MicroPython boards, real and virtual: board, console, CAN bus, power cycle."""

from .board import Board
from .console import Console
from .description import Description, load
from .errors import BoardError, BoardTimeout, ScriptError
from .rawrepl import Execution, RawRepl

__all__ = [
    "Board",
    "BoardError",
    "BoardTimeout",
    "Console",
    "Description",
    "Execution",
    "RawRepl",
    "ScriptError",
    "load",
]
