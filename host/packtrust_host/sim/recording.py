"""Splits a battery cycler's recording into one replay file a module (`packtrust_node.cells`).

Columns used, found by name in the line that has "Total Time" (lines before it are ignored):

    Total Time             seconds
    Current                A, negative when discharging
    Cell Voltage A1 ..     V; as many for each module as `cells_per_module`, in order
    Temperature A1 ..      degrees Celsius; one a module, or one for all
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

TIME, CURRENT = "Total Time", "Current"
VOLTAGE = re.compile(r"Cell Voltage ([A-Z]+)(\d+)")
TEMPERATURE = re.compile(r"Temperature ([A-Z]+)(\d+)")


class RecordingError(ValueError):
    """The recording cannot be used; the text says which line or column is wrong."""


class Recording:
    """A recording's columns and rows.

    path              the CSV file, read as text; undecodable bytes in its head lines do not matter.
    cells_per_module  2 as in a Nissan Leaf module, which shows two voltages.
    """

    def __init__(self, path: str | os.PathLike[str], cells_per_module: int = 2) -> None:
        self.path = Path(path)
        self.cells_per_module = cells_per_module
        self._head_line, names = self._find_head()
        self._time = names.index(TIME)
        if CURRENT not in names:
            raise RecordingError("%s has no column named Current" % self.path.name)
        self._current = names.index(CURRENT)
        self._voltages = _numbered(names, VOLTAGE)
        self._temperatures = _numbered(names, TEMPERATURE)
        if not self._voltages or len(self._voltages) % cells_per_module:
            raise RecordingError(
                "%s has %d cell voltages, not a multiple of %d: give the cells a module has"
                % (self.path.name, len(self._voltages), cells_per_module)
            )
        self.modules = len(self._voltages) // cells_per_module
        if len(self._temperatures) not in (1, self.modules):
            raise RecordingError(
                "%s has %d temperatures for %d modules: one for each, or one for all"
                % (self.path.name, len(self._temperatures), self.modules)
            )

    def _find_head(self) -> tuple[int, list[str]]:
        with self.path.open(encoding="utf-8", errors="replace", newline="") as file:
            for number, fields in enumerate(csv.reader(file), 1):
                names = [field.strip() for field in fields]
                if TIME in names:
                    return number, names
        raise RecordingError("%s has no line with a column named Total Time: is it a recording?" % self.path.name)

    def rows(self) -> Iterator[tuple[int, int, list[int], list[int]]]:
        """(time in ms from the first row, mA, mV of each cell, 0.01 degrees of each sensor).

        Ends at the first row without a time. RecordingError if a value is missing, not a number or
        time runs backwards.
        """
        start: int | None = None
        before = 0
        with self.path.open(encoding="utf-8", errors="replace", newline="") as file:
            for number, fields in enumerate(csv.reader(file), 1):
                if number <= self._head_line:
                    continue
                if len(fields) <= self._time or not _is_number(fields[self._time]):
                    if start is not None:
                        return
                    continue  # units, or an empty line, below the head
                try:
                    time_ms = _scaled(fields[self._time], 1000)
                    current_ma = _scaled(fields[self._current], 1000)
                    mv = [_scaled(fields[column], 1000) for column in self._voltages]
                    centi_c = [_scaled(fields[column], 100) for column in self._temperatures]
                except (ValueError, IndexError) as error:
                    raise RecordingError(
                        "%s line %d: a value is missing or not a number" % (self.path.name, number)
                    ) from error
                if start is None:
                    start = before = time_ms
                if time_ms < before:
                    raise RecordingError("%s line %d: time runs backwards" % (self.path.name, number))
                before = time_ms
                yield time_ms - start, current_ma, mv, centi_c

    def peaks_ma(self) -> tuple[int, int]:
        """Highest charge and discharge current in mA, both positive or 0: what the module must bear."""
        charge = discharge = 0
        for _, current_ma, _, _ in self.rows():
            charge = max(charge, current_ma)
            discharge = max(discharge, -current_ma)
        return charge, discharge

    def split(self, folder: Path) -> list[Path]:
        """Write module1.csv .. moduleN.csv into `folder`; their paths in order."""
        size = self.cells_per_module
        head = ",".join(["t_ms", "current_ma", *("mv%d" % (cell + 1) for cell in range(size)), "centi_c"])
        lines: list[list[str]] = [[head] for _ in range(self.modules)]
        for time_ms, current_ma, mv, centi_c in self.rows():
            for module, own in enumerate(lines):
                cells = mv[module * size : (module + 1) * size]
                heat = centi_c[module if len(centi_c) > 1 else 0]
                own.append(",".join(str(value) for value in (time_ms, current_ma, *cells, heat)))
        if len(lines[0]) < 3:
            raise RecordingError("%s has fewer than two rows of values" % self.path.name)
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for module, own in enumerate(lines, 1):
            path = folder / ("module%d.csv" % module)
            path.write_text("\n".join(own) + "\n", encoding="ascii")
            paths.append(path)
        return paths


def _numbered(names: list[str], pattern: re.Pattern[str]) -> list[int]:
    found = []
    for column, name in enumerate(names):
        match = pattern.fullmatch(name)
        if match:
            found.append((len(match[1]), match[1], int(match[2]), column))
    return [column for *_, column in sorted(found)]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _scaled(text: str, factor: int) -> int:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not finite")
    return round(value * factor)
