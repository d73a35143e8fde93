"""Builds with a defence taken out: the sources as they are, but for a place a test replaces. The product has no switch.

In this process, on the virtual clock:

    with weakened("packtrust.replay", replace=("        if behind >= WINDOW:\\n", "        if False:\\n")):
        bench = AppBench(tmp_path)          # every node, and the app, runs the weakened code

as files for processes and for cortex-m4, by the overlays they take anyway:

    with PackProcess(modules=2, overlays={"*": Weakening(("packtrust.replay", old, new)).overlays(folder)}) as pack:

The replaced text must be there exactly once: a weakening that no longer fits its source fails loudly.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import packtrust_host.sim.deploy as deploy
from packtrust.crypto.registry import select

FOLDERS = {
    "packtrust": ("shared/", "lib/"),
    "packtrust_node": ("firmware/", ""),
    "packtrust_host": ("host/", None),
}
PLAIN = (int, float, str, bytes, bytearray, bool, type(None))


class WeakeningError(AssertionError):
    """A weakening does not fit the source any more, or this process cannot carry it."""


def source_of(module: str) -> tuple[Path, str | None]:
    """The file of a module in the checkout, and its path on a node's flash (None: it is the host's)."""
    root = module.split(".", 1)[0]
    if root not in FOLDERS:
        raise WeakeningError("%s is no module of the core, the firmware or the host package" % module)
    folder, flash = FOLDERS[root]
    name = module.replace(".", "/") + ".py"
    path = deploy.CHECKOUT / folder / name
    if not path.is_file():
        name = module.replace(".", "/") + "/__init__.py"
        path = deploy.CHECKOUT / folder / name
    if not path.is_file():
        raise WeakeningError("there is no module %s: adapt this weakening" % module)
    return path, None if flash is None else flash + name


@dataclass(frozen=True, init=False)
class Weakening:
    """Places replaced in the sources: Weakening((module, old text, new text), ...)."""

    patches: tuple[tuple[str, str, str], ...]

    def __init__(self, *patches: tuple[str, str, str]) -> None:
        object.__setattr__(self, "patches", patches)

    def sources(self) -> dict[str, str]:
        """Source of each module concerned, by its name. WeakeningError where the text is not there exactly once."""
        texts: dict[str, str] = {}
        for module, old, new in self.patches:
            text = texts.get(module)
            if text is None:
                text = source_of(module)[0].read_text()
            count = text.count(old)
            if count != 1:
                raise WeakeningError("%s has this %d times, not once: adapt the weakening: %r" % (module, count, old))
            texts[module] = text.replace(old, new)
        return texts

    def overlays(self, folder: Path) -> dict[str, str]:
        """Files for a virtual pack's `overlays`, written to `folder`: path on the flash -> file."""
        found = {}
        for module, text in self.sources().items():
            on_flash = source_of(module)[1]
            if on_flash is None:
                raise WeakeningError("%s lies on no node" % module)
            file = folder / (module + ".py")
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            found[on_flash] = str(file)
        return found

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """In this process: the code in functions that exist is exchanged, so whoever holds one has the weakened one."""
        undo: list[Callable[[], None]] = []
        # Chosen before: a backend without a check of its tags fails its self-test, and another one takes its place.
        select()
        try:
            for module, text in self.sources().items():
                _exchange(module, text, undo)
            yield
        finally:
            for step in reversed(undo):
                step()


@contextlib.contextmanager
def weakened(
    module: str, replace: tuple[str, str] | list[tuple[str, str]], *more: tuple[str, str, str]
) -> Iterator[None]:
    """This process runs with `module` weakened: one (old text, new text), or a list; `more`: in other modules."""
    pairs = replace if isinstance(replace, list) else [replace]
    with Weakening(*((module, old, new) for old, new in pairs), *more).applied():
        yield


# -- exchange of code in place --------------------------------------------------------------------------------------


def _exchange(name: str, text: str, undo: list[Callable[[], None]]) -> None:
    module = importlib.import_module(name)
    fresh = types.ModuleType(name)
    fresh.__file__ = module.__file__
    fresh.__package__ = module.__package__
    exec(compile(text, str(module.__file__), "exec"), fresh.__dict__)
    changes = 0
    for key, value in list(fresh.__dict__.items()):
        if not key.startswith("__"):
            changes += _exchange_name(module, key, value, undo)
    if not changes:
        raise WeakeningError("nothing of %s that runs differs: the weakening is none" % name)


