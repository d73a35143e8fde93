"""The command line of the virtual Cortex-M4, and the flash image it runs from."""

from pathlib import Path

import pytest

from packtrust_host.sim import qemu
from packtrust_host.sim.qemu import QemuError, QemuMachine, find_qemu, instructions, new_flash, write_romfs


def _machine(**options: object) -> QemuMachine:
    return QemuMachine(Path("f.elf"), Path("flash.img"), program="qemu", **options)  # type: ignore[arg-type]


def _serials(command: list[str]) -> list[str]:
    """What the UARTs are connected to, in turn."""
    chardevs = {}
    for at, word in enumerate(command):
        if word == "-chardev":
            kind, *options = command[at + 1].split(",")
            fields = dict(option.split("=", 1) for option in options)
            chardevs[fields["id"]] = "%s %s" % (kind, fields.get("path", ""))
    ends = [command[at + 1] for at, word in enumerate(command) if word == "-serial"]
    return [chardevs[end.removeprefix("chardev:")].strip() for end in ends]


def test_every_uart_has_its_place() -> None:
    machine = _machine(console=5, can=[7, None, "/dev/pts/9"])
    command = machine.command()
    assert _serials(command) == [
        "serial /dev/fdset/1",
        "serial /dev/fdset/2",
        "null",
        "serial /dev/pts/9",
        "pipe /dev/urandom",
    ]
    assert [command[at + 1] for at, word in enumerate(command) if word == "-add-fd"] == ["fd=5,set=1", "fd=7,set=2"]
    assert machine.pass_fds == (5, 7)


def test_without_entropy_the_last_uart_is_missing() -> None:
    assert "/dev/urandom" not in " ".join(_machine(entropy=False).command())


def test_flash_is_shared_with_the_file_or_not() -> None:
    assert "share=on" in " ".join(_machine().command())
    assert "share=off" in " ".join(_machine(persistent=False).command())
    assert "memory-backend=flash" in " ".join(_machine().command())


def test_counting_only_when_asked() -> None:
    assert "-icount" not in _machine().command()
    command = _machine(icount=True).command()
    assert command[command.index("-icount") + 1] == "shift=5,sleep=off"
    assert instructions(100) == 125
    assert instructions(1, shift=0) == 40


def test_guest_cannot_reach_the_host() -> None:
    command = _machine().command()
    assert not any("semihosting" in word for word in command)
    assert command[command.index("-nic") + 1].startswith("user,restrict=on")
    assert command[command.index("-monitor") + 1] == "none"


def test_the_console_carries_any_byte_unless_said_otherwise() -> None:
    def console(machine: QemuMachine) -> str:
        (found,) = [word for word in machine.command() if "id=uart0" in word]
        return found

    assert "mux" not in console(_machine(console=3))
    assert "mux=on" in console(_machine(console=3, text=True))
    # The escape character of multiplexers must not be one of the raw REPL's.
    command = _machine().command()
    assert command[command.index("-echr") + 1] == "0xff"


def test_tied_to_who_starts_it() -> None:
    assert _machine().command()[0] == "qemu"
    assert _machine(tied=True).command()[:5] == ["setpriv", "--pdeathsig", "KILL", "--", "qemu"]


def test_commas_in_paths_are_escaped() -> None:
    machine = QemuMachine(Path("f.elf"), Path("a,b.img"), program="qemu")
    assert "mem-path=a,,b.img," in " ".join(machine.command())


def test_no_more_can_ports_than_there_are() -> None:
    with pytest.raises(QemuError, match="has 3 CAN ports, not 4"):
        _machine(can=[1, 2, 3, 4])


def test_flash_image(tmp_path: Path) -> None:
    path = tmp_path / "flash.img"
    new_flash(path, b"\x01\x02", {"boot.txt": b"hello"})
    image = path.read_bytes()
    assert len(image) == 16 << 20
    assert image[0xFF000:0xFF010] == b"PTID\x01\x02" + bytes(10)
    assert image[0x100000:0x100003] == b"\xd2\xcd\x31"
    assert b"hello" in image[0x100000:0x100100]
    assert path.stat().st_blocks * 512 < 1 << 20  # sparse
    write_romfs(path, b"\xd2\xcd\x31\x00")
    assert path.read_bytes()[: 0x100000 + 4] == image[:0x100000] + b"\xd2\xcd\x31\x00"


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "flash.img"
    with pytest.raises(QemuError, match="at most 12 bytes, not 13"):
        new_flash(path, bytes(13))
    new_flash(path)
    with pytest.raises(QemuError, match="ROMFS has 15728640 bytes of room"):
        write_romfs(path, bytes(15728641))


def test_which_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "BUILD", tmp_path / "build")
    on_path = tmp_path / "bin" / "qemu-system-arm"
    named = tmp_path / "named"
    private = tmp_path / "build" / "bin" / "qemu-system-arm"
    with pytest.raises(QemuError, match="make firmware"):
        find_qemu({"PATH": str(on_path.parent)})
    for program in (on_path, named, private):
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        if program == on_path:
            assert find_qemu({"PATH": str(on_path.parent)}) == str(on_path)
    assert find_qemu({"PATH": str(on_path.parent)}) == str(private)
    assert find_qemu({"PATH": "", "QEMU_SYSTEM_ARM": str(named)}) == str(named)
    with pytest.raises(QemuError, match="there is no such program"):
        find_qemu({"PATH": "", "QEMU_SYSTEM_ARM": str(tmp_path / "none")})


def test_firmware_that_is_not_built_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "BUILD", tmp_path)
    with pytest.raises(QemuError, match="run `make firmware`"):
        qemu.firmware("plain")
    with pytest.raises(QemuError, match="no firmware variant 'other'"):
        qemu.firmware("other")
    (tmp_path / "plain.elf").touch()
    assert qemu.firmware("plain") == tmp_path / "plain.elf"
