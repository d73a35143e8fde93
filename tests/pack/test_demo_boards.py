"""The main job with nodes on the virtual Cortex-M4: mixed with unix nodes, and nothing else.

What is measured in time is not asked of an emulator that shares two processors with its test (line 7); the rest is. A
pack that is one may not be kept from its processor all the same: a record it sends for more than 0.2 s counts as cut
off (line 5).
"""

import json
from pathlib import Path

import pytest

from packtrust_host.cli.demo import execute
from packtrust_host.demo.run import Options
from packtrust_host.sim.launcher import PackProcess
from packtrust_host.sim.qemu import QemuError, find_qemu, firmware

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

TIMED = 7
MODULES_OF_A_BOARD = 31


@pytest.fixture(autouse=True)
def _built():
    """Skips where the board is not built, and fails in CI."""
    try:
        find_qemu()
        firmware()
    except QemuError as error:
        pytest.skip(str(error))


def run(tmp_path, boards, modules, **options):
    """Run a demo; its report and the lines that do not hold, without the timed one."""
    output = tmp_path / "demo"
    execute(Options(output=output, boards=boards, modules=modules, duration_s=6.0, **options), as_json=True)
    report = json.loads((output / "report.json").read_text())
    return report, {line["number"]: line["problems"] for line in report["criteria"] if not line["ok"]}


def test_a_unix_pack_with_modules_of_both_kinds(tmp_path):
    report, red = run(tmp_path, {"pack": ["unix"], "module": ["unix", "cortex-m4", "unix"]}, 3)
    assert not {number: said for number, said in red.items() if number != TIMED}, red
    assert set(report["heap"]) == {"module2"}
    assert report["heap"]["module2"]["least_free"] >= 12 * 1024
    assert set(report["on_target"]) == {"pack 0", "module 1", "module 2", "module 3"}


@pytest.mark.alone
def test_a_pack_all_on_boards(tmp_path):
    report, red = run(tmp_path, {"all": "cortex-m4"}, 2)
    assert not {number: said for number, said in red.items() if number != TIMED}, red
    assert set(report["heap"]) == {"pack", "module1", "module2"}
    assert report["heap"]["pack"]["least_free"] >= 12 * 1024
    assert not report["refused"]["pack"].get("internal"), report["refused"]


@pytest.mark.alone
@pytest.mark.timeout(900)
def test_a_pack_on_a_board_with_as_many_modules_as_there_may_be(tmp_path):
    """As many as a pack may have (docs/virtual-pack.md). At rest 12 KB are left, and enough while keys are given."""
    report, red = run(tmp_path, {"pack": ["cortex-m4"]}, MODULES_OF_A_BOARD)
    assert not {number: said for number, said in red.items() if number != TIMED}, red
    assert report["heap"]["pack"]["free"] >= 12 * 1024
    assert report["heap"]["pack"]["least_free"] >= 7 * 1024
    assert not report["refused"]["pack"].get("internal"), report["refused"]


def test_a_board_on_can_fd(tmp_path):
    """What a Cortex-M4 module and its pack seal for each other is one CAN FD frame a record."""
    report, red = run(tmp_path, {"module": ["cortex-m4", "unix"]}, 2, fd=True)
    assert not {number: said for number, said in red.items() if number != TIMED}, red
    lines = [line.split()[2] for line in Path(report["logs"]["module"]).read_text().splitlines()]
    sealed = [text for text in lines if len(text.partition("#")[0]) == 8 and int(text[:8], 16) & 0x20000]
    of_the_board = [text for text in sealed if int(text[:8], 16) & 0xFF == 1]
    assert len(of_the_board) > 200 and all("##1" in text for text in of_the_board)


def test_a_pack_on_the_command_line_starts_a_board():
    with PackProcess(modules=1, boards={"module1": ["cortex-m4"]}) as pack:
        figures = pack.node_statistics()
        assert figures["module1"]["board"]["heap_used"] + figures["module1"]["board"]["heap_free"] < 98304
        pack.restart("module1")
        assert pack.node_statistics()["module1"]["boot_counter"] == 2
