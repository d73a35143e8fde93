"""The owner's state machine against the firmware's own nodes, on the virtual clock."""

import pytest

from app_bench import MACHINE, AppBench
from packtrust import provision
from packtrust.package import SCOPE_STATE
from packtrust_host.app.errors import AppError, DeviceRefused, NoAnswer, ProofFailed, ProvisioningFailed
from packtrust_host.app.keystore import ACTIVE, KEYED, KeyStore
from packtrust_host.app.node import AppNode
from packtrust_host.app.provisioner import Provisioner
from packtrust_host.app.validate import Validator


@pytest.fixture
def bench(tmp_path):
    return AppBench(tmp_path, modules=2)


@pytest.fixture
def ready(bench):
    bench.survey = bench.commission()
    bench.progress.clear()
    return bench


def station_of(bench, device):
    """Name of the station with this device."""
    for name, station in bench.pack.stations.items():
        if name != "app" and station.node is not None and station.node.unique_id == device.unique_id:
            return name
    raise AssertionError("no station for %s" % device.name)


def states(bench):
    return {record.lct_id: (record.state, record.epoch) for record in bench.store.relationships.values()}


def assert_all_well(bench, epoch=None):
    """Every relationship is active, both ends prove it, and commands are obeyed."""
    for record in bench.store.relationships.values():
        assert record.state == ACTIVE
        assert record.pending is None
        assert epoch is None or record.epoch == epoch
    report = bench.run(Validator(bench.provisioner(), None).run())
    assert report.findings == []
    assert len(report.checked) == len(bench.store.relationships)
    assert bench.pack.run_until(lambda: bench.node.established, 15_000)
    assert bench.pack.run_until(lambda: len(bench.node.model.online(bench.pack.now_ms)) == 2, 15_000)
    command = bench.node.set_state(3)
    bench.pack.run_until(lambda: command.done, 5000)
    assert command.state == "obeyed", command


def test_commission_from_nothing(bench):
    survey = bench.commission()
    assert [module.node for module in survey.modules] == [1, 2]
    assert all(device.owned for device in bench.store.devices.values())
    for name in ("pack", "module1", "module2"):
        node = bench.pack.node(name)
        assert node.identity.owner_public == bench.store.public_key
        assert node.identity.claim_code == b""
        assert bench.store.claim_code(node.unique_id) is None  # burnt here too
    assert bench.steps.count("claimed") == 3
    assert_all_well(bench, epoch=1)


def test_commission_again_changes_nothing(ready):
    before = states(ready)
    counters = {uid: device.counter for uid, device in ready.store.devices.items()}
    ready.run(ready.provisioner().commission(ready.register, expected_modules=2))
    assert states(ready) == before
    assert counters == {uid: device.counter for uid, device in ready.store.devices.items()}
    assert ready.steps.count("kept") == 3


def test_the_app_comes_back_with_its_key_store_alone(ready):
    ready.restart_app()
    assert ready.pack.run_until(lambda: ready.node.established, 10_000)
    assert_all_well(ready, epoch=1)


def test_two_relationships_of_one_epoch_share_no_root(ready):
    roots = [bytes(relation.root) for relation in ready.pack.node("pack").relations.values()]
    assert len(roots) == 3
    assert len(set(roots)) == 3
    app_pack = ready.store.app_pack(ready.survey.pack.unique_id)
    assert bytes(app_pack.root) in roots
    assert all(not record.root for record in ready.store.modules_of(ready.survey.pack.unique_id))


def test_rotation_keeps_the_traffic_running(ready):
    node = ready.node
    pack_lct = ready.store.app_pack(ready.survey.pack.unique_id).lct_id
    sealed = node.model.records
    ready.run(ready.provisioner().install(pack_lct))
    assert ready.pack.run_until(lambda: node.channel.session_epoch == 2, 5000)
    for record in ready.store.modules_of(ready.survey.pack.unique_id):
        ready.run(ready.provisioner().install(record.lct_id))
    ready.pack.run_for(2000)
    assert node.model.records > sealed + 50
    assert states(ready) == dict.fromkeys(states(ready), (ACTIVE, 2))
    assert_all_well(ready, epoch=2)
    refused = {
        key: value for key, value in node.channel.stats.items() if key not in ("opened", "sealed", "established")
    }
    assert refused == {}


