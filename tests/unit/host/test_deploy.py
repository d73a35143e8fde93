"""What a board gets, what is different on it, which one is meant: the parts of `packtrust deploy` that need none."""

import hashlib
import json

import pytest
from typer.testing import CliRunner

from packtrust_host import image
from packtrust_host.cli import app
from packtrust_host.deploy import bundle, device, find, process, profile, virtual
from packtrust_host.deploy.errors import BoardError

TOML = """
[board]
name = "toy"
title = "A toy"
arch = "armv7emsp"
layout = "mpy"
can = ["slcan"]
machine = ["Toy"]
[usb]
vid = 0xf055
pid = [0x9800, 0x9801]
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A checkout's boards folder with one kind of board."""
    folder = tmp_path / "boards" / "toy"
    folder.mkdir(parents=True)
    (folder / "board.toml").write_text(TOML)
    monkeypatch.setattr(profile, "boards_folder", lambda: tmp_path / "boards")
    monkeypatch.setattr(virtual, "runtime_folder", lambda: tmp_path / "running")
    return folder


def ports(monkeypatch, *items):
    monkeypatch.setattr(find, "serial_ports", lambda: list(items))


# -- board.toml --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", profile.board_names())
def test_every_board_of_the_checkout_can_be_read(name) -> None:
    read = profile.load_profile(name)
    assert read.name == name
    assert read.layout in profile.LAYOUTS
    assert read.virtual or read.board_module is not None
    if read.flash.method == "esptool":
        assert read.flash.chip.startswith("esp")
    if read.layout == "py":
        assert not read.arch


def test_board_toml(toy) -> None:
    read = profile.load_profile("toy")
    assert read.usb == ((0xF055, 0x9800), (0xF055, 0x9801))
    assert read.can == ("slcan",)
    assert not read.virtual


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[board", "cannot be read"),
        ("[board]\nname='x'", "title"),
        ("[board]\nname='x'\ntitle='x'\nlayout='zip'", "layout is 'zip'"),
        ("[board]\nname='x'\ntitle='x'\narch='z80'", "arch is 'z80'"),
        ("[board]\nname='x'\ntitle='x'\n[flash]\nmethod='tape'", "method is 'tape'"),
        ("[board]\nname='x'\ntitle='x'\n[usb]\nvid=[1,2]\npid=[1]", "one vid for all pids"),
    ],
)
def test_a_wrong_board_toml_says_what_is_wrong(toy, text, cause) -> None:
    (toy / "board.toml").write_text(text)
    with pytest.raises(BoardError, match="Next: ") as caught:
        profile.load_profile("toy")
    assert cause in str(caught.value)


def test_an_unknown_board_lists_the_known(toy) -> None:
    with pytest.raises(BoardError, match="use one of: toy"):
        profile.load_profile("nonsense")


# -- what it gets ------------------------------------------------------------------------------------------------------


def test_a_board_gets_its_driver_and_no_other() -> None:
    module = bundle.sources(profile.load_profile("esp32-mcp2515"), "module")
    drivers = {name for name in module if "/can_" in name}
    assert "packtrust_node/can_mcp2515.py" in drivers
    assert not drivers & {"packtrust_node/can_mcp2518fd.py", "packtrust_node/can_pyb.py", "packtrust_node/can_canio.py"}
    assert "packtrust_board.py" in module
    assert "packtrust_node/module.py" in module
    assert "packtrust_node/pack.py" not in module
    pack = bundle.sources(profile.load_profile("esp32-mcp2515"), "pack")
    assert "packtrust_node/pack.py" in pack
    assert "packtrust_node/module.py" not in pack


@pytest.mark.parametrize("name", profile.board_names())
def test_no_board_gets_what_it_cannot_run(name) -> None:
    read = profile.load_profile(name)
    texts = bundle.sources(read, "module")
    assert {"main.py", "packtrust_node/start.py", "lib/packtrust/channel.py"} <= set(texts)
    assert not set(texts) & {"lib/packtrust/_typing.py", "lib/packtrust/crypto/host.py"}
    for path, text in texts.items():
        used = bundle.emitters(text)
        if read.layout == "py":
            assert not used, path
        if not read.arch.startswith("armv7"):
            assert "asm_thumb" not in used, path


def test_a_missing_driver_is_told(toy) -> None:
    (toy / "board.toml").write_text(TOML.replace("slcan", "morse"))
    with pytest.raises(BoardError, match="can_morse"):
        bundle.sources(profile.load_profile("toy"), "module")


