"""A module's status messages from its cells: bytes worked out by hand, faults and what counts as one."""

from packtrust.messages import decode
from packtrust_node.telemetry import FLAG_BALANCED, FLAG_BALANCING, Telemetry, charge_status

LIMITS = (10000, 42000)


class Cells:
    """Three cells with values of the test's choice."""

    def __init__(self):
        self.count = 3
        self.mv = [3700, 3650, 3710]
        self.centi_c = [2500, 2600, -1000]
        self.current_ma = -20000
        self.soc_permille = 805
        self.soh_permille = 990
        self.balancing = 0

    def cell_mv(self, index):
        return self.mv[index]

    def cell_centi_c(self, index):
        return self.centi_c[index]


def measured(cells, config=None):
    telemetry = Telemetry(cells, config or {}, 1000)
    telemetry.measure(LIMITS, 1000)
    return telemetry


def word(value):
    return bytes((value & 0xFF, value >> 8))


def test_status_messages_are_the_hand_computed_bytes():
    telemetry = measured(Cells())
    # State 3, status 2 (normal); 80.5 % / 0.5 = 161, 99 % / 0.5 = 198; (-20 + 655.36) / 0.02 = 31768;
    # 11.06 V / 0.015 V = 737 (truncated).
    assert bytes(telemetry.status_1(3)) == b"\x23" + bytes((161, 198, 3)) + word(31768) + word(737)
    assert bytes(telemetry.status_2()) == word(3650) + word(3710) + word(3686) + word(737)
    # (T + 55.35) / 0.01: -10, 26, 13.66 degC.
    assert bytes(telemetry.status_3()) == word(4535) + word(8135) + word(6901) + b"\x00\x00"
    assert bytes(telemetry.detail(2)) == bytes((2, 3)) + word(4535) + word(3710) + bytes((161, 198))
    assert bytes(telemetry.cell_comm()) == b"\x01\x01\x00\x00\x00\xff\x00\x00"
    assert bytes(telemetry.cell_comm()) == b"\x00\x00\x00\x00\x00\xff\x00\x00"
    assert bytes(telemetry.fault_codes()) == b"\x00\xff\x00\x00\x00\x00\x00\x00"


def test_status_of_charge():
    assert [charge_status(0, 500), charge_status(1, 49), charge_status(1, 50)] == [0, 1, 2]
    assert [charge_status(3, 950), charge_status(3, 951)] == [2, 3]


def test_faults_are_bits_with_the_first_cell_and_a_count():
    cells = Cells()
    telemetry = measured(cells)
    for mv, centi_c, current_ma, code, cell in (
        ([3700, 4251, 3700], [2500] * 3, 0, 16, 1),
        ([3700, 3700, 2499], [2500] * 3, 0, 32, 2),
        ([3700] * 3, [6001, 6001, 2500], 0, 8, 0),
        ([3700] * 3, [2500] * 3, 10301, 4, 255),
        ([3700] * 3, [2500] * 3, -42301, 4, 255),
        ([3700] * 3, [2500] * 3, -42300, 0, 255),
        ([4251, 2499, 3700], [2500, 2500, 6001], 0, 16 | 32 | 8, 0),
    ):
        cells.mv, cells.centi_c, cells.current_ma = mv, centi_c, current_ma
        telemetry.measure(LIMITS, 5000)
        values = decode("FAULT_CODES", telemetry.fault_codes())
        assert (values["fault_code"] & 0x3F, values["first_cell"]) == (code, cell), (mv, centi_c, current_ma)
    assert values["fault_count"] == 5 and values["changed_ms"] == 4000


def test_failed_source_keeps_the_last_values():
    cells = Cells()
    telemetry = measured(cells)
    telemetry.fail(3000)
    values = decode("FAULT_CODES", telemetry.fault_codes())
    assert (values["fault_code"], values["fault_count"], values["changed_ms"]) == (2, 1, 2000)
    telemetry.fail(4000)
    assert telemetry.fault_count == 1
    telemetry.failed = False
    telemetry.measure(LIMITS, 5000)
    assert telemetry.fault_code == 0 and telemetry.total_mv == 11060


def test_balancing_flags():
    cells = Cells()
    telemetry = measured(cells)
    cells.balancing = 4
    assert decode("FAULT_CODES", telemetry.fault_codes())["fault_code"] == FLAG_BALANCING
    telemetry.balanced_mv = 60
    cells.balancing = 0
    assert decode("FAULT_CODES", telemetry.fault_codes())["fault_code"] == FLAG_BALANCED
