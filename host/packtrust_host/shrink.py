"""Makes a board's program smaller in RAM without changing what it does: source in, source out, line numbers kept.

A module that runs in place from ROM still keeps in RAM what it names: 8 bytes and more for each name of a module or
class, 7 for each different name in the whole program (MicroPython's table of interned strings, which also doubles when
it is full), 16 for each function. So over the whole program, which must be complete, for nobody else can use it then:

* constants are put in where they are used (`NAME = const(1)`, also across modules), and their names go;
* messages of the table and their fields are numbers, not names (`packtrust.messages.compact`);
* blocks under `if TYPE_CHECKING:`, docstrings, `__repr__`, `__all__` and `__slots__` (which MicroPython ignores) go;
* functions, methods, classes and imports go whose names occur nowhere else, not even in a string;
* the modules that are always there become one: no names that one imports from another, no 150 bytes for each module;
* names of functions, of attributes of our own, and of arguments nobody gives by keyword become short ones, which are
  shared by what never meets.

What is looked up by name at run time stays: a name that occurs in a string counts as used, and one that is a string
keeps its spelling.
"""

from __future__ import annotations

import ast
import functools
import gc
import hashlib
import io
import operator
import re
import struct
import tokenize
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from .stock_names import BUILTINS, NAMES

# Methods that MicroPython's C code calls by name.
PROTOCOLS = frozenset(
    (
        "close",
        "flush",
        "ioctl",
        "mount",
        "open",
        "read",
        "readblocks",
        "readinto",
        "stat",
        "umount",
        "write",
        "writeblocks",
    )
)
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What is renamed is first called _g and a number if a module has it at its top, _m and a number if an object has it.
_SHORT = re.compile(r"_[gm][0-9a-f]{1,3}")
_MAX_ROUNDS = 12
_NEAR = ("len", "int", "min", "max", "isinstance", "bytes", "memoryview", "getattr", "bool", "list", "bytearray")
_ARGUMENTS = 20  # of a function that get short names

_Edit = tuple[int, int, int, int, str]
_T = TypeVar("_T")


class ShrinkError(ValueError):
    """A module is no Python, or says something this tool must not touch; the text names it."""


def module_name(path: str) -> str:
    """Dotted name of a file of the program: `lib/` is on the path, a package is its `__init__`."""
    parts = path.removeprefix("lib/").removesuffix(".py").split("/")
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def _once(function: Callable[[ast.AST], _T]) -> Callable[[ast.AST], _T]:
    """What a function found in a tree is kept at its root: trees are parsed anew and never changed."""
    name = "_kept" + function.__name__

    @functools.wraps(function)
    def kept(node: ast.AST) -> _T:
        if name not in node.__dict__:
            setattr(node, name, function(node))
        found: _T = getattr(node, name)
        return found

    return kept


@_once
def _below(tree: ast.AST) -> list[ast.AST]:
    """In the order of ast.walk, in half of its time. Without the root: one that holds itself would need a collector."""
    nodes: list[ast.AST] = []
    node = tree
    at = 0
    while True:
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, ast.AST):
                nodes.append(value)
            elif isinstance(value, list):
                nodes += [item for item in value if isinstance(item, ast.AST)]
        if at == len(nodes):
            return nodes
        node = nodes[at]
        at += 1


def _walk(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a tree, itself first."""
    yield tree
    yield from _below(tree)


class _Module:
    """One parsed file; edits are collected and then applied from the end."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.name = module_name(path)
        self.text = text
        self.edits: list[_Edit] = []
        try:
            self.tree = ast.parse(text)
        except SyntaxError as error:
            raise ShrinkError("%s: %s" % (path, error)) from error

    def replace(self, node: ast.expr | ast.stmt | ast.arg | ast.alias, text: str) -> None:
        assert node.end_lineno is not None and node.end_col_offset is not None
        self.edits.append((node.lineno, node.col_offset, node.end_lineno, node.end_col_offset, text))

    def drop(self, node: ast.stmt, text: str = "pass") -> None:
        """Put `text` in place of a statement, decorators included; the lines after it stay where they are."""
        assert node.end_lineno is not None and node.end_col_offset is not None
        line, column = node.lineno, node.col_offset
        for decorator in getattr(node, "decorator_list", ()):
            if decorator.lineno < line:
                line, column = decorator.lineno, decorator.col_offset - 1
        lines = node.end_lineno - line
        self.edits.append((line, column, node.end_lineno, node.end_col_offset, text + "\n" * lines))

    def rename(self, node: ast.AST, new: Mapping[str, str]) -> None:
        """A new name, by the present ones, for what a node means: a name, an attribute, a definition, or a `global`."""
        if isinstance(node, ast.Name):
            self.replace(node, new[node.id])
        elif isinstance(node, ast.Attribute):
            assert node.end_lineno is not None and node.end_col_offset is not None
            start = node.end_col_offset - len(node.attr)
            self.edits.append((node.end_lineno, start, node.end_lineno, node.end_col_offset, new[node.attr]))
        elif isinstance(node, ast.Global):
            self.drop(node, "global " + ", ".join(new.get(item, item) for item in node.names))
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            line = self.text.split("\n")[node.lineno - 1]
            at = len(line[: line.index(node.name, node.col_offset)].encode())
            self.edits.append((node.lineno, at, node.lineno, at + len(node.name), new[node.name]))

    def apply(self) -> bool:
        """Carry out the edits and parse anew; whether there were any."""
        if not self.edits:
            return False
        lines = [line.encode() for line in self.text.split("\n")]
        starts = [0]
        for line in lines:
            starts.append(starts[-1] + len(line) + 1)
        data = bytearray(self.text.encode())
        spans = [(starts[a - 1] + b, starts[c - 1] + d, text) for a, b, c, d, text in set(self.edits)]
        outer = []
        end = -1
        for first, last, text in sorted(spans, key=lambda span: (span[0], -span[1])):
            if first >= end:  # else inside something that goes anyway
                outer.append((first, last, text))
                end = last
        for first, last, text in reversed(outer):
            data[first:last] = text.encode()
        self.text = data.decode()
        self.edits = []
        try:
            self.tree = ast.parse(self.text)
        except SyntaxError as error:
            raise ShrinkError("%s: cannot be made smaller: %s" % (self.path, error)) from error
        return True


def _top(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements of a module, those under its `try` and `if` too."""
    queue = list(tree.body)
    while queue:
        node = queue.pop(0)
        yield node
        if isinstance(node, ast.If):
            queue.extend(node.body + node.orelse)
        elif isinstance(node, ast.Try):
            queue.extend(node.body + node.orelse + node.finalbody)
            for handler in node.handlers:
                queue.extend(handler.body)


# -- what no board needs -----------------------------------------------------------------------------------------------


def _strip(module: _Module) -> None:
    for node in _walk(module.tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            if node.orelse:
                module.replace(node.test, "False")
            else:
                module.drop(node)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in ("__all__", "__slots__"):
                module.drop(node)
        elif isinstance(node, ast.FunctionDef) and node.name == "__repr__":
            module.drop(node)  # for people who debug on a host
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
            and isinstance(node.body[0].value, ast.Constant)
            and isinstance(node.body[0].value.value, str)
        ):
            module.drop(node.body[0])


def _drop_absent(module: _Module, modules: Mapping[str, _Module]) -> None:
    """A function's import of a module of ours that was left out of the program fails without naming it."""
    ours = {name.split(".")[0] for name in modules}
    for function in _walk(module.tree):
        if isinstance(function, ast.FunctionDef):
            for node in _walk(function):
                if not isinstance(node, ast.ImportFrom) or not node.module or node.level:
                    continue
                if node.module.split(".")[0] in ours and node.module not in modules:
                    module.drop(node, "raise ImportError")
    module.apply()


def _fold_absent(module: _Module, modules: Mapping[str, _Module]) -> None:
    """`A if hasattr(MODULE, "name") else B`, of a module of the program: what it has is known."""
    local = {
        alias.asname or alias.name: alias.name
        for node in module.tree.body
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name in modules
    }
    for node in _walk(module.tree):
        if not (isinstance(node, ast.IfExp) and isinstance(node.test, ast.Call)):
            continue
        call = node.test
        if not (isinstance(call.func, ast.Name) and call.func.id == "hasattr" and len(call.args) == 2):
            continue
        owner, name = call.args
        if isinstance(owner, ast.Name) and owner.id in local and isinstance(name, ast.Constant):
            there = {item for statement in modules[local[owner.id]].tree.body for item in _targets(statement)}
            module.replace(node, ast.unparse(node.body if name.value in there else node.orelse))
    module.apply()


# -- constants ---------------------------------------------------------------------------------------------------------


_OPERATIONS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
}


def _value(node: ast.expr, known: Mapping[str, int]) -> int | None:
    """The integer an expression of constants is, else None."""
    if isinstance(node, ast.Constant):
        return node.value if type(node.value) is int else None
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "const":
        return _value(node.args[0], known)
    if isinstance(node, ast.UnaryOp):
        operand = _value(node.operand, known)
        if operand is None:
            return None
        if isinstance(node.op, ast.USub):
            return -operand
        return ~operand if isinstance(node.op, ast.Invert) else None
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, known), _value(node.right, known)
        if left is None or right is None:
            return None
        operation = _OPERATIONS.get(type(node.op))
        return None if operation is None else operation(left, right)
    return None


