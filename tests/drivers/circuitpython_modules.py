"""Stand-in for CircuitPython's module `canio`, after docs.circuitpython.org, shared-bindings/canio; checks as it does.

`arrive` and `leave` are the bus. Two kinds: SAM E5x (RuntimeError when full, four filters of 29-bit IDs) and the ESP32
family (one filter; the port ignores the result of twai_transmit, so frames that find no room vanish).
"""


class BusState:
    """`canio.BusState`."""

    ERROR_ACTIVE = "ERROR_ACTIVE"
    ERROR_WARNING = "ERROR_WARNING"
    ERROR_PASSIVE = "ERROR_PASSIVE"
    BUS_OFF = "BUS_OFF"


class Message:
    """`canio.Message`."""

    def __init__(self, id, data, *, extended=False):  # noqa: A002 (its name there)
        if not isinstance(data, bytes) or len(data) > 8:
            raise ValueError("Messages limited to 8 bytes")
        if not 0 <= id < 1 << (29 if extended else 11):
            raise ValueError("id")
        self.id = id
        self.data = data
        self.extended = extended


class RemoteTransmissionRequest:
    """`canio.RemoteTransmissionRequest`."""

    def __init__(self, id, length, *, extended=False):  # noqa: A002 (its name there)
        if not 0 <= length <= 8:
            raise ValueError("RemoteTransmissionRequests limited to 8 bytes")
        self.id = id
        self.length = length
        self.extended = extended


class Match:
    """`canio.Match`."""

    def __init__(self, id, *, mask=None, extended=False):  # noqa: A002 (its name there)
        limit = 1 << (29 if extended else 11)
        if not 0 <= id < limit or (mask is not None and not 0 <= mask < limit):
            raise ValueError("id")
        self.id = id
        self.mask = limit - 1 if mask is None else mask
        self.extended = extended


class Listener:
    """`canio.Listener`."""

    DEPTH = 5

    def __init__(self, can, matches, timeout):
        self.can = can
        self.matches = matches
        self.timeout = timeout
        self.waiting = []
        self.deinited = False

    def in_waiting(self):
        """Messages there are."""
        assert not self.deinited
        return len(self.waiting)

    def receive(self):
        """The next one, None after the time-out."""
        assert not self.deinited
        return self.waiting.pop(0) if self.waiting else None

    def deinit(self):
        """Free it."""
        self.deinited = True
        self.can.listeners.remove(self)


class CAN:
    """`canio.CAN` of the SAM E5x."""

    FILTERS = 4
    QUEUE = 3
    SILENT_LOSS = False

    def __init__(self, tx, rx, *, baudrate=250000, loopback=False, silent=False, auto_restart=False):
        self.baudrate = baudrate
        self.auto_restart = auto_restart
        self.state = BusState.ERROR_ACTIVE
        self.transmit_error_count = 0
        self.receive_error_count = 0
        self.listeners = []
        self.queue = []
        self.vanished = 0
        self.restarts = 0

    def listen(self, matches=None, *, timeout=10):
        """A listener; ValueError if there are not so many filters."""
        matches = list(matches or ())
        for match in matches:
            assert isinstance(match, Match)
        if len(matches) > self.FILTERS:
            raise ValueError("Filters too complex")
        assert not self.listeners, "the ESP32 family has one listener"
        listener = Listener(self, matches, timeout)
        self.listeners.append(listener)
        return listener

    def send(self, message):
        """Queue a message; RuntimeError if it could not be sent due to a full fifo or a bus error condition."""
        assert isinstance(message, (Message, RemoteTransmissionRequest))
        if len(self.queue) >= self.QUEUE:
            if not self.SILENT_LOSS:
                raise RuntimeError("full")
            self.vanished += 1
            return
        self.queue.append(message)

    def restart(self):
        """Leave bus-off."""
        self.restarts += 1
        self.state = BusState.ERROR_ACTIVE

    # -- the bus -------------------------------------------------------------------------------------------------------

    def arrive(self, ident, data=b"", extended=True, remote=False):
        """A frame of the bus; whether a listener took it."""
        for listener in self.listeners:
            taken = not listener.matches
            for match in listener.matches:
                if match.extended == extended and ident & match.mask == match.id & match.mask:
                    taken = True
            if taken and len(listener.waiting) < listener.DEPTH:
                kind = RemoteTransmissionRequest if remote else Message
                listener.waiting.append(kind(ident, data, extended=extended))
                return True
        return False

    def leave(self):
        """The oldest frame: (ID, extended, remote, data)."""
        if not self.queue or self.state == BusState.BUS_OFF:
            return None
        message = self.queue.pop(0)
        if isinstance(message, RemoteTransmissionRequest):
            return message.id, message.extended, True, message.length
        return message.id, message.extended, False, message.data


class EspCAN(CAN):
    """`canio.CAN` of the ESP32 family."""

    FILTERS = 1
    QUEUE = 5
    SILENT_LOSS = True


MODULE = {
    "BusState": BusState,
    "Match": Match,
    "Message": Message,
    "RemoteTransmissionRequest": RemoteTransmissionRequest,
}
