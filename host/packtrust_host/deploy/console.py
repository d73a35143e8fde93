"""A virtual board's console on a pseudo terminal, for any program that opens serial ports."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import tty
from collections.abc import Callable
from pathlib import Path

READ_SIZE = 4096
PROBE_S = 0.02  # how often a terminal that nobody has open is looked at
BACKLOG = 1 << 18  # bytes kept for an opener that does not read; more are dropped, as by a serial port
GREETING = 4096  # bytes kept for the first who opens it: who starts a board sees what it says from the beginning


class ConsolePty:
    """The board's end of a terminal whose other end is a link that stays the same for as long as the board exists.

    on_input(data)   gets what the opener writes.

    The first opener gets what the board has said so far. Later on, output nobody listens to is dropped, and what an
    opener leaves unread does not wait for the next one.
    """

    def __init__(self, link: Path, on_input: Callable[[bytes], None]) -> None:
        self.link = link
        self.dropped = 0
        self._on_input = on_input
        self._loop = asyncio.get_running_loop()
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        self.terminal = os.ttyname(slave)
        os.close(slave)
        os.set_blocking(self._master, False)
        fresh = link.with_name("%s.%d" % (link.name, os.getpid()))
        fresh.symlink_to(self.terminal)
        fresh.replace(link)
        self._out = bytearray()
        self._opened = False
        self._greets = True  # nobody has had it open
        self._writing = False
        self._paused = False
        self._probe: asyncio.TimerHandle | None = None
        self._look()

    def _look(self) -> None:
        """Whether somebody has opened the terminal. The kernel has no event for that."""
        self._probe = None
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        events = poll.poll(0)
        if events and events[0][1] & select.POLLHUP and not events[0][1] & select.POLLIN:
            self._probe = self._loop.call_later(PROBE_S, self._look)
            return
        self._opened = True
        self._greets = False
        if not self._paused:
            self._loop.add_reader(self._master, self._readable)
        self._flush()

    def _readable(self) -> None:
        try:
            data = os.read(self._master, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:  # EIO: closed by its opener
            self._closed()
            return
        self._on_input(data)

    def _closed(self) -> None:
        self._opened = False
        self._loop.remove_reader(self._master)
        self._stop_writing()
        self._out.clear()
        slave = os.open(self.terminal, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            while os.read(slave, READ_SIZE):
                continue
        except BlockingIOError:
            pass  # empty now
        finally:
            os.close(slave)
        self._look()

    def pause(self, on: bool) -> None:
        """Take no more input for now (the writer is held up), or go on."""
        if on == self._paused:
            return
        self._paused = on
        if self._opened:
            if on:
                self._loop.remove_reader(self._master)
            else:
                self._loop.add_reader(self._master, self._readable)

    def write(self, data: bytes) -> None:
        """Towards the opener; never blocks."""
        if not self._opened and self._probe is not None:
            # Opened a moment ago, perhaps.
            self._probe.cancel()
            self._look()
        limit = BACKLOG if self._opened else GREETING if self._greets else 0
        if len(self._out) + len(data) > limit:
            self.dropped += len(data)
            return
        self._out += data
        if self._opened:
            self._flush()

    def _flush(self) -> None:
        while self._out:
            try:
                count = os.write(self._master, self._out[:READ_SIZE])
            except BlockingIOError:
                if not self._writing:
                    self._loop.add_writer(self._master, self._flush)
                    self._writing = True
                return
            except OSError:
                self._out.clear()  # the reading side notices that the opener is gone
                break
            del self._out[:count]
        self._stop_writing()

    def _stop_writing(self) -> None:
        if self._writing:
            self._loop.remove_writer(self._master)
            self._writing = False

    def close(self) -> None:
        """Take the terminal away."""
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
        if self._opened:
            self._loop.remove_reader(self._master)
        self._stop_writing()
        os.close(self._master)
        if self.link.is_symlink() and os.readlink(self.link) == self.terminal:
            self.link.unlink()
