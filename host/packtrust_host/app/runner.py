"""Runs an AppNode in real time over any python-can bus.

    with Runner(lambda: can.Bus(interface="slcan", channel="/dev/ttyACM0", bitrate=500000), store)
    as runner:
        survey = runner.run(provisioner.commission(registrar.register_all))
        command = runner.call(lambda: runner.node.set_state(STATE_ON))
        runner.wait(lambda: command.done, 5)

One thread receives, one runs the node; callers hand their work to the second with `call`, `run` and
`wait`. An adapter that goes away is reported as BusLost and opened again when it is back.
"""

import logging
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Self, TypeVar

import can

from packtrust.frame import Frame
from packtrust_host.app.errors import AppError, BusLost, NoAnswer
from packtrust_host.app.keystore import KeyStore
from packtrust_host.app.node import AppNode
from packtrust_host.app.tasks import Step, Task, ThreadExecutor

RECEIVE_TIMEOUT_S = 0.1
REOPEN_S = 1.0
JOIN_S = 10.0
TRANSMIT_WAITING_MAX = 4096
TRANSMIT_RETRY_S = 0.002
_ENOBUFS = 105  # SocketCAN: the interface's queue is full

_log = logging.getLogger(__name__)

T = TypeVar("T")
OpenBus = Callable[[], can.BusABC]


class _RealEnv:
    """The node's environment: monotonic time, the OS's entropy, frames into a queue for the bus."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self.waiting: deque[Frame] = deque()
        self.dropped = 0
        self._log = log

    def now_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def urandom(self, n: int) -> bytes:
        return secrets.token_bytes(n)

    def send(self, port: int, frame: Frame) -> None:
        if len(self.waiting) >= TRANSMIT_WAITING_MAX:
            self.waiting.popleft()
            self.dropped += 1
        self.waiting.append(frame)

    def log(self, text: str) -> None:
        self._log(text)


class _Stop:
    """Ends the node's thread."""


