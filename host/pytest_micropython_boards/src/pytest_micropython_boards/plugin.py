"""The pytest plugin: options, and the fixtures board, console, can_bus and power_cycle."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from .board import Board
from .console import Console
from .description import Description, from_option, load
from .errors import BoardError

T = TypeVar("T")

BOARDS_FILE = "boards.toml"
NONE_CHOSEN = "(no board)"
NOT_FOR_IT = "(another board)"
_CHOSEN = pytest.StashKey[dict[str, Description]]()
_USED = pytest.StashKey[list[Board]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """--board, --can, --boards-file and their ini options."""
    group = parser.getgroup("micropython boards")
    group.addoption(
        "--board",
        action="append",
        default=[],
        metavar="NAME",
        help="run board tests on this board of the boards file, or on serial:PORT[@BAUDRATE]; may be repeated",
    )
    group.addoption(
        "--can",
        metavar="URL",
        default=None,
        help="python-can URL of the board's bus, e.g. slcan:/dev/ttyACM1?bitrate=500000",
    )
    group.addoption(
        "--boards-file", metavar="FILE", default=None, help="TOML file that describes the boards (boards.toml)"
    )
    parser.addini("boards_file", "TOML file that describes the boards, from the root folder", default=BOARDS_FILE)


def pytest_configure(config: pytest.Config) -> None:
    """Find out which boards are chosen."""
    config.addinivalue_line(
        "markers",
        "only_boards(*names, arch=None): run only on these boards, or those of this architecture (a text or a tuple)",
    )
    given = config.getoption("--boards-file")
    path = Path(given) if given else config.rootpath / str(config.getini("boards_file"))
    asked: list[str] = config.getoption("--board")
    try:
        boards: dict[str, Description] = {}
        default: list[str] = []
        if path.exists() or given:
            boards, default = load(path)
        chosen = [from_option(text, boards) for text in asked or default]
        if config.getoption("--can") and len(chosen) > 1:
            raise BoardError("--can is for one board: choose it with --board")
    except BoardError as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[_CHOSEN] = {item.name: item for item in chosen}


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Which boards the tests run on."""
    chosen = config.stash[_CHOSEN]
    return ["boards: " + ", ".join(chosen)] if chosen else []


def _fits(description: Description, marker: pytest.Mark | None) -> bool:
    if marker is None:
        return True
    arch = marker.kwargs.get("arch", ())
    arches = (arch,) if isinstance(arch, str) else tuple(arch or ())
    return description.name in marker.args or description.arch in arches


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses a board once for each chosen one."""
    if "board_name" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("only_boards")
    chosen = metafunc.config.stash[_CHOSEN]
    names = [name for name, item in chosen.items() if _fits(item, marker)]
    if not names:
        names = [NOT_FOR_IT if chosen else NONE_CHOSEN]
    metafunc.parametrize("board_name", names, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what is for none of the chosen boards."""
    out = [item for item in items if _param(item) == NOT_FOR_IT]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if _param(item) != NOT_FOR_IT]


def _param(item: pytest.Item) -> object:
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("board_name")


class Boards:
    """The boards of a session, started when first asked for."""

    def __init__(self, config: pytest.Config, folder: Callable[[str], Path]) -> None:
        self._chosen = config.stash[_CHOSEN]
        self._can: str | None = config.getoption("--can")
        self._folder = folder
        self._boards: dict[str, Board] = {}
        self._broken: dict[str, BoardError] = {}

    def get(self, name: str) -> Board:
        """A board that runs. Raises BoardError; one that did not start is not tried again for every test."""
        if name in self._broken:
            raise self._broken[name]
        board = self._boards.get(name)
        if board is None:
            if name not in self._chosen:
                raise BoardError(
                    "no board is chosen: run pytest --board NAME with a name from the boards file, or --board "
                    "serial:/dev/ttyACM0; a default can be set in boards.toml"
                )
            given = {} if self._can is None else {"can": self._can}
            board = Board(self._chosen[name], self._folder(name), given)
            try:
                board.open()
            except BoardError as error:
                self._broken[name] = error
                board.close()
                raise
            self._boards[name] = board
        return board

    def close(self) -> None:
        """End all of them."""
        for board in self._boards.values():
            board.close()
        self._boards = {}


def _or_fail(action: Callable[[], T]) -> T:
    """What `action` gives; a BoardError fails the test with its text alone."""
    try:
        return action()
    except BoardError as error:
        text = str(error)
    pytest.fail(text, pytrace=False)


@pytest.fixture(scope="session")
def _boards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boards]:
    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in folders:
            plain = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
            folders[name] = tmp_path_factory.mktemp("board-" + plain)
        return folders[name]

    boards = Boards(request.config, folder)
    yield boards
    boards.close()


@pytest.fixture(scope="session")
def board_name() -> str:
    """The name of the board the test runs on; parametrized with the chosen boards."""
    return NONE_CHOSEN


@pytest.fixture
def powered_board(request: pytest.FixtureRequest, _boards: Boards, board_name: str) -> Board:
    """The board as it is: its program runs, nothing has interrupted it since the last test."""
    board = _or_fail(lambda: _boards.get(board_name))
    request.node.stash.setdefault(_USED, []).append(board)
    return board


@pytest.fixture
def board(powered_board: Board) -> Board:
    """The board with the raw REPL of a new interpreter: boot.py has run, its program has not."""
    _or_fail(powered_board.fresh)
    return powered_board


@pytest.fixture
def console(powered_board: Board) -> Console:
    """The board's console, to read what its program prints and to type: write, read_until, read_line."""

    def ready() -> Console:
        if not powered_board.console.is_open:
            powered_board.console.open()
        powered_board.repl.leave()
        return powered_board.console

    return _or_fail(ready)


@pytest.fixture
def can_bus(powered_board: Board) -> Iterator[Any]:
    """A python-can bus on the board's CAN bus; one with several is asked by `board.open_can(name)`."""
    bus = _or_fail(powered_board.open_can)
    from can import CanError

    yield bus
    # A virtual board takes its adapter along when its power is cut.
    with contextlib.suppress(OSError, CanError):
        bus.shutdown()


@pytest.fixture
def power_cycle(powered_board: Board) -> Callable[[], Board]:
    """Cuts the board's power and gives it again. Skips on a board that has no way to do it."""
    if not powered_board.description.can_be_power_cycled:
        pytest.skip("board %s cannot be power-cycled: give it power_cycle in the boards file" % powered_board.name)

    def cycle() -> Board:
        powered_board.power_cycle()
        return powered_board

    return cycle


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the board has said, with a test that failed."""
    report = yield
    if report.failed:
        boards: list[Board] = item.stash.setdefault(_USED, [])
        for used in dict.fromkeys(boards):
            said = "".join(letter for letter in used.console.recent() if letter.isprintable() or letter == "\n")
            if said:
                report.sections.append(("console of board %s" % used.name, said[-4000:]))
    return report