def _exchange_name(module: types.ModuleType, key: str, value: Any, undo: list[Callable[[], None]]) -> int:
    own = module.__dict__
    if isinstance(value, types.FunctionType) and value.__module__ == module.__name__:
        return _exchange_function(module, module, key, own.get(key), value, undo)
    if isinstance(value, type) and value.__module__ == module.__name__:
        old = own.get(key)
        if not isinstance(old, type):
            raise WeakeningError("class %s.%s is new: weaken what is there" % (module.__name__, key))
        return _exchange_class(module, old, value, undo)
    if key in own:
        if not _is_plain(value) or _equal(own[key], value):
            return 0
        for place, name in [(module, key), *_importers(module.__name__, key)]:
            _set(place, name, value, undo)
        return 1
    _set(module, key, value, undo)  # an import the weakened code needs
    return 0


def _exchange_class(module: types.ModuleType, old: type, new: type, undo: list[Callable[[], None]]) -> int:
    changes = 0
    for key, value in list(vars(new).items()):
        if key in ("__dict__", "__weakref__", "__module__", "__qualname__", "__doc__", "__annotations__"):
            continue
        before = vars(old).get(key)
        if isinstance(value, types.FunctionType):
            if value.__module__ == module.__name__:
                changes += _exchange_function(module, old, key, before, value, undo)
        elif isinstance(value, staticmethod | classmethod) and isinstance(before, staticmethod | classmethod):
            changes += _exchange_function(module, old, key, before.__func__, value.__func__, undo)
        elif isinstance(value, property) and isinstance(before, property):
            for which in ("fget", "fset"):
                ours, theirs = getattr(before, which), getattr(value, which)
                if ours is not None and theirs is not None:
                    changes += _exchange_function(module, old, key, ours, theirs, undo)
        elif _is_plain(value) and not _equal(before, value) and not key.startswith("__"):
            _set(old, key, value, undo)
            changes += 1
    return changes


def _exchange_function(
    module: types.ModuleType, owner: Any, key: str, old: Any, new: types.FunctionType, undo: list[Callable[[], None]]
) -> int:
    if old is None:
        made = types.FunctionType(new.__code__, module.__dict__, new.__name__, new.__defaults__, new.__closure__)
        made.__kwdefaults__ = new.__kwdefaults__
        _set(owner, key, made, undo)
        return 1
    if not isinstance(old, types.FunctionType):
        return 0
    if _same_code(old.__code__, new.__code__):
        return 0
    if old.__code__.co_freevars != new.__code__.co_freevars:
        raise WeakeningError("%s.%s closes over other names: weaken it otherwise" % (module.__name__, key))
    before, defaults = old.__code__, old.__defaults__

    def restore() -> None:
        old.__code__ = before
        old.__defaults__ = defaults

    undo.append(restore)
    old.__code__ = new.__code__
    if _is_plain(new.__defaults__):
        old.__defaults__ = new.__defaults__
    return 1


def _same_code(old: types.CodeType, new: types.CodeType) -> bool:
    """Whether two functions do the same: line numbers do not count."""
    if (old.co_code, old.co_names, old.co_varnames, len(old.co_consts)) != (
        new.co_code,
        new.co_names,
        new.co_varnames,
        len(new.co_consts),
    ):
        return False
    for ours, theirs in zip(old.co_consts, new.co_consts, strict=True):
        if isinstance(ours, types.CodeType) and isinstance(theirs, types.CodeType):
            if not _same_code(ours, theirs):
                return False
        elif type(ours) is not type(theirs) or ours != theirs:
            return False
    return True


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list | set | frozenset):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    return isinstance(value, PLAIN)


def _equal(old: Any, new: Any) -> bool:
    return type(old) is type(new) and bool(old == new)


_MISSING = object()


def _set(place: Any, name: str, value: Any, undo: list[Callable[[], None]]) -> None:
    before = vars(place).get(name, _MISSING)

    def restore() -> None:
        if before is _MISSING:
            delattr(place, name)
        else:
            setattr(place, name, before)

    undo.append(restore)
    setattr(place, name, value)


def _importers(module: str, key: str) -> Iterator[tuple[types.ModuleType, str]]:
    """(module, its name for it) of all modules that took `key` from `module` by name."""
    for other in list(sys.modules.values()):
        file = getattr(other, "__file__", None)
        if file is None or not isinstance(other, types.ModuleType) or not Path(file).is_relative_to(deploy.CHECKOUT):
            continue
        if ".venv" in file or not file.endswith(".py"):
            continue
        for taken_from, name, known_as in _imports(file):
            if taken_from == module and name == key and known_as in vars(other):
                yield other, known_as


@functools.cache
def _imports(file: str) -> list[tuple[str, str, str]]:
    found = []
    for node in ast.walk(ast.parse(Path(file).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [(node.module, alias.name, alias.asname or alias.name) for alias in node.names]
    return found
