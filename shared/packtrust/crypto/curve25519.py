"""X25519 (RFC 7748, 5) in the best form that works here.

* `thumb`: Thumb-2 words for cores with the DSP extension (Cortex-M4, M7, M33), which multiply 32 by 32 bits to 64;
* `viper`: limbs of 13 bits, for every core that MicroPython makes native code for;
* `integers`: Python's own, everywhere.

A form is imported and passes a known-answer test when it is first called for; one that fails is disabled, and
`disabled` says why. The first two take the same steps, branches and addresses for every key, and overwrite their state.
"""

import sys
from binascii import unhexlify

from packtrust._compat import const
from packtrust.crypto.buffers import wipe
from packtrust.errors import BackendUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from packtrust._typing import Buffer

    Multiply = Callable[[Buffer, Buffer], bytearray]

KEY_LENGTH = const(32)

_ORDER = ("thumb", "viper", "integers")

_loaded = {}  # type: dict[str, Multiply]
_refused = {}  # type: dict[str, str]
_chosen = []  # type: list[str]


def multiply(scalar: "Buffer", point: "Buffer", form: "str | None" = None) -> bytes:
    """The shared 32 bytes; all zero for a point of small order, which the caller must refuse (RFC 7748, 6.1).

    BackendUnavailable if the named form is not here.
    """
    function = _select(form)
    clamped = bytearray(scalar)
    clamped[0] &= 248
    clamped[31] = clamped[31] & 127 | 64
    masked = bytearray(point)
    masked[31] &= 127  # RFC 7748, 5
    result = function(clamped, masked)
    wipe(clamped)
    return bytes(result)


def forms() -> "list[str]":
    """The forms that are here and work, best first."""
    return [name for name in _ORDER if _load(name)]


def use(form: "str | None") -> None:
    """Make a form the one that `multiply` takes by itself; None goes back to the best one. BackendUnavailable."""
    if form is not None:
        _select(form)
    _chosen[:] = [] if form is None else [form]


def disabled() -> "dict[str, str]":
    """The forms that are here and do not work, each with the reason."""
    return {name: reason for name, reason in _refused.items() if reason}


def _select(form: "str | None") -> "Multiply":
    if form is None:
        if not _chosen:
            # `integers` needs nothing, so it can only fail its test: then nothing here can be trusted.
            for name in _ORDER:
                if _load(name):
                    _chosen.append(name)
                    break
            else:
                raise BackendUnavailable("no form of X25519 works here: %s; run the tests on this board" % disabled())
        form = _chosen[0]
    if not _load(form):
        reason = _refused.get(form, "is none of %s" % ", ".join(_ORDER)) or "is not for this interpreter"
        raise BackendUnavailable("X25519 form %r %s: use one of %s" % (form, reason, ", ".join(forms())))
    return _loaded[form]


def _load(name: str) -> bool:
    """Whether a form is here and gives the known answer; remembers both."""
    if name in _loaded:
        return True
    if name in _refused or name not in _ORDER:
        return False
    try:
        function = _import(name)
    # A port without this emitter refuses the source (SyntaxError) or the compiled file (ValueError); a full heap has
    # no room for the code.
    except (ImportError, SyntaxError, ValueError):
        _refused[name] = ""
        return False
    except MemoryError:
        _refused[name] = "had no room for its code and is disabled: free memory before the first use"
        return False
    reason = self_test(function)
    if reason:
        _refused[name] = reason
        return False
    _loaded[name] = function
    return True


def _import(name: str) -> "Multiply":
    if name == "integers":
        from packtrust.crypto.curve25519_integers import multiply as integers

        return integers
    # Only MicroPython has the emitters; others must not even see the source.
    if sys.implementation.name != "micropython":
        raise ImportError("native code is for MicroPython")
    if name == "viper":
        from packtrust.crypto.curve25519_viper import multiply as viper

        return viper
    # Kinds of core in .mpy files: 6 to 8 are armv7em without and with single and double floats, the ones that have
    # UMAAL. On others it would be an undefined instruction.
    if not 6 <= (getattr(sys.implementation, "_mpy", 0) >> 10 & 15) <= 8:
        raise ImportError("this core has no UMAAL")
    from packtrust.crypto.curve25519_thumb import multiply as thumb

    return thumb


# RFC 7748, 5.2, the first test vector, clamped.
_SCALAR = "a046e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449a44"
_POINT = "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"
_RESULT = "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"


def self_test(function: "Multiply") -> str:
    """Known-answer test. An empty string, or what is wrong."""
    try:
        good = function(unhexlify(_SCALAR), unhexlify(_POINT)) == unhexlify(_RESULT)
    except Exception as error:
        return "failed its known-answer test (%s) and is disabled" % type(error).__name__
    return "" if good else "failed its known-answer test and is disabled"
