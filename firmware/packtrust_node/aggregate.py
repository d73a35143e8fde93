"""From the modules' values to the pack's frames for VCU and app. Pure: slots in, (base, data) out."""

from packtrust.messages.compact import encode
from packtrust.messages.table import NO_CELL, STATE_OFF, STATE_ON
from packtrust_node.slots import UNKNOWN_CENTI_C, UNKNOWN_MV
from packtrust_node.telemetry import FAULT_MASK, FLAG_BALANCED, FLAG_BALANCING, charge_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust_node.slots import Slot

PARALLEL = "parallel"
SERIES = "series"


def _mean(total: int, count: int) -> int:
    return total // count if count else 0


def _known(slots: "list[Slot]", name: str) -> "list[tuple[int, dict[str, int]]]":
    """(number, values) of the slots whose message `name` has come."""
    found = []
    for slot in slots:
        values = getattr(slot, name)
        if values is not None:
            found.append((slot.number, values))
    return found


def _sum(known: "list[tuple[int, dict[str, int]]]", field: str) -> int:
    total = 0
    for _, values in known:
        total += values[field]
    return total


def _lowest(known: "list[tuple[int, dict[str, int]]]", field: str) -> int:
    lowest = None
    for _, values in known:
        if lowest is None or values[field] < lowest:
            lowest = values[field]
    return 0 if lowest is None else lowest


def _highest(known: "list[tuple[int, dict[str, int]]]", field: str) -> int:
    highest = None
    for _, values in known:
        if highest is None or values[field] > highest:
            highest = values[field]
    return 0 if highest is None else highest


def pack_state(slots: "list[Slot]", topology: str) -> int:
    """The state of the pack: what its terminals have. Modules in parallel: the highest state; in series: the lowest."""
    states = [slot.state for slot in slots if slot.status_1 is not None]
    if not states:
        return STATE_OFF
    return min(STATE_ON, min(states) if topology == SERIES else max(states))


def _extreme(slots: "list[Slot]", cells: str, known: str, field: str, highest: bool) -> "tuple[int, int]":
    """(module, cell) with the highest or lowest value: the module by its own figures, the cell by its details."""
    unknown = UNKNOWN_MV if cells == "cells_mv" else UNKNOWN_CENTI_C
    best = None
    number = 0
    cell = NO_CELL
    for slot in slots:
        values = getattr(slot, known)
        if values is None:
            continue
        value = values[field]
        if best is None or (value > best if highest else value < best):
            best = value
            number = slot.number
            details = getattr(slot, cells)
            cell = NO_CELL
            for index in range(len(details)):
                if details[index] == unknown:
                    continue
                if cell == NO_CELL or (details[index] > details[cell] if highest else details[index] < details[cell]):
                    cell = index
    return number, cell


