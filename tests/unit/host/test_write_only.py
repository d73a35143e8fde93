"""A node's store is write-only to the outside: whatever is asked, on the buses or at the console, no key comes out.

Every message kind there is, from its owner and from strangers, every console command, and what the node says by itself
is looked through for any six bytes of any secret: in each frame, in each record before it is sealed, and as hex or
Base64 in text.
"""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest

from app_bench import AppBench
from attacker import attacker, commission, leave, modules_of, nodes_of, rogue_app, to_pack, transfer
from packtrust import provision
from packtrust import testwire as wire
from packtrust.arbitration import compose
from packtrust.crypto import hkdf
from packtrust.frame import Frame
from packtrust.messages.table import STATE_OFF, STATE_ON
from packtrust_node.console import Console
from packtrust_node.neighbour import Neighbour
from weakening import weakened

WINDOW = 6  # any so many bytes in a row; an ISO-TP frame has seven


class Watch:
    """Collects the secrets of all nodes, and everything that leaves them."""

    def __init__(self, bench: AppBench) -> None:
        self.bench = bench
        self.windows: set[bytes] = set()
        self.said: list[tuple[str, bytes]] = []
        self.text: list[str] = []
        self.seen = dict.fromkeys(bench.pack.buses, 0)
        for name, bus in bench.pack.buses.items():
            bus.listeners.append(lambda frame, sender, start, end, name=name: self._frame(name, frame, sender))

    def _frame(self, bus: str, frame: Any, sender: str) -> None:
        if sender == "pack" or sender.startswith("module"):
            self.seen[bus] += 1
            self.said.append(("frame %08x of %s" % (frame.arbitration_id, sender), bytes(frame.data)))

    def learn(self) -> None:
        """Take note of every secret there is now."""
        for node in nodes_of(self.bench):
            found = [node.identity.private]
            seed = node.env.store._slots.read("store.key")[:32]
            found += [seed, hkdf(seed, node.unique_id.to_bytes(4, "big"), b"packtrust v1 store", 32)]
            for relation in node.relations.values():
                found += [relation.root, relation.lct_half]
                if relation.previous is not None:
                    found.append(relation.previous[1])
            neighbours = [node.app, *(slot for slot in node.keyed_slots())] if hasattr(node, "slots") else []
            neighbours.append(node.neighbour(node.own_node))
            for neighbour in neighbours:
                channel = None if neighbour is None else neighbour.channel
                if channel is not None and channel._session is not None:
                    found += [channel._session.state[:32], channel._session.state[32:64]]
            for staged in node.endpoint._staged:
                found.append(staged.receipt_key)
            record = node.env.store.read("audit")
            if record is not None:
                found.append(record[22:54])  # key of the next entry
            for secret in found:
                raw = bytes(secret)
                if any(raw):
                    self.windows.update(raw[at : at + WINDOW] for at in range(len(raw) - WINDOW + 1))

    def add(self, raw: bytes) -> None:
        """One more secret."""
        self.windows.update(raw[at : at + WINDOW] for at in range(len(raw) - WINDOW + 1))

    def check(self) -> None:
        """None of it came out."""
        for where, data in self.said:
            for at in range(len(data) - WINDOW + 1):
                assert data[at : at + WINDOW] not in self.windows, "a secret in %s" % where
        hexed = {window.hex() for window in self.windows}
        coded = {base64.b64encode(window).decode() for window in self.windows}
        for line in self.text:
            low = line.lower()
            assert not any(low[at : at + 12] in hexed for at in range(len(low) - 11)), "a secret in hex"
            assert not any(line[at : at + 8] in coded for at in range(len(line) - 7)), "a secret in Base64"
            assert not any(repr(window)[2:-1] in line for window in self.windows if line.count("\\x") > 2)


@pytest.fixture
def watch(tmp_path, monkeypatch):
    bench = AppBench(tmp_path, modules=1)
    found = Watch(bench)
    seal = Neighbour.seal

    def sealed(self, base, data):
        found.said.append(("record %03x" % base, bytes(data)))
        return seal(self, base, data)

    monkeypatch.setattr(Neighbour, "seal", sealed)
    for node in nodes_of(bench):
        found.add(bytes(node.claim_code()))
    return found


def consoles(watch: Watch, claim: bool) -> None:
    """Every command at every console."""
    for name in ("pack", "module1"):
        node = watch.bench.pack.node(name)
        console = Console(node, node.config, watch.text.append, lambda: {"heap_free": 1})
        if claim:
            console.greet()
        for command in (
            b"help",
            b"id",
            b"stats",
            b"claim",
            b"log",
            b"key",
            b"store",
            b"identity.a",
            b"\xff\x00",
            b"x" * 90,
        ):
            console.feed(command + b"\n")
        watch.text += watch.bench.pack.stations[name].log
        watch.text.append(repr(node.identity) + repr(list(node.relations.values())) + repr(node.stats()))


