"""A model of the ESP32's serial boot loader on a pseudo terminal, enough for esptool to write a flash.

Written after Espressif's esptool documentation, "Serial Protocol": SLIP frames (RFC 1055) of direction, command, size,
checksum, data; answers of direction 1, command, size, value, data and status (four bytes from the ROM, two from the
stub loader, the first of them 0 for success); and after its "Flasher Stub": it says OHAI when it runs and then takes
the same commands and more. The flash chip is what the SPI controller's registers answer to a JEDEC ID read.

What it does not do: run the stub's code (it begins to behave as the stub when told to run what was uploaded), time,
reset lines, the secure download mode, other chips than the ESP32.
"""

import hashlib
import os
import pty
import select
import struct
import threading
import tty
import zlib

END, ESCAPE, ESCAPED_END, ESCAPED_ESCAPE = 0xC0, 0xDB, 0xDC, 0xDD

# "Supported by ROM loader and stub loader", and "by stub loader only".
FLASH_BEGIN, FLASH_DATA, FLASH_END, MEM_BEGIN, MEM_END, MEM_DATA, SYNC, WRITE_REG, READ_REG = range(0x02, 0x0B)
SPI_SET_PARAMS, SPI_ATTACH, CHANGE_BAUDRATE = 0x0B, 0x0D, 0x0F
FLASH_DEFL_BEGIN, FLASH_DEFL_DATA, FLASH_DEFL_END, SPI_FLASH_MD5 = 0x10, 0x11, 0x12, 0x13
ERASE_FLASH, RUN_USER_CODE = 0xD0, 0xD3

# Technical Reference Manual of the ESP32: what tells it from its siblings, the efuses with the MAC, SPI1's registers.
CHIP_MAGIC_REG, CHIP_MAGIC = 0x40001000, 0x00F01D83
EFUSE_BLOCK0 = 0x3FF5A000
SPI_CMD_REG, SPI_USR2_REG, SPI_W0_REG = 0x3FF42000, 0x3FF42024, 0x3FF42080
READ_JEDEC_ID = 0x9F
JEDEC_ID = 0x1640EF  # Winbond W25Q32: 4 MB
FLASH_SIZE = 4 << 20


