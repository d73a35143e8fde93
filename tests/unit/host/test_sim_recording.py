"""A cycler's recording becomes one replay file a module, and the module's cells replay it."""

from pathlib import Path

import pytest

from packtrust_host.sim.recording import Recording, RecordingError
from packtrust_node.cells import make_cells

HEAD = "Test Name,made up\nOperator,caf\xe9\n,\n\n"
NAMES = (
    "Total Time,Step,Current,Cell Voltage A2,Cell Voltage A1,Cell Voltage A10,Cell Voltage A9,"
    "Temperature A1,Temperature A2,Mode,\n"
)
ROWS = (
    "1.0,1,-0.04,4.192,4.129,3.71,3.6995,25,25.5,REST, ,\n"
    "2.5,1,-180,4.0,3.9,3.5,3.4,26,27.25,DCHG, ,\n"
    "4,1,-180,3.8,3.7,3.3,3.2,30,31,DCHG,Q,\n"
    "Total Number of Data Lines in the Database: 0000000003"
)


def write(folder: Path, text: str) -> Path:
    path = folder / "recording.csv"
    path.write_bytes(text.encode("latin-1"))
    return path


def test_split(tmp_path: Path) -> None:
    recording = Recording(write(tmp_path, HEAD + NAMES + ROWS))
    assert recording.modules == 2
    assert recording.peaks_ma() == (0, 180_000)
    paths = recording.split(tmp_path / "out")
    assert [path.name for path in paths] == ["module1.csv", "module2.csv"]
    # Columns by number, not by place; A9 before A10; time from the first row on.
    assert paths[0].read_text() == (
        "t_ms,current_ma,mv1,mv2,centi_c\n"
        "0,-40,4129,4192,2500\n1500,-180000,3900,4000,2600\n3000,-180000,3700,3800,3000\n"
    )
    assert paths[1].read_text() == (
        "t_ms,current_ma,mv1,mv2,centi_c\n"
        "0,-40,3700,3710,2550\n1500,-180000,3400,3500,2725\n3000,-180000,3200,3300,3100\n"
    )


def test_a_module_replays_it(tmp_path: Path) -> None:
    paths = Recording(write(tmp_path, HEAD + NAMES + ROWS)).split(tmp_path)
    cells = make_cells({"source": "replay", "file": str(paths[1]), "speed": 10})
    seen = []
    for _ in range(4):
        cells.update(100, 3, (200_000, 200_000), False)
        seen.append((cells.cell_mv(0), cells.current_ma))
    assert seen == [(3700, -40), (3400, -180000), (3200, 0), (3200, 0)]


def test_more_cells_a_module_and_one_temperature(tmp_path: Path) -> None:
    text = NAMES.replace("Temperature A2", "Other") + ROWS
    recording = Recording(write(tmp_path, text), cells_per_module=4)
    assert recording.modules == 1
    assert recording.split(tmp_path)[0].read_text().splitlines()[1] == "0,-40,4129,4192,3700,3710,2500"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a,b\n1,2\n", "Total Time"),
        (NAMES.replace("Current", "Amps") + ROWS, "Current"),
        (NAMES.replace("Cell Voltage A10", "x") + ROWS, "3 cell voltages"),
        (NAMES.replace("Cell Voltage", "x") + ROWS, "0 cell voltages"),
        (NAMES.replace("Cell Voltage A2", "Temperature A3") + ROWS, "3 cell voltages"),
        (NAMES.replace("Mode", "Temperature A3") + ROWS, "3 temperatures for 2 modules"),
        (NAMES + ROWS.replace("3.5,", "n/a,"), "line 3"),
        (NAMES + ROWS.replace("3.5,", "nan,"), "line 3"),
        (NAMES + ROWS.replace("4,1,-180", "2,1,-180"), "time runs backwards"),
        (NAMES + "1.0,1,-0.04,4.192\n", "line 2"),
        (NAMES + ROWS.splitlines()[0], "fewer than two rows"),
        (NAMES, "fewer than two rows"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(RecordingError, match=what):
        Recording(write(tmp_path, text)).split(tmp_path / "out")
    assert not (tmp_path / "out").exists()
