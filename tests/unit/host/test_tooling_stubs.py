"""tools/check_stubs.py: what counts as an error against a port's stubs. The check itself is `make stubs`."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_stubs", ROOT / "tools/check_stubs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_stubs"] = module
    spec.loader.exec_module(module)
    return module


def test_every_real_board_is_checked(tool: ModuleType) -> None:
    checked = {board for port in tool.PORTS.values() for board in port.boards}
    # The virtual ones have interpreters of their own, which run their board modules in the tests.
    assert checked == {path.parent.name for path in (ROOT / "boards").glob("*/board.toml")} - {"unix", "cortex-m4"}


def test_every_package_is_pinned_with_hashes(tool: ModuleType) -> None:
    lock = tool.LOCK.read_text()
    for port in tool.PORTS.values():
        for package in port.packages:
            assert "--hash=sha256:" in tool.requirement(lock, package)
    with pytest.raises(tool.StubsError, match="make lock"):
        tool.requirement(lock, "micropython-stubs-of-nobody")


def test_each_driver_and_the_core_are_checked_somewhere(tool: ModuleType) -> None:
    checked = {path for port in tool.PORTS.values() for path in tool.own_files(port)}
    for path in [*(ROOT / "firmware/packtrust_node").glob("*.py"), *(ROOT / "shared/packtrust").rglob("*.py")]:
        kernel = tool.KERNEL.search(path.read_text())
        never = path.name in ("host.py", "_typing.py", "gcm_cryptolib.py")
        assert (path in checked) != bool(kernel or never), path


def test_imports_that_may_fail(tool: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    path.write_text(
        "import select\n"
        "TYPE_CHECKING = False\n"
        "if TYPE_CHECKING:\n"
        "    from typing import Any\n"
        "try:\n"
        "    from time import ticks_ms\n"
        "except ImportError:\n"
        "    from time import monotonic_ns\n"
        "try:\n"
        "    import hmac\n"
        "except ValueError:\n"
        "    pass\n"
    )
    assert tool.may_fail(path) == {4, 6, 8}


def test_modules_circuitpython_does_not_have_are_found(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "some.py"
    path.write_text(
        "import select\nfrom json import load\nimport canio\nfrom packtrust.frame import Frame\nimport hmac\n"
    )
    (tmp_path / "stubs/canio").mkdir(parents=True)
    monkeypatch.setattr(tool, "CHECKOUT", tmp_path)
    found = list(tool.absent_modules([path], tmp_path / "stubs"))
    assert found == [
        "some.py:1: CircuitPython has no module select",
        "some.py:5: CircuitPython has no module hmac",
    ]


@pytest.mark.parametrize(
    ("path", "text", "code", "wanted"),
    [
        ("shared/packtrust/frame.py", "Item has no attribute x", "union-attr", True),
        ("boards/pybv11/packtrust_board.py", "Incompatible types", "assignment", True),
        ("firmware/packtrust_node/can_pyb.py", "Incompatible types", "assignment", True),
        ("firmware/packtrust_node/pack.py", "Incompatible types", "assignment", False),
        ("firmware/packtrust_node/pack.py", 'Module "time" has no attribute "x"', "attr-defined", True),
        ("firmware/packtrust_node/pack.py", '"None" has no attribute "x"', "attr-defined", False),
        ("firmware/packtrust_node/pack.py", "Cannot find implementation", "import-not-found", True),
        ("firmware/packtrust_node/pack.py", "Unexpected keyword argument", "call-arg", True),
    ],
)
def test_what_counts(tool: ModuleType, path: str, text: str, code: str, wanted: bool) -> None:
    assert tool.counts(path, 7, text, code, set()) is wanted
    assert tool.counts(path, 7, text, code, {7}) is False
