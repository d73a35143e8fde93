"""Where a module's cell values come from: a model, a recording, or an integrator's driver. Integers only.

Every source has what `Cells` has. A driver is a module on the board with a function `make_cells(config)` that
returns such an object; node.json names it:

    "cells": {"source": "ecm", "count": 12, "seed": 7, "load_ma": -20000}
    "cells": {"source": "replay", "file": "cells.csv", "speed": 10}
    "cells": {"source": "driver", "module": "my_driver", ...}
"""

from packtrust._compat import const

STATE_ON = const(3)
_REST_CENTI_C = const(2500)


class Cells:
    """What a module asks of its cells.

    count         number of cells, 1..192.
    current_ma    module current, negative when discharging.
    soc_permille  state of charge, 0..1000.
    soh_permille  state of health, 0..1000.
    balancing     bit i set: cell i is being pulled down now.
    """

    count = 0
    current_ma = 0
    soc_permille = 1000
    soh_permille = 1000
    balancing = 0

    def update(self, dt_ms: int, state: int, limits: "tuple[int, int]", balancing: bool) -> None:
        """Let `dt_ms` pass. `state` is the module's (0 Off .. 3 On), `limits` the highest (charge, discharge)
        current in mA, both positive; `balancing` allows to balance."""
        raise NotImplementedError("a cell source implements update()")

    def cell_mv(self, index: int) -> int:
        """Voltage of a cell in mV."""
        raise NotImplementedError("a cell source implements cell_mv()")

    def cell_centi_c(self, index: int) -> int:
        """Temperature of a cell in 0.01 degrees Celsius."""
        raise NotImplementedError("a cell source implements cell_centi_c()")


def clip_current(wanted_ma: int, limits: "tuple[int, int]") -> int:
    """The current the limits (charge, discharge; mA, positive) leave of the one wanted."""
    return max(-limits[1], min(limits[0], wanted_ma))


# Open-circuit voltage of an NMC/graphite cell in mV at 0, 10, .. 100 % state of charge.
_OCV = (3000, 3390, 3480, 3550, 3600, 3650, 3730, 3830, 3930, 4050, 4180)
_EMPTY_MV = const(2800)
_FULL_MV = const(4200)
_BLEED_MA = const(100)
_BALANCE_ABOVE_MV = const(5)
_TAU_MS = const(30000)
_COOLING_MS = const(1600000)
_HEAT_CAPACITY = const(800)  # J/K a cell


