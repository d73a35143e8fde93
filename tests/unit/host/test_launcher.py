"""The virtual pack's processes: real nodes on a real MicroPython, controlled from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import can
import pytest

from packtrust import testwire
from packtrust.arbitration import compose
from packtrust.frame import Frame
from packtrust.isotp import IsoTpLink
from packtrust_host.sim import deploy
from packtrust_host.sim.launcher import NodeError, PackProcess

DEADLINE_S = 20.0


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Poll an outside process; there is nothing to await."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "never happened: " + what
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # it may end between opening and reading
        return False
    return state != "Z"


@pytest.fixture(scope="module")
def micropython() -> str:
    return deploy.find_micropython()


@pytest.fixture(scope="module")
def pack(micropython: str) -> Iterator[PackProcess]:
    with PackProcess(modules=2, seed=3, micropython=micropython, tap=True) as process:
        yield process


def test_ready_line_names_everything(pack: PackProcess) -> None:
    assert set(pack.info["nodes"]) == {"pack", "module1", "module2"}
    assert set(pack.claim_codes) == {"pack", "module1", "module2"}
    codes = [bytes.fromhex(code) for code in pack.claim_codes.values()]
    assert len({*codes}) == 3
    assert all(len(code) == 16 for code in codes)
    assert os.path.exists(pack.adapter("vcu"))
    assert os.path.exists(pack.adapter("module"))
    assert os.stat(pack.info["control"]).st_mode & 0o077 == 0


def test_console(pack: PackProcess) -> None:
    word, _, text = pack.console("module1", "id").partition(" ")
    assert word == "id"
    assert json.loads(text) == {
        "role": "module",
        "profile": "operational",
        "pack": 0,
        "serial": pack.info["nodes"]["module1"]["serial"],
        "unique_id": pack.info["nodes"]["module1"]["unique_id"],
    }
    assert pack.console("pack", "claim") == "claim " + pack.claim_codes["pack"]
    assert pack.console("pack", "fly").startswith("error")
    stats = pack.node_statistics()
    assert set(stats) == {"pack", "module1", "module2"}
    # Nobody acknowledges on a bus whose only other controller, the adapter, is closed.
    vcu, module = stats["pack"]["board"]["ports"]
    assert vcu["state"] in ("active", "passive")
    assert module["state"] == "active"
    assert all(node["board"]["crashes"] == 0 for node in stats.values())
    text = json.dumps(stats) + json.dumps(pack.control("node_log", node="pack"))
    assert not any(code in text for code in pack.claim_codes.values())


def test_node_answers_on_its_bus(pack: PackProcess) -> None:
    """From a host with an adapter: the pack's own interpreter computes, and says so."""
    with can.Bus(interface="slcan", channel=pack.adapter("vcu"), bitrate=500_000, sleep_after_open=0) as bus:
        link = IsoTpLink(compose(testwire.TO_PACK, 0x40), compose(testwire.FROM_PACK, 0x40))
        key, nonce = os.urandom(32), os.urandom(12)
        link.send(testwire.encode_request(testwire.SEAL, 7, (b"", key, nonce, b"aad", b"text" * 20)), 0)
        payload = None
        end = time.monotonic() + DEADLINE_S
        while payload is None:
            assert time.monotonic() < end, "no reply"
            for frame in link.outgoing():
                bus.send(can.Message(arbitration_id=frame.arbitration_id, data=frame.data))
            message = bus.recv(1)
            if message is not None and message.arbitration_id == link.rx_id:
                payload = link.feed(Frame(message.arbitration_id, bytes(message.data)), 0)
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    reply = testwire.decode_reply(payload)
    assert reply.status == testwire.OK
    assert reply.result == AESGCM(key).encrypt(nonce, b"text" * 20, b"aad")
    assert reply.elapsed_us > 0
    # What the tap is for: this key existed.
    assert pack.keys()[key.hex()] == ["pack aes"]


def test_modules_are_heard_and_filtered(pack: PackProcess) -> None:
    wait_for(
        lambda: pack.node_statistics()["pack"]["board"]["ports"][1]["counters"]["received"] >= 2,
        "the pack hears its modules",
    )
    log = Path(pack.info["logs"]["module"]).read_text()
    assert " module 140" in log  # 0x500 << 18: announcements
    # A module's adapter lets no other module's telemetry in.
    with can.Bus(interface="slcan", channel=pack.adapter("module"), bitrate=500_000, sleep_after_open=0) as bus:
        before = pack.node_statistics()["module1"]["board"]["ports"][0]["counters"]["received"]
        for _ in range(100):
            bus.send(can.Message(arbitration_id=compose(0x502, 9), data=bytes(8)))
        # A frame it does take marks the end of the hundred.
        bus.send(can.Message(arbitration_id=compose(0x523, 9), data=bytes(8)))
        wait_for(
            lambda: pack.statistics()["buses"]["module"]["controllers"]["can-module0"]["sent"] >= 101,
            "all frames on the bus",
        )
        after = pack.node_statistics()["module1"]["board"]["ports"][0]["counters"]["received"]
    assert after - before < 50


