"""The module `packtrust_board` of an ESP32-S3 with a CAN transceiver, under CircuitPython; see README.md."""

import gc
import os
from json import load

import board
import canio
import storage
import usb_cdc
import wifi

from packtrust_node.can_canio import CanioCan

TWAI_QUEUE = 5  # frames the port queues; it drops more without a word

state_directory = "/state"

_seeded = False


class Console:
    """The console on USB: a byte, or None at once."""

    def readinto(self, buffer) -> "int | None":
        """Bytes read, None if there are none; never 0, which would be the end of the console."""
        serial = usb_cdc.console
        if serial is None or not serial.in_waiting:
            return None
        return serial.readinto(buffer) or None


console_in = Console()


def config() -> dict:
    """node.json."""
    with open("/node.json") as file:
        return load(file)


def can_port(index: int, accept):
    """The chip's one controller (TWAI): TX on IO4, RX on IO5, clear of USB, PSRAM and what is read at reset."""
    if index:
        raise ValueError("this board has one CAN port: it can be a module; take another board for a pack")
    if storage.getmount("/").readonly:
        raise RuntimeError("the drive belongs to the PC: deploy boot.py too, and press reset without BOOT")
    can = canio.CAN(board.IO4, board.IO5, baudrate=config().get("bitrate", 500000))
    driver = CanioCan(can, TWAI_QUEUE)
    driver.filters(accept)
    return driver


def urandom(count: int) -> bytes:
    """Bytes of the hardware generator. Without radio it is fed by nothing, so the first draw is made with the radio on;
    the node's own mixer carries that on."""
    global _seeded
    if _seeded:
        return os.urandom(count)
    wifi.radio.enabled = True
    drawn = os.urandom(count)
    wifi.radio.enabled = False
    _seeded = True
    return drawn


def console_write(text: str) -> None:
    """To USB."""
    print(text, end="")


def statistics() -> dict:
    """Heap in use and free, in bytes."""
    gc.collect()
    # CircuitPython's gc has both; its stubs leave that module to CPython's.
    used = gc.mem_alloc()  # type: ignore[attr-defined]
    return {"heap_used": used, "heap_free": gc.mem_free()}  # type: ignore[attr-defined]
