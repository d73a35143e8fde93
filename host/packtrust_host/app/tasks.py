"""Scripts: what takes several messages and some time, written top to bottom, without threads.

A script is a generator that yields steps: `Until` a condition holds, `Wait`, or `Work` that blocks
(a call to the bridge). A `Task` drives one; whoever owns it calls `run(now_ms)` after each event
and tick, so the same script runs on a virtual clock and in real time.
"""

from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from packtrust_host.app.errors import Cancelled


@dataclass(frozen=True)
class Until:
    """Wait until `condition()` is true, at most `timeout_ms`.

    The value of the yield tells which it was.
    """

    condition: Callable[[], bool]
    timeout_ms: int


@dataclass(frozen=True)
class Wait:
    """Let `ms` milliseconds pass."""

    ms: int


@dataclass(frozen=True)
class Work:
    """Call something that blocks. The value of the yield is its result.

    What it raises, the yield raises.
    """

    call: Callable[[], Any]


Step = Until | Wait | Work


class Executor(Protocol):
    """Runs blocking calls."""

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Start a call."""


class InlineExecutor:
    """Runs a call at once, in place: on a virtual clock no time passes meanwhile."""

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Run `call`."""
        future: Future[Any] = Future()
        try:
            future.set_result(call())
        except Exception as error:  # noqa: BLE001 - handed to the script, which decides
            future.set_exception(error)
        return future


class ThreadExecutor:
    """Runs calls one after another in a thread of their own, so that the node goes on meanwhile."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "packtrust-work")

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Queue `call`."""
        return self._pool.submit(call)

    def close(self) -> None:
        """Wait for what runs and end the thread."""
        self._pool.shutdown()


T = TypeVar("T")


class Task(Generic[T]):
    """A running script. `done`, then `result()` gives its value or raises what it raised."""

    def __init__(self, script: Generator[Step, Any, T], executor: Executor, name: str = "") -> None:
        self.name = name
        self.done = False
        self._script = script
        self._executor = executor
        self._value: T | None = None
        self._error: BaseException | None = None
        self._step: Step | None = None
        self._deadline_ms = 0
        self._future: Future[Any] | None = None

    def __repr__(self) -> str:
        return "<Task %s %s>" % (self.name, "done" if self.done else "running")

    @property
    def error(self) -> BaseException | None:
        """What the script raised, None if nothing (yet)."""
        return self._error

    def result(self) -> T:
        """The script's value. Raises what the script raised; ValueError before it is done."""
        if not self.done:
            raise ValueError("task %s is still running" % self.name)
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def cancel(self, cause: str) -> None:
        """End the script where it is; its `finally` blocks run."""
        if not self.done:
            self._script.close()
            self._end(
                None,
                Cancelled("%s was ended: %s" % (self.name or "the task", cause), "start it again"),
            )

    def _end(self, value: T | None, error: BaseException | None) -> None:
        self.done = True
        self._value = value
        self._error = error

    def run(self, now_ms: int) -> None:
        """Go on as far as possible."""
        value: Any = None
        error: BaseException | None = None
        while not self.done:
            step = self._step
            if isinstance(step, Until):
                value = step.condition()
                if not value and now_ms < self._deadline_ms:
                    return
            elif isinstance(step, Wait):
                if now_ms < self._deadline_ms:
                    return
            elif isinstance(step, Work):
                assert self._future is not None
                if not self._future.done():
                    return
                error = self._future.exception()
                value = None if error is not None else self._future.result()
                self._future = None
            try:
                if error is not None:
                    raised, error = error, None
                    step = self._script.throw(raised)
                else:
                    step = self._script.send(value)
            except StopIteration as stop:
                self._end(stop.value, None)
                return
            except Exception as raised_error:  # noqa: BLE001 - kept for result()
                self._end(None, raised_error)
                return
            value = None
            self._step = step
            if isinstance(step, Until):
                self._deadline_ms = now_ms + step.timeout_ms
            elif isinstance(step, Wait):
                self._deadline_ms = now_ms + step.ms
            else:
                self._future = self._executor.submit(step.call)
