"""Which backends are here, and which one to use.

Needed until one is chosen: what comes of it is kept in packtrust.crypto.backend, and a board unloads this then. Parts
are imported when first called for: a board has little RAM.
"""

import gc
import sys
from binascii import unhexlify

from packtrust.crypto.backend import BROUGHT, CHOSEN, LOADED, REFUSED, Backend
from packtrust.errors import BackendUnavailable, InvalidTag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packtrust.crypto.backend import Aead

# Each kind of interpreter has its own accelerated backends, and never tries the other's.
_ON_A_BOARD = sys.implementation.name in ("micropython", "circuitpython")

# What native code MicroPython runs here, as in a .mpy file's header; "" if none.
_ARCHITECTURES = " x86 x64 armv6 armv6m armv7m armv7em armv7emsp armv7emdp xtensa xtensawin rv32imc".split(" ")
_NUMBER = getattr(sys.implementation, "_mpy", 0) >> 10 & 15
_ARCHITECTURE = _ARCHITECTURES[_NUMBER] if _NUMBER < len(_ARCHITECTURES) else ""
# Cores that load and store words at any address. The others fault or are slow, so they get the aligned forms.
_UNALIGNED = _ARCHITECTURE in ("x86", "x64") or _ARCHITECTURE[:5] == "armv7"


def _host() -> Backend:
    if _ON_A_BOARD:
        raise ImportError("cryptography is for the host")
    from packtrust.crypto.host import HostBackend

    return HostBackend()


def _needs(condition: bool) -> None:
    if not (_ON_A_BOARD and condition):
        raise ImportError("not for this interpreter")


def _kernel(name: str, module: str) -> Backend:
    """A backend that is a module of native code."""
    from packtrust.crypto.gcm_tables import under_kernel

    kernel = getattr(__import__("packtrust.crypto." + module).crypto, module)
    backend = Backend(name, under_kernel(kernel))  # type: ignore[no-untyped-call]
    backend.kernel = kernel
    return backend


def _thumb() -> Backend:
    _needs(_ARCHITECTURE[:5] == "armv7")
    return _kernel("thumb", "gcm_thumb")


def _viper() -> Backend:
    _needs(_UNALIGNED)
    return _kernel("viper", "gcm_viper")


def _viper_large() -> Backend:
    _needs(_UNALIGNED)
    return _kernel("viper-large", "gcm_viper_large")


def _viper_aligned() -> Backend:
    _needs(_ARCHITECTURE != "")
    return _kernel("viper-aligned", "gcm_viper_aligned")


def _cryptolib_over(module: str) -> Backend:
    """The board's AES under a GHASH kernel."""
    from packtrust.crypto.aes_cryptolib import BlockCipher
    from packtrust.crypto.gcm_tables import under_kernel

    kernel = getattr(__import__("packtrust.crypto." + module).crypto, module)
    backend = Backend("cryptolib", under_kernel(kernel, BlockCipher))  # type: ignore[no-untyped-call]
    backend.kernel = kernel
    return backend


def _cryptolib() -> Backend:
    _needs(True)
    if _UNALIGNED:
        return _cryptolib_over("gcm_cryptolib_viper")
    if _ARCHITECTURE:
        return _cryptolib_over("gcm_cryptolib_aligned")
    return _cryptolib_pure()


def _cryptolib_aligned() -> Backend:
    _needs(_UNALIGNED)  # elsewhere it is `cryptolib`
    return _cryptolib_over("gcm_cryptolib_aligned")


def _cryptolib_pure() -> Backend:
    _needs(True)
    from packtrust.crypto.aes_cryptolib import BlockCipher
    from packtrust.crypto.gcm import Gcm

    return Backend("cryptolib-pure", lambda key: Gcm(BlockCipher(key)))


def _cryptolib_gcm() -> Backend:
    _needs(True)
    from packtrust.crypto.gcm_cryptolib import Gcm

    return Backend("cryptolib-gcm", Gcm)


def _aesio() -> Backend:
    _needs(True)
    from packtrust.crypto.aes_aesio import BlockCipher
    from packtrust.crypto.gcm import Gcm

    return Backend("aesio", lambda key: Gcm(BlockCipher(key)))