def test_restart_keeps_the_flash_and_kill_stays_dead(pack: PackProcess) -> None:
    before = pack.control("describe")["nodes"]["module2"]
    pack.restart("module2")
    after = pack.control("describe")["nodes"]["module2"]
    assert after["pid"] != before["pid"]
    assert not alive(before["pid"])
    assert after["boots"] == before["boots"] + 1
    assert pack.console("module2", "claim") == "claim " + pack.claim_codes["module2"]
    pack.kill("module2")
    assert not pack.control("describe")["nodes"]["module2"]["running"]
    with pytest.raises(NodeError, match="not running"):
        pack.console("module2", "id")
    assert set(pack.node_statistics()) == {"pack", "module1"}
    assert "module2" not in pack.statistics()["ports"]
    pack.control("node_start", node="module2")
    assert pack.console("module2", "claim") == "claim " + pack.claim_codes["module2"]
    pack.control("console", node="module2", line="reset")
    assert pack.control("claim_codes")["module2"] != pack.claim_codes["module2"]


def test_faults_and_adapters_on_request(pack: PackProcess) -> None:
    path = pack.add_adapter("vcu")
    assert os.path.exists(path)
    number = pack.control("fault_add", bus="vcu", fault={"kind": "loss", "receiver": "pack.vcu"})
    assert pack.control("fault_remove", bus="vcu", id=number["id"])["kind"] == "loss"
    pack.control("unplug", port="can-vcu1")
    assert not os.path.exists(path)
    with pytest.raises(NodeError, match="no bus"):
        pack.control("fault_list", bus="power")
    with pytest.raises(NodeError, match="no command"):
        pack.control("dance")
    with pytest.raises(NodeError, match="no node"):
        pack.kill("module9")


def test_nothing_is_left_behind(micropython: str) -> None:
    process = PackProcess(modules=1, seed=3, micropython=micropython).start()
    pids = [process.info["pid"], *(node["pid"] for node in process.info["nodes"].values())]
    directory = Path(process.info["directory"])
    assert all(alive(pid) for pid in pids)
    process.stop()
    assert not any(alive(pid) for pid in pids)
    assert not directory.exists()
    assert not Path(process.info["control"]).parent.exists()
    process.stop()  # twice is once


STARTER = """
import sys, json
from packtrust_host.sim.launcher import PackProcess
process = PackProcess(modules=1, seed=3, micropython=sys.argv[1]).start()
print(json.dumps(process.info), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("victim", ["starter", "launcher"])
def test_nodes_die_with_whoever_started_them(micropython: str, victim: str) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, micropython],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert starter.stdout is not None
    info = json.loads(starter.stdout.readline())
    nodes = [node["pid"] for node in info["nodes"].values()]
    try:
        assert all(alive(pid) for pid in nodes)
        os.kill(starter.pid if victim == "starter" else info["pid"], signal.SIGKILL)
        wait_for(lambda: not any(alive(pid) for pid in nodes), "the nodes end")
        wait_for(lambda: not alive(info["pid"]), "the launcher ends")
        if victim == "starter":
            wait_for(lambda: not Path(info["directory"]).exists(), "the flashes are gone")
    finally:
        starter.kill()
        starter.communicate()


def test_a_broken_node_is_told_with_its_last_words(micropython: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise ValueError('no such cell chemistry')\n")
    process = PackProcess(
        modules=1,
        micropython=micropython,
        overlays={"module1": {"packtrust_node/module.py": str(broken)}},
    )
    with pytest.raises(NodeError, match=r"module1 did not start.*no such cell chemistry"):
        process.start()


def test_a_missing_interpreter_is_told() -> None:
    with pytest.raises(NodeError, match="cannot start /nowhere/micropython"):
        PackProcess(modules=1, micropython="/nowhere/micropython").start()


def test_bad_settings_are_told(micropython: str) -> None:
    with pytest.raises(NodeError, match="1 to 31 modules"):
        PackProcess(modules=32, micropython=micropython).start()
    with pytest.raises(NodeError, match="no node 'module7'"):
        PackProcess(modules=1, micropython=micropython, overlays={"module7": {}}).start()


def test_flash_is_the_checkout(tmp_path: Path) -> None:
    config = deploy.node_configs(1, 0)["module1"]
    extra = tmp_path / "cells.csv"
    extra.write_text("x")
    flash = tmp_path / "flash"
    deploy.make_flash(flash, config, {"cells.csv": extra})
    assert json.loads((flash / "node.json").read_text()) == config
    firmware = deploy.CHECKOUT / "firmware"
    for source in firmware.rglob("*.py"):
        assert (flash / source.relative_to(firmware)).read_bytes() == source.read_bytes()
    core = deploy.CHECKOUT / "shared" / "packtrust"
    for name in ("channel.py", "crypto/gcm.py"):
        assert (flash / "lib" / "packtrust" / name).read_bytes() == (core / name).read_bytes()
    with pytest.raises(deploy.SetupError, match="leaves the node's flash"):
        deploy.make_flash(flash, config, {"../escape.py": extra})


def test_node_configs_come_from_the_seed() -> None:
    one, same, other = (deploy.node_configs(31, seed) for seed in (1, 1, 2))
    assert one == same
    ids = [config["unique_id"] for config in one.values()]
    assert len(set(ids)) == 32
    assert ids != [config["unique_id"] for config in other.values()]
    cells = deploy.node_configs(2, 1, cells={"count": 4, "module2": {"load_ma": 5}})
    assert cells["module1"]["cells"]["count"] == cells["module2"]["cells"]["count"] == 4
    assert [cells["module%d" % n]["cells"]["load_ma"] for n in (1, 2)] == [-20000, 5]
