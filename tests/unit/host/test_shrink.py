"""The program made smaller means what it meant before: run both, compare."""

import contextlib
import importlib
import sys
from pathlib import Path

import pytest

from packtrust_host.shrink import ShrinkError, shrink
from packtrust_host.sim.deploy import SetupError, board_kinds, parse_boards


@contextlib.contextmanager
def imported(small, name, folder, monkeypatch):
    """The module `name` of a program made smaller; all of it is forgotten afterwards."""
    for path, source in small.items():
        (folder / path).write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    try:
        yield importlib.import_module(name)
    finally:
        for path in small:
            sys.modules.pop(path.removesuffix(".py"), None)


FILES = {
    "pkg/__init__.py": "",
    "pkg/numbers.py": 'LIMIT = const(7)\n_STEP = const(2)\nNAME = "limit"\ndef const(value):\n    return value\n',
    "pkg/tools.py": """
from pkg.numbers import NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nowhere import Anything

LIMIT = 3 * 2 + 1


class Box:
    '''A box.'''

    __slots__ = ("_items",)

    def __init__(self, first: "int") -> None:
        self._items = [first]
        self.shown = 5

    def add(self, item):
        self._items.append(item)
        return self

    def unused(self):
        return NAME

    def total(self, start=0):
        return sum([item for item in self._items]) + start + LIMIT


def fail():
    raise ValueError("this is a text that is long enough")
""",
    "pkg/main.py": """
from pkg import tools
from pkg.tools import Box, LIMIT


def run(box=None):
    from pkg.late import double

    box = Box(1)
    box.add(2).add(LIMIT)
    try:
        tools.fail()
    except ValueError as error:
        text = error.args[0]
    return double(box.total(start=1)), text, getattr(box, "shown")
""",
    "pkg/late.py": "from pkg.tools import LIMIT\n\n\ndef double(value):\n    return 2 * value + LIMIT - 7\n",
}


def test_same_meaning_in_fewer_names(tmp_path, monkeypatch):
    files = dict(FILES)
    del files["pkg/numbers.py"]
    files["pkg/tools.py"] = files["pkg/tools.py"].replace("from pkg.numbers import NAME\n", 'NAME = "limit"\n')
    small = shrink(files, ["pkg.main"], "whole", ["run"])
    assert set(small) == {"whole.py", "pt_late.py"}
    text = small["whole.py"]
    for gone in ("unused", "Anything", "A box", "LIMIT", "_items"):
        assert gone not in text
    assert "shown" in text
    with imported(small, "whole", tmp_path, monkeypatch) as whole:
        assert whole.run() == (2 * (1 + 2 + 7 + 1 + 7), "this is a text that is long enough", 5)


def test_a_class_on_its_own_whose_base_is_in_the_whole(tmp_path, monkeypatch):
    """Their attributes differ also when the base is imported under the name it had before."""
    files = {
        "pkg/__init__.py": "",
        "pkg/base.py": "class Base:\n    def __init__(self):\n        self._aa = 1\n        self._bb = 2\n\n"
        "    def _cc(self):\n        return self._aa + self._bb\n",
        "pkg/main.py": "from pkg.base import Base\n\n\ndef run():\n    from pkg.alone import Alone\n\n"
        "    return Alone()._cc(), Alone().total(), Base()._cc()\n",
        "pkg/alone.py": "from pkg.base import Base\n\n\nclass Alone(Base):\n    def __init__(self):\n"
        "        super().__init__()\n        self._dd = 10\n        self._ee = 20\n        self._ff = 30\n\n"
        "    def _gg(self):\n        return self._dd + self._ee + self._ff\n\n"
        "    def total(self):\n        return self._gg()\n",
    }
    small = shrink(files, ["pkg.main"], "family", ["run"])
    with imported(small, "family", tmp_path, monkeypatch) as family:
        assert family.run() == (3, 60, 3)


