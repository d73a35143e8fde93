"""Ports: SLCAN devices behind file descriptors, for the real-time server.

A :class:`PtyPort` is a virtual USB-CAN adapter: its slave side looks like a serial adapter to any
program.  A :class:`FdPort` is a node's own CAN controller, over a socket or pipe.  Neither ever
blocks: what a slow reader does not take waits in a bounded queue, the oldest frames are dropped and
counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import select
import tty
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from .lanes import BELL, Lane
from .slcan import SlcanDevice

if TYPE_CHECKING:
    from .server import BusRuntime

READ_SIZE = 4096
WRITE_SIZE = 2048
HOLD_S = 0.25  # a frame waits this long for room in the transmit FIFO before it is refused
PROBE_S = 0.02  # how often a pty that nobody has open is looked at


class Port:
    """One SLCAN device of a bus behind a pair of non-blocking descriptors."""

    hold = False  # let frames wait for FIFO room instead of refusing them

    def __init__(self, runtime: BusRuntime, name: str, device: SlcanDevice) -> None:
        self.runtime = runtime
        self.name = name
        self.device = device
        self.controller = device.controller
        self.plugged = True
        self.lost = 0
        self.on_closed: Callable[[], None] | None = None
        self._unsent = b""
        self._read_fd = -1
        self._write_fd = -1
        self._reading = False
        self._writing = False
        self._hold_timer: asyncio.TimerHandle | None = None
        self._sent_before = 0
        device.on_output = self._mark

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} of {self.runtime.bus.name}>"

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return self.runtime.loop

    def _mark(self) -> None:
        self.runtime.dirty.add(self)

    # -- reading -------------------------------------------------------------------------------

    def _watch_input(self, on: bool) -> None:
        if on != self._reading and self._read_fd >= 0:
            if on:
                self._loop.add_reader(self._read_fd, self._readable)
            else:
                self._loop.remove_reader(self._read_fd)
            self._reading = on

    def _readable(self) -> None:
        try:
            data = self._read()
        except BlockingIOError:
            return
        except OSError:  # EIO of a pty without opener, ECONNRESET of a socket
            data = b""
        if not data:
            self._lost_peer()
            return
        self.runtime.advance()
        self.device.accept(data, hold=self.hold)
        self._mark()
        self.runtime.service()

    def _read(self) -> bytes:
        return os.read(self._read_fd, READ_SIZE)

    def _write(self, data: bytes) -> int:
        return os.write(self._write_fd, data)

    def _lost_peer(self) -> None:
        raise NotImplementedError

    def _check_hold(self) -> None:
        device = self.device
        if device.held:
            device.accept(hold=True)
        self._watch_input(not device.held and self._listening())
        if self._hold_timer is not None and (not device.held or self.controller.sent != self._sent_before):
            self._hold_timer.cancel()
            self._hold_timer = None
        if device.held and self._hold_timer is None:
            self._sent_before = self.controller.sent
            self._hold_timer = self._loop.call_later(HOLD_S, self._hold_over)

    def _hold_over(self) -> None:
        # Nothing has left for a while (no acknowledge, say): refuse instead of blocking the host.
        self._hold_timer = None
        self.runtime.advance()
        self.device.accept(hold=False)
        self._mark()
        self.runtime.service()

    # -- writing -------------------------------------------------------------------------------

    def flush(self) -> None:
        """Hand out what the descriptor takes; the rest waits for it to become writable."""
        if self.device.held or self._hold_timer is not None:
            self._check_hold()
        if self._write_fd < 0 or not self._listening():
            self.lost += self.device.drop_output()
            self._unsent = b""
            return
        if self._writing:
            return
        while True:
            if not self._unsent:
                self._unsent = self.device.take(WRITE_SIZE)
                if not self._unsent:
                    break
            try:
                count = self._write(self._unsent)
            except BlockingIOError:
                self._loop.add_writer(self._write_fd, self._writable)
                self._writing = True
                return
            except OSError:  # the reader is gone; the read side notices and acts
                self.lost += self.device.drop_output()
                self._unsent = b""
                return
            self._unsent = self._unsent[count:]

    def _writable(self) -> None:
        self._stop_writing()
        self.flush()

    def _stop_writing(self) -> None:
        if self._writing:
            self._loop.remove_writer(self._write_fd)
            self._writing = False

    def _listening(self) -> bool:
        return True

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to serve the descriptors; needs the server's loop."""
        self._watch_input(True)

    def _detach_io(self) -> None:
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
        self._watch_input(False)
        self._stop_writing()
        self._unsent = b""

    def unplug(self) -> None:
        """Pull the plug; see the subclasses."""
        raise NotImplementedError

    def replug(self) -> None:
        """Plug in again."""
        raise NotImplementedError

    def close(self) -> None:
        """End for good; the controller leaves the bus."""
        raise NotImplementedError

    def statistics(self) -> dict[str, Any]:
        """State as a JSON-able dict."""
        return {
            "name": self.name,
            "bus": self.runtime.bus.name,
            "kind": type(self).__name__,
            "path": getattr(self, "path", None),
            "plugged": self.plugged,
            "open": self.device.is_open,
            "overruns": self.device.overruns,
            "refused": self.device.refused,
            "lost": self.lost,
        }


