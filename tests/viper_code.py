"""What MicroPython's viper emitter made of a module for a Cortex-M, and what a viper function's source asks of it.

For the tests of the emitter's traps (tests/on_target/test_viper_traps.py):

* `viper_functions` finds the machine code of a compiled module's viper functions;
* `branches` decodes the conditional branches in it as the core does, not as the emitter meant them;
* `overwritten` finds in source where an index is read again after it was one of `ptr16` or `ptr32`.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator

# py/persistentcode.h, py/emitglue.h: kinds of code in a .mpy, and of constant objects behind its names.
VERSION = 6
_BYTECODE, _NATIVE, _VIPER, _ASSEMBLER = 0, 1, 2, 3
_FUN_TABLE, _STR, _BYTES, _TUPLE = 0, 5, 6, 10
_ARCH_FLAGS = 0x40
_VIPER_SECTIONS = 0x70  # scope flags of what only C compiled to a .mpy has: relocations, data


class _Reader:
    """Bytes of a .mpy, from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        self.at += count
        if self.at > len(self._data):
            raise ValueError("a .mpy that ends early")
        return self._data[self.at - count : self.at]

    def number(self) -> int:
        value = 0
        while True:
            byte = self.take(1)[0]
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value


def viper_functions(mpy: bytes) -> dict[int, bytes]:
    """Machine code of the viper functions of a .mpy, by the place of the code in the file. ValueError if it is none."""
    reader = _Reader(mpy)
    magic, version, flags, _ = reader.take(4)
    if magic != ord("M") or version != VERSION:
        raise ValueError("not a .mpy of version %d" % VERSION)
    if flags & _ARCH_FLAGS:
        reader.number()
    names, objects = reader.number(), reader.number()
    for _ in range(names):
        length = reader.number()
        if not length & 1:  # else one of the names every interpreter has
            reader.take((length >> 1) + 1)
    for _ in range(objects):
        _skip_object(reader)
    found: dict[int, bytes] = {}
    _walk(reader, found)
    return found


def _skip_object(reader: _Reader) -> None:
    kind = reader.take(1)[0]
    if kind == _TUPLE:
        for _ in range(reader.number()):
            _skip_object(reader)
    elif kind >= _STR:
        reader.take(reader.number() + (kind in (_STR, _BYTES)))


def _walk(reader: _Reader, found: dict[int, bytes]) -> None:
    head = reader.number()
    kind = head & 3
    at = reader.at
    code = reader.take(head >> 3)
    if kind == _NATIVE:
        reader.number()
    elif kind in (_VIPER, _ASSEMBLER):
        if reader.number() & _VIPER_SECTIONS:
            raise ValueError("C compiled to a .mpy: not understood here")
        if kind == _ASSEMBLER:
            reader.number()
            reader.number()
        else:
            found[at] = code
    if head & 4:
        for _ in range(reader.number()):
            _walk(reader, found)


@dataclasses.dataclass(frozen=True)
class Branch:
    """A conditional branch: where it stands, and where it goes, in bytes from the start of the function."""

    at: int
    target: int

    @property
    def span(self) -> int:
        """What the instruction has to hold (Arm v7-M ARM, A7.7.12: relative to 4 bytes behind it)."""
        return self.target - self.at - 4


def instructions(code: bytes) -> Iterator[tuple[int, int, int]]:
    """(place, first halfword, second one or 0) of Thumb-2 code, from its start on. Arm v7-M ARM, A5.1."""
    at = 0
    while at < len(code):
        first = int.from_bytes(code[at : at + 2], "little")
        wide = first >> 11 in (0b11101, 0b11110, 0b11111)
        yield at, first, int.from_bytes(code[at + 2 : at + 4], "little") if wide else 0
        at += 4 if wide else 2


def branches(code: bytes) -> list[Branch]:
    """The conditional branches of Thumb-2 code as the core decodes them: encodings T1 and T3, A7.7.12."""
    found = []
    for at, first, second in instructions(code):
        if first >> 12 == 0b1101 and first >> 8 & 15 < 14:
            found.append(Branch(at, at + 4 + _signed(first & 255, 8) * 2))
        elif first >> 11 == 0b11110 and second & 0xD000 == 0x8000 and first >> 6 & 15 < 14:
            sign, j1, j2 = first >> 10 & 1, second >> 13 & 1, second >> 11 & 1
            field = sign << 19 | j2 << 18 | j1 << 17 | (first & 63) << 11 | second & 0x7FF
            found.append(Branch(at, at + 4 + _signed(field, 20) * 2))
    return found


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 else value


def astray(code: bytes) -> list[Branch]:
    """Conditional branches that go to no instruction of the function."""
    places = {at for at, _, _ in instructions(code)}
    return [branch for branch in branches(code) if branch.target not in places]


# ---- source

# So many of a function's variables are kept in registers, in the order of their first appearance, arguments first
# (py/emitnative.c, MAX_REGS_FOR_LOCAL_VARS; two where the third register holds the names).
REGISTERS = 3

# What happens to a variable: "=read", "=written", or the name of a pointer whose index it is ("" if it has none);
# the variable; the line.
_READ, _WRITTEN = "=read", "=written"
_Event = tuple[str, str, int]
_CASTS = ("int", "uint", "ptr8", "ptr16", "ptr32")


