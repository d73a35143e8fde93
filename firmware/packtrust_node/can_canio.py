"""CircuitPython's `canio` (SAM E5x, ESP32 family, STM32F405, i.MX), as docs.circuitpython.org has it.

Classic frames only. `canio` makes an object for every frame, and tells neither how many frames wait for sending nor
how many received ones it lost. Frames leave in the order given.
"""

from time import monotonic_ns

from canio import BusState, Match, Message, RemoteTransmissionRequest

from packtrust._compat import const
from packtrust_node.can_base import ACTIVE, BUS_OFF, PASSIVE, WARNING, CanPort, joined

_ASK_MS = const(1)
_LOOK_MS = const(20)
# A frame with 29-bit ID and 8 data bytes, stuffed as badly as can be.
_FRAME_BITS = const(160)


class CanioCan(CanPort):
    """One controller.

    can    `canio.CAN`, made without `auto_restart`.
    queue  0: `send` raises RuntimeError when there is no room, as the documentation has it.
           n: the port drops frames silently when its queue of n is full, as the ESP32 port does (twai_transmit's
           result is ignored there): no more frames are given than can have left since. On a bus that others keep busy
           frames are lost all the same; what needs them is repeated by the protocols above.
    """

    def __init__(self, can, queue: int = 0) -> None:
        CanPort.__init__(self)
        self._can = can
        self._queue = queue
        self._frame_ns = _FRAME_BITS * 1000000000 // can.baudrate
        self._free_ns = 0  # when the last frame given will have left
        self._listener = self._listen()
        self._looked_ms = None  # type: int | None
        self.state = ACTIVE
        self.counters["opened"] += 1

    def _listen(self):
        pairs = self._accept.pairs
        while True:
            matches = [Match(code, mask=mask, extended=True) for code, mask in pairs]
            try:
                # Without matches all frames are let in; with a time-out of 0 nothing waits.
                return self._can.listen(matches, timeout=0)
            except ValueError:
                if len(pairs) <= 1:
                    raise
                pairs = joined(pairs)  # more than the controller has

    def _apply_filters(self) -> None:
        self._listener.deinit()
        self._listener = self._listen()

    def recover(self) -> None:
        """Restart the controller."""
        self._can.restart()
        self._free_ns = 0

    def _state(self) -> str:
        state = self._can.state
        if state == BusState.ERROR_ACTIVE:
            return ACTIVE
        if state == BusState.ERROR_WARNING:
            return WARNING
        return PASSIVE if state == BusState.ERROR_PASSIVE else BUS_OFF

    def poll(self, now_ms: int) -> int:
        """Look at the controller's errors now and then; milliseconds until frames should be asked for."""
        if self._looked_ms is None or now_ms - self._looked_ms >= _LOOK_MS:
            self._looked_ms = now_ms
            self._enter(self._state())
            self.counters["tec"] = self._can.transmit_error_count
            self.counters["rec"] = self._can.receive_error_count
        if self.state == BUS_OFF:
            self._wait_in_bus_off(now_ms)
        return _ASK_MS

    def pending(self) -> int:
        """Frames that may be in the controller; 0 where the port does not tell."""
        if not self._queue:
            return 0
        return max(0, -((monotonic_ns() - self._free_ns) // self._frame_ns))

    def send(self, frame) -> bool:
        """Give a frame to the controller; False: no room now, or bus-off."""
        if self.state == BUS_OFF or (self._queue and self.pending() >= self._queue):
            return False
        if frame.is_fd or len(frame.data) > 8:
            self.counters["refused"] += 1
            return True  # it could wait for ever
        message = self._message(frame)
        try:
            self._can.send(message)
        except RuntimeError:
            return False
        if self._queue:
            self._free_ns = max(self._free_ns, monotonic_ns()) + self._frame_ns
        self.counters["sent"] += 1
        return True

    def _message(self, frame):
        ident = frame.arbitration_id
        if frame.is_remote_frame:
            return RemoteTransmissionRequest(ident, frame.dlc, extended=frame.is_extended_id)
        return Message(ident, bytes(frame.data), extended=frame.is_extended_id)

    def recv(self):
        """The next frame received, or None."""
        while self._listener.in_waiting():
            message = self._listener.receive()
            if message is None:
                break
            frame = self._let_in(message.id, message.extended)
            if frame is not None:
                if isinstance(message, RemoteTransmissionRequest):
                    self._complete(frame, b"", message.length, True)
                else:
                    self._complete(frame, message.data, len(message.data))
                return frame
        return None
