"""Registration at a bridge, what it does when the bridge misbehaves, and validation."""

import json
from decimal import Decimal

import pytest

from app_bench import AppBench
from packtrust.package import SCOPE_ALL, SCOPE_STATE
from packtrust_host.app.errors import RegistrationFailed, UnknownOutcome
from packtrust_host.app.keystore import ACTIVE, KEYED
from packtrust_host.app.registration import Registrar, device_data, make_client, scope_names
from packtrust_host.app.validate import Validator
from packtrust_host.bridge.errors import (
    BadKeyMaterial,
    BridgeError,
    BridgeFailed,
    BridgeRefused,
    BridgeUnknownOutcome,
    BridgeUnreachable,
)
from packtrust_host.bridge.faults import FaultKind
from packtrust_host.bridge.server import EmbeddedBridge

REGISTER = "POST /api/v1/components/register"
CREATE = "POST /api/v1/lct/create"
INITIATE = "POST /api/v1/pairing/initiate"
COMPLETE = "POST /api/v1/pairing/complete"
TENSOR = "POST /api/v1/trust/tensor"
OPERATION = "POST /api/v1/energy/operation"
TRANSFER = "POST /api/v1/energy/transfer"
WRITES = [REGISTER, CREATE, INITIATE, COMPLETE, TENSOR, OPERATION, TRANSFER]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with EmbeddedBridge(tmp_path_factory.mktemp("bridge") / "bridge.sqlite") as bridge:
        yield bridge


class RegistrationBench(AppBench):
    def __init__(self, tmp_path, bridge, **options):
        super().__init__(tmp_path, modules=2, **options)
        self.bridge = bridge
        self.client = make_client(bridge.url, self.store, timeout=10, wait=lambda seconds: None)
        self.claim()
        self.survey = self.run(self.provisioner().survey(expected_modules=2))

    def registrar(self, **options):
        return Registrar(self.client, self.store, **options)

    def commission_all(self):
        found = self.run(self.provisioner().commission(self.registrar().register_all, expected_modules=2))
        assert self.pack.run_until(lambda: self.node.established, 10_000)
        return found

    def validate(self):
        return self.run(Validator(self.provisioner(), self.client).run())


@pytest.fixture
def bench(tmp_path, running):
    made = RegistrationBench(tmp_path, running)
    yield made
    running.faults.clear()
    made.client.close()


@pytest.fixture
def ready(bench):
    bench.commission_all()
    return bench


def module_station(bench, node):
    uid = next(device.unique_id for device in bench.survey.modules if device.node == node)
    return next(n for n, s in bench.pack.stations.items() if n.startswith("module") and s.node.unique_id == uid)


def snapshot(store):
    return (
        store.component_id,
        {uid: device.component_id for uid, device in store.devices.items()},
        sorted(store.relationships),
    )


def test_everything_is_registered_with_its_context(bench):
    bench.registrar().register_all(bench.survey)
    app = json.loads(bench.client.get_component(bench.store.component_id).hardware_specs)
    assert app["context"] == "management"
    assert app["host_id"] == bench.store.host_id
    assert app["fingerprint"] == bench.store.fingerprint.hex()
    assert app["scope"] == scope_names(SCOPE_ALL)
    for device, context in [(bench.survey.pack, "gateway")] + [(m, "operational") for m in bench.survey.modules]:
        stored = bench.client.get_component(bench.store.devices[device.unique_id].component_id)
        assert stored.hardware_specs == device_data(device)
        data = json.loads(stored.hardware_specs)
        assert data["context"] == context
        assert data["serial"] == device.serial
        assert data["fingerprint"] == device.fingerprint.hex()
        assert data["profile"] == device.profile != ""


def test_relationships_have_three_different_halves_and_accounts(bench):
    bench.registrar().register_all(bench.survey)
    records = list(bench.store.relationships.values())
    assert len(records) == 3
    halves = [bytes(h) for record in records for h in (record.half_a, record.half_b, record.lct_half)]
    assert all(len(half) == 64 for half in halves)
    assert len(set(halves)) == 9
    assert {record.state for record in records} == {KEYED}
    for record in records:
        stored = bench.client.get_lct(record.lct_id)
        assert (stored.component_a, stored.component_b) == (record.component_a, record.component_b)
        tensor = bench.client.read_tensor("tensor_%s_%s" % (record.component_a, record.component_b))
        assert tensor.score == Decimal("0.7")
        assert tensor.talent == tensor.valuation == Decimal("0.7")
    app_pack = bench.store.app_pack(bench.survey.pack.unique_id)
    assert app_pack.component_a == bench.store.component_id
    assert app_pack.scope == SCOPE_ALL
    for module in bench.survey.modules:
        balance = bench.client.energy_balance(bench.store.devices[module.unique_id].component_id)
        assert balance.atp == 1
        assert balance.total > 1
    issued, held, journal = bench.bridge.service.audit_energy()
    assert issued == held == journal


