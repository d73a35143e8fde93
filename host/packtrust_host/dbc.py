"""The message table as a DBC file, for cantools and every other tool that reads one.

Frames appear as they are in clear on the bus: the field's VCU frames with 11-bit IDs (a pack
number above 0 shifts them by 0x100), everything else with 29-bit IDs, one frame a module and row
(`MOD05_STATUS_1`). A DBC has no room for "node byte", so modules are expanded. What travels sealed
is listed under its clear ID, under which an opened record appears; the sealed 29-bit twin of an
11-bit row is named `APP_...`.

Units are V, A, degC, %, s and ms with the table's exact factors. Comments carry the field's traps.

    python -m packtrust_host.dbc --modules 31 > packtrust.dbc
"""

import argparse
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from fractions import Fraction

from cantools.database import Database
from cantools.database.can import Message as DbcMessage
from cantools.database.can import Node, Signal
from cantools.database.conversion import BaseConversion

from packtrust import arbitration
from packtrust.messages import MESSAGES, Message, standard_id
from packtrust.messages.notes import VALUE_NAMES, unit_of
from packtrust.policy import CLASS_NAMES

ALL_MODULES = range(1, arbitration.NODE_MODULE_MAX + 1)

NAME_MAX = 32  # of messages and signals in the DBC format

_SENDERS = {"M": "Module", "P": "Pack", "V": "App"}

# Signals wider than this have no limits: a double does not hold them.
_EXACT_BITS = 52


# What a unit measures, for names that are equal without their unit (`cell_mv`, `cell_centi_c`).
_QUANTITIES = {"A": "current", "V": "voltage", "degC": "temperature"}


def signal_name(message: Message, field_name: str) -> str:
    """The DBC's name of a field: without its unit, unless two of a row are then named alike."""
    short, unit, _ = unit_of(field_name)
    alike = sum(unit_of(field[0])[0] == short for field in message.fields)
    return short if alike == 1 else f"{short}_{_QUANTITIES[unit]}"


def _signal(message: Message, field: tuple[str, int, int, int, int, int]) -> Signal:
    name, start, bits, num, den, offset = field
    _, unit, per_unit = unit_of(name)
    scale = Fraction(num, den * per_unit)
    zero = Fraction(offset, per_unit)
    limited = bits <= _EXACT_BITS
    choices = VALUE_NAMES.get(name)
    return Signal(
        name=signal_name(message, name),
        start=start,
        length=bits,
        byte_order="little_endian",
        is_signed=False,
        conversion=BaseConversion.factory(
            scale=_number(scale),
            offset=_number(zero),
            choices=OrderedDict(choices) if choices else None,
        ),
        minimum=_number(zero) if limited else None,
        maximum=_number(zero + scale * ((1 << bits) - 1)) if limited else None,
        unit=unit or None,
        receivers=[_SENDERS[message.direction[2]]],
    )


def _number(value: Fraction) -> int | float:
    return value.numerator if value.denominator == 1 else float(value)


def comment_of(message: Message) -> str:
    """What the DBC says about a row."""
    kind = CLASS_NAMES[message.message_class]
    text = f"{message.direction} on the {message.bus} bus, class {kind}. {message.note}"
    return text.strip()


def _frame(message: Message, name: str, frame_id: int, extended: bool, comment: str | None) -> DbcMessage:
    length = message.dlc if message.dlcs else 0
    return DbcMessage(
        frame_id=frame_id,
        name=name,
        length=length,
        signals=[_signal(message, field) for field in message.fields if field[1] + field[2] <= 8 * length],
        comment=comment,
        senders=[_SENDERS[message.direction[0]]],
        is_extended_frame=extended,
        strict=True,
    )


def _places(message: Message, modules: list[int], packs: list[int]) -> Iterator[tuple[str, int, bool]]:
    """(name, ID, extended) of every clear frame of a row."""
    if message.address == "R":
        yield message.name, message.base, True
        return
    for pack in packs:
        prefix = f"PACK{pack}_" if pack else ""
        node = arbitration.NODE_PACK + pack
        if message.address == "S":
            yield prefix + message.name, standard_id(message, pack), False
            yield f"{prefix}APP_{message.name}", arbitration.compose(message.base, node), True
        elif message.address == "P":
            yield prefix + message.name, arbitration.compose(message.base, node), True
    if message.name == "APP_ANNOUNCE_REQUEST":
        yield message.name + "_ALL", arbitration.compose(message.base, arbitration.NODE_APP), True
    if message.address in "BU":
        node = arbitration.NODE_BROADCAST if message.address == "B" else arbitration.NODE_UNREGISTERED
        yield message.name, arbitration.compose(message.base, node), True
    if message.name == "ANNOUNCEMENT":
        yield message.name + "_NODE_0", arbitration.compose(message.base, 0), True
    if message.address in "MBU":
        for module in modules:
            node = arbitration.module_node(module)
            yield f"MOD{module:02}_{message.name}", arbitration.compose(message.base, node), True


def build_database(modules: Iterable[int] = ALL_MODULES, packs: Iterable[int] = (0,)) -> Database:
    """A cantools database of every row, for these module numbers (1..31) and packs (0..3).

    Raises ValueError for a number out of range.
    """
    module_list = list(modules)
    pack_list = list(packs)
    frames = []
    for message in MESSAGES:
        comment: str | None = comment_of(message)
        for name, frame_id, extended in _places(message, module_list, pack_list):
            frames.append(_frame(message, name, frame_id, extended, comment))
            comment = None  # once a row: thirty-one copies help nobody
    database = Database(
        messages=frames,
        nodes=[Node(name) for name in sorted(set(_SENDERS.values()))],
        version="packtrust",
    )
    database.refresh()
    return database


def render(modules: Iterable[int] = ALL_MODULES, packs: Iterable[int] = (0,)) -> str:
    """The text of the DBC file, lines ending in LF."""
    text: str = build_database(modules, packs).as_dbc_string()
    return text.replace("\r\n", "\n")


def main(arguments: list[str] | None = None) -> int:
    """Print the DBC file."""
    parser = argparse.ArgumentParser(prog="python -m packtrust_host.dbc", description=__doc__)
    parser.add_argument("--modules", type=int, default=len(ALL_MODULES), help="module numbers 1..N")
    parser.add_argument("--packs", type=int, default=1, help="pack numbers 0..N-1")
    options = parser.parse_args(arguments)
    sys.stdout.write(render(range(1, options.modules + 1), range(options.packs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
