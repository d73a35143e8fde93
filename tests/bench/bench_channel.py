"""Speed of the encrypted channel, on the interpreter it is started with: one JSON object, as bench_crypto.

    PYTHONPATH=shared:tests/bench python tests/bench/bench_channel.py
    MICROPYPATH=shared:tests/bench:.frozen micropython tests/bench/bench_channel.py

`seal` gives the frames of a record, `feed` takes them all and opens it: what a node does for one message, at each end,
with the best AES backend it has and with the pure one.
"""

import gc
import json
import sys

import bench_crypto
from bench_crypto import measure

from packtrust import INITIATOR, OPENED, RESPONDER, Channel
from packtrust.crypto import backends, use

STATUS = 0x502 << 18 | 5  # telemetry, module 5 to its pack
SECRET = bytes(range(32))
BATCH = 200
DATA = {8: bytes(range(8)), 64: bytes(range(64))}

_drawn = [0]


def _entropy(count):
    """Different bytes each time; nothing here is secret."""
    _drawn[0] += 1
    return bytes((_drawn[0] + at) & 255 for at in range(count))


def pair():
    """(pack, module): two channels in session."""
    pack = Channel(SECRET, INITIATOR, 5, lambda: 0, _entropy, "pack", "module")
    module = Channel(SECRET, RESPONDER, 5, lambda: 0, _entropy, "module", "pack")
    pack.connect()
    for _ in range(4):
        for frame in pack.outgoing():
            module.feed(frame)
        for frame in module.outgoing():
            pack.feed(frame)
    assert pack.established and module.established
    return pack, module


def _measure_feed(name, backend, pack, module, data):
    """Each record opens once, so they are sealed beforehand, a batch a round, outside the time."""
    rounds = []
    for _ in range(bench_crypto.ROUNDS):
        records = [[frame.copy() for frame in module.seal(STATUS, data)] for _ in range(BATCH)]
        gc.collect()
        start = bench_crypto.ticks_us()
        for frames in records:
            for frame in frames:
                event = pack.feed(frame)
        rounds.append(bench_crypto.ticks_diff(bench_crypto.ticks_us(), start) / BATCH)
        assert event is not None and event.kind == OPENED
    rounds.sort()
    return {
        "name": name,
        "backend": backend,
        "us": round(rounds[len(rounds) // 2], 2),
        "us_best": round(rounds[0], 2),
        "calls": BATCH * len(rounds),
    }


def _handshake():
    pair()


def run():
    """All results of this interpreter."""
    results = []
    for backend in backends():
        use(backend)
        pack, module = pair()
        for size in (8, 64):
            data = DATA[size]
            results.append(measure("Channel.seal %d bytes" % size, backend, module.seal, STATUS, data))
            results.append(_measure_feed("Channel.feed %d bytes" % size, backend, pack, module, data))
        results.append(measure("handshake, both ends", backend, _handshake))
    use(None)
    return {"interpreter": sys.implementation.name, "results": results}


if __name__ == "__main__":
    print(json.dumps(run()))