def _pure() -> Backend:
    from packtrust.crypto.gcm_pure import PureGcm

    return Backend("pure", PureGcm)


# Best first: by instructions a record (docs/performance.md), and no heap on the way. `viper-large` is faster than
# `viper`, but takes 11 KB a key, so it is for those who name it; `cryptolib-gcm` makes new bytes at every call, and
# comes first only where there are no kernels. The last names are forms that are the only one elsewhere, for tests.
_ORDER = (
    ("cryptography", "thumb")
    + (("cryptolib",) if _ARCHITECTURE else ("cryptolib-gcm", "cryptolib"))
    + ("viper", "viper-aligned", "viper-large", "cryptolib-aligned")
    + (("cryptolib-gcm",) if _ARCHITECTURE else ())
    + ("cryptolib-pure", "aesio", "pure")
)
_MAKERS = {
    "cryptography": _host,
    "thumb": _thumb,
    "cryptolib": _cryptolib,
    "viper": _viper,
    "viper-aligned": _viper_aligned,
    "viper-large": _viper_large,
    "cryptolib-aligned": _cryptolib_aligned,
    "cryptolib-gcm": _cryptolib_gcm,
    "cryptolib-pure": _cryptolib_pure,
    "aesio": _aesio,
    "pure": _pure,
}

# A board with little heap holds the backend in use and one other.
_SMALL = _ON_A_BOARD and hasattr(gc, "mem_free") and gc.mem_free() + gc.mem_alloc() < 200000  # type: ignore[attr-defined]


def select(name: "str | None" = None) -> Backend:
    """The named backend, or the best one here.

    BackendUnavailable if it is not here or failed its test.
    """
    if name is None:
        if "" not in CHOSEN:
            CHOSEN[""] = _best()
        return CHOSEN[""]
    backend = _load(name)
    if backend is None:
        raise BackendUnavailable("%s: use one of %s" % (_reason(name), ", ".join(names())))
    return backend


def use(name: "str | None") -> None:
    """Make a backend the one that `select()` gives; None goes back to the best one."""
    CHOSEN[""] = _best() if name is None else select(name)


def names() -> "list[str]":
    """The backends that are here and work, best first; on a board with little heap the one in use, others by name."""
    if _SMALL:
        return [select().name]
    return [name for name in _ORDER if _load(name) is not None]


def others() -> "list[str]":
    """Where there is little heap: what may be had by name besides `names()`; not tried yet, or let go of again."""
    if not _SMALL:
        return []
    return [name for name in _ORDER if name != select().name and name not in REFUSED]


def disabled() -> "dict[str, str]":
    """The backends, and forms of X25519 and HMAC, that are here and do not work, each with the reason."""
    from packtrust.crypto import curve25519, kdf

    found = {name: reason for name, reason in REFUSED.items() if reason}
    for name, reason in curve25519.disabled().items():
        found["X25519 " + name] = reason
    if kdf.disabled:
        found["HMAC viper"] = kdf.disabled
    return found


def _best() -> Backend:
    for name in _ORDER:
        backend = _load(name)
        if backend is not None:
            return backend
    raise BackendUnavailable("no crypto backend works here: %s; run the tests on this board" % disabled())


def _load(name: str) -> "Backend | None":
    """A backend after its known-answer test; None, noted in `REFUSED`, if absent or wrong."""
    if name in LOADED:
        return LOADED[name]
    if name in REFUSED or name not in _MAKERS:
        return None
    if _SMALL:
        _forget(name)
    before = list(sys.modules) if _SMALL else []
    try:
        backend = _MAKERS[name]()
        backend.name = name
        reason = self_test(backend)
    except MemoryError:
        # No fault of the backend: there may be room another time.
        _unload([module for module in sys.modules if module not in before] if _SMALL else [])
        return None
    except (ImportError, SyntaxError, ValueError):
        # No such module, no such emitter in the compiler, or .mpy for another core.
        REFUSED[name] = ""
        return None
    except Exception as error:
        REFUSED[name] = "cannot be loaded (%s) and is disabled" % error
        return None
    if reason:
        REFUSED[name] = reason
        return None
    LOADED[name] = backend
    if _SMALL:
        BROUGHT[name] = [module for module in sys.modules if module not in before]
    return backend


