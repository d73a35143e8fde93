"""`encode` and `decode` of the message table for boards: bytes and values as in `codec`, and no RAM for the table.

`codec` makes an object of each row it meets, some 500 bytes; a node meets forty. This reads the rows where they lie,
in `rows`. A test holds it against `codec`.
"""

from struct import unpack_from

from packtrust._compat import const
from packtrust.messages.rows import FIELDS, NAMES, POLICY, ROWS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from packtrust._typing import Buffer

# Of a field: first bit, bits, num (u16), den, offset (i32), place and length of the name (u16, u8). A value is
# raw * num / den + offset.
_FIELD_LENGTH = const(12)
_NAME_AT = const(9)  # of place and length of the name

# Where the rows begin that were asked for: a search through all names costs 40 000 instructions on a board.
_found = {}  # type: dict[str, int]


def _row(name: str) -> int:
    """Where the row of a message begins. ValueError if there is none."""
    at = _found.get(name, -1)
    if at >= 0:
        return at
    at = NAMES.find(" " + name + "=")
    if at < 0:
        raise ValueError("no message is named %s: the names are in messages/table.py" % name)
    at += len(name) + 2
    at = _found[name] = int(NAMES[at : at + 4], 16)
    return at


def encode(message: str, **named: int) -> bytearray:
    """The data bytes of a message. A field not given is 0 in its unit, a value out of range is limited.

    Raises ValueError for a field that the row does not have.
    """
    at = _row(message)
    fields = at + 1 + ROWS[at]
    order = bytearray(ROWS[fields])
    values = []
    for index in range(len(order)):
        name_at, name_length = unpack_from("<HB", ROWS, fields + 1 + index * _FIELD_LENGTH + _NAME_AT)
        value = named.get(FIELDS[name_at : name_at + name_length])
        if value is not None:
            values.append(value)
            order[index] = len(values)
    if len(values) != len(named):
        raise ValueError("%s has not all of these fields: %s" % (message, ", ".join(named)))
    return encode_row(at, order, *values)


def encode_row(at: int, order: "Buffer", *values: int) -> bytearray:
    """The data bytes of the message whose row begins at `at`: field n is `values[order[n] - 1]`, 0 if `order[n]` is 0.

    In a program made smaller for a board (packtrust_host.shrink) this stands in place of `encode`, and no names.
    """
    lengths = ROWS[at]
    data = bytearray(ROWS[at + 1] if lengths else 0)
    at += 2 + lengths
    for number in order:
        raw = _raw(at, values[number - 1] if number else 0)
        if raw > 0:
            _insert(data, ROWS[at], ROWS[at + 1], raw)
        at += _FIELD_LENGTH
    return data


# Of a field each: in pieces small enough to take no heap for the call, and no more steps than its row asks for.


def _raw(at: int, value: int) -> int:
    """What stands for a value on the wire, by the field described at `at`."""
    rows = ROWS
    if rows[at + 5] | rows[at + 6] | rows[at + 7] | rows[at + 8]:
        value -= _offset(at)
    if rows[at + 4] != 1:
        value *= rows[at + 4]
    num = rows[at + 2] | rows[at + 3] << 8
    return value if num == 1 else value // num


def _offset(at: int) -> int:
    rows = ROWS
    top = rows[at + 8]
    return rows[at + 5] | rows[at + 6] << 8 | rows[at + 7] << 16 | (top - 256 if top & 128 else top) << 24


def _insert(data: bytearray, start: int, bits: int, raw: int) -> None:
    """Put a number above 0 into the bits from `start` on, the highest one they hold if it is larger."""
    if raw >> bits:
        raw = (1 << bits) - 1
    byte = start >> 3
    start &= 7
    if start:
        data[byte] |= raw << start & 0xFF
        raw >>= 8 - start
        byte += 1
    while raw:
        data[byte] |= raw & 0xFF
        raw >>= 8
        byte += 1


def decode(message: str, data: "Buffer") -> "dict[str, int] | None":
    """The values of a message's data bytes, by field name; None if the row accepts no such length. Never raises on
    data."""
    return decode_row(_row(message), data)


def decode_row(at: int, data: "Buffer") -> "dict[str, int] | None":
    """As `decode`, for the message whose row begins at `at`."""
    lengths = ROWS[at]
    size = len(data)
    if lengths and size not in ROWS[at + 1 : at + 1 + lengths]:
        return None
    at += 1 + lengths
    values = {}
    for index in range(ROWS[at]):
        value = _value(at + 1 + index * _FIELD_LENGTH, data, size)
        if value is not None:
            name_at, name_length = unpack_from("<HB", ROWS, at + 1 + index * _FIELD_LENGTH + _NAME_AT)
            values[FIELDS[name_at : name_at + name_length]] = value
    return values


def fits(message: str, data: "Buffer") -> bool:
    """Whether the row of a message accepts data bytes of this length."""
    return fits_row(_row(message), data)


def fits_row(at: int, data: "Buffer") -> bool:
    """As `fits`, for the message whose row begins at `at`."""
    lengths = ROWS[at]
    return not lengths or len(data) in ROWS[at + 1 : at + 1 + lengths]


def place(message: str, name: str) -> int:
    """Where the table describes a field, for `field_at`. ValueError for a field that the row does not have."""
    at = _row(message)
    at += 1 + ROWS[at]
    for index in range(ROWS[at]):
        found = at + 1 + index * _FIELD_LENGTH
        name_at, name_length = unpack_from("<HB", ROWS, found + _NAME_AT)
        if FIELDS[name_at : name_at + name_length] == name:
            return found
    raise ValueError("%s has no field %s" % (message, name))


def field(message: str, name: str, data: "Buffer", start: int = 0) -> int:
    """One field of the message whose data bytes are in `data` from `start` on: no dict, and no heap for most values.

    ValueError for a field that the row does not have.
    """
    return field_at(place(message, name), data, start)


def field_at(at: int, data: "Buffer", start: int = 0) -> int:
    """As `field`, for the field described in the table at `at`."""
    rows = ROWS
    byte = rows[at]
    bits = rows[at + 1]
    shift = byte & 7
    byte = start + (byte >> 3)
    raw = data[byte] >> shift
    done = 8 - shift
    while done < bits:
        byte += 1
        raw |= data[byte] << done
        done += 8
    raw &= (1 << bits) - 1
    num = rows[at + 2] | rows[at + 3] << 8
    den = rows[at + 4]
    return (raw * num + den - 1) // den + _offset(at)


def _value(at: int, data: "Buffer", size: int) -> "int | None":
    """The value of the field described at `at`, None if the data are too short for it."""
    return None if ROWS[at] + ROWS[at + 1] > 8 * size else field_at(at, data)


def policy_rows() -> "Iterator[tuple[int, int, int]]":
    """(base, class, flags) of every row, as table.policy_rows() has them."""
    for at in range(0, len(POLICY), 4):
        yield POLICY[at] << 8 | POLICY[at + 1], POLICY[at + 2], POLICY[at + 3]
