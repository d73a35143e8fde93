"""Attack: commands, registration and isolation in clear, against nodes that have keys.

Setting    a keyed pack at work, modules On.
Means      a station on each bus; any clear frame: every message of the table, to every node byte, also in the field's
           11-bit form, and with bit 17 set without a record behind it.
Success    would be any change of state, limits, balancing, number or keys; or a value believed.
"""

import pytest

from attack_suite import Attack
from attacker import (
    PACK,
    attacker,
    clear_frame,
    command,
    modules_of,
    nodes_of,
    obeyed,
    relations_of,
    sessions,
    total,
    unharmed,
)
from packtrust.arbitration import ENCRYPTED, compose
from packtrust.frame import Frame
from packtrust.messages import MESSAGES, standard_id
from packtrust.messages.table import STATE_OFF, STATE_ON
from packtrust.policy import DEFAULT_POLICY
from packtrust_node.slots import WANTED
from weakening import Weakening

ATTACK = Attack(
    name="clear injection",
    source="S7; S12; S13",
    defence="a keyed node takes no command in clear: table of message classes",
    without="a module that obeys its pack's messages in clear too",
    weakening=Weakening(
        (
            "packtrust_node.module",
            '                else:\n                    self.count("clear")\n            elif node == self.own_node and',
            (
                "                else:\n                    self._obey(Frame(compose(base, node), bytes(data)))\n"
                "            elif node == self.own_node and"
            ),
        ),
    ),
)


# What may be taken in clear by anybody at any time; it changes nothing that matters.
HARMLESS = {row.base for row in MESSAGES if DEFAULT_POLICY.clear_allowed(row.base, True)}


def snapshot(bench):
    """What must not change."""
    pack = bench.pack.node("pack")
    return {
        "modules": [
            (node.own_node, node.state, node.max_state, node.limits, node.balancing, len(node.relations), node.time_s)
            for node in modules_of(bench)
        ],
        "wanted": [(slot.number, slot.unique_id, slot.row[WANTED], slot.keyed) for slot in pack.keyed_slots()],
        "relations": [relations_of(node) for node in nodes_of(bench)],
        "owners": [bytes(node.identity.owner_public) for node in nodes_of(bench)],
    }


def payloads(row):
    sizes = [size for size in (getattr(row, "dlc", 8), 0, 1, 2, 4, 6, 8) if isinstance(size, int) and size <= 8]
    for size in dict.fromkeys(sizes):
        yield bytes(size)
        yield b"\xff" * size
        yield bytes((1, 3, 5, 7, 11, 13, 17, 19))[:size]


@pytest.fixture
def on(keyed):
    """Modules On, limits and balancing set."""
    obeyed(keyed, STATE_ON)
    assert command(keyed, keyed.node.set_limits(5000, 15000)).state == "obeyed"
    keyed.pack.run_for(1000)
    return keyed


@pytest.mark.parametrize("bus", ["vcu", "module"])
def test_every_clear_message_to_every_node(on, bus):
    before = snapshot(on)
    station = attacker(on, bus)
    nodes = (PACK, 0) if bus == "vcu" else (1, 2, 0, 0xFF)
    sent = 0
    for row in MESSAGES:
        if row.base in HARMLESS:
            continue
        for data in payloads(row):
            for node in nodes:
                station.send(Frame(compose(row.base, node), data))
                sent += 1
            on.pack.run_for(len(nodes))
            assert snapshot(on) == before, (row.name, data)
    on.pack.run_for(500)
    assert snapshot(on) == before
    assert sent > 500
    assert sum(total(node, "clear") for node in nodes_of(on)) > 100
    assert sessions(on)
    unharmed(on)


def test_the_fields_eleven_bit_commands(on):
    """What an old VCU sends: seen and counted, no longer obeyed."""
    before = snapshot(on)
    station = attacker(on, "vcu")
    count = total(on.pack.node("pack"), "clear")
    sent = 0
    for row in MESSAGES:
        if row.is_extended or row.direction != "V>P":
            continue
        for data in payloads(row):
            station.send(Frame(standard_id(row), data, False))
            sent += 1
            on.pack.run_for(2)
            assert snapshot(on) == before, row.name
    assert total(on.pack.node("pack"), "clear") - count == sent > 20
    unharmed(on)


