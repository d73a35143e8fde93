"""Print shared/packtrust/messages/rows.py: the message table as bytes, which a board reads where they lie."""

import sys
from pathlib import Path
from struct import pack

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from packtrust.messages.table import MESSAGES, policy_rows

HEAD = '''"""The message table as bytes, made from table.py by tools/message_rows.py (`make generate`).

In flash they cost a board no RAM; `compact` reads them.

NAMES    " NAME=offset" of each message, the offset into ROWS as 4 hexadecimal digits
ROWS     count of lengths, the lengths; count of fields, and of each: start, bits (u8), num (u16), den (u8), offset
         (i32), place and length of its name in FIELDS (u16, u8); little-endian
FIELDS   names of fields
POLICY   base (u16 BE), class, flags of each row, by base
"""

'''


def literal(name: str, value: bytes | str, width: int = 104) -> str:
    """An assignment in lines of at most 120 characters."""
    lines = []
    at = 0
    while at < len(value):
        size = 1
        while size < len(value) - at and len(repr(value[at : at + size + 1])) <= width:
            size += 1
        text = value[at : at + size]
        if isinstance(text, bytes):
            lines.append('    b"%s"' % "".join("\\x%02x" % byte for byte in text[: (width - 3) // 4]))
            at += len(text[: (width - 3) // 4])
        else:
            lines.append('    "%s"' % text)
            at += size
    return "%s = (\n%s\n)\n" % (name, "\n".join(lines)) if len(lines) > 1 else "%s = %s\n" % (name, lines[0].strip())


def main() -> None:
    """Print the module."""
    names, rows, fields = "", bytearray(), ""
    for message in MESSAGES:
        names += " %s=%04X" % (message.name, len(rows))
        rows += bytes((len(message.dlcs), *message.dlcs, len(message.fields)))
        for name, start, bits, num, den, offset in message.fields:
            at = fields.find(name)
            if at < 0:
                at = len(fields)
                fields += name
            rows += pack("<BBHBiHB", start, bits, num, den, offset, at, len(name))
    policy = b"".join(pack(">HBB", *row) for row in sorted(policy_rows()))
    sys.stdout.write(HEAD)
    sys.stdout.write(literal("NAMES", names + " "))
    sys.stdout.write(literal("ROWS", bytes(rows)))
    sys.stdout.write(literal("FIELDS", fields))
    sys.stdout.write(literal("POLICY", policy))


if __name__ == "__main__":
    main()
