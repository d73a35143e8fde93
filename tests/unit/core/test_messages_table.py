"""The message table: its shape, and the field's facts that must never be smoothed over."""

from packtrust.messages import MESSAGES, by_base, by_name, by_standard_id, standard_id
from packtrust.messages.notes import NOTES, unit_of
from portable import raises


def test_bases_and_names_are_unique():
    bases = [message.base for message in MESSAGES]
    names = [message.name for message in MESSAGES]
    assert len(set(bases)) == len(bases) == len(MESSAGES)
    assert len(set(names)) == len(names)


def test_the_field_s_bases_are_all_there():
    for first, last in (
        (0x400, 0x40A),
        (0x410, 0x417),
        (0x421, 0x423),
        (0x440, 0x441),
        (0x500, 0x507),
    ):
        for base in range(first, last + 1):
            assert by_base(base) is not None, "0x%03X" % base
    for base in (
        0x425,
        0x428,
        0x429,
        0x430,
        0x508,
        0x509,
        0x510,
        0x511,
        0x512,
        0x514,
        0x515,
        0x516,
    ):
        assert by_base(base) is not None
    for base in (0x517, 0x518, 0x51D, 0x51E, 0x51F, 0x520, 0x521, 0x522, 0x523):
        assert by_base(base) is not None


def test_rows_are_found_by_base_and_name_and_are_one_object():
    for message in MESSAGES:
        assert by_base(message.base) is message
        assert by_name(message.name) is message
        assert by_base(message.base, message.direction) is message
    assert by_base(0x502, "P>M") is None
    assert by_base(0x502).name == "STATUS_1"


def test_unknown_bases_and_names():
    for base in (-1, 0, 0x3F1, 0x40C, 0x513, 0x7FF, 0x800, 0x5022, 1 << 29):
        assert by_base(base) is None
    for name in ("", "STATUS", "status_1", "command", "M", "8", "TATUS_1", "502", "M>P"):
        raises(ValueError, by_name, name)


def test_fields_lie_inside_the_frame_and_do_not_overlap():
    for message in MESSAGES:
        longest = max(message.dlcs) if message.dlcs else 0
        taken = set()
        names = set()
        for name, start, bits, num, den, _ in message.fields:
            assert bits > 0 and start >= 0 and start + bits <= 8 * longest, message.name
            assert num >= den > 0  # so that what is decoded can be encoded again, bit for bit
            assert name not in names
            names.add(name)
            for bit in range(start, start + bits):
                assert bit not in taken, "%s %s" % (message.name, name)
                taken.add(bit)


def test_direction_and_bus_agree():
    for message in MESSAGES:
        assert message.direction in ("M>P", "P>M", "V>P", "P>V")
        assert message.bus == ("vcu" if "V" in message.direction else "module")
        assert message.address in ("SRP" if message.bus == "vcu" else "MBU")
        assert message.is_extended == (message.address != "S")


def test_lengths_of_the_field():
    for name, dlcs in (
        ("STATUS_1", (8,)),
        ("TIME_REQUEST", (8, 0)),
        ("HARDWARE_REQUEST", (1,)),
        ("STATUS_REQUEST", (1, 5)),
        ("STATE_CHANGE", (4, 2)),
        ("DETAIL_REQUEST", (3,)),
        ("SET_TIME", (8,)),
        ("MAX_STATE", (1,)),
        ("DEREGISTER", (2,)),
        ("FRAME_TRANSFER_DATA", (8, 10)),
    ):
        assert by_name(name).dlcs == dlcs
        assert by_name(name).dlc == dlcs[0]
    assert by_name("ISOTP_TO_MODULE").dlcs == ()


def test_fields_the_abi_moves_up():
    for name, field, start in (
        ("MODULE_COMMAND", "hv_bus_mv", 32),
        ("MODULE_POWER", "current_ma", 32),
        ("MODULE_CELL_VOLTAGE", "cell_min_mv", 32),
        ("MODULE_CELL_VOLTAGE", "cell_avg_mv", 48),
        ("MODULE_CELL_TEMP", "cell_min_centi_c", 32),
        ("MODULE_CELL_TEMP", "cell_avg_centi_c", 48),
        ("MODULE_LIMITS", "max_charge_ma", 32),
        ("MODULE_LIMITS", "end_of_charge_mv", 48),
    ):
        starts = [item[1] for item in by_name(name).fields if item[0] == field]
        assert starts == [start], name
        assert "ABI" in by_name(name).note


def test_pack_numbers_shift_the_11_bit_id_by_0x100():
    row = by_name("BMS_STATE")
    assert standard_id(row) == 0x410
    assert standard_id(row, 1) == 0x510
    assert standard_id(row, 3) == 0x710
    raises(ValueError, standard_id, row, 4)
    raises(ValueError, standard_id, row, -1)
    raises(ValueError, standard_id, by_name("STATUS_1"))
    assert by_standard_id(0x410) == (row, 0)
    assert by_standard_id(0x510) == (row, 1)
    assert by_standard_id(0x541)[0].name == "EEPROM_DATA"


def test_11_bit_ids_that_mean_nothing():
    for arbitration_id in (0, 0x3FF, 0x40B, 0x431, 0x4A7, 0x531, 0x800, 0x14080005):
        assert by_standard_id(arbitration_id) is None


def test_notes_are_about_rows():
    names = [message.name for message in MESSAGES]
    for name in NOTES:
        assert name in names
    assert by_name("STATUS_2").note == ""
    assert "reverse" in by_name("DETAIL").note


def test_units_come_from_the_name():
    assert unit_of("current_ma") == ("current", "A", 1000)
    assert unit_of("soc_ppm") == ("soc", "%", 10000)
    assert unit_of("changed_ms") == ("changed", "ms", 1)
    assert unit_of("changed_s") == ("changed", "s", 1)
    assert unit_of("cell_min_centi_c") == ("cell_min", "degC", 100)
    assert unit_of("cell_count") == ("cell_count", "", 1)