@pytest.mark.parametrize("bus", ["vcu", "module"])
def test_bit_17_without_a_record(on, bus):
    before = snapshot(on)
    station = attacker(on, bus)
    nodes = (PACK,) if bus == "vcu" else (1, 2)
    for row in MESSAGES:
        for data in (bytes(8), b"\xff" * 8, bytes(1), b""):
            for node in nodes:
                station.send(Frame(compose(row.base, node) | ENCRYPTED, data))
            on.pack.run_for(2)
    on.pack.run_for(200)
    assert snapshot(on) == before
    unharmed(on)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("DEREGISTER", {"controller_id": 0}),
        ("ALL_DEREGISTER", {"controller_id": 0}),
        ("ALL_ISOLATE", {"controller_id": 0}),
    ],
)
def test_deregistration_and_isolation_of_keyed_modules(on, name, values):
    before = snapshot(on)
    station = attacker(on, "module")
    for node in (1, 2, 0):
        station.send(clear_frame(name, node, **values))
    on.pack.run_for(200)
    assert snapshot(on) == before
    assert all(total(node, "clear") >= 1 for node in modules_of(on))
    unharmed(on)


def test_registration_under_another_number(on):
    before = snapshot(on)
    station = attacker(on, "module")
    for node in modules_of(on):
        for number in (0xFF, node.own_node, 0):
            station.send(
                clear_frame(
                    "REGISTRATION",
                    number,
                    module_id=9,
                    controller_id=0,
                    manufacturer=2,
                    part=3,
                    unique_id=node.unique_id,
                )
            )
    on.pack.run_for(500)
    assert snapshot(on) == before
    assert all(total(node, "clear") >= 1 for node in modules_of(on))
    unharmed(on)


# -- controls: the same frames have effect where they should


def test_control_an_unkeyed_module_is_registered_and_deregistered_in_clear(fresh):
    fresh.pack.power_off("pack")
    module = fresh.pack.node("module1")
    fresh.pack.power_cycle("module1")
    module = fresh.pack.node("module1")
    station = attacker(fresh, "module")
    values = {"controller_id": 0, "manufacturer": 2, "part": 3, "unique_id": module.unique_id}
    station.send(clear_frame("REGISTRATION", 0xFF, module_id=9, **values))
    assert fresh.pack.run_until(lambda: module.own_node == 9, 500)
    station.send(clear_frame("ALL_DEREGISTER", 0, controller_id=0))
    assert fresh.pack.run_until(lambda: module.own_node == 0xFF, 500)


def test_control_isolation_is_heard_while_no_session_lives(on):
    """The one clear command left, and it only goes the safe way: a keyed module without its pack may be isolated."""
    on.pack.power_off("pack")
    module = on.pack.power_cycle("module1")
    module.state = STATE_ON
    station = attacker(on, "module")
    station.send(clear_frame("ALL_ISOLATE", 0, controller_id=0))
    assert on.pack.run_until(lambda: module.state == STATE_OFF, 500)
    assert len(module.relations) == 1
    on.pack.power_off("attacker")
    on.pack.power_on("pack")
    unharmed(on)


def carry_out(bench):
    """Contactors On, in clear."""
    station = attacker(bench, "module")
    for node in modules_of(bench):
        station.send(clear_frame("MAX_STATE", node.own_node, max_state=STATE_ON))
        station.send(clear_frame("STATE_CHANGE", node.own_node, state=STATE_ON))
    done = bench.pack.run_until(lambda: any(node.state == STATE_ON for node in modules_of(bench)), 1000)
    return "a module is On by a clear frame" if done else ""


def test_attack(keyed):
    assert carry_out(keyed) == ""
    unharmed(keyed)


def test_control(weak):
    assert carry_out(weak)