def pack_frames(slots: "list[Slot]", total: int, lost: int, topology: str) -> "list[tuple[int, bytearray]]":
    """The eight messages of the 500 ms burst. `slots`: the active modules; `total`: all; `lost`: those not heard."""
    ones = _known(slots, "status_1")
    twos = _known(slots, "status_2")
    threes = _known(slots, "status_3")
    faults = _known(slots, "fault")
    limits = _known(slots, "hardware")
    state = pack_state(slots, topology)
    soc = _lowest(ones, "soc_permille")
    flags = 0
    balanced = FLAG_BALANCED if faults else 0
    for _, values in faults:
        flags |= values["fault_code"]
        balanced &= values["fault_code"]
    cells = _sum(ones, "cell_count")
    mv_total = centi_c_total = 0
    for slot in slots:
        if slot.status_1 is not None:
            count = slot.status_1["cell_count"]
            if slot.status_2 is not None:
                mv_total += slot.status_2["cell_avg_mv"] * count
            if slot.status_3 is not None:
                centi_c_total += slot.status_3["cell_avg_centi_c"] * count
    if topology == SERIES:
        voltage = _sum(ones, "voltage_mv")
        current = _mean(_sum(ones, "current_ma"), len(ones))
        charge = _lowest(limits, "max_charge_ma")
        discharge = _lowest(limits, "max_discharge_ma")
        end_mv = _sum(limits, "end_of_charge_mv")
    else:
        voltage = _mean(_sum(ones, "voltage_mv"), len(ones))
        current = _sum(ones, "current_ma")
        charge = _sum(limits, "max_charge_ma")
        discharge = _sum(limits, "max_discharge_ma")
        end_mv = _lowest(limits, "end_of_charge_mv")
    hot = _extreme(slots, "cells_centi_c", "status_3", "cell_max_centi_c", True)
    cold = _extreme(slots, "cells_centi_c", "status_3", "cell_min_centi_c", False)
    high = _extreme(slots, "cells_mv", "status_2", "cell_max_mv", True)
    low = _extreme(slots, "cells_mv", "status_2", "cell_min_mv", False)
    return [
        (
            0x410,
            encode(
                "BMS_STATE",
                state=state,
                soh_permille=_lowest(ones, "soh_permille"),
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
                cell_max_mv=_highest(twos, "cell_max_mv"),
                cell_min_mv=_lowest(twos, "cell_min_mv"),
                cell_avg_mv=_mean(mv_total, cells),
            ),
        ),
        (
            0x423,
            encode(
                "PACK_CELL_TEMP",
                cell_max_centi_c=_highest(threes, "cell_max_centi_c"),
                cell_min_centi_c=_lowest(threes, "cell_min_centi_c"),
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
        (0x428, _cell_ids("PACK_CELL_ID_VOLTAGE", high, low)),
        (0x429, _cell_ids("PACK_CELL_ID_TEMP", hot, cold)),
        (0x430, encode("PACK_ISOLATION")),  # nothing measures it; the field sends 0 too
    ]


def _cell_ids(name: str, highest: "tuple[int, int]", lowest: "tuple[int, int]") -> bytearray:
    return encode(
        name,
        max_module=highest[0],
        max_cell=highest[1],
        min_module=lowest[0],
        min_cell=lowest[1],
    )


def module_state(slot: "Slot", total: int, active: int) -> bytearray:
    """MODULE_STATE of a module that has sent STATUS_1."""
    values = slot.status_1 or {}
    code = 0 if slot.fault is None else slot.fault["fault_code"]
    return encode(
        "MODULE_STATE",
        module_id=slot.number,
        state=values["state"],
        soh_permille=values["soh_permille"],
        status=values["status"],
        balanced=1 if code & FLAG_BALANCED else 0,
        balancing=1 if code & FLAG_BALANCING else 0,
        fault_code=code & FAULT_MASK,
        soc_permille=values["soc_permille"],
        modules_total=total,
        modules_active=active,
        cell_count=values["cell_count"],
    )


def module_power(slot: "Slot") -> bytearray:
    """MODULE_POWER of a module that has sent STATUS_1."""
    values = slot.status_1 or {}
    return encode(
        "MODULE_POWER",
        module_id=slot.number,
        voltage_mv=values["voltage_mv"],
        current_ma=values["current_ma"],
    )


def module_limits(slot: "Slot") -> bytearray:
    """MODULE_LIMITS of a module that has sent HARDWARE."""
    values = slot.hardware or {}
    return encode(
        "MODULE_LIMITS",
        module_id=slot.number,
        max_discharge_ma=values["max_discharge_ma"],
        max_charge_ma=values["max_charge_ma"],
        end_of_charge_mv=values["end_of_charge_mv"],
    )


def module_fault(slot: "Slot") -> bytearray:
    """MODULE_FAULT of a module that has sent FAULT_CODES."""
    values = slot.fault or {}
    return encode(
        "MODULE_FAULT",
        module_id=slot.number,
        fault_code=values["fault_code"] & FAULT_MASK,
        first_cell=values["first_cell"],
        fault_count=values["fault_count"],
        changed_s=values["changed_ms"] // 1000,
    )


def cell_detail(number: int, values: "dict[str, int]") -> bytearray:
    """CELL_DETAIL from the values of DETAIL."""
    return encode(
        "CELL_DETAIL",
        module_id=number,
        cell_id=values["cell_id"],
        cell_centi_c=values["cell_centi_c"],
        cell_mv=values["cell_mv"],
        soc_permille=values["soc_permille"],
        soh_permille=values["soh_permille"],
    )


def module_details(slot: "Slot", total: int, active: int) -> "list[tuple[int, bytearray]]":
    """What the app is told of a module after each poll, as far as it is known."""
    frames = []
    if slot.status_1 is not None:
        frames.append((0x411, module_state(slot, total, active)))
        frames.append((0x412, module_power(slot)))
    if slot.status_2 is not None:
        values = slot.status_2
        data = encode(
            "MODULE_CELL_VOLTAGE",
            module_id=slot.number,
            cell_max_mv=values["cell_max_mv"],
            cell_min_mv=values["cell_min_mv"],
            cell_avg_mv=values["cell_avg_mv"],
        )
        frames.append((0x413, data))
    if slot.status_3 is not None:
        values = slot.status_3
        data = encode(
            "MODULE_CELL_TEMP",
            module_id=slot.number,
            cell_max_centi_c=values["cell_max_centi_c"],
            cell_min_centi_c=values["cell_min_centi_c"],
            cell_avg_centi_c=values["cell_avg_centi_c"],
        )
        frames.append((0x414, data))
    if slot.detail is not None:
        frames.append((0x439, cell_detail(slot.number, slot.detail)))
    if slot.fault is not None:
        frames.append((0x43C, module_fault(slot)))
    return frames