class _Call:
    """Work of a caller for the node's thread."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.future: Future[Any] = Future()

    def run(self) -> None:
        try:
            self.future.set_result(self.work())
        except Exception as error:  # noqa: BLE001 - handed to the caller
            self.future.set_exception(error)


class _Lost:
    """A bus that failed, from the thread that received on it."""

    def __init__(self, generation: int, error: Exception) -> None:
        self.generation = generation
        self.error = error


def to_message(frame: Frame) -> can.Message:
    """A core Frame as python-can Message."""
    return can.Message(
        arbitration_id=frame.arbitration_id,
        is_extended_id=frame.is_extended_id,
        data=bytes(frame.data),
        is_fd=frame.is_fd,
        bitrate_switch=frame.is_fd,
        check=False,
    )


class Runner:
    """An AppNode on a real bus. A context manager; `node` is the AppNode: touch it only from within
    `call`, a script, or a condition of `wait`.

    open_bus   opens the bus; called again when the adapter was lost and `reconnect` is set
    node_options  as of AppNode (`pack`, `make_link`, `current_rule`, ...)
    """

    def __init__(
        self,
        open_bus: OpenBus,
        store: KeyStore,
        *,
        reconnect: bool = True,
        log: Callable[[str], None] | None = None,
        **node_options: Any,
    ) -> None:
        self._open_bus = open_bus
        self._reconnect = reconnect
        self._executor = ThreadExecutor()
        self._env = _RealEnv(log if log is not None else _log.info)
        node_options.setdefault("executor", self._executor)
        self.node = AppNode(self._env, store, **node_options)
        self.lost = 0  # how often the adapter went away
        self.malformed = 0  # lines of the adapter that python-can could not read
        self._error: BusLost | None = None
        self._ended: AppError | None = None
        self._inbox: queue.SimpleQueue[can.Message | _Call | _Lost | _Stop] = queue.SimpleQueue()
        self._bus: can.BusABC | None = None
        self._generation = 0
        self._reopen_at = 0.0
        self._receiver: threading.Thread | None = None
        self._closing = threading.Event()
        self._waits: list[tuple[Callable[[], bool], Future[bool]]] = []
        self._thread = threading.Thread(target=self._loop, name="packtrust-app", daemon=True)

    # -- life ----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def start(self) -> None:
        """Open the bus and run. Raises BusLost if it does not open."""
        self._open()
        self._thread.start()

    def close(self) -> None:
        """Stop, close the bus, destroy the keys in memory."""
        self._closing.set()
        if self._thread.is_alive():
            self._inbox.put(_Stop())
            self._thread.join(JOIN_S)
        self._shut_bus()
        self._executor.close()
        self.node.close()

    @property
    def error(self) -> BusLost | None:
        """Why there is no bus now, None if there is one."""
        return self._error

    @property
    def frames_dropped(self) -> int:
        """Frames not sent, because the bus was away or too slow."""
        return self._env.dropped

    def _open(self) -> None:
        try:
            bus = self._open_bus()
        except (can.CanError, OSError, ValueError) as error:
            self._error = BusLost(
                "the CAN adapter does not open: %s" % error,
                "check that it is plugged in, its name and bit rate, and that you may use it",
            )
            raise self._error from error
        self._bus = bus
        self._error = None
        self._generation += 1
        self._receiver = threading.Thread(
            target=self._receive,
            args=(bus, self._generation),
            name="packtrust-receive",
            daemon=True,
        )
        self._receiver.start()

    def _shut_bus(self) -> None:
        bus, self._bus = self._bus, None
        self._generation += 1  # the receiver sees that its bus is not wanted any more
        if self._receiver is not None:
            self._receiver.join(JOIN_S)
            self._receiver = None
        if bus is not None:
            try:
                bus.shutdown()
            except (can.CanError, OSError) as error:
                _log.info("closing the lost adapter: %s", error)

    def _receive(self, bus: can.BusABC, generation: int) -> None:
        while generation == self._generation:
            try:
                message = bus.recv(RECEIVE_TIMEOUT_S)
            except (can.CanError, OSError, TypeError) as error:
                # TypeError: pyserial on a port that was closed under it.
                self._inbox.put(_Lost(generation, error))
                return
            except (ValueError, IndexError):
                self.malformed += 1
                continue
            if message is not None and not message.is_error_frame and not message.is_remote_frame:
                self._inbox.put(message)

    # -- the node's thread ---------------------------------------------------------------------

    def _loop(self) -> None:
        try:
            self._serve()
        except Exception as error:  # noqa: BLE001 - told to everybody who waits
            # A fault of ours, not of the wire: nobody waits for ever, and everybody is told.
            _log.exception("the app node stopped")
            self._ended = AppError("the app node failed: %r" % error, "report this as a bug")
        else:
            self._ended = AppError("the app has stopped", "start it again")
        ended = self._ended
        for _, future in self._waits:
            if future.set_running_or_notify_cancel():  # a wait that has timed out is cancelled
                future.set_exception(ended)
        self._waits = []
        while not self._inbox.empty():
            item = self._inbox.get()
            if isinstance(item, _Call):
                item.future.set_exception(ended)

    def _serve(self) -> None:
        self.node.start()
        due = 0.0
        while True:
            self._transmit()
            timeout = max(0.0, due - time.monotonic())
            if self._env.waiting:
                timeout = min(timeout, TRANSMIT_RETRY_S)
            try:
                item = self._inbox.get(timeout=timeout)
            except queue.Empty:
                item = None
            if isinstance(item, _Stop):
                return
            if isinstance(item, _Lost):
                self._on_lost(item)
            elif isinstance(item, _Call):
                item.run()
            elif item is not None:
                self.node.on_frame(0, item)
            if time.monotonic() >= due:
                due = time.monotonic() + self.node.on_tick() / 1000
                self._try_reopen()
            self._check_waits()

    def _transmit(self) -> None:
        waiting = self._env.waiting
        if self._bus is None:
            self._env.dropped += len(waiting)
            waiting.clear()
        while waiting and self._bus is not None:
            try:
                self._bus.send(to_message(waiting[0]))
            except (can.CanError, OSError) as error:
                if getattr(error, "error_code", None) == _ENOBUFS:
                    return
                self._on_lost(_Lost(self._generation, error))
                return
            waiting.popleft()

    def _on_lost(self, lost: _Lost) -> None:
        if lost.generation != self._generation:
            return
        self.lost += 1
        self._error = BusLost(
            "the CAN adapter is gone: %s" % lost.error,
            "plug it in again%s" % ("; it is opened as soon as it is back" if self._reconnect else ""),
        )
        self._env.log(str(self._error))
        self._shut_bus()
        self._reopen_at = time.monotonic() + REOPEN_S

    def _try_reopen(self) -> None:
        if self._bus is not None or not self._reconnect or self._closing.is_set() or time.monotonic() < self._reopen_at:
            return
        self._reopen_at = time.monotonic() + REOPEN_S
        try:
            self._open()
        except BusLost:
            return  # kept in `error`, and tried again
        self._env.log("the CAN adapter is back")

    def _check_waits(self) -> None:
        for item in list(self._waits):
            condition, future = item
            try:
                met = condition()
            except Exception as error:  # noqa: BLE001 - handed to the caller of wait()
                self._waits.remove(item)
                future.set_exception(error)
                continue
            if met or future.cancelled():
                self._waits.remove(item)
                if not future.cancelled():
                    future.set_result(True)
            elif self._error is not None and not self._reconnect:
                self._waits.remove(item)
                future.set_exception(self._error)

    # -- for callers in other threads ----------------------------------------------------------

    def call(self, work: Callable[[], T], timeout_s: float = 10.0) -> T:
        """Run `work` in the node's thread; its value. Raises what it raises."""
        call = _Call(work)
        self._inbox.put(call)
        if self._ended is not None:
            raise self._ended
        try:
            value: T = call.future.result(timeout_s)
        except FutureTimeout:
            raise NoAnswer(
                "the app node did not react within %d s" % timeout_s,
                "check what its scripts and conditions do: they must not block",
            ) from None
        return value

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `condition()`, which is looked at after each event and tick; False after
        `timeout_s`.

        Raises BusLost if the adapter is gone and is not opened again.
        """
        future: Future[bool] = Future()
        self.call(lambda: self._waits.append((condition, future)))
        try:
            return future.result(timeout_s)
        except FutureTimeout:
            future.cancel()
            return False

    def run(self, script: Generator[Step, Any, T], timeout_s: float = 120.0, name: str = "") -> T:
        """Run a script to its end; its value. Raises what it raises, NoAnswer after `timeout_s`."""
        task: Task[T] = self.call(lambda: self.node.spawn(script, name))
        try:
            finished = self.wait(lambda: task.done, timeout_s)
        except BaseException:
            self.call(lambda: task.cancel("the caller gave it up"))
            raise
        if not finished:
            self.call(lambda: task.cancel("time is up"))
            cause = "%s took longer than %d s" % (name or "the task", timeout_s)
            if self._error is not None:
                raise NoAnswer(cause + ": " + self._error.cause, self._error.next_step)
            raise NoAnswer(cause, "check the bus and the devices, then run it again")
        return task.result()
