"""Attack: a device that is trusted much gets weaker protection.

Setting    a device takes a package that asks for another algorithm, IV source or no limit: what the field's proposal
           lets follow from a high T3 score.
Means      packages of the device's true owner, with every value of the fields for algorithm and IV source; records with
           tags of fewer bytes under the live session's own keys.
Success    would be a package that is taken, or a record with a shorter tag that is opened.
"""

from attack_suite import Attack
from attacker import PACK, attacker, rogue_app, sealing, unharmed
from packtrust import package, provision
from packtrust.arbitration import ENCRYPTED, compose
from packtrust.segmentation import Segmenter
from weakening import Weakening

ATTACK = Attack(
    name="weaker protection by trust",
    source="S14",
    defence="one algorithm, one tag length, whatever the trust score; a package that names another is refused",
    without="a device that takes any algorithm its owner names",
    weakening=Weakening(
        ("packtrust.package", "    if algorithm != ALGORITHM_AES256_GCM or iv_source != IV_DERIVED:", "    if False:")
    ),
)

ALGORITHM_AT = 6 + 9  # in the plaintext: head, then epoch (4), role, side, node, scope (2)


def carry_out(bench):
    """The true owner (he has the claim code) asks the pack for something weaker."""
    bench.pack.run_for(2000)
    node = bench.pack.node("pack")
    owner = rogue_app(bench, "owner")
    identity = owner.identify(PACK)
    code = bytes(node.claim_code())
    taken = []
    for at, value in [(0, 0), (0, 2), (0, 255), (1, 0), (1, 2), (1, 255)]:
        content = owner.make_package(identity, PACK, "lct-app", owner.public)
        plain = bytearray(content.encode())
        assert plain[ALGORITHM_AT : ALGORITHM_AT + 2] == b"\x01\x01"
        plain[ALGORITHM_AT + at] = value
        content.encode = lambda plain=plain: bytearray(plain)
        body, _, _ = package.seal(content, identity.public_key, owner.private, owner.entropy(32), code)
        message = owner.ask(PACK, provision.PACKAGE, body)
        if message.kind == provision.RECEIPT:
            taken.append((at, value))
            break
    return "a package with field %d = %d is taken" % taken[0] if taken else ""


def test_attack(fresh):
    assert carry_out(fresh) == ""
    assert not fresh.pack.node("pack").identity.claimed


def test_control(weak_fresh):
    assert carry_out(weak_fresh)


def test_a_shorter_tag_opens_nothing(keyed):
    """Sealed with the session's true keys, and the tag cut to what the field's addendum thinks enough."""
    module = keyed.pack.node("module1")
    slot = next(item for item in keyed.pack.node("pack").keyed_slots() if item.number == module.own_node)
    channel = slot.channel
    keyed.pack.power_off("pack")
    station = attacker(keyed, "module")
    segmenter = Segmenter()
    opened = module._pack.channel.stats["opened"]
    full_id = compose(0x517, module.own_node) | ENCRYPTED
    cipher = sealing(channel)
    counter = channel._session.sealed + 1
    for size in (0, 4, 8, 12, 15):
        record = cipher.seal(full_id, counter, bytes(4) + b"\x03")
        station.send(*segmenter.split(full_id, record[: len(record) - 16 + size]))
        keyed.pack.run_for(20)
    assert module._pack.channel.stats["opened"] == opened
    keyed.pack.power_on("pack")
    unharmed(keyed)
