"""The bridge fails at any step of a registration.

Setting   app, pack and two modules are registered: every request of that, one after the other, meets a failure.
Means     an error with or without a body, an answer that is no JSON, a connection that is cut after the work was
          done, no answer in time.
Holds     a clear error, no half-made state in the key store (also after a restart), no key of it on a device; and the
          same call, run again, completes.
"""

import pytest

from app_bench import AppBench
from attacker import commission, nodes_of, unharmed
from packtrust_host.app.errors import AppError, UnknownOutcome
from packtrust_host.app.keystore import CREATED, KEYED
from packtrust_host.app.registration import Registrar, make_client
from packtrust_host.bridge.errors import BridgeError
from packtrust_host.bridge.server import EmbeddedBridge

FAULTS = {
    "500 without a body": {"kind": "empty_500"},
    "500 after the work was done": {"kind": "json_500", "commit": True},
    "no JSON": {"kind": "not_json"},
    "cut before": {"kind": "drop"},
    "cut after": {"kind": "drop_after_commit"},
    "not found": {"kind": "not_found"},
    "silence": {"kind": "latency", "seconds": 30.0},
}
REQUESTS = 46  # a registration of three devices takes not more


@pytest.fixture(scope="module")
def bridge(tmp_path_factory):
    with EmbeddedBridge(tmp_path_factory.mktemp("bridge") / "bridge.db") as running:
        yield running


class Registration(AppBench):
    """An app with two modules surveyed, and a client of the bridge."""

    def __init__(self, tmp_path, bridge):
        super().__init__(tmp_path, modules=2)
        self.client = make_client(bridge.url, self.store, timeout=10.0, wait=lambda seconds: None)
        self.claim("pack", "module1", "module2")
        self.survey = self.run(self.provisioner().survey(expected_modules=2))

    def register_all(self, **options):
        Registrar(self.client, self.store, **options).register_all(self.survey)

    def whole(self):
        """Nothing half-made, in memory and on disk."""
        for again in (False, True):
            if again:
                self.store.reload()
            for record in self.store.relationships.values():
                assert record.state in (CREATED, KEYED)
                assert len(record.half_b) == (64 if record.state == KEYED else 0)
                assert record.state == CREATED or len(record.half_a) == len(record.lct_half) == 64
                assert record.component_a
                assert record.component_b
                assert not record.root
        for node in nodes_of(self):
            assert not node.identity.claimed


def fail_and_retry(bench, bridge, fault):
    """True if the registration failed; it is complete in the end."""
    bridge.faults.clear()
    bridge.faults.add(fault)
    error = None
    try:
        if fault["kind"] == "latency":
            impatient = make_client(bridge.url, bench.store, timeout=2.0, wait=lambda seconds: None)
            with impatient:
                Registrar(impatient, bench.store).register_all(bench.survey)
        else:
            bench.register_all()
    except (BridgeError, AppError) as caught:
        error = caught
    failed = error is not None
    assert not failed or "Next: " in str(error)
    hit = any(item.hits for item in bridge.faults._faults)
    bridge.faults.clear()
    bench.whole()
    if failed:
        try:
            bench.register_all()
        except UnknownOutcome:
            bench.whole()
            bench.register_all(repeat_unknown=True)
    bench.whole()
    assert {record.state for record in bench.store.relationships.values()} == {KEYED}
    assert len(bench.store.relationships) == 3
    halves = [bytes(h) for r in bench.store.relationships.values() for h in (r.half_a, r.half_b, r.lct_half)]
    assert len(set(halves)) == 9
    return hit, failed


@pytest.mark.parametrize("block", range(4))
def test_each_request_fails_once(tmp_path, bridge, block):
    """Every request of the whole registration in turn, reads too: the connection is cut after the work was done."""
    struck = failures = 0
    for number in range(block, REQUESTS, 4):
        folder = tmp_path / str(number)
        folder.mkdir()
        bench = Registration(folder, bridge)
        with bench.client:
            hit, failed = fail_and_retry(bench, bridge, {**FAULTS["cut after"], "skip": number, "count": 1})
        struck += hit
        failures += failed
        if not hit:
            break
    assert struck >= 6
    assert failures >= 3


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize(
    "route",
    [
        "POST /api/v1/components/register",
        "POST /api/v1/lct/create",
        "POST /api/v1/pairing/initiate",
        "POST /api/v1/pairing/complete",
        "POST /api/v1/trust/tensor",
    ],
)
def test_each_write_fails_in_each_way_and_the_pack_is_keyed_in_the_end(tmp_path, bridge, route, name):
    bench = Registration(tmp_path, bridge)
    with bench.client:
        hit, _ = fail_and_retry(bench, bridge, {**FAULTS[name], "route": route, "skip": 1, "count": 1})
        assert hit
        commission(bench, claim=False)
        unharmed(bench)


@pytest.mark.parametrize("kind", ["placeholder_halves", "repeated_halves", "equal_halves"])
@pytest.mark.parametrize("skip", [0, 1, 2])
@pytest.mark.parametrize("route", ["POST /api/v1/lct/create", "POST /api/v1/pairing/complete"])
def test_halves_that_are_none(tmp_path, bridge, route, skip, kind):
    """From one relationship on, the bridge gives no key material: nothing of it is installed, ever."""
    bench = Registration(tmp_path, bridge)
    with bench.client:
        bridge.faults.clear()
        bridge.faults.add({"kind": kind, "route": route, "skip": skip})
        with pytest.raises((BridgeError, AppError), match="Next: "):
            bench.register_all()
        bridge.faults.clear()
        bench.whole()
        commission_with_bridge(bench)
        unharmed(bench)


def commission_with_bridge(bench):
    registrar = Registrar(bench.client, bench.store, repeat_unknown=True)
    bench.run(bench.provisioner().commission(registrar.register_all, expected_modules=2))
    assert all(record.root or record.node < 0x40 for record in bench.store.relationships.values())


def test_no_bridge_at_all(tmp_path):
    """Nothing listens there: said at once, with what to do; nothing is claimed."""
    with EmbeddedBridge(tmp_path / "gone.db") as gone:
        bench = Registration(tmp_path, gone)
    with bench.client:
        with pytest.raises(BridgeError, match="Next: "):
            bench.run(
                bench.provisioner().commission(Registrar(bench.client, bench.store).register_all, expected_modules=2)
            )
        bench.whole()
