"""`packtrust flash`: files are checked, the board must be the only one, esptool runs for real against a model ROM.

Not run on hardware: DFU and UF2 are tested up to the call of dfu-util and the copy onto the drive.
"""

import hashlib
import json
import os
import struct
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import esprom
from packtrust_host.cli import app
from packtrust_host.deploy import find, firmware_file, flash, profile, virtual
from packtrust_host.deploy.errors import BoardError
from packtrust_host.deploy.profile import FlashMethod

MAC = bytes.fromhex("240ac4010203")
ESP32 = FlashMethod("esptool", chip="esp32", offset=0x1000)
STM32 = FlashMethod("dfu", usb=(0x0483, 0xDF11))
SAMD51 = FlashMethod("uf2", families=(0x55114460,), board_ids=("SAMD51-Feather-M4-CAN-v0",))

BOARDS = {
    "esp": """
[board]
name = "esp"
title = "An ESP32"
layout = "mpy"
[usb]
vid = 0x10c4
pid = 0xea60
[flash]
method = "esptool"
chip = "esp32"
offset = 0x1000
""",
    "stm": """
[board]
name = "stm"
title = "An STM32"
[flash]
method = "dfu"
vid = 0x0483
pid = 0xdf11
""",
    "feather": """
[board]
name = "feather"
title = "A Feather"
layout = "py"
[flash]
method = "uf2"
family = 0x55114460
board_id = "SAMD51-Feather-M4-CAN-v0"
""",
    "virtual": """
[board]
name = "virtual"
title = "None"
virtual = true
""",
}


@pytest.fixture
def boards(tmp_path, monkeypatch):
    folder = tmp_path / "boards"
    for name, text in BOARDS.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "board.toml").write_text(text)
    monkeypatch.setattr(profile, "boards_folder", lambda: folder)
    monkeypatch.setattr(find, "serial_ports", list)
    monkeypatch.setattr(virtual, "runtime_folder", lambda: tmp_path / "running")
    return folder


@pytest.fixture
def cli(boards):
    def run(*arguments):
        return CliRunner().invoke(app, ["flash", *(str(item) for item in arguments)])

    return run


# -- files -------------------------------------------------------------------------------------------------------------


def micropython_esp32() -> bytes:
    """As MicroPython's downloads are: the boot loader at the start, the application at 0x10000 of the flash."""
    boot = esprom.image(0, b"boot loader " * 50)
    return boot.ljust(0x10000 - 0x1000, b"\xff") + esprom.image(0, os.urandom(4096))


def uf2(family: int, blocks: int = 4) -> bytes:
    out = b""
    for number in range(blocks):
        head = (0x0A324655, 0x9E5D5157, 0x2000, 0x4000 + 256 * number, 256, number, blocks, family)
        out += struct.pack("<8I", *head) + bytes([number]) * 476 + struct.pack("<I", 0x0AB16F30)
    return out


def dfu(vendor: int = 0x0483, product: int = 0xDF11) -> bytes:
    body = b"DfuSe\x01" + b"firmware " * 100
    out = body + struct.pack("<HHHH3sB", 0xFFFF, product, vendor, 0x011A, b"UFD", 16)
    return out + struct.pack("<I", firmware_file.dfu_crc(out))


def damaged(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]


def test_whole_files_are_taken() -> None:
    assert "boot loader and application" in firmware_file.check(micropython_esp32(), ESP32).detail
    assert firmware_file.check(esprom.image(0, b"app", hashed=False), ESP32).kind == "esp"
    assert "0x55114460" in firmware_file.check(uf2(0x55114460), SAMD51).detail
    assert "DfuSe file for 0483:df11" in firmware_file.check(dfu(), STM32).detail


def test_the_crc_of_a_dfu_suffix_is_that_of_the_standard() -> None:
    # CRC-32 of "123456789" is 0xcbf43926 (the usual check value); a DFU suffix has it without the final inversion.
    assert firmware_file.dfu_crc(b"123456789") == 0xCBF43926 ^ 0xFFFFFFFF


