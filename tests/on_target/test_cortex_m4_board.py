"""The virtual Cortex-M4 itself, on the real emulator: what a node and its tools count on."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import os
import select
import socket
import subprocess
import sys
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from packtrust.frame import Frame
from packtrust_host.image import compile_mpy
from packtrust_host.sim.lanes import BELL, Lane
from packtrust_host.sim.qemu import (
    LANES_OFFSET,
    VARIANTS,
    QemuError,
    QemuMachine,
    find_qemu,
    firmware,
    instructions,
    new_flash,
    write_romfs,
)
from packtrust_node.can_slcan import decode, encode

UNIQUE_ID = b"\x01unique-id\xff"
ANSWER_S = 60.0  # on a machine that does much else


def _needed(variant: str) -> Path:
    try:
        find_qemu()
        return firmware(variant)
    except QemuError as error:
        pytest.skip(str(error))


class Board:
    """One machine: raw REPL over its console, its CAN UARTs as sockets."""

    def __init__(self, flash: Path, variant: str = "cryptolib", cans: int = 2, **options: Any) -> None:
        program = _needed(variant)
        self.console, console = socket.socketpair()
        pairs = [socket.socketpair() for _ in range(cans)]
        self.can = [ours for ours, _ in pairs]
        theirs = [end for _, end in pairs]
        machine = QemuMachine(program, flash, console=console.fileno(), can=[e.fileno() for e in theirs], **options)
        self.process = subprocess.Popen(
            machine.command(), pass_fds=machine.pass_fds, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for end in (console, *theirs):
            end.close()
        self._seen = b""

    def says(self, mark: bytes, timeout_s: float) -> bool:
        """Whether the console says `mark` within that time."""
        end = time.monotonic() + timeout_s
        while mark not in self._seen:
            if not select.select([self.console], [], [], max(0.0, end - time.monotonic()))[0]:
                return False
            data = self.console.recv(65536)
            assert data, "the machine has ended; it said last %r" % self._seen[-300:]
            self._seen += data
        return True

    def until(self, mark: bytes, timeout_s: float = ANSWER_S) -> bytes:
        """What the console says up to `mark`."""
        assert self.says(mark, timeout_s), "waited for %r, saw last %r" % (mark, self._seen[-300:])
        before, self._seen = self._seen.split(mark, 1)
        return before

    def prompt(self) -> Board:
        """Wait for the friendly prompt, then enter the raw REPL."""
        self.until(b">>> ")
        self.console.sendall(b"\x01")
        self.until(b"raw REPL; CTRL-B to exit\r\n>")
        return self

    def start(self, code: str) -> None:
        self.console.sendall(code.encode() + b"\x04")
        self.until(b"OK")

    def finish(self) -> str:
        said = self.until(b"\x04")
        error = self.until(b"\x04>")
        assert not error, error.decode()
        return said.decode()

    def run(self, code: str) -> Any:
        """Run code; the value of the literal it printed, or None."""
        self.start(code)
        said = self.finish()
        return ast.literal_eval(said) if said else None

    def error(self, code: str) -> str:
        """Run code that fails: the last line of its traceback."""
        self.start(code)
        self.until(b"\x04")
        lines = self.until(b"\x04>").decode().splitlines()
        assert lines, "no error"
        return lines[-1]

    def kill(self) -> None:
        """Power off: as hard as can be."""
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        for end in (self.console, *self.can):
            end.close()


@contextlib.contextmanager
def powered(flash: Path, **options: Any) -> Iterator[Board]:
    board = Board(flash, **options)
    try:
        yield board
    finally:
        board.kill()


@pytest.fixture
def flash(tmp_path: Path) -> Path:
    path = tmp_path / "flash.img"
    new_flash(path, UNIQUE_ID)
    return path


@pytest.fixture
def board(flash: Path) -> Iterator[Board]:
    with powered(flash) as it:
        yield it.prompt()


# ---------------------------------------------------------------- what it is


HEAP = "import gc; gc.collect(); print((gc.mem_free(), gc.mem_alloc()))"


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(flash: Path, variant: str) -> None:
    with powered(flash, variant=variant) as board:
        board.prompt()
        free, used = board.run(HEAP)
        # 96 KB with MicroPython's own table of what is in use.
        assert (3_000_000 if variant == "suite" else 95_000) < free + used <= (3 << 20 if variant == "suite" else 98304)
        assert used < 3000
        code = "import sys, canboard; print((canboard.variant, sys.implementation._mpy >> 10 & 15, sys.maxsize))"
        assert board.run(code) == (variant, 7, 0x7FFFFFFF)
        for module, has in (("cryptolib", variant != "plain"), ("cgcm", variant == "reference")):
            if has:
                board.run("import " + module)
            else:
                assert board.error("import " + module).startswith("ImportError")
        assert board.run("import hashlib; print(hashlib.sha256(b'abc').digest())")[:4] == bytes.fromhex("ba7816bf")


def test_reference_is_aes_gcm(flash: Path) -> None:
    """Test case 15 of the GCM specification (McGrew and Viega), cut to what the module takes."""
    key = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
    iv = bytes.fromhex("cafebabefacedbaddecaf888")
    text = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255"
    )
    with powered(flash, variant="reference") as board:
        board.prompt()
        board.run(
            "import cgcm\ncgcm.setkey(%r)\ncgcm.setkey(%r)\nout = bytearray(64)\ntag = bytearray(16)\n"
            "cgcm.seal(%r, b'', %r, out, tag)" % (bytes(32), key, iv, text)
        )
        sealed = board.run("print(bytes(out))")
        assert sealed[:16] == bytes.fromhex("522dc1f099567d07f47f37a32a84427d")
        assert board.run("print(bytes(tag))") == bytes.fromhex("b094dac5d93471bdec1a502270e3cc6c")
        board.run("back = bytearray(64)")
        assert board.run("print(cgcm.open(%r, b'', out, back, tag))" % iv) is True
        assert board.run("print(bytes(back))") == text
        assert board.run("tag[0] ^= 1; print(cgcm.open(%r, b'', out, back, tag))" % iv) is False


def test_identity(board: Board) -> None:
    assert board.run("import machine; print(machine.unique_id())") == UNIQUE_ID.ljust(12, b"\0")
    assert board.run("print(machine.freq())") == 25_000_000


def test_paths(board: Board) -> None:
    assert board.run("import os; print([os.getcwd()])") == ["/flash"]
    assert board.run("import sys; print(sys.path)") == ["", ".frozen", "/flash", "/flash/lib"]


# ---------------------------------------------------------------- flash


def _written(board: Board) -> None:
    board.run("with open('kept.txt', 'w') as file: file.write('x' * 5000)")


READ = "print(len(open('/flash/kept.txt').read()))"


def test_flash_survives_resets(board: Board) -> None:
    _written(board)
    assert board.run("import machine; print(machine.reset_cause() == machine.PWRON_RESET)") is True
    board.console.sendall(b"\x04")
    board.until(b"raw REPL; CTRL-B to exit\r\n>")
    assert board.run(READ) == 5000
    board.start("import machine; machine.reset()")
    board.prompt()
    assert board.run(READ) == 5000
    assert board.run("import machine; print(machine.reset_cause() == machine.HARD_RESET)") is True


def test_flash_survives_power_off_at_once(flash: Path) -> None:
    with powered(flash) as board:
        board.prompt()
        _written(board)
    for _ in range(2):
        with powered(flash) as board:
            board.prompt()
            assert board.run(READ) == 5000
            assert board.run("import machine; print(machine.reset_cause() == machine.PWRON_RESET)") is True


def test_flash_is_forgotten_without_the_option(flash: Path) -> None:
    before = flash.read_bytes()
    with powered(flash, persistent=False) as board:
        board.prompt()
        _written(board)
        board.start("import machine; machine.reset()")
        board.prompt()
        assert board.run(READ) == 5000
    assert flash.read_bytes() == before
    with powered(flash, persistent=False) as board:
        board.prompt()
        assert board.error(READ).startswith("OSError: [Errno 2]")


def test_it_starts_boot_and_main(flash: Path) -> None:
    with powered(flash) as board:
        board.prompt()
        board.run("with open('boot.py', 'w') as file: file.write('print(\"booted\")')")
        board.run("with open('main.py', 'w') as file: file.write('import work')")
        board.run("import os; os.mkdir('lib')")
        board.run("with open('lib/work.py', 'w') as file: file.write('print(\"works\")')")
    with powered(flash) as board:
        board.until(b"booted\r\nworks\r\n")
        board.until(b">>> ")


def test_rom_runs_in_place(flash: Path) -> None:
    source = "TABLE = %r\n@micropython.viper\ndef add(a: int, b: int) -> int:\n    return a + b\n" % bytes(40000)
    write_romfs(flash, {"lib/big.mpy": compile_mpy(source, "armv7emsp", "big.py"), "main.py": b"print('from rom')"})
    with powered(flash) as board:
        board.prompt()
        assert board.run("import sys; print(sys.path)")[2:4] == ["/rom", "/rom/lib"]
        before = board.run(HEAP)[0]
        board.run("import big")
        assert before - board.run(HEAP)[0] < 2000
        assert board.run("print((len(big.TABLE), big.add(40, 2)))") == (40000, 42)


# ---------------------------------------------------------------- entropy


def test_entropy(board: Board) -> None:
    code = "import os; print(os.urandom(32))"
    found = {board.run(code) for _ in range(3)}
    assert len(found) == 3
    assert board.run("print(len(os.urandom(5000)))") == 5000
    assert board.run("print(os.urandom(0))") == b""
    # No byte of it is left behind for another look.
    free = board.run("print(len(set(os.urandom(4000))))")
    assert free > 200


def test_without_entropy_there_is_an_error(flash: Path) -> None:
    with powered(flash, entropy=False) as board:
        board.prompt()
        assert board.error("import os; os.urandom(1)") == "OSError: [Errno 19] ENODEV"


# ---------------------------------------------------------------- UARTs


def _receive(end: socket.socket, count: int) -> bytes:
    end.settimeout(ANSWER_S)
    data = b""
    while len(data) < count:
        more = end.recv(65536)
        assert more
        data += more
    return data


def test_two_can_uarts_echo(board: Board) -> None:
    board.start(
        "import canboard, select\n"
        "uarts = [canboard.Uart(1), canboard.Uart(2)]\n"
        "poll = select.poll()\n"
        "for uart in uarts: poll.register(uart, select.POLLIN)\n"
        "buffer = memoryview(bytearray(64))\n"
        "left = 2 * 27 * 50\n"
        "while left:\n"
        "    for uart, flags in poll.ipoll(1000):\n"
        "        count = uart.readinto(buffer)\n"
        "        left -= count\n"
        "        uart.write(buffer[:count])\n"
        "print(canboard.Uart(1) is uarts[0])\n"
    )
    lines = [b"T18FF%04X8%016X\r" % (n, n) for n in range(50)]
    for line in lines:
        board.can[0].sendall(line)
        board.can[1].sendall(line.lower())
    assert _receive(board.can[0], 27 * 50) == b"".join(lines)
    assert _receive(board.can[1], 27 * 50) == b"".join(lines).lower()
    assert board.finish() == "True\r\n"


def test_uarts_never_block(board: Board) -> None:
    """As a non-blocking descriptor on the unix port: None when nothing is there or nothing fits, else a count."""
    board.run("import canboard\nuart = canboard.Uart(1)\nbuffer = bytearray(8)")
    assert board.run("print((uart.readinto(buffer), uart.read(1), uart.any()))") == (None, None, 0)
    board.can[0].sendall(b"abc")
    assert board.run("import select\npoll = select.poll()\npoll.register(uart, 1)\nprint(len(poll.poll(10000)))") == 1
    board.run("import machine\nwhile uart.any() < 3: machine.idle()")
    assert board.run("print((uart.readinto(buffer), bytes(buffer[:3])))") == (3, b"abc")
    # Nobody reads: the socket and then the ring fill up.
    counts = board.run(
        "line = bytes(4096)\ncounts = []\n"
        "while not counts or counts[-1] is not None:\n"
        "    counts.append(uart.write(line))\n"
        "print((counts[0], counts[-1], sum(counts[:-1])))\n"
    )
    assert counts[0] == 4096
    assert counts[1] is None
    assert len(_receive(board.can[0], counts[2])) == counts[2]
    # Read: there is room again, and nothing has been lost.
    assert board.run("poll.modify(uart, select.POLLOUT)\nprint(len(poll.poll(10000)))") == 1
    assert board.run("print(uart.write(b'more'))") == 4
    assert _receive(board.can[0], 4) == b"more"
    assert board.error("canboard.Uart(4)").startswith("ValueError")


# What comes on a CAN port, and what canboard.Uart makes of it: (ID, data) of a frame, or a name.
CODED = [
    (b"T1FFFFFFF80011223344556677", (0x1FFFFFFF, bytes.fromhex("0011223344556677"))),
    (b"T0000000a3AbCdEf", (10, b"\xab\xcd\xef")),
    (b"T000000010", (1, b"")),
    (b"z", "confirmed"),
    (b"Z", "confirmed"),
    (b"", "other"),
    (b"t1232aabb", "other"),  # 11 bits
    (b"T2000000080011223344556677", "other"),  # no ID
    (b"T000000019001122334455667788", "other"),  # too long for classic CAN
    (b"T0000000120", "other"),  # less than it says
    (b"T000000012aabb0123", "other"),  # with a time stamp
    (b"T000000011ag", "other"),
    (b"T0000G0011aa", "other"),
    (b"R000000018", "other"),
    (b"D00000001C" + b"00" * 24, "other"),
    (b"sa000000", "other"),
]


def test_a_can_port_codes_frames_without_heap(board: Board) -> None:
    """can_recv, can_line and can_send are what packtrust_node.can_slcan does, in C."""
    board.run(
        "import canboard, machine, micropython\n"
        "uart = canboard.Uart(1)\n"
        "data = bytearray(8)\n"
        "slot = [0, data]\n"
        "def kind():\n"
        "    micropython.heap_lock()\n"
        "    try:\n"
        "        return uart.can_recv(slot)\n"
        "    finally:\n"
        "        micropython.heap_unlock()\n"
        "def wait(count):\n"
        "    while uart.any() < count: machine.idle()\n"
        "def next_one():\n"
        "    found = kind()\n"
        "    if found is None: return None\n"
        "    if found <= 8: return slot[0], bytes(data[:found])\n"
        "    if found == 11: return 'other', bytes(uart.can_line())\n"
        "    return {9: 'confirmed', 10: 'refused'}[found]\n"
    )
    assert board.run("print((next_one(), uart.can_line()))") == (None, None)
    for line, wanted in CODED:
        board.can[0].sendall(line + b"\r")
        found = board.run("wait(%d)\nprint((next_one(), uart.any()))" % (len(line) + 1))
        assert found == (wanted if wanted != "other" else ("other", line), 0), line
        if isinstance(wanted, tuple):
            frame = decode(line)
            assert (frame.arbitration_id, bytes(frame.data)) == wanted and frame.is_extended_id
    # A refusal has no end of line; half a line is none; what has no end is given as it is.
    board.can[0].sendall(b"\aT00000001")
    assert board.run("wait(10)\nprint((next_one(), next_one(), uart.any()))") == ("refused", None, 9)
    board.can[0].sendall(b"17f\r")
    assert board.run("wait(13)\nprint(next_one())") == (1, b"\x7f")
    board.can[0].sendall(b"x" * 200)
    assert board.run("wait(200)\nprint((next_one(), uart.any()))") == (("other", b"x" * 161), 39)
    # Round the end of the ring, thousands of frames, and nothing but frames.
    assert board.run("wait(39)\nprint(uart.readinto(bytearray(39)))") == 39
    board.start(
        "count = bad = 0\n"
        "while count < 2000:\n"
        "    found = next_one()\n"
        "    if found is None: machine.idle()\n"
        "    else:\n"
        "        bad += found != (count, (count * 7).to_bytes(8, 'big'))\n"
        "        count += 1\n"
        "print(bad)\n"
    )
    for number in range(2000):
        board.can[0].sendall(b"T%08X8%016X\r" % (number, number * 7))
    assert board.finish() == "0\r\n"


def test_a_can_port_sends_frames_without_heap(board: Board) -> None:
    frames = [Frame(0x1ABCDEF0, bytes(range(0xF8, 0x100))), Frame(1, b"\x0a"), Frame(2), Frame(0x7FF, b"ab", False)]
    board.run("import canboard, micropython\nuart = canboard.Uart(1)\nframes = []")
    for frame in frames:
        said = (frame.arbitration_id, frame.is_extended_id, bytes(frame.data))
        board.run("frames.append(%r)" % (said,))
    said = board.run(
        "def send(ident, extended, data):\n"
        "    micropython.heap_lock()\n"
        "    try:\n"
        "        return uart.can_send(ident, extended, data)\n"
        "    finally:\n"
        "        micropython.heap_unlock()\n"
        "print([send(*frame) for frame in frames])"
    )
    wanted = b"".join(encode(frame) for frame in frames)
    assert said == [True] * len(frames) and _receive(board.can[0], len(wanted)) == wanted
    for wrong in ("1 << 29, True, b''", "0x800, False, b''", "-1, True, b''", "1, True, bytes(9)"):
        assert board.error("uart.can_send(%s)" % wrong).split(":")[0] in ("ValueError", "OverflowError"), wrong
    # Nobody reads: a frame goes whole or not at all.
    sent = board.run("sent = 0\nwhile uart.can_send(5, True, b'12345678'): sent += 1\nprint(sent)")
    data = _receive(board.can[0], 27 * sent)
    assert data == encode(Frame(5, b"12345678")) * sent


def test_can_ports_over_lanes(tmp_path: Path) -> None:
    """More than fits, both ways at once, while the board is slow; and an image of lanes is one without them again."""
    flash = tmp_path / "flash.img"
    new_flash(flash)
    lanes = [Lane(flash, LANES_OFFSET, port) for port in range(2)]
    board = Board(flash, lanes=2)
    lines = [encode(Frame(number, number.to_bytes(8, "big"))) for number in range(3000)]
    try:
        board.prompt()
        board.start(
            "import canboard\n"
            "uarts = [canboard.Uart(1), canboard.Uart(2)]\n"
            "data = bytearray(8)\n"
            "slot = [0, data]\n"
            "count = [0, 0]\n"
            "bad = 0\n"
            "while count != [3000, 3000]:\n"
            "    for port in (0, 1):\n"
            "        size = uarts[port].can_recv(slot)\n"
            "        if size is not None:\n"
            "            bad += size != 8 or slot[0] != count[port] or int.from_bytes(data, 'big') != slot[0]\n"
            "            while not uarts[1 - port].can_send(slot[0], True, data): pass\n"
            "            count[port] += 1\n"
            "print(bad)\n"
        )
        left = [b"".join(lines)] * 2
        echoed = [b"", b""]
        deadline = time.monotonic() + ANSWER_S
        while min(map(len, echoed)) < 27 * len(lines):
            assert time.monotonic() < deadline, list(map(len, echoed))
            for port in range(2):
                count = lanes[port].write(left[port][:700])
                left[port] = left[port][count:]
                if count:
                    board.can[port].sendall(BELL)
            for port in range(2):
                echoed[port] += lanes[port].read()
            if select.select(board.can, [], [], 0.001)[0]:
                for end in board.can:
                    while select.select([end], [], [], 0)[0]:
                        assert set(end.recv(4096)) == set(BELL)
        assert board.finish() == "0\r\n" and echoed == [b"".join(lines)] * 2
    finally:
        board.kill()
        for lane in lanes:
            lane.close()
    board = Board(flash)
    try:
        board.prompt()
        board.can[0].sendall(lines[7])
        found = board.run(
            "import canboard, machine\nuart = canboard.Uart(1)\nslot = [0, bytearray(8)]\n"
            "while uart.any() < 27: machine.idle()\n"
            "print((uart.can_recv(slot), slot[0], uart.can_send(8, True, b'')))"
        )
        assert found == (8, 7, True) and _receive(board.can[0], 11) == encode(Frame(8))
    finally:
        board.kill()


def test_nothing_is_lost_when_the_board_is_slow(board: Board) -> None:
    """A burst of many times the ring while nobody reads: it waits outside."""
    burst = b"".join(b"t%03X8%016X\r" % (n & 0x7FF, n) for n in range(3000))
    board.run("import canboard, time, hashlib\nuart = canboard.Uart(2)\nbuffer = bytearray(4096)")
    board.start(
        "time.sleep_ms(300)\ndigest = hashlib.sha256()\nleft = %d\n"
        "while left:\n"
        "    count = uart.readinto(buffer)\n"
        "    if count:\n"
        "        digest.update(memoryview(buffer)[:count])\n"
        "        left -= count\n"
        "print(digest.digest())\n" % len(burst)
    )
    board.can[1].sendall(burst)
    assert ast.literal_eval(board.finish()) == hashlib.sha256(burst).digest()


# ---------------------------------------------------------------- console


def test_ctrl_c_ends_what_runs(board: Board) -> None:
    for code in ("while True: pass", "import time\ntime.sleep(1000)", "import sys\nsys.stdin.read(1)"):
        board.start(code)
        # Nothing tells that it has begun; what comes too early is not for it.
        time.sleep(0.3)
        board.console.sendall(b"\x03")
        board.until(b"\x04")
        assert b"KeyboardInterrupt" in board.until(b"\x04>")
    assert board.run("print(1)") == 1


@pytest.mark.realtime
def test_a_console_nobody_reads_holds_nothing_up(board: Board) -> None:
    """What does not fit is waited for a while, then dropped; later output is complete again."""
    board.start("import canboard\nfor i in range(6000): print('0123456789' * 10)\ncanboard.Uart(1).write(b'done')\n")
    assert _receive(board.can[0], 4) == b"done"
    # The raw REPL's end of output may be among what was dropped: ask for a new prompt. That may be dropped, too, by a
    # board that has found nobody reading so far.
    banner = b"raw REPL; CTRL-B to exit\r\n>"
    for _ in range(5):
        board.console.sendall(b"\x01")
        if board.says(banner, 10):
            break
    assert 16384 < len(board.until(banner, 1)) < 600_000
    while board.says(banner, 0.5):  # to the calls before
        board.until(banner)
    assert board.run("print(list(range(1000)))") == list(range(1000))


def test_a_fault_says_where_and_leaves_the_host_alone(board: Board) -> None:
    board.start("import machine\nmachine.mem32[0xa0000000]")
    board.until(b"FATAL: exception 3 at pc=")
    before = _cpu_s(board.process.pid)
    time.sleep(1)
    assert _cpu_s(board.process.pid) - before < 0.3


# ---------------------------------------------------------------- time


def test_time_passes_as_outside(board: Board) -> None:
    board.run("import time")
    began = time.monotonic()
    inside = board.run("a = time.ticks_us()\ntime.sleep_ms(400)\nprint(time.ticks_diff(time.ticks_us(), a))")
    outside = time.monotonic() - began
    assert 400_000 <= inside <= outside * 1e6
    code = "a = time.ticks_us()\ntime.sleep_us(%d)\nprint(time.ticks_diff(time.ticks_us(), a))"
    for us in (10, 300, 5000):
        assert us <= board.run(code % us) < us + 1_000_000
    code = (
        "import asyncio\n"
        "async def one(name, ms):\n    await asyncio.sleep_ms(ms)\n    order.append(name)\n"
        "async def both():\n    await asyncio.gather(one('late', 60), one('early', 20))\n"
        "order = []\nasyncio.run(both())\nprint(order)\n"
    )
    assert board.run(code) == ["early", "late"]
    assert (
        board.run(
            "import select\na = time.ticks_ms()\nselect.poll().poll(100)\n"
            "print(99 <= time.ticks_diff(time.ticks_ms(), a))"
        )
        is True
    )


def _cpu_s(pid: int) -> float:
    fields = Path("/proc/%d/stat" % pid).read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


IDLE = {
    "reading": "import sys\nsys.stdin.read(1)",
    "sleeping": "import time\ntime.sleep(100)",
    "polling": "import select, canboard\np = select.poll()\np.register(canboard.Uart(1), 1)\nwhile True: p.poll(50)",
}


@pytest.mark.parametrize("way", IDLE)
def test_an_idle_board_leaves_the_host_alone(board: Board, way: str) -> None:
    board.start(IDLE[way])
    before = _cpu_s(board.process.pid)
    time.sleep(2)
    assert _cpu_s(board.process.pid) - before < 0.3


def test_instructions_are_counted_exactly(flash: Path) -> None:
    """A loop of known length, twice: the same count, and the difference is what the instructions set says."""
    code = (
        "import canboard, time\n"
        "@micropython.asm_thumb\n"
        "def loop(r0):\n    label(AGAIN)\n    sub(r0, r0, 1)\n    bne(AGAIN)\n"
        "def count(n):\n    a = canboard.ticks()\n    loop(n)\n    return time.ticks_diff(canboard.ticks(), a)\n"
        "count(1)\n"
        "print([count(1000), count(101000), count(101000)])\n"
    )
    with powered(flash, icount=True) as board:
        board.prompt()
        short, long, again = board.run(code)
    assert abs(instructions(long - short) - 200_000) <= 3
    assert abs(instructions(again - long)) <= 3


# ---------------------------------------------------------------- mpremote, as people use it


@contextlib.contextmanager
def terminal(flash: Path) -> Iterator[str]:
    """The board on a pseudo terminal: the path of the device."""
    program = _needed("cryptolib")
    master, slave = os.openpty()
    tty.setraw(slave)
    machine = QemuMachine(program, flash, console=master)
    process = subprocess.Popen(machine.command(), pass_fds=machine.pass_fds, stdin=subprocess.DEVNULL)
    os.close(master)
    try:
        yield os.ttyname(slave)
    finally:
        process.kill()
        process.wait()
        os.close(slave)


def _mpremote(device: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mpremote", "connect", device, *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_mpremote(flash: Path, tmp_path: Path) -> None:
    with terminal(flash) as device:
        assert _mpremote(device, "exec", "print(6 * 7)") == "42\n"
        (tmp_path / "local.py").write_text("print('copied')\n")
        _mpremote(device, "fs", "cp", str(tmp_path / "local.py"), ":remote.py")
        assert "remote.py" in _mpremote(device, "fs", "ls")
        assert _mpremote(device, "exec", "import remote") == "copied\n"
        # A file of this machine's folder, through mpremote's own file system.
        (tmp_path / "mounted.py").write_text("print('mounted')\n")
        assert "mounted" in _mpremote(device, "mount", str(tmp_path), "exec", "import mounted")


def test_mpremote_romfs(flash: Path, tmp_path: Path) -> None:
    folder = tmp_path / "rom"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "stored.py").write_text("print('in rom')\n")
    with terminal(flash) as device:
        assert "ROMFS0 partition has size 15728640 bytes" in _mpremote(device, "romfs", "query")
        assert "ROMFS image deployed" in _mpremote(device, "romfs", "deploy", str(folder))
        assert _mpremote(device, "exec", "import stored; print(stored.__file__)") == "in rom\n/rom/lib/stored.mpy\n"
