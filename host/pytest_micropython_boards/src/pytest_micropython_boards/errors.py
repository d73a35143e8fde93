"""What goes wrong with a board."""


class BoardError(Exception):
    """A board does not do what it should; the text says why and what to do next."""


class BoardTimeout(BoardError):
    """A board fell silent."""


class ScriptError(BoardError):
    """Code on the board raised.

    trace   its traceback.
    output  what it had printed before.
    """

    def __init__(self, trace: str, output: str) -> None:
        super().__init__("on the board:\n" + trace.rstrip())
        self.trace = trace
        self.output = output

    @property
    def exception(self) -> str:
        """The name of what was raised, e.g. "ValueError"."""
        last = self.trace.rstrip().rpartition("\n")[2]
        return last.partition(":")[0].strip()
