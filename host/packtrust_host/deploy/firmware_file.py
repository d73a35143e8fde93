"""Firmware files of MicroPython, checked before anything is written: is it whole, and is it for that chip?"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from .errors import BoardError
from .profile import FlashMethod

# -- Espressif: ESP-IDF documentation, "App Image Format"; esptool documentation, "Firmware Image Format" --------------

ESP_MAGIC = 0xE9
# esp_chip_id_t of the image's extended header.
ESP_CHIPS = {
    "esp32": 0,
    "esp32s2": 2,
    "esp32c3": 5,
    "esp32s3": 9,
    "esp32c2": 12,
    "esp32c6": 13,
    "esp32h2": 16,
    "esp32p4": 18,
    "esp32c61": 20,
    "esp32c5": 23,
}
_ESP_CHECKSUM = 0xEF
_ESP_APP = 0x10000  # where MicroPython's partition tables have the application

# -- Microsoft: "USB Flashing Format (UF2)" ----------------------------------------------------------------------------

UF2_BLOCK = 512
_UF2_MAGIC = (0x0A324655, 0x9E5D5157, 0x0AB16F30)
_UF2_FAMILY = 0x2000
_UF2_NOT_MAIN = 0x0001

# -- USB-IF: "Device Firmware Upgrade" 1.1, appendix B (suffix); STMicroelectronics: UM0391, DfuSe prefix --------------

_DFU_SUFFIX = struct.Struct("<HHHH3sBI")
_DFU_ANY = 0xFFFF
_DFUSE = 0x011A


@dataclass(frozen=True)
class Firmware:
    """What a file is. `detail` is for people."""

    kind: str
    size: int
    detail: str


def _refuse(what: str, next_step: str = "download it again") -> NoReturn:
    raise BoardError("this is no firmware for that board: %s" % what, next_step)


def check_esp(data: bytes, method: FlashMethod) -> Firmware:
    """An image for esptool: boot loader first, as MicroPython's downloads are, or any single image.

    BoardError if it is damaged or for another chip.
    """
    if method.chip not in ESP_CHIPS:
        _refuse("its board.toml has the chip %r" % method.chip, "correct it: one of %s" % ", ".join(ESP_CHIPS))
    _check_esp_image(data, method.chip, "the image")
    app = _ESP_APP - method.offset
    detail = "boot loader or application for %s" % method.chip
    if len(data) > app + 24 and data[app] == ESP_MAGIC:
        _check_esp_image(data[app:], method.chip, "the application in it")
        detail = "boot loader and application for %s" % method.chip
    return Firmware("esp", len(data), detail)


def _check_esp_image(data: bytes, chip: str, what: str) -> None:
    if len(data) < 24 or data[0] != ESP_MAGIC:
        _refuse("%s does not begin with 0xE9" % what, "give the .bin file of MicroPython's download page for the board")
    number = struct.unpack_from("<H", data, 12)[0]
    if number != ESP_CHIPS[chip]:
        named = {value: name for name, value in ESP_CHIPS.items()}.get(number, "chip id %d" % number)
        _refuse("%s is for %s, the board has an %s" % (what, named, chip), "take the file for %s" % chip)
    at = 24
    checksum = _ESP_CHECKSUM
    for _ in range(data[1]):
        if at + 8 > len(data):
            _refuse("%s is cut off" % what)
        length = struct.unpack_from("<I", data, at + 4)[0]
        part = data[at + 8 : at + 8 + length]
        if len(part) != length:
            _refuse("%s is cut off" % what)
        for byte in part:
            checksum ^= byte
        at += 8 + length
    at |= 15  # the checksum is the last byte of a block of 16
    if at >= len(data) or data[at] != checksum:
        _refuse("the checksum of %s is wrong" % what)
    if data[23] == 1:
        digest = hashlib.sha256(data[: at + 1]).digest()
        if data[at + 1 : at + 33] != digest:
            _refuse("the SHA-256 at the end of %s is wrong" % what)


def _uf2_blocks(data: bytes) -> Iterator[tuple[int, int, int, int, int, int]]:
    for at in range(0, len(data), UF2_BLOCK):
        block = data[at : at + UF2_BLOCK]
        if len(block) != UF2_BLOCK:
            _refuse("it is no whole number of UF2 blocks")
        first, second, flags, address, size, number, count, family = struct.unpack_from("<8I", block)
        if (first, second, struct.unpack_from("<I", block, 508)[0]) != _UF2_MAGIC:
            _refuse("block %d has no UF2 magic" % (at // UF2_BLOCK))
        yield flags, address, size, number, count, family


def check_uf2(data: bytes, method: FlashMethod) -> Firmware:
    """A UF2 file. BoardError if a block is missing or damaged, or it is for another family of chips."""
    if not data:
        _refuse("it is empty")
    families = set()
    seen: dict[int, set[int]] = {}
    counts: dict[int, int] = {}
    for flags, _, size, number, count, family in _uf2_blocks(data):
        if flags & _UF2_NOT_MAIN:
            continue
        if size > 476 or number >= count:
            _refuse("block %d of %d is malformed" % (number, count))
        key = family if flags & _UF2_FAMILY else 0
        families.add(key)
        seen.setdefault(key, set()).add(number)
        if counts.setdefault(key, count) != count:
            _refuse("its blocks disagree on their number")
    for key, numbers in seen.items():
        if len(numbers) != counts[key]:
            _refuse("%d of %d blocks are missing" % (counts[key] - len(numbers), counts[key]))
    if method.families and not families & set(method.families):
        _refuse(
            "it is for the UF2 family %s, the board has %s" % (_hex(families), _hex(method.families)),
            "take the .uf2 file for this board",
        )
    return Firmware("uf2", len(data), "UF2, family %s" % _hex(families))


def _hex(numbers: set[int] | tuple[int, ...]) -> str:
    return ", ".join("0x%08x" % number for number in sorted(numbers))


def dfu_crc(data: bytes) -> int:
    """The CRC of a DFU suffix: CRC-32 without the inversion at the end."""
    return zlib.crc32(data) ^ 0xFFFFFFFF


def check_dfu(data: bytes, method: FlashMethod) -> Firmware:
    """A file with a DFU suffix. BoardError if it has none, its CRC is wrong or it is for another device."""
    if len(data) < _DFU_SUFFIX.size:
        _refuse("it is too short for a DFU suffix")
    _, product, vendor, version, magic, length, crc = _DFU_SUFFIX.unpack(data[-_DFU_SUFFIX.size :])
    if magic != b"UFD" or length < _DFU_SUFFIX.size:
        _refuse("it has no DFU suffix", "take the .dfu file of MicroPython's download page, not the .hex or .bin")
    if crc != dfu_crc(data[:-4]):
        _refuse("the CRC of its DFU suffix is wrong")
    if method.usb is not None:
        for value, wanted in ((vendor, method.usb[0]), (product, method.usb[1])):
            if value not in (_DFU_ANY, wanted):
                _refuse(
                    "it is for the USB device %04x:%04x, the board's boot loader is %04x:%04x"
                    % (vendor, product, *method.usb),
                    "take the .dfu file for this board",
                )
    if version == _DFUSE and not data.startswith(b"DfuSe"):
        _refuse("its suffix says DfuSe, but it does not begin so")
    kind = "DfuSe" if version == _DFUSE else "DFU %x.%02x" % (version >> 8, version & 0xFF)
    return Firmware("dfu", len(data), "%s file for %04x:%04x" % (kind, vendor, product))


def check(data: bytes, method: FlashMethod) -> Firmware:
    """A firmware file for a board. BoardError says what is wrong with it."""
    checks = {"esptool": check_esp, "uf2": check_uf2, "dfu": check_dfu}
    return checks[method.method](data, method)
