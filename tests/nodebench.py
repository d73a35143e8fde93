"""A pack, its modules and an app wired by queues on a virtual clock: no bus, no process, the same on every interpreter.

`Bench` carries frames and time; `App` is the owner's side, built from the core alone.
"""

from packtrust import package, provision
from packtrust.channel import ESTABLISHED, OPENED, VCU_LINK, Channel
from packtrust.crypto import sha256, x25519, x25519_public
from packtrust.frame import Frame
from packtrust.handshake import INITIATOR, RESPONDER
from packtrust.isotp import IsoTpLink
from packtrust.keys import SIDE_A, SIDE_B, Relationship, fingerprint, pair_secret
from packtrust.messages import by_base, by_name, decode, encode
from packtrust.pairing import PairExchange, is_pairing
from packtrust.policy import DEFAULT_POLICY
from packtrust.segmentation import Reassembler, Segmenter
from packtrust.workspace import Workspace
from packtrust_node.cells import EcmCells
from packtrust_node.module import ModuleNode
from packtrust_node.pack import PackNode
from packtrust_node.store import MemorySlots, Store

VCU_BUS = 0
MODULE_BUS = 1
PACK_NODE = 0x40
ENCRYPTED = 0x20000


class Entropy:
    """Reproducible bytes, different for each name."""

    def __init__(self, name):
        self._name = name.encode()
        self._drawn = 0

    def __call__(self, count):
        out = b""
        while len(out) < count:
            self._drawn += 1
            out += sha256(self._name + b"%d" % self._drawn)
        return out[:count]


class Env:
    """packtrust_node.env.Env with the bench's clock and wires."""

    def __init__(self, bench, name, buses, slots, entropy=None, channels=32):
        self.bench = bench
        self.name = name
        self.buses = buses
        self.slots = slots
        self.urandom = entropy or Entropy(name)
        self.store = Store(slots, self.urandom, 1)
        self.workspace = Workspace(6, 40, channels)
        self.lines = []

    def now_ms(self):
        return self.bench.now_ms

    def send(self, port, frame):
        assert len(frame.data) <= 8
        self.bench.queue.append((self.buses[port], self.name, frame.copy()))

    def send_record(self, port, frames):
        for frame in frames:
            self.send(port, frame)

    def room(self, port):
        return self.bench.room

    def fd(self, port):
        return False

    def mix(self, boot_counter):
        """Its entropy differs by name; tests want it to repeat."""

    def log(self, text):
        self.lines.append(text)


