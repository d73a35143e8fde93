"""Attack: back to the time before there were keys.

Setting    a keyed pack at work, its app beside it.
Means      a station on each bus: telemetry in clear with lies in it, announcements that say "not keyed", handshakes of
           an epoch that is over, the test service, the clear first transfer.
Success    would be a lie in the app's model or the pack's, a session under old keys, or a node that computes for him.
"""

from app_bench import AppBench
from attack_suite import Attack
from attacker import (
    PACK,
    Tap,
    attacker,
    clear_frame,
    commission,
    leave,
    modules_of,
    nodes_of,
    rogue_app,
    sessions,
    total,
    transfer,
    unharmed,
)
from packtrust import provision
from packtrust import testwire as wire
from packtrust.arbitration import compose
from packtrust.frame import Frame
from packtrust.isotp import IsoTpLink
from packtrust.messages import MESSAGES, standard_id
from packtrust.messages.table import STATE_OFF, STATE_ON
from packtrust.segmentation import Segmenter
from weakening import Weakening

ATTACK = Attack(
    name="downgrade",
    source="S12",
    defence="telemetry of a keyed module counts sealed or not at all",
    without="a pack that believes its keyed modules in clear too",
    weakening=Weakening(
        (
            "packtrust_node.pack",
            'not DEFAULT_POLICY.clear_allowed(base, True):\n            self.count("clear")\n\n    # -- prov',
            "not DEFAULT_POLICY.clear_allowed(base, True):\n            self._on_record(slot, frame)\n\n    # -- prov",
        ),
    ),
)


def lies(row):
    """Two payloads of a row that differ from anything a healthy pack says."""
    size = max(row.dlc) if isinstance(row.dlc, tuple) else row.dlc
    return bytes((1,)) + b"\xff" * (min(size or 8, 8) - 1), b"\x02" + b"\x5a" * (min(size or 8, 8) - 1)


def honest(bench):
    """Everything in the app's model and the pack's view that a lie would show in."""
    model = bench.node.model
    for module in model.modules.values():
        assert module.state in (None, STATE_OFF)
        assert module.fault_code == 0
        assert module.current_ma in (None, 0)
        assert module.voltage_mv is None or 12 * 2500 < module.voltage_mv < 12 * 4200
        assert module.cell_min_mv is None or 2500 < module.cell_min_mv < 4200
        assert module.soc_permille is None or module.soc_permille <= 1000
    assert set(model.modules) <= {1, 2}
    for slot in bench.pack.node("pack").keyed_slots():
        assert slot.state == STATE_OFF
    return True


def test_clear_telemetry_with_lies_on_the_module_bus(keyed):
    station = attacker(keyed, "module")
    before = total(keyed.pack.node("pack"), "clear")
    sent = 0
    for _ in range(5):
        for row in MESSAGES:
            if row.direction != "M>P" or not row.is_sealable:
                continue
            for data in lies(row):
                for node in (1, 2):
                    station.send(Frame(compose(row.base, node), data))
                    sent += 1
            keyed.pack.run_for(7)
            assert honest(keyed)
    assert total(keyed.pack.node("pack"), "clear") - before > 0.9 * sent
    unharmed(keyed)


def test_clear_telemetry_with_lies_on_the_vcu_bus(keyed):
    station = attacker(keyed, "vcu")
    records = keyed.node.model.records
    for _ in range(5):
        for row in MESSAGES:
            if row.direction != "P>V" or not row.is_sealable:
                continue
            for data in lies(row):
                station.send(Frame(compose(row.base, PACK), data))
                if not row.is_extended:
                    station.send(Frame(standard_id(row), data, False))
            keyed.pack.run_for(11)
            assert honest(keyed)
    assert keyed.node.model.records > records  # the true ones go on
    unharmed(keyed)


def test_a_pack_that_is_said_to_have_no_keys(keyed):
    station = attacker(keyed, "vcu")
    unique_id = keyed.pack.node("pack").unique_id
    tap = Tap(keyed, "vcu")
    for _ in range(50):
        station.send(
            clear_frame("PACK_ANNOUNCEMENT", PACK, version=1, claimed=0, keyed=0, module_count=0, unique_id=unique_id)
        )
        keyed.pack.run_for(40)
    assert sessions(keyed)
    assert keyed.node.channel.session_epoch == 1
    # The app does not fall back to clear either: it commands by records alone.
    bases = {0x400, 0x401, 0x404, 0x405, 0x43A}
    clear = [
        frame
        for _, sender, frame in tap.stop()
        if sender == "app" and frame.is_extended_id and frame.arbitration_id >> 18 in bases
        if not frame.arbitration_id & 0x20000
    ]
    assert clear == []
    unharmed(keyed)


def test_a_module_that_is_said_to_be_unregistered(keyed):
    """Announcements of keyed modules with node byte 0xFF: the pack may register them anew, in clear, to no effect."""
    station = attacker(keyed, "module")
    tap = Tap(keyed, "module")
    numbers = [node.own_node for node in modules_of(keyed)]
    for _ in range(50):
        for node in modules_of(keyed):
            station.send(
                clear_frame("ANNOUNCEMENT", 0xFF, firmware_build=1, manufacturer=2, part=3, unique_id=node.unique_id)
            )
        keyed.pack.run_for(40)
    assert [node.own_node for node in modules_of(keyed)] == numbers
    assert sessions(keyed)
    for _, sender, frame in tap.stop():
        if sender in ("module1", "module2") and frame.is_extended_id:
            base = frame.arbitration_id >> 18
            assert frame.arbitration_id & 0x20000 or base in (0x500, 0x530, 0x531), hex(frame.arbitration_id)
    unharmed(keyed)


