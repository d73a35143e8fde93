"""Pack and modules wired directly: bytes nobody should send, lost frames, 31 modules, where secrets must not show."""

import json
import random

import pytest

from nodebench import MODULE_BUS, PACK_NODE, VCU_BUS, App, Bench, keyed_bench
from packtrust import provision
from packtrust.frame import Frame
from packtrust.messages import MESSAGES
from packtrust_node import opening
from packtrust_node.slots import MISSES

BASES = [row.base for row in MESSAGES] + [0, 0x7FF, 0x3F1]


def modules_of(bench):
    return [node for name, node in bench.nodes.items() if name != "pack"]


def random_frame(source, bus):
    """Any frame a controller can deliver, with a liking for IDs that mean something."""
    base = source.choice(BASES)
    node = source.choice([0, 1, 2, 3, 0x40, 0x41, 0x7F, 0xFF, source.randrange(256)])
    data = source.randbytes(source.choice([0, 1, 2, 3, 4, 6, 8, 8, 8, 8]))
    if bus == VCU_BUS and source.random() < 0.2:
        return Frame(source.randrange(0x800), data, False)
    middle = source.choice([0, 0, 0x20000, 0x20000, 0x10000, 0x30000, source.randrange(1 << 10) << 8])
    if source.random() < 0.3:
        last = source.randrange(16)
        middle = middle & 0x30000 | last << 8 | source.randrange(last + 1) << 12
    return Frame(base << 18 | middle & 0x3FF00 | node, data)


def snapshot(bench):
    """What no frame without keys may change."""
    return [
        (
            node.identity.public,
            node.identity.owner_public,
            bytes(node.identity.claim_code),
            node.identity.counter,
            sorted((relation.tag, relation.epoch) for relation in node.relations.values()),
        )
        for node in bench.nodes.values()
    ]


@pytest.mark.parametrize("seed", range(6))
def test_random_frames_change_nothing_and_raise_nothing(seed):
    source = random.Random(seed)
    if seed % 2:
        bench, app = keyed_bench(2)
        app.seal("COMMAND", contactor_state=3)
        bench.run(200)
        assert [module.state for module in modules_of(bench)] == [3, 3]
    else:
        bench = Bench(2)
        app = App(bench)
        bench.run(500)
    before = snapshot(bench)
    for _ in range(150):
        for _ in range(20):
            bus = source.randrange(2)
            bench.inject(bus, random_frame(source, bus))
        bench.run(20)
    bench.sound()
    assert snapshot(bench) == before
    if seed % 2:
        assert [module.state for module in modules_of(bench)] == [3, 3]
        bench.run(1500)
        assert all(slot.established and not slot.row[MISSES] for slot in bench.nodes["pack"].keyed_slots())
        assert app.channel.established


@pytest.mark.parametrize("seed", range(4))
def test_damaged_and_moved_frames_of_real_traffic(seed):
    """Real frames, one bit or the ID changed: refused and counted, and nothing else."""
    source = random.Random(seed)
    bench, app = keyed_bench(2)
    app.seal("COMMAND", contactor_state=1)
    bench.run(200)
    recorded = []

    def record(bus, sender, frame):
        recorded.append((bus, frame))

    bench.spy = record
    bench.run(1000)
    bench.spy = None
    before = snapshot(bench)
    for _ in range(1500):
        bus, frame = source.choice(recorded)
        data = bytearray(frame.data)
        arbitration_id = frame.arbitration_id
        if source.random() < 0.7 and data:
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)
        else:
            arbitration_id ^= 1 << source.randrange(29 if frame.is_extended_id else 11)
        bench.inject(bus, Frame(arbitration_id, bytes(data), frame.is_extended_id))
        if source.random() < 0.1:
            bench.run(10)
    bench.run(2500)
    bench.sound()
    assert snapshot(bench) == before
    assert [module.state for module in modules_of(bench)] == [1, 1]
    assert all(slot.established and not slot.row[MISSES] for slot in bench.nodes["pack"].keyed_slots())


