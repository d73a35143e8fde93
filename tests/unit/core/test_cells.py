"""Cell sources: the model, the recording, the integrator's driver."""

import os
import sys

from packtrust_node.cells import Cells, clip_current, make_cells
from portable import hexlify, raises

LIMITS = (50000, 100000)
ON = 3
ROWS = """t_ms,current_ma,mv1,mv2,centi_c
0,0,4000,4001,2500
1000,-10000,3900,3901,2550
3000,-20000,3800,3801,2600
5000,0,3700,3701,2650
"""


def ecm(**changes):
    config = {"source": "ecm", "count": 4, "seed": 7, "load_ma": -20000}
    config.update(changes)
    return make_cells(config)


def run(cells, seconds, state=ON, limits=LIMITS, balancing=False):
    for _ in range(seconds * 10):
        cells.update(100, state, limits, balancing)


def values(cells):
    return [cells.cell_mv(i) for i in range(cells.count)] + [cells.cell_centi_c(i) for i in range(cells.count)]


def test_current_flows_only_when_on_and_within_limits():
    cells = ecm()
    for state in (0, 1, 2):
        cells.update(100, state, LIMITS, False)
        assert cells.current_ma == 0
    cells.update(0, ON, LIMITS, False)
    assert cells.current_ma == -20000
    cells.update(100, ON, (50000, 5000), False)
    assert cells.current_ma == -5000
    cells = ecm(load_ma=30000)
    cells.update(100, ON, (10000, 0), False)
    assert cells.current_ma == 10000
    assert clip_current(-7, (0, 0)) == 0


def test_discharging_lowers_voltage_and_charge_and_heats():
    cells = ecm(capacity_mah=1000)
    run(cells, 1, 0)
    before, soc = values(cells), cells.soc_permille
    run(cells, 30)
    after = values(cells)
    assert max(after[:4]) < min(before[:4])
    assert min(after[4:]) > min(before[4:])
    # 20 A for 30 s out of 1 Ah is 166 permille; the cells differ by 1.5 %.
    assert 160 <= soc - cells.soc_permille <= 172
    run(cells, 1200)
    assert cells.current_ma == 0 or min(values(cells)[:4]) > 2800
    assert cells.soc_permille <= 30


def test_charging_stops_at_full():
    cells = ecm(capacity_mah=1000, load_ma=50000, soc_permille=900)
    run(cells, 120)
    assert cells.current_ma == 0
    assert 950 <= cells.soc_permille <= 1000


def test_voltage_recovers_when_the_load_goes():
    cells = ecm(load_ma=-100000)
    run(cells, 60)
    loaded = cells.cell_mv(0)
    run(cells, 60, 0)
    assert cells.cell_mv(0) >= loaded + 100  # 100 A through more than 1 milliohm


def test_same_seed_same_cells():
    one, two, other = ecm(), ecm(), ecm(seed=8)
    run(one, 5)
    run(two, 5)
    run(other, 5)
    assert values(one) == values(two)
    assert values(one) != values(other)
    assert len(set(values(one)[:4])) > 1


def test_balancing_pulls_the_high_cells_down():
    cells = ecm(capacity_mah=100, load_ma=0, spread_permille=40)
    run(cells, 1, 0)
    before = values(cells)[:4]
    assert cells.balancing == 0
    assert max(before) - min(before) > 5
    cells.update(100, 0, LIMITS, True)
    for index in range(4):
        assert (cells.balancing >> index & 1) == (before[index] > min(before) + 5)
    run(cells, 300, 0, LIMITS, True)
    after = values(cells)[:4]
    assert max(after) - min(after) <= 6
    assert min(after) == min(before)
    assert cells.balancing == 0


def recorded(text=ROWS, **changes):
    path = "replay-test-%s.csv" % hexlify(os.urandom(6)).decode()
    with open(path, "w") as file:
        file.write(text)
    config = {"source": "replay", "file": path}
    config.update(changes)
    try:
        return make_cells(config)
    finally:
        os.remove(path)


def test_recording_runs_only_while_on():
    cells = recorded()
    assert cells.count == 2
    cells.update(10000, 1, LIMITS, False)
    assert (cells.cell_mv(0), cells.cell_mv(1), cells.current_ma) == (4000, 4001, 0)
    assert cells.soc_permille == 1000
    cells.update(1500, ON, LIMITS, False)
    assert (cells.cell_mv(0), cells.cell_mv(1), cells.current_ma) == (3900, 3901, -10000)
    assert cells.cell_centi_c(0) == cells.cell_centi_c(1) == 2550
    cells.update(100, 0, LIMITS, False)
    assert (cells.cell_mv(0), cells.current_ma) == (3900, 0)
    cells.update(1500, ON, LIMITS, False)
    assert (cells.cell_mv(0), cells.current_ma) == (3800, -20000)
    assert cells.soc_permille == 666  # 20 of 60 A s have been drawn
    cells.update(1999, ON, LIMITS, False)
    assert not cells.exhausted
    cells.update(1, ON, LIMITS, False)
    assert (cells.cell_mv(1), cells.current_ma, cells.soc_permille, cells.exhausted) == (3701, 0, 0, True)
    cells.update(5000, ON, LIMITS, False)
    assert cells.cell_mv(1) == 3701


def test_recording_faster():
    cells = recorded(speed=10)
    cells.update(99, ON, LIMITS, False)
    assert cells.cell_mv(0) == 4000
    cells.update(1, ON, LIMITS, False)
    assert cells.cell_mv(0) == 3900


def test_recording_slower_where_a_limit_allows_less():
    cells = recorded()
    cells.update(1000, ON, LIMITS, False)
    cells.update(2000, ON, (0, 5000), False)
    assert (cells.cell_mv(0), cells.current_ma) == (3900, -5000)
    cells.update(2000, ON, (0, 5000), False)
    assert (cells.cell_mv(0), cells.current_ma) == (3800, -5000)
    cells.update(60000, ON, (0, 0), False)
    assert (cells.cell_mv(0), cells.current_ma) == (3800, 0)


def test_recording_of_charging():
    cells = recorded("t_ms,current_ma,mv1,centi_c\n0,5000,3500,2500\n2000,5000,3600,2500\n4000,0,3700,2500\n")
    assert cells.soc_permille == 0
    cells.update(2000, ON, LIMITS, False)
    assert cells.soc_permille == 500


def test_bad_recordings_are_named():
    for text in (
        "a,b,c\n",
        "t_ms,current_ma,centi_c\n1,2,3\n",
        "t_ms,current_ma,mv1,mv2,centi_c\n",
        "t_ms,current_ma,mv1,centi_c\n1,2,3\n",
    ):
        error = raises(ValueError, recorded, text)
        assert "replay-test-" in str(error), error


def test_drivers_and_unknown_sources():
    class Mine(Cells):
        count = 3

    class Module:
        @staticmethod
        def make_cells(config):
            return Mine()

    sys.modules["my_cells"] = Module
    try:
        assert make_cells({"source": "driver", "module": "my_cells"}).count == 3
        raises(NotImplementedError, Mine().cell_mv, 0)
    finally:
        del sys.modules["my_cells"]
    raises(ValueError, make_cells, {"source": "tea leaves"})