class EspRom:
    """The chip; a context manager. `path` is its serial port, `flash` what was written."""

    def __init__(self, mac: bytes) -> None:
        self.flash = bytearray(b"\xff" * FLASH_SIZE)
        self.stub = False
        self.commands: list[int] = []
        self.corrupt = False  # a flash chip that does not keep what is written
        self._registers = {
            CHIP_MAGIC_REG: CHIP_MAGIC,
            EFUSE_BLOCK0 + 4: struct.unpack(">I", mac[2:])[0],
            EFUSE_BLOCK0 + 8: struct.unpack(">H", mac[:2])[0],
        }
        self._inflate = zlib.decompressobj()
        self._at = 0
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self._wake, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "EspRom":
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._stop)
        self._thread.join(10)
        for fd in (self._wake, self._master, self._slave):
            os.close(fd)

    def _serve(self) -> None:
        packet = None
        escaped = False
        while True:
            ready, _, _ = select.select([self._master, self._wake], [], [])
            if self._wake in ready:
                return
            for byte in os.read(self._master, 4096):
                if byte == END:
                    if packet:
                        self._take(bytes(packet))
                        packet = None
                    else:
                        packet = bytearray()
                elif packet is not None:
                    if escaped:
                        packet.append({ESCAPED_END: END, ESCAPED_ESCAPE: ESCAPE}[byte])
                        escaped = False
                    elif byte == ESCAPE:
                        escaped = True
                    else:
                        packet.append(byte)

    def _send(self, data: bytes) -> None:
        out = bytearray([END])
        for byte in data:
            out += bytes(
                {END: (ESCAPE, ESCAPED_END), ESCAPE: (ESCAPE, ESCAPED_ESCAPE)}.get(byte, (byte,)),
            )
        out.append(END)
        while out:
            count = os.write(self._master, out)
            del out[:count]

    def _answer(self, command: int, value: int = 0, data: bytes = b"", error: int = 0) -> None:
        status = bytes((1 if error else 0, error)) + (b"" if self.stub else b"\0\0")
        body = data + status
        self._send(struct.pack("<BBHI", 1, command, len(body), value) + body)

    def _take(self, packet: bytes) -> None:
        direction, command, size, checksum = struct.unpack_from("<BBHI", packet)
        data = packet[8:]
        if direction != 0 or len(data) != size:
            return
        self.commands.append(command)
        words = struct.unpack_from("<%dI" % min(4, size // 4), data)
        if command == SYNC:
            for _ in range(8):
                self._answer(SYNC, 0 if self.stub else 0x20120707)
        elif command == READ_REG:
            self._answer(command, self._read(words[0]))
        elif command == WRITE_REG:
            self._write(words[0], words[1])
            self._answer(command)
        elif command in (MEM_DATA, FLASH_DATA, FLASH_DEFL_DATA):
            block = data[16:]
            if len(block) != words[0] or checksum != _checksum(block):
                self._answer(command, error=0x07)  # invalid CRC
                return
            if command == FLASH_DATA:
                self._program(block)
            elif command == FLASH_DEFL_DATA:
                self._program(self._inflate.decompress(block))
            self._answer(command)
        elif command == MEM_END:
            self._answer(command)
            if words[1]:
                self.stub = True
                self._send(b"OHAI")
        elif command in (FLASH_BEGIN, FLASH_DEFL_BEGIN):
            self._at = words[3]
            self._inflate = zlib.decompressobj()
            self._answer(command)
        elif command == SPI_FLASH_MD5:
            digest = hashlib.md5(self.flash[words[0] : words[0] + words[1]])
            self._answer(command, data=digest.digest() if self.stub else digest.hexdigest().encode())
        elif command == ERASE_FLASH:
            self.flash[:] = b"\xff" * FLASH_SIZE
            self._answer(command)
        elif command in (MEM_BEGIN, FLASH_END, FLASH_DEFL_END, SPI_SET_PARAMS, SPI_ATTACH, CHANGE_BAUDRATE):
            self._answer(command)
        elif command != RUN_USER_CODE:
            self._answer(command, error=0x05)  # message invalid: what the ROM says to commands it does not have

    def _program(self, data: bytes) -> None:
        self.flash[self._at : self._at + len(data)] = bytes(len(data)) if self.corrupt else data
        self._at += len(data)

    def _read(self, address: int) -> int:
        return 0 if address == SPI_CMD_REG else self._registers.get(address, 0)

    def _write(self, address: int, value: int) -> None:
        self._registers[address] = value
        if address == SPI_CMD_REG:
            done = self._registers.get(SPI_USR2_REG, 0) & 0xFF
            self._registers[SPI_W0_REG] = JEDEC_ID if done == READ_JEDEC_ID else 0


def _checksum(data: bytes) -> int:
    state = 0xEF
    for byte in data:
        state ^= byte
    return state


def image(chip_id: int, payload: bytes, hashed: bool = True) -> bytes:
    """A firmware image of one segment (esptool documentation, "Firmware Image Format")."""
    payload += bytes(-len(payload) % 4)
    extended = struct.pack("<BBBBHBHHI B", 0xEE, 0, 0, 0, chip_id, 0, 0, 0xFFFF, 0, 1 if hashed else 0)
    head = struct.pack("<BBBBI", 0xE9, 1, 2, 0x20, 0x40080000) + extended
    out = head + struct.pack("<II", 0x40080000, len(payload)) + payload
    out += bytes(15 - len(out) % 16) + bytes((_checksum(payload),))
    return out + (hashlib.sha256(out).digest() if hashed else b"")
