"""The field's traps, row by row, and what we do about them; names of values; units.

For the generated document and DBC file. Boards do not load this.
"""

NOTES = {
    "COMMAND": "Refused in clear. Byte 1 is unused.",
    "TIME": ("Unix time. Unauthenticated in the field, so of no use for freshness; here configuration, sealed."),
    "READ_EEPROM": (
        "The field answers anyone with any register: keys kept there would leak. Here configuration, sealed."
    ),
    "WRITE_EEPROM": ("The field lets anyone write, and every write restarts the pack's initialisation. Here sealed."),
    "MODULE_COMMAND": (
        "The field's header lets a bit-field straddle a 32-bit unit; the ABI moves it up, so the "
        "header's comments are wrong: hv_bus is in bytes 4-5, not in bits 24-39. The struct has 12 "
        "bytes; 8 go on the bus."
    ),
    "KEEP_ALIVE": "module_id 0: pack mode; another: direct control of that module.",
    "REQUEST_MODULE_LIST": "The field's pack has an empty handler for it.",
    "WEB4_PACK_KEY_HALF": (
        "The field's key transfer in clear. Extended frames whose whole 29-bit ID is the small "
        "number, with the chunk number OR-ed into bits 8..10, where the base already has bit 10: "
        "chunks 4..7 alias 0..3, six of eight frames no longer match, and no key ever completes. "
        "Pack number is OR-ed too, not times 0x100. Our nodes never take it."
    ),
    "WEB4_APP_KEY_HALF": "See WEB4_PACK_KEY_HALF.",
    "WEB4_COMPONENT_IDS": (
        "See WEB4_PACK_KEY_HALF. The pack expects two names of 32 bytes in one item; the app sends "
        "two items, the second as WEB4_KEY_STATUS."
    ),
    "WEB4_KEY_STATUS": (
        "See WEB4_PACK_KEY_HALF. The app sends the app's component ID here, the pack ignores it. "
        "Acknowledgements would be base + 0xA0 (0x4A7..0x4A9); the two sides disagree on their "
        "bytes and no pack sends them."
    ),
    "BMS_STATE": "SOH in steps of 0.4 %, unlike everywhere else (0.5 %).",
    "MODULE_STATE": (
        "Sent under direct module control only. Fault bits: 0 comms, 1 hardware, 2 over-current, 3 "
        "over-temperature, 4 over-voltage; 5 under-voltage is ours. The field's app reads them "
        "shifted by one and shows none."
    ),
    "MODULE_POWER": (
        "The field's header lets a bit-field straddle a 32-bit unit; the ABI moves it up, so the "
        "header's comments are wrong: the current is in bytes 4-5, not 3-4."
    ),
    "MODULE_CELL_VOLTAGE": (
        "The field's header lets a bit-field straddle a 32-bit unit; the ABI moves it up, so the "
        "header's comments are wrong: the lowest is in bytes 4-5, the average in 6-7."
    ),
    "MODULE_CELL_TEMP": (
        "The field's header lets a bit-field straddle a 32-bit unit; the ABI moves it up, so the "
        "header's comments are wrong: the lowest is in bytes 4-5, the average in 6-7."
    ),
    "MODULE_CELL_ID": "Not implemented in the field; the places of the fields are ours.",
    "MODULE_LIMITS": (
        "The field's header lets a bit-field straddle a 32-bit unit; the ABI moves it up, so the "
        "header's comments are wrong: the charge limit is in bytes 4-5, the end-of-charge voltage "
        "in 6-7."
    ),
    "MODULE_LIST": (
        "One bit a module. Never sent in the field, where the ID header calls 0x417 a module list "
        "and the structs are named 0x41F module list and 0x417 module isolation."
    ),
    "PACK_POWER": "Bytes 0-3 are zero.",
    "PACK_CELL_VOLTAGE": "SOC in steps of 0.0015625 %: 64000 is 100 %.",
    "PACK_CELL_TEMP": ("Steps of 0.03125 degC from -273 degC, unlike the modules' 0.01 degC from -55.35 degC."),
    "PACK_LIMITS": "Discharge before charge; HARDWARE and LIMITS have them the other way round.",
    "PACK_CELL_ID_VOLTAGE": "The field always sends cell 0.",
    "PACK_CELL_ID_TEMP": "The field always sends cell 0.",
    "PACK_ISOLATION": (
        "The field always sends 0, its macro says steps of 0.001, the comment beside it 0.01, and "
        "another comment says that the ID should be 0x42A. So a raw number."
    ),
    "VCU_TIME_REQUEST": "All zero; repeated every 500 ms until TIME arrives.",
    "EEPROM_DATA": "Configuration read back: never sent in clear here.",
    "ISOTP_TO_PACK": ("ISO 15765-2. Bit 17 set: a long record; clear: claim and packages. Two separate links."),
    "ISOTP_FROM_PACK": "See ISOTP_TO_PACK.",
    "HANDSHAKE_TO_PACK": "Segmented, bit 17 clear.",
    "HANDSHAKE_FROM_PACK": "Segmented, bit 17 clear.",
    "APP_ANNOUNCE_REQUEST": "Node byte 0x7F: to every pack. version: of the wire format.",
    "PACK_ANNOUNCEMENT": "version: of the wire format.",
    "TEST_TO_PACK": "Test service over ISO-TP; refused once the node has keys.",
    "TEST_FROM_PACK": "See TEST_TO_PACK.",
    "CELL_DETAIL": "DETAIL with the module's number for byte 1.",
    "LIMITS_COMMAND": "module_id 0: every module. Byte 1 is zero.",
    "COMMAND_RESULT": (
        "command: low byte of the command's base; counter: low 32 bits of the counter of the "
        "record that carried it. result: 0 obeyed, 1 refused, 2 module not reachable, 3 module did "
        "not follow in time."
    ),
    "MODULE_FAULT": ("FAULT_CODES for the app. changed: the module's uptime at the last change, in s. Byte 3 is zero."),
    "PACK_DIAGNOSTICS": ("Counters stop at their highest value. Since boot, over all of the pack's links."),
    "BUS_INTERFERENCE": (
        "What a node has seen of somebody who disturbs or lies (docs/audit.md): score 0..100, a leaky "
        "bucket; signs, a bit each, latched until the owner clears them; entries, the number its next "
        "audit entry will have. module_id 0: the pack itself; else what that module says in INTERFERENCE."
    ),
    "INTERFERENCE": "As BUS_INTERFERENCE, of one module.",
    "DIAGNOSTICS_REQUEST": (
        "module_id 0: the pack. what: 0 counters (PACK_DIAGNOSTICS), 1 faults (MODULE_FAULT), 2 cells (CELL_DETAIL)."
    ),
    "ANNOUNCEMENT": (
        "The field's module keeps its registration number 0 while it is not registered and "
        "announces with node byte 0x00, not 0xFF as its header says. Take both."
    ),
    "HARDWARE": "end_of_charge = cells * 4.2 V * 0.95 in the field.",
    "STATUS_1": (
        "The header's comments swap state and status; code and traffic agree with this: state is the low nibble."
    ),
    "STATUS_3": "Bytes 6-7 are zero.",
    "DETAIL": (
        "Cells count from 0, in reverse: cell n is at buffer index cells - 1 - n. Byte 1 is how "
        "many cells reported in the last complete round, not how many there are. The field's "
        "integer division makes SOC and SOH 0 or whole hundreds; their step is not documented, 0.5 "
        "% as in STATUS_1 is taken."
    ),
    "TIME_REQUEST": "Field: 8 zero bytes; header and DBC say none. Both are taken.",
    "CELL_COMM_STATUS1": ("fewest_messages 0xFF: no cell reported. first_i2c_cell 0xFF: no fault. Bytes 6-7 are zero."),
    "CELL_COMM_STATUS2": "ID reserved in the field, no layout, never sent.",
    "STATUS_4": "ID reserved in the field, no layout, never sent.",
    "REGISTRATION": (
        "Node byte 0xFF. The module checks manufacturer, part and unique id, and nothing else: in "
        "the field any node can register it. The number goes up to 31; the field's pack can give "
        "32."
    ),
    "HARDWARE_REQUEST": "Byte 0 is uninitialised in the field's pack. Ours is 0.",
    "STATUS_REQUEST": (
        "Byte 0 is uninitialised in the field's pack. In ours its low nibble is the highest state the module may hold, "
        "bit 4 says that the pack is in limp mode, and behind it stands the counter of the newest broadcast (5 bytes)."
    ),
    "STATE_CHANGE": (
        "The field's pack sends 4 bytes, its module takes 2 only, so the one cannot command the "
        "other. We send 4 and take both. Byte 0 is uninitialised in the field's pack. Ours is 0."
    ),
    "DETAIL_REQUEST": ("cell_id 0xFF: all. Bytes 0 and 2 are unused; the field's pack leaves byte 0 uninitialised."),
    "SET_TIME": (
        "Broadcast, though the header says unicast. The field's module keeps bit 63 (valid) as part of its time."
    ),
    "MAX_STATE": (
        "The heartbeat, every 200 ms: a broadcast (node byte 0x00), sealed under the group key; it only lowers. To one "
        "module, under its pair's keys, it may raise. In the field any accepted frame keeps a module alive."
    ),
    "DEREGISTER": "Byte 0 is uninitialised in the field's pack. Ours is 0.",
    "ANNOUNCE_REQUEST": "Node byte 0xFF.",
    "ALL_DEREGISTER": "The field's module does not check controller_id.",
    "ALL_ISOLATE": (
        "Taken in clear only while the module has no live session. The field's module does not check controller_id."
    ),
    "FRAME_TRANSFER_REQUEST": "frame_counter 0xFFFFFFFF: the current one. Bytes 4-7 are zero.",
    "FRAME_TRANSFER_START": (
        "The field sends segments = 129 for 128 data frames and the end frame. Bytes 6-7 are zero."
    ),
    "FRAME_TRANSFER_DATA": (
        "In clear the sequence (0..127) is in bits 17..8 of the ID, so bit 17 is its top bit, "
        "never set in practice; no node that holds keys takes it so. Sealed, bit 17 means "
        "encrypted and the sequence follows the data (10 bytes)."
    ),
    "FRAME_TRANSFER_END": (
        "CRC-32 (reflected EDB88320, start and final XOR FFFFFFFF) over the 1024 bytes. Bytes 4-7 are zero."
    ),
    "FAULT_CODES": (
        "Fault bits as in MODULE_STATE, and no faults: 0x40 the module balances its cells, 0x80 they are balanced (the "
        "pack shows these two in MODULE_STATE). first_cell 0xFF: none. changed: the module's uptime at the last change."
    ),
    "LIMITS": "Ours; the field's pack cannot limit a module.",
    "BALANCE": ("Ours. Byte 1 is zero. One old emulator's document uses this ID for something else; no code does."),
    "ROTATION_FROM_MODULE": "Ours, sealed only: the module's half of a new epoch without an app (wire.md, section 9).",
    "ROTATION_TO_MODULE": "Ours, sealed only: the pack makes a new epoch without an app (wire.md, section 9).",
    "GROUP_KEY": "Bytes 4-35 are the group's secret; beat counts the broadcasts. See wire.md, section 10.",
    "GROUP_STATUS": (
        "Answers GROUP_KEY, and says what the module has refused since it started; sent again when that has changed."
    ),
    "LEGACY_GRANT": (
        "Ours, under the policy legacy-vcu alone: how far an old VCU may raise the pack in clear, and for how long: "
        "policy.md."
    ),
    "ISOTP_FROM_MODULE": "See ISOTP_TO_PACK.",
    "ISOTP_TO_MODULE": "See ISOTP_TO_PACK.",
    "HANDSHAKE_FROM_MODULE": "Segmented, bit 17 clear.",
    "HANDSHAKE_TO_MODULE": "Segmented, bit 17 clear.",
    "TEST_FROM_MODULE": "See TEST_TO_PACK.",
    "TEST_TO_MODULE": "See TEST_TO_PACK.",
}

_STATE = {0: "Off", 1: "Standby", 2: "Precharge", 3: "On"}

# Names of values, by field name; the field's own, and ours for our rows.
VALUE_NAMES = {
    "state": _STATE,
    "max_state": _STATE,
    "contactor_state": _STATE,
    "status": {0: "Off", 1: "Empty", 2: "Normal", 3: "Full"},
    "result": {0: "Obeyed", 1: "Refused", 2: "Unreachable", 3: "Timeout"},
    "what": {0: "Counters", 1: "Fault", 2: "Cells"},
}

# Ending of a field name: symbol of the SI unit, and how many of ours make one of it.
UNITS = {
    "_ma": ("A", 1000),
    "_mv": ("V", 1000),
    "_centi_c": ("degC", 100),
    "_permille": ("%", 10),
    "_ppm": ("%", 10000),
    "_ms": ("ms", 1),
    "_s": ("s", 1),
}


def unit_of(field_name: str) -> "tuple[str, str, int]":
    """(name without its ending, SI unit or "", how many of our units make one of it)."""
    for ending, (unit, scale) in UNITS.items():
        if field_name.endswith(ending):
            return field_name[: -len(ending)], unit, scale
    return field_name, "", 1