def test_again_it_only_checks(bench):
    bench.registrar().register_all(bench.survey)
    before = snapshot(bench.store)
    for route in WRITES:
        bench.bridge.faults.add({"kind": FaultKind.REFUSE, "route": route})
    bench.registrar().register_all(bench.survey)
    assert snapshot(bench.store) == before


def test_from_bridge_to_sealed_traffic(ready):
    assert {record.state for record in ready.store.relationships.values()} == {ACTIVE}
    report = ready.validate()
    assert report.ok, report.findings
    assert len(report.checked) == 3
    pack = ready.survey.pack
    attested = ready.run(ready.provisioner().attest(pack))
    verification = ready.registrar().forward_attestation(pack, attested)
    assert verification.proven
    assert ready.client.identity(ready.store.devices[pack.unique_id].component_id).verified
    attested.attestation.mac_lct = bytes(32)
    assert not ready.registrar().forward_attestation(pack, attested).verified


def test_scope_is_registered_as_given(bench):
    bench.registrar(scope=SCOPE_STATE).register_all(bench.survey)
    data = json.loads(bench.client.get_component(bench.store.component_id).hardware_specs)
    assert data["scope"] == ["state"]
    assert bench.store.app_pack(bench.survey.pack.unique_id).scope == SCOPE_STATE


# -- a bridge that misbehaves


@pytest.mark.parametrize("route", WRITES)
@pytest.mark.parametrize("kind", [FaultKind.REFUSE, FaultKind.RATE_LIMIT, FaultKind.NOT_FOUND])
def test_a_refused_write_changes_nothing_and_goes_through_later(bench, route, kind):
    bench.bridge.faults.add({"kind": kind, "route": route, "count": 1})
    with pytest.raises(BridgeRefused) as caught:
        bench.registrar().register_all(bench.survey)
    assert "Next: " in str(caught.value)
    bench.bridge.faults.clear()
    bench.registrar().register_all(bench.survey)
    assert {record.state for record in bench.store.relationships.values()} == {KEYED}
    bench.commission_all()
    assert bench.validate().ok


@pytest.mark.parametrize(
    "kind", [FaultKind.EMPTY_500, FaultKind.JSON_500, FaultKind.NOT_JSON, FaultKind.DROP_AFTER_COMMIT]
)
@pytest.mark.parametrize("route", [REGISTER, CREATE])
def test_unknown_outcome_is_not_repeated_unasked(bench, route, kind):
    fault = {"kind": kind, "route": route, "count": 1}
    bench.bridge.faults.add(fault)
    with pytest.raises((BridgeFailed, BridgeUnknownOutcome)):
        bench.registrar().register_all(bench.survey)
    bench.bridge.faults.clear()
    guard = bench.bridge.faults.add({"kind": FaultKind.REFUSE, "route": route})
    with pytest.raises(UnknownOutcome, match=r"never answered.*--repeat-unknown"):
        bench.registrar().register_all(bench.survey)
    assert guard.hits == 0  # nothing was sent
    bench.bridge.faults.clear()
    bench.registrar(repeat_unknown=True).register_all(bench.survey)
    assert any(entry["event"] == "write with unknown outcome repeated" for entry in bench.store.audit_log)
    bench.commission_all()
    assert bench.validate().ok


@pytest.mark.parametrize("kind", [FaultKind.EMPTY_500, FaultKind.DROP_AFTER_COMMIT])
@pytest.mark.parametrize("route", [INITIATE, COMPLETE])
def test_failed_pairing_costs_its_lct(bench, route, kind):
    bench.bridge.faults.add({"kind": kind, "route": route, "count": 1})
    with pytest.raises((BridgeFailed, BridgeUnknownOutcome)):
        bench.registrar().register_all(bench.survey)
    assert bench.store.relationships == {}
    entry = next(entry for entry in bench.store.audit_log if entry["event"] == "LCT abandoned")
    bench.bridge.faults.clear()
    bench.commission_all()
    assert entry["lct_id"] not in bench.store.relationships
    assert bench.validate().ok


