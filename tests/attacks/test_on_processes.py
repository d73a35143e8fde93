"""Attacks once more where a node is a process of its own: MicroPython's unix port, and the virtual Cortex-M4.

A pack and a module each; the attacker has an adapter on either bus. One pack as it is for all attacks of a board, one
without all the defences in question for all controls.
"""

import time
from collections.abc import Iterator

import pytest

from app_bench import MACHINE
from attack_suite import CORTEX_M4, PROCESSES
from packtrust.arbitration import ENCRYPTED, compose
from packtrust.messages import by_name, encode
from packtrust.messages.table import STATE_OFF, STATE_ON
from packtrust.segmentation import Segmenter
from packtrust_host.app.keystore import KeyStore
from packtrust_host.sim import qemu
from packtrust_host.sim.launcher import PackProcess
from packtrust_host.urls import open_bus
from rigs import ProcessRig
from weakening import Weakening

can = pytest.importorskip("can")

BOARDS = {PROCESSES: "unix", CORTEX_M4: "cortex-m4"}

WEAK = Weakening(
    # replay
    ("packtrust.replay", "        if counter > self.highest:\n            return", "        return"),
    ("packtrust.channel", "        if cites and counter <= rx.strict:", "        if False:"),
    (
        "packtrust.replay",
        "        return 0 <= self.age_ms(cited, now_ms) <= CITATION_MAX_AGE_MS",
        "        return True",
    ),
    # clear injection
    (
        "packtrust_node.module",
        '                else:\n                    self.count("clear")\n            elif node == self.own_node and',
        (
            "                else:\n                    self._obey(Frame(compose(base, node), bytes(data)))\n"
            "            elif node == self.own_node and"
        ),
    ),
    # hello flood
    (
        "packtrust.channel",
        "            if self._hello_answered_ms is not None and now_ms - self._hello_answered_ms < HELLO_INTERVAL_MS:",
        "            if False:",
    ),
)


class Scene(ProcessRig):
    """A pack of one module, commissioned, and the attacker's adapter on the module bus."""

    def __init__(self, folder, board, overlays):
        super().__init__(folder, 1)
        self.pack = PackProcess(modules=1, seed=1, boards={"all": board}, overlays=overlays, logs=False)
        self.store = KeyStore(folder / "keys", machine=MACHINE)

    def __enter__(self):
        super().__enter__()
        self.commission()
        self.wire = open_bus("slcan:" + self.pack.add_adapter("module"))
        return self

    def __exit__(self, *exc_info):
        self.wire.shutdown()
        super().__exit__(*exc_info)

    def module(self):
        return self.pack.node_statistics()["module1"]

    def hear(self, seconds):
        """(base, node byte, message) of what is on the bus for a while."""
        until = time.monotonic() + seconds
        heard = []
        while (left := until - time.monotonic()) > 0:
            message = self.wire.recv(left)
            if message is not None and message.is_extended_id:
                heard.append(message)
        return heard

    def send(self, arbitration_id, data):
        self.wire.send(can.Message(arbitration_id=arbitration_id, is_extended_id=True, data=bytes(data)))

    def command(self, state):
        for _ in range(3):  # a machine at its limit is no attack's success
            result = super().command(lambda node: node.set_state(state))
            if result.state == "obeyed":
                return
        raise AssertionError(result)


def replay(scene):
    """The module's pack is gone; all it said while it commanded On comes again."""
    number = scene.module()["node"]
    scene.command(STATE_ON)
    recorded = [m for m in scene.hear(2.5) if m.arbitration_id & 0x200FF == ENCRYPTED | number]
    ours = {0x510, 0x512, 0x514, 0x517, 0x519, 0x51B}
    recorded = [m for m in recorded if m.arbitration_id >> 18 in ours]
    scene.command(STATE_OFF)
    scene.pack.kill("pack")
    opened = scene.module()["records"]["opened"]
    assert len(recorded) > 20
    for message in recorded:
        scene.wire.send(message)
        time.sleep(0.004)
    time.sleep(0.3)
    count = scene.module()["records"]["opened"] - opened
    scene.pack.restart("pack")
    assert scene.wait(lambda: scene.node.established, 30)
    return "%d records of a pack without power are opened" % count if count else ""


