"""Rotation by the app, what it learns of rotations without it, and a host that comes from an old backup."""

import shutil

import pytest

from app_bench import MACHINE, AppBench
from packtrust import package, provision
from packtrust import report as reports
from packtrust_host.app.errors import ProofFailed, ProvisioningFailed
from packtrust_host.app.keystore import ACTIVE, APP_PACK, KeyStore
from packtrust_host.app.rotator import Rotator
from packtrust_host.app.validate import Validator
from rotation_bench import Ledger, relation_of, use

PACK_NODE = 0x40


@pytest.fixture
def ready(tmp_path):
    bench = AppBench(tmp_path, modules=2)
    bench.survey = bench.commission()
    bench.progress.clear()
    bench.pack.run_for(2000)
    return bench


def rotator(bench):
    return Rotator(bench.provisioner())


def epochs(bench):
    return {record.lct_id: record.epoch for record in bench.store.relationships.values()}


def module_lct(bench, number):
    return bench.store.modules_of(bench.survey.pack.unique_id)[number - 1]


def app_lct(bench):
    return bench.store.app_pack(bench.survey.pack.unique_id)


def module(bench, number):
    return next(
        station.node
        for name, station in bench.pack.stations.items()
        if name.startswith("module") and station.node.own_node == number
    )


def validate(bench):
    return bench.run(Validator(bench.provisioner(), None).run())


def without_app(bench):
    """Switch the app off, long enough for the pack to notice."""
    bench.pack.power_off("app")
    bench.pack.run_for(6000)


def rotate_alone(bench, number, times=1):
    """Let pack and module make so many epochs by themselves."""
    pack = bench.pack.node("pack")
    for _ in range(times):
        before = relation_of(pack, number).epoch
        use(pack, number, 6)
        assert bench.pack.run_until(
            lambda: (
                relation_of(pack, number).epoch == before + 1  # noqa: B023
                and relation_of(pack, number).previous is None
                and relation_of(module(bench, number), number).previous is None
            ),
            20_000,
        )


# -- by the app --------------------------------------------------------------------------------------------------------


def test_survey_tells_how_far_epochs_are_used(ready):
    usages = ready.run(rotator(ready).survey())
    assert sorted(usages) == sorted(ready.store.relationships)
    for usage in usages.values():
        assert usage.epoch == 1 and not usage.due and not usage.made_here and not usage.behind
        assert 0 < usage.records < 2000 and usage.max_records == package.DEFAULT_MAX_RECORDS
        assert usage.max_age_s == package.DEFAULT_MAX_AGE_S and usage.age_s < 30
        assert 0 < usage.percent < 0.1


def test_only_what_is_due_is_rotated(ready):
    pack = ready.pack.node("pack")
    use(pack, 2, 6)
    use(pack, PACK_NODE, 6)
    ledger = Ledger(pack, module(ready, 2), 2)
    app = ready.node.channel
    opened = app.stats["opened"]
    assert ready.run(rotator(ready).rotate_due()) == 2
    ready.pack.run_for(3000)
    assert epochs(ready) == {
        app_lct(ready).lct_id: 2,
        module_lct(ready, 1).lct_id: 1,
        module_lct(ready, 2).lct_id: 2,
    }
    # Full traffic on both pairs; what is on the bus this moment apart, every record came, once.
    assert ready.node.channel is app and app.session_epoch == 2
    assert {key for key in app.stats if key not in ("opened", "sealed", "established")} == set()
    assert app.stats["opened"] > opened + 100
    ledger.check(lost=3)
    assert module_lct(ready, 2).salt_hash and len(module_lct(ready, 2).salt_hash) == 64
    assert validate(ready).findings == []


def test_no_record_of_app_and_pack_is_lost(ready):
    """Both ends' counts of both directions, over a rotation: what one sealed the other opened."""
    pack = ready.pack.node("pack")
    ready.run(rotator(ready).rotate([app_lct(ready).lct_id]))
    assert ready.pack.run_until(lambda: pack.app.relation.previous is None, 5000)
    ready.pack.run_for(2000)
    theirs, ours = pack.app.channel.stats, ready.node.channel.stats
    assert 0 <= theirs["sealed"] - ours["opened"] <= 3  # on their way
    assert 0 <= ours["sealed"] - theirs["opened"] <= 3
    assert set(theirs) | set(ours) == {"opened", "sealed", "established"}


