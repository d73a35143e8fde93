"""The one table of messages: the field's, with their real layouts, and our own.

The field's are 0x400..0x441 (VCU bus) and 0x500..0x523 (module bus).

Rows are text: some 5 KB in all, in flash where the build is frozen; a `Message` is made when a row
is first asked for. Everything is little-endian and unsigned; a sign comes from an offset. What a
reader must know about a row (where the field's documents are wrong, what its nodes really send) is
in `notes.py`, which a board never loads.

A row: base in hex, name, direction, class, address, lengths, fields. An indented line continues the
one above.

direction   who sends: M module, P pack, V app or VCU
class       of `policy.CLASS_NAMES`
address     how a clear frame is addressed:
            S  11-bit, ID = base + 0x100 * pack number; its sealed twin is 29-bit, node byte 0x40 +
            pack number
            R  29-bit, and the whole ID is the small base number (the field's key transfer)
            M  29-bit, node byte = the module's;  P  = the pack's, 0x40 + pack number
            B  = 0x00, broadcast;  U  = 0xFF, unregistered. Sealed, B goes to each module by its own
            node byte.
lengths     data lengths that are accepted, the one we send first; -: any
field       name@start:bits, then *num/den and an offset: value = raw * num / den + offset, in the
            unit that the name ends with: _ma mA, _mv mV, _centi_c 0.01 degC, _permille 0.1 %, _ppm
            0.0001 %, _s, _ms; else none. start counts bits from bit 0 of byte 0.
"""

