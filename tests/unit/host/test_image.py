"""Modules to .mpy, ROM file systems: what is made is what stock MicroPython loads and mounts."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packtrust_host.image import ImageError, compile_mpy, mpy_version, romfs_image
from packtrust_host.sim.deploy import find_micropython

VIPER = "@micropython.viper\ndef add(a: int, b: int) -> int:\n    return a + b\n"


def _run(script: str, folder: Path) -> str:
    """On MicroPython's unix port, in `folder`."""
    done = subprocess.run(
        [find_micropython(), "-c", script], cwd=folder, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("arch", ["armv6m", "armv7emsp", "xtensawin", "rv32imc", "x64"])
def test_native_code_is_of_the_core_asked_for(arch: str) -> None:
    assert mpy_version(compile_mpy(VIPER, arch, "add.py")) == (6, 3, arch)


def test_bytecode_alone_is_of_no_core() -> None:
    assert mpy_version(compile_mpy(b"x = 1\n"))[2] == ""


def test_what_does_not_compile_is_named() -> None:
    with pytest.raises(ImageError, match=r"wrong\.py does not compile: SyntaxError"):
        compile_mpy("def f(:\n", name="wrong.py")
    with pytest.raises(ImageError, match="no architecture 'armv9'"):
        compile_mpy("x = 1\n", "armv9")
    # Viper without a core to compile for.
    with pytest.raises(ImageError, match="does not compile"):
        compile_mpy(VIPER)


def test_what_is_no_mpy_is_refused() -> None:
    with pytest.raises(ImageError, match=r"no \.mpy"):
        mpy_version(b"print")


def test_options_reach_the_compiler() -> None:
    source = "def f(x):\n    assert x, 'never'\n    return x\n"
    plain = compile_mpy(source, name="f.py")
    assert b"never" in plain
    assert b"f.py" in plain
    assert b"never" not in compile_mpy(source, name="f.py", opt=1)


def test_a_stock_micropython_mounts_and_runs_it(tmp_path: Path) -> None:
    files = {
        "fast.mpy": compile_mpy(VIPER, "x64", "fast.py"),
        "lib/package/__init__.py": b"from .inner import VALUE\n",
        "lib/package/inner.mpy": compile_mpy("VALUE = 'found'\n"),
        "data/large.bin": bytes(range(256)) * 40,
        "empty": b"",
    }
    image = romfs_image(files)
    assert len(image) % 2 == 0
    (tmp_path / "image").write_bytes(image)
    script = (
        "import os, sys, vfs\n"
        "vfs.mount(vfs.VfsRom(open('image', 'rb').read()), '/rom')\n"
        "sys.path[:] = ['/rom', '/rom/lib']\n"
        "import fast, package\n"
        "print(fast.add(40, 2), package.VALUE, sorted(os.listdir('/rom')), os.listdir('/rom/lib/package'))\n"
        "print(open('/rom/data/large.bin', 'rb').read() == bytes(range(256)) * 40, os.stat('/rom/empty')[6])\n"
    )
    assert _run(script, tmp_path).splitlines() == [
        "42 found ['data', 'empty', 'fast.mpy', 'lib'] ['__init__.py', 'inner.mpy']",
        "True 0",
    ]


@pytest.mark.parametrize(
    "files", [{"/abs": b""}, {"../up": b""}, {"": b""}, {"a//b": b""}, {"nämen": b""}, {"a": b"", "a/b": b""}]
)
def test_paths_that_cannot_be(files: dict[str, bytes]) -> None:
    with pytest.raises(ImageError):
        romfs_image(files)


_NAME = st.text("abcdefgh_.0", min_size=1, max_size=12).filter(lambda name: name.strip("."))


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.lists(_NAME, min_size=1, max_size=3).map("/".join), st.binary(max_size=300), max_size=8))
def test_images_do_not_depend_on_order(files: dict[str, bytes]) -> None:
    try:
        image = romfs_image(files)
    except ImageError as error:
        assert "a file and a folder" in str(error)  # noqa: PT017  (the other outcome is tested below)
        return
    assert romfs_image(dict(reversed(files.items()))) == image
    assert image.startswith(b"\xd2\xcd\x31")
    assert all(content in image for content in files.values())


def test_it_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    compile_mpy("x = 1\n")
    assert os.listdir(tmp_path) == []
