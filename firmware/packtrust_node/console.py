"""The node's console: one command a line, one line of answer.

id      unique ID, role, serial, as JSON
claim   the claim code, 32 hex digits, or "none" once the node is claimed
stats   counters as JSON; no secrets
reset   back to an unclaimed node: keys and owner wiped, new claim code
help    this list
"""

from json import dumps

from packtrust._compat import const

_LINE_MAX = const(80)


class Console:
    """Commands in as bytes, text out through `write(text)`.

    node     with `figures()` (pairs, see node.Node), `claim_code() -> bytes or None`, `reset()`.
    config   the node's own configuration (role, serial, unique_id are shown).
    extra    `extra() -> dict` of the board's figures, shown in `stats` under "board".
    """

    def __init__(self, node, config: dict, write, extra=None) -> None:
        self._node = node
        self._config = config
        self._write = write
        self._extra = extra
        self._line = b""
        self._skip = False

    def greet(self) -> None:
        """What a node says at power-up; an unclaimed one shows its claim code."""
        self._say("packtrust %s %s" % (self._config["role"], self._config["serial"]))
        if self._node.claim_code():
            self.command("claim")

    def log(self, text: str) -> None:
        """A line of the node's log."""
        self._say("log " + text)

    def _say(self, text: str) -> None:
        self._write(text + "\n")

    def _say_figures(self) -> None:
        """One line of JSON, said in pieces: a board with little RAM has no room for all of it at once."""
        self._write("stats ")
        try:
            lead = "{"
            for key, value in self._node.figures():
                self._write(lead + dumps(key) + ": ")
                self._say_value(value)
                lead = ", "
            if self._extra is not None:
                self._write(lead + '"board": ')
                self._say_value(self._extra())
            self._write("}")
        finally:
            # What is broken off ends here: what is logged of it is a line of its own.
            self._write("\n")

    def _say_value(self, value) -> None:
        if isinstance(value, dict):
            value = value.items()
        elif not isinstance(value, list) or not value or not isinstance(value[0], tuple):
            self._write(dumps(value))
            return
        lead = "{"
        for key, inner in value:
            self._write(lead + dumps(key) + ": ")
            # Of many, what gives the value.
            self._say_value(inner() if callable(inner) else inner)
            lead = ", "
        self._write("}" if lead != "{" else "{}")

    def feed(self, data: bytes) -> None:
        """Bytes typed; answers every complete line."""
        parts = (self._line + data).replace(b"\r", b"\n").split(b"\n")
        self._line = parts.pop()
        for part in parts:
            if self._skip:
                self._skip = False
                self._say("error line too long: type help")
                continue
            try:
                text = part.decode().strip()
            except ValueError:
                text = "?"
            if text:
                self.command(text)
        if len(self._line) > _LINE_MAX:
            self._skip = True
            self._line = b""

    def command(self, text: str) -> None:
        """Carry out one command."""
        config = self._config
        if text == "claim":
            code = self._node.claim_code()
            self._say("claim " + ("".join(["%02x" % byte for byte in code]) if code else "none"))
        elif text == "id":
            shown = {}
            for key in ("role", "serial", "unique_id", "profile", "pack"):
                if key in config:
                    shown[key] = config[key]
            self._say("id " + dumps(shown))
        elif text == "stats":
            self._say_figures()
        elif text == "reset":
            self._node.reset()
            self._say("reset done")
        elif text == "help":
            self._say("help commands: claim id stats reset help")
        else:
            self._say("error no such command: type help")
