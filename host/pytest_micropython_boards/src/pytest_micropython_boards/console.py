"""A board's console: bytes over a serial port, with a memory for error reports."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Self

import serial

from .errors import BoardError, BoardTimeout

POLL_S = 0.05
REOPEN_POLL_S = 0.1
KEPT_BYTES = 16_384


class Console:
    """A serial port, or a pseudo terminal that behaves like one.

    port      as pyserial's `serial_for_url` takes it: /dev/ttyACM0, COM3, /dev/pts/5, socket://host:port
    baudrate  where it matters

    It can be unplugged and plugged in again: `close()`, then `open()` waits for the port to be back.
    """

    def __init__(self, port: str, baudrate: int = 115_200) -> None:
        self.port = port
        self.baudrate = baudrate
        self._serial: Any = None
        self._buffer = bytearray()
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0

    def __repr__(self) -> str:
        return "<Console %s>" % self.port

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- the port ------------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether the port is ours."""
        return self._serial is not None

    def open(self, timeout: float = 10.0) -> None:
        """Open the port; waits up to `timeout` seconds for it to appear. Raises BoardError."""
        if self._serial is not None:
            return
        end = time.monotonic() + timeout
        while True:
            try:
                # Opening must not reset the board where DTR and RTS are wired to do so (ESP32).
                port = serial.serial_for_url(self.port, do_not_open=True)
                port.baudrate = self.baudrate
                port.timeout = POLL_S
                port.write_timeout = 10
                if hasattr(port, "exclusive"):
                    port.exclusive = True
                port.dtr = True
                port.rts = False
                # pyserial empties the port's buffer when it opens it: what a board says as soon as it has power would
                # be lost.
                port._reset_input_buffer = lambda: None  # type: ignore[attr-defined]
                port.open()
            except (OSError, ValueError) as error:
                # No event tells that a port has appeared.
                if time.monotonic() >= end:
                    raise BoardError(
                        "the console %s does not open: %s; check that the board is plugged in, that no other program "
                        "has the port, and that you may use it (group dialout)" % (self.port, error)
                    ) from error
                time.sleep(REOPEN_POLL_S)
                continue
            self._serial = port
            self._buffer.clear()
            return

    def close(self) -> None:
        """Give the port back."""
        port, self._serial = self._serial, None
        self._buffer.clear()
        if port is not None:
            port.close()

    def _need(self) -> Any:
        if self._serial is None:
            raise BoardError("the console %s is closed: open() it, or power the board up" % self.port)
        return self._serial

    # -- bytes ---------------------------------------------------------------------------------------------------------

    def write(self, data: bytes | str) -> None:
        """Send bytes, or text as UTF-8."""
        if isinstance(data, str):
            data = data.encode()
        try:
            self._need().write(data)
        except OSError as error:
            raise self._gone(error) from error

    def _gone(self, error: Exception) -> BoardError:
        return BoardError("the console %s is gone (%s): is the board still powered?" % (self.port, error))

    def _fill(self) -> bool:
        """Read what there is, or wait a moment for a byte; whether anything came."""
        port = self._need()
        try:
            data = port.read(max(1, port.in_waiting))
        except (OSError, TypeError) as error:  # TypeError: pyserial, when the port is closed meanwhile
            raise self._gone(error) from error
        if not data:
            return False
        self._buffer += data
        self._kept.append(bytes(data))
        self._kept_bytes += len(data)
        while self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popleft())
        return True

    def read_until(self, ending: bytes | str, timeout: float = 10.0) -> bytes:
        """Everything up to and with `ending`. Raises BoardTimeout after `timeout` seconds without a new byte."""
        if isinstance(ending, str):
            ending = ending.encode()
        silent = time.monotonic() + timeout
        while ending not in self._buffer:
            if self._fill():
                silent = time.monotonic() + timeout
            elif time.monotonic() >= silent:
                seen = bytes(self._buffer[-200:])
                raise BoardTimeout(
                    "nothing new from %s for %.1f s while waiting for %r; last: %r" % (self.port, timeout, ending, seen)
                )
        return self._take(self._buffer.index(ending) + len(ending))

    def read_exactly(self, count: int, timeout: float = 10.0) -> bytes:
        """`count` bytes. Raises BoardTimeout after `timeout` seconds without a new byte."""
        silent = time.monotonic() + timeout
        while len(self._buffer) < count:
            if self._fill():
                silent = time.monotonic() + timeout
            elif time.monotonic() >= silent:
                raise BoardTimeout("%s sent %d bytes of %d, then nothing" % (self.port, len(self._buffer), count))
        return self._take(count)

    def read_line(self, timeout: float = 10.0) -> str:
        """The next line, without its end."""
        return self.read_until(b"\n", timeout).decode("utf-8", "replace").rstrip("\r\n")

    def read_quiet(self, silence: float = 0.2) -> bytes:
        """Everything until nothing has come for `silence` seconds."""
        end = time.monotonic() + silence
        while time.monotonic() < end:
            if self._fill():
                end = time.monotonic() + silence
        return self._take(len(self._buffer))

    def has_input(self) -> bool:
        """Whether bytes are there already."""
        if not self._buffer and self._need().in_waiting:
            self._fill()
        return bool(self._buffer)

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def recent(self) -> str:
        """The last 16 KB the board has said, for reports."""
        return b"".join(self._kept).decode("utf-8", "replace")
