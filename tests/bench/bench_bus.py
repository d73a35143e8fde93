"""Speed of the virtual bus, and how long the way to the first sealed record is."""

from __future__ import annotations

import secrets
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import can

from packtrust.frame import Frame
from packtrust_host.app.keystore import KeyStore
from packtrust_host.app.provisioner import Provisioner
from packtrust_host.app.registration import Registrar, make_client
from packtrust_host.app.runner import Runner
from packtrust_host.bridge.server import EmbeddedBridge
from packtrust_host.sim.bus import Bus
from packtrust_host.sim.launcher import PackProcess
from packtrust_host.sim.server import ServerThread
from packtrust_host.urls import open_bus

DATA = bytes.fromhex("0123456789abcdef")
IDENT = 0x502 << 18 | 0x20000 | 5
LIMIT_S = 30.0
SECOND_NS = 1_000_000_000


def virtual_time(bitrate: int, bus_seconds: float = 5.0) -> dict[str, Any]:
    """A saturated bus of three controllers in virtual time: frames per second of bus time, and of ours."""
    bus = Bus(bitrate, seed=1, name="bench")
    sender, *others = (bus.attach(name, tx_fifo=64) for name in ("a", "b", "c"))
    received = [0]

    def count(frame: Frame, time_ns: int) -> None:
        received[0] += 1

    for other in others:
        other.on_receive = count
    frame = Frame(IDENT, DATA)
    end = int(bus_seconds * SECOND_NS)
    sender.on_transmitted = lambda sent, time_ns: sender.send(frame)
    began = time.perf_counter()
    for _ in range(8):
        sender.send(frame)
    bus.run_until(end)
    wall = time.perf_counter() - began
    frames = received[0] // len(others)
    return {
        "name": "virtual time, %d kbit/s" % (bitrate // 1000),
        "frames": frames,
        "frames_per_bus_second": round(frames / bus_seconds, 1),
        "frames_per_second": round(frames / wall, 1),
        "times_real_time": round(bus_seconds / wall, 2),
    }


def real_time(bitrate: int, frames: int = 4000) -> dict[str, Any]:
    """From one python-can slcan adapter to another through the real-time server."""
    with ServerThread(seed=1) as thread:
        thread.call(thread.server.add_bus, "bench", bitrate)
        paths = [thread.call(thread.server.add_pty, "bench").path for _ in range(2)]
        url = "slcan:%s?bitrate=" + str(bitrate)
        with open_bus(url % paths[0]) as sender, open_bus(url % paths[1]) as receiver:
            started = threading.Event()

            def send() -> None:
                message = can.Message(arbitration_id=IDENT, data=DATA)
                # The receiver's channel is open when the first frame arrives: until then they are repeated.
                while not started.is_set():
                    sender.send(message)
                    started.wait(0.01)
                for _ in range(frames):
                    sender.send(message)

            worker = threading.Thread(target=send)
            worker.start()
            got = 0
            began = end = time.perf_counter()
            while got < frames and end - began < LIMIT_S:
                if receiver.recv(1.0) is not None:
                    got += 1
                    if not started.is_set():
                        started.set()
                        began = time.perf_counter()
                end = time.perf_counter()
            worker.join(LIMIT_S)
    return {
        "name": "adapters, %d kbit/s" % (bitrate // 1000),
        "frames": got,
        "frames_per_second": round(got / (end - began), 1),
    }


def first_record(modules: int = 3) -> dict[str, Any]:
    """What the demo does up to its first sealed record, with the seconds since the start at each step."""
    began = time.perf_counter()
    seconds: dict[str, float] = {}

    def reached(step: str) -> None:
        seconds[step] = round(time.perf_counter() - began, 3)

    with tempfile.TemporaryDirectory() as folder, EmbeddedBridge(Path(folder) / "bridge.db") as bridge:
        reached("bridge")
        with PackProcess(modules=modules, seed=1, logs=False) as pack:
            reached("nodes up")
            store = KeyStore(Path(folder) / "keys", machine=secrets.token_bytes(16))
            for name, code in pack.claim_codes.items():
                store.add_claim(bytes.fromhex(code), unique_id=pack.info["nodes"][name]["unique_id"])
            with (
                make_client(bridge.url, store) as client,
                Runner(lambda: open_bus("slcan:" + pack.adapter("vcu")), store) as runner,
            ):
                registrar = Registrar(client, store)

                def register(survey: Any) -> None:
                    registrar.register_all(survey)
                    reached("registered")

                provisioner = Provisioner(runner.node)
                runner.run(provisioner.commission(register, expected_modules=modules), 120)
                reached("keys installed")
                if not runner.wait(lambda: runner.node.model.records > 0, LIMIT_S):
                    raise RuntimeError("no sealed record within %d s" % LIMIT_S)
                reached("first sealed record")
                if not runner.wait(lambda: len(runner.node.model.online(runner.node.env.now_ms())) == modules, LIMIT_S):
                    raise RuntimeError("not all modules within %d s" % LIMIT_S)
                reached("all modules' records")
    return {"modules": modules, "seconds": seconds}
