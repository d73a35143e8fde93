"""Runs a node: waits for its CAN ports, its console and its clock, without burning the CPU."""

from time import sleep

from packtrust._compat import const
from packtrust_node.scrub import free_heap

try:
    from select import POLLIN, poll
except ImportError:
    # CircuitPython has no select: the ports are asked in turn.
    POLLIN = const(1)
    poll = None

try:
    from sys import print_exception
except ImportError:
    print_exception = None

# After frames by which it was `stirred` a node may want its tick sooner than it said.
_SOON_MS = const(5)
# Frames of one port before the others, and the tick, get their turn.
_BURST = const(32)
# A frame after which others have waited counts for so many in a row: meanwhile a full bus brings more.
_LONG = const(8)
_WAIT_MAX_MS = const(500)
# What ended keys left in the heap is overwritten when nothing is due for so long, or after so long in any case: who
# floods the bus does not keep it there. Not more often than so: a bus that makes sessions end is not helped by pauses.
_QUIET_MS = const(10)
_STALE_MAX_MS = const(2000)
_SCRUB_PAUSE_MS = const(5000)
_SECOND_MS = const(500)
# An answer on the console may take so long: it waits for a broadcast that others wait for.
_CONSOLE_MS = const(100)


class Loop:
    """One node, its `txqueue.TxQueue`s (in port order) and, if given, its console.

    clock     with `now_ms()`.
    service   `testservice.TestService`, which takes its own frames, of one `base`, before the node sees them; or None.
    console   `console.Console`; `console_in` is its stream. When that ends (the pipe is closed), `run` returns.

    What a frame raises is the node's to count (`failed`); any other exception is counted in `crashes` and logged. The
    loop goes on.
    """

    def __init__(self, node, clock, queues, service=None, console=None, console_in=None) -> None:
        self.node = node
        self.crashes = 0
        self.running = False
        self._clock = clock
        self._queues = queues
        self._service = service
        self._console = console
        self._console_in = console_in
        self._due_ms = 0
        self._is_second = False  # of two times that free memory is overwritten
        self._rest_ms = clock.now_ms()
        self._poller = None
        self._ready = []
        self._lost = []
        self._is_given = False  # the node has a frame
        self._more = False  # a driver has frames left that its stream knows nothing of
        self._streak = [0] * len(queues)  # frames of each port since it had none
        self._byte = bytearray(1)
        self._hears = None
        if poll is not None:
            self._poller = poll()
            self._poll = getattr(self._poller, "ipoll", self._poller.poll)  # without a list, where there is that
            for queue in queues:
                # A controller without a stream is asked in turn; its poll() says how soon.
                if queue.driver.stream is not None:
                    self._poller.register(queue.driver.stream, POLLIN)
            if console_in is not None:
                self._poller.register(console_in, POLLIN)

    def _crash(self, error) -> None:
        self.crashes += 1
        if self._console is not None:
            self._console.log("crash %s: report this" % type(error).__name__)
        if print_exception is not None:
            print_exception(error)

    def run(self) -> None:
        """Until the console ends or `running` is set to False."""
        self.running = True
        self._due_ms = self._clock.now_ms()
        while self.running:
            try:
                self.step(_WAIT_MAX_MS)
            except Exception as error:
                # A driver that finds no heap for what it has read loses that, no more.
                self._crash(error)

    # What is called in each round has its state on the stack and leaves nothing in the heap, or a bus with much traffic
    # would make a board collect all the time (tests/on_target/test_call_frames.py, tests/bench/flood.py).

    def step(self, wait_ms: int) -> None:
        """One round: what is due, then wait at most `wait_ms` for something, then deal with it."""
        ready = self._wait(self._prepare(wait_ms))
        if self._more:
            self._more = False
            ready = None
        port = 0
        while port < len(self._queues):
            stream = self._queues[port].driver.stream
            if ready is None or stream is None or stream in ready:
                self._receive(port)
            port += 1
        now_ms = self._clock.now_ms()
        port = 0
        while port < len(self._queues):
            self._queues[port].pump(now_ms)
            port += 1
        if self._console_in is not None and self.node.spare_ms(now_ms) >= _CONSOLE_MS:
            # After "ask them all" only a poll tells whether reading the console would block.
            if self._console_in in ready if ready is not None else self._readable(self._console_in):
                self._read_console()

    def _prepare(self, wait_ms: int) -> int:
        """Do what is due; how long there is to wait."""
        now_ms = self._clock.now_ms()
        if now_ms - self._due_ms >= 0:
            self._tick(now_ms)
        wait_ms = 0 if self._more else min(wait_ms, max(0, self._due_ms - now_ms))
        port = 0
        while port < len(self._queues):
            queue = self._queues[port]
            wait_ms = min(wait_ms, queue.driver.poll(now_ms))
            if len(queue):
                # What the controller has no room for, or has not quite taken: no frame need come to wake us for it.
                wait_ms = min(wait_ms, _SOON_MS)
            queue.pump(now_ms)
            port += 1
        if self.node.ended_ms is not None:
            self._scrub(now_ms, wait_ms)
        return wait_ms

    def _scrub(self, now_ms: int, wait_ms: int) -> None:
        """Overwrite free memory, if nothing is to be done just now, or if it has waited for long."""
        if now_ms - self._rest_ms < 0:
            return
        if now_ms - self.node.ended_ms < _STALE_MAX_MS and (
            wait_ms < _QUIET_MS or (self._poller is not None and self._poller.poll(0))
        ):
            return
        # Twice: what a forgotten word on the stack has kept the first time is let go by then.
        self._rest_ms = now_ms + (_SCRUB_PAUSE_MS if self._is_second else _SECOND_MS)
        if self._is_second:
            self.node.ended_ms = None
        self._is_second = not self._is_second
        free_heap()

    def _wait(self, wait_ms: int):
        """Streams that have something, or None for "ask them all"."""
        if self._poller is None:
            sleep(min(wait_ms, 1) / 1000)
            return None
        if self._ready:
            self._ready.clear()
        for item in self._poll(wait_ms):
            self._ready.append(item[0])
        return self._ready

    def _tick(self, now_ms: int) -> None:
        wanted = 100
        try:
            wanted = self.node.on_tick()
            if self._service is not None:
                wanted = min(wanted, self._service.tick())
        except Exception as error:
            self._crash(error)
        self._due_ms = now_ms + max(1, wanted)
        hears = self.node.hears()
        if hears != self._hears:
            self._hears = hears
            for queue in self._queues:
                queue.driver.accept_nodes(hears)

    def _receive(self, port: int) -> None:
        try:
            self._burst(port)
        except Exception as error:
            if not self._is_given:
                raise  # the driver's
            self._is_given = False
            self._more = True  # there may be
            self.node.failed(error)

    def _after(self, port: int, count: int) -> None:
        """So many frames have come of a port."""
        driver = self._queues[port].driver
        self._streak[port] += count + _LONG if self.node.took_long else count
        if self._streak[port] >= _BURST:
            self.node.fell_behind(self._clock.now_ms())
        if count == _BURST or self.node.took_long:
            self.node.took_long = False
            self._more = True
        if self.node.stirred:
            self.node.stirred = False
            self._due_ms = min(self._due_ms, self._clock.now_ms() + _SOON_MS)
        if not count and driver.state == "lost" and self._poller is not None and driver not in self._lost:
            # Its stream would be reported as ready for ever.
            if driver.stream is not None:
                self._poller.unregister(driver.stream)
            self._lost.append(driver)

    def _burst(self, port: int) -> None:
        """Give the node what has come, at most _BURST frames."""
        driver = self._queues[port].driver
        node = self.node
        base = -1 if self._service is None else self._service.base
        count = 0
        while count < _BURST:
            frame = driver.recv()
            if frame is None:
                self._streak[port] = 0
                break
            count += 1
            # A call for each frame would be dear: only its own frames are the service's to look at.
            if frame.arbitration_id >> 18 != base or not self._service.on_frame(port, frame):
                self._is_given = True
                node.receive(port, frame)
                self._is_given = False
                if node.took_long:  # others have waited for their turn
                    break
        if count or driver.state == "lost":
            self._after(port, count)

    def _read_console(self) -> None:
        # Byte by byte, as long as there is one: a console stream may block.
        while True:
            count = self._console_in.readinto(self._byte)
            if count == 0:
                self.running = False
                return
            if count is None:
                return
            try:
                self._console.feed(bytes(self._byte))
            except Exception as error:
                # An answer that does not fit into the heap is no reason to stop being a battery.
                self._crash(error)
            if self._poller is None or not self._readable(self._console_in):
                return

    def _readable(self, stream) -> bool:
        if self._poller is None:
            return True
        found = False
        for item in self._poll(0):
            if item[0] is stream:
                found = True
        return found
