"""The USB-CAN adapter is pulled out and plugged in again: a real-time pack on MicroPython, python-can's slcan."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from packtrust_host.app.errors import AppError, BusLost
from packtrust_host.app.keystore import ACTIVE, APP_PACK, KEYED, PACK_MODULE, KeyStore, RelationshipRecord
from packtrust_host.app.provisioner import Provisioner
from packtrust_host.app.runner import Runner
from packtrust_host.sim.launcher import PackProcess
from packtrust_host.urls import open_bus
from packtrust_host.verify import verify_node
from packtrust_host.verify_transport import bus_at

LIMIT_S = 30.0


@pytest.fixture
def pack() -> Iterator[PackProcess]:
    with PackProcess(modules=1, seed=4, logs=False) as process:
        yield process


@pytest.fixture
def store(pack: PackProcess, tmp_path: Path) -> KeyStore:
    made = KeyStore(tmp_path / "keys", machine=b"test machine")
    for name, code in pack.claim_codes.items():
        made.add_claim(bytes.fromhex(code), unique_id=pack.info["nodes"][name]["unique_id"])
    return made


def register(store: KeyStore, survey: object) -> None:
    """Component ids and halves, as a bridge gives them."""
    devices = [survey.pack, *survey.modules]  # type: ignore[attr-defined]
    with store.transaction() as state:
        state.component_id = "COMP-app"
        for number, device in enumerate(devices):
            state.devices[device.unique_id].component_id = "COMP-%d" % number
            if "lct-%d" % number in state.relationships:
                continue
            state.relationships["lct-%d" % number] = RelationshipRecord(
                lct_id="lct-%d" % number,
                kind=PACK_MODULE if number else APP_PACK,
                component_a="COMP-0" if number else "COMP-app",
                component_b="COMP-%d" % number,
                unique_id_a=devices[0].unique_id if number else 0,
                unique_id_b=device.unique_id,
                fingerprint_a=devices[0].fingerprint if number else store.fingerprint,
                fingerprint_b=device.fingerprint,
                node=device.node,
                state=KEYED,
                half_a=bytearray(secrets.token_bytes(64)),
                half_b=bytearray(secrets.token_bytes(64)),
                lct_half=bytearray(secrets.token_bytes(64)),
            )


def commission(runner: Runner, store: KeyStore) -> None:
    script = Provisioner(runner.node).commission(lambda survey: register(store, survey), expected_modules=1)
    runner.run(script, 60)


def online(runner: Runner) -> bool:
    return len(runner.node.model.online(runner.node.env.now_ms())) == 1


def test_pulled_out_and_plugged_in_while_traffic_runs(pack: PackProcess, store: KeyStore) -> None:
    adapter = pack.adapter("vcu")
    with Runner(lambda: open_bus("slcan:" + adapter), store) as runner:
        commission(runner, store)
        assert runner.wait(lambda: runner.node.established and online(runner), LIMIT_S)
        pack.control("unplug", port="can-vcu0")
        assert runner.wait(lambda: runner.error is not None, LIMIT_S)
        error = runner.error
        assert isinstance(error, BusLost)
        assert "Next: plug it in again" in str(error)
        pack.control("replug", port="can-vcu0")
        assert runner.wait(lambda: runner.error is None, LIMIT_S)
        records = runner.node.model.records
        assert runner.wait(lambda: runner.node.model.records > records + 10, LIMIT_S)
        given = runner.call(lambda: runner.node.set_state(3))
        assert runner.wait(lambda: given.done, LIMIT_S)
        assert given.state == "obeyed", given
        assert runner.lost == 1
    assert all(node["board"]["crashes"] == 0 for node in pack.node_statistics().values())


@pytest.mark.slow
def test_pulled_out_while_keys_are_given(pack: PackProcess, store: KeyStore) -> None:
    """The work ends with an error that says why; after replugging, the same call finishes it."""
    adapter = pack.adapter("vcu")
    with Runner(lambda: open_bus("slcan:" + adapter), store) as runner:

        def pull(progress: object) -> None:
            if progress.step == "installed" and runner.lost == 0:  # type: ignore[attr-defined]
                pack.control("unplug", port="can-vcu0")

        provisioner = Provisioner(runner.node, on_progress=pull)
        with pytest.raises(AppError, match="Next: "):
            runner.run(provisioner.commission(lambda survey: register(store, survey), expected_modules=1), 60)
        assert not any(record.state == ACTIVE for record in store.relationships.values())
        pack.control("replug", port="can-vcu0")
        assert runner.wait(lambda: runner.error is None, LIMIT_S)
        commission(runner, store)
        assert runner.wait(lambda: runner.node.established and online(runner), LIMIT_S)
    assert {record.state for record in store.relationships.values()} == {ACTIVE}


def test_pulled_out_under_verify(pack: PackProcess) -> None:
    seen = []

    def pull(case: object, cause: str) -> None:
        seen.append(case)
        if len(seen) == 10:
            pack.control("unplug", port="can-vcu0")

    with bus_at("slcan:" + pack.adapter("vcu")) as bus, pytest.raises(BusLost, match="Next: plug it in again"):
        verify_node(bus, 0x40, cases=5, on_case=pull)
    assert len(seen) == 10
