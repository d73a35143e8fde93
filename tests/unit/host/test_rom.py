"""What a cortex-m4 pack keeps in RAM of its program: what is seldom needed is loaded on demand, names cost nothing."""

import ast
import dis
import re

import pytest

from packtrust_host.shrink import module_name
from packtrust_host.sim import rom
from packtrust_host.stock_names import NAMES

# Modules that nobody may import at the top of one that is always there: packtrust_node.ondemand.
SELDOM = (
    "audit_log",
    "endpoint",
    "hpke",
    "inventory",
    "isotp",
    "mailbox",
    "package",
    "pairing",
    "provision",
    "staging",
    "status",
    "taking",
    "testservice",
)
# Of the part that is always there; a function takes 24 bytes and its name, a class 150. What is called for each frame
# is in pieces small enough to take no heap for the call (tests/on_target/test_call_frames.py).
FUNCTIONS_MAX = 719
CLASSES_MAX = 68
# Short names that MicroPython has not interned anyway, 6 bytes each: of all there are some 430 then, and from 621 on it
# takes 3.9 KB more, in one piece.
SHORT_NAMES_MAX = 120
# Of the module that is always there: MicroPython's table of them has 389 places, and looks long when few are empty; the
# next larger one takes 1 KB more.
NAMES_MAX = 386


@pytest.fixture(scope="module")
def program():
    return rom.small("cortex-m4", "pack")


def test_what_is_seldom_needed_is_no_part_of_what_is_always_there(program):
    apart = {module_name(path) for path in program}
    assert apart >= {"pt_" + name for name in SELDOM}


def test_what_is_always_there_stays_small(program):
    tree = ast.parse(program["packtrust_node/start.py"])
    functions = sum(isinstance(node, ast.FunctionDef) for node in ast.walk(tree))
    classes = sum(isinstance(node, ast.ClassDef) for node in ast.walk(tree))
    assert functions <= FUNCTIONS_MAX, functions
    assert classes <= CLASSES_MAX, classes


def test_names_of_what_is_always_there_have_places_left(program):
    path = "packtrust_node/start.py"
    code = compile(program[path].replace("\0", ""), path, "exec")
    stored = {word.argval for word in dis.get_instructions(code) if word.opname == "STORE_NAME"}
    assert {"len", "isinstance", "memoryview"} <= stored  # found at once, and not after all others
    assert len(stored | {"__name__", "__file__"}) <= NAMES_MAX, len(stored)


def test_short_names_are_mostly_ones_the_interpreter_has(program):
    words = set()
    for text in program.values():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Name):
                words.add(node.id)
            elif isinstance(node, ast.Attribute):
                words.add(node.attr)
    assert len([word for word in words if re.fullmatch("_[0-9a-f]{1,3}", word)]) <= SHORT_NAMES_MAX
    assert len(words & set(NAMES)) > 250


def test_stock_names_are_no_builtins():
    import builtins
    import keyword

    assert len(set(NAMES)) == len(NAMES) > 400
    assert not set(NAMES) & (set(dir(builtins)) | set(keyword.kwlist) | {"ptr8", "ptr16", "ptr32", "uint", "viper"})
