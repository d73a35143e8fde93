"""The named scenarios: fast and deterministic in one process, and again on MicroPython processes through python-can."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app_bench import MACHINE
from packtrust.messages.table import STATE_OFF, STATE_ON
from packtrust_host.app.errors import AppError
from packtrust_host.app.keystore import ACTIVE, KeyStore
from packtrust_host.app.validate import Validator
from rigs import InProcessRig, ProcessRig

MODULES = 2


@pytest.fixture(params=[InProcessRig, ProcessRig], ids=["in-process", "processes"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with request.param(tmp_path, MODULES) as made:
        yield made


def online(rig: Any) -> bool:
    return rig.wait(lambda: len(rig.node.model.online(rig.node.env.now_ms())) == MODULES, 10)


def switch_on_and_off(rig: Any) -> None:
    for state in (STATE_ON, STATE_OFF):
        command = rig.command(lambda node, state=state: node.set_state(state))
        assert command.state == "obeyed", command


def test_claim_keys_and_commands(rig: Any) -> None:
    rig.commission()
    assert online(rig)
    switch_on_and_off(rig)
    report = rig.run(Validator(rig.provisioner(), None).run())
    assert report.ok, report.findings
    assert len(report.checked) == MODULES + 1


def test_rotation_keeps_the_pack_running(rig: Any) -> None:
    rig.commission()
    assert online(rig)
    for lct_id in list(rig.store.relationships):
        rig.run(rig.provisioner().install(lct_id))
    assert {record.epoch for record in rig.store.relationships.values()} == {2}
    assert rig.wait(lambda: rig.node.established and rig.node.channel.session_epoch == 2, 10)
    switch_on_and_off(rig)
    assert "tag" not in rig.node.channel.stats


@pytest.mark.parametrize("who", ["module1", "pack"])
def test_a_power_cycle_needs_no_new_keys(rig: Any, who: str) -> None:
    rig.commission()
    assert online(rig)
    switch_on_and_off(rig)
    rig.power_cycle(who)
    seen = rig.node.env.now_ms()

    def back() -> bool:
        modules = rig.node.model.modules.values()
        return rig.node.established and all((item.state_ms or 0) > seen + 1000 for item in modules)

    assert rig.wait(back, 20)
    switch_on_and_off(rig)
    assert {record.epoch for record in rig.store.relationships.values()} == {1}


def test_an_app_without_the_claim_codes_claims_nothing(rig: Any, tmp_path: Path) -> None:
    owner = rig.store
    rogue = KeyStore(tmp_path / "rogue", machine=MACHINE)
    rogue.add_claim(bytes(range(16)), serial="MODBATT-PACK-RC001-001")
    rig.another_app(rogue)
    with pytest.raises(AppError, match="claim"):
        rig.commission()
    assert not [record for record in rogue.relationships.values() if record.state == ACTIVE]
    rig.another_app(owner)
    rig.commission()
    assert online(rig)
