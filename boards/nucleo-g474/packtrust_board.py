"""The module `packtrust_board` of the NUCLEO-G474RE with a CAN FD transceiver at FDCAN1; see README.md."""

import gc
import os
import sys
from json import load

import machine

from packtrust_node.env import data_bitrate

state_directory = "state"
console_in = sys.stdin.buffer


def config() -> dict:
    """node.json."""
    with open("node.json") as file:
        return load(file)


def can_port(index: int, accept):
    """FDCAN1, PA11 and PA12. MicroPython's board definition has this one controller: no port for a pack's modules."""
    if index:
        raise ValueError("this board has one CAN port: it can be a module; take another board for a pack")
    settings = config()
    driver = _controller(settings.get("bitrate", 500000), data_bitrate(settings, index))
    driver.filters(accept)
    return driver


def _controller(bitrate: int, fd_bitrate: int):
    if not fd_bitrate and hasattr(machine, "CAN"):
        # MicroPython 1.28 and newer; classic frames only
        from packtrust_node.can_machine import MachineCan

        return MachineCan(1, bitrate)
    from packtrust_node.can_pyb import PybCan

    # The firmware cannot set the G4's data bit timing: CAN FD frames without the bit rate switch.
    return PybCan(1, bitrate, fd_bitrate, switch=False)


def urandom(count: int) -> bytes:
    """Bytes of the G474's random generator, which this board's firmware is built with (MICROPY_HW_ENABLE_RNG)."""
    return os.urandom(count)


def console_write(text: str) -> None:
    """To the ST-LINK's serial port."""
    print(text, end="")


def statistics() -> dict:
    """Heap in use and free, in bytes."""
    gc.collect()
    return {"heap_used": gc.mem_alloc(), "heap_free": gc.mem_free()}
