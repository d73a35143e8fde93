"""From the modules' values to the pack's frames for VCU and app. Pure: slots in, (base, data) out."""

from packtrust.messages.compact import encode, field, field_at, place
from packtrust.messages.table import NO_CELL, STATE_ON
from packtrust_node.slots import (
    DETAIL_AT,
    FAULT_AT,
    GOT_DETAIL,
    GOT_FAULT,
    GOT_HARDWARE,
    GOT_STATUS_1,
    GOT_STATUS_2,
    GOT_STATUS_3,
    HARDWARE_AT,
    KNOWN,
    STATUS_1_AT,
    STATUS_2_AT,
    STATUS_3_AT,
    UNKNOWN_CENTI_C,
    UNKNOWN_MV,
)
from packtrust_node.telemetry import FAULT_MASK, FLAG_BALANCED, FLAG_BALANCING, charge_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from packtrust_node.slots import Slot

PARALLEL = "parallel"
SERIES = "series"


def _mean(total: int, count: int) -> int:
    return total // count if count else 0


def _sum(slots: "list[Slot]", place_of: int, at: int, known: int) -> int:
    """Of a field, over the slots whose message has come: `place_of` it in the table, its message `at` in Slot.row and
    `known` by a bit GOT_*."""
    total = 0
    for slot in slots:
        if slot.row[KNOWN] & known:
            total += field_at(place_of, slot.row, at)
    return total


def _extreme(slots: "list[Slot]", place_of: int, at: int, known: int, highest: bool) -> "tuple[int, Slot | None]":
    """The highest or lowest value, and of which module; (0, None) if there is none. Arguments as `_sum`."""
    best = 0
    owner = None
    for slot in slots:
        if slot.row[KNOWN] & known:
            here = field_at(place_of, slot.row, at)
            if owner is None or (here > best if highest else here < best):
                best = here
                owner = slot
    return best, owner


def _lowest(slots: "list[Slot]", place_of: int, at: int, known: int) -> int:
    return _extreme(slots, place_of, at, known, False)[0]


def pack_state(slots: "list[Slot]", topology: str) -> int:
    """The state of the pack: what its terminals have. Modules in parallel: the highest state; in series: the lowest."""
    return min(STATE_ON, _extreme(slots, place("STATUS_1", "state"), STATUS_1_AT, GOT_STATUS_1, topology != SERIES)[0])


def _cell(slot: "Slot | None", volts: bool, highest: bool) -> "tuple[int, int]":
    """(module, cell) of the extreme: the module is known by its own figures, the cell by what its cells have told."""
    if slot is None:
        return 0, NO_CELL
    best = None
    cell = NO_CELL
    for index in range(slot.cell_count):
        here = slot.cell_mv(index) if volts else slot.cell_centi_c(index)
        if here == (UNKNOWN_MV if volts else UNKNOWN_CENTI_C):
            continue
        if best is None or (here > best if highest else here < best):
            best = here
            cell = index
    return slot.number, cell


