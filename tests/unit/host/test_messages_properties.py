"""Properties of the message codec over any value and any bytes."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from packtrust.messages import MESSAGES, by_base, by_standard_id, decode, encode
from packtrust.messages.codec import from_raw, to_raw

ROWS = list(MESSAGES)
FIELDS = [(row, field) for row in ROWS for field in row.fields]

_VALUES = st.integers(min_value=-(1 << 70), max_value=1 << 70)


@given(st.sampled_from(FIELDS), st.integers(min_value=0, max_value=(1 << 64) - 1))
def test_every_raw_number_survives(row_field, raw):
    field = row_field[1]
    raw &= (1 << field[2]) - 1
    assert to_raw(field, from_raw(field, raw)) == raw


@given(st.sampled_from(FIELDS), _VALUES)
def test_encoding_is_exact_truncation_then_a_limit(row_field, value):
    _, _, bits, num, den, offset = row_field[1]
    steps = int((value - offset) / Fraction(num, den))  # int() of a Fraction truncates toward zero
    assert to_raw(row_field[1], value) == min(max(steps, 0), (1 << bits) - 1)


@given(st.sampled_from(FIELDS), _VALUES)
def test_a_value_in_range_comes_back_less_than_a_step_below(row_field, value):
    field = row_field[1]
    _, _, bits, num, den, offset = field
    step = Fraction(num, den)
    if not offset <= value < offset + step * (1 << bits):
        return
    back = from_raw(field, to_raw(field, value))
    assert value - step < back <= value


@given(st.sampled_from(FIELDS), _VALUES)
def test_a_field_touches_no_bits_but_its_own(row_field, value):
    row, field = row_field
    length = max(row.dlcs)
    blank = {name: row_value[5] for name, row_value in ((item[0], item) for item in row.fields)}
    nothing = int.from_bytes(encode(row, blank, length), "little")
    assert nothing == 0
    blank[field[0]] = value
    written = int.from_bytes(encode(row, blank, length), "little")
    assert written == to_raw(field, value) << field[1]


@given(st.sampled_from(ROWS), st.binary(max_size=70))
def test_any_bytes_are_values_or_nothing(row, data):
    values = decode(row, data)
    assert (values is None) == (bool(row.dlcs) and len(data) not in row.dlcs)


@given(st.integers(min_value=-1, max_value=1 << 29))
def test_any_id_is_a_row_or_nothing(arbitration_id):
    row = by_base(arbitration_id)
    assert row is None or row.base == arbitration_id
    found = by_standard_id(arbitration_id)
    assert found is None or found[0].base + 0x100 * found[1] == arbitration_id
