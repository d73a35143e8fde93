"""The module `packtrust_board` of an ESP32 (DevKitC and the like) with one or two MCP2515 modules; see README.md."""

import gc
import os
import sys
from json import load

from machine import SPI, Pin
from network import STA_IF, WLAN

from packtrust_node.can_mcp2515 import Mcp2515
from packtrust_node.can_spi import MachineSpi

# (SPI, SCK, MOSI, MISO, CS, INT). Each chip has a bus of its own: the handler of one chip's INT must not come between
# chip select and data of the other. Port 0 is VSPI with its own pins; port 1 stays off GPIO 12, which sets the flash
# voltage at reset, and off GPIO 6..11, which are the flash.
PORTS = ((2, 18, 23, 19, 5, 21), (1, 14, 13, 27, 26, 25))
SPI_HZ = 8000000  # the chip can do 10 MHz
CRYSTAL_HZ = 8000000  # blue modules have 8 MHz; look at the print on the crystal's can

state_directory = "state"
console_in = sys.stdin.buffer

_seeded = False


def config() -> dict:
    """node.json."""
    with open("node.json") as file:
        return load(file)


def can_port(index: int, accept):
    """The MCP2515 of that port: 0 VCU (pack) or pack bus (module), 1 module bus (pack)."""
    bus, sck, mosi, miso, select, interrupt = PORTS[index]
    settings = config()
    spi = SPI(bus, baudrate=SPI_HZ, polarity=0, phase=0, sck=Pin(sck), mosi=Pin(mosi), miso=Pin(miso))
    driver = Mcp2515(
        MachineSpi(spi, Pin(select, Pin.OUT, value=1)),
        settings.get("bitrate", 500000),
        settings.get("crystal", CRYSTAL_HZ),
        Pin(interrupt, Pin.IN, Pin.PULL_UP),
    )
    driver.filters(accept)
    return driver


def urandom(count: int) -> bytes:
    """Bytes of the hardware generator. Without radio it is fed by nothing, so the first draw is made with the radio on;
    the node's own mixer carries that on."""
    global _seeded
    if _seeded:
        return os.urandom(count)
    radio = WLAN(STA_IF)
    radio.active(True)
    drawn = os.urandom(count)
    radio.active(False)
    _seeded = True
    return drawn


def console_write(text: str) -> None:
    """To the USB-UART."""
    print(text, end="")


def statistics() -> dict:
    """Heap in use and free, in bytes."""
    gc.collect()
    return {"heap_used": gc.mem_alloc(), "heap_free": gc.mem_free()}
