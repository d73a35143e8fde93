"""The board's codec against the table's, row by row: the same bytes, the same values, the same policy."""

from packtrust.messages import MESSAGES, codec, compact
from packtrust.messages.table import policy_rows
from portable import raises


def _numbers(seed):
    while True:
        seed = (seed * 1103 + 12345) & 0xFFFFFF
        yield seed >> 3


def test_every_row_in_both_directions():
    numbers = _numbers(7)
    for row in MESSAGES:
        if not row.fields:
            assert compact.encode(row.name) == codec.encode(row.name)
        for turn in range(12):
            values = {}
            for field in row.fields:
                value = next(numbers) << (turn & 15) if turn & 1 else -next(numbers)
                if turn & 2:
                    value = codec.from_raw(field, next(numbers) & ((1 << field[2]) - 1))
                if turn < 10 or next(numbers) & 1:
                    values[field[0]] = value
            longest = max(row.dlcs) if row.dlcs else 0
            if row.dlc == longest and row.dlcs:
                assert compact.encode(row.name, **values) == codec.encode(row.name, values), row.name
            for size in list(row.dlcs) + [0, 1, 7, 9, 64]:
                data = bytes([next(numbers) & 0xFF for _ in range(size)])
                assert compact.decode(row.name, data) == codec.decode(row.name, data), (row.name, size)


def test_what_there_is_not():
    for call in (
        lambda: compact.encode("STATUS_9"),
        lambda: compact.decode("STATUS_", bytes(8)),
        lambda: compact.encode("STATUS_1", states=3),
    ):
        raises(ValueError, call)


def test_policy_rows():
    assert list(compact.policy_rows()) == sorted(policy_rows())
