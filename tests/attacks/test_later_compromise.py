"""Attack: recorded traffic is read with keys that were stolen later.

Setting    a pack is commissioned and works, all of it recorded; then it gets its next epoch, and is captured
           after that.
Means      both key halves, salt and LCT half of every relationship (a stolen bridge or app data base, or a dishonest
           bridge), and the binding keys of the app and of every device, read out of their flash.
Success    would be one session key of the finished epoch: forward secrecy would be a word.
"""

import pytest

from attack_suite import Attack
from attacker import PACK, Secrets, Tap, commission, nodes_of, sessions
from packtrust.crypto import x25519, x25519_public
from packtrust.handshake import INITIATOR, Handshake
from packtrust.keys import SIDE_A, Relationship, epoch_root, fingerprint, pair_secret
from packtrust.policy import DEFAULT_POLICY
from packtrust.segmentation import Reassembler
from weakening import Weakening

ATTACK = Attack(
    name="later compromise",
    source="SPsec attack_seed_key_after_zero_key_onboarding; S3; S18",
    defence="the root of an epoch holds an ephemeral X25519 exchange that is wiped at once",
    without="static keys and a salt alone, as in the field's proposal",
    weakening=Weakening(
        (
            "packtrust.pairing",
            "        dh_ephemeral = bytearray(x25519(self._ephemeral, peer))",
            "        dh_ephemeral = bytearray()",
        )
    ),
)

ROWS = {0x539: 0x531, 0x433: 0x434}  # HELLO's base -> REPLY's


def handshakes(tap):
    """(node byte, HELLO, REPLY) of each handshake on the bus."""
    reassembler = Reassembler(64)
    hellos = {}
    found = []
    for when_ms, _, frame in tap.frames:
        base = frame.arbitration_id >> 18
        if not frame.is_extended_id or base not in (*ROWS, *ROWS.values()):
            continue
        payload = reassembler.feed(frame, when_ms)
        node = frame.arbitration_id & 0xFF
        if payload is not None and payload[0] == 1:
            hellos[node] = bytes(payload)
        elif payload is not None and payload[0] == 2 and node in hellos:
            found.append((node, hellos[node], bytes(payload)))
    return found


def roots(content, private, peer_private):
    """What can be made of halves, salt and both static keys."""
    secret = pair_secret(content.half_a, content.half_b, content.salt)
    static = x25519(private, x25519_public(peer_private))
    for shared in (b"", static, bytes(32)):
        for ephemeral in (b"", static, bytes(32), content.salt):
            yield epoch_root(secret, shared, ephemeral)
    yield content.salt
    if any(content.lct_half):
        yield bytes(content.lct_half[:32])


def carry_out(bench):
    taps = [Tap(bench, "vcu"), Tap(bench, "module")]
    with Secrets() as secrets:
        commission(bench)
    recorded = [item for tap in taps for item in handshakes(tap)]
    for tap in taps:
        tap.stop()
    for name in list(bench.store.relationships):
        bench.run(bench.provisioner().install(name))
    assert bench.pack.run_until(lambda: sessions(bench), 20_000)
    privates = [bytes(bench.store.private_key), *(bytes(node.identity.private) for node in nodes_of(bench))]
    prints = [fingerprint(x25519_public(private)) for private in privates]
    tried = opened = 0
    for content in secrets.packages:
        for node, hello, reply in recorded:
            if node != content.node:
                continue
            ends = (0, 1) if node == PACK else (1, 1 + [n.own_node for n in nodes_of(bench)].index(node))
            relationship = Relationship(
                content.component_a, content.component_b, content.lct_id, prints[ends[0]], prints[ends[1]]
            )
            for root in roots(content, privates[ends[0]], privates[ends[1]]):
                boot = int.from_bytes(hello[7:11], "big")
                guess = Handshake(
                    INITIATOR, root, relationship, content.epoch, SIDE_A, DEFAULT_POLICY.digest, boot, hello[11:27]
                )
                tried += 1
                opened += guess.feed(reply) is not None
    assert tried > 50
    return "%d recorded sessions open with what was stolen later" % opened if opened else ""


@pytest.mark.timeout(60)
def test_attack(fresh):
    assert carry_out(fresh) == ""


def test_control(weak_fresh):
    assert carry_out(weak_fresh)
