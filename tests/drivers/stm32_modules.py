"""Stand-ins for the modules `machine` (CAN, disable_irq, enable_irq) and `pyb` (CAN) of MicroPython on STM32.

They follow docs.micropython.org, library/machine.CAN and library/pyb.CAN of MicroPython 1.28, and check arguments as
the modules do. `arrive` and `leave` are the bus: frames come into FIFOs of three and leave in the controller's order.
"""

import sys

INTERRUPTS = [True]  # whether they are enabled
STATES = (0, 1, 2, 3, 4)


def disable_irq():
    """As `machine.disable_irq`."""
    state = INTERRUPTS[0]
    INTERRUPTS[0] = False
    return state


def enable_irq(state):
    """As `machine.enable_irq`."""
    INTERRUPTS[0] = state
    Controller.catch_up()


class Controller:
    """What both kinds of CAN class share: the hardware and its interrupts."""

    FIFO_DEPTH = 3
    all = []

    def __init__(self):
        self.fifos = [[], []]
        self.sending = []
        self.status = 1
        self.tec = 0
        self.rec = 0
        self.overruns = 0
        self.lost = 0
        self.in_handler = False
        self.views = {}
        Controller.all.append(self)

    @staticmethod
    def catch_up():
        """Interrupts that were held back."""
        for controller in Controller.all:
            controller.interrupt()

    def interrupt(self):
        raise NotImplementedError

    def resized(self, items, at, size):
        """`items[at]`, a memoryview, as the modules resize it in place: to `size` bytes of what it was made of."""
        key = (id(items), at)
        if key not in self.views:
            assert isinstance(items[at], memoryview)
            self.views[key] = items[at]
        whole = self.views[key]
        assert size <= len(whole), "the module would write behind the end of the buffer"
        items[at] = whole[:size]
        return items[at]

    def store(self, fifo, frame):
        """A frame of the bus into a FIFO; whether there was room."""
        if len(self.fifos[fifo]) >= self.FIFO_DEPTH:
            self.lost += 1
            self.overruns += 1
            return False
        self.fifos[fifo].append(frame)
        self.interrupt()
        return True

    def call(self, function, *arguments):
        """Run a hard interrupt handler."""
        if not INTERRUPTS[0] or self.in_handler:
            return
        self.in_handler = True
        try:
            function(*arguments)
        finally:
            self.in_handler = False


class MachineCan(Controller):
    """`machine.CAN` on bxCAN: three mailboxes, lowest ID first, fourteen filters."""

    MODE_NORMAL = 0
    STATE_STOPPED, STATE_ACTIVE, STATE_WARNING, STATE_PASSIVE, STATE_BUS_OFF = STATES
    FLAG_RTR, FLAG_EXT_ID, FLAG_UNORDERED = 1, 2, 0x10
    IRQ_TX, IRQ_RX, IRQ_STATE = 1, 2, 4
    TX_QUEUE_LEN = 3
    FILTERS_MAX = 14
    DATA_MAX = 8

    def __init__(self, number, bitrate, mode=0, sample_point=75, sjw=1, tseg1=None, tseg2=None):
        Controller.__init__(self)
        if number not in (1, 2):
            raise ValueError("CAN(%d) doesn't exist" % number)
        if not 0 < sample_point < 100:
            raise ValueError("sample_point")
        self.bitrate = bitrate
        self.sample_point = sample_point
        self.filters = ()
        self.handler = None
        self.restarts = 0

    def set_filters(self, filters):
        """None: everything; else (ID, mask, flags) items."""
        self.filters = None
        if filters is None:
            return
        self.filters = []
        for ident, mask, flags in filters:
            if len(self.filters) == self.FILTERS_MAX:
                raise ValueError("too many filters")
            limit = 1 << (29 if flags & self.FLAG_EXT_ID else 11)
            if ident >= limit or mask >= limit:
                raise ValueError("invalid id")
            if flags & ~self.FLAG_EXT_ID:
                raise ValueError("flags")
            self.filters.append((ident, mask, flags))

    def send(self, ident, data, flags=0):
        """Index of the mailbox, or None: full, or a frame with this ID is in it."""
        if ident >= 1 << (29 if flags & self.FLAG_EXT_ID else 11):
            raise ValueError("invalid id")
        if len(data) > self.DATA_MAX:
            raise OverflowError("data too long")
        if self.status == self.STATE_BUS_OFF:
            raise OSError(5)
        if len(self.sending) >= self.TX_QUEUE_LEN or ident in [frame[0] for frame in self.sending]:
            return None
        remote = flags & self.FLAG_RTR != 0
        self.sending.append((ident, flags & self.FLAG_EXT_ID != 0, remote, len(data) if remote else bytes(data)))
        return len(self.sending) - 1

    def recv(self, arg=None):
        """The list given, filled, or None."""
        for fifo in self.fifos:
            if fifo:
                ident, extended, remote, data = fifo.pop(0)
                items = arg
                assert isinstance(items, list) and len(items) >= 4
                size = data if remote else len(data)
                view = self.resized(items, 1, size)
                view[:] = bytes(size) if remote else data
                items[0] = ident
                items[2] = (self.FLAG_EXT_ID if extended else 0) | (self.FLAG_RTR if remote else 0)
                items[3] = 0
                return items
        return None

    def irq(self, handler=None, trigger=0, hard=False):
        """Take the handler."""
        assert trigger & ~7 == 0 and callable(handler) and hard is True
        self.handler = handler

    def interrupt(self):
        if self.handler is not None and (self.fifos[0] or self.fifos[1]):
            self.call(self.handler, self)

    def state(self):
        """One of STATE_..."""
        return self.status

    def get_counters(self, items=None):
        """TEC, REC, warnings, passives, bus-offs, frames waiting, frames received, overruns."""
        assert isinstance(items, list) and len(items) == 8
        items[:] = [self.tec, self.rec, 0, 0, 0, len(self.sending), sum([len(f) for f in self.fifos]), self.overruns]
        return items

    def restart(self):
        """Leaves bus-off; drops what waits, clears the counts."""
        self.restarts += 1
        self.status = self.STATE_ACTIVE
        self.sending = []
        self.overruns = self.tec = self.rec = 0

    # -- the bus -------------------------------------------------------------------------------------------------------

    def arrive(self, ident, data=b"", extended=True, remote=False):
        """A frame of the bus; whether it was stored. Filters go to the FIFOs in turn."""
        if self.filters is None:
            return self.store(1 if extended else 0, (ident, extended, remote, data))
        for number in range(len(self.filters)):
            code, mask, flags = self.filters[number]
            if (flags & self.FLAG_EXT_ID != 0) == extended and ident & mask == code & mask:
                return self.store(number % 2, (ident, extended, remote, data))
        return False

    def leave(self):
        """The frame that wins arbitration among those that wait."""
        if not self.sending or self.status == self.STATE_BUS_OFF:
            return None
        best = min(self.sending, key=lambda frame: frame[0] if frame[1] else frame[0] << 18)
        self.sending.remove(best)
        return best


