"""The runner: an AppNode in real time over python-can, and what it does when the adapter goes away."""

import logging
import secrets
import threading
import time
from collections import deque

import can
import pytest

from app_bench import MACHINE
from packtrust_host.app.errors import AppError, BusLost, Cancelled, NoAnswer
from packtrust_host.app.keystore import ACTIVE, APP_PACK, KEYED, PACK_MODULE, KeyStore, RelationshipRecord
from packtrust_host.app.node import AppNode
from packtrust_host.app.provisioner import Provisioner
from packtrust_host.app.runner import Runner, to_message
from packtrust_host.app.tasks import Until, Wait, Work
from packtrust_host.app.transport import CanIsoTp
from packtrust_host.sim.inprocess import InProcessPack

BITRATE = 500_000


class Gateway:
    """A node on the virtual pack's VCU bus that hands frames to a python-can bus and back."""

    def __init__(self, env, bus, waiting):
        self.env = env
        self.bus = bus
        self.waiting = waiting

    def start(self):
        pass

    def on_frame(self, port, frame):
        self.bus.send(to_message(frame))

    def on_tick(self):
        while self.waiting:
            self.env.send(0, self.waiting.popleft())
        return 1


class RealTimePack:
    """An InProcessPack whose clock follows the real one, on a python-can virtual channel."""

    def __init__(self, channel, modules=2):
        self.pack = InProcessPack(modules, seed=4)
        self.bus = can.Bus(interface="virtual", channel=channel)
        self.waiting = deque()
        self.pack.attach(lambda env: Gateway(env, self.bus, self.waiting), name="gateway")
        self.pack.start()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._stop.set()
        self._thread.join(10)
        self.bus.shutdown()

    def _run(self):
        start = time.monotonic()
        while not self._stop.is_set():
            message = self.bus.recv(0.001)
            while message is not None:
                self.waiting.append(message)
                message = self.bus.recv(0)
            behind = int((time.monotonic() - start) * 1000) - self.pack.now_ms
            if behind > 0:
                self.pack.run_for(behind)

    def claim(self, store):
        for name, station in self.pack.stations.items():
            if name != "gateway":
                store.add_claim(bytes(station.node.identity.claim_code), unique_id=station.node.unique_id)


@pytest.fixture
def channel():
    return "app-runner-" + secrets.token_hex(4)


@pytest.fixture
def store(tmp_path):
    return KeyStore(tmp_path / "keys", machine=MACHINE)


def register(store, survey):
    """Component ids and halves, as a bridge gives them."""
    with store.transaction() as state:
        state.component_id = "COMP-app"
        for number, device in enumerate([survey.pack, *survey.modules]):
            name = "COMP-%d" % number
            state.devices[device.unique_id].component_id = name
            state.relationships["lct-" + name] = RelationshipRecord(
                lct_id="lct-" + name,
                kind=PACK_MODULE if number else APP_PACK,
                component_a="COMP-0" if number else "COMP-app",
                component_b=name,
                unique_id_a=survey.pack.unique_id if number else 0,
                unique_id_b=device.unique_id,
                fingerprint_a=survey.pack.fingerprint if number else store.fingerprint,
                fingerprint_b=device.fingerprint,
                node=device.node,
                state=KEYED,
                half_a=bytearray(secrets.token_bytes(64)),
                half_b=bytearray(secrets.token_bytes(64)),
                lct_half=bytearray(secrets.token_bytes(64)),
            )