def _bound(tree: ast.Module) -> Counter[str]:
    """How often each name is bound anywhere in a module, imports aside."""
    found: Counter[str] = Counter()
    for node in _walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found[node.id] += 1
        elif isinstance(node, ast.arg):
            found[node.arg] += 1
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)) or (isinstance(node, ast.ExceptHandler) and node.name):
            found[str(node.name)] += 1
    return found


class _Constants:
    """The program's integer constants, by module and name."""

    def __init__(self, modules: Mapping[str, _Module]) -> None:
        self._modules = modules
        self.own: dict[str, dict[str, int]] = {name: {} for name in modules}
        self._bound = {name: _bound(module.tree) for name, module in modules.items()}
        for _ in range(_MAX_ROUNDS):
            if not self._find():
                return
        raise ShrinkError("constants depend on each other in a circle")

    def _find(self) -> bool:
        found = False
        for name, module in self._modules.items():
            known = self.visible(name)
            for node in module.tree.body:
                if not (isinstance(node, ast.Assign) and len(node.targets) == 1):
                    continue
                target = node.targets[0]
                if not isinstance(target, ast.Name) or self._bound[name][target.id] != 1 or target.id in self.own[name]:
                    continue
                value = _value(node.value, known)
                if value is not None:
                    self.own[name][target.id] = value
                    found = True
        return found

    def visible(self, name: str) -> dict[str, int]:
        """What a module's names mean, its imports included."""
        known = dict(self.own[name])
        for node in _top(self._modules[name].tree):
            if isinstance(node, ast.ImportFrom) and node.module in self.own:
                for alias in node.names:
                    local = alias.asname or alias.name
                    if alias.name in self.own[node.module] and not self._bound[name][local]:
                        known[local] = self.own[node.module][alias.name]
        return known

    def aliases(self, name: str) -> dict[str, str]:
        """Modules of the program by the names a module gives them."""
        found = {}
        for node in _top(self._modules[name].tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    dotted = node.module + "." + alias.name
                    local = alias.asname or alias.name
                    if dotted in self._modules and not self._bound[name][local]:
                        found[local] = dotted
        return found


def _inline(modules: Mapping[str, _Module]) -> None:
    constants = _Constants(modules)
    # A module may be used as an object: its constants that are asked for by name stay.
    asked: set[str] = set()
    for name, module in modules.items():
        aliases = constants.aliases(name)
        for node in _walk(module.tree):
            if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id in aliases):
                asked.add(node.attr)
    for name, module in modules.items():
        known = constants.visible(name)
        aliases = constants.aliases(name)
        for node in _walk(module.tree):
            value = None
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                value = known.get(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                value = constants.own[aliases[owner]].get(node.attr) if owner in aliases else None
            if value is not None:
                assert isinstance(node, ast.expr)
                module.replace(node, str(value) if value >= 0 else "(%d)" % value)
        own = constants.own[name]
        for statement in module.tree.body:
            if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                target = statement.targets[0]
                if isinstance(target, ast.Name) and target.id in own and target.id not in asked:
                    module.drop(statement)
        for statement in _top(module.tree):
            if isinstance(statement, ast.ImportFrom) and statement.module in constants.own:
                source = constants.own[statement.module]
                left = [a for a in statement.names if a.name not in source or (a.asname or a.name) not in known]
                _import(module, statement, left)
    for module in modules.values():
        module.apply()


def _import(module: _Module, statement: ast.ImportFrom | ast.Import, left: list[ast.alias]) -> None:
    """Leave only some names of an import."""
    if len(left) == len(statement.names):
        return
    if not left:
        module.drop(statement)
        return
    names = ", ".join(a.name + (" as " + a.asname if a.asname else "") for a in left)
    if isinstance(statement, ast.ImportFrom):
        module.drop(statement, "from %s%s import %s" % ("." * statement.level, statement.module or "", names))
    else:
        module.drop(statement, "import " + names)


# -- messages ----------------------------------------------------------------------------------------------------------

_COMPACT = "packtrust.messages.compact"
_ROWS = "packtrust.messages.rows"
_FIELD = struct.Struct("<BBHBiHB")


class _Rows:
    """Where the program's message table has its rows, and their fields."""

    def __init__(self, module: _Module) -> None:
        found: dict[str, str | bytes] = {}
        for node in module.tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                found[node.targets[0].id] = ast.literal_eval(node.value)
        names, rows, texts = found["NAMES"], found["ROWS"], found["FIELDS"]
        assert isinstance(names, str) and isinstance(rows, bytes) and isinstance(texts, str)
        self.at: dict[str, int] = {}
        self.places: dict[str, int] = {}  # of the first field
        self.fields: dict[str, list[str]] = {}
        for item in names.split():
            name, _, digits = item.partition("=")
            at = self.at[name] = int(digits, 16)
            at += 1 + rows[at]
            self.places[name] = at + 1
            self.fields[name] = []
            for index in range(rows[at]):
                place, length = _FIELD.unpack_from(rows, at + 1 + index * _FIELD.size)[5:]
                self.fields[name].append(texts[place : place + length])


def _number_messages(modules: Mapping[str, _Module]) -> None:
    """Where a message is named in the program, and fields of one to be encoded, put the places in the table: a name is
    interned, and looked for."""
    if _ROWS not in modules or _COMPACT not in modules:
        return
    rows = _Rows(modules[_ROWS])
    for module in modules.values():
        imports = [node for node in _top(module.tree) if isinstance(node, ast.ImportFrom) and node.module == _COMPACT]
        names = {alias.asname or alias.name: alias.name for node in imports for alias in node.names}
        added = {"encode": "encode_row", "decode": "decode_row", "fits": "fits_row", "field": "field_at", "place": ""}
        if not set(added) & set(names.values()):
            continue
        # Tables of messages by something else.
        tables = [
            node.value
            for node in module.tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Dict)
            and all(isinstance(item, ast.Constant) and item.value in rows.at for item in node.value.values)
        ]
        for table in tables:
            for item in table.values:
                assert isinstance(item, ast.Constant)
                module.replace(item, str(rows.at[str(item.value)]))
        for node in _walk(module.tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names):
                continue
            what = names[node.func.id]
            first = node.args[0] if node.args else None
            if what not in added or first is None:
                continue
            if not (isinstance(first, ast.Constant) and isinstance(first.value, str)):
                if what in ("decode", "fits") and tables:
                    module.replace(node.func, added[what])
                continue
            message = first.value
            if message not in rows.at:
                raise ShrinkError("%s, line %d: there is no message %s" % (module.path, node.lineno, message))
            if what == "place":
                name = node.args[1]
                if not isinstance(name, ast.Constant) or name.value not in rows.fields[message]:
                    raise ShrinkError("%s, line %d: message %s has no such field" % (module.path, node.lineno, message))
                where = rows.places[message] + rows.fields[message].index(str(name.value)) * _FIELD.size
                module.replace(node, str(where))
                continue
            module.replace(node.func, added[what])
            if what in ("decode", "fits"):
                module.replace(first, str(rows.at[message]))
                continue
            if what == "field":
                name = node.args[1]
                if not isinstance(name, ast.Constant) or name.value not in rows.fields[message]:
                    raise ShrinkError("%s, line %d: message %s has no such field" % (module.path, node.lineno, message))
                assert name.end_lineno is not None and name.end_col_offset is not None
                place = rows.places[message] + rows.fields[message].index(str(name.value)) * _FIELD.size
                module.edits.append((first.lineno, first.col_offset, name.end_lineno, name.end_col_offset, str(place)))
                continue
            order = bytearray(len(rows.fields[message]))
            for number, keyword in enumerate(node.keywords, 1):
                if keyword.arg not in rows.fields[message]:
                    raise ShrinkError(
                        "%s, line %d: message %s has no field %s" % (module.path, node.lineno, message, keyword.arg)
                    )
                order[rows.fields[message].index(keyword.arg)] = number
                # "name=" goes, the value stays
                module.edits.append(
                    (keyword.lineno, keyword.col_offset, keyword.value.lineno, keyword.value.col_offset, "")
                )
            module.replace(first, "%d, %r" % (rows.at[message], bytes(order)))
        if module.edits and imports:
            alias = imports[0].names[0]
            more = sorted(set(added.values()) - set(names.values()) - {""})
            module.replace(alias, ", ".join([ast.unparse(alias), *more]))
        module.apply()


