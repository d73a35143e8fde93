"""How many CAN frames a second go through a UART of the virtual Cortex-M4, bare and with the SLCAN driver.

    python tests/bench/bench_uart.py

Time is this machine's: the emulator's UARTs are as fast as it lets them be. Frames have 29-bit IDs and 8 bytes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tty
from pathlib import Path

from packtrust_host.image import compile_mpy
from packtrust_host.sim.qemu import QemuError, QemuMachine, firmware, new_flash

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 2000
ROUND_TRIPS = 200
LINES = b"".join(b"T18FF%04X8%016X\r" % (number, number) for number in range(FRAMES))
LINE = len(LINES) // FRAMES
# The driver and what it imports of the core, which is the core's own top folder.
DRIVER = {
    "lib/packtrust_node/%s": "firmware/packtrust_node/can_slcan.py",
    "lib/packtrust/%s": "shared/packtrust/[!_]*.py",
}
PACKAGES = ("lib/packtrust_node/__init__.py", "lib/packtrust/__init__.py")
SET_UP = """
import canboard, select, time
from packtrust_node.can_slcan import SlcanCan
from packtrust.frame import Frame
uart = canboard.Uart(1)
buffer = memoryview(bytearray(512))
poll = select.poll()
poll.register(uart, select.POLLIN)
"""
RECEIVE = """
left = %d
while left:
    poll.poll(1000)
    left -= uart.readinto(buffer) or 0
"""
SEND = """
line = bytes(26) + b"\\r"
for _ in range(%d):
    left = line
    while left:
        left = left[uart.write(left) or 0:]
        if left: time.sleep_ms(1)
"""
ECHO = """
for _ in range(%d):
    left = %d
    while left:
        poll.poll(1000)
        count = uart.readinto(buffer) or 0
        uart.write(buffer[:count])
        left -= count
"""
OPEN = """
can = SlcanCan(uart)
can.poll(time.ticks_ms())
while can.state == "opening":
    poll.poll(1000)
    can.recv()
"""
DRIVER_RECEIVE = """
left = %d
while left:
    poll.poll(1000)
    while can.recv() is not None: left -= 1
"""
DRIVER_SEND = """
frame = Frame(0x18FF1234, bytes(8), True)
left = %d
while left:
    if can.send(frame): left -= 1
    else:
        poll.poll(1000)
        can.recv()
"""


class Wire:
    """The other end of the board's CAN UART."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.fd, data) :]

    def read(self, count: int) -> None:
        while count > 0:
            count -= len(os.read(self.fd, 65536))

    def confirm(self, frames: int) -> None:
        """As an adapter does: one `Z` a frame."""
        while frames > 0:
            taken = os.read(self.fd, 65536).count(b"\r")
            frames -= taken
            self.write(b"Z\r" * taken)


def _seconds(console: socket.socket, code: str, *host: tuple[object, ...]) -> float:
    """Run code on the board while `host` (function, arguments) goes on here; seconds until both are done."""
    threads = [threading.Thread(target=work[0], args=work[1:]) for work in host]  # type: ignore[arg-type]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    console.sendall(code.encode() + b"\x04")
    said = b""
    while not said.endswith(b"\x04>"):
        data = console.recv(65536)
        said += data
        if not data:
            raise SystemExit("the board has ended: %r" % said)
    if said != b"OK\x04\x04>":
        raise SystemExit("the board says %s" % said.decode(errors="replace"))
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def measure(terminal: bool) -> list[tuple[str, str]]:
    """Name and value of each row, over a pseudo terminal or a socket pair."""
    files = dict.fromkeys(PACKAGES, b"")
    files["lib/packtrust/_compat.py"] = (ROOT / "shared/packtrust/_compat.py").read_bytes()
    for target, pattern in DRIVER.items():
        for path in ROOT.glob(pattern):
            files[target % (path.stem + ".mpy")] = compile_mpy(path.read_bytes(), "armv7emsp", path.name)
    console, theirs = socket.socketpair()
    console.settimeout(120)
    if terminal:
        far, near = os.openpty()
        tty.setraw(near)
    else:
        near, far = (end.detach() for end in socket.socketpair())
    wire = Wire(near)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        flash = Path(scratch) / "flash.img"
        new_flash(flash, romfs=files)
        machine = QemuMachine(firmware("cryptolib"), flash, console=theirs.fileno(), can=[far], tied=True)
        with subprocess.Popen(machine.command(), pass_fds=machine.pass_fds, stdin=subprocess.DEVNULL) as process:
            try:
                seen = b""
                while b">>> " not in seen:
                    seen += console.recv(4096)
                console.sendall(b"\x01")
                while not seen.endswith(b"CTRL-B to exit\r\n>"):
                    seen += console.recv(4096)
                _seconds(console, SET_UP)
                into = _seconds(console, RECEIVE % len(LINES), (wire.write, LINES))
                rows.append(("into the board", "%.0f frames/s" % (FRAMES / into)))
                out = _seconds(console, SEND % FRAMES, (wire.read, FRAMES * LINE))
                rows.append(("out of the board", "%.0f frames/s" % (FRAMES / out)))

                def echo() -> None:
                    for _ in range(ROUND_TRIPS):
                        wire.write(LINES[:LINE])
                        wire.read(LINE)

                echoed = _seconds(console, ECHO % (ROUND_TRIPS, LINE), (echo,))
                rows.append(("in, and its echo out", "%.2f ms" % (echoed / ROUND_TRIPS * 1e3)))
                # Two empty lines and closing, bit rate and opening: five answers.
                _seconds(console, OPEN, (wire.write, b"\r" * 5))
                into = _seconds(console, DRIVER_RECEIVE % FRAMES, (wire.write, LINES))
                rows.append(("SlcanCan.recv", "%.0f frames/s" % (FRAMES / into)))
                # What the driver said when it opened is still there; its last confirmations are not waited for.
                wire.read(len(b"\r\rC\rS6\rO\r"))
                out = _seconds(console, DRIVER_SEND % FRAMES, (wire.confirm, FRAMES))
                rows.append(("SlcanCan.send, each confirmed", "%.0f frames/s" % (FRAMES / out)))
            finally:
                process.kill()
    for fd in (near, far):
        os.close(fd)
    console.close()
    theirs.close()
    return rows


def main() -> int:
    """Print the table; 1 when the firmware is not built."""
    try:
        for name, terminal in (("socket pair", False), ("pseudo terminal", True)):
            for row, value in measure(terminal):
                print("%-16s %-30s %s" % (name, row, value), flush=True)
    except QemuError as error:
        print("error: %s" % error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