# -- what is refused


def test_no_claim_code_known(bench):
    bench.claim("module1", "module2")
    with pytest.raises(ProvisioningFailed, match="no claim code is known for MODBATT-PACK") as caught:
        bench.run(bench.provisioner().commission(bench.register, expected_modules=2))
    assert "console" in str(caught.value)
    assert caught.value.step == "package"
    assert set(states(bench).values()) == {(KEYED, 0)}


def test_wrong_claim_code_claims_nothing(bench):
    bench.claim()
    node = bench.pack.node("pack")
    bench.store.add_claim(bytes(16), unique_id=node.unique_id)
    with pytest.raises(ProvisioningFailed, match="wrong claim code, or another app owns") as caught:
        bench.run(bench.provisioner().commission(bench.register, expected_modules=2))
    assert isinstance(caught.value.__cause__, DeviceRefused)
    assert not node.identity.claimed
    assert node.identity.claim_code
    assert node.counters["not-owner"] == 1
    assert set(states(bench).values()) == {(KEYED, 0)}
    bench.claim("pack")
    bench.run(bench.provisioner().commission(bench.register, expected_modules=2))
    assert_all_well(bench)


def test_rogue_app_with_full_bus_access_gets_nothing(ready, tmp_path):
    rogue_store = KeyStore(tmp_path / "rogue", machine=MACHINE)
    for name in ("pack", "module1"):
        rogue_store.add_claim(bytes(16), unique_id=ready.pack.node(name).unique_id)
    rogue = ready.pack.attach(lambda env: AppNode(env, rogue_store), name="rogue")
    provisioner = Provisioner(rogue)
    task = rogue.spawn(provisioner.survey(expected_modules=2))
    ready.pack.run_until(lambda: task.done, 30_000)
    with pytest.raises(AppError, match="owned by another app"):
        task.result()
    assert rogue_store.relationships == {}
    assert_all_well(ready, epoch=1)


def test_rogue_device_learns_nothing(bench):
    """A module that answers in another's place, with its public key shown but not its claim code."""
    bench.claim()
    node = bench.pack.node("module1")
    bench.store.add_claim(bytes([9] * 16), unique_id=node.unique_id)  # the real one's code; this one has its own
    with pytest.raises(ProvisioningFailed, match="does not open"):
        bench.run(bench.provisioner().commission(bench.register, expected_modules=2))
    assert node.relations == {}
    assert not bench.store.devices[node.unique_id].owned
    assert bench.store.claim_code(node.unique_id) == bytearray([9] * 16)  # not burnt


def test_device_with_another_key_is_not_taken_for_the_owned_one(ready):
    module = ready.survey.modules[0]
    name = station_of(ready, module)
    ready.pack.power_off(name)
    ready.pack.stations[name].slots = type(ready.pack.stations[name].slots)()  # a new board with the same number
    ready.pack.power_on(name)
    ready.pack.run_for(3000)
    with pytest.raises(ProofFailed, match="another binding key than the one it proved before"):
        ready.run(ready.provisioner().survey(expected_modules=2))
    assert ready.store.devices[module.unique_id].public_key == module.public_key


def test_unproved_device_may_be_replaced(bench):
    bench.run(bench.provisioner().survey(expected_modules=2))
    station = bench.pack.stations["module1"]
    uid = bench.pack.node("module1").unique_id
    before = bench.store.devices[uid].public_key
    bench.pack.power_off("module1")
    station.slots = type(station.slots)()
    bench.pack.power_on("module1")
    bench.pack.run_for(2000)
    bench.commission()
    assert bench.store.devices[uid].public_key != before
    assert_all_well(bench)


