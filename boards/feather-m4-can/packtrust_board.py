"""The module `packtrust_board` of Adafruit's Feather M4 CAN (SAME51) under CircuitPython; see README.md."""

import gc
import os
from json import load

import board
import canio
import digitalio
import storage
import usb_cdc

from packtrust_node.can_canio import CanioCan

state_directory = "/state"


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
    """The one controller on the screw terminals."""
    if index:
        raise ValueError("this board has one CAN port: it can be a module; take another board for a pack")
    if storage.getmount("/").readonly:
        raise RuntimeError("the drive belongs to the PC: deploy boot.py too, take D5 off GND and press reset")
    # The transceiver has its 5 V from a boost converter, and stands by until it is told not to.
    boost = digitalio.DigitalInOut(board.BOOST_ENABLE)
    boost.switch_to_output(True)
    standby = digitalio.DigitalInOut(board.CAN_STANDBY)
    standby.switch_to_output(False)
    can = canio.CAN(board.CAN_TX, board.CAN_RX, baudrate=config().get("bitrate", 500000))
    driver = CanioCan(can)
    driver.filters(accept)
    return driver


def urandom(count: int) -> bytes:
    """Bytes of the SAME51's TRNG."""
    return os.urandom(count)


def console_write(text: str) -> None:
    """To USB."""
    print(text, end="")


def statistics() -> dict:
    """Heap in use and free, in bytes."""
    gc.collect()
    # CircuitPython's gc has both; its stubs leave that module to CPython's.
    used = gc.mem_alloc()  # type: ignore[attr-defined]
    return {"heap_used": used, "heap_free": gc.mem_free()}  # type: ignore[attr-defined]
