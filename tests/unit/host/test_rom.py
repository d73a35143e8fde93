"""What a cortex-m4 pack keeps in RAM of its program: what is seldom needed is loaded on demand, names cost nothing."""

import ast
import builtins
import dis
import keyword
import os
import re
import subprocess
import sys

import pytest

from packtrust_host.shrink import module_name
from packtrust_host.sim import rom
from packtrust_host.stock_names import BUILTINS, NAMES

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
FUNCTIONS_MAX = 737
CLASSES_MAX = 68
# Strings that MicroPython has to intern for this program, all modules together, paths of files and what is loaded in
# seldom cases included: some 60 more than a pack in use has. Of those it may have 299; from 300 on the table of them
# takes 2.2 KB more, in one piece.
INTERNED_MAX = 353
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


def interned(code):
    """The strings in the table of an .mpy file (MicroPython 1.25, docs/reference/mpyfiles.rst), static ones aside."""
    at = 4

    def number():
        nonlocal at
        value = 0
        while True:
            byte = code[at]
            at += 1
            value = value << 7 | byte & 127
            if byte < 128:
                return value

    count, _ = number(), number()
    for _ in range(count):
        size = number()
        if not size & 1:
            size >>= 1
            yield code[at : at + size].decode()
            at += size + 1


def test_the_program_is_the_same_each_time(program):
    """Or a second deploy would find all of it changed: this process hashes in an order of its own."""
    code = "from packtrust_host.sim import rom; print(rom.small('cortex-m4', 'pack'))"
    again = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert again.stdout.strip() == str(program)


def test_few_strings_are_interned_that_the_interpreter_does_not_have():
    files = rom.rom_files("cortex-m4", "pack")
    ours = {"/rom/" + path for path in files}
    for code in files.values():
        if code[:1] == b"M":
            ours.update(interned(code))
    ours -= set(NAMES) | set(dir(builtins)) | {"can_line", "can_recv", "can_send"}  # these are canboard's
    assert not [name for name in ours if re.fullmatch("_[gm][0-9a-f]{1,3}", name)]
    assert 200 < len(ours) <= INTERNED_MAX, len(ours)


def test_names_at_the_top_and_names_of_objects_share_what_the_interpreter_has(program):
    tree = ast.parse(program["packtrust_node/start.py"])
    top = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    asked = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert len(top & set(NAMES)) > 200
    assert len(top & asked & set(NAMES)) > 100


def test_stock_names_are_no_builtins():
    assert len(set(NAMES)) == len(NAMES) > 400
    assert len(set(BUILTINS)) == len(BUILTINS) and set(BUILTINS) < set(dir(builtins))
    assert not set(NAMES) & (set(dir(builtins)) | set(keyword.kwlist) | {"ptr8", "ptr16", "ptr32", "uint", "viper"})