def is_viper(function: ast.FunctionDef) -> bool:
    """Whether the function has the decorator micropython.viper."""
    return any(isinstance(item, ast.Attribute) and item.attr == "viper" for item in function.decorator_list)


def overwritten(function: ast.FunctionDef) -> list[str]:
    """`name:line` of each variable in a register that indexes a ptr16 or ptr32 there and may be read again as it was.

    MicroPython 1.26 and 1.27 shift it in place (for Thumb and RISC-V): after `p[i]` of a ptr32, i is four times what it
    was. Harmless is an index that is an expression, one on the stack, and one that is written before it is read again.
    """
    names = [argument.arg for argument in function.args.args]
    names += [name for what, name, _ in _in_order(function.body) if what == _WRITTEN]
    order = list(dict.fromkeys(names))
    return _Liveness(set(order[:REGISTERS]), _byte_pointers(function)).of(function)


def _byte_pointers(function: ast.FunctionDef) -> set[str]:
    """Variables that are never anything but a ptr8, whose index is left alone."""
    kinds: dict[str, set[str]] = {}
    for argument in function.args.args:
        kind = argument.annotation
        kinds[argument.arg] = {kind.id if isinstance(kind, ast.Name) else ""}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    kinds.setdefault(target.id, set()).add(_cast(node.value))
    return {name for name, found in kinds.items() if found == {"ptr8"}}


def _cast(value: ast.expr) -> str:
    return value.func.id if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else ""


class _Liveness:
    """Which variables in registers are read later, backwards through a function."""

    def __init__(self, registers: set[str], byte_pointers: set[str]) -> None:
        self._registers = registers
        self._byte_pointers = byte_pointers
        self._found: set[tuple[int, str]] = set()
        self._loops: list[tuple[set[str], set[str]]] = []  # live at `continue` and `break`

    def of(self, function: ast.FunctionDef) -> list[str]:
        self._block(function.body, set())
        return ["%s:%d" % (name, line) for line, name in sorted(self._found)]

    def _block(self, body: list[ast.stmt], live: set[str]) -> set[str]:
        for statement in reversed(body):
            live = self._statement(statement, live)
        return live

    def _statement(self, node: ast.stmt, live: set[str]) -> set[str]:
        if isinstance(node, ast.While):
            head: set[str] = set()
            while True:  # until what is live at its head is so behind its body too
                self._loops.append((head, live))
                body = self._block(node.body, head)
                self._loops.pop()
                seen = self._events(node.test, body | self._block(node.orelse, live))
                if seen <= head:
                    return seen
                head |= seen
        if isinstance(node, ast.If):
            return self._events(node.test, self._block(node.body, live) | self._block(node.orelse, live))
        if isinstance(node, ast.Return):
            return self._events(node.value, set())
        if isinstance(node, ast.Break):
            return set(self._loops[-1][1])
        if isinstance(node, ast.Continue):
            return set(self._loops[-1][0])
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.Expr)):
            return self._events(node, live)
        if isinstance(node, (ast.Pass, ast.Global)):
            return live
        raise ValueError("line %d: %s is not understood here" % (node.lineno, type(node).__name__))

    def _events(self, node: ast.AST | None, live: set[str]) -> set[str]:
        live = set(live)
        for what, name, line in reversed(list(_events(node)) if node is not None else []):
            if what == _WRITTEN:
                live.discard(name)
            elif what == _READ:
                live.add(name)
            elif name in live and name in self._registers and what not in self._byte_pointers:
                self._found.add((line, name))
        return live


def _in_order(body: list[ast.stmt]) -> Iterator[_Event]:
    """What happens to the variables, in the order in which MicroPython compiles it: a loop's test behind its body."""
    for statement in body:
        if isinstance(statement, ast.While):
            yield from _in_order(statement.body)
            yield from _events(statement.test)
            yield from _in_order(statement.orelse)
        elif isinstance(statement, ast.If):
            yield from _events(statement.test)
            yield from _in_order(statement.body)
            yield from _in_order(statement.orelse)
        else:
            yield from _events(statement)


def _events(node: ast.AST) -> Iterator[_Event]:
    """What an expression or a simple statement does to the variables, in the order of evaluation.

    All terms of an `and` or `or` count as evaluated: reads behind an index are then found, never missed.
    """
    if isinstance(node, ast.Assign):
        yield from _events(node.value)
        for target in node.targets:
            yield from _events(target)
    elif isinstance(node, ast.AugAssign):
        if not isinstance(node.target, ast.Name):
            raise ValueError("line %d: viper has no augmented assignment to an item" % node.lineno)
        yield _READ, node.target.id, node.lineno
        yield from _events(node.value)
        yield _WRITTEN, node.target.id, node.lineno
    elif isinstance(node, ast.Name):
        yield (_WRITTEN if isinstance(node.ctx, ast.Store) else _READ), node.id, node.lineno
    elif isinstance(node, ast.Subscript):
        yield from _events(node.value)
        yield from _events(node.slice)
        index = node.slice
        while isinstance(index, ast.Call) and _cast(index) in _CASTS and len(index.args) == 1:
            index = index.args[0]  # a cast makes no code
        if isinstance(index, ast.Name) and _cast(node.value) != "ptr8":
            yield node.value.id if isinstance(node.value, ast.Name) else "", index.id, node.lineno
    else:
        for child in ast.iter_child_nodes(node):
            yield from _events(child)