def test_relatives_are_known_though_a_module_on_its_own_uses_their_short_names(tmp_path, monkeypatch):
    """Names of classes begin anew in a module by itself: what inherits in the whole must not be looked for there."""
    files = {
        "pkg/__init__.py": "",
        "pkg/base.py": """
class Port:
    def __init__(self):
        self._since_ms = None

    def wait(self):
        if self._since_ms is not None:
            self._since_ms(1)
        return 1
""",
        "pkg/driver.py": """
from pkg.base import Port


class Driver(Port):
    def receive(self):
        return 2
""",
        "pkg/late.py": """
class A:
    def one(self):
        return 1


class B:
    def two(self):
        return 2


class C:
    def three(self):
        return 3


def sum_of():
    return A().one() + B().two() + C().three()
""",
        "pkg/main.py": """
from pkg.driver import Driver


def run():
    from pkg.late import sum_of

    driver = Driver()
    return driver.wait() + driver.receive() + sum_of()
""",
    }
    small = shrink(files, ["pkg.main"], "relatives", ["run"])
    with imported(small, "relatives", tmp_path, monkeypatch) as relatives:
        assert relatives.run() == 9


def test_two_modules_may_give_what_a_third_one_imports_the_same_short_name(tmp_path, monkeypatch):
    files = {
        "pkg/__init__.py": "",
        "pkg/base.py": """
def add(a, b):
    return a + b
""",
        "pkg/late.py": """
def all_of(items):
    return [item * 2 for item in items]
""",
        "pkg/user.py": """
from pkg.base import add
from pkg.late import all_of


def total(items):
    found = 0
    for item in all_of(items):
        found = add(found, item)
    return found
""",
        "pkg/main.py": """
from pkg.base import add


def run():
    from pkg.user import total

    return add(total([1, 2]), 1)
""",
    }
    small = shrink(files, ["pkg.main"], "namesakes", ["run"])
    with imported(small, "namesakes", tmp_path, monkeypatch) as namesakes:
        assert namesakes.run() == 7


def test_what_is_said_is_kept_in_the_order_of_the_source():
    """Or a program differs from one time to the next, and a second deploy finds all of it changed."""
    said = ["word number %03d" % number for number in range(300)]
    lines = "".join("            %r,\n" % text for text in said)
    text = (
        "class Node:\n    def stats(self):\n        return [\n%s        ]\n\n\ndef run():\n    return Node().stats()\n"
    )
    files = {"pkg/__init__.py": "", "pkg/main.py": text % lines}
    small = shrink(files, ["pkg.main"], "orderly", ["run"])
    assert repr("".join(said)) in small["orderly.py"]


def test_what_is_no_python_is_named():
    with pytest.raises(ShrinkError, match=r"broken\.py"):
        shrink({"broken.py": "def"}, ["broken"])


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("step = step", 7),
        ("step = step\n    stride = step", 7),
        ("run = lambda self, by=step: by(self)\n    step = 3\n    walk = step", 3),
        ("@twice\n    def step(self):\n        return step(self)", 14),
        ("def step(self):\n        global steps\n        steps += 1\n        return step(self) + steps", 8),
    ],
)
def test_a_class_may_read_a_name_of_the_module_before_it_binds_it(body, found):
    text = (
        "steps = 0\n\n\ndef step(walker):\n    return 7\n\n\n"
        "def twice(made):\n    return lambda self: 2 * made(self)\n\n\n"
        "class Walker:\n    %s\n\n\n"
        "def run():\n    there = Walker().step\n    return there if isinstance(there, int) else there()\n" % body
    )
    made = shrink({"walk.py": text}, ["walk"], "whole_walk", ["run"])
    space = {}
    exec(made["whole_walk.py"], space)
    assert space["run"]() == found
    assert "Walker" not in made["whole_walk.py"]  # else nothing had another name


def test_kinds_of_boards():
    names = ["pack", "module1", "module2", "module3"]
    wanted = parse_boards(["pack=cortex-m4", "module=unix,cortex-m4,unix"])
    assert list(board_kinds(names, wanted).values()) == ["cortex-m4", "unix", "cortex-m4", "unix"]
    kinds = board_kinds(names, {"module2": "unix", "all": "cortex-m4/plain"})
    assert kinds["module2"] == "unix"
    assert kinds["pack"] == "cortex-m4/plain"
    assert set(board_kinds(names, {}).values()) == {"unix"}
    for bad in ({"module": "toaster"}, {"module9": "unix"}, {"module": ["unix"] * 4}):
        with pytest.raises(SetupError):
            board_kinds(names, bad)
    with pytest.raises(SetupError, match="WHO=BOARD"):
        parse_boards(["cortex-m4"])


