"""The module `packtrust_board` of the virtual Cortex-M4: what packtrust_node.start asks of a board.

node.json and the store lie in littlefs (/flash); the program runs from the ROMFS (/rom). UART 0 is the console, UARTs
1 and 2 are the CAN ports: USB-CAN adapters or the virtual bus, by SLCAN. Its C part is the module `canboard`.
"""

import gc
import os
from json import load

from canboard import Uart

from packtrust_node.can_slcan import ACTIVE, PASSIVE, WARNING, SlcanCan, dual_filter
from packtrust_node.env import data_bitrate

state_directory = "/flash/state"
console_in = Uart(0)

# What lives short must not spread over the whole heap, or nothing large fits between what stays: collect often.
gc.collect()
gc.threshold(4000)

_least_free = 1 << 29


class _Can(SlcanCan):
    """The port as the driver of a real controller has it: frames are coded in C, and need no heap (canboard.Uart)."""

    def __init__(self, stream: Uart, bitrate: int, filters, data_bitrate: int) -> None:
        SlcanCan.__init__(self, stream, bitrate, filters, data_bitrate=data_bitrate)
        data = bytearray(8)
        self._slot = [0, data]
        self._views = [memoryview(data)[:size] for size in range(9)]

    def recv(self):
        """As SlcanCan.recv."""
        stream = self.stream
        while True:
            kind = stream.can_recv(self._slot)
            if kind is None:
                return None
            if kind <= 8:
                self.counters["received"] += 1
                frame = self._frame
                frame.arbitration_id = self._slot[0]
                frame.data = self._views[kind]
                frame.dlc = kind
                return frame
            if kind == 9:  # a frame has left
                if self._pending:
                    self._pending -= 1
                continue
            frame = self._line(None if kind == 10 else stream.can_line())
            if frame is not None:
                return frame

    def send(self, frame) -> bool:
        """As SlcanCan.send."""
        if frame.is_fd or frame.is_remote_frame:
            return SlcanCan.send(self, frame)
        if self._pending >= self._depth or self._answers or self._out:
            return False
        state = self.state
        if state != ACTIVE and state != WARNING and state != PASSIVE:
            return False
        if not self.stream.can_send(frame.arbitration_id, frame.is_extended_id, frame.data):
            return False
        self._pending += 1
        self.counters["sent"] += 1
        return True


def config() -> dict:
    """node.json."""
    with open("/flash/node.json") as file:
        return load(file)


def can_port(index: int, accept):
    """An SLCAN driver on the UART of that port."""
    settings = config()
    filters = () if accept is None else dual_filter(accept)
    return _Can(Uart(1 + index), settings.get("bitrate", 500000), filters, data_bitrate=data_bitrate(settings, index))


def urandom(count: int) -> bytes:
    """Bytes of the host's entropy source. OSError if the board has none."""
    return os.urandom(count)


def console_write(text: str) -> None:
    """To the console."""
    print(text, end="")


def statistics() -> dict:
    """Heap in bytes: in use and free after a collection, the least that was free in any answer so far, and the largest
    piece of it."""
    global _least_free
    gc.collect()
    free = gc.mem_free()
    _least_free = min(_least_free, free)
    low = 0
    high = free
    gc.disable()  # a try that fails has not collected: the node stands still for as few collections as can be
    while high - low > 64:
        size = (low + high) // 2
        try:
            bytearray(size)
            low = size
            gc.collect()
        except MemoryError:
            high = size
    gc.enable()
    return {"heap_used": gc.mem_alloc(), "heap_free": free, "heap_least": _least_free, "heap_block": low}
