"""The module `packtrust_board` of the NUCLEO-WB55 with MCP2518FD modules: a pack controller; see README.md."""

import gc
import os
import sys
from json import load

from machine import SPI, Pin

from packtrust_node.can_mcp2518fd import Mcp2518fd
from packtrust_node.can_spi import MachineSpi
from packtrust_node.env import data_bitrate

# (SPI, CS, INT). SPI 1 is on the Arduino header: SCK D13, MISO D12, MOSI D11, with CS D10 and INT D9, as on a Click
# shield. SPI 2 is on the morpho header: SCK PB13, MISO PB14, MOSI PB15.
PORTS = ((1, "A4", "A9"), (2, "B12", "C6"))
SPI_HZ = 16000000  # at most 17 MHz with a 40 MHz clock
CLOCK_HZ = 40000000

state_directory = "state"
console_in = sys.stdin.buffer


def config() -> dict:
    """node.json."""
    with open("node.json") as file:
        return load(file)


def can_port(index: int, accept):
    """The MCP2518FD of that port: 0 VCU (pack) or pack bus (module), 1 module bus (pack)."""
    bus, select, interrupt = PORTS[index]
    settings = config()
    driver = Mcp2518fd(
        MachineSpi(SPI(bus, baudrate=SPI_HZ, polarity=0, phase=0), Pin(select, Pin.OUT, value=1)),
        settings.get("bitrate", 500000),
        data_bitrate(settings, index),
        settings.get("clock", CLOCK_HZ),
        Pin(interrupt, Pin.IN, Pin.PULL_UP),
    )
    driver.filters(accept)
    return driver


def urandom(count: int) -> bytes:
    """Bytes of the WB55's random generator, which this board's firmware is built with (MICROPY_HW_ENABLE_RNG)."""
    return os.urandom(count)


def console_write(text: str) -> None:
    """To the ST-LINK's serial port."""
    print(text, end="")


def statistics() -> dict:
    """Heap in use and free, in bytes."""
    gc.collect()
    return {"heap_used": gc.mem_alloc(), "heap_free": gc.mem_free()}