# -- texts -------------------------------------------------------------------------------------------------------------

_TEXT_MIN = 12  # shorter ones the interpreter shares by itself
# Functions that give figures to the console or talk on it.
_SAYING = frozenset(("figures", "stats", "statistics", "command", "greet", "_say_figures", "_say_value"))


def _texts(modules: Iterable[_Module], name: str, whole_name: str) -> str:
    """Put what is only said in an error, a log or on the console into one text: a short string is interned for ever, a
    long one takes 16 bytes and 4 for its place.

    Gives the source of a function `name(start, end)`, "" if there was nothing to do.
    """
    whole = ""

    def put(module: _Module, item: ast.AST, least: int) -> None:
        nonlocal whole
        if not (isinstance(item, ast.Constant) and isinstance(item.value, str) and len(item.value) >= least):
            return
        if not item.value.isascii() or "\n" in item.value:
            return
        at = whole.find(item.value)
        if at < 0:
            at = len(whole)
            whole += item.value
        module.replace(item, "%s(%d, %d)" % (name, at, at + len(item.value)))

    for module in modules:
        said: set[ast.AST] = set()
        for node in _walk(module.tree):
            if isinstance(node, ast.FunctionDef) and node.name in _SAYING:
                arguments = {item for default in node.args.defaults for item in _walk(default)}
                said |= {item for item in _walk(node) if item not in arguments}
        constants = [item for item in said if isinstance(item, ast.Constant)]
        for constant in sorted(constants, key=lambda item: (item.lineno, item.col_offset)):
            put(module, constant, 2)
        for node in _walk(module.tree):
            if isinstance(node, ast.Raise) and node.exc is not None:
                inside: ast.AST = node.exc
            elif isinstance(node, ast.Call) and isinstance(node.func, (ast.Attribute, ast.Name)):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                if called not in ("log", "_log", "_complain", "_say"):
                    continue
                inside = node
            else:
                continue
            for item in _walk(inside):
                if item not in said:
                    put(module, item, _TEXT_MIN)
        module.apply()
    if not whole:
        return ""
    return "%s = %r\n\ndef %s(a, b):\n    return %s[a:b]\n" % (whole_name, whole, name, whole_name)


# -- what nothing uses -------------------------------------------------------------------------------------------------


@_once
def _loads(tree: ast.AST) -> Counter[str]:
    """Names loaded in a tree: those of its own module, if they are no locals."""
    return Counter(node.id for node in _walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))


@_once
def _uses(tree: ast.AST) -> Counter[str]:
    """Names by which a tree may mean another module's: taken as attributes, imported, or found in strings."""
    found: Counter[str] = Counter()
    for node in _walk(tree):
        if isinstance(node, ast.Attribute):
            found[node.attr] += 1
        elif isinstance(node, ast.alias):
            for part in node.name.split("."):
                found[part] += 1
        elif isinstance(node, ast.ImportFrom) and node.module:
            for part in node.module.split("."):
                found[part] += 1
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            for word in _WORD.findall(node.value):
                found[word] += 1
    return found