class PybCan(Controller):
    """`pyb.CAN` on bxCAN."""

    NORMAL = 0
    STOPPED, ERROR_ACTIVE, ERROR_WARNING, ERROR_PASSIVE, BUS_OFF = STATES
    MASK16, LIST16, MASK32, LIST32 = 0, 1, 2, 3
    BANKS = 14
    DATA_MAX = 8
    IS_FD = False

    def __init__(self, number, mode, **arguments):
        Controller.__init__(self)
        if number not in (1, 2):
            raise ValueError("CAN(%d) doesn't exist" % number)
        self.callbacks = [None, None]
        self.pending = [False, False]  # the handler has been called and has not emptied the FIFO
        self.inits = 0
        self.init(mode, **arguments)

    def init(
        self,
        mode,
        prescaler=100,
        *,
        sjw=1,
        bs1=6,
        bs2=8,
        auto_restart=False,
        baudrate=0,
        sample_point=75,
        num_filter_banks=14,
        brs_baudrate=None,
        brs_sample_point=None,
    ):
        """Set up."""
        assert mode == self.NORMAL and baudrate
        if not self.IS_FD and (brs_baudrate is not None or brs_sample_point is not None):
            raise TypeError("extra keyword arguments given")
        self.baudrate = baudrate
        self.brs_baudrate = brs_baudrate
        self.auto_restart = auto_restart
        self.enabled = True
        self.inits += 1
        self.banks = {}
        self.fifos = [[], []]
        self.sending = []
        self.status = self.ERROR_ACTIVE

    def deinit(self):
        """Off."""
        self.enabled = False
        self.sending = []

    def clearfilter(self, bank, extframe=False):
        """Disable a bank."""
        assert 0 <= bank < self.BANKS
        self.banks.pop(bank, None)

    def setfilter(self, bank, mode, fifo, params, *, rtr=None, extframe=False):
        """A bank of two 16-bit or one 32-bit filters."""
        if fifo not in (0, 1) or not 0 <= bank < self.BANKS:
            raise ValueError("CAN filter parameter error")
        if len(params) != (4 if mode in (self.MASK16, self.LIST16) else 2):
            raise ValueError("CAN filter parameter error")
        # Only what is used here: 32-bit masks of 29-bit IDs, and 16-bit masks, which do not compare the kind of ID.
        assert (mode == self.MASK32 and extframe) or (mode == self.MASK16 and tuple(params) == (0, 0, 0, 0))
        self.banks[bank] = (mode, fifo, tuple(params))

    def rxcallback(self, fifo, function):
        """Called in an interrupt when the FIFO is not empty any more (0), full (1), or has lost a frame (2)."""
        assert function is None or callable(function)
        self.callbacks[fifo] = function
        self.pending[fifo] = False

    def any(self, fifo):
        """Whether a frame is there."""
        return bool(self.fifos[fifo])

    def recv(self, fifo, items=None, *, timeout=5000):
        """The list given, filled."""
        assert isinstance(items, list) and len(items) >= 5
        if not self.fifos[fifo]:
            raise OSError(110)
        ident, extended, remote, data = self.fifos[fifo].pop(0)
        view = self.resized(items, 4, data if remote else len(data))
        if not remote:
            view[:] = data
        items[0], items[1], items[2], items[3] = ident, extended, remote, 0
        if not self.fifos[fifo]:
            self.pending[fifo] = False
        return items

    def send(self, data, ident, *, timeout=0, rtr=False, extframe=False, **more):
        """Into a mailbox. OSError if all are in use."""
        if not self.IS_FD and more:
            raise TypeError("extra keyword arguments given")
        if len(data) > self.DATA_MAX:
            raise ValueError("CAN data field too long")
        if len(self.sending) >= 3:
            raise OSError(16)
        frame = (ident, extframe, rtr, len(data) if rtr else bytes(data))
        self.sending.append(frame + (more.get("fdf", False), more.get("brs", False)) if self.IS_FD else frame)

    def state(self):
        """One of STOPPED, ERROR_..., BUS_OFF."""
        return self.status if self.enabled else self.STOPPED

    def info(self, items=None):
        """TEC, REC, warnings, passives, bus-offs, frames waiting, frames in FIFO 0 and 1."""
        assert isinstance(items, list) and len(items) >= 8
        # With FDCAN the sixth is the event FIFO, which is not used.
        waiting = 0 if self.IS_FD else len(self.sending)
        items[:] = [self.tec, self.rec, 0, 0, 0, waiting, len(self.fifos[0]), len(self.fifos[1])]
        return items

    # -- the bus -------------------------------------------------------------------------------------------------------

    def interrupt(self):
        for fifo in (0, 1):
            if self.fifos[fifo] and self.callbacks[fifo] is not None and not self.pending[fifo] and INTERRUPTS[0]:
                self.pending[fifo] = True
                self.call(self.callbacks[fifo], self, 0)

    def route(self, ident, extended):
        """The FIFO a frame goes into, or None."""
        for bank in sorted(self.banks):
            mode, fifo, params = self.banks[bank]
            if mode == self.MASK16 or (extended and ident & params[1] == params[0] & params[1]):
                return fifo
        return None

    def arrive(self, ident, data=b"", extended=True, remote=False):
        """A frame of the bus; whether it was stored."""
        fifo = self.route(ident, extended)
        if fifo is None or not self.enabled:
            return False
        stored = self.store(fifo, (ident, extended, remote, data))
        if not stored and self.callbacks[fifo] is not None:
            self.call(self.callbacks[fifo], self, 2)
        return stored

    def leave(self):
        """The frame that wins arbitration among those that wait."""
        if not self.sending or self.status == self.BUS_OFF:
            return None
        best = min(self.sending, key=lambda frame: frame[0] if frame[1] else frame[0] << 18)
        self.sending.remove(best)
        return best


