"""The message table and its codec.

    data = encode("STATUS_1", state=STATE_ON, soc_permille=805, current_ma=-12340)
    values = decode("STATUS_1", data)    # {"state": 3, ...}; None: wrong length
    row = by_base(0x502)                 # name, direction, dlc, fields, is_sealable, ...

`table` holds the rows and the named values, `codec` the arithmetic. docs/messages.md and
docs/packtrust.dbc are made from them.
"""

from packtrust.messages.codec import decode, encode
from packtrust.messages.table import (
    MESSAGES,
    Message,
    by_base,
    by_name,
    by_standard_id,
    standard_id,
)

__all__ = [
    "MESSAGES",
    "Message",
    "by_base",
    "by_name",
    "by_standard_id",
    "decode",
    "encode",
    "standard_id",
]