def test_a_running_app_rotates_by_itself(ready):
    pack = ready.pack.node("pack")
    keeper = rotator(ready)
    keeper.keep(every_ms=2000)
    ready.pack.run_for(5000)
    assert set(epochs(ready).values()) == {1}
    for epoch in (2, 3):
        use(pack, 1, 6)
        use(pack, PACK_NODE, 6)
        assert ready.pack.run_until(
            lambda: module_lct(ready, 1).epoch == app_lct(ready).epoch == epoch,  # noqa: B023
            20_000,
        )
        ready.pack.run_for(1500)
    assert "rotations" not in pack.counters  # the pack left it to the app
    assert keeper.rotated == 4 and keeper.failed == 0
    assert validate(ready).findings == []


def test_a_running_app_goes_on_after_a_failure(ready):
    pack = ready.pack.node("pack")
    errors = []
    keeper = rotator(ready)
    keeper.keep(every_ms=2000, on_error=errors.append)
    name = next(name for name, item in ready.pack.stations.items() if item.node is module(ready, 1))
    ready.pack.power_off(name)
    use(pack, 1, 6)
    assert ready.pack.run_until(lambda: errors, 60_000)
    assert isinstance(errors[0], ProvisioningFailed)
    ready.pack.power_on(name)
    assert ready.pack.run_until(lambda: module_lct(ready, 1).epoch == 2, 90_000)
    assert validate(ready).findings == []


# -- without the app ---------------------------------------------------------------------------------------------------


def test_the_app_learns_what_the_pack_did_without_it(ready):
    without_app(ready)
    rotate_alone(ready, 1, 2)
    pack = ready.pack.node("pack")
    ready.restart_app()
    assert ready.pack.run_until(lambda: ready.node.established, 10_000)
    usages = ready.run(rotator(ready).survey())
    record = module_lct(ready, 1)
    assert record.epoch == 3 and record.state == ACTIVE and record.rotated == 1 and record.epoch_tried == 3
    assert usages[record.lct_id].made_here and not usages[record.lct_id].due
    from packtrust_node.salts import salt_hash

    station = ready.pack.stations["pack"]
    assert record.salt_hash == salt_hash(station.env.store, record.tag, 3).hex()
    entry = [item for item in ready.store.audit_log if item["event"] == "rotated without an app"][-1]
    assert (entry["lct_id"], entry["epoch"], entry["before"]) == (record.lct_id, "3", "1")
    assert entry["salt_hash"] == record.salt_hash
    # Model, validation, attestation and the bus agree.
    assert validate(ready).findings == []
    assert ready.run(ready.provisioner().attest(ready.survey.pack)).problems == []
    assert ready.pack.run_until(lambda: len(ready.node.model.online(ready.pack.now_ms)) == 2, 10_000)
    # And the next epoch is the app's again.
    ready.run(rotator(ready).rotate([record.lct_id]))
    assert module_lct(ready, 1).epoch == 4 and relation_of(pack, 1).epoch == 4
    assert validate(ready).findings == []


def test_validation_alone_learns_it_too(ready):
    without_app(ready)
    rotate_alone(ready, 2)
    ready.restart_app()
    ready.run(ready.provisioner().find_pack())
    assert validate(ready).findings == []
    assert module_lct(ready, 2).epoch == 2


def test_a_forged_report_changes_nothing(ready, monkeypatch):
    """The same report under another key, for another nonce, and with an epoch of the forger's."""
    encode = reports.encode

    def forged(how):
        def make(key, nonce, *rest):
            body = encode(key, bytes(16) if how == "nonce" else nonce, *rest)
            if how == "key":
                return encode(b"k" * 32, nonce, *rest)
            if how == "epoch":
                at = 43 + 8
                return body[:at] + b"\x00\x00\x00\x63" + body[at + 4 :]
            return body

        return make

    before = epochs(ready)
    for how in ("nonce", "key", "epoch"):
        monkeypatch.setattr(reports, "encode", forged(how))
        with pytest.raises(ProofFailed, match="report that is not authentic"):
            ready.run(ready.provisioner().report(ready.survey.pack))
        # And nothing is installed on its word.
        with pytest.raises(ProvisioningFailed, match="not authentic"):
            ready.run(ready.provisioner().install(module_lct(ready, 1).lct_id))
        assert epochs(ready) == before
    monkeypatch.undo()
    assert validate(ready).findings == []


