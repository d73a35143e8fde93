"""What tests/hil adds to the plugin's fixtures: a board that has this checkout's core and the portable tests."""

from __future__ import annotations

import pytest

from hilboard import prepare
from packtrust_host.sim.qemu import QemuError, find_qemu, firmware
from pytest_micropython_boards import Board, BoardError


@pytest.fixture(autouse=True)
def _built(request: pytest.FixtureRequest) -> None:
    """The virtual Cortex-M4 needs a firmware that is built, and an emulator."""
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and callspec.params.get("board_name") == "cortex-m4":
        try:
            find_qemu()
            firmware()
        except QemuError as error:
            pytest.skip(str(error))


@pytest.fixture
def prepared(board: Board) -> Board:
    """The board with the core of this checkout on its path, in a new interpreter."""
    try:
        prepare(board)
    except BoardError as error:
        pytest.fail(str(error), pytrace=False)
    return board
