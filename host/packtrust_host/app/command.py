"""Commands the app gives, and when they count as obeyed.

A command is obeyed when a module's next authentic status *and* the current it reports show it; what
a pack answers (COMMAND_RESULT) can only make it fail, or settle a command that no status shows.
"""

from collections.abc import Callable, Iterable

from packtrust.messages.table import (
    RESULT_OBEYED,
    RESULT_REFUSED,
    RESULT_TIMEOUT,
    RESULT_UNREACHABLE,
    STATE_ON,
)
from packtrust_host.app.model import Module, state_name

PENDING = "pending"
OBEYED = "obeyed"
FAILED = "failed"

TIMEOUT_MS = 3000
REPEAT_MS = 1000

# `reason` of a COMMAND_RESULT: a later command took this one's place. Our own repeat does that too.
REASON_SUPERSEDED = 4
_REASONS = {1: "the app's scope does not allow it", 2: "no such module", 3: "a value it does not know"}

# Currents up to this count as none: two steps of the field's 20 mA scale.
NO_CURRENT_MA = 40

_RESULTS = {
    RESULT_REFUSED: "the pack refused it",
    RESULT_UNREACHABLE: "the pack does not reach the module",
    RESULT_TIMEOUT: "the module did not answer the pack",
}

CurrentRule = Callable[[int, int], bool]


def expect_load(state: int, current_ma: int) -> bool:
    """The usual rule: current flows in On, and in no other state."""
    return (abs(current_ma) > NO_CURRENT_MA) == (state == STATE_ON)


def expect_isolation(state: int, current_ma: int) -> bool:
    """For packs that may idle in On (a recording with pauses): no current flows in any other state."""
    return state == STATE_ON or abs(current_ma) <= NO_CURRENT_MA


# What is wrong with a module's newest status, "" if it shows the command.
Check = Callable[[Module], str]


def state_check(state: int, rule: CurrentRule) -> Check:
    """The module is in `state`, and its current agrees."""

    def check(module: Module) -> str:
        if module.state != state:
            return "it still reports %s" % state_name(module.state)
        if module.current_ma is None or not rule(state, module.current_ma):
            amperes = "unknown" if module.current_ma is None else "%.2f A" % (module.current_ma / 1000)
            return "it reports %s but its current is %s" % (state_name(state), amperes)
        return ""

    return check


def limits_check(max_charge_ma: int, max_discharge_ma: int) -> Check:
    """The module's current keeps the limits (charge positive), and so do limits it reports."""

    def check(module: Module) -> str:
        current = module.current_ma
        if current is None:
            return "its current is unknown"
        if current > max_charge_ma + NO_CURRENT_MA or current < -max_discharge_ma - NO_CURRENT_MA:
            return "its current is %.2f A" % (current / 1000)
        return ""

    return check


def balance_check(on: bool) -> Check:
    """The module reports that it balances, or that it does not; balanced cells need none."""

    def check(module: Module) -> str:
        if module.balancing == on or (on and module.balanced):
            return ""
        return "it reports that it %s" % ("balances" if module.balancing else "does not balance")

    return check


class Command:
    """One command under way. `state` is PENDING, OBEYED or FAILED, `reason` why it failed.

    `latency_ms` per module: from sending to the first authentic status that shows the new state;
    `obeyed_ms` until current showed it too. `done` tells whether there is a verdict.
    """

    def __init__(
        self,
        name: str,
        base: int,
        data: bytes,
        modules: Iterable[int],
        now_ms: int,
        check: Check | None = None,
        quick: Callable[[Module], bool] | None = None,
        timeout_ms: int = TIMEOUT_MS,
        needs_result: bool = False,
    ) -> None:
        self.name = name
        self.base = base
        self.data = data
        self.modules = frozenset(modules)
        self.sent_ms = now_ms
        self.state = PENDING
        self.reason = ""
        self.refused = False  # by the pack's own authentic word
        self.latency_ms: dict[int, int] = {}
        self.obeyed_ms: dict[int, int] = {}
        self.confirmed: set[int] = set()  # modules that the pack says obey, by their own messages
        self.repeated_ms = now_ms
        self._check = check
        self._quick = quick
        self._needs_result = needs_result
        self._deadline_ms = now_ms + timeout_ms
        self._timeout_ms = timeout_ms
        self._last: dict[int, str] = {}
        if check is not None and not self.modules:
            self.fail("no module is known to be there")

    def __repr__(self) -> str:
        return "<Command %s %s%s>" % (
            self.name,
            self.state,
            ": " + self.reason if self.reason else "",
        )

    @property
    def measures_state(self) -> bool:
        """Whether `latency_ms` is the time until an authentic new state."""
        return self._quick is not None

    @property
    def done(self) -> bool:
        """Obeyed or failed."""
        return self.state != PENDING

    def fail(self, reason: str) -> None:
        """Give it up."""
        if not self.done:
            self.state = FAILED
            self.reason = reason

    def on_status(self, module: Module, now_ms: int) -> None:
        """A module's authentic status or current came after the command was sent."""
        number = module.number
        if self.done or self._check is None or number not in self.modules:
            return
        fresh_state = module.state_ms is not None and module.state_ms >= self.sent_ms
        fresh_current = module.current_ms is not None and module.current_ms >= self.sent_ms
        if fresh_state and number not in self.latency_ms and self._quick is not None and self._quick(module):
            self.latency_ms[number] = now_ms - self.sent_ms
        if not (fresh_state and fresh_current) or number in self.obeyed_ms:
            return
        wrong = self._check(module)
        if not wrong and self._needs_result and number not in self.confirmed:
            wrong = "the pack has not seen it obey"
        self._last[number] = wrong
        if not wrong:
            self.obeyed_ms[number] = now_ms - self.sent_ms
            self.latency_ms.setdefault(number, now_ms - self.sent_ms)
        if len(self.obeyed_ms) == len(self.modules):
            self.state = OBEYED

    def on_result(self, module_id: int, result: int, reason: int, newest: bool) -> None:
        """The pack's COMMAND_RESULT; `newest`: for the last record that carried this command."""
        if self.done or (reason == REASON_SUPERSEDED and not newest):
            return
        if result == RESULT_OBEYED:
            self.confirmed.add(module_id)
            if self._check is None:
                self.state = OBEYED
            return
        what = _RESULTS.get(result, "the pack answered result %d" % result)
        if module_id:
            what += " for module %d" % module_id
        if result == RESULT_REFUSED:
            what += ": " + _REASONS.get(reason, "reason %d" % reason)
        self.refused = result == RESULT_REFUSED
        self.fail(what)

    def on_tick(self, now_ms: int) -> None:
        """Fail when time is up, naming who did not obey and what it reports."""
        if self.done or now_ms < self._deadline_ms:
            return
        if self._check is None:
            self.fail("the pack did not answer within %d ms" % self._timeout_ms)
            return
        missing = []
        for number in sorted(self.modules - set(self.obeyed_ms)):
            wrong = self._last.get(number, "") or "it sent no authentic status"
            missing.append("module %d: %s" % (number, wrong))
        self.fail("after %d ms %s" % (self._timeout_ms, "; ".join(missing)))