@pytest.mark.parametrize("library", ["core", "can-isotp"])
def test_the_whole_way_in_real_time(channel, store, library):
    """Survey, bridge work in another thread, keys, a command obeyed: over python-can, with either ISO-TP."""
    options = {} if library == "core" else {"make_link": CanIsoTp}
    threads = []

    def bridge_work(survey):
        threads.append(threading.current_thread().name)
        register(store, survey)

    with RealTimePack(channel) as far:
        far.claim(store)
        with Runner(lambda: can.Bus(interface="virtual", channel=channel), store, **options) as runner:
            provisioner = Provisioner(runner.node)
            survey = runner.run(provisioner.commission(bridge_work, expected_modules=2), 60)
            assert len(survey.modules) == 2
            assert threads
            assert threads[0].startswith("packtrust-work")
            assert {record.state for record in store.relationships.values()} == {ACTIVE}
            assert runner.wait(lambda: runner.node.established, 10)
            assert runner.wait(lambda: len(runner.node.model.online(runner.node.env.now_ms())) == 2, 10)
            command = runner.call(lambda: runner.node.set_state(3))
            assert runner.wait(lambda: command.done, 5)
            assert command.state == "obeyed", command
            assert runner.lost == runner.frames_dropped == runner.malformed == 0
    assert runner.node.channel is None  # keys are gone with the runner


class Unplugged(can.CanOperationError):
    """What python-can raises on a lost adapter."""


class Adapter:
    """Opens virtual buses that can be unplugged."""

    def __init__(self, channel):
        self.channel = channel
        self.plugged = True
        self.opened = 0
        self.fail_on = "recv"

    def __call__(self):
        if not self.plugged:
            raise can.CanInitializationError("no such adapter")
        self.opened += 1
        bus = can.Bus(interface="virtual", channel=self.channel)
        real_recv, real_send = bus.recv, bus.send

        def recv(timeout=None):
            if not self.plugged and self.fail_on == "recv":
                raise Unplugged("device not configured")
            return real_recv(timeout)

        def send(message, timeout=None):
            if not self.plugged and self.fail_on == "send":
                raise Unplugged("device not configured")
            return real_send(message, timeout)

        bus.recv, bus.send = recv, send
        return bus


def test_adapter_that_does_not_open(channel, store):
    adapter = Adapter(channel)
    adapter.plugged = False
    runner = Runner(adapter, store)
    with pytest.raises(BusLost, match=r"does not open: no such adapter.*Next: check that it is plugged in"):
        runner.start()
    runner.close()


@pytest.mark.parametrize("fail_on", ["recv", "send"])
def test_unplugged_adapter_is_reported_and_opened_again(channel, store, fail_on):
    adapter = Adapter(channel)
    adapter.fail_on = fail_on
    lines = []
    with Runner(adapter, store, log=lines.append) as runner:
        assert runner.error is None
        adapter.plugged = False
        assert runner.wait(lambda: runner.error is not None, 5)
        assert "adapter is gone: device not configured" in str(runner.error)
        assert "Next: plug it in again" in str(runner.error)
        with pytest.raises(NoAnswer, match="adapter"):
            runner.run(Provisioner(runner.node).find_pack(timeout_ms=60_000), 0.3, "finding the pack")
        adapter.plugged = True
        assert runner.wait(lambda: runner.error is None, 5)
        assert adapter.opened == 2
        assert runner.lost == 1
    assert any("is back" in line for line in lines)


def test_without_reconnect_whoever_waits_is_told(channel, store):
    adapter = Adapter(channel)
    with Runner(adapter, store, reconnect=False) as runner:
        adapter.plugged = False
        with pytest.raises(BusLost, match="adapter is gone"):
            runner.wait(lambda: False, 10)
        with pytest.raises(BusLost, match="adapter is gone"):
            runner.run(Provisioner(runner.node).find_pack(timeout_ms=60_000), 10)
        assert adapter.opened == 1


def test_traffic_goes_on_after_replugging(channel, store):
    adapter = Adapter(channel)
    with RealTimePack(channel) as far:
        far.claim(store)
        with Runner(adapter, store) as runner:
            runner.run(
                Provisioner(runner.node).commission(lambda survey: register(store, survey), expected_modules=2), 60
            )
            assert runner.wait(lambda: runner.node.established, 10)
            adapter.plugged = False
            assert runner.wait(lambda: runner.error is not None, 5)
            adapter.plugged = True
            assert runner.wait(lambda: runner.error is None, 5)
            before = runner.node.model.records
            assert runner.wait(lambda: runner.node.model.records > before + 10, 15)