def test_circuitpython_gets_sources_and_code_py(tmp_path) -> None:
    made = bundle.make_bundle(profile.load_profile("feather-m4-can"), "module", tmp_path)
    assert not [name for name in made.files if not name.endswith(".py")]
    assert "code.py" in made.files and "main.py" not in made.files
    assert made.rom == b""


def test_native_code_is_the_board_s(tmp_path) -> None:
    made = bundle.make_bundle(profile.load_profile("unix"), "module", tmp_path)
    assert made.files["main.py"].startswith(b'"""')
    archs = {image.mpy_version(data)[2] for name, data in made.files.items() if name.endswith(".mpy")}
    assert archs == {"", "x64"}
    # Taken from the cache the second time, and the same.
    assert len(list(tmp_path.iterdir())) == 1
    assert bundle.make_bundle(profile.load_profile("unix"), "module", tmp_path) == made


# -- what is different there -------------------------------------------------------------------------------------------


def hashed(files):
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def test_only_what_differs_is_copied_and_what_is_stale_removed() -> None:
    wanted = bundle.Bundle({"main.py": b"1", "a/b.mpy": b"2", "a/c.mpy": b"3"})
    there = hashed({"main.py": b"1", "a/b.mpy": b"old", "a/d.mpy": b"stale"})
    plan = process.make_plan(wanted, there)
    assert plan.copy == {"a/b.mpy": b"2", "a/c.mpy": b"3"}
    assert plan.remove == ["a/d.mpy"]
    assert plan.same == 1
    assert process.make_plan(wanted, hashed(wanted.files)).empty


def test_the_rom_is_written_if_its_hash_differs() -> None:
    wanted = bundle.Bundle({"main.py": b"1"}, b"image")
    assert process.make_plan(wanted, hashed(wanted.files), "other").rom
    assert process.make_plan(wanted, hashed(wanted.files), hashlib.sha256(b"image").hexdigest()).empty


def test_folders_come_parents_first() -> None:
    assert process.folders_of(["lib/packtrust/crypto/x.mpy", "main.py"]) == [
        "lib",
        "lib/packtrust",
        "lib/packtrust/crypto",
    ]


# -- node.json ---------------------------------------------------------------------------------------------------------


def test_a_new_node_gets_an_id_from_its_chip() -> None:
    one = process.node_config(None, b"\x01" * 12, "pack", {"wiring": 3})
    two = process.node_config(None, b"\x02" * 12, None, {})
    assert one["role"] == "pack" and two["role"] == "module"
    assert one["wiring"] == 3
    assert one["unique_id"] != two["unique_id"]
    assert 0 < one["unique_id"] < 1 << 32
    assert one == process.node_config(None, b"\x01" * 12, "pack", {"wiring": 3})


def test_an_existing_node_keeps_what_it_is() -> None:
    old = process.node_config(None, b"\x01" * 12, "module", {"cells": {"count": 3}})
    assert process.node_config(old, b"\x09" * 12, None, {}) == old
    assert process.node_config(old, b"\x09" * 12, "module", {"bitrate": 250000}) == {**old, "bitrate": 250000}
    with pytest.raises(BoardError, match="is a module already"):
        process.node_config(old, b"\x01" * 12, "pack", {})


def test_a_board_without_a_number_needs_one() -> None:
    with pytest.raises(BoardError, match="--config"):
        process.node_config(None, b"", None, {})
    assert process.node_config(None, b"", None, {"unique_id": 77})["unique_id"] == 77


# -- which board -------------------------------------------------------------------------------------------------------

ONE = find.SerialPort("/dev/ttyACM0", 0xF055, 0x9800, "357738573133")
TWO = find.SerialPort("/dev/ttyACM1", 0xF055, 0x9801, "206D36A84E42")
OTHER = find.SerialPort("/dev/ttyUSB0", 0x10C4, 0xEA60, "0001")


def test_the_only_one_of_its_kind_is_taken(toy, monkeypatch) -> None:
    ports(monkeypatch, OTHER, ONE)
    target = find.find_target(profile.load_profile("toy"))
    assert (target.device, target.serial_number) == ("/dev/ttyACM0", "357738573133")
    assert [kind.name for kind in find.kinds_of(ONE)] == ["toy"]
    assert find.kinds_of(OTHER) == []


def test_between_two_it_is_not_guessed(toy, monkeypatch) -> None:
    ports(monkeypatch, ONE, TWO)
    with pytest.raises(BoardError) as caught:
        find.find_target(profile.load_profile("toy"))
    for text in ("/dev/ttyACM0", "357738573133", "/dev/ttyACM1", "--serial", "--port"):
        assert text in str(caught.value)
    assert find.find_target(profile.load_profile("toy"), None, "206D36A84E42").device == "/dev/ttyACM1"
    assert find.find_target(profile.load_profile("toy"), None, "206D").device == "/dev/ttyACM1"