def pack_frames(slots: "list[Slot]", total: int, lost: int, topology: str) -> "list[tuple[int, bytearray]]":
    """The eight messages of the 500 ms burst. `slots`: the active modules; `total`: all; `lost`: those not heard."""
    state = pack_state(slots, topology)
    soc = _lowest(slots, place("STATUS_1", "soc_permille"), STATUS_1_AT, GOT_STATUS_1)
    flags = faults = ones = mv_total = centi_c_total = 0
    balanced = FLAG_BALANCED
    for slot in slots:
        if slot.row[KNOWN] & GOT_FAULT:
            faults += 1
            flags |= field("FAULT_CODES", "fault_code", slot.row, FAULT_AT)
            balanced &= field("FAULT_CODES", "fault_code", slot.row, FAULT_AT)
        if slot.row[KNOWN] & GOT_STATUS_1:
            ones += 1
            count = field("STATUS_1", "cell_count", slot.row, STATUS_1_AT)
            if slot.row[KNOWN] & GOT_STATUS_2:
                mv_total += count * field("STATUS_2", "cell_avg_mv", slot.row, STATUS_2_AT)
            if slot.row[KNOWN] & GOT_STATUS_3:
                centi_c_total += count * field("STATUS_3", "cell_avg_centi_c", slot.row, STATUS_3_AT)
    if not faults:
        balanced = 0
    cells = _sum(slots, place("STATUS_1", "cell_count"), STATUS_1_AT, GOT_STATUS_1)
    voltage = _sum(slots, place("STATUS_1", "voltage_mv"), STATUS_1_AT, GOT_STATUS_1)
    current = _sum(slots, place("STATUS_1", "current_ma"), STATUS_1_AT, GOT_STATUS_1)
    if topology == SERIES:
        current = _mean(current, ones)
        charge = _lowest(slots, place("HARDWARE", "max_charge_ma"), HARDWARE_AT, GOT_HARDWARE)
        discharge = _lowest(slots, place("HARDWARE", "max_discharge_ma"), HARDWARE_AT, GOT_HARDWARE)
        end_mv = _sum(slots, place("HARDWARE", "end_of_charge_mv"), HARDWARE_AT, GOT_HARDWARE)
    else:
        voltage = _mean(voltage, ones)
        charge = _sum(slots, place("HARDWARE", "max_charge_ma"), HARDWARE_AT, GOT_HARDWARE)
        discharge = _sum(slots, place("HARDWARE", "max_discharge_ma"), HARDWARE_AT, GOT_HARDWARE)
        end_mv = _lowest(slots, place("HARDWARE", "end_of_charge_mv"), HARDWARE_AT, GOT_HARDWARE)
    hot = _extreme(slots, place("STATUS_3", "cell_max_centi_c"), STATUS_3_AT, GOT_STATUS_3, True)
    cold = _extreme(slots, place("STATUS_3", "cell_min_centi_c"), STATUS_3_AT, GOT_STATUS_3, False)
    high = _extreme(slots, place("STATUS_2", "cell_max_mv"), STATUS_2_AT, GOT_STATUS_2, True)
    low = _extreme(slots, place("STATUS_2", "cell_min_mv"), STATUS_2_AT, GOT_STATUS_2, False)
    return [
        (
            0x410,
            encode(
                "BMS_STATE",
                state=state,
                soh_permille=_lowest(slots, place("STATUS_1", "soh_permille"), STATUS_1_AT, GOT_STATUS_1),
                status=charge_status(state, soc),
                balanced=1 if balanced else 0,
                balancing=1 if flags & FLAG_BALANCING else 0,
                module_fault=1 if lost or flags & FAULT_MASK else 0,
                modules_total=total,
                modules_active=len(slots),
            ),
        ),
        (0x421, encode("PACK_POWER", voltage_mv=voltage, current_ma=current)),
        (
            0x422,
            encode(
                "PACK_CELL_VOLTAGE",
                soc_ppm=soc * 1000,
                cell_max_mv=high[0],
                cell_min_mv=low[0],
                cell_avg_mv=_mean(mv_total, cells),
            ),
        ),
        (
            0x423,
            encode(
                "PACK_CELL_TEMP",
                cell_max_centi_c=hot[0],
                cell_min_centi_c=cold[0],
                cell_avg_centi_c=_mean(centi_c_total, cells),
            ),
        ),
        (
            0x425,
            encode(
                "PACK_LIMITS",
                max_discharge_ma=discharge,
                max_charge_ma=charge,
                end_of_charge_mv=end_mv,
            ),
        ),
        (
            0x428,
            _cell_ids_voltage(_cell(high[1], True, True), _cell(low[1], True, False)),
        ),
        (
            0x429,
            _cell_ids_temp(_cell(hot[1], False, True), _cell(cold[1], False, False)),
        ),
        (0x430, encode("PACK_ISOLATION")),  # nothing measures it; the field sends 0 too
    ]


def _cell_ids_voltage(highest: "tuple[int, int]", lowest: "tuple[int, int]") -> bytearray:
    return encode(
        "PACK_CELL_ID_VOLTAGE",
        max_module=highest[0],
        max_cell=highest[1],
        min_module=lowest[0],
        min_cell=lowest[1],
    )


def _cell_ids_temp(highest: "tuple[int, int]", lowest: "tuple[int, int]") -> bytearray:
    return encode(
        "PACK_CELL_ID_TEMP",
        max_module=highest[0],
        max_cell=highest[1],
        min_module=lowest[0],
        min_cell=lowest[1],
    )


def module_state(slot: "Slot", total: int, active: int) -> bytearray:
    """MODULE_STATE of a module that has sent STATUS_1."""
    code = field("FAULT_CODES", "fault_code", slot.row, FAULT_AT) if slot.row[KNOWN] & GOT_FAULT else 0
    return encode(
        "MODULE_STATE",
        module_id=slot.number,
        state=slot.state,
        soh_permille=field("STATUS_1", "soh_permille", slot.row, STATUS_1_AT),
        status=field("STATUS_1", "status", slot.row, STATUS_1_AT),
        balanced=1 if code & FLAG_BALANCED else 0,
        balancing=1 if code & FLAG_BALANCING else 0,
        fault_code=code & FAULT_MASK,
        soc_permille=field("STATUS_1", "soc_permille", slot.row, STATUS_1_AT),
        modules_total=total,
        modules_active=active,
        cell_count=field("STATUS_1", "cell_count", slot.row, STATUS_1_AT),
    )


