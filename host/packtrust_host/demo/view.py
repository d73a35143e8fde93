"""How a run shows itself: a live display on a terminal, plain lines elsewhere, nothing for --json."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from packtrust_host.app.model import Module, state_name

_PLAIN_EVERY_S = 5.0
_STEPS_SHOWN = 6


@dataclass
class ModuleRow:
    """A line of the live table."""

    number: int
    state: str = "-"
    epoch: int | None = None
    sealed: int = 0
    opened: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    soc: str = "-"
    current: str = "-"
    voltage: str = "-"
    temperature: str = "-"
    cells: str = "-"
    latency: str = "-"


@dataclass
class Snapshot:
    """What the live table shows. Loads are shares of the last second, 0..1; latencies in ms, as the app sees them."""

    left_s: float = 0.0
    load: dict[str, float] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)
    rows: list[ModuleRow] = field(default_factory=list)
    app: dict[str, int] = field(default_factory=dict)
    app_epoch: int | None = None
    pack: dict[str, Any] = field(default_factory=dict)
    commands: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    note: str = ""


_VERDICTS = ("sealed", "opened", "established")


def refused_of(stats: dict[str, int]) -> dict[str, int]:
    """The refusals among a channel's counters."""
    return {name: count for name, count in stats.items() if name not in _VERDICTS and count}


def cells_text(module: Module, wide: bool) -> str:
    """Every cell in mV as far as known, or lowest to highest."""
    if not module.cells:
        return "-"
    values = [module.cells[index].mv for index in sorted(module.cells)]
    if wide:
        return " ".join(str(value) for value in values)
    return "%d..%d" % (min(values), max(values))


def row_of(module: Module, wide: bool) -> ModuleRow:
    """A module of the app's model as a line."""
    return ModuleRow(
        module.number,
        state_name(module.state),
        soc="-" if module.soc_permille is None else "%.1f %%" % (module.soc_permille / 10),
        current="-" if module.current_ma is None else "%.1f A" % (module.current_ma / 1000),
        voltage="-" if module.voltage_mv is None else "%.2f V" % (module.voltage_mv / 1000),
        temperature="-" if module.cell_max_centi_c is None else "%.1f" % (module.cell_max_centi_c / 100),
        cells=cells_text(module, wide),
    )


def _counts(refused: dict[str, int]) -> str:
    return ", ".join("%s %d" % item for item in sorted(refused.items())) or "0"


def _ms(value: float | None) -> str:
    return "-" if value is None else "%.0f ms" % value


def live_table(snapshot: Snapshot) -> Table:
    """The live table."""
    title = "%.0f s left   load %s   %d state commands, p50 %s, p99 %s%s" % (
        snapshot.left_s,
        ", ".join("%s %.0f %%" % (name, 100 * value) for name, value in snapshot.load.items()) or "-",
        snapshot.commands,
        _ms(snapshot.p50_ms),
        _ms(snapshot.p99_ms),
        "   " + snapshot.note if snapshot.note else "",
    )
    table = Table(title=title, title_justify="left", title_style="", expand=False)
    for name in ("node", "state", "epoch"):
        table.add_column(name)
    for name in ("sealed", "opened"):
        table.add_column(name, justify="right")
    table.add_column("refused")
    for name in ("SOC", "current", "voltage", "degC"):
        table.add_column(name, justify="right")
    table.add_column("cells mV")
    app, epoch = snapshot.app, snapshot.app_epoch
    table.add_row(
        "app",
        "",
        "-" if epoch is None else str(epoch),
        str(app.get("sealed", 0)),
        str(app.get("opened", 0)),
        _counts(refused_of(app)),
    )
    for row in snapshot.rows:
        table.add_row(
            "module %d" % row.number,
            row.state,
            "-" if row.epoch is None else str(row.epoch),
            str(row.sealed),
            str(row.opened),
            _counts(row.refused),
            row.soc,
            row.current,
            row.voltage,
            row.temperature,
            row.cells,
        )
    return table


class View(Protocol):
    """What a run tells as it goes."""

    def phase(self, title: str) -> None:
        """A phase begins."""

    def step(self, text: str) -> None:
        """Something was done."""

    def warn(self, text: str) -> None:
        """Something failed; the run goes on."""

    def show(self, snapshot: Snapshot) -> None:
        """New figures."""

    def close(self) -> None:
        """The run is over."""


class SilentView:
    """Shows nothing."""

    def phase(self, title: str) -> None:
        """See View."""

    def step(self, text: str) -> None:
        """See View."""

    def warn(self, text: str) -> None:
        """See View."""

    def show(self, snapshot: Snapshot) -> None:
        """See View."""

    def close(self) -> None:
        """See View."""


class PlainView:
    """Lines with the time since the start, for pipes and logs; the table every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = time.monotonic()
        self._shown = 0.0

    def _line(self, text: str) -> None:
        self._console.print("[%6.1f s] %s" % (time.monotonic() - self._start, text), markup=False, soft_wrap=True)

    def phase(self, title: str) -> None:
        """See View."""
        self._line("== " + title)

    def step(self, text: str) -> None:
        """See View."""
        self._line(text)

    def warn(self, text: str) -> None:
        """See View."""
        self._line("FAILED: " + text)

    def show(self, snapshot: Snapshot) -> None:
        """See View."""
        if time.monotonic() - self._shown >= _PLAIN_EVERY_S:
            self._shown = time.monotonic()
            self._console.print(live_table(snapshot))

    def close(self) -> None:
        """See View."""


class LiveView:
    """The terminal: finished phases above, the present one with its last steps and the table below."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = time.monotonic()
        self._title = ""
        self._began = self._start
        self._steps: list[str] = []
        self._snapshot: Snapshot | None = None
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._render, transient=True)
        self._live.start()

    def _render(self) -> Group:
        parts: list[Any] = []
        if self._title:
            elapsed = time.monotonic() - self._began
            parts.append(Spinner("dots", Text("%s (%.0f s)" % (self._title, elapsed), style="bold")))
        parts += [Text("    " + text, style="dim", overflow="ellipsis", no_wrap=True) for text in self._steps]
        if self._snapshot is not None:
            parts.append(live_table(self._snapshot))
        return Group(*parts)

    def _finish(self) -> None:
        if self._title:
            took = time.monotonic() - self._began
            text = Text("✓ ", style="green")
            text.append(self._title, style="default")
            text.append("  (%.1f s)" % took, style="dim")
            if self._steps:
                text.append("  " + self._steps[-1], style="dim")
            self._console.print(text, soft_wrap=True)

    def phase(self, title: str) -> None:
        """See View."""
        self._finish()
        self._title = title
        self._began = time.monotonic()
        self._steps = []
        self._snapshot = None

    def step(self, text: str) -> None:
        """See View."""
        self._steps = [*self._steps, text][-_STEPS_SHOWN:]

    def warn(self, text: str) -> None:
        """See View."""
        self._console.print(Text("✗ " + text, style="red"), soft_wrap=True)

    def show(self, snapshot: Snapshot) -> None:
        """See View."""
        self._snapshot = snapshot

    def close(self) -> None:
        """See View."""
        self._finish()
        self._title = ""
        self._live.stop()


def make_view(console: Console | None) -> View:
    """The view that fits where the console writes to; None: silence."""
    if console is None:
        return SilentView()
    return LiveView(console) if console.is_terminal else PlainView(console)
