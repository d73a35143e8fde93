"""The node's clock: tick counters that wrap, sleep they know nothing of."""

import packtrust_node.env as env
from packtrust_node.env import Clock

PERIOD = 1 << 30


class Ticks:
    """A tick counter of 30 bits, as a 32-bit board's, in the place of the interpreter's."""

    def __init__(self, start, period=PERIOD):
        self.now = start
        self.period = period

    def ms(self):
        return self.now % self.period

    def diff(self, end, start):
        half = self.period // 2
        return ((end - start + half) % self.period) - half

    def __enter__(self):
        self._saved = [
            (name, getattr(env, name, None)) for name in ("HAVE_TICKS", "TICKS_PERIOD", "ticks_ms", "ticks_diff")
        ]
        env.HAVE_TICKS = True
        env.TICKS_PERIOD = self.period
        env.ticks_ms = self.ms
        env.ticks_diff = self.diff
        return self

    def __exit__(self, *exc_info):
        for name, value in self._saved:
            setattr(env, name, value)


def test_a_counter_that_wraps_is_unwrapped():
    with Ticks(PERIOD - 5) as ticks:
        clock = Clock()
        then = clock.now_ms()
        passed = 0
        for step in (3, 10, PERIOD // 2 - 1, PERIOD // 2, PERIOD // 2 + 1, PERIOD - 1, 7):
            ticks.now += step
            passed += step
            assert clock.now_ms() - then == passed, step


def test_a_sleep_beyond_half_a_period_does_not_turn_time_back():
    """Seven days: `ticks_diff` says that it was five days ago."""
    with Ticks(1000) as ticks:
        clock = Clock()
        clock.now_ms()
        ticks.now += 7 * 86400000
        assert clock.now_ms() == 7 * 86400000


def test_a_wall_clock_set_back_stands_still():
    with Ticks(100000, 1 << 62) as ticks:
        clock = Clock()
        ticks.now += 500
        assert clock.now_ms() == 500
        ticks.now -= 300
        assert clock.now_ms() == 500
        ticks.now += 10
        assert clock.now_ms() == 510


def test_sleep_the_counter_knows_nothing_of_is_added():
    with Ticks(1000) as ticks:
        clock = Clock()
        ticks.now += 10
        clock.slept(3600000)
        assert clock.now_ms() == 3600010
    clock = Clock()
    before = clock.now_ms()
    clock.slept(5000)
    assert clock.now_ms() - before >= 5000
