"""The DBC file and the message document against the table, and cantools' own command on them."""

import random
import subprocess
import sys
from pathlib import Path

import cantools
import pytest
from cantools.database import Database
from cantools.database.can import Message as DbcMessage

from packtrust import arbitration
from packtrust.messages import MESSAGES, by_base, by_name, decode, encode, standard_id
from packtrust.messages.notes import unit_of
from packtrust_host import dbc, messages_doc

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.fixture(scope="module")
def database() -> Database:
    """The checked-in file, as any tool reads it."""
    return cantools.database.load_file(DOCS / "packtrust.dbc")


def _row_of(message: DbcMessage) -> str:
    """Name of the table's row behind a DBC message, found by its ID alone."""
    if not message.is_extended_frame or message.frame_id < 0x800:
        return by_base(message.frame_id).name
    return by_base(arbitration.base_of(message.frame_id)).name


def test_the_checked_in_file_is_current() -> None:
    assert (DOCS / "packtrust.dbc").read_text() == dbc.render(), (
        "run: python -m packtrust_host.dbc > docs/packtrust.dbc"
    )


def test_the_checked_in_document_is_current() -> None:
    assert (DOCS / "messages.md").read_text() == messages_doc.render(), (
        "run: python -m packtrust_host.messages_doc > docs/messages.md"
    )


def test_the_document_has_every_row_and_its_example_holds() -> None:
    text = (DOCS / "messages.md").read_text()
    for message in MESSAGES:
        assert f"### 0x{message.base:03X} {message.name}\n" in text
        for field in message.fields:
            assert f"| `{field[0]}` |" in text
    example = text.split("```python\n")[1].split("```")[0]
    exec(compile(example, "messages.md", "exec"), {})


def test_every_row_is_there_with_its_id_format(database: Database) -> None:
    found = {(message.frame_id, message.is_extended_frame) for message in database.messages}
    for message in MESSAGES:
        if message.address == "S":
            assert (standard_id(message), False) in found
            assert (arbitration.compose(message.base, 0x40), True) in found
        elif message.address == "R":
            assert (message.base, True) in found
        elif message.address == "P":
            assert (arbitration.compose(message.base, 0x40), True) in found
        else:
            for module in range(1, 32):
                assert (arbitration.compose(message.base, module), True) in found


def test_known_ids(database: Database) -> None:
    for name, frame_id, extended in (
        ("ANNOUNCEMENT", 0x140000FF, True),
        ("ANNOUNCEMENT_NODE_0", 0x14000000, True),
        ("MOD05_STATUS_1", 0x14080005, True),
        ("MAX_STATE", 0x145C0000, True),
        ("MODULE_POWER", 0x412, False),
        ("APP_MODULE_POWER", 0x10480040, True),
        ("PACK_ANNOUNCEMENT", 0x10D80040, True),
        ("APP_ANNOUNCE_REQUEST_ALL", 0x10D4007F, True),
    ):
        message = database.get_message_by_name(name)
        assert message.frame_id == frame_id
        assert message.is_extended_frame == extended


def test_a_second_pack_is_shifted_by_0x100() -> None:
    two = dbc.build_database(modules=(1,), packs=(0, 1))
    assert two.get_message_by_name("PACK1_BMS_STATE").frame_id == 0x510
    assert two.get_message_by_name("PACK1_APP_BMS_STATE").frame_id == 0x10400041
    with pytest.raises(ValueError, match="11-bit"):
        dbc.build_database(modules=(1,), packs=(4,))
    with pytest.raises(ValueError, match="31"):
        dbc.build_database(modules=(32,))


def test_names_fit_the_format(database: Database) -> None:
    names = [message.name for message in database.messages]
    assert len(set(names)) == len(names)
    for message in database.messages:
        for name in [message.name] + [signal.name for signal in message.signals]:
            assert len(name) <= dbc.NAME_MAX
            assert name.isidentifier()


