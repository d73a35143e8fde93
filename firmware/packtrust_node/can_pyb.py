"""`pyb.CAN` (MicroPython on STM32), both kinds of controller: bxCAN (F4, F7, L4) and FDCAN (G4, H7), as
docs.micropython.org has it.

Frames are taken out of the controller's FIFOs by `rxcallback`, which is a hard interrupt handler, into `depth` slots;
it allocates nothing.

bxCAN sends the lowest ID first, FDCAN in the order given. With FDCAN the module does not tell how many frames wait, nor
a received CAN FD frame of at most 8 bytes from a classic one.

CAN FD: the data phase has its own bit rate (`data_bitrate`) on the H7. On the G4 the firmware sets the data bit timing
to one quantum each whatever it is asked for (`can_init` in ports/stm32/fdcan.c): there `switch=False` keeps the
nominal bit rate.
"""

from machine import disable_irq, enable_irq
from pyb import CAN

from packtrust._compat import const
from packtrust.segmentation import FD_LENGTHS
from packtrust_node.can_base import ACTIVE, BUS_OFF, PASSIVE, WARNING, CanPort, fitted

_ASK_MS = const(1)
_LOOK_MS = const(20)
_BANKS = const(14)  # bxCAN: banks of each controller
_EXTENDED_FILTERS = const(8)  # FDCAN of the G4; the H7 has more
_MAILBOXES = const(3)


