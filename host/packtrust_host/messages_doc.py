"""docs/messages.md from the message table.

python -m packtrust_host.messages_doc > docs/messages.md
"""

import sys
from collections.abc import Iterator
from fractions import Fraction

from packtrust.messages import MESSAGES, Message
from packtrust.messages.notes import VALUE_NAMES, unit_of
from packtrust.policy import (
    CITED,
    CLASS_FLAGS,
    CLASS_NAMES,
    CLEAR_KEYED,
    CLEAR_STANDARD,
    CLEAR_UNKEYED,
    CLEAR_WITHOUT_SESSION,
    DEFAULT_POLICY,
    SEALABLE,
)

_INTRODUCTION = """\
# The messages

Made from the message table (`shared/packtrust/messages/table.py`) by `python -m
packtrust_host.messages_doc`; a test fails when the two differ. `docs/packtrust.dbc` is made from
the same table: load it into `cantools`, SavvyCAN or any tool that reads DBC files.

```python
from packtrust.messages import decode, encode

data = encode("MODULE_POWER", module_id=17, voltage_mv=131070, current_ma=-393220)
assert bytes(data) == bytes.fromhex("1122220033330000")
assert decode("MODULE_POWER", data)["current_ma"] == -393220
```

## Numbers

All fields are little-endian and unsigned, bits count from bit 0 of byte 0. A value is an integer in
the unit that its name ends with: `_ma` mA, `_mv` mV, `_centi_c` 0.01 degC, `_permille` 0.1 %,
`_ppm` 0.0001 %, `_s` s, `_ms` ms; other fields are counts and codes.

    raw   = (value - offset) / factor    truncated toward zero, then limited to the field
    value = raw * factor + offset        rounded up to a whole unit

* Truncation is what the field's C casts do: 0.314 V in steps of 0.015 V is 20, not 21. A
  floating-point quotient can land one step lower where it should be whole; ours is exact.
* The field's code wraps a value out of range; ours sends the nearest that fits.
* Rounding up when decoding makes `encode(decode(data))` the same bits, also where a step is no
  whole number of units.
* Bits without a field are sent as 0. The field's nodes leave some bytes uninitialised (see notes).
* Data of another length than those listed is not decoded (`decode` returns `None`).

## IDs

| address | clear ID | on |
|---|---|---|
| S | 11-bit: base + 0x100 * pack number (0..3; the field's firmware knows 0 and 1) | VCU bus |
| R | 29-bit, and the whole ID is the small base number | VCU bus |
| P | 29-bit: base << 18, node byte 0x40 + pack number | VCU bus |
| M | 29-bit: base << 18, node byte = the module's (1..31) | module bus |
| B | 29-bit: base << 18, node byte 0x00 (all modules) | module bus |
| U | 29-bit: base << 18, node byte 0xFF (not registered) | module bus |

A sealed message always has a 29-bit ID, bit 17 set, and the node byte of the pair: 0x40 + pack
number between app and pack (so every S row has a sealed 29-bit twin), the module's between pack
and module. With pack number 1 the 11-bit IDs are 0x500..0x541, numerically the module bus's bases:
another bus, another format, no relation.

Bit 17 means encrypted only for rows marked sealable. The field's SD sector transfer (0x3E0..0x3FF),
which has it always set, is not in the table and never taken; 0x522 in clear has its sequence there.
"""

_POLICY = """\
## Classes

What a node does with a message depends on its class alone, and two nodes whose tables differ never
hold a session: the digest below is part of the handshake ([wire.md](wire.md), section 6).

"""

_FLAG_NAMES = (
    (SEALABLE, "sealable"),
    (CITED, "cited"),
    (CLEAR_UNKEYED, "clear while unkeyed"),
    (CLEAR_KEYED, "clear always"),
    (CLEAR_WITHOUT_SESSION, "clear without session"),
    (CLEAR_STANDARD, "11-bit frame clear"),
)