def ask_all(watch: Watch) -> int:
    """Every message kind, with bodies of every form, from a stranger: the whole app of one, and bare frames."""
    bench = watch.bench
    rng = random.Random(3)
    rogue = rogue_app(bench)
    asked = 0
    targets = [0x40, bench.pack.node("module1").own_node]
    tags = [relation.tag for node in nodes_of(bench) for relation in node.relations.values()][:1] or [bytes(8)]
    for kind in range(0x80):
        for body in (b"", rng.randbytes(16), tags[0] + bytes(4), tags[0] + b"\0\0\0\1" + bytes(32), rng.randbytes(100)):
            for target in targets:
                try:
                    rogue.ask(target, kind, body, 400)
                except AssertionError:
                    pass  # no answer is an answer
                asked += 1
    leave(bench, "rogue")
    return asked


def ask_test_service(watch: Watch) -> None:
    """Every operation of the test service, at both ends."""
    bench = watch.bench
    for bus, tx, rx, node in (
        ("vcu", wire.TO_PACK, wire.FROM_PACK, 0x40),
        ("module", wire.TO_MODULE, wire.FROM_MODULE, bench.pack.node("module1").own_node),
    ):
        station = attacker(bench, bus)
        for op in (*wire.ARGUMENTS, 0, 99):
            arguments = [bytes(32)] * len(wire.ARGUMENTS.get(op, ()))
            for frame in transfer(tx, rx, node, wire.encode_request(op, 7, arguments)):
                station.send(frame)
                bench.pack.run_for(2)
            station.send(Frame(compose(tx, node), b"\x30\x00\x00"))
            bench.pack.run_for(300)
        leave(bench)


def whole_life(watch: Watch) -> None:
    """What an owner asks: everything that tests of the app ask for, until the release."""
    bench = watch.bench
    bench.survey = commission(bench)
    watch.learn()
    provisioner = bench.provisioner()
    bench.run(provisioner.attest(bench.survey.pack))
    for device in (bench.survey.pack, *bench.survey.modules):
        bench.run(provisioner.prove(device))
    number = modules_of(bench)[0].own_node
    record = next(item for item in bench.store.relationships.values() if item.node == number)
    task = bench.node.spawn(provisioner.install(record.lct_id), "rotate")
    while not task.done:
        bench.pack.run_for(20)
        watch.learn()
    task.result()
    for state in (STATE_ON, STATE_OFF):
        command = bench.node.set_state(state)
        assert bench.pack.run_until(lambda command=command: command.done, 10_000)
    bench.pack.run_for(3000)
    watch.learn()


def test_nothing_that_is_asked_brings_a_key_out(watch):
    whole_life(watch)
    consoles(watch, False)
    assert ask_all(watch) >= 1000
    ask_test_service(watch)
    watch.bench.pack.power_cycle("module1")
    watch.bench.pack.run_for(5000)
    watch.learn()
    consoles(watch, True)
    assert watch.seen["vcu"] > 500 and watch.seen["module"] > 500
    watch.check()


def test_a_claim_code_is_shown_by_its_own_console_and_nowhere_else(watch):
    bench = watch.bench
    ask_test_service(watch)
    watch.learn()
    consoles(watch, True)
    codes = [bytes(node.claim_code()).hex() for node in nodes_of(bench)]
    shown = [line for line in watch.text if any(code in line for code in codes)]
    assert sorted(set(shown)) == sorted("claim %s\n" % code for code in codes)
    watch.text = [line for line in watch.text if line not in shown]
    watch.check()
    assert "claim none\n" not in watch.text
    # Once it is claimed, not even there.
    bench.claim()
    commission(bench, claim=False)
    watch.text = []
    consoles(watch, True)
    assert "claim none\n" in watch.text
    watch.check()


LEAKS = {
    "in a provisioning message": ("packtrust_node.endpoint", "            identity.public,\n", "identity.private,\n"),
    "at the console": (
        "packtrust_node.node",
        '        yield "boot_counter", self.boot_counter\n',
        '        yield "key", "".join(["%02x" % byte for byte in self.identity.private])\n',
    ),
    "in the log": (
        "packtrust_node.node",
        "        self.relations[node] = relation\n",
        "        self.relations[node] = relation\n        self.env.log(bytes(relation.root).hex())\n",
    ),
}


@pytest.mark.parametrize("where", LEAKS)
def test_a_leak_is_found(watch, where):
    module, old, new = LEAKS[where]
    with weakened(module, (old, new)):
        watch.learn()
        if where == "in a provisioning message":
            for frame in to_pack(provision.IDENTIFY, 0x40, b""):
                attacker(watch.bench, "vcu").send(frame)
                watch.bench.pack.run_for(50)
                leave(watch.bench)
        else:
            watch.bench.survey = commission(watch.bench)
            watch.learn()
            consoles(watch, False)
    with pytest.raises(AssertionError, match="a secret in"):
        watch.check()