def test_adapter_with_a_full_queue_is_waited_for(channel, store):
    full = [3]
    sent = []

    def open_bus():
        bus = can.Bus(interface="virtual", channel=channel)
        real = bus.send

        def send(message, timeout=None):
            if full[0]:
                full[0] -= 1
                raise can.CanOperationError("No buffer space available", error_code=105)
            sent.append(message)
            return real(message, timeout)

        bus.send = send
        return bus

    with Runner(open_bus, store) as runner:
        assert runner.wait(lambda: bool(sent), 5)
        assert runner.lost == 0
        assert runner.error is None


def test_unreadable_lines_are_counted(channel, store):
    broken = [2]

    def open_bus():
        bus = can.Bus(interface="virtual", channel=channel)
        real = bus.recv

        def recv(timeout=None):
            if broken[0]:
                broken[0] -= 1
                raise ValueError("invalid literal for int() with base 16")
            return real(timeout)

        bus.recv = recv
        return bus

    with Runner(open_bus, store) as runner:
        assert runner.wait(lambda: runner.malformed == 2, 5)
        assert runner.error is None


def test_calls_give_values_and_errors(channel, store):
    with Runner(lambda: can.Bus(interface="virtual", channel=channel), store) as runner:
        assert runner.call(lambda: threading.current_thread().name) == "packtrust-app"
        with pytest.raises(ZeroDivisionError):
            runner.call(lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            runner.wait(lambda: bool(1 // 0), 5)
        assert runner.wait(lambda: False, 0.05) is False

        def script():
            yield Wait(5)
            return (yield Work(lambda: threading.current_thread().name))

        assert runner.run(script()).startswith("packtrust-work")

        def endless():
            yield Until(lambda: False, 60_000)

        with pytest.raises(NoAnswer, match="waiting took longer than 0 s"):
            runner.run(endless(), 0.1, "waiting")
    with pytest.raises(AppError, match="has stopped"):
        runner.call(lambda: 1)


def test_a_fault_of_ours_is_told_to_everybody(channel, store, monkeypatch, caplog):
    broken = threading.Event()
    real = AppNode.on_tick

    def on_tick(node):
        if broken.is_set():
            raise RuntimeError("a bug")
        return real(node)

    monkeypatch.setattr(AppNode, "on_tick", on_tick)
    with (
        caplog.at_level(logging.CRITICAL),
        Runner(lambda: can.Bus(interface="virtual", channel=channel), store) as runner,
    ):
        broken.set()
        with pytest.raises(AppError, match=r"the app node failed: RuntimeError\('a bug'\)"):
            runner.wait(lambda: False, 10)
        with pytest.raises(AppError, match="report this as a bug"):
            runner.call(lambda: 1)


def test_scripts_end_with_the_runner(channel, store):
    runner = Runner(lambda: can.Bus(interface="virtual", channel=channel), store)
    runner.start()

    def script():
        yield Until(lambda: False, 60_000)

    task = runner.call(lambda: runner.node.spawn(script(), "waiting"))
    runner.close()
    with pytest.raises(Cancelled, match="the app stops"):
        task.result()


def test_error_and_remote_frames_do_not_reach_the_node(channel, store, monkeypatch):
    seen = []
    monkeypatch.setattr(AppNode, "on_frame", lambda node, port, frame: seen.append(frame.arbitration_id))
    with (
        can.Bus(interface="virtual", channel=channel) as other,
        Runner(lambda: can.Bus(interface="virtual", channel=channel), store) as runner,
    ):
        other.send(can.Message(arbitration_id=1, is_error_frame=True))
        other.send(can.Message(arbitration_id=2, is_remote_frame=True))
        other.send(can.Message(arbitration_id=3, data=b"x"))
        assert runner.wait(lambda: bool(seen), 5)
    assert seen == [3]