def test_units_and_steps(database: Database) -> None:
    for message, signal, unit, scale, offset in (
        ("MODULE_POWER", "voltage", "V", 0.015, 0),
        ("MODULE_POWER", "current", "A", 0.02, -655.36),
        ("MODULE_CELL_TEMP", "cell_max", "degC", 0.01, -55.35),
        ("PACK_POWER", "voltage", "V", 0.05, 0),
        ("PACK_POWER", "current", "A", 0.05, -1600),
        ("PACK_CELL_VOLTAGE", "soc", "%", 0.0015625, 0),
        ("PACK_CELL_TEMP", "cell_avg", "degC", 0.03125, -273),
        ("BMS_STATE", "soh", "%", 0.4, 0),
        ("MODULE_STATE", "soh", "%", 0.5, 0),
        ("MOD01_DETAIL", "cell_voltage", "V", 0.001, 0),
        ("MOD01_DETAIL", "cell_temperature", "degC", 0.01, -55.35),
    ):
        found = database.get_message_by_name(message).get_signal_by_name(signal)
        assert (found.unit, found.scale, found.offset) == (unit, scale, offset)
        assert found.byte_order == "little_endian"
        assert not found.is_signed


def test_comments_carry_the_traps_once_a_row(database: Database) -> None:
    rows = {}
    for message in database.messages:
        if message.comment:
            assert _row_of(message) not in rows
            rows[_row_of(message)] = message.comment
    assert set(rows) == {message.name for message in MESSAGES}
    for message in MESSAGES:
        assert message.note in rows[message.name]
    assert "bytes 4-5" in rows["MODULE_POWER"]
    assert "reverse" in rows["DETAIL"]


def test_cantools_and_the_codec_read_the_same_values(database: Database) -> None:
    generator = random.Random(4)
    for message in database.messages:
        row = by_name(_row_of(message))
        if not row.dlcs:
            assert not message.signals
            continue
        assert message.length == row.dlc
        for _ in range(3):
            data = generator.randbytes(row.dlc)
            theirs = message.decode(data, decode_choices=False)
            ours = decode(row, data)
            assert ours is not None
            assert len(theirs) == len(ours)
            for field in row.fields:
                name, bits = field[0], field[2]
                if name not in ours:
                    continue
                physical = theirs[dbc.signal_name(row, name)]
                per_unit = unit_of(name)[2]
                if bits > 52:
                    assert ours[name] == physical
                else:
                    # Ours is rounded up to a whole unit.
                    assert -1e-6 <= ours[name] - physical * per_unit < 1


def test_cantools_writes_the_bytes_we_write(database: Database) -> None:
    theirs = database.encode_message("MODULE_POWER", {"module_id": 17, "voltage": 131.07, "current": -393.22})
    ours = encode("MODULE_POWER", module_id=17, voltage_mv=131070, current_ma=-393220)
    assert theirs == bytes(ours) == bytes.fromhex("1122220033330000")


def test_cantools_decode_shows_a_log() -> None:
    """`cantools decode docs/packtrust.dbc < candump.log`, as the README has it."""
    log = (
        "(1.000000) vcan0 412#1122220033330000\n"
        "(1.100000) vcan0 410#D35B1F1E00000000\n"
        "(1.200000) vcan0 140000FF#56200203BEBA77BA\n"
        "(1.300000) vcan0 14080005#23A1C55E977DD859\n"
        "(1.400000) vcan0 140A0005#23A1C55E977DD859\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "cantools", "decode", "-s", str(DOCS / "packtrust.dbc")],
        input=log,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    assert "MODULE_POWER(module_id: 17, voltage: 131.07 V, current: -393.22 A)" in lines[0]
    assert "BMS_STATE(" in lines[1]
    assert "state: On" in lines[1]
    assert "soh: 97.6" in lines[1]
    assert "ANNOUNCEMENT(firmware_build: 8278" in lines[2]
    assert "MOD05_STATUS_1(state: On, status: Normal, soc: 80.5 %" in lines[3]
    assert "Unknown frame id" in lines[4]  # sealed: bit 17 is part of the ID


def test_the_command_prints_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert dbc.main(["--modules", "2"]) == 0
    text = capsys.readouterr().out
    small = cantools.database.load_string(text, "dbc")
    names = {message.name for message in small.messages}
    assert "MOD02_STATUS_1" in names
    assert "MOD03_STATUS_1" not in names


def test_the_document_s_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert messages_doc.main() == 0
    assert capsys.readouterr().out == messages_doc.render()
