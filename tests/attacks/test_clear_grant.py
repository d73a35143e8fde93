"""Attack: an old VCU's clear commands where its grant does not reach.

Setting    a keyed pack with the policy legacy-vcu, which hears COMMAND and KEEP_ALIVE in clear; an app that may grant.
Means      11-bit frames on the VCU bus, as an old VCU's: without a grant, after one has run out or was taken back, above what
           it allows, in limp mode, for a module the app alone lowered; grants in clear, and of an app without that scope.
Success    would be a module that is raised, or kept up by clear frames alone, where nothing in force allows it.
"""

import pytest

from attack_suite import Attack
from nodebench import VCU_BUS, keyed_bench
from packtrust import package
from packtrust.frame import Frame
from packtrust.messages import by_name, encode
from packtrust.messages.table import STATE_OFF, STATE_ON, STATE_PRECHARGE, STATE_STANDBY
from packtrust.policy import profile
from weakening import Weakening

ATTACK = Attack(
    name="clear command without a grant",
    source="own; S13",
    defence="in clear a pack is raised only under a sealed grant of its app, no higher and no longer than that says",
    without="a pack that is raised by any clear command, and kept up by any keep-alive",
    weakening=Weakening(
        ("packtrust_node.legacy", "        if state > self._granted or pack.limp.active:", "        if False:"),
        (
            "packtrust_node.commands",
            "(self._vcu_ms if self._by_vcu else self._app_ms)",
            "max(self._vcu_ms, self._app_ms)",
        ),
    ),
)


class Vcu:
    """Somebody who speaks as an old VCU."""

    def __init__(self, scope=package.SCOPE_ALL):
        config = {"policy": "legacy-vcu"}
        self.bench, self.app = keyed_bench(2, scope, profile("legacy-vcu"), pack_config=config)

    def send(self, name, **values):
        row = by_name(name)
        self.bench.inject(VCU_BUS, Frame(row.base, bytes(encode(row, values)), False), "vcu")

    def drive(self, state, ms=1500):
        """Commands, four a second; the highest state of any module meanwhile."""
        highest = STATE_OFF
        for _ in range(0, ms, 250):
            self.send("COMMAND", contactor_state=state)
            self.bench.run(250)
            highest = max(highest, self.highest)
        return highest

    def grant(self, state, seconds):
        self.app.seal("LEGACY_GRANT", max_state=state, grant_s=seconds)
        self.bench.run(100)

    @property
    def modules(self):
        return [node for name, node in self.bench.nodes.items() if name != "pack"]

    @property
    def highest(self):
        return max(node.state for node in self.modules)


def no_grant(vcu):
    return vcu.drive(STATE_ON) > STATE_OFF


def run_out(vcu):
    vcu.grant(STATE_ON, 2)
    vcu.bench.run(2100)
    return vcu.drive(STATE_ON) > STATE_OFF


def taken_back(vcu):
    vcu.grant(STATE_ON, 600)
    vcu.grant(STATE_ON, 0)
    return vcu.drive(STATE_ON) > STATE_OFF


def above(vcu):
    vcu.grant(STATE_STANDBY, 600)
    return vcu.drive(STATE_ON) > STATE_STANDBY or vcu.drive(STATE_PRECHARGE) > STATE_STANDBY


def in_limp_mode(vcu):
    vcu.grant(STATE_ON, 600)
    vcu.bench.off("module1")
    vcu.bench.run(4500)
    assert vcu.bench.nodes["pack"].limp.active
    return vcu.drive(STATE_ON) > STATE_OFF


def raises_where_it_may_lower(vcu):
    """What the app raised it lowers, and does not raise again."""
    vcu.app.seal("COMMAND", contactor_state=STATE_ON)
    vcu.bench.run(300)
    assert vcu.highest == STATE_ON
    assert vcu.drive(STATE_STANDBY, 500) <= STATE_ON and vcu.highest == STATE_STANDBY
    return vcu.drive(STATE_ON) > STATE_STANDBY


def grant_in_clear(vcu):
    row = by_name("LEGACY_GRANT")
    data = bytes(encode(row, {"max_state": STATE_ON, "grant_s": 600}))
    for frame in (
        Frame(row.base << 18 | 0x40, data),
        Frame(row.base, data, False),
        Frame(row.base << 18 | 0x20040, data),
    ):
        vcu.bench.inject(VCU_BUS, frame, "vcu")
    return vcu.drive(STATE_ON) > STATE_OFF


def keeps_up_what_the_app_raised(vcu):
    vcu.app.seal("COMMAND", contactor_state=STATE_ON)
    vcu.bench.run(300)
    vcu.app.keep_alive = False
    for _ in range(8):
        vcu.send("KEEP_ALIVE")
        vcu.bench.run(250)
    return vcu.highest > STATE_OFF


WAYS = {
    "no grant": no_grant,
    "run out": run_out,
    "taken back": taken_back,
    "above it": above,
    "in limp mode": in_limp_mode,
    "raises where it may lower": raises_where_it_may_lower,
    "a grant in clear": grant_in_clear,
    "keeps up what the app raised": keeps_up_what_the_app_raised,
}


@pytest.mark.parametrize("way", WAYS)
def test_attack(way):
    vcu = Vcu()
    assert not WAYS[way](vcu)
    vcu.bench.sound()


def test_an_app_without_the_scope_grants_nothing():
    vcu = Vcu(package.SCOPE_ALL & ~package.SCOPE_STATE)
    vcu.grant(STATE_ON, 600)
    assert vcu.drive(STATE_ON) == STATE_OFF


@pytest.mark.parametrize("way", WAYS)
def test_control(weakness, way):
    assert WAYS[way](Vcu())


def test_control_what_is_granted_is_done():
    vcu = Vcu()
    vcu.grant(STATE_ON, 600)
    assert vcu.drive(STATE_ON) == STATE_ON