@pytest.mark.parametrize("kind", [FaultKind.EMPTY_500, FaultKind.DROP_AFTER_COMMIT])
def test_tensor_is_looked_up_after_an_unknown_outcome(bench, kind):
    bench.bridge.faults.add({"kind": kind, "route": TENSOR, "count": 1})
    with pytest.raises(BridgeError):
        bench.registrar().register_all(bench.survey)
    bench.bridge.faults.clear()
    bench.registrar().register_all(bench.survey)
    for record in bench.store.relationships.values():
        assert bench.client.read_tensor("tensor_%s_%s" % (record.component_a, record.component_b)).score


def test_charge_is_looked_up_after_an_unknown_outcome(bench):
    bench.bridge.faults.add({"kind": FaultKind.DROP_AFTER_COMMIT, "route": TRANSFER, "count": 1})
    with pytest.raises(BridgeUnknownOutcome):
        bench.registrar().register_all(bench.survey)
    bench.bridge.faults.clear()
    bench.registrar().register_all(bench.survey)
    for module in bench.survey.modules:
        assert bench.client.energy_balance(bench.store.devices[module.unique_id].component_id).atp == 1


@pytest.mark.parametrize("kind", [FaultKind.PLACEHOLDER_HALVES, FaultKind.EQUAL_HALVES])
@pytest.mark.parametrize("route", [CREATE, COMPLETE])
def test_halves_that_are_no_keys_are_never_installed(bench, kind, route):
    bench.bridge.faults.add({"kind": kind, "route": route})
    with pytest.raises(BadKeyMaterial, match="do not use these keys"):
        bench.run(bench.provisioner().commission(bench.registrar().register_all, expected_modules=2))
    assert all(record.state != KEYED for record in bench.store.relationships.values())
    assert not bench.pack.node("pack").identity.claimed
    bench.bridge.faults.clear()
    bench.commission_all()
    assert bench.validate().ok


@pytest.mark.parametrize("route", [CREATE, COMPLETE])
def test_repeated_halves_are_refused_even_after_a_restart(bench, route):
    fault = bench.bridge.faults.add({"kind": FaultKind.REPEATED_HALVES, "route": route})
    # The first of them may look new; the second one cannot.
    with pytest.raises(BadKeyMaterial):
        bench.registrar().register_all(bench.survey)
    assert fault.hits >= 1
    bench.restart_app()
    with (
        make_client(bench.bridge.url, bench.store, timeout=10, wait=lambda seconds: None) as client,
        pytest.raises(BadKeyMaterial),
    ):
        Registrar(client, bench.store).register_all(bench.survey)
    bench.bridge.faults.clear()
    bench.client.close()
    bench.client = make_client(bench.bridge.url, bench.store, timeout=10, wait=lambda seconds: None)
    bench.commission_all()
    assert bench.validate().ok


def test_halves_seen_outlive_the_client(bench):
    bench.registrar().register_all(bench.survey)
    seen = bench.store.halves_seen
    assert len(seen) == 9
    with make_client(bench.bridge.url, bench.store) as later:
        assert later.registry.to_json() == seen
        record = next(iter(bench.store.relationships.values()))
        with pytest.raises(BadKeyMaterial, match="gave out before"):
            later.registry.admit("test", [(record.half_b, "another use")])


def test_no_bridge_at_all(bench):
    with (
        make_client("http://127.0.0.1:1", bench.store, timeout=2, wait=lambda seconds: None) as client,
        pytest.raises(BridgeUnreachable, match="check that the bridge runs"),
    ):
        Registrar(client, bench.store).register_all(bench.survey)
    bench.registrar().register_all(bench.survey)  # nothing is left in the way


def test_bridge_that_shows_something_else(bench, monkeypatch):
    bench.registrar().register_all(bench.survey)
    real = bench.client.get_component
    monkeypatch.setattr(
        bench.client, "get_component", lambda name: real(bench.store.devices[bench.survey.pack.unique_id].component_id)
    )
    with pytest.raises(RegistrationFailed, match="otherwise than it was registered"):
        bench.registrar().register_all(bench.survey)
    changed = type(real(bench.store.component_id))
    monkeypatch.setattr(
        bench.client, "get_component", lambda name: changed(**{**vars(real(name)), "hardware_specs": "{}"})
    )
    with pytest.raises(RegistrationFailed, match="otherwise than it was registered"):
        bench.registrar().register_all(bench.survey)
    monkeypatch.undo()
    real_lct = bench.client.get_lct
    other = sorted(bench.store.relationships)[-1]
    monkeypatch.setattr(bench.client, "get_lct", lambda name: real_lct(other))
    with pytest.raises(RegistrationFailed, match="with other components"):
        bench.registrar().register_all(bench.survey)


