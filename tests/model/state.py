"""Real objects as states: copied before each step, and looked at as a value that can be hashed."""

from __future__ import annotations

import types
from array import array
from collections.abc import Callable
from typing import Any

_PLAIN = (int, str, bytes, float, bool, type(None), range, type, types.FunctionType, types.BuiltinFunctionType)


class Shared:
    """Mixed in, or named to `Copier`: the same object in all states."""


class Copier:
    """Copies and freezes object graphs without knowing their classes.

    shared   classes whose instances belong to no state: work buffers, policies, the model's own environment
    skip     names of attributes that decide nothing: statistics. Copied, but not part of the value.
    """

    def __init__(self, shared: tuple[type, ...], skip: frozenset[str]) -> None:
        self._shared = (*_PLAIN, Shared, *shared)
        self._skip = skip
        self._kept: dict[int, Any] = {}

    def keep(self, value: Any) -> None:
        """This very object is the same in all states, too."""
        self._kept[id(value)] = value

    def copy(self, value: Any) -> Any:
        return self._copy(value, dict(self._kept))

    def _copy(self, value: Any, memo: dict[int, Any]) -> Any:
        kind = type(value)
        if kind is bytearray:
            made = memo.get(id(value))
            if made is None:
                made = memo[id(value)] = bytearray(value)
            return made
        if isinstance(value, self._shared):
            return value
        made = memo.get(id(value))
        if made is not None:
            return made
        if kind is array:
            made = memo[id(value)] = value[:]
        elif kind is list:
            made = memo[id(value)] = []
            made.extend([self._copy(item, memo) for item in value])
        elif kind is dict:
            made = memo[id(value)] = {}
            for key, item in value.items():
                made[key] = self._copy(item, memo)
        elif kind is tuple:
            made = tuple([self._copy(item, memo) for item in value])
        elif kind is set:
            made = set(value)
        elif kind is types.MethodType:
            made = types.MethodType(value.__func__, self._copy(value.__self__, memo))
        else:
            made = memo[id(value)] = kind.__new__(kind)
            own = made.__dict__
            for name, item in value.__dict__.items():
                own[name] = self._copy(item, memo)
        return made

    def freeze(self, value: Any) -> Any:
        """The value as nested tuples; objects that were seen before stand for themselves by their order."""
        return self._freeze(value, {})

    def _freeze(self, value: Any, memo: dict[int, int]) -> Any:
        kind = type(value)
        if kind is bytearray:
            return bytes(value)
        if kind in (int, bytes, str, bool, type(None)):
            return value
        if isinstance(value, self._shared):
            return kind.__name__
        if kind is array:
            return tuple(value)
        seen = memo.get(id(value))
        if seen is not None:
            return ("again", seen)
        memo[id(value)] = len(memo)
        if kind is list or kind is tuple:
            return tuple([self._freeze(item, memo) for item in value])
        if kind is dict:
            return tuple([(key, self._freeze(item, memo)) for key, item in sorted(value.items())])
        if kind is set:
            return tuple(sorted(value))
        if kind is types.MethodType:
            return (value.__name__, self._freeze(value.__self__, memo))
        skip = self._skip
        return (
            kind.__name__,
            tuple([self._freeze(item, memo) for name, item in value.__dict__.items() if name not in skip]),
        )


def frozen_hash(copier: Copier, value: Any) -> int:
    return hash(copier.freeze(value))


Action = tuple[str, Callable[[], Any]]