def module_power(slot: "Slot") -> bytearray:
    """MODULE_POWER of a module that has sent STATUS_1."""
    return encode(
        "MODULE_POWER",
        module_id=slot.number,
        voltage_mv=field("STATUS_1", "voltage_mv", slot.row, STATUS_1_AT),
        current_ma=field("STATUS_1", "current_ma", slot.row, STATUS_1_AT),
    )


def module_limits(slot: "Slot") -> bytearray:
    """MODULE_LIMITS of a module that has sent HARDWARE."""
    return encode(
        "MODULE_LIMITS",
        module_id=slot.number,
        max_discharge_ma=field("HARDWARE", "max_discharge_ma", slot.row, HARDWARE_AT),
        max_charge_ma=field("HARDWARE", "max_charge_ma", slot.row, HARDWARE_AT),
        end_of_charge_mv=field("HARDWARE", "end_of_charge_mv", slot.row, HARDWARE_AT),
    )


def module_fault(slot: "Slot") -> bytearray:
    """MODULE_FAULT of a module that has sent FAULT_CODES."""
    return encode(
        "MODULE_FAULT",
        module_id=slot.number,
        fault_code=field("FAULT_CODES", "fault_code", slot.row, FAULT_AT) & FAULT_MASK,
        first_cell=field("FAULT_CODES", "first_cell", slot.row, FAULT_AT),
        fault_count=field("FAULT_CODES", "fault_count", slot.row, FAULT_AT),
        changed_s=field("FAULT_CODES", "changed_ms", slot.row, FAULT_AT) // 1000,
    )


def cell_detail(slot: "Slot") -> bytearray:
    """CELL_DETAIL from the newest DETAIL of a module."""
    return encode(
        "CELL_DETAIL",
        module_id=slot.number,
        cell_id=field("DETAIL", "cell_id", slot.row, DETAIL_AT),
        cell_centi_c=field("DETAIL", "cell_centi_c", slot.row, DETAIL_AT),
        cell_mv=field("DETAIL", "cell_mv", slot.row, DETAIL_AT),
        soc_permille=field("DETAIL", "soc_permille", slot.row, DETAIL_AT),
        soh_permille=field("DETAIL", "soh_permille", slot.row, DETAIL_AT),
    )


def kept_cell(slot: "Slot", cell: int) -> bytearray:
    """CELL_DETAIL of a cell that has told something, with the state of charge and health of its module."""
    return encode(
        "CELL_DETAIL",
        module_id=slot.number,
        cell_id=cell,
        cell_centi_c=slot.cell_centi_c(cell),
        cell_mv=slot.cell_mv(cell),
        soc_permille=field("STATUS_1", "soc_permille", slot.row, STATUS_1_AT),
        soh_permille=field("STATUS_1", "soh_permille", slot.row, STATUS_1_AT),
    )


def module_details(slot: "Slot", total: int, active: int) -> "Iterator[tuple[int, bytearray]]":
    """What the app is told of a module after each poll, as far as it is known."""
    known = slot.row[KNOWN]
    if known & GOT_STATUS_1:
        yield 0x411, module_state(slot, total, active)
        yield 0x412, module_power(slot)
    if known & GOT_STATUS_2:
        data = encode(
            "MODULE_CELL_VOLTAGE",
            module_id=slot.number,
            cell_max_mv=field("STATUS_2", "cell_max_mv", slot.row, STATUS_2_AT),
            cell_min_mv=field("STATUS_2", "cell_min_mv", slot.row, STATUS_2_AT),
            cell_avg_mv=field("STATUS_2", "cell_avg_mv", slot.row, STATUS_2_AT),
        )
        yield 0x413, data
    if known & GOT_STATUS_3:
        data = encode(
            "MODULE_CELL_TEMP",
            module_id=slot.number,
            cell_max_centi_c=field("STATUS_3", "cell_max_centi_c", slot.row, STATUS_3_AT),
            cell_min_centi_c=field("STATUS_3", "cell_min_centi_c", slot.row, STATUS_3_AT),
            cell_avg_centi_c=field("STATUS_3", "cell_avg_centi_c", slot.row, STATUS_3_AT),
        )
        yield 0x414, data
    if known & GOT_DETAIL:
        yield 0x439, cell_detail(slot)
    if known & GOT_FAULT:
        yield 0x43C, module_fault(slot)


def is_obeyed(slot: "Slot", charge_ma: int, discharge_ma: int) -> bool:
    """Whether the limits a module has told are not above these."""
    return (
        slot.row[KNOWN] & GOT_HARDWARE != 0
        and field("HARDWARE", "max_charge_ma", slot.row, HARDWARE_AT) <= charge_ma
        and field("HARDWARE", "max_discharge_ma", slot.row, HARDWARE_AT) <= discharge_ma
    )