def _annotations(tree: ast.AST) -> Iterator[ast.expr]:
    for node in _walk(tree):
        if isinstance(node, ast.FunctionDef) and node.returns is not None:
            yield node.returns
        elif isinstance(node, ast.arg) and node.annotation is not None:
            yield node.annotation


def _unannotate(module: _Module) -> None:
    """Annotations are compiled to nothing, but would count as uses."""
    for node in _walk(module.tree):
        if isinstance(node, ast.arg) and node.annotation is not None:
            assert node.annotation.end_lineno is not None and node.annotation.end_col_offset is not None
            lines = node.annotation.end_lineno - node.lineno
            module.edits.append(
                (
                    node.lineno,
                    node.col_offset,
                    node.annotation.end_lineno,
                    node.annotation.end_col_offset,
                    node.arg + "\n" * lines,
                )
            )
        elif isinstance(node, ast.FunctionDef) and node.returns is not None:
            text = module.text.split("\n")[node.returns.lineno - 1].encode()
            arrow = text.rfind(b"->", 0, node.returns.col_offset)
            if arrow >= 0 and node.returns.end_lineno == node.returns.lineno:
                assert node.returns.end_col_offset is not None
                module.edits.append((node.returns.lineno, arrow, node.returns.lineno, node.returns.end_col_offset, ""))


def _is_native(node: ast.FunctionDef) -> bool:
    """Viper, native and Thumb functions: their annotations are types and their text is for another compiler."""
    return any("micropython" in ast.dump(item) for item in node.decorator_list)


def _shake(modules: Mapping[str, _Module], roots: Iterable[str]) -> None:
    keep = set(roots) | PROTOCOLS
    for _ in range(_MAX_ROUNDS):
        total: Counter[str] = Counter()
        for module in modules.values():
            total += _uses(module.tree)
        changed = False
        for module in modules.values():
            _drop_imports(module)
            loads = _loads(module.tree)
            for statement in module.tree.body:
                for node in [statement, *(statement.body if isinstance(statement, ast.ClassDef) else ())]:
                    names: list[str] = []
                    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                        names = [node.name]
                    elif isinstance(node, ast.Assign) and _is_plain(node.value):
                        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
                        if len(names) != len(node.targets):
                            continue
                    if not names or any(item.startswith("__") or item in keep for item in names):
                        continue
                    inside, within = _uses(node), _loads(node)
                    if all(total[item] <= inside[item] and loads[item] <= within[item] for item in names):
                        module.drop(node)
            changed = module.apply() or changed
        if not changed:
            return


def _is_plain(node: ast.expr) -> bool:
    """An expression nobody misses: nothing is called in it."""
    return not any(isinstance(item, (ast.Call, ast.Await, ast.Yield)) for item in _walk(node))


def _drop_imports(module: _Module) -> None:
    used: Counter[str] = Counter()
    for node in _walk(module.tree):
        if isinstance(node, ast.Name):
            used[node.id] += 1
    package = module.path.endswith("__init__.py")
    for statement in module.tree.body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)) and not package:
            left = [alias for alias in statement.names if used[(alias.asname or alias.name).split(".")[0]]]
            _import(module, statement, left)


# -- one module of many ----------------------------------------------------------------------------------------------


def _targets(node: ast.AST) -> Iterator[str]:
    """Names a statement binds in its own scope, function and class bodies not entered."""
    queue: list[ast.AST] = [node]
    while queue:
        item = queue.pop()
        if isinstance(item, (ast.FunctionDef, ast.ClassDef)):
            yield item.name
            queue += item.decorator_list
            continue
        if isinstance(item, (ast.Lambda, ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.DictComp)):
            continue
        if isinstance(item, ast.Name) and not isinstance(item.ctx, ast.Load):
            yield item.id
        elif isinstance(item, ast.ExceptHandler) and item.name:
            yield item.name
        elif isinstance(item, (ast.Import, ast.ImportFrom)):
            for alias in getattr(item, "bound", item.names):
                yield (alias.asname or alias.name).split(".")[0]
        queue += ast.iter_child_nodes(item)


_Scoped = ast.FunctionDef | ast.Lambda | ast.GeneratorExp | ast.ListComp | ast.SetComp | ast.DictComp


def _bindings(node: _Scoped) -> set[str]:
    names: set[str] = set()
    if isinstance(node, (ast.FunctionDef, ast.Lambda)):
        arguments = node.args
        for argument in arguments.posonlyargs + arguments.args + arguments.kwonlyargs:
            names.add(argument.arg)
        for extra in (arguments.vararg, arguments.kwarg):
            if extra is not None:
                names.add(extra.arg)
        body = node.body if isinstance(node, ast.FunctionDef) else []
        for statement in body:
            names.update(_targets(statement))
        for statement in body:
            for item in _walk(statement):
                if isinstance(item, ast.Global):
                    names.difference_update(item.names)
    else:
        for generator in node.generators:
            names.update(_targets(generator.target))
    return names


def _steps(node: ast.ClassDef) -> Iterator[tuple[ast.stmt, set[str], set[str]]]:
    """Statements of a class body: with the names each binds, and those the class has before it, which it can read.

    What it reads of its own names before it has bound them (`step = step`) is the module's.
    """
    before: set[str] = set()
    for statement in node.body:
        own = set(_targets(statement))
        yield statement, own, set(before)
        before |= own


def _binds(node: ast.AST) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.ClassDef)) or not isinstance(getattr(node, "ctx", None), ast.Load)