def clear_injection(scene):
    number = scene.module()["node"]
    scene.command(STATE_OFF)  # what an attack before has left
    assert scene.module()["state"] == STATE_OFF
    until = time.monotonic() + 3
    while time.monotonic() < until:
        # Again and again: the pack's next heartbeat may come before the console has been asked.
        for name, values in (("MAX_STATE", {"max_state": STATE_ON}), ("STATE_CHANGE", {"state": STATE_ON})):
            scene.send(compose(by_name(name).base, number), encode(name, values))
        if scene.module()["state"] == STATE_ON:
            return "the module is On by a clear frame"
    return ""


def hello_flood(scene):
    number = scene.module()["node"]
    segmenter = Segmenter()
    epoch = scene.module()["epoch"].to_bytes(4, "big")
    heard = []
    for step in range(60):
        hello = bytes((1, 1, 1)) + epoch + bytes(4) + step.to_bytes(16, "big")
        for frame in segmenter.split(compose(0x539, number), hello):
            scene.send(frame.arbitration_id, frame.data)
        heard += scene.hear(0.05)  # meanwhile: a machine at its limit reads no three seconds of a bus in half a one
    heard += scene.hear(0.5)
    first = [m for m in heard if m.arbitration_id >> 18 == 0x531 and not m.arbitration_id & 0xF000 and m.data[0] == 2]
    if len(first) > 6:
        return "the module answers %d HELLOs in 3 s" % len(first)
    return "" if scene.module()["session"] else "the module's session has ended"


# A board that needs a tenth of a second for a handshake bounds the flood of HELLOs by itself. A state that a weakened
# build takes from a clear frame lasts until the pack's next heartbeat, 200 ms: an emulated console is too slow to show
# it, so the control would prove nothing there.
NOT_ON = {("test_hello_flood.py", CORTEX_M4), ("test_clear_injection.py", CORTEX_M4)}

ATTACKS = {
    "test_clear_injection.py": clear_injection,
    "test_hello_flood.py": hello_flood,
    "test_replay.py": replay,
}


def scene(folder, where, overlays) -> Iterator[Scene]:
    if where == CORTEX_M4:
        try:
            qemu.firmware("cryptolib")
        except qemu.QemuError as error:
            pytest.skip(str(error))
    with Scene(folder, BOARDS[where], overlays) as made:
        yield made


def pytest_generate_tests(metafunc):
    name = "strong" if "strong" in metafunc.fixturenames else "weak_one"
    pairs = [(where, file) for where in BOARDS for file in ATTACKS if (file, where) not in NOT_ON]
    metafunc.parametrize((name, "file"), pairs, indirect=[name], scope="module")


@pytest.fixture(scope="module")
def strong(request, tmp_path_factory):
    yield from scene(tmp_path_factory.mktemp("strong"), request.param, {})


@pytest.fixture(scope="module")
def weak_one(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weak")
    yield from scene(folder, request.param, {"*": WEAK.overlays(folder / "files")})


@pytest.mark.slow
@pytest.mark.realtime
@pytest.mark.timeout(180)
def test_attack(strong, file, record_property, request):
    record_property("where", request.node.callspec.params["strong"])
    record_property("file", file)
    assert ATTACKS[file](strong) == ""
    strong.command(STATE_ON)
    strong.command(STATE_OFF)


@pytest.mark.slow
@pytest.mark.realtime
@pytest.mark.timeout(180)
def test_control(weak_one, file, record_property, request):
    record_property("where", request.node.callspec.params["weak_one"])
    record_property("file", file)
    assert ATTACKS[file](weak_one)