MESSAGES = {
    "app/__init__.py": "",
    "board.py": "def number():\n    return 4\n",
    "app/late.py": """
from app import other
from app.other import Other, twice as double
from packtrust._compat import const

_STEP = const(3)
_kept = [1]


def answer(number):
    _kept.append(number)
    return other.twice(number) + double(_STEP) + Other(number).value() + len(_kept)
""",
    "app/other.py": """
def twice(number):
    return 2 * number


class Other:
    def __init__(self, number):
        self._number = number

    def value(self):
        return self._number * 100
""",
    "app/main.py": """
from packtrust.messages.compact import decode, encode, field, fits, place, field_at
import board

_NAMES = {1: "STATUS_1", 2: "HARDWARE"}


class Node:
    def figures(self):
        yield "a figure", 1
        yield "fig", [("it", 2)]


def run():
    data = encode("STATUS_1", voltage_mv=345000, state=2, soc_permille=800)
    where = place("STATUS_1", "state")
    number = board.number() if hasattr(board, "number") else 0
    nothing = board.missing() if hasattr(board, "missing") else "none"
    try:
        from app.absent import thing
    except ImportError:
        thing = "absent"
    from app.late import answer

    return (
        bytes(data),
        decode("STATUS_1", data)["voltage_mv"],
        decode(_NAMES[2], encode("HARDWARE", max_charge_ma=10000))["max_charge_ma"],
        field("STATUS_1", "soc_permille", bytes(3) + bytes(data), 3),
        field_at(where, data),
        fits("STATUS_1", data),
        fits(_NAMES[2], bytes(3)),
        list(Node().figures()),
        number,
        nothing,
        thing,
        answer(7),
    )
""",
}
CORE = ("_compat", "messages/__init__", "messages/compact", "messages/rows")


def message_program():
    root = Path(__file__).resolve().parents[3] / "shared" / "packtrust"
    core = {"packtrust/%s.py" % name: (root / (name + ".py")).read_text() for name in CORE}
    core["packtrust/messages/__init__.py"] = core["packtrust/__init__.py"] = ""
    return {**MESSAGES, **core}


def test_messages_are_numbers_and_texts_are_one(tmp_path, monkeypatch):
    program = message_program()
    small = shrink(program, ["app.main"], "whole_messages", ["run"])
    text = small["whole_messages.py"]
    for name in ('"STATUS_1"', "voltage_mv=", '"soc_permille"', '"a figure"', '"fig"', "hasattr", "app.absent", "_14"):
        assert name not in text, name
    assert {"pt_late.py", "pt_other.py"} < set(small)
    # What modules that stay by themselves import from each other has one short name.
    assert "twice" not in small["pt_late.py"] + small["pt_other.py"] and "answer" not in small["pt_late.py"]
    monkeypatch.syspath_prepend(str(tmp_path))
    before = run_files(tmp_path / "before", program, monkeypatch, "app.main")
    after = run_files(tmp_path / "after", small, monkeypatch, "whole_messages")
    assert after == before
    assert before[1:5] == (345000, 10000, 800, 2) and before[8:] == (4, "none", "absent", 14 + 6 + 700 + 2)


def run_files(folder, files, monkeypatch, name):
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    mine = {path.split("/")[0].removesuffix(".py") for path in files}
    saved = {key: sys.modules.pop(key) for key in list(sys.modules) if key.split(".")[0] in mine}
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name).run()
    finally:
        sys.path.remove(str(folder))
        for key in list(sys.modules):
            if key.split(".")[0] in mine:
                del sys.modules[key]
        sys.modules.update(saved)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ('encode("NO_SUCH")', "no message NO_SUCH"),
        ('encode("STATUS_1", no_field=1)', "no field no_field"),
        ('field("STATUS_1", "no_field", b"")', "no such field"),
        ('place("STATUS_1", "no_field")', "no such field"),
    ],
)
def test_a_message_that_is_not_in_the_table_is_named(call, said):
    program = message_program()
    imports = "from packtrust.messages.compact import encode, field, place\n\n\n"
    program["app/main.py"] = imports + "def run():\n    return %s\n" % call
    with pytest.raises(ShrinkError, match=said):
        shrink(program, ["app.main"], "whole_messages", ["run"])
