"""Attack: an app that wants more than its owner's registration gave it.

Setting    an app with valid keys and a limited scope, enforced by the pack; commands are sealed and authentic.
Means      every command the app can seal, to one module and to all, straight through its own channel.
Success    would be an effect on a module, the pack's clock or a register outside the scope.
"""

import pytest

from app_bench import AppBench
from attack_suite import Attack
from attacker import commission, modules_of, total, unharmed
from packtrust import package
from packtrust.messages.table import RESULT_REFUSED, STATE_OFF, STATE_ON
from weakening import Weakening

ATTACK = Attack(
    name="scope",
    source="own",
    defence="the scope in the owner's sealed package, enforced by the pack",
    without="a pack that does not look at the scope",
    weakening=Weakening(
        (
            "packtrust_node.commands",
            'if relation is not None and unpack_from(">H", relation.row, SCOPE_AT)[0] & scope == scope:',
            "if True:",
        )
    ),
)


SCOPES = {
    "state": package.SCOPE_STATE,
    "limits": package.SCOPE_LIMITS,
    "balance": package.SCOPE_BALANCE,
    "time": package.SCOPE_TIME,
    "config": package.SCOPE_CONFIG,
    "diagnostics": package.SCOPE_DIAGNOSTICS,
}

SCOPE_REASON = 1  # of COMMAND_RESULT

# What is sealed, by the scope it needs.
COMMANDS = {
    "state": [
        ("COMMAND", {"contactor_state": STATE_ON}),
        ("MODULE_COMMAND", {"module_id": 1, "contactor_state": STATE_ON}),
        ("COMMAND", {"contactor_state": STATE_OFF, "isolation": 1}),
    ],
    "limits": [
        ("LIMITS_COMMAND", {"module_id": 0, "max_charge_ma": 1000, "max_discharge_ma": 2000}),
        ("LIMITS_COMMAND", {"module_id": 2, "max_charge_ma": 1000, "max_discharge_ma": 2000}),
    ],
    "balance": [
        ("COMMAND", {"contactor_state": STATE_OFF, "balance": 1}),
        ("MODULE_COMMAND", {"module_id": 1, "contactor_state": STATE_OFF, "balance": 1}),
    ],
    "time": [("TIME", {"time_s": 1_700_000_000})],
    "config": [("READ_EEPROM", {"register": 3}), ("WRITE_EEPROM", {"register": 3, "value": 9})],
    "diagnostics": [("DIAGNOSTICS_REQUEST", {"module_id": 1, "what": 1}), ("DIAGNOSTICS_REQUEST", {"what": 0})],
}


def effects(bench):
    """What each scope guards, as it is now."""
    modules = modules_of(bench)
    pack = bench.pack.node("pack")
    return {
        "state": [(node.state, node.max_state > STATE_OFF and node.state) for node in modules],
        "limits": [node.limits for node in modules],
        "balance": [node.balancing for node in modules],
        "time": [bool(pack.time_s()), *(bool(node.time_s) for node in modules)],
        "config": pack.number,
    }


@pytest.mark.parametrize("granted", [*SCOPES, "nothing"])
def test_commands_outside_the_scope_do_nothing(tmp_path, granted):
    bench = AppBench(tmp_path, modules=2)
    scope = SCOPES.get(granted, 0)
    commission(bench, scope=scope)
    bench.pack.run_for(1000)
    pack = bench.pack.node("pack")
    answers = []
    bench.node.on_record = lambda name, values, now_ms: answers.append((name, values))
    for needed, commands in COMMANDS.items():
        if needed == granted:
            continue
        for name, values in commands:
            before = effects(bench)
            refused = total(pack, "scope")
            del answers[:]
            bench.node.send_sealed(name, **values)
            bench.pack.run_for(700)
            assert effects(bench) == before, (name, values)
            if name == "COMMAND" and values.get("isolation"):
                assert total(pack, "scope") == refused + 1
                continue
            assert total(pack, "scope") == refused + 1, (name, values)
            results = [values for name, values in answers if name == "COMMAND_RESULT"]
            assert [(item["result"], item["reason"]) for item in results] == [(RESULT_REFUSED, SCOPE_REASON)], results
    if granted == "state":
        unharmed(bench)


@pytest.mark.parametrize("granted", ["state", "limits", "balance", "time"])
def test_control_what_the_scope_allows_is_done(tmp_path, granted):
    bench = AppBench(tmp_path, modules=2)
    commission(bench, scope=SCOPES[granted])
    bench.pack.run_for(1000)
    before = effects(bench)
    name, values = COMMANDS[granted][0]
    bench.node.send_sealed(name, **values)
    assert bench.pack.run_until(lambda: effects(bench)[granted] != before[granted], 2000)
    assert total(bench.pack.node("pack"), "scope") == 0


def test_a_wider_scope_takes_a_package_of_the_owner(tmp_path):
    """The scope is in the sealed package: a rotation by the owner widens it, nothing in the channel does."""
    bench = AppBench(tmp_path, modules=2)
    commission(bench, scope=package.SCOPE_STATE)
    bench.pack.run_for(1000)
    lct = bench.store.app_pack(bench.pack.node("pack").unique_id).lct_id
    bench.run(bench.provisioner(scope=package.SCOPE_ALL).install(lct))
    assert bench.pack.run_until(lambda: bench.node.channel.session_epoch == 2, 10_000)
    bench.pack.run_for(1000)
    before = effects(bench)
    bench.node.send_sealed("LIMITS_COMMAND", module_id=0, max_charge_ma=1000, max_discharge_ma=2000)
    assert bench.pack.run_until(lambda: effects(bench)["limits"] != before["limits"], 2000)


def carry_out(bench):
    """An app that may set the time switches the modules On."""
    bench.pack.run_for(1000)
    bench.node.send_sealed("COMMAND", contactor_state=STATE_ON)
    done = bench.pack.run_until(lambda: any(node.state == STATE_ON for node in modules_of(bench)), 1500)
    return "a module is On by an app that may only set the time" if done else ""


def test_attack(fresh):
    commission(fresh, scope=package.SCOPE_TIME)
    assert carry_out(fresh) == ""


def test_control(weak_fresh):
    commission(weak_fresh, scope=package.SCOPE_TIME)
    assert carry_out(weak_fresh)
