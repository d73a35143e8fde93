"""Policies other than the default, made from it row by row: loaded by `policy.profile` when one is asked for.

legacy-vcu   an old VCU's 11-bit COMMAND and KEEP_ALIVE are taken in clear, as far as CLEAR_LOWERS says
mixed bus    old modules are on the module bus: they ignore bits 17..8 of an ID and would obey ciphertext. So what is
             sealed there leaves the bases they listen to, 0x500..0x5FF, by SHIFT
"""

from packtrust._compat import const
from packtrust.messages.compact import policy_rows
from packtrust.policy import CITED, CLEAR_LOWERS, SEALABLE, TRANSPORT, Policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from packtrust.policy import Row

SHIFT = const(0x100)

# What the acceptance filters of the field's modules compare of a base.
_OLD_MASK = const(0x700)
_OLD_BASES = const(0x500)

_COMMAND = const(0x400)
_KEEP_ALIVE = const(0x405)

_made = {}  # type: dict[tuple[bool, bool], Policy]


def with_old_vcu(rows: "Iterable[Row]") -> "Iterator[Row]":
    """The rows, with CLEAR_LOWERS where an old VCU is heard."""
    for base, kind, flags in rows:
        yield base, kind, flags | CLEAR_LOWERS if base in (_COMMAND, _KEEP_ALIVE) else flags


def with_old_modules(rows: "Iterable[Row]") -> "Iterator[Row]":
    """The rows, with everything sealed out of the reach of old modules."""
    for base, kind, flags in rows:
        if base & _OLD_MASK != _OLD_BASES:
            yield base, kind, flags
            continue
        yield base, kind, flags & ~SEALABLE
        if flags & SEALABLE:
            yield base + SHIFT, kind, flags & (SEALABLE | CITED)
        elif kind == TRANSPORT:
            yield base + SHIFT, kind, 0  # long records: ISO-TP with bit 17


def _rows(old_vcu: bool, old_modules: bool) -> "Iterable[Row]":
    rows = policy_rows()
    if old_vcu:
        rows = with_old_vcu(rows)
    return with_old_modules(rows) if old_modules else rows


def make(old_vcu: bool, old_modules: bool) -> Policy:
    """The policy with one of the two, or both."""
    key = (old_vcu, old_modules)
    policy = _made.get(key)
    if policy is None:
        policy = _made[key] = Policy(lambda: _rows(old_vcu, old_modules))
    return policy
