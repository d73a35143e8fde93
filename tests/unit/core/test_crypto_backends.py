"""The choice of a backend, and what happens to one that computes wrongly."""

import sys

from packtrust.crypto import (
    AESGCM,
    BackendUnavailable,
    InvalidTag,
    KeyFormatError,
    backend,
    backends,
    disabled,
    hmac_sha256,
    registry,
    use,
    x25519_public,
)
from packtrust.crypto.gcm import InPlace
from portable import raises

_FOUND = (backend.LOADED, backend.REFUSED, backend.CHOSEN)


def _forget():
    """Nothing is known of any backend."""
    for table in _FOUND:
        table.clear()


class _Registry:
    """A fresh registry for one test, with the maker of one backend replaced."""

    def __init__(self, name=None, maker=None):
        self._saved = [dict(table) for table in _FOUND]
        self._makers = registry._MAKERS
        _forget()
        registry._MAKERS = dict(registry._MAKERS)
        if name:
            registry._MAKERS[name] = maker

    def __enter__(self):
        return self

    def __exit__(self, *_):
        _forget()
        for table, saved in zip(_FOUND, self._saved):
            table.update(saved)
        registry._MAKERS = self._makers


class _WrongCipher:
    """AES with one bit of its second block wrong."""

    def __init__(self, key):
        from packtrust.crypto.aes_pure import BlockCipher

        self._right = BlockCipher(key)

    def encrypt(self, blocks):
        self._right.encrypt(blocks)
        if len(blocks) > 16:
            blocks[16] ^= 1


def _wrong_aes():
    from packtrust.crypto.gcm import Gcm

    return registry.Backend("cryptolib", lambda key: Gcm(_WrongCipher(key)))


class _Trusting(InPlace):
    """AES-GCM that opens everything."""

    def __init__(self, key):
        self._right = AESGCM(key, "pure")

    def encrypt(self, nonce, data, aad):
        return self._right.encrypt(nonce, data, aad)

    def decrypt(self, nonce, data, aad):
        sealed = self._right.encrypt(nonce, data[:-16], aad)
        return sealed[:-16]


def _trusting():
    return registry.Backend("cryptolib", _Trusting)


def _crashing():
    def gcm(key):
        raise OSError(5)

    return registry.Backend("cryptolib", gcm)


def _wrong_hmac():
    class Backend(registry.Backend):
        def hmac(self, key, parts):
            return bytes(32)

    return Backend("cryptolib", registry._pure().gcm)


def _absent():
    raise ImportError("no module named cryptolib")


def test_all_here_pass():
    assert backends()
    assert disabled() == {}


def test_a_wrong_backend_is_disabled_and_says_so():
    for maker, what in (
        (_wrong_aes, "AES-GCM encryption"),
        (_trusting, "a bad tag was accepted"),
        (_wrong_hmac, "HMAC-SHA-256"),
        (_crashing, "OSError"),
    ):
        with _Registry("cryptolib", maker):
            assert "cryptolib" not in backends()
            assert list(disabled()) == ["cryptolib"]
            assert what in disabled()["cryptolib"]
            error = raises(BackendUnavailable, AESGCM, bytes(32), "cryptolib")
            assert "known-answer test" in str(error)
            assert "pure" in str(error)
            assert AESGCM(bytes(32)).backend != "cryptolib"


def test_an_absent_backend_is_not_called_broken():
    with _Registry("cryptolib", _absent):
        assert "cryptolib" not in backends()
        assert disabled() == {}
        error = raises(BackendUnavailable, AESGCM, bytes(32), "cryptolib")
        assert "not on this interpreter" in str(error)


def test_a_wrong_backend_gives_way_to_the_next():
    names = backends()
    with _Registry():
        for at, name in enumerate(names):
            assert AESGCM(bytes(32)).backend == name
            registry._MAKERS[name] = _wrong_aes
            _forget()
            assert backends() == names[at + 1 :]
            if at + 1 < len(names):
                assert AESGCM(bytes(32)).backend == names[at + 1]
        error = raises(BackendUnavailable, AESGCM, bytes(32))
        assert "run the tests" in str(error)