class _Ecm:
    """One cell: open-circuit voltage, a series resistance, one RC pair, one thermal mass."""

    def __init__(self, capacity_mas: int, charge_mas: int, r0_uohm: int, r1_uohm: int, micro_c: int) -> None:
        self.capacity_mas = capacity_mas
        self.charge_mas = charge_mas
        self.r0_uohm = r0_uohm
        self.r1_uohm = r1_uohm
        self.micro_c = micro_c
        self._v1_uv = 0
        self._carry = 0  # mA ms not yet in charge_mas

    def update(self, dt_ms: int, current_ma: int) -> None:
        moved = self._carry + current_ma * dt_ms
        self.charge_mas = max(0, min(self.capacity_mas, self.charge_mas + moved // 1000))
        self._carry = moved % 1000
        self._v1_uv += (current_ma * self.r1_uohm // 1000 - self._v1_uv) * min(dt_ms, _TAU_MS) // _TAU_MS
        amps = current_ma // 1000 if current_ma >= 0 else -(-current_ma // 1000)
        heat_mw = amps * amps * (self.r0_uohm + self.r1_uohm) // 1000
        self.micro_c += heat_mw * dt_ms // _HEAT_CAPACITY
        self.micro_c -= (self.micro_c - 25000000) // 1000 * min(dt_ms, _COOLING_MS) // (_COOLING_MS // 1000)

    def permille(self) -> int:
        return self.charge_mas // (self.capacity_mas // 1000)

    def mv(self, current_ma: int) -> int:
        at = min(999, self.permille())
        low = _OCV[at // 100]
        ocv = low + (_OCV[at // 100 + 1] - low) * (at % 100) // 100
        return ocv + (current_ma // 10 * self.r0_uohm // 100 + self._v1_uv) // 1000


class EcmCells(Cells):
    """Cells by an equivalent circuit, spread from a seed.

    config: count (12), seed (0), load_ma (-20000: what flows when On, if the limits allow), capacity_mah (65000),
    soc_permille (800), spread_permille (10: how far the cells' charges lie apart, each way).

    A cell that is empty (2800 mV) or full (4200 mV) stops the current until the state or the load changes.
    """

    def __init__(self, config: dict) -> None:
        self.count = config.get("count", 12)
        self.load_ma = config.get("load_ma", -20000)
        self._random = (config.get("seed", 0) * 2654435 + 12345) & 0x3FFFFFFF
        capacity = config.get("capacity_mah", 65000) * 3600
        start = config.get("soc_permille", 800)
        apart = config.get("spread_permille", 10)
        self._stopped = 0  # the load that was stopped
        self._cells = []
        for _ in range(self.count):
            own = capacity // 1000 * (1000 + self._spread(15))
            soc = max(0, min(1000, start + self._spread(apart)))
            self._cells.append(
                _Ecm(
                    own,
                    own // 1000 * soc,
                    1000 + self._spread(100),
                    500 + self._spread(50),
                    25000000 + 10000 * self._spread(50),
                )
            )
        self.soh_permille = 985 + self._spread(10)
        self._mv = [cell.mv(0) for cell in self._cells]
        self._measure()

    def _spread(self, width: int) -> int:
        """A number in -width..width from the seed."""
        # Numerical Recipes' generator, cut to what a 32-bit board holds without heap integers.
        self._random = (self._random * 1103 + 12345) & 0xFFFFF
        return (self._random >> 4) % (2 * width + 1) - width

    def _measure(self) -> None:
        soc = 1000
        for cell in self._cells:
            soc = min(soc, cell.permille())
        self.soc_permille = soc

    def update(self, dt_ms: int, state: int, limits: "tuple[int, int]", balancing: bool) -> None:
        """See `Cells.update`."""
        current = clip_current(self.load_ma, limits) if state == STATE_ON else 0
        if (current < 0 and min(self._mv) <= _EMPTY_MV) or (current > 0 and max(self._mv) >= _FULL_MV):
            self._stopped = self.load_ma
        if state != STATE_ON or self._stopped != self.load_ma:
            self._stopped = 0
        if self._stopped:
            current = 0
        self.current_ma = current
        floor = min(self._mv) + _BALANCE_ABOVE_MV
        mask = 0
        for index in range(self.count):
            cell = self._cells[index]
            own = current
            if balancing and self._mv[index] > floor:
                mask |= 1 << index
                own -= _BLEED_MA
            cell.update(dt_ms, own)
            self._mv[index] = cell.mv(own)
        self.balancing = mask
        self._measure()

    def cell_mv(self, index: int) -> int:
        """See `Cells.cell_mv`."""
        return self._mv[index]

    def cell_centi_c(self, index: int) -> int:
        """See `Cells.cell_centi_c`."""
        return self._cells[index].micro_c // 10000


class ReplayCells(Cells):
    """Cells from a recording: a text file with a head line and rows in time order,

        t_ms,current_ma,mv1,..,mvN,centi_c          one temperature for all, or one a cell: centi_c1,..,centi_cN

    It runs only while the module is On; otherwise the current is 0 and the cells stay as they are. Where a
    limit allows less than the current recorded, less flows and the recording goes that much slower. At its end
    the current is 0.

    config: file, speed (1: recorded time; 10: ten times as fast).
    """

    def __init__(self, config: dict) -> None:
        self._path = config["file"]
        self._speed = config.get("speed", 1)
        with open(self._path) as file:
            head = file.readline().strip().split(",")
            self.count = len([name for name in head if name.startswith("mv")])
            self._temperatures = len(head) - 2 - self.count
            if head[:2] != ["t_ms", "current_ma"] or not self.count or self._temperatures not in (1, self.count):
                raise ValueError("%s: not t_ms,current_ma,mv1,..,mvN,centi_c in its first line" % self._path)
            # State of charge needs the end of the recording: read it once, keep only the sums.
            self._total, self._lowest, self._highest = self._sums(file)
        self._file = open(self._path)
        self._file.readline()
        self._row = self._next()
        if self._row is None:
            raise ValueError("%s: no rows" % self._path)
        self._after = self._next()
        self._t_ms = self._row[0]
        self._carry = 0  # recorded microseconds not yet in _t_ms
        self._moved = 0
        self.exhausted = self._after is None
        self._measure()

    def _parse(self, line: str):
        fields = line.strip().split(",")
        if len(fields) != 2 + self.count + self._temperatures:
            raise ValueError("%s: a row has %d fields, not %d" % (self._path, len(fields), self.count + 3))
        return [int(field) for field in fields]

    def _next(self):
        line = self._file.readline()
        return self._parse(line) if line.strip() else None

    def _sums(self, file) -> "tuple[int, int, int]":
        """Charge moved in mA s over the recording, and the lowest and highest sum on the way."""
        total = lowest = highest = 0
        before = None
        while True:
            line = file.readline()
            if not line.strip():
                return total, lowest, highest
            row = self._parse(line)
            if before is not None:
                total += before[1] * (row[0] - before[0]) // 1000
                lowest = min(lowest, total)
                highest = max(highest, total)
            before = row

    def _measure(self) -> None:
        # What the recording moves at most is taken as the whole capacity.
        span = self._highest - self._lowest
        self.soc_permille = max(0, min(1000, 1000 * (self._moved - self._lowest) // span)) if span else 500

    def update(self, dt_ms: int, state: int, limits: "tuple[int, int]", balancing: bool) -> None:
        """See `Cells.update`; a recording does not balance."""
        self.current_ma = 0
        if state != STATE_ON or self.exhausted:
            return
        recorded = self._row[1]
        allowed = clip_current(recorded, limits)
        passed = dt_ms * self._speed * 1000
        if recorded != allowed:
            passed = passed * allowed // recorded
        passed += self._carry
        self._t_ms += int(passed // 1000)
        self._carry = int(passed % 1000)
        while self._after is not None and self._after[0] <= self._t_ms:
            self._moved += self._row[1] * (self._after[0] - self._row[0]) // 1000
            self._row = self._after
            self._after = self._next()
        self.current_ma = clip_current(self._row[1], limits)
        if self._after is None:
            self.exhausted = True
            self.current_ma = 0
            self._file.close()
        self._measure()

    def cell_mv(self, index: int) -> int:
        """See `Cells.cell_mv`."""
        return self._row[2 + index]

    def cell_centi_c(self, index: int) -> int:
        """See `Cells.cell_centi_c`."""
        return self._row[2 + self.count + (index if self._temperatures > 1 else 0)]


def make_cells(config: dict):
    """The cell source node.json asks for; `config` is its "cells" part. ValueError if there is no such source."""
    source = config.get("source", "ecm")
    if source == "ecm":
        return EcmCells(config)
    if source == "replay":
        return ReplayCells(config)
    if source == "driver":
        return __import__(config["module"]).make_cells(config)
    raise ValueError("no cell source %r: take ecm, replay or driver" % source)