def test_handshakes_of_an_epoch_that_is_over(keyed):
    """Recorded under epoch 1 with its frames; the pair is at epoch 2 now."""
    tap = Tap(keyed, "module")
    keyed.pack.power_cycle("module1")
    assert keyed.pack.run_until(lambda: sessions(keyed), 10_000)
    recorded = [frame for _, _, frame in tap.stop() if frame.arbitration_id >> 18 in (0x531, 0x539)]
    assert recorded
    for name in list(keyed.store.relationships):
        keyed.run(keyed.provisioner().install(name))
    assert keyed.pack.run_until(lambda: sessions(keyed), 10_000)
    keyed.pack.run_for(2000)
    station = attacker(keyed, "module")
    for _ in range(3):
        for frame in recorded:
            station.send(frame)
            keyed.pack.run_for(2)
        keyed.pack.run_for(1200)
    assert sum(total(node, "handshake-epoch", "handshake-mac", "handshake-unexpected") for node in nodes_of(keyed)) > 0
    for node in modules_of(keyed):
        assert node.stats()["epoch"] == 2
    unharmed(keyed)


def test_a_forged_hello_touches_no_session(keyed):
    """Anybody may say HELLO; the session there is goes on until the peer's MAC verified."""
    station = attacker(keyed, "module")
    segmenter = Segmenter()
    opened = {node.unique_id: node.stats()["records"]["opened"] for node in modules_of(keyed)}
    for _ in range(10):
        for node in modules_of(keyed):
            hello = bytes((0x01, 1, 1)) + (1).to_bytes(4, "big") + bytes(4) + bytes(16)
            station.send(*segmenter.split(compose(0x539, node.own_node), hello))
        keyed.pack.run_for(300)
        assert sessions(keyed)
    for node in modules_of(keyed):
        assert node.stats()["records"]["opened"] > opened[node.unique_id] + 20
    unharmed(keyed)


def test_the_test_service_is_closed(keyed):
    """It computes with keys it is sent; on a keyed node it does not even that."""
    for bus, rows, nodes in (
        ("vcu", (wire.TO_PACK, wire.FROM_PACK), (PACK,)),
        ("module", (wire.TO_MODULE, wire.FROM_MODULE), (1, 2)),
    ):
        station = attacker(keyed, bus)
        for node in nodes:
            for op in range(9):
                del station.heard[:]
                station.send(*transfer(*rows, node, wire.encode_request(op, op + 1, (bytes(32),) * 4)))
                answer = IsoTpLink(compose(rows[0], node), compose(rows[1], node))
                payload = None
                keyed.pack.run_for(300)
                for frame in station.heard:
                    if frame.arbitration_id == answer.rx_id:
                        payload = answer.feed(frame, 0) or payload
                assert payload is not None
                reply = wire.decode_reply(payload)
                assert (reply.status, reply.result) == (wire.REFUSED_KEYED, b"")
        leave(keyed)
    unharmed(keyed)


def test_control_the_test_service_answers_before_keys(fresh):
    station = attacker(fresh, "vcu")
    fresh.pack.run_for(1000)
    station.send(*transfer(wire.TO_PACK, wire.FROM_PACK, PACK, wire.encode_request(0xEE, 1)))
    link = IsoTpLink(compose(wire.TO_PACK, PACK), compose(wire.FROM_PACK, PACK))
    fresh.pack.run_for(100)
    payloads = [link.feed(frame, 0) for frame in station.heard if frame.arbitration_id == link.rx_id]
    assert [wire.decode_reply(payload).status for payload in payloads] == [wire.UNKNOWN]


def test_the_clear_first_transfer_is_over_for_a_claimed_device(tmp_path):
    """Allowed by the boards' option, and used: a second one is refused, the owner's or anybody's."""
    bench = AppBench(tmp_path, modules=1, clear_first_transfer=True)
    commission(bench, clear_first_transfer=True)
    rogue = rogue_app(bench)
    for target in (PACK, 1):
        identity = rogue.identify(target)
        content = rogue.make_package(identity, target, "lct-app" if target == PACK else "lct-1", rogue.public)
        reason = rogue.refusal(target, provision.CLEAR, rogue.public + bytes(content.encode()))
        assert reason in (provision.REFUSED_NOT_OWNER, provision.REFUSED_STATE), provision.REASONS[reason]
    assert all(node.identity.owner_public == bench.store.public_key for node in nodes_of(bench))
    unharmed(bench)


def carry_out(bench):
    """A module that is Off says in clear that it is On."""
    slot = bench.pack.node("pack").keyed_slots()[0]
    station = attacker(bench, "module")
    station.send(clear_frame("STATUS_1", slot.number, state=STATE_ON, soc_permille=1000, soh_permille=1000))
    lied = bench.pack.run_until(lambda: slot.state == STATE_ON, 60)
    return "the pack believes a clear status" if lied else ""


def test_attack(keyed):
    assert carry_out(keyed) == ""
    unharmed(keyed)


def test_control(weak):
    assert carry_out(weak)
