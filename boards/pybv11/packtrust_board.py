"""The module `packtrust_board` of the Pyboard v1.1 (STM32F405) with CAN transceivers; see README.md."""

import gc
import os
import sys
from json import load

import machine

state_directory = "state"
console_in = sys.stdin.buffer


def config() -> dict:
    """node.json."""
    with open("node.json") as file:
        return load(file)


def can_port(index: int, accept):
    """CAN(1), pins Y3 and Y4, as port 0; CAN(2), pins Y5 and Y6, as port 1. The F405 has no CAN FD."""
    driver = _controller(1 + index, config().get("bitrate", 500000))
    driver.filters(accept)
    return driver


def _controller(number: int, bitrate: int):
    if hasattr(machine, "CAN"):
        # MicroPython 1.28 and newer
        from packtrust_node.can_machine import MachineCan

        return MachineCan(number, bitrate)
    from packtrust_node.can_pyb import PybCan

    return PybCan(number, bitrate)


def urandom(count: int) -> bytes:
    """Bytes of the F405's random generator, which this board's firmware is built with (MICROPY_HW_ENABLE_RNG)."""
    return os.urandom(count)


def console_write(text: str) -> None:
    """To USB."""
    print(text, end="")


def statistics() -> dict:
    """Heap in use and free, in bytes."""
    gc.collect()
    return {"heap_used": gc.mem_alloc(), "heap_free": gc.mem_free()}
