"""What tests of the pack's broadcast share: to find, forge, replay and lose it on a nodebench.Bench. Portable."""

from nodebench import MODULE_BUS
from packtrust.arbitration import ENCRYPTED, compose
from packtrust.group import GroupSender
from packtrust.messages.table import STATE_ON
from packtrust.workspace import Workspace

HEARTBEAT = compose(0x517, 0)


def modules_of(bench):
    return [bench.nodes[name] for name in sorted(bench.nodes) if name != "pack"]


def is_broadcast(bus, frame):
    return bus == MODULE_BUS and frame.arbitration_id & ~0x1FF00 == HEARTBEAT | ENCRYPTED


def beats(bench, since_ms=0):
    """(time, frames) of the broadcasts in the log."""
    found = []
    for at_ms, bus, _, frame in bench.log:
        if at_ms >= since_ms and is_broadcast(bus, frame):
            if not frame.arbitration_id >> 12 & 15:
                found.append((at_ms, []))
            if found:
                found[-1][1].append(frame)
    return [item for item in found if len(item[1]) == 4]


def play(bench, frames, sender="attacker"):
    for frame in frames:
        bench.inject(MODULE_BUS, frame, sender)


def forged(member, state, ahead=100):
    """A broadcast as a member can make it: it holds the key."""
    group = member._group
    sender = GroupSender(Workspace(), bytes(32), bytes(32), group.beat + ahead)
    sender._material[:] = group._material
    sender._prefix = group._prefix
    sender._binding = group._binding
    return [frame.copy() for frame in sender.seal(HEARTBEAT, bytes((state,)))]


def switch_on(bench, app):
    app.seal("COMMAND", contactor_state=STATE_ON)
    bench.run(300)
    for module in modules_of(bench):
        assert module.state == STATE_ON and module.max_state == STATE_ON


def hold(bench, what):
    """Lose the frames for which `what(frame)` holds."""

    def spy(bus, sender, frame):
        return not (bus == MODULE_BUS and what(frame))

    bench.spy = spy


def to_module(frame):
    """Whether it is a sealed frame of the pack to one module."""
    base = frame.arbitration_id >> 18
    return frame.arbitration_id & ENCRYPTED and 0x510 <= base <= 0x51F and frame.arbitration_id & 0xFF != 0