def test_todays_bridge_with_64_digits_and_placeholders(tmp_path):
    with EmbeddedBridge(tmp_path / "old.sqlite", half_length="hex64") as bridge:
        bridge.faults.add({"kind": FaultKind.PLACEHOLDER_HALVES, "route": CREATE})
        bench = RegistrationBench(tmp_path, bridge)
        with bench.client:
            with pytest.raises(BadKeyMaterial, match="placeholder"):
                bench.registrar().register_all(bench.survey)
            bench.registrar(accept_placeholders=True).register_all(bench.survey)
            for record in bench.store.relationships.values():
                assert record.half_source == "pairing"
                assert record.lct_half == b""
                assert bytes(record.half_a).decode().isalnum()  # 64 ASCII digits, as docs/wire.md says
            bench.commission_all()
            assert bench.validate().ok
            attested = bench.run(bench.provisioner().attest(bench.survey.pack))
            assert attested.problems == []


# -- validation


def test_swapped_module_is_named_and_no_other(ready):
    name = module_station(ready, 1)
    module = next(device for device in ready.survey.modules if device.node == 1)
    station = ready.pack.stations[name]
    ready.pack.power_off(name)
    station.slots = type(station.slots)()
    ready.pack.power_on(name)
    ready.pack.run_for(3000)
    report = ready.validate()
    assert not report.ok
    assert report.differing == [module.name]
    assert any("swapped" in finding.problem for finding in report.findings)


def test_dead_module_is_named(ready):
    name = module_station(ready, 2)
    module = next(device for device in ready.survey.modules if device.node == 2)
    ready.pack.power_off(name)
    report = ready.validate()
    assert report.differing == [module.name]
    assert "did not answer" in report.findings[0].problem


def test_reset_module_is_named(ready):
    """Same binding key, but it has forgotten its owner."""
    module = next(device for device in ready.survey.modules if device.node == 2)
    node = ready.pack.node(module_station(ready, 2))
    node.forget(node.identity.counter)
    ready.pack.run_for(2000)
    assert ready.validate().differing == [module.name]


def test_lct_that_differs_at_the_bridge_is_named(ready, monkeypatch):
    record = ready.store.modules_of(ready.survey.pack.unique_id)[0]
    ready.client.set_lct_status("packtrust", record.lct_id, "terminated")
    report = ready.validate()
    assert [(finding.lct_id, finding.who) for finding in report.findings] == [(record.lct_id, "bridge")]
    assert "ended" in report.findings[0].problem


def test_component_with_another_fingerprint_at_the_bridge_is_named(ready, monkeypatch):
    module = ready.survey.modules[1]
    component = ready.store.devices[module.unique_id].component_id
    real = ready.client.get_component

    def changed(name):
        stored = real(name)
        if name != component:
            return stored
        data = json.loads(stored.hardware_specs) | {"fingerprint": "00" * 32}
        return type(stored)(**{**vars(stored), "hardware_specs": json.dumps(data)})

    monkeypatch.setattr(ready.client, "get_component", changed)
    report = ready.validate()
    assert report.differing == [module.name]
    assert "registered with fingerprint 0000000000000000" in report.findings[0].problem


def test_wrong_peer_on_a_device_is_named(ready):
    module = next(device for device in ready.survey.modules if device.node == 1)
    node = ready.pack.node(module_station(ready, 1))
    for relation in node.relations.values():
        relation.peer_fingerprint = bytes([3] * 32)
    report = ready.validate()
    assert report.differing == [module.name]
    assert "is paired with fingerprint 0303030303030303" in report.findings[0].problem


def test_bridge_away_is_a_finding_not_a_crash(ready):
    ready.client.close()
    with EmbeddedBridge(ready.store.directory.parent / "empty.sqlite") as empty:
        ready.client = make_client(empty.url, ready.store, timeout=5, wait=lambda seconds: None)
        report = ready.validate()
    assert set(report.differing) >= {"bridge"}
    assert not report.ok
    assert ready.run(Validator(ready.provisioner(), None).run()).ok


def test_nothing_checked_is_not_ok(tmp_path, running):
    bench = RegistrationBench(tmp_path, running)
    report = bench.validate()
    assert report.checked == []
    assert not report.ok
    bench.client.close()


def test_journal_and_audit_hold_no_key_material(ready):
    shown = repr(ready.store.journal) + repr(ready.store.audit_log) + repr(ready.progress) + repr(ready.client)
    for record in ready.store.relationships.values():
        for secret in (record.half_a, record.half_b, record.lct_half):
            assert bytes(secret).hex() not in shown