def test_none_is_told_with_what_is_there(toy, monkeypatch) -> None:
    ports(monkeypatch, OTHER)
    with pytest.raises(BoardError, match=r"/dev/ttyUSB0 \(10c4:ea60"):
        find.find_target(profile.load_profile("toy"))
    with pytest.raises(BoardError, match="packtrust board list"):
        find.find_target(profile.load_profile("toy"), "/dev/no-such")


def probe(name="micropython", machine="Toy with STM32", arch=7):
    return device.Probe(json.dumps([name, [1, 25, 0], machine, arch << 10 | 6, "00ff", "/flash"]))


def test_another_board_is_not_filled(toy) -> None:
    target = find.Target(profile.load_profile("toy"), "/dev/x")
    process.check_interpreter(target.profile, probe(), target)
    process.check_interpreter(target.profile, probe(arch=8), target)  # armv7emdp loads it as well
    for wrong, cause in (
        (probe("circuitpython"), "runs circuitpython"),
        (probe(machine="PYBv1.1 with STM32F405RG"), "PYBv1.1"),
        (probe(arch=10), "native code for xtensawin"),
        (probe(arch=5), "native code for armv7m"),
    ):
        with pytest.raises(BoardError) as caught:
            process.check_interpreter(target.profile, wrong, target)
        assert cause in str(caught.value)


# -- CircuitPython -----------------------------------------------------------------------------------------------------


def test_a_circuitpython_drive_is_filled(tmp_path, monkeypatch) -> None:
    drive = tmp_path / "CIRCUITPY"
    (drive / "lib").mkdir(parents=True)
    (drive / "lib" / "somebody.py").write_text("kept")
    (drive / "code.py").write_text("print('Hello World!')")
    (drive / "boot_out.txt").write_text(
        "Adafruit CircuitPython 9.2.1 on 2024-11-20; Adafruit Feather M4 CAN with same51j19\r\n"
        "Board ID:feather_m4_can\r\nUID:0F2B3C4D5E6F\r\n"
    )
    run = CliRunner().invoke
    done = run(app, ["deploy", "feather-m4-can", "--drive", str(drive), "--json"])
    assert done.exit_code == 0, done.stderr
    first = json.loads(done.stdout)
    assert "code.py" in first["copied"] and "node.json" in first["copied"]
    assert b"build" in (drive / "code.py").read_bytes()
    assert (drive / "lib" / "somebody.py").exists()
    (drive / "packtrust_node" / "stale.py").write_text("")
    (drive / "packtrust_node" / "loop.py").write_text("damaged")
    again = json.loads(run(app, ["deploy", "feather-m4-can", "--drive", str(drive), "--json"]).stdout)
    assert again["copied"] == ["packtrust_node/loop.py"]
    assert again["removed"] == ["packtrust_node/stale.py"]
    assert again["node"] == first["node"]
    done = run(app, ["deploy", "feather-m4-can", "--drive", str(drive)])
    assert "nothing is copied" in done.stdout
    (drive / "boot_out.txt").write_text("Adafruit CircuitPython 9\r\nBoard ID:raspberry_pi_pico\r\n")
    done = run(app, ["deploy", "feather-m4-can", "--drive", str(drive)])
    assert done.exit_code == 1
    assert "raspberry_pi_pico" in done.stderr


def test_usage_errors(toy, tmp_path) -> None:
    run = CliRunner().invoke
    assert run(app, ["deploy", "toy", "--role", "king"]).exit_code == 2
    (tmp_path / "options.json").write_text("[1]")
    done = run(app, ["deploy", "toy", "--config", str(tmp_path / "options.json")])
    assert done.exit_code == 1 and "no JSON object" in done.stderr
    assert run(app, ["board", "start", "toy"]).exit_code == 1
    assert run(app, ["board", "start", "unix", "--bitrate", "1"]).exit_code == 2
    assert run(app, ["board", "power-cycle", "nobody"]).exit_code == 1


def test_no_board_here_is_said(toy, monkeypatch) -> None:
    ports(monkeypatch)
    done = CliRunner().invoke(app, ["board", "list"])
    assert done.exit_code == 0
    assert "packtrust board start unix" in done.stdout
    ports(monkeypatch, ONE)
    done = CliRunner().invoke(app, ["board", "list"])
    assert "/dev/ttyACM0" in done.stdout and "357738573133" in done.stdout and "toy" in done.stdout
    shown = json.loads(CliRunner().invoke(app, ["board", "list", "--json"]).stdout)
    assert shown["serial"][0]["boards"] == ["toy"]
