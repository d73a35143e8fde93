"""The program made smaller means what it meant before: run both, compare."""

import sys

import pytest

from packtrust_host.shrink import ShrinkError, shrink
from packtrust_host.sim.deploy import SetupError, board_kinds, parse_boards

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
    for path, source in small.items():
        (tmp_path / path).write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    import whole

    try:
        assert whole.run() == (2 * (1 + 2 + 7 + 1 + 7), "this is a text that is long enough", 5)
    finally:
        for name in ("whole", "pt_late"):
            sys.modules.pop(name, None)


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
    for path, source in small.items():
        (tmp_path / path).write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    import family

    try:
        assert family.run() == (3, 60, 3)
    finally:
        for name in ("family", "pt_alone"):
            sys.modules.pop(name, None)


def test_what_is_no_python_is_named():
    with pytest.raises(ShrinkError, match=r"broken\.py"):
        shrink({"broken.py": "def"}, ["broken"])


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
