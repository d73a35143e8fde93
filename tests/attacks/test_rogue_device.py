"""Attack: a device of the attacker's in a real one's place.

Setting    a module is taken off the bus, before it was claimed or after it was keyed; another board sits there with the
           same unique id, serial and number.
Means      its own binding key, the real one's public key, every frame that was ever on the buses.
Success    would be a package it can open, a session with the pack, telemetry the app believes, or a validation that
           finds nothing.
"""

import pytest

from attack_suite import Attack
from attacker import announcement, attacker, clear_frame, commission, leave, unharmed
from packtrust import package, provision
from packtrust.arbitration import compose
from packtrust.crypto import InvalidTag
from packtrust.segmentation import Segmenter
from packtrust_host.app.errors import ProofFailed, ProvisioningFailed
from packtrust_host.app.validate import Validator
from packtrust_node.store import MemorySlots
from weakening import Weakening

ATTACK = Attack(
    name="copied serial without keys",
    source="S15; own",
    defence="a session needs the epoch's root: the handshake's MACs; a package opens with the binding key alone",
    without="an initiator that does not check the MAC of a REPLY",
    weakening=Weakening(
        (
            "packtrust.handshake",
            '        if not self._is_proof(payload[25:57], b"reply"):',
            "        if False:",
        ),
    ),
)


def swap(bench, name):
    """Another board in its place: nothing of the real one's flash. The real flash, to put back."""
    station = bench.pack.stations[name]
    bench.pack.power_off(name)
    real, station.slots = station.slots, MemorySlots()
    bench.pack.power_on(name)
    bench.pack.run_for(3000)
    return real


def restore(bench, name, slots):
    bench.pack.power_off(name)
    bench.pack.stations[name].slots = slots
    bench.pack.power_on(name)


def test_an_impostor_before_the_claim_opens_nothing(fresh):
    """The claim code typed in is the real device's; the package is sealed to the impostor's key and that code."""
    codes = {name: bytes(fresh.pack.node(name).claim_code()) for name in ("pack", "module1", "module2")}
    real = swap(fresh, "module1")
    impostor = fresh.pack.node("module1")
    assert impostor.claim_code() != codes["module1"]
    seen = []
    endpoint = impostor.endpoint
    handle = endpoint.handle
    endpoint.handle = lambda message: (seen.append((message.kind, message.body)), handle(message))
    for name, code in codes.items():
        fresh.store.add_claim(code, unique_id=fresh.pack.node(name).unique_id)
    with pytest.raises(ProvisioningFailed, match="does not open"):
        fresh.run(fresh.provisioner().commission(fresh.register, expected_modules=2))
    packages = [body for kind, body in seen if kind == provision.PACKAGE]
    assert packages
    # With its own private key in his hands he still lacks the code, and any other will not do.
    for body in packages:
        for guess in (bytes(impostor.claim_code()), bytes(16), b"\xff" * 16):
            with pytest.raises(InvalidTag):
                package.open_sealed(body, impostor.identity.private, impostor.identity.fingerprint, guess)
        # The control: with the code it would have opened.
        opened, _, _ = package.open_sealed(
            body, impostor.identity.private, impostor.identity.fingerprint, codes["module1"]
        )
        assert opened.lct_id
    assert impostor.relations == {}
    # The real one is put back: its code still stands, and it is claimed.
    restore(fresh, "module1", real)
    fresh.pack.run_for(3000)
    commission(fresh, claim=False)
    unharmed(fresh)


def test_an_impostor_of_a_keyed_module_gets_no_session(keyed):
    pack = keyed.pack.node("pack")
    number = keyed.pack.node("module1").own_node
    slot = pack.slots[number]
    real = swap(keyed, "module1")
    impostor = keyed.pack.node("module1")
    opened = slot.channel.stats["opened"]
    keyed.pack.run_for(15_000)
    assert slot.channel.stats["opened"] == opened
    assert impostor.relations == {}
    assert number not in keyed.node.model.online(keyed.pack.now_ms)
    with pytest.raises(ProofFailed, match="another binding key than the one it proved before"):
        keyed.run(keyed.provisioner().survey(expected_modules=2))
    findings = keyed.run(Validator(keyed.provisioner(), None).run()).findings
    assert findings, "validation must name it"
    # The control: with the real one back all is as before.
    restore(keyed, "module1", real)
    unharmed(keyed)
    assert keyed.run(Validator(keyed.provisioner(), None).run()).findings == []


