"""Setting up: which MicroPython is taken, where packages come from, when .venv is renewed."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]


def _load(path: str) -> ModuleType:
    file = CHECKOUT / path
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def _tools_on_path() -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(CHECKOUT / "tools"))
    yield
    sys.path[:] = before


@pytest.fixture
def getter() -> ModuleType:
    return _load("boards/unix/get_micropython.py")


@pytest.fixture
def packages(getter: ModuleType) -> ModuleType:
    module = getter.debian_packages
    assert isinstance(module, ModuleType)
    return module


@pytest.fixture
def venv_maker() -> ModuleType:
    return _load("tools/make_venv.py")


def _program(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + "".join("echo '%s'\n" % line for line in lines))
    path.chmod(0o755)
    return path


# ------------------------------------------------------------------ which interpreter


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("micropython 1.25.0", (1, 25, 0)),
        ("v1.26", (1, 26)),
        ("1.27.0-preview.12", (1, 27, 0)),
        ("no number", ()),
    ],
)
def test_parse_version(getter: ModuleType, text: str, version: tuple[int, ...]) -> None:
    assert getter.parse_version(text) == version


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["micropython 1.25.0"], None),
        (["micropython 2.0.0"], None),
        (["micropython 1.24.9"], "it is version 1.24.9"),
        (["micropython 1.9.4"], "it is version 1.9.4"),
        (["cpython 3.11.2"], "it does not answer as MicroPython"),
        ([], "it does not answer as MicroPython"),
        (["micropython 1.25.0", "missing cryptolib"], "it lacks the module cryptolib"),
        (
            ["micropython 1.25.0", "missing select", "missing json"],
            "it lacks the modules select, json",
        ),
    ],
)
def test_defect(getter: ModuleType, tmp_path: Path, lines: list[str], reason: str | None) -> None:
    assert getter.defect(str(_program(tmp_path / "micropython", *lines))) == reason


def test_defect_of_what_is_no_program(getter: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "micropython"
    file.write_text("")
    assert getter.defect(str(file)).startswith("it does not run (")
    file.chmod(0o755)
    assert getter.defect(str(file)) is not None


def test_the_named_one_wins(getter: ModuleType, tmp_path: Path) -> None:
    named = _program(tmp_path / "a" / "mp", "micropython 1.25.0")
    _program(tmp_path / "b" / "micropython", "micropython 1.26.0")
    env = {"PATH": "%s:/usr/bin:/bin" % (tmp_path / "b"), "MICROPYTHON": str(named)}
    assert getter.find(env, tmp_path) == str(named)


def test_a_named_one_that_will_not_do_is_an_error(getter: ModuleType, tmp_path: Path) -> None:
    old = _program(tmp_path / "mp", "micropython 1.20.0")
    with pytest.raises(getter.UnfitError, match=r"is version 1\.20\.0: install .* 1\.25 or newer"):
        getter.find({"PATH": os.defpath, "MICROPYTHON": str(old)}, tmp_path)
    with pytest.raises(getter.UnfitError, match="there is no such program"):
        getter.find({"PATH": os.defpath, "MICROPYTHON": str(tmp_path / "none")}, tmp_path)


def test_path_before_private_and_old_ones_passed_over(
    getter: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    private = _program(tmp_path / "build/micropython/bin/micropython", "micropython 1.25.0")
    on_path = _program(tmp_path / "bin" / "micropython", "micropython 1.26.1")
    env = {"PATH": str(on_path.parent)}
    assert getter.find(env, tmp_path) == str(on_path)
    _program(on_path, "micropython 1.24.0")
    assert getter.find(env, tmp_path) == str(private)
    assert "passed over: it is version 1.24.0" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "build")
    assert getter.find(env, tmp_path) is None


def test_no_apt_gives_one_sentence(tmp_path: Path) -> None:
    for name in ("boards/unix/get_micropython.py", "boards/unix/board.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, tmp_path / name)
    shutil.copytree(CHECKOUT / "tools", tmp_path / "tools")
    env = {"PATH": str(tmp_path / "nothing"), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, tmp_path / "boards/unix/get_micropython.py"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "error: No MicroPython here, and dpkg is not on this machine, so it is no Debian: install "
        "MicroPython 1.25 or newer and run again with MICROPYTHON=/path/to/micropython.\n"
    )


def test_wrapper_uses_the_packages_own_loader(getter: ModuleType, tmp_path: Path) -> None:
    library = tmp_path / "usr/lib/aarch64-linux-gnu"
    library.mkdir(parents=True)
    with pytest.raises(getter.UnfitError, match="no C library"):
        getter.wrapper_for(tmp_path)
    (library / "ld-linux-aarch64.so.1").touch()
    text = getter.wrapper_for(tmp_path)
    assert 'exec "$root/usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1"' in text
    assert "libraries=$root/usr/lib/aarch64-linux-gnu\n" in text
    assert str(tmp_path) not in text


def test_private_interpreter_may_be_moved(getter: ModuleType, tmp_path: Path) -> None:
    private = CHECKOUT / getter.INTERPRETER["private"]
    if not private.exists():
        pytest.skip("allowed: this checkout uses a MicroPython of the machine, not a private one")
    moved = tmp_path / "else where"
    shutil.copytree(private.parents[1], moved, symlinks=True)
    program = moved / "bin" / "micropython"
    assert getter.defect(str(program)) is None
    link = tmp_path / "link"
    link.symlink_to(program)
    assert getter.defect(str(link)) is None


# ------------------------------------------------------------------ Debian's packages


def test_one_line_sources(packages: ModuleType) -> None:
    text = """