def test_keys_for_one_module_ask_the_pack_for_no_other(ready, monkeypatch):
    """A pack of 31 has to look up 31 records to report on all: it would do so twice for each module that is claimed."""
    wanted = module_lct(ready, 2)
    told = []
    encode = reports.encode

    def seen(*given):
        told.append([entry[0] for entry in given[-1]])
        return encode(*given)

    monkeypatch.setattr(reports, "encode", seen)
    ready.run(ready.provisioner().install(wanted.lct_id))
    assert len(told) >= 4 and all(tags == [wanted.tag] for tags in told)  # two of either end
    told.clear()
    assert len(ready.run(ready.provisioner().report(ready.survey.pack)).entries) == 3
    assert [len(tags) for tags in told] == [3]


# -- back in time ------------------------------------------------------------------------------------------------------


def backup(bench, tmp_path):
    target = tmp_path / "backup"
    shutil.copytree(bench.store.directory, target)
    return target


def restore(bench, tmp_path, old):
    """The app starts on an old copy of its key store."""
    bench.pack.power_off("app") if bench.pack.stations["app"].powered else None
    shutil.rmtree(bench.store.directory)
    shutil.copytree(old, bench.store.directory)
    bench.store = KeyStore(bench.store.directory, machine=MACHINE, urandom=bench.entropy, now=lambda: "later")
    bench.restart_app()


def test_a_host_from_an_old_backup_goes_on_above_the_devices(ready, tmp_path):
    old = backup(ready, tmp_path)
    taken = {}
    for _ in range(4):
        for record in list(ready.store.relationships.values()):
            ready.run(ready.provisioner().install(record.lct_id))
    rotate = rotator(ready)
    for name in ("pack", "module1", "module2"):
        taken[ready.pack.node(name).unique_id] = ready.pack.node(name).identity.counter
    without_app(ready)
    rotate_alone(ready, 2, 2)
    restore(ready, tmp_path, old)
    assert set(epochs(ready).values()) == {1}  # it knows no better
    assert all(ready.store.devices[uid].counter < counter for uid, counter in taken.items())
    ready.pack.run_for(3000)
    assert not ready.node.established  # and holds an epoch that is over
    rotate = rotator(ready)
    ready.run(rotate.survey())
    assert rotate.due() == [app_lct(ready).lct_id]
    assert rotate.usages[app_lct(ready).lct_id].behind
    assert ready.run(rotate.rotate_due()) == 1
    assert ready.pack.run_until(lambda: ready.node.established, 10_000)
    assert epochs(ready) == {app_lct(ready).lct_id: 6, module_lct(ready, 1).lct_id: 5, module_lct(ready, 2).lct_id: 7}
    assert ready.store.devices[ready.survey.pack.unique_id].counter > taken[ready.survey.pack.unique_id]
    for record in list(ready.store.relationships.values()):
        ready.run(ready.provisioner().install(record.lct_id))
    for name in ("pack", "module1", "module2"):
        node = ready.pack.node(name)
        assert "rollback" not in node.counters  # it never tried an old one
        assert ready.store.devices[node.unique_id].counter == node.identity.counter > taken[node.unique_id]
    assert validate(ready).findings == []


def test_a_host_from_a_backup_of_before_the_claim(tmp_path):
    """The oldest there can be: no relationship, nothing owned, counters at zero; only its binding key is the same."""
    bench = AppBench(tmp_path, modules=1)
    old = backup(bench, tmp_path)
    bench.survey = bench.commission()
    for _ in range(3):
        for record in list(bench.store.relationships.values()):
            bench.run(bench.provisioner().install(record.lct_id))
    halves = {
        record.lct_id: (bytes(record.half_a), bytes(record.half_b), bytes(record.lct_half))
        for record in bench.store.relationships.values()
    }
    taken = {name: bench.pack.node(name).identity.counter for name in ("pack", "module1")}
    restore(bench, tmp_path, old)

    def registered(survey):
        bench.register(survey)  # the bridge gives the same halves again
        with bench.store.transaction() as state:
            for record in state.relationships.values():
                for name, value in zip(("half_a", "half_b", "lct_half"), halves[record.lct_id], strict=True):
                    setattr(record, name, bytearray(value))

    bench.run(bench.provisioner().commission(registered, expected_modules=1))
    assert bench.pack.run_until(lambda: bench.node.established, 10_000)
    # The app has no root of epoch 4, so it makes another; what pack and module have is theirs, and stays.
    assert epochs(bench) == {app_lct(bench).lct_id: 5, module_lct(bench, 1).lct_id: 4}
    assert bench.pack.node("pack").identity.counter > taken["pack"]
    bench.run(bench.provisioner().install(module_lct(bench, 1).lct_id))
    for name in ("pack", "module1"):
        node = bench.pack.node(name)
        assert bench.store.devices[node.unique_id].counter == node.identity.counter > taken[name]
        assert bench.store.devices[node.unique_id].owned and "rollback" not in node.counters
    assert validate(bench).findings == []


