"""The virtual Cortex-M4 as a test bench: started with modules in its ROM, talked to through its console's raw REPL."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mpremote.transport import TransportError
from mpremote.transport_serial import SerialTransport

from packtrust_host.image import compile_mpy
from packtrust_host.sim.deploy import HOST_ONLY
from packtrust_host.sim.qemu import ICOUNT_SHIFT, QemuMachine, firmware, new_flash

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURE = "armv7emsp"


class BoardError(Exception):
    """The board does not answer, or what it ran failed; the text has what it said."""


def compiled(path: Path, name: str, opt: int = 0) -> bytes:
    """A module as .mpy for the board."""
    return compile_mpy(path.read_bytes(), ARCHITECTURE, name, opt)


def core_modules(opt: int = 0) -> dict[str, bytes]:
    """The core as a board gets it: path below /rom to .mpy."""
    core = ROOT / "shared" / "packtrust"
    modules = {}
    for path in sorted(core.rglob("*.py")):
        name = path.relative_to(core).as_posix()
        if name not in HOST_ONLY:
            modules["lib/packtrust/" + name[: -len("py")] + "mpy"] = compiled(path, "packtrust/" + name, opt)
    return modules


class Board:
    """A running board."""

    def __init__(self, transport: SerialTransport) -> None:
        self._transport = transport

    def run(self, code: str, timeout_s: float, say: Callable[[str], None] = lambda line: None) -> list[str]:
        """The lines that `code` prints; `say` gets each as it comes. BoardError if it raises or does not end."""
        lines: list[str] = []
        rest = bytearray()

        def take(data: bytes) -> None:
            rest.extend(data.replace(b"\x04", b""))
            while b"\n" in rest:
                line, _, tail = bytes(rest).partition(b"\n")
                rest[:] = tail
                lines.append(line.decode("utf-8", "replace").rstrip("\r"))
                say(lines[-1])

        try:
            _, error = self._transport.exec_raw(code, timeout=timeout_s, data_consumer=take)
        except TransportError as silent:
            raise BoardError("no end of %r after %d s: %s" % (code, timeout_s, lines[-3:])) from silent
        if error:
            raise BoardError("%r failed on the board:\n%s" % (code, error.decode("utf-8", "replace")))
        return lines


@contextlib.contextmanager
def started(
    variant: str, modules: Mapping[str, bytes] | bytes, *, icount: bool = False, shift: int = ICOUNT_SHIFT
) -> Iterator[Board]:
    """A freshly started board with `modules` (or an image of them) below /rom. QemuError if it is not built."""
    with tempfile.TemporaryDirectory(prefix="packtrust-board-") as folder:
        flash = Path(folder) / "flash.img"
        new_flash(flash, romfs=modules)
        master, slave = os.openpty()
        try:
            machine = QemuMachine(firmware(variant), flash, console=master, icount=icount, shift=shift)
            said = Path(folder) / "stderr"
            with (
                said.open("wb") as stderr,
                subprocess.Popen(machine.command(), pass_fds=machine.pass_fds, stderr=stderr) as process,
            ):
                try:
                    transport = SerialTransport(os.ttyname(slave))
                    transport.enter_raw_repl(soft_reset=False)
                    yield Board(transport)
                    transport.close()
                except TransportError as error:
                    raise BoardError(
                        "the board's console does not answer: %s\n%s" % (error, said.read_text(errors="replace"))
                    ) from error
                finally:
                    process.kill()
        finally:
            os.close(master)
            os.close(slave)
