"""Attack: a record comes with bit 17 clear, to a receiver that would open it.

Setting    a keyed pair of pack and module. A node looks at bit 17 first and opens nothing without it; here that look is left
           out, so that the AAD alone stands in the way: as in a gateway, or a driver, that loses the bit.
Means      the cable: the pack's records do not arrive, and come with bit 17 clear.
Success    would be a record that is opened though its frames say that they are clear.
"""

from attack_suite import Attack
from nodebench import MODULE_BUS, keyed_bench
from packtrust.arbitration import ENCRYPTED
from packtrust.channel import OPENED
from packtrust.frame import Frame
from packtrust.messages.table import STATE_ON
from weakening import Weakening

LOOK = (
    (
        "packtrust.channel",
        "        if not head & ENCRYPTED:\n            return _feed_clear",
        "        if clear_of(head) == self._counts[_RX_HANDSHAKE]:\n            return _feed_clear",
    ),
    (
        "packtrust.channel",
        "        if not head & ENCRYPTED:\n            return self._on_message",
        "        if clear_of(head) == self._counts[_RX_HANDSHAKE]:\n            return self._on_message",
    ),
)
AAD = (
    (
        "packtrust.channel",
        "_WORK_CITING, work, 0, VERSION, head & _STREAM, tx",
        "_WORK_CITING, work, 0, VERSION, head & _STREAM & ~ENCRYPTED, tx",
    ),
    (
        "packtrust.channel",
        "lay_into(_WORK, work, 0, VERSION, head & _STREAM, tx",
        "lay_into(_WORK, work, 0, VERSION, head & _STREAM & ~ENCRYPTED, tx",
    ),
    (
        "packtrust.channel",
        "lay_into(form, work, 0, VERSION, full_id, rx.binding, size, 0, record)\n            if shared.rx",
        "lay_into(form, work, 0, VERSION, full_id & ~ENCRYPTED, rx.binding, size, 0, record)\n            if shared.rx",
    ),
    (
        "packtrust.channel",
        "lay_into(form, work, 0, VERSION, full_id, rx.binding, size, 0, record)\n            counter",
        "lay_into(form, work, 0, VERSION, full_id & ~ENCRYPTED, rx.binding, size, 0, record)\n            counter",
    ),
)
ATTACK = Attack(
    name="bit 17 out of the AAD",
    source="S11",
    defence="bit 17 is in the AAD: a record opens with it alone",
    without="an AAD without bit 17, and a receiver that does not look at it",
    weakening=Weakening(*LOOK, *AAD),
)


def carry_out():
    """How many of the held back records are opened with bit 17 clear, and what they are refused for."""
    bench, app = keyed_bench(1)
    held = []

    def spy(bus, sender, frame):
        if bus == MODULE_BUS and sender == "pack" and frame.arbitration_id & ENCRYPTED and frame.arbitration_id & 0xFF:
            held.append(frame.copy())
            return False
        return True

    bench.spy = spy
    app.seal("COMMAND", contactor_state=STATE_ON)
    bench.run(400)
    channel = bench.nodes["module0"].neighbour(1).channel
    opened = 0
    reasons = []
    for frame in held:
        event = channel.feed(Frame(frame.arbitration_id ^ ENCRYPTED, bytes(frame.data)))
        opened += event is not None and event.kind == OPENED
        reasons += [] if event is None or not event.reason else [event.reason]
    assert len(held) > 20
    return opened, reasons


def test_attack():
    opened, reasons = carry_out()
    assert opened == 0 and set(reasons) == {"clear"}


def test_the_aad_alone_holds():
    with Weakening(*LOOK).applied():
        opened, reasons = carry_out()
    assert opened == 0 and len(reasons) > 3 and set(reasons) == {"tag"}


def test_control(weakness):
    opened, _ = carry_out()
    assert opened > 3


def test_control_the_records_are_good():
    with Weakening(*AAD).applied():
        assert carry_out()[0] == 0  # and the look alone holds as well