class PybCanFd(PybCan):
    """`pyb.CAN` on FDCAN: a transmit FIFO of three, as on the G4, eight filters of 29-bit IDs."""

    RANGE, DUAL, MASK = 0, 1, 2
    BANKS = 28
    EXTENDED_BANKS = 8
    DATA_MAX = 64
    IS_FD = True

    def clearfilter(self, bank, extframe=False):
        """Disable a filter."""
        assert bank < (self.EXTENDED_BANKS if extframe else self.BANKS)
        self.banks.pop((extframe, bank), None)

    def setfilter(self, bank, mode, fifo, params, *, rtr=None, extframe=False):
        """One filter; both kinds of ID are counted apart."""
        if bank >= (self.EXTENDED_BANKS if extframe else self.BANKS) or mode != self.MASK or len(params) != 2:
            raise ValueError("CAN filter parameter error")
        if fifo not in (0, 1):
            raise ValueError("CAN filter parameter error")
        self.banks[(extframe, bank)] = (mode, fifo, tuple(params))

    def route(self, ident, extended):
        for extframe, bank in sorted(self.banks):
            _, fifo, (code, mask) = self.banks[(extframe, bank)]
            if extframe == extended and ident & mask == code & mask:
                return fifo
        return None

    def leave(self):
        """The oldest frame."""
        if not self.sending or self.status == self.BUS_OFF:
            return None
        return self.sending.pop(0)


class Module:
    """What `import` gives."""


def load(driver, **modules):
    """Import a driver with these modules in place: {"pyb": {"CAN": PybCan}}; nothing of it is left behind."""
    saved = {}
    name = "packtrust_node." + driver
    for module in modules:
        saved[module] = sys.modules.get(module)
        stand_in = Module()
        for attribute in modules[module]:
            setattr(stand_in, attribute, modules[module][attribute])
        sys.modules[module] = stand_in
    sys.modules.pop(name, None)
    try:
        return __import__(name, None, None, (driver,))
    finally:
        sys.modules.pop(name, None)
        for module in modules:
            if saved[module] is None:
                sys.modules.pop(module)
            else:
                sys.modules[module] = saved[module]
