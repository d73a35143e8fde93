"""Bytes from values and back, against bytes worked out by hand (tests/vectors/messages.json)."""

from packtrust.messages import MESSAGES, by_name, decode, encode
from packtrust.messages.codec import from_raw, to_raw
from packtrust.messages.table import parse_fields
from portable import raises, vectors


def _hex(data):
    return "".join(["%02x" % byte for byte in data])


def _bytes(text):
    return bytes([int(text[at : at + 2], 16) for at in range(0, len(text), 2)])


def _random_bytes(count, seed):
    """Bytes of a small linear congruential generator: the same on every interpreter."""
    out = bytearray(count)
    for at in range(count):
        seed = (seed * 1103 + 12345) & 0xFFFFFF
        out[at] = seed >> 13 & 0xFF
    return bytes(out)


def test_bytes_worked_out_by_hand():
    for case in vectors("messages")["cases"]:
        data = encode(case["name"], case["values"], case.get("length", -1))
        assert _hex(data) == case["hex"], "%s: %s" % (case["name"], _hex(data))


def test_values_of_bytes_worked_out_by_hand():
    for case in vectors("messages")["cases"]:
        expected = dict(case["values"])
        expected.update(case.get("decoded", {}))
        got = decode(case["name"], _bytes(case["hex"]))
        assert got == expected, "%s: %s" % (case["name"], got)


def test_every_row_and_every_field_is_in_the_vectors():
    named = {}
    for case in vectors("messages")["cases"]:
        fields = named.setdefault(case["name"], [])
        for field in case["values"]:
            if field not in fields:
                fields.append(field)
    for message in MESSAGES:
        assert sorted(named[message.name]) == sorted([field[0] for field in message.fields])


def test_every_vector_field_is_somewhere_not_zero():
    """A vector of zeros would not show where a field lies."""
    seen = set()
    for case in vectors("messages")["cases"]:
        for field, value in case["values"].items():
            if value:
                seen.add((case["name"], field))
    for message in MESSAGES:
        for field in message.fields:
            assert (message.name, field[0]) in seen, "%s %s" % (message.name, field[0])


def test_struct_bytes_of_the_fields_compiler():
    # 0x412 {id 11h, V 2222h, I 3333h}, from arm-none-eabi-gcc: the ABI moves the current to byte 4.
    data = encode("MODULE_POWER", module_id=0x11, voltage_mv=0x2222 * 15, current_ma=0x3333 * 20 - 655360)
    assert bytes(data) == b"\x11\x22\x22\x00\x33\x33\x00\x00"


def test_truncation_toward_zero():
    voltage = by_name("MODULE_POWER").fields[1]
    for millivolts, raw in ((300, 20), (314, 20), (315, 21), (14, 0), (15, 1), (29, 1), (0, 0)):
        assert to_raw(voltage, millivolts) == raw
    current = by_name("MODULE_POWER").fields[2]
    for milliamps, raw in (
        (0, 32768),
        (19, 32768),
        (20, 32769),
        (-1, 32767),
        (-20, 32767),
        (-21, 32766),
    ):
        assert to_raw(current, milliamps) == raw


def test_out_of_range_is_limited_not_wrapped():
    current = by_name("STATUS_1").fields[5]
    assert current[0] == "current_ma"
    assert to_raw(current, -655361) == 0
    assert to_raw(current, -2000000) == 0
    assert to_raw(current, 655340) == 65535
    assert to_raw(current, 655360) == 65535
    assert to_raw(current, 2000000) == 65535


def test_decoding_rounds_up_so_that_it_can_be_encoded_again():
    soc = by_name("PACK_CELL_VOLTAGE").fields[0]
    assert from_raw(soc, 1) == 16  # 15.625
    assert from_raw(soc, 8) == 125
    warmest = by_name("PACK_CELL_TEMP").fields[0]
    assert from_raw(warmest, 0) == -27300
    assert from_raw(warmest, 1) == -27296  # 3.125 above
    for field in (soc, warmest):
        for raw in range(0, 65536, 97):
            assert to_raw(field, from_raw(field, raw)) == raw


def test_bits_without_a_field_are_zero_and_all_others_survive():
    for message in MESSAGES:
        for length in message.dlcs:
            mask = encode(message, None, length)
            for at in range(length):
                mask[at] = 0
            for field in message.fields:
                for bit in range(field[1], field[1] + field[2]):
                    if bit < 8 * length:
                        mask[bit >> 3] |= 1 << (bit & 7)
            for seed in range(8):
                data = _random_bytes(length, seed * 977 + message.base)
                values = decode(message, data)
                again = encode(message, values, length)
                assert bytes(again) == bytes([a & b for a, b in zip(data, mask)]), message.name


def test_no_bytes_and_no_length_raise():
    for message in MESSAGES:
        for length in range(0, 65):
            values = decode(message, _random_bytes(length, length))
            if message.dlcs and length not in message.dlcs:
                assert values is None
            else:
                assert values is not None


def test_memoryview_and_bytearray_decode_alike():
    data = encode("STATUS_1", state=3, current_ma=-12340)
    assert decode("STATUS_1", memoryview(data)) == decode("STATUS_1", bytes(data))
    assert decode("STATUS_1", data)["current_ma"] == -12340


def test_a_field_not_given_is_zero_in_its_unit():
    values = decode("STATUS_1", encode("STATUS_1"))
    assert values["current_ma"] == 0
    assert values["voltage_mv"] == 0
    assert decode("STATUS_3", encode("STATUS_3"))["cell_min_centi_c"] == 0


def test_mapping_and_keywords_may_be_mixed_and_the_keyword_holds():
    data = encode("STATUS_1", {"state": 1, "soc_permille": 500}, state=3)
    values = decode("STATUS_1", data)
    assert values["state"] == 3
    assert values["soc_permille"] == 500


def test_the_field_takes_two_bytes_of_state_change_and_we_both():
    assert bytes(encode("STATE_CHANGE", length=2, state=3)) == b"\x00\x03"
    assert decode("STATE_CHANGE", b"\x01\x03") == {"state": 3}
    assert decode("STATE_CHANGE", b"\x01\x03\x00") is None
    assert decode("STATE_CHANGE", b"\x01\x03\xd8\x59") == {"state": 3, "hv_bus_mv": 345000}


def test_mistakes_are_named():
    assert "no field currant_ma" in str(raises(ValueError, _encode_misspelt))
    assert "no field x" in str(raises(ValueError, encode, "STATUS_1", {"x": 1}))
    assert "no length 3" in str(raises(ValueError, encode, "STATE_CHANGE", None, 3))
    assert "no room for hv_bus_mv" in str(raises(ValueError, encode, "STATE_CHANGE", {"hv_bus_mv": 1}, 2))
    assert "no message is named STATUS_9" in str(raises(ValueError, encode, "STATUS_9"))


def _encode_misspelt():
    return encode("STATUS_1", currant_ma=1)


def test_layout_strings_are_parsed():
    fields = parse_fields(["a@0:8", "b_ma@8:16*20-655360", "c_ppm@24:16*125/8", "d@40:4-3"])
    assert fields == (
        ("a", 0, 8, 1, 1, 0),
        ("b_ma", 8, 16, 20, 1, -655360),
        ("c_ppm", 24, 16, 125, 8, 0),
        ("d", 40, 4, 1, 1, -3),
    )
    raises(ValueError, parse_fields, ["a:8"])
