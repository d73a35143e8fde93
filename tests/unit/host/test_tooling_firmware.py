"""Building the cortex-m4 firmware: when it is built again, what a machine without means is told, which sources."""

import importlib.util
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from packtrust_host.sim import qemu

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def maker() -> Iterator[ModuleType]:
    before = list(sys.path)
    file = CHECKOUT / "boards/cortex-m4/get_firmware.py"
    spec = importlib.util.spec_from_file_location("get_firmware", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before


@pytest.fixture
def packages(maker: ModuleType) -> ModuleType:
    module = maker.debian_packages
    assert isinstance(module, ModuleType)
    return module


def _made(maker: ModuleType, build: Path, key: str) -> None:
    for path in maker.outputs(build):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (build / "cortex-m4" / "stamp.json").write_text(json.dumps({"inputs": key}))


def test_outputs_are_what_the_host_looks_for(maker: ModuleType) -> None:
    made = set(maker.outputs(CHECKOUT / "build"))
    assert {qemu.BUILD / (name + ".elf") for name in qemu.VARIANTS} < made
    assert qemu.BUILD / "bin" / "qemu-system-arm" in made


def test_done_once_while_nothing_changes(maker: ModuleType, tmp_path: Path) -> None:
    key = maker.inputs_key()
    assert not maker.up_to_date(tmp_path, key)
    _made(maker, tmp_path, key)
    assert maker.up_to_date(tmp_path, key)
    assert not maker.up_to_date(tmp_path, "0" * 64)
    (tmp_path / "micropython32/bin/micropython").unlink()
    assert not maker.up_to_date(tmp_path, key)


def test_a_damaged_stamp_means_building_again(maker: ModuleType, tmp_path: Path) -> None:
    _made(maker, tmp_path, "x")
    for text in ("", "[]", '{"other": 1}'):
        (tmp_path / "cortex-m4" / "stamp.json").write_text(text)
        assert not maker.up_to_date(tmp_path, "x")


def test_what_counts_as_an_input(maker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(CHECKOUT / "boards/cortex-m4", tmp_path / "boards/cortex-m4")
    shutil.copytree(CHECKOUT / "tools", tmp_path / "tools")
    monkeypatch.setattr(maker, "BOARD", tmp_path / "boards/cortex-m4")
    monkeypatch.setattr(maker, "CHECKOUT", tmp_path)
    monkeypatch.setattr(maker, "__file__", str(tmp_path / "boards/cortex-m4/get_firmware.py"))
    first = maker.inputs_key()
    assert first == maker.inputs_key()
    (tmp_path / "boards/cortex-m4/README.md").write_text("")
    (tmp_path / "boards/cortex-m4/packtrust_board.py").write_text("")
    assert maker.inputs_key() == first
    seen = {first}
    for name in ("firmware/usermod/canboard/uart.c", "unix32/manifest.py", "board.toml", "get_firmware.py"):
        with (tmp_path / "boards/cortex-m4" / name).open("a") as file:
            file.write("\n")
        seen.add(maker.inputs_key())
    assert len(seen) == 5


def test_no_means_gives_one_sentence(tmp_path: Path) -> None:
    shutil.copytree(CHECKOUT / "boards/cortex-m4", tmp_path / "boards/cortex-m4")
    shutil.copytree(CHECKOUT / "tools", tmp_path / "tools")
    done = subprocess.run(
        [sys.executable, tmp_path / "boards/cortex-m4/get_firmware.py"],
        env={"PATH": str(tmp_path / "nothing"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    first, error = done.stderr.splitlines()
    assert first.startswith("Building")
    assert error == (
        "error: no cortex-m4 firmware: there is no C compiler or no make on this machine: apt install gcc make "
        "libc6-dev; then run `make firmware` again."
    )


def _archive(path: Path, top: str, names: list[str]) -> Path:
    with tarfile.open(path, "w:xz") as archive:
        for name in names:
            member = tarfile.TarInfo(top + "/" + name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
    return path


def test_of_the_sources_only_what_is_built(
    maker: ModuleType, packages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [
        _archive(tmp_path / "micropython_1.25.0+ds.orig.tar.xz", "mp", ["py/vm.c", "ports/qemu/main.c", "docs/a.rst"]),
        _archive(tmp_path / "micropython_1.25.0+ds-1.debian.tar.xz", "debian", ["control"]),
        _archive(tmp_path / "mbedtls_3.6.orig.tar.xz", "tls", ["library/aes.c", "include/mbedtls/aes.h", "tests/t.c"]),
        tmp_path / "mbedtls_3.6.dsc",
    ]
    monkeypatch.setattr(packages, "download_source", lambda *_: files)
    micropython, mbedtls = maker.unpack_sources(tmp_path, tmp_path / "out")
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {
        "mp/py/vm.c",
        "mp/ports/qemu/main.c",
        "mp/lib/micropython-lib/README.md",
        "tls/library/aes.c",
        "tls/include/mbedtls/aes.h",
    }
    assert (micropython.name, mbedtls.name) == ("mp", "tls")
    monkeypatch.setattr(packages, "download_source", lambda *_: files[2:])
    with pytest.raises(maker.BuildError, match="micropython has not the one archive"):
        maker.unpack_sources(tmp_path, tmp_path / "other")


def test_a_failing_build_says_why(maker: ModuleType) -> None:
    script = "import sys; print('CC a.c'); print('a.c:3: error: expected ;', file=sys.stderr); sys.exit(2)"
    with pytest.raises(maker.BuildError, match=r"building it failed: a\.c:3: error: expected ;"):
        maker.run([sys.executable, "-c", script], what="building it")
    with pytest.raises(maker.BuildError, match="No such file"):
        maker.run(["/nonexistent/program"], what="trying")


# ------------------------------------------------------------------ Debian's packages


@pytest.mark.parametrize(
    ("text", "suite"),
    [
        ('ID=debian\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n', "bookworm"),
        ("VERSION_CODENAME=trixie\nID=debian\n", "trixie"),
    ],
)
def test_own_suite(packages: ModuleType, tmp_path: Path, text: str, suite: str) -> None:
    (tmp_path / "os-release").write_text(text)
    assert packages.own_suite(tmp_path / "os-release") == suite


@pytest.mark.parametrize("text", ["ID=ubuntu\nVERSION_CODENAME=noble\n", "ID=debian\n", ""])
def test_no_suite_of_debian(packages: ModuleType, tmp_path: Path, text: str) -> None:
    (tmp_path / "os-release").write_text(text)
    with pytest.raises(packages.PackageError, match="no released Debian"):
        packages.own_suite(tmp_path / "os-release")


def test_what_is_installed_is_counted_on(packages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "apt-config"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "%s:/usr/bin:/bin" % program.parent)
    keyring = tmp_path / "k.gpg"
    keyring.touch()
    status = tmp_path / "status"
    status.touch()
    monkeypatch.setattr(packages, "INSTALLED", status)
    source = packages.Source("http://mirror.example/debian", ("bookworm", "bookworm-updates"), str(keyring))
    security = packages.Source("http://mirror.example/debian-security", ("bookworm-security",), str(keyring))
    root = tmp_path / "apt"
    text = packages._configuration(
        root, source, "bookworm", "amd64", installed=True, more=[source, security]
    ).read_text()
    assert 'Dir::State::status "%s";' % status in text
    assert (root / "sources.list").read_text() == "".join(
        "deb [arch=amd64 signed-by=%s] http://mirror.example/%s main\n" % (keyring, end)
        for end in ("debian bookworm", "debian bookworm-updates", "debian-security bookworm-security")
    )
    # Otherwise nothing is: what is fetched must do by itself.
    text = packages._configuration(root, source, "trixie", "amd64").read_text()
    assert 'Dir::State::status "%s";' % (root / "status") in text


def test_sources_are_used_again_only_while_unchanged(
    packages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, cache = tmp_path / "files", tmp_path / "cache"
    files.mkdir()
    (files / "one_1.dsc").write_bytes(b"description")
    (files / "one_1.orig.tar.xz").write_bytes(b"archive")
    kept = packages._keep(files, cache, "*")
    assert [path.name for path in kept] == ["one_1.dsc", "one_1.orig.tar.xz"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert packages.download_source(["one"], ["trixie"], cache) == kept
    assert packages.download_missing(["one"], cache) == kept
    kept[1].write_bytes(b"changed")
    with pytest.raises(packages.PackageError, match="dpkg is not on this machine"):
        packages.download_source(["one"], ["trixie"], cache)
    with pytest.raises(packages.PackageError, match="dpkg is not on this machine"):
        packages.download_missing(["one"], cache)
