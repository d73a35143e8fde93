"""What the app knows of a pack from its authentic records: the live model, and figures about time."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from packtrust.messages.table import (
    FAULT_COMMS,
    STATE_OFF,
    STATE_ON,
    STATE_PRECHARGE,
    STATE_STANDBY,
)

STATE_NAMES = {
    STATE_OFF: "Off",
    STATE_STANDBY: "Standby",
    STATE_PRECHARGE: "Precharge",
    STATE_ON: "On",
}
ONLINE_MS = 4000  # the field's module time-out

_KEPT = 20_000


def state_name(state: int | None) -> str:
    """The field's word for a state."""
    return "unknown" if state is None else STATE_NAMES.get(state, str(state))


def percentile(values: Iterable[int | float], percent: float) -> float | None:
    """The nearest-rank percentile; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    rank = max(1, -(-len(ordered) * percent // 100))
    return float(ordered[min(len(ordered), int(rank)) - 1])


class Intervals:
    """Times between arrivals, in ms: count, shortest, longest, percentiles."""

    def __init__(self) -> None:
        self.count = 0
        self.last_ms: int | None = None
        self.values: deque[int] = deque(maxlen=_KEPT)

    def arrived(self, now_ms: int) -> None:
        """Note an arrival."""
        if self.last_ms is not None:
            self.values.append(now_ms - self.last_ms)
        self.last_ms = now_ms
        self.count += 1

    def summary(self) -> dict[str, float | int | None]:
        """A JSON-able summary."""
        return {
            "count": self.count,
            "min_ms": min(self.values, default=None),
            "max_ms": max(self.values, default=None),
            "p50_ms": percentile(self.values, 50),
            "p99_ms": percentile(self.values, 99),
        }


@dataclass
class Cell:
    """One cell: voltage mV, temperature 0.01 degC, SOC and SOH per mille, when it was reported."""

    mv: int
    centi_c: int
    soc_permille: int
    soh_permille: int
    at_ms: int


@dataclass
class Module:
    """One module as the pack's authentic records show it. None: not reported yet.

    Units as in the message table: mA, mV, 0.01 degC, per mille; times in ms of the app's clock.
    """

    number: int
    state: int | None = None
    status: int | None = None
    soc_permille: int | None = None
    soh_permille: int | None = None
    fault_code: int = 0
    fault_count: int = 0
    first_fault_cell: int | None = None
    balanced: bool = False
    balancing: bool = False
    cell_count: int | None = None
    voltage_mv: int | None = None
    current_ma: int | None = None
    cell_min_mv: int | None = None
    cell_max_mv: int | None = None
    cell_avg_mv: int | None = None
    cell_min_centi_c: int | None = None
    cell_max_centi_c: int | None = None
    cell_avg_centi_c: int | None = None
    max_charge_ma: int | None = None
    max_discharge_ma: int | None = None
    cells: dict[int, Cell] = field(default_factory=dict)
    state_ms: int | None = None
    current_ms: int | None = None
    limits_ms: int | None = None
    last_seen_ms: int | None = None
    intervals: Intervals = field(default_factory=Intervals)

    def online(self, now_ms: int) -> bool:
        """Whether it was reported within the module time-out and not as lost."""
        return (
            self.last_seen_ms is not None
            and now_ms - self.last_seen_ms <= ONLINE_MS
            and not self.fault_code & FAULT_COMMS
        )


Values = Mapping[str, int | None]


class Model:
    """The live model of one pack. `apply` takes a decoded authentic record."""

    def __init__(self) -> None:
        self.modules: dict[int, Module] = {}
        self.pack: dict[str, int] = {}  # fields of the pack's own records, by name
        self.pack_state: int | None = None
        self.modules_total: int | None = None
        self.modules_active: int | None = None
        self.diagnostics: dict[str, int] = {}
        self.interference: dict[int, dict[str, int]] = {}  # by module, 0 the pack: score, signs, entries
        self.records = 0
        self.burst = Intervals()
        self.last_ms: int | None = None

    def module(self, number: int) -> Module:
        """The module with this number, made if new."""
        found = self.modules.get(number)
        if found is None:
            found = self.modules[number] = Module(number)
        return found

    def online(self, now_ms: int) -> list[int]:
        """Numbers of the modules that are there."""
        return sorted(item.number for item in self.modules.values() if item.online(now_ms))

    def apply(self, name: str, values: Values, now_ms: int) -> int | None:
        """Take a record of the row `name`.

        The number of the module it is about, if it is about one.
        """
        self.records += 1
        self.last_ms = now_ms
        number = values.get("module_id")
        if name == "BUS_INTERFERENCE":
            fields = {key: value for key, value in values.items() if value is not None}
            self.interference[fields.pop("module_id")] = fields
            return None
        if number is None:
            self._apply_pack(name, values, now_ms)
            return None
        if name in ("COMMAND_RESULT", "DIAGNOSTICS_REQUEST") or not 1 <= number <= 31:
            return None
        module = self.module(number)
        if name == "CELL_DETAIL":
            self._apply_cell(module, values, now_ms)
            return number
        self._apply_module(module, values)
        if name == "MODULE_STATE":
            module.state_ms = now_ms
            module.intervals.arrived(now_ms)
            self.modules_total = values["modules_total"]
            self.modules_active = values["modules_active"]
        elif name == "MODULE_POWER":
            module.current_ms = now_ms
        elif name == "MODULE_LIMITS":
            module.limits_ms = now_ms
        elif name == "MODULE_FAULT":
            module.first_fault_cell = values["first_cell"]
        if name in ("MODULE_STATE", "MODULE_POWER"):
            module.last_seen_ms = now_ms
        return number

    def _apply_module(self, module: Module, values: Values) -> None:
        for key, value in values.items():
            if value is None or key == "module_id":
                continue
            if key in ("balanced", "balancing"):
                setattr(module, key, bool(value))
            elif key in Module.__dataclass_fields__:
                setattr(module, key, value)

    def _apply_cell(self, module: Module, values: Values, now_ms: int) -> None:
        index = values["cell_id"]
        assert index is not None  # a row of one length has all its fields
        module.cells[index] = Cell(
            values["cell_mv"] or 0,
            values["cell_centi_c"] or 0,
            values["soc_permille"] or 0,
            values["soh_permille"] or 0,
            now_ms,
        )

    def _apply_pack(self, name: str, values: Values, now_ms: int) -> None:
        fields = {key: value for key, value in values.items() if value is not None}
        if name == "PACK_DIAGNOSTICS":
            self.diagnostics.update(fields)
            return
        if name == "BMS_STATE":
            self.pack_state = fields["state"]
            self.modules_total = fields["modules_total"]
            self.modules_active = fields["modules_active"]
            self.burst.arrived(now_ms)
        prefix = "" if name == "BMS_STATE" else name.lower() + "."
        self.pack.update({prefix + key: value for key, value in fields.items()})
