"""Start the virtual board `cortex-m4`: the command line of QEMU's mps2-an386 and the flash image it runs from.

The board's flash is the machine's 16 MB PSRAM at FLASH_BASE, backed by a file of the host:

    0x21000000  512 KB  littlefs, mounted at /flash
    0x210e0000   97 KB  lanes of the CAN ports, if they are asked for (see `lanes`); not kept
    0x210ff000    4 KB  identity: what the host hands in (see `new_flash`)
    0x21100000   15 MB  ROMFS, mounted at /rom

Nothing here starts a process: the caller does, with `subprocess.Popen(machine.command(), pass_fds=machine.pass_fds)`.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from packtrust_host.image import romfs_image

from .lanes import MAGIC

CHECKOUT = Path(__file__).resolve().parents[3]
BUILD = CHECKOUT / "build" / "cortex-m4"
VARIANTS = ("cryptolib", "plain", "reference", "suite")

FLASH_BASE = 0x21000000
FLASH_SIZE = 16 << 20
LITTLEFS_SIZE = 512 << 10
LANES_OFFSET = 0xE0000
IDENTITY_OFFSET = 0xFF000
IDENTITY_MAGIC = b"PTID"
UNIQUE_ID_SIZE = 12  # as on an STM32
ROMFS_OFFSET = 0x100000
ROMFS_SIZE = FLASH_SIZE - ROMFS_OFFSET

CAN_PORTS = 3  # UART 1..3
TICK_NS = 40  # the board counts time at 25 MHz
ICOUNT_SHIFT = 5  # with icount an instruction takes 2 ** shift ns: here a tick is 1.25 instructions


class QemuError(Exception):
    """The machine cannot be started as asked; the text says what to do."""


def find_qemu(environment: Mapping[str, str] | None = None) -> str:
    """The emulator: $QEMU_SYSTEM_ARM, the one `make firmware` has set up, or one on the PATH."""
    environment = os.environ if environment is None else environment
    named = environment.get("QEMU_SYSTEM_ARM")
    if named:
        path = shutil.which(named, path=environment.get("PATH"))
        if path is None:
            raise QemuError("$QEMU_SYSTEM_ARM names %s, but there is no such program: correct or unset it" % named)
        return path
    private = BUILD / "bin" / "qemu-system-arm"
    if private.exists():
        return str(private)
    path = shutil.which("qemu-system-arm", path=environment.get("PATH"))
    if path is None:
        raise QemuError("no qemu-system-arm here: run `make firmware`, or apt install qemu-system-arm")
    return path


def firmware(variant: str = "cryptolib") -> Path:
    """The built firmware of one of VARIANTS."""
    if variant not in VARIANTS:
        raise QemuError("no firmware variant %r: take one of %s" % (variant, ", ".join(VARIANTS)))
    path = BUILD / (variant + ".elf")
    if not path.exists():
        raise QemuError("the cortex-m4 firmware is not built (%s.elf): run `make firmware`" % variant)
    return path


def new_flash(path: Path, unique_id: bytes = b"", romfs: Mapping[str, bytes] | bytes = b"") -> None:
    """Make an empty flash image (a sparse file of 16 MB).

    unique_id  up to 12 bytes, what machine.unique_id() gives, zeros after; stays through formatting
    romfs      files, or an image of them, for /rom
    """
    if len(unique_id) > UNIQUE_ID_SIZE:
        raise QemuError("a unique ID has at most %d bytes, not %d" % (UNIQUE_ID_SIZE, len(unique_id)))
    with path.open("wb") as file:
        file.truncate(FLASH_SIZE)
        file.seek(IDENTITY_OFFSET)
        file.write(IDENTITY_MAGIC + unique_id.ljust(UNIQUE_ID_SIZE, b"\0"))
    if romfs:
        write_romfs(path, romfs)


def write_romfs(path: Path, romfs: Mapping[str, bytes] | bytes) -> None:
    """Put files, or an image of them, into the ROMFS of a flash image whose machine is off."""
    image = bytes(romfs) if isinstance(romfs, (bytes, bytearray)) else romfs_image(romfs)
    if len(image) > ROMFS_SIZE:
        raise QemuError("the ROMFS has %d bytes of room, the image needs %d" % (ROMFS_SIZE, len(image)))
    with path.open("r+b") as file:
        file.seek(ROMFS_OFFSET)
        file.write(image)


@dataclasses.dataclass(frozen=True)
class QemuMachine:
    """One virtual board.

    firmware    an ELF, see `firmware()`
    flash       image made by `new_flash`; one machine at a time
    console     where the first UART goes: a descriptor the process inherits (socket, or master of a pseudo terminal
                whose slave somebody keeps open), a path of a terminal, "stdio", or None
    can         the CAN ports' UARTs in turn, each as `console`; what speaks SLCAN is at the other end
    persistent  True: what is written stays in the image, whatever ends the machine; False: the image is not touched,
                what was written survives a reset of the board but not the end of the process
    entropy     the UART that os.urandom reads; False: nothing arrives and os.urandom raises OSError
    text        the console carries text only (no byte 0xff), and comes in several times faster
    tied        the machine ends with the thread that starts it, however that ends
    icount      True: time follows the instructions executed, 2 ** shift ns each; for counting only
    program     the emulator, see `find_qemu`
    lanes       of so many CAN ports, the first ones, bytes go over memory, see `lanes`; needs `persistent`
    """

    firmware: Path
    flash: Path
    console: int | str | None = None
    can: Sequence[int | str | None] = ()
    persistent: bool = True
    entropy: bool = True
    text: bool = False
    tied: bool = False
    icount: bool = False
    shift: int = ICOUNT_SHIFT
    program: str | None = None
    lanes: int = 0

    def __post_init__(self) -> None:
        if len(self.can) > CAN_PORTS:
            raise QemuError("the board has %d CAN ports, not %d" % (CAN_PORTS, len(self.can)))
        if self.lanes and not self.persistent:
            raise QemuError("lanes are in the flash image: a machine that does not touch it has none")

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """The descriptors the process must inherit."""
        return tuple(end for end in (self.console, *self.can) if isinstance(end, int))

    def command(self) -> list[str]:
        """The command line."""
        words = [
            *(("setpriv", "--pdeathsig", "KILL", "--") if self.tied else ()),
            self.program or find_qemu(),
            *("-machine", "mps2-an386,memory-backend=flash"),
            *(
                "-object",
                "memory-backend-file,id=flash,size=%d,mem-path=%s,share=%s"
                % (FLASH_SIZE, _escaped(self.flash), "on" if self.persistent else "off"),
            ),
            *("-nodefaults", "-display", "none", "-monitor", "none"),
            # The machine has a network interface in any case; it leads nowhere.
            *("-nic", "user,restrict=on,model=lan9118"),
            # Escape character of multiplexers, see _chardev.
            *("-echr", "0xff"),
            *("-kernel", str(self.firmware)),
            # At each reset, also without lanes: the image may come from a machine with some.
            *("-device", "loader,addr=%#x,data=%#x,data-len=4" % (FLASH_BASE + LANES_OFFSET, MAGIC | self.lanes)),
        ]
        ends = [self.console, *self.can]
        ends += [None] * (1 + CAN_PORTS - len(ends))
        for number, end in enumerate(ends):
            words += _chardev("uart%d" % number, number, end, number > 0 or self.text)
        if self.entropy:
            words += ["-chardev", "pipe,id=entropy,path=/dev/urandom", "-serial", "chardev:entropy"]
        if self.icount:
            words += ["-icount", "shift=%d,sleep=off" % self.shift]
        return words


def instructions(ticks: int, shift: int = ICOUNT_SHIFT) -> float:
    """Instructions in so many ticks of canboard.ticks(), on a machine started with icount."""
    return ticks * TICK_NS / (1 << shift)


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")


def _chardev(name: str, number: int, end: int | str | None, multiplexed: bool) -> list[str]:
    """A UART's other end.

    The UART takes one byte at a time, and QEMU fetches the next one when that has been read: one change of threads
    a byte. A multiplexer between them has 32 bytes ready and is four times as fast. It has an escape character,
    which the bytes must not contain: SLCAN and UTF-8 text have no 0xff.
    """
    mux = ",mux=on" if multiplexed else ""
    if end is None:
        kind = "null,id=" + name
    elif end == "stdio":
        kind = "stdio,signal=off,id=" + name + mux
    elif isinstance(end, str):
        kind = "serial,id=%s,path=%s%s" % (name, _escaped(Path(end)), mux)
    else:
        # A descriptor set serves any kind of descriptor: socket, terminal.
        kind = "serial,id=%s,path=/dev/fdset/%d%s" % (name, number + 1, mux)
        return ["-add-fd", "fd=%d,set=%d" % (end, number + 1), "-chardev", kind, "-serial", "chardev:" + name]
    return ["-chardev", kind, "-serial", "chardev:" + name]