_CLASS_TEXT = {
    "announce": "who is there; says nothing worth hiding",
    "telemetry": "sliding window, each record once",
    "command": "strictly in order, cites the newest counter held from the receiver",
    "config": "like commands",
    "registration": "like commands; in clear while there are no keys yet",
    "heartbeat": "heartbeats and polls, which keep a node alive: like commands",
    "legacy-vcu": "11-bit frames to old VCUs, in clear; the 29-bit twin is telemetry",
    "handshake": "proves itself by MACs",
    "transport": "ISO-TP; what it carries proves itself",
    "test": "test service; refused once the node is keyed",
    "unsealable": "never taken; also every base that is not in the table",
}

_DIGEST = """
The digest is SHA-256 over `packtrust policy v1` and four bytes for each row, sorted by base: base
(u16, big-endian), class number, flags. A policy for a bus of one's own (`Policy.open_bus`) ends
with the row 0xFFFF, which stands for every base not listed. Rows on the VCU bus that cite have no
"clear while unkeyed"; 0x51F ALL_ISOLATE has "clear without session".

"""

_SECTIONS = (
    ("VCU bus, to the pack", "V>P"),
    ("VCU bus, from the pack", "P>V"),
    ("Module bus, from the module", "M>P"),
    ("Module bus, to the module", "P>M"),
)


def _flags_text(flags: int) -> str:
    return ", ".join(name for flag, name in _FLAG_NAMES if flags & flag) or "-"


def _policy_lines() -> Iterator[str]:
    flag_list = ", ".join(f"{flag} {name}" for flag, name in _FLAG_NAMES)
    yield "| number | class | flags | meaning |"
    yield "|---|---|---|---|"
    for number, name in enumerate(CLASS_NAMES):
        if name:
            flags = _flags_text(CLASS_FLAGS[number])
            yield f"| {number} | {name} | {flags} | {_CLASS_TEXT[name]} |"
    yield ""
    yield f"Flags: {flag_list}."
    yield _DIGEST + f"    {DEFAULT_POLICY.digest.hex()}"


def _physical(value: Fraction) -> str:
    number = value.numerator if value.denominator == 1 else float(value)
    return f"{number:.10g}" if isinstance(number, float) else str(number)


def _place(start: int, bits: int) -> str:
    """Where a field lies, as a reader of hex dumps counts: bytes, or bits of a byte."""
    first, last = start // 8, (start + bits - 1) // 8
    if start % 8 == 0 and bits % 8 == 0:
        return f"byte {first}" if first == last else f"bytes {first}-{last}"
    return f"bit {start}" if bits == 1 else f"bits {start}-{start + bits - 1}"


def _field_line(field: tuple[str, int, int, int, int, int]) -> str:
    name, start, bits, num, den, offset = field
    _, unit, per_unit = unit_of(name)
    step = Fraction(num, den * per_unit)
    meaning = f"{_physical(step)} {unit}" if unit else ""
    if offset:
        meaning += f", from {_physical(Fraction(offset, per_unit))} {unit}"
    named = VALUE_NAMES.get(name)
    if named:
        meaning = ", ".join(f"{value} {text}" for value, text in named.items())
    return f"| `{name}` | {_place(start, bits)} | {meaning} |"


def _row_lines(message: Message) -> Iterator[str]:
    lengths = " or ".join(str(length) for length in message.dlcs) or "any"
    kind = CLASS_NAMES[message.message_class]
    sealable = "sealable" if message.is_sealable else "not sealable"
    yield f"### 0x{message.base:03X} {message.name}"
    yield ""
    yield f"Address {message.address}, length {lengths}, {kind}, {sealable}."
    if message.note:
        yield message.note
    yield ""
    if message.fields:
        yield "| field | place | step, values |"
        yield "|---|---|---|"
        for field in message.fields:
            yield _field_line(field)
        yield ""


def render() -> str:
    """The text of docs/messages.md."""
    lines = [_INTRODUCTION, _POLICY.rstrip("\n"), ""]
    lines.extend(_policy_lines())
    lines.append("")
    for title, direction in _SECTIONS:
        lines.extend((f"## {title}", ""))
        rows = sorted((row for row in MESSAGES if row.direction == direction), key=_base)
        for message in rows:
            lines.extend(_row_lines(message))
    return "\n".join(lines).rstrip("\n") + "\n"


def _base(message: Message) -> int:
    return message.base


def main() -> int:
    """Print the document."""
    sys.stdout.write(render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