def test_forged_counter_does_not_use_ours_up(bench, monkeypatch):
    bench.claim()
    pack = bench.pack.node("pack")
    endpoint = endpoint_of(pack)
    real = endpoint._identity

    def forged():
        raw = bytearray(real())
        raw[70:74] = b"\xff\xff\xff\xf0"
        return bytes(raw)

    monkeypatch.setattr(endpoint, "_identity", forged)
    with pytest.raises(ProvisioningFailed, match="says it has taken 4294967280 packages"):
        bench.run(bench.provisioner().commission(bench.register, expected_modules=2))
    assert bench.store.devices[pack.unique_id].counter < 10


def endpoint_of(node):
    return node.endpoint if hasattr(node, "endpoint") else node._endpoint


def test_wrong_peer_is_seen_and_aborted(bench, monkeypatch):
    """A module that reports another peer than the one we gave it: an authentic lie."""
    bench.claim()
    node = bench.pack.node("module1")
    endpoint = endpoint_of(node)
    real = endpoint._send_paired

    def lie(staged):
        kept, staged.draft.peer_fingerprint = staged.draft.peer_fingerprint, bytes([7] * 32)
        real(staged)
        staged.draft.peer_fingerprint = kept

    monkeypatch.setattr(endpoint, "_send_paired", lie)
    with pytest.raises(ProvisioningFailed, match="is paired with fingerprint 0707070707070707") as caught:
        bench.run(bench.provisioner().commission(bench.register, expected_modules=2))
    assert caught.value.step in ("pair", "paired")
    bench.pack.run_for(100)
    assert endpoint.staged == 0  # aborted at once, not after 30 s
    assert endpoint_of(bench.pack.node("pack")).staged == 0
    assert node.relations == {}


def test_forged_pair_confirmations_change_nothing(bench):
    bench.claim()
    provisioner = bench.provisioner()
    node = bench.node
    forged = provision.frame_message(provision.PAIRED, 0x40, 0, bytes(76))

    def inject(progress):
        bench.progress.append(progress)
        if progress.step == "installed":
            node._on_unsolicited(provision.parse(forged))
            node._on_unsolicited(provision.Message(provision.PROOF, 0x40, 0, b""))
            node._on_unsolicited(provision.Message(provision.PAIRED, 0x55, 0, b""))

    provisioner._on_progress = inject
    bench.run(provisioner.commission(bench.register, expected_modules=2))
    assert provisioner.counters["paired-not-authentic"] >= 3
    assert provisioner.counters["unexpected"] >= 6
    assert_all_well(bench)


def test_false_receipt_is_seen(bench, monkeypatch):
    bench.claim()
    endpoint = endpoint_of(bench.pack.node("pack"))
    real = endpoint._receipt
    monkeypatch.setattr(endpoint, "_receipt", lambda staged: real(staged)[:-1] + b"\0")
    with pytest.raises(ProvisioningFailed, match="does not prove this package"):
        bench.run(bench.provisioner().commission(bench.register, expected_modules=2))
    assert not bench.store.devices[bench.pack.node("pack").unique_id].owned


def test_false_commit_answer_is_seen_and_finished_later(bench, monkeypatch):
    bench.claim()
    endpoint = endpoint_of(bench.pack.node("pack"))
    real = endpoint._on_commit
    monkeypatch.setattr(endpoint, "_on_commit", lambda body: real(body)[:-1] + b"\0")
    with pytest.raises(ProvisioningFailed, match="COMMITTED that is not authentic"):
        bench.run(bench.provisioner().commission(bench.register, expected_modules=2))
    monkeypatch.setattr(endpoint, "_on_commit", real)
    bench.run(bench.provisioner().commission(bench.register, expected_modules=2))
    assert "resumed" in bench.steps
    assert_all_well(bench)


# -- what dies half way


STEPS = ["identified", "installed", "claimed", "proved", "committed", "active"]


