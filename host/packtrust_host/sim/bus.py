"""A CAN bus as a discrete-event machine: no clock, no I/O, whole nanoseconds.

What an engineer knows of CAN holds (ISO 11898-1:2015): arbitration by identifier, frame times from
the real stuff bits, error frames and retransmission, error counters and confinement, acknowledge,
collisions of equal identifiers.  The same bus serves a virtual clock (:meth:`Bus.run_until`) and
the real-time server.

CAN FD frames go over a bus that has a data bit rate, between controllers that have CAN FD.  What the
others do with such a frame is their ``fd_support`` (the three kinds of ISO 11898-1:2015, clause 1):

enabled   sends, receives and acknowledges it.
tolerant  waits until it is over (protocol exception, 10.9.5); nothing is counted.
classic   takes it for a classic frame, finds it broken and destroys it by an error flag, again and
          again, until repeating it has made the sender (TEC) and itself (REC) error passive.  From
          then on it can disturb no more, and never receives.  So one classic controller stops a bus
          of CAN FD, as in reality.

A frame reaches its receivers, and is confirmed to its sender, at the end of its end-of-frame field;
the bus is free three bits (intermission) later.

Simplifications, all on purpose: a bit reaches everybody at once; an error flag is seen by all, and
its superposition (6 to 12 bits) follows from the dominant run it starts in; overload frames do not
occur; a classic controller notices an FD frame ten nominal bit times after its BRS bit (in reality it
depends on the bits that follow).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

from packtrust.frame import Frame

from . import can_bits
from .can_bits import (
    ERROR_DELIMITER_BITS,
    ERROR_FLAG_BITS,
    INTERMISSION_BITS,
    SUSPEND_BITS,
    TAIL_BITS,
    WireFrame,
)
from .faults import FaultSet

ERROR_ACTIVE = "error_active"
ERROR_PASSIVE = "error_passive"
BUS_OFF = "bus_off"

FdSupport = Literal["enabled", "tolerant", "classic"]
FD_ENABLED: FdSupport = "enabled"
FD_TOLERANT: FdSupport = "tolerant"
CLASSIC: FdSupport = "classic"

RECOVERY_RUNS = 128  # occurrences of 11 recessive bits after which a bus-off node may return
RECOVERY_RUN_BITS = 11
LOAD_WINDOW_NS = 1_000_000_000
RATE_TOLERANCE = 0.005  # relative; what resynchronisation bears

# Bits up to and with BRS, stuff bits apart, and when after that a classic controller raises its flag.
_FD_HEAD_BITS = 17
_FD_HEAD_BITS_EXTENDED = 36
_CLASSIC_NOTICES_BITS = 10

_NEVER = 1 << 62

Filter = tuple[int, int, bool]
ReceiveCallback = Callable[[Frame, int], None]
StateCallback = Callable[[str, int], None]
FrameListener = Callable[[Frame, str, int, int], None]
ErrorListener = Callable[[str, tuple[str, ...], int], None]


class _Pending:
    """One frame in a transmit queue."""

    __slots__ = ("attempts", "cancelled", "frame", "submit_ns", "wire")

    def __init__(self, frame: Frame, wire: WireFrame, submit_ns: int) -> None:
        self.frame = frame
        self.wire = wire
        self.submit_ns = submit_ns
        self.attempts = 0
        self.cancelled = False


class Controller:
    """One CAN controller on a bus; made by :meth:`Bus.attach`.

    Callbacks, any of them None: ``on_receive(frame, time_ns)``, ``on_transmitted(frame, time_ns)``
    and ``on_state(state, time_ns)``.  They run inside :meth:`Bus.run_until`, where ``bus.now_ns``
    is the time of the event; they may send.  A frame handed out is shared by all receivers: do not
    change it.

    ``fd_support`` is "enabled", "tolerant" or "classic", see the module.

    ``filters`` is a list of (code, mask, extended): a frame passes if one of them is of its kind
    and agrees where mask bits are 1.  None or an empty list passes everything.
    """

    def __init__(
        self,
        bus: Bus,
        name: str,
        index: int,
        tx_fifo: int,
        order: Literal["fifo", "id"],
        listen_only: bool,
        fd_support: FdSupport,
    ) -> None:
        self.bus = bus
        self.name = name
        self.index = index
        self.tx_fifo = tx_fifo
        self.order = order
        self.listen_only = listen_only
        self.fd_support: FdSupport = fd_support
        self.right_rate = True
        self.on_bus = True
        self.filters: Sequence[Filter] | None = None
        self.on_receive: ReceiveCallback | None = None
        self.on_transmitted: ReceiveCallback | None = None
        self.on_state: StateCallback | None = None
        self.tec = 0
        self.rec = 0
        self.state = ERROR_ACTIVE
        self.sent = 0
        self.received = 0
        self.refused = 0
        self.aborted = 0
        self.errors = 0
        self.retransmissions = 0
        self.arbitration_lost = 0
        self.bus_offs = 0
        self._queue: list[_Pending] = []
        self._online = True
        self._plugged = True
        self._bitrate = bus.bitrate
        self._joined_ns = bus.now_ns
        self._suspend_ns = 0
        self._recover_left = 0
        self._recover_from = 0

    def __repr__(self) -> str:
        return "<Controller %s on %s, %s, TEC %d, REC %d>" % (
            self.name, self.bus.name, self.state, self.tec, self.rec,
        )  # fmt: skip

    # -- sending -------------------------------------------------------------------------------

    def send(self, frame: Any) -> bool:
        """Queue a frame (:class:`Frame` or ``can.Message``) at the bus's present time.

        False if the transmit FIFO is full, the controller is offline or listens only; ValueError
        if no such frame can go over this bus.
        """
        if not isinstance(frame, Frame) or type(frame.data) is not bytes:
            # Taken over, so that the caller may use his buffer again.
            frame = Frame(
                frame.arbitration_id,
                bytes(frame.data),
                bool(frame.is_extended_id),
                bool(frame.is_fd),
                bool(getattr(frame, "is_remote_frame", False)),
                bool(getattr(frame, "bitrate_switch", False)),
                getattr(frame, "dlc", None),
            )
        if frame.is_fd and self.bus.data_bitrate is None:
            raise ValueError(f"bus {self.bus.name} is classic CAN: give it a data bit rate")
        if frame.is_fd and self.fd_support != FD_ENABLED:
            raise ValueError(f"controller {self.name} has no CAN FD: attach it with fd_support='enabled'")
        wire = can_bits.encode(frame)
        if len(self._queue) >= self.tx_fifo or self.listen_only or not self._online:
            self.refused += 1
            return False
        self._queue.append(_Pending(frame, wire, self.bus.now_ns))
        self.bus._waiting[self.index] = self
        return True

    @property
    def pending(self) -> int:
        """Frames queued, the one on the wire included."""
        return len(self._queue)

    @property
    def free(self) -> int:
        """Room in the transmit FIFO, in frames."""
        return self.tx_fifo - len(self._queue)

    def abort(self) -> list[Frame]:
        """Drop what is queued; the frames dropped, oldest first.

        A frame on the wire goes on to its end, but is not repeated if it fails.
        """
        on_wire = self.bus._on_wire(self)
        dropped = [item.frame for item in self._queue if item is not on_wire]
        self._queue = []
        if on_wire is not None:
            on_wire.cancelled = True
            self._queue.append(on_wire)
        else:
            self.bus._waiting.pop(self.index, None)
        self.aborted += len(dropped)
        return dropped

    # -- being part of the bus -----------------------------------------------------------------

    @property
    def online(self) -> bool:
        """Channel open.  A closed one neither sends, receives nor acknowledges."""
        return self._online

    @online.setter
    def online(self, value: bool) -> None:
        self._online = value
        self._update()

    @property
    def plugged(self) -> bool:
        """Connected to the wire.  Unplugged, frames stay queued and count no errors."""
        return self._plugged

    @plugged.setter
    def plugged(self, value: bool) -> None:
        self._plugged = value
        self._update()

    def _update(self) -> None:
        """``on_bus``: takes part in the bus: open, plugged in and not bus-off."""
        on_bus = self._online and self._plugged and self.state != BUS_OFF
        if on_bus and not self.on_bus:
            # Whoever comes in while a frame runs has missed its start.
            self._joined_ns = max(self.bus.now_ns, self.bus._busy_until())
        self.on_bus = on_bus

    @property
    def bitrate(self) -> int:
        """The controller's own nominal bit rate, bit/s; the bus's unless set."""
        return self._bitrate

    @bitrate.setter
    def bitrate(self, value: int) -> None:
        self._bitrate = value
        self.right_rate = abs(value - self.bus.bitrate) <= RATE_TOLERANCE * self.bus.bitrate
        self.bus._odd_rates = any(not node.right_rate for node in self.bus.controllers)

    def recover(self) -> None:
        """Ask to leave bus-off: error active after 128 runs of 11 recessive bits.

        No effect in any other state.  What was queued is sent then; :meth:`abort` first to drop it.
        """
        if self.state == BUS_OFF and self._recover_left == 0:
            self._recover_left = RECOVERY_RUNS
            self._recover_from = max(self.bus.now_ns, self.bus._idle_ns)
            self.bus._recovering.append(self)

    @property
    def recovering(self) -> bool:
        """Bus-off and counting recessive bits."""
        return self._recover_left > 0

    def accepts(self, frame: Frame) -> bool:
        """Whether the acceptance filters pass a frame."""
        if not self.filters:
            return True
        ident = frame.arbitration_id
        extended = frame.is_extended_id
        return any(kind == extended and (ident ^ code) & mask == 0 for code, mask, kind in self.filters)

    def counters(self) -> dict[str, Any]:
        """State and counters as a JSON-able dict."""
        return {
            "state": self.state,
            "fd_support": self.fd_support,
            "online": self._online,
            "plugged": self._plugged,
            "tec": self.tec,
            "rec": self.rec,
            "sent": self.sent,
            "received": self.received,
            "pending": len(self._queue),
            "refused": self.refused,
            "aborted": self.aborted,
            "errors": self.errors,
            "retransmissions": self.retransmissions,
            "arbitration_lost": self.arbitration_lost,
            "bus_offs": self.bus_offs,
        }

    # -- error confinement (ISO 11898-1:2015, 12.1.4) --------------------------------------------

    def _head(self) -> _Pending:
        if self.order == "fifo":
            return self._queue[0]
        return min(self._queue, key=lambda item: item.wire.priority)

    def _count(self, tec: int = 0, rec: int = 0) -> None:
        self.tec = max(0, self.tec + tec)
        self.rec = min(255, max(0, self.rec + rec))
        if self.state == BUS_OFF:
            return
        if self.tec > 255:
            state = BUS_OFF
        elif self.tec > 127 or self.rec > 127:
            state = ERROR_PASSIVE
        else:
            state = ERROR_ACTIVE
        if state != self.state:
            self._enter(state)

    def _enter(self, state: str) -> None:
        self.state = state
        if state == BUS_OFF:
            self.bus_offs += 1
        self._update()
        if self.on_state is not None:
            self.on_state(state, self.bus.now_ns)

    def _count_good_reception(self) -> None:
        # Above 127 the counter returns to a value between 119 and 127; the lower end is taken.
        self._count(rec=119 - self.rec if self.rec > 127 else -1)


class _Transfer:
    """What is on the wire now, decided when it starts, applied when it ends."""

    __slots__ = ("dropped", "end_ns", "error", "idle_ns", "receiver_error", "senders", "start_ns")

    def __init__(self, start_ns: int, end_ns: int, idle_ns: int) -> None:
        self.start_ns = start_ns
        self.end_ns = end_ns
        self.idle_ns = idle_ns
        self.senders: list[tuple[Controller, _Pending]] = []
        # Error-passive senders that lost a collision bit and let the others go on.
        self.dropped: list[tuple[Controller, _Pending]] = []
        self.error: str | None = None
        self.receiver_error = False


class Bus:
    """One CAN bus.

    bitrate        nominal bit rate in bit/s.
    data_bitrate   CAN FD data phase in bit/s; None makes it a classic bus, which refuses FD frames.
    seed           of every random choice of the faults; equal seeds give equal runs.

    ``listeners`` are called ``(frame, sender_name, start_ns, end_ns)`` for each good frame,
    ``error_listeners`` ``(reason, sender_names, time_ns)`` for each error frame, reason one of
    "disturbed", "collision", "no acknowledge", "wrong bit rate", "classic controller", "sender lost".
    """

    def __init__(
        self,
        bitrate: int = 500_000,
        data_bitrate: int | None = None,
        seed: int | str = 0,
        name: str = "can",
    ) -> None:
        if bitrate <= 0 or (data_bitrate is not None and data_bitrate <= 0):
            raise ValueError("bit rates are positive")
        self.name = name
        self.bitrate = bitrate
        self.data_bitrate = data_bitrate
        self.controllers: list[Controller] = []
        self.faults = FaultSet(seed)
        self.listeners: list[FrameListener] = []
        self.error_listeners: list[ErrorListener] = []
        self.now_ns = 0
        self.frames = 0
        self.error_frames = 0
        self.retransmissions = 0
        self.busy_ns = 0
        self._idle_ns = 0
        self._current: _Transfer | None = None
        self._waiting: dict[int, Controller] = {}
        self._recovering: list[Controller] = []
        self._deliveries: list[tuple[int, int, Controller, Frame]] = []
        self._order = 0
        self._next_index = 0
        self._odd_rates = False
        self._recent: deque[tuple[int, int]] = deque()
        self._recent_busy = 0

    def attach(
        self,
        name: str,
        *,
        tx_fifo: int = 16,
        order: Literal["fifo", "id"] = "fifo",
        listen_only: bool = False,
        fd_support: FdSupport | None = None,
    ) -> Controller:
        """Put a controller on the bus.

        order       "fifo": frames leave in the order of :meth:`Controller.send`; "id": the pending
                    frame of highest priority first, as mailbox controllers do.
        fd_support  "enabled", "tolerant" or "classic"; None: enabled on a bus with a data bit rate.
        """
        if any(other.name == name for other in self.controllers):
            raise ValueError(f"bus {self.name} already has a node named {name}")
        if order not in ("fifo", "id"):
            raise ValueError(f"order is 'fifo' or 'id', not {order!r}")
        if fd_support is None:
            fd_support = CLASSIC if self.data_bitrate is None else FD_ENABLED
        elif fd_support not in (FD_ENABLED, FD_TOLERANT, CLASSIC):
            raise ValueError(f"fd_support is 'enabled', 'tolerant' or 'classic', not {fd_support!r}")
        controller = Controller(self, name, self._next_index, tx_fifo, order, listen_only, fd_support)
        self._next_index += 1
        self.controllers.append(controller)
        return controller

    def detach(self, controller: Controller) -> None:
        """Take a controller off for good; a frame of its own on the wire is cut and destroyed."""
        controller.plugged = False
        controller.abort()
        self._waiting.pop(controller.index, None)
        if controller in self._recovering:
            self._recovering.remove(controller)
        self.controllers.remove(controller)
        self._odd_rates = any(not node.right_rate for node in self.controllers)

    # -- time ----------------------------------------------------------------------------------

    def bits_ns(self, bits: int) -> int:
        """Duration of nominal bit times, in nanoseconds."""
        return bits * 1_000_000_000 // self.bitrate

    def next_event_ns(self) -> int | None:
        """When something will happen next if nobody sends; None: never.

        ``while (t := bus.next_event_ns()) is not None: bus.run_until(t)`` empties the bus.
        """
        time = self._next_ns()
        # A start at S happens once time is past S, so that all who send at S itself take part.
        return None if time >= _NEVER else max(time, self.now_ns)

    @property
    def is_in_vain(self) -> bool:
        """Whether nothing can come of the next event: a frame that nobody is there to acknowledge goes out again."""
        return not self._deliveries and not self._recovering and sum(node.on_bus for node in self.controllers) < 2

    def _next_ns(self) -> int:
        time = _NEVER
        if self._current is not None:
            time = self._current.end_ns
        else:
            start = self._start_ns()
            if start < _NEVER:
                time = start + 1
            for controller in self._recovering:
                time = min(time, self._recovered_ns(controller))
        if self._deliveries:
            time = min(time, self._deliveries[0][0])
        return time

    def run_until(self, time_ns: int) -> None:
        """Let everything happen that is due until ``time_ns``, callbacks included."""
        while True:
            due = self._next_ns()
            if due > time_ns:
                break
            if self._deliveries and self._deliveries[0][0] <= due:
                due, _, controller, frame = heapq.heappop(self._deliveries)
                self.now_ns = max(self.now_ns, due)
                self._hand_over(controller, frame)
            elif self._current is not None:
                self.now_ns = max(self.now_ns, due)
                self._finish(self._current)
            elif any(self._recovered_ns(item) <= due for item in self._recovering):
                self.now_ns = max(self.now_ns, due)
                for controller in list(self._recovering):
                    if self._recovered_ns(controller) <= due:
                        self._recovered(controller)
            else:
                self._start(due - 1)
        self.now_ns = max(self.now_ns, time_ns)

    # -- one transfer --------------------------------------------------------------------------

    def _start_ns(self) -> int:
        earliest = _NEVER
        for controller in self._waiting.values():
            if controller.on_bus:
                ready = max(controller._queue[0].submit_ns, controller._suspend_ns, controller._joined_ns)
                if ready < earliest:
                    earliest = ready
        return earliest if earliest >= _NEVER else max(earliest, self._idle_ns)

    def _busy_until(self) -> int:
        return self._current.idle_ns if self._current is not None else self._idle_ns

    def _on_wire(self, controller: Controller) -> _Pending | None:
        if self._current is not None:
            for sender, item in self._current.senders + self._current.dropped:
                if sender is controller:
                    return item
        return None

    def _start(self, start: int) -> None:
        for controller in self._recovering:
            runs = (start - controller._recover_from) // self.bits_ns(RECOVERY_RUN_BITS)
            controller._recover_left -= max(0, runs)
        contenders = []
        best = _NEVER
        for controller in sorted(self._waiting.values(), key=lambda item: item.index):
            if not controller.on_bus:
                continue
            item = controller._head()
            ready = max(item.submit_ns, controller._suspend_ns, controller._joined_ns)
            if ready <= start:
                contenders.append((controller, item))
                best = min(best, item.wire.priority)
        senders = []
        for controller, item in contenders:
            if item.wire.priority != best:
                controller.arbitration_lost += 1
                continue
            senders.append((controller, item))
            if item.attempts:
                controller.retransmissions += 1
                self.retransmissions += 1
            item.attempts += 1
        transfer = _Transfer(start, 0, 0)
        transfer.senders = senders
        error_bit = self._collide(transfer) if len(senders) > 1 else None
        wire = transfer.senders[0][1].wire
        flag_bits = 0
        if error_bit is not None:
            transfer.error = "collision"
            transfer.receiver_error = True
        elif self._odd_rates and self._wrong_rate(transfer):
            # A node at another rate sees, or makes, a violation of the stuff rule early on.
            transfer.error = "wrong bit rate"
            transfer.receiver_error = True
            error_bit = min(13, wire.length - 1)
        elif transfer.senders[0][1].frame.is_fd and self._classic_objects(transfer):
            transfer.error = "classic controller"
            transfer.receiver_error = True
            error_bit = self._classic_notices(transfer.senders[0][1])
        else:
            frame = transfer.senders[0][1].frame
            hit = self.faults.disturb(frame, transfer.senders[0][0].name, start, wire.length)
            if hit is not None:
                transfer.error = "disturbed"
                transfer.receiver_error = True
                error_bit = hit
            elif not self._acknowledged(transfer):
                transfer.error = "no acknowledge"
                # The flag follows the ACK slot; nobody else is there to prolong it.
                error_bit = wire.length + 1
                flag_bits = ERROR_FLAG_BITS
        if error_bit is None:
            end_bits = wire.nominal_bits - INTERMISSION_BITS
            extra = wire.data_bits * 1_000_000_000 // (self.data_bitrate or self.bitrate)
            transfer.end_ns = start + self.bits_ns(end_bits) + extra
            transfer.idle_ns = start + self.bits_ns(wire.nominal_bits) + extra
        else:
            if not flag_bits:
                flag_bits = 2 * ERROR_FLAG_BITS - _dominant_run(wire, error_bit)
            # Dominant from error_bit on: that bit itself, then the (superposed) flags.
            # What of a CAN FD data phase was over by then went at its own rate.
            fast = min(wire.data_bits, max(0, error_bit + wire.data_bits - wire.length))
            extra = fast * 1_000_000_000 // (self.data_bitrate or self.bitrate)
            bits = error_bit + 1 - fast + flag_bits + ERROR_DELIMITER_BITS
            transfer.end_ns = start + self.bits_ns(bits) + extra
            transfer.idle_ns = start + self.bits_ns(bits + INTERMISSION_BITS) + extra
        self._current = transfer

    def _collide(self, transfer: _Transfer) -> int | None:
        """Senders with equal arbitration fields: the bit where an error frame starts, if any.

        At the first differing bit those who send recessive see dominant.  An error-active one
        answers with an active error flag, and all is lost.  Error-passive ones can only fall
        silent, so the others go on as if alone.
        """
        while len(transfer.senders) > 1:
            width = max(item.wire.length for _, item in transfer.senders) + TAIL_BITS
            # Behind its CRC a transmitter sends nothing but recessive bits.
            streams = [(item.wire.bits + 1 << (width - item.wire.length)) - 1 for _, item in transfer.senders]
            differing = 0
            for stream in streams[1:]:
                differing |= stream ^ streams[0]
            if not differing:
                return None  # identical frames merge: legal, and nobody notices
            mask = 1 << (differing.bit_length() - 1)
            recessive = [pair for pair, stream in zip(transfer.senders, streams, strict=True) if stream & mask]
            if any(controller.state == ERROR_ACTIVE for controller, _ in recessive):
                return width - differing.bit_length()
            transfer.dropped += recessive
            transfer.senders = [pair for pair in transfer.senders if pair not in recessive]
        return None

    def _wrong_rate(self, transfer: _Transfer) -> bool:
        if not all(controller.right_rate for controller, _ in transfer.senders):
            return True
        return any(
            not node.right_rate and node.on_bus and node.state == ERROR_ACTIVE and not node.listen_only
            for node in self.controllers
        )

    def _classic_objects(self, transfer: _Transfer) -> bool:
        """Whether somebody who knows no CAN FD, and may still send an active error flag, listens."""
        senders = [controller for controller, _ in transfer.senders]
        return any(
            node.fd_support == CLASSIC
            and node.on_bus
            and node.state == ERROR_ACTIVE
            and not node.listen_only
            and node._joined_ns <= transfer.start_ns
            and node not in senders
            for node in self.controllers
        )

    def _classic_notices(self, item: _Pending) -> int:
        bits = _CLASSIC_NOTICES_BITS
        if item.wire.data_bits:
            bits = bits * (self.data_bitrate or self.bitrate) // self.bitrate
        head = _FD_HEAD_BITS_EXTENDED if item.frame.is_extended_id else _FD_HEAD_BITS
        return min(head + bits, item.wire.length - 1)

    def _acknowledged(self, transfer: _Transfer) -> bool:
        # A sender that fell silent after a bit error does not acknowledge the one that went on.
        senders = [controller for controller, _ in transfer.senders + transfer.dropped]
        is_fd = transfer.senders[0][1].frame.is_fd
        return any(
            node.on_bus
            and not node.listen_only
            and node.right_rate
            and (not is_fd or node.fd_support == FD_ENABLED)
            and node not in senders
            for node in self.controllers
        )

    def _finish(self, transfer: _Transfer) -> None:
        self._current = None
        self._idle_ns = transfer.idle_ns
        self._account(transfer)
        for controller in list(self._recovering):
            # Delimiter, end of frame and intermission make one run of 11 recessive bits.
            controller._recover_left -= 1
            controller._recover_from = transfer.idle_ns
            if controller._recover_left <= 0:
                self._recovered(controller)
        if transfer.error is None and not all(
            node.on_bus and node._joined_ns <= transfer.start_ns for node, _ in transfer.senders
        ):
            transfer.error = "sender lost"
            transfer.receiver_error = True
        if transfer.error is not None:
            self._failed(transfer)
        else:
            self._succeeded(transfer)

    def _failed(self, transfer: _Transfer) -> None:
        self.error_frames += 1
        senders = [controller for controller, _ in transfer.senders + transfer.dropped]
        for listener in self.error_listeners:
            listener(transfer.error or "", tuple(c.name for c in senders), self.now_ns)
        for controller, item in transfer.senders + transfer.dropped:
            if item.cancelled and item in controller._queue:
                controller._queue.remove(item)
                controller.aborted += 1
                if not controller._queue:
                    self._waiting.pop(controller.index, None)
            if not controller.on_bus:
                continue
            controller.errors += 1
            was_passive = controller.state == ERROR_PASSIVE
            silent = transfer.error == "no acknowledge" and (controller, item) in transfer.senders
            # ISO 11898-1, 12.1.4.2 c), exception 1: an error-passive transmitter without
            # acknowledge whose passive flag meets no dominant bit does not count.
            if not (silent and was_passive):
                controller._count(tec=8)
            if was_passive or controller.state == ERROR_PASSIVE:
                self._suspend(controller, transfer)
        if transfer.receiver_error:
            for node in list(self.controllers):
                if node in senders or not node.on_bus or node._joined_ns > transfer.start_ns:
                    continue
                if node.fd_support == FD_TOLERANT and transfer.senders[0][1].frame.is_fd:
                    continue
                if not node.listen_only:
                    node.errors += 1
                    # A receiver that is first to flag an error sees dominant after its flag.
                    first = not node.right_rate or (
                        transfer.error == "classic controller"
                        and node.fd_support == CLASSIC
                        and node.state == ERROR_ACTIVE
                    )
                    node._count(rec=8 if first else 1)

    def _suspend(self, controller: Controller, transfer: _Transfer) -> None:
        controller._suspend_ns = transfer.idle_ns + self.bits_ns(SUSPEND_BITS)

    def _succeeded(self, transfer: _Transfer) -> None:
        now = self.now_ns
        first, item = transfer.senders[0]
        frame = item.frame
        self.frames += 1
        senders = []
        for controller, _ in transfer.dropped:
            senders.append(controller)
            controller.errors += 1
            controller._count(tec=8)
            self._suspend(controller, transfer)
        for controller, sent in transfer.senders:
            senders.append(controller)
            controller._queue.remove(sent)
            if not controller._queue:
                self._waiting.pop(controller.index, None)
            controller.sent += 1
            if controller.state == ERROR_PASSIVE:
                self._suspend(controller, transfer)
            if controller.tec:
                controller._count(tec=-1)
        for listener in self.listeners:
            listener(frame, first.name, transfer.start_ns, now)
        for node in list(self.controllers):
            if node in senders or not node.on_bus or node._joined_ns > transfer.start_ns:
                continue
            if self._odd_rates and not node.right_rate:
                continue
            if frame.is_fd and node.fd_support != FD_ENABLED:
                if node.fd_support == CLASSIC and not node.listen_only:
                    # Error passive by now: its passive error flag is overwritten by the frame's own bits.
                    node.errors += 1
                    node._count(rec=1)
                continue
            if node.rec and not node.listen_only:
                node._count_good_reception()
            self._deliver(node, frame, first.name, now)
        for controller, sent in transfer.senders:
            if controller.on_transmitted is not None:
                controller.on_transmitted(sent.frame, now)

    def _deliver(self, node: Controller, frame: Frame, sender: str, now: int) -> None:
        if not self.faults.active:
            self._hand_over(node, frame)
            return
        for seen, delay in self.faults.receive(frame, sender, node.name, now):
            if delay:
                self._order += 1
                heapq.heappush(self._deliveries, (now + delay, self._order, node, seen))
            else:
                self._hand_over(node, seen)

    def _hand_over(self, node: Controller, frame: Frame) -> None:
        if not node.on_bus or not node.accepts(frame):
            return
        node.received += 1
        if node.on_receive is not None:
            node.on_receive(frame, self.now_ns)

    # -- recovery ------------------------------------------------------------------------------

    def _recovered_ns(self, controller: Controller) -> int:
        return controller._recover_from + self.bits_ns(controller._recover_left * RECOVERY_RUN_BITS)

    def _recovered(self, controller: Controller) -> None:
        self._recovering.remove(controller)
        controller._recover_left = 0
        controller.tec = controller.rec = 0
        controller._joined_ns = max(self.now_ns, self._idle_ns)
        controller._enter(ERROR_ACTIVE)

    # -- accounting ----------------------------------------------------------------------------

    def _account(self, transfer: _Transfer) -> None:
        busy = transfer.idle_ns - transfer.start_ns
        self.busy_ns += busy
        self._recent.append((transfer.idle_ns, busy))
        self._recent_busy += busy
        self._forget(transfer.idle_ns)

    def _forget(self, now: int) -> None:
        oldest = now - LOAD_WINDOW_NS
        while self._recent and self._recent[0][0] <= oldest:
            self._recent_busy -= self._recent.popleft()[1]

    @property
    def load(self) -> float:
        """Share of the last second (bus time) the bus was busy, 0..1."""
        self._forget(self.now_ns)
        window = min(LOAD_WINDOW_NS, max(self.now_ns, self._idle_ns))
        return min(1.0, self._recent_busy / window) if window else 0.0

    def statistics(self) -> dict[str, Any]:
        """Counters of bus and controllers as a JSON-able dict; times in ns of bus time."""
        return {
            "name": self.name,
            "bitrate": self.bitrate,
            "data_bitrate": self.data_bitrate,
            "now_ns": self.now_ns,
            "busy_ns": self.busy_ns,
            "load": self.load,
            "load_mean": self.busy_ns / self.now_ns if self.now_ns else 0.0,
            "frames": self.frames,
            "error_frames": self.error_frames,
            "retransmissions": self.retransmissions,
            "controllers": {node.name: node.counters() for node in self.controllers},
            "faults": self.faults.describe(),
        }


def _dominant_run(wire: WireFrame, bit: int) -> int:
    """How many dominant bits the wire shows up to ``bit`` if that one is made dominant, 1..5."""
    run = 1
    while run < 5 and bit - run >= 0 and not wire.bits >> (wire.length - 1 - bit + run) & 1:
        run += 1
    return run