class PybCan(CanPort):
    """One controller.

    number        as `pyb.CAN` counts them, from 1.
    bitrate       bit/s, nominal.
    data_bitrate  bit/s of the data phase; 0: no CAN FD. ValueError on bxCAN.
    switch        False: the data phase of CAN FD frames keeps the nominal bit rate.
    depth         received frames kept in RAM: a node has other things to do for as long as 20 ms.
    """

    def __init__(
        self,
        number: int,
        bitrate: int = 500000,
        data_bitrate=0,
        switch: bool = True,
        sample_point: int = 75,
        depth=64,
    ) -> None:
        CanPort.__init__(self)
        self._is_fdcan = hasattr(CAN, "MASK")
        self.orders_by_id = not self._is_fdcan
        self.fd = data_bitrate > 0
        if self.fd and not self._is_fdcan:
            raise ValueError("this board's CAN controller has no CAN FD: leave data_bitrate away")
        self._switch = switch
        self._arguments = {"baudrate": bitrate, "sample_point": sample_point, "auto_restart": False}  # type: dict
        if self._is_fdcan:
            # Newer firmware repeats frames that lost arbitration only with this; older firmware ignores it.
            self._arguments["auto_restart"] = True
            if self.fd and switch:
                self._arguments["brs_baudrate"] = data_bitrate
                self._arguments["brs_sample_point"] = sample_point
        # Lists as `recv` fills them: ID, extended, remote, filter, data. Behind that is the slot that comes next.
        size = 64 if self._is_fdcan else 8
        slots = [[0, False, False, 0, memoryview(bytearray(size))] for _ in range(depth + 1)]  # type: list[list]
        for at in range(depth + 1):
            slots[at].append(slots[at - depth])
        self._head = slots[0]  # next slot to fill
        self._tail = slots[0]  # next slot to give out; the frame given out last lies before it
        self._is_odd = False  # the frame given out last is none of nearly all, see `_shape`
        self._figures = [0, 0, 0, 0, 0, 0, 0, 0]
        self._lost = 0  # counted by the handler
        self._looked_ms = None  # type: int | None
        self._states = {
            CAN.ERROR_ACTIVE: ACTIVE,
            CAN.ERROR_WARNING: WARNING,
            CAN.ERROR_PASSIVE: PASSIVE,
            CAN.BUS_OFF: BUS_OFF,
        }
        self._can = CAN(number, CAN.NORMAL, **self._arguments)
        self._begin()

    def _begin(self) -> None:
        self._apply_filters()
        self._can.rxcallback(0, self._on_first)
        self._can.rxcallback(1, self._on_second)
        self.counters["opened"] += 1
        self.state = ACTIVE

    def _apply_filters(self) -> None:
        pairs = self._accept.pairs
        self._is_exact = len(pairs) <= (_EXTENDED_FILTERS if self._is_fdcan else _BANKS)
        can = self._can
        if self._is_fdcan:
            pairs = fitted(pairs, _EXTENDED_FILTERS)
            for bank in range(_EXTENDED_FILTERS):
                can.clearfilter(bank, extframe=True)
            can.clearfilter(0, extframe=False)
            for bank in range(len(pairs)):
                self._set_filter(bank, CAN.MASK, bank & 1, pairs[bank], True)
            if not pairs:
                self._set_filter(0, CAN.MASK, 0, (0, 0), False)
                self._set_filter(0, CAN.MASK, 1, (0, 0), True)
            return
        pairs = fitted(pairs, _BANKS)
        for bank in range(_BANKS):
            can.clearfilter(bank)
        for bank in range(len(pairs)):
            self._set_filter(bank, CAN.MASK32, bank & 1, pairs[bank], True)
        if not pairs:
            # 16-bit masks do not compare the kind of ID: nothing compared lets in both kinds.
            can.setfilter(0, CAN.MASK16, 0, (0, 0, 0, 0))

    def _set_filter(self, bank: int, mode: int, fifo: int, params: "tuple[int, int]", extended: bool) -> None:
        # Stubs 1.29 leave out `extframe`, which the documentation has.
        self._can.setfilter(bank, mode, fifo, params, extframe=extended)  # type: ignore[call-overload]

    def recover(self) -> None:
        """Set up the controller anew: `restart` would send what waits in it."""
        can = self._can
        for fifo in (0, 1):
            can.rxcallback(fifo, None)  # type: ignore[arg-type]  # "off" is in the module, not in its stubs
        can.deinit()
        can.init(CAN.NORMAL, **self._arguments)
        self._begin()

    def poll(self, now_ms: int) -> int:
        """Look at the controller's errors now and then; milliseconds until frames should be asked for."""
        if self._looked_ms is None or now_ms - self._looked_ms >= _LOOK_MS:
            self._looked_ms = now_ms
            self._enter(self._states.get(self._can.state(), BUS_OFF))
            figures = self._can.info(self._figures)
            self.counters["tec"] = figures[0]
            self.counters["rec"] = figures[1]
            self.counters["lost"] = self._lost
        if self.state == BUS_OFF:
            self._wait_in_bus_off(now_ms)
        return _ASK_MS if self._tail is self._head else 0

    def pending(self) -> int:
        """Frames in the controller, not yet on the wire; with FDCAN always 0, nothing depends on it there."""
        return self._can.info(self._figures)[5]

    def send(self, frame) -> bool:
        """Give a frame to the controller; False: no room now, or bus-off."""
        if self.state == BUS_OFF:
            return False
        if self._is_fdcan or frame.is_fd or frame.is_remote_frame or len(frame.data) > 8:
            return self._send_any(frame)
        if self.pending() >= _MAILBOXES:
            return False
        self._can.send(frame.data, frame.arbitration_id, extframe=frame.is_extended_id)
        self.counters["sent"] += 1
        return True

    def _send_any(self, frame) -> bool:
        data = frame.data
        remote = frame.is_remote_frame
        if remote:
            data = bytes(frame.dlc)
        size = len(data)
        if (frame.is_fd and not self.fd) or size not in FD_LENGTHS or (size > 8 and not frame.is_fd):
            self.counters["refused"] += 1
            return True  # it could wait for ever
        if not self._is_fdcan:
            if self.pending() >= _MAILBOXES:
                return False
            self._can.send(data, frame.arbitration_id, rtr=remote, extframe=frame.is_extended_id)
        else:
            try:
                if frame.is_fd:
                    self._can.send(
                        data, frame.arbitration_id, extframe=frame.is_extended_id, fdf=True, brs=self._switch
                    )
                else:
                    self._can.send(data, frame.arbitration_id, rtr=remote, extframe=frame.is_extended_id)
            except OSError:
                return False  # the FIFO is full: nothing else tells
        self.counters["sent"] += 1
        return True

    # Interrupt handlers: there is a frame in the FIFO. They may not allocate. Two, though but a number differs: one for
    # both would be a call more for each frame.

    def _on_first(self, can, reason: int) -> None:
        if reason == 2:
            self._lost += 1
        while True:
            slot = self._head
            following = slot[5]
            if following is self._tail:
                return  # full: the slot before the tail is the frame the node has in hand
            can.recv(0, slot)  # `timeout` has no say: there is a frame
            self._head = following
            if not can.any(0):
                return

    def _on_second(self, can, reason: int) -> None:
        if reason == 2:
            self._lost += 1
        while True:
            slot = self._head
            following = slot[5]
            if following is self._tail:
                return
            can.recv(1, slot)
            self._head = following
            if not can.any(1):
                return

    def _is_empty(self, tail) -> bool:
        """Whether there is no frame, after a look into the controller.

        The handlers left frames in there if they found no slot; none must come in between now.
        """
        can = self._can
        saved = disable_irq()
        if can.any(0):
            self._on_first(can, 0)
        if can.any(1):
            self._on_second(can, 0)
        enable_irq(saved)
        return tail is self._head

    def recv(self):
        """The next frame received, or None."""
        while True:
            slot = self._tail
            if slot is self._head and self._is_empty(slot):
                return None
            self._tail = slot[5]
            if self._is_exact or self._accept.takes(slot[0], slot[1]):
                break
            self.counters["filtered"] += 1
        # Not by `_let_in` and `_complete`: here an STM32 is flooded.
        self.counters["received"] += 1
        frame = self._frame
        frame.arbitration_id = slot[0]
        frame.data = slot[4]
        frame.dlc = size = len(slot[4])
        if size > 8 or slot[2] or not slot[1] or self._is_odd:
            self._shape(frame, slot, size > 8)
        return frame

    def _shape(self, frame, slot: list, is_fd: bool) -> None:
        """Make the frame one of its kind: nearly all are classic data frames with 29 bits, as the one before was."""
        frame.is_extended_id = slot[1]
        frame.is_remote_frame = slot[2]
        if slot[2]:
            frame.data = b""
        frame.is_fd = frame.bitrate_switch = is_fd
        self._is_odd = is_fd or slot[2] or not slot[1]