def _forget(keep: str) -> None:
    """Where there is little heap: let go of what is loaded beside the one in use."""
    for name in list(LOADED):
        if name != keep and LOADED[name] is not CHOSEN.get(""):
            del LOADED[name]
            _unload(BROUGHT.pop(name, []))


def _unload(modules: "list[str]") -> None:
    for module in modules:
        sys.modules.pop(module, None)
        package, _, child = module.rpartition(".")
        if package in sys.modules and hasattr(sys.modules[package], child):
            delattr(sys.modules[package], child)
    gc.collect()


def _reason(name: str) -> str:
    if name not in _MAKERS:
        return "there is no crypto backend %r" % name
    if name not in REFUSED:
        return "crypto backend %r does not fit into the heap now" % name
    return "crypto backend %r %s" % (name, REFUSED[name] or "is not on this interpreter")


# McGrew and Viega, The Galois/Counter Mode of Operation, test case 16: partial blocks in text and
# associated data.
_KEY = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"
_NONCE = "cafebabefacedbaddecaf888"
_AAD = "feedfacedeadbeeffeedfacedeadbeefabaddad2"
_TEXT = (
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
)
_SEALED = (
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
    "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
    "76fc6ece0f4e1768cddf8853bb2d551b"
)
# The same with 13 bytes of the associated data, as records have: length of the text, tag.
_TAGS = ((8, "8b7d32866de22ebd5f511b518f007d1e"), (60, "e3ba2113261204940c4b6e8547c30c89"))
# RFC 4231, test case 2.
_MAC = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


def self_test(backend: Backend) -> str:
    """Known-answer test of sealing, opening, refusing and HMAC.

    An empty string, or what is wrong.
    """
    nonce = unhexlify(_NONCE)
    aad = unhexlify(_AAD)
    text = unhexlify(_TEXT)
    sealed = unhexlify(_SEALED)
    try:
        aead = backend.gcm(unhexlify(_KEY))
        if aead.encrypt(nonce, text, aad) != sealed:
            return "failed its known-answer test (AES-GCM encryption) and is disabled"
        if aead.decrypt(nonce, sealed, aad) != text:
            return "failed its known-answer test (AES-GCM decryption) and is disabled"
        reason = _test_in_place(backend, aead)
        if reason:
            return "failed its known-answer test (%s) and is disabled" % reason
        if backend.hmac(b"Jefe", (b"what do ya want ", b"for nothing?")) != unhexlify(_MAC):
            return "failed its known-answer test (HMAC-SHA-256) and is disabled"
    except MemoryError:
        raise
    except Exception as error:
        return "failed its known-answer test (%s) and is disabled" % type(error).__name__
    try:
        aead.decrypt(nonce, sealed[:-1] + b"\x00", aad)
    except InvalidTag:
        return ""
    return "failed its known-answer test (a bad tag was accepted) and is disabled"


def _test_in_place(backend: Backend, aead: "Aead") -> str:
    """Known answers in a work buffer, of one block and of several; an empty string, or what is wrong."""
    text = unhexlify(_TEXT)
    nonce = unhexlify(_NONCE)
    aad = unhexlify(_AAD)[:13]
    for size, tag in _TAGS:
        ciphertext = unhexlify(_SEALED)[:size]
        record = nonce + text[:size]
        expected = aad + bytes(3) + nonce + ciphertext + unhexlify(tag)
        work = bytearray(aad + bytes(3) + record + bytes(16))
        aead.seal_in_place(work, size, 13)
        if work != expected:
            return "AES-GCM sealing in place"
        work[28 + size] ^= 0x10
        forged = bytes(work)
        if aead.open_in_place(work, size, 13) or work != forged:
            return "a bad tag was accepted in place"
        work[28 + size] ^= 0x10
        if not aead.open_in_place(work, size, 13) or bytes(work[16 : 28 + size]) != record:
            return "AES-GCM opening in place"
    return ""