class Bench:
    """Nodes by name; `run` moves time on, `deliver` frames. `spy(bus, sender, frame)` may return False to lose one."""

    def __init__(self, modules=2, pack_config=None, module_config=None, channels=32):
        self.channels = channels  # that a pack keeps whole
        self.now_ms = 1000
        self.room = 128  # frames that each queue takes
        self.queue = []
        self.nodes = {}
        self.envs = {}
        self.due = {}
        self.log = []
        self.keep = 200  # frames
        self.only = None  # function (bus, frame): which frames to keep; None: all
        self.spy = None
        self.app = None
        self._slots = {}
        self._configs = {"pack": {"role": "pack", "unique_id": 0x50000001, "serial": "PACK", "profile": "g", "pack": 0}}
        self._configs["pack"].update(pack_config or {})
        for number in range(modules):
            config = {
                "role": "module",
                "unique_id": 0xBA770001 + number,
                "serial": "MOD-%d" % number,
                "profile": "leaf",
                "cells": {"count": 6, "seed": number, "load_ma": -20000},
            }
            config.update(module_config or {})
            self._configs["module%d" % number] = config
        self._boots = 0
        for name in self._configs:
            self.boot(name)

    def boot(self, name, slots=None, entropy=None):
        """Switch a node on (again): only what its store has is left of it."""
        config = self._configs[name]
        self._boots += 1
        if slots is not None or name not in self._slots:
            self._slots[name] = slots or MemorySlots()
        buses = (VCU_BUS, MODULE_BUS) if name == "pack" else (MODULE_BUS,)
        entropy = entropy or Entropy("%s %d" % (name, self._boots))
        env = Env(self, name, buses, self._slots[name], entropy, self.channels)
        if name == "pack":
            node = PackNode(env, config)
        else:
            node = ModuleNode(env, config, EcmCells(config["cells"]))
        self.queue = [item for item in self.queue if item[1] != name]
        self.envs[name] = env
        self.nodes[name] = node
        self.due[name] = self.now_ms
        node.start()
        return node

    def off(self, name):
        """Switch a node off."""
        del self.nodes[name]

    def deliver(self):
        """Carry what is queued, and what that causes."""
        while self.queue:
            bus, sender, frame = self.queue.pop(0)
            if self.spy is not None and self.spy(bus, sender, frame) is False:
                continue
            if self.only is None or self.only(bus, frame):
                self.log.append((self.now_ms, bus, sender, frame))
            if len(self.log) > self.keep:
                del self.log[: self.keep // 2]  # a board's heap holds no more
            for name, node in list(self.nodes.items()):
                if name == sender:
                    continue
                buses = self.envs[name].buses
                if bus in buses:
                    node.on_frame(buses.index(bus), frame)
            if self.app is not None and bus == VCU_BUS and sender != self.app.name:
                self.app.on_frame(frame)

    def run(self, ms):
        """Let `ms` pass."""
        end_ms = self.now_ms + ms
        while True:
            self.deliver()
            if self.now_ms >= end_ms:
                return
            following_ms = min(end_ms, self.now_ms + 10)
            for name in self.nodes:
                following_ms = min(following_ms, self.due[name])
            self.now_ms = max(self.now_ms, following_ms)
            for name, node in list(self.nodes.items()):
                if self.now_ms >= self.due[name]:
                    self.due[name] = self.now_ms + node.on_tick()
            if self.app is not None:
                self.app.tick()

    def until(self, condition, ms=5000):
        """Run until `condition()` holds; AssertionError if it does not within `ms`."""
        end_ms = self.now_ms + ms
        while not condition():
            assert self.now_ms < end_ms, "not within %d ms" % ms
            self.run(5)

    def inject(self, bus, frame, sender="attacker"):
        """A frame of somebody who has no keys."""
        self.queue.append((bus, sender, frame))
        self.deliver()

    def frames(self, bus, base, encrypted=None, since_ms=0):
        """(time, frame) of the 29-bit frames of a base seen on a bus."""
        found = []
        for at_ms, on, _, frame in self.log:
            if on != bus or at_ms < since_ms or not frame.is_extended_id or frame.arbitration_id >> 18 != base:
                continue
            if encrypted is None or bool(frame.arbitration_id & ENCRYPTED) == encrypted:
                found.append((at_ms, frame))
        return found

    def sound(self):
        """No node has met an error of its own."""
        for name, node in self.nodes.items():
            assert node.counters["internal"] == 0, (name, node.counters, self.envs[name].lines)


class Wanted:
    """What an app knows of one relationship under way."""

    def __init__(self, tag, epoch, device, target, receipt_key):
        self.tag = tag
        self.epoch = epoch
        self.device = device
        self.target = target
        self.receipt_key = receipt_key


class App:
    """An owner. `private` is its binding key; `name` marks its frames."""

    def __init__(self, bench, name="app", seed=None, attach=True, policy=DEFAULT_POLICY):
        self.bench = bench
        self.name = name
        self.policy = policy
        self.entropy = Entropy(seed or name)
        self.private = bytearray(self.entropy(32))
        self.public = bytes(x25519_public(self.private))
        self.fingerprint = fingerprint(self.public)
        self.counter = 0
        self.epochs = {}
        self.channel = None
        self.messages = []  # unread, parsed
        self.refused = []
        self.results = []  # of commands: (command, module, result, reason, counter)
        self.values = {}  # newest opened message by name
        self.values_by = {}  # and module
        self.keep_alive = True
        self._alive_ms = 0
        self._sequence = 0
        self._link = IsoTpLink(0x431 << 18 | PACK_NODE, 0x432 << 18 | PACK_NODE, 4095)
        self._segmenter = Segmenter()
        self._reassembler = Reassembler()
        self._exchange = None
        self._roots = {}
        if attach:
            bench.app = self

    # -- wires

    def send(self, frame):
        self.bench.queue.append((VCU_BUS, self.name, frame.copy()))

    def _flush(self):
        for frame in self._link.outgoing():
            self.send(frame)
        if self.channel is not None:
            for frame in self.channel.outgoing():
                self.send(frame)

    def on_frame(self, frame):
        if not frame.is_extended_id or frame.arbitration_id & 0xFF != PACK_NODE:
            return
        if frame.arbitration_id == self._link.rx_id:
            payload = self._link.feed(frame, self.bench.now_ms)
            if payload is not None:
                self.messages.append(provision.parse(payload))
            self._flush()
            return
        if self._exchange is not None and frame.arbitration_id >> 18 == 0x434:
            payload = self._reassembler.feed(frame, self.bench.now_ms)
            if payload is not None and is_pairing(payload):
                answer = self._exchange.feed(payload)
                if answer is not None:
                    self.send_pairing(answer)
        if self.channel is not None:
            event = self.channel.feed(frame)
            self._flush()
            if event is None:
                return
            if event.kind == OPENED:
                self.take(event)
            elif event.kind != ESTABLISHED:
                self.refused.append(event.reason)

    def take(self, event):
        row = by_base(event.arbitration_id >> 18)
        values = decode(row, event.data)
        self.values[row.name] = values
        if row.name == "COMMAND_RESULT":
            self.results.append(
                (values["command"], values["module_id"], values["result"], values["reason"], values["counter"])
            )
        if "module_id" in values:
            self.values_by[(row.name, values["module_id"])] = values

    def tick(self):
        self._link.tick(self.bench.now_ms)
        if self.channel is not None:
            self.channel.tick()
            if self.keep_alive and self.channel.established and self.bench.now_ms - self._alive_ms >= 250:
                self._alive_ms = self.bench.now_ms
                self.seal("KEEP_ALIVE")
        self._flush()

    # -- provisioning

    def post(self, target, kind, body=b""):
        """Send a message; its sequence number."""
        self._sequence = self._sequence % 255 + 1
        self._link.send(provision.frame_message(kind, target, self._sequence, body), self.bench.now_ms)
        self._flush()
        return self._sequence

    def answer(self, sequence, ms=3000):
        """The answer with a sequence number."""
        end_ms = self.bench.now_ms + ms
        while self.bench.now_ms < end_ms:
            for message in self.messages:
                if message.sequence == sequence:
                    self.messages.remove(message)
                    return message
            self.bench.run(5)
        raise AssertionError("no answer within %d ms" % ms)

    def ask(self, target, kind, body=b"", ms=3000):
        return self.answer(self.post(target, kind, body), ms)

    def refusal(self, target, kind, body=b""):
        """The reason a message is refused for."""
        message = self.ask(target, kind, body)
        assert message.kind == provision.REFUSED, message.kind
        assert message.body[0] == kind
        return message.body[1]

    def identify(self, target):
        message = self.ask(target, provision.IDENTIFY)
        assert message.kind == provision.IDENTITY, message.body
        return provision.parse_identity(message.body)

    def halves(self, lct_id):
        """As the bridge would give them."""
        entropy = Entropy("halves " + lct_id)
        return entropy(64), entropy(64)

    def make_package(self, identity, target, lct_id, peer_public, **fields):
        """A key package for a device; `fields` override."""
        self.counter += 1
        half_a, half_b = self.halves(lct_id)
        to_pack = target == PACK_NODE
        values = {
            "counter": self.counter,
            "epoch": self.epochs.get(lct_id, 1),
            "role": RESPONDER,
            "side": SIDE_B,
            "node": target,
            "half_a": half_a,
            "half_b": half_b,
            "salt": sha256(b"salt %d" % self.epochs.get(lct_id, 1) + lct_id.encode()),
            "peer_public": peer_public,
            "lct_id": lct_id,
            "component_a": "COMP-A-" + lct_id,
            "component_b": "COMP-B-" + lct_id,
        }
        if to_pack and lct_id == "lct-app":
            values["scope"] = package.SCOPE_ALL
            values["lct_half"] = Entropy("lct half")(64)
        values.update(fields)
        return package.KeyPackage(**values)

    def give(self, target, content, identity, code=b"", check=True):
        """Seal and send a package; what its receipt proves, or the refusal's reason."""
        body, package_hash, receipt_key = package.seal(
            content, identity.public_key, self.private, self.entropy(32), code
        )
        message = self.ask(target, provision.PACKAGE, body)
        if message.kind == provision.REFUSED:
            assert not check, provision.REASONS[message.body[1]]
            return message.body[1]
        assert message.kind == provision.RECEIPT
        receipt = provision.check_mac(receipt_key, provision.RECEIPT, message.body)
        tag = sha256(content.lct_id.encode())[:8]
        assert receipt == provision.receipt_body(tag, content.epoch, content.counter, package_hash)
        return Wanted(tag, content.epoch, identity, target, receipt_key)

    def paired(self, wanted, peer_fingerprint, ms=5000):
        """Wait for PAIRED of a device and check it."""
        end_ms = self.bench.now_ms + ms
        while self.bench.now_ms < end_ms:
            for message in self.messages:
                if message.kind == provision.PAIRED and message.target == wanted.target:
                    content = provision.check_mac(wanted.receipt_key, provision.PAIRED, message.body)
                    if content is not None:
                        self.messages.remove(message)
                        assert content == provision.epoch_body(wanted.tag, wanted.epoch, peer_fingerprint)
                        return
            self.bench.run(5)
        raise AssertionError("no PAIRED within %d ms" % ms)

    def order(self, wanted, kind):
        """COMMIT or ABORT; the answer, checked."""
        body = provision.with_mac(wanted.receipt_key, kind, provision.epoch_body(wanted.tag, wanted.epoch))
        message = self.ask(wanted.target, kind, body)
        if message.kind == provision.REFUSED:
            return message.body[1]
        assert message.kind == kind + 1
        content = provision.check_mac(wanted.receipt_key, message.kind, message.body)
        assert content == provision.epoch_body(wanted.tag, wanted.epoch)
        return 0

    # -- the pair app and pack

    def claim_pack(self, code, scope=package.SCOPE_ALL, commit=True):
        """Give the pack the keys it shares with this app, and start a session."""
        identity = self.identify(PACK_NODE)
        self.counter = max(self.counter, identity.counter)
        self.epochs["lct-app"] = self.epochs.get("lct-app", 0) + 1
        content = self.make_package(identity, PACK_NODE, "lct-app", self.public, scope=scope)
        wanted = self.give(PACK_NODE, content, identity, code)
        exchange = self.exchange_with_pack(content, identity)
        self.paired(wanted, self.fingerprint)
        if not commit:
            return wanted
        assert self.order(wanted, provision.COMMIT) == 0
        self.open_channel(content, identity, exchange)
        return wanted

    def exchange_with_pack(self, content, identity):
        """Run the pair exchange as initiator."""
        half_a, half_b = self.halves(content.lct_id)
        relationship = self.relationship(content, identity)
        secret = pair_secret(half_a, half_b, content.salt)
        shared = x25519(self.private, identity.public_key)
        exchange = PairExchange(INITIATOR, secret, shared, relationship, content.epoch, self.entropy(32))
        self._exchange = exchange
        self.send_pairing(exchange.offer())
        self.bench.until(lambda: exchange.agreed)
        self._exchange = None
        return exchange

    def send_pairing(self, payload):
        if self.channel is not None:
            self.channel.send_pairing(payload)
            self._flush()
            return
        for frame in self._segmenter.split(0x433 << 18 | PACK_NODE, payload):
            self.send(frame)

    def relationship(self, content, identity):
        return Relationship(
            content.component_a,
            content.component_b,
            content.lct_id,
            self.fingerprint,
            fingerprint(identity.public_key),
        )

    def open_channel(self, content, identity, exchange):
        if self.channel is not None and self.channel.epoch < content.epoch:
            self.channel.install(exchange.root, content.epoch)
        else:
            self.channel = Channel(
                exchange.root,
                INITIATOR,
                PACK_NODE,
                clock=lambda: self.bench.now_ms,
                urandom=self.entropy,
                relationship=self.relationship(content, identity),
                side=SIDE_A,
                epoch=content.epoch,
                policy=self.policy,
                link=VCU_LINK,
            )
        self.channel.connect()
        self._flush()
        self.bench.until(lambda: self.channel.session_epoch == content.epoch)

    # -- the pair pack and module

    def introduce(self, number, code=b"", commit=True):
        """Give pack and module their keys: packages, pair exchange, commit (the responder first)."""
        lct_id = "lct-%d" % number
        self.epochs[lct_id] = self.epochs.get(lct_id, 0) + 1
        pack_identity = self.identify(PACK_NODE)
        identity = self.identify(number)
        self.counter = max(self.counter, identity.counter, pack_identity.counter)
        to_module = self.make_package(identity, number, lct_id, pack_identity.public_key)
        module = self.give(number, to_module, identity, code)
        to_pack = self.make_package(
            pack_identity,
            number,
            lct_id,
            identity.public_key,
            role=INITIATOR,
            side=SIDE_A,
        )
        pack = self.give(PACK_NODE, to_pack, pack_identity)
        self.post(PACK_NODE, provision.PAIR, provision.epoch_body(pack.tag, pack.epoch))
        self.paired(module, fingerprint(pack_identity.public_key))
        self.paired(pack, fingerprint(identity.public_key))
        if commit:
            assert self.order(module, provision.COMMIT) == 0
            assert self.order(pack, provision.COMMIT) == 0
        return pack, module

    # -- traffic

    def seal(self, name, **values):
        """Send a sealed message to the pack."""
        row = by_name(name)
        for frame in self.channel.seal(row.base << 18 | PACK_NODE, bytes(encode(row, values))):
            self.send(frame)


def keyed_bench(modules=2, scope=package.SCOPE_ALL, policy=DEFAULT_POLICY, **options):
    """(bench, app): everything claimed, keyed, and in session."""
    bench = Bench(modules, **options)
    app = App(bench, policy=policy)
    pack = bench.nodes["pack"]
    bench.until(lambda: len(pack.slots) == modules)
    app.claim_pack(pack.claim_code(), scope)
    for name, node in list(bench.nodes.items()):
        if name != "pack":
            app.introduce(node.own_node, node.claim_code())
    bench.until(lambda: all(slot.established for slot in pack.keyed_slots()))
    bench.run(1000)
    bench.sound()
    return bench, app


def clear_frame(name, node, **values):
    """A clear 29-bit frame of a row."""
    row = by_name(name)
    return Frame(row.base << 18 | node, bytes(encode(row, values)))
