"""Bytes from values and back, for any row of the message table: integers only, exact on 32 bits.

A value is an integer in the unit that its field's name ends with (`_ma`, `_mv`, `_centi_c`,
`_permille`, `_ppm`, `_s`, `_ms`; plain counts and codes have none):

    raw   = (value - offset) * den / num    truncated toward zero, as the field's C casts do, then
                                            limited to the field
    value = raw * num / den + offset        rounded up to a whole unit, so that encoding it again
                                            gives the same raw

Limited, not wrapped: the field's code lets a value out of range wrap around (a charge limit a
little below the lowest becomes the highest); ours sends the nearest the field can carry.
"""

from packtrust.messages.table import Message, by_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from packtrust._typing import Buffer


def to_raw(field: "tuple[str, int, int, int, int, int]", value: int) -> int:
    """The bits that carry `value` in `field`."""
    _, _, bits, num, den, offset = field
    raw = (value - offset) * den // num
    if raw < 0:
        return 0
    top = (1 << bits) - 1
    return top if raw > top else raw


def from_raw(field: "tuple[str, int, int, int, int, int]", raw: int) -> int:
    """The value that the bits `raw` of `field` mean."""
    _, _, _, num, den, offset = field
    return (raw * num + den - 1) // den + offset


def _insert(data: bytearray, start: int, bits: int, raw: int) -> None:
    at = start >> 3
    shift = start & 7
    while bits > 0:
        take = 8 - shift
        if take > bits:
            take = bits
        data[at] |= (raw & (1 << take) - 1) << shift
        raw >>= take
        bits -= take
        at += 1
        shift = 0


def _extract(data: "Buffer", start: int, bits: int) -> int:
    at = start >> 3
    shift = start & 7
    raw = done = 0
    while done < bits:
        take = 8 - shift
        if take > bits - done:
            take = bits - done
        raw |= (data[at] >> shift & (1 << take) - 1) << done
        done += take
        at += 1
        shift = 0
    return raw


def encode(
    message: "str | Message",
    values: "Mapping[str, int] | None" = None,
    length: int = -1,
    **named: int,
) -> bytearray:
    """The data bytes of a message (a row or its name).

    Fields are given by a mapping, by keyword, or both.

    A field not given is 0 in its unit (0 A, not the lowest current). A value out of range is
    limited. Bits without a field are 0. `length`: one of the row's other data lengths.
    Raises ValueError for a field or a length that the row does not have, or a field that the length
    leaves out.
    """
    row = by_name(message) if isinstance(message, str) else message
    if length < 0:
        length = row.dlc if row.dlcs else 0
    elif row.dlcs and length not in row.dlcs:
        raise ValueError("%s has no length %d: use one of %s" % (row.name, length, list(row.dlcs)))
    data = bytearray(length)
    known = 0
    for field in row.fields:
        name, start, bits, _, _, _ = field
        value = 0
        given = True
        if name in named:
            value = named[name]
        elif values is not None and name in values:
            value = values[name]
        else:
            given = False
        if start + bits <= 8 * length:
            _insert(data, start, bits, to_raw(field, value))
        elif given:
            raise ValueError("%s of %d bytes has no room for %s: give a longer length" % (row.name, length, name))
        known += given
    if known != len(named) + (0 if values is None else len(values)):
        _complain(row, values, named)
    return data


def _complain(row: Message, values: "Mapping[str, int] | None", named: "Mapping[str, int]") -> None:
    """Name the field `row` does not have. Given both ways is no error: the keyword holds."""
    names = [field[0] for field in row.fields]
    for given in (values or {}, named):
        for name in given:
            if name not in names:
                raise ValueError("%s has no field %s: it has %s" % (row.name, name, ", ".join(names) or "none"))


def decode(message: "str | Message", data: "Buffer") -> "dict[str, int] | None":
    """The values of a message's data bytes, by field name; None if the row accepts no such length.

    Never raises on data. A field that a shorter accepted length leaves out is left out
    (STATE_CHANGE of two bytes has no `hv_bus_mv`, FRAME_TRANSFER_DATA in clear no `sequence`).
    """
    row = by_name(message) if isinstance(message, str) else message
    size = len(data)
    if row.dlcs and size not in row.dlcs:
        return None
    values = {}
    for field in row.fields:
        name, start, bits, _, _, _ = field
        if start + bits <= 8 * size:
            values[name] = from_raw(field, _extract(data, start, bits))
    return values