# deb http://commented.example/debian trixie main
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/d.gpg] http://mirror.example/debian bookworm main
deb http://mirror.example/debian/ bookworm-updates main contrib # a remark
"""
    assert packages.parse_list(text) == [
        packages.Source("http://mirror.example/debian", ("bookworm",), "/usr/share/keyrings/d.gpg"),
        packages.Source("http://mirror.example/debian/", ("bookworm-updates",), None),
    ]


def test_deb822_sources(packages: ModuleType) -> None:
    text = """\
Types: deb deb-src
# a remark in the middle
URIs: http://mirror.example/debian http://second.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/d.gpg

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm

Types: deb
URIs: http://inline.example/debian
Suites: trixie
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEabc
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb-src
URIs: http://source.example/debian
Suites: trixie
"""
    suites = ("bookworm", "bookworm-updates")
    key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEabc\n-----END PGP PUBLIC KEY BLOCK-----"
    assert packages.parse_deb822(text) == [
        packages.Source("http://mirror.example/debian", suites, "/usr/share/keyrings/d.gpg"),
        packages.Source("http://second.example/debian", suites, "/usr/share/keyrings/d.gpg"),
        packages.Source("http://inline.example/debian", ("trixie",), key),
    ]


def test_both_styles_are_read(packages: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://one.example/debian bookworm main\n")
    (tmp_path / "sources.list.d/a.list").write_text("deb http://two.example/x stable main\n")
    (tmp_path / "sources.list.d/b.sources").write_text(
        "Types: deb\nURIs: http://three.example/debian\nSuites: trixie\n"
    )
    (tmp_path / "sources.list.d/c.list.save").write_text("deb http://no.example/debian sid main\n")
    uris = [source.uri for source in packages.read_sources(tmp_path)]
    assert uris == [
        "http://one.example/debian",
        "http://two.example/x",
        "http://three.example/debian",
    ]
    assert packages.read_sources(tmp_path / "absent") == []


def test_mirrors_of_debian_itself(packages: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEBIAN_MIRROR", raising=False)
    source = packages.Source
    found = packages.debian_mirrors(
        [
            source("http://tools.example/apt", ("stable",), None),
            source("http://ubuntu.example/ubuntu", ("noble", "noble-updates"), None),
            source("http://mirror.example/debian-security", ("bookworm-security",), None),
            source("http://mirror.example/debian", ("bookworm",), "/k.gpg"),
            source("http://mirror.example/debian/", ("bookworm-updates",), None),
        ]
    )
    assert [entry.uri for entry in found] == [
        "http://mirror.example/debian",
        "http://tools.example/apt",
    ]
    monkeypatch.setenv("DEBIAN_MIRROR", "http://named.example/debian")
    assert [entry.uri for entry in packages.debian_mirrors([])] == ["http://named.example/debian"]


def test_downloads_are_used_again_only_while_unchanged(
    packages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives, cache = tmp_path / "archives", tmp_path / "cache"
    archives.mkdir()
    (archives / "one_1%3a2_all.deb").write_bytes(b"first")
    (archives / "two_1_all.deb").write_bytes(b"second")
    kept = packages._keep(archives, cache)
    assert [path.name for path in kept] == ["one_1_2_all.deb", "two_1_all.deb"]
    # Nothing on the PATH: whatever is returned did not come through apt.
    monkeypatch.setenv("PATH", str(tmp_path))
    assert packages.download("x", ["trixie"], cache) == kept
    kept[1].write_bytes(b"changed")
    with pytest.raises(packages.PackageError, match="dpkg is not on this machine"):
        packages.download("x", ["trixie"], cache)


def test_apt_stays_in_its_folder(packages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dump = (
        'Acquire::http::Proxy "http://proxy.example:3128";\\n'
        'Acquire::https "";\\n'
        'APT::Update::Post-Invoke:: "rm -rf /var/cache/apt";\\n'
        'Dir::State "/var/lib/apt";\\n'
    )
    program = tmp_path / "bin" / "apt-config"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nprintf '%s'\n" % dump)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "%s:/usr/bin:/bin" % program.parent)
    keyring = tmp_path / "k.gpg"
    keyring.touch()
    source = packages.Source("http://mirror.example/debian", ("bookworm",), str(keyring))
    root = tmp_path / "apt"
    text = packages._configuration(root, source, "trixie", "arm64").read_text()
    assert 'Acquire::http::Proxy "http://proxy.example:3128";' in text
    assert "Post-Invoke" not in text
    assert "/var/lib/apt" not in text
    assert 'Dir::State "%s";' % root in text
    assert (root / "sources.list").read_text() == (
        "deb [arch=arm64 signed-by=%s] http://mirror.example/debian trixie main\n" % keyring
    )
    assert root.stat().st_mode & 0o077 == 0


# ------------------------------------------------------------------ the virtual environment


def test_backend_entry(venv_maker: ModuleType) -> None:
    text = venv_maker.backend_only((CHECKOUT / "requirements.lock").read_text())
    lines = text.splitlines()
    assert lines[0].startswith("setuptools==")
    assert len(lines) > 1
    assert all(line.strip().startswith("--hash=sha256:") for line in lines[1:])
    with pytest.raises(venv_maker.SetupError, match="make lock"):
        venv_maker.backend_only("pytest==1.0 \\\n    --hash=sha256:00\n")


def test_environment_is_renewed_when_lock_or_project_change(venv_maker: ModuleType) -> None:
    first = venv_maker.wanted(b"lock", b"project")
    assert first == venv_maker.wanted(b"lock", b"project")
    assert first["lock"] != venv_maker.wanted(b"LOCK", b"project")["lock"]
    assert first["project"] != venv_maker.wanted(b"lock", b"PROJECT")["project"]
    assert first["folder"] == str(CHECKOUT)


def test_no_pip_to_be_had_says_what_to_install(
    venv_maker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(venv_maker, "CHECKOUT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(venv_maker.SetupError, match=r"apt install python3\.\d+-venv"):
        venv_maker._pip_from_debian()


def test_settings_that_send_packages_elsewhere_are_dropped(
    venv_maker: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    env = venv_maker._environment()
    assert "PIP_TARGET" not in env
    assert "PYTHONPATH" not in env
    assert env["PIP_USER"] == "0"
