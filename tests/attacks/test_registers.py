"""Attack: registers are read and written over the bus, keys among them.

Setting    a keyed pack at work.
Means      READ_EEPROM and WRITE_EEPROM for every register, in clear from a station on the VCU bus, and sealed from the
           owner's own app with every scope.
Success    would be one answer in clear, a secret in a sealed answer, or a register that changes.
"""

from attack_suite import Attack
from attacker import PACK, Secrets, attacker, clear_frame, unharmed
from packtrust.frame import Frame
from weakening import Weakening

ATTACK = Attack(
    name="registers",
    source="S8",
    defence="no register is answered in clear, none holds a key, none can be written",
    without="the field's pack: registers in clear for anybody, keys among them",
    weakening=Weakening(
        (
            "packtrust_node.pack",
            '            elif DEFAULT_POLICY.needs_citation(base):\n                self.count("clear")',
            "            elif base == 0x402:\n"
            "                at = 8 * frame.data[0]\n"
            "                self._send_vcu(Frame(compose(0x441, self.own_node), bytes(self.identity.private[at : at + 8])))",
        )
    ),
)


def carry_out(bench):
    secrets = Secrets()
    secrets.of_nodes(bench)
    station = attacker(bench, "vcu")
    number = bench.pack.node("pack").number
    for register in range(256):
        station.send(clear_frame("READ_EEPROM", PACK, register=register))
        station.send(Frame(0x402, bytes((register, 0)), False))
        station.send(clear_frame("WRITE_EEPROM", PACK, register=register, value=register ^ 0x55))
        bench.pack.run_for(2)
    bench.pack.run_for(100)
    clear = [frame for frame in station.heard if frame.is_extended_id and frame.arbitration_id >> 18 == 0x441]
    clear = [frame for frame in clear if not frame.arbitration_id & 0x20000]
    shown = secrets.in_frames(clear)
    if shown:
        return "a register shows: %s" % ", ".join(sorted(shown))
    if clear or bench.pack.node("pack").number != number:
        return "a register is read or written in clear"
    return ""


def test_attack(keyed):
    assert carry_out(keyed) == ""
    unharmed(keyed)


def test_control(weak):
    assert "binding key" in carry_out(weak)


def test_the_owners_app_reads_no_secret_and_writes_nothing(keyed):
    secrets = Secrets()
    secrets.of_nodes(keyed)
    answers = []
    keyed.node.on_record = lambda name, values, now_ms: answers.append((name, dict(values)))
    before = keyed.pack.node("pack").number
    for register in range(256):
        keyed.node.send_sealed("READ_EEPROM", register=register)
        keyed.node.send_sealed("WRITE_EEPROM", register=register, value=77)
        keyed.pack.run_for(20)
    data = [values for name, values in answers if name == "EEPROM_DATA"]
    assert [values["register"] for values in data] == [3]
    refused = [values for name, values in answers if name == "COMMAND_RESULT"]
    assert len(refused) == 511
    assert keyed.pack.node("pack").number == before
    unharmed(keyed)
