"""The module `packtrust_board` of an ESP32-S3 (DevKitC-1 and the like) with MCP2518FD modules; see README.md."""

import gc
import os
import sys
from json import load

from machine import SPI, Pin
from network import STA_IF, WLAN

from packtrust_node.can_mcp2518fd import Mcp2518fd
from packtrust_node.can_spi import MachineSpi
from packtrust_node.env import data_bitrate

# (SPI, SCK, MOSI, MISO, CS, INT). Clear of GPIO 26..37 (flash and octal PSRAM), 19 and 20 (USB), 0, 3, 45, 46 (read at
# reset). Port 0 has the pins of FSPI.
PORTS = ((1, 12, 11, 13, 10, 9), (2, 17, 18, 8, 16, 15))
SPI_HZ = 16000000  # at most 17 MHz with a 40 MHz clock
CLOCK_HZ = 40000000  # MCP2518FD Click and Seeed's boards; 20 and 4 MHz can be had

state_directory = "state"
console_in = sys.stdin.buffer

_seeded = False


def config() -> dict:
    """node.json."""
    with open("node.json") as file:
        return load(file)


def can_port(index: int, accept):
    """The MCP2518FD of that port: 0 VCU (pack) or pack bus (module), 1 module bus (pack)."""
    bus, sck, mosi, miso, select, interrupt = PORTS[index]
    settings = config()
    spi = SPI(bus, baudrate=SPI_HZ, polarity=0, phase=0, sck=Pin(sck), mosi=Pin(mosi), miso=Pin(miso))
    driver = Mcp2518fd(
        MachineSpi(spi, Pin(select, Pin.OUT, value=1)),
        settings.get("bitrate", 500000),
        data_bitrate(settings, index),
        settings.get("clock", CLOCK_HZ),
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
    """To the console: USB, or the USB-UART."""
    print(text, end="")


def statistics() -> dict:
    """Heap in use and free, in bytes."""
    gc.collect()
    return {"heap_used": gc.mem_alloc(), "heap_free": gc.mem_free()}