def test_esptool_itself_agrees_with_our_image(tmp_path) -> None:
    path = tmp_path / "image.bin"
    path.write_bytes(esprom.image(0, b"payload " * 40))
    done = subprocess.run(
        [sys.executable, "-m", "esptool", "image-info", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "Chip ID: 0 (ESP32)" in done.stdout
    assert done.stdout.count("(valid)") == 2


def test_what_esptool_merges_is_taken(tmp_path) -> None:
    parts = {0x1000: esprom.image(0, b"boot"), 0x10000: esprom.image(0, b"application " * 30)}
    words = []
    for offset, data in parts.items():
        path = tmp_path / ("%x.bin" % offset)
        path.write_bytes(data)
        words += ["0x%x" % offset, str(path)]
    merged = tmp_path / "merged.bin"
    command = [sys.executable, "-m", "esptool", "--chip", "esp32", "merge-bin", "--target-offset", "0x1000"]
    subprocess.run([*command, "-o", str(merged), *words], capture_output=True, timeout=60, check=True)
    assert "boot loader and application" in firmware_file.check(merged.read_bytes(), ESP32).detail


@pytest.mark.parametrize(
    ("data", "method", "cause"),
    [
        (b"\x7fELF" + bytes(40), ESP32, "does not begin with 0xE9"),
        (b"", ESP32, "does not begin with 0xE9"),
        (esprom.image(9, b"x"), ESP32, "is for esp32s3, the board has an esp32"),
        (esprom.image(77, b"x"), ESP32, "is for chip id 77"),
        (damaged(esprom.image(0, b"payload" * 9, hashed=False), 40), ESP32, "checksum of the image is wrong"),
        (damaged(esprom.image(0, b"payload" * 9), 4), ESP32, "SHA-256 at the end of the image is wrong"),
        (esprom.image(0, bytes(900))[:400], ESP32, "the image is cut off"),
        (damaged(micropython_esp32(), 0xF000 + 60), ESP32, "the application in it is wrong"),
        (b"", SAMD51, "it is empty"),
        (uf2(0x55114460)[:-1], SAMD51, "no whole number of UF2 blocks"),
        (damaged(uf2(0x55114460), 512), SAMD51, "block 1 has no UF2 magic"),
        (uf2(0x55114460)[512:], SAMD51, "1 of 4 blocks are missing"),
        (uf2(0xE48BFF56), SAMD51, "UF2 family 0xe48bff56, the board has 0x55114460"),
        (b"short", STM32, "too short"),
        (b"x" * 100, STM32, "no DFU suffix"),
        (damaged(dfu(), 30), STM32, "CRC of its DFU suffix is wrong"),
        (dfu(vendor=0x1209), STM32, "for the USB device 1209:df11"),
    ],
)
def test_others_are_refused(data, method, cause) -> None:
    with pytest.raises(BoardError) as caught:
        firmware_file.check(data, method)
    assert cause in str(caught.value)
    assert "Next: " in str(caught.value)


# -- esptool, for real -------------------------------------------------------------------------------------------------


def test_esptool_writes_and_verifies(cli, tmp_path) -> None:
    data = micropython_esp32()
    path = tmp_path / "ESP32.bin"
    path.write_bytes(data)
    with esprom.EspRom(MAC) as rom:
        done = cli("esp", path, "--port", rom.path, "--no-reset", "--json")
        assert done.exit_code == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["written"]
        assert told["unique_id"] == MAC.hex()
        assert rom.flash[0x1000 : 0x1000 + len(data)] == data
        assert hashlib.sha256(rom.flash[:0x1000]).digest() == hashlib.sha256(b"\xff" * 0x1000).digest()


def test_another_chip_is_not_written(cli, tmp_path) -> None:
    path = tmp_path / "ESP32.bin"
    path.write_bytes(micropython_esp32())
    with esprom.EspRom(MAC) as rom:
        done = cli("esp", path, "--port", rom.path, "--no-reset", "--unique-id", "24:0a:c4:99:99:99")
        assert done.exit_code == 1
        assert "is 240ac4010203, not 240ac4999999" in done.stderr
        done = cli("esp", path, "--port", rom.path, "--no-reset", "--unique-id", "24:0A:C4:01:02:03", "--dry-run")
        assert done.exit_code == 0, done.stderr
        assert "would write" in done.stdout
        assert not set(rom.commands) & {esprom.FLASH_DATA, esprom.FLASH_DEFL_DATA}
        assert rom.flash.count(0xFF) == len(rom.flash)


@pytest.mark.realtime
def test_a_flash_that_does_not_keep_what_is_written_is_an_error(cli, tmp_path) -> None:
    path = tmp_path / "ESP32.bin"
    path.write_bytes(esprom.image(0, b"application"))
    with esprom.EspRom(MAC) as rom:
        rom.corrupt = True
        done = cli("esp", path, "--port", rom.path, "--no-reset")
    assert done.exit_code == 1
    assert "writing with esptool failed" in done.stderr
    assert "Next: " in done.stderr


# -- which board -------------------------------------------------------------------------------------------------------


def test_between_two_boards_nothing_is_guessed(cli, tmp_path, monkeypatch) -> None:
    path = tmp_path / "ESP32.bin"
    path.write_bytes(micropython_esp32())
    ports = [
        find.SerialPort("/dev/ttyUSB0", 0x10C4, 0xEA60, "0001"),
        find.SerialPort("/dev/ttyUSB1", 0x10C4, 0xEA60, "0002"),
        find.SerialPort("/dev/ttyACM0", 0xF055, 0x9800, "3577"),
    ]
    monkeypatch.setattr(find, "serial_ports", lambda: ports)
    monkeypatch.setattr(flash, "_run", lambda *_: pytest.fail("something was started"))
    done = cli("esp", path)
    assert done.exit_code == 1
    for text in ("/dev/ttyUSB0 (serial 0001)", "/dev/ttyUSB1 (serial 0002)", "--serial", "--port"):
        assert text in done.stderr
    assert "ttyACM0" not in done.stderr
    done = cli("esp", path, "--serial", "0003")
    assert "no board with USB serial number 0003" in done.stderr


def test_the_file_is_checked_before_any_board_is_looked_for(cli, tmp_path) -> None:
    path = tmp_path / "wrong.bin"
    path.write_bytes(b"no firmware")
    done = cli("esp", path)
    assert "no firmware for that board" in done.stderr
    assert cli("esp", tmp_path / "missing.bin").exit_code == 2


def test_a_virtual_board_has_none(cli, tmp_path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"")
    assert "(it is virtual)" in cli("virtual", path).stderr


# -- DFU ---------------------------------------------------------------------------------------------------------------

DFU_LINE = (
    'Found DFU: [0483:df11] ver=2200, devnum=%d, cfg=1, intf=0, path="1-%d", alt=%d, '
    'name="@Internal Flash  /0x08000000/04*016Kg", serial="%s"'
)


@pytest.fixture
def dfu_util(tmp_path, monkeypatch):
    """A stand-in for dfu-util: lists the devices given, notes what it is called with."""
    folder = tmp_path / "bin"
    folder.mkdir()
    calls = folder / "calls"

    def make(*serials: str, fails: bool = False) -> None:
        lines = [DFU_LINE % (number, number, alt, serial) for number, serial in enumerate(serials) for alt in (0, 1)]
        (folder / "list").write_text("\n".join(lines))
        script = '#!/bin/sh\nif [ "$1" = -l ]; then cat %s/list; exit 0; fi\n' % folder
        script += 'for word in "$@"; do echo "$word" >> %s; done\n' % calls
        script += "echo Lost device; exit 74\n" if fails else "echo File downloaded successfully\n"
        (folder / "dfu-util").write_text(script)
        (folder / "dfu-util").chmod(0o755)

    monkeypatch.setenv("PATH", "%s:/usr/bin:/bin" % folder)
    make.calls = calls
    return make


def test_dfu_util_is_asked_for_where_it_is_missing(cli, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "board.dfu").write_bytes(dfu())
    assert "apt install dfu-util" in cli("stm", tmp_path / "board.dfu").stderr


def test_dfu_chooses_by_serial_number(cli, tmp_path, dfu_util) -> None:
    path = tmp_path / "board.dfu"
    path.write_bytes(dfu())
    dfu_util()
    assert "is in its DFU boot loader" in cli("stm", path).stderr
    dfu_util("357738573133", "206D36A84E42")
    done = cli("stm", path)
    assert done.exit_code == 1
    assert "2 boards are in their DFU boot loader" in done.stderr
    assert "206D36A84E42" in done.stderr
    assert not dfu_util.calls.exists()
    done = cli("stm", path, "--serial", "206D36A84E42")
    assert done.exit_code == 0, done.stderr
    words = dfu_util.calls.read_text().split()
    assert words == ["-d", "0483:df11", "-S", "206D36A84E42", "-a", "0", "-s", ":leave", "-D", str(path)]


def test_dfu_util_failing_is_told(cli, tmp_path, dfu_util) -> None:
    path = tmp_path / "board.dfu"
    path.write_bytes(dfu())
    dfu_util("357738573133", fails=True)
    done = cli("stm", path)
    assert done.exit_code == 1
    assert "Lost device" in done.stderr


# -- UF2 ---------------------------------------------------------------------------------------------------------------


def uf2_drive(folder, called: str):
    folder.mkdir()
    (folder / "INFO_UF2.TXT").write_text("UF2 Bootloader v3\r\nModel: Feather\r\nBoard-ID: %s\r\n" % called)
    return folder


def test_uf2_is_copied_to_the_right_drive(cli, tmp_path, monkeypatch) -> None:
    path = tmp_path / "board.uf2"
    path.write_bytes(uf2(0x55114460))
    right = uf2_drive(tmp_path / "right", "SAMD51-Feather-M4-CAN-v0")
    wrong = uf2_drive(tmp_path / "wrong", "RPI-RP2")
    monkeypatch.setattr(find, "mounted", lambda: [wrong, right, tmp_path])
    done = cli("feather", path)
    assert done.exit_code == 0, done.stderr
    assert (right / "board.uf2").read_bytes() == path.read_bytes()
    assert not (wrong / "board.uf2").exists()
    done = cli("feather", path, "--drive", wrong)
    assert done.exit_code == 1
    assert "is of a RPI-RP2" in done.stderr
    assert "no UF2 boot loader" in cli("feather", path, "--drive", tmp_path).stderr


def test_two_uf2_drives_are_not_guessed_between(cli, tmp_path, monkeypatch) -> None:
    path = tmp_path / "board.uf2"
    path.write_bytes(uf2(0x55114460))
    both = [uf2_drive(tmp_path / name, "SAMD51-Feather-M4-CAN-v0") for name in ("one", "two")]
    monkeypatch.setattr(find, "mounted", lambda: both)
    done = cli("feather", path)
    assert done.exit_code == 1
    assert "--drive" in done.stderr
    monkeypatch.setattr(find, "mounted", list)
    assert "no drive of a feather is mounted" in cli("feather", path).stderr
    # Its number cannot be had from a drive: better to refuse than to believe.
    assert "does not tell the number" in cli("feather", path, "--drive", both[0], "--unique-id", "01").stderr
