"""Code that is seldom needed is in RAM only while it is.

A board keeps 24 bytes for every function of a module it has loaded, 150 for a class, 8 for each other name. So what
serves a claim, a rotation or a question lives in modules that nobody imports at the top of his own:

    def on_question(self, body):
        ondemand.use(self.env.now_ms())
        from packtrust_node.answers import answer

        return answer(self, body)

`use` says that such code is wanted now. Every module that is imported after that goes again, all at once, when nobody
has said so for IDLE_MS and nobody holds an object made by such code: who keeps one says `hold()` before, and
`let_go()` when he has dropped it. An object that is kept without `hold` keeps working, and its module's memory with it;
a second import then makes a second module, whose classes are others.

Constants (`const`) of such a module may be used anywhere: on a board whose program was made smaller
(packtrust_host.shrink) they are put in where they are used. Native code is never unloaded: boards do not get its memory
back.

Nothing is unloaded before `begin`, which a node's program calls: a host or a simulator runs many nodes in one
interpreter.
"""

import gc
from sys import implementation, modules

from packtrust._compat import const

IDLE_MS = const(3000)

# Last names of modules that are native code, or choose it.
_STAYS = ("aes_", "gcm", "ghash", "kdf", "curve25519")

_enabled = False
_before = None  # type: tuple[str, ...] | None  # what was loaded at the first use; None: nothing is loaded on demand
_used_ms = 0
_held = 0


def begin() -> None:
    """From now on what is loaded on demand is unloaded again."""
    global _enabled
    _enabled = implementation.name == "micropython"


def unloads() -> bool:
    """Whether anything is unloaded: whether it gains room to do things one after the other."""
    return _enabled


def use(now_ms: int) -> None:
    """Seldom needed code is wanted now: call it before the import."""
    global _before, _used_ms
    _used_ms = now_ms
    if _enabled and _before is None:
        gc.collect()  # what is loaded now shall not lie between what comes and goes
        _before = tuple(modules)


def tidy() -> None:
    """Something large, or something that stays, is about to be made: it shall lie close to the rest."""
    if _enabled:
        gc.collect()


def hold() -> None:
    """An object made by such code is going to be kept."""
    global _held
    _held += 1


def let_go() -> None:
    """It has been dropped."""
    global _held
    _held -= 1


def mark() -> "tuple[str, ...]":
    """What is loaded now, for `back_to` when something is done that has left no object behind: no waiting then."""
    tidy()
    return tuple(modules) if _enabled else ()


def back_to(before: "tuple[str, ...]", keep: "tuple[str, ...]" = ()) -> None:
    """Unload what came after a `mark`, but for modules with these last names."""
    if before:
        _unload([name for name in modules if name not in before and not _stays(name, keep)])


def drop(module: object) -> None:
    """Unload a module of which no object is left."""
    if _enabled:
        _unload([name for name in modules if modules[name] is module])


def _unload(names: "list[str]") -> None:
    for name in names:
        del modules[name]
        package, _, child = name.rpartition(".")
        if package in modules and hasattr(modules[package], child):
            delattr(modules[package], child)
    gc.collect()


def loaded() -> "list[str]":
    """Names of the modules that are there on demand now."""
    if _before is None:
        return []
    return [name for name in modules if name not in _before and not _stays(name)]


def tick(now_ms: int) -> None:
    """Call every 10..100 ms: unloads what nobody needs any more."""
    global _before
    if _before is None or _held or now_ms - _used_ms < IDLE_MS:
        return
    _unload(loaded())
    _before = None


def _stays(name: str, keep: "tuple[str, ...]" = ()) -> bool:
    last = name.rpartition(".")[2]
    if last.startswith("pt_"):  # the name packtrust_host.shrink gives it
        last = last[3:]
    for start in _STAYS:
        if last.startswith(start):
            return True
    return last in keep