from packtrust.policy import (
    CITED,
    CLASS_FLAGS,
    CLASS_NAMES,
    CLEAR_UNKEYED,
    CLEAR_WITHOUT_SESSION,
    SEALABLE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    # name, start bit, bits, num, den, offset
    Field = tuple[str, int, int, int, int, int]

MODULE_TO_PACK = "M>P"
PACK_TO_MODULE = "P>M"
VCU_TO_PACK = "V>P"
PACK_TO_VCU = "P>V"

# Values of `state`, `max_state` and `contactor_state`.
STATE_OFF = 0
STATE_STANDBY = 1
STATE_PRECHARGE = 2
STATE_ON = 3

# Values of `status`.
STATUS_OFF = 0
STATUS_EMPTY = 1
STATUS_NORMAL = 2
STATUS_FULL = 3

# Bits of `fault_code`.
FAULT_COMMS = 1
FAULT_HARDWARE = 2
FAULT_OVER_CURRENT = 4
FAULT_OVER_TEMPERATURE = 8
FAULT_OVER_VOLTAGE = 16
FAULT_UNDER_VOLTAGE = 32

NO_CELL = 0xFF
ALL_CELLS = 0xFF
ALL_MODULES = 0

# `frame_counter` that asks for the newest frame.
FRAME_CURRENT = 0xFFFFFFFF

# `what` of DIAGNOSTICS_REQUEST.
ASK_COUNTERS = 0
ASK_FAULT = 1
ASK_CELLS = 2

# `result` of COMMAND_RESULT.
RESULT_OBEYED = 0
RESULT_REFUSED = 1
RESULT_UNREACHABLE = 2
RESULT_TIMEOUT = 3

# VCU bus, app or VCU to pack (field).
_VCU_TO_PACK_FIELD = """
400 COMMAND V>P command S 8 contactor_state@0:2 balance@2:2 isolation@4:2 hv_bus_mv@16:16*15
401 TIME V>P config S 8 time_s@0:64
402 READ_EEPROM V>P config S 8 register@0:8
403 WRITE_EEPROM V>P config S 8 register@0:8 value@32:32
404 MODULE_COMMAND V>P command S 8 module_id@0:8 contactor_state@8:2 balance@10:2 isolation@12:2
  hv_bus_mv@32:16*15
405 KEEP_ALIVE V>P heartbeat S 8 module_id@0:8
406 REQUEST_MODULE_LIST V>P heartbeat S 8
407 WEB4_PACK_KEY_HALF V>P unsealable R 8 data@0:64
408 WEB4_APP_KEY_HALF V>P unsealable R 8 data@0:64
409 WEB4_COMPONENT_IDS V>P unsealable R 8 data@0:64
40A WEB4_KEY_STATUS V>P unsealable R 8 data@0:64
"""

# VCU bus, pack to app or VCU (field).
_PACK_TO_VCU_FIELD = """
410 BMS_STATE P>V legacy-vcu S 8 state@0:2 soh_permille@2:8*4 status@10:2 balanced@12:1
  balancing@13:1 module_fault@14:1 modules_total@16:8 modules_active@24:8
411 MODULE_STATE P>V legacy-vcu S 8 module_id@0:8 state@8:2 soh_permille@10:8*5 status@18:2
  balanced@20:1 balancing@21:1 fault_code@22:8 soc_permille@32:8*5 modules_total@40:8
  modules_active@48:8 cell_count@56:8
412 MODULE_POWER P>V legacy-vcu S 8 module_id@0:8 voltage_mv@8:16*15 current_ma@32:16*20-655360
413 MODULE_CELL_VOLTAGE P>V legacy-vcu S 8 module_id@0:8 cell_max_mv@8:16 cell_min_mv@32:16
  cell_avg_mv@48:16
414 MODULE_CELL_TEMP P>V legacy-vcu S 8 module_id@0:8 cell_max_centi_c@8:16-5535
  cell_min_centi_c@32:16-5535 cell_avg_centi_c@48:16-5535
415 MODULE_CELL_ID P>V legacy-vcu S 8 module_id@0:8 max_voltage_cell@8:8 min_voltage_cell@16:8
  max_temp_cell@24:8 min_temp_cell@32:8
416 MODULE_LIMITS P>V legacy-vcu S 8 module_id@0:8 max_discharge_ma@8:16*20-655360
  max_charge_ma@32:16*20-655360 end_of_charge_mv@48:16*15
417 MODULE_LIST P>V legacy-vcu S 8 modules@0:64
421 PACK_POWER P>V legacy-vcu S 8 voltage_mv@32:16*50 current_ma@48:16*50-1600000
422 PACK_CELL_VOLTAGE P>V legacy-vcu S 8 soc_ppm@0:16*125/8 cell_max_mv@16:16 cell_min_mv@32:16
  cell_avg_mv@48:16
423 PACK_CELL_TEMP P>V legacy-vcu S 8 cell_max_centi_c@0:16*25/8-27300
  cell_min_centi_c@16:16*25/8-27300 cell_avg_centi_c@32:16*25/8-27300
425 PACK_LIMITS P>V legacy-vcu S 8 max_discharge_ma@0:16*50-1600000 max_charge_ma@16:16*50-1600000
  end_of_charge_mv@32:16*50
428 PACK_CELL_ID_VOLTAGE P>V legacy-vcu S 8 max_module@0:8 max_cell@8:8 min_module@16:8
  min_cell@24:8
429 PACK_CELL_ID_TEMP P>V legacy-vcu S 8 max_module@0:8 max_cell@8:8 min_module@16:8 min_cell@24:8
430 PACK_ISOLATION P>V legacy-vcu S 8 isolation_raw@0:16
440 VCU_TIME_REQUEST P>V legacy-vcu S 8
441 EEPROM_DATA P>V telemetry S 8 register@0:8 value@32:32
"""

# VCU bus (ours).
_VCU_OURS = """
40B LEGACY_GRANT V>P command P 4 max_state@0:4 grant_s@16:16
431 ISOTP_TO_PACK V>P transport P -
432 ISOTP_FROM_PACK P>V transport P -
433 HANDSHAKE_TO_PACK V>P handshake P -
434 HANDSHAKE_FROM_PACK P>V handshake P -
435 APP_ANNOUNCE_REQUEST V>P announce P 1 version@0:8
436 PACK_ANNOUNCEMENT P>V announce P 8 version@0:8 claimed@8:1 keyed@9:1 module_count@16:8
  pack_number@24:8 unique_id@32:32
437 TEST_TO_PACK V>P test P -
438 TEST_FROM_PACK P>V test P -
439 CELL_DETAIL P>V telemetry P 8 module_id@0:8 cell_id@8:8 cell_centi_c@16:16-5535 cell_mv@32:16
  soc_permille@48:8*5 soh_permille@56:8*5
43A LIMITS_COMMAND V>P command P 8 module_id@0:8 max_charge_ma@16:16*20-655360
  max_discharge_ma@32:16*20-655360 end_of_charge_mv@48:16*15
43B COMMAND_RESULT P>V telemetry P 8 command@0:8 module_id@8:8 result@16:8 reason@24:8 counter@32:32
43C MODULE_FAULT P>V telemetry P 8 module_id@0:8 fault_code@8:8 first_cell@16:8 fault_count@32:16
  changed_s@48:16
43D PACK_DIAGNOSTICS P>V telemetry P 24,8 records_opened@0:24 records_refused@24:16 sessions@40:8
  handshakes@48:8 modules_lost@56:8 clear_refused@64:16 replays@80:16 stale@96:16 tags@112:16
  unknown_sessions@128:16 others_refused@144:16 limp@160:8 legacy_commands@168:8 grant_left_s@176:16
43E DIAGNOSTICS_REQUEST V>P heartbeat P 2 module_id@0:8 what@8:8
43F BUS_INTERFERENCE P>V telemetry P 8 module_id@0:8 score@8:8 signs@16:16 entries@32:32
"""

# Module bus, module to pack (field).
_MODULE_TO_PACK_FIELD = """
500 ANNOUNCEMENT M>P announce U 8 firmware_build@0:16 manufacturer@16:8 part@24:8 unique_id@32:32
501 HARDWARE M>P telemetry M 8 max_charge_ma@0:16*20-655360 max_discharge_ma@16:16*20-655360
  end_of_charge_mv@32:16*15 hardware_version@48:16
502 STATUS_1 M>P telemetry M 8 state@0:4 status@4:4 soc_permille@8:8*5 soh_permille@16:8*5
  cell_count@24:8 current_ma@32:16*20-655360 voltage_mv@48:16*15
503 STATUS_2 M>P telemetry M 8 cell_min_mv@0:16 cell_max_mv@16:16 cell_avg_mv@32:16
  cell_total_mv@48:16*15
504 STATUS_3 M>P telemetry M 8 cell_min_centi_c@0:16-5535 cell_max_centi_c@16:16-5535
  cell_avg_centi_c@32:16-5535
505 DETAIL M>P telemetry M 8 cell_id@0:8 cells_reported@8:8 cell_centi_c@16:16-5535 cell_mv@32:16
  soc_permille@48:8*5 soh_permille@56:8*5
506 TIME_REQUEST M>P telemetry M 8,0
507 CELL_COMM_STATUS1 M>P telemetry M 8 fewest_messages@0:8 most_messages@8:8 i2c_errors@16:16
  framing_errors@32:8 first_i2c_cell@40:8
508 CELL_COMM_STATUS2 M>P telemetry M 8 data@0:64
509 STATUS_4 M>P telemetry M 8 data@0:64
"""

# Module bus, pack to module (field).
_PACK_TO_MODULE_FIELD = """
510 REGISTRATION P>M registration U 8 module_id@0:8 controller_id@8:8 manufacturer@16:8 part@24:8
  unique_id@32:32
511 HARDWARE_REQUEST P>M heartbeat M 1
512 STATUS_REQUEST P>M heartbeat M 1,5 max_state@0:4 limp@4:1 beat@8:32
514 STATE_CHANGE P>M command M 4,2 state@8:4 hv_bus_mv@16:16*15
515 DETAIL_REQUEST P>M heartbeat M 3 cell_id@8:8
516 SET_TIME P>M config B 8 time_s@0:63 valid@63:1
517 MAX_STATE P>M heartbeat B 1 max_state@0:4 limp@4:1
518 DEREGISTER P>M registration M 2 controller_id@8:8
51D ANNOUNCE_REQUEST P>M announce U 1 controller_id@0:8
51E ALL_DEREGISTER P>M registration B 1 controller_id@0:8
51F ALL_ISOLATE P>M command B 1 controller_id@0:8
520 FRAME_TRANSFER_REQUEST P>M heartbeat M 8 frame_counter@0:32
521 FRAME_TRANSFER_START M>P telemetry M 8 frame_counter@0:32 segments@32:16
522 FRAME_TRANSFER_DATA M>P telemetry M 8,10 data@0:64 sequence@64:16
523 FRAME_TRANSFER_END M>P telemetry M 8 crc32@0:32
"""

# Module bus (ours).
_MODULE_OURS = """
50A FAULT_CODES M>P telemetry M 8 fault_code@0:8 first_cell@8:8 fault_count@16:16 changed_ms@32:32
50D GROUP_STATUS M>P telemetry M 10 key_id@0:32 clear_refused@32:16 records_refused@48:16 limp@64:1
50E INTERFERENCE M>P telemetry M 8 module_id@0:8 score@8:8 signs@16:16 entries@32:32
519 LIMITS P>M command M 6 max_charge_ma@0:16*20-655360 max_discharge_ma@16:16*20-655360
  end_of_charge_mv@32:16*15
51A BALANCE P>M command M 4 on@0:1 threshold_mv@16:16
51B GROUP_KEY P>M config M 36 beat@0:32
50C ROTATION_FROM_MODULE M>P telemetry M -
51C ROTATION_TO_MODULE P>M config M -
530 ISOTP_FROM_MODULE M>P transport M -
531 HANDSHAKE_FROM_MODULE M>P handshake M -
532 TEST_FROM_MODULE M>P test M -
538 ISOTP_TO_MODULE P>M transport M -
539 HANDSHAKE_TO_MODULE P>M handshake M -
53A TEST_TO_MODULE P>M test M -
"""

_TABLES = (
    _VCU_TO_PACK_FIELD,
    _PACK_TO_VCU_FIELD,
    _VCU_OURS,
    _MODULE_TO_PACK_FIELD,
    _PACK_TO_MODULE_FIELD,
    _MODULE_OURS,
)

# What a row has beyond the flags of its class.
_EXTRA_FLAGS = {0x51F: CLEAR_WITHOUT_SESSION}


def _flags(base: int, direction: str, kind: int) -> int:
    flags = CLASS_FLAGS[kind] | _EXTRA_FLAGS.get(base, 0)
    if direction == VCU_TO_PACK and flags & CITED:
        # A pack without an owner obeys nobody: on the VCU bus there are no nodes older than their
        # keys.
        flags &= ~CLEAR_UNKEYED
    return flags


def _row_at(text: str, start: int) -> "tuple[str, int]":
    """The row that starts at `start`, in one line, and where the next one starts."""
    end = text.find("\n", start)
    while text[end + 1 : end + 2] == " ":
        end = text.find("\n", end + 1)
    return text[start:end], end + 1


def _rows() -> "Iterator[str]":
    for text in _TABLES:
        at = 1
        while at < len(text):
            row, at = _row_at(text, at)
            yield row


def policy_rows() -> "Iterator[tuple[int, int, int]]":
    """(base, class, flags) of every row: what `policy.DEFAULT_POLICY` is made of."""
    for row in _rows():
        part = row.split()
        base = int(part[0], 16)
        kind = CLASS_NAMES.index(part[3])
        yield base, kind, _flags(base, part[2], kind)


def parse_fields(items: "Iterable[str]") -> "tuple[Field, ...]":
    """(name, start bit, bits, num, den, offset) of each field; the docstring above has the form.

    Raises ValueError for one that is not.
    """
    fields = []
    for item in items:
        name, rest = item.split("@")
        start, rest = rest.split(":")
        offset = 0
        at = rest.find("-")
        if at >= 0:
            offset = int(rest[at:])
            rest = rest[:at]
        num = den = 1
        at = rest.find("*")
        if at >= 0:
            ratio = rest[at + 1 :].split("/")
            num = int(ratio[0])
            if len(ratio) > 1:
                den = int(ratio[1])
            rest = rest[:at]
        fields.append((name, int(start), int(rest), num, den, offset))
    return tuple(fields)


class Message:
    """One row of the table.

    base           bits 28..18 of the 29-bit ID, or the 11-bit ID of pack 0
    name           unique, upper case
    direction      "M>P", "P>M", "V>P" or "P>V"
    bus            "vcu" or "module"
    message_class  number, of `packtrust.policy`
    address        "S", "R", "M", "P", "B" or "U", see the module's docstring
    is_extended    whether the clear frame has a 29-bit ID
    is_sealable    whether it may be sealed: bit 17 of the 29-bit ID then means encrypted
    dlc            data length we send; 8 where any is possible
    dlcs           data lengths accepted; empty: any
    """

    __slots__ = (
        "_fields",
        "_row",
        "address",
        "base",
        "bus",
        "direction",
        "dlc",
        "dlcs",
        "is_extended",
        "is_sealable",
        "message_class",
        "name",
    )

    def __init__(self, row: str) -> None:
        part = row.split()
        self._row = row
        self.base = int(part[0], 16)
        self.name = part[1]
        self.direction = part[2]
        self.message_class = CLASS_NAMES.index(part[3])
        self.address = part[4]
        self.dlcs = () if part[5] == "-" else tuple([int(length) for length in part[5].split(",")])
        self.dlc = self.dlcs[0] if self.dlcs else 8
        self.bus = "vcu" if "V" in self.direction else "module"
        self.is_extended = self.address != "S"
        self.is_sealable = _flags(self.base, self.direction, self.message_class) & SEALABLE != 0
        self._fields = None  # type: tuple[Field, ...] | None

    def __repr__(self) -> str:
        return "<Message 0x%03X %s %s>" % (self.base, self.direction, self.name)

    @property
    def fields(self) -> "tuple[Field, ...]":
        """(name, start bit, bits, num, den, offset) of each field, in order."""
        fields = self._fields
        if fields is None:
            fields = self._fields = parse_fields(self._row.split()[6:])
            self._row = ""
        return fields

    @property
    def note(self) -> str:
        """What a reader must know beyond the layout, or "". Loads `notes`, so not for boards."""
        from packtrust.messages.notes import NOTES

        return NOTES.get(self.name, "")


_made = {}  # type: dict[int, Message]


def _make(row: str) -> Message:
    """The one Message of a row: made once, then kept."""
    base = int(row[:3], 16)
    message = _made.get(base)
    if message is None:
        message = _made[base] = Message(row)
    return message


class _Messages:
    """Every row, in table order, made as the loop reaches it; `len()` works too."""

    def __len__(self) -> int:
        count = 0
        for _ in _rows():
            count += 1
        return count

    def __iter__(self) -> "Iterator[Message]":
        for row in _rows():
            yield _make(row)


MESSAGES = _Messages()


def by_base(base: int, direction: str = "") -> "Message | None":
    """The row with this base (and this direction, if given), or None."""
    message = _made.get(base)
    if message is None:
        key = "\n%03X " % base
        for text in _TABLES:
            at = text.find(key)
            if at >= 0:
                message = _make(_row_at(text, at + 1)[0])
                break
        else:
            return None
    return message if direction in ("", message.direction) else None


def by_name(name: str) -> Message:
    """The row with this name. Raises ValueError if there is none."""
    for message in _made.values():
        if message.name == name:
            return message
    key = " %s " % name
    for text in _TABLES:
        at = text.find(key)
        start = text.rfind("\n", 0, at) + 1
        if at == start + 3:  # a name comes right after the base
            return _make(_row_at(text, start)[0])
    raise ValueError("no message is named %s: docs/messages.md lists them" % name)


STANDARD_PACKS = 4  # pack numbers an 11-bit ID has room for; the field's firmware knows 0 and 1


def standard_id(message: Message, pack_number: int = 0) -> int:
    """11-bit ID of the field's frame of a VCU row (address "S"): base + 0x100 * pack number.

    Raises ValueError for another row, or a pack number above 3.
    """
    if message.is_extended:
        raise ValueError("%s has no 11-bit frame: send it with a 29-bit ID" % message.name)
    if not 0 <= pack_number < STANDARD_PACKS:
        raise ValueError("pack number %d does not fit an 11-bit ID: use 0..3" % pack_number)
    return message.base + (pack_number << 8)


def by_standard_id(arbitration_id: int) -> "tuple[Message, int] | None":
    """(row, pack number) of an 11-bit ID from the wire, or None."""
    pack_number = (arbitration_id - 0x400) >> 8
    if not 0 <= pack_number < STANDARD_PACKS:
        return None
    message = by_base(arbitration_id - (pack_number << 8))
    if message is None or message.is_extended:
        return None
    return message, pack_number