def test_identity_lies_about_the_counter(ready, tmp_path, monkeypatch):
    """It is clear, so it is not asked: neither a low nor a high counter in it moves ours."""
    old = backup(ready, tmp_path)
    for _ in range(3):
        ready.run(ready.provisioner().install(module_lct(ready, 1).lct_id))
    restore(ready, tmp_path, old)
    parse = provision.parse_identity
    pack = ready.pack.node("pack")
    for lie in (0, 900_000, 0xFFFFFFF0):

        def lying(body):
            identity = parse(body)
            identity.counter = lie  # noqa: B023
            return identity

        monkeypatch.setattr(provision, "parse_identity", lying)
        taken = pack.identity.counter
        ready.run(ready.provisioner().install(module_lct(ready, 1).lct_id))
        assert taken < pack.identity.counter <= taken + 2
        assert ready.store.devices[pack.unique_id].counter == pack.identity.counter
    monkeypatch.undo()
    assert validate(ready).findings == []


def test_a_device_with_an_old_copy_of_its_flash_is_named_and_healed(ready):
    copies = dict(ready.pack.stations["module1"].slots.files)
    unique_id = ready.pack.node("module1").unique_id
    for _ in range(2):
        ready.pack.power_cycle("module1", 200)
        ready.pack.run_for(3000)
    record = next(item for item in ready.store.modules_of(ready.survey.pack.unique_id) if item.unique_id_b == unique_id)
    ready.run(ready.provisioner().install(record.lct_id))
    ready.pack.run_for(2000)
    assert validate(ready).findings == []
    ready.pack.power_off("module1")
    ready.pack.stations["module1"].slots.files = copies
    ready.pack.power_on("module1")
    ready.pack.run_for(15_000)
    assert not ready.pack.node("pack").slots[record.node].active(ready.pack.now_ms)
    report = validate(ready)
    problems = {finding.problem for finding in report.findings if finding.lct_id == record.lct_id}
    assert "has gone back in time: its flash is an older copy" in problems
    assert any(problem.startswith("is in epoch 1, not 2") for problem in problems)
    assert any(item["event"] == "flash copy" for item in ready.store.audit_log)
    ready.run(ready.provisioner().install(record.lct_id))
    ready.pack.run_for(5000)
    assert ready.pack.node("pack").slots[record.node].active(ready.pack.now_ms)


def test_old_packages_and_old_epochs_are_refused_after_a_rotation_without_the_app(ready):
    """What the owner once sent is worth nothing: the counter is used, and so is its epoch."""
    sent = []
    station = ready.pack.stations["pack"]
    take = ready.pack.node("pack").endpoint.handle

    def recording(message):
        sent.append(provision.Message(message.kind, message.target, message.sequence, message.body))
        take(message)  # which gives the body's memory back

    station.node.endpoint.handle = recording
    ready.run(ready.provisioner().install(module_lct(ready, 1).lct_id))
    packages = [message for message in sent if message.kind == provision.PACKAGE]
    assert packages
    without_app(ready)
    rotate_alone(ready, 1)
    pack = ready.pack.node("pack")
    before = relation_of(pack, 1).epoch
    for message in packages:
        take(message)
    assert pack.counters["rollback"] == len(packages)
    assert relation_of(pack, 1).epoch == before == 3


def test_kinds_are_told_apart(ready):
    usages = ready.run(rotator(ready).survey())
    assert [usage.kind for usage in usages.values()].count(APP_PACK) == 1
