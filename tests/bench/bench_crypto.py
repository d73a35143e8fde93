"""Speed and memory of the crypto core, on the interpreter it is started with: one JSON object.

    PYTHONPATH=shared python tests/bench/bench_crypto.py
    MICROPYPATH=shared:.frozen micropython tests/bench/bench_crypto.py

`results` holds a line an operation and backend: `us` is the median time of one call in microseconds
over the rounds, `us_best` that of the best round. Where the interpreter can tell, `heap_per_call` is
what a call leaves to the collector and `heap_per_key` what a live object keeps, in bytes.
"""

import gc
import json
import sys
import time

try:
    from time import ticks_diff, ticks_us
except ImportError:

    def ticks_us():
        return time.perf_counter_ns() // 1000

    def ticks_diff(end, start):
        return end - start


from packtrust.crypto import AESGCM, backends, hkdf, hkdf_expand, hpke, x25519, x25519_public

ROUNDS = 7
ROUND_US = 40000

KEY = bytes(range(32))
NONCE = bytes(range(12))
AAD = bytes(range(12))  # as long as a record's
ENTROPY = bytes(range(64, 96))


def _loop(function, arguments, count):
    start = ticks_us()
    for _ in range(count):
        function(*arguments)
    return ticks_diff(ticks_us(), start)


def _heap(function, arguments):
    """Bytes that one call takes from the heap; None where that is not told, or is more than it holds."""
    if not hasattr(gc, "mem_alloc"):
        return None
    gc.collect()
    gc.disable()
    try:
        before = gc.mem_alloc()
        function(*arguments)
        return gc.mem_alloc() - before
    except MemoryError:
        return None
    finally:
        gc.enable()


def _kept(function, arguments):
    """Bytes that the call's result keeps; None where the interpreter does not tell."""
    if not hasattr(gc, "mem_alloc"):
        return None
    gc.collect()
    before = gc.mem_alloc()
    kept = function(*arguments)
    gc.collect()
    size = gc.mem_alloc() - before
    del kept
    return size


def measure(name, backend, function, *arguments):
    """One result: enough calls a round to be well above the clock's grain."""
    count = 1
    while _loop(function, arguments, count) < ROUND_US // 4:
        count *= 2
    count *= 4
    rounds = []
    for _ in range(ROUNDS):
        gc.collect()
        rounds.append(_loop(function, arguments, count) / count)
    rounds.sort()
    result = {
        "name": name,
        "backend": backend,
        "us": round(rounds[ROUNDS // 2], 2),
        "us_best": round(rounds[0], 2),
        "calls": count * ROUNDS,
    }
    heap = _heap(function, arguments)
    if heap is not None:
        result["heap_per_call"] = heap
    return result


def _hpke(backend):
    """Results of HPKE in AuthPSK mode, at about the size of a first package."""
    recipient, public = hpke.derive_key_pair(KEY, backend)
    sender, sender_public = hpke.derive_key_pair(ENTROPY, backend)
    shared = {"psk": KEY[:16], "psk_id": KEY, "backend": backend}
    data = bytes(300)

    def seal():
        return hpke.seal(public, b"", b"", data, entropy=ENTROPY, sk_s=sender, **shared)

    enc, sealed, _ = seal()

    def unseal():
        return hpke.open(enc, recipient, b"", b"", sealed, pk_s=sender_public, **shared)

    assert unseal()[0] == data
    return [
        measure("HPKE AuthPSK seal 300 bytes", backend, seal),
        measure("HPKE AuthPSK open 300 bytes", backend, unseal),
    ]


def run():
    """All results of this interpreter."""
    results = []
    for backend in backends():
        aead = AESGCM(KEY, backend)
        result = measure("key set-up", backend, AESGCM, KEY, backend)
        kept = _kept(AESGCM, (KEY, backend))
        if kept is not None:
            result["heap_per_key"] = kept
        results.append(result)
        for size in (8, 64):
            data = bytes(size)
            sealed = aead.encrypt(NONCE, data, AAD)
            name = "%%s %d bytes" % size
            results.append(measure(name % "seal", backend, aead.encrypt, NONCE, data, AAD))
            results.append(measure(name % "open", backend, aead.decrypt, NONCE, sealed, AAD))
    # Below AES the boards' backends are one and the same code.
    for backend in backends():
        if backend == "cryptolib":
            continue
        results.append(measure("HKDF 32 bytes", backend, hkdf, KEY, KEY, b"label", 32, backend))
        results.append(measure("HKDF-Expand 36 bytes", backend, hkdf_expand, KEY, KEY, 36, backend))
        public = x25519_public(KEY, backend)
        results.append(measure("X25519", backend, x25519, ENTROPY, public, backend))
    for backend in backends():
        results.extend(_hpke(backend))
    return {
        "interpreter": sys.implementation.name,
        "version": ".".join([str(part) for part in sys.implementation.version[:3]]),
        "platform": sys.platform,
        "word_bits": 64 if sys.maxsize > 1 << 32 else 32,
        "results": results,
    }


if __name__ == "__main__":
    print(json.dumps(run()))
