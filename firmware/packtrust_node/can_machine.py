"""`machine.CAN` (MicroPython 1.28 and newer, STM32 with bxCAN or FDCAN), as docs.micropython.org has it.

bxCAN holds three frames a FIFO, less than a millisecond of a busy bus, so frames are taken out by a hard interrupt
handler into `depth` slots; it allocates nothing. Classic frames only: the module has no CAN FD (`can_pyb` has).

The controller's queue is ordered by ID. The module counts 11-bit and 29-bit IDs of the same number as one.
"""

from machine import CAN, disable_irq, enable_irq

from packtrust._compat import const
from packtrust_node.can_base import ACTIVE, BUS_OFF, PASSIVE, WARNING, CanPort, joined

_ASK_MS = const(1)
_LOOK_MS = const(20)
# An FDCAN controller may be sent CAN FD frames: `recv` copies them whole, whatever the buffer holds.
_DATA_MAX = const(64)


class MachineCan(CanPort):
    """One controller.

    number        as `machine.CAN` counts them, from 1.
    bitrate       bit/s.
    sample_point  percent.
    depth         received frames kept in RAM: a node has other things to do for as long as 20 ms.
    """

    orders_by_id = True

    def __init__(self, number: int, bitrate: int = 500000, sample_point: int = 75, depth: int = 64) -> None:
        CanPort.__init__(self)
        # Lists as `recv` fills them: ID, data, flags, errors.
        self._slots = [[0, memoryview(bytearray(_DATA_MAX)), 0, 0] for _ in range(depth + 1)]  # type: list[list]
        self._last = depth
        self._head = 0  # next slot to fill
        self._tail = 0  # next slot to give out; the frame given out last lies before it
        self._figures = [0, 0, 0, 0, 0, 0, 0, 0]  # type: list[int | None]
        self._overruns = 0
        self._looked_ms = None  # type: int | None
        self._states = {
            CAN.STATE_ACTIVE: ACTIVE,
            CAN.STATE_WARNING: WARNING,
            CAN.STATE_PASSIVE: PASSIVE,
            CAN.STATE_BUS_OFF: BUS_OFF,
        }
        self._extended = CAN.FLAG_EXT_ID
        self._remote = CAN.FLAG_RTR
        self._can = CAN(number, bitrate, sample_point=sample_point)
        self._receive = self._can.recv
        self._apply_filters()
        self._can.irq(self._on_receive, CAN.IRQ_RX, True)
        self.state = ACTIVE
        self.counters["opened"] += 1

    def _apply_filters(self) -> None:
        pairs = self._accept.pairs
        self._is_exact = True
        if not pairs:
            self._can.set_filters(None)
            return
        while True:
            try:
                self._can.set_filters([(code, mask, self._extended) for code, mask in pairs])
                return
            except ValueError:
                if len(pairs) == 1:
                    raise
                pairs = joined(pairs)  # more than the controller has
                self._is_exact = False

    def recover(self) -> None:
        """Restart the controller; what it held for sending is dropped."""
        self._overruns = 0  # as `restart` sets the counts of the module back
        self._can.restart()

    def poll(self, now_ms: int) -> int:
        """Look at the controller's errors now and then; milliseconds until frames should be asked for."""
        if self._looked_ms is None or now_ms - self._looked_ms >= _LOOK_MS:
            self._looked_ms = now_ms
            self._enter(self._states.get(self._can.state(), BUS_OFF))
            figures = self._can.get_counters(self._figures)
            # None: not counted by this controller.
            self.counters["tec"] = figures[0] or 0
            self.counters["rec"] = figures[1] or 0
            overruns = figures[7] or 0
            self.counters["lost"] += overruns - self._overruns
            self._overruns = overruns
        if self.state == BUS_OFF:
            self._wait_in_bus_off(now_ms)
        return _ASK_MS if self._tail == self._head else 0

    def pending(self) -> int:
        """Frames in the controller, not yet on the wire."""
        return self._can.get_counters(self._figures)[5] or 0

    def send(self, frame) -> bool:
        """Give a frame to the controller; False: no room now, one of the same ID is in it, or bus-off."""
        if self.state == BUS_OFF:
            return False
        data = frame.data
        flags = self._extended if frame.is_extended_id else 0
        if frame.is_remote_frame:
            flags |= self._remote
            data = bytes(frame.dlc)
        if frame.is_fd or len(data) > 8:
            self.counters["refused"] += 1
            return True  # it could wait for ever
        try:
            if self._can.send(frame.arbitration_id, data, flags) is None:
                return False
        except OSError:
            self._looked_ms = None  # bus-off since we looked
            return False
        self.counters["sent"] += 1
        return True

    def _on_receive(self, _can) -> None:
        """Interrupt handler. It may not allocate."""
        slots = self._slots
        while True:
            head = self._head
            following = head + 1 if head < self._last else 0
            if following == self._tail:
                return  # full: the slot before the tail is the frame the node has in hand
            if self._receive(slots[head]) is None:
                return
            self._head = following

    def _is_empty(self, tail: int) -> bool:
        """Whether there is no frame, after a look into the controller.

        The handler left frames in there if it found no slot; it must not come in between now.
        """
        saved = disable_irq()
        self._on_receive(self._can)
        enable_irq(saved)
        return tail == self._head

    def recv(self):
        """The next frame received, or None."""
        while True:
            tail = self._tail
            if tail == self._head and self._is_empty(tail):
                return None
            slot = self._slots[tail]
            self._tail = tail + 1 if tail < self._last else 0
            # Not by `_let_in` and `_complete` if that can be: here an STM32 is flooded.
            if self._is_exact:
                self.counters["received"] += 1
                frame = self._frame
                frame.arbitration_id = slot[0]
                frame.is_extended_id = slot[2] & self._extended != 0
            else:
                frame = self._let_in(slot[0], slot[2] & self._extended != 0)
            if frame is not None:
                size = len(slot[1])
                remote = slot[2] & self._remote != 0
                frame.data = b"" if remote else slot[1]
                frame.dlc = size
                frame.is_remote_frame = remote
                # The module does not tell CAN FD frames apart; only they are longer than 8 bytes.
                frame.is_fd = frame.bitrate_switch = size > 8
                return frame
