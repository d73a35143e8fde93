"""The CAN bus of the example: on a PC a TCP connection on loopback, on a board its CAN controller.

`send(frames)` sends a list of packtrust frames; `recv(timeout_ms)` gives one frame or None. For a board write the same
three methods around its driver, as the class at the end shows for `machine.CAN` (not run on hardware).
"""

import os
import select
import socket
import sys
import time

from packtrust import Frame

PORT = 29536
_RECORD = 13  # arbitration ID (4), length (1), data (8)


def urandom(count):
    return os.urandom(count)


def ticks_ms():
    return time.ticks_ms() if hasattr(time, "ticks_ms") else int(time.monotonic() * 1000)


class TcpBus:
    """Two nodes on loopback: the sensor listens, the display connects (port from the command line)."""

    def __init__(self, name):
        port = int(sys.argv[1]) if len(sys.argv) > 1 else PORT
        address = socket.getaddrinfo("127.0.0.1", port)[0][-1]
        self._socket = socket.socket()
        if name == "sensor":
            listener = self._socket
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1)
            print("sensor: listening")
            self._socket = listener.accept()[0]
            listener.close()
        else:
            self._socket.connect(address)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._buffer = b""
        self.is_open = True

    def send(self, frames):
        for frame in frames:
            data = bytes(frame.data)
            record = frame.arbitration_id.to_bytes(4, "big") + bytes((len(data),)) + data
            try:
                self._socket.send(record + bytes(_RECORD - len(record)))
            except OSError:
                self.is_open = False  # the other node has gone

    def recv(self, timeout_ms):
        if len(self._buffer) < _RECORD and self._poll.poll(timeout_ms):
            received = self._socket.recv(512)
            self.is_open = bool(received)
            self._buffer += received
        if len(self._buffer) < _RECORD:
            return None
        record, self._buffer = self._buffer[:_RECORD], self._buffer[_RECORD:]
        return Frame(int.from_bytes(record[:4], "big"), record[5 : 5 + record[4]])


class MachineBus:
    """MicroPython 1.28 or newer on STM32: `machine.CAN`. Not run on hardware."""

    is_open = True

    def __init__(self, name):
        import machine

        self._can = machine.CAN(1, bitrate=500_000)
        self._can.set_filters(None)

    def send(self, frames):
        for frame in frames:
            while self._can.send(frame.arbitration_id, frame.data, self._can.FLAG_EXT_ID) is None:
                time.sleep_ms(1)  # the mailboxes are full; the controller has no event to wait for here

    def recv(self, timeout_ms):
        message = self._can.recv()
        return Frame(message[0], bytes(message[1])) if message else None


Bus = TcpBus if sys.platform in ("linux", "darwin") else MachineBus