def test_an_impostor_with_the_real_ones_public_key(keyed):
    """It answers IDENTIFY and PROVE with the registered key, for that one is no secret; it cannot prove it."""
    name = "module1"
    public = bytes(keyed.pack.node(name).identity.public)
    real = swap(keyed, name)
    impostor = keyed.pack.node(name)
    impostor.identity.public = public
    impostor.identity.owner_public = keyed.store.public_key
    impostor.endpoint.clear()
    findings = keyed.run(Validator(keyed.provisioner(), None).run()).findings
    assert findings
    restore(keyed, name, real)
    unharmed(keyed)


def test_the_owners_packages_do_not_open_on_another_device(keyed):
    """Recorded packages of a later epoch, given to a device that has not their key: mode Auth needs the private one."""
    seen = []
    node = keyed.pack.node("module1")
    handle = node.endpoint.handle
    node.endpoint.handle = lambda message: (seen.append((message.kind, message.body)), handle(message))
    record = next(r for r in keyed.store.relationships.values() if r.node == node.own_node)
    keyed.run(keyed.provisioner().install(record.lct_id))
    bodies = [body for kind, body in seen if kind == provision.PACKAGE]
    assert bodies
    other = keyed.pack.node("module2").identity
    for body in bodies:
        with pytest.raises(InvalidTag):
            package.open_sealed(body, other.private, other.fingerprint)
        content, _, _ = package.open_sealed(body, node.identity.private, node.identity.fingerprint)
        assert content.epoch == 2


def test_announcements_of_strangers_displace_nobody(keyed):
    """Unique ids out of thin air at every number, the keyed ones too, and the keyed modules' own at others."""
    pack = keyed.pack.node("pack")
    before = {number: slot.unique_id for number, slot in pack.slots.items()}
    stranger = attacker(keyed, "module")
    for number in [*range(1, 32), 0xFF]:
        for unique_id in (0xDEAD0000 + number, *before.values()):
            stranger.send(
                clear_frame("ANNOUNCEMENT", number, firmware_build=1, manufacturer=2, part=3, unique_id=unique_id)
            )
        keyed.pack.run_for(50)
    assert len(pack.slots) <= 31
    for number, unique_id in before.items():
        assert pack.slots[number].unique_id == unique_id
        assert pack.slots[number].established
    assert {node.own_node for node in map(keyed.pack.node, ("module1", "module2"))} == set(before)
    unharmed(keyed)


def carry_out(bench):
    """Module 1 is gone; who sits in its place answers every HELLO with a REPLY of the right form."""
    pack = bench.pack.node("pack")
    bench.pack.run_for(1000)  # records have come: the handshake before is over
    bench.pack.power_off("module1")
    unique_id = bench.pack.configs["module1"]["unique_id"]
    slot = next(slot for slot in pack.slots.values() if slot.unique_id == unique_id)
    count = slot.channel.stats["established"]
    station = attacker(bench, "module")
    answer = Segmenter()
    for step in range(60):
        del station.heard[:]
        if step % 10 == 0:
            station.send(announcement(slot))
        bench.pack.run_for(100)
        if any(frame.arbitration_id >> 18 == 0x539 for frame in station.heard):
            reply = bytes((2,)) + slot.channel.epoch.to_bytes(4, "big") + bytes(4) + bytes(16) + bytes(32)
            station.send(*answer.split(compose(0x531, slot.number), reply))
    sessions_made = slot.channel.stats["established"] - count
    return "the pack holds a session with a board that has no keys" if sessions_made else ""


def test_attack(keyed):
    assert carry_out(keyed) == ""
    keyed.pack.power_on("module1")
    leave(keyed)
    unharmed(keyed)


def test_control(weak):
    assert carry_out(weak)
