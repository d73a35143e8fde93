"""The thermostat on a board: its logic, its flash, and what its program prints."""

from pathlib import Path

import pytest

from pytest_micropython_boards import Board, ScriptError

MAIN = """
from thermostat import Thermostat
room = Thermostat()
for celsius in (18, 20, 21, 20):
    print(celsius, "heat" if room.update(celsius) else "off")
print("done")
"""


@pytest.fixture
def thermostat(board: Board) -> Board:
    """A board with the module on it, and no set point."""
    board.put(Path(__file__).parent / "thermostat.py", "thermostat.py")
    board.exec("import os\nif 'setpoint.txt' in os.listdir():\n    os.remove('setpoint.txt')")
    return board


def course(setpoint, temperatures):
    """Runs on the board."""
    from thermostat import Thermostat

    room = Thermostat()
    room.set(setpoint)
    return [room.update(celsius) for celsius in temperatures]


def test_it_heats_with_hysteresis(thermostat):
    assert thermostat.call(course, 20, [18, 19.8, 20.4, 20.6, 19.8, 19.4]) == [True, True, True, False, False, True]


def test_it_refuses_a_silly_set_point(thermostat):
    with pytest.raises(ScriptError, match="5 to 30 degrees") as caught:
        thermostat.call(course, 90, [])
    assert caught.value.exception == "ValueError"


def test_the_set_point_survives_a_power_cut(thermostat, power_cycle):
    thermostat.exec("from thermostat import Thermostat; Thermostat().set(23.5)")
    power_cycle()
    thermostat.exec("from thermostat import Thermostat")
    assert thermostat.eval("Thermostat().setpoint") == 23.5


def test_what_the_program_prints(thermostat, power_cycle, console):
    thermostat.put(MAIN.encode(), "main.py")
    power_cycle()
    console.read_until("18 heat")
    said = console.read_until("done").decode()
    assert "21 off" in said and said.index("20 heat") < said.index("20 off")
    thermostat.fresh()
    thermostat.exec("import os; os.remove('main.py')")