def test_use_sets_the_default():
    with _Registry():
        for name in backends():
            use(name)
            assert AESGCM(bytes(32)).backend == name
            assert len(hmac_sha256(b"k", b"d")) == 32
            assert len(x25519_public(bytes(32))) == 32
        use(None)
        assert AESGCM(bytes(32)).backend == backends()[0]
        raises(BackendUnavailable, use, "none such")
        assert AESGCM(bytes(32)).backend == backends()[0]


def test_every_call_names_an_unknown_backend():
    raises(BackendUnavailable, hmac_sha256, b"k", b"d", backend="none such")
    raises(BackendUnavailable, x25519_public, bytes(32), "none such")


class _Module:
    """A module that this interpreter does not have."""

    def __init__(self, name, **contents):
        self._name = name
        self._saved = sys.modules.get(name)
        for key, value in contents.items():
            setattr(self, key, value)

    def __enter__(self):
        sys.modules[self._name] = self
        return self

    def __exit__(self, *_):
        if self._saved is None:
            del sys.modules[self._name]
        else:
            sys.modules[self._name] = self._saved
        for module in ("packtrust.crypto.aes_aesio", "packtrust.crypto.gcm_cryptolib"):
            sys.modules.pop(module, None)


class _AesioAes:
    """CircuitPython's aesio.AES in ECB: one block a call, from one buffer into another or the same."""

    def __init__(self, key, mode):
        from packtrust.crypto.aes_pure import BlockCipher

        assert mode == 1
        self._right = BlockCipher(key)

    def encrypt_into(self, source, target):
        if len(source) != 16 or len(target) != 16:
            raise ValueError("ECB only operates on 16 bytes at a time")
        block = bytearray(source)
        self._right.encrypt(block)
        target[:] = block


class _PortAesgcm:
    """cryptolib.aesgcm as MicroPython's pull request 6389 proposes it."""

    def __init__(self, key):
        self._right = AESGCM(key, "pure")

    def encrypt(self, nonce, data, aad):
        return self._right.encrypt(nonce, data, aad)

    def decrypt(self, nonce, data, aad):
        try:
            return self._right.decrypt(nonce, data, aad)
        except InvalidTag:
            raise ValueError("bad tag")


def test_circuitpythons_aesio():
    with _Module("aesio", AES=_AesioAes, MODE_ECB=1):
        from packtrust.crypto.aes_aesio import BlockCipher
        from packtrust.crypto.gcm import Gcm

        backend = registry.Backend("aesio", lambda key: Gcm(BlockCipher(key)))
        assert registry.self_test(backend) == ""
        raises(KeyFormatError, BlockCipher, bytes(24))


def test_a_ports_own_aesgcm():
    with _Module("cryptolib", aesgcm=_PortAesgcm):
        from packtrust.crypto.gcm_cryptolib import Gcm

        assert registry.self_test(registry.Backend("cryptolib-gcm", Gcm)) == ""


def _spoiled(name, places):
    """A maker of kernel `name` whose states have a bit wrong at these places."""
    right = registry.select(name)

    def gcm(key):
        aead = right.gcm(key)
        for at in places(right.kernel):
            aead._state[at] ^= 1
        return aead

    return lambda: registry.Backend(name, gcm)


def _round_key(kernel):
    return [344 + 5 * 16]


def _products(kernel):
    return [kernel.H2 + entry * kernel.STRIDE + 9 for entry in range(1, 1 << kernel.BITS)]


def _more_products(kernel):
    return [kernel.H3 + entry * kernel.STRIDE + 9 for entry in range(1, 1 << kernel.BITS)]


def test_kernels_that_compute_wrongly_are_disabled():
    """A wrong round key or table, after set-up: found by the known answers, whichever kernel it is."""
    for name in backends():
        if not hasattr(registry.select(name), "kernel"):
            continue
        for places in (_round_key, _products, _more_products):
            if places == _round_key and name[:9] == "cryptolib":
                continue  # its round keys are in the library
            with _Registry(name, _spoiled(name, places)):
                assert name not in backends(), (name, places)
                assert "known-answer test (AES-GCM" in disabled()[name]
