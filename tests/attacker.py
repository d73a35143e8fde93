"""What an attacker on the bus has: every frame that was ever on it, any frame he likes, his own keys, a whole app.

Beside that, `unharmed`: the pack does its work, and no node has met an error of its own.
"""

from __future__ import annotations

import base64
from typing import Any

import nodebench
from app_bench import AppBench
from packtrust import package, provision
from packtrust.arbitration import ENCRYPTED, compose
from packtrust.channel import Channel
from packtrust.frame import Frame
from packtrust.handshake import INITIATOR
from packtrust.isotp import IsoTpLink
from packtrust.messages import by_name, encode
from packtrust.messages.table import STATE_OFF, STATE_ON
from packtrust.record import RecordCipher
from packtrust.segmentation import Segmenter

PACK = 0x40
COUNTERS_MAX = 60  # kinds of counters a node may have: it is a fixed list, however many bytes come in


class Attacker:
    """A station without keys: hears everything, sends anything."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.heard: list[Frame] = []
        self.app: Any = None  # an App that uses this station

    def start(self) -> None:
        """Nothing to begin."""

    def on_frame(self, port: int, frame: Any) -> None:
        self.heard.append(Frame(frame.arbitration_id, bytes(frame.data), frame.is_extended_id))
        if self.app is not None:
            self.app.on_frame(frame)

    def on_tick(self) -> int:
        if self.app is None:
            return 1000
        self.app.tick()
        return 10

    def send(self, *frames: Frame) -> None:
        for frame in frames:
            self.env.send(0, frame)


def leave(bench: AppBench, name: str = "attacker") -> None:
    """Take his station off its bus."""
    bench.pack.power_off(name)
    station = bench.pack.stations.pop(name)
    for controller in station.controllers:
        controller.bus.detach(controller)


def _cipher(channel: Channel, key_at: int, iv_base_at: int, direction: int) -> RecordCipher:
    assert channel._session is not None
    state = channel._session.state
    sender = channel._binding(direction)[1:]
    return RecordCipher(state[key_at : key_at + 32], bytes(state[iv_base_at : iv_base_at + 4]), direction, sender)


def sealing(channel: Channel) -> RecordCipher:
    """The keys a channel's session seals with, taken out of the node's RAM."""
    return _cipher(channel, 0, 64, 0 if channel.role == INITIATOR else 1)


def opening(channel: Channel) -> RecordCipher:
    """The keys a channel's session opens with."""
    return _cipher(channel, 32, 68, 1 if channel.role == INITIATOR else 0)


def skip(channel: Channel, count: int) -> None:
    """Use up counters of a session in which records were sealed."""
    assert channel._session is not None and channel._session.tx is not None
    channel._session.tx.latest += count


class Wire:
    """An attacker's station as what `nodebench.App` calls its bench."""

    def __init__(self, pack: Any, station: Attacker) -> None:
        self._pack = pack
        self._station = station
        self.queue = self

    @property
    def app(self) -> Any:
        return self._station.app

    @app.setter
    def app(self, app: Any) -> None:
        self._station.app = app

    @property
    def now_ms(self) -> int:
        return int(self._pack.now_ms)

    def append(self, item: tuple[int, str, Frame]) -> None:
        self._station.send(item[2])

    def run(self, ms: int) -> None:
        self._pack.run_for(ms)

    def until(self, condition: Any, ms: int = 5000) -> None:
        assert self._pack.run_until(condition, ms), "not within %d ms" % ms


def relations_of(node: Any) -> list[tuple[bytes, int]]:
    """The relationships of a node, for comparison: what it has of them changes with the next epoch."""
    return sorted((relation.tag, relation.epoch) for relation in node.relations.values())


def attacker(bench: AppBench, bus: str, name: str = "attacker") -> Attacker:
    """A station of his on a bus."""
    station: Attacker = bench.pack.attach(Attacker, bus, name)
    return station


def rogue_app(bench: AppBench, name: str = "rogue") -> Any:
    """A whole app with a binding key of its own, on the VCU bus: nodebench.App."""
    return nodebench.App(Wire(bench.pack, attacker(bench, "vcu", name)), name)


