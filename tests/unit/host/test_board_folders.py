"""The folders of real boards: what board.toml says, what packtrust_board gives, and that nobody claims too much."""

import ast
import re
from pathlib import Path

import pytest

from packtrust_host.deploy.profile import board_names, load_profile

ROOT = Path(__file__).resolve().parents[3]
REAL = [name for name in board_names() if not load_profile(name).virtual]
# boards/README.md
INTERFACE = {"config", "can_port", "urandom", "state_directory", "console_in", "console_write", "statistics"}


def names_of(tree: ast.Module) -> set[str]:
    """What a module defines at its top."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def test_there_are_the_boards_people_own() -> None:
    assert set(REAL) == {
        "esp32-mcp2515",
        "esp32s3-mcp2518fd",
        "pybv11",
        "nucleo-wb55-mcp2518fd",
        "nucleo-g474",
        "feather-m4-can",
        "esp32s3-circuitpython",
    }


@pytest.mark.parametrize("name", REAL)
def test_board_folder(name: str) -> None:
    profile = load_profile(name)
    folder = ROOT / "boards" / name
    assert profile.name == name and profile.usb
    assert "Not run on hardware" in (folder / "board.toml").read_text()
    readme = (folder / "README.md").read_text()
    assert readme.split("\n\n")[1].startswith("**Not run on hardware")
    for told in ("120 ohms", "## Wiring", "RAM", "urandom"):
        assert told in readme, told
    assert name in (ROOT / "boards/README.md").read_text()
    for path in profile.files:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", REAL)
def test_board_module_has_the_interface_and_its_own_drivers_only(name: str) -> None:
    profile = load_profile(name)
    assert profile.board_module is not None
    source = profile.board_module.read_text()
    assert names_of(ast.parse(source)) >= INTERFACE
    drivers = set(re.findall(r"packtrust_node\.can_(\w+)", source)) - {"spi"}
    assert drivers == set(profile.can)
    for driver in drivers:
        assert (ROOT / "firmware/packtrust_node" / ("can_%s.py" % driver)).is_file()
