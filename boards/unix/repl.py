"""The virtual board's console as a stock board's: boot.py, main.py, then MicroPython's REPL with its raw mode.

    micropython repl.py '{"flash": "DIR", "can": [FD, ...], "status": FD, "start": "power", "unique_id": "HEX"}'

flash      directory the board has for a file system; it sees nothing else, at `/`.
can        as in boot.py, which makes the module `packtrust_board` here too.
status     descriptor one byte goes to whenever the console changes state, for whoever starts this:
               I  reads a line        W  reads in raw mode      F  a program runs, from here on Ctrl-C interrupts
               R  the same, started in raw mode                 k, K  that program wants Ctrl-C as a byte, no longer
               X  hard reset wanted   S  soft reset wanted      T  soft reset back into raw mode wanted
start      "power" (boot.py, main.py), "soft" (the same after a soft reset), "raw" (boot.py, then raw mode).
unique_id  what `machine.unique_id()` is to be.

The port has no soft or hard reset of its own and no raw mode. Resets are done from outside: the process is ended and
started anew, so nothing of the old one stays but its files. Ctrl-C comes as SIGINT while a program runs, and as a byte
otherwise, as on a board. The protocol is MicroPython's (reference manual, "The MicroPython Interactive Interpreter
Mode": raw mode, raw-paste mode).
"""

import json
import os
import sys
from time import sleep

import micropython
import vfs

_WINDOW = 1024  # raw-paste flow control, bytes
_RAW_BANNER = b"raw REPL; CTRL-B to exit\r\n>"

_in = sys.stdin.buffer
_out = sys.stdout.buffer
_status = None


def _tell(state: bytes) -> None:
    _status.write(state)


def _reset(state: bytes) -> None:
    """Ask for a reset and wait to be ended."""
    _tell(state)
    while True:
        try:
            sleep(1)
        except KeyboardInterrupt:
            continue


def _get() -> int:
    byte = _in.read(1)
    if not byte:
        sys.exit(0)  # whoever started this is gone
    return byte[0]


class Machine:
    """The port's `machine`, and what boards have besides."""

    def __init__(self, port, unique_id: bytes) -> None:
        self._port = port
        self._unique_id = unique_id

    def __getattr__(self, name: str):
        return getattr(self._port, name)

    def unique_id(self) -> bytes:
        """This board's number."""
        return self._unique_id

    def reset(self) -> None:
        """Power-up without the power."""
        _reset(b"X")

    def soft_reset(self) -> None:
        """A new interpreter."""
        raise SystemExit


class Micropython:
    """The port's `micropython`; whether Ctrl-C interrupts is told to the outside."""

    def __init__(self, port) -> None:
        self._port = port

    def __getattr__(self, name: str):
        return getattr(self._port, name)

    def kbd_intr(self, char: int) -> None:
        """3: Ctrl-C interrupts; -1: it is a byte as any other."""
        _tell(b"K" if char == 3 else b"k")


