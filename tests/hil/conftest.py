"""What tests/hil adds to the plugin's fixtures: a board that has this checkout's core and the portable tests."""

from __future__ import annotations

import ast
import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from content import MANIFEST, content
from subset import CHOSEN

from packtrust_host.image import ARCHITECTURES
from packtrust_host.sim.qemu import QemuError, find_qemu, firmware
from pytest_micropython_boards import Board, BoardError

ON_BOARD = "hil"
QUIET_S = 60.0  # a long computation says nothing

_FIND = """
import sys
_found = ''
for _place in ('.', '/', '/rom', '/flash', %r):
    try:
        with open(_place.rstrip('/') + '/%s') as _file:
            if _file.read() == %r:
                _found = _place
    except OSError:
        pass
print(repr(_found))
"""


def architecture(board: Board) -> str:
    """Of native code, as mpy-cross names it; the board itself tells."""
    return ARCHITECTURES[board.eval("__import__('sys').implementation._mpy >> 10 & 15")]


def prepare(board: Board, tests: tuple[str, ...] = CHOSEN) -> str:
    """Give the board what the tests need, unless it has it already; the folder it is in.

    The virtual boards of boards.toml start with it. Any other one gets .mpy files into the folder hil/ of its file
    system, some 250 KB, the first time and when something has changed.
    """
    files = content(architecture(board), tests)
    manifest = files[MANIFEST].decode()
    place = str(ast.literal_eval(board.exec(_FIND % (ON_BOARD, MANIFEST, manifest))))
    if not place:
        for name, data in files.items():
            if name != MANIFEST:
                board.put(data, "%s/%s" % (ON_BOARD, name))
        board.put(files[MANIFEST], "%s/%s" % (ON_BOARD, MANIFEST))
        place = ON_BOARD
    # A deployed board has the core in its ROM as well: this one first.
    board.exec("import sys\nsys.path[:0] = [%r, %r]" % (place, place.rstrip("/") + "/lib"))
    return place


@pytest.fixture(autouse=True)
def _built(request: pytest.FixtureRequest) -> None:
    """The virtual Cortex-M4 needs a firmware that is built, and an emulator."""
    if request.node.callspec.params.get("board_name") == "cortex-m4" if hasattr(request.node, "callspec") else False:
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


def results(board: Board, module: str, names: list[str]) -> dict[str, dict[str, object]]:
    """Run tests of a module on the board; the runner's result lines by test name.

    The interpreter is new before each file; `runner` is the one of tests/on_target.
    """
    code = (
        "import gc, runner\n"
        "try:\n"
        "    _module = __import__(%r)\n"
        "except Exception as _error:\n"
        "    runner.report(%r, 'import', runner.ticks_ms(), _error)\n"
        "    _module = None\n"
        "for _name in %r if _module else ():\n"
        "    gc.collect()\n"
        "    _start = runner.ticks_ms()\n"
        "    _raised = None\n"
        "    try:\n"
        "        getattr(_module, _name)()\n"
        "    except Exception as _error:\n"
        "        _raised = _error\n"
        "    runner.report(%r, _name, _start, _raised)\n"
    ) % (module, module, names, module)
    found = {}
    running = board.start(code, timeout=float(os.environ.get("HIL_QUIET_S", QUIET_S)))
    for line in running.lines():
        if line.startswith("{"):
            result = json.loads(line)
            found[result["name"]] = result
    running.finish()
    return found