class PtyPort(Port):
    """A virtual USB-CAN adapter on a pseudo terminal.

    path   what to give to ``slcan``: the symbolic link if one was asked for, else the terminal.

    Programs may open and close it as they like; like a real adapter it stays as it is set, and
    while nobody has it open its output is dropped.  A host that sends faster than the bus is
    slowed down (as USB does) rather than refused, unless nothing leaves for 250 ms.

    Unplugging hangs the terminal up: the program that has it open gets an error, and the link is
    gone.  Plugged in again it is a fresh adapter, at the same link but on another terminal.
    """

    hold = True

    def __init__(self, runtime: BusRuntime, name: str, device: SlcanDevice, link: str | None = None) -> None:
        super().__init__(runtime, name, device)
        self._link = os.path.abspath(link) if link else None
        self._opened = False
        self._probe: asyncio.TimerHandle | None = None
        self.terminal = ""
        self._make()

    @property
    def path(self) -> str:
        """Where the adapter is to be found."""
        return self._link or self.terminal

    def __fspath__(self) -> str:
        return self.path

    def _make(self) -> None:
        master, slave = pty.openpty()
        tty.setraw(slave)
        self.terminal = os.ttyname(slave)
        os.close(slave)
        os.set_blocking(master, False)
        self._read_fd = self._write_fd = master
        if self._link:
            fresh = "%s.%d" % (self._link, os.getpid())
            os.symlink(self.terminal, fresh)
            os.replace(fresh, self._link)

    def start(self) -> None:
        """Begin to serve."""
        self._look()

    def _look(self) -> None:
        """Whether somebody has opened the terminal.  The kernel has no event for that."""
        self._probe = None
        poll = select.poll()
        poll.register(self._read_fd, select.POLLIN)
        events = poll.poll(0)
        if events and events[0][1] & select.POLLHUP and not events[0][1] & select.POLLIN:
            self._probe = self._loop.call_later(PROBE_S, self._look)
            return
        self._opened = True
        self._watch_input(True)

    def _lost_peer(self) -> None:
        # What it sent before it closed may still be waiting for the bus: the hold goes on.
        self._opened = False
        self._watch_input(False)
        self._stop_writing()
        self._unsent = b""
        self.lost += self.device.drop_output()
        self._flush_terminal()
        self._look()

    def _flush_terminal(self) -> None:
        """Drop what the last opener left unread, so that the next one does not get it."""
        slave = os.open(self.terminal, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            while os.read(slave, READ_SIZE):
                continue
        except BlockingIOError:
            return
        finally:
            os.close(slave)

    def _listening(self) -> bool:
        return self._opened

    def _take_away(self) -> None:
        self.plugged = False
        self._detach_io()
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
        self._opened = False
        if self._read_fd >= 0:
            os.close(self._read_fd)
            self._read_fd = self._write_fd = -1
        # Somebody else's link of that name stays.
        if self._link and os.path.islink(self._link) and os.readlink(self._link) == self.terminal:
            os.unlink(self._link)

    def unplug(self) -> None:
        """Pull the adapter out of the USB socket and off the bus."""
        if self.plugged:
            self.runtime.advance()
            self._take_away()
            self.controller.plugged = False
            self.device.power_cycle()
            self.runtime.service()

    def replug(self) -> None:
        """Plug the adapter in again, with the settings of a fresh one."""
        if not self.plugged:
            self.runtime.advance()
            self._make()
            self.plugged = True
            self.controller.plugged = True
            self.start()
            self.runtime.service()

    def close(self) -> None:
        """End for good."""
        self._take_away()
        self.device.close()
        self.controller.bus.detach(self.controller)


class FdPort(Port):
    """A node's CAN controller over a socket, or over a pair of pipe ends.

    gather_s  for so long after each read nobody looks whether there is more, and what the node is told waits to be told
              with what follows.
    lane      the bytes go over this, and the socket says only that there are some. It is ours from here on.

    The node sees SLCAN.  Unplugging cuts the wire between controller and bus: the node keeps its
    controller, its frames stay pending and it hears nothing.  When the node ends (end of file), the
    controller goes off the bus and ``on_closed`` is called.
    """

    def __init__(
        self,
        runtime: BusRuntime,
        name: str,
        device: SlcanDevice,
        fd: int,
        write_fd: int | None = None,
        gather_s: float = 0.0,
        lane: Lane | None = None,
    ) -> None:
        super().__init__(runtime, name, device)
        self._lane = lane
        self._gather_s = gather_s
        self._gathering: asyncio.TimerHandle | None = None
        self._telling: asyncio.TimerHandle | None = None
        self._read_fd = fd
        self._write_fd = fd if write_fd is None else write_fd
        for end in {self._read_fd, self._write_fd}:
            os.set_blocking(end, False)
        self.closed = False

    def _readable(self) -> None:
        super()._readable()
        if self._gather_s and not self.closed:
            # Whoever sends byte by byte would wake us for each of them, and wait for that.
            self._watch_input(False)
            self._gathering = self._loop.call_later(self._gather_s, self._gathered)

    def _read(self) -> bytes:
        data = super()._read()
        if data and self._lane is not None:
            data = self._lane.read()
            if not data:
                raise BlockingIOError  # a bell for what was fetched before
        return data

    def _write(self, data: bytes) -> int:
        if self._lane is None:
            return super()._write(data)
        count = self._lane.write(data)
        if not count:
            raise BlockingIOError
        # If the socket is full, the board has not looked yet at what came before either.
        with contextlib.suppress(BlockingIOError):
            super()._write(BELL)
        return count

    def _gathered(self) -> None:
        self._gathering = None
        self._watch_input(True)

    def flush(self) -> None:
        """As Port.flush, somewhat later if output is gathered."""
        if not self._gather_s:
            super().flush()
        elif self._telling is None and not self.closed:
            self._telling = self._loop.call_later(self._gather_s, self._tell)

    def _tell(self) -> None:
        self._telling = None
        super().flush()

    def _lost_peer(self) -> None:
        self.runtime.advance()
        self._end()
        self.runtime.service()
        if self.on_closed is not None:
            self.on_closed()

    def _end(self) -> None:
        if self.closed:
            return
        self.closed = True
        for timer in (self._gathering, self._telling):
            if timer is not None:
                timer.cancel()
        self._gathering = self._telling = None
        self._detach_io()
        if self._lane is not None:
            self._lane.close()
        for end in {self._read_fd, self._write_fd}:
            # The descriptor is the server's from add_fd on; a peer that reset it does not matter.
            with contextlib.suppress(OSError):
                os.close(end)
        self._read_fd = self._write_fd = -1
        self.device.close()

    def unplug(self) -> None:
        """Cut the node's bus wire."""
        if self.plugged:
            self.runtime.advance()
            self.plugged = False
            self.controller.plugged = False
            self.runtime.service()

    def replug(self) -> None:
        """Connect the wire again."""
        if not self.plugged:
            self.runtime.advance()
            self.plugged = True
            self.controller.plugged = True
            self.runtime.service()

    def _check_hold(self) -> None:
        return  # frames of a node are refused at once; it counts what is pending

    def close(self) -> None:
        """End for good."""
        self._end()
        self.controller.bus.detach(self.controller)


Confirm = Literal["accepted", "transmitted"]