class Repl:
    """The interpreter's prompt on standard input and output."""

    def __init__(self, raw: bool) -> None:
        self._raw = raw
        self._globals = {"__name__": "__main__"}
        self._line = bytearray()
        self._block = ""

    # -- running -------------------------------------------------------------------------------

    def execute(self, code) -> bool:
        """Run source or code; False if it raised. SystemExit is a soft reset."""
        failed = None
        leave = False
        try:
            try:
                _tell(b"R" if self._raw else b"F")
                exec(code, self._globals)  # noqa: S102
            except SystemExit:
                leave = True
            except BaseException as error:  # noqa: BLE001
                failed = error
            if self._raw:
                _out.write(b"\x04")
            if failed is not None:
                sys.print_exception(failed, sys.stdout)
            if self._raw:
                _out.write(b"\x04")
        except KeyboardInterrupt:
            # It came too late to interrupt anything.
            failed = True
            if self._raw:
                _out.write(b"\x04\x04")
        if leave:
            self.soft_reset()
        return failed is None

    def run_file(self, name: str) -> bool:
        """Run a file of the flash, if it is there; False if it raised."""
        try:
            with open(name) as file:
                source = file.read()
        except OSError:
            return True
        raw = self._raw
        self._raw = False
        try:
            return self.execute(compile(source, name, "exec"))
        except SyntaxError as error:
            sys.print_exception(error, sys.stdout)
            return False
        finally:
            self._raw = raw

    def soft_reset(self) -> None:
        """As Ctrl-D."""
        _out.write(b"MPY: soft reboot\r\n")
        _reset(b"T" if self._raw else b"S")

    # -- the prompts ---------------------------------------------------------------------------

    def banner(self) -> None:
        """Of the mode."""
        self._line = bytearray()
        self._block = ""
        if self._raw:
            _out.write(_RAW_BANNER)
            return
        implementation = sys.implementation
        _out.write(
            b'\r\nMicroPython v%s; %s\r\nType "help()" for more information.\r\n>>> '
            % (".".join([str(part) for part in implementation.version[:3]]).encode(), implementation._machine.encode())
        )

    def _prompt(self) -> None:
        _out.write(b"... " if self._block else b">>> ")

    def serve(self) -> None:
        """Until standard input ends."""
        self.banner()
        while True:
            try:
                _tell(b"W" if self._raw else b"I")
                while True:
                    if self._take(_get()):
                        _tell(b"W" if self._raw else b"I")
            except KeyboardInterrupt:
                self._line = bytearray()
                self._block = ""

    def _take(self, char: int) -> bool:
        """One byte typed; True if the state is to be told."""
        if char == 1:  # Ctrl-A
            self._raw = True
            self.banner()
            return True
        if char == 2:  # Ctrl-B
            self._raw = False
            self.banner()
            return True
        if char == 3:  # Ctrl-C
            self._line = bytearray()
            self._block = ""
            if not self._raw:
                _out.write(b"\r\n>>> ")
            return False
        if self._raw:
            return self._take_raw(char)
        return self._take_friendly(char)

    def _take_raw(self, char: int) -> bool:
        if char == 4:
            if not self._line:
                _out.write(b"OK\r\n")
                self.soft_reset()
            source = bytes(self._line)
            self._line = bytearray()
            _out.write(b"OK")
            self._execute_raw(source)
            return True
        if char == 5 and not self._line:
            if _get() == 0x41:  # "A"
                _get()
                self._raw_paste()
            return True
        self._line.append(char)
        return False

    def _execute_raw(self, source: bytes) -> None:
        try:
            code = compile(source, "<stdin>", "exec")
        except BaseException as error:  # noqa: BLE001
            _out.write(b"\x04")
            sys.print_exception(error, sys.stdout)
            _out.write(b"\x04")
        else:
            self.execute(code)
        _out.write(b">")

    def _raw_paste(self) -> None:
        _out.write(b"R\x01" + bytes((_WINDOW & 0xFF, _WINDOW >> 8)) + b"\x01")
        source = bytearray()
        room = _WINDOW
        while True:
            char = _get()
            if char == 4:
                break
            if char == 3:
                _out.write(b"\x04\x04\x04>")  # nothing runs
                return
            source.append(char)
            room -= 1
            if not room:
                _out.write(b"\x01")
                room = _WINDOW
        _out.write(b"\x04")
        self._execute_raw(bytes(source))

    def _take_friendly(self, char: int) -> bool:
        if char == 4:
            if self._line:
                return True
            _out.write(b"\r\n")
            self.soft_reset()
        if char == 5:  # Ctrl-E
            self._paste()
            return True
        if char in (8, 0x7F):
            if self._line:
                self._line = self._line[:-1]
                _out.write(b"\x08 \x08")
            return False
        if char not in (10, 13):
            self._line.append(char)
            _out.write(bytes((char,)))
            return False
        _out.write(b"\r\n")
        line = self._line.decode()
        self._line = bytearray()
        if self._block or line.rstrip().endswith(":") or line.startswith("@"):
            # A block ends at an empty line.
            self._block += line + "\n"
            if line.strip():
                self._prompt()
                return False
            line = self._block
            self._block = ""
        self._evaluate(line)
        self._prompt()
        return True

    def _evaluate(self, text: str) -> None:
        if not text.strip():
            return
        try:
            try:
                code = compile(text, "<stdin>", "eval")
            except SyntaxError:
                code = compile(text, "<stdin>", "exec")
            else:
                self._globals["__shown"] = lambda value: None if value is None else print(repr(value))
                self._globals["__code"] = code
                code = compile("__shown(eval(__code))", "<stdin>", "exec")
        except BaseException as error:  # noqa: BLE001
            sys.print_exception(error, sys.stdout)
            return
        self.execute(code)

    def _paste(self) -> None:
        _out.write(b"\r\npaste mode; Ctrl-C to cancel, Ctrl-D to finish\r\n=== ")
        source = bytearray()
        while True:
            char = _get()
            if char in (3, 4):
                break
            source.append(10 if char == 13 else char)
            _out.write(b"\r\n=== " if char == 13 else bytes((char,)))
        _out.write(b"\r\n")
        if char == 4:
            try:
                self.execute(compile(bytes(source), "<stdin>", "exec"))
            except SyntaxError as error:
                sys.print_exception(error, sys.stdout)
        self._prompt()


def power_up(settings: dict) -> None:
    """Be the board."""
    global _status
    import machine

    from boot import Board

    _status = open(settings["status"], "wb")  # noqa: SIM115
    sys.modules["packtrust_board"] = Board(settings)
    sys.modules["machine"] = Machine(machine, bytes.fromhex(settings["unique_id"]))
    sys.modules["micropython"] = Micropython(micropython)
    for name in ("boot", "json", "repl"):
        sys.modules.pop(name, None)
    # Relative paths follow the process, absolute ones the mount: both are needed.
    os.chdir(settings["flash"])
    root = os.getcwd()
    vfs.umount("/")
    vfs.mount(vfs.VfsPosix(root), "/")
    os.chdir("/")
    sys.path[:] = ["", ".frozen", "/lib"]
    sys.argv[:] = []
    repl = Repl(settings["start"] == "raw")
    if repl.run_file("boot.py") and settings["start"] != "raw":
        repl.run_file("main.py")
    repl.serve()


if __name__ == "__main__":
    power_up(json.loads(sys.argv[1]))
