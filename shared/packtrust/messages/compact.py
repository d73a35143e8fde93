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

_FIELD = "<BBHBiHB"
_FIELD_LENGTH = const(12)

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
    lengths = ROWS[at]
    data = bytearray(ROWS[at + 1] if lengths else 0)
    at += 1 + lengths
    known = 0
    for index in range(ROWS[at]):
        start, bits, num, den, offset, name_at, name_length = unpack_from(_FIELD, ROWS, at + 1 + index * _FIELD_LENGTH)
        name = FIELDS[name_at : name_at + name_length]
        value = named.get(name)
        if value is None:
            value = 0
        else:
            known += 1
        raw = (value - offset) * den // num
        top = (1 << bits) - 1
        if raw <= 0:
            continue
        if raw > top:
            raw = top
        place = start >> 3
        shift = start & 7
        while bits > 0:
            data[place] |= raw << shift & 0xFF
            raw >>= 8 - shift
            bits -= 8 - shift
            place += 1
            shift = 0
    if known != len(named):
        raise ValueError("%s has not all of these fields: %s" % (message, ", ".join(named)))
    return data


def decode(message: str, data: "Buffer") -> "dict[str, int] | None":
    """The values of a message's data bytes, by field name; None if the row accepts no such length. Never raises on
    data."""
    at = _row(message)
    lengths = ROWS[at]
    size = len(data)
    if lengths and size not in ROWS[at + 1 : at + 1 + lengths]:
        return None
    at += 1 + lengths
    values = {}
    for index in range(ROWS[at]):
        start, bits, num, den, offset, name_at, name_length = unpack_from(_FIELD, ROWS, at + 1 + index * _FIELD_LENGTH)
        if start + bits > 8 * size:
            continue
        place = start >> 3
        shift = start & 7
        raw = data[place] >> shift
        done = 8 - shift
        while done < bits:
            place += 1
            raw |= data[place] << done
            done += 8
        raw &= (1 << bits) - 1
        values[FIELDS[name_at : name_at + name_length]] = (raw * num + den - 1) // den + offset
    return values


def policy_rows() -> "Iterator[tuple[int, int, int]]":
    """(base, class, flags) of every row, as table.policy_rows() has them."""
    for at in range(0, len(POLICY), 4):
        yield POLICY[at] << 8 | POLICY[at + 1], POLICY[at + 2], POLICY[at + 3]