class Tap:
    """Every good frame of a bus, with its sender: (time in ms, sender, frame)."""

    def __init__(self, bench: AppBench, bus: str) -> None:
        self.frames: list[tuple[int, str, Frame]] = []
        self._bus = bench.pack.buses[bus]
        self._bus.listeners.append(self._take)

    def _take(self, frame: Frame, sender: str, start_ns: int, end_ns: int) -> None:
        copy = Frame(frame.arbitration_id, bytes(frame.data), frame.is_extended_id)
        self.frames.append((end_ns // 1_000_000, sender, copy))

    def stop(self) -> list[tuple[int, str, Frame]]:
        self._bus.listeners.remove(self._take)
        return self.frames

    def of(self, sender: str, base: int) -> list[Frame]:
        """29-bit frames of a sender and base."""
        return [
            frame
            for _, who, frame in self.frames
            if who == sender and frame.is_extended_id and frame.arbitration_id >> 18 == base
        ]


def clear_frame(name: str, node: int, **values: int) -> Frame:
    """A clear 29-bit frame of a message."""
    row = by_name(name)
    return Frame(compose(row.base, node), bytes(encode(row, values)))


def transfer(tx_base: int, rx_base: int, node: int, payload: bytes) -> list[Frame]:
    """The frames of an ISO-TP transfer, as if flow control had come."""
    link = IsoTpLink(compose(tx_base, node), compose(rx_base, node))
    link.send(payload, 0)
    frames = link.outgoing()
    link.feed(Frame(compose(rx_base, node), b"\x30\x00\x00"), 0)
    return frames + link.outgoing()


def to_pack(kind: int, target: int, body: bytes, sequence: int = 77) -> list[Frame]:
    """A provisioning message, as frames."""
    return transfer(0x431, 0x432, PACK, provision.frame_message(kind, target, sequence, body))


def modules_of(bench: AppBench) -> list[Any]:
    """The module nodes."""
    return [station.node for name, station in bench.pack.stations.items() if name.startswith("module")]


def nodes_of(bench: AppBench) -> list[Any]:
    """Pack and modules that have power."""
    return [bench.pack.node("pack"), *(node for node in modules_of(bench) if node is not None)]


def command(bench: AppBench, given: Any, timeout_ms: int = 10_000) -> Any:
    """Let a command of the app end."""
    assert bench.pack.run_until(lambda: given.done, timeout_ms), given
    return given


def obeyed(bench: AppBench, state: int) -> None:
    """Command a state; every module is in it, by its own word and by its current."""
    result = command(bench, bench.node.set_state(state))
    assert result.state == "obeyed", result
    for module in modules_of(bench):
        assert module.state == state
        assert bool(module.cells.current_ma) == (state == STATE_ON)


def announcement(slot: Any) -> Frame:
    """What a module says of itself in clear: anybody can."""
    values = {"firmware_build": 8278, "manufacturer": 2, "part": 3, "unique_id": slot.unique_id}
    row = by_name("ANNOUNCEMENT")
    return Frame(compose(row.base, slot.number), bytes(encode(row, values)))


def sessions(bench: AppBench) -> bool:
    """Whether the app and every module has its session, by both ends' word."""
    slots = bench.pack.node("pack").keyed_slots()
    if not slots or not bench.node.established or not bench.pack.node("pack").app.established:
        return False
    modules = [node for node in modules_of(bench) if node is not None]
    return all(slot.established for slot in slots) and all(node.stats()["session"] for node in modules)


def unharmed(bench: AppBench) -> None:
    """Sessions are up, commands are obeyed, telemetry comes, no node met an error, counters are a short list."""
    assert bench.pack.run_until(lambda: sessions(bench), 15_000)
    count = len(modules_of(bench))
    assert bench.pack.run_until(lambda: len(bench.node.model.online(bench.pack.now_ms)) == count, 10_000)
    obeyed(bench, STATE_ON)
    obeyed(bench, STATE_OFF)
    for node in nodes_of(bench):
        assert node.counters["internal"] == 0, node.counters
        assert len(node.counters) < COUNTERS_MAX
    for station in bench.pack.stations.values():
        assert not any("internal error" in line for line in station.log)


def total(node: Any, *names: str) -> int:
    """Sum of some counters of a node."""
    return sum(node.counters.get(name, 0) for name in names)


def commission(bench: AppBench, claim: bool = True, **options: Any) -> Any:
    """Claim (copy the codes from the consoles) and provision all that is no attacker's; sessions are up."""
    names = [name for name in bench.pack.stations if name == "pack" or name.startswith("module")]
    if claim:
        bench.claim(*names)
    script = bench.provisioner(**options).commission(bench.register, expected_modules=len(names) - 1)
    survey = bench.run(script)
    assert bench.pack.run_until(lambda: sessions(bench), 10_000)
    return survey


def slot_of(bench: AppBench, name: str) -> Any:
    """The pack's slot of a module, also of one without power."""
    unique_id = bench.pack.configs[name]["unique_id"]
    return next(slot for slot in bench.pack.node("pack").slots.values() if slot.unique_id == unique_id)


class Secrets:
    """What nobody may see: collected where it comes into being, and looked for elsewhere.

    As a context manager it takes down what goes into packages; `of_nodes` what the nodes hold at the moment.
    """

    PIECE = 6  # bytes: no 6 bytes of a secret turn up by chance in what one pack says

    def __init__(self) -> None:
        self.values: dict[bytes, str] = {}
        self.packages: list[Any] = []  # KeyPackage, as the owner sealed them; with their own copies of the halves
        self.bodies: list[tuple[Any, bytes]] = []  # (package, body of its PACKAGE message)

    def add(self, name: str, value: Any) -> None:
        if any(value):
            self.values[bytes(value)] = name

    def __enter__(self) -> Secrets:
        self._seal = package.seal

        def seal(content: Any, *arguments: Any, **more: Any) -> Any:
            copy = package.decode(content.encode())
            body, digest, receipt_key = self._seal(content, *arguments, **more)
            self.bodies.append((copy, body))
            self.add("receipt key", receipt_key)
            if isinstance(copy, package.KeyPackage):
                self.packages.append(copy)
                self.add("half A", copy.half_a)
                self.add("half B", copy.half_b)
                self.add("LCT half", copy.lct_half)
            return body, digest, receipt_key

        package.seal = seal
        return self

    def __exit__(self, *exc_info: object) -> None:
        package.seal = self._seal

    def of_nodes(self, bench: AppBench) -> None:
        """Binding keys, claim codes, roots, and the keys of the sessions there are."""
        self.add("the app's binding key", bench.store.private_key)
        for node in nodes_of(bench):
            self.add("binding key", node.identity.private)
            self.add("claim code", node.identity.claim_code)
            for relation in node.relations.values():
                self.add("root", relation.root)
        pack = bench.pack.node("pack")
        for neighbour in [pack.app, *(slot for slot in pack.slots.values())]:
            if neighbour.established:
                state = neighbour.channel._session.state
                self.add("session key", state[:32])
                self.add("session key", state[32:64])

    def pieces(self) -> dict[bytes, str]:
        """Every 6 bytes in a row of every secret, plain and with the bits of each byte rotated (S2)."""
        found = {}
        for value, name in self.values.items():
            for turn in range(8):
                turned = bytes((byte << turn | byte >> 8 - turn) & 0xFF for byte in value)
                for at in range(len(turned) - self.PIECE + 1):
                    found[turned[at : at + self.PIECE]] = name
        return found

    def in_frames(self, frames: Any) -> set[str]:
        """Names of the secrets that frames show in clear, in one frame or across two."""
        pieces = self.pieces()
        found = set()
        tails: dict[int, bytes] = {}
        for frame in frames:
            stream = frame.arbitration_id & ~0x1FF00
            # ISO-TP has one or two bytes of its own in front; chunks have none.
            for skipped in (0, 1, 2):
                data = tails.get(stream, b"") + bytes(frame.data)[skipped:]
                for at in range(len(data) - self.PIECE + 1):
                    name = pieces.get(data[at : at + self.PIECE])
                    if name is not None:
                        found.add(name)
            tails[stream] = bytes(frame.data)[-(self.PIECE - 1) :]
        return found

    def in_text(self, text: str) -> set[str]:
        """Names of the secrets a text shows: as hex, Base64 or the repr of bytes."""
        found = set()
        lower = text.lower()
        for value, name in self.values.items():
            piece = value[:12]
            forms = (piece.hex(), piece[::-1].hex(), piece.hex(" "), piece.hex(":"), str(list(piece))[1:-1].lower())
            if any(form in lower for form in forms):
                found.add(name)
            if base64.b64encode(piece).decode() in text or repr(piece)[2:-1] in text:
                found.add(name)
        return found


class Liar(Attacker):
    """Answers provisioning messages in the pack's name: `answer(message) -> list of (kind, target, body)`."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.answer: Any = None
        self.link = IsoTpLink(compose(0x432, PACK), compose(0x431, PACK), 4095)

    def on_frame(self, port: int, frame: Any) -> None:
        super().on_frame(port, frame)
        if not frame.is_extended_id or frame.arbitration_id != self.link.rx_id:
            return
        payload = self.link.feed(frame, self.env.now_ms())
        message = None if payload is None else provision.parse(bytes(payload))
        if message is not None and self.answer is not None:
            for kind, target, body in self.answer(message):
                self.link.send(
                    provision.frame_message(kind, target, message.sequence if kind != provision.PAIRED else 0, body),
                    self.env.now_ms(),
                )
        self.on_tick()

    def on_tick(self) -> int:
        self.link.tick(self.env.now_ms())
        for frame in self.link.outgoing():
            self.send(frame)
        return 5


def group_cipher(module: Any) -> tuple[RecordCipher, int]:
    """What seals broadcasts, out of a member's RAM, and the newest counter it has heard."""
    group = module._group
    material = bytes(group._material)
    return RecordCipher(material[:32], material[32:], 2, group._binding[1:]), int(group.beat)


def heartbeat(cipher: RecordCipher, counter: int, state: int) -> list[Frame]:
    """The frames of a broadcast MAX_STATE."""
    full_id = compose(by_name("MAX_STATE").base, 0) | ENCRYPTED
    return Segmenter().split(full_id, cipher.seal(full_id, counter, bytes((state,))))
