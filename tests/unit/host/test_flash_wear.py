"""How often a node writes its flash: the figures of docs/storage.md, each a bound that must hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from app_bench import AppBench
from attacker import commission, modules_of
from packtrust.messages.table import STATE_OFF, STATE_ON

PAGE = Path(__file__).resolve().parents[3] / "docs/storage.md"


def bounds() -> dict[str, int]:
    """Event -> operations of the store at most, from the page's table."""
    table = PAGE.read_text().split("| event | operations at most |", 1)[1]
    rows = re.findall(r"^\| ([^|]+?) \| (\d+)[^|]*\|", table.split("\n\n", 1)[0], re.MULTILINE)
    assert len(rows) == 8
    return {event: int(count) for event, count in rows}


class Meter:
    """Operations of the stores of pack and module since it was asked last; the larger of the two."""

    def __init__(self, bench: AppBench) -> None:
        self._bench = bench
        self._before = self._now()

    def _now(self) -> dict[str, int]:
        return {name: sum(self._bench.pack.node(name).env.store.written.values()) for name in ("pack", "module1")}

    def most(self) -> int:
        now = self._now()
        found = max(now[name] - self._before[name] for name in now)
        self._before = now
        return found


def test_writes_are_bounded_as_documented(tmp_path: Any) -> None:
    limit = bounds()
    bench = AppBench(tmp_path, modules=1)
    meter = Meter(bench)
    assert 0 < max(meter._before.values()) <= limit["first boot"]
    for name in ("pack", "module1"):
        bench.pack.power_cycle(name)
        assert sum(bench.pack.node(name).env.store.written.values()) == limit["boot"] == 1
    meter = Meter(bench)
    survey = commission(bench)
    bench.pack.run_for(3000)
    # A pack has two relationships here, each of which is a package and a commit.
    assert 0 < meter.most() <= 2 * limit["claim or provisioning, a relationship"]
    for state in (STATE_ON, STATE_OFF):
        command = bench.node.set_state(state)
        assert bench.pack.run_until(lambda command=command: command.done, 10_000)
    bench.pack.run_for(60_000)
    assert meter.most() == 0, "an ordinary minute writes"
    number = modules_of(bench)[0].own_node
    record = next(item for item in bench.store.relationships.values() if item.node == number)
    bench.run(bench.provisioner().install(record.lct_id))
    bench.pack.run_for(3000)
    assert 0 < meter.most() <= limit["rotation by the app, a relationship"]
    usage = bench.pack.node("pack").usage
    bench.pack.power_off("app")
    bench.pack.run_for(8000)
    relation = next(item for item in bench.pack.node("pack").relations.values() if item.node == number)
    usage._figures[usage._at(relation)] = relation.max_records * 6 // 8
    meter.most()
    bench.pack.run_for(8000)
    assert 0 < meter.most() <= limit["rotation without an app"]
    bench.pack.stations["app"].power_on()
    bench.node = bench.pack.stations["app"].node
    bench.restart_app()
    bench.pack.run_for(5000)
    meter.most()
    # A day with power, hour by hour: nothing but the usage of the epochs.
    now_ms = bench.pack.now_ms
    for hour in range(1, 25):
        usage.tick(now_ms + hour * 3_600_000)
    assert 20 <= meter.most() <= limit["day with power"]
    usage._looked_ms = now_ms
    device = survey.modules[0]
    bench.run(bench.provisioner().release(device))
    bench.pack.run_for(1000)
    assert 0 < meter.most() <= limit["release or reset"] + limit["first boot"]