def _global_nodes(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Every node that means a module-level name of its module, with that name; imports aside."""

    # read, bound: names a class body reads, and binds, as its own in the statement at hand.
    def visit(
        node: ast.AST, scopes: tuple[set[str], ...], read: set[str], bound: set[str]
    ) -> Iterator[tuple[ast.AST, str]]:
        def is_global(name: str, own: set[str]) -> bool:
            return name not in own and not any(name in scope for scope in scopes)

        if isinstance(node, ast.Name):
            if is_global(node.id, bound if _binds(node) else read):
                yield node, node.id
            return
        if isinstance(node, ast.Global):
            for name in node.names:
                yield node, name
            return
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            if is_global(node.name, bound):
                yield node, node.name
            outer = [*node.decorator_list, *(node.bases if isinstance(node, ast.ClassDef) else [])]
            if isinstance(node, ast.FunctionDef):
                outer += [*node.args.defaults, *(item for item in node.args.kw_defaults if item is not None)]
            for item in outer:
                yield from visit(item, scopes, read, bound)
            if isinstance(node, ast.FunctionDef):
                scopes = (*scopes, _bindings(node))
                for statement in node.body:
                    yield from visit(statement, scopes, set(), set())
            else:
                for statement, own, before in _steps(node):
                    yield from visit(statement, scopes, before, own)
            return
        if isinstance(node, (ast.Lambda, ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.DictComp)):
            scopes = (*scopes, _bindings(node))
            read = bound = set()
        for child in ast.iter_child_nodes(node):
            yield from visit(child, scopes, read, bound)

    for statement in tree.body:
        yield from visit(statement, (), set(), set())


def _order(modules: Mapping[str, _Module], entries: Iterable[str]) -> list[str]:
    """The modules that are there once the entries are imported, each after those it imports."""
    done: list[str] = []
    under_way: set[str] = set()

    def add(name: str) -> None:
        if name in done or name not in modules or name in under_way:
            return
        under_way.add(name)
        for statement in _top(modules[name].tree):
            if isinstance(statement, ast.ImportFrom) and statement.module:
                add(statement.module)
                for alias in statement.names:
                    add(statement.module + "." + alias.name)
        done.append(name)

    for entry in entries:
        add(entry)
    # What only holds modules together is not needed where there are none.
    return [name for name in done if modules[name].tree.body or not modules[name].path.endswith("__init__.py")]


def _merge(modules: Mapping[str, _Module], order: list[str], name: str) -> dict[str, str]:
    """Give the members' module-level names one name space and take out the imports among them.

    Gives the new names of the modules that stay by themselves.
    """
    members = set(order)
    outside = {}
    for other in modules:
        if other not in members and modules[other].tree.body:
            outside[other] = "pt_" + other.rsplit(".", 1)[-1] if "." in other else other
    last = Counter(outside.values())
    for other in outside:
        if last[outside[other]] > 1:  # two modules with one last name
            outside[other] = "pt_" + other.replace(".", "_")
    # Names bound at the top of each member, imports among members aside.
    new: dict[str, dict[str, str]] = {}
    aliases: dict[str, dict[str, tuple[str, str]]] = {}
    shared: dict[str, str] = {}
    number = 0
    for member in order:
        own: dict[str, str] = {}
        alias_of: dict[str, tuple[str, str]] = {}
        for node in _walk(modules[member].tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    local = alias.asname or alias.name
                    if node.module + "." + alias.name in members:
                        alias_of[local] = (node.module + "." + alias.name, "")
                    elif node.module in members and node.module + "." + alias.name not in outside:
                        alias_of[local] = (node.module, alias.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name in members and "." not in alias.name:
                        alias_of[alias.asname or alias.name] = (alias.name, "")
        names = {item for statement in modules[member].tree.body for item in _targets(statement)}
        imported: dict[str, str] = {}
        for statement in _top(modules[member].tree):
            # What several members import from the interpreter is the same thing under one name.
            if isinstance(statement, ast.ImportFrom) and statement.module not in modules:
                for alias in statement.names:
                    imported[alias.asname or alias.name] = "%s.%s" % (statement.module, alias.name)
            elif isinstance(statement, ast.Import):
                for alias in statement.names:
                    imported[alias.asname or alias.name] = alias.name
        for item in sorted(names):
            if item in alias_of:
                continue
            if item.startswith("__"):
                raise ShrinkError("%s: %s cannot be in one module with others" % (modules[member].path, item))
            if item in imported and shared.get(item, imported[item]) == imported[item]:
                shared[item] = imported[item]
                own[item] = item
            else:
                own[item] = "_g%x" % number
                number += 1
        new[member] = own
        aliases[member] = alias_of

    def final(member: str, item: str) -> str:
        for _ in range(_MAX_ROUNDS):
            if item in new[member]:
                return new[member][item]
            if item not in aliases[member]:
                break
            member, item = aliases[member][item]
        raise ShrinkError("%s has no %s" % (modules[member].path, item))

    for other, module in modules.items():
        if other in members:
            _merge_member(module, other, final, members, new[other], aliases[other], outside)
        else:
            _merge_outside(module, final, members, outside, name)
        module.apply()
    return outside


def _merge_member(
    module: _Module,
    name: str,
    final: Callable[[str, str], str],
    members: set[str],
    own: Mapping[str, str],
    aliases: Mapping[str, tuple[str, str]],
    outside: Mapping[str, str],
) -> None:
    inside: set[ast.AST] = set()
    # A function's own import of a member's name hides nothing: it is gone.
    for node in _walk(module.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            target, item = aliases[node.value.id]
            if not item:
                module.replace(node, final(target, node.attr))
                inside.add(node.value)
    for node in _walk(module.tree):
        if isinstance(node, ast.ImportFrom):
            node.bound = [  # type: ignore[attr-defined]
                alias
                for alias in node.names
                for dotted in ["%s.%s" % (node.module, alias.name)]
                if dotted in outside or (dotted not in members and node.module not in members)
            ]
    for node, text in _global_nodes(module.tree):
        if node in inside:
            continue
        if text in aliases:
            target, item = aliases[text]
            if not item:
                raise ShrinkError("%s: module %s is used as a value" % (module.path, text))
            module.rename(node, {text: final(target, item)})
        elif text in own:
            module.rename(node, own)
    top = list(_top(module.tree))
    for node in _walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            _merge_import(module, node, members, outside, own if node in top else {})
        elif isinstance(node, ast.Import):
            _import(module, node, [alias for alias in node.names if alias.name not in members])
        _dynamic(module, node)


def _merge_import(
    module: _Module,
    node: ast.ImportFrom,
    members: set[str],
    outside: Mapping[str, str],
    own: Mapping[str, str],
) -> None:
    assert node.module
    statements = []
    left = []
    for alias in node.names:
        dotted = node.module + "." + alias.name
        local = alias.asname or alias.name
        local = own.get(local, local)
        if dotted in outside:
            statements.append("import %s as %s" % (outside[dotted], local))
        elif dotted not in members and node.module not in members:
            left.append(alias.name + (" as " + local if local != alias.name else ""))
    if left:
        statements.append("from %s import %s" % (outside.get(node.module, node.module), ", ".join(left)))
    module.drop(node, "; ".join(statements) or "pass")


def _merge_outside(
    module: _Module,
    final: Callable[[str, str], str],
    members: set[str],
    outside: Mapping[str, str],
    name: str,
) -> None:
    whole: dict[str, str] = {}
    for node in _walk(module.tree):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        statements = []
        left = []
        for alias in node.names:
            dotted = node.module + "." + alias.name
            local = alias.asname or alias.name
            if dotted in members:
                statements.append("import %s as %s" % (name, local))
                whole[local] = dotted
            elif dotted in outside:
                statements.append("import %s as %s" % (outside[dotted], local))
            elif node.module in members:
                statements.append("from %s import %s as %s" % (name, final(node.module, alias.name), local))
            else:
                left.append(alias.name + (" as " + alias.asname if alias.asname else ""))
        if left:
            statements.append("from %s import %s" % (outside.get(node.module, node.module), ", ".join(left)))
        module.drop(node, "; ".join(statements))
    for node in _walk(module.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in whole:
            module.rename(node, {node.attr: final(whole[node.value.id], node.attr)})
        _dynamic(module, node)


def _module_aliases(module: _Module, outside: Iterable[str]) -> dict[str, str]:
    """Modules that stay by themselves, by the names a module gives them; not those it gives to two."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    names = set(outside)
    for node in _walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                local = alias.asname or alias.name
                if alias.name in names:
                    if found.get(local, alias.name) != alias.name:
                        twice.add(local)
                    found[local] = alias.name
    return {local: name for local, name in found.items() if local not in twice}


def _imported_names(module: _Module) -> set[str]:
    """What a module calls that which any of its imports bring in."""
    imports = [node for node in _walk(module.tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    return {(alias.asname or alias.name).split(".")[0] for node in imports for alias in node.names}


def _objects(modules: Mapping[str, _Module], outside: Mapping[str, str]) -> set[str]:
    """Modules that stay by themselves and may be the value of something else than the name of an import: those that
    are only imported by a name made at run time, and those whose name is used for more than to ask for an attribute.
    """
    named: set[str] = set()
    used: set[str] = set()
    for module in modules.values():
        local: dict[str, str] = {}
        for node in _walk(module.tree):
            if isinstance(node, ast.Import):
                local.update({alias.asname or alias.name: alias.name for alias in node.names})
            elif isinstance(node, ast.ImportFrom) and node.module:
                named.add(node.module)
        named.update(local.values())
        asking = {node.value for node in _walk(module.tree) if isinstance(node, ast.Attribute)}
        for node in _walk(module.tree):
            if isinstance(node, ast.Name) and node.id in local and node not in asking:
                used.add(local[node.id])
    return {name for name, new in outside.items() if new in used or new not in named}


def _imported(module: _Module) -> dict[str, tuple[str, str]]:
    """(module, "" for a whole one; what the interpreter calls it) of all that a module's imports at its top bring in,
    by the module's own names.
    """
    found = {}
    for statement in _top(module.tree):
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            source = statement.module or "" if isinstance(statement, ast.ImportFrom) else ""
            for alias in statement.names:
                found[(alias.asname or alias.name).split(".")[0]] = (source, alias.name)
    return found


def _rename_outside(modules: Mapping[str, _Module], outside: Mapping[str, str], whole: str) -> None:
    """Short names for what a module that stays by itself has at its top, and for what it imports from others of ours.

    What may be asked of such a module by what does not name it (`_objects`), or by a string, keeps its name.
    """
    own = set(outside.values())
    aliases = {name: _module_aliases(module, own) for name, module in modules.items()}
    objects = _objects(modules, outside)
    asked = _quoted(module.tree for module in modules.values()) | _BUILTIN
    asked_of_objects: set[str] = set()
    for name, module in modules.items():
        several = _imported_names(module) - set(aliases[name])
        for node in _walk(module.tree):
            if isinstance(node, ast.Attribute):
                of = node.value.id if isinstance(node.value, ast.Name) else ""
                if of in several:
                    asked.add(node.attr)
                elif of not in aliases[name] and node.attr[0] != "_":  # which would be its own business
                    asked_of_objects.add(node.attr)
    short: dict[str, dict[str, str]] = {}
    # Those that import from each other count on, so that their names do not meet.
    linked = set()
    for name in outside:
        for node in _walk(modules[name].tree):
            if isinstance(node, ast.ImportFrom) and node.module in own:
                linked |= {outside[name], node.module}
    number = 0
    for other, new in outside.items():
        module = modules[other]
        brought = _imported(module)
        taken = {real for _, real in brought.values()}
        names: dict[str, str] = {}
        if new not in linked:
            number, counted = 0, number
        for text in sorted({name for statement in module.tree.body for name in _targets(statement)}):
            # What it imports from another of these gets a name of its own here: not the one it has there.
            if text in asked or text.startswith("__") or brought.get(text, (new,))[0] not in own:
                continue
            if other in objects and text in asked_of_objects:
                continue
            while "_g%x" % number in taken:
                number += 1
            names[text] = "_g%x" % number
            number += 1
        if new not in linked:
            number = counted
        short[new] = names
    for name, module in modules.items():
        mine: dict[str, str] = {}
        if name in outside:
            mine = dict(short[outside[name]])
            for local, (source, real) in _imported(module).items():
                if real in own or source == whole:
                    mine[local] = real
        _rename_imports(module, short, mine, own | {whole})
        for node in _walk(module.tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases[name]:
                theirs = short[aliases[name][node.value.id]]
                if node.attr in theirs:
                    module.rename(node, theirs)
        if mine:
            for node, text in _global_nodes(module.tree):
                if text in mine:
                    module.rename(node, mine)
        module.apply()


def _rename_imports(
    module: _Module, short: Mapping[str, Mapping[str, str]], mine: Mapping[str, str], ours: set[str]
) -> None:
    """Imports of what got a short name; those at the top give it no other one."""
    top = list(_top(module.tree))
    for node in _walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.module in ours:
            names = []
            for alias in node.names:
                local = alias.asname or alias.name
                real = short.get(node.module, {}).get(alias.name, alias.name)
                if node in top:
                    local = mine.get(local, local)
                names.append(real if local == real else "%s as %s" % (real, local))
            module.drop(node, "from %s import %s" % (node.module, ", ".join(names)))
        elif isinstance(node, ast.Import) and node in top:
            names = []
            for alias in node.names:
                local = alias.asname or alias.name
                local = mine.get(local, local)
                names.append(alias.name if local == alias.name else "%s as %s" % (alias.name, local))
            module.drop(node, "import " + ", ".join(names))


def _dynamic(module: _Module, node: ast.AST) -> None:
    """`getattr(__import__("package." + NAME).package, NAME)` finds the module under its new name."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr"):
        return
    found = node.args[0]
    if isinstance(found, ast.Attribute) and isinstance(found.value, ast.Call):
        call = found.value
        if isinstance(call.func, ast.Name) and call.func.id == "__import__" and isinstance(call.args[0], ast.BinOp):
            assert isinstance(call.args[0].right, ast.Name)
            module.replace(node, '__import__("pt_" + %s)' % call.args[0].right.id)


# -- short names -------------------------------------------------------------------------------------------------------

# Attributes the interpreter's own objects have: those names mean more than ours.
_BUILTIN = (
    frozenset(
        name
        for kind in (str, bytes, bytearray, list, dict, set, tuple, int, memoryview, type, Exception, array, io.BytesIO)
        for name in (*dir(kind), *dir(io.FileIO))
    )
    | PROTOCOLS
    | frozenset(dir(hashlib.sha256()))
    | frozenset(("args", "register", "unregister", "modify", "poll", "ipoll", "encrypt", "decrypt", "any"))
)


def _strings(modules: Iterable[_Module]) -> set[str]:
    words: set[str] = set()
    for module in modules:
        for node in _walk(module.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
                words.add(node.value)
    return words


def _families(modules: Mapping[str, _Module], outside: Iterable[str]) -> dict[str, str]:
    """Modules whose classes inherit from each other, by one name for each family."""
    # The merged ones share their names; a module by itself may have given one of these to a class of its own.
    home: dict[str, str] = {}
    own: dict[str, set[str]] = {}
    for name in sorted(modules, key=lambda item: item not in outside):
        own[name] = {node.name for node in _walk(modules[name].tree) if isinstance(node, ast.ClassDef)}
        home.update(dict.fromkeys(own[name], name))
    parent = {name: name for name in modules}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for name, module in modules.items():
        # What is imported from the merged module has another name there.
        real = {
            alias.asname: alias.name
            for node in _walk(module.tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if alias.asname
        }
        for node in _walk(module.tree):
            if isinstance(node, ast.ClassDef):
                for base in node.bases:
                    label = base.id if isinstance(base, ast.Name) else getattr(base, "attr", "")
                    if label in own[name]:
                        continue
                    label = real.get(label, label)
                    if label in home:
                        parent[root(name)] = root(home[label])
    return {name: root(name) for name in modules}


def _defined(tree: ast.AST) -> Iterator[str]:
    """Names of attributes that a module gives to objects: methods, class attributes, what is assigned."""
    for node in _walk(tree):
        if isinstance(node, ast.ClassDef):
            for statement in node.body:
                yield from _targets(statement)
        elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            yield node.attr


def _members(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Nodes that mean an attribute: those of attributes, and of what a class body binds."""
    for node in _walk(tree):
        if isinstance(node, ast.Attribute):
            yield node, node.attr
        elif isinstance(node, ast.ClassDef):
            for statement, own, before in _steps(node):
                queue: list[ast.AST] = [statement]
                while queue:
                    item = queue.pop()
                    if isinstance(item, (ast.FunctionDef, ast.ClassDef)):
                        yield item, item.name
                        queue += item.decorator_list
                    elif isinstance(item, ast.Name):
                        if item.id in (own if _binds(item) else before):
                            yield item, item.id
                    elif not isinstance(item, ast.Lambda):
                        queue += ast.iter_child_nodes(item)


def _asked_of(module: _Module) -> set[str]:
    """What others may ask of it as an attribute: what it has at its top, imports aside."""
    top = {text for statement in module.tree.body for text in _targets(statement) if text[0] != "_"}
    return top - set(_imported(module))


def _rename_members(modules: Mapping[str, _Module], outside: Mapping[str, str], keep: Iterable[str]) -> None:
    """Short names for attributes; two that occur in one module, or in modules whose classes are related, differ.

    What a module has at its top that may be used as an object is an attribute too.
    """
    fixed = _strings(modules.values()) | _BUILTIN | set(keep)
    objects = _objects(modules, outside)
    defined: set[str] = set()
    for name, module in modules.items():
        defined.update(_defined(module.tree))
        if name in objects:
            defined |= _asked_of(module)
        for node in _walk(module.tree):
            # What is imported by its name is not found as an attribute alone.
            if isinstance(node, ast.ImportFrom) and node.module in {outside[item] for item in objects}:
                fixed.update(alias.name for alias in node.names)
        stock: set[str] = set()
        for node in _walk(module.tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                stock.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        for node in _walk(module.tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in stock:
                fixed.add(node.attr)
    families = _families(modules, outside)
    where: dict[str, set[str]] = defaultdict(set)
    at_top: set[str] = set()
    for name, module in modules.items():
        for _, text in _members(module.tree):
            if text in defined and text not in fixed and not text.startswith("__"):
                where[text].add(families[name])
    for name in objects:
        for text in _asked_of(modules[name]) & set(where):
            where[text].add(families[name])
            at_top.add(text)
    taken: dict[str, set[str]] = defaultdict(set)
    short: dict[str, str] = {}
    for text in sorted(where, key=lambda item: (-len(where[item]), item)):
        number = _ARGUMENTS if text in at_top else 0  # an argument would hide it
        while any("_m%x" % number in taken[family] for family in where[text]):
            number += 1
        short[text] = "_m%x" % number
        for family in where[text]:
            taken[family].add(short[text])
    for name, module in modules.items():
        for node, text in _members(module.tree):
            if text in short:
                module.rename(node, short)
        if name in objects:
            top = {text: short[text] for text in _asked_of(module) if text in short}
            for node, text in _global_nodes(module.tree):
                if text in top:
                    module.rename(node, top)
        module.apply()


def _rename_arguments(modules: Mapping[str, _Module]) -> None:
    keywords: set[str] = set()
    for module in modules.values():
        for node in _walk(module.tree):
            if isinstance(node, ast.keyword) and node.arg:
                keywords.add(node.arg)
    for module in modules.values():
        for node in _walk(module.tree):
            if isinstance(node, ast.FunctionDef) and not _is_native(node):
                _shorten(module, node, keywords)
        module.apply()


def _shorten(module: _Module, function: ast.FunctionDef, keywords: set[str]) -> None:
    """New names for a function's positional arguments; one that an inner function also names is left alone."""
    inner: set[str] = set()
    for node in _walk(function):
        if node is not function and isinstance(node, (ast.FunctionDef, ast.Lambda, ast.ClassDef)):
            for item in _walk(node):
                if isinstance(item, ast.Name):
                    inner.add(item.id)
                elif isinstance(item, ast.arg):
                    inner.add(item.arg)
    new: dict[str, str] = {}
    for index, argument in enumerate(function.args.posonlyargs + function.args.args):
        text = argument.arg
        if text == "self" or text in keywords or text in inner or text.startswith("_"):
            continue
        if index >= _ARGUMENTS:
            break
        new[text] = "_m%x" % index
        module.edits.append(
            (argument.lineno, argument.col_offset, argument.lineno, argument.col_offset + len(text), new[text])
        )
    for statement in function.body:
        for node in _walk(statement):
            if isinstance(node, ast.Name) and node.id in new:
                module.replace(node, new[node.id])


# -- the whole ---------------------------------------------------------------------------------------------------------


def shrink(
    files: Mapping[str, str], entries: Iterable[str], name: str = "packtrust_all", roots: Iterable[str] = ()
) -> dict[str, str]:
    """The program with the same meaning, smaller: one module `name`, and by itself what only functions import.

    files     source text of every file of the program, by path; everything any of them imports, interpreter aside
    entries   dotted names of the modules that are imported at the start, in that order
    roots     names of functions that are used from outside: they can be had from the module `name`

    Raises ShrinkError, naming the file.
    """
    # Trees are millions of small objects without a cycle: to look for cycles takes longer than all else.
    collects = gc.isenabled()
    gc.disable()
    try:
        return _shrink(files, list(entries), name, list(roots))
    finally:
        if collects:
            gc.enable()


def _shrink(files: Mapping[str, str], entries: list[str], name: str, roots: list[str]) -> dict[str, str]:
    parsed = [_Module(path, text) for path, text in files.items()]
    modules = {module.name: module for module in parsed}
    for module in parsed:
        _strip(module)
        module.apply()
        if not any(isinstance(node, ast.FunctionDef) and _is_native(node) for node in _walk(module.tree)):
            _unannotate(module)
            module.apply()
    # A package's __getattr__ finds modules, and there are none.
    for module in parsed:
        if module.path.endswith("__init__.py"):
            for statement in module.tree.body:
                if isinstance(statement, ast.FunctionDef) and statement.name == "__getattr__":
                    module.text = ""
                    module.tree = ast.parse("")
    for module in parsed:
        _drop_absent(module, modules)
        _fold_absent(module, modules)
    _number_messages(modules)
    _inline(modules)
    _shake(modules, roots)
    for module in parsed:
        for statement in module.tree.body:
            if isinstance(statement, ast.Pass):
                module.drop(statement, "")
        module.apply()
    order = _order(modules, entries)
    ends = []
    families_first = {item: modules[item] for item in modules if modules[item].tree.body}
    outside = _merge(families_first, order, name)
    _rename_outside(families_first, outside, name)
    for root in roots:
        for member in order:
            for statement in modules[member].tree.body:
                if isinstance(statement, ast.FunctionDef) and _was(files, modules[member], statement) == root:
                    ends.append("%s = %s" % (root, statement.name))
    quoted = _quoted(module.tree for module in modules.values())
    said = _texts([modules[member] for member in order], "_gffe", "_gfff")
    _rename_members(families_first, outside, roots)
    _rename_arguments(families_first)
    bodies = [modules[member].text for member in order]
    texts = {"%s.py" % name.replace(".", "/"): "\n".join([_near(bodies), said, *bodies, *ends]) + "\n"}
    for other, new in outside.items():
        texts[new + ".py"] = modules[other].text
    done = _stock(texts, quoted)
    for path, text in done.items():
        _check_names(path, text)
    return done


def _check_names(path: str, text: str) -> None:
    """A module that gives one name to two things is a mistake of this one."""
    seen: dict[str, str] = {}
    for statement in ast.parse(text).body:
        found: dict[str, str] = {}
        if isinstance(statement, ast.ImportFrom):
            found = {alias.asname or alias.name: "%s.%s" % (statement.module, alias.name) for alias in statement.names}
        elif isinstance(statement, ast.Import):
            found = {alias.asname or alias.name: alias.name for alias in statement.names}
        elif isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            found = {statement.name: "line %d" % statement.lineno}
        for name, what in found.items():
            if seen.get(name, what) != what:
                raise ShrinkError("%s: %s and %s are both called %s" % (path, seen[name], what, name))
            seen[name] = what


def _near(bodies: Iterable[str]) -> str:
    """Built-in functions that are used much become names of the module itself.

    MicroPython looks for a name in the module first. The table of one with hundreds of names is nearly full, so that it
    would go through all of it for each of these, some thousand instructions, before it looks further.
    """
    used = {node.id for body in bodies for node in _walk(ast.parse(body)) if isinstance(node, ast.Name)}
    return "; ".join("%s = %s" % (item, item) for item in _NEAR if item in used)


class _Spelled:
    """What the program calls things, by where a name is looked up.

    bare, dotted   in a scope, or as an attribute
    in_classes     names that a class body looks up: in what the class has, before the module
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.bare: set[str] = set()
        self.dotted: set[str] = set()
        self.in_classes: set[str] = set()
        for text in texts:
            tree = ast.parse(text)
            of_classes = {item for item, _ in _members(tree) if not isinstance(item, ast.Attribute)}
            self.dotted.update(name for _, name in _members(tree))
            self.dotted.update(node.arg for node in _walk(tree) if isinstance(node, ast.keyword) and node.arg)
            for node in _walk(tree):
                if isinstance(node, ast.ClassDef):
                    for statement in node.body:
                        self.in_classes.update(_looked_up(statement))
                if node not in of_classes:
                    self.bare.update(_named(node))


def _looked_up(statement: ast.AST) -> Iterator[str]:
    """Names that a statement looks up when it is run, and not later in a function that it makes."""
    queue = [statement]
    while queue:
        item = queue.pop()
        if isinstance(item, ast.Name):
            yield item.id
        elif isinstance(item, ast.FunctionDef):
            queue += [*item.decorator_list, *item.args.defaults, *(node for node in item.args.kw_defaults if node)]
        elif not isinstance(item, ast.Lambda):
            queue += ast.iter_child_nodes(item)


def _named(node: ast.AST) -> Iterator[str]:
    """The names in a node, attributes aside."""
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.alias):
        yield from node.name.split(".")
        if node.asname:
            yield node.asname
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield from node.module.split(".")
    elif isinstance(node, ast.Global):
        yield from node.names
    elif isinstance(node, ast.ExceptHandler) and node.name:
        yield node.name


def _quoted(trees: Iterable[ast.AST]) -> set[str]:
    """Words in strings that may be names: not those of sentences."""
    found: set[str] = set()
    for tree in trees:
        for node in _walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
                found.update(_WORD.findall(node.value))
    return found


def _stock(texts: Mapping[str, str], quoted: set[str]) -> dict[str, str]:
    """The short names become ones that the interpreter has anyway: one word for something at the top of modules and,
    as what is looked up in a scope and what in an object never meet, for something of objects.
    """
    spelled = _Spelled(texts.values())
    words = [name for name in (*NAMES, *BUILTINS) if name not in quoted]
    bare = spelled.bare | quoted
    dotted = spelled.dotted | quoted | _BUILTIN
    short = sorted((name for name in bare | dotted if _SHORT.fullmatch(name)), key=lambda name: (len(name), name))
    # In both places at once: what a function calls its arguments must hide nothing, nor must what a class has.
    both = {name for name in short if (name.startswith("_m") and name in bare) or name in spelled.in_classes}
    new: dict[str, str] = {}
    free = iter([word for word in words if word not in bare and word not in dotted])
    new.update(zip([name for name in short if name in both], free, strict=False))
    taken = set(new.values())
    for kind, others in (("_g", bare), ("_m", dotted)):
        free = iter([word for word in words if word not in others and word not in taken])
        new.update(zip([name for name in short if name.startswith(kind) and name not in both], free, strict=False))
    done = {}
    for path, text in texts.items():
        lines = text.split("\n")
        for item in reversed(list(tokenize.generate_tokens(io.StringIO(text).readline))):
            if item.type == tokenize.NAME and item.string in new:
                row, column = item.start[0] - 1, item.start[1]
                lines[row] = lines[row][:column] + new[item.string] + lines[row][item.end[1] :]
        done[path] = "\n".join(lines)
    return done


def _was(files: Mapping[str, str], module: _Module, statement: ast.FunctionDef) -> str:
    """What a function was called at first: the lines are where they were."""
    line = files[module.path].split("\n")[statement.lineno - 1]
    found = re.match(r"\s*def\s+(\w+)", line)
    return found.group(1) if found else ""