@pytest.mark.parametrize("victim", ["pack", "module1"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("nth", [1, 2])
def test_a_device_that_dies_half_way(bench, victim, step, nth):
    """Its power goes at the n-th event of a step; when it is back, the same call finishes the work."""
    bench.claim()
    provisioner = bench.provisioner()
    seen = []
    cut = []

    def watch(progress):
        bench.progress.append(progress)
        if progress.step == step:
            seen.append(progress)
            if len(seen) == nth:
                cut.append(progress)
                bench.pack.power_off(victim)

    provisioner._on_progress = watch
    task = bench.node.spawn(provisioner.commission(bench.register, expected_modules=2))
    assert bench.pack.run_until(lambda: task.done, 300_000)
    assert cut
    if task.error is not None:
        assert isinstance(task.error, AppError), task.error
        assert "Next: " in str(task.error)
        if not isinstance(task.error, ProvisioningFailed):
            assert isinstance(task.error, NoAnswer)
    bench.pack.power_on(victim)
    bench.pack.run_for(3000)
    bench.run(bench.provisioner().commission(bench.register, expected_modules=2), 300_000)
    assert_all_well(bench)


@pytest.mark.parametrize("step", ["installed", "proved", "committed"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_the_app_dies_half_way(bench, step, nth):
    bench.claim()
    provisioner = bench.provisioner()
    seen = []

    class Died(Exception):
        pass

    def watch(progress):
        if progress.step == step:
            seen.append(progress)
            if len(seen) == nth:
                raise Died

    provisioner._on_progress = watch
    with pytest.raises(Died):
        bench.run(provisioner.commission(bench.register, expected_modules=2))
    bench.restart_app()
    bench.run(bench.provisioner().commission(bench.register, expected_modules=2), 300_000)
    assert_all_well(bench)


def test_commit_that_was_never_noted_is_proved_later(bench):
    """The app dies when the last COMMITTED came, and comes back when no device remembers the COMMIT."""
    bench.claim()
    provisioner = bench.provisioner()
    seen = []

    class Died(Exception):
        pass

    def watch(progress):
        seen.append(progress.step)
        if seen.count("committed") == 3:  # app-pack; then module and pack of the first pair
            raise Died

    provisioner._on_progress = watch
    with pytest.raises(Died):
        bench.run(provisioner.commission(bench.register, expected_modules=2))
    assert sum(record.pending is not None for record in bench.store.relationships.values()) == 1
    bench.restart_app()
    bench.pack.run_for(40_000)
    bench.run(bench.provisioner().commission(bench.register, expected_modules=2))
    assert "resumed" in bench.steps
    assert_all_well(bench, epoch=1)  # proved, not made anew


def test_silent_module_leaves_the_old_epoch_running(ready):
    module = ready.survey.modules[0]
    record = ready.store.modules_of(ready.survey.pack.unique_id)[0]
    ready.pack.power_off(station_of(ready, module))
    with pytest.raises(ProvisioningFailed, match=r"did not answer IDENTIFY.*epoch 1 goes on"):
        ready.run(ready.provisioner().install(record.lct_id))
    ready.pack.power_on(next(n for n, s in ready.pack.stations.items() if not s.powered))
    ready.pack.run_for(5000)
    assert_all_well(ready, epoch=1)


def test_lost_receipts_cost_counters_only(bench):
    bench.claim()
    endpoint = endpoint_of(bench.pack.node("pack"))
    real = endpoint._answer
    lost = []

    def losing(message):
        kind, body = real(message)
        if kind == provision.RECEIPT and len(lost) < 2:
            lost.append(message)
            return 0, b""
        return kind, body

    endpoint._answer = losing
    provisioner = bench.provisioner()
    bench.run(provisioner.commission(bench.register, expected_modules=2))
    assert len(lost) == 2
    assert provisioner.counters["package-repeated"] == 2
    assert_all_well(bench)


# -- the other ways


def test_clear_first_transfer_once_and_audited(tmp_path):
    bench = AppBench(tmp_path, modules=2, clear_first_transfer=True)
    bench.run(bench.provisioner(clear_first_transfer=True).commission(bench.register, expected_modules=2))
    entries = [entry for entry in bench.store.audit_log if entry["event"] == "clear first transfer"]
    assert len(entries) == 3
    assert all(entry["fingerprint"] for entry in entries)
    assert_all_well(bench, epoch=1)
    for record in list(bench.store.relationships):
        bench.run(bench.provisioner(clear_first_transfer=True).install(record))
    assert len([e for e in bench.store.audit_log if e["event"] == "clear first transfer"]) == 3  # sealed from now on
    assert_all_well(bench, epoch=2)


def test_clear_first_transfer_is_off_on_the_device(bench):
    with pytest.raises(ProvisioningFailed, match="refused CLEAR"):
        bench.run(bench.provisioner(clear_first_transfer=True).commission(bench.register, expected_modules=2))
    assert bench.store.audit_log == []


def test_release_and_claim_again(ready):
    provisioner = ready.provisioner()
    for module in ready.survey.modules:
        ready.run(provisioner.release(module))
    ready.run(provisioner.release(ready.survey.pack))
    assert ready.store.relationships == {}
    counter = ready.pack.node("pack").identity.counter
    assert counter > 0
    for name in ("pack", "module1", "module2"):
        node = ready.pack.node(name)
        assert not node.identity.claimed
        assert node.relations == {}
        assert node.identity.claim_code
    ready.restart_app()
    ready.pack.run_for(12_000)
    ready.commission()
    assert ready.pack.node("pack").identity.counter > counter
    assert_all_well(ready)


def test_scope_is_what_the_package_says(tmp_path):
    bench = AppBench(tmp_path, modules=2)
    bench.commission(scope=SCOPE_STATE)
    bench.pack.run_for(1000)
    command = bench.node.set_limits(1000, 1000)
    bench.pack.run_until(lambda: command.done, 5000)
    assert command.state == "failed"
    assert "scope does not allow" in command.reason
    assert_all_well(bench)


def test_attestation(ready):
    provisioner = ready.provisioner()
    attested = ready.run(provisioner.attest(ready.survey.pack))
    assert attested.problems == []
    assert len(attested.attestation.entries) == 2
    with ready.store.transaction() as state:
        for record in state.relationships.values():
            if record.node == 1:
                record.fingerprint_b = bytes(32)
            if record.node == 2:
                record.epoch = 9
    attested = ready.run(provisioner.attest(ready.survey.pack))
    assert attested.problems == [
        "module 1: fingerprint differs from its LCT",
        "module 2: runs another LCT or epoch",
    ]


def test_forged_attestation_is_refused(ready, monkeypatch):
    real = provision.attestation

    def forge(*said):
        pieces = real(*said)
        pieces[1][8] ^= 1
        return pieces

    monkeypatch.setattr(provision, "attestation", forge)
    with pytest.raises(ProofFailed, match="not authentic"):
        ready.run(ready.provisioner().attest(ready.survey.pack))


def test_nobody_there(tmp_path):
    bench = AppBench(tmp_path, modules=1)
    bench.pack.power_off("pack")
    bench.restart_app()
    with pytest.raises(NoAnswer, match="no pack announced itself within 12 s"):
        bench.run(bench.provisioner().find_pack())
    with pytest.raises(NoAnswer, match="pack 3 did not"):
        bench.run(bench.provisioner().find_pack(3, 2000))


def test_missing_modules_are_counted(bench):
    bench.pack.power_off("module2")
    with pytest.raises(NoAnswer, match=r"lists [12] modules after 15 s, not 3"):
        bench.run(bench.provisioner().survey(expected_modules=3))


def test_unregistered_relationship_says_so(bench):
    survey = bench.run(bench.provisioner().survey(expected_modules=2))
    with pytest.raises(AppError, match="has no LCT with"):
        bench.run(bench.provisioner().commission(lambda found: None, expected_modules=2))
    bench.register(survey)
    with bench.store.transaction() as state:
        for record in state.relationships.values():
            record.state = "created"
    with pytest.raises(ProvisioningFailed, match="no complete key halves"):
        bench.run(bench.provisioner().install(next(iter(bench.store.relationships))))


def test_no_secret_in_what_is_shown(ready):
    shown = repr(ready.progress) + repr(ready.node) + repr(ready.store) + str(ready.node.stats())
    for station in ready.pack.stations.values():
        shown += "\n".join(station.log)
    for record in ready.store.relationships.values():
        for secret in (record.half_a, record.half_b, record.lct_half, record.root):
            if secret:
                assert bytes(secret).hex() not in shown
                assert repr(bytes(secret))[2:-1] not in shown
