"""A module on the virtual Cortex-M4: it boots from its ROM, is heard, keeps its flash, and makes no keys without
entropy."""

import asyncio
import json

import pytest

from packtrust_host.sim import qemu
from packtrust_host.sim.deploy import SetupError, node_configs
from packtrust_host.sim.nodes import QemuNode
from packtrust_host.sim.server import VirtualBusServer


@pytest.fixture(scope="module", autouse=True)
def firmware():
    try:
        return qemu.firmware("cryptolib")
    except qemu.QemuError as error:
        pytest.skip(str(error))


async def life(folder, entropy, scenario, variant="cryptolib"):
    server = VirtualBusServer(seed=1)
    server.add_bus("module", 500_000)
    config = node_configs(1, 1)["module1"]
    node = QemuNode(server, "module1", config, folder / "module1.img", None, variant, {}, entropy)
    try:
        await scenario(node)
    finally:
        await node.kill()
        await server.close()


def test_boots_and_comes_back_after_a_power_cycle(tmp_path):
    async def scenario(node):
        await node.start()
        code = node.claim_code
        assert code is not None and len(bytes.fromhex(code)) == 16
        assert json.loads((await node.command("id")).split(" ", 1)[1])["role"] == "module"
        await node.kill()
        await node.start()
        assert node.claim_code == code
        stats = await node.statistics()
        assert stats["boot_counter"] == 2
        assert stats["board"]["crashes"] == 0
        assert stats["board"]["heap_used"] + stats["board"]["heap_free"] < 98304

    asyncio.run(life(tmp_path, True, scenario))


def test_boots_without_cryptolib(tmp_path):
    async def scenario(node):
        await node.start()
        assert node.claim_code is not None
        assert (await node.statistics())["board"]["crashes"] == 0

    asyncio.run(life(tmp_path, True, scenario, "plain"))


def test_without_entropy_there_are_no_keys(tmp_path):
    async def scenario(node):
        await node.start()
        assert node.claim_code is None
        assert any("entropy source brings nothing" in line for line in node.log)

    asyncio.run(life(tmp_path, False, scenario))


def test_no_firmware_is_told_with_the_next_step(tmp_path, monkeypatch):
    monkeypatch.setattr(qemu, "BUILD", tmp_path)
    with pytest.raises(SetupError, match="make firmware"):
        asyncio.run(life(tmp_path, True, lambda node: asyncio.sleep(0)))