@pytest.mark.parametrize("seed", range(3))
def test_random_provisioning_messages(seed):
    """Well-framed messages with senseless content, to a device somebody owns and to one that is free."""
    source = random.Random(seed)
    bench = Bench(1)
    bench.until(lambda: len(bench.nodes["pack"].slots) == 1)
    bench.run(100)
    app = App(bench)
    pack = bench.nodes["pack"]
    if seed:
        app.claim_pack(pack.claim_code())
    before = snapshot(bench)
    rogue = App(bench, "rogue")
    for _ in range(120):
        kind = source.choice([*range(0x12), 0x7F, source.randrange(256)])
        size = source.choice([0, 1, 12, 16, 44, 80, 81, 113, 200, 400, 900, 1100, source.randrange(700)])
        target = source.choice([PACK_NODE, PACK_NODE, 1, 9])
        rogue.post(target, kind, source.randbytes(size))
        bench.run(60)
    bench.run(2000)
    bench.sound()
    assert snapshot(bench) == before
    assert rogue.identify(PACK_NODE).unique_id == 0x50000001
    answers = {message.kind for message in rogue.messages}
    assert answers <= {provision.REFUSED, provision.IDENTITY, provision.MODULES, provision.PROOF, provision.ATTESTATION}


@pytest.mark.parametrize("loss", [0.002, 0.02])
def test_lost_and_repeated_frames_end_in_the_same_state(loss):
    source = random.Random(3)
    bench, app = keyed_bench(3)
    pack = bench.nodes["pack"]

    def unreliable(bus, sender, frame):
        if source.random() < loss:
            return False
        if source.random() < loss:
            bench.queue.insert(0, (bus, "again", frame))  # CAN may deliver twice
        return True

    bench.spy = unreliable
    bench.run(20000)
    answered, missed = pack.latency.answered, pack.latency.missed
    assert answered > 20
    assert missed > 0
    bench.spy = None
    bench.run(3000)
    assert all(slot.established and not slot.row[MISSES] for slot in pack.keyed_slots())
    app.seal("COMMAND", contactor_state=3)
    bench.run(300)
    assert [module.state for module in modules_of(bench)] == [3, 3, 3]
    bench.sound()


def test_thirty_one_modules():
    bench, app = keyed_bench(31)
    pack = bench.nodes["pack"]
    assert len(pack.keyed_slots()) == 31
    answered = pack.latency.answered
    bench.run(3200)
    assert pack.latency.missed == 0 and pack.latency.answered - answered in (31, 32)
    app.seal("COMMAND", contactor_state=3)
    bench.run(300)
    assert {module.state for module in modules_of(bench)} == {3}
    assert app.values["BMS_STATE"]["modules_active"] == 31
    bench.run(600)
    assert app.values["PACK_POWER"]["current_ma"] == -31 * 20000
    identity = app.identify(PACK_NODE)
    key = provision.owner_key(app.private, identity.public_key, pack.identity.fingerprint, app.fingerprint)
    nonce = app.entropy(16)
    got = provision.parse_attestation(app.ask(PACK_NODE, provision.ATTEST, nonce).body, key, nonce)
    assert len(got.entries) == 31
    message = app.ask(PACK_NODE, provision.PROVE, nonce)
    assert provision.check_mac(key, provision.PROOF, message.body, nonce)[32] == 32
    bench.sound()


def secrets_of(bench, app):
    found = []
    for node in bench.nodes.values():
        found.append(bytes(node.identity.private))
        for relation in node.relations.values():
            found.append(bytes(relation.root))
            if relation.lct_half:
                found.append(bytes(relation.lct_half))
    for lct_id in ("lct-app", "lct-1", "lct-2"):
        found.extend(app.halves(lct_id))
    return found


def test_secrets_show_nowhere():
    bench = Bench(2)
    codes = [node.claim_code() for node in bench.nodes.values()]
    app = App(bench)
    seen = []
    bench.spy = lambda bus, sender, frame: seen.append(bytes(frame.data))
    bench.until(lambda: len(bench.nodes["pack"].slots) == 2)
    bench.run(100)
    app.claim_pack(bench.nodes["pack"].claim_code())
    for module in modules_of(bench):
        app.introduce(module.own_node, module.claim_code())
    app.introduce(1)  # a rotation, too
    bench.run(2000)
    secrets = secrets_of(bench, app) + codes
    assert len(secrets) == 3 + 5 + 1 + 6 + 3
    wire = b"".join(seen)
    text = "".join(line for env in bench.envs.values() for line in env.lines)
    text += "".join(json.dumps(node.stats()) for node in bench.nodes.values())
    text += repr([node.__dict__ for node in bench.nodes.values()])
    stored = b"".join(data for env in bench.envs.values() for data in env.slots.files.values())
    for secret in secrets:
        assert secret not in wire
        for at in range(len(secret) - 7):
            assert secret[at : at + 8] not in wire
        assert secret.hex() not in text
        assert repr(secret)[2:-1] not in text
        assert secret not in stored
    bench.sound()


