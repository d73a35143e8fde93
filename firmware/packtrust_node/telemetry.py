"""From a cell source to the module's status messages."""

from packtrust._compat import const
from packtrust.messages.compact import encode
from packtrust.messages.table import (
    FAULT_HARDWARE,
    FAULT_OVER_CURRENT,
    FAULT_OVER_TEMPERATURE,
    FAULT_OVER_VOLTAGE,
    FAULT_UNDER_VOLTAGE,
    NO_CELL,
    STATE_OFF,
    STATUS_EMPTY,
    STATUS_FULL,
    STATUS_NORMAL,
    STATUS_OFF,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust_node.cells import Cells

# Bits of FAULT_CODES.fault_code above the faults: the pack shows them as `balancing` and `balanced`.
FLAG_BALANCING = const(0x40)
FLAG_BALANCED = const(0x80)
FAULT_MASK = const(0x3F)

# In permille: below, a battery is empty; above, full.
EMPTY_PERMILLE = const(50)
FULL_PERMILLE = const(950)

# As in the field: this much above the limit is no over-current yet.
_TOLERANCE_MA = const(300)


def charge_status(state: int, soc_permille: int) -> int:
    """STATUS_* of a module or pack."""
    if state == STATE_OFF:
        return STATUS_OFF
    if soc_permille < EMPTY_PERMILLE:
        return STATUS_EMPTY
    return STATUS_FULL if soc_permille > FULL_PERMILLE else STATUS_NORMAL


class Telemetry:
    """Measures `cells` and makes the messages. Faults are reported; what to do about them is the pack's business.

    config: over_mv (4250), under_mv (2500), over_centi_c (6000) are where a cell is faulty.
    """

    def __init__(self, cells: "Cells", config: "dict[str, object]", now_ms: int) -> None:
        self.cells = cells
        self.fault_code = 0
        self.first_fault_cell = NO_CELL
        self.fault_count = 0
        self.failed = False  # the cell source raised
        self.balanced_mv = 10
        self._over_mv = config.get("over_mv", 4250)
        self._under_mv = config.get("under_mv", 2500)
        self._over_centi_c = config.get("over_centi_c", 6000)
        self._boot_ms = now_ms
        self._changed_ms = 0
        self._updates = 0
        self.min_mv = self.max_mv = self.total_mv = 0
        self.min_c = self.max_c = self.total_c = 0

    def measure(self, limits: "tuple[int, int]", now_ms: int) -> None:
        """Read every cell; if one raises, the old values stay. `limits`: highest charge and discharge current, mA."""
        cells = self.cells
        faults = FAULT_HARDWARE if self.failed else 0
        first = NO_CELL
        min_mv = min_c = 1 << 29
        max_mv = max_c = -(1 << 29)
        total_mv = total_c = 0
        for index in range(cells.count):
            mv = cells.cell_mv(index)
            centi_c = cells.cell_centi_c(index)
            fault = 0
            if mv > self._over_mv:
                fault = FAULT_OVER_VOLTAGE
            elif mv < self._under_mv:
                fault = FAULT_UNDER_VOLTAGE
            if centi_c > self._over_centi_c:
                fault |= FAULT_OVER_TEMPERATURE
            if fault:
                faults |= fault
                if first == NO_CELL:
                    first = index
            min_mv = min(min_mv, mv)
            max_mv = max(max_mv, mv)
            total_mv += mv
            min_c = min(min_c, centi_c)
            max_c = max(max_c, centi_c)
            total_c += centi_c
        current = cells.current_ma
        if current > limits[0] + _TOLERANCE_MA or current < -limits[1] - _TOLERANCE_MA:
            faults |= FAULT_OVER_CURRENT
        self.min_mv, self.max_mv, self.total_mv = min_mv, max_mv, total_mv
        self.min_c, self.max_c, self.total_c = min_c, max_c, total_c
        self.first_fault_cell = first
        self._updates = min(254, self._updates + 1)
        self._set_faults(faults, now_ms)

    def fail(self, now_ms: int) -> None:
        """The cell source does not work: a hardware fault until it does again."""
        self.failed = True
        self._set_faults(self.fault_code | FAULT_HARDWARE, now_ms)

    def _set_faults(self, faults: int, now_ms: int) -> None:
        if faults & ~self.fault_code:
            self.fault_count += 1
        if faults != self.fault_code:
            self._changed_ms = now_ms - self._boot_ms
        self.fault_code = faults

    def status_1(self, state: int) -> bytearray:
        """STATUS_1."""
        cells = self.cells
        return encode(
            "STATUS_1",
            state=state,
            status=charge_status(state, cells.soc_permille),
            soc_permille=cells.soc_permille,
            soh_permille=cells.soh_permille,
            cell_count=cells.count,
            current_ma=cells.current_ma,
            voltage_mv=self.total_mv,
        )

    def status_2(self) -> bytearray:
        """STATUS_2."""
        return encode(
            "STATUS_2",
            cell_min_mv=self.min_mv,
            cell_max_mv=self.max_mv,
            cell_avg_mv=self.total_mv // self.cells.count,
            cell_total_mv=self.total_mv,
        )

    def status_3(self) -> bytearray:
        """STATUS_3."""
        return encode(
            "STATUS_3",
            cell_min_centi_c=self.min_c,
            cell_max_centi_c=self.max_c,
            cell_avg_centi_c=self.total_c // self.cells.count,
        )

    def cell_comm(self) -> bytearray:
        """CELL_COMM_STATUS1: how often the cells reported since it was asked for last."""
        updates = self._updates
        self._updates = 0
        return encode(
            "CELL_COMM_STATUS1",
            fewest_messages=updates,
            most_messages=updates,
            first_i2c_cell=NO_CELL,
        )

    def fault_codes(self) -> bytearray:
        """FAULT_CODES, with the balancing flags."""
        code = self.fault_code
        if self.cells.balancing:
            code |= FLAG_BALANCING
        if self.max_mv - self.min_mv <= self.balanced_mv:
            code |= FLAG_BALANCED
        return encode(
            "FAULT_CODES",
            fault_code=code,
            first_cell=self.first_fault_cell,
            fault_count=self.fault_count,
            changed_ms=self._changed_ms,
        )

    def detail(self, index: int) -> bytearray:
        """DETAIL of one cell."""
        cells = self.cells
        return encode(
            "DETAIL",
            cell_id=index,
            cells_reported=cells.count,
            cell_centi_c=cells.cell_centi_c(index),
            cell_mv=cells.cell_mv(index),
            soc_permille=cells.soc_permille,
            soh_permille=cells.soh_permille,
        )
