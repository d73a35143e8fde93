"""What tests of rotation share: a ledger of records, epochs brought to their limit, a power cut at a store write."""

from nodebench import keyed_bench
from packtrust import provision, report
from packtrust.channel import OPENED
from packtrust_node.slots import MISSES
from packtrust_node.store import MemorySlots

ROTATION_BASES = (0x50C, 0x51C)


class Ledger:
    """Every record between a pack and one module: (direction, epoch, counter) of what was sealed and opened."""

    def __init__(self, pack, module, number=1):
        self.sealed = []
        self.opened = []
        self._watch(pack, pack.slots[number], 0, 1)
        self._watch(module, module.neighbour(module.own_node), 1, 0)

    def _watch(self, node, neighbour, ours, theirs):
        seal = neighbour.seal
        observe = node.observe

        def watched_seal(base, data):
            done = seal(base, data)
            if done:
                channel = neighbour.channel
                self.sealed.append((ours, channel.session_epoch, channel._session.sealed))
            return done

        def watched_observe(about, event):
            if about is neighbour and event.kind == OPENED:
                self.opened.append((theirs, event.epoch, event.counter))
            return observe(about, event)

        neighbour.seal = watched_seal
        node.observe = watched_observe

    def check(self, lost=0):
        """Each was opened exactly once, but for `lost` that never came. (Two sessions of one epoch share numbers.)"""
        missing = sorted(self.sealed)
        for record in self.opened:
            assert record in missing, "opened twice: %r" % (record,)
            missing.remove(record)
        assert len(missing) <= lost, missing


def alone(modules=1, **options):
    """(bench, pack, module): keyed, in session, and the app is gone."""
    bench, app = keyed_bench(modules, **options)
    bench.run(2500)
    bench.app = None
    bench.owner = app
    pack = bench.nodes["pack"]
    bench.run(6000)
    return bench, pack, bench.nodes[name_of(bench, 1)]


def name_of(bench, number):
    """Name of the module with this number; None while nobody has it."""
    for name, node in bench.nodes.items():
        if name != "pack" and node.own_node == number:
            return name
    return None


def use(node, number, eighths):
    """Let a relation of a node have used so many eighths of its epoch's records."""
    for relation in node.relations.values():
        if relation.node == number:
            usage = node.usage
            usage._figures[usage._at(relation)] = relation.max_records * eighths // 8
            return relation
    raise AssertionError("no relation with node byte %d" % number)


def relation_of(node, number):
    """Its relation for a link."""
    return next(relation for relation in node.relations.values() if relation.node == number)


def epochs(bench, number=1):
    """Epochs of pack and module for a pair."""
    module = bench.nodes[name_of(bench, number)]
    return relation_of(bench.nodes["pack"], number).epoch, relation_of(module, number).epoch


def settled(bench, epoch, number=1):
    """Whether both ends have one root, of this epoch or a later one, no other, and talk under it."""
    pack = bench.nodes.get("pack")
    module = bench.nodes.get(name_of(bench, number))
    if pack is None or module is None or number not in pack.slots:
        return False
    slot = pack.slots[number]
    channels = (slot.channel, module.neighbour(number).channel if module.neighbour(number) else None)
    if channels[0] is None or channels[1] is None:
        return False
    ours, theirs = relation_of(pack, number), relation_of(module, number)
    return (
        ours.epoch == theirs.epoch >= epoch
        and ours.root == theirs.root
        and ours.previous is None
        and theirs.previous is None
        and channels[0].session_epoch == ours.epoch == channels[1].session_epoch
        and slot.active(bench.now_ms)
    )


def talking(bench, number=1):
    """Whether both ends have a session of one epoch, and the module answers polls."""
    pack = bench.nodes["pack"]
    module = bench.nodes.get(name_of(bench, number))
    slot = pack.slots.get(number)
    neighbour = None if module is None else module.neighbour(number)
    if slot is None or neighbour is None or not slot.established or not neighbour.established:
        return False
    same = slot.channel.session_epoch == neighbour.channel.session_epoch
    return same and slot.active(bench.now_ms) and slot.row[MISSES] == 0


def refusals(channel):
    """What a channel refused, by reason."""
    return {key: value for key, value in channel.stats.items() if key not in ("opened", "sealed", "established")}


def ask_report(bench, app, target, first=0, tag=b""):
    """The Report of a device, asked by its owner."""
    bench.app = app
    identity = app.identify(target)
    key = provision.owner_key(app.private, identity.public_key, provision_fingerprint(identity), app.fingerprint)
    nonce = app.entropy(16)
    message = app.ask(target, provision.STATUS, report.request(nonce, first, tag))
    assert message.kind == provision.REPORT, message.body
    got = report.parse(key, nonce, message.body)
    assert got is not None
    assert report.parse(key, bytes(16), message.body) is None
    return got


def provision_fingerprint(identity):
    """Fingerprint of an Identity."""
    from packtrust.keys import fingerprint

    return fingerprint(identity.public_key)


class PowerCut(BaseException):
    """The supply of a node went; no handler of the node's sees it."""


class CutSlots(MemorySlots):
    """Slots whose node loses its power at the n-th write: before it, in the middle of it, or right after."""

    def __init__(self, files=None):
        MemorySlots.__init__(self)
        self.files = files if files is not None else {}
        self.writes = 0
        self.cut_at = 0
        self.how = "before"

    def write(self, name, data):
        self.writes += 1
        if self.writes != self.cut_at:
            MemorySlots.write(self, name, data)
            return
        if self.how == "torn":
            MemorySlots.write(self, name, data[: len(data) // 2])
        elif self.how == "after":
            MemorySlots.write(self, name, data)
        raise PowerCut(name)