def staged_at_pack():
    """(bench, app, pack, the receipt awaited, what is staged): the pack has taken its package, not the COMMIT."""
    bench = Bench(1)
    app = App(bench)
    bench.run(300)
    pack = bench.nodes["pack"]
    wanted = app.claim_pack(pack.claim_code(), commit=False)
    return bench, app, pack, wanted, pack.endpoint._staged[0]


def test_halves_are_wiped_after_the_exchange(monkeypatch):
    contents = []
    real = opening.open_package

    def open_package(identity, body):
        opened = real(identity, body)
        contents.append(opened[0])
        assert any(contents[-1].half_a) and any(contents[-1].half_b)
        return opened

    monkeypatch.setattr(opening, "open_package", open_package)
    bench, app, pack, wanted, staged = staged_at_pack()
    assert contents and not any(any(content.half_a) or any(content.half_b) for content in contents)
    exchange = staged.exchange
    root = exchange.root
    assert any(root) and not any(exchange._ephemeral) and not any(exchange._secret)
    assert app.order(wanted, provision.COMMIT) == 0
    assert not any(root)  # the relation has its own copy
    assert any(pack.app.relation.root)
    receipt_key = pack.finished[0][2]
    bench.run(4000)
    assert pack._endpoint is None and any(receipt_key)
    assert app.order(wanted, provision.COMMIT) == 0  # an app whose answer was lost asks again
    bench.run(31000)
    assert pack.finished == [] and not any(receipt_key)


def test_an_endpoint_that_gives_way_to_a_package_leaves_what_is_staged():
    """As on a small board, where a package is opened without the endpoint's code."""
    _, app, pack, wanted, staged = staged_at_pack()
    assert not pack._put_away() and pack._put_away(True)
    assert pack._endpoint is None
    assert app.order(wanted, provision.COMMIT) == 0
    assert pack.relations and pack.finished[0][2] is staged.receipt_key


def test_what_is_staged_is_given_up_also_if_the_endpoint_never_came_back():
    bench, _, pack, _, staged = staged_at_pack()
    assert pack._put_away(True) and pack._endpoint is None and any(staged.receipt_key)
    bench.run(31000)
    assert pack.counters["stage-timeout"] == 1 and not any(staged.receipt_key)


def test_flood_of_messages_is_bounded():
    """An app that never gives flow control fills no memory."""
    bench = Bench(1)
    bench.run(300)
    pack = bench.nodes["pack"]
    identify = provision.frame_message(provision.IDENTIFY, PACK_NODE, 1)
    relayed = provision.frame_message(provision.IDENTIFY, 1, 1)
    for payload in [identify, relayed] * 40:
        frame = Frame(0x431 << 18 | PACK_NODE, bytes((len(payload),)) + payload)
        bench.inject(VCU_BUS, frame)
    link = pack._post._links[0x431 << 18 | PACK_NODE]
    assert len(link._waiting) <= 8 and link.overflowed > 0
    assert len(pack._post._links) <= 4
    bench.run(20000)
    assert App(bench).identify(PACK_NODE).serial == "PACK"
    bench.sound()


def test_oversize_transfer_is_refused_by_flow_control():
    bench = Bench(1)
    bench.run(300)
    since_ms = bench.now_ms
    bench.inject(VCU_BUS, Frame(0x431 << 18 | PACK_NODE, b"\x1f\xff" + bytes(6)))
    frames = bench.frames(VCU_BUS, 0x432, since_ms=since_ms)
    assert bytes(frames[0][1].data) == b"\x32\x00\x00"
    bench.run(100)
    assert bench.nodes["pack"]._post.dropped == {"oversize": 1}


def test_module_bus_hears_nothing_of_the_vcu_bus():
    """A frame for the other bus is not taken: the pack is a gateway, not a bridge."""
    bench, _ = keyed_bench(1)
    module = modules_of(bench)[0]
    opened = module._pack.channel.stats["opened"]
    frames = []
    bench.spy = lambda bus, sender, frame: frames.append(frame) if sender == "pack" and bus == MODULE_BUS else None
    bench.run(100)
    bench.spy = None
    grown = module._pack.channel.stats["opened"]
    assert grown > opened
    for frame in frames:
        bench.inject(VCU_BUS, frame)
    assert module._pack.channel.stats["opened"] == grown
    bench.sound()
